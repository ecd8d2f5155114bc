"""The result document: the plain dictionary behind every format, and the JSON contract.

``docs/json.md`` describes it key by key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

from calibcli.metrics.panel import Evaluation
from calibcli.metrics.resampling import Interval
from calibcli.workflow.measuring import MeasuredOn

if TYPE_CHECKING:
    from calibcli.metrics.hypothesis_tests import TestResult
    from calibcli.metrics.slices import Slice
    from calibcli.workflow.choosing import Leaderboard, Standing
    from calibcli.workflow.pooling import GroupReport
    from calibcli.workflow.refit import Refit

SCHEMA_VERSION = 2

Document: TypeAlias = dict[str, Any]


def main_figure(metric: Mapping[str, Any]) -> float | None:
    """What is shown first of a metric of a document: its estimate, or else its value."""
    figure: float | None = metric.get("estimate", metric.get("value"))
    return figure


def measurement(evaluation: Evaluation, class_names: Sequence[str] | None = None) -> Document:
    """The part that every evaluation shares: size, view, metrics, reliability bins."""
    return {
        "rows": evaluation.rows,
        "weight": evaluation.weight,
        "classes": evaluation.classes,
        **_view(evaluation, class_names),
        "metrics": {name: _metric(evaluation, name) for name in evaluation.values},
        "reliability": [asdict(part) for part in evaluation.reliability],
    }


def _view(evaluation: Evaluation, class_names: Sequence[str] | None) -> Document:
    """What the confidence is of."""
    event = evaluation.event
    if event is None:
        return {"view": "top", "positive": None}
    name = class_names[event] if class_names else str(event)
    return {"view": "positive", "positive": {"class": event, "name": name}}


def _metric(evaluation: Evaluation, name: str) -> Document:
    """A metric's value, and what is known of its uncertainty."""
    part: Document = {"value": evaluation.values[name]}
    if name in evaluation.estimates:
        part["estimate"] = evaluation.estimates[name]
    if name in evaluation.intervals:
        part |= evaluation.intervals[name]._asdict()
    if name in evaluation.changes:
        part["change"] = evaluation.changes[name]._asdict()
    if name in evaluation.chances:
        part["chance"] = evaluation.chances[name]._asdict()
    return part


def evaluate_document(
    evaluation: Evaluation,
    *,
    source: Mapping[str, Any],
    params: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Document:
    """The document of ``calib evaluate`` for one input.

    Parameters
    ----------
    evaluation : Evaluation
    source : mapping
        The input: ``name`` and ``kind``, and what else there is to say about it.
    params : str or None
        The parameter file that the rows were run through first.
    class_names : sequence of str or None
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "evaluate",
        "input": dict(source),
        "params": params,
        **measurement(evaluation, class_names),
    }


def fit_document(
    *,
    source: Mapping[str, Any],
    rows: int,
    classes: int,
    method: str,
    loss: str,
    fit: Mapping[str, Any],
    stages: Sequence[Mapping[str, Any]],
    before: Evaluation | None,
    after: Evaluation | None,
    measured_on: MeasuredOn,
    options: Mapping[str, Any] | None = None,
    folds: int | None = None,
    test: Mapping[str, Any] | None = None,
    params: str | None = None,
    output: str | None = None,
    balanced: tuple[Evaluation, Evaluation] | None = None,
    plain: Evaluation | None = None,
    leaderboard: Sequence[Mapping[str, Any]] | None = None,
    groups: GroupReport | None = None,
    class_names: Sequence[str] | None = None,
) -> Document:
    """The document of ``calib fit``.

    Parameters
    ----------
    source, test : mapping
        The input that was fitted, and the test input where there is one.
    rows, classes : int
        Size of the input that was fitted.
    fit : mapping
        ``converged``, ``iterations``, ``passes``, ``seconds``, ``device``, and optionally
        ``notes``, lines for people.
    stages : sequence of mapping
        As in the parameter file.
    before, after : Evaluation or None
        Of the same rows, those that ``measured_on`` names. Where ``after`` was not measured,
        ``before`` is of the input.
    folds : int or None
        Number of folds of a cross-fitting.
    params, output : str or None
        Paths of the files that were written.
    balanced : (Evaluation, Evaluation) or None
        Before and after of the same rows, all classes counting the same.
    plain : Evaluation or None
        After a fit by plain nll, of the same rows.
    leaderboard : sequence of mapping or None
        What the method was chosen from, as `calibcli.report.document` makes it.
    groups : GroupReport or None
        What the maps of groups are worth, where they have any.
    class_names : sequence of str or None
    """
    place = {"measured_on": measured_on if after else "input", "folds": folds or None}
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "fit",
        "input": dict(source),
        "test": None if test is None else dict(test),
        "rows": rows,
        "classes": classes,
        "method": method,
        "loss": loss,
        "options": dict(options or {}),
        "fit": dict(fit),
        "stages": [dict(stage) for stage in stages],
        "before": None if before is None else {**place, **measurement(before, class_names)},
        "after": None if after is None else {**place, **measurement(after, class_names)},
        "balanced": None if balanced is None else _pair(balanced, class_names),
        "leaderboard": None if leaderboard is None else [dict(entry) for entry in leaderboard],
        "plain_nll": None if plain is None else measurement(plain, class_names),
        "groups": None if groups is None else _groups(groups),
        "params": params,
        "output": output,
    }


def _pair(
    pair: tuple[Evaluation, Evaluation], class_names: Sequence[str] | None = None
) -> Document:
    before, after = (measurement(each, class_names) for each in pair)
    return {"before": before, "after": after}


def _groups(report: GroupReport) -> Document:
    return {
        "column": report.column,
        "strength": report.strength,
        "groups": [
            {
                "name": score.name,
                "rows": score.rows,
                "share": score.share,
                "nll": {"before": score.before, "after": score.after},
            }
            for score in report.scores
        ],
    }


def leaderboard_entries(board: Leaderboard | None) -> list[Document] | None:
    """The standings of a leaderboard, from the best to the worst; None where there is none."""
    if board is None:
        return None
    return [_candidate(standing, standing is board.chosen) for standing in board.standings]


def _candidate(standing: Standing, chosen: bool) -> Document:
    trial, values = standing.trial, standing.evaluation.values
    metrics = {}
    for name, value in values.items():
        found = standing.evaluation.intervals.get(name)
        low, high = (None, None) if found is None else (found.low, found.high)
        metrics[name] = {"value": value, "low": low, "high": high}
        if name in standing.evaluation.estimates:
            metrics[name]["estimate"] = standing.evaluation.estimates[name]
    return {
        "method": trial.plan.title,
        "loss": trial.plan.loss,
        "chosen": chosen,
        "parameters": trial.parameters,
        "seconds": trial.seconds,
        "converged": trial.fit.converged,
        "metrics": metrics,
        "behind": {"nll": standing.behind, "standard_error": standing.behind_error},
        "members": [
            {"method": member.plan.title, "loss": member.plan.loss, "weight": weight}
            for member, weight in trial.weighted_members()
        ],
    }


def compare_document(
    board: Leaderboard,
    *,
    source: Mapping[str, Any],
    rows: int,
    classes: int,
    folds: int,
    class_names: Sequence[str] | None = None,
) -> Document:
    """The document of ``calib compare``."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "compare",
        "input": dict(source),
        "rows": rows,
        "classes": classes,
        "folds": folds,
        **_view(board.chosen.evaluation, class_names),
        "leaderboard": leaderboard_entries(board),
        "why": board.why,
    }


def slices_document(found: Sequence[Slice], column: str | None) -> dict[str, Any]:
    """The slices of a column, or of the predicted classes, as the document has them."""
    return {"column": column, "slices": [_slice(each) for each in found]}


def _slice(each: Slice) -> dict[str, Any]:
    return {
        "name": each.name,
        "rows": each.rows,
        "weight": each.weight,
        "confidence": each.confidence,
        "accuracy": each.accuracy,
        "nll": _number(each.nll, each.nll_interval),
        "brier": _number(each.brier, each.brier_interval),
        "ece": _number(each.ece, each.ece_interval),
        "p": each.p,
        "adjusted_p": each.adjusted_p,
    }


def _number(value: float, interval: Interval) -> dict[str, float]:
    return {"value": value, "low": interval.low, "high": interval.high}


def tests_document(results: Sequence[TestResult]) -> list[dict[str, Any]]:
    """The tests as the document has them."""
    return [asdict(result) for result in results]


def refit_document(found: Refit) -> dict[str, Any]:
    """Scores in their parts as the document has them."""
    scores = {}
    for name, part in found.parts.items():
        calibration = {"value": part.calibration}
        calibration |= part.interval._asdict() if part.interval else {}
        scores[name] = {
            "value": part.score,
            "calibration": calibration,
            "refinement": part.refinement,
        }
    return {"method": found.method, "folds": found.folds, "scores": scores}


def combine(documents: Sequence[Document]) -> Document:
    """One document of several: itself where it is alone, otherwise a list under ``results``."""
    if len(documents) == 1:
        return documents[0]
    return {
        "schema_version": SCHEMA_VERSION,
        "command": documents[0]["command"],
        "results": list(documents),
    }
