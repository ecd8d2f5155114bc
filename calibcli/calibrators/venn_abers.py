"""Inductive Venn-Abers predictors: isotonic regression with the row itself added, twice.

Once the row is taken for a negative and once for a positive. That gives two probabilities, p0 and
p1, one of which is calibrated whatever the data is, and which lie close together where there were
many rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar, TypeAlias

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    impossible_classes,
    like,
    namespace,
    pick,
    restore_impossible,
    sum_classes,
)
from calibcli.cached import cached_property
from calibcli.calibrators.augmented_isotonic import augmented_isotonic
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.curve_search import Cells
from calibcli.calibrators.curves import (
    LARGEST_LOG_ODDS,
    SAMPLED_ODDS,
    BinarySample,
    Curve,
    CurveMap,
    ends_before,
    log_odds,
    points_of,
    read_points,
    sampled,
)
from calibcli.calibrators.parameters import Parameters

MOST_EXACT_STEPS = 500_000
"""Where all classes together have more steps, they are rounded, unless the user says otherwise."""

ROUNDING = 0.01
"""Log-odds are rounded to multiples of this, by which p and 1 - p change by at most 0.5 %."""

_TIE = 16
"""Scores that are closer than so many units of their precision are the same score: a fit and a
later run may compute them in different precision."""


@dataclass(frozen=True, eq=False)
class Steps:
    """Increasing step functions of the log-odds, one a class, or for two classes that of class 1.

    Attributes
    ----------
    counts : float64 array (C,)
        Number of steps of each; at least 1.
    scores : float64 array (m,)
        Log-odds of the steps, function after function, ascending within each.
    values : float64 array (m,)
        Probabilities, never falling within each function.
    """

    counts: NumpyArray
    scores: NumpyArray
    values: NumpyArray

    @cached_property
    def cells(self) -> Cells:
        """The steps, to be searched."""
        return Cells(self.scores, self.counts)

    def with_start(self, value: float) -> Steps:
        """One step more at the start of each function, below all scores."""
        begins = self.cells.begins
        scores = np.insert(self.scores, begins, -np.inf)
        return Steps(self.counts + 1, scores, np.insert(self.values, begins, value))

    def with_end(self, value: float) -> Steps:
        """Each function with its values from behind the score of each step on.

        The value of the first step then holds below it, and another one behind the last.
        """
        scores = np.insert(self.scores, self.cells.begins, -np.inf)
        return Steps(self.counts + 1, scores, np.insert(self.values, self.cells.ends, value))

    def at(self, places: Array) -> Array:
        """The values (n, C) at places (n, C), float64; NaN at NaN."""
        low, _ = self.cells.find(places)
        values = like(self.values, places)[low]
        xp = namespace(places)
        return xp.where(xp.isnan(places), places, values)


@dataclass(frozen=True, eq=False)
class VennAbers(Calibrator):
    """``q_k / sum_j q_j`` with ``q = p1 / (1 - p0 + p1)``, p0 and p1 of the log-odds of class k.

    The log-odds are ``log p_k / (1 - p_k)``. With two classes there are p0 and p1 of class 1 alone,
    and ``q_0 = 1 - q_1``.

    Parameters
    ----------
    resolution : float
        The log-odds of p0 and p1 are rounded to multiples of this; 0 where they are exact.
    p0_counts, p1_counts : float64 array (K,)
        Number of steps of p0 and p1 of each class, at least 1; of two classes, (1).
    p0_scores, p1_scores : float64 array (m)
        Log-odds of the steps, class after class, ascending within each.
    p0_values, p1_values : float64 array (m)
        Never falling within a class. A value of p0 holds from its score on, and 0 below the first;
        one of p1 up to and at its score, and 1 above the last. p0 is never greater than p1.
    """

    resolution: float
    p0_counts: NumpyArray
    p0_scores: NumpyArray
    p0_values: NumpyArray
    p1_counts: NumpyArray
    p1_scores: NumpyArray
    p1_values: NumpyArray
    kind: ClassVar[str] = "venn-abers"
    readable: ClassVar[bool] = False

    def transform(self, logits: Array) -> Array:
        """New logits (n, K) from logits (n, K), of which some may be ``-inf``."""
        xp = namespace(logits)
        p0, p1 = self._bounds(logits)
        if logits.shape[-1] == 2:
            new = xp.concat((xp.log1p(-p0), xp.log(p1)), axis=-1)
        else:
            new = xp.log(p1) - xp.log(1 - p0 + p1)
        return xp.astype(new, logits.dtype)

    def logits(self, logits: Array) -> Array:
        return restore_impossible(self.transform(logits), impossible_classes(logits))

    def interval(self, logits: Array, prediction: Array) -> tuple[Array, Array]:
        """The interval in which the probability of each row's class may lie; see `Calibrator`.

        At the lower end the class takes its p0 and all others their p1, at the upper end the other
        way round; of two classes that is p0 and p1 themselves.
        """
        xp = namespace(logits)
        p0, p1 = self._bounds(logits)
        if logits.shape[-1] == 2:
            p0, p1 = xp.concat((1 - p1, p0), axis=-1), xp.concat((1 - p0, p1), axis=-1)
        possible = logits > -xp.inf
        p0, p1 = p0 * possible, p1 * possible
        own0, own1 = pick(p0, prediction), pick(p1, prediction)
        most = own0 + xp.clip(sum_classes(p1) - own1, min=0.0)
        least = own1 + xp.clip(sum_classes(p0) - own0, min=0.0)
        # Where no other class is possible, it is certain.
        return xp.where(most > 0, own0 / xp.where(most > 0, most, 1.0), 1.0), own1 / least

    @cached_property
    def _lookup(self) -> tuple[Steps, Steps]:
        p0 = Steps(self.p0_counts, self.p0_scores, self.p0_values)
        p1 = Steps(self.p1_counts, self.p1_scores, self.p1_values)
        return p0.with_start(0.0), p1.with_end(1.0)

    def _bounds(self, logits: Array) -> tuple[Array, Array]:
        """p0 and p1 (n, C) at logits (n, K), float64."""
        xp = namespace(logits)
        at = xp.astype(log_odds(logits), xp.float64)
        tie = _TIE * float(xp.finfo(logits.dtype).eps) * (1 + xp.clip(xp.abs(at), max=1e6))
        from_there_on, up_to_there = self._lookup
        p0, p1 = from_there_on.at(at + tie), up_to_there.at(at - tie)
        # They cross only where both change between scores that are the same.
        return xp.minimum(p0, p1), xp.maximum(p0, p1)

    def reach(self, bound: float) -> float:
        return LARGEST_LOG_ODDS

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> VennAbers:
        parameters.expect(*(entry.name for entry in fields(cls)))
        resolution = parameters.number("resolution")
        if resolution < 0:
            raise parameters.error("resolution must be at least 0")
        p0, p1 = (_read_steps(parameters, p, classes) for p in ("p0", "p1"))
        if p0.values.min() < 0 or p1.values.max() > 1:
            raise parameters.error("p0 and p1 must lie between 0 and 1")
        if p0.values.max() >= 1 or p1.values.min() <= 0:
            raise parameters.error("p0 must be less than 1, p1 greater than 0")
        if _cross(p0, p1):
            raise parameters.error("p0 is greater than p1 somewhere")
        return cls.of(resolution, p0, p1)

    @classmethod
    def of(cls, resolution: float, p0: Steps, p1: Steps) -> VennAbers:
        """The calibrator with these functions."""
        return cls(resolution, p0.counts, p0.scores, p0.values, p1.counts, p1.scores, p1.values)

    def summary(self) -> str:
        classes = len(self.p0_counts)
        at = np.repeat(SAMPLED_ODDS[:, None], classes, axis=1)
        p0, p1 = (part.at(at) for part in self._lookup)
        merged = p1 / (1 - p0 + p1)
        values = np.concatenate((1 - merged, merged), axis=1) if classes == 1 else merged
        rounded = f", rounded to {self.resolution:g} in log-odds" if self.resolution else ""
        return (
            f"{sampled(values)}; {len(self.p0_scores) + len(self.p1_scores):,} steps of p0 and p1"
            + (f" of {classes} classes" if classes > 1 else "")
            + rounded
        )


def _read_steps(parameters: Parameters, prefix: str, classes: int) -> Steps:
    # A class that no row speaks of has its steps as far out as numbers go; none is computed with.
    steps = Steps(*read_points(parameters, classes, f"{prefix}_", within=np.inf))
    if (np.diff(steps.values)[~ends_before(steps.counts)] < 0).any():
        raise parameters.error(f"{prefix}_values of a class must not fall")
    return steps


def _cross(p0: Steps, p1: Steps) -> bool:
    """Whether p0 is greater than p1 somewhere: if at all, then at a step of p1."""
    begin0, begin1 = 0, 0
    for end0, end1 in zip(p0.cells.ends, p1.cells.ends, strict=True):
        values = np.concatenate(([0.0], p0.values[begin0:end0]))
        places = np.searchsorted(p0.scores[begin0:end0], p1.scores[begin1:end1], side="right")
        if (values[places] > p1.values[begin1:end1]).any():
            return True
        begin0, begin1 = end0, end1
    return False


@dataclass(frozen=True, eq=False)
class Band(Curve):
    """The steps of p1 of one class, with those of p0 beside them.

    Attributes
    ----------
    below : Curve
        The steps of p0.
    """

    below: Curve


@dataclass(frozen=True)
class VennAbersMap(CurveMap):
    """Two step functions a class, from which a probability and an interval follow."""

    resolution: float | None = field(
        default=None,
        metadata={
            "help": "round p0 and p1 to multiples of this in log-odds; 0: exact; "
            f"auto: exact up to {MOST_EXACT_STEPS:,} steps, then {ROUNDING}",
            "least": 0,
        },
    )

    name: ClassVar[str] = "venn-abers"
    title: ClassVar[str] = "isotonic regression with each outcome added, and an interval"
    source: ClassVar[str] = (
        "Vovk, Petej and Fedorova, Large-scale probabilistic predictors with and without "
        "guarantees of validity, NeurIPS 2015"
    )

    def rows_needed(self, classes: int) -> int:
        return 100 if classes == 2 else 100 * classes

    def fit(self, sample: BinarySample) -> Band:
        p0, p1 = augmented_isotonic(sample.positives, sample.weights)
        rises0, rises1 = np.diff(p0) > 0, np.diff(p1) > 0
        # Each has a step at least.
        rises0[0] = rises1[-1] = True
        scores = sample.scores
        below = Curve(scores[rises0], p0[1:][rises0])
        return Band(scores[rises1], p1[:-1][rises1], below)

    def fit_absent(self, scores: NumpyArray) -> list[Curve]:
        # Steps depend on the order of the rows alone, and it is the same for all.
        m = scores.shape[1]
        band = self.fit(BinarySample(np.arange(m, dtype=np.float64), np.zeros(m), np.ones(m)))
        upper, lower = (
            scores[:, curve.scores.astype(np.int64)].astype(np.float64)
            for curve in (band, band.below)
        )
        return [
            Band(above, band.values, Curve(below, band.below.values))
            for above, below in zip(upper, lower, strict=True)
        ]

    def calibrator(self, curves: Sequence[Curve]) -> Calibrator:
        bands = [curve if isinstance(curve, Band) else _constant(curve) for curve in curves]
        steps = sum(len(band.scores) + len(band.below.scores) for band in bands)
        resolution = self.resolution
        if resolution is None:
            resolution = ROUNDING if steps > MOST_EXACT_STEPS else 0.0
        lower, upper = points_of([band.below for band in bands]), points_of(bands)
        if resolution:
            lower = _thinned(*_rounded(*lower, resolution), "first")
            upper = _thinned(*_rounded(*upper, resolution), "last")
        return VennAbers.of(resolution, Steps(*lower), Steps(*upper))


def _constant(curve: Curve) -> Band:
    """A class that no row speaks of: the same probability everywhere."""
    lowest, highest = np.array([np.finfo(np.float64).min]), np.array([np.finfo(np.float64).max])
    return Band(highest, curve.values[:1], Curve(lowest, curve.values[:1]))


_Points: TypeAlias = tuple[NumpyArray, NumpyArray, NumpyArray]
"""What `points_of` returns: the points of the curves of all classes."""


def _rounded(
    counts: NumpyArray, scores: NumpyArray, values: NumpyArray, resolution: float
) -> _Points:
    """Probabilities whose log-odds are multiples of a number, but for 0 and 1."""
    inner = (values > 0) & (values < 1)
    rounded = values.copy()
    odds = np.log(values[inner]) - np.log1p(-values[inner])
    rounded[inner] = 1 / (1 + np.exp(-resolution * np.round(odds / resolution)))
    return counts, scores, rounded


def _thinned(counts: NumpyArray, scores: NumpyArray, values: NumpyArray, kept: str) -> _Points:
    """The curves with only the first or the last of neighbouring steps of the same value."""
    rises = (np.diff(values) > 0) | ends_before(counts)
    keep = np.append(rises, True) if kept == "last" else np.insert(rises, 0, True)
    ends = np.cumsum(counts).astype(np.int64)
    left = np.diff(np.concatenate(([0], np.cumsum(keep)[ends - 1]))).astype(np.float64)
    return left, scores[keep], values[keep]
