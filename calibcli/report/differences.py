"""How several inputs of the same rows differ from one of them, and which differences are clear."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from calibcli.errors import UsageError
from calibcli.metrics.pairing import holm, p_of_difference
from calibcli.metrics.registry import METRICS
from calibcli.metrics.resampling import LEVEL
from calibcli.report.document import is_of_several, main_figure
from calibcli.report.pairings import join_runs
from calibcli.schema import (
    ComparedPart,
    DifferencePart,
    DifferencesPart,
    Document,
    EvaluateDocument,
    SeveralDocument,
)

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
    inputs = [_compared(result, results[place]) for result in others]
    document["differences"] = {
        "against": names[place],
        "best_by": best_by,
        "number": _correct([entry for part in inputs for entry in part["metrics"].values()]),
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


def _compared(result: EvaluateDocument, reference: EvaluateDocument) -> ComparedPart:
    """What an input has more than the reference, of each metric that can be paired."""
    name = result["input"]["name"]
    views = [(each["view"], each["positive"]) for each in (result, reference)]
    if views[0] != views[1]:
        return {"input": name, "reason": "another view or positive class", "metrics": {}}
    joined = join_runs(result, reference)
    metrics: dict[str, DifferencePart] = {}
    for metric, interval in joined.changes.items():
        value = _figure(result, metric) - _figure(reference, metric)
        p = p_of_difference(value, interval)
        metrics[metric] = {
            "value": value,
            "low": interval.low,
            "high": interval.high,
            "p": p,
            "adjusted_p": p,
            "clear": p < 1 - LEVEL,
        }
    return {"input": name, "reason": joined.reason or None, "metrics": metrics}


def _figure(result: EvaluateDocument, name: str) -> float:
    figure = main_figure(result["metrics"][name])
    return math.nan if figure is None else figure


def _correct(entries: Sequence[DifferencePart]) -> int:
    """Adjust the p-values of all differences; their number."""
    for entry, adjusted in zip(entries, holm([entry["p"] for entry in entries]), strict=True):
        entry["adjusted_p"] = adjusted
        entry["clear"] = adjusted < 1 - LEVEL
    return len(entries)


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
    """``"better"``, ``"maybe better"`` (not clear among so many), ``"same"`` or ``"unclear"``."""
    if shown == "0":
        return "same"
    if entry["low"] <= 0 <= entry["high"]:
        return "unclear"
    known = METRICS.get(metric)
    side = known.better if known else ""
    word = "other"
    if side:
        word = "better" if (entry["value"] < 0) == (side == "lower") else "worse"
    return word if entry["clear"] else f"maybe {word}"
