"""A pool whose rows lie on eight devices: the rows that one device picks, and what moves between the devices.

As a program this file takes the place of its tests' second process, which has eight devices.
"""

import json
import os
import re
import subprocess
import sys
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial
from test_strategies import SETTINGS, draw

from latent_al.base import UNLABELLED, Encoded, Pool, build
from latent_al.kernels.farthest import CANDIDATES
from latent_al.kernels.shards import POOL
from latent_al.strategies import STRATEGIES

DEVICES, NUM, NUM_TAKEN = 8, 20, 40
SIZE, DIMENSIONS, CLASSES = DEVICES * 1027, 8, 4
MARKS = SIZE
"""Bytes of one mark a row: the least that would grow with the pool."""
LIMITS = dict.fromkeys(("coreset", "uncertain_farthest_first"), CANDIDATES * (DIMENSIONS + 4) * 4 + 4)
"""Bytes of the largest collective, where not below `MARKS`: farthest-first traversals move their candidates."""
NAMES = (
    *("ae_error", "badge", "bald", "coreset", "distance", "greedy_diverse", "ibal", "ibal_d"),
    *("informativeness", "normal", "random", "typical", "uncertain_farthest_first", "uniform"),
)
SPECS = {name: dict(name=name, **SETTINGS[name][0]) for name in NAMES}
BYTES = dict(pred=1, s32=4, u32=4, f32=4)


def make_pool(strategy):
    """Without equal rows, whose order a rounding may decide."""
    keys = jax.random.split(jax.random.key(0), 3)
    latents, probs = jax.random.normal(keys[0], (SIZE, DIMENSIONS)), jax.random.dirichlet(keys[1], jnp.ones(4), (SIZE,))
    bought = jax.random.permutation(keys[2], SIZE)[:NUM_TAKEN]
    taken = jnp.zeros(SIZE, bool).at[bought].set(True)
    train = Encoded(latents, latents[:, ::-1] / 4, jnp.abs(latents).sum(axis=1))
    prepared = strategy.prepare(train)
    if strategy.follow:
        prepared = strategy.follow(prepared, train, bought, 0, NUM_TAKEN)
    known = taken, jnp.where(taken, jnp.arange(SIZE) % CLASSES, UNLABELLED), None
    return Pool(latents, train.log_sigma, latents, probs, *known, prepared, Partial(draw, probs), jnp.float32(0.5))


def largest_collective(text):
    """Bytes of the largest thing that a compiled module moves between devices."""
    found = re.findall(r"= (.*?) (?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)", text)
    shapes = [re.findall(r"(\w+)\[([\d,]*)\]", each) for each in found]
    return max(
        sum(BYTES[kind] * prod(map(int, filter(None, size.split(",")))) for kind, size in each) for each in shapes
    )


def sharded(tree):
    """Rows on the devices of the mesh, all else on each of them."""
    mesh = Mesh(np.array(jax.devices()), (POOL,))

    def place(each):
        is_rows = jnp.ndim(each) > 0 and len(each) == SIZE
        return jax.device_put(each, NamedSharding(mesh, PartitionSpec(POOL) if is_rows else PartitionSpec()))

    return mesh, jax.tree.map(place, tree)


def main():
    for label, spec in SPECS.items():
        strategy = build(STRATEGIES, spec, "strategy")
        select = jax.jit(lambda key, pool, strategy=strategy: strategy.select(key, pool, NUM))
        given = jax.random.key(5), make_pool(strategy)
        mesh, placed = sharded(given)
        with jax.set_mesh(mesh):
            compiled = select.lower(*placed).compile()
            rows = compiled(*placed)
        result = dict(one=select(*given).tolist(), eight=rows.tolist(), moved=largest_collective(compiled.as_text()))
        print(json.dumps({label: result}))


@pytest.fixture(scope="module")
def found():
    flags = f"--xla_force_host_platform_device_count={DEVICES} --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, __file__], env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {label: result for line in lines for label, result in line.items()}


@pytest.mark.parametrize("label", SPECS)
def test_eight_devices_pick_the_rows_of_one(found, label):
    assert found[label]["eight"] == found[label]["one"]


@pytest.mark.parametrize("label", SPECS)
def test_picks_and_candidates_move_but_not_the_pool(found, label):
    assert found[label]["moved"] <= LIMITS.get(label, MARKS - 1)


if __name__ == "__main__":
    main()
