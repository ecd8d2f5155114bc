"""``auto``: the method is chosen by held-out loss, or a stack of all is fitted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from calibcli.engine.data import Data
from calibcli.errors import UsageError
from calibcli.metrics.panel import Panel
from calibcli.workflow.choosing import Leaderboard, candidates, rank
from calibcli.workflow.fitted_plans import try_plans
from calibcli.workflow.fitting import Outcome, fit_and_measure
from calibcli.workflow.measuring import CrossFitted, Through, check_clusters, measure
from calibcli.workflow.plans import Plan, ReducedTo, loosened, make_plan, make_plans
from calibcli.workflow.priors import TargetPrior
from calibcli.workflow.stacking import stack

AUTO = "auto"
LEADERBOARD_METRICS = ("nll", "brier", "ece")
"""What candidates are compared by; the chosen one is measured by everything that was asked for."""

_WEAKER = 0.1
"""A stack also has structured matrices with penalties times this: their best one varies most."""


@dataclass(frozen=True)
class AutoPlan:
    """A choice that is to be made once the data is known.

    Attributes
    ----------
    loss : str
        What all candidates minimise.
    settings : tuple of str
        ``NAME.OPTION=VALUE``, each for the candidates that use it.
    stacked : bool
        Whether a stack of the candidates is one more.
    link : bool
        Whether an improper loss gets its link.
    prior, tune, average_folds, by, reduce
        As in `Plan`.
    """

    loss: str = "nll"
    settings: tuple[str, ...] = ()
    stacked: bool = False
    link: bool = True
    prior: TargetPrior | None = None
    tune: bool = False
    average_folds: bool = False
    by: str | None = None
    reduce: ReducedTo | None = None
    method: str = AUTO

    def plans(self, data: Data) -> list[Plan]:
        """The candidates for some data, from the simplest.

        Raises
        ------
        UsageError
            An unknown loss, or a setting of nothing that is a candidate.
        """
        classes = data.classes if self.reduce is None else 2
        methods = candidates(classes, data.weight)
        plans = make_plans(
            methods,
            [self.loss],
            self.settings,
            link=self.link,
            prior=self.prior,
            reduce=self.reduce,
        )
        return [
            replace(
                plan,
                tune=self.tune and _can_be_tuned(plan),
                average_folds=self.average_folds and any(plan.families),
            )
            for plan in plans
        ]


def make_any_plan(
    method: str,
    loss: str = "nll",
    settings: Iterable[str] = (),
    *,
    by: str | None = None,
    reduce: ReducedTo | None = None,
    stacked: bool = False,
    **options: Any,
) -> Plan | AutoPlan:
    """The plan of a method, or of `auto`; ``options`` are others of `make_plan`.

    Raises
    ------
    UsageError
        As `make_plan`; also what only makes sense with `auto`, or not with it.
    """
    if method != AUTO:
        if stacked:
            raise UsageError("--stack mixes the candidates of auto; use it with -m auto")
        return make_plan(method, loss, settings, by=by, reduce=reduce, **options)
    if options.pop("allow_zero", False):
        raise UsageError("--allow-zero: auto never takes a probability of exactly 0 or 1")
    if stacked and by is not None:
        raise UsageError("--stack: a stack has no maps for groups; leave out --stack or --by")
    return AutoPlan(loss, tuple(settings), stacked, by=by, reduce=reduce, **options)


def run_plan(
    data: Data,
    plan: Plan | AutoPlan,
    panel: Panel,
    test: Data | None = None,
    *,
    cross_fitted: bool = True,
) -> Outcome:
    """Fit a plan, or the one that `auto` chooses, and measure it."""
    if isinstance(plan, AutoPlan):
        return choose_and_measure(data, plan, panel, test)
    return fit_and_measure(data, plan, panel, test, cross_fitted=cross_fitted)


def _can_be_tuned(plan: Plan) -> bool:
    return any(family is not None and family.tunable for family in plan.families)


def compare_plans(
    data: Data, plans: Iterable[Plan], panel: Panel, *, stacked: bool = False
) -> Leaderboard:
    """A leaderboard of plans, with a stack of them as one more.

    Raises
    ------
    UsageError
        Too few folds to hold rows out.
    """
    check_clusters(data)
    if data.folds < 2:
        raise UsageError("comparing methods needs at least 2 folds")
    plans = list(plans)
    trials = try_plans(data, plans)
    if stacked:
        weaker = [loosened(plan, _WEAKER) for plan in plans if plan.method.endswith("sms")]
        mixture = stack(data, [*trials, *try_plans(data, weaker)])
        trials.append(mixture)
    return rank(data, trials, panel)


def choose_and_measure(
    data: Data, auto: AutoPlan, panel: Panel, test: Data | None = None
) -> Outcome:
    """Choose and fit; figures before and after are of held-out rows, or of the test data."""
    judged_by = replace(panel, names=LEADERBOARD_METRICS, also=())
    board = compare_plans(data, auto.plans(data), judged_by, stacked=auto.stacked)
    trial = board.chosen.trial
    if auto.by is not None:
        outcome = fit_and_measure(data, replace(trial.plan, by=auto.by), panel, test)
        return replace(outcome, notes=(board.why, *outcome.notes), leaderboard=board)
    final = Through(trial.fit.calibrators)
    unseen = CrossFitted(trial.by_fold, data.split) if test is None else final
    before, after = measure(data if test is None else test, [Through(), unseen], panel)
    return Outcome(
        trial.plan,
        trial.fit,
        sum(standing.trial.seconds for standing in board.standings),
        before,
        after,
        "cross-fit" if test is None else "test",
        data.folds if test is None else 0,
        (board.why, *trial.fit.notes),
        leaderboard=board,
    )
