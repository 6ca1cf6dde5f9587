"""Finds the images of a folder, once each by their content, and what came, went and changed since the last scan."""

import hashlib
import json
import math
import shutil
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from latent_al.data.depth import check_depth, describe, survey
from latent_al.data.image_files import Depth, Reading, UnusableImage, check_shape, decode, pixel_limit, read_content
from latent_al.data.image_folder import SPLITS
from latent_al.data.listing import Listing, counted, first_of, list_images, not_read, read_in_threads
from latent_al.data.originals import Originals
from latent_al.data.store import COLUMNS, Store, shard_rows
from latent_al.runtime.files import expand, read_csv, write_csv, write_json
from latent_al.runtime.noise import noise_to_file
from latent_al.types import BadInput, Data, Split

PLACE = ["file_name", "bytes", "modified_ns"]
"""The columns that show that a file is as it was, without reading it."""
NOISE, DEPTH = "warnings.log", "depth.json"
"""The files of the workdir with what libraries print, and with the depth of the pool."""
ROW_BYTES = 200
"""The approximate bytes of an image in the tables."""
EARLIER_BITS = 16
"""The depth of all deep images in workdirs that have no `depth.json`."""


class Forecast(NamedTuple):
    """The cost of reading the new files.

    num_images: files to read.
    seconds: about how long that takes, from a sample of them.
    disk_bytes: of the shards, at most: duplicates take nothing.
    """

    num_images: int
    seconds: float
    disk_bytes: int


@dataclass(frozen=True)
class Plan:
    """The content of the folder, before any image is decoded.

    Attributes:
        root: the folder.
        workdir: where the shards and the tables go.
        reading: how every image is read.
        store: the images that earlier scans have read.
        files: `PLACE` of each image file, sorted by name, and its `id`, empty where it is to be read.
        listing: of the folder.
        remarks: what is to be said before the files are read, in one line each.
        has_deep: whether images of more than eight bits are among these or were read before.
    """

    root: Path
    workdir: Path
    reading: Reading
    store: Store
    files: pd.DataFrame
    listing: Listing
    remarks: list[str]
    has_deep: bool = False

    @property
    def new(self) -> list[str]:
        """Names of the files to read."""
        return self.files.file_name[self.files.id == ""].tolist()


class Scan(NamedTuple):
    """The images of a folder, in the order of the store.

    table: as `manifest.csv`: id; file_name, where the image is or was; status; height and width in its file, upright;
        bytes; modified_ns; copies, how many files hold these very bytes; bits, that its levels were read with; and
        one_colour, 1 where all its pixels are equal. These two are 0 for images that an earlier version has read.
        status is `present`; `changed` where its file is there, but with other content, which is an image of its own; or
        `removed`.
    store: their pixels.
    duplicates: as `duplicates.csv`: the further files of an image, and the file that stands for it.
    rejected: as `rejected.csv`: files that could not be used, and why.
    num_new, num_removed, num_changed: since the last scan that was completed.
    plan: that was carried out.
    """

    table: pd.DataFrame
    store: Store
    duplicates: pd.DataFrame
    rejected: pd.DataFrame
    num_new: int
    num_removed: int
    num_changed: int
    plan: Plan


class _Read(NamedTuple):
    """One file: its row, and its pixels; None where the store has them, or where `reason` says why there are none."""

    row: dict
    pixels: np.ndarray | None
    reason: str | None


def check_size(size: tuple[int, int] | None, channels: int) -> None:
    """Checks the size and the channels that every image of the pool is to have.

    Raises:
        BadInput: no size, a side below 1, channels other than 1 and 3.
    """
    if size is None:
        raise BadInput("config.data.size is None, but a pool needs one size for all images; set it to (height, width).")
    check_shape(size, channels)


def plan(
    root: str | None,
    workdir: Path,
    *,
    size: tuple[int, int] | None,
    channels: int,
    depth: int | None = None,
    max_megapixels: float | None = None,
) -> Plan:
    """Lists the files of a folder and of its sub-folders; decodes only those with more than eight bits per level.

    The depth of these is found at the first scan that meets one, and kept in `depth.json` for good. Hidden files and
    folders are passed over, and so is the workdir where it lies in the folder. Links are not followed, but listed as
    rejected. Files unchanged since the last scan, by name, length and time of change, are not read again.

    Args:
        root: the folder; None, where a config leaves it open, is refused.
        workdir: where earlier scans have left their tables and shards, and this one will.
        size: (height, width) that every image is resized to.
        channels: 1 for grey, 3 for colour.
        depth: bits of levels in files that have more than eight; None to find them.
        max_megapixels: the largest image that is read, in millions of pixels; None for 89.

    Raises:
        BadInput: no folder, no image files in it, no size, shards of another size or damaged, or images that were read
            with another depth.
    """
    check_size(size, channels)
    folder = None if root is None else expand(root, "config.data.root")
    if folder is not None and workdir.is_dir() and folder.resolve() == workdir.resolve():
        raise BadInput(f"{root} is both config.data.root and --workdir; choose another --workdir.")
    reading = Reading(tuple(size), channels, check_depth(depth), pixel_limit(max_megapixels))
    listing = list_images(folder, without=workdir)
    store = Store(workdir / "pool", (*size, channels))
    table = pd.DataFrame(listing.files, columns=PLACE).astype({"file_name": str})
    table = table.merge(_seen_before(workdir, store), how="left", on=PLACE).fillna({"id": ""})
    unread = Plan(folder, workdir, reading, store, table, listing, [*not_read(listing), *_splits_in(listing)])
    return _with_depth(unread)


def forecast(plan: Plan) -> Forecast:
    """Returns the cost of reading all new files, from reading up to 32 of them, drawn at random.

    Raises:
        BadInput: the disk has less room than that.
    """
    new = plan.new
    sample = np.random.default_rng(0).choice(new, min(32, len(new)), replace=False).tolist() if new else []
    start = time.perf_counter()
    with noise_to_file(plan.workdir / NOISE):
        for _ in _read_all(plan, sample):
            pass
    seconds = (time.perf_counter() - start) * len(new) / max(len(sample), 1)
    needed = len(new) * (math.prod(plan.store.image_shape) + ROW_BYTES)
    there = next(path for path in (plan.workdir, *plan.workdir.resolve().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise BadInput(
            f"the {len(new):,} new images need {needed:,} bytes in {plan.workdir}, but its disk has {free:,} free; "
            "make room, choose a --workdir on another disk, or lower config.data.size."
        )
    return Forecast(len(new), seconds, needed)


def scan(plan: Plan) -> Scan:
    """Reads the new files, adds their images to the store, and writes the tables into the workdir.

    `manifest.csv`, `duplicates.csv` and `rejected.csv` are replaced as a whole at the end. If a scan is stopped before
    that, in whatever way, the next one continues after the last shard and ends with the same bytes in them.

    Raises:
        BadInput: no image can be read, or an earlier scan's manifest.csv.
        OSError: the workdir cannot be written; what has been scanned is kept.
    """
    plan.workdir.mkdir(parents=True, exist_ok=True)
    depth = plan.reading.depth if plan.has_deep else None
    write_json(plan.workdir / DEPTH, depth._asdict() if depth else dict(bits=None, is_set=False))
    files, unreadable = _add_new(plan)
    rejected = pd.DataFrame(sorted([*plan.listing.rejected, *unreadable]), columns=["file_name", "reason"], dtype=str)
    write_csv(plan.workdir / "rejected.csv", rejected, for_spreadsheets=True)
    if files.empty:
        raise BadInput(
            f"none of the {len(plan.files):,} image files in {plan.root} can be used{first_of(unreadable)}; "
            f"{plan.workdir / 'rejected.csv'} lists them all."
        )
    previous = _read_table(plan.workdir / "manifest.csv", ["id", "status", *PLACE]).drop_duplicates("id")
    result = _compare(plan, files, previous, rejected)
    write_csv(plan.workdir / "duplicates.csv", result.duplicates, for_spreadsheets=True)
    write_csv(plan.workdir / "manifest.csv", result.table, for_spreadsheets=True)
    return result


def as_data(store: Store, table: pd.DataFrame | None = None, plan: Plan | None = None) -> Data:
    """Returns the scanned images as the training images of `Data`, without labels.

    Args:
        store: their pixels.
        table: as `Scan.table`; None before a scan.
        plan: says where their files are; None for images without originals.

    Returns:
        The data, named by their ids. The file name of an image whose file has other content by now is empty.
    """
    nothing = Split(np.zeros((0, *store.image_shape), np.float32), None)
    if table is None:
        return Data(Split(store, None), nothing, nothing, store.rows.id.to_numpy(str), None)
    file_names = table.file_name.where(table.status != "changed", "").to_numpy(str)
    originals = None
    if plan is not None:
        paths = [plan.root / name if name else None for name in file_names.tolist()]
        originals = Originals(paths, plan.reading, store)
    return Data(Split(store, None, originals), nothing, nothing, table.id.to_numpy(str), None, file_names)


def summary(scan: Scan) -> str:
    """Returns the counts of a scan for the terminal; what is new only where not everything is.

    A second line names images of one colour.
    """
    is_present = scan.table.status == "present"
    num_present = int(is_present.sum())
    num_new = scan.num_new if scan.num_new < len(scan.table) else 0
    num_duplicates, num_other = len(scan.duplicates), sum(scan.plan.listing.other_files.values())
    phrases = [
        (num_present, counted(num_present, "image")),
        (num_duplicates, f"{counted(num_duplicates, 'duplicate')} (duplicates.csv)"),
        (len(scan.rejected), f"{len(scan.rejected):,} rejected (rejected.csv)"),
        (num_new, f"{num_new:,} new since the last scan"),
        (scan.num_removed, f"{scan.num_removed:,} removed"),
        (scan.num_changed, f"{scan.num_changed:,} changed"),
        (num_other, counted(num_other, "other file")),
    ]
    lines = [", ".join(phrase for num, phrase in phrases if num)]
    plain = scan.table.file_name[is_present & (scan.table.one_colour == 1)]
    if len(plain):
        lines.append(f"images of one colour: {len(plain):,}, the first is {plain.iloc[0]} (one_colour in manifest.csv)")
    return "\n".join(lines)


def check_latents(latents: np.ndarray, table: pd.DataFrame) -> None:
    """Checks that the latents [n d] of a scan's table differ.

    Raises:
        BadInput: they are all equal; the message gives images of one colour, where there are some, as the reason.
    """
    if len(latents) < 2 or np.ptp(latents, axis=0).any():
        return
    plain = table.file_name[table.one_colour == 1]
    why = "choose another encoder"
    if len(plain):
        why = (
            f"{len(plain):,} of {len(table):,} images have one colour, the first is {plain.iloc[0]} (one_colour in "
            "manifest.csv): look at the files, and if they are deeper than they look, set config.data.depth in "
            "another --workdir"
        )
    raise BadInput(f"all {len(latents):,} latents are equal; {why}.")


def _splits_in(listing):
    """Returns a line where sub-folders have the names of splits: a pool has no splits, so that all of them join it."""
    tops = {file.name.split("/")[0] for file in listing.files if "/" in file.name}
    splits = sorted(f"{top}/" for top in tops if top.lower() in SPLITS)
    if not splits:
        return []
    return [
        f"the pool holds all images, including those in {', '.join(splits)}; to read only one of these, set "
        "config.data.root to it"
    ]


def _with_depth(plan):
    """Returns the plan with the depth of the pool.

    Raises:
        BadInput: images of the pool have been read with another depth.
    """
    path, names, depth = plan.workdir / DEPTH, plan.new, plan.reading.depth
    kept = _read_depth(path)
    if kept is not None:
        if depth is not None and depth.bits != kept.bits:
            raise BadInput(
                f"depth is {depth.bits}, but the images in {plan.workdir} were read with {kept.bits} bits; leave "
                "config.data.depth as it was, or choose another --workdir."
            )
        return replace(plan, reading=plan.reading._replace(depth=kept), has_deep=True)
    is_of_earlier_version = len(plan.store) > 0 and not path.exists()
    with noise_to_file(plan.workdir / NOISE) as terminal:
        names = plan.files.file_name.tolist() if is_of_earlier_version else names
        progress = partial(_progress, what="looking for deep images", num=len(names), terminal=terminal)
        surveyed = survey(plan.root, names, plan.reading.max_pixels, progress)
    if surveyed is not None:
        depth = depth or surveyed.depth
        if is_of_earlier_version and depth.bits != EARLIER_BITS:
            raise BadInput(
                f"{plan.workdir} was begun by a version that read all deep images as {EARLIER_BITS} bits, but their "
                f"levels go up to {surveyed.highest:,}, which takes {depth.bits}; choose another --workdir to read "
                f"them so, or set config.data.depth={EARLIER_BITS} to continue as before."
            )
        plan = replace(plan, remarks=[*plan.remarks, describe(surveyed, depth)])
    return replace(plan, reading=plan.reading._replace(depth=depth), has_deep=surveyed is not None)


def _read_depth(path):
    """Returns the depth that an earlier scan kept; None where it met no deep image, or there was no such scan."""
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return None if kept["bits"] is None else Depth(int(kept["bits"]), bool(kept["is_set"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} cannot be read ({error}); restore it from a copy.") from error


def _progress(items, what, num, terminal):
    return tqdm(items, total=num, desc=what, unit="", disable=None if num else True, file=terminal)


def _read_table(path, columns):
    """Returns these columns of a table that an earlier scan wrote, without rows where there is none."""
    if not path.exists():
        return pd.DataFrame(columns=columns, dtype=str).astype(_ints(columns))
    try:
        return read_csv(path)[columns].astype(_ints(columns))
    except (KeyError, ValueError) as error:
        raise BadInput(
            f"{path} is not as it was written ({error}); delete it and start again: it is made from the images."
        ) from error


def _ints(columns):
    return {name: np.int64 for name in columns if name in ("bytes", "modified_ns")}


def _seen_before(workdir, store):
    """Returns the `id` and `PLACE` of each file of an earlier scan, where the store has its image."""
    columns = ["id", *PLACE]
    tables = [store.rows[columns]]
    tables += [_read_table(workdir / name, columns) for name in ("duplicates.csv", "manifest.csv")]
    files = pd.concat(tables)
    return files[files.id.isin(store.rows.id)].drop_duplicates(PLACE, keep="last")


def _read_all(plan, names):
    read = partial(_read, plan, set(plan.store.rows.id))
    return read_in_threads(read, names, ahead=shard_rows(plan.store.image_shape))


def _read(plan, stored, name):
    try:
        content, modified_ns = read_content(plan.root / name, plan.reading.max_pixels)
        identity = f"sha256:{hashlib.sha256(content).hexdigest()[:32]}"
        row = dict(id=identity, file_name=name, bytes=len(content), modified_ns=modified_ns)
        if identity in stored:
            return _Read(row, None, None)
        image = decode(content, plan.reading)
    except UnusableImage as error:
        return _Read(dict(file_name=name), None, str(error))
    row |= dict(height=image.height, width=image.width, bits=image.bits, one_colour=int(image.is_one_colour))
    return _Read(row, image.pixels, None)


def _add_new(plan):
    """Adds the new images to the store; returns (id and `PLACE` of every readable file, the others with a reason)."""
    readable, unreadable, batch = [], [], []
    seen = set(plan.store.rows.id)
    with noise_to_file(plan.workdir / NOISE) as terminal:
        for read in _progress(_read_all(plan, plan.new), "reading images", len(plan.new), terminal):
            if read.reason is not None:
                unreadable.append((read.row["file_name"], read.reason))
                continue
            readable.append([read.row[name] for name in ["id", *PLACE]])
            if read.row["id"] not in seen:
                seen.add(read.row["id"])
                batch.append(read)
            if len(batch) == shard_rows(plan.store.image_shape):
                _append(plan.store, batch)
                batch = []
    if batch:
        _append(plan.store, batch)
    kept = plan.files.loc[plan.files.id != "", ["id", *PLACE]]
    added = pd.DataFrame(readable, columns=kept.columns).astype(kept.dtypes)
    return pd.concat([kept, added]).sort_values("file_name", ignore_index=True), unreadable


def _append(store, batch):
    store.append(pd.DataFrame([read.row for read in batch])[COLUMNS], np.stack([read.pixels for read in batch]))


def _compare(plan, files, previous, rejected):
    rows = plan.store.rows
    again = files.duplicated("id")
    here = files[~again].set_index("id")
    last = pd.concat([rows.set_index("id")[PLACE], previous.set_index("id")[PLACE], here])
    last = last[~last.index.duplicated(keep="last")].loc[rows.id].reset_index()
    copies = rows.id.map(files.id.value_counts()).fillna(0).astype(np.int64)
    is_elsewhere = last.file_name.isin(files.file_name)
    status = pd.Series(np.select([copies > 0, is_elsewhere], ["present", "changed"], "removed"))
    before = rows.id.map(previous.set_index("id").status)
    table = rows[["id", "height", "width", "bits", "one_colour"]].join(last[PLACE]).assign(status=status, copies=copies)
    duplicates = files[again].assign(same_as=files.id[again].map(here.file_name))
    return Scan(
        table[["id", "file_name", "status", "height", "width", "bytes", "modified_ns", "copies", "bits", "one_colour"]],
        plan.store,
        duplicates[["id", "file_name", "same_as", "bytes", "modified_ns"]].reset_index(drop=True),
        rejected,
        num_new=int(before.isna().sum()),
        num_removed=int(((status == "removed") & (before != "removed")).sum()),
        num_changed=int(((status == "changed") & (before != "changed")).sum()),
        plan=plan,
    )
