"""Between fitted calibrators and the parameter file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.chain import reach_of
from calibcli.calibrators.groups import unfolded
from calibcli.calibrators.registry import MAPS, read_calibrator
from calibcli.errors import ParamsError
from calibcli.options import settings_of
from calibcli.params import Params, Plugin, Stage, read, title
from calibcli.registry import BUILT_IN, Registry
from calibcli.version import __version__

# For annotations alone: what applies a parameter file needs nothing that fits one.
if TYPE_CHECKING:
    from calibcli.fitting.label_shift import LabelShift
    from calibcli.metrics.decisions import Decisions
    from calibcli.metrics.panel import Evaluation
    from calibcli.workflow.choosing import Leaderboard
    from calibcli.workflow.fitting import Outcome
    from calibcli.workflow.plans import Plan
    from calibcli.workflow.pooling import GroupReport


def _registries() -> dict[str, Registry[Any]]:
    """Where the names of plugins' stages are looked up, by the group of their entry points."""
    # What applies a file without plugins needs no loss.
    from calibcli.objectives.registry import OBJECTIVES

    return {each.group: each for each in (MAPS, OBJECTIVES)}


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
    # What could not be read again is not written.
    reach_of(fit.calibrators)
    return Params(
        classes=classes,
        input=kind,
        stages=tuple(Stage(c.kind, c.parameters()) for c in fit.calibrators),
        class_names=class_names,
        fit={
            "method": plan.typed,
            "loss": outcome.loss,
            "preserves": outcome.preserves,
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
            **_only_of_some(outcome),
        },
        metrics=_metrics(outcome) | {"data": tested_on or []},
        data=data or [],
        software={"calibcli": __version__, "numpy": np.__version__, **_plugins_of_plan(plan)},
        plugins=_plugins_of(fit.calibrators),
    )


def _metrics(outcome: Outcome) -> dict[str, Any]:
    """What a fit is worth."""
    return {
        "measured_on": outcome.measured_on,
        "folds": outcome.folds,
        "before": _values(outcome.before),
        "after": _values(outcome.after),
        **({} if outcome.plain is None else {"plain_nll": _values(outcome.plain)}),
    }


def _only_of_some(outcome: Outcome) -> dict[str, Any]:
    """What only some fits have.

    A loss that was tried, where plain nll was kept; what decisions cost; class shares of unlabelled
    rows.
    """
    decisions, shift = outcome.decisions, outcome.shift
    return {
        **({} if outcome.loss == outcome.plan.loss else {"tried": outcome.plan.loss}),
        **({} if decisions is None else {"decision": _decision(decisions[1])}),
        **({} if shift is None else {"class_shares": _shares(shift)}),
    }


def _shares(shift: LabelShift) -> dict[str, Any]:
    """The class shares of unlabelled rows that a fit is corrected for, and how they were told."""
    by_confusion = [each if np.isfinite(each) else None for each in shift.by_confusion.tolist()]
    return {
        "rows": shift.rows,
        "fit": shift.source.tolist(),
        "target": shift.shares.tolist(),
        "low": shift.low.tolist(),
        "high": shift.high.tolist(),
        "by_confusion": by_confusion,
        "used": shift.used.tolist(),
        "drawn": shift.drawn,
        "confidence": {**asdict(shift.confidence), "clear": shift.confidence.clear},
    }


_MOST_COSTS = 100
"""Classes whose costs are kept."""


def _decision(decisions: Decisions) -> dict[str, Any]:
    """What errors cost, and the best threshold of two classes, for `calib apply`."""
    costs, best = decisions.costs, decisions.rule("best")
    return {
        "costs": costs.matrix.tolist() if costs.classes <= _MOST_COSTS else None,
        "positive": costs.positive if costs.classes == 2 else None,
        "threshold": None if best is None else best.threshold,
    }


def to_calibrators(params: Params) -> tuple[Calibrator, ...]:
    """The calibrators that a parameter file describes.

    Raises
    ------
    ParamsError
        A stage of an unknown kind, or with parameters that it can't have or that are too extreme,
        or that needs a plugin which is not installed.
    """
    for plugin in params.plugins:
        _check_plugin(plugin)
    stages = tuple(read_calibrator(s.kind, s.parameters, params.classes) for s in params.stages)
    reach_of(stages)
    return stages


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


def _plugins_of(stages: Sequence[Calibrator]) -> tuple[Plugin, ...]:
    """The plugins that stages need, and those inside of them."""
    registries = _registries()
    entries = dict.fromkeys(stage.entry() for stage in unfolded(stages))
    return tuple(
        Plugin(group, name, origin.distribution, origin.version)
        for group, name in entries
        if (origin := registries[group].origin(name)) != BUILT_IN
    )


def _plugins_of_plan(plan: Plan) -> dict[str, str]:
    """The versions of the distributions whose methods and loss a plan uses, by name."""
    from calibcli.objectives.registry import OBJECTIVES

    origins = [MAPS.origin(family.name) for family in plan.families if family is not None]
    origins.append(OBJECTIVES.origin(plan.loss))
    return {origin.distribution: origin.version for origin in origins if origin != BUILT_IN}


def _check_plugin(plugin: Plugin) -> None:
    """Refuse a plugin that is not installed; names alone are compared, nothing is imported."""
    registry = _registries().get(plugin.group)
    if registry is None:
        raise ParamsError(f"needs a plugin of {plugin.group!r}, which this calib has no stages of")
    needed = f"the {registry.noun} {plugin.name!r} of {plugin.distribution} {plugin.version}"
    if plugin.name not in registry.names:
        raise ParamsError(f"needs {needed}, which is not installed")
    origin = registry.origin(plugin.name)
    if origin.distribution != plugin.distribution:
        raise ParamsError(f"needs {needed}; here that {registry.noun} comes from {origin}")


def _options(plan: Plan) -> dict[str, dict[str, Any]]:
    """Options of the methods and the loss, by name, defaults included."""
    options = {
        family.name: settings_of(family)
        for family in plan.families
        if family and settings_of(family)
    }
    loss_options = plan.objective.options()
    return options | ({plan.loss: loss_options} if loss_options else {})


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
            **({"warning": standing.trial.trouble} if standing.trial.trouble else {}),
        }
        for standing in board.standings
    ]


def _values(evaluation: Evaluation | None) -> dict[str, float | None] | None:
    if evaluation is None:
        return None
    return {
        name: value if np.isfinite(value) else None for name, value in evaluation.values.items()
    }
