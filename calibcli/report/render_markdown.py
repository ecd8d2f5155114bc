"""A result document as a page of Markdown, in GitHub's dialect."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from calibcli.report.comparison import (
    columns,
    convention_lines,
    judged_columns,
    verdict_lines,
)
from calibcli.report.differences import reasons_not_compared
from calibcli.report.document import is_fit, results_of, title_of
from calibcli.report.gate_results import gate_lines
from calibcli.report.summary import summary
from calibcli.report.table import Cell, Table, TableColumn, TableRow, flat
from calibcli.report.tables import (
    SHOWN_IN_TEXT,
    candidate_lines,
    diagnostic_tables,
    differences_table,
    groups_table,
    leaderboard_table,
    metrics_table,
    reliability_table,
    target_table,
)
from calibcli.visible import visible
from calibcli.workflow.texts import capitalised

if TYPE_CHECKING:
    from calibcli.schema.documents import Document

_ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}
_MARK = "*"
_SPECIAL = re.compile(r"`|<(?=[a-zA-Z/!?])|(?<=\])[(\[:]")
"""What begins code, HTML or the target of a link."""


def to_markdown(document: Document) -> str:
    """A page for a pull request, an issue or a job summary: GitHub's dialect."""
    return "\n".join(_markdown(document)) + "\n"


def _escape(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", visible(text))


def _markdown(document: Document) -> Iterator[str]:
    yield f"### {_escape(title_of(document)) or 'calib ' + document['command']}"
    yield ""
    for result in results_of(document):
        for name, text in summary(result):
            yield f"- {f'**{name}** ' if name else ''}{_escape(text)}"
    for name, text in verdict_lines(document):
        yield f"- **{_escape(name)}** {_escape(text)}"
    yield ""
    yield from _gates(document)
    leaderboard = leaderboard_table(document)
    if leaderboard is not None:
        yield from _table(leaderboard)
        yield ""
        legend = f"{_MARK} chosen; {flat(leaderboard).legend}"
        yield from (f"{_escape(line)}  " for line in (legend, *candidate_lines(document)))
        yield ""
    metrics = metrics_table(document)
    if metrics is None and is_fit(document):
        yield "Nothing was measured."
        yield ""
    groups = groups_table(document, SHOWN_IN_TEXT)
    for table in (target_table(document), metrics, differences_table(document), groups):
        if table is not None:
            yield from _captioned(table)
    for text in reasons_not_compared(document):
        yield _escape(text)
        yield ""
    for table in diagnostic_tables(document):
        yield from _captioned(table)
    yield from _measured(document)


def _measured(document: Document) -> Iterator[str]:
    """What the bins say in full, and how the metrics are defined."""
    shown = columns(document)
    for place, column in enumerate(judged_columns(document)):
        if place:
            yield ""
        bins = reliability_table(column.part)
        yield from _details(f"Reliability: {column.title}", _table(bins))
    conventions = convention_lines(shown)
    if not conventions:
        return
    yield ""
    lines = [f"- {_escape(title)}: {_escape(text)}" for title, text in conventions]
    yield from _details("Conventions", lines)


def _gates(document: Document) -> Iterator[str]:
    lines = gate_lines(document)
    if not lines:
        return
    named = any(line.input_name for line in lines)
    heads = [TableColumn(name, align="left") for name in ("gate", "", "", "input")]
    rows = [
        TableRow(
            [
                Cell(line.expression, code=True),
                Cell(line.outcome, look=line.outcome),
                Cell(line.figures),
                Cell(line.input_name),
            ]
        )
        for line in lines
    ]
    table = Table(heads, rows)
    yield from _table(table if named else table.pick([0, 1, 2]))
    yield ""


def _captioned(table: Table) -> Iterator[str]:
    yield from _table(table)
    yield ""
    if table.caption:
        yield _escape(f"{table.input_name}: {table.caption}".removeprefix(": "))
        yield ""
    legend = flat(table).legend
    if legend:
        yield _escape(capitalised(f"{legend}."))
        yield ""


def _table(table: Table) -> list[str]:
    table = flat(table)
    heads = [_escape(column.input_name or column.heading) for column in table.columns]
    rule = [":--" if column.align == "left" else "--:" for column in table.columns]
    rows = [
        [_shown(row, cell, place) for place, cell in enumerate(row.cells)] for row in table.rows
    ]
    return [
        f"| {' | '.join(text.replace('|', '&#124;') for text in line)} |"
        for line in (heads, rule, *rows)
    ]


def _shown(row: TableRow, cell: Cell, place: int) -> str:
    text = f"`{_escape(cell.text)}`" if cell.code else _escape(cell.text)
    mark = _MARK if row.look == "chosen" and place == 0 else ""
    return f"**{text}**" if cell.look == "failed" else text + mark + _ARROWS[cell.way]


def _details(heading: str, lines: Sequence[str]) -> list[str]:
    return ["<details>", f"<summary>{_escape(heading)}</summary>", "", *lines, "", "</details>"]
