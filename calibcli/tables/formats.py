"""Which format a file has, by its first bytes; and the refusal of those that are not read."""

from __future__ import annotations

from pathlib import Path, PurePath

from calibcli.errors import DataError
from calibcli.tables.fields import DataFile
from calibcli.tables.locations import Location, cannot_read
from calibcli.tables.npy import pickled
from calibcli.tables.spool import Spool

_MAGIC = (
    (b"PAR1", "parquet"),
    (b"PARE", "parquet"),
    (b"ARROW1", "ipc-file"),
    (b"\xff\xff\xff\xff", "ipc-stream"),
    (b"\x93NUMPY", "npy"),
    (b"PK\x03\x04", "npz"),
    (b"PK\x05\x06", "npz"),
)
_MAGIC_BYTES = 512
_PICKLES = (".p", ".pk", ".pkl", ".pickle", ".pt", ".pth", ".joblib", ".ckpt")
_HINTS = {
    b"\x1f\x8b": "it is compressed with gzip; decompress it first",
    b"\x28\xb5\x2f\xfd": "it is compressed with zstd; decompress it first",
    b"\x89HDF": "it is an HDF5 file; save its arrays as NPZ or Parquet",
    b"FEA1": "it is Feather version 1; write it again with version 2",
}
_READ = "Parquet, NPZ, NPY and Arrow IPC are read"


def sniff(head: bytes, name: str) -> str:
    """The format of a file.

    Parameters
    ----------
    head : bytes
        Its first bytes: eight or more, or all.
    name : str
        For messages, and its suffix for the hint in them.

    Returns
    -------
    str
        ``"parquet"``, ``"npz"``, ``"npy"``, ``"ipc-file"`` or ``"ipc-stream"``.

    Raises
    ------
    DataError
        It is empty, a pickle, or in none of these formats.
    """
    if not head:
        raise DataError(f"{name}: the file is empty")
    found = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
    if found is not None:
        return found
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
    raise DataError(f"{name}: {hint or 'the format is not known'} ({_READ})")


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The last character may be cut in two.
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return text.isprintable() or all(char.isprintable() or char.isspace() for char in text)


def open_data(location: Location, spool: Spool) -> DataFile:
    """Look at a data file.

    Of an object store all but Parquet is copied to the machine first, and so is what a pipe gives.

    Raises
    ------
    DataError
        It cannot be read.
    """
    try:
        if location.url is None and not Path(location.path).is_file():
            # A pipe can be read once, and has no end to begin at.
            with Path(location.path).open("rb") as pipe:
                path = spool.copy(pipe, location.name)
            location = Location(location.name, path, None, location.keys)
        with location.open() as file:
            head = file.read(_MAGIC_BYTES)
            kind = sniff(head, location.name)
            if location.url is not None and kind != "parquet":
                file.seek(0)
                path = spool.copy(file, location.name)
                location = Location(location.name, path, None, location.keys)
    except OSError as error:
        raise cannot_read(location.name, error) from error
    # Each of these imports what it needs: an NPZ is read without pyarrow.
    if kind == "parquet":
        from calibcli.tables.parquet import open_parquet

        return open_parquet(location)
    if kind.startswith("ipc"):
        from calibcli.tables.ipc import open_ipc

        return open_ipc(location, kind)
    from calibcli.tables.npz import open_npy, open_npz

    return open_npy(location) if kind == "npy" else open_npz(location, spool)
