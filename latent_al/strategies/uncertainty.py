"""Uncertainty sampling: Tonnaer (2017), section 3.4.1."""

from collections.abc import Callable

from jaxtyping import Array, Float

from latent_al import kernels
from latent_al.types import BadInput, Pool, Strategy, check_name

MEASURES: dict[str, Callable[..., Array]] = {
    "least_confident": kernels.least_confident,
    "margin": kernels.margin,
    "entropy": kernels.entropy,
}
PICKS = {
    "top_k": lambda key, score, taken, num: kernels.top_k(score, taken, num),
    "random_partitions": kernels.random_partitions,
}

YOUR_LEARNER = " A learner of your own has to return features along with the predictions, not None."
"""Ends a message about features."""


def uncertainty(*, measure: str, pick: str) -> Strategy:
    """Selects rows that the classifier is least sure of, in O(n c) time and O(n) memory.

    Args:
        measure: `least_confident`, `margin` or `entropy`.
        pick: `top_k`, or `random_partitions` for a batch with less redundancy.

    Raises:
        BadInput: an unknown measure or pick, or a pool without predictions.
    """
    check_name(measure, MEASURES, "uncertainty measure")
    check_name(pick, PICKS, "pick")

    def query(key, pool, num):
        return PICKS[pick](key, measured(measure, pool), pool.taken, num)

    return Strategy(query)


def measured(measure: str, pool: Pool) -> Float[Array, " n"]:
    """Returns the uncertainty of each row, in [0, 1].

    Raises:
        BadInput: a pool without predictions.
    """
    return MEASURES[measure](probs_of("uncertainty", pool))


def probs_of(name: str, pool: Pool) -> Float[Array, "n c"]:
    """Returns the class probabilities of the pool, which the strategy `name` needs.

    Raises:
        BadInput: there are none.
    """
    if pool.probs is None:
        raise BadInput(_refusal(f"{name} needs a classifier's predictions"))
    return pool.probs


def features_of(name: str, pool: Pool) -> Float[Array, "n f"]:
    """Returns the features of the pool, which the strategy `name` needs.

    Raises:
        BadInput: there are none.
    """
    if pool.features is None:
        raise BadInput(_refusal(f"{name} needs a classifier's predictions and features") + YOUR_LEARNER)
    return pool.features


def _refusal(need):
    return (
        f"{need}: there are none when the initial labelled set is queried, nor from a regressor; set config.initial, "
        "or the arm's strategy, to one that reads latents only, such as random."
    )
