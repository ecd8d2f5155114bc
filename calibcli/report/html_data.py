"""What the diagrams of a page are drawn from, as plain lists that a browser reads."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from calibcli.metrics.consistency import BAND_LEVEL
from calibcli.report.plot_data import (
    Diagram,
    Picture,
    Scale,
    axis_names,
    common_scale,
    weight_shares,
    worst_classes,
)
from calibcli.report.tables import SHOWN_ON_PAGE
from calibcli.workflow.texts import percent
from calibcli.workflow.verdict import Verdict

MOST_CLASS_DIAGRAMS = 5000
"""Class diagrams on a page, of all measurements; of more classes, those that matter most."""

_MOST_POINTS = 300
"""Points of a consistency band: more than a screen can tell apart."""

_DECIMALS, _FINE = 4, 7
"""Decimals of shares, and of what may be the probability of a rare class."""


def payload(pictures: Sequence[Picture], part_names: Sequence[str]) -> dict[str, Any]:
    """Everything that the page's script draws.

    Parameters
    ----------
    pictures : sequence of Picture
        At least one.
    part_names : sequence of str
        What the measurements are called on the page.
    """
    numbers, column, slices = class_numbers(pictures), *slices_shown(pictures)
    of_slices = [picture.of_slices(slices) if slices else [] for picture in pictures]
    scale = common_scale(pictures, [diagram for diagrams in of_slices for diagram in diagrams])
    says, right = axis_names(pictures)
    return {
        "level": BAND_LEVEL,
        "classes": 0 if pictures[0].classes is None else pictures[0].classes.classes,
        "numbers": numbers,
        "names": [pictures[0].class_name(number) for number in numbers],
        "column": column,
        "slices": slices,
        "scale": [scale.low, scale.high],
        "axes": None if pictures[0].positive is None else {"says": says, "right": right},
        "measurements": [
            _measurement(picture, name, numbers, diagrams, scale)
            for picture, name, diagrams in zip(pictures, part_names, of_slices, strict=True)
        ],
    }


def class_numbers(pictures: Sequence[Picture]) -> list[int]:
    """The classes that have a diagram on the page, ascending."""
    if pictures[-1].classes is None:
        return []
    return sorted(worst_classes(pictures, MOST_CLASS_DIAGRAMS // len(pictures)))


def slices_shown(pictures: Sequence[Picture]) -> tuple[str | None, list[str]]:
    """The column that divides the rows, and the slices that have a diagram on the page."""
    parts = [
        part
        for picture in pictures
        if picture.slices is not None and (part := picture.slices_by_column()) is not None
    ]
    most = SHOWN_ON_PAGE // max(len(parts), 1)
    worst = ([entry["name"] for entry in part["slices"][:most]] for part in parts)
    # The worst of every measurement, then the second worst; each is drawn of all measurements.
    names = dict.fromkeys(name for rank in zip_longest(*worst) for name in rank if name is not None)
    return (parts[0]["column"] if parts else None), list(names)[:most]


def to_script(value: Any) -> str:
    """JSON that can stand inside a script element, whatever names are in it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _measurement(
    picture: Picture,
    name: str,
    numbers: Sequence[int],
    slices: Sequence[Diagram],
    scale: Scale,
) -> dict[str, Any]:
    curve = picture.curve
    verdict = Verdict.of(picture.part)
    thin = np.unique(np.linspace(0, len(curve.grid) - 1, _MOST_POINTS).astype(int))
    thin = thin[: len(curve.grid)]
    fine = picture.event is not None
    digits = _FINE if fine else _DECIMALS
    return {
        "name": name,
        "verdict": verdict.look,
        "says": None if verdict.says is None else percent(verdict.says, fine=fine),
        "right": None if verdict.right is None else percent(verdict.right, fine=fine),
        "rows": picture.part["rows"],
        "curve": [_short(v, digits) for v in (curve.confidence, curve.accuracy)],
        "band": [_short(v[thin], digits) for v in (curve.grid, curve.band.lower, curve.band.upper)],
        "classes": _classes(picture, numbers),
        "slices": [_drawn(diagram, scale) for diagram in slices],
        **_drawn(picture.diagram, scale),
    }


def _drawn(diagram: Diagram, scale: Scale) -> dict[str, Any]:
    """The filled bins of a diagram, and of an event's where they and the bars below them lie."""
    bins = {"bins": _bins(diagram)}
    if diagram.cells is None:
        return bins
    edges, bars = diagram.histogram(scale)
    shares = weight_shares(bars)
    return {
        **bins,
        "spans": [
            _short(ends, _FINE)
            for ends, filled in zip(
                zip(*diagram.spans, strict=True), diagram.bins.filled, strict=True
            )
            if filled
        ],
        "bars": [
            [*_short([edges[b], edges[b + 1]], _FINE), int(bars.rows[b]), *_short([shares[b]])]
            for b in np.flatnonzero(bars.filled).tolist()
        ],
    }


def _bins(diagram: Diagram) -> list[list[float | None]]:
    """Number, rows, share, confidence, accuracy and band of each filled bin."""
    bins, bars, shares = diagram.bins, diagram.bars, diagram.shares
    confidence, accuracy = bins.mean_confidence, bins.accuracy
    digits = _DECIMALS if diagram.cells is None else _FINE
    return [
        [
            b,
            int(bins.rows[b]),
            *_short([shares[b], confidence[b], accuracy[b], bars.lower[b], bars.upper[b]], digits),
        ]
        for b in np.flatnonzero(bins.filled).tolist()
    ]


def _classes(picture: Picture, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The line in the table and the diagram of each class."""
    classes = picture.classes
    if classes is None:
        return []
    everything = float(classes.bins.gap.sum())
    lines = []
    for number, diagram in zip(numbers, picture.of_classes(numbers), strict=True):
        total = diagram.bins.total()
        labelled, predicted = float(classes.labelled[number]), float(total.weight)
        figures = [
            labelled,
            float(classes.expected[number]),
            predicted,
            float(total.correct) / labelled if labelled else math.nan,
            float(total.accuracy),
            float(total.mean_confidence),
            diagram.error,
            diagram.error * predicted / everything if everything and predicted else 0.0,
            _deviation(diagram),
        ]
        lines.append({"figures": _short(figures), "bins": _bins(diagram)})
    return lines


def _deviation(diagram: Diagram) -> float:
    """Mean confidence minus accuracy in standard errors of a calibrated model; NaN without one."""
    bins = diagram.bins.select(diagram.bins.filled)
    says = np.minimum(bins.mean_confidence, 1.0)
    share = bins.weight / max(float(bins.weight.sum()), np.finfo(float).tiny)
    variance = float((share**2 * says * (1 - says) / bins.effective_rows).sum())
    return diagram.excess / math.sqrt(variance) if variance > 0 else math.nan


def _short(values: Any, decimals: int = _DECIMALS) -> list[float | None]:
    """The numbers with some decimals, None for those that are not finite."""
    return [round(float(value), decimals) if math.isfinite(value) else None for value in values]
