"""From a config to results: the one place that knows configs and all the tables of what they name."""

import hashlib
import json
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from latent_al.data import digest, load, rows_of_one_colour
from latent_al.data.images import digest_arrays
from latent_al.encoders import TRAINED, Encodings, build_encoder
from latent_al.experiment.build import build_arms, capacity, measure_latents, place_encodings, prepare_arm
from latent_al.experiment.config import Experiment, parse_experiment
from latent_al.experiment.diagnose import Computations, build_diagnostics
from latent_al.experiment.memory import choose_seeds, describe, forecast
from latent_al.experiment.rounds import Block, by_setting, labels_of, place_data, play
from latent_al.kernels.selection import subsample_size
from latent_al.results.diagnostics import Diagnostic
from latent_al.results.figures import Space
from latent_al.results.metrics import METRICS
from latent_al.results.write import Outcome, write_results
from latent_al.runtime.locks import only_process_in
from latent_al.runtime.mesh import gather, gather_on_first, make_mesh
from latent_al.runtime.noise import noise_to_file
from latent_al.runtime.processes import after_the_first, agree, is_first
from latent_al.runtime.workdir import begun_with, check_begun, check_format, open_workdir, pin
from latent_al.strategies.sampling import Clustered
from latent_al.types import BadInput, Data, check_name


def run_experiment(
    config: ConfigDict, workdir: str, *, encoders_dir: str | None = None, command: str = ""
) -> dict | None:
    """Runs or resumes the experiment that `config` describes, and writes its results into `workdir`.

    Args:
        config: see `configs/`; its keys are those of `experiment.config`.
        workdir: the folder of this one experiment.
        encoders_dir: where trained encoders are kept, for other experiments too; `workdir/encoders` by default.
        command: what the report says was run.

    Returns:
        What `summary.json` holds; None in a process that is not the first of several.

    Raises:
        BadInput: whatever in the config, the data or the workdir cannot be used, before any long work; what a trained
            encoder's latents do not allow, once it is trained; another process in the workdir, a folder that cannot
            be written.
    """
    check_format(Path(workdir))
    config = parse_experiment(config)
    # Unless told otherwise, accelerators would multiply in fewer bits than a CPU.
    with jax.default_matmul_precision(config.precision):
        return _run(config, workdir, encoders_dir, command)


def _run(config, workdir, encoders_dir, command):
    agree(config=config.to_dict(), workdir=workdir, encoders=encoders_dir)
    wanted = config.seeds_at_once or begun_with(Path(workdir))
    mesh = make_mesh(config.mesh, _seed_blocks(config.num_seeds, wanted or config.num_seeds))
    data = _load(config.data, Path(workdir))
    _check_budget(config, data)
    _check_reach(config, data)
    encoders = {name: build_encoder(spec, data.train.images.shape[1:]) for name, spec in config.encoders.items()}
    shapes = {name: encoder.shapes(data) for name, encoder in encoders.items()}
    arms = build_arms(config, data, shapes, mesh)
    _check_labels(arms)
    tuned = _tuned(config, arms, data)
    _check_baseline(config, arms, tuned)
    diagnostics = build_diagnostics(config, data, arms)
    data_digest = digest(data)
    agree(data=data_digest)
    check_begun(Path(workdir), config.to_dict(), data_digest)
    num_labels = config.num_initial + config.query_size * np.arange(config.num_rounds + 1)
    at_once, expected = choose_seeds(partial(forecast, arms, data, shapes, num_labels), config.num_seeds, wanted, mesh)
    agree(seeds_at_once=at_once)
    if is_first():
        print(describe(expected, mesh), flush=True)
    with after_the_first():
        folder = open_workdir(Path(workdir), config.to_dict(), data_digest, at_once)
    with only_process_in(folder, wait=False):
        trained = Path(encoders_dir) if encoders_dir else folder / "encoders"
        encodings, placed, prepared = {}, {}, {}
        for name, splits in _encode(config, encoders, data, data_digest, trained, mesh):
            _pin(folder, name, splits)
            encodings[name], placed[name] = splits, place_encodings(splits, mesh)
            stats = measure_latents(placed[name].train, len(data.ids), mesh)
            _check_latents(name, stats, data)
            for arm in arms.values():
                if arm.encoder == name:
                    prepared[arm.name] = prepare_arm(arm, placed[name].train, stats)
        arms = {name: prepared[name] for name in arms}
        blocks = [Block(seeds, num_labels) for seeds in _seed_blocks(config.num_seeds, at_once)]
        session = _Session(config, data, placed, diagnostics, folder, config.test_every_round or bool(tuned))
        histories, tables = _play(session, arms, blocks)
        encodings = {name: splits._replace(train=gather_on_first(splits.train)) for name, splits in encodings.items()}
        spaces = _spaces(arms, encodings, histories)
        with after_the_first():
            outcome = Outcome(encodings, spaces, histories, tuned, tables)
            return write_results(folder, config, data, outcome, command) if is_first() else None


class _Session(NamedTuple):
    """The values that all arms of a run share."""

    config: Experiment
    data: Data
    placed: dict[str, Encodings]
    diagnostics: dict[str, Diagnostic]
    folder: Path
    test_every_round: bool


def _load(spec, workdir):
    source = spec
    while "source" in source:
        source = source["source"]
    if source["name"] != "image_folder":
        return load(spec)
    with noise_to_file(workdir / "warnings.log"):
        return load(spec)


def _check_latents(name, stats, data):
    if not stats.is_constant or stats.num_rows < 2:
        return
    plain = rows_of_one_colour(data.train.images)
    why = "choose another encoder"
    if len(plain):
        why = (
            f"{len(plain):,} of {len(data.ids):,} training images have one colour, the first is {data.ids[plain[0]]}: "
            "look at the files, and where they are deeper than they look, set config.data.depth"
        )
    raise BadInput(f"all {stats.num_rows:,} latents of encoder {name!r} are equal; {why}.")


def _check_budget(config, data):
    size, needed = len(data.train.images), capacity(config)
    if needed > size:
        raise BadInput(
            f"{config.num_rounds} rounds of {config.query_size} after {config.num_initial} need {needed} rows "
            f"but the pool has {size}; lower num_rounds, query_size or num_initial."
        )
    if data.train.labels is None and config.num_rounds:
        raise BadInput(
            f"{config.num_rounds} rounds need the labels of the training images but the data has none; "
            "set num_rounds=0 to query an initial set without labels, or give labels."
        )
    for name, arm in config.arms.items():
        fraction = arm.subsample
        if config.num_rounds and subsample_size(size, fraction) < config.query_size:
            raise BadInput(
                f"arm {name!r} subsamples {fraction} of {size} rows; expected a share that holds "
                f"a batch of {config.query_size}; raise subsample or lower query_size."
            )


def _check_reach(config, data):
    reach = config.reach
    metric = METRICS["angular_error" if data.num_classes is None else "accuracy"]
    if not all(0 <= score <= metric.top for score in reach):
        raise BadInput(
            f"reach is {reach!r}; expected a tuple of validation scores ({metric.name}), each in [0, {metric.top:g}]; "
            "correct reach or leave it out."
        )
    if reach and not data.validation.is_labelled:
        raise BadInput(f"reach is {reach!r} but no validation image has a label; leave reach out, or give some.")


def _spaces(arms, encodings, histories):
    """Returns where each arm selected, by label."""
    points = {label: history.points for label, _, history in reversed(histories)}
    return {
        label: Space(
            encodings[arm.encoder].train.latents,
            _clusters(arm),
            encodings[arm.encoder].decode,
            points[label][0] if arm.synthesises else None,
        )
        for arm in arms.values()
        for label in labels_of(arm)
    }


def _clusters(arm):
    """Returns the cluster assignments that the arm's initial labelled set was drawn from; None where it was not."""
    _, prepared_initial = arm.prepared
    clusters = gather(prepared_initial.clusters) if isinstance(prepared_initial, Clustered) else np.zeros(0)
    return clusters if clusters.any() else None


def _seed_blocks(num_seeds, at_once):
    seeds = list(range(num_seeds))
    return [seeds[first : first + at_once] for first in range(0, num_seeds, at_once)]


def _check_baseline(config, arms, tuned):
    labels = {label for arm in arms.values() for label in labels_of(arm)}
    alternatives = {label for settings in tuned.values() for label in settings}
    check_name(config.baseline, labels - alternatives, "baseline arm")


def _encode(config, encoders, data, data_digest, folder, mesh):
    """Yields each encoder's name and `Encodings`; those without training come first, so that their errors do too."""
    for name in sorted(encoders, key=lambda name: config.encoders[name].name in TRAINED):
        kind = config.encoders[name].name
        parts = [data_digest, json.dumps(config.encoders[name].to_dict(), sort_keys=True)]
        if config.precision != "float32":
            parts.append(config.precision)
        cache = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
        try:
            encodings = encoders[name].encode(data, folder / f"{kind}-{cache}", mesh)
        except OSError as error:
            raise BadInput(
                f"encoder {name!r}: {error.filename or folder} cannot be read or written ({error.strerror or error}); "
                "make room, or choose another --encoders: the same command continues where this one stopped."
            ) from error
        yield name, encodings


def _pin(folder, name, encodings):
    """Saves a hash of what an encoder learned or was given, or checks that it is the one saved."""
    splits = [split.latents for split in encodings[:3]]
    learned = digest_arrays(splits if encodings.losses is None else [encodings.losses])
    if is_first():
        pin(folder / "encoders" / f"{name}.digest", learned, f"what encoder {name!r} learned or was given")


def _play(session, arms, blocks):
    """Plays all arms, and returns their histories, (label, seeds, history), and the tables of the diagnostics."""
    histories = {label: [] for arm in arms.values() for label in labels_of(arm)}
    frames = {name: [] for name in session.diagnostics}
    computations, judge_of = Computations(session.config), cache(partial(_make_judge, session))
    for block in blocks:
        for arm in arms.values():
            arm_data = place_data(arm, session.data, session.placed[arm.encoder])
            wanted = {name: entry for name, entry in session.diagnostics.items() if arm.name in entry.arms}
            played = play(
                arm,
                block,
                arm_data,
                session.folder,
                test_every_round=session.test_every_round,
                keep_state=bool(wanted),
            )
            for label, history in zip(labels_of(arm), by_setting(arm, played.history), strict=True):
                histories[label].append((label, block.seeds, history))
            for name, diagnostic in wanted.items():
                judge = judge_of(name, arm.encoder)
                frames[name].append(computations.compute(diagnostic, arm, block, arm_data, played, judge))
    tables = {
        name: (session.diagnostics[name], pd.concat(parts) if parts else pd.DataFrame())
        for name, parts in frames.items()
    }
    return [entry for entries in histories.values() for entry in entries], tables


def _make_judge(session, diagnostic, encoder):
    make = session.diagnostics[diagnostic].make_judge
    return make(session.data, session.placed[encoder].decode) if make else None


def _check_labels(arms):
    labels = [label for arm in arms.values() for label in labels_of(arm)]
    repeated = next((label for label in labels if labels.count(label) > 1), None)
    if repeated is not None:
        raise BadInput(
            f"several arms, or settings of sweeps, are named {repeated!r}; rename an arm, or give values of sweep that "
            "differ in their first six digits."
        )


def _tuned(config, arms, data):
    """Returns arm -> the labels of its settings, for the arms that keep the best one on validation data."""
    tuned = {name: labels_of(arm) for name, arm in arms.items() if arm.keep == "best" and len(arm.settings) > 1}
    for name, settings in tuned.items():
        keeps = f"arm {name!r} keeps the best of {len(settings)} settings"
        if not data.validation.is_labelled:
            raise BadInput(
                f"{keeps} on validation images, but none of these has a label; leave sweep out, set keep to all, or "
                "raise num_validation."
            )
        if data.num_classes is None:
            raise BadInput(f"{keeps} by balanced accuracy, but the labels are angles; set keep to all.")
        if not config.num_rounds:
            raise BadInput(f"{keeps} by the validation curve, but num_rounds is 0; raise it, or set keep to all.")
    return tuned
