"""Where the panels of a figure stand, to the hundredth of an inch: squares stay squares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEFT, _RIGHT, _BOTTOM = 0.56, 0.14, 0.64
_STACKED = 0.12
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
    top : float
        Space for a heading over everything, in inches.
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
        top: float = 0.0,
    ) -> None:
        from matplotlib.figure import Figure

        self._panels, self._side, self._below = panels, side, below
        self._rows = -(-panels // most)
        self._wide = -(-panels // self._rows)
        self._step = side + between[0]
        tall = title + side + (below + _STACKED if below else 0.0)
        # With panels below, every row has an axis with numbers and a name; without, the last has.
        self._down = tall + between[1] + (0.2 if below else 0.0)
        self.width = _LEFT + self._wide * self._step - between[0] + _RIGHT
        # In one line where it fits, else in two.
        entries = sum(_LEGEND_ENTRY + _LEGEND_LETTER * len(text) for text in legend)
        self.legend_columns = len(legend) if entries <= self.width else -(-len(legend) // 2)
        bottom = _BOTTOM + (_LEGEND_LINE if self.legend_columns < len(legend) else 0.0)
        self.height = top + (self._rows - 1) * self._down + tall + bottom
        self._top, self._title = top, title
        self.figure = Figure(figsize=(self.width, self.height))

    def is_first(self, place: int) -> bool:
        """Whether a panel is the first of its row."""
        return place % self._wide == 0

    def is_last(self, place: int) -> bool:
        """Whether no panel stands below."""
        return place + self._wide >= self._panels

    def panel(self, place: int) -> Axes:
        """A new square panel."""
        return self._axes(place, self._title, self._side)

    def panel_below(self, place: int) -> Axes:
        """A new flat panel below it."""
        return self._axes(place, self._title + self._side + _STACKED, self._below)

    def _axes(self, place: int, down: float, height: float) -> Axes:
        row, column = divmod(place, self._wide)
        left = _LEFT + column * self._step
        bottom = self.height - self._top - row * self._down - down - height
        inches = (left / self.width, bottom / self.height)
        return self.figure.add_axes((*inches, self._side / self.width, height / self.height))
