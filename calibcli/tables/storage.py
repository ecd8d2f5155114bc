"""Where bytes lie while they are read: memory-mapped files, and temporary copies of streams."""

from __future__ import annotations

import lzma
import mmap
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError

BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
)
"""What is raised for a zip file that is damaged."""

COPIED_BYTES = 1 << 20
"""What is copied from file to file, or hashed, at a time."""


def _in_units(size: int) -> str:
    """A size as an option takes it, rounded up."""
    return f"{-(-size >> 30)}G" if size > 1 << 30 else f"{-(-size >> 20)}M"


class MappedFile:
    """A local file as read-only memory. Arrays made from it keep it alive.

    Parameters
    ----------
    path : str
        An existing file that is not empty.
    """

    def __init__(self, path: str) -> None:
        with Path(path).open("rb") as file:
            self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.bytes: NumpyArray = np.frombuffer(self.memory, np.uint8)

    def contains(self, address: int) -> bool:
        """Whether an address lies in the mapped file."""
        start = int(self.bytes.ctypes.data)
        return start <= address < start + len(self.bytes)

    def release(self) -> None:
        """Give all pages back, so that resident memory does not grow with what was read.

        Arrays stay valid: what is touched again is fetched again from the system's file cache.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            self.memory.madvise(mmap.MADV_DONTNEED)


LARGEST_STREAM = 16 << 30
LARGEST_EXPANSION, EXPANSION_FACTOR = 1 << 30, 100
"""Without a limit given: bytes of a copied stream; and of what a file has compressed, which may
also grow to this many times its size. Logits hardly grow tenfold, zeros a thousandfold."""


@dataclass(frozen=True)
class ExpansionLimit:
    """How far what a file has compressed may grow.

    Attributes
    ----------
    limit : int or None
        Bytes of one array, page or batch; None for `LARGEST_EXPANSION` and `EXPANSION_FACTOR`.
    """

    limit: int | None = None

    def check(self, name: str, size: int, stored: int) -> None:
        """Refuse what would grow from a stored size to one beyond all measure.

        Raises
        ------
        DataError
        """
        limit = self.limit
        if limit is None:
            limit = max(LARGEST_EXPANSION, EXPANSION_FACTOR * stored)
        if size > max(limit, stored):
            raise DataError(
                f"{name}: its {stored:,} bytes would become {size:,}; "
                f"--spool-limit {_in_units(size)} allows that"
            )


class Spool:
    """A folder of temporary files, for what comes from a pipe or an object store.

    The folder is made when the first file is needed. It is deleted on `close`, or at the end of
    the process.

    Parameters
    ----------
    limit : int or None
        Bytes of one copied stream, and of one array that a file has compressed.

    Attributes
    ----------
    expansion : ExpansionLimit
        What the limit says of compressed arrays.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self.expansion = ExpansionLimit(limit)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    @property
    def is_used(self) -> bool:
        """Whether there is a temporary file."""
        return self._files > 0

    def copy(self, stream: IO[bytes] | Any, name: str, head: bytes = b"") -> str:
        """Copy the rest of a stream into a new file and return its path.

        Parameters
        ----------
        stream : binary file
        name : str
            Where the stream comes from, for messages.
        head : bytes
            What was read of it before.

        Raises
        ------
        DataError
            The stream cannot be read or has no end, or the temporary folder is full.
        """
        limit = LARGEST_STREAM if self._limit is None else self._limit
        return self._copy(stream, name, head, limit)

    def expand(self, stream: IO[bytes] | Any, name: str, stored: int) -> str:
        """Copy what a compressed file holds into a new file and return its path.

        Parameters
        ----------
        stream : binary file
            Of what is decompressed.
        name : str
            Of the compressed file, for messages.
        stored : int
            Its size in bytes.

        Raises
        ------
        DataError
            It grows beyond all measure, or the temporary folder is full.
        """
        limit = self._limit
        if limit is None:
            limit = max(LARGEST_EXPANSION, EXPANSION_FACTOR * stored)
        return self._copy(stream, name, b"", limit)

    def _copy(self, stream: IO[bytes] | Any, name: str, head: bytes, limit: int) -> str:
        path = self.new_file(name)
        with self.writing(name), Path(path).open("xb") as file:
            copied = file.write(head)
            while copied <= limit and (content := stream.read(COPIED_BYTES)):
                copied += file.write(content)
        if copied > limit:
            Path(path).unlink()
            raise self._too_large(name, limit)
        return path

    def new_file(self, name: str) -> str:
        """The path of a file that is not there yet.

        Raises
        ------
        DataError
            The folder for it cannot be made; it is about the file called ``name``.
        """
        with self.writing(name):
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="calib-")
        self._files += 1
        return str(Path(self._folder.name) / str(self._files))

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Turn errors of a temporary file for the rows of ``name`` into a `DataError`."""
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{name}: cannot be copied to a temporary file in {tempfile.gettempdir()} "
                f"({error.strerror or error}); TMPDIR names another folder"
            ) from error

    def check_copied(self, name: str, copied: int) -> None:
        """Refuse a temporary file that has grown too large.

        Raises
        ------
        DataError
        """
        limit = LARGEST_STREAM if self._limit is None else self._limit
        if copied > limit:
            raise self._too_large(name, limit)

    @staticmethod
    def _too_large(name: str, limit: int) -> DataError:
        return DataError(
            f"{name}: has more than {limit:,} bytes, which would all be copied to "
            f"{tempfile.gettempdir()}; --spool-limit {_in_units(2 * limit)} allows more"
        )

    def close(self) -> None:
        """Delete the files."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
