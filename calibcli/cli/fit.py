"""``calib fit``: learn a calibrator from logits and labels."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from calibcli.cli.options import (
    ComputeOptions,
    Force,
    Format,
    InputOptions,
    Inputs,
    OutputOptions,
    shared,
)

if TYPE_CHECKING:
    from calibcli.workflow.fitting import Outcome

_HELP = """Fit a calibrator to the logits and labels of a validation set.

Writes a parameter file and calibrated probabilities (of the --test file, else of the input), and \
prints metrics before and after, which are measured on rows that the fit has not seen."""

_EXAMPLES = """[b]Examples[/b]

  calib fit sample_data/digits_val.parquet -p digits.json

  calib fit sample_data/digits_longtail_val.npz --loss brier --format json
"""


@dataclass(frozen=True)
class Targets:
    """Where results go: paths, ``-`` for stdout, or None for nowhere."""

    params: str
    output: str | None
    trace: str | None = None

    @property
    def stdout_taken(self) -> bool:
        return "-" in (self.params, self.output)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fit", help=_HELP, epilog=_EXAMPLES)(fit)


@dataclass(frozen=True)
class FitOptions:
    """What to fit, and where to put it."""

    method: Annotated[
        str,
        typer.Option(
            "--method", "-m", metavar="NAME[,NAME]", help="See calib methods; stages with commas."
        ),
    ] = "temperature"
    loss: Annotated[
        str, typer.Option(metavar="NAME", help="What the fit minimises; see calib losses.")
    ] = "nll"
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME.OPTION=VALUE", help="An option of a method or a loss; repeat."
        ),
    ] = None
    no_link: Annotated[
        bool,
        typer.Option("--no-link", help="Leave out the link that makes an improper loss proper."),
    ] = False
    target_prior: Annotated[
        str | None,
        typer.Option(
            metavar="balanced|P1,P2,…|FILE",
            help="Class shares to fit for; a file has one a line.",
            show_default="those of the rows",
        ),
    ] = None
    test: Annotated[
        list[str] | None,
        typer.Option("--test", metavar="FILE", help="Measure (and apply) on this file; repeat."),
    ] = None
    params: Annotated[
        str | None,
        typer.Option(
            "--params",
            "-p",
            metavar="FILE",
            help="Parameter file, .json or .safetensors.",
            show_default="INPUT.params.json",
        ),
    ] = None
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Calibrated probabilities, .parquet, .npz or .arrow.",
            show_default="INPUT.calibrated.parquet",
        ),
    ] = None
    trace: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Rounds of an adaptive loss, as JSON."),
    ] = None
    folds: Annotated[
        int, typer.Option(min=2, metavar="N", help="Of the cross-fitting, without --test.")
    ] = 5
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3, nothing written, if not converged.")
    ] = False
    force: Force = False


@shared(FitOptions, InputOptions, ComputeOptions, OutputOptions)
def fit(
    inputs: Inputs,
    fitting: FitOptions,
    reading: InputOptions,
    computing: ComputeOptions,
    printing: OutputOptions,
) -> None:
    """Parse, fit, write, print."""
    from calibcli.cli.console import Talk, show
    from calibcli.cli.fit_job import FitJob
    from calibcli.cli.priors import parse_prior
    from calibcli.cli.reading import keep_inputs
    from calibcli.workflow.fitting import make_plan

    prior = None if fitting.target_prior is None else parse_prior(fitting.target_prior)
    plan = make_plan(
        fitting.method, fitting.loss, fitting.settings or (), link=not fitting.no_link, prior=prior
    )
    targets = _targets(inputs, fitting)
    talk = Talk(printing.quiet)
    with ExitStack() as stack:
        job = FitJob(stack, inputs, fitting.test, reading, computing, talk)
        keep_inputs(targets.output, job.dataset, job.test)
        outcome = job.fit(plan, fitting.folds)
        if printing.format is not Format.TABLE:
            for note in outcome.notes:
                talk.say(note)
        content = job.params(outcome)
        document = job.document(outcome, content, targets)
        if fitting.strict and not outcome.fit.converged:
            document |= {"params": None, "output": None}
            show(document, printing, stdout_taken=targets.stdout_taken)
            _refuse(outcome)
        job.write(content, outcome, targets, force=fitting.force)
        show(document, printing, stdout_taken=targets.stdout_taken)


def _refuse(outcome: Outcome) -> None:
    from calibcli.errors import NotConvergedError

    criterion = next(
        s.solution.criterion for s in outcome.fit.stages if s.solution and not s.solution.converged
    )
    raise NotConvergedError(
        f"the fit did not converge ({criterion}); nothing was written (--strict)"
    )


def _targets(inputs: list[str], options: FitOptions) -> Targets:
    """Where to write, checked before any work is done."""
    from calibcli.cli.reading import check_stdin
    from calibcli.errors import UsageError
    from calibcli.tables import check_output, check_writable

    test, params, output, force = options.test, options.params, options.output, options.force
    check_stdin([*inputs, *(test or [])])
    if params is None:
        params = f"{_stem(inputs)}.params.json"
    if output is None:
        applied = test or inputs
        output = None if applied[0] == "-" else f"{_stem(applied)}.calibrated.parquet"
    if params == output == "-":
        raise UsageError("-p - and -o -: only one of them can go to standard output")
    if not params.endswith((".json", ".safetensors")) and params != "-":
        raise UsageError(f"-p {params}: the name must end in .json or .safetensors")
    check_writable(params, force=force)
    if output is not None:
        check_output(output, force=force)
    if options.trace is not None:
        check_writable(options.trace, force=force)
    return Targets(params, output, options.trace)


def _stem(inputs: list[str]) -> str:
    """What output files are named after: ``val.v2`` for ``data/val.v2.parquet``."""
    from calibcli.tables.locations import SUFFIXES

    if inputs[0] == "-":
        return "stdin"
    path = PurePath(inputs[0])
    name = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return "".join(c for c in name if c not in "*?[]").strip(".") or "calib"
