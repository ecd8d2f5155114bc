"""The panels of a figure: a reliability diagram, a histogram, a small diagram, the legend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from calibcli.metrics.bins import BINS, EDGES
from calibcli.metrics.consistency import BAND_LEVEL
from calibcli.report.plot_data import Diagram, Multiple, Picture, Style
from calibcli.report.plot_style import BAND, DIAGONAL, RULE
from calibcli.report.texts import LONGEST_NAME, count, cut_inside, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_TICK_LABELS = ("0", "0.25", "0.5", "0.75", "1")
_LONGEST_TITLE = 34
_LONGEST_SMALL_TITLE = 14
_DASHES = (0, (4, 3))
_LARGEST_DOT, _SMALLEST_DOT = 46.0, 5.0
"""Areas of dots, in square points: of all rows, and of next to none."""

_BOX = 0.86
"""Width of the box of a consistency band, as a part of its bin's."""


def reliability(axis: Axes, picture: Picture, style: Style, colour: str, *, titled: bool) -> None:
    """Draw a measurement's reliability diagram, its band, and its figures."""
    _square(axis)
    axis.set_xticks(_TICKS, [""] * len(_TICKS))
    if style == "corp":
        curve = picture.curve
        axis.fill_between(curve.grid, curve.band.lower, curve.band.upper, color=BAND, lw=0)
        axis.plot(curve.confidence, curve.accuracy, color=colour, lw=1.3, zorder=3)
    else:
        _bars(axis, picture.diagram)
        _dots(axis, picture.diagram, colour)
    _diagonal(axis)
    if titled:
        axis.set_title(cut_inside(picture.title, _LONGEST_TITLE), parse_math=False)
    _figures(axis, picture)


def histogram(axis: Axes, diagram: Diagram, colour: str, tallest: float) -> None:
    """Draw how the weight is spread over the 15 bins of confidence."""
    axis.bar(
        EDGES[:-1],
        diagram.shares,
        np.diff(EDGES),
        align="edge",
        color=colour,
        alpha=0.55,
        edgecolor="white",
        linewidth=0.5,
    )
    axis.set_xlim(0, 1)
    axis.set_xticks(_TICKS, _TICK_LABELS)
    top = max(tallest, 1e-9) * 1.05
    axis.set_ylim(0, top)
    mark = _round_below(max(tallest, 1e-9))
    axis.set_yticks([0, mark], ["0", percent(mark)])
    axis.set_xlabel("confidence")


def small_reliability(axis: Axes, multiple: Multiple, colours: Sequence[str]) -> None:
    """Draw the diagrams of every measurement in one small panel; the band is the last one's."""
    _square(axis)
    for name in ("x", "y"):
        axis.set(**{f"{name}ticks": (0, 0.5, 1), f"{name}ticklabels": ("0", "0.5", "1")})
    _bars(axis, multiple.diagrams[-1])
    for diagram, colour in zip(multiple.diagrams, colours, strict=True):
        _dots(axis, diagram, colour, scale=0.45)
    _diagonal(axis)
    title = cut_inside(multiple.title, _LONGEST_SMALL_TITLE)
    axis.set_title(title, loc="left", fontsize=8, pad=3, parse_math=False)
    last = multiple.diagrams[-1]
    text = f"ECE {_rounded(last.error, 2)}" if last.rows else "no rows"
    axis.set_title(text, loc="right", fontsize=6, pad=3, color=RULE)


def key_texts(names: Iterable[str]) -> list[str]:
    """What the legend says, with these names of measurements."""
    shown = [cut_inside(name, LONGEST_NAME) for name in names]
    return [*shown, f"{BAND_LEVEL * 100:.0f} % consistency band", "calibrated"]


def add_key(figure: Figure, style: Style, named: Mapping[str, str], columns: int) -> None:
    """Draw the legend of all panels below them: of measurements by their colours, and the rest."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    line: dict[str, Any] = {"lw": 1.3}
    if style == "binned":
        line = {"lw": 0.8, "marker": "o", "markersize": 4, "markeredgecolor": "white"}
    handles: list[Any] = [
        *(Line2D([], [], color=colour, **line) for colour in named.values()),
        Patch(facecolor=BAND, lw=0),
        Line2D([], [], color=DIAGONAL, lw=0.8, ls=_DASHES),
    ]
    legend = figure.legend(
        handles,
        key_texts(named),
        loc="lower center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=columns,
        frameon=False,
        handlelength=1.6,
        columnspacing=1.2,
        handletextpad=0.6,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _square(axis: Axes) -> None:
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.set_yticks(_TICKS, _TICK_LABELS)
    # Points on the border are shown whole.
    axis.spines[["left", "bottom"]].set_zorder(1)


def _diagonal(axis: Axes) -> None:
    axis.plot([0, 1], [0, 1], color=DIAGONAL, lw=0.8, ls=_DASHES, zorder=2)


def _bars(axis: Axes, diagram: Diagram) -> None:
    """A box over each bin: nine in ten calibrated models have their dot in it."""
    filled = diagram.bins.filled
    band = diagram.bars
    axis.bar(
        ((EDGES[:-1] + EDGES[1:]) / 2)[filled],
        (band.upper - band.lower)[filled],
        _BOX / BINS,
        bottom=band.lower[filled],
        color=BAND,
        linewidth=0,
    )


def _dots(axis: Axes, diagram: Diagram, colour: str, scale: float = 1.0) -> None:
    """A dot for each bin, with a larger area the more rows there are, on a thin line."""
    filled = diagram.bins.filled
    x, y = diagram.bins.mean_confidence[filled], diagram.bins.accuracy[filled]
    area = _SMALLEST_DOT + (_LARGEST_DOT - _SMALLEST_DOT) * np.sqrt(diagram.shares[filled])
    axis.plot(x, y, color=colour, lw=0.8 * scale**0.5, alpha=0.5, zorder=3)
    axis.scatter(
        x,
        y,
        area * scale,
        color=colour,
        edgecolors="white",
        linewidths=0.5 * scale**0.5,
        zorder=4,
        clip_on=False,
    )


def _figures(axis: Axes, picture: Picture) -> None:
    """The numbers that matter, in the corner that the diagram leaves free."""
    lines = [
        f"{name} {_rounded(value, 3)}"
        for name, value in (("ECE", picture.metric("ece")), ("NLL", picture.metric("nll")))
        if value is not None
    ]
    above = not picture.diagram.excess < 0
    axis.text(
        0.04 if above else 0.97,
        0.96 if above else 0.04,
        "\n".join([*lines, f"n {count(picture.part['rows'])}"]),
        ha="left" if above else "right",
        va="top" if above else "bottom",
        fontsize=7.5,
        linespacing=1.4,
        transform=axis.transAxes,
        zorder=5,
    )


def _rounded(value: float, digits: int) -> str:
    """The number with so many significant digits, zeros at its end included."""
    return f"{value:#.{digits}g}".rstrip(".")


def _round_below(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above a value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(step * power for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)))
