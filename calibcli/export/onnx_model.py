"""A calibrator as an ONNX model, on its own or behind the classifier whose scores it takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibcli.errors import UsageError
from calibcli.export.graph import Node
from calibcli.export.recording import RecordedCalibrator
from calibcli.version import __version__

OPSET, IR_VERSION = 13, 8
"""The oldest in which sums take their axes as here; every runtime in use has it."""

_AXES_AS_INPUT = 18
"""From this opset on largest and smallest elements take their axes as sums do."""

_SIMPLE = {
    "neg": "Neg",
    "abs": "Abs",
    "sign": "Sign",
    "exp": "Exp",
    "log": "Log",
    "isnan": "IsNaN",
    "isinf": "IsInf",
    "not": "Not",
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "floordiv": "Div",
    "pow": "Pow",
    "minimum": "Min",
    "maximum": "Max",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "eq": "Equal",
    "and": "And",
    "or": "Or",
    "where": "Where",
    "matmul": "MatMul",
}


def onnx_model(program: RecordedCalibrator, opset: int = OPSET) -> Any:
    """The model, an `onnx.ModelProto`, which `onnx.checker` has seen.

    Its inputs are ``scores`` (n, K) and, where there are groups, ``group`` (n,), int64; its outputs
    ``probs`` (n, K), ``label`` (n,), int64, and ``confidence`` (n,).

    Raises
    ------
    UsageError
        onnx is not installed.
    """
    onnx = import_onnx()
    graph = _Builder(onnx, program, opset).graph()
    model = onnx.helper.make_model(
        graph,
        producer_name="calibcli",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", opset)],
    )
    onnx.helper.set_model_props(model, _properties(program))
    onnx.checker.check_model(model, full_check=True)
    return model


def import_onnx() -> Any:
    """The package onnx.

    Raises
    ------
    UsageError
        It is not installed.
    """
    try:
        import onnx
        import onnx.compose
    except ImportError:
        raise UsageError(
            "ONNX models need the package onnx: pip install 'calibcli[onnx]'"
        ) from None
    return onnx


def _properties(program: RecordedCalibrator) -> dict[str, str]:
    """What the model says of itself; the values are JSON but for the input."""
    params = program.params
    texts = {
        "calib.input": params.input,
        "calib.class_names": json.dumps(program.class_names, ensure_ascii=False),
        "calib.stages": json.dumps(program.stages),
    }
    if program.groups:
        texts["calib.groups"] = json.dumps(program.groups, ensure_ascii=False)
    if params.reading:
        texts["calib.reading"] = json.dumps(params.reading, ensure_ascii=False)
    return texts


class _Builder:
    """The nodes of an ONNX graph, a few for each operation."""

    def __init__(self, onnx: Any, program: RecordedCalibrator, opset: int) -> None:
        self._onnx, self._program, self._opset = onnx, program, opset
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._known: dict[Any, str] = {}
        self._names: dict[int, str] = {}

    def graph(self) -> Any:
        """The graph of the whole program."""
        helper, graph = self._onnx.helper, self._program.graph
        names = {id(node): name for name, node in graph.outputs.items()}
        for node in graph.nodes():
            self._names[id(node)] = self._add(node)
        for place, name in names.items():
            self._nodes.append(helper.make_node("Identity", [self._names[place]], [name]))
        inputs = [self._value_info(node.value, node) for node in graph.inputs]
        outputs = [self._value_info(name, node) for name, node in graph.outputs.items()]
        return helper.make_graph(self._nodes, "calib", inputs, outputs, self._constants)

    def _value_info(self, name: str, node: Node) -> Any:
        shape = ["rows", *node.shape[1:]]
        return self._onnx.helper.make_tensor_value_info(name, self._type(node.dtype), shape)

    def _type(self, dtype: Any) -> int:
        number: int = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return number

    def constant(self, values: Any, dtype: Any = None) -> str:
        """The name of a constant; equal ones are one."""
        array = np.asarray(values, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            name = self._known[key] = f"c{len(self._known)}"
            # It must lie in memory as it is read.
            array = np.ascontiguousarray(array).reshape(array.shape)
            self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return self._known[key]

    def emit(self, op: str, *inputs: str, **attributes: Any) -> str:
        """The name of what an operator of ONNX gives."""
        name = f"v{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def _add(self, node: Node) -> str:
        if node.op == "constant":
            return self.constant(node.value)
        if node.op == "input":
            return str(node.value)
        inputs = [self._names[id(each)] for each in node.inputs]
        if node.op in _SIMPLE:
            return self.emit(_SIMPLE[node.op], *inputs)
        return _TRANSLATED[node.op](self, node, inputs)

    def over_classes(self, op: str, array: str) -> str:
        """A reduction over the last axis, in the form that the opset has."""
        if op == "ReduceSum" or self._opset >= _AXES_AS_INPUT:
            return self.emit(op, array, self.constant([1], np.int64), keepdims=0)
        return self.emit(op, array, axes=[1], keepdims=0)

    def ranked(self, node: Node, array: str) -> tuple[str, str]:
        """The elements of each row in ascending order, equal ones as they stand, and where."""
        width = self.constant([node.width], np.int64)
        values, places = f"v{len(self._nodes)}s", f"v{len(self._nodes)}p"
        self._nodes.append(
            self._onnx.helper.make_node(
                "TopK", [array, width], [values, places], axis=1, largest=0, sorted=1
            )
        )
        return values, places

    def cast(self, array: str, dtype: Any) -> str:
        """The array in another type."""
        return self.emit("Cast", array, to=self._type(dtype))

    def rows(self) -> str:
        """The number of rows, (1,)."""
        shape = self.emit("Shape", "scores")
        return self.emit("Gather", shape, self.constant([0], np.int64), axis=0)


def _log1p(build: _Builder, node: Node, inputs: list[str]) -> str:
    """Kahan's: the rounding of ``1 + x`` cancels in ``log(u) x / (u - 1)``."""
    (x,) = inputs
    one, infinity = (build.constant(value, node.dtype) for value in (1, np.inf))
    u = build.emit("Add", x, one)
    ratio = build.emit("Div", x, build.emit("Sub", u, one))
    exact = build.emit("Mul", build.emit("Log", u), ratio)
    # Where nothing of x is left in u, x itself; where u has no end, its logarithm.
    small = build.emit("Where", build.emit("Equal", u, one), x, exact)
    return build.emit("Where", build.emit("Equal", u, infinity), u, small)


def _expm1(build: _Builder, node: Node, inputs: list[str]) -> str:
    """Kahan's: ``(u - 1) x / log(u)`` with ``u = exp(x)``."""
    (x,) = inputs
    one, zero, minus = (build.constant(value, node.dtype) for value in (1, 0, -1))
    u = build.emit("Exp", x)
    less = build.emit("Sub", u, one)
    exact = build.emit("Div", build.emit("Mul", less, x), build.emit("Log", u))
    tiny = build.emit("Where", build.emit("Equal", less, zero), x, exact)
    far = build.emit("LessOrEqual", less, minus)
    large = build.emit("Greater", x, build.constant(1, node.dtype))
    return build.emit("Where", build.emit("Or", far, large), less, tiny)


def _any(build: _Builder, _: Node, inputs: list[str]) -> str:
    largest = build.over_classes("ReduceMax", build.cast(inputs[0], np.float32))
    return build.cast(largest, np.bool_)


def _all(build: _Builder, _: Node, inputs: list[str]) -> str:
    least = build.over_classes("ReduceMin", build.cast(inputs[0], np.float32))
    return build.cast(least, np.bool_)


def _pick(build: _Builder, _: Node, inputs: list[str]) -> str:
    axis = build.constant([1], np.int64)
    column = build.emit("Unsqueeze", inputs[1], axis)
    return build.emit("Squeeze", build.emit("GatherElements", inputs[0], column, axis=1), axis)


def _columns(build: _Builder, node: Node, inputs: list[str]) -> str:
    places = build.constant(np.array(node.value, np.int64))
    return build.emit("Gather", inputs[0], places, axis=1)


def _fill(build: _Builder, node: Node, inputs: list[str]) -> str:
    shape = build.rows()
    if node.width is not None:
        width = build.constant([node.width], np.int64)
        shape = build.emit("Concat", shape, width, axis=0)
    return build.emit("Expand", inputs[0], shape)


_TRANSLATED: dict[str, Callable[[_Builder, Node, list[str]], str]] = {
    "log1p": _log1p,
    "expm1": _expm1,
    "ne": lambda build, _, inputs: build.emit("Not", build.emit("Equal", *inputs)),
    "cast": lambda build, node, inputs: build.cast(inputs[0], node.dtype),
    "sum": lambda build, _, inputs: build.over_classes("ReduceSum", inputs[0]),
    "max": lambda build, _, inputs: build.over_classes("ReduceMax", inputs[0]),
    "min": lambda build, _, inputs: build.over_classes("ReduceMin", inputs[0]),
    "any": _any,
    "all": _all,
    "argmax": lambda build, _, inputs: build.emit("ArgMax", inputs[0], axis=1, keepdims=0),
    "take": lambda build, _, inputs: build.emit("Gather", *inputs, axis=0),
    "pick": _pick,
    "widen": lambda build, _, inputs: build.emit(
        "Unsqueeze", inputs[0], build.constant([1], np.int64)
    ),
    "column": lambda build, node, inputs: build.emit(
        "Gather", inputs[0], build.constant(node.value[0], np.int64), axis=1
    ),
    "columns": _columns,
    "fill": _fill,
    "concat": lambda build, _, inputs: build.emit("Concat", *inputs, axis=1),
    "sort": lambda build, node, inputs: build.ranked(node, inputs[0])[0],
    "argsort": lambda build, node, inputs: build.ranked(node, inputs[0])[1],
    "take along": lambda build, _, inputs: build.emit("GatherElements", *inputs, axis=1),
}


def append_to(
    path: str, program_of: Callable[[Any], RecordedCalibrator], output: str | None = None
) -> Any:
    """Somebody's classifier with the calibrator on its end.

    Parameters
    ----------
    path : str
        The ONNX model.
    program_of : callable
        The program for scores of a NumPy dtype, that of the model's output.
    output : str, optional
        Which of its outputs are the scores; the only one that can be, if left out.

    Raises
    ------
    UsageError
        The file is no model, or has no such output, or several; or has other classes.
    """
    onnx = import_onnx()
    model = _read(onnx, path)
    opsets = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    if not opsets or opsets[0] < OPSET:
        raise UsageError(
            f"{path}: is of opset {opsets}; from opset {OPSET} on it can be calibrated"
        )
    scores = _choose(path, _float_outputs(onnx, model), output)
    program = program_of(onnx.helper.tensor_dtype_to_np_dtype(scores.type.tensor_type.elem_type))
    width = scores.type.tensor_type.shape.dim[-1]
    if width.HasField("dim_value") and width.dim_value != program.classes:
        raise UsageError(
            f"{path}: its output {scores.name!r} has {width.dim_value} classes, the calibrator "
            f"{program.classes}"
        )
    calibrator = onnx_model(program, opsets[0])
    calibrator.ir_version = model.ir_version
    calibrator = onnx.compose.add_prefix(calibrator, _free_prefix(model), rename_outputs=False)
    joined = onnx.compose.merge_models(
        model, calibrator, [(scores.name, calibrator.graph.input[0].name)]
    )
    onnx.helper.set_model_props(
        joined, {each.key: each.value for each in model.metadata_props} | _properties(program)
    )
    onnx.checker.check_model(joined)
    return joined


def _read(onnx: Any, path: str) -> Any:
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except Exception as error:  # noqa: BLE001 (decoder and checker have errors of their own)
        lines = str(error).split("\n")
        raise UsageError(f"{path}: is not a valid ONNX model ({lines[0][:100]})") from None
    return model


def _float_outputs(onnx: Any, model: Any) -> dict[str, Any]:
    """The outputs that may be scores (n, K), by name."""
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    return {
        each.name: each
        for each in model.graph.output
        if each.type.tensor_type.elem_type in kinds and len(each.type.tensor_type.shape.dim) == 2
    }


def _choose(path: str, outputs: dict[str, Any], name: str | None) -> Any:
    if name in outputs:
        return outputs[name]
    there = ", ".join(map(repr, outputs)) or "none"
    if name is not None:
        raise UsageError(f"{path}: has no output {name!r} of scores (n, K); there is {there}")
    if len(outputs) != 1:
        raise UsageError(
            f"{path}: which output are the scores? --model-output takes one of: {there}"
        )
    return next(iter(outputs.values()))


def _free_prefix(model: Any) -> str:
    """What no name of the model begins with."""
    names: Sequence[str] = [
        *(name for node in model.graph.node for name in (node.name, *node.output)),
        *(each.name for part in (model.graph.initializer, model.graph.input) for each in part),
    ]
    prefix = "calib_"
    while any(name.startswith(prefix) for name in names):
        prefix = f"{prefix}_"
    return prefix


def write_model(model: Any, path: Path) -> None:
    """The bytes of a model in a file."""
    path.write_bytes(model.SerializeToString())
