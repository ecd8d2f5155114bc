"""``calib export``: a fitted calibrator as a program for another place."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from calibcli.cli.option_values import Trait
from calibcli.cli.shared_options import Force, PlainOutputOptions, shared
from calibcli.errors import ParamsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibcli.params import Params
    from calibcli.schema.documents import ExportDocument

_HELP = """Write a fitted calibrator as a program that runs without calib.

The name's end says what: .onnx, .pt2 (torch), .py (NumPy), .mjs (JavaScript), .c (with a .h) or \
.sql (with --dialect). It takes the scores of a row as PARAMS was fitted on and gives the \
probabilities, the same as calib apply but for rounding.

More: calib docs deploying."""

_EXAMPLES = """[b]Examples[/b]

  calib fit sample_data/digits_val.parquet -p digits.json --quiet

  calib export digits.json -o digits.c --vectors

  calib export digits.json -o digits.sql --dialect duckdb
"""


def register(app: typer.Typer) -> None:
    """Add ``calib export`` to the program."""
    app.command("export", help=_HELP, epilog=_EXAMPLES)(export_command)


@dataclass(frozen=True)
class ExportOptions:
    """What to write, and where."""

    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=".onnx, .pt2, .py, .mjs, .c or .sql; - writes to stdout, with --to.",
            show_default=False,
        ),
        Trait.WRITES_FILE,
    ]
    to: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="onnx, torch, python, javascript, c or sql.",
            show_default="by the name of the file",
        ),
    ] = None
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="float32 or float64, of onnx and torch.",
            show_default="float32 for these, else float64",
        ),
    ] = None
    append_to: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL.onnx",
            help="Put the calibrator at the end of this classifier, and write both as one model.",
            show_default="the calibrator alone",
        ),
    ] = None
    model_output: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Which output of the model has the scores.",
            show_default="the only one that can",
        ),
    ] = None
    dialect: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of SQL: duckdb, postgres, spark or bigquery.",
            show_default=False,
        ),
    ] = None
    table: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE",
            help="Of SQL: the table of the scores, or schema.table.",
            show_default="scores",
        ),
    ] = None
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="COL,…",
            help="Of SQL: columns of the scores, one a class; of two classes also that of class 1.",
            show_default="an array",
        ),
    ] = None
    array: Annotated[
        str | None,
        typer.Option(
            metavar="COL",
            help="Of SQL: the column of an array of the scores.",
            show_default="logits, log_probs or probs",
        ),
    ] = None
    vectors: Annotated[
        bool,
        typer.Option(
            "--vectors",
            help="Write rows to test with, and what must come out, to FILE.vectors.npz and .json.",
        ),
    ] = False
    force: Force = False


@shared(ExportOptions, PlainOutputOptions)
def export_command(
    params: Annotated[
        str, typer.Argument(metavar="PARAMS", help="Parameter file.", show_default=False)
    ],
    exporting: ExportOptions,
    printing: PlainOutputOptions,
) -> None:
    """Write a calibrator as a program."""
    from calibcli.cli.console import Talk
    from calibcli.export.exporting import ExportRequest, exported
    from calibcli.export.sql_query import make_query
    from calibcli.tables import Outputs
    from calibcli.tables.atomic import check_writable
    from calibcli.workflow.records import read_calibrators

    output = exporting.output
    if output == "-" and exporting.vectors:
        raise UsageError("--vectors are files beside the output; give it a name")
    check_writable(output, force=exporting.force)
    content, stages = read_calibrators(params)
    columns = (
        None
        if exporting.columns is None
        else [name.strip() for name in exporting.columns.split(",")]
    )
    request = ExportRequest(
        output,
        exporting.to,
        exporting.precision,
        exporting.vectors,
        exporting.append_to,
        exporting.model_output,
        make_query(exporting.dialect, exporting.table, columns, exporting.array),
    )
    try:
        files = exported(content, stages, request)
    except ParamsError as error:
        raise ParamsError(f"{params}: {error}") from None
    files = files[:1] if output == "-" else files
    with Outputs(force=exporting.force) as outputs:
        for name, data in files:
            outputs.open(name).write(data)
    if output == "-":
        return
    names = [name for name, _ in files]
    Talk(printing.quiet).wrote(names)
    if printing.format.value == "json":
        sys.stdout.write(json.dumps(_document(params, content, names), indent=2) + "\n")


def _document(params: str, content: Params, names: Sequence[str]) -> ExportDocument:
    return {
        "schema_version": 1,
        "command": "export",
        "params": params,
        "input": content.input,
        "classes": content.classes,
        "class_names": content.class_names,
        "stages": [stage.kind for stage in content.stages],
        "outputs": names,
    }
