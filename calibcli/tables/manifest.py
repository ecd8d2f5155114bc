"""The list of the parts of a folder, written last: what it does not name does not count."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from calibcli.errors import DataError

MANIFEST = "_calib_manifest.json"
"""Its name; readers of folders pass over files whose names begin so."""

PART_NAME = re.compile(r"part-\d{5,}(-[0-9a-f]{12})?\.parquet")
"""What a part is called; on object stores with a mark of the run that wrote it."""


@dataclass(frozen=True)
class WrittenPart:
    """A file of a folder of parts.

    Attributes
    ----------
    name : str
        Within the folder.
    rows, size : int
        Its rows and bytes.
    """

    name: str
    rows: int
    size: int


def encode_manifest(parts: Sequence[WrittenPart] | None) -> bytes:
    """The manifest of parts in the order of their rows, or of a folder that is being written."""
    listed = [{"file": part.name, "rows": part.rows, "bytes": part.size} for part in parts or ()]
    document = {
        "format": "calib-parts",
        "version": 1,
        "complete": parts is not None,
        "rows": sum(part.rows for part in parts or ()),
        "parts": listed,
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def decode_manifest(content: bytes, shown: str) -> list[WrittenPart] | None:
    """The parts that a manifest names; None of a folder that is not complete.

    Raises
    ------
    DataError
        It is no manifest that this version can read.
    """
    try:
        document: Any = json.loads(content)
        if document["format"] != "calib-parts" or document["version"] != 1:
            raise DataError(f"{shown}: is of another version of calib")
        parts = [
            WrittenPart(part["file"], part["rows"], part["bytes"]) for part in document["parts"]
        ]
        usable = all(
            isinstance(part.name, str)
            and PART_NAME.fullmatch(part.name)
            and type(part.rows) is type(part.size) is int
            for part in parts
        )
        complete = document["complete"] is True
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{shown}: is no list of parts that calib wrote") from error
    if not usable or len({part.name for part in parts}) < len(parts):
        raise DataError(f"{shown}: its list of parts cannot be right")
    return parts if complete else None


def whole_parts(
    parts: Sequence[WrittenPart] | None, sizes: dict[str, int], folder: str
) -> list[str]:
    """The names of the parts in their order, all of which are there.

    Parameters
    ----------
    parts : sequence of WrittenPart, or None
        As `decode_manifest` returns them.
    sizes : dict of str to int
        Bytes of each file in the folder.

    Raises
    ------
    DataError
        The folder is not complete, or has been changed.
    """
    if parts is None:
        raise DataError(
            f"{folder}: is being written, or its writing was broken off; calib apply --force "
            "writes it anew"
        )
    for part in parts:
        size = sizes.get(part.name)
        if size != part.size:
            what = "is missing" if size is None else f"has {size:,} bytes, not {part.size:,}"
            raise DataError(f"{folder}: {part.name} {what}; see {MANIFEST} there")
    return [part.name for part in parts]
