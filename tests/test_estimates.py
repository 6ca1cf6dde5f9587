"""Estimates from the audit slice, beside numbers worked out by hand and worlds whose truth is known."""

import jax
import numpy as np
import pytest

from latent_al.labelling import estimates
from latent_al.models.classifiers import mlp

LEARNER = mlp(num_classes=2, hidden=(4,), dropout=0.0, learning_rate=1e-2, epochs=20, batch_size=10)


def draw(rng, confidence):
    """Predictions with one confidence each, and labels for which that confidence is the truth."""
    probs = np.stack([1 - confidence, confidence], axis=1)
    return probs, (rng.uniform(size=len(confidence)) < confidence).astype(int)


class TestAccuracy:
    def test_wilson(self):
        """Wilson's interval of 8 of 10, from its formula."""
        z, share, num = 1.959964, 0.8, 10
        centre = (share + z**2 / (2 * num)) / (1 + z**2 / num)
        half = z / (1 + z**2 / num) * np.sqrt(share * (1 - share) / num + z**2 / (4 * num**2))
        found = estimates.accuracy(np.arange(10) < 8)
        assert found == pytest.approx(dict(mean=0.8, low=centre - half, high=centre + half, num=10), abs=1e-5)

    def test_without_labels(self):
        assert estimates.accuracy(np.zeros(0, bool)) is None
        assert estimates.calibration_error(np.zeros(0), np.zeros(0, bool)) is None


class TestTemperature:
    @pytest.mark.parametrize("wrong", [0.5, 1.0, 3.0])
    def test_undoes_a_wrong_one(self, wrong):
        """Logits that were divided by `wrong` must be divided by its inverse."""
        probs, labels = draw(np.random.default_rng(0), np.random.default_rng(1).uniform(0.05, 0.95, 4000))
        off = estimates.soften(probs, wrong)
        found = estimates.temperature(off, labels)
        assert found == pytest.approx(1 / wrong, rel=0.1)
        np.testing.assert_allclose(estimates.soften(off, 1 / wrong), probs, rtol=1e-6)

    def test_calibration_error(self):
        probs, labels = draw(np.random.default_rng(0), np.full(4000, 0.75))
        assert estimates.calibration_error(probs.max(axis=1), labels == 1) < 0.02
        assert estimates.calibration_error(np.full(4000, 0.95), labels == 1) == pytest.approx(0.2, abs=0.02)

    def test_few_labels_do_not_calibrate(self):
        assert estimates.temperature(np.full((19, 2), 0.5), np.zeros(19, int)) is None

    def test_certainty_stays_finite(self):
        """A prediction of exactly 0 or 1 is softened to what is nearly so."""
        softened = estimates.soften(np.array([[1.0, 0.0], [0.5, 0.5]]), 2.0)
        assert np.isfinite(softened).all()
        np.testing.assert_allclose(softened[1], 0.5)


class TestExpectedGain:
    def test_a_line_over_the_logarithm(self):
        """Accuracy that rises by a tenth with each doubling gains a tenth by the next doubling."""
        correct = np.arange(1000)[None, :] < np.array([300, 400, 500, 600])[:, None]
        found = estimates.expected_gain(correct, np.array([50, 100, 200, 400]), 400)
        assert found["mean"] == pytest.approx(0.1)
        assert 0 < found["low"] < 0.1 < found["high"]

    def test_a_plateau_has_zero_within(self):
        correct = np.random.default_rng(0).uniform(size=(4, 200)) < 0.7
        found = estimates.expected_gain(correct, np.array([100, 150, 200, 250]), 50)
        assert found["low"] < 0 < found["high"]

    def test_only_the_last_rounds_count(self):
        """After a steep start that is over, nothing more is expected."""
        correct = np.arange(100)[None, :] < np.array([10, 40, *[70] * 5])[:, None]
        assert estimates.expected_gain(correct, np.arange(1, 8) * 50, 50)["mean"] == pytest.approx(0, abs=1e-12)

    def test_too_little_to_tell(self):
        assert estimates.expected_gain(np.ones((2, 100), bool), np.array([50, 100]), 50) is None
        assert estimates.expected_gain(np.ones((3, 0), bool), np.array([50, 100, 150]), 50) is None
        assert estimates.expected_gain(np.ones((3, 9), bool), np.array([50, 50, 50]), 50) is None


class TestAgainstRandom:
    def points(self, size, spread, seed):
        """Two classes along a line, at least `spread` apart on it."""
        rng = np.random.default_rng(seed)
        labels = np.arange(size) % 2
        latents = rng.normal(size=(size, 2)).astype(np.float32) * 0.3
        latents[:, 0] += np.where(labels == 1, spread, -spread)
        return latents, labels

    def test_labels_of_one_class_are_worse_than_random(self):
        latents, labels = self.points(60, 1.0, 0)
        one_class = (latents[labels == 1], labels[labels == 1])
        found = estimates.against_random(jax.random.key(0), LEARNER, one_class, self.points(50, 1.0, 1))
        assert found["num"] == 30
        assert found["high"] < -0.2

    def test_random_labels_are_no_better_than_random(self):
        found = estimates.against_random(jax.random.key(0), LEARNER, self.points(60, 0.2, 0), self.points(50, 0.2, 1))
        assert found["num"] == 40
        assert found["low"] < 0.05
        assert found["high"] > -0.05

    def test_the_order_of_the_audit_slice_says_nothing(self):
        """A folder often runs class by class."""
        latents, labels = self.points(50, 1.0, 1)
        by_class = np.argsort(labels, kind="stable")
        chosen, key = self.points(12, 1.0, 0), jax.random.key(0)
        found = estimates.against_random(key, LEARNER, chosen, (latents[by_class], labels[by_class]))
        assert found["num"] == 12
        assert abs(found["mean"]) < 0.1

    def test_too_few_labels_to_tell(self):
        few, many = self.points(19, 1.0, 0), self.points(50, 1.0, 1)
        assert estimates.against_random(jax.random.key(0), LEARNER, many, few) is None
        assert estimates.against_random(jax.random.key(0), LEARNER, self.points(9, 1.0, 0), many) is None
