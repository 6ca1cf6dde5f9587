"""The labelling job: from a folder of images to the next queries, by one command that is run again and again."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from latent_al.data.store import Store
from latent_al.encoders import Encoder, build_encoder
from latent_al.labelling import advice, label_studio, near_duplicates, rounds, scan, sheets, terminal
from latent_al.labelling.asking import Asked, ask
from latent_al.labelling.audit import enlarge, set_audit_aside
from latent_al.labelling.classes import SKIPPED, clean, fold
from latent_al.labelling.config import parse_labelling
from latent_al.labelling.selection import round_up
from latent_al.labelling.state import State, take_labels
from latent_al.loop import check_shapes
from latent_al.models.classifiers import build_learner
from latent_al.runtime.files import write_atomically, write_csv
from latent_al.runtime.locks import only_process_in
from latent_al.runtime.noise import noise_to_file
from latent_al.runtime.workdir import check_format, check_identity
from latent_al.strategies import STRATEGIES
from latent_al.strategies.needs import check_needs, stats_of_shapes
from latent_al.types import BadInput, Encoded, Learner, Problem, Strategy, build


class Parts(NamedTuple):
    """The encoder and the strategies that the config names."""

    encoder: Encoder
    initial: Strategy
    strategy: Strategy


def run(config: ConfigDict, workdir: str) -> None:
    """Scans the folder, takes in labels, and asks the next queries, or says what it is waiting for.

    Args:
        config: see `configs/folder.py`; its keys are those of `labelling.config`.
        workdir: the folder of this one job.

    Raises:
        BadInput: whatever in the config, the images or the workdir cannot be used, before any long work; a full disk;
            another process in the workdir. What was done stays done, and the same command continues.
    """
    if jax.process_count() > 1:
        raise BadInput("the labelling job runs in one process; start it once, without --cluster or --coordinator.")
    config, folder = parse_labelling(config), Path(workdir)
    parts = _build(config, folder)
    try:
        (folder / "labels").mkdir(parents=True, exist_ok=True)
        with only_process_in(folder, wait=False), jax.default_matmul_precision(config.precision):
            _run(config, folder, parts)
    except OSError as error:
        raise BadInput(
            f"{error.filename or folder} cannot be read or written ({error.strerror or error}); make room, or fix it: "
            "the same command continues where this one stopped."
        ) from error


def _run(config, folder, parts):
    check_format(folder)
    data = config.data
    plan = scan.plan(
        data.root,
        folder,
        size=tuple(data.size),
        channels=data.channels,
        depth=data.depth,
        max_megapixels=data.max_megapixels,
    )
    check_identity(folder, _identity(config))
    for line in plan.remarks:
        print(line)
    if plan.new:
        print(terminal.to_scan(scan.forecast(plan)))
    scanned = scan.scan(plan)
    print(scan.summary(scanned))
    set_audit_aside(folder, scanned.table, num=config.audit, num_initial=config.num_initial, seed=config.seed)
    enlarged = enlarge(folder, scanned.table, dict(config.audit_by_class), config.seed)
    for line in enlarged:
        print(line)
    encoded = _encode(parts.encoder, scanned, folder / "encoder")
    state, taken = take_labels(
        folder,
        scanned,
        classes=tuple(config.classes),
        rename=dict(config.rename),
        root_name=plan.root.resolve().name,
        encoding=config.encoding,
        seed=config.seed,
    )
    for line in terminal.taken_in(folder, state, taken, is_fixed=bool(config.classes)):
        print(line)
    near = _near_duplicates(folder, config.label_near_duplicates_once, scanned, state, encoded)
    if config.label_near_duplicates_once:
        state = near_duplicates.label_once(state, near)
    if state.is_waiting and not enlarged:
        print(terminal.waiting(state, taken))
    else:
        asked = ask(config, parts.initial, parts.strategy, state, encoded)
        if not state.past and not state.labels.labels:
            _advise(folder, state, encoded, asked, num_near=len(near.rows), seed=config.seed)
        print(terminal.report(asked.record, _publish(folder, scanned, state, encoded, asked)))
        state = _after(state, asked)
    _write_progress(folder, state.past)
    print(terminal.next_steps(folder, state))


def _identity(config):
    """Returns the settings that may not change from round to round, nor may `audit` once the slice is set aside."""
    tree = config.to_dict()
    return dict(
        data=dict(size=tree["data"]["size"], channels=tree["data"]["channels"]),
        encoder=tree["encoder"],
        seed=tree["seed"],
    )


def _build(config, folder) -> Parts:
    _check_classes(config.classes)
    scan.check_size(config.data.size, config.data.channels)
    initial, strategy = (build(STRATEGIES, spec, "strategy") for spec in (config.initial, config.strategy))
    if strategy.synthesise is not None:
        raise BadInput(
            f"{config.strategy.name} asks about images that a decoder makes, but a labelling job asks about those of "
            "the folder; choose nearest_to_synthesised."
        )
    learner = build_learner(config.classifier, num_classes=2)
    image_shape = (*config.data.size, config.data.channels)
    encoder = build_encoder(config.encoder, image_shape)
    shapes = encoder.shapes(scan.as_data(Store(folder / "pool", image_shape)))
    _check_shapes(shapes, learner, initial, strategy, config)
    return Parts(encoder, initial, strategy)


def _check_classes(classes):
    names = [clean(name) for name in classes]
    if len(set(map(fold, names))) < len(names) or len(names) == 1 or {"", SKIPPED} & set(names):
        raise BadInput(
            f"classes is {tuple(classes)}; expected () to allow any label, or two or more names, each once and none "
            "of them empty or ?."
        )
    # Otherwise a name that the XML cannot hold would be refused only after the first round's long work.
    label_studio.labelling_config(classes)


def _check_shapes(shapes: Encoded, learner: Learner, initial, strategy, config):
    """Checks the strategies on a pool with enough rows, before it is scanned; `shapes` may have any number of rows."""
    num_asked = config.num_initial + config.query_size
    size = 1000 + num_asked
    encoded = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype), shapes)
    problem = Problem(encoded.latents, jax.ShapeDtypeStruct((size,), np.int32), encoded)
    strategies = dict(strategy=strategy, initial=initial)
    sizes = dict(num_initial=config.num_initial, query_size=config.query_size, capacity=round_up(num_asked))
    try:
        for needing in strategies.values():
            check_needs(needing, stats_of_shapes(encoded))
        check_shapes(problem, learner=learner, **strategies, **sizes)
    except ValueError as error:
        raise BadInput(f"a strategy does not fit the encoder and the classifier: {error}") from error


def _encode(encoder: Encoder, scanned, folder) -> Encoded:
    data = scan.as_data(scanned.store, scanned.table, scanned.plan)
    expected = encoder.forecast(data, folder)
    if expected is not None:
        print(terminal.forecast(expected))
    encoded = encoder.encode(data, folder).train
    scan.check_latents(np.asarray(encoded.latents), scanned.table)
    return encoded


def _near_duplicates(folder, is_once, scanned, state: State, encoded) -> near_duplicates.NearDuplicates:
    """Returns the near-duplicates, and lists them."""
    near = near_duplicates.find(folder, encoded.latents, state)
    near_duplicates.publish(folder, scanned, near)
    if len(near.rows):
        print(terminal.near_duplicates(folder, near, is_once=is_once))
    return near


def _advise(folder, state: State, encoded, asked: Asked, *, num_near, seed):
    """Prints what the latents say about the first batch, before it is written."""
    latents, picked = np.asarray(encoded.latents), asked.rows[: len(asked.record["queries"])]
    said = advice.advise(latents[state.masks.candidates], latents[picked], num_near=num_near, seed=seed)
    print(f"\n{said}")
    write_atomically(folder / "advice.txt", f"{said}\n")


def _publish(folder, scanned, state: State, encoded, asked: Asked):
    originals = scan.as_data(scanned.store, scanned.table, scanned.plan).train.originals
    masks, picked = state.masks, {"picked now": asked.rows[: len(asked.record["queries"])]}
    groups = dict(labelled=masks.labelled, open=masks.open & ~masks.audit, audit=masks.audit)
    marks = {name: np.flatnonzero(mask) for name, mask in groups.items()}
    # The files are read again for the contact sheet.
    with noise_to_file(folder / scan.NOISE):
        return rounds.publish(
            folder,
            asked.record,
            queries=asked.queries,
            predictions=asked.predictions,
            images=(originals[row] for row in asked.rows.tolist()),
            marked=sheets.Marked(encoded.latents, marks | picked),
            root_name=scanned.plan.root.resolve().name,
        )


def _after(state: State, asked: Asked) -> State:
    is_open = state.masks.open.copy()
    is_open[asked.rows] = True
    return state._replace(past=[*state.past, asked.record], masks=state.masks._replace(open=is_open))


def _write_progress(folder, past):
    lines = []
    for record in past:
        accuracy = record.get("accuracy") or {}
        line = dict(round=record["round"], num_labels=record["num_labels"], num_queries=len(record["queries"]))
        lines.append(line | dict(accuracy=accuracy.get("mean"), low=accuracy.get("low"), high=accuracy.get("high")))
    write_csv(folder / "progress.csv", pd.DataFrame(lines))
