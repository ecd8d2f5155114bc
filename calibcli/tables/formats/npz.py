"""NPZ and NPY files: memory-mapped where they lie, streamed where they are compressed.

Outputs are uncompressed and aligned, so that they can be memory-mapped, and written row by row.
"""

from __future__ import annotations

import shlex
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

import numpy as np
from numpy.lib import format as npy

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError
from calibcli.tables.formats.base import (
    DECODED_BYTES,
    DataFile,
    Field,
    free_names,
    locating_rows,
    pickled,
    python_command,
)
from calibcli.tables.formats.npy import NUMPY_TYPE, ArrayBatch, ArrayHeader, read_header
from calibcli.tables.locations import Location
from calibcli.tables.storage import BROKEN_ZIP, COPIED_BYTES, MappedFile, Spool

CLASSES_KEY = "classes"
"""An array of class names, in the order of the score columns."""

SEEN_KEY = "calib.seen"
"""There if a fit has seen the rows."""

NPY_FIELD = "array"
"""The name of the one array of an NPY file."""

SPLIT_ROWS = 1 << 16
"""Rows of a partition that is read independently."""

IN_MEMORY_BYTES = 8 << 20
"""What each array of an output may hold in memory; more goes to a temporary file."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_COPY = "it is damaged; copy it again from where it came from"
_ALIGNMENT = 64
_ZIP64_BYTES = 20
_PADDING = struct.Struct("<HH")
_PADDING_ID = 0xD935
"""The extra field of a zip entry with which Android's zipalign pads."""


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
            raise DataError(f"{where}: cannot be decompressed ({error})") from error


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
        compressed = any(member.offset is None for member in self.members)
        return (0,) if compressed else range(0, max(rows, 1), SPLIT_ROWS)

    def read(self, names: Sequence[str], begin: int, end: int, rows: int) -> Iterator[ArrayBatch]:
        """Rows ``begin`` to before ``end``: views of the mapped file, or decompressed rows."""
        with ExitStack() as opened:
            readers = self._readers(names, begin, opened)

            def release() -> None:
                for reader in readers.values():
                    reader.release()

            pace = min([rows, *(reader.most for reader in readers.values())])
            for start in range(begin, end, pace):
                count = min(pace, end - start)
                arrays = {key: each.take(count) for key, each in readers.items()}
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

    def _readers(self, names: Sequence[str], begin: int, opened: ExitStack) -> dict[str, _Reader]:
        mappings: dict[str, MappedFile] = {}
        readers: dict[str, _Reader] = {}
        wanted = set(names)
        for field, member in zip(self.fields, self.members, strict=True):
            if field.name not in wanted:
                continue
            if member.offset is None:
                reader = _decompressed(member, self._key(field), begin)
                readers[field.name] = opened.enter_context(reader)
            else:
                if member.path not in mappings:
                    mappings[member.path] = MappedFile(member.path)
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
            raise DataError(f"{self._where}: cannot be decompressed ({error})") from error
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
            names = [entry.filename for entry in entries]
            if any(entry.filename.endswith(".pkl") for entry in entries):
                raise pickled(location.name)
            entries = [entry for entry in entries if entry.filename.endswith(".npy")]
            members = [_member(archive, entry, file, location, spool) for entry in entries]
    except BROKEN_ZIP as error:
        raise DataError(f"{location.name}: not a readable NPZ file ({error})") from error
    keys = [entry.filename.removesuffix(".npy") for entry in entries]
    if not keys:
        raise DataError(f"{location.name}: {_other_archive(location.name, names)}")
    if len(set(keys)) < len(keys):
        problem = "a key is there twice"
        raise DataError(f"{location.name}: not a readable NPZ file ({problem})")
    fields = tuple(
        member.header.field(key, in_memory=member.offset is not None)
        for key, member in zip(keys, members, strict=True)
    )
    data = ArrayData(
        location, "npz", fields, unit="key", about=(CLASSES_KEY, SEEN_KEY), members=tuple(members)
    )
    seen = any(field.name == SEEN_KEY for field in fields)
    return replace(data, class_names=_class_names(data), seen=seen)


def _other_archive(name: str, names: Sequence[str]) -> str:
    """What a ZIP file without arrays is, and how its rows are read."""
    if any(each.startswith("xl/") for each in names):
        program = f"import pandas; pandas.read_excel({name!r}).to_parquet('rows.parquet')"
        return f"is an Excel workbook; write its sheet to a file first: {python_command(program)}"
    if names:
        return (
            f"is a ZIP archive of other files, {', '.join(names[:3])}{', …' if names[3:] else ''}; "
            f"take out the one that is meant: unzip -p {shlex.quote(name)} "
            f"{shlex.quote(names[0])} | calib evaluate -"
        )
    return "not a readable NPZ file (it holds no array)"


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
    field = next((field for field in data.fields if field.name == CLASSES_KEY), None)
    if field is None or field.element != "string" or field.axes != 1 or field.rows < 2:
        return None
    data.verify((CLASSES_KEY,))
    batch = data.head((CLASSES_KEY,), 0, field.rows)
    with locating_rows(data, 0):
        names = [] if batch is None else batch.values(CLASSES_KEY).in_order()
    return tuple(names) if 1 < len(set(names)) == len(names) else None


class NpzSink:
    """Writes what was computed, and the numeric columns of the input; a `Sink`.

    A zip file holds one array after the other, while rows come with all of them: the
    probabilities go straight to the file if their number is known, the rest waits beside it.

    Parameters
    ----------
    file : binary file
        That can seek.
    rows : int
        Number of rows to come; negative if it is not known.
    class_names : tuple of str or None
        Written as the array ``classes``.
    seen : bool
        Whether a fit has seen the rows.
    """

    def __init__(
        self, file: BinaryIO, rows: int, class_names: tuple[str, ...] | None, seen: bool = False
    ) -> None:
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)
        self._file, self._promised, self._class_names = file, rows, class_names
        self._seen = seen
        self._arrays: dict[str, _Waiting] = {}
        self._direct: IO[bytes] | None = None
        self._rows = 0
        self.renamed: dict[str, str] = {}
        self.left_out: tuple[str, ...] = ()

    def write(self, computed: Mapping[str, NumpyArray], columns: Any) -> None:
        """Write the probabilities and put the rest aside.

        Raises
        ------
        DataError
            A column has missing values or other types than before.
        """
        arrays = dict(computed)
        if columns is not None:
            self._add_columns(columns, arrays)
        if not self._rows:
            self._begin(arrays)
        for name, array in arrays.items():
            if name == "probs" and self._direct is not None:
                self._direct.write(_bytes(array, array.dtype))
            else:
                self._arrays[name].write(array, name)
        self._rows += len(computed["probs"])

    def _begin(self, arrays: dict[str, NumpyArray]) -> None:
        for name, array in arrays.items():
            if name != "probs" or self._promised < 0:
                self._arrays[name] = _Waiting(array)
        if self._promised >= 0:
            probs = arrays["probs"]
            self._direct = self._open("probs")
            _write_header(self._direct, probs.dtype, (self._promised, probs.shape[1]))

    def _add_columns(self, columns: Any, arrays: dict[str, NumpyArray]) -> None:
        if not self._rows:
            self.renamed = free_names(columns.schema.names, [*arrays, CLASSES_KEY, SEEN_KEY])
            self.left_out = tuple(field.name for field in columns.schema if not _fits(field))
        for field, column in zip(columns.schema, columns.columns, strict=True):
            if field.name not in self.left_out:
                new = self.renamed.get(field.name, field.name)
                arrays[new] = _from_arrow(field, column)

    def _open(self, name: str) -> IO[bytes]:
        """A new entry, its content aligned; a fixed date, so that equal arrays give equal bytes."""
        entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
        entry.external_attr = 0o600 << 16
        length = 30 + len(entry.filename.encode()) + _ZIP64_BYTES + _PADDING.size
        gap = -(self._file.tell() + length) % _ALIGNMENT
        entry.extra = _PADDING.pack(_PADDING_ID, gap) + bytes(gap)
        return self._archive.open(entry, "w", force_zip64=True)

    def close(self) -> None:
        """Write what waits, the class names, and the directory of the zip file.

        Raises
        ------
        DataError
            There were other rows than promised.
        """
        if self._direct is not None:
            self._direct.close()
            if self._rows != self._promised:
                raise DataError(
                    f"{self._rows} rows were written, but {self._promised} were to come"
                )
        for name, waiting in self._arrays.items():
            with self._open(name) as entry:
                waiting.copy_to(entry, self._rows)
        if self._class_names is not None:
            with self._open(CLASSES_KEY) as entry:
                npy.write_array(entry, np.array(self._class_names), allow_pickle=False)
        if self._seen:
            with self._open(SEEN_KEY) as entry:
                npy.write_array(entry, np.array([True]), allow_pickle=False)
        self._archive.close()

    def abandon(self) -> None:
        """Delete what waits, and let the zip file go."""
        for waiting in self._arrays.values():
            waiting.close()
        # A zip file that is collected while open would be completed, in a file that is closed.
        with suppress(Exception):
            if self._direct is not None:
                self._direct.close()
            self._archive.close()


class _Waiting:
    """An array that waits until the one before it is complete."""

    def __init__(self, first: NumpyArray) -> None:
        self._dtype, self._shape = first.dtype, first.shape[1:]
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 (see `close`)

    def write(self, array: NumpyArray, name: str) -> None:
        if array.shape[1:] != self._shape or not np.can_cast(array.dtype, self._dtype):
            raise DataError(
                f"column {name!r} has missing values or changes its type, which an NPZ file "
                "cannot hold; write .parquet"
            )
        self._file.write(_bytes(array, self._dtype))

    def copy_to(self, entry: IO[bytes], rows: int) -> None:
        _write_header(entry, self._dtype, (rows, *self._shape))
        self._file.seek(0)
        shutil.copyfileobj(self._file, entry, COPIED_BYTES)

    def close(self) -> None:
        self._file.close()


def _bytes(array: NumpyArray, dtype: np.dtype[Any]) -> memoryview:
    # Dates and strings offer no buffer of their own.
    return np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data


def _write_header(entry: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    npy.write_array_header_1_0(
        entry,
        {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape},
    )


def _is_numeric(kind: Any) -> bool:
    import pyarrow as pa

    return any(
        test(kind)
        for test in (
            pa.types.is_integer,
            pa.types.is_floating,
            pa.types.is_boolean,
            pa.types.is_timestamp,
            pa.types.is_duration,
            pa.types.is_date,
        )
    )


def _fits(field: Any) -> bool:
    """Whether a column can be an array: numbers, dates, vectors and tensors of them."""
    import pyarrow as pa

    kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    if pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return _is_numeric(kind) or NUMPY_TYPE in (field.metadata or {})


def _from_arrow(field: Any, column: Any) -> NumpyArray:
    import pyarrow as pa

    from calibcli.tables.formats.arrow import row_shape

    shape = row_shape(field) or ()
    if isinstance(field.type, pa.BaseExtensionType):
        column = column.storage
    missing = column.null_count
    if pa.types.is_fixed_size_list(column.type):
        shape = shape or (column.type.list_size,)
        column = column.flatten()
        missing += column.null_count
    if missing and not (pa.types.is_floating(column.type) and not shape):
        raise DataError(
            f"column {field.name!r} has missing values, which an NPZ file cannot hold; "
            "write .parquet"
        )
    stored = (field.metadata or {}).get(NUMPY_TYPE)
    if stored is not None:
        return np.array(column.to_pylist(), stored.decode())
    array: NumpyArray = column.to_numpy(zero_copy_only=False)
    return array.reshape(-1, *shape)
