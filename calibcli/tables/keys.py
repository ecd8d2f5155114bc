"""Numbers of groups for the values of a key column, such as a language or a document."""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass, field

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.tables.formats.base import RowError, Values
from calibcli.tables.labels import first_fraction

MISSING = "(missing)"
"""The group of the rows without a value."""


@dataclass(eq=False)
class KeyNumbers:
    """Numbers the values of a column from 0 on, in the order in which they first come.

    The numbers stay the same as long as the rows come in the same order, in chunks of any size.
    Memory: a dictionary entry a distinct value.

    Attributes
    ----------
    column : str
    first : tuple of str
        Values, as text, that have the first numbers whether they come or not.
    """

    column: str
    first: InitVar[tuple[str, ...]] = ()
    _numbers: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self, first: tuple[str, ...]) -> None:
        self._numbers = {name: number for number, name in enumerate(first)}

    @property
    def names(self) -> tuple[str, ...]:
        """The values so far, as text, in the order of their numbers."""
        return tuple(self._numbers)

    def encode(self, stored: Values, kept: NumpyArray | None = None) -> NumpyArray:
        """The number of each row's value: (n,), int64; or of those rows that are kept.

        Raises
        ------
        RowError
            A number is not whole.
        """
        places, values = self._coded(stored)
        places = places if kept is None else places[kept]
        rows = len(places)
        first = np.full(len(values), rows)
        # What is written last stays: the first row of each value.
        first[places[::-1]] = np.arange(rows)[::-1]
        table = np.zeros(len(values), np.int64)
        order = np.argsort(first, kind="stable")
        # A column's dictionary may have values that no row uses.
        for place in order[: np.count_nonzero(first < rows)].tolist():
            table[place] = self._numbers.setdefault(values[place], len(self._numbers))
        numbers: NumpyArray = table[places]
        return numbers

    def encode_array(self, values: NumpyArray) -> NumpyArray:
        """The number of each value (n,) of an array in memory; None and NaN are none.

        Raises
        ------
        RowError
            A number is not whole.
        """
        missing = None
        if values.dtype.kind == "O":
            missing = np.array([_absent(value) for value in values], bool)
            values = np.array([_text(value) for value in values], str)
        if values.dtype.kind not in "US":
            return self.encode(Values(values))
        names, places = np.unique(values.astype(str), return_inverse=True)
        return self.encode(Values(places.reshape(-1), tuple(names.tolist()), missing))

    def _coded(self, stored: Values) -> tuple[NumpyArray, list[str]]:
        """The distinct values, and the place of each row's value among them."""
        missing, values = stored.missing, stored.values
        if stored.names is None:
            if values.dtype.kind == "f":
                values, absent = self._whole(values, missing)
                missing = absent if absent.any() else None
            distinct, places = np.unique(values, return_inverse=True)
            places, listed = places.reshape(-1), list(map(str, distinct.tolist()))
            if values.dtype.kind == "b":
                listed = [name.lower() for name in listed]
        else:
            places, listed = values.astype(np.int64), list(stored.names)
        if missing is not None:
            places[missing] = len(listed)
            listed.append(MISSING)
        return places, listed

    def _whole(
        self, values: NumpyArray, missing: NumpyArray | None
    ) -> tuple[NumpyArray, NumpyArray]:
        """Whole numbers, and which rows have none."""
        values = values.astype(np.float64)
        absent = np.isnan(values) if missing is None else np.isnan(values) | missing
        row = first_fraction(values, absent)
        if row is not None:
            raise RowError(
                row, f"{values[row]} in {self.column!r} is no whole number, so it names no group"
            )
        return np.where(absent, 0, values).astype(np.int64), absent


def _absent(value: object) -> bool:
    """Whether it stands for no value; pandas has kinds of its own, which compare like nothing."""
    missing = value is None or type(value).__name__ in ("NAType", "NaTType")
    return missing or (isinstance(value, float) and math.isnan(value))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)
