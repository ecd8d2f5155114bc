"""ORC: read stripe by stripe, as Hive and Spark write it.

Format: https://orc.apache.org/specification/ORCv1
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from calibcli.tables.formats.arrow import (
    ArrowBatch,
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
from calibcli.tables.formats.base import DataFile
from calibcli.tables.locations import Location
from calibcli.tables.storage import Spool

_LEAST_ROW_BYTES = 8
"""Of a column, in memory; runs of equal numbers take none in the file."""

_LARGEST_STRIPES = 1 << 16


@dataclass(eq=False, kw_only=True)
class OrcData(DataFile):
    """An ORC file.

    Attributes
    ----------
    starts : tuple of int
        First row of each stripe.
    """

    starts: tuple[int, ...]

    def splits(self, rows: int) -> Sequence[int]:
        """The first rows of the stripes."""
        return self.starts

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[ArrowBatch]:
        """Rows ``begin`` to before ``end``; a stripe of the picked columns is in memory."""
        ends = [*self.starts[1:], end]
        stripes = [
            index
            for index, (first, after) in enumerate(zip(self.starts, ends, strict=True))
            if first < end and begin < after
        ]
        if not stripes:
            return
        keys = self.location.keys
        with _opened(self.location) as file:
            columns = set(file.schema.names)
            stored = [name for name in names if name in columns]
            batches = (_stripe(file, index, stored) for index in stripes)
            inside = cut(validated(batches), begin - self.starts[stripes[0]], end - begin)
            for batch in regroup(inside, rows):
                yield ArrowBatch(with_keys(batch, names, keys))


def _stripe(file: Any, index: int, names: list[str]) -> Any:
    """The rows of a stripe, whose columns stand in the order of the file."""
    batch = file.read_stripe(index, columns=names)
    return batch.select([name for name in file.schema.names if name in set(names)])


def open_orc(location: Location, spool: Spool) -> OrcData:
    """Read the footer of an ORC file.

    Raises
    ------
    DataError
        It is not a readable ORC file, its rows would grow beyond all measure, or two columns have
        the same name.
    """
    with _opened(location) as file:
        schema, rows = file.schema, int(file.nrows)
        if rows < 0 or not 0 <= file.nstripes < _LARGEST_STRIPES:
            raise ValueError("what its footer says of rows and stripes cannot be right")
        size = os.stat(location.path).st_size  # noqa: PTH116 (the path may be no text)
        spool.expansion.check(location.name, _LEAST_ROW_BYTES * rows * len(schema), size)
        # The footer is not asked for the rows of a stripe; the smallest column is read for them.
        counts = [_rows_of(file, index) for index in range(file.nstripes)]
        if sum(counts) != rows:
            raise ValueError("the row counts in its footer contradict each other")
        return OrcData(
            location,
            "orc",
            arrow_fields(location, schema, rows),
            class_names(schema),
            seen=seen_by_a_fit(schema),
            notes=notes_in(schema),
            starts=tuple(itertools.accumulate(counts[:-1], initial=0)),
        )


def _rows_of(file: Any, index: int) -> int:
    single = [field.name for field in file.schema if not pa.types.is_nested(field.type)]
    return int(file.read_stripe(index, columns=(single or file.schema.names)[:1]).num_rows)


@contextmanager
def _opened(location: Location) -> Iterator[Any]:
    """The file as `pyarrow.orc.ORCFile`; what goes wrong inside is a `DataError`."""
    from pyarrow import orc

    with refusing_damage(location, "ORC"), pa.OSFile(os.fsencode(location.path)) as source:
        yield orc.ORCFile(source)
