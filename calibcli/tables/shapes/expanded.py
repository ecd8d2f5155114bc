"""Rows that stand for several: those with a count, and those with a distribution over the classes.

A row of count c becomes c rows, so that folds, intervals and everything else are those of the rows
that were counted. A row with a distribution, or with votes, becomes one row for each class that has
a share, weighted with the share, and all of these are a cluster: the mean of a loss over them is
its expectation under the distribution. One-hot rows have one class, and need no more rows.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.engine.folds import CLUSTER
from calibcli.errors import DataError, UsageError
from calibcli.tables.formats.base import (
    UNKNOWN_ROWS,
    Batch,
    DataFile,
    Element,
    Field,
    RowError,
    Values,
    locating_rows,
)
from calibcli.tables.names import FileFields, likely_labels
from calibcli.tables.read_options import ReadOptions
from calibcli.tables.shapes.base import OpenedFiles, PickedBatch, ReshapedFile, row_count
from calibcli.tables.shapes.label_files import LabelledFile
from calibcli.tables.storage import Spool

MOST_EXPANDED_ROWS = 1 << 31
"""Rows that a table may be expanded to."""

_BLOCK = 1 << 14
"""Rows after which it is kept how many they have become."""

_TOLERANCE = 0.01
"""How far from 1 the sum of a distribution may be."""

LabelShape = Literal["one-hot", "distribution", "votes"]


def expand_counts(opened: OpenedFiles, options: ReadOptions, _: Spool) -> OpenedFiles:
    """Make as many rows of each as its count says; see `SHAPES`.

    Raises
    ------
    UsageError, DataError
        There is no such column, it does not hold counts, or labels are in a file of their own.
    """
    if options.counts is None or not options.labels_required:
        return opened
    opened = _with_labels(opened, f"--counts {options.counts}")
    said = {"counts": f"{opened.files[0].unit} {options.counts!r}: as many rows of each"}
    files = []
    for file in opened.files:
        fields = FileFields.of(file)
        field = fields.require(options.counts, " for --counts")
        if field.axes != 1 or field.element not in ("integer", "float"):
            raise DataError(
                f"{fields.name}: {fields.title(field)} cannot be counts; they are one whole "
                "number a row"
            )
        expanded = _expanded(file, _Counts(field.name), said)
        rest = tuple(each for each in expanded.fields if each.name != options.counts)
        files.append(replace(expanded, fields=rest))
    return OpenedFiles(tuple(files))


def read_label_vectors(opened: OpenedFiles, options: ReadOptions, _: Spool) -> OpenedFiles:
    """Make class numbers of labels that are a vector a row; see `SHAPES`.

    Raises
    ------
    UsageError, DataError
        The vectors are neither one-hot nor distributions nor votes.
    """
    if not options.labels_required:
        return opened
    source = opened.labels or opened.files[0]
    field: Field | None = source.fields[0]
    if opened.labels is None:
        field = likely_labels(source, options.labels, lambda each: each.axes == 1, lambda _: True)
    if field is None or not _is_vector(source, field):
        return opened
    files = opened.files if opened.labels is None else (opened.labels,)
    shape = _shape_of_labels(files, field)
    said = {"label vectors": _SAID[shape]}
    if shape == "one-hot":
        made = tuple(_expanded(file, _OneHot(field.name), said, field.width) for file in files)
        return replace(opened, labels=made[0]) if opened.labels else OpenedFiles(made)
    opened = _with_labels(opened, f"{source.location.name}: holds {_SAID[shape]}")
    names = [file.roles.get("labels", field.name) for file in opened.files]
    firsts = itertools.accumulate(map(row_count, opened.files), initial=0)
    return OpenedFiles(
        tuple(
            _expanded(file, _Shares(name, options, first), said, field.width)
            for file, name, first in zip(opened.files, names, firsts, strict=False)
        )
    )


def _with_labels(opened: OpenedFiles, why: str) -> OpenedFiles:
    """The files with the labels that are in a file of their own, since rows become several.

    Raises
    ------
    UsageError
        There are several files.
    DataError
        There are more or fewer labels than rows.
    """
    if opened.labels is None:
        return opened
    if len(opened.files) > 1:
        raise UsageError(
            f"{why}: there are several files of scores for one file of labels; give a folder with "
            "a file of labels for each of them: --labels FOLDER"
        )
    return OpenedFiles((LabelledFile.of(opened.files[0], opened.labels),))


_SAID: dict[LabelShape, str] = {
    "one-hot": "one-hot, taken as class numbers",
    "distribution": "a distribution over the classes: a row for each, weighted with its share",
    "votes": "votes: a row for each class, weighted with its share of them",
}


def _is_vector(file: DataFile, field: Field) -> bool:
    """Whether a field has several numbers or truth values a row."""
    if field.axes != 2 or field.element not in ("float", "integer", "bool") or field.width == 1:
        return False
    if field.rows != row_count(file):
        return False
    if field.width is None:
        batch = file.head((field.name,), 0, 1)
        with locating_rows(file, 0):
            return batch is not None and batch.array(field.name).size > 1
    return True


def _shape_of_labels(files: Sequence[DataFile], field: Field) -> LabelShape:
    """What vectors of labels are, from all of them.

    Raises
    ------
    UsageError
        Some rows have several classes.
    DataError
        They are none of what they could be.
    """
    vectors, first, several = LabelVectors(), 0, ""
    for file in files:
        at = 0
        for batch in file.read((field.name,), 0, row_count(file), _BLOCK):
            with locating_rows(file, at):
                vectors.look_at(batch.array(field.name).astype(np.float64), first + at)
            at += len(batch)
        if vectors.several is not None and not several:
            several = file.locate(vectors.several - first)
        first += at
    title = FileFields.of(files[0]).title(field)
    if vectors.only_bits and several:
        raise UsageError(
            f"{several}: {title} has several classes in this row, or none; if any number of labels "
            "may be right in a row, add --multi-label; where these are votes, divide each row by "
            "its sum"
        )
    if vectors.shape is not None:
        return vectors.shape
    raise DataError(
        f"{files[0].location.name}: {title} cannot be labels: the rows are neither one-hot nor "
        "shares that sum to 1 nor counts of votes"
    )


class LabelVectors:
    """What vectors of labels may be by those that were seen.

    Attributes
    ----------
    only_bits : bool
        Whether all values are 0 or 1.
    several : int or None
        The first row of bits that has not one class.
    """

    def __init__(self) -> None:
        self._possible: set[LabelShape] = set(_SAID)
        self.only_bits = True
        self.several: int | None = None

    @property
    def shape(self) -> LabelShape | None:
        """The simplest that all may be; None where they are nothing of that."""
        return next((shape for shape in _SAID if shape in self._possible), None)

    def look_at(self, rows: NumpyArray, first: int) -> None:
        """Take in rows (n, K) from a number on.

        Raises
        ------
        RowError
            A value is negative or none.
        """
        wrong = ~((rows >= 0) & (rows < np.inf)).all(axis=1)
        if wrong.any():
            raise RowError(int(np.argmax(wrong)), "a value of the label is below 0 or no number")
        sums = rows.sum(axis=1)
        is_bits = bool(((rows == 0) | (rows == 1)).all())
        self.only_bits &= is_bits
        if not is_bits or (sums != 1).any():
            self._possible.discard("one-hot")
        if (np.abs(sums - 1) > _TOLERANCE).any():
            self._possible.discard("distribution")
        if (rows != np.floor(rows)).any() or (sums == 0).any():
            self._possible.discard("votes")
        if self.several is None and is_bits and (sums != 1).any():
            self.several = first + int(np.argmax(sums != 1))


class RowExpansion(ABC):
    """How a row becomes several.

    Attributes
    ----------
    name : str
        The field that says it.
    title : str
        The same, as messages call it.
    sources : tuple of str
        The fields that it is read from.
    made : dict of str to str
        The fields that it makes or replaces, with their NumPy types.
    roles : dict of str to str
        Those of these fields, see `DataFile.roles`.
    keeps_rows : bool
        Whether each row stays one.
    """

    title = "its labels"
    keeps_rows = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.sources: tuple[str, ...] = (name,)
        self.made: Mapping[str, str] = {}
        self.roles: Mapping[str, str] = {}

    @abstractmethod
    def of(self, batch: Batch, first: int) -> tuple[NumpyArray, dict[str, NumpyArray]]:
        """The rows (m,) of a batch, as often as they stand for one, and the fields that are made.

        Parameters
        ----------
        batch : Batch
        first : int
            Number of its first row in the file.

        Raises
        ------
        RowError
            A row cannot be understood.
        """


class _Counts(RowExpansion):
    """As many rows as a column says."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.title = f"--counts {name}"

    def of(self, batch: Batch, first: int) -> tuple[NumpyArray, dict[str, NumpyArray]]:
        """Each row as often as its count says."""
        del first
        stored = batch.values(self.name)
        if stored.missing is not None and stored.missing.any():
            raise RowError(int(np.argmax(stored.missing)), "the count is missing")
        values = stored.values.astype(np.float64)
        with np.errstate(invalid="ignore"):
            wrong = ~((values >= 0) & (values == np.floor(values)) & (values < MOST_EXPANDED_ROWS))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise RowError(
                row,
                f"the count {stored.values[row]} is no whole number of rows; weights that are no "
                "counts are for --weights",
            )
        return np.repeat(np.arange(len(batch)), values.astype(np.int64)), {}


class _OneHot(RowExpansion):
    """The class of each row in place of its one-hot vector."""

    keeps_rows = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.made, self.roles = {name: "int64"}, {"labels": name}

    def of(self, batch: Batch, first: int) -> tuple[NumpyArray, dict[str, NumpyArray]]:
        """Every row once."""
        del first
        classes = batch.array(self.name).argmax(axis=1).astype(np.int64)
        return np.arange(len(batch)), {self.name: classes}


def shares_of(rows: NumpyArray) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
    """The row, the class and the share (m,) of each share that rows (n, K) give a class."""
    items, classes = np.nonzero(rows)
    return items, classes.astype(np.int64), rows[items, classes] / rows.sum(axis=1)[items]


class _Shares(RowExpansion):
    """A row for each class that has a share, with the share as its weight.

    Attributes
    ----------
    first_item : int
        The number of the first row: those of the files before come before it.
    """

    def __init__(self, name: str, options: ReadOptions, first_item: int) -> None:
        super().__init__(name)
        self.weights, self.first_item = options.weights, first_item
        self.sources = (name,) if self.weights is None else (name, self.weights)
        self.made = {name: "int64", SHARE_FIELD: "float64", ITEM_FIELD: "int64"}
        cluster = {} if CLUSTER in options.keys else {CLUSTER: ITEM_FIELD}
        self.roles = {"labels": name, "weights": SHARE_FIELD, **cluster}

    def of(self, batch: Batch, first: int) -> tuple[NumpyArray, dict[str, NumpyArray]]:
        """Each row once for each class that it has a share of."""
        items, classes, shares = shares_of(batch.array(self.name).astype(np.float64))
        if self.weights is not None:
            weights = batch.values(self.weights)
            if weights.missing is not None and weights.missing.any():
                raise RowError(int(np.argmax(weights.missing)), "the weight is missing")
            shares = shares * weights.values[items].astype(np.float64)
        numbers = items + (self.first_item + first)
        made = {self.name: classes, SHARE_FIELD: shares, ITEM_FIELD: numbers}
        return items, made


SHARE_FIELD, ITEM_FIELD = "share of the label", "row of the label"
"""What the shares, and the rows that they are of, are called."""


def _expanded(
    file: DataFile,
    expansion: RowExpansion,
    said: Mapping[str, str],
    label_classes: int | None = None,
) -> ExpandedFile:
    """The table of the rows that those of a file stand for, and what is said of it."""
    rows, where = row_count(file), f"{file.location.name}: {expansion.title}"
    if rows == UNKNOWN_ROWS:
        raise UsageError(f"{where} cannot be read of a stream; save it first")
    if expansion.keeps_rows:
        ends = np.minimum(np.arange(-(-rows // _BLOCK) + 1) * _BLOCK, rows)
    else:
        blocks = _expansions(file, expansion, expansion.sources, 0, rows)
        ends = np.cumsum([0, *(len(index) for _, index, _ in blocks)])
    total = int(ends[-1])
    if not total or total > MOST_EXPANDED_ROWS:
        raise DataError(f"{where} make {total:,} rows of it")
    made = {name: _made_field(name, dtype, total) for name, dtype in expansion.made.items()}
    fields = [
        made.pop(field.name, replace(field, rows=total, in_memory=False)) for field in file.fields
    ]
    return ExpandedFile.over(
        file,
        fields=(*fields, *made.values()),
        unit="column" if made else file.unit,
        picked={**file.picked, **said},
        roles={**file.roles, **expansion.roles},
        is_expanded=file.is_expanded or not expansion.keeps_rows,
        label_classes=label_classes or file.label_classes,
        grid=None,
        expansion=expansion,
        ends=ends,
    )


def _made_field(name: str, dtype: str, rows: int) -> Field:
    element: Element = "float" if dtype.startswith("float") else "integer"
    return Field(name, dtype, element, 1, None, dtype, rows)


def _expansions(
    file: DataFile, expansion: RowExpansion, names: Sequence[str], begin: int, end: int
) -> Iterator[tuple[Batch, NumpyArray, dict[str, NumpyArray]]]:
    """Blocks of the rows of a file from a block's begin on, with what becomes of each."""
    at = begin
    while at < end:
        step = min(_BLOCK, end - at)
        for batch in file.read(names, at, at + step, step):
            with locating_rows(file, at):
                index, made = expansion.of(batch, at)
            yield batch, index, made
            at += len(batch)


@dataclass(eq=False, kw_only=True)
class ExpandedFile(ReshapedFile):
    """A table whose rows are those that the rows of a file stand for.

    Attributes
    ----------
    expansion : RowExpansion
        What becomes of each row.
    ends : int64 array (b + 1,)
        How many rows the first 0, 1, … blocks of the file have become.
    """

    expansion: RowExpansion
    ends: NumpyArray

    def sources(self, names: Sequence[str]) -> list[str]:
        """The fields of the file that some fields of the table are read from."""
        stored = [name for name in names if name not in self.expansion.made]
        return list(dict.fromkeys([*super().sources(stored), *self.expansion.sources]))

    def splits(self, rows: int) -> Sequence[int]:
        """Row numbers at which a block of the file begins."""
        return tuple(dict.fromkeys(self.ends[:-1].tolist()))

    def locate(self, row: int) -> str:
        """Where the row is that it is made of."""
        block = int(np.searchsorted(self.ends, row, side="right")) - 1
        block = min(block, len(self.ends) - 2)
        begin, within = block * _BLOCK, row - int(self.ends[block])
        sources = self.expansion.sources
        end = min(begin + _BLOCK, row_count(self.file))
        for _, index, _ in _expansions(self.file, self.expansion, sources, begin, end):
            if within < len(index):
                return self.file.locate(begin + int(index[within]))
            within -= len(index)
        return self.file.locate(begin)

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[Batch]:
        """Rows ``begin`` to before ``end``, at most ``rows`` at a time."""
        block = max(int(np.searchsorted(self.ends, begin, side="right")) - 1, 0)
        at = int(self.ends[min(block, len(self.ends) - 1)])
        stored = row_count(self.file)
        blocks = _expansions(self.file, self.expansion, self.sources(names), block * _BLOCK, stored)
        for batch, index, made in blocks:
            first, last = max(begin - at, 0), min(end - at, len(index))
            for low in range(first, last, rows):
                high = min(low + rows, last)
                parts = {name: Values(values[low:high]) for name, values in made.items()}
                yield PickedBatch(batch, index[low:high], parts)
            at += len(index)
            if at >= end:
                return
