"""Reads files of labels of many forms, recognised by their content: which image each row names, and what it says."""

import codecs
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from latent_al.runtime.files import unguard
from latent_al.types import BadInput

IMAGES = ("latent_al_id", "id", "file_name", "filename", "file", "image", "path")
"""Columns that may name the image."""
COUNT = "id"
"""The one of these in which Label Studio, and many tables, count rows."""
LABELS = ("label", "choice", "class")
CONTROL = "choice"
"""The name of the control in our labelling configuration."""
GROUND_TRUTH = "ground truth"
"""The annotator of answers that are marked as ground truth, which win."""
FORMS = (
    "a CSV, JSON lines or a JSON list with latent_al_id, id or file_name, and label, choice or class; an export of "
    "Label Studio as JSON, JSON-MIN or CSV; an image of this pool in a folder named after its class"
)


class Said(NamedTuple):
    """The content of one row as it stands in the file: `label` is "" where unanswered, None for a skip.

    lead_time: seconds that the annotator took, as Label Studio measures them; empty where the file has none.
    """

    label: Any
    annotator: str
    time: str
    lead_time: str


class Rows(NamedTuple):
    """The rows of a file: (row, what may name the image, content); `parse` makes `Said` of the content."""

    rows: list[tuple[int, list[Any], Any]]
    parse: Callable[[Any], Said]


class _Cells(NamedTuple):
    by_column: dict[str, str]
    is_wide: bool


def read_rows(path: Path, encoding: str) -> Rows:
    """Returns the rows of a file; `encoding` is that of text that is neither UTF-8 nor UTF-16.

    Raises:
        BadInput: the file has no form that is read, or is broken.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    if start.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise BadInput("is a spreadsheet or an archive; save the table as CSV UTF-8, and put that here.")
    wide = _wide_encoding(start)
    # Not read as a whole: what lies here by mistake may be larger than memory.
    if b"\0" in start and wide is None:
        raise BadInput(
            f"is neither text nor an image of this pool; expected {FORMS}. "
            "An image that was edited or saved again is a different one: put the original there."
        )
    text = _decode(path.read_bytes(), wide, encoding)
    return _from_json(text) if text.lstrip().startswith(("[", "{")) else _from_csv(text)


def _wide_encoding(start):
    """Returns the form of UTF-16 that a file begins with, by its mark or by the zeros of its ASCII letters, or None."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    zeros = [start[first::2].count(0) for first in (0, 1)]
    if max(zeros) > len(start) // 4 and min(zeros) == 0:
        return "utf-16-be" if zeros[0] else "utf-16-le"
    return None


def _decode(content, wide, encoding):
    try:
        return content.decode(wide or "utf-8-sig")
    except UnicodeDecodeError as error:
        reason = error
    if wide is None and encoding != "utf-8":
        try:
            return content.decode(encoding)
        except (UnicodeDecodeError, LookupError) as error:
            reason = error
    raise BadInput(
        f"is not text in UTF-8 or UTF-16 ({reason}); save it as CSV UTF-8, or name its encoding, such as "
        "--config.encoding=cp1252, cp1250, cp1251, gbk or shift_jis."
    )


def _from_csv(text):
    lines = text.splitlines(keepends=True)
    # Lines of a spreadsheet, which may say by which mark cells are separated.
    num_skipped = next((place for place, line in enumerate(lines) if not _is_preamble(line)), 0)
    text = "".join(lines[num_skipped:])
    delimiter = next((mark for mark in ",;\t|" if _is_header(_header(text, mark))), None)
    if delimiter is None:
        start = text.split("\n", 1)[0].strip()[:200]
        raise BadInput(f"its first line is {start!r}; expected {FORMS}.")
    header = _header(text, delimiter)
    label = _only([name for name in header if name in LABELS])
    images = [name for name in IMAGES if name in header]
    for name in (*images, "annotator", "updated_at", "lead_time"):
        _only([name] * max(1, header.count(name)))
    rows = []
    try:
        for row, cells in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1):
            named = dict(zip(header, map(unguard, cells), strict=False))
            # A spreadsheet may leave out empty cells at the end of a row.
            content = _Cells(named, any(cells[len(header) :]))
            texts = {name: named.get(name, "").strip() for name in images}
            rows.append((row + num_skipped, _naming(texts, images), content))
    except csv.Error as error:
        row = len(rows) + 1 + num_skipped
        raise BadInput(f"row {row}: {error}; a quote may be open: close it, or export again.") from error
    return Rows(rows[1:], lambda cells: _of_cells(cells, label))


def _is_preamble(line):
    return not line.strip() or line.strip().casefold().removeprefix("sep=") in (",", ";", "|", "\t", "")


def _header(text, delimiter):
    try:
        first = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [])
    except csv.Error:
        return []
    return [name.strip().casefold() for name in first]


def _is_header(names):
    return not set(IMAGES).isdisjoint(names) and not set(LABELS).isdisjoint(names)


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
    return Said(choice, *(row.get(name, "").strip() for name in ("annotator", "updated_at", "lead_time")))


def _from_json(text):
    try:
        tasks = _load(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"is JSON that is cut off or broken: {error}; export it again.") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise BadInput(f"is JSON, but not a list of tasks; expected {FORMS}.")
    if not tasks or any("data" in task for task in tasks):
        return _from_export(tasks)
    tasks = [{name.strip().casefold(): value for name, value in task.items()} for task in tasks]
    if any(not set(IMAGES).isdisjoint(task) for task in tasks):
        return _from_list(tasks)
    raise BadInput(f"its first task has {_names(tasks[0])}, expected data or latent_al_id; expected {FORMS}.")


def _load(text):
    try:
        tree = json.loads(text)
        # JSON lines with a single line.
        return [tree] if isinstance(tree, dict) and not set(IMAGES).isdisjoint(tree) else tree
    except ValueError:
        # Not by `splitlines`: text in JSON may hold other separators, such as U+2028.
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) < 2 or not all(line.lstrip().startswith("{") for line in lines):
            raise
        return [json.loads(line) for line in lines]


def _from_export(tasks):
    rows = []
    for row, task in enumerate(tasks, 1):
        data = _part(task, "data", dict)
        # A project may name its data as it likes.
        images = _naming(data, IMAGES if any(data.get(name) for name in IMAGES if name != COUNT) else data)
        annotations = _part(task, "annotations", list)
        marked = [part for part in annotations if isinstance(part, dict) and part.get("ground_truth")]
        rows += [(row, images, annotation) for annotation in marked or annotations]
    if not rows:
        raise BadInput(
            f"holds no annotations in its {len(tasks)} tasks, so it may be the file to import; "
            "label in Label Studio, then put its export here."
        )
    return Rows(rows, _of_annotation)


def _of_annotation(annotation):
    if not isinstance(annotation, dict):
        raise BadInput(f"has the annotation {annotation!r}; expected a complete one; export as JSON again.")
    person = GROUND_TRUTH if annotation.get("ground_truth") else _to_text(annotation.get("completed_by"))
    is_skip = annotation.get("was_cancelled")
    label = None if is_skip else _single(_choices(_part(annotation, "result", list)))
    return Said(label, person, _to_text(annotation.get("updated_at")), _to_text(annotation.get("lead_time")))


def _choices(results):
    """Returns what was chosen in our control; other controls, such as a comment, say nothing about the class."""
    described = [result if isinstance(result, dict) else {} for result in results]
    ours = [result for result in described if (result.get("from_name"), result.get("type")) == (CONTROL, "choices")]
    if described and not ours:
        control, kind = described[0].get("from_name"), described[0].get("type")
        raise BadInput(
            f"has a result of control {control!r} of type {kind!r}, and no choice of a class; expected {CONTROL!r} of "
            "type 'choices'; set up the project with our labelling_config.xml."
        )
    return [choice for result in ours for choice in _part(_part(result, "value", dict), "choices", list)]


def _from_list(tasks):
    annotated = [task for task in tasks if task.get("annotation_id") is not None]
    if annotated and not any(CONTROL in task for task in tasks):
        raise BadInput(
            f"has {len(annotated)} annotations, but no {CONTROL!r} in any; the first has {_names(annotated[0])}; "
            f"name the control {CONTROL!r}, as our labelling_config.xml does."
        )
    if not any(name in task for task in tasks for name in LABELS):
        raise BadInput(f"its first task has {_names(tasks[0])}, but no label; expected {FORMS}.")
    rows = [(row, _naming(task, IMAGES), task) for row, task in enumerate(tasks, 1)]
    return Rows(rows, _of_task)


def _of_task(task):
    choice = next((task[name] for name in LABELS if name in task), "")
    if isinstance(choice, dict):
        choice = _single(_part(choice, "choices", list))
    choice = "" if choice is None else choice
    return Said(choice, *(_to_text(task.get(name)) for name in ("annotator", "updated_at", "lead_time")))


def _naming(row, names):
    """Returns what may name the image in these columns; a number that counts rows only where nothing else does."""
    is_counted = str(row.get(COUNT, "")).isdecimal() and any(row.get(name) for name in names if name != COUNT)
    return [row.get(name) for name in names if name != COUNT or not is_counted]


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
    """Returns a time as text, or a person, whom Label Studio gives as a number, as a name or as several things."""
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return "" if value is None else str(value).strip()
