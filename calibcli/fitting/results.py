"""What a fit gives: the parameters that a solver found, and stages in their order.

Each says how good it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from calibcli.arrays import NumpyArray
from calibcli.calibrators.base import Calibrator, Family, SmoothMap
from calibcli.calibrators.curvature import Preconditioner
from calibcli.objectives.base import Objective

Families: TypeAlias = Sequence[Family | None]
"""What the stages of a fit are to be; None is the stage that changes nothing."""

NOTHING_TO_FIT = ("separable", "worse than chance")
"""Criteria of fits that left everything as it was."""


@dataclass(frozen=True, eq=False)
class FoldSums:
    """Sums by fold of the last pass of a fit with one parameter, a scale.

    Attributes
    ----------
    scale : float
        Where they were taken.
    sums : float64 array (folds, 4)
        Of the losses and of three derivatives by the scale; NaN where one is not known.
    """

    scale: float
    sums: NumpyArray


@dataclass(frozen=True, eq=False)
class Bends:
    """How a problem bends near its minimum, as a quasi-Newton search has found out.

    Attributes
    ----------
    map : SmoothMap
        What was fitted.
    preconditioner : Preconditioner
        About the inverse of the Hessian.
    pairs : tuple of (float64 array (P,), float64 array (P,))
        The last steps, each with the change of the gradient along it.
    """

    map: SmoothMap
    preconditioner: Preconditioner
    pairs: tuple[tuple[NumpyArray, NumpyArray], ...]


@dataclass(frozen=True)
class Solution:
    """Parameters that a solver found, with the certificate of how good they are.

    Attributes
    ----------
    theta : float64 array (P,)
    value : float
        The objective there, penalty included.
    gradient_norm : float
        Largest absolute component of the gradient there.
    converged : bool
    criterion : str
        What ended the search, in words.
    iterations : int
    by_fold : FoldSums or None
        What fits without each fold can be told from, near to the parameters.
    bends : Bends or None
        What fits without each fold can begin with.
    """

    theta: NumpyArray
    value: float
    gradient_norm: float
    converged: bool
    criterion: str
    iterations: int
    by_fold: FoldSums | None = field(default=None, compare=False, repr=False)
    bends: Bends | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class StageFit:
    """One fitted stage, with how it was fitted.

    Attributes
    ----------
    calibrator : Calibrator
    solution : Solution or None
        None where nothing was to be fitted.
    passes : int
        Folds over the data that it took.
    notes : tuple of str
        What a user must know about it.
    objective : Objective or None
        What was minimised, with the state that it ended in.
    family : SmoothMap or None
        What was fitted, with its knots where it has any.
    trace : tuple of dict
        The rounds of an adaptive objective.
    """

    calibrator: Calibrator
    solution: Solution | None = None
    passes: int = 0
    notes: tuple[str, ...] = ()
    objective: Objective | None = None
    family: SmoothMap | None = None
    trace: tuple[dict[str, Any], ...] = ()

    def without_bends(self) -> StageFit:
        """The same stage without `Solution.bends`."""
        if self.solution is None or self.solution.bends is None:
            return self
        return replace(self, solution=replace(self.solution, bends=None))


@dataclass(frozen=True)
class Fit:
    """Fitted stages, to be applied in order."""

    stages: tuple[StageFit, ...]

    @property
    def calibrators(self) -> tuple[Calibrator, ...]:
        """The fitted maps in their order."""
        return tuple(stage.calibrator for stage in self.stages)

    @property
    def changes_nothing(self) -> bool:
        """Whether every probability stays as it was."""
        return all(stage.calibrator.changes_nothing for stage in self.stages)

    @property
    def left_alone(self) -> bool:
        """Whether it changes nothing, since it found nothing to fit."""
        solutions = [stage.solution for stage in self.stages if stage.solution is not None]
        return bool(solutions) and all(each.criterion in NOTHING_TO_FIT for each in solutions)

    @property
    def converged(self) -> bool:
        """Whether every stage converged."""
        return all(stage.solution is None or stage.solution.converged for stage in self.stages)

    @property
    def losses(self) -> set[str]:
        """The names of the losses that its stages minimise."""
        return {stage.objective.name for stage in self.stages if stage.objective is not None}

    @property
    def iterations(self) -> int:
        """Iterations of the solvers, all stages together."""
        return sum(stage.solution.iterations for stage in self.stages if stage.solution)

    @property
    def passes(self) -> int:
        """Folds over the data, all stages together."""
        return sum(stage.passes for stage in self.stages)

    @property
    def gradient_norm(self) -> float:
        """The largest gradient norm of any stage."""
        norms = [stage.solution.gradient_norm for stage in self.stages if stage.solution]
        return max(norms, default=0.0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know, stage after stage."""
        return tuple(note for stage in self.stages for note in stage.notes)

    def without_bends(self) -> Fit:
        """The same fit without what only fits to nearly the same rows need, which is large."""
        return Fit(tuple(stage.without_bends() for stage in self.stages))

    def as_one(self, calibrator: Calibrator) -> Fit:
        """The same fit where its stages became a single calibrator."""
        solved = [stage.solution for stage in self.stages if stage.solution is not None]
        solution = None
        if solved:
            solution = replace(
                solved[-1],
                gradient_norm=self.gradient_norm,
                converged=self.converged,
                criterion=", ".join(dict.fromkeys(each.criterion for each in solved)),
                iterations=self.iterations,
            )
        minimised = [stage.objective for stage in self.stages if stage.objective is not None]
        # One other than nll is what a user asked for; it may have been kept for some stages alone.
        minimised.sort(key=lambda objective: objective.likelihood)
        first = minimised[0] if minimised else None
        return Fit((StageFit(calibrator, solution, self.passes, self.notes, first),))
