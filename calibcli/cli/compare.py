"""``calib compare``: methods and losses side by side on held-out rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from calibcli.cli.shared_options import (
    CLUSTER_HELP,
    ComputeOptions,
    InputOptions,
    Inputs,
    OutputOptions,
    PositiveFlag,
    PreferOption,
    Settings,
    ViewFlag,
    ViewOption,
    cluster_keys,
    complete_losses,
    complete_methods,
    shared,
)

if TYPE_CHECKING:
    from calibcli.engine.data import Data
    from calibcli.schema.documents import CompareDocument
    from calibcli.tables.dataset import Dataset
    from calibcli.workflow.choosing import Leaderboard, Preference
    from calibcli.workflow.plans import Plan

_HELP = """Rank methods by their loss on held-out rows, and say which one to take.

Writes no file. Without --methods the candidates are those of -m auto: what suits the number of \
classes and of rows.

More: calib docs choosing."""

_EXAMPLES = """[b]Examples[/b]

  calib compare sample_data/digits_val.parquet

  calib compare sample_data/digits_val.parquet --methods none,svs,sms

  calib compare sample_data/digits_val.parquet --methods temperature --losses nll,brier
"""


@dataclass(frozen=True)
class CompareOptions:
    """What to compare."""

    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            autocompletion=complete_methods,
            help="See calib methods; stages of one method are joined with +.",
            show_default="those of auto",
        ),
    ] = None
    losses: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            autocompletion=complete_losses,
            help="Each with every method; see calib losses.",
        ),
    ] = "nll"
    settings: Settings = None
    stack: Annotated[
        bool, typer.Option("--stack", help="Add a mixture of all that are compared.")
    ] = False
    prefer: Annotated[
        PreferOption,
        typer.Option(
            help="What is taken of several methods: the least expected loss, or the simplest "
            "within a standard error of the best."
        ),
    ] = PreferOption.ACCURATE
    folds: Annotated[
        int, typer.Option(min=2, max=1000, metavar="N", help="Folds of the cross-validation.")
    ] = 5
    cluster: Annotated[
        str | None, typer.Option(metavar="COL", help=CLUSTER_HELP, show_default="rows")
    ] = None
    view: ViewFlag = ViewOption.AUTO
    positive: PositiveFlag = None


def register(app: typer.Typer) -> None:
    """Add ``calib compare`` to the program."""
    app.command("compare", help=_HELP, epilog=_EXAMPLES)(compare_command)


@shared(
    CompareOptions,
    InputOptions,
    ComputeOptions,
    OutputOptions,
    basic=(
        "methods",
        "losses",
        "settings",
        "stack",
        "folds",
        "logits",
        "labels",
        "seed",
        "format",
        "quiet",
    ),
)
def compare_command(
    inputs: Inputs,
    comparing: CompareOptions,
    reading: InputOptions,
    computing: ComputeOptions,
    printing: OutputOptions,
) -> None:
    """Fit methods by cross-validation, rank them by held-out loss, and print the list."""
    from calibcli.calibrators.base import GROUP
    from calibcli.cli.console import Talk, show
    from calibcli.cli.reading import check_parts, opened, talk_about, talk_about_clusters
    from calibcli.engine.data import open_data
    from calibcli.metrics.panel import Panel
    from calibcli.metrics.registry import LEADERBOARD_METRICS
    from calibcli.metrics.resampling import Bootstrap
    from calibcli.metrics.view import choose_event
    from calibcli.tables.read_options import LABEL_NAME
    from calibcli.workflow.automatic import compare_plans
    from calibcli.workflow.trying import ComparisonInterrupted

    check_parts(inputs, reading)
    chosen, keys = _plans(comparing), cluster_keys(comparing.cluster)
    if reading.multi_label:
        keys |= {GROUP: LABEL_NAME}
    talk = Talk(printing.quiet)
    engine = computing.engine()
    with (
        opened(inputs, reading, talk, keys=keys, with_columns=False) as dataset,
        talk.progress(engine, "comparing", dataset.rows) as watched,
    ):
        data = open_data(watched, dataset, comparing.folds, computing.seed)
        talk_about(data, dataset.name, talk)
        talk_about_clusters(data, dataset, talk)
        plans = _automatic(comparing, data) if chosen is None else chosen
        if reading.multi_label:
            plans = [replace(plan, by=LABEL_NAME, pooled=False) for plan in plans]
        names, view = dataset.class_names, comparing.view
        event = choose_event(view.value, comparing.positive, data.classes, names)
        bootstrap = Bootstrap(seed=computing.seed)
        panel = Panel(LEADERBOARD_METRICS, bootstrap=bootstrap, event=event)
        prefer: Preference = comparing.prefer.value
        try:
            board = compare_plans(
                data, plans, panel, stacked=comparing.stack, prefer=prefer, watch=talk.tried
            )
        except ComparisonInterrupted as interrupt:
            show(board_document(interrupt.board, dataset, data), printing)
            raise
        document = board_document(board, dataset, data)
    show(document, printing)


def board_document(board: Leaderboard, dataset: Dataset, data: Data) -> CompareDocument:
    """A leaderboard as a document."""
    from calibcli.cli.reading import describe
    from calibcli.report.document import compare_document

    return compare_document(
        board,
        source=describe(dataset, data),
        rows=data.rows,
        classes=data.classes,
        folds=data.folds,
        class_names=dataset.class_names,
    )


def _plans(options: CompareOptions) -> list[Plan] | None:
    """Every method with every loss; None where the data is to decide."""
    from calibcli.workflow.plans import make_plans

    losses = _names(options.losses)
    if options.methods is None:
        return None
    methods = [name.replace("+", ",") for name in _names(options.methods)]
    return make_plans(methods, losses, options.settings or ())


def _automatic(options: CompareOptions, data: Data) -> list[Plan]:
    from calibcli.workflow.candidates import candidates
    from calibcli.workflow.plans import make_plans

    methods = candidates(data.classes, data.weight)
    return make_plans(methods, _names(options.losses), options.settings or ())


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",")))
