"""Open the inputs and options of a command as a `Dataset`."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any, BinaryIO

from calibcli.arrays import InputKind
from calibcli.engine.folds import CLUSTER
from calibcli.errors import DataError, NoLabelsError, UsageError
from calibcli.params import LARGEST_CLASS_COUNT, STDIN
from calibcli.tables.dataset import Dataset
from calibcli.tables.formats.base import (
    UNKNOWN_ROWS,
    DataFile,
    Field,
    RowError,
)
from calibcli.tables.formats.registry import import_function
from calibcli.tables.formats.sniffing import open_file, piped_format, spooled
from calibcli.tables.keys import KeyNumbers
from calibcli.tables.kinds import PERCENT
from calibcli.tables.labels import NO_LABEL, LabelRule, NumberedLabels, whole_numbers
from calibcli.tables.layout import LABEL_ROWS, FilePartition, Layout
from calibcli.tables.locations import STDIN_NAME, Location, expand, is_store
from calibcli.tables.names import (
    FileFields,
    Scores,
    check_labels,
    check_order,
    check_texts,
    find_key,
    find_labels,
    find_scores,
    find_weights,
    other_labels,
    proposed_labels,
)
from calibcli.tables.read_options import SKIP, ReadOptions
from calibcli.tables.sampling import SAMPLED_ROWS, SAMPLED_VALUES, ScoreSample, score_width
from calibcli.tables.shapes.base import OpenedFiles
from calibcli.tables.shapes.registry import as_tables
from calibcli.tables.storage import Spool
from calibcli.tables.widening import differ_harmlessly, widened

ENOUGH_LABELS = 20
"""Labels must be this many before it says anything that all of them are the predicted class."""


@dataclass(frozen=True)
class _Fields:
    """The fields of the first file that are read, and the file of labels if there is one."""

    file: FileFields
    scores: Scores
    labels: Field | None
    label_file: DataFile | None
    weights: Field | None
    keys: dict[str, Field]

    @property
    def score_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.scores.fields)

    @property
    def label_name(self) -> str | None:
        return None if self.labels is None or self.label_file else self.labels.name

    @property
    def rows(self) -> int:
        return self.scores.fields[0].rows

    def names(self) -> list[str]:
        """What is read of every file."""
        weights = [] if self.weights is None else [self.weights.name]
        labels = [] if self.label_name is None else [self.label_name]
        return [*self.score_names, *labels, *weights, *(key.name for key in self.keys.values())]

    def picked(self) -> dict[str, str]:
        """The fields in words, by what they are."""
        picked = {"logits": self.scores.title}
        if self.label_file is not None and self.labels is not None:
            picked["labels"] = f"{self.label_file.location.name} ({self.labels.type})"
        elif self.labels is not None:
            picked["labels"] = self.file.title(self.labels)
        if self.weights is not None:
            picked["weights"] = self.file.title(self.weights)
        return picked | {role: self.file.title(key) for role, key in self.keys.items()}


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
    fields = _find(files[0], opened.labels, options)
    picked = {**fields.picked(), **files[0].picked, **_repeated(options)}
    classes, origin = _class_names(files, fields, options)
    if fields.labels is not None and not _labels_are_read(files[0], fields, options, classes):
        picked["labels"] += ", carried along as it is"
        fields = replace(fields, labels=None, label_file=None)
    if classes is not None:
        picked["classes"] = f"{', '.join(classes[:3])}{', …' if classes[3:] else ''} ({origin})"
    files, others = _agreeing(files, fields, with_columns=options.with_columns)
    rows = _count_rows(files, fields)
    width = score_width(files, rows, fields.score_names)
    _check_classes(width, options, classes, fields.file.name)
    where = f"{fields.file.name}: {fields.scores.title}"
    kind, renormalise = files[0].score_kind, False
    if kind is None:
        renormalise = options.renormalise
        names = fields.score_names
        sample = ScoreSample.read(files, rows, names, lambda each: each.matrix(names, width), width)
        kind, picked["input"] = sample.kind(options, fields.scores.hint, where)
    if renormalise:
        picked["input"] += ", each row divided by its sum"
    rule, decisions = _label_rule(files, rows, fields, options, classes, (kind, width), picked)
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


def _find(file: DataFile, label_file: DataFile | None, options: ReadOptions) -> _Fields:
    fields = FileFields.of(file)
    # A pattern that was asked for may have become one field.
    logits = file.roles.get("logits", options.logits)
    scores = find_scores(fields, logits, options.classes or file.class_names)
    known = None if options.like is None else options.like.classes
    if known is not None and scores.class_names and sorted(known) == sorted(scores.class_names):
        scores = find_scores(fields, logits, known)
    check_texts(file, scores)
    if label_file is not None:
        labels: Field | None = label_file.fields[0]
        check_labels(FileFields.of(label_file), label_file.fields[0])
    else:
        asked = file.roles.get("labels", options.labels)
        labels = find_labels(fields, asked, scores, required=options.labels_required)
    if labels is None and options.labels_required:
        proposed = proposed_labels(fields).lstrip()
        unit = "name" if fields.unit == "array" else fields.unit
        way = f"if these are the labels, add {proposed}; " if proposed else ""
        raise NoLabelsError(
            f"{fields.name}: no labels were found; {fields.listing()}; {way}--labels takes a "
            f"{unit} or a file LABELS.npy"
        )
    if labels is not None and options.labels_required:
        check_order(fields, scores, labels)
    weights = find_weights(fields, file.roles.get("weights", options.weights))
    columns = dict(options.keys)
    if CLUSTER in file.roles and options.labels_required:
        columns.setdefault(CLUSTER, file.roles[CLUSTER])
    keys = {role: find_key(fields, role, name) for role, name in columns.items()}
    return _Fields(fields, scores, labels, label_file, weights, keys)


def _labels_are_read(
    file: DataFile, fields: _Fields, options: ReadOptions, classes: tuple[str, ...] | None
) -> bool:
    """Whether labels become class numbers, or are left as they are.

    Where nothing depends on them, only integers become class numbers: names say more than
    numbers, and a column ``target`` of a file may be something else altogether.
    """
    assert fields.labels is not None
    if not options.labels_required and fields.label_file is None:
        single = fields.labels.axes == 1 or fields.labels.width == 1
        return single and fields.labels.element in ("integer", "bool")
    if fields.labels.element != "string" or classes is not None:
        return True
    raise UsageError(
        f"{fields.file.name}: {fields.picked()['labels']} holds class names, whose order is not "
        f"known; {_ways_to_order(fields.label_file or file, fields.labels)}"
    )


def _ways_to_order(file: DataFile, labels: Field) -> str:
    """How to give the order of class names, whichever of it the first labels leave open."""
    batch = file.head((labels.name,), 0, SAMPLED_ROWS)
    try:
        names = [] if batch is None else sorted(set(batch.values(labels.name).names or ()))
    except RowError:
        names = []
    if any(not name or "," in name or name != name.strip() for name in names):
        names = []
    if len(names) == 2:
        ways = (",".join(names), ",".join(reversed(names)))
        return "say which comes first: " + " or ".join(f"--classes {quote(way)}" for way in ways)
    listed = f", which are {', '.join(names[:8])}{', …' if names[8:] else ''}" if names else ""
    return f"give it with --classes 'first,second,…'{listed}"


def _label_rule(
    files: Sequence[DataFile],
    rows: list[int],
    fields: _Fields,
    options: ReadOptions,
    names: tuple[str, ...] | None,
    scores: tuple[InputKind, int],
    picked: dict[str, str],
) -> tuple[LabelRule, dict[str, Any]]:
    """What the labels mean, said in `picked`, and what of it is to be remembered.

    Raises
    ------
    UsageError
        Another column may be the truth.
    """
    kind, width = scores
    also = _other_labels(fields, options)
    if also:
        picked["labels"] += f"; also there: {', '.join(also)}"
    numbers, is_decided = options.label_numbers, options.label_numbers is not None
    are_places = fields.label_name is not None and fields.label_name == files[0].notes.get("labels")
    if numbers is not None and len(numbers) != max(width, 2):
        raise UsageError(
            f"{fields.file.name}: there are {len(numbers)} numbers for the labels, but "
            f"{max(width, 2)} classes"
        )
    if not is_decided and not are_places:
        numbers, is_decided = _label_numbers(files, rows, fields, options, names, max(width, 2))
    places = tuple(range(max(width, 2)))
    decisions = {"label_numbers": list(numbers or places)} if is_decided else {}
    if numbers == places:
        numbers = None
    if numbers is not None and fields.labels is not None and fields.labels.element != "string":
        picked["labels"] += f", {_numbering(numbers)}"
    skips = options.unlabelled == SKIP
    rule = LabelRule(names, options.ignored, options.labels_required, numbers, skips)
    if options.labels_required and _labels_are_predictions(files[0], fields, rule, kind, width):
        looked_at = _looked_at(width)
        where = "every row" if sum(rows) <= looked_at else f"each of the first {looked_at:,} rows"
        _ask_whether_labels_are_the_truth(fields, also, picked, where)
    return rule, decisions


def _other_labels(fields: _Fields, options: ReadOptions) -> list[str]:
    """What else could be the labels, where they were not asked for."""
    if fields.label_name is None or fields.labels is None or options.labels is not None:
        return []
    return other_labels(fields.file, fields.labels, fields.scores)


def _looked_at(width: int) -> int:
    """How many of the first rows are compared with their labels."""
    return max(2, min(SAMPLED_ROWS, SAMPLED_VALUES // width))


def _labels_are_predictions(
    file: DataFile, fields: _Fields, rule: LabelRule, kind: InputKind, width: int
) -> bool:
    """Whether the label is the most probable class in each of the first rows."""
    if fields.label_name is None or not fields.rows:
        return False
    batch = file.head((*fields.score_names, fields.label_name), 0, _looked_at(width))
    if batch is None:
        return False
    try:
        scores = batch.matrix(fields.score_names, width)
        labels = rule.decode(batch.values(fields.label_name))
    except RowError:
        return False  # whoever reads the rows says what is wrong
    middle = 0.5 if kind == "probs" else 0
    predicted = (scores[:, 0] > middle) if width == 1 else scores.argmax(axis=1)
    kept = labels != NO_LABEL
    return bool(kept.sum() >= ENOUGH_LABELS and (predicted == labels)[kept].all())


def _ask_whether_labels_are_the_truth(
    fields: _Fields, also: list[str], picked: dict[str, str], where: str
) -> None:
    """Say that labels are the predicted classes; refuse to choose where there are other labels.

    Raises
    ------
    UsageError
        Another column may be the truth.
    """
    if not also:
        picked["labels"] += f", the most probable class in {where}: is this the truth?"
        return
    ways = " or ".join(f"--labels {name}" for name in (*also, fields.label_name))
    raise UsageError(
        f"{fields.file.name}: {picked['labels'].partition(';')[0]} is the most probable class in "
        f"{where}, as a prediction is; say which column is the truth: {ways}"
    )


def _label_numbers(
    files: Sequence[DataFile],
    rows: list[int],
    fields: _Fields,
    options: ReadOptions,
    names: tuple[str, ...] | None,
    classes: int,
) -> tuple[tuple[int, ...] | None, bool]:
    """The numbers that stand for the classes where these are not their places, else None.

    Also whether the labels had to decide that, since the classes are named by other numbers. Only
    where that is possible all labels are read for it, until one shows that it is not so.
    """
    labels, label_file = fields.labels, fields.label_file
    if labels is None or labels.element == "string" or not options.labels_required:
        return None, False
    if names is None and fields.scores.first_number:
        named: tuple[int, ...] | None = tuple(range(1, classes + 1))
    else:
        named = whole_numbers(names or ())
    numbering = NumberedLabels(classes, named)
    rule = LabelRule(None, options.ignored, skips=options.unlabelled == SKIP)
    read = list(zip(files, rows, strict=True)) if label_file is None else [(label_file, sum(rows))]
    for file, count in read:
        if not numbering.is_settled and count:
            for batch in file.read((labels.name,), 0, count, LABEL_ROWS):
                try:
                    numbering.look_at(rule.decode(batch.values(labels.name)))
                except RowError:
                    return None, False  # whoever reads the rows says which one it is
                if numbering.is_settled:
                    break
    numbers = numbering.numbers
    return numbers, numbers is not None or named not in (None, tuple(range(classes)))


def _numbering(numbers: tuple[int, ...]) -> str:
    """How labels are numbered, for a person."""
    listed = ", ".join(map(str, numbers[:3]))
    return f"{listed}{', …' if numbers[3:] else ''} for the classes in this order"


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


def _class_names(
    files: Sequence[DataFile], fields: _Fields, options: ReadOptions
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
    if fields.scores.class_names is None and fields.labels is not None:
        owned = [fields.label_file] if fields.label_file else files
        orders = {_ordered_names(file, fields.labels) for file in owned}
        if orders != {()} and len(orders) == 1:
            return orders.pop(), f"the order of {fields.labels.name!r}"
    if fields.scores.class_names is None and options.like is not None and options.like.classes:
        return options.like.classes, f"from {options.like.origin}"
    return fields.scores.class_names, f"from the {fields.file.unit} names"


def _ordered_names(file: DataFile, labels: Field) -> tuple[str, ...]:
    """The classes in the order that the type of the labels gives them; none where it has none.

    Arrow's dictionaries are stored, or made by a reader of Parquet of what comes first: where all
    values come in their order, there is no telling.
    """
    field = FileFields.of(file).find(labels.name)
    if field is None or field.categories or not field.is_ordered:
        return () if field is None else field.categories
    batch = file.head((field.name,), 0, SAMPLED_ROWS)
    try:
        stored = None if batch is None else batch.values(field.name)
    except RowError:
        return ()  # whoever reads the rows says what is wrong
    if stored is None or stored.names is None:
        return ()
    codes = stored.values if stored.missing is None else stored.values[~stored.missing]
    first = list(dict.fromkeys(codes.tolist()))
    is_known = first != list(range(len(stored.names))) and len(set(stored.names)) > 1
    return stored.names if is_known else ()


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


def _agreeing(
    files: Sequence[DataFile], fields: _Fields, *, with_columns: bool
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


def _count_rows(files: Sequence[DataFile], fields: _Fields) -> list[int]:
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
