"""Arrays that are stored as a grid of chunks, each of them packed by itself: HDF5 and Zarr.

What packs them is undone here, within the limits that the shape of a chunk gives: neither libhdf5
nor the library zarr sees the data.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError
from calibcli.tables.formats.base import DECODED_BYTES
from calibcli.tables.formats.npz import Member
from calibcli.tables.locations import first_line
from calibcli.tables.storage import Spool


class ChunkError(Exception):
    """A chunk cannot be decoded; whoever knows the array says which one."""


class ChunkSource(Protocol):
    """Decodes the chunks of an array. It pickles, and opens its file when it is asked."""

    def chunk(self, index: tuple[int, ...]) -> NumpyArray:
        """The chunk at a place of the grid, whole even where it reaches over the array's end.

        Raises
        ------
        ChunkError
            It is damaged, or was never written.
        """


@dataclass(frozen=True, kw_only=True)
class ChunkedMember(Member):
    """An array in chunks.

    Attributes
    ----------
    chunks : tuple of int
        The lengths of the axes of a chunk.
    source : ChunkSource
    """

    chunks: tuple[int, ...]
    source: ChunkSource

    @property
    def is_sequential(self) -> bool:
        return False

    @contextmanager
    def reader(self, where: str, begin: int) -> Iterator[_ChunkReader]:
        yield _ChunkReader(self, where, begin)

    def spooled(self, where: str, spool: Spool) -> Member:
        """The same array, decoded to a temporary file."""
        rows = _ChunkReader(self, where, 0)
        path = spool.copy(_Stream(rows, self.header.shape[0]), where)
        return Member(self.header, path, 0)

    def check(self, where: str, stored: int, spool: Spool) -> None:
        """Refuse an array whose ``stored`` bytes would grow beyond all measure.

        What is at once in memory, the chunks side by side of some rows, is limited as well.

        Raises
        ------
        DataError
        """
        shape = (self.chunks[0], *self.header.shape[1:])
        block = int(np.prod([float(axis) for axis in shape])) * np.dtype(self.header.dtype).itemsize
        spool.expansion.check(where, max(self.header.bytes, block), stored)


class _ChunkReader:
    """Reads rows in order, decoding the chunks side by side that hold the same rows."""

    def __init__(self, member: ChunkedMember, where: str, begin: int) -> None:
        self._member, self._where, self._at = member, where, begin
        shape = member.header.shape
        self._row_bytes = member.header.bytes // max(1, shape[0])
        self.most = max(1, DECODED_BYTES // max(1, self._row_bytes))
        self._block: tuple[int, NumpyArray] | None = None

    def take(self, rows: int) -> NumpyArray:
        height = self._member.chunks[0]
        parts: list[NumpyArray] = []
        left = rows
        while left or not parts:
            place, inside = divmod(self._at, height)
            block = self._decoded(place)
            part = block[inside : inside + left]
            parts.append(part)
            self._at += len(part)
            left -= len(part)
            if not len(part):
                break
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _decoded(self, place: int) -> NumpyArray:
        """The rows of the chunks at this place of the first axis."""
        if self._block is not None and self._block[0] == place:
            return self._block[1]
        self._block = None
        shape, chunks = self._member.header.shape, self._member.chunks
        rows = max(0, min(chunks[0], shape[0] - place * chunks[0]))
        block = np.empty((rows, *shape[1:]), self._member.header.dtype)
        counts = [-(-axis // length) for axis, length in zip(shape[1:], chunks[1:], strict=True)]
        for index in itertools.product(*map(range, counts if rows else [0])):
            try:
                chunk = self._member.source.chunk((place, *index))
            except ChunkError as error:
                where = ".".join(map(str, (place, *index)))
                raise DataError(f"{self._where}: chunk {where} {error}") from error
            target = block[
                (
                    slice(None),
                    *(slice(i * n, (i + 1) * n) for i, n in zip(index, chunks[1:], strict=True)),
                )
            ]
            target[...] = chunk[tuple(map(slice, target.shape))]
        self._block = (place, block)
        return block

    def release(self) -> None:
        """Only the rows of some chunks are kept, of which more may be asked for."""


class _Stream:
    """The bytes of an array in C order, as a file to be copied."""

    def __init__(self, reader: _ChunkReader, rows: int) -> None:
        self._reader, self._left = reader, rows

    def read(self, _: int) -> bytes:
        """The next rows; none at the end."""
        rows = min(self._left, self._reader.most)
        self._left -= rows
        return self._reader.take(rows).tobytes() if rows else b""


def inflated(data: bytes, size: int, *, gzip: bool = False) -> bytes:
    """What zlib or gzip packed into ``data``, which must have ``size`` bytes.

    Raises
    ------
    ChunkError
    """
    stream = zlib.decompressobj(zlib.MAX_WBITS + 16 if gzip else zlib.MAX_WBITS)
    try:
        return sized(stream.decompress(data, size + 1), size)
    except zlib.error as error:
        raise ChunkError(f"cannot be decompressed ({first_line(error)})") from error


def arrow_decompressed(data: bytes, size: int, codec: str) -> bytes:
    """What one of Arrow's codecs packed into ``data``, which must have ``size`` bytes.

    Raises
    ------
    ChunkError
    """
    import pyarrow as pa

    try:
        content: bytes = pa.decompress(data, size, codec, asbytes=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ChunkError(f"cannot be decompressed ({str(error).splitlines()[0]})") from error
    return sized(content, size)


def sized(content: bytes, size: int) -> bytes:
    """The content, if it has the size that the shape of a chunk asks for.

    Raises
    ------
    ChunkError
    """
    if len(content) != size:
        more = "more" if len(content) > size else "less"
        raise ChunkError(f"holds {more} than its shape says ({size:,} bytes)")
    return content


def unshuffled(data: bytes, item: int) -> bytes:
    """Bytes that were sorted by their place in a number of ``item`` bytes, back in their order."""
    whole = len(data) // item * item
    numbers = np.frombuffer(data[:whole], np.uint8).reshape(item, -1).T
    return numbers.tobytes() + data[whole:]


def read_exactly(file: IO[bytes] | Any, offset: int, size: int) -> bytes:
    """Bytes of a file.

    Raises
    ------
    ChunkError
        The file ends before them.
    """
    file.seek(offset)
    content: bytes = file.read(size)
    if len(content) < size:
        raise ChunkError("reaches over the end of the file, which is damaged or incomplete")
    return content
