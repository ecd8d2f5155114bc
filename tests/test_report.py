"""The parts of a report: numbers, words, bars, and the JSON contract."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from calibcli.metrics.panel import Panel
from calibcli.metrics.registry import DEFAULT
from calibcli.metrics.view import View
from calibcli.report.comparison import change, short_names
from calibcli.report.document import combine, evaluate_document, fit_document
from calibcli.report.formats import to_csv, to_json
from calibcli.report.github import to_github
from calibcli.report.glyphs import ASCII, UNICODE, glyphs_for
from calibcli.report.reliability import SIDE_BY_SIDE, reliability_diagrams
from calibcli.report.render_latex import to_latex
from calibcli.report.render_markdown import to_markdown
from calibcli.report.render_terminal import print_document
from calibcli.report.table import (
    INTERVAL_HEADING,
    NO_INTERVAL,
    Cell,
    Table,
    TableColumn,
    TableRow,
    flat,
)
from calibcli.report.tables import CHANCE_HEADING, inputs_table
from calibcli.visible import visible
from calibcli.workflow.fitting import AgainstPlain
from calibcli.workflow.texts import (
    align_at_point,
    count,
    difference_text,
    duration,
    interval_text,
    percent,
    plural,
    range_text,
    significant,
)
from calibcli.workflow.verdict import verdict

SHARES = st.one_of(
    st.floats(0, 1), st.floats(0, 0.02), st.floats(0, 0.02).map(lambda share: 1 - share)
)


def measured(scale: float = 1.0) -> Any:
    rng = np.random.default_rng(3)
    logits = rng.standard_normal((400, 4)) * scale
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    labels = (rng.random((400, 1)) > np.exp(log_probs).cumsum(axis=1)).sum(axis=1)
    panel = Panel()
    return panel.finish(panel.partial(View(log_probs, labels)))


SOURCE = {"name": "val.npz", "kind": "logits", "files": [], "picked": {}, "absent_classes": []}


def evaluated(**changes: Any) -> dict[str, Any]:
    return evaluate_document(measured(), source={**SOURCE, **changes})


def fitted(**changes: Any) -> dict[str, Any]:
    work = {"converged": True, "changed": True, "iterations": 3, "passes": 4}
    work |= {"seconds": 0.1, "device": "cpu"}
    arguments: dict[str, Any] = {
        "source": SOURCE,
        "rows": 400,
        "classes": 4,
        "method": "vector",
        "loss": "nll",
        "fit": {**work, "gradient_norm": 1e-9, "notes": []},
        "stages": [{"kind": "vector", "parameters": {"scale": np.ones(4), "bias": np.zeros(4)}}],
        "before": measured(2.0),
        "after": measured(),
        "measured_on": "cross-fit",
        "folds": 5,
        "params": "p.json",
    }
    return fit_document(**{**arguments, **changes})


# Numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9242, "0.9242"),
        (0.055, "0.05500"),
        (0.99999, "1.000"),
        (0.099999, "0.1000"),
        (12.3456, "12.35"),
        (1234.56, "1235"),
        (123456.0, "123456"),
        (0.0, "0"),
        (-0.5, "-0.5000"),
        (0.000123456, "0.0001235"),
        (0.0000123456, "1.235e-05"),
        (1.5e9, "1.500e+09"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "-"),
        (None, "-"),
    ],
)
def test_four_significant_digits(value: float | None, text: str) -> None:
    assert significant(value) == text


@given(st.floats(1e-12, 1e12))
def test_significant_is_close(value: float) -> None:
    assert float(significant(value)) == pytest.approx(value, rel=5.1e-4)
    assert len(re.sub(r"e.*|\.|^0\.0*", "", significant(value))) in range(4, 8)


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (0.4301, 0.2212, "-0.2089"),
        (0.055, 0.00804, "-0.04696"),
        # No finer than the numbers themselves are shown.
        (0.92421, 0.92413, "-0.0001"),
        (0.9242, 0.9242000001, "0"),
        (0.5, 0.5, "0"),
        (1.0, 12.5, "+11.50"),
        (math.inf, 0.3, "-"),
        (math.inf, math.inf, "-"),
        (math.nan, 0.3, "-"),
        (None, 0.3, "-"),
    ],
)
def test_difference(before: float | None, after: float | None, text: str) -> None:
    assert difference_text(before, after) == text


@given(
    st.tuples(st.floats(-2, 2), st.floats(-2, 2)).map(sorted).filter(lambda p: p[1] - p[0] > 1e-3),
    st.one_of(st.floats(-2, 2), st.sampled_from([0.0, 1.0])),
)
def test_an_interval_as_shown_holds_what_it_holds_and_nothing_that_it_leaves_out(
    ends: tuple[float, float], mark: float
) -> None:
    low, high = ends
    part = {"low": low, "high": high}
    shown = [float(end) for end in range_text(part, mark).split(" to ")]
    assert shown[0] <= low + 1e-7
    assert shown[1] >= high - 1e-7
    for value in (mark, 0.0, 1.0):
        # Nearer to an end than the decimals go nothing is told apart.
        if min(abs(value - low), abs(value - high)) > 1e-5:
            assert (shown[0] <= value <= shown[1]) == (low <= value <= high)
    assert interval_text({"low": 0.946, "high": 0.99961}) == "[0.946, 0.9997]"


def test_ends_of_tiny_intervals_have_powers_of_ten() -> None:
    assert interval_text({"low": -4.51e-6, "high": 8.144e-5}) == "[-4.51e-06, 8.15e-05]"
    assert interval_text({"low": 0.95, "high": np.inf}) == "[0.950, inf)"
    assert interval_text({"low": -np.inf, "high": 0.95}) == "(-inf, 0.950]"
    assert interval_text({"low": -np.inf, "high": np.inf}) == "(-inf, inf)"
    assert interval_text({"low": 0.95, "high": np.nan}) == ""
    assert interval_text({"low": 0.0, "high": 9.999e-5}) == "[0, 1.00e-04]"
    assert range_text({"low": 3.5711e-8, "high": 3.5719e-8}) == "3.57e-08 to 3.58e-08"


def test_points_are_below_each_other() -> None:
    aligned = align_at_point(["0.4301", "12.35", "0", "-0.04696", "-"])
    assert aligned == [" 0.4301 ", "12.35   ", " 0      ", "-0.04696", " -      "]
    assert align_at_point([]) == []


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.844, "84 %"),
        (0.99, "99 %"),
        (0.9979, "99.8 %"),
        (0.9997, "99.97 %"),
        (0.99999, ">99.99 %"),
        (0.00398, "0.40 %"),
        (0.00196, "0.20 %"),
        (0.0001, "0.01 %"),
        (0.00001, "<0.01 %"),
    ],
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text


@given(st.lists(SHARES, min_size=2, max_size=2), st.booleans())
def test_shares_are_rounded_in_order_and_to_certainty_only_where_they_are_it(
    shares: list[float], fine: bool
) -> None:
    shown = [percent(share, fine=fine) for share in sorted(shares)]
    for share, text in zip(sorted(shares), shown, strict=True):
        number = float(text.strip("<>% "))
        step = 10.0 ** -len(text.strip("<>% ").partition(".")[2])
        if text[0] == "<":
            assert 0 < 100 * share <= number
        elif text[0] == ">":
            assert number <= 100 * share < 100
        else:
            assert abs(100 * share - number) <= 0.5000001 * step
        assert (text == "100 %") == (share == 1)
        assert (text == "0 %") == (share == 0)
    numbers = [float(text.strip("<>% ")) for text in shown]
    assert numbers == sorted(numbers)


@given(st.floats(0.001, 0.2), st.floats(1.1, 3))
def test_shares_of_a_rare_event_that_are_a_tenth_apart_are_shown_apart(
    share: float, times: float
) -> None:
    assert percent(share, fine=True) != percent(times * share, fine=True)
    assert percent(1 - share, fine=True) != percent(1 - times * share, fine=True)


def test_counts_and_times() -> None:
    assert [count(n) for n in (0, 999, 50_000, 12_345_678)] == ["0", "999", "50,000", "12.3 M"]
    assert [plural(1, "row"), plural(2, "pass"), plural(1000, "class")] == [
        "1 row",
        "2 passes",
        "1,000 classes",
    ]
    times = [0.0, 0.0312, 1.5, 12.44, 99.0, 200.4]
    shown = ["0.000 s", "0.031 s", "1.50 s", "12.4 s", "99.0 s", "3 min 20 s"]
    assert [duration(seconds) for seconds in times] == shown


# Words


def bins(*parts: tuple[float, float, int], edges: Any = None) -> list[dict[str, Any]]:
    keys = ("lower", "upper", "confidence", "accuracy", "rows", "weight")
    edges = np.linspace(0, 1, len(parts) + 1) if edges is None else edges
    return [
        dict(zip(keys, (*ends, *part, float(part[2])), strict=True))
        for ends, part in zip(pairwise(edges), parts, strict=True)
    ]


def judged_bins(*parts: tuple[float, float, int], **more: Any) -> Any:
    part = of_bins(bins(*parts, **more))
    return part | {"verdict": verdict(part).stored()}


KEPT = "is not ruled out by"


def of_bins(reliability: list[dict[str, Any]]) -> Any:
    return {"reliability": reliability, "metrics": {}, "positive": None}


@pytest.mark.parametrize(
    ("parts", "kind", "text"),
    [
        ([(0.91, 0.84, 10_000)], "over", "overconfident: says 91 %, right 84 %"),
        ([(0.75, 0.84, 10_000)], "under", "underconfident: says 75 %, right 84 %"),
        ([(0.845, 0.84, 10_000)], "good", "well calibrated: says 84 %, right 84 %"),
        # Six percentage points are chance where there are only 50 rows.
        (
            [(0.90, 0.84, 50)],
            "unclear",
            f"no clear error: says 90 %, right 84 %; an average error of 14 points {KEPT} 50 rows",
        ),
        # Nor does a single error show anything of 100 rows that should have 0.1.
        ([(0.999, 0.99, 100)], "good", None),
        (
            [(0.60, 0.70, 5000), (0.90, 0.80, 5000)],
            "mixed",
            "right on average (says 75 %, right 75 %), but not everywhere",
        ),
        # A few odd rows on either side are not worth a word.
        ([(0.6, 0.9, 20), (0.75, 0.75, 10_000), (0.95, 0.5, 20)], "good", None),
        ([(0.995, 0.96, 10_000)], "over", "overconfident: says 99.5 %, right 96 %"),
        ([], "none", "no rows"),
    ],
)
def test_verdict(parts: list[tuple[float, float, int]], kind: str, text: str | None) -> None:
    found = verdict(of_bins(bins(*parts)))
    assert found.kind == kind
    assert text is None or found.text == text


def test_verdict_uses_weights() -> None:
    parts = bins((0.9, 0.5, 10_000), (0.6, 0.6, 10_000))
    parts[0]["weight"] = 1e-6
    assert verdict(of_bins(parts)).kind == "good"


def test_change_is_judged_by_the_metric() -> None:
    assert change("nll", 0.5, 0.4, "-0.1") == "better"
    assert change("accuracy", 0.5, 0.4, "-0.1") == "worse"
    assert change("nll", 0.5, 0.5, "0") == "same"
    assert change("nll", 0.5, 0.4995, "-0.0005") == "same"
    assert change("nll", math.inf, 0.5, "-") == "better"
    assert change("nll", math.nan, 0.5, "-") == ""
    assert change("nll", None, 0.5, "-") == ""
    assert change("of_tomorrow", 0.5, 0.4, "-0.1") == ""


def test_better_is_never_said_where_plain_nll_is_better() -> None:
    assert change("nll", 0.5, 0.4, "-0.1", plain=0.3) == "nll better"
    assert change("nll", 0.5, 0.4, "-0.1", plain=0.45) == "better"
    assert change("nll", 0.5, 0.4, "-0.1", plain=0.4) == "better"
    assert change("nll", 0.5, 0.6, "+0.1", plain=0.3) == "worse"
    assert change("accuracy", 0.5, 0.6, "+0.1", plain=0.7) == "nll better"
    worse, best, against = measured(2.0), measured(), AgainstPlain(1.1, 1.0, 0.01)
    document = fitted(loss="focal", before=worse, after=measured(1.5), plain=(best, None, against))
    assert "nll better" in printed(document)
    assert "nll better" in to_markdown(document)
    assert "better" not in printed(document).replace("nll better", "").replace("is better", "")
    assert "plain nll" in to_markdown(document)


def test_a_fit_that_kept_plain_nll_says_so() -> None:
    work = {**fitted()["fit"], "loss": "nll", "preserves": "order"}
    assert "vector by cals: kept plain nll, converged" in printed(fitted(loss="cals", fit=work))
    assert "kept plain" not in printed(fitted(fit=work))
    assert "keeps   the order of the classes" in printed(fitted(fit=work))


@pytest.mark.parametrize(
    ("after", "low", "high", "word"),
    [
        (0.5017, 0.0, 0.0096, "unclear"),
        (0.5, -0.01, 0.01, "same"),
        (0.50001, -0.01, 0.01, "unclear"),
        (0.5005, -0.0002, 0.0009, "same"),
        (0.5005, 0.0001, 0.0009, "worse"),
        (0.5, 0.0, 0.0, "same"),
        (math.inf, 0.0, math.inf, "unclear"),
    ],
)
def test_a_change_is_the_same_only_if_its_interval_is(
    after: float, low: float, high: float, word: str
) -> None:
    interval = {"low": low, "high": high}
    assert change("nll", 0.5, after, difference_text(0.5, after), interval) == word


def test_short_names() -> None:
    assert short_names(["a/val.npz", "a/test.npz"]) == ["val.npz", "test.npz"]
    assert short_names(["x/a/val.npz", "x/b/val.npz"]) == ["a/val.npz", "b/val.npz"]
    assert short_names(["val.npz", "a/val.npz"]) == ["val.npz", "a/val.npz"]
    assert short_names(["same", "same"]) == ["same", "same"]
    assert short_names(["-"]) == ["-"]


# Bars


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_bars_are_as_long_as_they_should_be(glyphs: Any) -> None:
    assert glyphs.bar(0) == ""
    assert len(glyphs.bar(1e-9)) == 1
    for length in (1.0, 3.0, 7.51, 20.0):
        assert abs(len(glyphs.bar(length)) - length) < 1


@given(st.data(), st.integers(44, 200), st.sampled_from([UNICODE, ASCII]), st.integers(1, 3))
def test_diagrams_fit_the_width(data: st.DataObject, width: int, glyphs: Any, parts: int) -> None:
    """Any bins at any width: no line is wider, and each filled bin has its line and its mark."""
    shown = []
    for _ in range(parts):
        rows = data.draw(st.lists(st.integers(0, 10**7), min_size=15, max_size=15))
        share = st.floats(0, 1)
        drawn = [(data.draw(share), data.draw(share), n) if n else (None, None, 0) for n in rows]
        shown.append(("title", judged_bins(*drawn)))  # type: ignore[arg-type]
    lines = [line.plain for line in reliability_diagrams(shown, glyphs, width)]
    # The heading and the key are sentences: the terminal cuts them where it is too narrow.
    bars = [line for line in lines[:-1] if "says" not in line]
    assert all(len(line.rstrip()) <= width for line in bars)
    marks = sum(line.count(glyphs.marker) for line in bars)
    assert marks == sum(part["rows"] > 0 for _, each in shown for part in each["reliability"])


def test_two_diagrams_stand_side_by_side_where_there_is_room() -> None:
    both = [("before", fitted()["before"]), ("after", evaluated())]
    narrow = reliability_diagrams(both, UNICODE, SIDE_BY_SIDE - 1)
    wide = reliability_diagrams(both, UNICODE, SIDE_BY_SIDE)
    assert len(wide) < len(narrow)
    assert "before" in wide[0].plain
    assert "after" in wide[0].plain


def test_bar_shows_the_direction() -> None:
    over, under = (
        reliability_diagrams([("", judged_bins(part))], UNICODE, 80)[2].plain
        for part in ((0.9, 0.5, 100), (0.5, 0.9, 100))
    )
    assert re.search("█▒+┃", over)
    assert "▓" not in over
    assert re.search("█┃▓+", under)
    assert "▒" not in under


def test_bins_of_a_rare_class_have_digits_that_tell_them_apart() -> None:
    shares = (3e-5, 0, 50), (0.0031, 0.0039, 50), (0.091, 0.14, 50)
    rare = judged_bins(*shares, edges=(0, 0.0001, 0.02, 1))
    lines = reliability_diagrams([("", rare)], UNICODE, 80)
    assert [(line.plain[:7], line.plain[9:16]) for line in lines[2:5]] == [
        ("  9.1 %", "   14 %"),
        (" 0.31 %", " 0.39 %"),
        ("<0.01 %", "    0 %"),
    ]


def test_the_column_beside_says_is_called_by_what_the_inputs_are_about() -> None:
    def said(*parts: Any) -> list[str]:
        results = [{**evaluated(name=f"{i}"), **part} for i, part in enumerate(parts)]
        several = {"schema_version": 2, "command": "evaluate", "results": results}
        return [column.heading for column in inputs_table(several).columns][4:5]  # type: ignore[arg-type]

    top, event = judged_bins((0.3, 0.2, 400)), judged_bins((0.3, 0.2, 400))
    event["verdict"] |= {"event": "1"}
    assert said(top, top) == ["right"]
    assert said(event, event) == ["came"]
    assert said(event, top) == ["came/right"]


# Terminals


def console(encoding: str = "utf-8", **options: Any) -> Console:
    return Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), **options)


def test_only_signs_of_numbers_become_minus_signs() -> None:
    text = "plug-in -0.02, estimate 1.5e-08 [-inf, -.5]"
    minus = UNICODE.minus
    assert (
        UNICODE.number(text) == f"plug-in {minus}0.02, estimate 1.5e{minus}08 [{minus}∞, {minus}.5]"
    )


def test_plain_ascii_where_it_is_needed() -> None:
    assert glyphs_for(console(), {}) is UNICODE
    assert glyphs_for(console("ascii"), {}) is ASCII
    assert glyphs_for(console("cp1252"), {}) is ASCII
    assert glyphs_for(console(), {"TERM": "dumb"}) is ASCII
    assert glyphs_for(console(), {"CALIB_ASCII": "1"}) is ASCII
    assert glyphs_for(console(), {"CALIB_ASCII": "0", "TERM": "xterm"}) is UNICODE
    assert "".join(vars(ASCII).values()).isascii()
    single = [g for name, g in vars(UNICODE).items() if name != "partial"]
    assert all(len(glyph) == 1 for glyph in [*single, *UNICODE.partial])
    assert ASCII.number("-1.604 ± 0.3112") == "-1.604 +/- 0.3112"


def test_no_codes_stand_for_our_own_punctuation(calib: Any, sample_data: Path) -> None:
    test = sample_data / "digits_test.parquet"
    done = calib("evaluate", test, "--tests", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert b"\\" not in done.stdout + done.stderr
    assert b"+/-" in done.stdout
    assert b"classes zero, one, two, ~ (from" in done.stderr
    # Names keep their codes.
    done = calib("evaluate", "é.npz", env={"PYTHONIOENCODING": "ascii"})
    assert b"\\xe9.npz" in done.stderr


def printed(document: dict[str, Any], **options: Any) -> str:
    text = io.StringIO()
    print_document(document, Console(file=text, highlight=False, **options))
    return text.getvalue()


def test_colours_only_where_the_console_has_them() -> None:
    assert "\x1b" not in printed(fitted(), width=100)
    assert "\x1b" in printed(fitted(), width=100, force_terminal=True, color_system="standard")


def test_names_are_not_markup() -> None:
    text = printed(evaluated(name="[red]x[/red].npz"), width=80)
    assert "[red]x[/red].npz" in text
    both = combine([evaluated(name="[red]x"), evaluated(name=":smile:")])
    assert {"[red]x", ":smile:"} <= set(printed(both, width=80).split())


@pytest.mark.parametrize("width", [20, 40, 60, 300])
def test_any_width(width: int) -> None:
    for document in (fitted(), evaluated(), combine([evaluated()] * 5)):
        text = printed(document, width=width)
        assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [30, 44, 60, 80])
def test_no_number_of_a_leaderboard_is_cut_short(width: int) -> None:
    number = {"value": 0.22812, "low": 0.1, "high": 0.3}
    entry = {
        "loss": "nll",
        "parameters": 132,
        "seconds": 0.0521,
        "metrics": dict.fromkeys(("nll", "brier", "ece"), number),
        "behind": {"nll": 0.0162, "standard_error": 0.0074},
        "members": [],
    }
    board = [entry | {"method": name, "chosen": name == "svs"} for name in ("svs", "temperature")]
    head = {"command": "compare", "input": SOURCE, "rows": 600, "classes": 10, "folds": 5}
    document = {**head, "positive": None, "leaderboard": board, "why": "it is the best"}
    text = printed(document, width=width)
    assert max(map(len, text.splitlines())) <= width
    table = text[text.index("method ") : text.index("* chosen")]
    assert {"0.2281", "0.0162", "svs*", "temperature"} <= set(table.split())
    assert set(table.split()) <= {
        *("method", "NLL", "behind", "s.e.", "Brier", "ECE", "size", "fit", "svs*", "temperature"),
        *("0.2281", "0.0162", "0.0074", "132", "0.052", "s"),
    }


@pytest.mark.parametrize("width", [60, 70, 80, 90])
def test_no_number_is_cut_short(width: int) -> None:
    """What a narrow terminal has no room for is left out, and never a part of a number."""
    ends = {"low": -0.012345, "high": 0.0123456}
    one, both = evaluated(), fitted()
    for part in (one, both["after"]):
        for metric in part["metrics"].values():
            metric |= {**ends, "chance": {"mean": 0.1, **ends}, "change": ends}
    one["slices"] = [
        {
            "column": None,
            "slices": [
                {"name": "a class", "rows": 12_345, "confidence": 0.5, "accuracy": 0.991}
                | {name: {"value": 0.00012345, **ends} for name in ("nll", "brier", "ece")}
                | {"p": 1e-9, "adjusted_p": 1e-9}
            ],
        }
    ]
    for document in (one, both):
        text = printed(document, width=width, legacy_windows=False)
        tables = text.split("lower is better")[0] + text.split("class  ")[-1].split("All 1")[0]
        assert UNICODE.ellipsis not in tables
        assert max(map(len, text.splitlines())) <= width
        assert re.search(r"NLL +↓", text)


def test_a_change_that_may_be_none_has_no_colour() -> None:
    document = fitted()
    document["after"]["metrics"]["nll"]["change"] = {"low": -0.1, "high": 0.1}
    document["after"]["metrics"]["brier"]["change"] = {"low": 0.1, "high": 0.2}
    options: dict[str, Any] = {"width": 100, "force_terminal": True, "color_system": "standard"}
    lines = printed(document, **options).splitlines()
    coloured = re.compile("\x1b\\[3[12]m")
    assert not coloured.search(next(line for line in lines if line.startswith("NLL")))
    assert coloured.search(next(line for line in lines if line.startswith("Brier")))


def test_a_value_at_the_end_of_its_interval_is_shown_inside() -> None:
    for value in (0.02025, 0.009561, 0.1234, 1.0, 0.3, -0.02025):
        low, high = interval_text({"low": -abs(value), "high": abs(value)})[1:-1].split(", ")
        assert float(low) <= -abs(value) <= abs(value) <= float(high)
    assert interval_text({"low": 0.1 + 0.2, "high": 0.7}) == "[0.300, 0.700]"
    assert interval_text({"low": 0.0, "high": 0.0}) == "[0, 0]"


def test_failed_fit_is_loud() -> None:
    work = {
        "converged": False,
        "changed": True,
        "iterations": 1,
        "passes": 2,
        "seconds": 0.0,
        "device": "cpu",
        "notes": [],
    }
    text = printed(fitted(fit={**work, "notes": []}), width=120)
    assert "DID NOT CONVERGE in 1 iteration, 2 passes over the data" in text


# Formats


def test_json_has_no_nan() -> None:
    document = evaluated()
    document["metrics"]["nll"]["value"] = math.inf
    document["metrics"]["ece"]["value"] = math.nan
    parsed = json.loads(to_json(document), parse_constant=pytest.fail)
    assert parsed["metrics"]["nll"] == {"value": None}
    assert parsed["metrics"]["ece"]["value"] is None
    assert parsed["metrics"]["brier"]["value"] == document["metrics"]["brier"]["value"]


def test_json_has_arrays_as_lists() -> None:
    parsed = json.loads(to_json(fitted()))
    assert parsed["stages"][0]["parameters"] == {"scale": [1.0] * 4, "bias": [0.0] * 4}


def test_csv_can_be_read_back() -> None:
    document = combine([evaluated(name='a,"b".npz'), evaluated(name="c.npz")])
    document["results"][1]["metrics"]["nll"]["value"] = math.nan
    document["results"][1]["metrics"]["ks"]["value"] = math.inf
    rows = list(csv.DictReader(io.StringIO(to_csv(document))))
    assert len(rows) == 2 * len(DEFAULT)
    found = {(row["input"], row["metric"]): row["value"] for row in rows}
    expected = document["results"][0]["metrics"]["ece"]["value"]
    assert float(found['a,"b".npz', "ece"]) == expected
    assert found["c.npz", "nll"] == ""
    assert float(found["c.npz", "ks"]) == math.inf


def test_csv_of_a_fit_names_the_rows_it_was_measured_on() -> None:
    held_out = fitted(measured_on="test", folds=None, test={**SOURCE, "name": "test.npz"})
    for document, name in ((fitted(), "val.npz"), (held_out, "test.npz")):
        rows = list(csv.DictReader(io.StringIO(to_csv(document))))
        assert {(row["input"], row["measured"]) for row in rows} == {
            (name, "before"),
            (name, "after"),
        }


def test_markdown_cells_keep_to_themselves() -> None:
    text = to_markdown(combine([evaluated(name="a|b.npz"), evaluated(name="c.npz")]))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table[: 2 + len(DEFAULT)]} == {4}
    assert "a&#124;b.npz" in table[0]


def test_after_is_null_where_nothing_was_measured() -> None:
    document = fitted(after=None, measured_on="nothing", folds=0)
    assert document["after"] is None
    assert document["before"]["measured_on"] == "input"
    assert document["before"]["folds"] is None
    assert "before the fit only" in printed(document, width=100)
    both = fitted(before=None, after=None, measured_on="nothing", folds=0)
    assert "Nothing was measured" in printed(both, width=100)
    assert "Nothing was measured" in to_markdown(both)


# Names are names, in every format

HOSTILE = "::error::a|b`c<script>[x](http://y)\x1b[31m\n::stop::"


def hostile() -> dict[str, Any]:
    return combine([evaluated(name=HOSTILE), evaluated(name="=1+1")])


def test_terminal_shows_control_characters() -> None:
    text = printed(hostile(), width=200)
    assert "\x1b" not in text
    assert "\\x1b[31m\\n\\x3a:stop::" in text


def test_markdown_shows_names_as_they_are() -> None:
    page = to_markdown(hostile())
    assert "<script>" not in page
    assert "](" not in page
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", page)
    # Of code fences and spans there are none but those of gates.
    assert "`" not in page


def test_no_name_is_a_workflow_command() -> None:
    document = combine([evaluated(name="::error::oops"), evaluated(name="b")])
    document["results"][0]["slices"] = [{"column": None, "slices": []}]
    command = r"(?m)^\s*(::|##\[)"
    assert re.search(command, "::error::oops")
    for text in (to_github(document), to_markdown(document), to_csv(document)):
        assert not re.search(command, text)
    assert not re.search(command, printed(document, width=60))


def test_csv_names_are_no_formulas() -> None:
    rows = list(csv.reader(io.StringIO(to_csv(hostile()))))
    assert {row[0] for row in rows[1:]} == {visible(HOSTILE), "'=1+1"}


# Tables


def with_intervals() -> dict[str, Any]:
    document = evaluated()
    for name, metric in document["metrics"].items():
        if name != "ks":
            metric |= {"low": 0.0, "high": 1.0}
    document["metrics"]["ece"]["chance"] = {"mean": 0.02, "low": 0.0123, "high": 0.0345}
    return document


def test_a_metric_without_interval_says_so() -> None:
    (line,) = (line for line in printed(with_intervals(), width=80).splitlines() if "KS" in line)
    assert line.split()[-1] == NO_INTERVAL
    assert NO_INTERVAL not in printed(evaluated(), width=80)


@pytest.mark.parametrize("render", [printed, to_markdown, to_latex])
def test_every_table_with_estimates_says_that_they_are(render: Any) -> None:
    one = with_intervals()
    several = combine([one, {**one, "input": {**one["input"], "name": "b.npz"}}])
    pair = fitted()
    for part in (one, several["results"][0], several["results"][1], pair["before"], pair["after"]):
        part["metrics"]["ece"] |= {"estimate": 0.0, "low": 0.0, "high": 0.03}
    for document in (one, several, pair):
        words = " ".join(render(document).split()).lower()
        assert words.count("calibration errors are estimates") == 1
    assert "are estimates" not in render(evaluated())


def test_what_is_not_shown_is_not_explained() -> None:
    words = " ".join(printed(with_intervals(), width=80).split())
    assert words.lower().count(CHANCE_HEADING) == 2
    assert CHANCE_HEADING not in printed(with_intervals(), width=44)


def test_columns_go_by_their_rank() -> None:
    columns = [
        TableColumn("name"),
        TableColumn("a", rank=3),
        TableColumn("b"),
        TableColumn("c", rank=1),
    ]
    table = Table(columns, [TableRow([Cell(text) for text in "nabc"])])
    assert [column.heading for column in table.by_rank().columns] == ["name", "b", "c", "a"]
    assert [cell.text for cell in table.by_rank().rows[0].cells] == list("nbca")


def test_text_has_columns_for_intervals_and_words() -> None:
    cell = Cell("1", interval="[0, 2]", word="better")
    table = flat(Table([TableColumn("name"), TableColumn("x")], [TableRow([Cell("n"), cell])]))
    assert [column.heading for column in table.columns] == ["name", "x", "", INTERVAL_HEADING]
    assert [cell.text for cell in table.rows[0].cells] == ["n", "1", "better", "[0, 2]"]
