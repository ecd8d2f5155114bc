"""What is to be fitted: stages, loss, options, link and class shares, from their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias, cast

from calibcli.calibrators.base import Family
from calibcli.calibrators.identity import Identity
from calibcli.calibrators.links import Link, link_of
from calibcli.calibrators.registry import MAPS
from calibcli.calibrators.top import Top
from calibcli.engine.data import Data
from calibcli.errors import UsageError
from calibcli.fitting.results import NOTHING_TO_FIT, Fit, StageFit
from calibcli.objectives.base import Objective
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.objectives.registry import OBJECTIVES
from calibcli.options import build, parse_settings
from calibcli.workflow.fit_rows import TargetPrior, confidence_rows, prior_factors

ReducedTo: TypeAlias = Literal["top"]
"""To what the classes are reduced for a fit: the top class against all others."""


@dataclass(frozen=True)
class Plan:
    """What is to be fitted.

    Attributes
    ----------
    method : str
        Names of the stages, with commas between them.
    loss : str
    families : tuple of Family or None
        A stage each; None changes nothing.
    objective : Objective
    link : Link or None
        Put behind the last stage, where an improper loss has one.
    prior : TargetPrior or None
        Class shares to fit for, instead of those of the rows.
    tune : bool
        Whether cross-validation chooses the penalties of the stages.
    average_folds : bool
        Whether the last stage is the average of the fits without each fold.
    by : str or None
        The column whose values have maps of their own.
    pooled : bool
        Whether these are drawn towards the map of all rows.
    reduce : ReducedTo or None
        ``"top"`` calibrates the confidence alone.
    variant : str
        What its penalties are multiplied or divided by: ``*10``, ``/10``, or nothing.
    stacked : bool
        Whether a stack of the candidates is one more: there are none.
    prefer : str
        By what is chosen among candidates: there are none.
    """

    method: str
    loss: str
    families: tuple[Family | None, ...]
    objective: Objective
    link: Link | None = None
    prior: TargetPrior | None = None
    tune: bool = False
    average_folds: bool = False
    by: str | None = None
    pooled: bool = True
    reduce: ReducedTo | None = None
    variant: str = ""
    stacked: ClassVar[bool] = False
    prefer: ClassVar[Literal["accurate"]] = "accurate"

    @property
    def typed(self) -> str:
        """The method as after ``-m``: ``monotone,svs/10``."""
        return self.method + self.variant

    @property
    def title(self) -> str:
        """The method as a list of methods has it: ``monotone+svs/10``."""
        return "+".join(stage_names(self.method)) + self.variant

    @property
    def shares(self) -> list[float] | None:
        """The class shares that the fit is for, where they were named."""
        if not isinstance(self.prior, tuple):
            return None
        return [share / sum(self.prior) for share in self.prior]

    @property
    def changes_prior(self) -> bool:
        """Whether the fit is for other class shares than those of its rows."""
        return self.prior is not None or self.objective.sets_prior

    def chooses(self, classes: int) -> bool:
        """Whether there is more than one candidate; there is none but the plan itself."""
        del classes
        return False

    def plans(self, data: Data) -> list[Plan]:
        """The candidates for some data."""
        del data
        return [self]

    def rows_of(self, data: Data) -> Data:
        """The data as the fit sees it: reduced, or weighted for the class shares it is for."""
        if self.reduce is not None:
            return confidence_rows(data)
        if self.prior is None:
            return data
        return data.reweighted(prior_factors(self.prior, data.class_weights))

    def linked(self, fit: Fit) -> Fit:
        """The fit with the link behind it, unless it found nothing that a link belongs to."""
        last = fit.stages[-1].solution
        if self.link is None or last is None or last.criterion in NOTHING_TO_FIT:
            return fit
        return Fit((*fit.stages, StageFit(self.link)))

    def restored(self, fit: Fit) -> Fit:
        """A fit to rows that were reduced, as a fit for all classes."""
        return fit if self.reduce is None else fit.as_one(Top(fit.calibrators))

    def finished(self, fit: Fit) -> Fit:
        """The fit as rows are run through it: with the link, and for all classes."""
        return self.restored(self.linked(fit))


def make_plan(
    method: str,
    loss: str = "nll",
    settings: Iterable[str] = (),
    *,
    link: bool = True,
    prior: TargetPrior | None = None,
    allow_zero: bool = False,
    tune: bool = False,
    average_folds: bool = False,
    by: str | None = None,
    pooled: bool = True,
    reduce: ReducedTo | None = None,
) -> Plan:
    """The stages and the objective that names and ``NAME.OPTION=VALUE`` settings stand for.

    Raises
    ------
    UsageError
        An unknown method, loss, reduction or option, an option of something that is not in use, or
        class shares to fit for where the classes are reduced.
    """
    options = parse_settings(settings)
    method, strength = split_strength(method)
    names = stage_names(method)
    objective_class = OBJECTIVES.find(loss)
    unused = set(options) - set(names) - {loss}
    if unused:
        used = ", ".join([*names, loss])
        raise UsageError(f"--set {min(unused)}.…: only {used} are in use here")
    chosen = [_family(name, options.get(name, {})) for name in names]
    families = tuple(stage for family in chosen for stage in _with_stages_before(family))
    if allow_zero:
        families = _allowing_zero(method, families)
    _check_curves(families, loss)
    objective = build(objective_class, loss, options.get(loss, {}))
    if prior is not None and objective.sets_prior:
        raise UsageError(f"--target-prior and --loss {loss} both set class shares; use one of them")
    behind = link_of(objective) if link and any(families) else None
    plan = Plan(",".join(names), loss, families, objective, behind, prior, tune, average_folds)
    if strength:
        plan = _penalised(plan, strength)
    _check_reduction(plan, reduce)
    _check_groups(plan, by)
    return replace(plan, by=by, pooled=pooled, reduce=reduce)


def make_plans(
    methods: Iterable[str],
    losses: Sequence[str],
    settings: Sequence[str] = (),
    *,
    link: bool = True,
    prior: TargetPrior | None = None,
    reduce: ReducedTo | None = None,
) -> list[Plan]:
    """A plan for every method with every loss; each setting goes to those that it is for.

    What minimises no loss is there once.

    Raises
    ------
    UsageError
        As `make_plan`; also a setting that is for none of them.
    """
    owners = {setting: setting.split(".", 1)[0] for setting in settings}
    plans, used = [], set()
    for method in methods:
        names = stage_names(split_strength(method)[0])
        fitted = [MAPS[name] for name in names if name in MAPS]
        lossless = not fitted or not all(family.minimises for family in fitted)
        for loss in losses if len(losses) == 1 or not lossless else [NegativeLogLikelihood.name]:
            plan_settings = [text for text, owner in owners.items() if owner in (loss, *names)]
            plans.append(
                make_plan(method, loss, plan_settings, link=link, prior=prior, reduce=reduce)
            )
            used.update(plan_settings)
    for setting in owners:
        if setting not in used:
            raise UsageError(f"--set {setting}: nothing that is compared here has this option")
    return plans


def _penalised(plan: Plan, strength: str) -> Plan:
    """The same plan with the penalties of its last stage times or over a number: ``*10``, ``/5``.

    Raises
    ------
    UsageError
        The last stage has no penalties.
    """
    *before, last = plan.families
    if last is None or not last.tunable:
        raise UsageError(f"{plan.title}{strength}: {plan.title} has no penalties")
    factor = float(strength[1:]) if strength[0] == "*" else 1 / float(strength[1:])
    penalties = {
        name: getattr(last, name) * factor
        for name in last.tunable
        if getattr(last, name) is not None
    }
    scaled = replace(cast("Any", last), **penalties)
    return replace(plan, families=(*before, scaled), variant=strength)


_STRENGTH = re.compile(r"\s*([*/][1-9]\d{0,5})?\s*$")
"""Behind a method: what its penalties are multiplied or divided by."""


def split_strength(method: str) -> tuple[str, str]:
    """A method, and what its penalties are multiplied or divided by: ``svs*10`` is svs and *10."""
    match = _STRENGTH.search(method)
    assert match is not None
    return method[: match.start()], match.group(1) or ""


def stage_names(method: str) -> list[str]:
    """The stages of a method: ``monotone,svs`` or ``monotone+svs``."""
    return [name.strip() for name in method.replace("+", ",").split(",")]


def _family(name: str, options: dict[str, str]) -> Family | None:
    if name == Identity.kind:
        return None
    return build(MAPS.find(name, also=(Identity.kind,)), name, options)


def _allowing_zero(method: str, families: tuple[Family | None, ...]) -> tuple[Family | None, ...]:
    """The same stages, probabilities of 0 allowed in those that have the option."""
    able = [hasattr(family, "allow_zero") for family in families]
    if not any(able):
        raise UsageError(f"--allow-zero: {method} never gives a probability of exactly 0 or 1")
    instances: Sequence[Any] = families
    return tuple(
        replace(family, allow_zero=True) if has_option else family
        for family, has_option in zip(instances, able, strict=True)
    )


def _check_curves(families: tuple[Family | None, ...], loss: str) -> None:
    """Refuse what families that minimise no loss can't do."""
    for position, family in enumerate(families):
        if family is None or family.minimises:
            continue
        if loss != NegativeLogLikelihood.name:
            raise UsageError(f"--loss {loss}: {family.name} minimises no loss, so it takes none")
        if getattr(family, "allow_zero", False) and position < len(families) - 1:
            raise UsageError(
                f"{family.name}: with allow-zero it must be the last stage, as what is impossible "
                "after it stays so"
            )


def _check_reduction(plan: Plan, reduce: ReducedTo | None) -> None:
    """Refuse a reduction that there is not, and class shares for classes that are reduced."""
    if reduce not in (None, "top"):
        raise UsageError(f"there is no reduction {reduce!r}; there is top")
    if reduce is not None and plan.changes_prior:
        how = f"--loss {plan.loss}" if plan.prior is None else "--target-prior"
        raise UsageError(f"{how} sets class shares, which --reduce {reduce} does not know")


def _check_groups(plan: Plan, by: str | None) -> None:
    """Refuse maps for groups that give probabilities of 0: what lies between two is not known."""
    zero = (family for family in plan.families if getattr(family, "allow_zero", False))
    if by is not None and any(zero):
        raise UsageError(
            "--allow-zero: maps for groups are mixed by log-probabilities, which a 0 has none of; "
            "leave out --allow-zero or --by"
        )


def _with_stages_before(family: Family | None) -> tuple[Family | None, ...]:
    if family is None:
        return (None,)
    return (*(_family(name, {}) for name in family.before), family)
