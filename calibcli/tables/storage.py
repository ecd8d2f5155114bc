"""Where bytes lie while they are read: memory-mapped files, and temporary copies of streams."""

from __future__ import annotations

import mmap
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import DataError

COPIED_BYTES = 1 << 20
"""What is copied from file to file, or hashed, at a time."""


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


class Spool:
    """A folder of temporary files, for what comes from a pipe or an object store.

    The folder is made when the first file is needed. It is deleted on `close`, or at the end of
    the process.
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def copy(self, stream: IO[bytes] | Any, name: str) -> str:
        """Copy the rest of a stream into a new file and return its path.

        Parameters
        ----------
        stream : binary file
        name : str
            Where the stream comes from, for messages.

        Raises
        ------
        DataError
            The stream cannot be read, or the temporary folder is full.
        """
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="calib-")
            self._files += 1
            path = Path(self._folder.name) / str(self._files)
            with path.open("xb") as file:
                shutil.copyfileobj(stream, file, COPIED_BYTES)
        except OSError as error:
            raise DataError(
                f"{name}: cannot be copied to a temporary file in {tempfile.gettempdir()} "
                f"({error.strerror or error}); TMPDIR names another folder"
            ) from error
        return str(path)

    def close(self) -> None:
        """Delete the files."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
