"""Slices, tests and refits of a result document as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from calibcli.report.diagnostics import (
    REFIT_HEADINGS,
    TEST_CAPTION,
    TEST_HEADINGS,
    refit_caption,
    refit_rows,
    test_rows,
)
from calibcli.report.document import Document
from calibcli.report.glyphs import Glyphs
from calibcli.report.layout import GAP, open_table
from calibcli.report.slices import HEADINGS, slice_caption, slice_heading, slice_rows
from calibcli.report.texts import INTERVAL_HEADING

DISPENSABLE = ("Brier", INTERVAL_HEADING, "NLL")
"""Columns that narrow terminals go without: half a number is worse than none."""


def diagnostic_parts(document: Document) -> Iterator[tuple[list[str], list[list[str]], str]]:
    """Headings, rows and a caption for everything that was looked at more closely."""
    several = document.get("results", [document])
    for result in several:
        name = f"{result['input']['name']}: " if len(several) > 1 else ""
        if result.get("refit"):
            refit = result["refit"]
            yield list(REFIT_HEADINGS), refit_rows(refit), name + refit_caption(refit)
        if result.get("tests"):
            yield list(TEST_HEADINGS), test_rows(result["tests"]), name + TEST_CAPTION
        for part in result.get("slices", []):
            yield [slice_heading(part), *HEADINGS], slice_rows(part), name + slice_caption(part)


def diagnostic_tables(
    document: Document, glyphs: Glyphs, width: int
) -> Iterator[tuple[Table, Text]]:
    """The same as tables with captions, without what the width has no room for."""
    for headings, rows, caption in diagnostic_parts(document):
        yield _table(*_fitting(headings, rows, width), glyphs), Text(caption, "dim")


def _fitting(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[str], list[list[str]]]:
    """The columns that fit: of those that can be done without, the first go first."""
    columns = [list(column) for column in zip(headings, *rows, strict=True)]
    for heading in DISPENSABLE:
        if sum(max(map(cell_len, column)) + GAP for column in columns) - GAP <= width:
            break
        columns = [column for column in columns if column[0] != heading]
    first, *rest = (list(row) for row in zip(*columns, strict=True))
    return first, rest


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], glyphs: Glyphs) -> Table:
    table = open_table()
    for place, heading in enumerate(headings):
        table.add_column(Text(heading), justify="right" if place else "left")
    for name, *texts in rows:
        # Text, not markup: the name of a slice may have brackets in it.
        table.add_row(Text(name), *(Text(glyphs.number(text)) for text in texts))
    return table
