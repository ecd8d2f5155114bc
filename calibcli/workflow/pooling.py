"""Maps of their own for groups of rows, drawn towards the map of all rows as far as that helps.

Partial pooling by an empirical choice of its strength (Gelman and Hill, 2007, chapter 12): group g
with n_g rows has the share ``n_g / (n_g + m)`` of its own map, and m is chosen by held-out NLL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    host_weights,
    log_softmax,
    namespace,
    pick,
    restore_impossible,
    split_impossible,
    to_numpy,
)
from calibcli.calibrators.base import GROUP
from calibcli.calibrators.groups import MOST_GROUPS, Groups, Stages, interpolated, rows_by_group
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.engine.folds import Folds
from calibcli.engine.source import ArraySource, each_key, join
from calibcli.errors import UsageError
from calibcli.fitting.results import NOTHING_TO_FIT, Fit, StageFit
from calibcli.fitting.scale import SMALLEST_LOSS
from calibcli.fitting.stages import fit_stages
from calibcli.workflow.fitted_plans import FittedPlan, Trial, fit_plan, trial_of
from calibcli.workflow.measuring import Predictor
from calibcli.workflow.plans import Plan

_THINNING_SEED = 104_729


@dataclass(frozen=True)
class GroupRows:
    """The rows of a group.

    Parameters
    ----------
    number : int
        Of the group.
    data : Data
        That they are of.
    source : ArraySource
        Where they are.
    places : int array (n,)
        Where they are in it.
    fold : int array (n,)
        The fold of each.
    """

    number: int
    data: Data
    source: ArraySource
    places: NumpyArray
    fold: NumpyArray

    def chosen(self, without: int | None = None) -> Data:
        """Data of them alone, or of those that are not in a fold."""
        rows = self.places if without is None else self.places[self.fold != without]
        source = self.source
        assert source.labels is not None
        labels = source.labels[rows]
        weights = None if source.weights is None else source.weights[rows]
        keys = each_key(source.keys, itemgetter(rows))
        group_source = replace(
            source, scores=source.scores[rows], labels=labels, weights=weights, keys=keys
        )
        classes, plain = self.data.classes, None if weights is None else to_numpy(weights)
        class_rows = np.bincount(to_numpy(labels), minlength=classes)
        by_class = np.bincount(to_numpy(labels), plain, classes)[None].astype(np.float64)
        survey = replace(
            self.data.survey, rows=len(rows), class_rows=class_rows, class_weights=by_class
        )
        return self.data.of_others(group_source, survey, Folds(1, self.data.seed))


def numbers_of(tile: Tile) -> NumpyArray:
    """The numbers of the groups of a tile's rows (n,)."""
    assert tile.keys is not None
    return tile.keys[GROUP]


def each_group(data: Data, groups: int) -> Iterator[GroupRows]:
    """The rows of each group that has any.

    Streamed data is read once for as many groups as fit into memory. A group that does not fit
    by itself is thinned, which leaves more rows than most maps need.
    """
    if isinstance(data.source, ArraySource):
        assert data.source.keys is not None
        yield from _split(data, data.source, np.arange(data.rows), groups)
        return
    counts = data.fold(partial(_row_counts, groups), np.add)
    row_bytes = data.source.columns * max(data.source.dtype.itemsize, 4)
    most = max(data.engine.room // 4 // row_bytes, 1)
    for batch in _batches(counts, most):
        source, row_numbers = _gathered(data, batch, -(-int(counts[batch].sum()) // most))
        yield from _split(data, source, row_numbers, groups)


def _split(
    data: Data, source: ArraySource, row_numbers: NumpyArray, groups: int
) -> Iterator[GroupRows]:
    if not len(row_numbers):
        return
    assert source.keys is not None
    fold = data.split.at(row_numbers, source.keys)
    for number, places in rows_by_group(source.keys[GROUP], groups):
        yield GroupRows(number, data, source, places, fold[places])


def _row_counts(groups: int, tile: Tile) -> NumpyArray:
    return np.bincount(numbers_of(tile), minlength=groups)


def _batches(counts: NumpyArray, most: int) -> Iterator[list[int]]:
    """Groups whose rows together are at most so many, or one that has more."""
    batch: list[int] = []
    for number in np.flatnonzero(counts).tolist():
        if batch and counts[[*batch, number]].sum() > most:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _gathered(data: Data, batch: list[int], step: int) -> tuple[ArraySource, NumpyArray]:
    """Every so many-th of the rows of some groups, and their numbers."""
    parts, row_numbers, thinning = [], [], Folds(step, data.seed + _THINNING_SEED)
    for chunk in data.source.chunks(data.engine.chunk_rows(data.source)):
        assert chunk.keys is not None
        keep = np.isin(chunk.keys[GROUP], batch)
        if step > 1:
            keep &= thinning.of(chunk) == 0
        rows = np.flatnonzero(keep)
        parts.append(chunk.picked(rows))
        row_numbers.append(chunk.start + rows)
    return ArraySource.of(join(parts), data.source), np.concatenate(row_numbers)


STRENGTHS = (np.inf, 1e5, 3e4, 1e4, 3e3, 1e3, 300.0, 100.0, 30.0, 10.0, 0.0)
"""Rows that the map of all rows counts for in every group; from no own maps to nothing but them."""

FEWEST_ROWS = 20
"""Groups with fewer rows have no map of their own."""

_MUCH_WORSE = 0.5
"""In NLL of held-out rows, by its own map alone: such a group has none."""


@dataclass(frozen=True)
class GroupedFit:
    """Maps of all groups.

    Attributes
    ----------
    fit : Fit
        Of all rows, with the maps of the groups in it.
    groups : Groups
        These maps.
    by_fold : tuple of tuple of Calibrator
        Stages fitted without each fold, the strength judged by the others.
    strength : float
        The rows that the map of all rows counts for in every group.
    losses : dict of float to float
        Held-out NLL by strength.
    """

    fit: Fit
    groups: Groups
    by_fold: tuple[Stages, ...]
    strength: float
    losses: dict[float, float]

    @property
    def note(self) -> str:
        """What was chosen, for a person."""
        count, column = len(self.groups.names), self.groups.column
        pooled, best = self.losses[np.inf], self.losses[self.strength]
        if np.isinf(self.strength):
            return (
                f"the {count} groups of {column!r} keep the map of all rows: held-out NLL "
                f"{pooled:.4f}, which maps of their own do not lower"
            )
        share = f" with a share of n / (n + {self.strength:g}) at n rows" if self.strength else ""
        own = np.count_nonzero(self.groups.weights)
        return (
            f"{own} of {count} groups of {column!r} have a map of their own{share}: held-out NLL "
            f"{best:.4f}, with one map for all {pooled:.4f}"
        )


def try_groups(data: Data, plan: Plan) -> Trial:
    """A plan fitted to the rows of every group, to all of them and without each fold."""
    fitted = fit_plan(plan.rows_of(data), plan)
    grouped = fit_groups(fitted)
    trial = trial_of(fitted)
    parameters = trial.parameters * max(len(grouped.groups.names), 1)
    return replace(trial, fit=grouped.fit, by_fold=grouped.by_fold, parameters=parameters)


def fit_groups(fitted: FittedPlan) -> GroupedFit:
    """Fit every group by itself, with and without each fold, and choose how much of it to take.

    Parameters
    ----------
    fitted : FittedPlan
        The fit of all rows, which have keys of the role `GROUP`.

    Raises
    ------
    UsageError
        More than `MOST_GROUPS` groups, or no folds to choose by.
    """
    plan, data = fitted.plan, fitted.rows
    names = data.key_names(GROUP)
    column = plan.by or ""
    if len(names) > MOST_GROUPS:
        raise UsageError(f"--by {column}: {len(names):,} groups are too many for maps of their own")
    if data.folds < 2:
        raise UsageError("--by needs at least 2 folds: by them is chosen how much is pooled")
    fits = [fitted.fit, *fitted.without_folds]
    maps = [
        Groups(column, names, plan.linked(fit).calibrators, own, _fitted(own))
        for fit, own in zip(fits, _fit_each(data, plan, fits, len(names)), strict=True)
    ]
    counts = _counts(data, len(names))
    # Row 0 is of all rows, row 1 + f of those that are not in fold f.
    rows = np.concatenate([[counts.sum(axis=0)], counts.sum(axis=0) - counts])
    work = partial(_losses, tuple(maps[1:]), rows[1:], data.split)
    losses, useless = _usable(data.fold(work, np.add), rows[0])
    total = losses.sum(axis=0)
    best = [STRENGTHS[int(place)] for place in (total.argmin(), *(total - losses).argmin(axis=1))]
    if not plan.pooled:
        best = [0.0] * len(best)
    first, *others = (
        _drawn(groups, np.where(useless, 0.0, _shares(n, strength)))
        for groups, n, strength in zip(maps, rows, best, strict=True)
    )
    means = dict(zip(STRENGTHS, (total / data.weight).tolist(), strict=True))
    fit = plan.restored(plan.linked(fitted.fit).as_one(first))
    by_fold = tuple(plan.restored(Fit((StageFit(groups),))).calibrators for groups in others)
    return GroupedFit(fit, first, by_fold, best[0], means)


def _usable(losses: NumpyArray, weight: NumpyArray) -> tuple[NumpyArray, NumpyArray]:
    """Losses by fold and strength (F, S), and the groups (G,) whose own maps are none to use.

    Such a map, of rows that can be separated for example, would spoil the choice for all others.
    """
    pooled, own = losses[..., 0].sum(axis=0), losses[..., -1].sum(axis=0)
    with np.errstate(invalid="ignore"):
        useless = own - pooled > _MUCH_WORSE * weight
    losses = np.where(useless[:, None], losses[..., :1], losses)
    return losses.sum(axis=1), useless


def _drawn(groups: Groups, shares: NumpyArray) -> Groups:
    """The groups with their weights; maps that have none are left out."""
    weights = groups.weights * shares
    own = tuple(s if w > 0 else () for s, w in zip(groups.own, weights, strict=True))
    return replace(groups, own=own, weights=weights)


def _shares(rows: NumpyArray, strength: float) -> NumpyArray:
    """What the own maps of groups with so many rows (G,) count."""
    if np.isinf(strength):
        return np.zeros(len(rows))
    shares: NumpyArray = rows / np.maximum(rows + strength, 1e-300)
    return shares


def _fitted(own: Sequence[Stages]) -> NumpyArray:
    return np.array([float(bool(stages)) for stages in own])


def _counts(data: Data, groups: int) -> NumpyArray:
    """Weight of the rows of each fold and group (F, G)."""
    counts: NumpyArray = data.fold(partial(_count, data.split, groups), np.add)
    return counts


def _count(split: Folds, groups: int, tile: Tile) -> NumpyArray:
    weights = None if tile.weights is None else to_numpy(tile.weights)
    cells = np.bincount(split.of(tile) * groups + numbers_of(tile), weights, split.count * groups)
    return cells.reshape(split.count, groups).astype(np.float64)


def _losses(maps: tuple[Groups, ...], rows: NumpyArray, split: Folds, tile: Tile) -> NumpyArray:
    """Sum of the losses of held-out rows by fold, group and strength (F, G, S)."""
    losses = np.zeros((len(maps), rows.shape[1], len(STRENGTHS)))
    fold = split.of(tile)
    for position, groups in enumerate(maps):
        inside = np.flatnonzero(fold == position)
        if not len(inside):
            continue
        numbers = numbers_of(tile)[inside]
        logits, impossible = split_impossible(tile.logits[inside])
        pooled, own = groups.transform(logits), groups.for_groups(numbers).transform(logits)
        labels = tile.labels[inside] if tile.labels is not None else None
        weights = 1.0 if tile.weights is None else to_numpy(tile.weights)[inside]
        for place, strength in enumerate(STRENGTHS):
            shares = _shares(rows[position], strength)[numbers]
            share = namespace(logits).asarray(shares, dtype=logits.dtype, device=logits.device)
            mixed = interpolated(pooled, own, share[:, None])
            loss = weights * row_losses(restore_impossible(mixed, impossible), labels)
            losses[position, :, place] = np.bincount(numbers, loss, rows.shape[1])
    return losses


def row_losses(logits: Array, labels: Array) -> NumpyArray:
    """``-ln p`` of the label of each row (n,), in float64."""
    losses: NumpyArray = -to_numpy(pick(log_softmax(logits), labels)).astype(np.float64)
    return losses


def _fit_each(data: Data, plan: Plan, fits: Sequence[Fit], groups: int) -> list[tuple[Stages, ...]]:
    """The maps of every group for each of the fits of all rows: the whole, then the folds."""
    own: list[list[Stages]] = [[()] * groups for _ in fits]
    for group in each_group(data, groups):
        for position, fit in enumerate(fits):
            rows = group.chosen(None if position == 0 else position - 1)
            start = fit if plan.pooled else None
            own[position][group.number] = _fit_one(rows, plan, start)
    return [tuple(stages) for stages in own]


def _fit_one(data: Data, plan: Plan, start: Fit | None) -> Stages:
    """The map of a group; none where it can't be fitted, so that it is mapped as all rows are."""
    if data.rows < FEWEST_ROWS or data.weight <= 0:
        return ()
    fit = fit_stages(data, plan.families, plan.objective, start)
    solutions = [stage.solution for stage in fit.stages if stage.solution is not None]
    nothing = any(s.criterion in NOTHING_TO_FIT or s.value <= SMALLEST_LOSS for s in solutions)
    return () if nothing or not fit.converged else plan.linked(fit).calibrators


@dataclass(frozen=True)
class GroupScore:
    """What the map of a group is worth.

    Attributes
    ----------
    name : str
    rows : int
    share : float
        What its own map counts in its map, from 0 to 1.
    before, after : float
        NLL of its rows, which the fit has not seen.
    learnt : str
        Its own map in words; empty where it has none.
    """

    name: str
    rows: int
    share: float
    before: float
    after: float
    learnt: str = ""


@dataclass(frozen=True)
class GroupReport:
    """How far groups have maps of their own, and what these are worth.

    Attributes
    ----------
    column : str
    strength : float
        The rows that the map of all rows counts for in every group.
    losses : dict of float to float
        Held-out NLL by strength.
    scores : tuple of GroupScore
        Of the groups that have rows, those with the largest NLL after the fit first.
    pooled : str
        The map of all rows in words.
    """

    column: str
    strength: float
    losses: dict[float, float]
    scores: tuple[GroupScore, ...]
    pooled: str = ""


def report_groups(data: Data, predictors: Sequence[Predictor], grouped: GroupedFit) -> GroupReport:
    """The groups of a fit, measured before and after it.

    Parameters
    ----------
    data : Data
        The rows to measure on; they may be of groups that the fit did not know.
    predictors : sequence of Predictor
        Before and after.
    grouped : GroupedFit
    """
    names, groups = data.key_names(GROUP), grouped.groups
    shares = dict(zip(groups.names, groups.weights.tolist(), strict=True))
    learnt = groups.learnt()
    rows, weight, before, after = data.fold(partial(_scores, tuple(predictors), len(names)), np.add)
    with np.errstate(invalid="ignore", divide="ignore"):
        before, after = before / weight, after / weight
    scores = [
        GroupScore(name, int(n), shares.get(name, 0.0), float(b), float(a), learnt.get(name, ""))
        for name, n, b, a in zip(names, rows, before, after, strict=True)
        if n
    ]
    # A mean of no weight is NaN, which has no place in an order.
    scores.sort(key=lambda score: (np.isnan(score.after), -score.after))
    pooled = " + ".join(stage.summary() for stage in groups.pooled)
    return GroupReport(groups.column, grouped.strength, grouped.losses, tuple(scores), pooled)


def _scores(predictors: tuple[Predictor, ...], groups: int, tile: Tile) -> NumpyArray:
    """Rows, weight, and the sum of the losses of each predictor, by group."""
    numbers = numbers_of(tile)
    weights = host_weights(tile.labels, tile.weights)
    sums = [np.bincount(numbers, minlength=groups), np.bincount(numbers, weights, groups)]
    for predictor in predictors:
        losses = row_losses(predictor(tile), tile.labels)
        with np.errstate(invalid="ignore"):
            sums.append(np.bincount(numbers, weights * losses, groups))
    return np.stack(sums).astype(np.float64)
