"""Fitting calibrators by name: stages one after the other, each with its certificate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from calibcli.calibrators.base import Calibrator, SmoothMap, Vector
from calibcli.calibrators.identity import Identity
from calibcli.errors import UsageError
from calibcli.fitting.lbfgs import solve_lbfgs
from calibcli.fitting.newton import solve_newton
from calibcli.fitting.problem import Data, Problem
from calibcli.fitting.scale import SMALLEST_LOSS, solve_scale
from calibcli.fitting.solution import Solution
from calibcli.objectives.base import Objective

_SAMPLE_ROWS = 5000


class FittingData(Data, Protocol):
    """Data that can also be passed through a calibrator, and thinned for a first guess."""

    def after(self, calibrator: Calibrator) -> FittingData:
        """The same rows with calibrated scores."""

    def sample(self, rows: int) -> FittingData | None:
        """About this many of the rows, or None."""


@dataclass(frozen=True)
class StageFit:
    """One fitted stage.

    Attributes
    ----------
    calibrator : Calibrator
    solution : Solution or None
        None where nothing was to be fitted.
    passes : int
        Folds over the data that it took.
    notes : tuple of str
        What a user must know about it.
    """

    calibrator: Calibrator
    solution: Solution | None = None
    passes: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fit:
    """Fitted stages, to be applied in order."""

    stages: tuple[StageFit, ...]

    @property
    def calibrators(self) -> tuple[Calibrator, ...]:
        """The maps."""
        return tuple(stage.calibrator for stage in self.stages)

    @property
    def converged(self) -> bool:
        """Whether every stage did."""
        return all(stage.solution is None or stage.solution.converged for stage in self.stages)

    @property
    def iterations(self) -> int:
        """Of all stages."""
        return sum(stage.solution.iterations for stage in self.stages if stage.solution)

    @property
    def passes(self) -> int:
        """Of all stages."""
        return sum(stage.passes for stage in self.stages)

    @property
    def gradient_norm(self) -> float:
        """The largest of all stages."""
        norms = [stage.solution.gradient_norm for stage in self.stages if stage.solution]
        return max(norms, default=0.0)

    @property
    def notes(self) -> tuple[str, ...]:
        """Of all stages."""
        return tuple(note for stage in self.stages for note in stage.notes)


def fit_stages(
    data: FittingData,
    families: Sequence[SmoothMap | None],
    objective: Objective,
    start: Fit | None = None,
) -> Fit:
    """Fit stages in order, each on what the ones before it give.

    Parameters
    ----------
    data : FittingData
    families : sequence of SmoothMap or None
        None is the stage that changes nothing.
    objective : Objective
    start : Fit, optional
        A fit of the same stages to similar data, to start from.

    Raises
    ------
    UsageError
        A family that does not suit the number of classes.
    """
    stages: list[StageFit] = []
    for position, family in enumerate(families):
        if stages:
            data = data.after(stages[-1].calibrator)
        if family is None:
            stages.append(StageFit(Identity()))
            continue
        if family.binary_only and data.classes != 2:
            raise UsageError(
                f"method {family.name} is for two classes; the data has {data.classes}"
            )
        earlier = None if start is None else start.stages[position].solution
        stages.append(fit_map(data, family, objective, earlier))
    return Fit(tuple(stages))


def fit_map(
    data: FittingData, family: SmoothMap, objective: Objective, earlier: Solution | None = None
) -> StageFit:
    """Fit one family of smooth maps, starting from an earlier solution where there is one."""
    if family.normalises:
        data = data.after(Identity())
    if family.size(data.classes) == 1:
        return _fit_scale(data, family, objective, earlier)
    scale_fit = _fit_scale(data, _scale_family(), objective, None)
    assert scale_fit.solution is not None
    scale = float(scale_fit.solution.theta[0])
    problem = Problem(data, family, objective, family.anchor(data.classes, scale))
    theta = family.start(data.classes, scale) if earlier is None else earlier.theta
    solve = solve_newton if family.linear and objective.convex else solve_lbfgs
    solution = solve(problem, theta)
    notes = _absent_note(family, data.class_weights)
    if scale_fit.solution.criterion == "separable" or solution.value <= SMALLEST_LOSS:
        notes = (*notes, f"{family.name}: the rows can be separated; its parameters mean little")
    return StageFit(
        family.calibrator(solution.theta, data.classes),
        solution,
        problem.passes + scale_fit.passes,
        notes,
    )


def _scale_family() -> SmoothMap:
    from calibcli.calibrators.temperature import TemperatureMap

    return TemperatureMap()


def _fit_scale(
    data: FittingData, family: SmoothMap, objective: Objective, earlier: Solution | None
) -> StageFit:
    scale = 1.0 if earlier is None else float(earlier.theta[0])
    thin = data.sample(_SAMPLE_ROWS) if earlier is None else None
    passes = 0.0
    if thin is not None:
        guess = Problem(thin, family, objective, np.ones(1))
        rough = solve_scale(guess, scale, tolerance=1e-3)
        passes = guess.passes * _SAMPLE_ROWS / data.weight
        scale = float(rough.theta[0]) if rough.converged else 1.0
    problem = Problem(data, family, objective, np.ones(1))
    solution = solve_scale(problem, scale)
    total = problem.passes + math.ceil(passes)
    if solution.criterion != "unbounded":
        return StageFit(family.calibrator(solution.theta, data.classes), solution, total)
    note, criterion = _why_unbounded(float(solution.theta[0]))
    plain = Solution(
        np.ones(1), solution.value, solution.gradient_norm, False, criterion, solution.iterations
    )
    return StageFit(family.calibrator(plain.theta, data.classes), plain, total, (note,))


def _why_unbounded(scale: float) -> tuple[str, str]:
    if scale > 1:
        note = (
            "every row is classified right (or nearly so): no temperature is too low for these "
            "rows, so none can be fitted; left at 1"
        )
        return note, "separable"
    note = (
        "the scores tell nothing about the labels, or the opposite: no temperature is too high "
        "for these rows, so none can be fitted; left at 1. Are scores and labels aligned?"
    )
    return note, "worse than chance"


def _absent_note(family: SmoothMap, class_weights: Vector) -> tuple[str, ...]:
    absent = class_weights <= 0
    if not family.frozen(absent).any():
        return ()
    return (f"{family.name}: classes without rows keep the common temperature and no bias",)
