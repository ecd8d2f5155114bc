"""Parquet files of one row group each as one file, to the byte as one writer would have written it.

So row groups can be encoded on several threads, which pyarrow's writer cannot do. The pages are
copied as they are. In the footer, a struct of Thrift's compact protocol, the row groups follow each
other, and what tells where their pages are moves along.

The format: https://parquet.apache.org/docs/file-format/metadata/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, TypeAlias

from calibcli.errors import DataError
from calibcli.tables.formats.thrift import STRUCT, CompactStruct, as_stored, folded, signed

_MARK = b"PAR1"
_TAIL = 8
"""Bytes behind the footer: its length in four, and the mark."""

_ROWS, _GROUPS = 3, 4
"""Fields of the footer."""

_COLUMNS, _GROUP_OFFSET, _ORDINAL = 1, 5, 7
"""Fields of a row group."""

_CHUNK_OFFSET, _CHUNK = 2, 3
"""Fields of a column of a row group."""

_PAGE_OFFSETS = 9, 10, 11
"""Fields of what is known of it: where pages begin of data, of an index and of a dictionary."""

_MOST_GROUPS = 1 << 15

_Change: TypeAlias = "Callable[[int], int] | Mapping[int, _Change]"
"""What becomes of a number, or of the fields of a struct or of all structs of a list."""


class JoinedFile:
    """A Parquet file that is put together of files with one row group.

    Parameters
    ----------
    file : binary file
        Written from its beginning on.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = len(_MARK)
        self._rows = 0
        self._groups: list[bytes] = []
        self._footer: list[tuple[bytes, int, bytes]] = []

    def append(self, part: memoryview) -> None:
        """Add the row group of a whole file of the same schema, written with the same options.

        Raises
        ------
        DataError
            There would be more row groups than the format can count.
        """
        size = len(part)
        length = int.from_bytes(part[size - _TAIL : size - _TAIL + 4], "little")
        begin, end = len(_MARK), size - _TAIL - length
        content = bytes(part[end : size - _TAIL])
        reader = CompactStruct(content, most=len(content))
        footer = list(_changed_fields(reader, self._moved(self._end - begin)))
        fields = {number: value for _, number, value in footer}
        if len(self._groups) == _MOST_GROUPS:
            raise DataError(f"a Parquet file has at most {_MOST_GROUPS:,} row groups")
        if not self._groups:
            self._footer = footer
            self._file.write(_MARK)
        self._file.write(part[begin:end])
        self._end += end - begin
        self._rows += signed(CompactStruct(fields[_ROWS]).number())
        # Behind the byte that says that the list has one struct.
        self._groups.append(fields[_GROUPS][1:])

    def close(self) -> None:
        """Write the footer; nothing where there are no rows."""
        if not self._groups:
            return
        count = len(self._groups)
        head = bytes([count << 4 | STRUCT]) if count < 15 else bytes([0xF0 | STRUCT])
        groups = head + (as_stored(count) if count >= 15 else b"") + b"".join(self._groups)
        new = {_ROWS: as_stored(folded(self._rows)), _GROUPS: groups}
        parts = [name + new.get(number, value) for name, number, value in self._footer]
        footer = b"".join(parts)
        self._file.write(footer + len(footer).to_bytes(4, "little") + _MARK)

    def _moved(self, distance: int) -> Mapping[int, _Change]:
        """What becomes of the footer of a file whose pages move by so many bytes."""

        def move(offset: int) -> int:
            # 0 is what writers say where they do not say it.
            return offset + distance if offset else 0

        ordinal = len(self._groups)
        chunk = dict.fromkeys(_PAGE_OFFSETS, move)
        columns: _Change = {_CHUNK_OFFSET: move, _CHUNK: chunk}
        return {_GROUPS: {_COLUMNS: columns, _GROUP_OFFSET: move, _ORDINAL: lambda _: ordinal}}


def _changed_fields(
    reader: CompactStruct, change: Mapping[int, _Change]
) -> Iterator[tuple[bytes, int, bytes]]:
    """Each field of a struct: the bytes that name it, its number, and those of its changed value.

    Last comes what ends the struct, with the number 0.
    """
    begin = reader.place
    for number, kind in reader.fields():
        name = reader.content[begin : reader.place]
        yield name, number, _changed(reader, kind, change.get(number))
        begin = reader.place
    yield reader.content[begin : reader.place], 0, b""


def _changed(reader: CompactStruct, kind: int, change: _Change | None) -> bytes:
    """The bytes of a value after a change."""
    begin = reader.place
    if change is None:
        reader.skip(kind)
        return reader.content[begin : reader.place]
    if callable(change):
        return as_stored(folded(change(signed(reader.number()))))
    if kind == STRUCT:
        return b"".join(name + value for name, _, value in _changed_fields(reader, change))
    count, (element,) = reader.list_head()
    head = reader.content[begin : reader.place]
    return head + b"".join(_changed(reader, element, change) for _ in range(count))
