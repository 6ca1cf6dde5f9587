"""A pool whose rows lie on eight devices: the rows that one device picks, and what moves between the devices.

As a program this file takes the place of its tests' second process, which has eight devices.
"""

import json
import os
import subprocess
import sys
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from collectives import largest_collective
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial
from test_strategies import SETTINGS, draw, predict

from latent_al import kernels
from latent_al.kernels import distances, representativeness
from latent_al.kernels._sharding import POOL, top_k_mask
from latent_al.kernels.k_center import CANDIDATES
from latent_al.kernels.typiclust import TILE
from latent_al.strategies import STRATEGIES
from latent_al.strategies.temperature import MAX_LABELLED
from latent_al.types import UNLABELLED, Encoded, Pool, build

DEVICES, NUM, NUM_TAKEN = 8, 20, 40
SIZE, DIMENSIONS, CLASSES = DEVICES * 1027, 8, 4
MARKS = SIZE
"""Bytes of one mark a row: the least that would grow with the pool."""
# Each takes seconds to compile, and the kernels of these are those of others.
LEFT_OUT = ("coreset", "distance", "entropy_d", "ibal", "multi_normal", "uniform")
SPECS = {name: dict(name=name, **many[0]) for name, many in SETTINGS.items() if name not in LEFT_OUT}
OVER_SEEDS, PADDED = ("farthest_first", "informativeness"), ("random", "typical")
BESIDES = ("ties", "centres", "euclidean_density", "euclidean_density_estimate")
# On an Explicit mesh whose axis has another name: the types say where the rows lie.
EXPLICIT = (*BESIDES, "farthest_first")
ALL = [
    *BESIDES,
    *(f"{name} padded" if name in PADDED else name for name in SPECS),
    *(f"{name} over seeds" for name in OVER_SEEDS),
    *(f"{name} explicit" for name in EXPLICIT),
]
IN_CI = ("ties", "centres", "euclidean_density", "typical padded", "badge", "farthest_first over seeds")
IN_CI += ("farthest_first explicit", "greedy_diverse", "typiclust", "uncertainty_herding")
"""Together they pass through all that is done shard by shard."""
CASES = [label if label in IN_CI else pytest.param(label, marks=pytest.mark.slow) for label in ALL]
FRACTION = 0.01
CANDIDATES_MOVE = CANDIDATES * (DIMENSIONS + 4) * 4 + 4
MIDST_MOVES = distances.SOME * DIMENSIONS * 4
LIMITS = {
    "bait": 3 * (CLASSES * DIMENSIONS) ** 2 * 4,
    "farthest_first": CANDIDATES_MOVE,
    "farthest_first over seeds": CANDIDATES_MOVE,
    "uncertain_farthest_first": CANDIDATES_MOVE,
    "euclidean_density": representativeness.TILE * (DIMENSIONS + 2) * 4,
    "euclidean_density_estimate": (representativeness.TILE + round(FRACTION * (SIZE - 1))) * DIMENSIONS * 4,
    "facility_location": MIDST_MOVES,
    "max_herding": MIDST_MOVES,
    "prob_cover": MIDST_MOVES,
    "uncertainty_herding": MAX_LABELLED * 2 * DIMENSIONS * 4,
    "typiclust": TILE * (1 + SETTINGS["typiclust"][0]["num_neighbours"]) * DIMENSIONS * 4,
}
"""Bytes of the largest collective where it is not below `MARKS`.

Of typical rows each device sorts the clusters of all rows, and compares tile by tile what it fetches: in the end more
than the pool, as of the densities of Euclidean distance, which compare a tile of rows at a time. Coverage takes the
midst of some rows for its origin, and uncertainty herding a temperature from labelled rows; both have a largest number.
BAIT adds up matrices of Fisher information, whose size is that of the last layer's weights, squared.
"""


def make_pool(strategy):
    """Without equal rows, whose order a rounding may decide."""
    keys = jax.random.split(jax.random.key(0), 3)
    latents, probs = jax.random.normal(keys[0], (SIZE, DIMENSIONS)), jax.random.dirichlet(keys[1], jnp.ones(4), (SIZE,))
    queried = jax.random.permutation(keys[2], SIZE)[:NUM_TAKEN]
    taken = jnp.zeros(SIZE, bool).at[queried].set(True)
    train = Encoded(latents, latents[:, ::-1] / 4, jnp.abs(latents).sum(axis=1))
    prepared = strategy.prepare(train)
    for row in queried if strategy.update else ():
        prepared = strategy.update(prepared, train, row)
    labels = jnp.where(taken, jnp.arange(SIZE) % CLASSES, UNLABELLED)
    models = Partial(draw, probs), Partial(predict, latents[:DIMENSIONS, :CLASSES])
    return Pool(latents, train.log_sigma, latents, probs, taken, labels, None, prepared, *models)


def run(label, select, given, mesh):
    """Prints the rows that are selected of what is given on one device, and with its rows on those of the mesh.

    Does nothing unless the label is among the arguments of the program.
    """
    if label not in sys.argv[1:]:
        return
    axes = dict(zip((SIZE, 2), reversed(mesh.axis_names), strict=False))

    def place(each):
        return jax.device_put(each, NamedSharding(mesh, PartitionSpec(*map(axes.get, jnp.shape(each)))))

    one, placed = jax.jit(select)(*given), jax.tree.map(place, given)
    with jax.set_mesh(mesh):
        compiled = jax.jit(select).lower(*placed).compile()
        eight = compiled(*placed)
    moved = largest_collective(compiled.as_text())
    print(json.dumps({label: dict(one=one.tolist(), eight=eight.tolist(), moved=moved)}))


def main():
    devices, key = np.array(jax.devices()), jax.random.key(5)
    of_pool, over_seeds = Mesh(devices, (POOL,)), Mesh(devices.reshape(2, 4), ("seeds", POOL))
    pool = make_pool(STRATEGIES["random"]())
    functions = (select_among_ties, find_centres, select_by_density, select_by_estimate, select_farthest)
    explicit = jax.make_mesh((DEVICES,), ("examples",))
    for label, function in zip(EXPLICIT, functions, strict=True):
        run(f"{label} explicit", function, (key, pool), explicit)
        if label in BESIDES:
            run(label, function, (key, pool), of_pool)
    for name in {label.split()[0] for label in sys.argv[1:]} & SPECS.keys():
        strategy = build(STRATEGIES, SPECS[name], "strategy")
        select, pool = partial(strategy.query, num=NUM), make_pool(strategy)
        if name in PADDED:
            run(f"{name} padded", partial(select_without_padding, strategy), (key, pool), of_pool)
            continue
        run(name, select, (key, pool), of_pool)
        if name in OVER_SEEDS:
            pools = jax.tree.map(lambda each: jnp.stack([each] * 2), pool)
            mapped = jax.vmap(select, spmd_axis_name="seeds")
            run(f"{name} over seeds", mapped, (jax.random.split(key), pools), over_seeds)


def select_among_ties(key, pool):
    score = jnp.round(pool.latents[:, 0])
    best = kernels.top_k(score, pool.taken, NUM)
    return jnp.concatenate([best, kernels.random_partitions(key, score, pool.taken, NUM)])


def find_centres(key, pool):
    """To the last bit: a rounding of sums would grow from one iteration to the next."""
    return kernels.kmeans(key, pool.latents, NUM, iterations=10).centres


def select_by_density(key, pool):
    del key
    return kernels.top_k(kernels.euclidean_density(pool.latents), pool.taken, NUM)


def select_by_estimate(key, pool):
    density = kernels.euclidean_density_estimate(key, pool.latents, fraction=FRACTION)
    return kernels.top_k(density, pool.taken, NUM)


def select_farthest(key, pool):
    del key
    return kernels.farthest_first(pool.latents, pool.taken, NUM)


def select_without_padding(strategy, key, pool):
    """As if the last rows were there only because the devices must have equally many."""
    cut = jax.tree.map(lambda each: each[: SIZE - 3] if jnp.shape(each)[:1] == (SIZE,) else each, pool)
    return strategy.query(key, cut, NUM)


@cache
def results(in_ci):
    """Returns what the program prints of the cases that are in CI, or of the others."""
    labels = [label for label in ALL if (label in IN_CI) == in_ci]
    flags = f"--xla_force_host_platform_device_count={DEVICES} --xla_backend_optimization_level=0"
    command = [sys.executable, __file__, *labels]
    done = subprocess.run(command, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {label: result for line in lines for label, result in line.items()}


@pytest.mark.parametrize("label", CASES)
def test_eight_devices_pick_the_rows_of_one(label):
    result = results(label in IN_CI)[label]
    assert result["eight"] == result["one"]


@pytest.mark.parametrize("label", CASES)
def test_picks_and_candidates_move_but_not_the_pool(label):
    assert results(label in IN_CI)[label]["moved"] <= LIMITS.get(label.removesuffix(" explicit"), MARKS - 1)


@pytest.mark.parametrize("num", [1, 7, 30, 60])
def test_marks_are_those_of_a_sort(num):
    values = jnp.array([-jnp.inf, -2.5, -0.0, 0.0, 1e-40, 0.5, 3.0, jnp.inf])[jnp.arange(60) * 7 % 8]
    marked = top_k_mask(values, num)
    assert np.flatnonzero(marked).tolist() == sorted(jax.lax.top_k(values, num)[1].tolist())


if __name__ == "__main__":
    main()
