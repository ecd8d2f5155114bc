"""One word for one thing: no public name stands in two modules, and no file name twice."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "calibcli"
FILES = sorted(PACKAGE.rglob("*.py"))

# Files with one purpose in several packages: what a package is, its contract, its registry.
SHARED_FILES = {"__init__.py", "base.py", "registry.py"}

# Each command adds itself to the application by a function of this name.
SHARED_NAMES = {"register"}

# The losses for torch have the names of the objectives that they are.
TWINS = ("objectives", "torch_losses")


def assigned(node: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module defines; imports define none."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign) and not is_type_variable(node):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            yield from (each.id for each in ast.walk(target) if isinstance(each, ast.Name))
    elif isinstance(node, ast.If | ast.Try):
        for part in (node.body, node.orelse):
            for inner in part:
                yield from assigned(inner)


def is_type_variable(node: ast.Assign | ast.AnnAssign) -> bool:
    value = node.value
    return isinstance(value, ast.Call) and ast.unparse(value.func) in {"TypeVar", "ParamSpec"}


def modules_by_name() -> dict[str, set[str]]:
    """Each public name with the modules that define it."""
    modules = defaultdict(set)
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for name in assigned(node):
                if not name.startswith("_"):
                    modules[name].add(path.relative_to(PACKAGE).as_posix())
    return modules


def are_twins(modules: set[str]) -> bool:
    return sorted(module.split("/")[0] for module in modules) == list(TWINS)


def test_no_public_name_stands_in_two_modules() -> None:
    doubled = {
        name: sorted(modules)
        for name, modules in modules_by_name().items()
        if len(modules) > 1 and name not in SHARED_NAMES and not are_twins(modules)
    }
    assert not doubled


def test_no_file_name_stands_twice() -> None:
    places = defaultdict(list)
    for path in FILES:
        places[path.name].append(path.relative_to(PACKAGE).as_posix())
    doubled = {name for name, paths in places.items() if len(paths) > 1} - SHARED_FILES
    assert not doubled, {name: places[name] for name in doubled}


def test_what_is_shared_is_there() -> None:
    modules = modules_by_name()
    assert all(len(modules[name]) > 1 for name in SHARED_NAMES)
    names = [path.name for path in FILES]
    assert all(names.count(name) > 1 for name in SHARED_FILES)
