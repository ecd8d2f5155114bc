"""Choices of questions that have more or fewer of them: rows of different lengths, padded.

What a row has no score for is impossible: the logit -inf.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibcli.arrays import SMALLEST_PROBABILITY, InputKind, NumpyArray
from calibcli.errors import DataError, UsageError
from calibcli.tables.formats.arrow_arrays import host_array
from calibcli.tables.formats.base import (
    UNKNOWN_ROWS,
    Batch,
    DataFile,
    Field,
    RowError,
    locating_rows,
)
from calibcli.tables.kinds import PERCENT, TOLERANCE, refuse_mixture
from calibcli.tables.names import SCORES, FileFields, named_scores
from calibcli.tables.read_options import ReadOptions
from calibcli.tables.sampling import ScoreSample
from calibcli.tables.shapes.base import OpenedFiles
from calibcli.tables.shapes.derived import with_derived
from calibcli.tables.storage import Spool

_PLACES, _ROWS = 3, 256
"""Of how many rows the lengths are looked at before all are."""

_READ_ROWS = 4096

_MOST_CHOICES = 1 << 17
"""Scores to which all rows are padded because one of them has so many."""


def pad_choices(opened: OpenedFiles, options: ReadOptions, _: Spool) -> OpenedFiles:
    """Give all rows of a column of lists as many scores as the longest has, or `num_classes`.

    Missing values and NaN at the end of a row are padding as well.

    Raises
    ------
    UsageError
        A stream that is read once has rows of different lengths, and their number is not known.
    DataError
        A row has more scores than there are classes.
    """
    first = opened.files[0]
    name = _scores(first, options)
    if name is None or "top" in first.picked:
        return opened  # of the most probable classes a row of all has been made
    if not any(_is_ragged(file, name, options) for file in opened.files):
        return opened
    width, shortest = options.num_classes or options.class_count or 0, 0
    if not width:
        lengths = [length for file in opened.files for length in _all_lengths(file, name)]
        width, shortest = max(high for _, high in lengths), min(low for low, _ in lengths)
        if width > _MOST_CHOICES:
            raise DataError(
                f"{first.location.name}: a row of column {name!r} has {width:,} scores and another "
                f"{shortest:,}; if that is meant, and all rows take so much memory: "
                f"--num-classes {width}"
            )
    said = f"rows with fewer than {width} choices"
    if shortest and shortest < width:
        said = f"rows have {shortest} to {width} choices"
    kind = _kind_of(opened.files, name, width, options)
    divisor = 100 if options.input == PERCENT else 1
    padding = Padding(name, width, kind == "probs", divisor, options.renormalise)
    files = tuple(
        with_derived(
            file,
            {name: padding},
            decisions={**file.decisions, "num_classes": width},
            picked={**file.picked, "padding": f"{said}; those that a row has not are impossible"},
            score_kind="log-probs" if kind == "probs" else file.score_kind,
        )
        for file in opened.files
    )
    return OpenedFiles(files, opened.labels)


def _scores(file: DataFile, options: ReadOptions) -> str | None:
    """The column of lists that will be the scores, if there is one."""
    fields = FileFields.of(file)
    asked = file.roles.get("logits", options.logits)
    named = fields.named(SCORES)
    usable = [field for field in named if field.element == "float" and field.axes < 3]
    usable = usable or named_scores(fields)
    field = fields.find(asked) if asked is not None else next(iter(usable), None)
    return field.name if field is not None and _is_list(field) else None


def _is_list(field: Field) -> bool:
    # The lists of lists of a vector (1, K) have one length by their type.
    is_plain = "list" in field.type.split("<")[0] and field.type.count("list<") == 1
    return field.axes == 2 and field.element == "float" and is_plain


def _is_ragged(file: DataFile, name: str, options: ReadOptions) -> bool:
    """Whether rows from a few places differ in length or end with values that are missing."""
    field = next((each for each in file.fields if each.name == name), None)
    if field is None or not _is_list(field):
        return False
    if options.num_classes is not None:
        return True
    begins = [0] if field.rows == UNKNOWN_ROWS else list(file.splits(field.rows))
    chosen = sorted({begins[0], begins[len(begins) // 2], begins[-1]})
    lengths: set[int] = set()
    for begin in chosen:
        batch = file.head((name,), begin, _ROWS)
        if batch is not None:
            try:
                column = _lists(batch.columns((name,)).column(0), name)
            except RowError:
                return False  # whoever reads the rows says what is wrong
            lengths |= set(column.lengths.tolist()) | set(column.filled.tolist())
    # A row that has no number at all is not one with fewer choices.
    return len(lengths) > 1 and min(lengths) > 1


def _all_lengths(file: DataFile, name: str) -> Iterator[tuple[int, int]]:
    """The least and greatest number of choices, block by block."""
    rows = next(field.rows for field in file.fields if field.name == name)
    if rows == UNKNOWN_ROWS:
        raise UsageError(
            f"{file.location.name}: rows have different numbers of choices, of which a stream does "
            "not tell the greatest; add it: --num-classes N"
        )
    at = 0
    for batch in file.read((name,), 0, rows, _READ_ROWS):
        with locating_rows(file, at):
            filled = _lists(batch.columns((name,)).column(0), name).filled
        at += len(filled)
        yield int(filled.min()), int(filled.max())


def _kind_of(
    files: Sequence[DataFile], name: str, width: int, options: ReadOptions
) -> InputKind | None:
    """``"probs"`` where the scores are probabilities, which are padded as log-probabilities."""
    if options.input in ("logits", "log-probs"):
        return None
    counts = [next(field.rows for field in file.fields if field.name == name) for file in files]

    def unpadded(batch: Batch) -> NumpyArray:
        rows = Padding(name, width).matrix(batch.columns((name,)).column(0))
        return np.where(np.isneginf(rows), 0, rows)

    sample = ScoreSample.read(files, counts, (name,), unpadded, width, _ROWS)
    where = f"{files[0].location.name}: {name}"
    if sample.rows.min() < 0:
        refuse_mixture(sample.blocks, where)
        return None
    kind, _ = sample.kind(options, name, where)
    return kind if kind == "probs" else None


@dataclass(frozen=True)
class _Lists:
    """Lists as flat values and lengths.

    Attributes
    ----------
    values : array (m,)
        Missing ones are NaN.
    lengths : array (n,)
    filled : array (n,)
        The same without values that are missing at the end.
    """

    values: NumpyArray
    lengths: NumpyArray
    filled: NumpyArray


def _lists(array: Any, name: str) -> _Lists:
    import pyarrow as pa

    from calibcli.tables.formats.arrow_types import flattened

    items, lengths = flattened(array, name)
    if not pa.types.is_floating(items.type):
        items = items.cast(pa.float64())
    values = host_array(items).astype(np.float64)
    ends = np.cumsum(lengths)
    begins = ends - lengths
    present = np.flatnonzero(~np.isnan(values))
    # Of each list the last number that is before its end, and not before its begin.
    last = np.append(present, -1)[np.searchsorted(present, ends) - 1]
    filled = np.maximum(last + 1 - begins, 0)
    return _Lists(values, lengths, filled)


@dataclass(frozen=True)
class Padding:
    """Lists as rows of one length; a `Derivation`.

    Attributes
    ----------
    name : str
    width : int
        Values in each row.
    takes_logarithm : bool
        Whether the values are probabilities, of which log-probabilities are made: a probability of
        0 is small, and not impossible.
    divisor : float
        What probabilities are divided by before: 100 of percentages.
    renormalise : bool
        Whether probabilities may be more than 1: they are shares of their sum.
    """

    name: str
    width: int
    takes_logarithm: bool = False
    divisor: float = 1
    renormalise: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def type(self) -> Any:
        import pyarrow as pa

        return pa.list_(pa.float64(), self.width)

    def column(self, batch: Any) -> Any:
        """The padded rows, as lists of a fixed size.

        Raises
        ------
        RowError
            A row is too long, or a value that is not at its end is missing.
        """
        import pyarrow as pa

        matrix = self.matrix(batch.column(self.name))
        return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), self.width)

    def matrix(self, lists: Any) -> NumpyArray:
        """The padded rows (n, width), float64."""
        column = _lists(lists, self.name)
        wrong = column.filled > self.width
        if wrong.any():
            row = int(wrong.argmax())
            raise RowError(row, f"has {column.filled[row]} scores for {self.width} classes")
        longest = max(self.width, int(column.lengths.max(initial=0)))
        stored = np.full((len(column.lengths), longest), np.nan)
        stored[np.arange(longest) < column.lengths[:, None]] = column.values
        padding = np.arange(longest) >= column.filled[:, None]
        self._check(stored, padding, column.filled)
        if self.takes_logarithm:
            stored = self._logarithms(stored, padding)
        stored[padding] = -np.inf
        return np.ascontiguousarray(stored[:, : self.width])

    def _check(self, stored: NumpyArray, padding: NumpyArray, filled: NumpyArray) -> None:
        gaps = (np.isnan(stored) & ~padding).any(axis=1) | (filled < 2)
        if gaps.any():
            row = int(gaps.argmax())
            few = filled[row] < 2
            raise RowError(row, "has fewer than two scores" if few else "a score is missing (NaN)")

    def _logarithms(self, stored: NumpyArray, padding: NumpyArray) -> NumpyArray:
        probs = np.where(padding, 0, stored / self.divisor)
        if probs.min(initial=0) < 0 or probs.max(initial=0) == np.inf:
            row = int((~((probs >= 0) & (probs < np.inf))).any(axis=1).argmax())
            raise RowError(row, "a probability is negative or infinite")
        if not self.renormalise and probs.max(initial=0) > 1 + TOLERANCE:
            raise RowError(int(probs.max(axis=1).argmax()), "a probability is greater than 1")
        logs = np.log(np.maximum(probs, SMALLEST_PROBABILITY))
        totals = np.exp(logs, where=~padding, out=np.zeros_like(logs)).sum(axis=1, keepdims=True)
        return np.asarray(logs - np.log(totals))
