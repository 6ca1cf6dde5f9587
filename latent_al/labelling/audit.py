"""The audit slice: images drawn at random that are labelled only to measure, and the part that estimates may use."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from latent_al.labelling import selection
from latent_al.runtime.files import write_json
from latent_al.types import UNLABELLED, BadInput

FEWEST = 10
"""Answers in the slice's order below which nothing is estimated, unless they are all of the slice."""
CHANCE = 0.05
"""The chance that answers out of order alone make so long a run, above which nothing is estimated."""


class Answered(NamedTuple):
    """The images of the slice that estimates may use: those that were answered without a gap in its random order.

    rows: of these images in the table, in that order; none where `reason` is not empty.
    size: images of the slice, without those that are skipped or not in the folder any more.
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
            f"{len(present)} that there are; lower audit or num_initial, or add images."
        )
    draws = [*sorted(selection.uniform(image, seed) for image in present), 1.0]
    write_json(path, dict(num=num, share=draws[num] if num else 0.0))


def read_audit(workdir: Path) -> dict[str, Any]:
    """Reads `audit.json`.

    Raises:
        BadInput: it cannot be read.
    """
    path = workdir / "audit.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} cannot be read ({error}); restore it from a copy.") from error


def in_random_order(table: pd.DataFrame, rows: np.ndarray, seed: int) -> np.ndarray:
    """Returns rows of the table in the random order in which the slice is asked and counted."""
    return rows[np.argsort([selection.uniform(image, seed) for image in table.id.iloc[rows]])]


def answered(table: pd.DataFrame, masks: selection.Masks, seed: int) -> Answered:
    """Returns the answered start of the slice's random order, which is a random sample of the images present.

    Images that are skipped or gone are passed over. What is answered behind the first gap was not drawn at random:
    people may have brought the labels that they had. Such answers may also lengthen the start: where one as long could
    well be theirs alone, it is not used.
    """
    rows = in_random_order(table, np.flatnonzero(masks.audit & ~masks.closed), seed)
    is_answered = masks.classes[rows] != UNLABELLED
    num = len(rows) if is_answered.all() else int(is_answered.argmin())
    behind = int(is_answered[num:].sum())
    reason = _why_not(num, behind, len(rows))
    if reason and num < len(rows):
        reason += f"; label {table.file_name.iloc[rows[num]]} next"
    return Answered(rows[: 0 if reason else num], len(rows), reason)


def _why_not(num, behind, size):
    if not size:
        return "the audit slice is empty"
    if not num + behind:
        return "no image of the audit slice is labelled yet"
    if num == size or (num >= FEWEST and (behind / (size - num)) ** num <= CHANCE):
        return ""
    needed = f", where {min(FEWEST, size)} are needed" if num < FEWEST else ", which may be chance"
    apart = f"; the {behind} behind the first gap are no random sample" if behind else ""
    return f"{num} of {size} audit images are labelled in the order of the slice{needed}{apart}"
