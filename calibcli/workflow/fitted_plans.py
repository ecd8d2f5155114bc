"""Plans that are fitted: to all rows, and to be judged without each fold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from calibcli.cached import cached_property
from calibcli.calibrators.base import Calibrator, Family
from calibcli.engine.data import Data
from calibcli.engine.in_step import in_step
from calibcli.fitting.cross_fitting import cross_fit, fit_average
from calibcli.fitting.results import NOTHING_TO_FIT, Fit
from calibcli.fitting.stages import Begun, fit_stages
from calibcli.fitting.tuning import Tuning, tune
from calibcli.metrics.panel import PanelState
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.workflow.measuring import CrossFitted, Predictor, Through
from calibcli.workflow.plans import Plan
from calibcli.workflow.texts import plural

_PASSES = 20
"""Over the rows, of a typical fit."""

_SHARE_OF_A_FOLD, _TRIALS = 0.5, 8
"""A fit without a fold starts from that to all rows; penalties are chosen by some of these."""

_SCORES_A_SECOND, _PRODUCTS_A_SECOND = 5e8, 3e10
"""Exponentials, and multiplications in products of matrices, of one core of a common machine."""


@dataclass(frozen=True)
class FittedPlan:
    """A plan that was fitted.

    Attributes
    ----------
    plan : Plan
        With the penalties that were chosen.
    rows : Data
        What it was fitted to, as the plan sees it.
    fit : Fit
        To all rows; without a link.
    seconds : float
        That it took.
    tuning : Tuning or None
        How the penalties were chosen.
    begun : sequence of Begun or None
        What other fits to the same rows have begun with, without each fold.
    """

    plan: Plan
    rows: Data
    fit: Fit
    seconds: float
    tuning: Tuning | None = None
    begun: Sequence[Begun] | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know about it."""
        return self.fit.notes + (() if self.tuning is None else self.tuning.notes)

    @property
    def finished(self) -> Fit:
        """The fit as rows are run through it: with the link, and for all classes."""
        return self.plan.finished(self.fit)

    @cached_property
    def without_folds(self) -> list[Fit]:
        """The fit without each fold, whose rows had no part in the choice of penalties either.

        Where the fit to all rows leaves them alone so does each of these: they are to say what it
        is worth, and a fit to fewer rows may end at an extreme where that one has none.
        """
        rows, plan, tuning = self.rows, self.plan, self.tuning
        if self.fit.left_alone:
            return [self.fit] * rows.folds
        if tuning is None and not plan.average_folds:
            return cross_fit(rows, plan.families, plan.objective, self.fit, self.begun)
        plans = [
            replace(plan, families=tuning.without(fold), tune=False) if tuning else plan
            for fold in range(rows.folds)
        ]

        def fit_without(fold: int, data: Data) -> Fit:
            return fit_plan(data.without_fold(fold), plans[fold]).fit

        return in_step(rows, [partial(fit_without, fold) for fold in range(rows.folds)])

    @property
    def notes_on_folds(self) -> tuple[str, ...]:
        """What a user must know about the fits without each fold."""
        failed = sum(not fit.converged for fit in self.without_folds)
        if not failed or not self.fit.converged:
            return ()
        return (f"{failed} of {self.rows.folds} fits of the cross-fitting did not converge",)

    @property
    def by_fold(self) -> tuple[tuple[Calibrator, ...], ...]:
        """The stages without each fold, as rows are run through them."""
        return tuple(self.plan.finished(fit).calibrators for fit in self.without_folds)

    def unseen(self, test: Data | None) -> Predictor:
        """What it makes of rows that it has not seen: of a test, or else of its own, by fold."""
        if test is None:
            return CrossFitted(self.by_fold, self.rows.split)
        return Through(self.finished.calibrators)


def fit_plan(rows: Data, plan: Plan, begun: Sequence[Begun] | None = None) -> FittedPlan:
    """Choose what the plan leaves to cross-validation, and fit it.

    Parameters
    ----------
    rows : Data
        As the plan sees them (`Plan.rows_of`).
    plan : Plan
    begun : sequence of Begun or None
        What other fits to the same rows have begun with: to all of them, then without each fold.

    Raises
    ------
    UsageError
        Something that the plan asks for needs folds, or maps that are linear in their parameters.
    """
    begin, tuning = time.perf_counter(), None
    if plan.tune:
        tuning = tune(rows, plan.families, plan.objective)
        plan = replace(plan, families=tuning.families)
    if plan.average_folds or begun is None:
        fit_all = fit_average if plan.average_folds else fit_stages
        fit = fit_all(rows, plan.families, plan.objective)
        return FittedPlan(plan, rows, fit, time.perf_counter() - begin, tuning)
    whole, *by_fold = begun
    saved = whole.saved
    fit = fit_stages(rows, plan.families, plan.objective, begun=whole)
    seconds = time.perf_counter() - begin + whole.saved - saved
    return FittedPlan(plan, rows, fit, seconds, tuning, by_fold)


@dataclass(frozen=True)
class Trial:
    """A candidate, fitted to all rows and without each fold.

    Attributes
    ----------
    plan : Plan
    fit : Fit
        To all rows, the link included.
    by_fold : tuple of tuple of Calibrator
        Without each fold.
    seconds : float
        Of the fit to all rows.
    parameters : int
        Numbers that were fitted, which orders candidates by simplicity.
    members : tuple of (Trial, float)
        What a stack is made of, with the weights.
    warning : str
        Why it is none to take; empty for most.
    judged : PanelState or None
        What a leaderboard's panel saw of it on held-out rows, where that is known already.
    """

    plan: Plan
    fit: Fit
    by_fold: tuple[tuple[Calibrator, ...], ...]
    seconds: float
    parameters: int
    members: tuple[tuple[Trial, float], ...] = ()
    warning: str = ""
    judged: PanelState | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The method, with the loss where it is not the usual one."""
        plan = self.plan
        usual = plan.loss == NegativeLogLikelihood.name
        return plan.title if usual else f"{plan.title} ({plan.loss})"

    @property
    def trouble(self) -> str:
        """What went wrong: its warning, or that its fit did not converge; empty for most."""
        if self.warning or self.fit.converged:
            return self.warning
        solved = [stage.solution for stage in self.fit.stages if stage.solution is not None]
        # What a stage left alone, others may have fitted.
        if any(each.converged for each in solved) and all(
            each.converged or each.criterion in NOTHING_TO_FIT for each in solved
        ):
            return ""
        failed = (s for s in self.fit.stages if s.solution and not s.solution.converged)
        notes = [note for stage in failed for note in stage.notes] or ["its fit did not converge"]
        return notes[-1].removeprefix(f"{self.plan.title}: ")


def try_plan(data: Data, plan: Plan, begun: Sequence[Begun] | None = None) -> Trial:
    """A plan fitted to all rows, and without each fold.

    What plans of the same rows have ``begun`` with is shared, to all of them and without each fold.
    """
    rows = plan.rows_of(data)
    return trial_of(fit_plan(rows, plan, begun if rows is data else None))


def trial_of(fitted: FittedPlan) -> Trial:
    """A fitted plan as a candidate."""
    families = [family for family in fitted.plan.families if family is not None]
    by_fold = fitted.by_fold
    return Trial(
        fitted.plan,
        fitted.finished.without_bends(),
        by_fold,
        fitted.seconds,
        sum(_parameters(family, fitted.rows) for family in families),
    )


def _parameters(family: Family, data: Data) -> int:
    """Numbers that a family fits; where they grow with the rows, about their cube root a class."""
    size = family.size(data.classes)
    return round(data.classes * data.weight ** (1 / 3)) if size is None else size


def long_fit_note(data: Data, plans: Sequence[Plan], folds: int) -> str | None:
    """A line on fits that will take minutes or hours on a common machine; None for others.

    Parameters
    ----------
    data : Data
    plans : sequence of Plan
        What will be fitted.
    folds : int
        Fits without a fold that follow each fit to all rows.
    """
    costs = [(*_cost(data, plan, folds), plan.method) for plan in plans if plan.reduce is None]
    seconds = sum(seconds for seconds, *_ in costs) / data.engine.thread_count
    if data.engine.device != "cpu" or seconds < 60:
        return None
    size, method = max((size, method) for _, size, method in costs)
    again = f" and again without each of {folds} folds" if folds else ""
    numbers = f"{plural(size, 'parameter')}, which {'is' if size == 1 else 'are'}"
    return (
        f"{method} has {numbers} fitted to {data.rows:,} rows{again}: "
        f"expect {'hours' if seconds > 3600 else 'minutes'}"
    )


def seconds_of_fit(data: Data, plan: Plan, folds: int) -> float:
    """A plain estimate for one core of a common machine, without looking at a clock."""
    return _cost(data, plan, folds)[0]


def _cost(data: Data, plan: Plan, folds: int) -> tuple[float, int]:
    """Seconds of a fit on one core, and the number of its parameters."""
    sizes = [family.size(data.classes) or 0 for family in plan.families if family is not None]
    rows = _PASSES * (1 + folds * _SHARE_OF_A_FOLD * (_TRIALS if plan.tune else 1)) * data.rows
    scores = rows * data.classes * len(sizes)
    # Maps with more parameters than that mix the classes: forth by a matrix, and back.
    products = rows * sum(2 * size for size in sizes if size > 2 * data.classes)
    return scores / _SCORES_A_SECOND + products / _PRODUCTS_A_SECOND, sum(sizes)
