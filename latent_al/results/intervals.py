"""The interval of a mean paired difference over few seeds, whose gaps may be skewed.

`benchmarks/intervals.py` measures how often this and other intervals hold the true mean; docs/results.md has the
findings.
"""

from typing import NamedTuple

import numpy as np
import scipy

NAME = "95 %, at each end the wider of Student's t and bootstrap-t"
"""The interval as the results name it."""
NUM_RESAMPLES = 5_000
SAME = 2e-6
"""Gaps that differ by no more are alike: scores are float32, and have six decimals in `metrics.csv`."""


class Interval(NamedTuple):
    """The ends of intervals.

    Attributes:
        low: [...].
        high: [...].
    """

    low: np.ndarray
    high: np.ndarray


def mean_interval(gaps: np.ndarray) -> Interval:
    """Returns the 95 % interval of the mean over the last axis of `gaps` [... seeds], two seeds or more.

    Each end is the farther one of two intervals: that of Student's t, which covers normal gaps but not skewed ones, and
    that of the bootstrap-t, which covers skewed gaps but not if they are few or many of them are equal. Gaps that are
    all alike have an interval of one point. All gaps and calls use the same resamples.

    Source: Student (1908); Efron and Tibshirani (1993), section 12.5.

    Args:
        gaps: [... seeds], paired differences; any unit.
    """
    num_seeds = gaps.shape[-1]
    means, deviations = gaps.mean(axis=-1), gaps.std(axis=-1, ddof=1)
    errors = np.where(np.ptp(gaps, axis=-1) > SAME, deviations, 0) / np.sqrt(num_seeds)
    standard = (gaps - means[..., None]) / np.where(errors > 0, deviations, 1)[..., None]
    low, high = np.quantile(_resampled_t(standard), [0.025, 0.975], axis=-1)
    t = scipy.stats.t.ppf(0.975, num_seeds - 1)
    return Interval(means - errors * np.maximum(high, t), means - errors * np.minimum(low, -t))


def _resampled_t(standard):
    """Returns the t statistics [... resamples] of resamples of gaps of mean 0; 0 for a resample that is all one gap."""
    num_seeds = standard.shape[-1]
    rng = np.random.default_rng(0)
    weights = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), NUM_RESAMPLES).T / num_seeds
    means = standard @ weights
    variances = (standard**2 @ weights - means**2) / (num_seeds - 1)
    return np.where(variances > 1e-12, means, 0) / np.sqrt(np.where(variances > 1e-12, variances, 1))
