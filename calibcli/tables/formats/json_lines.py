"""JSON: an object a row, line by line or in one list; nested values keep their structure."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import json as arrow_json

from calibcli.errors import DataError
from calibcli.tables.formats.base import DataFile
from calibcli.tables.formats.harness_logs import open_harness_log
from calibcli.tables.formats.text import (
    BLOCK_BYTES,
    LARGEST_BLOCK_BYTES,
    LARGEST_FIELD_COUNT,
    check_encoding,
    not_utf8,
    typed_copy,
)
from calibcli.tables.kinds import kind_by_name
from calibcli.tables.locations import Location, first_line
from calibcli.tables.storage import Spool

_DEEPEST = 64
"""Levels of lists and objects. Arrow's parser has no limit but the end of the stack."""

_MOST_FIELDS = 256
"""An object that has had more names than these is a map from names to values."""

_MIXED = pa.binary()
"""Stands for values of several types, which are kept as their JSON; JSON itself has no bytes."""

_LARGE = pa.large_binary()
"""Stands for whole numbers of which 64 bits do not hold all: they are kept as text."""

_LARGE_NUMBER = re.compile(rb"[\s:,\[]-?[0-9]{19,}\s*[,}\]]")

MIXED_TITLE = "JSON of several types"
"""How the type of such a column is called."""

_PIECE_BYTES, _PIECE_CELLS, _CELL_BYTES = 1 << 16, 1 << 22, 8
"""Of rows that are taken apart at once: each has a place for the names of all others, of which
there may be as many as rows."""

_BOM = b"\xef\xbb\xbf"


def open_json(location: Location, spool: Spool) -> DataFile:
    """Find out the types of the fields, and make a typed copy; a harness has documents of its own.

    Raises
    ------
    DataError
        A row is no JSON object, names a field twice or is nested too deeply, the text is not
        UTF-8, or there are more names, or more rows, than may be copied.
    """
    with location.open() as file:
        head = file.read(_HEAD_BYTES)
    if re.match(_PARAMETERS, head):
        name = shlex.quote(location.name)
        raise DataError(f"{location.name}: {_PARAMS_RECIPE.format(name=name)}")
    log = open_harness_log(location, head, spool)
    if log is not None:
        return log
    kinds: dict[str, Any] = {}
    rows = read = 0
    for block in _blocks(location):
        _take_in(kinds, block.type())
        _refuse_too_many(location, len(kinds))
        rows, read = block.row + block.rows_within, read + len(block.content)
    kind = pa.struct(list(kinds.items()))
    columns = _leaves(kind)
    _refuse_too_many(location, columns)
    # A name that few rows have takes its place in all of them.
    spool.expansion.check(location.name, rows * columns * _CELL_BYTES, read)
    mixed = {field.name: MIXED_TITLE for field in kind if field.type == _MIXED}
    kind = pa.struct([(field.name, _as_scores(field.name, field.type)) for field in kind])
    schema = pa.schema([(field.name, _stored(field.type)) for field in kind])
    batches = (batch for block in _blocks(location) for batch in block.batches(kind, schema))
    return typed_copy(location, "json", schema, batches, spool, mixed)


_PARAMS_RECIPE = (
    "is a parameter file of calib, not data; calib inspect {name} says what is in it, "
    "calib apply {name} INPUT applies it"
)

_PARAMETERS = rb'\s*\{\s*"format"\s*:\s*"calib-params"'
_HEAD_BYTES = 1 << 16


def _refuse_too_many(location: Location, columns: int) -> None:
    """Refuse rows that have very many names between them.

    Raises
    ------
    DataError
    """
    if columns > LARGEST_FIELD_COUNT:
        raise DataError(
            f"{location.name}: its rows name more than {LARGEST_FIELD_COUNT:,} different values, "
            "each of which would be a column; write scores as one list a row"
        )


def _leaves(kind: Any) -> int:
    """How many columns a type is stored as."""
    if pa.types.is_struct(kind):
        return sum(_leaves(field.type) for field in kind)
    return _leaves(kind.value_type) if pa.types.is_list(kind) else 1


@dataclass(frozen=True)
class _Block:
    """Some whole lines.

    Attributes
    ----------
    location : Location
    content : bytes
    row : int
        Number of the first row.
    """

    location: Location
    content: bytes
    row: int

    def type(self) -> Any:
        """The type of its rows, a `pyarrow.StructType`."""
        kinds: dict[str, Any] = {}
        for piece in self._pieces(_PIECE_BYTES, len(self.content)):
            table = piece.by_arrow(None)
            if table is not None:
                _take_in(kinds, [field.with_type(_plain(field.type)) for field in table.schema])
            else:
                for row in piece.rows():
                    _take_in(kinds, _fields_of(row))
            _refuse_too_many(self.location, len(kinds))
        return pa.struct(list(kinds.items()))

    def batches(self, kind: Any, schema: Any) -> Iterator[Any]:
        """Its rows in a schema; ``kind`` says which of its strings are JSON of several types."""
        for piece in self._pieces(len(self.content), _PIECE_CELLS // max(_leaves(kind), 1)):
            table = None if _needs_python(kind) else piece.by_arrow(schema)
            if table is None:
                yield piece.in_python(kind, schema)
            else:
                yield from table.combine_chunks().to_batches()

    @property
    def rows_within(self) -> int:
        """The number of its rows."""
        return sum(bool(line.strip()) for line in self.content.split(b"\n"))

    def _pieces(self, size: int, rows: int) -> Iterator[_Block]:
        """The same rows in blocks of about ``size`` bytes and of at most ``rows`` rows, or one."""
        if len(self.content) <= size and self.content.count(b"\n") < rows:
            yield self
            return
        row, lines, held = self.row, [], 0
        for line in self.content.split(b"\n"):
            lines.append(line)
            held += len(line) + 1
            if held >= size or len(lines) >= rows:
                piece = _Block(self.location, b"\n".join(lines), row)
                yield piece
                row, lines, held = row + piece.rows_within, [], 0
        if lines:
            yield _Block(self.location, b"\n".join(lines), row)

    def by_arrow(self, schema: Any | None) -> Any | None:
        """The rows, taken apart by Arrow; None where it does not understand all of them."""
        # Of large numbers Arrow makes floats, which lose digits.
        if not self.content.strip() or (schema is None and _LARGE_NUMBER.search(self.content)):
            return None
        try:
            return arrow_json.read_json(
                io.BytesIO(self.content),
                arrow_json.ReadOptions(use_threads=False, block_size=len(self.content) + 1),
                arrow_json.ParseOptions(explicit_schema=schema),
            )
        except (pa.ArrowException, ValueError):
            return None

    def in_python(self, kind: Any, schema: Any) -> Any:
        names = schema.names
        kinds = {field.name: field.type for field in kind}
        columns: dict[str, list[Any]] = {name: [] for name in names}
        try:
            for row in self.rows():
                for name in names:
                    columns[name].append(as_typed(row.get(name), kinds[name]))
            arrays = [pa.array(columns[field.name], field.type) for field in schema]
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            raise DataError(
                f"{self.location.name}: rows {self.row} and after: a value cannot be read "
                f"({first_line(error)})"
            ) from error
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def rows(self) -> list[dict[str, Any]]:
        """The rows, taken apart by Python, which says what is wrong with one.

        Raises
        ------
        DataError
        """
        rows: list[dict[str, Any]] = []
        for line in self.content.split(b"\n"):
            if not line.strip():
                continue
            where = f"{self.location.name}, row {self.row + len(rows)}"
            try:
                row = json.loads(line, object_pairs_hook=_object)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{where}: is no JSON object on a line ({first_line(error)})"
                ) from error
            if not isinstance(row, dict):
                raise DataError(f"{where}: is no JSON object, with a name for each value")
            rows.append(row)
        return rows


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("it names a field twice")
    return values


def _blocks(location: Location) -> Iterator[_Block]:
    """The rows in blocks of whole lines; those of a list get a line each.

    Raises
    ------
    DataError
    """
    row = 0
    for content in _contents(location):
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise not_utf8(location) from error
        if _depth(content) > _DEEPEST:
            raise DataError(f"{location.name}: is nested more than {_DEEPEST} levels deep")
        block = _Block(location, content, row)
        yield block
        row = block.row + block.rows_within


def _contents(location: Location) -> Iterator[bytes]:
    with location.open() as file:
        head = file.read(BLOCK_BYTES)
        check_encoding(location, head)
        head = head.removeprefix(_BOM)
        if head.lstrip()[:1] == b"[":
            yield from _items(location, head, file)
            return
        left = head
        while True:
            more = file.read(max(BLOCK_BYTES, len(left)))
            end = left.rfind(b"\n") + 1 if more else len(left)
            if end:
                yield left[:end]
            left = left[end:] + more
            if not more:
                return
            if len(left) > LARGEST_BLOCK_BYTES:
                raise _too_long(location)


def _too_long(location: Location) -> DataError:
    return DataError(f"{location.name}: a row has more than {LARGEST_BLOCK_BYTES >> 20} MB")


def _items(location: Location, head: bytes, file: Any) -> Iterator[bytes]:
    """The objects of one list, block by block, a line each."""
    left = head.lstrip()[1:]
    while True:
        more = file.read(max(BLOCK_BYTES, len(left)))
        cuts, closed = _ends(left)
        if cuts:
            pieces = [left[a:b] for a, b in zip([0, *cuts], cuts, strict=False)]
            lines = (
                # Line ends are no part of a text in JSON.
                piece.replace(b"\r", b" ").replace(b"\n", b" ").lstrip(b" \t,")
                for piece in pieces
            )
            yield b"\n".join(lines) + b"\n"
            left = left[cuts[-1] :]
        if not more:
            if left.strip() != b"]" or closed is None:
                raise DataError(f"{location.name}: is no list of JSON objects with an end")
            return
        left += more
        if len(left) > LARGEST_BLOCK_BYTES:
            raise _too_long(location)


def _levels(content: bytes) -> Any:
    """The level after each byte (n,) of some JSON; those within texts stay on theirs."""
    plain = content.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    codes = np.frombuffer(plain, np.uint8)
    outside = np.cumsum(codes == ord('"')) % 2 == 0
    opening = ((codes == ord("{")) | (codes == ord("["))) & outside
    closing = ((codes == ord("}")) | (codes == ord("]"))) & outside
    return np.cumsum(opening.astype(np.int32) - closing), closing


def _depth(content: bytes) -> int:
    """The deepest level of some lines.

    An end of a line ends a text: a line that breaks off within one hides nothing of the next.
    """
    return max((int(_levels(line)[0].max(initial=0)) for line in _suspects(content)), default=0)


def _suspects(content: bytes) -> Iterator[bytes]:
    """The lines that open enough lists and objects to be nested too deeply."""
    if content.count(b"[") + content.count(b"{") <= _DEEPEST:
        return
    for line in content.split(b"\n"):
        if line.count(b"[") + line.count(b"{") > _DEEPEST:
            yield line


def _ends(content: bytes) -> tuple[list[int], int | None]:
    """Where objects of the top level end; and where the list does, if it does."""
    levels, closing = _levels(content)
    cuts = np.flatnonzero(closing & (levels == 0)) + 1
    ends = np.flatnonzero(closing & (levels == -1))
    closed = int(ends[0]) if len(ends) else None
    return [int(cut) for cut in cuts if closed is None or cut <= closed], closed


def _plain(kind: Any) -> Any:
    """A type that Arrow found, with texts that look like times as texts."""
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _plain(field.type)) for field in kind])
    return kind


_SCALARS = {type(None): pa.null(), bool: pa.bool_(), float: pa.float64(), str: pa.string()}


def _type_of(value: Any) -> Any:
    if type(value) in _SCALARS:
        return _SCALARS[type(value)]
    if isinstance(value, int):
        return pa.int64() if -(2**63) <= value < 2**63 else _LARGE
    if isinstance(value, dict):
        return _as_map(_fields_of(value))
    if set(map(type, value)) == {float}:
        return pa.list_(pa.float64())
    kind: Any = pa.null()
    for each in value:
        kind = _widened(kind, _type_of(each))
    return pa.list_(kind)


def _fields_of(value: dict[str, Any]) -> Any:
    return pa.struct([(name, _type_of(each)) for name, each in value.items()])


def _take_in(kinds: dict[str, Any], fields: Iterable[Any]) -> None:
    """Widen the types of fields, by their names, to hold the values of more fields."""
    for field in fields:
        kinds[field.name] = _widened(kinds.get(field.name, pa.null()), field.type)


def _with_fields(first: Any, second: Any) -> Any:
    """The type of objects that have the fields of two types."""
    if first == second:
        return first
    kinds = {field.name: field.type for field in first}
    _take_in(kinds, second)
    return pa.struct(list(kinds.items()))


def _as_map(kind: Any) -> Any:
    """A type of objects; that of a map if there are very many names for values of one type."""
    if kind.num_fields <= _MOST_FIELDS:
        return kind
    value: Any = pa.null()
    for field in kind:
        value = _widened(value, field.type)
    return _MIXED if value == _MIXED else pa.map_(pa.string(), value)


def _widened(first: Any, second: Any) -> Any:
    """The type that holds the values of two types."""
    widened = _MIXED
    if first == second or pa.types.is_null(second):
        widened = first
    elif pa.types.is_null(first):
        widened = second
    elif {first, second} < {pa.int64(), _LARGE, pa.float64()}:
        widened = _LARGE if pa.float64() not in (first, second) else pa.float64()
    elif pa.types.is_list(first) and pa.types.is_list(second):
        widened = pa.list_(_widened(first.value_type, second.value_type))
    elif pa.types.is_struct(first) and pa.types.is_struct(second):
        widened = _as_map(_with_fields(first, second))
    elif pa.types.is_map(first):
        widened = _widened_map(first, second)
    elif pa.types.is_map(second):
        widened = _widened_map(second, first)
    return widened


def _widened_map(first: Any, second: Any) -> Any:
    value = first.item_type
    if pa.types.is_struct(second):
        for field in second:
            value = _widened(value, field.type)
    elif pa.types.is_map(second):
        value = _widened(value, second.item_type)
    else:
        return _MIXED
    return _MIXED if value == _MIXED else pa.map_(pa.string(), value)


def _as_scores(name: str, kind: Any) -> Any:
    """The type of a field; where its name says that it has scores, whole numbers are numbers."""
    if kind_by_name(name) is None:
        return kind
    return pa.float64() if _is_whole(kind) else _floats(kind)


def _is_whole(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or kind == _LARGE)


def _needs_python(kind: Any) -> bool:
    """Whether it has something in it that Arrow's parser does not make of JSON."""
    if pa.types.is_map(kind):
        return True
    if pa.types.is_struct(kind):
        return any(_needs_python(field.type) for field in kind)
    return _needs_python(kind.value_type) if pa.types.is_list(kind) else kind in (_MIXED, _LARGE)


def _stored(kind: Any) -> Any:
    """A type as it is written: JSON of several types as text."""
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _stored(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_stored(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(pa.string(), _stored(kind.item_type))
    return pa.string() if kind in (_MIXED, _LARGE) else kind


def as_typed(value: Any, kind: Any) -> Any:
    """A value as Python's `json` has it, in the form of which Arrow makes a type."""
    if value is None:
        return None
    if kind in (_MIXED, _LARGE):
        return json.dumps(value, ensure_ascii=False)
    if pa.types.is_struct(kind):
        return {field.name: as_typed(value.get(field.name), field.type) for field in kind}
    if pa.types.is_map(kind):
        return [(name, as_typed(each, kind.item_type)) for name, each in value.items()]
    if pa.types.is_list(kind) and (_needs_python(kind) or pa.types.is_nested(kind.value_type)):
        return [as_typed(each, kind.value_type) for each in value]
    # Arrow makes no float of a whole number that would lose digits.
    return float(value) if kind == pa.float64() and isinstance(value, int) else value


def type_of_values(values: Iterable[Any]) -> Any:
    """The `pyarrow.DataType` of values as Python's `json` has them."""
    kind: Any = pa.null()
    for each in values:
        kind = _widened(kind, _type_of(each))
    return _stored(_floats(kind))


def _floats(kind: Any) -> Any:
    """A type in which whole numbers within lists may be followed by others."""
    if pa.types.is_list(kind):
        inner = kind.value_type
        return pa.list_(pa.float64() if _is_whole(inner) else _floats(inner))
    return kind
