"""Which format a file has, by its first bytes; and the refusal of those that are not read."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import IO

from calibcli.errors import DataError
from calibcli.small_files import open_patiently
from calibcli.tables.formats.base import DataFile, pickled
from calibcli.tables.formats.registry import FORMATS, FileFormat, import_function
from calibcli.tables.locations import Location, cannot_read
from calibcli.tables.storage import Spool

_MAGIC_BYTES = 512
_PICKLES = (".p", ".pk", ".pkl", ".pickle", ".pt", ".pth", ".joblib", ".ckpt")
_HINTS = {
    b"\x1f\x8b": "it is compressed with gzip; decompress it first",
    b"\x28\xb5\x2f\xfd": "it is compressed with zstd; decompress it first",
    b"\x89HDF": "it is an HDF5 file; save its arrays as NPZ or Parquet",
    b"FEA1": "it is Feather version 1; write it again with version 2",
}


def sniff(head: bytes, name: str) -> FileFormat:
    """The format of a file.

    Parameters
    ----------
    head : bytes
        Its first bytes: eight or more, or all.
    name : str
        For messages, and its suffix for the hint in them.

    Raises
    ------
    DataError
        It is empty, a pickle, or in none of the formats that are read.
    """
    if not head:
        raise DataError(f"{name}: the file is empty")
    for each in FORMATS.values():
        if head.startswith(each.magic):
            return each
    suffix = PurePath(name).suffix.lower()
    # Protocols 2 to 5 begin like this; older ones are text, and joblib compresses.
    if suffix in _PICKLES or (head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5"):
        raise pickled(name)
    hint = next((hint for magic, hint in _HINTS.items() if head.startswith(magic)), None)
    if hint is None and _is_text(head):
        hint = (
            "it is text; convert CSV once, for example with pyarrow.csv.read_csv and "
            "pyarrow.parquet.write_table"
        )
    *titles, last = dict.fromkeys(each.title for each in FORMATS.values())
    known = f"{', '.join(titles)} and {last} are read"
    raise DataError(f"{name}: {hint or 'the format is not known'} ({known})")


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The last character may be cut in two.
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return text.isprintable() or all(char.isprintable() or char.isspace() for char in text)


def open_file(location: Location, spool: Spool) -> DataFile:
    """Look at a data file, of which nothing but its description is read.

    What a pipe gives is copied to the machine first, and so is a file of an object store whose
    format is not read there.

    Raises
    ------
    DataError
        It cannot be read.
    """
    try:
        if location.url is None and not Path(location.path).is_file():
            # A pipe can be read once, and has no end to begin at.
            with open_patiently(location.path) as pipe:
                location = spooled(pipe, location, spool)
        with location.open() as file:
            form = sniff(file.read(_MAGIC_BYTES), location.name)
            if location.url is not None and not form.remote:
                file.seek(0)
                location = spooled(file, location, spool)
    except OSError as error:
        raise cannot_read(location.name, error) from error
    opened: DataFile = import_function(form.reader)(location, spool)
    return opened


def spooled(stream: IO[bytes], location: Location, spool: Spool) -> Location:
    """A copy on this machine of a stream, once its first bytes say that it can be read.

    Raises
    ------
    DataError
        It cannot be read, or copied.
    """
    head = stream.read(_MAGIC_BYTES)
    sniff(head, location.name)
    return Location(location.name, spool.copy(stream, location.name, head), None, location.keys)
