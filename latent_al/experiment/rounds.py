"""An arm of the comparison: its compiled functions, and all the rounds that it plays."""

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh
from tqdm import tqdm

from latent_al.encoders.base import Encodings
from latent_al.kernels.representer import Explanation
from latent_al.models.last_layer import TOLERANCE
from latent_al.results.tables import History
from latent_al.runtime.checkpoints import Checkpoints
from latent_al.runtime.mesh import gather, place, place_rows, repeat
from latent_al.runtime.processes import after_the_first, agree, is_first
from latent_al.types import BadInput, Data, Learner, Strategy

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
    first variant come first. `strategies` are those of the first batch and of the rounds, `prepares` readies each for
    the placed training set, and `prepared` is what that gave. Unlabelled data has no classifier.
    """

    encoder: str
    classifier: Classifier | None
    mesh: Mesh | None
    strategies: list[Strategy]
    prepares: list[Any]
    first: Any
    select: Any
    measure: Any = None
    prepared: Any = None

    @property
    def variants(self) -> list[tuple[float, float]]:
        dropouts = self.classifier.learner.dropouts if self.classifier else (0.0,)
        return [(dropout, gamma) for dropout in dropouts for gamma in self.strategies[-1].gammas]


class Known(NamedTuple):
    """What all rounds of an arm read: by split, inputs of the classifier and labels; those that it is watched on."""

    inputs: dict[str, Any]
    labels: dict[str, Any]
    watched: tuple[Any, Any]


def place_known(arm: Arm, data: Data, encodings: Encodings) -> Known:
    """What the rounds of the arm read, on its devices; of shapes alone, as in `meshes.place`.

    A classifier is watched on the first validation images; on none where they have no labels.
    """
    inputs = _inputs(arm, data, encodings)
    labels = place({split: getattr(data, split).labels for split in SPLITS[1:]}, arm.mesh)
    labels["train"] = place_rows(data.train.labels, arm.mesh)
    seen = np.zeros(0, np.int32) if labels["validation"] is None else labels["validation"]
    num = min(len(seen), WATCHED)
    return Known(inputs, labels, place((_head(inputs["validation"], num), _head(seen, num)), arm.mesh))


def per_member(arm: Arm, num_members: int) -> Any:
    """What the strategy of the rounds prepared, once for each member where it follows what each has queried."""
    if not arm.strategies[-1].follow:
        return arm.prepared[-1]
    return repeat(arm.prepared[-1], num_members, arm.mesh)


def play(name, arm: Arm, seeds, num_labels, data: Data, encodings: Encodings, folder, *, test_every_round) -> History:
    """All rounds of one arm for one block of seeds, from where its checkpoints stopped.

    Args:
        name: of the arm.
        arm: with what its strategies prepared.
        seeds: of the block.
        num_labels: [rounds+1], labels queried by the time that each round fits.
        data: the images and their labels.
        encodings: what the arm's encoder has made of the images.
        folder: of the run, for the checkpoints.
        test_every_round: scores the test split after each round, not at the end only.

    Raises:
        BadInput: a training loss that is not finite; what was queried before it is kept.
    """
    members = [(*variant, seed) for variant in arm.variants for seed in seeds]
    keys = jax.vmap(jax.random.key)(jnp.array([seed for *_, seed in members]))
    key_first, key_rounds = jax.vmap(jax.random.split)(keys).T
    checkpoints = Checkpoints(folder / "checkpoints" / name / f"seeds-{seeds[0]}")
    learner = arm.classifier.learner if arm.classifier else None
    nothing = _empty_history(len(members), num_labels, arm, data)
    with after_the_first():
        done, history = checkpoints.restore(nothing)
    agree(rounds_done=done)
    if not done:
        history = history._replace(queried=gather(arm.first(key_first, encodings.train, arm.prepared[0])))
    if data.train.labels is None:
        return gather(history)
    given = place_known(arm, data, encodings)
    prepared, followed = per_member(arm, len(members)), 0
    play_round = partial(_play_round, name, arm, members, test_every_round=test_every_round)
    shown = dict(initial=done, total=len(num_labels), unit="round", disable=not is_first())
    with tqdm(range(done, len(num_labels)), **shown) as bar:
        bar.set_description(f"{name}, seeds {seeds[0]} to {seeds[-1]}")
        for index in bar:
            keys = jax.vmap(lambda key, index=index: jax.random.split(jax.random.fold_in(key, index)))(key_rounds)
            known = (prepared, followed, encodings.train, given, history)
            history, prepared = play_round(index, keys, num_labels, *known)
            followed = num_labels[index]
            bar.set_postfix(_show(history.scores[learner.metric], index))
            checkpoints.save(index + 1, history)
    return history


def by_variant(name, arm: Arm, history: History):
    """The history of each of the arm's variants, under its label; the seconds of their program in equal parts."""
    num_seeds = len(history.queried) // len(arm.variants)
    for index, label in enumerate(labels_of({name: arm})):
        own = slice(index * num_seeds, (index + 1) * num_seeds)
        of_seeds = jax.tree.map(lambda values, own=own: values[own], history._replace(seconds=None))
        yield label, of_seeds._replace(seconds=history.seconds / len(arm.variants))


def labels_of(arms):
    """The arms' names, with the dropout and with the gamma where an arm has several."""
    return [
        name
        + (f"_dropout_{dropout:g}" if len(arm.variants) > len(arm.strategies[-1].gammas) else "")
        + (f"_gamma_{gamma:g}" if len(arm.strategies[-1].gammas) > 1 else "")
        for name, arm in arms.items()
        for dropout, gamma in arm.variants
    ]


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


def _head(each, num):
    if isinstance(each, jax.ShapeDtypeStruct):
        return each.update(shape=(num, *each.shape[1:]))
    return each[:num]


def _inputs(arm: Arm, data: Data, encodings: Encodings):
    """What the arm's classifier reads of each split."""
    if arm.classifier.on_images:
        others = place({split: getattr(data, split).images for split in SPLITS[1:]}, arm.mesh)
        return others | {"train": place_rows(data.train.images, arm.mesh)}
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
    given: Known,
    history: History,
    *,
    test_every_round,
) -> tuple[History, Any]:
    """Fits on what is queried, scores, and buys the next batch unless this is the last round."""
    dropouts, gammas = jnp.array([variant for *variant, _ in members]).T
    inputs, labels, watched = given
    is_last = index + 1 == len(num_labels)
    count = jnp.int32(num_labels[index])
    known = (labels["train"], history.queried)
    started = time.perf_counter()
    fitted = arm.classifier.fit(keys[:, 0], dropouts, inputs["train"], *known, count, watched)
    params, labelled, progress = jax.block_until_ready(fitted)
    fit_seconds, progress = time.perf_counter() - started, gather(progress)
    _check_loss(progress["loss"], name, members, index)
    _warn_of_residual(np.asarray(progress.get("residual", 0)), name, members, index)
    started, queried = time.perf_counter(), history.queried
    if not is_last:
        variants = (keys[:, 1], dropouts, gammas)
        known = (inputs["train"], train, prepared, *known, jnp.int32(followed), count)
        queried, up_to_date = arm.select(*variants, params, labelled, *known)
        prepared = prepared if up_to_date is None else up_to_date
    queried = gather(queried)
    seconds = fit_seconds, np.nan if is_last else time.perf_counter() - started
    scores = {(arm.classifier.learner.metric, "labelled"): progress["score"]}
    for split in ("validation", "test") if is_last or test_every_round else ("validation",):
        if labels[split] is not None and len(labels[split]):
            found = gather(arm.classifier.score(params, inputs[split], labels[split]))
            scores |= {(metric, split): values for metric, values in found.items()}
    history = History(
        queried,
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
        known = (inputs["train"], train, prepared, labels["train"], history.queried, jnp.int32(followed), count)
        sample = np.random.default_rng(0).permutation(len(labels["train"]))[:MEASURED]
        history = history._replace(measured=arm.measure(dropouts, params, labelled, *known, np.int32(sample)))
    if is_last and history.explained:
        targets = inputs["validation"][:EXPLAINED]
        predicted, found = arm.classifier.explain(params, labelled, labels["train"], history.queried, targets)
        history = history._replace(explained=found._asdict() | {"predicted": predicted})
    return gather(history), prepared


def _set(table, index, column):
    table = np.array(table)
    table[:, index] = column
    return table


def _check_loss(loss, name, members, index):
    if not np.isfinite(loss).all():
        worst = (~np.isfinite(loss)).argmax()
        raise BadInput(
            f"the training loss is {loss[worst]} in arm {name!r}, seed {members[worst][-1]}, "
            f"round {index}; lower its learning_rate in config.classifiers. "
            "What was queried before it is kept in the checkpoints."
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
