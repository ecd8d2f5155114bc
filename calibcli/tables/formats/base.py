"""What a file format brings: a `DataFile` to read from, and a `Sink` where it is also written.

A reader is a function that takes a `Location` (and a `Spool` for temporary files) and returns a
`DataFile`: the fields of the file, and a way to read batches of their rows. Which fields hold
scores and labels, and what they mean, is none of its business: a `Layout` makes chunks of batches.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, get_args

from calibcli.arrays import InputKind, NumpyArray
from calibcli.errors import DataError
from calibcli.tables.locations import Location
from calibcli.tables.storage import Spool

Element: TypeAlias = Literal["float", "integer", "bool", "string", "other"]

UNKNOWN_ROWS = -1
"""The number of rows of a stream whose end has not been seen."""

DECODED_BYTES = 8 << 20
"""What is decoded or decompressed at a time. Decoding nested Parquet takes six times as much."""


BFLOAT_TITLE = "bfloat16"
"""How the type of a field and metadata call it: ``lance.bfloat16`` is that of Lance."""

SHAPE_METADATA = b"calib.shape"
"""Metadata of an Arrow field: the shape of one value, a JSON list, where it is no vector."""

NOTED = ("logits", "labels", "weights", "cluster", "input", "num_classes")
"""What a file can say about its reading, see `DataFile.notes`."""

CONVERTING = "docs/converting.md"
"""The page that says how a pickle becomes a file that is read."""


@dataclass(frozen=True)
class Field:
    """A column of a table, or an array of an NPZ file.

    Attributes
    ----------
    name : str
    type : str
        As a person reads it: ``"fixed_size_list<float>[10]"``.
    element : Element
        What one value is.
    axes : int
        1 for a value a row, 2 for a vector a row, 3 for anything else.
    width : int or None
        Values in a row where ``axes`` is 2; None where only the data tell.
    dtype : str or None
        Name of the NumPy type of a number.
    rows : int
    in_memory : bool
        Whether all rows can be read as one batch without a copy: a memory-mapped array.
    carried : bool
        Whether it can be a column of the output.
    shape : tuple of int
        Lengths of the axes of a row, where all rows have the same: ``(10,)`` of a vector of ten.
    categories : tuple of str
        The texts that there may be, in their order, where the schema says it.
    is_ordered : bool
        Whether the texts have an order, which the data tell.
    """

    name: str
    type: str
    element: Element
    axes: int
    width: int | None
    dtype: str | None
    rows: int
    in_memory: bool = False
    carried: bool = True
    shape: tuple[int, ...] = ()
    categories: tuple[str, ...] = ()
    is_ordered: bool = False


@dataclass(frozen=True)
class Values:
    """One value a row, as stored.

    Attributes
    ----------
    values : array (n,)
        Numbers; or, where there are ``names``, integers that index them.
    names : tuple of str or None
        The distinct strings of a field of strings.
    missing : bool array (n,) or None
        Rows without a value.
    """

    values: NumpyArray
    names: tuple[str, ...] | None = None
    missing: NumpyArray | None = None

    def in_order(self) -> list[str]:
        """The texts of a field of strings, row by row."""
        names = self.names or ()
        return [names[code] for code in self.values.tolist()]


@dataclass(frozen=True)
class GridShape:
    """The shape that the rows of a table had before: that of images, volumes or sequences.

    Attributes
    ----------
    places : tuple of int
        The lengths of the axes of which each row is one place, in their order.
    class_axis : int or None
        Where the axis of the classes stands among them; None where a place has one score.
    single : bool
        Whether a place has one score, that of class 1.
    index : tuple of str
        Fields that number the images and places, which nobody needs who sees the shape.
    image_fields : tuple of str
        Fields with one value for each image, which its rows repeat.
    per_image : int
        Places of an image.
    """

    places: tuple[int, ...]
    class_axis: int | None
    single: bool
    index: tuple[str, ...]
    image_fields: tuple[str, ...]
    per_image: int

    @property
    def is_in_order(self) -> bool:
        """Whether rows of scores follow one another as they come: no places lie behind classes."""
        return self.class_axis in (None, len(self.places))

    @property
    def behind_classes(self) -> int:
        """Places behind the axis of the classes."""
        return 1 if self.class_axis is None else math.prod(self.places[self.class_axis :])

    def lengths(self, rows: int) -> tuple[int, ...]:
        """The lengths of the axes of so many rows, of several files one after the other."""
        others = self.places[1:]
        return (rows // max(math.prod(others), 1), *others)

    def with_classes(self, places: tuple[int, ...], classes: int) -> tuple[int, ...]:
        """The shape of scores of places."""
        if self.class_axis is None:
            return places
        return (*places[: self.class_axis], classes, *places[self.class_axis :])

    def scores(self, probs: NumpyArray) -> NumpyArray:
        """Of probabilities (n, K) those that there were scores of: of one score that of class 1."""
        return probs[:, 1:] if self.single else probs

    def continues(self, other: GridShape) -> bool:
        """Whether the rows of another file before it and its own are those of one array."""
        same = (self.places[1:], self.class_axis) == (other.places[1:], other.class_axis)
        return same and self.class_axis != 0


class Batch(Protocol):
    """Some fields of consecutive rows of a file, as stored. A `Layout` makes a chunk of them."""

    def __len__(self) -> int: ...

    def matrix(self, names: Sequence[str], width: int | None) -> NumpyArray:
        """Scores (n, C) of one field, or of one scalar field a class.

        Raises
        ------
        RowError
            A value is missing, or a row has not ``width`` values.
        """

    def values(self, name: str) -> Values:
        """The values of a field with one value a row; strings as indices into distinct ones."""

    def array(self, name: str) -> NumpyArray:
        """A field of numbers with its axes (n, …), as stored: a view where it is in memory.

        Raises
        ------
        RowError
            A value is missing.
        """

    def columns(self, names: Sequence[str]) -> Any:
        """The fields as a `pyarrow.RecordBatch`."""

    def release(self) -> None:
        """Give back the memory of what was read of a mapped file; it can be read again."""


@dataclass(eq=False)
class DataFile(ABC):
    """A file whose fields are known and whose rows are read when asked for.

    A description, not data: it pickles, and another process can read from it.

    Attributes
    ----------
    location : Location
    format : str
        Name of the format in the registry.
    fields : tuple of Field
    class_names : tuple of str or None
        Class names that the file carries.
    unit : str
        What messages call a field: ``"column"``, ``"key"``, or ``"array"`` for the only one.
    about : tuple of str
        Fields that say something about the file and are no data, such as class names.
    seen : bool
        Whether it says of itself that a fit has seen its rows.
    is_expanded : bool
        Whether its rows are more than those that were stored, so that an output would repeat them.
    notes : dict of str to str
        What it says of itself about its reading: the fields of ``"logits"``, ``"labels"``,
        ``"weights"`` and ``"cluster"``, what ``"input"`` is, and how many classes there are; see
        `read_notes`.
    decisions : dict of str to JSON value
        What was decided about its shape that must mean the same for other files, by the field of
        `ReadOptions` that asks for it: see `Layout.decisions`.
    picked : dict of str to str
        The same in words, by what it is about.
    roles : dict of str to str
        The fields that its shape shows to be the ``"logits"``, ``"labels"``, ``"weights"`` or the
        ``"cluster"``, whose values put rows together that were made of one, where no other is
        asked for.
    score_kind : InputKind or None
        What its scores are, where that had to be decided for its shape.
    grid : GridShape or None
        The shape that the rows had before, where it can be given back.
    row_labels : tuple of str or None
        The names of the labels, where each row that was stored has become a row for each of them.
    label_classes : int or None
        How many classes its labels speak of, where that is known of them.
    """

    location: Location
    format: str
    fields: tuple[Field, ...]
    class_names: tuple[str, ...] | None = None
    unit: str = "column"
    about: tuple[str, ...] = ()
    seen: bool = False
    is_expanded: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)
    decisions: Mapping[str, Any] = field(default_factory=dict)
    picked: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    score_kind: InputKind | None = None
    grid: GridShape | None = None
    row_labels: tuple[str, ...] | None = None
    label_classes: int | None = None

    @property
    def locations(self) -> tuple[Location, ...]:
        """All files that it is read from, the one of `location` first."""
        return (self.location,)

    def locate(self, row: int) -> str:
        """Where a row is, for messages: ``"val.parquet, row 12"``."""
        return f"{self.location.name}, row {row}"

    def splits(self, rows: int) -> Sequence[int]:
        """Row numbers, from 0 on, at which reading may begin without reading what is before."""
        return (0,)

    @abstractmethod
    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[Batch]:
        """Rows ``begin`` to before ``end``, in order, at most ``rows`` at a time.

        Raises
        ------
        DataError
            The file is damaged.
        """

    def laid_out(self, names: Sequence[str], spool: Spool, *, one_row: bool) -> DataFile:
        """The same file with some arrays where they can be mapped, if a row of them is large.

        Parameters
        ----------
        names : sequence of str
        spool : Spool
            For what is compressed.
        one_row : bool
            Whether each of these arrays becomes one row, whose shape is that of the array.

        Raises
        ------
        DataError
            It is a table of rows, whose first axis are no classes.
        """
        del names, spool
        if one_row:
            raise DataError(
                f"{self.location.name}: the first axis of a {self.unit} are its rows, so it cannot "
                "be that of the classes; save the array as NPZ"
            )
        return self

    def verify(self, names: Sequence[str]) -> None:  # noqa: B027 (most formats have nothing to do)
        """Compare some fields with their checksums, where `read` does not do so by itself.

        Raises
        ------
        DataError
            The file is damaged.
        """

    def head(self, names: Sequence[str], begin: int, rows: int) -> Batch | None:
        """Up to ``rows`` rows from ``begin`` on; None at the end."""
        return next(self.read(names, begin, begin + rows, rows), None)


_LONGEST = 480
"""Characters of what is said of a row."""


class RowError(Exception):
    """Something is wrong with a row; whoever knows the file says which one.

    Parameters
    ----------
    row : int
        Counted from the first row of the batch.
    message : str
        It is cut where a value of the row makes it very long.
    """

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…")
        self.row = int(row)


@contextmanager
def locating_rows(file: DataFile, first: int) -> Iterator[None]:
    """Turn a `RowError` of a batch that begins at row ``first`` of a file into a `DataError`."""
    try:
        yield
    except RowError as error:
        raise DataError(f"{file.locate(first + error.row)}: {error}") from error


def read_notes(text: str | bytes) -> dict[str, str]:
    """What the metadata of a file say about its reading; nothing of what is not as it should be."""
    try:
        notes = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(notes, dict) or notes.get("input") not in get_args(InputKind):
        return {}
    return {name: notes[name] for name in NOTED if isinstance(notes.get(name), str)}


def python_command(program: str) -> str:
    """The shell command that runs some lines of Python, in quotes that hold whatever they hold."""
    if re.search(r'["$`!]|\\[^t]', program):
        return f"python -c {shlex.quote(program)}"
    return f'python -c "{program}"'


def pickled(name: str) -> DataError:
    """The error for a file or an array that only a pickle reader could read."""
    return DataError(
        f"{name}: stored as a pickle, which can run any code when it is read and so never is; "
        f"convert it once to NPZ or Parquet: see {CONVERTING}"
    )


class Sink(Protocol):
    """Writes calibrated rows to an open file, in one format."""

    @property
    def renamed(self) -> dict[str, str]:
        """Columns of the input that were renamed."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Columns of the input that the format cannot hold."""

    def write(self, computed: Mapping[str, NumpyArray], columns: Any) -> None:
        """Write the next rows.

        Parameters
        ----------
        computed : dict of str to array (n,) or (n, m)
            First the probabilities or other scores (n, K), if there are any.
        columns : pyarrow.RecordBatch or None
            The other columns of the input.

        Raises
        ------
        DataError
            A column cannot be written in this format.
        """

    def close(self) -> None:
        """Write the end of the file; the file itself stays open."""

    def abandon(self) -> None:
        """Give up: what was written does not matter any more."""


def free_names(columns: Collection[str], taken: Collection[str]) -> dict[str, str]:
    """New names for the columns of the input that have the name of a calibrated one.

    ``prediction`` becomes ``input_prediction``, so that nothing is lost where the input is an
    output of `calib` itself.
    """
    used = {*columns, *taken}
    renamed = {}
    for name in columns:
        if name in taken:
            new = f"input_{name}"
            while new in used:
                new = f"input_{new}"
            used.add(new)
            renamed[name] = new
    return renamed
