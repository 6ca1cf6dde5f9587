"""Uncertainty sampling: the thesis on active learning in VAE latent space, section 3.4.1."""

from latent_al import kernels
from latent_al.base import BadInput, Select

MEASURES = {
    "least_confident": kernels.least_confident,
    "margin": kernels.margin,
    "entropy": kernels.entropy,
}
PICKS = {
    "top_k": lambda key, score, taken, num: kernels.top_k(score, taken, num),
    "random_partitions": kernels.random_partitions,
}


def uncertainty(*, measure: str, pick: str) -> Select:
    """Rows that the classifier is least sure of.

    Args:
        measure: `least_confident`, `margin` or `entropy`.
        pick: `top_k`, or `random_partitions` for a batch with less redundancy.

    Raises:
        BadInput: an unknown measure or pick, or a pool without predictions.
    """
    for name, table, what in ((measure, MEASURES, "measure"), (pick, PICKS, "pick")):
        if name not in table:
            raise BadInput(f"unknown {what} {name!r} of uncertainty; known: {', '.join(sorted(table))}.")

    def select(key, pool, num):
        if pool.probs is None:
            raise BadInput(
                "uncertainty needs a classifier's predictions and a first batch has none; "
                "set config.initial to a strategy that reads latents only, such as random."
            )
        return PICKS[pick](key, MEASURES[measure](pool.probs), pool.taken, num)

    return select
