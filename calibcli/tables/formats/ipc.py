"""Arrow IPC: files and streams on disk, memory-mapped, and a stream read from a pipe."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import pyarrow as pa

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError
from calibcli.tables.formats.arrow import (
    ArrowBatch,
    ArrowSink,
    arrow_fields,
    class_names,
    cut,
    notes_in,
    refusing_damage,
    regroup,
    seen_by_a_fit,
    validated,
    with_keys,
)
from calibcli.tables.formats.base import UNKNOWN_ROWS, DataFile
from calibcli.tables.formats.ipc_messages import CheckedStream, check_file, check_stream
from calibcli.tables.locations import Location
from calibcli.tables.storage import MappedFile, Spool

_TITLE = "Arrow IPC"

SMALLEST_PARTITION = 1 << 14
"""Batches may be tiny; partitions that are read independently should not be."""


@dataclass(eq=False, kw_only=True)
class IpcData(DataFile):
    """A local Arrow IPC file or a stored stream.

    Attributes
    ----------
    starts : tuple of int
        First row of each record batch.
    mapped : bool
        Whether it can be read without a copy: it is not compressed.
    layout : str
        ``"ipc-file"`` or ``"ipc-stream"``.
    """

    starts: tuple[int, ...]
    mapped: bool
    layout: str

    def splits(self, rows: int) -> Sequence[int]:
        """First rows of record batches, some way apart; a stream is read from its start."""
        splits = [0]
        for start in self.starts if self.layout == "ipc-file" else ():
            if start >= splits[-1] + SMALLEST_PARTITION:
                splits.append(start)
        return splits

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[ArrowBatch]:
        """Rows ``begin`` to before ``end``: views of the mapped file if it is not compressed."""
        mapping = MappedFile(self.location.path)
        with refusing_damage(self.location, _TITLE):
            first = max(0, sum(start <= begin for start in self.starts) - 1)
            skip = begin - (self.starts[first] if self.layout == "ipc-file" else 0)
            # Choosing columns copies them, which only decompression does anyway.
            batches = _batches(mapping, self.layout, None if self.mapped else set(names), first)
            whole = end - begin <= rows
            for batch in regroup(cut(batches, skip, end - begin), rows):
                yield ArrowBatch(with_keys(batch, names, self.location.keys))
                if not whole:
                    mapping.release()


def open_ipc_file(location: Location, spool: Spool) -> IpcData:
    """Look at an Arrow IPC file.

    Raises
    ------
    DataError
        It is not readable, what it has compressed would grow beyond all measure, or two columns
        have the same name.
    """
    return _open(location, "ipc-file", spool)


def open_ipc_stream(location: Location, spool: Spool) -> IpcData:
    """Look at a stored Arrow IPC stream.

    Raises
    ------
    DataError
        See `open_ipc_file`.
    """
    return _open(location, "ipc-stream", spool)


def _open(location: Location, form: str, spool: Spool) -> IpcData:
    mapping = MappedFile(location.path)
    with refusing_damage(location, _TITLE):
        schema = _reader(mapping, form).schema
        look = check_file if form == "ipc-file" else check_stream
        check = partial(spool.expansion.check, f"{location.name}, a batch")
        look(memoryview(mapping.memory), check)
        first = next(_batches(mapping, form, None, 0), None)
        mapped = first is not None and all(_in_place(column, mapping) for column in first.columns)
        names = None if mapped else ()
        counts = [batch.num_rows for batch in _batches(mapping, form, names, 0)]
        check(_decoded(schema, max(counts, default=0)), len(mapping.bytes))
        whole = schema.names if mapped and len(counts) == 1 else ()
        fields = arrow_fields(location, schema, sum(counts), whole)
        starts = (0, *itertools.accumulate(counts[:-1]))
        named, seen = class_names(schema), seen_by_a_fit(schema)
        return IpcData(
            location,
            form,
            fields,
            named,
            seen=seen,
            notes=notes_in(schema),
            starts=starts,
            mapped=mapped,
            layout=form,
        )


def _decoded(schema: Any, rows: int) -> int:
    """Bytes of a batch's columns of runs, of which one may stand for any number of rows."""
    return 8 * rows * sum(bool(each) for each in map(pa.types.is_run_end_encoded, schema.types))


def _bounded(batches: Iterable[Any], check: Callable[[int, int], None]) -> Iterator[Any]:
    """Batches whose runs do not grow beyond measure."""
    for batch in batches:
        check(_decoded(batch.schema, batch.num_rows), batch.get_total_buffer_size())
        yield batch


def _in_place(column: Any, mapping: MappedFile) -> bool:
    buffers = [buffer for buffer in column.buffers() if buffer is not None]
    return all(buffer.size == 0 or mapping.contains(buffer.address) for buffer in buffers)


def _reader(mapping: MappedFile, form: str, fields: list[int] | None = None) -> Any:
    source = pa.BufferReader(pa.py_buffer(mapping.memory))
    options = pa.ipc.IpcReadOptions(included_fields=fields)
    opened = pa.ipc.open_file if form == "ipc-file" else pa.ipc.open_stream
    return opened(source, options=options)


def _batches(
    mapping: MappedFile, form: str, names: Iterable[str] | None, first: int
) -> Iterator[Any]:
    """The record batches from a number on: with the named columns and perhaps one more, or all."""
    reader = _reader(mapping, form)
    if names is not None and len(reader.schema):
        schema, asked = reader.schema, frozenset(names)
        wanted = [index for index, name in enumerate(schema.names) if name in asked]
        # An empty list would mean all fields, and decompress them.
        cheapest = min(range(len(schema)), key=lambda index: schema.field(index).type.num_fields)
        reader = _reader(mapping, form, wanted or [cheapest])
    if form == "ipc-file":
        batches = map(reader.get_batch, range(first, reader.num_record_batches))
    else:
        batches = iter(reader)
    yield from validated(batches)


@dataclass(eq=False, kw_only=True)
class PipedIpc(DataFile):
    """An Arrow IPC stream that is read from a pipe, once.

    Attributes
    ----------
    batches : iterator of pyarrow.RecordBatch, or None
        Those to come; None when they were read.
    first : list of pyarrow.RecordBatch
        One that came already and has rows, until it is read.
    """

    batches: Iterator[Any] | None
    first: list[Any]

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[ArrowBatch]:
        """All rows, whatever ``begin`` and ``end``.

        Raises
        ------
        DataError
            It was read before, or it breaks off.
        """
        if self.batches is None:
            raise DataError(f"{self.location.name}: a stream can be read only once")
        batches = itertools.chain(self.first, self.batches)
        self.first, self.batches = [], None
        with refusing_damage(self.location, _TITLE):
            # Merging batches would wait for rows that may be long in coming.
            for batch in regroup(batches, rows, merged=1):
                yield ArrowBatch(batch)

    def head(self, names: Sequence[str], begin: int, rows: int) -> ArrowBatch | None:
        """Up to ``rows`` rows of the first record batch; they will be read again."""
        return ArrowBatch(self.first[0].slice(0, rows)) if self.first else None


def open_ipc_pipe(location: Location, stream: IO[bytes], spool: Spool) -> PipedIpc:
    """Read the beginning of an Arrow IPC stream from a pipe.

    Parameters
    ----------
    location : Location
        For messages.
    stream : binary file
        At the beginning of the stream.
    spool : Spool
        For its limit.

    Raises
    ------
    DataError
        See `open_ipc_file`.
    """
    check = partial(spool.expansion.check, f"{location.name}, a batch")
    with refusing_damage(location, _TITLE):
        reader = pa.ipc.open_stream(pa.PythonFile(CheckedStream(stream, check), "r"))
        batches = _bounded(validated(iter(reader)), check)
        first = list(itertools.islice((batch for batch in batches if batch.num_rows), 1))
        fields = arrow_fields(location, reader.schema, UNKNOWN_ROWS)
        names, seen = class_names(reader.schema), seen_by_a_fit(reader.schema)
    return PipedIpc(
        location,
        "ipc-stream",
        fields,
        names,
        seen=seen,
        notes=notes_in(reader.schema),
        batches=batches,
        first=first,
    )


class IpcFileSink(ArrowSink):
    """Writes an Arrow IPC file; a `Sink`."""

    plain = True
    _new = staticmethod(pa.ipc.new_file)

    def write(self, computed: Mapping[str, NumpyArray], columns: Any) -> None:
        batch = self._assembler.batch(computed, columns)
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
        self._writer = None


class IpcStreamSink(IpcFileSink):
    """Writes an Arrow IPC stream; a `Sink`."""

    _new = staticmethod(pa.ipc.new_stream)
