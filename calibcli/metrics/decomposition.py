"""The CORP decomposition: of the confidence's Brier score, and of every class's.

The three parts add up to the score: miscalibration - discrimination + uncertainty.

>>> import numpy as np
>>> logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.6, 0.4]])
>>> labels = np.array([0, 1, 0, 0])
>>> [round(part.measure(logits, labels), 6) for part in CORP_TOP]
[0.08, 0.0, 0.1875]
>>> [round(part.measure(logits, labels), 6) for part in CORP_CLASS_WISE]
[0.08, 0.0, 0.1875]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from calibcli.metrics.base import Better, Metric, Resampling, Statistic
from calibcli.metrics.confidence import COLLECTED_TOP_SCORES, ConfidenceCurve
from calibcli.metrics.confidence_cells import CurveDistance, CurveValue
from calibcli.metrics.corp import Decomposition
from calibcli.metrics.one_vs_rest import SCORES_BY_CLASS

_MEANING: dict[str, tuple[Better, str]] = {
    "miscalibration": ("lower", "what monotone recalibration would gain"),
    "discrimination": ("higher", "what recalibrated probabilities gain on the base rate"),
    "uncertainty": ("", "the score of the base rate, in which no model has a part"),
}


@dataclass(frozen=True)
class _Part:
    """One part of a decomposition that is read off a finished statistic."""

    part: str
    decomposition: Callable[[Any], Decomposition]

    def __call__(self, finished: Any) -> float:
        return float(getattr(self.decomposition(finished), self.part))


def _metrics(
    name: str,
    title: str,
    score: str,
    statistic: Statistic,
    read: Callable[[Any], Decomposition],
    resampling: Mapping[str, Resampling],
) -> tuple[Metric, ...]:
    return tuple(
        Metric(
            name=f"{name}_{part}",
            title=f"{title} {part}",
            convention=f"of {score}, by isotonic regression (CORP): {meaning}",
            statistic=statistic,
            value=_Part(part, read),
            better=better,
            group="decomposition",
            resampling=resampling.get(part),
        )
        for part, (better, meaning) in _MEANING.items()
    )


def _of_curve(curve: ConfidenceCurve) -> Decomposition:
    return curve.decomposition


def _itself(decomposition: Decomposition) -> Decomposition:
    return decomposition


CORP_TOP = _metrics(
    "corp_top",
    "top-label",
    "the mean of (largest probability - correct)^2",
    COLLECTED_TOP_SCORES,
    _of_curve,
    {
        "miscalibration": CurveDistance(top=True),
        # Isotonic fits to resampled rows find more than there is.
        "discrimination": CurveValue(reflected=True, top=True),
        "uncertainty": CurveValue(top=True),
    },
)

CORP_CLASS_WISE = _metrics(
    "corp_class_wise",
    "class-wise",
    "the mean over classes of (p_k - [y = k])^2, for two classes that of class 1",
    SCORES_BY_CLASS,
    _itself,
    {},
)
