"""Slices of the rows: for the document, and the worst of them for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from calibcli.metrics.resampling import Interval
from calibcli.metrics.slices import Slice
from calibcli.report.texts import count, cut_end, interval_text, p_value, percent, significant

MOST_SHOWN = 10
HEADINGS = ("rows", "says", "right", "NLL", "Brier", "ECE", "95 % interval", "adjusted p")


def slices_document(found: Sequence[Slice], column: str | None) -> dict[str, Any]:
    """The slices of a column, or of the predicted classes, as the document has them."""
    return {"column": column, "slices": [_entry(each) for each in found]}


def _entry(each: Slice) -> dict[str, Any]:
    return {
        "name": each.name,
        "rows": each.rows,
        "weight": each.weight,
        "confidence": each.confidence,
        "accuracy": each.accuracy,
        "nll": _number(each.nll, each.nll_interval),
        "brier": _number(each.brier, each.brier_interval),
        "ece": _number(each.ece, each.ece_interval),
        "p": each.p,
        "adjusted_p": each.adjusted_p,
    }


def _number(value: float, interval: Interval) -> dict[str, float]:
    return {"value": value, "low": interval.low, "high": interval.high}


def slice_heading(part: Mapping[str, Any]) -> str:
    """What the slices are."""
    return str(part["column"] or "class")


def slice_rows(part: dict[str, Any]) -> list[list[str]]:
    """A row of texts for each of the worst slices: its name, and what `HEADINGS` say."""
    return [
        [
            cut_end(entry["name"]),
            count(entry["rows"]),
            percent(entry["confidence"]),
            percent(entry["accuracy"]),
            *(significant(entry[name]["value"]) for name in ("nll", "brier", "ece")),
            interval_text(entry["ece"]),
            p_value(entry["adjusted_p"]),
        ]
        for entry in part["slices"][:MOST_SHOWN]
    ]


def slice_caption(part: Mapping[str, Any], most: int = MOST_SHOWN) -> str:
    """How many slices there are, which are shown, and what the last column says."""
    every, shown = len(part["slices"]), min(len(part["slices"]), most)
    what = f"values of {part['column']}" if part["column"] else "predicted classes"
    which = f"The {shown} worst of {every} {what}" if every > shown else f"All {every} {what}"
    return (
        f"{which}, the worst first. p: the probability that a calibrated model is as far off by "
        f"chance, adjusted for there being {every} of them (Benjamini-Hochberg)."
    )
