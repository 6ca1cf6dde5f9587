"""Forecasts what a wanted accuracy still costs: labels from the learning curve, and time from the log of answers."""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from statsmodels.stats.proportion import proportion_confint

DRAWS = 4000
ROUNDS = 10
"""Last rounds that the learning curve is drawn through."""
FARTHEST = 100
"""The multiple of the labels so far beyond which a learning curve says nothing."""
PAUSE = 600
"""Seconds without an answer after which a person is taken to have done something else."""
FEWEST_GAPS = 10


def fewest_correct(num: int, target: float) -> int | None:
    """Returns how many of `num` audit images have to be correct to show `target`; None where all would not suffice.

    One slice serves all rounds, and asking again is a further chance to be wrong. So in each round the lower end of the
    exact 99 % interval has to reach the target, for 95 % over all of them.

    Source: Clopper and Pearson (1934).
    """
    lows, _ = proportion_confint(np.arange(num + 1), num, alpha=0.01, method="beta")
    enough = np.flatnonzero(lows >= target)
    return int(enough[0]) if len(enough) else None


def labels_to(
    target: float, correct: Bool[np.ndarray, "rounds m"], num_labels: Int[np.ndarray, " rounds"]
) -> dict | None:
    """Returns how many more labels accuracy takes to reach `target`, by the learning curve so far.

    The share of errors falls as a power of the labels towards an unknown floor. Many curves are drawn, with resampled
    audit images, noise like that of the rounds about a curve, and floors up to the fewest errors so far, lower ones
    more often. `median`, and `low` and `high`, between which 95 % of the curves lie, are None where the curves do not
    arrive within `FARTHEST` times the labels so far. Returns None for fewer than three rounds or two images.
    """
    num_rounds, num_images = correct.shape
    if num_rounds < 3 or num_images < 2 or num_labels[0] == num_labels[-1]:
        return None
    rng = np.random.default_rng(0)
    x = np.log(num_labels)
    resampled = rng.multinomial(num_images, np.full(num_images, 1 / num_images), DRAWS)
    # Half an image more, so that errors have a logarithm where there are none.
    errors = (resampled @ ~correct.T + 0.5) / (num_images + 1)
    errors = np.maximum(errors + rng.normal(size=errors.shape) * _noise(x, correct), 0.5 / num_images)
    floors = errors.min(axis=1) * rng.uniform(0, 1, DRAWS) ** 2
    labels = _labels_at(1 - target, x, errors, floors)
    labels[labels > FARTHEST * num_labels[-1]] = np.inf
    more = np.maximum(np.ceil(labels - num_labels[-1]), 0)
    low, median, high = np.quantile(more, [0.025, 0.5, 0.975], method="higher")
    return {name: _finite(value) for name, value in dict(median=median, low=low, high=high).items()}


def seconds_a_label(log: pd.DataFrame) -> float | None:
    """Returns the mean seconds that an answer takes, without pauses; None where the log does not say.

    They are those that Label Studio has measured, or else the time from answer to answer of one person. Answers that
    share a time have that of their file, which says nothing about when they were given.

    Args:
        log: `annotator`, `time` and `lead_time` of each answer, as in `labels.csv`.
    """
    measured = pd.to_numeric(log.lead_time.replace("", None)).dropna()
    measured = measured[measured <= PAUSE]
    if len(measured) >= FEWEST_GAPS:
        return float(measured.mean())
    alone = log.drop_duplicates(["annotator", "time"], keep=False)
    alone = alone.assign(time=pd.to_datetime(alone.time, utc=True, format="ISO8601")).sort_values("time")
    gaps = alone.groupby("annotator").time.diff().dt.total_seconds().dropna()
    gaps = gaps[gaps <= PAUSE]
    return float(gaps.mean()) if len(gaps) >= FEWEST_GAPS else None


def _noise(x, correct):
    """Returns the standard deviation of rounds about a line, beyond which a single round is off by luck."""
    accuracies = correct.mean(axis=1)
    residuals = accuracies - np.polyval(np.polyfit(x, accuracies, 1), x)
    return np.sqrt(residuals @ residuals / (len(x) - 2))


def _labels_at(error, x, errors, floors):
    """Returns the labels at which each curve has come down to `error`; infinity where it never does."""
    heights = errors - floors[:, None]
    # The logarithm of a small height is uncertain in proportion.
    weights = heights**2 / (heights**2).sum(axis=1, keepdims=True)
    centre, level = (weights * x).sum(axis=1), (weights * np.log(heights)).sum(axis=1)
    steps = x - centre[:, None]
    slopes = (weights * steps * np.log(heights)).sum(axis=1) / (weights * steps**2).sum(axis=1)
    arrives = (slopes < 0) & (floors < error)
    exponents = centre[arrives] + (np.log(error - floors[arrives]) - level[arrives]) / slopes[arrives]
    labels = np.full(len(floors), np.inf)
    labels[arrives] = np.exp(np.minimum(exponents, 50.0))
    return labels


def _finite(value):
    return int(value) if np.isfinite(value) else None
