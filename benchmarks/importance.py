"""Importance of every row of a pool beside one pass over its features, and beside the double sum that it factors.

    make bench

Seconds are medians of `--repeats` after a run that compiles. The double sum goes over each row and each labelled
example in turn, as equation 2 of the paper is written, compiled and in tiles.
"""

import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp
from absl import app, flags

from latent_al import kernels

REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each contender.")
SIZES = [(1_000_000, 512, 10), (50_000, 512, 100)]
"""Rows, width, classes."""
LABELLED, L2, TILE = 1000, 0.01, 1000


def make(size, width, num_classes):
    """Makes the pool on the device at once: NumPy would need it twice."""
    key_features, key_probs = jax.random.split(jax.random.key(0))
    features = jax.jit(partial(jax.random.normal, shape=(size, width)))(key_features)
    return features, jax.nn.softmax(jax.random.normal(key_probs, (size, num_classes)))


@jax.jit
def factored(features, probs, labelled):
    return kernels.importance(probs, features, labelled_sum=labelled.sum(axis=0), num_labelled=len(labelled), l2=L2)


@jax.jit
def double_sum(features, probs, labelled):
    def of_tile(tile):
        features, probs = tile
        alphas = (1 - probs) / (2 * L2 * len(labelled))
        values = (features @ labelled.T)[:, :, None] * alphas[:, None, :]
        return (values * probs[:, None, :]).sum(axis=(1, 2))

    tiles = jax.tree.map(lambda array: array.reshape(-1, TILE, array.shape[1]), (features, probs))
    return jax.lax.map(of_tile, tiles).ravel()


@jax.jit
def one_pass(features, vector):
    return features @ vector


def timed(function, *arrays):
    """Returns the median seconds and the result."""
    result, taken = jax.block_until_ready(function(*arrays)), []
    for _ in range(REPEATS.value):
        began = time.perf_counter()
        jax.block_until_ready(function(*arrays))
        taken.append(time.perf_counter() - began)
    return statistics.median(taken), result


def main(_):
    for size, width, num_classes in SIZES:
        features, probs = make(size, width, num_classes)
        labelled = features[:LABELLED]
        once, _ = timed(one_pass, features, features[0])
        ours, result = timed(factored, features, probs, labelled)
        print(
            f"{size:,} x {width}, {num_classes} classes, {LABELLED:,} labelled: ours {ours:.4f} s, "
            f"{ours / once:.2f} x one pass over the features ({once:.4f} s)",
            flush=True,
        )
        if size <= 50_000:
            slow, expected = timed(double_sum, features, probs, labelled)
            off = float(jnp.abs(result - expected).max() / jnp.abs(expected).max())
            print(f"    double sum {slow:.3f} s, {slow / ours:.0f} x ours; largest difference {off:.0e} of the largest")


if __name__ == "__main__":
    app.run(main)
