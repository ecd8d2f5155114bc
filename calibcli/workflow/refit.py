"""Calibration and refinement: what of a score a cross-fitted recalibration takes away.

A score S(p) is the calibration error S(p) - S(g(p)) and the refinement S(g(p)), where g is a map
that was fitted to other rows. It is a lower bound of the error of the whole vector, since no family
has every map.

References
----------
Berta, Holzmüller, Jordan and Bach (2025), Rethinking early stopping: refine, then calibrate,
arXiv:2501.19195.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calibcli.calibrators.base import Calibrator
from calibcli.engine.data import Data
from calibcli.metrics.panel import Panel
from calibcli.metrics.resampling import Bootstrap, Interval
from calibcli.workflow.fitting import fit_and_measure
from calibcli.workflow.plans import make_plan

_SCORES = ("nll", "brier")


@dataclass(frozen=True)
class ScoreParts:
    """One score in its parts.

    Attributes
    ----------
    score, calibration, refinement : float
        The score is the sum of the others.
    interval : Interval or None
        95 %, of the calibration error.
    """

    score: float
    calibration: float
    refinement: float
    interval: Interval | None


@dataclass(frozen=True)
class Refit:
    """Scores in their parts.

    Attributes
    ----------
    method : str
    folds : int
    parts : dict of str to ScoreParts
        By score.
    """

    method: str
    folds: int
    parts: dict[str, ScoreParts]


def refit(
    data: Data, method: str, bootstrap: Bootstrap | None, stages: Sequence[Calibrator] = ()
) -> Refit:
    """The parts of NLL and Brier score, by a recalibration that is cross-fitted.

    Parameters
    ----------
    data : Data
        With folds.
    method : str
        As ``calib fit -m`` takes it.
    bootstrap : Bootstrap or None
    stages : sequence of Calibrator
        What the rows are run through first.
    """
    plan = make_plan(method, "nll", ())
    passed = data.after(*stages) if stages else data
    outcome = fit_and_measure(passed, plan, Panel(_SCORES, bootstrap=bootstrap), advised=False)
    assert outcome.before is not None
    assert outcome.after is not None
    parts = {}
    for name in _SCORES:
        score, left = outcome.before.values[name], outcome.after.values[name]
        change = outcome.after.changes.get(name)
        interval = Interval(-change.high, -change.low) if change else None
        parts[name] = ScoreParts(score, score - left, left, interval)
    return Refit(outcome.plan.method, outcome.folds, parts)
