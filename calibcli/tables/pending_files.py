"""A file that is being written: it has no name, or a hidden one, until it gets its own."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from calibcli.errors import CalibError, UsageError

NEW_FILE_MODE = 0o666  # cut by the umask, as for any new file
STDOUT_NAME = "standard output"
_FOR_A_LOOK = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags to open whatever has a hidden name without following or waiting."""
_HIDDEN, _HIDDEN_END = ".calib-", ".tmp"
"""Around the random part of a name that a file has before it gets its own. It is short, since a
name may be as long as the file system allows."""


def resolved_target(path: str) -> Path:
    """The file that a path is, through links; raises OSError where they go round in circles."""
    try:
        target = Path(path).resolve()
    except RuntimeError as error:  # how Python 3.11 and 3.12 put it
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from error
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return target


class NamedFile(io.FileIO):
    """A file whose failures say which file it is, whoever writes to it."""

    def __init__(self, descriptor: int, shown: str, *, closefd: bool = True) -> None:
        super().__init__(descriptor, "r+b" if closefd else "wb", closefd=closefd)
        self._shown, self.has_failed = shown, False

    def write(self, content: Any) -> int:
        """Write, and put the file's name to the first failure; a closed pipe stays one.

        After it nothing is written: whoever buffers would try once more when the file is forgotten.
        """
        if self.has_failed:
            return len(memoryview(content).cast("B"))
        try:
            return super().write(content)
        except BrokenPipeError:
            self.has_failed = True
            raise
        except OSError as error:
            self.has_failed = True
            cannot_write(self._shown, error)


def cannot_write(path: str, error: OSError) -> NoReturn:
    """Raise the error of the system as a line about an output."""
    problem = os.strerror(error.errno) if error.errno else str(error)
    undone = "" if path == STDOUT_NAME else "; nothing was written"
    raise CalibError(f"{path}: {problem}{undone}") from error


def _open_unnamed(folder: Path) -> int | None:
    """A new file without a name, where the system and the file system have that."""
    if not hasattr(os, "O_TMPFILE") or not Path("/proc/self/fd").is_dir():
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, NEW_FILE_MODE)
    except OSError:
        return None


def hidden_name(folder: Path) -> Path:
    """A new name in a folder, for what has not got its own yet."""
    return folder / f"{_HIDDEN}{os.urandom(6).hex()}{_HIDDEN_END}"


def lock(descriptor: int) -> bool:
    """Mark an open file as being written, for `sweep` of other processes; False if one has."""
    try:
        import fcntl
    except ImportError:  # not on this system
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sweep(folder: Path) -> None:
    """Remove the hidden files, and folders of parts, that a killed process left in a folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_HIDDEN) and entry.name.endswith(_HIDDEN_END):
                with suppress(OSError):
                    descriptor = os.open(entry.path, _FOR_A_LOOK)
                    try:
                        if lock(descriptor) and entry.is_dir(follow_symlinks=False):
                            shutil.rmtree(entry.path)
                        elif lock(descriptor):
                            Path(entry.path).unlink()
                    finally:
                        os.close(descriptor)


@contextmanager
def locked(path: str, target: Path) -> Iterator[BinaryIO]:
    """A file that nobody else can append to meanwhile; an empty one where there is none.

    Whoever appends to a file replaces it. Hence a lock that was waited for may be one of a file
    that has lost its name; then the one that has the name is waited for.
    """
    while True:
        try:
            file = os.open(target, os.O_RDONLY | os.O_CREAT, NEW_FILE_MODE)
        except OSError as error:
            cannot_write(path, error)
        with os.fdopen(file, "rb") as content:
            _wait_for_lock(path, file)
            if not _is_at(target, file):
                continue
            try:
                yield content
            finally:
                if not os.fstat(file).st_size and _is_at(target, file):
                    target.unlink()
            return


def _wait_for_lock(path: str, descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # not on this system
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        cannot_write(path, error)


def _is_at(target: Path, descriptor: int) -> bool:
    """Whether an open file is the one that has a name."""
    try:
        return os.path.samestat(target.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


class PendingFile:
    """A file that is being written, in the folder of the target.

    Parameters
    ----------
    path : str
        As the user named it.
    target : Path
        The same, through links.
    replaces : bool
        Whether it takes the place of a file, even where no other file may.
    """

    def __init__(self, path: str, target: Path, *, replaces: bool = False) -> None:
        self.path, self._target, self.replaces = path, target, replaces
        self._hidden: Path | None = None
        self._replaced: Path | None = None
        self._replaced_file: int | None = None
        self._can_be_undone = True
        sweep(target.parent)
        descriptor = _open_unnamed(target.parent)
        self._named = descriptor is None
        if descriptor is None:
            self._hidden = hidden_name(target.parent)
            try:
                descriptor = os.open(
                    self._hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR, NEW_FILE_MODE
                )
            except FileNotFoundError:
                # As in /proc: the folder is there, but the name cannot be.
                raise UsageError(f"{path}: {target.parent} is no folder for new files") from None
            except OSError as error:
                cannot_write(path, error)
        lock(descriptor)
        self._unnamed = f"/proc/self/fd/{descriptor}"
        self._raw = NamedFile(descriptor, path)
        self.file: BinaryIO = io.BufferedRandom(self._raw)

    def bring_to_disk(self) -> None:
        """Write what is in buffers, the system's included."""
        self.file.flush()
        if self._raw.has_failed:
            cannot_write(self.path, OSError(errno.EIO, ""))
        try:
            os.fsync(self.file.fileno())
        except OSError as error:
            cannot_write(self.path, error)

    def give_name(self, *, force: bool) -> None:
        """Put the file under its name, in place of one that is there if `force` is set."""
        try:
            if force:
                self._keep_replaced()
                if self._hidden is None:
                    self._hidden = hidden_name(self._target.parent)
                    self._link(self._hidden)
                self._hidden.replace(self._target)
                self._hidden = None
            else:
                # Unlike a rename, a link never takes the place of a file.
                self._link(self._target)
        except FileExistsError as error:
            raise UsageError(f"{self.path}: exists by now; --force replaces it") from error
        except OSError as error:
            cannot_write(self.path, error)

    def _keep_replaced(self) -> None:
        """Give the file that is there a second name, from which it can be had back."""
        if not self._target.exists():
            return
        # Where there are no links it cannot be had back.
        self._can_be_undone = False
        with suppress(OSError):
            self._replaced_file = os.open(self._target, os.O_RDONLY)
            lock(self._replaced_file)
        with suppress(OSError):
            hidden = hidden_name(self._target.parent)
            os.link(self._target, hidden)
            self._replaced = hidden
            self._can_be_undone = True

    def _link(self, name: Path) -> None:
        if not self._named:
            # Only with a folder's descriptor is this the call that can name a nameless file.
            folder = os.open(name.parent, os.O_RDONLY)
            try:
                os.link(self._unnamed, name, src_dir_fd=folder, follow_symlinks=True)
            finally:
                os.close(folder)
            return
        assert self._hidden is not None
        try:
            os.link(self._hidden, name)
        except OSError:
            # Some file systems have no links.
            if name.exists():
                raise
            self._hidden.replace(name)
            self._hidden = None

    def take_back(self) -> None:
        """Undo `give_name`."""
        with suppress(OSError):
            if self._replaced is not None:
                self._replaced.replace(self._target)
                self._replaced = None
            elif self._can_be_undone:
                self._target.unlink()

    def settle(self) -> None:
        """Bring the name to disk; what was replaced is gone."""
        self._forget_replaced()
        with suppress(OSError):
            folder = os.open(self._target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _forget_replaced(self) -> None:
        if self._replaced is not None:
            with suppress(OSError):
                self._replaced.unlink()
            self._replaced = None
        if self._replaced_file is not None:
            os.close(self._replaced_file)
            self._replaced_file = None

    def discard(self) -> None:
        """Forget everything that has no name yet."""
        with suppress(OSError, CalibError):
            self.file.close()
        self._forget_replaced()
        if self._hidden is not None:
            with suppress(OSError):
                self._hidden.unlink()
