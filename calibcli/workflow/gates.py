"""Gates: conditions on what was measured under which a job fails.

A condition compares a metric with a number or with another one::

    condition := quantity OP (number | quantity)      OP: > >= < <= == !=
    quantity  := METRIC [.before | .after | .baseline | .delta | .chance] [.low | .high]

A gate fails where its condition holds, or where a number in it is not known: what was not measured
cannot pass. With ``significant`` it fails only where the whole 95 % interval of the difference
between the two sides fulfils the condition.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple, TypeAlias

from calibcli.errors import UsageError
from calibcli.metrics.registry import METRICS

Measurement: TypeAlias = Literal["", "before", "after", "baseline", "delta", "chance"]
End: TypeAlias = Literal["", "low", "high"]

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}

_STAGES: dict[str, Measurement] = {
    "before": "before",
    "after": "after",
    "baseline": "baseline",
    "delta": "delta",
    "chance": "chance",
}
_ENDS: dict[str, End] = {"low": "low", "high": "high"}

_CONDITION = re.compile(r"\s*([\w.-]+)\s*(>=|<=|==|!=|>|<)\s*([\w.+-]+)\s*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Quantity:
    """One side of a condition.

    Attributes
    ----------
    metric : str
    stage : str
        Which measurement of it; nothing for the plain name.
    end : str
        Which end of its interval; nothing for the number itself.
    """

    metric: str
    stage: Measurement = ""
    end: End = ""

    def __str__(self) -> str:
        return ".".join(filter(None, (self.metric, self.stage, self.end)))

    @property
    def measured(self) -> Measurement:
        """The measurement; that of the plain name is the one after a fit."""
        return "" if self.stage == "after" else self.stage

    @property
    def uncertain(self) -> bool:
        """Whether it has an interval of its own: no end of one, nor what chance would give."""
        return not self.end and self.stage != "chance"

    @property
    def needs_intervals(self) -> bool:
        """Whether it is there only where intervals are."""
        return bool(self.end) or self.stage == "chance"


@dataclass(frozen=True)
class Gate:
    """A condition under which a job fails."""

    left: Quantity
    operator: str
    right: Quantity | float
    right_text: str

    @property
    def expression(self) -> str:
        """The condition, with single spaces."""
        return f"{self.left} {self.operator} {self.right_text}"

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What it compares."""
        right = (self.right,) if isinstance(self.right, Quantity) else ()
        return (self.left, *right)


def parse_gate(text: str) -> Gate:
    """The gate of a condition, ``"ece > 0.02"``.

    Raises
    ------
    UsageError
        It is no condition, or a metric or a part of a name in it is not known.
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise UsageError(
            f"--fail-if {text!r}: must be NAME OP BOUND in quotes, for example 'ece > 0.02' or "
            f"'nll.after > nll.before', with one of {' '.join(OPERATORS)}"
        )
    left, sign, right = found.groups()
    try:
        bound = _number(right) if _NUMBER.fullmatch(right) else _quantity(right)
        return Gate(_quantity(left), sign, bound, str(bound) if right[0].isalpha() else right)
    except UsageError as error:
        raise UsageError(f"--fail-if {text!r}: {error}") from None


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise UsageError(f"{text} is too large a number to compare with")
    return number


def _quantity(text: str) -> Quantity:
    name, *parts = text.split(".")
    metric = METRICS.find(name).name
    stage: Measurement = _STAGES[parts.pop(0)] if parts and parts[0] in _STAGES else ""
    end: End = _ENDS[parts.pop(0)] if parts and parts[0] in _ENDS else ""
    if parts:
        stages, ends = (", ".join(f".{part}" for part in known) for known in (_STAGES, _ENDS))
        close = get_close_matches(parts[0], {*_STAGES, *_ENDS} - {parts[0]}, n=1)
        hint = f"did you mean .{close[0]}? " if close else ""
        raise UsageError(
            f"there is no .{parts[0]} in {text}; {hint}(it is a metric, then one of {stages} or "
            f"nothing, then {ends} or nothing)"
        )
    return Quantity(metric, stage, end)


def gate_metrics(gates: Sequence[Gate]) -> tuple[str, ...]:
    """The metrics that some gates need, each once."""
    return tuple(dict.fromkeys(q.metric for gate in gates for q in gate.quantities))


def check_gates(
    gates: Sequence[Gate],
    *,
    measured: Collection[Measurement],
    intervals: bool,
    significant: bool,
) -> None:
    """Refuse gates that could never be judged, before any work is done.

    Parameters
    ----------
    gates : sequence of Gate
    measured : collection of str
        Those of ``before``, ``after``, ``baseline`` and ``delta`` that there will be.
    intervals : bool
        Whether there will be intervals.
    significant : bool
        Whether the gates are judged by them.

    Raises
    ------
    UsageError
    """
    for gate in gates:
        told = f"--fail-if {gate.expression!r}"
        for quantity in gate.quantities:
            _check_stage(quantity, measured, told)
            if quantity.needs_intervals and not intervals:
                raise UsageError(f"{told}: {quantity} needs intervals; --bootstrap 0 has none")
        if not significant:
            continue
        if not intervals:
            raise UsageError("--significant needs intervals; --bootstrap 0 has none")
        if gate.operator == "==":
            raise UsageError(f"{told}: no interval shows that numbers are equal (--significant)")
        if not _comparable(gate):
            raise UsageError(
                f"{told}: the interval of this difference is not known (--significant); compare "
                "a metric with a number, with itself before the fit, or with the baseline"
            )


def _check_stage(quantity: Quantity, measured: Collection[Measurement], told: str) -> None:
    stage = quantity.stage
    if stage in ("", "chance") or stage in measured:
        return
    if stage in ("baseline", "delta"):
        raise UsageError(f"{told}: {quantity} needs --baseline FILE.json")
    raise UsageError(
        f"{told}: only a fit measures before and after; write {Quantity(quantity.metric)}"
    )


def _comparable(gate: Gate) -> bool:
    """Whether an interval of the difference between the two sides can be had."""
    left, right = gate.left, gate.right
    if not isinstance(right, Quantity) or not (left.uncertain and right.uncertain):
        return True
    if left.metric != right.metric:
        return False
    sides = {left.measured, right.measured}
    return sides == {"", "before"} or ("baseline" in sides and sides < {"", "before", "baseline"})


Metrics: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Metrics by name as a result document has them: ``value``, ``low``, ``high``, ``change``, …"""


class Estimate(NamedTuple):
    """A number and its 95 % interval; NaN is what is not known."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def exact(self) -> bool:
        """Whether there is nothing uncertain about it."""
        return self.low == self.value == self.high

    def mirrored(self) -> Estimate:
        """The estimate of the negative of the number."""
        return Estimate(-self.value, -self.high, -self.low)


@dataclass(frozen=True)
class Subject:
    """What gates are judged on: the measurements of one input.

    Attributes
    ----------
    name : str
        The input that was measured.
    now : mapping
        Its metrics; of a fit those afterwards.
    before, baseline : mapping or None
        Of the same rows before the fit, and of an earlier run.
    """

    name: str
    now: Metrics
    before: Metrics | None = None
    baseline: Metrics | None = None


@dataclass(frozen=True)
class Judgement:
    """What became of a gate.

    Attributes
    ----------
    gate : Gate
    subject : str
        Name of the input.
    passed : bool
    left, right, difference : Estimate
        Both sides, and the left one minus the right one.
    significant : bool
        Whether the interval of the difference decided.
    reason : str
        What is not known, where that is why it failed.
    """

    gate: Gate
    subject: str
    passed: bool
    left: Estimate
    right: Estimate
    difference: Estimate
    significant: bool
    reason: str = ""


def judge(gate: Gate, subject: Subject, *, significant: bool = False) -> Judgement:
    """Whether an input passes a gate."""
    left = _estimate(gate.left, subject)
    if isinstance(gate.right, Quantity):
        right = _estimate(gate.right, subject)
        difference = _difference(gate.left, gate.right, subject)
    else:
        right = Estimate(gate.right, gate.right, gate.right)
        difference = _shifted(left, gate.right)
    reason = _unknown(gate, left, right, difference if significant else None)
    if reason:
        fails = True
    elif significant:
        fails = _clears(gate.operator, difference)
    else:
        fails = OPERATORS[gate.operator](left.value, right.value)
    return Judgement(gate, subject.name, not fails, left, right, difference, significant, reason)


def _unknown(gate: Gate, left: Estimate, right: Estimate, judged: Estimate | None) -> str:
    """What is not known, in words; nothing where all that is needed is."""
    for quantity, found in zip(gate.quantities, (left, right), strict=False):
        if math.isnan(found.value):
            return f"{quantity} is not known"
    if judged is not None and (math.isnan(judged.low) or math.isnan(judged.high)):
        return f"{' or '.join(map(str, gate.quantities))} has no interval"
    return ""


def _clears(sign: str, difference: Estimate) -> bool:
    """Whether a whole interval of differences fulfils a condition."""
    if sign == "!=":
        return difference.low > 0 or difference.high < 0
    end = difference.low if sign in (">", ">=") else difference.high
    return OPERATORS[sign](end, 0.0)


def _estimate(quantity: Quantity, subject: Subject) -> Estimate:
    if quantity.stage == "chance":
        found = _read(subject.now.get(quantity.metric, {}).get("chance"), "mean")
    elif quantity.stage == "delta":
        reference: Measurement = "before" if subject.baseline is None else "baseline"
        against = Quantity(quantity.metric, reference)
        found = _difference(Quantity(quantity.metric), against, subject)
    else:
        stages = {"": subject.now, "before": subject.before, "baseline": subject.baseline}
        found = _read((stages[quantity.measured] or {}).get(quantity.metric))
    if quantity.uncertain:
        return found
    value = getattr(found, quantity.end or "value")
    return Estimate(value, value, value)


def _read(entry: Mapping[str, Any] | None, key: str = "value") -> Estimate:
    """A part of a document as numbers; null, as JSON has it for NaN and infinity, is not known."""
    found = entry or {}
    numbers = (found.get(name) for name in (key, "low", "high"))
    return Estimate(*(math.nan if number is None else float(number) for number in numbers))


def _difference(left: Quantity, right: Quantity, subject: Subject) -> Estimate:
    """Left minus right, with an interval where there is one."""
    first, second = _estimate(left, subject), _estimate(right, subject)
    if not right.uncertain:
        return _shifted(first, second.value)
    if not left.uncertain:
        return _shifted(second, first.value).mirrored()
    value = first.value - second.value
    if left.metric != right.metric:
        return Estimate(value)
    sides = (left.measured, right.measured)
    if sides in (("", "before"), ("before", "")):
        change = _read(subject.now.get(left.metric, {}).get("change"))
        signed = change if sides[0] == "" else change.mirrored()
        return Estimate(value, signed.low, signed.high)
    return _unpaired(first, second) if "baseline" in sides else Estimate(value)


def _shifted(estimate: Estimate, by: float) -> Estimate:
    return Estimate(*(number - by for number in estimate))


def _unpaired(first: Estimate, second: Estimate) -> Estimate:
    """The difference of two independent estimates, with an interval from theirs.

    Their distances to the ends are added as standard errors are, each on its side (Zou and Donner,
    2008, doi:10.1002/sim.3095). Of the same rows, whose errors go together, it is too wide.
    """
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, value - below, value + above)
