"""Class-wise ECE: the binned calibration error of every class's probability.

References
----------
Kull, Perello-Nieto, Kängsepp et al. (2019), Beyond temperature scaling, arXiv:1910.12656
(classwise ECE); Nixon et al. (2019), Measuring Calibration in Deep Learning, arXiv:1904.01685
(static calibration error).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from array_api_compat import is_numpy_array

from calibcli.arrays import Array, NumpyArray, namespace, to_numpy
from calibcli.metrics.base import Metric
from calibcli.metrics.binned import BINS, EDGES, bin_index
from calibcli.metrics.lattice import CellSums
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
        return ratio(np.abs(excess).sum(), state.weight * len(excess))


THRESHOLD = 0.01
"""Probabilities up to this count for nothing in the thresholded error."""


class ExcessAbove(NamedTuple):
    """Of the probabilities above the threshold: weight by class (K,), and excess by class and bin.

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
        found = state.weight > 0
        gaps = np.abs(state.cells.everywhere().reshape(-1, BINS)).sum(axis=1)
        return ratio((gaps[found] / state.weight[found]).sum(), float(found.sum()))


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
    (found,) = xp.nonzero(flat > _largest_below_edge(probs, threshold))
    values = to_numpy(xp.take(flat, found)).astype(np.float64)
    index, length = to_numpy(found), probs.shape[0 if turned else 1]
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


CLASS_WISE_ECE = Metric(
    name="class_wise_ece",
    title="class-wise ECE",
    convention=(
        "for every class the ECE of its probability over 15 equal-width bins (lower, upper], "
        "probabilities of 0 in no bin; mean (not sum) over all classes"
    ),
    statistic=ClassWiseExcess(),
    value=float,
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
)
