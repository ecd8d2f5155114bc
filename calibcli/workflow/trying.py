"""Candidates one after the other: each told of when it is done, and kept if somebody interrupts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
    """The plans fitted to all rows and without each fold, in their order."""
    costs = [seconds_of_fit(data, plan, data.folds) for plan in plans]
    watched = watch is not None and sum(costs) > _WORTH_WATCHING
    begun = [Begun() for _ in range(data.folds + 1)]
    begin = time.perf_counter()
    for index, plan in enumerate(plans):
        before = time.perf_counter()
        trial = try_plan(data, plan, begun) if plan.by is None else try_groups(data, plan)
        yield trial
        if watch is None or not watched:
            continue
        losses = held_out_losses(data, [CrossFitted(trial.by_fold, data.split)])
        now, done = time.perf_counter(), sum(costs[: index + 1])
        left = (now - begin) * sum(costs[index + 1 :]) / done if done else None
        nll = float(losses.mean[0])
        watch(Tried(trial, nll, index + 1, len(plans), now - before, left))
