"""Arms side by side, beside loops over pairs, rounds and seeds."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from latent_al.results.comparisons import compare_pairs, labels_to_reach, pairs_table, reach_table

NUM_LABELS = [10, 30, 40, 60]
ARMS = ["zeta", "far", "near", "same", "shifted"]


def as_metrics(curves, metric="accuracy"):
    """The table of arm -> validation scores [seeds rounds], with rows of other splits and metrics, out of order."""
    rows = [
        (arm, seed, r, NUM_LABELS[r], split, name, value + error)
        for arm, values in curves.items()
        for seed, scores in enumerate(values)
        for r, value in enumerate(scores)
        for split, name, error in (
            ("validation", metric, 0),
            ("validation", "balanced_accuracy", -0.2),
            ("labelled", metric, 0.1),
        )
    ]
    table = pd.DataFrame(rows, columns=["arm", "seed", "round", "num_labels", "split", "metric", "value"])
    order = np.random.default_rng(1).permutation(len(table))
    return table.iloc[order].sort_values("arm", key=lambda arm: arm.map(list(curves).index), kind="stable")


@pytest.fixture
def curves():
    """Of six seeds: an arm far ahead later on, one near, one equal, and one ahead by the same in every seed."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3, 0.4, size=(6, 4)) + np.linspace(0, 0.2, 4)
    far = base + np.array([-0.1, 0.01, 0.2, 0.3]) + 0.01 * rng.normal(size=(6, 4))
    return dict(zip(ARMS, [base, far, base + 0.02 * rng.normal(size=(6, 4)), base, base + 0.125], strict=True))


def slow_penalties(curves, sign):
    """{arm: {other: rounds ahead}} and the number of rounds, with t and Holm written out."""
    tests = []
    for i, arm in enumerate(ARMS):
        for other in ARMS[i + 1 :]:
            for index in range(len(NUM_LABELS)):
                gaps = np.round(sign * (np.round(curves[arm], 6) - np.round(curves[other], 6))[:, index], 6)
                deviation = gaps.std(ddof=1)
                t = np.inf if deviation < 1e-12 else gaps.mean() / (deviation / np.sqrt(len(gaps)))
                p = 2 * scipy.stats.t.sf(abs(t), len(gaps) - 1) if gaps.any() else 1.0
                tests.append((p, arm, other, gaps.mean()))
    wins = {arm: dict.fromkeys((other for other in ARMS if other != arm), 0) for arm in ARMS}
    for rank, (p, arm, other, gap) in enumerate(sorted(tests)):
        if p > 0.05 / (len(tests) - rank):
            break
        wins[arm if gap > 0 else other][other if gap > 0 else arm] += 1
    return wins


@pytest.mark.parametrize("metric, sign", [("accuracy", 1), ("angular_error", -1)])
def test_penalties_are_those_of_a_slow_loop(curves, metric, sign):
    wins = slow_penalties(curves, sign)
    assert 0 < wins["far" if sign == 1 else "zeta"]["zeta" if sign == 1 else "far"] < 4
    found = compare_pairs(as_metrics(curves, metric))
    assert list(found["penalties"]) == ARMS
    for arm in ARMS:
        for other in set(ARMS) - {arm}:
            assert found["penalties"][arm][other] == wins[arm][other] / 4
            assert found["ties"][arm][other] == pytest.approx(1 - (wins[arm][other] + wins[other][arm]) / 4)
    assert found["ties"]["zeta"]["same"] == 1
    ahead, behind = ("shifted", "zeta")[::sign]
    assert found["penalties"][ahead][behind] == 1
    json.dumps(found)


def test_penalties_are_shown_with_ties(curves):
    table = pairs_table(compare_pairs(as_metrics({arm: curves[arm] for arm in ("zeta", "same", "shifted")})))
    assert table.columns.tolist() == ["arm", "zeta", "same", "shifted"]
    assert table.zeta.tolist() == ["", "0.00 (ties 1.00)", "1.00 (ties 0.00)"]
    named = pairs_table(compare_pairs(as_metrics({"arm": curves["zeta"], "shifted": curves["shifted"]})))
    assert named.to_numpy().tolist() == [["arm", "", "0.00 (ties 0.00)"], ["shifted", "1.00 (ties 0.00)", ""]]


def test_nothing_is_compared_without_pairs_or_seeds(curves):
    assert compare_pairs(as_metrics({"zeta": curves["zeta"]})) == {}
    assert compare_pairs(as_metrics({arm: values[:1] for arm, values in curves.items()})) == {}
    unscored = as_metrics(curves).query("split == 'labelled'")
    assert compare_pairs(unscored) == {}
    assert labels_to_reach(unscored, "zeta", (0.5,)) == []
    assert pairs_table({}).empty


def slow_reach(values, target, sign):
    """The labels at which values [rounds] are first at the target."""
    return next((n for n, v in zip(NUM_LABELS, values, strict=True) if sign * (v - target) > -1e-9), None)


@pytest.mark.parametrize("metric, sign", [("accuracy", 1), ("angular_error", -1)])
def test_labels_to_reach_are_those_of_a_slow_loop(curves, metric, sign):
    curves = {arm: np.round(values if sign == 1 else 1 - values, 6) for arm, values in curves.items()}
    targets = (0.5, 0.55, 0.05)
    found = labels_to_reach(as_metrics(curves, metric), "near", targets)
    assert [each["source"] for each in found] == ["reach", "reach", "reach", "baseline"]
    final = np.round(curves["near"].mean(axis=0), 6)[-1]
    assert [each["target"] for each in found] == [*targets, pytest.approx(final)]
    for each in found:
        for arm, values in curves.items():
            needed = [slow_reach(seed, each["target"], sign) for seed in values]
            middle = np.median([np.inf if n is None else n for n in needed])
            mean = slow_reach(np.round(values.mean(axis=0), 6), each["target"], sign)
            assert each["arms"][arm] == {"mean_curve": mean, "seed_median": None if np.isinf(middle) else middle}
    json.dumps(found)


def test_a_score_is_reached_at_equality_and_maybe_never():
    """Float32 values, as they come from a run; the seeds reach it with 10, 40 and 60 labels, or not at all."""
    scores = np.float32([[0.9, 0.9, 0.9, 0.9], [0.1, 0.1, 0.9, 0.9], [0.1, 0.1, 0.1, 0.9], [0.1, 0.1, 0.1, 0.1]])
    at, never = labels_to_reach(as_metrics({"a": scores[:3], "b": scores[:3]}), "a", (0.9, 1.0))[:2]
    assert at["arms"]["a"] == {"mean_curve": 60, "seed_median": 40}
    assert never["arms"]["b"] == {"mean_curve": None, "seed_median": None}
    metrics = as_metrics({"a": scores})
    summary = {"metric": "accuracy", "arms": {"a": {}}, "labels_to_reach": labels_to_reach(metrics, "a", (0.9,))}
    assert summary["labels_to_reach"][0]["arms"]["a"] == {"mean_curve": None, "seed_median": 50}
    assert reach_table(summary).to_dict("records") == [
        {"arm": "a", "90.00 %": "never (50)", "70.00 % (baseline at the end)": "60 (50)"}
    ]
