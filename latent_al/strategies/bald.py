"""Disagreement of a classifier with itself: Gal, Islam and Ghahramani, Deep Bayesian Active Learning (2017)."""

import jax

from latent_al import kernels
from latent_al.strategies.uncertainty import PICKS
from latent_al.types import BadInput, Strategy, check_name


def bald(*, num_draws: int, pick: str) -> Strategy:
    """Selects rows of the largest mutual information between class and model, by MC dropout.

    A round takes num_draws predictions and O(n c) memory for n rows of c classes.

    Args:
        num_draws: MC-dropout predictions, 2 or more.
        pick: `top_k`, or `random_partitions` for a batch with less redundancy.

    Raises:
        BadInput: an unknown pick, too few predictions, a pool without a classifier that has dropout.
    """
    check_name(pick, PICKS, "pick")
    if num_draws < 2:
        raise BadInput(f"bald has num_draws {num_draws}; expected 2 or more.")

    def query(key, pool, num):
        if pool.mc_dropout is None or pool.probs is None:
            raise BadInput(
                "bald needs the MC-dropout predictions of a classifier: give the classifier a dropout above 0, and "
                "config.initial a strategy that reads latents only, such as random."
            )
        key_dropout, key_pick = jax.random.split(key)
        score = kernels.mutual_information(key_dropout, pool.mc_dropout, num_draws=num_draws)
        return PICKS[pick](key_pick, score, pool.taken, num)

    return Strategy(query)
