"""A calibrator as a query over a table of scores: a select for each level of its arithmetic.

SQL has no vectors that all dialects would compute with alike, so every class has columns of its
own. What is used once is part of an expression, and what is used again is a column of a level.
Only columns that a later level needs are handed on, beside the row of the table as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.engine.survey import TOO_LARGE
from calibcli.errors import UsageError
from calibcli.export.graph import ELEMENTWISE, Graph, Node, dependencies_first
from calibcli.export.recording import RecordedCalibrator
from calibcli.export.sql_dialects import DIALECTS, ROW_ALIAS, Dialect
from calibcli.version import __version__
from calibcli.visible import visible

MOST_CLASSES_IN_SQL = 32
"""Each has columns of its own, and sorting compares every two of them."""

_LONGEST = 160
"""Characters of an expression that is written where it is used."""

_ARRAYS = {"logits": "logits", "log-probs": "log_probs", "probs": "probs"}
"""What the array of the scores is called where nothing else is said."""


@dataclass(frozen=True)
class SqlQuery:
    """What a query is written for.

    Attributes
    ----------
    dialect : str
        A key of `DIALECTS`.
    table : str
        The table of the scores, behind a schema and a dot where it is in one.
    columns : tuple of str, optional
        Those of the scores, one a class; for two classes also that of class 1 alone.
    array : str, optional
        The column of all scores of a row; by default ``logits``, ``log_probs`` or ``probs``.
    """

    dialect: str
    table: str = "scores"
    columns: tuple[str, ...] | None = None
    array: str | None = None


def make_query(
    dialect: str | None, table: str | None, columns: Sequence[str] | None, array: str | None
) -> SqlQuery | None:
    """The query that options ask for, if any does.

    Raises
    ------
    UsageError
        The dialect is missing or unknown, or the scores are said to be in two places.
    """
    if dialect is None and table is None and columns is None and array is None:
        return None
    if dialect not in DIALECTS:
        known = ", ".join(DIALECTS)
        given = "" if dialect is None else f", not {visible(dialect)!r}"
        raise UsageError(f"SQL needs a --dialect: one of {known}{given}")
    if columns is not None and array is not None:
        raise UsageError("the scores are an array or columns; give one of --array and --columns")
    given_columns = None if columns is None else tuple(columns)
    return SqlQuery(dialect, table or "scores", given_columns, array)


@dataclass(frozen=True)
class _Cell:
    """A number of each row, as an expression.

    Attributes
    ----------
    text : str
    needs : frozenset of str
        The columns in it.
    level : int
        The level that has all of them.
    value : number or None
        What it is, where that is no matter of the row.
    """

    text: str
    needs: frozenset[str] = frozenset()
    level: int = 0
    value: Any = None

    @property
    def is_atom(self) -> bool:
        """Whether it may be written again and again: a number or a column."""
        return self.value is not None or self.text in self.needs


def sql_source(program: RecordedCalibrator, query: SqlQuery | None) -> str:
    """The text of the query: the columns of the table, then probabilities, label and confidence.

    Raises
    ------
    UsageError
        There are too many classes, no dialect was said, or it has no such name.
    """
    if query is None:
        raise UsageError(f"SQL needs a --dialect: one of {', '.join(DIALECTS)}")
    if program.classes > MOST_CLASSES_IN_SQL:
        raise UsageError(
            f"a query has columns for each class: {program.classes:,} are too many, "
            f"{MOST_CLASSES_IN_SQL} are possible"
        )
    dialect = DIALECTS[query.dialect]
    levels = _Levels(dialect)
    inputs = {"scores": _scores(program, query, levels)}
    usable = _usable(program, levels, inputs["scores"])
    if program.group_column is not None:
        inputs["group"] = [_group(program, program.group_column, levels)]
    body = _Arithmetic(program.graph, levels, inputs)
    probs = [levels.column(cell) for cell in body.cells("probs")]
    label, confidence = (levels.column(*body.cells(name)) for name in ("label", "confidence"))
    texts = [cell.text for cell in probs]
    named = {"prediction": label.text, "confidence": confidence.text}
    if query.columns is None:
        named = {"probs": dialect.array(texts), **named}
    else:
        named = {
            **{f"prob_{name}": text for name, text in zip(program.class_names, texts, strict=True)},
            **named,
        }
    outputs = [
        f"CASE WHEN {usable.text} THEN {text} END AS {dialect.name(name)}"
        for name, text in named.items()
    ]
    head = [
        f"-- Calibrated probabilities, exported by calib {__version__} for {dialect.title}.",
        f"-- Stages: {', '.join(program.stages) or 'none'}. Scores: {program.params.input}.",
    ]
    table = f"{dialect.table(query.table)} AS {ROW_ALIAS}"
    lines = [*head, *levels.selects(table, outputs, [*probs, label, confidence, usable])]
    return "\n".join(lines) + "\n"


def _scores(program: RecordedCalibrator, query: SqlQuery, levels: _Levels) -> list[_Cell]:
    """The scores of a row, one a class, from the columns or the array that they are in."""
    dialect, classes, kind = levels.dialect, program.classes, program.params.input
    if query.columns is None:
        array = f"{ROW_ALIAS}.{dialect.name(query.array or _ARRAYS[kind])}"
        texts = [dialect.element(array, str(place)) for place in range(classes)]
    elif len(query.columns) == classes:
        texts = [f"{ROW_ALIAS}.{dialect.name(column)}" for column in query.columns]
    elif len(query.columns) == 1 and classes == 2:
        (score,) = (levels.given(f"{ROW_ALIAS}.{dialect.name(column)}") for column in query.columns)
        return [_of_class_0(program, levels, score), score]
    else:
        raise UsageError(
            f"--columns names {len(query.columns)} columns, the calibrator has {classes} classes"
        )
    return [levels.given(text) for text in texts]


def _of_class_0(program: RecordedCalibrator, levels: _Levels, score: _Cell) -> _Cell:
    """The score of the first of two classes from that of the second."""
    params, functions = program.params, _Functions(levels)
    if params.input == "logits":
        return levels.constant(0.0)
    if params.input == "probs":
        whole = 100.0 if params.reading.get("input") == "percent" else 1.0
        return functions.call("sub", levels.constant(whole), score)
    return functions.call("log", functions.call("neg", functions.call("expm1", score)))


def _usable(program: RecordedCalibrator, levels: _Levels, scores: Sequence[_Cell]) -> _Cell:
    """Whether a row has probabilities; `calib apply` refuses any other."""
    kind, reading, dialect = program.params.input, program.params.reading, levels.dialect
    places = range(len(scores))
    limit = TOO_LARGE[kind] * (100 if reading.get("input") == "percent" else 1)
    if reading.get("renormalise"):
        limit = np.inf
    # A NaN is less than no number, or as in PostgreSQL greater than all; nulls make a null.
    conditions = [f"{{{place}}} < {dialect.number(limit)}" for place in places]
    if kind == "probs":
        conditions += [f"{{{place}}} >= 0" for place in places]
    possible = 0.0 if reading.get("renormalise") else -np.inf
    some = (f"{{{place}}} > {dialect.number(possible)}" for place in places)
    conditions.append(f"({' OR '.join(some)})")
    return levels.column(_Functions(levels).written(" AND ".join(conditions), *scores))


def _group(program: RecordedCalibrator, column: str, levels: _Levels) -> _Cell:
    """The number of a row's group, -1 for any other."""
    dialect = levels.dialect
    cases = " ".join(
        f"WHEN {dialect.text(name)} THEN {number}" for number, name in enumerate(program.groups)
    )
    return levels.given(
        f"CASE {ROW_ALIAS}.{dialect.name(column)} {cases} ELSE -1 END", is_real=False
    )


@dataclass
class _Levels:
    """The columns of each level.

    Attributes
    ----------
    dialect : Dialect
    columns : dict of str to _Cell
        What each column is computed from; the first level takes them from the table.
    """

    dialect: Dialect
    columns: dict[str, _Cell] = field(default_factory=dict)
    _names: dict[str, _Cell] = field(default_factory=dict)

    def given(self, text: str, *, is_real: bool = True) -> _Cell:
        """A column of the first level."""
        return self._named(_Cell(self.dialect.to_real(text) if is_real else text), 0)

    def constant(self, value: Any) -> _Cell:
        """A number."""
        return _Cell(self.dialect.number(value), value=value)

    def column(self, cell: _Cell) -> _Cell:
        """An expression as a column, unless it is one, or a number."""
        return cell if cell.is_atom else self._named(cell, cell.level + 1)

    def _named(self, cell: _Cell, level: int) -> _Cell:
        if cell.text not in self._names:
            name = f"c{len(self.columns)}"
            self.columns[name] = cell
            self._names[cell.text] = _Cell(name, frozenset((name,)), level)
        return self._names[cell.text]

    def selects(self, table: str, outputs: Sequence[str], used: Sequence[_Cell]) -> list[str]:
        """The lines of the query."""
        level_of = {each.text: each.level for each in self._names.values()}
        last = max([0, *(cell.level for cell in used)])
        until = dict.fromkeys(self.columns, -1)
        for name in (name for cell in used for name in cell.needs):
            until[name] = last
        # A column is made behind all that it needs, so the last one is looked at first.
        for name, cell in reversed(self.columns.items()):
            if until[name] >= 0:
                for needed in cell.needs:
                    until[needed] = max(until[needed], level_of[name] - 1)
        lines, before = [], table
        for level in range(last + 1):
            source = "source" if level else f"{self.dialect.source} AS source"
            kept = [name for name in until if level_of[name] < level <= until[name]]
            made = [
                f"  {cell.text} AS {name}"
                for name, cell in self.columns.items()
                if level_of[name] == level and until[name] >= 0
            ]
            head = f"  {', '.join([source, *kept])}"
            body = ",\n".join([head, *made])
            name = f"calib_level_{level}"
            begin = "WITH " if level == 0 else ""
            lines.append(
                f"{begin}{name} AS (\nSELECT\n{body}\nFROM {before}{self.dialect.barrier}),"
            )
            before = name
        lines[-1] = lines[-1].removesuffix(",")
        listed = ",\n  ".join([self.dialect.all_columns, *outputs])
        return [*lines, f"SELECT\n  {listed}\nFROM {before}"]


_INFIX = {
    "add": "+",
    "sub": "-",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "=",
    "ne": "<>",
    "and": "AND",
    "or": "OR",
}

_WRITTEN = {
    "neg": "(-{0})",
    "not": "(NOT {0})",
    "abs": "abs({0})",
    "sign": "sign({0})",
    "minimum": "least({0}, {1})",
    "maximum": "greatest({0}, {1})",
    "where": "CASE WHEN {0} THEN {1} ELSE {2} END",
}


class _Functions:
    """Functions of numbers as expressions."""

    def __init__(self, levels: _Levels) -> None:
        self._levels, self._dialect = levels, levels.dialect
        self._own: dict[str, Callable[..., _Cell]] = {
            "mul": self._product,
            "div": self._several(self._dialect.quotient),
            "exp": self._several(self._dialect.exponential),
            "log": self._several(self._dialect.logarithm),
            "isnan": self._several(self._dialect.is_nan),
            "isinf": self._several(lambda x: f"(abs({x}) = {self._dialect.infinity})"),
            "floordiv": lambda x, _: self._joined(self._dialect.halved(x.text), x),
            "log1p": self._log1p,
            "expm1": self._expm1,
            "pow": self._pow,
        }

    def call(self, op: str, *operands: _Cell) -> _Cell:
        """An elementwise operation of a graph."""
        if all(cell.value is not None for cell in operands):
            with np.errstate(all="ignore"):
                value = ELEMENTWISE[op][0](*(cell.value for cell in operands))
            return self._levels.constant(np.asarray(value).item())
        if op in self._own:
            return self._own[op](*operands)
        texts = [cell.text for cell in operands]
        if op in _INFIX:
            return self._joined(f"({texts[0]} {_INFIX[op]} {texts[1]})", *operands)
        return self._joined(_WRITTEN[op].format(*texts), *operands)

    def of_all(self, function: str, cells: Sequence[_Cell]) -> _Cell:
        """A function of any number of numbers."""
        return self._joined(f"{function}({', '.join(cell.text for cell in cells)})", *cells)

    def written(self, text: str, *cells: _Cell) -> _Cell:
        """An expression of columns and numbers that are in a text by their places."""
        atoms = [self._levels.column(cell) for cell in cells]
        return self._joined(text.format(*(cell.text for cell in atoms)), *atoms)

    def _joined(self, text: str, *cells: _Cell) -> _Cell:
        needs = frozenset[str]().union(*(cell.needs for cell in cells))
        cell = _Cell(text, needs, max(cell.level for cell in cells))
        return self._levels.column(cell) if len(text) > _LONGEST else cell

    def _several(self, write: Callable[..., str]) -> Callable[..., _Cell]:
        """A function whose text has its operands more than once."""

        def call(*operands: _Cell) -> _Cell:
            atoms = [self._levels.column(cell) for cell in operands]
            return self._joined(write(*(cell.text for cell in atoms)), *atoms)

        return call

    def _product(self, x: _Cell, y: _Cell) -> _Cell:
        if x.value is not None:
            x, y = y, x
        x = self._levels.column(x)
        if y.value is not None:
            return self._joined(self._dialect.scaled(x.text, y.value), x)
        y = self._levels.column(y)
        return self._joined(self._dialect.product(x.text, y.text), x, y)

    def _log1p(self, x: _Cell) -> _Cell:
        # Kahan: the rounding of 1 + x cancels in the quotient.
        one = self._levels.constant(1.0)
        x = self._levels.column(x)
        above = self._levels.column(self.call("add", one, x))
        ratio = self.call(
            "div", self.call("mul", self.call("log", above), x), self.call("sub", above, one)
        )
        infinite = f"{{0}} = 1 THEN {{1}} WHEN {{0}} = {self._dialect.infinity} THEN {{1}}"
        return self.written(f"CASE WHEN {infinite} ELSE {{2}} END", above, x, ratio)

    def _expm1(self, x: _Cell) -> _Cell:
        # Kahan again.
        one = self._levels.constant(1.0)
        x = self._levels.column(x)
        power = self._levels.column(self.call("exp", x))
        less = self._levels.column(self.call("sub", power, one))
        ratio = self.call("div", self.call("mul", less, x), self.call("log", power))
        plain = "{0} = 1 THEN {1} WHEN abs({1}) > 1 THEN {2}"
        return self.written(f"CASE WHEN {plain} ELSE {{3}} END", power, x, less, ratio)

    def _pow(self, x: _Cell, exponent: _Cell) -> _Cell:
        if exponent.value in (2, 3):
            x = self._levels.column(x)
            square = self.call("mul", x, x)
            return square if exponent.value == 2 else self.call("mul", square, x)
        # Of numbers that are not negative; a power that is too small is an error in PostgreSQL.
        power = self.call("exp", self.call("mul", exponent, self.call("log", x)))
        zero = self._levels.constant(0.0)
        return self.call(
            "where", self.call("eq", exponent, zero), self._levels.constant(1.0), power
        )


class _Arithmetic:
    """The operations of a graph, class by class."""

    def __init__(self, graph: Graph, levels: _Levels, inputs: dict[str, list[_Cell]]) -> None:
        self._graph, self._levels, self._inputs = graph, levels, inputs
        self._functions = _Functions(levels)
        nodes = dependencies_first([*graph.inputs, *graph.outputs.values()])
        self._uses: dict[int, int] = {}
        for node in nodes:
            for each in node.inputs:
                # What has one number is used for every class.
                times = 2 if _size(each) < _size(node) else 1
                self._uses[id(each)] = self._uses.get(id(each), 0) + times
        self._cells: dict[int, list[_Cell]] = {}
        for node in nodes:
            cells = self._of(node)
            if self._uses.get(id(node), 0) > 1:
                cells = [levels.column(cell) for cell in cells]
            self._cells[id(node)] = cells

    def cells(self, output: str) -> list[_Cell]:
        """The numbers of an output of the graph."""
        return self._cells[id(self._graph.outputs[output])]

    def _of(self, node: Node) -> list[_Cell]:
        if node.op == "constant":
            return self._constants(node.value)
        if node.op == "input":
            return self._inputs.get(node.value, [])
        if node.op == "take":
            return self._take(node)
        operands = [self._cells[id(each)] for each in node.inputs]
        if node.op in ELEMENTWISE:
            size = _size(node)
            spread = [cells if len(cells) == size else cells * size for cells in operands]
            return [self._functions.call(node.op, *each) for each in zip(*spread, strict=True)]
        function: Callable[..., list[_Cell]] = getattr(self, f"_{node.op.replace(' ', '_')}")
        return function(node, *operands)

    def _constants(self, values: NumpyArray) -> list[_Cell]:
        # A table has no cells of its own, nor has a matrix.
        if values.size > max(values.shape[-1:], default=1) or values.size > MOST_CLASSES_IN_SQL:
            return []
        return [self._levels.constant(value) for value in values.ravel().tolist()]

    def _take(self, node: Node) -> list[_Cell]:
        values = node.inputs[0].value.tolist()
        places = self._cells[id(node.inputs[1])]
        if all(place.value is not None for place in places):
            return [self._levels.constant(values[place.value]) for place in places]
        dialect = self._levels.dialect
        array = dialect.array([dialect.number(value) for value in values])
        table = self._levels.given(array, is_real=False)
        return [
            self._levels.constant(values[place.value])
            if place.value is not None
            else self._functions.written(dialect.element("{0}", "{1}"), table, place)
            for place in places
        ]

    def _folded(self, op: str, cells: Sequence[_Cell]) -> list[_Cell]:
        total = cells[0]
        for cell in cells[1:]:
            total = self._functions.call(op, total, cell)
        return [total]

    def _sum(self, _: Node, cells: Sequence[_Cell]) -> list[_Cell]:
        return self._folded("add", cells)

    def _max(self, _: Node, cells: Sequence[_Cell]) -> list[_Cell]:
        return [self._functions.of_all("greatest", cells)]

    def _min(self, _: Node, cells: Sequence[_Cell]) -> list[_Cell]:
        return [self._functions.of_all("least", cells)]

    def _any(self, _: Node, cells: Sequence[_Cell]) -> list[_Cell]:
        return self._folded("or", cells)

    def _all(self, _: Node, cells: Sequence[_Cell]) -> list[_Cell]:
        return self._folded("and", cells)

    def _argmax(self, node: Node, cells: Sequence[_Cell]) -> list[_Cell]:
        (largest,) = map(self._levels.column, self._max(node, cells))
        cases = " ".join(
            f"WHEN {{{place}}} = {{{len(cells)}}} THEN {place}" for place in range(len(cells))
        )
        return [self._functions.written(f"CASE {cases} END", *cells, largest)]

    def _cast(self, node: Node, cells: Sequence[_Cell]) -> list[_Cell]:
        if node.inputs[0].dtype != np.bool_:
            return list(cells)
        one, zero = self._levels.constant(1.0), self._levels.constant(0.0)
        return [self._functions.call("where", cell, one, zero) for cell in cells]

    def _widen(self, _: Node, cells: Sequence[_Cell]) -> list[_Cell]:
        return list(cells)

    def _fill(self, node: Node, cells: Sequence[_Cell], _: Any) -> list[_Cell]:
        return list(cells) * (_size(node) // len(cells))

    def _column(self, node: Node, cells: Sequence[_Cell]) -> list[_Cell]:
        return [cells[place] for place in node.value]

    _columns = _column

    def _concat(self, _: Node, *parts: Sequence[_Cell]) -> list[_Cell]:
        return [cell for part in parts for cell in part]

    def _matmul(self, node: Node, cells: Sequence[_Cell], _: Any) -> list[_Cell]:
        matrix = node.inputs[1].value.reshape(len(cells), -1)
        atoms = [self._levels.column(cell) for cell in cells]
        return [
            cell
            for weights in matrix.T.tolist()
            for cell in self._folded(
                "add",
                [
                    self._functions.call("mul", atom, self._levels.constant(weight))
                    for atom, weight in zip(atoms, weights, strict=True)
                ],
            )
        ]

    def _pick(self, _: Node, cells: Sequence[_Cell], place: Sequence[_Cell]) -> list[_Cell]:
        return self._take_along(_, cells, place)

    def _take_along(self, _: Node, cells: Sequence[_Cell], places: Sequence[_Cell]) -> list[_Cell]:
        cases = " ".join(f"WHEN {place} THEN {{{place}}}" for place in range(len(cells)))
        text = f"CASE {{{len(cells)}}} {cases} END"
        return [self._functions.written(text, *cells, place) for place in places]

    def _ranks(self, cells: Sequence[_Cell]) -> list[_Cell]:
        """How many elements come before each, equal ones in their order."""
        return [
            self._levels.column(
                self._functions.written(
                    " + ".join(
                        f"CASE WHEN {{{j}}} {'<=' if j < i else '<'} {{{i}}} THEN 1 ELSE 0 END"
                        for j in range(len(cells))
                        if j != i
                    ),
                    *cells,
                )
            )
            for i in range(len(cells))
        ]

    def _argsort(self, _: Node, cells: Sequence[_Cell]) -> list[_Cell]:
        ranks = self._ranks(cells)
        cases = " ".join(f"WHEN {{{place}}} THEN {place}" for place in range(len(cells)))
        return [
            self._functions.written(f"CASE {place} {cases} END", *ranks)
            for place in range(len(cells))
        ]

    def _sort(self, _: Node, cells: Sequence[_Cell]) -> list[_Cell]:
        ranks = self._ranks(cells)
        count = len(cells)
        cases = " ".join(f"WHEN {{{place + count}}} THEN {{{place}}}" for place in range(count))
        return [
            self._functions.written(f"CASE {place} {cases} END", *cells, *ranks)
            for place in range(count)
        ]


def _size(node: Node) -> int:
    """Numbers of a row, or of a constant row."""
    if node.op == "constant":
        return int(node.value.size)
    return 1 if node.width is None else node.width
