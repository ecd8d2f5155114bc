"""Candidates: plans that are fitted to all rows and, to be judged, without each fold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from calibcli.calibrators.base import Calibrator, Family
from calibcli.calibrators.log_linear import LogLinear
from calibcli.engine.data import Data
from calibcli.fitting.results import Fit
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.workflow.fitted_plans import fit_plan
from calibcli.workflow.plans import Plan, finished, rows_of


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
    members : tuple of Trial
        What a stack is made of.
    """

    plan: Plan
    fit: Fit
    by_fold: tuple[tuple[Calibrator, ...], ...]
    seconds: float
    parameters: int
    members: tuple[Trial, ...] = ()

    @property
    def name(self) -> str:
        """The method, with the loss where it is not the usual one."""
        plan = self.plan
        usual = plan.loss == NegativeLogLikelihood.name
        return plan.title if usual else f"{plan.title} ({plan.loss})"

    def weighted_members(self) -> list[tuple[Trial, float]]:
        """What a stack is made of, with the weights."""
        if not self.members:
            return []
        (mixture,) = self.fit.calibrators
        assert isinstance(mixture, LogLinear)
        return list(zip(self.members, mixture.weights.tolist(), strict=True))


def try_plans(data: Data, plans: Sequence[Plan]) -> list[Trial]:
    """Every plan fitted to all rows, and without each fold."""
    return [_try(data, plan) for plan in plans]


def _try(data: Data, plan: Plan) -> Trial:
    rows = rows_of(data, plan)
    begin = time.perf_counter()
    fitted = fit_plan(rows, plan)
    seconds = time.perf_counter() - begin
    plan = fitted.plan
    by_fold = tuple(finished(part, plan).calibrators for part in fitted.without_folds(rows))
    families = [family for family in plan.families if family is not None]
    parameters = sum(_parameters(family, rows) for family in families)
    return Trial(plan, finished(fitted.fit, plan), by_fold, seconds, parameters)


def _parameters(family: Family, data: Data) -> int:
    """Numbers that a family fits; where they grow with the rows, about their cube root a class."""
    size = family.size(data.classes)
    return round(data.classes * data.weight ** (1 / 3)) if size is None else size
