"""Gates in a document, and in words: what was judged, and by which numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from calibcli.report.baseline import Baseline
from calibcli.report.comparison import measured_input
from calibcli.report.document import gates_of, is_fit, measured_part, results_of
from calibcli.report.pairings import Joined
from calibcli.workflow.conditions import OPERATORS, Gate, parse_gate
from calibcli.workflow.gates import Judgement, judge
from calibcli.workflow.quantities import Estimate, FailedParts, Operand, Subject, WorstSlice
from calibcli.workflow.texts import cut_end, interval_text, plural, short_names, significant

if TYPE_CHECKING:
    from calibcli.schema.documents import (
        Document,
        EvaluateDocument,
        FitDocument,
        HistoryDocument,
        Judged,
    )
    from calibcli.schema.parts import BaselineInputPart, GatePart, IntervalPart, NumberPart


def add_gates(
    document: Judged,
    gates: Sequence[Gate],
    *,
    baseline: Baseline | None = None,
    significant: bool = False,
) -> None:
    """Judge each input of a document by each gate; what came of it goes under ``gates``.

    How each is compared with a baseline goes under ``baseline``.
    """
    judgements, inputs = [], []
    for result in results_of(document):
        if result["command"] == "compare":
            continue
        subject = _subject(result)
        if baseline is not None:
            measured, name_then = measured_part(result), result["input"]["name"]
            joined = baseline.joined(name_then, measured)
            earlier = baseline.metrics(name_then, measured)
            subject = replace(subject, baseline=earlier, paired=joined.changes)
            inputs.append(_baseline_input(subject.name, joined))
        judgements += [judge(gate, subject, significant=significant) for gate in gates]
    if judgements:
        document["gates"] = [gate_part(each) for each in judgements]
    if baseline is not None:
        document["baseline"] = {"name": baseline.name, "inputs": inputs}


def _subject(result: EvaluateDocument | FitDocument) -> Subject:
    name = measured_input(result)
    if is_fit(result):
        before, after = result["before"], result["after"]
        return Subject(name, after["metrics"] if after else {}, before and before["metrics"])
    slices, periods = result.get("slices", ()), result.get("periods")
    return Subject(name, result["metrics"], slices=slices, periods=periods)


def _baseline_input(name: str, joined: Joined) -> BaselineInputPart:
    word: Literal["paired", "independent"] = "independent" if joined.reason else "paired"
    return {"input": name, "joined": word, "reason": joined.reason or None}


def reasons_unpaired(document: Judged) -> list[str]:
    """A line for each input that is not paired with the baseline: why."""
    part = document.get("baseline")
    return [
        f"{part['name']}: not paired with {entry['input']}, but taken for independent of it: "
        f"{entry['reason']}"
        for entry in (part["inputs"] if part else ())
        if part and entry["reason"]
    ]


def gate_part(judgement: Judgement) -> GatePart:
    """A judgement as the document has it."""
    return {
        "expression": judgement.gate.expression,
        "input": judgement.subject,
        "passed": judgement.passed,
        "value": _known(judgement.left.value),
        "bound": _known(judgement.right.value),
        "estimate": _other(judgement.estimate, judgement.left),
        **_interval(judgement.left),
        "difference": _difference(judgement),
        "significant": judgement.significant,
        "joined": judgement.joined or None,
        "slice": judgement.slice,
        "reason": judgement.reason or None,
    }


def _difference(judgement: Judgement) -> NumberPart:
    part = cast(
        "NumberPart",
        {"value": _known(judgement.difference.value), **_interval(judgement.difference)},
    )
    estimate = _other(judgement.difference_estimate, judgement.difference)
    if estimate is not None:
        part["estimate"] = estimate
    return part


def _other(estimate: float, plug_in: Estimate) -> float | None:
    """An estimate that is another number than its plug-in."""
    return None if estimate == plug_in.value else _known(estimate)


def _interval(estimate: Estimate) -> IntervalPart:
    low, high = (math.nan, math.nan) if estimate.exact else (estimate.low, estimate.high)
    return {"low": _known(low), "high": _known(high)}


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def word(entry: GatePart) -> str:
    """``"passed"`` or ``"failed"``."""
    return "passed" if entry["passed"] else "failed"


def failed_gates(document: Document | HistoryDocument) -> list[GatePart]:
    """The gates of a document that failed."""
    return [entry for entry in gates_of(document) if not entry["passed"]]


def figures(entry: GatePart) -> str:
    """The numbers that decided a gate, ``0.0312 [0.0236, 0.0537]``, or what is not known.

    A plug-in is called so, beside the estimate that tables show and that the interval is of.
    """
    if entry["reason"]:
        return entry["reason"]
    value, bound = entry["value"], entry["bound"]
    assert value is not None
    assert bound is not None
    gate, part = parse_gate(entry["expression"]), entry["slice"]
    if part and isinstance(gate.left, FailedParts):
        first = f", {cut_end(part['name'])} first" if part["name"] else ""
        return f"{int(value)} of {plural(part['of'], gate.left.noun)}{first}"
    text = _told(value, bound)
    if entry["estimate"] is not None:
        text = f"plug-in {text}"
    if isinstance(gate.right, Operand):
        text += f" against {_told(bound, value)}"
        text += _difference_in_words(entry["difference"])
    else:
        estimate = entry["estimate"]
        text += "" if estimate is None else f", estimate {significant(estimate)}"
        text += f" {interval_text(entry)}".rstrip()
    text += f", {entry['joined']}" if entry["joined"] else ""
    if entry["significant"] and entry["passed"] and OPERATORS[gate.operator](value, bound):
        clear_of = "0" if isinstance(gate.right, Operand) else f"{gate.right:.12g}"
        text += f", not clear of {clear_of}"
    if part and part["name"] and isinstance(gate.left, WorstSlice):
        at_once = f", interval for all {part['of']} at once" if interval_text(entry) else ""
        text += f": {cut_end(part['name'])}, the worst of {plural(part['of'], 'slice')}{at_once}"
    return text


def _difference_in_words(part: NumberPart) -> str:
    """``, difference -0.02, of estimates -0.04 [-0.06, -0.01]``; nothing without an interval."""
    interval = interval_text(part)
    if not interval:
        return ""
    estimate = part.get("estimate")
    of_estimates = "" if estimate is None else f", of estimates {significant(estimate)}"
    return f", difference {significant(part['value'])}{of_estimates} {interval}"


def _told(number: float, other: float) -> str:
    """A number with four digits, or with all where it would look equal to the other."""
    text = significant(number)
    return repr(number) if number != other and float(text) == float(significant(other)) else text


def sentence(entry: GatePart) -> str:
    """``test.parquet: ece > 0.02 failed: 0.0312``."""
    return f"{entry['input']}: {entry['expression']} {word(entry)}: {figures(entry)}"


def verdict_on_gates(document: Document | HistoryDocument) -> str:
    """``1 of 2 gates failed: …`` or ``2 gates passed``; nothing without gates."""
    entries, failed = gates_of(document), failed_gates(document)
    if not entries:
        return ""
    if not failed:
        return f"{plural(len(entries), 'gate')} passed"
    names = _names(entries) or [""] * len(entries)
    reasons = [
        f"{name}{': ' * bool(name)}{entry['expression']} ({figures(entry)})"
        for name, entry in zip(names, entries, strict=True)
        if not entry["passed"]
    ]
    return f"{len(failed)} of {plural(len(entries), 'gate')} failed: {'; '.join(reasons)}"


class GateLine(NamedTuple):
    """A gate in words: the input where there are several, what was judged, and by what.

    The figures are words where something is unknown.
    """

    input_name: str
    expression: str
    outcome: str
    figures: str
    unknown: bool


def gate_lines(document: Document | HistoryDocument) -> list[GateLine]:
    """A line for each gate of each input."""
    entries = gates_of(document)
    names = _names(entries) or [""] * len(entries)
    return [
        GateLine(name, entry["expression"], word(entry), figures(entry), bool(entry["reason"]))
        for name, entry in zip(names, entries, strict=True)
    ]


def _names(entries: Sequence[GatePart]) -> list[str]:
    """The input of each gate in short, where there are several."""
    names = [entry["input"] for entry in entries]
    return short_names(names) if len(set(names)) > 1 else []
