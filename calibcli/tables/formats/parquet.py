"""Parquet: read in small batches however large the row groups are; written as they fill."""

from __future__ import annotations

import io
import itertools
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from calibcli.arrays import NumpyArray
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
from calibcli.tables.formats.base import DECODED_BYTES, DataFile, Field
from calibcli.tables.formats.parquet_joining import JoinedFile
from calibcli.tables.formats.parquet_pages import Pages, page_starts
from calibcli.tables.locations import Location
from calibcli.tables.storage import ExpansionLimit, Spool

BUFFER_BYTES = 4 << 20
"""What is read ahead, shared by the columns. Without it a whole column chunk is read at once."""


_MOST_GROUPS = 8
"""Row groups that are encoded at once."""

GROUP_BYTES = 16 << 20
GROUP_ROWS = 1 << 16
"""A row group of probabilities has at most this size and this many rows."""


@dataclass(eq=False, kw_only=True)
class ParquetData(DataFile):
    """A Parquet file.

    Attributes
    ----------
    starts : tuple of int
        First row of each row group.
    row_bytes : float
        Mean size of a row, all columns, before compression.
    expansion : ExpansionLimit
        What a page may grow to.
    pages : frozenset of int
        Where the pages of each column begin.
    """

    starts: tuple[int, ...]
    row_bytes: float
    expansion: ExpansionLimit
    pages: frozenset[int]

    def splits(self, rows: int) -> Sequence[int]:
        """The first rows of the row groups."""
        return self.starts

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[ArrowBatch]:
        """Rows ``begin`` to before ``end``, at most ``rows`` at a time and `DECODED_BYTES`."""
        ends = [*self.starts[1:], end]
        groups = [
            index
            for index, (first, after) in enumerate(zip(self.starts, ends, strict=True))
            if first < end and begin < after
        ]
        if not groups:
            return
        keys = self.location.keys
        with _source(self.location) as source:
            file = self._opened(source, len(names))
            columns = set(file.schema_arrow.names)
            stored = [name for name in names if name in columns]
            batches = file.iter_batches(
                self._batch_rows(names, rows),
                row_groups=groups,
                columns=stored,
                use_threads=len(stored) > 1,
            )
            inside = cut(validated(batches), begin - self.starts[groups[0]], end - begin)
            for batch in regroup(inside, rows):
                yield ArrowBatch(with_keys(batch, names, keys))

    def _opened(self, source: Any, columns: int) -> Any:
        """The file as `pyarrow.parquet.ParquetFile`."""

        def check(size: int, stored: int) -> None:
            self.expansion.check(f"{self.location.name}, a page", size, stored)

        return pq.ParquetFile(
            Pages(source, self.pages, check),
            buffer_size=max(BUFFER_BYTES // max(columns, 1), 1 << 14),
            pre_buffer=False,
            page_checksum_verification=True,
        )

    def _batch_rows(self, names: Sequence[str], rows: int) -> int:
        wanted = set(names)
        sizes = [_row_bytes(field) for field in self.fields if field.name in wanted]
        row: float = sum(size for size in sizes if size is not None)
        if None in sizes:
            row = max(row, self.row_bytes)
        return max(1, min(rows, int(DECODED_BYTES / max(row, 1))))


def _row_bytes(field: Field) -> int | None:
    """Size of a row where the type tells it."""
    if field.dtype is None or field.axes > 2 or (field.axes == 2 and field.width is None):
        return None
    return (field.width or 1) * np.dtype(field.dtype).itemsize


def open_parquet(location: Location, spool: Spool) -> ParquetData:
    """Read the footer of a Parquet file.

    Raises
    ------
    DataError
        It is not a readable Parquet file, or two columns have the same name.
    """
    with _source(location) as source:
        file = pq.ParquetFile(source)
        metadata, schema = file.metadata, file.schema_arrow
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        counts = [group.num_rows for group in groups]
        if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows:
            raise ValueError("the row counts in its footer contradict each other")
        return ParquetData(
            location,
            "parquet",
            arrow_fields(location, schema, metadata.num_rows),
            class_names(schema),
            seen=seen_by_a_fit(schema),
            notes=notes_in(schema),
            starts=tuple(itertools.accumulate(counts[:-1], initial=0)),
            # The sizes of single columns are not asked for: pyarrow aborts where they are damaged.
            row_bytes=sum(group.total_byte_size for group in groups) / max(metadata.num_rows, 1),
            expansion=spool.expansion,
            pages=page_starts(source),
        )


@contextmanager
def _source(location: Location) -> Iterator[Any]:
    """The file as `pyarrow.NativeFile`; what goes wrong inside is a `DataError`."""
    with (
        refusing_damage(location, "Parquet"),
        pa.OSFile(os.fsencode(location.path))
        if location.url is None
        else location.open() as source,
    ):
        yield source


class ParquetSink(ArrowSink):
    """Writes Parquet: floating-point columns as BYTE_STREAM_SPLIT, everything with zstd; a `Sink`.

    Row groups are encoded on several threads, and are the same bytes on any number of them.

    Parameters
    ----------
    file, rows, class_names, seen, notes
        As of `ArrowSink`.
    threads : int
        On which row groups are encoded.
    """

    plain = False

    def __init__(
        self,
        file: BinaryIO,
        rows: int,
        class_names: tuple[str, ...] | None,
        seen: bool = False,
        notes: Mapping[str, str] | None = None,
        threads: int = 1,
    ) -> None:
        super().__init__(file, rows, class_names, seen, notes)
        self._waiting: list[Any] = []
        self._rows = self._group = 0
        self._joined = JoinedFile(file)
        # More at once take memory and little time, as do some that wait for a thread.
        self._most = min(threads, _MOST_GROUPS)
        self._pool = ThreadPoolExecutor(self._most, "calib-encode")
        self._encoded: deque[Future[Any]] = deque()

    def write(self, computed: Mapping[str, NumpyArray], columns: Any) -> None:
        """Collect rows, and write the row groups that are full."""
        batch = self._assembler.batch(computed, columns)
        if not self._group:
            scores = next(iter(computed.values()))
            row_bytes = scores.nbytes // len(scores)
            self._group = max(1, min(GROUP_ROWS, GROUP_BYTES // row_bytes))
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows >= self._group:
            self._write(self._rows - self._rows % self._group)

    def _write(self, rows: int) -> None:
        """Have some of the rows that wait encoded, and write row groups that are."""
        table = pa.Table.from_batches(self._waiting)
        for begin in range(0, rows, self._group):
            while len(self._encoded) >= self._most:
                self._joined.append(memoryview(b"".join(self._encoded.popleft().result())))
            group = table.slice(begin, min(self._group, rows - begin))
            self._encoded.append(self._pool.submit(_encoded, group))
        self._waiting = table.slice(rows).to_batches()
        self._rows -= rows

    def close(self) -> None:
        """Write the last row groups and the footer."""
        if self._rows:
            self._write(self._rows)
        while self._encoded:
            self._joined.append(memoryview(b"".join(self._encoded.popleft().result())))
        self._joined.close()
        self._pool.shutdown()

    def abandon(self) -> None:
        """Stop the threads, and wait for what they have begun."""
        self._pool.shutdown(cancel_futures=True)


def _encoded(group: Any) -> list[bytes]:
    """A whole Parquet file with one row group, in pieces."""
    paths = {field.name: _float_path(field) for field in group.schema}
    floats = [path for path in paths.values() if path is not None]
    others = [name for name, path in paths.items() if path is None]
    file = _Pieces()
    pq.write_table(
        group,
        file,
        row_group_size=group.num_rows,
        compression="zstd",
        compression_level=1,
        use_byte_stream_split=floats,
        use_dictionary=others,
        # Smallest and largest value of all classes together serve no reader.
        write_statistics=[name for name, path in paths.items() if path in (None, name)],
    )
    return file.pieces


class _Pieces(io.RawIOBase):
    """A file in memory that never moves: buffers that grow would take twice as much, and more."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        self.pieces.append(bytes(data))
        self._size += len(data)
        return len(data)


def _float_path(field: Any) -> str | None:
    """Where the floating-point numbers of a column are, in Parquet's terms."""
    kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    path = field.name
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    while any(test(kind) for test in lists):
        kind, path = kind.value_type, f"{path}.list.element"
    return path if kind in (pa.float32(), pa.float64()) else None
