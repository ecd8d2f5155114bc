"""Values of arguments and options: their types, and how text becomes one.

The parser's own conversion depends on its version, and a recent one imports Pydantic for it, which
takes longer than anything else that a short command does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Any, get_args, get_origin, get_type_hints

import typer


class Trait(Enum):
    """What is special about the text of an option; it stands behind the option in `Annotated`."""

    WRITES_FILE = auto()
    """It names a file that the command writes."""

    NEEDS_TRUST = auto()
    """It can do harm, so that no file sets it that was not named: somebody else may have put it
    into a folder above."""

    MAY_BE_EMPTY = auto()
    """It names a class, whose name can be empty text."""


def value_type(hint: Any) -> type:
    """The type of one value: ``int`` of ``list[int] | None``."""
    while get_origin(hint) is not None:
        hint = next(each for each in get_args(hint) if each is not type(None))
    return hint if isinstance(hint, type) else str


def convert_values(parameters: Iterable[Any], function: Callable[..., Any] | None = None) -> None:
    """Let parameters turn text into values by `converted`, whatever the parser is.

    Parameters
    ----------
    parameters : iterable of click.Parameter
    function : callable or None
        What they are the parameters of; its hints are of bool, int, float, str or an enumeration,
        or lists of these. A parameter that it does not have is a switch or text.
    """
    hints = get_type_hints(function, include_extras=True) if function else {}
    for parameter in parameters:
        if "process_value" in vars(parameter):
            continue  # done before
        hint = hints.get(parameter.name, bool if getattr(parameter, "is_flag", False) else str)
        metadata: tuple[Any, ...] = getattr(hint, "__metadata__", ())
        info = metadata[0] if metadata else None
        traits = frozenset(each for each in metadata if isinstance(each, Trait))
        kind, least, most = value_type(hint), getattr(info, "min", None), getattr(info, "max", None)
        convert = functools.partial(
            converted, kind=kind, least=least, most=most, empty=Trait.MAY_BE_EMPTY in traits
        )
        parameter.traits = traits
        parameter.process_value = functools.partial(
            _process, parameter, convert, parameter.process_value
        )


def _process(
    parameter: Any,
    convert: Callable[[Any], Any],
    otherwise: Callable[[Any, Any], Any],
    context: Any,
    value: Any,
) -> Any:
    """What `process_value` of a parameter gives; a value that is missing is left to the parser."""
    several = parameter.multiple or parameter.nargs == -1
    if value is None or value == ():
        if parameter.required:
            return otherwise(context, value)
        value = () if several else None
    elif isinstance(value, list | tuple if several else str | int | float | Enum):
        try:
            value = [convert(each) for each in value] if several else convert(value)
        except ValueError as error:
            raise typer.BadParameter(str(error), ctx=context, param=parameter) from None
    else:
        return otherwise(context, value)
    callback = parameter.callback
    return value if callback is None else callback(context, parameter, value)


def converted(
    value: Any, *, kind: Any, least: float | None, most: float | None, empty: bool = False
) -> Any:
    """A value of a type.

    Parameters
    ----------
    value : str, bool, int, float or Enum
    kind : type
        bool, int, float, str or an enumeration.
    least, most : float or None
        Bounds of a number.
    empty : bool
        Whether text may be empty. Mostly that is a variable of a shell that was not set.

    Raises
    ------
    ValueError
        Text that is no such value, or a number beyond the bounds.
    """
    if issubclass(kind, Enum):
        return value if isinstance(value, kind) else _choice(str(value), kind)
    if kind not in (int, float):
        if value == "" and not empty:
            raise ValueError("is empty; a variable that is not set?")
        return value
    try:
        number = kind(value)
    except ValueError:
        word = "a whole number" if kind is int else "a number"
        raise ValueError(f"{value!r} is not {word}") from None
    shown = f"{value}"[:_DIGITS_SHOWN] + "…" * (len(f"{value}") > _DIGITS_SHOWN)
    if kind is int:
        # What counts something has to fit into an array, and into a float.
        least, most = (-_LARGEST if least is None else least), (_LARGEST if most is None else most)
    if least is not None and number < least:
        raise ValueError(f"{shown} is less than {least}")
    if most is not None and number > most:
        raise ValueError(f"{shown} is more than {most}")
    return number


_LARGEST, _DIGITS_SHOWN = 1 << 53, 24


def _choice(text: str, choices: type[Enum]) -> Enum:
    for choice in choices:
        if choice.value == text:
            return choice
    listed = ", ".join(repr(choice.value) for choice in choices)
    raise ValueError(f"{text!r} is not one of {listed}")
