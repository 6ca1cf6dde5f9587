"""Keeps the append-only log of the answers, and derives the labels from it."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from latent_al.labelling.answers import Answer, Refusal, to_utc
from latent_al.runtime.files import unguard, write_csv
from latent_al.types import BadInput

LOG = ("id", "file_name", "label", "annotator", "time", "source", "row", "was")
"""The columns of `labels.csv`, all text; `label` is empty of a skip, `was` is the label that the answer replaces."""

_CURE = "the log was changed by another program: put back a copy of it; it is left as it is, and nothing was added."


class Accepted(NamedTuple):
    """The outcome of one reading of the label files.

    Attributes:
        log: every answer so far, in the order of reading.
        num_new: how many answers this reading added that say something new.
        changes: for each label that another one replaces, a line for a person.
        refused: new answers that could not be taken.
    """

    log: pd.DataFrame
    num_new: int
    changes: list[str]
    refused: list[Refusal]


class _Newest(NamedTuple):
    """The newest answer of one annotator about one image."""

    time: str
    label: str | None


class Labels(NamedTuple):
    """The labels that the log amounts to, by image id, sorted.

    Attributes:
        labels: the class that most annotators gave.
        skipped: images that annotators have only skipped.
        tied: images with as many votes for another class, with the votes: "cat 1, dog 1".
    """

    labels: dict[str, str]
    skipped: set[str]
    tied: dict[str, str]


def accept(workdir: Path, answers: Sequence[Answer], table: pd.DataFrame) -> Accepted:
    """Appends the new answers to `labels.csv`, in one write that succeeds as a whole or changes nothing.

    An answer with a time is new where the log has none of the same image, annotator, time and label, whatever its file;
    one without where the same source last said otherwise of that image by that annotator. All class folders are one
    source. So no file counts twice, and no old one overrules a newer. Where a file gives no time, that of this reading
    is logged.

    Args:
        workdir: of the job.
        answers: of `read_answers`, with the same `table`.
        table: `id`, `file_name` and `status` of every image ever scanned.

    Raises:
        BadInput: `labels.csv` is not as it was written; it is left as it is.
        OSError: the log cannot be written; it is as before.
    """
    path = workdir / "labels.csv"
    log = _read_log(path)
    num_before = num_said(log)
    fresh, refused = _split(_new(log, _bound(log, answers)), table)
    # A carriage return would make `write_csv` quote the earlier rows, which are to stay as they are.
    names = table["file_name"].str.replace("\r", "\\r")
    rows, changes = _to_rows(log, fresh, dict(zip(table["id"], names, strict=True)))
    if rows:
        log = pd.concat([log, pd.DataFrame(rows, columns=LOG)], ignore_index=True)
        write_csv(path, log)
    return Accepted(log, num_said(log) - num_before, changes, refused)


def num_said(log: pd.DataFrame) -> int:
    """Counts the answers of the log that differ from the newest before them by that annotator, about that image."""
    newest = {}
    num = 0
    for image, annotator, time, label in log[["id", "annotator", "time", "label"]].itertuples(index=False):
        before = newest.get((image, annotator), _Newest("", None))
        num += label != before.label
        if time > before.time:
            newest[image, annotator] = _Newest(time, label)
    return num


def write_refused(workdir: Path, refusals: Sequence[Refusal]) -> None:
    """Writes `refused.csv`, the present refusals: `source`, `row`, empty of a whole file, and `reason`."""
    table = pd.DataFrame(refusals, columns=Refusal._fields)
    write_csv(workdir / "refused.csv", table.astype({"row": "Int64"}))


def resolve(log: pd.DataFrame) -> Labels:
    """Returns the label of each image: that of most annotators, with the newest answer of each.

    The newest is the latest by time, then by place in the log. Skips do not vote.
    """
    newest = log.sort_values("time", kind="stable").drop_duplicates(["id", "annotator"], keep="last")
    votes = {image: Counter() for image in sorted(newest["id"])}
    for image, label in zip(newest["id"], newest["label"], strict=True):
        if label:
            votes[image][label] += 1
    tops = {image: [label for label in count if count[label] == max(count.values())] for image, count in votes.items()}
    return Labels(
        labels={image: top[0] for image, top in tops.items() if len(top) == 1},
        skipped={image for image, top in tops.items() if not top},
        tied={image: _spell(votes[image]) for image, top in tops.items() if len(top) > 1},
    )


def _spell(count):
    return ", ".join(f"{label} {num}" for label, num in sorted(count.items(), key=lambda vote: (-vote[1], vote[0])))


def _read_log(path):
    # Not by `read_csv`, which fills up a row that was cut off.
    if not path.exists():
        return pd.DataFrame(columns=LOG, dtype=str)
    try:
        text = path.read_bytes().decode()
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read ({error}); {_CURE}") from error
    header = ",".join(next(iter(rows), []))
    if header != ",".join(LOG):
        raise BadInput(f"{path} row 1: found {header!r}, expected {','.join(LOG)}; {_CURE}")
    for row, cells in enumerate(rows[1:], 2):
        _check_row(path, row, cells)
    if not text.endswith("\n"):
        raise BadInput(f"{path} row {len(rows)}: its end is cut off; {_CURE}")
    return pd.DataFrame([[unguard(cell) for cell in cells] for cells in rows[1:]], columns=LOG, dtype=str)


def _check_row(path, row, cells):
    if len(cells) != len(LOG):
        raise BadInput(f"{path} row {row}: found {len(cells)} cells, expected {len(LOG)}; {_CURE}")
    time = cells[LOG.index("time")]
    try:
        is_ours = to_utc(time) == time
    except BadInput:
        is_ours = False
    if not is_ours:
        raise BadInput(f"{path} row {row}: found the time {time!r}, expected one in UTC with microseconds; {_CURE}")


def _bound(log, answers):
    """Yields the answers; a file name means the image that it meant when the file of answers was first read."""
    meant = dict(zip(zip(log["source"], log["file_name"], strict=True), log["id"], strict=True))
    for answer in answers:
        name = answer.file_name.replace("\r", "\\r")
        yield answer._replace(id=meant.get((answer.source, name), answer.id)) if name else answer


def _new(log, answers):
    """Yields the answers that the log does not have yet."""
    keys = zip(map(_speaker, log["source"], log["row"]), log["id"], log["annotator"], strict=True)
    last = dict(zip(keys, log["label"], strict=True))
    timed = set(zip(log["id"], log["annotator"], log["time"], log["label"], strict=True))
    for answer in answers:
        said = answer.label or ""
        if answer.time:
            # A tool that exports under a new name each time says the same again.
            is_new = (answer.id, answer.annotator, answer.time, said) not in timed
        else:
            is_new = last.get((_speaker(answer.source, str(answer.row)), answer.id, answer.annotator)) != said
        if is_new:
            yield answer


def _speaker(source, row):
    # An image that is moved from folder to folder, and back, says something new each time.
    return "class folders" if row == "0" else source


def _split(answers, table):
    """Returns the answers that may be logged, and refusals of those about a file that now has other content."""
    changed = table[table["status"] == "changed"]
    names = dict(zip(changed["id"], changed["file_name"], strict=True))
    fresh = []
    refused = []
    for answer in answers:
        if answer.id not in names:
            fresh.append(answer)
            continue
        reason = (
            f"{names[answer.id]} has other content than when it was asked for, so that its label may be of either; "
            "expected an answer to the image as it is: label it again by its new id."
        )
        refused.append(Refusal(answer.source, answer.row, reason))
    return fresh, refused


def _to_rows(log, answers, names):
    """Returns the rows to append, and a line for each label that another one replaces."""
    newest = {}
    for image, annotator, time, label in log[["id", "annotator", "time", "label"]].itertuples(index=False):
        before = newest.get((image, annotator), _Newest("", ""))
        if time >= before.time:
            newest[image, annotator] = _Newest(time, label)
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    rows = []
    changes = []
    for answer in answers:
        name = names[answer.id]
        said = _Newest(answer.time or now, answer.label or "")
        before = newest.get((answer.id, answer.annotator), _Newest("", ""))
        is_newer = said.time >= before.time
        was = before.label if is_newer and before.label != said.label else ""
        if was:
            row = f", row {answer.row}" if answer.row else ""
            changes.append(f"{name}: {was} -> {answer.label or 'skipped'} ({answer.source}{row})")
        if is_newer:
            newest[answer.id, answer.annotator] = said
        rows.append((answer.id, name, said.label, answer.annotator, said.time, answer.source, str(answer.row), was))
    return rows, changes
