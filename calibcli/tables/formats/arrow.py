"""Arrow's columns, which Parquet and Arrow IPC share: to NumPy, without a copy where possible.

Also the other way: the record batches of an output.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pyarrow as pa

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError
from calibcli.tables.formats.base import Element, Field, RowError, Values, free_names
from calibcli.tables.labels import NO_LABEL
from calibcli.tables.locations import HiveKey, Location, first_line

CLASSES_METADATA = b"calib.classes"
"""Schema metadata: the class names, a JSON list in the order of the score columns."""

SEEN_METADATA = b"calib.seen"
"""Schema metadata: there if a fit has seen the rows."""

_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}

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
            return _matrix(self.batch.column(names[0]), names[0], width)
        columns = [_numbers(self.batch.column(name), name) for name in names]
        matrix = np.empty((len(self), len(columns)), np.result_type(*columns))
        for index, column in enumerate(columns):
            matrix[:, index] = column
        return matrix

    def values(self, name: str) -> Values:
        array = _storage(self.batch.column(name))
        if _is_list(array.type):
            return Values(_matrix(array, name, 1)[:, 0])
        missing = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
        if _element(array.type) == "string":
            if missing is None and len(array) <= _FEW_ROWS and pa.types.is_string(array.type):
                return _encoded(array.to_pylist())
            if not pa.types.is_dictionary(array.type):
                array = array.dictionary_encode()
            names = tuple(map(str, array.dictionary.to_pylist()))
            codes = array.indices.fill_null(0) if missing is not None else array.indices
            return Values(codes.to_numpy(zero_copy_only=False), names, missing)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if missing is not None:
            array = array.fill_null(False if pa.types.is_boolean(array.type) else 0)
        return Values(array.to_numpy(zero_copy_only=False), None, missing)

    def array(self, name: str) -> NumpyArray:
        column = self.batch.column(name)
        shape = getattr(column.type, "shape", None)
        if shape is None:
            flat = self.matrix((name,), None)
            return flat if _is_list(column.type) else flat[:, 0]
        return _matrix(column, name, math.prod(shape)).reshape(len(self), *shape)

    def columns(self, names: Sequence[str]) -> Any:
        return self.batch.select(list(names))

    def release(self) -> None:
        """Nothing is mapped but what Arrow maps by itself."""


_FEW_ROWS = 10_000
"""Strings of so many rows are told apart before `pyarrow.compute`, which would, is imported."""


def _encoded(strings: Sequence[str]) -> Values:
    places = {name: place for place, name in enumerate(dict.fromkeys(strings))}
    codes = np.fromiter((places[each] for each in strings), np.int32, len(strings))
    return Values(codes, tuple(places), None)


def _storage(array: Any) -> Any:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _numbers(array: Any, name: str) -> NumpyArray:
    array = _storage(array)
    if array.null_count:
        row = _first_missing(array)
        raise RowError(row, f"column {name!r} has no value here")
    numbers: NumpyArray = array.to_numpy(zero_copy_only=False)
    return numbers


def _matrix(array: Any, name: str, width: int | None) -> NumpyArray:
    array = _storage(array)
    if not _is_list(array.type):
        return _numbers(array, name)[:, None]
    if array.null_count:
        row = _first_missing(array)
        raise RowError(row, f"column {name!r} has no value here")
    if width is None:
        width = len(array[0]) if len(array) else 0
    if pa.types.is_fixed_size_list(array.type):
        lengths = np.full(min(len(array), 1), array.type.list_size)
        first = array.offset * array.type.list_size
    else:
        # Not by `pyarrow.compute`, whose import takes longer than many a command.
        offsets = array.offsets.to_numpy()
        lengths, first = np.diff(offsets), int(offsets[0])
    wrong = np.flatnonzero(lengths != width)
    if len(wrong):
        raise RowError(
            wrong[0],
            f"column {name!r} has {lengths[wrong[0]]} values here, elsewhere {width}",
        )
    # `flatten` would import `pyarrow.compute`.
    values = array.values.slice(first, len(array) * width)
    if values.null_count:
        row = _first_missing(values) // width
        raise RowError(row, f"column {name!r} has a missing value here")
    matrix: NumpyArray = values.to_numpy(zero_copy_only=False).reshape(len(array), width)
    return matrix


def _first_missing(array: Any) -> int:
    return int(array.is_null().to_numpy(zero_copy_only=False).argmax())


def _is_list(kind: Any) -> bool:
    return bool(
        pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    )


def _element(kind: Any) -> Element:
    if pa.types.is_dictionary(kind):
        element = _element(kind.value_type)
        return element if element in ("string", "integer") else "other"
    tests: tuple[tuple[Any, Element], ...] = (
        (pa.types.is_floating, "float"),
        (pa.types.is_integer, "integer"),
        (pa.types.is_boolean, "bool"),
        (pa.types.is_string, "string"),
        (pa.types.is_large_string, "string"),
    )
    return next((element for test, element in tests if test(kind)), "other")


def arrow_fields(
    location: Location, schema: Any, rows: int, in_memory: Container[str] = ()
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
    return tuple(_field(each, rows, each.name in in_memory) for each in [*schema, *keys])


def _field(field: Any, rows: int, in_memory: bool) -> Field:
    kind, axes, width = field.type, 1, None
    text, shape = str(kind), None
    if isinstance(kind, pa.FixedShapeTensorType):
        shape = list(kind.shape)
        text = f"fixed_shape_tensor<{kind.value_type}>{shape}"
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if _is_list(kind):
        fixed = pa.types.is_fixed_size_list(kind)
        axes, width = 2, kind.list_size if fixed else None
        if shape is None:
            name = text.split("<", 1)[0]
            text = f"{name}<{kind.value_type}>" + (f"[{width}]" if fixed else "")
        # A tensor such as (1, 10) is a vector; (2, 5) is not.
        if shape is not None and sum(length != 1 for length in shape) > 1:
            axes = 3
        kind = kind.value_type
    element = _element(kind)
    if element == "string" and axes == 1:
        text = "string"
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    dtype = _FLOATS.get(str(kind), str(kind)) if element in ("float", "integer") else None
    lengths = tuple(shape or (() if width is None else (width,)))
    return Field(field.name, text, element, axes, width, dtype, rows, in_memory, shape=lengths)


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
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return None


def seen_by_a_fit(schema: Any) -> bool:
    """Whether the metadata of a schema say that a fit has seen the rows."""
    return SEEN_METADATA in (schema.metadata or {})


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


def tensor(array: NumpyArray) -> Any:
    """A matrix (n, m) as an Arrow array of fixed-shape tensors, without a copy."""
    values = pa.array(np.ascontiguousarray(array).reshape(-1))
    kind = pa.fixed_shape_tensor(values.type, list(array.shape[1:]))
    storage = pa.FixedSizeListArray.from_arrays(values, array.shape[1])
    return pa.ExtensionArray.from_storage(kind, storage)


def _column(name: str, array: NumpyArray) -> Any:
    if array.ndim == 2:
        return tensor(array)
    if name == "label":
        return pa.array(array, pa.int64(), mask=array == NO_LABEL)
    return pa.array(np.ascontiguousarray(array))


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
    """

    def __init__(self, class_names: tuple[str, ...] | None, *, plain: bool, seen: bool) -> None:
        names = json.dumps(list(class_names), ensure_ascii=False) if class_names else None
        self._metadata = {} if names is None else {CLASSES_METADATA: names.encode()}
        self._metadata |= {SEEN_METADATA: b"true"} if seen else {}
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
            for field, column in zip(columns.schema, columns.columns, strict=True):
                if self._plain and pa.types.is_dictionary(field.type):
                    column = column.dictionary_decode()  # noqa: PLW2901 (the same column)
                new = self.renamed.get(field.name, field.name)
                fields.append(field.with_name(new).with_type(column.type))
                values.append(column)
        if self.schema is None:
            self.schema = pa.schema(fields, self._metadata or None)
        values = [
            column if column.type == field.type else column.cast(field.type)
            for column, field in zip(values, self.schema, strict=True)
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
    """

    left_out: tuple[str, ...] = ()
    plain: ClassVar[bool]
    """Whether dictionary-encoded columns are decoded, see `Assembler`."""

    def __init__(
        self, file: BinaryIO, rows: int, class_names: tuple[str, ...] | None, seen: bool = False
    ) -> None:
        self._file = file
        self._assembler = Assembler(class_names, plain=self.plain, seen=seen)
        self._writer: Any = None

    @property
    def renamed(self) -> dict[str, str]:
        return self._assembler.renamed
