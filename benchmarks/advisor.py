"""How often the labelling job's advice is right: whether a chosen first batch beats random ones.

    python benchmarks/advisor.py [--latents A.npy B.npy --labels A.csv B.csv] [--chosen_on A.npy]

The column file_name of the labels is CLASS/NAME, one line a row of the latents. Each set is split 20 times into a pool
and a test half. Logistic regression learns the batch of the job's initial strategy, and a random batch of the same
pool; a gain is clear where the interval of the paired differences lies above zero. The advice is that of the first
pool, and is right where it says that choosing pays and the gain is clear, or that it does not and the gain is not.

The thresholds were chosen on digits, on the synthetic sets of seed 0, and on the latents named by --chosen_on. The
other sets judge them.
"""

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_digits, load_wine, make_swiss_roll
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from latent_al.labelling import advice
from latent_al.results.intervals import mean_interval
from latent_al.strategies import STRATEGIES
from latent_al.types import UNLABELLED, Pool, build

SIZES, REPEATS, TESTED = (10, 20, 50, 100), 20, 1500
INITIAL = dict(name="typical", iterations=20)
"""The initial strategy of configs/folder.py."""


class Labelled(NamedTuple):
    """A set of latents with labels; `is_chosen_on` marks those on which the thresholds of the advice were chosen."""

    name: str
    latents: np.ndarray
    labels: np.ndarray
    is_chosen_on: bool


def mixture(num_classes: int, width: int, separation: float, seed: int, shares: np.ndarray | None = None):
    """Returns a mixture of 2,000 rows of Gaussians whose centres are `separation` standard deviations apart."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(num_classes, 2000, p=shares)
    centres = rng.normal(size=(num_classes, width)) * separation / np.sqrt(2 * width)
    return centres[labels] + rng.normal(size=(2000, width)), labels


def of_classes(latents: np.ndarray, labels: np.ndarray, classes: list[int]):
    """Returns the rows of some classes."""
    rows = np.flatnonzero(np.isin(labels, classes))
    return latents[rows], np.unique(labels[rows], return_inverse=True)[1]


def some(latents: np.ndarray, labels: np.ndarray, num: int):
    """Returns a random part of the rows."""
    rows = np.random.default_rng(0).permutation(len(latents))[:num]
    return latents[rows], labels[rows]


def long_tailed(latents: np.ndarray, labels: np.ndarray, ratio: int = 20):
    """Returns rows of which each class has fewer than the one before; the first has `ratio` times those of the last."""
    counts = np.bincount(labels)
    wanted = counts.min() * float(ratio) ** (-np.arange(len(counts)) / (len(counts) - 1))
    order = np.random.default_rng(0).permutation(len(labels))
    rows = [order[labels[order] == number][: max(int(num), 3)] for number, num in enumerate(wanted)]
    return latents[np.concatenate(rows)], labels[np.concatenate(rows)]


def synthetic_chosen_on() -> Iterator[tuple]:
    """Yields the synthetic sets on which the thresholds were chosen."""
    kinds = [(10, 16, 0), (10, 16, 2), (10, 16, 4), (10, 16, 6), (10, 16, 10), (3, 8, 6), (5, 32, 8)]
    for kind in [*kinds, (20, 32, 4), (20, 32, 8), (40, 32, 10), (10, 64, 6)]:
        yield "mixture of {} in {}, {} apart".format(*kind), *mixture(*kind, seed=0)
    shares = 20.0 ** (-np.arange(10) / 9)
    yield "long-tailed mixture", *mixture(10, 16, 8, 0, shares / shares.sum())
    rng = np.random.default_rng(1)
    for width in (4, 16, 64):
        noise = rng.normal(size=(2000, width))
        yield f"noise in {width}", noise, rng.integers(10, size=2000)
        yield f"noise in {width}, classes of directions", noise, (noise @ rng.normal(size=(width, 10))).argmax(axis=1)
        yield f"noise in {width}, two halves", noise, (noise[:, 0] > 0).astype(int)
    square = rng.uniform(size=(2000, 2))
    yield "square of four classes", square, (2 * (square[:, 0] > 0.5) + (square[:, 1] > 0.5)).astype(int)


def synthetic_judged() -> Iterator[tuple]:
    """Yields synthetic sets of other kinds."""
    for kind in [(2, 24, 4), (4, 4, 5), (7, 24, 3), (7, 24, 5), (15, 48, 6), (30, 12, 7), (15, 100, 9)]:
        yield "mixture of {} in {}, {} apart".format(*kind), *mixture(*kind, seed=7)
    shares = 50.0 ** (-np.arange(6) / 5)
    yield "long-tailed mixture", *mixture(6, 24, 6, 7, shares / shares.sum())
    rng = np.random.default_rng(7)
    heavy = rng.standard_t(3, size=(2000, 24))
    yield "heavy-tailed noise in 24", heavy, rng.integers(6, size=2000)
    yield "heavy-tailed noise in 24, two halves", heavy, (heavy[:, 0] > 0).astype(int)
    long = rng.normal(size=(2000, 32)) * 0.9 ** np.arange(32)
    yield "long noise in 32, classes of directions", long, (long @ rng.normal(size=(32, 6))).argmax(axis=1)
    roll, place = make_swiss_roll(2000, noise=0.1, random_state=7)
    yield "swiss roll in 50", roll @ rng.normal(size=(3, 50)), np.digitize(place, np.quantile(place, [0.25, 0.5, 0.75]))
    scaled = {"breast cancer": load_breast_cancer(), "wine": load_wine()}
    for name, source in scaled.items():
        yield name, (source.data - source.data.mean(axis=0)) / source.data.std(axis=0), source.target


def of_digits() -> Iterator[tuple]:
    """Yields scikit-learn's digits, and parts of them."""
    digits = load_digits()
    pixels, labels = digits.data, digits.target
    components = PCA(16, random_state=0).fit_transform(pixels)
    yield "digits", pixels, labels
    yield "digits, PCA", components, labels
    yield "digits 0 to 4", *of_classes(pixels, labels, [0, 1, 2, 3, 4])
    yield "digits 3 and 8", *of_classes(pixels, labels, [3, 8])
    yield "digits, PCA, 300", *some(components, labels, 300)
    yield "digits, long-tailed", *long_tailed(pixels, labels)


def of_file(name: str, latents: np.ndarray, labels: np.ndarray) -> Iterator[tuple]:
    """Yields the latents of a file, and parts of them."""
    yield name, latents, labels
    half = (labels.max() + 1) // 2
    yield f"{name}, first {half} classes", *of_classes(latents, labels, list(range(half)))
    yield f"{name}, other classes", *of_classes(latents, labels, list(range(half, labels.max() + 1)))
    yield f"{name}, two classes", *of_classes(latents, labels, [half - 1, half])
    yield f"{name}, 600", *some(latents, labels, 600)
    yield f"{name}, long-tailed", *long_tailed(latents, labels)


def chosen(key: jax.Array, latents: np.ndarray, num: int) -> np.ndarray:
    """Returns the rows of the initial strategy's batch."""
    size = len(latents)
    taken, labels = jnp.zeros(size, bool), jnp.full(size, UNLABELLED)
    pool = Pool(jnp.asarray(latents), None, None, None, taken, labels, jnp.arange(size), None)
    return np.asarray(build(STRATEGIES, INITIAL, "strategy").query(key, pool, num))


def accuracy(latents: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Returns the accuracy on the test rows in percent."""
    if len(np.unique(labels[train])) == 1:
        return 100 * (labels[test] == labels[train[0]]).mean()
    return 100 * LogisticRegression(max_iter=200).fit(latents[train], labels[train]).score(latents[test], labels[test])


def gains(latents: np.ndarray, labels: np.ndarray, num: int) -> np.ndarray:
    """Returns the paired differences in points between the chosen batch and a random one."""
    differences = []
    for seed in range(REPEATS):
        order = np.random.default_rng(seed).permutation(len(latents))
        pool, test = order[: len(order) // 2], order[len(order) // 2 :][:TESTED]
        rows = pool[chosen(jax.random.key(seed), latents[pool], num)]
        differences.append(accuracy(latents, labels, rows, test) - accuracy(latents, labels, pool[:num], test))
    return np.array(differences)


def judged(labelled: Labelled) -> list[dict]:
    """Prints and returns a line for each batch size that the pool has twice."""
    latents = np.float32(labelled.latents / labelled.latents.std())
    pool = latents[np.random.default_rng(0).permutation(len(latents))[: len(latents) // 2]]
    points = advice.sample(pool, 0)
    clusters = advice.cluster(points[: advice.CLUSTERED], 0)
    lines = []
    for num in [num for num in SIZES if 2 * num <= len(pool)]:
        ratio = advice.reach(points, pool[chosen(jax.random.key(0), pool, num)], 0).ratio
        differences = gains(latents, labelled.labels, num)
        interval = mean_interval(differences)
        pays, is_clear = advice.judge(clusters, num, ratio).pays, bool(interval.low > 0)
        cells = [labelled.name, f"{clusters.gaps.max():.2f}", num, "pays" if pays else "does not"]
        cells += [f"{differences.mean():+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]"]
        print(f"| {' | '.join(map(str, cells))} | {'right' if pays == is_clear else 'wrong'} |", flush=True)
        lines.append(dict(is_chosen_on=labelled.is_chosen_on, num=num, pays=pays, is_clear=is_clear))
    return lines


def summary(lines: pd.DataFrame) -> str:
    """Returns how often the advice was right, beside that of saying always that choosing pays."""
    lines = lines.assign(right=lines.pays == lines.is_clear)
    rows = ["| sets | batch | right | says pays, right | says it does not, right | always pays, right |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    for is_chosen_on, name in ((True, "chosen on"), (False, "judged")):
        half = lines[lines.is_chosen_on == is_chosen_on]
        for size, part in [("all", half), *half.groupby("num")]:
            counts = [part.right, part.right[part.pays], part.right[~part.pays], part.is_clear]
            rows.append(f"| {name} | {size} | " + " | ".join(f"{part.sum()} of {len(part)}" for part in counts) + " |")
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", nargs="*", default=[])
    parser.add_argument("--labels", nargs="*", default=[])
    parser.add_argument("--chosen_on", nargs="*", default=[])
    args = parser.parse_args()
    sets = [Labelled(*part, True) for part in (*of_digits(), *synthetic_chosen_on())]
    sets += [Labelled(*part, False) for part in synthetic_judged()]
    for latents, index in zip(args.latents, args.labels, strict=True):
        classes = pd.read_csv(index).file_name.str.split("/").str[0]
        _, labels = np.unique(classes, return_inverse=True)
        parts = of_file(Path(latents).stem, np.load(latents), labels)
        sets += [Labelled(*part, latents in args.chosen_on) for part in parts]
    # Ten images may show ten classes, and 200 steps of a fit come near enough to its end.
    warnings.filterwarnings("ignore", message="The number of unique classes")
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    print("| set | gap | batch | says | gain in points | |\n| --- | --- | --- | --- | --- | --- |")
    with threadpool_limits(1):
        lines = [line for labelled in sets for line in judged(labelled)]
    print("\n" + summary(pd.DataFrame(lines)))


if __name__ == "__main__":
    main()
