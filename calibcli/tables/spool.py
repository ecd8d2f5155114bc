"""Temporary files: for what comes from a pipe or an object store and is read more than once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

from calibcli.errors import DataError

PIECE = 1 << 20


class Spool:
    """A folder of temporary files, made when the first one is needed and deleted on `close`.

    It is deleted at the end of the process too, if nobody closed it.
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def copy(self, stream: IO[bytes] | Any, name: str) -> str:
        """Copy all that is left of a stream into a new file and return its path.

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
                shutil.copyfileobj(stream, file, PIECE)
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
