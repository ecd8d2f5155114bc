"""What a calibrator can be exported to, by the name of the target and the suffix of its file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from calibcli.errors import UsageError
from calibcli.export.onnx_model import append_to, onnx_model
from calibcli.export.python_source import python_source
from calibcli.export.recording import RecordedCalibrator, Vectors
from calibcli.export.row_source import c_header, c_source, javascript_source
from calibcli.export.sql_query import SqlQuery, sql_source
from calibcli.export.torch_module import exported_program


@dataclass(frozen=True)
class Target:
    """A language or format.

    Attributes
    ----------
    suffix : str
        Of its files.
    title : str
        What it is, in a few words.
    write : callable
        A program, and of SQL the query that is wanted -> the files by suffix, the first of which is
        of `suffix`.
    precision : str
        In which it computes where nothing else is asked for.
    precisions : tuple of str
        In which it can.
    """

    suffix: str
    title: str
    write: Callable[[RecordedCalibrator, SqlQuery | None], dict[str, bytes]]
    precision: str = "float64"
    precisions: tuple[str, ...] = ("float64",)


_BOTH = ("float32", "float64")

TARGETS = {
    "onnx": Target(
        ".onnx",
        "an ONNX model",
        lambda program, _: {".onnx": onnx_model(program).SerializeToString()},
        "float32",
        _BOTH,
    ),
    "torch": Target(
        ".pt2",
        "a program of torch.export",
        lambda program, _: {".pt2": exported_program(program)},
        "float32",
        _BOTH,
    ),
    "python": Target(
        ".py",
        "a function of Python that needs NumPy alone",
        lambda program, _: {".py": python_source(program).encode()},
    ),
    "javascript": Target(
        ".mjs",
        "an ECMAScript module",
        lambda program, _: {".mjs": javascript_source(program).encode()},
    ),
    "c": Target(
        ".c",
        "C99 with a header, without allocation",
        lambda program, _: {".c": c_source(program).encode(), ".h": c_header(program).encode()},
    ),
    "sql": Target(
        ".sql",
        "a query over a table of scores",
        lambda program, query: {".sql": sql_source(program, query).encode()},
    ),
}
"""By the name that ``--to`` takes."""


def target_of(path: str, name: str | None) -> Target:
    """The target of a name, or of the suffix of a file.

    Raises
    ------
    UsageError
        There is none.
    """
    if name is not None:
        if name not in TARGETS:
            raise UsageError(f"--to {name!r} is not known; there are {', '.join(TARGETS)}")
        return TARGETS[name]
    suffix = PurePath(path).suffix.lower()
    for target in TARGETS.values():
        if target.suffix == suffix:
            return target
    known = ", ".join(target.suffix for target in TARGETS.values())
    raise UsageError(f"{path}: what is it to be? Its name may end in {known}, or name it by --to")


def files_beside(path: str, contents: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The names of files and what is in them: the first is ``path``, others have its name."""
    for place, (suffix, content) in enumerate(contents.items()):
        yield (path if place == 0 else str(PurePath(path).with_suffix(suffix))), content


def appended(
    path: str, program_of: Callable[[Any], RecordedCalibrator], output: str | None
) -> bytes:
    """The bytes of somebody's ONNX model with the calibrator on its end."""
    content: bytes = append_to(path, program_of, output).SerializeToString()
    return content


def vector_files(vectors: Vectors) -> dict[str, bytes]:
    """The vectors as NPZ and as JSON, by what is added to the name of the export."""
    arrays = {**vectors.arrays(), "probs": vectors.probs}
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    # JSON has no infinity.
    plain = {name: _listed(array) for name, array in arrays.items()}
    text = json.dumps(plain, allow_nan=False) + "\n"
    return {".vectors.npz": file.getvalue(), ".vectors.json": text.encode()}


def _listed(array: Any) -> Any:
    if array.ndim == 2:
        return [_listed(row) for row in array]
    return [value if np.isfinite(value) else str(value) for value in array.tolist()]
