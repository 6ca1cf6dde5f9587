"""From a config to results: the one place that knows configs and all the tables of what they name."""

import hashlib
import json
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from ml_collections import ConfigDict

from latent_al.arms import EXPLAINING, SPLITS, Arm, Classifier, by_variant, labels_of, play
from latent_al.base import BadInput, Data, Encoded, build, check_name
from latent_al.data import digest, load
from latent_al.encoders import ENCODERS, TRAINED
from latent_al.files import write_atomically
from latent_al.forecast import choose_seeds, describe, forecast
from latent_al.kernels.picks import subsample_size
from latent_al.loop import (
    explain_round,
    first_batch,
    fit_round,
    measure_round,
    rehearse,
    score,
    select_round,
)
from latent_al.meshes import (
    Rows,
    fetch,
    has_pool,
    make_mesh,
    over_rows,
    over_seeds,
    place,
    place_rows,
    to_the_first,
    with_padding,
)
from latent_al.models.classifiers import CLASSIFIERS, ON_IMAGES, REGRESSORS
from latent_al.output import write_results
from latent_al.processes import after_the_first, agree, is_first
from latent_al.results import METRICS
from latent_al.strategies import STRATEGIES
from latent_al.strategies.sampling import Clustered
from latent_al.workdir import check_begun, open_workdir, pin

SEEDS_AT_ONCE = "seeds_at_once.json"
"""The file of the workdir that keeps how many seeds run side by side: with less memory there would be other blocks."""


def run(config: ConfigDict, workdir: str, *, encoders_dir: str | None = None, command: str = "") -> dict | None:
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
    _check_sizes(config)
    blocks = _blocks(config.num_seeds, config.get("seeds_at_once") or config.num_seeds)
    mesh = make_mesh(dict(config.mesh) if config.get("mesh") else None, blocks)
    data = load(config.data)
    _check_budget(config, data)
    _check_reach(config, data)
    encoders = {name: _build_encoder(spec, data) for name, spec in config.encoders.items()}
    shapes = {name: encoder.shapes(data) for name, encoder in encoders.items()}
    arms = _build_arms(config, data, shapes, mesh)
    tuned = _tuned(arms, data)
    _check_labels(config, arms, tuned)
    data_digest = digest(data)
    agree(data=data_digest)
    check_begun(Path(workdir), config, data_digest)
    foresee = partial(forecast, arms, data, shapes, _num_labels(config), test_every_round=bool(tuned))
    at_once, expected = choose_seeds(foresee, config.num_seeds, _wanted_at_once(config, Path(workdir)), mesh)
    agree(seeds_at_once=at_once)
    with after_the_first():
        folder = open_workdir(Path(workdir), config, data_digest)
    if is_first():
        print(describe(expected, mesh), flush=True)
        write_atomically(folder / SEEDS_AT_ONCE, f"{at_once}\n")
    blocks = _blocks(config.num_seeds, at_once)
    trained = Path(encoders_dir) if encoders_dir else folder / "encoders"
    encodings, placed, ready = {}, {}, {}
    for encoder, each in _encode(config, encoders, data, data_digest, trained, mesh):
        encodings[encoder] = each
        if is_first():
            learned = [split.latents for split in each[:3]] if each.losses is None else [each.losses]
            pin(folder / "encoders" / f"{encoder}.sha256", learned, f"what encoder {encoder!r} learned or was given")
        placed[encoder] = _place(each, mesh)
        own = {name: arm for name, arm in arms.items() if arm.encoder == encoder}
        ready |= {name: _prepare(name, arm, placed[encoder].train, len(data.ids)) for name, arm in own.items()}
    arms = {name: ready[name] for name in arms}
    ordered = _play(arms, blocks, _num_labels(config), data, placed, folder, test_every_round=bool(tuned))
    encodings = {name: each._replace(train=to_the_first(each.train)) for name, each in encodings.items()}
    spaces = {
        label: (encodings[arm.encoder].train.latents, _clusters(arm))
        for name, arm in arms.items()
        for label in labels_of({name: arm})
    }
    with after_the_first():
        return write_results(folder, config, data, encodings, spaces, ordered, tuned, command) if is_first() else None


def _check_sizes(config):
    for name in ("num_seeds", "seeds_at_once", "first_batch"):
        is_open = name == "seeds_at_once" and config.get(name) is None
        if not is_open and config[name] < 1:
            raise BadInput(f"{name} is {config[name]}; expected 1 or more.")
    if config.rounds < 0 or (config.rounds and config.batch < 1):
        raise BadInput(f"rounds is {config.rounds} and batch {config.batch}; expected rounds >= 0 and batch >= 1.")
    if not config.arms:
        raise BadInput("config.arms is empty; name at least one arm.")


def _check_budget(config, data):
    size, capacity = len(data.train.images), _capacity(config)
    if capacity > size:
        raise BadInput(
            f"{config.rounds} rounds of {config.batch} after {config.first_batch} need {capacity} rows "
            f"but the pool has {size}; lower rounds, batch or first_batch."
        )
    if data.train.labels is None and config.rounds:
        raise BadInput(
            f"{config.rounds} rounds need the labels of the training images and the data has none; "
            "set rounds=0 to choose a first batch without labels, or give labels."
        )
    for name, arm in config.arms.items():
        fraction = arm.subsample
        if not 0 < fraction <= 1 or (config.rounds and subsample_size(size, fraction) < config.batch):
            raise BadInput(
                f"arm {name!r} subsamples {fraction} of {size} rows; expected a share in (0, 1] that holds "
                f"a batch of {config.batch}; raise subsample or lower batch."
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


def _capacity(config):
    return config.first_batch + config.rounds * config.batch


def _num_labels(config):
    """Labels bought by the time that each round fits."""
    return config.first_batch + config.batch * np.arange(config.rounds + 1)


def _clusters(arm):
    """The clusters that the arm's first batch was drawn from; None where it was not."""
    prepared = arm.prepared[0]
    clusters = fetch(prepared.clusters) if isinstance(prepared, Clustered) else np.zeros(0)
    return clusters if clusters.any() else None


def _wanted_at_once(config, workdir):
    """Seeds side by side: as many as the config says, else as when the workdir was begun; None where it was not."""
    path, wanted = workdir / SEEDS_AT_ONCE, config.get("seeds_at_once")
    if wanted is not None or not path.exists():
        return wanted
    kept = path.read_text().strip()
    if not kept.isdecimal() or int(kept) < 1:
        raise BadInput(f"{path} holds {kept[:20]!r}; expected a number of seeds; choose another --workdir.")
    return int(kept)


def _blocks(num_seeds, at_once):
    seeds = list(range(num_seeds))
    return [seeds[i : i + at_once] for i in range(0, num_seeds, at_once)]


def _build_classifier(spec, data: Data, mesh) -> Classifier | None:
    if data.train.labels is None:
        return None
    name, has_angles = spec.get("name"), data.num_classes is None
    if name in (CLASSIFIERS if has_angles else REGRESSORS):
        found, wanted = ("angles", REGRESSORS) if has_angles else (f"{data.num_classes} classes", CLASSIFIERS)
        raise BadInput(
            f"{name} cannot learn the labels of this data, which are {found}; choose one of {', '.join(wanted)}, or "
            "other data."
        )
    on_images = name in ON_IMAGES
    known = {"image_shape": data.train.images.shape[1:]} if on_images else {}
    known |= {} if has_angles else {"num_classes": data.num_classes}
    if "classifier" in spec:
        inner = _build_classifier(spec["classifier"], data, mesh)
        known["classifier"], on_images = inner.learner, inner.on_images
    learner = build(CLASSIFIERS | REGRESSORS, dict(spec, **known), "classifier")
    fit = over_seeds(partial(fit_round, learner=learner), 0, 0, None, None, 0, None, None, mesh=mesh)
    explain = over_seeds(partial(explain_round, learner=learner, num=EXPLAINING), 0, 0, None, 0, None, mesh=mesh)
    scored = over_seeds(partial(score, learner=learner), 0, None, None, mesh=mesh)
    return Classifier(learner, on_images, fit, scored, explain)


def _build_arms(config, data: Data, shapes, mesh) -> dict[str, Arm]:
    classifiers = {name: _build_classifier(spec, data, mesh) for name, spec in config.classifiers.items()}
    arms = {}
    for name in config.arms:
        with _blamed_on(name):
            arms[name] = _build_arm(config, name, data, shapes, classifiers, mesh)
    return arms


def _check_labels(config, arms, tuned):
    labels = labels_of(arms)
    if len(set(labels)) < len(labels):
        raise BadInput(f"two arms have one name among {', '.join(labels)}; give each dropout and gamma once.")
    alternatives = {label for each in tuned.values() for label in each}
    check_name(config.baseline, set(labels) - alternatives, "baseline arm")


def _build_arm(config, name, data: Data, shapes, classifiers, mesh) -> Arm:
    spec = config.arms[name]
    check_name(spec.encoder, shapes, "encoder")
    check_name(spec.classifier, classifiers, "classifier")
    classifier = classifiers[spec.classifier]
    prepare = partial(_preparer, size=len(data.train.images), mesh=mesh)
    initial = build(STRATEGIES, spec.get("initial", config.initial), "strategy")
    strategy = build(STRATEGIES, spec.strategy, "strategy")
    train = shapes[spec.encoder]
    rehearse(initial, train, config.first_batch)
    first = partial(first_batch, select=initial.select, num=config.first_batch, capacity=_capacity(config))
    first = over_seeds(first, 0, None, None, mesh=mesh)
    if not config.rounds:
        return Arm(spec.encoder, classifier, mesh, [initial], [prepare(initial)], first, None)
    size = len(data.train.images)
    probs = None if data.num_classes is None else _floats(size, data.num_classes)
    draw = classifier.learner.draw and Partial(lambda key: jnp.zeros(probs.shape))
    rehearse(strategy, train, config.batch, features=train.latents, probs=probs, draw=draw)
    settings = dict(learner=classifier.learner, strategy=strategy, num=config.batch, fraction=spec.subsample)
    member = 0 if strategy.follow else None
    axes = (0, 0, 0, 0, 0, None, None, member, None, 0, None, None)
    select = over_seeds(partial(select_round, **settings), *axes, mesh=mesh, stays=partial(_stays, size, mesh))
    settings = dict(learner=classifier.learner, strategy=strategy)
    axes = (0, 0, 0, None, None, member, None, 0, None, None, None)
    measure = over_seeds(partial(measure_round, **settings), *axes, mesh=mesh)
    prepares = [prepare(initial), prepare(strategy)]
    return Arm(spec.encoder, classifier, mesh, [initial, strategy], prepares, first, select, measure)


def _stays(size, mesh, selected):
    """What a strategy has followed stays on the devices of its rows."""
    bought, followed = selected
    return bought, with_padding(followed, size, mesh)


def _build_encoder(spec, data):
    if spec.get("name") not in TRAINED:
        return build(ENCODERS, spec, "encoder")
    size, *image_shape = data.train.images.shape
    if "perplexity" in spec and spec.batch > size:
        raise BadInput(
            f"{spec.name} compares the images of a batch of {spec.batch} but there are {size} training images, so that "
            "some would be in it twice; lower the batch."
        )
    return build(ENCODERS, dict(spec, image_shape=tuple(image_shape)), "encoder")


def _floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _encode(config, encoders, data, data_digest, folder, mesh):
    """Yields each encoder's name and `Encodings`; those that need no training come first, so that errors do too."""
    for name in sorted(encoders, key=lambda name: config.encoders[name].name in TRAINED):
        kind = config.encoders[name].name
        spec = json.dumps(config.encoders[name].to_dict(), sort_keys=True)
        cache = hashlib.sha256(f"{data_digest} {spec}".encode()).hexdigest()[:16]
        yield name, encoders[name].encode(data, folder / f"{kind}-{cache}", mesh)


def _place(encodings, mesh):
    train = encodings.train if isinstance(encodings.train.latents, Rows) else place_rows(encodings.train, mesh)
    others = {split: place(getattr(encodings, split), mesh) for split in SPLITS[1:]}
    return encodings._replace(train=train, **others)


def _prepare(name, arm: Arm, train: Encoded, size) -> Arm:
    with _blamed_on(name):
        if has_pool(arm.mesh):
            ends = jax.tree.map(jnp.asarray, fetch(over_rows(_ends, size, arm.mesh)(train)))
            for strategy in arm.strategies:
                strategy.check(ends)
        prepared = [prepare(train) for prepare in arm.prepares]
        if has_pool(arm.mesh):
            _check_prepared(fetch(over_rows(partial(_count_nan, size), size, arm.mesh)(prepared)), size)
        return arm._replace(prepared=prepared)


def _count_nan(size, prepared):
    """The values that are NaN, in each array of the rows and each number."""
    known = [each for each in jax.tree.leaves(prepared) if each.shape in ((), (size,))]
    return [jnp.isnan(each).sum() for each in known]


def _check_prepared(counts, size):
    if num_nan := max(map(int, counts), default=0):
        raise ValueError(
            f"what the strategy prepares is NaN for {num_nan} of {size} rows: latents are zero, equal or not finite; "
            "look at what they were made from, or choose another measure or distance."
        )


def _preparer(strategy, size, mesh):
    if has_pool(mesh):
        return over_rows(strategy.prepare, size, mesh)
    return lambda train: place(strategy.prepare(train), mesh)


def _play(arms, blocks, num_labels, data, placed, folder, *, test_every_round):
    """(label, seeds, history) of all that the arms play, label by label and block by block."""
    histories = {}
    for block in blocks:
        for name, arm in arms.items():
            known = (data, placed[arm.encoder], folder)
            played = play(name, arm, block, num_labels, *known, test_every_round=test_every_round)
            histories |= {(label, block[0]): (block, each) for label, each in by_variant(name, arm, played)}
    return [(label, *histories[label, block[0]]) for label in labels_of(arms) for block in blocks]


def _ends(train):
    """Two rows that are finite where all are, and equal where all are."""
    return jax.tree.map(lambda each: jnp.stack([each.min(axis=0), each.max(axis=0)]), train)


@contextmanager
def _blamed_on(name):
    """A kernel's ValueError becomes one that says which arm of the config asked for it."""
    try:
        yield
    except ValueError as error:
        raise BadInput(f"arm {name!r}: {error}") from error


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
