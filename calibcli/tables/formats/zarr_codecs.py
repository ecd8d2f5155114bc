"""What packs the chunks of a Zarr store, undone: compressions, Blosc, shards, texts, checksums.

Formats: https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst,
https://numcodecs.readthedocs.io, https://zarr-specs.readthedocs.io/en/latest/v3/codecs
"""

from __future__ import annotations

import bz2
import io
import lzma
import math
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.tables.formats.chunked import (
    ChunkError,
    arrow_decompressed,
    inflated,
    sized,
    unshuffled,
)
from calibcli.tables.storage import LARGEST_EXPANSION

_EMPTY = (1 << 64) - 1
_MOST_SHARD_CHUNKS = 1 << 21
_POLYNOMIAL = 0x82F63B78
"""Castagnoli's, with its bits in reverse: RFC 3720, appendix B.4."""

_LANE_BYTES = 512
_CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class Codec:
    """One step that makes bytes of bytes.

    Attributes
    ----------
    name : str
        A key of `_DECODERS`.
    item : int
        Bytes of a number, where the step knows of numbers.
    """

    name: str
    item: int = 1


def codecs_of(named: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Codec, ...] | str:
    """The steps of these names and settings; or the name of one that is not undone."""
    codecs: list[Codec] = []
    for full, settings in named:
        name = str(full).removeprefix("numcodecs.")
        if name not in _DECODERS:
            return name
        if name == "blosc" and settings.get("cname") == "blosclz":
            return "blosclz"
        item = settings.get("elementsize", 1)
        if type(item) is not int or not 0 < item <= 1 << 10:
            return name
        codecs.append(Codec(name, item))
    if sum(codec.name in _COMPRESSIONS for codec in codecs) > 1:
        return " and ".join(codec.name for codec in codecs)
    return tuple(codecs)


def decoded(data: bytes, codecs: Sequence[Codec], size: int | None) -> bytes:
    """The bytes that some steps packed, in their order.

    Parameters
    ----------
    data : bytes
    codecs : sequence of Codec
    size : int or None
        How many there must be; None if that is not known.

    Raises
    ------
    ChunkError
        They cannot be unpacked, or are more or fewer.
    """
    for place in range(len(codecs) - 1, -1, -1):
        codec = codecs[place]
        # A checksum before the compression is part of what was compressed.
        sums = sum(before.name == "crc32c" for before in codecs[:place])
        whole = None if size is None else size + _CHECKSUM_BYTES * sums
        data = _DECODERS[codec.name](data, whole, codec)
    return data if size is None else sized(data, size)


def _zlib(data: bytes, size: int | None, _: Codec) -> bytes:
    return _streamed(data, zlib.decompressobj()) if size is None else inflated(data, size)


def _gzip(data: bytes, size: int | None, _: Codec) -> bytes:
    if size is None:
        return _streamed(data, zlib.decompressobj(zlib.MAX_WBITS + 16))
    return inflated(data, size, gzip=True)


def _bz2(data: bytes, size: int | None, _: Codec) -> bytes:
    return _streamed(data, bz2.BZ2Decompressor(), size)


def _lzma(data: bytes, size: int | None, _: Codec) -> bytes:
    return _streamed(data, lzma.LZMADecompressor(), size)


def _streamed(data: bytes, stream: Any, size: int | None = None) -> bytes:
    most = LARGEST_EXPANSION if size is None else size
    try:
        content: bytes = stream.decompress(data, most + 1)
    except (zlib.error, OSError, ValueError, EOFError, lzma.LZMAError) as error:
        raise ChunkError(f"cannot be decompressed ({error})") from error
    if len(content) > most:
        raise ChunkError(f"holds more than its shape says ({most:,} bytes)")
    return content if size is None else sized(content, size)


def _zstd(data: bytes, size: int | None, _: Codec) -> bytes:
    import pyarrow as pa

    most = LARGEST_EXPANSION if size is None else size
    try:
        # As a stream, since not every frame says how long its content is.
        with pa.CompressedInputStream(io.BytesIO(data), "zstd") as stream:
            content: bytes = stream.read(most + 1)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ChunkError(f"cannot be decompressed ({str(error).splitlines()[0]})") from error
    if len(content) > most:
        raise ChunkError(f"holds more than its shape says ({most:,} bytes)")
    return content if size is None else sized(content, size)


def _lz4(data: bytes, size: int | None, _: Codec) -> bytes:
    said = int.from_bytes(data[:4], "little")
    if said > LARGEST_EXPANSION:
        raise ChunkError(f"would have {said:,} bytes")
    return arrow_decompressed(data[4:], said if size is None else size, "lz4_raw")


def _shuffle(data: bytes, _: int | None, codec: Codec) -> bytes:
    return unshuffled(data, codec.item)


def _crc32c(data: bytes, _: int | None, __: Codec) -> bytes:
    content, stored = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(stored) < _CHECKSUM_BYTES or crc32c(content) != int.from_bytes(stored, "little"):
        raise ChunkError("does not agree with its checksum (CRC-32C); copy the store again")
    return content


# Blosc

_BLOSC = struct.Struct("<BBBBIII")
_SHUFFLED, _COPIED, _BIT_SHUFFLED, _WHOLE_BLOCKS = 1, 2, 4, 16
_MOST_STREAMS, _LEAST_STREAM = 16, 128
_BLOSC_CODECS = {1: "lz4_raw", 2: "snappy", 3: "zlib", 4: "zstd"}


def _blosc(data: bytes, size: int | None, _: Codec) -> bytes:
    """What Blosc 1 packed: blocks of numbers, of which each may be several streams."""
    if len(data) < _BLOSC.size:
        raise ChunkError("is too short for Blosc")
    _, _, flags, item, whole, block, stored = _BLOSC.unpack_from(data)
    if stored != len(data) or whole > LARGEST_EXPANSION or (size is not None and whole != size):
        raise ChunkError("has a header of Blosc that does not fit its shape or its length")
    if flags & _COPIED:
        return sized(data[_BLOSC.size :], whole)
    if not whole:
        return b""
    codec = _BLOSC_CODECS.get(flags >> 5)
    if codec is None or not 0 < block <= whole or not item:
        raise ChunkError("is packed by Blosc in a way that is not read")
    count = -(-whole // block)
    if _BLOSC.size + 4 * count > len(data):
        raise ChunkError("is too short for its blocks")
    starts = np.frombuffer(data, "<u4", count, _BLOSC.size).tolist()
    parts: list[bytes] = []
    for place, start in enumerate(starts):
        length = min(block, whole - place * block)
        is_split = not flags & _WHOLE_BLOCKS and length == block and item <= _MOST_STREAMS
        streams = item if is_split and block // item >= _LEAST_STREAM else 1
        content = _streams(data, start, length, streams, codec)
        if flags & _SHUFFLED and item > 1:
            content = unshuffled(content, item)
        elif flags & _BIT_SHUFFLED:
            content = _bits_unshuffled(content, item)
        parts.append(content)
    return b"".join(parts)


def _streams(data: bytes, start: int, length: int, streams: int, codec: str) -> bytes:
    """The content of a block: so many streams, each behind its length."""
    size, parts = length // streams, []
    for _ in range(streams):
        stored = int.from_bytes(data[start : start + 4], "little")
        packed = data[start + 4 : start + 4 + stored]
        if len(packed) < stored or not stored:
            raise ChunkError("has a block that reaches over its end")
        start += 4 + stored
        if stored == size:
            parts.append(packed)
        elif codec == "zlib":
            parts.append(inflated(packed, size))
        else:
            parts.append(arrow_decompressed(packed, size, codec))
    return b"".join(parts)


def _bits_unshuffled(data: bytes, item: int) -> bytes:
    """Bits that were sorted by their place in a number of ``item`` bytes, back in their order.

    Blosc 1 leaves blocks as they are that have no multiple of eight numbers.
    """
    count = len(data) // item
    if count % 8:
        return data
    planes = np.frombuffer(data, np.uint8, count * item).reshape(item * 8, -1)
    bits = np.unpackbits(planes, axis=1, bitorder="little").T
    return np.packbits(bits, axis=1, bitorder="little").tobytes() + data[count * item :]


_COMPRESSIONS: dict[str, Callable[[bytes, int | None, Codec], bytes]] = {
    "blosc": _blosc,
    "zlib": _zlib,
    "gzip": _gzip,
    "bz2": _bz2,
    "lzma": _lzma,
    "zstd": _zstd,
    "lz4": _lz4,
}
_DECODERS = {**_COMPRESSIONS, "shuffle": _shuffle, "crc32c": _crc32c}


# Shards


@dataclass(frozen=True)
class Shards:
    """Files that hold several chunks each, and an index of them.

    Attributes
    ----------
    counts : tuple of int
        Chunks of a shard along each axis.
    is_first : bool
        Whether the index stands at the beginning of the file.
    codecs : tuple of Codec
        What packed the index.
    order : str
        The byte order of its numbers.
    """

    counts: tuple[int, ...]
    is_first: bool
    codecs: tuple[Codec, ...] = field(default=())
    order: str = "<"

    def places(self, path: str) -> NumpyArray:
        """Offset and length (…, 2) of each chunk of the shard at a path.

        Raises
        ------
        ChunkError
            The index is damaged.
        """
        if math.prod(self.counts) > _MOST_SHARD_CHUNKS:
            raise ChunkError("is in a shard of too many chunks")
        if any(codec.name != "crc32c" for codec in self.codecs):
            raise ChunkError("is in a shard whose index is compressed")
        size = 16 * math.prod(self.counts)
        stored = size + _CHECKSUM_BYTES * len(self.codecs)
        with Path(path).open("rb") as file:
            whole = file.seek(0, io.SEEK_END)
            file.seek(0 if self.is_first else max(0, whole - stored))
            content = file.read(stored)
        content = decoded(content, self.codecs, size)
        places: NumpyArray = np.frombuffer(content, f"{self.order}u8").reshape(*self.counts, 2)
        return places

    @staticmethod
    def is_empty(offset: int) -> bool:
        """Whether the place of a chunk says that it is not stored."""
        return offset == _EMPTY


def texts_in(content: bytes) -> list[bytes]:
    """The texts of a chunk (``vlen-utf8``): their number, then each behind its length.

    Raises
    ------
    ChunkError
    """
    count, at = int.from_bytes(content[:4], "little"), 4
    if count > len(content) // 4:
        raise ChunkError("has fewer texts than it says")
    texts: list[bytes] = []
    for _ in range(count):
        length = int.from_bytes(content[at : at + 4], "little")
        text = content[at + 4 : at + 4 + length]
        if len(text) < length:
            raise ChunkError("ends within a text")
        texts.append(text)
        at += 4 + length
    return texts


# CRC-32C, whose remainders add up: many lanes are computed side by side, and then shifted.


@cache
def _table() -> NumpyArray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


@cache
def _shift() -> list[list[int]]:
    """What `_LANE_BYTES` zeros make of each byte of a remainder (4 x 256)."""
    table = _table()
    remainders: NumpyArray = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(_LANE_BYTES):
        remainders = table[remainders & 0xFF] ^ (remainders >> 8)
    bits = [int(each) for each in remainders]
    shifts = [[0] * 256 for _ in range(4)]
    for place in range(4):
        for byte in range(256):
            for bit in range(8):
                if byte >> bit & 1:
                    shifts[place][byte] ^= bits[8 * place + bit]
    return shifts


def crc32c(content: bytes) -> int:
    """The checksum of Castagnoli.

    Parameters
    ----------
    content : bytes
    """
    table = _table()
    # Zeros before the content change nothing while the remainder is 0; so the first four bytes
    # are inverted instead of beginning with ones.
    data = np.frombuffer(content, np.uint8).copy()
    if len(data) < 4:
        remainder = 0xFFFFFFFF
        for byte in content:
            remainder = int(table[(remainder ^ byte) & 0xFF]) ^ (remainder >> 8)
        return remainder ^ 0xFFFFFFFF
    data[:4] ^= 0xFF
    padded = np.concatenate([np.zeros(-len(data) % _LANE_BYTES, np.uint8), data])
    lanes = padded.reshape(-1, _LANE_BYTES)
    remainders = np.zeros(len(lanes), np.uint32)
    for column in range(_LANE_BYTES):
        remainders = table[(remainders ^ lanes[:, column]) & 0xFF] ^ (remainders >> 8)
    remainder, shifts = 0, _shift()
    for lane in remainders.tolist():
        shifted = 0
        for place in range(4):
            shifted ^= shifts[place][remainder >> (8 * place) & 0xFF]
        remainder = shifted ^ lane
    return remainder ^ 0xFFFFFFFF
