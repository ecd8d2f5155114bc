"""Which format a file has, by its first bytes; and the refusal of those that are not read."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path, PurePath
from typing import IO

from calibcli.errors import DataError
from calibcli.small_files import open_patiently
from calibcli.tables.formats.base import DataFile, pickled, python_command
from calibcli.tables.formats.registry import FORMATS, STORES, FileFormat, import_function
from calibcli.tables.locations import Location, cannot_read, first_line
from calibcli.tables.storage import Spool

_MAGIC_BYTES = 512
_PICKLES = (".p", ".pk", ".pkl", ".pickle", ".pt", ".pth", ".joblib", ".ckpt")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_TEXT_BYTES = bytes([*b"\t\n\v\f\r", *range(32, 127), *range(128, 256)])
_HINTS = {
    b"BZh": "it is compressed with bzip2; decompress it first",
    b"\xfd7zXZ": "it is compressed with xz; decompress it first",
    b"FEA1": "it is Feather version 1; write it again with version 2",
}


_RECIPES = {
    b"MATLAB 7.3": (
        "a MATLAB file, whose arrays are transposed and whose classes most often count from 1",
        (
            "import h5py, numpy; f = h5py.File({name}); numpy.savez('rows.npz', "
            "logits=f['logits'][()].T, labels=f['labels'][()].ravel())"
        ),
    ),
    b"MATLAB": (
        "a MATLAB file, whose classes most often count from 1",
        (
            "import numpy, scipy.io; m = scipy.io.loadmat({name}); "
            "numpy.savez('rows.npz', logits=m['logits'], labels=m['labels'].ravel())"
        ),
    ),
}
"""What begins like this is, and the program that writes its arrays to a file that is read."""


def sniff(head: bytes, name: str) -> FileFormat:
    """The format of a file.

    Parameters
    ----------
    head : bytes
        Its first bytes: eight or more, or all.
    name : str
        For messages, and its suffix for the hint in them.

    Raises
    ------
    DataError
        It is empty, a pickle, or in none of the formats that are read.
    """
    if not head:
        raise DataError(f"{name}: the file is empty")
    for each in FORMATS.values():
        if head.startswith(each.magic):
            return each
    suffix = PurePath(name).suffix.lower()
    # Protocols 2 to 5 begin like this; older ones are text, and joblib compresses.
    if suffix in _PICKLES or (head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5"):
        raise pickled(name)
    for each in FORMATS.values():
        recognise = each.recognise if _is_text(head) else each.recognise_bytes
        if recognise and import_function(recognise)(head):
            return each
    *titles, last = dict.fromkeys(each.title for each in FORMATS.values())
    known = f"{', '.join(titles)} and {last} are read"
    raise DataError(f"{name}: {_hint(head, name)} ({known})")


def _hint(head: bytes, name: str) -> str:
    """What a file may be that is not read, and what to do."""
    hint = next((hint for magic, hint in _HINTS.items() if head.startswith(magic)), None)
    if hint is not None:
        return hint
    for magic, (title, program) in _RECIPES.items():
        if head.startswith(magic):
            command = python_command(program.format(name=repr(name)))
            return f"it is {title}; save what it holds first, by its names in the file: {command}"
    return "the format is not known"


def compression_of(head: bytes) -> str | None:
    """How a file that begins like this is compressed, in Arrow's terms."""
    return next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)


def is_json(head: bytes) -> bool:
    """Whether text begins as an object or a list in JSON."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a header in JSON, and with this header."""
    return head[4:9] == b"\0\0\0\0{" and head[3] < 1 << 6


def is_delimited(head: bytes) -> bool:
    """Whether text has lines or delimiters: its reader says what is missing if it is no CSV."""
    return any(sign in head for sign in (b"\n", b"\r", b",", b";", b"\t", b"|"))


def piped_format(head: bytes) -> FileFormat | None:
    """The format that begins like this, if it is read from a pipe as it comes."""
    piped = (each for each in FORMATS.values() if each.pipe_reader)
    return next((each for each in piped if head.startswith(each.magic)), None)


def _is_text(head: bytes) -> bool:
    # Of any encoding: whoever reads it says which one it should be.
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    return not head.translate(None, _TEXT_BYTES)


def open_file(location: Location, spool: Spool) -> DataFile:
    """Look at a data file, of which nothing but its description is read.

    What a pipe gives is copied to the machine first, and so is a file of an object store whose
    format is not read there. A compressed file is decompressed to a temporary one.

    Raises
    ------
    DataError
        It cannot be read.
    """
    try:
        if location.url is None and Path(location.path).is_dir():
            return _opened_store(location, spool)
        if location.url is None and not Path(location.path).is_file():
            # A pipe can be read once, and has no end to begin at.
            with open_patiently(location.path) as pipe:
                location = spooled(pipe, location, spool)
        with location.open() as file:
            head = file.read(_MAGIC_BYTES)
            compression = compression_of(head)
            if compression is not None:
                location = _decompressed(location, compression, spool)
                with location.open() as inner:
                    form = sniff(inner.read(_MAGIC_BYTES), location.name)
            else:
                form = sniff(head, location.name)
                if location.url is not None and not form.remote:
                    file.seek(0)
                    location = spooled(file, location, spool)
    except OSError as error:
        raise cannot_read(location.name, error) from error
    opened: DataFile = import_function(form.reader)(location, spool)
    return opened


def _opened_store(location: Location, spool: Spool) -> DataFile:
    """A folder that is a store of arrays.

    Raises
    ------
    DataError
        It cannot be read.
    """
    form = next(form for mark, form in STORES.items() if (Path(location.path) / mark).is_file())
    opened: DataFile = import_function(form.reader)(location, spool)
    return opened


def spooled(stream: IO[bytes], location: Location, spool: Spool) -> Location:
    """A copy on this machine of a stream, once its first bytes say that it can be read.

    Raises
    ------
    DataError
        It cannot be read, or copied.
    """
    head = stream.read(_MAGIC_BYTES)
    if compression_of(head) is None:
        sniff(head, location.name)
    return Location(location.name, spool.copy(stream, location.name, head), None, location.keys)


def _decompressed(location: Location, compression: str, spool: Spool) -> Location:
    """What a compressed file holds, in a temporary one.

    Raises
    ------
    DataError
        It is damaged, or grows beyond all measure.
    """
    with location.open() as file:
        stored = file.seek(0, os.SEEK_END)
        file.seek(0)
        stream = _Decompressed(location.name, compression, file)
        return location.copied_to(spool.expand(stream, location.name, stored))


class _Decompressed:
    """A stream of what a compressed file holds.

    Parameters
    ----------
    name : str
        For messages.
    compression : str
        ``"gzip"`` or ``"zstd"``.
    file : binary file
    """

    def __init__(self, name: str, compression: str, file: IO[bytes]) -> None:
        import pyarrow as pa

        self._name, self._title = name, compression
        self._stream = (
            gzip.GzipFile(fileobj=file)
            if compression == "gzip"
            else pa.CompressedInputStream(file, compression)
        )

    def read(self, size: int) -> bytes:
        """Up to so many bytes; none at the end."""
        try:
            content: bytes = self._stream.read(size)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise DataError(
                f"{self._name}: not a readable {self._title} file ({first_line(error)})"
            ) from error
        return content
