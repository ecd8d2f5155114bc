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

from calibcli.arrays import Array, namespace, to_numpy
from calibcli.metrics.base import Metric, Vector, View
from calibcli.metrics.binned import BINS, EDGES, bin_index
from calibcli.metrics.row_mean import ratio


class Excess(NamedTuple):
    """Sums of weight x (p_k - [y = k]) by class k and bin of p_k.

    Attributes
    ----------
    weight : float
        Weight of all rows.
    first_bin : array (K,)
        The probabilities' part of the first bin: of weight x p_k where p_k <= 1/15.
    codes : int array (m,) or None
        Which cells ``sums`` is about, 15 k + bin, with repetitions; None: all 15 K, in order.
    sums : array (m,) or (15 K,)
        Everything else: the probabilities' part of the other bins, and the labels' part of all.
    """

    weight: float
    first_bin: Vector
    codes: Vector | None
    sums: Vector


@dataclass(frozen=True)
class ClassWiseExcess:
    """The statistic: by class and bin, how much probability there is in excess of labels.

    Nearly all of a row's probabilities are in the first bin, and a row has at most 14 outside of
    it. So the first bin is found by subtraction from the sum of all, and the state of a block of
    many classes lists the few other cells that it touches. ``merge`` takes over its left argument.
    """

    def partial(self, view: View) -> Excess:
        """The sums over one block."""
        size = BINS * view.classes
        rows, columns, values = _beyond_first_bin(view.probs)
        mass = view.weights[rows] * values if view.weighted else values
        cells = columns * BINS + bin_index(values)
        true_bins = bin_index(view.true_prob)
        possible = true_bins >= 0
        true_cells = (view.labels * BINS + true_bins)[possible]
        true_mass = view.weights[possible]

        codes: Vector | None
        if len(cells) + len(true_cells) < size:
            codes, sums = np.append(cells, true_cells), np.append(mass, -true_mass)
            beyond = np.bincount(columns, mass, minlength=view.classes)
        else:
            sums = np.bincount(cells, mass, minlength=size)
            beyond = sums.reshape(-1, BINS).sum(axis=1)
            codes, sums = None, sums - np.bincount(true_cells, true_mass, minlength=size)
        return Excess(view.total_weight, _column_sums(view) - beyond, codes, sums)

    def merge(self, left: Excess, right: Excess) -> Excess:
        """The sums over two blocks."""
        sums = _all_cells(left)
        if right.codes is None:
            sums += right.sums
        else:
            np.add.at(sums, right.codes, right.sums)
        first_bin = left.first_bin
        first_bin += right.first_bin
        return Excess(left.weight + right.weight, first_bin, None, sums)

    def finish(self, state: Excess) -> float:
        """The error: mean over classes; NaN without rows."""
        excess = _all_cells(state).reshape(-1, BINS).copy()
        excess[:, 0] += state.first_bin
        return ratio(np.abs(excess).sum(), state.weight * len(excess))


def _all_cells(state: Excess) -> Vector:
    if state.codes is None:
        return state.sums
    cells = np.bincount(state.codes, state.sums, minlength=BINS * len(state.first_bin))
    # Counting nothing gives integers.
    return cells.astype(np.float64, copy=False)


def _column_sums(view: View) -> Vector:
    """Sum over rows of weight x probability (K,), float64, without a look at the bins."""
    probs = view.probs
    xp = namespace(probs)
    if view.weighted:
        weights = xp.asarray(view.weights, dtype=probs.dtype, device=getattr(probs, "device", None))
        probs = probs * weights[:, None]
    return to_numpy(xp.sum(probs, axis=0)).astype(np.float64)


def _beyond_first_bin(probs: Array) -> tuple[Vector, Vector, Vector]:
    """Row, class and value (float64) of every probability above 1/15, as host vectors."""
    xp = namespace(probs)
    turned = is_numpy_array(probs) and probs.flags.f_contiguous
    # One axis in the order of memory: NumPy finds the true ones of a vector fastest.
    flat = xp.reshape(probs.T if turned else probs, (-1,))
    (found,) = xp.nonzero(flat > _largest_below_edge(probs, float(EDGES[1])))
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
