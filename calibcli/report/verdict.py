"""Reliability bins in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from calibcli.report.texts import percent

SMALL = 0.01
"""A difference of one percentage point is called none."""

CHANCE = 2.0
"""So many standard errors are put down to chance."""

CONSIDERABLE = 0.1
"""A share of the rows that is worth a word."""

WORDS = {
    "over": "overconfident",
    "under": "underconfident",
    "mixed": "mixed",
    "good": "well calibrated",
    "none": "no rows",
}

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
        Mean confidence, and accuracy.
    """

    kind: Literal["over", "under", "mixed", "good", "none"]
    says: float | None = None
    right: float | None = None

    @property
    def word(self) -> str:
        """The kind in a word or two; few rows do not show that anything is good."""
        return _UNCLEAR if self.unclear else WORDS[self.kind]

    @property
    def look(self) -> str:
        """The kind by which it is coloured: what is unclear has no colour."""
        return "none" if self.unclear else self.kind

    @property
    def unclear(self) -> bool:
        """Whether there is a gap, in rows so few that it may be chance."""
        if self.kind != "good" or self.says is None or self.right is None:
            return False
        return abs(self.says - self.right) > LARGE

    @property
    def text(self) -> str:
        """One line for people."""
        if self.says is None or self.right is None:
            return self.word
        figures = f"says {percent(self.says)}, right {percent(self.right)}"
        if self.kind == "mixed":
            return f"right on average ({figures}), but not everywhere"
        return f"{self.word}: {figures}"


def verdict(bins: Sequence[Mapping[str, Any]]) -> Verdict:
    """Compare what the model says on average with how often it is right."""
    filled = [part for part in bins if part["weight"]]
    if not filled:
        return Verdict("none")
    total = math.fsum(part["weight"] for part in filled)
    says = math.fsum(part["weight"] * part["confidence"] for part in filled) / total
    right = math.fsum(part["weight"] * part["accuracy"] for part in filled) / total
    side = _side(says, right, sum(part["rows"] for part in filled))
    if side != "good":
        return Verdict(side, says, right)
    shares = {"over": 0.0, "under": 0.0, "good": 0.0}
    for part in filled:
        shares[_side(part["confidence"], part["accuracy"], part["rows"])] += part["weight"] / total
    if min(shares["over"], shares["under"]) >= CONSIDERABLE:
        return Verdict("mixed", says, right)
    return Verdict("good", says, right)


def _side(says: float, right: float, rows: int) -> Literal["over", "under", "good"]:
    chance = CHANCE * math.sqrt(right * (1 - right) / rows)
    if abs(says - right) <= max(SMALL, chance):
        return "good"
    return "over" if says > right else "under"
