"""Distances and divergences between points, and from a pool to one point of it.

A Gaussian with diagonal covariance is a pair (mu, log_sigma), the mean and the logarithm of the standard deviation.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def squared_distances(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Squared Euclidean distance of each pair of rows, in [0, inf): one matrix product, about the first row of `y`."""
    x, y = x - y[:1], y - y[:1]
    products = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None, :] - 2 * _product(x, y.T)
    return _clamped(products)


def kl_divergences(
    mu_x: Float[Array, "n d"],
    log_sigma_x: Float[Array, "n d"],
    mu_y: Float[Array, "m d"],
    log_sigma_y: Float[Array, "m d"],
) -> Float[Array, "n m"]:
    """KL(x || y) in nats of each pair of Gaussians with diagonal covariance, in [0, inf): two matrix products.

    The error is a rounding of the largest term: for pairs that nearly agree, `j_to` does not cancel.
    """
    mu_x, mu_y = mu_x - mu_y[:1], mu_y - mu_y[:1]
    precision = jnp.exp(-2 * log_sigma_y)
    spread = _product(jnp.exp(2 * log_sigma_x) + mu_x**2, precision.T) - 2 * _product(mu_x, (mu_y * precision).T)
    own = 2 * log_sigma_y.sum(axis=1) + (mu_y**2 * precision).sum(axis=1) - mu_x.shape[1]
    return _clamped(0.5 * (spread - 2 * log_sigma_x.sum(axis=1)[:, None] + own[None, :]))


def j_divergences(
    mu_x: Float[Array, "n d"],
    log_sigma_x: Float[Array, "n d"],
    mu_y: Float[Array, "m d"],
    log_sigma_y: Float[Array, "m d"],
) -> Float[Array, "n m"]:
    """KL(x || y) + KL(y || x) in nats of each pair of Gaussians with diagonal covariance, in [0, inf)."""
    forward = kl_divergences(mu_x, log_sigma_x, mu_y, log_sigma_y)
    return forward + kl_divergences(mu_y, log_sigma_y, mu_x, log_sigma_x).T


def squared_to(points: Float[Array, "n d"], point: Float[Array, " d"]) -> Float[Array, " n"]:
    """Squared Euclidean distance of each row to one point, in [0, inf), without cancellation."""
    return ((points - point[None, :]) ** 2).sum(axis=1)


def euclidean_to(points: Float[Array, "n d"], point: Float[Array, " d"]) -> Float[Array, " n"]:
    """Euclidean distance of each row to one point, in [0, inf)."""
    return jnp.sqrt(squared_to(points, point))


def reversed_cosine_to(points: Float[Array, "n d"], point: Float[Array, " d"]) -> Float[Array, " n"]:
    """(1 - cosine similarity) / 2 of each row and one point, in [0, 1]; NaN where one of them is zero."""
    # Of unit vectors it is a quarter of the squared distance, which does not cancel.
    unit, unit_to = points / jnp.linalg.norm(points, axis=1, keepdims=True), point / jnp.linalg.norm(point)
    return jnp.clip(squared_to(unit, unit_to) / 4, 0, 1)


def j_to(
    points: tuple[Float[Array, "n d"], Float[Array, "n d"]], point: tuple[Float[Array, " d"], Float[Array, " d"]]
) -> Float[Array, " n"]:
    """J-divergence in nats of each Gaussian (mu, log_sigma) and one of them, in [0, inf), without cancellation."""
    (mu, log_sigma), (mu_to, log_sigma_to) = points, point
    ratio = jnp.exp(log_sigma - log_sigma_to[None, :])
    gap = (mu - mu_to[None, :]) * jnp.exp(-log_sigma_to)[None, :]
    return 0.5 * ((ratio - 1 / ratio) ** 2 + gap**2 * (1 + 1 / ratio**2)).sum(axis=1)


def diameter(to, points: PyTree[Float[Array, "n d"]]) -> Float[Array, ""]:
    """Twice the largest distance from the origin, N(0, I) for Gaussians: the thesis's scale, section 3.4.3.

    For a metric it bounds the largest distance between two rows.

    Args:
        to: one of the distances above, from all rows to one point.
    """
    origin = jax.tree.map(lambda each: jnp.zeros_like(each[0]), points)
    return 2 * to(points, origin).max()


def _product(x, y):
    """Without the rounding to ten bits that is the default on some accelerators: what follows cancels."""
    return jnp.matmul(x, y, precision="highest")


def _clamped(values):
    """At 0 or above; `jnp.maximum` loses NaN where XLA fuses it with a sum on a CPU."""
    return jnp.where(values < 0, 0, values)
