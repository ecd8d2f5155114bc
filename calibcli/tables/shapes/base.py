"""What a shape brings: a function that makes tables of files that are none yet.

The table is a `DataFile` itself, over that of a format: other fields, the same contract. It is
read in a stream and pickles, and nothing after it knows what the file was like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calibcli.tables.formats.base import DataFile


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

    def verify(self, names: Sequence[str]) -> None:
        """Compare what the fields of these names are read from with its checksums."""
        self.file.verify(self.sources(names))

    def sources(self, names: Sequence[str]) -> list[str]:
        """The fields of the file that some fields of the table are read from."""
        stored = {field.name for field in self.file.fields}
        return [name for name in names if name in stored]
