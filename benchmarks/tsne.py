"""Calibrating t-SNE's conditional probabilities beside scikit-learn's binary search, from the same squared distances.

    python benchmarks/tsne.py

Made-up images of 784 pixels in ten classes: 1024 of them, and a batch of 64. Both take the matrix of distances and give
that of probabilities; times are medians of five runs after one that compiles.
"""

import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import app
from sklearn.manifold._utils import _binary_search_perplexity

from latent_al import kernels

PIXELS, CLASSES, REPEATS = 784, 10, 5
SIZES = ((1024, 30.0), (64, 20.0))
"""Rows and perplexity."""


def make_images(num):
    """Returns images in [0, 1], mostly black, as digits are."""
    rng = np.random.default_rng(0)
    strokes = rng.uniform(size=(CLASSES, PIXELS)) < 0.25
    grey = strokes[rng.integers(CLASSES, size=num)] * rng.uniform(0.3, 1, size=(num, PIXELS))
    return np.where(rng.uniform(size=(num, PIXELS)) < 0.9, grey, 0).astype(np.float32)


def timed(function, *args):
    """Returns the result of the function, and its seconds."""
    values, taken = np.asarray(function(*args)), []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(function(*args))
        taken.append(time.perf_counter() - began)
    return values, statistics.median(taken)


def off_target(conditional, perplexity):
    """Returns the largest difference of a row's perplexity from the target."""
    probs = conditional.astype(np.float64)
    nats = -(probs * np.log(np.where(probs > 0, probs, 1))).sum(axis=1)
    return np.abs(np.exp(nats) - perplexity).max()


def compare(num, perplexity):
    images = make_images(num)
    sq_distances = kernels.squared_distances(jnp.asarray(images), jnp.asarray(images))
    ours, our_seconds = timed(partial(kernels.conditional_probabilities, perplexity=perplexity), sq_distances)
    theirs, their_seconds = timed(_binary_search_perplexity, np.asarray(sq_distances), perplexity, 0)
    print(
        f"{num:4} rows, perplexity {perplexity:g}   {1e3 * our_seconds:7.2f} ms   "
        f"scikit-learn {1e3 * their_seconds:7.2f} ms, {their_seconds / our_seconds:5.1f} x   "
        f"perplexity off by {off_target(ours, perplexity):.0e} and {off_target(theirs, perplexity):.0e}   "
        f"largest difference of a probability {np.abs(ours - theirs).max():.0e}"
    )


def main(_):
    for num, perplexity in SIZES:
        compare(num, perplexity)


if __name__ == "__main__":
    app.run(main)
