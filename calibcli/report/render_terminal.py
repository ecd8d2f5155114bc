"""A whole result on the terminal: summary, tables, reliability diagrams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from calibcli.report.comparison import (
    columns,
    convention_lines,
    judged_columns,
    verdict_lines,
)
from calibcli.report.differences import reasons_not_compared
from calibcli.report.document import did_not_converge, gates_of, is_fit, is_of_several, title_of
from calibcli.report.glyphs import glyphs_for
from calibcli.report.reliability import VERDICT_STYLES, reliability_diagrams
from calibcli.report.summary import summary
from calibcli.report.table import Cell, Table, TableRow, flat
from calibcli.report.tables import (
    SHOWN_IN_TEXT,
    candidate_lines,
    diagnostic_tables,
    differences_table,
    groups_table,
    inputs_table,
    leaderboard_table,
    methods_lines,
    methods_table,
    metrics_table,
    target_table,
)
from calibcli.visible import visible
from calibcli.workflow.texts import align_at_point, capitalised, cut_inside
from calibcli.workflow.verdict import Verdict

if TYPE_CHECKING:
    from calibcli.schema.documents import Document, HistoryDocument, Result
    from calibcli.schema.parts import CandidatePart

DIAGRAMS = 2
"""Diagrams are drawn of so many inputs; of more, a table of verdicts says the same."""

LONGEST_HEADING = 20
_COLUMN_GAP = 2

_MARK = "*"
"""The best of a row, and the chosen line."""

_LOOKS = {
    "better": "green",
    "worse": "red",
    "same": "dim",
    "unclear": "dim",
    "best": "bold",
    "chances": "dim",
    "quiet": "dim",
    "passed": "green",
    "failed": "bold red",
    **VERDICT_STYLES,
}


def print_document(document: Document, console: Console, *, conventions: bool = False) -> None:
    """Print a result document for a person.

    Parameters
    ----------
    document : dict
        As `calibcli.report.document` makes it.
    console : Console
        Its width, encoding and colours decide what the output looks like.
    conventions : bool
        Whether to say below how every metric is defined.
    """
    page = _Terminal(console)
    shown = columns(document)
    page.say_title(title_of(document))
    if is_of_several(document):
        page.say_table(inputs_table(document))
        page.say_verdicts(document)
    else:
        page.say_summary(document)
    page.say()
    leaderboard = leaderboard_table(document)
    if leaderboard is not None:
        legend = page.say_table(leaderboard)
        page.say()
        page.say_quietly(f"{_MARK} chosen; {legend}", *candidate_lines(document))
        if shown:
            page.say()
    page.say_metrics(document)
    groups = groups_table(document, SHOWN_IN_TEXT)
    if groups is not None:
        page.say()
        page.say_table(groups)
        page.say()
        page.say(groups.caption)
    differences = differences_table(document)
    if differences is not None:
        page.say()
        page.say_table(differences)
        page.say()
        page.say_quietly(differences.caption)
    page.say_quietly(*reasons_not_compared(document))
    if shown:
        for table in diagnostic_tables(document):
            page.say()
            page.say_table(table)
            page.say()
            page.say_quietly(f"{table.input_name}: {table.caption}".removeprefix(": "))
        page.say_diagrams(document)
    if gates_of(document):
        page.say()
        page.say_gates(document)
    if conventions:
        page.say()
        page.say_conventions(document)


def print_history(document: HistoryDocument, console: Console) -> None:
    """Print a metric over runs for a person."""
    # Reading conditions takes a while to import, and few commands need it.
    from calibcli.report.run_history import history_tables

    page = _Terminal(console)
    for place, table in enumerate(history_tables(document)):
        if place:
            page.say()
        page.say_title(table.heading)
        page.say_table(table)
        page.say()
        page.say(table.caption)
    if document.get("gates"):
        page.say()
        page.say_gates(document)


def print_methods(entries: Sequence[CandidatePart], console: Console) -> None:
    """Print the leaderboard of a parameter file, which has no times and no estimates of errors."""
    page = _Terminal(console)
    legend = page.say_table(methods_table(entries, timed=False))
    page.say()
    page.say_quietly(f"{_MARK} chosen; {legend}", *methods_lines(entries))
    page.say_quietly("calibration errors are plug-ins, with what noise adds")


def _escape(text: str, style: str = "") -> Text:
    """Text for the terminal: whatever is in it, it is neither markup nor a command."""
    return Text(visible(text), style)


class _Terminal:
    """What prints the parts of a document, one below the other."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._glyphs = glyphs_for(console)

    def say(self, *lines: str) -> None:
        """Print lines; without any, an empty one."""
        for line in lines or ("",):
            self._console.print(_escape(line))

    def say_title(self, title: str) -> None:
        """Print what a document is called, if it has a title."""
        if title:
            self._console.print(_escape(title, "bold"))
            self.say()

    def say_quietly(self, *lines: str) -> None:
        """Print remarks."""
        for line in lines:
            self._console.print(_escape(line, "dim"))

    def say_summary(self, document: Result) -> None:
        """What was read, fitted and written."""
        grid = _grid()
        grid.add_column(style="bold")
        grid.add_column(overflow="fold")
        for label, text in summary(document):
            failed = label == "fitted" and did_not_converge(document)
            grid.add_row(_escape(label), _escape(text, "bold red" if failed else ""))
        looks = [Verdict.of(column.part).look for column in judged_columns(document)]
        for (label, text), look in zip(verdict_lines(document), looks, strict=True):
            grid.add_row(_escape(label), _escape(text, VERDICT_STYLES[look]))
        self._console.print(grid)

    def say_verdicts(self, document: Document) -> None:
        """The verdicts on several inputs that are longer than the table has room for."""
        remarked = [bool(Verdict.of(column.part).remarks) for column in judged_columns(document)]
        if not any(remarked):
            return
        self.say()
        for (label, text), longer in zip(verdict_lines(document), remarked, strict=True):
            if longer:
                self.say(f"{label}: {text}")

    def say_metrics(self, document: Document) -> None:
        """The tables of metrics, on which rows they were measured, and what marks mean."""
        table, target = metrics_table(document), target_table(document)
        if table is None:
            if is_fit(document):
                self.say("Nothing was measured.")
            return
        if target is not None:
            self.say_table(target)
            self.say()
            self.say(target.caption)
            self.say()
        legend = self.say_table(table)
        self.say()
        if table.caption:
            self.say(table.caption)
        best = f", {_MARK} best of its row" if table.folds else ""
        lower, higher = self._glyphs.lower, self._glyphs.higher
        self.say_quietly(f"{lower} lower is better, {higher} higher is better{best}")
        if legend:
            self.say_quietly(capitalised(f"{legend}."))

    def say_table(self, table: Table) -> str:
        """Print a table, or several of columns that have no room beside each other.

        Returns
        -------
        str
            What the headings mean that are shown.
        """
        parts = list(self._folded(flat(table))) if table.folds else [self._fitting(flat(table))]
        for place, part in enumerate(parts):
            if place:
                self.say()
            self._console.print(self._drawn(part))
        return "; ".join(dict.fromkeys(part.legend for part in parts if part.legend))

    def _fitting(self, table: Table) -> Table:
        """The table without the least that makes the rest fit: half a number is worse than none."""
        places = range(len(table.columns))
        spare = [place for place in places if table.columns[place].rank]
        widths = self._widths(table)

        def importance(lost: Sequence[int]) -> float:
            return sum(2.0 ** -table.columns[place].rank for place in lost)

        everything = [
            lost for number in range(len(spare) + 1) for lost in combinations(spare, number)
        ]
        room = self._console.width + _COLUMN_GAP
        for lost in sorted(everything, key=importance):
            kept = [place for place in places if place not in lost]
            if sum(widths[place] + _COLUMN_GAP for place in kept) <= room:
                return table.pick(kept)
        return table.pick([place for place in places if place not in spare])

    def _folded(self, table: Table) -> Iterator[Table]:
        """Tables with the first column, and as many of the others as there is room for."""
        widths = [width + _COLUMN_GAP for width in self._widths(table)]
        room = self._console.width - widths[0]
        part: list[int] = []
        for group in self._groups(table):
            if part and sum(widths[place] for place in [*part, *group]) > room:
                yield table.pick([0, *part])
                part = []
            part += group
        yield table.pick([0, *part])

    @staticmethod
    def _groups(table: Table) -> list[list[int]]:
        """The places of columns that stay together, without the first column."""
        groups: list[list[int]] = []
        for place, column in enumerate(table.columns[1:], start=1):
            if column.beside and groups:
                groups[-1].append(place)
            else:
                groups.append([place])
        return groups

    def _widths(self, table: Table) -> list[int]:
        """Cells that each column takes, the first one with its arrows."""
        widths = [
            max(cell_len(self._heading(table, place)), *(text.cell_len for text in texts), 0)
            for place, texts in enumerate(self._texts(table))
        ]
        widths[0] += _COLUMN_GAP + 1 if self._ways(table) else 0
        return widths

    def _heading(self, table: Table, place: int) -> str:
        name = visible(table.columns[place].heading)
        return cut_inside(name, LONGEST_HEADING, self._glyphs.ellipsis) if table.folds else name

    def _texts(self, table: Table) -> list[list[Text]]:
        """What stands in the cells, column by column."""
        columns: list[list[Text]] = []
        for place, column in enumerate(table.columns):
            cells = table.cells(place)
            texts = [
                self._words(cell, place) + _MARK * self._is_marked(row, cell, place)
                for row, cell in zip(table.rows, cells, strict=True)
            ]
            if column.at_point:
                texts = align_at_point(texts)
            columns.append(
                [
                    _escape(text, "bold" if row.look == "chosen" else _LOOKS.get(cell.look, ""))
                    for row, cell, text in zip(table.rows, cells, texts, strict=True)
                ]
            )
        return columns

    @staticmethod
    def _is_marked(row: TableRow, cell: Cell, place: int) -> bool:
        return cell.look == "best" or (row.look == "chosen" and place == 0)

    def _words(self, cell: Cell, place: int) -> str:
        return cell.text if cell.prose or place == 0 else self._glyphs.number(cell.text)

    def _ways(self, table: Table) -> list[Text]:
        """Arrows behind the names of metrics; nothing for other tables."""
        arrows = {"lower": self._glyphs.lower, "higher": self._glyphs.higher}
        ways = [cell.way for cell in table.cells(0)]
        return [Text(arrows.get(way, ""), "dim") for way in ways] if any(ways) else []

    def _drawn(self, table: Table) -> RichTable:
        drawn = RichTable(box=None, pad_edge=False, padding=(0, _COLUMN_GAP, 0, 0))
        drawn.header_style = "bold"
        ways = self._ways(table)
        for place, column in enumerate(table.columns):
            heading = Text(self._heading(table, place))
            side = "left" if column.leading else column.align
            drawn.add_column(heading, justify=side, no_wrap=not table.wraps)
            if ways and place == 0:
                drawn.add_column()
        for place, (row, texts) in enumerate(
            zip(table.rows, zip(*self._texts(table), strict=True), strict=True)
        ):
            if row.section:
                if place:
                    drawn.add_row()
                drawn.add_row(_escape(row.section, "dim"))
            drawn.add_row(texts[0], *ways[place : place + 1], *texts[1:])
        return drawn

    def say_diagrams(self, document: Document) -> None:
        """The reliability diagrams."""
        shown = judged_columns(document)
        if len(shown) > DIAGRAMS:
            return
        titled = is_fit(document) or len(shown) > 1
        parts = [(visible(c.title) if titled else "", c.part) for c in shown]
        self.say()
        for line in reliability_diagrams(parts, self._glyphs, self._console.width):
            line.rstrip()
            # Whatever is too wide for a very narrow terminal is cut: wrapped bars say nothing.
            self._console.print(line, no_wrap=True, overflow="crop", crop=True)

    def say_gates(self, document: Document | HistoryDocument) -> None:
        """A line for each gate."""
        # Most results have no gates, and what reads conditions takes a while to import.
        from calibcli.report.gate_results import gate_lines

        lines = gate_lines(document)
        named = any(line.input_name for line in lines)
        grid = _grid()
        grid.add_column()
        for _ in range(3 if named else 2):
            grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for line in lines:
            grid.add_row(
                Text("gate", "bold"),
                *([_escape(line.input_name)] if named else []),
                _escape(line.expression),
                _escape(line.outcome, _LOOKS[line.outcome]),
                _escape(line.figures if line.unknown else self._glyphs.number(line.figures)),
            )
        self._console.print(grid)

    def say_conventions(self, document: Document) -> None:
        """The convention of every metric."""
        grid = _grid()
        for title, text in convention_lines(columns(document)):
            grid.add_row(Text(title, "bold"), Text(text, "dim"))
        self._console.print(grid)


def _grid() -> RichTable:
    """An empty table without headings."""
    return RichTable.grid(padding=(0, _COLUMN_GAP, 0, 0))
