"""``calib evaluate``: whether probabilities can be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from calibcli.cli.diagnostic_options import DiagnosticOptions
from calibcli.cli.gate_options import GateOptions, Gates
from calibcli.cli.pictures import PictureOptions, Pictures, fingerprint
from calibcli.cli.record_options import RecordOptions, Records
from calibcli.cli.shared_options import (
    ComputeOptions,
    Force,
    InputOptions,
    Inputs,
    MeasureOptions,
    ReportOptions,
    shared,
)
from calibcli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from calibcli.calibrators.base import Calibrator
    from calibcli.cli.console import Talk
    from calibcli.engine.data import Data
    from calibcli.metrics.panel import Panel
    from calibcli.params import Params
    from calibcli.schema.documents import EvaluateDocument, SeveralDocument
    from calibcli.tables.dataset import Dataset
    from calibcli.tables.read_options import Reading

_HELP = """Measure the calibration of logits, log-probabilities or probabilities.

Every INPUT is measured by itself; several stand side by side, and NAME=INPUT names one. \
Where their rows are the same, differences are shown too.

More: calib docs reading-a-report, calib docs metrics, calib docs ci, calib docs pictures."""

_EXAMPLES = """[b]Examples[/b]

  calib evaluate sample_data/digits_val.parquet sample_data/digits_test.parquet

  calib evaluate sample_data/digits_longtail_test.npz --metrics all

  calib evaluate sample_data/digits_test.parquet --by-class --fail-if 'ece > 0.2'
"""


_Against = Annotated[
    str | None,
    typer.Option(
        metavar="first|best|NAME",
        help="The input that others of the same rows are compared with, with paired intervals; "
        "best: the one with the lowest NLL.",
        show_default="first",
    ),
]


def register(app: typer.Typer) -> None:
    """Add ``calib evaluate`` to the program."""
    app.command("evaluate", help=_HELP, epilog=_EXAMPLES)(evaluate_command)


@shared(
    InputOptions,
    MeasureOptions,
    DiagnosticOptions,
    GateOptions,
    ComputeOptions,
    ReportOptions,
    PictureOptions,
    RecordOptions,
    basic=(
        "params",
        "labels",
        "metrics",
        "bootstrap",
        "by",
        "fail_if",
        "plot",
        "report",
        "force",
        "format",
    ),
)
def evaluate_command(
    inputs: Inputs,
    reading: InputOptions,
    measuring: MeasureOptions,
    diagnosing: DiagnosticOptions,
    gating: GateOptions,
    computing: ComputeOptions,
    printing: ReportOptions,
    picturing: PictureOptions,
    recording: RecordOptions,
    params: Annotated[
        str | None,
        typer.Option(
            "--params",
            "-p",
            metavar="FILE",
            help="Calibrate the rows by this parameter file first.",
        ),
    ] = None,
    against: _Against = None,
    force: Force = False,
) -> None:
    """Measure each input, write pictures and pages, judge the gates, and print the results."""
    from calibcli.cli.console import Talk
    from calibcli.cli.reading import keep_apart
    from calibcli.tables import Outputs

    named = _named(inputs, params, against, measuring)
    talk = Talk(printing.quiet)
    gates = Gates(gating, "evaluate", printing, intervals=measuring.bootstrap > 0, force=force)
    records = Records(recording)
    calibrator = _read_params(params)
    diagnosing = _by_label(gates.diagnosing(diagnosing), reading, calibrator[2])
    diagnosing.check()
    shown = measuring.pictured | diagnosing.pictured
    pictures = Pictures(picturing, force=force, seed=computing.seed, by=diagnosing.by, shown=shown)
    panel = gates.panel(pictures.panel(measuring.panel(computing.seed)))
    outputs = [*pictures.paths, *gates.paths, *records.paths]
    keep_apart(outputs)
    job = _Job(
        *(reading, measuring, panel, diagnosing, computing, talk, pictures, outputs),
        *(params, *calibrator),
    )
    document = job.evaluate_all(named, against)
    gates.judge(document, talk)
    with Outputs(force=force) as files:
        written = pictures.write(document, files) + gates.write(document, files)
        written += records.write(document, files, params)
    talk.wrote(written)
    with records.logged(document, written, params):
        gates.conclude(document, talk)


def _named(
    inputs: list[str], params: str | None, against: str | None, measuring: MeasureOptions
) -> Sequence[tuple[str | None, str]]:
    """The inputs with their names, if they can be read, and compared where that is asked for."""
    from calibcli.cli.reading import check_stdin, named_inputs

    named = named_inputs(inputs)
    check_stdin([params, *(name for _, name in named)])
    if against is not None and len(named) < 2:
        raise UsageError("--against compares inputs, and there is only one")
    if against is not None and not measuring.bootstrap:
        raise UsageError("--against needs intervals; --bootstrap 0 has none")
    return named


def _read_params(
    path: str | None,
) -> tuple[Params | None, tuple[Calibrator, ...], Reading | None]:
    """What a parameter file holds, its stages, and how its input was read, if there is one."""
    if path is None:
        return None, (), None
    from calibcli.cli.reading import reading_of
    from calibcli.workflow.records import read_calibrators

    content, stages = read_calibrators(path)
    return content, stages, reading_of(content, path)


def _by_label(
    diagnosing: DiagnosticOptions, reading: InputOptions, like: Reading | None
) -> DiagnosticOptions:
    """The options with a slice for each label, where rows have several."""
    fitted_so = like is not None and like.decisions.get("multi_label")
    return diagnosing.by_label() if reading.multi_label or fitted_so else diagnosing


@dataclass
class _Job:
    """What is the same for every input."""

    reading: InputOptions
    measuring: MeasureOptions
    panel: Panel
    diagnosing: DiagnosticOptions
    computing: ComputeOptions
    talk: Talk
    pictures: Pictures
    outputs: list[tuple[str, str]]
    params: str | None
    content: Params | None
    stages: tuple[Calibrator, ...]
    like: Reading | None

    def evaluate_all(
        self, named: Sequence[tuple[str | None, str]], against: str | None
    ) -> EvaluateDocument | SeveralDocument:
        """The document of all inputs, with their names and how they differ from one of them."""
        from calibcli.cli.reading import distinct
        from calibcli.report.differences import add_differences
        from calibcli.report.document import combine, is_of_several

        if self.params is not None and self.pictures.wants_fingerprints:
            self.pictures.add_files("calibrate", fingerprint(self.params))
        documents = [self.evaluate(name) for _, name in named]
        sources = [document["input"] for document in documents]
        names = [name or source["name"] for (name, _), source in zip(named, sources, strict=True)]
        for source, name in zip(sources, distinct(names, [text for _, text in named]), strict=True):
            source["name"] = name
        document = combine(documents)
        if is_of_several(document):
            add_differences(document, against)
        self.pictures.entitle(document)
        return document

    def evaluate(self, name: str) -> EvaluateDocument:
        """The result document of one input."""
        from calibcli.cli.reading import (
            describe,
            group_keys,
            keep_inputs,
            talk_about,
            talk_about_clusters,
            talk_about_groups,
            talk_about_metrics,
        )
        from calibcli.engine.data import open_data
        from calibcli.report.document import evaluate_document, judge_again
        from calibcli.workflow.measuring import Through, clustered, measure

        keys, names = group_keys(self.stages, self.params)
        engine, doing = self.computing.engine(), f"measuring {name}"
        with (
            self._opened(name, keys, names) as dataset,
            self.talk.progress(engine, doing, dataset.rows) as watched,
        ):
            keep_inputs(self.outputs, dataset)
            folds = max(self.diagnosing.folds, self.measuring.folds)
            data = open_data(watched, dataset, folds, self.computing.seed)
            talk_about(data, dataset.name, self.talk)
            talk_about_clusters(data, dataset, self.talk)
            talk_about_groups(dataset, names, self.talk)
            self._check_classes(data, dataset)
            panel = clustered(self.panel, data)
            panel = self.measuring.settled(panel, data.classes, dataset.class_names, self.like)
            talk_about_metrics(panel, self.talk)
            panel = self.pictures.widened(self.diagnosing.widened(panel, data), data)
            predictor = Through(self.stages)
            (evaluation,) = measure(data, [predictor], panel)
            self.pictures.add(
                evaluation,
                class_names=dataset.class_names,
                slice_names=self.diagnosing.slice_names(data),
            )
            if self.pictures.wants_fingerprints:
                self.pictures.add_files("measure", dataset.fingerprints())
            document = evaluate_document(
                evaluation,
                source=describe(dataset, data),
                params=self.params,
                class_names=dataset.class_names,
                seen=self._seen(dataset),
            )
            self.measuring.add_decisions(document, data, predictor, panel, dataset.class_names)
            self.diagnosing.add_to(document, data, self.stages, evaluation, panel, dataset)
            return judge_again(document)

    def _opened(
        self, name: str, keys: dict[str, str], names: dict[str, tuple[str, ...]]
    ) -> AbstractContextManager[Dataset]:
        from calibcli.cli.reading import opened

        keys = keys | self.measuring.keys | self.diagnosing.keys
        return opened(
            [name],
            self.reading,
            self.talk,
            keys=keys,
            key_names=names,
            like=self.like,
            with_columns=False,
        )

    def _check_classes(self, data: Data, dataset: Dataset) -> None:
        """Refuse rows whose classes are not those of the parameter file."""
        from calibcli.cli.reading import check_params_classes

        if self.content is not None and self.params is not None:
            check_params_classes(self.content, data.classes, self.params, dataset)

    def _seen(self, dataset: Dataset) -> str | None:
        """What fit has seen the rows: of the parameter file, or of the input if it says so."""
        if self.content is not None and dataset.is_among(self.content.data):
            return self.params
        return dataset.name if dataset.seen else None
