"""The file formats: how each is recognised, what reads it and what writes it.

A new format is a file of this package and an entry of `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class FileFormat:
    """A format of files.

    The functions are named ``"module:name"``, a module of `calibcli.tables.formats`, and imported
    when they are used: an NPZ file is read without pyarrow.

    Attributes
    ----------
    name : str
    title : str
        As messages write it.
    suffixes : tuple of str
        Which files of a folder are in this format. Single files are recognised by their content.
    magic : tuple of bytes
        What a file may begin with.
    reader : str
        ``(Location, Spool) -> DataFile``.
    sink : str
        ``(binary file, rows, class_names) -> Sink``; empty where it is not written.
    written : tuple of str
        Suffixes of outputs in this format.
    pipe_reader : str
        ``(Location, binary file, Spool) -> DataFile``: reads from a pipe as it comes. May be empty.
    remote : bool
        Whether it is read where it lies in an object store. Other files are copied first.
    gives_shape : bool
        Whether its sink takes a `GridShape`, to give rows the shape back that they had.
    on_threads : bool
        Whether its sink takes the number of threads to encode on.
    recognise : str
        ``(bytes) -> bool``: of text, which begins with no magic, whether its first bytes are of
        this format. A folder's files of text are data only where no other file is.
    recognise_bytes : str
        The same of what is no text and begins with no magic either.
    marks : tuple of str
        Of a format that is a folder, the files of which one is in it.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...]
    reader: str
    sink: str = ""
    written: tuple[str, ...] = ()
    pipe_reader: str = ""
    remote: bool = False
    gives_shape: bool = False
    on_threads: bool = False
    recognise: str = ""
    recognise_bytes: str = ""
    marks: tuple[str, ...] = ()


FORMATS = {
    each.name: each
    for each in (
        FileFormat(
            "parquet",
            "Parquet",
            (".parquet", ".pq"),
            (b"PAR1", b"PARE"),
            "parquet:open_parquet",
            "parquet:ParquetSink",
            (".parquet", ".pq"),
            remote=True,
            on_threads=True,
        ),
        FileFormat(
            "orc",
            "ORC",
            (".orc",),
            (b"ORC",),
            "orc:open_orc",
        ),
        FileFormat(
            "npz",
            "NPZ",
            (".npz",),
            (b"PK\x03\x04", b"PK\x05\x06"),
            "npz:open_npz",
            "array_sinks:NpzSink",
            (".npz",),
            gives_shape=True,
        ),
        FileFormat(
            "safetensors",
            "safetensors",
            (".safetensors",),
            (),
            "tensors:open_safetensors",
            recognise_bytes="sniffing:is_safetensors",
        ),
        FileFormat(
            "hdf5",
            "HDF5",
            (".h5", ".hdf5"),
            (b"\x89HDF",),
            "hdf5:open_hdf5",
        ),
        FileFormat(
            "zarr",
            "Zarr",
            (),
            (),
            "zarr:open_zarr",
            marks=("zarr.json", ".zgroup", ".zarray"),
        ),
        FileFormat(
            "npy",
            "NPY",
            (".npy",),
            (b"\x93NUMPY",),
            "npz:open_npy",
            "array_sinks:NpySink",
            (".npy",),
            gives_shape=True,
        ),
        FileFormat(
            "ipc-file",
            "Arrow IPC",
            (".arrow", ".feather", ".ipc"),
            (b"ARROW1",),
            "ipc:open_ipc_file",
            "ipc:IpcFileSink",
            (".arrow", ".feather", ".ipc"),
        ),
        FileFormat(
            "ipc-stream",
            "Arrow IPC",
            (".arrows",),
            (b"\xff\xff\xff\xff",),
            "ipc:open_ipc_stream",
            "ipc:IpcStreamSink",
            pipe_reader="ipc:open_ipc_pipe",
        ),
        FileFormat(
            "json",
            "JSON",
            (".jsonl", ".ndjson"),
            (),
            "json_lines:open_json",
            recognise="sniffing:is_json",
        ),
        FileFormat(
            "csv",
            "CSV",
            (".csv", ".tsv"),
            (),
            "delimited:open_delimited",
            recognise="sniffing:is_delimited",
        ),
    )
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""How a file of any format may be compressed, by the suffix that is then added to its own."""

SUFFIXES = tuple(
    suffix for each in FORMATS.values() if not each.recognise for suffix in each.suffixes
)
TEXT_SUFFIXES = tuple(
    suffix for each in FORMATS.values() if each.recognise for suffix in each.suffixes
)
"""Which files of a folder are data; those of text only where there are no others."""

STORES = {mark: each for each in FORMATS.values() for mark in each.marks}
"""The format of a folder that is a store of arrays, by a file in it."""

OUTPUTS = {suffix: each for each in FORMATS.values() for suffix in each.written}
"""The format of an output file, by its suffix."""


def import_function(function: str) -> Callable[..., Any]:
    """The function that an entry names as ``"module:name"``, imported now."""
    return import_from(__package__, function)


def import_from(package: str, function: str) -> Callable[..., Any]:
    """The function ``"module:name"`` of a package, imported now."""
    module, name = function.split(":")
    loaded: Callable[..., Any] = getattr(import_module(f"{package}.{module}"), name)
    return loaded
