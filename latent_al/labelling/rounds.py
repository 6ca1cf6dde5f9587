"""Reads and writes the rounds on disk: each is a folder that appears whole, and is never written again."""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from latent_al.data.image_files import UnusableImage, read_image
from latent_al.labelling import label_studio, sheets
from latent_al.runtime.files import put_in_place, write_atomically, write_csv, write_json
from latent_al.types import BadInput


def past_rounds(workdir: Path) -> list[dict[str, Any]]:
    """Reads `round.json` of each round, in order.

    Raises:
        BadInput: a round is missing or cannot be read.
    """
    folders = sorted(path for path in (workdir / "rounds").glob("[0-9]*") if path.is_dir())
    records = []
    for index, folder in enumerate(folders):
        if folder.name != f"{index:03d}":
            raise BadInput(f"{workdir / 'rounds'} has {folder.name} where {index:03d} is expected; restore that round.")
        try:
            record = json.loads((folder / "round.json").read_text(encoding="utf-8"))
            if not isinstance(record, dict) or record.get("round") != index:
                raise ValueError(f"it is not of round {index}")
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
        record: the content of `round.json`: `round`, `classes` and, with `accuracy`, what the terminal prints.
        queries: what people are asked, with `confidence`, which only the tasks of Label Studio hold.
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
    write_csv(partial / "queries.csv", queries.drop(columns="confidence").assign(label=""))
    if predictions is not None:
        write_csv(partial / "predictions.csv", predictions)
    if len(queries):
        sheets.contact_sheet(images, _captions(queries), partial / "contact_sheet.png")
    sheets.latent_map(marked.latents, marked.groups, partial / "map.png")
    tasks = label_studio.tasks(queries, root_name=root_name, round_index=record["round"], classes=record["classes"])
    write_json(partial / "label_studio.json", tasks)
    write_atomically(partial / "labelling_config.xml", label_studio.labelling_config(record["classes"]))
    write_json(partial / "round.json", record)
    put_in_place(partial, folder)
    return folder


def originals(
    root: Path, table: pd.DataFrame, pixels: Iterable[np.ndarray], channels: int
) -> Iterator[UInt8[np.ndarray, "h w c"]]:
    """Yields the images of `table` as their files have them, one by one: a file may be larger than a whole sheet.

    Where a file is gone or changed, it is the image of `pixels`, as it was scanned.
    """
    for file_name, status, scanned in zip(table.file_name, table.status, pixels, strict=True):
        try:
            image = read_image(root / file_name, None, channels) if status == "present" else scanned
        except UnusableImage:
            image = scanned
        yield image


def _captions(queries):
    return [
        f"{rank} {prediction}".strip() for rank, prediction in zip(queries["rank"], queries.prediction, strict=True)
    ]
