"""The Python interface, for notebooks and services, on arrays.

`fit`, `load`, `evaluate` and `compare` do what the commands of these names do; `verdict_of` has the
sentence that `evaluate` prints first.
"""

from calibcli.api.calibrating import FittedCalibrator, compare, fit, load
from calibcli.api.evaluating import differences, evaluate, evaluate_decisions, verdict_of

__all__ = [
    "FittedCalibrator",
    "compare",
    "differences",
    "evaluate",
    "evaluate_decisions",
    "fit",
    "load",
    "verdict_of",
]
