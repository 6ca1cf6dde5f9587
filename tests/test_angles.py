"""Images at known angles: the angles that are drawn, the fish, turned images, and every way to ask wrongly."""

from functools import partial

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.stats import kstest, norm

from latent_al.data import SOURCES, digest, load
from latent_al.data.angles import draw_angles, rotated
from latent_al.data.arrays import move
from latent_al.data.poses import VARIATION, poses, render
from latent_al.data.unbalanced import long_tail, perturbed_pairs, weighted_classes
from latent_al.types import BadInput, Data, Split

POSES = dict(num_train=400, num_validation=100, num_test=300, side=24, share_near=0.9, spread=5.0, seed=0)
ROTATED = dict(share_near=0.75, spread=5.0, seed=0)
DIGITS = dict(name="digits", num_validation=200, num_test=300)


@pytest.fixture(scope="module")
def fish():
    return poses(**POSES)


@pytest.fixture(scope="module")
def turned():
    return load(dict(ROTATED, name="rotated", source=DIGITS))


def mean_fish(angles, side):
    return render(np.asarray(angles), np.zeros((len(angles), len(VARIATION))), side)


def off(angles, others=0):
    """Signed degrees from the one to the other, in [-180, 180)."""
    return (np.float64(angles) - others + 180) % 360 - 180


def nearest(images):
    """Of each image the least distance to another one."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    sq_distance = np.square(flat).sum(1)[:, None] + np.square(flat).sum(1) - 2 * flat @ flat.T
    np.fill_diagonal(sq_distance, np.inf)
    return np.sqrt(sq_distance.min(1))


class TestDrawAngles:
    def draw(self, num=4000, share_near=0.7, spread=6.0):
        return draw_angles(np.random.default_rng(0), num, share_near=share_near, spread=spread)

    def test_near_ones_are_normal_and_wrapped(self):
        angles, near = self.draw()
        assert near.sum() == 2800
        assert kstest(off(angles[near]), norm(0, 6).cdf).pvalue > 0.01
        assert 0.45 < (angles[near] > 180).mean() < 0.55

    def test_the_others_are_uniform_over_the_circle(self):
        angles, near = self.draw()
        assert kstest(angles[~near] / 360, "uniform").pvalue > 0.01

    def test_near_ones_lie_at_random_places(self):
        _, near = self.draw()
        assert abs(np.corrcoef(near, np.arange(4000))[0, 1]) < 0.05

    @pytest.mark.parametrize("share_near, spread", [(0, 5), (1, 1e-6), (1.0, 1e6), (0.5, 0)])
    def test_angles_are_float32_below_360(self, share_near, spread):
        """A draw just below 0 wraps to a float64 below 360, whose nearest float32 is 360."""
        angles, near = self.draw(share_near=share_near, spread=spread)
        assert angles.dtype == np.float32
        assert angles.min() >= 0
        assert angles.max() < 360
        assert near.sum() == round(4000 * share_near)


class TestBoth:
    """Checks the common properties of `poses` and `rotated`."""

    @pytest.fixture(params=["fish", "turned"])
    def data(self, request) -> Data:
        return request.getfixturevalue(request.param)

    @pytest.fixture
    def like_pool(self, data) -> Data:
        if len(data.ids) == 400:
            return poses(**POSES, test_poses="pool")
        return load(dict(ROTATED, name="rotated", source=DIGITS, test_poses="pool"))

    def test_types_and_ranges(self, data):
        assert data.num_classes is None
        for images, labels, _ in data[:3]:
            assert images.dtype == labels.dtype == np.float32
            assert len(images) == len(labels)
            assert images.min() >= 0
            assert images.max() <= 1
        assert len(set(data.ids)) == len(data.ids) == len(data.train.images)

    def test_training_angles_are_near_one_pose(self, data):
        share = {400: 0.9, 1297: 0.75}[len(data.ids)]
        expected = share + (1 - share) * 40 / 360
        assert abs((abs(off(data.train.labels)) < 20).mean() - expected) < 0.03

    @pytest.mark.parametrize("name", ["validation", "test"])
    def test_held_out_angles_are_uniform(self, data, name):
        assert kstest(getattr(data, name).labels / 360, "uniform").pvalue > 0.01

    def test_test_angles_like_the_pool(self, data, like_pool):
        """A normal peak of the pool's share and spread, and the rest uniform; pool and validation stay as they were."""
        share = {400: 0.9, 1297: 0.75}[len(data.ids)]
        angles = off(like_pool.test.labels)
        assert len(angles) == len(data.test.labels)
        assert kstest(angles, lambda x: share * norm(0, 5).cdf(x) + (1 - share) * (x + 180) / 360).pvalue > 0.01
        assert kstest(off(data.test.labels), lambda x: (x + 180) / 360).pvalue > 0.01
        assert digest(like_pool) != digest(data) == digest(like_pool._replace(test=data.test))

    def test_ids_tell_the_angle(self, data):
        told = [float(name.split()[-2]) for name in data.ids]
        np.testing.assert_allclose(told, data.train.labels, atol=0.0501)

    @pytest.mark.parametrize(
        "name, values, expected",
        [
            ("share_near", (-0.1, 1.1, np.nan), "expected a share of the training images, 0 to 1"),
            ("spread", (-1, np.inf, np.nan), "expected degrees, finite and 0 or more"),
        ],
    )
    def test_bad_peak(self, make_data, name, values, expected):
        for value in values:
            with pytest.raises(BadInput, match=f"{name} is {value}; {expected}"):
                poses(**(POSES | {name: value}))
            with pytest.raises(BadInput, match=f"{name} is {value}; {expected}"):
                rotated(source=make_data(), **(ROTATED | {name: value}))

    @pytest.mark.parametrize("name", ["Pool", "all", ""])
    def test_unknown_test_poses(self, make_data, name):
        for make in (partial(poses, **POSES), partial(rotated, source=make_data(), **ROTATED)):
            with pytest.raises(BadInput, match=f"unknown test_poses '{name}'; known: pool, uniform"):
                make(test_poses=name)


class TestPoses:
    def test_sizes(self, fish):
        assert [split.images.shape for split in fish[:3]] == [(400, 24, 24, 1), (100, 24, 24, 1), (300, 24, 24, 1)]
        assert fish.ids[17].startswith("poses/17 at ")

    def test_the_seed_decides(self, fish):
        again, other = (poses(**(POSES | dict(seed=seed))) for seed in (0, 1))
        assert digest(fish) == digest(again) != digest(other)

    def test_a_split_does_not_depend_on_the_others(self, fish):
        small = poses(**(POSES | dict(num_train=1, num_validation=0)))
        np.testing.assert_array_equal(small.test.images, fish.test.images)
        assert small.validation.images.shape == (0, 24, 24, 1)

    def test_a_quarter_turn_of_the_picture_is_90_degrees(self):
        first, *others = mean_fish([0, 90, 180, 270], 24)
        for quarters, image in enumerate(others, start=1):
            np.testing.assert_allclose(image, np.rot90(first, quarters), atol=1e-4)

    def test_at_0_degrees_the_head_is_right_and_the_fin_above(self):
        image = mean_fish([0], 32)[0, :, :, 0]
        body = image > 0.3
        assert body[:, 16:].sum() > body[:, :16].sum(), "the body lies before the tail"
        assert image[13:19, 22:29].min() < 0.1, "the eye is in the head"
        assert body[:11, 13:20].sum() > body[21:, 13:20].sum() == 0, "the fin is on the back"

    @pytest.mark.parametrize("angle", [33.0, 145.0, 290.0])
    def test_any_turn_is_that_of_the_picture(self, angle):
        upright, image = mean_fish([0, angle], 96)
        water = upright[0, 0]
        expected = move(upright - water, -np.radians(angle), (0, 0)) + water
        assert abs(image - expected).mean() < 0.005
        assert abs(image - move(upright - water, np.radians(angle), (0, 0)) - water).mean() > 0.03

    def test_the_label_is_the_angle_of_the_image(self, fish):
        grid = np.arange(0, 360, 3)
        renders, images = (
            x.reshape(len(x), -1) - x.mean(axis=(1, 2, 3))[:, None] for x in (mean_fish(grid, 24), fish.test.images)
        )
        fits = images @ (renders / np.linalg.norm(renders, axis=1, keepdims=True)).T
        error = abs(off(grid[fits.argmax(1)], fish.test.labels))
        assert np.median(error) < 5
        assert np.quantile(error, 0.95) < 20

    @pytest.mark.parametrize("side", [8, 24])
    def test_no_turn_leaves_it_the_same(self, side):
        """Any turn of 20 degrees or more changes it by more than the noise does, 0.021 a pixel of the side."""
        images = mean_fish(np.arange(0, 360, 5), side).reshape(72, -1)
        for turn in range(4, 37):
            distance = np.linalg.norm(images - np.roll(images, turn, axis=0), axis=1)
            assert distance.min() > 0.03 * side, f"a turn of {5 * turn} degrees"

    def test_the_common_pose_is_full_of_near_duplicates(self, fish):
        common = abs(off(fish.train.labels)) < 10
        within, elsewhere = nearest(fish.train.images[common]), nearest(fish.train.images[~common])
        assert np.median(within) < np.median(elsewhere) / 3
        same_number = nearest(fish.test.images[: common.sum()])
        assert np.quantile(within, 0.9) < np.quantile(same_number, 0.1)

    def test_there_only_the_angle_varies_much(self):
        data = poses(**(POSES | dict(share_near=1.0, spread=0)))
        assert not data.train.labels.any()
        mean, bright = data.train.images.mean(axis=0), data.train.images.max(axis=(1, 2, 3))
        assert abs(data.train.images - mean).mean() < 0.02
        assert bright.std() < 0.03 < data.test.images.max(axis=(1, 2, 3)).std()

    def test_test_images_like_the_pool_are_near_duplicates_too(self):
        data = poses(**(POSES | dict(share_near=1.0, spread=0)), test_poses="pool")
        assert not data.test.labels.any()
        assert abs(data.test.images - data.train.images.mean(axis=0)).mean() < 0.02
        assert data.test.images.max(axis=(1, 2, 3)).std() < 0.03

    def test_all_of_the_fish_stays_within_the_frame(self):
        looks = np.array([[size, right, up, 1, 0] for size in (-1, 1) for right in (-1, 1) for up in (-1, 1)])
        images = render(np.tile(np.arange(0, 360, 10), 8), np.repeat(looks, 36, axis=0), 32)
        edge = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
        assert edge.max() < 0.15

    @pytest.mark.parametrize("name, least", [("num_train", 1), ("num_validation", 0), ("num_test", 0), ("side", 8)])
    def test_bad_sizes(self, name, least):
        with pytest.raises(BadInput, match=f"{name} is {least - 1}; expected {least} or more"):
            poses(**(POSES | {name: least - 1}))

    def test_from_a_config(self, fish):
        assert digest(load(ConfigDict(dict(POSES, name="poses")).lock())) == digest(fish)


class TestRotated:
    def test_the_seed_decides_and_the_source_stays(self, make_data):
        source = make_data()
        before = digest(source)
        data, again, other = (rotated(source=source, **(ROTATED | dict(seed=seed))) for seed in (0, 0, 1))
        assert digest(data) == digest(again) != digest(other)
        assert digest(source) == before

    def test_no_turn(self, make_data):
        source = make_data()
        data = rotated(source=source, share_near=1, spread=0, seed=0)
        np.testing.assert_allclose(data.train.images, source.train.images, atol=1e-6)
        assert data.ids[3] == f"{source.ids[3]} turned by 0.0 degrees"

    @pytest.mark.parametrize("quarters", [0, 1, 2, 3])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_quarter_turns_are_those_of_rot90(self, monkeypatch, quarters, channels):
        angle = np.float32(90 * quarters)
        drawn = np.full(3, angle), np.ones(3, bool)
        monkeypatch.setattr("latent_al.data.angles.draw_angles", lambda *settings: drawn)
        images = np.random.default_rng(0).uniform(size=(3, 7, 7, channels)).astype(np.float32)
        split = Split(images, None)
        data = rotated(source=Data(split, split, split, np.array(["a", "b", "c"]), None), **ROTATED)
        for turned in data[:3]:
            np.testing.assert_allclose(turned.images, np.rot90(images, quarters, axes=(1, 2)), atol=1e-6)
            assert turned.labels.tolist() == [angle] * 3

    def test_each_image_is_turned_counter_clockwise_by_its_label(self):
        """A dot right of the centre of a picture that is wider than high."""
        row, column = np.mgrid[:21, :31]
        blob = np.float32(np.exp(-((row - 10) ** 2 + (column - 20) ** 2) / 4)[None, ..., None]).repeat(60, axis=0)
        split = Split(blob, np.zeros(60, np.int32))
        data = rotated(source=Data(split, split, split, np.arange(60).astype(str), 2), **ROTATED)
        for images, labels, _ in data[:3]:
            up, right = ((images[..., 0] * axis).sum(axis=(1, 2)) for axis in (10 - row, column - 15))
            assert abs(off(np.degrees(np.arctan2(up, right)), labels)).max() < 0.5

    def test_a_source_without_labels_or_held_out_images(self, make_data):
        data = rotated(source=make_data(labelled=False, num_validation=0, num_test=0), **ROTATED)
        assert data.train.labels.shape == (60,)
        assert data.test.labels.shape == (0,)
        assert data.test.images.shape == (0, 4, 4, 1)

    def test_around_a_source_that_is_unbalanced(self):
        tail = dict(name="long_tail", source=DIGITS, ratio=10, seed=0)
        data = load(dict(ROTATED, name="rotated", source=tail))
        assert [name.split(" turned")[0] for name in data.ids] == load(tail).ids.tolist()

    def test_a_source_at_angles(self, fish):
        with pytest.raises(BadInput, match="the source has angles already; give one whose images are upright"):
            rotated(source=fish, **ROTATED)


class TestAnglesAsLabels:
    def given(self, monkeypatch, **change):
        data = poses(**(POSES | dict(num_train=5, num_validation=2, num_test=3)))
        monkeypatch.setitem(SOURCES, "given", lambda: data._replace(**change))
        return load(dict(name="given"))

    @pytest.mark.parametrize("angle", [-0.5, 360.0, 361.0, np.nan, np.inf])
    @pytest.mark.parametrize("name, size, row", [("train", 5, 4), ("validation", 2, 0), ("test", 3, 1)])
    def test_outside_the_circle(self, monkeypatch, angle, name, size, row):
        labels = np.full(size, 359.5, np.float32)
        labels[row] = angle
        split = Split(np.zeros((size, 24, 24, 1), np.float32), labels)
        with pytest.raises(BadInput, match=rf"{name} label {angle} of row {row} is outside \[0, 360\); .* modulo 360"):
            self.given(monkeypatch, **{name: split})

    def test_beside_a_number_of_classes(self, monkeypatch):
        with pytest.raises(
            BadInput, match="train labels are floats, that is angles, but there are 4 classes; give whole"
        ):
            self.given(monkeypatch, num_classes=4)

    def test_from_a_file(self, tmp_path):
        images, angles = np.zeros((6, 3, 3)), np.linspace(0, 359, 6)
        np.savez(tmp_path / "a.npz", x_train=images, y_train=angles, x_test=images, y_test=angles[::-1])
        data = load(dict(name="npz", root=str(tmp_path / "a.npz"), num_validation=2))
        assert data.num_classes is None
        assert data.train.labels.dtype == np.float32
        np.testing.assert_array_equal(data.train.labels, np.float32(angles[2:]))
        np.testing.assert_array_equal(data.test.labels, np.float32(angles[::-1]))

    def test_digest_tells_angles_apart(self, fish):
        labels = fish.test.labels.copy()
        labels[0] = np.nextafter(labels[0], 0)
        assert digest(fish) != digest(fish._replace(test=fish.test._replace(labels=labels)))

    @pytest.mark.parametrize(
        "reshape, settings",
        [
            (perturbed_pairs, dict(num_copies=1, max_angle=5, max_shift=1)),
            (weighted_classes, dict(weights=(1, 1))),
            (long_tail, dict(ratio=10)),
        ],
    )
    def test_class_sizes_of_angles(self, fish, reshape, settings):
        with pytest.raises(BadInput, match="class labels are needed .*, but the source has angles; give a source with"):
            reshape(source=fish, seed=0, **settings)
