"""``calib apply``: run logits through a fitted calibrator."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from calibcli.cli.keeping import checked_kept, columns_kept
from calibcli.cli.option_values import Trait
from calibcli.cli.shared_options import (
    ComputeOptions,
    Force,
    InputOptions,
    Inputs,
    Keep,
    PlainFormat,
    PlainOutputOptions,
    shared,
)
from calibcli.errors import ParamsError, UsageError

if TYPE_CHECKING:
    from calibcli.engine.kept_columns import Kept
    from calibcli.params import Params
    from calibcli.schema.documents import ApplyDocument
    from calibcli.tables.dataset import Dataset
    from calibcli.workflow.pricing import Decider

_HELP = """Write calibrated probabilities of every row, in the order of the rows.

Needs no labels. The output has probs, prediction, confidence, the label if it was there, and \
every other column of the input. After venn-abers it also has confidence_lower and \
confidence_upper, with --threshold or --cost a decision; --keep writes less of each row.

More: calib docs inputs, calib docs params, calib docs decisions."""

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
            help=".parquet, .npz, .npy or .arrow; NAME/ is a folder of Parquet files, which "
            "--workers write; stdout (-) gets an Arrow stream.",
            show_default=False,
        ),
        Trait.WRITES_FILE,
    ]
    keep: Keep = None
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

    def kept(self) -> Kept | None:
        """What is kept of the probabilities; the output is one that can be written.

        Raises
        ------
        UsageError
        """
        from calibcli.tables import check_output

        check_output(self.output, force=self.force, in_parts=True)
        return checked_kept(self.keep, self.output)

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
        "keep",
        "force",
        "logits",
        "input",
        "threshold",
        "cost",
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
    from calibcli.tables import Outputs, is_folder
    from calibcli.workflow.calibrated_outputs import write_calibrated
    from calibcli.workflow.records import read_calibrators

    output = applying.output
    check_stdin([params, *inputs])
    kept = applying.kept()
    content, stages = read_calibrators(params)
    keys, names = group_keys(stages, params, applying.by)
    talk, like = Talk(printing.quiet), reading_of(content, params)
    once = {"labels_required": False, "single_pass": not is_folder(output)}
    with (
        opened(inputs, reading, talk, keys=keys, key_names=names, like=like, **once) as dataset,
        talk.progress(computing.engine_for(output, talk), "applying", dataset.rows) as engine,
    ):
        keep_inputs([("-o", output)], dataset)
        check_params_classes(content, max(dataset.columns, 2), params, dataset)
        talk_about_output(dataset, talk)
        decider = applying.decider(content, params, dataset.class_names)
        columns = columns_kept(kept, output, dataset, decider)
        with Outputs(force=applying.force) as files:
            rows = write_calibrated(engine, dataset, stages, output, files, content.data, columns)
        talk_about_groups(dataset, names, talk)
        talk_about_left_out(files, talk)
    if output != "-":
        talk.wrote([f"{output} (rows: {rows})"])
        if printing.format is PlainFormat.JSON:
            sys.stdout.write(_document(dataset, rows, content, params, output, decider))


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
