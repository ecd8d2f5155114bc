"""Names of inputs, groups and classes, made short enough for a table or a diagram."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

LONGEST_NAME = 24
"""Characters of the name of a group or a slice in a table."""


def short_names(names: Sequence[str]) -> list[str]:
    """The ends of paths, with as many folders as it takes to tell them apart."""
    parts = [PurePath(name).parts or (name,) for name in names]
    for length in range(1, max(map(len, parts), default=0) + 1):
        short = ["/".join(path[-length:]) for path in parts]
        if len(set(short)) == len(set(names)):
            return short
    return list(names)


def cut(name: str, longest: int = LONGEST_NAME) -> str:
    """The beginning of a name that is too long."""
    return name if len(name) <= longest else f"{name[: longest - 3]}..."


def cut_inside(name: str, longest: int, ellipsis: str = "…") -> str:
    """The beginning and the end of a name that is too long: paths differ at both."""
    if len(name) <= longest:
        return name
    end = longest // 2
    return name[: longest - end - 1] + ellipsis + name[-end:]
