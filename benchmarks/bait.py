"""BAIT on 50,000 rows, whose gradients would take 10 GB, and beside a plain implementation, which makes them.

    make bench

The peer follows Algorithm 1 of Ash, Goel, Krishnamurthy and Kakade (2021), forward steps only, as their code does it: a
matrix V [c f, c] for each row, M^-1 in full, and a trace for each row and step by products of these. It is in NumPy and
float32. Both get the same rows, and select the same. Ours are without compilation.
"""

import resource
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from latent_al import kernels

MEMORY = flags.DEFINE_bool("memory", False, "Only ours at the large size, with its peak memory.")
ROWS = flags.DEFINE_integer("rows", 50_000, "Rows of the large size.")
FEATURES = flags.DEFINE_integer("features", 512, "Features of the large size.")
CLASSES = flags.DEFINE_integer("classes", 10, "Classes of the large size.")
NUM = flags.DEFINE_integer("num", 100, "Picks of the large size.")

SMALL = 5000, 128, 10, 10
"""Rows, features, classes, picks: where the gradients fit."""
NUM_LABELLED, L2 = 100, 1.0


def make_rows(size, width, num_classes):
    """Returns features [n f] as they leave a ReLU, probabilities [n c] of a linear layer, and rows taken [n]."""
    rng = np.random.default_rng(0)
    features = np.maximum(rng.standard_normal((size, width), np.float32), 0)
    logits = features @ rng.standard_normal((width, num_classes), np.float32) * (2 / width**0.5)
    return features, np.asarray(jax.nn.softmax(logits)), np.arange(size) < NUM_LABELLED


def timed(function):
    """Returns the result of the function and its seconds."""
    began = time.perf_counter()
    result = jax.block_until_ready(function())
    return result, time.perf_counter() - began


def ours(rows, num):
    """Returns the rows selected, the seconds of all, and those of one, most of which pass before the first pick."""
    features, probs, taken = (jnp.asarray(array) for array in rows)

    def select(num):
        return kernels.bait(features, taken, num, probs=probs, l2=L2)

    for size in (1, num):
        jax.block_until_ready(select(size))
    (picks, seconds), (_, seconds_of_one) = timed(lambda: select(num)), timed(lambda: select(1))
    return np.asarray(picks).tolist(), seconds, seconds_of_one


def peer(rows, num):
    features, probs, taken = rows
    num_rows, num_classes = probs.shape
    errors = np.sqrt(probs)[:, :, None] * (np.eye(num_classes, dtype=np.float32)[None] - probs[:, None])
    # V^T [n c, c f].
    gradients = np.einsum("nyc,nf->nycf", errors, features).reshape(num_rows, num_classes, -1)
    flat = gradients.reshape(-1, gradients.shape[2])
    labelled = gradients[taken].reshape(-1, gradients.shape[2])
    of_pool = flat.T @ flat / num_rows
    inverse = np.linalg.inv(L2 * np.eye(len(of_pool), dtype=np.float32) + labelled.T @ labelled)
    taken, picks = taken.copy(), []
    for _ in range(num):
        between = flat @ inverse
        inner = np.eye(num_classes, dtype=np.float32) + between.reshape(gradients.shape) @ gradients.swapaxes(1, 2)
        covered = (between @ of_pool).reshape(gradients.shape) @ between.reshape(gradients.shape).swapaxes(1, 2)
        gains = np.einsum("nij,nji->n", covered, np.linalg.inv(inner))
        row = int(np.where(taken, -np.inf, gains).argmax())
        part = between.reshape(gradients.shape)[row]
        inverse = inverse - part.T @ np.linalg.inv(inner[row]) @ part
        taken[row] = True
        picks.append(row)
    return picks


def run_memory():
    """Prints our peak beyond the inputs, which stay in memory twice throughout; compilation is in it."""
    rows = make_rows(ROWS.value, FEATURES.value, CLASSES.value)
    on_device = [jax.block_until_ready(jnp.asarray(array)) for array in rows]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    _, seconds, seconds_of_one = ours(on_device, NUM.value)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 - before
    full = rows[0].itemsize * ROWS.value * FEATURES.value * CLASSES.value**2 / 2**30
    print(
        f"{ROWS.value:,} x {FEATURES.value}, {CLASSES.value} classes, {NUM.value} picks: {seconds:.1f} s, of which "
        f"{seconds_of_one:.1f} s to the first; peak {peak:.2f} GiB beyond the inputs; gradients take {full:.1f} GiB",
        flush=True,
    )


def main(_):
    if MEMORY.value:
        run_memory()
        return
    # Before this process grows: on Linux a child's peak starts at that of its parent.
    subprocess.run([sys.executable, *sys.argv, "--memory"], check=True)
    *sizes, num = SMALL
    rows = make_rows(*sizes)
    picks, seconds, _ = ours(rows, num)
    peer_picks, peer_seconds = timed(lambda: peer(rows, num))
    same = sum(a == b for a, b in zip(picks, peer_picks, strict=True))
    print(
        "{:,} x {}, {} classes, {} picks: ".format(*SMALL)
        + f"ours {seconds:.3f} s, the peer {peer_seconds:.2f} s, {peer_seconds / seconds:.0f} x; {same} picks the same"
    )


if __name__ == "__main__":
    app.run(main)
