"""HDF5 files: described by another process, mapped where they lie, decoded chunk by chunk.

libhdf5 crashes on some damaged files, so that h5py is only used in a process of its own, for the
description (`hdf5_description`). The numbers are read here.

Format: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError
from calibcli.tables.formats import hdf5_description
from calibcli.tables.formats.base import Field
from calibcli.tables.formats.chunked import (
    ChunkedMember,
    ChunkError,
    arrow_decompressed,
    inflated,
    read_exactly,
    unshuffled,
)
from calibcli.tables.formats.npy import ArrayHeader
from calibcli.tables.formats.npz import ArrayData, Member, with_own_keys
from calibcli.tables.locations import Location
from calibcli.tables.storage import LARGEST_EXPANSION, Spool

_SECONDS, _BYTES_A_SECOND, _PATIENCE = 8, 10 << 20, 120
"""Processor time of libhdf5, with more for large files, and how long it may take on a busy machine:
a damaged heap of texts has it search for minutes."""

_DEFLATE, _SHUFFLE, _FLETCHER, _ZSTD = hdf5_description.FILTERS.values()
_FLETCHER_BYTES, _FLETCHER_MODULUS = 4, 65535
_NOTHING = ArrayHeader((0,), fortran=False, dtype="|u1", length=0)
_MOST_AXES, _LARGEST_ARRAY = 32, 1 << 62


@dataclass(frozen=True, eq=False)
class Hdf5Chunks:
    """The chunks of a dataset.

    Attributes
    ----------
    path : str
    shape : tuple of int
        Of a chunk.
    dtype : str
    places : dict of tuple to (int, int, int)
        Offset, bytes and left out filters of each chunk that is stored, by its place in the grid.
    filters : tuple of (int, tuple of int)
        Numbers and options, in the order in which they packed a chunk.
    fill : bytes or None
        The value of what is not stored; None where this cannot be meant.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    places: Mapping[tuple[int, ...], tuple[int, int, int]] = field(repr=False)
    filters: tuple[tuple[int, tuple[int, ...]], ...] = ()
    fill: bytes | None = None

    def chunk(self, index: tuple[int, ...]) -> NumpyArray:
        if index not in self.places:
            if self.fill is None:
                raise ChunkError("was never written; the file is incomplete")
            value = np.frombuffer(self.fill, self.dtype)
            return np.broadcast_to(value.reshape((1,) * len(self.shape)), self.shape)
        offset, stored, left_out = self.places[index]
        size = math.prod(self.shape) * np.dtype(self.dtype).itemsize
        with Path(self.path).open("rb") as file:
            data = read_exactly(file, offset, stored)
        for place, (number, options) in reversed(list(enumerate(self.filters))):
            if left_out >> place & 1:
                continue
            before = [each for each, _ in self.filters[:place]]
            # A checksum before the compression is part of what was compressed.
            whole = size + _FLETCHER_BYTES * before.count(_FLETCHER)
            if number == _DEFLATE:
                data = inflated(data, whole)
            elif number == _ZSTD:
                data = arrow_decompressed(data, whole, "zstd")
            elif number == _SHUFFLE:
                data = unshuffled(data, options[0])
            else:
                data = _checked(data)
        if len(data) != size:
            raise ChunkError(f"has {len(data):,} bytes, and {size:,} by its shape")
        return np.frombuffer(data, self.dtype).reshape(self.shape)


def _checked(data: bytes) -> bytes:
    """What is before its checksum, Fletcher's of 16-bit words.

    Raises
    ------
    ChunkError
    """
    content, stored = data[:-_FLETCHER_BYTES], int.from_bytes(data[-_FLETCHER_BYTES:], "little")
    words = np.frombuffer(content + b"\0" * (len(content) % 2), ">u2").astype(np.int64)
    weights = np.arange(len(words), 0, -1) % _FLETCHER_MODULUS
    sums = int(words.sum()), int((weights * words % _FLETCHER_MODULUS).sum())
    first, second = (each % _FLETCHER_MODULUS for each in sums)
    if (stored & 0xFFFF) % _FLETCHER_MODULUS != first or (
        stored >> 16
    ) % _FLETCHER_MODULUS != second:
        raise ChunkError("does not agree with its checksum (Fletcher-32); copy the file again")
    return content


def open_hdf5(location: Location, spool: Spool) -> ArrayData:
    """Look at an HDF5 file. Each dataset is a field, called by its path.

    Raises
    ------
    DataError
        It is damaged, or h5py is not installed.
    """
    described = _description(location, spool)
    size = Path(location.path).stat().st_size
    fields: list[Field] = []
    members: list[Member] = []
    for entry in described:
        header, member = _member(location, entry, size, spool)
        if member is None:
            rows = entry.get("shape") or [0]
            text = str(entry["unread"])
            if " packed by " in text:
                text += f"; h5repack -f GZIP=1 {shlex.quote(location.name)} new.h5 packs it anew"
            fields.append(
                Field(entry["name"], text, "other", 3, None, None, rows[0], carried=False)
            )
            members.append(Member(_NOTHING, location.path, 0))
        else:
            in_memory = member.offset is not None
            fields.append(header.field(entry["name"], in_memory=in_memory))
            members.append(member)
    if not fields:
        raise DataError(f"{location.name}: the HDF5 file holds no dataset")
    data = ArrayData(location, "hdf5", tuple(fields), unit="key", members=tuple(members))
    return with_own_keys(data)


def _description(location: Location, spool: Spool) -> list[dict[str, Any]]:
    """What a process of its own finds in the file."""
    if find_spec("h5py") is None:
        raise DataError(
            f"{location.name}: is an HDF5 file, which needs h5py: pip install 'calibcli[hdf5]'"
        )
    limit = spool.expansion.limit or LARGEST_EXPANSION
    seconds = _SECONDS + Path(location.path).stat().st_size // _BYTES_A_SECOND
    with spool.writing(location.name):
        folder = Path(spool.new_file(location.name))
        folder.mkdir()
    program = str(Path(hdf5_description.__file__).resolve())
    # -P keeps what lies in the working folder from being imported, "::" filters from being loaded.
    command = [sys.executable, "-P", program, str(Path(location.path).absolute()), str(folder)]
    environment = os.environ | {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}
    try:
        process = subprocess.run(  # noqa: S603 (this Python and this package's program)
            [*command, str(limit), str(seconds)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_PATIENCE + seconds,
            env=environment,
        )
        described = json.loads(process.stdout)
    except subprocess.TimeoutExpired as error:
        raise _damaged(location, f"libhdf5 did not end in {_PATIENCE + seconds} seconds") from error
    except (ValueError, RecursionError) as error:
        reason = f"libhdf5 ended by signal {-process.returncode}"
        if -process.returncode == getattr(signal, "SIGXCPU", None):
            reason = f"libhdf5 did not end in {seconds} seconds"
        elif process.returncode >= 0:
            last = process.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            reason = last[0] if last else "libhdf5 gave up"
        raise _damaged(location, reason) from error
    if "error" in described:
        raise _damaged(location, described["error"])
    datasets: list[dict[str, Any]] = described["datasets"]
    return datasets


def _damaged(location: Location, reason: str) -> DataError:
    return DataError(f"{location.name}: not a readable HDF5 file ({reason})")


def _member(
    location: Location, entry: dict[str, Any], size: int, spool: Spool
) -> tuple[ArrayHeader, Member | None]:
    """The array that is described, checked against the file; None of what is not read."""
    where = f"{location.name}, key {entry['name']!r}"
    if "unread" in entry:
        return _NOTHING, None
    shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
    header = ArrayHeader(shape, fortran=False, dtype=dtype.str, length=0, bfloat=entry["bfloat"])
    countable = math.prod(max(axis, 1) for axis in shape) * dtype.itemsize
    if not dtype.itemsize or countable > _LARGEST_ARRAY or len(shape) > _MOST_AXES:
        raise DataError(f"{where}: no array is of the shape {shape}")
    if "copy" in entry:
        return header, Member(header, entry["copy"], 0)
    if "chunks" not in entry:
        return header, _contiguous(location, entry, header, size)
    chunks = tuple(entry["chunks"])
    filters = tuple((number, tuple(options)) for number, options, _ in entry["filters"])
    if any(number == _SHUFFLE and not (o and 0 < o[0] <= 1 << 10) for number, o in filters):
        raise _damaged(location, f"how {entry['name']!r} was shuffled is missing")
    places = _places(location, entry, chunks, size)
    stored = sum(each for _, each, _ in places.values())
    # A chunk of scores that is all the same was never written.
    fill = None if dtype.kind == "f" or entry["bfloat"] else bytes.fromhex(entry["fill"])
    if fill is not None and len(fill) != dtype.itemsize:
        fill = None
    source = Hdf5Chunks(location.path, chunks, dtype.str, places, filters, fill)
    member = ChunkedMember(header, location.path, None, chunks=chunks, source=source)
    member.check(where, stored, spool)
    return header, member


def _contiguous(
    location: Location, entry: dict[str, Any], header: ArrayHeader, size: int
) -> Member | None:
    offset = entry["offset"]
    if offset is None:
        entry["unread"] = f"{header.dtype} that were never written"
        return None
    if offset < 0 or offset + header.bytes > size:
        raise _damaged(location, f"{entry['name']!r} reaches over its end; it is incomplete")
    return Member(header, location.path, offset)


def _places(
    location: Location, entry: dict[str, Any], chunks: Sequence[int], size: int
) -> dict[tuple[int, ...], tuple[int, int, int]]:
    """Where each chunk is stored, by its place in the grid."""
    axes = len(chunks)
    table = np.array(entry["stored"], np.int64).reshape(-1, axes + 3)
    if len(chunks) != len(entry["shape"]) or min(chunks, default=0) < 1:
        raise _damaged(location, f"the chunks of {entry['name']!r} have no shape")
    ends = table[:, axes] + table[:, axes + 1]
    if (table < 0).any() or (ends > size).any():
        raise _damaged(location, f"a chunk of {entry['name']!r} reaches over its end")
    index = table[:, :axes] // np.array(chunks)
    return {
        tuple(place): (offset, stored, left_out)
        for place, (offset, stored, left_out) in zip(
            index.tolist(), table[:, axes:].tolist(), strict=True
        )
    }
