"""Arrow's types: what the values of each are, and how they become NumPy's.

Where a type is written in several ways (views, run-end encoding, a dictionary, lists of structs
with a single member), all of them are read alike.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa

from calibcli.arrays import NumpyArray
from calibcli.tables.formats.arrow_arrays import host_array
from calibcli.tables.formats.base import Element, RowError, Values

_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}

_FEW_ROWS = 10_000
"""Strings of so many rows are told apart before `pyarrow.compute`, which would, is imported."""

SPARK_VECTOR = ("type", "size", "indices", "values")
"""The members of a vector of Spark's MLlib (`VectorUDT`): dense (type 1) or sparse (type 0)."""

_SPARSE, _DENSE = 0, 1


def storage_type(kind: Any) -> Any:
    """The type that the values are stored in: that of an extension is its storage's."""
    return storage_type(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else kind


def _value_type(kind: Any) -> Any:
    """The type of one value: that of a dictionary's or of run-end encoded values is theirs."""
    kind = storage_type(kind)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _value_type(kind.value_type)
    return kind


def is_list(kind: Any) -> bool:
    """Whether a type is a list of any kind."""
    return bool(
        pa.types.is_fixed_size_list(kind)
        or pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def is_spark_vector(kind: Any) -> bool:
    """Whether a type is the struct of a vector of Spark's MLlib."""
    return bool(
        pa.types.is_struct(kind)
        and tuple(field.name for field in kind) == SPARK_VECTOR
        and pa.types.is_int8(kind.field("type").type)
        and pa.types.is_int32(kind.field("size").type)
        and is_list(kind.field("indices").type)
        and pa.types.is_int32(kind.field("indices").type.value_type)
        and is_list(kind.field("values").type)
        and pa.types.is_float64(kind.field("values").type.value_type)
    )


def item_type(kind: Any) -> Any:
    """The type of the items of a list, without a struct around each that has a single member."""
    item = storage_type(kind.value_type)
    return storage_type(item.field(0).type) if _is_wrapped(item) else item


def _is_wrapped(item: Any) -> bool:
    return bool(pa.types.is_struct(item) and item.num_fields == 1)


def element_of(kind: Any) -> tuple[Element, str | None]:
    """What one value of a type is, and the name of its NumPy type if it is a number."""
    kind = _value_type(kind)
    if pa.types.is_decimal(kind):
        return ("float", "float64") if kind.scale > 0 else ("integer", "int64")
    if pa.types.is_floating(kind):
        return "float", _FLOATS[str(kind)]
    if pa.types.is_integer(kind):
        return "integer", str(kind)
    if pa.types.is_boolean(kind):
        return "bool", None
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return ("string", None) if any(test(kind) for test in texts) else ("other", None)


def can_be_carried(kind: Any) -> bool:
    """Whether the formats of outputs have a type: Parquet has no unions and no calendar spans."""
    span = pa.month_day_nano_interval()
    return not _holds(kind, lambda each: pa.types.is_union(each) or each == span)


def plain_type(kind: Any) -> Any:
    """The type of the same values that can be filtered and written: without views and run ends."""
    if isinstance(kind, pa.BaseExtensionType):
        plain = plain_type(kind.storage_type)
        return kind if plain == kind.storage_type else plain
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, plain_type(kind.value_type), kind.ordered)
    return _with_items(kind, plain_type)


def without_dictionaries(kind: Any) -> Any:
    """A type in which the values of each dictionary stand for themselves."""
    if pa.types.is_dictionary(kind):
        return without_dictionaries(kind.value_type)
    return _with_items(kind, without_dictionaries)


def _with_items(kind: Any, change: Any) -> Any:
    """A nested type with the types of what it holds changed; any other as it is."""
    if pa.types.is_map(kind):
        key, item = change(kind.key_type), change(kind.item_type)
        same = (key, item) == (kind.key_type, kind.item_type)
        return kind if same else pa.map_(key, item, kind.keys_sorted)
    if pa.types.is_struct(kind):
        fields = [field.with_type(change(field.type)) for field in kind]
        return kind if fields == list(kind) else pa.struct(fields)
    return _list_of(kind, change(kind.value_type)) if is_list(kind) else kind


def _list_of(kind: Any, item: Any) -> Any:
    """A list of other items; of views the list of which they are views."""
    field = kind.value_field.with_type(item)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(field, kind.list_size)
    large = pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind)
    return pa.large_list(field) if large else pa.list_(field)


def as_plain(array: Any) -> Any:
    """The same values in the `plain_type`; the same array where it has that type."""
    return recast(array, plain_type(array.type))


def recast(array: Any, kind: Any) -> Any:
    """The values of an array in another type that can hold them; the same array in its own type.

    Raises
    ------
    pyarrow.ArrowInvalid
        The type cannot hold one of them.
    """
    if array.type == kind:
        return array
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, recast(array, kind.storage_type))
    array = _decoded(array)
    if isinstance(array, pa.DictionaryArray):
        values = recast(array.dictionary, _value_of(kind))
        array = pa.DictionaryArray.from_arrays(array.indices, values, ordered=array.type.ordered)
    if _is_list_view(array.type):
        array = _from_views(array)
    if not _holds(array.type, _is_list_view):
        with suppress(pa.ArrowNotImplementedError):
            return array.cast(kind)
    # Slow, for what is in the depth of a nested type.
    return pa.array(array.to_pylist(), kind)


def _is_list_view(kind: Any) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def _holds(kind: Any, test: Callable[[Any], bool]) -> bool:
    """Whether a type, or one in its depth, passes a test."""
    kind = _value_type(kind)
    inner = (kind.field(index).type for index in range(kind.num_fields))
    return test(kind) or any(_holds(each, test) for each in inner)


def _from_views(array: Any) -> Any:
    """Lists for views of lists. Arrow's own cast makes arrays without their last offset."""
    sizes, missing = array.sizes.to_numpy(), None
    if array.null_count:
        missing = array.is_null()
        sizes = np.where(host_array(missing), 0, sizes)
    large = pa.types.is_large_list_view(array.type)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64 if large else np.int32)
    new = pa.LargeListArray if large else pa.ListArray
    kind = _list_of(array.type, array.type.value_type)
    return new.from_arrays(offsets, array.flatten(), kind, mask=missing)


def _value_of(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _decoded_runs(array: Any) -> Any:
    """The values of a run-end encoded array, each as often as it counts."""
    import pyarrow.compute as pc

    children = [array.run_ends, as_plain(array.values)]
    kind = pa.run_end_encoded(array.run_ends.type, children[1].type)
    runs = pa.RunEndEncodedArray.from_buffers(kind, len(array), [None], 0, array.offset, children)
    return pc.run_end_decode(runs)


def _decoded(array: Any) -> Any:
    """The stored values of an array: of an extension its storage, of runs each value."""
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        elif isinstance(array, pa.RunEndEncodedArray):
            array = _decoded_runs(array)
        else:
            return array


def first_missing(array: Any) -> int | None:
    """The first row without a value; None where all have one."""
    missing = missing_in(array)
    return int(missing.argmax()) if missing is not None and missing.any() else None


def missing_in(array: Any) -> NumpyArray | None:
    """Whether each row (n,) has no value, itself or in its dictionary; None where all have one."""
    hides = isinstance(array, pa.DictionaryArray) and array.dictionary.null_count
    if not array.null_count and not hides:
        return None
    missing: NumpyArray = host_array(array.is_null())
    if hides:
        # Whether `is_null` looks into the dictionary differs between versions of Arrow.
        lacks = host_array(array.dictionary.is_null())
        missing = missing | lacks[host_array(array.indices.fill_null(0))]
    return missing


def without_missing_distinct(array: Any) -> Any:
    """The same values, each distinct one that a dictionary lacks being an index that is missing.

    Parquet cannot hold the other way to say it. Any other array is returned as it is.
    """
    if not isinstance(array, pa.DictionaryArray) or not array.dictionary.null_count:
        return array
    has_value = ~host_array(array.dictionary.is_null())
    codes = host_array(array.indices.fill_null(0))
    places = np.cumsum(has_value) - has_value
    indices = pa.array(places[codes], array.type.index_type, mask=missing_in(array))
    distinct = array.dictionary.filter(pa.array(has_value))
    return pa.DictionaryArray.from_arrays(indices, distinct, ordered=array.type.ordered)


def values_of(array: Any, name: str) -> Values:
    """The values (n,) of a column with one value a row, or with lists of one.

    Raises
    ------
    RowError
        A list has not one value, or a whole number is too large.
    """
    array = _decoded(array)
    if is_list(array.type):
        return values_of(_items(array, name, 1), name)
    missing = missing_in(array)
    if element_of(array.type)[0] == "string":
        return _texts(array, missing)
    if isinstance(array, pa.DictionaryArray):
        distinct = _numeric(array.dictionary, name)
        codes = array.indices.fill_null(0) if array.indices.null_count else array.indices
        numbers = distinct[host_array(codes)] if len(distinct) else None
        return Values(np.zeros(len(array), np.int64) if numbers is None else numbers, None, missing)
    return Values(_numeric(array, name), None, missing)


def _texts(array: Any, missing: NumpyArray | None) -> Values:
    if missing is None and len(array) <= _FEW_ROWS and not isinstance(array, pa.DictionaryArray):
        strings = array.to_pylist()
        places = {text: place for place, text in enumerate(dict.fromkeys(strings))}
        codes = np.fromiter((places[each] for each in strings), np.int32, len(strings))
        return Values(codes, tuple(places), None)
    if not isinstance(array, pa.DictionaryArray):
        array = as_plain(array).dictionary_encode()
    names = tuple(map(str, array.dictionary.to_pylist()))
    codes = array.indices.fill_null(0) if array.indices.null_count else array.indices
    return Values(host_array(codes), names, missing)


def _numeric(array: Any, name: str) -> NumpyArray:
    """The numbers of an array; 0 where one is missing."""
    array = _decoded(array)
    if pa.types.is_decimal(array.type):
        array = _from_decimals(array, name)
    if array.null_count:
        array = array.fill_null(False if pa.types.is_boolean(array.type) else 0)
    numbers: NumpyArray = host_array(array)
    return numbers


def _from_decimals(array: Any, name: str) -> Any:
    if array.type.scale > 0:
        return array.cast(pa.float64())
    try:
        return array.cast(pa.int64())
    except pa.ArrowInvalid as error:
        bound = 1 << 63
        texts = (None if each is None else int(each) for each in array.to_pylist())
        row = next(row for row, each in enumerate(texts) if each and not -bound <= each < bound)
        raise RowError(row, f"column {name!r} has a number here that is too large") from error


def numbers_in(array: Any, name: str) -> NumpyArray:
    """The numbers (n,) of a column in which none may be missing.

    Raises
    ------
    RowError
        One is missing.
    """
    stored = values_of(array, name)
    if stored.missing is not None and stored.missing.any():
        raise RowError(int(stored.missing.argmax()), f"column {name!r} has no value here")
    return stored.values


def matrix_of(array: Any, name: str, width: int | None) -> NumpyArray:
    """The vectors (n, C) of a column, which may be numbers (n, 1); a view where possible.

    Raises
    ------
    RowError
        A value is missing, or a row has not ``width`` values (if None, as many as the first row).
    """
    array = _decoded(array)
    if is_spark_vector(array.type):
        return _spark_matrix(array, name, width)
    if not is_list(array.type):
        return numbers_in(array, name)[:, None]
    items = _items(array, name, width)
    row_width = width if width is not None else len(items) // max(len(array), 1)
    row = first_missing(items)
    if row is not None:
        raise RowError(row // max(row_width, 1), f"column {name!r} has a missing value here")
    return values_of(items, name).values.reshape(len(array), row_width)


def _items(array: Any, name: str, width: int | None) -> Any:
    """The items of all lists, one after the other; lists of lists as one list a row.

    Raises
    ------
    RowError
        A list is missing or has not ``width`` items.
    """
    array, lengths = flattened(array, name)
    while is_list(array.type):
        inner, sizes = flattened(array, name, lengths)
        ends = np.cumsum(lengths)
        total = np.concatenate([[0], np.cumsum(sizes)])
        array, lengths = inner, total[ends] - total[ends - lengths]
    expected = width
    if expected is None:
        expected = int(lengths[0]) if len(lengths) else 0
    wrong = np.flatnonzero(lengths != expected)
    if len(wrong):
        way = f"; if rows may have fewer than others: --num-classes {max(lengths.max(), expected)}"
        raise RowError(
            wrong[0],
            f"column {name!r} has {lengths[wrong[0]]} values here, elsewhere {expected}"
            + (way if expected > 1 else ""),
        )
    return array


def flattened(array: Any, name: str, rows: NumpyArray | None = None) -> tuple[Any, NumpyArray]:
    """The items of lists, and how many each list has.

    Parameters
    ----------
    array : list array
    name : str
    rows : int array or None
        How many of the lists each row has, if they are not one a row.

    Raises
    ------
    RowError
        A list is missing.
    """
    missing = first_missing(array)
    if missing is not None:
        row = missing if rows is None else _owner(rows, missing)
        raise RowError(row, f"column {name!r} has no value here")
    array = as_plain(array)
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        lengths, first, count = np.full(len(array), size), array.offset * size, len(array) * size
    else:
        # Not by `pyarrow.compute`, whose import takes longer than many a command.
        offsets = host_array(array.offsets)
        lengths, first, count = np.diff(offsets), int(offsets[0]), int(offsets[-1] - offsets[0])
    # `flatten` would import `pyarrow.compute`.
    items = _decoded(array.values.slice(first, count))
    if _is_wrapped(items.type):
        missing = first_missing(items)
        if missing is None:
            return _decoded(items.field(0)), lengths
        owner = _owner(lengths, missing)
        row = owner if rows is None else _owner(rows, owner)
        raise RowError(row, f"column {name!r} has a missing value here")
    return items, lengths


def _owner(lengths: NumpyArray, item: int) -> int:
    """The list, of some with these lengths one after the other, in which an item lies."""
    return int(np.searchsorted(np.cumsum(lengths), item, "right"))


def _spark_matrix(array: Any, name: str, width: int | None) -> NumpyArray:
    """The vectors (n, C) of a column of Spark's MLlib: what a sparse one leaves out is 0."""
    missing = first_missing(array)
    if missing is not None:
        raise RowError(missing, f"column {name!r} has no value here")
    kinds = numbers_in(array.field("type"), name)
    values, counts = _ragged(array.field("values"), name)
    indices, places = _ragged(array.field("indices"), name)
    sizes: NumpyArray = np.where(kinds == _DENSE, counts, _numeric(array.field("size"), name))
    if width is None:
        width = int(sizes[0]) if len(sizes) else 0
    columns = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
    sparse = kinds == _SPARSE
    wrong = np.flatnonzero(
        (sizes != width) | ~(sparse | (kinds == _DENSE)) | (sparse & (places != counts))
    )
    if len(wrong):
        raise RowError(
            wrong[0], f"column {name!r} has {sizes[wrong[0]]} values here, elsewhere {width}"
        )
    columns[np.repeat(sparse, counts)] = indices[np.repeat(sparse, places)]
    rows = np.repeat(np.arange(len(array)), counts)
    outside = np.flatnonzero((columns < 0) | (columns >= width))
    if len(outside):
        raise RowError(rows[outside[0]], f"column {name!r} has an index beyond its size here")
    matrix = np.zeros((len(array), width))
    matrix[rows, columns] = values
    return matrix


def _ragged(array: Any, name: str) -> tuple[NumpyArray, NumpyArray]:
    """The numbers of all lists, and how many each has; none where a list is missing."""
    if array.null_count:
        missing = host_array(array.is_null())
        kept = array.filter(pa.array(~missing))
        numbers, some = _ragged(kept, name)
        lengths = np.zeros(len(array), np.int64)
        lengths[~missing] = some
        return numbers, lengths
    items, lengths = flattened(array, name)
    row = first_missing(items)
    if row is not None:
        raise RowError(_owner(lengths, row), f"column {name!r} has a missing value here")
    return _numeric(items, name), lengths.astype(np.int64)


def type_text(kind: Any) -> str:
    """A type as a person reads it: ``"fixed_size_list<float>[10]"``."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return f"fixed_shape_tensor<{kind.value_type}>{list(kind.shape)}"
    text = str(kind)
    inner = storage_type(kind)
    if is_spark_vector(inner):
        return "Spark vector"
    if not is_list(inner):
        return "string" if element_of(kind)[0] == "string" else text
    width = f"[{inner.list_size}]" if pa.types.is_fixed_size_list(inner) else ""
    return f"{text.split('<', 1)[0]}<{item_type(inner)}>{width}"
