"""The metrics of the results: their names, ranges and units."""

from typing import NamedTuple

import pandas as pd

from latent_al.types import BALANCED


class Metric(NamedTuple):
    """A metric as tables and figures print it: values from 0 to `top`, times `scale` in `unit`, for short `sign`.

    is_error: whether the smallest value is the best one.
    """

    name: str
    top: float
    scale: float
    unit: str
    sign: str
    is_error: bool = False

    @property
    def gap_unit(self) -> str:
        """The unit of a difference: that of two shares is not a percentage of either."""
        return "points" if self.sign == "%" else self.unit


METRICS = {
    "accuracy": Metric("accuracy", 1.0, 100.0, "percent", "%"),
    BALANCED: Metric("balanced accuracy", 1.0, 100.0, "percent", "%"),
    "angular_error": Metric("mean absolute angular error", 180.0, 1.0, "degrees", "°", is_error=True),
}


def main_metric(metrics: pd.DataFrame) -> str:
    """Returns the metric of `metrics` that the learner is scored by, not the balanced accuracy that comes with it."""
    return next(metric for metric in metrics.metric.unique() if metric != BALANCED)
