"""Representativeness of latents that are read block by block: the measures that need only sums over the set.

The values are those of `kernels.representativeness`, within rounding: in [0, 1], the larger, the more representative.
Besides blocks each needs O(n) memory, for the value of each row. The Euclidean density, quadratic in n, is not here.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from latent_al.kernels.distances import squared_euclidean_to_point
from latent_al.kernels.representativeness import (
    JeffreysSpreads,
    JeffreysTerms,
    cosine_values,
    jeffreys_spreads,
    jeffreys_terms,
    kl_values,
    mean_jeffreys,
    unit_rows,
)
from latent_al.streaming.stream import Source, blocks, rows_at
from latent_al.types import BadInput


class _Gaussian(NamedTuple):
    mu: jax.Array
    log_sigma: jax.Array


def cosine_density(points: Source, *, block_bytes: int | None = None) -> Float[np.ndarray, " n"]:
    """Returns the mean cosine similarity to all rows, as (1 + mean) / 2. Two passes.

    Raises:
        BadInput: a row is zero, NaN or infinite, or `stream.blocks` raises it.
    """
    mean = _means(_units, [points], None, block_bytes)[0]
    return _values(_cosine_values, [points], mean, block_bytes)


def squared_euclidean_density(points: Source, *, block_bytes: int | None = None) -> Float[np.ndarray, " n"]:
    """Returns one minus the mean squared Euclidean distance to all rows, over the largest such mean. Two passes.

    Raises:
        BadInput: all rows are equal, one is NaN or infinite, or `stream.blocks` raises it.
    """
    origin = _first(points)
    mean = _means(_about, [points], origin, block_bytes)[0]
    squares = _values(_squares_about, [points], (origin, mean), block_bytes)
    squares += np.float32(squares.mean(dtype=np.float64))
    return _reversed(squares, "all rows are equal")


def jeffreys_density(mu: Source, log_sigma: Source, *, block_bytes: int | None = None) -> Float[np.ndarray, " n"]:
    """Returns one minus the mean Jeffreys divergence to all Gaussians N(mu, diag(sigma^2)), over the largest.

    Three passes.

    Raises:
        BadInput: all rows are equal, one is NaN or infinite, the sources differ in width, or `stream.blocks` raises it.
    """
    _check_widths(mu, log_sigma)
    sources = [mu, log_sigma]
    unit = _Gaussian(_first(mu), _first(log_sigma))
    means = JeffreysTerms._make(_means(_terms, sources, unit, block_bytes))
    spreads = JeffreysSpreads._make(_means(_spreads, sources, (unit, means), block_bytes))
    return _reversed(_values(_mean_jeffreys, sources, (unit, means, spreads), block_bytes), "all rows are equal")


def kl_to_prior(mu: Source, log_sigma: Source, *, block_bytes: int | None = None) -> Float[np.ndarray, " n"]:
    """Returns one minus KL(N(mu, diag(sigma^2)) || N(0, I)) over its largest value. One pass.

    Raises:
        BadInput: all rows are N(0, I), one is NaN or infinite, the sources differ in width, or `stream.blocks` raises
            it.
    """
    _check_widths(mu, log_sigma)
    return _reversed(_values(_kl_values, [mu, log_sigma], None, block_bytes), "all rows are N(0, I)")


def closeness_to_origin(points: Source, *, block_bytes: int | None = None) -> Float[np.ndarray, " n"]:
    """Returns one minus the Euclidean distance to the origin over its largest value. One pass.

    Raises:
        BadInput: all rows are zero, one is NaN or infinite, or `stream.blocks` raises it.
    """
    return _reversed(_values(_norms, [points], None, block_bytes), "all rows are zero")


def squared_closeness_to_origin(points: Source, *, block_bytes: int | None = None) -> Float[np.ndarray, " n"]:
    """Returns one minus the squared Euclidean distance to the origin over its largest value. One pass.

    Raises:
        BadInput: all rows are zero, one is NaN or infinite, or `stream.blocks` raises it.
    """
    return _reversed(_values(_squares, [points], jnp.zeros(points.width), block_bytes), "all rows are zero")


def _units(latents, statistics):
    del statistics
    return (unit_rows(latents[0]),)


def _cosine_values(latents, mean):
    return cosine_values(latents[0], mean)


def _about(latents, origin):
    return (latents[0] - origin[None, :],)


def _squares_about(latents, statistics):
    origin, mean = statistics
    return squared_euclidean_to_point(latents[0] - origin[None, :], mean)


def _terms(latents, unit):
    return jeffreys_terms(latents[0], latents[1], unit.mu, unit.log_sigma)


def _spreads(latents, statistics):
    unit, means = statistics
    return jeffreys_spreads(_terms(latents, unit), means)


def _mean_jeffreys(latents, statistics):
    unit, means, spreads = statistics
    return mean_jeffreys(_terms(latents, unit), means, spreads)


def _kl_values(latents, statistics):
    del statistics
    return kl_values(latents[0], latents[1])


def _norms(latents, statistics):
    del statistics
    return jnp.linalg.norm(latents[0], axis=1)


def _squares(latents, origin):
    return squared_euclidean_to_point(latents[0], origin)


def _check_widths(mu, log_sigma):
    if mu.width != log_sigma.width:
        raise BadInput(
            f"mu has {mu.width} dimensions and log_sigma {log_sigma.width}; expected the same number: give "
            "both of the same Gaussians."
        )


def _first(source):
    return jnp.asarray(rows_at(source, np.zeros(1, int))[0])


def _means(function: Callable, sources, statistics, block_bytes):
    """Returns the mean over all rows of each of the arrays `function(latents, statistics)` [b d]: one pass."""
    totals = 0.0
    for block in blocks(*sources, block_bytes=block_bytes):
        sums = np.asarray(_block_sums(function, block.stop - block.start, block.latents, statistics), np.float64)
        if not np.isfinite(sums).all():
            _check_finite(np.stack(function(block.latents, statistics), axis=1), block)
            raise BadInput(f"rows {block.start} to {block.stop - 1} are too large to be added; scale them.")
        totals = totals + sums
    return [jnp.asarray(mean, jnp.float32) for mean in totals / sources[0].num_rows]


def _values(function: Callable, sources, statistics, block_bytes):
    """Returns `function(latents, statistics)` [b] of the rows of all blocks [n]: one pass."""
    values = np.zeros(sources[0].num_rows, np.float32)
    for block in blocks(*sources, block_bytes=block_bytes):
        block_values = np.asarray(_block_values(function, block.stop - block.start, block.latents, statistics))
        _check_finite(block_values, block)
        values[block.start : block.stop] = block_values[: block.stop - block.start]
    return values


@partial(jax.jit, static_argnums=0)
def _block_sums(function, count, latents, statistics):
    arrays = function(latents, statistics)
    exists = jnp.arange(len(arrays[0]))[:, None] < count
    return jnp.stack([jnp.where(exists, array, 0).sum(axis=0) for array in arrays])


@partial(jax.jit, static_argnums=0)
def _block_values(function, count, latents, statistics):
    exists = jnp.arange(len(latents[0]))[:, None] < count
    # The zeros beyond may have no value, which `jax_debug_nans` would report as an error.
    return function([jnp.where(exists, part, part[:1]) for part in latents], statistics)


def _check_finite(values, block):
    """Raises BadInput where a value [b ...] of the block's rows is not finite."""
    values = values[: block.stop - block.start]
    is_finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not is_finite.all():
        raise BadInput(
            f"{(~is_finite).sum()} of rows {block.start} to {block.stop - 1} have no representativeness, the first is "
            f"row {block.start + is_finite.argmin()}: NaN, infinite or too large, or zero without a direction; check "
            "what they were computed from, or choose another measure."
        )


def _reversed(distances, cause):
    largest = distances.max()
    if not largest > 0:
        raise BadInput(f"the rows have no representativeness: {cause}; choose another measure.")
    return np.clip(1 - distances / largest, 0, 1)
