"""``calib fit``: learn a calibrator from logits and labels."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from calibcli.cli.fit_job import FitJob, Targets
from calibcli.cli.gate_options import GateOptions, Gates
from calibcli.cli.keeping import checked_kept
from calibcli.cli.option_values import Trait
from calibcli.cli.pictures import PictureOptions, Pictures
from calibcli.cli.shared_options import (
    ComputeOptions,
    Force,
    InputOptions,
    Inputs,
    Keep,
    MeasureOptions,
    PreferOption,
    ReportFormat,
    ReportOptions,
    Settings,
    complete_losses,
    complete_methods,
    shared,
)
from calibcli.errors import NotConvergedError, UsageError
from calibcli.small_files import read_small

if TYPE_CHECKING:
    from calibcli.schema.documents import FitDocument
    from calibcli.workflow.automatic import AnyPlan
    from calibcli.workflow.fit_rows import TargetPrior
    from calibcli.workflow.fitting import Outcome

_HELP = """Fit a calibrator to the logits and labels of a validation set.

Writes a parameter file and calibrated probabilities (of the --test file, else of the input), and \
prints metrics before and after, which are measured on rows that the fit has not seen.

More: calib docs choosing, calib docs losses, calib docs reading-a-report."""

_EXAMPLES = """[b]Examples[/b]

  calib fit sample_data/digits_val.parquet -p digits.json

  calib fit sample_data/digits_longtail_val.npz --loss brier --format json

  calib fit sample_data/digits_val.parquet -m svs --test sample_data/digits_test.parquet
"""


def register(app: typer.Typer) -> None:
    """Add ``calib fit`` to the program."""
    app.command("fit", help=_HELP, epilog=_EXAMPLES)(fit_command)


class ReduceChoice(StrEnum):
    """What the classes are reduced to."""

    TOP = "top"


@dataclass(frozen=True)
class FitOptions:
    """What to fit, and where to put it."""

    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-m",
            metavar="auto|NAME[,NAME]",
            autocompletion=complete_methods,
            help="What is fitted; see calib methods. Several are fitted one after the other; auto "
            "takes what is best for held-out rows.",
            show_default="temperature; of two classes the best of a few cheap ones",
        ),
    ] = None
    loss: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=complete_losses,
            help="What the fit minimises; see calib losses.",
        ),
    ] = "nll"
    settings: Settings = None
    stack: Annotated[
        bool,
        typer.Option("--stack", help="With -m auto: mix the candidates where that is better."),
    ] = False
    prefer: Annotated[
        PreferOption,
        typer.Option(
            help="What is taken of several methods: the least expected loss, or the simplest "
            "within a standard error of the best."
        ),
    ] = PreferOption.ACCURATE
    no_link: Annotated[
        bool,
        typer.Option("--no-link", help="Leave out the link that makes an improper loss proper."),
    ] = False
    target_prior: Annotated[
        str | None,
        typer.Option(
            metavar="balanced|P1,P2,…|FILE",
            help="Class shares of the rows to come; a file has one a line.",
            show_default="those of the rows",
        ),
    ] = None
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="FILE",
            help="Rows without labels of where the fit will be used: correct for their class "
            "shares, which are estimated; repeatable.",
        ),
    ] = None
    allow_zero: Annotated[
        bool,
        typer.Option("--allow-zero", help="Let methods that bin give probabilities of 0 and 1."),
    ] = False
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COL",
            help="Fit a map for each value of a column, drawn towards the map of all rows.",
            show_default=False,
        ),
    ] = None
    reduce: Annotated[
        ReduceChoice | None,
        typer.Option(metavar="top", help="Calibrate the confidence alone: is the top class right?"),
    ] = None
    test: Annotated[
        list[str] | None,
        typer.Option(
            "--test", metavar="FILE", help="Measure on this file, and calibrate it; repeatable."
        ),
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
        Trait.WRITES_FILE,
    ] = None
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Calibrated probabilities, .parquet, .npz, .npy or .arrow; NAME/ is a folder of "
            "Parquet files.",
            show_default="INPUT.calibrated.parquet",
        ),
        Trait.WRITES_FILE,
    ] = None
    keep: Keep = None
    trace: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the rounds of an adaptive loss, as JSON."),
        Trait.WRITES_FILE,
    ] = None
    tune: Annotated[
        bool, typer.Option("--tune", help="Choose the method's penalties by cross-validation.")
    ] = False
    average_folds: Annotated[
        bool,
        typer.Option("--average-folds", help="Average the fits without each fold (last stage)."),
    ] = False
    folds: Annotated[
        int,
        typer.Option(
            min=2, max=1000, metavar="N", help="Folds of cross-fitting and cross-validation."
        ),
    ] = 5
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3, nothing written, if not converged.")
    ] = False
    force: Force = False


@shared(
    *(FitOptions, InputOptions, MeasureOptions, GateOptions),
    *(ComputeOptions, ReportOptions, PictureOptions),
    basic=(
        "method",
        "loss",
        "test",
        "params",
        "output",
        "labels",
        "report",
        "force",
        "format",
        "quiet",
    ),
)
def fit_command(
    inputs: Inputs,
    fitting: FitOptions,
    reading: InputOptions,
    measuring: MeasureOptions,
    gating: GateOptions,
    computing: ComputeOptions,
    printing: ReportOptions,
    picturing: PictureOptions,
) -> None:
    """Fit a calibrator, write its files, and print what it is worth."""
    from calibcli.cli.console import Talk
    from calibcli.cli.reading import keep_apart, keep_inputs
    from calibcli.tables import Outputs

    plan = _plan(*_by_label(fitting, reading))
    shown = measuring.pictured
    pictures = Pictures(picturing, force=fitting.force, seed=computing.seed, shown=shown)
    gates = Gates(gating, "fit", printing, intervals=measuring.bootstrap > 0, force=fitting.force)
    panel = gates.panel(pictures.panel(measuring.panel(computing.seed)))
    targets = _targets(inputs, fitting)
    outputs = [*targets.paths, *pictures.paths, *gates.paths]
    keep_apart(outputs)
    talk = Talk(printing.quiet)
    with ExitStack() as stack:
        by, keys, writes = plan.by, measuring.keys, targets.output is not None
        job = FitJob(
            stack, inputs, fitting.test, reading, computing, talk, by=by, keys=keys, writes=writes
        )
        job.open_target(fitting.target)
        keep_inputs(outputs, job.dataset, job.test, job.target)
        job.check_kept(targets)
        panel = measuring.settled(panel, job.classes, job.dataset.class_names)
        outcome = job.fit(plan, fitting.folds, panel)
        if printing.format is not ReportFormat.TABLE:
            for note in outcome.notes:
                talk.say(note)
        content = job.params(outcome, panel.event)
        document = job.document(outcome, content, targets)
        pictures.entitle(document)
        gates.judge(document, talk)
        if fitting.strict and not outcome.fit.converged:
            _refuse(outcome, document, printing, stdout_taken=targets.stdout_taken)
        judged = outcome.target or outcome.balanced or (outcome.before, outcome.after)
        pictures.add(*judged, class_names=job.dataset.class_names)
        job.add_files(pictures)
        with Outputs(force=fitting.force) as files:
            job.write(content, outcome, targets, files)
            written = pictures.write(document, files) + gates.write(document, files)
        talk.wrote(written)
        gates.conclude(document, talk, stdout_taken=targets.stdout_taken)


def _by_label(fitting: FitOptions, reading: InputOptions) -> tuple[FitOptions, bool]:
    """The options with the column of the labels, if there is a row for each, whose maps are apart.

    Raises
    ------
    UsageError
        Another option asks for other maps.
    """
    if not reading.multi_label:
        return fitting, True
    from calibcli.tables.read_options import LABEL_NAME

    target = ", ".join(fitting.target) if fitting.target else None
    refused = {"--by": fitting.by, "--target-prior": fitting.target_prior, "--target": target}
    for option, value in refused.items():
        if value is not None:
            raise UsageError(f"--multi-label fits each label by itself; leave out {option} {value}")
    return replace(fitting, by=LABEL_NAME), False


def _plan(fitting: FitOptions, pooled: bool) -> AnyPlan:
    """What is to be fitted, or how to choose it."""
    from calibcli.workflow.automatic import make_any_plan

    prior = None if fitting.target_prior is None else _parse_prior(fitting.target_prior)
    return make_any_plan(
        fitting.method,
        fitting.loss,
        fitting.settings or (),
        link=not fitting.no_link,
        prior=prior,
        allow_zero=fitting.allow_zero,
        tune=fitting.tune,
        average_folds=fitting.average_folds,
        by=fitting.by,
        pooled=pooled,
        reduce=None if fitting.reduce is None else "top",
        stacked=fitting.stack,
        prefer=fitting.prefer.value,
    )


def _parse_prior(text: str) -> TargetPrior:
    """``balanced``, shares with commas between them, or a file with a share a line.

    Raises
    ------
    UsageError
        Something else.
    """
    if text == "balanced":
        return "balanced"
    parts = text.split(",")
    if len(parts) == 1:
        try:
            parts = read_small(text).decode("utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--target-prior {text}: give balanced, shares with commas between them, or a text "
                f"file with a share a line ({getattr(error, 'strerror', None) or 'not text'})"
            ) from None
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        raise UsageError(f"--target-prior {text}: a share is not a number") from None


def _refuse(
    outcome: Outcome, document: FitDocument, printing: ReportOptions, *, stdout_taken: bool
) -> None:
    """Show a fit that did not converge, of which nothing is written.

    Raises
    ------
    NotConvergedError
    """
    from calibcli.cli.console import show

    document |= {"params": None, "output": None}
    show(document, printing, stdout_taken=stdout_taken)
    criterion = next(
        s.solution.criterion for s in outcome.fit.stages if s.solution and not s.solution.converged
    )
    raise NotConvergedError(
        f"the fit did not converge ({criterion}); nothing was written (--strict)"
    )


def _targets(inputs: list[str], options: FitOptions) -> Targets:
    """Where to write, checked before any work is done."""
    from calibcli.cli.reading import check_stdin
    from calibcli.tables import check_output, check_writable

    test, params, output, force = options.test, options.params, options.output, options.force
    check_stdin([*inputs, *(test or []), *(options.target or [])])
    if params is None:
        params = f"{_stem(inputs)}.params.json"
    if output is None:
        applied = test or inputs
        output = None if applied[0] == "-" else f"{_stem(applied)}.calibrated.parquet"
    if not params.endswith((".json", ".safetensors")) and params != "-":
        raise UsageError(f"-p {params}: the name must end in .json or .safetensors")
    check_writable(params, force=force)
    if output is not None:
        check_output(output, force=force, in_parts=True)
    if options.trace is not None:
        check_writable(options.trace, force=force)
    return Targets(params, output, options.trace, checked_kept(options.keep, output))


def _stem(inputs: list[str]) -> str:
    """What output files are named after: ``val.v2`` for ``data/val.v2.parquet``."""
    from calibcli.tables.formats.registry import SUFFIXES

    if inputs[0] == "-":
        return "stdin"
    path = PurePath(inputs[0])
    name = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return "".join(c for c in name if c not in "*?[]").strip(".") or "calib"
