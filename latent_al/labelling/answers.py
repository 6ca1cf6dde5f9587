"""What people have labelled, read from files of many forms, each recognised by its content."""

import codecs
import csv
import difflib
import hashlib
import io
import json
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pandas as pd

from latent_al.runtime.files import unguard
from latent_al.types import BadInput

KEYS = ("latent_al_id", "id", "file_name")
"""Columns that tell the image; the first that a table has. Label Studio has ids of its own, named `id`."""
LABELS = ("label", "choice")
CONTROL = "choice"
"""The name of the control in our labelling configuration."""
SKIPPED = "?"
KNOWN = (
    "a CSV with latent_al_id, id or file_name, and label or choice, separated by , ; | or tab; "
    "an export of Label Studio as JSON, JSON-MIN or CSV; an image of this pool in a folder named for its class"
)


class Answer(NamedTuple):
    """What one annotator said of one image.

    Attributes:
        id: of the image, as in the manifest.
        label: the class; None where the annotator skipped the image.
        annotator: empty where the file names none.
        time: of the answer, ISO 8601 in UTC with microseconds; empty where the file has none.
        source: the file, below the workdir.
        row: of a CSV as a spreadsheet numbers it, the header being 1; the place of a task in JSON, from 1; 0 of an
            image, which has no rows.
        file_name: by which the file told the image; empty where it told its id.
    """

    id: str
    label: str | None
    annotator: str
    time: str
    source: str
    row: int
    file_name: str = ""


class Refusal(NamedTuple):
    """What was not taken: a row, or a whole file where `row` is None; what was found and expected, and the cure."""

    source: str
    row: int | None
    reason: str


class _Known(NamedTuple):
    ids: frozenset[str]
    by_name: dict[str, str]
    classes: dict[str, str]


class _Rows(NamedTuple):
    """(row, id, what it holds) of each; `parse` makes (label, annotator, time) of the last: "" where unanswered."""

    key: str
    rows: list[tuple[int, Any, Any]]
    parse: Callable[[Any], tuple[Any, str, str]]


def read_answers(workdir: Path, table: pd.DataFrame, classes: Sequence[str]) -> tuple[list[Answer], list[Refusal]]:
    """Reads every file below `labels/`, and every `rounds/*/queries.csv`, in sorted order.

    What is refused leaves the rest of its file standing. A label "?" is a skip in each form. Labels lose blanks around
    them and are brought to Unicode's composed form, so that what looks alike is one class. Times without a zone are
    UTC. Where one file answers twice for an image and an annotator, the newest counts; without times a contradiction is
    refused.

    Args:
        table: `id` and `file_name` of every image ever scanned, and `status`: present, changed or removed.
        classes: the labels that may be given; empty where any may.
    """
    known = _Known(frozenset(table["id"]), _by_name(table), {_clean(name): name for name in classes})
    answers, refusals, images = [], [], []
    for path in _list(workdir):
        source = _escape(path.relative_to(workdir).as_posix())
        try:
            image = _hash(path)
            if image in known.ids:
                images.append(_of_image(image, source, known))
                continue
            found, refused = _check(_recognise(path), source, known)
        except BadInput as error:
            refusals.append(Refusal(source, None, str(error)))
        except OSError as error:
            refusals.append(Refusal(source, None, f"cannot be read ({error.strerror}); mend or remove it."))
        else:
            answers += found
            refusals += refused
    found, refused = _settle(images)
    return answers + found, refusals + refused


def to_utc(text: str) -> str:
    """A time in ISO 8601 as the log has it: in UTC, with microseconds; without a zone it is taken as UTC.

    Raises:
        BadInput: no such time.
    """
    try:
        time = datetime.fromisoformat(text)
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"time {text!r}; expected ISO 8601, as 2026-11-20T11:32:49Z; correct or empty it.") from error
    return time.isoformat(timespec="microseconds")


def _by_name(table):
    # A name that has had two contents means the old one: of that the ledger refuses what it has not heard before.
    changed = table["status"] == "changed"
    names = pd.concat([table[changed], table[~changed]]).drop_duplicates("file_name")
    return dict(zip(names["file_name"], names["id"], strict=True))


def _list(workdir):
    found = [*(workdir / "labels").rglob("*"), *workdir.glob("rounds/*/queries.csv")]
    return sorted(path for path in found if _is_meant(path.relative_to(workdir)) and not _is_folder(path))


def _is_meant(path):
    return not any(part.startswith(".") for part in path.parts) and path.suffix != ".partial"


def _is_folder(path):
    # A link to a folder is not followed; it is listed, to be refused.
    return path.is_dir() and not path.is_symlink()


def _escape(text):
    """The text with what UTF-8 or a line of text cannot hold spelled out: paths may hold any byte."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(repr(letter)[1:-1] if unicodedata.category(letter) == "Cc" else letter for letter in text)


def _hash(path):
    if not path.is_file():
        raise BadInput("is not a file, but perhaps a link to a folder or to nothing; put the file itself there.")
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _of_image(image, source, known):
    folder = PurePosixPath(source).parent
    if folder == PurePosixPath("labels") or not _clean(folder.name):
        raise BadInput("is an image outside of a folder named for its class; move it to labels/CLASS/.")
    return Answer(image, _to_class(folder.name, known.classes), "", "", source, 0)


def _recognise(path):
    with path.open("rb") as file:
        start = file.read(4096)
    # Not read as a whole: what lies here by mistake may be larger than memory.
    if b"\0" in start and not start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadInput(
            f"is neither text nor an image of this pool; known: {KNOWN}. "
            "An image that was edited or saved anew is another one: put the original there."
        )
    text = _decode(path.read_bytes())
    return _from_json(text) if text.lstrip().startswith(("[", "{")) else _from_csv(text)


def _decode(content):
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError as error:
            reason = error
    raise BadInput(f"is not text ({reason}); expected UTF-8, UTF-16 or Windows-1252; save it as UTF-8.")


def _from_csv(text):
    delimiter = next((mark for mark in ",;\t|" if _is_header(_header(text, mark))), None)
    if delimiter is None:
        start = text.split("\n", 1)[0].strip()[:200]
        raise BadInput(f"its first line is {start!r}; known: {KNOWN}.")
    header = _header(text, delimiter)
    key = next(name for name in KEYS if name in header)
    label = _only([name for name in header if name in LABELS])
    for name in (key, "annotator", "updated_at"):
        _only([found for found in header if found == name] or [name])
    rows = []
    try:
        for row, cells in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1):
            named = dict(zip(header, map(unguard, cells), strict=False))
            # A spreadsheet may leave out empty cells at the end of a row.
            rows.append((row, named.get(key, "").strip(), (named, any(cells[len(header) :]))))
    except csv.Error as error:
        raise BadInput(f"row {len(rows) + 1}: {error}; a quote may be open: close it, or export again.") from error
    return _Rows(key, rows[1:], lambda row: _of_cells(*row, label))


def _header(text, delimiter):
    try:
        first = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [])
    except csv.Error:
        return []
    return [name.strip() for name in first]


def _is_header(names):
    return not set(KEYS).isdisjoint(names) and not set(LABELS).isdisjoint(names)


def _only(names):
    if len(names) > 1:
        raise BadInput(f"has {len(names)} columns {', '.join(names)}; expected one; remove the other.")
    return names[0]


def _of_cells(cells, is_wide, label):
    if is_wide:
        raise BadInput("has more cells than the header; put quotes around a cell that holds the delimiter.")
    choice = cells.get(label, "")
    if choice.lstrip().startswith('{"choices"'):
        raise BadInput(f"has several labels: {choice}; expected one; keep one.")
    return choice, cells.get("annotator", "").strip(), cells.get("updated_at", "").strip()


def _from_json(text):
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"is JSON that breaks off or is broken: {error}; export it again.") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise BadInput(f"is JSON, but no list of tasks; known: {KNOWN}.")
    if not tasks or any("data" in task for task in tasks):
        return _from_export(tasks)
    if any("latent_al_id" in task for task in tasks):
        return _from_min(tasks)
    raise BadInput(f"its first task has {_names(tasks[0])}, expected data or latent_al_id; known: {KNOWN}.")


def _from_export(tasks):
    rows = [
        (row, _part(task, "data", dict).get("latent_al_id"), annotation)
        for row, task in enumerate(tasks, 1)
        for annotation in _part(task, "annotations", list)
    ]
    if not rows:
        raise BadInput(
            f"holds no annotations in its {len(tasks)} tasks, so it may be the file to import; "
            "label in Label Studio, then put its export here."
        )
    return _Rows("latent_al_id", rows, _of_annotation)


def _of_annotation(annotation):
    if not isinstance(annotation, dict):
        raise BadInput(f"has the annotation {annotation!r}; expected a whole one; export as JSON again.")
    person, time = _to_text(annotation.get("completed_by")), _to_text(annotation.get("updated_at"))
    if annotation.get("was_cancelled"):
        return None, person, time
    chosen = []
    for result in _part(annotation, "result", list):
        found = (result.get("from_name"), result.get("type")) if isinstance(result, dict) else (None, None)
        if found != (CONTROL, "choices"):
            raise BadInput(
                f"has a result of control {found[0]!r} of type {found[1]!r}; expected {CONTROL!r} of type 'choices'; "
                "set up the project with our labelling_config.xml."
            )
        chosen += _part(_part(result, "value", dict), "choices", list)
    return _single(chosen), person, time


def _from_min(tasks):
    annotated = [task for task in tasks if task.get("annotation_id") is not None]
    if annotated and not any(CONTROL in task for task in tasks):
        raise BadInput(
            f"has {len(annotated)} annotations, but no {CONTROL!r} in any; found {_names(annotated[0])}; "
            f"name the control {CONTROL!r}, as our labelling_config.xml does."
        )
    return _Rows("latent_al_id", [(row, task.get("latent_al_id"), task) for row, task in enumerate(tasks, 1)], _of_task)


def _of_task(task):
    choice = task.get(CONTROL, "")
    if isinstance(choice, dict):
        choice = _single(_part(choice, "choices", list))
    return choice, _to_text(task.get("annotator")), _to_text(task.get("updated_at"))


def _part(tree, name, kind):
    """`tree[name]`, or an empty one where that is of another kind."""
    value = tree.get(name)
    return value if isinstance(value, kind) else kind()


def _names(task):
    return ", ".join(map(repr, task))


def _single(choices):
    if len(choices) > 1:
        raise BadInput(f"has {len(choices)} labels: {_names(choices)}; expected one; keep one.")
    return choices[0] if choices else ""


def _to_text(value):
    """A time, or a person, whom Label Studio tells by a number, by a name or by several things."""
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return "" if value is None else str(value).strip()


def _check(found, source, known):
    ids = [known.by_name.get(key) if found.key == "file_name" else key for _, key, _ in found.rows]
    if ids and not any(isinstance(image, str) and image in known.ids for image in ids):
        reason = (
            f"labels of other images: no {found.key} of its {len(ids)} rows is of this pool, the first is "
            f"{found.rows[0][1]!r}; move the file to the workdir that it belongs to."
        )
        return [], [Refusal(source, None, reason)]
    answers, refusals = [], []
    for image, (row, key, held) in zip(ids, found.rows, strict=True):
        try:
            label, annotator, time = found.parse(held)
            if label is not None and _clean(label) == "":
                continue
            if not isinstance(image, str) or image not in known.ids:
                raise BadInput(f"{found.key} {key!r} is not of this pool; correct it, or remove the row.")
            label = None if label is None else _to_class(label, known.classes)
            name = key if found.key == "file_name" else ""
            answers.append(Answer(image, label, _escape(annotator), time and to_utc(time), source, row, name))
        except BadInput as error:
            refusals.append(Refusal(source, row, str(error)))
    kept, contradictions = _settle(answers)
    return kept, refusals + contradictions


def _clean(label):
    if not isinstance(label, str):
        raise BadInput(f"has the label {label!r}; expected text; put it in quotes.")
    return unicodedata.normalize("NFC", label.strip())


def _to_class(label, classes):
    """The class as `classes` spells it, or None of a skip."""
    label = _clean(label)
    if label == SKIPPED:
        return None
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in label):
        raise BadInput(f"label {label!r} holds a line break or another control character; remove it.")
    if classes and label not in classes:
        near = difflib.get_close_matches(label, classes, 1, cutoff=0)[0]
        raise BadInput(
            f"label {label!r} is not a class; the nearest is {near!r}; expected one of {', '.join(classes)}; "
            "correct it, or add it to the classes."
        )
    return classes.get(label, label)


def _settle(answers):
    """(one answer for each image and annotator, what contradicts itself)."""
    groups = {}
    for answer in answers:
        groups.setdefault((answer.id, answer.annotator), []).append(answer)
    kept, refusals = [], []
    for group in groups.values():
        newest = max(group, key=lambda answer: answer.time)
        rivals = group if not all(answer.time for answer in group) else [a for a in group if a.time == newest.time]
        if len({answer.label for answer in rivals}) == 1:
            kept.append(newest)
        else:
            refusals += _contradictions(rivals)
    return kept, refusals


def _contradictions(rivals):
    said = ", ".join(f"{a.label or 'skipped'} ({a.source}{f', row {a.row}' if a.row else ''})" for a in rivals)
    reason = f"the same image has several labels, and no times to tell the newest: {said}; keep one."
    return [Refusal(answer.source, answer.row, reason) for answer in rivals]
