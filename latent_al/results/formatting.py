"""The summary as texts, for the terminal and the page."""

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from latent_al.results.metrics import METRICS
from latent_al.types import BALANCED

GAP, P = " - baseline [95 %]", " p (Holm)"
"""The ends of a quantity's other columns in `arms_table`."""
WIDTH = 80
"""Columns of a terminal."""


def format_table(summary: dict) -> str:
    """Returns the summary as text of 80 columns, with a table for each quantity and a line for each arm."""
    arms = arms_table(summary)
    console = Console(width=WIDTH, color_system=None, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        for name in arms.columns[1:]:
            if not name.endswith((GAP, P)):
                console.print(_of_quantity(arms, name))
        console.print(f"({note(summary)})")
    return captured.get().rstrip()


def _of_quantity(arms, name):
    columns = [column for column in (name, name + GAP, name + P) if column in arms]
    table = Table(Column("arm", overflow="fold"), box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column.removeprefix(f"{name} ") if column != name else name, justify="right", no_wrap=True)
    for values in arms[["arm", *columns]].itertuples(index=False):
        table.add_row(*values)
    return table


def note(summary: dict, balanced: bool = False) -> str:
    """Returns the unit and the meaning of the numbers of `arms_table`."""
    metric = METRICS[BALANCED if balanced else summary["metric"]]
    areas = [
        f"{name}: mean {'test' if 'test' in name else 'validation'} {metric.name} over the labels queried"
        for name in _measured(summary, balanced)
        if name.endswith("area")
    ]
    return "; ".join([metric.unit, *areas, "differences are paired by seed", f"intervals: {summary['interval']}"])


def arms_table(summary: dict, balanced: bool = False) -> pd.DataFrame:
    """Returns the summary as texts, one row per arm, in the unit of the metric.

    Its columns are the quantities of the main metric that were measured, or else the balanced ones; empty without any.
    """
    scale = METRICS[summary["metric"]].scale
    baseline = summary["baseline"]
    names = _measured(summary, balanced)
    lines = []
    for arm, spread in summary["arms"].items() if names else ():
        line = {"arm": arm + (" (baseline)" if arm == baseline else "")}
        for name in names:
            line[name] = _mean(spread[name], scale)
        for name in names if arm != baseline else ():
            gap = summary["differences"][arm][name]
            line[name + GAP] = _interval(gap, scale)
            line[name + P] = "" if gap["p_holm"] is None else f"{gap['p_holm']:.2g}"
        lines.append(line)
    return pd.DataFrame(lines).fillna("")


def _measured(summary, balanced):
    """Returns the names of the quantities of the main metric that were measured, or else of the balanced ones."""
    spreads = summary["arms"][summary["baseline"]]
    return [
        name for name, spread in spreads.items() if ("balanced_" in name) == balanced and spread["mean"] is not None
    ]


def encoders_table(summary: dict) -> pd.DataFrame:
    """Returns the trained encoders, one row each: dimensions, how many are used, and the losses of the last epoch."""
    return pd.DataFrame([{"encoder": name} | facts for name, facts in summary["encoders"].items()])


def _mean(spread, scale):
    if spread["mean"] is None:
        return ""
    mean = f"{scale * spread['mean']:.2f}"
    return mean if spread["std"] is None else f"{mean} ± {scale * spread['std']:.2f}"


def _interval(gap, scale):
    if gap["mean"] is None:
        return ""
    mean = f"{scale * gap['mean']:+.2f}"
    return mean if gap["low"] is None else f"{mean} [{scale * gap['low']:+.2f}, {scale * gap['high']:+.2f}]"
