"""From histories of rounds to tidy tables, statistics and a summary."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
from sklearn.metrics import auc
from statsmodels.stats.multitest import multipletests

from latent_al.types import BALANCED

QUERY_COLUMNS = ("arm", "seed", "round", "rank", "row", "id")


class Metric(NamedTuple):
    """How a metric is shown: its name, its largest value, and values times `scale` in `unit`, for short `sign`.

    The smallest value is zero; of an error it is the best.
    """

    name: str
    top: float
    scale: float
    unit: str
    sign: str
    is_error: bool = False


METRICS = {
    "accuracy": Metric("accuracy", 1.0, 100.0, "percent", "%"),
    BALANCED: Metric("balanced accuracy", 1.0, 100.0, "percent", "%"),
    "angular_error": Metric("mean absolute angular error", 180.0, 1.0, "degrees", "°", is_error=True),
}


TUNED_BY = "balanced_area"
"""The quantity on validation data by which one of several weights is chosen."""


class History(NamedTuple):
    """What one arm did with one block of seeds. NaN marks what was not measured.

    queried: [seeds capacity] rows in the order of buying; n marks an empty slot.
    scores: metric -> split -> [seeds rounds+1], means over the split.
    seconds: [rounds+1 2] spent on fitting and on selecting, for the whole block.
    by_update: training step of the learner -> its score then [seeds rounds+1].
    measured: what the strategy measures -> its values [seeds m] on a sample of the training images at the end.
    explained: the fields of `kernels.Explanation` [seeds images num], with rows of the training images, and the class
        `predicted` [seeds images]; empty where nothing is explained.
    """

    queried: np.ndarray
    scores: dict[str, dict[str, np.ndarray]]
    seconds: np.ndarray
    by_update: dict[int, np.ndarray]
    measured: dict[str, np.ndarray] = {}
    explained: dict[str, np.ndarray] = {}


def metrics_table(arm: str, seeds: list[int], num_labels: np.ndarray, history: History) -> pd.DataFrame:
    """One row a measurement: arm, seed, round, num_labels, split, metric, value."""
    frames = []
    for metric, split in ((metric, split) for metric, splits in history.scores.items() for split in splits):
        values = history.scores[metric][split]
        seed, index = np.nonzero(~np.isnan(values))
        columns = dict(arm=arm, seed=np.array(seeds)[seed], round=index, num_labels=num_labels[index])
        frames.append(pd.DataFrame(columns | dict(split=split, metric=metric, value=values[seed, index])))
    return pd.concat(frames).sort_values(["seed", "round", "split", "metric"], kind="stable")


def measures_table(arm: str, seeds: list[int], history: History) -> pd.DataFrame:
    """What the strategy measured of a sample of the rows left at the end: arm, seed, and a column a measure."""
    first = next(iter(history.measured.values()))
    seed, _ = np.nonzero(~np.isnan(first))
    columns = {name: values[~np.isnan(first)] for name, values in history.measured.items()}
    return pd.DataFrame(dict(arm=arm, seed=np.array(seeds, int)[seed]) | columns)


def explanations_table(arm: str, seeds: list[int], history: History) -> pd.DataFrame:
    """Labelled examples that say most for, and against, the class predicted for some validation images.

    One row an example: arm, seed, image (its row in the validation split), predicted, kind, rank, row (in the training
    set) and value, what the example adds to the logit.
    """
    frames = []
    for kind in ("supporting", "opposing"):
        rows, values = history.explained[kind], history.explained[f"{kind}_values"]
        seed, image, rank = (index.ravel() for index in np.indices(rows.shape))
        columns = dict(arm=arm, seed=np.array(seeds)[seed], image=image)
        columns |= dict(predicted=history.explained["predicted"][seed, image], kind=kind, rank=rank)
        frames.append(pd.DataFrame(columns | dict(row=rows.ravel(), value=values.ravel())))
    return pd.concat(frames).sort_values(["seed", "image"], kind="stable")


def correlations(measures: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation of each measure with importance: mean and spread over seeds, one row an arm."""
    lines = []
    for arm, rows in measures.groupby("arm", sort=False):
        others = [name for name in rows.columns if name not in ("arm", "seed", "importance")]
        found = {
            name: [scipy.stats.spearmanr(own.importance, own[name]).statistic for _, own in rows.groupby("seed")]
            for name in others
        }
        lines.append(
            {"arm": arm} | {name: f"{np.mean(each):+.2f} ± {np.std(each):.2f}" for name, each in found.items()}
        )
    return pd.DataFrame(lines)


def choose(metrics: pd.DataFrame, tuned: dict[str, list[str]]) -> dict:
    """Of each list of arms the one of the largest mean TUNED_BY; ties go to the first.

    Returns:
        name -> `arm`, the one chosen, and `areas`, arm -> the mean that it was chosen by.
    """
    means = seed_quantities(metrics)[TUNED_BY].groupby("arm", sort=False).mean()
    areas = {name: {arm: float(means[arm]) for arm in arms} for name, arms in tuned.items()}
    return {name: dict(arm=max(each, key=each.get), areas=each) for name, each in areas.items()}


def tuned_table(summary: dict) -> pd.DataFrame:
    """The arms among which validation data chose, one row each."""
    return pd.DataFrame(
        dict(arm=arm, mean=f"{100 * area:.2f}", chosen="yes" if arm == each["arm"] else "")
        for each in summary["tuned"].values()
        for arm, area in each["areas"].items()
    )


def main_metric(metrics: pd.DataFrame) -> str:
    """The metric of `metrics` that the learner's score is: not the balanced one beside it."""
    return next(metric for metric in metrics.metric.unique() if metric != BALANCED)


def queries_table(
    arm: str, seeds: list[int], num_labels: np.ndarray, history: History, ids: np.ndarray
) -> pd.DataFrame:
    """One row a query: arm, seed, round, rank within the batch, row of the pool, id of the image."""
    capacity = history.queried.shape[1]
    index = np.searchsorted(num_labels, np.arange(capacity), side="right")
    rank = np.arange(capacity) - np.concatenate([[0], num_labels])[index]
    rows = history.queried.ravel()
    columns = dict(arm=arm, seed=np.repeat(seeds, capacity), round=np.tile(index, len(seeds)))
    return pd.DataFrame(columns | dict(rank=np.tile(rank, len(seeds)), row=rows, id=ids[rows]))


def timings_table(arm: str, seeds: list[int], history: History) -> pd.DataFrame:
    """Seconds of each round of a block of seeds; compilation falls into the first round."""
    fit, select = history.seconds.T
    columns = dict(arm=arm, first_seed=seeds[0], num_seeds=len(seeds), round=np.arange(len(fit)))
    return pd.DataFrame(columns | dict(fit_seconds=fit, select_seconds=select))


def training_table(arm: str, seeds: list[int], num_labels: np.ndarray, history: History) -> pd.DataFrame:
    """The score while the learner trained, one row a measurement: arm, seed, round, num_labels, update, value."""
    frames = []
    for update, values in history.by_update.items():
        seed, index = np.nonzero(~np.isnan(values))
        columns = dict(arm=arm, seed=np.array(seeds)[seed], round=index, num_labels=num_labels[index])
        frames.append(pd.DataFrame(columns | dict(update=update, value=values[seed, index])))
    return pd.concat(frames).sort_values(["seed", "round", "update"], kind="stable")


def seed_quantities(metrics: pd.DataFrame) -> pd.DataFrame:
    """What each arm and seed comes to, one row each, in columns named for the metric, METRIC.

    `area` is the mean validation score over labels, and `test_METRIC` the test score at the end; `test_area` is there
    where the test split was scored in several rounds. Of balanced accuracy they are `balanced_area`,
    `test_balanced_accuracy` and `balanced_test_area`. A quantity that was not measured, or an area over a single round,
    is NaN.
    """
    index = pd.MultiIndex.from_frame(metrics[["arm", "seed"]].drop_duplicates())
    columns = {}
    for metric, prefix in ((main_metric(metrics), ""), (BALANCED, "balanced_")):
        own = metrics[metrics.metric == metric]
        if len(own):
            columns |= _quantities(own, metric, prefix)
    return pd.DataFrame({name: pd.Series(values, index=index) for name, values in columns.items()}, dtype=float)


def summarise(metrics: pd.DataFrame, baseline: str) -> dict:
    """Mean and corrected standard deviation of each arm, and its paired difference from the baseline arm."""
    by_seed = seed_quantities(metrics)
    quantities = by_seed.columns
    arms = list(dict.fromkeys(metrics.arm))
    values = {arm: by_seed.loc[arm] for arm in arms}
    others = [arm for arm in arms if arm != baseline]
    compared = {name: _compare(name, values, others, baseline) for name in quantities}
    return {
        "baseline": baseline,
        "metric": main_metric(metrics),
        "num_seeds": len(values[baseline]),
        "arms": {arm: {name: _spread(values[arm][name].to_numpy()) for name in quantities} for arm in arms},
        "differences": {arm: {name: compared[name][arm] for name in quantities} for arm in others},
    }


def gaps_table(metrics: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """How far each arm's validation score is from that of the baseline arm with as many labels, paired by seed.

    Columns arm, round, num_labels, mean, low and high, the last two the 95 % percentile bootstrap interval.
    """
    measured = metrics[(metrics.split == "validation") & (metrics.metric == main_metric(metrics))]
    curves = measured.pivot(index=["round", "num_labels"], columns=["arm", "seed"], values="value")
    rows = []
    for arm in dict.fromkeys(metrics.arm):
        if arm != baseline:
            for (index, num_labels), gaps in (curves[arm] - curves[baseline]).iterrows():
                gap = paired_difference(gaps.to_numpy(), np.zeros(len(gaps)))
                row = dict(arm=arm, round=index, num_labels=num_labels)
                rows.append(row | {name: gap[name] for name in ("mean", "low", "high")})
    return pd.DataFrame(rows, columns=["arm", "round", "num_labels", "mean", "low", "high"])


def paired_difference(values: np.ndarray, baseline: np.ndarray) -> dict:
    """Mean of `values - baseline` [seeds], its 95 % percentile bootstrap interval and the Wilcoxon signed-rank p-value.

    The interval and p are None for fewer than two seeds, and where a value is missing.
    """
    gaps = np.asarray(values - baseline, float)
    nothing = {"mean": None, "low": None, "high": None, "p": None}
    if np.isnan(gaps).any():
        return nothing
    if len(gaps) < 2:
        return nothing | {"mean": gaps.mean()}
    # Rounded, so that equal gaps between accuracies tie as they should.
    p = scipy.stats.wilcoxon(np.round(gaps, 9)).pvalue if np.abs(gaps).max() > 1e-9 else 1.0
    if np.ptp(gaps) == 0:
        return {"mean": gaps.mean(), "low": gaps[0], "high": gaps[0], "p": p}
    settings = dict(method="percentile", n_resamples=10_000, rng=np.random.default_rng(0))
    interval = scipy.stats.bootstrap((gaps,), np.mean, **settings).confidence_interval
    return {"mean": gaps.mean(), "low": interval.low, "high": interval.high, "p": p}


def format_table(summary: dict) -> str:
    """The summary as text, one line an arm."""
    table = arms_table(summary).to_string(index=False)
    return f"{table}\n({note(summary)})"


def note(summary: dict, balanced: bool = False) -> str:
    """What the numbers of `arms_table` are."""
    shown = METRICS[BALANCED if balanced else summary["metric"]]
    area = f"{'balanced_' if balanced else ''}area"
    return f"{shown.unit}; {area}: mean validation {shown.name} over the labels queried; differences are paired by seed"


def arms_table(summary: dict, balanced: bool = False) -> pd.DataFrame:
    """The summary as texts, one row an arm, in the unit of the metric: its quantities, or the balanced ones instead.

    Empty where the summary has no balanced ones.
    """
    scale = METRICS[summary["metric"]].scale
    names = [name for name in summary["arms"][summary["baseline"]] if ("balanced_" in name) == balanced]
    lines = []
    for arm, spread in summary["arms"].items() if names else ():
        line = {"arm": arm + (" (baseline)" if arm == summary["baseline"] else "")}
        for name in names:
            line[name] = _scaled(spread[name]["mean"], spread[name]["std"], scale)
        gaps = summary["differences"].get(arm, {})
        for name, gap in ((name, gaps[name]) for name in names if name in gaps):
            line[f"{name} - baseline [95 %]"] = _interval(gap, scale)
            line[f"{name} p (Holm)"] = "" if gap["p_holm"] is None else f"{gap['p_holm']:.2g}"
        lines.append(line)
    return pd.DataFrame(lines).fillna("")


def encoders_table(summary: dict) -> pd.DataFrame:
    """The trained encoders, one row each: latent dimensions, how many are used, and the losses of the last epoch."""
    return pd.DataFrame([dict(encoder=name, **each) for name, each in summary["encoders"].items()])


def balance_table(queries: pd.DataFrame, labels: np.ndarray, num_classes: int) -> pd.DataFrame:
    """How balanced the classes are that each arm and seed has queried up to and with each round, one row each.

    Args:
        queries: has QUERY_COLUMNS.
        labels: [n] of the pool, in [0, num_classes).
        num_classes: two or more.

    Returns:
        Columns arm, seed, round, num_labels, `class_entropy` (of the shares of the classes over log(num_classes), in
        [0, 1], 1 = balanced), `classes_missed` (those without a label yet), and the labels of each class, `class_0` to
        `class_{num_classes - 1}`. Arms come in the order of `queries`, then seeds and rounds from low to high.
    """
    ordered = pd.CategoricalDtype(queries.arm.unique(), ordered=True)
    groups = queries.assign(arm=queries.arm.astype(ordered)).groupby(["arm", "seed", "round"], observed=True)
    table = groups.size().index.to_frame(index=False).astype({"arm": queries.arm.dtype})
    cells = groups.ngroup().to_numpy() * num_classes + labels[queries.row]
    batches = np.bincount(cells, minlength=len(table) * num_classes).reshape(-1, num_classes)
    counts = pd.DataFrame(batches).groupby([table.arm, table.seed], sort=False).cumsum().to_numpy()
    # Rounding may leave the entropy of equal shares just above 1.
    entropy = np.minimum(scipy.stats.entropy(counts, axis=1) / np.log(num_classes), 1)
    table = table.assign(num_labels=counts.sum(axis=1), class_entropy=entropy, classes_missed=(counts == 0).sum(axis=1))
    return table.assign(**{f"class_{label}": counts[:, label] for label in range(num_classes)})


def balance_means(balance: pd.DataFrame) -> dict:
    """Mean and corrected standard deviation over seeds of each arm's balance at its last round.

    `class_counts` are the mean labels of class 0, 1, ... A deviation over one seed is None.
    """
    return {
        arm: {name: _spread(rows[name].to_numpy()) for name in ("class_entropy", "classes_missed")}
        | {"class_counts": counts.mean(axis=0).tolist()}
        for arm, rows, counts in _last_rounds(balance)
    }


def balance_summary(balance: pd.DataFrame) -> pd.DataFrame:
    """Each arm's balance at its last round as texts, one row an arm: means over seeds.

    The smallest class is each seed's own, and so is the largest.
    """
    means = balance_means(balance)
    lines = []
    for arm, _, counts in _last_rounds(balance):
        entropy, missed = means[arm]["class_entropy"], means[arm]["classes_missed"]
        spread = "" if entropy["std"] is None else f" ± {entropy['std']:.3f}"
        line = {"arm": arm, "class entropy": f"{entropy['mean']:.3f}{spread}"}
        line |= {"classes missed": f"{missed['mean']:.1f}"}
        line |= {"smallest class": f"{counts.min(axis=1).mean():.1f}"}
        lines.append(line | {"largest class": f"{counts.max(axis=1).mean():.1f}"})
    return pd.DataFrame(lines)


def _last_rounds(balance):
    """Each arm with its last rows, one a seed, and their labels of each class [seeds num_classes]."""
    last = balance.groupby(["arm", "seed"], sort=False).tail(1)
    for arm, rows in last.groupby("arm", sort=False):
        yield arm, rows, rows.filter(regex=r"^class_\d+$").to_numpy()


def _quantities(metrics, metric, prefix):
    """The columns of `seed_quantities` that one metric gives, under names with `prefix`."""
    test, curves = (metrics[metrics.split == split] for split in ("test", "validation"))
    columns = {f"{prefix}area": _areas(curves), f"test_{metric}": _by_seed(test).value.last() if len(test) else np.nan}
    return columns | ({f"{prefix}test_area": _areas(test)} if _by_seed(test)["round"].nunique().max() > 1 else {})


def _areas(curves):
    return _by_seed(curves)[["num_labels", "value"]].apply(_mean_height) if len(curves) else np.nan


def _by_seed(metrics):
    return metrics.groupby(["arm", "seed"], sort=False)


def _mean_height(curve):
    width = curve.num_labels.iloc[-1] - curve.num_labels.iloc[0]
    return auc(curve.num_labels, curve.value) / width if width else np.nan


def _compare(name, values, others, baseline):
    gaps = {arm: paired_difference(values[arm][name].to_numpy(), values[baseline][name].to_numpy()) for arm in others}
    tested = [arm for arm in others if gaps[arm]["p"] is not None]
    corrected = multipletests([gaps[arm]["p"] for arm in tested], method="holm")[1] if tested else []
    holm = dict(zip(tested, map(float, corrected), strict=True))
    return {arm: _plain(gap) | {"p_holm": holm.get(arm)} for arm, gap in gaps.items()}


def _spread(values):
    mean, std = (None, None) if np.isnan(values).any() else (values.mean(), None)
    if mean is not None and len(values) > 1:
        std = values.std(ddof=1)
    return _plain({"mean": mean, "std": std})


def _plain(numbers):
    return {name: None if number is None else float(number) for name, number in numbers.items()}


def _scaled(mean, std, scale):
    if mean is None:
        return ""
    return f"{scale * mean:.2f}" if std is None else f"{scale * mean:.2f} ± {scale * std:.2f}"


def _interval(gap, scale):
    if gap["mean"] is None:
        return ""
    return f"{scale * gap['mean']:+.2f}" + (
        "" if gap["low"] is None else f" [{scale * gap['low']:+.2f}, {scale * gap['high']:+.2f}]"
    )
