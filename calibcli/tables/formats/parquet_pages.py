"""Headers of Parquet's pages, looked at as they pass by.

The header of a page promises two sizes, and a reader asks for that much memory before it sees the
data. No checksum covers the header. So each one is read here, on its way to pyarrow: as a struct of
Thrift's compact protocol, of which two numbers matter.

The format: https://parquet.apache.org/docs/file-format/data-pages/ and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

import io
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any, TypeAlias

from calibcli.tables.formats.thrift import I32, I64, MOST_FIELD_VALUES, CompactStruct, DamagedError

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
        numbers = CompactStruct(footer, 0, len(footer)).numbers(I64, _CHUNK)
        return frozenset(offset for field, offset in numbers if field in _OFFSETS)
    except (IndexError, DamagedError) as error:
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
            struct = CompactStruct(content, place, MOST_FIELD_VALUES)
            try:
                numbers = dict(struct.numbers(I32))
            except IndexError:
                more = self._file.read_at(size, end) if size <= _LONGEST_HEADER else b""
                if len(block) - place + len(more) <= len(content) - place:
                    return 0, {}
                content, size = block + more, 4 * size
            except DamagedError:
                return 0, {}
            else:
                return struct.place - place, numbers
