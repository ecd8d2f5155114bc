"""What the engine reads: a source of chunks of rows, in a fixed order, as often as needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from calibcli.arrays import InputKind

NumpyArray = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a source, as stored.

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
    """

    start: int
    scores: NumpyArray
    labels: NumpyArray | None = None
    weights: NumpyArray | None = None
    columns: Any = None

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
        )

    def every(self, step: int) -> Chunk:
        """A copy of every ``step``-th row, by the number of the row; without other columns."""
        rows = slice(-self.start % step, None, step)

        def picked(array: Any) -> Any:
            # A view would keep the whole chunk, or the mapping of a whole file, alive.
            return array[rows].copy() if isinstance(array, np.ndarray) else array[rows]

        return Chunk(
            self.start + rows.start,
            picked(self.scores),
            None if self.labels is None else picked(self.labels),
            None if self.weights is None else picked(self.weights),
        )


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
