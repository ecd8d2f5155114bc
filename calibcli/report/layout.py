"""Tables of the terminal: without lines, a gap between columns."""

from __future__ import annotations

from rich.table import Table

GAP = 2
"""Spaces between two columns."""

_PADDING = (0, GAP, 0, 0)


def open_table() -> Table:
    """An empty table with headings."""
    return Table(box=None, pad_edge=False, padding=_PADDING, header_style="bold")


def open_grid() -> Table:
    """An empty table without headings."""
    return Table.grid(padding=_PADDING)
