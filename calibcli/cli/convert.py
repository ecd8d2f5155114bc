"""``calib convert``: write what was understood of some files, as a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from calibcli.cli.option_values import Trait
from calibcli.cli.shared_options import (
    CLUSTER_HELP,
    Force,
    InputOptions,
    Inputs,
    PlainOutputOptions,
    shared,
)
from calibcli.errors import UsageError

if TYPE_CHECKING:
    from calibcli.arrays import NumpyArray
    from calibcli.engine.source import Chunk
    from calibcli.schema.documents import ConvertDocument
    from calibcli.tables import Outputs
    from calibcli.tables.dataset import Dataset

_HELP = """Write what calib understands of some files, as one table that needs no options.

The output has a row for each row that is measured: its scores, as logits, log_probs or probs, the \
number of its class as label, and every other column. Its metadata say what they are, the class \
names included, so that calib evaluate gives the same figures for it.

More: calib docs inputs."""

_EXAMPLES = """[b]Examples[/b]

  calib convert sample_data/digits_val.parquet -o digits.npz

  calib convert sample_data/digits_longtail_val.npz -o digits.parquet

  calib convert sample_data/digits_val.parquet -o digits.arrow
"""

_NAMES = {"logits": "logits", "log-probs": "log_probs", "probs": "probs"}
"""What the scores are called, by their kind."""

_CHUNK_BYTES = 8 << 20

_LABEL, _WEIGHT = "label", "weight"


def register(app: typer.Typer) -> None:
    """Add ``calib convert`` to the program."""
    app.command("convert", help=_HELP, epilog=_EXAMPLES)(convert_command)


@dataclass(frozen=True)
class ConvertOptions:
    """Where to write, and what the file is to say of itself."""

    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=".parquet, .npz or .arrow; - writes an Arrow stream to stdout.",
            show_default=False,
        ),
        Trait.WRITES_FILE,
    ]
    cluster: Annotated[
        str | None, typer.Option(metavar="COL", help=CLUSTER_HELP, show_default="rows")
    ] = None
    force: Force = False


@shared(
    ConvertOptions,
    InputOptions,
    PlainOutputOptions,
    basic=("output", "force", "logits", "labels", "weights", "input", "classes", "quiet"),
)
def convert_command(
    inputs: Inputs,
    converting: ConvertOptions,
    reading: InputOptions,
    printing: PlainOutputOptions,
) -> None:
    """Read files, and write the rows that they hold."""
    from calibcli.cli.console import Talk
    from calibcli.cli.reading import (
        check_stdin,
        keep_inputs,
        opened,
        talk_about_left_out,
        talk_about_output,
    )
    from calibcli.cli.shared_options import PlainFormat, cluster_keys
    from calibcli.tables import Outputs, check_output

    check_stdin(inputs)
    _check_suffix(converting.output)
    check_output(converting.output, force=converting.force)
    talk = Talk(printing.quiet)
    keys = cluster_keys(converting.cluster)
    with opened(inputs, reading, talk, labels_where_there=True, keys=keys) as dataset:
        keep_inputs([("-o", converting.output)], dataset)
        talk_about_output(dataset, talk)
        with Outputs(force=converting.force) as files:
            rows = _write(dataset, converting.output, files)
        talk_about_left_out(files, talk)
    if converting.output == "-":
        return
    talk.wrote([f"{converting.output} (rows: {rows})"])
    if printing.format is PlainFormat.JSON:
        document = _document(dataset, rows, converting.output)
        sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _check_suffix(output: str) -> None:
    """Refuse a file that can hold nothing but scores.

    Raises
    ------
    UsageError
    """
    if PurePath(output).suffix.lower() == ".npy":
        raise UsageError(
            f"{output}: an .npy file holds one array, and no labels; write .npz or .parquet"
        )


def _write(dataset: Dataset, path: str, files: Outputs) -> int:
    """Write all rows of a data set, and return how many there are."""
    from calibcli.tables import open_writer

    notes, written = _notes(dataset), 0
    rows = max(_CHUNK_BYTES // (dataset.dtype.itemsize * dataset.columns), 1)
    with open_writer(path, dataset, outputs=files, seen=dataset.seen, notes=notes) as writer:
        for chunk in dataset.chunks(rows, with_columns=True):
            writer.write_table(_table(chunk, notes, dataset), chunk.columns)
            written += len(chunk)
    return written


def _notes(dataset: Dataset) -> dict[str, str]:
    """What the file says of itself: the names of its columns by what they are."""
    from calibcli.engine.folds import CLUSTER

    layout = dataset.layout
    notes = {"logits": _NAMES[dataset.kind], "input": dataset.kind}
    if dataset.has_labels:
        notes["labels"] = _LABEL
    if layout.weights is not None:
        notes["weights"] = layout.weights if layout.weights in layout.others else _WEIGHT
    if CLUSTER in layout.keys:
        notes[CLUSTER] = layout.keys[CLUSTER].column
    return notes


def _table(chunk: Chunk, notes: Mapping[str, str], dataset: Dataset) -> dict[str, NumpyArray]:
    """The columns that come before those that ride along."""
    import numpy as np

    table = {notes["logits"]: np.ascontiguousarray(chunk.scores)}
    if chunk.labels is not None:
        table[_LABEL] = chunk.labels
    if chunk.weights is not None and notes["weights"] not in dataset.layout.others:
        table[notes["weights"]] = chunk.weights
    return table


def _document(dataset: Dataset, rows: int, output: str) -> ConvertDocument:
    return {
        "schema_version": 1,
        "command": "convert",
        "input": {
            "name": dataset.name,
            "files": list(dataset.files),
            "kind": dataset.kind,
            "picked": dict(dataset.picked),
        },
        "rows": rows,
        "classes": max(dataset.columns, 2),
        "class_names": list(dataset.class_names) if dataset.class_names else None,
        "output": output,
    }
