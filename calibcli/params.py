"""The parameter file: what a fit found, as JSON that a person can read, or as safetensors.

`docs/params.md` specifies the format. Reading is strict: what is not specified is refused. The
stages' own parameters are checked by the calibrators that they name.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calibcli.errors import ParamsError

FORMAT = "calib-params"
VERSION = 1
LARGEST_FILE = 1 << 30
"""Bytes; the matrix of 11,000 classes. A larger file is refused unread."""
LARGEST_CLASS_COUNT = 1 << 24

_KEYS: dict[str, type | tuple[type, ...]] = {
    "format": str,
    "version": int,
    "classes": int,
    "class_names": (list, type(None)),
    "input": str,
    "stages": list,
    "fit": dict,
    "metrics": dict,
    "data": list,
    "software": dict,
}
_OPTIONAL = {"class_names", "fit", "metrics", "data", "software"}
_METADATA_KEY = "calib"


@dataclass(frozen=True)
class Stage:
    """A step of the map: the kind of calibrator and its numbers, strings and arrays."""

    kind: str
    parameters: dict[str, Any]


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
    """

    classes: int
    input: str
    stages: tuple[Stage, ...]
    class_names: tuple[str, ...] | None = None
    fit: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    software: dict[str, Any] = field(default_factory=dict)


def encode(params: Params, *, safetensors: bool = False) -> bytes:
    """The bytes of a parameter file. Equal parameters give equal bytes."""
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    stages = []
    for position, stage in enumerate(params.stages):
        parameters: dict[str, Any] = {}
        for name, value in stage.parameters.items():
            if safetensors and isinstance(value, np.ndarray):
                key = f"stages.{position}.{name}"
                tensors[key] = np.ascontiguousarray(value)
                parameters[name] = {"tensor": key}
            else:
                parameters[name] = value.tolist() if isinstance(value, np.ndarray) else value
        stages.append({"kind": stage.kind, "parameters": parameters})
    document = {
        "format": FORMAT,
        "version": VERSION,
        "classes": params.classes,
        "class_names": list(params.class_names) if params.class_names else None,
        "input": params.input,
        "stages": stages,
        "fit": params.fit,
        "metrics": params.metrics,
        "data": params.data,
        "software": params.software,
    }
    if not safetensors:
        return (_pretty(document) + "\n").encode()
    from safetensors.numpy import save

    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return save(tensors, metadata={_METADATA_KEY: text})


def read(path: str | Path) -> Params:
    """The parameters in a file.

    Raises
    ------
    ParamsError
        The file is missing, not a parameter file, of an unknown version, or holds something that
        the format does not specify.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise ParamsError(f"{path} is a directory, not a parameter file")
        size = file.stat().st_size
        if size > LARGEST_FILE:
            raise ParamsError(
                f"{path} has {size} bytes; a parameter file has at most {LARGEST_FILE}"
            )
        content = file.read_bytes()
    except OSError as error:
        raise ParamsError(f"{path}: {error.strerror}") from None
    try:
        return decode(content)
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None


def decode(content: bytes) -> Params:
    """The parameters in the bytes of a file; see `read`."""
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    if content[:1] != b"{" and content[8:9] == b"{":
        text, tensors = _open_safetensors(content)
    else:
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise ParamsError("not a parameter file (neither JSON nor safetensors)") from None
    try:
        document = json.loads(
            text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_twice
        )
    except (ValueError, RecursionError) as error:
        raise ParamsError(f"not valid JSON: {error}") from None
    return _from_document(document, tensors)


def _open_safetensors(content: bytes) -> tuple[str, dict[str, np.ndarray[Any, Any]]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        text = json.loads(content[8 : 8 + length])["__metadata__"][_METADATA_KEY]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ParamsError(f"not a parameter file in safetensors format: {error!r}") from None
    return text, tensors


def _from_document(document: Any, tensors: dict[str, np.ndarray[Any, Any]]) -> Params:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ParamsError(f'not a parameter file (no "format": "{FORMAT}")')
    if document.get("version") != VERSION:
        raise ParamsError(f"version {document.get('version')!r} is not known; this reads {VERSION}")
    for key, value in document.items():
        if key not in _KEYS:
            raise ParamsError(f"unknown key {key!r}")
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            raise ParamsError(f"{key!r} has the wrong type")
    for key in _KEYS:
        if key not in document and key not in _OPTIONAL:
            raise ParamsError(f"key {key!r} is missing")
    classes = document["classes"]
    if not 2 <= classes <= LARGEST_CLASS_COUNT:
        raise ParamsError(
            f"'classes' is {classes}; it must lie between 2 and {LARGEST_CLASS_COUNT}"
        )
    if document["input"] not in ("logits", "log-probs", "probs"):
        raise ParamsError(
            f"'input' is {document['input']!r}; it must be logits, log-probs or probs"
        )
    return Params(
        classes,
        document["input"],
        tuple(_stage(stage, tensors) for stage in document["stages"]),
        _names(document.get("class_names"), classes),
        document.get("fit", {}),
        document.get("metrics", {}),
        document.get("data", []),
        document.get("software", {}),
    )


def _stage(document: Any, tensors: dict[str, np.ndarray[Any, Any]]) -> Stage:
    if not isinstance(document, dict) or set(document) != {"kind", "parameters"}:
        raise ParamsError("each of 'stages' must have 'kind' and 'parameters', and nothing else")
    if not isinstance(document["kind"], str) or not isinstance(document["parameters"], dict):
        raise ParamsError(
            "each of 'stages' must have a text as 'kind' and an object as 'parameters'"
        )
    parameters: dict[str, Any] = {}
    for name, value in document["parameters"].items():
        if isinstance(value, dict):
            if set(value) != {"tensor"} or value["tensor"] not in tensors:
                raise ParamsError(
                    f"stage {document['kind']!r}: {name} names no tensor of this file"
                )
            parameters[name] = tensors[value["tensor"]]
        else:
            parameters[name] = value
    return Stage(document["kind"], parameters)


def _names(names: list[Any] | None, classes: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    if len(names) != classes or not all(isinstance(name, str) for name in names):
        raise ParamsError(f"'class_names' must be {classes} texts")
    return tuple(names)


def _refuse_constant(name: str) -> Any:
    raise ParamsError(f"{name} is not allowed: every number must be finite")


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ParamsError("a key occurs twice")
    return found


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
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
