"""Measurements of the same rows that are made apart: what each keeps, so that they can be paired.

Two models that are measured on the same rows err together, and their difference is known far better
than either of them. Rows go to bags by their number and the seed, and bags are drawn by the seed,
so that runs of the same rows see the same resamples. A mean keeps its sums by bag; what is no mean
keeps its values in the resamples. That these were the same rows is shown by a hash of everything
about them but the scores.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray, hashed
from calibcli.metrics.resampling import LEVEL, Bagged, Interval, Units
from calibcli.metrics.view import View

MOST_VALUES = 256
"""So many values of resamples are kept at most; a standard deviation of 200 is off by 5 %."""

_NORMAL = NormalDist().inv_cdf((1 + LEVEL) / 2)
_BITS = 1 << 63
_ONE = np.float64(1.0).view(np.int64)


class Recorded(NamedTuple):
    """A metric of one run, as it is kept.

    Attributes
    ----------
    figure : float
        The value, or the estimate where there is one.
    interval : Interval
    numbers : array
        What `Resampling.record` made of it.
    """

    figure: float
    interval: Interval
    numbers: NumpyArray

    def reach(self, side: int) -> float:
        """How far the interval goes below (-1) or above (1) the figure."""
        return side * (self.interval[side > 0] - self.figure)


@dataclass(frozen=True)
class PairingRecord:
    """What a measurement keeps.

    Attributes
    ----------
    rows : str
        The hash of the rows.
    bagged : Bagged
        The bags that they were shared out to, with their shares of the weight.
    metrics : dict of str to array
        By metric what its resampling keeps of it, float32.
    """

    rows: str
    bagged: Bagged
    metrics: dict[str, NumpyArray]

    def difference_from(self, other: PairingRecord) -> str:
        """Why the two runs cannot be paired; nothing where they can."""
        if self.rows != other.rows:
            return "other rows, labels, weights, clusters or ids"
        if self.bagged.units.seed != other.bagged.units.seed:
            return "another --seed"
        here, there = self.bagged.units, other.bagged.units
        if (here.count, here.role) != (there.count, there.role):
            return "other resamples"
        return ""


class RowsState(NamedTuple):
    """Sums (2,), uint64, of hashes of rows, and the weight of the rows of each bag (B,)."""

    hashes: NumpyArray
    bags: NumpyArray


class IdentifiedRows(NamedTuple):
    """The hash of some rows, and their bags."""

    rows: str
    bagged: Bagged


@dataclass(frozen=True)
class RowsIdentity:
    """The statistic: which rows these are, by number, label, weight and keys; never by scores.

    The hash is a sum over rows, so that it does not depend on the blocks, and has the number of the
    row in it, so that it depends on their order.

    Attributes
    ----------
    units : Units
    names_by_role : tuple of (str, str)
        Roles of the keys that belong to a row, and for each a hash of the names of its groups.
    """

    units: Units
    names_by_role: tuple[tuple[str, str], ...] = ()

    def partial(self, view: View) -> RowsState:
        """The sums over one block."""
        state: NumpyArray = np.arange(view.start, view.start + len(view))
        # A weight of 1 counts as none.
        columns = [view.labels, view.weights.view(np.int64) ^ _ONE]
        for values in [*columns, *(view.keys[role] for role, _ in self.names_by_role)]:
            state = hashed(state, 0, _BITS) ^ values
        lanes = [hashed(state, lane, _BITS).sum(dtype=np.uint64) for lane in (1, 2)]
        bags = np.bincount(self.units.bags_of(view), view.weights, self.units.bags())
        return RowsState(np.array(lanes), bags)

    def merge(self, left: RowsState, right: RowsState) -> RowsState:
        """The sums over two blocks, of hashes modulo 2^64."""
        return RowsState(left.hashes + right.hashes, left.bags + right.bags)

    def finish(self, state: RowsState) -> IdentifiedRows:
        """The hash of all rows, and their bags by shares of the weight."""
        text = repr((state.hashes.tolist(), self.names_by_role))
        shares = state.bags / max(float(state.bags.sum()), np.finfo(np.float64).tiny)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return IdentifiedRows(digest, Bagged(self.units, shares.astype(np.float32)))


def hash_of_names(names: Iterable[str]) -> str:
    """A hash of names in their order."""
    digest = hashlib.sha256()
    for name in names:
        # With its length in front no two lists look alike.
        digest.update(f"{len(name)}:{name}".encode(errors="surrogatepass"))
    return digest.hexdigest()


def change_by_spread(now: Recorded, then: Recorded) -> Interval:
    """An interval for the change of an error, from its values in the same resamples.

    What noise makes of two errors goes together as far as their values do, so that the spread of
    the change is that of the values' differences. The error's own interval is wider than the spread
    of its values, since the size of the noise depends on where the truth lies; that of the change
    is made as much wider, on each side by the larger factor of the two. It is no wider than that of
    independent errors, unless the values go against each other: those join as standard errors do
    (Zou and Donner, 2008, doi:10.1002/sim.3095). A model has no change from itself.
    """
    count = min(len(now.numbers), len(then.numbers))
    here, there = (each.numbers[:count].astype(np.float64) for each in (now, then))
    apart = _NORMAL * float((here - there).std())
    together = float(((here - here.mean()) * (there - there.mean())).mean()) >= 0
    change = now.figure - then.figure
    ends = []
    for side in (-1, 1):
        # What makes the change smaller: now is smaller than it seems, or it was larger.
        lengths = now.reach(side), then.reach(-side)
        factors = [
            length / (_NORMAL * float(values.std()))
            for length, values in zip(lengths, (here, there), strict=True)
            if values.std() > 0
        ]
        length = max(1.0, *factors) * apart if factors else apart
        ends.append(change + side * (min(length, math.hypot(*lengths)) if together else length))
    return Interval(*ends)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, so that none of them errs in 95 of 100 tables.

    The step-down procedure of Holm (1979), A simple sequentially rejective multiple test procedure,
    whatever the dependence between them.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, position in enumerate(order):
        largest = max(largest, min((len(order) - place) * p_values[position], 1.0))
        adjusted[position] = largest
    return adjusted


def p_of_difference(difference: float, interval: Interval) -> float:
    """The two-sided p-value of no difference, below 5 % where an interval leaves out 0.

    The end towards 0 is as far away as a normal distribution's is at that level.
    """
    if difference == 0 or math.isnan(difference):
        return 1.0
    low, high = interval
    length = difference - low if difference > 0 else high - difference
    if length <= 0:
        return 0.0
    return 2 * NormalDist().cdf(-abs(difference) / length * _NORMAL)
