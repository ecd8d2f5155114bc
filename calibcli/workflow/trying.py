"""Candidates one after the other: each told of when it is done, and kept if somebody interrupts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from calibcli.engine.data import Data
from calibcli.fitting.stages import Begun
from calibcli.metrics.panel import Panel
from calibcli.workflow.choosing import Leaderboard, held_out_states
from calibcli.workflow.fitted_plans import Trial, seconds_of_fit, try_plan
from calibcli.workflow.measuring import CrossFitted, resampled
from calibcli.workflow.paired_losses import held_out_losses
from calibcli.workflow.plans import Plan
from calibcli.workflow.pooling import try_groups
from calibcli.workflow.racing import is_left_out, may_be_left_out
from calibcli.workflow.texts import duration

_WORTH_WATCHING = 2.0
"""Seconds that all fits together take, as estimated, from which on they are told of."""


@dataclass(frozen=True)
class Tried:
    """A candidate that is done.

    Attributes
    ----------
    trial : Trial
    nll : float
        Held-out loss.
    number, count : int
        Which one it is, from 1 on, and how many there are.
    seconds : float
        That it took, without each fold too.
    seconds_left : float or None
        What the others will about take; None while that is not known.
    """

    trial: Trial
    nll: float
    number: int
    count: int
    seconds: float
    seconds_left: float | None

    def __str__(self) -> str:
        left = self.count - self.number
        rest = f"; {left} to come" if left else ""
        if left and self.seconds_left is not None:
            rest += f", about {duration(self.seconds_left)}"
        return (
            f"{self.number} of {self.count}: {self.trial.name}, held-out NLL {self.nll:.4g}, "
            f"{duration(self.seconds)}{rest}"
        )


Watch: TypeAlias = Callable[[Tried], None]
"""Told of each candidate as soon as it is done, where all together take a while."""


class ComparisonInterrupted(KeyboardInterrupt):
    """An interrupt that came when some candidates were done.

    Attributes
    ----------
    board : Leaderboard
        Of those.
    count : int
        How many there were to be.
    """

    def __init__(self, board: Leaderboard, count: int) -> None:
        super().__init__()
        self.board, self.count = board, count

    def __str__(self) -> str:
        return (
            f"interrupted after {len(self.board.standings)} of {self.count} candidates: the list "
            "is of those alone"
        )


def try_plans(
    data: Data,
    plans: Sequence[Plan],
    panel: Panel,
    watch: Watch | None,
    *,
    raced: bool = False,
) -> Iterator[Trial]:
    """The plans fitted to all rows and without each fold.

    Where a pass over the rows is work for one thread, every thread has a plan at a time. Each is
    judged as soon as it is fitted where somebody watches, or its outputs are kept.

    Parameters
    ----------
    data : Data
    plans : sequence of Plan
    panel : Panel
        What is seen of each on held-out rows.
    watch : callable or None
        Told of each as soon as it is done.
    raced : bool
        Whether those that others may make needless come last, and not at all where they do.
    """
    panel = resampled(panel, data)
    costs = {id(plan): seconds_of_fit(data, plan, data.folds) for plan in plans}
    watched = watch is not None and sum(costs.values()) > _WORTH_WATCHING
    begun = [Begun() for _ in range(data.folds + 1)]
    begin, spent = time.perf_counter(), 0.0
    last = [plan for plan in plans if raced and may_be_left_out(plan)]
    to_come = [plan for plan in plans if plan not in last]
    done: list[Trial] = []
    while to_come:
        attempt = partial(_attempt, data, begun, panel, watched)
        attempts = data.spread(attempt, tuple(to_come))
        for trial, nll, seconds in attempts:
            done.append(trial)
            yield trial
            spent += costs[id(to_come.pop(0))]
            if watch is None or nll is None:
                continue
            rest = [*to_come, *last]
            cost = sum(costs[id(plan)] for plan in rest)
            left = (time.perf_counter() - begin) * cost / spent if spent else None
            watch(Tried(trial, nll, len(done), len(done) + len(rest), seconds, left))
        to_come = [plan for plan in last if not is_left_out(data, plan, done)]
        last = []


def _attempt(
    data: Data, begun: Sequence[Begun], panel: Panel, watched: bool, plan: Plan
) -> tuple[Trial, float | None, float]:
    """A plan as a candidate, its held-out loss where somebody watches, and the seconds it took."""
    begin = time.perf_counter()
    trial = try_plan(data, plan, begun) if plan.by is None else try_groups(data, plan)
    nll = None
    if watched or data.is_one_tile:
        # While it is at hand what the fits without each fold make of the rows.
        (judged,) = held_out_states(data, [trial], panel)
        losses = held_out_losses(data, [CrossFitted.of(trial.by_fold, data)])
        trial, nll = replace(trial, judged=judged), float(losses.mean[0])
    return trial, nll if watched else None, time.perf_counter() - begin
