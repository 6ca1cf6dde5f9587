"""Coverage of pools of 2,000 to 1,000,000 rows beside scikit-activeml, apricot and submodlib, which keep all pairs.

    python benchmarks/coverage.py

Latents are 50 clusters at unit length. The peer is asked for ten rows, ours for `--num`; seconds are medians of
`--repeats`, without compilation, ours before the peer's. A pass is the selection of one row. The peer breaks
ties at random, which only counts have: there the coverage of both tells. Facility location is apricot's, of a matrix of
similarities, and submodlib's, both lazy, with `--num` rows. `--size=1000000` runs that size alone, without
the peer, and `--only=prob_cover --repeats=1` one of the kernels there.
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from latent_al import kernels

SIZE = flags.DEFINE_integer("size", None, "Only our kernels at this size, with their peak memory.")
NUM = flags.DEFINE_integer("num", 100, "Rows to select.")
REPEATS = flags.DEFINE_integer("repeats", 3, "Timed runs.")

WIDTH, CLUSTERS, SPREAD = 64, 50, 3
PEER_SIZES, OUR_SIZES, PEER_NUM = (2_000, 30_000), (55_000,), 10
FACILITY_SIZE = 5_000
RADIUS = 0.6
"""About the distance between neighbours in a cluster."""


def make_points(size):
    rng = np.random.default_rng(0)
    points = rng.standard_normal((size, WIDTH), np.float32)
    points += SPREAD * rng.standard_normal((CLUSTERS, WIDTH), np.float32)[rng.integers(CLUSTERS, size=size)]
    return points / np.linalg.norm(points, axis=1, keepdims=True)


OURS = {
    "max_herding, sigma 1": partial(kernels.max_herding, sigma=1.0),
    "max_herding, sigma 0.3": partial(kernels.max_herding, sigma=0.3),
    "prob_cover": partial(kernels.prob_cover, radius=RADIUS),
    "facility_location": kernels.facility_location,
    "facility_location, samples of epsilon 0.1": partial(
        kernels.stochastic_facility_location, jax.random.key(0), epsilon=0.1
    ),
}
ONLY = flags.DEFINE_multi_enum("only", None, list(OURS), "With --size, the kernel to run; may be repeated.")


def seconds_of(select, points, num):
    """Returns what is selected, and the median seconds without those of compilation."""
    taken = jnp.zeros(len(points), bool)
    compiled = jax.jit(partial(select, num=num)).lower(points, taken).compile()
    return timed(lambda: jax.block_until_ready(compiled(points, taken)))


def timed(run):
    """Returns the last result, and the median seconds."""
    seconds = []
    for _ in range(REPEATS.value):
        began = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - began)
    return result, statistics.median(seconds)


def run_ours(size):
    points = jax.block_until_ready(jnp.asarray(make_points(size)))
    for name in ONLY.value or OURS:
        select = OURS[name]
        before = peak()
        one_pass = seconds_of(select, points, 1)[1]
        print(f"{size:,} x {WIDTH}, {name}: a pass in {one_pass:.2f} s", flush=True)
        result, seconds = seconds_of(select, points, NUM.value)
        print(
            f"{size:,} x {WIDTH}, {name}: {NUM.value} rows in {seconds:.2f} s, {seconds / one_pass:.1f} x a pass of "
            f"{one_pass:.2f} s; coverage {result.gains.sum():.3f}; peak {peak():.2f} GiB, {before:.2f} before; "
            f"load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


SIMILARITIES = {
    "max_herding, sigma 1": lambda sq_distances: np.exp(-sq_distances),
    "max_herding, sigma 0.3": lambda sq_distances: np.exp(-sq_distances / 0.3**2),
    "prob_cover": lambda sq_distances: sq_distances < RADIUS**2,
}


def coverage(name, points, rows):
    sq_distances = kernels.nearest(points, points[rows], np.ones(len(rows), bool)).sq_distances
    return np.mean(SIMILARITIES[name](np.asarray(sq_distances)))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def peers():
    from skactiveml.pool import MaxHerding, ProbCover

    herding = partial(MaxHerding, normalize_samples=False)
    return {
        "max_herding, sigma 1": herding(metric_dict=dict(gamma=1.0), random_state=0),
        "max_herding, sigma 0.3": herding(metric_dict=dict(gamma=1 / 0.3**2), random_state=0),
        # It counts a row at the radius as inside.
        "prob_cover": ProbCover(n_classes=2, deltas=[RADIUS], random_state=0),
    }


def run_peers(size):
    """Prints the seconds of both, and whether they select the same rows, ties apart."""
    points = make_points(size)
    timings = {
        name: [seconds_of(OURS[name], jnp.asarray(points), num) for num in (PEER_NUM, NUM.value)]
        for name in SIMILARITIES
    }
    for name, peer in peers().items():
        (result, ten), (_, ours) = timings[name]
        rows, theirs = timed(partial(peer.query, points, np.full(size, np.nan), batch_size=PEER_NUM))
        print(
            f"{size:,} x {WIDTH}, {name}: scikit-activeml {PEER_NUM} rows in {theirs:.2f} s, ours in {ten:.2f} s, "
            f"{theirs / ten:.0f} x, and {NUM.value} in {ours:.2f} s; {np.mean(rows == result.rows):.0%} of rows the "
            f"same, coverage {coverage(name, points, rows):.6f} and ours {coverage(name, points, result.rows):.6f}; "
            f"load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


def facility_location_peers(size):
    """Prints the seconds of apricot and submodlib beside ours, and the share of rows that are the same."""
    # numba imports a package that is named as this file.
    sys.path.remove(str(Path(__file__).parent))
    from apricot import FacilityLocationSelection
    from submodlib import FacilityLocationFunction

    points, num = make_points(size), NUM.value

    def apricot():
        similarities = np.maximum(points.astype(np.float64) @ points.T, 0)
        return FacilityLocationSelection(num, metric="precomputed", optimizer="lazy").fit(similarities).ranking

    def submodlib():
        function = FacilityLocationFunction(n=size, mode="dense", data=points, metric="cosine")
        return [row for row, _ in function.maximize(budget=num, optimizer="LazyGreedy", show_progress=False)]

    result, ours = seconds_of(kernels.facility_location, jnp.asarray(points), num)
    for name, select in dict(apricot=apricot, submodlib=submodlib).items():
        rows, theirs = timed(select)
        print(
            f"{size:,} x {WIDTH}, facility_location: {name} {num} rows in {theirs:.2f} s, ours in {ours:.2f} s, "
            f"{theirs / ours:.0f} x; {np.mean(rows == np.asarray(result.rows)):.0%} of rows the same; "
            f"load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


def main(_):
    if SIZE.value:
        run_ours(SIZE.value)
        return
    # Each size in a process of its own, for its peak memory.
    for size in OUR_SIZES:
        command = [sys.executable, __file__, f"--size={size}", f"--num={NUM.value}", f"--repeats={REPEATS.value}"]
        subprocess.run(command, check=True)
    for size in PEER_SIZES:
        run_peers(size)
    facility_location_peers(FACILITY_SIZE)


if __name__ == "__main__":
    app.run(main)
