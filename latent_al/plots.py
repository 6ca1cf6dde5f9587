"""Figures, one function each."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

# Okabe and Ito's palette, which stays apart for the colour-blind; line styles repeat the distinction.
COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
STYLES = ("-", "--", "-.", ":")


def learning_curves(metrics: pd.DataFrame, path: Path) -> None:
    """Accuracy over labels on validation and on what is labelled: mean over seeds, band of one standard deviation."""
    splits = [split for split in ("validation", "labelled") if (metrics.split == split).any()]
    figure = Figure(figsize=(5.5 * len(splits), 4), layout="constrained")
    for axes, split in zip(figure.subplots(1, len(splits), squeeze=False)[0], splits, strict=True):
        measured = metrics[metrics.split == split]
        for index, (arm, rows) in enumerate(measured.groupby("arm", sort=False)):
            curve = rows.groupby("num_labels").value.agg(["mean", "std"])
            colour = COLOURS[index % len(COLOURS)]
            style = STYLES[index % len(STYLES)]
            marker = "o" if len(curve) == 1 else None
            axes.plot(curve.index, 100 * curve["mean"], style, color=colour, label=arm, marker=marker)
            low, high = curve["mean"] - curve["std"], curve["mean"] + curve["std"]
            axes.fill_between(curve.index, 100 * low, 100 * high, color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel="labels bought", ylabel=f"{split} accuracy (%)")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    num_seeds = metrics.seed.nunique()
    figure.suptitle(f"Mean and one standard deviation over {num_seeds} seed{'s' if num_seeds > 1 else ''}")
    figure.savefig(path, dpi=110)
