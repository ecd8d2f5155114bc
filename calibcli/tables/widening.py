"""Files of one table whose columns differ without harm: each is read with the types of them all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError
from calibcli.tables.formats.base import Batch, DataFile, Field, Values
from calibcli.tables.locations import first_line
from calibcli.tables.shapes.base import RewrittenFile


@dataclass(eq=False, kw_only=True)
class WidenedFile(RewrittenFile):
    """A file that is read with the types of several.

    Attributes
    ----------
    dtype : str
        NumPy type of the scores.
    types : dict of str to pyarrow.DataType
        Types of columns that ride along, where they are other ones than in the file.
    """

    dtype: str
    types: Mapping[str, Any]

    def rewritten(self, batch: Batch) -> _WidenedBatch:
        return _WidenedBatch(batch, self)


@dataclass(frozen=True)
class _WidenedBatch:
    """Rows of a file, with the types of all files; a `Batch`."""

    batch: Batch
    file: WidenedFile

    def __len__(self) -> int:
        return len(self.batch)

    def matrix(self, names: Sequence[str], width: int | None) -> NumpyArray:
        matrix = self.batch.matrix(names, width)
        return matrix.astype(self.file.dtype, copy=False)

    def values(self, name: str) -> Values:
        return self.batch.values(name)

    def array(self, name: str) -> NumpyArray:
        return self.batch.array(name)

    def release(self) -> None:
        self.batch.release()

    def columns(self, names: Sequence[str]) -> Any:
        """The columns as a `pyarrow.RecordBatch`, of the types of all files.

        Raises
        ------
        DataError
            A value does not fit into the type that all of them have.
        """
        import pyarrow as pa

        from calibcli.tables.formats.arrow_types import recast

        stored = self.batch.columns(self.file.sources(names))
        columns, fields = [], []
        for name in names:
            there = name in stored.schema.names
            column = stored.column(name) if there else pa.nulls(len(self))
            field = stored.schema.field(name) if there else pa.field(name, pa.null())
            kind = self.file.types.get(name, field.type)
            try:
                columns.append(recast(column, kind))
            except pa.ArrowException as error:
                raise DataError(
                    f"{self.file.location.name}: column {name!r} does not fit into {kind}, which "
                    f"it is in other files ({first_line(error)})"
                ) from error
            fields.append(field.with_type(kind))
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields)) if columns else stored


def differ_harmlessly(one: Field, other: Field) -> bool:
    """Whether fields that are read for a purpose of their own mean the same in two files.

    Vectors of as many floating-point numbers do, of any precision and kind of list, and so do whole
    numbers, whole floats and texts, however they are stored.
    """
    if one.type == other.type:
        return True
    widths = {one.width, other.width} - {None}
    if one.axes != other.axes or len(widths) > 1 or one.axes > 2:
        return False
    numbers = {"float", "integer"}
    kinds = {one.element, other.element}
    return "other" not in kinds and (len(kinds) == 1 or (kinds == numbers and one.axes == 1))


def widened(
    files: Sequence[DataFile], scores: tuple[str, ...], others: Sequence[str]
) -> Sequence[DataFile]:
    """The files, each read with the types of them all; as they are where they agree.

    Parameters
    ----------
    files : sequence of DataFile
    scores : tuple of str
        In all of them, of types that differ harmlessly.
    others : sequence of str
        Columns that ride along; some files may not have them.

    Raises
    ------
    DataError
        A column that rides along has types that do not go together.
    """
    by_name = [{field.name: field for field in file.fields} for file in files]
    kinds = [str(fields[name].dtype) for fields in by_name for name in scores]
    types = {}
    for name in others:
        texts = {fields[name].type if name in fields else "" for fields in by_name}
        if len(texts) > 1:
            types[name] = _common_type(files, name)
    if len(set(kinds)) == 1 and not types:
        return files
    dtype = np.result_type(*kinds).name
    return [
        _widened(file, fields, scores, dtype, types)
        for file, fields in zip(files, by_name, strict=True)
    ]


def _widened(
    file: DataFile,
    fields: Mapping[str, Field],
    scores: Collection[str],
    dtype: str,
    types: Mapping[str, Any],
) -> WidenedFile:
    rows = next(fields[name].rows for name in scores)
    changed = [
        replace(each, dtype=dtype, in_memory=each.in_memory and each.dtype == dtype)
        if each.name in scores
        else each
        for each in file.fields
    ]
    absent = [
        Field(name, str(kind), "other", 1, None, None, rows)
        for name, kind in types.items()
        if name not in fields
    ]
    return WidenedFile.over(file, fields=(*changed, *absent), dtype=dtype, types=types)


def _common_type(files: Sequence[DataFile], name: str) -> Any:
    """The Arrow type that a column of some files can have in all of them."""
    import pyarrow as pa

    from calibcli.tables.formats.arrow_types import without_dictionaries

    common, first = pa.null(), files[0]
    for file in files:
        batch = file.head((name,), 0, 1) if any(each.name == name for each in file.fields) else None
        if batch is None:
            continue
        kind = batch.columns((name,)).schema.field(0).type
        if kind == common:
            continue
        try:
            pairs = [
                pa.schema([pa.field(name, without_dictionaries(each))]) for each in (common, kind)
            ]
            common = pa.unify_schemas(pairs, promote_options="permissive").field(0).type
        except pa.ArrowException as error:
            raise DataError(
                f"{file.location.name}: column {name!r} is {kind}, but in "
                f"{first.location.name} it is {common}; all files must have the same columns"
            ) from error
        first = file if pa.types.is_null(common) else first
    return common
