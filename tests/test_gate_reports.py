"""Gates in documents, as test cases, gauges, pages and annotations."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from gate_documents import entry, evaluated, families, judged
from hypothesis import given
from hypothesis import strategies as st

from calibcli.report.gate_results import figures, gate_part, verdict_on_gates
from calibcli.report.github import MOST_ANNOTATIONS, fit_summary, to_github, workflow_commands
from calibcli.report.junit import to_junit
from calibcli.report.openmetrics import to_openmetrics
from calibcli.report.render_markdown import to_markdown
from calibcli.visible import visible
from calibcli.workflow.conditions import parse_gate
from calibcli.workflow.gates import judge
from calibcli.workflow.quantities import Subject
from calibcli.workflow.verdict import WORDS

ROOT = Path(__file__).resolve().parents[1]


def test_the_document_has_every_gate_of_every_input() -> None:
    results = {
        "schema_version": 1,
        "command": "evaluate",
        "results": [evaluated("a"), evaluated("b")],
    }
    found = judged(results, "ece > 0.02", "ece > 0.1")["gates"]
    told = [(gate["input"], gate["expression"], gate["passed"]) for gate in found]
    assert told == [
        ("a", "ece > 0.02", False),
        ("a", "ece > 0.1", True),
        ("b", "ece > 0.02", False),
        ("b", "ece > 0.1", True),
    ]
    assert found[0] == {
        "expression": "ece > 0.02",
        "input": "a",
        "passed": False,
        "value": 0.03,
        "bound": 0.02,
        "estimate": None,
        "low": 0.02,
        "high": 0.05,
        "difference": {"value": pytest.approx(0.01), "low": 0.0, "high": pytest.approx(0.03)},
        "significant": False,
        "joined": None,
        "slice": None,
        "reason": None,
    }
    assert "gates" not in judged(evaluated())


def test_every_key_of_a_gate_is_documented() -> None:
    page = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    section = re.search(r"^## Gates$(.*?)(?=^## )", page, re.MULTILINE | re.DOTALL)
    assert section is not None
    documented = set(re.findall(r"`(\w+)`", section[1]))
    assert {"gates", *judged(evaluated(), "ece > 1")["gates"][0]} <= documented


@pytest.mark.parametrize(
    ("text", "significant", "expected"),
    [
        ("ece > 0.02", False, "0.03000 [0.0200, 0.0500]"),
        ("ece > 0.025", True, "0.03000 [0.0200, 0.0500], not clear of 0.025"),
        ("nll > 2", False, "inf"),
        ("ks > 2", False, "ks is not known"),
        ("ece >= ece.low", False, "0.03000 against 0.02000, difference 0.01000 [0, 0.0300]"),
        ("ece.high > 0.0499999999", False, "0.05"),
    ],
)
def test_the_numbers_of_a_gate_in_words(text: str, significant: bool, expected: str) -> None:
    (gate,) = judged(evaluated(), text, significant=significant)["gates"]
    assert figures(gate) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ece > 0.01", "plug-in 0.02000, estimate 0 [0, 0.0300]"),
        ("ece.estimate > 0.01", "0 [0, 0.0300]"),
        ("ece.high > 0.01", "0.03000"),
        ("nll > 0.01", "0.3000 [0.200, 0.400]"),
        (
            "ece >= ece.before",
            (
                "plug-in 0.02000 against 0.05000, difference -0.03000, of estimates -0.04000 "
                "[-0.0500, -0.0200]"
            ),
        ),
        ("ece.change > -0.01", "plug-in -0.03000, estimate -0.04000 [-0.0500, -0.0200]"),
        ("ece[subject=law] > 0.01", "plug-in 0.07000, estimate 0.06000 [0.0200, 0.0900]"),
    ],
)
def test_a_plug_in_is_called_so_beside_the_estimate_that_tables_show(
    text: str, expected: str
) -> None:
    now = {**entry(0.02, 0.0, 0.03), "estimate": 0.0, "change": {"low": -0.05, "high": -0.02}}
    before = {"ece": {**entry(0.05, 0.03, 0.06), "estimate": 0.04}}
    law = {"name": "law", "ece": {**entry(0.07, 0.02, 0.09), "estimate": 0.06}, "adjusted_p": 0.01}
    metrics = {"ece": now, "nll": entry(0.3, 0.2, 0.4)}
    slices = [{"column": "subject", "slices": [law]}]
    gate = parse_gate(text)
    subject = Subject("a", metrics, before, slices=slices)  # type: ignore[arg-type]
    part = gate_part(judge(gate, subject))
    assert figures(part) == expected
    if "change" not in text and "before" not in text and part["estimate"] is not None:
        # The estimate is what the interval is of.
        assert part["low"] <= part["estimate"] <= part["high"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ece[subject=law] > 0.02", "0.06000 [0.0200, 0.0900]"),
        (
            "worst(ece) by subject > 0.02",
            "0.06000 [0.0142, 0.0944]: law, the worst of 2 slices, interval for all 2 at once",
        ),
        ("worst(ece.low) by subject > 0.02", "0.01426: law, the worst of 2 slices"),
        ("slices.failed > 0", "1 of 2 slices, law first"),
        ("slices.failed by class > 0", "slices.failed by class is not known: there are no slices"),
        ("ece[subject=x] > 0.02", "no row has subject=x; there are law, tax"),
    ],
)
def test_slices_in_words(text: str, expected: str) -> None:
    slices = [
        {"name": "law", "ece": entry(0.06, 0.02, 0.09), "adjusted_p": 0.01},
        {"name": "tax", "ece": entry(0.02, 0.0, 0.04), "adjusted_p": 0.7},
    ]
    document = {**evaluated(), "slices": [{"column": "subject", "slices": slices}]}
    (gate,) = judged(document, text)["gates"]
    assert figures(gate) == expected
    assert text in to_junit(document).replace("&gt;", ">")


def test_the_verdict_names_inputs_where_there_are_several() -> None:
    assert verdict_on_gates(evaluated()) == ""
    assert verdict_on_gates(judged(evaluated(), "ece > 1")) == "1 gate passed"
    one = verdict_on_gates(judged(evaluated(), "ece > 0.02", "ece > 1"))
    assert one == "1 of 2 gates failed: ece > 0.02 (0.03000 [0.0200, 0.0500])"
    both = {"schema_version": 1, "command": "evaluate", "results": [evaluated("a"), evaluated("b")]}
    assert verdict_on_gates(judged(both, "ks > 1")) == (
        "2 of 2 gates failed: a: ks > 1 (ks is not known); b: ks > 1 (ks is not known)"
    )


# JUnit


def test_junit_has_a_case_for_each_gate() -> None:
    root = ET.fromstring(to_junit(judged(evaluated(), "ece > 0.02", "ece > 1", "ks > 0")))  # noqa: S314
    assert root.tag == "testsuites"
    (suite,) = root
    assert [suite.get(key) for key in ("tests", "failures", "errors")] == ["3", "2", "0"]
    *cases, said = suite
    assert [case.get("name") for case in cases] == ["ece > 0.02", "ece > 1", "ks > 0"]
    assert {case.get("classname") for case in cases} == {"calib.evaluate.test.npz"}
    failures = [failure for case in cases for failure in case]
    assert [failure.get("message") for failure in failures] == [
        "0.03000 [0.0200, 0.0500]",
        "ks is not known",
    ]
    assert [failure.get("type") for failure in failures] == ["gate", "not known"]
    assert said.tag == "system-out"
    assert said.text.startswith("verdict: ")


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_junit_is_xml_whatever_the_file_is_called(name: str) -> None:
    text = to_junit(judged(evaluated(name), "ece > 0.02"))
    root = ET.fromstring(text)  # noqa: S314 (our own)
    shown = root[0][0].get("classname")
    assert shown is not None
    assert text.isascii()
    if name.isprintable():
        assert shown == f"calib.evaluate.{name}"


# OpenMetrics


def test_openmetrics_has_gauges_for_metrics_and_gates() -> None:
    text = to_openmetrics(judged(evaluated(), "ece > 0.02", "ece > 1"))
    assert text.endswith("\n# EOF\n")
    assert families(text) == {
        "calib_metric": {
            ("test.npz", "measured", "ece"): 0.03,
            ("test.npz", "measured", "nll"): math.inf,
        },
        "calib_metric_low": {("test.npz", "measured", "ece"): 0.02},
        "calib_metric_high": {("test.npz", "measured", "ece"): 0.05},
        "calib_rows": {("test.npz", "measured"): 3.0},
        "calib_gate_passed": {("test.npz", "ece > 0.02"): 0.0, ("test.npz", "ece > 1"): 1.0},
        "calib_verdict": {("test.npz", "measured", kind): float(kind == "none") for kind in WORDS},
        "calib_verdict_text": {("test.npz", "measured", "no rows"): 1.0},
    }


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=20))
def test_openmetrics_can_be_read_whatever_the_file_is_called(name: str) -> None:
    both = {
        "schema_version": 1,
        "command": "evaluate",
        "results": [evaluated(name), evaluated(name, ece=entry(None))],
    }
    both["results"][0]["verdict"]["remarks"] = [name]
    found = families(to_openmetrics(judged(both, "ece > 0.02")))
    shown = visible(name)
    assert (shown, "measured", f"no rows; {shown}") in found["calib_verdict_text"]
    assert (shown, "measured", "ece") in found["calib_metric"]


# GitHub


def test_annotations_are_escaped_and_at_most_ten() -> None:
    document = judged(evaluated("50 %\n:,.npz"), *[f"ece > 0.{i:03d}" for i in range(25)])
    found = workflow_commands(document)
    assert len(found) == MOST_ANNOTATIONS
    assert found[0] == (
        "::error title=calib%3A gate failed::50 %25%0A:,.npz: ece > 0.000 failed: "
        "0.03000 [0.0200, 0.0500]"
    )
    assert found[-1].endswith("16 more gates failed; the step summary has all of them")
    assert all("\n" not in command for command in found)
    passed = workflow_commands(judged(evaluated(), "ece > 1"))
    assert passed == ["::notice title=calib::1 gate passed"]
    assert workflow_commands(evaluated()) == []


def test_the_page_hides_its_workflow_commands() -> None:
    document = judged(evaluated("a-->b"), "ece > 0.02")
    page = to_github(document)
    shown, hidden = page.split("<!--\n")
    assert shown == f"{to_markdown(document)}\n"
    assert re.fullmatch(r"::error [^\n]*a->b: [^\n]*\n-->\n", hidden)
    assert to_github(evaluated()) == to_markdown(evaluated())


def test_a_page_has_a_table_of_gates() -> None:
    page = to_markdown(judged(evaluated(), "ece > 0.02", "ece > 1"))
    assert "| `ece > 0.02` | **failed** | 0.03000 [0.0200, 0.0500] |\n" in page
    assert "| `ece > 1` | passed | 0.03000 [0.0200, 0.0500] |\n" in page


@given(
    st.lists(st.sampled_from(["<details>", "</details>", "text", "é" * 30, ""]), max_size=40),
    st.integers(0, 900),
)
def test_a_summary_has_room(lines: list[str], room: int) -> None:
    page = "".join(f"{line}\n" for line in lines)
    shown = fit_summary(page, room)
    assert len(shown.encode()) <= room
    assert (shown == page) == (len(page.encode()) <= room)
    if shown != page and shown:
        assert "--format json" in shown
