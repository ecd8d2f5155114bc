"""Plans that are chosen once the data is known, by held-out loss: ``auto``, and the default."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.engine.data import Data
from calibcli.engine.machine import one_blas_thread
from calibcli.errors import CalibError, UsageError
from calibcli.metrics.panel import Panel
from calibcli.metrics.registry import LEADERBOARD_METRICS
from calibcli.workflow.candidates import candidates, cheap_candidates
from calibcli.workflow.choosing import Leaderboard, Preference, rank
from calibcli.workflow.fit_rows import TargetPrior, prior_factors
from calibcli.workflow.fitted_plans import Trial, fit_plan, seconds_of_fit
from calibcli.workflow.flooring import with_floors
from calibcli.workflow.measuring import Predictor, check_clusters
from calibcli.workflow.paired_losses import held_out_losses
from calibcli.workflow.plans import Plan, ReducedTo, make_plan, make_plans, split_strength
from calibcli.workflow.soundness import PLAIN, with_warnings
from calibcli.workflow.stacking import stack
from calibcli.workflow.trying import ComparisonInterrupted, Watch, try_plans

AUTO = "auto"
USUAL = "temperature"
"""The default method; of two classes it is one of a few candidates."""


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
    prior, tune, average_folds, by, pooled, reduce
        As in `Plan`.
    usual : Plan or None
        What is fitted where the default has nothing to choose from; None: the choice is among all
        that suit the data, not only among cheap ones.
    prefer : str
        By what it is chosen (`choosing.rank`).
    """

    loss: str = "nll"
    settings: tuple[str, ...] = ()
    stacked: bool = False
    link: bool = True
    prior: TargetPrior | None = None
    tune: bool = False
    average_folds: bool = False
    by: str | None = None
    pooled: bool = True
    reduce: ReducedTo | None = None
    usual: Plan | None = None
    prefer: Preference = "accurate"
    method: str = AUTO

    def chooses(self, classes: int) -> bool:
        """Whether there is more than one candidate for so many classes."""
        return self.usual is None or (classes == 2 and self.reduce is None)

    def plans(self, data: Data) -> list[Plan]:
        """The candidates for some data, from the simplest.

        Raises
        ------
        UsageError
            An unknown loss, or a setting of nothing that is a candidate.
        """
        classes = data.classes if self.reduce is None else 2
        methods = candidates(classes, data.weight)
        if self.usual is not None:
            present = int((data.class_weights > 0).sum())
            if not self.chooses(data.classes) or present < 2:
                return [self.usual]
            methods = cheap_candidates(classes, data.weight)
        if self.tune:
            # Their penalties are chosen then.
            methods = [method for method in methods if not split_strength(method)[1]]
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


AnyPlan: TypeAlias = Plan | AutoPlan
"""What is to be fitted, or to be chosen among."""


def make_any_plan(
    method: str | None,
    loss: str = "nll",
    settings: Iterable[str] = (),
    *,
    by: str | None = None,
    pooled: bool = True,
    reduce: ReducedTo | None = None,
    stacked: bool = False,
    prefer: Preference = "accurate",
    **options: Any,
) -> AnyPlan:
    """The plan of a method, of `auto`, or of the default, which is None.

    The other ``options`` are those of `make_plan`.

    Raises
    ------
    UsageError
        As `make_plan`; also what only makes sense with `auto`, or not with it.
    """
    options |= {"by": by, "pooled": pooled, "reduce": reduce}
    if method != AUTO:
        if stacked:
            raise UsageError("--stack mixes the candidates of auto; use it with -m auto")
        plan = make_plan(USUAL if method is None else method, loss, settings, **options)
        if method is not None:
            return plan
        options.pop("allow_zero", None)
        settings = tuple(settings)
        return AutoPlan(loss, settings, usual=plan, prefer=prefer, method=USUAL, **options)
    if options.pop("allow_zero", False):
        raise UsageError("--allow-zero: auto never takes a probability of exactly 0 or 1")
    if stacked and by is not None:
        raise UsageError("--stack: a stack has no maps for groups; leave out --stack or --by")
    return AutoPlan(loss, tuple(settings), stacked, prefer=prefer, **options)


def _can_be_tuned(plan: Plan) -> bool:
    return any(family is not None and family.tunable for family in plan.families)


@one_blas_thread()
def compare_plans(
    data: Data,
    plans: Iterable[Plan],
    panel: Panel,
    *,
    stacked: bool = False,
    floored: bool = False,
    raced: bool = False,
    prefer: Preference = "accurate",
    watch: Watch | None = None,
) -> Leaderboard:
    """A leaderboard of plans, with a stack of them as one more.

    Each is as it is, or is ``floored`` where held-out rows ask for that (`with_floors`). All are
    tried, or they are ``raced`` and those that others tell enough of are not (`racing`).

    Parameters
    ----------
    watch : callable, optional
        Told of each plan as soon as it is done.

    Raises
    ------
    UsageError
        Too few folds to hold rows out, or a stack of maps of groups.
    ComparisonInterrupted
        An interrupt came when some of the plans were done.
    """
    check_clusters(data)
    if data.folds < 2:
        raise UsageError("comparing methods needs at least 2 folds")
    data, plans = data.keeping_outputs(), list(plans)
    if stacked and any(plan.by is not None for plan in plans):
        raise UsageError("--stack mixes maps of all rows, and --multi-label has one for each label")
    done: list[Trial] = []
    try:
        for trial in try_plans(data, plans, panel, watch, raced=raced):
            done += [trial]  # each as it comes: an interrupt must not lose it
        places = {plan.typed: place for place, plan in reversed(list(enumerate(plans)))}
        done.sort(key=lambda trial: places[trial.plan.typed])
        trials = with_floors(data, done) if floored else done
        trials = with_warnings(data, trials)
        members = [trial for trial in trials if not trial.warning]
        mixture = stack(data, members) if stacked and members else None
    except KeyboardInterrupt:
        if not done:
            raise
        board = rank(data, with_warnings(data, done), panel, prefer)
        raise ComparisonInterrupted(board, len(plans)) from None
    if mixture is not None:
        plain = [trial for trial in trials if trial.name in PLAIN]
        trials.append(with_warnings(data, [*plain, mixture])[-1])
    board = rank(data, trials, panel, prefer)
    tried = {trial.plan.typed for trial in done}
    left_out = ", ".join(plan.title for plan in plans if plan.typed not in tried)
    why = board.why
    if left_out:
        why += f"; not tried, as they do worse with less penalty: {left_out}"
    if stacked and mixture is None:
        why += "; no stack: one method alone has weight in it"
    return replace(board, why=why)


def choose(
    data: Data,
    auto: AnyPlan,
    plans: Sequence[Plan],
    panel: Panel,
    watch: Watch | None = None,
) -> Leaderboard:
    """The candidates side by side, judged for the class shares that the fit is for.

    Parameters
    ----------
    data : Data
    auto : Plan or AutoPlan
    plans : sequence of Plan
        Its candidates.
    panel : Panel
        Whose intervals and event the figures of the candidates have.
    watch : callable, optional
        Told of each candidate as soon as it is done.
    """
    judged_by = replace(panel, names=LEADERBOARD_METRICS, also=())
    if auto.by is not None and not auto.pooled:
        plans = [replace(plan, by=auto.by, pooled=False) for plan in plans]
    shares = auto.prior or ("balanced" if plans[0].objective.sets_prior else None)
    judged = data if shares is None else data.reweighted(prior_factors(shares, data.class_weights))
    # Only what is chosen among all methods may become another one than its name says.
    floored = auto.method == AUTO and all(
        plan.objective.likelihood and plan.by is None and plan.reduce is None for plan in plans
    )
    return compare_plans(
        judged,
        plans,
        judged_by,
        stacked=auto.stacked,
        floored=floored,
        raced=floored,
        prefer=auto.prefer,
        watch=watch,
    )


_CLEARLY = 3.0
"""Standard errors by which another method is ahead that is worth a note."""

_WORTH_SAYING = 0.01
"""So much of the NLL, too."""

_MOST_SECONDS = 2.0
"""The time that fits may take for that note, on one core of a common machine."""


def entropy_of_shares(class_weights: NumpyArray) -> float:
    """The NLL, in nats, of knowing nothing but the shares of the classes; their weights (K,)."""
    shares = class_weights[class_weights > 0] / class_weights.sum()
    return float(-(shares * np.log(shares)).sum())


def better_method(
    data: Data,
    plan: Plan,
    predictor: Predictor,
    test: Data | None = None,
    *,
    ahead_of_none: bool = False,
) -> tuple[str, ...]:
    """A note on a cheap method that is clearly better on held-out rows, if there is one.

    And better than knowing nothing but the shares of the classes.

    Parameters
    ----------
    data : Data
        Of the fit.
    plan : Plan
        That was fitted.
    predictor : callable
        What it makes of rows that it has not seen.
    test : Data or None
        Rows to judge by; None: those of the fit, fold by fold.
    ahead_of_none : bool
        Whether it is known to have no more loss in all than the scores as they are.
    """
    folds = data.folds if test is None else 0
    cheap = cheap_candidates(data.classes, data.weight)
    others = [other for other in map(make_plan, cheap) if other.method != plan.method]
    if sum(seconds_of_fit(data, other, folds) for other in others) > _MOST_SECONDS:
        others = [other for other in others if not any(other.families)]
    if ahead_of_none:
        others = [other for other in others if any(other.families)]
    if not others:
        return ()
    try:
        rivals = [fit_plan(other.rows_of(data), other).unseen(test) for other in others]
    except CalibError:
        return ()
    losses = held_out_losses(data if test is None else test, [predictor, *rivals])
    best = int(np.nanargmin(losses.mean))
    # A method that only learns how frequent the classes are is none to recommend.
    if not losses.mean[best] < entropy_of_shares((test or data).class_weights):
        return ()
    ahead = float(losses.mean[0] - losses.mean[best])
    # An infinite loss, of a label that was given probability 0, has no standard error.
    noise = losses.error_of_difference(0, best) if np.isfinite(ahead) else 0.0
    if not ahead > max(_CLEARLY * noise, _WORTH_SAYING * losses.mean[best]):
        return ()
    title = others[best - 1].title
    note = (
        f"another cheap method is clearly better on held-out rows: {title}: "
        f"NLL {losses.mean[best]:.4g}, yours {losses.mean[0]:.4g} (-m {title})"
    )
    return (note,)
