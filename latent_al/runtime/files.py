"""Writes files whole or not at all, and tables that a spreadsheet can open safely."""

import contextlib
import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from latent_al.types import BadInput

_START, _FORMULA = "(^|[;,|\t\r\n])", "(?=[-=+@\t\r'])"
"""The places where a spreadsheet may begin a cell, whatever its separator, and the beginnings of cells that it may take
for a formula, or that already have the apostrophe which guards one.
"""


def expand(path: str | Path, setting: str) -> Path:
    """Returns a path of a config with its `~` and its variables, such as `$HOME`, expanded.

    Raises:
        BadInput: it is empty, or names a variable that is not set; `setting` is the key to change.
    """
    text = os.fspath(path)
    if not text.strip():
        raise BadInput(f"{setting} is empty; set it to a path, which may be . for the current folder.")
    expanded = Path(os.path.expanduser(os.path.expandvars(text)))
    unset = re.search(r"\$\{?\w+\}?", str(expanded))
    if unset and not expanded.exists():
        raise BadInput(f"{setting} is {text}, but the variable {unset.group()} is not set; set it, or write the path.")
    return expanded


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces `path` atomically and durably: no reader finds half a file, not even after a kill or a power cut."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yields a file to write bytes to, which replaces `path` as `write_atomically` does at the end of the block."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    put_in_place(partial, path)


def put_in_place(partial: Path, path: Path) -> None:
    """Renames a file or a folder that is already on disk, within its folder, so that no power cut undoes it."""
    os.replace(partial, path)
    # Windows cannot open folders.
    if hasattr(os, "O_DIRECTORY"):
        above = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(above)
        finally:
            os.close(above)


def write_json(path: Path, tree: dict | list) -> None:
    """Writes `tree` as JSON, as `write_atomically` does."""
    write_atomically(path, json.dumps(tree, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, table: pd.DataFrame, *, for_spreadsheets: bool = False) -> None:
    """Writes `table` as `write_atomically` does.

    Text that may be taken for a formula gets an apostrophe in front, which `read_csv` removes again. Spreadsheets
    read a table as UTF-8 only where it begins with a byte order mark.
    """
    text = {
        name: column.astype(object).map(_guard)
        for name, column in table.items()
        if not pd.api.types.is_numeric_dtype(column)
    }
    # The csv module quotes a line feed, but a carriage return only as part of the line terminator.
    returns = any("\r" in cell for column in text.values() for cell in column if isinstance(cell, str))
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    written = table.assign(**text).to_csv(index=False, float_format="%.6f", lineterminator="\n", quoting=quoting)
    write_atomically(path, written.encode("utf-8-sig" if for_spreadsheets else "utf-8"))


def read_csv(path: Path) -> pd.DataFrame:
    """Returns a table of `write_csv`, every cell as text, empty where there was none."""
    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig").map(unguard)


def unguard(cell: str) -> str:
    """Returns the text of a cell without the apostrophes of `write_csv`."""
    return re.sub(f"{_START}'{_FORMULA}", r"\1", cell)


def _guard(cell):
    return re.sub(_START + _FORMULA, r"\1'", cell) if isinstance(cell, str) else cell
