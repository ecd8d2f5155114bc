"""The folds behind the bootstrap: sums of residuals by bag, and by bin or cell of a probability.

Residuals are weight x (probability - whether it came true). Every finished statistic also has what
is needed to draw labels anew from the probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray, is_by_class, is_numpy_array, namespace, to_numpy
from calibcli.metrics.binned import BINS, EDGES, bin_index
from calibcli.metrics.class_wise import THRESHOLD, elements_above
from calibcli.metrics.lattice import CellSums, lattice_cells
from calibcli.metrics.resampling import BAGS, Units
from calibcli.metrics.row_mean import RowMean
from calibcli.metrics.view import View

CELLS = 1 << 11
"""Of the lattice of confidences: 1e-3 wide at 1/2, and ever finer towards 1."""

_MOST_SUMS = 1 << 20
"""Sums by bag, class and bin in all; of many classes there are fewer bags."""

FEWEST_BAGS = 16
"""Fewer of them would say little about chance."""

Forecasts: TypeAlias = Literal["all", "thresholded", "predicted"]
"""Which probabilities: of all classes, those above the threshold, or of the predicted class."""


class Cells(NamedTuple):
    """Probabilities in bins or cells (m,), and their residuals by bag.

    Attributes
    ----------
    bags : array (B,)
        Weight of the rows of each bag.
    codes : int array (m,)
        Which cells these are; none of them is empty.
    weight, squared_weight, probability : array (m,)
        Sums of weight, of its square, and of weight x probability.
    excess : array (B, m)
        Sums of residuals.
    mass : array (B, m) or None
        Sums of weight, where these are kept by bag.
    size : int
        Number of cells, empty or not.
    """

    bags: NumpyArray
    codes: NumpyArray
    weight: NumpyArray
    squared_weight: NumpyArray
    probability: NumpyArray
    excess: NumpyArray
    mass: NumpyArray | None
    size: int


@dataclass(frozen=True)
class MeanBags:
    """The statistic: by bag, the weight and the sums of weight x value of some row means.

    State: array (1 + V, B).
    """

    units: Units
    means: tuple[RowMean, ...]

    def partial(self, view: View) -> NumpyArray:
        """The sums over one block."""
        bags, size = self.units.bags_of(view), self.units.bags()
        if not view.weighted:
            values = (None, *(mean.value(view) for mean in self.means))
            return np.stack([np.bincount(bags, v, minlength=size) * 1.0 for v in values])
        present = view.weights > 0
        weights, bags = view.weights[present], bags[present]
        weighted = [weights, *(weights * mean.value(view)[present] for mean in self.means)]
        return np.stack([np.bincount(bags, v, minlength=size) for v in weighted])

    def merge(self, left: NumpyArray, right: NumpyArray) -> NumpyArray:
        """The sums over two blocks."""
        return left + right

    def finish(self, state: NumpyArray) -> NumpyArray:
        """The sums."""
        return state


class ConfidenceState(NamedTuple):
    """Sums by cell (3, cells) of weight, its square, and weight x confidence; and by bag."""

    totals: NumpyArray
    mass: CellSums
    excess: CellSums


@dataclass(frozen=True)
class ConfidenceBags:
    """The statistic: by bag, and by cell of the largest probability, sums of weight and residuals.

    The edges of the 15 equal-width bins are edges of cells too. Memory: 16 bytes for each bag and
    cell. ``merge`` takes over its left argument.

    Parameters
    ----------
    units : Units
    cells : int
        Of the lattice (`lattice_cells`); 2 where nothing but the 15 bins is needed.
    """

    units: Units
    cells: int = CELLS

    @property
    def size(self) -> int:
        """The number of cells: a bin's edge inside a cell of the lattice divides it."""
        return self.cells + BINS - 1

    def partial(self, view: View) -> ConfidenceState:
        """The sums over one block."""
        cells = self.cells_of(view.confidence)
        codes = self.units.bags_of(view) * self.size + cells
        weights = view.weights
        residuals = weights * (view.confidence - view.correct)
        summed = (weights, weights**2, weights * view.confidence)
        totals = np.stack([np.bincount(cells, v, minlength=self.size) for v in summed])
        size = self.units.bags() * self.size
        mass = CellSums.of(codes, weights if view.weighted else None, size)
        return ConfidenceState(totals, mass, CellSums.of(codes, residuals, size))

    def cells_of(self, confidence: NumpyArray) -> NumpyArray:
        """The cell of each confidence (n,), ascending."""
        # Both grow with the confidence, so their sum does whenever one of them does.
        cells: NumpyArray = lattice_cells(confidence, self.cells) + np.maximum(
            bin_index(confidence), 0
        )
        return cells

    def bins_of(self, codes: NumpyArray) -> NumpyArray:
        """The bin (m,) that each cell lies in."""
        bins: NumpyArray = np.searchsorted(self.cells_of(EDGES[1:-1]), codes, side="left")
        return bins

    def merge(self, left: ConfidenceState, right: ConfidenceState) -> ConfidenceState:
        """The sums over two blocks."""
        return ConfidenceState(
            left.totals + right.totals, left.mass.plus(right.mass), left.excess.plus(right.excess)
        )

    def finish(self, state: ConfidenceState) -> Cells:
        """The sums of the cells that are not empty."""
        (codes,) = np.nonzero(state.totals[0] > 0)
        bags = self.units.bags()
        mass = state.mass.everywhere().reshape(bags, -1)
        excess = state.excess.everywhere().reshape(bags, -1)
        weight, squares, confidence = state.totals[:, codes]
        own, residuals = mass[:, codes], excess[:, codes]
        whole = mass.sum(axis=1)
        return Cells(whole, codes, weight, squares, confidence, residuals, own, self.size)


class ClassState(NamedTuple):
    """Sums of residuals by bag, class and bin, and totals by class and bin.

    Attributes
    ----------
    bags : array (B,)
        Weight of the rows of each bag.
    columns : array (B, K) or None
        Sums of weight x probability of the first bin, where those are wanted.
    excess : CellSums
        By bag, class and bin; without ``columns``.
    totals : tuple of CellSums
        By class and bin: weight, its square, and weight x probability, without the first bin where
        there are ``columns``.
    squared_weight : float
        Sum over all rows.
    """

    bags: NumpyArray
    columns: NumpyArray | None
    excess: CellSums
    totals: tuple[CellSums, CellSums, CellSums]
    squared_weight: float


@dataclass(frozen=True)
class ClassBags:
    """The statistic: by bag, class and equal-width bin of a class's probability, its residuals.

    ``merge`` takes over its left argument.
    """

    units: Units
    forecasts: Forecasts = "all"

    def bags(self, classes: int) -> int:
        """The number of bags: a power of 2 such that there are not too many sums."""
        room = max(_MOST_SUMS // (BINS * classes), 1)
        return self.units.bags(min(BAGS, 1 << room.bit_length() - 1))

    def partial(self, view: View) -> ClassState | None:
        """The sums over one block; None of so many classes that there are too few bags."""
        bags = self.bags(view.classes)
        if bags < min(FEWEST_BAGS, self.units.count):
            return None
        own = self.units.bags_of(view, bags)
        rows, columns, values = self._forecasts(view)
        mass = view.weights[rows]
        cells, each = columns * BINS + bin_index(values), view.classes * BINS
        true, labels, probability = self._labels(view)
        label_cells = labels * BINS + bin_index(probability)
        codes = np.append(own[rows] * each + cells, own[true] * each + label_cells)
        residuals = np.append(mass * values, -view.weights[true])
        first = None
        if self.forecasts == "all":
            beyond = np.bincount(
                own[rows] * view.classes + columns, mass * values, minlength=bags * view.classes
            )
            first = column_sums(view, own, bags) - beyond.reshape(bags, -1)
        summed = (mass, mass**2, mass * values)
        return ClassState(
            np.bincount(own, view.weights, minlength=bags),
            first,
            CellSums.of(codes, residuals, bags * each),
            (
                CellSums.of(cells, summed[0], each),
                CellSums.of(cells, summed[1], each),
                CellSums.of(cells, summed[2], each),
            ),
            float((view.weights**2).sum()),
        )

    def merge(self, left: ClassState | None, right: ClassState | None) -> ClassState | None:
        """The sums over two blocks."""
        if left is None or right is None:
            return None
        first = left.columns
        if first is not None:
            first += right.columns
        sums = [a.plus(b) for a, b in zip(left.totals, right.totals, strict=True)]
        return ClassState(
            left.bags + right.bags,
            first,
            left.excess.plus(right.excess),
            (sums[0], sums[1], sums[2]),
            left.squared_weight + right.squared_weight,
        )

    def finish(self, state: ClassState | None) -> Cells | None:
        """The sums of the cells that are not empty."""
        if state is None:
            return None
        bags = len(state.bags)
        excess = state.excess.everywhere().reshape(bags, -1)
        weight, squares, probability = (each.everywhere() for each in state.totals)
        if state.columns is not None:
            excess[:, ::BINS] += state.columns
            in_others = weight.reshape(-1, BINS).sum(axis=1)
            weight[::BINS] = np.maximum(state.bags.sum() - in_others, 0.0)
            squares[::BINS] = weight[::BINS] * (state.squared_weight / state.bags.sum())
            probability[::BINS] = np.maximum(state.columns.sum(axis=0), 0.0)
        (codes,) = np.nonzero(weight > 0)
        return Cells(
            state.bags,
            codes,
            weight[codes],
            squares[codes],
            probability[codes],
            excess[:, codes],
            None,
            len(weight),
        )

    def _forecasts(self, view: View) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
        """Row, class and value of the probabilities; of ``"all"`` those beyond the first bin."""
        if self.forecasts == "predicted":
            return np.arange(len(view)), view.prediction, view.confidence
        threshold = THRESHOLD if self.forecasts == "thresholded" else float(EDGES[1])
        return elements_above(view.probs, threshold)

    def _labels(self, view: View) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
        """Row, label and its probability, where that is one of the forecasts."""
        if self.forecasts == "predicted":
            (true,) = np.nonzero(view.correct)
            return true, view.prediction[true], view.confidence[true]
        (true,) = np.nonzero(view.true_prob > (THRESHOLD if self.forecasts == "thresholded" else 0))
        return true, view.labels[true], view.true_prob[true]


def column_sums(view: View, bags: NumpyArray, count: int) -> NumpyArray:
    """Sums (count, K) of weight x probability over the rows of each bag, float64."""
    probs = view.probs
    if is_by_class(probs):
        columns = probs.T * view.weights if view.weighted else probs.T
        return np.stack([np.bincount(bags, c, minlength=count) for c in columns], axis=1)
    if is_numpy_array(probs):
        order = np.argsort(bags, kind="stable")
        ordered = probs[order]
        if view.weighted:
            ordered *= view.weights[order, None].astype(ordered.dtype)
        sums = np.zeros((count, view.classes))
        starts = np.flatnonzero(np.diff(bags[order], prepend=-1))
        sums[bags[order][starts]] = np.add.reduceat(ordered, starts, axis=0)
        return sums
    xp = namespace(probs)
    members = np.zeros((count, len(view)))
    members[bags, np.arange(len(view))] = view.weights
    device = getattr(probs, "device", None)
    return to_numpy(xp.asarray(members, dtype=probs.dtype, device=device) @ probs).astype(
        np.float64
    )
