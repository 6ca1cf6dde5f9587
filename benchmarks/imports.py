"""The cost of importing latent_al beside `import jax`: seconds, modules loaded.

    python benchmarks/imports.py [--repeats=9]

Each import runs in a process of its own, one after the other in turn. Seconds are medians of the import statement, and
those beyond `import jax` the median of the difference within a turn.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

IMPORTS = ("jax", "jax, jaxtyping", "latent_al.kernels", "latent_al", "latent_al.loop, latent_al.strategies")
MEASURE = """
import sys, time
begun = time.perf_counter()
import {}
print(time.perf_counter() - begun, len(sys.modules))
"""


def measure(modules):
    """Returns the seconds of the import, and the number of modules that it leaves loaded."""
    command = [sys.executable, "-c", MEASURE.format(modules)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]).stdout
    seconds, count = out.split()
    return float(seconds), int(count)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    for modules in IMPORTS:
        measure(modules)  # so that all files are in memory, compiled
    turns = [{modules: measure(modules) for modules in IMPORTS} for _ in range(repeats)]
    print(f"{'import':40} {'seconds':>8} {'beyond jax':>11} {'modules':>8}")
    for modules in IMPORTS:
        seconds = statistics.median(turn[modules][0] for turn in turns)
        beyond = statistics.median(turn[modules][0] - turn["jax"][0] for turn in turns)
        print(f"{modules:40} {seconds:8.2f} {beyond:11.3f} {turns[0][modules][1]:8d}")


if __name__ == "__main__":
    main()
