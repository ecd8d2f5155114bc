"""Reliability diagrams for papers: PNG, SVG or PDF, drawn by matplotlib.

A column a measurement: what the model says against how often it is right, where a calibrated model
would lie, and below how its confidence is spread. Or a small diagram for each class or slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from calibcli.errors import UsageError
from calibcli.report.plot_data import Multiple, Picture, Style
from calibcli.report.plot_panels import (
    add_key,
    histogram,
    key_texts,
    reliability,
    small_reliability,
)
from calibcli.report.plot_sheet import Sheet
from calibcli.report.plot_style import BLUE, COLOURS, VERMILION, Kind, encode_figure, house_style
from calibcli.report.texts import plural

if TYPE_CHECKING:
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
    multiples: Sequence[Multiple], names: Sequence[str], kind: Kind, *, of: int, noun: str
) -> bytes:
    """A figure of small diagrams that all measurements share.

    Parameters
    ----------
    multiples : sequence of Multiple
        One for each panel.
    names : sequence of str
        Of the measurements, for the legend.
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
    if len(names) > MOST_OVERLAID:
        raise UsageError(
            f"--plot-by {noun} lays measurements over each other: at most {MOST_OVERLAID} inputs, "
            f"here are {len(names)}"
        )
    with house_style():
        return encode_figure(_grid(multiples, names, of, noun), kind)


def colours(names: Sequence[str]) -> list[str]:
    """A colour for each measurement: before and after have colours of their own."""
    if list(names) == BEFORE_AFTER:
        return [VERMILION, BLUE]
    return list(COLOURS[: len(names)])


def _columns(pictures: Sequence[Picture], style: Style) -> Figure:
    titled = len(pictures) > 1
    entry = "15 bins" if style == "binned" else "CORP curve"
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
    tallest = max(float(picture.diagram.shares.max()) for picture in pictures)
    for place, (picture, shade) in enumerate(zip(pictures, shades, strict=True)):
        above, below = sheet.panel(place), sheet.panel_below(place)
        reliability(above, picture, style, shade, titled=titled)
        histogram(below, picture.diagram, shade, tallest)
        if sheet.is_first(place):
            above.set_ylabel("accuracy")
            below.set_ylabel("rows")
            # The numbers of the two differ in width, their names stand in a line all the same.
            for axis in (above, below):
                axis.yaxis.set_label_coords(-0.4 / _PANEL, 0.5)
        else:
            above.tick_params(labelleft=False)
            below.tick_params(labelleft=False)
    add_key(sheet.figure, style, {entry: shades[-1]}, sheet.legend_columns)
    return sheet.figure


def _grid(multiples: Sequence[Multiple], names: Sequence[str], of: int, noun: str) -> Figure:
    wide = 5 if len(multiples) % 5 == 0 else 4
    fewer = of > len(multiples)
    shades = colours(names)
    named = dict(zip(names, shades, strict=True)) if len(names) > 1 else {"15 bins": shades[0]}
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
        small_reliability(axis, multiple, shades)
        axis.tick_params(labelleft=sheet.is_first(place), labelbottom=sheet.is_last(place))
        if sheet.is_first(place):
            axis.set_ylabel("accuracy", labelpad=2)
        if sheet.is_last(place):
            axis.set_xlabel("confidence", labelpad=2)
    if fewer:
        chosen = _CHOICES[noun].format(shown=len(multiples), all=plural(of, noun))
        sheet.figure.text(0.5, 1 - 0.06 / sheet.height, chosen, fontsize=9, ha="center", va="top")
    add_key(sheet.figure, "binned", named, sheet.legend_columns)
    return sheet.figure
