"""``calib inspect``: what `calib` sees in a file."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calibcli.cli.shared_options import (
    ComputeOptions,
    FormatOption,
    InputOptions,
    PlainFormat,
    shared,
)
from calibcli.visible import visible

if TYPE_CHECKING:
    from calibcli.calibrators.groups import Groups
    from calibcli.engine.data import Data
    from calibcli.schema import DataDocument, ParametersDocument
    from calibcli.tables.dataset import Dataset

_HELP = """Say what calib sees in a data file or a parameter file.

More: calib docs inputs, calib docs params."""

_EXAMPLES = """[b]Examples[/b]

  calib inspect sample_data/digits_val.parquet

  calib inspect sample_data/digits_longtail_val.npz --format json

  calib inspect sample_data/digits_test.parquet
"""


_HEAD_BYTES = 1 << 16
_ASKED = ("schema_version", "command", "file")
"""Keys of a document that say nothing new to a person."""


def register(app: typer.Typer) -> None:
    """Add ``calib inspect`` to the program."""
    app.command("inspect", help=_HELP, epilog=_EXAMPLES)(inspect_command)


@shared(InputOptions, ComputeOptions)
def inspect_command(
    file: Annotated[str, typer.Argument(metavar="FILE", show_default=False, help="Any file.")],
    reading: InputOptions,
    computing: ComputeOptions,
    format: FormatOption = PlainFormat.TABLE,
) -> None:
    """Look at a file, and print what is in it."""
    document = _params(file) if _is_params(file) else _data(file, reading, computing)
    if format is PlainFormat.JSON:
        sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")
        return
    _print(document)


def _is_params(file: str) -> bool:
    start = b""
    if file == "-":
        if isinstance(sys.stdin.buffer, io.BufferedReader):
            start = sys.stdin.buffer.peek(9)
    elif Path(file).is_file():
        with Path(file).open("rb") as stream:
            start = stream.read(_HEAD_BYTES)
    is_stages = start[8:9] == b"{" and (file == "-" or b'"calib":' in start)
    return is_stages or (start.lstrip()[:1] == b"{" and not _is_row(start))


def _is_row(start: bytes) -> bool:
    """Whether a file in JSON that begins like this has an object a line, which are rows."""
    line, end, _ = start.lstrip().partition(b"\n")
    try:
        return bool(end) and "stages" not in json.loads(line)
    except (ValueError, RecursionError):
        return not end and b'"calib-params"' not in line


def _params(file: str) -> ParametersDocument:
    from calibcli.calibrators.groups import groups_in
    from calibcli.workflow.records import read_calibrators

    params, stages = read_calibrators(file)
    groups = groups_in(stages)
    return {
        "schema_version": 1,
        "command": "inspect",
        "file": file,
        "kind": "parameters",
        "classes": params.classes,
        "class_names": list(params.class_names) if params.class_names else None,
        "fitted_on": params.input,
        "stages": [f"{stage.kind}: {stage.summary()}" for stage in stages],
        "maps": None if groups is None else _maps(groups),
        "fit": params.fit,
        "metrics": params.metrics,
        "data": params.data,
        "software": params.software,
    }


def _maps(groups: Groups) -> dict[str, str]:
    """What was learnt of all rows, and of each group that has a map of its own."""
    everywhere = " + ".join(stage.summary() for stage in groups.pooled)
    shares = zip(groups.learnt().items(), groups.weights.tolist(), strict=True)
    by_group = {
        f"{groups.column} {name}": f"{learnt}, with a share of {share:.0%}"
        for (name, learnt), share in shares
        if learnt and share > 0
    }
    return {"all rows": everywhere, **by_group}


def _data(file: str, reading: InputOptions, computing: ComputeOptions) -> DataDocument:
    from calibcli.cli.console import Talk
    from calibcli.cli.reading import opened
    from calibcli.engine.data import open_data

    with opened([file], reading, Talk(quiet=True), labels_required=False) as dataset:
        data = open_data(computing.engine(), dataset)
        document: DataDocument = {
            "schema_version": 1,
            "command": "inspect",
            "file": file,
            "kind": "data",
            "format": dataset.format,
            "rows": data.rows,
            "classes": data.classes,
            "class_names": list(dataset.class_names) if dataset.class_names else None,
            "picked": dict(dataset.picked),
            "stored_as": str(dataset.dtype),
            "other_columns": list(dataset.other_columns),
            "impossible_classes": data.impossible,
            "zero_probabilities": data.survey.zeros,
        }
        _add_labels(document, dataset, data)
        return document


def _add_labels(document: DataDocument, dataset: Dataset, data: Data) -> None:
    if not dataset.has_labels:
        document["labels"] = "none"
        return
    counts = data.survey.class_rows
    names = dataset.class_names or tuple(map(str, range(len(counts))))
    smallest, largest = int(counts.argmin()), int(counts.argmax())
    document["rows_of_largest_class"] = {names[largest]: int(counts[largest])}
    document["rows_of_smallest_class"] = {names[smallest]: int(counts[smallest])}
    document["absent_classes"] = [names[k] for k in range(len(counts)) if counts[k] == 0]


def _print(document: ParametersDocument | DataDocument) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for key, value in document.items():
        if key in _ASKED or value in (None, [], {}):
            continue
        grid.add_row(key.replace("_", " "), Text("\n".join(map(visible, _lines(value)))))
    Console(highlight=False).print(grid)


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        shown = {k: v for k, v in value.items() if v not in (None, [], {})}
        return [f"{key}: {', '.join(_lines(item))}" for key, item in shown.items()]
    if isinstance(value, list):
        return [line for item in value for line in _lines(item)]
    return [f"{value:.6g}" if isinstance(value, float) else str(value)]
