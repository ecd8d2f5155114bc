"""The parameter file: what a fit found, as JSON that a person can read, or as safetensors.

`docs/params.md` specifies the format. Reading is strict: what is not specified is refused. The
stages' own parameters are checked by the calibrators that they name.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from calibcli.errors import ParamsError
from calibcli.small_files import open_patiently

FORMAT = "calib-params"
VERSIONS = (1, 2, 3)
"""Those that are read. A file is of the last one that it needs: of the second for plugins, of the
third where it says how its input was read."""
READING_VERSION = 1
STDIN = "-"
LARGEST_FILE = 1 << 30
"""Bytes; the matrix of 11,000 classes. A larger file is refused unread."""
LARGEST_CLASS_COUNT = 1 << 24

_KEYS: dict[str, type | tuple[type, ...]] = {
    "format": str,
    "version": int,
    "classes": int,
    "class_names": (list, type(None)),
    "input": str,
    "reading": dict,
    "stages": list,
    "plugins": list,
    "fit": dict,
    "metrics": dict,
    "data": list,
    "software": dict,
}
_OPTIONAL = {"class_names", "reading", "plugins", "fit", "metrics", "data", "software"}
_METADATA_KEY = "calib"
_MOST_DIGITS = 18
_DEEPEST = 16


@dataclass(frozen=True)
class Stage:
    """A step of the map: the kind of calibrator and its numbers, strings and arrays."""

    kind: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Plugin:
    """What stages need and another distribution installs.

    Attributes
    ----------
    group : str
        Of its entry point, for example ``"calibcli.methods"``.
    name : str
        Of the entry point, and of the method or loss.
    distribution, version : str
        What was installed when the file was written.
    """

    group: str
    name: str
    distribution: str
    version: str


@dataclass(frozen=True)
class Params:
    """The content of a parameter file.

    Attributes
    ----------
    classes : int
        Number of classes K.
    input : str
        Kind of scores that it was fitted on: ``logits``, ``log-probs`` or ``probs``.
    stages : tuple of Stage
        Applied in order.
    class_names : tuple of str or None
    fit, metrics, software : dict
        How it was fitted, what was measured, which versions; for the reader's information.
    data : list of dict
        Path, size and SHA-256 of each file that it was fitted on.
    plugins : tuple of Plugin
        That the stages need.
    reading : dict
        What was decided about the input and holds for every other input too, by the field of
        `calibcli.tables.ReadOptions` that asks for it.
    """

    classes: int
    input: str
    stages: tuple[Stage, ...]
    class_names: tuple[str, ...] | None = None
    fit: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    software: dict[str, Any] = field(default_factory=dict)
    plugins: tuple[Plugin, ...] = ()
    reading: dict[str, Any] = field(default_factory=dict)


def encode(params: Params, *, safetensors: bool = False) -> bytes:
    """The bytes of a parameter file. Equal parameters give equal bytes."""
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    kept = tensors if safetensors else None
    stages = [
        {"kind": stage.kind, "parameters": _stored(stage.parameters, f"stages.{position}", kept)}
        for position, stage in enumerate(params.stages)
    ]
    plugins = {"plugins": [asdict(plugin) for plugin in params.plugins]} if params.plugins else {}
    reading = {"reading": {"version": READING_VERSION, **params.reading}} if params.reading else {}
    document = {
        "format": FORMAT,
        "version": 3 if reading else 2 if plugins else 1,
        "classes": params.classes,
        "class_names": list(params.class_names) if params.class_names else None,
        "input": params.input,
        **reading,
        "stages": stages,
        **plugins,
        "fit": _storable(params.fit),
        "metrics": _storable(params.metrics),
        "data": _storable(params.data),
        "software": _storable(params.software),
    }
    if not safetensors:
        return _to_bytes(_pretty(document) + "\n")
    from safetensors.numpy import save

    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return save(tensors, metadata={_METADATA_KEY: _to_bytes(text).decode()})


def _stored(value: Any, key: str, tensors: dict[str, np.ndarray[Any, Any]] | None) -> Any:
    """Parameters as JSON has them; arrays become lists, or go to ``tensors``, named by place."""
    if isinstance(value, dict):
        return {name: _stored(item, f"{key}.{name}", tensors) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_stored(item, f"{key}.{place}", tensors) for place, item in enumerate(value)]
    if not isinstance(value, np.ndarray):
        return value
    if tensors is None:
        return value.tolist()
    tensors[key] = np.ascontiguousarray(value)
    return {"tensor": key}


def _to_bytes(text: str) -> bytes:
    """The text in UTF-8. Bytes of a path that are no text become escapes, as JSON has them."""
    return text.encode("utf-8", "backslashreplace")


def _storable(value: Any) -> Any:
    """Information as JSON has it: what is not a finite number is null."""
    if isinstance(value, dict):
        return {key: _storable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(path: str | Path) -> Params:
    """The parameters in a file; ``-`` is standard input.

    Raises
    ------
    ParamsError
        The file is missing, not a parameter file, of an unknown version, or holds something that
        the format does not specify.
    """
    try:
        return decode(_content(path))
    except OSError as error:
        raise ParamsError(f"{title(path)}: {error.strerror}") from None
    except ParamsError as error:
        raise ParamsError(f"{title(path)}: {error}") from None


def title(path: str | Path) -> str:
    """What messages call a parameter file."""
    return "standard input" if str(path) == STDIN else str(path)


def _content(path: str | Path) -> bytes:
    if str(path) == STDIN:
        return _read(sys.stdin.buffer)
    if Path(path).is_dir():
        raise ParamsError("is a folder, not a parameter file")
    with open_patiently(path) as file:
        return _read(file)


def _read(file: BinaryIO) -> bytes:
    """All bytes, unless they are more than a parameter file has."""
    # A pipe doesn't know its size beforehand, and a device may have no end.
    if os.fstat(file.fileno()).st_size > LARGEST_FILE:
        raise ParamsError(_TOO_LONG)
    content = bytearray(file.read(_HEAD_BYTES))
    if len(content) < _HEAD_BYTES:
        return bytes(content)
    is_text = not _may_be_safetensors(content)
    if is_text and not _BEGINNING.match(content):
        raise ParamsError(_NEITHER)
    open_brackets = _opened(content)
    while block := file.read(_BLOCK_BYTES):
        content += block
        open_brackets += _opened(block)
        if is_text and open_brackets > _MOST_OPEN:
            raise ParamsError(f"not valid JSON: more than {_MOST_OPEN:,} brackets are not closed")
        if len(content) > LARGEST_FILE:
            raise ParamsError(_TOO_LONG)
    return bytes(content)


_HEAD_BYTES, _BLOCK_BYTES = 1 << 12, 1 << 20
_NEITHER = "not a parameter file (neither JSON nor safetensors)"
_TOO_LONG = f"has more than {LARGEST_FILE} bytes, as no parameter file has"
_BEGINNING = re.compile(rb"\s*\{\s*[\"}]")

_MOST_OPEN = 100_000
"""Brackets; a parameter file has less than a hundred that are open, but for those in a name."""


def _opened(block: bytes | bytearray) -> int:
    """How many more brackets a block opens than it closes."""
    return sum(block.count(each) for each in b"{[") - sum(block.count(each) for each in b"}]")


def _may_be_safetensors(content: bytes | bytearray) -> bool:
    return content[:1] != b"{" and content[8:9] == b"{"


def decode(content: bytes) -> Params:
    """The parameters in the bytes of a file; see `read`."""
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    if _may_be_safetensors(content):
        text, tensors = _open_safetensors(content)
    else:
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise ParamsError(_NEITHER) from None
    try:
        document = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_int=_whole_number,
            object_pairs_hook=_refuse_twice,
        )
    except (ValueError, RecursionError) as error:
        raise ParamsError(f"not valid JSON: {error}") from None
    params = _from_document(document, tensors)
    for key in ("fit", "metrics", "data", "software"):
        _check_information(key, document.get(key))
    if not all(map(_is_fingerprint, params.data)):
        raise ParamsError("'data' must be objects of path, bytes and sha256, one a file")
    return params


def _open_safetensors(content: bytes) -> tuple[str, dict[str, np.ndarray[Any, Any]]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        text = dict(metadata).pop(_METADATA_KEY)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ParamsError(f"not a parameter file in safetensors format ({error!r})") from None
    if len(metadata) > 1:
        raise ParamsError(f"unknown key {min({*metadata} - {_METADATA_KEY})!r} in the metadata")
    for name, tensor in tensors.items():
        if tensor.dtype != np.float64:
            raise ParamsError(f"the tensor {name!r} is of {tensor.dtype}; it must be of float64")
    return text, tensors


def _from_document(document: Any, tensors: dict[str, np.ndarray[Any, Any]]) -> Params:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ParamsError(f'not a parameter file (no "format": "{FORMAT}")')
    version = document.get("version")
    if version not in VERSIONS:
        raise ParamsError(
            f"version {version!r} is not known: this calib reads versions 1 to {VERSIONS[-1]}, "
            "a newer one may read it"
        )
    _check_keys(document)
    plugins, reading = _plugins(document), _reading(document)
    classes = document["classes"]
    if not 2 <= classes <= LARGEST_CLASS_COUNT:
        raise ParamsError(
            f"'classes' is {classes}; it must lie between 2 and {LARGEST_CLASS_COUNT}"
        )
    if document["input"] not in ("logits", "log-probs", "probs"):
        raise ParamsError(
            f"'input' is {document['input']!r}; it must be logits, log-probs or probs"
        )
    stages = tuple(
        _stage(position, stage, tensors) for position, stage in enumerate(document["stages"])
    )
    if tensors:
        raise ParamsError(f"no stage uses the tensor {min(tensors)!r}")
    return Params(
        classes,
        document["input"],
        stages,
        _names(document.get("class_names"), classes),
        document.get("fit", {}),
        document.get("metrics", {}),
        document.get("data", []),
        document.get("software", {}),
        plugins,
        reading,
    )


def _is_fingerprint(entry: Any) -> bool:
    """Whether an entry is about a file, as data are compared with it."""
    kinds = {"path": str, "bytes": int, "sha256": str}
    return isinstance(entry, dict) and all(
        isinstance(entry.get(key, kind()), kind) for key, kind in kinds.items()
    )


def _plugins(document: dict[str, Any]) -> tuple[Plugin, ...]:
    """The plugins of a file; what is named here is looked up among what is installed."""
    entries = document.get("plugins", [])
    if document["version"] == 1 and "plugins" in document:
        raise ParamsError("unknown key 'plugins' (version 2 has it)")
    names = {each.name for each in fields(Plugin)}
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != names:
            raise ParamsError(f"'plugins' must be objects of {', '.join(sorted(names))}")
        if not all(isinstance(value, str) and value.isprintable() for value in entry.values()):
            raise ParamsError("'plugins' must be objects of texts")
    return tuple(Plugin(**entry) for entry in entries)


def _reading(document: dict[str, Any]) -> dict[str, Any]:
    """What was decided about the input; what it means is known to whoever reads inputs."""
    reading = dict(document.get("reading", {}))
    if not reading:
        return {}
    if document["version"] < 3:
        raise ParamsError("unknown key 'reading' (version 3 has it)")
    version = reading.pop("version", None)
    if version != READING_VERSION:
        raise ParamsError(f"its 'reading' is of version {version!r}, which is not known")
    _check_information("reading", reading)
    return reading


def _check_keys(document: dict[str, Any]) -> None:
    for key, value in document.items():
        if key not in _KEYS:
            raise ParamsError(f"unknown key {key!r}")
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            raise ParamsError(f"{key!r} has the wrong type")
    for key in _KEYS:
        if key not in document and key not in _OPTIONAL:
            raise ParamsError(f"key {key!r} is missing")


def _stage(position: int, document: Any, tensors: dict[str, np.ndarray[Any, Any]]) -> Stage:
    """A stage; the tensors that it uses are taken out of ``tensors``."""
    where = f"stage {position}"
    if not isinstance(document, dict) or set(document) != {"kind", "parameters"}:
        raise ParamsError(f"{where} must have 'kind' and 'parameters', and nothing else")
    kind, parameters = document["kind"], document["parameters"]
    if not isinstance(kind, str) or not isinstance(parameters, dict):
        raise ParamsError(f"{where} must have a text as 'kind' and an object as 'parameters'")
    where = f"{where} ({kind!r})"
    values = {
        name: _loaded(value, f"{where}: {name!r}", tensors) for name, value in parameters.items()
    }
    return Stage(kind, values)


def _loaded(
    value: Any, where: str, tensors: dict[str, np.ndarray[Any, Any]], depth: int = 0
) -> Any:
    """A parameter, with the tensors that it names in their place; it may hold stages."""
    if depth > _DEEPEST:
        raise ParamsError(f"{where} is nested more than {_DEEPEST} deep")
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return [_loaded(item, where, tensors, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"kind", "parameters"} and isinstance(value["parameters"], dict):
        inner = {
            name: _loaded(item, f"{where}: {name!r}", tensors, depth + 1)
            for name, item in value["parameters"].items()
        }
        return {"kind": value["kind"], "parameters": inner}
    key = value.get("tensor")
    if len(value) != 1 or not isinstance(key, str) or key not in tensors:
        raise ParamsError(f"{where} names no tensor of this file")
    return tensors.pop(key)


def _names(names: list[Any] | None, classes: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    if len(names) != classes or not all(isinstance(name, str) for name in names):
        raise ParamsError(f"'class_names' must be {classes} texts")
    twice = first_twice(names)
    if twice is not None:
        raise ParamsError(f"'class_names' has {twice!r} twice")
    if any("\ud800" <= character <= "\udfff" for name in names for character in name):
        raise ParamsError("'class_names' has a character that is none (half of a surrogate pair)")
    return tuple(names)


def first_twice(names: Sequence[str]) -> str | None:
    """The first of some names that is there before; None where all differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _check_information(key: str, value: Any, depth: int = 0) -> None:
    """Refuse what no writer makes, so that a reader need not expect it."""
    if depth > _DEEPEST:
        raise ParamsError(f"{key!r} is nested more than {_DEEPEST} deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise ParamsError(f"{key!r} has a number that is too large; every number must be finite")
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_information(key, item, depth + 1)


def _refuse_constant(name: str) -> Any:
    raise ParamsError(f"{name} is not allowed: every number must be finite")


def _whole_number(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ParamsError(f"the number {text[:8]}… has {len(text)} digits, which is too large")
    return int(text)


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for key, value in pairs:
        if key in entries:
            raise ParamsError(f"key {key!r} occurs twice")
        entries[key] = value
    return entries


def _pretty(value: Any, indent: str = "") -> str:
    """JSON with an entry a line, but lists of numbers on one line."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        entries = (
            f"{inner}{json.dumps(key, ensure_ascii=False)}: {_pretty(item, inner)}"
            for key, item in value.items()
        )
        return "{\n" + ",\n".join(entries) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return "[\n" + ",\n".join(inner + _pretty(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
