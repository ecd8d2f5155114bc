"""Arrow IPC: files and streams on disk, memory-mapped, and a stream read from a pipe."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa

from calibcli.errors import DataError
from calibcli.tables.columns import (
    ArrowBlock,
    arrow_fields,
    class_names,
    cut,
    regroup,
    with_keys,
)
from calibcli.tables.fields import READING_ERRORS, UNKNOWN_ROWS, Field, first_line
from calibcli.tables.locations import Location
from calibcli.tables.mapping import Mapping

SPLIT_ROWS = 1 << 14
"""Batches may be tiny; parts that are read independently should not be."""


@dataclass(frozen=True)
class IpcData:
    """An Arrow IPC file or a stored stream.

    Attributes
    ----------
    location : Location
        Of a local file.
    fields : tuple of Field
    class_names : tuple of str or None
    starts : tuple of int
        First row of each record batch.
    format : str
        ``"ipc-file"`` or ``"ipc-stream"``.
    mapped : bool
        Whether it can be read without a copy: it is not compressed.
    """

    location: Location
    fields: tuple[Field, ...]
    class_names: tuple[str, ...] | None
    starts: tuple[int, ...]
    format: str
    mapped: bool

    def splits(self, rows: int) -> Sequence[int]:
        """First rows of record batches, `SPLIT_ROWS` apart; a stream is read from its start."""
        splits = [0]
        for start in self.starts if self.format == "ipc-file" else ():
            if start >= splits[-1] + SPLIT_ROWS:
                splits.append(start)
        return splits

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[ArrowBlock]:
        """Rows ``begin`` to before ``end``: views of the mapped file if it is not compressed."""
        mapping = Mapping(self.location.path)
        with _refusing(self.location):
            first = max(0, sum(start <= begin for start in self.starts) - 1)
            skip = begin - (self.starts[first] if self.format == "ipc-file" else 0)
            # Choosing columns copies them, which only decompression does anyway.
            batches = _batches(mapping, self.format, None if self.mapped else set(names), first)
            whole = end - begin <= rows
            for batch in regroup(cut(batches, skip, end - begin), rows):
                yield ArrowBlock(with_keys(batch, names, self.location.keys))
                if not whole:
                    mapping.release()

    def head(self, names: Sequence[str], begin: int, rows: int) -> ArrowBlock | None:
        """Up to ``rows`` rows from ``begin`` on."""
        return next(self.read(names, begin, begin + rows, rows), None)


def open_ipc(location: Location, kind: str) -> IpcData:
    """Look at an Arrow IPC file (``"ipc-file"``) or stored stream (``"ipc-stream"``).

    Raises
    ------
    DataError
        It is not readable, or two columns have the same name.
    """
    mapping = Mapping(location.path)
    with _refusing(location):
        schema = _reader(mapping, kind).schema
        first = next(_batches(mapping, kind, None, 0), None)
        mapped = first is not None and all(_in_place(column, mapping) for column in first.columns)
        names = None if mapped else ()
        counts = [batch.num_rows for batch in _batches(mapping, kind, names, 0)]
        whole = schema.names if mapped and len(counts) == 1 else ()
        fields = arrow_fields(location, schema, sum(counts), whole)
        starts = (0, *itertools.accumulate(counts[:-1]))
        return IpcData(location, fields, class_names(schema), starts, kind, mapped)


def _in_place(column: Any, mapping: Mapping) -> bool:
    buffers = [buffer for buffer in column.buffers() if buffer is not None]
    return all(buffer.size == 0 or mapping.owns(buffer.address) for buffer in buffers)


def _reader(mapping: Mapping, kind: str, fields: list[int] | None = None) -> Any:
    source = pa.BufferReader(pa.py_buffer(mapping.memory))
    options = pa.ipc.IpcReadOptions(included_fields=fields)
    opened = pa.ipc.open_file if kind == "ipc-file" else pa.ipc.open_stream
    return opened(source, options=options)


def _batches(
    mapping: Mapping, kind: str, names: Container[str] | None, first: int
) -> Iterator[Any]:
    """The record batches from a number on: with the named columns and perhaps one more, or all."""
    reader = _reader(mapping, kind)
    if names is not None and len(reader.schema):
        schema = reader.schema
        wanted = [index for index, name in enumerate(schema.names) if name in names]
        # An empty list would mean all fields, and decompress them.
        cheapest = min(range(len(schema)), key=lambda index: schema.field(index).type.num_fields)
        reader = _reader(mapping, kind, wanted or [cheapest])
    if kind == "ipc-file":
        batches = map(reader.get_batch, range(first, reader.num_record_batches))
    else:
        batches = iter(reader)
    for batch in batches:
        # Lengths that do not agree with the buffers would be read past their end.
        batch.validate()
        yield batch


@contextmanager
def _refusing(location: Location) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, *READING_ERRORS) as error:
        raise DataError(
            f"{location.name}: not a readable Arrow IPC file ({first_line(error)})"
        ) from error


class StreamData:
    """An Arrow IPC stream that is read from a pipe, once.

    Parameters
    ----------
    location : Location
        For messages.
    stream : binary file
        At the beginning of the stream.

    Raises
    ------
    DataError
        It is not an Arrow IPC stream, or two columns have the same name.
    """

    format = "ipc-stream"

    def __init__(self, location: Location, stream: IO[bytes]) -> None:
        self.location = location
        with _refusing(location):
            self._reader = pa.ipc.open_stream(pa.PythonFile(stream, "r"))
            self._first = list(itertools.islice(_nonempty(self._reader), 1))
        self.fields = arrow_fields(location, self._reader.schema, UNKNOWN_ROWS)
        self.class_names = class_names(self._reader.schema)
        self._used = False

    def splits(self, rows: int) -> Sequence[int]:
        """A stream has one part."""
        return (0,)

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[ArrowBlock]:
        """All rows, whatever ``begin`` and ``end``.

        Raises
        ------
        DataError
            It was read before, or it breaks off.
        """
        if self._used:
            raise DataError(f"{self.location.name}: a stream can be read only once")
        self._used = True
        with _refusing(self.location):
            first, self._first = self._first, []
            # Merging batches would wait for rows that may be long in coming.
            for batch in regroup(itertools.chain(first, self._reader), rows, merged=1):
                yield ArrowBlock(batch)

    def head(self, names: Sequence[str], begin: int, rows: int) -> ArrowBlock | None:
        """Up to ``rows`` rows of the first record batch; they will be read again."""
        return ArrowBlock(self._first[0].slice(0, rows)) if self._first else None


def _nonempty(batches: Iterable[Any]) -> Iterator[Any]:
    return (batch for batch in batches if batch.num_rows)
