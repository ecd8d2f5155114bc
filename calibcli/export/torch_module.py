"""A calibrator as a module of torch: the end of a network, which torch can export with it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from calibcli.errors import UsageError
from calibcli.export.graph import Node, dependencies_first
from calibcli.export.recording import RecordedCalibrator


def torch_module(program: RecordedCalibrator) -> Any:
    """A `torch.nn.Module` from scores (n, K), and groups (n,) where there are some, to (n, K).

    It computes on the device that it is moved to, in the precision that the program was recorded
    in, and lets gradients through. Its constants are buffers, which no training changes.

    Raises
    ------
    UsageError
        torch is not installed.
    """
    torch = _import_torch()
    base: Any = torch.nn.Module
    output = program.graph.outputs["probs"]
    nodes = dependencies_first([*program.graph.inputs, output])
    places = {id(node): place for place, node in enumerate(nodes)}

    class Calibration(base):  # type: ignore[misc]
        """Calibrated probabilities (n, K) of scores (n, K)."""

        def __init__(self) -> None:
            super().__init__()
            self.dtype = getattr(torch, program.graph.inputs[0].dtype.name)
            for place, node in enumerate(nodes):
                if node.op == "constant":
                    self.register_buffer(f"c{place}", torch.from_numpy(np.array(node.value)))

        def forward(self, scores: Any, group: Any = None) -> Any:
            scores = scores.to(self.dtype)
            rows = torch.arange(scores.shape[0], device=scores.device)
            inputs = {"scores": scores, "group": group, "row numbers": rows}
            values: list[Any] = []
            for place, node in enumerate(nodes):
                if node.op == "constant":
                    values.append(getattr(self, f"c{place}"))
                elif node.op == "input":
                    values.append(inputs[node.value])
                else:
                    operands = [values[places[id(each)]] for each in node.inputs]
                    values.append(_applied(torch, node, operands))
            return values[places[id(output)]]

    return Calibration()


def exported_program(program: RecordedCalibrator) -> bytes:
    """The bytes of a ``.pt2`` file, as `torch.export.save` writes them."""
    torch = _import_torch()
    module = torch_module(program)
    # As many rows as classes would be taken to be the same number.
    count = program.classes + 3
    example: tuple[Any, ...] = (torch.zeros((count, program.classes), dtype=module.dtype),)
    rows = torch.export.Dim("rows")
    shapes: dict[str, Any] = {"scores": {0: rows}}
    if program.groups:
        example = (*example, torch.zeros(count, dtype=torch.int64))
        shapes["group"] = {0: rows}
    file = io.BytesIO()
    torch.export.save(torch.export.export(module, example, dynamic_shapes=shapes), file)
    return file.getvalue()


def _import_torch() -> Any:
    try:
        import torch
    except ImportError:
        raise UsageError("a torch module needs torch: pip install 'calibcli[gpu]'") from None
    return torch


_NAMES = {
    "neg": "neg",
    "abs": "abs",
    "sign": "sign",
    "exp": "exp",
    "expm1": "expm1",
    "log": "log",
    "log1p": "log1p",
    "isnan": "isnan",
    "isinf": "isinf",
    "not": "logical_not",
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "div": "true_divide",
    "floordiv": "floor_divide",
    "pow": "pow",
    "minimum": "minimum",
    "maximum": "maximum",
    "lt": "lt",
    "le": "le",
    "gt": "gt",
    "ge": "ge",
    "eq": "eq",
    "ne": "ne",
    "and": "logical_and",
    "or": "logical_or",
    "where": "where",
    "matmul": "matmul",
}


def _applied(torch: Any, node: Node, operands: list[Any]) -> Any:
    if node.op in _NAMES:
        return getattr(torch, _NAMES[node.op])(*operands)
    return _OTHERS[node.op](torch, node, *operands)


_OTHERS: dict[str, Callable[..., Any]] = {
    "cast": lambda torch, node, x: x.to(getattr(torch, node.dtype.name)),
    "sum": lambda torch, _, x: torch.sum(x, -1),
    "max": lambda torch, _, x: torch.amax(x, -1),
    "min": lambda torch, _, x: torch.amin(x, -1),
    "argmax": lambda torch, _, x: torch.argmax(x, -1),
    "any": lambda torch, _, x: torch.any(x, -1),
    "all": lambda torch, _, x: torch.all(x, -1),
    "take": lambda _torch, _node, table, places: table[places],
    "pick": lambda torch, _, x, column: torch.gather(x, 1, column.expand(x.shape[0])[:, None])[
        :, 0
    ],
    "widen": lambda _torch, _node, x: x[:, None],
    "column": lambda _torch, node, x: x[:, node.value[0]],
    "columns": lambda _torch, node, x: x[:, list(node.value)],
    "fill": lambda _torch, node, row, rows: row.expand(rows.shape[0], *node.shape[1:]),
    "concat": lambda torch, _, *parts: torch.cat(parts, -1),
    "sort": lambda torch, _, x: torch.sort(x, -1)[0],
    "argsort": lambda torch, _, x: torch.argsort(x, dim=-1, stable=True),
    "take along": lambda torch, _, x, places: torch.gather(x, -1, places),
}
