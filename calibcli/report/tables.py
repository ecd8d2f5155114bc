"""The metrics of a document as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from rich.cells import cell_len
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
    is_fit,
    metric_names,
    section_headings,
    title,
)
from calibcli.report.document import Document
from calibcli.report.glyphs import Glyphs
from calibcli.report.layout import GAP, open_grid, open_table
from calibcli.report.texts import (
    CHANCE_HEADING,
    CHANCE_LEGEND,
    INTERVAL_HEADING,
    align_at_point,
    chance_text,
    cut_inside,
    difference,
    interval_text,
    significant,
)

CHANGE_STYLES = {"better": "green", "worse": "red", "same": "dim", "": ""}
LONGEST_TITLE = 20
NUMBER_WIDTH = 10
NAMES_WIDTH = 19

BEST = "*"
VALUE = "value"
"""The heading where there is one input: its name is above the table."""

Cells: TypeAlias = tuple[str, list[Text]]
"""A column: its heading and its cells."""


def metrics_tables(document: Document, glyphs: Glyphs, width: int) -> list[Table]:
    """The metrics of a document, in as many tables as the width asks for."""
    shown = columns(document)
    if is_fit(document) and len(shown) == 2:
        return [_comparison_table(shown[0], shown[1], glyphs, width)]
    if len(shown) == 1 and not is_fit(document):
        shown = [Column(VALUE, shown[0].part)]
    return [_inputs_table(part, shown, glyphs, width) for part in _groups(shown, width)]


def balanced_table(document: Document, glyphs: Glyphs, width: int) -> Table | None:
    """Before and after a fit with all classes counting the same, where that was measured."""
    pair = balanced_columns(document)
    return _comparison_table(pair[0], pair[1], glyphs, width) if pair else None


def _comparison_table(before: Column, after: Column, glyphs: Glyphs, width: int) -> Table:
    names = metric_names([before, after])
    pairs = [(before.value(name), after.value(name)) for name in names]
    differences = [difference(*pair, missing=glyphs.missing) for pair in pairs]
    words = [change(n, *pair, d) for n, pair, d in zip(names, pairs, differences, strict=True)]
    intervals = [after.metric(name).get("change") for name in names]
    styles = [
        "dim" if may_be_none(interval) else CHANGE_STYLES[word]
        for word, interval in zip(words, intervals, strict=True)
    ]
    signed = [glyphs.number(text) for text in align_at_point(differences)]
    judged = ("", list(map(Text, words, styles)))
    ends = _texts(INTERVAL_HEADING, [glyphs.number(interval_text(each)) for each in intervals])
    cells = [
        *_name_columns(names, glyphs),
        (before.title, _numbers([pair[0] for pair in pairs], glyphs)),
        (after.title, _numbers([pair[1] for pair in pairs], glyphs)),
        ("change", list(map(Text, signed, styles))),
        judged,
        *ends,
    ]
    return _assemble(
        _fitting(cells, [[judged], ends, [judged, *ends]], width), section_headings(names)
    )


def may_be_none(interval: Document | None) -> bool:
    """Whether no change at all would be in keeping with the interval of the change."""
    if not interval or interval.get("low") is None or interval.get("high") is None:
        return False
    return bool(interval["low"] <= 0 <= interval["high"])


def _inputs_table(
    part: Sequence[Column], everything: Sequence[Column], glyphs: Glyphs, width: int
) -> Table:
    names = metric_names(everything)
    winners = [best(name, everything) for name in names]
    cells = _name_columns(names, glyphs)
    for column in part:
        values = [column.value(name) for name in names]
        wins = [v is not None and v == w for v, w in zip(values, winners, strict=True)]
        name = cut_inside(column.title, LONGEST_TITLE, glyphs.ellipsis)
        cells.append((name, _numbers(values, glyphs, wins)))
    if len(everything) > 1:
        return _assemble(cells, section_headings(names))
    parts = [everything[0].metric(name) for name in names]
    ends = _texts(INTERVAL_HEADING, [glyphs.number(interval_text(part)) for part in parts])
    chances = _texts(CHANCE_HEADING, list(map(chance_text, parts)))
    return _assemble(
        _fitting([*cells, *ends, *chances], [chances, [*chances, *ends]], width),
        section_headings(names),
    )


def _fitting(
    cells: Sequence[Cells], dispensable: Sequence[Sequence[Cells]], width: int
) -> list[Cells]:
    """The columns, without the first of some groups that makes them fit the width.

    Half a number is worse than none.
    """
    kept = list(cells)
    for lost in dispensable:
        if sum(map(_width, kept)) - GAP <= width:
            break
        kept = [each for each in cells if not any(each is other for other in lost)]
    return kept


def _width(column: Cells) -> int:
    heading, texts = column
    return max([cell_len(heading), *(text.cell_len for text in texts)]) + GAP


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
    table = open_table()
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
    grid = open_grid()
    for name in metric_names(columns(document)):
        grid.add_row(Text(title(name), "bold"), Text(convention(name), "dim"))
    return grid
