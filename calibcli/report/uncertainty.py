"""Intervals, and what chance would give, as short texts beside numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    """Both ends with the same decimals, three digits of the larger one."""
    if not part or part.get("low") is None or part.get("high") is None:
        return None
    low, high = float(part["low"]), float(part["high"])
    largest = max(abs(low), abs(high))
    if not math.isfinite(largest):
        return None
    places = min(max(decimals(largest) - 1, 0), 9)
    texts = [f"{end:.{places}f}" for end in (low, high)]
    return tuple(text if float(text) else "0" for text in texts)  # type: ignore[return-value]
