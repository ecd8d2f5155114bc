"""A leaderboard of methods: as part of a document, as a table, and as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from calibcli.report.document import SCHEMA_VERSION, Document
from calibcli.report.glyphs import Glyphs
from calibcli.report.layout import open_table
from calibcli.report.texts import align_at_point, count, duration, exact, significant

if TYPE_CHECKING:
    from calibcli.workflow.choosing import Leaderboard, Standing

LEADERBOARD_HEADINGS = ("method", "NLL", "behind", "s.e.", "Brier", "ECE", "size", "fit")
CHOSEN = "*"


def leaderboard_entries(board: Leaderboard | None) -> list[Document] | None:
    """The standings of a leaderboard, from the best to the worst; None where there is none."""
    if board is None:
        return None
    return [_entry(standing, standing is board.chosen) for standing in board.standings]


def _entry(standing: Standing, chosen: bool) -> Document:
    trial, values = standing.trial, standing.evaluation.values
    metrics = {}
    for name, value in values.items():
        found = standing.evaluation.intervals.get(name)
        low, high = (None, None) if found is None else (found.low, found.high)
        metrics[name] = {"value": value, "low": low, "high": high}
    return {
        "method": trial.plan.title,
        "loss": trial.plan.loss,
        "chosen": chosen,
        "parameters": trial.parameters,
        "seconds": trial.seconds,
        "converged": trial.fit.converged,
        "metrics": metrics,
        "behind": {"nll": standing.behind, "standard_error": standing.behind_error},
        "members": [
            {"method": member.plan.title, "loss": member.plan.loss, "weight": weight}
            for member, weight in trial.weighted_members()
        ],
    }


def compare_document(
    board: Leaderboard, *, source: Mapping[str, Any], rows: int, classes: int, folds: int
) -> Document:
    """The document of ``calib compare``."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "compare",
        "input": dict(source),
        "rows": rows,
        "classes": classes,
        "folds": folds,
        "leaderboard": leaderboard_entries(board),
        "why": board.why,
    }


def leaderboard_table(entries: Sequence[Document], glyphs: Glyphs) -> Table:
    """Methods from the best to the worst, for the terminal."""
    table = open_table()
    for position, heading in enumerate(LEADERBOARD_HEADINGS):
        table.add_column(Text(heading), justify="right" if position else "left", no_wrap=True)
    cells = leaderboard_rows(entries)
    for column in range(1, 6):
        aligned = align_at_point([row[column] for row in cells])
        for row, text in zip(cells, aligned, strict=True):
            row[column] = glyphs.number(text)
    for entry, row in zip(entries, cells, strict=True):
        table.add_row(*(Text(cell, "bold" if entry["chosen"] else "") for cell in row))
    return table


def leaderboard_rows(entries: Sequence[Document]) -> list[list[str]]:
    """A row of texts for each method, as `LEADERBOARD_HEADINGS` name them."""
    return [
        [
            title(entry) + CHOSEN * entry["chosen"],
            significant(entry["metrics"]["nll"]["value"]),
            *map(_difference, (entry["behind"]["nll"], entry["behind"]["standard_error"])),
            significant(entry["metrics"]["brier"]["value"]),
            significant(entry["metrics"]["ece"]["value"]),
            count(entry["parameters"]),
            duration(entry["seconds"]),
        ]
        for entry in entries
    ]


def _difference(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}" if value else "0"


def title(entry: Document) -> str:
    """The method, with the loss where it is not the usual one."""
    return str(entry["method"]) + ("" if entry["loss"] == "nll" else f" ({entry['loss']})")


def leaderboard_legend(entries: Sequence[Document]) -> list[str]:
    """Lines that say what the leaderboard's columns mean, and what a stack is made of."""
    return [
        f"{CHOSEN} chosen; behind: held-out NLL minus that of the best; s.e.: its standard error;",
        "size: fitted numbers; fit: time of a fit to all rows",
        *member_lines(entries),
    ]


def member_lines(entries: Sequence[Document]) -> list[str]:
    """A line for each stack: what it is made of."""
    lines = []
    for entry in entries:
        if entry["members"]:
            parts = (f"{member['weight']:.2f} {title(member)}" for member in entry["members"])
            lines.append(f"{title(entry)}: log-probabilities times {', '.join(parts)}")
    return lines


def leaderboard_lines(document: Document) -> Iterator[list[str]]:
    """The lines of a CSV file: a metric of a method each, at full precision."""
    yield ["input", "method", "loss", "metric", "value"]
    for entry in document["leaderboard"]:
        head = [document["input"]["name"], entry["method"], entry["loss"]]
        for metric, found in entry["metrics"].items():
            yield [*head, metric, exact(found["value"])]
