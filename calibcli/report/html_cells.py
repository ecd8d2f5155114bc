"""Tables of a page, cell by cell, as HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape as escape_html

from calibcli.report.table import Cell, Table, TableRow, Whisker
from calibcli.report.texts import NO_VALUE

CHOSEN = '<span class="pill good">chosen</span>'

_MINUS, _MISSING, _BLANK = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{NO-BREAK SPACE}"
_ARROWS = {
    "lower": '<span class="way" title="lower is better">↓</span>',
    "higher": '<span class="way" title="higher is better">↑</span>',
}


def escape(text: object) -> str:
    """Text as HTML, whatever characters are in it."""
    return escape_html(str(text), quote=True)


def number(text: str) -> str:
    """Text with numbers in it as HTML, with minus signs instead of hyphens."""
    return escape(text.replace("-", _MINUS))


def quiet(text: str) -> str:
    """A remark."""
    return f'<p class="quiet">{escape(text)}</p>'


def html_table(table: Table) -> str:
    """A table; the script sorts those that are ``sortable``."""
    table = table.shown_on("page").by_rank()
    is_sortable = "sortable" in table.kind
    heads = [escape(column.heading) for column in table.columns]
    # What is left out in text, where nobody reads a table aloud.
    heads[0] = heads[0] or "metric"
    lines = []
    for row in table.rows:
        if row.section:
            about = escape(row.section)
            lines.append(f'<tr><th class="about" colspan="{len(heads)}">{about}</th></tr>')
        lines.append(_line(row, is_sortable=is_sortable))
    return plain_table(heads, lines, table.kind, table.picks)


def _line(row: TableRow, *, is_sortable: bool) -> str:
    first, *others = row.cells
    way = f"{_BLANK}{_ARROWS[first.way]}" if first.way else ""
    chosen = f" {CHOSEN}" if row.look == "chosen" else ""
    look = ' class="chance"' if row.look == "chance" else ""
    tip = f' title="{escape(first.tip)}"' if first.tip else ""
    cells = "".join(_cell(cell, is_sortable=is_sortable) for cell in others)
    return f'<tr{look}><th scope="row"{tip}>{escape(first.text)}{way}{chosen}</th>{cells}</tr>'


def _cell(cell: Cell, *, is_sortable: bool) -> str:
    is_sorted = is_sortable and cell.value is not None and math.isfinite(cell.value)
    look = "best" if cell.look == "clear" else cell.look
    attributes = [
        f' class="{look}"' if look else "",
        f' title="{escape(cell.tip)}"' if cell.tip else "",
        f' data-v="{cell.value:.6g}"' if is_sorted else "",
    ]
    text = escape(cell.text) if cell.prose else _MISSING if cell.text == NO_VALUE else None
    parts = [
        _whisker(cell.whisker) if cell.whisker else "",
        number(cell.text) if text is None else text,
        f" <small>{escape(cell.word)}</small>" if cell.word else "",
        f' <small class="range">{number(cell.interval)}</small>' if cell.interval else "",
    ]
    return f"<td{''.join(attributes)}>{''.join(parts)}</td>"


def _whisker(whisker: Whisker) -> str:
    """A number and its interval on a line."""
    low, at, high = (100 * place for place in whisker)
    return (
        f'<span class="whisker"><i style="left:{low:.0f}%;width:{high - low:.0f}%"></i>'
        f'<b style="left:{at:.0f}%"></b></span>'
    )


def plain_table(headings: Sequence[str], lines: Sequence[str], kind: str, picks: str = "") -> str:
    """A table of headings and lines that are HTML."""
    heads = "".join(f'<th scope="col">{text}</th>' for text in headings)
    of = f' data-of="{picks}"' if picks else ""
    return (
        f'<div class="scroll{" tall" * ("sortable" in kind)}"><table class="{kind}"{of}>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
