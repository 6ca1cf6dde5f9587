"""The labelling job as a person would run it: an oracle that knows the classes answers through Label Studio's export.

    python benchmarks/folder_rounds.py --classes=DIR/train --workdir=runs/oracle [--rounds=5] [--kills=10] [-- FLAGS]
    python benchmarks/folder_rounds.py --classes=DIR/train --workdir=runs/seeds --seeds=10 [--rounds=5] [-- FLAGS]

The images of DIR/train/CLASS/* are copied into one flat folder. `--kills` sends SIGKILL that many times at random
moments, starts again, and compares all queries and labels with those of an undisturbed run. FLAGS go to launch.py.
`--seeds` plays the job with as many seeds, and again with as many random labels, on one scan and one encoder, and tells
how many of the images without a label each round predicts correctly; it goes on where it was stopped.
"""

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import jax
import pandas as pd

from latent_al.experiment.command_line import load_config, split_overrides
from latent_al.labelling import run
from latent_al.results.intervals import mean_interval
from latent_al.runtime.files import read_csv

ROOT = Path(__file__).parents[1]


def flatten(classes: Path, folder: Path) -> dict[str, str]:
    """Copies all images into one folder, under names that do not tell the class; returns the class of each name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in classes.glob("*/*") if path.is_file())
    random.Random(0).shuffle(files)
    truth = {f"{number:05d}{path.suffix}": path for number, path in enumerate(files)}
    for name, path in truth.items():
        if not (folder / name).exists():
            shutil.copy(path, folder / name)
    return {name: path.parent.name for name, path in truth.items()}


def export(tasks: list[dict], truth: dict[str, str], round_index: int) -> list[dict]:
    """Returns the export of Label Studio once a person has labelled all `tasks`."""
    done = []
    for number, task in enumerate(tasks):
        name = Path(unquote(task["data"]["image"].split("?d=")[1])).name
        result = dict(from_name="choice", to_name="image", type="choices", value=dict(choices=[truth[name]]))
        when = f"2026-01-{round_index + 1:02d}T{number // 60 % 24:02d}:{number % 60:02d}:00.000000Z"
        done.append(
            dict(
                id=1000 * round_index + number,
                data=task["data"],
                annotations=[dict(completed_by=1, result=[result], was_cancelled=False, updated_at=when)],
            )
        )
    return done


def launch(images: Path, workdir: Path, flags: list[str], delay: float | None = None) -> tuple[bool, float]:
    """Runs the command, or kills it after `delay` seconds; returns whether it ended, and the seconds that it took."""
    command = [sys.executable, "launch.py", *flags, f"--config.data.root={images}", f"--workdir={workdir}"]
    begun = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            output, errors = process.communicate(timeout=delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return False, time.monotonic() - begun
    if process.returncode:
        sys.exit(f"{shlex.join(command)} ended with {process.returncode}:\n{output}\n{errors}")
    print(output, flush=True)
    return True, time.monotonic() - begun


def play(images: Path, workdir: Path, truth: dict[str, str], rounds: int, flags: list[str], kills: int = 0) -> int:
    """Plays all rounds: the command, then the answers to its queries, each time in a new file; returns the kills.

    A kill that comes too late is due again in the next round.
    """
    rng, seconds, killed = random.Random(0), 20.0, 0
    planned = sorted(rng.randrange(rounds + 1) for _ in range(kills))
    for index in range(rounds + 1):
        for _ in range(sum(due <= index for due in planned) - killed):
            ended, _ = launch(images, workdir, flags, rng.uniform(0.5, seconds))
            killed += not ended
            print(f"round {index}: {'ended before the kill' if ended else 'killed'}", flush=True)
        _, seconds = launch(images, workdir, flags)
        tasks = json.loads((workdir / "rounds" / f"{index:03d}" / "label_studio.json").read_text(encoding="utf-8"))
        path = workdir / "labels" / f"export-{index:03d}.json"
        path.write_text(json.dumps(export(tasks, truth, index)), encoding="utf-8")
    return killed


RANDOM = dict(initial="{'name': 'random'}", strategy="{'name': 'random'}")
"""Settings with which all images are drawn at random."""


def play_here(images: Path, workdir: Path, truth: dict[str, str], rounds: int, config: str, settings: dict) -> list:
    """Plays all rounds in this process; returns the labels and the accuracy on images without one, of each round."""
    told = []
    for index in range(rounds + 1):
        folder = workdir / "rounds" / f"{index:03d}"
        if not folder.exists():
            run(load_config(config, settings | {"data.root": str(images)}), str(workdir))
        tasks = json.loads((folder / "label_studio.json").read_text(encoding="utf-8"))
        path = workdir / "labels" / f"export-{index:03d}.json"
        path.write_text(json.dumps(export(tasks, truth, index)), encoding="utf-8")
        if (folder / "predictions.csv").exists():
            table = read_csv(folder / "predictions.csv").query("label == ''")
            correct = table.prediction == table.file_name.map(truth)
            told.append((json.loads((folder / "round.json").read_text())["num_labels"], 100 * correct.mean()))
    return told


def play_seeds(images: Path, workdir: Path, truth: dict[str, str], seeds: int, play: Callable) -> pd.DataFrame:
    """Plays the job and random labels with each seed; all take the pixels and the latents of the first."""
    rows = []
    for seed in range(seeds):
        for arm, settings in dict(job={}, random=RANDOM).items():
            folder = workdir / f"{arm}-{seed}"
            for name in ("pool", "encoder"):
                if (workdir / "job-0" / name).exists() and not (folder / name).exists():
                    shutil.copytree(workdir / "job-0" / name, folder / name, copy_function=os.link)
            for num_labels, accuracy in play(images, folder, truth, settings=settings | {"seed": str(seed)}):
                rows.append(dict(arm=arm, seed=seed, num_labels=num_labels, accuracy=accuracy))
    return pd.DataFrame(rows)


def compare(table: pd.DataFrame) -> pd.DataFrame:
    """Returns mean accuracy of both arms by labels, and the mean paired difference with its 95 % interval."""
    rows = []
    for num_labels, part in table.groupby("num_labels"):
        pairs = part.pivot(index="seed", columns="arm", values="accuracy").dropna()
        gaps = pairs.job - pairs.random
        interval = mean_interval(gaps.to_numpy())
        means = dict(num_labels=num_labels, seeds=len(gaps), job=pairs.job.mean(), random=pairs.random.mean())
        rows.append(means | dict(gap=gaps.mean(), low=interval.low, high=interval.high))
    return pd.DataFrame(rows).round(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--config", default="configs/folder.py")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("flags", nargs="*")
    args = parser.parse_args()
    workdir = args.workdir.absolute()
    flags = [f"--config={args.config}", *args.flags]
    truth = flatten(args.classes, workdir / "images")
    if args.seeds:
        jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
        overrides, _ = split_overrides(flags)

        def play_one(*args_of_job, settings):
            return play_here(*args_of_job, args.rounds, args.config, overrides | settings)

        table = play_seeds(workdir / "images", workdir, truth, args.seeds, play_one)
        table.to_csv(workdir / "accuracy.csv", index=False)
        print(compare(table).to_string(index=False))
        return
    play(workdir / "images", workdir / "job", truth, args.rounds, flags)
    print((workdir / "job/progress.csv").read_text())
    if args.kills:
        killed = play(workdir / "images", workdir / "killed", truth, args.rounds, flags, args.kills)
        kept = [*(workdir / "job").glob("rounds/*/*"), workdir / "job/labels.csv", workdir / "job/manifest.csv"]
        folders = [{path.name for path in (workdir / run / "rounds").iterdir()} for run in ("job", "killed")]
        if folders[0] != folders[1]:
            sys.exit(f"the rounds are {folders[1]} after the kills, and {folders[0]} without")
        for name in [path.relative_to(workdir / "job") for path in kept]:
            if (workdir / "job" / name).read_bytes() != (workdir / "killed" / name).read_bytes():
                sys.exit(f"{name} differs after the kills")
        print(f"{killed} kills: all labels and every file of every round are the same, to the byte.")


if __name__ == "__main__":
    main()
