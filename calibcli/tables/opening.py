"""Open the inputs and options of a command as a `Dataset`."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from calibcli.errors import DataError, NoLabelsError, UsageError
from calibcli.params import LARGEST_CLASS_COUNT, STDIN
from calibcli.tables.chosen_fields import (
    ChosenFields,
    choose_fields,
    classes_of,
    label_rule,
    labels_are_read,
)
from calibcli.tables.dataset import Dataset
from calibcli.tables.formats.base import (
    UNKNOWN_ROWS,
    DataFile,
    Field,
)
from calibcli.tables.formats.registry import import_function
from calibcli.tables.formats.sniffing import open_file, piped_format, spooled
from calibcli.tables.keys import KeyNumbers
from calibcli.tables.kinds import PERCENT
from calibcli.tables.layout import FilePartition, Layout
from calibcli.tables.locations import STDIN_NAME, Location, expand, is_store
from calibcli.tables.names import FileFields
from calibcli.tables.read_options import ReadOptions
from calibcli.tables.sampling import ScoreSample, score_width
from calibcli.tables.shapes.base import OpenedFiles
from calibcli.tables.shapes.registry import as_tables
from calibcli.tables.storage import Spool
from calibcli.tables.widening import differ_harmlessly, widened


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
    spool = Spool(options.spool_limit)
    try:
        return read_as(open_files(inputs, options, spool, stdin), options, spool)
    except BaseException:
        spool.close()
        raise


def read_as(files: tuple[DataFile, ...], options: ReadOptions, spool: Spool) -> Dataset:
    """Open files as a data set, which closes the spool.

    Raises
    ------
    UsageError, DataError
        As `open_dataset` raises them.
    """
    chosen = options.noting(files[0].notes)
    opened = OpenedFiles(files, _label_file(files[0], chosen.labels, spool))
    try:
        return _assemble(as_tables(opened, chosen, spool), chosen.of_table, spool)
    except NoLabelsError:
        if not options.labels_where_there:
            raise
    without = replace(options, labels_required=False, labels_where_there=False)
    return read_as(files, without, spool)


def open_files(
    inputs: Sequence[str], options: ReadOptions, spool: Spool, stdin: BinaryIO | None = None
) -> tuple[DataFile, ...]:
    """The files of some inputs, of which the fields alone are known.

    Raises
    ------
    UsageError, DataError
        A file cannot be read.
    """
    return tuple(
        _open_stdin(stdin or sys.stdin.buffer, options, spool)
        if location.path == STDIN
        else open_file(location, spool)
        for location in expand(inputs)
    )


def _open_stdin(stream: BinaryIO, options: ReadOptions, spool: Spool) -> DataFile:
    if stream.isatty():
        raise UsageError("- reads standard input, which is a terminal; pipe a file into it")
    reader = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]
    if options.single_pass:
        form = piped_format(reader.peek(8))
        if form is not None:
            location = Location(STDIN_NAME, STDIN)
            piped: DataFile = import_function(form.pipe_reader)(location, reader, spool)
            return piped
    return open_file(spooled(reader, Location(STDIN_NAME, STDIN), spool), spool)


def _assemble(opened: OpenedFiles, options: ReadOptions, spool: Spool) -> Dataset:
    files: Sequence[DataFile] = opened.files
    fields = choose_fields(files[0], opened.labels, options)
    picked = {**fields.picked(), **files[0].picked, **_repeated(options)}
    classes, origin = classes_of(files, fields, options)
    if fields.labels is not None and not labels_are_read(files[0], fields, options, classes):
        picked["labels"] += ", carried along as it is"
        fields = replace(fields, labels=None, label_file=None)
    if classes is not None:
        picked["classes"] = f"{', '.join(classes[:3])}{', …' if classes[3:] else ''} ({origin})"
    files, others = _agreeing(files, fields, with_columns=options.with_columns)
    rows = _count_rows(files, fields)
    width = score_width(files, rows, fields.score_names)
    _check_classes(width, options, classes, fields.file.name)
    _check_label_classes(width, fields.label_file or files[0])
    where = f"{fields.file.name}: {fields.scores.title}"
    kind, renormalise = files[0].score_kind, False
    if kind is None:
        renormalise = options.renormalise
        names = fields.score_names
        sample = ScoreSample.read(files, rows, names, lambda each: each.matrix(names, width), width)
        kind, picked["input"] = sample.kind(options, fields.scores.hint, where)
    if renormalise:
        picked["input"] += ", each row divided by its sum"
    rule, decisions = label_rule(files, rows, fields, options, classes, (kind, width), picked)
    used = {*fields.score_names, fields.label_name, *others, *files[0].about}
    layout = Layout(
        scores=fields.score_names,
        kind=kind,
        width=width,
        divisor=100 if options.input == PERCENT and files[0].score_kind is None else 1,
        renormalise=renormalise,
        rule=rule,
        labels=fields.label_name,
        label_file=fields.label_file,
        weights=None if fields.weights is None else fields.weights.name,
        others=others,
        left_out=tuple(field.name for field in files[0].fields if field.name not in used),
        keys={
            role: KeyNumbers(key.name, options.key_names.get(role, ()))
            for role, key in fields.keys.items()
        },
        picked=picked,
        decisions=decisions | _decisions_of(files, options),
    )
    return Dataset(_partitions(files, rows, layout), layout, spool)


def _repeated(options: ReadOptions) -> dict[str, str]:
    """What is repeated from a fit, in words."""
    if options.like is None or not options.repeated:
        return {}
    return {"reading": f"{options.repeated}, as {options.like.origin} says"}


def _decisions_of(files: Sequence[DataFile], options: ReadOptions) -> dict[str, Any]:
    """What was asked for of the scores, and decided to make rows of some files, all alike.

    Raises
    ------
    DataError
        It differs.
    """
    first = files[0]
    for file in files:
        if file.decisions != first.decisions:
            raise DataError(
                f"{file.location.name}: is read in another way than {first.location.name} "
                f"({file.decisions} and {first.decisions}); give each to a command of its own"
            )
    asked: dict[str, Any] = {}
    if options.input == PERCENT or options.renormalise:
        asked["input"] = options.input
    if options.renormalise:
        asked["renormalise"] = True
    return {**asked, **first.decisions}


def _label_file(first: DataFile, asked: str | None, spool: Spool) -> DataFile | None:
    """The file of labels, if it is one that was asked for; its shape is not looked at."""
    if asked is None or FileFields.of(first).find(asked) is not None:
        return None
    is_file = asked.lower().endswith(".npy") or Path(asked).is_file() or is_store(Path(asked))
    if not is_file:
        return None
    (location,) = expand([asked])
    file = open_file(location, spool)
    if file.unit != "array":
        raise UsageError(f"--labels {asked}: only an .npy file can hold labels alone")
    return file


def _check_classes(
    columns: int, options: ReadOptions, names: tuple[str, ...] | None, name: str
) -> None:
    """Refuse scores without classes, and class names that are not as many as the classes."""
    if not columns:
        raise DataError(f"{name}: the rows of scores are empty")
    if columns > LARGEST_CLASS_COUNT:
        raise DataError(f"{name}: has {columns:,} classes; {LARGEST_CLASS_COUNT:,} are possible")
    classes = 2 if columns == 1 else columns
    if options.num_classes not in (None, classes):
        raise UsageError(
            f"{name}: --num-classes {options.num_classes} pads lists that are shorter, but the "
            f"scores have {classes} classes"
        )
    if names is not None and len(names) != classes:
        origin = "--classes" if options.classes is not None else "the file's metadata"
        raise UsageError(
            f"{name}: {origin} names {len(names)} classes, but the scores have {classes}"
            + ("" if options.classes is not None else "; --classes gives the right names")
        )


def _check_label_classes(columns: int, labels: DataFile) -> None:
    """Refuse labels that speak of more or fewer classes than have scores."""
    classes, known = (2 if columns == 1 else columns), labels.label_classes
    if known not in (None, classes):
        raise DataError(
            f"{labels.location.name}: a label has {known} values, one a class, but the scores have "
            f"{classes} classes"
        )


def _agreeing(
    files: Sequence[DataFile], fields: ChosenFields, *, with_columns: bool
) -> tuple[Sequence[DataFile], tuple[str, ...]]:
    """The files, with the types of them all, and the columns that ride along.

    Raises
    ------
    DataError
        A column that is read is missing in a file, is something else there, or has other rows than
        the scores; or one that rides along has types that do not go together.
    """
    used = {*fields.score_names, fields.label_name}
    unit = fields.file.unit
    schemas = [_schema(file, fields.score_names, used) for file in files]
    first = schemas[0]
    for name in fields.names():
        if name not in first:
            raise DataError(
                f"{fields.file.name}: {unit} {name!r} has not as many rows as "
                f"{fields.score_names[0]!r} ({fields.rows})"
            )
        for file, schema in zip(files, schemas, strict=True):
            stored = schema.get(name)
            if stored is None or not differ_harmlessly(stored, first[name]):
                raise DataError(
                    f"{file.location.name}: {unit} {name!r} is "
                    f"{'not there' if stored is None else stored.type}, but in "
                    f"{files[0].location.name} it is {first[name].type}; all files must have the "
                    "same columns"
                )
    present = schemas if with_columns else schemas[:1]
    others = dict.fromkeys(name for schema in present for name in schema if name not in used)
    carried = tuple(others) if with_columns else ()
    return widened(files, fields.score_names, carried), tuple(others)


def _schema(
    file: DataFile, scores: Sequence[str], used: Collection[str | None]
) -> dict[str, Field]:
    """The fields that are used or can ride along, by name."""
    fields = {field.name: field for field in file.fields}
    rows = next((fields[name].rows for name in scores if name in fields), None)
    return {
        name: field
        for name, field in fields.items()
        if field.rows == rows and (field.carried or name in used)
    }


def _count_rows(files: Sequence[DataFile], fields: ChosenFields) -> list[int]:
    """The rows of each file, after a check that there are as many labels.

    Raises
    ------
    DataError
        The file of labels has more or fewer.
    """
    first = fields.score_names[0]
    rows = [next(each.rows for each in file.fields if each.name == first) for file in files]
    label_file = fields.label_file
    if label_file is not None and label_file.fields[0].rows != sum(rows) != UNKNOWN_ROWS:
        raise DataError(
            f"{label_file.location.name}: {label_file.fields[0].rows} labels for {sum(rows)} rows"
        )
    return rows


def _partitions(files: Sequence[DataFile], rows: list[int], layout: Layout) -> list[FilePartition]:
    """The parts of a dataset, one a file."""
    starts = itertools.accumulate(rows[:-1], initial=0)
    return [
        FilePartition(file, layout, 0, count, start, start)
        for file, count, start in zip(files, rows, starts, strict=True)
    ]
