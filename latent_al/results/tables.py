"""Tidy tables from histories of rounds: one row per measurement, query or round."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from latent_al.results.statistics import seed_quantities

QUERY_COLUMNS = ("arm", "seed", "round", "rank", "row", "id")

NO_ANSWER = -1
"""The row of a synthesised query that is spent without a label."""

TUNED_BY = "balanced_area"
"""The quantity on validation data by which the best setting of a sweep is chosen."""


class History(NamedTuple):
    """The course of one arm with one block of seeds. NaN marks what was not measured.

    queried: [seeds capacity] rows in the order of querying; n marks an empty slot.
    scores: metric -> split -> [seeds rounds+1], means over the split.
    seconds: [rounds+1 2] spent on fitting and on querying, for the whole block.
    points: [seeds capacity d], the latents that synthesised queries ask about; None for an arm that queries rows.
    """

    queried: np.ndarray
    scores: dict[str, dict[str, np.ndarray]]
    seconds: np.ndarray
    points: np.ndarray | None = None


def metrics_table(arm: str, seeds: list[int], num_labels: np.ndarray, history: History) -> pd.DataFrame:
    """Returns one row per measurement: arm, seed, round, num_labels, split, metric, value; NaN is left out."""
    frames = []
    for metric, splits in history.scores.items():
        for split, values in splits.items():
            seed, index = np.nonzero(~np.isnan(values))
            columns = dict(arm=arm, seed=np.array(seeds)[seed], round=index, num_labels=num_labels[index])
            frames.append(pd.DataFrame(columns | dict(split=split, metric=metric, value=values[seed, index])))
    return pd.concat(frames).sort_values(["seed", "round", "split", "metric"], kind="stable")


def queries_table(
    arm: str, seeds: list[int], num_labels: np.ndarray, history: History, ids: np.ndarray
) -> pd.DataFrame:
    """Returns one row per query: arm, seed, round, rank within the batch, row of the pool, id of the image.

    For a synthesised query the row is that of the image that answers, or -1, without an id, where none does.
    """
    capacity = history.queried.shape[1]
    index = np.searchsorted(num_labels, np.arange(capacity), side="right")
    rank = np.arange(capacity) - np.concatenate([[0], num_labels])[index]
    rows = history.queried.ravel()
    rows = np.where(rows < len(ids), rows, NO_ANSWER)
    named = pd.Series(ids[rows]).where(rows != NO_ANSWER)
    columns = dict(arm=arm, seed=np.repeat(seeds, capacity), round=np.tile(index, len(seeds)))
    return pd.DataFrame(columns | dict(rank=np.tile(rank, len(seeds)), row=rows, id=named))


def timings_table(arm: str, seeds: list[int], history: History) -> pd.DataFrame:
    """Returns the seconds of each round of a block of seeds.

    Programs are compiled before the first block, and those for a last block of fewer seeds in its first round.
    """
    fit, select = history.seconds.T
    columns = dict(arm=arm, first_seed=seeds[0], num_seeds=len(seeds), round=np.arange(len(fit)))
    return pd.DataFrame(columns | dict(fit_seconds=fit, select_seconds=select))


def choose(metrics: pd.DataFrame, tuned: dict[str, list[str]]) -> dict:
    """Returns the arm with the largest mean TUNED_BY from each list; ties go to the first.

    Returns:
        name -> `arm`, the one chosen, and `areas`, arm -> the mean that it was chosen by.
    """
    means = seed_quantities(metrics)[TUNED_BY].groupby("arm", sort=False).mean()
    areas = {name: {arm: float(means[arm]) for arm in arms} for name, arms in tuned.items()}
    return {name: dict(arm=max(by_arm, key=by_arm.get), areas=by_arm) for name, by_arm in areas.items()}


def tuned_table(summary: dict) -> pd.DataFrame:
    """Returns the settings among which validation data chose, one row each."""
    return pd.DataFrame(
        dict(arm=arm, mean=f"{100 * area:.2f}", chosen="yes" if arm == choice["arm"] else "")
        for choice in summary["tuned"].values()
        for arm, area in choice["areas"].items()
    )
