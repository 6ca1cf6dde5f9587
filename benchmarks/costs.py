"""Seconds and memory of each strategy: what it prepares once, and one selection.

    python benchmarks/costs.py [--rows=55000] [--width=64] [--num=100] [--seconds=600] [--only=NAME]

The pool is that of benchmarks/same_rows.py, Gaussian, with ten classes and 100 labelled rows. Memory is what XLA takes
beside the pool. Each strategy runs in a process of its own, which is stopped after `--seconds`.
"""

import argparse
import multiprocessing
import time
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh
from same_rows import cases, make_pool, prepare

from latent_al.kernels._sharding import POOL
from latent_al.strategies import STRATEGIES
from latent_al.types import build


def measure(function, *args):
    """Returns the result, the seconds without compilation, and the MiB that XLA takes for it beside its arguments."""
    compiled = jax.jit(function).lower(*args).compile()
    memory = compiled.memory_analysis()
    taken = memory.temp_size_in_bytes + memory.output_size_in_bytes
    begun = time.perf_counter()
    result = jax.block_until_ready(compiled(*args))
    return result, time.perf_counter() - begun, taken / 2**20


def play(label, rows, width, num):
    """Prints a row of the table."""
    mesh = Mesh(np.array(jax.devices()), (POOL,))
    with jax.set_mesh(mesh):
        train, pool, queried = make_pool(rows, width, mesh)
        strategy = build(STRATEGIES, cases()[label], "strategy")
        prepared, once, once_taken = measure(partial(prepare, strategy), train, queried)
        query = partial(strategy.query, num=num)
        _, seconds, taken = measure(query, jax.random.key(5), pool._replace(prepared=prepared))
    print(f"| {label} | {once:.3f} | {seconds:.3f} | {max(once_taken, taken):.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=55_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--only", default="", help="Only strategies whose label contains it.")
    args = parser.parse_args()
    print("| strategy | prepared once, s | a selection, s | MiB beside the pool |\n| --- | --- | --- | --- |")
    spawn = multiprocessing.get_context("spawn")
    for label in cases():
        if args.only in label:
            process = spawn.Process(target=play, args=(label, args.rows, args.width, args.num))
            process.start()
            process.join(args.seconds)
            if process.is_alive():
                process.kill()
                print(f"| {label} | more than {args.seconds:g} s | | |", flush=True)


if __name__ == "__main__":
    main()
