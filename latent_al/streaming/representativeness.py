"""Representativeness of latents that are read block by block: those of the measures that need sums over the set only.

The values are those of `kernels.representativeness`, within rounding: in [0, 1], 1 = most representative. Besides
blocks each needs O(n) memory, the value of each row. The Euclidean density is quadratic in n and is not here.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from latent_al.kernels.distances import squared_euclidean_to_point
from latent_al.kernels.representativeness import (
    JTerms,
    cosine_values,
    j_spreads,
    j_terms,
    kl_values,
    mean_j,
    unit_rows,
)
from latent_al.streaming.stream import Source, blocks, rows_at
from latent_al.types import BadInput


def cosine_density(x: Source, *, block_bytes: int | None = None) -> Float[np.ndarray, " n"]:
    """Mean cosine similarity to all rows, as (1 + mean) / 2. Two passes.

    Raises:
        BadInput: a row is zero, NaN or infinite, or what `stream.blocks` refuses.
    """
    (mean,) = _means(_units, [x], block_bytes)
    return _rows(cosine_values, [x], block_bytes, mean)


def squared_euclidean_density(x: Source, *, block_bytes: int | None = None) -> Float[np.ndarray, " n"]:
    """One minus the mean squared Euclidean distance to all rows, over the largest such mean. Two passes.

    Raises:
        BadInput: all rows are equal, one is NaN or infinite, or what `stream.blocks` refuses.
    """
    origin = _first(x)
    (mean,) = _means(_about, [x], block_bytes, origin)
    squares = _rows(_squares_about, [x], block_bytes, origin, mean)
    squares += np.float32(squares.mean(dtype=np.float64))
    return _reversed(squares, "all rows are equal")


def jeffreys_density(mu: Source, log_sigma: Source, *, block_bytes: int | None = None) -> Float[np.ndarray, " n"]:
    """One minus the mean Jeffreys divergence to all Gaussians N(mu, diag(sigma^2)), over the largest. Three passes.

    Raises:
        BadInput: all rows are equal, one is NaN or infinite, or what `stream.blocks` refuses.
    """
    sources, unit = [mu, log_sigma], (_first(mu), _first(log_sigma))
    means = JTerms(*_means(j_terms, sources, block_bytes, *unit))
    spreads = _means(_j_spreads, sources, block_bytes, *unit, means)
    return _reversed(_rows(_mean_j, sources, block_bytes, *unit, means, spreads), "all rows are equal")


def kl_to_prior(mu: Source, log_sigma: Source, *, block_bytes: int | None = None) -> Float[np.ndarray, " n"]:
    """One minus KL(N(mu, diag(sigma^2)) || N(0, I)) over its largest value. One pass.

    Raises:
        BadInput: all rows are N(0, I), one is NaN or infinite, or what `stream.blocks` refuses.
    """
    return _reversed(_rows(kl_values, [mu, log_sigma], block_bytes), "all rows are N(0, I)")


def closeness_to_origin(mu: Source, *, block_bytes: int | None = None) -> Float[np.ndarray, " n"]:
    """One minus the Euclidean distance to the origin over its largest value. One pass.

    Raises:
        BadInput: all rows are zero, one is NaN or infinite, or what `stream.blocks` refuses.
    """
    return _reversed(_rows(_norms, [mu], block_bytes), "all rows are zero")


def squared_closeness_to_origin(mu: Source, *, block_bytes: int | None = None) -> Float[np.ndarray, " n"]:
    """One minus the squared Euclidean distance to the origin over its largest value. One pass.

    Raises:
        BadInput: all rows are zero, one is NaN or infinite, or what `stream.blocks` refuses.
    """
    return _reversed(_rows(squared_euclidean_to_point, [mu], block_bytes, jnp.zeros(mu.width)), "all rows are zero")


def _units(x):
    return (unit_rows(x),)


def _about(x, origin):
    return (x - origin[None, :],)


def _squares_about(x, origin, mean):
    return squared_euclidean_to_point(x - origin[None, :], mean)


def _j_spreads(mu, log_sigma, unit_mu, unit_log_sigma, means):
    return j_spreads(j_terms(mu, log_sigma, unit_mu, unit_log_sigma), means)


def _mean_j(mu, log_sigma, unit_mu, unit_log_sigma, means, spreads):
    return mean_j(j_terms(mu, log_sigma, unit_mu, unit_log_sigma), means, spreads)


def _norms(x):
    return jnp.linalg.norm(x, axis=1)


def _first(source):
    return jnp.asarray(rows_at(source, np.zeros(1, int))[0])


def _means(function, sources, block_bytes, *known):
    """The mean over all rows of each of the arrays [b d] that `function` gives of a block: one pass."""
    totals = 0.0
    for block in blocks(*sources, block_bytes=block_bytes):
        sums = np.asarray(_sums(function, block.stop - block.start, *block.latents, *known), np.float64)
        _check_finite(np.isfinite(sums).all(), block)
        totals = totals + sums
    return tuple(jnp.asarray(each, jnp.float32) for each in totals / sources[0].num_rows)


def _rows(function, sources, block_bytes, *known):
    """What `function` gives of each row: one pass."""
    values = np.zeros(sources[0].num_rows, np.float32)
    for block in blocks(*sources, block_bytes=block_bytes):
        own = np.asarray(_values(function, *block.latents, *known))[: block.stop - block.start]
        _check_finite(np.isfinite(own).all(), block)
        values[block.start : block.stop] = own
    return values


@partial(jax.jit, static_argnums=0)
def _sums(function, count, *args):
    found = function(*args)
    exists = jnp.arange(len(found[0]))[:, None] < count
    return jnp.stack([jnp.where(exists, each, 0).sum(axis=0) for each in found])


@partial(jax.jit, static_argnums=0)
def _values(function, *args):
    return function(*args)


def _check_finite(is_finite, block):
    if not is_finite:
        raise BadInput(
            f"some of rows {block.start} to {block.stop - 1} have no representativeness: NaN, infinite or too large, "
            "or zero without a direction; look at what they were made from, or choose another measure."
        )


def _reversed(distances, cause):
    largest = distances.max()
    if not largest > 0:
        raise BadInput(f"the rows have no representativeness: {cause}; choose another measure.")
    return np.clip(1 - distances / largest, 0, 1)
