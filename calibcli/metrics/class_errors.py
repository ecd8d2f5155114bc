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

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.cell_sums import CellSums
from calibcli.metrics.base import SHARE, Metric
from calibcli.metrics.bins import BINS, bin_index, edges_of, title_over_bins
from calibcli.metrics.class_cells import THRESHOLD, ClassCells, elements_above, most_classes
from calibcli.metrics.class_norms import ClassNorm
from calibcli.metrics.diagrams import ClassDiagrams, PredictedClasses
from calibcli.metrics.ece import expected_error
from calibcli.metrics.row_mean import ratio
from calibcli.metrics.view import View


class Excess(NamedTuple):
    """Sums of weight x (p_k - [y = k]) by class k and bin of p_k.

    Attributes
    ----------
    weight : float
        Weight of all rows.
    first_bin : array (K,)
        The probabilities' part of the first bin: of weight x p_k where p_k <= 1/b.
    cells : CellSums
        By b k + bin, everything else: the probabilities' part of the other bins, and the labels'
        part of all.
    """

    weight: float
    first_bin: NumpyArray
    cells: CellSums


@dataclass(frozen=True)
class ClassWiseExcess:
    """The statistic: by class and bin, how much probability there is in excess of labels.

    Nearly all of a row's probabilities are in the first of b bins, and a row has at most b - 1
    outside of it. So the first bin is found by subtraction from the sum of all, and the state of a
    block of many classes lists the few other cells that it touches. ``merge`` takes over its left
    argument.
    """

    bins: int = BINS

    def partial(self, view: View) -> Excess:
        rows, columns, values = elements_above(view.probs, float(edges_of(self.bins)[1]))
        mass = view.weights[rows] * values if view.weighted else values
        beyond = np.bincount(columns, mass, minlength=view.classes)
        codes = columns * self.bins + bin_index(values, self.bins)
        cells = CellSums.of(codes, mass, self.bins * view.classes)
        cells = _minus_labels(cells, view, 0.0, self.bins)
        return Excess(view.total_weight, view.class_mass - beyond, cells)

    def merge(self, left: Excess, right: Excess) -> Excess:
        cells, first_bin = left.cells.plus(right.cells), left.first_bin
        first_bin += right.first_bin
        return Excess(left.weight + right.weight, first_bin, cells)

    def finish(self, state: Excess) -> float:
        """The error: mean over classes; NaN without rows."""
        excess = state.cells.everywhere().reshape(-1, self.bins).copy()
        excess[:, 0] += state.first_bin
        return float(expected_error(excess.ravel(), state.weight * len(excess)))


class ExcessAbove(NamedTuple):
    """Sums of the probabilities above the threshold: weight by class (K,), excess by class and bin.

    The excess is the sum of weight x (p_k - [y = k]), by b k + bin.
    """

    weight: NumpyArray
    cells: CellSums


@dataclass(frozen=True)
class ThresholdedExcess:
    """The statistic: `ClassWiseExcess` of the probabilities above the threshold alone.

    ``merge`` takes over its left argument.
    """

    bins: int = BINS

    def partial(self, view: View) -> ExcessAbove:
        rows, columns, values = elements_above(view.probs, THRESHOLD)
        weights = view.weights[rows]
        codes = columns * self.bins + bin_index(values, self.bins)
        cells = CellSums.of(codes, weights * values, self.bins * view.classes)
        weight = np.bincount(columns, weights, minlength=view.classes).astype(np.float64)
        return ExcessAbove(weight, _minus_labels(cells, view, THRESHOLD, self.bins))

    def merge(self, left: ExcessAbove, right: ExcessAbove) -> ExcessAbove:
        return ExcessAbove(left.weight + right.weight, left.cells.plus(right.cells))

    def finish(self, state: ExcessAbove) -> float:
        """The error: mean over the classes that have such probabilities; NaN without any."""
        present = state.weight > 0
        gaps = np.abs(state.cells.everywhere().reshape(-1, self.bins)).sum(axis=1)
        return ratio((gaps[present] / state.weight[present]).sum(), float(present.sum()))


def _minus_labels(cells: CellSums, view: View, threshold: float, bins: int) -> CellSums:
    """The sums less the weights of the labels whose own probability is above a threshold."""
    counted = view.true_prob > threshold
    codes = (view.labels * bins + bin_index(view.true_prob, bins))[counted]
    return cells.and_also(codes, -view.weights[counted])


def _of_classes(cells: ClassCells) -> NumpyArray:
    return np.full(len(cells.codes), 1 / (float(cells.bags.sum()) * cells.classes))


def _of_rows(cells: ClassCells) -> NumpyArray:
    return np.full(len(cells.codes), 1 / float(cells.bags.sum()))


def _of_classes_above_threshold(cells: ClassCells) -> NumpyArray:
    """Each class's are relative to its own weight above the threshold."""
    classes = cells.class_of
    by_class = np.bincount(classes, cells.weight)
    shares: NumpyArray = 1 / (by_class[classes] * np.count_nonzero(by_class))
    return shares


def _top_label_error(classes: ClassDiagrams) -> float:
    bins = classes.bins
    return float(expected_error((bins.confidence - bins.correct).ravel(), bins.weight.sum()))


def class_wise_ece_of_bins(bins: int, name: str) -> Metric:
    """Class-wise ECE over so many bins, by its name: ``class_wise_ece@10``."""
    return Metric(
        range=SHARE,
        name=name,
        title=title_over_bins("class-wise ECE", bins),
        convention=(
            f"for every class the ECE of its probability over {bins} equal-width bins (lower, "
            "upper], probabilities of 0 in no bin; mean (not sum) over all classes"
        ),
        statistic=ClassWiseExcess(bins),
        value=float,
        resampling=ClassNorm("all", _of_classes, bins),
        over_classes=True,
        most_classes=most_classes(bins),
    )


def class_wise_ece_thresholded_of_bins(bins: int, name: str) -> Metric:
    """Thresholded class-wise ECE over so many bins: ``class_wise_ece_thresholded@10``."""
    return Metric(
        range=SHARE,
        name=name,
        title=title_over_bins("class-wise ECE > 1 %", bins),
        convention=(
            "class-wise ECE of the probabilities above 0.01 alone (the threshold of Nixon et al. "
            f"2019): for every class |mean probability - share of the label| over {bins} "
            "equal-width bins, mean over these rows; mean over the classes that have any"
        ),
        statistic=ThresholdedExcess(bins),
        value=float,
        resampling=ClassNorm("thresholded", _of_classes_above_threshold, bins),
        over_classes=True,
        most_classes=most_classes(bins),
    )


def top_label_ece_of_bins(bins: int, name: str) -> Metric:
    """Top-label ECE over so many bins, by its name: ``top_label_ece@10``."""
    return Metric(
        range=SHARE,
        name=name,
        title=title_over_bins("top-label ECE", bins),
        convention=(
            f"for the rows of every predicted class the ECE over {bins} equal-width bins (lower, "
            "upper] of the largest probability; mean over rows (Gupta and Ramdas 2022)"
        ),
        statistic=PredictedClasses(bins),
        value=_top_label_error,
        resampling=ClassNorm("predicted", _of_rows, bins),
        most_classes=most_classes(bins),
    )


CLASS_WISE_ECE = class_wise_ece_of_bins(BINS, "class_wise_ece")
CLASS_WISE_ECE_THRESHOLDED = class_wise_ece_thresholded_of_bins(BINS, "class_wise_ece_thresholded")
TOP_LABEL_ECE = top_label_ece_of_bins(BINS, "top_label_ece")
