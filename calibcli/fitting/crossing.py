"""Cross-fitting: the same fit once without each fold of the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from calibcli.calibrators.base import Calibrator, Family, SmoothMap
from calibcli.calibrators.identity import Identity
from calibcli.fitting.fit import Fit, FittingData, StageFit, fit_stages
from calibcli.fitting.problem import Grouping, Problem
from calibcli.fitting.scale import newton_step
from calibcli.fitting.solution import Solution
from calibcli.objectives.base import Objective

_SHORT_STEP = 0.01
"""In log T. Newton's error after a step is about its square, far below what any figure shows."""


class FoldedData(FittingData, Protocol):
    """Data whose rows are assigned to folds."""

    @property
    def folds(self) -> int: ...

    @property
    def fold_of_rows(self) -> Grouping:
        """The fold of each row."""

    def without_fold(self, held_out: int) -> FoldedData:
        """The same rows, those of one fold not counting."""

    def after(self, *calibrators: Calibrator) -> FoldedData:
        """The same rows with calibrated scores."""


def cross_fit(
    data: FoldedData, families: Sequence[Family | None], objective: Objective, whole: Fit
) -> list[Fit]:
    """The fit without each fold, starting from the fit of the whole data.

    One temperature alone takes a single pass for all folds: sums by fold at the optimum of the
    whole give each fold's Newton step, which is so short that it is exact for every purpose.
    """
    starts = [whole] * data.folds
    exact = [False] * data.folds
    if len(families) == 1 and whole.converged:
        (family,) = families
        plain = not (objective.adaptive or objective.estimating)
        if plain and isinstance(family, SmoothMap) and family.size(data.classes) == 1:
            starts, exact = _scale_steps(data, family, objective, whole)
    return [
        start if done else _fit_without(data.without_fold(fold), families, objective, start)
        for fold, (start, done) in enumerate(zip(starts, exact, strict=True))
    ]


def _fit_without(
    data: FoldedData, families: Sequence[Family | None], objective: Objective, start: Fit
) -> Fit:
    if data.weight <= 0:
        return Fit(tuple(StageFit(Identity()) for _ in families))
    return fit_stages(data, families, objective, start=start)


def _scale_steps(
    data: FoldedData, family: SmoothMap, objective: Objective, whole: Fit
) -> tuple[list[Fit], list[bool]]:
    solution = whole.stages[0].solution
    assert solution is not None
    scale = float(solution.theta[0])
    problem = Problem(data, family, objective, np.ones(1))
    sums = problem.lines(solution.theta, data.folds, data.fold_of_rows)
    fits, exact = [], []
    for fold, own in enumerate(sums):
        value, first, second = sums.sum(axis=0) - own
        step = newton_step(scale, first, second)
        short = step is not None and abs(step) <= _SHORT_STEP
        theta = solution.theta if step is None else np.array([scale * math.exp(-step)])
        weight = data.without_fold(fold).weight
        stepped = Solution(theta, value / max(weight, 1e-300), math.nan, short, "one step", 1)
        fits.append(Fit((StageFit(family.calibrator(theta, data.classes), stepped, 1),)))
        exact.append(short)
    return fits, exact
