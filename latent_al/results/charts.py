"""Line charts of the page: the numbers of their curves, and where each mark of the SVG lies.

Lines have the colours of `plots.COLOURS`, from the page's style sheet, and also dashes and marks to tell them apart.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy
from matplotlib.ticker import MaxNLocator
from rich.cells import cell_len

from latent_al.results.intervals import mean_interval
from latent_al.results.metrics import METRICS, Metric, main_metric
from latent_al.results.plots import COLOURS
from latent_al.types import BALANCED

DASHES = ("", "7 3", "7 3 2 3", "2 3")
MARKS = ("M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z", "M-3-3h6v6h-6z", "M0-4L4 3H-4z", "M0-4L4 0L0 4L-4 0z")
"""A disc, a square, a triangle and a diamond around the origin."""
PLOT_WIDTH = 560
MARGIN_LEFT, MARGIN_TOP, MARGIN_BOTTOM = 64, 14, 48
LINE_HEIGHT = 17
"""Of the names next to the lines, in pixels."""
MAX_BANDS = 4
"""With more arms than this, an interval is drawn only while its arm is pointed at."""


class Curve(NamedTuple):
    """One line: its arm, its number among all arms, and a row per checkpoint: num_labels, mean, low and high.

    The ends of an interval are NaN where there is none. Values are in the metric's unit.
    """

    arm: str
    index: int
    points: pd.DataFrame


class Mark(NamedTuple):
    """A checkpoint of a line: where it lies, in pixels, and the text shown while it is pointed at."""

    x: float
    y: float
    title: str


class Line(NamedTuple):
    """A drawn curve: the CSS class of its colour, its dash, its mark, its paths, and the height of its name."""

    arm: str
    colour: str
    dash: str
    mark: str
    path: str
    band: str
    marks: list[Mark]
    name_y: float


class Column(NamedTuple):
    """The strip of the chart around one number of labels, with what all arms have there."""

    left: float
    width: float
    x: float
    title: str


class Chart(NamedTuple):
    """A chart as its template draws it; lengths are in pixels.

    ticks are (place, text); `zero_y` is the height of the baseline in a chart of differences, and None in others.
    """

    caption: str
    y_label: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    zero_y: float | None
    columns: list[Column]
    lines: list[Line]
    has_many: bool
    numbers: pd.DataFrame


def learning_charts(metrics: pd.DataFrame) -> list[Chart]:
    """Returns the charts of the scores over labels: on validation, also balanced, on test and on the labelled rows."""
    main = main_metric(metrics)
    charts = []
    for metric, split in ((main, "validation"), (BALANCED, "validation"), (main, "test"), (main, "labelled")):
        scores = metrics[(metrics.metric == metric) & (metrics.split == split)]
        if scores.num_labels.nunique() > 1:
            of = METRICS[metric]
            name = f"{of.name} on the labelled images" if split == "labelled" else f"{split} {of.name}"
            charts.append(draw(_curves(scores, of, list(metrics.arm.unique())), name[0].upper() + name[1:], of))
    return charts


def gap_chart(gaps: pd.DataFrame, metrics: pd.DataFrame, baseline: str, split: str = "validation") -> Chart:
    """Returns the chart of the differences from the baseline over labels; `gaps` are those of `gaps_table`."""
    metric = METRICS[main_metric(metrics)]
    columns = ["mean", "low", "high"]
    curves = []
    for index, arm in enumerate(metrics.arm.unique()):
        rows = gaps[gaps.arm == arm].dropna(subset=["mean"])
        if len(rows):
            points = rows[["num_labels"]].join(metric.scale * rows[columns].astype(float))
            curves.append(Curve(arm, index, points.reset_index(drop=True)))
    name = f"{split.capitalize()} {metric.name}, difference from {baseline}"
    return draw(curves, name, metric, baseline=baseline)


def _curves(scores, metric, arms):
    """Returns the curve of each arm: means over seeds with their intervals, which stay in the range of the metric."""
    curves = []
    for index, arm in enumerate(arms):
        rows = scores[scores.arm == arm]
        if len(rows):
            values = rows.pivot(index="num_labels", columns="seed", values="value").dropna()
            table = values.to_numpy(float)
            ends = mean_interval(table) if table.shape[1] > 1 else (np.full(len(table), np.nan),) * 2
            low, high = (metric.scale * np.clip(end, 0, metric.top) for end in ends)
            columns = dict(num_labels=values.index, mean=metric.scale * table.mean(axis=1), low=low, high=high)
            curves.append(Curve(arm, index, pd.DataFrame(columns)))
    return curves


def draw(curves: Sequence[Curve], caption: str, metric: Metric, baseline: str | None = None) -> Chart:
    """Returns the chart of some curves; with a `baseline` they are differences from it."""
    signed, unit = ("+", metric.gap_unit) if baseline else ("", metric.sign)
    height = max(330, LINE_HEIGHT * (len(curves) + 1))
    right, bottom = MARGIN_LEFT + PLOT_WIDTH, MARGIN_TOP + height
    num_labels = np.unique(np.concatenate([curve.points.num_labels for curve in curves]))
    low, high = _range(curves, baseline)

    def x_of(labels):
        return MARGIN_LEFT + PLOT_WIDTH * (labels - num_labels[0]) / (num_labels[-1] - num_labels[0])

    def y_of(value):
        return bottom - height * (np.clip(value, low, high) - low) / (high - low)

    def read(point):
        return _text(point, unit, signed)

    x_ticks, y_ticks = _ticks(num_labels[0], num_labels[-1], integer=True), _ticks(low, high)
    decimals = max(0, int(np.ceil(-np.log10(y_ticks[1] - y_ticks[0]) - 1e-9)))
    return Chart(
        caption=caption,
        y_label=f"difference from {baseline} ({unit})" if baseline else f"{caption} ({unit})",
        width=right + 50 + 8 * max(cell_len(curve.arm) for curve in curves),
        height=bottom + MARGIN_BOTTOM,
        left=MARGIN_LEFT,
        right=right,
        top=MARGIN_TOP,
        bottom=bottom,
        x_ticks=[(x_of(tick), f"{tick:,.0f}") for tick in x_ticks],
        y_ticks=[(y_of(tick), f"{tick:{signed if tick else ''}.{decimals}f}") for tick in y_ticks],
        zero_y=y_of(0) if baseline else None,
        columns=_columns(curves, num_labels, x_of, read),
        lines=_lines(curves, x_of, y_of, read),
        has_many=len(curves) > MAX_BANDS,
        numbers=_numbers(curves, num_labels, read),
    )


def _range(curves, baseline):
    """Returns the values that the chart spans: all means, and only as much again of wide intervals."""
    means = np.concatenate([curve.points["mean"] for curve in curves] + ([[0]] if baseline else []))
    ends = np.concatenate([curve.points[["low", "high"]].to_numpy().ravel() for curve in curves] + [means])
    low, high = means.min(), means.max()
    # With two seeds an interval may be many times as wide as all that is compared.
    spread = max(high - low, 1.0)
    low, high = max(np.nanmin(ends), low - spread), min(np.nanmax(ends), high + spread)
    return low - 0.05 * spread, high + 0.05 * spread


def _ticks(low, high, integer=False):
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10], integer=integer).tick_values(low, high)
    return ticks[(ticks >= low) & (ticks <= high)]


def _text(point, unit, signed):
    """Returns "95.3 % [94.8, 95.8]", or "95.3 %" without an interval."""
    text = f"{point['mean']:{signed}.1f} {unit}"
    return text if np.isnan(point["low"]) else f"{text} [{point['low']:{signed}.1f}, {point['high']:{signed}.1f}]"


def _columns(curves, num_labels, x_of, read):
    """Returns a strip per checkpoint, with the arms from high to low."""
    edges = x_of(np.concatenate([num_labels[:1], (num_labels[1:] + num_labels[:-1]) / 2, num_labels[-1:]]))
    columns = []
    for index, labels in enumerate(num_labels):
        points = []
        for curve in curves:
            rows = curve.points[curve.points.num_labels == labels]
            points += [(curve.arm, row) for row in rows.to_dict("records")]
        points.sort(key=lambda arm_and_point: -arm_and_point[1]["mean"])
        lines = [f"{arm}: {read(point)}" for arm, point in points]
        title = "\n".join([f"{labels:,} labels", *lines])
        columns.append(Column(edges[index], edges[index + 1] - edges[index], x_of(labels), title))
    return columns


def _lines(curves, x_of, y_of, read):
    lines = []
    ends = [y_of(curve.points["mean"].iloc[-1]) for curve in curves]
    names = _spread(ends, MARGIN_TOP, y_of(-np.inf))
    for curve, name_y in zip(curves, names, strict=True):
        points = curve.points.to_dict("records")
        marks = [
            Mark(
                x_of(point["num_labels"]),
                y_of(point["mean"]),
                f"{curve.arm}, {point['num_labels']:,} labels: {read(point)}",
            )
            for point in points
        ]
        band = ""
        if not curve.points.low.isna().any():
            upper = [(x_of(point["num_labels"]), y_of(point["high"])) for point in points]
            lower = [(x_of(point["num_labels"]), y_of(point["low"])) for point in points]
            band = _path(upper + lower[::-1]) + "Z"
        lines.append(
            Line(
                arm=curve.arm,
                colour=f"c{curve.index % len(COLOURS)}",
                dash=DASHES[curve.index % len(DASHES)],
                mark=MARKS[curve.index // len(COLOURS) % len(MARKS)],
                path=_path([(mark.x, mark.y) for mark in marks]),
                band=band,
                marks=marks,
                name_y=name_y,
            )
        )
    return lines


def _spread(heights, top, bottom):
    """Returns heights in [top, bottom] near those of the lines' ends, in their order and at least a line apart."""
    order = np.argsort(heights, kind="stable")
    offsets = LINE_HEIGHT * np.arange(len(heights))
    rising = scipy.optimize.isotonic_regression(np.take(heights, order) - offsets).x
    places = np.clip(rising, top, bottom - offsets[-1])
    spread = np.empty(len(heights))
    spread[order] = places + offsets
    return spread.tolist()


def _path(points):
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _numbers(curves, num_labels, read):
    """Returns the numbers of the chart as texts, one row per checkpoint."""
    columns = [[f"{labels:,}" for labels in num_labels]]
    for curve in curves:
        by_labels = {point["num_labels"]: read(point) for point in curve.points.to_dict("records")}
        columns.append([by_labels.get(labels, "") for labels in num_labels])
    # A list, since an arm may be called "labels queried".
    names = ["labels queried", *(curve.arm for curve in curves)]
    return pd.DataFrame(list(zip(*columns, strict=True)), columns=names)
