"""The words of a page, as HTML: what was found, what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from calibcli.report.comparison import (
    Column,
    caption,
    change,
    columns,
    convention,
    judged_columns,
    metric_names,
    metric_title,
)
from calibcli.report.document import is_fit, results_of
from calibcli.report.gate_results import failed_gates, gate_lines
from calibcli.report.html_cells import escape, number, plain_table, quiet
from calibcli.report.summary import summary
from calibcli.report.texts import capitalised, count, difference_text, plural, significant
from calibcli.report.verdict import Verdict
from calibcli.schema import Document

_JOINED = "\N{NO-BREAK SPACE}"


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
    found = Verdict.of(column.part)
    pill = f'<span class="pill {found.look}">{escape(found.word)}</span>'
    said = found.text.removeprefix(found.word).lstrip(": ").replace(" %", f"{_JOINED}%")
    if not found.figures:
        return f"{pill} There is nothing to judge."
    return f"{pill} {escape(capitalised(said))}.{escape(found.promise)}"


def _changed(before: Column, after: Column) -> str:
    """How the scores that matter moved with the fit."""
    moved = []
    for name in ("nll", "brier", "ece"):
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
        f"<div><dt>{escape(metric_title(name))}</dt><dd>{escape(convention(name))}</dd></div>"
        for name in metric_names(columns(document))
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
