"""Lists in lists of one shape as arrays: members, tokens or pixels in Parquet, Arrow and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError
from calibcli.tables.formats.base import Batch, DataFile, Field, RowError, Values, python_command
from calibcli.tables.names import FileFields, named_labels, named_scores
from calibcli.tables.read_options import ReadOptions
from calibcli.tables.shapes.base import OpenedFiles, RewrittenFile
from calibcli.tables.storage import Spool

_LOOKED_AT = 256
_MOST_AXES = 8


def give_shapes(opened: OpenedFiles, options: ReadOptions, _: Spool) -> OpenedFiles:
    """Make arrays of columns of lists, where the scores are lists in lists; see `SHAPES`.

    Raises
    ------
    DataError
        The lists of the first rows have several lengths.
    """
    files = tuple(_with_shapes(file, options) for file in opened.files)
    return replace(opened, files=files)


def _with_shapes(file: DataFile, options: ReadOptions) -> DataFile:
    fields = FileFields.of(file)
    scores = _scores(fields, options)
    if scores is None or not _is_deep(scores) or scores.rows == 0:
        return file
    shapes: dict[str, tuple[int, ...]] = {}
    for field in file.fields:
        shape = _shape(file, field) if _is_nested(field) else None
        if shape is not None:
            shapes[field.name] = shape
        elif field is scores:
            raise DataError(
                f"{fields.name}: {fields.title(scores)}: the lists have several lengths, so they "
                f"are no array; write a row for each place: {_flattening(fields, scores, options)}"
            )
    given = (
        _shaped(field, shapes[field.name]) if field.name in shapes else field
        for field in file.fields
    )
    return _NestedFile.over(file, fields=tuple(given), shapes=shapes)


def _scores(fields: FileFields, options: ReadOptions) -> Field | None:
    """The field of scores by its name, or the only one of lists in lists where no name is known."""
    if options.logits is not None:
        return fields.find(options.logits)
    named = named_scores(fields)
    deep = [field for field in fields.fields if _is_deep(field) and field.element == "float"]
    return named[0] if named else deep[0] if len(deep) == 1 else None


def _is_deep(field: Field) -> bool:
    return _is_nested(field) and field.axes > 2


def _is_nested(field: Field) -> bool:
    is_list = "list<" in field.type or field.type.startswith("list")
    return is_list and field.axes > 1 and not field.shape and field.element != "other"


def _shape(file: DataFile, field: Field) -> tuple[int, ...] | None:
    """The lengths of the lists in the first rows; None where there are several."""
    from calibcli.tables.formats.arrow_types import flattened, is_list, storage_type

    batch = file.head((field.name,), 0, _LOOKED_AT)
    if batch is None:
        return None
    array = batch.columns((field.name,)).column(0)
    shape: list[int] = []
    try:
        while is_list(storage_type(array.type)) and len(shape) < _MOST_AXES:
            array, lengths = flattened(array, field.name)
            if len(lengths) == 0 or (lengths != lengths[0]).any():
                return None
            shape.append(int(lengths[0]))
    except RowError:
        return None
    return tuple(shape)


def _shaped(field: Field, shape: tuple[int, ...]) -> Field:
    """A field of lists as one of arrays."""
    kind = field.dtype or ("bool" if field.element == "bool" else field.element)
    return replace(
        field,
        type=f"{kind}[{', '.join(map(str, shape))}]",
        axes=min(len(shape), 2) + 1,
        width=shape[0] if len(shape) == 1 else None,
        shape=shape,
    )


def _flattening(fields: FileFields, scores: Field, options: ReadOptions) -> str:
    """The program that writes a row for each list of scores."""
    labels = fields.find(options.labels) if options.labels else named_labels(fields)
    named = ""
    if labels is not None and _is_nested(labels):
        named = f", labels=numpy.concatenate(t[{labels.name!r}].to_pylist())"
    elif labels is not None:
        named = f", labels=numpy.repeat(t[{labels.name!r}].to_numpy(), [len(r) for r in z])"
    return python_command(
        f"import numpy, pyarrow.parquet as p; t = p.read_table({fields.name!r}); "
        f"z = t[{scores.name!r}].to_pylist(); numpy.savez('rows.npz', "
        f"logits=numpy.concatenate(z){named}, "
        "sequence=numpy.repeat(range(len(z)), [len(r) for r in z]))"
    )


@dataclass(eq=False, kw_only=True)
class _NestedFile(RewrittenFile):
    """A file with columns of lists that are arrays.

    Attributes
    ----------
    shapes : dict of str to tuple of int
    """

    shapes: Mapping[str, tuple[int, ...]]

    def rewritten(self, batch: Batch) -> _NestedBatch:
        return _NestedBatch(batch, self.shapes)


class _NestedBatch:
    """Rows of a `_NestedFile`; a `Batch`."""

    def __init__(self, batch: Batch, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._batch, self._shapes = batch, shapes
        self.columns, self.release = batch.columns, batch.release

    def __len__(self) -> int:
        return len(self._batch)

    def array(self, name: str) -> NumpyArray:
        if name not in self._shapes:
            return self._batch.array(name)
        return _array(self._batch.columns((name,)).column(0), name, self._shapes[name])

    def matrix(self, names: Sequence[str], width: int | None) -> NumpyArray:
        if len(names) > 1 or names[0] not in self._shapes:
            return self._batch.matrix(names, width)
        return self.array(names[0]).reshape(len(self), -1)

    def values(self, name: str) -> Values:
        return self._batch.values(name)


def _array(column: Any, name: str, shape: tuple[int, ...]) -> NumpyArray:
    """The numbers (n, …) of lists in lists.

    Raises
    ------
    RowError
        A list has another length, or a value is missing.
    """
    from calibcli.tables.formats.arrow_types import flattened, numbers_in

    array, rows = column, len(column)
    for axis, length in enumerate(shape):
        per_row = math.prod(shape[:axis])
        try:
            array, lengths = flattened(array, name)
        except RowError as error:
            raise RowError(error.row // per_row, str(error)) from error
        wrong = np.flatnonzero(lengths != length)
        if len(wrong):
            raise RowError(
                wrong[0] // per_row,
                f"column {name!r} has a list of {lengths[wrong[0]]} here, elsewhere of {length}",
            )
    try:
        numbers = numbers_in(array, name)
    except RowError as error:
        raise RowError(error.row // max(math.prod(shape), 1), str(error)) from error
    return numbers.reshape(rows, *shape)
