"""Zarr stores, versions 2 and 3: folders of arrays in chunks, which are decoded here one by one.

Format: https://zarr-specs.readthedocs.io/en/latest/specs.html
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import CalibError, DataError
from calibcli.small_files import read_small
from calibcli.tables.formats.base import Field, python_command
from calibcli.tables.formats.chunked import ChunkedMember, ChunkError
from calibcli.tables.formats.npy import ArrayHeader
from calibcli.tables.formats.npz import NPY_FIELD, ArrayData, Member, with_own_keys
from calibcli.tables.formats.zarr_codecs import Codec, Shards, codecs_of, decoded, texts_in
from calibcli.tables.locations import Location
from calibcli.tables.storage import LARGEST_EXPANSION, Spool

VERSION_3, ARRAY_2, GROUP_2, ATTRIBUTES_2 = "zarr.json", ".zarray", ".zgroup", ".zattrs"

_MOST_FOLDERS, _LARGEST_DESCRIPTION = 10_000, 16 << 20
_MOST_AXES, _LARGEST_ARRAY = 32, 1 << 62
_SLACK_BYTES = 1 << 16
"""What packing may add to a chunk that cannot be made smaller, beside an eighth of it."""

_NOTHING = ArrayHeader((0,), fortran=False, dtype="|u1", length=0)
_WIDTHS = {"fixed_length_utf32": ("U", 4), "null_terminated_bytes": ("S", 1)}


@dataclass(frozen=True)
class _Description:
    """What the metadata of an array say.

    Attributes
    ----------
    shape : tuple of int
    chunks : tuple of int
        Of what is decoded at once: within a shard that of a chunk in it.
    dtype : str
        Of NumPy; ``"texts"`` of any length.
    bfloat : bool
    axes : tuple of int
        The axes of a chunk in the order in which they are stored.
    prefix, separator : str
        Of the names of chunks: ``c/0/1``.
    codecs : tuple of Codec
        What makes bytes of bytes, in the order in which it packed them.
    shards : Shards or None
    fill : bytes or None
        The value of chunks that are not stored; None where they cannot be meant.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    bfloat: bool
    axes: tuple[int, ...]
    prefix: str
    separator: str
    codecs: tuple[Codec, ...]
    shards: Shards | None
    fill: bytes | None


class _UnreadError(Exception):
    """An array of a kind that is not read; the message says which."""


@dataclass(frozen=True, eq=False)
class ZarrChunks:
    """The chunks of an array.

    Attributes
    ----------
    folder : str
    description : _Description
    indices : dict
        Where the chunks of the shard that was read last lie in it, by its path.
    """

    folder: str
    description: _Description
    indices: dict[str, NumpyArray] = field(default_factory=dict, compare=False, repr=False)

    def chunk(self, index: tuple[int, ...]) -> NumpyArray:
        known = self.description
        kind = np.dtype(known.dtype)
        size = math.prod(known.chunks) * kind.itemsize
        content = self.content(index, size)
        if content is None:
            if known.fill is None:
                raise ChunkError("was never written; the store is incomplete")
            value = np.frombuffer(known.fill, kind)
            return np.broadcast_to(value.reshape((1,) * len(known.chunks)), known.chunks)
        stored = tuple(known.chunks[axis] for axis in known.axes)
        array: NumpyArray = np.frombuffer(content, kind).reshape(stored)
        return array.transpose(np.argsort(known.axes))

    def content(self, index: tuple[int, ...], size: int | None) -> bytes | None:
        """The bytes of a chunk, ``size`` of them where it is known; None of one not stored.

        Raises
        ------
        ChunkError
        """
        known = self.description
        data = self._stored(index, size)
        return None if data is None else decoded(data, known.codecs, size)

    def _stored(self, index: tuple[int, ...], size: int | None) -> bytes | None:
        known = self.description
        most = LARGEST_EXPANSION if size is None else size + size // 8 + _SLACK_BYTES
        if known.shards is None:
            return _read(self._path(index), most)
        shard = tuple(i // n for i, n in zip(index, known.shards.counts, strict=True))
        inside = tuple(i % n for i, n in zip(index, known.shards.counts, strict=True))
        path = self._path(shard)
        if path not in self.indices:
            if not Path(path).is_file():
                return None
            places = known.shards.places(path)
            self.indices.clear()
            self.indices[path] = places
        offset, length = (int(each) for each in self.indices[path][inside])
        return None if known.shards.is_empty(offset) else _read(path, most, offset, length)

    def _path(self, index: tuple[int, ...]) -> str:
        known = self.description
        name = known.separator.join([*([known.prefix] if known.prefix else []), *map(str, index)])
        return str(Path(self.folder) / (name or "0"))


def _read(path: str, most: int, offset: int = 0, length: int | None = None) -> bytes | None:
    """The bytes of a chunk; None where there is no such file.

    Raises
    ------
    ChunkError
        There are more than ``most``, or fewer than ``length``.
    """
    if not Path(path).is_file():  # also where a pipe would be waited for
        return None
    if length is not None and length > most:
        raise ChunkError(f"has {length:,} bytes, more than its shape allows")
    try:
        with Path(path).open("rb") as file:
            file.seek(offset)
            content = file.read(most + 1 if length is None else length)
    except (OSError, OverflowError, ValueError) as error:
        raise ChunkError(f"cannot be read ({error})") from error
    if len(content) > most:
        raise ChunkError(f"has more than {most:,} bytes, which its shape does not allow")
    if length is not None and len(content) < length:
        raise ChunkError("reaches over the end of its shard, which is damaged or incomplete")
    return content


def open_zarr(location: Location, spool: Spool) -> ArrayData:
    """Look at a Zarr store. Each array is a field, called by its path in the store.

    Raises
    ------
    DataError
        It is damaged, or holds no array.
    """
    fields: list[Field] = []
    members: list[Member] = []
    is_array = False
    for name, folder, version in _arrays(location):
        is_array = not name
        shown = name or NPY_FIELD
        where = f"{location.name}, key {shown!r}"
        try:
            known = _described(_metadata(location, folder, version), version)
            header, member = _member(where, folder, known, spool)
        except _UnreadError as error:
            shown_type = f"{error}; the library reads it: {_recipe(location, name)}"
            fields.append(Field(shown, shown_type, "other", 3, None, None, 0, carried=False))
            members.append(Member(_NOTHING, folder, 0))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _damaged(location, f"what it says of {shown!r} is incomplete") from error
        else:
            fields.append(header.field(shown, in_memory=member.offset is not None))
            members.append(member)
    if not fields:
        raise DataError(f"{location.name}: the Zarr store holds no array")
    unit = "array" if is_array else "key"
    data = ArrayData(location, "zarr", tuple(fields), unit=unit, members=tuple(members))
    return data if is_array else with_own_keys(data)


def _recipe(location: Location, name: str) -> str:
    """The program that saves an array as NPY by the library zarr."""
    array = f"zarr.open({location.name!r}, mode='r')" + (f"[{name!r}]" if name else "")
    return python_command(f"import numpy, zarr; numpy.save('array.npy', {array}[:])")


def _damaged(location: Location, reason: str) -> DataError:
    return DataError(f"{location.name}: not a readable Zarr store ({reason})")


def _arrays(location: Location) -> Iterator[tuple[str, str, int]]:
    """Name, folder and version of each array, sorted by name."""
    top = location.path
    for looked_at, (folder, folders, files) in enumerate(os.walk(top)):
        folders.sort()
        if looked_at == _MOST_FOLDERS:
            raise _damaged(location, f"it has more than {_MOST_FOLDERS:,} folders")
        name = "" if folder == top else Path(folder).relative_to(top).as_posix()
        version = 3 if VERSION_3 in files else 2
        if version == 3:
            is_array = _metadata(location, folder, 3).get("node_type") == "array"
        else:
            is_array = ARRAY_2 in files
        if is_array:
            folders.clear()
            yield name, folder, version


def _metadata(location: Location, folder: str, version: int) -> dict[str, Any]:
    path = Path(folder) / (VERSION_3 if version == 3 else ARRAY_2)
    try:
        document = json.loads(read_small(path, _LARGEST_DESCRIPTION))
    except (ValueError, RecursionError, OSError, CalibError) as error:
        raise _damaged(location, f"{path.name} cannot be read") from error
    if not isinstance(document, dict):
        raise _damaged(location, f"{path.name} is no object")
    return document


def _described(document: Mapping[str, Any], version: int) -> _Description:
    """What the metadata of an array say.

    Raises
    ------
    _UnreadError
        It is of a kind that is not read.
    KeyError, TypeError, ValueError, AttributeError
        They are no such metadata.
    """
    known = _version_2(document) if version == 2 else _version_3(document)
    whole = [*known.shape, *known.chunks]
    if not all(type(each) is int and each >= 0 for each in whole):
        raise ValueError(whole)
    if len(known.chunks) != len(known.shape) or min(known.chunks, default=1) < 1:
        raise ValueError(known.chunks)
    if sorted(known.axes) != list(range(len(known.shape))):
        raise ValueError(known.axes)
    if known.separator not in ("/", "."):
        raise ValueError(known.separator)
    if not known.shape:
        raise _UnreadError("a single value")
    if known.dtype == "texts" and (len(known.shape) > 1 or known.shards):
        raise _UnreadError("texts in several axes or in shards")
    return known


def _version_2(document: Mapping[str, Any]) -> _Description:
    kind = document["dtype"]
    filters = list(document.get("filters") or [])
    if kind == "|O" and [each.get("id") for each in filters] == ["vlen-utf8"]:
        dtype, filters = "texts", []
    elif not isinstance(kind, str) or kind == "|O":
        raise _UnreadError("records" if isinstance(kind, list) else "Python objects")
    else:
        dtype = np.dtype(kind).str
    packing = [*filters, *([document["compressor"]] if document.get("compressor") else [])]
    axes = tuple(range(len(document["shape"])))
    return _Description(
        tuple(document["shape"]),
        tuple(document["chunks"]),
        dtype,
        bfloat=False,
        axes=axes[::-1] if document.get("order") == "F" else axes,
        prefix="",
        separator=document.get("dimension_separator", "."),
        codecs=_codecs([(each["id"], each) for each in packing]),
        shards=None,
        fill=_fill(document.get("fill_value"), dtype, bfloat=False),
    )


def _version_3(document: Mapping[str, Any]) -> _Description:
    dtype, bfloat = _type_3(document["data_type"])
    if document.get("storage_transformers"):
        raise _UnreadError("an array behind storage transformers")
    grid = document["chunk_grid"]
    if grid["name"] != "regular":
        raise _UnreadError(f"chunks of a grid that is {grid['name']}")
    chunks, shards = tuple(grid["configuration"]["chunk_shape"]), None
    encoding = document["chunk_key_encoding"]
    is_default = encoding["name"] == "default"
    settings = encoding.get("configuration") or {}
    axes, codecs = _layers(document["codecs"], len(document["shape"]))
    if codecs and codecs[0]["name"] == "sharding_indexed":
        if len(codecs) > 1 or axes != tuple(range(len(axes))):
            raise _UnreadError("shards that are packed again")
        inner = codecs[0]["configuration"]
        whole, chunks = chunks, tuple(inner["chunk_shape"])
        counts = tuple(a // b for a, b in zip(whole, chunks, strict=True))
        if tuple(n * b for n, b in zip(counts, chunks, strict=True)) != whole:
            raise ValueError(whole)
        _, index_codecs = _layers(inner["index_codecs"], len(chunks) + 1)
        order, _ = _order(index_codecs)
        shards = Shards(
            counts,
            inner.get("index_location", "end") == "start",
            _codecs([(each["name"], _settings(each)) for each in index_codecs[1:]]),
            order,
        )
        axes, codecs = _layers(inner["codecs"], len(chunks))
    order, names = _order(codecs)
    if names not in (["bytes"], ["vlen-utf8"]) or (names == ["vlen-utf8"]) != (dtype == "texts"):
        raise _UnreadError("values written by " + ", ".join(map(str, names)))
    if dtype != "texts" and np.dtype(dtype).itemsize > 1:
        dtype = np.dtype(dtype).newbyteorder(order).str
    return _Description(
        tuple(document["shape"]),
        chunks,
        dtype,
        bfloat,
        axes,
        prefix="c" if is_default else "",
        separator=settings.get("separator", "/" if is_default else "."),
        codecs=_codecs([(each["name"], _settings(each)) for each in codecs[1:]]),
        shards=shards,
        fill=_fill(document.get("fill_value"), dtype, bfloat=bfloat),
    )


def _settings(codec: Mapping[str, Any]) -> dict[str, Any]:
    return dict(codec.get("configuration") or {})


def _layers(codecs: Sequence[Any], axes: int) -> tuple[tuple[int, ...], list[dict[str, Any]]]:
    """The order of the axes in which a chunk is stored, and what makes bytes of it then."""
    layers = [{"name": each} if isinstance(each, str) else dict(each) for each in codecs]
    order = tuple(range(axes))
    while layers and layers[0]["name"] == "transpose":
        moved = _settings(layers.pop(0))["order"]
        if moved in ("C", "F"):
            moved = list(range(axes)) if moved == "C" else list(range(axes))[::-1]
        order = tuple(order[axis] for axis in moved)
    return order, layers


def _order(codecs: Sequence[Mapping[str, Any]]) -> tuple[Literal["<", ">"], list[str]]:
    """The byte order, and the names of the codecs that make bytes of numbers."""
    order: Literal["<", ">"] = "<"
    if codecs and _settings(codecs[0]).get("endian") == "big":
        order = ">"
    return order, [str(each["name"]) for each in codecs[:1]]


def _codecs(named: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Codec, ...]:
    codecs = codecs_of(named)
    if isinstance(codecs, str):
        raise _UnreadError(f"numbers packed by {codecs}")
    return codecs


def _type_3(kind: Any) -> tuple[str, bool]:
    """The NumPy type of a data type of version 3, and whether it is bfloat16."""
    settings: Mapping[str, Any] = {}
    if isinstance(kind, Mapping):
        kind, settings = kind["name"], kind.get("configuration") or {}
    if kind in ("string", "variable_length_utf8"):
        return "texts", False
    if kind == "bfloat16":
        return "<u2", True
    if kind in _WIDTHS:
        letter, width = _WIDTHS[kind]
        return np.dtype(f"<{letter}{int(settings['length_bytes']) // width}").str, False
    if kind == "numpy.datetime64" and settings.get("scale_factor", 1) == 1:
        return np.dtype(f"<M8[{settings['unit']}]").str, False
    try:
        dtype = np.dtype(kind)
    except TypeError:
        dtype = None
    if dtype is None or dtype.kind not in "fiub":
        raise _UnreadError(str(kind))
    return dtype.str, False


def _fill(value: Any, dtype: str, *, bfloat: bool) -> bytes | None:
    """What a chunk of other than scores holds that is not stored; None where it cannot be meant.

    A chunk of scores that are all the same was never written.
    """
    if value is None:
        return None
    if dtype == "texts":
        return str(value).encode()
    kind = np.dtype(dtype)
    if kind.kind in "US":
        return bytes(kind.itemsize) if value in ("", 0) else None
    if kind.kind not in "iub" or bfloat:
        return None
    return np.array([value]).astype(kind).tobytes()


def _member(
    where: str, folder: str, known: _Description, spool: Spool
) -> tuple[ArrayHeader, Member]:
    """The array that is described, checked against the size of its files."""
    if len(known.shape) > _MOST_AXES:
        raise DataError(f"{where}: no array is of the shape {known.shape}")
    source = ZarrChunks(folder, known)
    if known.dtype == "texts":
        header, path = _texts(where, source, spool)
        return header, Member(header, path, 0)
    itemsize = np.dtype(known.dtype).itemsize
    countable = math.prod(max(axis, 1) for axis in (*known.shape, *known.chunks)) * itemsize
    if not itemsize or countable > _LARGEST_ARRAY:
        raise DataError(f"{where}: no array is of the shape {known.shape}")
    header = ArrayHeader(
        known.shape, fortran=False, dtype=known.dtype, length=0, bfloat=known.bfloat
    )
    member = ChunkedMember(header, folder, None, chunks=known.chunks, source=source)
    member.check(where, _stored_bytes(folder), spool)
    return header, member


def _stored_bytes(folder: str) -> int:
    """The bytes of all files of an array."""
    total = 0
    for inner, _, files in os.walk(folder):
        total += sum(os.stat(Path(inner) / name).st_size for name in files)  # noqa: PTH116
    return total


def _texts(where: str, source: ZarrChunks, spool: Spool) -> tuple[ArrayHeader, str]:
    """Texts of any length as an array of UTF-8 of one width, in a temporary file."""
    known = source.description
    rows, height = known.shape[0], known.chunks[0]
    parts: list[list[bytes]] = []
    for place in range(-(-rows // height)):
        count = min(height, rows - place * height)
        try:
            content = source.content((place,), None)
            if content is not None:
                texts = texts_in(content)
            elif known.fill is not None:
                texts = list(itertools.repeat(known.fill, count))
            else:
                raise ChunkError("was never written; the store is incomplete")  # noqa: TRY301
            if len(texts) < count:
                raise ChunkError(f"has {len(texts)} texts where {count} should be")  # noqa: TRY301
        except ChunkError as error:
            raise DataError(f"{where}: chunk {place} {error}") from error
        parts.append(texts[:count])
    width = max((len(text) for texts in parts for text in texts), default=0) or 1
    spool.expansion.check(where, width * rows, _stored_bytes(source.folder))
    with spool.writing(where):
        path = spool.new_file(where)
        with Path(path).open("xb") as file:
            for texts in parts:
                file.write(np.asarray(texts, f"S{width}").tobytes())
    return ArrayHeader((rows,), fortran=False, dtype=f"|S{width}", length=0), path
