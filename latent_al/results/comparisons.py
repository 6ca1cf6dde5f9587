"""Arms side by side over the labels queried: who is ahead of whom, and how soon a score is reached."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import scipy.stats
from statsmodels.stats.multitest import multipletests

from latent_al.results.tables import METRICS, main_metric

LEVEL = 0.05
"""At which a difference is significant."""
DECIMALS = 6
"""Of a score, as `metrics.csv` has them: equal scores tie, whatever the rounding of their means."""


def compare_pairs(metrics: pd.DataFrame) -> dict:
    """At which share of the checkpoints one arm is significantly ahead of another on validation.

    A checkpoint is a number of labels that all arms and seeds have been scored with. Each pair of arms has a two-sided
    paired t-test over seeds at each; the p-values are Holm-corrected over all pairs and checkpoints together, and what
    is then at most 5 % counts. Gaps that are alike in all seeds are a tie where they are zero, and certain elsewhere.

    Source: Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds, ICLR 2020, section 4:
    the pairwise penalty matrix, there without a correction.

    Args:
        metrics: as `results.metrics_table` gives, of all arms.

    Returns:
        `penalties`, arm -> other -> the share at which the arm is ahead, and `ties`, arm -> other -> the share at which
        neither is, both in [0, 1]; nothing for fewer than two arms or two seeds, and where validation was not scored.
    """
    arms, num_labels, curves = _curves(metrics)
    if len(arms) < 2 or not len(num_labels) or curves.shape[2] < 2:
        return {}
    first, second = np.transpose(list(combinations(range(len(arms)), 2)))
    gaps = (curves[first] - curves[second]).round(DECIMALS)
    p = _paired_p(gaps.reshape(-1, gaps.shape[2]))
    is_clear = multipletests(p, alpha=LEVEL, method="holm")[0].reshape(gaps.shape[:2])
    ahead = np.where(is_clear, np.sign(gaps.mean(axis=2)), 0)
    shares, ties = np.zeros((2, len(arms), len(arms)))
    shares[first, second], shares[second, first] = (ahead > 0).mean(axis=1), (ahead < 0).mean(axis=1)
    ties[first, second] = ties[second, first] = (ahead == 0).mean(axis=1)
    return {"penalties": _of_pairs(shares, arms), "ties": _of_pairs(ties, arms)}


def labels_to_reach(metrics: pd.DataFrame, baseline: str, targets: Sequence[float]) -> list[dict]:
    """With how many labels each arm's validation score is first at a target or beyond it: above, of an error below.

    Args:
        metrics: as `results.metrics_table` gives, of all arms.
        baseline: the arm whose mean score at the end is the last target.
        targets: scores, in the range of the metric.

    Returns:
        Of each target its `target`, whose it is as `source`, "reach" or "baseline", and `arms`: arm -> `mean_curve`,
        the labels at which the mean over seeds is there, and `seed_median`, the median of what the seeds need; None
        where that is never. Empty where validation was not scored.
    """
    arms, num_labels, curves = _curves(metrics)
    if not len(num_labels):
        return []
    upwards = _upwards(metrics)
    means = curves.mean(axis=2).round(DECIMALS)
    own = float(upwards * means[arms.index(baseline), -1])
    reached = []
    for target, source in [*((float(target), "reach") for target in targets), (own, "baseline")]:
        height = upwards * round(target, DECIMALS)
        of_mean = _first(num_labels, means >= height)
        of_seeds = np.median(_first(num_labels, curves.transpose(0, 2, 1) >= height), axis=1)
        each = {arm: dict(mean_curve=_count(of_mean[i]), seed_median=_count(of_seeds[i])) for i, arm in enumerate(arms)}
        reached.append(dict(target=target, source=source, arms=each))
    return reached


def pairs_table(summary: dict) -> pd.DataFrame:
    """The penalties and the ties as texts, a row and a column an arm; empty where the summary has none."""
    lines = []
    for arm, shares in summary.get("penalties", {}).items():
        cells = {other: f"{share:.2f} (ties {summary['ties'][arm][other]:.2f})" for other, share in shares.items()}
        lines.append({"arm": arm} | {other: cells.get(other, "") for other in summary["penalties"]})
    return pd.DataFrame(lines)


def reach_table(summary: dict) -> pd.DataFrame:
    """The labels that each arm needs as texts, one row an arm: of the mean curve, and the median over seeds."""
    shown = METRICS[summary["metric"]]
    columns = {"arm": list(summary["arms"])} if summary["labels_to_reach"] else {}
    for reached in summary["labels_to_reach"]:
        whose = " (baseline at the end)" if reached["source"] == "baseline" else ""
        needed = [[_text(each["mean_curve"]), _text(each["seed_median"])] for each in reached["arms"].values()]
        columns[f"{shown.scale * reached['target']:.2f} {shown.sign}{whose}"] = [f"{a} ({b})" for a, b in needed]
    return pd.DataFrame(columns)


def _upwards(metrics):
    return -1 if METRICS[main_metric(metrics)].is_error else 1


def _curves(metrics):
    """The arms, the labels of the checkpoints, and the validation scores [arms checkpoints seeds], higher is better."""
    measured = metrics[(metrics.split == "validation") & (metrics.metric == main_metric(metrics))]
    table = measured.pivot(index="num_labels", columns=["arm", "seed"], values="value").dropna()
    arms = list(dict.fromkeys(measured.arm))
    curves = [table[arm].sort_index(axis=1).to_numpy(float) for arm in arms]
    return arms, table.index.to_numpy(), _upwards(metrics) * np.round(curves, DECIMALS)


def _paired_p(gaps):
    """The p-value of each row of gaps [tests seeds]; a t statistic wants gaps that differ."""
    p = np.where(gaps.any(axis=1), 0.0, 1.0)
    varied = np.ptp(gaps, axis=1) > 0
    if varied.any():
        p[varied] = scipy.stats.ttest_rel(gaps[varied], np.zeros_like(gaps[varied]), axis=1).pvalue
    return p


def _of_pairs(shares, arms):
    cells = {arm: dict(zip(arms, map(float, row), strict=True)) for arm, row in zip(arms, shares, strict=True)}
    return {arm: {other: share for other, share in row.items() if other != arm} for arm, row in cells.items()}


def _first(num_labels, is_there):
    """The labels of the first checkpoint, on the last axis of `is_there`, that is; infinity where none is."""
    return np.where(is_there.any(axis=-1), num_labels[is_there.argmax(axis=-1)], np.inf)


def _count(number):
    if np.isinf(number):
        return None
    return int(number) if number == int(number) else float(number)


def _text(count):
    return "never" if count is None else str(count)
