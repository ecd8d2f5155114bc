"""Options of methods and losses: the fields of their dataclasses, set by name from text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from calibcli.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """An option of a method or a loss, as ``calib methods`` and ``calib losses`` show it."""

    name: str
    default: Any
    help: str
    choices: tuple[str | int, ...] = ()
    optional: bool = False
    least: float | None = None


def options_of(family: type[Any]) -> list[Option]:
    """The options that a dataclass offers: its fields that have a help text.

    The values of a `Literal` type are its choices.
    """
    hints = get_type_hints(family)
    return [
        Option(
            entry.name.replace("_", "-"),
            None if entry.default is MISSING else entry.default,
            entry.metadata["help"],
            get_args(hints[entry.name]) if get_origin(hints[entry.name]) is Literal else (),
            type(None) in get_args(hints[entry.name]),
            entry.metadata.get("least"),
        )
        for entry in fields(family)
        if "help" in entry.metadata
    ]


def settings_of(instance: Any) -> dict[str, Any]:
    """The options in force of a method or a loss, by the names of its fields."""
    return {
        entry.name: getattr(instance, entry.name)
        for entry in fields(instance)
        if "help" in entry.metadata
    }


def parse_settings(settings: Iterable[str]) -> dict[str, dict[str, str]]:
    """``["svs.penalty=0.5"]`` as ``{"svs": {"penalty": "0.5"}}``."""
    parsed: dict[str, dict[str, str]] = {}
    for setting in settings:
        target, equals, value = setting.partition("=")
        name, dot, option = target.strip().partition(".")
        if not (equals and dot and name and option):
            raise UsageError(f"--set {setting!r} is not of the form NAME.OPTION=VALUE")
        parsed.setdefault(name, {})[option] = value.strip()
    return parsed


def build(family: type[T], name: str, settings: dict[str, str]) -> T:
    """An instance of a dataclass with some options set from text.

    Raises
    ------
    UsageError
        An option that there is not, or a value that it can't have; lists what there is.
    """
    known = {option.name: option for option in options_of(family)}
    values: dict[str, Any] = {}
    for given, text in settings.items():
        option = known.get(given.replace("_", "-"))
        if option is None:
            listed = ", ".join(f"{o.name} (default {o.default})" for o in known.values())
            raise UsageError(
                f"{name} has no option {given!r}; "
                + (f"it has: {listed}" if known else "it has none")
            )
        values[option.name.replace("-", "_")] = _convert(name, option, text)
    try:
        return family(**values)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


def _convert(name: str, option: Option, text: str) -> Any:
    if option.choices:
        for choice in option.choices:
            if text == str(choice):
                return choice
        raise UsageError(f"{name}.{option.name} is one of {', '.join(map(str, option.choices))}")
    if text.lower() in ("none", "auto") and option.optional:
        return None
    kind = float if option.default is None else type(option.default)
    read, wanted = _READERS[kind]
    try:
        value = read(text)
    except ValueError:
        raise UsageError(f"{name}.{option.name} must be {wanted}, not {text!r}") from None
    if option.least is not None and value < option.least:
        raise UsageError(f"{name}.{option.name} must be at least {option.least:g}, not {text}")
    return value


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "yes", "false", "no"):
        raise ValueError(text)
    return text.lower() in ("true", "yes")


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


_READERS: dict[type, tuple[Callable[[str], Any], str]] = {
    bool: (_boolean, "true or false"),
    int: (int, "a whole number"),
    float: (_finite, "a finite number"),
    str: (str, "text"),
}
