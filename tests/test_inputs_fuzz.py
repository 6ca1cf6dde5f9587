"""Images and settings as they may be damaged: what is read is of the right shape, and the rest is refused in words."""

import contextlib
import io
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_launch import ROOT

from latent_al.data.image_files import Depth, Reading, UnusableImage, decode
from latent_al.data.image_folder import image_folder
from latent_al.experiment.command_line import load_config, parse_config
from latent_al.labelling.scan import plan, scan
from latent_al.types import BadInput

PIXELS = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
FORMATS = ("PNG", "TIFF", "BMP", "GIF", "JPEG", "WEBP", "JPEG2000", "PPM", "TGA", "ICO")


def encode(kind):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x112], exif[0x9003] = 6, "2026:01:01 00:00:00"
    Image.fromarray(PIXELS).save(file, kind, **(dict(exif=exif) if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}))
    return file.getvalue()


def encode_deep(kind):
    file = io.BytesIO()
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 16).save(file, kind)
    return file.getvalue()


FILES = [*map(encode, FORMATS), *map(encode_deep, ("PNG", "TIFF"))]


@st.composite
def damaged(draw):
    """Bytes of an image in which some are changed, gone or new, most of them near the head."""
    content = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, min(len(content), draw(st.sampled_from([40, 100, 10**6])))))
        change = draw(st.binary(max_size=6))
        content[place : place + draw(st.sampled_from([0, 1, 1, 1, 4, 1000]))] = change
    return bytes(content)


def check_image(content, channels, depth):
    try:
        decoded = decode(content, Reading((8, 8), channels, depth))
    except UnusableImage:
        return
    assert decoded.pixels.shape == (8, 8, channels)
    assert decoded.pixels.dtype == np.uint8
    assert 8 <= decoded.bits <= 32


READINGS = dict(channels=st.sampled_from([1, 3]), depth=st.sampled_from([None, Depth(12, False), Depth(9, True)]))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(content=damaged(), **READINGS)
def test_damaged_images(content, channels, depth):
    check_image(content, channels, depth)


@pytest.mark.slow
@settings(max_examples=50_000, deadline=None)
@given(content=damaged(), **READINGS)
def test_damaged_images_at_random(content, channels, depth):
    check_image(content, channels, depth)


FOLDERS = ("", "train", "Val", "TEST", "dev", "cat", "dog", ".ipynb_checkpoints", "__MACOSX", "a b", "caf\u00e9")
NAMES = ("1.png", "2.JPG", ".hidden.png", "Thumbs.db", "notes.txt", "broken.png", "no_suffix", "=x.png")


@st.composite
def layouts(draw):
    """Paths below a folder, up to three deep."""
    parts = st.tuples(st.sampled_from(FOLDERS), st.sampled_from(FOLDERS), st.sampled_from(NAMES))
    return draw(st.sets(parts.map(lambda path: "/".join(filter(None, path))), min_size=1, max_size=10))


def lay_out(root, paths):
    """Writes the files, and returns how many of them are images that nothing hides."""
    for number, path in enumerate(sorted(paths)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        is_image = not path.endswith((".db", ".txt", "broken.png"))
        # No two images have the same content.
        pixels = np.roll(PIXELS, number, axis=1) if is_image else None
        if is_image:
            Image.fromarray(pixels + np.uint8(number)).save(root / path, "PNG")
        else:
            (root / path).write_text("no image")
    hidden = (".ipynb_checkpoints", "__MACOSX", ".hidden.png")
    return sum(
        not path.endswith((".db", ".txt", "broken.png")) and not any(part in hidden for part in path.split("/"))
        for path in paths
    )


def check_layout(paths):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        num = lay_out(root, paths)
        with contextlib.suppress(BadInput):
            scanned = scan(plan(str(root), Path(folder) / "job", size=(8, 8), channels=3))
            assert len(scanned.table) == num
        with contextlib.suppress(BadInput):
            data = image_folder(root=str(root), size=(8, 8), channels=3, num_validation=0, num_test=0, skip_broken=True)
            splits = (data.train, data.validation, data.test)
            assert sum(len(split.images) for split in splits) <= num
            assert all(len(split.images) == len(split.labels) for split in splits if split.labels is not None)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(layouts())
def test_folders_in_any_layout(paths):
    with warnings.catch_warnings(action="ignore"):
        check_layout(paths)


@pytest.mark.slow
@settings(max_examples=5000, deadline=None)
@given(layouts())
def test_folders_in_any_layout_at_random(paths):
    with warnings.catch_warnings(action="ignore"):
        check_layout(paths)


KEYS = [
    *(
        "data.root",
        "data.size",
        "data.depth",
        "classes",
        "audit",
        "encoder",
        "encoder.name",
        "encoder.hidden",
        "rename",
    ),
    *("strategy", "strategy.name", "strategy.share", "classifier.learning_rate", "seed", "dat.root", "job", "x.y", ""),
]
VALUES = [
    *(
        "",
        "None",
        "0",
        "-1",
        "1e999",
        "()",
        "(8, 8)",
        "{}",
        "[1]",
        "'a'",
        "photos",
        "nan",
        "True",
        "{'name': 'random'}",
    ),
    *("('cat', 'cat')", "{'a': {}}", "b'x'", "1j", "{1: 2}", "[", "dense_vae", "labelling", "{'name': 3}", "\u732b"),
]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), min_size=1, max_size=3))
def test_settings_are_parsed_or_refused_by_name(overrides):
    with contextlib.suppress(BadInput):
        parse_config(load_config(str(ROOT / "configs/folder.py:smoke"), {"data.root": "photos"} | overrides))
