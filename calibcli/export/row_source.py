"""A calibrator as a function of one row, in JavaScript or C: loops over classes, no allocation.

Both languages write arithmetic and loops alike. Elements are numbers of double precision; a value
of a row that has one number is a variable, one of K numbers a small array. Chains of elementwise
operations become one loop.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from calibcli.export.graph import ELEMENTWISE, Graph, Node, dependencies_first
from calibcli.export.recording import RecordedCalibrator
from calibcli.version import __version__

_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
    "and": "&&",
    "or": "||",
}


_THE_SAME = ("widen", "cast", "fill")
"""In a row on its own."""


class Language(ABC):
    """How the two languages differ."""

    functions: ClassVar[dict[str, str]]
    infinity: ClassVar[str]
    nan: ClassVar[str]

    @abstractmethod
    def declare(self, node: Node, name: str, value: str) -> str:
        """A variable with a value."""

    @abstractmethod
    def array(self, node: Node, name: str, size: int) -> str:
        """An array of a row."""

    @abstractmethod
    def table(self, node: Node, name: str) -> str:
        """A constant array."""

    @abstractmethod
    def loop(self, size: int, i: str = "i") -> str:
        """The head of a loop over a variable."""

    @abstractmethod
    def sort(self, source: str, target: str, places: str | None, size: int) -> str:
        """A call that sorts an array, or notes where its elements lie in order."""

    def number(self, value: Any) -> str:
        """A number with all its digits."""
        if isinstance(value, (bool, np.bool_)):
            return "1" if value else "0"
        if isinstance(value, (int, np.integer)):
            return str(int(value))
        if np.isnan(value):
            return self.nan
        if np.isinf(value):
            return self.infinity if value > 0 else f"-{self.infinity}"
        return repr(float(value))


class JavaScript(Language):
    """ECMAScript modules."""

    functions: ClassVar[dict[str, str]] = {
        **{name: f"Math.{name}" for name in ("abs", "sign", "exp", "expm1", "log", "log1p", "pow")},
        "minimum": "Math.min",
        "maximum": "Math.max",
        "isnan": "Number.isNaN",
    }
    infinity, nan = "Infinity", "NaN"

    def declare(self, node: Node, name: str, value: str) -> str:
        return f"let {name} = {value};"

    def array(self, node: Node, name: str, size: int) -> str:
        return f"const {name} = new {_typed(node)}({size});"

    def table(self, node: Node, name: str) -> str:
        values = ", ".join(map(self.number, node.value.ravel().tolist()))
        return f"const {name} = new {_typed(node)}([{values}]);"

    def loop(self, size: int, i: str = "i") -> str:
        return f"for (let {i} = 0; {i} < {size}; {i}++)"

    def sort(self, source: str, target: str, places: str | None, size: int) -> str:
        if places is None:
            return f"{target}.set({source}); {target}.sort();"
        order = f"{source}[a] - {source}[b] || a - b"
        return f"{places}.set({places}.map((_, i) => i).sort((a, b) => {order}));"


def _typed(node: Node) -> str:
    return "Float64Array" if node.dtype.kind == "f" else "Int32Array"


class C(Language):
    """C99."""

    functions: ClassVar[dict[str, str]] = {
        "abs": "fabs",
        "sign": "calib_sign",
        **{name: name for name in ("exp", "expm1", "log", "log1p", "pow", "isnan")},
        "minimum": "calib_min",
        "maximum": "calib_max",
    }
    infinity, nan = "INFINITY", "NAN"

    def declare(self, node: Node, name: str, value: str) -> str:
        return f"{_type(node)} {name} = {value};"

    def array(self, node: Node, name: str, size: int) -> str:
        return f"{_type(node)} {name}[{size}];"

    def table(self, node: Node, name: str) -> str:
        values = ", ".join(map(self.number, node.value.ravel().tolist()))
        return f"static const {_type(node)} {name}[{node.value.size}] = {{{values}}};"

    def loop(self, size: int, i: str = "i") -> str:
        return f"for (int {i} = 0; {i} < {size}; {i}++)"

    def sort(self, source: str, target: str, places: str | None, size: int) -> str:
        copied = f"{target}[i] = {source}[i]" if places is None else f"{places}[i] = i"
        arguments = f"{target}, 0" if places is None else f"{source}, {places}"
        return f"{self.loop(size)} {{ {copied}; }}\n  calib_sort({arguments}, {size});"


def _type(node: Node) -> str:
    return "double" if node.dtype.kind == "f" else "int"


class _Body:
    """The statements of the function, from ``scores`` to ``probs``."""

    def __init__(self, graph: Graph, language: Language) -> None:
        self._language = language
        self._output = graph.outputs["probs"]
        self._nodes = dependencies_first([self._output])
        uses: dict[int, int] = {id(self._output): 1}
        for node in self._nodes:
            for each in node.inputs:
                # What is widened is used for every class.
                uses[id(each)] = uses.get(id(each), 0) + (2 if node.op == "widen" else 1)
        self._once = {place for place, count in uses.items() if count == 1}
        self._names: dict[int, str] = {}
        self.tables: list[str] = []
        self.lines: list[str] = []
        self._stage = ""
        for node in self._nodes:
            self._write(node)
        self.lines.append(
            f"{language.loop(_size(self._output))} probs[i] = {self.element(self._output)};"
        )

    def element(self, node: Node, place: str = "i") -> str:
        """Element i of a value of a row, as an expression."""
        if node.op == "constant" and node.value.size == 1:
            return self._language.number(node.value.ravel()[0].item())
        if node.op == "constant" or id(node) in self._names:
            name = self._named(node)
            return name if _size(node) == 1 and node.op != "constant" else f"{name}[{place}]"
        if node.op == "take":
            return f"{self._named(node.inputs[0])}[{self.element(node.inputs[1], place)}]"
        operands = [self.element(each, place) for each in node.inputs]
        if node.op == "cast" and node.inputs[0].dtype == np.bool_:
            return f"({operands[0]} ? 1 : 0)"
        return operands[0] if node.op in _THE_SAME else self._arithmetic(node, operands)

    def _arithmetic(self, node: Node, operands: list[str]) -> str:
        language = self._language
        if node.op in _INFIX:
            return f"({operands[0]} {_INFIX[node.op]} {operands[1]})"
        if node.op in language.functions:
            return f"{language.functions[node.op]}({', '.join(operands)})"
        absolute, infinity = language.functions["abs"], language.infinity
        texts = {
            "neg": "(-{0})",
            "not": "(!{0})",
            "isinf": f"({absolute}({{0}}) == {infinity})",
            # Whole numbers that are not negative, which a shift halves.
            "floordiv": "({0} >> 1)",
            "where": "({0} ? {1} : {2})",
        }
        return texts[node.op].format(*operands)

    def _named(self, node: Node) -> str:
        """The name of an array, which is written down at its first use if it is a constant."""
        if id(node) not in self._names:
            name = self._names[id(node)] = f"T{len(self.tables)}"
            self.tables.append(self._language.table(node, name))
        return self._names[id(node)]

    def _write(self, node: Node) -> None:
        """Give a value a variable, unless it is written where it is used."""
        if node.op == "constant":
            return
        if node.op == "input":
            self._names[id(node)] = str(node.value)
            return
        inline = node.op in ELEMENTWISE or node.op in ("cast", "take")
        if node.op in ("widen", "fill") or (inline and id(node) in self._once):
            return
        if node.stage != self._stage:
            self._stage = node.stage
            self.lines.append(f"// {node.stage}")
        name = f"v{len(self.lines)}"
        self.lines += self._statements(node, name)
        self._names[id(node)] = name

    def _statements(self, node: Node, name: str) -> Iterator[str]:
        language, size = self._language, _size(node)
        if node.op in ELEMENTWISE or node.op in ("cast", "take"):
            if size == 1:
                yield language.declare(node, name, self.element(node))
                return
            yield language.array(node, name, size)
            yield f"{language.loop(size)} {name}[i] = {self.element(node)};"
            return
        yield from getattr(self, f"_{node.op.replace(' ', '_')}")(node, name, size)

    def _reduced(self, node: Node, name: str, start: str, step: str) -> Iterator[str]:
        (source,) = node.inputs
        yield self._language.declare(node, name, start)
        step = step.format(name=name, x=self.element(source))
        yield f"{self._language.loop(_size(source))} {{ {step} }}"

    def _sum(self, node: Node, name: str, _: int) -> Iterator[str]:
        return self._reduced(node, name, "0", "{name} += {x};")

    def _max(self, node: Node, name: str, _: int) -> Iterator[str]:
        function = self._language.functions["maximum"]
        start = f"-{self._language.infinity}"
        return self._reduced(node, name, start, "{name} = " + function + "({name}, {x});")

    def _min(self, node: Node, name: str, _: int) -> Iterator[str]:
        function = self._language.functions["minimum"]
        start = self._language.infinity
        return self._reduced(node, name, start, "{name} = " + function + "({name}, {x});")

    def _any(self, node: Node, name: str, _: int) -> Iterator[str]:
        return self._reduced(node, name, "0", "if ({x}) {name} = 1;")

    def _all(self, node: Node, name: str, _: int) -> Iterator[str]:
        return self._reduced(node, name, "1", "if (!({x})) {name} = 0;")

    def _argmax(self, node: Node, name: str, _: int) -> Iterator[str]:
        (source,) = node.inputs
        yield self._language.declare(node, name, "0")
        here, best = self.element(source), self.element(source, name)
        yield f"{self._language.loop(_size(source))} if ({here} > {best}) {name} = i;"

    def _column(self, node: Node, name: str, _: int) -> Iterator[str]:
        yield self._language.declare(node, name, self.element(node.inputs[0], str(node.value[0])))

    def _columns(self, node: Node, name: str, size: int) -> Iterator[str]:
        if size == 1:
            yield from self._column(node, name, size)
            return
        yield self._language.array(node, name, size)
        first, step = node.value[0], node.value[1] - node.value[0]
        steps = f"{first} + {step} * i" if step != 1 else f"{first} + i"
        yield f"{self._language.loop(size)} {name}[i] = {self.element(node.inputs[0], steps)};"

    def _pick(self, node: Node, name: str, _: int) -> Iterator[str]:
        place = self.element(node.inputs[1])
        yield self._language.declare(node, name, self.element(node.inputs[0], place))

    def _concat(self, node: Node, name: str, size: int) -> Iterator[str]:
        yield self._language.array(node, name, size)
        begin = 0
        for each in node.inputs:
            width = _size(each)
            if width == 1:
                yield f"{name}[{begin}] = {self.element(each)};"
            else:
                yield f"{self._language.loop(width)} {name}[{begin} + i] = {self.element(each)};"
            begin += width

    def _matmul(self, node: Node, name: str, size: int) -> Iterator[str]:
        source, matrix = node.inputs
        inner, table = _size(source), self._named(matrix)
        loop = self._language.loop(inner, "j")
        x = self.element(source, "j")
        if size == 1:
            yield self._language.declare(node, name, "0")
            yield f"{loop} {name} += {x} * {table}[j];"
            return
        yield self._language.array(node, name, size)
        yield f"{self._language.loop(size)} {{"
        yield f"  {name}[i] = 0;"
        yield f"  {loop} {name}[i] += {x} * {table}[j * {size} + i];"
        yield "}"

    def _sort(self, node: Node, name: str, size: int) -> Iterator[str]:
        yield self._language.array(node, name, size)
        yield self._language.sort(self._array(node.inputs[0]), name, None, size)

    def _argsort(self, node: Node, name: str, size: int) -> Iterator[str]:
        yield self._language.array(node, name, size)
        yield self._language.sort(self._array(node.inputs[0]), "", name, size)

    def _take_along(self, node: Node, name: str, size: int) -> Iterator[str]:
        yield self._language.array(node, name, size)
        place = self.element(node.inputs[1])
        yield f"{self._language.loop(size)} {name}[i] = {self.element(node.inputs[0], place)};"

    def _array(self, node: Node) -> str:
        """The name of an array of floating-point numbers that is there as a whole."""
        if id(node) not in self._names or node.dtype.kind != "f":
            name = f"w{len(self.lines)}"
            self.lines += [
                self._language.array(self._output, name, _size(node)),
                f"{self._language.loop(_size(node))} {name}[i] = {self.element(node)};",
            ]
            return name
        return self._names[id(node)]


def _size(node: Node) -> int:
    """Numbers of a row."""
    return 1 if node.width is None else node.width


def javascript_source(program: RecordedCalibrator) -> str:
    """The text of a module that exports ``calibrate`` and the names."""
    body = _Body(program.graph, JavaScript())
    grouped = bool(program.groups)
    lines = [
        f"// Calibrated probabilities, exported by calib {__version__}.",
        f"// Stages: {', '.join(program.stages) or 'none'}. Scores: {program.params.input}.",
        f"export const classNames = {script_text(program.class_names)};",
        *([f"export const groups = {script_text(program.groups)};"] if grouped else []),
        *(
            [f"export const reading = {script_text(program.params.reading)};"]
            if program.params.reading
            else []
        ),
        *body.tables,
        "",
        f"/** Probabilities of the {program.classes} classes for one row of scores"
        + (", and the number of its group, -1 for any other. */" if grouped else ". */"),
        f"export function calibrate(scores{', group' if grouped else ''}) {{",
        f"  const probs = new Float64Array({program.classes});",
        *(f"  {line}" for line in body.lines),
        "  return probs;",
        "}",
    ]
    return "\n".join(lines) + "\n"


def script_text(value: Any) -> str:
    """Texts as JSON in ASCII, in which nothing ends a script, a comment or a line."""
    text = json.dumps(value, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


_C_HEAD = """\
static double calib_min(double a, double b) {{ return a != a ? a : b != b ? b : a < b ? a : b; }}
static double calib_max(double a, double b) {{ return a != a ? a : b != b ? b : a > b ? a : b; }}
static double calib_sign(double a) {{ return (a > 0) - (a < 0); }}
"""

_C_SORT = """\
/* Shell's sort: of values, or of places by the values there, equal ones as they stand. */
static void calib_sort(double *values, int *places, int count) {
  static const int gaps[] = {701, 301, 132, 57, 23, 10, 4, 1};
  for (int g = 0; g < 8; g++)
    for (int i = gaps[g]; i < count; i++) {
      int gap = gaps[g], j = i, p = places ? places[i] : 0;
      double v = places ? values[p] : values[i];
      for (; j >= gap; j -= gap) {
        int q = places ? places[j - gap] : 0;
        double w = places ? values[q] : values[j - gap];
        if (!(w > v || (places && w == v && q > p))) break;
        if (places) places[j] = q; else values[j] = w;
      }
      if (places) places[j] = p; else values[j] = v;
    }
}
"""


def c_source(program: RecordedCalibrator) -> str:
    """The text of a file of C99 with a function ``calib_calibrate``."""
    body = _Body(program.graph, C())
    text = "\n".join(body.lines)
    names = ", ".join(map(c_text, program.class_names))
    helpers = [
        line for line in _C_HEAD.format().splitlines() if line.split()[2].partition("(")[0] in text
    ]
    lines = [
        f"/* Calibrated probabilities, exported by calib {__version__}. Not for -ffast-math. */",
        "#include <math.h>",
        "",
        f"const char *const calib_class_names[{program.classes}] = {{{names}}};",
        *helpers,
        *([_C_SORT] if "calib_sort" in text else []),
        *body.tables,
        "",
        f"{c_signature(program)} {{",
        *(f"  {line}" for line in body.lines),
        "}",
    ]
    return "\n".join(lines) + "\n"


def c_header(program: RecordedCalibrator) -> str:
    """The text of the header of `c_source`."""
    grouped = bool(program.groups)
    groups = ", ".join(map(c_text, program.groups))
    lines = [
        f"/* Calibrated probabilities, exported by calib {__version__}. */",
        "#ifndef CALIB_CALIBRATE_H",
        "#define CALIB_CALIBRATE_H",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        f"enum {{ CALIB_CLASSES = {program.classes} }};",
        f"extern const char *const calib_class_names[{program.classes}];",
        *(
            [f"/* The number of a row's group, -1 for any other, by their order in: {groups} */"]
            if grouped
            else []
        ),
        f"/* Probabilities of a row of {program.params.input}; it allocates nothing. */",
        f"{c_signature(program)};",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def c_signature(program: RecordedCalibrator) -> str:
    """The function's declaration."""
    group = ", int group" if program.groups else ""
    size = program.classes
    return f"void calib_calibrate(const double scores[{size}]{group}, double probs[{size}])"


def c_text(text: str) -> str:
    """A text as a string of C: UTF-8 in octal escapes but for letters and digits."""
    escaped = "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\{byte:03o}"
        for byte in text.encode("utf-8")
    )
    return f'"{escaped}"'
