"""A margin round and 100 farthest points of latents that are larger than memory, on disk or generated.

    python benchmarks/streaming.py --num=100000000 --width=64 [--generated]

One process. The latents are Gaussian, 4 bytes a number, and written below `--folder` first, 25.6 GB at that size;
`--generated` makes them anew in each pass instead. A pass reads them all once.
"""

import resource
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from absl import app, flags

from latent_al import kernels, streaming

NUM = flags.DEFINE_integer("num", 1_000_000, "Rows.")
WIDTH = flags.DEFINE_integer("width", 64, "Dimensions.")
GENERATED = flags.DEFINE_bool("generated", False, "Make the latents in each pass, and write none.")
FOLDER = flags.DEFINE_string("folder", None, "Where to write them; by default the system's folder of temporary files.")

PICKS, HIDDEN, CLASSES, CHUNK_ROWS = 100, 128, 10, 2**16


class Generated:
    """Gaussian rows, the same at each reading."""

    chunk_rows = CHUNK_ROWS

    def __init__(self, num_rows, width):
        self.num_rows, self.width, self.thread = num_rows, width, ThreadPoolExecutor(1)

    def read(self, start, stop):
        return self.thread.submit(self.make, start, stop)

    def make(self, start, stop):
        rows = np.empty((stop - start, self.width), np.float32)
        for low in range(start, stop, CHUNK_ROWS):
            rng = np.random.Generator(np.random.SFC64(low))
            rng.standard_normal(dtype=np.float32, out=rows[low - start : min(low + CHUNK_ROWS, stop) - start])
        return rows


class Counted:
    """A source that counts the rows read."""

    def __init__(self, source):
        self.num_rows, self.width, self.chunk_rows = source.num_rows, source.width, source.chunk_rows
        self.source, self.rows = source, 0

    def read(self, start, stop):
        self.rows += stop - start
        return self.source.read(start, stop)


def make_score(width):
    """Returns the margin of a classifier with random weights."""
    first, second = (
        jax.random.normal(jax.random.key(layer), shape) / shape[0] ** 0.5
        for layer, shape in enumerate([(width, HIDDEN), (HIDDEN, CLASSES)])
    )
    return jax.jit(lambda latents: kernels.margin(jax.nn.softmax(jax.nn.relu(latents @ first) @ second, axis=1)))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def report(name, seconds, gigabytes, remark=""):
    rate = gigabytes / seconds
    print(f"{name:22} {seconds:8.1f} s  {rate:6.2f} GB/s  peak {peak():.2f} GiB so far{remark}", flush=True)


def run(name, source, pick):
    source, began = Counted(source), time.perf_counter()
    rows = pick(source)
    seconds, gigabytes = time.perf_counter() - began, 4e-9 * source.rows * source.width
    assert len(set(rows.tolist())) == PICKS
    report(name, seconds, gigabytes, f"  {source.rows / source.num_rows:.2f} passes; first rows {rows[:3].tolist()}")


def write(source, folder):
    """Writes the rows of the source, and returns them as a source on disk."""
    size = 4 * source.num_rows * source.width
    if size > (free := shutil.disk_usage(folder).free):
        raise app.UsageError(f"{size} bytes are to be written but {folder} has {free} free; use --generated.")
    began = time.perf_counter()
    blocks = streaming.blocks(source, block_bytes=2**26)
    parts = (np.asarray(block.latents[0])[: block.stop - block.start] for block in blocks)
    written = streaming.write_latents(f"{folder}/latents", parts, source.num_rows, source.width)
    report("generated and written", time.perf_counter() - began, 1e-9 * size)
    return written


def main(_):
    source, taken = Generated(NUM.value, WIDTH.value), np.zeros(NUM.value, bool)
    print(f"{NUM.value:,} x {WIDTH.value}, {4e-9 * NUM.value * WIDTH.value:.2f} GB; peak {peak():.2f} GiB at the start")
    with tempfile.TemporaryDirectory(dir=FOLDER.value) as folder:
        source = source if GENERATED.value else write(source, folder)
        score = make_score(WIDTH.value)
        run(f"margin, top {PICKS}", source, lambda source: streaming.top_k(score, source, taken, PICKS))
        run(f"{PICKS} farthest points", source, lambda source: streaming.farthest_first(source, taken, PICKS))


if __name__ == "__main__":
    app.run(main)
