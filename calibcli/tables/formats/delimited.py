"""CSV and TSV: text with a delimiter, whose columns get types that hold for the whole file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from calibcli.errors import DataError
from calibcli.params import first_twice
from calibcli.tables.formats.base import python_command
from calibcli.tables.formats.ipc import IpcData
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

_DELIMITERS = {",": ",", ";": ";", "\t": "\\t", "|": "|"}
"""Delimiters, as a shell command writes them."""

_MISSING = ("", "NA", "N/A", "#N/A", "n/a", "null", "NULL", "None", "NaN", "nan")
"""What stands for a missing number. Text is missing only where nothing is: NA may be a name."""

_RECORD = re.compile(r'(?:"(?:[^"]|"")*"|[^"\r\n]+)*')
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_NUMBER = re.compile(
    r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*|[+-]?(nan|inf)", re.IGNORECASE
)
_RAGGED = re.compile(r"Row #([0-9]+): Expected ([0-9]+) columns, got ([0-9]+)")
_DECIMAL_COMMA = r"^\s*[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?\s*$"
_DECIMAL_COMMA_OR_WHOLE = rf"{_DECIMAL_COMMA}|^\s*[+-]?[0-9]*\s*$"
_CODE = r"^\s*[+-]?0[0-9xX]"
"""Digits that are a code, such as 007: as a number it would be another text."""

_LARGE = r"^\s*[+-]?[0-9]{19,}\s*$"
_FRACTION = r"[0-9.][.eE]|[.][0-9]"
"""Whole numbers that 64 bits may not hold, of which a float would lose digits; and other ones."""

_INTEGER, _FLOAT, _BOOL, _TEXT = pa.int64(), pa.float64(), pa.bool_(), pa.string()
_WIDER = {_INTEGER: (_INTEGER, _FLOAT), _FLOAT: (_FLOAT,), _BOOL: (_BOOL,), _TEXT: ()}
"""The types of which one may hold a column whose first values were of a type; text holds any."""


@dataclass
class _Column:
    """The type of a column, from its values block by block.

    Attributes
    ----------
    name : str
    type : pyarrow.DataType or None
        That holds all values so far; None before the first one.
    odd : str
        The first value for which a column of numbers became one of text, and its row.
    has_decimal_commas : bool
        Whether all values are whole numbers or have a comma for a point, and some have.
    """

    name: str
    type: Any = None
    odd: str = ""
    has_decimal_commas: bool = False
    _may_be_decimal: bool = field(default=True, repr=False)

    def look_at(self, strings: Any, first_row: int) -> None:
        """Take in the values of the next rows, an array of strings."""
        if strings.null_count == len(strings):
            return
        before = self.type
        if before in (None, _INTEGER) and (_any(strings, _CODE) or _is_too_large(strings)):
            self.type = _TEXT
            return
        # Truth values last: Arrow takes 0 and 1 for them as well.
        for kind in (_INTEGER, _FLOAT, _BOOL) if before is None else _WIDER[before]:
            if _converted(strings, kind) is not None:
                self.type = kind
                self._may_be_decimal &= kind != _FLOAT
                return
        self.type = _TEXT
        if before in (None, _INTEGER, _FLOAT):
            self._say_what_is_odd(strings, first_row, numbers=before is not None)
        if self._may_be_decimal:
            given = strings.drop_null()
            self._may_be_decimal = not _any(given, _DECIMAL_COMMA_OR_WHOLE, others=True)
            self.has_decimal_commas |= _any(given, _DECIMAL_COMMA)
            self.has_decimal_commas &= self._may_be_decimal

    def _say_what_is_odd(self, strings: Any, first_row: int, *, numbers: bool) -> None:
        for row, text in enumerate(strings.to_pylist()):
            if text is None or text in _MISSING:
                continue
            if not _NUMBER.fullmatch(text):
                if numbers:
                    self.odd = f"{text[:40]!r} in row {first_row + row}"
                return
            numbers = True

    @property
    def title(self) -> str:
        """The type, as a person reads it."""
        return f"string; {self.odd}" if self.odd else str(self.type or _TEXT)


def _any(strings: Any, pattern: str, *, others: bool = False) -> bool:
    """Whether a regular expression is found in one of the strings, or is not in one of them."""
    matches = pc.match_substring_regex(strings, pattern)
    return bool(pc.any(pc.invert(matches) if others else matches).as_py())


def _is_too_large(strings: Any) -> bool:
    """Whether all of them are whole numbers, of which 64 bits do not hold one."""
    large = _any(strings, _LARGE) and not _any(strings, _FRACTION)
    return large and _converted(strings, _INTEGER) is None


def _converted(strings: Any, kind: Any) -> Any | None:
    """Strings as an array of a type, missing ones as null; None where it does not hold them."""
    if kind == _TEXT:
        return strings
    try:
        return strings.cast(kind)
    except pa.ArrowInvalid:
        trimmed = pc.utf8_trim_whitespace(strings)
        absent = pc.is_in(trimmed, pa.array(_MISSING))
    try:
        return pc.if_else(absent, None, trimmed).cast(kind)
    except pa.ArrowInvalid:
        return None


@dataclass(frozen=True)
class _Dialect:
    """How a file is to be taken apart."""

    location: Location
    delimiter: str
    names: list[str]
    block: int

    def batches(self) -> Iterator[Any]:
        """The rows as record batches of strings; missing is where nothing stands.

        Raises
        ------
        DataError
            A row has not as many values as the header, or the text is not UTF-8.
        """
        single = len(self.names) == 1
        try:
            with self.location.open() as file:
                yield from csv.open_csv(
                    file,
                    read_options=csv.ReadOptions(
                        use_threads=False,  # rows have no numbers in threads
                        block_size=self.block,
                        column_names=self.names,
                        skip_rows_after_names=1,
                    ),
                    parse_options=csv.ParseOptions(
                        delimiter=self.delimiter,
                        newlines_in_values=True,
                        # Of a single column, an empty line is a row without a value.
                        ignore_empty_lines=not single,
                    ),
                    convert_options=csv.ConvertOptions(
                        column_types=dict.fromkeys(self.names, _TEXT),
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=False,
                        null_values=[""],
                    ),
                )
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> DataError:
        name = self.location.name
        ragged = _RAGGED.search(str(error))
        if ragged is not None:
            # Rows count from 1 there, and the header is one. A handler of such rows would tell
            # that as well, but cannot be called where the text is not UTF-8.
            row, names, values = map(int, ragged.groups())
            return DataError(
                f"{name}, row {row - 2}: has {values} values, but the header has {names} names; "
                "is a text that holds the delimiter or a line end without quotes?"
            )
        if "UTF8" in str(error):
            return not_utf8(self.location)
        if "straddling" in str(error):
            return _LongRowError(f"{name}: a row has more than {self.block >> 20} MB")
        return DataError(f"{name}: not a readable CSV file ({first_line(error)})")


def open_delimited(location: Location, spool: Spool) -> IpcData:
    """Find out the delimiter and the types of the columns, and make a typed copy.

    Raises
    ------
    DataError
        It has no header, columns of the same name, rows of different lengths, decimals with a
        comma, or more rows than may be copied.
    """
    dialect = _dialect(location)
    while True:
        try:
            columns = _columns(dialect)
            break
        except _LongRowError:
            if dialect.block >= LARGEST_BLOCK_BYTES:
                raise
            dialect = replace(dialect, block=min(8 * dialect.block, LARGEST_BLOCK_BYTES))
    _refuse_decimal_commas(dialect, columns)
    for column in columns:
        # A probability of 1 may be written as a whole number; its name says what it is.
        if column.type == _INTEGER and kind_by_name(column.name) is not None:
            column.type = _FLOAT
    schema = pa.schema([(column.name, column.type or _TEXT) for column in columns])

    def typed() -> Iterator[Any]:
        for batch in dialect.batches():
            arrays = [
                _converted(strings, kind)
                for strings, kind in zip(batch.columns, schema.types, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    types = {column.name: column.title for column in columns if column.odd}
    return typed_copy(location, "csv", schema, typed(), spool, types)


class _LongRowError(DataError):
    """A row does not fit in a block."""


def _columns(dialect: _Dialect) -> list[_Column]:
    """The columns, with the types of all their values."""
    columns = [_Column(name) for name in dialect.names]
    rows = 0
    for batch in dialect.batches():
        for column, strings in zip(columns, batch.columns, strict=True):
            column.look_at(strings, rows)
        rows += batch.num_rows
    return columns


def _dialect(location: Location) -> _Dialect:
    """Delimiter and names, from the header alone.

    Raises
    ------
    DataError
    """
    with location.open() as file:
        head = file.read(BLOCK_BYTES)
        while len(head) < LARGEST_BLOCK_BYTES and b"\n" not in head and b"\r" not in head:
            more = file.read(len(head))
            if not more:
                break
            head += more
    check_encoding(location, head)
    text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    header = _record(text)
    if sum(map(header.count, _DELIMITERS)) > LARGEST_FIELD_COUNT:
        raise DataError(
            f"{location.name}: its first line has more than {LARGEST_FIELD_COUNT:,} columns; is it "
            "text with a line end after each row?"
        )
    after = text[len(header) :].lstrip("\r\n")
    delimiter = _delimiter(location, header, _record(after))
    names = _names(location, header, delimiter)
    size = min(max(BLOCK_BYTES, 64 * len(header.encode())), LARGEST_BLOCK_BYTES)
    if len(head) < BLOCK_BYTES and not after:
        raise DataError(f"{location.name}: there are no rows below the header")
    return _Dialect(location, delimiter, names, size)


def _record(text: str) -> str:
    """The first record: up to a line end that is not within quotes."""
    match = _RECORD.match(text)
    return match.group() if match else ""


def _split(record: str, delimiter: str) -> list[str]:
    """The values of a record."""
    values, begin = [], 0
    masked = _QUOTED.sub(lambda quoted: "_" * len(quoted.group()), record)
    for part in masked.split(delimiter):
        value = record[begin : begin + len(part)].strip()
        begin += len(part) + 1
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1].replace('""', '"')
        values.append(value)
    return values


def _delimiter(location: Location, header: str, row: str) -> str:
    plain = _QUOTED.sub("", header)
    possible = [each for each in _DELIMITERS if each in plain]
    if len(possible) > 1:
        fitting = [each for each in possible if len(_split(header, each)) == len(_split(row, each))]
        possible = fitting if len(fitting) == 1 else possible
    if len(possible) > 1:
        ways = " or ".join(
            python_command(f"{_reading(location, each)}.to_parquet('rows.parquet')")
            for each in possible
        )
        raise DataError(
            f"{location.name}: {' and '.join(map(repr, possible))} may both be the delimiter of "
            f"its header; say which: {ways}"
        )
    return possible[0] if possible else ","


def _reading(location: Location, delimiter: str, more: str = "") -> str:
    sign = _DELIMITERS[delimiter]
    return f"import pandas; pandas.read_csv({location.name!r}, sep='{sign}'{more})"


def _names(location: Location, header: str, delimiter: str) -> list[str]:
    names = _split(header, delimiter)
    numbers = [bool(_NUMBER.fullmatch(name)) for name in names]
    # Classes may be called 0, 1, 2; no column is called 0.25.
    if all(numbers) or any(
        n and not name.isdigit() for n, name in zip(numbers, names, strict=True)
    ):
        raise _no_header(location, names, delimiter)
    if len(names) == 1 and all(_NUMBER.fullmatch(word) for word in names[0].split()):
        raise _no_header(location, names[0].split(), " ")
    names = [name or f"unnamed_{place}" for place, name in enumerate(names)]
    twice = first_twice(names)
    if twice is not None:
        raise DataError(f"{location.name}: column {twice!r} is there twice; rename one")
    return names


def _no_header(location: Location, values: Sequence[str], delimiter: str) -> DataError:
    sign = "None" if delimiter == " " else f"'{_DELIMITERS[delimiter]}'"
    program = f"import numpy; numpy.save('scores.npy', numpy.loadtxt({location.name!r}"
    matrix = python_command(f"{program}, delimiter={sign}))")
    named = ",".join(f"logit_{k}" for k in range(min(len(values) - 1, 3)))
    named += ",…" if len(values) > 4 else ""
    return DataError(
        f"{location.name}: its first line holds numbers and not the names of columns; give it "
        f"one with names ({named},label), for example sed -i '1i {named},label' "
        f"{shlex.quote(location.name)}; or, where all of it is scores: {matrix}"
    )


def _refuse_decimal_commas(dialect: _Dialect, columns: Sequence[_Column]) -> None:
    column = next((each for each in columns if each.has_decimal_commas), None)
    # Between commas, 1,234 in quotes may be a thousand.
    if column is not None and dialect.delimiter != ",":
        reading = _reading(dialect.location, dialect.delimiter, ", decimal=','")
        command = python_command(f"{reading}.to_parquet('rows.parquet')")
        raise DataError(
            f"{dialect.location.name}: column {column.name!r} has decimals with a comma; write "
            f"them with a point: {command}"
        )
