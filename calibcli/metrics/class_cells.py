"""Residuals by class and bin of a class's probability, and those of labels that are drawn.

By class, bin and bag of rows, residuals are summed: those of the labels, and those of labels that
are drawn from the probabilities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    is_by_class,
    is_numpy_array,
    namespace,
    to_numpy,
)
from calibcli.cached import cached_property
from calibcli.cell_sums import CellSums
from calibcli.metrics.bins import BINS, bin_index, edges_of
from calibcli.metrics.drawn_labels import drawn_labels
from calibcli.metrics.resampling import LEVEL, Units
from calibcli.metrics.residual_cells import OTHER_STREAM, CellResiduals
from calibcli.metrics.view import View

THRESHOLD = 0.01
"""Probabilities up to this count for nothing in the thresholded error."""

_MOST_SUMS = 1 << 22
"""Sums by set of labels, bag, class and bin in all; of many classes there are fewer."""

BAGS_OF_CLASSES, FEWEST_BAGS = 32, 16
"""Bags of rows of which each replicate has one of the sets of labels."""

_MOST_SETS, _FEWEST_SETS = 16, 4
_MANY_ROWS = 1 << 14
"""So many rows have noise enough in the fewest sets."""

_MOST_REPLICATES = 600
_MOST_NOISE = 1 << 21
"""Residuals of all replicates, unless more replicates are asked for."""

Forecasts: TypeAlias = Literal["all", "thresholded", "predicted"]
"""Which probabilities: of all classes, those above the threshold, or of the predicted class."""


def most_classes(bins: int = BINS) -> int:
    """The number of classes above which there are too few sets of sums for an interval."""
    return _MOST_SUMS // (bins * FEWEST_BAGS * _FEWEST_SETS)


class Labels(NamedTuple):
    """Labels that are forecasts: row, class and probability of each."""

    rows: NumpyArray
    classes: NumpyArray
    probability: NumpyArray


@dataclass(frozen=True)
class ClassCells(CellResiduals):
    """Residuals by class and equal-width bin of a class's probability; of cells (m,) with weight.

    Attributes
    ----------
    drawn : float32 array (D, B, m)
        Sums of residuals of the sets of labels that are drawn from the probabilities.
    codes : int array (m,)
        ``bins`` x class + bin of each cell.
    classes, rows, bins : int
    paired : PairedSums or None
        Of another model than the first of the same rows.
    """

    drawn: NumpyArray
    codes: NumpyArray
    classes: int
    rows: int
    bins: int
    paired: PairedSums | None = None

    @property
    def class_of(self) -> NumpyArray:
        """The class (m,) of each cell."""
        classes: NumpyArray = self.codes // self.bins
        return classes

    @property
    def bin_of(self) -> NumpyArray:
        """The bin (m,) of each cell."""
        bins: NumpyArray = self.codes % self.bins
        return bins

    @cached_property
    def variance(self) -> NumpyArray:
        """The variance (m,) of the residuals, if the model is calibrated."""
        by_rows: NumpyArray = self.squared_weight * self.mean * (1 - self.mean)
        return by_rows * self.design_effect

    @cached_property
    def design_effect(self) -> float:
        """The variance of the residuals relative to that of rows by themselves; 1 at least.

        All cells together, as far as bags of clusters differ.
        """
        if self.units.role is None or self.units.count >= self.rows or self.filled < 2:
            return 1.0
        apart = self.excess - self.bags[:, None] / self.bags.sum() * self.residuals
        variance = float((apart**2).sum()) * self.filled / (self.filled - 1)
        by_rows = float((self.squared_weight * self.mean * (1 - self.mean)).sum())
        return max(variance / by_rows, 1.0) if by_rows > 0 else 1.0

    @cached_property
    def effective_rows(self) -> NumpyArray:
        """Independent rows (m,) without weights that have as much noise as those of a cell."""
        rows: NumpyArray = self.weight**2 / (self.squared_weight * self.design_effect)
        return rows

    @cached_property
    def noise(self) -> NumpyArray:
        """Residuals (R, m), float32, of labels drawn from the probabilities.

        A replicate has one of the sets of labels in each bag, so that a row that is wrong moves all
        the cells that it is in.
        """
        return self.noise_of(self.drawn)

    def noise_of(self, drawn: NumpyArray) -> NumpyArray:
        """The noise (R, m) of other sets of labels (D, B, m), in the same choice of them."""
        sets, bags, cells = drawn.shape
        most = min(_MOST_REPLICATES, _MOST_NOISE // (self.bins * self.classes))
        replicates = max(self.units.replicates, most)
        generator = np.random.Generator(np.random.Philox(key=self.units.seed + OTHER_STREAM))
        chosen = generator.integers(0, sets, (replicates, bags)) * bags + np.arange(bags)
        takes = np.zeros((replicates, sets * bags), dtype=np.float32)
        takes[np.arange(replicates)[:, None], chosen] = math.sqrt(self.design_effect)
        noise: NumpyArray = takes @ drawn.reshape(-1, cells)
        return noise

    @property
    def tail(self) -> float:
        """The share of replicates to leave out at each end: Student's where clusters are few."""
        return super().tail if self.design_effect > 1 else (1 - LEVEL) / 2


class PairedSums(NamedTuple):
    """What is known of two models of the same rows, by bag, class and bin.

    Attributes
    ----------
    here : array (B, b K)
        Sums of weight x (probability - the first model's), in the cells of this model.
    there : array (B, b K)
        The negative, in the cells of the first.
    drawn : float32 array (D, B, m)
        By set and bag, in the cells of this model: the residuals of labels that are drawn from the
        first model's probabilities.
    """

    here: NumpyArray
    there: NumpyArray
    drawn: NumpyArray


class ApartSums(NamedTuple):
    """Sums of weight x (probability - another model's) by bag, class and bin, as blocks add up.

    Attributes
    ----------
    columns : array (B, K) or None
        Those of the first bin, where they are not among ``cells``.
    cells : CellSums
    """

    columns: NumpyArray | None
    cells: CellSums

    def plus(self, other: ApartSums) -> ApartSums:
        """The sums of both; takes over ``self``."""
        columns = self.columns
        if columns is not None:
            columns += other.columns
        return ApartSums(columns, self.cells.plus(other.cells))

    def everywhere(self, bags: int, bins: int) -> NumpyArray:
        """The sums of all cells (B, b K)."""
        sums = self.cells.everywhere().reshape(bags, -1)
        if self.columns is not None:
            sums[:, ::bins] += self.columns
        return sums


class PairedBagSums(NamedTuple):
    """What becomes `PairedSums`; of ``drawn`` the weight of the labels."""

    here: ApartSums
    there: ApartSums
    drawn: CellSums

    def plus(self, other: PairedBagSums) -> PairedBagSums:
        """The sums of both; takes over ``self``."""
        here, there = self.here.plus(other.here), self.there.plus(other.there)
        return PairedBagSums(here, there, self.drawn.plus(other.drawn))


class ClassBagSums(NamedTuple):
    """Sums by bag, class and bin, and totals by class and bin.

    Attributes
    ----------
    rows : int
    bags : array (B,)
        Weight of the rows of each bag.
    columns : array (B, K) or None
        Sums of weight x probability of the first bin, where those are wanted.
    excess : CellSums
        Residuals by bag, class and bin; without ``columns``.
    probability : CellSums
        Weight x probability by bag, class and bin; without ``columns``.
    drawn : CellSums
        By set, bag, class and bin: the weight of labels drawn from the probabilities.
    totals : tuple of CellSums
        By class and bin: weight and its square, without the first bin where there are ``columns``.
    squared_weight : float
        Sum over all rows.
    paired : PairedBagSums or None
        Of another model than the first of the same rows.
    """

    rows: int
    bags: NumpyArray
    columns: NumpyArray | None
    excess: CellSums
    probability: CellSums
    drawn: CellSums
    totals: tuple[CellSums, CellSums]
    squared_weight: float
    paired: PairedBagSums | None


@dataclass(frozen=True)
class ClassBags:
    """The statistic: by bag, class and equal-width bin of a class's probability, its residuals.

    And those of labels that are drawn from the probabilities, several sets of them: a row's label
    is drawn by its number, the same one whatever the blocks, and much the same one for models that
    are much the same. ``merge`` takes over its left argument.
    """

    units: Units
    forecasts: Forecasts = "all"
    bins: int = BINS

    def sets_and_bags(self, classes: int) -> tuple[int, int]:
        """The numbers of sets and of bags, such that there are not too many sums."""
        room = _MOST_SUMS // (self.bins * classes)
        most = BAGS_OF_CLASSES if room >= BAGS_OF_CLASSES * _FEWEST_SETS else FEWEST_BAGS
        bags = self.units.bags(most)
        sets = _MOST_SETS if self.units.count <= _MANY_ROWS else _FEWEST_SETS
        return min(sets, room // bags), bags

    def partial(self, view: View) -> ClassBagSums | None:
        """The sums over one block; None of so many classes that there are too few sets."""
        sets, bags = self.sets_and_bags(view.classes)
        if sets < _FEWEST_SETS:
            return None
        row_bags = self.units.bags_of(view, bags)
        rows, columns, values = self._forecasts(view)
        mass = view.weights[rows] * values
        cells, each = self._cells(columns, values), view.classes * self.bins
        codes = row_bags[rows] * each + cells
        labels = self._among_forecasts(view, view.labels, view.true_prob)
        first = None
        if self.forecasts == "all":
            beyond = np.bincount(
                row_bags[rows] * view.classes + columns, mass, minlength=bags * view.classes
            )
            first = column_sums(view, row_bags, bags) - beyond.reshape(bags, -1)
        label_cells = self._cells(labels.classes, labels.probability)
        label_codes = row_bags[labels.rows] * each + label_cells
        return ClassBagSums(
            len(view),
            np.bincount(row_bags, view.weights, minlength=bags),
            first,
            CellSums.of(
                np.append(codes, label_codes),
                np.append(mass, -view.weights[labels.rows]),
                bags * each,
            ),
            CellSums.of(codes, mass, bags * each),
            self._drawn(view, view, row_bags),
            (
                CellSums.of(cells, view.weights[rows], each),
                CellSums.of(cells, view.weights[rows] ** 2, each),
            ),
            float((view.weights**2).sum()),
            self._paired(view, row_bags),
        )

    def _drawn(self, view: View, model: View, row_bags: NumpyArray) -> CellSums:
        """The weight of labels drawn from a model's probabilities, by set, bag, class and bin."""
        sets, bags = self.sets_and_bags(view.classes)
        each = view.classes * self.bins
        codes, weights = [], []
        for number, labels in enumerate(drawn_labels(model, self.units.seed, sets)):
            drawn = self._among_forecasts(view, labels, view.probability_of(labels))
            cells = self._cells(drawn.classes, drawn.probability)
            codes.append((number * bags + row_bags[drawn.rows]) * each + cells)
            weights.append(view.weights[drawn.rows])
        return CellSums.of(np.concatenate(codes), np.concatenate(weights), sets * bags * each)

    def _paired(self, view: View, row_bags: NumpyArray) -> PairedBagSums | None:
        if view.first is None:
            return None
        here = self._apart(view, view.first, row_bags)
        there = self._apart(view.first, view, row_bags)
        return PairedBagSums(here, there, self._drawn(view, view.first, row_bags))

    def _apart(self, view: View, other: View, row_bags: NumpyArray) -> ApartSums:
        """Sums of weight x (probability - another model's), in the cells of a view."""
        rows, columns, values = self._forecasts(view)
        _, bags = self.sets_and_bags(view.classes)
        more = view.weights[rows] * (values - elements_at(other.probs, rows, columns))
        size, starts = view.classes * self.bins, row_bags[rows]
        first = None
        if self.forecasts == "all":
            codes = starts * view.classes + columns
            beyond = np.bincount(codes, more, bags * view.classes).reshape(bags, -1)
            first = column_sums(view, row_bags, bags) - column_sums(other, row_bags, bags) - beyond
        codes = starts * size + self._cells(columns, values)
        return ApartSums(first, CellSums.of(codes, more, bags * size))

    def merge(self, left: ClassBagSums | None, right: ClassBagSums | None) -> ClassBagSums | None:
        if left is None or right is None:
            return None
        first = left.columns
        if first is not None:
            first += right.columns
        weight, squares = (a.plus(b) for a, b in zip(left.totals, right.totals, strict=True))
        return ClassBagSums(
            left.rows + right.rows,
            left.bags + right.bags,
            first,
            left.excess.plus(right.excess),
            left.probability.plus(right.probability),
            left.drawn.plus(right.drawn),
            (weight, squares),
            left.squared_weight + right.squared_weight,
            left.paired.plus(right.paired) if left.paired and right.paired else None,
        )

    def finish(self, state: ClassBagSums | None) -> ClassCells | None:
        """The sums of the cells that are not empty."""
        if state is None:
            return None
        bags = len(state.bags)
        excess = state.excess.everywhere().reshape(bags, -1)
        probability = state.probability.everywhere().reshape(bags, -1)
        weight, squares = (each.everywhere() for each in state.totals)
        if state.columns is not None:
            excess[:, :: self.bins] += state.columns
            probability[:, :: self.bins] += np.maximum(state.columns, 0.0)
            in_others = weight.reshape(-1, self.bins).sum(axis=1)
            # Rounding leaves some of those above the edge in the first bin.
            in_first = np.maximum(state.bags.sum() - in_others, 0.0)
            weight[:: self.bins] += in_first
            squares[:: self.bins] += in_first * (state.squared_weight / state.bags.sum())
        (codes,) = np.nonzero(weight > 0)
        drawn = state.drawn.everywhere().reshape(-1, bags, len(weight))
        paired = None
        if state.paired is not None:
            here, there = (each.everywhere(bags, self.bins) for each in state.paired[:2])
            labels = state.paired.drawn.everywhere().reshape(-1, bags, len(weight))
            by_bag = probability[:, codes] - here[:, codes]
            residuals = np.subtract(by_bag, labels[:, :, codes], dtype=np.float32)
            paired = PairedSums(here, there, residuals)
        return ClassCells(
            units=self.units,
            bags=state.bags,
            weight=weight[codes],
            squared_weight=squares[codes],
            probability=probability.sum(axis=0)[codes],
            excess=excess[:, codes],
            drawn=np.subtract(probability[:, codes], drawn[:, :, codes], dtype=np.float32),
            codes=codes,
            classes=len(weight) // self.bins,
            rows=state.rows,
            bins=self.bins,
            paired=paired,
        )

    def _cells(self, classes: NumpyArray, probability: NumpyArray) -> NumpyArray:
        """The cells (m,) of probabilities of some classes: b x class + bin."""
        cells: NumpyArray = classes * self.bins + bin_index(probability, self.bins)
        return cells

    def _forecasts(self, view: View) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
        """Row, class and value of the probabilities; of ``"all"`` those beyond the first bin."""
        if self.forecasts == "predicted":
            return np.arange(len(view)), view.prediction, view.top_confidence
        threshold = THRESHOLD if self.forecasts == "thresholded" else float(edges_of(self.bins)[1])
        return elements_above(view.probs, threshold)

    def _among_forecasts(self, view: View, labels: NumpyArray, probs: NumpyArray) -> Labels:
        """Those of labels (n,), with their probabilities (n,), that are forecasts."""
        if self.forecasts == "predicted":
            (rows,) = np.nonzero(view.prediction == labels)
            return Labels(rows, labels[rows], view.top_confidence[rows])
        (rows,) = np.nonzero(probs > (THRESHOLD if self.forecasts == "thresholded" else 0))
        return Labels(rows, labels[rows], probs[rows])


def elements_above(probs: Array, threshold: float) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
    """Row, class and value (float64) of every probability above a threshold, as host vectors."""
    xp = namespace(probs)
    turned = is_numpy_array(probs) and probs.flags.f_contiguous
    # One axis in the order of memory: NumPy finds the true ones of a vector fastest.
    flat = xp.reshape(probs.T if turned else probs, (-1,))
    (places,) = xp.nonzero(flat > _largest_below_edge(probs, threshold))
    values = to_numpy(xp.take(flat, places)).astype(np.float64)
    index, length = to_numpy(places), probs.shape[0 if turned else 1]
    outer = index // length
    inner = index - outer * length
    return (inner, outer, values) if turned else (outer, inner, values)


def _largest_below_edge(probs: Array, edge: float) -> float:
    """The largest number of the array's precision that is not above a float64 edge.

    Comparing float32 probabilities with 1/15 itself would round 1/15 up and lose an element.
    """
    if namespace(probs).finfo(probs.dtype).bits > 32:
        return edge
    nearest = np.float32(edge)
    return float(nearest if float(nearest) <= edge else np.nextafter(nearest, np.float32(0)))


def elements_at(probs: Array, rows: NumpyArray, columns: NumpyArray) -> NumpyArray:
    """Elements (m,), float64 on the host, of a matrix on any device."""
    xp = namespace(probs)
    device = getattr(probs, "device", None)
    index = (xp.asarray(rows, device=device), xp.asarray(columns, device=device))
    return to_numpy(probs[index]).astype(np.float64)


def column_sums(view: View, bags: NumpyArray, count: int) -> NumpyArray:
    """Sums (count, K) of weight x probability over the rows of each bag, float64; kept."""
    key = ("columns", count)
    if key not in view.kept:
        view.kept[key] = _column_sums(view, bags, count)
    return view.kept[key]


def _column_sums(view: View, bags: NumpyArray, count: int) -> NumpyArray:
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
