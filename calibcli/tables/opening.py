"""From the inputs and options of a command to a `Dataset`."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from calibcli.engine.source import NumpyArray
from calibcli.errors import DataError, UsageError
from calibcli.tables.dataset import STDIN_NAME, Dataset
from calibcli.tables.fields import UNKNOWN_ROWS, DataFile, Field
from calibcli.tables.formats import open_data, sniff
from calibcli.tables.keys import KeyNumbers
from calibcli.tables.kinds import decide_kind
from calibcli.tables.labels import LabelRule
from calibcli.tables.layout import Layout, Part
from calibcli.tables.locations import STDIN, Location, expand
from calibcli.tables.names import (
    Scores,
    Table,
    check_labels,
    find_key,
    find_labels,
    find_scores,
    find_weights,
)
from calibcli.tables.options import ReadOptions
from calibcli.tables.spool import Spool

SAMPLED_PARTS = 8
SAMPLED_ROWS = 4096
SAMPLED_VALUES = 1 << 21
"""How much is looked at to see whether the values agree with the name."""

_UNITS = {"npz": "key", "npy": "array"}


@dataclass(frozen=True)
class _Found:
    """The fields of the first file that matter, and the file of labels if there is one."""

    table: Table
    scores: Scores
    labels: Field | None
    label_file: DataFile | None
    weights: Field | None
    keys: dict[str, Field]

    @property
    def rows(self) -> int:
        return self.scores.fields[0].rows

    @property
    def fields(self) -> list[Field]:
        """What is read of every file."""
        own = self.labels if self.label_file is None else None
        single = [each for each in (own, self.weights) if each is not None]
        return [*self.scores.fields, *single, *self.keys.values()]

    def picked(self) -> dict[str, str]:
        picked = {"logits": self.scores.title}
        if self.label_file is not None and self.labels is not None:
            picked["labels"] = f"{self.label_file.location.name} ({self.labels.type})"
        elif self.labels is not None:
            picked["labels"] = self.table.title(self.labels)
        if self.weights is not None:
            picked["weights"] = self.table.title(self.weights)
        return picked | {role: self.table.title(key) for role, key in self.keys.items()}


def open_dataset(
    inputs: Sequence[str], options: ReadOptions, *, stdin: BinaryIO | None = None
) -> Dataset:
    """Find the files, and in them the scores, labels and weights; read nothing but a sample.

    Parameters
    ----------
    inputs : sequence of str
        Paths, globs, folders, URLs of object stores, and ``-`` for standard input.
    options : ReadOptions
    stdin : binary file or None
        Instead of the process's standard input.

    Raises
    ------
    UsageError
        An option does not fit the files, or the name and the values of the scores contradict
        each other.
    DataError
        A file cannot be read, or the files do not fit together.
    """
    spool = Spool()
    try:
        files = _open_files(inputs, options, stdin, spool)
        return _assemble(files, options, spool)
    except BaseException:
        spool.close()
        raise


def _open_files(
    inputs: Sequence[str], options: ReadOptions, stdin: BinaryIO | None, spool: Spool
) -> list[DataFile]:
    return [
        _open_stdin(stdin or sys.stdin.buffer, options, spool)
        if location.path == STDIN
        else open_data(location, spool)
        for location in expand(inputs)
    ]


def _open_stdin(stream: BinaryIO, options: ReadOptions, spool: Spool) -> DataFile:
    if stream.isatty():
        raise UsageError("- reads standard input, which is a terminal; pipe a file into it")
    reader = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]
    if options.single_pass and sniff(reader.peek(8), STDIN_NAME) == "ipc-stream":
        from calibcli.tables.ipc import StreamData

        return StreamData(Location(STDIN_NAME, STDIN), reader)
    return open_data(Location(STDIN_NAME, spool.copy(reader, STDIN_NAME)), spool)


def _assemble(files: list[DataFile], options: ReadOptions, spool: Spool) -> Dataset:
    found = _find(files[0], options, spool)
    picked = found.picked()
    classes, origin = _class_names(files, found, options)
    if found.labels is not None and not _labels_are_read(found, options, classes):
        picked["labels"] += ", carried along as it is"
        found = replace(found, labels=None, label_file=None)
    if classes is not None:
        picked["classes"] = f"{', '.join(classes[:3])}{', …' if classes[3:] else ''} ({origin})"
    layout = Layout(
        scores=tuple(field.name for field in found.scores.fields),
        width=None,
        labels=found.labels.name if found.labels is not None and not found.label_file else None,
        label_file=found.label_file,
        weights=None if found.weights is None else found.weights.name,
        rule=LabelRule(classes, options.ignore_label, options.labels_required),
        keys={
            role: KeyNumbers(key.name, options.key_names.get(role, ()))
            for role, key in found.keys.items()
        },
    )
    layout = replace(layout, others=_check_agreement(files, found, layout))
    width = _width(_parts(files, layout))
    _check_classes(width, options.classes, classes, found.table.name)
    parts = _parts(files, replace(layout, width=width))
    sample = _sample(parts, width)
    where = f"{found.table.name}: {found.scores.title}"
    kind, picked["input"] = decide_kind(options.input, found.scores.hint, sample, where)
    return Dataset(parts, kind, picked, classes, spool)


def _find(file: DataFile, options: ReadOptions, spool: Spool) -> _Found:
    table = Table(file.location.name, _UNITS.get(file.format, "column"), file.fields)
    scores = find_scores(table, options.logits, options.classes or file.class_names)
    label_file = _label_file(table, options.labels, spool)
    labels = (
        label_file.fields[0]
        if label_file is not None
        else find_labels(table, options.labels, scores, required=options.labels_required)
    )
    if labels is None and options.labels_required:
        raise UsageError(
            f"{table.name}: no labels were found; {table.listing()}; --labels takes a "
            f"{'name' if table.unit == 'array' else table.unit} or a file LABELS.npy"
        )
    weights = find_weights(table, options.weights)
    keys = {role: find_key(table, role, name) for role, name in options.keys.items()}
    return _Found(table, scores, labels, label_file, weights, keys)


def _labels_are_read(found: _Found, options: ReadOptions, classes: tuple[str, ...] | None) -> bool:
    """Whether labels become class numbers, or are left as they are.

    Where nothing depends on them, only integers become class numbers: names say more than
    numbers, and a column ``target`` of a file may be something else altogether.
    """
    assert found.labels is not None
    if not options.labels_required and found.label_file is None:
        return found.labels.element in ("integer", "bool")
    if found.labels.element != "string" or classes is not None:
        return True
    raise UsageError(
        f"{found.table.name}: {found.picked()['labels']} holds class names, whose order is not "
        "known; give it with --classes 'first,second,…'"
    )


def _label_file(table: Table, asked: str | None, spool: Spool) -> DataFile | None:
    """The file of labels, if it is one that was asked for."""
    if asked is None or table.find(asked) is not None:
        return None
    if not asked.lower().endswith(".npy") and not Path(asked).is_file():
        return None
    (location,) = expand([asked])
    file = open_data(location, spool)
    if file.format != "npy":
        raise UsageError(f"--labels {asked}: only an .npy file can hold labels alone")
    check_labels(Table(asked, "array", file.fields), file.fields[0])
    return file


def _class_names(
    files: list[DataFile], found: _Found, options: ReadOptions
) -> tuple[tuple[str, ...] | None, str]:
    """The class names and where they are from."""
    if options.classes is not None:
        return options.classes, "from --classes"
    stored = files[0].class_names
    for file in files:
        if file.class_names != stored:
            raise DataError(
                f"{file.location.name}: its metadata has other class names than "
                f"{files[0].location.name}; --classes says which are meant"
            )
    if stored is not None:
        return stored, "from the file's metadata"
    return found.scores.class_names, f"from the {found.table.unit} names"


def _check_classes(
    columns: int, asked: tuple[str, ...] | None, names: tuple[str, ...] | None, name: str
) -> None:
    """Refuse scores without classes, and class names that are not as many as the classes."""
    if not columns:
        raise DataError(f"{name}: the rows of scores are empty")
    classes = 2 if columns == 1 else columns
    if names is not None and len(names) != classes:
        origin = "--classes" if asked is not None else "the file's metadata"
        raise UsageError(
            f"{name}: {origin} names {len(names)} classes, but the scores have {classes}"
            + ("" if asked is not None else "; --classes gives the right names")
        )


def _check_agreement(files: list[DataFile], found: _Found, layout: Layout) -> tuple[str, ...]:
    """The columns that ride along, after a check that all files have the same ones.

    Raises
    ------
    DataError
        A column is missing in a file, has another type there, or has other rows than the scores.
    """
    used = {*layout.scores, layout.labels}
    schemas = []
    for file in files:
        fields = {field.name: field for field in file.fields}
        rows = next((fields[name].rows for name in layout.scores if name in fields), None)
        schemas.append(
            {
                name: field.type
                for name, field in fields.items()
                if field.rows == rows and (field.carried or name in used)
            }
        )
    first = schemas[0]
    for name in (field.name for field in found.fields):
        if name not in first:
            raise DataError(
                f"{found.table.name}: {found.table.unit} {name!r} has not as many rows as "
                f"{layout.scores[0]!r} ({found.rows})"
            )
    for file, schema in zip(files, schemas, strict=True):
        for name in dict.fromkeys([*first, *schema]):
            here, there = (each.get(name, "not there") for each in (schema, first))
            if here != there:
                raise DataError(
                    f"{file.location.name}: {found.table.unit} {name!r} is {here}, but in "
                    f"{files[0].location.name} it is {there}; all files must have the same columns"
                )
    return tuple(name for name in first if name not in used)


def _parts(files: list[DataFile], layout: Layout) -> list[Part]:
    """One part a file."""
    parts, start = [], 0
    for file in files:
        rows = next(field.rows for field in file.fields if field.name == layout.scores[0])
        parts.append(Part(file, layout, 0, rows, start, start))
        start += rows
    label_file = layout.label_file
    if label_file is not None and label_file.fields[0].rows != start != UNKNOWN_ROWS:
        raise DataError(
            f"{label_file.location.name}: {label_file.fields[0].rows} labels for {start} rows"
        )
    return parts


def _width(parts: list[Part]) -> int:
    """The number of score columns, from the first row there is.

    Raises
    ------
    DataError
        There are no rows.
    """
    for part in parts:
        row = part.head(1) if part.end else None
        if row is not None and len(row):
            return int(row.shape[1])
    raise DataError(f"{parts[0].file.location.name}: there are no rows")


def _sample(parts: list[Part], width: int) -> NumpyArray:
    """Some rows of scores (n, C), from up to `SAMPLED_PARTS` places."""
    places = [
        replace(part, begin=begin)
        for part in parts
        if part.end
        for begin in part.file.splits(part.end)
    ]
    chosen = np.linspace(0, len(places) - 1, SAMPLED_PARTS).astype(int)
    rows = max(2, min(SAMPLED_ROWS, SAMPLED_VALUES // SAMPLED_PARTS // width))
    pieces = [places[index].head(rows) for index in sorted(set(chosen))]
    return np.concatenate([piece[:rows] for piece in pieces if piece is not None])
