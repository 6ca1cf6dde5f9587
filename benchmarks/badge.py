"""BADGE on 50,000 rows, whose gradients would take 10 GB, and beside scikit-activeml's, which makes them.

    make bench

Both get the same probabilities and features, and both begin with the row of the longest gradient; the draws are each
library's own. Ours are medians after a run that compiles.
"""

import resource
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from latent_al import kernels

MEMORY = flags.DEFINE_bool("memory", False, "Only ours at the large size, with its peak memory.")

LARGE = 50_000, 512, 100, 100
SMALL = 4000, 64, 10, 100
"""Rows, features, classes, picks: where the gradients are not made, and where they fit."""
REPEATS, TARGET, TARGET_GIB = 5, 5, 2


def make_rows(size, width, num_classes, _):
    """Returns probabilities [n c] of a linear layer, with features [n f] as they leave a ReLU."""
    rng = np.random.default_rng(0)
    features = np.maximum(rng.standard_normal((size, width), np.float32), 0)
    logits = features @ rng.standard_normal((width, num_classes), np.float32) / 2
    return np.asarray(jax.nn.softmax(logits)), features


def timed(function):
    """Returns the result of the function, and its median seconds."""
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        result = jax.block_until_ready(function())
        taken.append(time.perf_counter() - began)
    return np.asarray(result), statistics.median(taken)


def ours(rows, num):
    probs, features = (jnp.asarray(array) for array in rows)
    taken, key = jnp.zeros(len(probs), bool), jax.random.key(0)
    jax.block_until_ready(kernels.badge(key, probs, features, taken, num))
    return timed(lambda: kernels.badge(key, probs, features, taken, num))


def make_given(probs, features):
    """Returns a classifier of scikit-activeml that is given the probabilities of all rows."""
    from skactiveml.base import SkactivemlClassifier

    class Given(SkactivemlClassifier):
        def fit(self, *_):
            raise NotImplementedError("The probabilities are given.")

        def predict_proba(self, _):
            return probs, features

    return Given(classes=np.arange(probs.shape[1]))


def peer(rows, num):
    from skactiveml.pool import Badge

    probs, features = rows
    labels, classifier = np.full(len(probs), np.nan), make_given(probs, features)

    def query():
        return Badge(random_state=0).query(features, labels, classifier, fit_clf=False, batch_size=num)

    return timed(query)


def run_memory():
    """Prints our peak beyond the inputs, which stay in memory twice throughout; compilation is in it."""
    rows = make_rows(*LARGE)
    on_device = [jax.block_until_ready(jnp.asarray(array)) for array in rows]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    _, seconds = ours(on_device, LARGE[-1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 - before
    full = rows[0].itemsize * LARGE[0] * LARGE[1] * LARGE[2] / 2**30
    print(
        "{:,} x {}, {} classes, {} picks: ".format(*LARGE) + f"{seconds:.3f} s, peak {peak:.3f} GiB beyond the inputs, "
        f"allowed {TARGET_GIB}; gradients take {full:.1f} GiB",
        flush=True,
    )


def main(_):
    if MEMORY.value:
        run_memory()
        return
    # Before this process grows: on Linux a child's peak starts at that of its parent.
    subprocess.run([sys.executable, __file__, "--memory"], check=True)
    rows = make_rows(*SMALL)
    picks, seconds = ours(rows, SMALL[-1])
    peer_picks, peer_seconds = peer(rows, SMALL[-1])
    assert picks[0] == peer_picks[0]
    print(
        "{:,} x {}, {} classes, {} picks: ".format(*SMALL)
        + f"ours {seconds:.4f} s, scikit-activeml {peer_seconds:.3f} s, {peer_seconds / seconds:.0f} x, "
        f"target {TARGET} x"
    )


if __name__ == "__main__":
    app.run(main)
