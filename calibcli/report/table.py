"""Tables as such: what they say, whatever format shows them.

`calibcli.report.tables` builds each table once; terminal, Markdown and page render it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from calibcli.workflow.texts import cut_end

INTERVAL_HEADING = "95 % interval"
NO_INTERVAL = "none"
"""What stands beside a number that has no interval, among others that have one."""

_INTERVAL_RANK, _WORD_RANK = 2, 3


class Whisker(NamedTuple):
    """A number and its interval as places on a line from 0 to 1."""

    low: float
    at: float
    high: float


@dataclass(frozen=True)
class Cell:
    """What a table says in one place.

    Attributes
    ----------
    text : str
    value : float or None
        What its column is sorted by; None where it is sorted by the text.
    interval : str
        The interval of the number.
    word : str
        What to think of it: ``"better"``.
    look : str
        How it stands out: ``"better"``, ``"worse"``, ``"same"``, ``"unclear"``, ``"best"`` of its
        row, ``"clear"`` evidence, ``"quiet"``, or a kind of `calibcli.workflow.verdict`.
    tip : str
        What a page says under the pointer.
    way : str
        ``"lower"`` or ``"higher"``, of the name of a metric: which way is better.
    code, prose : bool
        Whether the text is an expression, or words, whose hyphens are no minus signs.
    whisker : Whisker or None
        What a page draws before the text.
    """

    text: str = ""
    value: float | None = None
    interval: str = ""
    word: str = ""
    look: str = ""
    tip: str = ""
    way: str = ""
    code: bool = False
    prose: bool = False
    whisker: Whisker | None = None


@dataclass(frozen=True)
class TableColumn:
    """What holds for all cells of a column.

    Attributes
    ----------
    heading : str
    align : str
    at_point : bool
        Whether a terminal puts the decimal points one below the other.
    leading : bool
        Whether the heading of such numbers, and their intervals, stand on the left in text.
    rank : int
        Narrow terminals drop the highest ranks first, and a page shows them last; 0 is never
        dropped.
    leads : bool
        Whether a page shows it next to the names, where a phone has it in sight.
    only : str
        The one kind of format that shows the column; empty for all.
    interval_apart : bool
        Whether text has a column for the intervals; a page shows them beside the numbers.
    longest : int
        Characters of a name in text, which has no pointer to show the rest; 0 for any number.
    input_name : str
        Whose numbers these are, for what stands alone: a page of Markdown.
    legend : str
        What the heading means.
    beside : bool
        Whether it belongs to the column before it, and is nothing without that.
    """

    heading: str
    align: Literal["left", "right"] = "right"
    at_point: bool = False
    leading: bool = False
    rank: int = 0
    leads: bool = False
    only: Literal["", "page", "text"] = ""
    interval_apart: bool = True
    longest: int = 0
    input_name: str = ""
    legend: str = ""
    beside: bool = False


@dataclass(frozen=True)
class TableRow:
    """A line of a table.

    Attributes
    ----------
    cells : sequence of Cell
        The first one names the line.
    look : str
        ``"chosen"``, or ``"chance"``: what may be nothing but that.
    section : str
        What this line and those below it are about.
    """

    cells: Sequence[Cell]
    look: str = ""
    section: str = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows, and what is said about them.

    Attributes
    ----------
    heading, input_name : str
        What it is, and of which input, where there are several.
    caption : str
        A sentence below it.
    note : str
        What must be known of its numbers; it stands before the meanings of headings.
    kind : str
        How a page lays it out; a ``sortable`` table can be sorted.
    picks : str
        What a click on a line draws: ``"class"``, ``"slice"``, or nothing.
    folds : bool
        Whether columns that a terminal has no room for go into another table.
    wraps : bool
        Whether the cells of a terminal may take several lines.
    """

    columns: Sequence[TableColumn]
    rows: Sequence[TableRow]
    heading: str = ""
    input_name: str = ""
    caption: str = ""
    note: str = ""
    kind: str = "metrics"
    picks: str = ""
    folds: bool = False
    wraps: bool = False

    def pick(self, places: Sequence[int]) -> Table:
        """The table with some of its columns, in this order."""
        rows = [replace(row, cells=[row.cells[place] for place in places]) for row in self.rows]
        return replace(self, columns=[self.columns[place] for place in places], rows=rows)

    def shown_on(self, medium: Literal["page", "text"]) -> Table:
        """The table with the columns that are shown there."""
        kept = [i for i, column in enumerate(self.columns) if column.only in ("", medium)]
        return self.pick(kept)

    def by_rank(self) -> Table:
        """The table with what matters most first."""
        first, *others = range(len(self.columns))

        def importance(place: int) -> tuple[bool, int]:
            return not self.columns[place].leads, self.columns[place].rank

        return self.pick([first, *sorted(others, key=importance)])

    def cells(self, place: int) -> list[Cell]:
        """The cells of a column."""
        return [row.cells[place] for row in self.rows]

    @property
    def legend(self) -> str:
        """The note, and what the headings of its columns mean: ``behind: ...; s.e.: ...``."""
        meanings = [f"{c.heading}: {c.legend}" for c in self.columns if c.legend]
        return "; ".join(filter(None, [self.note, *meanings]))


def flat(table: Table) -> Table:
    """The table for text, with intervals and words in columns of their own, if there are any."""
    table = table.shown_on("text")
    columns: list[TableColumn] = []
    cells: list[list[Cell]] = []
    for place, column in enumerate(table.columns):
        whole = table.cells(place)
        longest = column.longest or None
        columns.append(replace(column, heading=cut_end(column.heading, longest)))
        cells.append(
            [
                replace(cell, text=cut_end(cell.text, longest), interval="", word="")
                for cell in whole
            ]
        )
        if any(cell.word for cell in whole):
            columns.append(TableColumn("", align="left", rank=_WORD_RANK, beside=True))
            cells.append([Cell(cell.word, look=cell.look, prose=True) for cell in whole])
        if column.interval_apart and any(cell.interval for cell in whole):
            side: Literal["left", "right"] = "left" if column.leading else "right"
            heading, rank = INTERVAL_HEADING, _INTERVAL_RANK
            columns.append(TableColumn(heading, align=side, rank=rank, beside=True))
            look = "quiet" if column.leading else ""
            cells.append([Cell(cell.interval, look=look) for cell in whole])
    rows = [
        replace(row, cells=list(line))
        for row, line in zip(table.rows, zip(*cells, strict=True), strict=True)
    ]
    return replace(table, columns=columns, rows=rows)
