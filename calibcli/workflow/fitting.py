"""Fit, and measure before and after on rows that the fit has not seen."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from calibcli.calibrators.base import SmoothMap
from calibcli.calibrators.identity import Identity
from calibcli.calibrators.links import Link, link_of
from calibcli.calibrators.registry import MAPS
from calibcli.engine.data import Data
from calibcli.errors import UsageError
from calibcli.fitting.crossing import cross_fit
from calibcli.fitting.fit import NOTHING_TO_FIT, Fit, StageFit, fit_stages
from calibcli.metrics.panel import Evaluation, Panel
from calibcli.objectives.base import Objective
from calibcli.objectives.macro import ClassWeighted
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.objectives.registry import OBJECTIVES
from calibcli.options import build, look_up, parse_settings
from calibcli.workflow.measuring import CrossFitted, MeasuredOn, Prober, Through, measure
from calibcli.workflow.priors import IMBALANCED, TargetPrior, imbalance, prior_factors


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
    link : Link or None
        Put behind the last stage, where an improper loss has one.
    prior : TargetPrior or None
        Class shares to fit for, instead of those of the rows.
    """

    method: str
    loss: str
    families: tuple[SmoothMap | None, ...]
    objective: Objective
    link: Link | None = None
    prior: TargetPrior | None = None

    @property
    def changes_prior(self) -> bool:
        """Whether the fit is for other class shares than those of its rows."""
        return self.prior is not None or isinstance(self.objective, ClassWeighted)


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


def make_plan(
    method: str,
    loss: str = "nll",
    settings: Iterable[str] = (),
    *,
    link: bool = True,
    prior: TargetPrior | None = None,
) -> Plan:
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
    chosen = [_family(name, options.get(name, {})) for name in names]
    families = tuple(stage for family in chosen for stage in _with_stages_before(family))
    objective = build(objective_class, loss, options.get(loss, {}))
    if prior is not None and isinstance(objective, ClassWeighted):
        raise UsageError(f"--target-prior and --loss {loss} both set class shares; use one of them")
    behind = link_of(loss, objective.options()) if link and any(families) else None
    return Plan(",".join(names), loss, families, objective, behind, prior)


def _family(name: str, options: dict[str, str]) -> SmoothMap | None:
    if name == Identity.kind:
        return None
    return build(look_up("method", MAPS, name, also=(Identity.kind,)), name, options)


def _with_stages_before(family: SmoothMap | None) -> tuple[SmoothMap | None, ...]:
    if family is None:
        return (None,)
    return (*(_family(name, {}) for name in family.before), family)


def run_fit(data: Data, plan: Plan, panel: Panel, test: Data | None = None) -> Outcome:
    """Fit, then measure on the test data, or else by cross-fitting on the data of the fit."""
    rows = data
    if plan.prior is not None:
        rows = data.reweighted(prior_factors(plan.prior, data.class_weights))
    begin = time.perf_counter()
    fit = fit_stages(rows, plan.families, plan.objective)
    seconds = time.perf_counter() - begin
    linked = _linked(fit, plan.link)
    notes = fit.notes + _notes(data, plan)
    if test is None and data.folds < 2:
        (before,) = measure(data, [Through()], panel)
        return Outcome(plan, linked, seconds, before, None, "nothing", 0, notes)
    prober, failed = _unseen(rows, plan, fit, test)
    notes += failed
    judged = data if test is None else test
    probers: list[Prober] = [Through(), prober]
    improper = not plan.objective.proper and plan.link is None and any(plan.families)
    if improper:
        nll = replace(plan, loss="nll", objective=NegativeLogLikelihood())
        whole = fit_stages(rows, nll.families, nll.objective)
        probers.append(_unseen(rows, nll, whole, test)[0])
    before, after, *others = measure(judged, probers, panel)
    if improper:
        notes += (_compared(plan.loss, after, others[0]),)
    return Outcome(
        plan,
        linked,
        seconds,
        before,
        after,
        "cross-fit" if test is None else "test",
        data.folds if test is None else 0,
        notes,
        _balanced(judged, probers[:2], panel) if plan.changes_prior else None,
        others[0] if others else None,
    )


def _unseen(rows: Data, plan: Plan, fit: Fit, test: Data | None) -> tuple[Prober, tuple[str, ...]]:
    """Log-probabilities of rows that the fit has not seen, and notes on the way there."""
    if test is not None:
        return Through(_linked(fit, plan.link).calibrators), ()
    by_fold = cross_fit(rows, plan.families, plan.objective, fit)
    failed = sum(not part.converged for part in by_fold)
    notes: tuple[str, ...] = ()
    if failed and fit.converged:
        notes = (f"{failed} of {rows.folds} fits of the cross-fitting did not converge",)
    stages = tuple(_linked(part, plan.link).calibrators for part in by_fold)
    return CrossFitted(stages, rows.seed), notes


def _linked(fit: Fit, link: Link | None) -> Fit:
    """The fit with a link behind it, unless there was nothing to fit that it could belong to."""
    last = fit.stages[-1].solution
    if link is None or last is None or last.criterion in NOTHING_TO_FIT:
        return fit
    return Fit((*fit.stages, StageFit(link)))


def _balanced(
    judged: Data, probers: list[Prober], panel: Panel
) -> tuple[Evaluation, Evaluation] | None:
    """Figures with all classes counting the same, where they don't already."""
    if imbalance(judged.class_weights) < IMBALANCED:
        return None
    factors = prior_factors("balanced", judged.class_weights)
    before, after = measure(judged.reweighted(factors), probers, panel)
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
