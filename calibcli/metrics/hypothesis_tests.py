"""Tests of calibration that need nothing but sums over the rows.

Rows are taken to be independent. With weights, a row of weight 2 is one observation that counts
twice, not two observations: standard errors are those of weighted sums.

References
----------
Spiegelhalter (1986), Probabilistic prediction in patient management and clinical trials,
doi:10.1002/sim.4780050506; Cox (1958), Two further applications of a model for binary regression,
doi:10.1093/biomet/45.3-4.562 (intercept and slope); Van Calster et al. (2019), Calibration: the
Achilles heel of predictive analytics, doi:10.1186/s12916-019-1466-7 (calibration-in-the-large).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from calibcli.arrays import NumpyArray, dot_classes, namespace, put, sum_classes, to_numpy
from calibcli.metrics.view import View

_NORMAL = NormalDist()


@dataclass(frozen=True)
class TestResult:
    """The result of a test; small p-values speak against calibration.

    Attributes
    ----------
    name, title : str
    hypothesis : str
        What a calibrated model has, and how it is tested.
    statistic : float
    p : float
        NaN where the test could not be done.
    degrees : int or None
        Degrees of freedom of a chi-squared or a Student distribution.
    estimate, error : float or None
        The parameter that is tested, and its standard error.
    note : str
        Why the test could not be done.
    """

    __test__ = False

    name: str
    title: str
    hypothesis: str
    statistic: float = math.nan
    p: float = math.nan
    degrees: int | None = None
    estimate: float | None = None
    error: float | None = None
    note: str = ""


def two_sided(z: float) -> float:
    """The p-value of a standard normal statistic."""
    return 2 * _NORMAL.cdf(-abs(z))


@dataclass(frozen=True)
class Spiegelhalter:
    """The statistic: whether the Brier score is what the probabilities themselves expect.

    State: array (2, 2), for the confidence and for all classes the sums of weight x (score -
    expectation) and of weight^2 x variance.
    """

    def partial(self, view: View) -> NumpyArray:
        """The sums over one block."""
        confidence, weights = view.confidence, view.weights
        slack = 1 - 2 * confidence
        top = (view.correct - confidence) * slack, confidence * (1 - confidence) * slack**2
        squares = to_numpy(dot_classes(view.probs, view.probs)).astype(np.float64)
        cubes = to_numpy(dot_classes(view.probs, view.probs**2)).astype(np.float64)
        full = 2 * (squares - view.true_prob), 4 * np.maximum(cubes - squares**2, 0.0)
        return np.array([[(weights * d).sum(), (weights**2 * v).sum()] for d, v in (top, full)])

    def merge(self, left: NumpyArray, right: NumpyArray) -> NumpyArray:
        """The sums over two blocks."""
        return left + right

    def finish(self, state: NumpyArray) -> tuple[TestResult, TestResult]:
        """The test of the confidence, and that of all classes."""
        top, full = (_z(*sums) for sums in state)
        expected = "the Brier score that the probabilities expect of themselves"
        return (
            TestResult(
                "spiegelhalter_top",
                "Spiegelhalter's z, confidence",
                f"{expected}, of the confidence; two-sided normal",
                top,
                two_sided(top),
            ),
            TestResult(
                "spiegelhalter",
                "Spiegelhalter's z, all classes",
                f"{expected}, of all classes; two-sided normal",
                full,
                two_sided(full),
            ),
        )


def _z(deviation: float, variance: float) -> float:
    return deviation / math.sqrt(variance) if variance > 0 else math.nan


_LOWEST, _HIGHEST, _CELLS = -30.0, 50.0, 1 << 13
_STEPS, _LARGEST_STEP, _PRECISION = 100, 4.0, 1e-10


@dataclass(frozen=True)
class LogisticRecalibration:
    """The statistic: intercept and slope of a logistic regression on the log-odds.

    Of two classes those of class 1, of more those of the predicted class being right. The rows are
    kept as sums by cells of the log-odds 0.01 wide, which moves neither by more than 1e-5.

    State: array (5, cells) of the sums of weight, weight x log-odds, weight x event, weight^2 and
    weight^2 x event.
    """

    def partial(self, view: View) -> NumpyArray:
        """The sums over one block."""
        odds, event = _log_odds(view)
        known = np.isfinite(odds)
        odds, event, weights = odds[known], event[known], view.weights[known]
        place = (odds - _LOWEST) * (_CELLS / (_HIGHEST - _LOWEST))
        cells = np.clip(place, 0, _CELLS - 1).astype(np.intp)
        squares = weights**2
        summed = (weights, weights * odds, weights * event, squares, squares * event)
        return np.stack([np.bincount(cells, v, minlength=_CELLS) for v in summed])

    def merge(self, left: NumpyArray, right: NumpyArray) -> NumpyArray:
        """The sums over two blocks."""
        return left + right

    def finish(self, state: NumpyArray) -> tuple[TestResult, TestResult]:
        """The tests in the large (of the intercept where the slope is 1), and of the slope."""
        groups = state[:, state[0] > 0]
        odds = groups[1] / groups[0]
        constant = np.ones_like(odds)
        large = _fit(groups, constant[:, None], odds)
        both = _fit(groups, np.stack((constant, odds), axis=1), np.zeros_like(odds))
        return (
            _wald(
                "in_the_large",
                "calibration in the large",
                "log-odds that are right on average: an intercept of 0 where the slope is 1",
                None if large is None else (large[0][0], large[1][0]),
                0.0,
            ),
            _wald(
                "slope",
                "calibration slope",
                "neither too bold (< 1) nor too timid (> 1): a slope of 1 of the log-odds",
                None if both is None else (both[0][1], both[1][1]),
                1.0,
            ),
        )


def _wald(
    name: str, title: str, hypothesis: str, coefficient: tuple[float, float] | None, value: float
) -> TestResult:
    hypothesis = f"{hypothesis}; Wald, two-sided normal"
    if coefficient is None:
        note = "the regression has no finite solution: right and wrong rows can be separated"
        return TestResult(name, title, hypothesis, note=note)
    estimate, error = map(float, coefficient)
    z = (estimate - value) / error
    return TestResult(name, title, hypothesis, z, two_sided(z), None, estimate, error)


def _log_odds(view: View) -> tuple[NumpyArray, NumpyArray]:
    """Log-odds (n,) of an event, and whether it happened."""
    if view.classes == 2:
        odds = to_numpy(view.shifted[:, 1] - view.shifted[:, 0]).astype(np.float64)
        return odds, (view.labels == 1).astype(np.float64)
    xp = namespace(view.probs)
    device = getattr(view.probs, "device", None)
    # 1 - p would lose the digits of small probabilities of being wrong.
    rest = put(view.probs + 0.0, xp.asarray(view.prediction, device=device), 0.0)
    wrong = to_numpy(sum_classes(rest)).astype(np.float64)
    with np.errstate(divide="ignore"):
        odds = np.log(view.confidence) - np.log(wrong)
    return odds, view.correct.astype(np.float64)


def _fit(
    groups: NumpyArray, design: NumpyArray, offset: NumpyArray
) -> tuple[NumpyArray, NumpyArray] | None:
    """Coefficients (q,) and standard errors (q,) of a logistic regression on groups, by Newton.

    The errors are those of the sandwich, which are right under weights.
    """
    weights, _, events, squares, squared_events = groups
    theta = np.zeros(design.shape[1])
    if design.shape[1] > 1:
        theta[1] = 1.0
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ theta + offset, -500, 500)))
        spread = weights * chance * (1 - chance)
        hessian = design.T @ (spread[:, None] * design)
        if not np.linalg.det(hessian) > 0:
            return None
        step = np.linalg.solve(hessian, design.T @ (events - weights * chance))
        theta = theta + step * min(1.0, _LARGEST_STEP / max(np.abs(step).max(), _LARGEST_STEP))
        if np.abs(step).max() < _PRECISION:
            break
    else:
        return None
    variance = squared_events * (1 - 2 * chance) + squares * chance**2
    inverse = np.linalg.inv(hessian)
    meat = design.T @ (variance[:, None] * design)
    return theta, np.sqrt(np.diag(inverse @ meat @ inverse))
