"""The sentences that a round ends with: no verdict where an interval holds both, a reason where there is no figure."""

from pathlib import Path

import numpy as np
import pytest

from latent_al.labelling import estimates, terminal


def report(**changes):
    """Returns the lines on a round of two classes, of which the slice holds the first alone."""
    truth, predicted = np.zeros(30, int), np.arange(30) // 29
    record = dict(round=3, queries=["a"], audit=[], num_labels=40, counts=dict(fine=38, defect=2))
    record |= dict(classes=["fine", "defect"], predicted={}, slice=dict(num=30, size=100, reason="", enlarged=None))
    record |= dict(accuracy=estimates.accuracy(truth == predicted), by_class=estimates.by_class(truth, predicted, 2))
    record |= dict(calibration_error=None, gain=None, against_random=None, target=None)
    return terminal.report(record | changes, Path("rounds/003")).splitlines()[3:]


def interval(low, high, **more):
    return dict(mean=(low + high) / 2, low=low, high=high) | more


def test_what_the_slice_does_not_hold():
    """One of 30 is taken for a defect, and no defect is there: the slice says nothing of how many are missed."""
    assert report()[:4] == [
        "  accuracy     96.7 % [83.3, 99.4] on 30 of 100 audit images",
        "  by class     balanced accuracy 96.7 % [83.3, 99.4] over the 1 of 2 classes that the slice holds",
        "    fine: recall 96.7 % [83.3, 99.4] of 30, precision 100.0 % [88.3, 100.0] of 29",
        "    the slice holds no defect: recall is unknown; under 9.5 % of images are of such a class",
    ]


def test_no_figure_without_a_sample():
    assert report(accuracy=None, slice=dict(num=0, size=100, reason="3 of 100 are labelled", enlarged=None)) == [
        "  accuracy     unknown: 3 of 100 are labelled"
    ]


def test_calibration_has_an_interval():
    lines = report(calibration_error=interval(0.0, 0.08))
    assert "  confidence   in predictions.csv is calibrated, off by 4.0 points [0.0, 8.0]" in lines


@pytest.mark.parametrize(
    "low, high, verdict",
    [
        (0.01, 0.05, ""),
        (-0.01, 0.05, ": cannot tell whether they are better than random labels"),
        (-0.05, 0.019, ": no better than random labels would be"),
    ],
)
def test_against_random(low, high, verdict):
    line = report(against_random=interval(low, high, num=50))[-1]
    assert line.startswith("  strategy     the first 50 chosen are ")
    assert line.partition("ahead of random")[2] == verdict


@pytest.mark.parametrize(
    "low, high, verdict",
    [
        (0.01, 0.05, ""),
        (
            -0.01,
            0.05,
            ": cannot tell whether more labels pay; if they added nothing, this slice would show it in 12",
        ),
        (-0.05, 0.019, ": more labels no longer pay; if they add nothing, this slice shows it in 12"),
        (0.005, 0.019, ": more labels no longer pay; if they add nothing, this slice shows it in 12"),
    ],
)
def test_next_batch(low, high, verdict):
    line = report(gain=interval(low, high, power=0.12))[-1]
    assert line.partition("]")[2] == (verdict and f"{verdict} of 100 cases")


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(is_reached=True), "90 % reached with 95 % confidence"),
        (
            dict(more_labels=dict(median=240, low=90, high=1200), seconds_a_label=6.0),
            "90 % would be shown by 97 correct of 30; about 240 more labels [90, 1,200], "
            "24 min at your pace of 6 s a label",
        ),
        (
            dict(more_labels=dict(median=240, low=90, high=None)),
            "90 % would be shown by 97 correct of 30; about 240 more labels [90, never]",
        ),
        (
            dict(more_labels=dict(median=None, low=90, high=None)),
            "90 % would be shown by 97 correct of 30; cannot tell how far off it is: 90 more labels, or never if the "
            "learning curve levels off",
        ),
        (
            dict(more_labels=dict(median=None, low=None, high=None)),
            "90 % would be shown by 97 correct of 30; cannot tell how far off it is: the learning curve "
            "levels off before",
        ),
        (
            dict(more_labels=dict(median=0, low=0, high=80), seconds_a_label=6.0),
            "90 % would be shown by 97 correct of 30; the learning curve may be there already, with 0 "
            "more labels [0, 80]",
        ),
        (
            dict(fewest_correct=None),
            "90 % would be shown by more than 30 audit images; how far off it is can be estimated from the "
            "third classifier on",
        ),
    ],
)
def test_target(changes, said):
    target = dict(accuracy=0.9, is_reached=False, fewest_correct=97, more_labels=None, seconds_a_label=None)
    assert report(target=target | changes)[-1] == f"  target       {said}"
