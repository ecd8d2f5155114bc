"""Fit, and measure before and after on rows that the fit has not seen."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from calibcli.engine.data import Data
from calibcli.fitting.results import Fit
from calibcli.metrics.panel import Evaluation, Panel
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.workflow.automatic import AutoPlan, better_method, choose
from calibcli.workflow.choosing import Leaderboard
from calibcli.workflow.fitted_plans import FittedPlan, fit_plan
from calibcli.workflow.measuring import (
    CrossFitted,
    MeasuredOn,
    Predictor,
    Through,
    check_clusters,
    measure,
)
from calibcli.workflow.plans import Plan, finished, rows_of
from calibcli.workflow.pooling import GroupedFit, GroupReport, fit_groups, report_groups
from calibcli.workflow.priors import IMBALANCED, imbalance, prior_factors


@dataclass(frozen=True)
class Outcome:
    """A fit and what it is worth.

    Attributes
    ----------
    plan : Plan
    fit : Fit
    seconds : float
        Of the fit alone.
    before, after : Evaluation or None
        Of the same rows; None where nothing was measured.
    measured_on : MeasuredOn
    folds : int
    notes : tuple of str
    balanced : (Evaluation, Evaluation) or None
        Before and after, of the same rows with all classes counting the same; where the fit is for
        other class shares than those of its rows.
    plain : Evaluation or None
        After a fit by plain nll, of the same rows; where the loss is improper and has no link.
    leaderboard : Leaderboard or None
        What the plan was chosen from, where it was.
    groups : GroupReport or None
        How far groups have maps of their own, and what these are worth.
    """

    plan: Plan
    fit: Fit
    seconds: float
    before: Evaluation | None
    after: Evaluation | None
    measured_on: MeasuredOn
    folds: int
    notes: tuple[str, ...]
    balanced: tuple[Evaluation, Evaluation] | None = None
    plain: Evaluation | None = None
    leaderboard: Leaderboard | None = None
    groups: GroupReport | None = None


def fit_and_measure(
    data: Data,
    plan: Plan | AutoPlan,
    panel: Panel,
    test: Data | None = None,
    *,
    cross_fitted: bool = True,
    advised: bool = True,
) -> Outcome:
    """Fit, then measure on the test data, or else by cross-fitting on the data of the fit.

    A plan that is still to be chosen is chosen first, by cross-fitting on the data of the fit. Of a
    plan that a user has chosen a note says where a cheap one is clearly better, if ``advised``.
    """
    if isinstance(plan, AutoPlan):
        plans = plan.plans(data)
        if len(plans) > 1:
            board = choose(data, plan, plans, panel)
            if plan.by is None:
                return _measured(data, _Fitted.chosen(data, board, test), panel, test)
            by = replace(board.chosen.trial.plan, by=plan.by)
            outcome = fit_and_measure(data, by, panel, test)
            return replace(outcome, notes=(board.why, *outcome.notes), leaderboard=board)
        (plan,) = plans
    if test is None and cross_fitted:
        check_clusters(data)
    rows = rows_of(data, plan)
    begin = time.perf_counter()
    fitted = fit_plan(rows, plan)
    plan = fitted.plan
    grouped = None if plan.by is None else fit_groups(rows, fitted)
    seconds = time.perf_counter() - begin
    final = finished(fitted.fit, plan) if grouped is None else grouped.fit
    notes = fitted.notes + ((grouped.note,) if grouped else ())
    if test is None and not (cross_fitted and data.folds >= 2):
        (before,) = measure(data, [Through()], panel)
        notes += _notes(data, plan)
        return Outcome(plan, final, seconds, before, None, "nothing", 0, notes)
    if grouped is None:
        predictor, failed = _unseen(rows, fitted, test)
        notes += failed
        if advised and not plan.changes_prior and plan.reduce is None:
            better = better_method(data, plan, predictor, test)
            notes += () if better is None else (better,)
    else:
        predictor = _unseen_in_groups(rows, grouped, test)
    measured = _Fitted(plan, final, seconds, predictor, notes, grouped)
    return _measured(data, measured, panel, test)


@dataclass(frozen=True)
class _Fitted:
    """A fit and what it makes of rows that it has not seen."""

    plan: Plan
    fit: Fit
    seconds: float
    predictor: Predictor
    notes: tuple[str, ...]
    grouped: GroupedFit | None = None
    leaderboard: Leaderboard | None = None

    @classmethod
    def chosen(cls, data: Data, board: Leaderboard, test: Data | None) -> _Fitted:
        """The fit that a leaderboard says to take."""
        trial = board.chosen.trial
        unseen: Predictor = CrossFitted(trial.by_fold, data.split)
        return cls(
            trial.plan,
            trial.fit,
            sum(standing.trial.seconds for standing in board.standings),
            unseen if test is None else Through(trial.fit.calibrators),
            (board.why, *trial.fit.notes),
            leaderboard=board,
        )


def _measured(data: Data, fitted: _Fitted, panel: Panel, test: Data | None) -> Outcome:
    """Figures before and after, of rows that the fit has not seen."""
    plan, grouped, predictor = fitted.plan, fitted.grouped, fitted.predictor
    rows, notes = rows_of(data, plan), fitted.notes + _notes(data, plan)
    judged = data if test is None else test
    predictors: list[Predictor] = [Through(), predictor]
    improper = not plan.objective.proper and plan.link is None and any(plan.families)
    if improper:
        nll = replace(plan, loss="nll", objective=NegativeLogLikelihood(), tune=False)
        predictors.append(_unseen(rows, fit_plan(rows, nll), test)[0])
    before, after, *others = measure(judged, predictors, panel)
    if improper and "nll" in after.values:
        notes += (_compared(plan.loss, after, others[0]),)
    return Outcome(
        plan,
        fitted.fit,
        fitted.seconds,
        before,
        after,
        "cross-fit" if test is None else "test",
        data.folds if test is None else 0,
        notes,
        _balanced(judged, predictors[:2], panel) if plan.changes_prior else None,
        others[0] if others else None,
        fitted.leaderboard,
        groups=None if grouped is None else report_groups(judged, predictors[:2], grouped),
    )


def _unseen(rows: Data, fitted: FittedPlan, test: Data | None) -> tuple[Predictor, tuple[str, ...]]:
    """Log-probabilities of rows that the fit has not seen, and notes on the way there."""
    fit, plan = fitted.fit, fitted.plan
    if test is not None:
        return Through(finished(fit, plan).calibrators), ()
    by_fold = fitted.without_folds(rows)
    failed = sum(not part.converged for part in by_fold)
    notes: tuple[str, ...] = ()
    if failed and fit.converged:
        notes = (f"{failed} of {rows.folds} fits of the cross-fitting did not converge",)
    stages = tuple(finished(part, plan).calibrators for part in by_fold)
    return CrossFitted(stages, rows.split), notes


def _unseen_in_groups(rows: Data, grouped: GroupedFit, test: Data | None) -> Predictor:
    """Log-probabilities of rows that a fit with maps for groups has not seen."""
    if test is not None:
        return Through(grouped.fit.calibrators)
    return CrossFitted(grouped.by_fold, rows.split)


def _balanced(
    judged: Data, predictors: list[Predictor], panel: Panel
) -> tuple[Evaluation, Evaluation] | None:
    """Figures with all classes counting the same, where they don't already."""
    if imbalance(judged.class_weights) < IMBALANCED:
        return None
    factors = prior_factors("balanced", judged.class_weights)
    before, after = measure(judged.reweighted(factors), predictors, panel)
    return before, after


def _notes(data: Data, plan: Plan) -> tuple[str, ...]:
    """What a user should know of the loss, the link and the prior."""
    notes: list[str] = []
    if plan.link is not None:
        notes.append(
            f"{plan.loss} is not a proper score: its link turns what it asks for into "
            "probabilities (--no-link leaves it out)"
        )
    if data.weight < data.rows / 10:
        notes.append(
            f"the weights sum to {data.weight:.4g} over {data.rows:,} rows; a weight counts as so "
            "many rows, which sets penalties: scale them so that they sum to the number of rows"
        )
    ratio = imbalance(data.class_weights)
    if plan.changes_prior and ratio >= IMBALANCED:
        shares = "the shares of --target-prior" if plan.prior else "equal shares of all classes"
        notes.append(
            f"the data is imbalanced (the largest class has {ratio:.1f} times the weight of the "
            f"smallest) and the fit is for {shares}: expect it to fit rows like these less well"
        )
    return tuple(notes)


def _compared(loss: str, after: Evaluation, plain: Evaluation) -> str:
    own, other = after.values["nll"], plain.values["nll"]
    return (
        f"{loss} is not a proper score and no link is in use: held-out NLL {own:.4g}, "
        f"that of a fit by plain nll {other:.4g}"
    )
