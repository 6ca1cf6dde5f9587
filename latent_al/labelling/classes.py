"""Names of classes: their normal form, what is not a name, and names that stand for others."""

import csv
import difflib
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from latent_al.data.listing import counted
from latent_al.runtime.files import unguard, write_csv
from latent_al.types import BadInput

SKIPPED = "?"
LONGEST = 100
"""Letters that a name may have."""
NOTHING = frozenset({"n/a", "#n/a", "na", "nan", "nil", "null", "none", "<na>", "(blank)"})
"""Words for no label, as programs and people write them, besides marks without a letter or digit."""
RENAMES = ("name", "now", "time")
"""The columns of `classes.csv`: a name, what it was renamed to, and when, in UTC."""
TWINS = 10
"""The multiple of another class's images that a class has if the other may be a misspelling of it."""


class ClassNames:
    """The names of the classes that may come: those of the config, or those that have come.

    A name that differs in case, width, blanks or invisible characters is the same; the first spelling stays.
    """

    def __init__(self, names: Iterable[str], renames: Mapping[str, str], *, is_fixed: bool):
        self._spellings: dict[str, str] = {}
        self._renames = renames
        self.is_fixed = is_fixed
        for name in names if is_fixed else [*renames.values(), *map(clean, names)]:
            self._spellings.setdefault(fold(name), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._spellings.values())

    def spell(self, name: str) -> str:
        """Returns the name as it is spelt, after all renaming; one that has not come yet is spelt as it is."""
        name = self._renamed(clean(name))
        return self._spellings.setdefault(fold(name), name)

    def read(self, label: str) -> str | None:
        """Returns the class that a label names, or None for a skip.

        Raises:
            BadInput: the label is not a name, or not one of the classes of the config.
        """
        label = clean(label)
        if label == SKIPPED:
            return None
        folded = fold(self._renamed(label))
        if folded in self._spellings:
            return self._spellings[folded]
        if self.is_fixed:
            raise BadInput(self._not_a_class(label))
        _check(label)
        return self.spell(label)

    def _renamed(self, name):
        return self._renames.get(fold(name), name)

    def _not_a_class(self, label):
        nearest = difflib.get_close_matches(fold(label), self._spellings, 1, cutoff=0.5)
        near = f"the nearest is {self._spellings[nearest[0]]!r}; " if nearest else ""
        return (
            f"label {label!r} is not a class; {near}expected one of {', '.join(self._spellings.values())}; correct it, "
            "or add it to the classes."
        )


def clean(label: Any) -> str:
    """Returns a label in Unicode's compatibility form, without invisible characters, and with single blanks.

    Raises:
        BadInput: not text, or control characters or code points without a meaning, which no name holds.
    """
    if not isinstance(label, str):
        raise BadInput(f"has the label {label!r}; expected text; put it in quotes.")
    text = unicodedata.normalize("NFKC", label.strip())
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    bad = [letter for letter in text if _is_no_character(letter)]
    if bad:
        raise BadInput(f"label {label!r} holds a line break or another control character, {bad[0]!r}; remove it.")
    return " ".join(text.split())


def _is_no_character(letter):
    code = ord(letter)
    return unicodedata.category(letter) in ("Cc", "Cs") or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE


def fold(name: str) -> str:
    """Returns a name as it is compared."""
    return unicodedata.normalize("NFKC", clean(name).casefold())


def _check(label):
    if len(label) > LONGEST:
        raise BadInput(f"a label has {len(label)} letters, {label[:20]!r} ...; expected a name of at most {LONGEST}.")
    if fold(label) in NOTHING or not any(letter.isalnum() or _is_symbol(letter) for letter in label):
        raise BadInput(
            f"label {label!r} often means that there is no label; write ? to skip the image, leave the cell "
            "empty, or name it in config.classes if it is a class."
        )


def _is_symbol(letter):
    return unicodedata.category(letter) in ("So", "Sm", "Sc", "Lo")


def of_several(label: str, names: Iterable[str]) -> list[str]:
    """Returns the classes that a label lists if it is a list of them, separated by , ; | or /; otherwise nothing."""
    parts = [part.strip() for part in re.split(r"[,;|/]", label)]
    folded = {fold(name) for name in names}
    return parts if len(parts) > 1 and all(part and fold(part) in folded for part in parts) else []


def warnings(counts: Mapping[str, int]) -> list[str]:
    """Returns lines about names that may be misspellings of others, and about classes of one image."""
    lines = []
    for name, count in counts.items():
        twins = [other for other in counts if counts[other] >= TWINS * count and _are_alike(name, other)]
        if count and twins:
            lines.append(
                f"{name} ({count}) is spelt nearly like {twins[0]} ({counts[twins[0]]}): if it is a slip, add "
                f'--config.rename="{{{name!r}: {twins[0]!r}}}".'
            )
        elif count == 1:
            lines.append(f"{name} has only one image, from which a classifier learns little.")
    return lines


def _are_alike(name, other):
    """Returns whether two names differ by one letter, but not by a digit, as numbered classes do."""
    name, other = fold(name), fold(other)
    if name == other or min(len(name), len(other)) < 3 or abs(len(name) - len(other)) > 1:
        return False
    same = difflib.SequenceMatcher(None, name, other, autojunk=False).get_matching_blocks()
    differ = set(name) ^ set(other)
    is_near = sum(block.size for block in same) >= max(len(name), len(other)) - 1
    return is_near and not any(letter.isdigit() for letter in differ)


def read_renames(workdir: Path) -> dict[str, str]:
    """Reads `classes.csv`: from each name that was renamed, as it is compared, to what it is called now.

    Raises:
        BadInput: the file is not as it was written.
    """
    renames: dict[str, str] = {}
    for name, now, _ in _read(workdir):
        renames = {before: now if fold(after) == fold(name) else after for before, after in renames.items()}
        renames.pop(fold(now), None)
        renames[fold(name)] = now
    return renames


def rename(workdir: Path, wanted: Mapping[str, str], counts: Mapping[str, int]) -> list[str]:
    """Appends to `classes.csv` the renamings that it lacks, and returns a line about each.

    Args:
        workdir: of the job.
        wanted: new names by present ones; the name of another class merges the two.
        counts: images of each class by now; 0 for a name that answers have, but no image.

    Raises:
        BadInput: a name that no answer has, or that is no name; a new name that is itself renamed, now or before: which
            of the two classes its answers mean could not be told.
    """
    renames = read_renames(workdir)
    rows, lines = _read(workdir), []
    spelt = {fold(name): name for name in counts}
    for name, now in wanted.items():
        _check(clean(now))
        if renames.get(fold(name)) == clean(now):
            continue
        if fold(name) not in spelt:
            raise BadInput(f"config.rename names {name!r}; expected one of {', '.join(counts) or 'the classes'}.")
        _check_now(name, now, wanted, renames)
        rows.append([spelt[fold(name)], clean(now), datetime.now(UTC).isoformat(timespec="microseconds")])
        how = "merged into" if fold(now) in spelt and fold(now) != fold(name) else "renamed to"
        lines.append(f"{spelt[fold(name)]} is {how} {clean(now)}: {counted(counts[spelt[fold(name)]], 'image')}.")
    if lines:
        write_csv(workdir / "classes.csv", pd.DataFrame(rows, columns=RENAMES), for_spreadsheets=True)
    return lines


def _check_now(name, now, wanted, renames):
    if fold(now) == fold(name):
        return
    if fold(now) in map(fold, wanted):
        raise BadInput(
            f"config.rename has {now!r} as both an old and a new name; choose another name, or rename in two calls."
        )
    before = renames.get(fold(now))
    if before is not None and fold(before) not in (fold(name), fold(now)):
        raise BadInput(
            f"config.rename renames {name!r} to {now!r}, but {now!r} was renamed to {before!r}, which its answers "
            "still mean; choose another name."
        )


def _read(workdir):
    path = workdir / "classes.csv"
    if not path.exists():
        return []
    try:
        rows = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read ({error}); restore it from a copy.") from error
    if not rows or tuple(rows[0]) != RENAMES or any(len(cells) != len(RENAMES) for cells in rows):
        raise BadInput(
            f"{path} is not as it was written; expected the columns {', '.join(RENAMES)}; restore it from a copy."
        )
    return [[unguard(cell) for cell in cells] for cells in rows[1:]]
