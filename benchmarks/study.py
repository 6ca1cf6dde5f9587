"""The study of docs/which_strategy.md: runs configs/study.py on all sets, and prints what docs/results.md has of it.

    python benchmarks/study.py --workdir=runs/study --mnist=DIR --cifar10=DIR --trashnet=DIR --network=NETWORK
    python benchmarks/study.py --workdir=runs/study --tables [--figure=which_strategy.png]

A set whose images are not given is left out. It goes on where it was stopped. `--tables` runs nothing: it reads the
runs that are complete, whatever made their latents. Differences from random are paired by seed, in points of held-out
accuracy, with the 95 % intervals of latent_al/results/intervals.py.
"""

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from latent_al.results.comparisons import labels_to_reach
from latent_al.results.plots import save
from latent_al.results.statistics import paired_difference

ROOT = Path(__file__).parents[1]
SETS = ("digits", "mnist", "cifar10", "trashnet")
BASELINE = "random"
AT = (1, 5, 21, 41, 61, 101)
"""Labels a class at which tables have a column."""
BUDGETS = {"1 to 5": (1, 5), "9 to 21": (9, 21), "25 and more": (25, np.inf)}
"""Labels a class, in words -> from and to."""


class Run(NamedTuple):
    """One setting of the study: a set, its balance and the size of its batches.

    scores: validation accuracy in percent, [num_labels, (arm, seed)]; of the posterior's arms too, which are
        compared with the random of their own run.
    baselines: of each arm, the scores of random that it is compared with.
    seconds: that a selection takes on average, of each arm and for one seed.
    """

    name: str
    num_classes: int
    scores: pd.DataFrame
    baselines: dict[str, pd.DataFrame]
    seconds: dict[str, float]

    @property
    def arms(self) -> list[str]:
        """Returns the arms but random, by name."""
        return sorted(self.baselines)

    def gaps(self, arm: str) -> pd.DataFrame:
        """Returns how far an arm is ahead of random, [num_labels, seeds]."""
        return self.scores[arm] - self.baselines[arm]


def specs() -> Iterator[str]:
    """Yields the settings, without the posterior."""
    for name, *changes in itertools.product(SETS, ("", "-tail"), ("", "-large")):
        yield name + "".join(changes)


def launch(args: argparse.Namespace) -> None:
    """Runs all settings of the sets that are given, and those of the posterior."""
    for spec, more in itertools.product(specs(), ("", "-posterior")):
        name = spec.split("-")[0]
        if name != "digits" and not getattr(args, name):
            continue
        flags = []
        if name != "digits":
            flags.append(f"--config.data{'.source' if 'tail' in spec else ''}.root={getattr(args, name)}")
        if name in ("cifar10", "trashnet"):
            flags.append(f"--config.encoders.latents.root={args.network}")
        command = [sys.executable, "launch.py", f"--config=configs/study.py:{spec}{more}", *flags]
        command += [f"--workdir={args.workdir / (spec + more)}", f"--encoders={args.workdir / 'encoders'}"]
        subprocess.run(command, cwd=ROOT, check=True)


def read(folder: Path, spec: str) -> Run | None:
    """Reads a setting; None where it is not complete."""
    scores, baselines, seconds = {}, {}, {}
    for path in (folder / spec, folder / f"{spec}-posterior"):
        if not (path / "summary.json").exists():
            continue
        metrics = pd.read_csv(path / "metrics.csv")
        metrics = metrics[(metrics.split == "validation") & (metrics.metric == "accuracy")]
        curves = 100 * metrics.pivot(index="num_labels", columns=["arm", "seed"], values="value")
        timings = pd.read_csv(path / "timings.csv").groupby("arm")[["select_seconds", "num_seeds"]].mean()
        for arm in metrics.arm.unique():
            if arm != BASELINE:
                baselines[arm] = curves[BASELINE]
                seconds[arm] = timings.select_seconds[arm] / timings.num_seeds[arm]
            scores.setdefault(arm, curves[arm])
        config = json.loads((path / "config.json").read_text())["config"]
    return Run(spec, config["num_initial"], pd.concat(scores, axis=1), baselines, seconds) if baselines else None


def interval(gaps: np.ndarray) -> str:
    """Returns the mean of the gaps [seeds] and its interval, as text."""
    gap = paired_difference(gaps, np.zeros(len(gaps)))
    return f"{gap['mean']:+.1f} [{gap['low']:+.1f}, {gap['high']:+.1f}]"


def side(gaps: np.ndarray) -> int:
    """Returns 1 where the interval of the mean of the gaps [seeds] is above zero, -1 where it is below, else 0."""
    gap = paired_difference(gaps, np.zeros(len(gaps)))
    return int(gap["low"] > 0) - int(gap["high"] < 0)


def within(run: Run, arm: str, budget: tuple[float, float]) -> np.ndarray | None:
    """Returns the mean gaps [seeds] over the numbers of labels of a budget, or None where there are none."""
    gaps = run.gaps(arm)
    labels = gaps.index / run.num_classes
    gaps = gaps[(labels >= budget[0]) & (labels <= budget[1])]
    return gaps.mean().to_numpy() if len(gaps) else None


def print_run(run: Run) -> None:
    """Prints a setting: random in percent, and all others in points beside it."""
    at = [labels for labels in AT if labels * run.num_classes in run.scores.index]
    sides = {arm: np.array([side(gaps.to_numpy()) for _, gaps in run.gaps(arm).iterrows()]) for arm in run.arms}
    reached = needed(run)
    heads = [f"{labels} a class" if labels > 1 else "1 a class" for labels in at]
    heads += ["mean over labels", "ahead at", "behind at", "labels to random's last", "ms a selection"]
    print(f"\n{run.name}: {len(run.scores[BASELINE].columns)} seeds, {len(run.scores)} numbers of labels\n")
    print(f"| arm | {' | '.join(heads)} |\n{'| --- ' * (len(heads) + 1)}|")
    scores = run.scores[BASELINE].mean(axis=1)
    cells = [f"{scores[labels * run.num_classes]:.1f}" for labels in at]
    print(f"| random | {' | '.join([*cells, f'{scores.mean():.1f}', '', '', reached[BASELINE], ''])} |")
    for arm in run.arms:
        gaps = run.gaps(arm)
        cells = [interval(gaps.loc[labels * run.num_classes].to_numpy()) for labels in at]
        cells += [interval(gaps.mean().to_numpy()), str((sides[arm] > 0).sum()), str((sides[arm] < 0).sum())]
        cells += [reached[arm], f"{1000 * run.seconds[arm]:.1f}"]
        print(f"| {words(arm)} | {' | '.join(cells)} |")


def needed(run: Run) -> dict[str, str]:
    """Returns the number of labels with which each arm's mean curve reaches random's last score."""
    table = run.scores.rename_axis(columns=["arm", "seed"]).unstack().rename("value").reset_index()
    table["value"] /= 100
    table = table.assign(split="validation", metric="accuracy", round=0)
    reached = labels_to_reach(table, BASELINE, ())[-1]["arms"]
    return {
        arm: "never" if found["mean_curve"] is None else f"{found['mean_curve']:g}" for arm, found in reached.items()
    }


def print_budgets(runs: list[Run]) -> None:
    """Prints of each arm and budget in how many settings it is ahead of random, in how many behind, and by how much."""
    print(f"\n| arm | {' | '.join(f'{name} a class' for name in BUDGETS)} |\n{'| --- ' * (len(BUDGETS) + 1)}|")
    for arm in sorted({arm for run in runs for arm in run.arms}):
        cells = []
        for budget in BUDGETS.values():
            gaps = [within(run, arm, budget) for run in runs if arm in run.arms]
            gaps = [values for values in gaps if values is not None]
            if not gaps:
                cells.append("not run")
                continue
            sides = np.array([side(values) for values in gaps])
            points = [values.mean() for values in gaps]
            cells.append(
                f"{(sides > 0).sum()} ahead, {(sides < 0).sum()} behind of {len(gaps)}; "
                f"{np.mean(points):+.1f} ({min(points):+.1f} to {max(points):+.1f})"
            )
        print(f"| {words(arm)} | {' | '.join(cells)} |")


def print_best(runs: list[Run]) -> None:
    """Prints which arms are ahead of random in each setting and budget, the best first."""
    print("\n| setting | labels a class | ahead of random, the best first |\n| --- | --- | --- |")
    for run, (name, budget) in itertools.product(runs, BUDGETS.items()):
        gaps = {arm: within(run, arm, budget) for arm in run.arms}
        ahead = [arm for arm, values in gaps.items() if values is not None and side(values) > 0]
        if any(values is not None for values in gaps.values()):
            ahead = sorted(ahead, key=lambda arm: -gaps[arm].mean())
            print(f"| {run.name} | {name} | {', '.join(map(words, ahead[:6])) or 'none'} |")


def print_regret(runs: list[Run]) -> None:
    """Prints of each arm at how many numbers of labels it is clearly behind the arm with the best mean there."""
    print("\n| arm | numbers of labels | clearly behind the best | by up to, points |\n| --- | --- | --- | --- |")
    for arm in sorted({arm for run in runs for arm in run.arms}):
        behind, worst, total = 0, 0.0, 0
        for run in runs:
            for _, scores in run.scores.iterrows() if arm in run.arms else ():
                best = scores.groupby(level=0).mean().idxmax()
                gaps = (scores[arm] - scores[best]).to_numpy()
                total += 1
                if arm != best and side(gaps) < 0:
                    behind, worst = behind + 1, min(worst, gaps.mean())
        print(f"| {words(arm)} | {total} | {behind} ({100 * behind / max(total, 1):.0f} %) | {worst:.1f} |")


def draw(runs: list[Run], path: Path) -> None:
    """Draws a panel for each budget: arms by settings, coloured by the difference from random, marked where clear."""
    arms = sorted({arm for run in runs for arm in run.arms}, key=lambda arm: -overall(runs, arm))
    figure = Figure(figsize=(5 + 0.7 * len(runs), 2 + 0.25 * len(arms)), layout="constrained")
    panels = figure.subplots(1, len(BUDGETS), sharey=True)
    for axes, (name, budget) in zip(panels, BUDGETS.items(), strict=True):
        image = np.full((len(arms), len(runs)), np.nan)
        for (row, arm), (column, run) in itertools.product(enumerate(arms), enumerate(runs)):
            values = within(run, arm, budget) if arm in run.arms else None
            if values is not None:
                image[row, column] = values.mean()
                mark = {1: "+", 0: "", -1: "\N{MINUS SIGN}"}[side(values)]
                axes.text(column, row, mark, ha="center", va="center", fontsize="small")
        drawn = axes.imshow(image, cmap="PiYG", vmin=-8, vmax=8, aspect="auto")
        axes.set_title(f"{name}\nlabels a class", fontsize="small")
        axes.set_xticks(range(len(runs)), [run.name for run in runs], rotation=90, fontsize="small")
    panels[0].set_yticks(range(len(arms)), [words(arm) for arm in arms])
    figure.colorbar(drawn, ax=panels, label="accuracy ahead of random (points)", extend="both")
    save(figure, path)


def overall(runs: list[Run], arm: str) -> float:
    """Returns the mean over settings of the difference from random over all labels."""
    return float(np.mean([run.gaps(arm).to_numpy().mean() for run in runs if arm in run.arms]))


def words(arm: str) -> str:
    """Returns the name of an arm as prose has it."""
    return arm.replace("_", " ")


def resolved(path: str) -> Path:
    """Returns a path that means the same in the folder where launch.py runs."""
    return Path(path).resolve()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=resolved, required=True)
    for name in SETS[1:]:
        parser.add_argument(f"--{name}", type=resolved, help="The folder of its images.")
    parser.add_argument("--network", type=resolved, help="The folder of the pretrained network.")
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    if (args.cifar10 or args.trashnet) and not args.network and not args.tables:
        parser.error("photographs need --network, the folder of a pretrained network: docs/labelling.md says how.")
    if not args.tables:
        launch(args)
    runs = [run for spec in specs() if (run := read(args.workdir, spec)) is not None]
    if not runs:
        parser.error(f"{args.workdir} holds no complete run; run it without --tables first.")
    for run in runs:
        print_run(run)
    print_budgets(runs)
    print_best(runs)
    print_regret(runs)
    if args.figure:
        draw(runs, args.figure)


if __name__ == "__main__":
    main()
