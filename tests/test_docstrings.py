"""The examples in docstrings print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "calibcli").rglob("*.py"))
    if "    >>> " in path.read_text(encoding="utf-8")
]


def test_there_are_examples() -> None:
    assert "calibcli.calibrators.temperature" in MODULES


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str) -> None:
    failed, attempted = doctest.testmod(import_module(name), extraglobs={"np": np})
    assert attempted
    assert not failed
