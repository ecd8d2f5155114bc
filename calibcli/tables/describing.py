"""What is in a data file, whether it can be read as scores and labels or not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import CalibError
from calibcli.tables.formats.arrow_arrays import host_array
from calibcli.tables.formats.base import UNKNOWN_ROWS, Batch, DataFile, Field, RowError
from calibcli.tables.locations import first_line

_PLACES, _ROWS, _VALUES = 4, 512, 1 << 16
"""What is looked at of a field: so many places, rows of each, and values of each."""

_SHOWN, _LONGEST = 4, 60
"""Values that are shown of a field, and their characters."""


@dataclass(frozen=True)
class FieldSummary:
    """What some rows of a field hold.

    Attributes
    ----------
    field : Field
    looked_at : int
        Rows.
    least, largest : float or None
        Of the numbers that are finite.
    row_sums : (float, float) or None
        Least and largest sum of the values of a row, of vectors of numbers.
    missing : int
        Rows without a value.
    odd : tuple of str
        Which of ``"NaN"``, ``"inf"`` and ``"-inf"`` are there.
    values : tuple of str
        The first different ones of single whole numbers, truth values, texts, or what else it is.
    problem : str or None
        Why the rows could not be read.
    """

    field: Field
    looked_at: int = 0
    least: float | None = None
    largest: float | None = None
    row_sums: tuple[float, float] | None = None
    missing: int = 0
    odd: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    problem: str | None = None


def describe_field(file: DataFile, field: Field) -> FieldSummary:
    """Look at some rows of a field, wherever these can be read."""
    sample = _Sample()
    problem = None
    try:
        for batch in _batches(file, field):
            sample.add(batch, field)
            batch.release()
    except RowError as error:
        problem = str(error)
    # A description is no place to fail, whatever a library raises for a damaged file.
    except Exception as error:  # noqa: BLE001
        problem = str(error) if isinstance(error, CalibError) else first_line(error)
    return sample.summary(field, problem)


def _batches(file: DataFile, field: Field) -> Iterator[Batch]:
    """Some rows, from several places of the file."""
    if field.rows in (0, UNKNOWN_ROWS):
        return
    row = math.prod(field.shape) or field.width or 1
    rows = max(min(_ROWS, _VALUES // row), 1)
    begins = [begin for begin in file.splits(field.rows) if begin < field.rows]
    places = np.linspace(0, len(begins) - 1, _PLACES).astype(int)
    for place in sorted(set(places.tolist())):
        batch = file.head((field.name,), begins[place], rows)
        if batch is not None:
            yield batch


class _Sample:
    """What was seen of a field."""

    def __init__(self) -> None:
        self._rows, self._missing = 0, 0
        self._ranges: list[tuple[float, float]] = []
        self._sums: list[tuple[float, float]] = []
        self._odd: set[str] = set()
        self._values: dict[str, None] = {}

    def add(self, batch: Batch, field: Field) -> None:
        self._rows += len(batch)
        if field.axes == 1 and field.element != "other":
            stored = batch.values(field.name)
            present = np.ones(len(batch), bool) if stored.missing is None else ~stored.missing
            self._missing += int((~present).sum())
            if stored.names is not None:
                self._show(stored.names[code] for code in stored.values[present].tolist())
            else:
                self._measure(stored.values[present])
                if field.element != "float":
                    self._show(map(str, stored.values[present].tolist()))
        elif field.axes == 2 and field.element == "float":
            self._vectors(batch, field)
        elif field.shape and field.element in ("float", "integer", "bool"):
            values = batch.array(field.name).reshape(-1)[:_VALUES]
            self._measure(values)
            if field.element != "float":
                self._show(map(str, values[:_ROWS].tolist()))
        else:
            column = batch.columns((field.name,)).column(0)
            self._missing += column.null_count
            self._show(map(str, column.slice(0, _SHOWN).to_pylist()))

    def _vectors(self, batch: Batch, field: Field) -> None:
        try:
            rows = batch.matrix((field.name,), field.width)
        except RowError:
            # Their lengths differ, or some are missing.
            column = batch.columns((field.name,)).column(0)
            self._missing += column.null_count
            self._measure(host_array(column.flatten()))
            return
        self._measure(rows)
        sums = rows.sum(axis=1, dtype=np.float64)
        if np.isfinite(sums).any():
            self._sums.append((float(np.nanmin(sums)), float(np.nanmax(sums))))

    def _measure(self, values: NumpyArray) -> None:
        if values.dtype.kind not in "fiub" or not values.size:
            return
        numbers = values.astype(np.float64)
        for name, mask in (
            ("NaN", np.isnan(numbers)),
            ("inf", numbers == np.inf),
            ("-inf", numbers == -np.inf),
        ):
            if mask.any():
                self._odd.add(name)
        finite = numbers[np.isfinite(numbers)]
        if finite.size:
            self._ranges.append((float(finite.min()), float(finite.max())))

    def _show(self, values: Any) -> None:
        for value in values:
            if len(self._values) > _SHOWN:
                return
            text = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
            self._values.setdefault(text)

    def summary(self, field: Field, problem: str | None) -> FieldSummary:
        sums = [value for pair in self._sums for value in pair if math.isfinite(value)]
        shown = [*self._values][:_SHOWN]
        return FieldSummary(
            field,
            self._rows,
            min((low for low, _ in self._ranges), default=None),
            max((high for _, high in self._ranges), default=None),
            (min(sums), max(sums)) if sums else None,
            self._missing,
            tuple(sorted(self._odd)),
            (*shown, "…") if len(self._values) > _SHOWN else tuple(shown),
            problem,
        )
