"""The folds behind diagrams: confidence on a fine lattice, and bins by predicted class or column.

They are small whatever the number of rows, and merge exactly, so that a diagram of a file that is
larger than memory is the same as that of its rows in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.bins import BINS, EDGES, bin_index
from calibcli.metrics.view import View

CELLS_PER_BIN = 256
LATTICE_CELLS = BINS * CELLS_PER_BIN
"""Cells of the lattice, 1/3840 wide: the edges of the 15 bins are edges of cells."""

_SUMS = 5


@dataclass(frozen=True)
class Sums:
    """Sums over the rows of some cells; float64 arrays (...) of one shape.

    Attributes
    ----------
    rows : array
    weight, squared_weight : array
        Of weight, and of weight squared.
    confidence, correct : array
        Of weight x largest probability, and of weight x whether the prediction is the label.
    """

    rows: NumpyArray
    weight: NumpyArray
    squared_weight: NumpyArray
    confidence: NumpyArray
    correct: NumpyArray

    @property
    def filled(self) -> NumpyArray:
        """Which cells have weight, bool (...)."""
        filled: NumpyArray = self.weight > 0
        return filled

    @property
    def mean_confidence(self) -> NumpyArray:
        """Mean confidence of each cell (...); NaN where there is no weight."""
        return _quotient(self.confidence, self.weight)

    @property
    def accuracy(self) -> NumpyArray:
        """Share of right rows in each cell (...); NaN where there is no weight."""
        return _quotient(self.correct, self.weight)

    @property
    def gap(self) -> NumpyArray:
        """Weight x |mean confidence - accuracy| of each cell (...)."""
        gap: NumpyArray = np.abs(self.confidence - self.correct)
        return gap

    @property
    def effective_rows(self) -> NumpyArray:
        """Rows of equal weight that would vary as much (...), Kish's (sum w)^2 / sum w^2."""
        return np.nan_to_num(_quotient(self.weight**2, self.squared_weight))

    def select(self, index: Any) -> Sums:
        """The sums of some of the cells, in the manner of NumPy's indexing."""
        return Sums(*(values[index] for values in vars(self).values()))

    def total(self, axis: int = -1) -> Sums:
        """The sums over an axis of cells."""
        return Sums(*(values.sum(axis=axis) for values in vars(self).values()))


def _quotient(numerator: NumpyArray, denominator: NumpyArray) -> NumpyArray:
    missing = np.full(np.shape(numerator), np.nan)
    quotient: NumpyArray = np.divide(numerator, denominator, out=missing, where=denominator > 0)
    return quotient


@dataclass(frozen=True)
class ConfidenceLattice:
    """The statistic: sums by cell of the confidence, (lower, upper] as the 15 bins have it.

    State: array (5, 3840), the sums in the order of `Sums`. Memory: 150 kB.
    """

    def partial(self, view: View) -> NumpyArray:
        """The sums over one block."""
        return _sums(view, cell_index(view.confidence), LATTICE_CELLS)

    def merge(self, left: NumpyArray, right: NumpyArray) -> NumpyArray:
        """The sums over two blocks."""
        return left + right

    def finish(self, state: NumpyArray) -> Sums:
        """The sums of the cells (3840,)."""
        return Sums(*state)


def cell_index(confidence: NumpyArray) -> NumpyArray:
    """Cell of confidences (n,) above 0: 0 to 3839; within its bin, whatever rounding does."""
    bins = bin_index(confidence)
    within = np.ceil((confidence - EDGES[bins]) * LATTICE_CELLS).astype(np.intp) - 1
    cells: NumpyArray = bins * CELLS_PER_BIN + np.clip(within, 0, CELLS_PER_BIN - 1)
    return cells


def bins_of(lattice: Sums) -> Sums:
    """The sums of the 15 bins (15,), from those of the cells (3840,)."""
    by_bin = Sums(*(v.reshape(BINS, CELLS_PER_BIN) for v in vars(lattice).values()))
    return by_bin.total()


@dataclass(frozen=True)
class ClassDiagrams:
    """The reliability bins, the labels and the expectation of every class.

    Attributes
    ----------
    bins : Sums
        By predicted class and bin of the confidence; arrays (K, 15).
    labelled : array (K,)
        Weight of the rows with this label.
    expected : array (K,)
        Sum of weight x the class's probability: the weight that the model expects to find.
    """

    bins: Sums
    labelled: NumpyArray
    expected: NumpyArray

    @property
    def classes(self) -> int:
        """The number of classes K."""
        return len(self.labelled)


class PredictedState(NamedTuple):
    """Sums of the filled cells, 15 x class + bin in ``codes`` (m,), ascending, and by class."""

    codes: NumpyArray
    sums: NumpyArray
    labelled: NumpyArray
    expected: NumpyArray


@dataclass(frozen=True)
class PredictedClasses:
    """The statistic: the reliability bins of the rows that are predicted to be of each class.

    A calibrated classifier is right in 80 % of the rows that it says are cats with 80 %
    (top-label calibration; Gupta and Ramdas 2022, arXiv:2107.08353).

    Memory: 50 bytes for each class and bin that some row is in, at most 15 K, and 16 K.
    """

    def partial(self, view: View) -> PredictedState:
        """The sums over one block."""
        cells = view.prediction * BINS + np.maximum(bin_index(view.confidence), 0)
        codes, place = np.unique(cells, return_inverse=True)
        weights = view.weights if view.weighted else None
        labelled = np.bincount(view.labels, weights, minlength=view.classes).astype(np.float64)
        return PredictedState(codes, _sums(view, place, len(codes)), labelled, view.class_mass)

    def merge(self, left: PredictedState, right: PredictedState) -> PredictedState:
        """The sums over two blocks."""
        codes, place = np.unique(np.append(left.codes, right.codes), return_inverse=True)
        sums = np.zeros((_SUMS, len(codes)))
        sums[:, place[: len(left.codes)]] += left.sums
        sums[:, place[len(left.codes) :]] += right.sums
        labelled, expected = left.labelled + right.labelled, left.expected + right.expected
        return PredictedState(codes, sums, labelled, expected)

    def finish(self, state: PredictedState) -> ClassDiagrams:
        """The sums of all cells."""
        everything = np.zeros((_SUMS, len(state.labelled) * BINS))
        everything[:, state.codes] = state.sums
        by_class = everything.reshape(_SUMS, -1, BINS)
        return ClassDiagrams(Sums(*by_class), state.labelled, state.expected)


@dataclass(frozen=True)
class KeyDiagrams:
    """The statistic: the reliability bins of the rows of each value of a key column.

    State: array (5, S, 15), the sums in the order of `Sums`. Memory: 600 bytes for each value.

    Parameters
    ----------
    count : int
        Number of values S.
    role : str
        Role of the key column.
    """

    count: int
    role: str

    def partial(self, view: View) -> NumpyArray:
        """The sums over one block."""
        cells = view.keys[self.role] * BINS + np.maximum(bin_index(view.confidence), 0)
        return _sums(view, cells, self.count * BINS).reshape(_SUMS, self.count, BINS)

    def merge(self, left: NumpyArray, right: NumpyArray) -> NumpyArray:
        """The sums over two blocks."""
        return left + right

    def finish(self, state: NumpyArray) -> Sums:
        """The sums of the bins (S, 15)."""
        return Sums(*state)


def _sums(view: View, cells: NumpyArray, size: int) -> NumpyArray:
    """The sums of `Sums` by cell: array (5, size)."""

    def total(values: NumpyArray | None) -> NumpyArray:
        return np.bincount(cells, values, minlength=size).astype(np.float64)

    rows = total(None)
    if not view.weighted:
        return np.stack([rows, rows, rows, total(view.confidence), total(view.correct)])
    weights = view.weights
    weighted = (weights, weights**2, weights * view.confidence, weights * view.correct)
    return np.stack([rows, *map(total, weighted)])


CONFIDENCE_LATTICE = ConfidenceLattice()
PREDICTED_CLASSES = PredictedClasses()
