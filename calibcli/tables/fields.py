"""What a data file offers, whatever its format: named fields, and blocks of rows of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from calibcli.engine.source import NumpyArray
from calibcli.errors import DataError

if TYPE_CHECKING:
    from calibcli.tables.locations import Location

Element: TypeAlias = Literal["float", "integer", "bool", "string", "other"]

UNKNOWN_ROWS = -1
"""The number of rows of a stream whose end has not been seen."""


@dataclass(frozen=True)
class Field:
    """A column of a table, or an array of an NPZ file.

    Attributes
    ----------
    name : str
    type : str
        As a person reads it: ``"fixed_size_list<float>[10]"``.
    element : Element
        What one value is.
    axes : int
        1 for a value a row, 2 for a vector a row, 3 for anything else.
    width : int or None
        Values in a row where ``axes`` is 2; None where only the data tell.
    dtype : str or None
        Name of the NumPy type of a number.
    rows : int
    in_memory : bool
        Whether all rows can be read as one block without a copy: a memory-mapped array.
    carried : bool
        Whether it can be a column of the output.
    """

    name: str
    type: str
    element: Element
    axes: int
    width: int | None
    dtype: str | None
    rows: int
    in_memory: bool = False
    carried: bool = True


@dataclass(frozen=True)
class Vector:
    """One value a row, as stored.

    Attributes
    ----------
    values : array (n,)
        Numbers; or, where there are ``names``, integers that index them.
    names : tuple of str or None
        The distinct strings of a column of strings.
    missing : bool array (n,) or None
        Rows without a value.
    """

    values: NumpyArray
    names: tuple[str, ...] | None = None
    missing: NumpyArray | None = None


class Block(Protocol):
    """Consecutive rows of a file."""

    def __len__(self) -> int: ...

    def matrix(self, names: Sequence[str], width: int | None) -> NumpyArray:
        """Scores (n, C) of one field, or of one scalar field a class.

        Raises
        ------
        RowError
            A value is missing, or a row has not ``width`` values.
        """

    def vector(self, name: str) -> Vector:
        """The values of a field with one value a row."""

    def columns(self, names: Sequence[str]) -> Any:
        """The fields as a `pyarrow.RecordBatch`."""


class DataFile(Protocol):
    """A file whose fields are known and whose rows are read when asked for.

    A description, not data: it pickles, and another process can read from it.
    """

    @property
    def location(self) -> Location: ...

    @property
    def format(self) -> str:
        """``"parquet"``, ``"npz"``, ``"npy"``, ``"ipc-file"`` or ``"ipc-stream"``."""

    @property
    def fields(self) -> tuple[Field, ...]: ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names that the file carries."""

    def splits(self, rows: int) -> Sequence[int]:
        """Row numbers, from 0 on, at which reading may begin without reading what is before."""

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[Block]:
        """Rows ``begin`` to before ``end``, in order, at most ``rows`` at a time."""

    def head(self, names: Sequence[str], begin: int, rows: int) -> Block | None:
        """Up to ``rows`` rows from ``begin`` on; None at the end."""


READING_ERRORS = (OSError, ValueError)
"""What Arrow raises for files that are damaged; names in them may not even be text."""


class RowError(Exception):
    """Something is wrong with a row; whoever knows the file says which one.

    Parameters
    ----------
    row : int
        Counted from the first row of the block.
    message : str
    """

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = int(row)


@contextmanager
def locating_rows(name: str, first: int) -> Iterator[None]:
    """Turn a `RowError` of a block that begins at row ``first`` of a file into a `DataError`."""
    try:
        yield
    except RowError as error:
        raise DataError(f"{name}, row {first + error.row}: {error}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message: some libraries write pages."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
