"""The tables of a result document for LaTeX, in the style of booktabs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from calibcli.report.document import title_of
from calibcli.report.table import Cell, Table, TableRow, flat
from calibcli.report.tables import (
    SHOWN_IN_TEXT,
    diagnostic_tables,
    differences_table,
    groups_table,
    leaderboard_table,
    metrics_table,
    target_table,
)
from calibcli.visible import visible
from calibcli.workflow.texts import INFINITE, capitalised

if TYPE_CHECKING:
    from calibcli.schema.documents import Document

_COMMANDS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    **{sign: f"\\{sign}" for sign in "$&#_%"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}
_SPECIAL = re.compile(f"[{re.escape(''.join(_COMMANDS))}]")
_LIGATURE = re.compile("(?<=[-`',?!])(?=[-`',])")
"""Between signs of which two are another sign: a dash, a quote."""

_SIGN = re.compile(r"(?<![\w.])([-+])(?=[\d.]|inf)")
_WAYS = {"lower": r" $\downarrow$", "higher": r" $\uparrow$", "": ""}
_BOLD_LOOKS = ("best", "failed")


def to_latex(document: Document) -> str:
    r"""Tables to be included: each a ``table`` with a caption; they need ``\usepackage{booktabs}``.

    Quotes and signs of names need a font encoding that has them: ``\usepackage[T1]{fontenc}``.
    """
    title = title_of(document)
    tables = [table for table in _tables(document) if table is not None]
    head = r"% Needs \usepackage{booktabs} and \usepackage[T1]{fontenc}."
    return "\n".join([head, *(line for table in tables for line in _drawn(table, title))]) + "\n"


def _tables(document: Document) -> Iterator[Table | None]:
    yield leaderboard_table(document)
    yield target_table(document)
    yield metrics_table(document)
    yield differences_table(document)
    yield groups_table(document, SHOWN_IN_TEXT)
    yield from diagnostic_tables(document)


def _escape(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return _LIGATURE.sub("{}", _SPECIAL.sub(lambda match: _COMMANDS[match[0]], visible(text)))


def _number(text: str) -> str:
    """Numbers with the signs of mathematics."""
    parts = _SIGN.split(text)
    signed = "".join(f"${part}$" if i % 2 else _escape(part) for i, part in enumerate(parts))
    return re.sub(rf"\b{INFINITE}\b", r"$\\infty$", signed)


def _drawn(table: Table, title: str) -> Iterator[str]:
    shown = flat(table)
    ways = any(row.cells[0].way for row in shown.rows)
    yield r"\begin{table}"
    yield r"  \centering"
    yield f"  \\caption{{{_caption(table, title, ways=ways)}}}"
    sides = "".join(
        "l" if column.align == "left" or (column.leading and column.beside) else "r"
        for column in shown.columns
    )
    yield f"  \\begin{{tabular}}{{{sides}}}"
    yield r"    \toprule"
    yield _line([_escape(column.input_name or column.heading) for column in shown.columns])
    yield r"    \midrule"
    for place, row in enumerate(shown.rows):
        if row.section:
            if place:
                yield r"    \addlinespace"
            yield _line([f"\\multicolumn{{{len(sides)}}}{{l}}{{\\emph{{{_escape(row.section)}}}}}"])
        yield _line([_shown(row, cell, number) for number, cell in enumerate(row.cells)])
    yield r"    \bottomrule"
    yield r"  \end{tabular}"
    yield r"\end{table}"


def _line(cells: list[str]) -> str:
    # A bracket or a star would belong to the command that ends the line before.
    start = "{}" if cells[0].startswith(("[", "*")) else ""
    return f"    {start}{' & '.join(cells)} \\\\"


def _shown(row: TableRow, cell: Cell, place: int) -> str:
    text = _escape(cell.text) if cell.prose or place == 0 else _number(cell.text)
    bold = cell.look in _BOLD_LOOKS or (row.look == "chosen" and place == 0)
    return (f"\\textbf{{{text}}}" if bold and text else text) + _WAYS[cell.way]


def _caption(table: Table, title: str, *, ways: bool) -> str:
    """What the table is, and what its headings and marks mean."""
    heading = ": ".join(filter(None, (table.heading, table.input_name)))
    parts = [title, heading, table.caption, capitalised(flat(table).legend)]
    text = " ".join(f"{_escape(part.rstrip('.'))}." for part in parts if part)
    looks = {cell.look for row in table.rows for cell in row.cells}
    if ways:
        text += r" $\downarrow$: lower is better, $\uparrow$: higher is better."
    if "best" in looks:
        text += " Bold: best of its row."
    return text.strip()
