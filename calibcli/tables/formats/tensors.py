"""Safetensors: named arrays one after the other behind a header in JSON, memory-mapped.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibcli.errors import DataError
from calibcli.tables.formats.npy import ArrayHeader
from calibcli.tables.formats.npz import ArrayData, Member
from calibcli.tables.locations import Location
from calibcli.tables.storage import Spool

_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}
_LENGTH_BYTES, _LONGEST_HEADER, _MOST_AXES = 8, 16 << 20, 32
_Span = tuple[int, int]
_METADATA, _CLASSES, _PARAMETERS = "__metadata__", "calib.classes", "calib"


def open_safetensors(location: Location, _: Spool) -> ArrayData:
    """Look at a file of safetensors. Types without an equal in NumPy are no columns.

    Raises
    ------
    DataError
        It is damaged, or a parameter file of calib.
    """
    path = Path(location.path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > min(_LONGEST_HEADER, size - _LENGTH_BYTES):
            raise _damaged(location, f"a header of {length:,} bytes cannot be right")
        content = file.read(length)
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(location, "its header is no JSON") from error
    if not isinstance(header, dict):
        raise _damaged(location, "its header is no object")
    metadata = header.pop(_METADATA, {})
    if isinstance(metadata, dict) and _PARAMETERS in metadata:
        raise DataError(f"{location.name}: is a parameter file of calib, and holds no rows")
    begin, members, spans = _LENGTH_BYTES + length, {}, []
    for name, entry in header.items():
        kind, shape, span = _entry(location, name, entry)
        spans.append((*span, name))
        member = _member(location, name, kind, shape, span, begin)
        if member is not None:
            members[name] = member
    _check_spans(location, spans, size - begin)
    if not members:
        raise _damaged(location, "it holds no array of numbers")
    fields = tuple(member.header.field(name, in_memory=True) for name, member in members.items())
    return ArrayData(
        location,
        "safetensors",
        fields,
        _class_names(metadata),
        unit="key",
        members=tuple(members.values()),
    )


def _damaged(location: Location, reason: str) -> DataError:
    return DataError(f"{location.name}: not a readable safetensors file ({reason})")


def _entry(location: Location, name: str, entry: Any) -> tuple[str, tuple[int, ...], _Span]:
    """Type, shape and place of an array, the place counted from the end of the header."""
    try:
        kind, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = [*shape, first, last]
        sound = all(type(each) is int and each >= 0 for each in whole) and len(shape) <= _MOST_AXES
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound:
        raise _damaged(location, f"what it says of {name!r} is incomplete")
    return kind, tuple(shape), (first, last)


def _member(
    location: Location, name: str, kind: Any, shape: tuple[int, ...], span: _Span, begin: int
) -> Member | None:
    """An array of data that begin at a byte of the file; None of another type."""
    if not isinstance(kind, str) or kind not in _TYPES:
        return None
    header = ArrayHeader(shape, fortran=False, dtype=_TYPES[kind], length=0, bfloat=kind == "BF16")
    first, last = span
    if math.prod(shape) > max(last - first, 0) or last - first != header.bytes:
        raise _damaged(location, f"the bytes of {name!r} do not fit its shape")
    return Member(header, location.path, begin + first)


def _check_spans(location: Location, spans: list[tuple[int, int, str]], available: int) -> None:
    """Refuse arrays that do not lie one after the other, as the format wants, up to the end."""
    end = 0
    for first, last, name in sorted(spans):
        if first != end or last < first:
            what = "overlaps with another one" if first < end else "does not follow the one before"
            raise _damaged(location, f"{name!r} {what}")
        end = last
    if end != available:
        raise _damaged(location, f"its arrays have {end:,} bytes, but the file holds {available:,}")


def _class_names(metadata: Any) -> tuple[str, ...] | None:
    """Class names in the metadata, a list in JSON."""
    text = metadata.get(_CLASSES) if isinstance(metadata, Mapping) else None
    try:
        names = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) if 1 < len(set(names)) == len(names) else None
