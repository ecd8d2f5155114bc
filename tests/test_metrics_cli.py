"""``--metrics`` and ``calib metrics``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calibcli.metrics.registry import DEFAULT, METRICS

CalibHere = Callable[..., tuple[int, str, str]]
SAMPLE = Path(__file__).resolve().parents[1] / "sample_data"
TEST, VAL = SAMPLE / "digits_test.parquet", SAMPLE / "digits_val.parquet"


def measured(calib_here: CalibHere, *arguments: Any) -> dict[str, Any]:
    code, out, err = calib_here("evaluate", TEST, "-q", "--format", "json", *arguments)
    assert code == 0, err
    metrics: dict[str, Any] = json.loads(out)["metrics"]
    return metrics


def test_named_metrics_in_their_order(calib_here: CalibHere) -> None:
    found = measured(calib_here, "--metrics", "smooth_ece, nll,top3_accuracy,nll")
    assert list(found) == ["smooth_ece", "nll", "top3_accuracy"]


def test_sets_of_metrics(calib_here: CalibHere) -> None:
    assert list(measured(calib_here)) == list(DEFAULT)
    assert list(measured(calib_here, "--metrics", "default,auroc")) == [*DEFAULT, "auroc"]
    everything = measured(calib_here, "--metrics", "all")
    assert list(everything) == list(METRICS)
    assert all(part["value"] is not None for part in everything.values())


@pytest.mark.parametrize("command", ["evaluate", "fit"])
def test_unknown_metric(calib_here: CalibHere, command: str) -> None:
    code, out, err = calib_here(command, VAL, "--metrics", "nll,smoothece")
    assert (code, out) == (2, "")
    assert "no metric 'smoothece'; did you mean smooth_ece?" in err
    assert not list(Path.cwd().iterdir())


def test_fit_measures_them_before_and_after(calib_here: CalibHere) -> None:
    arguments = ("--metrics", "auroc,corp_top_miscalibration", "--format", "json", "-q")
    code, out, err = calib_here("fit", VAL, "--loss", "focal", "--no-link", *arguments)
    assert code == 0, err
    document = json.loads(out)
    for part in ("before", "after"):
        assert list(document[part]["metrics"]) == ["auroc", "corp_top_miscalibration"]


def test_long_tables_are_divided_by_what_metrics_are_about(calib_here: CalibHere) -> None:
    _, out, _ = calib_here("evaluate", TEST, "-q", "--metrics", "all")
    lines = [line.rstrip() for line in out.splitlines()]
    found = [line for line in lines if line in {metric.group for metric in METRICS.values()}]
    assert found == list(dict.fromkeys(metric.group for metric in METRICS.values()))
    assert lines[lines.index("proper scores") + 1].startswith("NLL")
    _, out, _ = calib_here("evaluate", TEST, "-q")
    assert "proper scores" not in out
    assert all(len(line) <= 100 for line in lines)


def test_scipy_is_imported_only_for_what_needs_it() -> None:
    code = (
        "import sys, numpy as np, calibcli\n"
        "def has(*names):\n"
        "    calibcli.evaluate(np.full((4, 2), 0.5), [0, 1, 1, 0], metrics=names)\n"
        "    return any(name.startswith('scipy') for name in sys.modules)\n"
        "assert not has('default', 'auroc', 'ece_sweep', 'l2_debiased', 'top_label_ece')\n"
        "assert has('smooth_ece')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SAMPLE.parent)


def test_metrics_are_listed(calib_here: CalibHere) -> None:
    code, out, _ = calib_here("metrics", "--format", "json")
    entries = {entry["name"]: entry for entry in json.loads(out)["metrics"]}
    assert code == 0
    assert list(entries) == list(METRICS)
    assert [name for name, entry in entries.items() if entry["default"]] == list(DEFAULT)
    assert entries["nll"]["better"] == "lower"
    assert entries["corp_top_uncertainty"]["better"] == "neither"
    code, out, _ = calib_here("metrics")
    assert code == 0
    assert all(f"{name}  " in out for name in METRICS)
