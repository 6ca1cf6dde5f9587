"""Coverage: selects row by row the one that brings the most of the pool close to a row labelled or selected.

A row's coverage is its largest similarity to such a row, which falls with the distance to the nearest of them. The
selection is greedy, which reaches at least 1 - 1 / e of the best coverage (Nemhauser, Wolsey and Fisher 1978), and lazy
(Minoux 1978): gains only shrink as rows are selected, so an old gain is a bound. One pass of matrix products over all
pairs bounds the gains of all rows. For each selection the rows with the largest bounds are bounded again, or all rows
by another pass where nearly all may still win, and the best of these are measured, by differences, until one is ahead
of all other bounds. Then the bounds of the rows that the selection covers best are lowered by what they no longer gain
from each other.

Time: O(n^2 d) for the pass and O(n d) for each row measured. Where gains fall alike all over the pool, as they do after
each of the first few selections with a length scale beyond its spread, many or all rows are bounded again. In the worst
case each selection costs two passes, and where products cannot tell distances apart, below some 1e-3 of the radius of
the pool, as many measurements as there are rows. Memory: O(n d), three times the points.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latent_al.kernels._conditions import ROWS_LEFT, WEIGHTS, WITH_DIRECTION, positive
from latent_al.kernels._coverage import GAUSSIAN, LINEAR, TOP_HAT, Sampling, select
from latent_al.kernels._kernel import kernel


class Coverage(NamedTuple):
    """Rows that cover a pool.

    Attributes:
        rows: int32, in the order of selection.
        gains: the amount by which each raises the mean over all rows of weight times similarity; 0 for a missing row.
    """

    rows: Int[Array, " num"]
    gains: Float[Array, " num"]


@kernel(taken=ROWS_LEFT, weights=WEIGHTS, sigma=positive("a length scale above 0, such as 1 for rows of length 1."))
def max_herding(
    points: Float[Array, "n d"],
    taken: Bool[Array, " n"],
    num: int,
    *,
    sigma: Float[Array, ""] | float,
    labelled: Bool[Array, " n"] | None = None,
    weights: Float[Array, " n"] | None = None,
) -> Coverage:
    """Selects row by row the largest gain in coverage, the mean of w_n max_s exp(-|x_n - x_s|^2 / sigma^2).

    The selection is exact up to the rounding of sums and distances. Ties go to the lowest row, and rows without a gain,
    once all is covered, come last, by row. Inside a caller's `jit` rows that are not finite weigh nothing and come
    last, weights that are negative or not finite count as 0, a length scale that is not above 0 counts as inf, and n
    stands for each missing row. A gradient is refused.

    Source: Bae, Noh and Sutherland, Generalized Coverage for More Robust Low-Budget Active Learning (2024), whose code
    uses this Gaussian, without a factor of 2 before sigma^2. With weights: Bae, Oliveira and Sutherland, Uncertainty
    Herding (2025).

    Args:
        taken: rows that may not be selected.
        num: rows to select.
        sigma: length scale of the Gaussian, above 0; may be traced.
        labelled: rows that cover the pool from the start, by default those taken.
        weights: of the rows to be covered, 0 or more, by default 1.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, sigma is not above 0, a weight is negative or not
            finite, a coordinate is NaN, infinite or too large to square.
    """
    return Coverage(*select(points, taken, num, labelled, sigma, weights, GAUSSIAN))


@kernel(taken=ROWS_LEFT, radius=positive("a distance above 0, such as purity_radius returns."))
def prob_cover(
    points: Float[Array, "n d"],
    taken: Bool[Array, " n"],
    num: int,
    *,
    radius: Float[Array, ""] | float,
    labelled: Bool[Array, " n"] | None = None,
) -> Coverage:
    """Selects row by row the one with the most rows within the radius that no row labelled or selected covers yet.

    The notes on `max_herding` apply here too. A gain is a share of the pool: where gains are 0, all is covered, and the
    lowest rows left are selected. A row exactly at the radius lies outside, as in the source's code.

    Source: Yehuda, Dekel, Hacohen and Weinshall, Active Learning Through a Covering Lens (2022).

    Args:
        taken: rows that may not be selected.
        num: rows to select.
        radius: above 0; may be traced. `purity_radius` finds one.
        labelled: rows that cover the pool from the start, by default those taken.

    Raises:
        ValueError: as `max_herding`, for the radius in place of sigma.
    """
    return Coverage(*select(points, taken, num, labelled, radius, None, TOP_HAT))


@kernel(points=WITH_DIRECTION, taken=ROWS_LEFT, weights=WEIGHTS)
def facility_location(
    points: Float[Array, "n d"],
    taken: Bool[Array, " n"],
    num: int,
    *,
    labelled: Bool[Array, " n"] | None = None,
    weights: Float[Array, " n"] | None = None,
) -> Coverage:
    """Selects row by row the largest gain in the mean of w_n max_s cos(x_n, x_s), where cosines below 0 count as 0.

    The notes on `max_herding`, which is facility location for a Gaussian similarity, apply here too.

    Source: Nemhauser, Wolsey and Fisher, An Analysis of Approximations for Maximizing Submodular Set Functions (1978),
    section 1.

    Args:
        labelled: rows that cover the pool from the start, by default those taken.
        weights: of the rows to be covered, 0 or more, by default 1.

    Raises:
        ValueError: as `max_herding`; a row is zero, or too short to square.
    """
    units = points / jnp.linalg.norm(points, axis=1, keepdims=True)
    return Coverage(*select(units, taken, num, labelled, 2**0.5, weights, LINEAR))


@kernel(points=WITH_DIRECTION, taken=ROWS_LEFT, weights=WEIGHTS)
def stochastic_facility_location(
    key: PRNGKeyArray,
    points: Float[Array, "n d"],
    taken: Bool[Array, " n"],
    num: int,
    *,
    epsilon: float,
    labelled: Bool[Array, " n"] | None = None,
    weights: Float[Array, " n"] | None = None,
) -> Coverage:
    """Selects as `facility_location` does, but each row from a random sample of n / num * log(1 / epsilon) rows.

    In expectation it reaches at least 1 - 1 / e - epsilon of the best coverage. Whatever `num` is, about
    n^2 log(1 / epsilon) pairs of rows are compared, instead of all pairs several times; memory is the same. With a
    sample of all rows the selection is that of `facility_location`.

    Source: Mirzasoleiman, Badanidiyuru, Karbasi, Vondrák and Krause, Lazier Than Lazy Greedy (2015).

    Args:
        epsilon: in (0, 1); the smaller, the larger the samples.
        labelled: rows that cover the pool from the start, by default those taken.
        weights: of the rows to be covered, 0 or more, by default 1.

    Raises:
        ValueError: epsilon is not in (0, 1); as `facility_location`.
    """
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon is {epsilon}; expected a share of the best coverage in (0, 1), such as 0.1.")
    units = points / jnp.linalg.norm(points, axis=1, keepdims=True)
    sampling = Sampling(key, min(len(points), math.ceil(len(points) / max(num, 1) * math.log(1 / epsilon))))
    return Coverage(*select(units, taken, num, labelled, 2**0.5, weights, LINEAR, sampling))
