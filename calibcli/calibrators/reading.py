"""Reading a stage's parameters: every name, shape and number checked before it is believed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from calibcli.errors import ParamsError


def check_names(kind: str, parameters: dict[str, Any], names: Iterable[str]) -> None:
    """Raise `ParamsError` unless the parameters have exactly these names."""
    expected = set(names)
    unknown, missing = sorted(set(parameters) - expected), sorted(expected - set(parameters))
    if unknown:
        raise ParamsError(f"stage {kind!r}: unknown parameter {unknown[0]!r}")
    if missing:
        raise ParamsError(f"stage {kind!r}: parameter {missing[0]!r} is missing")


def check_binary(kind: str, classes: int) -> None:
    """Raise `ParamsError` unless there are two classes."""
    if classes != 2:
        raise ParamsError(f"stage {kind!r} is for two classes, not {classes}")


def read_number(
    kind: str, parameters: dict[str, Any], name: str, *, positive: bool = False
) -> float:
    """A finite number."""
    value = parameters[name]
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ParamsError(f"stage {kind!r}: {name} must be a number, not {value!r}")
    if not np.isfinite(value) or (positive and value <= 0):
        wanted = "finite and greater than 0" if positive else "finite"
        raise ParamsError(f"stage {kind!r}: {name} is {value}; it must be {wanted}")
    return float(value)


def read_array(
    kind: str, parameters: dict[str, Any], name: str, shape: tuple[int, ...] | None
) -> np.ndarray[Any, Any]:
    """A float64 array of finite numbers with this shape; None is for a row of any length."""
    try:
        array = np.asarray(parameters[name])
    except ValueError:
        raise ParamsError(f"stage {kind!r}: {name} is not an array of numbers") from None
    if shape is None and array.ndim == 1:
        shape = array.shape
    if array.shape != shape:
        wanted = "a row of numbers" if shape is None else shape
        raise ParamsError(f"stage {kind!r}: {name} has shape {array.shape}, not {wanted}")
    if not isinstance(parameters[name], np.ndarray) or array.dtype.kind not in "iuf":
        # NumPy takes true for 1 where other numbers are around.
        elements = np.asarray(parameters[name], dtype=object)
        for place in np.ndindex(array.shape):
            if isinstance(elements[place], bool) or not isinstance(elements[place], (int, float)):
                raise ParamsError(f"stage {kind!r}: {name}{list(place)} is not a number")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ParamsError(f"stage {kind!r}: {name}{where} is not a finite number")
    return array


def read_choice(kind: str, parameters: dict[str, Any], name: str, choices: tuple[str, ...]) -> str:
    """One of some texts."""
    value = parameters[name]
    for choice in choices:
        if value == choice:
            return choice
    raise ParamsError(
        f"stage {kind!r}: {name} is {value!r}; it must be one of {', '.join(choices)}"
    )


def read_sizes(kind: str, parameters: dict[str, Any], name: str, first: int) -> tuple[int, ...]:
    """Sizes of a network's layers, from a known number of inputs to a single output."""
    value = parameters[name]
    if isinstance(value, np.ndarray):
        value = value.tolist()
    sane = (
        isinstance(value, list)
        and 2 <= len(value) <= 16
        and all(type(size) is int and 1 <= size <= 1024 for size in value)
    )
    if not sane or value[0] != first or value[-1] != 1:
        raise ParamsError(f"stage {kind!r}: {name} must be a list of sizes from {first} to 1")
    return tuple(value)
