"""The option ``--fail-if`` and what belongs to it: gates, and the reports that CI systems read."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from calibcli.cli.option_values import Trait
from calibcli.cli.shared_options import options_in
from calibcli.errors import GateError, UsageError
from calibcli.small_files import read_small

if TYPE_CHECKING:
    from calibcli.cli.console import Talk
    from calibcli.cli.diagnostic_options import DiagnosticOptions
    from calibcli.cli.shared_options import ReportOptions
    from calibcli.metrics.panel import Panel
    from calibcli.report.baseline import Baseline
    from calibcli.schema.documents import Document, Judged
    from calibcli.tables import Outputs
    from calibcli.workflow.conditions import Gate
    from calibcli.workflow.quantities import Measurement

_option = options_in("Gates")

_MEASURED: dict[str, set[Measurement]] = {
    "evaluate": set(),
    "fit": {"before", "after", "change", "delta"},
}
"""Stages that each command measures by itself."""


@dataclass(frozen=True)
class GateOptions:
    """Conditions under which a job fails, and who is told."""

    fail_if: Annotated[
        list[str] | None,
        _option(
            "--fail-if",
            metavar="CONDITION",
            help="Exit with 1 where it holds: 'ece > 0.02', 'nll.after > nll.before'; repeatable.",
            show_default=False,
        ),
    ] = None
    baseline: Annotated[
        str | None,
        _option(
            metavar="FILE",
            help="What --format json printed earlier, for .delta and .baseline in conditions.",
            show_default=False,
        ),
    ] = None
    significant: Annotated[
        bool,
        _option("--significant", help="Fail only where the 95 % interval is clear of the bound."),
    ] = False
    junit: Annotated[
        str | None,
        _option(metavar="FILE", help="Write the gates as test cases, .xml."),
        Trait.WRITES_FILE,
    ] = None
    openmetrics: Annotated[
        str | None,
        _option(metavar="FILE", help="Write metrics and gates as gauges."),
        Trait.WRITES_FILE,
    ] = None
    github: Annotated[
        bool | None,
        _option(
            "--github/--no-github",
            help="Step summary and annotations of GitHub Actions.",
            show_default="on GitHub Actions",
        ),
    ] = None


class Gates:
    """The gates of one command.

    Parameters
    ----------
    options : GateOptions
    command : {"evaluate", "fit"}
    printing : ReportOptions
    intervals : bool
        Whether intervals will be measured.
    force : bool
        Whether files that exist may be replaced.

    Raises
    ------
    CalibError
        A condition that cannot be judged, a baseline that cannot be read, options that say nothing
        together, or a file that could not be written at the end.
    """

    def __init__(
        self,
        options: GateOptions,
        command: Literal["evaluate", "fit"],
        printing: ReportOptions,
        *,
        intervals: bool,
        force: bool,
    ) -> None:
        self._options, self._printing, self._force = options, printing, force
        self._gates: list[Gate] = []
        if options.fail_if:
            from calibcli.workflow.conditions import parse_gate

            self._gates = [parse_gate(text) for text in options.fail_if]
        self._check_options()
        if self._gates:
            self._check_gates(command, intervals=intervals)
        self._baseline = self._read_baseline()

    def _check_gates(self, command: Literal["evaluate", "fit"], *, intervals: bool) -> None:
        from calibcli.workflow.gates import check_gates

        measured = set(_MEASURED[command])
        if self._options.baseline is not None:
            measured |= {"baseline", "delta"}
        check_gates(
            self._gates,
            measured=measured,
            intervals=intervals,
            significant=self._options.significant,
            slices=command == "evaluate",
        )

    def _check_options(self) -> None:
        from calibcli.tables import check_writable

        options = self._options
        needing = {
            "--baseline": options.baseline is not None,
            "--significant": options.significant,
            "--junit": options.junit is not None,
            "--format junit": self._printing.format.value == "junit",
        }
        lonely = next((flag for flag, given in needing.items() if given and not self._gates), None)
        if lonely:
            raise UsageError(f"{lonely} is about gates, and there is no --fail-if")
        for _, path in self.paths:
            if path is not None:
                check_writable(path, force=self._force)

    @property
    def paths(self) -> list[tuple[str, str]]:
        """The files that are asked for, each with the option that names it."""
        named = {"--junit": self._options.junit, "--openmetrics": self._options.openmetrics}
        return [(option, path) for option, path in named.items() if path is not None]

    def _read_baseline(self) -> Baseline | None:
        path = self._options.baseline
        if path is None:
            return None
        from calibcli.report.baseline import Baseline
        from calibcli.workflow.quantities import Quantity

        baseline = Baseline(read_small(path), path)
        compared = (q for gate in self._gates for q in gate.operands)
        quantities = (q for q in compared if isinstance(q, Quantity))
        baseline.check([q.metric for q in quantities if q.stage in ("baseline", "delta")])
        return baseline

    def panel(self, panel: Panel) -> Panel:
        """The panel, with the metrics that the gates need."""
        if not self._gates:
            return panel
        from calibcli.workflow.gates import gate_metrics

        return replace(panel, names=(*panel.names, *gate_metrics(self._gates)))

    def diagnosing(self, options: DiagnosticOptions) -> DiagnosticOptions:
        """What to look at more closely, with the slices and periods that the gates need.

        Raises
        ------
        UsageError
            They need slices of two columns, or of any and there are none.
        """
        if not self._gates:
            return options
        from calibcli.workflow.gates import gate_slices

        for by in gate_slices(self._gates):
            if by.column is None:
                options = replace(options, by_class=True)
            elif options.by in (None, by.column):
                options = replace(options, by=by.column)
            else:
                raise UsageError(
                    f"--fail-if: rows are divided by one column, {options.by} or {by.column}; "
                    "look at the other one by another calib evaluate"
                )
        sliced = options.by is not None or options.by_class
        for gate in self._gates:
            flag = f"--fail-if {gate.expression!r}"
            if any(operand.in_order for operand in gate.operands):
                if options.by is None:
                    raise UsageError(
                        f"{flag}: there are no periods; add --by COL, or 'by COL' to the condition"
                    )
                options = replace(options, in_order=True)
            elif any(operand.of_slices for operand in gate.operands) and not sliced:
                raise UsageError(
                    f"{flag}: there are no slices; add --by COL, --by-class, or 'by COL' to the "
                    "condition"
                )
        return options

    def judge(self, document: Judged, talk: Talk) -> None:
        """Judge a document by all gates; what came of it goes into the document.

        Which inputs are not paired with the baseline is said, and why.
        """
        if not self._gates:
            return
        from calibcli.report.gate_results import add_gates, reasons_unpaired

        significant = self._options.significant
        add_gates(document, self._gates, baseline=self._baseline, significant=significant)
        for line in reasons_unpaired(document):
            talk.say(line)

    def write(self, document: Document, outputs: Outputs) -> list[str]:
        """Write the files that were asked for, and return their names."""
        asked = {"junit": self._options.junit, "openmetrics": self._options.openmetrics}
        paths = {kind: path for kind, path in asked.items() if path is not None}
        if paths:
            from calibcli.report.formats import RENDERERS

            for kind, path in paths.items():
                outputs.open(path).write(
                    RENDERERS[kind](document).encode(errors="backslashreplace")
                )
        return list(paths.values())

    def conclude(self, document: Document, talk: Talk, *, stdout_taken: bool = False) -> None:
        """Print a document, and tell everybody what came of the gates.

        Raises
        ------
        GateError
            At least one of them failed.
        """
        from calibcli.cli.console import show

        gone: BaseException | None = None
        try:
            show(document, self._printing, stdout_taken=stdout_taken)
            sys.stdout.flush()
        except (BrokenPipeError, SystemExit) as error:  # the second is how Rich puts the first
            gone = error
        if self._gates and self._printing.format.value != "table":
            _say_each(document, talk)
        if self._on_github:
            self._tell_github(document, talk)
        if self._gates:
            self._conclude(document)
        if gone is not None:
            raise gone

    @staticmethod
    def _conclude(document: Document) -> None:
        # Whoever reads or does not read: the verdict is the exit code.
        from calibcli.report.gate_results import failed_gates, verdict_on_gates

        if failed_gates(document):
            raise GateError(verdict_on_gates(document))

    @property
    def _on_github(self) -> bool:
        if self._options.github is not None:
            return self._options.github
        is_action = os.environ.get("GITHUB_ACTIONS") == "true"
        return is_action and bool(os.environ.get("GITHUB_STEP_SUMMARY"))

    def _tell_github(self, document: Document, talk: Talk) -> None:
        """Append to the step summary, and annotate on stderr what stdout does not annotate."""
        from calibcli.cli.console import command_runner
        from calibcli.report.github import SUMMARY_BYTES, fit_summary, workflow_commands
        from calibcli.report.render_markdown import to_markdown

        if self._printing.format.value != "github":
            for command in workflow_commands(document):
                command_runner(command)
        path = os.environ.get("GITHUB_STEP_SUMMARY")
        if not path:
            return
        try:
            with Path(path).open("ab") as file:
                page = fit_summary(to_markdown(document), SUMMARY_BYTES - file.tell() - 1)
                file.write(page.encode(errors="backslashreplace"))
        except OSError as error:
            # A page that is missing is no reason to fail a job.
            talk.say(f"the step summary cannot be written: {path}: {error.strerror}")


def _say_each(document: Document, talk: Talk) -> None:
    from calibcli.report.document import gates_of
    from calibcli.report.gate_results import sentence

    for entry in gates_of(document):
        talk.say(f"gate {sentence(entry)}")
