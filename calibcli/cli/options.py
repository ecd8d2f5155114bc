"""Options that several commands share, declared once and handed over as one object each."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    from calibcli.engine.engine import Engine
    from calibcli.metrics.panel import Panel
    from calibcli.tables import ReadOptions

Command = TypeVar("Command", bound=Callable[..., Any])


class Format(str, Enum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"
    CSV = "csv"


class ReportFormat(str, Enum):
    """How results that gates judge are printed."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"
    CSV = "csv"
    GITHUB = "github"
    JUNIT = "junit"
    OPENMETRICS = "openmetrics"


class InputChoice(str, Enum):
    """What the score columns hold."""

    AUTO = "auto"
    LOGITS = "logits"
    LOG_PROBS = "log-probs"
    PROBS = "probs"


_INPUT, _COMPUTING, _OUTPUT = "Input", "Computing", "Output"
_MEASURING = "Measuring"

CLUSTER = "cluster"
"""Role of the key column whose groups of rows are resampled as a whole."""

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Parquet, NPZ, NPY or Arrow files, globs, directories or URLs; - is stdin.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class InputOptions:
    """Which columns to read, and how."""

    logits: Annotated[
        str | None,
        typer.Option(
            metavar="COL",
            help="Column or key of the scores, or a pattern of one column a class: 'logit_*'.",
            rich_help_panel=_INPUT,
            show_default="found by its name",
        ),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="COL",
            help="Column or key of the labels, or an NPY file of them.",
            rich_help_panel=_INPUT,
            show_default="found by its name",
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="COL",
            help="Column or key of row weights.",
            rich_help_panel=_INPUT,
            show_default="every row counts 1",
        ),
    ] = None
    input: Annotated[
        InputChoice,
        typer.Option(
            help="What the scores are; auto decides by the name and checks by the values.",
            rich_help_panel=_INPUT,
        ),
    ] = InputChoice.AUTO
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…|FILE",
            help="Class names in the order of the scores, for labels that are names.",
            rich_help_panel=_INPUT,
            show_default="from the file",
        ),
    ] = None
    ignore_label: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL",
            help="Leave out rows with this label, -100 for example.",
            rich_help_panel=_INPUT,
            show_default=False,
        ),
    ] = None

    def read_options(self, *, labels_required: bool, single_pass: bool) -> ReadOptions:
        """As the readers take them."""
        from calibcli.tables import ReadOptions, parse_classes

        return ReadOptions(
            logits=self.logits,
            labels=self.labels,
            weights=self.weights,
            input=self.input.value,
            classes=None if self.classes is None else parse_classes(self.classes),
            ignore_label=self.ignore_label,
            labels_required=labels_required,
            single_pass=single_pass,
        )


@dataclass(frozen=True)
class ComputeOptions:
    """Where and how to compute."""

    device: Annotated[
        str,
        typer.Option(
            metavar="auto|cpu|cuda|cuda:N",
            help="auto takes a GPU when one is there.",
            rich_help_panel=_COMPUTING,
        ),
    ] = "auto"
    threads: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Threads on the CPU; the result does not depend on it.",
            rich_help_panel=_COMPUTING,
            show_default="all cores",
        ),
    ] = 0
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Rows to hold in memory, 2G for example; the result does not depend on it.",
            rich_help_panel=_COMPUTING,
            show_default="half of what is free",
        ),
    ] = None
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=(1 << 63) - 1,
            metavar="N",
            help="Of every random choice.",
            rich_help_panel=_COMPUTING,
        ),
    ] = 0

    def engine(self) -> Engine:
        """The engine that these options ask for."""
        from calibcli.engine.devices import choose_device
        from calibcli.engine.engine import Engine
        from calibcli.engine.memory import parse_memory

        memory = 0 if self.memory is None else parse_memory(self.memory)
        return Engine(choose_device(self.device), self.threads, memory)


@dataclass(frozen=True)
class MeasureOptions:
    """What to measure."""

    metrics: Annotated[
        str,
        typer.Option(
            metavar="NAME[,NAME]|all",
            help="See calib metrics; default and all are sets of them.",
            rich_help_panel=_MEASURING,
        ),
    ] = "default"
    bootstrap: Annotated[
        int,
        typer.Option(
            min=0,
            max=100_000,
            metavar="N",
            help="Replicates behind the 95 % intervals; 0: no intervals.",
            rich_help_panel=_MEASURING,
        ),
    ] = 200
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="COL",
            help="Resample documents, patients, … as a whole; a column that names them.",
            rich_help_panel=_MEASURING,
            show_default="rows",
        ),
    ] = None

    def panel(self, seed: int) -> Panel:
        """The metrics that these options ask for, with intervals."""
        from calibcli.metrics.panel import Panel
        from calibcli.metrics.resampling import Bootstrap

        role = None if self.cluster is None else CLUSTER
        names = [name.strip() for name in self.metrics.split(",")]
        return Panel(names, bootstrap=Bootstrap(self.bootstrap, seed, role))

    @property
    def keys(self) -> dict[str, str]:
        """The key columns that they need, by role."""
        return {} if self.cluster is None else {CLUSTER: self.cluster}


_Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Say nothing on stderr but errors.", rich_help_panel=_OUTPUT
    ),
]


@dataclass(frozen=True)
class ReportOptions:
    """How to print what gates judge."""

    format: Annotated[
        ReportFormat, typer.Option(help="Of what goes to stdout.", rich_help_panel=_OUTPUT)
    ] = ReportFormat.TABLE
    quiet: _Quiet = False


@dataclass(frozen=True)
class OutputOptions:
    """How to print."""

    format: Annotated[
        Format, typer.Option(help="Of what goes to stdout.", rich_help_panel=_OUTPUT)
    ] = Format.TABLE
    quiet: _Quiet = False


Force = Annotated[
    bool,
    typer.Option("--force", help="Overwrite files that exist.", rich_help_panel=_OUTPUT),
]


def shared(*groups: type[Any]) -> Callable[[Command], Command]:
    """Give a command the options of these dataclasses; it takes an object of each, by its name.

    A parameter ``data: InputOptions`` of the command is filled from the flags that the fields of
    `InputOptions` declare. Flags of a dataclass that it has no parameter for are taken, and left
    at that.
    """

    def decorate(command: Command) -> Command:
        hints = get_type_hints(command, include_extras=True)
        own = list(inspect.signature(command).parameters.values())
        taken = {p.name: hints[p.name] for p in own if hints[p.name] in groups}
        parameters = [
            p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY)
            for p in own
            if p.name not in taken
        ]
        for group in groups:
            parameters.extend(_flags(group))

        @functools.wraps(command)
        def wrapper(**values: Any) -> Any:
            for group in groups:
                given = group(**{entry.name: values.pop(entry.name) for entry in fields(group)})
                values.update((name, given) for name, kind in taken.items() if kind is group)
            return command(**values)

        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        del wrapper.__wrapped__
        return wrapper  # type: ignore[return-value]

    return decorate


def _flags(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            entry.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if entry.default is MISSING else entry.default,
            annotation=hints[entry.name],
        )
        for entry in fields(group)
    ]
