"""Class numbers of stored labels: integers, whole floats, booleans and class names."""

from __future__ import annotations

import re
import shlex
import unicodedata
from dataclasses import dataclass

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import UsageError
from calibcli.tables.formats.base import RowError, Values

_LISTED = 12
_PAIRS = ((-1, 1), (0, 255))
_SKIPPING = "--unlabelled skip leaves such rows out"
NO_LABEL = int(np.iinfo(np.int64).min)
"""Stands for a missing label, where labels need not be there, and for one to be left out."""


@dataclass(frozen=True)
class LabelRule:
    """How stored labels become class numbers.

    Attributes
    ----------
    classes : tuple of str or None
        Class names in their order.
    ignore : tuple of int or str
        The labels of rows to leave out.
    required : bool
        Whether a missing label is an error.
    numbers : tuple of int or None
        The number that stands for each class, where it is not the class's place: -1 and 1, or the
        numbers that the classes are named by.
    skips : bool
        Whether rows without a label are left out.
    """

    classes: tuple[str, ...] | None = None
    ignore: tuple[int | str, ...] = ()
    required: bool = True
    numbers: tuple[int, ...] | None = None
    skips: bool = False

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
        if stored.missing is not None and stored.missing.any() and not self._may_be_missing:
            raise RowError(int(np.argmax(stored.missing)), f"the label is missing; {_SKIPPING}")
        numbers = self._numbers(stored) if stored.names is None else self._names(stored)
        if stored.missing is not None:
            numbers[stored.missing] = NO_LABEL
        return numbers

    @property
    def _may_be_missing(self) -> bool:
        return self.skips or not self.required

    def _names(self, stored: Values) -> NumpyArray:
        order = {composed(name): number for number, name in enumerate(self.classes or ())}
        order |= {composed(str(label)): NO_LABEL for label in self.ignore}
        names = stored.names or ()
        # A column's dictionary may have names that no row uses.
        table = np.array([order.get(composed(name), -1) for name in names] or [-1], np.int64)
        numbers: NumpyArray = table[stored.values]
        unknown = numbers == -1 if stored.missing is None else (numbers == -1) & ~stored.missing
        if unknown.any():
            row = int(np.argmax(unknown))
            name = names[stored.values[row]]
            ways = "see --classes"
            if name.strip() and not unknown.all():
                ways += f"; --ignore-label {shlex.quote(name)} leaves such rows out"
            raise RowError(row, f"the label {name!r} is no known class ({ways})")
        return numbers

    def _numbers(self, stored: Values) -> NumpyArray:
        values = stored.values
        if values.dtype.kind == "f":
            values = self._whole(values)
        elif values.dtype == np.uint64 and len(values) and values.max() > np.iinfo(np.int64).max:
            raise RowError(int(np.argmax(values)), f"the label {values.max()} is no class number")
        numbers: NumpyArray = values.astype(np.int64)
        # What an NPZ has for none, which has no other way to say it among whole numbers.
        if values.dtype == np.int64 and not self._may_be_missing and (values == NO_LABEL).any():
            row = int(np.argmax(values == NO_LABEL))
            raise RowError(row, f"the label is missing (the least whole number); {_SKIPPING}")
        if stored.missing is not None:
            numbers[stored.missing] = NO_LABEL
        for label in self.ignore if self.required else ():
            try:
                ignored = int(label)
            except ValueError as error:
                raise UsageError(
                    f"--ignore-label {label}: the labels are numbers, so it must be one"
                ) from error
            numbers[numbers == ignored] = NO_LABEL
        return numbers if self.numbers is None else self._places(numbers, self.numbers)

    def _places(self, labels: NumpyArray, numbers: tuple[int, ...]) -> NumpyArray:
        """The places of labels among the numbers that stand for the classes."""
        known = np.array(numbers, np.int64)
        order = np.argsort(known)
        at = np.minimum(np.searchsorted(known, labels, sorter=order), len(known) - 1)
        places: NumpyArray = order[at].astype(np.int64)
        wrong = (known[places] != labels) & (labels != NO_LABEL)
        if wrong.any() and not self.required:
            places[wrong] = NO_LABEL
        elif wrong.any():
            row = int(np.argmax(wrong))
            listed = ", ".join(map(str, numbers[:_LISTED]))
            more = ", …" if numbers[_LISTED:] else ""
            raise RowError(row, f"the label {labels[row]} is none of the classes {listed}{more}")
        places[labels == NO_LABEL] = NO_LABEL
        return places

    def _whole(self, values: NumpyArray) -> NumpyArray:
        values = values.astype(np.float64)
        missing = np.isnan(values)
        if missing.any() and not self._may_be_missing:
            raise RowError(int(np.argmax(missing)), f"the label is missing (NaN); {_SKIPPING}")
        row = first_fraction(values, missing)
        if row is not None:
            raise RowError(row, f"the label {values[row]} is no whole number")
        whole = np.where(missing, 0, values).astype(np.int64)
        whole[missing] = NO_LABEL
        return whole


def composed(name: str) -> str:
    """A name by which it is compared: letters with their accents as one character each (NFC)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def whole_numbers(names: tuple[str, ...]) -> tuple[int, ...] | None:
    """The numbers that classes are named by; None if one of the names is no whole number."""
    plain = names and all(re.fullmatch(r"[+-]?[0-9]{1,18}", name) for name in names)
    numbers = tuple(int(name) for name in names) if plain else ()
    return numbers if numbers and len(set(numbers)) == len(numbers) else None


class NumberedLabels:
    """Finds out which numbers stand for the classes, from labels block by block.

    Numbers are the places of the classes, counted from 0, unless the labels show otherwise: where
    the classes are named by numbers and all labels are such names, they are names, and of two
    classes -1 and 1 are the numbers where no label is 0, 0 and 255 (a mask) where no label is 1.

    Parameters
    ----------
    classes : int
    names : tuple of int or None
        The numbers that the classes are named by, if they are.

    Attributes
    ----------
    is_settled : bool
        Whether no further label changes anything.
    """

    def __init__(self, classes: int, names: tuple[int, ...] | None) -> None:
        self._places = tuple(range(classes))
        self._names = None if names == self._places else names
        self._pairs: tuple[tuple[int, int], ...] = ()
        if classes == 2 and names is None:
            self._pairs = _PAIRS
        self._seen: set[int] = set()
        self.is_settled = self._names is None and not self._pairs

    def look_at(self, labels: NumpyArray) -> None:
        """Take in some labels (n,), int64; those of rows to be left out are `NO_LABEL`.

        Once it is settled what is meant, further labels change nothing.
        """
        seen = np.unique(labels[labels != NO_LABEL])
        if self._names is None:
            self._pairs = tuple(pair for pair in self._pairs if np.isin(seen, pair).all())
            self._seen |= {*seen.tolist()} if self._pairs else set()
            self.is_settled = not self._pairs
        elif not np.isin(seen, self._names).all():
            self.is_settled = True
            # Where neither fits, whoever reads the rows says which label is no name of a class.
            if np.isin(seen, self._places).all():
                self._names = None

    @property
    def numbers(self) -> tuple[int, ...] | None:
        """The numbers of the classes, for a `LabelRule`."""
        # Of 255 alone it cannot be said that it is a class.
        is_shown = bool(self._seen - {*self._places}) and not self._seen.isdisjoint((-1, 0))
        return self._names or (self._pairs[0] if self._pairs and is_shown else None)


def first_fraction(values: NumpyArray, missing: NumpyArray) -> int | None:
    """The first row of float64 values (n,) that has one, but no whole number; None if all have.

    From 2^53 on, neighbouring whole numbers cannot be told apart.
    """
    with np.errstate(invalid="ignore"):
        wrong = ~missing & ((values != np.floor(values)) | (np.abs(values) >= 2**53))
    return int(np.argmax(wrong)) if wrong.any() else None
