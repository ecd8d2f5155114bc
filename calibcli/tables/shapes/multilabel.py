"""Multi-label data: scores (N, K) of which any number is right, as a table of a row a label.

Each label is a problem of two classes. Row ``i * K + k`` of the table is label k of row i: its
score is that of class 1, and a column says which label it is. The rows of one row are a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.engine.folds import CLUSTER
from calibcli.errors import DataError, UsageError
from calibcli.params import first_twice
from calibcli.tables.formats.base import (
    UNKNOWN_ROWS,
    Batch,
    DataFile,
    Field,
    RowError,
    Values,
    locating_rows,
)
from calibcli.tables.names import (
    FAMILIES,
    LABELS,
    OTHER_LABELS,
    FileFields,
    Scores,
    check_texts,
    find_scores,
    likely_labels,
)
from calibcli.tables.read_options import LABEL_NAME, ReadOptions
from calibcli.tables.shapes.base import OpenedFiles, PickedBatch, ReshapedFile
from calibcli.tables.storage import Spool

_TRUTH = "label"
"""What the labels are called in the table."""

STORED_ROW = "stored row"
"""The column of clusters: the number of the row that the labels are of."""

_READ_ROWS = 4096

LabelForm: TypeAlias = Literal["vectors", "lists", "columns"]
"""A vector of zeros and ones a row; a list of the labels that a row has; a column a label."""


def as_labels(opened: OpenedFiles, options: ReadOptions, _: Spool) -> OpenedFiles:
    """Make a row of each label, where that is asked for; see `SHAPES`.

    Raises
    ------
    UsageError, DataError
        Options do not go together, or there are no such labels.
    """
    first = opened.files[0]
    if not options.multi_label:
        if options.labels_required:
            _refuse_lists(opened.labels or first, options)
            if opened.labels is None and options.labels is None:
                _refuse_columns(first, options)
        return opened
    _check_options(options)
    names = _label_names(first, options)
    truth = None
    if opened.labels is not None:
        truth = _Truth("vectors", (opened.labels.fields[0].name,))
    elif options.labels_required or options.labels is not None:
        truth = _truth(opened.files, names, options)
    else:
        truth = _truth_if_any(opened.files, names, options)
    made: list[MultiLabelFile] = []
    rows = 0
    for file in opened.files:
        scores = _scores(file, names, options)
        own = truth if opened.labels is None else None
        made.append(_made(file, scores, own, names, rows, options))
        rows += max(scores.fields[0].rows, 0)
    if opened.labels is None:
        return OpenedFiles(tuple(made))
    return OpenedFiles(tuple(made), _label_file(opened.labels, names))


def _check_options(options: ReadOptions) -> None:
    """Refuse options that mean nothing for several labels a row.

    Raises
    ------
    UsageError
    """
    for option, value in (("--counts", options.counts), ("--class-axis", options.class_axis)):
        if value is not None:
            raise UsageError(f"--multi-label and {option} {value} do not go together")
    if options.renormalise:
        raise UsageError("--renormalise: probabilities of labels have no sum to be divided by")


def _refuse_lists(file: DataFile, options: ReadOptions) -> None:
    """Refuse lists with several labels a row, or none, with the option that reads them.

    Raises
    ------
    UsageError
    """
    field = _label_field(file, options)
    if field is None or field.axes != 2 or field.width is not None or "list" not in field.type:
        return
    batch = file.head((field.name,), 0, _READ_ROWS)
    if batch is None:
        return
    try:
        lengths = _items(batch, field.name)[1]
    except RowError:
        return
    if len(set(lengths.tolist())) > 1:
        fields = FileFields.of(file)
        raise UsageError(
            f"{fields.name}: {fields.title(field)} lists {lengths.min()} to {lengths.max()} labels "
            "a row; if any number of labels may be right in a row, add --multi-label"
        )


def _refuse_columns(file: DataFile, options: ReadOptions) -> None:
    """Refuse a column of labels beside each column of scores, with the option that reads them.

    Raises
    ------
    UsageError
    """
    fields = FileFields.of(file)
    families = [pattern for pattern in FAMILIES if options.logits in (None, pattern)]
    if file.roles.get("labels") or _label_field(file, options) is not None:
        return
    for pattern in families:
        prefix = pattern.removesuffix("*")
        names = tuple(
            each.name.removeprefix(prefix)
            for each in file.fields
            if each.name.startswith(prefix) and each.element == "float"
        )
        columns = _columns(file, names, options) if len(names) > 1 else None
        if columns is not None:
            raise UsageError(
                f"{fields.name}: there is a {fields.unit} of labels for each of the scores: "
                f"{_listed(columns)}; if any number of labels may be right in a row, add "
                "--multi-label"
            )


def _scores(file: DataFile, names: Sequence[str] | None, options: ReadOptions) -> Scores:
    """The scores of a file: one vector a row, or a column a label."""
    asked = file.roles.get("logits", options.logits)
    known = options.label_names or options.classes or file.class_names
    scores = find_scores(FileFields.of(file), asked, known if names is None else tuple(names))
    check_texts(file, scores)
    return scores


def _label_names(file: DataFile, options: ReadOptions) -> tuple[str, ...]:
    """The names of the labels in the order of the scores; their numbers where they have none.

    Raises
    ------
    UsageError
        There are more or fewer than scores, or others than the fit had.
    """
    scores = _scores(file, None, options)
    width = _width(file, scores)
    named = options.classes or file.class_names or scores.class_names
    names = named or options.label_names or tuple(map(str, range(width)))
    known = options.label_names
    if known is not None and names != known:
        origin = "the fit" if options.like is None else options.like.origin
        raise UsageError(
            f"{file.location.name}: its labels are {_listed(names)}, but {origin} is for "
            f"{_listed(known)}"
        )
    if len(names) != width:
        raise UsageError(
            f"{file.location.name}: {len(names)} labels are named, but there are scores of {width}"
        )
    twice = first_twice(names)
    if twice is not None:
        raise UsageError(f"{file.location.name}: label {twice!r} is there twice")
    return names


def _width(file: DataFile, scores: Scores) -> int:
    if len(scores.fields) > 1 or scores.fields[0].axes == 1:
        return len(scores.fields)
    width = scores.fields[0].width
    if width is None:
        name = scores.fields[0].name
        batch = file.head((name,), 0, 1)
        with locating_rows(file, 0):
            width = 0 if batch is None or not len(batch) else batch.matrix((name,), None).shape[1]
    if not width:
        raise DataError(f"{file.location.name}: there are no rows with scores")
    return width


_LISTED = 5


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_LISTED])}{', …' if names[_LISTED:] else ''}"


# Labels


@dataclass(frozen=True)
class _Truth:
    """Where the labels are.

    Attributes
    ----------
    form : LabelForm
    fields : tuple of str
        One, or one a label in their order.
    """

    form: LabelForm
    fields: tuple[str, ...]

    def of(self, batch: Batch, names: Sequence[str]) -> Values:
        """Whether each row has each label (n * K,), and which of these are not known.

        Raises
        ------
        RowError
            A row has an unknown label, or not a value for each.
        """
        if self.form == "columns":
            columns = [batch.values(field) for field in self.fields]
            values = np.stack([each.values for each in columns], axis=1).reshape(-1)
            missing = [each.missing for each in columns]
            if all(each is None for each in missing):
                return Values(values)
            absent = [np.zeros(len(batch), bool) if each is None else each for each in missing]
            return Values(values, None, np.stack(absent, axis=1).reshape(-1))
        if self.form == "lists":
            return Values(_memberships(batch, self.fields[0], names).reshape(-1))
        matrix = batch.array(self.fields[0])
        if matrix.shape[1:] != (len(names),):
            raise RowError(
                0, f"{self.fields[0]!r} has {matrix[0].size} labels for {len(names)} scores"
            )
        return Values(matrix.reshape(-1))


def _label_field(file: DataFile, options: ReadOptions) -> Field | None:
    """The one field that will be taken as labels: one with several a row comes first."""
    deep = likely_labels(file, options.labels, lambda field: field.axes == 2)
    return likely_labels(file, options.labels) if deep is None else deep


def _truth(files: Sequence[DataFile], names: tuple[str, ...], options: ReadOptions) -> _Truth:
    """Where the labels of all files are, and what they are.

    Raises
    ------
    UsageError
        There are none, or lists of two numbers a row may be both.
    """
    first = files[0]
    field = _label_field(first, options)
    if field is not None and field.axes == 2:
        return _Truth(_form(files, field, names), (field.name,))
    columns = _columns(first, names, options)
    if columns is not None:
        return _Truth("columns", columns)
    fields = FileFields.of(first)
    wrong = "" if field is None else f"; {fields.title(field)} has one value a row"
    raise UsageError(
        f"{fields.name}: no labels (N, {len(names)}) of zeros and ones, no lists of labels and no "
        f"{fields.unit}s label_{names[0]}, … were found{wrong}; {fields.listing()}"
    )


def _truth_if_any(
    files: Sequence[DataFile], names: tuple[str, ...], options: ReadOptions
) -> _Truth | None:
    field = _label_field(files[0], options)
    has_vectors = field is not None and field.axes == 2
    columns = _columns(files[0], names, options)
    if any(file.fields[0].rows == UNKNOWN_ROWS for file in files):
        return None
    return _truth(files, names, options) if has_vectors or columns is not None else None


def _columns(
    file: DataFile, names: tuple[str, ...], options: ReadOptions
) -> tuple[str, ...] | None:
    """The columns of labels, such as ``label_cat``, in the order of the labels."""
    asked = options.labels
    if asked is not None and "," in asked:
        fields = FileFields.of(file)
        listed = [
            fields.require(each.strip(), f" for --labels {asked}") for each in asked.split(",")
        ]
        if len(listed) != len(names):
            raise UsageError(f"--labels {asked}: there are scores of {len(names)} labels")
        return tuple(field.name for field in listed)
    prefixes = [f"{name}_" for name in (*LABELS, *OTHER_LABELS)]
    if asked is not None:
        prefixes = [asked.removesuffix("*")] if asked.endswith("*") else []
    single = {
        field.name
        for field in file.fields
        if field.axes == 1 and field.element in ("integer", "bool", "float")
    }
    for prefix in prefixes:
        columns = tuple(f"{prefix}{name}" for name in names)
        if single.issuperset(columns):
            return columns
    return None


def _form(files: Sequence[DataFile], field: Field, names: tuple[str, ...]) -> LabelForm:
    """Whether a field with several values a row has a value for each label, or lists labels.

    Raises
    ------
    UsageError
        Both is possible.
    """
    count = len(names)
    if field.element == "string":
        return "lists"
    if field.width is not None or field.element == "bool" or "list" not in field.type:
        return "vectors"
    is_clear = count > 2  # lists do not name a label twice, which K zeros and ones do
    for file in files:
        at = 0
        for batch in file.read((field.name,), 0, field.rows, _READ_ROWS):
            with locating_rows(file, at):
                items, lengths = _items(batch, field.name)
            if (lengths != count).any():
                return "lists"
            if not np.isin(items, (-1, 0, 1)).all():
                return "lists"
            rows = np.asarray(items).reshape(-1, count)
            is_clear |= bool(count == 2 and (rows[:, 0] == rows[:, 1]).any()) or count == 1
            at += len(batch)
    if is_clear:
        return "vectors"
    fields = FileFields.of(files[0])
    raise UsageError(
        f"{fields.name}: {fields.title(field)} may list both labels or say 0 and 1 for them; store "
        "the values in lists of a fixed size if they are zeros and ones"
    )


def _items(batch: Batch, name: str) -> tuple[NumpyArray, NumpyArray]:
    """What the lists of a column hold, one after the other, and their lengths."""
    from calibcli.tables.formats.arrow_types import flattened, values_of

    items, lengths = flattened(batch.columns((name,)).column(0), name)
    stored = values_of(items, name)
    if stored.names is not None:
        return np.array([*stored.names, ""], object)[stored.values], lengths
    return stored.values, lengths


def _memberships(batch: Batch, name: str, names: Sequence[str]) -> NumpyArray:
    """The labels that rows list, as zeros and ones (n, K)."""
    items, lengths = _items(batch, name)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    places = {each: place for place, each in enumerate(names)}
    if items.dtype.kind in "iu" and all(not each.isdigit() for each in names):
        places = {str(place): place for place in range(len(names))}
    distinct, codes = np.unique(items.astype(str), return_inverse=True)
    table = np.array([places.get(each, -1) for each in distinct.tolist()] or [0], np.int64)
    known = table[codes.reshape(-1)]
    if (known < 0).any():
        at = int(np.argmax(known < 0))
        raise RowError(int(rows[at]), f"the label {items[at]} is none of {_listed(names)}")
    matrix = np.zeros((len(lengths), len(names)), np.int64)
    matrix[rows, known] = 1
    return matrix


# The table


def _made(
    file: DataFile,
    scores: Scores,
    truth: _Truth | None,
    names: tuple[str, ...],
    first_row: int,
    options: ReadOptions,
) -> MultiLabelFile:
    stored = scores.fields[0].rows
    rows = stored if stored == UNKNOWN_ROWS else stored * len(names)
    dtype = str(np.result_type(*(field.dtype or "f4" for field in scores.fields)))
    made = [Field(scores.hint, dtype, "float", 1, None, dtype, rows)]
    roles = {"logits": scores.hint}
    picked = {
        "logits": scores.title,
        "multi-label": f"{len(names)} labels, each two classes: {_listed(names)}",
    }
    if truth is not None:
        made.append(_int_field(_TRUTH, rows))
        roles["labels"] = _TRUTH
        picked["labels"] = _truth_title(file, truth)
    made.append(Field(LABEL_NAME, "string", "string", 1, None, None, rows))
    if options.labels_required and CLUSTER not in options.keys:
        made.append(_int_field(STORED_ROW, rows))
        roles[CLUSTER] = STORED_ROW
        picked[CLUSTER] = "the labels of a row"
    picked |= {role: "the labels" for role, key in options.keys.items() if key == LABEL_NAME}
    used = {*(field.name for field in (*scores.fields, *made)), *(truth.fields if truth else ())}
    others = [
        replace(field, rows=rows, in_memory=False)
        for field in file.fields
        if field.name not in used and field.rows == stored
    ]
    return MultiLabelFile(
        location=file.location,
        format=file.format,
        fields=(*made, *others),
        about=file.about,
        seen=file.seen,
        is_expanded=options.labels_required,
        decisions={**file.decisions, "multi_label": True, "label_names": list(names)},
        picked={**file.picked, **picked},
        roles=roles,
        score_kind=file.score_kind,
        row_labels=names,
        file=file,
        scores=(scores.hint, tuple(field.name for field in scores.fields)),
        truth=truth,
        first_row=first_row,
    )


def _truth_title(file: DataFile, truth: _Truth) -> str:
    """Where the labels are, for a person."""
    if truth.form == "columns":
        return f"{file.unit}s {truth.fields[0]} … {truth.fields[-1]}"
    fields = FileFields.of(file)
    title = fields.title(fields.require(truth.fields[0]))
    return f"{title}, lists of the labels that a row has" if truth.form == "lists" else title


def _int_field(name: str, rows: int) -> Field:
    return Field(name, "int64", "integer", 1, None, "int64", rows)


def _label_file(file: DataFile, names: tuple[str, ...]) -> MultiLabelFile:
    """A file of labels alone, a row a label.

    Raises
    ------
    DataError
        It has not a value for each.
    """
    field = file.fields[0]
    if field.axes != 2 or field.width != len(names):
        raise DataError(
            f"{file.location.name}: the labels ({field.type}) are not {len(names)} zeros and ones "
            "a row, one for each score"
        )
    return MultiLabelFile(
        location=file.location,
        format=file.format,
        fields=(_int_field(_TRUTH, field.rows * len(names)),),
        unit=file.unit,
        row_labels=names,
        file=file,
        scores=("", ()),
        truth=_Truth("vectors", (field.name,)),
        first_row=0,
    )


@dataclass(eq=False, kw_only=True)
class MultiLabelFile(ReshapedFile):
    """A table with a row for each label of the rows of a file.

    Attributes
    ----------
    scores : (str, tuple of str)
        What the scores are called here, and the fields that hold them in the file.
    truth : _Truth or None
        Where the labels are.
    first_row : int
        The number of the first row among those of all files.
    """

    scores: tuple[str, tuple[str, ...]]
    truth: _Truth | None
    first_row: int

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the labels."""
        return self.row_labels or ()

    def sources(self, names: Sequence[str]) -> list[str]:
        """The fields of the file that some fields of the table are read from."""
        sources: list[str] = []
        for name in names:
            if name == self.scores[0]:
                sources += self.scores[1]
            elif name == _TRUTH:
                sources += () if self.truth is None else self.truth.fields
            elif name not in (LABEL_NAME, STORED_ROW):
                sources.append(name)
        # A reader of no fields might say nothing of rows.
        fallback = self.truth.fields if self.truth is not None else self.scores[1]
        return list(dict.fromkeys(sources)) or list((self.scores[1] or fallback)[:1])

    def splits(self, rows: int) -> Sequence[int]:
        """Row numbers at which reading may begin: the first label of rows where it may."""
        count = len(self.names)
        return tuple(begin * count for begin in self.file.splits(rows // count))

    def locate(self, row: int) -> str:
        """Where a row is in the file, and which label it is."""
        place, label = divmod(row, len(self.names))
        return f"{self.file.locate(place)}, label {self.names[label]}"

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[Batch]:
        """Rows ``begin`` to before ``end``, at most ``rows`` at a time."""
        count = len(self.names)
        stored, last = begin // count, end if end == UNKNOWN_ROWS else -(-end // count)
        for batch in self.file.read(self.sources(names), stored, last, max(rows // count, 1)):
            at = stored * count
            low = max(begin - at, 0)
            high = len(batch) * count if end == UNKNOWN_ROWS else min(end - at, len(batch) * count)
            with locating_rows(self.file, stored):
                made = {name: self._made(name, batch, stored) for name in self._names & {*names}}
            for first in range(low, high, rows):
                part = slice(first, min(first + rows, high))
                parts = {name: _part(values, part) for name, values in made.items()}
                yield PickedBatch(batch, np.arange(part.start, part.stop) // count, parts)
            stored += len(batch)

    @property
    def _names(self) -> set[str]:
        """The fields that are none of the file."""
        truth = set() if self.truth is None else {_TRUTH}
        return {self.scores[0], LABEL_NAME, STORED_ROW, *truth}

    def _made(self, name: str, batch: Batch, stored: int) -> Values:
        """A field that is none of the file, for all labels of the rows from a number on.

        Raises
        ------
        RowError
            A score is missing, or a label cannot be understood.
        """
        count = len(self.names)
        if name == self.scores[0]:
            return Values(batch.matrix(self.scores[1], count).reshape(-1))
        if name == _TRUTH and self.truth is not None:
            return self.truth.of(batch, self.names)
        rows = np.arange(len(batch))
        if name == LABEL_NAME:
            return Values(np.tile(np.arange(count), len(batch)), self.names)
        return Values(np.repeat(rows + (self.first_row + stored), count))


def _part(values: Values, rows: slice) -> Values:
    missing = None if values.missing is None else values.missing[rows]
    return Values(values.values[rows], values.names, missing)
