"""The arms of configs/synthetic_ibal.py:readings on 20 draws of its points, in one compiled program.

    python benchmarks/data_seeds.py --workdir=runs/data_seeds [--data_seeds=20]

Each draw has the config's 5 run seeds, and a gamma of its own, chosen on its validation points. The tables have the
area under the test curve in percent as means over draws, and differences paired by draw: each is one number, the mean
over run seeds. Their p-values are Wilcoxon's, Holm-corrected over the arms. A run that was stopped goes on where it
stopped.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from latent_al.data import load
from latent_al.encoders import build_encoder
from latent_al.experiment.build import build_arms, measure_latents, place_encodings, prepare_arm
from latent_al.experiment.command_line import load_config
from latent_al.experiment.config import Experiment, parse_experiment
from latent_al.experiment.rounds import Arm, Block, by_setting, labels_of, place_data, play
from latent_al.results.statistics import paired_difference, seed_quantities
from latent_al.results.tables import choose, metrics_table
from latent_al.runtime.files import write_csv
from latent_al.runtime.mesh import make_mesh
from latent_al.types import Data

ROOT = Path(__file__).parents[1]
QUANTITIES = {"test_area": "accuracy", "balanced_test_area": "balanced accuracy"}


def draw(config: Experiment, seed: int) -> Data:
    """Returns the points of one data seed."""
    return load(dict(config.data) | dict(seed=seed))


def make_arms(config: Experiment) -> dict[str, Arm]:
    """Returns the arms, whose programs serve all draws: these are of one size."""
    data = draw(config, 0)
    encoders = {name: build_encoder(spec, data.train.images.shape[1:]) for name, spec in config.encoders.items()}
    shapes = {name: encoder.shapes(data) for name, encoder in encoders.items()}
    return build_arms(config, data, shapes, make_mesh(config.mesh, [list(range(config.num_seeds))]))


def measure(config: Experiment, arms: dict[str, Arm], seed: int, folder: Path) -> pd.DataFrame:
    """Plays all arms on the points of one data seed, and returns their metrics."""
    data, frames = draw(config, seed), []
    num_labels = config.num_initial + config.query_size * np.arange(config.num_rounds + 1)
    block = Block(list(range(config.num_seeds)), num_labels)
    for arm in arms.values():
        encoder = build_encoder(config.encoders[arm.encoder], data.train.images.shape[1:])
        encodings = place_encodings(encoder.encode(data, folder / "encoders", arm.mesh), arm.mesh)
        stats = measure_latents(encodings.train, len(data.ids), arm.mesh)
        prepared = prepare_arm(arm, encodings.train, stats)
        arm_data = place_data(prepared, data, encodings)
        history = play(prepared, block, arm_data, folder, test_every_round=True, keep_state=False).history
        for label, of_setting in zip(labels_of(arm), by_setting(arm, history), strict=True):
            frames.append(metrics_table(label, block.seeds, num_labels, of_setting))
    return pd.concat(frames)


def by_draw(metrics: pd.DataFrame, arms: dict[str, Arm]) -> tuple[pd.DataFrame, dict[str, str]]:
    """Returns the quantities of each arm [arms quantities], means over run seeds, and the settings that were chosen."""
    chosen = choose(metrics, {name: labels_of(arm) for name, arm in arms.items() if len(arm.settings) > 1})
    best = {name: choice["arm"] for name, choice in chosen.items()}
    means = seed_quantities(metrics)[list(QUANTITIES)].groupby(level="arm").mean()
    return means.loc[[best.get(name, name) for name in arms]].set_axis(list(arms)), best


def print_table(values: pd.DataFrame, title: str) -> None:
    """Prints percentages [draws arms], and how far each arm is ahead of random and of the distance alone."""
    against = ("random", "distance")
    cells = {arm: [f"{values[arm].mean():.2f} ± {values[arm].std(ddof=1):.2f}"] for arm in values}
    for baseline in against:
        gaps = {arm: paired_difference(values[arm], values[baseline]) for arm in values if arm != baseline}
        p_values = multipletests([gap["p"] for gap in gaps.values()], method="holm")[1]
        for (arm, gap), p in zip(gaps.items(), p_values, strict=True):
            cells[arm].append(f"{gap['mean']:+.2f} [{gap['low']:+.2f}, {gap['high']:+.2f}], p {p:.2g}")
        cells[baseline].append("")
    print(f"\n{title}, {len(values)} draws\n\n| arm | area | ahead of random | ahead of D alone |")
    print("| --- | --- | --- | --- |")
    for arm, line in cells.items():
        print(f"| {arm} | {' | '.join(line)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--data_seeds", type=int, default=20)
    args = parser.parse_args()
    if args.data_seeds < 2:
        parser.error(f"--data_seeds is {args.data_seeds}; expected 2 or more, for intervals between them.")
    config = parse_experiment(load_config(f"{ROOT}/configs/synthetic_ibal.py:readings", {}))
    arms, draws, gammas = make_arms(config), {}, {}
    for seed in range(args.data_seeds):
        path = args.workdir / f"{seed}" / "metrics.csv"
        if not path.exists():
            write_csv(path, measure(config, arms, seed, path.parent))
        draws[seed], best = by_draw(pd.read_csv(path), arms)
        for name, label in best.items():
            gammas.setdefault(name, Counter())[label.removeprefix(f"{name}_gamma_")] += 1
    values = 100 * pd.concat(draws)
    for quantity, title in QUANTITIES.items():
        print_table(values[quantity].unstack()[list(arms)], title)
    print("\n| arm | gamma: draws whose validation points chose it |\n| --- | --- |")
    for name, counts in gammas.items():
        print(f"| {name} | {', '.join(f'{gamma}: {counts[gamma]}' for gamma in sorted(counts, key=float))} |")


if __name__ == "__main__":
    main()
