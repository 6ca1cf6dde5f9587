"""Distances and divergences between points, and from a pool to one point of it.

A Gaussian with diagonal covariance is a pair (mu, log_sigma), the mean and the logarithm of the standard deviation.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

BLOCK = 16
"""Rows of `y` that a step of `nearest` compares with each row of `x`, which stays in a register meanwhile."""

LANES = 2**15
"""Comparisons that `nearest` makes side by side where `x` has fewer rows, since a step has a cost of its own."""

FEW_DIMENSIONS = 16
"""Up to here differences, which do not cancel, are about as fast as a matrix product."""


def squared_distances(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Squared Euclidean distance of each pair of rows, in [0, inf): one matrix product, about the first row of `y`."""
    x, y = x - y[:1], y - y[:1]
    products = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None, :] - 2 * _product(x, y.T)
    return _clamped(products)


@jax.jit
def nearest(
    x: Float[Array, "n d"], y: Float[Array, "m d"], valid: Bool[Array, " m"]
) -> tuple[Float[Array, " n"], Int[Array, " n"]]:
    """Squared Euclidean distance of each row of `x` to the nearest valid row of `y`, in [0, inf), and that row.

    Ties go to the lowest row. Where no row is valid, inf and row 0. A row of `y` that is not finite is never the
    nearest, and a row of `x` that is NaN is at NaN. O(n m d) time, O((n + m) d) memory.

    The distance comes from differences, and so does the choice up to 16 dimensions. Beyond, matrix products about the
    first row of `x` choose: the row may be farther than the nearest, by some 1e-6 of the largest squared distance from
    that first row.
    """
    row = nearest_row(x)(y, valid)
    return jnp.where(valid[row], ((x - y[row]) ** 2).sum(axis=1), jnp.inf), row


def nearest_row(x: Float[Array, "n d"]) -> Callable[[Float[Array, "m d"], Bool[Array, " m"]], Int[Array, " n"]]:
    """The choice of `nearest` as a function of `y` and `valid`; what depends on `x` alone is computed once."""
    prepared, compared = (_differences if x.shape[1] <= FEW_DIMENSIONS else _products)(x)

    def rows(y, valid):
        num_runs, num_steps, block = shape = _layout(len(x), len(y))
        missing = num_runs * num_steps * block - len(y)
        blocks = prepared(jnp.pad(y, ((0, missing), (0, 0))), jnp.pad(valid, (0, missing)))
        blocks = blocks.reshape(*shape, -1).transpose(1, 2, 0, 3)

        def step(index, carry):
            best, row = carry
            for offset, score in enumerate(compared(blocks[index])):
                closer = score < best
                best = jnp.where(closer, score, best)
                row = jnp.where(closer, jnp.int32(index * block + offset), row)
            return best, row

        start = jnp.full((num_runs, len(x)), jnp.inf, x.dtype), jnp.zeros((num_runs, len(x)), jnp.int32)
        # Of a single step XLA makes no loop, and compares again for each use of the row unless a barrier stands there.
        best, row = jax.lax.optimization_barrier(jax.lax.fori_loop(0, num_steps, step, start))
        lowest = best.min(axis=0)
        row = row + num_steps * block * jnp.arange(num_runs, dtype=jnp.int32)[:, None]
        row = jnp.where(best == lowest[None, :], row, len(y)).min(axis=0)
        return jnp.where(lowest < jnp.inf, row, valid.argmax().astype(jnp.int32))

    return rows


def kl_divergences(
    mu_x: Float[Array, "n d"],
    log_sigma_x: Float[Array, "n d"],
    mu_y: Float[Array, "m d"],
    log_sigma_y: Float[Array, "m d"],
) -> Float[Array, "n m"]:
    """KL(x || y) in nats of each pair of Gaussians with diagonal covariance, in [0, inf): two matrix products.

    The error is a rounding of the largest term: for pairs that nearly agree, `jeffreys_to_point` does not cancel.
    """
    mu_x, mu_y = mu_x - mu_y[:1], mu_y - mu_y[:1]
    precision = jnp.exp(-2 * log_sigma_y)
    spread = _product(jnp.exp(2 * log_sigma_x) + mu_x**2, precision.T) - 2 * _product(mu_x, (mu_y * precision).T)
    own = 2 * log_sigma_y.sum(axis=1) + (mu_y**2 * precision).sum(axis=1) - mu_x.shape[1]
    return _clamped(0.5 * (spread - 2 * log_sigma_x.sum(axis=1)[:, None] + own[None, :]))


def jeffreys_divergences(
    mu_x: Float[Array, "n d"],
    log_sigma_x: Float[Array, "n d"],
    mu_y: Float[Array, "m d"],
    log_sigma_y: Float[Array, "m d"],
) -> Float[Array, "n m"]:
    """KL(x || y) + KL(y || x) in nats of each pair of Gaussians with diagonal covariance, in [0, inf)."""
    forward = kl_divergences(mu_x, log_sigma_x, mu_y, log_sigma_y)
    return forward + kl_divergences(mu_y, log_sigma_y, mu_x, log_sigma_x).T


def squared_euclidean_to_point(points: Float[Array, "n d"], point: Float[Array, " d"]) -> Float[Array, " n"]:
    """Squared Euclidean distance of each row to one point, in [0, inf), without cancellation."""
    return ((points - point[None, :]) ** 2).sum(axis=1)


def euclidean_to_point(points: Float[Array, "n d"], point: Float[Array, " d"]) -> Float[Array, " n"]:
    """Euclidean distance of each row to one point, in [0, inf)."""
    return jnp.sqrt(squared_euclidean_to_point(points, point))


def half_cosine_to_point(points: Float[Array, "n d"], point: Float[Array, " d"]) -> Float[Array, " n"]:
    """(1 - cosine similarity) / 2 of each row and one point, in [0, 1]; NaN where one of them is zero."""
    # Of unit vectors it is a quarter of the squared distance, which does not cancel.
    unit, unit_to = points / jnp.linalg.norm(points, axis=1, keepdims=True), point / jnp.linalg.norm(point)
    return jnp.clip(squared_euclidean_to_point(unit, unit_to) / 4, 0, 1)


def jeffreys_to_point(
    points: tuple[Float[Array, "n d"], Float[Array, "n d"]], point: tuple[Float[Array, " d"], Float[Array, " d"]]
) -> Float[Array, " n"]:
    """Jeffreys divergence in nats of each Gaussian (mu, log_sigma) and one of them, in [0, inf); no cancellation."""
    (mu, log_sigma), (mu_to, log_sigma_to) = points, point
    ratio = jnp.exp(log_sigma - log_sigma_to[None, :])
    gap = (mu - mu_to[None, :]) * jnp.exp(-log_sigma_to)[None, :]
    return 0.5 * ((ratio - 1 / ratio) ** 2 + gap**2 * (1 + 1 / ratio**2)).sum(axis=1)


def diameter(points: PyTree[Float[Array, "n d"]], *, distance: Callable[..., Array]) -> Float[Array, ""]:
    """Twice the largest distance from the origin, N(0, I) for Gaussians: the thesis's scale, section 3.4.3.

    For a metric it bounds the largest distance between two rows.

    Args:
        distance: one of the distances above, from all rows to one point.
    """
    origin = jax.tree.map(lambda each: jnp.zeros_like(each[0]), points)
    return 2 * distance(points, origin).max()


def _layout(n, m):
    """The runs into which `y` is cut, the steps through all of them at once, and the rows of each run in a step."""
    block = min(BLOCK, m)
    num_runs = max(1, min(LANES // n, m // block))
    return num_runs, -(-m // (num_runs * block)), block


def _differences(x):
    """What turns `y` into rows, and blocks of those into scores [block runs n], here the squared distances to `x`."""
    columns = x.T

    def prepared(y, valid):
        return jnp.where(valid[:, None], y, jnp.inf)

    def compared(block):
        for rows in block:
            yield sum((columns[k][None, :] - rows[:, k][:, None]) ** 2 for k in range(len(columns)))

    return prepared, compared


def _products(x):
    """As `_differences`; the scores lack the squared length of the row of `x`, which all that it compares share."""
    centre = jnp.where(jnp.isfinite(x[:1]), x[:1], 0)
    columns = jnp.pad((x - centre).T, ((0, 1), (0, 0)), constant_values=1)

    def prepared(y, valid):
        y = y - centre
        squares = (y**2).sum(axis=1, keepdims=True)
        comparable = valid[:, None] & jnp.isfinite(squares)
        return jnp.concatenate([jnp.where(comparable, -2 * y, 0), jnp.where(comparable, squares, jnp.inf)], axis=1)

    def compared(block):
        return _product(block.reshape(-1, len(columns)), columns).reshape(*block.shape[:2], -1)

    return prepared, compared


def _product(x, y):
    """Without the rounding to ten bits that is the default on some accelerators: what follows cancels."""
    return jnp.matmul(x, y, precision="highest")


def _clamped(values):
    """At 0 or above; `jnp.maximum` loses NaN where XLA fuses it with a sum on a CPU."""
    return jnp.where(values < 0, 0, values)
