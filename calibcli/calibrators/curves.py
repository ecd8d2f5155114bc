"""One-vs-rest calibration: for each class a curve from its log-odds to its probability."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np

from calibcli.arrays import (
    SMALLEST_PROBABILITY,
    Array,
    NumpyArray,
    argmax,
    at_least,
    bring_within,
    greatest,
    impossible_classes,
    is_any,
    is_single_row,
    largest,
    least,
    like,
    log_in_place,
    log_softmax,
    namespace,
    put,
    restore_impossible,
    shift,
    sum_classes,
)
from calibcli.cached import cached_property
from calibcli.calibrators.base import Calibrator, Family, Preserves
from calibcli.calibrators.curve_search import Cells
from calibcli.calibrators.parameters import Parameters

Interpolation: TypeAlias = Literal["linear", "step"]

LARGEST_LOG_ODDS = 1e6
"""Log-odds of what is impossible or certain, for curves that go on beyond their last point."""

FARTHEST_SCORE = 1e16
"""Between scores of up to this, widths do not overflow; logits lie far inside."""

_FEW_CURVES = 64
"""Places in so many curves take less time as Python's numbers than as NumPy's arrays."""

_FEW_POINTS = 1 << 16
"""So many are kept as Python's numbers besides, which take ten times the memory."""

ALLOW_ZERO = "let probabilities of exactly 0 and 1 through"
"""Help of an option that families of curves have."""


@dataclass(frozen=True, eq=False)
class BinarySample:
    """How often an event came with each score.

    Attributes
    ----------
    scores : float64 array (m,)
        Log-odds, distinct and ascending.
    positives : float64 array (m,)
        Weight of the rows with that score where the event came.
    weights : float64 array (m,)
        Weight of all rows with that score; greater than 0.
    """

    scores: NumpyArray
    positives: NumpyArray
    weights: NumpyArray


@dataclass(frozen=True, eq=False)
class Curve:
    """Probabilities of an event by score.

    Attributes
    ----------
    scores : float64 array (m,)
        Log-odds, ascending; at least one.
    values : float64 array (m,)
        Probabilities at the scores.
    """

    scores: NumpyArray
    values: NumpyArray


@dataclass(frozen=True, eq=False)
class Curves(Calibrator):
    """Curves of the log-odds of each class, of two classes that of class 1, by their points.

    Parameters
    ----------
    counts : float64 array (K,)
        Number of points of each curve, at least 1; of two classes, (1).
    scores : float64 array (m,)
        Log-odds of the points, curve after curve, ascending within each.
    values : float64 array (m,)
    """

    counts: NumpyArray
    scores: NumpyArray
    values: NumpyArray
    readable: ClassVar[bool] = False

    @abstractmethod
    def log_values(self, at: Array) -> Array:
        """Logarithms of the curves (n, K) at log-odds (n, C), float64, C being 1 for K = 2."""

    def transform(self, logits: Array) -> Array:
        """New logits (n, K) from logits (n, K), of which some may be ``-inf``."""
        xp = namespace(logits)
        odds = log_odds(logits)
        if logits.dtype == xp.float64:
            return self.log_values(bring_within(odds, -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS))
        at = bring_within(xp.astype(odds, xp.float64), -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)
        return xp.astype(self.log_values(at), logits.dtype)

    def logits(self, logits: Array) -> Array:
        return restore_impossible(self.transform(logits), impossible_classes(logits))

    def reach(self, bound: float) -> float:
        return LARGEST_LOG_ODDS

    @cached_property
    def cells(self) -> Cells:
        """The points of the curves, to be searched."""
        return Cells(self.scores, self.counts)

    def summary(self) -> str:
        at = np.repeat(SAMPLED_ODDS[:, None], len(self.counts), axis=1)
        # A file may hold anything.
        with np.errstate(all="ignore"):
            values = np.exp(self.log_values(at))
        return f"{sampled(values)}; {len(self.scores):,} points"


@dataclass(frozen=True, eq=False)
class OneVsRest(Curves):
    """``q_k / sum_j q_j``, q_k being a curve of the log-odds ``log(p_k / (1 - p_k))`` of class k.

    With two classes there is one curve, that of class 1, and ``q_0 = 1 - q_1``. Beyond its first
    and last score a curve is constant. Where all q of a row are 0 it keeps its probabilities.

    Parameters
    ----------
    interpolation : str
        Between two scores: ``"linear"``, or ``"step"`` for the value at the lower one.
    counts : float64 array (K,)
        Number of points of each curve, at least 1; of two classes, (1).
    scores : float64 array (m,)
        Log-odds of the points, curve after curve, ascending within each.
    values : float64 array (m,)
        q at the points, between 0 and 1.
    """

    interpolation: Interpolation
    kind: ClassVar[str] = "one-vs-rest"

    def log_values(self, at: Array) -> Array:
        xp = namespace(at)
        if is_single_row(at) and at.shape[1] <= _FEW_CURVES and len(self.scores) <= _FEW_POINTS:
            values = self._values_of_row(at)
            if len(self.counts) > 1 and least(values) > 0:
                return log_in_place(values)
        else:
            values = self._values(at)
        with np.errstate(divide="ignore"):
            if len(self.counts) == 1:
                return xp.concat((xp.log1p(-values), xp.log(values)), axis=-1)
            return log_in_place(values)

    def _values(self, at: Array) -> Array:
        """Values (n, C) of the curves at log-odds (n, C)."""
        xp = namespace(at)
        values = like(self.values, at)
        low, _ = self.cells.find(at)
        if self.interpolation == "step":
            # A score that is no number must not come out as one.
            return xp.where(xp.isnan(at), at, values[low])
        scores, widths, rises = (like(v, at) for v in (self.scores, *self._pieces))
        share = at - scores[low]
        share /= widths[low]
        share = bring_within(share, 0.0, 1.0)
        share *= rises[low]
        share += values[low]
        return share

    def _values_of_row(self, at: NumpyArray) -> NumpyArray:
        """As `_values` of a single row (1, C), by the same operations on Python's numbers."""
        places, pieces = at[0].tolist(), self._plain_pieces
        row = []
        for place, low in zip(places, self.cells.find_row(places), strict=True):
            score, width, value, rise = pieces[low]
            share = (place - score) / width
            # Compared this way round, NaN stays NaN.
            row.append(value if share <= 0 else value + (1.0 if share > 1 else share) * rise)
        return np.array([row])

    @cached_property
    def _plain_pieces(self) -> list[tuple[float, float, float, float]]:
        """Score of each point, width of the piece behind it, value and rise, as Python's numbers.

        Steps don't rise.
        """
        widths, rises = self._pieces
        if self.interpolation == "step":
            rises = np.zeros(len(rises))
        columns = (each.tolist() for each in (self.scores, widths, self.values, rises))
        return list(zip(*columns, strict=True))

    @cached_property
    def _pieces(self) -> tuple[NumpyArray, NumpyArray]:
        """Width of the piece behind each point (1 behind the last), and how far it rises (m,)."""
        last = self.cells.ends - 1
        widths, rises = (np.append(np.diff(v), 0.0) for v in (self.scores, self.values))
        widths[last], rises[last] = 1.0, 0.0
        return widths, rises

    def logits(self, logits: Array) -> Array:
        new = super().logits(logits)
        if is_single_row(new):
            return log_softmax(logits) if greatest(new) == -np.inf else new
        xp = namespace(logits)
        nothing = largest(new)[:, None] == -xp.inf
        return xp.where(nothing, log_softmax(logits), new) if is_any(nothing) else new

    def parameters(self) -> dict[str, Any]:
        return {"interpolation": self.interpolation, **super().parameters()}

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> OneVsRest:
        parameters.expect("interpolation", "counts", "scores", "values")
        interpolation = parameters.choice("interpolation", get_args(Interpolation))
        counts, scores, values = read_points(parameters, classes)
        if values.min() < 0 or values.max() > 1:
            raise parameters.error("values must lie between 0 and 1")
        return cls(counts, scores, values, interpolation)


SAMPLED_ODDS = np.log([1 / 9, 1.0, 9.0])
"""The log-odds of 10, 50 and 90 %, at which a curve is described."""


def sampled(values: NumpyArray) -> str:
    """What curves make of 10, 50 and 90 % in words, from their values (3, K) there.

    With two classes that of class 1; with more, from the least of any class to the largest, before
    they are made to sum to 1.
    """
    of_interest = values[:, 1:] if values.shape[1] == 2 else values
    parts = []
    for share, each in zip(("10 % becomes", "50 %", "90 %"), 100 * of_interest, strict=True):
        ends = dict.fromkeys(f"{end:.3g}" for end in (each.min(), each.max()))
        parts.append(f"{share} {' to '.join(ends)} %")
    return ", ".join(parts)


def curves_at(classes: int) -> int:
    """Number of curves for K classes."""
    return 1 if classes == 2 else classes


class CurveMap(Family):
    """A family of curves from a class's log-odds to its probability, each fitted by itself.

    A frozen dataclass of options, as `SmoothMap` is; but no loss of all classes is minimised.
    """

    preserves: ClassVar[Preserves] = "nothing"
    minimises: ClassVar[bool] = False
    interpolation: ClassVar[Interpolation] = "linear"
    cost: ClassVar[str] = "a pass, and a sort of each class's scores"

    def size(self, classes: int) -> int | None:
        return None

    def rows_needed(self, classes: int) -> int:
        return 1000 if classes == 2 else 500 * classes

    @abstractmethod
    def fit(self, sample: BinarySample) -> Curve:
        """The curve of one event; the sample has at least one score."""

    def fit_absent(self, scores: NumpyArray) -> list[Curve] | None:
        """The curves of events that never came, as `fit` gives them; None if only `fit` does.

        Of 100,000 classes few come in a small file, and arithmetic on one at a time would take
        longer than all else.

        Parameters
        ----------
        scores : float array (C, m)
            Those of each event in ascending order, no two the same, each of one row.
        """
        del scores
        return None

    def constant(self, share: float) -> Curve:
        """The curve of a class that no row tells anything about."""
        return Curve(np.zeros(1), np.array([share]))

    def calibrator(self, curves: Sequence[Curve]) -> Calibrator:
        """The fitted calibrator of curves, one a class, or for two classes that of class 1."""
        return OneVsRest(*points_of(curves), self.interpolation)


def points_of(curves: Sequence[Curve]) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
    """``counts`` (C,), ``scores`` (m,) and ``values`` (m,) of curves."""
    return (
        np.array([len(curve.scores) for curve in curves], np.float64),
        np.concatenate([curve.scores for curve in curves]),
        np.concatenate([curve.values for curve in curves]),
    )


def log_odds(logits: Array) -> Array:
    """``log p_k / (1 - p_k)`` (n, K) of logits (n, K); of two classes that of class 1 (n, 1).

    Nothing cancels where a class has nearly all of the probability. At most the logarithm of the
    smallest number of the array's precision, but for two classes; ``-inf`` of impossible classes.
    """
    xp = namespace(logits)
    shifted = shift(logits)
    if logits.shape[-1] == 2:
        # The same difference as without the shift, but for +inf, which has no probability.
        return shifted[:, 1:] - shifted[:, :1]
    if is_single_row(shifted):
        return _log_odds_of_row(shifted)
    odds = xp.exp(shifted)
    top = argmax(odds)
    rest = sum_classes(put(odds, top, 0.0))
    others = odds
    others *= -1.0
    others += (rest + 1.0)[:, None]
    others = put(others, top, at_least(rest, float(xp.finfo(rest.dtype).smallest_normal)))
    shifted -= log_in_place(others)
    return shifted


def _log_odds_of_row(shifted: NumpyArray) -> NumpyArray:
    """The same operations on a single row (1, K), as short as NumPy has them; in its memory."""
    odds = np.exp(shifted)
    top = odds.argmax()
    odds[0, top] = 0.0
    rest = sum_classes(odds)
    others = (rest + 1.0)[0, ...] - odds
    # In this order NaN stays NaN.
    others[0, top] = max(rest[0], np.finfo(odds.dtype).smallest_normal)
    shifted -= log_in_place(others)
    return shifted


def read_points(
    parameters: Parameters, classes: int, prefix: str = "", *, within: float = FARTHEST_SCORE
) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
    """``counts`` (C,), ``scores`` (m,) and ``values`` (m,) of a stage of curves, checked.

    Parameters
    ----------
    prefix : str
        Prefix of these names, in a stage that has more than one set of curves.
    within : float
        How far from 0 a score may lie.

    Raises
    ------
    ParamsError
        Wrong shapes, counts that don't add up, or scores that don't ascend.
    """
    counts = parameters.array(f"{prefix}counts", (curves_at(classes),), within=2**53)
    scores = parameters.array(f"{prefix}scores", None, within=within)
    if (counts < 1).any() or (counts != np.floor(counts)).any() or counts.sum() != len(scores):
        raise parameters.error(
            f"{prefix}counts must be whole numbers from 1 that sum to the number of {prefix}scores"
        )
    if (scores[1:] <= scores[:-1])[~ends_before(counts)].any():
        raise parameters.error(f"the {prefix}scores of a class must be in ascending order")
    return counts, scores, parameters.array(f"{prefix}values", scores.shape)


def ends_before(counts: NumpyArray) -> NumpyArray:
    """Whether one curve ends and another one begins between a point and the next (m - 1,)."""
    ends: NumpyArray = np.zeros(int(counts.sum()) - 1, bool)
    ends[np.cumsum(counts).astype(np.int64)[:-1] - 1] = True
    return ends


def krichevsky_trofimov(positives: NumpyArray, weights: NumpyArray) -> NumpyArray:
    """Shares of positives, of which those of 0 and 1 are drawn inwards by half a row.

    ``(positives + 1/2) / (weights + 1)`` is the estimator of Krichevsky and Trofimov, The
    performance of universal encoding, 1981; where there is no weight it is 1/2.

    >>> krichevsky_trofimov(np.array([0.0, 3.0, 4.0]), np.full(3, 4.0)).round(3)
    array([0.1 , 0.75, 0.9 ])
    """
    pure = (positives <= 0) | (positives >= weights)
    share = positives / np.where(pure, 1.0, weights)
    return np.where(pure, (np.minimum(positives, weights) + 0.5) / (weights + 1), share)


def clip_probabilities(values: NumpyArray) -> NumpyArray:
    """Probabilities that are never exactly 0 or 1."""
    return np.clip(values, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
