"""Slices, tests and refits of a result document as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from calibcli.report.document import Document
from calibcli.report.glyphs import Glyphs
from calibcli.report.judgements import (
    REFIT_HEADINGS,
    TEST_CAPTION,
    TEST_HEADINGS,
    refit_caption,
    refit_rows,
    test_rows,
)
from calibcli.report.slices import HEADINGS, slice_caption, slice_heading, slice_rows


def closer_parts(document: Document) -> Iterator[tuple[list[str], list[list[str]], str]]:
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


def closer_tables(document: Document, glyphs: Glyphs) -> Iterator[tuple[Table, Text]]:
    """The same as tables with captions."""
    for headings, rows, caption in closer_parts(document):
        yield _table(headings, rows, glyphs), Text(caption, "dim")


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], glyphs: Glyphs) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(Text(heading), justify="right" if place else "left")
    for name, *texts in rows:
        # Text, not markup: the name of a slice may have brackets in it.
        table.add_row(Text(name), *(Text(glyphs.number(text)) for text in texts))
    return table
