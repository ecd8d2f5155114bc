"""The list of files that the user typed: globs, folders, hive partitions, URLs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from calibcli.errors import DataError, UsageError
from calibcli.params import STDIN
from calibcli.small_files import LARGEST_TEXT, read_small
from calibcli.tables.formats.registry import COMPRESSIONS, STORES, SUFFIXES, TEXT_SUFFIXES
from calibcli.tables.manifest import MANIFEST, decode_manifest, whole_parts

STDIN_NAME = "standard input"
"""What messages call it."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_LOCAL_URL = "file:"
_HIVE = re.compile(r"([^=/]+)=([^/]*)")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class HiveKey:
    """A ``key=value`` folder: a column with one value in the whole file.

    Attributes
    ----------
    name : str
    value : int, str or None
    whole : bool
        Whether the values of this key are whole numbers, in all files.
    """

    name: str
    value: int | str | None
    whole: bool = False


@dataclass(frozen=True)
class Location:
    """A file, and how to open it again in any process.

    Attributes
    ----------
    name : str
        As the user knows it.
    path : str
        On the local machine, or within the file system of ``url``.
    url : str or None
        From which the file system is made; None for a local file.
    keys : tuple of HiveKey
        Hive partition keys in the path.
    original : Location or None
        The file that it was made of, where it is a decompressed or converted copy.
    """

    name: str
    path: str
    url: str | None = None
    keys: tuple[HiveKey, ...] = ()
    original: Location | None = None

    def copied_to(self, path: str) -> Location:
        """The same rows in a temporary file, which says where they are from."""
        return Location(self.name, path, None, self.keys, self.original or self)

    def files(self) -> list[Location]:
        """The file itself; of a folder that is a store all files in it, by their paths."""
        path = Path(self.path)
        if self.url is not None or not path.is_dir():
            return [self]
        inside = sorted(each for each in path.rglob("*") if each.is_file())
        return [Location(each.relative_to(path).as_posix(), str(each)) for each in inside]

    def open(self) -> Any:
        """The file for reading: a `pyarrow.NativeFile`, or a plain file if it is local."""
        try:
            if self.url is None:
                return Path(self.path).open("rb")
            return filesystem(self.url)[0].open_input_file(self.path)
        except OSError as error:
            raise cannot_read(self.name, error) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut: some libraries write pages, or whole buffers."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


_LONGEST = 240
"""Characters."""


def cannot_read(name: str, error: BaseException) -> DataError:
    """The error for a file that cannot be opened."""
    reason = getattr(error, "strerror", None) or first_line(error)
    return DataError(f"{name}: cannot be read ({reason})")


@lru_cache(maxsize=32)
def filesystem(url: str) -> tuple[Any, str]:
    """The `pyarrow.fs.FileSystem` of a URL, and the path within it.

    Raises
    ------
    UsageError
        The scheme is not known, or the store cannot be reached.
    """
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    try:
        system, path = FileSystem.from_uri(url)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{url}: cannot be opened ({first_line(error)})") from error
    return system, path


def is_url(path: str) -> bool:
    """Whether a path is the address of something on an object store."""
    return bool(_URL.match(path)) and not path.lower().startswith(_LOCAL_URL)


def without_options(path: str) -> str:
    """A path, or an address without what follows its ``?``."""
    return path.partition("?")[0] if is_url(path) else path


def is_folder(path: str) -> bool:
    """Whether an output is to be a folder of parts: its name ends with a slash."""
    return without_options(path).endswith(("/", os.sep))


def is_inside(file: str, folder: str) -> bool:
    """Whether a file is in a folder, both as the user named them."""
    if is_url(folder):
        return without_options(file).startswith(without_options(folder))
    return not is_url(file) and Path(file).resolve().is_relative_to(Path(folder).resolve())


def read_remote(system: Any, path: str, shown: str) -> bytes:
    """All bytes of a small file of an object store.

    Raises
    ------
    DataError
        It cannot be read, or is larger than can be meant.
    """
    try:
        with system.open_input_file(path) as file:
            if file.size() > LARGEST_TEXT:
                raise DataError(f"{shown}: has more than {LARGEST_TEXT >> 20} MB")
            content: bytes = file.read()
    except OSError as error:
        raise cannot_read(shown, error) from error
    return content


def expand(inputs: Sequence[str]) -> list[Location]:
    """The files that some inputs stand for, in the given order.

    Globs and folders give their files sorted by path, and the ``key=value`` folders below them
    become columns of Parquet and Arrow files. In a folder, files are passed over whose own name or
    whose folder's name starts with ``.`` or ``_``; where ``calib apply`` has written it, these are
    all that its manifest doesn't name. ``-`` is kept as it is.

    Raises
    ------
    UsageError
        There is no input, ``-`` is there twice, or the scheme of a URL is not known.
    DataError
        A file or folder does not exist, holds no data file, or not all of its parts.
    """
    if "" in inputs:
        raise UsageError("an input has an empty name; give a file, or - for standard input")
    if not inputs:
        raise UsageError("no input file was given")
    if list(inputs).count(STDIN) > 1:
        raise UsageError("standard input (-) can be read only once")
    # A pattern that a shell has expanded names it among the parts.
    files = [text for text in inputs if PurePosixPath(text).name != MANIFEST] or inputs
    return _typed_keys([each for text in files for each in _expand_one(text)])


def _expand_one(text: str) -> list[Location]:
    if text == STDIN:
        return [Location(STDIN, STDIN)]
    if not _URL.match(text):
        return _expand_local(text)
    from pyarrow.fs import LocalFileSystem

    # A wildcard is no part of a URL, so the file system is made from what is before it. A `?`
    # is no wildcard here: it begins the options of the store.
    wildcard = re.search(r"[*\[]", text)
    base = text if wildcard is None else text[: text.rindex("/", 0, wildcard.start()) + 1]
    pattern = text[len(base) :]
    system, path = filesystem(base)
    if isinstance(system, LocalFileSystem):
        return _expand_local(f"{path.rstrip('/')}/{pattern}" if pattern else path)
    return _expand_remote(base, pattern, system, path.rstrip("/"))


def _expand_local(text: str) -> list[Location]:
    path = Path(text)
    if path.is_dir():
        if is_store(path):
            return [Location(text, str(path))]
        _refuse_table_log(text, path.resolve())
        manifest = path / MANIFEST
        if manifest.is_file():
            parts = decode_manifest(read_small(manifest), str(manifest))
            sizes = {each.name: each.stat().st_size for each in path.iterdir()}
            files = [str(path / name) for name in whole_parts(parts, sizes, text)]
            return [Location(each, each) for each in files]
        inside = list(path.rglob("*"))
        stores = {each.parent for each in inside if each.name in STORES}
        outside = [each for each in inside if each.is_file() and stores.isdisjoint(each.parents)]
        files = _data_files([str(file) for file in outside], str(path)) or sorted(
            str(store) for store in stores if stores.isdisjoint(store.parents)
        )
        if not files:
            listed = ", ".join((*SUFFIXES, *TEXT_SUFFIXES))
            raise DataError(f"{text}: the folder holds no data file ({listed})")
        return [Location(each, each, None, _keys(each[len(str(path)) :])) for each in files]
    if path.exists():
        return [Location(text, str(path))]
    if has_magic(text):
        paths = glob(text, recursive=True)  # noqa: PTH207 (a `Path` cannot: the text may be absolute)
        paths = [path for path in paths if Path(path).name != MANIFEST]
        matches = sorted(path for path in paths if Path(path).is_file() or is_store(Path(path)))
        if not matches:
            raise DataError(f"{text}: no file matches")
        for folder in sorted({Path(each).resolve().parent for each in matches}):
            _refuse_table_log(text, folder)
        return [Location(each, each, None, _keys(each)) for each in matches]
    raise DataError(f"{text}: there is no such file")


def _expand_remote(base: str, pattern: str, system: Any, path: str) -> list[Location]:
    from pyarrow.fs import FileSelector, FileType

    try:
        if not pattern and system.get_file_info(path).type == FileType.File:
            return [Location(base, path, base)]
        inside = system.get_file_info(FileSelector(path, recursive=True))
    except OSError as error:
        raise cannot_read(base, error) from error
    files = [one.path for one in inside if one.type == FileType.File]
    if any(PurePosixPath(file).name in STORES for file in files):
        raise DataError(f"{base}{pattern}: is a Zarr store; copy it to this machine first")
    before = without_options(base).rstrip("/")
    if not pattern and f"{path}/{MANIFEST}" in files:
        shown = f"{before}/{MANIFEST}"
        parts = decode_manifest(read_remote(system, f"{path}/{MANIFEST}", shown), shown)
        sizes = {each.path[len(path) + 1 :]: each.size for each in inside}
        files = [f"{path}/{name}" for name in whole_parts(parts, sizes, base)]
    elif pattern:
        files = sorted(file for file in files if fnmatchcase(file, f"{path}/{pattern}"))
    else:
        files = _data_files(files, path)
    if not files:
        raise DataError(f"{base}{pattern}: no data file is there")
    below = [file[len(path) :].lstrip("/") for file in files]
    return [
        Location(f"{before}/{inner}", file, base, _keys(inner))
        for file, inner in zip(files, below, strict=True)
    ]


@dataclass(frozen=True)
class _TableLog:
    """A kind of table whose log says which of its files count.

    Attributes
    ----------
    name : str
    mark : str
        Regular expression of the part of a path that tells it.
    recipe : str
        How to write what counts to one file; ``{folder}`` is the table.
    """

    name: str
    mark: str
    recipe: str


_TABLE_LOGS = (
    _TableLog(
        "a Delta table",
        r"(^|/)_delta_log/",
        "duckdb -c \"COPY (FROM delta_scan('{folder}')) TO 'rows.parquet'\"",
    ),
    _TableLog(
        "an Iceberg table",
        r"(^|/)metadata/[^/]*\.metadata\.json$",
        "duckdb -c \"COPY (FROM iceberg_scan('{folder}')) TO 'rows.parquet'\"",
    ),
    _TableLog(
        "a Hudi table",
        r"(^|/)\.hoodie/",
        "spark.read.format('hudi').load('{folder}').write.parquet('rows')",
    ),
)


def _refuse_table_log(shown: str, folder: Path) -> None:
    """Refuse a folder of a table with a log, in which files are that count no more.

    Raises
    ------
    DataError
        The folder, or one above it, is such a table.
    """
    for each in (folder, *folder.parents):
        inside = [f"{name}/" for name in ("_delta_log", ".hoodie") if (each / name).is_dir()]
        if (each / "metadata").is_dir():
            inside += [f"metadata/{path.name}" for path in (each / "metadata").glob("*.json")]
        _refuse_logs_among(inside, shown, str(each))


def _refuse_logs_among(paths: Sequence[str], shown: str, folder: str) -> None:
    for log in _TABLE_LOGS:
        if any(re.search(log.mark, path) for path in paths):
            raise DataError(
                f"{shown}: is {log.name}, some of whose files hold rows that were deleted or "
                f"replaced; write those that count to a file first: "
                f"{log.recipe.format(folder=folder)}"
            )


def is_store(path: Path) -> bool:
    """Whether a folder is a store of arrays, which is read as one file is."""
    return path.is_dir() and any((path / mark).is_file() for mark in STORES)


def _data_files(paths: Sequence[str], folder: str) -> list[str]:
    _refuse_logs_among([path[len(folder) :].lstrip("/") for path in paths], folder, folder)

    def wanted(path: str, suffixes: tuple[str, ...]) -> bool:
        inside = PurePosixPath(path[len(folder) :].lstrip("/"))
        hidden = any(part.startswith((".", "_")) and "=" not in part for part in inside.parts)
        if inside.suffix.lower() in COMPRESSIONS:
            inside = inside.with_suffix("")
        return inside.suffix.lower() in suffixes and not hidden

    binary = [path for path in paths if wanted(path, SUFFIXES)]
    return sorted(binary or [path for path in paths if wanted(path, TEXT_SUFFIXES)])


def _keys(path: str) -> tuple[HiveKey, ...]:
    """The ``key=value`` folders of a path, values as they are written."""
    folders = str(PurePosixPath(path).parent)
    return tuple(HiveKey(name, value) for name, value in _HIVE.findall(folders))


def _typed_keys(locations: list[Location]) -> list[Location]:
    """Hive keys as whole numbers where all values of a key are, as decoded strings elsewhere."""
    number = re.compile(rf"-?\d{{1,18}}|{_HIVE_NULL}")
    keys = [key for location in locations for key in location.keys]
    strings = {key.name for key in keys if not number.fullmatch(str(key.value))}

    def typed(key: HiveKey) -> HiveKey:
        whole = key.name not in strings
        if key.value == _HIVE_NULL:
            return HiveKey(key.name, None, whole)
        return HiveKey(key.name, int(str(key.value)) if whole else unquote(str(key.value)), whole)

    return [replace(each, keys=tuple(map(typed, each.keys))) for each in locations]
