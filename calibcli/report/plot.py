"""Reliability diagrams for papers: PNG, SVG or PDF, drawn by matplotlib.

A column a measurement: what the model says against how often it is right (of two classes: how often
the positive one came), where a calibrated model would lie, and below where the rows are. Or a small
diagram for each class or slice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import UsageError
from calibcli.metrics.consistency import BAND_LEVEL
from calibcli.report.plot_data import (
    Diagram,
    Multiple,
    Picture,
    Scale,
    Style,
    axis_names,
    bin_words,
    common_scale,
    weight_shares,
)
from calibcli.report.plot_sheet import (
    BAND,
    BLUE,
    COLOURS,
    DIAGONAL,
    RULE,
    VERMILION,
    Kind,
    Sheet,
    encode_figure,
    house_style,
)
from calibcli.report.texts import LONGEST_NAME, count, cut_inside, percent, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLUMNS = 4
MOST_OVERLAID = len(COLOURS)
MOST_MULTIPLES = 12
"""So many small diagrams are drawn; of more classes or slices, those that matter most."""

_CHOICES = {
    "class": "The {shown} of {all} that add the most to the error",
    "slice": "The worst {shown} of {all}",
}

BEFORE_AFTER = ["before", "after"]

_PANEL, _HISTOGRAM, _SMALL = 2.4, 0.62, 1.35
"""Sizes of panels in inches: two with their labels fill the text width of a page."""

_GAP, _ROW_GAP, _SMALL_ROW_GAP = 0.22, 0.3, 0.1
_TITLE, _NO_TITLE, _HEADING = 0.26, 0.1, 0.22

_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_TICK_LABELS = ("0", "0.25", "0.5", "0.75", "1")
_LONGEST_TITLE = 34
_LONGEST_SMALL_TITLE = 14
_DASHES = (0, (4, 3))
_LARGEST_DOT, _SMALLEST_DOT = 46.0, 5.0
"""Areas of dots, in square points: of all rows, and of next to none."""

_BOX = 0.86
"""Width of the box of a consistency band, as a part of its bin's."""


def check_drawing_library() -> None:
    """Refuse to go on without matplotlib, before any work is done for a figure.

    Raises
    ------
    UsageError
        It is not installed.
    """
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: pip install 'calibcli[plot]'")


def plot_reliability(pictures: Sequence[Picture], kind: Kind, style: Style = "binned") -> bytes:
    """A figure with a column for each measurement, four to a row.

    Parameters
    ----------
    pictures : sequence of Picture
        At least one.
    kind : str
        ``"png"``, ``"svg"`` or ``"pdf"``.
    style : str
        ``"binned"`` or ``"corp"``.

    Returns
    -------
    bytes
        Of the file; the same for the same pictures.
    """
    with house_style():
        return encode_figure(_columns(pictures, style), kind)


def plot_multiples(
    multiples: Sequence[Multiple], pictures: Sequence[Picture], kind: Kind, *, of: int, noun: str
) -> bytes:
    """A figure of small diagrams that all measurements share.

    Parameters
    ----------
    multiples : sequence of Multiple
        One for each panel.
    pictures : sequence of Picture
        The measurements.
    kind : str
    of : int
        How many there are in all.
    noun : str
        What each of them is: ``"class"`` or ``"slice"``.

    Raises
    ------
    UsageError
        More measurements than can be told apart in one panel.
    """
    if len(pictures) > MOST_OVERLAID:
        raise UsageError(
            f"--plot-by {noun} lays measurements over each other: at most {MOST_OVERLAID} inputs, "
            f"here are {len(pictures)}"
        )
    with house_style():
        return encode_figure(_grid(multiples, pictures, of, noun), kind)


def colours(names: Sequence[str]) -> list[str]:
    """A colour for each measurement: before and after have colours of their own."""
    if list(names) == BEFORE_AFTER:
        return [VERMILION, BLUE]
    return list(COLOURS[: len(names)])


def _columns(pictures: Sequence[Picture], style: Style) -> Figure:
    titled = len(pictures) > 1
    entry = bin_words(pictures) if style == "binned" else "CORP curve"
    sheet = Sheet(
        len(pictures),
        MOST_COLUMNS,
        _PANEL,
        below=_HISTOGRAM,
        between=(_GAP, _ROW_GAP),
        title=_TITLE if titled else _NO_TITLE,
        legend=key_texts([entry]),
    )
    names = [picture.title for picture in pictures]
    shades = colours(names) if names == BEFORE_AFTER else [BLUE] * len(names)
    scale, named = common_scale(pictures), axis_names(pictures)
    histograms = [picture.diagram.histogram(scale) for picture in pictures]
    tallest = max(float(weight_shares(bins).max()) for _, bins in histograms)
    for place, (picture, shade) in enumerate(zip(pictures, shades, strict=True)):
        above, below = sheet.panel(place), sheet.panel_below(place)
        reliability(above, picture, style, shade, scale, titled=titled)
        edges, bins = histograms[place]
        histogram(below, edges, weight_shares(bins), shade, tallest, scale)
        below.set_xlabel(named[0])
        if sheet.is_first(place):
            above.set_ylabel(named[1])
            below.set_ylabel("rows")
            # The numbers of the two differ in width, their names stand in a line all the same.
            for axis in (above, below):
                axis.yaxis.set_label_coords(-0.4 / _PANEL, 0.5)
        else:
            above.tick_params(labelleft=False)
            below.tick_params(labelleft=False)
    add_key(sheet.figure, style, {entry: shades[-1]}, sheet.legend_columns)
    return sheet.figure


def _grid(multiples: Sequence[Multiple], pictures: Sequence[Picture], of: int, noun: str) -> Figure:
    names = [picture.title for picture in pictures]
    scale, named_axes, bins = Scale(), axis_names([]), bin_words([])
    if noun == "slice":
        scale = common_scale(pictures, [d for multiple in multiples for d in multiple.diagrams])
        named_axes, bins = axis_names(pictures), bin_words(pictures)
    wide = 5 if len(multiples) % 5 == 0 else 4
    fewer = of > len(multiples)
    shades = colours(names)
    named = dict(zip(names, shades, strict=True)) if len(names) > 1 else {bins: shades[0]}
    sheet = Sheet(
        len(multiples),
        wide,
        _SMALL,
        between=(_GAP, _SMALL_ROW_GAP),
        title=_TITLE,
        top=_HEADING if fewer else 0.0,
        legend=key_texts(named),
    )
    for place, multiple in enumerate(multiples):
        axis = sheet.panel(place)
        small_reliability(axis, multiple, shades, scale)
        axis.tick_params(labelleft=sheet.is_first(place), labelbottom=sheet.is_last(place))
        if sheet.is_first(place):
            axis.set_ylabel(named_axes[1], labelpad=2)
        if sheet.is_last(place):
            axis.set_xlabel(named_axes[0], labelpad=2)
    if fewer:
        chosen = _CHOICES[noun].format(shown=len(multiples), all=plural(of, noun))
        sheet.figure.text(0.5, 1 - 0.06 / sheet.height, chosen, fontsize=9, ha="center", va="top")
    add_key(sheet.figure, "binned", named, sheet.legend_columns)
    return sheet.figure


def reliability(
    axis: Axes, picture: Picture, style: Style, colour: str, scale: Scale, *, titled: bool
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
    if titled:
        axis.set_title(cut_inside(picture.title, _LONGEST_TITLE), parse_math=False)
    _figures(axis, picture)


def histogram(
    axis: Axes, edges: NumpyArray, shares: NumpyArray, colour: str, tallest: float, scale: Scale
) -> None:
    """Draw how the weight is spread over bars with some edges, from the lowest to the highest."""
    if scale.is_logarithmic:
        axis.set_xscale("log")
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


def _dots(axis: Axes, diagram: Diagram, colour: str, scale: Scale, *, size: float = 1.0) -> None:
    """A dot for each bin, with a larger area the more rows there are, on a thin line.

    On logarithmic axes what never came stands on the lower edge.
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
        color=colour,
        edgecolors="white",
        linewidths=0.5 * size**0.5,
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
