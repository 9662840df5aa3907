"""Both pages of a plan in a real browser: what a person does, sees, prints and cannot use.

Skipped, saying why, where there is no playwright or no Chromium (`apt-get install chromium`, or
`playwright install chromium`).
"""

import base64
import contextlib
import io
import os
import re
import shutil
import socket
import threading

import pytest
from acquire.test_planning import KNOWLEDGE, half_screen, make_plan

from pertwise.acquire import Plan, amend
from pertwise.report import write_plan

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
WIDTHS = (390, 768, 1280)
TOKEN = "t0ken"
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture(scope="module")
def chromium():
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    with playwright.sync_playwright() as driver:
        try:
            # As root, which continuous integration often is, Chromium has no sandbox.
            arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and not os.geteuid() else []
            browser = driver.chromium.launch(executable_path=found, args=arguments)
        except playwright.Error as error:
            pytest.skip(f"no Chromium can be started: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def complaints():
    """What the console of the browser complained of; a test takes out what it caused."""
    found = []
    yield found
    assert found == []


@pytest.fixture
def page(chromium, complaints):
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    made = context.new_page()
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("dialog", lambda d: complaints.append(f"dialog: {d.message}"))
    made.on(
        "console",
        lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None,
    )
    yield made
    context.close()


@pytest.fixture(scope="module")
def plans():
    """A plan with hostile words, and one that fills a screen."""
    made = make_plan(batch=8)
    changed = amend(made, drop=[made.genes[-1]], by="Eve", why=EVIL)
    changed.picks[0].full_name = changed.picks[0].reason = EVIL
    for pick in changed.picks:
        pick.module = "erythropoietin signalling and cell-cycle exit"
        pick.relation = "interacting_partner"
    changed.picks[1].reason = "An unbroken word: " + "x" * 300
    return changed, make_plan(half_screen(n=60, hidden=28), batch=20)


@pytest.fixture
def folder(tmp_path, plans):
    write_plan(plans[0], tmp_path / "round1")
    return tmp_path / "round1"


@pytest.fixture
def serving(complaints):
    """Serves a folder; called before the page is made, so that the page is closed first."""
    uvicorn = pytest.importorskip("uvicorn", reason="the review page needs pertwise[review]")
    pytest.importorskip("starlette", reason="the review page needs pertwise[review]")
    from pertwise.report.review.app import make_app
    from pertwise.report.review.session import Review

    with contextlib.ExitStack() as stack:

        def serve(folder):
            review = Review(folder, KNOWLEDGE, "Ada")
            review.open_question()
            place = stack.enter_context(socket.socket())
            place.bind(("127.0.0.1", 0))
            place.listen()
            app = make_app(review, TOKEN)
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            return f"http://127.0.0.1:{place.getsockname()[1]}/{TOKEN}/"

        yield serve


@pytest.fixture
def address(serving, folder):
    return serving(folder)


def open_review(page, address):
    page.goto(address)
    page.locator("#rows tr").first.wait_for()


def sideways(page):
    return page.evaluate(
        "() => [document.documentElement, ...document.querySelectorAll('.scroll, #panel, aside')]"
        ".filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map(e => e.tagName)"
    )


def serious(page):
    """What axe finds that keeps people from using the page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    found = axe.Axe().run(page).response["violations"]
    return [
        (v["id"], [n["html"][:120] for n in v["nodes"][:3]])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]


def save(page, why="no guides in the freezer"):
    page.get_by_label("Why (needed)").fill(why)
    page.get_by_role("button", name="Save").click()
    page.locator("#change").wait_for(state="hidden")


def brightness(page):
    """Mean of all pixels of the window, from 0 to 255."""
    from PIL import Image, ImageStat

    picture = Image.open(io.BytesIO(page.screenshot())).convert("L")
    return ImageStat.Stat(picture).mean[0]


@pytest.mark.parametrize(("theme", "wished", "dark"), [
    ("dark", "light", True), ("auto", "dark", True), ("auto", "light", False),
    ("light", "dark", False),
])  # fmt: skip
def test_the_theme_of_both_pages(serving, page, plans, tmp_path, monkeypatch, theme, wished, dark):
    (tmp_path / "pertwise.toml").write_text(f'theme = "{theme}"\n')
    monkeypatch.setenv("PERTWISE_CONFIG", str(tmp_path / "pertwise.toml"))
    write_plan(plans[1], tmp_path / "p")
    page.emulate_media(color_scheme=wished)
    page.goto((tmp_path / "p" / "plan.html").as_uri())
    assert (brightness(page) < 90) is dark
    open_review(page, serving(tmp_path / "p"))
    assert (brightness(page) < 90) is dark
    page.get_by_role("button", name="Add").click()
    page.locator("dialog").first.wait_for()
    box = page.locator("dialog[open]").bounding_box()
    from PIL import Image, ImageStat

    shown = Image.open(io.BytesIO(page.screenshot(clip=box))).convert("L")
    assert (ImageStat.Stat(shown).mean[0] < 110) is dark


# -- the review page -----------------------------------------------------------------------------


def test_swap_reload_undo(address, page, folder):
    open_review(page, address)
    out = Plan.load(folder).genes[2]
    page.get_by_role("button", name=f"Swap {out}").click()
    page.locator("#found input").nth(1).click()
    page.locator("#effect p", has_text="Expected information").wait_for()
    new = page.locator("#found input:checked").get_attribute("value")
    page.get_by_role("button", name="Save").click()
    assert Plan.load(folder).genes[2] == out, "no reason, no change"
    save(page)
    after = Plan.load(folder)
    assert after.genes[2] == new
    assert (after.decisions[-1].by, after.decisions[-1].why) == ("Ada", "no guides in the freezer")
    page.reload()
    page.locator(f"button.gene[data-gene={new}]").wait_for()
    assert page.locator(f"button.gene[data-gene={out}]").count() == 0
    assert "no guides in the freezer" in page.locator("#log").inner_text()
    page.get_by_role("button", name="Undo").click()
    save(page, "the guides were found")
    assert Plan.load(folder).genes[2] == out


def test_everything_by_keyboard(address, page, folder):
    open_review(page, address)
    genes = Plan.load(folder).genes
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator("tr.detail").wait_for()
    page.keyboard.press("p")
    page.keyboard.type("this one is the control")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#change").wait_for(state="hidden")
    assert Plan.load(folder).picks[1].pinned
    page.keyboard.press("d")
    page.keyboard.press("Escape")
    page.locator("#change").wait_for(state="hidden")
    page.keyboard.press("a")
    page.locator("#found input").first.wait_for()
    page.keyboard.press("Enter")
    page.get_by_label("Why (needed)").focus()
    page.keyboard.type("we have the line")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#change").wait_for(state="hidden")
    after = Plan.load(folder)
    assert len(after.genes) == len(genes) + 1
    assert after.decisions[-1].why == "we have the line"


def test_search_filter_and_sort(address, page, folder):
    open_review(page, address)
    genes = Plan.load(folder).genes
    shown = page.locator("button.gene")
    page.get_by_role("button", name="Gene", exact=True).click()
    assert shown.all_inner_texts() == sorted(genes)
    page.keyboard.press("/")
    page.keyboard.type(genes[3].lower())
    assert shown.all_inner_texts() == [genes[3]]
    page.keyboard.press("Escape")
    assert shown.count() == len(genes)


def test_a_stale_change_is_told_and_keeps_what_was_written(address, page, folder, complaints):
    open_review(page, address)
    genes = Plan.load(folder).genes
    page.get_by_role("button", name=f"Drop {genes[1]}").click()
    page.get_by_label("Why (needed)").fill("a long thought")
    # As if the look for news came only after the change.
    page.route("**/api/state*", lambda route: route.fulfill(json={"version": ""}))
    write_plan(amend(Plan.load(folder), drop=[genes[0]], by="Bob", why="mine"), folder)
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Bob dropped (mine)").wait_for()
    assert page.get_by_label("Why (needed)").input_value() == "a long thought"
    assert Plan.load(folder).genes == genes[1:]
    page.get_by_role("button", name="Save").click()
    page.locator("#change").wait_for(state="hidden")
    assert Plan.load(folder).genes == genes[2:]
    assert len(complaints) == 1
    assert "409" in complaints.pop(), "which the browser itself reports"


def test_what_another_person_saved_appears(address, page, folder):
    open_review(page, address)
    gone = Plan.load(folder).genes[0]
    write_plan(amend(Plan.load(folder), drop=[gone], by="Bob", why="mine"), folder)
    page.locator("#log").get_by_text("Bob").wait_for(timeout=15_000)
    assert page.locator(f"button.gene[data-gene={gone}]").count() == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_review_at_every_width(address, page, width):
    page.set_viewport_size({"width": width, "height": 800})
    open_review(page, address)
    page.locator("button.gene").nth(1).click()
    assert sideways(page) == []
    assert serious(page) == []
    page.locator("tr.detail").get_by_role("button", name=re.compile("^Swap")).click()
    page.locator("#found input").first.click()
    page.locator("#effect p").first.wait_for()
    assert sideways(page) == []
    box = page.locator("#change").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert serious(page) == []


def test_a_panel_of_twenty_is_one_screen(serving, plans, tmp_path, request):
    write_plan(plans[1], tmp_path)
    address = serving(tmp_path)
    page = request.getfixturevalue("page")
    open_review(page, address)
    rows = page.locator("#rows tr")
    assert rows.count() == 20
    last = rows.last.bounding_box()
    assert last["y"] + last["height"] <= 800
    assert page.evaluate("() => document.documentElement.scrollHeight") <= 800


# -- the page that is sent around ----------------------------------------------------------------


def open_page(page, folder):
    page.goto((folder / "plan.html").as_uri())


@pytest.mark.parametrize("width", WIDTHS)
def test_plan_page_at_every_width(page, folder, width):
    page.set_viewport_size({"width": width, "height": 800})
    open_page(page, folder)
    for summary in page.locator("summary").all():
        summary.click()
    assert sideways(page) == []
    assert serious(page) == []
    small = page.evaluate(
        "() => Math.min(...[...document.querySelectorAll('figure svg')].filter(s =>"
        " s.getClientRects().length).map(s => 11.5 * s.getBoundingClientRect().width"
        " / s.viewBox.baseVal.width))"
    )
    assert small >= (8 if width == 768 else 10), "letters of the figures can be read"


@pytest.mark.parametrize("width", WIDTHS)
def test_labels_on_figures_do_not_overlap(page, folder, width):
    page.set_viewport_size({"width": width, "height": 800})
    open_page(page, folder)
    over = page.evaluate(
        """() => [...document.querySelectorAll('figure svg')].flatMap(svg => {
          const at = [...svg.querySelectorAll('text.label')].map(t => t.getBBox());
          return at.flatMap((a, i) => at.slice(0, i).filter(b =>
            a.x < b.x + b.width - 1 && b.x < a.x + a.width - 1 &&
            a.y < b.y + b.height - 4 && b.y < a.y + a.height - 4).map(() => 1));
        })"""
    )
    assert over == []


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_printed_page_has_every_column_and_reason(page, folder, paper):
    pypdf = pytest.importorskip("pypdf", reason="reads the printed page")
    open_page(page, folder)
    reader = pypdf.PdfReader(io.BytesIO(page.pdf(format=paper)))
    text = re.sub(r"\s+", " ", " ".join(p.extract_text() for p in reader.pages))
    tight = text.replace(" ", "")
    made = Plan.load(folder)
    for words in ("Rank", "Gene", "Relation", "Module", "Uncertainty", "Why"):
        assert words in text, words
    for pick in made.picks:
        assert re.sub(r"\s+", "", pick.reason.split(". Score ")[0]) in tight
        for evidence in pick.evidence:
            assert re.sub(r"\s+", "", evidence) in tight
    assert "squaredunitsofthescreen" in tight, "words are explained on paper, too"
    # Nothing lies beyond the paper.
    width = float(reader.pages[0].mediabox.width)
    rights = []
    for sheet in reader.pages:
        sheet.extract_text(
            visitor_text=lambda t, cm, tm, *_: (
                rights.append(cm[4] + tm[4] * cm[0]) if t.strip() else None
            )
        )
    assert max(rights) < width


def test_legends_are_seen_without_background_graphics(page, folder):
    open_page(page, folder)
    page.emulate_media(media="print")
    seen = page.evaluate(
        "() => [...document.querySelectorAll('.swatch')].map(s => getComputedStyle(s))"
        ".map(s => [s.borderTopWidth, s.borderTopColor, s.backgroundColor])"
    )
    assert seen
    for width, colour, background in seen:
        assert float(width.removesuffix("px")) >= 5
        assert colour not in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
        assert background == "rgba(0, 0, 0, 0)"


def test_files_are_handed_out_by_the_page_itself(page, folder):
    open_page(page, folder)
    names = page.locator(".downloads a").all_inner_texts()
    assert names[0] == "plan.csv"
    assert names[-3:] == ["coverage.svg", "uncertainty.svg", "map.svg"]
    with page.expect_download() as waiting:
        page.get_by_text("map.svg").click()
    svg = waiting.value.path().read_text()
    assert svg.startswith("<svg")
    assert "http://www.w3.org/2000/svg" in svg
    href = page.get_by_text("plan.csv").get_attribute("href")
    assert base64.b64decode(href.partition(",")[2]) == (folder / "plan.csv").read_bytes()


def test_headings_sort_by_keyboard(page, folder):
    open_page(page, folder)
    heading = page.locator("table.panel th", has_text="Gene").get_by_role("button")
    heading.focus()
    page.keyboard.press("Enter")
    genes = [g.strip() for g in page.locator("table.panel tbody .gene").all_inner_texts()]
    assert genes == sorted(genes)
