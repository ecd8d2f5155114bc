"""Probabilities that can be believed, from stored logits.

The command line is `calib`; for notebooks and services there are `fit`, `load`,
`evaluate`, `verdict_of`, `differences`, `evaluate_decisions`, `compare` and `load_history`.

>>> import calibcli
>>> logits = [[4.0, 0.0], [0.0, 4.0], [4.0, 0.0], [0.0, 4.0]]
>>> calibrator = calibcli.fit(logits, [0, 1, 1, 1], method="temperature", folds=2)
>>> calibrator.predict_proba([[4.0, 0.0]]).round(3)
array([[0.75, 0.25]])
>>> round(calibcli.evaluate(calibrator.predict_proba(logits), [0, 1, 1, 1]).values["accuracy"], 2)
0.75
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from calibcli.version import __version__

if TYPE_CHECKING:
    from calibcli.api.calibrating import compare, fit
    from calibcli.api.evaluating import differences, evaluate, evaluate_decisions, verdict_of
    from calibcli.api.fitted import FittedCalibrator, load
    from calibcli.api.run_files import load_history
    from calibcli.errors import (
        CalibError,
        DataError,
        GateError,
        NotConvergedError,
        ParamsError,
        RunsError,
        UsageError,
    )
    from calibcli.metrics.decisions import Decisions
    from calibcli.metrics.paired_changes import Difference
    from calibcli.metrics.panel import Evaluation
    from calibcli.params import Params
    from calibcli.workflow.choosing import Leaderboard
    from calibcli.workflow.fitting import Outcome
    from calibcli.workflow.runs import History

_HOMES = {
    "calibcli.api.calibrating": ("compare", "fit"),
    "calibcli.api.evaluating": ("differences", "evaluate", "evaluate_decisions", "verdict_of"),
    "calibcli.api.fitted": ("FittedCalibrator", "load"),
    "calibcli.api.run_files": ("load_history",),
    "calibcli.metrics.decisions": ("Decisions",),
    "calibcli.errors": (
        *("CalibError", "DataError", "GateError", "NotConvergedError", "ParamsError"),
        *("RunsError", "UsageError"),
    ),
    "calibcli.metrics.paired_changes": ("Difference",),
    "calibcli.metrics.panel": ("Evaluation",),
    "calibcli.params": ("Params",),
    "calibcli.workflow.choosing": ("Leaderboard",),
    "calibcli.workflow.fitting": ("Outcome",),
    "calibcli.workflow.runs": ("History",),
}
"""Where public names are defined, from which they are imported when they are used."""

__all__ = [
    "CalibError",
    "DataError",
    "Decisions",
    "Difference",
    "Evaluation",
    "FittedCalibrator",
    "GateError",
    "History",
    "Leaderboard",
    "NotConvergedError",
    "Outcome",
    "Params",
    "ParamsError",
    "RunsError",
    "UsageError",
    "__version__",
    "compare",
    "differences",
    "evaluate",
    "evaluate_decisions",
    "fit",
    "load",
    "load_history",
    "verdict_of",
]


def __getattr__(name: str) -> Any:
    # `calib --help` needs no NumPy.
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'calibcli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
