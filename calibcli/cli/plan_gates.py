"""``calib gates plan``: how many rows a gate takes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, cast

import typer

from calibcli.cli.shared_options import (
    ComputeOptions,
    InputOptions,
    PlainFormat,
    PlainOutputOptions,
    complete_metrics,
    shared,
)

if TYPE_CHECKING:
    from calibcli.cli.console import Talk
    from calibcli.schema.documents import PlanDocument, PlanPart
    from calibcli.workflow.planning import GatePlan, World

_HELP = """Plan gates: how many rows it takes to tell a good model from a bad one.

calib gates plan draws samples of a model whose true error is known, measures them as calib evaluate
does, and says how many rows each kind of gate needs to be right as often as --power asks. The model
has the probabilities of INPUT, whose labels are not looked at, or ten classes and a mean
confidence of 90 %. More: calib docs ci."""

_EXAMPLES = """[b]Examples[/b]

  calib gates plan --metric ece --limit 0.02 --power 0.9

  calib gates plan sample_data/digits_test.parquet --limit 0.05

  calib gates plan --limit 0.02 --bad 0.05 --format json
"""


class Action(StrEnum):
    """What is done about gates."""

    PLAN = "plan"


@dataclass(frozen=True)
class PlanOptions:
    """What is to be told from what, and how surely."""

    metric: Annotated[
        str,
        typer.Option(
            metavar="NAME", autocompletion=complete_metrics, help="The error that is gated."
        ),
    ] = "ece"
    limit: Annotated[
        float, typer.Option(metavar="ERROR", help="The error that separates good from bad.")
    ] = 0.02
    power: Annotated[
        float, typer.Option(metavar="SHARE", help="How often a gate is to be right.")
    ] = 0.9
    good: Annotated[
        float, typer.Option(metavar="ERROR", help="True error of a model that should pass.")
    ] = 0.0
    bad: Annotated[
        float | None,
        typer.Option(
            metavar="ERROR",
            help="True error of a model that should fail.",
            show_default="twice the limit",
        ),
    ] = None


def register(app: typer.Typer) -> None:
    """Add ``calib gates plan`` to the program."""
    app.command("gates", help=_HELP, epilog=_EXAMPLES)(gates)


@shared(
    PlanOptions,
    InputOptions,
    ComputeOptions,
    PlainOutputOptions,
    basic=("metric", "limit", "power", "good", "bad", "params", "seed", "format"),
)
def gates(
    action: Annotated[Action, typer.Argument(metavar="plan", help="What to do.")],
    planning: PlanOptions,
    reading: InputOptions,
    computing: ComputeOptions,
    printing: PlainOutputOptions,
    input_name: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT",
            help="A file with the probabilities of the model.",
            show_default="a standard model",
        ),
    ] = None,
    params: Annotated[
        str | None,
        typer.Option(
            "--params",
            "-p",
            metavar="FILE",
            help="Calibrate the probabilities of INPUT by this parameter file first.",
        ),
    ] = None,
) -> None:
    """Simulate gates, and print how many rows they take."""
    from calibcli.cli.console import Talk
    from calibcli.errors import UsageError
    from calibcli.workflow.planning import Sampling, plan_gates, standard_world

    assert action is Action.PLAN
    talk = Talk(printing.quiet)
    if input_name is not None:
        world = _read(input_name, params, reading, computing, talk)
    elif params is None:
        world = standard_world()
    else:
        raise UsageError(f"-p {params}: there is no INPUT whose probabilities it could calibrate")
    sampling = Sampling(world, planning.metric, computing.seed)
    plans = plan_gates(
        sampling, planning.limit, planning.power, good=planning.good, bad=planning.bad
    )
    if printing.format is PlainFormat.TABLE:
        _print(world, planning.metric, planning.power, plans)
        return
    document = _document(world, planning, computing.seed, plans)
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _document(
    world: World, planning: PlanOptions, seed: int, plans: Sequence[GatePlan]
) -> PlanDocument:
    return {
        "schema_version": 1,
        "command": "gates",
        "model": {"name": world.name, "confidence": world.confidence},
        "metric": planning.metric,
        "limit": planning.limit,
        "power": planning.power,
        "seed": seed,
        "plans": [cast("PlanPart", asdict(each)) for each in plans],
    }


def _read(
    name: str,
    params: str | None,
    reading: InputOptions,
    computing: ComputeOptions,
    talk: Talk,
) -> World:
    """The probabilities of a file, calibrated if there are parameters for it."""
    from calibcli.cli.reading import (
        check_params_classes,
        check_stdin,
        group_keys,
        opened,
        talk_about,
        talk_about_groups,
    )
    from calibcli.engine.data import open_data
    from calibcli.workflow.planning import world_of
    from calibcli.workflow.records import read_calibrators

    check_stdin([params, name])
    content, stages = (None, ()) if params is None else read_calibrators(params)
    keys, names = group_keys(stages, params)
    with opened(
        [name], reading, talk, labels_required=False, keys=keys, key_names=names
    ) as dataset:
        data = open_data(computing.engine(), dataset)
        talk_about(data, dataset.name, talk)
        talk_about_groups(dataset, names, talk)
        if content is not None and params is not None:
            check_params_classes(content, data.classes, params, dataset)
        model = dataset.name if params is None else f"{dataset.name} calibrated by {params}"
        return world_of(data, model, stages)


def _share(at_limit: float | None) -> str:
    from calibcli.workflow.texts import percent

    return "at most 2.5 %" if at_limit is None else percent(at_limit)


def _print(world: World, metric: str, power: float, plans: Sequence[GatePlan]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from calibcli.report.comparison import metric_title
    from calibcli.visible import visible
    from calibcli.workflow.texts import percent, plural

    console, name = Console(highlight=False), metric_title(metric)
    text = f"{world.name}, mean top-label confidence {percent(world.confidence)}"
    console.print(Text(visible(f"model: {text}")), soft_wrap=True)
    console.print()
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    grid.add_column("gate", no_wrap=True)
    grid.add_column("rows", justify="right", no_wrap=True)
    grid.add_column("with which", overflow="fold")
    for plan in plans:
        verb = f"{plan.goal}es" if plan.goal == "pass" else f"{plan.goal}s"
        text = (
            f"it {verb} {percent(power)} of models whose true {name} is {plan.error:g}, and "
            f"{_share(plan.at_limit)} of those at the limit"
        )
        rows = f"{plan.rows:,}" if plan.simulated else f"{plan.rows:,} (extrapolated)"
        grid.add_row(f"--fail-if '{plan.condition}'", rows, text)
    console.print(grid)
    most = max(plan.rows for plan in plans)
    console.print(
        Text(f"\nSimulated; right to about a tenth. All three at once take {plural(most, 'row')}.")
    )
