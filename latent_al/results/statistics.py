"""Statistics over seeds: the quantities of each arm, and its differences from the baseline arm.

Paired differences have the intervals of `intervals` and signed-rank p-values (Wilcoxon, 1945), corrected as in Holm
(1979).
"""

import gc
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy

from latent_al.results import intervals
from latent_al.results.metrics import main_metric
from latent_al.types import BALANCED


def seed_quantities(metrics: pd.DataFrame) -> pd.DataFrame:
    """Returns the quantities that arms are compared by, one row for each arm and seed, in the unit of METRIC.

    `area` is the mean validation score over labels, and `test_METRIC` the test score at the end; `test_area` is there
    if the test split was scored in several rounds. For balanced accuracy they are `balanced_area`,
    `test_balanced_accuracy` and `balanced_test_area`. A quantity that was not measured, or an area over a single round,
    is NaN.
    """
    index = pd.MultiIndex.from_frame(metrics[["arm", "seed"]].drop_duplicates())
    columns = {}
    for metric, prefix in ((main_metric(metrics), ""), (BALANCED, "balanced_")):
        scores = metrics[metrics.metric == metric]
        if len(scores):
            columns |= _quantities(scores, metric, prefix)
    return pd.DataFrame({name: pd.Series(values, index=index) for name, values in columns.items()}, dtype=float)


def summarise(metrics: pd.DataFrame, baseline: str) -> dict:
    """Returns mean and sample standard deviation (ddof 1) of each arm, and its paired difference from the baseline.

    Args:
        metrics: as `tables.metrics_table` gives, of all arms.
        baseline: the arm that the others are compared with.
    """
    by_seed = seed_quantities(metrics)
    values = {arm: by_seed.loc[arm] for arm in metrics.arm.unique()}
    differences = {name: _differences(name, values, baseline) for name in by_seed.columns}
    return {
        "baseline": baseline,
        "metric": main_metric(metrics),
        "num_seeds": len(values[baseline]),
        "interval": intervals.NAME,
        "arms": {
            arm: {name: mean_and_std(column.to_numpy()) for name, column in table.items()}
            for arm, table in values.items()
        },
        "differences": {
            arm: {name: by_arm[arm] for name, by_arm in differences.items()} for arm in values if arm != baseline
        },
    }


def final_differences(metrics: pd.DataFrame, baseline: str) -> dict:
    """Returns how far each arm's score at the end is from the baseline's: on test, or on validation if there is none.

    Returns:
        `split`; and `arms`, arm -> the paired difference as in `summarise`. Empty for a single arm, and where neither
        split was scored.
    """
    scores = metrics[metrics.metric == main_metric(metrics)]
    split = next((split for split in ("test", "validation") if (scores.split == split).any()), None)
    if split is None or metrics.arm.nunique() < 2:
        return {}
    last = _by_seed(scores[scores.split == split]).value.last()
    values = {arm: last[arm].to_frame(split) for arm in metrics.arm.unique()}
    return {"split": split, "arms": _differences(split, values, baseline)}


def gaps_table(metrics: pd.DataFrame, baseline: str, split: str = "validation") -> pd.DataFrame:
    """Returns how far each arm's score on a held-out split is from that of the baseline arm with as many labels.

    Differences are paired by seed. Columns are arm, round, num_labels, mean, low and high, the last two the ends of the
    95 % interval of `intervals.mean_interval`.

    Args:
        metrics: as `tables.metrics_table` gives, of all arms.
        baseline: the arm that the others are compared with.
        split: which scores are compared; there is no difference at a number of labels at which it was not scored.
    """
    scores = metrics[(metrics.split == split) & (metrics.metric == main_metric(metrics))]
    curves = scores.pivot(index=["round", "num_labels"], columns=["arm", "seed"], values="value")
    rows = []
    for arm in metrics.arm.unique():
        if arm != baseline:
            for (index, num_labels), gaps in (curves[arm] - curves[baseline]).iterrows():
                gap = paired_difference(gaps.to_numpy(), np.zeros(len(gaps)))
                row = dict(arm=arm, round=index, num_labels=num_labels)
                rows.append(row | {name: gap[name] for name in ("mean", "low", "high")})
    return pd.DataFrame(rows, columns=["arm", "round", "num_labels", "mean", "low", "high"])


def paired_difference(values: np.ndarray | pd.Series, baseline: np.ndarray | pd.Series) -> dict:
    """Returns the mean of `values - baseline` [seeds], its 95 % interval and the Wilcoxon signed-rank p-value.

    The interval, `low` to `high`, is that of `intervals.mean_interval`. All are None where a value is missing, and so
    are the interval and `p` for fewer than two seeds.
    """
    gaps = np.asarray(values - baseline, float)
    nothing = {"mean": None, "low": None, "high": None, "p": None}
    if np.isnan(gaps).any():
        return nothing
    if len(gaps) < 2:
        return nothing | {"mean": gaps.mean()}
    ranks = _signed_ranks(gaps)
    p = scipy.stats.wilcoxon(ranks).pvalue if ranks.any() else 1.0
    interval = intervals.mean_interval(gaps)
    return {"mean": gaps.mean(), "low": interval.low, "high": interval.high, "p": p}


def mean_and_std(values: np.ndarray) -> dict:
    """Returns `mean` and `std`, the sample standard deviation (ddof 1), of `values` [seeds] as plain numbers.

    Both are None where a value is missing, and `std` for a single seed.
    """
    if np.isnan(values).any():
        return {"mean": None, "std": None}
    return _plain({"mean": values.mean(), "std": values.std(ddof=1) if len(values) > 1 else None})


def _signed_ranks(gaps):
    """Returns gaps [seeds] as whole numbers in their order, with their signs; those alike up to rounding tie."""
    sizes = np.abs(gaps)
    order = np.argsort(sizes)
    ranks = np.empty(len(gaps))
    ranks[order] = np.cumsum(np.diff(sizes[order], prepend=0) > intervals.SAME)
    return np.sign(gaps) * ranks


def _quantities(scores, metric, prefix):
    """Returns the columns of `seed_quantities` that one metric gives, under names with `prefix`."""
    test = scores[scores.split == "test"]
    columns = {
        f"{prefix}area": _areas(scores[scores.split == "validation"]),
        f"test_{metric}": _by_seed(test).value.last() if len(test) else np.nan,
    }
    if _by_seed(test)["round"].nunique().max() > 1:
        columns[f"{prefix}test_area"] = _areas(test)
    return columns


def _areas(curves):
    return _by_seed(curves)[["num_labels", "value"]].apply(_mean_height) if len(curves) else np.nan


def _by_seed(metrics):
    return metrics.groupby(["arm", "seed"], sort=False)


def _mean_height(curve):
    width = curve.num_labels.iloc[-1] - curve.num_labels.iloc[0]
    return np.trapezoid(curve.value, curve.num_labels) / width if width else np.nan


def _differences(name, values, baseline):
    """Returns arm -> the paired difference of one quantity from the baseline, Holm-corrected over the arms."""
    reference = values[baseline][name]
    gaps = {arm: paired_difference(table[name], reference) for arm, table in values.items() if arm != baseline}
    p_values = {arm: gap["p"] for arm, gap in gaps.items() if gap["p"] is not None}
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return {arm: _plain(gap | {"p_holm": corrected.get(arm)}) for arm, gap in gaps.items()}


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns p-values corrected for their number (Holm, 1979)."""
    from statsmodels.stats.multitest import multipletests

    # It collects garbage at each call, which takes a third of a second among JAX's many objects.
    gc.freeze()
    try:
        return multipletests(p_values, method="holm")[1] if len(p_values) else np.array([])
    finally:
        gc.unfreeze()


def _plain(numbers):
    return {name: None if number is None else float(number) for name, number in numbers.items()}
