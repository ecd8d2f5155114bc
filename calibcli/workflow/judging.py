"""Whether measurements pass gates: both sides of a condition as estimates, and their difference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from calibcli.workflow.gates import OPERATORS, Gate, Quantity, Stage

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
        reference: Stage = "before" if subject.baseline is None else "baseline"
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
