"""The memory forecast for a margin round beside the memory that it takes beyond that at the time of the forecast.

    python benchmarks/forecast.py [--rows 100000 1000000 4000000] [--seeds 1] [--devices 1]

Precomputed latents of 64 Gaussian dimensions, made in a temporary folder, ten classes, an MLP 512-512 fitted for one
epoch, then the 100 least sure of all rows. Each size has a process of its own, which has played a small run before, and
which gives freed memory back at once, so that none counts twice. Memory is what Linux calls RssAnon and, of one device,
the file of latents, which it reads in place; several devices copy their shares. What comes after the rounds, such as
figures, is not played.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from latent_al.experiment.run import run_experiment
from latent_al.runtime.workdir import SEEDS_AT_ONCE

WIDTH, CLASSES = 64, 10
GIVE_BACK = dict(MALLOC_MMAP_THRESHOLD_="131072", MALLOC_TRIM_THRESHOLD_="0", MALLOC_ARENA_MAX="1")


def write_pool(folder, size):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    latents = np.lib.format.open_memmap(folder / "latents.npy", "w+", np.float32, (size, WIDTH))
    for first in range(0, size, 100_000):
        latents[first : first + 100_000] = rng.standard_normal((min(100_000, size - first), WIDTH), np.float32)
    latents.flush()
    np.savez(folder / "data.npz", x_train=np.zeros((size, 1, 1), np.uint8), y_train=np.arange(size) % CLASSES)


def make_config(folder, num_seeds, num_devices):
    margin = dict(name="uncertainty", measure="margin", pick="top_k")
    mlp = dict(name="mlp", hidden=(512, 512), dropout=0.2, learning_rate=1e-3, epochs=1, batch_size=100)
    files = dict(latents=str(folder / "latents.npy"))
    return ConfigDict(
        dict(
            num_seeds=num_seeds,
            seeds_at_once=num_seeds,
            mesh=dict(pool=num_devices) if num_devices > 1 else None,
            data=dict(name="npz", root=str(folder / "data.npz"), num_validation=0),
            encoders=dict(files=dict(name="precomputed", **files)),
            classifiers=dict(mlp=mlp),
            initial=dict(name="random"),
            num_initial=1000,
            query_size=100,
            num_rounds=1,
            arms=dict(margin=dict(encoder="files", classifier="mlp", subsample=1.0, strategy=margin)),
            baseline="margin",
        )
    )


def memory():
    """Returns the bytes of this process that are in memory and in no file."""
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def watch(workdir):
    """Ends the process after its last round, and prints the most that it took since the forecast."""
    while not (workdir / SEEDS_AT_ONCE).exists():
        time.sleep(1e-3)
    before = most = memory()
    while not (workdir / "checkpoints/margin/seeds-0/2").exists():
        most = max(most, memory())
        time.sleep(1e-3)
    print(f"Taken: {(most - before) / 2**20:.1f} MiB", flush=True)
    os._exit(0)


def play(folder, num_seeds, num_devices):
    small = folder / "small"
    run_experiment(make_config(small, num_seeds, num_devices), str(small / "run"))
    threading.Thread(target=watch, args=(folder / "run",), daemon=True).start()
    run_experiment(make_config(folder, num_seeds, num_devices), str(folder / "run"))


def mebibytes(printed):
    """Returns the MiB that a run and `watch` printed."""
    amounts = re.findall(r"(?:Memory|Taken): ([\d.]+) ([MG])iB", printed)
    return [float(number) * (1024 if unit == "G" else 1) for number, unit in amounts]


def measure(size, args):
    """Returns the MiB of the forecast, for all devices, and those taken."""
    with tempfile.TemporaryDirectory() as folder:
        write_pool(Path(folder), size)
        write_pool(Path(folder) / "small", 2000)
        flags = ["--folder", folder, "--seeds", str(args.seeds), "--devices", str(args.devices)]
        env = os.environ | GIVE_BACK | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={args.devices}"}
        printed = subprocess.check_output([sys.executable, __file__, *flags], env=env, text=True)
    *_, forecast, taken = mebibytes(printed)
    in_place = size * WIDTH * 4 / 2**20 if args.devices == 1 else 0
    return forecast * args.devices, taken + in_place


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**5, 10**6, 4 * 10**6])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for the process of one size")
    args = parser.parse_args()
    if args.folder:
        play(args.folder, args.seeds, args.devices)
        return
    for size in args.rows:
        forecast, taken = measure(size, args)
        parts = f"forecast {forecast:8.1f} MiB, taken {taken:8.1f} MiB, {100 * (forecast / taken - 1):+.1f} %"
        print(f"{size:12,} rows on {args.devices} device(s): {parts}", flush=True)


if __name__ == "__main__":
    main()
