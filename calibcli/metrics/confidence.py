"""The statistic behind every metric that needs the rows in order of confidence.

All of them read one `ConfidenceCurve`, whichever way it was made: of all rows, or of the cells of
a lattice. Sums over the cells are additive, so a resample needs nothing but their sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.cached import cached_property
from calibcli.metrics.corp import Decomposition, decompose
from calibcli.metrics.lattice import lattice_cells
from calibcli.metrics.view import View

ROWS = 1 << 19
"""Up to so many rows are collected; of more the sums by cell are kept."""

CURVE_CELLS = 1 << 14


class ScoredRows(NamedTuple):
    """Confidence and outcome of the rows of a block; no weights stand for weights of 1."""

    confidence: NumpyArray
    correct: NumpyArray
    weights: NumpyArray | None


class Collected(NamedTuple):
    """The rows so far, or the sums by cell of weight, weight x confidence and weight x correct."""

    rows: int
    blocks: list[ScoredRows]
    cells: NumpyArray | None = None


@dataclass(frozen=True)
class ConfidenceCurve:
    """How much weight is up to each distinct confidence, and how much of it is right.

    Rows of equal confidence stand together, so nothing depends on the order of the rows.

    Attributes
    ----------
    confidence : array (m,)
        The distinct values, ascending; of a cell the mean of its rows.
    weight, correct : array (m,)
        Weight of the rows with at most this confidence, and of those of them that are right.
    """

    confidence: NumpyArray
    weight: NumpyArray
    correct: NumpyArray

    def __len__(self) -> int:
        return len(self.confidence)

    @property
    def total(self) -> float:
        """Weight of all rows."""
        return float(self.weight[-1]) if len(self) else 0.0

    @cached_property
    def own_weight(self) -> NumpyArray:
        """Weight of the rows with just this confidence (m,)."""
        return np.diff(self.weight, prepend=0.0)

    @cached_property
    def own_correct(self) -> NumpyArray:
        """Weight of the right ones among the rows with just this confidence (m,)."""
        return np.diff(self.correct, prepend=0.0)

    @cached_property
    def excess(self) -> NumpyArray:
        """Sum of weight x (confidence - correct) of the rows with at most this confidence (m,)."""
        excess: NumpyArray = np.cumsum(self.confidence * self.own_weight) - self.correct
        return excess

    @cached_property
    def decomposition(self) -> Decomposition:
        """The CORP decomposition of the confidence's Brier score."""
        return decompose(self.confidence, self.own_correct, self.own_weight)


def curve_of_cells(
    weight: NumpyArray, confidence: NumpyArray, correct: NumpyArray
) -> ConfidenceCurve:
    """The curve of sums by cell (m,), of cells in the order of their confidence.

    Parameters
    ----------
    weight, confidence, correct : array (m,)
        Sums over the rows of each cell of weight, weight x confidence and weight x correct. Cells
        without weight are left out.
    """
    filled = weight > 0
    cell_weight = weight[filled]
    return cumulated_curve(
        confidence[filled] / cell_weight, np.cumsum(cell_weight), np.cumsum(correct[filled])
    )


def cumulated_curve(
    confidence: NumpyArray, weight: NumpyArray, correct: NumpyArray
) -> ConfidenceCurve:
    """The curve of cumulated sums (m,), without the confidences whose weight is lost in them."""
    seen = np.diff(weight, prepend=0.0) > 0
    return ConfidenceCurve(confidence[seen], weight[seen], correct[seen])


@dataclass(frozen=True)
class CollectedScores:
    """The statistic: the confidence curve, exact up to half a million rows, otherwise to the cell.

    State: `Collected`. Of each row it holds 5 bytes for float32 probabilities and 9 for float64,
    and 8 more with weights; ``finish`` needs some 60 bytes a row for a moment. From `ROWS` rows on
    it is 0.4 MB for good: sums on a lattice of 2^14 cells, 1.2e-4 wide at a confidence of 1/2 and
    ever finer towards 1. Which of the two depends on the number of rows alone, not on how they
    were cut. ``merge`` takes over its left argument.

    Parameters
    ----------
    top : bool
        Whether the confidence is that of the predicted class, whatever the event of the view.
    """

    top: bool = False

    def partial(self, view: View) -> Collected:
        """The rows of one block; those of weight 0 are absent."""
        confidence, correct = view.forecast(top=self.top)
        if view.bits <= 32:
            # Nothing is lost: these numbers were float32 before the view widened them.
            confidence = confidence.astype(np.float32)
        scores = ScoredRows(confidence, correct, None)
        if view.weighted:
            present = view.weights > 0
            scores = ScoredRows(confidence[present], correct[present], view.weights[present])
        return _bounded(Collected(len(scores.correct), [scores]))

    def merge(self, left: Collected, right: Collected) -> Collected:
        """The rows of two blocks."""
        rows = left.rows + right.rows
        if left.cells is None and right.cells is None:
            left.blocks.extend(right.blocks)
            return _bounded(Collected(rows, left.blocks))
        return Collected(rows, [], _cells(left) + _cells(right))

    def finish(self, state: Collected) -> ConfidenceCurve:
        """The cumulated sums at the ends of ties."""
        if state.cells is not None:
            return curve_of_cells(*state.cells)
        confidence = np.concatenate([scores.confidence for scores in state.blocks])
        order = np.argsort(confidence)
        confidence = confidence[order].astype(np.float64)
        correct = np.concatenate([scores.correct for scores in state.blocks])[order]
        ends = np.flatnonzero(np.append(confidence[1:] != confidence[:-1], len(confidence) > 0))
        if all(scores.weights is None for scores in state.blocks):
            return ConfidenceCurve(confidence[ends], ends + 1.0, np.cumsum(correct)[ends] * 1.0)
        weights = np.concatenate([_weights(scores) for scores in state.blocks])[order]
        right = np.cumsum(weights * correct)
        return cumulated_curve(confidence[ends], np.cumsum(weights)[ends], right[ends])


def _bounded(state: Collected) -> Collected:
    """The same rows, on the lattice if they are too many."""
    return state if state.rows <= ROWS else Collected(state.rows, [], _cells(state))


def _cells(state: Collected) -> NumpyArray:
    """Sums by cell: array (3, CURVE_CELLS)."""
    sums = np.zeros((3, CURVE_CELLS)) if state.cells is None else state.cells
    for scores in state.blocks:
        cells, weights = lattice_cells(scores.confidence, CURVE_CELLS), _weights(scores)
        for i, values in enumerate((1.0, scores.confidence, scores.correct)):
            sums[i] += np.bincount(cells, weights * values, minlength=CURVE_CELLS)
    return sums


def _weights(scores: ScoredRows) -> NumpyArray:
    return np.ones(len(scores.correct)) if scores.weights is None else scores.weights


COLLECTED_SCORES, COLLECTED_TOP_SCORES = CollectedScores(), CollectedScores(top=True)
