"""Output as Parquet and Arrow IPC: a tensor column of probabilities next to the input's columns."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from calibcli.engine.source import NumpyArray
from calibcli.tables.columns import CLASSES_KEY
from calibcli.tables.labels import NO_LABEL
from calibcli.tables.writing import Piece, free_names

GROUP_BYTES = 16 << 20
GROUP_ROWS = 1 << 16
"""A row group of probabilities has at most this size and this many rows."""


def tensor(array: NumpyArray) -> Any:
    """A matrix (n, m) as an Arrow array of fixed-shape tensors, without a copy."""
    values = pa.array(np.ascontiguousarray(array).reshape(-1))
    kind = pa.fixed_shape_tensor(values.type, list(array.shape[1:]))
    storage = pa.FixedSizeListArray.from_arrays(values, array.shape[1])
    return pa.ExtensionArray.from_storage(kind, storage)


def _column(name: str, array: NumpyArray) -> Any:
    if array.ndim == 2:
        return tensor(array)
    if name == "label":
        return pa.array(array, pa.int64(), mask=array == NO_LABEL)
    return pa.array(np.ascontiguousarray(array))


class Assembler:
    """Makes record batches of one schema from pieces.

    Parameters
    ----------
    class_names : tuple of str or None
        Written in the metadata of the schema.
    plain : bool
        Whether dictionary-encoded columns are decoded: an IPC file has one dictionary a column,
        but the pieces may have different ones.
    """

    def __init__(self, class_names: tuple[str, ...] | None, *, plain: bool) -> None:
        names = json.dumps(list(class_names), ensure_ascii=False) if class_names else None
        self._metadata = None if names is None else {CLASSES_KEY: names.encode()}
        self._plain = plain
        self.schema: Any = None
        self.renamed: dict[str, str] = {}

    def batch(self, piece: Piece) -> Any:
        """The rows of a piece: what was computed, then the columns of the input."""
        arrays = {name: _column(name, array) for name, array in piece.own.items()}
        fields = [pa.field(name, array.type) for name, array in arrays.items()]
        columns = list(arrays.values())
        if piece.columns is not None:
            schema = piece.columns.schema
            if self.schema is None:
                self.renamed = free_names(schema.names, arrays)
            for field, column in zip(schema, piece.columns.columns, strict=True):
                if self._plain and pa.types.is_dictionary(field.type):
                    column = column.dictionary_decode()  # noqa: PLW2901 (the same column)
                new = self.renamed.get(field.name, field.name)
                fields.append(field.with_name(new).with_type(column.type))
                columns.append(column)
        if self.schema is None:
            self.schema = pa.schema(fields, self._metadata)
        columns = [
            column if column.type == field.type else column.cast(field.type)
            for column, field in zip(columns, self.schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


class ParquetSink:
    """Writes Parquet: floating-point columns as BYTE_STREAM_SPLIT, everything with zstd.

    Parameters
    ----------
    file : binary file
    class_names : tuple of str or None
    """

    left_out: tuple[str, ...] = ()

    def __init__(self, file: BinaryIO, class_names: tuple[str, ...] | None) -> None:
        self._file = file
        self._assembler = Assembler(class_names, plain=False)
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._rows = 0

    @property
    def renamed(self) -> dict[str, str]:
        """Columns of the input that were renamed."""
        return self._assembler.renamed

    def write(self, piece: Piece) -> None:
        """Collect rows, and write the row groups that are full."""
        batch = self._assembler.batch(piece)
        if self._writer is None:
            self._writer = self._open(batch.schema)
            row = piece.own["probs"].itemsize * piece.own["probs"].shape[1]
            self._group = max(1, min(GROUP_ROWS, GROUP_BYTES // row))
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows >= self._group:
            self._write(self._rows - self._rows % self._group)

    def _open(self, schema: Any) -> Any:
        paths = {field.name: _float_path(field) for field in schema}
        floats = [path for path in paths.values() if path is not None]
        others = [name for name, path in paths.items() if path is None]
        return pq.ParquetWriter(
            self._file,
            schema,
            compression="zstd",
            compression_level=1,
            use_byte_stream_split=floats,
            use_dictionary=others,
            # Smallest and largest value of all classes together serve no reader.
            write_statistics=[name for name, path in paths.items() if path in (None, name)],
        )

    def _write(self, rows: int) -> None:
        table = pa.Table.from_batches(self._waiting)
        self._writer.write_table(table.slice(0, rows), row_group_size=self._group)
        self._waiting = table.slice(rows).to_batches()
        self._rows -= rows

    def close(self) -> None:
        """Write the last row group and the footer."""
        if self._rows:
            self._write(self._rows)
        if self._writer is not None:
            self._writer.close()

    def abandon(self) -> None:
        """Let the writer go, now and not when it is collected."""
        if self._writer is not None:
            with suppress(Exception):
                self._writer.close()


def _float_path(field: Any) -> str | None:
    """Where the floating-point numbers of a column are, in Parquet's terms."""
    kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    path = field.name
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    while any(test(kind) for test in lists):
        kind, path = kind.value_type, f"{path}.list.element"
    return path if kind in (pa.float32(), pa.float64()) else None


class IpcSink:
    """Writes an Arrow IPC file or stream.

    Parameters
    ----------
    file : binary file
    class_names : tuple of str or None
    stream : bool
    """

    left_out: tuple[str, ...] = ()

    def __init__(
        self, file: BinaryIO, class_names: tuple[str, ...] | None, *, stream: bool
    ) -> None:
        self._file = file
        self._assembler = Assembler(class_names, plain=True)
        self._new = pa.ipc.new_stream if stream else pa.ipc.new_file
        self._writer: Any = None

    @property
    def renamed(self) -> dict[str, str]:
        """Columns of the input that were renamed."""
        return self._assembler.renamed

    def write(self, piece: Piece) -> None:
        """Write a record batch."""
        batch = self._assembler.batch(piece)
        if self._writer is None:
            self._writer = self._new(self._file, batch.schema)
        self._writer.write_batch(batch)
        # Whoever reads the stream at the other end need not wait for the next batch.
        self._file.flush()

    def close(self) -> None:
        """Write the end of the stream, or the footer."""
        if self._writer is not None:
            self._writer.close()

    def abandon(self) -> None:
        """Let the writer go."""
        self._writer = None
