"""A result document as a page of Markdown, in GitHub's dialect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from calibcli.report.comparison import (
    BALANCED_CAPTION,
    Column,
    balanced_columns,
    better,
    caption,
    change,
    columns,
    convention,
    is_fit,
    metric_names,
    title,
)
from calibcli.report.diagnostic_tables import diagnostic_parts
from calibcli.report.document import Document
from calibcli.report.gates import gates_rows
from calibcli.report.groups import HEADINGS as GROUP_HEADINGS
from calibcli.report.groups import group_caption, group_heading, group_rows
from calibcli.report.leaderboard import (
    LEADERBOARD_HEADINGS,
    leaderboard_legend,
    leaderboard_rows,
)
from calibcli.report.summary import summary
from calibcli.report.texts import (
    CHANCE_HEADING,
    INTERVAL_HEADING,
    chance_text,
    count,
    difference,
    interval_text,
    percent,
    significant,
)
from calibcli.report.verdict import verdict

_ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}


def to_markdown(document: Document) -> str:
    """A page for a pull request, an issue or a job summary: GitHub's dialect."""
    return "\n".join(_markdown(document)) + "\n"


def _markdown(document: Document) -> Iterator[str]:
    yield f"### calib {document['command']}"
    yield ""
    for result in document.get("results", [document]):
        yield from (f"- {f'**{name}** ' if name else ''}{text}" for name, text in summary(result))
    yield ""
    yield from _gates(document)
    entries = document.get("leaderboard")
    if entries:
        yield from _table(LEADERBOARD_HEADINGS, leaderboard_rows(entries), "lrrrrrrr")
        yield ""
        yield from (f"{line}  " for line in leaderboard_legend(entries))
        yield ""
    shown = columns(document)
    if shown:
        yield from _metrics_table(document, shown)
        yield ""
    if caption(document):
        yield caption(document)
        yield ""
    pair = balanced_columns(document)
    if pair:
        yield from _metrics_table(document, pair)
        yield ""
        yield BALANCED_CAPTION
        yield ""
    if document.get("groups"):
        headings = [group_heading(document), *GROUP_HEADINGS]
        yield from _table(headings, group_rows(document), "lrrrrr")
        yield ""
        yield group_caption(document)
        yield ""
    yield from _diagnostics(document)
    for column in shown:
        named = f"**{column.title}** " if len(shown) > 1 else ""
        yield f"- {named}{verdict(column.part['reliability']).text}"
    for column in shown:
        yield ""
        yield from _details(
            f"Reliability: {column.title}", _reliability_table(column.part["reliability"])
        )
    names = metric_names(shown)
    if not names:
        return
    yield ""
    yield from _details("Conventions", [f"- {title(name)}: {convention(name)}" for name in names])


def _diagnostics(document: Document) -> Iterator[str]:
    """What was looked at more closely."""
    for headings, rows, about in diagnostic_parts(document):
        yield from _table(headings, rows, "l" + "r" * (len(headings) - 1))
        yield ""
        yield about
        yield ""


def _gates(document: Document) -> Iterator[str]:
    if document.get("gates"):
        headings, rows = gates_rows(document)
        yield from _table(headings, rows, "l" * len(headings))
        yield ""


def _metrics_table(document: Document, shown: Sequence[Column]) -> list[str]:
    names = metric_names(shown)
    compared = is_fit(document) and len(shown) == 2
    rows = []
    for name in names:
        values = [column.value(name) for column in shown]
        row = [title(name) + _ARROWS[better(name)], *map(significant, values)]
        if compared:
            before, after = values
            shift = difference(before, after)
            row += [shift, change(name, before, after, shift)]
        rows.append([*row, *_uncertain(name, shown, compared=compared)])
    headings = ["", *(column.title for column in shown), *(["change", ""] if compared else [])]
    headings += [INTERVAL_HEADING, CHANCE_HEADING][: len(rows[0]) - len(headings)] if rows else []
    sides = "l" + "r" * len(shown) + ("rlll" if compared else "ll")
    return _table(headings, rows, sides[: len(headings)])


def _uncertain(name: str, shown: Sequence[Column], *, compared: bool) -> list[str]:
    """The interval of a change, or that of the only value and what chance would give."""
    if not any("low" in entry for column in shown for entry in column.part["metrics"].values()):
        return []
    metric = shown[-1].metric(name)
    if compared:
        return [interval_text(metric.get("change"))]
    return [interval_text(metric), chance_text(metric)] if len(shown) == 1 else []


def _reliability_table(bins: Sequence[Mapping[str, Any]]) -> list[str]:
    filled = [part for part in reversed(bins) if part["confidence"] is not None]
    rows = [
        [
            f"{percent(part['lower'])} to {percent(part['upper'])}",
            percent(part["confidence"]),
            percent(part["accuracy"]),
            count(part["rows"]),
        ]
        for part in filled
    ]
    return _table(["confidence", "says", "right", "rows"], rows, "rrrr")


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    rule = [{"l": ":--", "r": "--:"}[side] for side in sides]
    return [
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"
        for row in (headings, rule, *rows)
    ]


def _details(heading: str, lines: Sequence[str]) -> list[str]:
    return ["<details>", f"<summary>{heading}</summary>", "", *lines, "", "</details>"]
