"""The folds behind diagrams: confidence on a fine lattice, and bins by predicted class or column.

They are small whatever the number of rows, and merge exactly, so that a diagram of a file that is
larger than memory is the same as that of its rows in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.base import Additive
from calibcli.metrics.bins import BINS, EDGES, Bin, bin_index
from calibcli.metrics.lattice import lattice_cells, lattice_edges
from calibcli.metrics.view import View

CELLS_PER_BIN = 256
LATTICE_CELLS = BINS * CELLS_PER_BIN
"""Cells of the lattice, 1/3840 wide: the edges of the 15 bins are edges of cells."""

EVENT_CELLS = 1 << 11
"""Cells of the lattice of an event: 1e-3 wide at 1/2, 6e-5 at 0.001."""

KEY_CELLS = 1 << 9
"""The same of the rows of each value of a column; its edges are edges of the finer lattice."""

RARE = 0.1
"""An event of a smaller share of the rows is rare: its bins have equal mass."""

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
        Of weight x confidence, and of weight x whether it came true.
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
class ConfidenceLattice(Additive):
    """The statistic: sums by cell of the confidence, (lower, upper] as the 15 bins have it.

    State: array (5, 3840), the sums in the order of `Sums`. Memory: 150 kB.
    """

    def partial(self, view: View) -> NumpyArray:
        return _sums(view, view.forecast(), cell_index(view.confidence), LATTICE_CELLS)

    def finish(self, state: NumpyArray) -> Sums:
        """The sums of the cells (3840,)."""
        return Sums(*state)


def cell_index(confidence: NumpyArray) -> NumpyArray:
    """Cell of confidences (n,): 0 to 3839; within its bin, whatever rounding does."""
    bins = np.maximum(bin_index(confidence), 0)
    within = np.ceil((confidence - EDGES[bins]) * LATTICE_CELLS).astype(np.intp) - 1
    cells: NumpyArray = bins * CELLS_PER_BIN + np.clip(within, 0, CELLS_PER_BIN - 1)
    return cells


def bins_of(lattice: Sums) -> Sums:
    """The sums of the 15 bins (15,), from those of the cells (3840,)."""
    by_bin = Sums(*(v.reshape(BINS, CELLS_PER_BIN) for v in vars(lattice).values()))
    return by_bin.total()


@dataclass(frozen=True)
class EventLattice:
    """The statistic: sums by cell of the probability of a class, on a lattice finest near 0 and 1.

    State: array (5, 2048), the sums in the order of `Sums`; None where the confidence is that of
    the predicted class. Memory: 80 kB.
    """

    def partial(self, view: View) -> NumpyArray | None:
        if view.event is None:
            return None
        confidence, correct = view.forecast()
        cells = lattice_cells(confidence, EVENT_CELLS)
        return _sums(view, (confidence, correct), cells, EVENT_CELLS)

    def merge(self, left: NumpyArray | None, right: NumpyArray | None) -> NumpyArray | None:
        return None if left is None or right is None else left + right

    def finish(self, state: NumpyArray | None) -> Sums | None:
        """The sums of the cells (2048,)."""
        return None if state is None else Sums(*state)


class EdgedSums(NamedTuple):
    """Sums of bins (b,) between edges (b + 1,)."""

    edges: NumpyArray
    sums: Sums

    def bins(self) -> tuple[Bin, ...]:
        """The bins of a reliability diagram."""
        sums = self.sums
        return tuple(
            Bin(
                float(self.edges[b]),
                float(self.edges[b + 1]),
                int(sums.rows[b]),
                float(sums.weight[b]),
                float(sums.mean_confidence[b]),
                float(sums.accuracy[b]),
            )
            for b in range(len(sums.rows))
        )


def rare_event_bins(lattice: Sums | None) -> EdgedSums | None:
    """The bins of a rare event: at most 15 of equal mass; None where it is not rare.

    Of a rare event nearly all rows would be in the first of bins of equal width.
    """
    if lattice is None:
        return None
    weight, events = float(lattice.weight.sum()), float(lattice.correct.sum())
    if not weight or events >= RARE * weight:
        return None
    return pooled_by_mass(lattice)


def pooled_by_mass(lattice: Sums) -> EdgedSums:
    """The cells of a lattice in at most 15 bins of equal mass; one empty bin without rows."""
    weight = float(lattice.weight.sum())
    if not weight:
        return pooled_cells(lattice, np.array([0]))
    reached = np.cumsum(lattice.weight) / weight
    ends = np.searchsorted(reached, np.arange(1, BINS + 1) / BINS * (1 - 1e-12))
    ends = np.unique(np.minimum(ends, np.flatnonzero(lattice.filled)[-1]))
    return pooled_cells(lattice, np.append(0, ends[:-1] + 1))


def pooled_cells(lattice: Sums, starts: NumpyArray) -> EdgedSums:
    """Bins of the cells of a lattice (cells,), which start at some cells (b,), the first at 0."""
    cells = len(lattice.weight)
    edges = lattice_edges(cells)[np.append(starts, cells)]
    sums = Sums(*(np.add.reduceat(values, starts) for values in vars(lattice).values()))
    return EdgedSums(edges, sums)


@dataclass(frozen=True)
class ClassDiagrams:
    """The reliability bins, the labels and the expectation of every class.

    Attributes
    ----------
    bins : Sums
        By predicted class and bin of the confidence; arrays (K, b), of 15 bins in diagrams.
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
    """Sums of the filled cells, b x class + bin in ``codes`` (m,), ascending, and by class."""

    codes: NumpyArray
    sums: NumpyArray
    labelled: NumpyArray
    expected: NumpyArray


@dataclass(frozen=True)
class PredictedClasses:
    """The statistic: the reliability bins of the rows that are predicted to be of each class.

    A calibrated classifier is right in 80 % of the rows that it says are cats with 80 %
    (top-label calibration; Gupta and Ramdas 2022, arXiv:2107.08353).

    Memory: 50 bytes for each class and bin that some row is in, at most b K, and 16 K.
    """

    bins: int = BINS

    def partial(self, view: View) -> PredictedState:
        bins = np.maximum(bin_index(view.top_confidence, self.bins), 0)
        cells = view.prediction * self.bins + bins
        codes, place = np.unique(cells, return_inverse=True)
        weights = view.weights if view.weighted else None
        labelled = np.bincount(view.labels, weights, minlength=view.classes).astype(np.float64)
        sums = _sums(view, view.forecast(top=True), place, len(codes))
        return PredictedState(codes, sums, labelled, view.class_mass)

    def merge(self, left: PredictedState, right: PredictedState) -> PredictedState:
        codes, sums = _joined(left.codes, left.sums, right.codes, right.sums)
        labelled, expected = left.labelled + right.labelled, left.expected + right.expected
        return PredictedState(codes, sums, labelled, expected)

    def finish(self, state: PredictedState) -> ClassDiagrams:
        """The sums of all cells."""
        everything = np.zeros((_SUMS, len(state.labelled) * self.bins))
        everything[:, state.codes] = state.sums
        by_class = everything.reshape(_SUMS, -1, self.bins)
        return ClassDiagrams(Sums(*by_class), state.labelled, state.expected)


class KeyCells(NamedTuple):
    """Sums of the filled cells of an event's lattice, 512 x value + cell in ``codes`` (m,).

    ``sums`` is an array (5, m); codes are ascending.
    """

    codes: NumpyArray
    sums: NumpyArray

    def of(self, value: int) -> Sums:
        """The sums of all cells (512,) of the rows with some value of the key."""
        first, last = np.searchsorted(self.codes, [value * KEY_CELLS, (value + 1) * KEY_CELLS])
        everything = np.zeros((_SUMS, KEY_CELLS))
        everything[:, self.codes[first:last] - value * KEY_CELLS] = self.sums[:, first:last]
        return Sums(*everything)


class KeyBins(NamedTuple):
    """Sums of the 15 bins of each value of a key column (S, 15), and of an event's cells.

    ``cells`` is None where the confidence is that of the predicted class.
    """

    bins: Sums
    cells: KeyCells | None


KeyState: TypeAlias = tuple[NumpyArray, KeyCells | None]


@dataclass(frozen=True)
class KeyDiagrams:
    """The statistic: the reliability bins of the rows of each value of a key column.

    State: array (5, S, 15), the sums in the order of `Sums`, and the filled cells of an event.
    Memory: 600 bytes for each value, and of an event 50 for each value and cell that some row is
    in, at most 26 kB for each value.

    Parameters
    ----------
    count : int
        Number of values S.
    role : str
        Role of the key column.
    """

    count: int
    role: str

    def partial(self, view: View) -> KeyState:
        keys, forecast = view.keys[self.role], view.forecast()
        places = keys * BINS + np.maximum(bin_index(view.confidence), 0)
        bins = _sums(view, forecast, places, self.count * BINS).reshape(_SUMS, self.count, BINS)
        if view.event is None:
            return bins, None
        places = keys * KEY_CELLS + lattice_cells(view.confidence, KEY_CELLS)
        codes, places = np.unique(places, return_inverse=True)
        return bins, KeyCells(codes, _sums(view, forecast, places, len(codes)))

    def merge(self, left: KeyState, right: KeyState) -> KeyState:
        bins, (one, other) = left[0] + right[0], (left[1], right[1])
        return bins, None if one is None or other is None else KeyCells(*_joined(*one, *other))

    def finish(self, state: KeyState) -> KeyBins:
        """The sums by name."""
        bins, cells = state
        return KeyBins(Sums(*bins), cells)


def _joined(
    left: NumpyArray, left_sums: NumpyArray, right: NumpyArray, right_sums: NumpyArray
) -> tuple[NumpyArray, NumpyArray]:
    """The codes of two blocks (m,), ascending, and their sums (5, m)."""
    codes, place = np.unique(np.append(left, right), return_inverse=True)
    sums = np.zeros((_SUMS, len(codes)))
    sums[:, place[: len(left)]] += left_sums
    sums[:, place[len(left) :]] += right_sums
    return codes, sums


def _sums(
    view: View, forecast: tuple[NumpyArray, NumpyArray], cells: NumpyArray, size: int
) -> NumpyArray:
    """The sums of `Sums` by cell: array (5, size), of confidences and outcomes."""
    confidence, correct = forecast

    def total(values: NumpyArray | None) -> NumpyArray:
        return np.bincount(cells, values, minlength=size).astype(np.float64)

    rows = total(None)
    if not view.weighted:
        return np.stack([rows, rows, rows, total(confidence), total(correct)])
    weights = view.weights
    weighted = (weights, weights**2, weights * confidence, weights * correct)
    return np.stack([rows, *map(total, weighted)])


CONFIDENCE_LATTICE = ConfidenceLattice()
EVENT_LATTICE = EventLattice()
PREDICTED_CLASSES = PredictedClasses()
