"""One round: its queries, the predictions of the classifier, and estimates of its quality."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from latent_al.labelling import budget, estimates, selection, stratified
from latent_al.labelling.audit import answered, in_random_order
from latent_al.labelling.config import LabellingJob
from latent_al.labelling.state import State
from latent_al.models.classifiers import build_learner
from latent_al.types import UNLABELLED, BadInput, Encoded, Strategy


class Asked(NamedTuple):
    """A round to be published.

    record: what `round.json` holds.
    rows: of the queries in the table.
    queries: one row per query: id, file_name, rank, score, reason, stands_for, prediction and confidence.
    predictions: of all images; None before the first classifier.
    """

    record: dict[str, Any]
    rows: np.ndarray
    queries: pd.DataFrame
    predictions: pd.DataFrame | None


def ask(config: LabellingJob, initial: Strategy, strategy: Strategy, state: State, encoded: Encoded) -> Asked:
    """Returns the next round: trains on what is labelled, and selects; without labels of two classes it only selects.

    Raises:
        BadInput: latents that a strategy refuses.
    """
    index = len(state.past)
    masks = state.masks
    key_choose, key_compare = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), index))
    again = np.flatnonzero(masks.tied & ~masks.audit)
    num = max((config.query_size if index else config.num_initial) - len(again), 0)
    counts = np.bincount(masks.classes[masks.labelled], minlength=len(state.classes))
    is_first = (counts > 0).sum() < 2
    name = (config.initial if is_first else config.strategy).name
    record = dict(round=index, num_answers=state.num_answers, num_labels=int(masks.labelled.sum()))
    record |= dict(classes=state.classes, counts=dict(zip(state.classes, counts.tolist(), strict=True)))
    try:
        if is_first:
            chosen = selection.Chosen(selection.choose_first(key_choose, initial, encoded, masks, num), None)
        else:
            learner = build_learner(config.classifier, num_classes=len(state.classes))
            chosen = selection.choose_next(key_choose, learner, strategy, encoded, masks, num)
            record |= _measured(key_compare, config, learner, state, encoded, chosen.probs)
    except ValueError as error:
        raise BadInput(f"round {index:03d}, strategy {name!r}: {error}") from error
    probs = chosen.probs if is_first else estimates.soften(chosen.probs, record["temperature"] or 1.0)
    audit = np.flatnonzero(masks.unasked_audit | (masks.audit & masks.tied))
    # In random order: an annotator who stops half-way has labelled a random part of the slice, not its first folders.
    audit = in_random_order(state.table, audit, config.seed)
    queries = _queries(state, encoded, again, chosen.rows, audit, probs, name)
    record |= dict(queries=queries.id[: len(queries) - len(audit)].tolist(), audit=state.table.id.iloc[audit].tolist())
    rows = np.concatenate([again, chosen.rows, audit])
    return Asked(record, rows, queries, None if is_first else _predictions(state, probs))


def _queries(state, encoded, again, chosen, audit, probs, name):
    """Returns the table of queries; the audit slice comes last, without a prediction that could sway annotators."""
    rows = np.concatenate([again, chosen, audit])
    table, masks = state.table.iloc[rows], state.masks
    num = len(rows) - len(audit)
    prediction, confidence = np.full(len(rows), "", object), np.full(len(rows), np.nan)
    if probs is not None:
        prediction[:num] = np.array(state.classes, object)[probs[rows[:num]].argmax(axis=1)]
        confidence[:num] = probs[rows[:num]].max(axis=1)
    asked = masks.labelled | (masks.open & ~masks.audit)
    present = (state.table.status == "present").to_numpy()
    reasons = [f"annotators disagree: {state.labels.tied[identity]}" for identity in state.table.id.iloc[again]]
    reasons += [f"chosen by {name}"] * len(chosen)
    reasons += [_why_audited(state.strata.names[stratum]) for stratum in state.strata.of_rows[audit]]
    stands_for = pd.array([*selection.stands_for(encoded.latents, present, asked, rows[:num]), *[None] * len(audit)])
    columns = dict(id=table.id.to_numpy(), file_name=table.file_name.to_numpy(), rank=np.arange(len(rows)))
    columns |= dict(score=selection.uncertainty(probs, rows), reason=reasons, stands_for=stands_for.astype("Int64"))
    return pd.DataFrame(columns | dict(prediction=prediction, confidence=confidence))


def _why_audited(stratum):
    return f"audit: drawn at random{f' of those predicted as {stratum}' if stratum else ''}, to measure accuracy"


def _predictions(state, probs):
    masks, names = state.masks, np.array(["", *state.classes], object)
    columns = dict(id=state.table.id, file_name=state.table.file_name)
    columns |= dict(prediction=names[1 + probs.argmax(axis=1)], confidence=probs.max(axis=1))
    classes = masks.classes[state.label_rows]
    is_taken_over = (state.label_rows != np.arange(len(classes))) & (classes != UNLABELLED)
    label_of = np.where(is_taken_over, state.table.file_name.to_numpy()[state.label_rows], "")
    columns |= dict(label=names[1 + classes], audit=np.where(masks.audit, "yes", ""), label_of=label_of)
    return pd.DataFrame(columns)


def _measured(key, config, learner, state, encoded, probs):
    """Returns estimates of this round's classifier from the audit slice; `predicted` are its classes for all of it."""
    masks, names = state.masks, np.array(state.classes, object)
    draws = np.array([selection.uniform(image, config.seed) for image in state.table.id])
    # Only what the slice took at first is a random sample of the whole pool.
    at_first = masks._replace(audit=draws < state.strata.shares[0])
    sample = answered(state.table, at_first, config.seed)
    rows, truth = sample.rows, masks.classes[sample.rows]
    guesses = probs[rows].argmax(axis=1)
    correct = truth == guesses
    slice_rows = np.flatnonzero(masks.audit)
    predicted = dict(zip(state.table.id.iloc[slice_rows], names[probs[slice_rows].argmax(axis=1)], strict=True))
    # An image that annotators disagreed about has been asked again, and is still one label.
    asked = dict.fromkeys(identity for record in state.past for identity in record["queries"])
    chosen = state.rows_of(list(asked))
    chosen = chosen[masks.labelled[chosen]]
    pairs = [(encoded.latents[part], masks.classes[part]) for part in (chosen, rows)]
    history = _history(state, predicted, rows)
    by_class, enlarged = _by_class(config, state, probs.argmax(axis=1), rows)
    return dict(
        slice=dict(num=len(rows), size=sample.size, reason=sample.reason, enlarged=enlarged),
        accuracy=estimates.accuracy(correct),
        by_class=by_class,
        temperature=estimates.temperature(probs[rows], truth),
        calibration_error=estimates.calibration_error(probs[rows], truth),
        gain=estimates.expected_gain(history.correct, history.num_labels, config.query_size),
        against_random=estimates.against_random(key, learner, *pairs),
        target=config.target and _target(config.target, correct, history, state.seconds_a_label),
        predicted=predicted,
    )


def _by_class(config, state, guesses, rows):
    """Returns the estimates of each class, and what to say about the slice's enlargement, None where there is none.

    Until enough of each stratum is labelled, they are those of `rows` alone, the random sample of the whole pool.
    """
    masks, strata, num_classes = state.masks, state.strata, len(state.classes)
    of_rows = estimates.by_class(masks.classes[rows], guesses[rows], num_classes)
    if len(strata.names) == 1:
        return of_rows, None
    is_present = (state.table.status == "present").to_numpy()
    samples = []
    for stratum in range(len(strata.names)):
        inside = is_present & (strata.of_rows == stratum)
        # Where all classes are enlarged, no image is left outside of them.
        if not inside.any():
            continue
        part = answered(state.table, masks._replace(audit=masks.audit & inside), config.seed)
        if part.reason:
            of = f"predicted as {strata.names[stratum]}" if stratum else "outside the classes that it was enlarged by"
            reason = part.reason if part.size else f"the slice has none of the {inside.sum():,} images {of}"
            return of_rows, dict(num=0, reason=reason)
        # Images that nobody has looked at yet are taken to be skipped at about the same rate.
        share = part.size / max((masks.audit & inside).sum(), 1)
        samples.append(stratified.Sample(masks.classes[part.rows], guesses[part.rows], share * inside.sum()))
    num = sum(len(sample.truth) for sample in samples)
    return stratified.by_class(samples, num_classes), dict(num=num, reason="")


class _History(NamedTuple):
    """The last rounds with a classifier, up to this one: which audit images were correct [rounds m], and the labels."""

    correct: np.ndarray
    num_labels: np.ndarray


def _history(state, predicted, rows) -> _History:
    records = [record for record in state.past if "predicted" in record][1 - budget.ROUNDS :]
    records.append(dict(predicted=predicted, num_labels=int(state.masks.labelled.sum())))
    in_all = set(state.table.id.iloc[rows]).intersection(*(record["predicted"] for record in records))
    labels = state.labels.labels
    correct = [[record["predicted"][image] == labels[image] for image in sorted(in_all)] for record in records]
    num_labels = np.array([record["num_labels"] for record in records])
    return _History(np.array(correct, bool).reshape(len(records), len(in_all)), num_labels)


def _target(target, correct, history, seconds_a_label):
    needed = budget.fewest_correct(len(correct), target) if len(correct) else None
    is_reached = needed is not None and int(correct.sum()) >= needed
    more = None if is_reached else budget.labels_to(target, history.correct, history.num_labels)
    reached = dict(accuracy=target, is_reached=is_reached, fewest_correct=needed)
    return reached | dict(more_labels=more, seconds_a_label=seconds_a_label)
