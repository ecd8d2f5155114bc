"""The first look at the rows: what is there, and whether it can be used at all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from calibcli.arrays import (
    LARGEST_LOGIT,
    SMALLEST_PROBABILITY,
    Array,
    InputKind,
    NumpyArray,
    are_finite_halves,
    namespace,
    pick,
    single_precision,
    to_numpy,
)
from calibcli.cell_sums import CellSums
from calibcli.engine.engine import Tile
from calibcli.engine.folds import Folds
from calibcli.value_counts import is_brief

LARGEST_LOG_PROB = 0.01
"""Rounded probabilities may be a little more than 1, and their logarithms than 0."""

TOO_LARGE: dict[str, float] = {
    "logits": np.inf,
    "log-probs": LARGEST_LOG_PROB,
    "probs": float(np.exp(LARGEST_LOG_PROB)),
}
"""By kind of scores: no row has such a score, or a greater one."""

WEIGHTS = (1e-15, 1e15)
"""Between these, powers of sums of weights neither overflow nor vanish."""


@dataclass(frozen=True)
class Survey:
    """Counts over all rows.

    Attributes
    ----------
    rows : int
    class_rows : int array (K,)
        Rows of each class; zeros where there are no labels.
    class_weights : float64 array (folds, K)
        Sum of the weights by fold of the cross-validation and class.
    impossible : bool
        Whether some logit is ``-inf``.
    zeros : int
        Stored probabilities of exactly 0.
    trouble : (int, str) or None
        The first row that can't be used, and why.
    unusable : int
        How many rows have a score or a label that can't be used.
    brief : bool
        Whether very many classes have scores of half precision, whatever they are stored in.
    """

    rows: int
    class_rows: NumpyArray
    class_weights: NumpyArray
    impossible: bool
    zeros: int
    trouble: tuple[int, str] | None
    unusable: int = 0
    brief: bool = False


class TileSurvey(NamedTuple):
    """The same of some rows, the state of a fold; of many classes few are in a tile.

    Attributes
    ----------
    class_rows : CellSums
        By class.
    class_weights : CellSums
        By fold and class.
    folds : int
    rows, impossible, zeros, trouble, unusable, brief
        As of `Survey`.
    """

    rows: int
    class_rows: CellSums
    class_weights: CellSums
    folds: int
    impossible: bool
    zeros: int
    trouble: tuple[int, str] | None
    unusable: int
    brief: bool

    def merge(self, later: TileSurvey) -> TileSurvey:
        """The survey of both parts together; takes over ``self``."""
        return TileSurvey(
            self.rows + later.rows,
            self.class_rows.plus(later.class_rows),
            self.class_weights.plus(later.class_weights),
            self.folds,
            self.impossible or later.impossible,
            self.zeros + later.zeros,
            self.trouble or later.trouble,
            self.unusable + later.unusable,
            self.brief and later.brief,
        )

    def finished(self) -> Survey:
        """The counts as arrays."""
        return Survey(
            self.rows,
            self.class_rows.everywhere().astype(np.int64),
            self.class_weights.everywhere().reshape(self.folds, -1),
            self.impossible,
            self.zeros,
            self.trouble,
            self.unusable,
            self.brief,
        )


def survey_tile(kind: InputKind, split: Folds, tile: Tile) -> TileSurvey:
    """The survey of one tile, whose logits may be of half precision."""
    brief = kind == "logits" and is_brief(tile.logits)
    ordinary = are_finite_halves(tile.logits)
    if not ordinary and tile.logits.dtype == np.float16:
        tile = replace(tile, logits=single_precision(tile.logits))
    logits = tile.logits
    xp = namespace(logits)
    # A NaN would be the least and the largest, and is in no order to anything.
    ordinary = ordinary or (
        bool(xp.min(logits) >= -LARGEST_LOGIT) and bool(xp.max(logits) <= LARGEST_LOGIT)
    )
    impossible = not ordinary and not bool(xp.all(xp.isfinite(logits)))
    zeros = 0
    if kind == "probs":
        zeros = int(xp.sum(logits <= float(np.log(1.001 * SMALLEST_PROBABILITY))))
    trouble = _bad_score(tile, kind) if not ordinary or kind != "logits" else None
    classes, folds = int(logits.shape[1]), split.count
    none = np.empty(0, np.int64)
    class_rows = CellSums.of(none, None, classes)
    class_weights = CellSums.of(none, np.empty(0), folds * classes)
    weights = np.ones(len(tile)) if tile.weights is None else to_numpy(tile.weights)
    if tile.labels is not None:
        labels = to_numpy(tile.labels)
        trouble = trouble or _bad_label(tile.start, labels, classes)
        if trouble is None:
            class_rows = CellSums.of(labels, None, classes)
            cells = split.of(tile) * classes + labels
            class_weights = CellSums.of(cells, weights, folds * classes)
            if impossible:
                trouble = _impossible_label(tile)
    if trouble is None and (wrong := bad_weight(weights)) is not None:
        trouble = tile.start + wrong[0], wrong[1]
    unusable = 0 if trouble is None else _unusable_rows(tile, kind)
    counts = (class_rows, class_weights, folds)
    return TileSurvey(len(tile), *counts, impossible, zeros, trouble, unusable, brief)


def _unusable_rows(tile: Tile, kind: InputKind) -> int:
    """How many rows have a score or a label that no row can have."""
    logits = to_numpy(tile.logits)
    if logits.dtype == np.float16:
        # The largest logit is beyond what half precision has.
        logits = single_precision(logits)
    limit = np.inf if kind == "logits" else LARGEST_LOG_PROB
    beyond = (np.abs(logits) > LARGEST_LOGIT) & np.isfinite(logits)
    wrong = (np.isnan(logits) | (logits >= limit) | beyond).any(axis=1)
    wrong |= np.all(logits == -np.inf, axis=1)
    if tile.labels is not None:
        labels = to_numpy(tile.labels)
        wrong |= (labels < 0) | (labels >= logits.shape[1])
    return int(wrong.sum())


def _first(mask: Array) -> tuple[int, int] | None:
    places = np.argwhere(to_numpy(mask))
    return (int(places[0, 0]), int(places[0, -1])) if len(places) else None


def _bad_score(tile: Tile, kind: InputKind) -> tuple[int, str] | None:
    xp = namespace(tile.logits)
    place = _first(xp.isnan(tile.logits))
    if place is not None:
        what = "is not a number between 0 and 1" if kind == "probs" else "is NaN"
        return tile.start + place[0], f"the score of class {place[1]} {what}"
    limit = np.inf if kind == "logits" else LARGEST_LOG_PROB
    place = _first(tile.logits >= limit)
    if place is not None:
        what = "+inf" if kind == "logits" else "a probability greater than 1"
        return tile.start + place[0], f"the score of class {place[1]} is {what}"
    place = _first(xp.all(tile.logits == -xp.inf, axis=-1)[:, None])
    if place is not None:
        return tile.start + place[0], "every class has the logit -inf"
    place = _first((xp.abs(tile.logits) > LARGEST_LOGIT) & xp.isfinite(tile.logits))
    if place is not None:
        what = f"is beyond {LARGEST_LOGIT:g}; a class that is impossible has -inf"
        return tile.start + place[0], f"the score of class {place[1]} {what}"
    return None


_VOID = 255
"""The label that masks have where there is none."""


def _bad_label(start: int, labels: NumpyArray, classes: int) -> tuple[int, str] | None:
    place = _first(((labels < 0) | (labels >= classes))[:, None])
    if place is None:
        return None
    label = int(labels[place[0]])
    is_none = label < 0 or label == _VOID
    hint = f" (--ignore-label {label} leaves such rows out)" if is_none else ""
    if label < 0 and len(labels) > 1 and (labels == label).all():
        # A test set whose labels are kept back; leaving them out would leave nothing.
        hint = " (are the labels hidden? calib apply needs none)"
    if label == classes:
        last = "1,2" if classes == 2 else "1,2,3" if classes == 3 else f"1,2,…,{classes}"
        hint = f" (are they counted from 1? Then say so: --classes {last})"
    return start + place[0], f"label {label} is none of the classes 0 to {classes - 1}{hint}"


def _impossible_label(tile: Tile) -> tuple[int, str] | None:
    place = _first((pick(tile.logits, tile.labels) == -np.inf)[:, None])
    if place is None:
        return None
    label = int(to_numpy(tile.labels)[place[0]])
    return tile.start + place[0], f"class {label} is the label, but its logit is -inf (impossible)"


def bad_weight(weights: NumpyArray) -> tuple[int, str] | None:
    """The first of some weights (n,) that can't be used, and why."""
    least, largest = WEIGHTS
    usable = ((weights >= least) & (weights <= largest)) | (weights == 0)
    place = _first(~usable[:, None])
    if place is None:
        return None
    weight = weights[place[0]]
    if not 0 < weight < np.inf:
        return place[0], f"the weight {weight} is not a finite number from 0 on"
    what = f"is neither 0 nor between {least:g} and {largest:g}; bring all weights to such numbers"
    return place[0], f"the weight {weight} {what}"
