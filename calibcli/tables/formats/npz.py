"""NPZ and NPY files: memory-mapped where they lie, streamed where they are compressed."""

from __future__ import annotations

import shlex
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError
from calibcli.tables.formats.base import (
    DECODED_BYTES,
    DataFile,
    Field,
    locating_rows,
    pickled,
    python_command,
    read_notes,
)
from calibcli.tables.formats.npy import ArrayBatch, ArrayHeader, read_header
from calibcli.tables.formats.registry import STORES
from calibcli.tables.locations import Location, first_line
from calibcli.tables.storage import BROKEN_ZIP, COPIED_BYTES, MappedFile, Spool

CLASSES_KEY = "classes"
"""An array of class names, in the order of the score columns."""

SEEN_KEY = "calib.seen"
"""There if a fit has seen the rows."""

NOTES_KEY = "calib.reading"
"""How the rows are to be read, see `DataFile.notes`: one text, in JSON."""

NPY_FIELD = "array"
"""The name of the one array of an NPY file."""

SPLIT_ROWS = 1 << 16
"""Rows of a partition that is read independently."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_COPY = "it is damaged; copy it again from where it came from"


@dataclass(frozen=True)
class Member:
    """An array of the file.

    Attributes
    ----------
    header : ArrayHeader
    path : str
        The file that holds it.
    offset : int or None
        Where its data begin in that file; None where they are compressed.
    entry : str
        Its name in the zip file.
    checksum : int or None
        CRC-32 of the header and the data at ``offset``, where the file has one.
    """

    header: ArrayHeader
    path: str
    offset: int | None
    entry: str = ""
    checksum: int | None = None

    def verify(self, where: str) -> None:
        """Compare what lies at ``offset`` with its checksum; `_Compressed` does it as it reads.

        Raises
        ------
        DataError
            They differ.
        """
        if self.checksum is None or self.offset is None:
            return
        checksum, buffer = 0, memoryview(bytearray(COPIED_BYTES))
        with Path(self.path).open("rb") as file:
            file.seek(self.offset - self.header.length)
            left = self.header.length + self.header.bytes
            while left and (count := file.readinto(buffer[: min(left, COPIED_BYTES)])):
                checksum = zlib.crc32(buffer[:count], checksum)
                left -= count
        if left or checksum != self.checksum:
            raise DataError(f"{where}: the data do not agree with their checksum (CRC-32); {_COPY}")

    @property
    def is_sequential(self) -> bool:
        """Whether a row can only be reached by reading all that is before it."""
        return self.offset is None

    def reader(self, where: str, begin: int) -> AbstractContextManager[ArrayReader]:
        """What reads the rows from ``begin`` on of an array that is not mapped."""
        return _decompressed(self, where, begin)

    def spooled(self, where: str, spool: Spool) -> Member:
        """The same array, decompressed to a temporary file where it is compressed.

        Raises
        ------
        DataError
            It is damaged, or too large.
        """
        if self.offset is not None:
            return self
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.entry) as stream:
                return Member(self.header, spool.copy(stream, where), self.header.length)
        except BROKEN_ZIP as error:
            raise DataError(f"{where}: cannot be decompressed ({first_line(error)})") from error


@dataclass(eq=False, kw_only=True)
class ArrayData(DataFile):
    """A local NPZ or NPY file.

    Attributes
    ----------
    members : tuple of Member
        One for each field.
    """

    members: tuple[Member, ...]

    def splits(self, rows: int) -> Sequence[int]:
        """Every `SPLIT_ROWS` rows; what is compressed can only be read from its beginning."""
        sequential = any(member.is_sequential for member in self.members)
        return (0,) if sequential else range(0, max(rows, 1), SPLIT_ROWS)

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[ArrayBatch]:
        """Rows ``begin`` to before ``end``: views of the mapped file, or decompressed rows."""
        with ExitStack() as opened:
            readers = self._readers(names, begin, opened)
            members = zip(self.fields, self.members, strict=True)
            headers = {field.name: member.header for field, member in members}

            def release() -> None:
                for reader in readers.values():
                    reader.release()

            pace = min([rows, *(reader.most for reader in readers.values())])
            for start in range(begin, end, pace):
                count = min(pace, end - start)
                stored = {key: each.take(count) for key, each in readers.items()}
                arrays = {key: headers[key].decoded(array) for key, array in stored.items()}
                yield ArrayBatch(arrays, count, release)
                if end - begin > pace:
                    release()

    def laid_out(self, names: Sequence[str], spool: Spool, *, one_row: bool) -> ArrayData:
        """The same file with some arrays mapped, decompressed if a row of them is large."""
        fields, members = list(self.fields), list(self.members)
        for index, (field, member) in enumerate(zip(self.fields, self.members, strict=True)):
            if field.name not in names:
                continue
            large = member.header.bytes > DECODED_BYTES * max(field.rows, 1)
            laid = member.spooled(self._key(field), spool) if one_row or large else member
            header = laid.header
            if one_row:
                header = replace(header, shape=(1, *header.shape))
            members[index] = replace(laid, header=header)
            fields[index] = header.field(field.name, in_memory=laid.offset is not None)
        return replace(self, fields=tuple(fields), members=tuple(members))

    def _key(self, field: Field) -> str:
        """A field, for messages."""
        return f"{self.location.name}, key {field.name!r}"

    def verify(self, names: Sequence[str]) -> None:
        """Compare the arrays that are mapped with their checksums, in one pass over each."""
        wanted = set(names)
        for field, member in zip(self.fields, self.members, strict=True):
            if field.name in wanted:
                member.verify(self._key(field))

    def head(self, names: Sequence[str], begin: int, rows: int) -> ArrayBatch | None:
        """Up to ``rows`` rows from ``begin`` on."""
        wanted = set(names)
        end = min([begin + rows, *(field.rows for field in self.fields if field.name in wanted)])
        return next(self.read(names, begin, end, rows), None)

    def _readers(
        self, names: Sequence[str], begin: int, opened: ExitStack
    ) -> dict[str, ArrayReader]:
        mappings: dict[str, MappedFile] = {}
        readers: dict[str, ArrayReader] = {}
        wanted = set(names)
        for field, member in zip(self.fields, self.members, strict=True):
            if field.name not in wanted:
                continue
            if member.offset is None:
                reader = member.reader(self._key(field), begin)
                readers[field.name] = opened.enter_context(reader)
            else:
                if member.path not in mappings:
                    mappings[member.path] = MappedFile(member.path)
                readers[field.name] = _Mapped(member, mappings[member.path], begin)
        return readers


class ArrayReader(Protocol):
    """Reads the rows of one array in order."""

    most: int

    def take(self, rows: int) -> NumpyArray:
        """The next rows, at most ``most``."""

    def release(self) -> None:
        """Forget what was read."""


class _Mapped:
    def __init__(self, member: Member, mapping: MappedFile, begin: int) -> None:
        self.most = max(1, member.header.shape[0])
        self.release = mapping.release
        self._array = member.header.map(mapping, member.offset or 0)
        self._at = begin

    def take(self, rows: int) -> NumpyArray:
        self._at += rows
        return self._array[self._at - rows : self._at]


class _Compressed:
    def __init__(self, stream: IO[bytes], header: ArrayHeader, where: str) -> None:
        self._stream, self._header, self._where = stream, header, where
        self._row_bytes = header.bytes // max(1, header.shape[0])
        self._left = header.bytes
        self.most = max(1, DECODED_BYTES // max(1, self._row_bytes))

    def take(self, rows: int) -> NumpyArray:
        data = self.bytes(rows * self._row_bytes)
        if not self._left:
            self._end()
        return np.frombuffer(data, self._header.dtype).reshape(rows, *self._header.shape[1:])

    def bytes(self, count: int) -> bytes:
        try:
            data = self._stream.read(count)
        except BROKEN_ZIP as error:
            raise DataError(
                f"{self._where}: cannot be decompressed ({first_line(error)})"
            ) from error
        if len(data) < count:
            raise DataError(f"{self._where}: the compressed data end too early")
        self._left -= count
        return data

    def _end(self) -> None:
        """Reach the end of the stream, where the zip file's checksum is compared."""
        try:
            rest = self._stream.read(1)
        except BROKEN_ZIP as error:
            raise DataError(
                f"{self._where}: the data do not agree with their checksum ({error}); {_COPY}"
            ) from error
        if rest:
            raise DataError(f"{self._where}: there are more data than the header promises")

    def skip(self, rows: int) -> None:
        left = rows * self._row_bytes
        while left:
            left -= len(self.bytes(min(left, DECODED_BYTES)))

    def release(self) -> None:
        """Nothing is kept."""


@contextmanager
def _decompressed(member: Member, where: str, begin: int) -> Iterator[_Compressed]:
    with zipfile.ZipFile(member.path) as archive, archive.open(member.entry) as stream:
        stream.read(member.header.length)
        reader = _Compressed(stream, member.header, where)
        reader.skip(begin)
        yield reader


def open_npy(location: Location, _: Spool) -> ArrayData:
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
    member = Member(header, str(path), header.length)
    return ArrayData(location, "npy", (field,), unit="array", members=(member,))


def open_npz(location: Location, spool: Spool) -> DataFile:
    """Look at an NPZ file; an archive may be a log of Inspect, too.

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
            names = [entry.filename for entry in entries]
            if any(entry.filename.endswith(".pkl") for entry in entries):
                raise pickled(location.name)
            entries = [entry for entry in entries if entry.filename.endswith(".npy")]
            members = [_member(archive, entry, file, location, spool) for entry in entries]
    except BROKEN_ZIP as error:
        raise DataError(
            f"{location.name}: not a readable NPZ file ({first_line(error)})"
        ) from error
    keys = [entry.filename.removesuffix(".npy") for entry in entries]
    if not keys and any(each.startswith("samples/") for each in names):
        from calibcli.tables.formats.harness_logs import is_inspect_archive, open_inspect_archive

        if is_inspect_archive(names):
            return open_inspect_archive(location, spool)
    if not keys:
        raise DataError(f"{location.name}: {_other_archive(location.name, names)}")
    if len(set(keys)) < len(keys):
        problem = "a key is there twice"
        raise DataError(f"{location.name}: not a readable NPZ file ({problem})")
    fields = tuple(
        member.header.field(key, in_memory=member.offset is not None)
        for key, member in zip(keys, members, strict=True)
    )
    data = ArrayData(location, "npz", fields, unit="key", members=tuple(members))
    return with_own_keys(data)


def with_own_keys(data: ArrayData) -> ArrayData:
    """The file with what the arrays say that are no data, but about it."""
    seen = any(field.name == SEEN_KEY for field in data.fields)
    return replace(
        data,
        about=(CLASSES_KEY, SEEN_KEY, NOTES_KEY),
        class_names=_class_names(data),
        seen=seen,
        notes=_notes(data),
    )


def _other_archive(name: str, names: Sequence[str]) -> str:
    """What a ZIP file without arrays is, and how its rows are read."""
    if any(each.startswith("xl/") for each in names):
        program = f"import pandas; pandas.read_excel({name!r}).to_parquet('rows.parquet')"
        return f"is an Excel workbook; write its sheet to a file first: {python_command(program)}"
    if any(PurePosixPath(each).name in STORES for each in names):
        return f"is a Zarr store in a ZIP archive; unpack it first: {_unpacking(name)}"
    if names:
        return (
            f"is a ZIP archive of other files, {', '.join(names[:3])}{', …' if names[3:] else ''}; "
            f"take out the one that is meant: unzip -p {shlex.quote(name)} "
            f"{shlex.quote(names[0])} | calib evaluate -"
        )
    return "not a readable NPZ file (it holds no array)"


def _unpacking(name: str) -> str:
    folder = shlex.quote(f"{PurePosixPath(name).name.split('.', 1)[0]}.zarr")
    return f"unzip -q {shlex.quote(name)} -d {folder} && calib evaluate {folder}"


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
    spool.expansion.check(name, entry.file_size, entry.compress_size)
    with archive.open(entry) as stream:
        header = read_header(stream, entry.file_size, name)
    if entry.compress_type == zipfile.ZIP_STORED:
        start = _data_offset(file, entry)
        if start + entry.file_size > Path(location.path).stat().st_size:
            raise DataError(f"{name}: the file ends before the array does; it is incomplete")
        if header.length + header.bytes != entry.file_size:
            raise DataError(f"{name}: there are more data than the header promises")
        return Member(header, location.path, start + header.length, entry.filename, entry.CRC)
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
    names = _texts(data, CLASSES_KEY)
    return tuple(names) if 1 < len(set(names)) == len(names) else None


def _notes(data: ArrayData) -> dict[str, str]:
    texts = _texts(data, NOTES_KEY)
    return read_notes(texts[0]) if texts else {}


def _texts(data: ArrayData, key: str) -> list[str]:
    """The texts of an array of them, with a check of the file; none if there is no such array."""
    field = next((field for field in data.fields if field.name == key), None)
    if field is None or field.element != "string" or field.axes != 1 or not field.rows:
        return []
    data.verify((key,))
    batch = data.head((key,), 0, field.rows)
    with locating_rows(data, 0):
        return [] if batch is None else batch.values(key).in_order()
