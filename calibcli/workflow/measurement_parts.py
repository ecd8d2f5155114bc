"""What was measured of some rows, as documents have it, with the verdict on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from calibcli.metrics.panel import Evaluation
from calibcli.metrics.resampling import Interval
from calibcli.workflow.verdict import Verdict, verdict

if TYPE_CHECKING:
    from calibcli.schema.parts import BinPart, IntervalPart, MeasurementPart, MetricPart, ViewPart

SEEN = "a fit has seen these rows, which flatters it"


def view_part(evaluation: Evaluation, class_names: Sequence[str] | None) -> ViewPart:
    """What the confidence is of."""
    event = evaluation.event
    if event is None:
        return {"view": "top", "positive": None}
    name = class_names[event] if class_names else str(event)
    return {"view": "positive", "positive": {"class": event, "name": name}}


def _metric(evaluation: Evaluation, name: str) -> MetricPart:
    """A metric's value, and what is known of its uncertainty."""
    part: MetricPart = {"value": evaluation.values[name]}
    if name in evaluation.estimates:
        part["estimate"] = evaluation.estimates[name]
    if name in evaluation.intervals:
        part["low"], part["high"] = evaluation.intervals[name]
    if name in evaluation.changes:
        part["change"] = interval_part(evaluation.changes[name])
    if name in evaluation.chances:
        mean, low, high = evaluation.chances[name]
        part["chance"] = {"mean": mean, "low": low, "high": high}
    return part


def interval_part(interval: Interval) -> IntervalPart:
    """An interval as the document has it."""
    return {"low": interval.low, "high": interval.high}


def measurement(
    evaluation: Evaluation,
    class_names: Sequence[str] | None = None,
    remarks: Sequence[str] = (),
    *,
    seen: bool = False,
) -> MeasurementPart:
    """The part that every evaluation shares: verdict, size, view, metrics, reliability bins."""
    view = view_part(evaluation, class_names)
    part: MeasurementPart = {
        "verdict": Verdict("none").stored(),
        "rows": evaluation.rows,
        "weight": evaluation.weight,
        "classes": evaluation.classes,
        "view": view["view"],
        "positive": view["positive"],
        "metrics": {name: _metric(evaluation, name) for name in evaluation.values},
        "reliability": [cast("BinPart", asdict(each)) for each in evaluation.reliability],
    }
    part["verdict"] = verdict(part, seen=SEEN if seen else None, remarks=remarks).stored()
    return part
