"""NPZ and NPY files: memory-mapped where they lie, streamed where they are compressed."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from calibcli.engine.source import NumpyArray
from calibcli.errors import DataError
from calibcli.tables.blocks import ArrayBlock
from calibcli.tables.fields import Field
from calibcli.tables.locations import Location
from calibcli.tables.mapping import Mapping
from calibcli.tables.npy import Header, pickled, read_header
from calibcli.tables.spool import Spool

CLASSES_KEY = "classes"
"""An array of class names, in the order of the score columns."""

NPY_FIELD = "array"
"""The name of the one array of an NPY file."""

SPLIT_ROWS = 1 << 16
PIECE_BYTES = 8 << 20
"""What is decompressed at a time."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
)


@dataclass(frozen=True)
class Member:
    """An array of the file.

    Attributes
    ----------
    header : Header
    path : str
        The file that holds it.
    offset : int or None
        Where its data begin in that file; None where they are compressed.
    entry : str
        Its name in the zip file.
    """

    header: Header
    path: str
    offset: int | None
    entry: str = ""


@dataclass(frozen=True)
class ArrayData:
    """An NPZ or NPY file.

    Attributes
    ----------
    location : Location
        Of a local file.
    fields : tuple of Field
    members : tuple of Member
        One for each field.
    class_names : tuple of str or None
    format : str
        ``"npz"`` or ``"npy"``.
    """

    location: Location
    fields: tuple[Field, ...]
    members: tuple[Member, ...]
    class_names: tuple[str, ...] | None
    format: str

    def splits(self, rows: int) -> Sequence[int]:
        """Every `SPLIT_ROWS` rows; what is compressed can only be read from its beginning."""
        compressed = any(member.offset is None for member in self.members)
        return (0,) if compressed else range(0, max(rows, 1), SPLIT_ROWS)

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[ArrayBlock]:
        """Rows ``begin`` to before ``end``: views of the mapped file, or decompressed pieces."""
        with ExitStack() as opened:
            readers = self._readers(names, begin, opened)
            pace = min([rows, *(reader.most for reader in readers.values())])
            for start in range(begin, end, pace):
                count = min(pace, end - start)
                yield ArrayBlock({key: each.take(count) for key, each in readers.items()}, count)
                if end - begin > pace:
                    for reader in readers.values():
                        reader.release()

    def head(self, names: Sequence[str], begin: int, rows: int) -> ArrayBlock | None:
        """Up to ``rows`` rows from ``begin`` on."""
        wanted = set(names)
        end = min([begin + rows, *(field.rows for field in self.fields if field.name in wanted)])
        return next(self.read(names, begin, end, rows), None)

    def _readers(self, names: Sequence[str], begin: int, opened: ExitStack) -> dict[str, _Reader]:
        mappings: dict[str, Mapping] = {}
        readers: dict[str, _Reader] = {}
        wanted = set(names)
        for field, member in zip(self.fields, self.members, strict=True):
            if field.name not in wanted:
                continue
            if member.offset is None:
                where = f"{self.location.name}, key {field.name!r}"
                readers[field.name] = opened.enter_context(_decompressed(member, where, begin))
            else:
                if member.path not in mappings:
                    mappings[member.path] = Mapping(member.path)
                readers[field.name] = _Mapped(member, mappings[member.path], begin)
        return readers


class _Reader(Protocol):
    """Reads the rows of one array in order."""

    most: int

    def take(self, rows: int) -> NumpyArray:
        """The next rows, at most ``most``."""

    def release(self) -> None:
        """Forget what was read."""


class _Mapped:
    def __init__(self, member: Member, mapping: Mapping, begin: int) -> None:
        self.most = max(1, member.header.shape[0])
        self.release = mapping.release
        self._array = member.header.map(mapping, member.offset or 0)
        self._at = begin

    def take(self, rows: int) -> NumpyArray:
        self._at += rows
        return self._array[self._at - rows : self._at]


class _Compressed:
    def __init__(self, stream: IO[bytes], header: Header, where: str) -> None:
        self._stream, self._header, self._where = stream, header, where
        self._row_bytes = header.bytes // max(1, header.shape[0])
        self.most = max(1, PIECE_BYTES // max(1, self._row_bytes))

    def take(self, rows: int) -> NumpyArray:
        data = self.bytes(rows * self._row_bytes)
        return np.frombuffer(data, self._header.dtype).reshape(rows, *self._header.shape[1:])

    def bytes(self, count: int) -> bytes:
        try:
            data = self._stream.read(count)
        except _BROKEN as error:
            raise DataError(f"{self._where}: cannot be decompressed ({error})") from error
        if len(data) < count:
            raise DataError(f"{self._where}: the compressed data end too early")
        return data

    def skip(self, rows: int) -> None:
        left = rows * self._row_bytes
        while left:
            left -= len(self.bytes(min(left, PIECE_BYTES)))

    def release(self) -> None:
        """Nothing is kept."""


@contextmanager
def _decompressed(member: Member, where: str, begin: int) -> Iterator[_Compressed]:
    with zipfile.ZipFile(member.path) as archive, archive.open(member.entry) as stream:
        stream.read(member.header.length)
        reader = _Compressed(stream, member.header, where)
        reader.skip(begin)
        yield reader


def open_npy(location: Location) -> ArrayData:
    """Look at an NPY file.

    Raises
    ------
    DataError
        It is damaged, or holds Python objects.
    """
    path = Path(location.path)
    with path.open("rb") as file:
        header = read_header(file, path.stat().st_size, location.name)
    field = header.field(NPY_FIELD, in_memory=True)
    return ArrayData(location, (field,), (Member(header, str(path), header.length),), None, "npy")


def open_npz(location: Location, spool: Spool) -> ArrayData:
    """Look at an NPZ file.

    A compressed array in Fortran order cannot be read row by row: it is decompressed into a
    temporary file.

    Raises
    ------
    DataError
        It is damaged or encrypted, holds Python objects, or holds no array at all.
    """
    try:
        with zipfile.ZipFile(location.path) as archive, Path(location.path).open("rb") as file:
            entries = archive.infolist()
            if any(entry.filename.endswith(".pkl") for entry in entries):
                raise pickled(location.name)
            entries = [entry for entry in entries if entry.filename.endswith(".npy")]
            members = [_member(archive, entry, file, location, spool) for entry in entries]
    except _BROKEN as error:
        raise DataError(f"{location.name}: not a readable NPZ file ({error})") from error
    keys = [entry.filename.removesuffix(".npy") for entry in entries]
    if not keys or len(set(keys)) < len(keys):
        problem = "a key is there twice" if keys else "it holds no array"
        raise DataError(f"{location.name}: not a readable NPZ file ({problem})")
    fields = tuple(
        member.header.field(key, in_memory=member.offset is not None)
        for key, member in zip(keys, members, strict=True)
    )
    plain = ArrayData(location, fields, tuple(members), None, "npz")
    return replace(plain, class_names=_class_names(plain))


def _member(
    archive: zipfile.ZipFile,
    entry: zipfile.ZipInfo,
    file: IO[bytes],
    location: Location,
    spool: Spool,
) -> Member:
    name = f"{location.name}, key {entry.filename.removesuffix('.npy')!r}"
    if entry.flag_bits & 1:
        raise DataError(f"{name}: it is encrypted; save it without a password")
    with archive.open(entry) as stream:
        header = read_header(stream, entry.file_size, name)
    if entry.compress_type == zipfile.ZIP_STORED:
        start = _data_offset(file, entry)
        if start + entry.file_size > Path(location.path).stat().st_size:
            raise DataError(f"{name}: the file ends before the array does; it is incomplete")
        return Member(header, location.path, start + header.length)
    if header.fortran and len(header.shape) > 1:
        with archive.open(entry) as stream:
            path = spool.copy(stream, name)
        return Member(header, path, header.length)
    return Member(header, location.path, None, entry.filename)


def _data_offset(file: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Where the content of an entry begins: behind its local header, whose length varies."""
    file.seek(entry.header_offset)
    start = file.read(_LOCAL_HEADER.size)
    signature, name, extra = _LOCAL_HEADER.unpack(start)
    if signature != b"PK\3\4":
        raise zipfile.BadZipFile("bad magic number for file header")
    return entry.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)


def _class_names(data: ArrayData) -> tuple[str, ...] | None:
    field = next((field for field in data.fields if field.name == CLASSES_KEY), None)
    if field is None or field.element != "string" or field.axes != 1 or field.rows < 2:
        return None
    block = data.head((CLASSES_KEY,), 0, field.rows)
    names = [] if block is None else block.arrays[CLASSES_KEY].astype(str).tolist()
    return tuple(names) if 1 < len(set(names)) == len(names) else None
