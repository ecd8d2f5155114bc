"""The arithmetic of a calibrator as a list of operations, recorded by running it.

A `Traced` array stands for rows that are not there. Operators and functions of its array API
namespace give other such arrays and note what was done. The first axis, of the rows, has no length;
no operation mixes rows. What depends on no row is computed at once.

Code that branches on values cannot be recorded, but for branches on `calibcli.arrays.is_any`, which
take the shorter way where it makes no difference: the longer one is recorded.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray

RowShape: TypeAlias = tuple[Any, ...]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_BOOL, _INT = np.dtype(np.bool_), np.dtype(np.int64)


class UntraceableError(TypeError):
    """Something that cannot be recorded; its text says what, after "it"."""


class _Rows:
    """The number of rows, which nothing may depend on."""

    def __repr__(self) -> str:
        return "n"

    def __index__(self) -> int:
        raise UntraceableError("depends on the number of rows")


ROW_COUNT = _Rows()


@dataclass(frozen=True, eq=False)
class Node:
    """An operation and what it gives.

    Attributes
    ----------
    op : str
        ``"input"``, ``"constant"``, a key of `ELEMENTWISE` or `REDUCTIONS`, or one of the other
        operations that `Traced` makes.
    inputs : tuple of Node
    shape : tuple
        The first is `ROW_COUNT`, but for constants.
    dtype : numpy.dtype
        float32, float64, int64 or bool.
    value : object
        Of a constant, the array; of ``"columns"`` the numbers of the columns; of ``"input"`` its
        name.
    stage : str
        The kind of the stage that it is of.
    """

    op: str
    inputs: tuple[Node, ...]
    shape: RowShape
    dtype: np.dtype[Any]
    value: Any = None
    stage: str = ""

    @property
    def width(self) -> int | None:
        """Numbers of a row; None for one number without an axis of its own."""
        return None if len(self.shape) < 2 else int(self.shape[1])


ELEMENTWISE: dict[str, tuple[Callable[..., Any], str]] = {
    "neg": (np.negative, "same"),
    "abs": (np.abs, "same"),
    "sign": (np.sign, "same"),
    "exp": (np.exp, "same"),
    "expm1": (np.expm1, "same"),
    "log": (np.log, "same"),
    "log1p": (np.log1p, "same"),
    "isnan": (np.isnan, "bool"),
    "isinf": (np.isinf, "bool"),
    "not": (np.logical_not, "bool"),
    "add": (np.add, "same"),
    "sub": (np.subtract, "same"),
    "mul": (np.multiply, "same"),
    "div": (np.true_divide, "same"),
    "pow": (np.power, "same"),
    "floordiv": (np.floor_divide, "same"),
    "minimum": (np.minimum, "same"),
    "maximum": (np.maximum, "same"),
    "lt": (np.less, "bool"),
    "le": (np.less_equal, "bool"),
    "gt": (np.greater, "bool"),
    "ge": (np.greater_equal, "bool"),
    "eq": (np.equal, "bool"),
    "ne": (np.not_equal, "bool"),
    "and": (np.logical_and, "bool"),
    "or": (np.logical_or, "bool"),
    "where": (np.where, "same"),
}
"""NumPy's function of each, and the type of what it gives."""

REDUCTIONS: dict[str, tuple[Callable[..., Any], str]] = {
    "sum": (np.sum, "same"),
    "max": (np.max, "same"),
    "min": (np.min, "same"),
    "argmax": (np.argmax, "int"),
    "any": (np.any, "bool"),
    "all": (np.all, "bool"),
}
"""Over the last axis."""


@dataclass
class Recording:
    """What all arrays of a recording share.

    Attributes
    ----------
    stage : str
        The kind of the stage that is being recorded.
    made : dict
        What was done already, so that it is not done twice.
    """

    stage: str = ""
    made: dict[Any, Node] = field(default_factory=dict)


class Traced:
    """An array (n,) or (n, K) of rows that are not there, or a constant of any shape."""

    # NumPy leaves operators with its arrays on the left to this class.
    __array_ufunc__ = None
    __hash__ = object.__hash__
    device = None

    def __init__(self, node: Node, recording: Recording) -> None:
        self.node, self.recording = node, recording

    def __array_namespace__(self, api_version: str | None = None) -> TracedNamespace:
        return TracedNamespace(self.recording)

    @property
    def shape(self) -> RowShape:
        return self.node.shape

    @property
    def ndim(self) -> int:
        return len(self.node.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.node.dtype

    @property
    def T(self) -> Traced:  # noqa: N802 (the name of the standard)
        return TracedNamespace(self.recording).asarray(_known(self, "transposes rows").T)

    def __len__(self) -> int:
        return operator.index(self.shape[0])

    def __bool__(self) -> bool:
        if self.node.op == "constant":
            return bool(self.node.value)
        if self.node.op == "any row":
            return True
        raise UntraceableError("branches on the values of rows")

    def __iter__(self) -> Any:
        raise UntraceableError("goes through single rows")

    def __float__(self) -> float:
        return float(_known(self, "takes a number out of the rows"))

    def __array__(self, *_: Any, **__: Any) -> NumpyArray:
        return _known(self, "needs arrays of NumPy")

    def _of(self, op: str, *operands: Any) -> Traced:
        return elementwise(self.recording, op, *operands)

    def __neg__(self) -> Traced:
        return self._of("neg", self)

    def __invert__(self) -> Traced:
        return self._of("not", self)

    def __add__(self, other: Any) -> Traced:
        return self._of("add", self, other)

    def __radd__(self, other: Any) -> Traced:
        return self._of("add", other, self)

    def __sub__(self, other: Any) -> Traced:
        return self._of("sub", self, other)

    def __rsub__(self, other: Any) -> Traced:
        return self._of("sub", other, self)

    def __mul__(self, other: Any) -> Traced:
        return self._of("mul", self, other)

    def __rmul__(self, other: Any) -> Traced:
        return self._of("mul", other, self)

    def __truediv__(self, other: Any) -> Traced:
        return self._of("div", self, other)

    def __rtruediv__(self, other: Any) -> Traced:
        return self._of("div", other, self)

    def __floordiv__(self, other: Any) -> Traced:
        return self._of("floordiv", self, other)

    def __rfloordiv__(self, other: Any) -> Traced:
        return self._of("floordiv", other, self)

    def __pow__(self, other: Any) -> Traced:
        return self._of("pow", self, other)

    def __rpow__(self, other: Any) -> Traced:
        return self._of("pow", other, self)

    def __and__(self, other: Any) -> Traced:
        return self._of("and", self, other)

    def __rand__(self, other: Any) -> Traced:
        return self._of("and", other, self)

    def __or__(self, other: Any) -> Traced:
        return self._of("or", self, other)

    def __ror__(self, other: Any) -> Traced:
        return self._of("or", other, self)

    def __lt__(self, other: Any) -> Traced:
        return self._of("lt", self, other)

    def __le__(self, other: Any) -> Traced:
        return self._of("le", self, other)

    def __gt__(self, other: Any) -> Traced:
        return self._of("gt", self, other)

    def __ge__(self, other: Any) -> Traced:
        return self._of("ge", self, other)

    def __eq__(self, other: object) -> Traced:  # type: ignore[override]
        return self._of("eq", self, other)

    def __ne__(self, other: object) -> Traced:  # type: ignore[override]
        return self._of("ne", self, other)

    def __matmul__(self, other: Any) -> Traced:
        matrix = _known(other, "multiplies rows by rows")
        if self.ndim != 2 or matrix.ndim not in (1, 2):
            raise UntraceableError("has a product of other shapes than (n, K) and (K, m)")
        constant = constant_of(matrix.astype(self.dtype))
        shape = (ROW_COUNT, *matrix.shape[1:])
        return Traced(make(self.recording, "matmul", (self.node, constant), shape), self.recording)

    def __getitem__(self, key: Any) -> Traced:
        return _picked(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        # Whoever holds this array sees the change, as of any other array.
        self.node = _replaced(self, key, value).node


def constant_of(array: Any) -> Node:
    """The node of an array that is known."""
    array = np.asarray(array)
    kinds = {"b": np.bool_, "i": np.int64, "u": np.int64}
    array = array.astype(kinds.get(array.dtype.kind, array.dtype))
    return Node("constant", (), array.shape, array.dtype, array)


def input_of(name: str, shape: RowShape, dtype: Any) -> Node:
    """The node of an input."""
    return Node("input", (), shape, np.dtype(dtype), name)


def make(
    recording: Recording,
    op: str,
    inputs: Sequence[Node],
    shape: RowShape,
    dtype: Any = None,
    value: Any = None,
) -> Node:
    """The node of an operation; of the type of its first input where none is given."""
    kind = inputs[0].dtype if dtype is None else np.dtype(dtype)
    key = (op, *map(id, inputs), shape, kind, value)
    if key not in recording.made:
        recording.made[key] = Node(op, tuple(inputs), shape, kind, value, recording.stage)
    return recording.made[key]


def _known(array: Any, otherwise: str) -> NumpyArray:
    """The values of what is no row; an error that says what it ``otherwise`` does."""
    if not isinstance(array, Traced):
        return np.asarray(array)
    if array.node.op != "constant":
        raise UntraceableError(otherwise)
    value: NumpyArray = array.node.value
    return value


def _node(value: Any, dtype: Any = None) -> Node:
    """The node of an operand; numbers of Python have the type of what they are combined with."""
    if isinstance(value, Traced):
        return value.node
    array = np.asarray(value)
    weak = isinstance(value, (int, float)) and not isinstance(value, bool)
    return constant_of(array.astype(dtype) if weak and dtype is not None else array)


def _joint_shape(shapes: Sequence[RowShape]) -> RowShape:
    """The shape that shapes are broadcast to."""
    length = max(map(len, shapes))
    joint: list[Any] = []
    for sizes in zip(*((1,) * (length - len(s)) + tuple(s) for s in shapes), strict=True):
        larger = [size for size in sizes if isinstance(size, _Rows) or size != 1]
        if any(size is not larger[0] and size != larger[0] for size in larger[1:]):
            raise UntraceableError("depends on the number of rows")
        joint.append(larger[0] if larger else 1)
    if any(isinstance(size, _Rows) for size in joint[1:]):
        raise UntraceableError("mixes rows")
    return tuple(joint)


def elementwise(recording: Recording, op: str, *operands: Any) -> Traced:
    """A function of the elements of arrays, which are broadcast."""
    function, kind = ELEMENTWISE[op]
    typed = [operand for operand in operands if isinstance(operand, (Traced, np.ndarray))]
    values = [each for each in typed if each.dtype != np.bool_] or typed
    wide = np.result_type(*(each.dtype for each in values)) if values else np.dtype(np.float64)
    nodes = [_node(operand, wide) for operand in operands]
    if all(node.op == "constant" for node in nodes):
        with np.errstate(all="ignore"):
            return Traced(constant_of(function(*(node.value for node in nodes))), recording)
    shape = _joint_shape([node.shape for node in nodes])
    if op == "where":
        nodes = [nodes[0], *(_cast(recording, node, wide) for node in nodes[1:])]
    elif kind == "same":
        nodes = [_cast(recording, node, wide) for node in nodes]
    return Traced(
        make(recording, op, nodes, shape, np.bool_ if kind == "bool" else wide), recording
    )


def _cast(recording: Recording, node: Node, dtype: Any) -> Node:
    if node.dtype == dtype:
        return node
    if node.op == "constant":
        return constant_of(node.value.astype(dtype))
    return make(recording, "cast", (node,), node.shape, dtype)


class _RowNumbers(Traced):
    """The numbers of the rows, which pick a column of each row."""


def _picked(array: Traced, key: Any) -> Traced:
    """``array[key]``: columns, an axis of one, an element of each row, or of a table."""
    recording, node = array.recording, array.node
    if node.op == "constant" and isinstance(key, Traced):
        if node.value.ndim != 1 or key.dtype != _INT:
            raise UntraceableError("picks from a table of more than one axis")
        return Traced(make(recording, "take", (node, key.node), key.shape), recording)
    if node.op == "constant":
        return Traced(constant_of(node.value[key]), recording)
    keys = key if isinstance(key, tuple) else (key,)
    if len(keys) == 2 and isinstance(keys[0], _RowNumbers):
        column = _node(keys[1], np.int64)
        return Traced(make(recording, "pick", (node, column), (ROW_COUNT,)), recording)
    if len(keys) == 2 and keys[0] == slice(None):
        if keys[1] is None and array.ndim == 1:
            return Traced(make(recording, "widen", (node,), (ROW_COUNT, 1)), recording)
        if array.ndim == 2 and isinstance(keys[1], (int, slice, np.integer)):
            return _columns(array, keys[1])
    raise UntraceableError("picks rows or elements in a way that is not recorded")


def _columns(array: Traced, key: Any) -> Traced:
    """Some columns (n, m), or one of them (n,)."""
    width = array.node.width
    assert width is not None
    numbers = range(width)[key]
    shape: RowShape = (ROW_COUNT,) if isinstance(numbers, int) else (ROW_COUNT, len(numbers))
    places = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    if shape == array.shape and places == tuple(range(width)):
        return array
    op = "column" if len(shape) == 1 else "columns"
    node = make(array.recording, op, (array.node,), shape, value=places)
    return Traced(node, array.recording)


def _replaced(array: Traced, key: Any, value: Any) -> Traced:
    """The array with other values at ``[row, column of the row]``, or in one column."""
    width = array.node.width
    if not isinstance(key, tuple) or len(key) != 2 or width is None:
        raise UntraceableError("changes elements in a way that is not recorded")
    rows, columns = key
    if isinstance(value, Traced) and value.ndim == 1 and value.node.op != "constant":
        value = value[:, None]
    places: Any = Traced(constant_of(np.arange(width)), array.recording)
    if isinstance(rows, _RowNumbers) and isinstance(columns, Traced):
        return elementwise(array.recording, "where", places == columns[:, None], value, array)
    if rows == slice(None) and isinstance(columns, (int, np.integer)):
        mask = places == range(width)[int(columns)]
        return elementwise(array.recording, "where", mask, value, array)
    raise UntraceableError("changes elements in a way that is not recorded")


_TYPES = {name: np.dtype(name) for name in ("float16", "float32", "float64", "int64", "bool")}


class TracedNamespace:
    """The functions of the array API standard that are recorded."""

    # Who looks for the namespace of an array wants to name it.
    __name__ = __name__
    inf, nan = float("inf"), float("nan")

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def __getattr__(self, name: str) -> Any:
        if name in _TYPES:
            return _TYPES[name]
        if name in ELEMENTWISE:
            return lambda *operands: elementwise(self._recording, name, *operands)
        if name in REDUCTIONS:
            return lambda array, **options: self._reduced(name, array, **options)
        if name.startswith("_"):
            raise AttributeError(name)
        raise UntraceableError(f"uses {name}, which is not recorded")

    def _traced(self, node: Node) -> Traced:
        return Traced(node, self._recording)

    def _reduced(
        self, op: str, array: Any, *, axis: int | None = None, keepdims: bool = False, **_: Any
    ) -> Traced:
        function, kind = REDUCTIONS[op]
        node = array.node
        if node.op == "constant":
            return self._traced(constant_of(function(node.value, axis=axis)))
        if axis is None and op in ("any", "min", "max"):
            # A single number for all rows decides a branch, and nothing else.
            return self._traced(make(self._recording, f"{op} row", (node,), ()))
        if axis not in (-1, len(node.shape) - 1) or len(node.shape) != 2:
            raise UntraceableError("adds up over rows")
        dtype = {"same": node.dtype, "int": _INT, "bool": _BOOL}[kind]
        result = self._traced(make(self._recording, op, (node,), (ROW_COUNT,), dtype))
        return result[:, None] if keepdims else result

    def asarray(self, values: Any, *, dtype: Any = None, device: Any = None) -> Traced:
        del device
        if isinstance(values, Traced):
            return values if dtype is None else self.astype(values, dtype)
        return self._traced(constant_of(np.asarray(values, dtype=dtype)))

    def astype(self, array: Traced, dtype: Any, *, copy: bool = True) -> Traced:
        del copy
        return self._traced(_cast(self._recording, array.node, np.dtype(dtype)))

    def finfo(self, dtype: Any) -> Any:
        return np.finfo(dtype)

    def arange(self, stop: Any, *, device: Any = None, dtype: Any = None) -> Traced:
        del device
        if isinstance(stop, _Rows):
            return _RowNumbers(input_of("row numbers", (ROW_COUNT,), np.int64), self._recording)
        return self._traced(constant_of(np.arange(stop, dtype=dtype)))

    def isfinite(self, array: Any) -> Traced:
        infinite: Traced = self.isnan(array) | self.isinf(array)
        return ~infinite

    def logaddexp(self, left: Any, right: Any) -> Traced:
        larger: Traced = self.maximum(left, right)
        difference = self.abs(left - right)
        # Infinities of the same sign are no distance apart, rather than NaN.
        apart = self.where(self.isnan(difference), 0.0, difference)
        rest: Traced = self.log1p(self.exp(-apart))
        return larger + rest

    def clip(self, array: Any, min: Any = None, max: Any = None) -> Traced:
        lifted: Traced = array if min is None else self.maximum(array, min)
        lowered: Traced = lifted if max is None else self.minimum(lifted, max)
        return lowered

    def zeros_like(self, array: Traced) -> Traced:
        return self.full_like(array, 0)

    def ones_like(self, array: Traced) -> Traced:
        return self.full_like(array, 1)

    def full_like(self, array: Traced, value: Any) -> Traced:
        node = array.node
        if node.op == "constant":
            return self._traced(constant_of(np.full_like(node.value, value)))
        row = constant_of(np.full(node.shape[1:], value, node.dtype))
        return self._traced(make(self._recording, "fill", (row, node), node.shape))

    def broadcast_to(self, array: Any, shape: RowShape) -> Traced:
        node = _node(array)
        if node.op != "constant" or len(shape) != 2:
            raise UntraceableError("broadcasts rows")
        row = constant_of(np.broadcast_to(node.value, shape[1:]))
        rows = input_of("row numbers", (ROW_COUNT,), np.int64)
        return self._traced(make(self._recording, "fill", (row, rows), shape))

    def concat(self, arrays: Sequence[Traced], *, axis: int = 0) -> Traced:
        nodes = [array.node for array in arrays]
        if axis not in (-1, 1) or any(node.width is None for node in nodes):
            raise UntraceableError("joins rows")
        width = sum(int(node.shape[1]) for node in nodes)
        return self._traced(make(self._recording, "concat", nodes, (ROW_COUNT, width)))

    def stack(self, arrays: Sequence[Traced], *, axis: int = 0) -> Traced:
        if axis not in (-1, 1):
            raise UntraceableError("joins rows")
        return self.concat([array[:, None] for array in arrays], axis=-1)

    def sort(self, array: Traced, *, axis: int = -1, **_: Any) -> Traced:
        return self._ranked("sort", array, axis, array.dtype)

    def argsort(self, array: Traced, *, axis: int = -1, **_: Any) -> Traced:
        return self._ranked("argsort", array, axis, _INT)

    def _ranked(self, op: str, array: Traced, axis: int, dtype: Any) -> Traced:
        if axis not in (-1, 1) or array.ndim != 2:
            raise UntraceableError("sorts rows")
        return self._traced(make(self._recording, op, (array.node,), array.shape, dtype))

    def take_along_axis(self, array: Traced, places: Traced, *, axis: int = -1) -> Traced:
        if axis not in (-1, 1):
            raise UntraceableError("takes from other rows")
        nodes = (array.node, places.node)
        return self._traced(make(self._recording, "take along", nodes, places.shape))

    def flip(self, array: Traced, *, axis: int = -1) -> Traced:
        if axis not in (-1, 1):
            raise UntraceableError("turns the rows round")
        return array[:, ::-1]


def dependencies_first(outputs: Sequence[Node]) -> list[Node]:
    """The nodes that outputs depend on, each behind its inputs, equal ones once."""
    ordered: dict[int, Node] = {}
    waiting = [*reversed(outputs)]
    while waiting:
        node = waiting[-1]
        missing = [each for each in node.inputs if id(each) not in ordered]
        if missing:
            waiting += reversed(missing)
            continue
        ordered.setdefault(id(waiting.pop()), node)
    return list(ordered.values())


@dataclass(frozen=True)
class Graph:
    """The operations from inputs to outputs.

    Attributes
    ----------
    inputs : tuple of Node
        The scores (n, K), and the number of each row's group (n,) where there are groups.
    outputs : dict of str to Node
    """

    inputs: tuple[Node, ...]
    outputs: dict[str, Node] = field(default_factory=dict)

    def nodes(self) -> list[Node]:
        """All operations and constants, each behind what it needs."""
        return dependencies_first([*self.inputs, *self.outputs.values()])
