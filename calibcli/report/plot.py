"""Reliability diagrams for papers: PNG, SVG or PDF, drawn by matplotlib.

A column a measurement: what the model says against how often it is right (of two classes: how often
the positive one came), where a calibrated model would lie, and below where the rows are. Or a small
diagram for each class or slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibcli.errors import UsageError
from calibcli.report.plot_data import (
    Multiple,
    Picture,
    Scale,
    Style,
    axis_names,
    bin_words,
    common_scale,
    weight_shares,
)
from calibcli.report.plot_diagrams import (
    add_key,
    add_overlay_key,
    histogram,
    key_texts,
    overlay,
    overlay_histogram,
    overlay_texts,
    reliability,
    small_reliability,
)
from calibcli.report.plot_sheet import (
    BLUE,
    COLOURS,
    VERMILION,
    Kind,
    Sheet,
    encode_figure,
    house_style,
)
from calibcli.workflow.texts import cut_inside, plural

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
_TITLE, _NO_TITLE = 0.26, 0.1

COLUMN_WIDTHS = {"single": 3.5, "double": 7.16}
"""Columns of journals in inches: 89 and 182 mm, which fit in those of Nature, IEEE and Elsevier."""

NARROWEST, WIDEST = 2, 20
"""A figure in inches: in less no panel has room for its numbers."""

_LONGEST_TITLE = 34


@dataclass(frozen=True)
class FigureLayout:
    """What a figure is to be like.

    Attributes
    ----------
    width : float or None
        In inches; None: as wide as panels of the usual size are.
    title : str
        Over everything; nothing for none.
    """

    width: float | None = None
    title: str = ""

    @property
    def headings(self) -> list[str]:
        """The title, if there is one."""
        return [self.title] if self.title else []


_PLAIN = FigureLayout()


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


def plot_reliability(
    pictures: Sequence[Picture],
    kind: Kind,
    style: Style = "binned",
    layout: FigureLayout = _PLAIN,
) -> bytes:
    """A figure with a column for each measurement, four to a row.

    Parameters
    ----------
    pictures : sequence of Picture
        At least one.
    kind : str
        ``"png"``, ``"svg"`` or ``"pdf"``.
    style : str
        ``"binned"`` or ``"corp"``.
    layout : FigureLayout

    Returns
    -------
    bytes
        Of the file; the same for the same pictures.
    """
    with house_style():
        return encode_figure(_columns(pictures, style, layout), kind)


def plot_overlay(
    pictures: Sequence[Picture],
    kind: Kind,
    style: Style = "binned",
    layout: FigureLayout = _PLAIN,
) -> bytes:
    """A figure with all measurements in one panel.

    Parameters are those of `plot_reliability`.

    Raises
    ------
    UsageError
        More measurements than can be told apart.
    """
    _check_overlaid(len(pictures), "--plot-overlay")
    with house_style():
        return encode_figure(_overlaid(pictures, style, layout), kind)


def _check_overlaid(count: int, flag: str) -> None:
    if count > MOST_OVERLAID:
        raise UsageError(
            f"{flag} lays measurements over each other: at most {MOST_OVERLAID} inputs, here are "
            f"{count}"
        )


def plot_multiples(
    multiples: Sequence[Multiple],
    pictures: Sequence[Picture],
    kind: Kind,
    *,
    of: int,
    noun: str,
    layout: FigureLayout = _PLAIN,
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
    layout : FigureLayout

    Raises
    ------
    UsageError
        More measurements than can be told apart in one panel.
    """
    _check_overlaid(len(pictures), f"--plot-by {noun}")
    with house_style():
        return encode_figure(_grid(multiples, pictures, of, noun, layout), kind)


def colours(names: Sequence[str]) -> list[str]:
    """A colour for each measurement: before and after have colours of their own."""
    if list(names) == BEFORE_AFTER:
        return [VERMILION, BLUE]
    return list(COLOURS[: len(names)])


def _overlaid(pictures: Sequence[Picture], style: Style, layout: FigureLayout = _PLAIN) -> Figure:
    names = [picture.title for picture in pictures]
    named = dict(zip(names, colours(names), strict=True))
    sheet = Sheet(
        1,
        1,
        _PANEL,
        below=_HISTOGRAM,
        between=(_GAP, _ROW_GAP),
        title=_NO_TITLE,
        legend=overlay_texts(named, style),
        headings=layout.headings,
        width=layout.width,
    )
    above, below = sheet.panel(0), sheet.panel_below(0)
    scale, named_axes = common_scale(pictures), axis_names(pictures)
    overlay(above, pictures, style, list(named.values()), scale)
    overlay_histogram(below, pictures, list(named.values()), scale)
    below.set_xlabel(named_axes[0])
    _label(sheet, above, below, named_axes[1])
    add_overlay_key(sheet.figure, style, named, sheet.legend_columns)
    return sheet.figure


def _label(sheet: Sheet, above: Axes, below: Axes, name: str) -> None:
    """The names of the vertical axes of a panel and the one below it."""
    above.set_ylabel(name)
    below.set_ylabel("rows")
    # The numbers of the two differ in width, their names stand in a line all the same.
    for axis in (above, below):
        axis.yaxis.set_label_coords(-0.4 / sheet.side, 0.5)


def _columns(pictures: Sequence[Picture], style: Style, layout: FigureLayout = _PLAIN) -> Figure:
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
        headings=layout.headings,
        width=layout.width,
    )
    longest = int(_LONGEST_TITLE * min(1.0, sheet.side / _PANEL))
    names = [picture.title for picture in pictures]
    shades = colours(names) if names == BEFORE_AFTER else [BLUE] * len(names)
    scale, named = common_scale(pictures), axis_names(pictures)
    histograms = [picture.diagram.histogram(scale) for picture in pictures]
    tallest = max(float(weight_shares(bins).max()) for _, bins in histograms)
    for place, (picture, shade) in enumerate(zip(pictures, shades, strict=True)):
        above, below = sheet.panel(place), sheet.panel_below(place)
        title = cut_inside(picture.title, longest) if titled else ""
        reliability(above, picture, style, shade, scale, title)
        edges, bins = histograms[place]
        histogram(below, edges, weight_shares(bins), shade, tallest, scale)
        below.set_xlabel(named[0])
        if sheet.is_first(place):
            _label(sheet, above, below, named[1])
        else:
            above.tick_params(labelleft=False)
            below.tick_params(labelleft=False)
    add_key(sheet.figure, style, {entry: shades[-1]}, sheet.legend_columns)
    return sheet.figure


def _grid(
    multiples: Sequence[Multiple],
    pictures: Sequence[Picture],
    of: int,
    noun: str,
    layout: FigureLayout = _PLAIN,
) -> Figure:
    names = [picture.title for picture in pictures]
    scale, named_axes, bins = Scale(), axis_names([]), bin_words([])
    if noun == "slice":
        scale = common_scale(pictures, [d for multiple in multiples for d in multiple.diagrams])
        named_axes, bins = axis_names(pictures), bin_words(pictures)
    wide = 5 if len(multiples) % 5 == 0 else 4
    headings = layout.headings
    if of > len(multiples):
        headings.append(_CHOICES[noun].format(shown=len(multiples), all=plural(of, noun)))
    shades = colours(names)
    named = dict(zip(names, shades, strict=True)) if len(names) > 1 else {bins: shades[0]}
    sheet = Sheet(
        len(multiples),
        wide,
        _SMALL,
        between=(_GAP, _SMALL_ROW_GAP),
        title=_TITLE,
        legend=key_texts(named),
        headings=headings,
        width=layout.width,
    )
    for place, multiple in enumerate(multiples):
        axis = sheet.panel(place)
        small_reliability(axis, multiple, shades, scale)
        axis.tick_params(labelleft=sheet.is_first(place), labelbottom=sheet.is_last(place))
        if sheet.is_first(place):
            axis.set_ylabel(named_axes[1], labelpad=2)
        if sheet.is_last(place):
            axis.set_xlabel(named_axes[0], labelpad=2)
    add_key(sheet.figure, "binned", named, sheet.legend_columns)
    return sheet.figure
