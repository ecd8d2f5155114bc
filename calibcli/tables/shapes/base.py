"""What a shape brings: a function that makes tables of files that are none yet.

The table is a `DataFile` itself, over that of a format: other fields, the same contract. It is
read in a stream and pickles, and nothing after it knows what the file was like.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.tables.formats.base import Batch, DataFile, RowError, Values
from calibcli.tables.locations import Location


@dataclass(frozen=True)
class OpenedFiles:
    """The input files of a command, and the file of labels if there is one.

    Attributes
    ----------
    files : tuple of DataFile
        At least one.
    labels : DataFile or None
        For the rows of all files, one after the other.
    """

    files: tuple[DataFile, ...]
    labels: DataFile | None = None


@dataclass(eq=False, kw_only=True)
class ReshapedFile(DataFile):
    """A table made of a file; what does not change stays as the file has it.

    Attributes
    ----------
    file : DataFile
    """

    file: DataFile

    @classmethod
    def over(cls, file: DataFile, /, **changes: Any) -> Self:
        """A table of a file, with other attributes than those of the file."""
        kept = {each.name: getattr(file, each.name) for each in fields(DataFile)}
        return cls(**{**kept, "file": file, **changes})

    @property
    def locations(self) -> tuple[Location, ...]:
        """Those of the file."""
        return self.file.locations

    def locate(self, row: int) -> str:
        """Where a row is, as the file says it."""
        return self.file.locate(row)

    def splits(self, rows: int) -> Sequence[int]:
        """Row numbers at which reading may begin: those of the file."""
        return self.file.splits(rows)

    def verify(self, names: Sequence[str]) -> None:
        """Compare what the fields of these names are read from with its checksums."""
        self.file.verify(self.sources(names))

    def sources(self, names: Sequence[str]) -> list[str]:
        """The fields of the file that some fields of the table are read from."""
        stored = {field.name for field in self.file.fields}
        return [name for name in names if name in stored]


@dataclass(eq=False, kw_only=True)
class RewrittenFile(ReshapedFile):
    """A table with the rows of a file, of which some fields have other values."""

    @abstractmethod
    def rewritten(self, batch: Batch) -> Batch:
        """The same rows of the table as those of a batch of the file."""

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[Batch]:
        """Rows ``begin`` to before ``end``, at most ``rows`` at a time."""
        return map(self.rewritten, self.file.read(self.sources(names), begin, end, rows))

    def head(self, names: Sequence[str], begin: int, rows: int) -> Batch | None:
        """Up to ``rows`` rows from ``begin`` on; None at the end."""
        batch = self.file.head(self.sources(names), begin, rows)
        return None if batch is None else self.rewritten(batch)


class PickedBatch:
    """Some rows of a batch, as often as they are picked, with fields that were made; a `Batch`.

    Parameters
    ----------
    batch : Batch
    index : int array (n,)
        The row of the batch that each is; ascending.
    made : dict of str to Values
        The fields that are no fields of the batch, row by row.
    """

    def __init__(self, batch: Batch, index: NumpyArray, made: Mapping[str, Values]) -> None:
        self._batch, self._index, self._made = batch, index, made
        self.release = batch.release

    def __len__(self) -> int:
        return len(self._index)

    @contextmanager
    def _finding_rows(self) -> Iterator[None]:
        """Say of a row that is wrong where it is among those that were picked."""
        try:
            yield
        except RowError as error:
            row = int(np.searchsorted(self._index, error.row))
            raise RowError(min(row, len(self) - 1), str(error)) from error

    def matrix(self, names: Sequence[str], width: int | None) -> NumpyArray:
        """Scores (n, C)."""
        if len(names) == 1 and names[0] in self._made:
            return self._made[names[0]].values.reshape(-1, 1)
        with self._finding_rows():
            matrix: NumpyArray = self._batch.matrix(names, width)[self._index]
        return matrix

    def values(self, name: str) -> Values:
        """One value a row."""
        if name in self._made:
            return self._made[name]
        with self._finding_rows():
            stored = self._batch.values(name)
        missing = None if stored.missing is None else stored.missing[self._index]
        return Values(stored.values[self._index], stored.names, missing)

    def array(self, name: str) -> NumpyArray:
        """A field of numbers with its axes."""
        if name in self._made:
            return self._made[name].values
        with self._finding_rows():
            array: NumpyArray = self._batch.array(name)[self._index]
        return array

    def columns(self, names: Sequence[str]) -> Any:
        """The fields as a `pyarrow.RecordBatch`."""
        import pyarrow as pa

        stored = [name for name in names if name not in self._made]
        taken = self._batch.columns(stored).take(pa.array(self._index)) if stored else None
        columns = {name: taken.column(name) for name in stored if taken is not None}
        for name in self._made.keys() & {*names}:
            values, texts = pa.array(self._made[name].values), self._made[name].names
            columns[name] = values if texts is None else pa.array(texts).take(values)
        return pa.RecordBatch.from_arrays([columns[name] for name in names], names=list(names))


def row_count(file: DataFile) -> int:
    """The rows of a file; 0 without fields."""
    return max((field.rows for field in file.fields), default=0)


class AlignedReader:
    """Reads one field of a file, so many rows at a time as another file gives."""

    def __init__(self, file: DataFile, field: str, begin: int, end: int, rows: int) -> None:
        self._field, self._batches = field, file.read((field,), begin, end, rows)
        self._waiting: list[NumpyArray] = []

    def take(self, rows: int) -> NumpyArray:
        """The next rows."""
        while sum(map(len, self._waiting)) < rows:
            self._waiting.append(next(self._batches).array(self._field))
        waiting = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._waiting = [waiting[rows:]]
        return waiting[:rows]
