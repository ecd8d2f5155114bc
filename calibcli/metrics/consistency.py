"""What a diagram of a calibrated model would look like: curves by isotonic regression, and bands.

The model's confidences are kept, labels are redrawn from them, and the diagram is made anew: where
nine in ten of such diagrams lie is the consistency band.

References
----------
Bröcker and Smith (2007), Increasing the Reliability of Reliability Diagrams,
doi:10.1175/WAF993.1 (consistency bars); Dimitriadis, Gneiting and Jordan (2021), Stable
reliability diagrams for probabilistic classifiers, doi:10.1073/pnas.2016191118 (CORP).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.corp import isotonic_means
from calibcli.metrics.diagrams import Sums

BAND_LEVEL = 0.9
"""Share of a calibrated model's diagrams that lie in the band, at each confidence."""

DRAWS, CURVE_DRAWS = 400, 200

_CELLS_AT_A_TIME = 4096
"""The draws of so many cells are in memory together, 13 MB."""


@dataclass(frozen=True)
class ConsistencyBand:
    """The band of a calibrated model's diagram at given confidences; float64 arrays of one shape.

    NaN where there are no rows.
    """

    lower: NumpyArray
    upper: NumpyArray

    def select(self, index: Any) -> ConsistencyBand:
        """A part of it, in the manner of NumPy's indexing."""
        return ConsistencyBand(self.lower[index], self.upper[index])


@dataclass(frozen=True)
class CorpCurve:
    """A CORP reliability curve and its consistency band.

    Attributes
    ----------
    confidence, accuracy : array (m,)
        Corners of the curve: both ends of every block that isotonic regression has pooled.
    grid : array (g,)
        Confidences of the band.
    band : ConsistencyBand
        Arrays (g,).
    """

    confidence: NumpyArray
    accuracy: NumpyArray
    grid: NumpyArray
    band: ConsistencyBand


def consistency_bars(
    bins: Sums, seed: int = 0, draws: int = DRAWS, design_effect: float = 1.0
) -> ConsistencyBand:
    """The band of each bin's accuracy (...), of a model that is right as often as it says.

    Right are Binomial(rows, mean confidence) rows of a bin, with the effective number of rows
    where they have weights. Of clusters, whose labels go together, shares stray by the root of the
    design effect more (Kish 1965, Survey Sampling, section 8.2). That the confidences of a bin
    differ makes the true variance smaller, by at most 1/900 of the inverse of the rows.
    """
    filled = bins.select(bins.filled)
    generator = np.random.default_rng(seed)
    lower, upper = np.empty(len(filled.rows)), np.empty(len(filled.rows))
    for start in range(0, len(filled.rows), _CELLS_AT_A_TIME):
        part = slice(start, start + _CELLS_AT_A_TIME)
        lower[part], upper[part] = _quantiles(
            _redrawn(filled.select(part), generator, draws, design_effect)
        )
    band = ConsistencyBand(np.full(bins.weight.shape, np.nan), np.full(bins.weight.shape, np.nan))
    band.lower[bins.filled], band.upper[bins.filled] = lower, upper
    return band


def corp_curve(
    lattice: Sums, seed: int = 0, draws: int = CURVE_DRAWS, design_effect: float = 1.0
) -> CorpCurve:
    """The CORP curve of the confidences on a lattice (cells,), and its consistency band."""
    cells = lattice.select(lattice.filled)
    confidence = cells.mean_confidence
    if not len(confidence):
        return CorpCurve(
            confidence, confidence, confidence, ConsistencyBand(confidence, confidence)
        )
    fitted = isotonic_means(cells.accuracy, cells.weight)
    changes = np.diff(fitted) != 0
    # Of each block its first and its last cell; of one cell, that cell.
    corners = np.append(True, changes) | np.append(changes, True)
    redrawn = _redrawn(cells, np.random.default_rng(seed), draws, design_effect)
    # All draws are one sequence, each of them above the one before: nothing is pooled across.
    steps = 2.0 * np.arange(draws)[:, None]
    weights = np.tile(cells.weight, draws)
    refitted = isotonic_means((redrawn + steps).ravel(), weights).reshape(redrawn.shape) - steps
    lower, upper = _quantiles(refitted)
    return CorpCurve(
        confidence[corners], fitted[corners], confidence, ConsistencyBand(lower, upper)
    )


def _redrawn(
    cells: Sums, generator: np.random.Generator, draws: int, design_effect: float
) -> NumpyArray:
    """Accuracies (draws, cells) of filled cells, of labels drawn from the confidences."""
    rows = np.maximum(np.rint(cells.effective_rows), 1).astype(np.int64)
    # Rounding may leave the mean of probabilities of 1 a little above it.
    probability = np.minimum(cells.mean_confidence, 1.0)
    drawn: NumpyArray = generator.binomial(rows, probability, (draws, len(rows))) / rows
    if design_effect > 1:
        # Not fewer rows: cells of a single one could not have less than one.
        strays = math.sqrt(design_effect) * (drawn - probability)
        drawn = np.clip(probability + strays, 0.0, 1.0)
    return drawn


def _quantiles(draws: NumpyArray) -> tuple[NumpyArray, NumpyArray]:
    tail = (1 - BAND_LEVEL) / 2
    lower, upper = np.quantile(draws, [tail, 1 - tail], axis=0)
    return lower, upper
