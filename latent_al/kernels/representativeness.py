"""How typical each row is of the whole set: in [0, 1], 1 = most representative.

A density is one minus the mean distance to all rows, itself among them, over the largest such mean. The means of the
squared Euclidean distance, of the cosine similarity and of the Jeffreys divergence factor into means over the set:
O(n d), and exact. The Euclidean one is quadratic and goes tile by tile. `unit_cube` says that every coordinate lies in
[0, 1], such as a pixel's: then a distance is divided by its bound, and cosine similarity needs no shift.

A row that has no value, and a coordinate outside the unit cube, are refused; inside a caller's `jit` or `vmap`, where
neither can be seen, the first is NaN and the second is clipped.

Source: the thesis on active learning in VAE latent space, section 3.4.2.
"""

from collections import namedtuple
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latent_al.kernels._sharding import column_sums, pairwise_row_sums

TILE = 1024
"""Rows of a tile of distances, which stays in cache."""

JTerms = namedtuple("JTerms", ["mu", "weighted", "precision", "wider", "narrower", "apart"])
"""Of each Gaussian and dimension: what a mean Jeffreys divergence is made of, and its mean over the set."""


def cosine_density(x: Float[Array, "n d"], *, unit_cube: bool = False) -> Float[Array, " n"]:
    """Mean cosine similarity to all rows, as (1 + mean) / 2, or as it is where `unit_cube`.

    Raises:
        ValueError: a row is zero, NaN or infinite, or lies outside the unit cube.
    """
    check_cube(x, unit_cube)
    return _checked(_cosine_density(x, unit_cube), "a row is zero, and has no direction")


def squared_euclidean_density(x: Float[Array, "n d"], *, unit_cube: bool = False) -> Float[Array, " n"]:
    """One minus the mean squared Euclidean distance to all rows, scaled.

    Raises:
        ValueError: all rows are equal, one is NaN or infinite, or one lies outside the unit cube.
    """
    check_cube(x, unit_cube)
    return _checked(_squared_euclidean_density(x, unit_cube), "all rows are equal")


def euclidean_density(x: Float[Array, "n d"], *, unit_cube: bool = False) -> Float[Array, " n"]:
    """One minus the mean Euclidean distance to all rows, scaled. O(n^2 d) time, O(n d) memory.

    Distances come from matrix products: those below some 5e-4 of the set's radius carry an error of that size. Of rows
    in several shards both distances of a pair are computed, and added in another order: values differ by some 1e-6.

    Raises:
        ValueError: all rows are equal, one is NaN or infinite, or one lies outside the unit cube.
    """
    check_cube(x, unit_cube)
    return _checked(_euclidean_density(x, unit_cube), "all rows are equal")


def euclidean_density_estimate(
    key: PRNGKeyArray, x: Float[Array, "n d"], *, fraction: float, unit_cube: bool = False
) -> Float[Array, " n"]:
    """`euclidean_density` with each mean taken over a random `fraction` of the other rows, another one for each row.

    The rows are shuffled once, and each is compared with those that follow it, the first after the last. Each mean is
    unbiased; over the largest of them the density is not.

    Raises:
        ValueError: `fraction` is outside (0, 1], there is a single row, all rows are equal, one is NaN or infinite, or
            one lies outside the unit cube.
    """
    if not 0 < fraction <= 1 or x.shape[0] < 2:
        raise ValueError(f"fraction is {fraction} of {x.shape[0]} rows; expected a share in (0, 1] of 2 rows or more.")
    check_cube(x, unit_cube)
    num = max(1, round(fraction * (x.shape[0] - 1)))
    return _checked(_euclidean_density_estimate(key, x, num, unit_cube), "all rows compared are equal")


def jeffreys_density(mu: Float[Array, "n d"], log_sigma: Float[Array, "n d"]) -> Float[Array, " n"]:
    """One minus the mean Jeffreys divergence to all Gaussians N(mu, diag(sigma^2)), over the largest such mean.

    Raises:
        ValueError: all rows are equal, or one is NaN or infinite.
    """
    return _checked(_j_density(mu, log_sigma), "all rows are equal")


def kl_to_prior(mu: Float[Array, "n d"], log_sigma: Float[Array, "n d"]) -> Float[Array, " n"]:
    """One minus KL(N(mu, diag(sigma^2)) || N(0, I)) over its largest value.

    Raises:
        ValueError: all rows are N(0, I), or one is NaN or infinite.
    """
    return _checked(_kl_to_prior(mu, log_sigma), "all rows are N(0, I)")


def closeness_to_origin(mu: Float[Array, "n d"]) -> Float[Array, " n"]:
    """One minus the Euclidean distance to the origin over its largest value.

    Raises:
        ValueError: all rows are zero, or one is NaN or infinite.
    """
    return _checked(_distance_to_origin(mu), "all rows are zero")


def squared_closeness_to_origin(mu: Float[Array, "n d"]) -> Float[Array, " n"]:
    """One minus the squared Euclidean distance to the origin over its largest value.

    Raises:
        ValueError: all rows are zero, or one is NaN or infinite.
    """
    return _checked(_squared_distance_to_origin(mu), "all rows are zero")


@partial(jax.jit, static_argnums=1)
def _cosine_density(x, unit_cube):
    return cosine_values(x, column_sums(unit_rows(x)) / len(x), unit_cube)


def unit_rows(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Each row over its length; a zero row as it is."""
    norms = jnp.linalg.norm(x, axis=1, keepdims=True)
    return x * jnp.where(norms == 0, 0, 1 / norms)


def cosine_values(x: Float[Array, "n d"], mean: Float[Array, " d"], unit_cube: bool = False) -> Float[Array, " n"]:
    """`cosine_density`, given the mean of `unit_rows` over the set; NaN of a row without direction."""
    # Not a matrix product, in which equal rows may come out unequal by a rounding.
    norms = jnp.linalg.norm(x, axis=1)
    mean = (x * mean[None, :]).sum(axis=1) / norms
    # Over a length that is too small or too large for its square the quotient would pass for a mean.
    has_direction = (norms > 0) & (norms < jnp.inf)
    return jnp.where(has_direction, jnp.clip(mean if unit_cube else (1 + mean) / 2, 0, 1), jnp.nan)


@partial(jax.jit, static_argnums=1)
def _squared_euclidean_density(x, unit_cube):
    x = _centred(x)
    squares = x**2
    return _reversed(squares.sum(axis=1) + column_sums(squares).sum() / len(x), x.shape[1] if unit_cube else None)


@partial(jax.jit, static_argnums=1)
def _euclidean_density(x, unit_cube):
    n, d = x.shape
    sums = pairwise_row_sums(_distances, *_factors(_centred(x)), TILE)
    return _reversed(sums[:n] / n, d**0.5 if unit_cube else None)


@partial(jax.jit, static_argnums=(2, 3))
def _euclidean_density_estimate(key, x, num, unit_cube):
    n, d = x.shape
    order, points = jax.random.permutation(key, n), _centred(x)
    behind = jnp.arange(1, TILE + num)[None, :] - jnp.arange(TILE)[:, None]
    used = (behind > 0) & (behind <= num)

    def tile_sums(start):
        # Of a shuffled pool that lies on several devices each would have all.
        left, right = _factors(points[order[(start + jnp.arange(TILE + num)) % n]])
        return jnp.where(used, _distances(left[:TILE], right[1:]), 0).sum(axis=1)

    sums = jax.lax.map(tile_sums, jnp.arange(0, n, TILE)).reshape(-1)[:n]
    means = jnp.zeros(n, x.dtype).at[order].set(sums / num * (n - 1) / n)
    return _reversed(means, d**0.5 if unit_cube else None)


@jax.jit
def _j_density(mu, log_sigma):
    terms = j_terms(mu, log_sigma, mu[0], log_sigma[0])
    means = JTerms(*[column_sums(each) / len(mu) for each in terms])
    spreads = [column_sums(each) / len(mu) for each in j_spreads(terms, means)]
    return _reversed(mean_j(terms, means, spreads), None)


def j_terms(
    mu: Float[Array, "n d"],
    log_sigma: Float[Array, "n d"],
    unit_mu: Float[Array, " d"],
    unit_log_sigma: Float[Array, " d"],
) -> JTerms:
    """Terms [n d] in units of one Gaussian of the set, which leave J as it is; in them equal rows cancel exactly."""
    mu = (mu - unit_mu[None, :]) * jnp.exp(-unit_log_sigma)[None, :]
    log_sigma = log_sigma - unit_log_sigma[None, :]
    # The mean over u of s_x / s_u + s_u / s_x - 2, of variances s, in terms that are small where the spread is:
    # s - 1, 1 / s - 1 and s + 1 / s - 2.
    precision, wider = jnp.exp(-2 * log_sigma), jnp.expm1(2 * log_sigma)
    return JTerms(mu, mu * precision, precision, wider, -wider * precision, wider**2 * precision)


def j_spreads(terms: JTerms, means: JTerms) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    """Squared gaps to the mean, and to the mean weighted by precision, weighted so; `mean_j` needs their means."""
    to_mean, to_weighted = _j_gaps(terms, means)
    return to_mean, to_weighted * terms.precision


def mean_j(terms: JTerms, means: JTerms, spreads: Sequence[Array]) -> Float[Array, " n"]:
    """The mean Jeffreys divergence of each Gaussian to all of the set, in nats, in [0, inf).

    Args:
        terms: of those whose mean is asked for.
        means: [d] each, of the terms of the whole set.
        spreads: [d] each, the means of `j_spreads` over the whole set.
    """
    to_mean, to_weighted = _j_gaps(terms, means)
    narrower, wider, apart = (each[None, :] for each in (means.narrower, means.wider, means.apart))
    ratios = terms.apart + apart + terms.wider * narrower + terms.narrower * wider
    gaps = (to_mean + spreads[0][None, :]) * terms.precision + to_weighted * means.precision[None, :]
    return 0.5 * (ratios + gaps + spreads[1][None, :]).sum(axis=1)


def _j_gaps(terms, means):
    weighted_mean = means.weighted / means.precision
    return (terms.mu - means.mu[None, :]) ** 2, (terms.mu - weighted_mean[None, :]) ** 2


@jax.jit
def _kl_to_prior(mu, log_sigma):
    return _reversed(kl_values(mu, log_sigma), None)


def kl_values(mu: Float[Array, "n d"], log_sigma: Float[Array, "n d"]) -> Float[Array, " n"]:
    """KL(N(mu, diag(sigma^2)) || N(0, I)) of each row, in nats, in [0, inf)."""
    return 0.5 * (jnp.expm1(2 * log_sigma) - 2 * log_sigma + mu**2).sum(axis=1)


@jax.jit
def _distance_to_origin(mu):
    return _reversed(jnp.linalg.norm(mu, axis=1), None)


@jax.jit
def _squared_distance_to_origin(mu):
    return _reversed((mu**2).sum(axis=1), None)


def _reversed(distances, bound):
    """0 / 0, where all distances are zero, is NaN."""
    return jnp.clip(1 - distances / (distances.max() if bound is None else bound), 0, 1)


def _centred(x):
    """About the mean; equal rows become zero exactly, however far they lie from the origin."""
    x = x - x[:1]
    return x - column_sums(x)[None, :] / len(x)


def _factors(x):
    """Rows whose products are the squared distances."""
    squares, one = (x**2).sum(axis=1, keepdims=True), jnp.ones((x.shape[0], 1), x.dtype)
    return jnp.concatenate([-2 * x, squares, one], axis=1), jnp.concatenate([x, one, squares], axis=1)


def _distances(left, right):
    # `jnp.maximum` loses NaN where XLA fuses it with a sum on a CPU.
    squares = jnp.matmul(left, right.T, precision="highest")
    return jnp.sqrt(jnp.where(squares < 0, 0, squares))


def check_cube(x: Float[Array, "n d"], unit_cube: bool) -> None:
    """Raises ValueError where rows are known and one lies outside the unit cube that it is said to lie in."""
    if unit_cube and not isinstance(x, jax.core.Tracer):
        known = jax.device_get(x)
        if known.min() < 0 or known.max() > 1:
            raise ValueError(
                f"coordinates run from {known.min():g} to {known.max():g}; expected [0, 1] where unit_cube is set: "
                "it is for pixels."
            )


def _checked(values, cause):
    if not isinstance(values, jax.core.Tracer):
        known = jax.device_get(values)
        if num_nan := (known != known).sum():
            raise ValueError(
                f"{num_nan} of {known.shape[0]} rows have no representativeness: {cause}, or NaN or infinite; "
                "look at what the rows were made from, or choose another measure."
            )
    return values
