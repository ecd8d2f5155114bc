"""``calib apply``: run logits through a fitted calibrator."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calibcli.cli.option_values import Trait
from calibcli.cli.shared_options import (
    ComputeOptions,
    Force,
    InputOptions,
    Inputs,
    PlainFormat,
    PlainOutputOptions,
    shared,
)
from calibcli.errors import ParamsError, UsageError

if TYPE_CHECKING:
    from calibcli.calibrators.base import Calibrator
    from calibcli.engine.engine import Engine
    from calibcli.params import Params
    from calibcli.schema.documents import ApplyDocument
    from calibcli.tables import Outputs
    from calibcli.tables.dataset import Dataset
    from calibcli.workflow.pricing import Decider

_HELP = """Write calibrated probabilities of every row, in the order of the rows.

Needs no labels. The output has probs, prediction, confidence, the label if it was there, and \
every other column of the input. After venn-abers it also has confidence_lower and \
confidence_upper, with --threshold or --cost a decision.

More: calib docs inputs, calib docs params, calib docs decisions."""

_INTERVAL = ("confidence_lower", "confidence_upper")
"""Columns that some methods add."""

_EXAMPLES = """[b]Examples[/b]

  calib fit sample_data/digits_val.parquet -p digits.json -o val.parquet

  calib apply digits.json sample_data/digits_test.parquet -o calibrated.parquet

  calib apply digits.json sample_data/digits_test.parquet -o calibrated.npz
"""


def register(app: typer.Typer) -> None:
    """Add ``calib apply`` to the program."""
    app.command("apply", help=_HELP, epilog=_EXAMPLES)(apply_command)


@dataclass(frozen=True)
class ApplyOptions:
    """Where to write, and how to find groups."""

    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=".parquet, .npz, .npy or .arrow; - writes an Arrow stream to stdout.",
            show_default=False,
        ),
        Trait.WRITES_FILE,
    ]
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COL",
            help="Column of the groups, where PARAMS has maps for them.",
            show_default="as in PARAMS",
        ),
    ] = None
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="T|best",
            help="Write a decision too: the positive class of two from this probability on; best "
            "is what calib fit --cost has learnt.",
            show_default="no decision",
        ),
    ] = None
    cost: Annotated[
        str | None,
        typer.Option(
            metavar="fp=X,fn=Y|FILE",
            help="Write the decision of least expected cost, of two classes or by a matrix.",
            show_default="no decision",
        ),
    ] = None
    positive: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The positive class of two, by name or number.",
            show_default="as in PARAMS, or class 1",
        ),
    ] = None
    force: Force = False

    def decider(self, content: Params, params: str, names: Sequence[str] | None) -> Decider | None:
        """How rows are decided, if they are to be.

        Raises
        ------
        CalibError
            They cannot be decided so.
        """
        if self.threshold is None and self.cost is None:
            if self.positive is not None:
                raise UsageError("--positive is about decisions; add --threshold or --cost")
            return None
        from calibcli.workflow.pricing import make_decider, parse_costs

        given = None if self.cost is None else parse_costs(self.cost)
        try:
            return make_decider(content, self.threshold, given, self.positive, names)
        except ParamsError as error:
            raise ParamsError(f"{params}: {error}") from None


@shared(
    ApplyOptions,
    InputOptions,
    ComputeOptions,
    PlainOutputOptions,
    basic=(
        "output",
        "force",
        "logits",
        "input",
        "threshold",
        "cost",
        "by",
        "memory",
        "format",
        "quiet",
    ),
)
def apply_command(
    params: Annotated[
        str, typer.Argument(metavar="PARAMS", help="Parameter file.", show_default=False)
    ],
    inputs: Inputs,
    applying: ApplyOptions,
    reading: InputOptions,
    computing: ComputeOptions,
    printing: PlainOutputOptions,
) -> None:
    """Run rows through a calibrator, and write what comes out."""
    from calibcli.cli.console import Talk
    from calibcli.cli.reading import (
        check_params_classes,
        check_stdin,
        group_keys,
        keep_inputs,
        opened,
        reading_of,
        talk_about_groups,
        talk_about_left_out,
        talk_about_output,
    )
    from calibcli.tables import Outputs, check_output
    from calibcli.workflow.records import read_calibrators

    check_stdin([params, *inputs])
    check_output(applying.output, force=applying.force)
    content, stages = read_calibrators(params)
    keys, names = group_keys(stages, params, applying.by)
    talk = Talk(printing.quiet)
    once = {"labels_required": False, "single_pass": True}
    like = reading_of(content, params)
    with (
        opened(inputs, reading, talk, keys=keys, key_names=names, like=like, **once) as dataset,
        talk.progress(computing.engine_here(talk), "applying", dataset.rows) as engine,
    ):
        keep_inputs([("-o", applying.output)], dataset)
        check_params_classes(content, max(dataset.columns, 2), params, dataset)
        talk_about_output(dataset, talk)
        decider = applying.decider(content, params, dataset.class_names)
        with Outputs(force=applying.force) as files:
            rows = write_calibrated(
                engine, dataset, stages, applying.output, files, content.data, decider
            )
        talk_about_groups(dataset, names, talk)
        talk_about_left_out(files, talk)
    if applying.output != "-":
        talk.wrote([f"{applying.output} (rows: {rows})"])
        if printing.format is PlainFormat.JSON:
            sys.stdout.write(_document(dataset, rows, content, params, applying.output, decider))


def _document(
    dataset: Dataset,
    rows: int,
    content: Params,
    params: str,
    output: str,
    decider: Decider | None,
) -> str:
    """The result as JSON."""
    document: ApplyDocument = {
        "schema_version": 1,
        "command": "apply",
        "input": {
            "name": dataset.name,
            "files": list(dataset.files),
            "kind": dataset.kind,
            "picked": dict(dataset.picked),
        },
        "rows": rows,
        "classes": content.classes,
        "stages": [stage.kind for stage in content.stages],
        "params": params,
        "output": output,
    }
    if decider is not None:
        document["decision"] = {"positive": decider.positive, "threshold": decider.threshold}
    return json.dumps(document, indent=2) + "\n"


def write_calibrated(
    engine: Engine,
    dataset: Dataset,
    stages: Sequence[Calibrator],
    path: str,
    files: Outputs,
    fitted_to: Sequence[Mapping[str, Any]] | None,
    decider: Decider | None = None,
) -> int:
    """Write the calibrated probabilities of a dataset, and decisions if there is a decider.

    Where a fit has seen the rows the file says so: they are among ``fitted_to``, fingerprints of
    files, or that is None.

    Returns
    -------
    int
        The number of rows.
    """
    from calibcli.tables import open_writer, output_format
    from calibcli.workflow.applying import calibrated_chunks, chunk_rows

    seen = fitted_to is None or dataset.seen or dataset.is_among(fitted_to)
    if dataset.row_labels is not None:
        return _write_labels(engine, dataset, stages, path, files, seen, decider)
    chunks = dataset.chunks(chunk_rows(engine, dataset), with_columns=True)
    written = 0
    grid = dataset.grid() if output_format(path).gives_shape else None
    with open_writer(path, dataset, outputs=files, seen=seen, grid=grid) as writer:
        for part in calibrated_chunks(engine, dataset, chunks, stages, intervals=True):
            extra = dict(zip(_INTERVAL, part.interval or (), strict=False))
            if decider is not None:
                extra["decision"] = decider(part.probs)
            writer.write(
                part.chunk.columns,
                part.probs,
                part.prediction,
                part.confidence,
                part.chunk.labels,
                extra,
            )
            written += len(part.probs)
    return written


@dataclass(frozen=True)
class _StoredRows:
    """What a writer must know of rows with several labels.

    Attributes
    ----------
    rows : int
    class_names : tuple of str
        The labels.
    """

    rows: int
    class_names: tuple[str, ...]


def _write_labels(
    engine: Engine,
    dataset: Dataset,
    stages: Sequence[Calibrator],
    path: str,
    files: Outputs,
    seen: bool,
    decider: Decider | None,
) -> int:
    """As `write_calibrated`, of rows with several labels: a probability for each, (n, K)."""
    import numpy as np

    from calibcli.tables import open_writer
    from calibcli.tables.formats.base import UNKNOWN_ROWS
    from calibcli.tables.labels import NO_LABEL
    from calibcli.tables.read_options import LABEL_NAME
    from calibcli.workflow.applying import calibrated_chunks, chunk_rows

    names = dataset.row_labels or ()
    count, rows = len(names), dataset.rows
    stored = _StoredRows(rows if rows == UNKNOWN_ROWS else rows // count, names)
    # A reader gives whole rows as long as one of them fits.
    step = max(chunk_rows(engine, dataset) // count, 1) * count
    chunks = dataset.chunks(step, with_columns=True)
    written = 0
    with open_writer(path, stored, outputs=files, seen=seen) as writer:
        for part in calibrated_chunks(engine, dataset, chunks, stages):
            columns, labels = part.chunk.columns, part.chunk.labels
            if columns is not None and columns.num_columns:
                columns = columns.take(np.arange(0, len(part.probs), count))
                # Whose label a row is tells nothing of a row of all labels.
                kept = [name for name in columns.schema.names if name != LABEL_NAME]
                columns = columns.select(kept) if kept else None
            computed = {"probs": np.ascontiguousarray(part.probs[:, 1]).reshape(-1, count)}
            if labels is not None:
                computed["label"] = np.where(labels == NO_LABEL, -1, labels).reshape(-1, count)
            if decider is not None:
                computed["decision"] = decider(part.probs).reshape(-1, count)
            writer.write_table(computed, columns)
            written += len(computed["probs"])
    return written
