"""Folders of parts that workers write, and that appear when all of them are there.

On a file system the parts are written into a hidden folder beside the target, which gets its name
in one step. An object store has no such step: there the parts come first, each under a name of its
own run, and the manifest that names them comes last and replaces the one before it in one step.
"""

from __future__ import annotations

import ctypes
import io
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from calibcli.errors import CalibError, UsageError
from calibcli.tables.locations import filesystem, is_url, read_remote
from calibcli.tables.manifest import (
    MANIFEST,
    PART_NAME,
    WrittenPart,
    encode_manifest,
    whole_parts,
)
from calibcli.tables.pending_files import (
    NEW_FILE_MODE,
    NamedFile,
    cannot_write,
    hidden_name,
    lock,
    resolved_target,
    sweep,
)
from calibcli.tables.remote_files import remote_sizes, temporary_file, upload


def check_folder(path: str, *, force: bool) -> None:
    """Refuse a folder that could not be written at the end, before any work is done for it.

    Parameters
    ----------
    path : str
        With a slash at its end.
    force : bool
        Whether a folder of parts that is there may be replaced.

    Raises
    ------
    UsageError
        It is there already, or holds something else, or the folder above it is not there.
    """
    if is_url(path):
        names = set(remote_sizes(path))
    else:
        try:
            target = resolved_target(path)
        except OSError as error:
            raise UsageError(f"{path}: {os.strerror(error.errno or 0)}") from None
        if not target.parent.is_dir():
            raise UsageError(f"{path}: there is no folder {target.parent}")
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise UsageError(f"{path}: the folder {target.parent} is not writable")
        if target.exists() and not target.is_dir():
            raise UsageError(f"{path}: is a file")
        names = _local_names(target)
    if not names:
        return
    if MANIFEST not in names or not all(PART_NAME.fullmatch(each) for each in names - {MANIFEST}):
        raise UsageError(f"{path}: other files are in it; give the name of a new folder")
    if not force:
        raise UsageError(f"{path}: exists already; --force replaces it")


def _local_names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()} if folder.is_dir() else set()


class PartPlace(Protocol):
    """Where parts are written: a description, which another process can use."""

    def open(self, name: str) -> Any:
        """A context manager of a binary file, which is a part of that name when it is left.

        Written twice, a part is there once. Left by an error, it is not there.

        Raises
        ------
        CalibError
            It cannot be written.
        """


@dataclass(frozen=True)
class LocalPlace:
    """A folder of a file system that all workers see; a `PartPlace`."""

    folder: str
    shown: str

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """See `PartPlace.open`."""
        target = Path(self.folder, name)
        hidden = hidden_name(target.parent)
        shown = f"{self.shown}{name}"
        try:
            descriptor = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR, NEW_FILE_MODE)
        except FileNotFoundError:
            raise CalibError(
                f"{shown}: the folder that it is written in is not seen by a worker; all of them "
                "need one file system, or an object store"
            ) from None
        except OSError as error:
            cannot_write(shown, error)
        try:
            with io.BufferedRandom(NamedFile(descriptor, shown)) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(target)
        finally:
            with suppress(OSError):
                hidden.unlink()


@dataclass(frozen=True)
class RemotePlace:
    """A prefix of an object store; a `PartPlace`.

    A part is written to a temporary file of the worker first, since an upload that ends early would
    be taken for a whole one.
    """

    url: str

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """See `PartPlace.open`."""
        shown = f"{self.url}{name}"
        with temporary_file(shown) as file:
            yield file
            system, folder = filesystem(self.url)
            upload(file, system, f"{folder.rstrip('/')}/{name}", shown)


class PendingFolder(ABC):
    """A folder of parts that is being written.

    Parameters
    ----------
    path : str
        As the user named it.

    Attributes
    ----------
    place : PartPlace
        Where workers write parts.
    mark : str
        In the names of the parts, so that no run writes over those of another.
    """

    replaces = False
    place: PartPlace
    mark: str = ""

    def __init__(self, path: str) -> None:
        self.path = path
        self._parts: Sequence[WrittenPart] | None = None

    def part_names(self, count: int) -> list[str]:
        """What some parts are called; the names sort as the parts do."""
        digits = max(len(str(count - 1)), 5)
        return [f"part-{number:0{digits}d}{self.mark}.parquet" for number in range(count)]

    def add(self, parts: Sequence[WrittenPart]) -> None:
        """Say which parts it has, in the order of their rows."""
        self._parts = parts

    @property
    def parts(self) -> Sequence[WrittenPart]:
        """The parts that it has."""
        assert self._parts is not None
        return self._parts

    @abstractmethod
    def bring_to_disk(self) -> None:
        """See that all parts are there as they were written."""

    @abstractmethod
    def give_name(self, *, force: bool) -> None:
        """Let the folder appear with its parts, in place of one that is there if `force` is set."""

    @abstractmethod
    def take_back(self) -> None:
        """Undo `give_name`."""

    @abstractmethod
    def settle(self) -> None:
        """Remove what was replaced."""

    @abstractmethod
    def discard(self) -> None:
        """Forget everything that has not appeared."""


def pending_folder(path: str) -> PendingFolder:
    """A folder of parts, on a file system or an object store."""
    return RemoteFolder(path) if is_url(path) else LocalFolder(path)


class LocalFolder(PendingFolder):
    """A folder of a file system, hidden until it gets its name."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._target = resolved_target(path)
        sweep(self._target.parent)
        self._hidden: Path | None = hidden_name(self._target.parent)
        self._replaced: Path | None = None
        try:
            self._hidden.mkdir()
            # Held until the end, so that no other process takes it for left behind.
            self._descriptor = os.open(self._hidden, os.O_RDONLY)
        except OSError as error:
            cannot_write(path, error)
        lock(self._descriptor)
        self.place: PartPlace = LocalPlace(str(self._hidden), path)

    def bring_to_disk(self) -> None:
        """See `PendingFolder.bring_to_disk`; what a worker left that was given up is removed."""
        assert self._hidden is not None
        sizes = {each.name: each.stat().st_size for each in self._hidden.iterdir()}
        names = whole_parts(self.parts, sizes, self.path)
        for name in sizes.keys() - names:
            (self._hidden / name).unlink()
        with self.place.open(MANIFEST) as file:
            file.write(encode_manifest(self.parts))
        os.fsync(self._descriptor)

    def give_name(self, *, force: bool) -> None:
        """See `PendingFolder.give_name`."""
        assert self._hidden is not None
        try:
            check_folder(self.path, force=force)
            if not _local_names(self._target):
                # A rename takes the place of an empty folder.
                self._hidden.rename(self._target)
            elif _exchange(self._hidden, self._target):
                self._replaced = self._hidden
            else:
                self._replaced = hidden_name(self._target.parent)
                self._target.rename(self._replaced)
                self._hidden.rename(self._target)
        except OSError as error:
            cannot_write(self.path, error)
        self._hidden = None

    def take_back(self) -> None:
        """See `PendingFolder.take_back`."""
        with suppress(OSError):
            self._hidden = hidden_name(self._target.parent)
            self._target.rename(self._hidden)
            if self._replaced is not None:
                self._replaced.rename(self._target)
                self._replaced = None

    def settle(self) -> None:
        """See `PendingFolder.settle`."""
        if self._replaced is not None:
            shutil.rmtree(self._replaced, ignore_errors=True)
            self._replaced = None
        with suppress(OSError):
            above = os.open(self._target.parent, os.O_RDONLY)
            try:
                os.fsync(above)
            finally:
                os.close(above)

    def discard(self) -> None:
        """See `PendingFolder.discard`."""
        if self._hidden is not None:
            shutil.rmtree(self._hidden, ignore_errors=True)
        os.close(self._descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders swap their names in one step, where the system has that (Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


class RemoteFolder(PendingFolder):
    """A prefix of an object store, whose manifest says which parts count."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.place: PartPlace = RemotePlace(path)
        self._system, folder = filesystem(path)
        self._folder = folder.rstrip("/")
        self.mark = f"-{os.urandom(6).hex()}"
        self._committed = False
        place = f"{self._folder}/{MANIFEST}"
        is_there = MANIFEST in remote_sizes(path)
        self._earlier = read_remote(self._system, place, path + MANIFEST) if is_there else None
        if self._earlier is None:
            # Who reads meanwhile, or after this process was killed, must not take it for whole.
            self._write(encode_manifest(None))

    def _write(self, manifest: bytes) -> None:
        upload(
            io.BytesIO(manifest), self._system, f"{self._folder}/{MANIFEST}", self.path + MANIFEST
        )

    def bring_to_disk(self) -> None:
        """See `PendingFolder.bring_to_disk`."""
        whole_parts(self.parts, remote_sizes(self.path), self.path)

    def give_name(self, *, force: bool) -> None:
        """See `PendingFolder.give_name`."""
        if not force and self._earlier is not None:
            raise UsageError(f"{self.path}: exists already; --force replaces it")
        self._write(encode_manifest(self.parts))
        self._committed = True

    def take_back(self) -> None:
        """See `PendingFolder.take_back`."""
        with suppress(CalibError):
            self._write(self._earlier or encode_manifest(None))
            self._committed = False

    def settle(self) -> None:
        """See `PendingFolder.settle`."""
        kept = {part.name for part in self.parts}
        self._delete(name for name in remote_sizes(self.path) if name not in kept)

    def discard(self) -> None:
        """See `PendingFolder.discard`."""
        if self._committed:
            return
        with suppress(OSError, CalibError):
            self._delete(name for name in remote_sizes(self.path) if self.mark in name)
            if self._earlier is None:
                self._system.delete_file(f"{self._folder}/{MANIFEST}")

    def _delete(self, names: Iterator[str]) -> None:
        """Delete parts; what cannot be is no part of the folder for who reads its manifest."""
        for name in names:
            if PART_NAME.fullmatch(name):
                with suppress(OSError):
                    self._system.delete_file(f"{self._folder}/{name}")
