"""Farthest-first traversal, the greedy k-center, of up to 1,000,000 rows beside a plain scan and other libraries.

    make bench

All begin with row 0 and take the farthest row next. Seconds are medians of `--repeats`, ours and the scan's after a run
that compiles, a peer's with its own conversions; a peer that is slow runs once. Ours and the scan come first, since
threads of the peers go on spinning. fpsample is built by a C++ compiler. scikit-matter runs where it is installed:
it wants an older scikit-learn. scikit-activeml keeps the distances of each pick, 4 GB at 1,000,000 rows.
`--divide=10` tries all out in two minutes.
"""

import resource
import statistics
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from latent_al import kernels
from latent_al.kernels.distances import nearest

REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each contender, at most.")
PEERS = flags.DEFINE_bool("peers", True, "Run the other libraries too.")
DIVIDE = flags.DEFINE_integer("divide", 1, "Divides rows and picks, to see that all of it runs.")
MEMORY = flags.DEFINE_bool("memory", False, "Only our peak memory at the largest size.")

SIZES = [(55_000, 30, 1000), (300_000, 64, 1000), (1_000_000, 64, 500)]
"""Rows, width, picks."""
ORDERED = (20_000, 30, 20_000)
STARTS, BLOBS, SPREAD, SLOW = 10, 200, 10, 5.0
"""Starts at once, clusters, how far their means are spread, and the seconds from which a peer runs once."""


def divided(sizes):
    size, width, num = sizes
    return size // DIVIDE.value, width, num // DIVIDE.value


def make_points(size, width, data="gaussian"):
    rng = np.random.default_rng(0)
    points = rng.standard_normal((size, width), np.float32)
    if data == "clustered":
        means = SPREAD * rng.standard_normal((BLOBS, width), np.float32)
        points += means[rng.integers(BLOBS, size=size)]
    return points


def ours(points, num, first=0):
    return kernels.farthest_first(points, jnp.zeros(len(points), bool), num, first=first)


@partial(jax.jit, static_argnums=1)
def naive(points, num, first=0):
    """Returns the rows by a scan of all rows for each pick."""

    def pick(count, carry):
        distances, rows = carry
        row = rows[count - 1]
        distances = jnp.minimum(distances, ((points - points[row][None]) ** 2).sum(axis=1))
        return distances, rows.at[count].set(distances.argmax().astype(jnp.int32))

    start = jnp.full(len(points), jnp.inf, points.dtype), jnp.full(num, first, jnp.int32)
    return jax.lax.fori_loop(1, num, pick, start)[1]


def scikit_learn(points, num):
    from sklearn.metrics.pairwise import euclidean_distances

    rows, distances = np.zeros(num, int), np.full(len(points), np.inf, np.float32)
    for count in range(1, num):
        newest = points[rows[count - 1]][None]
        distances = np.minimum(distances, euclidean_distances(points, newest, squared=True)[:, 0])
        rows[count] = distances.argmax()
    return rows


def scikit_activeml(points, num):
    """Returns scikit-activeml's core-set, for which row 0 counts as labelled."""
    from skactiveml.pool import CoreSet

    labels = np.full(len(points), np.nan)
    labels[0] = 0
    return np.concatenate([[0], CoreSet(random_state=0).query(points, labels, batch_size=num - 1)])


def fpsample(points, num):
    """Returns fpsample's rows; its variants with a kd-tree take up to 8 dimensions."""
    from fpsample import fps_sampling

    return fps_sampling(points, num, start_idx=0)


def scikit_matter(points, num):
    from skmatter.sample_selection import FPS

    return FPS(initialize=0, n_to_select=num).fit(points).selected_idx_


def lightly(points, num):
    """Returns LightlyStudio's selection of diverse rows."""
    from lightly_mundig import Selection

    selection = Selection()
    selection.add_diversifying_strategy(embeddings=points, strength=1.0)
    return selection.run_selection(preselected_indices=[0], n_total_samples=len(points), n_samples_to_select=num)


LIBRARIES = {
    "scikit-learn loop": ("sklearn", scikit_learn),
    "scikit-activeml": ("skactiveml", scikit_activeml),
    "fpsample": ("fpsample", fpsample),
    "scikit-matter": ("skmatter", scikit_matter),
    "LightlyStudio": ("lightly_mundig", lightly),
}
"""The module and the function by name."""


def timed(function, slow=np.inf):
    """Returns the rows, the median seconds and the number of runs."""
    taken = []
    while len(taken) < REPEATS.value and (not taken or taken[0] < slow):
        began = time.perf_counter()
        rows = jax.block_until_ready(function())
        taken.append(time.perf_counter() - began)
    return np.asarray(rows), statistics.median(taken), len(taken)


def compiled(function):
    jax.block_until_ready(function())
    return timed(function)[:2]


def radius(points, rows):
    """Returns the radius within which the rows cover the pool."""
    sq_distances, _ = nearest(points, points[rows], jnp.ones(len(rows), bool))
    return float(jnp.sqrt(sq_distances.max()))


def gap(points, rows, row):
    """Returns the distance of a row to the nearest of `rows`, from differences in float64."""
    return np.sqrt(((np.float64(points[rows]) - points[row]) ** 2).sum(axis=1).min())


def compare(points, rows, peer):
    """Returns whether both picked the same, or where they part, by how much (1e-7 is rounding), and both radii."""
    same = rows == peer.astype(rows.dtype)
    if same.all():
        return "same rows"
    place = same.argmin()
    theirs, farthest = [gap(points, rows[:place], row[place]) if place else np.nan for row in (peer, rows)]
    points = jnp.asarray(points)
    return (
        f"{same.mean():.1%} of rows the same; pick {place} is the first other, {1 - theirs / farthest:.0e} less far; "
        f"radius {radius(points, peer):.6g}, ours {radius(points, rows):.6g}"
    )


def report(name, seconds, ratio, remark):
    print(f"    {name:20} {seconds:8.3f} s  {ratio:6.2f} x   {remark}", flush=True)


def run_ours(size, width, num, data):
    """Returns our rows and seconds, and prints them beside the scan's."""
    points = jnp.asarray(make_points(size, width, data))
    rows, seconds = compiled(lambda: ours(points, num))
    print(f"{size:,} x {width}, {num:,} picks, {data}: ours {seconds:.3f} s", flush=True)
    scanned, scan = compiled(lambda: naive(points, num))
    report("plain scan", scan, scan / seconds, compare(np.asarray(points), rows, scanned))
    return rows, seconds


def run_starts(size, width, num):
    """Prints the seconds of several starts at once beside those of one."""
    points, firsts = jnp.asarray(make_points(size, width)), jnp.arange(STARTS)
    _, one = compiled(lambda: ours(points, num))
    rows, seconds = compiled(lambda: jax.vmap(partial(ours, points, num))(firsts))
    same = np.mean([np.array_equal(rows[first], ours(points, num, first)) for first in firsts])
    scanned, scan = compiled(lambda: jax.vmap(lambda first: naive(points, num, first))(firsts))
    print(
        f"{size:,} x {width}, {num:,} picks, {STARTS} starts under vmap: ours {seconds:.3f} s, "
        f"{seconds / one:.2f} x one start; {same:.0%} pick as alone",
        flush=True,
    )
    report("plain scan", scan, scan / seconds, f"{np.mean(rows == scanned):.1%} of rows the same")


def run_ordered(size, width, num):
    points = jnp.asarray(make_points(size, width))
    rows, seconds = compiled(lambda: ours(points, num))
    assert len(set(rows.tolist())) == num
    print(f"{size:,} x {width}, the order of all rows: ours {seconds:.3f} s", flush=True)


def run_library(name, points, rows, seconds):
    module, function = LIBRARIES[name]
    if find_spec(module) is None:
        print(f"    {name:20} not installed", flush=True)
        return
    function(points[:1000], 10)  # Imports it and starts its threads.
    peer, peer_seconds, runs = timed(lambda: function(points, len(rows)), SLOW)
    once = "one run; " if runs == 1 else ""
    report(name, peer_seconds, peer_seconds / seconds, once + compare(points, rows, peer))


def run_memory(size, width, num):
    """Prints our peak beyond the points, which stay in memory twice throughout; compilation is in it."""
    on_host = make_points(size, width)
    points = jax.block_until_ready(jnp.asarray(on_host))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    jax.block_until_ready(ours(points, num))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{size:,} x {width}, {num:,} picks: peak {peak - before:.3f} GiB beyond the points, "
        f"which take {on_host.nbytes / 2**30:.3f} GiB",
        flush=True,
    )


def main(_):
    sizes = [divided(size) for size in SIZES]
    if MEMORY.value:
        run_memory(*sizes[-1])
        return
    # Before this process grows: on Linux a child's peak starts at that of its parent.
    subprocess.run([sys.executable, __file__, "--memory", f"--divide={DIVIDE.value}"], check=True)
    cells = [(*size, data) for size in sizes for data in ("gaussian", "clustered")]
    results = [run_ours(*cell) for cell in cells]
    run_starts(*sizes[0])
    run_ordered(*divided(ORDERED))
    for (size, width, num, data), result in zip(cells, results, strict=True) if PEERS.value else ():
        print(f"{size:,} x {width}, {num:,} picks, {data}: ours {result[1]:.3f} s", flush=True)
        points = make_points(size, width, data)
        for name in LIBRARIES:
            run_library(name, points, *result)


if __name__ == "__main__":
    app.run(main)
