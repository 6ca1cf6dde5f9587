"""Requirements on the latents, which strategies declare and the runner checks once per encoder."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from latent_al.types import Encoded, Strategy


class LatentStats(NamedTuple):
    """Facts that strategies may require of the latents of a training set; None marks one that shapes do not reveal.

    Attributes:
        num_rows: number of latents.
        has_spread: the encoder gives `log_sigma`.
        has_errors: the encoder reconstructs.
        num_not_finite: rows with a coordinate that is NaN or infinite.
        is_constant: all rows are equal.
        num_zero: rows that are zero vectors.
        lowest: the lowest of all coordinates.
        highest: the highest of all coordinates.
    """

    num_rows: int
    has_spread: bool
    has_errors: bool
    num_not_finite: Int[Array, ""] | None = None
    is_constant: Int[Array, ""] | None = None
    num_zero: Int[Array, ""] | None = None
    lowest: Float[Array, ""] | None = None
    highest: Float[Array, ""] | None = None


def stats_of_shapes(encoded: Encoded) -> LatentStats:
    """Returns what the shapes of an encoded training set reveal, before it is encoded.

    Args:
        encoded: a training set in latent space, or its `jax.ShapeDtypeStruct`.
    """
    return LatentStats(len(encoded.latents), encoded.log_sigma is not None, encoded.errors is not None)


def latent_stats(encoded: Encoded) -> LatentStats:
    """Returns the statistics of an encoded training set, in and out of `jit`.

    Args:
        encoded: a training set in latent space.
    """
    latents = encoded.latents
    return stats_of_shapes(encoded)._replace(
        num_not_finite=(~jnp.isfinite(latents).all(axis=1)).sum(),
        is_constant=(latents.max(axis=0) == latents.min(axis=0)).all(),
        num_zero=(~latents.any(axis=1)).sum(),
        lowest=latents.min(),
        highest=latents.max(),
    )


def check_needs(strategy: Strategy, stats: LatentStats) -> None:
    """Checks what a strategy needs of the latents, as far as `stats` tell.

    Args:
        strategy: with what it needs.
        stats: of the latents, or of their shapes alone.

    Raises:
        ValueError: the latents are not what it needs.
    """
    for need, source in strategy.needs.items():
        if problem := NEEDS[need](stats):
            raise ValueError(f"{source} {problem}")


def check_prepared(num_nan: int, num_rows: int) -> None:
    """Checks that nothing that a strategy prepared is NaN.

    Raises:
        ValueError: some of it is.
    """
    if num_nan:
        raise ValueError(
            f"what the strategy prepares is NaN for {num_nan} of {num_rows} rows: latents are zero, equal or too far "
            "out; look at what they were made from, or choose another measure or distance."
        )


def count_nan(prepared: PyTree, num_rows: int) -> Int[Array, ""]:
    """Returns the largest number of NaN in any one array, among arrays with one value a row and scalars."""
    arrays = [leaf for leaf in jax.tree.leaves(prepared) if leaf.shape in ((), (num_rows,))]
    floats = [leaf for leaf in arrays if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.int32(0), *(jnp.isnan(leaf).sum(dtype=jnp.int32) for leaf in floats)]).max()


def _spread(stats):
    if not stats.has_spread:
        return (
            "needs the spread of each latent, which this encoder does not give; choose a variational auto-encoder, or "
            "a measure or distance of points such as euclidean."
        )
    return None


def _errors(stats):
    if not stats.has_errors:
        return "needs reconstructions, which this encoder does not make; choose an auto-encoder."
    return None


def _distinct(stats):
    if stats.num_not_finite:
        return (
            f"needs finite latents, but {stats.num_not_finite} of {stats.num_rows} are NaN or infinite; train the "
            "encoder with a lower learning_rate."
        )
    if stats.is_constant:
        return f"needs latents that differ, but all {stats.num_rows} latents are equal; choose another encoder."
    return None


def _nonzero(stats):
    if stats.num_zero:
        return (
            f"needs latents with a direction, but {stats.num_zero} of {stats.num_rows} latents are zero; choose "
            "another measure or distance."
        )
    return None


def _unit_cube(stats):
    if stats.lowest is not None and not (stats.lowest >= 0 and stats.highest <= 1):
        return (
            f"with unit_cube needs coordinates in [0, 1], but they are in [{stats.lowest:g}, {stats.highest:g}]; leave "
            "unit_cube out, or choose the encoder identity."
        )
    return None


NEEDS: dict[str, Callable[[LatentStats], str | None]] = {
    "distinct": _distinct,
    "errors": _errors,
    "log_sigma": _spread,
    "nonzero": _nonzero,
    "unit_cube": _unit_cube,
}
"""The requirements that a strategy may declare: latents that are finite and differ, reconstruction errors, a spread,
no zero vectors, coordinates in [0, 1]. Each returns what is wrong, or None.
"""
