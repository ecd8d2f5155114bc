"""Isotonic regression: the increasing curve that fits best, and its centred form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.calibrators.curves import (
    ALLOW_ZERO,
    BinarySample,
    Curve,
    CurveMap,
    krichevsky_trofimov,
)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Neighbouring scores to which isotonic regression gives one value.

    Attributes
    ----------
    first, last, centre : float64 array (b,)
        Their first and last score, and the weighted mean.
    positives, weights : float64 array (b,)
        Sums over their scores.
    """

    first: NumpyArray
    last: NumpyArray
    centre: NumpyArray
    positives: NumpyArray
    weights: NumpyArray

    @property
    def pure(self) -> NumpyArray:
        """Mask (b,) of the blocks whose value is 0 or 1."""
        mask: NumpyArray = (self.positives <= 0) | (self.positives >= self.weights)
        return mask

    def values(self, *, allow_zero: bool) -> NumpyArray:
        """Shares of positives, none of them 0 or 1 unless that is allowed; ascending."""
        if allow_zero:
            return np.maximum.accumulate(self.positives / self.weights)
        values = krichevsky_trofimov(self.positives, self.weights)
        if len(values) > 1:
            # Half a row in a small block may be more than the share of the block beyond it.
            values[0] = min(values[0], values[1])
            values[-1] = max(values[-1], values[-2])
        return np.maximum.accumulate(values)

    def curve(self, flat: NumpyArray, *, allow_zero: bool) -> Curve:
        """Straight lines between the blocks, of which some (b,) are flat and others points."""
        points = np.stack(
            (np.where(flat, self.first, self.centre), np.where(flat, self.last, self.centre)), 1
        )
        kept = np.stack((np.ones(len(flat), bool), points[:, 1] > points[:, 0]), 1)
        values = np.stack((self.values(allow_zero=allow_zero),) * 2, 1)
        return Curve(points[kept], values[kept])


def isotonic_blocks(sample: BinarySample) -> Blocks:
    """The blocks of the isotonic regression of an event on its scores."""
    from scipy.optimize import isotonic_regression

    shares = sample.positives / sample.weights
    # A run of scores with the same share never falls apart: its cumulative sums are a straight
    # line, on which the greatest convex minorant has no corner. Of a rare event there are few runs.
    runs = np.flatnonzero(np.concatenate(([True], shares[1:] != shares[:-1])))
    first = runs
    # Most of very many classes come in no row: there is a single run, which is a block.
    if len(runs) > 1:
        fitted = isotonic_regression(shares[runs], weights=np.add.reduceat(sample.weights, runs))
        first = runs[fitted.blocks[:-1]]
    last = np.append(first[1:], len(shares)) - 1
    total = np.add.reduceat(sample.weights, first)
    moments = np.add.reduceat(sample.weights * sample.scores, first)
    return Blocks(
        sample.scores[first],
        sample.scores[last],
        np.clip(moments / total, sample.scores[first], sample.scores[last]),
        np.add.reduceat(sample.positives, first),
        total,
    )


def flat_curves(family: CurveMap, scores: NumpyArray) -> list[Curve]:
    """The curves of events that never came: one block, whose value the number of rows tells.

    Parameters
    ----------
    family : CurveMap
        One of isotonic regression.
    scores : float array (C, m)
        As `CurveMap.fit_absent` takes them.
    """
    m = scores.shape[1]
    curve = family.fit(BinarySample(np.arange(m, dtype=np.float64), np.zeros(m), np.ones(m)))
    ends = scores[:, curve.scores.astype(np.int64)].astype(np.float64)
    return [Curve(row, curve.values) for row in ends]


@dataclass(frozen=True)
class IsotonicMap(CurveMap):
    """The increasing step function with the least squared error, straight between its steps.

    A block of value 0 or 1 is drawn inwards by half a row.
    """

    allow_zero: bool = field(default=False, metadata={"help": ALLOW_ZERO})

    name: ClassVar[str] = "isotonic"
    title: ClassVar[str] = "an increasing step function of each class's log-odds"
    source: ClassVar[str] = (
        "Zadrozny and Elkan, Transforming classifier scores into accurate multiclass probability "
        "estimates, KDD 2002"
    )

    def fit(self, sample: BinarySample) -> Curve:
        blocks = isotonic_blocks(sample)
        return blocks.curve(np.ones(len(blocks.first), bool), allow_zero=self.allow_zero)

    def fit_absent(self, scores: NumpyArray) -> list[Curve]:
        return flat_curves(self, scores)


@dataclass(frozen=True)
class CenteredIsotonicMap(CurveMap):
    """Isotonic regression whose blocks are points, each at its weighted mean; straight between.

    As in the paper, blocks of value 0 or 1 stay flat; inside of them the curve rises all the way.
    """

    allow_zero: bool = field(default=False, metadata={"help": ALLOW_ZERO})

    name: ClassVar[str] = "centered-isotonic"
    title: ClassVar[str] = "isotonic regression without flat parts"
    source: ClassVar[str] = (
        "Oron and Flournoy, Centered isotonic regression, Stat. Biopharm. Res. 9(3), 2017"
    )

    def fit(self, sample: BinarySample) -> Curve:
        blocks = isotonic_blocks(sample)
        return blocks.curve(blocks.pure, allow_zero=self.allow_zero)

    def fit_absent(self, scores: NumpyArray) -> list[Curve]:
        return flat_curves(self, scores)
