"""A result as one page for a browser: words, tables, and diagrams that answer the pointer.

The page holds everything that it needs, and asks the browser to load nothing. Chart.js draws.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape as escape_html
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from calibcli.metrics.registry import LEADERBOARD_METRICS
from calibcli.report.comparison import (
    Column,
    caption,
    change,
    columns,
    convention_lines,
    judged_columns,
    metric_title,
)
from calibcli.report.differences import reasons_not_compared
from calibcli.report.document import is_fit, results_of, title_of
from calibcli.report.gate_results import failed_gates, gate_lines
from calibcli.report.html_data import payload, to_script
from calibcli.report.plot_data import Picture, axis_names, bin_words, common_scale
from calibcli.report.summary import summary
from calibcli.report.table import Cell, Table, TableRow, Whisker
from calibcli.report.tables import (
    CHANCE_LEGEND,
    SHOWN_ON_PAGE,
    candidate_lines,
    differences_table,
    groups_table,
    leaderboard_table,
    metrics_table,
    refit_and_tests,
    slices_tables,
    target_table,
)
from calibcli.workflow.texts import (
    INFINITE,
    NO_VALUE,
    capitalised,
    count,
    difference_text,
    plural,
    short_names,
    significant,
)
from calibcli.workflow.verdict import Verdict

if TYPE_CHECKING:
    from calibcli.schema.documents import Document

LIBRARY = "chart.umd.min.js"

_NAMED = 3
"""So many inputs are named in the title."""

_INTERVALS = "In brackets: 95 % intervals."

_CHOSEN = '<span class="pill good">chosen</span>'

_MINUS, _MISSING, _BLANK = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{NO-BREAK SPACE}"
_ARROWS = {
    "lower": '<span class="way" title="lower is better">↓</span>',
    "higher": '<span class="way" title="higher is better">↑</span>',
}


def render_report(
    document: Document,
    pictures: Sequence[Picture],
    *,
    files_read: Sequence[Mapping[str, Any]],
    made_with: Mapping[str, str],
) -> str:
    """The page.

    Parameters
    ----------
    document : Document
    pictures : sequence of Picture
        One for each of the document's columns, in their order.
    files_read : sequence of mapping
        ``role``, ``path``, ``bytes`` and ``sha256`` of each file.
    made_with : mapping of str to str
        Versions and settings, by what they are of.

    Returns
    -------
    str
        HTML; the same for the same arguments.
    """
    names = [column.title for column in judged_columns(document)]
    inputs = [result["input"]["name"] for result in results_of(document)]
    listed = ", ".join(short_names(inputs)[:_NAMED]) + (" …" if len(inputs) > _NAMED else "")
    title = title_of(document) or listed
    return Template(asset("report.html")).substitute(
        title=escape(title),
        command=escape(document["command"]),
        style=asset("report.css"),
        library=_without_map(asset(LIBRARY)),
        script=asset("report.js"),
        data=to_script(payload(pictures, names)),
        gates=gates_list(document),
        lead=lead(document),
        about=escape(_about(pictures)),
        bins=capitalised(bin_words(pictures)),
        summary=summary_list(document),
        metrics=metrics_tables(document),
        further=further_tables(document),
        slices=slice_sections(document),
        conventions=conventions(document),
        files=measured_files(files_read),
        software=software(made_with),
    )


def _about(pictures: Sequence[Picture]) -> str:
    """What the diagrams show, in a sentence or two."""
    if pictures[0].positive is None:
        return "What the model says against how often it is right."
    said, _ = axis_names(pictures)
    about = f"{said} against how often it came true."
    scale = common_scale(pictures)
    if scale.is_logarithmic:
        about += (
            " Equal distances are equal ratios; what never came true stands on the lower edge, and "
            "the first bar has all rows that are below it."
        )
    return about


def asset(name: str) -> str:
    """The text of a file in the folder ``assets``."""
    return (files("calibcli.report") / "assets" / name).read_text(encoding="utf-8")


def _without_map(script: str) -> str:
    """A script without the line that would have a browser look for its source map."""
    return script.partition("//# sourceMappingURL=")[0].rstrip()


def lead(document: Document) -> str:
    """What was found, in plain words: a sentence or two for each measurement."""
    shown = judged_columns(document)
    several = len(shown) > 1
    paragraphs = [
        f"<p>{f'<b>{escape(column.title)}</b> ' if several else ''}{_sentence(column)}</p>"
        for column in shown
    ]
    if is_fit(document) and several:
        paragraphs.append(f"<p>{_changed(shown[0], shown[1])}</p>")
    if caption(document):
        paragraphs.append(quiet(caption(document)))
    return "\n".join(paragraphs)


def _sentence(column: Column) -> str:
    verdict = Verdict.of(column.part)
    pill = f'<span class="pill {verdict.look}">{escape(verdict.word)}</span>'
    said = verdict.text.removeprefix(verdict.word).lstrip(": ").replace(" %", f"{_BLANK}%")
    if not verdict.figures:
        return f"{pill} There is nothing to judge."
    return f"{pill} {escape(capitalised(said))}.{escape(verdict.promise)}"


def _changed(before: Column, after: Column) -> str:
    """How the scores that matter moved with the fit."""
    moved = []
    for name in LEADERBOARD_METRICS:
        old, new = before.figure(name), after.figure(name)
        if old is None or new is None or not math.isfinite(new - old):
            continue
        interval = after.metric(name).get("change")
        word = change(name, old, new, difference_text(old, new), interval)
        verb = {"better": "falls", "worse": "rises", "unclear": "moves"}.get(word)
        doubt = ", which may be chance" if word == "unclear" else ""
        moved.append(
            f"{metric_title(name)} {verb} from {significant(old)} to {significant(new)}{doubt}"
            if verb
            else f"{metric_title(name)} stays at {significant(new)}"
        )
    return escape("; ".join(moved) + ".") if moved else ""


def gates_list(document: Document) -> str:
    """Which gates passed and which failed, in words; nothing without gates."""
    gates, failed = gate_lines(document), len(failed_gates(document))
    if not gates:
        return ""
    counted = (
        f"{failed} of {plural(len(gates), 'gate')} failed."
        if failed
        else f"{'All ' * (len(gates) > 1)}{plural(len(gates), 'gate')} passed."
    )
    lines = []
    for gate in gates:
        look = "good" if gate.outcome == "passed" else "over"
        named = f"<b>{escape(gate.input_name)}</b> " if gate.input_name else ""
        judged = gate.figures if gate.unknown else f"it is {gate.figures}"
        lines.append(
            f'<li><span class="pill {look}">{gate.outcome}</span>'
            f"<span>{named}fails if "
            f"<code>{escape(gate.expression)}</code>: {number(judged)}</span></li>"
        )
    return f'<p><b>{counted}</b></p>\n<ul class="gates">{"".join(lines)}</ul>'


def summary_list(document: Document) -> str:
    """What was read, fitted and written; not how long it took, which is never the same twice."""
    lines = [
        f"<div><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>"
        for result in results_of(document)
        for label, text in summary(result, timed=False)
    ]
    return f"<dl>{''.join(lines)}</dl>"


def conventions(document: Document) -> str:
    """How every metric is defined."""
    lines = [
        f"<div><dt>{escape(title)}</dt><dd>{escape(text)}</dd></div>"
        for title, text in convention_lines(columns(document))
    ]
    return f"<dl>{''.join(lines)}</dl>"


def measured_files(files: Sequence[Mapping[str, Any]]) -> str:
    """Which files were read, so that a reader can tell whether he has the same."""
    if not files:
        return quiet("From a stream; there is no file to name.")
    lines = [
        f"<tr><td>{escape(file['role'])}</td>"
        f'<td><span class="path">{escape(file["path"])}</span></td>'
        f"<td>{count(file['bytes'])}</td><td><code>{escape(file['sha256'])}</code></td></tr>"
        for file in files
    ]
    return plain_table(("used to", "file", "bytes", "SHA-256"), lines, "files")


def software(made_with: Mapping[str, str]) -> str:
    """Versions and settings, in a line."""
    return escape(" · ".join(f"{what} {value}" for what, value in made_with.items()))


def metrics_tables(document: Document) -> str:
    """The metrics of every measurement; of a fit, how they changed."""
    table, target = metrics_table(document), target_table(document)
    if table is None:
        return ""
    parts = []
    if target is not None:
        parts += [html_table(target), f"<p>{escape(target.caption)}</p>"]
        parts.append(f"<p>{escape(table.caption)}</p>")
    parts.append(html_table(table))
    differences = differences_table(document)
    if differences is not None:
        parts += [html_table(differences), quiet(differences.caption)]
    parts += [quiet(text) for text in reasons_not_compared(document)]
    legend = [_INTERVALS] if _has_intervals(table) else []
    if table.legend:
        legend.append(capitalised(f"{table.legend}."))
    if any(cell.tip for row in table.rows for cell in row.cells[1:]):
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
        *(f"<p>{_CHOSEN}{escape(text)}.</p>" for text in notes[:1]),
        html_table(table),
        quiet(" ".join([about, *(f"{line}." for line in candidate_lines(document))])),
    ]


def slice_sections(document: Document) -> str:
    """A section for the slices of each column, and of the predicted classes; the worst first."""
    return "\n".join(
        f'<section aria-labelledby="slices-{place}">\n'
        f'<h2 id="slices-{place}">{_title(table)}</h2>\n'
        f"{quiet(table.caption)}\n{html_table(table)}\n</section>"
        for place, table in enumerate(slices_tables(document))
    )


def escape(text: object) -> str:
    """Text as HTML, whatever characters are in it."""
    return escape_html(str(text), quote=True)


def number(text: str) -> str:
    """Text with numbers in it as HTML, with minus signs instead of hyphens."""
    return escape(re.sub(rf"\b{INFINITE}\b", "∞", text.replace("-", _MINUS)))


def quiet(text: str) -> str:
    """A remark as a paragraph in small print."""
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
    chosen = f" {_CHOSEN}" if row.look == "chosen" else ""
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
