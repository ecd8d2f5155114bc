"""Candidates that are not tried, as those with more penalty than they have tell enough.

The loss on held-out rows falls as a penalty falls, until there is too little of it, and rises from
there on. Where it has clearly begun to rise, a candidate with less penalty still has nothing to win
(racing: Maron and Moore, Hoeffding races, NIPS 1993).
"""

from __future__ import annotations

from collections.abc import Sequence

from calibcli.engine.data import Data
from calibcli.workflow.fitted_plans import Trial
from calibcli.workflow.measuring import CrossFitted
from calibcli.workflow.paired_losses import held_out_losses
from calibcli.workflow.plans import Plan, stage_names

_CLEARLY = 2.0
"""Standard errors of the difference."""


def may_be_left_out(plan: Plan) -> bool:
    """Whether a plan has less penalty than usual."""
    return plan.variant.startswith("/")


def is_left_out(data: Data, plan: Plan, trials: Sequence[Trial]) -> bool:
    """Whether the usual penalty of a method is clearly worse than more of it, among some trials.

    More is ten times as much, or all that there may be: the method without its last stage.

    Parameters
    ----------
    data : Data
        With whose held-out rows trials are judged.
    plan : Plan
        For which it `may_be_left_out`.
    trials : sequence of Trial
    """
    tried = {trial.plan.typed: trial for trial in trials}
    without_last = ",".join(stage_names(plan.method)[:-1])
    more = tried.get(f"{plan.method}*10") or tried.get(without_last)
    usual = tried.get(plan.method)
    if usual is None or more is None:
        return False
    losses = held_out_losses(data, [CrossFitted.of(each.by_fold, data) for each in (usual, more)])
    behind = float(losses.mean[0] - losses.mean[1])
    return behind > _CLEARLY * losses.error_of_difference(0, 1)
