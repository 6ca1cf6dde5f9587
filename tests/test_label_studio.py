"""The tasks that Label Studio gets, and the pictures of a round."""

import json
import os
import warnings
import xml.etree.ElementTree as ET
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from latent_al.data.image_files import Reading
from latent_al.data.originals import Originals
from latent_al.labelling import rounds, sheets
from latent_al.labelling.label_studio import CONTROL, labelling_config, tasks
from latent_al.labelling.sheets import Marked, contact_sheet, latent_map
from latent_al.types import BadInput

CLASSES = ["cat", 'a "b" <c> & d', "猫", "two\nlines"]


def queries(**changed):
    columns = {
        "id": ["sha256:00", "sha256:01"],
        "file_name": ["a/1.png", "b #1 & 50%+?'\"猫\n.png"],
        "rank": [0, 1],
        "reason": ["uncertain", "diverse"],
        "prediction": ["cat", ""],
        "confidence": [0.625, np.nan],
    }
    return pd.DataFrame(columns | changed)


def test_the_config_names_the_control_and_every_class():
    view = ET.fromstring(labelling_config(CLASSES))
    assert view.find("Choices").attrib == {"name": CONTROL, "toName": "image", "choice": "single"}
    assert [choice.get("value") for choice in view.iter("Choice")] == CLASSES
    assert view.find("Image").attrib == {"name": "image", "value": "$image"}


def test_without_classes_the_config_says_where_they_go():
    text = labelling_config([])
    assert '<Choice value="its name"/>' in text.split("<Choices")[1].split("</Choices>")[0]
    assert not list(ET.fromstring(text).iter("Choice"))


def test_a_class_that_xml_cannot_hold_is_refused():
    with pytest.raises(BadInput, match=r"'b\\x07'.*rename"):
        labelling_config(["a", "b\x07"])


def test_tasks_carry_our_columns_and_an_address_that_gives_the_file_name_back():
    made = tasks(queries(), root_name="my photos", round_index=3, classes=CLASSES)
    assert json.loads(json.dumps(made)) == made
    for task, query in zip(made, queries().itertuples(), strict=True):
        address = urlsplit(task["data"].pop("image"))
        assert address.path == "/data/local-files/"
        assert address.fragment == ""
        assert parse_qs(address.query) == {"d": [f"my photos/{query.file_name}"]}
        expected = {"file_name": query.file_name, "rank": query.rank, "reason": query.reason}
        assert task["data"] == expected | {"latent_al_id": query.id}


def test_only_queries_with_a_prediction_have_one():
    first, second = tasks(queries(), root_name="photos", round_index=3, classes=CLASSES)
    (prediction,) = first["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("latent_al-r003", 0.625)
    choice = {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": ["cat"]}}
    assert prediction["result"] == [choice]
    assert second["predictions"] == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(prediction=["cow", ""]), r"a/1.png has the prediction 'cow'; expected one of \['cat'"),
        (dict(confidence=[1.01, np.nan]), "confidence of a/1.png is 1.01"),
        (dict(confidence=[-0.01, np.nan]), "confidence of a/1.png is -0.01"),
        (dict(confidence=[np.nan, np.nan]), "confidence of a/1.png is nan"),
    ],
)
def test_predictions_that_label_studio_would_take_unseen_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        tasks(queries(**changed), root_name="photos", round_index=1, classes=CLASSES)


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def colours(picture):
    return {tuple(colour) for colour in np.unique(picture.reshape(-1, 3), axis=0).tolist()}


@pytest.mark.parametrize("shape", [(8, 8), (300, 200), (1, 700)])
def test_a_sheet_shows_every_image_in_its_colours(tmp_path, shape):
    values = np.array([[200, 30, 40], [10, 180, 60], [90, 20, 250]], np.uint8)
    images = np.broadcast_to(values[:, None, None], (3, *shape, 3))
    contact_sheet(images, ["0: cat", "1", ""], tmp_path / "sheet.png")
    picture = read(tmp_path / "sheet.png")
    assert {tuple(each) for each in values.tolist()} <= colours(picture)
    for value in values:
        rows, columns = np.nonzero((picture == value).all(axis=2))
        drawn = np.ptp(rows) + 1, np.ptp(columns) + 1
        expected = np.maximum(1, 128 * np.array(shape) / max(shape))
        np.testing.assert_allclose(drawn, expected, atol=1)


def test_a_sheet_shows_files_one_pixel_high_or_wide(tmp_path):
    sizes = [(1, 1), (1, 5), (5, 1), (300, 1)]
    paths = [tmp_path / f"{index}.png" for index in range(4)]
    for path, size in zip(paths, sizes, strict=True):
        Image.new("RGB", size, (77, 77, 77)).save(path)
    images = Originals(paths, Reading(None, 3))
    contact_sheet(images, [""] * 4, tmp_path / "sheet.png")
    shown = (read(tmp_path / "sheet.png") == 77).all(axis=2)
    for index, (width, height) in enumerate(sizes):
        rows, columns = np.nonzero(shown[:, 132 * index : 132 * (index + 1)])
        drawn = np.ptp(columns) + 1, np.ptp(rows) + 1
        np.testing.assert_allclose(drawn, 128 * np.array([width, height]) / max(width, height), atol=1)


def test_five_hundred_grey_images_fit_one_sheet(tmp_path):
    images = np.full((500, 4, 4, 1), 77, np.uint8)
    contact_sheet(images, [f"{rank}: cat" for rank in range(500)], tmp_path / "sheet.png")
    picture = read(tmp_path / "sheet.png")
    assert 1400 <= picture.shape[1] <= 1600
    assert np.count_nonzero(picture[..., 0] == 77) == 500 * 128 * 128
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_captions_of_any_script_and_length_stay_below_their_image(tmp_path):
    captions = ["", "猫 " * 30, "أبجد", "W" * 500, "a\nb\x00\ud800", "same"]
    images = np.full((6, 4, 4, 3), 255, np.uint8)
    with warnings.catch_warnings(action="error"):
        contact_sheet(images, captions, tmp_path / "sheet.png")
    dark = (read(tmp_path / "sheet.png") < 128).all(axis=2)
    cells = [dark[:, 4 + 132 * index : 136 + 132 * index] for index in range(6)]
    assert [bool(cell.any()) for cell in cells] == [False, True, True, True, True, True]
    assert not dark[:128].any()
    assert not any(cell[:, 129:].any() for cell in cells)


def test_letters_that_no_font_has_are_spelt_by_their_numbers(monkeypatch):
    monkeypatch.setattr(sheets, "_fonts", lambda: [sheets.findfont("DejaVu Sans")])
    assert sheets._with_font("caf\u00e9 \u05d0.png")[1] == "caf\u00e9 \u05d0.png"
    assert sheets._with_font("\u732b 1.png")[1] == "U+732B  1.png"


def test_a_font_that_has_the_letters_is_taken(monkeypatch):
    fonts = [sheets.findfont("DejaVu Sans"), sheets.findfont("STIXGeneral")]
    monkeypatch.setattr(sheets, "_fonts", lambda: fonts)
    letter = min(sheets._letters(fonts[1]) - sheets._letters(fonts[0]))
    font, text = sheets._with_font(chr(letter))
    assert (font.path, text) == (fonts[1], chr(letter))


def test_lines_are_cut_at_their_middle():
    font, _ = sheets._with_font("a")
    cut = sheets._cut("one/long/folder/of/photographs/0001.png", font)
    assert cut.startswith("one/")
    assert cut.endswith("0001.png")
    assert font.getlength(cut) <= sheets.SIDE


def test_a_round_reaches_the_disk_under_its_name(tmp_path, monkeypatch):
    """Each sync tells what is synced, and whether the round was there by then."""
    synced, sync, folder = [], os.fsync, tmp_path / "rounds/000"
    monkeypatch.setattr(os, "fsync", lambda file: sync(file) or synced.append((os.fstat(file).st_ino, folder.exists())))
    told = dict(queries=queries(), predictions=None, images=np.full((2, 4, 4, 1), 77, np.uint8))
    where = dict(marked=Marked(np.eye(2, dtype=np.float32), {}), root_name="images")
    assert rounds.publish(tmp_path, dict(round=0, classes=CLASSES), **told, **where) == folder
    files = {path.stat().st_ino for path in folder.iterdir()}
    assert files < {each for each, is_there in synced if not is_there}
    assert [each for each, is_there in synced if is_there] == [folder.parent.stat().st_ino]


def groups(n):
    rows = np.arange(n)
    return {"labelled": rows[: n // 4], "audit": rows[n // 4 : n // 2], "open": rows[:0], "picked now": rows[-1:]}


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws a map and returns its figure and the file's bytes."""
    saved = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **kw: saved.append(figure) or save(figure, *args, **kw)
    )

    def draw(latents):
        latent_map(latents, groups(len(latents)), tmp_path / "map.png")
        return saved[-1], (tmp_path / "map.png").read_bytes()

    return draw


def points(figure):
    return {each.get_label().split(":")[0]: np.asarray(each.get_offsets()) for each in figure.axes[0].collections}


def test_a_plane_is_drawn_as_it_is_and_a_large_cloud_in_part(drawn):
    latents = np.random.default_rng(0).normal(size=(20_100, 2))
    figure, _ = drawn(latents)
    (legend,) = figure.legends
    counts = [text.get_text() for text in legend.get_texts()]
    assert counts[0] == "all images: 20,100, 20,000 of them drawn"
    assert counts[1:] == ["labelled: 5,025", "audit: 5,025", "open: 0", "picked now: 1"]
    shown = points(figure)
    np.testing.assert_array_equal(shown["labelled"], latents[:5025])
    assert len(shown["all images"]) == 20_000
    assert set(map(tuple, shown["all images"])) < set(map(tuple, latents))


def test_more_dimensions_are_drawn_by_principal_components(drawn):
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(60, 2)) * [9, 3]
    latents = (plane @ np.eye(2, 5)[:, [3, 1, 0, 2, 4]]).astype(np.float32)
    figure, first = drawn(latents)
    labels = figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    assert labels[0].startswith("first principal component (")
    shares = [int(label.split("(")[1].split(" %")[0]) for label in labels]
    assert shares[0] > shares[1] > 0
    assert 99 <= sum(shares) <= 101
    shown = points(figure)["labelled"]
    distances = [np.linalg.norm(each[:, None] - each, axis=2) for each in (shown, plane[: len(shown)])]
    np.testing.assert_allclose(*distances, rtol=1e-4, atol=1e-4)
    assert drawn(latents)[1] == first


@pytest.mark.parametrize(
    "latents", [np.arange(9.0)[:, None], np.ones((1, 3)), np.ones((7, 4))], ids=["1-D", "one", "equal"]
)
def test_small_spaces_are_drawn_too(drawn, latents):
    figure, _ = drawn(latents)
    shown = points(figure)
    assert len(shown["all images"]) == len(latents)
    assert "nan" not in figure.axes[0].get_xlabel()
    if latents.shape[1] == 1:
        np.testing.assert_array_equal(shown["labelled"][:, 0], latents[: len(latents) // 4, 0])
