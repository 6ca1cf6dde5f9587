"""Finds images that are nearly the same, by the distances of their latents: resaved, cropped, or a frame later.

Where points are spread evenly in D dimensions, the distance of each to its nearest neighbour, to the power of D, is
exponentially distributed. Near-duplicates are neighbours that are too near for that.
"""

import hashlib
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist
from scipy.stats import false_discovery_control
from tqdm import tqdm

from latent_al.kernels import nearest, squared_distances
from latent_al.labelling import sheets
from latent_al.labelling.scan import NOISE, Scan, as_data
from latent_al.labelling.state import State
from latent_al.runtime.files import write_atomically, write_csv
from latent_al.runtime.noise import noise_to_file
from latent_al.types import UNLABELLED

COMPARED = 4096
"""Rows that are compared with all rows at a time."""
GROUPED = 256
"""Rows among which representatives are chosen at a time."""
FALSE = 0.1
"""The expected share of false finds among all."""
FEWEST = 20
"""Distances above zero below which their distribution is unknown."""
UPPER = (0.75, 0.975)
"""Quantiles that near-duplicates do not reach where up to 60 in 100 images have one."""
SPREAD = 0.7670493
"""The median absolute deviation of the logarithm of exponentially distributed numbers."""
STEPS = 20
"""Fits of the distribution, of which the first few change it."""
PAIRS = 36
"""Pairs on the sheet: half of them the nearest, half the farthest."""


class NearDuplicates(NamedTuple):
    """Images that are nearly the same as another one of the pool, sorted by group, then by distance.

    rows: [k], in the table of the scan.
    representatives: [k], the row of the image that stands for each.
    distances: [k], between the latents of the two.
    groups: [k], one number for each representative; that with the nearest image is 0.
    """

    rows: np.ndarray
    representatives: np.ndarray
    distances: np.ndarray
    groups: np.ndarray


def find(folder: Path, latents: Float[np.ndarray, "n d"], state: State) -> NearDuplicates:
    """Finds the near-duplicates among the images that are in the folder now.

    Of images that are near to each other, one that is labelled stands for the others, or else one that was asked about
    or is in the audit slice, or else the one in the lowest row. None is farther than the threshold from the one that
    stands for it. It takes O(n^2 d) time, once per pool, as the workdir `folder` keeps the distances to the nearest,
    and O(n d) memory.
    """
    rows, masks = np.flatnonzero(state.table.status == "present"), state.masks
    points = np.asarray(latents, np.float32)[rows]
    distances = _kept(folder / "nearest.bin", points)
    threshold = threshold_of(distances)
    rows, points = rows[distances <= threshold], points[distances <= threshold]
    order = np.lexsort((masks.candidates[rows], masks.classes[rows] == UNLABELLED))
    rows, points = rows[order], points[order]
    representatives, distances = group(points, threshold)
    is_further = representatives != np.arange(len(rows))
    return _sorted(rows[is_further], rows[representatives[is_further]], distances[is_further])


def label_once(state: State, near: NearDuplicates) -> State:
    """Returns the state in which near-duplicates are not asked about, and take the label of what stands for them.

    Those in the audit slice, and those that have been asked about or labelled, stay as they are: the slice is a random
    sample, and no answer is lost.
    """
    is_to_ask = state.masks.candidates[near.rows]
    closed, label_rows = state.masks.closed.copy(), state.label_rows.copy()
    closed[near.rows[is_to_ask]] = True
    label_rows[near.rows[is_to_ask]] = near.representatives[is_to_ask]
    return state._replace(masks=state.masks._replace(closed=closed), label_rows=label_rows)


def nearest_distances(points: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    """Returns the distance of each row to the nearest other row; for a single row it is inf."""
    distances = np.full(len(points), np.inf, np.float32)
    size = min(COMPARED, len(points))
    if size < 2:
        return distances
    points = jnp.asarray(points)
    starts = range(0, len(points), size)
    for start in tqdm(starts, "comparing images", unit="block", disable=True if len(starts) == 1 else None):
        start = min(start, len(points) - size)
        distances[start : start + size] = np.sqrt(_of_block(points, start, size))
    return distances


def threshold_of(distances: Float[np.ndarray, " n"]) -> float:
    """Returns the distance up to which rows are near-duplicates, from the distances of all rows to their nearest.

    It is 0 where there are none; then only equal rows are near-duplicates.

    Distances of other rows are fitted by the median and the spread of their logarithms, repeatedly, as more of the
    near-duplicates are left out. What is too near to be chance is decided with a false discovery rate of 0.1: for a
    pool without near-duplicates none are found except in about one case in ten, and where there are many, larger
    distances count as near. The threshold lies half-way to the next distance.

    Source: Benjamini and Hochberg (1995).
    """
    is_positive = distances > 0
    if is_positive.sum() < FEWEST:
        return 0.0
    median, dimensions = _fit_upper(distances[is_positive])
    for _ in range(STEPS):
        # If all are equal, as on a grid, they have no spread that could be fitted.
        if not np.isfinite(dimensions):
            return 0.0
        with np.errstate(over="ignore"):
            chances = -np.expm1(-np.log(2) * (distances / median).astype(np.float64) ** dimensions)
        is_near = false_discovery_control(chances) <= FALSE
        median, dimensions = _fit(distances[~is_near])
    return float(distances[is_near].max() + distances[~is_near].min()) / 2 if is_near.any() else 0.0


def group(points: Float[np.ndarray, "n d"], threshold: float) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Returns the row that stands for each row, and the distance to it, which is at most `threshold`.

    Row by row, one that is near to none of those that stand for others so far stands for itself, so that a chain of
    rows, each near to the next, does not become one group. It takes O(n^2 d) time and O(n d) memory.
    """
    numbers = np.arange(len(points))
    representatives = np.full(len(points), -1)
    on_device = jnp.asarray(points)
    for start in range(0, len(points), GROUPED):
        part = slice(start, start + GROUPED)
        sq_distances, rows = nearest(on_device[part], on_device, jnp.asarray(representatives == numbers))
        of_part = np.where(np.sqrt(sq_distances) <= threshold, rows, -1)
        is_close = cdist(points[part], points[part]) <= threshold
        for place in np.flatnonzero(of_part < 0):
            if of_part[place] < 0:
                of_part[is_close[place] & (of_part < 0)] = start + place
        representatives[part] = of_part
    return representatives, np.linalg.norm(points - points[representatives], axis=1)


def publish(folder: Path, scan: Scan, near: NearDuplicates) -> None:
    """Writes `near_duplicates.csv`, and pairs side by side on `near_duplicates.png`: the nearest, and the farthest."""
    table = scan.table
    image, same_as = (table.iloc[rows].reset_index(drop=True) for rows in (near.rows, near.representatives))
    columns = dict(id=image.id, file_name=image.file_name, same_as_id=same_as.id, same_as=same_as.file_name)
    lines = pd.DataFrame(columns | dict(distance=near.distances, group=near.groups))
    write_csv(folder / "near_duplicates.csv", lines, for_spreadsheets=True)
    path = folder / "near_duplicates.png"
    if lines.empty:
        path.unlink(missing_ok=True)
        return
    order = np.argsort(near.distances, kind="stable")
    pairs = order if len(order) <= PAIRS else np.concatenate([order[: PAIRS // 2], order[-PAIRS // 2 :]])
    rows = np.stack([near.rows[pairs], near.representatives[pairs]], axis=1).ravel()
    captions = []
    for pair in lines.iloc[pairs].itertuples():
        captions += [f"{pair.distance:.3g} from\n{pair.file_name}", f"group {pair.group}\n{pair.same_as}"]
    originals = as_data(scan.store, table, scan.plan).train.originals
    with noise_to_file(folder / NOISE):
        sheets.contact_sheet((originals[row] for row in rows.tolist()), captions, path)


def _kept(path, points):
    """Returns `nearest_distances`, which the file keeps after a hash of the points."""
    fingerprint = hashlib.sha256(points).digest()
    content = path.read_bytes() if path.exists() else b""
    if content.startswith(fingerprint) and len(content) == len(fingerprint) + 4 * len(points):
        return np.frombuffer(content[len(fingerprint) :], np.float32)
    distances = nearest_distances(points)
    write_atomically(path, fingerprint + distances.tobytes())
    return distances


@partial(jax.jit, static_argnames="size")
def _of_block(points, start, size):
    """Returns the squared distance of each row of a block to the nearest other row."""
    block = jax.lax.dynamic_slice_in_dim(points, start, size)
    rows = jnp.arange(len(points))
    outside = nearest(block, points, (rows < start) | (rows >= start + size)).sq_distances
    inside = jnp.where(jnp.eye(size, dtype=bool), jnp.inf, squared_distances(block, block)).argmin(axis=1)
    # Products choose; differences do not cancel where two rows are nearly equal.
    return jnp.minimum(outside, ((block - block[inside]) ** 2).sum(axis=1))


def _fit(distances):
    """Returns the median and the number of dimensions of distances of which few are those of near-duplicates."""
    logs = np.log(distances)
    with np.errstate(divide="ignore"):
        return np.median(distances), SPREAD / np.median(np.abs(logs - np.median(logs)))


def _fit_upper(distances):
    """Returns the median and the number of dimensions from the upper quantiles alone."""
    lower, upper = np.quantile(np.log(distances), UPPER)
    of_lower, of_upper = np.log(-np.log1p(-np.array(UPPER)))
    with np.errstate(divide="ignore"):
        dimensions = (of_upper - of_lower) / (upper - lower)
    return np.exp(lower + (np.log(np.log(2)) - of_lower) / dimensions), dimensions


def _sorted(rows, representatives, distances):
    order = np.lexsort((rows, distances))
    rows, representatives, distances = rows[order], representatives[order], distances[order]
    _, firsts, places = np.unique(representatives, return_index=True, return_inverse=True)
    groups = np.argsort(np.argsort(firsts))[places]
    order = np.argsort(groups, kind="stable")
    return NearDuplicates(rows[order], representatives[order], distances[order], groups[order])
