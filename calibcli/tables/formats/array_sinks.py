"""Outputs as NumPy's arrays: an NPZ file, or the probabilities alone as an NPY file.

Arrays are uncompressed and aligned, so that they can be memory-mapped, and written row by row.
Rows that were images, volumes or sequences get their shape back.
"""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError
from calibcli.tables.formats.arrow_arrays import host_array
from calibcli.tables.formats.base import GridShape, free_names
from calibcli.tables.formats.npy import NUMPY_TYPE
from calibcli.tables.formats.npz import CLASSES_KEY, NOTES_KEY, SEEN_KEY
from calibcli.tables.storage import COPIED_BYTES

IN_MEMORY_BYTES = 8 << 20
"""What each array of an output may hold in memory; more goes to a temporary file."""

LONGEST_TEXT = 256
"""Characters of a text of which an NPZ has as many for each row."""

_CHARACTER_BYTES = 4
_ALIGNMENT = 64
_ZIP64_BYTES = 20
_PADDING = struct.Struct("<HH")
_PADDING_ID = 0xD935
"""The extra field of a zip entry with which Android's zipalign pads."""


class NpzSink:
    """Writes what was computed, and the numeric columns of the input; a `Sink`.

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
    seen : bool
        Whether a fit has seen the rows.
    grid : GridShape or None
        The shape that the rows get back.
    notes : dict of str to str or None
        How the rows are to be read, see `DataFile.notes`.
    """

    def __init__(
        self,
        file: BinaryIO,
        rows: int,
        class_names: tuple[str, ...] | None,
        seen: bool = False,
        grid: GridShape | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)
        self._file, self._promised, self._class_names = file, rows, class_names
        self._seen, self._grid, self._notes = seen, grid, notes
        self._arrays: dict[str, _Waiting] = {}
        self._direct: IO[bytes] | None = None
        self._rows, self._scores = 0, ""
        self._per_image: list[str] = []
        self.renamed: dict[str, str] = {}
        self.left_out: tuple[str, ...] = ()

    def write(self, computed: Mapping[str, NumpyArray], columns: Any) -> None:
        """Write the scores and put the rest aside.

        Raises
        ------
        DataError
            A column has missing values or other types than before.
        """
        arrays = dict(computed)
        if columns is not None:
            self._add_columns(columns, arrays)
        name, first = next(iter(computed.items()))
        self._scores = name if first.ndim > 1 else ""
        grid, rows = self._grid, len(first)
        if grid is not None:
            if self._scores:
                arrays[name] = grid.scores(first)
            image = -self._rows % grid.per_image
            arrays |= {name: arrays[name][image :: grid.per_image] for name in self._per_image}
        if not self._rows:
            self._begin(arrays)
        for name, array in arrays.items():
            if name == self._scores and self._direct is not None:
                self._direct.write(_bytes(array, array.dtype))
            else:
                self._arrays[name].write(array, name)
        self._rows += rows

    def _begin(self, arrays: dict[str, NumpyArray]) -> None:
        grid = self._grid
        in_order = self._promised >= 0 and (grid is None or grid.is_in_order)
        for name, array in arrays.items():
            if name != self._scores:
                waiting = _WaitingTexts if array.dtype.kind == "O" else _Waiting
                self._arrays[name] = waiting(array, None if name in self._per_image else grid)
            elif not in_order:
                self._arrays[name] = _Waiting(array, grid, is_scores=True)
        if in_order and self._scores:
            scores = arrays[self._scores]
            self._direct = self._open(self._scores)
            shape: tuple[int, ...] = (self._promised, scores.shape[1])
            if grid is not None:
                shape = grid.with_classes(grid.lengths(self._promised), scores.shape[1])
            _write_header(self._direct, scores.dtype, shape)

    def _add_columns(self, columns: Any, arrays: dict[str, NumpyArray]) -> None:
        known = () if self._grid is None else self._grid.index
        if not self._rows:
            names = [name for name in columns.schema.names if name not in known]
            self.renamed = free_names(names, [*arrays, CLASSES_KEY, SEEN_KEY, NOTES_KEY])
            self.left_out = tuple(field.name for field in columns.schema if not _fits(field))
            per_image = () if self._grid is None else self._grid.image_fields
            self._per_image = [self.renamed.get(name, name) for name in per_image if name in names]
        for field, column in zip(columns.schema, columns.columns, strict=True):
            if field.name not in self.left_out and field.name not in known:
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
            if isinstance(waiting, _WaitingTexts) and not waiting.fits:
                old = next((old for old, new in self.renamed.items() if new == name), name)
                self.left_out += (old,)
                continue
            with self._open(name) as entry:
                waiting.copy_to(entry)
        if self._class_names is not None:
            with self._open(CLASSES_KEY) as entry:
                npy.write_array(entry, np.array(self._class_names), allow_pickle=False)
        if self._seen:
            with self._open(SEEN_KEY) as entry:
                npy.write_array(entry, np.array([True]), allow_pickle=False)
        if self._notes is not None:
            with self._open(NOTES_KEY) as entry:
                npy.write_array(entry, np.array([json.dumps(self._notes)]), allow_pickle=False)
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


class NpySink:
    """Writes the probabilities alone; a `Sink` with the parameters of an `NpzSink`."""

    def __init__(
        self,
        file: BinaryIO,
        rows: int,
        class_names: tuple[str, ...] | None,
        seen: bool = False,
        grid: GridShape | None = None,
    ) -> None:
        del rows, class_names, seen
        self._file, self._grid = file, grid
        self._probs: _Waiting | None = None
        self.renamed: dict[str, str] = {}
        self.left_out: tuple[str, ...] = ()

    def write(self, computed: Mapping[str, NumpyArray], columns: Any) -> None:
        """Put the probabilities aside: the header says how many there are."""
        probs = computed["probs"]
        probs = probs if self._grid is None else self._grid.scores(probs)
        if self._probs is None:
            names = [] if columns is None else columns.schema.names
            known = () if self._grid is None else self._grid.index
            self.left_out = tuple(name for name in names if name not in known)
            self._probs = _Waiting(probs, self._grid, is_scores=True)
        self._probs.write(probs, "probs")

    def close(self) -> None:
        """Write the array."""
        if self._probs is not None:
            self._probs.copy_to(self._file)

    def abandon(self) -> None:
        """Delete what waits."""
        if self._probs is not None:
            self._probs.close()


class _Waiting:
    """An array that waits until the one before it is complete.

    Parameters
    ----------
    first : array (n, …)
        Some rows of it.
    grid : GridShape or None
        The shape that the rows get back.
    is_scores : bool
        Whether a row is one value a class, and goes where the classes stand in this shape.
    """

    def __init__(
        self, first: NumpyArray, grid: GridShape | None, *, is_scores: bool = False
    ) -> None:
        self._dtype, self._shape = first.dtype, first.shape[1:]
        self._grid, self._rows = grid, 0
        self._is_scores = is_scores
        self._blocks: list[tuple[int, int]] = []
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 (see `close`)

    def write(self, array: NumpyArray, name: str) -> None:
        if array.shape[1:] != self._shape or not np.can_cast(array.dtype, self._dtype):
            raise DataError(
                f"column {name!r} has missing values or changes its type, which an NPZ file "
                "cannot hold; write .parquet"
            )
        if self._is_scores and self._grid is not None and not self._grid.is_in_order:
            self._write_by_class(array, self._grid.behind_classes)
        else:
            self._file.write(_bytes(array, self._dtype))
        self._rows += len(array)

    def _write_by_class(self, scores: NumpyArray, behind: int) -> None:
        """Scores (n, K) of places of which so many lie behind the axis of the classes."""
        classes, size, begin = scores.shape[1], self._dtype.itemsize, 0
        while begin < len(scores):
            block, place = divmod(self._rows + begin, behind)
            end = min(len(scores), begin + behind - place)
            by_class = np.ascontiguousarray(scores[begin:end].T, self._dtype)
            at = block * classes * behind + place
            if end - begin == behind:
                self._file.seek(at * size)
                self._file.write(_bytes(by_class, self._dtype))
            else:
                for number, values in enumerate(by_class):
                    self._file.seek((at + number * behind) * size)
                    self._file.write(_bytes(values, self._dtype))
            begin = end

    def copy_to(self, entry: IO[bytes]) -> None:
        grid = self._grid
        places = (self._rows,) if grid is None else grid.lengths(self._rows)
        shape = (*places, *self._shape)
        if self._is_scores and grid is not None:
            shape = grid.with_classes(places, *self._shape)
        _write_header(entry, self._dtype, shape)
        self._file.seek(0)
        shutil.copyfileobj(self._file, entry, COPIED_BYTES)

    def close(self) -> None:
        self._file.close()


class _WaitingTexts(_Waiting):
    """Texts that wait, of which the longest is known at the end.

    Attributes
    ----------
    fits : bool
        Whether none is missing and all are short enough: in the file each takes as much as the
        longest.
    """

    fits = True

    def write(self, array: NumpyArray, name: str) -> None:
        if not self.fits or any(text is None for text in array.tolist()):
            self.fits = False
            return
        texts = array.astype(np.str_)
        width = max(texts.dtype.itemsize // _CHARACTER_BYTES, 1)
        self.fits = width <= LONGEST_TEXT
        if self.fits:
            self._blocks.append((len(texts), width))
            self._file.write(_bytes(texts, np.dtype(f"<U{width}")))
            self._rows += len(texts)

    def copy_to(self, entry: IO[bytes]) -> None:
        longest = max((width for _, width in self._blocks), default=1)
        kind = np.dtype(f"<U{longest}")
        places = (self._rows,) if self._grid is None else self._grid.lengths(self._rows)
        _write_header(entry, kind, places)
        self._file.seek(0)
        for rows, width in self._blocks:
            content = self._file.read(rows * width * _CHARACTER_BYTES)
            texts = np.frombuffer(content, f"<U{width}")
            entry.write(_bytes(texts.astype(kind), kind))


def _bytes(array: NumpyArray, dtype: np.dtype[Any]) -> memoryview:
    # Dates and strings offer no buffer of their own.
    return np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data


def _write_header(entry: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    npy.write_array_header_1_0(
        entry,
        {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape},
    )


def _is_numeric(kind: Any) -> bool:
    import pyarrow as pa

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
    """Whether a column can be an array: numbers, dates, vectors and tensors of them, texts."""
    import pyarrow as pa

    from calibcli.tables.formats.arrow_types import element_of, is_list

    kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    if pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    is_text = element_of(field.type)[0] == "string" and not is_list(field.type)
    return is_text or _is_numeric(kind) or NUMPY_TYPE in (field.metadata or {})


def _from_arrow(field: Any, column: Any) -> NumpyArray:
    import pyarrow as pa

    from calibcli.tables.formats.arrow import row_shape
    from calibcli.tables.formats.arrow_types import element_of, is_list

    is_text = element_of(column.type)[0] == "string" and not is_list(column.type)
    if is_text and NUMPY_TYPE not in (field.metadata or {}):
        return np.array(column.to_pylist(), object)
    shape = row_shape(field) or ()
    if isinstance(field.type, pa.BaseExtensionType):
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
    array: NumpyArray = host_array(column)
    return array.reshape(-1, *shape)
