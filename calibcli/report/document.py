"""Result documents, made from what was measured: what every format shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

from calibcli.metrics.panel import Evaluation
from calibcli.metrics.resampling import Interval
from calibcli.report.pairings import pairing_part
from calibcli.version import SCHEMA_VERSION
from calibcli.workflow.measurement_parts import SEEN, interval_part, measurement, view_part
from calibcli.workflow.measuring import MeasuredOn
from calibcli.workflow.verdict import verdict

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from calibcli.metrics.decisions import Decisions, MeanCost, Rule
    from calibcli.metrics.hypothesis_tests import TestResult
    from calibcli.metrics.periods import Period
    from calibcli.metrics.slices import Slice
    from calibcli.schema.documents import (
        CompareDocument,
        Document,
        EvaluateDocument,
        FitDocument,
        HistoryDocument,
        Result,
        SeveralDocument,
    )
    from calibcli.schema.parts import (
        CandidatePart,
        DecisionsPart,
        FitMeasurementPart,
        GatePart,
        GroupsPart,
        InputPart,
        MeasurementPart,
        MetricPart,
        NumberPart,
        PeriodPart,
        PeriodsPart,
        RefitPart,
        RulePart,
        ScorePart,
        SharesPart,
        SlicePart,
        SlicesPart,
        SolvedPart,
        StagePart,
        TargetPart,
        TestPart,
    )
    from calibcli.workflow.choosing import Leaderboard, Standing
    from calibcli.workflow.fitting import BesidePlain
    from calibcli.workflow.pooling import GroupReport
    from calibcli.workflow.refit import Refit


WEIGHTED = "of rows weighted to the class shares that the fit is for"
UNCHANGED = "the fit changed nothing"
BY_DESIGN = "the fit is for other class shares than these rows have"


def is_fit(document: Document) -> TypeIs[FitDocument]:
    """Whether it is the document of ``calib fit``."""
    return document["command"] == "fit"


def is_of_several(document: Document) -> TypeIs[SeveralDocument]:
    """Whether it is of several inputs."""
    return "results" in document


def results_of(document: Document) -> Sequence[Result]:
    """What was found out about each input."""
    return document["results"] if is_of_several(document) else [document]


def did_not_converge(document: Document) -> bool:
    """Whether it is of a fit that did not converge."""
    return is_fit(document) and not document["fit"]["converged"]


def measurements(result: Result) -> dict[str, MeasurementPart]:
    """What was measured of an input: ``before`` and ``after`` a fit, or else at once, ``""``."""
    if is_fit(result):
        pair = {"before": result["before"], "after": result["after"]}
        return {stage: part for stage, part in pair.items() if part is not None}
    return {} if result["command"] == "compare" else {"": result}


def measured_part(result: Result) -> MeasurementPart | None:
    """What was measured last of an input; None where nothing was."""
    return next(reversed(measurements(result).values()), None)


def leaderboard_of(document: Document) -> Sequence[CandidatePart]:
    """The candidates that were compared, the best first; nothing where none were."""
    if is_fit(document):
        return document["leaderboard"] or []
    return document["leaderboard"] if document["command"] == "compare" else []


def gates_of(document: Document | HistoryDocument) -> Sequence[GatePart]:
    """What came of each gate; nothing where there were none."""
    return [] if document["command"] == "compare" else document.get("gates", [])


def title_of(document: Document) -> str:
    """What a user calls it; nothing where it has no title."""
    return "" if document["command"] == "compare" else document.get("title", "")


def main_figure(metric: MetricPart | NumberPart) -> float | None:
    """What is shown first of a metric of a document: its estimate, or else its value."""
    return metric.get("estimate", metric["value"])


def judge_again(document: EvaluateDocument) -> EvaluateDocument:
    """The document with the verdict on all that was looked at: slices and tests too."""
    document["verdict"] = verdict(
        document,
        slices=document.get("slices", ()),
        tests=document.get("tests", ()),
        periods=document.get("periods"),
        seen=SEEN if document["seen"] else None,
    ).stored()
    return document


def _add_pairing(part: MeasurementPart | None, evaluation: Evaluation | None) -> None:
    """Write what another run of the same rows can be paired by, where that was kept."""
    pairing = None if evaluation is None else pairing_part(evaluation.record)
    if part is not None and pairing is not None:
        part["pairing"] = pairing


def _number(value: float, interval: Interval | None) -> NumberPart:
    low, high = (None, None) if interval is None else interval
    return {"value": value, "low": low, "high": high}


_MOST_COSTS = 100
"""Classes whose costs are written: a square of more numbers says nothing to anybody."""


def decisions_part(
    decisions: Decisions,
    before: Decisions | None = None,
    class_names: Sequence[str] | None = None,
) -> DecisionsPart:
    """What decisions cost; after a fit with their changes from before."""
    costs = decisions.costs
    return {
        "costs": costs.matrix.tolist() if costs.classes <= _MOST_COSTS else None,
        "positive": costs.positive if costs.classes == 2 else None,
        "threshold": costs.threshold,
        "folds": decisions.folds,
        "rules": [
            _rule(rule, None if before is None else before.rule(rule.name), class_names)
            for rule in decisions.rules
        ],
        "curve": [
            {
                "threshold": point.threshold,
                "flagged": point.flagged,
                "cost": _mean_cost(point.cost),
                "net_benefit": _mean_cost(point.net_benefit),
                "treat_all": point.treat_all,
            }
            for point in decisions.curve
        ],
        "abstention": [
            {"coverage": each.coverage, "limit": each.limit, "cost": _mean_cost(each.cost)}
            for each in decisions.coverages
        ],
    }


def _rule(rule: Rule, before: Rule | None, class_names: Sequence[str] | None) -> RulePart:
    names, decision = class_names, rule.decision
    part: RulePart = {
        "rule": rule.name,
        "threshold": rule.threshold,
        "flagged": rule.flagged,
        "decision": None if decision is None else names[decision] if names else str(decision),
        "cost": _mean_cost(rule.cost),
    }
    change = None if before is None else rule.cost.change_from(before.cost)
    # Chance has chosen both thresholds, which no resample of the rows shows.
    if change is not None and rule.name != "best":
        part["change"] = interval_part(change)
    return part


def _mean_cost(cost: MeanCost) -> NumberPart:
    return _number(cost.value, cost.interval)


def evaluate_document(
    evaluation: Evaluation,
    *,
    source: InputPart,
    params: str | None = None,
    class_names: Sequence[str] | None = None,
    seen: str | None = None,
) -> EvaluateDocument:
    """The document of ``calib evaluate`` for one input.

    Parameters
    ----------
    evaluation : Evaluation
    source : InputPart
    params : str or None
        The parameter file that the rows were run through first.
    class_names : sequence of str or None
    seen : str or None
        What fit has seen the rows: a parameter file, or the input itself as the output of a fit.
    """
    head = {
        "schema_version": SCHEMA_VERSION,
        "command": "evaluate",
        "input": source,
        "params": params,
        "seen": seen,
    }
    part = measurement(evaluation, class_names, seen=bool(seen))
    _add_pairing(part, evaluation)
    # mypy fears other keys in a measurement.
    return cast("EvaluateDocument", head | part)


def fit_document(
    *,
    source: InputPart,
    rows: int,
    classes: int,
    method: str,
    loss: str,
    fit: SolvedPart,
    stages: Sequence[StagePart],
    before: Evaluation | None,
    after: Evaluation | None,
    measured_on: MeasuredOn,
    options: Mapping[str, Any] | None = None,
    folds: int | None = None,
    test: InputPart | None = None,
    params: str | None = None,
    output: str | None = None,
    balanced: tuple[Evaluation, Evaluation] | None = None,
    target: tuple[Evaluation, Evaluation, Sequence[float]] | None = None,
    plain: BesidePlain | None = None,
    leaderboard: Leaderboard | None = None,
    groups: GroupReport | None = None,
    decisions: tuple[Decisions, Decisions] | None = None,
    class_names: Sequence[str] | None = None,
    seen: bool = False,
) -> FitDocument:
    """The document of ``calib fit``.

    Parameters
    ----------
    source, test : InputPart
        The input that was fitted, and the test input where there is one.
    rows, classes : int
        Size of the input that was fitted.
    fit : SolvedPart
    stages : sequence of StagePart
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
    target : (Evaluation, Evaluation, sequence of float) or None
        Before and after of the same rows, weighted to the class shares that the fit is for; these.
    plain : BesidePlain or None
        What a fit by plain nll is worth on the same rows.
    leaderboard : Leaderboard or None
        What the method was chosen from.
    groups : GroupReport or None
        What the maps of groups are worth, where they have any.
    decisions : (Decisions, Decisions) or None
        What decisions cost before and after.
    class_names : sequence of str or None
    seen : bool
        Whether the test input is what was fitted.
    """
    place = "nothing" if after is None else measured_on
    document: FitDocument = {
        "schema_version": SCHEMA_VERSION,
        "command": "fit",
        "input": source,
        "test": test,
        "rows": rows,
        "classes": classes,
        "method": method,
        "loss": loss,
        "options": dict(options or {}),
        "fit": fit,
        "stages": list(stages),
        "before": _fit_measurement(before, place, folds, class_names),
        "after": _paired(after, place, folds, class_names, fit, [target, balanced], seen=seen),
        "balanced": None if balanced is None else _shifted(*balanced, class_names, fit),
        "target": None if target is None else _target(*target, class_names, fit),
        "leaderboard": None if leaderboard is None else _candidates(leaderboard),
        "plain_nll": None,
        "groups": None if groups is None else _groups(groups),
        "params": params,
        "output": output,
    }
    return _with_decisions(_with_plain(document, plain, class_names), decisions, class_names)


def _with_plain(
    document: FitDocument,
    beside: BesidePlain | None,
    class_names: Sequence[str] | None,
) -> FitDocument:
    """The document with what a fit by plain nll is worth, and which of the two is better."""
    if beside is None:
        return document
    plain, shifted, against = beside
    document["plain_nll"] = measurement(plain, class_names)
    for part in (document["balanced"], document["target"]):
        if part is not None and shifted is not None:
            part["plain_nll"] = measurement(_of_weighted_labels(shifted), class_names, [WEIGHTED])
    loss = "nll" if against.plain_is_better else document["loss"]
    document["against_plain_nll"] = {
        "nll": against.nll,
        "plain_nll": against.plain_nll,
        "standard_error": against.standard_error,
        "better": None if against.is_same else loss,
        "clear": against.clear,
    }
    return document


def _with_decisions(
    document: FitDocument,
    decisions: tuple[Decisions, Decisions] | None,
    class_names: Sequence[str] | None,
) -> FitDocument:
    earlier, later = document["before"], document["after"]
    if decisions is not None and earlier is not None and later is not None:
        earlier["decisions"] = decisions_part(decisions[0], class_names=class_names)
        later["decisions"] = decisions_part(decisions[1], decisions[0], class_names)
    return document


def _remarks(fit: SolvedPart, *, by_design: bool = False) -> list[str]:
    """What the verdict on what a fit gives has to say of the fit."""
    return [*([BY_DESIGN] if by_design else []), *([] if fit["changed"] else [UNCHANGED])]


def _fit_measurement(
    evaluation: Evaluation | None,
    measured_on: MeasuredOn,
    folds: int | None,
    class_names: Sequence[str] | None,
    remarks: Sequence[str] = (),
    *,
    seen: bool = False,
) -> FitMeasurementPart | None:
    if evaluation is None:
        return None
    part: FitMeasurementPart = {
        "measured_on": "input" if measured_on == "nothing" else measured_on,
        "folds": folds or None,
        **measurement(evaluation, class_names, remarks, seen=seen),
    }
    return part


def _paired(
    after: Evaluation | None,
    measured_on: MeasuredOn,
    folds: int | None,
    class_names: Sequence[str] | None,
    fit: SolvedPart,
    others: Sequence[object],
    *,
    seen: bool,
) -> FitMeasurementPart | None:
    """What a fit gives, with what another run can be paired by; ``others`` have other shares."""
    remarks = _remarks(fit, by_design=any(others))
    part = _fit_measurement(after, measured_on, folds, class_names, remarks, seen=seen)
    _add_pairing(part, after)
    return part


def _shifted(
    before: Evaluation,
    after: Evaluation,
    class_names: Sequence[str] | None,
    fit: SolvedPart,
) -> SharesPart:
    earlier, later = (_of_weighted_labels(each) for each in (before, after))
    return {
        "before": measurement(earlier, class_names, [WEIGHTED]),
        "after": measurement(later, class_names, [WEIGHTED, *_remarks(fit)]),
    }


def _of_weighted_labels(evaluation: Evaluation) -> Evaluation:
    """An evaluation of rows whose weights depend on their labels.

    The noise of calibration errors is that of labels drawn from the model, of rows whose weights
    stay as they are; here another label has another weight, so that it is not known.
    """
    errors = evaluation.chances
    return replace(
        evaluation,
        intervals={k: each for k, each in evaluation.intervals.items() if k not in errors},
        changes={k: each for k, each in evaluation.changes.items() if k not in errors},
        estimates={k: each for k, each in evaluation.estimates.items() if k not in errors},
        chances={},
    )


def _target(
    before: Evaluation,
    after: Evaluation,
    shares: Sequence[float],
    class_names: Sequence[str] | None,
    fit: SolvedPart,
) -> TargetPart:
    return {"shares": list(shares), **_shifted(before, after, class_names, fit)}


def _groups(report: GroupReport) -> GroupsPart:
    return {
        "column": report.column,
        "strength": report.strength,
        "pooled": report.pooled,
        "groups": [
            {
                "name": score.name,
                "rows": score.rows,
                "share": score.share,
                "learnt": score.learnt or None,
                "nll": {"before": score.before, "after": score.after},
            }
            for score in report.scores
        ],
    }


def _candidates(board: Leaderboard) -> list[CandidatePart]:
    """The standings of a leaderboard, from the best to the worst."""
    return [_candidate(standing, standing is board.chosen) for standing in board.standings]


def _candidate(standing: Standing, chosen: bool) -> CandidatePart:
    trial, evaluation = standing.trial, standing.evaluation
    metrics: dict[str, NumberPart] = {}
    for name, value in evaluation.values.items():
        metrics[name] = _number(value, evaluation.intervals.get(name))
        if name in evaluation.estimates:
            metrics[name]["estimate"] = evaluation.estimates[name]
    part: CandidatePart = {
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
            for member, weight in trial.members
        ],
    }
    if trial.trouble:
        part["warning"] = trial.trouble
    return part


def recorded_candidates(fit: Mapping[str, Any]) -> list[CandidatePart]:
    """The leaderboard of a parameter file's ``fit``, without times; empty where it has none.

    What stands in a file need not be a leaderboard: that is none.
    """
    try:
        return [_recorded(entry) for entry in fit.get("leaderboard") or []]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def _recorded(entry: Mapping[str, Any]) -> CandidatePart:
    part: CandidatePart = {
        "method": str(entry["method"]),
        "loss": "nll",
        "chosen": bool(entry["chosen"]),
        "parameters": int(entry["parameters"]),
        "seconds": 0.0,
        "converged": True,
        "metrics": {
            name: {"value": None if value is None else float(value), "low": None, "high": None}
            for name, value in {"nll": None, **entry["metrics"]}.items()
        },
        "behind": {
            "nll": float(entry["behind"]),
            "standard_error": float(entry["standard_error"]),
        },
        "members": [],
    }
    if "warning" in entry:
        part["warning"] = str(entry["warning"])
    return part


def compare_document(
    board: Leaderboard,
    *,
    source: InputPart,
    rows: int,
    classes: int,
    folds: int,
    class_names: Sequence[str] | None = None,
) -> CompareDocument:
    """The document of ``calib compare``."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "compare",
        "input": source,
        "rows": rows,
        "classes": classes,
        "folds": folds,
        **view_part(board.chosen.evaluation, class_names),
        "leaderboard": _candidates(board),
        "why": board.why,
    }


def slices_part(slices: Sequence[Slice], column: str | None, *, macro: bool = False) -> SlicesPart:
    """The slices of a column, or of the predicted classes, and their means if these are wanted."""
    part: SlicesPart = {"column": column, "slices": [_slice(each) for each in slices]}
    if macro:
        part["macro"] = {
            "accuracy": fmean(each.accuracy for each in slices),
            "nll": fmean(each.nll for each in slices),
            "brier": fmean(each.brier for each in slices),
            "ece": fmean(each.ece for each in slices),
        }
    return part


def _slice(each: Slice) -> SlicePart:
    return {
        "name": each.name,
        "rows": each.rows,
        "weight": each.weight,
        "confidence": each.confidence,
        "accuracy": each.accuracy,
        "nll": _number(each.nll, each.nll_interval),
        "brier": _number(each.brier, each.brier_interval),
        "ece": _slice_error(each),
        "p": each.p,
        "adjusted_p": each.adjusted_p,
    }


def _slice_error(each: Slice) -> NumberPart:
    part = _number(each.ece, each.ece_interval)
    if not math.isnan(each.ece_estimate):
        part["estimate"] = each.ece_estimate
    return part


def periods_part(periods: Sequence[Period], column: str, *, clustered: bool) -> PeriodsPart:
    """Periods as the document has them."""
    return {
        "column": column,
        "limits": "clusters" if clustered else "binomial",
        "periods": [cast("PeriodPart", asdict(period)) for period in periods],
    }


def test_parts(results: Sequence[TestResult]) -> list[TestPart]:
    """The tests as the document has them."""
    return [cast("TestPart", asdict(result)) for result in results]


def refit_part(refit: Refit) -> RefitPart:
    """Scores in their parts as the document has them."""
    scores: dict[str, ScorePart] = {
        name: {
            "value": part.score,
            "calibration": _number(part.calibration, part.interval),
            "refinement": part.refinement,
        }
        for name, part in refit.parts.items()
    }
    return {"method": refit.method, "folds": refit.folds, "scores": scores}


def combine(documents: Sequence[EvaluateDocument]) -> EvaluateDocument | SeveralDocument:
    """One document of several: itself where it is alone, otherwise a list under ``results``."""
    if len(documents) == 1:
        return documents[0]
    return {
        "schema_version": SCHEMA_VERSION,
        "command": documents[0]["command"],
        "results": list(documents),
    }
