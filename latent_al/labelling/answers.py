"""Reads the labels that people have given from files of many forms, recognised by their content."""

import codecs
import csv
import hashlib
import io
import json
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pandas as pd

from latent_al.labelling.classes import ClassNames, clean, of_several
from latent_al.runtime.files import unguard
from latent_al.types import BadInput

KEYS = ("latent_al_id", "id", "file_name")
"""Columns that name the image; the first that a table has. Label Studio has ids of its own, named `id`."""
LABELS = ("label", "choice")
CONTROL = "choice"
"""The name of the control in our labelling configuration."""
FORMS = (
    "a CSV with latent_al_id, id or file_name, and label or choice, separated by , ; | or tab; "
    "an export of Label Studio as JSON, JSON-MIN or CSV; an image of this pool in a folder named for its class"
)


class Answer(NamedTuple):
    """The label that one annotator gives one image.

    Attributes:
        id: of the image, as in the manifest.
        label: the class; None where the annotator skipped the image.
        annotator: empty where the file names none.
        time: of the answer, ISO 8601 with microseconds: in UTC where the file names a zone, otherwise as it stands
            there, without a zone; empty where the file has none.
        source: the file, below the workdir.
        row: of a CSV as a spreadsheet numbers it, the header being 1; the place of a task in JSON, from 1; 0 of an
            image, which has no rows.
        file_name: by which the file names the image; empty where it has its id.
    """

    id: str
    label: str | None
    annotator: str
    time: str
    source: str
    row: int
    file_name: str = ""


class Refusal(NamedTuple):
    """A row that was refused, or a whole file where `row` is None: what it holds, what was expected, and the cure."""

    source: str
    row: int | None
    reason: str


class _Pool(NamedTuple):
    """The images that answers may be of, by id and by file name, and the classes."""

    ids: frozenset[str]
    by_name: dict[str, str]
    classes: ClassNames


class _Said(NamedTuple):
    """The content of one row as it stands in the file: `label` is "" where unanswered, None of a skip."""

    label: Any
    annotator: str
    time: str


class _Rows(NamedTuple):
    """The rows of a file: (row, image, content); `parse` makes `_Said` of the content.

    The image is an id, or a name where `key` is `file_name`.
    """

    key: str
    rows: list[tuple[int, Any, Any]]
    parse: Callable[[Any], _Said]


class _Cells(NamedTuple):
    by_column: dict[str, str]
    is_wide: bool


class _Read(NamedTuple):
    answers: list[Answer]
    refusals: list[Refusal]


def read_answers(workdir: Path, table: pd.DataFrame, classes: ClassNames) -> tuple[list[Answer], list[Refusal]]:
    """Reads every file below `labels/`, and every `rounds/*/queries.csv`, in sorted order.

    A refused row leaves the rest of its file standing. A label "?" is a skip in each form. What looks alike is
    one class; what is a word for nothing, or a list of classes, is refused. Where one file answers twice for an image
    and an annotator, the newest counts; without times a contradiction is refused.

    Args:
        workdir: of the job.
        table: `id` and `file_name` of every image ever scanned, and `status`: present, changed or removed.
        classes: the names that labels may have, or have had so far; new ones are added.
    """
    pool = _Pool(frozenset(table["id"]), _by_name(table), classes)
    answers = []
    refusals = []
    images = []
    for path in _list(workdir):
        source = _escape(path.relative_to(workdir).as_posix())
        try:
            image = _hash(path)
            if image in pool.ids:
                images.append(_of_image(image, source, pool))
                continue
            read = _check(_recognise(path), source, pool)
        except BadInput as error:
            refusals.append(Refusal(source, None, str(error)))
        except OSError as error:
            refusals.append(Refusal(source, None, f"cannot be read ({error.strerror}); mend or remove it."))
        else:
            answers += read.answers
            refusals += read.refusals
    in_folders = _settle(images)
    single = _without_lists(answers + in_folders.answers, classes)
    return single.answers, refusals + in_folders.refusals + single.refusals


def to_utc(text: str) -> str:
    """Returns a time in ISO 8601 as the log has it: with microseconds, and in UTC where it names its zone.

    Raises:
        BadInput: no such time.
    """
    try:
        time = datetime.fromisoformat(text)
        time = time.astimezone(UTC) if time.tzinfo else time
    except (ValueError, OverflowError) as error:
        raise BadInput(f"time {text!r}; expected ISO 8601, as 2026-11-20T11:32:49Z; correct or empty it.") from error
    return time.isoformat(timespec="microseconds")


def _by_name(table):
    # A name that has had two contents means the old one, whose new answers the ledger refuses.
    changed = table["status"] == "changed"
    names = pd.concat([table[changed], table[~changed]]).drop_duplicates("file_name")
    return dict(zip(names["file_name"], names["id"], strict=True))


def _list(workdir):
    paths = [*(workdir / "labels").rglob("*"), *workdir.glob("rounds/*/queries.csv")]
    return sorted(path for path in paths if _is_meant(path.relative_to(workdir)) and not _is_folder(path))


def _is_meant(path):
    return not any(part.startswith(".") for part in path.parts) and path.suffix != ".partial"


def _is_folder(path):
    # A link to a folder is not followed; it is listed, to be refused.
    return path.is_dir() and not path.is_symlink()


def _escape(text):
    """Returns text in which bytes that are no UTF-8, and control characters, are spelt out: paths may hold any byte."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(repr(letter)[1:-1] if unicodedata.category(letter) == "Cc" else letter for letter in text)


def _hash(path):
    if not path.is_file():
        raise BadInput("is not a file, but perhaps a link to a folder or to nothing; put the file itself there.")
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _of_image(image, source, pool):
    folder = PurePosixPath(source).parent
    if folder == PurePosixPath("labels") or not clean(folder.name):
        raise BadInput("is an image outside of a folder named for its class; move it to labels/CLASS/.")
    return Answer(image, pool.classes.read(folder.name), "", "", source, 0)


def _recognise(path):
    with path.open("rb") as file:
        start = file.read(4096)
    # Not read as a whole: what lies here by mistake may be larger than memory.
    if b"\0" in start and not start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadInput(
            f"is neither text nor an image of this pool; expected {FORMS}. "
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
        raise BadInput(f"its first line is {start!r}; expected {FORMS}.")
    header = _header(text, delimiter)
    key = next(name for name in KEYS if name in header)
    label = _only([name for name in header if name in LABELS])
    for name in (key, "annotator", "updated_at"):
        _only([name] * max(1, header.count(name)))
    rows = []
    try:
        for row, cells in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1):
            named = dict(zip(header, map(unguard, cells), strict=False))
            # A spreadsheet may leave out empty cells at the end of a row.
            rows.append((row, named.get(key, "").strip(), _Cells(named, any(cells[len(header) :]))))
    except csv.Error as error:
        raise BadInput(f"row {len(rows) + 1}: {error}; a quote may be open: close it, or export again.") from error
    return _Rows(key, rows[1:], lambda cells: _of_cells(cells, label))


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


def _of_cells(cells, label):
    if cells.is_wide:
        raise BadInput("has more cells than the header; put quotes around a cell that holds the delimiter.")
    row = cells.by_column
    choice = row.get(label, "")
    if choice.lstrip().startswith('{"choices"'):
        raise BadInput(f"has several labels: {choice}; expected one; keep one.")
    return _Said(choice, row.get("annotator", "").strip(), row.get("updated_at", "").strip())


def _from_json(text):
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"is JSON that breaks off or is broken: {error}; export it again.") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise BadInput(f"is JSON, but no list of tasks; expected {FORMS}.")
    if not tasks or any("data" in task for task in tasks):
        return _from_export(tasks)
    if any("latent_al_id" in task for task in tasks):
        return _from_min(tasks)
    raise BadInput(f"its first task has {_names(tasks[0])}, expected data or latent_al_id; expected {FORMS}.")


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
    person = _to_text(annotation.get("completed_by"))
    time = _to_text(annotation.get("updated_at"))
    if annotation.get("was_cancelled"):
        return _Said(None, person, time)
    choices = [choice for result in _part(annotation, "result", list) for choice in _choices(result)]
    return _Said(_single(choices), person, time)


def _choices(result):
    control = result.get("from_name") if isinstance(result, dict) else None
    kind = result.get("type") if isinstance(result, dict) else None
    if control != CONTROL or kind != "choices":
        raise BadInput(
            f"has a result of control {control!r} of type {kind!r}; expected {CONTROL!r} of type 'choices'; "
            "set up the project with our labelling_config.xml."
        )
    return _part(_part(result, "value", dict), "choices", list)


def _from_min(tasks):
    annotated = [task for task in tasks if task.get("annotation_id") is not None]
    if annotated and not any(CONTROL in task for task in tasks):
        raise BadInput(
            f"has {len(annotated)} annotations, but no {CONTROL!r} in any; the first has {_names(annotated[0])}; "
            f"name the control {CONTROL!r}, as our labelling_config.xml does."
        )
    return _Rows("latent_al_id", [(row, task.get("latent_al_id"), task) for row, task in enumerate(tasks, 1)], _of_task)


def _of_task(task):
    choice = task.get(CONTROL, "")
    if isinstance(choice, dict):
        choice = _single(_part(choice, "choices", list))
    return _Said(choice, _to_text(task.get("annotator")), _to_text(task.get("updated_at")))


def _part(tree, name, kind):
    """Returns `tree[name]`, or an empty `kind` where that is of another kind."""
    value = tree.get(name)
    return value if isinstance(value, kind) else kind()


def _names(task):
    return ", ".join(map(repr, task))


def _single(choices):
    if len(choices) > 1:
        raise BadInput(f"has {len(choices)} labels: {_names(choices)}; expected one; keep one.")
    return choices[0] if choices else ""


def _to_text(value):
    """Returns a time as text, or a person, whom Label Studio tells by a number, by a name or by several things."""
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return "" if value is None else str(value).strip()


def _check(file, source, pool):
    """Returns the answers of a file, and refuses its rows that are of no image or no class, or all of it."""
    ids = [pool.by_name.get(key) if file.key == "file_name" else key for _, key, _ in file.rows]
    if ids and not any(isinstance(image, str) and image in pool.ids for image in ids):
        reason = (
            f"labels of other images: no {file.key} of its {len(ids)} rows is of this pool, the first is "
            f"{file.rows[0][1]!r}; move the file to the workdir that it belongs to."
        )
        return _Read([], [Refusal(source, None, reason)])
    answers = []
    refusals = []
    for image, (row, key, content) in zip(ids, file.rows, strict=True):
        try:
            said = file.parse(content)
            if said.label is not None and clean(said.label) == "":
                continue
            if not isinstance(image, str) or image not in pool.ids:
                raise BadInput(f"{file.key} {key!r} is not of this pool; correct it, or remove the row.")
            answers.append(_to_answer(image, said, source, row, key if file.key == "file_name" else "", pool))
        except BadInput as error:
            refusals.append(Refusal(source, row, str(error)))
    settled = _settle(answers)
    return _Read(settled.answers, refusals + settled.refusals)


def _to_answer(image, said, source, row, file_name, pool):
    label = None if said.label is None else pool.classes.read(said.label)
    return Answer(image, label, _escape(said.annotator), said.time and to_utc(said.time), source, row, file_name)


def _without_lists(answers, classes):
    """Returns the answers whose label is one class, and refuses those that list several."""
    single = _Read([], [])
    for answer in answers:
        several = of_several(answer.label or "", classes)
        if several:
            reason = f"label {answer.label!r} lists {len(several)} classes; expected one; keep one."
            single.refusals.append(Refusal(answer.source, answer.row, reason))
        else:
            single.answers.append(answer)
    return single


def _settle(answers):
    """Returns one answer for each image and annotator, and refuses what contradicts itself."""
    groups = {}
    for answer in answers:
        groups.setdefault((answer.id, answer.annotator), []).append(answer)
    kept = []
    refusals = []
    for group in groups.values():
        newest = max(group, key=lambda answer: answer.time)
        rivals = group if not all(answer.time for answer in group) else [a for a in group if a.time == newest.time]
        if len({answer.label for answer in rivals}) == 1:
            kept.append(newest)
        else:
            refusals += _contradictions(rivals)
    return _Read(kept, refusals)


def _contradictions(rivals):
    said = ", ".join(f"{a.label or 'skipped'} ({a.source}{f', row {a.row}' if a.row else ''})" for a in rivals)
    reason = f"the same image has several labels, and no times to tell the newest: {said}; keep one."
    return [Refusal(answer.source, answer.row, reason) for answer in rivals]
