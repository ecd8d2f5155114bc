"""What was decided about the input, and how its rows become chunks. Everything here pickles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from calibcli.arrays import InputKind, NumpyArray
from calibcli.engine.source import Chunk, Keys
from calibcli.engine.survey import bad_weight
from calibcli.errors import DataError
from calibcli.tables.formats.base import Batch, DataFile, RowError, Values, locating_rows
from calibcli.tables.keys import KeyNumbers
from calibcli.tables.labels import NO_LABEL, LabelRule

LABEL_ROWS = 1 << 16
"""Rows of labels or keys that are read at a time where no scores are."""


@dataclass(frozen=True)
class Layout:
    """What was decided about the input: which fields are read, and what they mean.

    The one place for such decisions. `open_dataset` makes it, all files share it, and each
    partition of the rows carries it.

    Attributes
    ----------
    scores : tuple of str
        One field, or one scalar field a class.
    kind : InputKind
        What the scores are.
    width : int
        Values in a row of scores.
    rule : LabelRule
        How labels become class numbers; it holds the class names.
    labels : str or None
        The field of labels.
    label_file : DataFile or None
        A file of labels alone, for the rows of all files.
    weights : str or None
        The field of row weights.
    others : tuple of str
        The fields that ride along.
    left_out : tuple of str
        Fields that cannot: they have other rows, or no type that a table has.
    keys : dict of str to KeyNumbers
        How the values of key columns are numbered, by role.
    picked : dict of str to str
        The decisions in words, and what each is based on.
    divisor : float
        What the stored scores are divided by: 100 of percentages.
    renormalise : bool
        Whether each row of scores, which are probabilities, is divided by its sum.
    decisions : dict
        What must be decided again for the rows that a calibrator of these is for: values that JSON
        has, by the field of `ReadOptions` that asks for it. Parameter files keep it.
    """

    scores: tuple[str, ...]
    kind: InputKind
    width: int
    rule: LabelRule
    labels: str | None = None
    label_file: DataFile | None = None
    weights: str | None = None
    others: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    keys: Mapping[str, KeyNumbers] = field(default_factory=dict)
    picked: Mapping[str, str] = field(default_factory=dict)
    divisor: float = 1
    renormalise: bool = False
    decisions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def drops(self) -> bool:
        """Whether rows may be left out."""
        return (bool(self.rule.ignore) or self.rule.skips) and self.rule.required

    def names(self, *, with_columns: bool) -> list[str]:
        """The fields that a chunk needs."""
        single = [name for name in (self.labels, self.weights) if name is not None]
        single += [key.column for key in self.keys.values()]
        return list(dict.fromkeys([*self.scores, *single, *(self.others if with_columns else ())]))

    def chunk(self, batch: Batch, start: int, label_row: int, *, with_columns: bool) -> Chunk:
        """The rows of a batch as a chunk, without those to be left out.

        Parameters
        ----------
        batch : Batch
            With all fields of `names`.
        start : int
            Number of the first row of the chunk in the data set.
        label_row : int
            Row of the file of labels that belongs to the first row of the batch.
        with_columns : bool
            Whether the chunk gets the fields that ride along.

        Raises
        ------
        RowError
            A value is missing or cannot be used.
        """
        scores = self._scaled(batch.matrix(self.scores, self.width))
        labels = self.labels_of(batch, label_row)
        weights = None if self.weights is None else _weights(batch.values(self.weights))
        columns = batch.columns(self.others) if with_columns else None
        kept = None if labels is None else self.kept(labels)
        chunk = Chunk(start, scores, labels, weights, columns, self.numbered(batch, kept))
        return chunk if kept is None else _filtered(chunk, kept)

    def _scaled(self, scores: NumpyArray) -> NumpyArray:
        """The scores (n, C) as they are meant; the same array where nothing is to be done.

        Raises
        ------
        RowError
            The sum of a row is not positive.
        """
        if self.divisor != 1:
            scores = np.divide(scores, self.divisor, dtype=scores.dtype)
        if self.renormalise and self.width > 1:
            sums: NumpyArray = scores.sum(axis=1, dtype=np.float64, keepdims=True)
            wrong = ~((sums > 0) & (sums < np.inf))
            if wrong.any():
                row = int(np.argmax(wrong))
                raise RowError(row, f"the scores sum to {sums[row, 0]:.6g}, not to a share of 1")
            scores = (scores / sums).astype(scores.dtype)
        return scores

    def kept(self, labels: NumpyArray) -> NumpyArray | None:
        """Which rows (n,) are not left out; None where all are kept."""
        keep: NumpyArray = labels != NO_LABEL
        return None if not self.drops or keep.all() else keep

    def numbered(self, batch: Batch, kept: NumpyArray | None) -> Keys | None:
        """The groups of the rows of a batch, or of those that are kept, by role.

        Rows that are left out give no names to groups: these might have no rows.
        """
        if not self.keys:
            return None
        return {
            role: numbers.encode(batch.values(numbers.column), kept)
            for role, numbers in self.keys.items()
        }

    def labels_of(self, batch: Batch, label_row: int) -> NumpyArray | None:
        """Class numbers (n,) of the rows of a batch, where there are labels.

        Raises
        ------
        RowError
            A label is missing or cannot be used, or the file of labels ends.
        """
        if self.label_file is not None:
            name = self.label_file.fields[0].name
            stored = self.label_file.head((name,), label_row, len(batch))
            if stored is None or len(stored) < len(batch):
                raise RowError(len(stored or ()), "the file of labels ends before this row")
            return self.rule.decode(stored.values(name))
        return None if self.labels is None else self.rule.decode(batch.values(self.labels))


def _filtered(chunk: Chunk, keep: NumpyArray) -> Chunk:
    """The rows to keep of a chunk, whose keys are of these rows already."""
    columns = chunk.columns
    if columns is not None:
        import pyarrow as pa

        # A batch without columns has nothing to filter, and Arrow takes its length for 0.
        columns = columns.filter(pa.array(keep)) if columns.num_columns else columns
    return Chunk(
        chunk.start,
        chunk.scores[keep],
        None if chunk.labels is None else chunk.labels[keep],
        None if chunk.weights is None else chunk.weights[keep],
        columns,
        chunk.keys,
    )


def _weights(stored: Values) -> NumpyArray:
    if stored.missing is not None:
        raise RowError(int(np.argmax(stored.missing)), "the weight is missing")
    weights: NumpyArray = stored.values.astype(np.float64)
    wrong = bad_weight(weights)
    if wrong is not None:
        raise RowError(*wrong)
    return weights


@dataclass(frozen=True)
class FilePartition:
    """Consecutive rows of one file; a `calibcli.engine.source.Partition`.

    Attributes
    ----------
    file : DataFile
    layout : Layout
    begin, end : int
        Rows of the file; ``end`` is -1 where it is not known.
    start : int
        Number of the first row in the data set, in which rows may have been left out.
    label_row : int
        Row of the file of labels that belongs to ``begin``.
    """

    file: DataFile
    layout: Layout
    begin: int
    end: int
    start: int = 0
    label_row: int = 0

    def chunks(self, rows: int, with_columns: bool = False) -> Iterator[Chunk]:
        """The rows, in order, at most ``rows`` at a time; with the other columns if asked for.

        Raises
        ------
        DataError
            The file cannot be read, or a value in it cannot be used; it says which row.
        """
        names = self.layout.names(with_columns=with_columns)
        at, start = self.begin, self.start
        for batch in self.file.read(names, self.begin, self.end, rows):
            with locating_rows(self.file, at):
                label_row = self.label_row + at - self.begin
                chunk = self.layout.chunk(batch, start, label_row, with_columns=with_columns)
            at += len(batch)
            start += len(chunk)
            if len(chunk):
                yield chunk
        if at < self.end:
            raise DataError(
                f"{self.file.location.name}: ends after {at} of {self.end} rows; it is damaged"
            )

    def labels(self) -> Iterator[NumpyArray]:
        """Class numbers of the rows, without the scores; `NO_LABEL` of those to be left out."""
        layout, at = self.layout, self.begin
        source = self.file if layout.label_file is None else layout.label_file
        name = layout.labels if layout.label_file is None else source.fields[0].name
        first = self.begin if layout.label_file is None else self.label_row
        for batch in source.read((name or "",), first, first + self.end - self.begin, LABEL_ROWS):
            with locating_rows(source, at - self.begin + first):
                labels = layout.rule.decode(batch.values(name or ""))
            yield labels
            at += len(batch)

    def kept(self) -> Iterator[NumpyArray]:
        """Row numbers within the file of the rows that are not left out, ascending."""
        at = self.begin
        for labels in self.labels():
            yield at + np.flatnonzero(labels != NO_LABEL)
            at += len(labels)

    def locate(self, row: int) -> str:
        """Where the row of a number in the data set is: ``"val.parquet, row 12"``."""
        place, inside = self.begin + row - self.start, row - self.start
        for kept in self.kept() if self.layout.drops else ():
            if inside < len(kept):
                place = int(kept[inside])
                break
            inside -= len(kept)
        return self.file.locate(place)

    def number_keys(self) -> None:
        """Give the values of the key columns their numbers, without reading the scores."""
        layout, at = self.layout, self.begin
        names = [key.column for key in layout.keys.values()]
        if layout.drops and layout.labels is not None:
            names.append(layout.labels)
        for batch in self.file.read(list(dict.fromkeys(names)), self.begin, self.end, LABEL_ROWS):
            with locating_rows(self.file, at):
                label_row = self.label_row + at - self.begin
                labels = layout.labels_of(batch, label_row) if layout.drops else None
                layout.numbered(batch, None if labels is None else layout.kept(labels))
            at += len(batch)

    def cut(self, rows: int) -> list[FilePartition]:
        """The same rows in parts that begin where the number of a row is a multiple of ``rows``."""
        ahead = -self.start % rows or rows
        places: list[int] = []
        if self.layout.drops:
            before = 0
            for kept in self.kept():
                wanted = np.arange(ahead + len(places) * rows, before + len(kept), rows)
                places += kept[wanted - before].tolist()
                before += len(kept)
        else:
            places += range(self.begin + ahead, self.end, rows)
        return self._at(places, [self.start + ahead + i * rows for i in range(len(places))])

    def _at(self, places: Sequence[int], starts: Sequence[int]) -> list[FilePartition]:
        """The parts that begin at some rows of the file, whose numbers in the data set are given.

        The first part has the rows before these.
        """
        return [
            replace(
                self,
                begin=begin,
                end=end,
                start=start,
                label_row=self.label_row + begin - self.begin,
            )
            for begin, end, start in zip(
                [self.begin, *places], [*places, self.end], [self.start, *starts], strict=True
            )
        ]


@dataclass(frozen=True)
class FileRange:
    """Consecutive rows of one or several files; a `calibcli.engine.source.Partition`."""

    parts: tuple[FilePartition, ...]

    def chunks(self, rows: int, with_columns: bool = False) -> Iterator[Chunk]:
        """The rows, in order, at most ``rows`` at a time; with the other columns if asked for.

        Raises
        ------
        DataError
            As `FilePartition.chunks`.
        """
        for part in self.parts:
            yield from part.chunks(rows, with_columns)

    def locate(self, row: int) -> str:
        """Where the row of a number in the data set is: ``"val.parquet, row 12"``."""
        begun = [part for part in self.parts if part.start <= row]
        return [*self.parts[:1], *begun][-1].locate(row)
