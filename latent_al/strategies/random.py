"""Passive learning: the baseline of every comparison, and the initial labelled set of Tonnaer (2017)."""

import jax

from latent_al.kernels import selection
from latent_al.types import Strategy


def random() -> Strategy:
    """Selects rows uniformly at random, without replacement, in O(n) time and memory."""

    def query(key, pool, num):
        return selection.top_k(jax.random.uniform(key, pool.taken.shape), pool.taken, num)

    return Strategy(query)
