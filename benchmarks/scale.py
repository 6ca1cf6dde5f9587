"""The cost of a selection as the pool grows: seconds and bytes a row, from 10^5 rows to 10^7.

    python benchmarks/scale.py [--largest=7] [--width=64] [--repeats=5]

Gaussian latents in memory, one process: a margin round (an MLP's probabilities of every row, then the 100 least sure),
100 farthest points, and the 100 rows of largest cosine density. Bytes are those of the compiled program besides its
arguments. Seconds are those of the fastest run, which others on the machine disturb least. Linear is a cost a row that
stays what it is at 10^6 rows.
"""

import argparse
import time

import jax
import jax.numpy as jnp

from latent_al import kernels
from latent_al.models.classifiers import mlp

NUM, LABELLED = 100, 100


def margin_round(learner, params, latents, taken):
    return kernels.top_k(kernels.margin(learner.predict(params, latents)[1]), taken, NUM)


def measure(function, *args, repeats):
    """Returns the seconds of the fastest run, and the bytes of the compiled program besides its arguments."""
    compiled = jax.jit(function).lower(*args).compile()
    jax.block_until_ready(compiled(*args))
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        seconds.append(time.perf_counter() - begun)
    return min(seconds), compiled.memory_analysis().temp_size_in_bytes


def make_jobs(width):
    """Returns functions of the latents and the rows taken by name."""
    learner = mlp(num_classes=10, hidden=(128,), dropout=0.0, learning_rate=1e-3, epochs=1, batch_size=100)
    key = jax.random.key(0)
    some, labels = jax.random.normal(key, (LABELLED, width)), jnp.arange(LABELLED) % 10
    params, _ = jax.jit(learner.fit)(key, some, labels, jnp.arange(LABELLED), LABELLED)
    return {
        "margin round": lambda latents, taken: margin_round(learner, params, latents, taken),
        "farthest first": lambda latents, taken: kernels.farthest_first(latents, taken, NUM),
        "cosine density": lambda latents, taken: kernels.top_k(kernels.cosine_density(latents), taken, NUM),
    }


def make_latents(size, width):
    """Returns Gaussian latents, and a mask of the rows taken."""
    latents = jax.random.normal(jax.random.key(1), (size, width))
    return latents, jnp.zeros(size, bool).at[:LABELLED].set(True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=7, help="power of ten")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    jobs = make_jobs(args.width)
    print(f"{'rows':>12}  " + "".join(f"{name:>16} s   ns a row   bytes a row" for name in jobs))
    for exponent in range(10, 2 * args.largest + 1):
        num = round(10 ** (exponent / 2))
        latents, taken = make_latents(num, args.width)
        cells = []
        for job in jobs.values():
            seconds, temporary = measure(job, latents, taken, repeats=args.repeats)
            cells.append(f"{seconds:16.4f} s {1e9 * seconds / num:10.1f} {temporary / num:13.1f}")
        print(f"{num:12,}  " + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
