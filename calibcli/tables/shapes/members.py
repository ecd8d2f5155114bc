"""Ensembles: scores of several members for each row, as one model or as rows of their own.

Members are an axis of an array (`(M, N, K)`, `(N, M, K)`), fields of their own (`logits_0`,
`logits_1`, … each `(N, K)`), or files. What becomes of them changes every number, so it is asked
for: the mean of their probabilities (what "deep ensembles" do: Lakshminarayanan et al. 2017,
https://arxiv.org/abs/1612.01474, section 2.4), the mean of their logits, or each by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any

import numpy as np

from calibcli.arrays import SMALLEST_PROBABILITY, InputKind, NumpyArray
from calibcli.errors import DataError, UsageError
from calibcli.tables.formats.base import Batch, DataFile, Field, RowError, locating_rows
from calibcli.tables.kinds import PERCENT, TOLERANCE
from calibcli.tables.locations import Location
from calibcli.tables.names import FAMILIES, SCORES, FileFields, likely_labels, natural
from calibcli.tables.read_options import MEMBERS, ReadOptions
from calibcli.tables.sampling import ScoreSample
from calibcli.tables.shapes.base import AlignedReader, OpenedFiles, ReshapedFile, RewrittenFile
from calibcli.tables.shapes.grid_files import members_as_rows
from calibcli.tables.storage import Spool

_LABEL_ROWS = 1 << 16

_WORDS = {
    "mean-probs": "the mean of their probabilities",
    "mean-logits": "the mean of their logits",
    "each": "a row for each",
}


def as_members(opened: OpenedFiles, options: ReadOptions, spool: Spool) -> OpenedFiles:
    """Make one table of the members of an ensemble; see `SHAPES`."""
    stacked = _stacked(opened, options)
    if stacked is None:
        _refuse_one_model(opened.files[0], options)
        return opened
    files, name = stacked
    count = _field(files[0], name).shape[0]
    if count == 0:
        raise DataError(f"{files[0].location.name}: the rows of scores are empty")
    if options.members != MEMBERS[-1] and options.member_count not in (None, count):
        origin = "the fit" if options.like is None else options.like.origin
        raise UsageError(
            f"{files[0].location.name}: has {count} members, but {origin} is for the mean of "
            f"{options.member_count}"
        )
    if options.members is None and count > 1:
        fields = FileFields.of(files[0])
        ways = ", ".join(f"--members {way}" for way in MEMBERS[:-1])
        raise UsageError(
            f"{fields.name}: {fields.title(_field(files[0], name))}: {count} members of an "
            f"ensemble for each row; say what they become: {ways} or --members {MEMBERS[-1]}"
        )
    way = options.members or MEMBERS[0]
    if way == "each":
        made, labels = _as_rows(files, name, opened.labels, spool)
    else:
        made, labels = _means(files, name, way, options), opened.labels
    words = {"members": f"{count}, {_WORDS[way]}"}
    decisions = {"members": way, "member_count": count}
    return OpenedFiles(
        tuple(
            replace(
                file,
                picked={**file.picked, **words},
                decisions={**file.decisions, **decisions},
            )
            for file in made
        ),
        labels,
    )


def _refuse_one_model(file: DataFile, options: ReadOptions) -> None:
    """Refuse options about members where there are none.

    Raises
    ------
    UsageError
    """
    if options.members is None and options.member_axis is None:
        return
    given = {"--members": options.members, "--member-axis": options.member_axis}
    option = next(f"{name} {value}" for name, value in given.items() if value is not None)
    if options.like is not None and options.repeats("members"):
        raise UsageError(
            f"{file.location.name}: has the scores of one model, but {options.like.origin} was "
            f"fitted with {option}; its members are to be given"
        )
    raise UsageError(
        f"{option}: {file.location.name} has the scores of one model; members are an axis of the "
        "array, keys such as logits_0 and logits_1, or several files"
    )


def _field(file: DataFile, name: str) -> Field:
    return FileFields.of(file).require(name)


def _is_stack(field: Field) -> bool:
    """Whether a row has the scores of several members."""
    return field.element == "float" and field.axes == 3 and len(field.shape) == 2


def _stacked(opened: OpenedFiles, options: ReadOptions) -> tuple[list[DataFile], str] | None:
    """Files with one field of scores, a row (M, C), and its name; None where there are no members.

    Raises
    ------
    DataError
        The members have not the same rows.
    """
    first, files = opened.files[0], list(opened.files)
    name = _score_field(first, options)
    if name is not None and _is_stack(_field(first, name)):
        shapes = {_field(file, name).shape for file in files}
        if len(shapes) > 1:
            raise DataError(f"{first.location.name}: other files have other members or classes")
        return files, name
    family = _family(first, options) if name is None else None
    if family is not None:
        pattern, names = family
        return [_Stack.of([(file, each) for each in names], pattern) for file in files], pattern
    if options.members is not None and name is not None and len(files) > 1:
        _check_labels(files, options)
        return [_Stack.of([(file, name) for file in files], name)], name
    return None


def _score_field(file: DataFile, options: ReadOptions) -> str | None:
    """The field of scores, where it is one."""
    fields = FileFields.of(file)
    if "logits" in file.roles:
        return file.roles["logits"]
    if options.logits is not None:
        asked = fields.find(options.logits)
        return None if asked is None else asked.name
    if file.unit == "array":
        return file.fields[0].name
    named = fields.named(SCORES)
    usable = [field for field in named if field.element == "float"]
    usable.sort(key=lambda field: field.axes > 2)
    return usable[0].name if usable else None


def _family(file: DataFile, options: ReadOptions) -> tuple[str, list[str]] | None:
    """Fields of vectors that are members by their names, and the pattern of these."""
    for pattern in FAMILIES if options.logits is None else (options.logits,):
        fields = [
            field
            for field in file.fields
            if fnmatchcase(field.name.lower(), pattern.lower()) and field.element == "float"
        ]
        if len(fields) > 1 and all(field.axes == 2 and field.width for field in fields):
            if len({(field.width, field.rows) for field in fields}) > 1:
                raise DataError(
                    f"{file.location.name}: the {file.unit}s {pattern} are no members of an "
                    "ensemble: they have not the same rows and classes"
                )
            fields.sort(key=lambda field: natural(field.name))
            return pattern, [field.name for field in fields]
    return None


def _check_labels(files: Sequence[DataFile], options: ReadOptions) -> None:
    """Refuse files that are no members: they have other labels.

    Raises
    ------
    DataError
    """
    labels = [likely_labels(file, options.labels) for file in files]
    first = labels[0]
    if first is None:
        return
    for file, field in zip(files[1:], labels[1:], strict=True):
        if field is None:
            continue
        pairs = zip(_texts(files[0], first), _texts(file, field), strict=False)
        if field.rows != first.rows or any(one != other for one, other in pairs):
            raise DataError(
                f"{file.location.name}: its labels are not those of {files[0].location.name}, so "
                "the files are not members of an ensemble, which have the same rows in one order"
            )


def _texts(file: DataFile, field: Field) -> Iterator[list[Any]]:
    """Labels block by block, in a form that can be compared."""
    for begin in range(0, field.rows, _LABEL_ROWS):
        batch = file.head((field.name,), begin, _LABEL_ROWS)
        with locating_rows(file, begin):
            stored = batch and batch.values(field.name)
        if stored:
            yield stored.in_order() if stored.names is not None else stored.values.tolist()


def _as_rows(
    files: Sequence[DataFile], name: str, labels: DataFile | None, spool: Spool
) -> tuple[list[DataFile], DataFile | None]:
    """A row for each member; all rows of one row before are a cluster."""
    made: list[DataFile] = []
    rows = 0
    for file in files:
        field = _field(file, name)
        made.append(members_as_rows(file, name, field.shape, rows, spool))
        rows += field.rows
    if labels is not None:
        labels = members_as_rows(labels, None, _field(files[0], name).shape, 0, spool)
    return made, labels


@dataclass(eq=False, kw_only=True)
class _Stack(ReshapedFile):
    """Fields of one file, or of several with the same rows, as one whose rows are (M, C).

    Attributes
    ----------
    members : tuple of (DataFile, str)
        The file and the field of each member.
    name : str
        Of the field.
    """

    members: tuple[tuple[DataFile, str], ...]
    name: str

    @classmethod
    def of(cls, members: Sequence[tuple[DataFile, str]], name: str) -> _Stack:
        """The members of a name.

        Raises
        ------
        DataError
            They have not the same rows.
        """
        file = members[0][0]
        fields = [_field(each, field) for each, field in members]
        first = fields[0]
        for (each, _), field in zip(members, fields, strict=True):
            if (field.rows, field.shape) != (first.rows, first.shape):
                raise DataError(
                    f"{each.location.name}: {field.rows} rows of {field.type}, but "
                    f"{file.location.name} has {first.rows} of {first.type}; the members of an "
                    "ensemble have the same rows and classes"
                )
        shape = (len(members), *(first.shape or (1,)))
        kind = first.type.partition("[")[0]
        dtype = str(np.result_type(*(field.dtype or "f4" for field in fields)))
        stacked = Field(
            name,
            f"{kind}[{shape[0]}, {shape[1]}]",
            "float",
            3,
            None,
            dtype,
            first.rows,
            shape=shape,
        )
        names = {field for each, field in members if each is file}
        others = [field for field in file.fields if field.name not in names]
        return cls.over(
            file,
            fields=(stacked, *others),
            roles={**file.roles, "logits": name},
            members=tuple(members),
            name=name,
        )

    @property
    def locations(self) -> tuple[Location, ...]:
        return tuple(dict.fromkeys(each for file, _ in self.members for each in file.locations))

    def verify(self, names: Sequence[str]) -> None:
        super().verify(names)
        if self.name in names:
            for file, field in self.members:
                file.verify((field,))

    def sources(self, names: Sequence[str]) -> list[str]:
        return super().sources([name for name in names if name != self.name])

    def _wanted(self, names: Sequence[str]) -> tuple[list[str], list[tuple[DataFile, str]]]:
        """The members that some fields are made of: those of the file itself, and the others."""
        members = self.members if self.name in names else ()
        inside = [field for file, field in members if file is self.file]
        return inside, [(file, field) for file, field in members if file is not self.file]

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[_StackBatch]:
        inside, others = self._wanted(names)
        readers = [AlignedReader(file, field, begin, end, rows) for file, field in others]
        for batch in self.file.read([*self.sources(names), *inside], begin, end, rows):
            yield _StackBatch(self.name, batch, inside, [each.take(len(batch)) for each in readers])

    def head(self, names: Sequence[str], begin: int, rows: int) -> Batch | None:
        inside, others = self._wanted(names)
        batch = self.file.head([*self.sources(names), *inside], begin, rows)
        if batch is None:
            return None
        heads = [(file.head((field,), begin, len(batch)), field) for file, field in others]
        arrays = [head.array(field) for head, field in heads if head]
        return _StackBatch(self.name, batch, inside, arrays)


class _StackBatch:
    """Rows of a `_Stack`; a `Batch`."""

    def __init__(
        self, name: str, batch: Batch, fields: Sequence[str], others: Sequence[NumpyArray]
    ) -> None:
        self._name, self._batch, self._fields, self._others = name, batch, fields, others
        self.values, self.columns, self.release = batch.values, batch.columns, batch.release

    def __len__(self) -> int:
        return len(self._batch)

    def array(self, name: str) -> NumpyArray:
        if name != self._name:
            return self._batch.array(name)
        inside = [self._batch.array(field) for field in self._fields]
        arrays = [array.reshape(len(self), -1) for array in (*inside, *self._others)]
        return np.stack(arrays, axis=1)

    def matrix(self, names: Sequence[str], width: int | None) -> NumpyArray:
        return self._batch.matrix(names, width)


def _means(files: Sequence[DataFile], name: str, way: str, options: ReadOptions) -> list[DataFile]:
    """One model, whose scores are those of the mean of the members."""
    first = files[0]
    width = _field(first, name).shape[1]
    counts = [_field(file, name).rows for file in files]
    values = math.prod(_field(first, name).shape)
    sample = ScoreSample.read(
        files, counts, (name,), lambda batch: batch.array(name).reshape(-1, width), values
    )
    is_array = first.unit == "array"
    where = f"{first.location.name}: {FileFields.of(first).title(_field(first, name))}"
    hint = PurePath(first.location.name).stem if is_array else name
    kind, words = sample.by_member(values // max(width, 1)).kind(options, hint, where)
    mean = Mean(way, kind, options.input == PERCENT, options.renormalise)
    words += ", each row divided by its sum" if options.renormalise else ""
    made: list[DataFile] = []
    for file in files:
        field = _field(file, name)
        kept = [each for each in file.fields if each.name != name]
        dtype = "float64" if field.dtype == "float64" else "float32"
        scores = Field(
            name, f"{dtype}[{width}]", "float", 2, width, dtype, field.rows, shape=(width,)
        )
        made.append(
            _MeanFile.over(
                file,
                picked={**file.picked, "input": words},
                fields=(scores, *kept),
                roles={**file.roles, "logits": name},
                score_kind=mean.kind_made(width),
                name=name,
                mean=mean,
                dtype=dtype,
            )
        )
    return made


@dataclass(frozen=True)
class Mean:
    """How the scores of members become those of one model, in double precision.

    Attributes
    ----------
    way : str
        ``"mean-probs"`` or ``"mean-logits"``; the mean of log-probabilities is one of logits.
    kind : InputKind
        What the scores are.
    percent, renormalise : bool
        Whether probabilities are given times 100, and whether they are divided by their sums.
    """

    way: str
    kind: InputKind
    percent: bool = False
    renormalise: bool = False

    def kind_made(self, width: int) -> InputKind:
        """What the means are."""
        if self.way == "mean-probs" and self.kind == "probs":
            return "probs"
        return "log-probs" if self.way == "mean-probs" and width > 1 else "logits"

    def of(self, scores: NumpyArray) -> NumpyArray:
        """The means (n, C) of scores (n, M, C)."""
        values = scores.astype(np.float64)
        with np.errstate(all="ignore"):  # values that are none are refused where they are used
            if self.kind == "probs":
                return self._of_probs(values / 100 if self.percent else values)
            if self.way == "mean-logits":
                return _mean(values)
            single = values.shape[2] == 1
            if single:
                values = np.concatenate([np.zeros_like(values), values], axis=2)
            logs = values - _log_sum(values, 2)
            means: NumpyArray = _log_sum(logs, 1)[:, 0] - np.log(values.shape[1])
            return means[:, 1:] - means[:, :1] if single else means

    def _of_probs(self, probs: NumpyArray) -> NumpyArray:
        single = probs.shape[2] == 1
        # A mean would hide a score that is none: it was seen in a few rows alone that these are.
        wrong = (probs < -TOLERANCE).any(axis=(1, 2))
        if single or not self.renormalise:
            wrong |= (probs > 1 + TOLERANCE).any(axis=(1, 2))
        if wrong.any():
            raise RowError(int(np.argmax(wrong)), "a score of a member is outside [0, 1]")
        if self.renormalise and not single:
            sums = probs.sum(axis=2, keepdims=True)
            wrong = ~((sums > 0) & (sums < np.inf)).all(axis=(1, 2))
            if wrong.any():
                raise RowError(
                    int(np.argmax(wrong)), "the scores of a member do not sum to a share of 1"
                )
            probs = probs / sums
        if self.way == "mean-probs":
            return _mean(probs)
        logs = np.log(np.maximum(probs, SMALLEST_PROBABILITY))
        return _mean(logs - np.log(np.maximum(1 - probs, SMALLEST_PROBABILITY)) if single else logs)


def _mean(values: NumpyArray) -> NumpyArray:
    mean: NumpyArray = values.mean(axis=1)
    return mean


def _log_sum(values: NumpyArray, axis: int) -> NumpyArray:
    """The logarithm of the sum of exponentials; of minus infinity alone it is minus infinity."""
    largest = values.max(axis=axis, keepdims=True)
    largest = np.where(np.isneginf(largest), 0, largest)
    sums = np.log(np.exp(values - largest).sum(axis=axis, keepdims=True))
    log_sum: NumpyArray = sums + largest
    return log_sum


@dataclass(eq=False, kw_only=True)
class _MeanFile(RewrittenFile):
    """A file whose field of scores (M, C) has become one of (C,).

    Attributes
    ----------
    name : str
    mean : Mean
    dtype : str
        Of the means.
    """

    name: str
    mean: Mean
    dtype: str

    def rewritten(self, batch: Batch) -> _MeanBatch:
        return _MeanBatch(self, batch)


class _MeanBatch:
    """Rows of a `_MeanFile`; a `Batch`."""

    def __init__(self, file: _MeanFile, batch: Batch) -> None:
        self._file, self._batch = file, batch
        self.values, self.columns, self.release = batch.values, batch.columns, batch.release

    def __len__(self) -> int:
        return len(self._batch)

    def array(self, name: str) -> NumpyArray:
        stored = self._batch.array(name)
        return (
            self._file.mean.of(stored).astype(self._file.dtype)
            if name == self._file.name
            else stored
        )

    def matrix(self, names: Sequence[str], width: int | None) -> NumpyArray:
        if list(names) == [self._file.name]:
            return self.array(self._file.name)
        return self._batch.matrix(names, width)
