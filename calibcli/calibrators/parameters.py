"""Reading a stage's parameters: every name, shape and number is checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import ParamsError

_MOST_STAGES = 64
_MOST_LAYERS, _WIDEST_LAYER = 16, 1024
_LONGEST_TEXT = 200
"""Bounds on what a file may ask for, far above any fit."""


@dataclass(frozen=True)
class Parameters:
    """The parameters of one stage of a parameter file.

    Each method reads one of them by its name and raises `ParamsError` where it is not as it must
    be; the message names the stage.

    Parameters
    ----------
    kind : str
        Kind of the stage.
    values : dict
        Numbers, texts, lists and NumPy arrays by name.
    kinds : mapping of str to type
        The calibrators that stages inside of this one may be of.
    """

    kind: str
    values: Mapping[str, Any]
    kinds: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def error(self, what: str) -> ParamsError:
        """The error to raise, which says what is wrong with this stage."""
        return ParamsError(f"stage {self.kind!r}: {what}")

    def expect(self, *names: str) -> None:
        """Refuse any other names than these, and that one of these is missing."""
        unknown, missing = sorted({*self.values} - {*names}), sorted({*names} - {*self.values})
        if unknown:
            raise self.error(f"unknown parameter {unknown[0]!r}")
        if missing:
            raise self.error(f"parameter {missing[0]!r} is missing")

    def for_two_classes(self, classes: int) -> None:
        """Refuse any other number of classes than two."""
        if classes != 2:
            raise ParamsError(f"stage {self.kind!r} is for two classes, not {classes}")

    def split(self, *names: str) -> tuple[Parameters, Parameters]:
        """The parameters of some names, and all others."""
        first = {name: value for name, value in self.values.items() if name in names}
        rest = {name: value for name, value in self.values.items() if name not in names}
        return replace(self, values=first), replace(self, values=rest)

    def number(self, name: str, *, positive: bool = False) -> float:
        """A finite number, greater than 0 where it must be positive."""
        value = self[name]
        if isinstance(value, np.ndarray) and value.ndim == 0:
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(f"{name} must be a number, not {value!r}")
        if not np.isfinite(value) or (positive and value <= 0):
            wanted = "finite and greater than 0" if positive else "finite"
            raise self.error(f"{name} is {value}; it must be {wanted}")
        return float(value)

    def array(
        self, name: str, shape: tuple[int, ...] | None, *, within: float = np.inf
    ) -> NumpyArray:
        """A float64 array of finite numbers with this shape; None is for a row of any length.

        None of them lies farther from 0 than ``within``.
        """
        try:
            array = np.asarray(self[name])
        except ValueError:
            raise self.error(f"{name} is not an array of numbers") from None
        if shape is None and array.ndim == 1:
            shape = array.shape
        if array.shape != shape:
            wanted = "a row of numbers" if shape is None else shape
            raise self.error(f"{name} has shape {array.shape}, not {wanted}")
        if not isinstance(self[name], np.ndarray) or array.dtype.kind not in "iuf":
            # NumPy takes true for 1 where other numbers are around.
            elements = np.asarray(self[name], dtype=object)
            for place in np.ndindex(array.shape):
                element = elements[place]
                if isinstance(element, bool) or not isinstance(element, (int, float)):
                    raise self.error(f"{name}{list(place)} is not a number")
        array = array.astype(np.float64)
        if not np.isfinite(array).all():
            where = np.argwhere(~np.isfinite(array))[0].tolist()
            raise self.error(f"{name}{where} is not a finite number")
        if len(array) and np.abs(array).max() > within:
            raise self.error(f"{name} has a number beyond {within:g}")
        return array

    def matrix(self, name: str, columns: int) -> NumpyArray:
        """A float64 array of finite numbers with so many columns and any number of rows."""
        value = self[name]
        has_rows = isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim > 0)
        return self.array(name, (len(value) if has_rows else 0, columns))

    def choice(self, name: str, choices: tuple[Any, ...]) -> Any:
        """One of some texts, as it stands in the file."""
        for choice in choices:
            if self[name] == choice:
                return choice
        raise self.error(f"{name} is {self[name]!r}; it must be one of {', '.join(choices)}")

    def texts(self, name: str, count: int) -> tuple[str, ...]:
        """So many short texts."""
        value = self[name]
        sane = isinstance(value, list) and all(
            isinstance(text, str) and len(text) <= _LONGEST_TEXT for text in value
        )
        if not sane or len(value) != count:
            raise self.error(f"{name} must be a list of {count} short texts")
        return tuple(value)

    def sizes(self, name: str, first: int) -> tuple[int, ...]:
        """Sizes of a network's layers, from a known number of inputs to a single output."""
        value = self[name]
        if isinstance(value, np.ndarray):
            value = value.tolist()
        sane = (
            isinstance(value, list)
            and 2 <= len(value) <= _MOST_LAYERS
            and all(type(size) is int and 1 <= size <= _WIDEST_LAYER for size in value)
        )
        if not sane or value[0] != first or value[-1] != 1:
            raise self.error(f"{name} must be a list of sizes from {first} to 1")
        return tuple(value)

    def stages(self, name: str, classes: int) -> tuple[Any, ...]:
        """The calibrators (for K classes) that a list of stages describes."""
        return self._stages(self[name], name, classes)

    def stage_lists(self, name: str, classes: int) -> tuple[tuple[Any, ...], ...]:
        """The calibrators (for K classes) of each of several lists of stages."""
        if not isinstance(self[name], list):
            raise self.error(f"{name} must be a list of lists of stages")
        return tuple(
            self._stages(value, f"{name}[{place}]", classes)
            for place, value in enumerate(self[name])
        )

    def _stages(self, value: Any, name: str, classes: int) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > _MOST_STAGES:
            raise self.error(f"{name} must be a list of stages")
        stages = []
        for entry in value:
            if not isinstance(entry, dict) or set(entry) != {"kind", "parameters"}:
                raise self.error(f"{name} must be stages of 'kind' and 'parameters'")
            kind, values = entry["kind"], entry["parameters"]
            if not isinstance(kind, str) or kind not in self.kinds:
                raise self.error(f"{name} has the unknown kind {kind!r}")
            if not isinstance(values, dict):
                raise self.error(f"{name} has parameters that are no object")
            inner = Parameters(kind, values, self.kinds)
            stages.append(self.kinds[kind].from_parameters(inner, classes))
        return tuple(stages)
