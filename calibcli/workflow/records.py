"""Between fitted calibrators and the parameter file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.registry import read_calibrator
from calibcli.errors import ParamsError
from calibcli.options import settings_of
from calibcli.params import Params, Stage, read, title
from calibcli.version import __version__

# For annotations alone: what applies a parameter file needs nothing that fits one.
if TYPE_CHECKING:
    from calibcli.metrics.panel import Evaluation
    from calibcli.workflow.choosing import Leaderboard
    from calibcli.workflow.fitting import Outcome
    from calibcli.workflow.groups import GroupReport
    from calibcli.workflow.plans import Plan


def to_params(
    outcome: Outcome,
    *,
    classes: int,
    kind: str,
    rows: int,
    seed: int,
    class_names: tuple[str, ...] | None = None,
    data: list[dict[str, Any]] | None = None,
    tested_on: list[dict[str, Any]] | None = None,
) -> Params:
    """The parameter file's content for a fit; nothing in it depends on the clock or the machine."""
    fit, plan = outcome.fit, outcome.plan
    return Params(
        classes=classes,
        input=kind,
        stages=tuple(Stage(c.kind, c.parameters()) for c in fit.calibrators),
        class_names=class_names,
        fit={
            "method": plan.method,
            "loss": plan.loss,
            "options": _options(plan),
            "link": plan.link is not None,
            "target_prior": list(plan.prior) if isinstance(plan.prior, tuple) else plan.prior,
            "rows": rows,
            "seed": seed,
            "converged": fit.converged,
            "criterion": [s.solution.criterion if s.solution else "none" for s in fit.stages],
            "gradient_norm": fit.gradient_norm,
            "iterations": fit.iterations,
            "passes": fit.passes,
            "notes": list(outcome.notes),
            "leaderboard": _leaderboard(outcome.leaderboard),
            "reduce": plan.reduce,
            "by": None if outcome.groups is None else _pooling(outcome.groups),
        },
        metrics={
            "measured_on": outcome.measured_on,
            "folds": outcome.folds,
            "before": _values(outcome.before),
            "after": _values(outcome.after),
            "data": tested_on or [],
        },
        data=data or [],
        software={"calibcli": __version__, "numpy": np.__version__},
    )


def to_calibrators(params: Params) -> tuple[Calibrator, ...]:
    """The calibrators that a parameter file describes.

    Raises
    ------
    ParamsError
        A stage of an unknown kind, or with parameters that it can't have.
    """
    return tuple(read_calibrator(s.kind, s.parameters, params.classes) for s in params.stages)


def read_calibrators(path: str | Path) -> tuple[Params, tuple[Calibrator, ...]]:
    """The content of a parameter file, and the calibrators in it.

    Raises
    ------
    ParamsError
        See `calibcli.params.read` and `to_calibrators`.
    """
    params = read(path)
    try:
        return params, to_calibrators(params)
    except ParamsError as error:
        raise ParamsError(f"{title(path)}: {error}") from None


def _options(plan: Plan) -> dict[str, dict[str, Any]]:
    """Of the methods and the loss, by name, defaults included."""
    options = {
        family.name: settings_of(family)
        for family in plan.families
        if family and settings_of(family)
    }
    own = plan.objective.options()
    return options | ({plan.loss: own} if own else {})


def _pooling(groups: GroupReport) -> dict[str, Any]:
    """How far groups are pooled, and the held-out NLL by which that was chosen."""
    losses = [{"strength": strength, "nll": nll} for strength, nll in groups.losses.items()]
    return {"column": groups.column, "strength": groups.strength, "held_out": losses}


def _leaderboard(board: Leaderboard | None) -> list[dict[str, Any]] | None:
    """What a method was chosen from: held-out figures, without times, which vary."""
    if board is None:
        return None
    return [
        {
            "method": standing.trial.name,
            "chosen": standing is board.chosen,
            "parameters": standing.trial.parameters,
            "behind": standing.behind,
            "standard_error": standing.behind_error,
            "metrics": _values(standing.evaluation),
        }
        for standing in board.standings
    ]


def _values(evaluation: Evaluation | None) -> dict[str, float | None] | None:
    if evaluation is None:
        return None
    return {
        name: value if np.isfinite(value) else None for name, value in evaluation.values.items()
    }
