"""What the engine reads: a source of chunks of rows, in a fixed order, as often as needed.

`ArraySource` has its rows in memory; those that read files are in `calibcli.tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

from calibcli.arrays import InputKind, NumpyArray

Keys: TypeAlias = Mapping[str, NumpyArray]
"""Numbers of groups (n,), int64, by the role that they play."""


@dataclass(frozen=True)
class Chunk:
    """Rows of a source, as stored, and consecutive unless some were picked.

    Attributes
    ----------
    start : int
        Number of the first row in the source.
    scores : array (n, C)
        Logits, log-probabilities or probabilities; C = 1 where one score stands for two classes.
    labels : int64 array (n,) or None
    weights : float64 array (n,) or None
    columns : object or None
        The other columns of these rows (`pyarrow.RecordBatch`), where they were asked for.
    keys : dict of str to int64 array (n,), or None
        Numbers of groups by role (``"group"``, ``"by"``, ``"cluster"``), where they were asked for.
    """

    start: int
    scores: NumpyArray
    labels: NumpyArray | None = None
    weights: NumpyArray | None = None
    columns: Any = None
    keys: Keys | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def rows(self, begin: int, end: int) -> Chunk:
        """The part of the chunk from row ``begin`` to before row ``end``, without a copy."""
        return Chunk(
            self.start + begin,
            self.scores[begin:end],
            None if self.labels is None else self.labels[begin:end],
            None if self.weights is None else self.weights[begin:end],
            None if self.columns is None else self.columns.slice(begin, end - begin),
            each_key(self.keys, lambda key: key[begin:end]),
        )

    def every(self, step: int) -> Chunk:
        """A copy of every ``step``-th row, by the number of the row; without other columns."""
        return self.picked(slice(-self.start % step, None, step), self.start + -self.start % step)

    def picked(self, rows: Any, start: int = 0) -> Chunk:
        """A copy of some rows, which get numbers from ``start`` on; without other columns."""

        def picked(array: Any) -> Any:
            # A view would keep the whole chunk, or the mapping of a whole file, alive.
            return array[rows].copy() if isinstance(array, np.ndarray) else array[rows]

        return Chunk(
            start,
            picked(self.scores),
            None if self.labels is None else picked(self.labels),
            None if self.weights is None else picked(self.weights),
            keys=each_key(self.keys, picked),
        )


def each_key(keys: Keys | None, change: Callable[[NumpyArray], NumpyArray]) -> Keys | None:
    """All keys changed in the same way; None where there are none."""
    return None if keys is None else {role: change(key) for role, key in keys.items()}


def join_keys(parts: Sequence[Keys | None]) -> Keys | None:
    """The keys of neighbouring rows, one after the other."""
    if parts[0] is None:
        return None
    return {role: np.concatenate([part[role] for part in parts if part]) for role in parts[0]}


def join(chunks: Sequence[Chunk]) -> Chunk:
    """Neighbouring chunks as one."""
    if len(chunks) == 1:
        return chunks[0]

    def joined(name: str) -> Any:
        arrays = [getattr(chunk, name) for chunk in chunks]
        return None if arrays[0] is None else np.concatenate(arrays)

    columns = None
    if chunks[0].columns is not None:
        import pyarrow as pa

        columns = pa.concat_batches([chunk.columns for chunk in chunks])
    first, keys = chunks[0].start, join_keys([chunk.keys for chunk in chunks])
    return Chunk(first, joined("scores"), joined("labels"), joined("weights"), columns, keys)


class Partition(Protocol):
    """A part of a source that another process or machine can open: a description, not data."""

    def chunks(self, rows: int, with_columns: bool = False) -> Iterator[Chunk]:
        """The rows of this part, at most ``rows`` at a time; with other columns if asked for."""

    def locate(self, row: int) -> str:
        """Where the row of a number in the source is, for messages."""


class Source(Protocol):
    """Rows of scores, with labels and weights where there are any.

    Attributes
    ----------
    rows : int
        Number of rows.
    columns : int
        Number of stored score columns C; 1 stands for two classes.
    kind : InputKind
    dtype : numpy.dtype
        float16, float32 or float64, as stored.
    has_labels, has_weights : bool
    """

    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def kind(self) -> InputKind: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def has_labels(self) -> bool: ...
    @property
    def has_weights(self) -> bool: ...

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """All rows in order, at most ``rows`` at a time; may be called again for another pass."""

    def resident(self) -> bool:
        """Whether the scores are in memory already, so that keeping them costs nothing."""

    def cut(self, rows: int) -> Sequence[Partition]:
        """Parts that can be read independently, in order, of so many rows each but for the last."""

    def locate(self, row: int) -> str:
        """Where a row is, for messages: ``"val.parquet, row 12"``."""


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

    @classmethod
    def of(cls, chunk: Chunk, source: Source, origin: Source | None = None) -> ArraySource:
        """The rows of a chunk, with the kind and the names of groups of the source they are of."""
        names = names_of_keys(source, chunk.keys or {})
        return cls(
            chunk.scores, chunk.labels, chunk.weights, source.kind, origin, chunk.keys, names
        )

    @property
    def rows(self) -> int:
        return len(self.scores)

    @property
    def columns(self) -> int:
        return int(self.scores.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.scores.dtype
        return dtype

    @property
    def has_labels(self) -> bool:
        return self.labels is not None

    @property
    def has_weights(self) -> bool:
        return self.weights is not None

    @property
    def key_roles(self) -> tuple[str, ...]:
        return tuple(self.keys or ())

    def chunks(self, rows: int) -> Iterator[Chunk]:
        whole = Chunk(0, self.scores, self.labels, self.weights, keys=self.keys)
        for begin in range(0, self.rows, max(rows, 1)):
            yield whole.rows(begin, min(begin + rows, self.rows))

    def resident(self) -> bool:
        return True

    def cut(self, rows: int) -> Sequence[Any]:
        """One part: rows in memory are folded where they are."""
        return [self]

    def locate(self, row: int) -> str:
        """``"row 12"``, or what the origin says."""
        return self.origin.locate(row) if self.origin else f"row {row}"


def read_all(source: Source, chunk_rows: int) -> ArraySource:
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
    return ArraySource.of(Chunk(0, scores, labels, weights, keys=keys or None), source, source)


def hold(source: Source) -> ArraySource:
    """A source whose rows are in memory, as its arrays: its keys are not numbered again."""
    (chunk,) = source.chunks(source.rows)
    return ArraySource.of(
        chunk, source, source.origin if isinstance(source, ArraySource) else source
    )


def names_of_keys(source: Any, roles: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The names of the groups of a source, by role."""
    names = source.key_names if isinstance(source, ArraySource) else None
    return {role: source.key_names(role) if names is None else names[role] for role in roles}
