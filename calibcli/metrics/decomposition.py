"""The CORP decomposition: of the confidence's Brier score, and of every class's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from calibcli.metrics.base import Better, Metric, Statistic
from calibcli.metrics.confidence import COLLECTED_SCORES, ConfidenceCurve
from calibcli.metrics.isotonic import Decomposition
from calibcli.metrics.one_vs_rest import ONE_VS_REST

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
    name: str, title: str, score: str, statistic: Statistic, read: Callable[[Any], Decomposition]
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
    COLLECTED_SCORES,
    _of_curve,
)

CORP_CLASS_WISE = _metrics(
    "corp_class_wise",
    "class-wise",
    "the mean over classes of (p_k - [y = k])^2, for two classes that of class 1",
    ONE_VS_REST,
    _itself,
)
