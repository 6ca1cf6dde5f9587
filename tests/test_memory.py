"""The memory of a run, told before it: programs compile once, bytes are counted, seeds chosen, too much is refused."""

import logging
import re
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from latent_al.encoders import ENCODERS
from latent_al.experiment.build import build_arms, measure_latents, place_encodings, prepare_arm
from latent_al.experiment.config import parse_experiment
from latent_al.experiment.memory import Forecast, choose_seeds, describe, forecast
from latent_al.experiment.rounds import Block, place_data, play
from latent_al.runtime.control_groups import memory_left
from latent_al.runtime.mesh import available_memory, make_mesh
from latent_al.types import BadInput

MARGIN = dict(name="uncertainty", measure="margin", pick="top_k")
MLP = dict(name="mlp", hidden=(4,), dropout=0.0, learning_rate=1e-2, epochs=1, batch_size=5)
SEEDS = [0, 1]
NUM_LABELS = np.array([10, 15])
LATENTS = 60 * 16 * 4


def make_config(strategy, rounds=1, **more_arms):
    arm = dict(encoder="pixels", classifier="mlp", subsample=1.0, strategy=strategy)
    arms = dict(chosen=arm) | {name: arm | changes for name, changes in more_arms.items()}
    sizes = dict(num_seeds=2, num_initial=10, query_size=5, num_rounds=rounds, initial=dict(name="random"))
    data = dict(name="digits", num_validation=0, num_test=0)
    encoders = dict(pixels=dict(name="identity"), copies=dict(name="identity"))
    named = dict(arms=arms, classifiers=dict(mlp=MLP), encoders=encoders, baseline="chosen", data=data)
    return parse_experiment(ConfigDict(named | sizes))


def build(data, strategy, mesh=None, rounds=1):
    """Returns the arms, and the function that forecasts the memory of their run."""
    shapes = dict(pixels=ENCODERS["identity"]().shapes(data))
    arms = build_arms(make_config(strategy, rounds), data, shapes, mesh)
    return arms, partial(forecast, arms, data, shapes, NUM_LABELS[: rounds + 1])


@pytest.mark.parametrize(
    "spec, strategy", [(None, MARGIN), (dict(seeds=2, pool=3), dict(name="distance"))], ids=["one", "mesh"]
)
def test_the_programs_of_a_run_are_compiled_before_it(spec, strategy, make_data, tmp_path, caplog):
    data, mesh = make_data(num_test=0), make_mesh(spec, [SEEDS])
    arms, forecast_of = build(data, strategy, mesh)
    expected = forecast_of(len(SEEDS))
    encodings = place_encodings(ENCODERS["identity"]().encode(data, None), mesh)
    arm = prepare_arm(arms["chosen"], encodings.train, measure_latents(encodings.train, len(data.ids), mesh))
    settings = dict(test_every_round=False, keep_state=False)

    def a_program_of_no_run(x):
        return x + 1

    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        jax.jit(a_program_of_no_run)(0)
        arm_data = place_data(arm, data, encodings)
        history = play(arm, Block(SEEDS, NUM_LABELS), arm_data, tmp_path, **settings).history
    compiled = set(re.findall(r"Compiling jit\((\w+)\)", caplog.text))
    assert "a_program_of_no_run" in compiled
    assert not compiled & {"_init", "_fit", "_query", "_score", "of_all"}
    assert (np.sort(history.queried)[:, -1] < len(data.ids)).all()
    devices = 1 if mesh is None else 3
    assert LATENTS / devices < expected.num_bytes < 20 * LATENTS


def test_arms_that_do_the_same_share_programs(make_data, caplog):
    data, clusters = make_data(), dict(name="typical", iterations=5)
    changes = dict(of_copies=dict(encoder="copies"), by_distance=dict(strategy=dict(name="distance")))
    config = make_config(MARGIN, **changes, typical_first=dict(initial=clusters))
    shapes = dict.fromkeys(("pixels", "copies"), ENCODERS["identity"]().shapes(data))
    arms = build_arms(config, data, shapes, None)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        forecast(arms, data, shapes, NUM_LABELS, len(SEEDS))
    compiled = Counter(re.findall(r"Compiling jit\((\w+)\)", caplog.text))
    # The initial sets are random, for a strategy that updates what it prepared, and typical; queries by margin and
    # by distance; validation and test are of equal size.
    assert {name: compiled[name] for name in ("_init", "_fit", "_query", "_score")} == dict(
        _init=3, _fit=1, _query=2, _score=1
    )


def test_encoders_say_what_they_will_make(make_data, tmp_path):
    data = make_data()
    files = {split: str(tmp_path / f"{split}.npy") for split in ("latents", "validation", "test")}
    for path, size in zip(files.values(), (60, 20, 20), strict=True):
        np.save(path, np.zeros((size, 5)))
    for encoder, width in ((ENCODERS["identity"](), 16), (ENCODERS["precomputed"](**files), 5)):
        latents, *others = encoder.shapes(data)
        assert latents == jax.ShapeDtypeStruct((60, width), jnp.float32)
        assert others == [None, None]


def test_the_pool_stays_once_and_each_seed_adds_its_own(make_data):
    _, forecast_of = build(make_data(labelled=False), dict(name="random"), rounds=0)
    one, many = (forecast_of(num).num_bytes for num in (1, 1001))
    assert one > LATENTS
    assert many - one >= 1000 * 10 * 4


def linear(share, of_pool=0.0):
    """Forecasts this share of the available memory for each seed, and for the pool."""
    room = available_memory(jax.devices()[0])
    return lambda num: Forecast(int(room * (of_pool + share * num)), "margin", "selecting")


def test_as_many_seeds_as_fit_run_side_by_side():
    assert choose_seeds(linear(0.15, 0.2), 20, None, None)[0] == 5
    assert choose_seeds(linear(0.01), 20, None, None)[0] == 20
    mesh = make_mesh(dict(seeds=2), [SEEDS])
    at_once, expected = choose_seeds(linear(0.06), 20, None, mesh)
    assert at_once == 8
    told = r"Memory: [\d.]+ [MG]iB on each of 2 devices at the peak \(arm margin, selecting\)\."
    assert re.fullmatch(told, describe(expected, mesh))


def test_of_programs_it_is_the_most_that_fit(make_data):
    _, forecast_of = build(make_data(labelled=False), dict(name="random"), rounds=0)
    room = available_memory(jax.devices()[0])
    at_once, expected = choose_seeds(forecast_of, 10**9, None, None)
    assert 0.8 * room < expected.num_bytes < 1.2 * room
    assert forecast_of(2 * at_once).num_bytes > room


def test_what_is_asked_for_is_kept_to_or_refused():
    assert choose_seeds(linear(0.01), 20, 3, None)[0] == 3
    message = (
        r"arm 'margin' needs [\d.]+ GiB on the device in selecting for 20 seeds at once but .* is available; lower "
    )
    with pytest.raises(BadInput, match=message + "seeds_at_once to 5 .*, spread the pool"):
        choose_seeds(linear(0.15, 0.2), 20, 20, None)
    mesh = make_mesh(dict(seeds=2), [SEEDS])
    with pytest.raises(BadInput, match=r"is available; hold only one copy of the pool \(mesh.seeds=1\), spread"):
        choose_seeds(linear(0.15, 1.0), 20, None, mesh)
    for wanted in (None, 1):
        with pytest.raises(BadInput, match="is available; spread the pool over more devices"):
            choose_seeds(linear(0.15, 1.0), 20, wanted, None)


GIB = 2**30


@pytest.mark.parametrize(
    ("line", "tree", "limit", "used", "stat"),
    [
        ("0::/job/step", "job", "memory.max", "memory.current", "inactive_file"),
        ("4:cpu,memory:/job", "memory/job", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        # What a container is told may be a path outside of it.
        ("0::/../outside", "", "memory.max", "memory.current", "inactive_file"),
    ],
)
def test_the_limit_of_a_container_counts_without_the_files_it_can_drop(tmp_path, line, tree, limit, used, stat):
    groups, root = tmp_path / "cgroup", tmp_path / "fs"
    (root / tree).mkdir(parents=True)
    assert memory_left(groups, root) == float("inf")
    groups.write_text(f"9:name=systemd:/\n{line}\n")
    assert memory_left(groups, root) == float("inf")
    (root / tree / limit).write_text(f"{8 * GIB}\n")
    (root / tree / used).write_text(f"{3 * GIB}\n")
    (root / tree / "memory.stat").write_text(f"anon 1\n{stat} {GIB}\n")
    assert memory_left(groups, root) == 6 * GIB
    (root / tree / used).write_text(f"{10 * GIB}\n")
    assert memory_left(groups, root) == 0
    (root / tree / limit).write_text("max\n" if limit == "memory.max" else f"{2**63 - 4096}\n")
    assert memory_left(groups, root) > 2**50
