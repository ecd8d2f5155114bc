"""Fit, and measure before and after on rows that the fit has not seen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from calibcli.calibrators.base import Calibrator, Preserves
from calibcli.calibrators.chain import preserved_by
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
from calibcli.workflow.paired_losses import held_out_losses
from calibcli.workflow.plans import Plan
from calibcli.workflow.pooling import GroupedFit, GroupReport, fit_groups, report_groups
from calibcli.workflow.shifting import ShareCorrected, check_target, share_corrected, shift_notes
from calibcli.workflow.soundness import worse_than_plain
from calibcli.workflow.trying import Watch


@dataclass(frozen=True)
class AgainstPlain:
    """A fit by an improper loss against one of the same stages by plain nll, on held-out rows.

    Attributes
    ----------
    nll, plain_nll : float
        Of rows with the class shares that the fit is for.
    standard_error : float
        Of their difference, rows being paired.
    """

    nll: float
    plain_nll: float
    standard_error: float

    @property
    def is_same(self) -> bool:
        """Whether no figure that is shown tells them apart."""
        return f"{self.nll:.4g}" == f"{self.plain_nll:.4g}"

    @property
    def plain_is_better(self) -> bool:
        """Whether plain nll is ahead, be it by chance."""
        return not self.is_same and not self.nll < self.plain_nll

    @property
    def clear(self) -> bool:
        """Whether the difference is more than noise: two standard errors."""
        return not self.is_same and not abs(self.nll - self.plain_nll) <= 2 * self.standard_error

    def said(self, loss: str) -> str:
        """The figures and which is better, for a person."""
        figures = f"NLL {self.nll:.4g}, that of a fit by plain nll {self.plain_nll:.4g}"
        if self.is_same:
            return f"{figures}: the same"
        better = "plain nll" if self.plain_is_better else loss
        return f"{figures}: {better} is better{'' if self.clear else ', within noise'}"


BesidePlain: TypeAlias = tuple[Evaluation, Evaluation | None, AgainstPlain]
"""The `plain`, `shifted_plain` and `against_plain` of an `Outcome`."""


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
        After a fit by plain nll, of the same rows; where the loss is improper.
    shifted_plain : Evaluation or None
        The same with the class shares that the fit is for, where the rows have others.
    against_plain : AgainstPlain or None
        Which of the two is better.
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
    shifted_plain: Evaluation | None = None
    against_plain: AgainstPlain | None = None
    leaderboard: Leaderboard | None = None
    groups: GroupReport | None = None
    decisions: tuple[Decisions, Decisions] | None = None
    shift: LabelShift | None = None

    @property
    def loss(self) -> str:
        """What the fit minimises: the plan's loss, or nll where an adaptive one kept plain nll."""
        # The maps of groups may have kept it here and there.
        kept = self.plan.by is None and self.fit.losses == {NegativeLogLikelihood.name}
        return NegativeLogLikelihood.name if kept else self.plan.loss

    @property
    def beside_plain(self) -> BesidePlain | None:
        """What there is of a fit by plain nll."""
        if self.plain is None or self.against_plain is None:
            return None
        return self.plain, self.shifted_plain, self.against_plain

    @property
    def preserves(self) -> Preserves:
        """What method and link together leave as it was in every row."""
        return preserved_by(self.fit.calibrators)

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
    watch: Watch | None = None,
) -> Outcome:
    """Fit, then measure on the test data, or else by cross-fitting on the data of the fit.

    A plan that is still to be chosen is chosen first, by cross-fitting on the data of the fit. Of a
    plan that a user has chosen a note says where a cheap one is clearly better, if ``advised``.
    What is fitted to rows as they are is corrected for the class shares of the ``target``, rows
    without labels: where other shares are all that is different this is exact for every method,
    and has none of the noise that weights for rare classes bring. Of a plan that is to be chosen
    ``watch`` is told of each candidate as soon as it is done.

    Raises
    ------
    UsageError
        A target for a fit that brings class shares of its own, or none.
    ComparisonInterrupted
        An interrupt came when some of the candidates were done.
    """
    plans = plan.plans(data)
    shift = None
    if target is not None:
        check_target(plans[0])
        shift = estimate_label_shift(data, target)
    if len(plans) > 1:
        return _choose_and_measure(data, plan, plans, panel, test, shift, watch)
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
    own = fitted.notes_on_folds if test is None else ()

    def advise(before: Evaluation, after: Evaluation) -> tuple[str, ...]:
        """What a user should know of other methods, given figures of rows with their own shares."""
        if not advised:
            return own
        plain = outcome.shift is None and not outcome.changes_prior and plan.reduce is None
        ahead = plain and _is_ahead(after, before)
        notes = own + _worse(outcome, predictor, data, test, ahead_of_none=ahead)
        if not outcome.changes_prior and plan.reduce is None:
            notes += better_method(data, plan, predictor, test, ahead_of_none=ahead)
        return notes

    return _measured(outcome, predictor, data, panel, test, advise=advise)


def _is_ahead(after: Evaluation, before: Evaluation) -> bool:
    """Whether a fit has no more NLL than the scores as they are, if both were measured."""
    here, there = after.values.get("nll", math.nan), before.values.get("nll", math.nan)
    return math.isfinite(there) and here <= there


def _choose_and_measure(
    data: Data,
    auto: AnyPlan,
    plans: Sequence[Plan],
    panel: Panel,
    test: Data | None,
    shift: LabelShift | None,
    watch: Watch | None,
) -> Outcome:
    """The same of the best of several plans; what they were compared by is not fitted again."""
    begin = time.perf_counter()
    board = choose(data, auto, plans, panel, watch)
    trial = board.chosen.trial
    if auto.by is not None:
        grouped = replace(trial.plan, by=auto.by, pooled=auto.pooled)
        outcome = _fit_and_measure(data, grouped, panel, test, shift)
        return replace(outcome, notes=(board.why, *outcome.notes), leaderboard=board)
    seconds = time.perf_counter() - begin
    notes = (board.why, *trial.fit.notes)
    outcome = Outcome(trial.plan, trial.fit, seconds, notes, leaderboard=board, shift=shift)
    predictor = _unseen(trial, data, test)
    if test is not None:
        outcome = replace(outcome, notes=notes + _worse(outcome, predictor, data, test))
    return _measured(outcome, predictor, data, panel, test)


def _worse(
    outcome: Outcome,
    predictor: Predictor,
    data: Data,
    test: Data | None,
    *,
    ahead_of_none: bool = False,
) -> tuple[str, ...]:
    """A note on a fit that is worse than a plain one, unless it is known to change nothing.

    The class shares of a test need not be those of a target: rows of the fit, which are judged
    before they are corrected, tell then.
    """
    if outcome.fit.changes_nothing or (outcome.shift is not None and test is not None):
        return ()
    return worse_than_plain(data, outcome.plan, predictor, test, ahead_of_none=ahead_of_none)


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
    advise: Callable[[Evaluation, Evaluation], tuple[str, ...]] | None = None,
) -> Outcome:
    """An outcome with figures before and after, of rows that the fit has not seen.

    And with what there is to ``advise`` in view of these figures.
    """
    plan, judged = outcome.plan, data if test is None else test
    own_notes = _notes(data, outcome)
    predictors: list[Predictor] = [Through(), predictor]
    if not plan.objective.proper and any(plan.families):
        predictors.append(_by_plain_nll(data, plan, test))
    shift = outcome.shift
    outcome = replace(outcome, fit=share_corrected(outcome.fit, shift))
    if shift is not None:
        predictors[1:] = [ShareCorrected(each, shift.correction) for each in predictors[1:]]
    written = outcome.fit.calibrators if test is None else None
    before, after, *others = _measured_as_written(judged, predictors, panel, written)
    notes = outcome.notes + (() if advise is None else advise(before, after)) + own_notes
    for_shares = _for_its_shares(judged, outcome)
    if others:
        against = _against_plain(for_shares or judged, predictors[1:])
        notes += (_compared(plan, against, weighted=for_shares is not None),)
        outcome = replace(outcome, plain=others[0], against_plain=against)
    shifted = None
    if for_shares is not None:
        first, last, *others = _measured_as_written(for_shares, predictors, panel, written)
        shifted = first, last
        outcome = replace(outcome, shifted_plain=others[0] if others else None)
    return replace(
        outcome,
        notes=notes,
        before=before,
        after=after,
        measured_on="cross-fit" if test is None else "test",
        folds=data.folds if test is None else 0,
        balanced=shifted if outcome.shares is None else None,
        target=None if outcome.shares is None else shifted,
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


def _for_its_shares(judged: Data, outcome: Outcome) -> Data | None:
    """The rows weighted to the class shares that the fit is for; None where they have these."""
    if not outcome.changes_prior:
        return None
    shares = outcome.shares
    factors = prior_factors("balanced" if shares is None else tuple(shares), judged.class_weights)
    if imbalance(factors) < (IMBALANCED if shares is None else OTHER_SHARES):
        return None
    return judged.reweighted(factors)


def _by_plain_nll(data: Data, plan: Plan, test: Data | None) -> Predictor:
    """What a fit of the same stages by plain nll, without a link, makes of rows it has not seen."""
    plain = replace(
        plan,
        loss=NegativeLogLikelihood.name,
        objective=NegativeLogLikelihood(),
        link=None,
        tune=False,
    )
    fitted = fit_plan(plan.rows_of(data), plain)
    return fitted.unseen(test) if plan.by is None else _unseen(fit_groups(fitted), data, test)


def _against_plain(judged: Data, predictors: Sequence[Predictor]) -> AgainstPlain:
    """A fit against one by plain nll, the second of two predictors of the same rows."""
    losses = held_out_losses(judged, predictors)
    nll, plain_nll = losses.mean.tolist()
    # An infinite loss, of a label that was given probability 0, has no standard error.
    noise = losses.error_of_difference(0, 1) if math.isfinite(nll - plain_nll) else 0.0
    return AgainstPlain(nll, plain_nll, noise)


def _notes(data: Data, outcome: Outcome) -> tuple[str, ...]:
    """What a user should know of the loss, the link and the prior."""
    plan, shift = outcome.plan, outcome.shift
    notes: list[str] = []
    if plan.link is not None:
        notes.append(
            f"{plan.loss} is not a proper score: its link turns what it asks for into "
            "probabilities (--no-link leaves it out)"
        )
    if plan.link in outcome.fit.calibrators and plan.link.preserves == "nothing":
        notes.append(
            f"the link of {plan.loss} does not keep the order of classes, so that predictions may "
            "change (--no-link leaves it out)"
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


def _compared(plan: Plan, against: AgainstPlain, *, weighted: bool) -> str:
    """A note on whether an improper loss was worth it."""
    begin = "" if plan.link else " is not a proper score and no link is in use"
    rows = ", of rows with the class shares that the fit is for," if weighted else ""
    return f"{plan.loss}{begin}: held-out{rows} {against.said(plan.loss)}"
