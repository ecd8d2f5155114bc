"""How good the probability of an event is as a whole: counts, intercept and slope, skill.

The event is what the confidence is of: of two classes the positive one.

>>> import numpy as np
>>> logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.6, 0.4]])
>>> labels = np.array([0, 1, 0, 1])
>>> round(EXPECTED_OBSERVED.measure(logits, labels), 6)  # 0.9 are expected, 2 came
0.45
>>> round(IN_THE_LARGE.measure(logits, labels), 6)
1.416349
>>> round(SLOPE.measure(logits, labels), 6)
0.347027
>>> round(AVERAGE_PRECISION.measure(logits, labels), 6)
0.75
>>> round(BRIER_SKILL.measure(logits, labels), 6)
-0.27

References
----------
Cox (1958), Two further applications of a model for binary regression, doi:10.1093/biomet/45.3-4.562
(intercept and slope); Van Calster et al. (2019), Calibration: the Achilles heel of predictive
analytics, doi:10.1186/s12916-019-1466-7 (expected and observed counts).
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.base import SHARE, Metric
from calibcli.metrics.confidence import COLLECTED_SCORES, ConfidenceCurve
from calibcli.metrics.confidence_cells import CurveValue
from calibcli.metrics.row_mean import ratio

_NEAREST = 1e-15
"""To 0 and 1: log-odds are of probabilities no nearer."""

_STEPS, _LARGEST_STEP, _PRECISION = 60, 4.0, 1e-10
_HALVINGS = 40
"""Halvings of a step that is too long: far from the maximum Newton's would swing for ever."""

_SINGULAR = 1e-12
"""A determinant is that of a singular matrix if it is a smaller part of what it could be."""

_LARGEST = 1e6
"""A coefficient as large as that has no finite value: events and others can be separated."""


def clipped_log_odds(probability: NumpyArray, nearest: float = _NEAREST) -> NumpyArray:
    """``ln(p / (1 - p))`` (...) of probabilities (...), no nearer to 0 and 1 than ``nearest``."""
    inner = np.clip(probability, nearest, 1 - nearest)
    odds: NumpyArray = np.log(inner) - np.log1p(-inner)
    return odds


def logistic_coefficients(
    weight: NumpyArray, events: NumpyArray, design: NumpyArray, offset: NumpyArray
) -> NumpyArray | None:
    """Coefficients (q,) of a logistic regression on a design (m, q) and an offset (m,), by Newton.

    None where the largest likelihood is at no finite coefficients, or at many.

    Parameters
    ----------
    weight, events : float64 array (m,)
        Of groups of rows: the weight of all, and of those in which the event came.
    """
    others = weight - events
    theta = np.zeros(design.shape[1])
    theta[1:] = 1.0

    def log_likelihood(theta: NumpyArray) -> float:
        odds = design @ theta + offset
        return -float(events @ np.logaddexp(0.0, -odds) + others @ np.logaddexp(0.0, odds))

    reached = log_likelihood(theta)
    for _ in range(_STEPS):
        odds = np.clip(design @ theta + offset, -700, 700)
        # Each to its last bit, also next to 0, where 1 - chance would not be.
        chance, opposite = 1 / (1 + np.exp(-odds)), 1 / (1 + np.exp(odds))
        hessian = design.T @ ((weight * chance * opposite)[:, None] * design)
        if not np.linalg.det(hessian) > _SINGULAR * np.diag(hessian).prod():
            return None
        step = np.linalg.solve(hessian, design.T @ (events * opposite - others * chance))
        largest, size = float(np.abs(step).max()), max(1.0, float(np.abs(theta).max()))
        if largest < _PRECISION * size:
            return theta + step
        step *= min(1.0, _LARGEST_STEP * size / largest)
        for _ in range(_HALVINGS):
            likelihood = log_likelihood(theta + step)
            if likelihood >= reached - _PRECISION * abs(reached):
                break
            step /= 2
        theta, reached = theta + step, likelihood
        if np.abs(theta).max() > _LARGEST:
            break
    return None


def _coefficient(curve: ConfidenceCurve, design: NumpyArray, offset: NumpyArray) -> float:
    """The last coefficient of a logistic regression of the outcomes."""
    if not len(curve):
        return math.nan
    theta = logistic_coefficients(curve.own_weight, curve.own_correct, design, offset)
    return math.nan if theta is None else float(theta[-1])


def _in_the_large(curve: ConfidenceCurve) -> float:
    return _coefficient(curve, np.ones((len(curve), 1)), clipped_log_odds(curve.confidence))


def _slope(curve: ConfidenceCurve) -> float:
    odds = clipped_log_odds(curve.confidence)
    return _coefficient(curve, np.stack((np.ones_like(odds), odds), axis=1), np.zeros_like(odds))


def _expected_observed(curve: ConfidenceCurve) -> float:
    expected, observed = curve.confidence @ curve.own_weight, curve.own_correct.sum()
    if expected > 0 and not observed:
        return math.inf
    return ratio(float(expected), float(observed))


def _average_precision(curve: ConfidenceCurve) -> float:
    """The mean over events of the share of events among the rows that are at least as sure."""
    events = curve.own_correct
    at_least = curve.total - curve.weight + curve.own_weight
    events_at_least = events.sum() - curve.correct + events
    precision = np.divide(events_at_least, at_least, out=np.zeros_like(events), where=at_least > 0)
    return ratio(float(events @ precision), float(events.sum()))


def _brier_skill(curve: ConfidenceCurve) -> float:
    weight, events = curve.own_weight, curve.own_correct
    rate = ratio(float(events.sum()), curve.total)
    errors = curve.confidence**2 @ weight + (1 - 2 * curve.confidence) @ events
    return 1 - ratio(float(errors), curve.total * rate * (1 - rate))


_of_event = partial(Metric, statistic=COLLECTED_SCORES, resampling=CurveValue())

EXPECTED_OBSERVED = _of_event(
    name="expected_observed",
    title="expected/observed",
    convention=(
        "how many events the confidence expects (its sum), divided by how many came; 1 is right, "
        "more is too many"
    ),
    value=_expected_observed,
    better="",
    ideal=1.0,
    too_high="above",
    range=(0.0, math.inf),
)

IN_THE_LARGE = _of_event(
    name="in_the_large",
    title="in the large",
    convention=(
        "calibration in the large: what must be added to the log-odds of the confidence so that "
        "as many events are expected as came; 0 is right, less than 0 is too high (Cox 1958)"
    ),
    value=_in_the_large,
    better="",
    ideal=0.0,
    too_high="below",
)

SLOPE = _of_event(
    name="slope",
    title="slope",
    convention=(
        "calibration slope: the coefficient of the log-odds of the confidence in a logistic "
        "regression of the outcome on them; 1 is right, below 1 is too bold (Cox 1958)"
    ),
    value=_slope,
    better="",
    ideal=1.0,
)

AVERAGE_PRECISION = _of_event(
    ranks=True,
    range=SHARE,
    name="average_precision",
    title="average precision",
    convention=(
        "mean over events of the share of events among the rows of at least their confidence "
        "(the area under the precision-recall curve, without interpolation)"
    ),
    value=_average_precision,
    better="higher",
    group="accuracy and ranking",
)

BRIER_SKILL = _of_event(
    name="brier_skill",
    title="Brier skill",
    convention=(
        "1 - mean (confidence - outcome)^2 / that of the share of events for every row: above 0 "
        "is better than knowing the share alone"
    ),
    value=_brier_skill,
    range=(-math.inf, 1.0),
    better="higher",
    group="proper scores",
)
