"""Peak memory of one round of margin selection on a pool of 1,000,000 x 64 latents.

    make bench

MLP 512-512 fitted on 3,000 labelled rows for one epoch, then the whole pool predicted and 100 rows picked.
"""

import resource
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import app

from latent_al.loop import fit_round, select_round
from latent_al.models.classifiers import mlp
from latent_al.runtime.mesh import over_seeds
from latent_al.strategies import STRATEGIES
from latent_al.types import Encoded

POOL, WIDTH, LABELLED, NUM = 1_000_000, 64, 3000, 100


def main(_):
    rng = np.random.default_rng(0)
    train = Encoded(jnp.asarray(rng.standard_normal((POOL, WIDTH), np.float32)), None)
    labels = jnp.asarray(rng.integers(0, 10, POOL))
    queried = jnp.full((1, LABELLED + NUM), POOL).at[0, :LABELLED].set(jnp.arange(LABELLED))
    nothing = (train.latents[:0], labels[:0])
    rate, gamma = jnp.float32(0.2), jnp.float32(0)
    count, keys = jnp.int32(LABELLED), jax.random.split(jax.random.key(0), 1)
    learner = mlp(hidden=(512, 512), dropout=0.2, learning_rate=1e-3, epochs=1, batch_size=100, num_classes=10)
    fit = over_seeds(partial(fit_round, learner=learner), 0, None, None, None, 0, None, None)
    params, labelled, _ = fit(keys, rate, train.latents, labels, queried, count, nothing)
    for pick in ("top_k", "random_partitions"):
        margin = STRATEGIES["uncertainty"](measure="margin", pick=pick)
        choose = partial(select_round, learner=learner, strategy=margin, num=NUM, fraction=1.0)
        select = over_seeds(choose, 0, None, None, 0, 0, None, None, None, None, 0, None, None)
        began = time.perf_counter()
        known = (train.latents, train, None, labels, queried, jnp.int32(0), count)
        rows, _ = jax.block_until_ready(select(keys, rate, gamma, params, labelled, *known))
        assert len(set(rows[0].tolist())) == LABELLED + NUM
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"margin, {pick:17} {time.perf_counter() - began:6.1f} s with compilation   peak {peak:.2f} GiB so far")


if __name__ == "__main__":
    app.run(main)
