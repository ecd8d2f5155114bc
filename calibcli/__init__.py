"""Probabilities that can be believed, from stored logits.

The command line is `calib`; for notebooks and services there are three functions:

>>> import calibcli
>>> calibrator = calibcli.fit(logits, labels, method="temperature")  # doctest: +SKIP
>>> probs = calibrator.predict_proba(new_logits)  # doctest: +SKIP
>>> calibcli.evaluate(probs, new_labels).values["nll"]  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calibcli.version import __version__

if TYPE_CHECKING:
    from calibcli.api import FittedCalibrator, evaluate, fit, load

__all__ = ["FittedCalibrator", "__version__", "evaluate", "fit", "load"]


def __getattr__(name: str) -> Any:
    # Imported when used: `calib --help` needs no NumPy.
    if name in __all__:
        from calibcli import api

        return getattr(api, name)
    raise AttributeError(f"module 'calibcli' has no attribute {name!r}")
