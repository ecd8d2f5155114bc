"""The examples in docstrings print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest

import calibcli
from calibcli import CalibError

ROOT = Path(__file__).resolve().parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "calibcli").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


def test_there_are_examples() -> None:
    assert "calibcli.calibrators.temperature" in MODULES


def test_whatever_can_be_called_in_the_public_interface_has_an_example() -> None:
    public = {name: getattr(calibcli, name) for name in calibcli.__all__}
    classes = [value for value in public.values() if isinstance(value, type)]
    methods = {
        f"{each.__name__}.{name}": value
        for each in classes
        if not issubclass(each, CalibError)
        for name, value in vars(each).items()
        if isinstance(value, FunctionType) and not name.startswith("_")
    }
    functions = {name: value for name, value in public.items() if isinstance(value, FunctionType)}
    assert len(methods) >= 3
    assert len(functions) >= 4
    without = [name for name, value in (methods | functions).items() if ">>> " not in value.__doc__]
    assert without == []


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str) -> None:
    failed, attempted = doctest.testmod(import_module(name), extraglobs={"np": np})
    assert attempted
    assert not failed
