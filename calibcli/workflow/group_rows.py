"""The rows of each group by themselves: in place where they are in memory, gathered otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from calibcli.arrays import NumpyArray, to_numpy
from calibcli.calibrators.base import GROUP
from calibcli.calibrators.groups import rows_by_group
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile, join
from calibcli.engine.memory_source import ArraySource, fold_of_rows

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
        own = ArraySource(source.scores[rows], labels, weights, source.kind)
        classes, plain = self.data.classes, None if weights is None else to_numpy(weights)
        class_rows = np.bincount(to_numpy(labels), minlength=classes)
        by_class = np.bincount(to_numpy(labels), plain, classes)[None].astype(np.float64)
        survey = replace(
            self.data.survey, rows=len(rows), class_rows=class_rows, class_weights=by_class
        )
        return replace(self.data, source=own, survey=survey)


def numbers_of(tile: Tile) -> NumpyArray:
    """The numbers of the groups of a block's rows (n,)."""
    assert tile.keys is not None
    return tile.keys[GROUP]


def each_group(data: Data, groups: int) -> Iterator[GroupRows]:
    """The rows of each group that has any.

    Streamed data is read once for as many groups as fit into memory. A group that does not fit
    by itself is thinned, which leaves more rows than most maps need.
    """
    if isinstance(data.source, ArraySource):
        assert data.source.keys is not None
        numbers = data.source.keys[GROUP]
        yield from _split(data, data.source, numbers, np.arange(data.rows), groups)
        return
    counts = data.fold(partial(_row_counts, groups), np.add)
    row_bytes = data.source.columns * max(data.source.dtype.itemsize, 4)
    most = max(data.engine.room // 4 // row_bytes, 1)
    for batch in _batches(counts, most):
        source, numbers, row_numbers = _gathered(data, batch, -(-int(counts[batch].sum()) // most))
        yield from _split(data, source, numbers, row_numbers, groups)


def _split(
    data: Data, source: ArraySource, numbers: NumpyArray, row_numbers: NumpyArray, groups: int
) -> Iterator[GroupRows]:
    if not len(row_numbers):
        return
    first, last = int(row_numbers[0]), int(row_numbers[-1])
    fold = fold_of_rows(first, last + 1, data.folds, data.seed)[row_numbers - first]
    for number, places in rows_by_group(numbers, groups):
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


def _gathered(
    data: Data, batch: list[int], step: int
) -> tuple[ArraySource, NumpyArray, NumpyArray]:
    """Every so many-th of the rows of some groups, with their groups and their numbers."""
    parts, row_numbers = [], []
    for chunk in data.source.chunks(data.engine.chunk_rows(data.source)):
        assert chunk.keys is not None
        keep = np.isin(chunk.keys[GROUP], batch)
        if step > 1:
            end, seed = chunk.start + len(chunk), data.seed + _THINNING_SEED
            keep &= fold_of_rows(chunk.start, end, step, seed) == 0
        rows = np.flatnonzero(keep)
        parts.append(chunk.picked(rows))
        row_numbers.append(chunk.start + rows)
    whole = join(parts)
    assert whole.keys is not None
    source = ArraySource(whole.scores, whole.labels, whole.weights, data.source.kind)
    return source, whole.keys[GROUP], np.concatenate(row_numbers)
