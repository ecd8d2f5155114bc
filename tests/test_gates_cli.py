"""Gates on the command line: exit codes, what is said, and what is written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from gate_documents import families

from calibcli.report.render_markdown import to_markdown

ROOT = Path(__file__).resolve().parents[1]
CalibHere = Callable[..., tuple[int, str, str]]


TEST = "test.npz"


@pytest.fixture(autouse=True)
def files(sample_data: Path, tmp_path: Path) -> None:
    """A validation and a test file in the test's folder."""
    shutil.copy(sample_data / "digits_longtail_test.npz", tmp_path / TEST)
    shutil.copy(sample_data / "digits_longtail_val.npz", tmp_path / "val.npz")


@pytest.fixture(autouse=True)
def nowhere_near_github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


FAST = ("--metrics", "ece", "--bootstrap", "20")


def test_all_gates_are_told_and_then_the_job_fails(calib_here: CalibHere) -> None:
    code, out, err = calib_here(
        *("evaluate", TEST, "-q", *FAST),
        *("--fail-if", "ece > 0.9", "--fail-if", "ece > 0.001", "--fail-if", "ks<0.9"),
    )
    assert code == 1
    gates = [line.split() for line in out.splitlines() if line.startswith("gate ")]
    assert [line[:5] for line in gates] == [
        ["gate", "ece", ">", "0.9", "passed"],
        ["gate", "ece", ">", "0.001", "failed"],
        ["gate", "ks", "<", "0.9", "failed"],
    ]
    assert re.fullmatch(r"calib: 2 of 3 gates failed: ece > 0\.001 \(.*\); ks < 0\.9 \(.*\)\n", err)


def test_a_job_whose_gates_pass_ends_well(calib_here: CalibHere) -> None:
    arguments = ("evaluate", TEST, *FAST, "--fail-if", "ece > 0.9", "--format", "csv")
    code, out, err = calib_here(*arguments)
    assert code == 0
    assert out.splitlines()[0] == "input,measured,metric,value,estimate,low,high,column,slice"
    assert "calib: gate test.npz: ece > 0.9 passed: " in err
    assert calib_here(*arguments, "-q")[2] == ""


def test_each_input_is_judged_and_named(calib_here: CalibHere) -> None:
    code, out, err = calib_here(
        *("evaluate", TEST, "val.npz", *FAST, "-q", "--format", "json"),
        *("--fail-if", "ece > 0.001"),
    )
    assert code == 1
    gates = json.loads(out)["gates"]
    assert [gate["input"] for gate in gates] == ["test.npz", "val.npz"]
    assert err.startswith("calib: 2 of 2 gates failed: test.npz: ece > 0.001 (")
    assert "; val.npz: ece" in err


def test_a_gate_adds_its_metric_to_those_that_are_measured(calib_here: CalibHere) -> None:
    _, out, _ = calib_here(
        *("evaluate", TEST, *FAST, "-q", "--format", "json"),
        *("--fail-if", "smooth_ece > nll"),
    )
    assert list(json.loads(out)["metrics"]) == ["ece", "smooth_ece", "nll"]


def test_a_baseline_is_an_earlier_json(calib_here: CalibHere) -> None:
    _, out, _ = calib_here("evaluate", TEST, *FAST, "-q", "--format", "json")
    Path("base.json").write_text(out, encoding="utf-8")
    again = ("evaluate", TEST, *FAST, "-q", "--format", "json", "--baseline", "base.json")
    code, out, _ = calib_here(
        *again, "--fail-if", "ece.delta > 0", "--fail-if", "ece != ece.baseline"
    )
    assert code == 0
    assert json.loads(out)["gates"][0]["value"] == 0
    code, _, err = calib_here(*again, "--fail-if", "ece.delta >= 0")
    assert code == 1
    code, _, err = calib_here(*again, "--fail-if", "nll.delta > 0")
    refusal = "nll was not measured there; make it anew with --metrics default,nll"
    assert (code, err) == (2, f"calib: base.json: {refusal} (more: calib docs ci)\n")


def fit_arguments(*more: str) -> tuple[str, ...]:
    where = ("-p", "p.json", "-o", "o.npz", "--force")
    return ("fit", "val.npz", "--test", "test.npz", *where, *FAST, "-q", *more)


def test_a_fit_whose_gates_fail_has_been_written(calib_here: CalibHere) -> None:
    arguments = fit_arguments("--format", "json", "--fail-if", "nll.delta <= 0")
    code, out, err = calib_here(*arguments, "--fail-if", "nll > nll.before")
    assert code == 1
    assert err.startswith("calib: 1 of 2 gates failed: nll.delta <= 0 (-")
    document = json.loads(out)
    delta, after = document["gates"]
    before, now = (document[stage]["metrics"]["nll"]["value"] for stage in ("before", "after"))
    assert delta["value"] == now - before
    assert (after["value"], after["bound"], after["input"]) == (now, before, "test.npz")
    change = document["after"]["metrics"]["nll"]["change"]
    assert after["difference"] == {"value": now - before, **change}
    assert Path("p.json").is_file()
    assert Path("o.npz").is_file()


def test_a_fit_can_be_compared_with_an_earlier_one(calib_here: CalibHere) -> None:
    _, out, _ = calib_here(*fit_arguments("--format", "json"))
    Path("base.json").write_text(out, encoding="utf-8")
    code, out, _ = calib_here(
        *fit_arguments("--format", "json", "-m", "none", "--baseline", "base.json"),
        *("--fail-if", "ece.delta > 0", "--fail-if", "ece.after > ece.before"),
    )
    assert code == 1
    delta, unchanged = json.loads(out)["gates"]
    earlier = json.loads(Path("base.json").read_text(encoding="utf-8"))["after"]["metrics"]["ece"]
    assert delta["value"] == unchanged["value"] - earlier["value"]
    assert unchanged["passed"]


def test_reports_for_ci_are_written_beside_any_format(calib_here: CalibHere) -> None:
    code, out, err = calib_here(
        *("evaluate", TEST, *FAST, "-q", "--format", "json", "--fail-if", "ece > 0.001"),
        *("--junit", "gates.xml", "--openmetrics", "metrics.txt"),
    )
    assert code == 1
    assert json.loads(out)["gates"][0]["passed"] is False
    assert ET.parse("gates.xml").getroot().get("failures") == "1"  # noqa: S314
    assert families(Path("metrics.txt").read_text("utf-8"))["calib_gate_passed"]
    for kind, path in (("junit", "gates.xml"), ("openmetrics", "metrics.txt")):
        _, out, _ = calib_here(
            *("evaluate", TEST, *FAST, "-q", "--format", kind, "--fail-if", "ece > 0.001")
        )
        assert out == Path(path).read_text(encoding="utf-8")
    again = ("evaluate", TEST, *FAST, "--fail-if", "ece > 1", "--junit", "gates.xml")
    code, _, err = calib_here(*again)
    assert code == 2
    assert "gates.xml" in err
    assert calib_here(*again, "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--baseline", "b.json"), "--baseline is about gates, and there is no --fail-if"),
        (("--significant",), "--significant is about gates"),
        (("--junit", "j.xml"), "--junit is about gates"),
        (("--format", "junit"), "--format junit is about gates"),
        (("--fail-if", "ece > 1", "--baseline", "none.json"), "none.json: No such file"),
        (("--fail-if", "ece > 1", "--junit", "no/j.xml"), "no/j.xml"),
        (("--fail-if", "ece.low > 1", "--bootstrap", "0"), "ece.low needs intervals"),
        (("--fail-if", "ecee > 1"), "did you mean ece?"),
    ],
)
def test_refusals(calib_here: CalibHere, arguments, complaint: str) -> None:
    code, out, err = calib_here("evaluate", TEST, "-q", *arguments)
    assert (code, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1


def test_github_is_told_by_itself(
    calib_here: CalibHere, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    arguments = ("evaluate", TEST, *FAST, "-q", "--format", "json", "--fail-if", "ece > 0.001")
    _, _, err = calib_here(*arguments)
    assert "::" not in err
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    code, out, err = calib_here(*arguments)
    assert code == 1
    assert re.search(
        r"^::error title=calib%3A gate failed::test.npz: ece > 0.001 ", err, re.MULTILINE
    )
    assert summary.read_text("utf-8") == f"before\n{to_markdown(json.loads(out))}"
    shown = summary.read_text("utf-8")
    _, _, err = calib_here(*arguments, "--no-github")
    assert "::" not in err
    assert summary.read_text("utf-8") == shown
    monkeypatch.delenv("GITHUB_ACTIONS")
    _, _, err = calib_here(*arguments, "--github")
    assert "::error " in err
    assert summary.stat().st_size > len(shown.encode())


def test_a_full_step_summary_is_not_made_larger(
    calib_here: CalibHere, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_bytes(b"\n" * (1024 * 1024 - 500))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    arguments = ("evaluate", TEST, *FAST, "-q", "--fail-if", "ece > 0.9", "--github")
    assert calib_here(*arguments)[0] == 0
    assert 1024 * 1024 - 500 < summary.stat().st_size < 1024 * 1024
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    assert calib_here(*arguments)[0] == 0


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    script = f'calib() {{ {sys.executable} -m calibcli "$@"; }}\n{line}'
    return subprocess.run(
        ["bash", "-c", script],  # noqa: S607 (as in any shell)
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["table", "json", "github"])
def test_the_exit_code_survives_a_reader_that_leaves(tmp_path: Path, kind: str) -> None:
    gate = f"calib evaluate {TEST} -q --metrics ece --bootstrap 20 --format {kind}"
    done = shell(f"{gate} --fail-if 'ece > 0.001' | true; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert done.stdout == "1\n"
    assert re.fullmatch(r"calib: 1 of 1 gate failed: .*\n", done.stderr)
    done = shell(f"{gate} --fail-if 'ece > 0.9' | true; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert (done.stdout, done.stderr) == ("0\n", "")
    done = shell(f"{gate} --fail-if 'ece > 0.001' >&-", tmp_path)
    assert done.returncode == 1


@pytest.mark.slow
def test_a_gate_in_a_terminal_without_unicode(tmp_path: Path) -> None:
    line = f"calib evaluate {TEST} -q --fail-if 'ece.low > 0.9' --fail-if 'nll > 0.001'"
    done = shell(line, tmp_path, PYTHONIOENCODING="ascii", COLUMNS="60")
    assert done.returncode == 1
    assert done.stdout.isascii()
    assert done.stdout.splitlines()[-2].split()[:5] == ["gate", "ece.low", ">", "0.9", "passed"]


def test_gates_on_slices_measure_the_slices(calib_here: CalibHere) -> None:
    arguments = ("evaluate", TEST, *FAST, "-q", "--format", "json")
    code, out, err = calib_here(
        *arguments,
        *("--fail-if", "slices.failed by class > 99", "--fail-if", "worst(ece) by class > 0.001"),
    )
    assert (code, err.split(" (")[0]) == (
        1,
        "calib: 1 of 2 gates failed: worst(ece) by class > 0.001",
    )
    document = json.loads(out)
    (part,) = document["slices"]
    worst = max(part["slices"], key=lambda each: each["ece"]["value"])
    count, largest = document["gates"]
    assert count["value"] == sum(each["adjusted_p"] <= 0.05 for each in part["slices"])
    assert largest["value"] == worst["ece"]["value"]
    assert largest["slice"] == {"column": None, "name": worst["name"], "of": len(part["slices"])}
    assert largest["high"] > worst["ece"]["high"]
    first = part["slices"][0]
    code, out, _ = calib_here(*arguments, "--fail-if", f'ece[class="{first["name"]}"].low >= 0')
    assert (code, json.loads(out)["gates"][0]["value"]) == (1, first["ece"]["low"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--fail-if", "slices.failed > 0"), "there are no slices; add --by COL, --by-class, or"),
        (("--fail-if", "periods.failed > 0"), "there are no periods; add --by COL, or 'by COL'"),
        (
            ("--by", "a", "--fail-if", "worst(ece) by b > 0"),
            "rows are divided by one column, a or b",
        ),
        (("--fail-if", "ece[nowhere=law] > 0"), "'nowhere'"),
    ],
)
def test_refusals_of_slices(calib_here: CalibHere, arguments, complaint: str) -> None:
    code, out, err = calib_here("evaluate", TEST, "-q", *arguments)
    assert (code, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1


def test_a_gate_on_periods_has_them_measured(calib_here: CalibHere, sample_data: Path) -> None:
    test = sample_data / "digits_test.parquet"
    wanted = ("--fail-if", "periods.failed by scan > 0")
    code, out, err = calib_here("evaluate", test, *FAST, "-q", "--format", "json", *wanted)
    document = json.loads(out)
    failed = [each["name"] for each in document["periods"]["periods"] if each["signal"] != "within"]
    (gate,) = document["gates"]
    assert (code, gate["value"], gate["slice"]["name"]) == (1, len(failed), failed[0])
    assert f"{len(failed)} of 2 periods, {failed[0]} first" in err
    given = ("--by", "scan", "--fail-if", "periods.failed > 2")
    assert calib_here("evaluate", test, *FAST, "-q", *given)[0] == 0
