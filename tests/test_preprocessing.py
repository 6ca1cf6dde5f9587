"""Images as their files have them, and what becomes of them before a pretrained network reads them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latent_al.data import load
from latent_al.data.arrays import take
from latent_al.data.image_files import Reading, UnusableImage
from latent_al.data.originals import Originals
from latent_al.data.preprocessing import normalized, preprocess, read_preprocessing
from latent_al.types import BadInput

SIDE = 8
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PREPROCESSOR = dict(
    image_processor_type="ViTImageProcessor",
    do_resize=True,
    size=dict(height=SIDE, width=SIDE),
    resample=3,
    do_rescale=True,
    rescale_factor=1 / 255,
    do_normalize=True,
    image_mean=MEAN,
    image_std=STD,
    do_pad=None,
)
SETTINGS = dict.fromkeys(("size", "crop", "mean", "std", "resample"))


def pictures(num, shape=(12, 10), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, *shape, 3), dtype=np.uint8)


def preprocessor(folder, **changes):
    """Changes the preprocessing of a network; None takes a field away."""
    fields = {name: value for name, value in (PREPROCESSOR | changes).items() if value is not None}
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    return folder


def image_files(root):
    """Writes 20 files of several sizes; returns the folder, and the pixels of each name."""
    root.mkdir()
    images = {f"{row:02d}.png": pictures(1, (9 + row % 4, 14), seed=row)[0] for row in range(20)}
    for name, image in images.items():
        Image.fromarray(image).save(root / name)
    return root, images


@pytest.fixture
def files(tmp_path):
    return image_files(tmp_path / "images")


class TestPreprocessing:
    def steps(self, tmp_path, **fields):
        return read_preprocessing((preprocessor(tmp_path, **fields),), SETTINGS, takes_bytes=False)

    @pytest.mark.parametrize(
        ("fields", "resized", "crop"),
        [
            (dict(size=dict(shortest_edge=20), crop_size=16), (20, 30), (16, 16)),
            (dict(size=20, crop_size=dict(height=16, width=10), do_center_crop=True), (20, 30), (16, 10)),
            (dict(size=20), (20, 20), None),
            (dict(size=dict(shortest_edge=14, longest_edge=None), crop_pct=0.875), (16, 24), (14, 14)),
            (dict(size=dict(shortest_edge=384), crop_pct=0.875), (384, 384), None),
            (dict(size=20, crop_size=16, image_processor_type="DeiTImageProcessor"), (20, 20), (16, 16)),
            (dict(size=20, crop_size=16, do_center_crop=True, default_to_square=True), (20, 20), (16, 16)),
            (dict(do_resize=False, crop_size=11), None, (11, 11)),
        ],
    )
    def test_is_that_of_pillow(self, fields, resized, crop, tmp_path):
        steps = self.steps(tmp_path, **dict(image_processor_type=None) | fields)
        image = pictures(1, (24, 36))[0]
        picture = Image.fromarray(image)
        if resized is not None:
            picture = picture.resize(resized[::-1], Image.Resampling.BICUBIC)
        pixels = np.asarray(picture)
        if crop is not None:
            top, left = (pixels.shape[0] - crop[0]) // 2, (pixels.shape[1] - crop[1]) // 2
            pixels = pixels[top : top + crop[0], left : left + crop[1]]
        np.testing.assert_array_equal(preprocess(image, steps), pixels)
        assert steps.shape == pixels.shape[:2]

    def test_the_shorter_side_of_an_upright_image_is_its_width(self, tmp_path):
        steps = self.steps(tmp_path, size=dict(shortest_edge=20), crop_size=20)
        image = pictures(1, (31, 20))[0]
        np.testing.assert_array_equal(preprocess(image, steps), image[5:25])

    def test_images_smaller_than_the_crop_get_black_edges_where_nothing_resizes_them(self, tmp_path):
        steps = self.steps(tmp_path, do_resize=False, crop_size=5)
        image = np.full((2, 3, 3), 9, np.uint8)
        wanted = np.zeros((5, 5, 3), np.uint8)
        wanted[2:4, 1:4] = 9
        np.testing.assert_array_equal(preprocess(image, steps), wanted)

    @pytest.mark.parametrize("resample", ["nearest", "bilinear", "bicubic", "lanczos"])
    def test_the_resampling_is_the_one_set(self, resample, tmp_path):
        settings = SETTINGS | dict(size=(5, 7), resample=resample)
        steps = read_preprocessing((preprocessor(tmp_path),), settings, takes_bytes=False)
        image = pictures(1, (24, 36))[0]
        wanted = Image.fromarray(image).resize((7, 5), Image.Resampling[resample.upper()])
        np.testing.assert_array_equal(preprocess(image, steps), np.asarray(wanted))

    def test_levels_are_scaled_and_normalized(self, tmp_path):
        steps = self.steps(tmp_path, rescale_factor=1 / 127.5)
        pixels = pictures(2)
        wanted = (pixels.astype(np.float64) / 127.5 - MEAN) / STD
        np.testing.assert_allclose(normalized(pixels, steps), wanted, atol=1e-5)
        steps = self.steps(tmp_path, do_rescale=False, do_normalize=False)
        np.testing.assert_array_equal(normalized(pixels, steps), pixels.astype(np.float32))

    @pytest.mark.parametrize(
        ("fields", "match"),
        [
            (dict(do_flip_channel_order=True), "has do_flip_channel_order=True, which is not supported"),
            (dict(include_top=True, rescale_offset=True), "include_top=True, rescale_offset=True"),
            (dict(size=dict(shortest_edge=8)), "images of several shapes .* set config.encoder.crop"),
            (dict(do_resize=False), "images of several shapes"),
            (dict(size=dict(longest_edge=8)), "a size of longest_edge"),
            (dict(size="large"), "cannot be understood"),
            (dict(resample=9), "9 is not a valid Resampling"),
            (dict(resample=None), "does not say resample; set them in config.encoder"),
            (dict(image_std=(0.1, 0, 0.1)), "positive ones as std"),
            (dict(image_mean=(0.5,)), "expected three numbers each"),
            (dict(size=dict(height=0, width=8)), "expected sides of 1 or more"),
        ],
    )
    def test_what_is_refused(self, fields, match, tmp_path):
        with pytest.raises(BadInput, match=match):
            self.steps(tmp_path, **fields)


class TestOriginals:
    def test_are_read_at_their_own_size_in_colour(self, files):
        root, images = files
        Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(root / "00.png")
        originals = Originals([root / name for name in images], Reading((4, 4), 1))
        assert (len(originals), originals[0].shape) == (20, (3, 4, 3))
        np.testing.assert_array_equal(originals[0][..., 2], np.arange(12).reshape(3, 4))
        np.testing.assert_array_equal(originals[7], images["07.png"])

    def test_lost_ones_are_those_that_were_scanned(self, files):
        root, _ = files
        (root / "01.png").write_bytes(b"broken")
        store = np.arange(2 * 4, dtype=np.uint8).reshape(2, 2, 2, 1)
        originals = Originals([None, root / "01.png"], Reading((2, 2), 1), store)
        for row, reason in enumerate(["now has other content", "not an image"]):
            original = originals.read(row)
            assert reason in original.reason
            np.testing.assert_array_equal(original.image, np.repeat(store[row], 3, axis=2))
        with pytest.raises(UnusableImage, match="not an image"):
            Originals([root / "01.png"], Reading(None, 3))[0]

    def test_follow_the_rows_of_an_image_folder(self, files):
        root, images = files
        for index, name in enumerate(images):
            (root / f"class{index % 2}").mkdir(exist_ok=True)
            (root / name).rename(root / f"class{index % 2}" / name)
        source = dict(name="image_folder", root=str(root), size=(4, 4), channels=3)
        data = load(source | dict(num_validation=3, num_test=4, skip_broken=False))
        for row, name in enumerate(data.ids):
            np.testing.assert_array_equal(data.train.originals[row], images[Path(name).name])
        for split in (data.validation, data.test, take(data.train, slice(2, 9)), take(data.train, np.array([5, 1]))):
            assert len(split.originals) == len(split.images)
            for image, original in zip(split.images, split.originals, strict=True):
                small = Image.fromarray(original).resize((4, 4), Image.Resampling.LANCZOS)
                np.testing.assert_array_equal(np.round(image * 255), np.asarray(small))
