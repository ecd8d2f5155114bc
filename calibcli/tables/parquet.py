"""Parquet files, read in small pieces however large their row groups are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from calibcli.errors import DataError
from calibcli.tables.columns import ArrowBlock, arrow_fields, class_names, cut, regroup, with_keys
from calibcli.tables.fields import READING_ERRORS, Field, first_line
from calibcli.tables.locations import Location

PIECE_BYTES = 8 << 20
"""What is decoded at a time. Decoding nested columns takes about six times as much memory."""

BUFFER_BYTES = 4 << 20
"""What is read ahead, shared by the columns. Without it a whole column chunk is read at once."""


@dataclass(frozen=True)
class ParquetData:
    """A Parquet file.

    Attributes
    ----------
    location : Location
    fields : tuple of Field
    class_names : tuple of str or None
    starts : tuple of int
        First row of each row group.
    row_bytes : float
        Mean size of a row, all columns, before compression.
    """

    location: Location
    fields: tuple[Field, ...]
    class_names: tuple[str, ...] | None
    starts: tuple[int, ...]
    row_bytes: float
    format: str = "parquet"

    def splits(self, rows: int) -> Sequence[int]:
        """The first rows of the row groups."""
        return self.starts

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[ArrowBlock]:
        """Rows ``begin`` to before ``end``, at most ``rows`` at a time and `PIECE_BYTES`."""
        ends = [*self.starts[1:], end]
        groups = [
            index
            for index, (first, after) in enumerate(zip(self.starts, ends, strict=True))
            if first < end and begin < after
        ]
        if not groups:
            return
        keys = self.location.keys
        with _opened(self.location, len(names)) as file:
            there = set(file.schema_arrow.names)
            stored = [name for name in names if name in there]
            batches = file.iter_batches(
                self._piece_rows(names, rows),
                row_groups=groups,
                columns=stored,
                use_threads=len(stored) > 1,
            )
            inside = cut(batches, begin - self.starts[groups[0]], end - begin)
            for batch in regroup(inside, rows):
                yield ArrowBlock(with_keys(batch, names, keys))

    def head(self, names: Sequence[str], begin: int, rows: int) -> ArrowBlock | None:
        """Up to ``rows`` rows from ``begin`` on."""
        return next(self.read(names, begin, begin + rows, rows), None)

    def _piece_rows(self, names: Sequence[str], rows: int) -> int:
        wanted = set(names)
        sizes = [_row_bytes(field) for field in self.fields if field.name in wanted]
        row: float = sum(size for size in sizes if size is not None)
        if None in sizes:
            row = max(row, self.row_bytes)
        return max(1, min(rows, int(PIECE_BYTES / max(row, 1))))


def _row_bytes(field: Field) -> int | None:
    """Size of a row where the type tells it."""
    if field.dtype is None or field.axes > 2 or (field.axes == 2 and field.width is None):
        return None
    return (field.width or 1) * np.dtype(field.dtype).itemsize


def open_parquet(location: Location) -> ParquetData:
    """Read the footer of a Parquet file.

    Raises
    ------
    DataError
        It is not a readable Parquet file, or two columns have the same name.
    """
    with _opened(location) as file:
        metadata, schema = file.metadata, file.schema_arrow
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        counts = [group.num_rows for group in groups]
        if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows:
            raise ValueError("the row counts in its footer contradict each other")
        return ParquetData(
            location,
            arrow_fields(location, schema, metadata.num_rows),
            class_names(schema),
            tuple(itertools.accumulate(counts[:-1], initial=0)),
            # What is stored of single columns is not asked for: pyarrow aborts where it is damaged.
            sum(group.total_byte_size for group in groups) / max(metadata.num_rows, 1),
        )


@contextmanager
def _opened(location: Location, columns: int = 1) -> Iterator[Any]:
    """The file as `pyarrow.parquet.ParquetFile`; what goes wrong inside is a `DataError`."""
    try:
        with pa.OSFile(location.path) if location.url is None else location.open() as source:
            buffer = max(BUFFER_BYTES // max(columns, 1), 1 << 14)
            yield pq.ParquetFile(source, buffer_size=buffer, pre_buffer=False)
    except (pa.ArrowException, *READING_ERRORS) as error:
        raise DataError(
            f"{location.name}: not a readable Parquet file ({first_line(error)})"
        ) from error
