"""Gates: whether the conditions hold under which a job fails.

A gate fails where its condition holds, or where a number in it is not known: what was not measured
cannot pass. With ``significant`` it fails only where the whole 95 % interval of the difference
between the two sides fulfils the condition. `conditions` has their grammar, `quantities` what they
compare.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from calibcli.errors import UsageError
from calibcli.workflow.conditions import OPERATORS, Gate
from calibcli.workflow.quantities import (
    Division,
    Estimate,
    Measurement,
    Operand,
    Quantity,
    Subject,
    left_minus_right,
)

if TYPE_CHECKING:
    from calibcli.schema.parts import GateSlicePart


def gate_metrics(gates: Sequence[Gate]) -> tuple[str, ...]:
    """The metrics of all rows that some gates need, each once."""
    return tuple(dict.fromkeys(m for gate in gates for q in gate.operands for m in q.metrics()))


def gate_slices(gates: Sequence[Gate]) -> tuple[Division, ...]:
    """What some gates need the rows divided by, each once."""
    return tuple(
        dict.fromkeys(by for gate in gates for q in gate.operands for by in q.divided_by())
    )


def check_gates(
    gates: Sequence[Gate],
    *,
    measured: Collection[Measurement],
    intervals: bool,
    significant: bool,
    slices: bool = True,
) -> None:
    """Refuse gates that could never be judged, before any work is done.

    Parameters
    ----------
    gates : sequence of Gate
    measured : collection of str
        Those of ``before``, ``after``, ``change``, ``baseline``, ``delta``, ``trend`` and ``band``
        that there will be.
    intervals : bool
        Whether there will be intervals of what is measured on all rows.
    significant : bool
        Whether the gates are judged by them.
    slices : bool
        Whether slices can be measured.

    Raises
    ------
    UsageError
    """
    for gate in gates:
        flag = f"--fail-if {gate.expression!r}"
        for operand in gate.operands:
            _check_operand(operand, measured, flag, intervals=intervals, slices=slices)
        if not significant:
            continue
        if not intervals:
            raise UsageError("--significant needs intervals; --bootstrap 0 has none")
        if gate.operator == "==":
            raise UsageError(f"{flag}: no interval shows that numbers are equal (--significant)")
        if not _comparable(gate):
            raise UsageError(
                f"{flag}: the interval of this difference is not known (--significant); compare "
                "a metric with a number, with itself before the fit, or with the baseline"
            )


def _check_operand(
    operand: Operand,
    measured: Collection[Measurement],
    flag: str,
    *,
    intervals: bool,
    slices: bool,
) -> None:
    if isinstance(operand, Quantity):
        _check_stage(operand, measured, flag)
    if operand.of_slices and not slices:
        raise UsageError(f"{flag}: only calib evaluate measures slices of the rows")
    if operand.needs_intervals and not intervals:
        raise UsageError(f"{flag}: {operand} needs intervals; --bootstrap 0 has none")


def _check_stage(quantity: Quantity, measured: Collection[Measurement], flag: str) -> None:
    stage = quantity.stage
    if stage in ("", "chance") or stage in measured:
        return
    if quantity.is_of_runs:
        raise UsageError(f"{flag}: only calib history knows several runs")
    if "trend" in measured:
        plain = Quantity(quantity.metric)
        raise UsageError(f"{flag}: a run has no .{stage}; write {plain} or {plain}.trend")
    if stage in ("baseline", "delta"):
        raise UsageError(f"{flag}: {quantity} needs --baseline FILE.json")
    raise UsageError(
        f"{flag}: only a fit measures before and after; write {Quantity(quantity.metric)}"
    )


def _comparable(gate: Gate) -> bool:
    """Whether an interval of the difference between the two sides can be had."""
    left, right = gate.left, gate.right
    if not isinstance(right, Operand) or not (left.uncertain and right.uncertain):
        return True
    if not (isinstance(left, Quantity) and isinstance(right, Quantity)):
        return False
    if left.metric != right.metric:
        return False
    sides = {left.measured, right.measured}
    return sides == {"", "before"} or ("baseline" in sides and sides < {"", "before", "baseline"})


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
    estimate, difference_estimate : float
        Where the left side, or both, are plug-ins: the estimate of it, or the difference of both.
    slice : GateSlicePart or None
        The slice that the left side is of.
    joined : str
        How the rows are compared with those of a baseline: ``"paired"``, ``"independent"``, or
        nothing where they are not.
    """

    gate: Gate
    subject: str
    passed: bool
    left: Estimate
    right: Estimate
    difference: Estimate
    significant: bool
    estimate: float
    difference_estimate: float
    reason: str = ""
    slice: GateSlicePart | None = None
    joined: Literal["", "paired", "independent"] = ""


def judge(gate: Gate, subject: Subject, *, significant: bool = False) -> Judgement:
    """Whether an input passes a gate."""
    left = gate.left.estimate(subject)
    if isinstance(gate.right, Operand):
        right = gate.right.estimate(subject)
        between = left_minus_right(gate.left, gate.right, subject)
    else:
        right = Estimate(gate.right, gate.right, gate.right)
        between = left.shifted(gate.right)
    figures = [operand.main_figure(subject).value for operand in gate.operands]
    reason = _unknown(gate, subject, (left, right), between if significant else None)
    if reason:
        fails = True
    elif significant:
        fails = _clears(gate.operator, between)
    else:
        fails = OPERATORS[gate.operator](left.value, right.value)
    return Judgement(
        gate,
        subject.name,
        not fails,
        left,
        right,
        between,
        significant,
        figures[0],
        figures[0] - (figures[1] if len(figures) > 1 else right.value),
        reason,
        gate.left.slice_part(subject),
        _joined(gate, subject),
    )


def _joined(gate: Gate, subject: Subject) -> Literal["", "paired", "independent"]:
    """How a gate compares the rows with those of a baseline, if it does."""
    quantities = [operand for operand in gate.operands if isinstance(operand, Quantity)]
    stages = [quantity.measured for quantity in quantities]
    compares = "delta" in stages or ("baseline" in stages and len(quantities) == 2)
    if subject.baseline is None or not compares:
        return ""
    paired = all(quantity.metric in subject.paired for quantity in quantities)
    return "paired" if paired and "before" not in stages else "independent"


def _unknown(
    gate: Gate, subject: Subject, sides: tuple[Estimate, Estimate], judged: Estimate | None
) -> str:
    """What is not known, in words; nothing where all that is needed is."""
    for operand, side in zip(gate.operands, sides, strict=False):
        if math.isnan(side.value):
            return operand.absence(subject)
    if judged is not None and (math.isnan(judged.low) or math.isnan(judged.high)):
        return f"{' or '.join(map(str, gate.operands))} has no interval"
    return ""


def _clears(sign: str, between: Estimate) -> bool:
    """Whether a whole interval of differences fulfils a condition."""
    if sign == "!=":
        return between.low > 0 or between.high < 0
    end = between.low if sign in (">", ">=") else between.high
    return OPERATORS[sign](end, 0.0)
