"""NumPy's arrays: their headers, inside an NPZ file or alone, and batches of their rows.

Nothing is unpickled.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError
from calibcli.tables.formats.base import SHAPE_METADATA, Element, Field, RowError, Values, pickled
from calibcli.tables.locations import first_line
from calibcli.tables.storage import BROKEN_ZIP, MappedFile

NUMPY_TYPE = b"calib.numpy"
"""Field metadata: the NumPy type of a column of strings, which has a fixed width."""

_ELEMENTS: dict[str, Element] = {
    "f": "float",
    "i": "integer",
    "u": "integer",
    "b": "bool",
    "U": "string",
    "S": "string",
}

_CARRIED = "fiubUS"
_CARRIED_TIMES = (
    "<M8[D]",
    *(f"<{kind}8[{unit}]" for kind in "Mm" for unit in ("s", "ms", "us", "ns")),
)
"""The types of columns that Arrow has too."""

_LONGEST_HEADER = 10_000
"""Bytes; NumPy parses no longer ones, but reads them all before it says so."""

_LONGEST_REASON, _MOST_AXES, _LARGEST_ARRAY = 200, 32, 1 << 62
"""Characters of a reason; axes, and bytes or rows that can be counted."""

_LAST_CHARACTER, _SURROGATES = 0x10FFFF, 0xD800 >> 11

_NO_HEADER = (
    ValueError,
    EOFError,
    OSError,
    SyntaxError,
    TypeError,
    KeyError,
    OverflowError,
    RecursionError,
    MemoryError,
    TokenError,
)
"""What NumPy raises for a header that is none."""


@dataclass(frozen=True)
class ArrayHeader:
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
    bfloat : bool
        Whether these 16 bits, which NumPy has no type for, are the upper half of a float32.
    """

    shape: tuple[int, ...]
    fortran: bool
    dtype: str
    length: int
    bfloat: bool = False

    @property
    def bytes(self) -> int:
        """Size of the data."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def map(self, mapping: MappedFile, offset: int) -> NumpyArray:
        """The array as a view of a mapped file, its data at a byte offset."""
        count = math.prod(self.shape)
        if not count:
            return np.empty(self.shape, self.dtype)
        flat: NumpyArray = np.frombuffer(mapping.memory, self.dtype, count, offset)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")

    def decoded(self, array: NumpyArray) -> NumpyArray:
        """The numbers that a part of the array stands for: the array itself, but for bfloat16."""
        if not self.bfloat:
            return array
        whole: NumpyArray = np.left_shift(array, 16, dtype=np.uint32, order="C").view(np.float32)
        return whole

    def field(self, name: str, *, in_memory: bool) -> Field:
        """The array as a field of a table: its first axis are the rows."""
        kind = np.dtype("f4" if self.bfloat else self.dtype)
        row = self.shape[1:]
        # A single value has no rows, and rows without a value are no column; Arrow has no long
        # double.
        usual = bool(self.shape) and 0 not in row and not (kind.kind == "f" and kind.itemsize > 8)
        element = _ELEMENTS.get(kind.kind, "other") if usual else "other"
        text = "string" if element == "string" else "bfloat16" if self.bfloat else kind.name
        return Field(
            name,
            text + (f"[{', '.join(map(str, row))}]" if row else ""),
            element,
            min(len(row), 2) + 1,
            row[0] if len(row) == 1 else None,
            kind.name if element in ("float", "integer") else None,
            self.shape[0] if self.shape else 0,
            in_memory and kind.isnative and not self.bfloat,
            usual and (kind.kind in _CARRIED or kind.newbyteorder("<").str in _CARRIED_TIMES),
            row,
        )


def read_header(file: IO[bytes] | Any, available: int, name: str) -> ArrayHeader:
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
        size = 2 * version[0]
        content = file.read(size)
        header_length = int.from_bytes(content, "little")
        if header_length > _LONGEST_HEADER:
            raise DataError(f"{name}: its header has {header_length:,} bytes, as no array needs")
        content += file.read(header_length)
        shape, fortran, dtype = readers[version](io.BytesIO(content))
    except (*_NO_HEADER, *BROKEN_ZIP) as error:
        raise DataError(f"{name}: not a readable NumPy array ({first_line(error)})") from error
    length = npy.MAGIC_LEN + len(content)
    if dtype.hasobject:
        raise pickled(f"{name}: an array of Python objects")
    if dtype.names or dtype.subdtype:
        raise DataError(f"{name}: an array of records; save each field as an array of its own")
    countable = math.prod(max(int(axis), 1) for axis in shape) * max(dtype.itemsize, 1)
    if not dtype.itemsize or countable > _LARGEST_ARRAY or len(shape) > _MOST_AXES:
        raise DataError(f"{name}: no array is of the shape {shape} and the type {dtype.str!r}")
    # Raw bytes have no byte order, and the bfloat16 of ml_dtypes has one.
    bfloat = dtype.str == "|V2" and b"'<V2'" in content
    kind = "<u2" if bfloat else dtype.str
    header = ArrayHeader(tuple(map(int, shape)), bool(fortran), kind, length, bfloat)
    if min(header.shape, default=0) < 0 or header.bytes > available - length:
        raise DataError(
            f"{name}: the header promises an array of shape {header.shape} ({header.bytes} bytes), "
            f"but {max(0, available - length)} bytes follow; the file is damaged or incomplete"
        )
    return header


class ArrayBatch:
    """Rows of the arrays of a file; a `Batch`.

    Parameters
    ----------
    arrays : dict of str to array
        With the same number of rows.
    rows : int
    release : callable
        Gives back the memory of what was read.
    """

    def __init__(
        self,
        arrays: Mapping[str, NumpyArray],
        rows: int,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self.arrays, self.release = arrays, release
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def matrix(self, names: Sequence[str], width: int | None) -> NumpyArray:
        """Scores (n, C): a view of the one array, or one scalar array a class side by side."""
        if len(names) > 1:
            return np.stack([_native(self.arrays[name]) for name in names], axis=1)
        matrix = _native(self.arrays[names[0]])
        return matrix[:, None] if matrix.ndim == 1 else matrix

    def values(self, name: str) -> Values:
        array = self.arrays[name].reshape(len(self))
        _check_text(array, name)
        if array.dtype.kind == "S":
            try:
                array = np.char.decode(array, "utf-8")
            except UnicodeDecodeError as error:
                raise RowError(0, f"key {name!r} has bytes that are not UTF-8 text") from error
        if array.dtype.kind == "U":
            names, codes = np.unique(array, return_inverse=True)
            return Values(codes.reshape(-1), tuple(map(str, names)))
        return Values(_native(array))

    def array(self, name: str) -> NumpyArray:
        return _native(self.arrays[name])

    def columns(self, names: Sequence[str]) -> Any:
        """The arrays as a `pyarrow.RecordBatch`; of more than two axes the metadata tell."""
        import pyarrow as pa

        for name in names:
            _check_text(self.arrays[name], name)
        stored = [self.arrays[name] for name in names]
        arrays = [_arrow(array) for array in stored]
        fields = [
            pa.field(name, column.type, metadata=_metadata(array))
            for name, array, column in zip(names, stored, arrays, strict=True)
        ]
        return pa.record_batch(arrays, schema=pa.schema(fields))


def _metadata(array: NumpyArray) -> dict[bytes, str] | None:
    """What the type of a column does not say of its array."""
    if array.ndim > 2:
        return {SHAPE_METADATA: json.dumps(array.shape[1:])}
    return {NUMPY_TYPE: array.dtype.str} if array.dtype.kind in "US" else None


def _check_text(array: NumpyArray, name: str) -> None:
    """Refuse texts (n, …) with numbers that stand for no character.

    Raises
    ------
    RowError
    """
    if array.dtype.kind != "U" or not array.size:
        return
    codes = np.ascontiguousarray(_native(array)).reshape(len(array), -1).view(np.uint32)
    wrong = ((codes > _LAST_CHARACTER) | ((codes >> 11) == _SURROGATES)).any(axis=1)
    if wrong.any():
        raise RowError(int(np.argmax(wrong)), f"key {name!r} has text that is no Unicode")


def _native(array: NumpyArray) -> NumpyArray:
    return np.asarray(array, array.dtype.newbyteorder("="))


def _arrow(array: NumpyArray) -> Any:
    import pyarrow as pa

    from calibcli.tables.formats.arrow_arrays import arrow_array

    array = np.require(_native(array), requirements=["C", "A"])
    if array.ndim == 1:
        return arrow_array(array)
    values = arrow_array(array.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, int(np.prod(array.shape[1:])))
