"""How several inputs of the same rows differ from one of them, and which differences are clear."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from calibcli.errors import UsageError
from calibcli.metrics.paired_changes import Difference, paired_differences, why_unpaired
from calibcli.metrics.registry import METRICS
from calibcli.report.document import is_of_several, main_figure
from calibcli.report.pairings import read_run

if TYPE_CHECKING:
    from calibcli.schema.documents import Document, EvaluateDocument, SeveralDocument
    from calibcli.schema.parts import ComparedPart, DifferencePart, DifferencesPart

FIRST, BEST = "first", "best"
_PREFERRED = "nll"
"""The metric by which the best is found, where it was measured."""


def add_differences(document: SeveralDocument, against: str | None = None) -> None:
    """Write into a document how its inputs differ from one of them, if there are intervals.

    Parameters
    ----------
    document : SeveralDocument
    against : str or None
        The name of an input, ``"first"``, or ``"best"``, that with the lowest NLL; None: the first.

    Raises
    ------
    UsageError
        There is no such input.
    """
    results = document["results"]
    names = [result["input"]["name"] for result in results]
    place, best_by = _reference(results, names, against or FIRST)
    if not any("pairing" in result for result in results):
        return
    others = [result for number, result in enumerate(results) if number != place]
    reference = read_run(results[place])
    runs = [read_run(result) for result in others]
    reasons = [
        _other_view(result, results[place]) or why_unpaired(run, reference)
        for result, run in zip(others, runs, strict=True)
    ]
    # What cannot be compared must not count among the differences.
    compared = [run for run, reason in zip(runs, reasons, strict=True) if not reason]
    metrics = iter(paired_differences(compared, reference))
    inputs = [
        _compared(result["input"]["name"], reason, {} if reason else next(metrics))
        for result, reason in zip(others, reasons, strict=True)
    ]
    document["differences"] = {
        "against": names[place],
        "best_by": best_by,
        "number": sum(len(part["metrics"]) for part in inputs),
        "inputs": inputs,
    }


def _reference(
    results: Sequence[EvaluateDocument], names: Sequence[str], against: str
) -> tuple[int, str | None]:
    """The place of the input that others are compared with, and by what it is the best."""
    if against in names:
        return names.index(against), None
    if against == FIRST:
        return 0, None
    if against != BEST:
        listed = ", ".join(names)
        raise UsageError(f"--against {against}: is none of the inputs; they are {listed}")
    metric = _criterion(results[0])
    sign = -1 if METRICS[metric].better == "higher" else 1
    figures = [sign * _figure(result, metric) for result in results]
    known = [math.inf if math.isnan(figure) else figure for figure in figures]
    return known.index(min(known)), metric


def _criterion(result: EvaluateDocument) -> str:
    """The metric by which the best is found: NLL, or the first that has a better side."""
    sided = [name for name in result["metrics"] if name in METRICS and METRICS[name].better]
    if not sided:
        raise UsageError("--against best: no metric that is measured says which input is best")
    return _PREFERRED if _PREFERRED in sided else sided[0]


def _other_view(result: EvaluateDocument, reference: EvaluateDocument) -> str:
    views = [(each["view"], each["positive"]) for each in (result, reference)]
    return "" if views[0] == views[1] else "another view or positive class"


def _compared(name: str, reason: str, differences: Mapping[str, Difference]) -> ComparedPart:
    metrics: dict[str, DifferencePart] = {
        metric: {
            "value": each.value,
            "low": each.low,
            "high": each.high,
            "p": each.p,
            "adjusted_p": each.adjusted_p,
            "clear": each.clear,
        }
        for metric, each in differences.items()
    }
    return {"input": name, "reason": reason or None, "metrics": metrics}


def _figure(result: EvaluateDocument, name: str) -> float:
    figure = main_figure(result["metrics"][name])
    return math.nan if figure is None else figure


def differences_of(document: Document) -> DifferencesPart | None:
    """How the inputs of a document differ, where that was found out."""
    return document.get("differences") if is_of_several(document) else None


def reasons_not_compared(document: Document) -> Iterator[str]:
    """A sentence for each input that is not compared: why."""
    part = differences_of(document)
    for entry in part["inputs"] if part else ():
        if part and entry["reason"]:
            yield f"{entry['input']} is not compared with {part['against']}: {entry['reason']}."


def difference_word(metric: str, entry: DifferencePart, shown: str) -> str:
    """``"better"``, ``"maybe better"`` (not clear among so many), ``"same"`` or ``"unclear"``.

    Nothing of a metric of which neither more nor less is better.
    """
    if shown == "0":
        return "same"
    if entry["low"] <= 0 <= entry["high"]:
        return "unclear"
    known = METRICS.get(metric)
    side = known.better if known else ""
    if not side:
        return ""
    word = "better" if (entry["value"] < 0) == (side == "lower") else "worse"
    return word if entry["clear"] else f"maybe {word}"
