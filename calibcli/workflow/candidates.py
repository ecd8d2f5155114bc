"""The methods that `auto` tries, by the number of classes and of rows."""

from __future__ import annotations

from calibcli.calibrators.registry import MAPS
from calibcli.workflow.plans import split_strength, stage_names

_TWO_CLASSES = (
    "ensemble-temperature",
    "platt",
    "quadratic",
    "svs",
    "svs*10",
    "monotone,svs",
    "curved-svs",
    "curved-svs*10",
    "spline",
    "venn-abers",
)
"""Of two classes `sms` and `beta` have the features of `svs`, with other penalties or none."""

_MANY_CLASSES = (
    "ensemble-temperature",
    "gap-temperature",
    "monotone",
    "svs",
    "svs*10",
    "curved-svs",
    "curved-svs*10",
    "vector",
    "spline",
    "sms",
    "sms*10",
    "sms/10",
    "curved-sms",
    "curved-sms*10",
    "curved-sms/10",
    "dirichlet",
    "gap-temperature,sms",
    "gap-temperature,sms/10",
)
_VERY_MANY_CLASSES = ("curved-svs,low-rank", "curved-svs,low-rank/3")
"""Beside these from `_LEAST_FOR_FEATURES` classes on: `sms` has too many numbers for most rows."""

_LEAST_FOR_FEATURES = 30
"""More than the twenty features of `low-rank`, so that these are few."""

_CHEAP = {True: ("platt", "beta"), False: ("svs",)}
"""Methods that are always worth a look, of two classes and of more."""

_FEW_ROWS = 1000
"""With fewer rows of two classes, maps that are shrunken towards the identity have a chance too."""

_COSTLY = ("sms", "dirichlet", "spline")
_MOST_CLASSES_FOR_COSTLY = 200
"""With more classes, what has a matrix or a curve for each of them takes minutes."""


def candidates(classes: int, rows: float) -> list[str]:
    """Methods that suit so many classes and rows, from the simplest; `none` is always one."""
    suited = []
    names = _TWO_CLASSES if classes == 2 else _MANY_CLASSES
    if classes >= _LEAST_FOR_FEATURES:
        names = (*names, *_VERY_MANY_CLASSES)
    for name in names:
        method, _ = split_strength(name)
        needed = max(MAPS[part]().rows_needed(classes) for part in stage_names(method))
        costly = method.endswith(_COSTLY) and classes > _MOST_CLASSES_FOR_COSTLY
        if rows >= needed and not costly:
            suited.append(name)
    return ["none", "temperature", "ridge-temperature", *suited]


def cheap_candidates(classes: int, rows: float) -> list[str]:
    """Up to six methods that cost next to nothing, the simplest first."""
    names = _CHEAP[classes == 2]
    if classes == 2 and rows < _FEW_ROWS:
        names = ("ridge-temperature", *names, "svs")
    suited = [name for name in names if rows >= MAPS[name]().rows_needed(classes)]
    return ["none", "temperature", *suited]
