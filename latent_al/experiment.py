"""From a config to results on disk: the one place that knows configs and tables."""

import hashlib
import json
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from ml_collections import ConfigDict
from tqdm import tqdm

from latent_al import plots, results
from latent_al.base import BadInput, Data, Pool, Select, build
from latent_al.checkpoints import Checkpoints
from latent_al.data import digest, load
from latent_al.encoders import AUTOENCODERS, ENCODERS, Encodings
from latent_al.kernels.picks import subsample_size
from latent_al.loop import first_batch, fit_round, over_seeds, score, select_round
from latent_al.models.classifiers import CLASSIFIERS
from latent_al.results import History
from latent_al.strategies import STRATEGIES
from latent_al.workdir import open_workdir

SPLITS = ("train", "validation", "test")


class Arm(NamedTuple):
    """One row of the comparison, its functions vmapped over seeds and compiled."""

    encoder: str
    first: Any
    fit: Any
    score: Any
    select: Any


def run(config: ConfigDict, workdir: str) -> dict:
    """Runs, or goes on with, the experiment that `config` describes, and writes its results into `workdir`.

    Returns:
        What `summary.json` holds.

    Raises:
        BadInput: before any long work, whatever in the config, the data or the workdir cannot be used.
    """
    _check_sizes(config)
    data = load(config.data)
    _check_budget(config, data)
    arms = {name: _build_arm(config, name, data) for name in config.arms}
    encoders = {name: build(ENCODERS, spec, "encoder") for name, spec in config.encoders.items()}
    data_digest = digest(data)
    folder = open_workdir(Path(workdir), config, data_digest)
    encodings = _encode(config, encoders, data, data_digest, folder)
    histories = {
        (name, block[0]): (block, _play(config, name, arm, block, data, encodings[arm.encoder], folder))
        for block in _blocks(config)
        for name, arm in arms.items()
    }
    return _write_results(config, data, encodings, histories, folder)


def _check_sizes(config):
    for name in ("num_seeds", "seeds_at_once", "first_batch"):
        if config[name] < 1:
            raise BadInput(f"{name} is {config[name]}; expected 1 or more.")
    if config.rounds < 0 or (config.rounds and config.batch < 1):
        raise BadInput(f"rounds is {config.rounds} and batch {config.batch}; expected rounds >= 0 and batch >= 1.")
    if not config.arms:
        raise BadInput("config.arms is empty; name at least one arm.")
    if config.baseline not in config.arms:
        raise BadInput(f"baseline {config.baseline!r} is not an arm; arms: {', '.join(config.arms)}.")


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


def _capacity(config):
    return config.first_batch + config.rounds * config.batch


def _num_labels(config):
    """Labels bought by the time that each round fits."""
    return config.first_batch + config.batch * np.arange(config.rounds + 1)


def _blocks(config):
    seeds = list(range(config.num_seeds))
    return [seeds[i : i + config.seeds_at_once] for i in range(0, len(seeds), config.seeds_at_once)]


def _build_arm(config, name, data: Data) -> Arm:
    spec = config.arms[name]
    if spec.encoder not in config.encoders:
        raise BadInput(f"arm {name!r} uses encoder {spec.encoder!r}; encoders: {', '.join(config.encoders)}.")
    initial = build(STRATEGIES, config.initial, "strategy")
    strategy = build(STRATEGIES, spec.strategy, "strategy")
    size = len(data.train.images)
    _rehearse(initial, size, config.first_batch, None)
    first = partial(first_batch, select=initial, num=config.first_batch, capacity=_capacity(config))
    if data.train.labels is None:
        return Arm(spec.encoder, over_seeds(first, 0, None), None, None, None)
    _rehearse(strategy, size, config.batch, data.num_classes)
    learner = build(CLASSIFIERS, dict(config.classifier, num_classes=data.num_classes), "classifier")
    select = partial(select_round, learner=learner, select=strategy, num=config.batch, fraction=spec.subsample)
    return Arm(
        spec.encoder,
        over_seeds(first, 0, None),
        over_seeds(partial(fit_round, learner=learner), 0, None, None, 0, None),
        over_seeds(partial(score, learner=learner), 0, None, None),
        over_seeds(select, 0, 0, 0, None, None, 0, None),
    )


def _rehearse(select: Select, size, num, num_classes):
    """Traces a selection on shapes alone, so that a strategy that cannot work says so before any long work."""

    def floats(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    latents = floats(size, 1)
    features, probs = (None, None) if num_classes is None else (latents, floats(size, num_classes))
    taken, labels = jax.ShapeDtypeStruct((size,), bool), jax.ShapeDtypeStruct((size,), jnp.int32)
    pool = Pool(latents, latents, features, probs, taken, labels)
    jax.eval_shape(partial(select, num=num), jax.eval_shape(lambda: jax.random.key(0)), pool)


def _encode(config, encoders, data, data_digest, folder) -> dict[str, Encodings]:
    """Each encoder's latents; those that need no training come first, so that their errors do too."""
    encodings = {}
    for name in sorted(encoders, key=lambda name: config.encoders[name].name in AUTOENCODERS):
        spec = json.dumps(config.encoders[name].to_dict(), sort_keys=True)
        cache = hashlib.sha256(f"{data_digest} {spec}".encode()).hexdigest()[:16]
        encodings[name] = encoders[name](data, folder / "encoders" / f"{name}-{cache}")
    return encodings


def _empty_history(num_seeds, num_labels, size) -> History:
    nothing = np.full((num_seeds, len(num_labels)), np.nan, np.float32)
    return History(
        np.full((num_seeds, num_labels[-1]), size, np.int32),
        dict.fromkeys(("labelled", "validation", "test"), nothing),
        np.full((len(num_labels), 2), np.nan),
    )


def _play(config, name, arm: Arm, seeds, data: Data, encodings: Encodings, folder) -> History:
    """All rounds of one arm for one block of seeds, from where its checkpoints stopped."""
    key_first, key_rounds = jax.vmap(jax.random.split)(jax.vmap(jax.random.key)(jnp.array(seeds))).T
    num_labels = _num_labels(config)
    checkpoints = Checkpoints(folder / "checkpoints" / name / f"seeds-{seeds[0]}")
    done, history = checkpoints.restore(_empty_history(len(seeds), num_labels, len(data.train.images)))
    if not done:
        history = history._replace(bought=arm.first(key_first, encodings.train))
    if data.train.labels is None:
        return jax.device_get(history)
    labels = {split: getattr(data, split).labels for split in SPLITS}
    with tqdm(range(done, len(num_labels)), initial=done, total=len(num_labels), unit="round") as bar:
        bar.set_description(f"{name}, seeds {seeds[0]} to {seeds[-1]}")
        for index in bar:
            keys = jax.vmap(lambda key, index=index: jax.random.split(jax.random.fold_in(key, index)))(key_rounds)
            history = _play_round(name, arm, seeds, index, keys, num_labels, encodings, labels, history)
            bar.set_postfix(_show(history, index))
            checkpoints.save(index + 1, history)
    return history


def _play_round(name, arm: Arm, seeds, index, keys, num_labels, encodings, labels, history: History) -> History:
    """Fits on what is bought, scores, and buys the next batch unless this is the last round."""
    is_last = index + 1 == len(num_labels)
    count = jnp.int32(num_labels[index])
    pool = encodings.train, labels["train"], history.bought
    started = time.perf_counter()
    params, labelled, metrics = jax.block_until_ready(arm.fit(keys[:, 0], *pool, count))
    fitted = time.perf_counter()
    _check_loss(np.asarray(metrics["loss"]), name, seeds, index)
    bought = history.bought if is_last else arm.select(keys[:, 1], params, labelled, *pool, count)
    bought = np.asarray(bought)
    seconds = fitted - started, np.nan if is_last else time.perf_counter() - fitted
    accuracy = {"labelled": metrics["accuracy"]}
    for split in ("validation", "test") if is_last else ("validation",):
        if labels[split] is not None and len(labels[split]):
            accuracy[split] = arm.score(params, getattr(encodings, split).latents, labels[split])
    return History(
        bought,
        {split: _set(values, index, accuracy.get(split, np.nan)) for split, values in history.accuracy.items()},
        _set(history.seconds.T, index, seconds).T,
    )


def _set(table, index, column):
    table = np.array(table)
    table[:, index] = column
    return table


def _check_loss(loss, name, seeds, index):
    if not np.isfinite(loss).all():
        worst = (~np.isfinite(loss)).argmax()
        raise BadInput(
            f"the classifier's training loss is {loss[worst]} in arm {name!r}, seed {seeds[worst]}, round {index}; "
            "lower config.classifier.learning_rate. What was bought before it is kept in the checkpoints."
        )


def _show(history, index):
    means = {split: values[:, index].mean() for split, values in history.accuracy.items()}
    return {split: f"{mean:.4f}" for split, mean in means.items() if not np.isnan(mean)}


def _write_results(config, data, encodings, histories, folder) -> dict:
    """The tables, arm by arm and seed by seed, the summary and the figure."""
    num_labels = _num_labels(config)
    ordered = [(name, *histories[name, block[0]]) for name in config.arms for block in _blocks(config)]
    queries = [results.queries_table(*each[:2], num_labels, each[2], data.ids) for each in ordered]
    results.write_csv(folder / "queries.csv", pd.concat(queries))
    if data.train.labels is None:
        summary = {"num_seeds": config.num_seeds, "arms": {}, "differences": {}}
    else:
        metrics = pd.concat([results.metrics_table(*each[:2], num_labels, each[2]) for each in ordered])
        results.write_csv(folder / "metrics.csv", metrics)
        results.write_csv(folder / "timings.csv", pd.concat([results.timings_table(*each) for each in ordered]))
        plots.learning_curves(metrics, folder / "figures" / "learning_curves.png")
        summary = results.summarise(metrics, config.baseline)
    losses = {name: each.losses[-1].tolist() for name, each in encodings.items() if each.losses is not None}
    summary["encoders"] = {
        name: dict(zip(("training_loss", "validation_loss"), each, strict=True)) for name, each in losses.items()
    }
    results.write_json(folder / "summary.json", summary)
    return summary
