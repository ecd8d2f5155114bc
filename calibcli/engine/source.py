"""What the engine reads: a source of chunks of rows, in a fixed order, as often as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from calibcli.arrays import InputKind
from calibcli.arrays import NumpyArray as NumpyArray  # noqa: PLC0414  (for tables)

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


class Partition(Protocol):
    """A part of a source that another process or machine can open: a description, not data."""

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """The rows of this part, at most ``rows`` at a time."""


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

    def partitions(self) -> Sequence[Partition]:
        """The parts that can be read independently, in order."""

    def locate(self, row: int) -> str:
        """Where a row is, for messages: ``"val.parquet, row 12"``."""
