"""What a shape brings: a function that makes tables of files that are none yet.

The table is a `DataFile` itself, over that of a format: other fields, the same contract. It is
read in a stream and pickles, and nothing after it knows what the file was like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.tables.formats.base import DataFile
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
    """A table made of a file whose rows are others; the rest of it stays.

    Attributes
    ----------
    file : DataFile
    """

    file: DataFile

    @property
    def locations(self) -> tuple[Location, ...]:
        """Those of the file."""
        return self.file.locations

    def verify(self, names: Sequence[str]) -> None:
        """Compare what the fields of these names are read from with its checksums."""
        self.file.verify(self.sources(names))

    def sources(self, names: Sequence[str]) -> list[str]:
        """The fields of the file that some fields of the table are read from."""
        stored = {field.name for field in self.file.fields}
        return [name for name in names if name in stored]


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
