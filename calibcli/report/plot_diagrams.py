"""What is drawn on the axes of a figure: reliability diagrams, histograms, and their keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.consistency import BAND_LEVEL
from calibcli.report.plot_data import Diagram, Multiple, Picture, Scale, Style, weight_shares
from calibcli.report.plot_sheet import BAND, DIAGONAL, RULE
from calibcli.workflow.texts import LONGEST_NAME, count, cut_inside, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_TICK_LABELS = ("0", "0.25", "0.5", "0.75", "1")
_LONGEST_SMALL_TITLE = 14
_DASHES = (0, (4, 3))
_LARGEST_DOT, _SMALLEST_DOT = 46.0, 5.0
"""Areas of dots, in square points: of all rows, and of next to none."""

_BOX = 0.86
"""Width of the box of a consistency band, as a part of its bin's."""


def reliability(
    axis: Axes, picture: Picture, style: Style, colour: str, scale: Scale, title: str
) -> None:
    """Draw a measurement's reliability diagram, its band, and its figures."""
    _square(axis, scale)
    axis.tick_params(labelbottom=False)
    if style == "corp":
        curve = picture.curve
        x, band = np.maximum(curve.grid, scale.low), curve.band
        lower, upper = (np.maximum(edge, scale.low) for edge in (band.lower, band.upper))
        axis.fill_between(x, lower, upper, color=BAND, lw=0)
        x, y = (np.maximum(v, scale.low) for v in (curve.confidence, curve.accuracy))
        axis.plot(x, y, color=colour, lw=1.3, zorder=3)
    else:
        _bars(axis, picture.diagram, scale)
        _dots(axis, picture.diagram, colour, scale)
    _diagonal(axis, scale)
    if title:
        axis.set_title(title, parse_math=False)
    _figures(axis, picture)


def overlay(
    axis: Axes, pictures: Sequence[Picture], style: Style, colours: Sequence[str], scale: Scale
) -> None:
    """Draw the reliability of every measurement in one panel.

    Each has a band of its own, and several would hide each other: a dot within its band is hollow.
    """
    _square(axis, scale)
    axis.tick_params(labelbottom=False)
    for picture, colour in zip(pictures, colours, strict=True):
        if style == "corp":
            x, y = (
                np.maximum(v, scale.low) for v in (picture.curve.confidence, picture.curve.accuracy)
            )
            axis.plot(x, y, color=colour, lw=1.3, zorder=3)
        else:
            diagram = picture.diagram
            filled, share = diagram.bins.filled, diagram.bins.accuracy
            within = (share >= diagram.bars.lower) & (share <= diagram.bars.upper)
            faces = ["white" if each else colour for each in within[filled]]
            _dots(axis, diagram, colour, scale, size=0.6, faces=faces)
    _diagonal(axis, scale)


def overlay_histogram(
    axis: Axes, pictures: Sequence[Picture], colours: Sequence[str], scale: Scale
) -> None:
    """Draw how the weight of every measurement is spread over bars, as outlines."""
    tallest = 0.0
    for picture, colour in zip(pictures, colours, strict=True):
        edges, bins = picture.diagram.histogram(scale)
        shares = weight_shares(bins)
        tallest = max(tallest, float(shares.max()))
        axis.stairs(shares, np.clip(edges, scale.low, scale.high), color=colour, lw=1.0)
    _spread(axis, tallest, scale)


def histogram(
    axis: Axes, edges: NumpyArray, shares: NumpyArray, colour: str, tallest: float, scale: Scale
) -> None:
    """Draw how the weight is spread over bars with some edges, from the lowest to the highest."""
    edges = np.clip(edges, scale.low, scale.high)
    axis.bar(
        edges[:-1],
        shares,
        np.diff(edges),
        align="edge",
        color=colour,
        alpha=0.55,
        edgecolor="white",
        linewidth=0.5,
    )
    _spread(axis, tallest, scale)


def _spread(axis: Axes, tallest: float, scale: Scale) -> None:
    """The axes of a histogram."""
    if scale.is_logarithmic:
        axis.set_xscale("log")
    axis.set_xlim(scale.low, scale.high)
    axis.set_xticks(*_ticks(scale))
    axis.minorticks_off()
    top = max(tallest, 1e-9) * 1.05
    axis.set_ylim(0, top)
    mark = _round_below(max(tallest, 1e-9))
    axis.set_yticks([0, mark], ["0", percent(mark)])


def small_reliability(axis: Axes, multiple: Multiple, colours: Sequence[str], scale: Scale) -> None:
    """Draw the diagrams of every measurement in one small panel; the band is the last one's."""
    _square(axis, scale)
    if scale.is_logarithmic:
        ticks, labels = _ticks(scale)
        # The first would touch the last of the panel on its left.
        axis.set_xticks(ticks, ["", *labels[1:]])
    else:
        for name in ("x", "y"):
            axis.set(**{f"{name}ticks": (0, 0.5, 1), f"{name}ticklabels": ("0", "0.5", "1")})
    _bars(axis, multiple.diagrams[-1], scale)
    for diagram, colour in zip(multiple.diagrams, colours, strict=True):
        _dots(axis, diagram, colour, scale, size=0.45)
    _diagonal(axis, scale)
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
    _add_legend(figure, handles, key_texts(named), columns)


def overlay_texts(names: Iterable[str], style: Style) -> list[str]:
    """What the legend of an overlay says, with these names of measurements."""
    shown = [cut_inside(name, LONGEST_NAME) for name in names]
    band = [f"within its {BAND_LEVEL * 100:.0f} % band"] if style == "binned" else []
    return [*shown, *band, "calibrated"]


def add_overlay_key(figure: Figure, style: Style, named: Mapping[str, str], columns: int) -> None:
    """Draw the legend of an overlay below it."""
    from matplotlib.lines import Line2D

    line: dict[str, Any] = {"lw": 1.3}
    dots: list[Any] = []
    if style == "binned":
        line = {"lw": 0.8, "marker": "o", "markersize": 4}
        dots = [Line2D([], [], color=RULE, lw=0, marker="o", markersize=4, markerfacecolor="white")]
    handles = [
        *(Line2D([], [], color=colour, **line) for colour in named.values()),
        *dots,
        Line2D([], [], color=DIAGONAL, lw=0.8, ls=_DASHES),
    ]
    _add_legend(figure, handles, overlay_texts(named, style), columns)


def _add_legend(figure: Figure, handles: Sequence[Any], texts: Sequence[str], columns: int) -> None:
    legend = figure.legend(
        handles,
        texts,
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


def _ticks(scale: Scale) -> tuple[Sequence[float], Sequence[str]]:
    """Places on an axis and what stands there."""
    if not scale.is_logarithmic:
        return _TICKS, _TICK_LABELS
    decades = round(np.log10(scale.high / scale.low))
    ticks = [scale.low * 10.0**step for step in range(decades + 1)]
    return ticks, [
        f"{tick:.0e}".replace("e-0", "e-") if tick < 9e-4 else f"{tick:g}" for tick in ticks
    ]


def _square(axis: Axes, scale: Scale) -> None:
    if scale.is_logarithmic:
        axis.set(xscale="log", yscale="log")
    axis.set(xlim=(scale.low, scale.high), ylim=(scale.low, scale.high))
    for ticked in (axis.set_xticks, axis.set_yticks):
        ticked(*_ticks(scale))
    axis.minorticks_off()
    # Points on the border are shown whole.
    axis.spines[["left", "bottom"]].set_zorder(1)


def _diagonal(axis: Axes, scale: Scale) -> None:
    ends = [scale.low, scale.high]
    axis.plot(ends, ends, color=DIAGONAL, lw=0.8, ls=_DASHES, zorder=2)


def _bars(axis: Axes, diagram: Diagram, scale: Scale) -> None:
    """A box over each bin: nine in ten calibrated models have their dot in it."""
    filled = diagram.bins.filled
    left, right = (ends[filled] for ends in diagram.spans)
    lower, upper = diagram.bars.lower[filled], diagram.bars.upper[filled]
    if scale.is_logarithmic:
        left, right, lower, upper = (
            np.clip(v, scale.low, scale.high) for v in (left, right, lower, upper)
        )
        margin = (right / left) ** ((1 - _BOX) / 2)
        left, right = left * margin, right / margin
    else:
        margin = (right - left) * (1 - _BOX) / 2
        left, right = left + margin, right - margin
    axis.bar(left, upper - lower, right - left, align="edge", bottom=lower, color=BAND, linewidth=0)


def _dots(
    axis: Axes,
    diagram: Diagram,
    colour: str,
    scale: Scale,
    *,
    size: float = 1.0,
    faces: Sequence[str] | None = None,
) -> None:
    """A dot for each bin, with a larger area the more rows there are, on a thin line.

    On logarithmic axes what never came stands on the lower edge. With ``faces``, colours inside the
    dots, their edges have the colour.
    """
    filled = diagram.bins.filled
    bins = diagram.bins.select(filled)
    x, y = (np.maximum(v, scale.low) for v in (bins.mean_confidence, bins.accuracy))
    area = _SMALLEST_DOT + (_LARGEST_DOT - _SMALLEST_DOT) * np.sqrt(diagram.shares[filled])
    axis.plot(x, y, color=colour, lw=0.8 * size**0.5, alpha=0.5, zorder=3)
    axis.scatter(
        x,
        y,
        area * size,
        color=colour if faces is None else faces,
        edgecolors="white" if faces is None else colour,
        linewidths=0.5 * size**0.5 if faces is None else 0.8,
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
