"""``calib fit``: learn a calibrator from logits and labels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calibcli.cli.options import (
    ComputeOptions,
    Force,
    InputOptions,
    Inputs,
    OutputOptions,
    shared,
)

if TYPE_CHECKING:
    from calibcli.cli.console import Talk
    from calibcli.engine.data import Data
    from calibcli.params import Params
    from calibcli.tables.dataset import Dataset
    from calibcli.workflow.fitting import Outcome

_HELP = """Fit a calibrator to the logits and labels of a validation set.

Writes a parameter file and calibrated probabilities (of the --test file, else of the input), and \
prints metrics before and after, which are measured on rows that the fit has not seen."""

_EXAMPLES = """[b]Examples[/b]

  calib fit sample_data/digits_val.parquet --test sample_data/digits_test.parquet

  calib fit sample_data/digits_longtail_val.npz -m vector -p vector.json --format json
"""


@dataclass(frozen=True)
class _Targets:
    """Where results go: paths, ``-`` for stdout, or None for nowhere."""

    params: str
    output: str | None

    @property
    def stdout_taken(self) -> bool:
        return "-" in (self.params, self.output)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fit", help=_HELP, epilog=_EXAMPLES, no_args_is_help=True)(fit)


@shared(InputOptions, ComputeOptions, OutputOptions)
def fit(
    inputs: Inputs,
    reading: InputOptions,
    computing: ComputeOptions,
    printing: OutputOptions,
    method: Annotated[
        str,
        typer.Option(
            "--method", "-m", metavar="NAME[,NAME]", help="See calib methods; stages with commas."
        ),
    ] = "temperature",
    loss: Annotated[
        str, typer.Option(metavar="NAME", help="What the fit minimises; see calib losses.")
    ] = "nll",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME.OPTION=VALUE", help="An option of a method or a loss; repeat."
        ),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option("--test", metavar="FILE", help="Measure (and apply) on this file; repeat."),
    ] = None,
    params: Annotated[
        str | None,
        typer.Option(
            "--params",
            "-p",
            metavar="FILE",
            help="Parameter file, .json or .safetensors.",
            show_default="INPUT.params.json",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Calibrated probabilities, .parquet, .npz or .arrow.",
            show_default="INPUT.calibrated.parquet",
        ),
    ] = None,
    folds: Annotated[
        int, typer.Option(min=2, metavar="N", help="Of the cross-fitting, without --test.")
    ] = 5,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3, nothing written, if not converged.")
    ] = False,
    force: Force = False,
) -> None:
    """Parse, fit, write, print."""
    from calibcli.cli.console import Talk, show
    from calibcli.workflow.fitting import make_plan

    plan = make_plan(method, loss, set_ or ())
    targets = _targets(inputs, test, params, output, force=force)
    talk = Talk(printing.quiet)
    with ExitStack() as stack:
        job = _Job(stack, inputs, test, reading, computing, talk)
        outcome = job.fit(plan, folds)
        content = job.params(outcome)
        document = job.document(outcome, content, targets)
        if strict and not outcome.fit.converged:
            show({**document, "params": None, "output": None}, printing)
            _refuse(outcome)
        job.write(content, outcome, targets, force=force)
        show(document, printing, to_stderr=targets.stdout_taken)


def _refuse(outcome: Outcome) -> None:
    from calibcli.errors import NotConvergedError

    criterion = next(
        s.solution.criterion for s in outcome.fit.stages if s.solution and not s.solution.converged
    )
    raise NotConvergedError(
        f"the fit did not converge ({criterion}); nothing was written (--strict)"
    )


def _targets(
    inputs: list[str],
    test: list[str] | None,
    params: str | None,
    output: str | None,
    *,
    force: bool,
) -> _Targets:
    """Where to write, checked before any work is done."""
    from calibcli.errors import UsageError
    from calibcli.tables import check_writable

    if params is None:
        params = f"{_stem(inputs)}.params.json"
    if output is None:
        applied = test or inputs
        output = None if applied[0] == "-" else f"{_stem(applied)}.calibrated.parquet"
    if params == output:
        raise UsageError(f"-p and -o are both {params}; give them different names")
    if not params.endswith((".json", ".safetensors")) and params != "-":
        raise UsageError(f"-p {params}: the name must end in .json or .safetensors")
    for path in (params, output):
        if path not in (None, "-"):
            check_writable(str(path), force=force)
    return _Targets(params, output)


def _stem(inputs: list[str]) -> str:
    if inputs[0] == "-":
        return "stdin"
    name = Path(inputs[0].rstrip("/")).name.partition(".")[0]
    return "".join(c for c in name if c not in "*?[]") or "calib"


class _Job:
    """The open files of a fit and what is made of them."""

    def __init__(
        self,
        stack: ExitStack,
        inputs: list[str],
        test: list[str] | None,
        reading: InputOptions,
        computing: ComputeOptions,
        talk: Talk,
    ) -> None:
        from calibcli.cli.reading import opened

        self.stack, self.talk, self.computing = stack, talk, computing
        self.engine = computing.engine()
        self.dataset: Dataset = stack.enter_context(opened(inputs, reading, talk))
        self.test: Dataset | None = None
        if test:
            self.test = stack.enter_context(opened(test, reading, talk))
        hasher = stack.enter_context(ThreadPoolExecutor(1, "calib-hash"))
        self._prints = hasher.submit(self.dataset.fingerprints)
        self._test_prints = hasher.submit(self.test.fingerprints) if self.test else None

    def fit(self, plan: Any, folds: int) -> Outcome:
        from calibcli.cli.reading import talk_about
        from calibcli.engine.data import open_data
        from calibcli.errors import DataError
        from calibcli.metrics.panel import Panel
        from calibcli.workflow.fitting import run_fit

        seed = self.computing.seed
        with self.talk.progress(self.engine, f"fitting {plan.method}", self.dataset.rows) as engine:
            self.data: Data = open_data(engine, self.dataset, folds, seed)
            talk_about(self.data, self.dataset.name, self.talk)
            self.test_data: Data | None = None
            if self.test is not None:
                self.test_data = open_data(engine, self.test)
                talk_about(self.test_data, self.test.name, self.talk)
                if self.test_data.classes != self.data.classes:
                    raise DataError(
                        f"{self.test.name} has {self.test_data.classes} classes, "
                        f"{self.dataset.name} has {self.data.classes}"
                    )
            outcome = run_fit(self.data, plan, Panel(), self.test_data)
        for note in outcome.notes:
            self.talk.say(note)
        return outcome

    def params(self, outcome: Outcome) -> Params:
        from calibcli.workflow.records import to_params

        return to_params(
            outcome,
            classes=self.data.classes,
            kind=self.dataset.kind,
            rows=self.data.rows,
            seed=self.computing.seed,
            class_names=self.dataset.class_names,
            data=self._prints.result(),
            tested_on=self._test_prints.result() if self._test_prints else None,
        )

    def document(self, outcome: Outcome, content: Params, targets: _Targets) -> dict[str, Any]:
        from calibcli.cli.reading import describe
        from calibcli.report.document import fit_document

        assert outcome.before is not None
        assert outcome.after is not None
        test = describe(self.test, self.test_data) if self.test and self.test_data else None
        return fit_document(
            source=describe(self.dataset, self.data),
            rows=self.data.rows,
            classes=self.data.classes,
            method=outcome.plan.method,
            loss=outcome.plan.loss,
            options=content.fit["options"],
            fit={
                "converged": outcome.fit.converged,
                "iterations": outcome.fit.iterations,
                "passes": outcome.fit.passes,
                "gradient_norm": outcome.fit.gradient_norm,
                "seconds": outcome.seconds,
                "device": self.engine.device,
                "notes": list(outcome.notes),
            },
            stages=[{"kind": s.kind, "parameters": s.parameters} for s in content.stages],
            before=outcome.before,
            after=outcome.after,
            measured_on=outcome.measured_on,
            folds=outcome.folds or None,
            test=test,
            params=None if targets.params == "-" else targets.params,
            output=None if targets.output == "-" else targets.output,
        )

    def write(self, content: Params, outcome: Outcome, targets: _Targets, *, force: bool) -> None:
        from calibcli.cli.apply import write_calibrated
        from calibcli.params import encode
        from calibcli.tables import atomic_write

        if targets.output is not None:
            dataset = self.test or self.dataset
            with self.talk.progress(self.engine, "writing", dataset.rows) as engine:
                write_calibrated(
                    engine, dataset, outcome.fit.calibrators, targets.output, force=force
                )
        elif self.dataset.name == "stdin":
            self.talk.say("calibrated probabilities are not written: give them a name with -o")
        blob = encode(content, safetensors=targets.params.endswith(".safetensors"))
        with atomic_write(targets.params, force=force) as file:
            file.write(blob)
