"""Files of object stores that are being written: uploaded when they are complete."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from contextlib import suppress
from typing import Any, BinaryIO

from calibcli.errors import CalibError, UsageError
from calibcli.tables.locations import filesystem, first_line
from calibcli.tables.pending_files import NamedFile

_COPIED_BYTES = 1 << 20


def check_remote(path: str, *, force: bool) -> None:
    """Refuse a file of an object store that could not be written at the end.

    Raises
    ------
    UsageError
        It is there already, is a folder, or the store cannot be reached.
    """
    from pyarrow.fs import FileType

    system, place = filesystem(path)
    try:
        kind = system.get_file_info(place).type
    except OSError as error:
        raise UsageError(f"{path}: cannot be reached ({first_line(error)})") from error
    if kind == FileType.Directory:
        raise UsageError(f"{path}: is a folder; give the name of a file in it")
    if kind == FileType.File and not force:
        raise UsageError(f"{path}: exists already; --force replaces it")


def remote_sizes(url: str) -> dict[str, int]:
    """Bytes of the files whose names begin with a prefix, by what follows it.

    Raises
    ------
    UsageError
        The store cannot be reached.
    """
    from pyarrow.fs import FileSelector, FileType

    system, folder = filesystem(url)
    folder = folder.rstrip("/")
    try:
        inside = system.get_file_info(FileSelector(folder, allow_not_found=True, recursive=True))
    except OSError as error:
        raise UsageError(f"{url}: cannot be listed ({first_line(error)})") from error
    return {
        each.path[len(folder) :].lstrip("/"): each.size
        for each in inside
        if each.type == FileType.File
    }


def temporary_file(shown: str) -> BinaryIO:
    """A file without a name on this machine, whose failures are about ``shown``."""
    with tempfile.TemporaryFile(prefix="calib-") as held:
        return io.BufferedRandom(NamedFile(os.dup(held.fileno()), shown))


def upload(file: BinaryIO, system: Any, place: str, shown: str) -> None:
    """Copy an open file, from its beginning, to an object store.

    Raises
    ------
    CalibError
        It cannot be written there.
    """
    file.seek(0)
    try:
        with system.open_output_stream(place) as stream:
            shutil.copyfileobj(file, stream, _COPIED_BYTES)
    except OSError as error:
        raise CalibError(f"{shown}: {first_line(error)}; nothing was written") from error


class RemoteFile:
    """A file of an object store, held on this machine until it gets its name.

    An upload that ends early would be taken for a whole one, so that it begins when all is there.
    One that was replaced cannot be had back.

    Parameters
    ----------
    path : str
        The address.
    """

    replaces = False

    def __init__(self, path: str) -> None:
        self.path = path
        self.file = temporary_file(path)
        self._system, self._place = filesystem(path)
        self._replaces = False

    def bring_to_disk(self) -> None:
        """Write what is in buffers."""
        self.file.flush()

    def give_name(self, *, force: bool) -> None:
        """Upload the file, in place of one that is there if ``force`` is set."""
        from pyarrow.fs import FileType

        check_remote(self.path, force=force)
        self._replaces = self._system.get_file_info(self._place).type == FileType.File
        upload(self.file, self._system, self._place, self.path)

    def take_back(self) -> None:
        """Undo `give_name`, unless it has replaced a file."""
        if not self._replaces:
            with suppress(OSError):
                self._system.delete_file(self._place)

    def settle(self) -> None:
        """Nothing is left to do."""

    def discard(self) -> None:
        """Forget what is held here."""
        with suppress(OSError, CalibError):
            self.file.close()
