"""Passive learning: the baseline of every comparison, and the thesis's first batch."""

import jax

from latent_al.kernels import picks
from latent_al.types import Strategy


def random() -> Strategy:
    """Rows uniformly at random, without replacement."""

    def select(key, pool, num):
        return picks.top_k(jax.random.uniform(key, pool.taken.shape), pool.taken, num)

    return Strategy(select)
