"""The shape of the code: which part may import which, and how long a function may get."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "calibcli"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the top to the bottom: a part may import itself and the parts below it. Parts on one line
# may import each other. "" is the package itself, `calibcli/__init__.py`.
LAYERS = [
    ["__main__"],
    ["cli"],
    ["report"],
    ["", "api", "export", "frames", "sklearn", "torch_losses", "workflow"],
    ["fitting"],
    ["tables"],
    ["engine"],
    ["calibrators"],
    ["objectives"],
    ["metrics"],
    ["options", "params", "registry", "schema"],
    ["cached", "cell_sums", "value_counts"],
    ["arrays"],
    ["small_files"],
    ["errors", "interrupts", "visible"],
    ["version"],
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

# The mathematics knows of no file, no terminal and no device. Links are maps of losses.
MATHEMATICS = ["calibrators", "objectives", "metrics"]
BELOW_MATHEMATICS = ["arrays", "cached", "cell_sums", "value_counts", "errors", "registry"]

# What takes long to import is imported where it is used.
SLOW_IMPORTS = {"matplotlib", "scipy", "sklearn", "torch"}
MAY_IMPORT = {"sklearn": {"sklearn"}, "torch_losses": {"torch"}}

MOST_FUNCTION_LINES = 50

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def part(module: str) -> str:
    """The part of the package that a module belongs to: ``calibcli.cli.fit`` is of ``cli``."""
    return [*module.split("."), ""][1]


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(nodes: Iterable[ast.AST], package: str) -> Iterator[str]:
    """The full names of the modules that some nodes import, being in a package."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield name if base.startswith("calibcli") and is_module(name) else base


def nodes_at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: no function, no `if TYPE_CHECKING`."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            waiting.extend(ast.iter_child_nodes(node))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def own_imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, in functions too."""
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return {m for m in imports(ast.walk(parse(path)), package) if m.split(".")[0] == "calibcli"}


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    first = function.body[0]
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


def test_the_package_was_found() -> None:
    assert FILES


@each_file
def test_imports_point_down(path: Path) -> None:
    own = part(module_name(path))
    assert own in LEVEL, f"{own!r} has no place in LAYERS"
    upwards = {m for m in own_imports(path) if part(m) != own and LEVEL[part(m)] < LEVEL[own]}
    assert not upwards


@pytest.mark.parametrize("own", MATHEMATICS)
def test_mathematics_sees_only_arrays_and_errors(own: str) -> None:
    allowed = {own, *BELOW_MATHEMATICS, *({"objectives"} if own == "calibrators" else ())}
    seen = {module for path in (PACKAGE / own).rglob("*.py") for module in own_imports(path)}
    assert {module for module in seen if part(module) not in allowed} == set()


@each_file
def test_importing_is_fast(path: Path) -> None:
    imported = imports(nodes_at_import(parse(path)), "calibcli")
    slow = SLOW_IMPORTS - MAY_IMPORT.get(part(module_name(path)), set())
    assert not {module.split(".")[0] for module in imported} & slow


def test_nothing_imports_the_losses_of_training_loops() -> None:
    importing = {path for path in FILES if part(module_name(path)) != "torch_losses"}
    seen = {module for path in importing for module in own_imports(path)}
    assert "torch_losses" not in map(part, seen)


@each_file
def test_functions_are_short(path: Path) -> None:
    long = {
        node.name: code_lines(node)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and code_lines(node) > MOST_FUNCTION_LINES
    }
    assert not long


@each_file
def test_nothing_is_printed_past_the_console(path: Path) -> None:
    prints = [
        node.lineno
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not prints
