"""From a config to results: the one place that knows configs and all the tables of what they name."""

import hashlib
import json
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.tree_util import Partial
from ml_collections import ConfigDict
from tqdm import tqdm

from latent_al.base import BadInput, Data, Encoded, Learner, Pool, Strategy, build, check_name
from latent_al.checkpoints import Checkpoints
from latent_al.data import digest, load
from latent_al.encoders import ENCODERS, TRAINED, Encodings
from latent_al.kernels.picks import subsample_size
from latent_al.kernels.representer import Explanation
from latent_al.loop import (
    explain_round,
    first_batch,
    fit_round,
    measure_round,
    over_seeds,
    score,
    select_round,
)
from latent_al.models.classifiers import CLASSIFIERS, ON_IMAGES, REGRESSORS
from latent_al.models.last_layer import TOLERANCE
from latent_al.output import write_results
from latent_al.results import METRICS, History
from latent_al.strategies import STRATEGIES
from latent_al.strategies.sampling import Clustered
from latent_al.workdir import open_workdir, pin

SPLITS = ("train", "validation", "test")
WATCHED = 500
"""Validation images on which a learner is watched while it trains: all of them would cost more than the training."""
MEASURED = 1000
"""Training images of which the report shows what a strategy measures."""
EXPLAINED, EXPLAINING = 4, 4
"""Validation images whose prediction is explained, and labelled examples for and against each."""


class Classifier(NamedTuple):
    """A learner with its functions vmapped over members and compiled, once for all arms that name it."""

    learner: Learner
    on_images: bool
    fit: Any
    score: Any
    explain: Any


class Arm(NamedTuple):
    """One row of the comparison, its functions vmapped over members and compiled.

    A member is a seed with one variant, a dropout of the classifier with a gamma of the strategy; all seeds of the
    first variant come first. `strategies` are those of the first batch and of the rounds, `prepared` what they
    prepared. Unlabelled data has no classifier.
    """

    encoder: str
    classifier: Classifier | None
    strategies: list[Strategy]
    first: Any
    select: Any
    measure: Any = None
    prepared: Any = None

    @property
    def variants(self) -> list[tuple[float, float]]:
        dropouts = self.classifier.learner.dropouts if self.classifier else (0.0,)
        return [(dropout, gamma) for dropout in dropouts for gamma in self.strategies[-1].gammas]


def run(config: ConfigDict, workdir: str, *, encoders_dir: str | None = None, command: str = "") -> dict:
    """Runs, or goes on with, the experiment that `config` describes, and writes its results into `workdir`.

    Args:
        config: see `configs/`.
        workdir: the folder of this one experiment.
        encoders_dir: where trained encoders are kept, for other experiments too; `workdir/encoders` by default.
        command: what the report says was run.

    Returns:
        What `summary.json` holds.

    Raises:
        BadInput: whatever in the config, the data or the workdir cannot be used, before any long work; what a trained
            encoder's latents do not allow, once it is trained.
    """
    _check_sizes(config)
    data = load(config.data)
    _check_budget(config, data)
    _check_reach(config, data)
    encoders = {name: _build_encoder(spec, data) for name, spec in config.encoders.items()}
    classifiers = {name: _build_classifier(spec, data) for name, spec in config.classifiers.items()}
    arms = {}
    for name in config.arms:
        with _blamed_on(name):
            arms[name] = _build_arm(config, name, data, encoders, classifiers)
    labels = _labels(arms)
    if len(set(labels)) < len(labels):
        raise BadInput(f"two arms have one name among {', '.join(labels)}; give each dropout and gamma once.")
    tuned = _tuned(arms, data)
    alternatives = {label for each in tuned.values() for label in each}
    check_name(config.baseline, set(labels) - alternatives, "baseline arm")
    data_digest = digest(data)
    folder = open_workdir(Path(workdir), config, data_digest)
    trained = Path(encoders_dir) if encoders_dir else folder / "encoders"
    encodings, ready = {}, {}
    for encoder, each in _encode(config, encoders, data, data_digest, trained):
        encodings[encoder] = each
        learned = [split.latents for split in each[:3]] if each.losses is None else [each.losses]
        pin(folder / "encoders" / f"{encoder}.sha256", learned, f"what encoder {encoder!r} has learned or was given")
        ready |= {name: _prepare(name, arm, each.train) for name, arm in arms.items() if arm.encoder == encoder}
    arms = {name: ready[name] for name in arms}
    histories = {}
    for block in _blocks(config):
        for name, arm in arms.items():
            known = (data, encodings[arm.encoder], folder)
            played = _play(config, name, arm, block, *known, test_every_round=bool(tuned))
            histories |= {(label, block[0]): (block, each) for label, each in _by_variant(name, arm, played)}
    ordered = [(label, *histories[label, block[0]]) for label in _labels(arms) for block in _blocks(config)]
    spaces = {
        label: (np.asarray(encodings[arm.encoder].train.latents), _clusters(arm))
        for name, arm in arms.items()
        for label in _labels({name: arm})
    }
    return write_results(folder, config, data, encodings, spaces, ordered, tuned, command)


def _check_sizes(config):
    for name in ("num_seeds", "seeds_at_once", "first_batch"):
        if config[name] < 1:
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
    return np.asarray(prepared.clusters) if isinstance(prepared, Clustered) and prepared.clusters.any() else None


def _blocks(config):
    seeds = list(range(config.num_seeds))
    return [seeds[i : i + config.seeds_at_once] for i in range(0, len(seeds), config.seeds_at_once)]


def _build_classifier(spec, data: Data) -> Classifier | None:
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
        inner = _build_classifier(spec["classifier"], data)
        known["classifier"], on_images = inner.learner, inner.on_images
    learner = build(CLASSIFIERS | REGRESSORS, dict(spec, **known), "classifier")
    fit = over_seeds(partial(fit_round, learner=learner), 0, 0, None, None, 0, None, None)
    explain = over_seeds(partial(explain_round, learner=learner, num=EXPLAINING), 0, 0, None, 0, None)
    return Classifier(learner, on_images, fit, over_seeds(partial(score, learner=learner), 0, None, None), explain)


def _build_arm(config, name, data: Data, encoders, classifiers) -> Arm:
    spec = config.arms[name]
    check_name(spec.encoder, encoders, "encoder")
    check_name(spec.classifier, classifiers, "classifier")
    classifier = classifiers[spec.classifier]
    initial = build(STRATEGIES, spec.get("initial", config.initial), "strategy")
    strategy = build(STRATEGIES, spec.strategy, "strategy")
    train = _shapes(config, spec.encoder, data, encoders)
    _rehearse(initial, train, config.first_batch)
    first = partial(first_batch, select=initial.select, num=config.first_batch, capacity=_capacity(config))
    first = over_seeds(first, 0, None, None)
    if not config.rounds:
        return Arm(spec.encoder, classifier, [initial], first, None)
    size = len(data.train.images)
    probs = None if data.num_classes is None else _floats(size, data.num_classes)
    draw = classifier.learner.draw and Partial(lambda key: jnp.zeros(probs.shape))
    _rehearse(strategy, train, config.batch, features=train.latents, probs=probs, draw=draw)
    settings = dict(learner=classifier.learner, strategy=strategy, num=config.batch, fraction=spec.subsample)
    member = 0 if strategy.follow else None
    axes = (0, 0, 0, 0, 0, None, None, member, None, 0, None, None)
    select = over_seeds(partial(select_round, **settings), *axes)
    settings = dict(learner=classifier.learner, strategy=strategy)
    measure = over_seeds(partial(measure_round, **settings), 0, 0, 0, None, None, member, None, 0, None, None, None)
    return Arm(spec.encoder, classifier, [initial, strategy], first, select, measure)


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


def _shapes(config, name, data, encoders) -> Encoded:
    """The shapes of what an encoder makes of the training images, whose latents stand for any number of dimensions."""
    latents, errors = _floats(len(data.train.images), 1), _floats(len(data.train.images))
    is_trained = config.encoders[name].name in TRAINED
    return Encoded(latents, latents if encoders[name].has_spread else None, errors if is_trained else None)


def _floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _rehearse(strategy: Strategy, train: Encoded, num, *, features=None, probs=None, draw=None):
    """Traces a selection on shapes alone, so that a strategy that cannot work says so before any long work."""
    size = train.latents.shape[0]
    taken, rows = jax.ShapeDtypeStruct((size,), bool), jax.ShapeDtypeStruct((size,), jnp.int32)
    prepared = jax.eval_shape(strategy.prepare, train)
    if strategy.follow:
        prepared = jax.eval_shape(strategy.follow, prepared, train, rows, 0, 1)
    pool = Pool(train.latents, train.log_sigma, features, probs, taken, rows, rows, prepared, draw)
    jax.eval_shape(partial(strategy.select, num=num), jax.eval_shape(lambda: jax.random.key(0)), pool)


def _encode(config, encoders, data, data_digest, folder):
    """Yields each encoder's name and `Encodings`; those that need no training come first, so that errors do too."""
    for name in sorted(encoders, key=lambda name: config.encoders[name].name in TRAINED):
        kind = config.encoders[name].name
        spec = json.dumps(config.encoders[name].to_dict(), sort_keys=True)
        cache = hashlib.sha256(f"{data_digest} {spec}".encode()).hexdigest()[:16]
        yield name, encoders[name].encode(data, folder / f"{kind}-{cache}")


def _prepare(name, arm: Arm, train: Encoded) -> Arm:
    with _blamed_on(name):
        return arm._replace(prepared=[strategy.prepare(train) for strategy in arm.strategies])


@contextmanager
def _blamed_on(name):
    """A kernel's ValueError becomes one that says which arm of the config asked for it."""
    try:
        yield
    except ValueError as error:
        raise BadInput(f"arm {name!r}: {error}") from error


def _empty_history(num_members, num_labels, arm: Arm, data) -> History:
    nothing = np.full((num_members, len(num_labels)), np.nan, np.float32)
    size = len(data.train.images)
    learner = arm.classifier.learner if arm.classifier else None
    metrics, updates = (learner.metrics, learner.updates) if learner else ((), ())
    measured = np.full((num_members, min(size, MEASURED)), np.nan, np.float32)
    return History(
        np.full((num_members, num_labels[-1]), size, np.int32),
        {metric: dict.fromkeys(("labelled", "validation", "test"), nothing) for metric in metrics},
        np.full((len(num_labels), 2), np.nan),
        dict.fromkeys(updates, nothing),
        dict.fromkeys(arm.strategies[-1].measures, measured),
        _nothing_explained(num_members, num_labels, size) if _explains(arm, data, num_labels) else {},
    )


def _explains(arm: Arm, data: Data, num_labels):
    """Whether predictions are explained: the last layer is refitted, and there are images and labels enough."""
    is_refitted = arm.classifier is not None and arm.classifier.learner.l2 is not None
    return is_refitted and len(data.validation.images) >= EXPLAINED and num_labels[-1] >= EXPLAINING


def _nothing_explained(num_members, num_labels, size):
    rows = np.full((num_members, EXPLAINED, EXPLAINING), size, np.int32)
    values = np.full(rows.shape, np.nan, np.float32)
    nothing = Explanation(rows, values, rows, values)
    return nothing._asdict() | {"predicted": np.full(rows.shape[:2], -1, np.int32)}


def _play(config, name, arm: Arm, seeds, data: Data, encodings: Encodings, folder, *, test_every_round) -> History:
    """All rounds of one arm for one block of seeds, from where its checkpoints stopped."""
    members = [(*variant, seed) for variant in arm.variants for seed in seeds]
    keys = jax.vmap(jax.random.key)(jnp.array([seed for *_, seed in members]))
    key_first, key_rounds = jax.vmap(jax.random.split)(keys).T
    num_labels = _num_labels(config)
    checkpoints = Checkpoints(folder / "checkpoints" / name / f"seeds-{seeds[0]}")
    learner = arm.classifier.learner if arm.classifier else None
    nothing = _empty_history(len(members), num_labels, arm, data)
    done, history = checkpoints.restore(nothing)
    if not done:
        history = history._replace(bought=arm.first(key_first, encodings.train, arm.prepared[0]))
    if data.train.labels is None:
        return jax.device_get(history)
    labels = {split: getattr(data, split).labels for split in SPLITS}
    inputs = _inputs(arm, data, encodings)
    prepared, followed = _per_member(arm, len(members)), 0
    play = partial(_play_round, name, arm, members, test_every_round=test_every_round)
    with tqdm(range(done, len(num_labels)), initial=done, total=len(num_labels), unit="round") as bar:
        bar.set_description(f"{name}, seeds {seeds[0]} to {seeds[-1]}")
        for index in bar:
            keys = jax.vmap(lambda key, index=index: jax.random.split(jax.random.fold_in(key, index)))(key_rounds)
            known = (prepared, followed, encodings.train, inputs, labels, history)
            history, prepared = play(index, keys, num_labels, *known)
            followed = num_labels[index]
            bar.set_postfix(_show(history.scores[learner.metric], index))
            checkpoints.save(index + 1, history)
    return history


def _per_member(arm: Arm, num_members):
    """What the strategy of the rounds prepared, once for each member where it follows what each has bought."""
    if not arm.strategies[-1].follow:
        return arm.prepared[-1]
    return jax.tree.map(lambda each: jnp.broadcast_to(each, (num_members, *each.shape)), arm.prepared[-1])


def _watched(inputs, labels):
    """The validation images on which a classifier is watched while it trains; none where they have no labels."""
    known = np.zeros(0, np.int32) if labels["validation"] is None else labels["validation"][:WATCHED]
    return inputs["validation"][: len(known)], known


def _inputs(arm: Arm, data: Data, encodings: Encodings):
    """What the arm's classifier reads of each split."""
    if arm.classifier.on_images:
        return {split: jnp.asarray(getattr(data, split).images) for split in SPLITS}
    return {split: getattr(encodings, split).latents for split in SPLITS}


def _play_round(
    name,
    arm: Arm,
    members,
    index,
    keys,
    num_labels,
    prepared,
    followed,
    train,
    inputs,
    labels,
    history: History,
    *,
    test_every_round,
) -> tuple[History, Any]:
    """Fits on what is bought, scores, and buys the next batch unless this is the last round."""
    dropouts, gammas = jnp.array([variant for *variant, _ in members]).T
    is_last = index + 1 == len(num_labels)
    count = jnp.int32(num_labels[index])
    known = (labels["train"], history.bought)
    started = time.perf_counter()
    fitted = arm.classifier.fit(keys[:, 0], dropouts, inputs["train"], *known, count, _watched(inputs, labels))
    params, labelled, progress = jax.block_until_ready(fitted)
    fit_seconds = time.perf_counter() - started
    _check_loss(np.asarray(progress["loss"]), name, members, index)
    _warn_of_residual(np.asarray(progress.get("residual", 0)), name, members, index)
    started, bought = time.perf_counter(), history.bought
    if not is_last:
        variants = (keys[:, 1], dropouts, gammas)
        known = (inputs["train"], train, prepared, *known, jnp.int32(followed), count)
        bought, prepared = arm.select(*variants, params, labelled, *known)
    bought = np.asarray(bought)
    seconds = fit_seconds, np.nan if is_last else time.perf_counter() - started
    scores = {(arm.classifier.learner.metric, "labelled"): progress["score"]}
    for split in ("validation", "test") if is_last or test_every_round else ("validation",):
        if labels[split] is not None and len(labels[split]):
            found = arm.classifier.score(params, inputs[split], labels[split])
            scores |= {(metric, split): values for metric, values in found.items()}
    history = History(
        bought,
        {
            metric: {split: _set(values, index, scores.get((metric, split), np.nan)) for split, values in each.items()}
            for metric, each in history.scores.items()
        },
        _set(history.seconds.T, index, seconds).T,
        {
            update: _set(values, index, progress["by_update"][:, mark])
            for mark, (update, values) in enumerate(history.by_update.items())
        },
        history.measured,
        history.explained,
    )
    if is_last and history.measured:
        known = (inputs["train"], train, prepared, labels["train"], history.bought, jnp.int32(followed), count)
        sample = np.random.default_rng(0).permutation(len(labels["train"]))[:MEASURED]
        history = history._replace(measured=arm.measure(dropouts, params, labelled, *known, np.int32(sample)))
    if is_last and history.explained:
        targets = inputs["validation"][:EXPLAINED]
        predicted, found = arm.classifier.explain(params, labelled, labels["train"], history.bought, targets)
        history = history._replace(explained=found._asdict() | {"predicted": predicted})
    return jax.device_get(history), prepared


def _set(table, index, column):
    table = np.array(table)
    table[:, index] = column
    return table


def _by_variant(name, arm: Arm, history: History):
    """The history of each of the arm's variants, under its label; the seconds of their program in equal parts."""
    num_seeds = len(history.bought) // len(arm.variants)
    for index, label in enumerate(_labels({name: arm})):
        own = slice(index * num_seeds, (index + 1) * num_seeds)
        of_seeds = jax.tree.map(lambda values, own=own: values[own], history._replace(seconds=None))
        yield label, of_seeds._replace(seconds=history.seconds / len(arm.variants))


def _labels(arms):
    """The arms' names, with the dropout and with the gamma where an arm has several."""
    return [
        name
        + (f"_dropout_{dropout:g}" if len(arm.variants) > len(arm.strategies[-1].gammas) else "")
        + (f"_gamma_{gamma:g}" if len(arm.strategies[-1].gammas) > 1 else "")
        for name, arm in arms.items()
        for dropout, gamma in arm.variants
    ]


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
        labels = _labels({name: arm})
        for first in range(0, len(labels), len(gammas)):
            tuned[labels[first].split("_gamma_")[0]] = labels[first : first + len(gammas)]
    return tuned


def _check_loss(loss, name, members, index):
    if not np.isfinite(loss).all():
        worst = (~np.isfinite(loss)).argmax()
        raise BadInput(
            f"the training loss is {loss[worst]} in arm {name!r}, seed {members[worst][-1]}, "
            f"round {index}; lower its learning_rate in config.classifiers. "
            "What was bought before it is kept in the checkpoints."
        )


def _warn_of_residual(residual, name, members, index):
    if residual.max() > TOLERANCE:
        logging.warning(
            "the last layer has not converged in arm %r, seed %d, round %d: its residual is %.1e, and representer "
            "values hold only below %.0e; raise l2 in config.classifiers.",
            *(name, members[residual.argmax()][-1], index, residual.max(), TOLERANCE),
        )


def _show(scores, index):
    means = {split: values[:, index].mean() for split, values in scores.items()}
    return {split: f"{mean:.4f}" for split, mean in means.items() if not np.isnan(mean)}
