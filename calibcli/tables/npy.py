"""The NPY format: one array with a short header, inside an NPZ file or alone. Nothing is unpickled.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from calibcli.engine.source import NumpyArray
from calibcli.errors import DataError
from calibcli.tables.fields import Element, Field
from calibcli.tables.mapping import Mapping

CONVERTING = "docs/converting.md"
_ELEMENTS: dict[str, Element] = {
    "f": "float",
    "i": "integer",
    "u": "integer",
    "b": "bool",
    "U": "string",
    "S": "string",
}

_CARRIED = "fiubUSMm"


@dataclass(frozen=True)
class Header:
    """What the header of an array says.

    Attributes
    ----------
    shape : tuple of int
    fortran : bool
        Whether the first index varies fastest.
    dtype : str
        With its byte order.
    length : int
        Bytes from the beginning of the header to the data.
    """

    shape: tuple[int, ...]
    fortran: bool
    dtype: str
    length: int

    @property
    def bytes(self) -> int:
        """Size of the data."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def map(self, mapping: Mapping, offset: int) -> NumpyArray:
        """The array as a view of a mapped file, its data at a byte offset."""
        count = math.prod(self.shape)
        if not count:
            return np.empty(self.shape, self.dtype)
        flat: NumpyArray = np.frombuffer(mapping.memory, self.dtype, count, offset)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")

    def field(self, name: str, *, in_memory: bool) -> Field:
        """The array as a field of a table: its first axis are the rows."""
        kind = np.dtype(self.dtype)
        # A single value has no rows, so it can be no column; Arrow has no long double.
        usual = bool(self.shape) and kind != np.longdouble
        element = _ELEMENTS.get(kind.kind, "other") if usual else "other"
        row = self.shape[1:]
        text = "string" if element == "string" else kind.name
        return Field(
            name,
            text + (f"[{', '.join(map(str, row))}]" if row else ""),
            element,
            min(len(row), 2) + 1,
            row[0] if len(row) == 1 else None,
            kind.name if element in ("float", "integer") else None,
            self.shape[0] if self.shape else 0,
            in_memory and kind.isnative,
            usual and kind.kind in _CARRIED,
        )


def pickled(name: str) -> DataError:
    """The error for a file or an array that only a pickle reader could read."""
    return DataError(
        f"{name}: stored as a pickle, which can run any code when it is read and so never is; "
        f"convert it once to NPZ or Parquet: see {CONVERTING}"
    )


def read_header(file: IO[bytes] | Any, available: int, name: str) -> Header:
    """Read the header of an array.

    Parameters
    ----------
    file : binary file
        At the beginning of the header; afterwards at the beginning of the data.
    available : int
        Bytes from the beginning of the header to the end of the array.
    name : str
        File, and key if there is one, for messages.

    Raises
    ------
    DataError
        It is no NPY header, the array holds Python objects or records, or there are fewer bytes
        than the header promises.
    """
    try:
        version = npy.read_magic(file)
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        if version not in readers:
            raise DataError(f"{name}: NPY version {version[0]}.{version[1]} is not supported")
        shape, fortran, dtype = readers[version](file)
        length = file.tell()
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{name}: not a readable NumPy array ({error})") from error
    if dtype.hasobject:
        raise pickled(f"{name}: an array of Python objects")
    if dtype.names or dtype.subdtype:
        raise DataError(f"{name}: an array of records; save each field as an array of its own")
    header = Header(tuple(map(int, shape)), bool(fortran), dtype.str, length)
    if min(header.shape, default=0) < 0 or header.bytes > available - length:
        raise DataError(
            f"{name}: the header promises an array of shape {header.shape} ({header.bytes} bytes), "
            f"but {max(0, available - length)} bytes follow; the file is damaged or incomplete"
        )
    return header
