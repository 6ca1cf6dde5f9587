"""From a config to results: the one place that knows configs and all the tables of what they name."""

import hashlib
import json
from functools import partial
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from latent_al.data import digest, load
from latent_al.data.stored import digest_arrays
from latent_al.encoders.base import TRAINED
from latent_al.experiment.build import build_arms, build_encoder, capacity, place_encodings, prepare_arm
from latent_al.experiment.memory import choose_seeds, describe, forecast
from latent_al.experiment.rounds import by_variant, labels_of, play
from latent_al.kernels.picks import subsample_size
from latent_al.results.figures import Space
from latent_al.results.metrics import METRICS
from latent_al.results.write import Outcome, write_results
from latent_al.runtime.mesh import gather, gather_on_first, make_mesh
from latent_al.runtime.processes import after_the_first, agree, is_first
from latent_al.runtime.workdir import begun_with, check_begun, check_format, open_workdir, pin
from latent_al.strategies.sampling import Clustered
from latent_al.types import BadInput, check_name


def run_experiment(
    config: ConfigDict, workdir: str, *, encoders_dir: str | None = None, command: str = ""
) -> dict | None:
    """Runs, or goes on with, the experiment that `config` describes, and writes its results into `workdir`.

    Args:
        config: see `configs/`.
        workdir: the folder of this one experiment.
        encoders_dir: where trained encoders are kept, for other experiments too; `workdir/encoders` by default.
        command: what the report says was run.

    Returns:
        What `summary.json` holds; None in a process that is not the first of several.

    Raises:
        BadInput: whatever in the config, the data or the workdir cannot be used, before any long work; what a trained
            encoder's latents do not allow, once it is trained.
    """
    agree(config=config.to_dict(), workdir=workdir, encoders=encoders_dir)
    check_format(Path(workdir))
    _check_sizes(config)
    wanted = config.get("seeds_at_once") or begun_with(Path(workdir))
    spec = config.get("mesh")
    mesh = make_mesh(None if spec is None else dict(spec), _blocks(config.num_seeds, wanted or config.num_seeds))
    data = load(config.data)
    _check_budget(config, data)
    _check_reach(config, data)
    encoders = {name: build_encoder(spec, data) for name, spec in config.encoders.items()}
    shapes = {name: encoder.shapes(data) for name, encoder in encoders.items()}
    arms = build_arms(config, data, shapes, mesh)
    tuned = _tuned(arms, data)
    _check_labels(config, arms, tuned)
    data_digest = digest(data)
    agree(data=data_digest)
    check_begun(Path(workdir), config, data_digest)
    forecast_of = partial(forecast, arms, data, shapes, _num_labels(config))
    at_once, expected = choose_seeds(forecast_of, config.num_seeds, wanted, mesh)
    agree(seeds_at_once=at_once)
    blocks = _blocks(config.num_seeds, at_once)
    if is_first():
        print(describe(expected, mesh), flush=True)
    with after_the_first():
        folder = open_workdir(Path(workdir), config, data_digest, at_once)
    trained = Path(encoders_dir) if encoders_dir else folder / "encoders"
    encodings, placed, ready = {}, {}, {}
    for encoder, each in _encode(config, encoders, data, data_digest, trained, mesh):
        encodings[encoder] = each
        learned = digest_arrays([split.latents for split in each[:3]] if each.losses is None else [each.losses])
        if is_first():
            pin(folder / "encoders" / f"{encoder}.digest", learned, f"what encoder {encoder!r} learned or was given")
        placed[encoder] = place_encodings(each, mesh)
        own = {name: arm for name, arm in arms.items() if arm.encoder == encoder}
        ready |= {name: prepare_arm(name, arm, placed[encoder].train, len(data.ids)) for name, arm in own.items()}
    arms = {name: ready[name] for name in arms}
    ordered = _play(arms, blocks, _num_labels(config), data, placed, folder, test_every_round=bool(tuned))
    encodings = {name: each._replace(train=gather_on_first(each.train)) for name, each in encodings.items()}
    spaces = {
        label: Space(encodings[arm.encoder].train.latents, _clusters(arm))
        for name, arm in arms.items()
        for label in labels_of({name: arm})
    }
    with after_the_first():
        outcome = Outcome(encodings, spaces, ordered, tuned)
        return write_results(folder, config, data, outcome, command) if is_first() else None


def _check_sizes(config):
    for name in ("num_seeds", "seeds_at_once", "num_initial"):
        is_open = name == "seeds_at_once" and config.get(name) is None
        if not is_open and config[name] < 1:
            raise BadInput(f"{name} is {config[name]}; expected 1 or more.")
    if config.num_rounds < 0 or (config.num_rounds and config.query_size < 1):
        raise BadInput(
            f"num_rounds is {config.num_rounds} and query_size {config.query_size}; "
            "expected num_rounds >= 0 and query_size >= 1."
        )
    if not config.arms:
        raise BadInput("config.arms is empty; name at least one arm.")


def _check_budget(config, data):
    size, needed = len(data.train.images), capacity(config)
    if needed > size:
        raise BadInput(
            f"{config.num_rounds} rounds of {config.query_size} after {config.num_initial} need {needed} rows "
            f"but the pool has {size}; lower num_rounds, query_size or num_initial."
        )
    if data.train.labels is None and config.num_rounds:
        raise BadInput(
            f"{config.num_rounds} rounds need the labels of the training images and the data has none; "
            "set num_rounds=0 to choose a first batch without labels, or give labels."
        )
    for name, arm in config.arms.items():
        fraction = arm.subsample
        if not 0 < fraction <= 1 or (config.num_rounds and subsample_size(size, fraction) < config.query_size):
            raise BadInput(
                f"arm {name!r} subsamples {fraction} of {size} rows; expected a share in (0, 1] that holds "
                f"a batch of {config.query_size}; raise subsample or lower query_size."
            )


def _check_reach(config, data):
    reach = config.get("reach", ())
    shown = METRICS["angular_error" if data.num_classes is None else "accuracy"]
    is_known = isinstance(reach, tuple | list) and all(isinstance(each, int | float) for each in reach)
    if not is_known or not all(0 <= each <= shown.top for each in reach):
        raise BadInput(
            f"reach is {reach!r}; expected a tuple of validation scores, of which each {shown.name} is in "
            f"[0, {shown.top:g}]; correct reach or leave it out."
        )
    if reach and (data.validation.labels is None or not len(data.validation.labels)):
        raise BadInput(f"reach is {reach!r} but no validation image has a label; leave reach out, or give some.")


def _num_labels(config):
    """Labels queried by the time that each round fits."""
    return config.num_initial + config.query_size * np.arange(config.num_rounds + 1)


def _clusters(arm):
    """The clusters that the arm's first batch was drawn from; None where it was not."""
    prepared = arm.prepared[0]
    clusters = gather(prepared.clusters) if isinstance(prepared, Clustered) else np.zeros(0)
    return clusters if clusters.any() else None


def _blocks(num_seeds, at_once):
    seeds = list(range(num_seeds))
    return [seeds[i : i + at_once] for i in range(0, num_seeds, at_once)]


def _check_labels(config, arms, tuned):
    labels = labels_of(arms)
    if len(set(labels)) < len(labels):
        raise BadInput(f"two arms have one name among {', '.join(labels)}; give each dropout and gamma once.")
    alternatives = {label for each in tuned.values() for label in each}
    check_name(config.baseline, set(labels) - alternatives, "baseline arm")


def _encode(config, encoders, data, data_digest, folder, mesh):
    """Yields each encoder's name and `Encodings`; those that need no training come first, so that errors do too."""
    for name in sorted(encoders, key=lambda name: config.encoders[name].name in TRAINED):
        kind = config.encoders[name].name
        spec = json.dumps(config.encoders[name].to_dict(), sort_keys=True)
        cache = hashlib.sha256(f"{data_digest} {spec}".encode()).hexdigest()[:16]
        yield name, encoders[name].encode(data, folder / f"{kind}-{cache}", mesh)


def _play(arms, blocks, num_labels, data, placed, folder, *, test_every_round):
    """(label, seeds, history) of all that the arms play, label by label and block by block."""
    histories = {}
    for block in blocks:
        for name, arm in arms.items():
            known = (data, placed[arm.encoder], folder)
            played = play(name, arm, block, num_labels, *known, test_every_round=test_every_round)
            histories |= {(label, block[0]): (block, each) for label, each in by_variant(name, arm, played)}
    return [(label, *histories[label, block[0]]) for label in labels_of(arms) for block in blocks]


def _tuned(arms, data):
    """The labels of each arm that has several gammas, of which validation data keep one; of each dropout its own."""
    tuned = {}
    for name, arm in arms.items():
        gammas = arm.strategies[-1].gammas
        if len(gammas) < 2:
            continue
        if data.validation.labels is None or not len(data.validation.labels):
            raise BadInput(
                f"arm {name!r} has the gammas {gammas}, of which validation images are to choose, and none has a "
                "label; give gamma one value, or raise num_validation."
            )
        labels = labels_of({name: arm})
        for first in range(0, len(labels), len(gammas)):
            tuned[labels[first].split("_gamma_")[0]] = labels[first : first + len(gammas)]
    return tuned
