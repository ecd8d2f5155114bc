"""The bootstrap as a fold: what is resampled is shared out to bags, and bags are drawn.

Sums over the rows of each bag are all that is kept. A replicate draws as many bags as there are,
with replacement. Where every row (or cluster) has a bag of its own that is the bootstrap itself;
where there are more rows than bags each bag is a random part of them, and its sums vary as those of
independent rows do (random groups; Wolter, Introduction to Variance Estimation, 2007, chapter 2).
So its cost hardly grows with the number of replicates, nor its memory with that of the rows.

References
----------
Efron and Tibshirani (1993), An Introduction to the Bootstrap; Hesterberg (2015), What Teachers
Should Know About the Bootstrap, doi:10.1080/00031305.2015.1089789 (expanded percentiles).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray, hashed
from calibcli.metrics.view import View

LEVEL = 0.95
"""The level of every interval."""

FEW_CLUSTERS = 20
"""With fewer, what is said of new clusters is rough (Cameron and Miller, J. Hum. Resour. 2015)."""

BAGS = 256
"""Bags at most, which leaves the width of an interval a standard error of 4 %."""


_AT_ONCE = 128
"""So many replicates are drawn at once."""

_KEPT = 2000
"""Replicates that are drawn at once, so that who needs fewer need not draw again."""


class Interval(NamedTuple):
    """An interval from ``low`` to ``high``."""

    low: float
    high: float

    def around(self, value: float) -> Interval:
        """The same, made wide enough for a value."""
        return Interval(float(min(self.low, value)), float(max(self.high, value)))

    def within(self, least: float, most: float) -> Interval:
        """What of it is within a range."""
        return Interval(*(min(max(end, least), most) for end in self))


class Chance(NamedTuple):
    """An error of a perfectly calibrated model with these probabilities: mean, and 95 % range."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Bootstrap:
    """What is resampled, and how often.

    Attributes
    ----------
    replicates : int
    seed : int
    role : str or None
        Role of the key column of the clusters that are resampled as a whole; None: rows.
    """

    replicates: int = 200
    seed: int = 0
    role: str | None = None


@dataclass(frozen=True)
class Units:
    """What is resampled as a whole: rows, or clusters of them.

    Attributes
    ----------
    count : int
        How many there are; they are numbered from 0.
    role : str or None
        As of `Bootstrap`.
    seed : int
        The numbers of rows or clusters and it decide on the bags, whatever the blocks.
    replicates : int
        How often a resample is drawn, at least.
    """

    count: int
    role: str | None = None
    seed: int = 0
    replicates: int = 200

    def bags(self, most: int = BAGS) -> int:
        """The number of bags."""
        return max(min(self.count, most), 1)

    def bags_of(self, view: View, most: int = BAGS) -> NumpyArray:
        """The bag of each row of a view (n,), 0 to ``bags - 1``; kept with the view."""
        key = (self, most)
        if key not in view.kept:
            if self.role is None:
                numbers: NumpyArray = np.arange(view.start, view.start + len(view))
            else:
                numbers = view.keys[self.role]
            view.kept[key] = numbers if self.count <= most else hashed(numbers, self.seed, most)
        bags: NumpyArray = view.kept[key]
        return bags


@dataclass(frozen=True)
class Bagged:
    """What a fold over bags gives.

    Attributes
    ----------
    units : Units
    bags : array (B,)
        Weight of the rows of each bag.
    """

    units: Units
    bags: NumpyArray

    @property
    def filled(self) -> int:
        """The number of bags that have weight; of a single one nothing can be resampled."""
        return int(np.count_nonzero(self.bags > 0))

    @property
    def unseen_share(self) -> float:
        """The largest share of all rows to come that may be of a kind of which none is here.

        The upper end of the exact interval of a binomial of which nothing came (Clopper and
        Pearson 1934), about 3.7 / n. With weights n is the number of rows without that have as much
        noise, and with clusters that of clusters; where bags have several, as well as bags tell.
        """
        bags = self.bags[self.bags > 0].astype(np.float64)
        total, count = float(bags.sum()), len(bags)
        squares = float((bags**2).sum())
        if self.units.count > len(self.bags):
            squares = float(((bags - total / count) ** 2).sum()) * count / max(count - 1, 1)
        effective = min(total**2 / squares, self.units.count) if squares > 0 else self.units.count
        return float(-math.expm1(math.log((1 - LEVEL) / 2) / max(effective, 1.0)))

    @property
    def design_effect(self) -> float:
        """The variance of what is summed, relative to that of rows by themselves; 1 at least."""
        return 1.0

    @property
    def student(self) -> float | None:
        """Student's 97.5 % quantile for few clusters, of which no resample strays far enough.

        Times the root of n / (n - 1), by which resamples of n clusters vary too little.
        """
        if self.units.role is None or not 1 < self.filled < FEW_CLUSTERS:
            return None
        from scipy.special import stdtrit

        free = self.filled - 1
        return float(stdtrit(free, (1 + LEVEL) / 2)) * math.sqrt(self.filled / free)

    @property
    def tail(self) -> float:
        """The share of replicates to leave out at each end of an interval."""
        return tail_share(self.filled)

    def draws(self, least: int = 0) -> NumpyArray:
        """How often each bag counts in each replicate (R, B), of ``least`` replicates or more."""
        replicates = max(self.units.replicates, least)
        kept = max(replicates, _KEPT)
        return _kept_draws(self.bags.astype(np.float64).tobytes(), kept, self.units.seed)[
            :replicates
        ]


def draws(weights: NumpyArray, replicates: int, seed: int) -> NumpyArray:
    """How often each bag counts in each replicate (replicates, bags), for bags of these weights.

    Multinomial counts of the bags that are not empty, scaled so that a replicate has the weight of
    all bags: a mean needs no division by the weight of its own replicate.
    """
    (filled,) = np.nonzero(weights > 0)
    count, size = len(filled), len(weights)
    generator = np.random.Philox(key=seed)
    counts = np.empty((replicates, size))
    # Memory that is touched for the first time takes longer than all of the arithmetic.
    for part in np.array_split(counts, -(-replicates // _AT_ONCE)):
        bits = generator.random_raw(len(part) * count).reshape(len(part), count)
        # The upper 53 bits as a number in [0, 1).
        drawn = filled[((bits >> np.uint64(11)) * (count * 2.0**-53)).astype(np.intp)]
        places = drawn + np.arange(len(part))[:, None] * size
        part[:] = np.bincount(places.ravel(), minlength=part.size).reshape(part.shape)
    counts *= (weights.sum() / (counts @ weights))[:, None]
    return counts


@lru_cache(maxsize=4)
def _kept_draws(weights: bytes, replicates: int, seed: int) -> NumpyArray:
    """The `draws` of some bags, which all metrics and models of the same rows share."""
    return draws(np.frombuffer(weights), replicates, seed)


def student_quantile(free: float, level: float = LEVEL) -> float:
    """Student's quantile for so many degrees of freedom, at which an interval of a level ends.

    By its expansion (Abramowitz and Stegun 26.7.5).
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    return z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)


def tail_share(bags: int, level: float = LEVEL) -> float:
    """The share of replicates to leave out at either end, for so many bags.

    The expanded percentile (Hesterberg 2015): that of a normal distribution at which it is as
    wide as Student's with ``bags - 1`` degrees of freedom, and divided by ``bags - 1``.
    """
    free = max(bags - 1, 1)
    student = student_quantile(free, level)
    # Not by the distribution function, which is 0 as far out as two bags reach.
    return 0.5 * math.erfc(student * math.sqrt(bags / free / 2))


def quantiles(replicates: NumpyArray, shares: NumpyArray) -> NumpyArray:
    """The quantiles (q,) of replicates (R,), as ``np.quantile`` has them but many times faster."""
    places = shares * (len(replicates) - 1)
    values: NumpyArray = np.interp(places, np.arange(len(replicates)), np.sort(replicates))
    return values


def percentiles(replicates: NumpyArray, tail: float) -> Interval:
    """The interval between the quantiles ``tail`` and ``1 - tail`` of replicates (R,).

    A replicate that is no number (without events, as it may be of few rows) may be anywhere.
    """
    unknown = np.isnan(replicates)
    ends = ((-math.inf, tail), (math.inf, 1 - tail))
    low, high = (
        float(quantiles(np.where(unknown, end, replicates), np.array([share]))[0])
        for end, share in ends
    )
    return Interval(low, high)
