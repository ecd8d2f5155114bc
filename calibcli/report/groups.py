"""The groups of a fit with maps of their own, as rows of a table: the worst first."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from calibcli.report.comparison import change
from calibcli.report.document import Document
from calibcli.report.glyphs import Glyphs
from calibcli.report.layout import open_table
from calibcli.report.tables import CHANGE_STYLES
from calibcli.report.texts import align_at_point, count, cut_end, difference, percent, significant

MOST_SHOWN = 10
HEADINGS = ("rows", "own map", "NLL before", "after", "change")


def group_rows(document: Document) -> list[list[str]]:
    """A row for each of the worst groups: its name, and what `HEADINGS` say."""
    shown = _shown(document)
    pairs = [(entry["nll"]["before"], entry["nll"]["after"]) for entry in shown]
    return [
        [
            cut_end(entry["name"]),
            count(entry["rows"]),
            percent(entry["share"]),
            *map(significant, pair),
            difference(*pair),
        ]
        for entry, pair in zip(shown, pairs, strict=True)
    ]


def group_heading(document: Document) -> str:
    """The column whose values the groups are."""
    return str(document["groups"]["column"])


def group_caption(document: Document, most: int = MOST_SHOWN) -> str:
    """How many groups there are, and which are shown."""
    every = len(document["groups"]["groups"])
    column = group_heading(document)
    if every > most:
        return f"The {most} of {every} groups of {column!r} with the largest NLL afterwards."
    return f"The {every} groups of {column!r}, the largest NLL afterwards first."


def groups_table(document: Document, glyphs: Glyphs) -> Table:
    """The worst groups, for a terminal."""
    rows = group_rows(document)
    table = open_table()
    table.add_column(Text(cut_end(group_heading(document))), no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    aligned = [align_at_point([row[place] for row in rows]) for place in (3, 4, 5)]
    for row, entry, *numbers in zip(rows, _shown(document), *aligned, strict=True):
        nll = entry["nll"]
        style = CHANGE_STYLES[change("nll", nll["before"], nll["after"], row[5])]
        *levels, shift = (glyphs.number(text) for text in numbers)
        # Text, not markup: the name of a group may have brackets in it.
        table.add_row(Text(row[0]), *row[1:3], *levels, Text(shift, style))
    return table


def _shown(document: Document) -> Sequence[Document]:
    shown: Sequence[Document] = document["groups"]["groups"][:MOST_SHOWN]
    return shown
