"""How figures look: colours, fonts, where their panels stand, and the bytes of a finished figure.

Places are given to the hundredth of an inch: squares stay squares.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind: TypeAlias = Literal["png", "svg", "pdf"]

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
"""Four colours that everybody can tell apart (Okabe and Ito, 2008)."""

COLOURS = (BLUE, VERMILION, GREEN, PURPLE)
BAND, DIAGONAL, TEXT, RULE = "#E3E3E3", "#8A8A8A", "#222222", "#666666"

_DOTS_PER_INCH = 300

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.edgecolor": RULE,
    "axes.labelcolor": TEXT,
    "text.color": TEXT,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # Publishers want fonts in the file, and the same figure should have the same bytes.
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "calib",
}

# Everything that would differ between two runs or machines is left out.
_METADATA: dict[Kind, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}

_LEFT, _RIGHT, _BOTTOM = 0.56, 0.14, 0.64
_STACKED, _HEADING = 0.12, 0.22
_LARGER = 1.4
"""So many times their usual size are panels at most, however wide the figure is."""

_LEGEND_ENTRY, _LEGEND_LETTER, _LEGEND_LINE = 0.33, 0.053, 0.16


class Sheet:
    """A figure with equal square panels in rows, each with a flat one below it if need be.

    Parameters
    ----------
    panels, most : int
        How many there are, and how many stand in a row at most; rows are as even as they can be.
    side, below : float
        Of a square panel, and the height of the panel below it, in inches; 0 for none.
    between : (float, float)
        Space between columns and between rows, in inches, without titles and labels.
    title : float
        Space over each square panel, in inches.
    legend : sequence of str
        What the legend below everything says.
    headings : sequence of str
        Lines over everything.
    width : float or None
        Of the figure, in inches, for panels that are as large as it allows, and no more in a row
        than have a fair size; None: as wide as the panels are.
    """

    def __init__(
        self,
        panels: int,
        most: int,
        side: float,
        *,
        below: float = 0.0,
        between: tuple[float, float],
        title: float,
        legend: Sequence[str],
        headings: Sequence[str] = (),
        width: float | None = None,
    ) -> None:
        from matplotlib.figure import Figure

        room = 0.0 if width is None else width - _LEFT - _RIGHT + between[0]
        if width is not None:
            # Half as large as usual is still a fair size.
            most = max(min(most, int(room / (side / 2 + between[0]))), 1)
        self._panels, self._below = panels, below
        self._rows = -(-panels // most)
        self._wide = -(-panels // self._rows)
        if width is not None:
            side = min(room / self._wide - between[0], side * _LARGER)
        self.side = side
        self._step = side + between[0]
        tall = title + side + (below + _STACKED if below else 0.0)
        # With panels below, every row has an axis with numbers and a name; without, the last has.
        self._down = tall + between[1] + (0.2 if below else 0.0)
        taken = _LEFT + self._wide * self._step - between[0] + _RIGHT
        self.width = taken if width is None else width
        self._left = _LEFT + (self.width - taken) / 2
        lines = next(n for n in range(1, len(legend) + 1) if self._fits(legend, n))
        self.legend_columns = -(-len(legend) // lines)
        bottom = _BOTTOM + (lines - 1) * _LEGEND_LINE
        top = _HEADING * len(headings)
        self.height = top + (self._rows - 1) * self._down + tall + bottom
        self._top, self._title = top, title
        self.figure = Figure(figsize=(self.width, self.height))
        for line, text in enumerate(headings):
            down = 1 - (0.06 + line * _HEADING) / self.height
            self.figure.text(0.5, down, text, fontsize=9, ha="center", va="top", parse_math=False)

    def _fits(self, legend: Sequence[str], lines: int) -> bool:
        """Whether the legend has room in so many lines; in as many as it has entries it must."""
        lengths = [_LEGEND_ENTRY + _LEGEND_LETTER * len(text) for text in legend]
        columns = [lengths[at : at + lines] for at in range(0, len(lengths), lines)]
        return lines == len(legend) or sum(map(max, columns)) <= self.width

    def is_first(self, place: int) -> bool:
        """Whether a panel is the first of its row."""
        return place % self._wide == 0

    def is_last(self, place: int) -> bool:
        """Whether no panel stands below."""
        return place + self._wide >= self._panels

    def panel(self, place: int) -> Axes:
        """A new square panel."""
        return self._axes(place, self._title, self.side)

    def panel_below(self, place: int) -> Axes:
        """A new flat panel below it."""
        return self._axes(place, self._title + self.side + _STACKED, self._below)

    def _axes(self, place: int, down: float, height: float) -> Axes:
        row, column = divmod(place, self._wide)
        left = self._left + column * self._step
        bottom = self.height - self._top - row * self._down - down - height
        inches = (left / self.width, bottom / self.height)
        return self.figure.add_axes((*inches, self.side / self.width, height / self.height))


@contextmanager
def house_style() -> Iterator[None]:
    """Within it, figures are made in the style of this module."""
    import matplotlib as mpl

    with warnings.catch_warnings(), mpl.rc_context({**mpl.rcParamsDefault, **_SETTINGS}):
        # A name with a character that the font has not is drawn with a box for it.
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        yield


def encode_figure(figure: Figure, kind: Kind) -> bytes:
    """The bytes of a file with this figure, the same in every run."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=_DOTS_PER_INCH, metadata=_METADATA[kind])
    return buffer.getvalue()
