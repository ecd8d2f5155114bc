"""A temperature a row, as a smooth function of how sure the row is."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar, Literal, get_args

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    argmax,
    dot_classes,
    impossible_classes,
    is_numpy_array,
    largest,
    like,
    namespace,
    pick,
    put,
    shift,
    sum_classes,
    sum_rows,
    to_numpy,
)
from calibcli.calibrators.base import Calibrator, Preserves, SmoothMap
from calibcli.calibrators.curvature import PreparedRows
from calibcli.calibrators.parameters import Parameters
from calibcli.calibrators.piecewise import read_knots, spaced, weighted_quantiles
from calibcli.calibrators.value_moments import ValueMoments, width_for
from calibcli.value_counts import CountedScores, normalised

Feature = Literal["gap", "entropy", "confidence"]

_CLOSEST = 1e-6
"""Knots that lie closer than this are one."""


@dataclass(frozen=True, eq=False)
class GapTemperature(Calibrator):
    """``softmax(s(u) log p)`` with a piecewise linear s of one number u a row.

    Parameters
    ----------
    knots : float64 array (m,)
        Values of u, in ascending order; beyond the first and the last one s is constant.
    scales : float64 array (m,)
        s at the knots, an inverse temperature; at least 0.
    feature : str
        What u is: ``"gap"``, the difference of the two largest log p; ``"entropy"`` of p;
        ``"confidence"``, the largest p.
    """

    knots: NumpyArray
    scales: NumpyArray
    feature: Feature
    kind: ClassVar[str] = "gap-temperature"
    normalises: ClassVar[bool] = True

    def transform(self, logits: Array) -> Array:
        if is_numpy_array(logits):
            # The same function as by `_hats`, which the fit needs, in a tenth of the time.
            at = _feature(self.feature, logits)
            scale = np.interp(at, self.knots, self.scales).astype(logits.dtype)
        else:
            scale = _hats(self.knots, self.feature, logits) @ like(self.scales, logits)
        return logits * scale[:, None]

    @property
    def by_value(self) -> bool:
        # Impossible classes have a part in the entropy.
        return self.feature != "entropy"

    def logits_by_value(self, values: NumpyArray, counts: NumpyArray) -> NumpyArray:
        log_probs = normalised(values, counts)
        at = _feature_by_value(self.feature, log_probs, counts)
        scale = np.interp(at, self.knots, self.scales).astype(log_probs.dtype)
        new: NumpyArray = log_probs * scale[:, None]
        return new

    @property
    def preserves(self) -> Preserves:
        return "order"

    def reach(self, bound: float) -> float:
        return bound * float(self.scales.max())

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> GapTemperature:
        parameters.expect("knots", "scales", "feature")
        knots = read_knots(parameters, least=1)
        scales = parameters.array("scales", (len(knots),))
        feature = parameters.choice("feature", get_args(Feature))
        if scales.min() < 0:
            raise parameters.error("scales must be at least 0")
        return cls(knots, scales, feature)

    def summary(self) -> str:
        least, most = self.scales.min(), self.scales.max()
        return f"{len(self.scales)} scales by {self.feature} from {least:.3f} to {most:.3f}"


@dataclass(frozen=True)
class GapTemperatureMap(SmoothMap):
    """A temperature a row; the parameters are the scales at the knots, at least 0.

    A row's log-probabilities are all multiplied by one number, so their order stays. The ridges on
    the second differences of neighbouring scales, ``penalty / n``, and on the first ones, ``tilt /
    n``, leave a temperature free, and are in units of its scale. By a tilt of 3 neighbours differ
    by two fifths, a standard deviation, where the rows say nothing.
    """

    feature: Feature = field(
        default="gap", metadata={"help": "what a row's temperature depends on"}
    )
    points: int = field(default=8, metadata={"help": "knots of the function, at equal shares"})
    penalty: float = field(
        default=100.0,
        metadata={"help": "ridge on second differences of the scales, over rows", "least": 0},
    )
    tilt: float = field(
        default=3.0,
        metadata={"help": "ridge on first differences of the scales, over rows", "least": 0},
    )
    knots: tuple[float, ...] | None = None
    unit: float = 1.0

    name = "gap-temperature"
    title = "a temperature a row, from the gap between its two likeliest classes"
    source = "idea as in Tomani et al., ECCV 2022, and SMART, arXiv:2506.23492, as a convex fit"
    preserves = "order"
    cost = "about 10 passes"
    normalises = True
    bounded = True
    tunable = ("penalty",)

    def __post_init__(self) -> None:
        if not 1 <= self.points <= 100:
            raise ValueError("points must lie between 1 and 100")

    @property
    def needs_placing(self) -> bool:
        return self.knots is None

    @property
    def most_telling(self) -> int | None:
        return None if self.feature == "entropy" else 2

    def placed(self, log_probs: NumpyArray, weights: NumpyArray) -> GapTemperatureMap:
        with np.errstate(invalid="ignore"):
            values = _feature(self.feature, log_probs)
        kept = np.isfinite(values) & (weights > 0)
        if not kept.any():
            return replace(self, knots=(0.0,))
        shares = (np.arange(self.points) + 0.5) / self.points
        places = weighted_quantiles(values[kept], weights[kept], shares)
        return replace(self, knots=tuple(spaced(places, _CLOSEST)))

    @property
    def _knots(self) -> NumpyArray:
        """The knots; before they are placed, one apart."""
        return np.arange(float(self.points)) if self.knots is None else np.array(self.knots)

    def size(self, classes: int) -> int:
        return len(self._knots)

    def rows_needed(self, classes: int) -> int:
        return 500

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.full(self.size(classes), scale)

    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        return logits * (_hats(self._knots, self.feature, logits) @ like(theta, logits))[:, None]

    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        along = dot_classes(gradient, logits)
        return sum_rows(_hats(self._knots, self.feature, logits) * along[:, None])

    def likelihood_hessian(
        self, theta: NumpyArray, logits: Array, probs: Array, weights: Array | None
    ) -> NumpyArray:
        # All of a row's logits move along its log-probabilities, whose variance is what bends.
        spread = dot_classes(probs * logits, logits) - dot_classes(probs, logits) ** 2
        if weights is not None:
            spread = spread * namespace(logits).astype(weights, spread.dtype)
        hats = _hats(self._knots, self.feature, logits)
        return to_numpy(hats.T @ (hats * spread[:, None])).astype(np.float64)

    def prepares(self, classes: int) -> bool:
        return True

    def prepared(self, logits: NumpyArray, labels: NumpyArray) -> PreparedRows:
        return _ScaledRows(logits, labels, _hats(self._knots, self.feature, logits))

    def resolution(self, theta: NumpyArray) -> float | None:
        return None if self.feature == "entropy" else width_for(float(theta.max()))

    def prepared_by_value(
        self, scores: CountedScores, labels: NumpyArray, resolution: float
    ) -> PreparedRows:
        moments = ValueMoments.of(scores, np.empty(0), resolution)
        values = _feature(self.feature, scores.largest_of_rows(2).astype(np.float64))
        return _ScaledValues(moments, scores.at(labels), _hats_at(self._knots, values))

    def calibrator(self, theta: NumpyArray, classes: int) -> GapTemperature:
        return GapTemperature(self._knots, np.maximum(theta, 0.0), self.feature)

    def ridge(self, classes: int, rows: float) -> NumpyArray:
        scales = np.eye(self.size(classes))
        bends, steps = np.diff(scales, n=2, axis=0), np.diff(scales, axis=0)
        matrix: NumpyArray = self.penalty * bends.T @ bends + self.tilt * steps.T @ steps
        matrix *= 2 / (rows * self.unit**2)
        return matrix

    def scaled(self, scale: float) -> GapTemperatureMap:
        return replace(self, unit=scale)


class _RowsWithScales(PreparedRows):
    """Rows of log-probabilities of which each is multiplied by a number of its own.

    Parameters
    ----------
    own : array (n,)
        The label's.
    hats : array (n, m)
        How much each scale counts in a row.
    """

    def __init__(self, own: NumpyArray, hats: NumpyArray) -> None:
        self._own, self._hats = own.astype(np.float64), hats.astype(np.float64)
        self.nbytes = self._own.nbytes + self._hats.nbytes

    @abstractmethod
    def sums(self, scale: NumpyArray) -> NumpyArray:
        """Sums of ``exp(s v)``, times v, and times v again, at scales s (n,): (3, n)."""

    def derivatives(self, theta: NumpyArray, weights: NumpyArray) -> NumpyArray:
        scale = self._hats @ theta
        total, first, second = self.sums(scale)
        first, second = first / total, second / total
        loss = np.log(total) - scale * self._own
        gradient = self._hats.T @ (weights * (first - self._own))
        bend = weights * (second - first * first)
        hessian = self._hats.T @ (self._hats * bend[:, None])
        return np.concatenate(([weights @ loss], gradient, hessian.ravel()))


class _ScaledValues(_RowsWithScales):
    """Such rows by value, of which the sums come from moments."""

    def __init__(self, moments: ValueMoments, own: NumpyArray, hats: NumpyArray) -> None:
        super().__init__(own, hats)
        self._moments = moments
        self.nbytes += moments.nbytes

    def sums(self, scale: NumpyArray) -> NumpyArray:
        return self._moments.sums_by_row(scale)


class _ScaledRows(_RowsWithScales):
    """Such rows, class by class.

    Parameters
    ----------
    logits : array (n, K)
        ``-inf`` of classes that are impossible.
    labels : int array (n,)
    hats : array (n, m)
    """

    def __init__(self, logits: NumpyArray, labels: NumpyArray, hats: NumpyArray) -> None:
        self._below = shift(logits)
        impossible = impossible_classes(self._below)
        self._possible: NumpyArray | None = None
        if impossible is not None:
            self._possible = ~impossible
            self._below[impossible] = 0
        # From the largest, so that nothing vanishes in single precision.
        super().__init__(pick(self._below, labels), hats)
        self.nbytes += self._below.nbytes
        self.nbytes += 0 if self._possible is None else self._possible.nbytes

    def sums(self, scale: NumpyArray) -> NumpyArray:
        below = self._below
        power = below * scale.astype(below.dtype)[:, None]
        np.exp(power, out=power)
        if self._possible is not None:
            power *= self._possible
        total = sum_classes(power)
        power *= below
        return np.stack([total, sum_classes(power), dot_classes(power, below)]).astype(np.float64)


def _feature(feature: Feature, log_probs: Array) -> Array:
    """The number (n,) of each row of log-probabilities (n, K) that its temperature depends on."""
    xp = namespace(log_probs)
    if feature == "entropy":
        return -sum_classes(xp.exp(log_probs) * log_probs)
    most = largest(log_probs)
    if feature == "confidence":
        return xp.exp(most)
    return most - largest(put(log_probs + 0, argmax(log_probs), -xp.inf))


def _feature_by_value(feature: Feature, values: NumpyArray, counts: NumpyArray) -> NumpyArray:
    """The same of distinct log-probabilities (n, D), ascending, that occur so often."""
    if feature != "gap":
        return np.asarray(_feature(feature, values))
    rows, columns = np.arange(len(values)), values.shape[1]
    # What fills a row up at its end occurs 0 times.
    last = columns - 1 - (counts[:, ::-1] > 0).argmax(axis=1)
    second = np.where(counts[rows, last] > 1, last, last - 1)
    gap = values[rows, last] - values[rows, second]
    return np.where(second < 0, np.inf, gap)


def _hats(knots: NumpyArray, feature: Feature, log_probs: Array) -> Array:
    """Weights (n, m) of the knots (m,) in linear interpolation: each row sums to 1."""
    return _hats_at(knots, _feature(feature, log_probs))


def _hats_at(knots: NumpyArray, values: Array) -> Array:
    """The same of the numbers (n,) that the rows' temperatures depend on."""
    xp = namespace(values)
    values = xp.clip(values, min=float(knots[0]), max=float(knots[-1]))
    # The share of the way from each knot to the next one that a row has gone.
    ways = [
        xp.clip((values - float(a)) / float(b - a), min=0.0, max=1.0) for a, b in pairwise(knots)
    ]
    ends = [xp.ones_like(values), *ways, xp.zeros_like(values)]
    return xp.stack([a - b for a, b in pairwise(ends)], axis=-1)
