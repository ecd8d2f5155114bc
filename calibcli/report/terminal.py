"""A whole result on the terminal: summary, metrics, reliability diagrams."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from calibcli.report.comparison import BALANCED_CAPTION, caption, columns, is_fit
from calibcli.report.diagnostic_tables import diagnostic_tables
from calibcli.report.document import Document
from calibcli.report.gates import gates_table
from calibcli.report.glyphs import Glyphs, glyphs_for
from calibcli.report.groups import group_caption, groups_table
from calibcli.report.layout import open_grid, open_table
from calibcli.report.leaderboard import leaderboard_legend, leaderboard_table
from calibcli.report.reliability import VERDICT_STYLES, reliability_diagrams
from calibcli.report.summary import did_not_converge, summary
from calibcli.report.tables import balanced_table, footnotes, legend, metrics_tables
from calibcli.report.texts import count, percent
from calibcli.report.verdict import verdict

DIAGRAMS = 2
"""Diagrams are drawn of so many inputs; of more, a table of verdicts says the same."""


def print_document(document: Document, console: Console, *, conventions: bool = False) -> None:
    """Print a result document for a person.

    Parameters
    ----------
    document : dict
        As `calibcli.report.document` makes it.
    console : Console
        Its width, encoding and colours decide what the output looks like.
    conventions : bool
        Whether to say below how every metric is defined.
    """
    glyphs = glyphs_for(console)
    several = len(document.get("results", [])) > 1
    console.print(_inputs(document) if several else _summary(document))
    console.print()
    _print_leaderboard(document, console, glyphs)
    shown = columns(document)
    if shown:
        for table in metrics_tables(document, glyphs, console.width):
            console.print(table)
            console.print()
    if caption(document):
        console.print(Text(caption(document)))
    balanced = balanced_table(document, glyphs, console.width)
    if balanced is not None:
        console.print()
        console.print(balanced)
        console.print()
        console.print(Text(BALANCED_CAPTION))
    _print_groups(document, console, glyphs)
    if shown:
        console.print(legend(document, glyphs))
        for table, about in diagnostic_tables(document, glyphs, console.width):
            console.print()
            console.print(table)
            console.print()
            console.print(about)
        _print_diagrams(document, console, glyphs)
    if document.get("gates"):
        console.print()
        console.print(gates_table(document, glyphs))
    if conventions:
        console.print()
        console.print(footnotes(document))


def _print_leaderboard(document: Document, console: Console, glyphs: Glyphs) -> None:
    entries = document.get("leaderboard")
    if not entries:
        return
    console.print(leaderboard_table(entries, glyphs))
    console.print()
    for line in leaderboard_legend(entries):
        console.print(Text(line, "dim"))
    if columns(document):
        console.print()


def _print_groups(document: Document, console: Console, glyphs: Glyphs) -> None:
    if not document.get("groups"):
        return
    console.print()
    console.print(groups_table(document, glyphs))
    console.print()
    console.print(Text(group_caption(document)))


def _print_diagrams(document: Document, console: Console, glyphs: Glyphs) -> None:
    shown = columns(document)
    if len(shown) > DIAGRAMS:
        return
    titled = is_fit(document) or len(shown) > 1
    parts = [(c.title if titled else "", c.part["reliability"]) for c in shown]
    console.print()
    for line in reliability_diagrams(parts, glyphs, console.width):
        line.rstrip()
        # Whatever is too wide for a very narrow terminal is cut: wrapped bars say nothing.
        console.print(line, no_wrap=True, overflow="crop", crop=True)


def _summary(document: Document) -> Table:
    grid = open_grid()
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for label, text in summary(document):
        failed = label == "fitted" and did_not_converge(document)
        grid.add_row(Text(label), Text(text, "bold red" if failed else ""))
    return grid


def _inputs(document: Document) -> Table:
    """Several inputs: how large they are, and what is to be thought of them."""
    table = open_table()
    for heading in ("input", "rows", "classes", "says", "right", "verdict"):
        table.add_column(heading, justify="left" if heading in ("input", "verdict") else "right")
    for column in columns(document):
        part = column.part
        found = verdict(part["reliability"])
        table.add_row(
            Text(column.title),
            count(part["rows"]),
            count(part["classes"]),
            *("" if share is None else percent(share) for share in (found.says, found.right)),
            Text(found.word, VERDICT_STYLES[found.look]),
        )
    return table
