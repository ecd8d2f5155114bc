"""The CORP decomposition: of the confidence's Brier score, and of every class's.

The three parts add up to the score: miscalibration - discrimination + uncertainty.

>>> import numpy as np
>>> logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.6, 0.4]])
>>> labels = np.array([0, 1, 0, 0])
>>> [round(part.measure(logits, labels), 6) for part in CORP_TOP]
[0.08, 0.0, 0.1875]
>>> [round(part.measure(logits, labels), 6) for part in CORP_CLASS_WISE]
[0.08, 0.0, 0.1875]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import is_numpy_array

from calibcli.arrays import NumpyArray, namespace, pick, to_numpy
from calibcli.cell_sums import CellSums
from calibcli.metrics.base import SHARE, Better, Metric, Resampling, Statistic
from calibcli.metrics.confidence import COLLECTED_TOP_SCORES, ConfidenceCurve
from calibcli.metrics.confidence_cells import CurveDistance, CurveValue
from calibcli.metrics.corp import Decomposition, isotonic, sum_of_scores
from calibcli.metrics.lattice import lattice_cells
from calibcli.metrics.view import View

PROBABILITIES = 1 << 20
"""Up to so many are collected; of more the sums by cell are kept."""

_CELLS = 1 << 18
"""Cells of all classes together, as far as `_MOST_CELLS` and `_FEWEST_CELLS` allow."""

_MOST_CELLS, _FEWEST_CELLS = 1 << 12, 1 << 5


def cells_per_class(classes: int) -> int:
    """Cells of each class's lattice, a power of 2: 4096 for up to 64 classes, 256 for 1000."""
    share = 1 << max(_CELLS // classes, 1).bit_length() - 1
    return min(max(share, _FEWEST_CELLS), _MOST_CELLS)


class Rows(NamedTuple):
    """The rows of a block: probabilities (n, K), labels (n,), weights (n,)."""

    probs: NumpyArray
    labels: NumpyArray
    weights: NumpyArray


class ScoresByClassState(NamedTuple):
    """Sums over the rows, and the rows themselves while they are few.

    Attributes
    ----------
    classes, probabilities : int
        Number of classes, and of rows times classes.
    weight, squared_error : float
        Sums of weight, and of weight x the squared error of all classes.
    within, events : CellSums
        Weight of the rows by class and cell of its probability, and of those with its label.
    rows : list of Rows or None
        None where they were too many.
    """

    classes: int
    probabilities: int
    weight: float
    squared_error: float
    within: CellSums
    events: CellSums
    rows: list[Rows] | None


class ProbabilityGroups(NamedTuple):
    """Sums (m,) by class and, within it, ascending probability: weight of rows and of events."""

    classes: NumpyArray
    weights: NumpyArray
    events: NumpyArray


@dataclass(frozen=True)
class ScoresByClass:
    """The statistic: the decomposition of each class's Brier score, mean over classes.

    The score itself and the uncertainty are exact. The score after isotonic regression is so up to
    a million probabilities, which are collected. Of more it is that of probabilities on a lattice
    (`lattice_cells`), larger by some 1e-4 of itself. The state then has 16 bytes a cell, of which
    there are up to 2^18, or 32 of each class if those are more.
    ``merge`` takes over its left argument.
    """

    def partial(self, view: View) -> ScoresByClassState:
        count = len(view) * view.classes
        rows = None
        if count <= PROBABILITIES:
            rows = [Rows(to_numpy(view.probs), view.labels, view.weights)]
        return ScoresByClassState(
            view.classes,
            count,
            view.total_weight,
            float((view.weights * view.squared_error).sum()),
            *_by_cell(view),
            rows,
        )

    def merge(self, left: ScoresByClassState, right: ScoresByClassState) -> ScoresByClassState:
        count, rows = left.probabilities + right.probabilities, left.rows
        if rows is None or right.rows is None or count > PROBABILITIES:
            rows = None
        else:
            rows.extend(right.rows)
        return ScoresByClassState(
            left.classes,
            count,
            left.weight + right.weight,
            left.squared_error + right.squared_error,
            left.within.plus(right.within),
            left.events.plus(right.events),
            rows,
        )

    def finish(self, state: ScoresByClassState) -> Decomposition:
        """The parts; NaN without rows."""
        if not state.weight:
            return Decomposition(math.nan, math.nan, math.nan)
        groups = _groups_of_cells(state) if state.rows is None else _groups_of_rows(state.rows)
        scale = state.classes * state.weight
        rate = np.bincount(groups.classes, groups.events, state.classes) / state.weight
        # All classes are one sequence, each of them above the one before: none is pooled with it.
        lift = 2.0 * groups.classes
        lifted = isotonic(groups.events + lift * groups.weights, groups.weights)
        return Decomposition(
            max(state.squared_error, 0.0) / scale,
            sum_of_scores(lifted - lift, groups.weights) / scale,
            float((rate * (1 - rate)).mean()),
        )


def _by_cell(view: View) -> tuple[CellSums, CellSums]:
    """Weight of all rows, and of those with the label, by class and cell."""
    probs = view.probs
    xp = namespace(probs)
    each = cells_per_class(view.classes)
    size = each * view.classes
    cells = lattice_cells(probs, each)
    device = getattr(probs, "device", None)
    cells = cells + xp.arange(view.classes, dtype=cells.dtype, device=device) * each
    label_cells = to_numpy(pick(cells, view.device_labels))
    events = CellSums.of(label_cells, view.weights, size)
    if not (is_numpy_array(cells) or view.weighted):
        # Counted on the device, where integers add up to the same in any order.
        counts = xp.bincount(xp.reshape(cells, (-1,)), minlength=size)
        return CellSums(size, (), to_numpy(counts).astype(np.float64)), events
    turned = is_numpy_array(probs) and probs.flags.f_contiguous
    codes = to_numpy(cells.T if turned else cells)
    weights = None
    if view.weighted:
        spread = view.weights[None, :] if turned else view.weights[:, None]
        weights = np.broadcast_to(spread, codes.shape).ravel()
    return CellSums.of(codes.ravel(), weights, size), events


def _groups_of_cells(state: ScoresByClassState) -> ProbabilityGroups:
    weights, events = state.within.everywhere(), state.events.everywhere()
    (filled,) = np.nonzero(weights)
    return ProbabilityGroups(
        filled // cells_per_class(state.classes), weights[filled], events[filled]
    )


def _groups_of_rows(rows: list[Rows]) -> ProbabilityGroups:
    """Rows of equal probability of a class are a group."""
    probs = np.concatenate([block.probs for block in rows])
    labels = np.concatenate([block.labels for block in rows])
    weights = np.concatenate([block.weights for block in rows])
    present = weights > 0
    by_class = np.ascontiguousarray(probs[present].T)
    order = np.argsort(by_class, axis=1)
    ordered = np.take_along_axis(by_class, order, axis=1)
    first = np.ones(ordered.shape, dtype=bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = np.flatnonzero(first)
    ordered_weights = weights[present][order]
    events = ordered_weights * (labels[present][order] == np.arange(len(order))[:, None])
    classes = starts // order.shape[1]
    return ProbabilityGroups(
        classes, *(np.add.reduceat(v.ravel(), starts) for v in (ordered_weights, events))
    )


SCORES_BY_CLASS = ScoresByClass()


_MEANING: dict[str, tuple[Better, str]] = {
    "miscalibration": ("lower", "what monotone recalibration would gain"),
    "discrimination": ("higher", "what recalibrated probabilities gain on the base rate"),
    "uncertainty": ("", "the score of the base rate, whatever the model"),
}


@dataclass(frozen=True)
class _Part:
    """One part of a decomposition that is read off a finished statistic."""

    part: str
    decomposition: Callable[[Any], Decomposition]

    def __call__(self, finished: Any) -> float:
        return float(getattr(self.decomposition(finished), self.part))


def _metrics(
    name: str,
    title: str,
    score: str,
    statistic: Statistic,
    read: Callable[[Any], Decomposition],
    resampling: Mapping[str, Resampling],
) -> tuple[Metric, ...]:
    return tuple(
        Metric(
            range=SHARE,
            name=f"{name}_{part}",
            title=f"{title} {part}",
            convention=f"{meaning}: of {score}, by isotonic regression (CORP)",
            statistic=statistic,
            value=_Part(part, read),
            better=better,
            group="decomposition",
            resampling=resampling.get(part),
        )
        for part, (better, meaning) in _MEANING.items()
    )


def _of_curve(curve: ConfidenceCurve) -> Decomposition:
    return curve.decomposition


def _itself(decomposition: Decomposition) -> Decomposition:
    return decomposition


CORP_TOP_MISCALIBRATION, CORP_TOP_DISCRIMINATION, CORP_TOP_UNCERTAINTY = CORP_TOP = _metrics(
    "corp_top",
    "top-label",
    "the mean of (largest probability - correct)^2",
    COLLECTED_TOP_SCORES,
    _of_curve,
    {
        "miscalibration": CurveDistance(top=True),
        # Isotonic fits to resampled rows find more than there is.
        "discrimination": CurveValue(reflected=True, top=True),
        "uncertainty": CurveValue(top=True),
    },
)

(
    CORP_CLASS_WISE_MISCALIBRATION,
    CORP_CLASS_WISE_DISCRIMINATION,
    CORP_CLASS_WISE_UNCERTAINTY,
) = CORP_CLASS_WISE = _metrics(
    "corp_class_wise",
    "class-wise",
    "the mean over classes of (p_k - [y = k])^2, for two classes that of class 1",
    SCORES_BY_CLASS,
    _itself,
    {},
)
