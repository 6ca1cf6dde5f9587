"""Estimates from the audit slice, beside numbers worked out by hand and worlds whose truth is known."""

import logging

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
        nothing = estimates.by_class(np.zeros(0, int), np.zeros(0, int), 2)
        assert nothing == dict(confusion=[[0, 0], [0, 0]], recall=[None] * 2, precision=[None] * 2, balanced=None)


class TestByClass:
    """Ten images of one class, of which two are missed, and four of another, of which one is; a third is not there."""

    TRUTH = np.repeat([0, 1], [10, 4])
    PREDICTED = np.array([0] * 8 + [1, 2] + [1] * 3 + [0])

    def test_counts_recall_and_precision(self):
        told = estimates.by_class(self.TRUTH, self.PREDICTED, 3)
        assert told["confusion"] == [[8, 1, 1], [1, 3, 0], [0, 0, 0]]
        assert [share and share["mean"] for share in told["recall"]] == [0.8, 0.75, None]
        assert [share and share["mean"] for share in told["precision"]] == [8 / 9, 0.75, 0.0]
        assert told["recall"][0] == estimates.accuracy(np.arange(10) < 8)
        assert told["precision"][2]["num"] == 1

    def test_balanced_accuracy(self):
        told = estimates.by_class(self.TRUTH, self.PREDICTED, 3)
        first, second, _ = told["recall"]
        below = np.hypot(0.8 - first["low"], 0.75 - second["low"]) / 2
        above = np.hypot(first["high"] - 0.8, second["high"] - 0.75) / 2
        expected = dict(mean=0.775, low=0.775 - below, high=0.775 + above)
        assert told["balanced"] == pytest.approx(expected)

    def test_the_most_that_a_class_may_be_that_the_slice_does_not_hold(self):
        """Were a class 2.95 % of the pool, 100 images would hold none of it in 5 % of cases."""
        assert (1 - estimates.most_of_unseen(100)) ** 100 == pytest.approx(0.05)


class TestTemperature:
    @pytest.mark.parametrize("wrong", [0.5, 1.0, 3.0])
    def test_undoes_a_wrong_one(self, wrong):
        """Logits that were divided by `wrong` must be divided by its inverse."""
        probs, labels = draw(np.random.default_rng(0), np.random.default_rng(1).uniform(0.05, 0.95, 4000))
        off = estimates.soften(probs, wrong)
        found = estimates.temperature(off, labels)
        assert found == pytest.approx(1 / wrong, rel=0.1)
        np.testing.assert_allclose(estimates.soften(off, 1 / wrong), probs, rtol=1e-6)

    def test_images_that_are_all_correct_make_no_certainty(self):
        """A hundred of confidence 0.8 to 0.99 make one of 0.6 no surer than 95 %."""
        confidence = np.linspace(0.8, 0.99, 100)
        told = estimates.temperature(np.stack([confidence, 1 - confidence], axis=1), np.zeros(100, int))
        assert 0.1 < told < 1
        assert estimates.soften(np.array([[0.6, 0.4]]), told).max() < 0.95

    def test_few_labels_do_not_calibrate(self):
        assert estimates.temperature(np.full((19, 2), 0.5), np.zeros(19, int)) is None

    def test_certainty_stays_finite(self):
        """A prediction of exactly 0 or 1 is softened to what is nearly so."""
        softened = estimates.soften(np.array([[1.0, 0.0], [0.5, 0.5]]), 2.0)
        assert np.isfinite(softened).all()
        np.testing.assert_allclose(softened[1], 0.5)


class TestCalibrationError:
    def drawn(self, seed, num, wrong=0.0):
        """Confidence of a bell shape, which is off by a little to both sides: no temperature undoes it."""
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(0.55, 0.95, num)
        labels = (rng.uniform(size=num) < confidence - wrong).astype(int)
        return np.stack([1 - confidence, confidence], axis=1), labels

    def test_many_labels(self):
        assert estimates.calibration_error(*self.drawn(0, 20_000))["mean"] < 0.01
        told = estimates.calibration_error(np.tile([0.3, 0.7], (4000, 1)), np.arange(4000) % 2)
        # The highest temperature that is tried leaves 0.51.
        assert told["mean"] == pytest.approx(0.01, abs=0.01)

    def test_noise_of_few_labels_is_not_told_as_an_error(self):
        """Ten bins of 100 images would tell 9 points on average; the truth is about none."""
        told = [estimates.calibration_error(*self.drawn(seed, 100)) for seed in range(30)]
        assert np.mean([estimate["mean"] for estimate in told]) < 0.03
        assert np.mean([estimate["low"] < 0.005 for estimate in told]) >= 0.9

    def test_what_a_temperature_cannot_mend_is_seen(self):
        """Half of the images are always right at 0.9, and the rest at 0.6 only in a tenth."""
        probs = np.repeat([[0.1, 0.9], [0.4, 0.6]], 500, axis=0)
        labels = np.r_[np.ones(500), np.arange(500) % 10 == 0].astype(int)
        told = estimates.calibration_error(probs, labels)
        softened = estimates.soften(probs, estimates.temperature(probs, labels)).max(axis=1)
        truth = (1 - softened[0] + abs(softened[-1] - 0.1)) / 2
        assert told["low"] <= truth <= told["high"]
        assert told["mean"] == pytest.approx(truth, abs=0.02)

    def test_images_that_are_all_correct_leave_doubt(self):
        told = estimates.calibration_error(np.tile([0.01, 0.99], (100, 1)), np.ones(100, int))
        assert told["mean"] < 0.001
        assert told["high"] == pytest.approx(1 - estimates.accuracy(np.ones(100, bool))["low"], abs=1e-3)

    def test_few_labels(self):
        assert estimates.calibration_error(np.full((19, 2), 0.5), np.zeros(19, int)) is None


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

    def test_rounds_that_jump_tell_less(self):
        """The same images and trend, but rounds that are off the line by 4 points."""
        steady = np.arange(1000)[None, :] < np.array([700, 705, 710, 715])[:, None]
        jumping = np.arange(1000)[None, :] < np.array([700, 745, 670, 715])[:, None]
        numbers = np.array([100, 150, 200, 250])
        told = [estimates.expected_gain(correct, numbers, 50) for correct in (steady, jumping)]
        assert told[1]["high"] - told[1]["low"] > 3 * (told[0]["high"] - told[0]["low"])
        assert told[0]["power"] > 0.9 > 0.5 > told[1]["power"]

    def test_power_is_the_share_of_plateaus_that_are_seen(self):
        """Images that stay right or wrong with a chance of their own, over 300 slices."""
        rng = np.random.default_rng(0)
        told = []
        for _ in range(300):
            correct = rng.uniform(size=(5, 100)) < rng.beta(0.7, 0.3, size=100)
            told.append(estimates.expected_gain(correct, np.array([100, 150, 200, 250, 300]), 50))
        seen = np.mean([gain["high"] < estimates.PAYS for gain in told])
        assert np.mean([gain["power"] for gain in told]) == pytest.approx(seen, abs=0.12)

    def test_images_that_never_change_leave_doubt(self):
        assert estimates.expected_gain(np.ones((3, 20), bool), np.array([50, 100, 150]), 50)["high"] > estimates.PAYS

    def test_only_the_last_rounds_count(self):
        """After a steep start that is over, nothing more is expected."""
        correct = np.arange(100)[None, :] < np.array([10, 40, *[70] * 5])[:, None]
        assert estimates.expected_gain(correct, np.arange(1, 8) * 50, 50)["mean"] == pytest.approx(0, abs=1e-12)

    def test_a_curve_that_bends_may_add_less_than_its_line(self):
        """Gains of 10, 5 and 2.5 points by as many doublings: a parabola would add 0.0 points, the line 5.5."""
        correct = np.arange(10_000)[None, :] < np.array([5000, 6000, 6500, 6750])[:, None]
        told = estimates.expected_gain(correct, np.array([50, 100, 200, 400]), 400)
        assert told["mean"] == pytest.approx(0.0575)
        parabola = np.polyfit(np.arange(4), correct.mean(axis=1), 2)
        bent = np.polyval(parabola, 4) - np.polyval(parabola, 3)
        assert told["mean"] - told["low"] == pytest.approx(told["high"] - told["mean"] + told["mean"] - bent)

    def test_rounds_without_new_labels(self):
        """Two numbers of labels tell nothing of a bend."""
        correct = np.arange(100)[None, :] < np.array([50, 52, 60])[:, None]
        told = estimates.expected_gain(correct, np.array([50, 50, 100]), 50)
        assert told["mean"] - told["low"] == pytest.approx(told["high"] - told["mean"])

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
        assert found["mean"] < -0.3
        assert found["high"] < -0.1

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

    def test_more_labels_need_no_other_programs(self, caplog):
        programs = []
        for num in (25, 35):
            caplog.clear()
            with jax.log_compiles(), caplog.at_level(logging.WARNING):
                estimates.against_random(jax.random.key(0), LEARNER, self.points(num, 1.0, 0), self.points(num, 1.0, 1))
            programs.append({message for message in caplog.messages if message.startswith("Compiling")})
        assert any("jit(fit)" in message for message in programs[0])
        assert programs[1] <= programs[0]

    def test_too_few_labels_to_tell(self):
        few, many = self.points(19, 1.0, 0), self.points(50, 1.0, 1)
        assert estimates.against_random(jax.random.key(0), LEARNER, many, few) is None
        assert estimates.against_random(jax.random.key(0), LEARNER, self.points(9, 1.0, 0), many) is None
