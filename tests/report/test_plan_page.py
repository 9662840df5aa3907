"""The page: complete, self-contained, safe against untrusted text."""

import base64
import html.parser
import io
import re

import pandas as pd
import pytest
from acquire.test_planning import half_screen, make_plan

from pertwise.acquire import Plan
from pertwise.report import render_plan, write_plan
from pertwise.report.plan_words import glossary
from pertwise.report.svg import Chart, stacked_bars, ticks


class Reader(html.parser.HTMLParser):
    """Collects tags and text; complains about tags that are not closed."""

    VOID = frozenset({"meta", "br", "hr", "input", "link", "img", "line", "circle", "rect", "path"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v) for k, v in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v) for k, v in attrs]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def made():
    return make_plan()


def test_page_is_well_formed_and_shows_the_panel(made):
    page = Reader(render_plan(made))
    text = " ".join(page.text)
    for pick in made.picks:
        assert pick.gene in text
        for part in pick.reason.split(". Score "):
            assert part in text
    for words in (
        "module 0",
        "Next in line",
        "Who decided what",
        "fake0123",
        "Simulated data",
        "pertwise plan amend",
    ):
        assert words in text, words
    # Three figures, each drawn for a desk and for a telephone.
    assert page.tags.count("svg") == 6


def test_page_asks_nothing_of_any_server(made):
    text = render_plan(made)
    outside = re.findall(r"https?://[^\s\"'<>)]+", text)
    assert set(outside) <= {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text
    page = Reader(text)
    addresses = [a[2] for a in page.attributes if a[1] in ("src", "href")]
    assert all(a.startswith("data:") for a in addresses)


def test_untrusted_text_is_escaped_everywhere(made):
    evil = "</title><script>alert(1)</script>\"'&<b>"
    bad = Plan.model_validate(made.model_dump())
    first = bad.picks[0]
    first.reason = first.full_name = first.summary = first.module = evil
    first.evidence = [evil]
    bad.title = bad.context = evil
    bad.coverage[0].module = evil
    bad.near_misses[0].why = evil
    bad.near_misses[0].gene = evil
    bad.warnings.append(evil)
    j = bad.candidates["gene"].index(first.gene)
    bad.candidates["gene"][j] = first.gene = evil
    bad.measured["gene"][0] = evil
    bad.decisions[0].why = evil
    bad.settings["pathway"] = evil
    text = render_plan(bad)
    assert "<script>alert" not in text
    assert evil not in text
    page = Reader(text)
    assert page.tags.count("script") == 1


def test_no_banner_for_measured_data():
    from fake_knowledge import FakeEnsemble, FakeKnowledge

    from pertwise.acquire import plan

    real = plan(
        half_screen(simulated=False),
        FakeKnowledge(simulated=False),
        batch=3,
        predictor=FakeEnsemble(),
    )
    text = render_plan(real)
    assert "Simulated data" not in text
    assert "Module" not in " ".join(Reader(text).text), "no pathway, no module columns"


def test_cold_start_page_has_no_uncertainty():
    from fake_knowledge import FakeKnowledge

    from pertwise.acquire import plan

    text = render_plan(plan(None, FakeKnowledge(), pathway="hallmark_heme_metabolism", batch=3))
    assert "uncertainty ranking" not in text
    assert "cold start" in text.casefold()


def test_write_plan_makes_three_files_and_nothing_else(tmp_path, made):
    paths = write_plan(made, tmp_path / "new")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "plan.csv",
        "plan.html",
        "plan.json",
    ]
    assert Plan.load(paths["json"]) == made


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (1, 954, [200, 400, 600, 800]), (0.5, 0.5, [0.5])],
)
def test_ticks_are_round_and_inside(low, high, expected):
    assert ticks(low, high) == expected


def test_labels_of_a_crowd_do_not_lie_on_each_other():
    width = 5 * 11.5 * 0.64

    def left_edge(x, anchor):
        return x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]

    chart = Chart((0, 1), (0, 1), "crowd")
    for i in range(8):
        chart.point(0.5, 0.5 + i / 500, "#000", f"g{i}", solid=True)
        chart.label(0.5, 0.5 + i / 500, f"GENE{i}")
    svg = str(chart.render())
    places = [
        (left_edge(float(x), anchor), float(y))
        for x, y, anchor in re.findall(
            r'<text x="([\d.]+)" y="([\d.]+)" class="label" text-anchor="(\w+)">', svg
        )
    ]
    assert len(places) == 8
    height = 12
    for i, (x, y) in enumerate(places):
        for u, v in places[:i]:
            assert abs(x - u) >= width - 1 or abs(y - v) >= height - 1


def test_labels_that_find_no_place_are_left_out_and_counted():
    chart = Chart((0, 1), (0, 1), "crowd", width=120, height=60, axes=False, left=2, right=2)
    for i in range(40):
        chart.point(0.5, 0.5, "#000", solid=True)
        chart.label(0.5, 0.5, f"LONGNAME{i}")
    svg = str(chart.render())
    assert chart.unplaced
    assert svg.count('class="label"') == 40 - len(chart.unplaced)


def download(text, name):
    found = re.search(rf'href="data:[^,"]*;base64,([^"]*)" download="{name}"', text)
    return found and base64.b64decode(found[1])


def test_the_page_hands_out_the_panel_as_the_very_csv(made, tmp_path):
    paths = write_plan(made, tmp_path)
    table = made.table.assign(data="simulated")
    inside = download(paths["html"].read_text(), "plan.csv")
    assert list(pd.read_csv(io.BytesIO(inside))["gene"]) == list(made.genes)
    assert inside == paths["csv"].read_bytes()
    assert len(table.columns) == len(pd.read_csv(io.BytesIO(inside)).columns)


def test_the_page_hands_out_a_workbook_without_formulas(made):
    openpyxl = pytest.importorskip("openpyxl")
    bad = Plan.model_validate(made.model_dump())
    bad.picks[0].reason = "=1+1"
    bad.picks[1].reason = "bell \x07 and \ud800"
    text = render_plan(bad)
    book = openpyxl.load_workbook(io.BytesIO(download(text, "plan.xlsx")))
    assert book.sheetnames == ["Panel", "Coverage", "Decisions"]
    cells = [c for row in book["Panel"].iter_rows() for c in row]
    assert not [c for c in cells if c.data_type == "f"]
    assert "'=1+1" in [c.value for c in cells]
    assert download(render_plan(bad), "plan.xlsx") == download(text, "plan.xlsx")


def test_words_are_explained_with_units_only_where_they_are_shown(made):
    terms = {term: unit for term, unit, _ in glossary(made)}
    assert terms["Uncertainty u"] == "squared units of the screen’s responses"
    assert terms["information"] == "0 to 4"
    from fake_knowledge import FakeKnowledge

    from pertwise.acquire import plan

    cold = plan(None, FakeKnowledge(), batch=3, strategy="random")
    assert [term for term, _, _ in glossary(cold)] == ["Utility"]


def test_bars_are_to_scale():
    svg = str(
        stacked_bars(
            [("a", [(3, ""), (1, "")]), ("b", [(1, ""), (0, "")])],
            [("#111", "#fff"), ("#222", "#fff")],
            "t",
        )
    )
    widths = [float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)"', svg)]
    assert len(widths) == 3
    assert widths[0] == pytest.approx(3 * widths[1], abs=0.2)
