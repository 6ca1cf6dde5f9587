"""The answer of a run in words, beside numbers worked out by hand and slow loops."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from latent_al.results.answers import answer
from latent_al.results.comparisons import labels_to_match, labels_to_reach
from latent_al.results.intervals import mean_interval
from latent_al.results.statistics import final_differences, summarise

NUM_LABELS = [20, 40, 60, 80, 100]
BASE = np.array([[0.50, 0.60, 0.65, 0.70, 0.80], [0.54, 0.62, 0.69, 0.72, 0.84], [0.46, 0.58, 0.61, 0.68, 0.76]])
"""Validation scores [seeds checkpoints]; the mean at the end is 0.8."""


def as_metrics(validation, test=None, metric="accuracy", num_labels=NUM_LABELS):
    """The table of arm -> scores [seeds checkpoints] on validation, and [seeds] on test."""
    rows = [
        (arm, seed, index, num_labels[index], "validation", metric, value)
        for arm, scores in validation.items()
        for seed, of_seed in enumerate(scores)
        for index, value in enumerate(of_seed)
    ]
    last = len(num_labels) - 1
    rows += [
        (arm, seed, last, num_labels[last], "test", metric, value)
        for arm, scores in (test or {}).items()
        for seed, value in enumerate(scores)
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "round", "num_labels", "split", "metric", "value"])


def answered(metrics, baseline="random"):
    summary = summarise(metrics, baseline)
    summary["labels_to_reach"] = labels_to_reach(metrics, baseline, ())
    summary["labels_to_match"] = labels_to_match(metrics, baseline)
    summary["final_differences"] = final_differences(metrics, baseline)
    json.dumps(summary)
    return answer(summary)


def shifted(*shifts):
    """Scores whose gaps to the baseline's at the end are alike in all seeds, so that their intervals are points."""
    return BASE[:, -1:] + np.array(shifts)


def test_an_arm_ahead_by_the_same_in_all_seeds():
    """It is at 0.8 with 60 labels and the baseline with 100: 40 % fewer. On test it gains 0.05 each time."""
    arms = {"random": BASE, "margin": shifted(-0.2, -0.1, 0.0, 0.05, 0.1)}
    test = {"random": BASE[:, -1], "margin": BASE[:, -1] + 0.05}
    found = answered(as_metrics(arms, test))
    assert found.lead == (
        "margin reaches random's final validation accuracy of 80.0 % with 60 labels in place of 100: 40 % fewer (95 % "
        "interval 40 to 40 %). Its test accuracy at the end is 5.0 points higher (95 % interval 5.0 to 5.0; p = 0.25)."
    )
    assert found.lines == {}
    assert "paired over 3 seeds" in found.notes[0]
    assert not any("Holm" in note or "arms are compared" in note for note in found.notes)


@pytest.fixture(params=[1, -1], ids=["accuracy", "angular_error"])
def noisy(request):
    """Eight seeds of a baseline and of arms ahead, behind, and alike; of an error the same below zero, and a metric."""
    rng = np.random.default_rng(0)
    sign = request.param
    base = np.linspace(0.5, 0.8, 5) + 0.03 * rng.normal(size=(8, 1)) + 0.01 * rng.normal(size=(8, 5))
    arms = {
        "random": base,
        "behind": base - 0.2,
        "alike": base + 0.02 * rng.normal(size=(8, 5)),
        "ahead": base + np.array([0, 0.1, 0.12, 0.14, 0.15]) + 0.02 * rng.normal(size=(8, 5)),
    }
    if sign < 0:
        arms = {arm: 180 * (1 - scores) for arm, scores in arms.items()}
    arms = {arm: scores.round(6) for arm, scores in arms.items()}
    return as_metrics(arms, metric="accuracy" if sign > 0 else "angular_error"), arms, sign


def first(is_there):
    return next((labels for labels, there in zip(NUM_LABELS, is_there, strict=True) if there), None)


def test_labels_to_match_are_those_of_a_slow_loop(noisy):
    metrics, arms, sign = noisy
    found = labels_to_match(metrics, "random")
    final = arms["random"][:, -1]
    assert found["target"] == pytest.approx(final.mean(), abs=1e-6)
    assert found["last"] == 100
    assert list(found["arms"]) == ["behind", "alike", "ahead"]
    for arm, needed in found["arms"].items():
        gaps = [sign * (arms[arm][:, index] - final) for index in range(5)]
        ends = [mean_interval(gap) for gap in gaps]
        assert needed["labels"] == first([gap.mean() >= 0 for gap in gaps])
        assert needed["interval"] == [first([end.high >= 0 for end in ends]), first([end.low >= 0 for end in ends])]
    assert found["arms"]["ahead"]["interval"][1] < found["baseline_labels"] == 100
    assert found["arms"]["behind"] == dict(labels=None, interval=[None, None])


def test_of_several_arms_the_sure_ones_come_first(noisy):
    """Whether higher is better or lower: the lead counts them, the lines say what is and is not shown."""
    metrics, _, sign = noisy
    name = "accuracy" if sign > 0 else "mean absolute angular error"
    found = answered(metrics)
    better, worse = ("higher", "lower")[::sign]
    lead = "1 of 3 arms needs fewer labels than random. The fewest: ahead reaches random's final "
    assert found.lead.startswith(f"{lead}validation {name} of ")
    assert found.lead.endswith(
        f"1 of 3 arms ends with a {better} validation {name} than random, each by its own interval."
    )
    assert list(found.lines) == ["ahead", "alike", "behind"]
    assert " labels in place of 100: " in found.lines["ahead"]
    assert f" {better} (95 % interval " in found.lines["ahead"]
    assert "fewer" not in found.lines["alike"]
    assert f"The validation {name} at the end is not shown to differ: " in found.lines["alike"]
    assert found.lines["behind"].startswith(
        "Not reached with 100 labels, and behind with every number of labels by the 95 % interval. "
    )
    size = "20.0 points" if sign > 0 else "36.0 degrees"
    assert f"at the end is {size} {worse} (95 % interval " in found.lines["behind"]
    assert any("Holm-corrected" in note for note in found.notes)
    assert any(note.startswith("3 arms are compared") for note in found.notes)


def test_no_claim_where_the_interval_includes_zero():
    """The arm is at 0.8 with 80 labels on the mean, by 0.1, 0.05 and -0.15: its interval is open."""
    better = np.concatenate([BASE[:, :3], BASE[:, -1:] + np.array([[0.1], [0.05], [-0.15]]), BASE[:, -1:]], axis=1)
    found = answered(as_metrics({"random": BASE, "margin": better}))
    assert found.lead == (
        "margin is not shown to reach random's final validation accuracy of 80.0 % with fewer labels than random. "
        "margin is not shown to end with a higher validation accuracy than random."
    )
    assert found.lines["margin"].startswith("80 labels in place of 100, not shown to differ (95 % interval 80 to 100 ")


def test_final_differences_are_those_of_scipy():
    rng = np.random.default_rng(0)
    arms = {arm: BASE + 0.1 * rng.normal(size=BASE.shape) for arm in ("random", "a", "b")}
    test = {arm: rng.normal(size=3) for arm in arms}
    found = final_differences(as_metrics(arms, test), "random")
    assert found["split"] == "test"
    assert final_differences(as_metrics(arms), "random")["split"] == "validation"
    for arm in ("a", "b"):
        gaps = test[arm] - test["random"]
        assert found["arms"][arm]["mean"] == pytest.approx(gaps.mean())
        assert found["arms"][arm]["p"] == pytest.approx(scipy.stats.wilcoxon(gaps).pvalue)
        assert found["arms"][arm]["low"] == pytest.approx(mean_interval(gaps).low)


def test_one_seed_has_no_interval():
    found = answered(as_metrics({"random": BASE[:1], "margin": shifted(-0.2, 0.0, 0.1, 0.1, 0.1)[:1]}))
    assert found.lead == (
        "margin reaches random's final validation accuracy of 80.0 % with 40 labels in place of 100. Its validation "
        "accuracy at the end is 10.0 points higher. This is a single seed, which says nothing about chance."
    )
    assert found.notes == []
    equal = answered(as_metrics({"random": BASE[:1], "margin": BASE[:1]}))
    assert "Its validation accuracy at the end is that of random." in equal.lead


def test_one_arm_is_not_compared():
    assert answered(as_metrics({"random": BASE})).lead == "random is the only arm, so nothing is compared."


def test_arms_without_held_out_labels_are_not_compared():
    metrics = as_metrics({"random": BASE, "margin": BASE}).assign(split="labelled")
    assert answered(metrics).lead == "No held-out image has a label, so nothing is compared."


def test_without_labels_there_is_no_answer():
    assert answer({"num_seeds": 2, "arms": {}, "differences": {}}) is None


def test_a_single_checkpoint_is_answered_by_the_score():
    arms = {"random": BASE[:, :1], "typical": BASE[:, :1] + np.array([[0.1], [0.12], [0.11]])}
    found = answered(as_metrics(arms, num_labels=[20]))
    assert found.lead == "typical ends with a higher validation accuracy than random."
    assert found.lines["typical"].startswith("The validation accuracy at the end is 11.0 points higher (95 % interval ")


def test_an_arm_that_was_tuned_says_so():
    metrics = as_metrics({"random": BASE, "margin": shifted(-0.2, -0.1, 0.0, 0.05, 0.1)})
    summary = summarise(metrics, "random") | dict(tuned={}, labels_to_match=labels_to_match(metrics, "random"))
    summary["final_differences"] = final_differences(metrics, "random")
    assert answer(summary).notes[-1].startswith("Settings were chosen on the same validation data")
