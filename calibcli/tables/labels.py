"""From stored labels to class numbers: integers, whole floats, booleans and class names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import UsageError
from calibcli.tables.formats.base import RowError, Values

NO_LABEL = int(np.iinfo(np.int64).min)
"""Stands for a missing label, where labels need not be there, and for one to be left out."""


@dataclass(frozen=True)
class LabelRule:
    """How stored labels become class numbers.

    Attributes
    ----------
    classes : tuple of str or None
        Class names in their order.
    ignore : int, str or None
        The label of rows to leave out.
    required : bool
        Whether a missing label is an error.
    """

    classes: tuple[str, ...] | None = None
    ignore: int | str | None = None
    required: bool = True

    def decode(self, stored: Values) -> NumpyArray:
        """Class numbers (n,), int64; `NO_LABEL` where the row has none or is to be left out.

        Numbers are not compared with the number of classes here.

        Raises
        ------
        RowError
            A label is missing, is no whole number, or is no known class name.
        UsageError
            The label to leave out is of another type than the labels.
        """
        if stored.missing is not None and self.required and stored.missing.any():
            raise RowError(int(np.argmax(stored.missing)), "the label is missing")
        numbers = self._numbers(stored) if stored.names is None else self._names(stored)
        if stored.missing is not None:
            numbers[stored.missing] = NO_LABEL
        return numbers

    def _names(self, stored: Values) -> NumpyArray:
        order = {name: number for number, name in enumerate(self.classes or ())}
        if self.ignore is not None:
            order[str(self.ignore)] = NO_LABEL
        names = stored.names or ()
        # A column's dictionary may have names that no row uses.
        table = np.array([order.get(name, -1) for name in names] or [-1], np.int64)
        numbers: NumpyArray = table[stored.values]
        unknown = numbers == -1 if stored.missing is None else (numbers == -1) & ~stored.missing
        if unknown.any():
            row = int(np.argmax(unknown))
            raise RowError(
                row, f"the label {names[stored.values[row]]!r} is no known class (see --classes)"
            )
        return numbers

    def _numbers(self, stored: Values) -> NumpyArray:
        values = stored.values
        if values.dtype.kind == "f":
            values = self._whole(values)
        elif values.dtype == np.uint64 and len(values) and values.max() > np.iinfo(np.int64).max:
            raise RowError(int(np.argmax(values)), f"the label {values.max()} is no class number")
        numbers: NumpyArray = values.astype(np.int64)
        if self.ignore is not None and self.required:
            try:
                ignored = int(self.ignore)
            except ValueError as error:
                raise UsageError(
                    f"--ignore-label {self.ignore}: the labels are numbers, so it must be one"
                ) from error
            numbers[numbers == ignored] = NO_LABEL
        return numbers

    def _whole(self, values: NumpyArray) -> NumpyArray:
        values = values.astype(np.float64)
        missing = np.isnan(values)
        if self.required and missing.any():
            raise RowError(int(np.argmax(missing)), "the label is missing (NaN)")
        row = first_fraction(values, missing)
        if row is not None:
            raise RowError(row, f"the label {values[row]} is no whole number")
        whole = np.where(missing, 0, values).astype(np.int64)
        whole[missing] = NO_LABEL
        return whole


def first_fraction(values: NumpyArray, missing: NumpyArray) -> int | None:
    """The first row of float64 values (n,) that has one, but no whole number; None if all have.

    From 2^53 on, neighbouring whole numbers cannot be told apart.
    """
    with np.errstate(invalid="ignore"):
        wrong = ~missing & ((values != np.floor(values)) | (np.abs(values) >= 2**53))
    return int(np.argmax(wrong)) if wrong.any() else None
