"""The tables about decisions: what they cost, by threshold, and on the surest rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from calibcli.report.comparison import change
from calibcli.report.document import measurements, results_of
from calibcli.report.table import NO_INTERVAL, Cell, Table, TableColumn, TableRow
from calibcli.visible import visible
from calibcli.workflow.texts import (
    difference_text,
    interval_text,
    percent,
    short_names,
    significant,
)

if TYPE_CHECKING:
    from calibcli.schema.documents import Document
    from calibcli.schema.parts import (
        DecisionsPart,
        MeasurementPart,
        NumberPart,
        RulePart,
        ThresholdPart,
    )

_RULES = {
    "least": "least expected cost",
    "best": "threshold by cost",
    "argmax": "argmax",
    "constant": "always {}",
    "always": "always {}",
    "never": "never {}",
}

_OCTAVES = (-2, -1, 0, 1, 2)
"""The odds of thresholds in the text, in doublings of the theoretical one's."""


def decision_tables(document: Document) -> Iterator[Table]:
    """What decisions cost, of every input where errors have a cost."""
    results = results_of(document)
    names = short_names([result["input"]["name"] for result in results])
    for result, name in zip(results, names, strict=True):
        parts = {stage: part for stage, part in measurements(result).items() if "decisions" in part}
        if not parts:
            continue
        tables = [_rules_table(parts), _curve_table(parts), _abstention_table(parts)]
        for table in tables:
            if table is not None:
                yield replace(table, input_name=name if len(results) > 1 else "")


def _decisions(parts: Mapping[str, MeasurementPart]) -> list[DecisionsPart]:
    return [part["decisions"] for part in parts.values() if "decisions" in part]


def _number(number: NumberPart) -> Cell:
    known = number["value"] is not None
    interval = interval_text(number) or (NO_INTERVAL if known else "")
    return Cell(significant(number["value"]), number["value"], interval=interval)


def _about_intervals(cells: Iterable[Cell]) -> str:
    """Why some costs have no interval, where others have one."""
    known = {cell.interval == NO_INTERVAL for cell in cells if cell.interval}
    few = f" {NO_INTERVAL.capitalize()}: too few of these rows have a cost."
    return few if known == {True, False} else ""


def _threshold(threshold: float | None) -> Cell:
    return Cell("" if threshold is None else f"{threshold:.4g}", threshold)


def _share(share: float | None) -> Cell:
    return Cell("" if share is None else percent(share), share)


def _positive(parts: Mapping[str, MeasurementPart]) -> str:
    """The name of the positive class of two."""
    part = list(parts.values())[-1]
    event = part["positive"]
    return visible(event["name"]) if event else str(_decisions(parts)[-1]["positive"])


def _rules_table(parts: Mapping[str, MeasurementPart]) -> Table:
    decisions, positive = _decisions(parts), _positive(parts)
    last, binary = decisions[-1], decisions[-1]["threshold"] is not None
    rows = []
    for place, rule in enumerate(last["rules"]):
        named = _RULES[rule["rule"]].format(rule["decision"] or positive)
        each = [part["rules"][place] for part in decisions]
        cells = [_threshold(r["threshold"]) for r in each] + [_share(rule["flagged"])]
        cells = cells if binary else []
        rows.append(TableRow([Cell(named, prose=True), *cells, *_costs(each)]))
    stages = [f" {stage}" for stage in parts] if len(parts) > 1 else [""]
    thresholds = [TableColumn(f"threshold{stage}", rank=2) for stage in stages]
    thresholds[-1] = replace(thresholds[-1], rank=0)
    heads = [TableColumn("decide by", align="left")]
    if binary:
        heads += [*thresholds, TableColumn(f"decided {positive}", rank=1)]
    heads += [
        TableColumn(f"cost{stage}", at_point=True, leading=True, interval_apart=len(stages) == 1)
        for stage in stages
    ]
    if len(stages) == 2:
        heads.append(TableColumn("change", at_point=True, leading=True))
    return Table(heads, rows, heading="Decisions", caption=_about_rules(last), wraps=True)


def _costs(each: Sequence[RulePart]) -> list[Cell]:
    """The cost of a rule; of a fit before and after, and by how much it changed."""
    cells = [_number(rule["cost"]) for rule in each]
    if len(each) == 2:
        values = [rule["cost"]["value"] for rule in each]
        if each[1]["rule"] == "best":
            return [*cells, Cell()]
        shift, interval = difference_text(*values), each[1].get("change")
        word = change("cost", values[0], values[1], shift, interval)
        cells.append(Cell(shift, interval=interval_text(interval), word=word, look=word))
    return cells


def _about_rules(part: DecisionsPart) -> str:
    threshold, costs = part["threshold"], part["costs"]
    if threshold is None or costs is None:
        return (
            "Mean cost of a row. Least expected cost is the best rule where probabilities are "
            "calibrated, and only there."
        )
    event = part["positive"] or 0
    other = 1 - event
    outcomes = {"fp": costs[other][event], "fn": costs[event][other]}
    right = {"tp": costs[event][event], "tn": costs[other][other]}
    outcomes |= right if any(right.values()) else {}
    listed = ", ".join(f"{key} {cost:g}" for key, cost in outcomes.items())
    text = (
        f"Mean cost of a row ({listed}). {threshold:.4g} is the best threshold where "
        "probabilities are calibrated, and only there."
    )
    if part["folds"]:
        text += (
            f" That by cost is chosen anew for each of {part['folds']} folds, on the others, "
            "so that its cost is that of rows that it was not chosen on: it may cost more than one "
            "which no rows had to choose."
        )
    return text


def _curve_table(parts: Mapping[str, MeasurementPart]) -> Table | None:
    decisions, positive = _decisions(parts), _positive(parts)
    shown = _shown(decisions[-1])
    if not shown:
        return None
    rows = []
    for place in shown:
        points = [part["curve"][place] for part in decisions]
        last = points[-1]
        cells = [
            _threshold(last["threshold"]),
            _share(last["flagged"]),
            *(_number(point["cost"]) for point in points),
            *(_number(point["net_benefit"]) for point in points),
            Cell(significant(last["treat_all"]), last["treat_all"]),
        ]
        rows.append(TableRow(cells))
    stages = [f" {stage}" for stage in parts] if len(parts) > 1 else [""]
    last_stage = stages[-1]
    heads = [
        TableColumn("threshold"),
        TableColumn(f"decided {positive}", rank=3),
        *(
            TableColumn(f"cost{stage}", at_point=True, interval_apart=False, rank=1)
            for stage in stages
        ),
        *(
            TableColumn(
                f"benefit{stage}" if stage else "net benefit",
                at_point=True,
                interval_apart=stage == last_stage,
            )
            for stage in stages
        ),
        TableColumn(f"all {positive}", at_point=True),
    ]
    caption = (
        "Net benefit: true positives less false ones times t / (1 - t), per row (Vickers and Elkin "
        f"2006); beside it that of deciding {positive} for every row, and 0 is that of deciding it "
        "for none."
    )
    return Table(heads, rows, heading="By threshold", caption=caption, wraps=True)


def _shown(part: DecisionsPart) -> list[int]:
    """The points of the curve that a table shows: around the theoretical threshold, and 1/2."""
    curve, threshold = part["curve"], part["threshold"]
    if not curve or threshold is None:
        return []
    wanted = [threshold, 0.5]
    if 0 < threshold < 1:
        odds = [threshold / (1 - threshold) * 2.0**octave for octave in _OCTAVES]
        wanted += [each / (1 + each) for each in odds]
    return sorted({_nearest(curve, each) for each in wanted})


def _nearest(curve: Sequence[ThresholdPart], threshold: float) -> int:
    distances = [math.fabs(point["threshold"] - threshold) for point in curve]
    return distances.index(min(distances))


def _abstention_table(parts: Mapping[str, MeasurementPart]) -> Table | None:
    part = _decisions(parts)[-1]
    if len(part["abstention"]) < 2:
        return None
    rows = [
        TableRow([_share(each["coverage"]), _threshold(each["limit"]), _number(each["cost"])])
        for each in part["abstention"]
    ]
    after = " afterwards" if len(parts) > 1 else ""
    heads = [
        TableColumn("decided"),
        TableColumn("expected below"),
        TableColumn("cost", at_point=True, leading=True),
    ]
    about = _about_intervals(row.cells[2] for row in rows)
    caption = (
        f"Mean cost of the rows that are decided{after}, the surest ones, where the others are "
        "left to somebody else: those whose decision is expected to cost more. That pays where it "
        f"costs less than they are expected to.{about}"
    )
    return Table(heads, rows, heading="The surest rows", caption=caption, wraps=True)
