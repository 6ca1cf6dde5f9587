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

from latent_al import loop
from latent_al.models.classifiers import mlp
from latent_al.runtime.mesh import over_seeds
from latent_al.strategies import STRATEGIES
from latent_al.types import ROUND_AXES, STATE_AXES, Encoded, Problem, RoundState

POOL, WIDTH, LABELLED, NUM = 1_000_000, 64, 3000, 100


def main(_):
    rng = np.random.default_rng(0)
    encoded = Encoded(jnp.asarray(rng.standard_normal((POOL, WIDTH), np.float32)))
    labels = jnp.asarray(rng.integers(0, 10, POOL))
    queried = jnp.full((1, LABELLED + NUM), POOL).at[0, :LABELLED].set(jnp.arange(LABELLED))
    keys = jax.random.split(jax.random.key(0), 1)
    learner = mlp(hidden=(512, 512), dropout=0.2, learning_rate=1e-3, epochs=1, batch_size=100, num_classes=10)
    problem = Problem(encoded.latents, labels, encoded)
    state = RoundState(queried, jnp.int32(LABELLED), None, None, jnp.int32(0))

    def fit(key, setting, state, problem):
        return loop.fit(key, state, problem, learner=learner)

    state, _ = over_seeds(fit, ROUND_AXES, (STATE_AXES, 0))(keys, {}, state, problem)
    for pick in ("top_k", "random_partitions"):
        margin = STRATEGIES["uncertainty"](measure="margin", pick=pick)
        query = over_seeds(partial(_query, learner=learner, strategy=margin), ROUND_AXES, (STATE_AXES, 0))
        began = time.perf_counter()
        after, _ = jax.block_until_ready(query(keys, {}, state, problem))
        assert len(set(after.queried[0].tolist())) == LABELLED + NUM
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"margin, {pick:17} {time.perf_counter() - began:6.1f} s with compilation   peak {peak:.2f} GiB so far")


def _query(key, setting, state, problem, *, learner, strategy):
    return loop.query(key, state, problem, learner=learner, strategy=strategy, query_size=NUM)


if __name__ == "__main__":
    app.run(main)
