"""Checks of option values."""

from __future__ import annotations

from typing import get_args, get_type_hints

from calibcli.errors import UsageError
from calibcli.objectives.base import Objective


def check_range(
    objective: Objective, name: str, low: float = 0.0, high: float = float("inf")
) -> None:
    """Raise `UsageError` unless an option is a number from ``low`` to ``high``."""
    value = getattr(objective, name)
    if not low <= value <= high or value == float("inf"):
        bounds = f"from {low:g} to {high:g}" if high < float("inf") else f"of at least {low:g}"
        raise UsageError(f"{objective.name}.{name} is {value}; it must be a number {bounds}")


def check_choice(objective: Objective, name: str) -> None:
    """Raise `UsageError` unless an option is one of those that its `Literal` type lists."""
    value = getattr(objective, name)
    choices = get_args(get_type_hints(type(objective))[name])
    if value not in choices:
        listed = ", ".join(map(str, choices))
        raise UsageError(f"{objective.name}.{name} is {value!r}; it must be one of {listed}")
