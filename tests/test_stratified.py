"""Recall and precision from strata of which the audit slice holds different shares."""

import numpy as np
import pytest

from latent_al.labelling import estimates
from latent_al.labelling.stratified import Sample, by_class, share_among

RANDOM = Sample(np.array([0] * 8 + [1] * 90 + [1, 0]), np.array([0] * 8 + [1] * 90 + [0, 1]), 5000.0)


def test_one_stratum_is_the_random_slice():
    alone, stratified = estimates.by_class(RANDOM.truth, RANDOM.predicted, 2), by_class([RANDOM], 2)
    assert stratified["confusion"] == alone["confusion"]
    for name in ("recall", "precision"):
        for one, other in zip(stratified[name], alone[name], strict=True):
            assert one["mean"] == pytest.approx(other["mean"])
            assert one["num"] == other["num"]
            assert one["low"] == pytest.approx(other["low"], abs=0.06)
            assert one["high"] == pytest.approx(other["high"], abs=0.06)


def test_an_image_stands_for_as_many_of_its_stratum():
    """Of 4,900 images every 49th is seen, two of class 0 that are missed; of 60 every third, 15 of 20 are of it."""
    rest = Sample(np.array([0] * 2 + [1] * 98), np.ones(100, int), 4900.0)
    inside = Sample(np.array([0] * 15 + [1] * 5), np.zeros(20, int), 60.0)
    told = by_class([rest, inside], 2)
    assert told["recall"][0]["mean"] == pytest.approx(45 / (45 + 98))
    assert told["precision"][0]["mean"] == pytest.approx(0.75)
    assert told["recall"][1]["mean"] == pytest.approx(98 * 49 / (98 * 49 + 15))
    assert told["recall"][0]["num"] == 17
    assert told["confusion"] == [[15, 2], [5, 98]]
    assert told["balanced"]["mean"] == pytest.approx(np.mean([share["mean"] for share in told["recall"]]))


def test_what_no_image_shows_may_still_be_there():
    """Where 100 images of 4,900 hold none that is missed, there may be 150, beside 45 that are recognised."""
    rest = Sample(np.ones(100, int), np.ones(100, int), 4900.0)
    inside = Sample(np.zeros(15, int), np.zeros(15, int), 45.0)
    recall = by_class([rest, inside], 2)["recall"][0]
    assert recall["mean"] == recall["high"] == 1.0
    assert 45 / (45 + 150) < recall["low"] < 0.5


def test_a_stratum_that_is_seen_whole_leaves_no_doubt():
    inside, hits = np.array([True] * 20), np.array([True] * 15 + [False] * 5)
    told = share_among([inside], [hits], [20.0])
    assert told == dict(mean=0.75, low=0.75, high=0.75, num=20)


def test_a_class_that_is_never_seen():
    told = by_class([RANDOM], 3)
    assert told["recall"][2] is None
    assert told["precision"][2] is None
