"""The tables of a result document, each built once for every format."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from calibcli.metrics.registry import METRICS
from calibcli.report.comparison import (
    Column,
    best,
    better,
    caption,
    change,
    columns,
    convention,
    group,
    metric_names,
    metric_title,
    plain_columns,
    section_headings,
    target_caption,
    target_columns,
)
from calibcli.report.decision_tables import decision_tables
from calibcli.report.differences import difference_word, differences_of
from calibcli.report.document import is_fit, leaderboard_of, main_figure, results_of
from calibcli.report.period_tables import SHOWN_PERIODS, period_tables
from calibcli.report.reliability import have_equal_mass
from calibcli.report.table import NO_INTERVAL, Cell, Table, TableColumn, TableRow, Whisker
from calibcli.workflow.texts import (
    LONGEST_NAME,
    NO_VALUE,
    PLUS_MINUS,
    count,
    difference_text,
    duration,
    interval_text,
    p_value,
    percent,
    plural,
    range_text,
    short_names,
    significant,
)
from calibcli.workflow.verdict import Verdict

if TYPE_CHECKING:
    from calibcli.schema.documents import Document, EvaluateDocument
    from calibcli.schema.parts import (
        CandidatePart,
        DifferencePart,
        MeasurementPart,
        MemberPart,
        NumberPart,
        SlicePart,
        SlicesPart,
        TestPart,
    )

SHOWN_IN_TEXT, SHOWN_ON_PAGE = 10, 500
"""Groups and slices that are shown of many: the worst."""

CHANCE_HEADING = "by chance"
_LONGEST_MAP = 48

_CLEAR = 0.05
"""A p-value below it is no chance."""

_BY_CHANCE = (
    "where the plug-in of a perfectly calibrated model with these probabilities is, 95 times in 100"
)
CHANCE_LEGEND = f"{CHANCE_HEADING}: {_BY_CHANCE}"

_CHANCE = TableColumn(CHANCE_HEADING, align="left", rank=3, legend=_BY_CHANCE)

PLUG_IN_HEADING = "plug-in"
_ESTIMATE_NOTE = (
    "calibration errors are estimates, without what noise adds; 0: these rows cannot tell the "
    "error from none"
)
_PLUG_IN = TableColumn(
    PLUG_IN_HEADING,
    at_point=True,
    rank=2,
    legend="the same with that noise, as papers quote it",
)
_CLEAR_DIFFERENCES = (
    "Better and worse are clear after Holm's correction for all {number}; maybe better and maybe "
    "worse are clear by themselves only, as 1 in 20 is by chance."
)
_TESTS_CAPTION = (
    "A small p speaks against calibration. The last line answers for all: 5 in 100 calibrated "
    "models have it below 0.05; one of the others is below it more often."
)


def metrics_table(document: Document) -> Table | None:
    """The metrics of every measurement; of a fit, how they changed. None without any."""
    shown = columns(document)
    if not shown:
        return None
    if is_fit(document) and len(shown) == 2:
        before, after = shown
        table = _change_table(before, after, plain_columns(document)[1])
        return replace(table, caption=caption(document))
    table = _one_table(shown[0], document) if len(shown) == 1 else _several_table(shown)
    return replace(table, caption=caption(document))


def target_table(document: Document) -> Table | None:
    """Before and after a fit for other class shares, of rows weighted to these."""
    pair = target_columns(document)
    if not pair:
        return None
    before, after = pair
    table = _change_table(before, after, plain_columns(document)[0])
    return replace(table, caption=target_caption(document))


def _one_table(column: Column, document: Document) -> Table:
    # What a fit measured before it is called so; of a single input the name stands above.
    heading, source = (column.title, "") if is_fit(document) else ("value", column.title)
    names = metric_names([column])
    value = TableColumn(heading, at_point=True, leading=True, input_name=source)
    cells = [
        [_value(column, name), _plug_in(column, name), _chance(column, name)] for name in names
    ]
    table = _metrics([value, _PLUG_IN, _CHANCE], names, cells, "metrics one")
    table = replace(table, note=_note([column]))
    kept = [place for place in (1, 2) if any(line[place].text for line in cells)]
    return table.pick([0, 1, *(place + 1 for place in kept)])


def _several_table(shown: Sequence[Column]) -> Table:
    names = metric_names(shown)
    heads = [TableColumn(column.title, at_point=True, leading=True) for column in shown]
    cells = []
    for name in names:
        winner = best(name, shown)
        line = []
        for column in shown:
            value = column.figure(name)
            chance, plug_in = _chance(column, name).text, _plug_in(column, name).text
            # A column for each would be too wide.
            tip = f"{CHANCE_HEADING}: {chance}" if chance else ""
            tip += f", {PLUG_IN_HEADING}: {plug_in}" if tip and plug_in else ""
            look = "best" if value is not None and value == winner else "value"
            line.append(replace(_value(column, name), look=look, tip=tip))
        cells.append(line)
    table = _metrics(heads, names, cells, "metrics several")
    return replace(table, folds=True, note=_note(shown))


def _change_table(before: Column, after: Column, plain: Column | None) -> Table:
    names = metric_names([before, after])
    beside = [] if plain is None else [plain]
    figures = TableColumn("", at_point=True, leading=True, interval_apart=False)
    heads = [
        replace(figures, heading=before.title),
        replace(figures, heading=after.title),
        *(replace(figures, heading=column.title, rank=3) for column in beside),
        TableColumn("change", at_point=True, leading=True),
        replace(_PLUG_IN, heading=f"{PLUG_IN_HEADING} {after.title}", only="page"),
        replace(_CHANCE, only="page"),
    ]
    cells = []
    judged = any("change" in after.metric(name) for name in names)
    for name in names:
        values = before.figure(name), after.figure(name)
        shift, interval = difference_text(*values), after.metric(name).get("change")
        by_plain = None if plain is None else plain.figure(name)
        word = change(name, *values, shift, interval, by_plain)
        if judged and interval is None and word != "same":
            # Among changes whose noise is known this one says nothing.
            word = ""
        moved = Cell(shift, interval=interval_text(interval), word=word, look=word)
        shown = [_value(column, name) for column in (before, after, *beside)]
        numbers = [*shown, moved]
        cells.append([*numbers, _plug_in(after, name), _chance(after, name)])
    table = replace(_metrics(heads, names, cells, "metrics fit"), note=_note([before, after]))
    first = len(beside) + 3
    kept = [place for place in (first, first + 1) if any(line[place].text for line in cells)]
    return table.pick([*range(first + 1), *(place + 1 for place in kept)])


def _note(shown: Sequence[Column]) -> str:
    """That errors are estimates, where any are: an error of 0 must not be taken for a count."""
    parts = [part for column in shown for part in column.part["metrics"].values()]
    return _ESTIMATE_NOTE if any("estimate" in part for part in parts) else ""


def _metrics(
    heads: Sequence[TableColumn],
    names: Sequence[str],
    cells: Sequence[Sequence[Cell]],
    kind: str,
) -> Table:
    about = section_headings(names)
    rows = [
        TableRow(
            [Cell(metric_title(name), way=better(name), tip=convention(name), prose=True), *line],
            section=about.get(place, ""),
        )
        for place, (name, line) in enumerate(zip(names, cells, strict=True))
    ]
    return Table([TableColumn("", align="left"), *heads], rows, kind=kind)


def _value(column: Column, name: str) -> Cell:
    metric = column.metric(name)
    sure = any(map(interval_text, column.part["metrics"].values()))
    measured = name in column.part["metrics"]
    interval = interval_text(metric) or (NO_INTERVAL if sure and measured else "")
    value = column.figure(name)
    return Cell(significant(value), value, interval=interval, look="value")


def _plug_in(column: Column, name: str) -> Cell:
    metric = column.metric(name)
    return Cell(significant(metric["value"]) if "estimate" in metric else "", look="plug_ins")


def _chance(column: Column, name: str) -> Cell:
    metric = column.metric(name)
    return Cell(range_text(metric.get("chance"), metric["value"]), look="chances")


def differences_table(document: Document) -> Table | None:
    """How inputs of the same rows differ from one of them; None where none could be compared."""
    part = differences_of(document)
    compared = [entry for entry in part["inputs"] if entry["metrics"]] if part else []
    if part is None or not compared:
        return None
    named = zip(results_of(document), columns(document), strict=True)
    by_name = {result["input"]["name"]: column for result, column in named}
    against, shown = by_name[part["against"]], [by_name[entry["input"]] for entry in compared]
    differing = {name for entry in compared for name in entry["metrics"]}
    names = [name for name in metric_names([against]) if name in differing]
    cells = [
        [
            _difference(name, against.figure(name), column.figure(name), entry["metrics"].get(name))
            for column, entry in zip(shown, compared, strict=True)
        ]
        for name in names
    ]
    heads = [
        TableColumn(f"{column.title} - {against.title}", at_point=True, leading=True)
        for column in shown
    ]
    rows = plural(against.part["rows"], "row")
    best = f", which has the best {metric_title(part['best_by'])}" if part["best_by"] else ""
    about = (
        f"Differences from {against.title}{best}, paired: both measured the same {rows}. "
        f"{_CLEAR_DIFFERENCES.format(number=plural(part['number'], 'difference'))}"
    )
    table = _metrics(heads, names, cells, "metrics several")
    return replace(table, caption=about, folds=True)


def _difference(
    name: str, reference: float | None, figure: float | None, entry: DifferencePart | None
) -> Cell:
    if entry is None:
        return Cell(NO_VALUE)
    shift = difference_text(reference, figure)
    word = difference_word(name, entry, shift)
    look = word.removeprefix("maybe ") if entry["clear"] or word == "same" else "unclear"
    return Cell(shift, entry["value"], interval=interval_text(entry), word=word, look=look)


def inputs_table(document: Document) -> Table:
    """Several inputs: how large they are, and what to think of them."""
    rows, came = [], []
    for column in columns(document):
        part = column.part
        judged = Verdict.of(part)
        came.append(judged.came)
        shares = [
            Cell("" if share is None else percent(share, fine=judged.event is not None))
            for share in (judged.says, judged.right)
        ]
        sizes = [Cell(count(part["rows"])), Cell(count(part["classes"]))]
        word = Cell(judged.word, look=judged.look, prose=True)
        rows.append(TableRow([Cell(column.title, prose=True), *sizes, *shares, word]))
    heads = ("rows", "classes", "says", "/".join(dict.fromkeys(came)))
    numbers = [TableColumn(heading) for heading in heads]
    names = [TableColumn(heading, align="left") for heading in ("input", "verdict")]
    return Table([names[0], *numbers, names[1]], rows, wraps=True)


def reliability_table(measured: MeasurementPart) -> Table:
    """Filled bins, the most confident first."""
    fine = have_equal_mass(measured["reliability"])
    rows = [
        TableRow(
            [
                Cell(
                    " to ".join(percent(part[e], fine=fine) for e in ("lower", "upper")), prose=True
                ),
                *(
                    Cell(percent(share, fine=fine))
                    for share in (part["confidence"], part["accuracy"])
                ),
                Cell(count(part["rows"])),
            ]
        )
        for part in reversed(measured["reliability"])
        if part["confidence"] is not None and part["accuracy"] is not None
    ]
    return Table(
        [TableColumn(name) for name in ("confidence", "says", Verdict.of(measured).came, "rows")],
        rows,
    )


def leaderboard_table(document: Document) -> Table | None:
    """Methods from the best to the worst, where any were compared."""
    entries = leaderboard_of(document)
    return methods_table(entries) if entries else None


def methods_table(entries: Sequence[CandidatePart], *, timed: bool = True) -> Table:
    """Methods from the best to the worst, the first of at least one; with times or not."""
    # The first one orders them, of which another proper score says much the same.
    first, *others = entries[0]["metrics"]
    heads = [
        TableColumn("method", align="left"),
        TableColumn(metric_title(first), at_point=True, interval_apart=False),
        TableColumn(
            "behind",
            at_point=True,
            legend=f"held-out {metric_title(first)} minus that of the best",
        ),
        TableColumn("s.e.", at_point=True, rank=1, legend="its standard error"),
        *(
            TableColumn(
                metric_title(name),
                at_point=True,
                interval_apart=False,
                rank=4 if group(name) == group(first) else 1,
            )
            for name in others
        ),
        TableColumn("size", rank=3, legend="fitted numbers"),
        # A time is never the same twice, and a page is.
        TableColumn("fit", rank=4, only="text", legend="time of a fit to all rows"),
    ]
    rows = []
    for entry in entries:
        mark = FAILED_MARK if "warning" in entry else ""
        cells = [
            Cell(method_title(entry) + mark, prose=True),
            _measured(entry["metrics"][first]),
            Cell(_behind(entry["behind"]["nll"])),
            Cell(_behind(entry["behind"]["standard_error"])),
            *(_measured(entry["metrics"][name]) for name in others),
            Cell(count(entry["parameters"])),
            Cell(duration(entry["seconds"])),
        ]
        rows.append(TableRow(cells, look="chosen" if entry["chosen"] else ""))
    estimated = any("estimate" in n for each in entries for n in each["metrics"].values())
    failed = any("warning" in entry for entry in entries)
    notes = [f"{FAILED_MARK} went wrong, as is said below"] * failed + [_ESTIMATE_NOTE] * estimated
    table = Table(heads, rows, heading="Methods", kind="metrics methods", note="; ".join(notes))
    return table if timed else table.pick(range(len(heads) - 1))


def _measured(number: NumberPart) -> Cell:
    figure = main_figure(number)
    return Cell(significant(figure), figure, interval=interval_text(number))


def _behind(value: float | None) -> str:
    if value is None or math.isnan(value):
        return significant(value)
    return f"{value:.4f}" if value else "0"


def method_title(entry: CandidatePart | MemberPart) -> str:
    """The method, with the loss where it is not the usual one."""
    return entry["method"] + ("" if entry["loss"] == "nll" else f" ({entry['loss']})")


_STRENGTH = re.compile(r"[*/]\d+$")

FAILED_MARK = "!"
"""Behind a method whose fit went wrong."""


def candidate_lines(document: Document) -> list[str]:
    """What a leaderboard's table has no room for: what stacks are made of, and what went wrong."""
    entries = leaderboard_of(document)
    if is_fit(document):
        # What a stack that was chosen is made of stands with the fit.
        entries = [{**each, "members": []} if each["chosen"] else each for each in entries]
    return methods_lines(entries)


def methods_lines(entries: Sequence[CandidatePart]) -> list[str]:
    """What a table of methods has no room for."""
    lines, names = [], set()
    for entry in entries:
        names |= {entry["method"], *(each["method"] for each in entry["members"])}
        if entry["members"]:
            parts = (f"{each['weight']:.2f} {method_title(each)}" for each in entry["members"])
            lines.append(f"{method_title(entry)}: log-probabilities times {', '.join(parts)}")
        if "warning" in entry:
            lines.append(f"{method_title(entry)}: {entry['warning']}")
    strengths = {match.group() for name in names if (match := _STRENGTH.search(name))}
    return lines + [
        f"{strength}: its penalties {'times' if strength[0] == '*' else 'over'} {strength[1:]}"
        for strength in sorted(strengths)
    ]


def groups_table(document: Document, most: int) -> Table | None:
    """The groups of a fit with maps of their own, where it has any; the worst first."""
    part = document["groups"] if is_fit(document) else None
    if not part:
        return None
    rows = []
    for entry in part["groups"][:most]:
        before, after = entry["nll"]["before"], entry["nll"]["after"]
        shift = difference_text(before, after)
        cells = [
            Cell(entry["name"], tip=entry["name"], prose=True),
            Cell(count(entry["rows"]), entry["rows"]),
            Cell(entry.get("learnt") or "as all rows", prose=True),
            Cell(percent(entry["share"]), entry["share"]),
            Cell(significant(before), before),
            Cell(significant(after), after),
            Cell(
                shift,
                None if before is None or after is None else after - before,
                look=change("nll", before, after, shift) or "same",
            ),
        ]
        rows.append(TableRow(cells))
    every, column = len(part["groups"]), part["column"]
    about = (
        f"The {most} of {every} groups of {column!r} with the largest NLL afterwards."
        if every > most
        else f"The {every} groups of {column!r}, the largest NLL afterwards first."
    )
    if part.get("pooled"):
        about += f" The map of all rows: {part['pooled']}."
    heads = [
        TableColumn(column, align="left", longest=LONGEST_NAME),
        TableColumn("rows"),
        TableColumn("own map", align="left", longest=_LONGEST_MAP),
        TableColumn("its share"),
        *(TableColumn(name, at_point=True) for name in ("NLL before", "after", "change")),
    ]
    return Table(heads, rows, heading="Groups", caption=about, kind="listing sortable")


def diagnostic_tables(document: Document) -> Iterator[Table]:
    """Decisions, refit, tests and slices of every input, in this order."""
    yield from decision_tables(document)
    for result, name in _results(document):
        for table in (_refit_table(result), _tests_table(result)):
            if table is not None:
                yield replace(table, input_name=name)
        yield from period_tables(result, name, SHOWN_PERIODS)
        yield from _slices_tables(result, name, SHOWN_IN_TEXT)


def refit_and_tests(document: Document) -> Iterator[Table]:
    """Decisions, refit and tests of every input."""
    return (table for table in diagnostic_tables(document) if not table.picks)


def slices_tables(document: Document) -> Iterator[Table]:
    """Slices of every input, for a page; so many of each that all of them have room."""
    results = list(_results(document))
    parts = sum(len(result.get("slices", [])) for result, _ in results)
    for result, name in results:
        yield from _slices_tables(result, name, SHOWN_ON_PAGE // max(parts, 1))


def _results(document: Document) -> Iterator[tuple[EvaluateDocument, str]]:
    """The results of a document that evaluates, each with a short name where there are several."""
    results = [each for each in results_of(document) if each["command"] == "evaluate"]
    names = short_names([result["input"]["name"] for result in results])
    for result, name in zip(results, names, strict=True):
        yield result, name if len(results) > 1 else ""


def _refit_table(result: EvaluateDocument) -> Table | None:
    refit = result.get("refit")
    if not refit:
        return None
    rows = []
    for name, part in refit["scores"].items():
        known, calibration = METRICS.get(name), _measured(part["calibration"])
        score, rest = (Cell(significant(each)) for each in (part["value"], part["refinement"]))
        named = Cell(known.title if known else name, prose=True)
        rows.append(TableRow([named, score, calibration, rest]))
    about = (
        f"calibration: what {refit['method']} takes away, fitted to other rows "
        f"({refit['folds']} folds); refinement: what it leaves."
    )
    numbers = [TableColumn(name) for name in ("score", "calibration", "refinement")]
    heading = "Calibration and refinement"
    return Table(
        [TableColumn("", align="left"), *numbers], rows, heading, caption=about, wraps=True
    )


def _tests_table(result: EvaluateDocument) -> Table | None:
    tests = result.get("tests")
    if not tests:
        return None
    # What holds for all of them is said once.
    notes = [test["note"] for test in tests]
    shared = bool(notes[0]) and len(set(notes)) == 1
    rows = []
    for test in tests:
        error = "" if test["error"] is None else f" {PLUS_MINUS} {significant(test['error'])}"
        statistic = Cell(_test_statistic(test))
        clear = test["p"] is not None and test["p"] < _CLEAR
        cells = [
            Cell(test["title"], tip=test["hypothesis"], prose=True),
            Cell("" if test["estimate"] is None else significant(test["estimate"]) + error),
            Cell("" if shared else test["note"], prose=True) if test["note"] else statistic,
            Cell("" if test["note"] else p_value(test["p"]), look="clear" if clear else ""),
        ]
        rows.append(TableRow(cells))
    heads = [
        TableColumn("test", align="left"),
        TableColumn("estimate", rank=2),
        TableColumn("statistic", rank=0 if any(notes) and not shared else 1),
        TableColumn("p"),
    ]
    about = f"No p: {notes[0]}." if shared else _TESTS_CAPTION
    return Table(heads, rows, "Tests", caption=about, wraps=True)


def _test_statistic(test: TestPart) -> str:
    statistic = test["statistic"]
    if statistic is None or math.isnan(statistic):
        return ""
    if test["smallest_of"]:
        return f"smallest p {p_value(statistic)}"
    degrees = f" ({test['degrees']} df)" if test["degrees"] else ""
    return significant(statistic) + degrees


_CLASSES = ("predicted class", "predicted classes")


def _slices_tables(result: EvaluateDocument, name: str, most: int) -> Iterator[Table]:
    for part in result.get("slices", []):
        of_event = result.get("positive") is not None
        yield replace(_slices_table(part, most, of_event=of_event), input_name=name)


def _slices_table(part: SlicesPart, most: int, *, of_event: bool) -> Table:
    column, shown, every = part["column"], part["slices"][:most], len(part["slices"])
    widest = max((entry["ece"]["high"] or 0.0 for entry in shown), default=0.0) or 1.0
    one, many = (f"value{end} of {column}" for end in ("", "s")) if column else _CLASSES
    whole = f"All {every} {many}" if every > 1 else f"The only {one}"
    which = f"The {len(shown)} worst of {every} {many}" if every > len(shown) else whole
    came = "came" if of_event else "right"
    macro = ""
    if "macro" in part:
        means = part["macro"]
        macro = (
            f" Mean of all {every} (macro): NLL {significant(means['nll'])}, Brier "
            f"{significant(means['brier'])}, plug-in ECE {significant(means['ece'])}; the metrics "
            "above are those of all pairs of a row and a label (micro)."
        )
    heads = [
        TableColumn(str(column or "class"), align="left", longest=LONGEST_NAME),
        *(TableColumn(heading) for heading in ("rows", "says", came)),
        TableColumn("NLL", rank=1, interval_apart=False),
        TableColumn("Brier", rank=3, interval_apart=False),
        TableColumn("ECE", leads=True),
        TableColumn("adjusted p", leads=True),
    ]
    return Table(
        heads,
        [_slice_row(entry, widest, fine=of_event) for entry in shown],
        heading=f"By {column}" if column else "Predicted classes",
        caption=(
            f"{which}, the worst first. p: how likely 'says' and '{came}' are as far apart in a "
            f"calibrated model, adjusted for all {every} (Benjamini-Hochberg). The ECE is an "
            "estimate without noise, and also has what cancels in the mean; its interval is not "
            f"adjusted.{macro}"
        ),
        kind="listing sortable",
        picks="slice" if column else "class",
        wraps=True,
    )


def _slice_row(entry: SlicePart, widest: float, *, fine: bool) -> TableRow:
    p = entry["adjusted_p"]
    nll, brier, ece = map(_measured, (entry["nll"], entry["brier"], entry["ece"]))
    low, figure, high = entry["ece"]["low"], main_figure(entry["ece"]), entry["ece"]["high"]
    if low is not None and figure is not None and high is not None:
        ece = replace(ece, whisker=Whisker(low / widest, figure / widest, high / widest))
    cells = [
        Cell(entry["name"], tip=entry["name"], prose=True),
        Cell(count(entry["rows"]), entry["rows"]),
        Cell(percent(entry["confidence"], fine=fine), entry["confidence"]),
        Cell(percent(entry["accuracy"], fine=fine), entry["accuracy"]),
        nll,
        brier,
        ece,
        Cell(p_value(p), p, look="p"),
    ]
    return TableRow(cells, look="" if p is not None and p < _CLEAR else "chance")
