"""Residuals by bag and cell: what the bootstrap and the chance range of an error are made of.

Residuals are weight x (probability - whether it came true), summed over the rows of a cell of
probabilities. With the sums of the probabilities, labels can be drawn from them anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.cached import cached_property
from calibcli.metrics.error_intervals import blocks_of
from calibcli.metrics.resampling import LEVEL, Bagged, Chance, percentiles

OTHER_STREAM = 1 << 64
"""Added to the seed, so that labels are drawn apart from bags."""


class Residuals(NamedTuple):
    """How a metric reads residuals (R, m) of cells, of many replicates at once.

    Attributes
    ----------
    linear : callable
        Residuals by cell (R, m) -> the sums that matter (R, s); done once.
    norm : callable
        Sums (R, s) -> errors (R,).
    slow : bool
        Whether the norm is.
    """

    linear: Callable[[NumpyArray], NumpyArray]
    norm: Callable[[NumpyArray], NumpyArray]
    slow: bool = False


def unchanged(residuals: NumpyArray) -> NumpyArray:
    """The residuals themselves, for a norm of all cells."""
    return residuals


@dataclass(frozen=True)
class CellResiduals(Bagged):
    """Probabilities in cells (m,), none of them empty, and their residuals by bag.

    Attributes
    ----------
    weight, squared_weight, probability : array (m,)
        Sums of weight, of its square, and of weight x probability.
    excess : array (B, m)
        Sums of residuals.
    """

    weight: NumpyArray
    squared_weight: NumpyArray
    probability: NumpyArray
    excess: NumpyArray

    @cached_property
    def mean(self) -> NumpyArray:
        """Mean probability (m,)."""
        return np.clip(self.probability / self.weight, 0.0, 1.0)

    @cached_property
    def residuals(self) -> NumpyArray:
        """Sums of residuals (m,)."""
        residuals: NumpyArray = self.excess.sum(axis=0)
        return residuals


@dataclass(frozen=True)
class ResidualCells(CellResiduals):
    """Residuals of the labels, and of labels that are drawn from the probabilities by cell."""

    @property
    def total(self) -> float:
        """Weight of all cells."""
        return float(self.weight.sum())

    @property
    def chance_of_sum(self) -> float:
        """How far the mean probability of a calibrated model is off, by chance alone."""
        variance = float((self.squared_weight * self.mean * (1 - self.mean)).sum())
        return math.sqrt(variance) / self.total

    def redrawn(self) -> Iterable[NumpyArray]:
        """Residuals (r, m) of labels that are drawn from the probabilities, in blocks.

        Rows with weights are taken for fewer rows of the same weight, the effective number of them.
        """
        return self._redrawn()

    def chance(self, residuals: Residuals) -> Chance:
        """The error of a calibrated model with these probabilities."""
        errors = self.errors_by_chance(residuals)
        return Chance(float(errors.mean()), *percentiles(errors, (1 - LEVEL) / 2))

    def errors_by_chance(self, residuals: Residuals) -> NumpyArray:
        """Errors (r,) of labels that are drawn from the probabilities."""
        blocks = (residuals.norm(residuals.linear(block)) for block in self.redrawn())
        return np.concatenate(list(blocks))

    def _redrawn(self) -> Iterator[NumpyArray]:
        generator = np.random.Generator(np.random.Philox(key=self.units.seed + OTHER_STREAM))
        rows = np.maximum(np.rint(self.weight**2 / self.squared_weight), 1).astype(np.int64)
        scale = self.weight / rows
        for block in blocks_of(self.units.replicates, len(rows)):
            drawn = generator.binomial(rows, self.mean, (block.stop - block.start, len(rows)))
            yield scale * (rows * self.mean - drawn)
