"""The site in Chromium, at desktop and phone width, light and dark: `make docs` builds it first."""

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

SITE = Path(__file__).parents[1] / "site"
CHROMIUM = shutil.which("chromium")
PAGES = (
    "index.html",
    "api/kernels.html",
    "api/types.html",
    "labelling.html",
    "mathematics.html",
    "reference.html",
    "results.html",
    "tutorials/scan.html",
)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and does not log that."""

    def log_message(self, *args):
        del args


@pytest.fixture(scope="module")
def address():
    """The address of the site, served on this machine."""
    if not SITE.is_dir():
        pytest.skip("site/ is not there; run `make docs`")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    """Chromium."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    # The results take axe-core seconds.
    [*((name, 1280, "light") for name in PAGES if name != "results.html"), *((name, 390, "dark") for name in PAGES)],
)
def test_a_page_fits_makes_no_errors_and_is_accessible(name, width, scheme, address, browser):
    with browser.new_page(viewport=dict(width=width, height=900), color_scheme=scheme) as page:
        errors, requests = [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{address}/{name}", wait_until="networkidle")
        assert errors == []
        assert [url for url in requests if not url.startswith(address)] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        hidden = "[...document.querySelectorAll('.wide:has(math)')].filter(e => e.scrollHeight > e.clientHeight).length"
        assert page.evaluate(hidden) == 0
        cut = "e => /^\\w+$/.test(e.textContent) && e.getClientRects().length > 1"
        assert page.evaluate(f"[...document.querySelectorAll('td code')].filter({cut}).length") == 0
        headings = "[...document.querySelectorAll('article :is(h1, h2, h3, h4, h5, h6)')].map(e => +e.tagName[1])"
        assert [(above, below) for above, below in pairwise(page.evaluate(headings)) if below > above + 1] == []
        # The theme puts code that scrolls within reach of the keyboard once it has measured it.
        page.wait_for_function(
            "[...document.querySelectorAll('pre code')].every(e => e.scrollWidth <= e.clientWidth || e.tabIndex === 0)"
        )
        violations = axe.Axe().run(page).response["violations"]
        serious = [item for item in violations if item["impact"] in ("serious", "critical")]
        assert [(item["id"], [node["html"] for node in item["nodes"]][:3]) for item in serious] == []
