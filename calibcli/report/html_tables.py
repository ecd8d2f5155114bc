"""The tables of a page: metrics, what was looked at more closely, methods, groups and slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from calibcli.report.comparison import (
    BALANCED_CAPTION,
    Column,
    balanced_columns,
    best,
    better,
    change,
    columns,
    convention,
    is_fit,
    metric_names,
    section_headings,
    title,
)
from calibcli.report.diagnostics import (
    REFIT_HEADINGS,
    TEST_CAPTION,
    TEST_HEADINGS,
    refit_caption,
    refit_rows,
    test_rows,
)
from calibcli.report.document import Document
from calibcli.report.groups import HEADINGS as GROUP_HEADINGS
from calibcli.report.groups import group_caption, group_heading
from calibcli.report.html_cells import Cell, Row, escape, quiet, sentence, table
from calibcli.report.html_data import MOST_SLICES
from calibcli.report.leaderboard import leaderboard_rows, member_lines
from calibcli.report.leaderboard import title as method_title
from calibcli.report.slices import slice_caption, slice_heading
from calibcli.report.tables import may_be_none
from calibcli.report.texts import (
    CHANCE_HEADING,
    CHANCE_LEGEND,
    INTERVAL_HEADING,
    chance_text,
    count,
    difference,
    interval_text,
    p_value,
    percent,
    short_names,
    significant,
)

_ARROWS = {
    "lower": '<span class="way" title="lower is better">↓</span>',
    "higher": '<span class="way" title="higher is better">↑</span>',
}
_MISSING, _BLANK = "\N{EN DASH}", "\N{NO-BREAK SPACE}"
_CHOSEN = '<span class="pill good">chosen</span>'
_CLEAR = 0.05
"""A p-value below it is no chance."""

_SLICE_HEADINGS = ("rows", "says", "right", "ECE", "adjusted p", "NLL", "Brier")
_METHOD_HEADINGS = ("method", "NLL", "behind", "s.e.", "Brier", "ECE", "size")


def metrics_tables(document: Document) -> str:
    """The metrics of every measurement; of a fit, how they changed."""
    shown = columns(document)
    if not shown:
        return ""
    tables = [_metrics_table(shown, compared=is_fit(document) and len(shown) == 2)]
    pair = balanced_columns(document)
    if pair:
        tables += [f"<p>{escape(BALANCED_CAPTION)}</p>", _metrics_table(pair, compared=True)]
    legend = _legend(shown, in_columns=is_fit(document) or len(shown) == 1)
    return "\n".join([*tables, *([quiet(legend)] if legend else [])])


def _legend(shown: Sequence[Column], *, in_columns: bool) -> str:
    metrics = [metric for column in shown for metric in column.part["metrics"].values()]
    legend = ["In brackets: 95 % intervals."] if any(map(interval_text, metrics)) else []
    if any(map(chance_text, metrics)):
        where = "" if in_columns else "Under the pointer, "
        legend.append(sentence(f"{where}{CHANCE_LEGEND}."))
    return " ".join(legend)


def _metrics_table(shown: Sequence[Column], *, compared: bool) -> str:
    names = metric_names(shown)
    heads = ["metric", *(_value_heading(column, len(shown) > 1) for column in shown)]
    heads += ["change"] * compared
    # Of several inputs it stands under the pointer: a column for each would be too wide.
    chances = [chance_text(shown[-1].metric(name)) for name in names]
    with_chances = any(chances) and (compared or len(shown) == 1)
    heads += [CHANCE_HEADING] * with_chances
    about = section_headings(names)
    lines = []
    for position, name in enumerate(names):
        if position in about:
            head = escape(about[position])
            lines.append(f'<tr><th class="about" colspan="{len(heads)}">{head}</th></tr>')
        cells = _metric_cells(name, shown, compared=compared)
        cells += [Cell(chances[position], look="chances")] * with_chances
        heading = f"{escape(title(name))}{_BLANK}{_ARROWS.get(better(name), '')}"
        lines.append(Row(heading, cells, tip=convention(name)).html())
    kind = "fit" if compared else "one" if len(shown) == 1 else "several"
    return table(heads, lines, f"metrics {kind}")


def _value_heading(column: Column, several: bool) -> str:
    if several:
        return column.title
    sure = any(map(interval_text, column.part["metrics"].values()))
    return f"value, {INTERVAL_HEADING}" if sure else "value"


def _metric_cells(name: str, shown: Sequence[Column], *, compared: bool) -> list[Cell]:
    winner = None if compared else best(name, shown)
    cells = []
    for column in shown:
        value, metric = column.value(name), column.metric(name)
        look = "best" if value is not None and value == winner else "value"
        chance = chance_text(metric)
        tip = f"{CHANCE_HEADING}: {chance}" if chance and len(shown) > 1 else ""
        text = significant(value, missing=_MISSING)
        # Numbers without an interval stay in line with those that have one.
        interval = interval_text(metric) or (_BLANK if len(shown) == 1 else "")
        cells.append(Cell(text, interval=interval, look=look, tip=tip))
    if compared:
        before, after = shown[0].value(name), shown[1].value(name)
        shift, ends = difference(before, after, missing=_MISSING), _change(shown[1], name)
        judged = change(name, before, after, shift)
        look = "same" if may_be_none(ends) or not judged else judged
        cells.append(Cell(shift, interval=interval_text(ends), word=judged, look=look))
    return cells


def _change(after: Column, name: str) -> Document | None:
    found: Document | None = after.metric(name).get("change")
    return found


def further_tables(document: Document) -> str:
    """What was looked at more closely, methods that were compared, and groups with maps."""
    parts = []
    for result, name in _results(document):
        if result.get("refit"):
            parts += [f"<h3>Calibration and refinement{name}</h3>", _refit_table(result["refit"])]
            parts.append(quiet(sentence(refit_caption(result["refit"]))))
        if result.get("tests"):
            parts += [f"<h3>Tests{name}</h3>", _tests_table(result["tests"]), quiet(TEST_CAPTION)]
    if document.get("leaderboard"):
        parts += ["<h3>Methods</h3>", *_methods(document)]
    if document.get("groups"):
        parts += ["<h3>Groups</h3>", *_groups(document)]
    return "\n".join(parts)


def _results(document: Document) -> list[tuple[Document, str]]:
    """The results of a document, each with what a heading says of it where there are several."""
    results = document.get("results", [document])
    if len(results) == 1:
        return [(results[0], "")]
    names = short_names([result["input"]["name"] for result in results])
    return [(result, f": {escape(name)}") for result, name in zip(results, names, strict=True)]


def _plain_table(headings: Sequence[str], rows: Sequence[Row]) -> str:
    return table(headings, [row.html() for row in rows], "metrics")


def _refit_table(refit: Document) -> str:
    rows = [
        Row(escape(name), [Cell(score), Cell(error, interval=interval), Cell(rest)])
        for name, score, error, interval, rest in refit_rows(refit)
    ]
    return _plain_table([text for text in REFIT_HEADINGS if text != INTERVAL_HEADING], rows)


def _tests_table(tests: Sequence[Document]) -> str:
    rows = []
    for test, (name, *figures, p) in zip(tests, test_rows(tests), strict=True):
        clear = test["p"] is not None and test["p"] < _CLEAR
        cells = [Cell(p, look="best" if clear else ""), *map(Cell, reversed(figures))]
        rows.append(Row(escape(name), cells, tip=test["hypothesis"]))
    # What counts comes first: a phone shows half of a table.
    first, *others = TEST_HEADINGS
    return _plain_table([first, *reversed(others)], rows)


def _methods(document: Document) -> list[str]:
    entries = document["leaderboard"]
    rows = []
    # The last column is a time, which is never the same twice.
    for entry, (_, *texts, _) in zip(entries, leaderboard_rows(entries), strict=True):
        name, chosen = escape(method_title(entry)), entry["chosen"]
        intervals = {3: "brier", 4: "ece", 0: "nll"}
        cells = [
            Cell(text, interval=interval_text(entry["metrics"].get(intervals.get(place))))
            for place, text in enumerate(texts)
        ]
        pill = f" {_CHOSEN}" * chosen
        rows.append(Row(f"{name}{pill}", cells))
    why = document["fit"]["notes"][:1] if is_fit(document) and document["fit"].get("notes") else []
    about = (
        "NLL, Brier and ECE of held-out rows, with 95 % intervals. Behind: NLL minus that of the "
        "best, and its standard error. Size: fitted numbers."
    )
    told = [f"<p>{_CHOSEN}{escape(text)}.</p>" for text in why]
    mixed = " ".join(f"{line}." for line in member_lines(entries))
    return [
        *told,
        table(_METHOD_HEADINGS, [row.html() for row in rows], "metrics methods"),
        quiet(f"{about} {mixed}".strip()),
    ]


def _groups(document: Document) -> list[str]:
    rows = []
    for entry in document["groups"]["groups"][:MOST_SLICES]:
        before, after = entry["nll"]["before"], entry["nll"]["after"]
        shift = difference(before, after, missing=_MISSING)
        moved = None if before is None or after is None else after - before
        cells = [
            Cell(count(entry["rows"]), entry["rows"]),
            Cell(percent(entry["share"]), entry["share"]),
            Cell(significant(before), before),
            Cell(significant(after), after),
            Cell(shift, moved, look=change("nll", before, after, shift) or "same"),
        ]
        rows.append(Row(escape(entry["name"]), cells, tip=entry["name"]).html())
    headings = [group_heading(document), *GROUP_HEADINGS]
    return [table(headings, rows, "listing sortable"), quiet(group_caption(document, MOST_SLICES))]


def slice_sections(document: Document) -> str:
    """A section for the slices of each column, and of the predicted classes; the worst first."""
    found = [
        (part, name) for result, name in _results(document) for part in result.get("slices", [])
    ]
    most = MOST_SLICES // max(len(found), 1)
    sections = []
    for place, (part, name) in enumerate(found):
        by = f"By {part['column']}" if part["column"] else "Predicted classes"
        sections.append(
            f'<section aria-labelledby="slices-{place}">\n'
            f'<h2 id="slices-{place}">{escape(by)}{name}</h2>\n'
            f"{quiet(slice_caption(part, most))}\n{_slices_table(part, most)}\n</section>"
        )
    return "\n".join(sections)


def _slices_table(part: Mapping[str, Any], most: int) -> str:
    shown = part["slices"][:most]
    widest = max((entry["ece"]["high"] for entry in shown), default=0.0) or 1.0
    lines = [_slice_row(entry, widest).html() for entry in shown]
    of = "slice" if part["column"] else "class"
    return table((slice_heading(dict(part)), *_SLICE_HEADINGS), lines, "listing sortable", of)


def _slice_row(entry: Mapping[str, Any], widest: float) -> Row:
    p = entry["adjusted_p"]
    ece, nll, brier = (
        Cell(
            significant(entry[name]["value"]),
            entry[name]["value"],
            interval=interval_text(entry[name]),
            drawn=_whisker(entry[name], widest) if name == "ece" else "",
        )
        for name in ("ece", "nll", "brier")
    )
    cells = [
        Cell(count(entry["rows"]), entry["rows"]),
        Cell(percent(entry["confidence"]), entry["confidence"]),
        Cell(percent(entry["accuracy"]), entry["accuracy"]),
        ece,
        Cell(p_value(p), p, look="p"),
        nll,
        brier,
    ]
    clear = p is not None and p < _CLEAR
    look = "" if clear else "chance"
    return Row(escape(entry["name"]), cells, tip=entry["name"], look=look)


def _whisker(part: Mapping[str, float], widest: float) -> str:
    """A number and its interval on a line from 0 to the widest."""
    low, at, high = (100 * part[key] / widest for key in ("low", "value", "high"))
    return (
        f'<span class="whisker"><i style="left:{low:.0f}%;width:{high - low:.0f}%"></i>'
        f'<b style="left:{at:.0f}%"></b></span>'
    )
