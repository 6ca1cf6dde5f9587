"""The audit slice: images drawn at random that are labelled only to measure, and the part that estimates may use."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from latent_al.labelling import selection
from latent_al.runtime.files import read_csv, write_csv, write_json
from latent_al.types import UNLABELLED, BadInput

FEWEST = 10
"""The number of answers in the slice's order below which nothing is estimated, unless they are the whole slice."""
CHANCE = 0.05
"""The chance of answers out of order alone making so long a run, above which nothing is estimated."""


STRATA = "audit_strata.csv"
"""The file with the stratum of each image that is in one of a class."""


class Strata(NamedTuple):
    """The parts of the pool from which the slice takes shares of different size.

    names: of the strata: classes as they were predicted when the slice was enlarged; the first is empty, and holds
        all other images.
    shares: of its images that the slice takes, for each stratum.
    of_rows: [n], the stratum of each row of the table.
    """

    names: list[str]
    shares: np.ndarray
    of_rows: np.ndarray

    def in_slice(self, draws: np.ndarray) -> np.ndarray:
        """Returns which rows are in the slice, from the random number [n] that each keeps."""
        return draws < self.shares[self.of_rows]


class Answered(NamedTuple):
    """The images of the slice that estimates may use: those that were answered without a gap in its random order.

    rows: of these images in the table, in that order; none where `reason` is not empty.
    size: images of the slice, without those that are skipped or no longer in the folder.
    reason: in words, why nothing can be estimated; empty where it can.
    """

    rows: np.ndarray
    size: int
    reason: str


def set_audit_aside(workdir: Path, table: pd.DataFrame, *, num: int, num_initial: int, seed: int) -> None:
    """Sets, once, the share of the images that the audit slice takes: `num` of those present, and the same share later.

    Raises:
        BadInput: fewer images than the slice and the initial labelled set need; a slice of another size was set aside
            before.
    """
    path = workdir / "audit.json"
    if path.exists():
        before = read_audit(workdir)["num"]
        if num != before:
            raise BadInput(
                f"audit is {num}, but {path} was made with {before}, and the slice is set aside for good; set audit to "
                f"{before}, or choose another --workdir."
            )
        return
    present = table.id[table.status == "present"]
    if num + num_initial > len(present):
        raise BadInput(
            f"an audit slice of {num} images and an initial labelled set of {num_initial} need more than the "
            f"{len(present)} images that there are; lower audit or num_initial, or add images."
        )
    draws = [*sorted(selection.uniform(image, seed) for image in present), 1.0]
    write_json(path, dict(num=num, share=draws[num] if num else 0.0))


def enlarge(workdir: Path, table: pd.DataFrame, wanted: Mapping[str, int], seed: int) -> list[str]:
    """Enlarges the slice to `wanted` images of each class that the last round predicts, and returns lines about it.

    The images predicted as a class become a stratum of the pool, for good, and the slice takes those with the lowest
    random numbers. So it stays a random sample of each stratum, where each image stands for equally many of the pool.

    Args:
        workdir: of the job.
        table: of the scan.
        wanted: class -> images of the slice that its stratum is to hold; a stratum that holds as many stays as it is.
        seed: random seed of the slice.

    Raises:
        BadInput: no slice, a number below 1; no round has predictions yet, or none of this class; the tables cannot be
            read.
    """
    refused = {name: num for name, num in wanted.items() if num < 1}
    if refused or (wanted and not read_audit(workdir)["num"]):
        raise BadInput(
            f"audit_by_class is {dict(wanted)}; expected 1 or more images of each class, and a slice to enlarge: set "
            "audit before the first call."
        )
    lines = []
    is_present = (table.status == "present").to_numpy()
    draws = np.array([selection.uniform(image, seed) for image in table.id])
    for name, num in wanted.items():
        strata = read_strata(workdir, table)
        is_new = name not in strata.names
        if is_new:
            strata = _with_stratum(strata, name, is_present & _predicted_as(name, workdir, table))
        stratum = strata.names.index(name)
        inside = is_present & (strata.of_rows == stratum)
        taken = np.append(np.sort(draws[inside]), 1.0)
        share = max(strata.shares[stratum], taken[min(num, inside.sum())])
        if is_new or share > strata.shares[stratum]:
            strata.shares[stratum] = share
            _write_strata(workdir, table, strata)
            lines.append(
                f"Audit slice: {(inside & strata.in_slice(draws)).sum():,} of the {inside.sum():,} images predicted as "
                f"{name} are in it from now on; those that were labelled before are no longer trained on."
            )
    return lines


def read_strata(workdir: Path, table: pd.DataFrame) -> Strata:
    """Reads the strata of the pool; one that holds all images where the slice was not enlarged.

    Raises:
        BadInput: they cannot be read.
    """
    audit, path = read_audit(workdir), workdir / STRATA
    names, shares = list(audit.get("by_class", {})), list(audit.get("by_class", {}).values())
    of_rows = np.zeros(len(table), int)
    if names:
        try:
            written = read_csv(path).set_index("id").stratum
        except (AttributeError, KeyError, OSError, ValueError) as error:
            raise BadInput(f"{path} cannot be read ({error}); restore it from a copy.") from error
        of_rows = 1 + pd.Index(names).get_indexer(table.id.map(written).fillna(""))
    return Strata(["", *names], np.array([audit["share"], *shares]), of_rows)


def read_audit(workdir: Path) -> dict[str, Any]:
    """Reads `audit.json`.

    Raises:
        BadInput: it cannot be read.
    """
    path = workdir / "audit.json"
    try:
        audit = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(audit, dict) or not {"num", "share"} <= audit.keys():
            raise ValueError("num or share is missing")
    except ValueError as error:
        raise BadInput(f"{path} cannot be read ({error}); restore it from a copy.") from error
    return audit


def in_random_order(table: pd.DataFrame, rows: np.ndarray, seed: int) -> np.ndarray:
    """Returns rows of the table in the random order in which the slice is asked and counted."""
    return rows[np.argsort([selection.uniform(image, seed) for image in table.id.iloc[rows]])]


def answered(table: pd.DataFrame, masks: selection.Masks, seed: int) -> Answered:
    """Returns the answered start of the slice's random order, which is a random sample of the images present.

    Images that are skipped or gone are passed over. What is answered after the first gap was not drawn at random:
    people may have brought the labels that they had. Such answers may also lengthen the start: if a start as long could
    well be due to them alone, it is not used.
    """
    rows = in_random_order(table, np.flatnonzero(masks.audit & ~(masks.skipped | masks.closed)), seed)
    is_answered = masks.classes[rows] != UNLABELLED
    num = len(rows) if is_answered.all() else int(is_answered.argmin())
    behind = int(is_answered[num:].sum())
    reason = _why_not(num, behind, len(rows), int(masks.audit.sum()))
    if reason and num < len(rows):
        reason += f"; label {table.file_name.iloc[rows[num]]} next"
    return Answered(rows[: 0 if reason else num], len(rows), reason)


def _why_not(num, behind, size, drawn):
    if not drawn:
        return "the audit slice is empty"
    if not size:
        return f"the {drawn:,} images of the audit slice are all skipped or no longer in the folder"
    if not num + behind:
        return "no image of the audit slice is labelled yet"
    if num == size or (num >= FEWEST and (behind / (size - num)) ** num <= CHANCE):
        return ""
    needed = f", but {min(FEWEST, size)} are needed" if num < FEWEST else ", which may be chance"
    apart = f"; the {behind} after the first gap are not a random sample" if behind else ""
    return f"{num} of {size} audit images are labelled in the order of the slice{needed}{apart}"


def _predicted_as(name, workdir, table):
    """Returns which rows of the table the last round predicts as a class."""
    folders = sorted(workdir.glob("rounds/[0-9]*/predictions.csv"))
    if not folders:
        raise BadInput(
            f"audit_by_class asks for images that are predicted as {name!r}, but no round has predictions yet; label "
            "images of two classes first."
        )
    try:
        predicted = read_csv(folders[-1]).set_index("id").prediction
    except (AttributeError, KeyError, OSError, ValueError) as error:
        raise BadInput(f"{folders[-1]} cannot be read ({error}); restore it from a copy.") from error
    rows = (table.id.map(predicted) == name).to_numpy()
    if not rows.any():
        classes = ", ".join(sorted(set(predicted)))
        raise BadInput(f"no image is predicted as {name!r} in {folders[-1]}; choose among {classes}, or label more.")
    return rows


def _with_stratum(strata, name, rows):
    """Returns the strata with one more, of those `rows` that are not in a class's stratum yet."""
    rows = rows & (strata.of_rows == 0)
    of_rows = np.where(rows, len(strata.names), strata.of_rows)
    return Strata([*strata.names, name], np.append(strata.shares, strata.shares[0]), of_rows)


def _write_strata(workdir, table, strata):
    # A stratum counts once audit.json has its share, so that it comes last.
    stratum = pd.Series(strata.names)[strata.of_rows].to_numpy()
    rows = strata.of_rows > 0
    write_csv(workdir / STRATA, pd.DataFrame(dict(id=table.id[rows], stratum=stratum[rows])))
    by_class = dict(zip(strata.names[1:], strata.shares[1:].tolist(), strict=True))
    write_json(workdir / "audit.json", read_audit(workdir) | dict(by_class=by_class))
