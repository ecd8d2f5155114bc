"""Sources whose rows are in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calibcli.arrays import InputKind, NumpyArray, hashed
from calibcli.engine.source import Chunk, Keys, Source, join_keys


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
    keys : dict of str to int64 array (n,), optional
        Numbers of groups by role, in host memory.
    key_names : dict of str to tuple of str
        The names of those groups, by role.
    """

    scores: NumpyArray
    labels: NumpyArray | None = None
    weights: NumpyArray | None = None
    kind: InputKind = "logits"
    origin: Source | None = None
    keys: Keys | None = None
    key_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
        whole = Chunk(0, self.scores, self.labels, self.weights, keys=self.keys)
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
    keys: dict[str, NumpyArray] = {}
    end = 0
    for chunk in source.chunks(chunk_rows):
        begin, end = end, end + len(chunk)
        scores[begin:end] = chunk.scores
        if labels is not None and chunk.labels is not None:
            labels[begin:end] = chunk.labels
        if weights is not None and chunk.weights is not None:
            weights[begin:end] = chunk.weights
        for role, key in (chunk.keys or {}).items():
            keys.setdefault(role, np.empty(source.rows, np.int64))[begin:end] = key
    names = names_of_keys(source, keys)
    return ArraySource(scores, labels, weights, source.kind, source, keys or None, names)


def hold(source: Source) -> ArraySource:
    """A source whose rows are in memory, as its arrays: its keys are not numbered again."""
    (chunk,) = source.chunks(source.rows)
    names = names_of_keys(source, chunk.keys or {})
    origin = source.origin if isinstance(source, ArraySource) else source
    return ArraySource(
        chunk.scores, chunk.labels, chunk.weights, source.kind, origin, chunk.keys, names
    )


def names_of_keys(source: Any, roles: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The names of the groups of a source, by role."""
    names = source.key_names if isinstance(source, ArraySource) else None
    return {role: source.key_names(role) if names is None else names[role] for role in roles}


def every(source: Source, step: int, chunk_rows: int) -> ArraySource:
    """Every ``step``-th row of a source, by the number of the row, in memory."""
    if isinstance(source, ArraySource):
        whole = Chunk(0, source.scores, source.labels, source.weights, keys=source.keys)
        picked = [whole.every(step)]
    else:
        picked = [chunk.every(step) for chunk in source.chunks(chunk_rows)]
    keys = join_keys([chunk.keys for chunk in picked])
    names = names_of_keys(source, keys or {})

    def joined(name: str) -> Any:
        arrays = [getattr(chunk, name) for chunk in picked]
        if len(arrays) == 1:
            return arrays[0]
        return None if arrays[0] is None else np.concatenate(arrays)

    scores, labels, weights = joined("scores"), joined("labels"), joined("weights")
    return ArraySource(scores, labels, weights, source.kind, None, keys, names)


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
    """The fold (0 to folds - 1) of each row from ``begin`` to before ``end``."""
    return hashed(np.arange(begin, end), seed, folds)
