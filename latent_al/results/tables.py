"""Tidy tables from histories of rounds: one row a measurement, a query or a round."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from latent_al.results.statistics import seed_quantities

QUERY_COLUMNS = ("arm", "seed", "round", "rank", "row", "id")

TUNED_BY = "balanced_area"
"""The quantity on validation data by which one of several weights is chosen."""


class History(NamedTuple):
    """The course of one arm with one block of seeds. NaN marks what was not measured.

    queried: [seeds capacity] rows in the order of querying; n marks an empty slot.
    scores: metric -> split -> [seeds rounds+1], means over the split.
    seconds: [rounds+1 2] spent on fitting and on selecting, for the whole block.
    by_update: training step of the learner -> its score then [seeds rounds+1].
    measured: what the strategy measures -> its values [seeds m] on a sample of the training images at the end.
    explained: the fields of `kernels.Explanation` [seeds images num], with rows of the training images, and the class
        `predicted` [seeds images]; empty where nothing is explained.
    """

    queried: np.ndarray
    scores: dict[str, dict[str, np.ndarray]]
    seconds: np.ndarray
    by_update: dict[int, np.ndarray]
    measured: dict[str, np.ndarray] = {}
    explained: dict[str, np.ndarray] = {}


def metrics_table(arm: str, seeds: list[int], num_labels: np.ndarray, history: History) -> pd.DataFrame:
    """Returns one row a measurement: arm, seed, round, num_labels, split, metric, value; NaN is left out."""
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
    """Returns one row a query: arm, seed, round, rank within the batch, row of the pool, id of the image."""
    capacity = history.queried.shape[1]
    index = np.searchsorted(num_labels, np.arange(capacity), side="right")
    rank = np.arange(capacity) - np.concatenate([[0], num_labels])[index]
    rows = history.queried.ravel()
    columns = dict(arm=arm, seed=np.repeat(seeds, capacity), round=np.tile(index, len(seeds)))
    return pd.DataFrame(columns | dict(rank=np.tile(rank, len(seeds)), row=rows, id=ids[rows]))


def timings_table(arm: str, seeds: list[int], history: History) -> pd.DataFrame:
    """Returns the seconds of each round of a block of seeds; compilation falls into the first round."""
    fit, select = history.seconds.T
    columns = dict(arm=arm, first_seed=seeds[0], num_seeds=len(seeds), round=np.arange(len(fit)))
    return pd.DataFrame(columns | dict(fit_seconds=fit, select_seconds=select))


def training_table(arm: str, seeds: list[int], num_labels: np.ndarray, history: History) -> pd.DataFrame:
    """The score while the learner trained, one row a measurement: arm, seed, round, num_labels, update, value."""
    frames = []
    for update, values in history.by_update.items():
        seed, index = np.nonzero(~np.isnan(values))
        columns = dict(arm=arm, seed=np.array(seeds)[seed], round=index, num_labels=num_labels[index])
        frames.append(pd.DataFrame(columns | dict(update=update, value=values[seed, index])))
    return pd.concat(frames).sort_values(["seed", "round", "update"], kind="stable")


def measures_table(arm: str, seeds: list[int], history: History) -> pd.DataFrame:
    """What the strategy measured of a sample of the rows left at the end: arm, seed, and a column a measure."""
    first = next(iter(history.measured.values()))
    seed, _ = np.nonzero(~np.isnan(first))
    columns = {name: values[~np.isnan(first)] for name, values in history.measured.items()}
    return pd.DataFrame(dict(arm=arm, seed=np.array(seeds, int)[seed]) | columns)


def explanations_table(arm: str, seeds: list[int], history: History) -> pd.DataFrame:
    """Labelled examples that say most for, and against, the class predicted for some validation images.

    One row an example: arm, seed, image (its row in the validation split), predicted, kind, rank, row (in the training
    set) and value, what the example adds to the logit.
    """
    frames = []
    for kind in ("supporting", "opposing"):
        rows, values = history.explained[kind], history.explained[f"{kind}_values"]
        seed, image, rank = (index.ravel() for index in np.indices(rows.shape))
        columns = dict(arm=arm, seed=np.array(seeds)[seed], image=image)
        columns |= dict(predicted=history.explained["predicted"][seed, image], kind=kind, rank=rank)
        frames.append(pd.DataFrame(columns | dict(row=rows.ravel(), value=values.ravel())))
    return pd.concat(frames).sort_values(["seed", "image"], kind="stable")


def correlations(measures: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation of each measure with importance: mean and spread over seeds, one row an arm."""
    lines = []
    for arm, rows in measures.groupby("arm", sort=False):
        others = [name for name in rows.columns if name not in ("arm", "seed", "importance")]
        found = {
            name: [scipy.stats.spearmanr(own.importance, own[name]).statistic for _, own in rows.groupby("seed")]
            for name in others
        }
        lines.append(
            {"arm": arm} | {name: f"{np.mean(each):+.2f} ± {np.std(each):.2f}" for name, each in found.items()}
        )
    return pd.DataFrame(lines)


def choose(metrics: pd.DataFrame, tuned: dict[str, list[str]]) -> dict:
    """Of each list of arms the one of the largest mean TUNED_BY; ties go to the first.

    Returns:
        name -> `arm`, the one chosen, and `areas`, arm -> the mean that it was chosen by.
    """
    means = seed_quantities(metrics)[TUNED_BY].groupby("arm", sort=False).mean()
    areas = {name: {arm: float(means[arm]) for arm in arms} for name, arms in tuned.items()}
    return {name: dict(arm=max(each, key=each.get), areas=each) for name, each in areas.items()}


def tuned_table(summary: dict) -> pd.DataFrame:
    """The arms among which validation data chose, one row each."""
    return pd.DataFrame(
        dict(arm=arm, mean=f"{100 * area:.2f}", chosen="yes" if arm == each["arm"] else "")
        for each in summary["tuned"].values()
        for arm, area in each["areas"].items()
    )
