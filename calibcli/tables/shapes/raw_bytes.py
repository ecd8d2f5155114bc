"""Scores that are bytes in a cell: what the bytes prove them to be, float64, 32, 16 or bfloat16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import UsageError
from calibcli.tables.formats.base import BFLOAT_TITLE, DataFile, Field, RowError
from calibcli.tables.kinds import TOLERANCE
from calibcli.tables.names import SCORES, FileFields, named_labels
from calibcli.tables.read_options import ReadOptions
from calibcli.tables.recipes import from_table
from calibcli.tables.shapes.base import OpenedFiles
from calibcli.tables.shapes.derived import first_rows, with_derived
from calibcli.tables.storage import Spool

_TYPES = {"float32": "<f4", "float64": "<f8", "float16": "<f2", BFLOAT_TITLE: "<u2"}
_LOOKED_AT = 4096
_LARGEST, _SMALLEST = 1e6, 1e-12
"""Of logits; and what of other numbers than 0 one in a hundred may be below."""


def read_bytes(opened: OpenedFiles, options: ReadOptions, _: Spool) -> OpenedFiles:
    """Make vectors of scores that are bytes; see `SHAPES`.

    Raises
    ------
    UsageError
        They may be numbers of several types.
    """
    first = opened.files[0]
    scores = _scores(FileFields.of(first), options)
    if scores is None:
        return opened
    kind, width = _proved(first, scores, options)
    numbers = RawNumbers(scores.name, kind, width)
    files = [with_derived(file, {scores.name: numbers}) for file in opened.files]
    said = {"bytes": f"{scores.name!r} holds {width} numbers of {kind} a row"}
    files[0] = replace(files[0], picked={**files[0].picked, **said})
    return replace(opened, files=tuple(files))


def _scores(fields: FileFields, options: ReadOptions) -> Field | None:
    """The field of scores, if it holds bytes."""
    if options.logits is not None:
        asked = fields.find(options.logits)
        return asked if asked is not None and _is_raw(asked) else None
    named = fields.named(SCORES)
    others = any(field.element == "float" for field in named)
    return next((field for field in named if _is_raw(field) and not others), None)


def _is_raw(field: Field) -> bool:
    kinds = ("binary", "large_binary", "fixed_size_binary")
    inside = field.type.rpartition("list<")[2]
    return field.element == "other" and (inside.startswith(kinds) or BFLOAT_TITLE in inside)


def _proved(file: DataFile, scores: Field, options: ReadOptions) -> tuple[str, int]:
    """The only type that the bytes can have, and how many numbers a row has.

    Raises
    ------
    UsageError
        There are several, or none.
    """
    fields = FileFields.of(file)
    labels = fields.find(options.labels) if options.labels else named_labels(fields)
    title = f"{fields.name}: {fields.title(scores)}"
    sample = first_rows(file, scores.name, _LOOKED_AT)
    try:
        rows = [each for each in _contents(sample, scores.name, None) if each]
    except RowError as error:
        raise UsageError(f"{title} holds bytes, of which row {error.row} {error}") from error
    size = len(rows[0]) if rows else 0
    least = options.class_count or _classes_of(file, labels)
    candidates = {
        kind: numbers
        for kind in ([BFLOAT_TITLE] if BFLOAT_TITLE in scores.type else _TYPES)
        if size
        and not size % np.dtype(_TYPES[kind]).itemsize
        and _fits((numbers := _numbers(b"".join(rows), kind, len(rows))).shape[1], least, options)
    }
    sums = {kind: each for kind, each in candidates.items() if _are_probabilities(each)}
    possible = sums or {kind: each for kind, each in candidates.items() if _may_be_logits(each)}
    if BFLOAT_TITLE in scores.type:
        possible = candidates
    if len(possible) == 1:
        ((kind, numbers),) = possible.items()
        return kind, int(numbers.shape[1])
    ways = " or ".join(
        f"{kind} ({each.shape[1]} a row): {_program(fields, scores, labels, kind)}"
        for kind, each in (possible or candidates).items()
    )
    if not ways:
        raise UsageError(
            f"{title} holds {size} bytes a row, which are no numbers of 16, 32 or 64 bits"
        )
    raise UsageError(f"{title} holds bytes that may be numbers of several types; say which: {ways}")


def _fits(width: int, least: int, options: ReadOptions) -> bool:
    if options.class_count is not None:
        return width == options.class_count
    return width >= least or (width == 1 and least <= 2)


def _classes_of(file: DataFile, labels: Field | None) -> int:
    """How many classes there must be at least, from the first labels that are numbers."""
    if labels is None or labels.axes != 1 or labels.element not in ("integer", "bool"):
        return 1
    batch = file.head((labels.name,), 0, _LOOKED_AT)
    stored = None if batch is None else batch.values(labels.name).values
    return 1 if stored is None or not len(stored) else max(1, int(stored.max()) + 1)


def _are_probabilities(numbers: NumpyArray) -> bool:
    if numbers.shape[1] < 2 or not np.isfinite(numbers).all() or numbers.min() < 0:
        return False
    return bool((np.abs(numbers.sum(axis=1, dtype=np.float64) - 1) <= TOLERANCE).all())


def _may_be_logits(numbers: NumpyArray) -> bool:
    with np.errstate(all="ignore"):  # NaN that signals is what other types look like
        sizes = np.abs(numbers[~np.isneginf(numbers)].astype(np.float64))
    if not np.isfinite(sizes).all() or sizes.max(initial=0) > _LARGEST:
        return False
    return bool((sizes[sizes > 0] < _SMALLEST).mean() <= 0.01) if (sizes > 0).any() else True


def _program(fields: FileFields, scores: Field, labels: Field | None, kind: str) -> str:
    named = None if labels is None else labels.name
    numbers = f"numpy.frombuffer(b''.join(c), {_TYPES[kind]!r}).reshape(len(c), -1)"
    if kind == BFLOAT_TITLE:
        numbers = f"({numbers}.astype('u4') * 65536).view('f4')"
    return from_table(fields.name, scores.name, named, numbers)


def _numbers(content: bytes, kind: str, rows: int) -> NumpyArray:
    """The numbers (n, C) of some rows of bytes, one after the other."""
    stored = np.frombuffer(content, _TYPES[kind]).reshape(rows, -1)
    if kind != BFLOAT_TITLE:
        return stored
    whole: NumpyArray = np.left_shift(stored, 16, dtype=np.uint32).view(np.float32)
    return whole


def _contents(array: Any, name: str, size: int | None) -> list[bytes]:
    """The bytes of each row; of lists those of all items.

    Raises
    ------
    RowError
        A row has none, or others than the first.
    """
    rows: list[bytes] = []
    for row, cell in enumerate(array.to_pylist()):
        if isinstance(cell, list) and cell and isinstance(cell[0], int):
            cell = np.asarray(cell, "<u2").tobytes()  # noqa: PLW2901
        elif isinstance(cell, list):
            cell = b"".join(each or b"" for each in cell)  # noqa: PLW2901
        if cell is None:
            raise RowError(row, f"column {name!r} has no value here")
        size = len(cell) if size is None else size
        if len(cell) != size:
            raise RowError(row, f"column {name!r} has {len(cell)} bytes here, elsewhere {size}")
        rows.append(cell)
    return rows


@dataclass(frozen=True)
class RawNumbers:
    """Vectors of the numbers that the bytes of a column are; a `Derivation`.

    Attributes
    ----------
    name : str
    kind : str
        A key of `_TYPES`.
    width : int
        Numbers of a row.
    """

    name: str
    kind: str
    width: int

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def type(self) -> Any:
        import pyarrow as pa

        types: Mapping[str, Any] = {"float64": pa.float64(), "float16": pa.float16()}
        return pa.list_(types.get(self.kind, pa.float32()), self.width)

    def column(self, batch: Any) -> Any:
        """The vector of each row.

        Raises
        ------
        RowError
            A row has no bytes, or others than the first.
        """
        import pyarrow as pa

        size = self.width * np.dtype(_TYPES[self.kind]).itemsize
        rows = _contents(batch.column(self.name), self.name, size)
        numbers = _numbers(b"".join(rows), self.kind, max(len(rows), 1))
        flat = pa.array(np.ascontiguousarray(numbers).reshape(-1), self.type.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, self.width)
