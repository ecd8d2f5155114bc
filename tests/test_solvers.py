"""What solvers know of curvature: exact where it is whole, harmless where it is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibcli.calibrators.affine import (
    DirichletMap,
    MatrixMap,
    StructuredMatrixMap,
    StructuredVectorMap,
    VectorMap,
)
from calibcli.calibrators.class_blocks import BlockedMatrixCurvature
from calibcli.calibrators.curvature import MatrixCurvature, PairCurvature
from calibcli.calibrators.curved import CurvedMatrixMap
from calibcli.calibrators.ensemble_temperature import EnsembleTemperatureMap
from calibcli.calibrators.identity import Identity
from calibcli.engine.data import Data, open_data
from calibcli.engine.engine import Engine
from calibcli.engine.folds import Folds, Subset
from calibcli.engine.source import ArraySource
from calibcli.fitting import saddle_free
from calibcli.fitting.lbfgs import CERTIFIED_GAP, solve_lbfgs
from calibcli.fitting.newton import solve_newton
from calibcli.fitting.problem import Problem, sample_log_probs
from calibcli.objectives.nll import NegativeLogLikelihood


def rows(count: int = 600, classes: int = 4, *, weighted: bool = True) -> Data:
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((count, classes))
    labels = (0.6 * logits + 0.2 * np.arange(classes) + rng.gumbel(size=logits.shape)).argmax(1)
    weights = rng.random(count) + 0.5 if weighted else None
    return open_data(Engine(), ArraySource(logits, labels, weights)).after(Identity())


def problem_of(family, data: Data) -> Problem:
    return Problem(data, family, NegativeLogLikelihood(), family.anchor(data.classes, 1.0))


@pytest.mark.parametrize("family", [VectorMap(penalty=0.1), MatrixMap(), StructuredMatrixMap()])
def test_a_dense_metric_is_the_inverse_hessian(family) -> None:
    problem = problem_of(family, rows())
    theta = problem.anchor + 0.1 * np.random.default_rng(1).standard_normal(len(problem.anchor))
    preconditioner = problem.preconditioner(theta)
    assert preconditioner is not None
    for direction in np.eye(len(theta)):
        np.testing.assert_allclose(
            problem.product(theta, preconditioner(direction)), direction, atol=1e-5
        )


@pytest.mark.parametrize(
    ("family", "curvature"),
    [
        (StructuredVectorMap(), PairCurvature()),
        (StructuredMatrixMap(), MatrixCurvature()),
        (StructuredMatrixMap(), BlockedMatrixCurvature()),
        (DirichletMap(penalty=0.01), BlockedMatrixCurvature()),
    ],
)
def test_an_approximate_metric_is_symmetric_positive_and_leads_to_the_minimum(
    family, curvature, monkeypatch
) -> None:
    monkeypatch.setattr(type(family), "curvature", lambda *_: curvature)
    problem = problem_of(family, rows(classes=6))
    preconditioner = problem.preconditioner(problem.anchor)
    assert preconditioner is not None
    matrix = np.stack([preconditioner(unit) for unit in np.eye(len(problem.anchor))])
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-9 * np.abs(matrix).max())
    assert np.linalg.eigvalsh(matrix).min() > 0
    found = solve_lbfgs(problem, problem.anchor)
    exact = solve_newton(problem, problem.anchor, tolerance=1e-10)
    assert found.converged
    assert found.value == pytest.approx(exact.value, rel=CERTIFIED_GAP, abs=0)


def placed_curve(data: Data) -> CurvedMatrixMap:
    family = CurvedMatrixMap(pieces=5)
    return family.placed(*sample_log_probs(data, family, 10_000))


@pytest.mark.parametrize("curved", [False, True])
def test_blocks_bend_along_features_as_the_likelihood_does(curved: bool, monkeypatch) -> None:
    monkeypatch.setattr(MatrixMap, "curvature", lambda *_: BlockedMatrixCurvature())
    data, classes = rows(classes=6), 6
    family = placed_curve(data) if curved else StructuredMatrixMap()
    problem = problem_of(family, data)
    others = len(problem.anchor) - classes * (classes + 1)
    theta = problem.anchor + 0.1 * np.random.default_rng(1).standard_normal(len(problem.anchor))
    preconditioner = problem.preconditioner(theta)
    assert preconditioner is not None
    inverse = np.stack([preconditioner(unit) for unit in np.eye(len(theta))])
    np.testing.assert_allclose(inverse, inverse.T, atol=1e-9 * np.abs(inverse).max())
    assert np.linalg.eigvalsh(inverse).min() > 0
    metric = np.linalg.inv(inverse)
    rng = np.random.default_rng(2)
    for _ in range(5):
        biases, of_mean, own = rng.standard_normal((3, classes))
        matrix = np.repeat(of_mean[:, None], classes, 1) / classes + np.diag(own)
        along = np.concatenate((rng.standard_normal(others), matrix.ravel(), biases))
        exact = float(along @ problem.product(theta, along))
        assert along @ metric @ along == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("curved", [False, True])
def test_blocks_spare_most_of_the_steps(curved: bool, monkeypatch) -> None:
    data = rows(1500, 20, weighted=False)
    family = placed_curve(data) if curved else StructuredMatrixMap(off_diagonal=0.1)
    problem = problem_of(family, data)
    found = solve_lbfgs(problem, problem.anchor)
    monkeypatch.setattr(MatrixMap, "curvature", lambda *_: MatrixCurvature())
    before = solve_lbfgs(problem_of(family, data), problem.anchor)
    assert found.value == pytest.approx(before.value, rel=10 * CERTIFIED_GAP, abs=0)
    assert found.iterations <= before.iterations / 2


def test_a_fit_without_a_fold_begins_with_what_the_whole_found_out() -> None:
    data = rows(1500, 20, weighted=False)
    family = StructuredMatrixMap(off_diagonal=0.1)
    whole = solve_lbfgs(problem_of(family, data), problem_of(family, data).anchor)
    assert whole.bends is not None
    part = data.restricted(Subset(Folds(5), 0))
    plain, told, other = (problem_of(family, part) for _ in range(3))
    told.bends = whole.bends
    # What another penalty bends like is none of its business.
    other.bends = replace(whole.bends, map=StructuredMatrixMap())
    ends = [solve_lbfgs(problem, whole.theta) for problem in (plain, told, other)]
    for end in ends:
        assert end.value == pytest.approx(ends[0].value, rel=CERTIFIED_GAP, abs=0)
    assert told.passes < plain.passes == other.passes
    assert ends[1].bends is None


def test_a_ridge_bounds_what_is_left_to_gain() -> None:
    problem = problem_of(StructuredMatrixMap(), rows())
    least = solve_newton(problem, problem.anchor, tolerance=1e-10).value
    rng = np.random.default_rng(2)
    for size in (0, 1e-4, 1e-2, 1):
        theta = problem.anchor + size * rng.standard_normal(len(problem.anchor))
        value, gradient = problem.gradient(theta)
        assert 0 <= value - least <= problem.gap(gradient)


def test_without_a_ridge_nothing_is_proven() -> None:
    problem = problem_of(VectorMap(penalty=0, prior=0), rows())
    assert problem.gap(problem.gradient(problem.anchor)[1]) == np.inf


class TestMixture:
    THETA = np.array([0.3, 0.8, 0.4, 0.3])

    def test_derivatives_are_those_of_the_family(self) -> None:
        problem = problem_of(EnsembleTemperatureMap(), rows())
        expansion = problem.map.expansion()
        assert expansion is not None
        point = saddle_free._evaluate(problem, expansion, self.THETA)
        value, gradient = problem.gradient(point.theta)
        assert point.value == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(point.gradient, gradient, atol=1e-12)
        step = 1e-5
        ends = [
            [saddle_free._evaluate(problem, expansion, point.theta + s * u) for s in (-step, step)]
            for u in np.eye(4)
        ]
        curved = [(right.gradient - left.gradient) / (2 * step) for left, right in ends]
        tangent = np.eye(4)
        tangent[1:, 1:] -= np.outer(point.theta[1:], point.theta[1:])
        np.testing.assert_allclose(point.hessian, tangent @ np.array(curved) @ tangent, atol=1e-7)

    @pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
    @pytest.mark.parametrize("roots", [(1, 0, 0), (0.9, 0.4, 0), (0.9, 0, 0.4), (0.9, 0.3, 0.3)])
    def test_no_start_ends_on_a_saddle(self, scale: float, roots) -> None:
        rng = np.random.default_rng(3)
        logits = scale * rng.standard_normal((2000, 4))
        noise = rng.random(2000) < 0.2
        truth = np.where(noise[:, None], 0.0, logits) + rng.gumbel(size=logits.shape)
        data = open_data(Engine(), ArraySource(logits, truth.argmax(axis=1)))
        problem = problem_of(EnsembleTemperatureMap(), data)
        found = saddle_free.solve_saddle_free(problem, np.array([0.1, *roots]))
        usual = solve_lbfgs(problem, problem.map.start(4, 1.0))
        assert found.converged
        assert found.value <= usual.value + 1e-9
