"""The page parsed and read back."""

from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from latent_al.results.answers import Answer
from latent_al.results.charts import MARKS, Curve, draw
from latent_al.results.metrics import METRICS
from latent_al.results.report import Section, write_report

VOID = {"meta", "img", "wbr"}
READ = {
    "<b>": ["10 labels: 50.0 % [48.0, 52.0]", "20 labels: 60.0 % [59.5, 60.5]"],
    "random": ["10 labels: 50.0 %", "20 labels: 60.0 %"],
}


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
    answer = Answer("margin is <ahead> by 43 %.", {"<i>margin</i>": "a & b"}, ["Of 2 seeds."])
    sections = [
        Section("Accuracy", "Of <all> arms.", table=scores),
        Section("Losses <1>", table=losses),
        Section("Curves", charts=[chart()], pictures=[("Accuracy over labels", tmp_path / "0.png")]),
        Section("Latents", pictures=[('The "first" two <dims>', tmp_path / "1.png"), ("Ranges", tmp_path / "2.png")]),
    ]

    def run(name="report.html"):
        write_report(
            tmp_path / name,
            title="Digits & <friends>",
            answer=answer,
            command='python launch.py --config=a.py "x" && true',
            config='{"name": "<script>alert(1)</script>"}',
            sections=sections,
        )
        return (tmp_path / name).read_text(encoding="utf-8")

    return run


def chart():
    """Two curves, one without intervals."""
    points = pd.DataFrame(dict(num_labels=[10, 20], mean=[50.0, 60.0], low=[48.0, 59.5], high=[52.0, 60.5]))
    bare = points.assign(low=np.nan, high=np.nan)
    return draw([Curve("<b>", 0, points), Curve("random", 9, bare)], "Score & labels", METRICS["accuracy"])


def test_pictures_are_inside_and_whole(write):
    images = Page(write()).attributes("img")
    assert [image["alt"] for image in images] == ["Accuracy over labels", 'The "first" two <dims>', "Ranges"]
    for index, image in enumerate(images):
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/webp;base64"
        picture = Image.open(BytesIO(b64decode(data, validate=True)))
        assert picture.size == (4, 4 + index)
        red = np.asarray(picture.convert("RGB")).reshape(-1, 3).mean(axis=0)
        np.testing.assert_allclose(red, [255, 0, 0], atol=3)


def test_a_photograph_takes_a_fraction_of_its_png(tmp_path):
    """Smooth and noisy as photographs are; half of the size of a page of them would be too much."""
    rng = np.random.default_rng(0)
    pixels = np.add.outer(np.arange(300), np.arange(400))[..., None] / 3 + rng.normal(scale=6, size=(300, 400, 3))
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    section = Section("Photographs", pictures=[("One", tmp_path / "a.png")])
    write_report(tmp_path / "a.html", title="t", answer=None, command="c", config="{}", sections=[section])
    assert (tmp_path / "a.html").stat().st_size < (tmp_path / "a.png").stat().st_size / 2


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
    assert page.texts["title"][0] == page.texts["h1"][0] == "Digits & <friends>"
    assert page.texts["pre"] == [
        'python launch.py --config=a.py "x" && true',
        '{"name": "<script>alert(1)</script>"}',
    ]
    captions = ["Score & labels", "Accuracy over labels", 'The "first" two <dims>', "Ranges"]
    assert page.texts["figcaption"] == captions
    assert page.texts["p"] == ["margin is <ahead> by 43\N{NO-BREAK SPACE}%.", "Of 2 seeds.", "Of <all> arms."]
    assert page.texts["dt"] == ["<i>margin</i>"]
    assert page.texts["dd"] == ["a & b"]


def test_the_answer_comes_before_all_else(write):
    html = write()
    places = [html.index(text) for text in ("<h1>", "is &lt;ahead&gt;", "<svg", "<img", "launch.py")]
    assert places == sorted(places)


def test_charts_are_read_by_pointing_and_as_a_table(write):
    page = Page(write())
    columns = ["20 labels\n<b>: 60.0 % [59.5, 60.5]\nrandom: 60.0 %"]
    columns = ["10 labels\n<b>: 50.0 % [48.0, 52.0]\nrandom: 50.0 %", *columns]
    marks = [f"{arm}, {point}" for arm, points in READ.items() for point in points]
    assert page.texts["title"][1:] == columns + marks
    (svg,) = page.attributes("svg")
    assert svg["role"] == "img"
    assert svg["aria-label"] == "Score & labels"
    numbers = page.texts["td"][-4:]
    assert numbers == ["50.0 % [48.0, 52.0]", "50.0 %", "60.0 % [59.5, 60.5]", "60.0 %"]
    # Two points of each, and beside its name: the tenth line has the second line's colour and dash, and another mark.
    marks = [path["d"] for path in page.attributes("path") if path["class"] == "mark"]
    assert marks == [MARKS[0]] * 3 + [MARKS[1]] * 3
    assert [group["class"] for group in page.attributes("g")] == ["column", "column", "arm c0", "arm c1"]


def test_tables_are_whole(write):
    page = Page(write())
    heads = [attrs["scope"] for attrs in page.attributes("th")]
    texts = dict(col=[], row=[])
    for scope, text in zip(heads, page.texts["th"], strict=True):
        texts[scope].append(text)
    assert texts["col"] == ["arm", "area", "test", "epoch", "loss", "labels queried", "<b>", "random"]
    assert texts["row"] == ["margin", "<b>random</b>", "x" * 80, *map(str, range(100)), "10", "20"]
    assert page.texts["td"][:6] == ["88.41", "97.0 ± 0.3", "", "", "1", "&"]
    assert page.texts["td"][6:106] == [f"{index}.5" for index in range(100)]
    assert [table["class"] for table in page.attributes("table")] == ["named", "numbers", "named"]
    regions = [attrs for attrs in page.attributes("div") if attrs.get("role") == "region"]
    assert [attrs["tabindex"] for attrs in regions] == ["0"] * 4
    labels = ["Accuracy", "Losses <1>", "Chart: Score & labels", "Numbers: Score & labels"]
    assert [attrs["aria-label"] for attrs in regions] == labels


def test_contents_lead_to_the_sections(write):
    page = Page(write())
    headings = ["Answer", "Accuracy", "Losses <1>", "Curves", "Latents", "How it was run"]
    assert page.texts["a"] == page.texts["h2"] == headings
    targets = [link["href"] for link in page.attributes("a")]
    assert targets == ["#" + section["id"] for section in page.attributes("section")]
    assert len(set(targets)) == len(headings)


def test_the_same_input_gives_the_same_bytes(write, tmp_path):
    assert write() == write("again.html")
    assert sorted(path.name for path in tmp_path.glob("*.html*")) == ["again.html", "report.html"]


def test_a_report_without_tables_or_figures(tmp_path):
    write_report(tmp_path / "a.html", title="t", answer=None, command="c", config="{}", sections=[])
    page = Page((tmp_path / "a.html").read_text())
    assert page.texts["h1"] == ["t"]
    assert page.texts["h2"] == page.texts["a"] == ["How it was run"]
