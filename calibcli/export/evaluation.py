"""A graph, computed with NumPy: what every other target is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.export.graph import ELEMENTWISE, REDUCTIONS, Graph, Node


def evaluate_graph(graph: Graph, inputs: Mapping[str, NumpyArray]) -> dict[str, NumpyArray]:
    """The outputs by name, from the inputs by name: scores (n, K), and groups (n,) where used."""
    rows = len(inputs["scores"])
    known = {**inputs, "row numbers": np.arange(rows)}
    values: dict[int, NumpyArray] = {}
    with np.errstate(all="ignore"):
        for node in graph.nodes():
            operands = [values[id(each)] for each in node.inputs]
            values[id(node)] = _value(node, operands, known)
    return {name: values[id(node)] for name, node in graph.outputs.items()}


def _value(node: Node, operands: list[NumpyArray], known: Mapping[str, NumpyArray]) -> NumpyArray:
    if node.op == "constant":
        constant: NumpyArray = node.value
        return constant
    if node.op == "input":
        return known[node.value]
    if node.op in ELEMENTWISE:
        result: NumpyArray = ELEMENTWISE[node.op][0](*operands)
        return result
    if node.op in REDUCTIONS:
        reduced: NumpyArray = REDUCTIONS[node.op][0](*operands, axis=-1)
        return reduced
    other: NumpyArray = _OTHERS[node.op](node, *operands)
    return other


_OTHERS: dict[str, Callable[..., Any]] = {
    "cast": lambda node, array: array.astype(node.dtype),
    "matmul": lambda _, array, matrix: array @ matrix,
    "take": lambda _, table, places: table[places],
    "pick": lambda _, array, column: array[np.arange(len(array)), column],
    "widen": lambda _, array: array[:, None],
    "column": lambda node, array: array[:, node.value[0]],
    "columns": lambda node, array: array[:, list(node.value)],
    "fill": lambda node, row, rows: np.broadcast_to(row, (len(rows), *node.shape[1:])),
    "concat": lambda _, *arrays: np.concatenate(arrays, axis=1),
    "sort": lambda _, array: np.sort(array, axis=-1),
    "argsort": lambda _, array: np.argsort(array, axis=-1, kind="stable"),
    "take along": lambda _, array, places: np.take_along_axis(array, places, axis=-1),
}
