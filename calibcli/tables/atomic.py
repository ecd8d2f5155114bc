"""Files that appear under their name complete or not at all."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from calibcli.errors import CalibError, UsageError

STDOUT = "-"
NEW_FILE_MODE = 0o666  # cut by the umask, as for any new file
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES)
"""Failures of writing, as opposed to those of reading, which say themselves what they are."""


def check_writable(path: str, *, force: bool) -> None:
    """Refuse a path that could not be written at the end, before any work is done for it.

    Parameters
    ----------
    path : str
        ``-`` is standard output and always fine.
    force : bool
        Whether an existing file may be replaced.

    Raises
    ------
    UsageError
        The file exists, is a folder or a device, or its folder is not there or not writable.
    """
    if path == STDOUT:
        return
    target = Path(path).resolve()
    if target.is_dir():
        raise UsageError(f"{path}: is a folder; give the name of a file in it")
    if target.exists() and not target.is_file():
        raise UsageError(f"{path}: is not a regular file")
    if target.exists() and not force:
        raise UsageError(f"{path}: exists already; --force replaces it")
    if not target.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: the folder {target.parent} is not writable")


@contextmanager
def atomic_write(path: str, *, force: bool = False) -> Iterator[BinaryIO]:
    """A binary file that gets its name when all of it is on disk.

    Until then it has no name at all where the system can do that (Linux), so that even a killed
    process leaves nothing behind; elsewhere it is a hidden file in the same folder, deleted on
    any exception. ``-`` is standard output, which is written as it comes.

    Raises
    ------
    UsageError
        See `check_writable`.
    CalibError
        The disk is full, or cannot be written. Nothing is left behind.
    """
    check_writable(path, force=force)
    if path == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = Path(path).resolve()
    try:
        pending = _Pending(target)
        try:
            yield pending.file
            pending.publish(force=force)
        finally:
            pending.discard()
    except FileExistsError as error:
        raise UsageError(f"{path}: exists by now; --force replaces it") from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise CalibError(f"{path}: {os.strerror(error.errno)}; nothing was written") from error


def _open_unnamed(folder: Path) -> int | None:
    """A new file without a name, where the system and the file system have that."""
    if not hasattr(os, "O_TMPFILE") or not Path("/proc/self/fd").is_dir():
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, NEW_FILE_MODE)
    except OSError:
        return None


class _Pending:
    """A file that is being written, in the folder of the target."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._hidden = target.with_name(f".{target.name}.{os.urandom(6).hex()}.tmp")
        descriptor = _open_unnamed(target.parent)
        self._named = descriptor is None
        if descriptor is None:
            descriptor = os.open(self._hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR, NEW_FILE_MODE)
        self._unnamed = f"/proc/self/fd/{descriptor}"
        self.file: BinaryIO = os.fdopen(descriptor, "w+b")

    def publish(self, *, force: bool) -> None:
        """Bring everything to disk and give it its name."""
        self.file.flush()
        os.fsync(self.file.fileno())
        folder = os.open(self._target.parent, os.O_RDONLY)
        try:
            if force:
                self._link(self._hidden, folder)
                self._hidden.replace(self._target)
            else:
                # Unlike a rename, a link never takes the place of a file.
                self._link(self._target, folder)
            os.fsync(folder)
        finally:
            os.close(folder)

    def _link(self, name: Path, folder: int) -> None:
        if not self._named:
            # Only with a folder's descriptor is this the call that can name a nameless file.
            os.link(self._unnamed, name, src_dir_fd=folder, follow_symlinks=True)
        elif name != self._hidden:
            try:
                os.link(self._hidden, name)
            except OSError:
                # Some file systems have no links.
                if name.exists():
                    raise
                self._hidden.replace(name)

    def discard(self) -> None:
        """Forget everything that has no name yet."""
        with suppress(OSError):
            self.file.close()
        with suppress(FileNotFoundError):
            self._hidden.unlink()
