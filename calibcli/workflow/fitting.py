"""Fit, and measure before and after on rows that the fit has not seen."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from calibcli.calibrators.base import SmoothMap
from calibcli.calibrators.identity import Identity
from calibcli.calibrators.registry import MAPS
from calibcli.engine.data import Data
from calibcli.errors import UsageError
from calibcli.fitting.crossing import cross_fit
from calibcli.fitting.fit import Fit, fit_stages
from calibcli.metrics.panel import Evaluation, Panel
from calibcli.objectives.base import Objective
from calibcli.objectives.registry import OBJECTIVES
from calibcli.options import build, look_up, parse_settings
from calibcli.workflow.measuring import CrossFitted, Through, measure


@dataclass(frozen=True)
class Plan:
    """What is to be fitted.

    Attributes
    ----------
    method : str
        Names of the stages, with commas between them.
    loss : str
    families : tuple of SmoothMap or None
        A stage each; None changes nothing.
    objective : Objective
    """

    method: str
    loss: str
    families: tuple[SmoothMap | None, ...]
    objective: Objective


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
    measured_on : str
        ``"test"``, ``"cross-fitting"`` or ``"nothing"``.
    folds : int
    notes : tuple of str
    """

    plan: Plan
    fit: Fit
    seconds: float
    before: Evaluation | None
    after: Evaluation | None
    measured_on: str
    folds: int
    notes: tuple[str, ...]


def make_plan(method: str, loss: str = "nll", settings: Iterable[str] = ()) -> Plan:
    """The stages and the objective that names and ``NAME.OPTION=VALUE`` settings stand for.

    Raises
    ------
    UsageError
        An unknown method, loss or option, or an option of something that is not in use.
    """
    options = parse_settings(settings)
    names = [name.strip() for name in method.split(",")]
    objective_class = look_up("loss", OBJECTIVES, loss)
    unused = set(options) - set(names) - {loss}
    if unused:
        used = ", ".join([*names, loss])
        raise UsageError(f"--set {min(unused)}.…: only {used} are in use here")
    families = tuple(_family(name, options.get(name, {})) for name in names)
    objective = build(objective_class, loss, options.get(loss, {}))
    return Plan(",".join(names), loss, families, objective)


def _family(name: str, options: dict[str, str]) -> SmoothMap | None:
    if name == Identity.kind:
        return None
    return build(look_up("method", MAPS, name, also=(Identity.kind,)), name, options)


def run_fit(data: Data, plan: Plan, panel: Panel, test: Data | None = None) -> Outcome:
    """Fit, then measure on the test data, or else by cross-fitting on the data of the fit."""
    begin = time.perf_counter()
    fit = fit_stages(data, plan.families, plan.objective)
    seconds = time.perf_counter() - begin
    notes = fit.notes
    if test is not None:
        before, after = measure(test, [Through(), Through(fit.calibrators)], panel)
        return Outcome(plan, fit, seconds, before, after, "test", 0, notes)
    if data.folds < 2:
        (before,) = measure(data, [Through()], panel)
        return Outcome(plan, fit, seconds, before, None, "nothing", 0, notes)
    by_fold = cross_fit(data, plan.families, plan.objective, fit)
    failed = sum(not part.converged for part in by_fold)
    if failed and fit.converged:
        notes = (*notes, f"{failed} of {data.folds} fits of the cross-fitting did not converge")
    crossed = CrossFitted(tuple(part.calibrators for part in by_fold), data.seed)
    before, after = measure(data, [Through(), crossed], panel)
    return Outcome(plan, fit, seconds, before, after, "cross-fitting", data.folds, notes)
