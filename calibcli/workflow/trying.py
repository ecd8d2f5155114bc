"""Candidates one after the other: each told of when it is done, and kept if somebody interrupts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from calibcli.engine.data import Data
from calibcli.fitting.stages import Begun
from calibcli.workflow.choosing import Leaderboard, held_out_losses
from calibcli.workflow.fitted_plans import Trial, seconds_of_fit, try_plan
from calibcli.workflow.measuring import CrossFitted
from calibcli.workflow.plans import Plan
from calibcli.workflow.pooling import try_groups
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


def try_plans(data: Data, plans: Sequence[Plan], watch: Watch | None) -> Iterator[Trial]:
    """The plans fitted to all rows and without each fold, in their order.

    Where a pass over the rows is work for one thread, every thread has a plan at a time.
    """
    costs = [seconds_of_fit(data, plan, data.folds) for plan in plans]
    watched = watch is not None and sum(costs) > _WORTH_WATCHING
    begun = [Begun() for _ in range(data.folds + 1)]
    begin = time.perf_counter()
    attempts = data.spread(partial(_attempt, data, begun, watched), plans)
    for number, (trial, nll, seconds) in enumerate(attempts, 1):
        yield trial
        if watch is None or nll is None:
            continue
        done = sum(costs[:number])
        left = (time.perf_counter() - begin) * sum(costs[number:]) / done if done else None
        watch(Tried(trial, nll, number, len(plans), seconds, left))


def _attempt(
    data: Data, begun: Sequence[Begun], watched: bool, plan: Plan
) -> tuple[Trial, float | None, float]:
    """A plan as a candidate, its held-out loss where somebody watches, and the seconds it took."""
    begin = time.perf_counter()
    trial = try_plan(data, plan, begun) if plan.by is None else try_groups(data, plan)
    nll = None
    if watched or data.is_one_tile:
        # What the fits without each fold make of the rows is kept for those who judge all trials.
        losses = held_out_losses(data, [CrossFitted.of(trial.by_fold, data)])
        nll = float(losses.mean[0])
    return trial, nll if watched else None, time.perf_counter() - begin
