"""Expected against observed by period: where probabilities have ceased to hold.

In each period the events that the probabilities expect are compared with those that came, by a
control chart whose limits need no earlier data: they follow from the probabilities themselves.

A number of independent events of different probabilities is taken for binomial with their mean and
variance, ``sum p`` and ``sum p (1 - p)``; its limits leave out 0.135 % at either end, as three
standard deviations of a normal distribution do (Shewhart), so that one period in 370 is out of them
by chance. Of rows in clusters the limits are those of Student's t with the clusters' own variance,
and never closer than for independent rows.

References
----------
Montgomery (2012), Introduction to Statistical Quality Control, chapter 7 (p charts with limits of
varying width); Woodall (2006), doi:10.1080/00224065.2006.11918623 (risk-adjusted charts).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.resampling import BAGS, Units
from calibcli.metrics.row_mean import ratio
from calibcli.metrics.slices import BY
from calibcli.metrics.view import View

FEWEST_EVENTS = 5
"""A period in which fewer events, or fewer rows without one, are expected has no limits."""

FEWEST_CLUSTERS = 5
"""So has one with fewer clusters."""

TAIL = 0.0013498980316300946
"""Share that limits leave out at either end: a normal distribution's beyond three deviations."""

_SUMS = 6
_MOST_CELLS, _FEWEST_BAGS = 1 << 16, 32
_POISSON = 1e-9

Signal: TypeAlias = Literal["within", "high", "low", "too few"]
"""Whether more or fewer events came than the limits allow."""

PeriodState: TypeAlias = tuple[NumpyArray, ...]
"""Sums by period (S, 6); and, of rows in clusters, by period and bag of clusters (S, B, 2)."""


@dataclass(frozen=True)
class Period:
    """The rows of a period.

    Attributes
    ----------
    name : str
    rows : int
    weight : float
    expected, observed : float
        Weight of the events that the probabilities expect, and of those that came.
    low, high : float or None
        Between them ``observed`` is by chance; None where there are too few events.
    signal : Signal
    """

    name: str
    rows: int
    weight: float
    expected: float
    observed: float
    low: float | None
    high: float | None
    signal: Signal


@dataclass(frozen=True)
class PeriodSums:
    """The statistic: sums by period.

    Parameters
    ----------
    count : int
        Number of periods S.
    units : Units or None
        The clusters of rows; None: rows are independent.
    """

    count: int
    units: Units | None = None

    def partial(self, view: View) -> PeriodState:
        """The sums over one block."""
        period, weights = view.keys[BY], view.weights
        confidence, outcome = view.forecast()
        variance = confidence * (1 - confidence)
        present = weights > 0
        summed = (
            present * 1.0,
            weights,
            weights * confidence,
            weights * outcome,
            weights**2 * variance,
            weights * variance,
        )
        sums = np.stack([np.bincount(period, v, self.count) for v in summed], axis=1)
        if self.units is None:
            return (sums,)
        bags = self.units.bags(max(min(BAGS, _MOST_CELLS // self.count), _FEWEST_BAGS))
        place = period * bags + self.units.bags_of(view, bags)
        by_bag = [
            np.bincount(place, v, self.count * bags)
            for v in (weights, weights * (outcome - confidence))
        ]
        return sums, np.stack(by_bag, axis=1).reshape(self.count, bags, 2)

    def merge(self, left: PeriodState, right: PeriodState) -> PeriodState:
        """The sums over two blocks."""
        return tuple(a + b for a, b in zip(left, right, strict=True))

    def finish(self, state: PeriodState) -> PeriodState:
        """The sums."""
        return state


def read_periods(state: PeriodState, names: Sequence[str]) -> list[Period]:
    """The periods that have rows, in the order of their names (see `in_order`).

    Parameters
    ----------
    state : tuple of array
        Of a finished `PeriodSums`.
    names : sequence of str
        Of all periods.
    """
    sums = state[0]
    present = [place for place in in_order(names) if sums[place, 1] > 0]
    return [
        _period(names[place], sums[place], state[1][place] if len(state) > 1 else None)
        for place in present
    ]


def in_order(names: Sequence[str]) -> list[int]:
    """The places of names in their order: numbers by their size, other names by their parts.

    The whole numbers in a name count as such, so that ``2025-2`` comes before ``2025-10``.
    """
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        numbers = [math.nan]
    if all(map(math.isfinite, numbers)):
        return sorted(range(len(names)), key=numbers.__getitem__)
    parts = [re.split(r"(\d+)", name) for name in names]
    # Text and numbers alternate, so that like is compared with like.
    keys = [[(int(p) if p.isdecimal() else 0, p) for p in part] for part in parts]
    return sorted(range(len(names)), key=keys.__getitem__)


def _period(name: str, sums: NumpyArray, by_bag: NumpyArray | None) -> Period:
    rows, weight, expected, observed, squares, variance = sums.tolist()
    # Weights are taken for so many rows of weight 1 as are as certain.
    each = ratio(squares, variance)
    limits = None
    if by_bag is not None:
        limits = _cluster_limits(expected, squares, by_bag)
    elif variance > 0:
        limits = _binomial_limits(expected / each, variance / each)
        limits = (limits[0] * each, limits[1] * each)
    scale = each if variance > 0 else 1.0
    if limits is None or min(expected, weight - expected) < FEWEST_EVENTS * scale:
        return Period(name, int(rows), weight, expected, observed, None, None, "too few")
    low, high = max(limits[0], 0.0), min(limits[1], weight)
    signal: Signal = "low" if observed < low else "high" if observed > high else "within"
    return Period(name, int(rows), weight, expected, observed, low, high, signal)


def _binomial_limits(mean: float, variance: float) -> tuple[float, float]:
    """Between which a number of independent events is, but for `TAIL` at either end."""
    from scipy.special import bdtrik, pdtrik

    chance = 1 - variance / mean
    if chance > _POISSON:
        low, high = (float(bdtrik(tail, mean / chance, chance)) for tail in (TAIL, 1 - TAIL))
    else:
        low, high = (float(pdtrik(tail, mean)) for tail in (TAIL, 1 - TAIL))
    # The first number that is too large is the one behind the quantile. No number may be too small.
    return (0.0 if math.isnan(low) else low), high + 1


def _cluster_limits(
    expected: float, variance: float, by_bag: NumpyArray
) -> tuple[float, float] | None:
    """The same of rows in clusters, by Student's t; None of too few clusters."""
    from scipy.special import stdtrit

    excess = by_bag[by_bag[:, 0] > 0][:, 1]
    count = len(excess)
    if count < FEWEST_CLUSTERS:
        return None
    spread = max(variance, count * float(excess.var(ddof=1)))
    half = float(stdtrit(count - 1, 1 - TAIL)) * math.sqrt(spread)
    return expected - half, expected + half
