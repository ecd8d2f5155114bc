"""What hostile or clumsy input broke: each ends in results or in one line, never in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibcli.calibrators.binning import platt_values
from calibcli.calibrators.curves import BinarySample
from calibcli.metrics.confidence import cumulated_curve
from calibcli.metrics.equal_mass import equal_mass_edges
from calibcli.metrics.resampling import tail_share
from calibcli.metrics.row_mean import MeanSample

ROOT = Path(__file__).resolve().parents[1]
ROWS, CLASSES = 200, 4

CalibHere = Callable[..., tuple[int, str, str]]
Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """``save("v.npz", rows=2, weights=...)``: a file of random rows; arrays take their place."""

    def write(name: str = "v.npz", *, rows: int = ROWS, **arrays: Any) -> Path:
        generator = np.random.default_rng(3)
        logits = 3 * generator.normal(size=(rows, CLASSES))
        labels = (logits / 2 + generator.gumbel(size=logits.shape)).argmax(axis=1)
        path = tmp_path / name
        np.savez(path, **{"logits": logits, "labels": labels, **arrays})
        return path

    return write


def refusal(outcome: tuple[int, str, str]) -> str:
    """The last line of a refused command, which printed no result."""
    code, out, err = outcome
    assert code == 2, err
    assert not out
    assert all(line.startswith("calib: ") for line in err.splitlines())
    return err.splitlines()[-1]


# Few rows


def test_two_clusters_have_intervals(calib_here: CalibHere, save: Save) -> None:
    path = save(patient=np.arange(ROWS) % 2)
    flags = ("--cluster", "patient", "--format", "json", "-q")
    code, out, err = calib_here("evaluate", path, *flags)
    assert (code, err) == (0, "")
    nll = json.loads(out)["metrics"]["nll"]
    assert nll["low"] <= nll["value"] <= nll["high"]


def test_a_tail_of_two_bags_is_not_lost_in_rounding() -> None:
    tail = tail_share(2)
    assert 0 < tail < 1e-20
    sample = MeanSample(np.array([1.0, 2.0, 3.0]), np.array([-1.0, 1.0]), tail)
    assert sample.interval == (1, 3)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("flags", [("--tune",), ("--tune", "--average-folds")])
def test_a_fold_that_has_all_rows(
    calib_here: CalibHere, save: Save, rows: int, flags: tuple[str, ...]
) -> None:
    code, out, err = calib_here(
        "fit", save(rows=rows), "-m", "svs", *flags, "-q", "--format", "json"
    )
    assert (code, err) == (0, "")
    assert np.isfinite(json.loads(out)["after"]["metrics"]["nll"]["value"])


# Numbers that no model gives


@pytest.mark.parametrize("value", [1e16, -1e16, 1e300, float(np.finfo(np.float32).min)])
def test_logits_whose_squares_overflow_are_refused(
    calib_here: CalibHere, save: Save, value: float
) -> None:
    path = save()
    logits = np.load(path)["logits"]
    logits[17, 2] = value
    line = refusal(calib_here("evaluate", save(logits=logits)))
    assert "v.npz, row 17: the score of class 2 is beyond 1e+15" in line


def test_a_mask_of_a_billion_is_a_logit(calib_here: CalibHere, save: Save) -> None:
    logits = np.random.default_rng(0).normal(size=(ROWS, CLASSES + 1))
    logits[:, CLASSES] = -1e9
    code, _, err = calib_here("fit", save(logits=logits), "-m", "temperature,sms", "-q")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("weight", [1e300, 1e16, 1e-300])
def test_weights_whose_powers_overflow_or_vanish_are_refused(
    calib_here: CalibHere, save: Save, weight: float
) -> None:
    path = save(weights=np.full(ROWS, weight))
    line = refusal(calib_here("evaluate", path, "--weights", "weights"))
    assert f"v.npz, row 0: the weight {weight} is neither 0 nor between 1e-15 and 1e+15" in line


def test_weights_far_apart_are_measured(calib_here: CalibHere, save: Save) -> None:
    weights = 10 ** np.random.default_rng(1).uniform(-15, 15, ROWS)
    flags = ("--weights", "weights", "--metrics", "all", "--tests", "--by-class", "-q")
    code, out, err = calib_here("evaluate", save(weights=weights), *flags, "--format", "json")
    assert (code, err) == (0, "")
    metrics = json.loads(out)["metrics"]
    assert all(metric["value"] is not None for metric in metrics.values())


def test_confidences_whose_weight_is_lost_in_the_sum_are_left_out() -> None:
    own = np.array([1e-30, 1e30, 1e-30, 1e30])
    curve = cumulated_curve(np.array([0.1, 0.2, 0.3, 0.4]), np.cumsum(own), np.cumsum(own))
    assert curve.confidence.tolist() == [0.1, 0.2, 0.4]
    assert (curve.own_weight > 0).all()
    assert np.isfinite(equal_mass_edges(curve)).all()


@pytest.mark.parametrize("method", ["dirichlet", "matrix", "curved-sms"])
def test_a_model_that_is_surely_wrong(calib_here: CalibHere, save: Save, method: str) -> None:
    labels = np.arange(ROWS) % CLASSES
    path = save(logits=-20 * np.eye(CLASSES)[labels], labels=labels)
    code, _, err = calib_here("fit", path, "-m", method, "-q")
    assert (code, err) == (0, "")


def test_platt_of_a_score_far_from_those_that_count() -> None:
    scores = np.array([-1e5, *np.linspace(-1, 1, 50)])
    positives = (scores + np.tile([0.3, -0.4, 0.1], 17) > 0).astype(float)
    weights = np.array([1e-12, *np.ones(50)])
    values = platt_values(BinarySample(scores, positives, weights))
    assert values[0] < 1e-300
    assert (np.diff(values) >= 0).all()


# Options that do not go together


@pytest.mark.parametrize("flags", [("--allow-zero",), ("--set", "isotonic.allow-zero=true")])
def test_no_zeros_in_maps_of_groups(
    calib_here: CalibHere, save: Save, flags: tuple[str, ...]
) -> None:
    path = save(task=np.arange(ROWS) % 2)
    line = refusal(calib_here("fit", path, "-m", "isotonic", "--by", "task", *flags))
    assert line.endswith("leave out --allow-zero or --by")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("fit v.npz -p a.json --trace a.json", "-p and --trace are both a.json"),
        ("fit v.npz -o a.npz --trace ./a.npz", "-o and --trace are both ./a.npz"),
        ("fit v.npz -p a.json --openmetrics a.json", "-p and --openmetrics are both a.json"),
        ("evaluate v.npz --report a.html --openmetrics a.html", "--report and --openmetrics are"),
        ("evaluate v.npz --openmetrics a.xml --junit a.xml --fail-if ece>0", "are both a.xml"),
        ("fit v.npz -p - --trace -", "-p - and --trace -: only one can go to standard output"),
    ],
)
def test_outputs_of_one_name_are_refused(
    calib_here: CalibHere, save: Save, tmp_path: Path, line: str, complaint: str
) -> None:
    save()
    assert complaint in refusal(calib_here(*line.split(), "--force"))
    assert [path.name for path in tmp_path.iterdir()] == ["v.npz"]


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_folds_have_an_end(calib_here: CalibHere, save: Save, command: str) -> None:
    line = refusal(calib_here(command, save(), "--folds", "1000000"))
    assert "--folds" in line
    assert "1000" in line


@pytest.mark.parametrize("line", ["fit v.npz --trace", "evaluate v.npz --openmetrics"])
def test_no_report_takes_the_place_of_an_input(
    calib_here: CalibHere, save: Save, tmp_path: Path, line: str
) -> None:
    content = save().read_bytes()
    assert "v.npz: is an input" in refusal(calib_here(*line.split(), "v.npz", "--force", "-q"))
    assert (tmp_path / "v.npz").read_bytes() == content


def test_a_baseline_of_no_measurement(calib_here: CalibHere, save: Save, tmp_path: Path) -> None:
    (tmp_path / "methods.json").write_text(calib_here("methods", "--format", "json")[1])
    flags = ("--baseline", "methods.json", "--fail-if", "ece.delta > 0")
    assert "a baseline is of calib evaluate or fit" in refusal(
        calib_here("evaluate", save(), *flags)
    )


# Whoever does not listen


def _with_deaf_stderr(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, "-m", "calibcli", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=writing,
            timeout=120,
            check=False,
        )
    finally:
        os.close(writing)


def test_the_work_is_done_though_nobody_reads_the_talk(save: Save, tmp_path: Path) -> None:
    save()
    done = _with_deaf_stderr(tmp_path, "fit", "v.npz")
    assert done.returncode == 0
    assert b"NLL" in done.stdout
    assert (tmp_path / "v.params.json").is_file()


@pytest.mark.parametrize(("gate", "code"), [("ece > 0", 1), ("ece > 1", 0)])
def test_gates_are_judged_though_nobody_reads_the_talk(
    save: Save, tmp_path: Path, gate: str, code: int
) -> None:
    save()
    done = _with_deaf_stderr(tmp_path, "evaluate", "v.npz", "--fail-if", gate)
    assert done.returncode == code
    assert done.stdout
