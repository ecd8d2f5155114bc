"""Fitting one-vs-rest curves: for each class its scores, sorted, and how often it came with each.

A pass over the data collects the scores of as many classes as there is room for; the rows are
thinned out evenly where that would take many passes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from calibcli.arrays import NumpyArray, host_weights, namespace, to_numpy
from calibcli.calibrators.curves import BinarySample, Curve, CurveMap, log_odds
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.fitting.results import StageFit

_MOST_PASSES = 8
"""Rows are thinned out where their scores would take more passes than this."""

_MOST_TOGETHER, _SHARES = 64, 4
"""Classes that a thread takes at a time, so few that an interrupt need not wait; and shares of all
that each thread gets, if there are fewer."""

_FEW_ROWS = 1 << 12
"""Up to so many rows, classes that came in none of them are sorted and fitted together."""

_BYTES_PER_SCORE = 8
_SCORES_BESIDE, _SCORES_PER_SORT = 2, 6
"""Memory that a row takes besides its scores, and while those of a class are sorted, in scores."""


@dataclass(frozen=True, eq=False)
class _Columns:
    """Log-odds (C, m) of some classes, labels (m,) and weights (m,) of the rows of a tile."""

    scores: NumpyArray
    labels: NumpyArray
    weights: NumpyArray


def fit_curves(data: Data, family: CurveMap) -> StageFit:
    """Fit the curve of every class; of two classes, that of class 1."""
    events = [1] if data.classes == 2 else list(range(data.classes))
    share = _share_out(data, len(events))
    curves: list[Curve] = []
    passes = 0
    for begin in range(0, len(events), share.classes):
        group = events[begin : begin + share.classes]
        parts = data.fold(partial(_columns, group, share.step), operator.add)
        labels = np.concatenate([part.labels for part in parts])
        weights = np.concatenate([part.weights for part in parts])
        fit_one = partial(_fit_event, family, 1 / data.classes, parts, labels, weights, group)
        fit_several = partial(_fit_several, family, fit_one, parts, labels, weights, group)
        curves += _on_threads(fit_several, len(group), share.threads)
        passes += 1
    note = f"{family.name}: fitted to one row in {share.step}, as more do not fit into --memory"
    notes = (note,) if share.step > 1 else ()
    return StageFit(family.calibrator(curves), passes=passes, notes=notes)


@dataclass(frozen=True)
class _Share:
    """What a pass takes: so many classes, every so many-th row, and threads that sort."""

    classes: int
    step: int
    threads: int


def _share_out(data: Data, events: int) -> _Share:
    """What half of the room allows a pass to take; it depends on nothing but the room."""
    scores = data.engine.room // 2 // _BYTES_PER_SCORE
    least = math.ceil(events / _MOST_PASSES)
    step = max(math.ceil(data.rows * (least + _SCORES_BESIDE + _SCORES_PER_SORT) / scores), 1)
    a_row = scores // math.ceil(max(data.rows, 1) / step) - _SCORES_BESIDE
    threads = max(min(data.engine.thread_count, events, (a_row - least) // _SCORES_PER_SORT), 1)
    classes = min(max(a_row - threads * _SCORES_PER_SORT, least), events)
    return _Share(classes, step, threads)


def _columns(group: Sequence[int], step: int, tile: Tile) -> list[_Columns]:
    """The scores of neighbouring classes, of every so many-th row by its number."""
    xp = namespace(tile.logits)
    scores = log_odds(tile.logits)
    if scores.shape[1] > 1:
        scores = scores[:, group[0] : group[-1] + 1]
    columns = to_numpy(xp.permute_dims(scores, (1, 0)))
    labels = to_numpy(tile.labels)
    weights = host_weights(labels, tile.weights)
    kept = weights > 0
    if step > 1:
        kept &= np.arange(tile.start, tile.start + len(kept)) % step == 0
    if kept.all():
        return [_Columns(np.ascontiguousarray(columns), labels, weights)]
    return [_Columns(columns[:, kept], labels[kept], weights[kept])]


def _on_threads(
    fit_several: Callable[[Sequence[int]], list[Curve]], count: int, workers: int
) -> Iterator[Curve]:
    # Handing a class to a thread takes longer than the fit of a few rows.
    together = max(1, min(_MOST_TOGETHER, count // (_SHARES * workers)))
    groups = [range(count)[begin : begin + together] for begin in range(0, count, together)]
    if min(count, workers) == 1:
        for group in groups:
            yield from fit_several(group)
        return
    with ThreadPoolExecutor(workers, "calib-curves") as pool:
        for curves in pool.map(fit_several, groups):
            yield from curves


def _fit_several(
    family: CurveMap,
    fit_one: Callable[[int], Curve],
    parts: Sequence[_Columns],
    labels: NumpyArray,
    weights: NumpyArray,
    group: Sequence[int],
    places: Sequence[int],
) -> list[Curve]:
    """The curves of neighbouring classes; those that came in no row are fitted together."""
    if len(places) == 1 or len(labels) > _FEW_ROWS or (weights != 1).any():
        return [fit_one(place) for place in places]
    curves: dict[int, Curve] = {}
    absent = np.array(places)[~np.isin([group[place] for place in places], labels)]
    if len(absent):
        scores = np.sort(np.concatenate([part.scores[absent] for part in parts], axis=1), axis=1)
        usual = np.isfinite(scores).all(axis=1) & (scores[:, 1:] > scores[:, :-1]).all(axis=1)
        fitted = family.fit_absent(scores[usual]) if usual.any() else None
        curves = dict(zip(absent[usual].tolist(), fitted or (), strict=fitted is not None))
    return [curves[place] if place in curves else fit_one(place) for place in places]


def _fit_event(
    family: CurveMap,
    share: float,
    parts: Sequence[_Columns],
    labels: NumpyArray,
    weights: NumpyArray,
    group: Sequence[int],
    place: int,
) -> Curve:
    """The curve of one class; a constant share where no row tells anything about it."""
    scores = np.concatenate([part.scores[place] for part in parts])
    positive = labels == group[place]
    known = np.isfinite(scores)
    if not known.all():
        # Where a class or all others are impossible, there is nothing to learn.
        scores, positive, weights = scores[known], positive[known], weights[known]
    if not len(scores):
        return family.constant(share)
    return family.fit(pool_scores(scores, positive, weights))


def pool_scores(scores: NumpyArray, positive: NumpyArray, weights: NumpyArray) -> BinarySample:
    """A sample in which rows with the same score are one.

    Parameters
    ----------
    scores : float array (n,)
        At least one, finite.
    positive : bool array (n,)
        Whether the event came.
    weights : float64 array (n,)
        Greater than 0.
    """
    if (weights == 1).all():
        # Sorting numbers takes a third of the time that sorting places takes.
        ordered = np.sort(scores)
        first = _changes(ordered)
        distinct = ordered[first]
        places = np.searchsorted(distinct, scores[positive])
        positives = np.bincount(places, minlength=len(distinct)).astype(np.float64)
        total = np.diff(first, append=len(ordered)).astype(np.float64)
        return BinarySample(distinct.astype(np.float64), positives, total)
    order = np.argsort(scores, kind="stable")
    ordered, weights = scores[order], weights[order]
    first = _changes(ordered)
    return BinarySample(
        ordered[first].astype(np.float64),
        np.add.reduceat(np.where(positive[order], weights, 0.0), first),
        np.add.reduceat(weights, first),
    )


def _changes(ordered: NumpyArray) -> NumpyArray:
    """Where in a sorted row another value begins."""
    return np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
