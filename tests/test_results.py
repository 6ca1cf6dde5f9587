"""Tables and statistics beside numbers worked out by hand."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from latent_al.results.balance import balance_means, balance_summary, balance_table
from latent_al.results.formatting import arms_table, format_table, note
from latent_al.results.intervals import NAME, mean_interval
from latent_al.results.statistics import gaps_table, paired_difference, summarise
from latent_al.results.tables import History, metrics_table, queries_table

NUM_LABELS = np.array([10, 20, 40])


def history(validation, test, metric="accuracy", balanced=None):
    """`validation` [seeds rounds] is scored, and `test` [seeds] at the end; `balanced` is (validation, test)."""
    scores = {metric: _scores(validation, test)} | ({"balanced_accuracy": _scores(*balanced)} if balanced else {})
    queried = np.argsort(np.random.default_rng(0).uniform(size=(len(test), 50)), axis=1)[:, :40]
    return History(queried, scores, np.zeros((3, 2)))


def _scores(validation, test):
    scores = {"validation": np.float32(validation), "test": np.full_like(np.float32(validation), np.nan)}
    scores["test"][:, -1] = test
    return scores


@pytest.fixture
def metrics():
    base = history([[0.2, 0.4, 0.6], [0.4, 0.4, 0.4], [0.1, 0.3, 0.5]], [0.6, 0.4, 0.5])
    better = history([[0.4, 0.6, 0.8], [0.5, 0.5, 0.5], [0.2, 0.4, 0.6]], [0.8, 0.5, 0.6])
    worse = history([[0.1, 0.2, 0.3], [0.3, 0.3, 0.3], [0.1, 0.2, 0.3]], [0.3, 0.3, 0.3])
    arms = dict(base=base, better=better, worse=worse)
    return pd.concat([metrics_table(arm, [4, 5, 6], NUM_LABELS, each) for arm, each in arms.items()])


def test_metrics_are_tidy(metrics):
    assert list(metrics) == ["arm", "seed", "round", "num_labels", "split", "metric", "value"]
    assert len(metrics) == 3 * 3 * 4
    row = metrics.query("arm == 'better' and seed == 4 and round == 1 and split == 'validation'")
    assert row.num_labels.item() == 20
    assert row.value.item() == pytest.approx(0.6)
    assert metrics.query("split == 'test'").num_labels.unique().tolist() == [40]


def test_queries_name_each_row_once():
    each = history(np.zeros((2, 3)), [0, 0])
    table = queries_table("arm", [4, 5], NUM_LABELS, each, np.array([f"id{i}" for i in range(50)]))
    assert list(table) == ["arm", "seed", "round", "rank", "row", "id"]
    second = table[table.seed == 5]
    assert second["round"].tolist() == [0] * 10 + [1] * 10 + [2] * 20
    assert second["rank"].tolist() == [*range(10), *range(10), *range(20)]
    assert second["row"].tolist() == each.queried[1].tolist()
    assert (table["id"] == "id" + table["row"].astype(str)).all()


@pytest.fixture
def queries():
    """Two arms, the first not the first by name, of three seeds that query 4, 8 and 12 of 40 rows."""
    rng = np.random.default_rng(0)
    each = [
        queries_table(arm, [4, 5, 10], np.array([4, 8, 12]), History(queried, {}, np.zeros((3, 2))), np.arange(40))
        for arm, queried in [(arm, np.stack([rng.permutation(40)[:12] for _ in range(3)])) for arm in ("zeta", "alpha")]
    ]
    return pd.concat(each)


def test_balance_counts_what_is_queried_so_far(queries):
    labels = np.random.default_rng(1).integers(5, size=40)
    table = balance_table(queries, labels, 5)
    classes = [f"class_{label}" for label in range(5)]
    assert list(table) == ["arm", "seed", "round", "num_labels", "class_entropy", "classes_missed", *classes]
    expected = [(arm, seed, index) for arm in ("zeta", "alpha") for seed in (4, 5, 10) for index in range(3)]
    assert [*table[["arm", "seed", "round"]].itertuples(index=False, name=None)] == expected
    for row in table.to_dict("records"):
        counts = [0] * 5
        for query in queries.to_dict("records"):
            if query["arm"] == row["arm"] and query["seed"] == row["seed"] and query["round"] <= row["round"]:
                counts[labels[query["row"]]] += 1
        assert [row[name] for name in classes] == counts
        assert row["num_labels"] == sum(counts) == 4 * (row["round"] + 1)
        assert row["classes_missed"] == counts.count(0)
        shares = np.array([count for count in counts if count]) / sum(counts)
        assert row["class_entropy"] == pytest.approx(-(shares * np.log(shares)).sum() / np.log(5))


@pytest.mark.parametrize("num_classes", [2, 10, 12])
def test_balance_of_equal_and_of_single_classes(queries, num_classes):
    one = queries[(queries.seed == 4) & (queries.arm == "zeta")]
    equal = np.zeros(40, int)
    equal[one.row] = np.arange(12) % num_classes
    counts = np.bincount(np.arange(12) % num_classes, minlength=num_classes)
    shares = counts / 12
    last = balance_table(one, equal, num_classes).iloc[-1]
    assert last.class_entropy == pytest.approx(-(shares * np.log(shares)).sum() / np.log(num_classes))
    assert last.class_entropy <= 1
    last = balance_table(one, np.ones(40, int), num_classes).iloc[-1]
    assert (last.class_entropy, last.classes_missed, last.class_1) == (0, num_classes - 1, 12)


def test_the_order_of_queries_within_an_arm_does_not_matter(queries):
    labels = np.random.default_rng(1).integers(5, size=40)
    shuffled = queries.sort_values("row", kind="stable").sort_values("arm", ascending=False, kind="stable")
    pd.testing.assert_frame_equal(balance_table(shuffled, labels, 5), balance_table(queries, labels, 5))


def test_balance_is_summed_up_over_seeds():
    """At the last round, [3 1 0] and [0 2 2] labels of the classes."""
    columns = ["arm", "seed", "round", "row"]
    rows = [("a", 0, 0, 0), ("a", 0, 0, 1), ("a", 0, 1, 2), ("a", 0, 1, 3)]
    rows += [("a", 1, 0, 3), ("a", 1, 0, 4), ("a", 1, 1, 5), ("a", 1, 1, 6)]
    table = balance_table(pd.DataFrame(rows, columns=columns), np.array([0, 0, 0, 1, 1, 2, 2]), 3)
    entropies = np.array([-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), np.log(2)]) / np.log(3)
    means = balance_means(table)
    assert means.keys() == {"a"}
    assert means["a"]["class_entropy"] == pytest.approx({"mean": entropies.mean(), "std": entropies.std(ddof=1)})
    assert means["a"]["classes_missed"] == {"mean": 1, "std": 0}
    assert means["a"]["class_counts"] == [1.5, 1.5, 1]
    (line,) = balance_summary(table).to_dict("records")
    assert line == {
        "arm": "a",
        "class entropy": f"{entropies.mean():.3f} ± {entropies.std(ddof=1):.3f}",
        "classes missed": "1.0",
        "smallest class": "0.0",
        "largest class": "2.5",
    }
    single = table[table.seed == 0]
    assert balance_means(single)["a"]["class_entropy"] == {"mean": pytest.approx(entropies[0]), "std": None}
    assert balance_summary(single)["class entropy"].item() == f"{entropies[0]:.3f}"


def test_balance_means_are_plain_numbers(queries):
    """So that JSON takes them."""
    json.dumps(balance_means(balance_table(queries, np.arange(40) % 3, 3)))


def test_area_is_the_mean_height(metrics):
    """Trapezoids over 10..20..40 labels: (0.3 * 10 + 0.5 * 20) / 30 for base's first seed."""
    summary = summarise(metrics, "base")
    areas = [(0.3 * 10 + 0.5 * 20) / 30, 0.4, (0.2 * 10 + 0.4 * 20) / 30]
    assert summary["arms"]["base"]["area"]["mean"] == pytest.approx(np.mean(areas))
    assert summary["arms"]["base"]["area"]["std"] == pytest.approx(np.std(areas, ddof=1))
    assert summary["arms"]["worse"]["test_accuracy"]["std"] == 0


@pytest.fixture
def with_balanced():
    """Two arms with both metrics."""
    base = history(
        [[0.2, 0.4, 0.6], [0.4, 0.4, 0.4]], [0.6, 0.4], balanced=([[0, 0.2, 0.4], [0.1, 0.1, 0.1]], [0, 0.2])
    )
    more = history(
        [[0.3, 0.4, 0.6], [0.4, 0.4, 0.5]], [0.7, 0.6], balanced=([[0, 0.2, 0.4], [0.1, 0.1, 0.1]], [0.3, 0.4])
    )
    return pd.concat([metrics_table(arm, [0, 1], NUM_LABELS, each) for arm, each in dict(base=base, more=more).items()])


def test_balanced_accuracy_stands_beside_accuracy(with_balanced):
    """Its quantities have their own names, and nothing of it gets into those of accuracy."""
    first = with_balanced[(with_balanced.arm == "base") & (with_balanced.seed == 0) & (with_balanced["round"] == 2)]
    expected = [("test", "accuracy"), ("test", "balanced_accuracy")]
    expected += [("validation", "accuracy"), ("validation", "balanced_accuracy")]
    assert [*first[["split", "metric"]].itertuples(index=False, name=None)] == expected
    plain = with_balanced[with_balanced.metric == "accuracy"]
    both, alone = summarise(with_balanced, "base"), summarise(plain, "base")
    assert both["metric"] == "accuracy"
    for arm, spread in alone["arms"].items():
        assert both["arms"][arm].keys() == {"area", "test_accuracy", "balanced_area", "test_balanced_accuracy"}
        assert spread.items() <= both["arms"][arm].items()
    assert both["differences"]["more"]["test_balanced_accuracy"]["mean"] == pytest.approx(0.25)
    area = np.mean([(0.1 * 10 + 0.3 * 20) / 30, 0.1])
    assert both["arms"]["base"]["balanced_area"]["mean"] == pytest.approx(area)
    pd.testing.assert_frame_equal(gaps_table(with_balanced, "base"), gaps_table(plain, "base"))
    assert format_table(both) == format_table(alone)
    shown = arms_table(both, balanced=True)
    assert shown["test_balanced_accuracy"].tolist() == ["10.00 ± 14.14", "35.00 ± 7.07"]
    assert arms_table(alone, balanced=True).empty


def test_a_test_split_of_several_rounds_has_an_area(with_balanced):
    tested = with_balanced[(with_balanced.split == "validation") & (with_balanced.arm == "base")].assign(split="test")
    summary = summarise(pd.concat([tested, with_balanced[with_balanced.arm == "more"]]), "base")["arms"]
    areas = dict(test_area=[(0.3 * 10 + 0.5 * 20) / 30, 0.4], balanced_test_area=[(0.1 * 10 + 0.3 * 20) / 30, 0.1])
    for name, expected in areas.items():
        assert summary["base"][name]["mean"] == pytest.approx(np.mean(expected))
        assert summary["more"][name] == {"mean": None, "std": None}


def test_areas_are_explained_where_they_are_shown(with_balanced):
    """Those of the splits that were scored, and none of a single round."""
    validated = with_balanced[with_balanced.split == "validation"]
    tested = validated.assign(split="test")
    said = " ".join(format_table(summarise(tested, "base")).split())
    assert "(percent; test_area: mean test accuracy over the labels queried; differences" in said
    said = note(summarise(pd.concat([validated, tested]), "base"), balanced=True)
    assert "balanced_area: mean validation balanced accuracy over the labels queried; balanced_test_area: mean" in said
    assert "area" not in note(summarise(with_balanced[with_balanced["round"] == 2], "base"))


def test_differences_are_paired_and_holm_corrected(metrics):
    summary = summarise(metrics, "base")
    assert summary["differences"].keys() == {"better", "worse"}
    gap = summary["differences"]["better"]["test_accuracy"]
    assert gap["mean"] == pytest.approx(np.mean([0.2, 0.1, 0.1]))
    reach = scipy.stats.t.ppf(0.975, 2) * scipy.stats.sem([0.2, 0.1, 0.1])
    assert gap["low"] <= 0.4 / 3 - reach + 1e-6
    assert gap["high"] >= 0.4 / 3 + reach - 1e-6
    assert gap["p"] == pytest.approx(0.25)
    assert gap["p_holm"] == pytest.approx(0.5)
    assert summary["interval"] == NAME
    assert f"+13.33 [{100 * gap['low']:+.2f}, " in format_table(summary)
    assert f"intervals: {NAME})" in " ".join(format_table(summary).split())


def test_seeds_pair_by_number_and_not_by_place(metrics):
    expected = summarise(metrics, "base")["differences"]
    is_better = metrics.arm == "better"
    reordered = pd.concat([metrics[~is_better], metrics[is_better].sort_values("seed", ascending=False, kind="stable")])
    assert summarise(reordered, "base")["differences"] == expected
    fewer = summarise(metrics[~is_better | (metrics.seed != 6)], "base")["differences"]["better"]
    assert fewer["test_accuracy"] == {"mean": None, "low": None, "high": None, "p": None, "p_holm": None}


def test_the_table_fits_a_terminal_and_has_all_that_is_compared(metrics):
    renamed = metrics.assign(arm=metrics.arm.replace("better", "uncertain_farthest_first_of_a_typical_start"))
    summary = summarise(renamed, "base")
    lines = format_table(summary).splitlines()
    assert max(map(len, lines)) <= 80
    assert "uncertain_farthest_first_of_a_typical_start" in "".join(line[2:].split("  ")[0] for line in lines)
    values = arms_table(summary).drop(columns="arm").to_numpy().ravel().tolist()
    assert all(value in format_table(summary) for value in values)


def test_gaps_are_paired_round_by_round(metrics):
    table = gaps_table(metrics, "base")
    assert list(table) == ["arm", "round", "num_labels", "mean", "low", "high"]
    assert table.num_labels.tolist() == 2 * NUM_LABELS.tolist()
    np.testing.assert_allclose(table[table.arm == "better"]["mean"], [0.4 / 3, 0.4 / 3, 0.4 / 3], rtol=1e-5)
    np.testing.assert_allclose(table[table.arm == "worse"]["mean"], [-0.2 / 3, -0.4 / 3, -0.2], rtol=1e-5)
    expected = paired_difference(np.float32([0.2, 0.1, 0.1]), np.zeros(3))
    assert table.iloc[2][["low", "high"]].tolist() == pytest.approx([expected["low"], expected["high"]], abs=1e-6)


def test_gaps_of_the_test_split(metrics):
    """Test scores, where they are scored in every round, are compared as validation scores are, and apart from them."""
    tested = metrics[metrics.split != "test"]
    halved = tested[tested.split == "validation"].assign(split="test", value=lambda rows: 0.5 * rows.value)
    table = gaps_table(pd.concat([tested, halved]), "base", split="test")
    validation = gaps_table(metrics, "base")
    pd.testing.assert_frame_equal(table.iloc[:, :3], validation.iloc[:, :3])
    np.testing.assert_allclose(table["mean"].astype(float), 0.5 * validation["mean"].astype(float), rtol=1e-5)


def test_angles_are_shown_in_degrees():
    angles = history([[90, 60, 30], [80, 60, 40]], [20, 22], "angular_error")
    summary = summarise(metrics_table("base", [0, 1], NUM_LABELS, angles), "base")
    assert summary["arms"]["base"].keys() == {"area", "test_angular_error"}
    assert summary["arms"]["base"]["test_angular_error"]["mean"] == pytest.approx(21)
    assert "21.00 ± 1.41" in format_table(summary)
    assert "degrees" in format_table(summary)


def test_holm_by_hand(metrics):
    """Sorted p-values times 2 and 1, made monotone."""
    rng = np.random.default_rng(0)
    values = {"base": rng.uniform(size=20)}
    values |= {"clear": values["base"] + 0.3 + 0.01 * rng.normal(size=20)}
    values |= {"weak": values["base"] + 0.02 + 0.1 * rng.normal(size=20)}
    frame = pd.concat(
        [
            pd.DataFrame(
                dict(arm=arm, seed=range(20), round=2, num_labels=40, split="test", metric="accuracy", value=value)
            )
            for arm, value in values.items()
        ]
    )
    gaps = {arm: gap["test_accuracy"] for arm, gap in summarise(frame, "base")["differences"].items()}
    expected = {arm: scipy.stats.wilcoxon(np.round(values[arm] - values["base"], 9)).pvalue for arm in gaps}
    assert gaps["clear"]["p"] == pytest.approx(expected["clear"])
    assert gaps["clear"]["p_holm"] == pytest.approx(2 * expected["clear"])
    assert gaps["weak"]["p_holm"] == pytest.approx(max(expected["weak"], 2 * expected["clear"]))


def test_equal_gaps_tie_whatever_their_rounding():
    """In counts of 500 images, whose shares a run has in float32 and `metrics.csv` with six decimals."""
    counts, more = np.array([400, 391, 403, 410, 397, 388, 402, 395]), np.array([-1, 2, -2, 4, 5, -1, 4, 0])
    expected = scipy.stats.wilcoxon(more).pvalue
    for num_images in (500, 470):
        exact = (counts + more) / num_images, counts / num_images
        for scores in (exact, np.float32(exact).astype(float), np.round(exact, 6)):
            assert paired_difference(*scores)["p"] == expected


def test_interval_near_the_normal_one():
    gaps = np.random.default_rng(0).normal(0.5, 1, 400)
    result = paired_difference(gaps, np.zeros(400))
    half = 1.96 * gaps.std() / 20
    assert result["low"] == pytest.approx(gaps.mean() - half, abs=0.02)
    assert result["high"] == pytest.approx(gaps.mean() + half, abs=0.02)


def coverage(gaps, mean):
    """The share of rows whose interval holds the mean, and the same of the percentile bootstrap."""
    interval = mean_interval(gaps)
    resampled = gaps[:200, np.random.default_rng(1).integers(gaps.shape[1], size=(1000, gaps.shape[1]))].mean(axis=2)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=1)
    return np.mean((interval.low <= mean) & (mean <= interval.high)), np.mean((low <= mean) & (mean <= high))


@pytest.mark.parametrize("shape", ["normal", "exponential", "lognormal", "area"])
def test_intervals_of_ten_seeds_cover_normal_and_skewed_gaps(shape):
    """Gaps of 1,000 runs; each area is a mean over ten budgets that share a part of their seed's luck."""
    rng, size = np.random.default_rng(2), (1000, 10)
    luck, rest = rng.exponential(size=(*size, 1)), rng.exponential(size=(*size, 10))
    gaps, mean = {
        "normal": (rng.normal(size=size), 0),
        "exponential": (rng.exponential(size=size), 1),
        "lognormal": (rng.lognormal(0, 0.5, size), np.exp(0.125)),
        "area": ((0.5 * luck + rest).mean(axis=2), 1.5),
    }[shape]
    covered, by_percentile = coverage(gaps, mean)
    assert 0.93 <= covered <= 0.98
    assert by_percentile < 0.925


def test_interval_is_the_wider_of_student_and_bootstrap_t():
    """Beside a loop over resamples, for gaps so skewed that each of the two has the wider end once."""
    gaps = np.random.default_rng(3).exponential(size=10)
    error, t = scipy.stats.sem(gaps), scipy.stats.t.ppf(0.975, 9)
    rng, statistics = np.random.default_rng(4), []
    for _ in range(10_000):
        resample = gaps[rng.integers(10, size=10)]
        statistics.append((resample.mean() - gaps.mean()) / (resample.std(ddof=1) / np.sqrt(10)))
    low, high = np.quantile(statistics, [0.025, 0.975])
    assert low < -t < t
    assert high < t
    interval = mean_interval(gaps)
    assert interval.low == pytest.approx(gaps.mean() - t * error)
    assert interval.high == pytest.approx(gaps.mean() - low * error, rel=0.04)
    mirrored = mean_interval(-gaps)
    assert (-mirrored.high, -mirrored.low) == pytest.approx(interval)


def test_degenerate_gaps():
    """Two seeds have Student's interval; nearly all equal ones hold their mean, and equal ones are a point."""
    pair = paired_difference(np.array([0.1, 0.4]), np.zeros(2))
    reach = scipy.stats.t.ppf(0.975, 1) * 0.15
    assert (pair["low"], pair["high"]) == pytest.approx((0.25 - reach, 0.25 + reach))
    rare = paired_difference(np.eye(10)[0], np.zeros(10))
    reach = scipy.stats.t.ppf(0.975, 9) * 0.1
    assert (rare["low"], rare["high"]) == pytest.approx((0.1 - reach, 0.1 + reach))
    rounded = paired_difference(np.array([0.3, 0.1 + 0.2, 0.3]), np.zeros(3))
    assert rounded["low"] == rounded["high"] == pytest.approx(0.3)
    nothing = {"mean": None, "low": None, "high": None, "p": None}
    assert paired_difference(np.array([0.1, np.nan, 0.3]), np.zeros(3)) == nothing


def test_equal_arms_and_single_seeds():
    equal = paired_difference(np.ones(5), np.ones(5))
    assert equal == {"mean": 0, "low": 0, "high": 0, "p": 1}
    assert paired_difference(np.array([0.5]), np.array([0.25])) == {"mean": 0.25, "low": None, "high": None, "p": None}
    single = metrics_table("base", [0], NUM_LABELS, history([[0.2, 0.4, 0.6]], [0.6]))
    assert summarise(single, "base")["arms"]["base"]["area"]["std"] is None
    assert "60.00" in format_table(summarise(single, "base"))


def test_one_round_has_no_area():
    table = metrics_table("base", [0, 1], NUM_LABELS[:1], history([[0.2], [0.4]], [0.5, 0.6]))
    assert summarise(table, "base")["arms"]["base"]["area"] == {"mean": None, "std": None}
