"""Figures of numbers, one function each: arrays or a table in, a PNG at `path` out."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from latent_al.results.metrics import METRICS

# Okabe and Ito's palette, which the colour-blind can tell apart; line styles or markers repeat the distinction.
COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
DPI = 110


def learning_curves(metrics: pd.DataFrame, path: Path) -> None:
    """Draws the score over labels on validation and on the labelled rows: mean over seeds, band of one deviation.

    `metrics` are of one metric.
    """
    metric = metrics.metric.iloc[0]
    splits = [split for split in ("validation", "labelled") if (metrics.split == split).any()]
    panels = {split: metrics[metrics.split == split] for split in splits}
    _mean_curves(panels, metric, "num_labels", "labels queried", path, size=(5.5, 4))


def training_curves(training: pd.DataFrame, metric: str, path: Path) -> None:
    """Draws the score over the steps of one training: mean over seeds, band of one standard deviation.

    `training` has columns arm, seed, step and value.
    """
    _mean_curves({"validation": training}, metric, "step", "training step", path, size=(8, 5))


def gap_curves(gaps: pd.DataFrame, metric: str, arms: Sequence[str], path: Path) -> None:
    """Draws how far each arm's validation score is from the baseline's over labels.

    `gaps` are as `statistics.gaps_table` gives, and `arms` are all that are compared: the one without gaps is the
    baseline, and the others look as in `learning_curves`. Bands are 95 % intervals of the mean gap.
    """
    scale = METRICS[metric].scale
    baseline = next(arm for arm in arms if arm not in set(gaps.arm))
    figure = Figure(figsize=(8, 4 + 0.1 * len(arms)), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="0.5", linewidth=0.8)
    for index, arm in enumerate(arms):
        if arm == baseline:
            continue
        rows = gaps[gaps.arm == arm]
        colour = COLOURS[index % len(COLOURS)]
        marker = MARKERS[index // len(COLOURS) % len(MARKERS)] if len(arms) > len(COLOURS) else None
        look = dict(linestyle=STYLES[index % len(STYLES)], color=colour, marker=marker, markersize=4)
        axes.plot(rows.num_labels, scale * rows["mean"], label=arm, **look)
        low = scale * rows.low.astype(float)
        high = scale * rows.high.astype(float)
        axes.fill_between(rows.num_labels, low, high, color=colour, alpha=0.15, linewidth=0)
    ylabel = f"validation {METRICS[metric].name}\nabove that of {baseline} ({METRICS[metric].gap_unit})"
    axes.set(xlabel="labels queried", ylabel=ylabel)
    axes.grid(alpha=0.3)
    lines = axes.get_lines()[1:]
    figure.legend(handles=lines, loc="outside lower center", ncols=min(4, len(lines)), fontsize="small", frameon=False)
    figure.suptitle("Mean difference, paired by seed, and its 95 % interval")
    save(figure, path)


def orders(points: dict[str, np.ndarray], queried: dict[str, np.ndarray], path: Path) -> None:
    """Draws the first and the last quarter of each arm's order, `queried` [n], among its `points` [n 2]."""
    figure, panels = _panels([f"{arm}: {end} quarter" for arm in points for end in ("first", "last")], height=2.7)
    for (first, last), (arm, where) in zip(zip(panels[::2], panels[1::2], strict=True), points.items(), strict=True):
        quarter = len(where) // 4
        for axes, rows, colour in ((first, queried[arm][:quarter], "C2"), (last, queried[arm][-quarter:], "C3")):
            axes.scatter(*where.T, s=3, linewidths=0, color="C0", alpha=0.4)
            axes.scatter(*where[rows].T, s=4, linewidths=0, color=colour)
            axes.tick_params(labelsize="x-small")
    figure.supxlabel("first principal component")
    figure.supylabel("second principal component")
    save(figure, path)


def single_runs(metrics: pd.DataFrame, path: Path) -> None:
    """Draws the validation score over labels, with a thin line per seed and a panel per arm.

    `metrics` are of one metric and have validation rows.
    """
    metric = metrics.metric.iloc[0]
    validation = metrics[metrics.split == "validation"]
    figure, panels = _panels(validation.arm.unique(), height=2.3, sharex=True, sharey=True)
    for axes, (_, rows) in zip(panels, validation.groupby("arm", sort=False), strict=True):
        for index, (_, run) in enumerate(rows.groupby("seed")):
            colour = COLOURS[index % len(COLOURS)]
            score = METRICS[metric].scale * run.value
            axes.plot(run.num_labels, score, color=colour, linewidth=0.7, marker="o", markersize=1.5)
        axes.grid(alpha=0.3)
    figure.supxlabel("labels queried")
    figure.supylabel(_axis("validation", metric))
    figure.suptitle(f"One line per seed, {validation.seed.nunique()} in all")
    save(figure, path)


def latent_classes(latents: np.ndarray, labels: np.ndarray, kind: str, path: Path) -> None:
    """Draws where each class, or cluster, as `kind` says, of `labels` [n], ints, lies in `latents` [n 2]."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    _dots(axes, latents, labels, np.unique(labels), size=9, alpha=0.6)
    axes.set(xlabel="first latent", ylabel="second latent", aspect="equal")
    handles, names = axes.get_legend_handles_labels()
    _dots_legend(figure, handles, names, kind)
    save(figure, path)


def latent_angles(latents: np.ndarray, angles: np.ndarray, path: Path) -> None:
    """Draws where each angle [n] in degrees lies in `latents` [n 2]."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    dots = axes.scatter(
        latents[:, 0], latents[:, 1], c=angles, cmap="hsv", vmin=0, vmax=360, s=9, alpha=0.6, linewidths=0
    )
    axes.set(xlabel="first latent", ylabel="second latent", aspect="equal")
    figure.colorbar(dots, ax=axes, label="angle (°)", ticks=np.arange(0, 361, 90)).solids.set_alpha(1)
    save(figure, path)


def queried_latents(
    latents: dict[str, np.ndarray], labels: dict[str, np.ndarray | None], queried: dict[str, np.ndarray], path: Path
) -> None:
    """Draws where each arm's queries [k 2] lie in its `latents` [n 2], coloured by class, `labels` [n], or all grey.

    Far latents are left out, so that a few do not shrink the rest; far queries are moved to the frame and marked as
    such.
    """
    figure, panels = _panels(latents, height=2.7)
    labelled = [classes for classes in labels.values() if classes is not None]
    classes = np.unique(np.concatenate(labelled)) if labelled else []
    for axes, (arm, points) in zip(panels, latents.items(), strict=True):
        if labels[arm] is None:
            axes.scatter(points[:, 0], points[:, 1], s=3, linewidths=0, color="0.7")
        else:
            _dots(axes, points, labels[arm], classes, size=3, alpha=0.35)
        _query_marks(axes, points, queried[arm])
        axes.tick_params(labelsize="x-small")
    _query_legends(figure, panels)
    figure.supxlabel("first latent")
    figure.supylabel("second latent")
    save(figure, path)


def latent_ranges(latents: np.ndarray, path: Path) -> None:
    """Draws how many dimensions of `latents` [n d] reach how far down and up: those near zero are not used."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    ends = {"minimum": latents.min(axis=0), "maximum": latents.max(axis=0)}
    for axes, (name, values) in zip(figure.subplots(1, 2, sharey=True), ends.items(), strict=True):
        axes.hist(values, bins=30, color=COLOURS[2])
        axes.set(xlabel=f"{name} of a dimension over {len(latents):,} images", ylabel="latent dimensions")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.label_outer()
    save(figure, path)


def representativeness_histograms(measures: dict[str, np.ndarray], path: Path) -> None:
    """Draws how each measure's values, [n] in [0, 1], are spread over the images."""
    figure, panels = _panels(measures, height=2.2, sharex=True)
    for axes, values in zip(panels, measures.values(), strict=True):
        # Rounding may leave a value just outside [0, 1], where no bin would count it.
        counts, edges = np.histogram(np.clip(values, 0, 1), bins=40, range=(0, 1))
        axes.stairs(100 * counts / len(values), edges, fill=True, color=COLOURS[2])
        axes.set_xlim(0, 1)
    figure.supxlabel("representativeness (1: most)")
    figure.supylabel("share of images (%)")
    save(figure, path)


def representativeness_maps(latents: np.ndarray, measures: dict[str, np.ndarray], path: Path) -> None:
    """Draws each measure's values, [n] in [0, 1], as the colours of `latents` [n 2]."""
    figure, panels = _panels(measures, height=2.7, sharex=True, sharey=True)
    for axes, values in zip(panels, measures.values(), strict=True):
        # Opaque: if transparent, a colour would no longer be the bar's.
        points = axes.scatter(latents[:, 0], latents[:, 1], c=values, s=3, linewidths=0, cmap="viridis", vmin=0, vmax=1)
        axes.set_aspect("equal")
    _colour_bar(figure, panels, points, "representativeness (1: most)")
    figure.supxlabel("first latent")
    figure.supylabel("second latent")
    save(figure, path)


def queried_classes(counts: pd.DataFrame, path: Path) -> None:
    """Draws how many of each class every arm queries in each round.

    `counts` has columns arm, round, label and count, a mean over seeds; what has no row counts as zero.
    """
    figure, panels = _panels(counts.arm.unique(), height=2.3, sharex=True, sharey=True)
    rounds = np.arange(counts["round"].min(), counts["round"].max() + 1)
    labels = np.arange(counts["label"].min(), counts["label"].max() + 1)
    extent = (rounds[0] - 0.5, rounds[-1] + 0.5, labels[0] - 0.5, labels[-1] + 0.5)
    most = counts["count"].max()
    for axes, (_, rows) in zip(panels, counts.groupby("arm", sort=False), strict=True):
        table = rows.pivot(index="label", columns="round", values="count")
        table = table.reindex(index=labels, columns=rounds).fillna(0)
        image = axes.imshow(
            table,
            origin="lower",
            aspect="auto",
            extent=extent,
            cmap="cividis",
            vmin=0,
            vmax=most,
            interpolation="nearest",
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    _colour_bar(figure, panels, image, "queries per round (mean over seeds)")
    figure.supxlabel("round")
    figure.supylabel("class")
    save(figure, path)


def class_distributions(counts: pd.DataFrame, path: Path) -> None:
    """Draws how many of each class every arm has queried, next to what the pool's own shares would give.

    `counts` has columns arm, label, count (a mean over seeds), std (over seeds, may be NaN) and pool (expected count).
    """
    figure, panels = _panels(counts.arm.unique(), height=2.2, sharex=True, sharey=True)
    for axes, (_, rows) in zip(panels, counts.groupby("arm", sort=False), strict=True):
        label = rows["label"].to_numpy()
        count = rows["count"].to_numpy()
        std = rows["std"].to_numpy()
        bars = axes.bar(label, count, width=0.8, color=COLOURS[6])
        # No count is below zero.
        spread = np.stack([np.minimum(std, count), std])
        axes.errorbar(label, count, spread, fmt="none", ecolor=COLOURS[0], elinewidth=0.8, capsize=1.5)
        expected = axes.hlines(rows.pool, label - 0.45, label + 0.45, color=COLOURS[4], linewidth=1.5)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    axes.set_xlim(counts.label.min() - 0.5, counts.label.max() + 0.5)
    names = ["queried", "expected from the pool's shares"]
    figure.legend([bars, expected], names, loc="outside upper center", ncols=2, frameon=False)
    figure.supxlabel("class")
    figure.supylabel("queries (mean ± std)" if counts["std"].notna().any() else "queries")
    save(figure, path)


def importance(measures: pd.DataFrame, path: Path) -> None:
    """Draws the importance of rows against their entropy and their confidence; two panels for every arm."""
    measures_beside = ("entropy", "confidence")
    arms = list(dict.fromkeys(measures.arm))
    figure, panels = _panels([f"{arm}: {other}" for arm in arms for other in measures_beside], height=2.7)
    for axes, (arm, other) in zip(panels, [(arm, other) for arm in arms for other in measures_beside], strict=True):
        rows = measures[measures.arm == arm]
        axes.scatter(rows[other], rows.importance, s=4, linewidths=0, alpha=0.5)
        correlation = rows[[other, "importance"]].corr(method="spearman").iloc[0, 1]
        # There is none if a measure is equal in all rows.
        if not np.isnan(correlation):
            axes.set_title(f"{axes.get_title()}\nrank correlation {correlation:+.2f}", fontsize="small")
        axes.tick_params(labelsize="x-small")
    figure.supylabel("importance")
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Writes the figure with a tight layout, so that no name is cut off, however long."""
    figure.savefig(path, dpi=DPI, bbox_inches="tight")


def _axis(split, metric):
    return f"{split} {METRICS[metric].name} ({METRICS[metric].sign})"


def _mean_curves(panels, metric, over, xlabel, path, *, size):
    """Draws a panel of `size` inches for each split -> measurements, which have columns arm, seed, value and `over`."""
    rows = pd.concat(panels.values())
    arms = list(rows.arm.unique())
    width = size[0] * len(panels)
    columns = max(1, int(width / (0.7 + 0.08 * max(map(len, arms)))))
    figure = Figure(figsize=(width, size[1] + 0.2 * len(arms) / columns), layout="constrained")
    for axes, split in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _arm_curves(axes, panels[split], over, arms, METRICS[metric])
        axes.set(xlabel=xlabel, ylabel=_axis(split, metric))
        axes.grid(alpha=0.3)
    figure.legend(
        handles=axes.get_lines(),
        loc="outside lower center",
        ncols=min(columns, len(arms)),
        fontsize="small",
        handlelength=3,
        frameon=False,
    )
    num_seeds = rows.seed.nunique()
    figure.suptitle(f"Mean and one standard deviation over {num_seeds} seed{'s' if num_seeds > 1 else ''}")
    save(figure, path)


def _arm_curves(axes, measured, over, arms, metric):
    for index, arm in enumerate(arms):
        curve = measured[measured.arm == arm].groupby(over).value.agg(["mean", "std"])
        colour = COLOURS[index % len(COLOURS)]
        is_marked = len(arms) > len(COLOURS) or len(curve) == 1
        step = max(1, len(curve) // 8)
        axes.plot(
            curve.index,
            metric.scale * curve["mean"],
            STYLES[index % len(STYLES)],
            color=colour,
            label=arm,
            marker=MARKERS[index // len(COLOURS) % len(MARKERS)] if is_marked else None,
            markersize=4,
            markevery=(index % step, step),
        )
        low = metric.scale * (curve["mean"] - curve["std"]).clip(0, metric.top)
        high = metric.scale * (curve["mean"] + curve["std"]).clip(0, metric.top)
        axes.fill_between(curve.index, low, high, color=colour, alpha=0.15, linewidth=0)


def _panels(names, *, height, **sharing):
    """Returns a figure and its axes, a titled panel per name, at most four side by side, each `height` inches high."""
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.6 * columns + 1, height * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **sharing).ravel()
    for spare in grid[len(names) :]:
        spare.remove()
    panels = list(grid[: len(names)])
    for axes, name in zip(panels, names, strict=True):
        # A name also wraps at its underscores.
        axes.set_title(textwrap.fill(name.replace("_", "_ "), 34).replace("_ ", "_"), fontsize="small")
    for axes in panels[-columns:]:
        axes.tick_params(labelbottom=True)
    return figure, panels


def _dots(axes, latents, labels, classes, *, size, alpha):
    """Scatters `latents` [n 2], one look for each of `classes`."""
    for index, label in enumerate(classes):
        colour = COLOURS[index % len(COLOURS)]
        # Hollow when the colours are used again.
        face = colour if index // len(COLOURS) % 2 == 0 else "none"
        points = latents[labels == label]
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=size,
            alpha=alpha,
            label=label,
            facecolors=face,
            edgecolors=colour,
            linewidths=0.5,
            marker=MARKERS[index % len(MARKERS)],
        )


def _dots_legend(figure, dots, names, title):
    columns = -(-len(names) // 25)
    legend = figure.legend(dots, names, title=title, loc="outside right center", ncols=columns, frameon=False)
    for handle in legend.legend_handles:
        handle.set_alpha(1)
        handle.set_sizes([55])


def _query_legends(figure, panels):
    """Adds one legend of the marks of queries above all panels, and one of the classes, if any, to their right."""
    looks = {}
    for axes in panels:
        handles, names = axes.get_legend_handles_labels()
        looks |= dict(zip(names, handles, strict=True))
    marks = {name: looks.pop(name) for name in ("query", "query beyond the frame") if name in looks}
    figure.legend(marks.values(), marks.keys(), loc="outside upper center", ncols=2, frameon=False)
    if looks:
        _dots_legend(figure, looks.values(), looks.keys(), "class")


def _query_marks(axes, points, queries):
    """Marks `queries` [k 2] in the frame; those beyond it are moved to its edge and marked as such."""
    low, high = _frame(points, queries)
    is_beyond = ((queries < low) | (queries > high)).any(axis=1)
    within = queries[~is_beyond]
    look = dict(facecolors="white", edgecolors="black", clip_on=False, zorder=3)
    size = np.clip(1800 / max(len(queries), 1), 4, 18)
    axes.scatter(within[:, 0], within[:, 1], s=size, linewidths=0.15 * size**0.5, label="query", **look)
    if is_beyond.any():
        moved = np.clip(queries[is_beyond], low, high)
        look |= dict(marker="D", linewidths=0.6, label="query beyond the frame")
        axes.scatter(moved[:, 0], moved[:, 1], s=18, **look)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")


def _frame(points, queries):
    """Returns two corners of a square around most of `points` [n 2] and whatever query is not far from those."""
    low, high = np.percentile(points, [0.5, 99.5], axis=0)
    reach = (high - low) / 2
    inside = np.concatenate([[low, high], np.clip(queries, low - reach, high + reach)])
    bottom = inside.min(axis=0)
    top = inside.max(axis=0)
    centre = (bottom + top) / 2
    half = 0.53 * (top - bottom).max() or 1.0
    return centre - half, centre + half


def _colour_bar(figure, panels, drawn, label):
    """Adds one bar next to all panels, equally thick however many rows they make."""
    figure.colorbar(drawn, ax=panels, label=label, aspect=12 * panels[0].get_gridspec().nrows)
