"""The metrics of a document as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from rich.table import Table
from rich.text import Text

from calibcli.report.comparison import (
    Column,
    balanced_columns,
    best,
    better,
    change,
    columns,
    convention,
    group,
    is_fit,
    metric_names,
    title,
)
from calibcli.report.document import Document
from calibcli.report.glyphs import Glyphs
from calibcli.report.numbers import align_at_point, difference, significant
from calibcli.report.uncertainty import (
    CHANCE_HEADING,
    CHANCE_LEGEND,
    INTERVAL_HEADING,
    chance_text,
    interval_text,
)

CHANGE_STYLES = {"better": "green", "worse": "red", "same": "dim", "": ""}
LONGEST_TITLE = 20
NUMBER_WIDTH = 10
NAMES_WIDTH = 19
LONG_TABLE = 10
"""A table of more metrics is divided by what they are about."""

BEST = "*"

Cells: TypeAlias = tuple[str, list[Text]]
"""A column: its heading and its cells."""


def metrics_tables(document: Document, glyphs: Glyphs, width: int) -> list[Table]:
    """The metrics of a document, in as many tables as the width asks for."""
    shown = columns(document)
    if is_fit(document) and len(shown) == 2:
        return [_comparison_table(shown[0], shown[1], glyphs)]
    return [_inputs_table(part, shown, glyphs) for part in _groups(shown, width)]


def balanced_table(document: Document, glyphs: Glyphs) -> Table | None:
    """Before and after a fit with all classes counting the same, where that was measured."""
    pair = balanced_columns(document)
    return _comparison_table(pair[0], pair[1], glyphs) if pair else None


def _comparison_table(before: Column, after: Column, glyphs: Glyphs) -> Table:
    names = metric_names([before, after])
    pairs = [(before.value(name), after.value(name)) for name in names]
    differences = [difference(*pair, missing=glyphs.missing) for pair in pairs]
    words = [change(n, *pair, d) for n, pair, d in zip(names, pairs, differences, strict=True)]
    styles = [CHANGE_STYLES[word] for word in words]
    signed = [glyphs.number(text) for text in align_at_point(differences)]
    return _assemble(
        [
            *_name_columns(names, glyphs),
            (before.title, _numbers([pair[0] for pair in pairs], glyphs)),
            (after.title, _numbers([pair[1] for pair in pairs], glyphs)),
            ("change", list(map(Text, signed, styles))),
            ("", list(map(Text, words, styles))),
            *_texts(
                INTERVAL_HEADING,
                [glyphs.number(interval_text(after.metric(n).get("change"))) for n in names],
            ),
        ],
        _headings(names),
    )


def _inputs_table(part: Sequence[Column], everything: Sequence[Column], glyphs: Glyphs) -> Table:
    names = metric_names(everything)
    winners = [best(name, everything) for name in names]
    cells = _name_columns(names, glyphs)
    for column in part:
        values = [column.value(name) for name in names]
        wins = [v is not None and v == w for v, w in zip(values, winners, strict=True)]
        cells.append((_shorten(column.title, glyphs), _numbers(values, glyphs, wins)))
    if len(everything) == 1:
        parts = [everything[0].metric(name) for name in names]
        cells += _texts(INTERVAL_HEADING, [glyphs.number(interval_text(part)) for part in parts])
        cells += _texts(CHANCE_HEADING, list(map(chance_text, parts)))
    return _assemble(cells, _headings(names))


def _texts(heading: str, texts: Sequence[str]) -> list[Cells]:
    """A column of dim texts, if there are any."""
    return [(heading, [Text(text, "dim") for text in texts])] if any(texts) else []


def _groups(shown: Sequence[Column], width: int) -> Iterator[list[Column]]:
    """Columns in groups that fit the width beside the names of the metrics."""
    longest = max((len(title(name)) for name in metric_names(shown)), default=0)
    room = width - max(NAMES_WIDTH, longest + 5)
    part: list[Column] = []
    left = room
    for column in shown:
        needed = max(min(len(column.title), LONGEST_TITLE), NUMBER_WIDTH) + 2
        if part and needed > left:
            yield part
            part, left = [], room
        part.append(column)
        left -= needed
    yield part


def _headings(names: Sequence[str]) -> dict[int, str]:
    """What the metrics from some position on are about; nothing where they are few."""
    if len(names) <= LONG_TABLE:
        return {}
    about = [group(name) for name in names]
    return {i: text for i, text in enumerate(about) if i == 0 or text != about[i - 1]}


def _name_columns(names: Sequence[str], glyphs: Glyphs) -> list[Cells]:
    arrows = {"lower": glyphs.lower, "higher": glyphs.higher}
    directions = [Text(arrows.get(better(name), ""), "dim") for name in names]
    return [("", [Text(title(name)) for name in names]), ("", directions)]


def _numbers(
    values: Sequence[float | None], glyphs: Glyphs, wins: Sequence[bool] = ()
) -> list[Text]:
    """Numbers below each other, the best of their rows with a mark."""
    wins = wins or [False] * len(values)
    texts = [
        significant(value, missing=glyphs.missing, infinite=glyphs.infinite) + BEST * win
        for value, win in zip(values, wins, strict=True)
    ]
    return [
        Text(glyphs.number(text), "bold" if win else "")
        for text, win in zip(align_at_point(texts), wins, strict=True)
    ]


def _assemble(cells: Sequence[Cells], headings: Mapping[int, str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading, _ in cells:
        # Text, not markup: the name of a file may have brackets in it.
        table.add_column(Text(heading), no_wrap=True)
    for position, row in enumerate(zip(*(column for _, column in cells), strict=True)):
        if position in headings:
            if position:
                table.add_row()
            table.add_row(Text(headings[position], "dim"))
        table.add_row(*row)
    return table


def _shorten(text: str, glyphs: Glyphs) -> str:
    if len(text) <= LONGEST_TITLE:
        return text
    end = LONGEST_TITLE // 2
    return text[: LONGEST_TITLE - end - 1] + glyphs.ellipsis + text[-end:]


def legend(document: Document, glyphs: Glyphs) -> Text:
    """What the marks of the metrics table mean."""
    text = f"{glyphs.lower} lower is better, {glyphs.higher} higher is better"
    if len(document.get("results", [])) > 1:
        text += f", {BEST} best of its row"
    elif not is_fit(document) and any("chance" in m for m in document["metrics"].values()):
        text += f"\n{CHANCE_LEGEND}"
    return Text(text, "dim")


def footnotes(document: Document) -> Table:
    """The convention of every metric."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name in metric_names(columns(document)):
        grid.add_row(Text(title(name), "bold"), Text(convention(name), "dim"))
    return grid
