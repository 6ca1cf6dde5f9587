"""Reads the labels that people have given from files of many forms, recognised by their content."""

import hashlib
import math
import unicodedata
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from latent_al.data.file_names import FileNames
from latent_al.labelling.classes import ClassNames, clean, of_several
from latent_al.labelling.tables import read_rows
from latent_al.types import BadInput

NO_ANSWERS = frozenset({"thumbs.db", "desktop.ini"})
"""Files that Windows leaves in folders, spelt as names are compared."""
TABLES = frozenset({".csv", ".ods", ".xls", ".xlsx"})
"""Suffixes under which programs save `queries.csv`, or a copy of it, next to it."""


class Answer(NamedTuple):
    """The label that one annotator gives one image.

    Attributes:
        id: of the image, as in the manifest.
        label: the class; None where the annotator skipped the image.
        annotator: empty where the file names none.
        time: of the answer, ISO 8601 with microseconds: in UTC where the file names a zone, otherwise as it stands
            there, without a zone; empty where the file has none.
        source: the file, below the workdir.
        row: of a CSV as a spreadsheet numbers it, the header being 1; the place of a task in JSON, from 1; 0 for an
            image, which has no rows.
        file_name: of the image that the file names; empty where it has its id.
        lead_time: seconds that the annotator took; empty where the file has none.
    """

    id: str
    label: str | None
    annotator: str
    time: str
    source: str
    row: int
    file_name: str = ""
    lead_time: str = ""


class Refusal(NamedTuple):
    """A row that was refused, or a whole file where `row` is None: what it holds, what was expected, and the cure."""

    source: str
    row: int | None
    reason: str


class _Pool(NamedTuple):
    """The images that answers may be about, by id and by file name, and the classes."""

    ids: frozenset[str]
    by_name: dict[str, str]
    names: FileNames
    classes: ClassNames


class _Image(NamedTuple):
    """An image by its id, and its file name where that is what names it."""

    id: str
    file_name: str


class _Read(NamedTuple):
    answers: list[Answer]
    refusals: list[Refusal]


def read_answers(
    workdir: Path, table: pd.DataFrame, classes: ClassNames, *, root_name: str = "", encoding: str = "utf-8"
) -> tuple[list[Answer], list[Refusal]]:
    """Reads every file below `labels/`, and every `rounds/*/queries.csv`, in sorted order.

    A refused row does not affect the rest of its file. A label "?" is a skip in every form. Labels that look alike are
    one class; a word for nothing, or a list of classes, is refused. Where one file has two answers for an image and an
    annotator, the newest counts; without times a contradiction is refused.

    Args:
        workdir: of the job.
        table: `id` and `file_name` of every image ever scanned, and `status`: present, changed or removed; further
            names of an image in further rows.
        classes: the names that labels may have, or have had so far; new ones are added.
        root_name: of the folder of the images, which may precede their names.
        encoding: of text that is neither UTF-8 nor UTF-16.
    """
    by_name = _by_name(table)
    pool = _Pool(frozenset(table["id"]), by_name, FileNames(by_name, root_name), classes)
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
            read = _check(read_rows(path, encoding), source, pool)
        except BadInput as error:
            refusals.append(Refusal(source, None, str(error)))
        except OSError as error:
            refusals.append(Refusal(source, None, f"cannot be read ({error.strerror}); fix or remove it."))
        else:
            answers += read.answers
            refusals += read.refusals
    refusals += _beside_queries(workdir)
    of_classes = _without_nested(images)
    in_folders = _settle(of_classes.answers)
    single = _without_lists(answers + in_folders.answers, classes)
    return single.answers, refusals + of_classes.refusals + in_folders.refusals + single.refusals


def to_utc(text: str) -> str:
    """Returns a time in ISO 8601 as the log has it: with microseconds, and in UTC where it names its zone.

    Raises:
        BadInput: not such a time.
    """
    try:
        time = datetime.fromisoformat(text)
        time = time.astimezone(UTC) if time.tzinfo else time
    except (ValueError, OverflowError) as error:
        raise BadInput(f"time {text!r}; expected ISO 8601, as 2026-11-20T11:32:49Z; correct or clear it.") from error
    return time.isoformat(timespec="microseconds")


def _by_name(table):
    # A name that has had two contents means the old one, whose new answers the ledger refuses.
    changed = table["status"] == "changed"
    names = pd.concat([table[changed], table[~changed]]).drop_duplicates("file_name")
    return dict(zip(names["file_name"], names["id"], strict=True))


def _list(workdir):
    paths = [*(workdir / "labels").rglob("*"), *workdir.glob("rounds/*/queries.csv")]
    return sorted(path for path in paths if _is_meant(path.relative_to(workdir)) and not _is_folder(path))


def _beside_queries(workdir):
    """Refuses tables that a spreadsheet, or a program for synchronising folders, has put next to a `queries.csv`."""
    paths = sorted(path.relative_to(workdir) for path in workdir.glob("rounds/*/queries*"))
    paths = [path for path in paths if _is_meant(path) and path.suffix in TABLES and path.name != "queries.csv"]
    why = "is not read, since only queries.csv is read here; put it into labels/ as CSV, or remove it."
    return [Refusal(_escape(path.as_posix()), None, why) for path in paths]


def _is_meant(path):
    is_hidden = any(part.startswith(".") for part in path.parts)
    return not is_hidden and path.suffix != ".partial" and path.name.casefold() not in NO_ANSWERS


def _is_folder(path):
    # A link to a folder is not followed; it is listed, to be refused.
    return path.is_dir() and not path.is_symlink()


def _escape(text):
    """Returns text with bytes that are not UTF-8, and control characters, spelt out: paths may hold any byte."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(repr(letter)[1:-1] if unicodedata.category(letter) == "Cc" else letter for letter in text)


def _hash(path):
    if not path.is_file():
        raise BadInput("is not a file, but perhaps a link to a folder, or a broken link; put the file itself there.")
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _of_image(image, source, pool):
    folder = PurePosixPath(source).parent
    if folder == PurePosixPath("labels") or not clean(folder.name):
        raise BadInput("is an image that is not in a folder named after its class; move it to labels/CLASS/.")
    return Answer(image, pool.classes.read(folder.name), "", "", source, 0)


def _check(file, source, pool):
    """Returns the answers of a file, and refuses rows that name no image or no class, or the whole file."""
    images = [_find(texts, pool) for _, texts, _ in file.rows]
    if images and not any(images):
        reason = (
            f"has labels of other images: none of its {len(images)} rows names an image of this pool; the first names "
            f"{_spell(file.rows[0][1])}, and an image here is {_example(pool)}; move the file to the workdir that it "
            "belongs to, or correct the names."
        )
        return _Read([], [Refusal(source, None, reason)])
    answers = []
    refusals = []
    for image, (row, texts, content) in zip(images, file.rows, strict=True):
        try:
            said = file.parse(content)
            if said.label is not None and clean(said.label) == "":
                continue
            if image is None:
                raise BadInput(
                    f"{_spell(texts)} names no image of this pool, or several; an image here is {_example(pool)}; "
                    "correct it, or remove the row."
                )
            answers.append(_to_answer(image, said, source, row, pool))
        except BadInput as error:
            refusals.append(Refusal(source, row, str(error)))
    settled = _settle(answers)
    return _Read(settled.answers, refusals + settled.refusals)


def _find(texts, pool):
    """Returns the image that a row names by its id or else its file name; None where it names none, or several."""
    texts = [text for text in texts if isinstance(text, str) and text]
    by_id = next((text for text in texts if text in pool.ids), None)
    if by_id is not None:
        return _Image(by_id, "")
    names = [name for name in map(pool.names.find, texts) if name is not None]
    images = {pool.by_name[name] for name in names}
    return _Image(images.pop(), names[0]) if len(images) == 1 else None


def _spell(texts):
    return repr(next((text for text in texts if text not in (None, "")), ""))


def _example(pool):
    return repr(min(pool.by_name, default=""))


def _to_answer(image, said, source, row, pool):
    label = None if said.label is None else pool.classes.read(said.label)
    time = said.time and to_utc(said.time)
    lead_time = _seconds(said.lead_time)
    return Answer(image.id, label, _escape(said.annotator), time, source, row, image.file_name, lead_time)


def _seconds(text):
    """Returns text that gives seconds as it is, and nothing for any other, which does not cost the answer."""
    try:
        return text if 0 <= float(text) < math.inf else ""
    except ValueError:
        return ""


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


def _without_nested(answers):
    """Refuses images of a folder within one that holds images itself: either could be the class."""
    folders = {PurePosixPath(answer.source).parent for answer in answers}
    kept, refusals = [], []
    for answer in answers:
        folder = PurePosixPath(answer.source).parent
        above = next((parent for parent in folder.parents if parent in folders), None)
        if above is None:
            kept.append(answer)
        else:
            why = (
                f"is in a folder inside that of class {above.name}; move it to {above}/, or move {folder.name}/ to "
                "labels/."
            )
            refusals.append(Refusal(answer.source, None, why))
    return _Read(kept, refusals)


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
    reason = f"the same image has several labels, and no times to tell which is the newest: {said}; keep one."
    return [Refusal(answer.source, answer.row, reason) for answer in rivals]
