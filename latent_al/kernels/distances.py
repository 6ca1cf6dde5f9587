"""Distances and divergences between points, and from a pool to one point of it.

A Gaussian with diagonal covariance is a pair (mu, log_sigma), the mean and the logarithm of the standard deviation.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from latent_al.kernels._kernel import kernel
from latent_al.kernels._loops import fori_loop

BLOCK = 16
"""Rows of `y` that a step of `nearest` compares with each row of `x`, which stays in a register meanwhile."""

LANES = 2**15
"""Comparisons that `nearest` makes side by side where `x` has fewer rows, since each step has a fixed cost."""

SOME = 1024
"""Rows whose mean stands for that of all rows, which would need a copy of them."""

FEW_DIMENSIONS = 16
"""Dimensions up to which differences, which do not cancel, are about as fast as a matrix product."""


class Nearest(NamedTuple):
    """The nearest row of one set to each row of another.

    Attributes:
        sq_distances: squared Euclidean distances to the nearest rows, in [0, inf].
        rows: int32, the nearest rows.
    """

    sq_distances: Float[Array, " n"]
    rows: Int[Array, " n"]


class _Layout(NamedTuple):
    num_runs: int
    num_steps: int
    block: int


class _Best(NamedTuple):
    scores: Array
    rows: Array


@kernel()
def squared_distances(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Returns the squared Euclidean distance of each pair of rows, in [0, inf).

    It takes one matrix product. The error is a rounding of the largest squared distance from the first row of `y`.

    Raises:
        ValueError: the shapes differ, or a coordinate is NaN, infinite or too large to square.
    """
    x = x - y[:1]
    y = y - y[:1]
    products = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None, :] - 2 * _product(x, y.T)
    return clamped(products)


@kernel()
def nearest(x: Float[Array, "n d"], y: Float[Array, "m d"], included: Bool[Array, " m"]) -> Nearest:
    """Finds the nearest included row of `y` to each row of `x`, by Euclidean distance.

    Ties go to the lowest row. Where no row is included, the distance is inf and the row 0. Inside a caller's `jit` a
    row of `y` that is not finite is never the nearest, and a row of `x` that is NaN has the distance NaN. O(n m d)
    time, O((n + m) d) memory.

    Distances are computed from differences, and up to 16 dimensions rows are chosen by these. Beyond, they are chosen
    by matrix products about the first row of `x`: a chosen row may be farther than the nearest, by some 1e-6 of the
    largest squared distance from that first row.

    Args:
        included: rows of `y` that may be the nearest.

    Raises:
        ValueError: the shapes differ, or a coordinate is NaN, infinite or too large to square.
    """
    rows = nearest_row(jax.lax.stop_gradient(x))(jax.lax.stop_gradient(y), included)
    return Nearest(jnp.where(included[rows], ((x - y[rows]) ** 2).sum(axis=1), jnp.inf), rows)


def nearest_row(x: Float[Array, "n d"]) -> Callable[[Float[Array, "m d"], Bool[Array, " m"]], Int[Array, " n"]]:
    """Returns the choice of `nearest` as a function of `y` and `included`; what needs `x` alone is computed once."""
    prepare, compare = (_differences if x.shape[1] <= FEW_DIMENSIONS else _products)(x)

    def choose(y, included):
        layout = _layout(len(x), len(y))
        missing = layout.num_runs * layout.num_steps * layout.block - len(y)
        blocks = prepare(jnp.pad(y, ((0, missing), (0, 0))), jnp.pad(included, (0, missing)))
        blocks = blocks.reshape((*layout, -1)).transpose(1, 2, 0, 3)

        def step(index, best):
            for offset, scores in enumerate(compare(blocks[index])):
                closer = scores < best.scores
                row = jnp.int32(index * layout.block + offset)
                best = _Best(jnp.where(closer, scores, best.scores), jnp.where(closer, row, best.rows))
            return best

        shape = (layout.num_runs, len(x))
        start = _Best(jnp.full(shape, jnp.inf, x.dtype), jnp.zeros(shape, jnp.int32))
        # XLA makes no loop of a single step, and would compare again for each use of the row without a barrier.
        best = jax.lax.optimization_barrier(fori_loop(0, layout.num_steps, step, start))
        lowest = best.scores.min(axis=0)
        run_starts = layout.num_steps * layout.block * jnp.arange(layout.num_runs, dtype=jnp.int32)
        rows = jnp.where(best.scores == lowest[None, :], best.rows + run_starts[:, None], len(y)).min(axis=0)
        return jnp.where(lowest < jnp.inf, rows, included.argmax().astype(jnp.int32))

    return choose


@kernel()
def kl_divergences(
    mu_x: Float[Array, "n d"],
    log_sigma_x: Float[Array, "n d"],
    mu_y: Float[Array, "m d"],
    log_sigma_y: Float[Array, "m d"],
) -> Float[Array, "n m"]:
    """Returns KL(x || y) in nats of each pair of Gaussians with diagonal covariance, in [0, inf).

    It takes two matrix products. The error is a rounding of the largest term; `jeffreys_to_point` does not cancel for
    pairs that nearly agree.

    Source: Kullback and Leibler, On Information and Sufficiency (1951).

    Raises:
        ValueError: the shapes differ, or a number is NaN, infinite or too large to square.
    """
    mu_x = mu_x - mu_y[:1]
    mu_y = mu_y - mu_y[:1]
    precision = jnp.exp(-2 * log_sigma_y)
    spread = _product(jnp.exp(2 * log_sigma_x) + mu_x**2, precision.T) - 2 * _product(mu_x, (mu_y * precision).T)
    of_y = 2 * log_sigma_y.sum(axis=1) + (mu_y**2 * precision).sum(axis=1) - mu_x.shape[1]
    return clamped(0.5 * (spread - 2 * log_sigma_x.sum(axis=1)[:, None] + of_y[None, :]))


@kernel()
def jeffreys_divergences(
    mu_x: Float[Array, "n d"],
    log_sigma_x: Float[Array, "n d"],
    mu_y: Float[Array, "m d"],
    log_sigma_y: Float[Array, "m d"],
) -> Float[Array, "n m"]:
    """Returns KL(x || y) + KL(y || x) in nats of each pair of Gaussians with diagonal covariance, in [0, inf).

    Source: Jeffreys, An Invariant Form for the Prior Probability in Estimation Problems (1946).

    Raises:
        ValueError: the shapes differ, or a number is NaN, infinite or too large to square.
    """
    forward = kl_divergences(mu_x, log_sigma_x, mu_y, log_sigma_y)
    return forward + kl_divergences(mu_y, log_sigma_y, mu_x, log_sigma_x).T


@kernel()
def squared_euclidean_to_point(points: Float[Array, "n d"], point: Float[Array, " d"]) -> Float[Array, " n"]:
    """Returns the squared Euclidean distance of each row to one point, in [0, inf), without cancellation.

    Raises:
        ValueError: the shapes differ, or a coordinate is NaN, infinite or too large to square.
    """
    return ((points - point[None, :]) ** 2).sum(axis=1)


@kernel()
def euclidean_to_point(points: Float[Array, "n d"], point: Float[Array, " d"]) -> Float[Array, " n"]:
    """Returns the Euclidean distance of each row to one point, in [0, inf).

    Raises:
        ValueError: the shapes differ, or a coordinate is NaN, infinite or too large to square.
    """
    return root(squared_euclidean_to_point(points, point))


@kernel()
def half_cosine_to_point(points: Float[Array, "n d"], point: Float[Array, " d"]) -> Float[Array, " n"]:
    """Returns (1 - cosine similarity) / 2 of each row and one point, in [0, 1].

    It is NaN where one of them is zero, or too short to square.

    Raises:
        ValueError: the shapes differ, or a coordinate is NaN, infinite or too large to square.
    """
    # For unit vectors it is a quarter of the squared distance, which does not cancel.
    lengths, length = jnp.linalg.norm(points, axis=1), jnp.linalg.norm(point)
    values = squared_euclidean_to_point(points / lengths[:, None], point / length) / 4
    # Nonzero values over a length of 0 are infinite, and would pass for a distance.
    return jnp.where((lengths > 0) & (length > 0), jnp.clip(values, 0, 1), jnp.nan)


@kernel()
def jeffreys_to_point(
    points: tuple[Float[Array, "n d"], Float[Array, "n d"]], point: tuple[Float[Array, " d"], Float[Array, " d"]]
) -> Float[Array, " n"]:
    """Returns the Jeffreys divergence in nats of each Gaussian and one of them, in [0, inf), without cancellation.

    Source: Jeffreys, An Invariant Form for the Prior Probability in Estimation Problems (1946).

    Args:
        points: means and log standard deviations.
        point: the mean and the log standard deviation of one Gaussian.

    Raises:
        ValueError: the shapes differ, or a number is NaN, infinite or too large to square.
    """
    mu, log_sigma = points
    point_mu, point_log_sigma = point
    ratio = jnp.exp(log_sigma - point_log_sigma[None, :])
    gap = (mu - point_mu[None, :]) * jnp.exp(-point_log_sigma)[None, :]
    return 0.5 * ((ratio - 1 / ratio) ** 2 + gap**2 * (1 + 1 / ratio**2)).sum(axis=1)


@jax.custom_jvp
def root(squares: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the square root, with a gradient of 0 at 0: equal points do not move each other."""
    return jnp.sqrt(squares)


@root.defjvp
def _change_of_root(primals, tangents):
    values = root(*primals)
    return values, jnp.where(values > 0, 0.5 / jnp.where(values > 0, values, 1), 0) * tangents[0]


@jax.jit
def finite_rows(points: Float[Array, "n d"]) -> Bool[Array, " n"]:
    """Marks rows without NaN whose squared distances to each other cannot overflow."""
    return jnp.isfinite(4 * (points**2).sum(axis=1))


def midst(points: Float[Array, "n d"], finite: Bool[Array, " n"]) -> Float[Array, " d"]:
    """Returns an origin in the midst of the finite rows, about which products of rows are rounded least."""
    num = min(len(points), SOME)
    some = jnp.arange(num) * (len(points) // num)
    return jnp.where(finite[some][:, None], points[some], 0).mean(axis=0)


@kernel(is_compiled=False)
def diameter(points: PyTree[Float[Array, "n d"]], *, distance: Callable[..., Array]) -> Float[Array, ""]:
    """Returns twice the largest distance from the origin, which is N(0, I) for Gaussians, in [0, inf).

    For a metric it bounds the largest distance between two rows. Source: Tonnaer (2017), section 3.4.3.

    Args:
        distance: one of the distances above, from all rows to one point.

    Raises:
        ValueError: a coordinate is NaN, infinite or too large to square.
    """
    origin = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), points)
    return 2 * distance(points, origin).max()


def _layout(n, m):
    """Returns the runs into which `y` is cut, the steps through all of them, and the rows of a run in a step."""
    block = min(BLOCK, m)
    num_runs = max(1, min(LANES // n, m // block))
    return _Layout(num_runs, -(-m // (num_runs * block)), block)


def _differences(x):
    """Returns functions from `y` to rows, and from blocks of rows to squared distances to `x` [block runs n]."""
    columns = x.T

    def prepare(y, included):
        return jnp.where(included[:, None], y, jnp.inf)

    def compare(block):
        for rows in block:
            yield sum((columns[k][None, :] - rows[:, k][:, None]) ** 2 for k in range(len(columns)))

    return prepare, compare


def _products(x):
    """Returns functions as `_differences` does; scores leave out the squares of `x`, which change no choice."""
    centre = jnp.where(jnp.isfinite(x[:1]), x[:1], 0)
    columns = jnp.pad((x - centre).T, ((0, 1), (0, 0)), constant_values=1)

    def prepare(y, included):
        y = y - centre
        squares = (y**2).sum(axis=1, keepdims=True)
        comparable = included[:, None] & jnp.isfinite(squares)
        return jnp.concatenate([jnp.where(comparable, -2 * y, 0), jnp.where(comparable, squares, jnp.inf)], axis=1)

    def compare(block):
        return _product(block.reshape(-1, len(columns)), columns).reshape((*block.shape[:2], -1))

    return prepare, compare


def _product(x, y):
    """Returns the product without the rounding to ten bits that is the default on some accelerators."""
    return jnp.matmul(x, y, precision="highest")


def clamped(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns values raised to at least 0; `jnp.maximum` loses NaN where XLA fuses it with a sum on a CPU."""
    return jnp.where(values < 0, 0, values)
