"""Clusterings of a latent space, each a factory that returns a function from points [n d] to assignments [n]."""

from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from latent_al.kernels import clustering
from latent_al.types import BadInput, require


def ward(*, num_clusters: int) -> Callable:
    """Clusters agglomeratively by Ward's criterion: fastcluster's exact algorithm, O(n) memory, O(n^2) time.

    Where points coincide there may be fewer clusters. It takes ten seconds for 50,000 points in the plane.

    Args:
        num_clusters: number of clusters, 1 or more, at most that of the points.
    """
    _check(num_clusters)
    require("ward", "experiments", "fastcluster", "scipy")
    return partial(_on_host, _ward, num_clusters=num_clusters)


def kmeans(*, num_clusters: int, iterations: int, seed: int) -> Callable:
    """Clusters by k-means from a k-means++ start.

    Args:
        num_clusters: number of clusters, 1 or more, at most that of the points.
        iterations: maximum number of iterations.
        seed: of the start.
    """
    _check(num_clusters)
    return lambda points: clustering.kmeans(jax.random.key(seed), points, num_clusters, iterations=iterations).clusters


def gaussian_mixture(*, num_clusters: int, seed: int) -> Callable:
    """Clusters by scikit-learn's Gaussian mixture with full covariances.

    Args:
        num_clusters: number of clusters, 1 or more, at most that of the points.
        seed: of the start.
    """
    _check(num_clusters)
    require("gaussian_mixture", "experiments", "sklearn")
    return partial(_on_host, _gaussian_mixture, num_clusters=num_clusters, seed=seed)


CLUSTERINGS: dict[str, Callable[..., Callable]] = {"gaussian_mixture": gaussian_mixture, "kmeans": kmeans, "ward": ward}
"""Clusterings by name, each a factory that returns a function from points [n d] to assignments [n]."""


def _on_host(function, points, **settings):
    size = points.shape[0]
    if jax.process_count() > 1:
        raise ValueError(f"{function.__name__[1:]} clusters on one host, not in several processes; choose kmeans.")
    if settings["num_clusters"] > size:
        raise ValueError(f"num_clusters is {settings['num_clusters']} but there are {size} points; lower it.")

    def call(points):
        return function(np.asarray(points, float).tobytes(), points.shape, **settings)

    # Avoids a callback where possible: it turns a ValueError into another error.
    if not isinstance(points, jax.core.Tracer):
        return jnp.asarray(call(points))
    return jax.pure_callback(call, jax.ShapeDtypeStruct((size,), jnp.int32), points, vmap_method="sequential")


# Arms that draw from the same clusters run one after the other, and compute them once.
@lru_cache(maxsize=1)
def _ward(raw, shape, num_clusters):
    import fastcluster
    from scipy.cluster.hierarchy import fcluster

    points = np.frombuffer(raw).reshape(shape)
    if num_clusters == 1:
        return np.zeros(shape[0], np.int32)
    tree = fastcluster.linkage_vector(points, method="ward")
    return np.int32(fcluster(tree, num_clusters, "maxclust") - 1)


@lru_cache(maxsize=1)
def _gaussian_mixture(raw, shape, num_clusters, seed):
    from sklearn.mixture import GaussianMixture

    points = np.frombuffer(raw).reshape(shape)
    return np.int32(GaussianMixture(num_clusters, random_state=seed).fit_predict(points))


def _check(num_clusters):
    if num_clusters < 1:
        raise BadInput(f"num_clusters is {num_clusters}; expected 1 or more.")
