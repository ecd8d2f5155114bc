"""The fit of a plan, with what the plan leaves to cross-validation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from calibcli.engine.data import Data
from calibcli.fitting.cross_fitting import cross_fit, fit_average, unfitted
from calibcli.fitting.results import Families, Fit
from calibcli.fitting.stages import fit_stages
from calibcli.fitting.tuning import Tuning, tune
from calibcli.workflow.plans import Plan


@dataclass(frozen=True)
class FittedPlan:
    """A plan that was fitted.

    Attributes
    ----------
    plan : Plan
        With the penalties that were chosen.
    fit : Fit
        To all rows; without a link.
    tuning : Tuning or None
        How they were chosen.
    """

    plan: Plan
    fit: Fit
    tuning: Tuning | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know about it."""
        return self.fit.notes + (() if self.tuning is None else self.tuning.notes)

    def without_folds(self, rows: Data) -> list[Fit]:
        """The fit without each fold, whose rows had no part in the choice of penalties either."""
        plan = self.plan
        if self.tuning is None and not plan.average_folds:
            return cross_fit(rows, plan.families, plan.objective, self.fit)
        tuning = self.tuning
        return [
            _fit(rows.without_fold(fold), plan, tuning.without(fold) if tuning else plan.families)
            for fold in range(rows.folds)
        ]


def fit_plan(rows: Data, plan: Plan) -> FittedPlan:
    """Choose what the plan leaves to cross-validation, and fit it.

    Raises
    ------
    UsageError
        Something that the plan asks for needs folds, or maps that are linear in their parameters.
    """
    tuning = None
    if plan.tune:
        tuning = tune(rows, plan.families, plan.objective)
        plan = replace(plan, families=tuning.families)
    return FittedPlan(plan, _fit(rows, plan, plan.families), tuning)


def _fit(rows: Data, plan: Plan, families: Families) -> Fit:
    if rows.weight <= 0:
        return unfitted(families)
    fit = fit_average if plan.average_folds else fit_stages
    return fit(rows, families, plan.objective)
