"""A calibrator as one function of Python that needs NumPy alone and that a person can read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.export.graph import Graph, Node, dependencies_first
from calibcli.export.recording import RecordedCalibrator
from calibcli.version import __version__

_LONGEST = 72
"""Characters of an expression that is written where it is used."""

_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "floordiv": "//",
    "pow": "**",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
    "and": "&",
    "or": "|",
    "matmul": "@",
}

_HEAD = '''"""Calibrated probabilities, exported by calib {version}.

Needs NumPy alone. Stages: {stages}.
"""

import numpy as np
from numpy import inf, nan  # noqa: F401

CLASS_NAMES = {names}
{more}

def calibrate(scores{argument}):
    """Probabilities (n, K) of {kind} (n, K){sentence}."""
    scores = np.asarray(scores, dtype=np.float64)
    rows = np.arange(len(scores))
    with np.errstate(all="ignore"):
'''


def python_source(program: RecordedCalibrator) -> str:
    """The text of a module with a function ``calibrate``."""
    params = program.params
    grouped = bool(program.groups)
    more = ""
    if grouped:
        more += f"GROUPS = {program.groups!a}\n"
    if params.reading:
        more += f"READING = {params.reading!a}\n"
    lines = _Lines(program.graph).written()
    head = _HEAD.format(
        version=__version__,
        stages=", ".join(program.stages) or "none",
        names=ascii(program.class_names),
        more=more,
        argument=", group" if grouped else "",
        kind=params.input,
        sentence="; the group of each row by its number in GROUPS, -1 for any other"
        if grouped
        else "",
    )
    grouping = "        group = np.asarray(group)\n" if grouped else ""
    return head + grouping + "\n".join(" " * 8 + line for line in lines) + "\n"


class _Lines:
    """The lines of the function's body: an assignment for what is used twice or is long."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._nodes = dependencies_first([graph.outputs["probs"]])
        self._uses: dict[int, int] = {}
        for node in self._nodes:
            for each in node.inputs:
                self._uses[id(each)] = self._uses.get(id(each), 0) + 1
        self._texts: dict[int, str] = {}
        self._lines: list[str] = []
        self._stage = ""

    def written(self) -> list[str]:
        """The lines, the last one of which returns the probabilities."""
        for node in self._nodes:
            self._write(node)
        return [*self._lines, f"return {self._texts[id(self._nodes[-1])]}"]

    def _write(self, node: Node) -> None:
        if node.op == "input":
            self._texts[id(node)] = "rows" if node.value == "row numbers" else str(node.value)
            return
        if node.op == "constant":
            text = literal(node.value)
            plain = node.value.ndim == 0
        else:
            text = _expression(node, [self._texts[id(each)] for each in node.inputs])
            plain = self._uses.get(id(node), 0) < 2 and len(text) < _LONGEST
        if plain or node is self._nodes[-1]:
            self._texts[id(node)] = text
            return
        if node.stage and node.stage != self._stage:
            self._stage = node.stage
            # A kind is a name of small letters, digits and hyphens.
            self._lines.append(f"# {node.stage}")
        name = f"v{len(self._lines)}"
        self._lines.append(
            f"{name} = {text.removeprefix('(').removesuffix(')')}"
            if _whole(text)
            else f"{name} = {text}"
        )
        self._texts[id(node)] = name


def _whole(text: str) -> bool:
    """Whether one pair of brackets is around all of an expression."""
    if not text.startswith("("):
        return False
    depth = 0
    for place, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return place == len(text) - 1
    return False


def literal(values: NumpyArray) -> str:
    """An array as NumPy's function makes it, all digits kept."""
    if values.ndim == 0:
        return repr(values.item())
    return f"np.array({np.asarray(values).tolist()!r})"


def _expression(node: Node, inputs: list[str]) -> str:
    if node.op in _INFIX:
        return f"({inputs[0]} {_INFIX[node.op]} {inputs[1]})"
    if node.op in _WRITTEN:
        return _WRITTEN[node.op](node, inputs)
    return f"np.{node.op}({', '.join(inputs)})"


def _over_classes(node: Node, inputs: list[str]) -> str:
    return f"np.{node.op}({inputs[0]}, axis=1)"


_WRITTEN: dict[str, Callable[[Node, list[str]], str]] = {
    "neg": lambda _, x: f"(-{x[0]})",
    "not": lambda _, x: f"(~{x[0]})",
    **dict.fromkeys(("sum", "max", "min", "argmax", "any", "all", "sort"), _over_classes),
    "argsort": lambda _, x: f"np.argsort({x[0]}, axis=1, kind='stable')",
    "cast": lambda node, x: f"{x[0]}.astype(np.{node.dtype.name})",
    "take": lambda _, x: f"{x[0]}[{x[1]}]",
    "pick": lambda _, x: f"{x[0]}[rows, {x[1]}]",
    "widen": lambda _, x: f"{x[0]}[:, None]",
    "column": lambda node, x: f"{x[0]}[:, {node.value[0]}]",
    "columns": lambda node, x: f"{x[0]}[:, {list(node.value)}]",
    "fill": lambda node, x: f"np.broadcast_to({x[0]}, {_shape(node)})",
    "concat": lambda _, x: f"np.concatenate([{', '.join(x)}], axis=1)",
    "take along": lambda _, x: f"np.take_along_axis({', '.join(x)}, axis=1)",
}


def _shape(node: Node) -> str:
    return f"({', '.join(['len(scores)', *map(str, node.shape[1:])])},)".replace(",,", ",")
