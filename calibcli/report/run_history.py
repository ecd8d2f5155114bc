"""Runs in a file: the line of a run that was measured, and a metric over all of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from calibcli.errors import RunsError
from calibcli.report.comparison import measured_input, metric_title
from calibcli.report.document import gates_of, results_of
from calibcli.report.formats import plain_value
from calibcli.report.gate_results import gate_part
from calibcli.report.table import INTERVAL_HEADING, Cell, Table, TableColumn, TableRow
from calibcli.version import __version__
from calibcli.workflow.conditions import Gate
from calibcli.workflow.gates import judge
from calibcli.workflow.quantities import Estimate, OverRuns, Quantity, Subject
from calibcli.workflow.runs import LEAST_RUNS, History, absent_trend
from calibcli.workflow.texts import (
    LONGEST_NAME,
    cut_end,
    interval_text,
    plural,
    range_text,
    significant,
)

if TYPE_CHECKING:
    from calibcli.schema.documents import (
        HistoryDocument,
        Judged,
        RunDocument,
        RunPart,
        SeriesPart,
        TrendPart,
    )

SHOWN_RUNS = 36
"""So many runs are shown in text, the last of them; the JSON and the picture have all."""

_TO_THE_MINUTE = len("2026-01-31T12:30")
_OUT = ("high", "low")
_WORDS = {"high": "above", "low": "below", "within": "", "too few": ""}


def run_lines(document: Judged, *, name: str | None, time: str, params_sha256: str | None) -> bytes:
    """A line of JSON for each input of a document that was evaluated.

    Parameters
    ----------
    document : dict
    name : str or None
        What its user calls the run.
    time : str
    params_sha256 : str or None
        Of the parameter file.
    """
    lines = []
    for result in results_of(document):
        if result["command"] != "evaluate":
            continue
        source, positive = measured_input(result), result["positive"]
        passed = [each["passed"] for each in gates_of(document) if each["input"] == source]
        decisions = result.get("decisions")
        line: RunDocument = {
            "schema_version": 1,
            "command": "run",
            "calib": __version__,
            "time": time,
            "name": name,
            "input": source,
            "positive": None if positive is None else str(positive["name"]),
            "params": result["params"],
            "params_sha256": params_sha256,
            "rows": result["rows"],
            "classes": result["classes"],
            "costs": decisions["costs"] if decisions else None,
            "metrics": result["metrics"],
            "gates": {"passed": sum(passed), "failed": len(passed) - sum(passed)}
            if passed
            else None,
        }
        lines.append(json.dumps(plain_value(line), allow_nan=False))
    return "".join(f"{line}\n" for line in lines).encode()


def history_document(
    histories: Sequence[History], file: str, metric: str, gates: Sequence[Gate], *, clear: bool
) -> HistoryDocument:
    """A metric over the runs of a file, and what came of gates.

    Parameters
    ----------
    histories : sequence of History
    file, metric : str
    gates : sequence of Gate
        Judged of the last run of each input.
    clear : bool
        Whether they fail only where a whole interval fulfils them.

    Raises
    ------
    RunsError
        No run has the metric.
    """
    known = dict.fromkeys(
        each for history in histories for run in history.runs for each in run.metrics
    )
    if metric not in known:
        raise RunsError(f"{file}: no run has {metric}; they have {', '.join(known) or 'none'}")
    document: HistoryDocument = {
        "schema_version": 1,
        "command": "history",
        "file": file,
        "metric": metric,
        "inputs": [_series(history, metric) for history in histories],
    }
    if gates:
        document["gates"] = [
            gate_part(judge(gate, _subject(history, gates), significant=clear))
            for history in histories
            for gate in gates
        ]
    return document


def _series(history: History, metric: str) -> SeriesPart:
    numbers = zip(history.runs, history.estimates(metric), history.bands(metric), strict=True)
    runs: list[RunPart] = []
    for number, (run, estimate, band) in enumerate(numbers, history.first):
        entry = run.metrics.get(metric)
        part: RunPart = {
            "number": number,
            "name": run.name,
            "time": run.time,
            "value": entry["value"] if entry else None,
            "low": _known(estimate.low),
            "high": _known(estimate.high),
            "band_low": _known(band.low),
            "band_high": _known(band.high),
            "signal": band.signal,
        }
        if entry and "estimate" in entry:
            part["estimate"] = entry["estimate"]
        runs.append(part)
    return {
        "input": history.input,
        "positive": history.positive,
        "runs": runs,
        "first_out": next((run["number"] for run in runs if run["signal"] in _OUT), None),
        "trend": _trend(history, metric),
    }


def _trend(history: History, metric: str) -> TrendPart:
    trend = history.trend(metric)
    return {
        "slope": _known(trend.slope.value),
        "start": _known(trend.start),
        "low": _known(trend.slope.low),
        "high": _known(trend.slope.high),
        "runs": trend.runs,
        "weighted": trend.weighted,
        "between": _known(trend.between),
    }


def _subject(history: History, gates: Sequence[Gate]) -> Subject:
    """What gates are judged on: the last run, and what they need of all of them."""
    operands = (operand for gate in gates for operand in gate.operands)
    quantities = [each for each in operands if isinstance(each, Quantity) and each.is_of_runs]
    over_runs: dict[tuple[str, str], OverRuns] = {
        (each.metric, each.stage): _over_runs(history, each) for each in quantities
    }
    return Subject(history.title, history.runs[-1].metrics, over_runs=over_runs)


def _over_runs(history: History, quantity: Quantity) -> OverRuns:
    if quantity.stage == "trend":
        trend = history.trend(quantity.metric)
        return OverRuns(trend.slope, absent_trend(trend))
    band = history.bands(quantity.metric)[-1]
    return OverRuns(
        Estimate(band.middle, band.low, band.high),
        "no earlier run has it with an interval, nor have two without",
    )


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def history_tables(document: HistoryDocument) -> Iterator[Table]:
    """A table for each input: its last runs, and the trend in the caption."""
    for part in document["inputs"]:
        yield _runs_table(part, document["metric"])


def series_title(part: SeriesPart) -> str:
    """The input, and the positive class if it is about one."""
    return History(part["input"], part["positive"], ()).title


def _runs_table(part: SeriesPart, metric: str) -> Table:
    shown = part["runs"][-SHOWN_RUNS:]
    named = any(run["name"] is not None for run in shown)
    heads = [
        TableColumn("run", align="left"),
        TableColumn("name", align="left", longest=LONGEST_NAME),
        TableColumn("time", align="left", rank=3),
        TableColumn(metric_title(metric), at_point=True),
        TableColumn(INTERVAL_HEADING, align="left", rank=2),
        TableColumn("band", align="left", rank=1),
        TableColumn("", align="left"),
    ]
    table = Table(
        heads,
        [_row(run) for run in shown],
        heading=f"Runs of {series_title(part)}",
        caption=" ".join(_caption(part, len(shown))),
        wraps=True,
        input_name=series_title(part),
    )
    return table if named else table.pick([place for place in range(len(heads)) if place != 1])


def _row(run: RunPart) -> TableRow:
    number = run.get("estimate", run["value"])
    word = _WORDS[run["signal"]]
    cells = [
        Cell(str(run["number"]), run["number"]),
        Cell(cut_end(run["name"] or ""), tip=run["name"] or "", prose=True),
        Cell(run["time"][:_TO_THE_MINUTE].replace("T", " "), prose=True),
        Cell(significant(number), number),
        Cell(interval_text(run) if number is not None else ""),
        Cell(range_text({"low": run["band_low"], "high": run["band_high"]}, number), look="quiet"),
        Cell(word, look="worse" if word else "quiet", prose=True),
    ]
    return TableRow(cells)


def _caption(part: SeriesPart, shown: int) -> Iterator[str]:
    runs, trend = part["runs"], part["trend"]
    if shown < len(runs):
        yield f"The last {shown} of {plural(len(runs), 'run')}."
    first = next((run for run in runs if run["number"] == part["first_out"]), None)
    if first is not None:
        name = "" if first["name"] is None else f", {cut_end(first['name'])},"
        yield f"Run {first['number']}{name} is the first one {_WORDS[first['signal']]} the band."
    elif any(run["signal"] == "within" for run in runs):
        yield "No run has left the band."
    if trend["slope"] is None:
        yield f"There is no trend: it takes {LEAST_RUNS} runs."
        return
    weights = "weighted by their intervals" if trend["weighted"] else "all of equal weight"
    yield (
        f"Trend {significant(trend['slope'])} a run {interval_text(trend)}, of "
        f"{plural(trend['runs'], 'run')}, {weights}."
    )
