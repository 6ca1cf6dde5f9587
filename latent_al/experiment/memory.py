"""What a run will take of its devices, known before any work from its programs, which are compiled on shapes alone.

Their later calls find them compiled. Not foreseen are: an encoder's training; what a strategy prepares on one device,
or on some along `seeds` alone, where its steps run one by one; what is measured and explained once at the end; figures.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from latent_al.collectives import bytes_moved
from latent_al.encoders.base import Encodings
from latent_al.experiment import costs
from latent_al.experiment.rounds import SPLITS, Arm, per_member, place_known
from latent_al.runtime.mesh import SEEDS, free_bytes, has_pool, place, place_rows
from latent_al.types import BadInput, Data, Encoded


class Forecast(NamedTuple):
    """What the rounds of a run will take.

    num_bytes: on each device at the peak: what stays there, and what the program that runs then makes besides.
    arm: whose program that is.
    doing: what it does.
    moved: bytes that each device gets from the others in a round, of the arm in which they are most; the body of a loop
        counts once.
    round_seconds: of the last round, of the arm in which it takes longest.
    seconds: of all rounds of all arms. Both are about as long as `costs.seconds` tells, without what devices wait for
        each other.
    """

    num_bytes: int
    arm: str
    doing: str
    moved: int
    round_seconds: float
    seconds: float


class _Program(NamedTuple):
    """`seconds` are those of the first and of the last time that it runs."""

    doing: str
    num_bytes: int
    moved: int
    every_round: bool
    seconds: tuple[float, float]


def forecast(
    arms: dict[str, Arm],
    data: Data,
    shapes: dict[str, Encoded],
    num_labels: np.ndarray,
    num_seeds: int,
    *,
    test_every_round: bool,
) -> Forecast:
    """Compiles what each arm plays, and tells what that will take.

    Args:
        arms: before anything is prepared.
        data: the images and their labels, of which only the shapes are read.
        shapes: encoder -> what the training images are encoded to.
        num_labels: [rounds+1], labels queried by the time that each round fits.
        num_seeds: side by side.
        test_every_round: as in `arms.play`.
    """
    data = data._replace(**{split: _shapes_of(getattr(data, split)) for split in SPLITS})
    mesh = next(iter(arms.values())).mesh
    encodings = {name: _encodings(train, data, mesh) for name, train in shapes.items()}
    programs, ready = {}, {}
    for name, arm in arms.items():
        programs[name], ready[name] = _prepare(arm, encodings[arm.encoder].train)
    stays = [[each[:3] for each in encodings.values()], [arm.prepared for arm in ready.values()]]
    for name, arm in ready.items():
        known = (arm, data, encodings[arm.encoder], num_labels, num_seeds * len(arm.variants))
        programs[name] += _play(*known, stays, test_every_round=test_every_round)
    peak, arm, doing = max((each.num_bytes, name, each.doing) for name, own in programs.items() for each in own)
    moved = max(sum(each.moved for each in own if each.every_round) for own in programs.values())
    last_round = max(sum(each.seconds[1] for each in own if each.every_round) for own in programs.values())
    times = {True: len(num_labels), False: 1}
    seconds = sum(times[each.every_round] * sum(each.seconds) / 2 for own in programs.values() for each in own)
    return Forecast(peak, arm, doing, moved, last_round, seconds)


def choose_seeds(foresee: Callable[[int], Forecast], num_seeds: int, wanted: int | None, mesh: Mesh | None):
    """How many seeds to run side by side, and what that will take.

    Args:
        foresee: seeds side by side -> `Forecast`.
        num_seeds: of the run.
        wanted: side by side; None for the most that fit.
        mesh: of the run; along `seeds` each device has equally many.

    Raises:
        BadInput: what is wanted, or each device with one seed, needs more memory than there is.
    """
    at_once, room = min(wanted or num_seeds, num_seeds), _room(mesh)
    expected = foresee(at_once)
    if expected.num_bytes > room:
        fitting = _most_that_fit(foresee, at_once, room, mesh)
        if wanted or not fitting:
            raise BadInput(_refusal(expected, at_once, fitting, room, mesh))
        at_once, expected = fitting, foresee(fitting)
    return at_once, expected


def describe(expected: Forecast, mesh: Mesh | None, num_blocks: int) -> str:
    """The forecast in a line, of as many blocks of seeds, one after the other."""
    devices = 1 if mesh is None else mesh.size
    moved = f", {_size(expected.moved)} moved between them a round" if devices > 1 else ""
    peak = f"at the peak (arm {expected.arm}, {expected.doing})"
    last, total = _span(expected.round_seconds), _span(num_blocks * expected.seconds)
    spans = f"about {last} for the longest round, {total} for all; more where loops run until they converge"
    return f"Forecast: {_size(expected.num_bytes)} on {_each_of(devices)} {peak}{moved}; {spans}."


def _most_that_fit(foresee, at_once, room, mesh):
    """Fewer seeds than `at_once` that fit, as many as do where each takes what the second one does; 0 where none do."""
    step = 1 if mesh is None else mesh.shape[SEEDS]
    if at_once == step or (least := foresee(step).num_bytes) > room:
        return 0
    growth = max(1, foresee(2 * step).num_bytes - least)
    fitting = step * min(1 + int((room - least) // growth), at_once // step - 1)
    while foresee(fitting).num_bytes > room:
        # Another program has the peak there than where one and two were looked at.
        fitting = fitting // (2 * step) * step
    return fitting


def _refusal(expected, at_once, fitting, room, mesh):
    place = _each_of(1 if mesh is None else mesh.size)
    fewer = f"lower seeds_at_once to {fitting} (a workdir that was begun goes on with its own), " if fitting else ""
    return (
        f"arm {expected.arm!r} needs {_size(expected.num_bytes)} on {place} in {expected.doing} for {at_once} seeds at "
        f"once but {_size(room)} are free; {fewer}spread the pool over more devices (mesh.pool), or lower subsample."
    )


def _room(mesh):
    """Bytes that are free on the device, or for each of the mesh where that is least, in whatever process."""
    devices = jax.devices()[:1] if mesh is None else mesh.local_devices
    sharing = len(devices) if devices[0].platform == "cpu" else 1
    room = min(map(free_bytes, devices)) / sharing
    if jax.process_count() > 1:
        room = multihost_utils.process_allgather(np.float32(room)).min()
    return float(room)


def _prepare(arm: Arm, train) -> tuple[list[_Program], Arm]:
    """The shapes of what the strategies prepare, and the programs that do."""
    if not has_pool(arm.mesh):
        whole = [jax.eval_shape(strategy.prepare, train) for strategy in arm.strategies]
        return [], arm._replace(prepared=place(whole, arm.mesh))
    compiled, prepared = zip(*[_compile(prepare, arm.mesh, train) for prepare in arm.prepares], strict=True)
    stays = [train, prepared]
    programs = [_program("preparing", each, arm.mesh, stays, [(train,)], every_round=False) for each in compiled]
    return programs, arm._replace(prepared=list(prepared))


def _play(arm: Arm, data, encodings, num_labels, num_members, stays, *, test_every_round) -> Iterator[_Program]:
    """As `arms.play`, on shapes alone."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_members))
    given = keys, encodings.train, arm.prepared[0]
    first, _ = _compile(arm.first, arm.mesh, *given)
    yield _program("its first batch", first, arm.mesh, stays, [given], every_round=False)
    if arm.classifier is None:
        return
    given, prepared = place_known(arm, data, encodings), per_member(arm, num_members)
    stays = [*stays, given, prepared]
    rates, count = _shape((num_members,), jnp.float32), _shape((), jnp.int32)
    known = given.labels["train"], _shape((num_members, num_labels[-1]), jnp.int32)
    inputs, counts = given.inputs["train"], (int(num_labels[0]), int(num_labels[-1]))
    read = keys, rates, inputs, *known
    fit, fitted = _compile(arm.classifier.fit, arm.mesh, *read, count, given.watched)
    calls = [(*read, each, given.watched) for each in counts]
    yield _program("fitting", fit, arm.mesh, stays, calls, by_rows=False)
    stays = [*stays, fitted]
    if len(num_labels) > 1:
        read = keys, rates, rates, *fitted[:2], inputs, encodings.train, prepared, *known
        select, selected = _compile(arm.select, arm.mesh, *read, count, count)
        yield _program("selecting", select, arm.mesh, stays, [(*read, 0, each) for each in counts])
        stays = [*stays, selected]
    for split in SPLITS[1:]:
        if given.labels[split] is not None and len(given.labels[split]):
            read = fitted[0], given.inputs[split], given.labels[split]
            score, _ = _compile(arm.classifier.score, arm.mesh, *read)
            every_round = test_every_round or split == "validation"
            yield _program("scoring", score, arm.mesh, stays, [read], every_round=every_round, by_rows=False)


def _compile(function, mesh, *args):
    """The program, traced and compiled, and the shapes of its outputs with where they lie."""
    traced = function.trace(*args)
    compiled, outputs = traced.lower().compile(), function.eval_shape(*args)
    if mesh is not None:
        outputs = jax.tree.map(lambda each, at: each.update(sharding=at), outputs, compiled.output_shardings)
    return (traced, compiled), outputs


def _program(doing, program, mesh, stays, calls, *, every_round=True, by_rows=True):
    """What it takes.

    Args:
        calls: the arguments of the first and, where they differ, of the last time that it runs.
        by_rows: whether devices along `pool` share the work; or else each does all of it.
    """
    traced, compiled = program
    own = compiled.memory_analysis()
    made = own.temp_size_in_bytes + own.output_size_in_bytes - own.alias_size_in_bytes
    # The text of a program takes as long to write as it is.
    moved = 0 if mesh is None else bytes_moved(compiled.as_text())
    spans = [_seconds(traced, args, mesh, by_rows) for args in calls]
    return _Program(doing, _bytes_on_each(stays) + made, moved, every_round, (spans[0], spans[-1]))


def _seconds(traced, args, mesh, by_rows):
    devices = 1 if mesh is None else mesh.size if by_rows else mesh.shape[SEEDS]
    alone = costs.seconds(costs.count(traced.jaxpr, args, devices))
    # The devices of a CPU share its cores.
    return alone * (len(mesh.local_devices) if mesh is not None and jax.default_backend() == "cpu" else 1)


def _bytes_on_each(tree):
    """Bytes of the arrays on each device; one that is named twice counts once."""
    arrays = {id(each): each for each in jax.tree.leaves(tree)}.values()
    return sum(prod(_own_shape(each)) * each.dtype.itemsize for each in arrays)


def _own_shape(each):
    return each.shape if each.sharding is None else each.sharding.shard_shape(each.shape)


def _encodings(train, data, mesh):
    """The shapes of `Encodings`, of which rounds read no more than the latents of validation and test."""
    others = [Encoded(_shape((len(split.images), *train.latents.shape[1:]), jnp.float32), None) for split in data[1:3]]
    return Encodings(place_rows(train, mesh), *place(others, mesh))


def _shapes_of(tree):
    return jax.tree.map(lambda each: _shape(each.shape, each.dtype), tree)


def _shape(shape, kind):
    return jax.ShapeDtypeStruct(shape, kind)


def _each_of(devices):
    return "the device" if devices == 1 else f"each of {devices} devices"


def _span(seconds):
    return f"{seconds:.2g} s" if seconds < 99.5 else str(timedelta(seconds=round(seconds)))


def _size(num_bytes):
    if num_bytes < 2**20:
        return f"{num_bytes / 2**10:.1f} KiB"
    return f"{num_bytes / 2**20:.1f} MiB" if num_bytes < 2**30 else f"{num_bytes / 2**30:.2f} GiB"
