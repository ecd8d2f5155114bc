"""A result document as text, by the name of ``--format``; ``table`` is that of `terminal`."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from calibcli.report.comparison import measured_input
from calibcli.report.document import measurements, results_of
from calibcli.report.github import to_github
from calibcli.report.junit import to_junit
from calibcli.report.openmetrics import to_openmetrics
from calibcli.report.pairings import trim_pairings
from calibcli.report.render_latex import to_latex
from calibcli.report.render_markdown import to_markdown
from calibcli.visible import visible
from calibcli.workflow.texts import exact

if TYPE_CHECKING:
    from calibcli.schema.documents import Document, Result
    from calibcli.schema.parts import MetricPart, NumberPart


def to_json(document: Document) -> str:
    """The document itself; numbers that JSON does not have (NaN, infinity) are null.

    What can be paired with other runs is kept of as many inputs as there is room for.
    """
    plain = plain_value(document)
    trim_pairings(plain.get("results", []))
    return json.dumps(plain, indent=2, allow_nan=False) + "\n"


def plain_value(value: Any) -> Any:
    """The value with plain lists for arrays, and None for numbers that are not finite."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: plain_value(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(element) for element in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_csv(document: Document) -> str:
    """A line for every metric of every measurement, at full precision.

    Columns: ``input`` (of a fit the one it was measured on), ``measured`` (``before`` or
    ``after`` a fit, otherwise empty), ``metric``, ``value`` (empty where it is not a number),
    ``estimate`` (of errors with an interval, otherwise empty), ``low`` and ``high`` (the 95 %
    interval), ``column`` and ``slice`` (of the rows of a slice, otherwise empty; those of predicted
    classes have no column). Of a comparison: ``input``, ``method``, ``loss``, ``metric``, and the
    same numbers.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if document["command"] == "compare":
        writer.writerow(["input", "method", "loss", "metric", *_NUMBERS])
        for entry in document["leaderboard"]:
            head = [document["input"]["name"], entry["method"], entry["loss"]]
            for metric, figure in entry["metrics"].items():
                writer.writerow([*map(_harmless, head), metric, *_figures(figure)])
        return text.getvalue()
    writer.writerow(["input", "measured", "metric", *_NUMBERS, "column", "slice"])
    for result in results_of(document):
        for stage, part in measurements(result).items():
            head = [_harmless(measured_input(result)), stage]
            for metric, number in part["metrics"].items():
                writer.writerow([*head, metric, *_figures(number), "", ""])
            writer.writerows([*head, *line] for line in _slices_lines(result))
    return text.getvalue()


_NUMBERS = ("value", "estimate", "low", "high")


def _figures(number: NumberPart | MetricPart) -> list[str]:
    return [exact(number.get(key)) for key in _NUMBERS]  # type: ignore[arg-type]


def _slices_lines(result: Result) -> Iterator[list[str]]:
    """A metric of a slice of an input, its numbers, the column and the slice."""
    for part in result.get("slices", ()) if result["command"] == "evaluate" else ():
        for entry in part["slices"]:
            place = [_harmless(part["column"] or ""), _harmless(entry["name"])]
            for metric in ("nll", "brier", "ece"):
                yield [metric, *_figures(entry[metric]), *place]
            yield ["accuracy", exact(entry["accuracy"]), "", "", "", *place]


def _harmless(name: str) -> str:
    """A name that a spreadsheet takes for text: what begins as a formula has a quote before it."""
    begins = len(name) > 1 and name[0] in "=+-@\t\r"
    return f"'{visible(name)}" if begins else visible(name)


RENDERERS: dict[str, Callable[[Document], str]] = {
    "json": to_json,
    "markdown": to_markdown,
    "csv": to_csv,
    "latex": to_latex,
    "github": to_github,
    "junit": to_junit,
    "openmetrics": to_openmetrics,
}

PAGES = ("markdown", "github")
"""Those in which a character reference stands for a character that a stream does not have."""
