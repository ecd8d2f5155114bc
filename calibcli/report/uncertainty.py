"""Intervals, and what chance would give, as short texts beside numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from calibcli.report.numbers import decimals

INTERVAL_HEADING = "95 % interval"
CHANCE_HEADING = "by chance"
CHANCE_LEGEND = (
    "by chance: what a perfectly calibrated model with these probabilities would show, 95 times "
    "in 100"
)


def interval_text(part: Mapping[str, Any] | None) -> str:
    """``[0.0236, 0.0537]``, of a part of a document with ``low`` and ``high``; or nothing."""
    ends = _ends(part)
    return f"[{ends[0]}, {ends[1]}]" if ends else ""


def chance_text(metric: Mapping[str, Any]) -> str:
    """``0.0066 to 0.0195``, of a metric of a document; nothing where chance has no part in it."""
    ends = _ends(metric.get("chance"))
    return f"{ends[0]} to {ends[1]}" if ends else ""


def _ends(part: Mapping[str, Any] | None) -> tuple[str, str] | None:
    """Both ends with the same decimals, three digits of the larger one, rounded outwards.

    A value at the very end of its interval so is shown inside it.
    """
    if not part or part.get("low") is None or part.get("high") is None:
        return None
    low, high = float(part["low"]), float(part["high"])
    largest = max(abs(low), abs(high))
    if not math.isfinite(largest):
        return None
    places = min(max(decimals(largest) - 1, 0), 9)
    ends = ((low, ROUND_FLOOR), (high, ROUND_CEILING))
    texts = [_rounded(end, places, rounding) for end, rounding in ends]
    return tuple(text if float(text) else "0" for text in texts)  # type: ignore[return-value]


def _rounded(end: float, places: int, rounding: str) -> str:
    """A number to some decimals, up or down; what is off by the noise of a float is on the spot."""
    exact = Decimal(f"{end:.{places + 6}f}")
    return f"{exact.quantize(Decimal(1).scaleb(-places), rounding=rounding):f}"
