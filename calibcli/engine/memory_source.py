"""Sources whose rows are in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibcli.arrays import InputKind
from calibcli.engine.source import Chunk, NumpyArray, Source


@dataclass(frozen=True)
class ArraySource:
    """Rows held as arrays.

    Parameters
    ----------
    scores : array (n, C)
    labels : int64 array (n,) or None
    weights : float64 array (n,) or None
    kind : InputKind
    origin : Source, optional
        Where the rows came from, for messages.
    """

    scores: NumpyArray
    labels: NumpyArray | None = None
    weights: NumpyArray | None = None
    kind: InputKind = "logits"
    origin: Source | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.scores)

    @property
    def columns(self) -> int:
        """Number of score columns."""
        return int(self.scores.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the scores."""
        dtype: np.dtype[Any] = self.scores.dtype
        return dtype

    @property
    def has_labels(self) -> bool:
        """Whether every row has a label."""
        return self.labels is not None

    @property
    def has_weights(self) -> bool:
        """Whether every row has a weight."""
        return self.weights is not None

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """The rows, at most ``rows`` at a time, without a copy."""
        whole = Chunk(0, self.scores, self.labels, self.weights)
        for begin in range(0, self.rows, max(rows, 1)):
            yield whole.rows(begin, min(begin + rows, self.rows))

    def resident(self) -> bool:
        """True: the rows are in memory."""
        return True

    def partitions(self) -> Sequence[Any]:
        """One part: the whole, which travels as data."""
        return [self]

    def locate(self, row: int) -> str:
        """``"row 12"``, or what the origin says."""
        return self.origin.locate(row) if self.origin else f"row {row}"


def load(source: Source, chunk_rows: int) -> ArraySource:
    """All rows of a source in memory."""
    scores = np.empty((source.rows, source.columns), source.dtype)
    labels = np.empty(source.rows, np.int64) if source.has_labels else None
    weights = np.empty(source.rows) if source.has_weights else None
    end = 0
    for chunk in source.chunks(chunk_rows):
        begin, end = end, end + len(chunk)
        scores[begin:end] = chunk.scores
        if labels is not None and chunk.labels is not None:
            labels[begin:end] = chunk.labels
        if weights is not None and chunk.weights is not None:
            weights[begin:end] = chunk.weights
    return ArraySource(scores, labels, weights, source.kind, source)


def every(source: Source, step: int, chunk_rows: int) -> ArraySource:
    """Every ``step``-th row of a source, by the number of the row, in memory."""
    if isinstance(source, ArraySource):
        picked = [Chunk(0, source.scores, source.labels, source.weights).every(step)]
    else:
        picked = [chunk.every(step) for chunk in source.chunks(chunk_rows)]
    if len(picked) == 1:
        (only,) = picked
        return ArraySource(only.scores, only.labels, only.weights, source.kind)

    def joined(name: str) -> Any:
        arrays = [getattr(chunk, name) for chunk in picked]
        return None if arrays[0] is None else np.concatenate(arrays)

    return ArraySource(joined("scores"), joined("labels"), joined("weights"), source.kind)


@dataclass(frozen=True)
class Part:
    """The rows of one fold, or all others.

    A row's fold is drawn from the seed and the row's number, so that it depends on neither the
    blocks nor the files.

    Parameters
    ----------
    folds : int
    fold : int
    seed : int
    inside : bool
        Whether the rows of the fold are meant, rather than the others.
    """

    folds: int
    fold: int
    seed: int = 0
    inside: bool = False

    def chosen(self, begin: int, end: int) -> NumpyArray:
        """Whether each row from ``begin`` to before ``end`` belongs to the part."""
        inside: NumpyArray = fold_of_rows(begin, end, self.folds, self.seed) == self.fold
        return inside if self.inside else ~inside


def fold_of_rows(begin: int, end: int, folds: int, seed: int = 0) -> NumpyArray:
    """The fold (0 to folds - 1) of each row from ``begin`` to before ``end``.

    A counter-based generator (SplitMix64: Steele, Lea and Flood, 2014) of seed and row number.
    """
    with np.errstate(over="ignore"):
        state = np.arange(begin, end, dtype=np.uint64)
        state += np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(1)
        state *= np.uint64(0x9E3779B97F4A7C15)
        state ^= state >> np.uint64(30)
        state *= np.uint64(0xBF58476D1CE4E5B9)
        state ^= state >> np.uint64(27)
        state *= np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state % np.uint64(folds)).astype(np.int64)
