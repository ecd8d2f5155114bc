"""Headers of Parquet's pages, looked at as they pass by.

The header of a page promises two sizes, and a reader asks for that much memory before it sees the
data. No checksum covers the header. So each one is read here, on its way to pyarrow: as a struct of
Thrift's compact protocol, of which two numbers matter.

The format: https://parquet.apache.org/docs/file-format/data-pages/ and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any, TypeAlias

_UNCOMPRESSED, _COMPRESSED = 2, 3
"""The numbers of a header's fields that hold the sizes of a page."""

_CHUNK, _OFFSETS = (4, 1, 3), (9, 11)
"""The fields of a footer that lead to what it says of each column of each group of rows, and those
that say where its pages begin: of data, and of a dictionary."""

_TAIL = 8
"""Bytes behind the footer: its length in four, and a mark."""

_READ_AHEAD = 1 << 14
_LONGEST_HEADER = 16 << 20
"""Bytes at a time, and at most, that are read of a header which goes on in the next block; pyarrow
itself reads no longer one."""

_DEEPEST, _MOST_VALUES = 64, 100_000
"""Structs and lists within each other, and values; the header of a page has three, and some 30."""

_Check: TypeAlias = Callable[[int, int], None]
"""Takes the size of a page after and before decompression and refuses what is beyond measure."""


def page_starts(file: Any) -> frozenset[int]:
    """Where the pages of each column of each group of rows begin, by the footer of a file.

    Parameters
    ----------
    file : pyarrow.NativeFile
        A Parquet file whose footer pyarrow has read.

    Raises
    ------
    ValueError
        The footer is damaged.
    """
    size = file.size()
    length = int.from_bytes(file.read_at(4, size - _TAIL), "little")
    footer = file.read_at(length, size - _TAIL - length)
    try:
        numbers = _Struct(footer, 0, len(footer)).numbers(_I64, _CHUNK)
        return frozenset(offset for field, offset in numbers if field in _OFFSETS)
    except (IndexError, _DamagedError) as error:
        raise ValueError("the footer is damaged") from error


class Pages(io.RawIOBase):
    """A Parquet file that looks at the headers of all pages that are read from it.

    pyarrow reads the pages of a column from the first to the last, in blocks. Each header tells
    where the next one is.

    Parameters
    ----------
    file : pyarrow.NativeFile
    starts : set of int
        What `page_starts` says.
    check : callable
        Called with the two sizes of each page; what it raises ends the reading.
    """

    def __init__(self, file: Any, starts: AbstractSet[int], check: _Check) -> None:
        super().__init__()
        self._file = file
        self._starts = starts
        self._check = check
        self._size = file.size()
        self._place = 0
        # Where the next header is, by the end of the block that was read last.
        self._headers: dict[int, int] = {}

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Bytes before the next one to be read."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, counted from the start, from here or from the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = base + offset
        return self._place

    def read(self, size: int = -1) -> bytes:
        """The next bytes; all that are left for a negative size."""
        begin = self._place
        block: bytes = self._file.read_at(self._size - begin if size < 0 else size, begin)
        self._place = begin + len(block)
        if block:
            self._look(begin, block)
        return block

    def _look(self, begin: int, block: bytes) -> None:
        """Check the pages whose headers begin in a block."""
        end = begin + len(block)
        header = self._headers.pop(begin, self._size)
        if begin in self._starts:
            header = begin
        while header < end:
            length, sizes = self._sizes(block, header - begin, end)
            compressed = sizes.get(_COMPRESSED, 0)
            if length == 0 or compressed < 0:
                # pyarrow says what is wrong with it.
                header = self._size
                break
            header += length
            if compressed > self._size - header:
                raise ValueError(
                    f"the header of a page promises {compressed:,} bytes, "
                    f"and the file has {self._size - header:,} more"
                )
            self._check(sizes.get(_UNCOMPRESSED, 0), compressed)
            header += compressed
        self._headers[end] = header

    def _sizes(self, block: bytes, place: int, end: int) -> tuple[int, dict[int, int]]:
        """Length of a header and its whole numbers by field; length 0 if it is none."""
        content, size = block, _READ_AHEAD
        while True:
            struct = _Struct(content, place, _MOST_VALUES)
            try:
                numbers = dict(struct.numbers(_I32))
            except IndexError:
                more = self._file.read_at(size, end) if size <= _LONGEST_HEADER else b""
                if len(block) - place + len(more) <= len(content) - place:
                    return 0, {}
                content, size = block + more, 4 * size
            except _DamagedError:
                return 0, {}
            else:
                return struct.place - place, numbers


class _DamagedError(Exception):
    """Bytes that are no struct of Thrift's compact protocol."""


class _Struct:
    """A struct of Thrift's compact protocol.

    Parameters
    ----------
    content : bytes
    place : int
        Where in them it begins. Afterwards where it ended.
    most : int
        Values that are looked at.
    """

    def __init__(self, content: bytes, place: int, most: int) -> None:
        self._content = content
        self._left = most
        self.place = place

    def numbers(self, wanted: int, path: tuple[int, ...] = ()) -> list[tuple[int, int]]:
        """The fields of a kind of whole number, in their order.

        Parameters
        ----------
        wanted : int
            `_I32` or `_I64`.
        path : tuple of int
            The fields that lead to the structs which are meant; lists are all their elements.

        Raises
        ------
        IndexError
            It goes on behind the last byte.
        _DamagedError
            It is no such struct.
        ValueError
            It has more values than could be looked at in time.
        """
        numbers: list[tuple[int, int]] = []
        for field, kind in self._fields():
            if path and field == path[0] and kind == _STRUCT:
                numbers += self.numbers(wanted, path[1:])
            elif path and field == path[0] and kind == _LIST:
                count, (element,) = self._list()
                for _ in range(count):
                    if element == _STRUCT:
                        numbers += self.numbers(wanted, path[1:])
                    else:
                        self._skip(element, _DEEPEST)
            elif kind == wanted and not path:
                number = self._number()
                numbers.append((field, _signed(number & 0xFFFFFFFF if kind == _I32 else number)))
            else:
                self._skip(kind, _DEEPEST)
        return numbers

    def _fields(self) -> Iterator[tuple[int, int]]:
        """Number and kind of each field, but for truth values, which are kinds."""
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else _signed(self._number())
            if head & 15 not in (_TRUE, _FALSE):
                yield field, head & 15

    def _byte(self) -> int:
        self.place += 1
        return self._content[self.place - 1]

    def _number(self) -> int:
        """A number of seven bits a byte, the lowest first."""
        number = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & (_MORE - 1)) << shift
            if byte < _MORE:
                return number
        raise _DamagedError(number)

    def _leave(self, size: int) -> None:
        self.place += size
        if self.place > len(self._content):
            raise IndexError(self.place)

    def _skip(self, kind: int, depth: int) -> None:
        """Pass over a value of any kind."""
        self._left -= 1
        if self._left < 0:
            raise ValueError("the header of a page has more values than any needs")
        if kind in _SIZES:
            self._leave(_SIZES[kind])
        elif kind in (_I16, _I32, _I64):
            self._number()
        elif kind == _BINARY:
            self._leave(self._number())
        elif depth == 0 or kind not in (_LIST, _SET, _MAP, _STRUCT):
            raise _DamagedError(kind)
        elif kind == _STRUCT:
            for _, each in self._fields():
                self._skip(each, depth - 1)
        else:
            count, kinds = self._map() if kind == _MAP else self._list()
            for _ in range(count):
                for each in kinds:
                    self._skip(each, depth - 1)

    def _list(self) -> tuple[int, tuple[int, ...]]:
        """How many values a list has, and their kind."""
        head = self._byte()
        return head >> 4 if head >> 4 < _LONG_LIST else self._number(), (head & 15,)

    def _map(self) -> tuple[int, tuple[int, ...]]:
        """How many entries a map has, and the kinds of key and value."""
        count = self._number()
        kinds = self._byte() if count else 0
        return count, (kinds >> 4, kinds & 15)


_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = range(
    1, 14
)
_SIZES = {_TRUE: 1, _FALSE: 1, _BYTE: 1, _DOUBLE: 8, _UUID: 16}
_LONG_LIST = 15
"""A list of fewer values has their number in its first byte."""
_MORE = 128
"""The bit of a byte that says that the number goes on."""


def _signed(number: int) -> int:
    """The whole number of which 0, -1, 1, -2 are stored as 0, 1, 2, 3."""
    return (number >> 1) ^ -(number & 1)
