"""What is read from each file, and how its rows become chunks. Everything here pickles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from calibcli.engine.source import Chunk, Keys, NumpyArray
from calibcli.engine.survey import bad_weight
from calibcli.errors import DataError
from calibcli.tables.fields import Block, DataFile, RowError, Vector, locating_rows
from calibcli.tables.keys import KeyNumbers
from calibcli.tables.labels import NO_LABEL, LabelRule

LABEL_ROWS = 1 << 16


@dataclass(frozen=True)
class Layout:
    """Which fields are read and what becomes of them.

    Attributes
    ----------
    scores : tuple of str
        One field, or one scalar field a class.
    width : int or None
        Values in a row of scores; None until it is known.
    labels : str or None
    label_file : DataFile or None
        A file of labels alone, for the rows of all files.
    weights : str or None
    rule : LabelRule
    others : tuple of str
        The fields that ride along.
    keys : dict of str to KeyNumbers
        How the values of key columns are numbered, by role.
    """

    scores: tuple[str, ...]
    width: int | None
    labels: str | None
    label_file: DataFile | None
    weights: str | None
    rule: LabelRule
    others: tuple[str, ...] = ()
    keys: Mapping[str, KeyNumbers] = field(default_factory=dict)

    @property
    def drops(self) -> bool:
        """Whether rows may be left out."""
        return self.rule.ignore is not None and self.rule.required

    def names(self, *, with_columns: bool) -> list[str]:
        """The fields that a chunk needs."""
        single = [name for name in (self.labels, self.weights) if name is not None]
        single += [key.column for key in self.keys.values()]
        return list(dict.fromkeys([*self.scores, *single, *(self.others if with_columns else ())]))

    def chunk(self, block: Block, start: int, label_row: int, *, with_columns: bool) -> Chunk:
        """The rows of a block as a chunk, without those to be left out.

        Raises
        ------
        RowError
            A value is missing or cannot be used.
        """
        scores = block.matrix(self.scores, self.width)
        labels = self.labels_of(block, label_row)
        weights = None if self.weights is None else _weights(block.vector(self.weights))
        columns = block.columns(self.others) if with_columns else None
        kept = None if labels is None else self.kept(labels)
        chunk = Chunk(start, scores, labels, weights, columns, self.numbered(block, kept))
        return chunk if kept is None else _kept(chunk, kept)

    def kept(self, labels: NumpyArray) -> NumpyArray | None:
        """Which rows (n,) are not left out; None where all are kept."""
        keep: NumpyArray = labels != NO_LABEL
        return None if not self.drops or keep.all() else keep

    def numbered(self, block: Block, kept: NumpyArray | None) -> Keys | None:
        """The groups of the rows of a block, or of those that are kept, by role."""
        if not self.keys:
            return None
        return {role: _numbers(block, numbers, kept) for role, numbers in self.keys.items()}

    def labels_of(self, block: Block, label_row: int) -> NumpyArray | None:
        """Class numbers of the rows of a block, where there are labels."""
        if self.label_file is not None:
            field = self.label_file.fields[0].name
            part = self.label_file.head((field,), label_row, len(block))
            if part is None or len(part) < len(block):
                raise RowError(len(part or ()), "the file of labels ends before this row")
            return self.rule.decode(part.vector(field))
        return None if self.labels is None else self.rule.decode(block.vector(self.labels))


def _numbers(block: Block, numbers: KeyNumbers, kept: NumpyArray | None) -> NumpyArray:
    # Rows that are left out must not give names to groups that have no rows.
    return numbers.encode(block.vector(numbers.column), kept)


def _kept(chunk: Chunk, keep: NumpyArray) -> Chunk:
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


def _weights(stored: Vector) -> NumpyArray:
    if stored.missing is not None:
        raise RowError(int(np.argmax(stored.missing)), "the weight is missing")
    weights: NumpyArray = stored.values.astype(np.float64)
    wrong = bad_weight(weights)
    if wrong is not None:
        raise RowError(*wrong)
    return weights


@dataclass(frozen=True)
class Part:
    """Consecutive rows of one file: a description that any process can read from.

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
        for block in self.file.read(names, self.begin, self.end, rows):
            with locating_rows(self.file.location.name, at):
                label_row = self.label_row + at - self.begin
                chunk = self.layout.chunk(block, start, label_row, with_columns=with_columns)
            at += len(block)
            start += len(chunk)
            if len(chunk):
                yield chunk
        if at < self.end:
            raise DataError(
                f"{self.file.location.name}: ends after {at} of {self.end} rows; it is damaged"
            )

    def head(self, rows: int) -> NumpyArray | None:
        """The scores of up to ``rows`` rows from ``begin`` on."""
        block = self.file.head(self.layout.scores, self.begin, rows)
        if block is None:
            return None
        with locating_rows(self.file.location.name, self.begin):
            return block.matrix(self.layout.scores, self.layout.width)

    def kept(self) -> Iterator[NumpyArray]:
        """Row numbers within the file of the rows that are not left out."""
        layout, at = self.layout, self.begin
        source = self.file if layout.label_file is None else layout.label_file
        name = layout.labels if layout.label_file is None else source.fields[0].name
        first = self.begin if layout.label_file is None else self.label_row
        for block in source.read((name or "",), first, first + self.end - self.begin, LABEL_ROWS):
            with locating_rows(source.location.name, at - self.begin + first):
                labels = layout.rule.decode(block.vector(name or ""))
            yield at + np.flatnonzero(labels != NO_LABEL)
            at += len(block)

    def number_keys(self) -> None:
        """Give the values of the key columns their numbers, without reading the scores."""
        layout, at = self.layout, self.begin
        names = [key.column for key in layout.keys.values()]
        if layout.drops and layout.labels is not None:
            names.append(layout.labels)
        for block in self.file.read(list(dict.fromkeys(names)), self.begin, self.end, LABEL_ROWS):
            with locating_rows(self.file.location.name, at):
                label_row = self.label_row + at - self.begin
                labels = layout.labels_of(block, label_row) if layout.drops else None
                layout.numbered(block, None if labels is None else layout.kept(labels))
            at += len(block)

    def split(self) -> list[Part]:
        """The parts of it that can be read independently, in order."""
        rows = self.end - self.begin
        begins = list(self.file.splits(rows))
        starts = [self.start + begin for begin in begins]
        if self.layout.drops:
            counts = np.zeros(len(begins), np.int64)
            for kept in self.kept():
                counts += np.bincount(
                    np.searchsorted(begins, kept, "right") - 1, minlength=len(begins)
                )
            starts = [self.start + int(before) for before in np.cumsum(counts) - counts]
        return [
            replace(self, begin=begin, end=end, start=start, label_row=self.label_row + begin)
            for begin, end, start in zip(begins, [*begins[1:], self.end], starts, strict=True)
        ]
