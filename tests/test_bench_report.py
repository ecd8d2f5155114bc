"""Recorded results of the benchmarks say which code they measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "report", raising=False)
    import report

    yield report
    sys.modules.pop("report", None)


def test_a_record_of_other_code_is_called_so(report) -> None:
    code = report.code()
    assert report.staleness(f"# Results\n\nA machine.\nCode: {code}\n\n| a |") is None
    other = "0" * 12
    assert f"other code ({other}) than what is here ({code})" in report.staleness(f"Code: {other}")
    assert "does not say which code" in report.staleness("# Results\n")


def test_lines_of_this_code_alone_are_read_again(report, tmp_path, monkeypatch) -> None:
    lines = {"startup": [report.Line("startup", "calib", "time", 2.0, 1.0, at_most=3, note="n")]}
    path = tmp_path / "results.json"
    assert report.read_json(path) == {}
    report.write_json(path, lines)
    assert report.read_json(path) == lines
    monkeypatch.setattr(report, "code", lambda: "other")
    assert report.read_json(path) == {}
