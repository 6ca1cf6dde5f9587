"""Keeps the append-only log of the answers, and derives the labels from it."""

import csv
import io
import unicodedata
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from latent_al.labelling.answers import Answer, Refusal, to_utc
from latent_al.labelling.classes import ClassNames
from latent_al.labelling.tables import GROUND_TRUTH
from latent_al.runtime.files import unguard, write_csv
from latent_al.types import BadInput

LOG = ("id", "file_name", "label", "annotator", "time", "source", "row", "was", "stated", "lead_time")
"""The columns of `labels.csv`, all text; `label` is empty for a skip, `was` is the label that the answer replaces.

`time` orders the answers; `stated` is the time in the file, empty where it has none, as is `lead_time`, the seconds
that the answer took.
"""
OLD_LOGS = (LOG[:-2], LOG[:-1])
"""The columns of logs by earlier versions: without `stated`, for which `time` stands, and without `lead_time`."""

_CURE = "the log was changed by another program: restore it from a copy; it is left as it is, and nothing was added."


class Accepted(NamedTuple):
    """The outcome of one reading of the label files.

    Attributes:
        log: every answer so far, in the order of reading.
        num_new: number of answers that this reading added and that say something new.
        changes: for each label that another one replaces, a line for a person.
        notes: lines for a person about answers that lose to others, and about whose they are.
        refused: new answers that could not be taken.
    """

    log: pd.DataFrame
    num_new: int
    changes: list[str]
    notes: list[str]
    refused: list[Refusal]


class _Newest(NamedTuple):
    """The newest answer of one annotator about one image."""

    time: str
    label: str | None


class _Rows(NamedTuple):
    """Rows to append to the log, and lines for a person."""

    rows: list[tuple[str, ...]]
    num_new: int
    changes: list[str]
    notes: list[str]


class Labels(NamedTuple):
    """The labels that the log amounts to, by image id, sorted.

    Attributes:
        labels: the class that most annotators gave.
        skipped: images that annotators have only skipped.
        tied: images for which another class has as many votes, with the votes: "cat 1, dog 1".
    """

    labels: dict[str, str]
    skipped: set[str]
    tied: dict[str, str]


def accept(
    workdir: Path, log: pd.DataFrame, answers: Sequence[Answer], table: pd.DataFrame, classes: ClassNames
) -> Accepted:
    """Appends the new answers to `labels.csv`, in one write that succeeds as a whole or changes nothing.

    An answer with a time is new if the log has none with the same image, annotator, time and label, from whatever file;
    one without a time is new if the same source last said otherwise about that image by that annotator. All class
    folders are one source. So no file counts twice, and no old one overrules a newer one.

    An answer is placed by its time if that names its zone and is not ahead of this computer's clock. Otherwise it comes
    after all that the log holds, since it is newly read.

    Args:
        workdir: of the job.
        log: of `read_log`.
        answers: of `read_answers`, with the same `table` and `classes`.
        table: `id`, `file_name` and `status` of every image ever scanned.
        classes: spell the labels of the log as they are spelt now.

    Raises:
        OSError: the log cannot be written; it is as before.
    """
    spelt = _spelt(log, classes)
    fresh, refused = _split(_new(spelt, _by_people(log, _bound(log, answers))), table)
    # A carriage return would make `write_csv` quote the earlier rows, which are to stay as they are.
    names = dict(zip(table["id"], table["file_name"].str.replace("\r", "\\r"), strict=True))
    # A log that was put into another workdir may have images that are not of its pool.
    names = dict(zip(log["id"], log["file_name"], strict=True)) | names
    to_person = _people([*log["annotator"], *(answer.annotator for answer in fresh)])
    added = _to_rows(spelt, fresh, names, to_person)
    notes = [*added.notes, *_about_names(log, fresh), *_about_truth(fresh)]
    if added.rows:
        log = pd.concat([log, pd.DataFrame(added.rows, columns=LOG)], ignore_index=True)
        write_csv(workdir / "labels.csv", log, for_spreadsheets=True)
    return Accepted(log, added.num_new, added.changes, notes, refused)


def num_answered(log: pd.DataFrame) -> int:
    """Counts the images that each annotator has answered, which no correction changes."""
    return len(log["id"].str.cat(log["annotator"].map(_people(log["annotator"])), sep="\n").unique())


def write_refused(workdir: Path, refusals: Sequence[Refusal]) -> None:
    """Writes `refused.csv`, the present refusals: `source`, `row`, empty for a whole file, and `reason`."""
    table = pd.DataFrame(refusals, columns=Refusal._fields)
    write_csv(workdir / "refused.csv", table.astype({"row": "Int64"}), for_spreadsheets=True)


def resolve(log: pd.DataFrame, classes: ClassNames) -> Labels:
    """Returns the label of each image: that of most annotators, with the newest answer of each.

    The newest is the latest by time, then by place in the log. Skips do not vote. Answers without a name count as those
    of the named annotator, as long as there is only one. What is marked as ground truth wins.
    """
    log = _spelt(log, classes).assign(annotator=log["annotator"].map(_people(log["annotator"])))
    newest = log.sort_values("time", kind="stable").drop_duplicates(["id", "annotator"], keep="last")
    is_truth = (newest["annotator"] == GROUND_TRUTH) & (newest["label"] != "")
    newest = newest[is_truth | ~newest["id"].isin(newest["id"][is_truth])]
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


def _spelt(log, classes):
    return log.assign(label=[classes.spell(label) if label else "" for label in log["label"]])


def read_log(workdir: Path) -> pd.DataFrame:
    """Reads `labels.csv`: every answer so far, in the order of reading.

    Raises:
        BadInput: it is not as it was written; it is left as it is.
    """
    path = workdir / "labels.csv"
    # Not with `read_csv`, which fills up a row that was cut off.
    if not path.exists():
        return pd.DataFrame(columns=LOG, dtype=str)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read ({error}); {_CURE}") from error
    header = ",".join(next(iter(rows), []))
    if header in map(",".join, OLD_LOGS):
        rows = [_completed(cells) if len(cells) == header.count(",") + 1 else cells for cells in rows]
    elif header != ",".join(LOG):
        raise BadInput(f"{path} row 1: found {header!r}, expected {','.join(LOG)}; {_CURE}")
    for row, cells in enumerate(rows[1:], 2):
        _check_row(path, row, cells)
    if not text.endswith("\n"):
        raise BadInput(f"{path} row {len(rows)}: its end is cut off; {_CURE}")
    return pd.DataFrame([[unguard(cell) for cell in cells] for cells in rows[1:]], columns=LOG, dtype=str)


def _completed(cells):
    """Returns a row of an earlier version's log with the cells that it lacks."""
    stated = cells[LOG.index("time")] if len(cells) == len(OLD_LOGS[0]) else cells[LOG.index("stated")]
    return [*cells[: len(OLD_LOGS[0])], stated, ""]


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


def _by_people(log, answers):
    """Yields the answers with each annotator spelt as at first, so that nobody votes twice by another spelling."""
    exact, spellings = {*log["annotator"]}, {_fold(GROUND_TRUTH): GROUND_TRUTH}
    for name in log["annotator"]:
        spellings.setdefault(_fold(name), name)
    for answer in answers:
        name = answer.annotator
        yield answer if name in exact else answer._replace(annotator=spellings.setdefault(_fold(name), name))


def _fold(annotator):
    return " ".join(unicodedata.normalize("NFKC", annotator.casefold()).split())


def _people(annotators):
    """Returns the person whom each name stands for: an empty name for the named annotator, if there is only one."""
    people = {name: name for name in annotators}
    named = people.keys() - {"", GROUND_TRUTH}
    return people | {"": next(iter(named)) if len(named) == 1 else ""}


def _about_truth(fresh):
    num = sum(answer.annotator == GROUND_TRUTH for answer in fresh)
    return [f"{num} new labels are marked as ground truth, and win over all others."] if num else []


def _about_names(log, fresh):
    """Returns a note where answers without a name no longer belong to the only annotator who is named."""
    before = {*log["annotator"]} - {GROUND_TRUTH}
    added = {answer.annotator for answer in fresh} - {GROUND_TRUTH}
    named = sorted((before | added) - {""})
    if "" not in before | added or len(named) < 2 or (len(before - {""}) > 1 and "" not in added):
        return []
    return [
        f"answers without a name now count as those of one more annotator, besides {', '.join(named)}: write your name "
        "into a column annotator to say whose they are."
    ]


def _new(log, answers):
    """Yields the answers that the log does not have yet."""
    keys = zip(map(_speaker, log["source"], log["row"]), log["id"], log["annotator"], strict=True)
    last = dict(zip(keys, log["label"], strict=True))
    # Earlier logs have a zone at every time.
    stated = [*log["stated"], *log["stated"].str.removesuffix("+00:00")]
    timed = set(zip([*log["id"]] * 2, [*log["annotator"]] * 2, stated, [*log["label"]] * 2, strict=True))
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
            f"{names[answer.id]} has changed since it was asked for, so that its label may belong to either version; "
            "expected an answer for the image as it is now: label it again by its new id."
        )
        refused.append(Refusal(answer.source, answer.row, reason))
    return fresh, refused


def _to_rows(log, answers, names, to_person):
    """Returns the rows to append, and lines about labels that others replace, and about answers that lose to others."""
    newest = {}
    for image, annotator, time, label in log[["id", "annotator", "time", "label"]].itertuples(index=False):
        before = newest.get((image, to_person[annotator]), _Newest("", ""))
        if time >= before.time:
            newest[image, to_person[annotator]] = _Newest(time, label)
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    added = _Rows([], 0, [], _about_clocks(answers, now))
    num_new = 0
    for answer in answers:
        name, key = names[answer.id], (answer.id, to_person[answer.annotator])
        before = newest.get(key, _Newest("", None))
        said = _Newest(_place(answer.time, before.time, now), answer.label or "")
        is_newer = said.time >= before.time
        num_new += said.label != before.label
        was = before.label if is_newer and before.label != said.label else ""
        where = f"({answer.source}{f', row {answer.row}' if answer.row else ''})"
        if was:
            added.changes.append(f"{name}: {was} -> {answer.label or 'skipped'} {where}")
        if is_newer:
            newest[key] = said
        elif said.label != before.label:
            added.notes.append(
                f"{name}: {answer.label or 'skipped'} {where} from {said.time} is older than "
                f"{before.label or 'skipped'} from {before.time}, which stays."
            )
        cells = (said.label, answer.annotator, said.time, answer.source, str(answer.row), was or "", answer.time)
        # Not the image's present name: `_bound` has to find what the file says.
        named = answer.file_name.replace("\r", "\\r") or name
        added.rows.append((answer.id, named, *cells, answer.lead_time))
    return added._replace(num_new=num_new)


def _about_clocks(answers, now):
    ahead = [answer for answer in answers if _is_timed(answer.time) and answer.time > now]
    if not ahead:
        return []
    return [
        f"{len(ahead)} answers have times ahead of this computer's clock, the first {ahead[0].time} in "
        f"{ahead[0].source}: they count as given now; correct the clock that is wrong."
    ]


def _is_timed(stated):
    return stated.endswith("+00:00")


def _place(stated, newest, now):
    """Returns the time that orders an answer, from the one that it states and the newest of its annotator and image."""
    is_trusted = _is_timed(stated) and stated <= now
    place = stated if is_trusted else now
    # The clock may have been ahead when the newest was read.
    if newest and place <= newest and (not is_trusted or newest > now):
        return (datetime.fromisoformat(newest) + timedelta(microseconds=1)).isoformat(timespec="microseconds")
    return place
