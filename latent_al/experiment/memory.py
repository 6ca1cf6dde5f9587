"""The memory that a run takes on its devices, from XLA's analysis of its programs before any work.

The programs are compiled on shapes alone, and later calls find them compiled. The analysis leaves out: the training of
an encoder; what a strategy prepares where no devices share the rows, since its steps run one by one; diagnostics;
figures.
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from latent_al.encoders import Encodings
from latent_al.experiment.build import preparers
from latent_al.experiment.rounds import SPLITS, Arm, ArmData, for_fit, for_init, place_data, stack_settings
from latent_al.runtime.mesh import SEEDS, available_memory, has_pool, place, place_rows
from latent_al.types import BadInput, Data, Encoded


class Forecast(NamedTuple):
    """The peak of memory over the programs of a run.

    num_bytes: on each device at the peak: what stays there, and what the program that runs then adds.
    arm: whose program that is.
    doing: what the program does.
    """

    num_bytes: int
    arm: str
    doing: str


class _Program(NamedTuple):
    """The task of one program, in words, and the bytes on each device while it runs."""

    doing: str
    num_bytes: int


def forecast(
    arms: dict[str, Arm], data: Data, shapes: dict[str, Encoded], num_labels: np.ndarray, num_seeds: int
) -> Forecast:
    """Compiles the programs of every arm, and returns the peak of their memory.

    Args:
        arms: before anything is prepared.
        data: the images and their labels; only their shapes are read.
        shapes: encoder -> what the training images are encoded to.
        num_labels: [rounds+1], labels queried by the time that each round fits.
        num_seeds: side by side.
    """
    data = data._replace(**{split: _shapes_of(getattr(data, split)) for split in SPLITS})
    mesh = next(iter(arms.values())).mesh
    encodings = {name: _encodings(train, data, mesh) for name, train in shapes.items()}
    programs, ready = {}, {}
    for name, arm in arms.items():
        programs[name], ready[name] = _prepare(arm, encodings[arm.encoder].train, len(data.ids))
    stays = [[splits[:3] for splits in encodings.values()], [arm.prepared for arm in ready.values()]]
    for name, arm in ready.items():
        arm_data = place_data(arm, data, encodings[arm.encoder])
        programs[name] += _play(arm, arm_data, num_labels, num_seeds, stays)
    return max(Forecast(program.num_bytes, name, program.doing) for name in arms for program in programs[name])


def choose_seeds(
    forecast_of: Callable[[int], Forecast], num_seeds: int, wanted: int | None, mesh: Mesh | None
) -> tuple[int, Forecast]:
    """Returns how many seeds to run side by side, and the forecast for as many.

    Args:
        forecast_of: seeds side by side -> `Forecast`.
        num_seeds: of the run.
        wanted: side by side; None for the most that fit.
        mesh: of the run; along `seeds` each device has equally many.

    Raises:
        BadInput: the wanted seeds, or one seed on each device, need more memory than is available.
    """
    at_once, available = min(wanted or num_seeds, num_seeds), _available(mesh)
    expected = forecast_of(at_once)
    if expected.num_bytes > available:
        fitting = _most_that_fit(forecast_of, at_once, available, mesh)
        if wanted or not fitting:
            raise BadInput(_refusal(expected, at_once, fitting, available, mesh))
        at_once, expected = fitting, forecast_of(fitting)
    return at_once, expected


def describe(expected: Forecast, mesh: Mesh | None) -> str:
    """Returns the forecast as a line of text."""
    devices = _devices(1 if mesh is None else mesh.size)
    return f"Memory: {_size(expected.num_bytes)} on {devices} at the peak (arm {expected.arm}, {expected.doing})."


def _most_that_fit(forecast_of, at_once, available, mesh):
    """Returns the most seeds below `at_once` that fit if each takes what the second one does; 0 where none do."""
    step = 1 if mesh is None else mesh.shape[SEEDS]
    if at_once == step or (least := forecast_of(step).num_bytes) > available:
        return 0
    growth = max(1, forecast_of(2 * step).num_bytes - least)
    fitting = step * min(1 + int((available - least) // growth), at_once // step - 1)
    while forecast_of(fitting).num_bytes > available:
        # The peak may be in another program there than with the few seeds with which the growth was measured.
        fitting = fitting // (2 * step) * step
    return fitting


def _refusal(expected, at_once, fitting, available, mesh):
    devices = _devices(1 if mesh is None else mesh.size)
    fewer = f"lower seeds_at_once to {fitting} (a workdir that was begun keeps its own), " if fitting else ""
    sharing = ""
    if mesh is not None and mesh.shape[SEEDS] > 1 and mesh.devices[0, 0].platform == "cpu":
        sharing = "hold only one copy of the pool (mesh.seeds=1), "
    return (
        f"arm {expected.arm!r} needs {_size(expected.num_bytes)} on {devices} in {expected.doing} for {at_once} seeds "
        f"at once but {_size(available)} is available; {fewer}{sharing}spread the pool over more "
        "devices (mesh.pool), or lower subsample."
    )


def _available(mesh):
    """Returns the bytes available on the device, or on that of the mesh, in any process, that has the least."""
    devices = jax.devices()[:1] if mesh is None else mesh.local_devices
    sharing = len(devices) if devices[0].platform == "cpu" else 1
    available = min(map(available_memory, devices)) / sharing
    if jax.process_count() > 1:
        available = multihost_utils.process_allgather(np.float32(available)).min()
    return float(available)


def _prepare(arm: Arm, train, size) -> tuple[list[_Program], Arm]:
    """Returns the programs by which the strategies prepare, and the arm with the shapes of what they prepare."""
    if not has_pool(arm.mesh):
        strategies = arm.make_strategy(arm.settings[0].strategy), arm.initial
        whole = tuple(jax.eval_shape(strategy.prepare, train) for strategy in strategies)
        return [], arm._replace(prepared=place(whole, arm.mesh))
    compiled = [_compile(prepare, arm.mesh, train) for prepare in preparers(arm, size)]
    prepared = tuple(outputs for _, outputs in compiled)
    programs = [_program("preparing", program, [train, prepared]) for program, _ in compiled]
    return programs, arm._replace(prepared=prepared)


def _play(arm: Arm, arm_data: ArmData, num_labels, num_seeds, stays) -> Iterator[_Program]:
    """Yields the programs of `rounds.play`, compiled on shapes alone."""
    num_members = num_seeds * len(arm.settings)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_members))
    setting = jax.eval_shape(lambda: stack_settings(arm, num_seeds))
    stays = [*stays, arm_data]
    program, state = _compile(arm.programs.init, arm.mesh, keys, setting.learner, for_init(arm, arm_data.problem))
    yield _program("its initial query", program, stays)
    if arm.make_learner is None:
        return
    state = state._replace(
        queried=_shape((num_members, num_labels[-1]), jnp.int32),
        points=_shapes_of(state.points),
        count=_shape((), jnp.int32),
        num_updated=_shape((), jnp.int32),
    )
    to_fit = for_fit(state, arm_data.problem)
    program, (fitted, info) = _compile(arm.programs.fit, arm.mesh, keys, setting.learner, *to_fit)
    yield _program("fitting", program, stays)
    stays = [*stays, fitted.params, state.prepared, info]
    if len(num_labels) > 1:
        state = state._replace(params=fitted.params)
        program, (queried, _) = _compile(arm.programs.query, arm.mesh, keys, setting, state, arm_data.problem)
        yield _program("querying", program, stays)
        stays = [*stays, queried.prepared]
    for examples in arm_data.held_out.values():
        if examples.labels is not None and len(examples.labels):
            program, _ = _compile(arm.programs.score, arm.mesh, setting.learner, fitted, examples)
            yield _program("scoring", program, stays)


def _compile(function, mesh, *args) -> tuple[Any, Any]:
    """Returns the compiled program, and the shapes of its outputs with where they lie."""
    compiled = function.lower(*args).compile()
    outputs = function.eval_shape(*args)
    if mesh is not None:
        outputs = jax.tree.map(lambda leaf, at: leaf.update(sharding=at), outputs, compiled.output_shardings)
    return compiled, outputs


def _program(doing, compiled, stays):
    analysis = compiled.memory_analysis()
    made = analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return _Program(doing, _bytes_on_each_device(stays) + made)


def _bytes_on_each_device(tree):
    """Returns the bytes of the arrays on each device; one that is named twice counts once."""
    arrays = {id(leaf): leaf for leaf in jax.tree.leaves(tree)}.values()
    return sum(prod(_shard_shape(leaf)) * leaf.dtype.itemsize for leaf in arrays)


def _shard_shape(leaf):
    return leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)


def _encodings(train, data, mesh):
    """Returns the shapes of `Encodings`; validation and test have latents only, since rounds read no more of them."""
    width = train.latents.shape[1:]
    held_out = [Encoded(_shape((len(split.images), *width), jnp.float32), None) for split in data[1:3]]
    return Encodings(place_rows(train, mesh), *place(held_out, mesh))


def _shapes_of(tree):
    return jax.tree.map(lambda leaf: _shape(leaf.shape, leaf.dtype), tree)


def _shape(shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype)


def _devices(num):
    return "the device" if num == 1 else f"each of {num} devices"


def _size(num_bytes):
    if num_bytes < 2**20:
        return f"{num_bytes / 2**10:.1f} KiB"
    return f"{num_bytes / 2**20:.1f} MiB" if num_bytes < 2**30 else f"{num_bytes / 2**30:.2f} GiB"
