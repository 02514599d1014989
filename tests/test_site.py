"""The site in headless Chromium: what people see, at the width of a desktop and of a phone. `make docs-test` installs
what it needs."""

import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
from chromium import chromium
from pages import ROOT, pages

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("material") is None, reason="mkdocs-material is not installed: make docs-test"),
]
DESKTOP, PHONE = (1280, 900), (390, 844)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of the built site."""
    directory = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def visit(browser, site):
    """Opens a page. At the end, fails for a request to another host, one without an answer, or a message of the
    console."""
    problems: list[str] = []
    contexts = []

    def open_page(page: str, size: tuple[int, int] = DESKTOP, theme: str = "light"):
        context = browser.new_context(color_scheme=theme, viewport={"width": size[0], "height": size[1]})
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("request", lambda request: None if request.url.startswith(site) else problems.append(request.url))
        tab.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
        tab.on("response", lambda answer: None if answer.ok else problems.append(f"{answer.status}: {answer.url}"))
        tab.goto(f"{site}/{address(page)}", wait_until="networkidle")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert [problem for problem in problems if not problem.startswith(("data:", "blob:"))] == []


def address(page: str) -> str:
    """Where MkDocs puts a page: `a/b.md` is at `a/b/`."""
    path = Path(page).with_suffix("")
    return "" if str(path) == "index" else f"{path}/"


@pytest.mark.parametrize("page", pages())
def test_a_page_asks_no_other_host_and_fits(visit, page):
    """At both widths nothing is outside the window, and nothing is wrong in the console."""
    tab = visit(page)
    assert tab.locator("h1").count() == 1
    for width, height in (DESKTOP, PHONE):
        tab.set_viewport_size({"width": width, "height": height})
        assert tab.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("page", ["method.md", "studies.md"])
def test_formulas_are_drawn(visit, page):
    tab = visit(page)
    formulas = tab.locator("math")
    assert formulas.count() > 5
    sizes = formulas.evaluate_all("all => all.map((one) => one.getBoundingClientRect().height)")
    assert min(sizes) > 5, "each has a height"
    text = tab.locator("article").inner_text()
    assert "\\(" not in text and "\\[" not in text and "\\frac" not in text and "$" not in text


def test_the_search_finds(visit):
    tab = visit("index.md")
    tab.locator("input[name=query]").click()
    tab.locator("input[name=query]").press_sequentially("DeepSpeed")
    first = tab.locator(".md-search-result__item").first
    first.wait_for()
    assert "Train on several GPUs" in first.inner_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_button_changes_the_theme(visit, theme):
    tab = visit("index.md", theme=theme)
    ground = lambda: tab.evaluate("getComputedStyle(document.body).backgroundColor")  # noqa: E731
    dark = lambda: sum(map(float, ground().removeprefix("rgb(").removesuffix(")").split(","))) < 300  # noqa: E731
    assert dark() == (theme == "dark")
    tab.locator("label[for^=__palette]:visible").click()
    assert dark() == (theme != "dark")


def test_a_phone_has_the_navigation(visit):
    tab = visit("index.md", PHONE)
    tab.locator("label.md-header__button[for=__drawer]").click()
    tab.get_by_role("navigation").get_by_text("Serve it", exact=True).first.click()
    tab.wait_for_url("**/export/")
