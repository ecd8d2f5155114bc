"""The page of ``--report``: what is in it, and that it works in a browser."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from browser import Page, browse, find_browser
from picture_data import FILES, MADE_WITH, evaluated, fitted, rare, sliced

from calibcli.report.html import LIBRARY, asset, render_report
from calibcli.report.html_data import MOST_CLASS_DIAGRAMS, to_script
from calibcli.report.tables import SHOWN_ON_PAGE
from calibcli.workflow.texts import significant

LARGEST = 5_000_000
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def page_of(pair: tuple[dict[str, Any], Any]) -> str:
    return render_report(*pair, files_read=FILES, made_with=MADE_WITH)


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])


def words_of(html: str) -> str:
    """What a reader sees without a script."""
    body = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


# ---- what is in the page ----


def test_the_page_says_everything_without_a_script():
    document, pictures = fitted(names=NAMES)
    words = words_of(page_of((document, pictures)))
    for part in ("before", "after"):
        for metric in document[part]["metrics"].values():
            assert significant(metric["value"]) in words
    assert "before overconfident Says 75 %, right 64 %. It promises" in words
    assert "after no clear error" in words  # so few rows do not show that it is good
    assert "by 5-fold cross-fitting" in words
    assert FILES[0]["sha256"] in words
    assert "calib 1.0 · seed 0" in words


def test_the_page_is_the_same_in_every_run():
    pages = {page_of(fitted(names=NAMES)) for _ in range(2)}
    assert len(pages) == 1
    document, pictures = fitted(names=NAMES)
    slower = {**document, "fit": {**document["fit"], "seconds": 99.0}}
    assert page_of((slower, pictures)) in pages


def test_the_page_asks_for_nothing():
    html = page_of(fitted())
    assert "default-src 'none'" in html
    without_library = html.replace(asset(LIBRARY).partition("//# source")[0].rstrip(), "")
    assert "sourceMappingURL" not in html
    assert not re.findall(r"https?://|//[a-z]+\.[a-z]|@import|url\(", without_library)
    assert set(re.findall(r'(?:src|href)="([^"]*)"', without_library)) == {"data:,"}


def test_the_library_comes_with_its_licence():
    assert "Released under the MIT License" in asset(LIBRARY)[:300]
    assert "MIT License" in asset("chart.LICENSE.md")
    # What would end the element that it stands in.
    assert not re.search(r"</script|<!--", asset(LIBRARY) + asset("report.js"), re.IGNORECASE)


def test_methods_and_groups_have_tables():
    document, pictures = fitted()
    entry = {
        "method": "monotone+svs",
        "loss": "nll",
        "chosen": True,
        "parameters": 12,
        "seconds": 3.21,
        "metrics": {
            name: {"value": 0.25, "low": 0.2, "high": 0.3} for name in ("nll", "brier", "ece")
        },
        "behind": {"nll": 0.0, "standard_error": 0.001},
        "members": [{"method": "svs", "loss": "nll", "weight": 1.0}],
    }
    group = {"name": "<b>", "rows": 77, "share": 0.5, "nll": {"before": 0.5, "after": 0.25}}
    document["fit"]["notes"] = ["it is the simplest"]
    document |= {
        "leaderboard": [entry, {**entry, "method": "stack", "chosen": False}],
        "groups": {"column": "scan", "groups": [group]},
    }
    html = page_of((document, pictures))
    words = words_of(html)
    assert "monotone+svs chosen 0.2500 [0.200, 0.300] 0 0.0010 0.2500 [0.200, 0.300]" in words
    assert "chosen it is the simplest." in words
    # What the chosen one mixes stands with the fit.
    assert "monotone+svs: log-probabilities" not in words
    assert "stack: log-probabilities times 1.00 svs." in words
    assert "3.21" not in words
    assert "<b> 77 as all rows 50 % 0.5000 0.2500 \N{MINUS SIGN}0.2500" in words
    assert "&lt;b&gt;" in html


def test_the_page_says_how_sure_it_is():
    document, pictures = evaluated("val.npz")
    ends = {"low": 0.0123, "high": 0.0456}
    document["metrics"]["ece"] |= {**ends, "chance": {"mean": 0.01, "low": 0.001, "high": 0.0311}}
    known = {
        "passed": False,
        "reason": None,
        "estimate": None,
        "joined": None,
        "slice": None,
        "value": 0.04,
        "bound": 0.02,
        "significant": False,
    }
    gate = {"expression": "ece > 0.02", "input": "val.npz", **known, **ends, "difference": ends}
    slices = [
        {"name": "<i>", "rows": 12, "confidence": 0.75, "accuracy": 0.5, "adjusted_p": 0.25}
        | {name: {"value": 0.5, **ends} for name in ("nll", "brier", "ece")}
    ]
    document |= {"gates": [gate], "slices": [{"column": "scan", "slices": slices}]}
    words = words_of(page_of((document, pictures)))
    assert "[0.0123, 0.0456] 0.0010 to 0.0311" in words
    assert "failed fails if ece > 0.02 : it is 0.04000 [0.0123, 0.0456]" in words
    assert "By scan The only value of scan" in words
    sure = "0.5000 [0.0123, 0.0456]"
    assert f"<i> {sure} 0.25 12 75 % 50 % {sure} {sure}" in words


def test_changes_have_their_intervals():
    document, pictures = fitted()
    before, after = (document[part]["metrics"]["ece"] for part in ("before", "after"))
    before |= {"low": 0.11, "high": 0.22}
    after |= {"low": 0.01, "high": 0.02, "change": {"low": -0.123, "high": 0.0456}}
    after["chance"] = {"mean": 0.02, "low": 0.0345, "high": 0.0567}
    words = words_of(page_of((document, pictures)))
    assert "[0.110, 0.220]" in words
    assert "[0.0100, 0.0200]" in words
    assert "unclear [\N{MINUS SIGN}0.123, 0.046] 0.0345 to 0.0567" in words
    assert "By chance: where the plug-in of a perfectly calibrated model" in words


def test_gates_are_told_first():
    document, pictures = fitted()
    gate = {
        "expression": "ece > 0.02",
        "input": "val.npz",
        "value": 0.03,
        "bound": 0.02,
        "low": None,
        "high": None,
        "difference": {"value": 0.01, "low": None, "high": None},
        "significant": False,
        "reason": None,
        "estimate": None,
        "joined": None,
        "slice": None,
    }
    document["gates"] = [gate | {"passed": False}]
    words = words_of(page_of((document, pictures)))
    assert "1 of 1 gate failed. failed fails if ece > 0.02 : it is 0.03000" in words
    assert words.index("fails if") < words.index("It promises")
    document["gates"] = [gate | {"passed": True}] * 2
    assert "All 2 gates passed." in words_of(page_of((document, pictures)))


def test_slices_are_in_the_page():
    document, pictures = sliced()
    html = page_of((document, pictures))
    words = words_of(html)
    assert "By <site>" in words
    assert "All 3 values of <site>, the worst first." in words
    data = data_of(html)
    assert data["column"] == "<site>"
    entries = document["slices"][0]["slices"]
    assert data["slices"] == [entry["name"] for entry in entries]
    for entry, drawn in zip(entries, data["measurements"][0]["slices"], strict=True):
        assert sum(b[1] for b in drawn["bins"]) == entry["rows"]
        assert significant(entry["ece"]["estimate"]) in words
    assert len(re.findall(r'<tr[^>]*><th scope="row" title="(?:a|b|&lt;c&gt;)"', html)) == 3


def test_of_very_many_slices_the_worst_are_in_the_page():
    document, pictures = sliced(rows=4000, slices=SHOWN_ON_PAGE + 100)
    html = page_of((document, pictures))
    assert f"The {SHOWN_ON_PAGE} worst of {SHOWN_ON_PAGE + 100} values" in words_of(html)
    assert len(data_of(html)["slices"]) == SHOWN_ON_PAGE
    assert len(html.encode()) < LARGEST / 2


def test_names_of_files_and_classes_are_text():
    evil = '</script><img src=x onerror="alert(1)">&$data'
    document, pictures = fitted(names=(evil, *NAMES[1:]))
    document["input"]["name"] = evil
    html = page_of((document, pictures))
    assert "<img" not in html
    assert data_of(html)["names"][0] == evil
    assert json.loads(to_script("\u2028<!--")) == "\u2028<!--"
    assert "<" not in to_script("<")


def test_diagrams_hold_the_figures_of_the_document():
    document, pictures = fitted(rows=2000)
    before = data_of(page_of((document, pictures)))["measurements"][0]
    filled = [b for b in document["before"]["reliability"] if b["weight"]]
    assert [entry[1] for entry in before["bins"]] == [b["rows"] for b in filled]
    for entry, expected in zip(before["bins"], filled, strict=True):
        assert entry[3:5] == pytest.approx([expected["confidence"], expected["accuracy"]], abs=1e-4)
    labelled, _, predicted, *_ = zip(*(c["figures"] for c in before["classes"]), strict=True)
    assert sum(labelled) == sum(predicted) == 2000
    assert sum(c["figures"][7] for c in before["classes"]) == pytest.approx(1, abs=0.002)


def test_diagrams_of_a_rare_class_hold_the_figures_of_the_document():
    document, pictures = rare()
    html = page_of((document, pictures))
    data, filled = data_of(html), [b for b in document["reliability"] if b["weight"]]
    (drawn,) = data["measurements"]
    assert [entry[1] for entry in drawn["bins"]] == [b["rows"] for b in filled]
    for entry, expected in zip(drawn["bins"], filled, strict=True):
        assert entry[3:5] == pytest.approx([expected["confidence"], expected["accuracy"]], abs=1e-6)
    assert sum(bar[2] for bar in drawn["bars"]) == 3000
    assert data["axes"]["says"] == "P(fraud)"
    assert data["scale"] == [0.001, 1.0]
    words = words_of(html)
    assert "P(fraud) against how often it came true." in words
    assert "Bins of equal mass" in words
    assert "15 bins" not in words


def test_many_classes_stay_small():
    html = page_of(fitted(rows=8_000, classes=1000))
    assert len(data_of(html)["names"]) == 1000
    assert len(html.encode()) < LARGEST / 2


def test_of_very_many_classes_the_worst_are_in_the_page():
    html = page_of(fitted(rows=2000, classes=MOST_CLASS_DIAGRAMS))
    data = data_of(html)
    assert (data["classes"], len(data["names"])) == (MOST_CLASS_DIAGRAMS, MOST_CLASS_DIAGRAMS // 2)
    assert data["numbers"] == sorted(data["numbers"])
    assert len(html.encode()) < LARGEST


def test_the_command_names_what_it_read(calib_here: Any, sample_data: Path, tmp_path: Path):
    val, test = sample_data / "digits_val.parquet", sample_data / "digits_test.parquet"
    code, _, talk = calib_here("fit", val, "--test", test, "-q", "--report", "fit.html")
    assert code == 0, talk
    code, _, talk = calib_here(
        "evaluate", test, val, "-p", "digits_val.params.json", "-q", "--report", "both.html"
    )
    assert code == 0, talk
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (val, test, tmp_path / "digits_val.params.json")
    }
    fit, both = (
        (tmp_path / name).read_text(encoding="utf-8") for name in ("fit.html", "both.html")
    )
    assert digests["digits_val.parquet"] in fit
    assert digests["digits_test.parquet"] in fit
    assert all(digest in both for digest in digests.values())
    assert data_of(both)["names"] == list(NAMES)


# ---- in a browser ----


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    browser = find_browser()
    if browser is None:
        absent = "there is no Chromium on the path; CALIB_BROWSER names one"
        (pytest.fail if os.environ.get("NEEDS_BROWSER") else pytest.skip)(absent)
    with browse(browser, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {
        "ten": fitted(names=NAMES),
        "thousand": fitted(rows=8_000, classes=1000),
        "three": evaluated("a/val.npz", "a/test.npz", "b/other.npz"),
        "one": evaluated("val.npz", rows=40, classes=2),
        "slices": sliced(slices=12),
        "rare": rare(),
    }
    for name, pair in made.items():
        (folder / f"{name}.html").write_text(page_of(pair), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


DRAWN = """Array.from(document.querySelectorAll("canvas"), canvas => {
  const { width, height } = canvas;
  const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const seen = new Set();
  for (let i = 0; i < pixels.length; i += 4) {
    if (pixels[i + 3] === 255) seen.add(pixels[i] << 16 | pixels[i + 1] << 8 | pixels[i + 2]);
  }
  return seen.size;
})"""


@pytest.mark.parametrize("name", ["ten", "thousand", "three", "one", "slices", "rare"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_renders(page: Page, files: dict[str, Path], name: str, dark: bool, width: int):
    page.console.clear()
    page.requests.clear()
    page.open(files[name], width=width, dark=dark)
    assert page.console == []
    assert {url.partition(":")[0] for url in page.requests} <= {"file", "data"}
    assert sum(url.startswith("file:") for url in page.requests) == 1
    assert page.value("document.documentElement.scrollWidth") <= width
    colours = page.value(DRAWN)
    assert len(colours) == {"ten": 4, "thousand": 4, "three": 6}.get(name, 2)
    assert min(colours) > 1
    background = page.value("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", background))) < 60) == dark
    boxes = page.value(
        "Array.from(document.querySelectorAll('.square canvas'), c => {"
        " const b = c.getBoundingClientRect(); return [b.width, b.height]; })"
    )
    assert all(0.8 < height / across < 1.1 for across, height in boxes)


def test_a_rare_class_has_logarithmic_axes(page: Page, files: dict[str, Path]):
    page.console.clear()
    page.open(files["rare"])
    chart = "Chart.getChart(document.querySelector('#cards canvas'))"
    titles = page.value(f"['x', 'y'].map(name => {chart}.scales[name].options.title.text)")
    assert titles == ["says P(fraud)", "came true (observed share)"]
    assert page.value(f"['x', 'y'].map(name => {chart}.scales[name].type)") == ["logarithmic"] * 2
    ticks = page.value(f"{chart}.scales.x.ticks.map(tick => tick.label)")
    assert ticks == ["0.1 %", "1 %", "10 %", "100 %"]
    heads = "Array.from(document.querySelectorAll('#cards thead th'), head => head.textContent)"
    assert page.value(heads)[:3] == ["P(fraud)", "says", "came true"]
    data = data_of(files["rare"].read_text(encoding="utf-8"))
    points = page.value(f"{chart}.data.datasets[1].data.map(p => [p.says, p.right])")
    assert points == [entry[3:5] for entry in data["measurements"][0]["bins"]]
    # A slice has the same axes, and a predicted class those of its confidence.
    page.value("picker.value = '2', picker.dispatchEvent(new Event('change')), null")
    assert page.value(f"{chart}.scales.x.type") == "logarithmic"
    page.value("picker.value = '0', picker.dispatchEvent(new Event('change')), null")
    assert page.value(f"{chart}.scales.x.type") == "linear"
    assert page.value(f"{chart}.scales.x.options.title.text") == "says (confidence)"
    assert page.console == []


def row_names(page: Page) -> list[str]:
    cells = "document.querySelectorAll('#classes tbody td:first-child')"
    return page.value(f"Array.from({cells}, cell => cell.textContent)")


def test_the_class_picker_draws_a_class(page: Page, files: dict[str, Path]):
    page.open(files["ten"])
    label = "document.querySelector('#cards canvas').getAttribute('aria-label')"
    points = "Chart.getChart(document.querySelector('#cards canvas')).data.datasets[1].data.length"
    everything, count = page.value(label), page.value(points)
    assert "600 rows" in everything
    page.value("picker.value = '3', picker.dispatchEvent(new Event('change')), null")
    page.settle()
    rows = data_of(files["ten"].read_text(encoding="utf-8"))["measurements"][0]["classes"][3]
    assert f"{sum(b[1] for b in rows['bins'])} rows" in page.value(label)
    assert page.value(points) == len(rows["bins"]) != count
    assert page.value("document.querySelector('#classes tr.picked td').textContent") == "three"
    # The same row once more shows all rows again.
    page.value("document.querySelector('#classes tr.picked').click()")
    assert page.value("picker.value") == "-1"
    assert page.value(label) == everything


@pytest.mark.parametrize(("name", "classes"), [("ten", 10), ("thousand", 1000)])
def test_the_table_of_classes_sorts(page: Page, files: dict[str, Path], name: str, classes: int):
    page.open(files[name])
    data = data_of(files[name].read_text(encoding="utf-8"))
    assert len(row_names(page)) == classes
    shares = [entry["figures"][7] for entry in data["measurements"][-1]["classes"]]
    expected = sorted(range(classes), key=lambda k: (-shares[k], k))
    assert row_names(page) == [data["names"][k] for k in expected]
    page.value("document.querySelectorAll('#classes th button')[0].click()")
    assert row_names(page) == data["names"]
    page.value("document.querySelectorAll('#classes th button')[0].click()")
    assert row_names(page) == data["names"][::-1]
    sort = "document.querySelector('#classes th').getAttribute('aria-sort')"
    assert page.value(sort) == "descending"
    page.value("measurements.querySelector('input').click()")
    assert len(row_names(page)) == classes
    page.value(
        f"filter.value = '{data['names'][7]}', filter.dispatchEvent(new Event('input')), null"
    )
    assert data["names"][7] in row_names(page)
    assert len(row_names(page)) < classes


def test_the_table_of_slices_sorts_and_draws(page: Page, files: dict[str, Path]):
    page.console.clear()
    page.open(files["slices"])
    entries = sliced(slices=12)[0]["slices"][0]["slices"]
    table = "document.querySelector('table[data-of=slice]')"
    names = f"Array.from({table}.tBodies[0].rows, row => row.cells[0].textContent)"
    assert page.value(names) == [entry["name"] for entry in entries]
    for column, key in ((2, "adjusted_p"), (3, "rows")):
        page.value(f"{table}.querySelectorAll('th button')[{column}].click()")
        found = {entry["name"]: entry[key] for entry in entries}
        values = [found[name] for name in page.value(names)]
        assert values == sorted(values, reverse=True)
    page.value(f"{table}.querySelector('th button').click()")
    assert page.value(names) == [f"part {place}" for place in range(12)]
    assert page.value(f"{table}.querySelector('th').getAttribute('aria-sort')") == "ascending"
    page.value(f"{table}.tBodies[0].rows[3].click()")
    page.settle()
    rows = next(entry["rows"] for entry in entries if entry["name"] == "part 3")
    label = "document.querySelector('#cards canvas').getAttribute('aria-label')"
    assert f"{rows} rows" in page.value(label)
    assert page.value("picker.selectedOptions[0].textContent") == "<site>: part 3"
    page.value(f"{table}.querySelector('tr.picked').click()")
    assert "600 rows" in page.value(label)
    assert page.console == []


def test_a_hover_tells_the_figures(page: Page, files: dict[str, Path]):
    page.open(files["ten"])
    x, y, across, height = page.value(
        "(b => [b.x, b.y, b.width, b.height])"
        "(document.querySelector('#cards canvas').getBoundingClientRect())"
    )
    page.hover(x + 0.9 * across, y + 0.5 * height)
    tip = "Chart.getChart(document.querySelector('#cards canvas')).tooltip"
    assert page.value(f"{tip}.opacity") == 1
    lines = page.value(f"{tip}.body[0].lines")
    assert lines[0].startswith("says ")
    assert lines[1].startswith("is right ")
    assert lines[3].endswith("%)")


def test_curve_and_colours_change_while_looking(page: Page, files: dict[str, Path]):
    page.console.clear()
    page.open(files["thousand"])
    page.value("document.querySelector('#styles input[value=corp]').click()")
    page.colours(dark=True)
    page.settle()
    assert min(page.value(DRAWN)) > 1
    points = page.value(
        "Chart.getChart(document.querySelector('#cards canvas')).data.datasets[1].data.length"
    )
    assert points > 15
    assert page.console == []


SHOWN = """(selector => Array.from(document.querySelectorAll(selector), node => {
  const box = node.getBoundingClientRect();
  return box.width > 0 && box.height > 0;
}))"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_paper_has_every_table_in_dark_letters(page: Page, files: dict[str, Path], dark: bool):
    page.open(files["slices"], width=720, dark=dark)
    page.paper(dark=dark)
    page.settle()
    rows = page.value(f"{SHOWN}('table.listing tbody tr')")
    assert len(rows) == 12 + 4
    assert all(rows)
    # Nothing is cut off within a box that a screen would scroll.
    boxes = "Array.from(document.querySelectorAll('.tall'), b => b.scrollHeight - b.clientHeight)"
    assert page.value(boxes) == [0, 0]
    assert not any(page.value(f"{SHOWN}('.controls')"))
    style = "getComputedStyle(document.querySelector('.key .dot'))"
    assert page.value(f"{style}.printColorAdjust") == "exact"
    assert page.value(f"{style}.backgroundColor") == "rgb(0, 114, 178)"
    inks = page.value("getComputedStyle(document.body).color")
    assert max(map(int, re.findall(r"\d+", inks))) < 60
    lines = "Chart.getChart(document.querySelector('#cards canvas')).data.datasets[1]"
    assert page.value(f"{lines}.pointBackgroundColor") == "#0072b2"


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("table[data-of=slice]", {"ECE", "adjusted p"}),
        ("#classes", {"ECE, plug-in", "says \N{MINUS SIGN} right"}),
    ],
)
def test_a_phone_shows_error_and_p_without_scrolling(
    page: Page, files: dict[str, Path], table: str, names: set[str]
):
    page.open(files["slices"], width=390, height=844)
    heads = page.value(
        f"Array.from(document.querySelectorAll('{table} thead th'), head => "
        "[head.textContent, head.getBoundingClientRect().right])"
    )
    assert names <= {name for name, right in heads if right <= 390}


def test_headings_say_which_rows_are_drawn(page: Page, files: dict[str, Path]):
    page.open(files["slices"])
    heading = "document.querySelector('#cards h3').textContent"
    assert page.value(heading) == "val.npz"
    page.value("document.querySelector('table[data-of=slice]').tBodies[0].rows[0].click()")
    first = sliced(slices=12)[0]["slices"][0]["slices"][0]["name"]
    assert page.value(heading) == f"val.npz · <site>: {first}"
    page.value("document.querySelector('#classes tbody tr').click()")
    assert page.value(heading).startswith("val.npz · predicted class ")


def test_the_legend_names_what_is_drawn(page: Page, files: dict[str, Path]):
    marks = "Array.from(document.querySelectorAll('#marks > span'), mark => mark.textContent)"
    page.open(files["one"])
    assert page.value(marks) == ["the model"]
    page.open(files["ten"])
    assert page.value(marks) == ["before", "after"]
    dots = page.value(
        "Array.from(document.querySelectorAll('.dot'), d => getComputedStyle(d).backgroundColor)"
    )
    assert dots == ["rgb(213, 94, 0)", "rgb(0, 114, 178)"]


def test_one_diagram_has_its_numbers_beside_it(page: Page, files: dict[str, Path]):
    page.open(files["slices"])
    picture, numbers = (
        page.value(
            f"(b => [b.left, b.right, b.top, b.bottom])"
            f"(document.querySelector('{place}').getBoundingClientRect())"
        )
        for place in ("#cards .square", "#cards table")
    )
    assert picture[1] <= numbers[0]
    assert picture[2] < numbers[3] <= picture[3] + 400
    page.open(files["slices"], width=390)
    assert page.value("document.querySelector('#cards details').open") is False
