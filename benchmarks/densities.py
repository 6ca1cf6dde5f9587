"""Representativeness and diverse batches on a pool of 55,000 x 30 latents, beside scikit-learn's tiled distances.

    make bench

Ours are medians of three runs after one that compiles; the peers come after them, out of the printed peaks, and run
once. scikit-learn takes "sqeuclidean" from SciPy, so its own "euclidean" with `squared=True` runs as well. It has no
Jeffreys divergence: there the time is the shorter of those two, and the values are NumPy's, pair by pair in float64. A
pool of 1,000,000 x 64 runs in a process of its own, for its peak.
"""

import resource
import statistics
import subprocess
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from sklearn.metrics import pairwise_distances_chunked

from latent_al import kernels
from latent_al.kernels import distances

MILLION = flags.DEFINE_bool("million", False, "Only the measures of linear cost, on 1,000,000 x 64.")

POOL, WIDTH, LARGE_POOL, LARGE_WIDTH = 55_000, 30, 1_000_000, 64
NUM, FRACTION, REPEATS, TILE, REQUIRED = 100, 0.01, 3, 500, 1e-4
DISTANCES = (
    distances.euclidean_to_point,
    distances.squared_euclidean_to_point,
    distances.half_cosine_to_point,
    distances.jeffreys_to_point,
)


def make_gaussians(num, width):
    rng = np.random.default_rng(0)
    mu = jnp.asarray(rng.standard_normal((num, width), np.float32))
    log_sigma = rng.standard_normal((num, width), np.float32)
    # In place, since the peak counts.
    log_sigma *= 0.3
    log_sigma -= 1
    return mu, jnp.asarray(log_sigma)


def timed(function, *args):
    """Returns the result of the function, and its seconds."""
    values, taken = np.asarray(function(*args)), []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(function(*args))
        taken.append(time.perf_counter() - began)
    return values, statistics.median(taken)


def peak():
    return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB so far"


def our_densities(mu, log_sigma):
    """Returns values and seconds by name."""
    ours = {
        "cosine": timed(kernels.cosine_density, mu),
        "squared Euclidean": timed(kernels.squared_euclidean_density, mu),
        "Jeffreys divergence": timed(kernels.jeffreys_density, mu, log_sigma),
    }
    print(f"before euclidean_density     {peak()}")
    ours["Euclidean"] = timed(kernels.euclidean_density, mu)
    print(f"after euclidean_density      {peak()}")
    estimate = partial(kernels.euclidean_density_estimate, fraction=FRACTION)
    values, taken = timed(estimate, jax.random.key(0), mu)
    gaps = np.abs(values - ours["Euclidean"][0])
    print(f"its estimate from {FRACTION:.0%}        {taken:.3f} s, off by {gaps.mean():.4f}, at most {gaps.max():.4f}")
    return ours


def pick_diverse(mu, log_sigma):
    score, taken = jax.random.uniform(jax.random.key(0), (len(mu),)), jnp.zeros(len(mu), bool)
    for to in DISTANCES:
        pick = jax.jit(partial(kernels.greedy_diverse, num=NUM, distance=to, weight=1.0))
        _, seconds = timed(pick, score, (mu, log_sigma) if to is distances.jeffreys_to_point else mu, taken)
        print(f"greedy_diverse, {to.__name__:18} {seconds:8.3f} s for {NUM} rows")


def sklearn_means(points, **metric):
    """Returns the mean distance of each row to all rows, and its seconds."""
    began = time.perf_counter()
    tiles = pairwise_distances_chunked(points, reduce_func=lambda tile, start: tile.mean(axis=1), **metric)
    return np.concatenate(list(tiles)).astype(np.float64), time.perf_counter() - began


def jeffreys_means(mu, log_sigma):
    """Returns the mean Jeffreys divergence of each row to all rows, by a matrix product of J + width, tile by tile."""
    mu, variance = mu.astype(np.float64), np.exp(2 * log_sigma.astype(np.float64))
    precision = 1 / variance
    to_self = (mu**2 * precision).sum(axis=1, keepdims=True)
    spread, one = variance + mu**2, np.ones_like(to_self)
    left = np.concatenate([spread, -2 * mu, precision, -2 * mu * precision, to_self, one], axis=1) / 2
    right = np.concatenate([precision, mu * precision, spread, mu, one, to_self], axis=1)
    tiles = [(left[row : row + TILE] @ right.T).mean(axis=1) for row in range(0, len(mu), TILE)]
    return np.concatenate(tiles) - mu.shape[1]


def compare(ours, mu, log_sigma):
    times = {}
    for name, peer, metric in (
        ("cosine", "cosine", dict(metric="cosine")),
        ("squared Euclidean", "sqeuclidean", dict(metric="sqeuclidean")),
        ("squared Euclidean", "squared=True", dict(metric="euclidean", squared=True)),
        ("Euclidean", "euclidean", dict(metric="euclidean")),
    ):
        means, times[peer] = sklearn_means(mu, **metric)
        report(name, ours, 1 - means / (2 if name == "cosine" else means.max()), peer, times[peer])
    means, peer = jeffreys_means(mu, log_sigma), min(("sqeuclidean", "squared=True"), key=times.get)
    report("Jeffreys divergence", ours, 1 - means / means.max(), peer, times[peer])


def report(name, ours, reference, peer, peer_seconds):
    values, taken = ours[name]
    gap = np.abs(values - reference).max()
    print(
        f"{name:17} {taken:8.4f} s   scikit-learn's {peer:12} {peer_seconds:6.1f} s, {peer_seconds / taken:6.0f} x   "
        f"largest difference {gap:.0e}, required {REQUIRED:.0e}"
    )


def measure_million():
    mu, log_sigma = make_gaussians(LARGE_POOL, LARGE_WIDTH)
    print(f"{LARGE_POOL} x {LARGE_WIDTH}, {'the pool itself':36}   {peak()}")
    for kernel, *args in (
        (kernels.cosine_density, mu),
        (kernels.squared_euclidean_density, mu),
        (kernels.closeness_to_origin, mu),
        (kernels.squared_closeness_to_origin, mu),
        (kernels.kl_to_prior, mu, log_sigma),
        (kernels.jeffreys_density, mu, log_sigma),
    ):
        _, taken = timed(kernel, *args)
        print(f"{LARGE_POOL} x {LARGE_WIDTH}, {kernel.__name__:26} {taken:8.3f} s   {peak()}")


def play():
    mu, log_sigma = make_gaussians(POOL, WIDTH)
    ours = our_densities(mu, log_sigma)
    pick_diverse(mu, log_sigma)
    print(subprocess.check_output([sys.executable, __file__, "--million"], text=True), end="")
    compare(ours, np.asarray(mu), np.asarray(log_sigma))


def main(_):
    measure_million() if MILLION.value else play()


if __name__ == "__main__":
    app.run(main)
