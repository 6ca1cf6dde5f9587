"""Seeds spread over simulated devices, of which conftest.py asks for eight: the same rows as on one."""

import runpy
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_al import experiment
from latent_al.base import BadInput, Encoded
from latent_al.loop import fit_round, over_seeds, select_round
from latent_al.meshes import make_mesh, place
from latent_al.models.classifiers import mlp
from latent_al.strategies import STRATEGIES

CONFIG = Path(__file__).parents[1] / "configs/digits_vae.py"
SIZE, NUM, CAPACITY = 60, 5, 20
LEARNER = mlp(hidden=(8,), dropout=0.1, learning_rate=1e-2, epochs=5, batch=5, num_classes=3)
MARGIN = STRATEGIES["uncertainty"](measure="margin", pick="random_partitions")


def play_round(mesh):
    """One round of four seeds on `mesh`: what is bought, and the devices that hold it."""
    settings = dict(learner=LEARNER, strategy=MARGIN, num=NUM, fraction=1.0)
    fit = over_seeds(partial(fit_round, learner=LEARNER), 0, None, None, None, 0, None, None, mesh=mesh)
    axes = (0, None, None, 0, 0, None, None, None, None, 0, None, None)
    select = over_seeds(partial(select_round, **settings), *axes, mesh=mesh)
    latents = jax.random.normal(jax.random.key(0), (SIZE, 4))
    known = place((latents, jnp.arange(SIZE) % 3), mesh)
    keys = jax.random.split(jax.random.key(1), 4)
    bought = jnp.full((4, CAPACITY), SIZE).at[:, :10].set(jax.random.permutation(jax.random.key(2), SIZE)[:10])
    rate, count, nothing = jnp.float32(0.1), jnp.int32(10), place((latents[:0], jnp.zeros(0, jnp.int32)), mesh)
    params, labelled, _ = fit(keys, rate, *known, bought, count, nothing)
    rest = (Encoded(known[0], None), None, known[1], bought, jnp.int32(0), count)
    bought, _ = select(keys, rate, jnp.float32(0), params, labelled, known[0], *rest)
    return np.asarray(bought), bought.sharding.device_set


@pytest.mark.parametrize("seeds", [2, 4])
def test_seeds_on_several_devices_buy_the_same(seeds):
    one, _ = play_round(None)
    several, devices = play_round(make_mesh(dict(seeds=seeds), [[0, 1, 2, 3]]))
    np.testing.assert_array_equal(several, one)
    assert len(devices) == seeds


def test_no_seed_moves():
    """The compiled module of a round has no collective."""
    mesh = make_mesh(dict(seeds=4), [[0, 1, 2, 3]])
    fit = over_seeds(partial(fit_round, learner=LEARNER), 0, None, None, None, 0, None, None, mesh=mesh)
    keys, bought = jax.random.split(jax.random.key(1), 4), jnp.zeros((4, CAPACITY), jnp.int32)
    known = (jnp.zeros((SIZE, 4)), jnp.zeros(SIZE, jnp.int32), bought, 10, (jnp.zeros((0, 4)), jnp.zeros(0, int)))
    text = fit.lower(keys, jnp.float32(0.1), *known).compile().as_text()
    assert "num_partitions=4" in text
    assert not any(word in text for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))


@pytest.mark.parametrize(
    "spec, blocks, message",
    [
        (dict(pool=2), [[0, 1]], "mesh is {'pool': 2}; expected seeds alone"),
        (dict(seeds=0), [[0]], "1 or more"),
        (dict(seeds=9), [[0]], "needs 9 devices but there are 8 of cpu; make the mesh smaller"),
        (
            dict(seeds=4),
            [[0, 1, 2, 3], [4, 5]],
            "2 seeds run side by side, which 4 devices do not share evenly",
        ),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(spec, blocks, message):
    with pytest.raises(BadInput, match=message):
        make_mesh(spec, blocks)


@pytest.mark.slow
def test_an_experiment_on_a_mesh_ends_with_the_same_bytes(tmp_path):
    for name, mesh in (("one", None), ("several", dict(seeds=2))):
        config = runpy.run_path(str(CONFIG))["get_config"]("smoke")
        config.num_seeds = config.seeds_at_once = 4
        if mesh:
            config.mesh = mesh
        experiment.run(config, str(tmp_path / name))
    for table in ("queries.csv", "metrics.csv"):
        assert (tmp_path / "several" / table).read_bytes() == (tmp_path / "one" / table).read_bytes()
