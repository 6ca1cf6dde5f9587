"""Representativeness of each row for the whole set, in [0, 1]: the larger, the more representative.

A density is one minus the mean distance to all rows, including the row itself, over the largest such mean; the cosine
density is (1 + mean cosine similarity) / 2. The means of the squared Euclidean distance, of the cosine similarity and
of the Jeffreys divergence factor into means over the set: O(n d), and exact. The Euclidean mean is quadratic and is
computed tile by tile. `unit_cube` says that every coordinate lies in [0, 1], as a pixel's does: a distance is then
divided by its bound, and cosine similarity needs no shift.

A row that has no value, and a coordinate outside the unit cube, are refused; inside a caller's `jit` or `vmap`, where
neither can be seen, the first is NaN and the second is clipped.

Source: Tonnaer (2017), section 3.4.2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latent_al.kernels._conditions import UNIT_CUBE, representative
from latent_al.kernels._kernel import kernel
from latent_al.kernels._sharding import column_sums, pairwise_row_sums
from latent_al.kernels.distances import clamped, root

TILE = 1024
"""Rows of a tile of distances, which stays in cache."""


class JeffreysTerms(NamedTuple):
    """The terms of a mean Jeffreys divergence, for each Gaussian and dimension, or their means over the set."""

    mu: Float[Array, "..."]
    weighted: Float[Array, "..."]
    precision: Float[Array, "..."]
    wider: Float[Array, "..."]
    narrower: Float[Array, "..."]
    apart: Float[Array, "..."]


class JeffreysSpreads(NamedTuple):
    """Squared gaps to the mean, and precision-weighted ones to the weighted mean, or the means of both over the set."""

    plain: Float[Array, "..."]
    weighted: Float[Array, "..."]


class _Factors(NamedTuple):
    left: Array
    right: Array


class _Gaps(NamedTuple):
    to_mean: Array
    to_weighted: Array


@kernel(points=UNIT_CUBE, result=representative("a row is zero, and has no direction"))
def cosine_density(points: Float[Array, "n d"], *, unit_cube: bool = False) -> Float[Array, " n"]:
    """Returns the mean cosine similarity to all rows, as (1 + mean) / 2, or as it is where `unit_cube`.

    Raises:
        ValueError: a row is zero, NaN or infinite, or lies outside the unit cube.
    """
    return cosine_values(points, column_sums(unit_rows(points)) / len(points), unit_cube)


@kernel(points=UNIT_CUBE, result=representative("all rows are equal"))
def squared_euclidean_density(points: Float[Array, "n d"], *, unit_cube: bool = False) -> Float[Array, " n"]:
    """Returns one minus the mean squared Euclidean distance to all rows, scaled.

    Raises:
        ValueError: all rows are equal, one is NaN or infinite, or one lies outside the unit cube.
    """
    squares = _centred(points) ** 2
    means = squares.sum(axis=1) + column_sums(squares).sum() / len(points)
    return _reversed(means, points.shape[1] if unit_cube else None)


@kernel(points=UNIT_CUBE, result=representative("all rows are equal"))
def euclidean_density(points: Float[Array, "n d"], *, unit_cube: bool = False) -> Float[Array, " n"]:
    """Returns one minus the mean Euclidean distance to all rows, scaled. O(n^2 d) time, O(n d) memory.

    Distances come from matrix products: those below some 5e-4 of the set's radius carry an error of that size. There is
    a gradient but no second derivative, which would involve the distance of a row to itself.

    Raises:
        ValueError: all rows are equal, one is NaN or infinite, or one lies outside the unit cube.
    """
    factors = _factors(_centred(points))
    sums = pairwise_row_sums(_sums_of_distances, factors.left, factors.right, TILE)
    return _reversed(sums[: len(points)] / len(points), points.shape[1] ** 0.5 if unit_cube else None)


@kernel(points=UNIT_CUBE, result=representative("all rows compared are equal"))
def euclidean_density_estimate(
    key: PRNGKeyArray, points: Float[Array, "n d"], *, fraction: float, unit_cube: bool = False
) -> Float[Array, " n"]:
    """Returns `euclidean_density` with each mean taken over a random `fraction` of the other rows, drawn for each row.

    The rows are shuffled once, and each is compared with those that follow it, cyclically. Each mean is unbiased; the
    density, which divides by the largest of them, is not.

    Args:
        fraction: share of the other rows, in (0, 1].

    Raises:
        ValueError: `fraction` is outside (0, 1], there is a single row, all rows are equal, one is NaN or infinite, or
            one lies outside the unit cube.
    """
    if not 0 < fraction <= 1 or len(points) < 2:
        raise ValueError(f"fraction is {fraction} of {len(points)} rows; expected a share in (0, 1] of 2 rows or more.")
    n, d = points.shape
    num = max(1, round(fraction * (n - 1)))
    order = jax.random.permutation(key, n)
    centred = _centred(points)
    behind = jnp.arange(1, TILE + num)[None, :] - jnp.arange(TILE)[:, None]
    used = (behind > 0) & (behind <= num)

    def tile_sums(start):
        # Tile by tile, since a shuffled copy of all points would have to move.
        factors = _factors(centred[order[(start + jnp.arange(TILE + num)) % n]])
        return jnp.where(used, _distances(factors.left[:TILE], factors.right[1:]), 0).sum(axis=1)

    sums = jax.lax.map(tile_sums, jnp.arange(0, n, TILE)).reshape(-1)[:n]
    means = jnp.zeros(n, points.dtype).at[order].set(sums / num * (n - 1) / n)
    return _reversed(means, d**0.5 if unit_cube else None)


@kernel(result=representative("all rows are equal"))
def jeffreys_density(mu: Float[Array, "n d"], log_sigma: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Returns one minus the mean Jeffreys divergence to all Gaussians N(mu, diag(sigma^2)), over the largest such mean.

    Raises:
        ValueError: all rows are equal, or one is NaN or infinite.
    """
    terms = jeffreys_terms(mu, log_sigma, mu[0], log_sigma[0])
    means = jax.tree.map(lambda term: column_sums(term) / len(mu), terms)
    spreads = jax.tree.map(lambda spread: column_sums(spread) / len(mu), jeffreys_spreads(terms, means))
    return _reversed(mean_jeffreys(terms, means, spreads), None)


@kernel(result=representative("all rows are N(0, I)"))
def kl_to_prior(mu: Float[Array, "n d"], log_sigma: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Returns one minus KL(N(mu, diag(sigma^2)) || N(0, I)) over its largest value.

    Raises:
        ValueError: all rows are N(0, I), or one is NaN or infinite.
    """
    return _reversed(kl_values(mu, log_sigma), None)


@kernel(result=representative("all rows are zero"))
def closeness_to_origin(points: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Returns one minus the Euclidean distance to the origin over its largest value.

    Raises:
        ValueError: all rows are zero, or one is NaN or infinite.
    """
    return _reversed(root((points**2).sum(axis=1)), None)


@kernel(result=representative("all rows are zero"))
def squared_closeness_to_origin(points: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Returns one minus the squared Euclidean distance to the origin over its largest value.

    Raises:
        ValueError: all rows are zero, or one is NaN or infinite.
    """
    return _reversed((points**2).sum(axis=1), None)


def unit_rows(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Returns each row divided by its length; a zero row stays as it is."""
    norms = jnp.linalg.norm(x, axis=1, keepdims=True)
    return x * jnp.where(norms == 0, 0, 1 / norms)


def cosine_values(x: Float[Array, "n d"], mean: Float[Array, " d"], unit_cube: bool = False) -> Float[Array, " n"]:
    """Returns `cosine_density` from the mean of `unit_rows` over the set; NaN for a row without direction."""
    # Not a matrix product, in which equal rows may come out unequal by a rounding.
    norms = jnp.linalg.norm(x, axis=1)
    mean = (x * mean[None, :]).sum(axis=1) / norms
    # Where a length is too small or too large for its square, the quotient would pass for a mean.
    has_direction = (norms > 0) & (norms < jnp.inf)
    return jnp.where(has_direction, jnp.clip(mean if unit_cube else (1 + mean) / 2, 0, 1), jnp.nan)


def jeffreys_terms(
    mu: Float[Array, "n d"],
    log_sigma: Float[Array, "n d"],
    unit_mu: Float[Array, " d"],
    unit_log_sigma: Float[Array, " d"],
) -> JeffreysTerms:
    """Returns terms [n d] in units of one Gaussian, which do not change the divergence; equal rows cancel exactly."""
    mu = (mu - unit_mu[None, :]) * jnp.exp(-unit_log_sigma)[None, :]
    log_sigma = log_sigma - unit_log_sigma[None, :]
    # The mean over u of s_x / s_u + s_u / s_x - 2, of variances s, in terms that are small where the spread is:
    # s - 1, 1 / s - 1 and s + 1 / s - 2.
    precision = jnp.exp(-2 * log_sigma)
    wider = jnp.expm1(2 * log_sigma)
    return JeffreysTerms(mu, mu * precision, precision, wider, -wider * precision, wider**2 * precision)


def jeffreys_spreads(terms: JeffreysTerms, means: JeffreysTerms) -> JeffreysSpreads:
    """Returns the squared gaps of each row [n d]; `mean_jeffreys` needs their means."""
    gaps = _gaps(terms, means)
    return JeffreysSpreads(gaps.to_mean, gaps.to_weighted * terms.precision)


def mean_jeffreys(terms: JeffreysTerms, means: JeffreysTerms, spreads: JeffreysSpreads) -> Float[Array, " n"]:
    """Returns the mean Jeffreys divergence from each Gaussian to all of the set, in nats, in [0, inf).

    Args:
        terms: [n d], of the Gaussians whose mean divergence is to be computed.
        means: [d], of the terms of the whole set.
        spreads: [d], the means of `jeffreys_spreads` over the whole set.
    """
    gaps = _gaps(terms, means)
    ratios = terms.apart + means.apart[None, :] + terms.wider * means.narrower[None, :]
    ratios += terms.narrower * means.wider[None, :]
    weighted = (gaps.to_mean + spreads.plain[None, :]) * terms.precision + gaps.to_weighted * means.precision[None, :]
    return 0.5 * (ratios + weighted + spreads.weighted[None, :]).sum(axis=1)


def _gaps(terms, means):
    weighted_mean = means.weighted / means.precision
    return _Gaps((terms.mu - means.mu[None, :]) ** 2, (terms.mu - weighted_mean[None, :]) ** 2)


def kl_values(mu: Float[Array, "n d"], log_sigma: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Returns KL(N(mu, diag(sigma^2)) || N(0, I)) of each row, in nats, in [0, inf)."""
    return 0.5 * (jnp.expm1(2 * log_sigma) - 2 * log_sigma + mu**2).sum(axis=1)


def _reversed(distances, bound):
    """Returns one minus distances over their bound, or largest; NaN where all distances are zero."""
    if bound is None:
        # The gradient of `max` compares all rows with the largest; XLA may compute them again, with other roundings.
        bound = distances[distances.argmax()]
    return jnp.clip(1 - distances / bound, 0, 1)


def _centred(x):
    """Returns rows about their mean; equal rows become zero exactly, however far they lie from the origin."""
    x = x - x[:1]
    return x - column_sums(x)[None, :] / len(x)


def _factors(x):
    """Returns rows whose products are the squared distances."""
    squares = (x**2).sum(axis=1, keepdims=True)
    one = jnp.ones((x.shape[0], 1), x.dtype)
    return _Factors(jnp.concatenate([-2 * x, squares, one], axis=1), jnp.concatenate([x, one, squares], axis=1))


def _distances(left, right):
    return root(clamped(jnp.matmul(left, right.T, precision="highest")))


def _sums_of_distances(left, right):
    distances = _distances(left, right)
    return distances.sum(axis=1), distances.sum(axis=0)
