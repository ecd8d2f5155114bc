"""The same fit once without each fold of the rows: to judge it (cross-fitting), or to average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.calibrators.base import SmoothMap
from calibcli.engine.data import Data
from calibcli.engine.in_step import in_step
from calibcli.errors import UsageError
from calibcli.fitting.problem import Problem
from calibcli.fitting.results import Families, Fit, Solution, StageFit
from calibcli.fitting.scale import scale_step
from calibcli.fitting.stages import Begun, fit_map, fit_stages
from calibcli.objectives.base import Objective

_SHORT_STEP = 0.01
"""In log T. Newton's error after a step is about its square, far below what any figure shows."""

_SHORT_BENT_STEP = 0.04
"""The same of Halley's method, whose error is about the cube."""


def cross_fit(
    data: Data,
    families: Families,
    objective: Objective,
    whole: Fit,
    begun: Sequence[Begun] | None = None,
) -> list[Fit]:
    """The fit without each fold, starting from the fit of the whole data.

    One temperature alone takes no pass of its own: sums by fold near the optimum of the whole, from
    the last pass of its fit, give each fold's step, so short that it is exact for every purpose.
    Fits of other families to the same rows share what they have ``begun`` with, one for each fold.
    """
    starts = [whole] * data.folds
    exact = [False] * data.folds
    if len(families) == 1 and whole.converged:
        (family,) = families
        plain = not (objective.adaptive or objective.estimating)
        if plain and isinstance(family, SmoothMap) and family.size(data.classes) == 1:
            starts, exact = _scale_steps(data, family, objective, whole)
    begun = begun or [Begun() for _ in starts]

    def fit_without(fold: int, rows: Data) -> Fit:
        outside = begun[fold].rows_after("outside", partial(_outside, rows, fold))
        return fit_stages(outside, families, objective, starts[fold], begun[fold])

    left = [fold for fold, done in enumerate(exact) if not done]
    fits = dict(
        zip(left, in_step(data, [partial(fit_without, each) for each in left]), strict=True)
    )
    return [fits.get(fold, start) for fold, start in enumerate(starts)]


def fit_average(data: Data, families: Families, objective: Objective) -> Fit:
    """A fit whose last stage is the average of the fits without each fold.

    The stages before it are fitted to all rows and shared, so that for maps that are linear in
    their parameters the average of the parameters is the average of the maps before they are
    normalised.

    Raises
    ------
    UsageError
        Fewer than two folds, or a last stage that is not linear in its parameters.
    """
    whole = fit_stages(data, families, objective)
    last = whole.stages[-1]
    family = families[-1]
    if not (isinstance(family, SmoothMap) and family.linear):
        name = "none" if family is None else family.name
        raise UsageError(f"fits can be averaged for maps linear in their parameters; {name} is not")
    if data.folds < 2:
        raise UsageError("fits are averaged over folds, of which two or more are needed")
    if last.solution is None or not last.solution.converged:
        return whole
    for stage in whole.stages[:-1]:
        data = data.after(stage.calibrator)
    parts = (data.without_fold(number) for number in range(data.folds))
    inside = [number for number, rows in enumerate(parts) if 0 < rows.weight < data.weight]

    def fit_without(fold: int, rows: Data) -> StageFit:
        return fit_map(rows.without_fold(fold), family, objective, last)

    fits = in_step(data, [partial(fit_without, fold) for fold in inside])
    return replace(whole, stages=(*whole.stages[:-1], _averaged(last, fits, data.classes)))


def class_factors(data: Data, fold: int) -> tuple[NumpyArray | None, NumpyArray | None]:
    """Factors (K,) of the classes in a fold and outside it, where rows were drawn by class.

    A class that the rows outside have too few of has too many inside then, so that every bias which
    is learnt outside is wrong inside, though right for all. Factors give both the shares of all.
    """
    total = data.class_weights
    if not _is_even(total):
        return None, None
    outside = data.without_fold(fold).class_weights
    inside = total - outside
    parts = ((inside, 1 / data.folds), (outside, 1 - 1 / data.folds))
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = [np.where(part > 0, share * total / part, 1.0) for part, share in parts]
    return factors[0], factors[1]


def _outside(data: Data, fold: int) -> Data:
    """The rows that are not in a fold, with the class shares of all where these are not chance."""
    factors = class_factors(data, fold)[1]
    outside = data.without_fold(fold).by_themselves()
    return outside if factors is None else outside.reweighted(factors)


def _scale_steps(
    data: Data, family: SmoothMap, objective: Objective, whole: Fit
) -> tuple[list[Fit], list[bool]]:
    solution = whole.stages[0].solution
    assert solution is not None
    known, passes = solution.by_fold, 0
    problem = Problem(data, family, objective, np.ones(1))
    if known is None or len(known.sums) != data.folds:
        problem.line(solution.theta)
        known, passes = problem.by_fold, 1
        assert known is not None
    fits, exact = [], []
    for fold, inside in enumerate(known.sums):
        outside = known.sums.sum(axis=0) - inside
        weight = max(data.without_fold(fold).weight, 1e-300)
        line = problem.line_of(known.scale, outside, weight)
        step = scale_step(known.scale, line)
        longest = _SHORT_STEP if line.third is None else _SHORT_BENT_STEP
        short = step is not None and abs(step) <= longest
        theta = solution.theta
        if step is not None:
            theta = np.array([known.scale * math.exp(-step)])
        stepped = Solution(theta, line.value, math.nan, short, "one step", 1)
        fits.append(Fit((StageFit(family.calibrator(theta, data.classes), stepped, passes),)))
        exact.append(short)
    return fits, exact


def _is_even(class_weights: NumpyArray) -> bool:
    """Whether classes are more even than one sample of independent rows in a thousand.

    By the chi-squared statistic and its quantile (Wilson and Hilferty, PNAS 1931).
    """
    freedom = len(class_weights) - 1
    mean = class_weights.mean()
    statistic = float(((class_weights - mean) ** 2).sum() / mean)
    spread = 2 / (9 * freedom)
    return statistic < freedom * max(1 - spread - 3.09 * math.sqrt(spread), 0.0) ** 3


def _averaged(whole: StageFit, fits: list[StageFit], classes: int) -> StageFit:
    solutions = [fit.solution for fit in fits if fit.solution is not None]
    if not solutions or whole.family is None:
        return whole
    theta = np.mean([solution.theta for solution in solutions], axis=0)
    return replace(
        whole,
        calibrator=whole.family.calibrator(theta, classes),
        solution=Solution(
            theta,
            float(np.mean([solution.value for solution in solutions])),
            max(solution.gradient_norm for solution in solutions),
            all(solution.converged for solution in solutions),
            f"average of {len(solutions)} fits",
            sum(solution.iterations for solution in solutions),
        ),
        passes=whole.passes + sum(fit.passes for fit in fits),
    )
