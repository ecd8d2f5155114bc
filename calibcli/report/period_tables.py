"""The table of expected and observed events by period."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from calibcli.report.table import Cell, Table, TableColumn, TableRow
from calibcli.workflow.texts import LONGEST_NAME, count, plural, significant
from calibcli.workflow.verdict import BY_CHANCE_OUT

if TYPE_CHECKING:
    from calibcli.schema.documents import EvaluateDocument
    from calibcli.schema.parts import PeriodPart, PeriodsPart

SHOWN_PERIODS = 36
"""So many periods are shown in text, the last of them; a page and the JSON have all."""

_MANY = 1e7

_WORDS = {"high": "above", "low": "below", "within": "", "too few": "too few"}


def period_tables(result: EvaluateDocument, name: str, most: int | None = None) -> Iterator[Table]:
    """The periods of an input, where its rows were divided into any."""
    part = result.get("periods")
    if part is not None:
        yield replace(_periods_table(part, result, most), input_name=name)


def _periods_table(part: PeriodsPart, result: EvaluateDocument, most: int | None) -> Table:
    every = part["periods"]
    shown = every if most is None else every[-most:]
    event = result["positive"]
    came = "right" if event is None else "came"
    heads = [
        TableColumn(part["column"], align="left", longest=LONGEST_NAME),
        TableColumn("rows", rank=2),
        *(TableColumn(heading, at_point=True) for heading in ("expected", came)),
        TableColumn("limits", align="left", rank=1),
        TableColumn("", align="left"),
    ]
    which = (
        f"The last {len(shown)} of {plural(len(every), 'period')}. "
        if len(shown) < len(every)
        else ""
    )
    return Table(
        heads,
        [_period_row(entry) for entry in shown],
        heading=f"By {part['column']}, in order",
        caption=which + _about(part),
        wraps=True,
    )


def _about(part: PeriodsPart) -> str:
    judged = [entry for entry in part["periods"] if entry["signal"] != "too few"]
    out = sum(entry["signal"] in ("high", "low") for entry in judged)
    noise = "the clusters" if part["limits"] == "clusters" else "the probabilities"
    events = "events or clusters" if part["limits"] == "clusters" else "events"
    verb = "is" if out == 1 else "are"
    chance = f"one in {1 / BY_CHANCE_OUT:.0f}"
    few = any(entry["signal"] == "too few" for entry in part["periods"])
    return (
        f"{out} of {plural(len(judged), 'period')} {verb} out of the limits; of a calibrated model "
        f"{chance} is, by chance. The limits are three standard deviations by the noise of "
        f"{noise} to either side of what is expected: wider than what is asked for a p below 0.05."
        + (f" Too few: fewer than 5 {events}." if few else "")
    )


def _period_row(entry: PeriodPart) -> TableRow:
    low, high, word = entry["low"], entry["high"], _WORDS[entry["signal"]]
    limits = "" if low is None or high is None else f"{_count(low)} to {_count(high)}"
    cells = [
        Cell(entry["name"], tip=entry["name"], prose=True),
        Cell(count(entry["rows"]), entry["rows"]),
        Cell(_count(entry["expected"]), entry["expected"]),
        Cell(_count(entry["observed"]), entry["observed"]),
        Cell(limits, low, look="quiet"),
        Cell(word, look="worse" if word in ("above", "below") else "quiet", prose=True),
    ]
    return TableRow(cells)


def _count(number: float) -> str:
    """A number of events, which weights or probabilities make one that is not whole."""
    if abs(number) >= _MANY:
        return significant(number)
    return f"{number:,.0f}" if number == round(number) else f"{number:,.1f}"
