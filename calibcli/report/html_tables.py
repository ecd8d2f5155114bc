"""The tables of a page: metrics, what was looked at more closely, methods, groups and slices."""

from __future__ import annotations

from collections.abc import Sequence

from calibcli.report.differences import reasons_not_compared
from calibcli.report.document import is_fit
from calibcli.report.html_cells import CHOSEN, escape, html_table, quiet
from calibcli.report.table import Table
from calibcli.report.tables import (
    CHANCE_LEGEND,
    SHOWN_ON_PAGE,
    differences_table,
    groups_table,
    leaderboard_table,
    member_lines,
    metrics_table,
    refit_and_tests,
    slices_tables,
    target_table,
)
from calibcli.report.texts import capitalised
from calibcli.schema import Document

_INTERVALS = "In brackets: 95 % intervals."


def metrics_tables(document: Document) -> str:
    """The metrics of every measurement; of a fit, how they changed."""
    table, target = metrics_table(document), target_table(document)
    if table is None:
        return ""
    parts = [html_table(table)]
    if target is not None:
        parts += [f"<p>{escape(target.caption)}</p>", html_table(target)]
    differences = differences_table(document)
    if differences is not None:
        parts += [html_table(differences), quiet(differences.caption)]
    parts += [quiet(text) for text in reasons_not_compared(document)]
    legend = [_INTERVALS] if _has_intervals(table) else []
    if table.legend:
        legend.append(capitalised(f"{table.legend}."))
    elif any(cell.tip for row in table.rows for cell in row.cells[1:]):
        legend.append(f"Under the pointer, {CHANCE_LEGEND}.")
    return "\n".join([*parts, *([quiet(" ".join(legend))] if legend else [])])


def _has_intervals(table: Table) -> bool:
    return any(cell.interval for row in table.rows for cell in row.cells)


def further_tables(document: Document) -> str:
    """What was looked at more closely, methods that were compared, and groups with maps."""
    parts = []
    for table in refit_and_tests(document):
        parts += [_heading(table), html_table(table), quiet(capitalised(table.caption))]
    leaderboard = leaderboard_table(document)
    if leaderboard is not None:
        parts += [_heading(leaderboard), *_methods(document, leaderboard)]
    groups = groups_table(document, SHOWN_ON_PAGE)
    if groups is not None:
        parts += [_heading(groups), html_table(groups), quiet(groups.caption)]
    return "\n".join(parts)


def _heading(table: Table) -> str:
    return f"<h3>{_title(table)}</h3>"


def _title(table: Table) -> str:
    return escape(table.heading + (f": {table.input_name}" if table.input_name else ""))


def _methods(document: Document, table: Table) -> Sequence[str]:
    notes = document["fit"]["notes"] if is_fit(document) else []
    about = f"Of held-out rows. {_INTERVALS} {capitalised(table.shown_on('page').legend)}."
    return [
        *(f"<p>{CHOSEN}{escape(text)}.</p>" for text in notes[:1]),
        html_table(table),
        quiet(" ".join([about, *(f"{line}." for line in member_lines(document))])),
    ]


def slice_sections(document: Document) -> str:
    """A section for the slices of each column, and of the predicted classes; the worst first."""
    return "\n".join(
        f'<section aria-labelledby="slices-{place}">\n'
        f'<h2 id="slices-{place}">{_title(table)}</h2>\n'
        f"{quiet(table.caption)}\n{html_table(table)}\n</section>"
        for place, table in enumerate(slices_tables(document))
    )
