"""A calibrator in a service: one row at a time, in what callers have, on many threads."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from every_stage import calibrators_of_every_kind

import calibcli
from calibcli.arrays import log_softmax, softmax
from calibcli.calibrators.base import Calibrator
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.params import Params
from calibcli.workflow.applying import (
    calibrated_chunks,
    probabilities_at_once,
    probabilities_on_device,
)

RNG = np.random.default_rng(0)
CLASSES = (2, 3)
ALL = {classes: calibrators_of_every_kind(classes) for classes in CLASSES}
EVERY = [
    pytest.param(classes, stage, id=f"{stage.kind}-{classes}")
    for classes in CLASSES
    for stage in ALL[classes]
]


def calibrator(classes: int, *stages: Calibrator, kind: str = "logits") -> Any:
    return calibcli.FittedCalibrator(Params(classes, kind, ()), stages)


def by_chunks(stages: tuple[Calibrator, ...], scores: np.ndarray, kind: str) -> np.ndarray:
    source = ArraySource(scores, None, None, kind)
    parts = calibrated_chunks(Engine(threads=1), source, source.chunks(1000), stages)
    return np.concatenate([part.probs for part in parts])


@pytest.mark.parametrize(("classes", "stage"), EVERY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_at_once_have_the_bytes_of_rows_by_chunks(classes, stage, dtype):
    scores = 5 * RNG.normal(size=(203, classes))
    scores[::7, 1] = scores[::7, 0]
    scores[3, 0], scores[4, 1], scores[5, 0] = 1e4, -1e4, -np.inf
    stored = {"logits": scores, "log-probs": log_softmax(scores), "probs": softmax(scores)}
    for kind, values in stored.items():
        rows = values.astype(dtype)
        for part in (rows, rows[:1], rows[5:6], rows[:9]):
            probs = probabilities_at_once((stage,), part, kind)
            assert probs is not None
            assert probs.flags.c_contiguous
            expected = by_chunks((stage,), part, kind)
            assert (probs.dtype, probs.tobytes()) == (expected.dtype, expected.tobytes())


def test_a_fitted_calibrator_takes_this_way(monkeypatch):
    fitted = calibrator(3, *ALL[3][:2])
    expected = fitted.predict_proba(np.ones((2, 3)))
    monkeypatch.setattr(type(fitted), "_by_chunks", lambda *_: pytest.fail("went by chunks"))
    assert np.array_equal(fitted.predict_proba(np.ones((2, 3))), expected)


@pytest.mark.parametrize(
    ("kind", "rows", "line"),
    [
        ("logits", [[0.0, 1.0], [np.nan, 1.0]], "row 1: the score of class 0 is NaN"),
        ("logits", [[0.0, 1.0], [np.inf, 1.0]], r"row 1: the score of class 0 is \+inf"),
        ("logits", [[-np.inf, -np.inf]], "row 0: every class has the logit -inf"),
        ("log-probs", [[-1.0, -0.5], [-1.0, 0.5]], "row 1: the score of class 1 is 0.5"),
        ("probs", [[0.5, 0.5], [-0.5, 1.0]], "row 1: the score of class 0 is -0.5"),
        ("probs", [[0.5, 1.5]], "row 0: the score of class 1 is 1.5"),
        ("probs", [[0.5, np.nan]], "row 0: the score of class 1 is NaN"),
    ],
)
@pytest.mark.parametrize("stages", [ALL[2][:1], ALL[2]], ids=["none", "all"])
def test_rows_without_probabilities_are_refused_by_their_place(kind, rows, line, stages):
    for stage in stages:
        with pytest.raises(calibcli.DataError, match=line):
            calibrator(2, stage, kind=kind).predict_proba(np.array(rows))


def test_an_unknown_kind_of_scores_is_refused():
    with pytest.raises(calibcli.UsageError, match="input 'odds' is not known"):
        calibrator(2).predict_proba(np.ones((1, 2)), input="odds")


def test_threads_share_a_calibrator():
    fitted = calibrator(3, *(stage for stage in ALL[3] if stage.kind in ("vector", "one-vs-rest")))
    rows = 3 * RNG.normal(size=(400, 3))
    expected = [fitted.predict_proba(rows[i : i + 1]).tobytes() for i in range(len(rows))]
    with ThreadPoolExecutor(8) as pool:
        got = pool.map(lambda i: fitted.predict_proba(rows[i : i + 1]).tobytes(), range(len(rows)))
        assert list(got) == expected


# What callers have


def test_a_row_and_a_number_give_a_row():
    two, three = calibrator(2), calibrator(3)
    z = 1.25
    p = 1 / (1 + np.exp(-z))
    for number in (z, np.float64(z), np.array(z)):
        assert two.predict_proba(number) == pytest.approx([1 - p, p], rel=1e-15)
    assert two.predict_proba(p, input="probs") == pytest.approx([1 - p, p], rel=1e-12)
    row = [0.5, -1.0, 2.0]
    expected = three.predict_proba([row])[0]
    for given in (row, tuple(row), np.array(row)):
        assert np.array_equal(three.predict_proba(given), expected)
    assert np.array_equal(two.predict_proba([z, 0.0]), two.predict_proba([[z], [0.0]]))


def test_whole_numbers_are_taken_exactly_and_half_precision_as_single():
    three = calibrator(3)
    assert three.predict_proba([[1, 2, 3]]).dtype == np.float64
    half = three.predict_proba(np.array([[1, 2, 3]], np.float16))
    assert half.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.longdouble, ">f8", np.int8])
def test_a_row_of_any_type_of_numbers_is_taken(dtype):
    rows = np.array([[1, -2, 3], [0, 0, 4]]).astype(dtype)
    for stage in ALL[3]:
        fitted = calibrator(3, stage)
        alone = [fitted.predict_proba(row) for row in rows]
        np.testing.assert_allclose(alone, fitted.predict_proba(rows), atol=1e-6)


def test_decisions_and_intervals_take_a_row_too():
    two = calibrator(2)
    assert two.decide([1.0, -1.0], threshold=0.5).tolist() == [1, 0]
    assert two.decide(1.0, threshold=0.5).tolist() == [1]


@pytest.mark.parametrize(
    ("scores", "line"),
    [
        ([["a", "b"]], "scores must be numbers"),
        ([[1.0, 2.0], [3.0]], "scores cannot be made an array"),
        (np.ones((1, 1, 3)), r"scores must have the shape \(n, K\), not \(1, 1, 3\)"),
        (1.0, r"scores must have the shape \(n, K\), not \(\)"),
        ([1.0, 2.0], r"scores must have the shape \(n, K\), not \(2,\)"),
        (np.ones((1, 4)), "the scores have 4 classes, the calibrator 3"),
        (None, "scores must be numbers"),
    ],
)
def test_what_is_no_rows_of_scores_is_refused(scores, line):
    with pytest.raises(calibcli.DataError, match=line):
        calibrator(3).predict_proba(scores)


def test_tensors_give_tensors():
    torch = pytest.importorskip("torch")
    three = calibrator(3, *ALL[3][:2])
    rows = RNG.normal(size=(4, 3))
    expected = three.predict_proba(rows)
    probs = three.predict_proba(torch.from_numpy(rows).requires_grad_())
    assert isinstance(probs, torch.Tensor)
    assert probs.dtype == torch.float64
    assert np.array_equal(probs.numpy(), expected)
    assert three.predict_proba(torch.from_numpy(rows[0])).shape == (3,)
    half = three.predict_proba(torch.from_numpy(rows).bfloat16())
    assert half.dtype == torch.float32


@pytest.mark.parametrize(("classes", "stage"), EVERY)
def test_tensors_on_a_device_are_calibrated_there(classes, stage):
    torch = pytest.importorskip("torch")
    rows = 3 * RNG.normal(size=(20, classes))
    probs = probabilities_on_device((stage,), torch.from_numpy(rows), "logits")
    assert isinstance(probs, torch.Tensor)
    np.testing.assert_allclose(probs, probabilities_at_once((stage,), rows, "logits"), rtol=1e-9)
    rows[2, 1] = np.nan
    assert probabilities_on_device((stage,), torch.from_numpy(rows), "logits") is None
    surplus = torch.full((1, classes), 0.5)
    assert probabilities_on_device((stage,), surplus, "log-probs") is None


# Its start


def test_a_service_loads_neither_files_of_data_nor_the_command_line(tmp_path):
    path = tmp_path / "p.json"
    calibcli.fit([[3, 0], [0, 3], [3, 0], [0, 3]], [0, 1, 1, 1], folds=0).save(path)
    code = (
        "import sys, numpy, calibcli\n"
        f"print(calibcli.load({str(path)!r}).predict_proba(numpy.ones((1, 2))))\n"
        "print(*(name for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    probs, _, modules = done.stdout.partition("\n")
    assert probs == "[[0.5 0.5]]"
    names = set(modules.split())
    assert not {"pyarrow", "typer", "scipy", "torch", "threadpoolctl"} & names
    parts = {name.split(".")[1] for name in names if name.startswith("calibcli.")}
    assert not parts & {"cli", "tables", "fitting", "metrics", "objectives", "report", "schema"}
