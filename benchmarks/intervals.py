"""How often 95 % intervals of a mean paired gap hold the true mean, and how wide they are.

    python benchmarks/intervals.py [--repeats=4000]

Gaps are normal, skewed, or differences of accuracies on 50 images; areas are means over ten budgets of gaps that share
a part of their seed's luck, all skewed. Prints one row for each shape and number of seeds: coverage in percent, and in
brackets the median width. The percentile bootstrap and BCa resample 2,000 times.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy import stats
from tqdm import tqdm

from latent_al.results.intervals import Interval, mean_interval

NUM_RESAMPLES = 2_000


def gaps_of_shapes(rng: np.random.Generator, shape: tuple[int, int]) -> Iterator[tuple[str, np.ndarray, float]]:
    """Generates a name, gaps [repeats seeds] and their true mean."""
    yield "normal", rng.normal(size=shape), 0.0
    yield "exponential", rng.exponential(size=shape), 1.0
    yield "lognormal, sigma 0.5", rng.lognormal(0, 0.5, size=shape), np.exp(0.125)
    yield "lognormal, sigma 1", rng.lognormal(0, 1, size=shape), np.exp(0.5)
    yield "Student's t, 3 degrees", rng.standard_t(3, size=shape), 0.0
    luck, rest = rng.exponential(size=(*shape, 1)), rng.exponential(size=(*shape, 10))
    yield "areas, skewed", (0.5 * luck + rest).mean(axis=2), 1.5
    yield "accuracies of 50 images", (rng.binomial(50, 0.95, shape) - rng.binomial(50, 0.93, shape)) / 50, 0.02


def student(gaps: np.ndarray) -> Interval:
    """Returns Student's t interval of each row."""
    reach = stats.t.ppf(0.975, gaps.shape[1] - 1) * stats.sem(gaps, axis=1)
    return Interval(gaps.mean(axis=1) - reach, gaps.mean(axis=1) + reach)


def bootstrap(method: str) -> Callable[[np.ndarray], Interval]:
    """Returns a function from gaps to SciPy's bootstrap interval of each row; of equal gaps BCa has none."""

    def intervals(gaps):
        with np.errstate(all="ignore"):
            result = stats.bootstrap(
                (gaps,), np.mean, axis=1, method=method, n_resamples=NUM_RESAMPLES, rng=np.random.default_rng(0)
            )
        return Interval(*result.confidence_interval)

    return intervals


METHODS = {
    "percentile": bootstrap("percentile"),
    "BCa": bootstrap("BCa"),
    "t": student,
    "the wider of t and bootstrap-t": mean_interval,
}


def summarise(intervals: Interval, mean: float) -> str:
    """Returns coverage in percent and the median width; a bound that equals the mean but for rounding holds it."""
    held = (intervals.low <= mean + 1e-12) & (intervals.high >= mean - 1e-12)
    return f"{100 * held.mean():.1f} ({np.nanmedian(intervals.high - intervals.low):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4000)
    repeats = parser.parse_args().repeats
    rows = []
    for num_seeds in (2, 3, 5, 10, 20):
        rng = np.random.default_rng(num_seeds)
        for shape, gaps, mean in tqdm(list(gaps_of_shapes(rng, (repeats, num_seeds))), desc=f"{num_seeds} seeds"):
            # A few rows at a time: their resamples are held together.
            parts = np.array_split(gaps, max(1, repeats // 250))
            row = {"gaps": shape, "seeds": num_seeds}
            for name, method in METHODS.items():
                ends = [method(part) for part in parts]
                row[name] = summarise(Interval(*map(np.concatenate, zip(*ends, strict=True))), mean)
            rows.append(row)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
