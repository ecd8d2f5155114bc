"""The words and the tables of a page, as HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape as escape_html
from typing import Any

from calibcli.report.comparison import (
    BALANCED_CAPTION,
    Column,
    balanced_columns,
    best,
    better,
    caption,
    change,
    columns,
    convention,
    group,
    is_fit,
    metric_names,
    title,
)
from calibcli.report.document import Document
from calibcli.report.groups import HEADINGS as GROUP_HEADINGS
from calibcli.report.groups import group_caption, group_heading, group_rows
from calibcli.report.leaderboard import CHOSEN, LEADERBOARD_HEADINGS, leaderboard_rows
from calibcli.report.numbers import count, difference, percent, significant
from calibcli.report.summary import summary
from calibcli.report.tables import LONG_TABLE
from calibcli.report.verdict import Verdict, verdict

_ARROWS = {
    "lower": '<span class="way" title="lower is better">↓</span>',
    "higher": '<span class="way" title="higher is better">↑</span>',
}
_MINUS, _JOINED = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"


def escape(text: object) -> str:
    """Text as HTML, whatever characters are in it."""
    return escape_html(str(text), quote=True)


def lead(document: Document) -> str:
    """What was found, in plain words: a sentence or two for each measurement."""
    shown = columns(document)
    several = len(shown) > 1
    paragraphs = [
        f"<p>{f'<b>{escape(column.title)}</b> ' if several else ''}{_sentence(column)}</p>"
        for column in shown
    ]
    if is_fit(document) and several:
        paragraphs.append(f"<p>{_changed(shown[0], shown[1])}</p>")
    if caption(document):
        paragraphs.append(_quiet(caption(document)))
    return "\n".join(paragraphs)


def _sentence(column: Column) -> str:
    found = verdict(column.part["reliability"])
    pill = f'<span class="pill {found.kind}">{escape(found.word)}</span>'
    if found.says is None or found.right is None:
        return f"{pill} There is nothing to judge."
    return f"{pill} {escape(_in_words(found))}"


def _in_words(found: Verdict) -> str:
    assert found.says is not None
    assert found.right is not None
    # A number and its sign stay on one line.
    says, right = (percent(share).replace(" ", _JOINED) for share in (found.says, found.right))
    average = f"On average the model says {says} and is right {right} of the time"
    points = 100 * abs(found.says - found.right)
    return {
        "over": f"{average}: it promises {points:.1f} percentage points too much.",
        "under": f"{average}: it promises {points:.1f} percentage points too little.",
        "mixed": f"{average}, but too high at some confidences and too low at others.",
        "good": f"{average}: its probabilities can be believed, as far as these rows can tell.",
    }[found.kind]


def _changed(before: Column, after: Column) -> str:
    """How the scores that matter moved with the fit."""
    moved = []
    for name in ("nll", "brier", "ece"):
        old, new = before.value(name), after.value(name)
        if old is None or new is None or not math.isfinite(new - old):
            continue
        word = change(name, old, new, difference(old, new))
        verb = {"better": "falls", "worse": "rises"}.get(word)
        moved.append(
            f"{title(name)} {verb} from {significant(old)} to {significant(new)}"
            if verb
            else f"{title(name)} stays at {significant(new)}"
        )
    return escape("; ".join(moved) + ".") if moved else ""


def summary_list(document: Document) -> str:
    """What was read, fitted and written; not how long it took, which is never the same twice."""
    if is_fit(document):
        document = {**document, "fit": {**document["fit"], "seconds": None}}
    lines = [
        f"<div><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>"
        for result in document.get("results", [document])
        for label, text in summary(result)
    ]
    return f"<dl>{''.join(lines)}</dl>"


def metrics_tables(document: Document) -> str:
    """The metrics of every measurement; of a fit, how they changed."""
    shown = columns(document)
    if not shown:
        return ""
    tables = [_metrics_table(shown, compared=is_fit(document) and len(shown) == 2)]
    pair = balanced_columns(document)
    if pair:
        tables += [f"<p>{escape(BALANCED_CAPTION)}</p>", _metrics_table(pair, compared=True)]
    return "\n".join(tables)


def _metrics_table(shown: Sequence[Column], *, compared: bool) -> str:
    heads = [f"<th>{escape(column.title)}</th>" for column in shown]
    if len(shown) == 1:
        heads = ["<th>value</th>"]
    if compared:
        heads.append("<th>change</th>")
    names = metric_names(shown)
    body, about = [], ""
    for name in names:
        if len(names) > LONG_TABLE and group(name) != about:
            about = group(name)
            body.append(
                f'<tr><th class="about" colspan="{len(heads) + 1}">{escape(about)}</th></tr>'
            )
        body.append(_metric_row(name, shown, compared=compared))
    return _table(f"<th>metric</th>{''.join(heads)}", "".join(body), "metrics")


def further_tables(document: Document) -> str:
    """The methods that a fit has chosen from, and the groups that have maps of their own."""
    parts = []
    entries = document.get("leaderboard")
    if entries:
        # The last column is a time, which is never the same twice.
        rows = [row[:-1] for row in leaderboard_rows(entries)]
        note = (
            f"{CHOSEN} chosen. Behind: held-out NLL minus that of the best, and its standard error."
        )
        parts += ["<h3>Methods</h3>", _text_table(LEADERBOARD_HEADINGS[:-1], rows), _quiet(note)]
    if document.get("groups"):
        headings = [group_heading(document), *GROUP_HEADINGS]
        parts += ["<h3>Groups</h3>", _text_table(headings, group_rows(document))]
        parts.append(_quiet(group_caption(document)))
    return "\n".join(parts)


def _text_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f"<th>{escape(text)}</th>" for text in headings)
    lines = (
        f"<th>{escape(first)}</th>" + "".join(f"<td>{_number(text)}</td>" for text in others)
        for first, *others in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return _table(heads, body, "metrics")


def _table(heads: str, body: str, kind: str) -> str:
    return (
        f'<div class="scroll"><table class="{kind}">'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _quiet(text: str) -> str:
    return f'<p class="quiet">{escape(text)}</p>'


def _metric_row(name: str, shown: Sequence[Column], *, compared: bool) -> str:
    winner = None if compared else best(name, shown)
    cells = []
    for column in shown:
        value = column.value(name)
        mark = ' class="best"' if value is not None and value == winner else ""
        cells.append(f"<td{mark}>{_number(significant(value, missing='–'))}</td>")  # noqa: RUF001
    if compared:
        pair = shown[0].value(name), shown[1].value(name)
        shift = difference(*pair, missing="–")  # noqa: RUF001
        word = change(name, *pair, shift)
        cells.append(f'<td class="{word or "same"}">{_number(shift)} <small>{word}</small></td>')
    head = f'<th scope="row" title="{escape(convention(name))}">{escape(title(name))}'
    return f"<tr>{head} {_ARROWS.get(better(name), '')}</th>{''.join(cells)}</tr>"


def _number(text: str) -> str:
    return escape(text.replace("-", _MINUS))


def conventions(document: Document) -> str:
    """How every metric is defined."""
    lines = [
        f"<div><dt>{escape(title(name))}</dt><dd>{escape(convention(name))}</dd></div>"
        for name in metric_names(columns(document))
    ]
    return f"<dl>{''.join(lines)}</dl>"


def measured_files(files: Sequence[Mapping[str, Any]]) -> str:
    """Which files were read, so that a reader can tell whether he has the same."""
    if not files:
        return _quiet("From a stream; there is no file to name.")
    rows = "".join(
        f"<tr><td>{escape(file['role'])}</td><td>{escape(file['path'])}</td>"
        f"<td>{count(file['bytes'])}</td><td><code>{escape(file['sha256'])}</code></td></tr>"
        for file in files
    )
    heads = "".join(f"<th>{text}</th>" for text in ("used to", "file", "bytes", "SHA-256"))
    return _table(heads, rows, "files")


def software(made_with: Mapping[str, str]) -> str:
    """Versions and settings, in a line."""
    return escape(" · ".join(f"{what} {value}" for what, value in made_with.items()))
