"""Reliability bins in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from calibcli.report.texts import percent
from calibcli.schema import MeasurementPart
from calibcli.visible import visible

SMALL = 0.01
"""A difference of one percentage point is called none."""

CHANCE = 2.0
"""So many standard errors are put down to chance."""

CONSIDERABLE = 0.1
"""A share of the rows that is worth a word."""

RELATIVE = 0.1
"""Nor is a difference of a tenth, where what is said is rare."""

WORDS = {
    "over": "overconfident",
    "under": "underconfident",
    "mixed": "mixed",
    "good": "well calibrated",
    "none": "no rows",
}

EVENT_WORDS = {**WORDS, "over": "too high", "under": "too low"}
"""Of the probability of a class that need not be the predicted one."""

LARGE = 0.02
"""A difference of more than two percentage points is never called good, be it chance or not."""

_UNCLEAR = "no clear error"


@dataclass(frozen=True)
class Verdict:
    """What the bins say, at a glance.

    Attributes
    ----------
    kind : str
        ``"over"`` or ``"under"`` confident, ``"mixed"``, ``"good"``, or ``"none"`` without rows.
    says, right : float or None
        Mean confidence, and accuracy; of an event its mean probability, and how often it came.
    event : str or None
        The class whose probability the confidence is; None: the predicted class.
    """

    kind: Literal["over", "under", "mixed", "good", "none"]
    says: float | None = None
    right: float | None = None
    event: str | None = None

    @property
    def word(self) -> str:
        """The kind in a word or two; few rows do not show that anything is good."""
        words = WORDS if self.event is None else EVENT_WORDS
        return _UNCLEAR if self.unclear else words[self.kind]

    @property
    def look(self) -> str:
        """The kind by which it is coloured: what is unclear has no colour."""
        return "none" if self.unclear else self.kind

    @property
    def unclear(self) -> bool:
        """Whether there is a gap, in rows so few that it may be chance."""
        if self.kind != "good" or self.says is None or self.right is None:
            return False
        return abs(self.says - self.right) > min(LARGE, 2 * RELATIVE * self.right)

    @property
    def text(self) -> str:
        """One line for people."""
        if self.says is None or self.right is None:
            return self.word
        figures = f"says {percent(self.says)}, {self.came} {percent(self.right)}"
        if self.event is not None:
            figures = f"P({self.event}) {figures}"
        if self.kind == "mixed":
            return f"right on average ({figures}), but not everywhere"
        return f"{self.word}: {figures}"

    @property
    def came(self) -> str:
        """What the second figure is: how often the prediction is right, or the event came."""
        return "right" if self.event is None else "came"


def verdict(measured: MeasurementPart) -> Verdict:
    """Compare what the model says on average with how often it is right.

    Parameters
    ----------
    measured : MeasurementPart
    """
    positive = measured.get("positive")
    event = positive and visible(positive["name"])
    filled = [
        (part["weight"], part["confidence"], part["accuracy"], part["rows"])
        for part in measured["reliability"]
        if part["confidence"] is not None and part["accuracy"] is not None and part["weight"]
    ]
    if not filled:
        return Verdict("none", event=event)
    total = math.fsum(weight for weight, *_ in filled)
    says = math.fsum(weight * confidence for weight, confidence, _, _ in filled) / total
    right = math.fsum(weight * accuracy for weight, _, accuracy, _ in filled) / total
    side = _side(says, right, sum(rows for *_, rows in filled))
    if side != "good":
        return Verdict(side, says, right, event)
    shares = {"over": 0.0, "under": 0.0, "good": 0.0}
    for weight, confidence, accuracy, rows in filled:
        shares[_side(confidence, accuracy, rows)] += weight / total
    if min(shares["over"], shares["under"]) >= CONSIDERABLE:
        return Verdict("mixed", says, right, event)
    return Verdict("good", says, right, event)


def _side(says: float, right: float, rows: int) -> Literal["over", "under", "good"]:
    chance = CHANCE * math.sqrt(right * (1 - right) / rows)
    if abs(says - right) <= max(min(SMALL, RELATIVE * right), chance):
        return "good"
    return "over" if says > right else "under"
