"""``calib evaluate``: whether probabilities can be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calibcli.cli.options import ComputeOptions, InputOptions, Inputs, OutputOptions, shared

if TYPE_CHECKING:
    from calibcli.calibrators.base import Calibrator
    from calibcli.cli.console import Talk
    from calibcli.params import Params

_HELP = """Measure the calibration of logits, log-probabilities or probabilities.

Every INPUT is measured by itself; several stand side by side."""

_EXAMPLES = """[b]Examples[/b]

  calib evaluate sample_data/digits_val.parquet sample_data/digits_test.parquet

  calib evaluate sample_data/digits_longtail_test.npz --format json
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate", help=_HELP, epilog=_EXAMPLES)(evaluate)


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
    from calibcli.cli.reading import check_stdin
    from calibcli.report.document import combine
    from calibcli.workflow.records import read_calibrators

    check_stdin([params, *inputs])
    talk = Talk(printing.quiet)
    job = _Job(reading, computing, talk, params)
    if params is not None:
        job.content, job.stages = read_calibrators(params)
    show(combine([job.evaluate(name) for name in inputs]), printing)


@dataclass
class _Job:
    """What is the same for every input."""

    reading: InputOptions
    computing: ComputeOptions
    talk: Talk
    params: str | None
    content: Params | None = None
    stages: tuple[Calibrator, ...] = ()

    def evaluate(self, name: str) -> dict[str, Any]:
        """The result document of one input."""
        from calibcli.cli.reading import check_classes, describe, opened, talk_about
        from calibcli.engine.data import open_data
        from calibcli.metrics.panel import Panel
        from calibcli.report.document import evaluate_document
        from calibcli.workflow.measuring import Through, measure

        engine, doing = self.computing.engine(), f"measuring {name}"
        with (
            opened([name], self.reading, self.talk) as dataset,
            self.talk.progress(engine, doing, dataset.rows) as watched,
        ):
            data = open_data(watched, dataset)
            talk_about(data, dataset.name, self.talk)
            if self.content is not None and self.params is not None:
                check_classes(self.content, data.classes, self.params, dataset)
            (evaluation,) = measure(data, [Through(self.stages)], Panel())
            return evaluate_document(evaluation, source=describe(dataset, data), params=self.params)
