"""Reads and writes the rounds on disk: each is a folder that appears whole, and is never rewritten."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from latent_al.labelling import label_studio, sheets
from latent_al.runtime.files import put_in_place, write_atomically, write_csv, write_json
from latent_al.types import BadInput

READ_AGAIN = {"classes", "queries", "audit", "num_answers", "num_labels"}
"""Keys of `round.json` that later rounds read."""


def past_rounds(workdir: Path) -> list[dict[str, Any]]:
    """Reads `round.json` of each round, in order.

    Raises:
        BadInput: a round is missing or cannot be read.
    """
    folders = sorted(path for path in (workdir / "rounds").glob("[0-9]*") if path.is_dir())
    records = []
    for index, folder in enumerate(folders):
        if not folder.name.isdigit():
            raise BadInput(
                f"{folder} is not a round, but perhaps a copy made by a program that synchronises folders; put any "
                f"answers in it into {workdir / 'labels'}, and remove it."
            )
        if folder.name != f"{index:03d}":
            raise BadInput(
                f"{workdir / 'rounds'} has {folder.name} where {index:03d} is expected; restore round {index:03d}."
            )
        try:
            record = json.loads((folder / "round.json").read_text(encoding="utf-8"))
            if not isinstance(record, dict) or record.get("round") != index or not record.keys() >= READ_AGAIN:
                raise ValueError(f"it is not a complete record of round {index}")
        except (OSError, ValueError) as error:
            raise BadInput(f"{folder / 'round.json'} cannot be read ({error}); restore it from a copy.") from error
        records.append(record)
    return records


def publish(
    workdir: Path,
    record: dict[str, Any],
    *,
    queries: pd.DataFrame,
    predictions: pd.DataFrame | None,
    images: Iterable[np.ndarray],
    marked: sheets.Marked,
    root_name: str,
) -> Path:
    """Writes the next round: all of it, or nothing.

    Args:
        workdir: of the job.
        record: the content of `round.json`: `round`, `classes`, `by_class` if there are predictions, and what the
            terminal prints.
        queries: what people are asked about, with `confidence`, which only the tasks of Label Studio hold.
        predictions: of the whole pool, None before the first classifier.
        images: of the queries, [h w c], one by one.
        marked: the latents of the whole pool, and the rows to mark on the map.
        root_name: of the image folder.

    Returns:
        The folder of the round.
    """
    folder = workdir / "rounds" / f"{record['round']:03d}"
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_queries(partial, queries.drop(columns="confidence"))
    if predictions is not None:
        write_csv(partial / "predictions.csv", predictions, for_spreadsheets=True)
        write_csv(partial / "confusion.csv", _confusion(record["classes"], record["by_class"]), for_spreadsheets=True)
    if len(queries):
        sheets.contact_sheet(images, _captions(queries), partial / "contact_sheet.png")
    sheets.latent_map(marked.latents, marked.groups, partial / "map.png")
    tasks = label_studio.tasks(queries, root_name=root_name, round_index=record["round"], classes=record["classes"])
    write_json(partial / "label_studio.json", tasks)
    write_atomically(partial / "labelling_config.xml", label_studio.labelling_config(record["classes"]))
    write_json(partial / "round.json", record)
    put_in_place(partial, folder)
    return folder


def restore_queries(workdir: Path) -> list[str]:
    """Rewrites each missing `queries.csv` from the tasks of its round, and returns a line about it.

    Raises:
        BadInput: the tasks cannot be read.
    """
    lines = []
    for folder in sorted((workdir / "rounds").glob("[0-9]*")):
        path = folder / "label_studio.json"
        if (folder / "queries.csv").exists() or not path.exists():
            continue
        columns = {"id": "latent_al_id", "file_name": "file_name", "rank": "rank", "reason": "reason"}
        try:
            tasks = json.loads(path.read_text(encoding="utf-8"))
            rows = [{column: task["data"][name] for column, name in columns.items()} for task in tasks]
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"{folder / 'queries.csv'} is missing, and {path}, from which to write it again, cannot be read "
                f"({error!r}); restore either from a copy."
            ) from error
        _write_queries(folder, pd.DataFrame(rows, columns=list(columns)))
        lines.append(
            f"{folder / 'queries.csv'} was missing and has been written again, without labels; those read before stay."
        )
    return lines


def _write_queries(folder, queries):
    write_csv(folder / "queries.csv", queries.assign(label=""), for_spreadsheets=True)


def _confusion(classes, by_class):
    """Returns the counts of audit images by label and prediction, with recall and precision of each class."""
    counts = pd.DataFrame(by_class["confusion"], columns=[f"predicted {name}" for name in classes])
    table = pd.concat([pd.DataFrame({"label": classes}), counts], axis=1)
    for name in ("recall", "precision"):
        for suffix, key in {"": "mean", "_low": "low", "_high": "high"}.items():
            table[name + suffix] = [share[key] if share else np.nan for share in by_class[name]]
    return table


def _captions(queries):
    columns = zip(queries["rank"], queries.prediction, queries.file_name, strict=True)
    return [f"{rank} {prediction}".strip() + f"\n{name}" for rank, prediction, name in columns]
