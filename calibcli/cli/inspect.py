"""``calib inspect``: what `calib` sees in a file."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from calibcli.cli.shared_options import (
    ComputeOptions,
    FormatOption,
    InputOptions,
    PlainFormat,
    shared,
)
from calibcli.errors import CalibError
from calibcli.visible import visible

if TYPE_CHECKING:
    from calibcli.calibrators.groups import Groups
    from calibcli.engine.data import Data
    from calibcli.schema.documents import (
        DataDocument,
        FieldPart,
        ParametersDocument,
        UnreadDocument,
    )
    from calibcli.schema.parts import CandidatePart
    from calibcli.tables.dataset import Dataset
    from calibcli.tables.describing import FieldSummary

_HELP = """Say what calib sees in a data file or a parameter file.

Of a data file: every field with its type and some of its values, what would be taken as scores \
and labels and why, or why nothing is, and the commands to type next.

More: calib docs inputs, calib docs params."""

_EXAMPLES = """[b]Examples[/b]

  calib inspect sample_data/digits_val.parquet

  calib inspect sample_data/digits_longtail_val.npz --format json

  calib inspect sample_data/digits_test.parquet
"""


_HEAD_BYTES = 1 << 16
_MOST_FIELDS = 200
_SHOWN_BYTES, _SHOWN_NAMES = 32, 12
_USUAL = (("files", 1), ("more_fields", 0))
"""Values that say nothing to a person."""

_ASKED = ("schema_version", "command", "file", "refused", "commands")
"""Keys of a document that say nothing new to a person, or stand below the others."""


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
    return is_stages or (start.lstrip()[:1] == b"{" and b'"calib-params"' in start)


def _params(file: str) -> ParametersDocument:
    from calibcli.calibrators.chain import preserved_by
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
        "reading": params.reading,
        "stages": [f"{stage.kind}: {stage.summary()}" for stage in stages],
        "preserves": preserved_by(stages),
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


def _data(
    file: str, reading: InputOptions, computing: ComputeOptions
) -> DataDocument | UnreadDocument:
    """What a data file holds, what would be taken of it, and which commands read it."""
    from calibcli.cli.ways import ways_to_read
    from calibcli.tables.describing import describe_field
    from calibcli.tables.opening import open_files
    from calibcli.tables.storage import Spool

    options = reading.read_options(labels_required=True, single_pass=False)
    spool = Spool(options.spool_limit)
    try:
        try:
            files = open_files([file], options, spool)
        except CalibError as error:
            return _unread(file, error)
        ways = ways_to_read(file, files, reading, spool, computing.engine())
        fields = files[0].fields[:_MOST_FIELDS]
        document: DataDocument = {
            "schema_version": 1,
            "command": "inspect",
            "file": file,
            "kind": "data",
            "format": files[0].format,
            "files": len(files),
            "fields": [_field_part(describe_field(files[0], field)) for field in fields],
            "more_fields": len(files[0].fields) - len(fields),
            "refused": ways.refusal,
            "commands": list(ways.commands),
        }
        dataset, data = ways.dataset, ways.data
        if dataset is not None:
            document |= {
                "rows": dataset.rows,
                "classes": max(dataset.columns, 2),
                "class_names": list(dataset.class_names) if dataset.class_names else None,
                "picked": dict(dataset.picked),
                "stored_as": str(dataset.dtype),
                "other_columns": list(dataset.other_columns),
            }
        if dataset is not None and data is not None:
            document["impossible_classes"] = data.impossible
            document["zero_probabilities"] = data.survey.zeros
            _add_labels(document, dataset, data)
        return document
    finally:
        spool.close()


def _unread(file: str, error: CalibError) -> UnreadDocument:
    """What can be said of a file that no reader reads.

    Raises
    ------
    CalibError
        There is no such file, or it cannot be opened.
    """
    path = Path(file)
    if path.is_dir():
        names = sorted(each.name for each in path.iterdir())
        begin = ", ".join([*names[:_SHOWN_NAMES], *["…"][: len(names) > _SHOWN_NAMES]])
        size = sum(each.stat().st_size for each in path.iterdir() if each.is_file())
    elif path.is_file():
        with path.open("rb") as stream:
            begin = repr(stream.read(_SHOWN_BYTES))[2:-1]
        size = path.stat().st_size
    else:
        raise error
    return {
        "schema_version": 1,
        "command": "inspect",
        "file": file,
        "kind": "unknown",
        "bytes": size,
        "begins_with": begin,
        "refused": str(error),
    }


def _field_part(summary: FieldSummary) -> FieldPart:
    field = summary.field
    return {
        "name": field.name,
        "type": field.type,
        "rows": None if field.rows < 0 else field.rows,
        "looked_at": summary.looked_at,
        "least": summary.least,
        "largest": summary.largest,
        "row_sums": summary.row_sums,
        "missing": summary.missing,
        "odd": list(summary.odd),
        "values": list(summary.values),
        "problem": summary.problem,
    }


def _field_line(part: FieldPart) -> str:
    """A field in a line."""
    facts = []
    if part["least"] is not None and part["largest"] is not None:
        facts.append(f"from {part['least']:.6g} to {part['largest']:.6g}")
    if part["row_sums"] is not None:
        facts.append("rows sum to {:.6g} … {:.6g}".format(*part["row_sums"]))
    if part["values"]:
        facts.append(", ".join(part["values"]))
    facts += [f"has {odd}" for odd in part["odd"]]
    if part["missing"]:
        facts.append(f"{part['missing']} of {part['looked_at']} missing")
    if part["problem"] is not None:
        facts.append(part["problem"])
    rows = "" if part["rows"] is None else f", {part['rows']} row{'' if part['rows'] == 1 else 's'}"
    return f"{part['name']}  {part['type']}{rows}: {'; '.join(facts) or 'no values'}"


def _add_labels(document: DataDocument, dataset: Dataset, data: Data) -> None:
    if not data.source.has_labels:
        document["labels"] = "none"
        return
    counts = data.survey.class_rows
    names = dataset.class_names or tuple(map(str, range(len(counts))))
    smallest, largest = int(counts.argmin()), int(counts.argmax())
    document["rows_of_largest_class"] = {names[largest]: int(counts[largest])}
    document["rows_of_smallest_class"] = {names[smallest]: int(counts[smallest])}
    document["absent_classes"] = [names[k] for k in range(len(counts)) if counts[k] == 0]


def _print(document: ParametersDocument | DataDocument | UnreadDocument) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    fit = document["fit"] if document["kind"] == "parameters" else None
    candidates: list[CandidatePart] = []
    if fit and fit.get("leaderboard"):
        from calibcli.report.document import recorded_candidates
        from calibcli.report.render_terminal import print_methods

        candidates = recorded_candidates(fit)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for key, value in document.items():
        if key in _ASKED or value in (None, [], {}) or (key, value) in _USUAL:
            continue
        lines = _lines(value)
        if key == "fields":
            lines = [_field_line(part) for part in cast("DataDocument", document)["fields"]]
        if key == "fit" and fit and candidates:
            lines = _lines({name: each for name, each in fit.items() if name != "leaderboard"})
        grid.add_row(key.replace("_", " "), Text("\n".join(map(visible, lines))))
    console = Console(highlight=False)
    console.print(grid)
    if candidates:
        console.print()
        print_methods(candidates, console)
    # Whole lines, to be copied.
    if document["kind"] != "parameters" and document["refused"] is not None:
        sys.stdout.write(f"\nrefused  {visible(document['refused'])}\n")
    if document["kind"] == "data" and document["commands"]:
        commands = "".join(f"  {visible(each)}\n" for each in document["commands"])
        sys.stdout.write(f"\nnext\n{commands}")


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        shown = {k: v for k, v in value.items() if v not in (None, [], {})}
        return [f"{key}: {_joined(_lines(item))}" for key, item in shown.items()]
    if isinstance(value, list):
        return [line for item in value for line in _lines(item)]
    return [f"{value:.6g}" if isinstance(value, float) else str(value)]


def _joined(lines: list[str]) -> str:
    """On one line, by semicolons where there are commas within."""
    return ("; " if any(", " in line for line in lines) else ", ").join(lines)
