"""The state of a job before a round: the scanned images, their labels, and what has been asked."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from latent_al.data.listing import counted
from latent_al.labelling import budget, ledger, rounds, selection
from latent_al.labelling.answers import Refusal, read_answers
from latent_al.labelling.audit import Strata, read_strata
from latent_al.labelling.classes import ClassNames, read_renames
from latent_al.labelling.classes import rename as rename_classes
from latent_al.labelling.scan import Scan
from latent_al.types import UNLABELLED, BadInput


class State(NamedTuple):
    """The state of a job; the rows of `table`, as in `manifest.csv`, are those of `masks`, and of the latents.

    classes: names; `masks.classes` are their numbers.
    label_rows: [n], the row whose label counts for each image: its own, except for a near-duplicate not asked about.
    past: the content of `round.json` of each round.
    strata: of the audit slice.
    num_answers: images that each annotator has answered: a correction does not ask for a new round.
    seconds_a_label: the pace of the people who label; None where the log does not say.
    """

    table: pd.DataFrame
    labels: ledger.Labels
    masks: selection.Masks
    classes: list[str]
    label_rows: np.ndarray
    past: list[dict[str, Any]]
    strata: Strata
    num_answers: int
    seconds_a_label: float | None

    @property
    def is_waiting(self) -> bool:
        """Returns whether there is nothing to do: no answer since the last round, which left some open or all asked."""
        status = self.masks
        # A call that had enlarged the slice may have been stopped.
        is_enlarged = (status.unasked_audit & (self.strata.of_rows > 0)).any()
        if not self.past or is_enlarged or self.num_answers > self.past[-1]["num_answers"]:
            return False
        asked = {image for record in self.past for image in (*record["queries"], *record["audit"])}
        is_told = status.open | (status.tied & self.table.id.isin(asked).to_numpy())
        return bool(is_told.any() or not (status.candidates | status.unasked_audit | status.tied).any())

    def rows_of(self, ids: list[str]) -> np.ndarray:
        """Returns the rows of images in the table; -1 for an id that it does not have."""
        return pd.Index(self.table.id).get_indexer(ids)


class Taken(NamedTuple):
    """The outcome of reading the label files.

    num_new: answers that say something new.
    changes: a line for each label that another one replaces.
    notes: lines about answers that lose to others, and about whose they are.
    refused: rows and files that could not be used.
    """

    num_new: int
    changes: list[str]
    notes: list[str]
    refused: list[Refusal]


def take_labels(
    workdir: Path,
    scan: Scan,
    *,
    classes: tuple[str, ...],
    rename: Mapping[str, str],
    root_name: str,
    encoding: str,
    seed: int,
) -> tuple[State, Taken]:
    """Reads the answers in `labels/` and `rounds/`, and returns the state of the job with them.

    Args:
        workdir: of the job.
        scan: of the folder.
        classes: the names that labels may have; empty where any may come.
        rename: new names of classes by their present names.
        root_name: of the folder of the images.
        encoding: of label files that are neither UTF-8 nor UTF-16.
        seed: random seed of the audit slice.

    Raises:
        BadInput: a log or a round that cannot be read.
    """
    table = scan.table
    restored = rounds.restore_queries(workdir)
    log = ledger.read_log(workdir)
    # From the log, the names that images had when they were labelled, which no file may have any more.
    named = [scan.duplicates, log.loc[log["id"].isin(table.id), ["id", "file_name"]]]
    names_too = pd.concat([table, *(part.assign(status="present") for part in named)])
    renamed = _rename(workdir, log, classes, rename) if rename else []
    spellings = _class_names(workdir, log, classes)
    answers, refused = read_answers(workdir, names_too, spellings, root_name=root_name, encoding=encoding)
    accepted = ledger.accept(workdir, log, answers, table, spellings)
    refused = [*refused, *accepted.refused]
    ledger.write_refused(workdir, refused)
    labels = ledger.resolve(accepted.log, spellings)
    past = [_respelt(record, spellings) for record in rounds.past_rounds(workdir)]
    names = list(classes) or sorted(set(labels.labels.values()))
    _check_classes(names, labels)
    strata = read_strata(workdir, table)
    audit = strata.in_slice(np.array([selection.uniform(image, seed) for image in table.id]))
    status = _status(table, labels, names, audit, past)
    pace = budget.seconds_a_label(accepted.log)
    num_answers = ledger.num_answered(accepted.log)
    state = State(table, labels, status, names, np.arange(len(table)), past, strata, num_answers, pace)
    return state, Taken(accepted.num_new, renamed + accepted.changes, restored + accepted.notes, refused)


def _class_names(workdir, log, classes):
    renames = read_renames(workdir)
    return ClassNames(classes or [label for label in log["label"] if label], renames, is_fixed=bool(classes))


def _rename(workdir, log, classes, wanted):
    spellings = _class_names(workdir, log, classes)
    # A name that has only lost or tied votes may have no image.
    counts = Counter({spellings.spell(label): 0 for label in log["label"] if label})
    counts.update(ledger.resolve(log, spellings).labels.values())
    return rename_classes(workdir, wanted, counts)


def _respelt(record, spellings):
    """Returns a round's record with the names that classes have now."""
    spelt = dict(classes=list(dict.fromkeys(map(spellings.spell, record["classes"]))))
    if "predicted" in record:
        spelt |= dict(predicted={image: spellings.spell(name) for image, name in record["predicted"].items()})
    return record | spelt


def _check_classes(names, labels):
    counts = Counter(labels.labels.values())
    missing = ", ".join(f"{name} ({counted(counts[name], 'image')})" for name in sorted(counts.keys() - set(names)))
    if missing:
        raise BadInput(
            f"config.classes leaves out classes that have been labelled: {missing}; add them, rename them with "
            "config.rename, or leave classes empty."
        )


def _status(table, labels, names, audit, past):
    asked = {image for record in past for image in (*record["queries"], *record["audit"])}
    numbers = {name: number for number, name in enumerate(names)}
    classes = np.array([numbers.get(labels.labels.get(image), UNLABELLED) for image in table.id])
    tied = table.id.isin(labels.tied).to_numpy()
    skipped = table.id.isin(labels.skipped).to_numpy()
    gone = (table.status != "present").to_numpy()
    is_open = table.id.isin(asked).to_numpy() & (classes == UNLABELLED) & ~(tied | skipped | gone)
    return selection.Masks(classes, audit, is_open, skipped & ~gone, gone, tied & ~gone)
