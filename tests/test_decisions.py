"""Decisions: what errors cost, which threshold is best, and what is gained by deciding so."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibcli.errors import UsageError
from calibcli.metrics.costs import ARGMAX_COST, COST, Costs, decide_from
from calibcli.metrics.panel import Panel
from calibcli.metrics.registry import METRICS
from calibcli.metrics.view import View
from calibcli.workflow.pricing import given_costs, parse_costs

Array = np.ndarray[Any, Any]


def as_two(odds: Array) -> Array:
    return np.stack((np.zeros_like(odds), odds), axis=1)


def calibrated(rows: int, seed: int = 0) -> tuple[Array, Array]:
    """Log-odds of calibrated probabilities, and labels."""
    rng = np.random.default_rng(seed)
    odds = 1.5 * rng.standard_normal(rows) - 1
    return odds, (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int64)


# ---- costs ----


def test_the_threshold_is_where_both_decisions_are_expected_to_cost_the_same():
    costs = Costs.of_errors(2, 30, true_positive=-5, true_negative=1)
    threshold = costs.threshold
    assert threshold == pytest.approx((2 - 1) / ((2 - 1) + (30 + 5)))
    expected = np.array([1 - threshold, threshold]) @ costs.matrix
    assert expected[0] == pytest.approx(expected[1])
    assert costs.outcomes == (2, 30, -5, 1)


@pytest.mark.parametrize("positive", [0, 1])
def test_costs_by_outcome_are_about_the_positive_class(positive: int):
    costs = Costs.of_errors(1, 9, positive=positive)
    assert costs.matrix[positive, 1 - positive] == 9
    assert costs.matrix[1 - positive, positive] == 1
    assert costs.outcomes == (1, 9, 0, 0)
    assert costs.threshold == 0.1
    probs = np.array([[0.95, 0.05], [0.5, 0.5], [0.05, 0.95]])
    decision, expected = costs.least(probs)
    assert decision.tolist() == [positive if p[positive] >= 0.1 else 1 - positive for p in probs]
    assert expected == pytest.approx((probs @ costs.matrix).min(axis=1))


def test_a_matrix_decides_by_least_expected_cost():
    matrix = np.array([[0, 1, 1], [20, 0, 1], [1, 1, 0]])
    costs = Costs.of_matrix(matrix)
    assert costs.threshold is None
    probs = np.array([[0.9, 0.08, 0.02], [0.97, 0.02, 0.01], [0.1, 0.2, 0.7]])
    decision, expected = costs.least(probs)
    # 1.6 is expected of the first decision for the most probable class, 0.92 of this one.
    assert decision.tolist() == [1, 0, 2]
    assert expected == pytest.approx([0.92, 0.41, 0.3])
    view = View(np.log(probs), np.array([1, 1, 0]), np.array([1.0, 2.0, 0.5]))
    cost, argmax = (m.with_costs(costs) for m in (COST, ARGMAX_COST))
    read = [m.value(m.statistic.finish(m.statistic.partial(view))) for m in (cost, argmax)]
    assert read == pytest.approx([(0 + 2 * 20 + 0.5) / 3.5, (20 + 40 + 0.5) / 3.5])


def test_where_all_errors_cost_the_same_the_cost_is_the_error_rate():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((400, 5)), rng.integers(0, 5, 400)
    cost = COST.with_costs(Costs.of_matrix(3 * (1 - np.eye(5))))
    accuracy = METRICS["accuracy"].measure(logits, labels)
    assert cost.measure(logits, labels) == pytest.approx(3 * (1 - accuracy))
    assert METRICS["argmax_cost"].measure(logits, labels) == pytest.approx(1 - accuracy)


def test_a_probability_at_the_threshold_decides_for_the_positive_class():
    at = np.array([0.2, np.nextafter(0.2, 0), 0.0, 1.0])
    assert decide_from(at, 0.2).tolist() == [1, 0, 0, 1]
    assert decide_from(at, 0.0).tolist() == [1, 1, 1, 1]
    assert decide_from(at, 1.0, positive=0).tolist() == [1, 1, 1, 0]


def test_of_calibrated_probabilities_no_other_threshold_costs_less():
    odds, labels = calibrated(200_000)
    costs = Costs.of_errors(1, 4)
    here = COST.with_costs(costs).measure(as_two(odds), labels)
    probs = 1 / (1 + np.exp(-odds))
    for threshold in (0.02, 0.1, 0.15, 0.26, 0.35, 0.5):
        there = costs.realised(labels, decide_from(probs, threshold)).mean()
        assert here < there, threshold


def test_equal_costs_are_equal_and_travel():
    costs = Costs.of_errors(1, 50)
    assert costs == Costs.of_matrix([[0, 1], [50, 0]])
    assert pickle.loads(pickle.dumps(costs)) == costs  # noqa: S301 (our own bytes)
    assert costs != Costs.of_errors(1, 51)
    panel = Panel(["cost", "cost"], costs=costs)
    assert [metric.name for metric in panel.metrics] == ["cost", "argmax_cost"]
    assert panel.metrics[0] == COST.with_costs(Costs.of_errors(1, 50))


def test_a_cost_without_costs_is_refused():
    with pytest.raises(UsageError, match="cost: nothing says what errors cost; add --cost"):
        _ = Panel(["cost"]).metrics
    assert "cost" not in {metric.name for metric in Panel(["all"]).metrics}


# ---- what users say ----


def test_costs_come_from_text_files_and_python(tmp_path: Path):
    matrix = np.array([[0.0, 1.0, 2.0], [3.0, 0.0, 4.5], [5.0, 6.0, -1.0]])
    (tmp_path / "a.json").write_text(json.dumps(matrix.tolist()))
    np.savetxt(tmp_path / "a.csv", matrix, delimiter=",")
    np.save(tmp_path / "a.npy", matrix)
    expected = Costs.of_matrix(matrix)
    for name in ("a.json", "a.csv", "a.npy"):
        assert parse_costs(str(tmp_path / name)).of(3, "auto") == expected
    assert given_costs(matrix.tolist()).of(3, "auto") == expected
    assert parse_costs("fn=50, fp=1").of(2, "auto") == Costs.of_errors(1, 50)
    assert parse_costs("fp=1,fn=5,tp=-2,tn=0.5").of(2, 0) == Costs.of_errors(
        1, 5, -2, 0.5, positive=0
    )
    assert given_costs({"fp": 1, "fn": 50}).of(2, "top") == Costs.of_errors(1, 50)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fp=1", r"what a false negative costs is missing \(fn=\)"),
        ("fp=1,fn=a", "'a' is not a number"),
        ("fp=1,fn=2,fp=3", "'fp=3' is not one of fp=, fn=, tp= and tn=, each once"),
        ("fp=1,fn=2,", "'' is not one of"),
        ("fp=1,fn=2,cost=3", "there is no 'cost'; there are fp, fn, tp and tn"),
        ("fp=nan,fn=2", "fp=nan is no cost"),
        ("fp=1,fn=inf", "fn=inf is no cost"),
        ("fp=1,fn=1e300", r"fn=1e\+300 is no cost"),
        ("fp=-1,fn=2", r"a false positive costs -1, less than a true negative \(0\)"),
        ("fp=1,fn=2,tp=3", r"a false negative costs 2, less than a true positive \(3\)"),
        ("2", r"give fp=X,fn=Y, or a matrix in a file: .json, .csv or .npy"),
        ("nowhere.csv", "No such file or directory"),
    ],
)
def test_costs_that_say_nothing_are_refused_in_a_line(text: str, message: str):
    with pytest.raises(UsageError, match=message) as error:
        parse_costs(text)
    assert str(error.value).startswith(f"--cost {text}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"[[0, 1], [1]]", "must hold a square of numbers"),
        ("a.json", b"[" * 100_000, "must hold a square of numbers"),
        ("a.json", b'[[0, "1"], [1, 0]]', "must hold numbers only"),
        ("a.json", b'{"fp": 1}', "must hold"),
        ("a.json", b"\xff\xfe", "must hold a square of numbers"),
        ("a.json", b"", "must hold a square of numbers"),
        ("a.json", b"[[0, NaN], [1, 0]]", "the cost of deciding 1 where 0 is true is nan"),
        ("a.json", b"[[true, false], [false, true]]", "must hold numbers only"),
        ("a.json", b"[0, 1]", "costs must be a square, a row a true class, not 2"),
        ("a.json", b"[[0, 1, 2], [1, 0, 2]]", "costs must be a square, a row a true class, not 2"),
        ("a.json", b"[[[0, 1], [1, 0]]]", "costs must be a square"),
        ("a.json", b"[[0, 1e30], [1, 0]]", r"1e\+30 is no cost"),
        ("a.json", b"[[1, 0], [1, 0]]", "where class 0 is true, deciding 1 costs 0, and being"),
        ("a.json", b"[[0, 0], [0, 0]]", "no error costs more than being right"),
        ("a.json", b"[[0,1,1],[1,0,1],[1,1,0]]", "is for 3 classes; here are 2"),
        ("a.csv", b"", "costs must be a square"),
        ("a.csv", b"0,x\n1,0\n", "must hold a square of numbers"),
        ("a.csv", b"0,1\n1\n", "must hold a square of numbers"),
        ("a.csv", b"0,\x00\n1,0", "must hold a square of numbers"),
        ("a.npy", b"\x93NUMPY", "must hold a square of numbers"),
        ("a.npy", pickle.dumps([[0, 1], [1, 0]]), "must hold a square of numbers"),
        ("a.txt", b"0 1", "give fp=X,fn=Y, or a matrix in a file"),
    ],
)
def test_files_that_are_no_costs_are_refused_in_a_line(
    tmp_path: Path, name: str, content: bytes, message: str
):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        parse_costs(str(path)).of(2, "auto")
    assert str(error.value).startswith(f"--cost {path}: ")
    assert "\n" not in str(error.value)


def test_fp_and_fn_are_for_two_classes():
    with pytest.raises(UsageError, match="fp and fn are for two classes; here are 3"):
        parse_costs("fp=1,fn=2").of(3, "auto")
