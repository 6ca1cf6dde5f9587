"""Initial sets of 1,000 from 50,000 x 2 latents: seconds without the clustering, and memory at 1,000,000 x 2.

    make bench

Medians of 5 after a run that compiles. The latents are ten Gaussians of unequal spread, k-means makes the clusters.
"""

import resource
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app

from latent_al.strategies import STRATEGIES
from latent_al.types import UNLABELLED, Encoded, Pool, build

SIZE, LARGE, NUM, REPEATS = 50_000, 1_000_000, 1000, 5
KMEANS = dict(name="kmeans", num_clusters=10, iterations=20, seed=0)
SAMPLERS = [
    dict(name=name, clustering=clustering, threshold=0.25, match=match)
    for name in ("uniform", "normal", "multi_normal")
    for clustering in (None, KMEANS)
    for match in ("nearest", "all_within")
]
SPECS = [dict(name="ae_error"), *SAMPLERS, dict(name="typical", iterations=20), dict(name="farthest_first")]


def make_pool(size):
    rng = np.random.default_rng(0)
    group = rng.integers(10, size=size)
    latents = 3 * rng.standard_normal((10, 2))[group] + rng.uniform(0.2, 1, 10)[group, None] * rng.standard_normal(
        (size, 2)
    )
    train = Encoded(jnp.asarray(latents, jnp.float32), None, jnp.asarray(rng.random(size), jnp.float32))
    pool = Pool(
        train.latents, None, None, None, jnp.zeros(size, bool), jnp.full(size, UNLABELLED), jnp.arange(size), None
    )
    return train, pool


def timed(strategy, train, pool):
    pool = pool._replace(prepared=strategy.prepare(train))
    select = jax.jit(lambda key, pool: strategy.query(key, pool, NUM))
    seconds = []
    for seed in range(REPEATS + 1):
        began = time.perf_counter()
        rows = jax.block_until_ready(select(jax.random.key(seed), pool))
        seconds.append(time.perf_counter() - began)
        assert len(set(rows.tolist())) == NUM
    return statistics.median(seconds[1:])


def describe(spec):
    clusters = "" if spec.get("clustering") is None else "clustered "
    return f"{clusters}{spec['name']} {spec.get('match', '')}"


def main(_):
    small = make_pool(SIZE)
    for spec in SPECS:
        print(f"{describe(spec):34} {timed(build(STRATEGIES, spec, 'strategy'), *small):6.3f} s", flush=True)
    large = make_pool(LARGE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for spec in SPECS[:-2:3] + SPECS[-1:]:
        seconds = timed(build(STRATEGIES, spec, "strategy"), *large)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{LARGE:,} rows: {describe(spec):34} {seconds:6.3f} s   {peak - before:.2f} GiB above the pool", flush=True
        )


if __name__ == "__main__":
    app.run(main)
