"""Sources that change the class sizes of another source, and every way to ask wrongly."""

from fractions import Fraction

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.stats import kstest

from latent_al.data import digest, load
from latent_al.data.arrays import assemble, to_split
from latent_al.data.unbalanced import long_tail, perturbed_pairs, weighted_classes
from latent_al.types import BadInput, Data

DIGITS = dict(name="digits", num_validation=200, num_test=300)
PERTURBED = dict(num_copies=8, max_angle=5.0, max_shift=2, seed=0)
RESHAPED = [
    (perturbed_pairs, dict(PERTURBED, max_shift=1)),
    (weighted_classes, dict(weights=(1, 0.5, 0.25), seed=0)),
    (long_tail, dict(ratio=10, seed=0)),
]


def make_source(counts, image=None, shape=(6, 5, 2)) -> Data:
    """Training images by class count, in mixed order: random ones, or `image` everywhere; ten more are held out."""
    rng = np.random.default_rng(1)
    labels = np.concatenate([np.arange(10) % len(counts), rng.permutation(np.repeat(np.arange(len(counts)), counts))])
    images = rng.uniform(size=(len(labels), *shape)) if image is None else np.stack([image] * len(labels))
    train = to_split(images.astype(np.float32), labels)
    return assemble(train, to_split(images[:7].astype(np.float32), labels[:7]), num_validation=10)


def count(data):
    return np.bincount(data.train.labels, minlength=data.num_classes).tolist()


def copies(data):
    """(row, id of the original, id of the overwritten) of each copy."""
    split = [(row, name.split(" perturbed at ")) for row, name in enumerate(data.ids)]
    return [(row, *names) for row, names in split if len(names) == 2]


def perturb(source, **change):
    return perturbed_pairs(source=source, **(PERTURBED | change))


class TestEachKind:
    @pytest.mark.parametrize("reshape, settings", RESHAPED)
    def test_held_out_rows_and_the_source_stay(self, make_data, reshape, settings):
        source = make_data()
        before = digest(source)
        data = reshape(source=source, **settings)
        assert digest(source) == before
        assert digest(data) != before
        for name in ("validation", "test"):
            np.testing.assert_array_equal(getattr(data, name).images, getattr(source, name).images)
            np.testing.assert_array_equal(getattr(data, name).labels, getattr(source, name).labels)
        assert data.num_classes == source.num_classes
        assert not np.shares_memory(data.train.images, source.train.images)

    @pytest.mark.parametrize("reshape, settings", RESHAPED)
    def test_the_seed_decides(self, make_data, reshape, settings):
        data, again, other = (reshape(source=make_data(), **dict(settings, seed=seed)) for seed in (0, 0, 1))
        assert digest(data) == digest(again) != digest(other)
        assert count(data) == count(other)

    @pytest.mark.parametrize("reshape, settings", RESHAPED)
    def test_a_source_without_labels(self, make_data, reshape, settings):
        with pytest.raises(BadInput, match="the 60 training images have no labels; .* or use the source as it is"):
            reshape(source=make_data(labelled=False), **settings)


class TestPerturbedPairs:
    def test_sizes_as_in_the_paper(self):
        """Ten classes of 50 for the paper's of 5,000, and 20 copies for its 2,000."""
        assert count(perturb(make_source([50] * 10), num_copies=20)) == [70, 30] * 5

    def test_the_last_of_an_odd_number_of_classes_stays(self):
        source = make_source([9, 10, 11, 12, 13])
        data = perturb(source)
        assert count(data) == [17, 2, 19, 4, 13]
        last = source.train.labels == 4
        np.testing.assert_array_equal(data.train.images[last], source.train.images[last])

    @pytest.mark.parametrize("shape", [(6, 5, 1), (6, 5, 2), (4, 9, 3)])
    def test_copies_without_angle_and_shift_are_exact(self, shape):
        source = make_source([12, 12, 12, 12], shape=shape)
        data = perturb(source, max_angle=0, max_shift=0)
        rows = {name: row for row, name in enumerate(source.ids)}
        for row, original, overwritten in copies(data):
            assert rows[overwritten] == row
            assert source.train.labels[row] == data.train.labels[row] + 1
            assert source.train.labels[rows[original]] == data.train.labels[row]
            np.testing.assert_array_equal(data.train.images[row], source.train.images[rows[original]])
        assert np.bincount(data.train.labels[[row for row, _, _ in copies(data)]]).tolist() == [8, 0, 8]

    def test_rows_that_are_no_copies_stay(self):
        source = make_source([12, 12, 12, 12])
        data = perturb(source)
        stay = np.ones(48, bool)
        stay[[row for row, _, _ in copies(data)]] = False
        assert stay.sum() == 32
        for there, here in ((source.train.images, data.train.images), (source.train.labels, data.train.labels)):
            np.testing.assert_array_equal(there[stay], here[stay])
        assert data.ids[stay].tolist() == source.ids[stay].tolist()

    def test_ids_stay_unique_and_whole(self):
        data = perturb(make_source([12, 12, 12, 12]))
        assert len(set(data.ids)) == 48
        named = {name for _, *names in copies(data) for name in names}
        assert len(named) == 32, "no image is copied or overwritten twice"
        assert all(name.split("/")[0] == "train" and 10 <= int(name.split("/")[1]) < 58 for name in named)

    def test_a_copy_of_copies(self):
        data = perturb(perturb(make_source([40, 30]), seed=1))
        assert count(data) == [56, 14]
        assert len(set(data.ids)) == 70

    def test_shifts_are_uniform_and_independent_down_and_right(self):
        dot = np.zeros((9, 8, 1))
        dot[3, 4] = 1
        data = perturb(make_source([300, 301], dot), num_copies=300, max_angle=0)
        moved = data.train.images[[row for row, _, _ in copies(data)], :, :, 0]
        np.testing.assert_allclose(moved.sum(axis=(1, 2)), 1, rtol=1e-6)
        down, right = moved.sum(axis=2) @ np.arange(9) - 3, moved.sum(axis=1) @ np.arange(8) - 4
        assert kstest(down / 2, "uniform").pvalue > 0.01
        assert kstest(right / 2, "uniform").pvalue > 0.01
        assert abs(np.corrcoef(down, right)[0, 1]) < 0.15

    def test_turns_are_uniform_about_the_centre(self):
        row, column = np.mgrid[:21, :31]
        blob = np.exp(-((row - 10) ** 2 + (column - 23) ** 2) / 8)[..., None]
        data = perturb(make_source([300, 301], blob), num_copies=300, max_angle=20, max_shift=0)
        turned = data.train.images[[row for row, _, _ in copies(data)], :, :, 0]
        mass = turned.sum(axis=(1, 2))
        down, right = ((turned * axis).sum(axis=(1, 2)) / mass for axis in (row - 10, column - 15))
        np.testing.assert_allclose(np.hypot(down, right), 8, atol=0.02)
        angle = np.degrees(np.arctan2(down, right))
        assert kstest((angle + 20) / 40, "uniform").pvalue > 0.01

    def test_what_comes_in_is_black_and_blends(self):
        white = np.ones((6, 5, 2))
        data = perturb(make_source([60, 61], white), num_copies=60, max_angle=0, max_shift=1)
        moved = data.train.images[[row for row, _, _ in copies(data)]]
        np.testing.assert_allclose(moved[:, 1:, 1:], 1, rtol=1e-6)
        edge = moved[:, 0, 2, 0]
        np.testing.assert_allclose(moved[:, 0, 1:], np.broadcast_to(edge[:, None, None], (60, 4, 2)), rtol=1e-6)
        assert kstest(edge, "uniform").pvalue > 0.01

    @pytest.mark.parametrize("max_angle", [5, 90, 180.0])
    def test_values_stay_in_the_unit_interval(self, max_angle):
        white = np.ones((6, 5, 1))
        images = perturb(make_source([90, 91], white), num_copies=90, max_angle=max_angle).train.images
        assert images.dtype == np.float32
        assert images.min() >= 0
        assert images.max() <= 1

    @pytest.mark.parametrize(
        "change, message",
        [
            (dict(num_copies=-1), "num_copies is -1; expected 0 or more"),
            (dict(num_copies=10), "class 2 has 9 training images to copy and class 3 has 20 .*; lower it to 9"),
            (dict(num_copies=12), "class 0 has 20 training images .* class 1 has 12 to overwrite.*; lower it to 11"),
            (dict(max_angle=-0.1), "max_angle is -0.1; expected degrees, 0 to 180"),
            (dict(max_angle=np.nan), "max_angle is nan"),
            (dict(max_angle=np.inf), "max_angle is inf"),
            (dict(max_shift=-1), "max_shift is -1; expected pixels, 0 or more"),
            (dict(max_shift=5), "max_shift is 5; .* below the image side of 5"),
            (dict(max_shift=np.nan), "max_shift is nan"),
        ],
    )
    def test_bad_settings(self, change, message):
        with pytest.raises(BadInput, match=message):
            perturb(make_source([20, 12, 9, 20]), **change)

    def test_mnist_as_in_the_paper(self, mnist_root):
        inner = dict(name="mnist", root=str(mnist_root), data_dir=None, num_validation=10_000)
        outer = dict(name="perturbed_pairs", source=inner, num_copies=2000, max_angle=5.0, max_shift=2, seed=0)
        before, after = count(load(inner)), count(load(outer))
        assert after == (np.array(before) + [2000, -2000] * 5).tolist()
        assert sum(after) == 50_000


class TestWeightedClasses:
    def thin(self, counts, weights, seed=0):
        return weighted_classes(source=make_source(counts), weights=weights, seed=seed)

    @pytest.mark.parametrize(
        "counts, weights, expected",
        [
            ([10, 20, 40], (1, 1, 1), [10, 10, 10]),
            ([10, 20, 40], (1, 2, 4), [10, 20, 40]),
            ([10, 20, 40], (1, 1, 0.5), [10, 10, 5]),
            ([10, 20, 40], [4, 2, 1], [10, 5, 2]),
            ([40, 20, 10], (1e300, 1e300, 5e299), [20, 20, 10]),
            ([9, 9, 9], (2e-320, 2e-320, 2e-320), [9, 9, 9]),
        ],
    )
    def test_sizes(self, counts, weights, expected):
        assert count(self.thin(counts, weights)) == expected

    def test_sizes_are_those_of_exact_arithmetic(self):
        rng = np.random.default_rng(0)
        for _ in range(200):
            counts = rng.integers(20, 60, 4)
            tenths = rng.integers(1, 11, 4)
            scale = min(Fraction(int(n), int(w)) for n, w in zip(counts, tenths, strict=True))
            data = self.thin(counts, (tenths / 10).tolist())
            assert count(data) == [int(scale * int(w)) for w in tenths]

    def test_rows_keep_their_order_and_are_kept_once(self):
        source = make_source([30, 30, 30])
        data = weighted_classes(source=source, weights=(1, 0.5, 0.1), seed=0)
        rows = np.flatnonzero(np.isin(source.ids, data.ids))
        assert count(data) == [30, 15, 3]
        assert data.ids.tolist() == source.ids[rows].tolist()
        np.testing.assert_array_equal(data.train.images, source.train.images[rows])
        np.testing.assert_array_equal(data.train.labels, source.train.labels[rows])

    def test_any_row_of_a_class_may_be_kept(self):
        source = make_source([6, 6])
        kept = [weighted_classes(source=source, weights=(1, 0.5), seed=seed).ids.tolist() for seed in range(30)]
        assert set().union(*kept) == set(source.ids)

    @pytest.mark.parametrize(
        "weights, message",
        [
            ((1, 1), "there are 2 weights of 3 classes; give one weight per class"),
            ((1, 1, 1, 1), "there are 4 weights of 3 classes"),
            ((1, 0, 1), "weight of class 1 is 0.0; .* no query could find .*leave it out of the data"),
            ((1, 1, -2), "weight of class 2 is -2.0; expected a positive, finite number"),
            ((np.nan, 1, 1), "weight of class 0 is nan"),
            ((1, np.inf, 1), "weight of class 1 is inf"),
            ((1, 1, 0.04), "class 2 would keep 0 of its 20 training images, the largest class 20.*raise its weight"),
            ((1, 1e-320, 1), "class 1 would keep 0 of its 20"),
            ((1e308, 1, 1e-300), "class 1 would keep 0 of its 20"),
        ],
    )
    def test_bad_weights(self, weights, message):
        with pytest.raises(BadInput, match=message):
            self.thin([20, 20, 20], weights)


class TestLongTail:
    def test_sizes_are_those_of_long_tailed_cifar(self):
        """CIFAR-10 at a ratio of 100 has 12,406 training images, int(5000 * 0.01 ** (c / 9)) of class c."""
        source = make_source([5000] * 10, shape=(1, 1, 1))
        expected = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
        assert count(long_tail(source=source, ratio=100, seed=0)) == expected

    def test_the_smallest_share_bounds_all(self):
        assert count(long_tail(source=make_source([40, 10, 40]), ratio=4, seed=0)) == [20, 10, 5]

    @pytest.mark.parametrize("ratio", [1, 1.0])
    def test_ratio_one_makes_classes_equal(self, ratio):
        assert count(long_tail(source=make_source([10, 20, 40]), ratio=ratio, seed=0)) == [10, 10, 10]

    def test_two_classes(self):
        assert count(long_tail(source=make_source([30, 30]), ratio=30, seed=0)) == [30, 1]

    @pytest.mark.parametrize("ratio", [0.99, 0, -3, np.nan, np.inf])
    def test_bad_ratio(self, ratio):
        with pytest.raises(BadInput, match=f"ratio is {ratio}, .* expected a finite number, 1 or more"):
            long_tail(source=make_source([20, 20]), ratio=ratio, seed=0)

    @pytest.mark.parametrize("ratio", [21, 1e308])
    def test_a_ratio_that_empties_a_class(self, ratio):
        with pytest.raises(BadInput, match="class 1 would keep 0 of its 20 .*: lower ratio"):
            long_tail(source=make_source([20, 20]), ratio=ratio, seed=0)


class TestThroughLoad:
    @pytest.mark.parametrize(
        "settings",
        [
            dict(name="perturbed_pairs", num_copies=50, max_angle=5.0, max_shift=2, seed=0),
            dict(name="weighted_classes", weights=(1, 0.5) * 5, seed=0),
            dict(name="long_tail", ratio=20, seed=0),
        ],
    )
    def test_around_digits_from_a_config(self, settings):
        config = ConfigDict(dict(settings, source=DIGITS)).lock()
        before = config.to_dict()
        data, inner = load(config), load(DIGITS)
        assert config.to_dict() == before
        assert digest(data) == digest(load(before)) != digest(inner)
        assert len(data.ids) == len(data.train.images) == len(set(data.ids))
        assert min(count(data)) > 0
        np.testing.assert_array_equal(data.test.images, inner.test.images)

    def test_one_around_another(self):
        tail = dict(name="long_tail", source=DIGITS, ratio=10, seed=0)
        data = load(dict(name="weighted_classes", source=tail, weights=(1,) * 10, seed=0))
        assert count(data) == [min(count(load(tail)))] * 10

    def test_the_source_is_checked(self, tmp_path):
        np.savez(tmp_path / "a.npz", x_train=np.zeros((6, 3, 3)), y_train=np.zeros(6, int))
        inner = dict(name="npz", root=str(tmp_path / "a.npz"), num_validation=0)
        with pytest.raises(BadInput, match="1 class; a classifier needs 2"):
            load(dict(name="long_tail", source=inner, ratio=10, seed=0))
        with pytest.raises(BadInput, match="unknown data source 'imagenet'"):
            load(dict(name="long_tail", source=dict(name="imagenet"), ratio=10, seed=0))


class TestThreeClasses:
    def test_sizes_and_overlap(self):
        data = load(dict(name="three_classes", sizes=(2000, 500, 50), seed=0))
        assert (data.num_classes, data.train.images.shape) == (3, (2550, 1, 2, 1))
        for split in (data.train, data.validation, data.test):
            assert np.bincount(split.labels).tolist() == [2000, 500, 50]
            points = split.images.reshape(-1, 2)
            gaps = np.linalg.norm(points[:, None] - points[split.labels == 2], axis=2).min(axis=1)
            assert gaps[split.labels != 2].min() > 0.05
            means = [points[split.labels == label].mean(axis=0) for label in (0, 1)]
            assert np.linalg.norm(means[0] - means[1]) < 4 * points[split.labels == 0].std()

    def test_same_seed_same_points(self):
        first, second, other = (load(dict(name="three_classes", sizes=(5, 4, 3), seed=seed)) for seed in (1, 1, 2))
        assert digest(first) == digest(second) != digest(other)

    @pytest.mark.parametrize("sizes", [(5, 5), (5, 0, 5)])
    def test_three_sizes(self, sizes):
        with pytest.raises(BadInput, match="expected three, each 1 or more"):
            load(dict(name="three_classes", sizes=sizes, seed=0))
