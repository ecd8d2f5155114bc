"""Fit, and measure before and after on rows that the fit has not seen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from calibcli.calibrators.base import Calibrator
from calibcli.engine.data import Data
from calibcli.fitting.label_shift import LabelShift, estimate_label_shift
from calibcli.fitting.results import Fit
from calibcli.metrics.decisions import Decisions
from calibcli.metrics.panel import Evaluation, Panel, with_ranking_of
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.workflow.automatic import AnyPlan, better_method, choose
from calibcli.workflow.choosing import Leaderboard
from calibcli.workflow.deciding import measure_decisions
from calibcli.workflow.fit_rows import IMBALANCED, OTHER_SHARES, imbalance, prior_factors
from calibcli.workflow.fitted_plans import Trial, fit_plan
from calibcli.workflow.measuring import (
    CrossFitted,
    MeasuredOn,
    Predictor,
    Through,
    check_clusters,
    measure,
)
from calibcli.workflow.plans import Plan
from calibcli.workflow.pooling import GroupedFit, GroupReport, fit_groups, report_groups
from calibcli.workflow.shifting import ShareCorrected, check_target, share_corrected, shift_notes
from calibcli.workflow.soundness import worse_in_a_fold


@dataclass(frozen=True)
class Outcome:
    """A fit and what it is worth.

    Attributes
    ----------
    plan : Plan
    fit : Fit
    seconds : float
        That it took to find the fit: of a choice also its candidates without each fold, and their
        comparison; not what measuring the fit takes.
    notes : tuple of str
    before, after : Evaluation or None
        Of the same rows; None where nothing was measured.
    measured_on : MeasuredOn
    folds : int
    balanced : (Evaluation, Evaluation) or None
        Before and after, of the same rows with all classes counting the same; where the fit is for
        equal class shares and the rows have others.
    target : (Evaluation, Evaluation) or None
        The same with the class shares that a user named.
    plain : Evaluation or None
        After a fit by plain nll, of the same rows; where the loss is improper and has no link.
    leaderboard : Leaderboard or None
        What the plan was chosen from, where it was.
    groups : GroupReport or None
        How far groups have maps of their own, and what these are worth.
    decisions : (Decisions, Decisions) or None
        What decisions cost before and after, where it is known what errors cost.
    shift : LabelShift or None
        The class shares of unlabelled rows, for which the last stage corrects.
    """

    plan: Plan
    fit: Fit
    seconds: float
    notes: tuple[str, ...]
    before: Evaluation | None = None
    after: Evaluation | None = None
    measured_on: MeasuredOn = "nothing"
    folds: int = 0
    balanced: tuple[Evaluation, Evaluation] | None = None
    target: tuple[Evaluation, Evaluation] | None = None
    plain: Evaluation | None = None
    leaderboard: Leaderboard | None = None
    groups: GroupReport | None = None
    decisions: tuple[Decisions, Decisions] | None = None
    shift: LabelShift | None = None

    @property
    def shares(self) -> list[float] | None:
        """The class shares that the fit is for, where they were named or estimated."""
        return self.plan.shares if self.shift is None else self.shift.used.tolist()

    @property
    def changes_prior(self) -> bool:
        """Whether the fit is for other class shares than those of its rows."""
        return self.shift is not None or self.plan.changes_prior


def fit_and_measure(
    data: Data,
    plan: AnyPlan,
    panel: Panel,
    test: Data | None = None,
    *,
    cross_fitted: bool = True,
    advised: bool = True,
    target: Data | None = None,
) -> Outcome:
    """Fit, then measure on the test data, or else by cross-fitting on the data of the fit.

    A plan that is still to be chosen is chosen first, by cross-fitting on the data of the fit. Of a
    plan that a user has chosen a note says where a cheap one is clearly better, if ``advised``.
    What is fitted to rows as they are is corrected for the class shares of the ``target``, rows
    without labels: where other shares are all that is different this is exact for every method,
    and has none of the noise that weights for rare classes bring.

    Raises
    ------
    UsageError
        A target for a fit that brings class shares of its own, or none.
    """
    plans = plan.plans(data)
    shift = None
    if target is not None:
        check_target(plans[0])
        shift = estimate_label_shift(data, target)
    if len(plans) > 1:
        return _choose_and_measure(data, plan, plans, panel, test, shift)
    (plan,) = plans
    return _fit_and_measure(data, plan, panel, test, shift, cross_fitted, advised)


def _fit_and_measure(
    data: Data,
    plan: Plan,
    panel: Panel,
    test: Data | None,
    shift: LabelShift | None,
    cross_fitted: bool = True,
    advised: bool = True,
) -> Outcome:
    """The same of a single plan."""
    if test is None and cross_fitted:
        check_clusters(data)
    fitted = fit_plan(plan.rows_of(data), plan)
    plan, grouped = fitted.plan, None
    outcome = Outcome(plan, fitted.finished, fitted.seconds, fitted.notes, shift=shift)
    if plan.by is not None:
        begin = time.perf_counter()
        grouped = fit_groups(fitted)
        seconds = fitted.seconds + time.perf_counter() - begin
        notes = (*fitted.notes, grouped.note)
        outcome = Outcome(plan, grouped.fit, seconds, notes, shift=shift)
    if test is None and not (cross_fitted and data.folds >= 2):
        (before,) = measure(data, [Through()], panel)
        outcome = replace(outcome, before=before, notes=outcome.notes + _notes(data, outcome))
        return replace(outcome, fit=share_corrected(outcome.fit, shift))
    if grouped is not None:
        predictor = _unseen(grouped, data, test)
        return _measured(outcome, predictor, data, panel, test, grouped)
    predictor = fitted.unseen(test)
    notes = fitted.notes_on_folds if test is None else ()
    if advised and not outcome.changes_prior and plan.reduce is None:
        if test is None:
            notes += worse_in_a_fold(data, plan, predictor)
        notes += better_method(data, plan, predictor, test)
    return _measured(replace(outcome, notes=outcome.notes + notes), predictor, data, panel, test)


def _choose_and_measure(
    data: Data,
    auto: AnyPlan,
    plans: Sequence[Plan],
    panel: Panel,
    test: Data | None,
    shift: LabelShift | None,
) -> Outcome:
    """The same of the best of several plans; what they were compared by is not fitted again."""
    begin = time.perf_counter()
    board = choose(data, auto, plans, panel)
    trial = board.chosen.trial
    if auto.by is not None:
        grouped = replace(trial.plan, by=auto.by, pooled=auto.pooled)
        outcome = _fit_and_measure(data, grouped, panel, test, shift)
        return replace(outcome, notes=(board.why, *outcome.notes), leaderboard=board)
    seconds = time.perf_counter() - begin
    notes = (board.why, *trial.fit.notes)
    outcome = Outcome(trial.plan, trial.fit, seconds, notes, leaderboard=board, shift=shift)
    return _measured(outcome, _unseen(trial, data, test), data, panel, test)


def _unseen(fitted: Trial | GroupedFit, data: Data, test: Data | None) -> Predictor:
    """Log-probabilities of rows that a fit has not seen: of a test, or of its own, by fold."""
    if test is None:
        return CrossFitted(fitted.by_fold, data.split)
    return Through(fitted.fit.calibrators)


def _measured(
    outcome: Outcome,
    predictor: Predictor,
    data: Data,
    panel: Panel,
    test: Data | None,
    grouped: GroupedFit | None = None,
) -> Outcome:
    """An outcome with figures before and after, of rows that the fit has not seen."""
    plan, judged = outcome.plan, data if test is None else test
    notes = outcome.notes + _notes(data, outcome)
    predictors: list[Predictor] = [Through(), predictor]
    improper = not plan.objective.proper and plan.link is None and any(plan.families)
    if improper:
        nll = replace(plan, loss="nll", objective=NegativeLogLikelihood(), tune=False)
        predictors.append(fit_plan(plan.rows_of(data), nll).unseen(test))
    shift = outcome.shift
    outcome = replace(outcome, fit=share_corrected(outcome.fit, shift))
    if shift is not None:
        predictors[1:] = [ShareCorrected(each, shift.correction) for each in predictors[1:]]
    written = outcome.fit.calibrators if test is None else None
    before, after, *others = _measured_as_written(judged, predictors, panel, written)
    if improper and "nll" in after.values:
        notes += (_compared(plan.loss, after, others[0]),)
    shifted = _for_other_shares(judged, outcome, predictors[:2], panel, written)
    return replace(
        outcome,
        notes=notes,
        before=before,
        after=after,
        measured_on="cross-fit" if test is None else "test",
        folds=data.folds if test is None else 0,
        balanced=shifted if outcome.shares is None else None,
        target=None if outcome.shares is None else shifted,
        plain=others[0] if others else None,
        groups=None if grouped is None else report_groups(judged, predictors[:2], grouped),
        decisions=None if panel.costs is None else _decisions(judged, predictors[:2], panel, shift),
    )


def _measured_as_written(
    judged: Data,
    predictors: list[Predictor],
    panel: Panel,
    written: Sequence[Calibrator] | None,
) -> list[Evaluation]:
    """An evaluation for each predictor: before, after, and others.

    Of a cross-fitting ``written`` is the fit to all rows: where that leaves the order of the rows
    of two classes as it is, so do the figures, which maps of several folds together would not.
    """
    before, after, *others = measure(judged, predictors, panel)
    two = before.event is not None and written is not None
    if two and all(each.keeps_ranking for each in written or ()):
        after = with_ranking_of(after, before)
    return [before, after, *others]


def _decisions(
    judged: Data, predictors: list[Predictor], panel: Panel, shift: LabelShift | None
) -> tuple[Decisions, Decisions]:
    """What decisions cost before and after; a threshold is learnt for the shares of a target."""
    if shift is not None:
        judged = judged.reweighted(prior_factors(tuple(shift.used), judged.class_weights))
    before, after = measure_decisions(judged, predictors, panel)
    return before, after


def _for_other_shares(
    judged: Data,
    outcome: Outcome,
    predictors: list[Predictor],
    panel: Panel,
    written: Sequence[Calibrator] | None,
) -> tuple[Evaluation, Evaluation] | None:
    """Figures with the class shares that the fit is for, where the rows have others."""
    if not outcome.changes_prior:
        return None
    shares = outcome.shares
    factors = prior_factors("balanced" if shares is None else tuple(shares), judged.class_weights)
    if imbalance(factors) < (IMBALANCED if shares is None else OTHER_SHARES):
        return None
    weighted = judged.reweighted(factors)
    before, after = _measured_as_written(weighted, predictors, panel, written)
    return before, after


def _notes(data: Data, outcome: Outcome) -> tuple[str, ...]:
    """What a user should know of the loss, the link and the prior."""
    plan, shift = outcome.plan, outcome.shift
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
    if shift is not None:
        notes += shift_notes(shift)
    return tuple(notes)


def _compared(loss: str, after: Evaluation, plain: Evaluation) -> str:
    nll, plain_nll = after.values["nll"], plain.values["nll"]
    return (
        f"{loss} is not a proper score and no link is in use: held-out NLL {nll:.4g}, "
        f"that of a fit by plain nll {plain_nll:.4g}"
    )
