"""Files that appear under their names together, each of them complete, or not at all."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO, Self, TypeAlias

from calibcli.errors import UsageError
from calibcli.interrupts import check_interrupts, interrupts_held, note_files
from calibcli.tables.locations import is_url
from calibcli.tables.pending_files import (
    STDOUT_NAME,
    NamedFile,
    PendingFile,
    locked,
    resolved_target,
)

if TYPE_CHECKING:
    from calibcli.tables.part_folders import PendingFolder
    from calibcli.tables.remote_files import RemoteFile

STDOUT = "-"

_Pending: TypeAlias = "PendingFile | RemoteFile | PendingFolder"


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
    if is_url(path):
        from calibcli.tables.remote_files import check_remote

        check_remote(path, force=force)
        return
    try:
        target = resolved_target(path)
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
        It is standard output or on an object store, or as of `check_writable`; a file that exists
        is fine.
    """
    if path == STDOUT:
        raise UsageError("lines are appended to a file; standard output is none")
    if is_url(path):
        raise UsageError(f"{path}: lines are appended to a file; an object store has none to hold")
    check_writable(path, force=True)


class Outputs:
    """The files of a command, which appear together when the context is left without an error.

    Until then they have no name where the system can do that (Linux), so that even a killed process
    leaves nothing behind; elsewhere they are hidden files in the folders of the targets. All of
    them are on disk before the first one gets its name. They get their names in one short step,
    during which signals wait, in the order in which they were opened, those with `last` behind the
    others; where one of them fails, those before it are taken back. A process that is killed within
    that step can leave some of the files, each of them complete, and hidden ones, which the next
    command that writes to the same folder removes. Files of an object store are uploaded in that
    step.

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
        self._appended: list[tuple[str, bytes]] = []
        self._streams: list[BinaryIO] = []
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
        pending = _remote(path) if is_url(path) else PendingFile(path, resolved_target(path))
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

    def folder(self, path: str) -> PendingFolder:
        """A folder of parts to write to.

        Raises
        ------
        UsageError
            See `check_folder`.
        CalibError
            It cannot be created.
        """
        from calibcli.tables.part_folders import check_folder, pending_folder

        check_folder(path, force=self._force)
        pending = pending_folder(path)
        self._pending.append(pending)
        return pending

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
                target = resolved_target(path)
                content = locks.enter_context(locked(path, target)).read()
                pending = PendingFile(path, target, replaces=True)
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


def _remote(path: str) -> RemoteFile:
    from calibcli.tables.remote_files import RemoteFile

    return RemoteFile(path)


@contextmanager
def atomic_write(path: str, *, force: bool = False) -> Iterator[BinaryIO]:
    """A binary file that gets its name when all of it is on disk: `Outputs` of one file."""
    with Outputs(force=force) as outputs:
        yield outputs.open(path)


def _standard_output() -> BinaryIO:
    """Standard output for bytes; what was printed before comes first."""
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, AttributeError):  # it was replaced by something in memory
        return sys.stdout.buffer
    return io.BufferedWriter(NamedFile(descriptor, STDOUT_NAME, closefd=False))
