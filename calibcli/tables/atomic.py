"""Files that appear under their names together, each of them complete, or not at all."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Self

from calibcli.errors import CalibError, UsageError
from calibcli.interrupts import check_interrupts, interrupts_held, note_files

STDOUT = "-"
NEW_FILE_MODE = 0o666  # cut by the umask, as for any new file
_STDOUT_NAME = "standard output"
_FOR_A_LOOK = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags to open whatever has a hidden name without following or waiting."""
_HIDDEN, _HIDDEN_END = ".calib-", ".tmp"
"""Around the random part of a name that a file has before it gets its own. It is short, since a
name may be as long as the file system allows."""


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
        The name is empty, the file exists, is a folder or a device, or its folder is not there or
        not writable.
    """
    if path == STDOUT:
        return
    if not path:
        raise UsageError("an output has an empty name; give it one, or - for standard output")
    try:
        target = _target(path)
        mode = target.stat().st_mode if target.exists() else None
    except OSError as error:
        raise UsageError(f"{path}: {os.strerror(error.errno or 0)}") from None
    if mode is not None and stat.S_ISDIR(mode):
        raise UsageError(f"{path}: is a folder; give the name of a file in it")
    if mode is not None and not stat.S_ISREG(mode):
        raise UsageError(f"{path}: is not a regular file")
    if mode is not None and not force:
        raise UsageError(f"{path}: exists already; --force replaces it")
    if not target.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: the folder {target.parent} is not writable")


def check_appendable(path: str) -> None:
    """Refuse a path to which no lines could be appended at the end.

    Raises
    ------
    UsageError
        It is standard output, or as of `check_writable`; a file that exists is fine.
    """
    if path == STDOUT:
        raise UsageError("lines are appended to a file; standard output is none")
    check_writable(path, force=True)


def _target(path: str) -> Path:
    """The file that a path is, through links; raises OSError where they go round in circles."""
    try:
        target = Path(path).resolve()
    except RuntimeError as error:  # how Python 3.11 and 3.12 put it
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from error
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return target


class Outputs:
    """The files of a command, which appear together when the context is left without an error.

    Until then they have no name where the system can do that (Linux), so that even a killed process
    leaves nothing behind; elsewhere they are hidden files in the folders of the targets. All of
    them are on disk before the first one gets its name. They get their names in one short step,
    during which signals wait, in the order in which they were opened, those with `last` behind the
    others; where one of them fails, those before it are taken back. A process that is killed within
    that step can leave some of the files, each of them complete, and hidden ones, which the next
    command that writes to the same folder removes.

    Parameters
    ----------
    force : bool
        Whether files that exist may be replaced.

    Attributes
    ----------
    left_out : dict of str to tuple of str
        By the path of a file the columns of the input that its format cannot hold.

    Raises
    ------
    UsageError
        A file has appeared meanwhile, and `force` is not set.
    CalibError
        The disk is full, or cannot be written. Nothing is left behind.
    """

    def __init__(self, *, force: bool = False) -> None:
        self._force = force
        self._pending: list[_Pending] = []
        self._final: list[_Pending] = []
        self._streams: list[BinaryIO] = []
        self._appended: list[tuple[str, bytes]] = []
        self.left_out: dict[str, tuple[str, ...]] = {}

    def open(self, path: str, *, last: bool = False) -> BinaryIO:
        """A file to write to; ``-`` is standard output, which is written as it comes.

        Parameters
        ----------
        path : str
        last : bool
            Whether the file is to appear after the others, as one that speaks of them.

        Raises
        ------
        UsageError
            See `check_writable`.
        CalibError
            The file cannot be created.
        """
        check_writable(path, force=self._force)
        if path == STDOUT:
            stream = _standard_output()
            self._streams.append(stream)
            return stream
        pending = _Pending(path, _target(path))
        (self._final if last else self._pending).append(pending)
        return pending.file

    def append(self, path: str, lines: bytes) -> None:
        """Lines for the end of a file, which need not be there yet; it appears after the others.

        What the file holds is read when the files get their names, and nobody else can append to
        it within that step: of several commands at once none loses the lines of another.

        Parameters
        ----------
        path : str
            See `check_appendable`.
        lines : bytes
            They end with a line break.
        """
        self._appended.append((path, lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            for pending in (*self._pending, *self._final):
                pending.discard()

    def _publish(self) -> None:
        """Bring everything to disk, then give all files their names."""
        for stream in self._streams:
            stream.flush()
        with ExitStack() as locks:
            for path, lines in self._appended:
                target = _target(path)
                content = locks.enter_context(_locked(path, target)).read()
                pending = _Pending(path, target, replaces=True)
                self._final.append(pending)
                ended = not content or content.endswith(b"\n")
                pending.file.write(content + (b"" if ended else b"\n") + lines)
            self._give_names()

    def _give_names(self) -> None:
        files = [*self._pending, *self._final]
        for pending in files:
            pending.bring_to_disk()
        check_interrupts()
        with interrupts_held():
            named: list[_Pending] = []
            try:
                for pending in files:
                    pending.give_name(force=self._force or pending.replaces)
                    named.append(pending)
            except BaseException:
                for pending in reversed(named):
                    pending.take_back()
                raise
            for pending in named:
                pending.settle()
            note_files([pending.path for pending in files])


@contextmanager
def atomic_write(path: str, *, force: bool = False) -> Iterator[BinaryIO]:
    """A binary file that gets its name when all of it is on disk: `Outputs` of one file."""
    with Outputs(force=force) as outputs:
        yield outputs.open(path)


class _NamedFile(io.FileIO):
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
            _cannot_write(self._shown, error)


def _cannot_write(path: str, error: OSError) -> NoReturn:
    problem = os.strerror(error.errno) if error.errno else str(error)
    undone = "" if path == _STDOUT_NAME else "; nothing was written"
    raise CalibError(f"{path}: {problem}{undone}") from error


def _standard_output() -> BinaryIO:
    """Standard output for bytes; what was printed before comes first."""
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, AttributeError):  # it was replaced by something in memory
        return sys.stdout.buffer
    return io.BufferedWriter(_NamedFile(descriptor, _STDOUT_NAME, closefd=False))


def _open_unnamed(folder: Path) -> int | None:
    """A new file without a name, where the system and the file system have that."""
    if not hasattr(os, "O_TMPFILE") or not Path("/proc/self/fd").is_dir():
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, NEW_FILE_MODE)
    except OSError:
        return None


def _hidden_name(folder: Path) -> Path:
    return folder / f"{_HIDDEN}{os.urandom(6).hex()}{_HIDDEN_END}"


def _lock(descriptor: int) -> bool:
    """Mark an open file as being written, for `_sweep` of other processes; False if one has."""
    try:
        import fcntl
    except ImportError:  # not on this system
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _locked(path: str, target: Path) -> Iterator[BinaryIO]:
    """A file that nobody else can append to meanwhile; an empty one where there is none.

    Whoever appends to a file replaces it. Hence a lock that was waited for may be one of a file
    that has lost its name; then the one that has the name is waited for.
    """
    while True:
        try:
            file = os.open(target, os.O_RDONLY | os.O_CREAT, NEW_FILE_MODE)
        except OSError as error:
            _cannot_write(path, error)
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
        _cannot_write(path, error)


def _is_at(target: Path, descriptor: int) -> bool:
    """Whether an open file is the one that has a name."""
    try:
        return os.path.samestat(target.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sweep(folder: Path) -> None:
    """Remove the hidden files that a killed process left in a folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_HIDDEN) and entry.name.endswith(_HIDDEN_END):
                with suppress(OSError):
                    descriptor = os.open(entry.path, _FOR_A_LOOK)
                    try:
                        if _lock(descriptor):
                            Path(entry.path).unlink()
                    finally:
                        os.close(descriptor)


class _Pending:
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
        _sweep(target.parent)
        descriptor = _open_unnamed(target.parent)
        self._named = descriptor is None
        if descriptor is None:
            self._hidden = _hidden_name(target.parent)
            try:
                descriptor = os.open(
                    self._hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR, NEW_FILE_MODE
                )
            except FileNotFoundError:
                # As in /proc: the folder is there, but the name cannot be.
                raise UsageError(f"{path}: {target.parent} is no folder for new files") from None
            except OSError as error:
                _cannot_write(path, error)
        _lock(descriptor)
        self._unnamed = f"/proc/self/fd/{descriptor}"
        self._raw = _NamedFile(descriptor, path)
        self.file: BinaryIO = io.BufferedRandom(self._raw)

    def bring_to_disk(self) -> None:
        """Write what is in buffers, the system's included."""
        self.file.flush()
        if self._raw.has_failed:
            _cannot_write(self.path, OSError(errno.EIO, ""))
        try:
            os.fsync(self.file.fileno())
        except OSError as error:
            _cannot_write(self.path, error)

    def give_name(self, *, force: bool) -> None:
        """Put the file under its name, in place of one that is there if `force` is set."""
        try:
            if force:
                self._keep_replaced()
                if self._hidden is None:
                    self._hidden = _hidden_name(self._target.parent)
                    self._link(self._hidden)
                self._hidden.replace(self._target)
                self._hidden = None
            else:
                # Unlike a rename, a link never takes the place of a file.
                self._link(self._target)
        except FileExistsError as error:
            raise UsageError(f"{self.path}: exists by now; --force replaces it") from error
        except OSError as error:
            _cannot_write(self.path, error)

    def _keep_replaced(self) -> None:
        """Give the file that is there a second name, from which it can be had back."""
        if not self._target.exists():
            return
        # Where there are no links it cannot be had back.
        self._can_be_undone = False
        with suppress(OSError):
            self._replaced_file = os.open(self._target, os.O_RDONLY)
            _lock(self._replaced_file)
        with suppress(OSError):
            hidden = _hidden_name(self._target.parent)
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
