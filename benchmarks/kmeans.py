"""k-means on 50,000 rows in clusters, beside scikit-learn's.

    make bench

Both move the same centres, at most 100 times or until no row changes its cluster; both draw the first ones row by row.
Ours are medians after a run that compiles.
"""

import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import app
from sklearn.cluster import KMeans, kmeans_plusplus

from latent_al import kernels

SIZE, WIDTHS, BLOBS, ITERATIONS = 50_000, (2, 30), 200, 100
REPEATS = {10: 5, 1000: 3}
"""By the number of clusters."""
ALLOWED = 1e-3


def make_points(width, size=SIZE):
    """Gaussians that overlap at width 2 and stand apart at width 30."""
    rng = np.random.default_rng(0)
    means = 3 * rng.standard_normal((BLOBS, width))
    return np.float32(means[rng.integers(BLOBS, size=size)] + rng.standard_normal((size, width)))


def timed(function, repeats):
    """Returns the result of the function, and its median seconds."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = jax.block_until_ready(function())
        taken.append(time.perf_counter() - began)
    return result, statistics.median(taken)


def draw(points, num_clusters, repeats):
    """Returns our first centres, with the times of both."""
    key, on_device = jax.random.key(0), jnp.asarray(points)
    jax.block_until_ready(kernels.kmeans_plus_plus(key, on_device, num_clusters))
    centres, ours = timed(lambda: kernels.kmeans_plus_plus(key, on_device, num_clusters), repeats)
    _, peer = timed(lambda: kmeans_plusplus(points, num_clusters, random_state=0, n_local_trials=1), repeats)
    return np.asarray(centres), ours, peer


def move(points, centres, repeats):
    """Returns our inertia, its relative difference to the peer's, the peer's iterations and the times of both."""
    move_ours = partial(kernels.lloyd, jnp.asarray(points), jnp.asarray(centres), iterations=ITERATIONS)
    jax.block_until_ready(move_ours())
    result, ours = timed(move_ours, repeats)
    peer = KMeans(len(centres), init=centres, n_init=1, tol=0, max_iter=ITERATIONS, algorithm="lloyd")
    peer, seconds = timed(lambda: peer.fit(points), repeats)
    return float(result.inertia), float(result.inertia) / peer.inertia_ - 1, peer.n_iter_, ours, seconds


def main(_):
    for width in WIDTHS:
        points = make_points(width)
        for num_clusters, repeats in REPEATS.items():
            cell = f"{SIZE} x {width:2}, {num_clusters:4} clusters"
            centres, ours, peer = draw(points, num_clusters, repeats)
            print(f"{cell}  draw {ours:7.3f} s   scikit-learn {peer:7.3f} s, {peer / ours:5.1f} x")
            inertia, gap, steps, ours, peer = move(points, centres, repeats)
            print(
                f"{cell}  move {ours:7.3f} s   scikit-learn {peer:7.3f} s, {peer / ours:5.1f} x, {steps} iterations; "
                f"inertia {inertia:.4g}, off by {gap:+.0e}, allowed {ALLOWED:.0e}"
            )


if __name__ == "__main__":
    app.run(main)
