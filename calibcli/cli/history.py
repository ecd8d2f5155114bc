"""``calib history``: a metric over the runs of ``calib evaluate --append``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from calibcli.cli.option_values import Trait
from calibcli.cli.shared_options import (
    Force,
    PlainFormat,
    PlainOutputOptions,
    complete_metrics,
    shared,
)
from calibcli.errors import GateError, RunsError, UsageError

if TYPE_CHECKING:
    from calibcli.report.plot_sheet import Kind
    from calibcli.schema.documents import HistoryDocument
    from calibcli.workflow.conditions import Gate
    from calibcli.workflow.runs import History

_HELP = """Show a metric over runs, its trend, and the first run that left the band.

Runs are the lines that calib evaluate --append writes. The band is where a run should be if \
nothing has changed since the first one; the trend is the slope a run, with its interval.

More: calib docs drift."""

_EXAMPLES = """[b]Examples[/b]

  calib evaluate sample_data/digits_test.parquet --append runs.jsonl --quiet

  calib history runs.jsonl

  calib history runs.jsonl --metric nll --format json
"""

_SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class HistoryOptions:
    """Which metric of which runs, and what is made of it."""

    metric: Annotated[
        str,
        typer.Option(
            metavar="NAME", autocompletion=complete_metrics, help="The metric that is shown."
        ),
    ] = "ece"
    input: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only the runs of this input.", show_default="all"),
    ] = None
    since: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Begin with this run: its name, or its number.",
            show_default="the first",
        ),
    ] = None
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            metavar="CONDITION",
            help="Exit with 1 where it holds of the last run: 'ece.trend.low > 0', "
            "'nll > nll.band.high'; repeatable.",
            show_default=False,
        ),
    ] = None
    significant: Annotated[
        bool,
        typer.Option("--significant", help="Fail only where the 95 % interval is clear of it."),
    ] = False
    plot: Annotated[
        list[str] | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Draw it, .png, .svg or .pdf (needs matplotlib); repeatable.",
            show_default=False,
        ),
        Trait.WRITES_FILE,
    ] = None
    force: Force = False


def register(app: typer.Typer) -> None:
    """Add ``calib history`` to the program."""
    app.command("history", help=_HELP, epilog=_EXAMPLES)(history_command)


@shared(HistoryOptions, PlainOutputOptions)
def history_command(
    runs: Annotated[
        str,
        typer.Argument(metavar="RUNS", help="What --append wrote; - is stdin.", show_default=False),
    ],
    options: HistoryOptions,
    printing: PlainOutputOptions,
) -> None:
    """Print a metric over runs, draw it, and judge the gates."""
    from calibcli.cli.console import Talk
    from calibcli.metrics.registry import METRICS
    from calibcli.report.run_history import history_document
    from calibcli.tables import Outputs

    metric = METRICS.find(options.metric).name
    gates = _gates(options)
    plots = options.plot or []
    _check_plots(plots, force=options.force)
    document = history_document(
        _histories(runs, options), runs, metric, gates, clear=options.significant
    )
    if plots:
        from calibcli.report.plot_history import plot_history

        with Outputs(force=options.force) as files:
            for path in plots:
                kind = cast("Kind", Path(path).suffix[1:].lower())
                files.open(path).write(plot_history(document, kind))
    talk = Talk(printing.quiet)
    talk.wrote(plots)
    _show(document, printing)
    _conclude(document)


def _gates(options: HistoryOptions) -> list[Gate]:
    if options.significant and not options.fail_if:
        raise UsageError("--significant is about gates, and there is no --fail-if")
    if not options.fail_if:
        return []
    from calibcli.workflow.conditions import parse_gate
    from calibcli.workflow.gates import check_gates

    gates = [parse_gate(text) for text in options.fail_if]
    check_gates(
        gates,
        measured={"trend", "band"},
        intervals=True,
        significant=options.significant,
        slices=False,
    )
    return gates


def _check_plots(plots: list[str], *, force: bool) -> None:
    from calibcli.cli.reading import keep_apart
    from calibcli.tables import check_writable

    keep_apart([("--plot", path) for path in plots])
    for path in plots:
        if Path(path).suffix.lower() not in _SUFFIXES:
            raise UsageError(f"--plot {path}: the name must end in .png, .svg or .pdf")
        check_writable(path, force=force)
    if plots:
        from calibcli.report.plot import check_drawing_library

        check_drawing_library()


def _histories(path: str, options: HistoryOptions) -> list[History]:
    from calibcli.small_files import LARGEST_TEXT, read_small
    from calibcli.workflow.runs import read_history

    content = sys.stdin.buffer.read(LARGEST_TEXT + 1) if path == "-" else read_small(path)
    if len(content) > LARGEST_TEXT:
        raise UsageError(f"standard input has more than {LARGEST_TEXT >> 20} MB")
    histories = read_history(content, path)
    if not histories:
        raise RunsError(f"{path}: has no runs; calib evaluate --append {path} writes them")
    if options.input is not None:
        names = list(dict.fromkeys(each.input for each in histories))
        histories = [each for each in histories if each.input == options.input]
        if not histories:
            raise UsageError(f"--input {options.input}: the runs are of {', '.join(names)}")
    since = options.since
    return histories if since is None else [each.since(since) for each in histories]


def _show(document: HistoryDocument, printing: PlainOutputOptions) -> None:
    if printing.format is PlainFormat.JSON:
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
        return
    from rich.console import Console

    from calibcli.report.render_terminal import print_history

    print_history(document, Console(highlight=False))


def _conclude(document: HistoryDocument) -> None:
    if document.get("gates"):
        from calibcli.report.gate_results import failed_gates, verdict_on_gates

        sys.stdout.flush()
        if failed_gates(document):
            raise GateError(verdict_on_gates(document))
