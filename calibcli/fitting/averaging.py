"""The average of the fits without each fold (Kull et al., NeurIPS 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from calibcli.calibrators.base import Family, SmoothMap
from calibcli.engine.data import Data
from calibcli.errors import UsageError
from calibcli.fitting.fit import fit_map, fit_stages
from calibcli.fitting.solution import Solution
from calibcli.fitting.stages import Fit, StageFit
from calibcli.objectives.base import Objective


def fit_average(data: Data, families: Sequence[Family | None], objective: Objective) -> Fit:
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
    parts = [data.without_fold(number) for number in range(data.folds)]
    fits = [
        fit_map(rows, family, objective, last) for rows in parts if 0 < rows.weight < data.weight
    ]
    return replace(whole, stages=(*whole.stages[:-1], _averaged(last, fits, data.classes)))


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
