"""Runs the experiments of docs/results.md again, compares them with the figures on record, and judges the claims.

    python benchmarks/results.py --out=runs/results --mnist=DIR --cifar10=DIR --network=NETWORK
    python benchmarks/results.py --out=runs/results --mnist=DIR --only=dense,poses --record
    python benchmarks/results.py --out=small --mnist=DIR --size=smoke

Launches whose images or network are not given are left out, those that are complete in `--out` are only read, and a
stopped one goes on. A mean agrees with the one on record if they differ by no more than half a point or three standard
errors, whichever is larger. `--record` writes what was measured to benchmarks/recorded.json, and `--table` prints the
table of claims from there. `--size=smoke` plays all launches at sizes that show only that they work, on the first
3,000 images of MNIST, two launches at a time, each with its output in a file.
"""

import argparse
import json
import math
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from claims import CLAIMS, LAUNCHES, Claim
from statsmodels.stats.multitest import multipletests

from latent_al.data.idx import read_idx
from latent_al.results.metrics import METRICS, main_metric
from latent_al.results.statistics import mean_and_std, paired_difference, seed_quantities

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_name("recorded.json")
INPUTS = {
    "mnist": "the folder of MNIST's IDX files",
    "cifar10": "a folder of CIFAR-10 images, as train/CLASS/* and test/CLASS/*",
    "network": "the folder of a pretrained network, which docs/labelling.md says how to get",
}
LEVEL = 1.0
"""Points within which two arms are level."""
TOLERANCE = 0.5
"""Points by which a mean over the same seeds may differ on another machine."""


def launch(name: str, args: argparse.Namespace) -> bool:
    """Runs a launch in a process of its own, and returns whether it is complete; False without its images."""
    config, flags, small = LAUNCHES[name]
    folders = {name: getattr(args, name) for name in INPUTS}
    if any(f"{{{name}}}" in flag and folder is None for flag in flags for name, folder in folders.items()):
        return False
    command = [sys.executable, "launch.py", f"--config=configs/{config}", *(flag.format(**folders) for flag in flags)]
    command += [f"--workdir={args.out / name}", f"--encoders={args.out / 'encoders'}"]
    settings = dict(cwd=ROOT, env=sharing_programs(args.out / "compiled") | os.environ)
    if args.size == "full":
        subprocess.run(command, check=True, **settings)
        return True
    log = args.out / f"{name}.log"
    with log.open("w") as file:
        if subprocess.run([*command, *small], check=False, stdout=file, stderr=file, **settings).returncode:
            raise RuntimeError(f"{name} failed; its output is in {log}.")
    return True


def sharing_programs(folder: Path) -> dict[str, str]:
    """Returns the environment in which launches keep all compiled programs in one folder; many have the same ones."""
    return dict(
        JAX_COMPILATION_CACHE_DIR=str(folder),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    )


def cut_mnist(root: Path, folder: Path) -> Path:
    """Writes the first 3,000 training and 500 test images of MNIST, and their labels, to a folder, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, size in dict(train=3000, t10k=500).items():
        for path in root.glob(f"*{part}*"):
            array = read_idx(path)[:size]
            header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (folder / path.with_suffix("").name).write_bytes(header + array.tobytes())
    return folder


class Measured:
    """What the runs in a folder measured, each read once.

    Args:
        out: the folder, with one run of each name.
    """

    def __init__(self, out: Path):
        self.out = out
        self.runs = {name: _read(out / name) for name in LAUNCHES if (out / name / "summary.json").exists()}

    def arms(self, name: str) -> dict[str, dict[str, dict]]:
        """Returns arm -> quantity -> mean and standard deviation over seeds, in points or degrees."""
        metrics, _ = self.runs[name]
        quantities = seed_quantities(metrics) * _scale(metrics)
        return {
            arm: {name: mean_and_std(column.to_numpy()) for name, column in table.items()}
            for arm, table in quantities.groupby(level=0, sort=False)
        }

    def gap(self, claim: Claim) -> dict | None:
        """Returns the paired difference that a claim is about, with its interval and p-value, or None."""
        sides = [side.split("/") for side in (claim.arm, claim.other)]
        if any(name not in self.runs for name, _ in sides):
            return None
        first, second = (self._values(name, arm, claim.quantity) for name, arm in sides)
        if first.empty or second.empty:
            return None
        # Columns of both are in the order of the encoders' names.
        second = second if "*" in claim.other else second.iloc[:, [0] * first.shape[1]]
        gaps = first.sub(second.set_axis(first.columns, axis=1)).dropna().to_numpy()
        sides = [gaps.mean(axis=1), gaps.mean(axis=0)] if "*" in claim.arm else [gaps[:, 0]]
        differences = [paired_difference(pairs, np.zeros(len(pairs))) | dict(pairs=len(pairs)) for pairs in sides]
        widest = max(differences, key=lambda gap: gap["high"] - gap["low"])
        scale = _scale(self.runs[claim.arm.split("/")[0]][0])
        return widest | {name: widest[name] * scale for name in ("mean", "low", "high")}

    def _values(self, name, arm, quantity):
        """Returns a quantity of one arm, or of those that match, [seeds arms], in the unit of its metric."""
        metrics, tuned = self.runs[name]
        metrics = metrics[[fnmatch(label, tuned.get(arm, arm)) for label in metrics.arm]]
        split, at, num_labels = quantity.partition(" at ")
        if at:
            chosen = (metrics.split == split) & (metrics.metric == main_metric(metrics))
            metrics = metrics[chosen & (metrics.num_labels == int(num_labels))]
            return metrics.pivot(index="seed", columns="arm", values="value")
        return seed_quantities(metrics)[quantity].unstack("arm")


def _read(folder):
    """Returns the metrics of a run, and arm -> the setting of it that validation chose."""
    tuned = json.loads((folder / "summary.json").read_text()).get("tuned", {})
    return pd.read_csv(folder / "metrics.csv"), {name: choice["arm"] for name, choice in tuned.items()}


def _scale(metrics):
    return METRICS[main_metric(metrics)].scale


def verdict(claim: Claim, gap: dict | None) -> str:
    """Returns whether a difference confirms a claim, by its interval."""
    if gap is None:
        return "not on record"
    low, high = gap["low"], gap["high"]
    if claim.expected == "level":
        return "confirmed" if low > -LEVEL and high < LEVEL else "not confirmed"
    if claim.expected == "no gain":
        return "confirmed" if high < LEVEL else "not confirmed"
    if claim.expected == "below":
        low, high = -high, -low
    if high < 0:
        return "the reverse"
    return "confirmed" if low > 0 else "not confirmed"


def table(record: dict) -> str:
    """Returns the claims with the figures on record, as Markdown; p-values are Holm-corrected over all rows."""
    gaps = [record["claims"].get(claim.key) for claim in CLAIMS]
    p_values = [gap["p"] for gap in gaps if gap and gap["p"] is not None]
    corrected = iter(multipletests(p_values, method="holm")[1] if p_values else [])
    lines = ["| source | claim | where | ours | pairs | p | date | verdict |", "| --- " * 8 + "|"]
    for claim, gap in zip(CLAIMS, gaps, strict=True):
        cells = ["", "", "", ""]
        if gap:
            p = "" if gap["p"] is None else f"{next(corrected):.2g}"
            cells = [interval(gap), str(gap["pairs"]), p, gap["date"]]
        cells = [claim.source, claim.text, claim.where, *cells, verdict(claim, gap)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def interval(gap: dict) -> str:
    """Returns a mean difference and its interval, as text."""
    return f"{gap['mean']:+.2f} [{gap['low']:+.2f}, {gap['high']:+.2f}]"


def compare(measured: Measured, record: dict) -> list[str]:
    """Returns a line for each mean that does not agree with the one on record."""
    apart = []
    for name in measured.runs:
        before = record["launches"].get(name)
        for arm, quantities in measured.arms(name).items() if before else ():
            for quantity, new in quantities.items():
                old = before["arms"].get(arm, {}).get(quantity)
                if old and new["mean"] is not None and not _agree(old, new, before["seeds"]):
                    apart.append(f"{name}, {arm}, {quantity}: {new['mean']:.2f}, on record {old['mean']:.2f}")
    return apart


def _agree(old, new, seeds):
    error = math.hypot(old["std"] or 0, new["std"] or 0) / math.sqrt(seeds)
    return abs(old["mean"] - new["mean"]) <= max(TOLERANCE, 3 * error)


def put_on_record(measured: Measured, record: dict) -> None:
    """Writes what was measured into the record, with the date of each run; the same figures keep their date."""
    for name, (metrics, _) in measured.runs.items():
        figures = dict(seeds=metrics.seed.nunique(), arms=measured.arms(name))
        _put(record["launches"], name, figures, measured.out / name)
    for claim in CLAIMS:
        if gap := measured.gap(claim):
            _put(record["claims"], claim.key, gap, measured.out / claim.arm.split("/")[0])
    RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def _put(entries, name, figures, run):
    figures = _rounded(figures)
    # Reading a complete run again writes its summary anew.
    if figures != {key: value for key, value in entries.get(name, {}).items() if key != "date"}:
        written = datetime.fromtimestamp((run / "summary.json").stat().st_mtime, UTC)
        entries[name] = figures | dict(date=written.date().isoformat())


def _rounded(value):
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="The folder of the runs.")
    for name, what in INPUTS.items():
        parser.add_argument(f"--{name}", type=lambda path: Path(path).resolve(), help=f"{what.capitalize()}.")
    parser.add_argument("--only", default=",".join(LAUNCHES), help="Names of launches, with commas, or none.")
    parser.add_argument("--size", choices=("full", "smoke"), default="full")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--table", action="store_true", help="Print the claims on record, and run nothing.")
    args = parser.parse_args()
    record = json.loads(RECORD.read_text())
    if args.table:
        print(table(record))
        return
    names = list(filter(None, args.only.split(",")))
    if args.out is None or set(names) - LAUNCHES.keys() or (args.record and args.size == "smoke"):
        parser.error(f"give --out, a folder; --only takes {', '.join(LAUNCHES)}; --size=smoke is not put on record.")
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.size == "smoke" and args.mnist:
        args.mnist = cut_mnist(args.mnist, args.out / "mnist")
    # Small launches compile more than they compute, on one core.
    with ThreadPoolExecutor(2 if args.size == "smoke" else 1) as pool:
        for name, complete in zip(names, pool.map(partial(launch, args=args), names), strict=True):
            done = "complete" if complete else "left out: its images or its network are not given"
            print(f"{name}: {done}", flush=True)
    measured = Measured(args.out)
    for claim in CLAIMS:
        gap = measured.gap(claim)
        print(f"{claim.source}: {claim.key}: {interval(gap) + ', ' if gap else ''}{verdict(claim, gap)}")
    if args.record:
        put_on_record(measured, record)
    elif args.size == "full":
        apart = compare(measured, record)
        print("\n".join(apart) or "all means agree with those on record")
        sys.exit(bool(apart))


if __name__ == "__main__":
    main()
