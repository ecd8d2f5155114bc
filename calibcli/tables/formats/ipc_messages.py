"""Messages of Arrow IPC, looked at before anything in them is decompressed.

In front of each compressed buffer stands the size that it will have, and a reader asks for that
much memory before it sees the data. No checksum covers it. So the messages are walked here first:
the metadata of each one are a table of FlatBuffers, of which the places of the buffers matter.

The format: https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
and https://flatbuffers.dev/internals/
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, TypeAlias

_Check: TypeAlias = Callable[[int, int], None]
"""Takes the size of a message after and before decompression and refuses what is beyond measure."""

_CONTINUES = b"\xff\xff\xff\xff"
"""The mark before the size of metadata, since Arrow 0.15."""

_SIZE = 4
"""Bytes of the size of metadata, and of the size of a file's footer."""

_MAGIC = 6
"""Bytes of the mark at the end of a file."""

_READ_AT_ONCE = 16 << 20
"""Bytes of a stream: metadata may promise more than will come."""

# Numbers of fields, from the schemas Message.fbs and File.fbs.
_HEADER_KIND, _HEADER, _BODY_SIZE = 1, 2, 3
_RECORDS_OF_DICTIONARY = 1
_BUFFERS, _COMPRESSION = 2, 3
_DICTIONARIES_OF_FILE, _RECORDS_OF_FILE = 2, 3

_DICTIONARY, _RECORDS = 2, 3
"""Kinds of messages: the values of a dictionary, and rows."""

_BUFFER_BYTES, _BLOCK_BYTES = 16, 24
"""Of the structs that say where a buffer lies in its message, and a message in its file."""


def check_file(content: memoryview, check: _Check) -> None:
    """Look at all messages of an Arrow IPC file.

    Parameters
    ----------
    content : memoryview
        The file. Where it is damaged, pyarrow will say so.
    check : callable
        Called with the size that each message with compressed buffers will have, and has.
    """
    end = len(content) - _MAGIC - _SIZE
    try:
        footer = _Table(content[end - _number(content, end, _SIZE) : end])
        for field in (_DICTIONARIES_OF_FILE, _RECORDS_OF_FILE):
            for block in footer.structs(field, _BLOCK_BYTES):
                _check_messages(content, _number(footer.content, block, 8), check, most=1)
    except IndexError:
        return


def check_stream(content: memoryview, check: _Check) -> None:
    """Look at all messages of a stored Arrow IPC stream; see `check_file`."""
    with suppress(IndexError):
        _check_messages(content, 0, check)


def _check_messages(
    content: memoryview, place: int, check: _Check, most: int | None = None
) -> None:
    """Look at messages that follow each other, up to the one that says it is the last.

    Raises
    ------
    IndexError
        They go on behind the last byte.
    """
    count = 0
    while count != most:
        if content[place : place + _SIZE] == _CONTINUES:
            place += _SIZE
        begin = place + _SIZE
        body = begin + _number(content, place, _SIZE)
        if body <= begin:
            return
        message = _Message(content[begin:body])
        message.check(content[body : body + message.size], check)
        place, count = body + message.size, count + 1


class CheckedStream(io.RawIOBase):
    """An Arrow IPC stream from a pipe whose messages are looked at as they come.

    Parameters
    ----------
    stream : binary file
        At the beginning of the stream.
    check : callable
        See `check_file`; what it raises ends the reading.
    """

    def __init__(self, stream: IO[bytes], check: _Check) -> None:
        super().__init__()
        self._stream = stream
        self._check = check
        self._parts = self._read_parts()
        self._part = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """As many of the next bytes as are asked for, if there are."""
        pieces: list[memoryview] = []
        left = size
        while left:
            self._part = self._part or memoryview(next(self._parts, b""))
            if not self._part:
                break
            piece = self._part if left < 0 else self._part[:left]
            self._part = self._part[len(piece) :]
            pieces.append(piece)
            left -= len(piece) if left > 0 else 0
        return b"".join(pieces)

    def _read_parts(self) -> Iterator[bytes]:
        """Marks, sizes, metadata and bodies; none is read before it is wanted."""
        while True:
            size = self._read(_SIZE)
            if size == _CONTINUES:
                yield size
                size = self._read(_SIZE)
            yield size
            length = int.from_bytes(size, "little", signed=True)
            if len(size) < _SIZE or length <= 0:
                return
            metadata = self._read(length)
            yield metadata
            try:
                message = _Message(memoryview(metadata))
            except IndexError:
                # pyarrow says what is wrong with it, and asks for no body.
                continue
            body = self._read(message.size)
            message.check(memoryview(body), self._check)
            if body:
                yield body

    def _read(self, size: int) -> bytes:
        """The next bytes; fewer where the stream ends."""
        content = self._stream.read(min(size, _READ_AT_ONCE))
        if len(content) in (0, size):
            return content
        pieces = bytearray(content)
        while content and len(pieces) < size:
            content = self._stream.read(min(size - len(pieces), _READ_AT_ONCE))
            pieces += content
        return bytes(pieces)


class _Message:
    """What the metadata of a message say of its body.

    Attributes
    ----------
    size : int
        Bytes of the body.

    Raises
    ------
    IndexError
        They are damaged.
    """

    def __init__(self, metadata: memoryview) -> None:
        message = _Table(metadata)
        self.size = max(message.number(_BODY_SIZE, 8), 0)
        self._buffers: list[tuple[int, int]] = []
        kind = message.number(_HEADER_KIND, 1)
        if kind not in (_DICTIONARY, _RECORDS):
            return
        records = message.table(_HEADER)
        if kind == _DICTIONARY:
            records = records.table(_RECORDS_OF_DICTIONARY)
        if records.place(_COMPRESSION):
            for place in records.structs(_BUFFERS, _BUFFER_BYTES):
                self._buffers.append((_number(metadata, place, 8), _number(metadata, place + 8, 8)))

    def check(self, body: memoryview, check: _Check) -> None:
        """Add up the sizes that stand in front of the buffers; -1 is one that is as it is."""
        starts = [begin for begin, size in self._buffers if size > 0 <= begin <= len(body) - 8]
        if starts:
            check(sum(max(_number(body, begin, 8), 0) for begin in starts), len(body))


class _Table:
    """A table of FlatBuffers: places of fields, which a second table in front of it lists.

    Parameters
    ----------
    content : memoryview
    place : int or None
        Where it is; None for where the first bytes say.

    Raises
    ------
    IndexError
        It goes on behind the last byte.
    """

    def __init__(self, content: memoryview, place: int | None = None) -> None:
        self.content = content
        self._start = _number(content, 0, 4) if place is None else place
        self._fields = self._start - _number(content, self._start, 4)
        self._end = self._fields + _number(content, self._fields, 2)

    def place(self, field: int) -> int:
        """Where a field is; 0 if it is not there."""
        entry = self._fields + 4 + 2 * field
        offset = _number(self.content, entry, 2) if entry < self._end else 0
        return self._start + offset if offset else 0

    def number(self, field: int, size: int) -> int:
        """A whole number; 0 if it is not there."""
        place = self.place(field)
        return _number(self.content, place, size) if place else 0

    def table(self, field: int) -> _Table:
        """A table within this one."""
        place = self.place(field)
        return _Table(self.content, place + _number(self.content, place, 4))

    def structs(self, field: int, size: int) -> range:
        """Where the structs of a list lie, each of a number of bytes."""
        place = self.place(field)
        if not place:
            return range(0)
        begin = place + _number(self.content, place, 4)
        count = _number(self.content, begin, 4)
        if not 0 <= count <= len(self.content) // size:
            raise IndexError(count)
        return range(begin + 4, begin + 4 + count * size, size)


def _number(content: memoryview, place: int, size: int) -> int:
    """A whole number, the lowest byte first.

    Raises
    ------
    IndexError
        It would go on behind the last byte, or begin before the first.
    """
    if not 0 <= place <= len(content) - size:
        raise IndexError(place)
    return int.from_bytes(content[place : place + size], "little", signed=True)
