"""The metrics of a document as columns side by side: what tables of every format have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibcli.metrics.registry import METRICS
from calibcli.report.document import is_fit, main_figure, measurements, results_of
from calibcli.workflow.texts import difference_text, plural, short_names
from calibcli.workflow.verdict import Verdict

if TYPE_CHECKING:
    from calibcli.schema.documents import Document, FitDocument, Result
    from calibcli.schema.parts import FitMeasurementPart, IntervalPart, MeasurementPart, MetricPart

_LONG_TABLE = 10
"""A table of more metrics is divided by what they are about."""

_MOST_SHARES = 10

PLAIN_HEADING = "plain nll"
PLAIN_IS_BETTER = "nll better"

_HARDLY = 0.002
"""A relative change up to this is none that anybody should act on."""


@dataclass(frozen=True)
class Column:
    """The metrics of one measurement.

    Attributes
    ----------
    title : str
        ``"before"``, ``"after"``, or the shortest name that tells an input from the others.
    part : MeasurementPart
    """

    title: str
    part: MeasurementPart

    def value(self, metric: str) -> float | None:
        """The value of a metric, or None where it was not measured."""
        return self.metric(metric)["value"]

    def figure(self, metric: str) -> float | None:
        """The main figure of a metric: of errors the estimate, where there is one."""
        return main_figure(self.metric(metric))

    def metric(self, metric: str) -> MetricPart:
        """All that the document has of a metric; no value where it was not measured."""
        return self.part["metrics"].get(metric, {"value": None})


def measured_input(result: Result) -> str:
    """Name of the input that the metrics of a result are of."""
    source = result["input"]
    if is_fit(result) and result["after"] and result["after"]["measured_on"] == "test":
        source = result["test"] or source
    return source["name"]


def columns(document: Document) -> list[Column]:
    """The measurements of a document, in their order."""
    if is_fit(document):
        return [Column(stage, part) for stage, part in measurements(document).items()]
    results = results_of(document)
    names = short_names([result["input"]["name"] for result in results])
    return [
        Column(name, part)
        for name, result in zip(names, results, strict=True)
        for part in measurements(result).values()
    ]


def target_columns(document: Document) -> list[Column]:
    """Before and after a fit for other class shares, of rows weighted to these; empty otherwise."""
    pair = (document["target"] or document["balanced"]) if is_fit(document) else None
    return [Column("before", pair["before"]), Column("after", pair["after"])] if pair else []


def plain_columns(document: Document) -> tuple[Column | None, Column | None]:
    """A fit by plain nll beside those of `target_columns` and of `columns`, where there is one."""
    if not is_fit(document):
        return None, None
    shifted = document["target"] or document["balanced"]
    parts = None if shifted is None else shifted.get("plain_nll"), document["plain_nll"]
    first, last = (None if part is None else Column(PLAIN_HEADING, part) for part in parts)
    return first, last


def judged_columns(document: Document) -> list[Column]:
    """The measurements that a verdict is on: with the class shares that a fit is for."""
    return target_columns(document) or columns(document)


def verdict_lines(document: Document) -> list[tuple[str, str]]:
    """What is to be said of each measurement, in a sentence, under what it is of."""
    judged = judged_columns(document)
    several = is_fit(document) or len(judged) > 1
    return [
        (column.title if several else "verdict", Verdict.of(column.part).text) for column in judged
    ]


def metric_names(shown: Sequence[Column]) -> list[str]:
    """Every metric of some columns, in the order of the columns."""
    return list(dict.fromkeys(name for column in shown for name in column.part["metrics"]))


def metric_title(metric: str) -> str:
    """How a metric is called in tables; a metric that is not known here keeps its own name."""
    known = METRICS.get(metric)
    return known.title if known else metric


def convention(metric: str) -> str:
    """What must be known to compare the metric with other numbers."""
    known = METRICS.get(metric)
    return known.convention if known else ""


ESTIMATED = "estimates"


def convention_lines(shown: Sequence[Column]) -> list[tuple[str, str]]:
    """The title and the convention of every metric; of errors what their estimates are."""
    names = metric_names(shown)
    lines = [(metric_title(name), convention(name)) for name in names]
    if any("estimate" in column.metric(name) for column in shown for name in names):
        about = "of calibration errors, what is left without noise; those above are plug-ins"
        lines.append((ESTIMATED, about))
    return lines


def better(metric: str) -> str:
    """``"lower"``, ``"higher"``, or nothing: for neither, and for a metric not known here."""
    known = METRICS.get(metric)
    return known.better if known else ""


def group(metric: str) -> str:
    """What a metric is about; nothing for a metric that is not known here."""
    known = METRICS.get(metric)
    return known.group if known else ""


def section_headings(names: Sequence[str]) -> dict[int, str]:
    """What the metrics from some position on are about; nothing where they are few."""
    if len(names) <= _LONG_TABLE:
        return {}
    about = [group(name) for name in names]
    return {i: text for i, text in enumerate(about) if i == 0 or text != about[i - 1]}


def change(
    metric: str,
    before: float | None,
    after: float | None,
    shown: str,
    interval: IntervalPart | None = None,
    plain: float | None = None,
) -> str:
    """What to say of a difference that is shown as ``shown``.

    ``"better"``, ``"worse"``, ``"same"`` or ``"unclear"``, and `PLAIN_IS_BETTER` in place of better
    where a fit by plain nll has a better figure, ``plain``. No change is "same". Where the interval
    of a change holds 0 there may be none: it is "same" if the whole interval is tiny, and unclear
    if not. Without an interval a tiny change is "same".
    """
    low, high = (interval["low"], interval["high"]) if interval else (None, None)
    ends = None if low is None or high is None else (low, high)
    if _is_same(before, after, shown, ends):
        return "same"
    if before is None or after is None or math.isnan(after - before) or not better(metric):
        return ""
    if ends is not None and ends[0] <= 0 <= ends[1]:
        return "unclear"
    lower = better(metric) == "lower"
    if (after < before) != lower:
        return "worse"
    if plain is None or difference_text(after, plain) == "0":
        return "better"
    return PLAIN_IS_BETTER if (plain < after) == lower else "better"


def _is_same(
    before: float | None, after: float | None, shown: str, ends: tuple[float, float] | None
) -> bool:
    if before is None or after is None:
        return shown == "0"
    if before == after:
        return True
    if ends is None:
        return shown == "0" or math.isclose(before, after, rel_tol=_HARDLY)
    tiny = _HARDLY * max(abs(before), abs(after))
    return ends[0] <= 0 <= ends[1] and max(-ends[0], ends[1]) <= tiny < math.inf


def best(metric: str, shown: Sequence[Column]) -> float | None:
    """The best value of several columns, or None where there is nothing to choose."""
    known = [value for column in shown if (value := column.figure(metric)) is not None]
    values = [value for value in known if not math.isnan(value)]
    if len(values) < 2 or min(values) == max(values) or not better(metric):
        return None
    return min(values) if better(metric) == "lower" else max(values)


def target_caption(document: Document) -> str:
    """Which class shares the rows of `target_columns` are weighted to."""
    noise = (
        "The noise of calibration errors is not known under such weights: they are plug-ins, and "
        "have no interval."
    )
    target = document["target"] if is_fit(document) else None
    if target is None:
        return f"The same rows, every class counting the same. {noise}"
    shares = target["shares"]
    listed = ", ".join(f"{share:.4g}" for share in shares[:_MOST_SHARES])
    more = ", …" if len(shares) > _MOST_SHARES else ""
    option = "--target" if "class_shares" in document else "--target-prior"
    return f"The same rows, weighted to the class shares of {option}: {listed}{more}. {noise}"


def caption(document: Document) -> str:
    """The rows on which the metrics were measured, in a sentence; empty where that is plain."""
    if not is_fit(document):
        return ""
    part = document["after"] or document["before"]
    if part is None:
        return "Nothing was measured."
    measured = _measured_on(document, part)
    if target_columns(document):
        measured += (
            " The fit is for other class shares than these rows have: where it is worse on them it "
            "is so by design. Above they are weighted to the shares it is for."
        )
    return measured


def _measured_on(document: FitDocument, part: FitMeasurementPart) -> str:
    rows, place = plural(part["rows"], "row"), part["measured_on"]
    if place == "test":
        return f"Measured on the {rows} of {measured_input(document)}."
    if place == "cross-fit":
        clusters = document["input"].get("clusters")
        unseen = "not seen it"
        if clusters is not None:
            unseen = f"seen no row of the same {clusters['column']}"
        return (
            f"Measured on the {rows} of {document['input']['name']} by {part['folds']}-fold "
            f"cross-fitting: every row by a fit that has {unseen}."
        )
    return f"Measured on the {rows} of {document['input']['name']}, before the fit only."
