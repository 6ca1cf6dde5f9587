"""Tables on disk: whole, safe in a spreadsheet, and read back as they were."""

import csv
import os
import re

import numpy as np
import pandas as pd
import pytest

from latent_al.runtime.files import read_csv, write_atomically, write_csv

NAMES = [
    "=1+1.png",
    "+a",
    "-a",
    "@a",
    "\ta",
    "'=a",
    "'a",
    "''",
    "a;=1",
    "a,-b",
    "a\t=b",
    "a\n@b",
    ";'=a",
    "|+",
    "a;'b",
    ";;=",
    "\t\t=",
    "\ra",
    "a,b",
    'say "a"',
    "two\nlines",
    "a\rb",
    "NA",
    "",
    "é 猫.png",
]


def test_a_write_replaces_the_whole_file(tmp_path):
    for length in (9, 2):
        write_csv(tmp_path / "a.csv", pd.DataFrame(dict(value=np.linspace(0, 1, length))))
    assert (tmp_path / "a.csv").read_text() == "value\n0.000000\n1.000000\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    write_atomically(tmp_path / "a", "old")
    (tmp_path / "a.partial").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        write_atomically(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"


def test_a_rename_reaches_the_disk(tmp_path, monkeypatch):
    """The paths synced, and whether the new name was there by then: first the content, then its folder."""
    synced, sync = [], os.fsync
    path = tmp_path / "a"
    monkeypatch.setattr(os, "fsync", lambda file: sync(file) or synced.append((os.fstat(file).st_ino, path.exists())))
    write_atomically(path, "new")
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_text_comes_back_as_it_was_and_is_no_formula(tmp_path):
    write_csv(tmp_path / "a.csv", pd.DataFrame(dict(name=NAMES, rank=range(len(NAMES)))))
    assert read_csv(tmp_path / "a.csv").name.tolist() == NAMES
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        cells = [row[0] for row in csv.reader(file)]
    assert not any(re.search("(^|[;,|\t\r\n])[-=+@]", cell) for cell in cells)


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    write_csv(tmp_path / "a.csv", pd.DataFrame(dict(id=[], label=[])))
    assert read_csv(tmp_path / "a.csv").columns.tolist() == ["id", "label"]
