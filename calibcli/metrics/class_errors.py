"""Calibration errors by class: class-wise ECE and top-label ECE.

>>> import numpy as np
>>> logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.6, 0.4]])
>>> labels = np.array([0, 1, 0, 0])
>>> round(CLASS_WISE_ECE.measure(logits, labels), 6)  # of two classes both have the same error
0.375
>>> round(CLASS_WISE_ECE_THRESHOLDED.measure(logits, labels), 6)  # no probability is below 0.01
0.375
>>> round(TOP_LABEL_ECE.measure(logits, labels), 6)  # class 0 is predicted for all rows
0.375

References
----------
Kull, Perello-Nieto, Kängsepp et al. (2019), Beyond temperature scaling, arXiv:1910.12656
(classwise ECE); Nixon et al. (2019), Measuring Calibration in Deep Learning, arXiv:1904.01685
(static calibration error, and the threshold); Gupta and Ramdas (2022), Top-label calibration and
multiclass-to-binary reductions, arXiv:2107.08353.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from calibcli.arrays import Array, NumpyArray, is_by_class, is_numpy_array, namespace, to_numpy
from calibcli.metrics.base import Metric
from calibcli.metrics.bins import BINS, EDGES, bin_index
from calibcli.metrics.diagrams import PREDICTED_CLASSES, ClassDiagrams
from calibcli.metrics.ece import expected_error
from calibcli.metrics.error_intervals import ErrorSample, pooled, shrunken
from calibcli.metrics.lattice import CellSums
from calibcli.metrics.resampling import BAGS, Chance, Units
from calibcli.metrics.residual_cells import ResidualCells, Residuals, unchanged
from calibcli.metrics.row_mean import ratio
from calibcli.metrics.view import View


class Excess(NamedTuple):
    """Sums of weight x (p_k - [y = k]) by class k and bin of p_k.

    Attributes
    ----------
    weight : float
        Weight of all rows.
    first_bin : array (K,)
        The probabilities' part of the first bin: of weight x p_k where p_k <= 1/15.
    cells : CellSums
        By 15 k + bin, everything else: the probabilities' part of the other bins, and the labels'
        part of all.
    """

    weight: float
    first_bin: NumpyArray
    cells: CellSums


@dataclass(frozen=True)
class ClassWiseExcess:
    """The statistic: by class and bin, how much probability there is in excess of labels.

    Nearly all of a row's probabilities are in the first bin, and a row has at most 14 outside of
    it. So the first bin is found by subtraction from the sum of all, and the state of a block of
    many classes lists the few other cells that it touches. ``merge`` takes over its left argument.
    """

    def partial(self, view: View) -> Excess:
        """The sums over one block."""
        rows, columns, values = elements_above(view.probs, float(EDGES[1]))
        mass = view.weights[rows] * values if view.weighted else values
        beyond = np.bincount(columns, mass, minlength=view.classes)
        cells = CellSums.of(columns * BINS + bin_index(values), mass, BINS * view.classes)
        cells = _minus_labels(cells, view, 0.0)
        return Excess(view.total_weight, view.class_mass - beyond, cells)

    def merge(self, left: Excess, right: Excess) -> Excess:
        """The sums over two blocks."""
        cells, first_bin = left.cells.plus(right.cells), left.first_bin
        first_bin += right.first_bin
        return Excess(left.weight + right.weight, first_bin, cells)

    def finish(self, state: Excess) -> float:
        """The error: mean over classes; NaN without rows."""
        excess = state.cells.everywhere().reshape(-1, BINS).copy()
        excess[:, 0] += state.first_bin
        return float(expected_error(excess.ravel(), state.weight * len(excess)))


THRESHOLD = 0.01
"""Probabilities up to this count for nothing in the thresholded error."""


class ExcessAbove(NamedTuple):
    """Sums of the probabilities above the threshold: weight by class (K,), excess by class and bin.

    The excess is the sum of weight x (p_k - [y = k]), by 15 k + bin.
    """

    weight: NumpyArray
    cells: CellSums


@dataclass(frozen=True)
class ThresholdedExcess:
    """The statistic: `ClassWiseExcess` of the probabilities above the threshold alone.

    ``merge`` takes over its left argument.
    """

    def partial(self, view: View) -> ExcessAbove:
        """The sums over one block."""
        rows, columns, values = elements_above(view.probs, THRESHOLD)
        weights = view.weights[rows]
        codes = columns * BINS + bin_index(values)
        cells = CellSums.of(codes, weights * values, BINS * view.classes)
        weight = np.bincount(columns, weights, minlength=view.classes).astype(np.float64)
        return ExcessAbove(weight, _minus_labels(cells, view, THRESHOLD))

    def merge(self, left: ExcessAbove, right: ExcessAbove) -> ExcessAbove:
        """The sums over two blocks."""
        return ExcessAbove(left.weight + right.weight, left.cells.plus(right.cells))

    def finish(self, state: ExcessAbove) -> float:
        """The error: mean over the classes that have such probabilities; NaN without any."""
        present = state.weight > 0
        gaps = np.abs(state.cells.everywhere().reshape(-1, BINS)).sum(axis=1)
        return ratio((gaps[present] / state.weight[present]).sum(), float(present.sum()))


def _minus_labels(cells: CellSums, view: View, threshold: float) -> CellSums:
    """The sums less the weights of the labels whose own probability is above a threshold."""
    counted = view.true_prob > threshold
    codes = (view.labels * BINS + bin_index(view.true_prob))[counted]
    return cells.and_also(codes, -view.weights[counted])


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


_MOST_SUMS = 1 << 20
"""Sums by bag, class and bin in all; of many classes there are fewer bags."""

FEWEST_BAGS = 16
"""Fewer of them would say little about chance."""

Forecasts: TypeAlias = Literal["all", "thresholded", "predicted"]
"""Which probabilities: of all classes, those above the threshold, or of the predicted class."""


@dataclass(frozen=True)
class ClassCells(ResidualCells):
    """Residuals by class and equal-width bin of a class's probability.

    Attributes
    ----------
    codes : int array (m,)
        15 x class + bin of each cell.
    classes : int
    every_class : bool
        Whether a row is in the cells of all classes, not only of the predicted one.
    """

    codes: NumpyArray
    classes: int
    every_class: bool

    @property
    def _share(self) -> NumpyArray | float:
        # Of two classes the cells of one are the mirror image of the other's.
        mirrored = self.every_class and self.classes == 2
        return np.where(self.codes < BINS, 0.0, 2.0) if mirrored else 1.0


class ClassBagSums(NamedTuple):
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

    def partial(self, view: View) -> ClassBagSums | None:
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
        return ClassBagSums(
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

    def merge(self, left: ClassBagSums | None, right: ClassBagSums | None) -> ClassBagSums | None:
        """The sums over two blocks."""
        if left is None or right is None:
            return None
        first = left.columns
        if first is not None:
            first += right.columns
        sums = [a.plus(b) for a, b in zip(left.totals, right.totals, strict=True)]
        return ClassBagSums(
            left.bags + right.bags,
            first,
            left.excess.plus(right.excess),
            (sums[0], sums[1], sums[2]),
            left.squared_weight + right.squared_weight,
        )

    def finish(self, state: ClassBagSums | None) -> ClassCells | None:
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
        return ClassCells(
            units=self.units,
            bags=state.bags,
            weight=weight[codes],
            squared_weight=squares[codes],
            probability=probability[codes],
            excess=excess[:, codes],
            codes=codes,
            classes=len(weight) // BINS,
            every_class=self.forecasts != "predicted",
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


@dataclass(frozen=True)
class ClassNorm:
    """The resampling of a calibration error that is a norm of residuals by class and bin.

    Attributes
    ----------
    forecasts : str
        Which probabilities it looks at.
    norm : callable
        Cells, residuals (R, m) -> errors (R,); a function of a module.
    """

    forecasts: Forecasts
    norm: Callable[[ClassCells, NumpyArray], NumpyArray]

    description = "inverted test of the error; chance range by labels drawn anew"

    def statistic(self, metric: Metric, units: Units) -> ClassBags:
        """The residuals by bag, class and bin."""
        return ClassBags(units, self.forecasts)

    def sample(self, metric: Metric, cells: ClassCells, value: float) -> ErrorSample:
        """The error, and the noise of the bootstrap.

        Without noise the residuals may be much as they are, or as if all classes were off alike.
        """
        drawn = cells.draws() @ cells.excess
        residuals = cells.excess.sum(axis=0)
        alike = pooled(residuals, cells.weight, cells.codes % BINS)
        signals = np.stack((alike + shrunken(residuals - alike, drawn.var(axis=0)), alike))
        # In place, since the replicates of many classes are large.
        noise = np.subtract(drawn, residuals, out=drawn)
        return ErrorSample(partial(self.norm, cells), residuals, signals, noise, cells.tail)

    def chance(self, metric: Metric, cells: ClassCells) -> Chance:
        """The error of labels that are drawn from the probabilities."""
        return cells.chance(Residuals(unchanged, partial(self.norm, cells)))


def _mean_over_classes(cells: ClassCells, residuals: NumpyArray) -> NumpyArray:
    return expected_error(residuals, float(cells.bags.sum()) * cells.classes)


def _mean_over_rows(cells: ClassCells, residuals: NumpyArray) -> NumpyArray:
    return expected_error(residuals, float(cells.bags.sum()))


def _mean_above_threshold(cells: ClassCells, residuals: NumpyArray) -> NumpyArray:
    """The mean over classes, each relative to its own weight above the threshold."""
    classes = cells.codes // BINS
    by_class = np.bincount(classes, cells.weight)
    share = 1 / (by_class[classes] * np.count_nonzero(by_class))
    errors: NumpyArray = np.abs(residuals) @ share
    return errors


def _top_label_error(classes: ClassDiagrams) -> float:
    bins = classes.bins
    return float(expected_error((bins.confidence - bins.correct).ravel(), bins.weight.sum()))


CLASS_WISE_ECE = Metric(
    name="class_wise_ece",
    title="class-wise ECE",
    convention=(
        "for every class the ECE of its probability over 15 equal-width bins (lower, upper], "
        "probabilities of 0 in no bin; mean (not sum) over all classes"
    ),
    statistic=ClassWiseExcess(),
    value=float,
    resampling=ClassNorm("all", _mean_over_classes),
)

CLASS_WISE_ECE_THRESHOLDED = Metric(
    name="class_wise_ece_thresholded",
    title="class-wise ECE > 1 %",
    convention=(
        "class-wise ECE of the probabilities above 0.01 alone (the threshold of Nixon et al. "
        "2019): for every class |mean probability - share of the label| over 15 equal-width bins, "
        "mean over these rows; mean over the classes that have any"
    ),
    statistic=ThresholdedExcess(),
    value=float,
    resampling=ClassNorm("thresholded", _mean_above_threshold),
)

TOP_LABEL_ECE = Metric(
    name="top_label_ece",
    title="top-label ECE",
    convention=(
        "for the rows of every predicted class the ECE over 15 equal-width bins (lower, upper] of "
        "the largest probability; mean over rows (Gupta and Ramdas 2022)"
    ),
    statistic=PREDICTED_CLASSES,
    value=_top_label_error,
    resampling=ClassNorm("predicted", _mean_over_rows),
)
