"""Output as NPZ: uncompressed and aligned, so that it can be memory-mapped; written row by row."""

from __future__ import annotations

import shutil
import struct
import tempfile
import zipfile
from contextlib import suppress
from typing import IO, Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy

from calibcli.engine.source import NumpyArray
from calibcli.errors import DataError
from calibcli.tables.blocks import NUMPY_TYPE
from calibcli.tables.npz import CLASSES_KEY
from calibcli.tables.writing import Piece, free_names

IN_MEMORY_BYTES = 8 << 20
"""Of each array that waits; more goes to a temporary file."""

PIECE_BYTES = 1 << 20
_ALIGNMENT = 64
_ZIP64_BYTES = 20
_PADDING = struct.Struct("<HH")
_PADDING_ID = 0xD935
"""The extra field of a zip entry with which Android's zipalign pads."""


class NpzSink:
    """Writes what was computed, and the numeric columns of the input.

    A zip file holds one array after the other, while rows come with all of them: the
    probabilities go straight to the file if their number is known, the rest waits beside it.

    Parameters
    ----------
    file : binary file
        That can seek.
    rows : int
        Number of rows to come; negative if it is not known.
    class_names : tuple of str or None
        Written as the array ``classes``.
    """

    def __init__(self, file: BinaryIO, rows: int, class_names: tuple[str, ...] | None) -> None:
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)
        self._file, self._promised, self._class_names = file, rows, class_names
        self._arrays: dict[str, _Waiting] = {}
        self._direct: IO[bytes] | None = None
        self._rows = 0
        self.renamed: dict[str, str] = {}
        self.left_out: tuple[str, ...] = ()

    def write(self, piece: Piece) -> None:
        """Write the probabilities and put the rest aside.

        Raises
        ------
        DataError
            A column has missing values or other types than before.
        """
        arrays = dict(piece.own)
        if piece.columns is not None:
            self._add_columns(piece.columns, arrays)
        if not self._rows:
            self._begin(arrays)
        for name, array in arrays.items():
            if name == "probs" and self._direct is not None:
                self._direct.write(_bytes(array, array.dtype))
            else:
                self._arrays[name].write(array, name)
        self._rows += len(piece.own["probs"])

    def _begin(self, arrays: dict[str, NumpyArray]) -> None:
        for name, array in arrays.items():
            if name != "probs" or self._promised < 0:
                self._arrays[name] = _Waiting(array)
        if self._promised >= 0:
            probs = arrays["probs"]
            self._direct = self._open("probs")
            _write_header(self._direct, probs.dtype, (self._promised, probs.shape[1]))

    def _add_columns(self, columns: Any, arrays: dict[str, NumpyArray]) -> None:
        if not self._rows:
            self.renamed = free_names(columns.schema.names, [*arrays, CLASSES_KEY])
            self.left_out = tuple(field.name for field in columns.schema if not _fits(field))
        for field, column in zip(columns.schema, columns.columns, strict=True):
            if field.name not in self.left_out:
                new = self.renamed.get(field.name, field.name)
                arrays[new] = _from_arrow(field, column)

    def _open(self, name: str) -> IO[bytes]:
        """A new entry, its content aligned; a fixed date, so that equal arrays give equal bytes."""
        entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
        entry.external_attr = 0o600 << 16
        length = 30 + len(entry.filename.encode()) + _ZIP64_BYTES + _PADDING.size
        gap = -(self._file.tell() + length) % _ALIGNMENT
        entry.extra = _PADDING.pack(_PADDING_ID, gap) + bytes(gap)
        return self._archive.open(entry, "w", force_zip64=True)

    def close(self) -> None:
        """Write what waits, the class names, and the directory of the zip file.

        Raises
        ------
        DataError
            There were other rows than promised.
        """
        if self._direct is not None:
            self._direct.close()
            if self._rows != self._promised:
                raise DataError(
                    f"{self._rows} rows were written, but {self._promised} were to come"
                )
        for name, waiting in self._arrays.items():
            with self._open(name) as entry:
                waiting.copy_to(entry, self._rows)
        if self._class_names is not None:
            with self._open(CLASSES_KEY) as entry:
                npy.write_array(entry, np.array(self._class_names), allow_pickle=False)
        self._archive.close()

    def abandon(self) -> None:
        """Delete what waits, and let the zip file go."""
        for waiting in self._arrays.values():
            waiting.close()
        # A zip file that is collected while open would be completed, in a file that is closed.
        with suppress(Exception):
            if self._direct is not None:
                self._direct.close()
            self._archive.close()


class _Waiting:
    """An array that waits until the one before it is complete."""

    def __init__(self, first: NumpyArray) -> None:
        self._dtype, self._shape = first.dtype, first.shape[1:]
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 (see `close`)

    def write(self, array: NumpyArray, name: str) -> None:
        if array.shape[1:] != self._shape or not np.can_cast(array.dtype, self._dtype):
            raise DataError(
                f"column {name!r} has missing values or changes its type, which an NPZ file "
                "cannot hold; write .parquet"
            )
        self._file.write(_bytes(array, self._dtype))

    def copy_to(self, entry: IO[bytes], rows: int) -> None:
        _write_header(entry, self._dtype, (rows, *self._shape))
        self._file.seek(0)
        shutil.copyfileobj(self._file, entry, PIECE_BYTES)

    def close(self) -> None:
        self._file.close()


def _bytes(array: NumpyArray, dtype: np.dtype[Any]) -> memoryview:
    # Dates and strings offer no buffer of their own.
    return np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data


def _write_header(entry: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    npy.write_array_header_1_0(
        entry,
        {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape},
    )


def _is_numeric(kind: Any) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_integer,
            pa.types.is_floating,
            pa.types.is_boolean,
            pa.types.is_timestamp,
            pa.types.is_duration,
            pa.types.is_date,
        )
    )


def _fits(field: Any) -> bool:
    """Whether a column can be an array: numbers, dates, vectors and tensors of them."""
    kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    if pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return _is_numeric(kind) or NUMPY_TYPE in (field.metadata or {})


def _from_arrow(field: Any, column: Any) -> NumpyArray:
    shape: tuple[int, ...] = ()
    if isinstance(field.type, pa.BaseExtensionType):
        shape = tuple(getattr(field.type, "shape", ()))
        column = column.storage
    missing = column.null_count
    if pa.types.is_fixed_size_list(column.type):
        shape = shape or (column.type.list_size,)
        column = column.flatten()
        missing += column.null_count
    if missing and not (pa.types.is_floating(column.type) and not shape):
        raise DataError(
            f"column {field.name!r} has missing values, which an NPZ file cannot hold; "
            "write .parquet"
        )
    stored = (field.metadata or {}).get(NUMPY_TYPE)
    if stored is not None:
        return np.array(column.to_pylist(), stored.decode())
    array: NumpyArray = column.to_numpy(zero_copy_only=False)
    return array.reshape(-1, *shape)
