"""Arrow's columns, which Parquet and Arrow IPC share: to NumPy, without a copy where possible.

Also the other way: the record batches of an output.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pyarrow as pa

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError
from calibcli.tables.formats.arrow_arrays import arrow_array
from calibcli.tables.formats.arrow_types import (
    as_plain,
    can_be_carried,
    element_of,
    is_list,
    is_spark_vector,
    item_type,
    matrix_of,
    numbers_in,
    recast,
    storage_type,
    type_text,
    values_of,
    without_dictionaries,
    without_missing_distinct,
)
from calibcli.tables.formats.base import (
    BFLOAT_TITLE,
    SHAPE_METADATA,
    Field,
    Values,
    free_names,
    read_notes,
)
from calibcli.tables.labels import NO_LABEL
from calibcli.tables.locations import HiveKey, Location, first_line

CLASSES_METADATA = b"calib.classes"
"""Schema metadata: the class names, a JSON list in the order of the score columns."""

SEEN_METADATA = b"calib.seen"
"""Schema metadata: there if a fit has seen the rows."""

NOTES_METADATA = b"calib.reading"
"""Schema metadata: how the rows are to be read, a JSON object; see `DataFile.notes`."""

_POLARS_ENUM = (b"_PL_ENUM_VALUES2", b"_PL_ENUM_VALUES")
"""Field metadata of Polars: the values of an Enum in their order."""

_NO_SUCH_METADATA = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What JSON in the metadata of a schema raises that is none, or says something else."""

MERGED_ROWS = 4096
"""Batches smaller than this are merged, since each chunk has a fixed cost."""


class ArrowBatch:
    """Rows of a table; a `Batch`.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
    """

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def matrix(self, names: Sequence[str], width: int | None) -> NumpyArray:
        """Scores (n, C): a view where they lie in one buffer."""
        if len(names) == 1:
            return matrix_of(self.batch.column(names[0]), names[0], width)
        columns = [numbers_in(self.batch.column(name), name) for name in names]
        matrix = np.empty((len(self), len(columns)), np.result_type(*columns))
        for index, column in enumerate(columns):
            matrix[:, index] = column
        return matrix

    def values(self, name: str) -> Values:
        return values_of(self.batch.column(name), name)

    def array(self, name: str) -> NumpyArray:
        column = self.batch.column(name)
        shape = row_shape(self.batch.schema.field(name))
        if shape is None:
            flat = self.matrix((name,), None)
            return flat if is_list(storage_type(column.type)) else flat[:, 0]
        return matrix_of(column, name, math.prod(shape)).reshape(len(self), *shape)

    def release(self) -> None:
        """Nothing is mapped but what Arrow maps by itself."""

    def columns(self, names: Sequence[str]) -> Any:
        batch = self.batch.select(list(names))
        columns = [as_plain(column) for column in batch.columns]
        pairs = zip(batch.schema, columns, strict=True)
        fields = [field.with_type(column.type) for field, column in pairs]
        # A batch without columns would lose its number of rows.
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields)) if columns else batch


def arrow_fields(
    location: Location, schema: Any, rows: int, in_memory: Iterable[str] = ()
) -> tuple[Field, ...]:
    """The fields of an Arrow schema, and the hive keys of the file.

    Raises
    ------
    DataError
        Two columns have the same name.
    """
    counts = Counter(schema.names)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{location.name}: column {twice!r} is there twice; rename one")
    keys = [_key_field(key) for key in location.keys if key.name not in counts]
    shapes, mapped = _array_shapes(schema), frozenset(in_memory)
    return tuple(
        _field(each, rows, each.name in mapped, shapes.get(each.name)) for each in [*schema, *keys]
    )


def _field(field: Any, rows: int, in_memory: bool, shape: Sequence[int] | None) -> Field:
    """The field of a column; ``shape`` is that of one value, where the schema says it."""
    kind, axes, width = storage_type(field.type), 1, None
    written = row_shape(field)
    shape = shape if written is None else written
    # An array such as (1, 10) is a vector; (2, 5) is not.
    is_vector = shape is not None and sum(length != 1 for length in shape) <= 1
    if is_spark_vector(kind):
        axes, kind = 2, pa.float64()
    elif is_list(kind):
        width = kind.list_size if pa.types.is_fixed_size_list(kind) else None
        axes, kind = (2 if shape is None or is_vector else 3), item_type(kind)
        while is_list(kind):
            axes, kind = (axes if is_vector else 3), item_type(kind)
            width = None
    element, dtype = element_of(kind)
    text = type_text(field.type)
    if _is_bfloat(field):
        element, dtype, text = "other", None, f"list<{BFLOAT_TITLE}>"
    lengths = written or (() if width is None else (width,))
    return Field(
        field.name,
        text,
        element,
        axes,
        width,
        dtype,
        rows,
        in_memory,
        carried=can_be_carried(field.type),
        shape=lengths,
        categories=_enum_values(field) if element == "string" else (),
        is_ordered=pa.types.is_dictionary(kind) and kind.ordered and element == "string",
    )


def _is_bfloat(field: Any) -> bool:
    """Whether 16 bits are said to be bfloat16 by the metadata of a field or of its items."""
    inner = [field]
    while is_list(storage_type(inner[-1].type)):
        inner.append(storage_type(inner[-1].type).value_field)
    kind = storage_type(inner[-1].type)
    said = [value for each in inner for value in (each.metadata or {}).values()]
    is_wide = pa.types.is_uint16(kind) or kind == pa.binary(2)
    return len(inner) > 1 and is_wide and any(BFLOAT_TITLE.encode() in value for value in said)


def _enum_values(field: Any) -> tuple[str, ...]:
    """The values of an Enum of Polars, each behind its length: ``3;low4;high``."""
    texts = [(field.metadata or {}).get(name, b"") for name in _POLARS_ENUM]
    rest = next(filter(None, texts), b"")
    values: list[str] = []
    try:
        while rest:
            length, _, rest = rest.partition(b";")
            if not 0 <= int(length) <= len(rest):
                return ()
            values.append(rest[: int(length)].decode())
            rest = rest[int(length) :]
    except ValueError:
        return ()
    return tuple(values) if 1 < len(set(values)) == len(values) else ()


def row_shape(field: Any) -> tuple[int, ...] | None:
    """The shape of a tensor: that of its type, or what the metadata say of a list."""
    if isinstance(field.type, pa.FixedShapeTensorType):
        return tuple(field.type.shape)
    try:
        shape = tuple(map(int, json.loads((field.metadata or {})[SHAPE_METADATA])))
    except _NO_SUCH_METADATA:
        return None
    kind = storage_type(field.type)
    size = kind.list_size if pa.types.is_fixed_size_list(kind) else -1
    return shape if min(shape, default=-1) >= 0 and math.prod(shape) == size else None


def _array_shapes(schema: Any) -> dict[str, Sequence[int]]:
    """The shapes of the values of columns that a Hugging Face data set calls ``Array2D`` etc."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {
            name: [int(length) for length in feature["shape"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and isinstance(feature.get("shape"), list)
        }
    except _NO_SUCH_METADATA:
        return {}


def class_names(schema: Any) -> tuple[str, ...] | None:
    """Class names from the metadata of a schema: ours, or those of a Hugging Face data set."""
    metadata: Mapping[bytes, bytes] = schema.metadata or {}
    try:
        if CLASSES_METADATA in metadata:
            return _names(json.loads(metadata[CLASSES_METADATA]))
        if b"huggingface" in metadata:
            features = json.loads(metadata[b"huggingface"])["info"]["features"]
            labels = [each for each in features.values() if each.get("_type") == "ClassLabel"]
            # With several label columns there is no telling which one is meant.
            return _names(labels[0]["names"]) if len(labels) == 1 else None
    except _NO_SUCH_METADATA:
        return None
    return None


def seen_by_a_fit(schema: Any) -> bool:
    """Whether the metadata of a schema say that a fit has seen the rows."""
    return SEEN_METADATA in (schema.metadata or {})


def notes_in(schema: Any) -> dict[str, str]:
    """What the metadata of a schema say about the reading of its rows."""
    return read_notes((schema.metadata or {}).get(NOTES_METADATA, b"{}"))


def _names(names: Any) -> tuple[str, ...] | None:
    if isinstance(names, list) and len(names) >= 2 and all(isinstance(n, str) for n in names):
        return tuple(names) if len(set(names)) == len(names) else None
    return None


def with_keys(batch: Any, names: Sequence[str], keys: Iterable[HiveKey]) -> Any:
    """A batch with those of the named columns that are hive keys of the file."""
    for key in keys:
        if key.name in names and key.name not in batch.schema.names:
            field = _key_field(key)
            column = pa.repeat(pa.scalar(key.value, field.type), batch.num_rows)
            schema = batch.schema.append(field)
            batch = pa.RecordBatch.from_arrays([*batch.columns, column], schema=schema)
    return batch


def _key_field(key: HiveKey) -> Any:
    return pa.field(key.name, pa.int64() if key.whole else pa.string())


def validated(batches: Iterable[Any]) -> Iterator[Any]:
    """Batches from outside, each validated in full before anything touches it.

    Lengths and offsets that do not agree with the buffers, and indices beyond their dictionary,
    would be read past the end of memory; text must be UTF-8.

    Raises
    ------
    pyarrow.ArrowInvalid
    """
    for batch in batches:
        batch.validate(full=True)
        yield batch


def cut(batches: Iterable[Any], skip: int, rows: int) -> Iterator[Any]:
    """Rows ``skip`` to before ``skip + rows`` of some batches; what is after is not read."""
    for batch in batches:
        inside = batch.slice(min(skip, batch.num_rows), rows)
        skip = max(0, skip - batch.num_rows)
        rows -= inside.num_rows
        if inside.num_rows:
            yield inside
        if rows <= 0:
            return


def regroup(batches: Iterable[Any], rows: int, merged: int = MERGED_ROWS) -> Iterator[Any]:
    """The same rows in batches of at most ``rows``; runs of batches below ``merged`` become one."""
    enough = min(rows, merged)
    waiting: list[Any] = []
    held = 0
    for batch in batches:
        for begin in range(0, batch.num_rows, rows):
            part = batch.slice(begin, rows)
            if held + part.num_rows > rows:
                yield _merged(waiting)
                waiting, held = [], 0
            waiting.append(part)
            held += part.num_rows
            if held >= enough:
                yield _merged(waiting)
                waiting, held = [], 0
    if waiting:
        yield _merged(waiting)


def _merged(batches: list[Any]) -> Any:
    if len(batches) == 1:
        return batches[0]
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


@contextmanager
def refusing_damage(location: Location, title: str) -> Iterator[None]:
    """Turn what Arrow raises for a damaged file into a `DataError`.

    Parameters
    ----------
    location : Location
    title : str
        Of the format.
    """
    try:
        yield
    # Names in a damaged file may not even be text.
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{location.name}: not a readable {title} file ({first_line(error)})"
        ) from error


def _column(name: str, array: NumpyArray) -> Any:
    if array.ndim == 2:
        # Many readers know no type for tensors.
        values = arrow_array(np.ascontiguousarray(array).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(values, array.shape[1])
    if name == "label":
        absent = array == NO_LABEL
        return arrow_array(np.where(absent, 0, array).astype(np.int64), absent)
    return arrow_array(array)


class Assembler:
    """Makes record batches of one schema from calibrated rows.

    Parameters
    ----------
    class_names : tuple of str or None
        Written in the metadata of the schema.
    plain : bool
        Whether dictionary-encoded columns are decoded: an IPC file has one dictionary a column,
        but the batches may have different ones.
    seen : bool
        Whether a fit has seen the rows; written there, too.
    notes : dict of str to str or None
        How the rows are to be read, see `DataFile.notes`; the same.
    """

    def __init__(
        self,
        class_names: tuple[str, ...] | None,
        *,
        plain: bool,
        seen: bool,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        names = json.dumps(list(class_names), ensure_ascii=False) if class_names else None
        self._metadata = {} if names is None else {CLASSES_METADATA: names.encode()}
        self._metadata |= {SEEN_METADATA: b"true"} if seen else {}
        self._metadata |= {NOTES_METADATA: json.dumps(notes).encode()} if notes else {}
        self._plain = plain
        self.schema: Any = None
        self.renamed: dict[str, str] = {}

    def batch(self, computed: Mapping[str, NumpyArray], columns: Any) -> Any:
        """A record batch: what was computed, then the columns of the input (see `Sink.write`)."""
        arrays = {name: _column(name, array) for name, array in computed.items()}
        fields = [pa.field(name, array.type) for name, array in arrays.items()]
        values = list(arrays.values())
        if columns is not None:
            if self.schema is None:
                self.renamed = free_names(columns.schema.names, arrays)
            for field, stored in zip(columns.schema, columns.columns, strict=True):
                column = without_missing_distinct(stored)
                if self._plain:
                    column = recast(column, without_dictionaries(column.type))
                new = self.renamed.get(field.name, field.name)
                fields.append(field.with_name(new).with_type(column.type))
                values.append(column)
        if self.schema is None:
            self.schema = pa.schema(fields, self._metadata or None)
        values = [
            recast(column, field.type) for column, field in zip(values, self.schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(values, schema=self.schema)


class ArrowSink:
    """What writers of Arrow's columns share; a `Sink` but for its three methods.

    Parameters
    ----------
    file : binary file
    rows : int
        To come, or negative; not needed here.
    class_names : tuple of str or None
    seen : bool
        Whether a fit has seen the rows.
    notes : dict of str to str or None
        How the rows are to be read, see `DataFile.notes`.
    """

    left_out: tuple[str, ...] = ()
    plain: ClassVar[bool]
    """Whether dictionary-encoded columns are decoded, see `Assembler`."""

    def __init__(
        self,
        file: BinaryIO,
        rows: int,
        class_names: tuple[str, ...] | None,
        seen: bool = False,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        self._file = file
        self._assembler = Assembler(class_names, plain=self.plain, seen=seen, notes=notes)
        self._writer: Any = None

    @property
    def renamed(self) -> dict[str, str]:
        return self._assembler.renamed
