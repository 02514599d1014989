"""The page in headless Chromium: what a person sees and does. `make page-test` installs what it needs."""

import json
from pathlib import Path

import pytest
from chromium import chromium
from run_directories import write_run

from weightlora.report import read_runs, render_page

pytestmark = pytest.mark.slow

# The contrast by WCAG 2 of each text with what is behind it.
CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map((c) => linear(c / 255))
    .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || element.closest("script, style, [hidden], .hidden")) continue;
    const style = getComputedStyle(element);
    const [ink, ground] = [parse(element.closest("svg") ? style.fill : style.color), behind(element)].map(light);
    const ratio = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    found.push([ratio, walker.currentNode.textContent.trim(), style.color]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Path]:
    """Pages by name, as files."""
    root = tmp_path_factory.mktemp("pages")
    first = write_run(root / "first", layers=6, steps=20, keep=10)
    second = write_run(root / "second", layers=6, steps=20, keep=10, seed=1)
    probed = write_run(root / "probed")
    choice = probed / "selection.json"
    values = json.loads(choice.read_text(encoding="utf-8"))
    values["config"]["selection"] = "gradient"
    choice.write_text(json.dumps(values), encoding="utf-8")
    found = {}
    for name, runs in (("first", [first]), ("two", [first, second]), ("probed", [probed])):
        found[name] = root / f"{name}.html"
        found[name].write_text(render_page(read_runs(runs)), encoding="utf-8")
    return found


@pytest.fixture
def visit(browser, places):
    """Opens a page and fails at its end if there was a message of the console, a dialog or a request."""
    problems: list[str] = []
    contexts = []

    def open_page(name: str, theme: str = "light", width: int = 1280, height: int = 900):
        context = browser.new_context(color_scheme=theme, viewport={"width": width, "height": height})
        contexts.append(context)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: problems.append(request.url) if request.url != url else None)
        url = places[name].as_uri() if name in places else Path(name).as_uri()
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [problem for problem in problems if not problem.startswith("data:")] == []


def test_sorting(visit):
    page = visit("first")
    scores = lambda: [float(cell) for cell in page.locator("table.modules td:nth-child(3)").all_text_contents()]  # noqa: E731
    head = page.get_by_role("columnheader", name="update credit")
    head.get_by_role("button").click()
    assert scores() == sorted(scores(), reverse=True) and head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").press("Enter")
    assert scores() == sorted(scores()) and head.get_attribute("aria-sort") == "ascending"
    page.get_by_role("columnheader", name="rank").get_by_role("button").click()
    ranks = page.locator("table.modules td:nth-child(5)").all_text_contents()
    assert ranks == ["8"] * 10 + [""] * 32 and head.get_attribute("aria-sort") is None
    page.get_by_role("columnheader", name="module").get_by_role("button").click()
    names = page.locator("table.modules tbody th").all_text_contents()
    assert names == sorted(names)


def test_copying(visit):
    page = visit("first")
    panel = page.locator(".panel:not([hidden])")
    assert panel.count() == 1
    panel.get_by_role("button").click()
    panel.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == panel.locator("code").text_content()


def test_tabs_and_grid_by_keyboard(visit):
    page = visit("first")
    tabs = page.get_by_role("tab")
    tabs.first.focus()
    page.keyboard.press("ArrowRight")
    chosen = page.locator("[role=tab][aria-selected=true]")
    assert chosen.text_content() == tabs.nth(1 % tabs.count()).text_content()
    assert page.locator(".panel:not([hidden])").count() == 1
    page.locator("table.map td[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    label = page.locator("table.map td:focus").get_attribute("aria-label")
    assert label.startswith("model.layers.1.self_attn.k_proj.")
    assert page.locator(".detail").text_content() == label
    assert page.locator("svg .lit").count() == 1 and page.locator("tr.lit").count() == 1


@pytest.mark.parametrize("name", ["first", "two"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(visit, name: str, theme: str):
    page = visit(name, theme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    found = page.evaluate(CONTRAST)
    assert len(found) > 200
    assert [entry for entry in found if entry[0] < 4.5] == []


def test_the_button_changes_the_theme(visit):
    page = visit("first", "dark")
    ground = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")  # noqa: E731
    dark = ground()
    page.get_by_role("button", name="Light").click()
    assert ground() == "rgb(255, 255, 255)" != dark
    page.get_by_role("button", name="Dark").click()
    assert ground() == dark


@pytest.mark.parametrize("name", ["first", "two"])
def test_a_phone_needs_no_sideways_scrolling(visit, name: str):
    page = visit(name, "light", 390, 844)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_the_table_fits_a_desktop(visit):
    """The last column says why a module was kept or dropped."""
    page = visit("probed", "light", 1280, 900)  # the score has the longest heading
    hidden = "box => box.scrollWidth - box.clientWidth"
    assert page.locator(".tall:has(table.modules)").evaluate(hidden) == 0


def test_a_link_opens_its_run(visit):
    page = visit("two")
    assert page.locator("details[open]").count() == 0
    page.get_by_role("link", name="second").click()
    page.locator("details#run1[open]").wait_for()


def test_a_large_run_is_a_small_page(visit, tmp_path: Path):
    """504 modules: a row and few elements for each, and it is drawn. Of the steps, as many are as at 10,000."""
    directory = write_run(tmp_path / "large", layers=72, steps=120, keep=125)
    (tmp_path / "large.html").write_text(render_page(read_runs([directory])), encoding="utf-8")
    page = visit(str(tmp_path / "large.html"))
    assert page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))") is not None
    assert page.locator("*").count() < 30 * 504
    assert page.locator("table.modules tbody tr").count() == 504
