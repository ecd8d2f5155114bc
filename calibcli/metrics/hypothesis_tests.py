"""Tests of calibration, judged by labels that the model itself draws.

Every test looks at sums over the rows of what a label is minus what the probabilities expect. Were
the model calibrated, its labels would be drawn from its probabilities; so labels are drawn from
them, thousands of replicates are made of these (`drawn_labels`), and the p-value is the share of
replicates that stray as far as the data. That holds for few errors, rare classes, ties and weights,
where normal and chi-squared distributions do not. With clusters the labels of a cluster go
together: there the signs of whole clusters are flipped at random instead.

References
----------
Spiegelhalter (1986), Probabilistic prediction in patient management and clinical trials,
doi:10.1002/sim.4780050506; Cox (1958), Two further applications of a model for binary regression,
doi:10.1093/biomet/45.3-4.562 (intercept and slope); Van Calster et al. (2019), Calibration: the
Achilles heel of predictive analytics, doi:10.1186/s12916-019-1466-7 (calibration in the large);
Rao (1948), Large sample tests of statistical hypotheses, doi:10.1017/S0305004100023987 (scores);
Westfall and Young (1993), Resampling-Based Multiple Testing (the combined p); Widmann, Lindsten and
Zachariah (2019), Calibration tests in multi-class classification, arXiv:1910.11385 (SKCE).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray, hashed, namespace, put, sum_classes, to_numpy
from calibcli.metrics.base import Additive
from calibcli.metrics.drawn_labels import (
    DRAWN_BAGS,
    bags_of_rows,
    drawn_labels,
    number_of_sets,
    picked_sets,
)
from calibcli.metrics.event_metrics import logistic_coefficients
from calibcli.metrics.kernel_calibration import KernelFeatures
from calibcli.metrics.view import View

REPLICATES = 999
"""A p-value of 0.05 has a standard error of 0.007."""

FEWEST_ERRORS = 20
"""With fewer wrong rows (or rows of the rarer of two classes) nothing can be said by a p-value."""

_CLUSTER_BAGS = 256
_FEWEST_CLUSTERS = 20
_FLOOR = -100.0
"""The least log-probability: an impossible class is not infinitely surprising to a sum."""

_ROUNDING = 1e-12

_LEAST_ODDS, _ODDS_WIDTH, _ODDS_CELLS = -20.0, 0.1, 512
"""Cells of log-odds; what lies further out is in the first or the last."""

_FARTHEST_LEVEL, _HALVINGS = 50.0, 50
_LEVELS = 64
"""Levels between which what replicates expect is interpolated: the error is below 0.1 %."""


@dataclass(frozen=True)
class TestResult:
    """What a test found; small p-values speak against calibration.

    Attributes
    ----------
    name, title : str
    hypothesis : str
        What a calibrated model has, and how it is tested.
    statistic : float
    p : float
        NaN where the test could not be done.
    degrees : int or None
        How many numbers of a calibrated model are tested at once; None for one.
    smallest_of : int or None
        Of how many tests the statistic is the smallest p; None where it is none.
    estimate, error : float or None
        The parameter that is tested, and its standard error (sandwich).
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
    smallest_of: int | None = None
    estimate: float | None = None
    error: float | None = None
    note: str = ""


class ScoreSums(NamedTuple):
    """Sums over the rows, of the labels as they are (first) and as they were drawn.

    Attributes
    ----------
    single : array (1 + S, B, 5)
        By set and bag, sums of weight x the scores of the tests of one number.
    classes : array (1 + S, B, K, 2)
        Sums of weight x residual of each class, and of that times its log-probability.
    kernel : array (1 + S, B, d, D)
        Sums of weight x residual x feature of the kernel.
    spread : array (7,)
        What the probabilities expect of the squares of ``single``: of the Brier score of the
        confidence and of all classes, of intercept, of intercept and slope, of slope, of the
        temperature; and of the weights.
    class_spread : array (3, K)
        The same of ``classes``: bias, bias and scale, scale.
    mass : array (B,)
        Sums of the weights.
    odds : array (2, B, C)
        By bag and cell of the event's log-odds, sums of weight and of weight x log-odds.
    odds_squares : array (C,)
        By cell, sums of squared weight.
    events : array (2, 2)
        How many rows are (first row) and are expected to be (second row) events, and are not.
    """

    single: NumpyArray
    classes: NumpyArray
    kernel: NumpyArray
    spread: NumpyArray
    class_spread: NumpyArray
    mass: NumpyArray
    odds: NumpyArray
    odds_squares: NumpyArray
    events: NumpyArray


@dataclass(frozen=True)
class CalibrationTests:
    """The statistic: all tests at once, and one answer of all of them.

    ``merge`` takes over its left argument. Memory: at most about 10 MB.

    Parameters
    ----------
    rows : int
        Rows in all; with more of them fewer labels are drawn.
    seed : int
        Of the draws and of the kernel's features.
    role : str or None
        Role of the key column of clusters whose rows are not independent.
    """

    rows: int
    seed: int = 0
    role: str | None = None

    def partial(self, view: View) -> ScoreSums:
        rows = _Scores(view)
        features = KernelFeatures(self.seed).of(view)
        bags, count = self._bags(view)
        sets = self._sets(view.classes, features.size)
        labels = np.concatenate((view.labels[None], drawn_labels(view, self.seed, sets)))
        expected = rows.class_sums(bags, count)
        kernel = features.expected(bags, count)
        return ScoreSums(
            np.stack([rows.single(each, bags, count) for each in labels]),
            np.stack([rows.classes(each, bags, count) - expected for each in labels]),
            features.seen(labels, bags, count) - kernel,
            rows.spread(),
            rows.class_spread(),
            np.bincount(bags, view.weights, minlength=count),
            *rows.odds_sums(bags, count),
            rows.events(),
        )

    def merge(self, left: ScoreSums, right: ScoreSums) -> ScoreSums:
        for sums, more in zip(left, right, strict=True):
            np.add(sums, more, out=sums)
        return left

    def finish(self, state: ScoreSums) -> list[TestResult]:
        """Each test, and `COMBINED` at the end."""
        replicates = _Replicates.of(state, self.seed, clustered=self.role is not None)
        single = replicates.sums(state.single)
        tests = [
            *_spiegelhalter(state, single),
            *_logistic(state, replicates, single),
            _temperature(state, single),
            _class_scores(state, replicates),
            _kernel(state, replicates),
        ]
        note = self._too_few(state)
        if note:
            tests = [_Judged(replace(each.result, p=math.nan, note=note), None) for each in tests]
        return [*(each.result for each in tests), _combined(tests, note)]

    def _sets(self, classes: int, features: int) -> int:
        if self.role is not None:
            return 0
        return number_of_sets(self.rows, 2 * classes + features)

    def _bags(self, view: View) -> tuple[NumpyArray, int]:
        if self.role is None:
            return bags_of_rows(view, self.seed), DRAWN_BAGS
        return hashed(view.keys[self.role], self.seed, _CLUSTER_BAGS), _CLUSTER_BAGS

    def _too_few(self, state: ScoreSums) -> str:
        """Why nothing can be said by a p-value; empty where something can."""
        if self.role is not None and np.count_nonzero(state.mass) < _FEWEST_CLUSTERS:
            return f"too few clusters: a p-value takes {_FEWEST_CLUSTERS}"
        rarer = state.events.max(axis=0).min()
        if rarer < FEWEST_ERRORS:
            return f"too few errors: a p-value takes {FEWEST_ERRORS} (of two classes, positives)"
        return ""


class _Scores:
    """What the tests read off the rows of a view, for any labels of theirs."""

    def __init__(self, view: View) -> None:
        self.view, self.weights = view, view.weights
        self.probs = to_numpy(view.probs).astype(np.float64)
        with np.errstate(divide="ignore"):
            logs = (
                to_numpy(view.shifted).astype(np.float64)
                - np.log(to_numpy(view.total).astype(np.float64))[:, None]
            )
        self.logs = np.maximum(logs, _FLOOR)
        self.products = self.probs * self.logs
        self.squares = (self.probs**2).sum(axis=1)
        self.entropy = self.products.sum(axis=1)
        self.rows = np.arange(len(view))
        odds, _ = event_log_odds(view)
        self.odds = np.clip(odds, _FLOOR, -_FLOOR)
        event = view.event
        self.chance = view.top_confidence if event is None else self.probs[:, event]

    def event(self, labels: NumpyArray) -> NumpyArray:
        """Whether the event of the logistic regression happened (n,)."""
        event = self.view.event
        happened: NumpyArray = labels == (self.view.prediction if event is None else event)
        return happened

    def single(self, labels: NumpyArray, bags: NumpyArray, count: int) -> NumpyArray:
        """Sums by bag (B, 5) of the scores of one number each."""
        view = self.view
        residual = self.event(labels) - self.chance
        scores = (
            ((labels == view.prediction) - view.top_confidence) * (1 - 2 * view.top_confidence),
            2 * (self.squares - self.probs[self.rows, labels]),
            residual,
            residual * self.odds,
            self.logs[self.rows, labels] - self.entropy,
        )
        weighted = [np.bincount(bags, self.weights * each, minlength=count) for each in scores]
        return np.stack(weighted, axis=1)

    def classes(self, labels: NumpyArray, bags: NumpyArray, count: int) -> NumpyArray:
        """Sums by bag and class (B, K, 2) of the label, and of that times its log-probability."""
        classes = self.view.classes
        codes, logs = bags * classes + labels, self.logs[self.rows, labels]
        summed = (self.weights, self.weights * logs)
        each = [np.bincount(codes, values, minlength=count * classes) for values in summed]
        return np.stack([sums.reshape(count, classes) for sums in each], axis=2)

    def class_sums(self, bags: NumpyArray, count: int) -> NumpyArray:
        """What the probabilities expect of `classes` (B, K, 2)."""
        members = np.zeros((count, len(bags)))
        members[bags, self.rows] = self.weights
        return np.stack((members @ self.probs, members @ self.products), axis=2)

    def odds_sums(self, bags: NumpyArray, count: int) -> tuple[NumpyArray, NumpyArray]:
        """The log-odds by bag and cell (2, B, C), and squared weights by cell (C,)."""
        cells = np.clip((self.odds - _LEAST_ODDS) / _ODDS_WIDTH, 0, _ODDS_CELLS - 1).astype(np.intp)
        codes, size = bags * _ODDS_CELLS + cells, count * _ODDS_CELLS
        weights = self.weights
        sums = [np.bincount(codes, each, size) for each in (weights, weights * self.odds)]
        return (
            np.stack(sums).reshape(2, count, _ODDS_CELLS),
            np.bincount(cells, weights**2, _ODDS_CELLS),
        )

    def spread(self) -> NumpyArray:
        """Expected squares (7,), as `ScoreSums` has them."""
        view, squares = self.view, self.weights**2
        confidence = view.top_confidence
        cubes = (self.probs**3).sum(axis=1)
        chance = self.chance * (1 - self.chance)
        logs = (self.products * self.logs).sum(axis=1) - self.entropy**2
        each = (
            confidence * (1 - confidence) * (1 - 2 * confidence) ** 2,
            4 * np.maximum(cubes - self.squares**2, 0.0),
            chance,
            chance * self.odds,
            chance * self.odds**2,
            logs,
            np.ones(len(view)),
        )
        return np.array([float(squares @ values) for values in each])

    def class_spread(self) -> NumpyArray:
        """Expected squares (3, K) of bias, of bias and scale, of scale."""
        squares = self.weights**2
        variance = self.probs * (1 - self.probs)
        crossed = variance * self.logs
        return np.stack([squares @ each for each in (variance, crossed, crossed * self.logs)])

    def events(self) -> NumpyArray:
        """Rows that are events and are not (2,), as seen and as expected: (2, 2)."""
        present = self.weights > 0
        seen = np.count_nonzero(self.event(self.view.labels) & present)
        expected, rows = float(self.chance[present].sum()), int(present.sum())
        return np.array([[seen, rows - seen], [expected, rows - expected]])


@dataclass(frozen=True)
class _Replicates:
    """Sums that a calibrated model might have had.

    Attributes
    ----------
    factors : array (R, M)
        How often each of the M sums (of a bag, or of a set and bag) counts in each replicate.
    clustered : bool
        Whether they are the sums of bags of clusters, with signs.
    """

    factors: NumpyArray
    clustered: bool

    @classmethod
    def of(cls, state: ScoreSums, seed: int, *, clustered: bool) -> _Replicates:
        sets, bags = len(state.single) - 1, len(state.mass)
        if not clustered:
            return cls(picked_sets(sets, REPLICATES, seed), clustered)
        bits = np.random.Philox(key=seed).random_raw(REPLICATES * bags)
        signs = 1.0 - 2.0 * (bits & np.uint64(1)).astype(np.float64)
        return cls(signs.reshape(REPLICATES, bags), clustered)

    def parts(self, sums: NumpyArray) -> NumpyArray:
        """What replicates are made of (M, q), of sums (1 + S, B, ...)."""
        if self.clustered:
            by_bag: NumpyArray = sums[0].reshape(len(sums[0]), -1)
            return by_bag
        drawn = sums[1:]
        # A calibrated model's sums are 0 on average; those of few sets only nearly so.
        centered: NumpyArray = drawn - drawn.mean(axis=0)
        centered *= math.sqrt(len(drawn) / (len(drawn) - 1))
        return centered.reshape(len(drawn) * drawn.shape[1], -1)

    def sums(self, sums: NumpyArray) -> NumpyArray:
        """Sums (R, q) of all replicates."""
        return self.factors @ self.parts(sums)


class _Judged(NamedTuple):
    """A test, and its statistic in all replicates (R,); None where it could not be done."""

    result: TestResult
    replicates: NumpyArray | None


def _judged(result: TestResult, replicates: NumpyArray, *, normal: float | None = None) -> _Judged:
    """A result with the share of the replicates that stray as far as its statistic.

    Beyond all of them a normal distribution may say how far it is.
    """
    statistic = abs(result.statistic)
    further = int(np.count_nonzero(replicates >= statistic * (1 - _ROUNDING)))
    p = (1 + further) / (1 + len(replicates))
    if not further and normal is not None:
        # NormalDist's cdf would be 0 beyond 8 deviations.
        p = min(p, math.erfc(abs(normal) / math.sqrt(2)))
    return _Judged(replace(result, p=p), replicates)


def _linear(result: TestResult, replicates: NumpyArray, total: float, variance: float) -> _Judged:
    """A test of one number that should be 0: ``total``, of this variance."""
    if not variance > 0:
        return _Judged(replace(result, note="every probability is 0 or 1"), None)
    error = math.sqrt(variance)
    z = total / error
    return _judged(replace(result, statistic=z), np.abs(replicates) / error, normal=z)


def _spiegelhalter(state: ScoreSums, sums: NumpyArray) -> list[_Judged]:
    expected = "the Brier score that the probabilities expect of themselves"
    named = (
        ("spiegelhalter_top", "Spiegelhalter's z, confidence", "of the confidence"),
        ("spiegelhalter", "Spiegelhalter's z, all classes", "of all classes"),
    )
    totals = state.single[0].sum(axis=0)
    return [
        _linear(
            TestResult(name, title, f"{expected}, {what}; two-sided"),
            sums[:, place],
            float(totals[place]),
            float(state.spread[place]),
        )
        for place, (name, title, what) in enumerate(named)
    ]


def _logistic(state: ScoreSums, replicates: _Replicates, sums: NumpyArray) -> list[_Judged]:
    """Level where the slope is 1, slope whatever the level is, and both."""
    _, _, constant, crossed, square, _, _ = state.spread
    totals = state.single[0].sum(axis=0)
    large = TestResult(
        "in_the_large",
        "calibration in the large",
        "log-odds that are right on average: an intercept of 0 where the slope is 1; two-sided",
    )
    both = TestResult(
        "level_and_slope",
        "level and slope together",
        "an intercept of 0 and a slope of 1 of the log-odds (Rao's scores)",
        degrees=2,
    )
    share = crossed / constant if constant > 0 else 0.0
    # What is left of rounding where all rows have the same log-odds is no variance.
    rest = max(float(square - share * crossed), 0.0) if square > _ROUNDING * constant else 0.0

    def quadratic(level: NumpyArray, slope: NumpyArray) -> NumpyArray:
        values: NumpyArray = level**2 / constant + (slope - share * level) ** 2 / rest
        return values

    if rest > 0:
        found = quadratic(*totals[2:4])
        joint = _judged(replace(both, statistic=float(found)), quadratic(sums[:, 2], sums[:, 3]))
        slope = _slope(state, replicates, sums)
    else:
        slope = _Judged(replace(_SLOPE, note=_ONE_LEVEL), None)
        joint = _Judged(replace(both, note=_ONE_LEVEL), None)
    return [
        _linear(large, sums[:, 2], float(totals[2]), float(constant)),
        slope,
        joint,
    ]


_ONE_LEVEL = "all rows have the same log-odds"
_SLOPE = TestResult(
    "slope",
    "calibration slope",
    "neither too bold (< 1) nor too timid (> 1): a slope of 1 of the log-odds, whatever their "
    "level is (Rao's score where the intercept is free); two-sided",
)


def _slope(state: ScoreSums, replicates: _Replicates, sums: NumpyArray) -> _Judged:
    """Rao's score of the slope, at the level at which as many events are expected as came.

    A replicate has a level of its own too. Clusters have the signs of their scores flipped, which
    are taken at the level of all.
    """
    levels = _Levels(state)
    totals = state.single[0].sum(axis=0)[2:4]
    if not state.events[0].all():
        return _Judged(replace(_SLOPE, note="no level fits: all rows are events, or none is"), None)
    excess, score = sums[:, 2], sums[:, 3]
    level, *ends = levels.at(np.array([totals[0], excess.min(), excess.max()]))
    moments = levels.moments(np.array([level]))
    variance = max(float(moments.variance[0]), float(np.finfo(np.float64).tiny))
    error = math.sqrt(variance)
    z = float(totals[1] - moments.slope[0]) / error
    if replicates.clustered:
        scores = state.single[0, :, 2:4] - levels.by_bag(float(level))
        scores = scores[:, 1] - moments.share[0] * scores[:, 0]
        strayed = replicates.factors @ scores / error
    else:
        grid = levels.moments(np.linspace(ends[0], ends[1], _LEVELS))
        slope, spread = (
            np.interp(excess, grid.level, each) for each in (grid.slope, grid.variance)
        )
        strayed = (score - slope) / np.sqrt(np.maximum(spread, _ROUNDING * variance))
    return _judged(replace(_SLOPE, statistic=z), np.abs(strayed), normal=z)


class _Moments(NamedTuple):
    """What a model expects at levels (L,): how much more than its own.

    Attributes
    ----------
    level, slope : array (L,)
        The scores of the two that it would have if the level were right.
    share : array (L,)
        How much of the score of the level is taken from that of the slope for a level that is free.
    variance : array (L,)
        Of what is left.
    """

    level: NumpyArray
    slope: NumpyArray
    share: NumpyArray
    variance: NumpyArray


class _Levels:
    """What a model expects if an intercept, the level, is added to all its log-odds."""

    def __init__(self, state: ScoreSums) -> None:
        self._bags = state.odds
        sums = state.odds.sum(axis=1)
        (filled,) = np.nonzero(sums[0] > 0)
        self._weight, self._squares = sums[0, filled], state.odds_squares[filled]
        self._odds = sums[1, filled] / self._weight

    def at(self, excess: NumpyArray) -> NumpyArray:
        """The levels (L,) at which so much more weight of events is expected, by bisection."""
        usual = _logistic_of(self._odds)
        low = np.full(len(excess), -_FARTHEST_LEVEL)
        high = -low
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            below = (_logistic_of(self._odds + middle[:, None]) - usual) @ self._weight < excess
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        levels: NumpyArray = (low + high) / 2
        return levels

    def moments(self, levels: NumpyArray) -> _Moments:
        """Those of levels (L,), ascending."""
        weight, odds = self._weight, self._odds
        chance = _logistic_of(odds + levels[:, None])
        more = chance - _logistic_of(odds)
        spread = chance * _logistic_of(-odds - levels[:, None])
        constant, crossed = spread @ weight, spread @ (weight * odds)
        share = crossed / np.maximum(constant, np.finfo(np.float64).tiny)
        variance = (spread * (odds - share[:, None]) ** 2) @ self._squares
        return _Moments(more @ weight, more @ (weight * odds), share, variance)

    def by_bag(self, level: float) -> NumpyArray:
        """The scores (B, 2) of level and slope that each bag would have if the level were right."""
        weight, odds = self._bags
        mean = odds / np.where(weight > 0, weight, 1.0)
        more = _logistic_of(mean + level) - _logistic_of(mean)
        return np.stack([(each * more).sum(axis=1) for each in (weight, odds)], axis=1)


def _logistic_of(odds: NumpyArray) -> NumpyArray:
    """The probabilities (...) of log-odds (...), without overflow."""
    probability: NumpyArray = 0.5 + 0.5 * np.tanh(0.5 * odds)
    return probability


def _temperature(state: ScoreSums, sums: NumpyArray) -> _Judged:
    result = TestResult(
        "score_temperature",
        "score test, temperature",
        "no gain in likelihood by a little more or less temperature (Rao's score); two-sided",
    )
    total = float(state.single[0, :, 4].sum())
    return _linear(result, sums[:, 4], total, float(state.spread[5]))


def _class_scores(state: ScoreSums, replicates: _Replicates) -> _Judged:
    """Scores of a scale and a bias of each class, each class by its own covariance."""
    classes = state.class_spread.shape[1]
    bias, crossed, scale = state.class_spread
    # A class that is expected less than once counts as if it were: or else a single row of it
    # would outweigh all others.
    unit = state.spread[6] / max(state.events[0].sum(), 1.0)
    bias = bias + unit
    rest = np.maximum(scale - crossed**2 / bias, 0.0) + unit

    def quadratic(sums: NumpyArray) -> NumpyArray:
        first, second = sums[..., 0], sums[..., 1]
        cleaned = second - first * (crossed / bias)
        total: NumpyArray = (first**2 / bias + cleaned**2 / rest).sum(axis=-1)
        return total

    result = TestResult(
        "score_vector",
        "score test, vector",
        "no gain in likelihood by a little more or less scale and bias of each class (Rao's "
        "scores, class by class)",
        float(quadratic(state.classes[0].sum(axis=0))),
        degrees=2 * classes,
    )
    return _judged(result, quadratic(replicates.sums(state.classes).reshape(-1, classes, 2)))


def _kernel(state: ScoreSums, replicates: _Replicates) -> _Judged:
    """The kernel calibration error, over pairs of rows of different bags."""
    bags = state.kernel[0].reshape(len(state.mass), -1)
    total = float(np.square(bags.sum(axis=0)).sum() - np.square(bags).sum())
    pairs = float(state.mass.sum() ** 2 - (state.mass**2).sum())
    parts = replicates.parts(state.kernel)
    factors = replicates.factors
    # Their squares are the same, or 1 where they are signs.
    squares = np.square(parts).sum(axis=1)
    squares = squares.sum() if replicates.clustered else factors @ squares
    if parts.shape[1] < len(parts):
        errors = np.square(factors @ parts).sum(axis=1) - squares
    else:
        errors = np.einsum("rm,rm->r", factors @ (parts @ parts.T), factors) - squares
    estimate = total / pairs if pairs > 0 else math.nan
    result = TestResult(
        "skce",
        "kernel test (SKCE)",
        "no squared kernel calibration error of the whole probability vector; "
        f"{KernelFeatures.description}",
        estimate=estimate,
    )
    further = int(np.count_nonzero(errors >= total - _ROUNDING * abs(total)))
    return _Judged(replace(result, p=(1 + further) / (1 + len(errors))), errors)


def _combined(tests: list[_Judged], note: str) -> TestResult:
    """One answer of all tests: how often the smallest p of a calibrated model is as small."""
    result = TestResult(
        "combined",
        "all of them together",
        "the smallest p-value is no smaller than chance makes it of so many tests",
        note=note,
    )
    done = [each for each in tests if each.replicates is not None and not math.isnan(each.result.p)]
    if note or not done:
        return replace(result, note=note or "no test could be done")
    smallest = np.ones(REPLICATES)
    for each in done:
        assert each.replicates is not None
        ordered = np.sort(each.replicates)
        further = REPLICATES - np.searchsorted(ordered, each.replicates * (1 - _ROUNDING))
        smallest = np.minimum(smallest, further / (1 + REPLICATES))
    seen = min(each.result.p for each in done)
    p = (1 + int(np.count_nonzero(smallest <= seen))) / (1 + REPLICATES)
    return replace(result, statistic=seen, p=p, smallest_of=len(done))


_LOWEST, _HIGHEST, _CELLS = -30.0, 50.0, 1 << 13


class Coefficient(NamedTuple):
    """A coefficient of a regression and its standard error (sandwich)."""

    value: float
    error: float


@dataclass(frozen=True)
class LogisticRecalibration(Additive):
    """The statistic: intercept and slope of a logistic regression on the log-odds.

    They are of the view's event, or else of the predicted class being right. The rows are kept as
    sums by cells of the log-odds 0.01 wide, which moves neither by more than 1e-5.

    State: array (5, cells) of the sums of weight, weight x log-odds, weight x event, weight^2 and
    weight^2 x event.
    """

    def partial(self, view: View) -> NumpyArray:
        odds, event = event_log_odds(view)
        known = np.isfinite(odds)
        odds, event, weights = odds[known], event[known], view.weights[known]
        place = (odds - _LOWEST) * (_CELLS / (_HIGHEST - _LOWEST))
        cells = np.clip(place, 0, _CELLS - 1).astype(np.intp)
        squares = weights**2
        summed = (weights, weights * odds, weights * event, squares, squares * event)
        return np.stack([np.bincount(cells, v, minlength=_CELLS) for v in summed])

    def finish(self, state: NumpyArray) -> tuple[Coefficient | None, Coefficient | None]:
        """The intercept where the slope is 1 (in the large), and the slope; None if infinite."""
        groups = state[:, state[0] > 0]
        odds = groups[1] / groups[0]
        constant = np.ones_like(odds)
        large = _fit(groups, constant[:, None], odds)
        both = _fit(groups, np.stack((constant, odds), axis=1), np.zeros_like(odds))
        return (
            None if large is None else Coefficient(float(large[0][0]), float(large[1][0])),
            None if both is None else Coefficient(float(both[0][1]), float(both[1][1])),
        )


def event_log_odds(view: View) -> tuple[NumpyArray, NumpyArray]:
    """Log-odds (n,) of the view's event, or else of a right prediction, and whether it happened."""
    event = view.event
    if event is not None and view.classes == 2:
        odds = to_numpy(view.shifted[:, event] - view.shifted[:, 1 - event]).astype(np.float64)
        return odds, (view.labels == event).astype(np.float64)
    xp = namespace(view.probs)
    device = getattr(view.probs, "device", None)
    # 1 - p would lose the digits of small probabilities of being wrong.
    rest = put(view.probs + 0.0, xp.asarray(view.prediction, device=device), 0.0)
    wrong = to_numpy(sum_classes(rest)).astype(np.float64)
    with np.errstate(divide="ignore"):
        odds = np.log(view.top_confidence) - np.log(wrong)
    return odds, view.top_correct.astype(np.float64)


def _fit(
    groups: NumpyArray, design: NumpyArray, offset: NumpyArray
) -> tuple[NumpyArray, NumpyArray] | None:
    """Coefficients (q,) and standard errors (q,) of a logistic regression on groups.

    The errors are those of the sandwich, which are right under weights.
    """
    weights, _, events, squares, squared_events = groups
    theta = logistic_coefficients(weights, events, design, offset)
    if theta is None:
        return None
    chance = 1 / (1 + np.exp(-np.clip(design @ theta + offset, -500, 500)))
    hessian = design.T @ ((weights * chance * (1 - chance))[:, None] * design)
    variance = squared_events * (1 - 2 * chance) + squares * chance**2
    inverse = np.linalg.inv(hessian)
    meat = design.T @ (variance[:, None] * design)
    return theta, np.sqrt(np.diag(inverse @ meat @ inverse))
