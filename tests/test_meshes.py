"""Seeds spread over simulated devices, of which conftest.py asks for eight: the same rows as on one."""

import re
import runpy
import subprocess
import sys
from math import prod
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import joblib
import numpy as np
import pytest
from collectives import largest_collective
from jax.sharding import PartitionSpec

from latent_al.data import load
from latent_al.encoders import build_encoder
from latent_al.experiment.build import place_encodings, preparers
from latent_al.experiment.rounds import Arm, Setting
from latent_al.experiment.run import run_experiment
from latent_al.kernels._sharding import POOL
from latent_al.loop import fit, query, start
from latent_al.models.classifiers import mlp
from latent_al.runtime.mesh import gather, make_mesh, over_rows, over_seeds, place, place_rows, split_cpu, with_padding
from latent_al.strategies import STRATEGIES
from latent_al.types import INIT_AXES, ROUND_AXES, STATE_AXES, BadInput, Encoded, Problem, RoundState, Strategy

CONFIG = Path(__file__).parents[1] / "configs/digits_vae.py"
SIZE, NUM, CAPACITY = 61, 5, 20
LEARNER = mlp(hidden=(8,), dropout=0.1, learning_rate=1e-2, epochs=5, batch_size=5, num_classes=3)
MARGIN = STRATEGIES["uncertainty"](measure="margin", pick="random_partitions")
DISTANCE = STRATEGIES["distance"]()
MIXED = dict(seeds=2, pool=3)
GREEDY = dict(
    name="greedy_diverse", measure="margin", representativeness=None, alpha=0.5, beta=0.0, distance="euclidean"
)


def fit_one(key, setting, state, problem):
    return fit(key, state, problem, learner=LEARNER)


def play_round(mesh, strategy=MARGIN):
    """One round of four seeds on `mesh`: what is queried, what the strategy updates, the devices that hold it."""

    def query_one(key, setting, state, problem):
        return query(key, state, problem, learner=LEARNER, strategy=strategy, query_size=NUM)

    def keep_rows(outputs):
        state, rows = outputs
        return state._replace(prepared=with_padding(state.prepared, SIZE, mesh)), rows

    def init_one(key, setting, problem):
        rows = jax.random.permutation(jax.random.key(2), SIZE)[:10]
        queried = jnp.full(CAPACITY, SIZE).at[:10].set(rows)
        return start(queried, 10, problem, strategy=strategy)

    latents = jax.random.normal(jax.random.key(0), (SIZE, 4))
    inputs, labels = place_rows((latents, jnp.arange(SIZE) % 3), mesh)
    prepared = over_rows(strategy.prepare, SIZE, mesh)(Encoded(inputs, None))
    problem = Problem(inputs, labels, Encoded(inputs, None), prepared)
    keys = jax.random.split(jax.random.key(1), 4)
    keep = lambda state: keep_rows((state, None))[0]  # noqa: E731
    state = over_seeds(init_one, INIT_AXES, STATE_AXES, mesh=mesh, stays=keep)(keys, {}, problem)
    run_fit = over_seeds(fit_one, ROUND_AXES, (STATE_AXES, 0), mesh=mesh)
    fitted, _ = run_fit(keys, {}, state._replace(prepared=None), Problem(inputs, labels, None))
    state = state._replace(params=fitted.params)
    state, _ = over_seeds(query_one, ROUND_AXES, (STATE_AXES, 0), mesh=mesh, stays=keep_rows)(keys, {}, state, problem)
    return np.asarray(state.queried), state.prepared, state.queried.sharding.device_set


def lower_fit(mesh, inputs, labels, queried):
    """The compiled text of a fit."""
    state = RoundState(queried, jnp.int32(10), None, None, jnp.int32(0))
    run = over_seeds(fit_one, ROUND_AXES, (STATE_AXES, 0), mesh=mesh)
    keys = jax.random.split(jax.random.key(1), len(queried))
    return run.lower(keys, {}, state, Problem(inputs, labels, None)).compile().as_text()


ALONE = [pytest.param(spec, marks=pytest.mark.slow) for spec in (dict(seeds=4), dict(pool=4))]


@pytest.mark.parametrize("spec", [*ALONE, dict(seeds=2, pool=3)], ids=str)
def test_several_devices_query_the_same(spec):
    one, *_ = play_round(None)
    several, _, devices = play_round(make_mesh(spec, [[0, 1, 2, 3]]))
    np.testing.assert_array_equal(several, one)
    assert len(devices) == prod(spec.values())


BALD = STRATEGIES["bald"](num_draws=4, pick="top_k")


@pytest.mark.parametrize(
    "strategy",
    [DISTANCE, MARGIN._replace(subsample=0.5), BALD],
    ids=["updated", "subsampled", "MC dropout"],
)
def test_rows_of_several_devices_are_treated_as_those_of_one(strategy):
    one, several = (play_round(mesh, strategy) for mesh in (None, make_mesh(MIXED, [[0, 1, 2, 3]])))
    np.testing.assert_array_equal(several[0], one[0])
    if strategy is DISTANCE:
        np.testing.assert_allclose(several[1].values[:, :SIZE], one[1], rtol=1e-6)
        assert not np.any(several[1].values[:, SIZE:])


def test_no_step_of_a_fit_fetches_rows():
    """The compiled module has no collective in the loops that train."""
    mesh = make_mesh(dict(pool=4), [[0]])
    latents, labels = place_rows((np.zeros((SIZE, 4), np.float32), np.zeros(SIZE, np.int32)), mesh)
    text = lower_fit(mesh, latents, labels, jnp.zeros((1, CAPACITY), jnp.int32))
    bodies = re.findall(r"body=%?([\w.-]+)", text)
    assert bodies
    for body in bodies:
        own = re.search(rf"^%?{re.escape(body)} .*?^}}", text, re.M | re.S)[0]
        assert largest_collective(own) == 0
    assert largest_collective(text) > 0


@pytest.mark.parametrize(
    "strategy",
    [
        dict(name="informativeness", gamma=0.5, pick="top_k", representativeness=dict(name="cosine_density")),
        dict(name="greedy_diverse", alpha=0.5, beta=0.0, representativeness=None, distance="half_cosine"),
    ],
    ids=lambda strategy: strategy["name"],
)
def test_what_one_device_refuses_several_refuse(tmp_path, strategy):
    latents = np.random.default_rng(0).normal(size=(1297, 3)).astype(np.float32)
    latents[7] = 0
    np.save(tmp_path / "train.npy", latents)
    for split, size in (("validation", 200), ("test", 300)):
        np.save(tmp_path / f"{split}.npy", latents[:size])
    config = runpy.run_path(str(CONFIG))["get_config"]("smoke")
    files = dict(latents=str(tmp_path / "train.npy"))
    files |= {split: str(tmp_path / f"{split}.npy") for split in ("validation", "test")}
    config.encoders = dict(vae=dict(name="precomputed", **files))
    config.arms.margin.strategy = strategy | dict(measure="margin")
    config.mesh = dict(pool=2)
    with pytest.raises(
        BadInput, match="arm 'margin': .* needs latents with a direction, but 1 of 1297 latents are zero"
    ):
        run_experiment(config, str(tmp_path / "run"))


def test_a_device_has_its_share_of_the_rows():
    mesh = make_mesh(MIXED, [[0, 1]])
    rows = np.arange(2 * SIZE, dtype=np.float32).reshape(SIZE, 2)
    placed = place_rows(rows, mesh)
    assert {shard.data.shape for shard in placed.values.addressable_shards} == {(21, 2)}
    np.testing.assert_array_equal(gather(placed), rows)


def test_a_scalar_lies_on_all_devices():
    (placed,) = place((np.float32(3),), make_mesh(MIXED, [[0, 1]]))
    assert len(placed.devices()) == 6
    assert placed == 3


def test_what_is_the_same_for_all_seeds_is_computed_once(tmp_path):
    mesh = make_mesh(dict(seeds=4), [[0, 1, 2, 3]])
    sizes = dict(num_train=20, num_validation=4, num_test=4, side=8)
    data = load(dict(sizes, name="poses", share_near=0.5, spread=5.0, seed=0))
    settings = dict(hidden=(4,), latent_dim=2, learning_rate=1e-3, epochs=1, batch_size=10, seed=0)
    encoder = build_encoder(dict(settings, name="dense_vae"), (8, 8, 1))
    encodings = encoder.encode(data, tmp_path, mesh)
    assert len(encodings.train.latents.devices()) == 1

    def prepare(train):
        assert len(train.latents.devices()) == 1
        return train.latents**2

    strategy = Strategy(query=None, prepare=prepare)
    arm = Arm("a", "b", False, (Setting({}, {}),), "all", None, lambda setting: strategy, strategy, None, mesh)
    placed = place_encodings(encodings, mesh).train
    prepared, _ = (prepare_rows(placed) for prepare_rows in preparers(arm, 20))
    assert len(placed.latents.devices()) == len(prepared.devices()) == 4


def test_no_seed_moves():
    """The compiled module of a round has no collective."""
    mesh = make_mesh(dict(seeds=4), [[0, 1, 2, 3]])
    text = lower_fit(mesh, jnp.zeros((SIZE, 4)), jnp.zeros(SIZE, jnp.int32), jnp.zeros((4, CAPACITY), jnp.int32))
    assert "num_partitions=4" in text
    assert not any(word in text for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))


def test_the_largest_collective_is_read_from_a_program():
    mesh = make_mesh(dict(pool=4), [[0]])

    def gather(shard):
        return jax.lax.all_gather(shard, POOL, tiled=True), jax.lax.psum(shard, POOL)

    specs = dict(in_specs=PartitionSpec(POOL), out_specs=PartitionSpec(), check_vma=False)
    compiled = jax.jit(jax.shard_map(gather, mesh=mesh, **specs)).lower(jnp.zeros((8, 3))).compile()
    assert largest_collective(compiled.as_text()) == 8 * 3 * 4


def test_a_collective_that_is_awaited_has_the_size_of_its_result():
    started = "%s = (f32[2,3]{1,0}, bf16[8,3]{1,0}) all-gather-start(%x), dimensions={0}"
    assert largest_collective(f"{started}\n%d = bf16[8,3]{{1,0}} all-gather-done(%s)\n%p = pred[5]{{0}} add(%d)") == 48


@pytest.mark.parametrize(
    "spec, blocks, message",
    [
        (dict(rows=2), [[0, 1]], "mesh is {'rows': 2}; expected seeds, pool or both"),
        (dict(), [[0]], "mesh is {}; expected seeds, pool or both"),
        (dict(pool=0), [[0]], "1 or more"),
        (dict(seeds=3, pool=3), [[0, 1, 2]], "needs 9 devices but there are 8 of cpu; make the mesh smaller"),
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


@pytest.mark.parametrize("sizes, num", [([6, 6], 6), ([9, 6], 3), ([20, 4], 4), ([24], 8), ([5, 4], 1)])
def test_seeds_are_spread_over_as_many_devices_as_share_them_evenly(sizes, num):
    mesh = make_mesh(None, [list(range(size)) for size in sizes])
    assert mesh is None if num == 1 else mesh.shape == dict(seeds=num, pool=1)


def test_launches_make_each_core_a_device_unless_told(monkeypatch):
    split_cpu()
    assert jax.config.jax_num_cpu_devices == -1
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    script = (
        "import jax; from latent_al.runtime.mesh import split_cpu; split_cpu(); "
        "from threadpoolctl import threadpool_info; print(jax.device_count(), "
        "*{library['num_threads'] for library in threadpool_info() if 'scipy' in library['filepath']})"
    )
    for told, expected in ((None, [joblib.cpu_count(), 1]), ("3", [3])):
        if told:
            monkeypatch.setenv("JAX_NUM_CPU_DEVICES", told)
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert list(map(int, run.stdout.split()))[: len(expected)] == expected
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES")
    started = script.replace("import jax;", "import jax; jax.devices();")
    run = subprocess.run([sys.executable, "-c", started], capture_output=True, text=True, check=True)
    assert run.stdout.split()[0] == "1"


def test_devices_do_not_wait_for_ever_in_lapack(monkeypatch):
    """On a batch of matrices LAPACK takes other threads of the pool than the one that calls it."""
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    script = """
import jax, jax.numpy as jnp
from latent_al.runtime.mesh import make_mesh, over_seeds, split_cpu
split_cpu()
blocks = [list(range(10 * jax.device_count()))]
def factors(matrix):
    return jax.lax.scan(lambda kept, _: (kept + 0 * jnp.linalg.cholesky(kept), None), matrix, length=50)[0]
factors = over_seeds(factors, in_axes=(0,), mesh=make_mesh(None, blocks))
for _ in range(5):
    jax.block_until_ready(factors(jnp.tile(jnp.eye(100), (len(blocks[0]), 1, 1))))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def test_blas_keeps_its_threads_beside_an_accelerator(monkeypatch):
    limits = []
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setattr(jax, "config", SimpleNamespace(jax_num_cpu_devices=-1, update=lambda name, value: None))
    monkeypatch.setattr("latent_al.runtime.mesh.threadpool_limits", lambda limit, user_api: limits.append(limit))
    for platform in ("gpu", "cpu"):
        monkeypatch.setattr(jax, "default_backend", lambda platform=platform: platform)
        split_cpu()
        assert limits == [1] * (platform == "cpu")


@pytest.mark.slow
def test_an_experiment_on_a_mesh_ends_with_the_same_bytes(tmp_path):
    for name, mesh in (("one", dict(seeds=1)), ("several", None), ("spread", MIXED)):
        config = runpy.run_path(str(CONFIG))["get_config"]("smoke")
        config.num_seeds = config.seeds_at_once = 4
        config.mesh = mesh
        for arm, strategy in dict(distance=dict(name="distance"), greedy=GREEDY).items():
            config.arms[arm] = config.arms.margin.copy_and_resolve_references()
            config.arms[arm].strategy = strategy
        run_experiment(config, str(tmp_path / name))
    for table in ("queries.csv", "metrics.csv"):
        assert (tmp_path / "several" / table).read_bytes() == (tmp_path / "one" / table).read_bytes()
    # What the encoder makes of an image is rounded otherwise where it is encoded beside other images.
    assert (tmp_path / "spread/queries.csv").read_bytes() == (tmp_path / "one/queries.csv").read_bytes()
