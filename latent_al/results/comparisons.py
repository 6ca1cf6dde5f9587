"""Arms side by side over the labels queried: pairwise comparison, and how soon each arm reaches a score."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy

from latent_al.results.intervals import mean_interval
from latent_al.results.metrics import METRICS, main_metric
from latent_al.results.statistics import holm

LEVEL = 0.05
"""Significance level of a pairwise comparison."""
DECIMALS = 6
"""The decimals of a score, as in `metrics.csv`: equal scores tie, whatever the rounding of their means."""


class Curves(NamedTuple):
    """Validation scores at the checkpoints: the numbers of labels with which all arms and seeds have been scored.

    Attributes:
        arms: names, in the order of the table.
        num_labels: [checkpoints], increasing.
        scores: [arms checkpoints seeds], times `sign`, so that higher is better.
        sign: 1, or -1 for an error.
    """

    arms: list[str]
    num_labels: np.ndarray
    scores: np.ndarray
    sign: int


def compare_pairs(metrics: pd.DataFrame) -> dict:
    """Returns the share of the checkpoints at which one arm is significantly ahead of another on validation.

    A checkpoint is a number of labels that all arms and seeds have been scored with. At each, every pair of arms has a
    two-sided paired t-test over seeds; the p-values are Holm-corrected over all pairs and checkpoints together, and
    those of at most 5 % then count. Gaps that are alike in all seeds are a tie if they are zero, and certain otherwise.

    Source: the pairwise penalty matrix of Ash et al. (2020), Deep Batch Active Learning by Diverse, Uncertain Gradient
    Lower Bounds, section 4, which applies no correction.

    Args:
        metrics: as `tables.metrics_table` gives, of all arms.

    Returns:
        `penalties`, arm -> other -> the share at which the arm is ahead, and `ties`, arm -> other -> the share at which
        neither is, both in [0, 1]; nothing for fewer than two arms or two seeds, and where validation was not scored.
    """
    curves = _curves(metrics)
    num_arms, num_checkpoints, num_seeds = curves.scores.shape
    if num_arms < 2 or num_checkpoints == 0 or num_seeds < 2:
        return {}
    first, second = np.transpose(list(combinations(range(num_arms), 2)))
    ahead = _ahead((curves.scores[first] - curves.scores[second]).round(DECIMALS))
    shares = np.zeros((num_arms, num_arms))
    shares[first, second] = (ahead > 0).mean(axis=1)
    shares[second, first] = (ahead < 0).mean(axis=1)
    ties = np.zeros((num_arms, num_arms))
    ties[first, second] = ties[second, first] = (ahead == 0).mean(axis=1)
    return {"penalties": _by_pair(shares, curves.arms), "ties": _by_pair(ties, curves.arms)}


def labels_to_reach(metrics: pd.DataFrame, baseline: str, targets: Sequence[float]) -> list[dict]:
    """Returns the number of labels with which each arm's validation score first reaches each target.

    Args:
        metrics: as `tables.metrics_table` gives, of all arms.
        baseline: the arm whose mean score at the end is the last target.
        targets: scores, in the range of the metric.

    Returns:
        A dict for each target: `target`, the score; `source`, "reach" or "baseline"; and `arms`: arm -> `mean_curve`,
        the labels at which the mean over seeds reaches it, and `seed_median`, the median over seeds of the labels that
        each seed needs; None for never. Empty where validation was not scored.
    """
    curves = _curves(metrics)
    if not len(curves.num_labels):
        return []
    final = curves.scores.mean(axis=2).round(DECIMALS)[curves.arms.index(baseline), -1]
    reached = [dict(target=float(target), source="reach", arms=_needed(curves, target)) for target in targets]
    target = float(curves.sign * final)
    return [*reached, dict(target=target, source="baseline", arms=_needed(curves, target))]


def labels_to_match(metrics: pd.DataFrame, baseline: str) -> dict:
    """Returns the labels with which each arm is first at least as good on validation as the baseline is at the end.

    At each checkpoint an arm has a 95 % interval of its difference from the baseline's last score, paired by seed. The
    interval of its number of labels goes from the first checkpoint at which that one is not wholly worse than zero, to
    the first at which no part of it is worse than zero.

    Args:
        metrics: as `tables.metrics_table` gives, of all arms.
        baseline: the arm whose mean score at the end is to be matched.

    Returns:
        `target`, the score; `baseline_labels`, with which the baseline is first there; `last`, the labels at the end;
        and `arms`: arm -> `labels`, and `interval`, (low, high), or None with a single seed. Labels of None stand for
        more than `last`. Empty for a single arm or checkpoint, and where validation was not scored.
    """
    curves = _curves(metrics)
    num_arms, num_checkpoints, num_seeds = curves.scores.shape
    if num_arms < 2 or num_checkpoints < 2:
        return {}
    final = curves.scores[curves.arms.index(baseline), -1]
    reached = labels_to_reach(metrics, baseline, ())[-1]
    labels = {arm: needed["mean_curve"] for arm, needed in reached["arms"].items()}
    arms = {}
    for arm, scores in zip(curves.arms, curves.scores, strict=True):
        if arm != baseline:
            interval = _match_interval(curves.num_labels, scores - final) if num_seeds > 1 else None
            arms[arm] = dict(labels=labels[arm], interval=interval)
    last = int(curves.num_labels[-1])
    return dict(target=reached["target"], baseline_labels=labels[baseline], last=last, arms=arms)


def pairs_table(summary: dict) -> pd.DataFrame:
    """Returns the penalties and the ties as texts, a row and a column per arm; empty where the summary has none."""
    lines = []
    for arm, shares in summary.get("penalties", {}).items():
        cells = {other: f"{share:.2f} (ties {summary['ties'][arm][other]:.2f})" for other, share in shares.items()}
        lines.append([arm, *(cells.get(other, "") for other in summary["penalties"])])
    # A list, since an arm may be called "arm".
    return pd.DataFrame(lines, columns=["arm", *summary["penalties"]] if lines else None)


def reach_table(summary: dict) -> pd.DataFrame:
    """Returns the labels that each arm needs as texts, one row per arm: of the mean curve, and the median of seeds."""
    metric = METRICS[summary["metric"]]
    columns = {"arm": list(summary["arms"])} if summary["labels_to_reach"] else {}
    for reached in summary["labels_to_reach"]:
        whose = " (baseline at the end)" if reached["source"] == "baseline" else ""
        columns[f"{metric.scale * reached['target']:.2f} {metric.sign}{whose}"] = [
            f"{_text(needed['mean_curve'])} ({_text(needed['seed_median'])})" for needed in reached["arms"].values()
        ]
    return pd.DataFrame(columns)


def _curves(metrics):
    validation = metrics[(metrics.split == "validation") & (metrics.metric == main_metric(metrics))]
    table = validation.pivot(index="num_labels", columns=["arm", "seed"], values="value").dropna()
    arms = list(validation.arm.unique())
    sign = -1 if METRICS[main_metric(metrics)].is_error else 1
    scores = [table[arm].sort_index(axis=1).to_numpy(float) for arm in arms]
    # Without an arm there is nothing to stack.
    stacked = np.stack(scores) if arms else np.zeros((0, 0, 0))
    return Curves(arms, table.index.to_numpy(), sign * stacked.round(DECIMALS), sign)


def _ahead(gaps):
    """Returns the sign of the significant gaps between pairs of arms, [pairs checkpoints seeds], and 0 for the rest."""
    p_values = _paired_p(gaps.reshape(-1, gaps.shape[2]))
    is_significant = (holm(p_values) <= LEVEL).reshape(gaps.shape[:2])
    return np.where(is_significant, np.sign(gaps.mean(axis=2)), 0)


def _paired_p(gaps):
    """Returns the p-value of each row of gaps [tests seeds]; a t statistic needs gaps that differ."""
    p = np.where(gaps.any(axis=1), 0.0, 1.0)
    varied = np.ptp(gaps, axis=1) > 0
    if varied.any():
        p[varied] = scipy.stats.ttest_rel(gaps[varied], np.zeros_like(gaps[varied]), axis=1).pvalue
    return p


def _by_pair(shares, arms):
    """Returns arm -> other arm -> its share, of `shares` [arms arms]."""
    return {arm: {other: float(shares[i, j]) for j, other in enumerate(arms) if j != i} for i, arm in enumerate(arms)}


def _needed(curves, target):
    """Returns arm -> the labels that it needs for one target, of the mean curve and as the median over seeds."""
    height = curves.sign * round(target, DECIMALS)
    of_mean = _first(curves.num_labels, curves.scores.mean(axis=2).round(DECIMALS) >= height)
    of_seeds = _first(curves.num_labels, curves.scores.transpose(0, 2, 1) >= height)
    return {
        arm: dict(mean_curve=_count(of_mean[i]), seed_median=_count(np.median(of_seeds[i])))
        for i, arm in enumerate(curves.arms)
    }


def _match_interval(num_labels, gaps):
    """Returns the ends of the interval of the labels at which gaps [checkpoints seeds] reach zero."""
    low, high = mean_interval(gaps)
    return [_count(_first(num_labels, end.round(DECIMALS) >= 0)) for end in (high, low)]


def _first(num_labels, is_there):
    """Returns the labels of the first checkpoint that is True on the last axis of `is_there`; infinity if none is."""
    return np.where(is_there.any(axis=-1), num_labels[is_there.argmax(axis=-1)], np.inf)


def _count(number):
    if np.isinf(number):
        return None
    return int(number) if number == int(number) else float(number)


def _text(count):
    return "never" if count is None else str(count)
