"""A fit from open files to written ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from calibcli.cached import cached_property
from calibcli.cli.shared_options import ComputeOptions, InputOptions

if TYPE_CHECKING:
    from calibcli.calibrators.base import Calibrator
    from calibcli.cli.console import Talk
    from calibcli.cli.pictures import Pictures
    from calibcli.engine.data import Data
    from calibcli.engine.kept_columns import Kept
    from calibcli.metrics.panel import Panel
    from calibcli.metrics.view import Event
    from calibcli.params import Params
    from calibcli.schema.documents import FitDocument, TraceDocument, TraceStagePart
    from calibcli.schema.parts import ClassSharesPart, StagePart
    from calibcli.tables import Outputs
    from calibcli.tables.dataset import Dataset
    from calibcli.workflow.automatic import AnyPlan
    from calibcli.workflow.choosing import Leaderboard
    from calibcli.workflow.fitting import Outcome


@dataclass(frozen=True)
class Targets:
    """Where results go: paths, ``-`` for stdout, or None for nowhere."""

    params: str
    output: str | None
    trace: str | None = None
    kept: Kept | None = None
    """What of the probabilities is written."""

    @property
    def stdout_taken(self) -> bool:
        return "-" in (self.params, self.output)

    @property
    def paths(self) -> list[tuple[str, str]]:
        """The targets, each with the option that names it."""
        named = {"-p": self.params, "-o": self.output, "--trace": self.trace}
        return [(option, path) for option, path in named.items() if path is not None]


class FitJob:
    """The open files of a fit and what is made of them."""

    def __init__(
        self,
        stack: ExitStack,
        inputs: list[str],
        test: list[str] | None,
        reading: InputOptions,
        computing: ComputeOptions,
        talk: Talk,
        *,
        by: str | None = None,
        keys: Mapping[str, str] | None = None,
        writes: bool = True,
    ) -> None:
        from calibcli.calibrators.base import GROUP
        from calibcli.cli.reading import check_test_classes, opened
        from calibcli.tables.read_options import Reading

        self.stack, self.talk, self.computing = stack, talk, computing
        self.engine = computing.engine()
        groups = {} if by is None else {GROUP: by}
        self._inputs, self._test_inputs, self._reading, self._groups = inputs, test, reading, groups
        keys = {**groups, **(keys or {})}
        first = opened(inputs, reading, talk, keys=keys, with_columns=writes)
        self.dataset: Dataset = stack.enter_context(first)
        self.test: Dataset | None = None
        if test:
            known = {role: self.dataset.key_names(role) for role in groups}
            like = Reading(self.dataset.name, self.dataset.layout.decisions)
            again = opened(
                test, reading, talk, keys=keys, key_names=known, like=like, with_columns=False
            )
            self.test = stack.enter_context(again)
            check_test_classes(self.dataset, self.test)
        self.target: Dataset | None = None
        self._target_prints: Future[list[dict[str, Any]]] | None = None
        hasher = ThreadPoolExecutor(1, "calib-hash")
        # After an error or an interrupt nobody waits for it.
        stack.callback(hasher.shutdown, wait=False, cancel_futures=True)
        self._hasher = hasher
        self._prints = hasher.submit(self.dataset.fingerprints)
        self._test_prints = hasher.submit(self.test.fingerprints) if self.test else None

    def open_target(self, inputs: list[str] | None) -> None:
        """Open rows without labels of where the fit will be used; labels, if any, are not read."""
        if not inputs:
            return
        from calibcli.cli.reading import check_test_classes, opened
        from calibcli.tables.read_options import Reading

        like = Reading(self.dataset.name, self.dataset.layout.decisions)
        unlabelled = opened(
            inputs, self._reading, self.talk, labels_required=False, like=like, with_columns=False
        )
        self.target = self.stack.enter_context(unlabelled)
        check_test_classes(self.dataset, self.target)
        self._target_prints = self._hasher.submit(self.target.fingerprints)

    @cached_property
    def seen(self) -> bool:
        """Whether the test input is, in part, what is fitted."""
        return self.test is not None and self.test.is_among(self._prints.result())

    @property
    def classes(self) -> int:
        """The number of classes of the input."""
        return max(self.dataset.columns, 2)

    def check_kept(self, targets: Targets) -> None:
        """Refuse to keep of the probabilities what the rows that are written do not have.

        Raises
        ------
        UsageError
        """
        from calibcli.cli.keeping import columns_kept

        if targets.output is not None:
            columns_kept(targets.kept, targets.output, self.test or self.dataset)

    def fit(self, plan: AnyPlan, folds: int, panel: Panel) -> Outcome:
        """Survey the rows, fit a plan to them, and measure what came of it."""
        from calibcli.cli.reading import talk_about, talk_about_clusters, talk_about_metrics
        from calibcli.engine.data import open_data
        from calibcli.workflow.deciding import CHOICE_FOLDS
        from calibcli.workflow.fitted_plans import long_fit_note
        from calibcli.workflow.fitting import fit_and_measure
        from calibcli.workflow.trying import ComparisonInterrupted

        seed = self.computing.seed
        with self.talk.progress(self.engine, f"fitting {plan.method}", self.dataset.rows) as engine:
            self.data: Data = open_data(engine, self.dataset, folds, seed)
            talk_about(self.data, self.dataset.name, self.talk)
            talk_about_clusters(self.data, self.dataset, self.talk)
            talk_about_metrics(panel, self.talk)
            self.test_data: Data | None = None
            if self.test is not None:
                choice = 1 if panel.costs is None else CHOICE_FOLDS
                self.test_data = open_data(engine, self.test, choice, seed)
                talk_about(self.test_data, self.test.name, self.talk)
            target: Data | None = None
            if self.target is not None:
                target = open_data(engine, self.target)
                talk_about(target, self.target.name, self.talk)
            note = long_fit_note(self.data, plan.plans(self.data), 0 if self.test_data else folds)
            if note:
                self.talk.say(note)
            try:
                return fit_and_measure(
                    self.data,
                    plan,
                    panel,
                    self.test_data,
                    target=target,
                    watch=self.talk.tried,
                )
            except ComparisonInterrupted as interrupt:
                self._show_so_far(interrupt.board)
                raise

    def _show_so_far(self, board: Leaderboard) -> None:
        """The candidates that were done, on stderr: there is no fit to be printed or written."""
        from calibcli.cli.compare import board_document
        from calibcli.cli.console import show
        from calibcli.cli.shared_options import OutputOptions

        if not self.talk.quiet:
            table = board_document(board, self.dataset, self.data)
            show(table, OutputOptions(), stdout_taken=True)

    def params(self, outcome: Outcome, event: Event) -> Params:
        """The content of the parameter file, of a fit that was measured for an event."""
        from calibcli.workflow.records import to_params

        content = to_params(
            outcome,
            classes=self.data.classes,
            kind=self.dataset.kind,
            rows=self.data.rows,
            seed=self.computing.seed,
            class_names=self.dataset.class_names,
            data=self._prints.result(),
            tested_on=self._test_prints.result() if self._test_prints else None,
        )
        if self._target_prints is not None:
            content.fit["class_shares"]["data"] = self._target_prints.result()
        positive = {"positive": event} if isinstance(event, int) else {}
        return replace(content, reading={**self.dataset.layout.decisions, **positive})

    def document(self, outcome: Outcome, content: Params, targets: Targets) -> FitDocument:
        """The result document, of an outcome that was measured."""
        from calibcli.cli.reading import describe
        from calibcli.report.document import fit_document

        assert outcome.before is not None
        assert outcome.after is not None
        test = describe(self.test, self.test_data) if self.test and self.test_data else None
        document = fit_document(
            source=describe(self.dataset, self.data),
            rows=self.data.rows,
            classes=self.data.classes,
            method=outcome.plan.typed,
            loss=outcome.plan.loss,
            options=content.fit["options"],
            fit={
                "loss": outcome.loss,
                "preserves": outcome.preserves,
                "converged": outcome.fit.converged,
                "changed": not outcome.fit.changes_nothing,
                "iterations": outcome.fit.iterations,
                "passes": outcome.fit.passes,
                "gradient_norm": outcome.fit.gradient_norm,
                "seconds": outcome.seconds,
                "device": self.engine.device,
                "notes": list(outcome.notes),
            },
            stages=[_stage(each) for each in outcome.fit.calibrators],
            before=outcome.before,
            after=outcome.after,
            measured_on=outcome.measured_on,
            folds=outcome.folds or None,
            test=test,
            params=None if targets.params == "-" else targets.params,
            output=None if targets.output == "-" else targets.output,
            balanced=outcome.balanced,
            target=None if outcome.target is None else (*outcome.target, outcome.shares or ()),
            plain=outcome.beside_plain,
            leaderboard=outcome.leaderboard,
            groups=outcome.groups,
            decisions=outcome.decisions,
            class_names=self.dataset.class_names,
            seen=self.seen,
        )
        if self.target is not None:
            document["class_shares"] = self._class_shares(content)
        return document

    def _class_shares(self, content: Params) -> ClassSharesPart:
        """The class shares of the target, as the parameter file has them."""
        assert self.target is not None
        shares = {k: each for k, each in content.fit["class_shares"].items() if k != "data"}
        return cast("ClassSharesPart", {"input": self.target.name, **shares})

    def add_files(self, pictures: Pictures) -> None:
        """Tell pictures which files were read."""
        pictures.add_files("fit", self._prints.result())
        if self._test_prints is not None:
            pictures.add_files("test", self._test_prints.result())

    def write(self, content: Params, outcome: Outcome, targets: Targets, files: Outputs) -> None:
        """Write the calibrated rows, the trace, and last the parameter file that speaks of them."""
        from calibcli.params import encode

        self._write_calibrated(outcome, targets.output, targets.kept, files)
        if targets.trace is not None:
            files.open(targets.trace).write(_trace(outcome))
        blob = encode(content, safetensors=targets.params.endswith(".safetensors"))
        files.open(targets.params, last=True).write(blob)

    def _write_calibrated(
        self, outcome: Outcome, path: str | None, kept: Kept | None, files: Outputs
    ) -> None:
        from calibcli.cli.reading import talk_about_left_out, talk_about_output
        from calibcli.engine.kept_columns import RowColumns
        from calibcli.workflow.calibrated_outputs import write_calibrated

        if path is None:
            self.talk.say("calibrated probabilities are not written: give them a name with -o")
            return
        dataset = self.test or self.dataset
        if dataset.is_expanded:
            if "-" in (self._test_inputs or self._inputs):
                self.talk.say("calibrated probabilities of standard input are not written")
                return
            dataset = self._stored_rows(dataset)
        talk_about_output(dataset, self.talk)
        with self.talk.progress(self.engine, "writing", dataset.rows) as engine:
            fitted_to = None if self.test is None else self._prints.result()
            columns, stages = RowColumns(kept), outcome.fit.calibrators
            known = self.test_data or self.data
            write_calibrated(engine, dataset, stages, path, files, fitted_to, columns, known)
        talk_about_left_out(files, self.talk)

    def _stored_rows(self, dataset: Dataset) -> Dataset:
        """The rows of a dataset as they are stored, where it has several of each."""
        from calibcli.cli.console import Talk
        from calibcli.cli.reading import opened
        from calibcli.tables.read_options import Reading

        again = opened(
            self._test_inputs or self._inputs,
            self._reading,
            Talk(quiet=True),
            labels_required=False,
            keys=self._groups,
            key_names={role: self.dataset.key_names(role) for role in self._groups},
            like=Reading(dataset.name, dataset.layout.decisions, self.dataset.class_names),
        )
        stored: Dataset = self.stack.enter_context(again)
        return stored


def _stage(calibrator: Calibrator) -> StagePart:
    part: StagePart = {"kind": calibrator.kind, "parameters": calibrator.parameters()}
    if not calibrator.readable:
        part["summary"] = calibrator.summary()
    return part


def _trace(outcome: Outcome) -> bytes:
    """The rounds of each stage, as JSON."""
    stages: list[TraceStagePart] = [
        {"kind": stage.calibrator.kind, "rounds": list(stage.trace)}
        for stage in outcome.fit.stages
        if stage.solution is not None
    ]
    document: TraceDocument = {
        "schema_version": 1,
        "loss": outcome.plan.loss,
        "stages": stages,
    }
    return (json.dumps(document, indent=1) + "\n").encode()
