"""The grammar of conditions, and its parser: a function for each rule.

::

    condition := operand SIGN ( NUMBER | operand )        SIGN: > >= < <= == !=
    operand   := measure | slice | worst | failed
    measure   := METRIC [ "." STAGE ] [ "." END ]
    slice     := METRIC "[" column "=" WORD "]" [ "." END ]
    worst     := "worst(" METRIC [ "." END ] ")" "by" column
    failed    := ( "slices.failed" | "periods.failed" ) [ "by" column ]
    column    := WORD

``docs/ci.md`` has it whole. A quantity that is added is a name of a metric, a stage or an end, or
another operand that begins with a name.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import cast

from calibcli.errors import UsageError
from calibcli.metrics.registry import METRICS
from calibcli.metrics.slices import SLICE_METRICS
from calibcli.workflow.quantities import (
    PLAIN_WORD,
    PREDICTED,
    Division,
    End,
    FailedParts,
    FailedPeriods,
    FailedSlices,
    Measurement,
    Operand,
    Quantity,
    SliceQuantity,
    WorstSlice,
)

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}

STAGES = ("before", "after", "change", "baseline", "delta", "chance", "trend", "band")
ENDS = ("estimate", "low", "high")
SLICE_ENDS = ("low", "high")

_FAILED: dict[str, type[FailedParts]] = {
    f"{kind.noun}s": kind for kind in (FailedSlices, FailedPeriods)
}

_SIGN = re.compile(r">=|<=|==|!=|>|<")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(?![\w.])", re.ASCII)
_NAME = re.compile(r"[a-z_][\w@-]*", re.ASCII | re.IGNORECASE)
_PART = re.compile(r"\.[\w@-]*", re.ASCII)
_WORD = re.compile(rf"""{PLAIN_WORD}|"(?:[^"]|"")*"|'(?:[^']|'')*'""")
_WORST = re.compile(r"worst\s*\(")
_SPACE = re.compile(r"\s*")
_EXAMPLE = "for example 'ece > 0.02' or 'nll.after > nll.before', in quotes"


@dataclass(frozen=True)
class Gate:
    """A condition under which a job fails."""

    left: Operand
    operator: str
    right: Operand | float
    right_text: str

    @property
    def expression(self) -> str:
        """The condition, with single spaces."""
        return f"{self.left} {self.operator} {self.right_text}"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """What it compares."""
        right = (self.right,) if isinstance(self.right, Operand) else ()
        return (self.left, *right)


def parse_gate(text: str) -> Gate:
    """The gate of a condition, ``"ece > 0.02"``.

    Raises
    ------
    UsageError
        It is no condition, or a metric or a part of a name in it is not known. The message says
        where, and what could stand there.
    """
    try:
        return _Parser(text).condition()
    except UsageError as error:
        raise UsageError(f"--fail-if {text!r}: {error}") from None


class _Parser:
    """Reads a condition from its beginning; a method for each rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def condition(self) -> Gate:
        left = self._operand("a metric")
        sign = self._expect(_SIGN, f"one of {' '.join(OPERATORS)}")
        number = self._take(_NUMBER)
        right: Operand | float
        if number is None:
            right = self._operand("a number or a metric")
            right_text = str(right)
        else:
            right, right_text = _finite(number), number
        if self._rest():
            raise self._unexpected("the end; --fail-if can be given again for another condition")
        return Gate(left, sign, right, right_text)

    def _operand(self, expected: str) -> Operand:
        if self._take(_WORST):
            return self._worst()
        self._skip()
        begin = self._at
        name = self._expect(_NAME, expected)
        if name in _FAILED:
            return self._failed(name)
        metric = self._metric(name, begin)
        if self._take(re.compile(r"\[")):
            return self._slice(metric)
        stage, end = self._parts(metric, STAGES, ENDS)
        if end == "estimate" and stage not in ("", "before", "after", "baseline"):
            raise UsageError(f"{metric}.{stage} has no .estimate; write {metric}.{stage}")
        return Quantity(metric, cast("Measurement", stage), cast("End", end))

    def _slice(self, metric: str) -> SliceQuantity:
        by = self._column()
        self._expect(re.compile("="), "= and a value")
        value = self._word("a value; one with spaces, commas or brackets stands in double quotes")
        self._expect(re.compile("]"), "]; a value with spaces or commas stands in double quotes")
        _, end = self._parts(f"{metric}[…]", (), SLICE_ENDS)
        _check_of_slices(metric)
        return SliceQuantity(metric, by, value, end=cast("End", end))

    def _worst(self) -> WorstSlice:
        self._skip()
        begin = self._at
        metric = self._metric(self._expect(_NAME, "a metric"), begin)
        _, end = self._parts(metric, (), SLICE_ENDS)
        self._expect(re.compile(r"\)"), ")")
        self._expect(re.compile(r"by\b"), "by and a column, as in 'worst(ece) by subject > 0.05'")
        _check_of_slices(metric)
        return WorstSlice(metric, self._column(), end=cast("End", end))

    def _failed(self, name: str) -> FailedParts:
        self._parts(name, ("failed",), (), least=1)
        by = self._take(re.compile(r"by\b"))
        begin, column = self._at, self._column() if by else None
        kind = _FAILED[name]
        if kind.in_order and column is not None and column.column is None:
            raise UsageError(f"{_place(begin)}: predicted classes are no {name}; name a column")
        return kind(column)

    def _column(self) -> Division:
        self._skip()
        is_quoted = self._text[self._at : self._at + 1] in ('"', "'")
        word = self._word(f"a column, or {PREDICTED} for the predicted class")
        return Division(None if word == PREDICTED and not is_quoted else word)

    def _word(self, expected: str) -> str:
        word = self._expect(_WORD, expected)
        mark = word[0]
        return word[1:-1].replace(mark * 2, mark) if mark in "\"'" else word

    def _metric(self, name: str, begin: int) -> str:
        try:
            return METRICS.find(name).name
        except UsageError as error:
            raise UsageError(f"{_place(begin)}: {error}") from None

    def _parts(
        self, name: str, stages: tuple[str, ...], ends: tuple[str, ...], *, least: int = 0
    ) -> tuple[str, str]:
        """What follows a name behind dots: a stage, an end, both or nothing."""
        parts: list[tuple[int, str]] = []
        while (match := _PART.match(self._text, self._at)) is not None:
            parts.append((self._at, match[0][1:]))
            self._at = match.end()
        chosen = []
        for known in (stages, ends):
            taken = bool(parts) and parts[0][1] in known
            chosen.append(parts.pop(0)[1] if taken else "")
        if parts or not any(chosen) >= least:
            begin, part = parts[0] if parts else (self._at, "")
            every = [*stages, *ends]
            close = get_close_matches(part, [each for each in every if each != part], n=1)
            hint = f"did you mean .{close[0]}? " if close else ""
            raise UsageError(
                f"{_place(begin)}: there is no .{part} of {name} here; {hint}"
                f"({_rule(name, stages, ends, least)})"
            )
        return chosen[0], chosen[1]

    def _skip(self) -> None:
        space = _SPACE.match(self._text, self._at)
        assert space is not None
        self._at = space.end()

    def _rest(self) -> str:
        self._skip()
        return self._text[self._at :]

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        """What a pattern matches at this place, behind any space."""
        self._skip()
        match = pattern.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return match[0]

    def _expect(self, pattern: re.Pattern[str], expected: str) -> str:
        token = self._take(pattern)
        if token is None:
            raise self._unexpected(expected)
        return token

    def _unexpected(self, expected: str) -> UsageError:
        rest = self._rest()
        what = f"{_place(self._at)} is {rest[:20]!r}" if rest else "it ends"
        return UsageError(f"{what} where there must be {expected} ({_EXAMPLE})")


def _place(at: int) -> str:
    return f"character {at + 1}"


def _rule(name: str, stages: Iterable[str], ends: Iterable[str], least: int) -> str:
    groups = [" ".join(f".{each}" for each in known) for known in (stages, ends) if known]
    rule = ", then ".join(f"one of {each}" if " " in each else each for each in groups)
    return f"it is {name}, then {rule}{'' if least else ', or nothing for either'}"


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise UsageError(f"{text} is too large a number to compare with")
    return number


def _check_of_slices(metric: str) -> None:
    if metric not in SLICE_METRICS:
        raise UsageError(f"{metric} is not measured by slice; {', '.join(SLICE_METRICS)} are")
