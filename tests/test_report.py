"""The page parsed and read back."""

from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from latent_al.results.report import write_report

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Tags with their attributes, and the text inside each kind of tag; refuses tags that do not nest."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.texts = [], [], {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]][-1] += data

    def attributes(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def write(tmp_path):
    """Writes a report that is hard to get right; returns its text."""
    for index in range(3):
        Image.new("RGB", (4, 4 + index), "red").save(tmp_path / f"{index}.png")
    scores = pd.DataFrame(
        dict(
            arm=["margin", "<b>random</b>", "x" * 80],
            area=[88.41, np.nan, 1.0],
            test=pd.Series(["97.0 ± 0.3", None, "&"], dtype=object),
        )
    )
    losses = pd.DataFrame(dict(epoch=np.arange(100), loss=np.arange(100) + 0.5))

    def run(name="report.html"):
        write_report(
            tmp_path / name,
            title="Digits & <friends>",
            command='python launch.py --config=a.py "x" && true',
            config='{"name": "<script>alert(1)</script>"}',
            tables={"Accuracy": scores, "Losses <1>": losses},
            figures={
                "Curves": [("Accuracy over labels", tmp_path / "0.png")],
                "Latents": [('The "first" two <dims>', tmp_path / "1.png"), ("Ranges", tmp_path / "2.png")],
            },
        )
        return (tmp_path / name).read_text(encoding="utf-8")

    return run


def test_pictures_are_inside(write, tmp_path):
    images = Page(write()).attributes("img")
    assert [image["alt"] for image in images] == ["Accuracy over labels", 'The "first" two <dims>', "Ranges"]
    for index, image in enumerate(images):
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/png;base64"
        assert b64decode(data, validate=True) == (tmp_path / f"{index}.png").read_bytes()


def test_nothing_is_fetched_or_run(write):
    html = write()
    page = Page(html)
    assert html.startswith("<!doctype html>\n")
    assert "://" not in html
    assert "url(" not in html
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for _, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")]
        assert attrs.get("href", "#").startswith("#")
        assert attrs.get("src", "data:").startswith("data:")


def test_text_is_escaped_and_whole(write):
    page = Page(write())
    assert page.attributes("html") == [{"lang": "en"}]
    assert {"charset": "utf-8"} in page.attributes("meta")
    assert page.texts["title"] == page.texts["h1"] == ["Digits & <friends>"]
    assert page.texts["pre"] == [
        'python launch.py --config=a.py "x" && true',
        '{"name": "<script>alert(1)</script>"}',
    ]
    assert page.texts["figcaption"] == ["Accuracy over labels", 'The "first" two <dims>', "Ranges"]


def test_tables_are_whole(write):
    page = Page(write())
    assert page.texts["th"] == ["arm", "area", "test", "epoch", "loss"]
    cells = np.reshape(page.texts["td"][:9], (3, 3)).tolist()
    assert cells == [["margin", "88.41", "97.0 ± 0.3"], ["<b>random</b>", "", ""], ["x" * 80, "1.00", "&"]]
    assert page.texts["td"][9:] == [text for index in range(100) for text in (str(index), f"{index}.5")]
    assert [table["class"] for table in page.attributes("table")] == ["dataframe named", "dataframe numbers"]


def test_contents_lead_to_the_sections(write):
    page = Page(write())
    headings = ["Accuracy", "Losses <1>", "Curves", "Latents"]
    assert page.texts["a"] == page.texts["h2"] == headings
    targets = [link["href"] for link in page.attributes("a")]
    assert targets == ["#" + section["id"] for section in page.attributes("section")]
    assert len(set(targets)) == 4


def test_the_same_input_gives_the_same_bytes(write, tmp_path):
    assert write() == write("again.html")
    assert sorted(path.name for path in tmp_path.glob("*.html*")) == ["again.html", "report.html"]


def test_a_report_without_tables_or_figures(tmp_path):
    write_report(tmp_path / "a.html", title="t", command="c", config="{}", tables={}, figures={})
    assert Page((tmp_path / "a.html").read_text()).texts["h1"] == ["t"]
