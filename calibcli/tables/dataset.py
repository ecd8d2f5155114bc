"""The input files as one source of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Self

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.engine.source import Chunk
from calibcli.errors import DataError, UsageError
from calibcli.params import STDIN
from calibcli.tables.formats.base import UNKNOWN_ROWS, GridShape
from calibcli.tables.keys import KeyNumbers
from calibcli.tables.labels import NO_LABEL
from calibcli.tables.layout import FilePartition, FileRange, Layout
from calibcli.tables.locations import STDIN_NAME, Location
from calibcli.tables.storage import COPIED_BYTES, Spool


class Dataset:
    """Rows of scores from one or several files; a `calibcli.engine.source.Source`.

    Made by `open_dataset`; a context manager that deletes temporary files at the end.

    Attributes
    ----------
    layout : Layout
        What was decided about the input; ``kind``, ``picked`` and others below are parts of it.
    rows : int
        Without those left out; -1 for a stream that is read in one pass.
    columns : int
        Score columns C. 1 stands for two classes: it is the score of class 1.
    kind : InputKind
    dtype : numpy.dtype
        float16, float32 or float64.
    has_labels, has_weights : bool
    key_roles : tuple of str
        Roles of the key columns: ``"group"``, ``"by"``, ``"cluster"``.
    name : str
        Short, for tables: ``"val.parquet and 2 more"``.
    files : list of str
        As they were found; ``-`` for standard input.
    format : str
        Of the first file: a name of `calibcli.tables.formats.registry.FORMATS`.
    picked : dict of str to str
        What was decided and why, to be shown: ``logits``, ``labels``, ``weights``, ``input``,
        ``classes`` and the roles of key columns.
    class_names : tuple of str or None
    dropped_rows : int
        Rows left out for their label.
    other_columns : tuple of str
        Columns that ride along.
    seen : bool
        Whether a file says of itself that a fit has seen its rows.
    is_expanded : bool
        Whether rows that were stored once are there several times.
    row_labels : tuple of str or None
        The names of labels, where rows are those of multi-label data, one a label.
    left_out : tuple of str
        Arrays of an NPZ file that cannot: they have other rows, or no type that a table has.
    """

    def __init__(self, partitions: Sequence[FilePartition], layout: Layout, spool: Spool) -> None:
        self.layout, self._partitions, self._spool = layout, partitions, spool
        first = partitions[0]
        fields = {field.name: field for field in first.file.fields}
        scores = [fields[name] for name in layout.scores]
        self.kind, self.columns = layout.kind, layout.width
        self.picked, self.class_names = layout.picked, layout.rule.classes
        self.other_columns, self.left_out = layout.others, layout.left_out
        self.dtype: np.dtype[Any] = np.result_type(*(field.dtype or "f4" for field in scores))
        self.has_labels = layout.labels is not None or layout.label_file is not None
        self.has_weights = layout.weights is not None
        self.key_roles = tuple(layout.keys)
        self._keys_are_known = False
        self._verified: set[str] = set()
        self.format = first.file.format
        self.seen = any(partition.file.seen for partition in partitions)
        self.is_expanded = any(partition.file.is_expanded for partition in partitions)
        self.row_labels = first.file.row_labels
        locations = [each for partition in partitions for each in partition.file.locations]
        self.name = _short_name(locations)
        self._has_label_file = layout.label_file is not None
        if layout.label_file is not None:
            locations.append(layout.label_file.location)
        self._locations = locations
        self.files = [STDIN if each.name == STDIN_NAME else each.name for each in locations]
        self._in_memory = len(partitions) == len(scores) == 1 and all(
            fields[name].in_memory for name in layout.names(with_columns=False)
        )
        self.dropped_rows = 0
        self.rows = sum(partition.end - partition.begin for partition in partitions)
        if first.end == UNKNOWN_ROWS:
            self.rows = UNKNOWN_ROWS
        elif layout.drops:
            self._drop()

    def _drop(self) -> None:
        partitions, start = [], 0
        for partition in self._partitions:
            partitions.append(replace(partition, start=start))
            start += sum(len(kept) for kept in partition.kept())
        self._partitions, self.dropped_rows, self.rows = partitions, self.rows - start, start
        if not start:
            none = ", or none" if self.layout.rule.skips else ""
            raise DataError(
                f"{self.name}: every row has the label that --ignore-label leaves out{none}"
            )

    def chunks(self, rows: int, with_columns: bool = False) -> Iterator[Chunk]:
        """All rows in order, at most ``rows`` at a time; may be called again for another pass.

        Chunks may be shorter. Where the data is memory-mapped, scores are views of it, and pages
        are given back to the system after each chunk that is not the whole file.

        Raises
        ------
        DataError
            A file cannot be read, or a value in it cannot be used; it says which file and row.
        """
        self._verify(with_columns=with_columns)
        for partition in self._partitions:
            yield from partition.chunks(rows, with_columns)
        self._keys_are_known = True

    def first_rows(self, rows: int, most_columns: int = 8) -> Chunk | None:
        """The first rows, with the values of columns that ride along numbered as keys, by column.

        These are up to so many columns of whole numbers or texts that have no role. None where rows
        can be read only once.
        """
        if self.rows == UNKNOWN_ROWS:
            return None
        first, layout = self._partitions[0], self.layout
        used = {layout.weights, *(key.column for key in layout.keys.values())}
        columns = [
            field.name
            for field in first.file.fields
            if field.name in self.other_columns
            and field.name not in used
            and field.axes == 1
            and field.element in ("integer", "string")
        ]
        keys = {name: KeyNumbers(name) for name in columns[:most_columns]}
        partition = replace(first, layout=replace(layout, keys=keys))
        return next(partition.chunks(rows), None) if keys else None

    def labels(self) -> Iterator[NumpyArray]:
        """Class numbers of all rows in order, block by block, without the scores."""
        for partition in self._partitions:
            for labels in partition.labels():
                yield labels[labels != NO_LABEL] if self.layout.drops else labels

    def grid(self) -> GridShape | None:
        """The shape that the rows had, where an array of all of them can have it again.

        None where rows are left out.

        Raises
        ------
        UsageError
            The files have several shapes, which are not one behind the other.
        """
        grids = [partition.file.grid for partition in self._partitions]
        first = grids[0]
        if self.dropped_rows or first is None:
            return None
        for grid, partition in zip(grids[1:], self._partitions[1:], strict=True):
            if grid is None or not grid.continues(first):
                raise UsageError(
                    f"{partition.file.location.name}: its shape and that of the files before it do "
                    "not make one array; run calib apply for each, or write -o FILE.parquet"
                )
        return first

    def key_names(self, role: str) -> tuple[str, ...]:
        """The names of the groups of a role, in the order in which they first come.

        A row's number in `Chunk.keys` is a place in it; names that were given come first. Reads the
        key columns if the rows have not been read yet. Of a stream that is read in one pass, it
        has what has come so far.
        """
        self._number_keys()
        return self.layout.keys[role].names

    def _number_keys(self) -> None:
        if self.key_roles and not self._keys_are_known and self.rows != UNKNOWN_ROWS:
            self._verify()
            for partition in self._partitions:
                partition.number_keys()
            self._keys_are_known = True

    def _verify(self, *, with_columns: bool = False) -> None:
        """Compare what is read with its checksums, once, before the first row of it is used."""
        names = set(self.layout.names(with_columns=with_columns)) - self._verified
        if names:
            for file in dict.fromkeys(partition.file for partition in self._partitions):
                file.verify(sorted(names))
            self._verified |= names

    def resident(self) -> bool:
        """Whether all rows come as one chunk of memory-mapped scores, which costs nothing."""
        return self._in_memory and not self.dropped_rows

    def cut(self, rows: int) -> Sequence[FileRange]:
        """Parts of so many rows each, but for the last; they pickle, and read what they need.

        Raises
        ------
        UsageError
            The rows can be read only once.
        """
        if self.rows == UNKNOWN_ROWS:
            raise UsageError(f"{self.name}: a stream has no parts; write it into a file first")
        self._verify()
        # Every part travels with the numbers of all groups, so that they agree.
        self._number_keys()
        parts = [part for partition in self._partitions for part in partition.cut(rows)]
        return [FileRange(tuple(own)) for _, own in groupby(parts, lambda each: each.start // rows)]

    @property
    def local_copies(self) -> bool:
        """Whether rows are read from temporary files of this machine, which no other sees."""
        return self._spool.is_used

    def locate(self, row: int) -> str:
        """Where a row is: ``"val.parquet, row 12"``, counted from 0 within its file."""
        return FileRange(tuple(self._partitions)).locate(row)

    def is_among(self, prints: Sequence[Mapping[str, Any]]) -> bool:
        """Whether one of the files of rows has a fingerprint that is among some.

        Only local files are compared, and of these only those that have the size of one of them.
        """
        known = {(each.get("bytes"), each.get("sha256")) for each in prints}
        sizes = {size for size, _ in known}
        for location in self._locations[: len(self._locations) - self._has_label_file]:
            given = location.original or location
            if given.url is None and _size(given) in sizes:
                digest, size = _digest(location)
                if (size, digest) in known:
                    return True
        return False

    def fingerprints(self) -> list[dict[str, str | int]]:
        """Path, size in bytes and SHA-256 of each file; nothing of a stream read in one pass."""
        if self.rows == UNKNOWN_ROWS:
            return []
        prints: list[dict[str, str | int]] = []
        for shown, location in zip(self.files, self._locations, strict=True):
            digest, size = _digest(location)
            prints.append({"path": shown, "bytes": size, "sha256": digest})
        return prints

    def close(self) -> None:
        """Delete temporary files; chunks that were read stay valid."""
        self._spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _digest(location: Location) -> tuple[str, int]:
    """SHA-256 of a file, and its size in bytes; of a store those of its files and their names."""
    digest, size = hashlib.sha256(), 0
    given = location.original or location
    for part in given.files():
        if part is not given:
            digest.update(f"{part.name}\0".encode())
        with part.open() as file:
            while content := file.read(COPIED_BYTES):
                digest.update(content)
                size += len(content)
    return digest.hexdigest(), size


def _size(location: Location) -> int:
    """The bytes of a local file or store."""
    parts = (Path(part.path) for part in location.files())
    return sum(path.stat().st_size for path in parts if path.is_file())


def _short_name(locations: Sequence[Location]) -> str:
    first = locations[0].name
    name = "stdin" if first == STDIN_NAME else PurePath(first).name
    return name + (f" and {len(locations) - 1} more" if len(locations) > 1 else "")
