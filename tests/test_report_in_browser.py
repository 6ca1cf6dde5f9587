"""The report of a run in a real Chromium: nothing is cut off, silent, or unreadable. Run by `make test-browser`."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from latent_al.results.answers import answer
from latent_al.results.comparisons import compare_pairs, labels_to_match, labels_to_reach
from latent_al.results.intervals import mean_interval
from latent_al.results.report import write_report
from latent_al.results.sections import make_sections
from latent_al.results.statistics import final_differences, gaps_table, summarise

pytestmark = pytest.mark.browser

ARMS = ["random", "margin", "an_arm_with_a_name_as_long_as_names_of_sweeps_get_gamma_0.001", *"abcdef"]
VIEWS = [(width, scheme) for width in (1280, 360) for scheme in ("light", "dark")]
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def chromium():
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on the PATH")
    # Not installed with the tests, as it is only of use beside a browser.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def metrics():
    """Nine arms of six seeds, scored ten times."""
    rng = np.random.default_rng(0)

    def score(arm, index):
        return 0.5 + 0.03 * index + 0.02 * (arm != "random") * rng.normal()

    rows = [
        (
            arm,
            seed,
            index,
            10 * (index + 1),
            split,
            metric,
            0.5 + 0.03 * index + 0.02 * (arm != "random") * rng.normal(),
        )
        for arm in ARMS
        for seed in range(6)
        for index in range(10)
        for split in ("validation", "labelled", *(["test"] if index == 9 else []))
        for metric in ("accuracy", "balanced_accuracy")
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "round", "num_labels", "split", "metric", "value"])


@pytest.fixture(scope="module")
def report(metrics, tmp_path_factory):
    """A page with all that a page may have, and pictures of the size that photographs have there."""
    folder = tmp_path_factory.mktemp("report")
    noise = np.random.default_rng(0).integers(0, 256, (100, 80, 3), dtype=np.uint8)
    pictures = []
    for index in range(4):
        Image.fromarray(noise).resize((800, 1000), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
        pictures.append((f"Photographs of batch {index}", folder / f"{index}.png"))
    summary = summarise(metrics, "random") | compare_pairs(metrics) | {"encoders": {"vae": {"loss": 0.25}}}
    summary["labels_to_reach"] = labels_to_reach(metrics, "random", (0.6, 0.7))
    summary["labels_to_match"] = labels_to_match(metrics, "random")
    summary["final_differences"] = final_differences(metrics, "random")
    tables = {"metrics": metrics, "gaps": gaps_table(metrics, "random")}
    write_report(
        folder / "report.html",
        title="latent_al: a_run_with_a_name_that_is_too_long_for_the_line_of_a_phone",
        answer=answer(summary),
        command="python launch.py --config=configs/digits_vae.py " + "--config.num_seeds=20 " * 9,
        config='{"name": 1}',
        sections=make_sections(summary, tables, {}, {"Photographs": pictures}),
    )
    return folder / "report.html"


@pytest.fixture(scope="module", params=VIEWS, ids=lambda view: f"{view[0]}-{view[1]}")
def page(chromium, report, request):
    """The page at one width and in one scheme, with what it has said to the console as `said`."""
    width, scheme = request.param
    context = chromium.new_context(viewport=dict(width=width, height=900), color_scheme=scheme)
    page = context.new_page()
    page.said = []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda asked: page.said.append(asked.url) if asked.url.startswith("http") else None)
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    yield page
    context.close()


def test_nothing_overflows_and_nothing_is_said(page):
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # Only what scrolls in a box of its own may be wider than the screen.
    outside = """[...document.querySelectorAll('main *')].filter(
        element => !element.closest('.wide') && element.getBoundingClientRect().right > innerWidth + 1
    ).map(element => element.outerHTML.slice(0, 80))"""
    assert page.evaluate(outside) == []
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.said == []


def test_axe_finds_nothing_serious(page):
    from axe_playwright_python.sync_playwright import Axe

    violations = Axe().run(page).response["violations"]
    assert [(found["id"], found["help"]) for found in violations if found["impact"] in SERIOUS] == []


def test_a_mark_tells_its_numbers(page, metrics):
    """The mark lies on top of the chart, so that the pointer meets it and not the column behind."""
    rows = metrics[(metrics.arm == "margin") & (metrics.num_labels == 60)]
    values = 100 * rows[(rows.split == "validation") & (rows.metric == "accuracy")].value.to_numpy()
    low, high = mean_interval(values)
    title = f"margin, 60 labels: {values.mean():.1f} % [{low:.1f}, {high:.1f}]"
    mark = page.locator("svg").first.locator(".mark").filter(has_text=title)
    assert mark.count() == 1
    under = """mark => {
        mark.scrollIntoView({block: 'center', inline: 'center'});
        const box = mark.getBoundingClientRect();
        const element = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
        return [element.getAttribute('class'), element.textContent];
    }"""
    kind, text = mark.evaluate(under)
    assert kind == "mark"
    assert ", 60 labels: " in text


def test_light_and_dark_differ(page):
    """Text is dark on light or light on dark, by far more than what axe asks for."""
    colours = page.evaluate("(style => [style.backgroundColor, style.color])(getComputedStyle(document.body))")
    back, text = (sum(map(int, colour[4:-1].split(","))) / 3 for colour in colours)
    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (back < 50 and text > 200) if is_dark else (back > 200 and text < 50)


def test_the_contents_stay_beside_the_text_on_a_wide_screen(page):
    page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
    top = page.evaluate("document.querySelector('nav ul').getBoundingClientRect().top")
    is_wide = page.viewport_size["width"] > 1000
    assert (0 <= top < 100) if is_wide else (top < 0)


def test_paper_cuts_nothing_off(chromium, report):
    """What scrolls on a screen would end at the margin; between the margins A4 has 718 pixels."""
    with chromium.new_page(viewport=dict(width=718, height=1000)) as page:
        page.emulate_media(media="print")
        page.goto(report.as_uri())
        scrolling = "[...document.querySelectorAll('.wide')].filter(e => getComputedStyle(e).overflowX !== 'visible')"
        assert page.evaluate(f"{scrolling}.length") == 0
        assert page.get_by_role("region", name="Command").evaluate("e => e.scrollWidth") <= 718
        table = page.get_by_role("region", name="Balanced results").locator("table")
        # One arm has a name of 62 letters.
        assert table.evaluate("e => e.scrollWidth - e.querySelector('tbody th').scrollWidth") <= 718 - 200


def test_a_page_of_photographs_is_under_three_megabytes(report):
    assert report.stat().st_size < 3_000_000
    assert sum(png.stat().st_size for png in report.parent.glob("*.png")) > 3_000_000
