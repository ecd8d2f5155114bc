"""What is done once, and in the cache, where rows have very many classes: half precision first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import CalibHere

from calibcli.arrays import are_finite_halves
from calibcli.calibrators.temperature import TemperatureMap
from calibcli.cell_sums import CellSums
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.errors import DataError
from calibcli.fitting.problem import Problem
from calibcli.metrics.panel import Panel
from calibcli.metrics.resampling import Bootstrap
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.workflow.fitted_plans import fit_plan
from calibcli.workflow.plans import make_plan


def rows_of(rows: int, classes: int, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    scores = (2 * rng.standard_normal((rows, classes))).astype(dtype)
    scores[np.arange(rows), rng.integers(0, classes, rows)] += 12
    drawn = scores.astype(np.float64) / 1.6 + rng.gumbel(size=scores.shape)
    return scores, drawn.argmax(axis=1)


def test_the_bits_of_halves_tell_whether_they_are_finite() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for half in halves:
        assert are_finite_halves(half.reshape(1, 1)) == bool(np.isfinite(half))
    assert not are_finite_halves(np.zeros((2, 2), np.float32))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_no_number_is_found_with_its_place(wrong: float, sign: int) -> None:
    scores, labels = rows_of(40, 3000, np.float16)
    scores[17, 2999] = sign * wrong
    source = ArraySource(scores, labels)
    if sign * wrong == -np.inf:
        assert open_data(Engine(), source).impossible
        return
    with pytest.raises(DataError, match="row 17: the score of class 2999"):
        open_data(Engine(), source)


def test_a_scale_has_the_derivatives_of_its_likelihood() -> None:
    scores, labels = rows_of(30, 900)
    scores = scores.astype(np.float64)
    family = TemperatureMap()
    for scale in (0.03, 0.7, 4.0):

        def short(at: float) -> np.ndarray:
            along = family.likelihood_along(np.array([at]), scores, labels)
            assert along is not None
            return along

        loss, first, second, third = short(scale)
        terms = NegativeLogLikelihood().terms(scores * scale, labels)
        np.testing.assert_allclose(loss, terms.loss, rtol=1e-12, atol=1e-12)
        for known, found in zip(terms.along(scores), (first, second), strict=True):
            np.testing.assert_allclose(found, known, rtol=1e-9, atol=1e-9)
        step = 1e-4 * scale
        slope = (short(scale + step)[2] - short(scale - step)[2]) / (2 * step)
        np.testing.assert_allclose(third, slope, rtol=1e-5, atol=1e-5 * np.abs(slope).max())


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_last_step_ends_at_the_optimum(dtype: type) -> None:
    scores, labels = rows_of(3000, 500, dtype)
    data = open_data(Engine(), ArraySource(scores, labels), folds=5)
    plan = make_plan("temperature")
    fitted = fit_plan(plan.rows_of(data), plan)
    solution = fitted.fit.stages[0].solution
    assert solution is not None
    problem = Problem(data, TemperatureMap(), NegativeLogLikelihood(), np.ones(1))
    there = problem.line(solution.theta)
    assert solution.value == pytest.approx(there.value, abs=5e-7)
    assert there.second is not None
    assert there.first**2 / there.second / 2 < 1e-12
    for fold, without in enumerate(fitted.without_folds):
        found = without.stages[0].solution
        assert found is not None
        outside = Problem(data.without_fold(fold), problem.map, problem.objective, np.ones(1))
        there = outside.line(found.theta)
        assert there.second is not None
        assert there.first**2 / there.second / 2 < 1e-9


def test_lists_of_cells_are_sums_of_cells() -> None:
    rng = np.random.default_rng(2)
    for counted in (True, False):
        codes = [rng.integers(0, 5000, size) for size in (3, 0, 40, 1, 400, 7)]
        values = [None if counted else rng.random(len(each)) for each in codes]
        sums = [CellSums.of(*pair, 5000) for pair in zip(codes, values, strict=True)]
        total = sums[0]
        for each in sums[1:]:
            total = total.plus(each)
        weights = None if counted else np.concatenate(values)
        expected = np.bincount(np.concatenate(codes), weights, 5000)
        np.testing.assert_allclose(total.everywhere(), expected, rtol=1e-12)


class TestClassWise:
    """Errors by class where there is no room for their intervals."""

    def test_they_are_left_out_with_a_line(self) -> None:
        few, many = (Panel(bootstrap=Bootstrap(), classes=each) for each in (4369, 4370))
        assert few.note is None
        assert "class_wise_ece" in [metric.name for metric in few.metrics]
        assert "class_wise_ece" not in [metric.name for metric in many.metrics]
        assert many.note is not None
        assert "class-wise ECE: left out for 4,370 classes" in many.note
        assert "--metrics default,class_wise_ece" in many.note

    def test_what_is_asked_for_has_no_interval_and_says_so(self) -> None:
        asked = Panel(("default", "class_wise_ece"), bootstrap=Bootstrap(), classes=5000)
        assert "class_wise_ece" in [metric.name for metric in asked.metrics]
        assert asked.note is not None
        assert "without interval for 5,000 classes" in asked.note
        assert Panel(("class_wise_ece",), classes=5000).note is None

    @pytest.mark.parametrize("metrics", ["default", "default,class_wise_ece"])
    def test_evaluate_says_it(self, calib_here: CalibHere, tmp_path: Path, metrics: str) -> None:
        scores, labels = rows_of(60, 5000, np.float16)
        np.savez(tmp_path / "rows.npz", logits=scores, labels=labels)
        code, out, err = calib_here("evaluate", "rows.npz", "--metrics", metrics)
        assert code == 0
        asked = metrics != "default"
        assert ("without interval" if asked else "left out") in " ".join(err.split())
        assert ("class-wise ECE" in out) == asked
