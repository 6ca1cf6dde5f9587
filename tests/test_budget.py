"""What a target still costs, beside numbers worked out by hand and curves whose course is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from latent_al.labelling import budget


class TestFewestCorrect:
    @pytest.mark.parametrize("num, target", [(100, 0.9), (400, 0.9), (50, 0.5)])
    def test_the_first_whose_chance_below_the_target_is_one_in_two_hundred(self, num, target):
        fewest = budget.fewest_correct(num, target)
        assert stats.binom.sf(fewest - 1, num, target) <= 0.005 < stats.binom.sf(fewest - 2, num, target)

    def test_too_few_images_for_any_to_show_it(self):
        assert budget.fewest_correct(50, 0.9) is None
        assert budget.fewest_correct(51, 0.9) == 51


class TestLabelsTo:
    def curve(self, errors, num=4000):
        return np.arange(num)[None, :] >= (np.array(errors) * num)[:, None]

    def test_errors_that_halve_with_each_four_times_the_labels(self):
        """From 0.2 at 400 labels to 0.1 takes 1,200 more, and more than that where a floor lies below."""
        more = budget.labels_to(0.9, self.curve([0.4, 0.4 / 2**0.5, 0.2]), np.array([100, 200, 400]))
        assert 600 < more["low"] < 1200 < more["median"]
        assert more["high"] is None or more["high"] > 2 * more["median"]

    def test_a_plateau_never_arrives(self):
        more = budget.labels_to(0.9, self.curve([0.3, 0.3, 0.3, 0.3]), np.array([100, 200, 300, 400]))
        assert more["median"] is None
        assert more["high"] is None

    def test_what_is_too_far_is_not_told(self):
        """Two points in 100 images for each doubling, and 64 to go: no line of hundreds of millions of labels."""
        more = budget.labels_to(0.9, self.curve([0.8, 0.77, 0.74], num=100), np.array([50, 100, 150]))
        assert more["median"] is None
        assert more["low"] is None or more["low"] <= 100 * 150

    def test_what_is_there_takes_nothing_more(self):
        more = budget.labels_to(0.7, self.curve([0.4, 0.3, 0.2]), np.array([100, 200, 400]))
        assert more["median"] == 0

    def test_too_little_to_tell(self):
        two = self.curve([0.4, 0.3])
        assert budget.labels_to(0.9, two, np.array([100, 200])) is None
        assert budget.labels_to(0.9, self.curve([0.4, 0.3, 0.2])[:, :0], np.array([100, 200, 300])) is None


class TestPace:
    def log(self, seconds, annotator="ann"):
        times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(seconds, unit="s")
        times = [time.isoformat(timespec="microseconds") for time in times]
        return pd.DataFrame({"annotator": annotator, "time": times, "lead_time": ""})

    def test_each_person_without_pauses(self):
        """6 and 12 seconds by turns, a night between two days, and another person at the same time."""
        ann = np.cumsum([0, *[6, 12] * 5, 40_000, *[6, 12] * 5])
        bob = self.log(np.arange(11) * 9.0 + 1, "bob")
        log = pd.concat([self.log(ann), bob]).sample(frac=1, random_state=0)
        assert budget.seconds_a_label(log) == pytest.approx(9.0)

    def test_times_of_whole_files_say_nothing(self):
        """A table that is read twice within a minute gives its answers two times."""
        assert budget.seconds_a_label(self.log([0.0] * 50 + [60.0] * 50)) is None

    def test_what_label_studio_has_measured_comes_first(self):
        log = self.log(np.arange(30) * 9.0).assign(lead_time=["3.0", "5.0", *["4"] * 8, *[""] * 19, "90000"])
        assert budget.seconds_a_label(log) == 4.0
        assert budget.seconds_a_label(log[1:]) == 9.0

    def test_few_answers_say_nothing(self):
        assert budget.seconds_a_label(self.log(np.arange(10) * 5.0)) is None
        assert budget.seconds_a_label(self.log(np.arange(11) * 5.0)) == 5
        assert budget.seconds_a_label(self.log([])) is None
