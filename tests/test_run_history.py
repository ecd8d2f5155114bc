"""Runs kept by `--append`, and what `calib history` says of them."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import calibcli
from calibcli.errors import RunsError, UsageError
from calibcli.tables.atomic import Outputs, check_appendable
from calibcli.workflow.quantities import Estimate
from calibcli.workflow.runs import control_bands, fit_trend, read_history

SAMPLES = Path(__file__).resolve().parents[1] / "sample_data"
SAMPLE = SAMPLES / "digits_test.parquet"
HALF = 1.959963984540054


def line(number=0, value=0.02, *, error=0.004, **changes):
    metric = {"value": value + 0.01, "estimate": value}
    if error:
        metric |= {"low": value - HALF * error, "high": value + HALF * error}
    record = {
        "schema_version": 1,
        "command": "run",
        "calib": "0.1.0",
        "time": f"2026-01-{number + 1:02}T00:00:00Z",
        "name": f"v{number}",
        "input": "test.npz",
        "positive": None,
        "params": None,
        "params_sha256": None,
        "rows": 1000,
        "classes": 3,
        "costs": None,
        "metrics": {"ece": metric},
        "gates": None,
    }
    return json.dumps(record | changes) + "\n"


def estimates(values, errors):
    pairs = zip(values, errors, strict=True)
    return [Estimate(v, v - HALF * s, v + HALF * s) for v, s in pairs]


@pytest.fixture
def calib(calib_here):
    """The command line, which is to end with a code."""

    def run(*arguments, code=0):
        given, out, err = calib_here(*arguments)
        assert given == int(code), err
        return SimpleNamespace(out=out, err=err)

    return run


@pytest.fixture
def runs(tmp_path):
    values = [0.02, 0.021, 0.019, 0.02, 0.06, 0.022]
    path = tmp_path / "runs.jsonl"
    path.write_text("".join(line(i, value) for i, value in enumerate(values)))
    return path


# The slope.


def test_slope_is_that_of_weighted_least_squares_with_the_interval_of_knapp_and_hartung():
    """Against the matrices of their paper, with a variance between runs that is not 0."""
    y = np.array([0.03, 0.01, 0.06, 0.02, 0.09])
    s = np.array([0.004, 0.01, 0.006, 0.005, 0.02])
    design = np.stack((np.ones(5), np.arange(5.0)), axis=1)
    w = np.diag(s**-2)
    p = w - w @ design @ np.linalg.inv(design.T @ w @ design) @ design.T @ w
    tau2 = (y @ p @ y - 3) / np.trace(p)
    assert tau2 > 0
    w = np.diag(1 / (s**2 + tau2))
    covariance = np.linalg.inv(design.T @ w @ design)
    beta = covariance @ design.T @ w @ y
    residuals = y - design @ beta
    error = math.sqrt(residuals @ w @ residuals / 3 * covariance[1, 1])
    t = 3.182446305284263  # Student's quantile for 3 degrees of freedom
    trend = fit_trend(estimates(y, s))
    assert trend.slope == pytest.approx((beta[1], beta[1] - t * error, beta[1] + t * error))
    assert trend.start == pytest.approx(beta[0])
    assert trend.between == pytest.approx(math.sqrt(tau2))
    assert (trend.runs, trend.weighted) == (5, True)


def test_runs_without_intervals_have_equal_weights():
    values = [1.0, 2.0, 4.0, 4.0]
    known = [Estimate(value) for value in values]
    trend = fit_trend([*known[:2], Estimate(math.nan), *known[2:]])
    x = np.array([0, 1, 3, 4])
    assert trend.slope.value == pytest.approx(np.polyfit(x, values, 1)[0])
    assert not trend.weighted
    assert trend.runs == 4
    mixed = [*estimates(values[:3], [1, 2, 3]), known[3]]
    assert not fit_trend(mixed).weighted


def test_equal_runs_have_no_slope_at_all():
    trend = fit_trend(estimates([0.1 + 0.2] * 7, [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07]))
    assert trend.slope == (0, 0, 0)


@pytest.mark.parametrize("between", [0.0, 0.006])
@pytest.mark.parametrize("shared", [False, True])
def test_gate_on_the_slope_has_its_level(between, shared):
    """2.5 % of histories without a trend fail `ece.trend.low > 0`, whatever the runs share."""
    rng, count, tries = np.random.default_rng(3), 8, 2000
    # Of the same rows intervals are about as long, too.
    errors = rng.uniform(*((0.0055, 0.0065) if shared else (0.003, 0.009)), count)
    failed = 0
    for _ in range(tries):
        noise = errors * rng.normal(size=count)
        if shared:  # all runs are off to the same side
            noise = errors * rng.normal() + noise / 4
        values = 0.03 + noise + between * rng.normal(size=count)
        failed += fit_trend(estimates(values, errors)).slope.low > 0
    # Four standard deviations of a share of 2.5 % to either side.
    assert 0.012 < failed / tries < 0.039


# The band.


def test_band_is_of_the_runs_before_up_to_the_first_that_left_it():
    errors = [0.004] * 6
    bands = control_bands(estimates([0.02, 0.021, 0.019, 0.02, 0.06, 0.022], errors))
    assert [band.signal for band in bands] == ["too few", *["within"] * 3, "high", "within"]
    assert bands[1].high == pytest.approx(0.02 + 3 * math.hypot(0.004, 0.004))
    assert bands[4].middle == pytest.approx(0.02)
    assert bands[5].middle == bands[4].middle  # what left is no reference
    assert bands[5].low == pytest.approx(0.02 - 3 * 0.004 * math.sqrt(1.25))


def test_band_widens_by_what_runs_vary_beyond_their_intervals():
    values = [0.02, 0.03, 0.01, 0.02]
    narrow, wide = (control_bands(estimates(values, [s] * 4))[-1] for s in (0.0101, 0.004))
    assert wide.high - wide.middle > 3 * 0.0082
    assert narrow.high == pytest.approx(0.02 + 3 * 0.0101 * math.sqrt(4 / 3))


def test_band_without_intervals_takes_two_runs():
    bands = control_bands([Estimate(value) for value in (1.0, 1.1, 1.05, 9.0)])
    assert [band.signal for band in bands] == ["too few", "too few", "within", "high"]
    # The mean of two, and Student's quantile with one degree of freedom at .135 %.
    assert bands[2].high == pytest.approx(1.05 + 235.78 * 0.05 * math.sqrt(2 * 1.5), rel=1e-3)


def test_runs_that_do_not_change_seldom_leave_the_band():
    """Of nine runs with a band, each out of it in .27 % by chance, 2.4 % of histories have one."""
    rng, tries = np.random.default_rng(4), 1000
    out = 0
    for _ in range(tries):
        errors = rng.uniform(0.003, 0.009, 10)
        bands = control_bands(estimates(0.03 + errors * rng.normal(size=10), errors))
        out += any(band.signal in ("high", "low") for band in bands)
    assert 0.005 < out / tries < 0.05


# The file.


def test_each_input_and_positive_class_has_its_own_runs():
    text = line(value=0.1) + line(positive="ill") + line(input="other") + line(value=0.2)
    parts = read_history(text.encode(), "runs")
    assert [(each.title, len(each.runs)) for each in parts] == [
        ("test.npz", 2),
        ("test.npz, P(ill)", 1),
        ("other", 1),
    ]
    assert [each.value for each in parts[0].estimates("ece")] == [0.1, 0.2]


@pytest.mark.parametrize(
    "broken",
    [
        "{",
        "[]",
        "null",
        "\xff",
        "[" * 100_000,
        '{"command": "run"}',
        line(schema_version=2),
        line(schema_version=True),
        line(command="evaluate"),
        line(name=7),
        line(input=None),
        line(time=3),
        line(metrics=[]),
        line(metrics={"ece": 3}),
        line(metrics={"ece": {"value": "x"}}),
        line(metrics={"ece": {"value": math.nan}}),
        line(metrics={"ece": {"value": 10**400}}),
        line(metrics={"ece": {"value": True}}),
        line(metrics={"ece": {"value": 1, "low": 2, "high": 1}}),
        line(metrics={"ece": {"value": 1, "chance": 3}}),
    ],
)
def test_broken_lines_are_refused_with_their_number(broken):
    with pytest.raises(RunsError, match=r"^runs: line 2 is no run as calib evaluate --append"):
        read_history((line() + broken + "\n").encode("latin-1"), "runs")


def test_costs_that_differ_cannot_be_compared():
    metrics = {"cost": {"value": 1.0}}
    text = line(metrics=metrics, costs={"fp": 1, "fn": 2}) + line(metrics=metrics, costs=None)
    (history,) = read_history(text.encode(), "runs")
    with pytest.raises(UsageError, match="errors cost something else"):
        history.estimates("cost")
    assert history.since("2").estimates("cost")[0].value == 1


# Appending.


def test_appending_keeps_what_is_there(tmp_path):
    path = tmp_path / "runs"
    for content in (b"a\n", b"b\n"):
        with Outputs() as files:
            files.append(str(path), content)
    assert path.read_bytes() == b"a\nb\n"
    path.write_bytes(b"no end")
    with Outputs() as files:
        files.append(str(path), b"c\n")
    assert path.read_bytes() == b"no end\nc\n"
    assert [each.name for each in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize("before", [None, b"old\n"])
def test_a_step_that_fails_appends_nothing(tmp_path, before):
    path, other = tmp_path / "runs", tmp_path / "other"
    if before is not None:
        path.write_bytes(before)

    def append(spoil):
        with Outputs() as files:
            files.append(str(path), b"new\n")
            files.open(str(other)).write(b"x")
            spoil()

    with pytest.raises(UsageError, match="exists by now"):
        append(lambda: other.write_bytes(b"somebody else's"))
    assert (path.read_bytes() if path.exists() else None) == before
    other.unlink()
    with pytest.raises(KeyError):
        append(lambda: {}["fails"])
    assert (path.read_bytes() if path.exists() else None) == before


def test_several_processes_at_once_lose_nothing(tmp_path):
    path = tmp_path / "runs"
    script = (
        "import sys\nfrom calibcli.tables.atomic import Outputs\n"
        "for i in range(25):\n"
        "    with Outputs() as files:\n"
        "        files.append(sys.argv[1], f'{sys.argv[2]} {i}\\n'.encode())\n"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", script, path, str(k)]) for k in range(4)]
    assert [job.wait(60) for job in jobs] == [0] * 4
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(f"{k} {i}" for k in range(4) for i in range(25))
    for k in "0123":
        assert [each for each in lines if each[0] == k] == [f"{k} {i}" for i in range(25)]


@pytest.mark.parametrize("path", ["-", "", ".", "/dev/null", "nowhere/runs"])
def test_what_cannot_be_appended_to_is_refused(path):
    with pytest.raises(UsageError):
        check_appendable(path)


# The commands.


def test_evaluate_appends_what_it_measured(tmp_path, calib, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    runs, params = tmp_path / "runs.jsonl", tmp_path / "p.json"
    calib("fit", SAMPLES / "digits_val.parquet", "-p", params, "-q")
    asked = (SAMPLE, "-p", params, "--append", runs, "--run", "v1", "--bootstrap", "50")
    out = calib("evaluate", *asked, "--fail-if", "nll > 9", "-q", "--format", "json").out
    calib("evaluate", *asked, "-q", "--metrics", "nll")
    first, second = map(json.loads, runs.read_text().splitlines())
    measured = json.loads(out)
    assert first["metrics"] == measured["metrics"]
    assert first["time"] == "2001-09-09T01:46:40Z"
    assert (first["name"], first["rows"], first["classes"]) == ("v1", 597, 10)
    assert first["gates"] == {"passed": 1, "failed": 0}
    assert second["gates"] is None
    assert first["params_sha256"] == hashlib.sha256(params.read_bytes()).hexdigest()


def test_history_is_a_table_a_picture_and_json(runs, calib, tmp_path):
    result = calib("history", runs, "--plot", tmp_path / "h.svg")
    assert "Run 5, v4, is the first one above the band." in result.out
    assert (tmp_path / "h.svg").read_bytes().startswith(b"<?xml")
    document = json.loads(calib("history", runs, "--format", "json").out)
    (part,) = document["inputs"]
    assert part["first_out"] == 5
    assert [run["signal"] for run in part["runs"]][3:] == ["within", "high", "within"]
    assert part["runs"][0]["estimate"] == 0.02
    later = json.loads(calib("history", runs, "--format", "json", "--since", "v5").out)
    assert [run["number"] for run in later["inputs"][0]["runs"]] == [6]
    assert later["inputs"][0]["trend"]["slope"] is None


@pytest.mark.parametrize(
    ("condition", "passes"),
    [
        ("ece.trend.low > 0", True),
        ("ece.trend > 0.001", False),
        ("ece.estimate > ece.band.high", True),
        ("ece > 0.03", False),
        ("ece.low > 0.03", True),
        ("ece.band > 0.1", True),
    ],
)
def test_gates_judge_the_last_run_and_the_trend(runs, calib, condition, passes):
    result = calib("history", runs, "--fail-if", condition, "--format", "json", code=not passes)
    (gate,) = json.loads(result.out)["gates"]
    assert gate["passed"] is passes
    assert (not result.err) is passes


def test_a_trend_of_two_runs_is_not_known_and_does_not_pass(calib, tmp_path):
    path = tmp_path / "runs"
    path.write_text(line(0) + line(1))
    result = calib("history", path, "--fail-if", "ece.trend.low > 0", code=1)
    assert "it takes 3 runs that have it, and there are 2 runs" in result.err


def test_significant_takes_the_interval_of_the_slope(runs, calib):
    calib("history", runs, "--fail-if", "ece.trend > 0", code=1)
    assert "passed" in calib("history", runs, "--fail-if", "ece.trend > 0", "--significant").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metric", "nll"), "no run has nll; they have ece"),
        (("--metric", "no"), "no metric"),
        (("--input", "x"), "the runs are of test.npz"),
        (("--since", "v9"), "test.npz has no run of this name or number"),
        (("--significant",), "there is no --fail-if"),
        (("--plot", "x.gif"), "must end in .png"),
        (("--fail-if", "ece.delta > 0"), "a run has no .delta"),
        (("--fail-if", "ece.trend.estimate > 0"), "has no .estimate"),
        (("--fail-if", "slices.failed > 0"), "only calib evaluate"),
    ],
)
def test_what_history_cannot_do_is_said_in_a_line(runs, calib, arguments, message):
    result = calib("history", runs, *arguments, code=2)
    assert message in result.err
    assert result.err.count("\n") == 1


def test_append_refuses_a_file_that_is_none_of_runs(calib, tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("a,b\n")
    result = calib("evaluate", SAMPLE, "--append", path, code=2)
    assert "data.csv: line 1 is no run" in result.err
    assert path.read_text() == "a,b\n"
    assert (
        "--run names a run of --append or --log"
        in calib("evaluate", SAMPLE, "--run", "x", code=2).err
    )
    assert (
        "calib history knows" in calib("evaluate", SAMPLE, "--fail-if", "ece.trend > 0", code=2).err
    )


def test_names_cannot_command_the_terminal(calib, tmp_path):
    path = tmp_path / "runs"
    path.write_text(line(name="\x1b[31m$x$", input="\x1b]0;x") + line(1) + line(2))
    out = calib("history", path, "--plot", tmp_path / "h.png").out
    assert "\x1b" not in out


# In Python


def test_python_has_what_the_command_shows(tmp_path, calib):
    path = tmp_path / "runs.jsonl"
    values = (0.02, 0.022, 0.019, 0.05, 0.021)
    path.write_text("".join(line(number, value) for number, value in enumerate(values)))
    (part,) = json.loads(calib("history", path, "--format", "json").out)["inputs"]
    (history,) = calibcli.load_history(path)
    assert isinstance(history, calibcli.History)
    table = history.table("ece")
    assert table["run"] == [run["number"] for run in part["runs"]]
    assert table["value"] == [run["estimate"] for run in part["runs"]]
    for key in ("name", "time", "low", "high", "signal"):
        assert table[key] == [run[key] for run in part["runs"]]
    for key in ("band_low", "band_high"):
        assert math.isnan(table[key][0])
        assert table[key][1:] == [run[key] for run in part["runs"][1:]]
    first = history.first_out("ece")
    assert first is not None
    assert first.name == "v3"
    assert history.since("v4").first_out("ece") is None
    assert history.since("v3").table("ece")["run"] == [4, 5]
    trend = history.trend("ece")
    assert [trend.slope.value, trend.slope.low] == [part["trend"]["slope"], part["trend"]["low"]]


def test_python_refuses_what_is_no_history(tmp_path):
    path = tmp_path / "runs.jsonl"
    with pytest.raises(calibcli.RunsError, match=r"runs\.jsonl: No such file or directory"):
        calibcli.load_history(path)
    path.write_text("\n")
    with pytest.raises(calibcli.RunsError, match=r"runs\.jsonl: has no runs"):
        calibcli.load_history(path)
    path.write_text(line() + "{}\n")
    with pytest.raises(calibcli.RunsError, match="line 2 is no run"):
        calibcli.load_history(path)
    path.write_text(line())
    (history,) = calibcli.load_history(path)
    for ask in (history.table, history.first_out):
        with pytest.raises(calibcli.RunsError, match=r"test\.npz: no run has nll; they have ece"):
            ask("nll")
