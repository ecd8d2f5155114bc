"""``calib evaluate``: whether probabilities can be believed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from calibcli.cli.options import ComputeOptions, InputOptions, Inputs, OutputOptions, shared

_HELP = """Measure the calibration of logits, log-probabilities or probabilities.

Every INPUT is measured by itself; several stand side by side."""

_EXAMPLES = """[b]Examples[/b]

  calib evaluate sample_data/digits_val.parquet sample_data/digits_test.parquet

  calib evaluate sample_data/digits_longtail_test.npz --format json
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate", help=_HELP, epilog=_EXAMPLES, no_args_is_help=True)(evaluate)


@shared(InputOptions, ComputeOptions, OutputOptions)
def evaluate(
    inputs: Inputs,
    reading: InputOptions,
    computing: ComputeOptions,
    printing: OutputOptions,
    params: Annotated[
        str | None,
        typer.Option("--params", "-p", metavar="FILE", help="Run the rows through this first."),
    ] = None,
) -> None:
    """Parse, measure, print."""
    from calibcli.cli.console import Talk, show
    from calibcli.report.document import combine

    talk = Talk(printing.quiet)
    found = [_evaluate(name, params, reading, computing, talk) for name in inputs]
    show(combine(found), printing)


def _evaluate(
    name: str, path: str | None, reading: InputOptions, computing: ComputeOptions, talk: Any
) -> dict[str, Any]:
    from calibcli.cli.reading import check_classes, describe, opened, talk_about
    from calibcli.engine.data import open_data
    from calibcli.metrics.panel import Panel
    from calibcli.params import read
    from calibcli.report.document import evaluate_document
    from calibcli.workflow.measuring import Through, measure
    from calibcli.workflow.records import to_calibrators

    params = None if path is None else read(path)
    stages = () if params is None else to_calibrators(params)
    with (
        opened([name], reading, talk) as dataset,
        talk.progress(computing.engine(), f"measuring {dataset.name}", dataset.rows) as engine,
    ):
        data = open_data(engine, dataset)
        talk_about(data, dataset.name, talk)
        if params is not None and path is not None:
            check_classes(params, data.classes, path, dataset)
        (evaluation,) = measure(data, [Through(stages)], Panel())
        return evaluate_document(evaluation, source=describe(dataset, data), params=path)
