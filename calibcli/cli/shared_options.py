"""Options that several commands share, declared once and handed over as one object each."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from calibcli.cached import cached_property
from calibcli.cli.option_values import Trait

if TYPE_CHECKING:
    from calibcli.cli.console import Talk
    from calibcli.engine.data import Data
    from calibcli.engine.engine import Engine
    from calibcli.metrics.panel import Panel
    from calibcli.schema.documents import EvaluateDocument
    from calibcli.tables import ReadOptions
    from calibcli.tables.read_options import Reading
    from calibcli.workflow.measuring import Predictor
    from calibcli.workflow.pricing import GivenCosts

Command = TypeVar("Command", bound=Callable[..., Any])


class PlainFormat(StrEnum):
    """How anything but a report is printed."""

    TABLE = "table"
    JSON = "json"


class Format(StrEnum):
    """How a report is printed."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"
    CSV = "csv"
    LATEX = "latex"


class ReportFormat(StrEnum):
    """How a report that gates judge is printed."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"
    CSV = "csv"
    LATEX = "latex"
    GITHUB = "github"
    JUNIT = "junit"
    OPENMETRICS = "openmetrics"


class InputChoice(StrEnum):
    """What the score columns hold."""

    AUTO = "auto"
    LOGITS = "logits"
    LOG_PROBS = "log-probs"
    PROBS = "probs"
    PERCENT = "percent"


class RestChoice(StrEnum):
    """What a class has that is not listed."""

    SHARE = "share"
    FLOOR = "floor"


class SpacesChoice(StrEnum):
    """Whether spaces around a token are left out."""

    STRIP = "strip"
    KEEP = "keep"


class MembersChoice(StrEnum):
    """What the members of an ensemble become."""

    MEAN_PROBS = "mean-probs"
    MEAN_LOGITS = "mean-logits"
    EACH = "each"


class PreferOption(StrEnum):
    """What is taken of several methods."""

    ACCURATE = "accurate"
    SIMPLE = "simple"


class Unlabelled(StrEnum):
    """What becomes of rows without a label."""

    REFUSE = "refuse"
    SKIP = "skip"


def options_in(panel: str) -> Callable[..., Any]:
    """`typer.Option` for options that the help shows together, under a heading."""
    return functools.partial(typer.Option, rich_help_panel=panel)


def complete_keep(incomplete: str) -> list[str]:
    """Completion of what ``--keep`` can name, with commas between them."""
    *before, last = re.split(r"(?<=,)", incomplete)
    words = ("top:", "confidence", "label")
    return ["".join([*before, each]) for each in words if each.startswith(last)]


def complete_from(names: str) -> Callable[[str], list[str]]:
    """Completion of names with commas between them, from a registry ``"module:NAME"``."""

    def complete(incomplete: str) -> list[str]:
        from pkgutil import resolve_name

        *before, last = re.split(r"(?<=[,+])", incomplete)
        names_known = sorted(resolve_name(names))
        return ["".join([*before, each]) for each in names_known if each.startswith(last)]

    return complete


complete_methods = complete_from("calibcli.calibrators.registry:MAPS")
complete_losses = complete_from("calibcli.objectives.registry:OBJECTIVES")
complete_metrics = complete_from("calibcli.metrics.registry:METRICS")

_input, _measuring = options_in("Input"), options_in("Measuring")
_computing, _output = options_in("Computing"), options_in("Output")

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Files (Parquet, NPZ, Arrow, CSV, JSON, …), globs, directories or URLs; - is stdin.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class InputOptions:
    """Which columns to read, and how."""

    logits: Annotated[
        str | None,
        _input(
            metavar="COL",
            help="Column or key of the scores, or one column a class: 'logit_*', or cat,dog,fish.",
            show_default="found by its name",
        ),
    ] = None
    labels: Annotated[
        str | None,
        _input(
            metavar="COL",
            help="Column or key of the labels, an NPY file of them, or a folder with one for each "
            "input.",
            show_default="found by its name",
        ),
    ] = None
    weights: Annotated[
        str | None,
        _input(
            metavar="COL",
            help="Column or key of row weights: how much each row matters, not how often it was "
            "seen.",
            show_default="every row counts 1",
        ),
    ] = None
    counts: Annotated[
        str | None,
        _input(
            metavar="COL",
            help="Column or key of counts: a row of count 3 stands for three rows.",
            show_default="every row is one",
        ),
    ] = None
    input: Annotated[
        InputChoice,
        _input(help="What the scores are; auto decides by the name and checks by the values."),
    ] = InputChoice.AUTO
    renormalise: Annotated[
        bool,
        _input(
            "--renormalise",
            help="Divide each row of probabilities by its sum, off by rounding or averaging.",
        ),
    ] = False
    classes: Annotated[
        str | None,
        _input(
            metavar="A,B,…|FILE",
            help="Class names in the order of the scores, for labels that are names.",
            show_default="from the file",
        ),
    ] = None
    num_classes: Annotated[
        int | None,
        _input(
            metavar="N",
            help="Classes, where rows have fewer scores; those without one are impossible.",
            show_default="from the file",
        ),
    ] = None
    ignore_label: Annotated[
        list[str] | None,
        _input(
            metavar="LABEL",
            help="Leave out rows with this label, -100 for example; repeatable.",
            show_default=False,
        ),
        Trait.MAY_BE_EMPTY,
    ] = None
    multi_label: Annotated[
        bool,
        _input(
            "--multi-label",
            help="Any number of labels may be right in a row: each is two classes by itself.",
        ),
    ] = False
    class_axis: Annotated[
        str | None,
        _input(
            metavar="N|none",
            help="Axis of the classes in scores of pixels or tokens, from 0; none: each has one "
            "score, that of class 1.",
            show_default="the one that the labels lack",
        ),
    ] = None
    topk_rest: Annotated[
        RestChoice | None,
        _input(
            help="What a class has that is not among the most probable tokens of a row.",
            show_default=RestChoice.SHARE.value,
        ),
    ] = None
    topk_spaces: Annotated[
        SpacesChoice | None,
        _input(
            help="Whether a token with spaces around the name of a class is this class.",
            show_default="strip, if no token is a class without",
        ),
    ] = None
    members: Annotated[
        MembersChoice | None,
        _input(
            help="What the members of an ensemble become: one model, or rows of their own.",
            show_default=False,
        ),
    ] = None
    member_axis: Annotated[
        int | None,
        _input(
            metavar="N",
            help="Axis of the members in an array of scores, from 0.",
            show_default="the one before the classes that the labels lack",
        ),
    ] = None
    sample: Annotated[
        int | None,
        _input(
            min=1,
            metavar="N",
            help="Read N pixels of each image, chosen at random, the same ones every time.",
            show_default="all",
        ),
    ] = None
    unlabelled: Annotated[
        Unlabelled,
        _input(help="What becomes of rows without a label: null or NaN."),
    ] = Unlabelled.REFUSE
    spool_limit: Annotated[
        str | None,
        _input(
            metavar="SIZE",
            help="Bytes that standard input, a remote file, an array or a page may grow to.",
            show_default="16G; an array or page 1G or 100 times its size in the file",
        ),
    ] = None

    def read_options(self, *, labels_required: bool, single_pass: bool) -> ReadOptions:
        """The same options as the readers take them."""
        from calibcli.engine.machine import parse_size
        from calibcli.tables import ReadOptions, parse_class_axis, parse_classes

        limit = self.spool_limit
        return ReadOptions(
            logits=self.logits,
            labels=self.labels,
            weights=self.weights,
            counts=self.counts,
            input=self.input.value,
            renormalise=self.renormalise,
            classes=None if self.classes is None else parse_classes(self.classes),
            num_classes=self.num_classes,
            ignore_label=tuple(self.ignore_label or ()),
            unlabelled=self.unlabelled.value,
            labels_required=labels_required,
            single_pass=single_pass,
            multi_label=self.multi_label,
            class_axis=None if self.class_axis is None else parse_class_axis(self.class_axis),
            topk_rest=None if self.topk_rest is None else self.topk_rest.value,
            topk_spaces=None if self.topk_spaces is None else self.topk_spaces.value,
            members=None if self.members is None else self.members.value,
            member_axis=self.member_axis,
            sample=self.sample,
            spool_limit=None if limit is None else parse_size(limit, "--spool-limit"),
        )


@dataclass(frozen=True)
class ComputeOptions:
    """Where and how to compute."""

    device: Annotated[
        str,
        _computing(metavar="auto|cpu|cuda|cuda:N", help="auto takes a GPU when one is there."),
    ] = "auto"
    threads: Annotated[
        int,
        _computing(
            min=0,
            metavar="N",
            help="Threads on the CPU; the result does not depend on it.",
            show_default="all cores",
        ),
    ] = 0
    memory: Annotated[
        str | None,
        _computing(
            metavar="SIZE",
            help="Rows to hold in memory, 2G for example; the result does not depend on it.",
            show_default="half of what is free",
        ),
    ] = None
    workers: Annotated[
        str | None,
        _computing(
            metavar="ADDRESS",
            help="Compute there: dask:tcp://HOST:8786, ray:auto, ray:ADDRESS or processes:N; "
            "memory and threads are then those of one worker.",
        ),
        Trait.NEEDS_TRUST,
    ] = None
    seed: Annotated[
        int,
        _computing(min=0, max=(1 << 63) - 1, metavar="N", help="Seed of every random choice."),
    ] = 0

    def engine(self) -> Engine:
        """The engine that these options ask for."""
        from calibcli.engine.engine import Engine
        from calibcli.engine.machine import choose_device, parse_memory

        memory = 0 if self.memory is None else parse_memory(self.memory)
        if self.workers is None:
            return Engine(choose_device(self.device), self.threads, memory)
        from calibcli.engine.worker_kinds import open_workers
        from calibcli.errors import UsageError

        if self.device not in ("auto", "cpu"):
            raise UsageError(f"--device {self.device} cannot be had with --workers")
        return Engine(workers=open_workers(self.workers, memory, self.threads))

    def engine_for(self, output: str, talk: Talk) -> Engine:
        """The engine that writes an output: workers can only where it is a folder of parts."""
        from calibcli.tables import is_folder

        if self.workers is None or is_folder(output):
            return self.engine()
        talk.say(f"{output}: one file is written from this machine; -o FOLDER/ lets workers write")
        return replace(self, workers=None).engine()


CLUSTER_HELP = "Column of patients, documents, … whose rows are held out and resampled together."


def cluster_keys(column: str | None) -> dict[str, str]:
    """The key column of ``--cluster`` by its role, where there is one."""
    from calibcli.engine.folds import CLUSTER

    return {} if column is None else {CLUSTER: column}


class ViewOption(StrEnum):
    """What the confidence is of."""

    AUTO = "auto"
    TOP = "top"
    POSITIVE = "positive"


ViewFlag = Annotated[
    ViewOption,
    _measuring(
        help="What confidence is: the probability of the positive class, or of the predicted "
        "one; auto: the positive class of two.",
    ),
]

PositiveFlag = Annotated[
    str | None,
    _measuring(
        metavar="NAME",
        help="The positive class of two, by name or number.",
        show_default="class 1",
    ),
    Trait.MAY_BE_EMPTY,
]


@dataclass(frozen=True)
class MeasureOptions:
    """What to measure."""

    metrics: Annotated[
        str,
        _measuring(
            metavar="NAME[,NAME]|all",
            autocompletion=complete_metrics,
            help="What is measured; see calib metrics, or all of them.",
        ),
    ] = "default"
    bootstrap: Annotated[
        int,
        _measuring(
            min=0,
            max=100_000,
            metavar="N",
            help="Samples behind the 95 % intervals; 0: no intervals.",
        ),
    ] = 200
    cluster: Annotated[
        str | None, _measuring(metavar="COL", help=CLUSTER_HELP, show_default="rows")
    ] = None
    view: ViewFlag = ViewOption.AUTO
    positive: PositiveFlag = None
    cost: Annotated[
        str | None,
        _measuring(
            metavar="fp=X,fn=Y|FILE",
            help="What errors cost, to measure decisions: of two classes, or a matrix of true "
            "class and decision (.json, .csv, .npy).",
            show_default=False,
        ),
    ] = None

    id: Annotated[
        str | None,
        _measuring(
            metavar="COL",
            help="Column of row names, by which a baseline or another input is known to have the "
            "same rows.",
            show_default="labels, weights and clusters",
        ),
    ] = None

    @cached_property
    def _given(self) -> GivenCosts | None:
        if self.cost is None:
            return None
        from calibcli.workflow.pricing import parse_costs

        return parse_costs(self.cost)

    def settled(
        self,
        panel: Panel,
        classes: int,
        names: Sequence[str] | None,
        like: Reading | None = None,
    ) -> Panel:
        """A panel for so many classes of these names: what confidence is of, and what errors cost.

        The positive class of a fit is repeated.

        Raises
        ------
        UsageError
            What they say is not for such classes, or something cannot be measured without costs.
        """
        from calibcli.metrics.view import choose_event, repeated_event

        event = choose_event(self.view.value, self.positive, classes, names)
        if like is not None:
            event = repeated_event(event, like.decisions.get("positive"), like.origin)
        costs = None if self._given is None else self._given.of(classes, event, names)
        panel = replace(panel, event=event, classes=classes, costs=costs)
        # Before any work is done.
        _ = panel.metrics
        return panel

    def panel(self, seed: int) -> Panel:
        """The metrics that these options ask for, with intervals."""
        from calibcli.engine.folds import CLUSTER
        from calibcli.metrics.panel import Panel
        from calibcli.metrics.resampling import Bootstrap

        # What cannot be costs is refused before anything is read.
        _ = self._given
        role = None if self.cluster is None else CLUSTER
        names = [name.strip() for name in self.metrics.split(",")]
        return Panel(names, bootstrap=Bootstrap(self.bootstrap, seed, role), recorded=True)

    @property
    def keys(self) -> dict[str, str]:
        """The key columns that they need, by role."""
        if self.id is None:
            return cluster_keys(self.cluster)
        from calibcli.workflow.measuring import ID

        return {**cluster_keys(self.cluster), ID: self.id}

    @property
    def pictured(self) -> set[str]:
        """What there is to draw of what they measure, beside reliability."""
        return set() if self.cost is None else {"decisions"}

    @property
    def folds(self) -> int:
        """Folds of the choice of a threshold; 1 without any."""
        if self.cost is None:
            return 1
        from calibcli.workflow.deciding import CHOICE_FOLDS

        return CHOICE_FOLDS

    def add_decisions(
        self,
        document: EvaluateDocument,
        data: Data,
        predictor: Predictor,
        panel: Panel,
        names: Sequence[str] | None,
    ) -> None:
        """Put what decisions cost into the document, where errors have a cost."""
        if panel.costs is None:
            return
        from calibcli.report.document import decisions_part
        from calibcli.workflow.deciding import measure_decisions

        (decisions,) = measure_decisions(data, [predictor], panel)
        document["decisions"] = decisions_part(decisions, class_names=names)


Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME.OPTION=VALUE",
        help="Set an option of a method or a loss; repeatable.",
    ),
]

FormatOption = Annotated[PlainFormat, typer.Option(help="Table for people, json for programs.")]
"""The option ``--format`` of commands that print no report."""

_FORMAT_HELP = "How results are printed."

_Quiet = Annotated[
    bool,
    _output("--quiet", "-q", help="Say nothing on stderr but errors."),
]


@dataclass(frozen=True)
class ReportOptions:
    """How to print a report that gates judge."""

    format: Annotated[ReportFormat, _output(help=_FORMAT_HELP)] = ReportFormat.TABLE
    quiet: _Quiet = False


@dataclass(frozen=True)
class OutputOptions:
    """How to print a report."""

    format: Annotated[Format, _output(help=_FORMAT_HELP)] = Format.TABLE
    quiet: _Quiet = False


@dataclass(frozen=True)
class PlainOutputOptions:
    """How to print anything but a report."""

    format: Annotated[PlainFormat, _output(help=_FORMAT_HELP)] = PlainFormat.TABLE
    quiet: _Quiet = False


Force = Annotated[
    bool,
    _output("--force", help="Overwrite files that exist."),
    Trait.NEEDS_TRUST,
]


Keep = Annotated[
    list[str] | None,
    _output(
        "--keep",
        metavar="top:K|confidence|label",
        autocompletion=complete_keep,
        help="Write the K largest probabilities and their classes, the largest one, or that of the "
        "label; several with commas between them.",
        show_default="all probabilities",
    ),
]


def shared(*groups: type[Any], basic: Sequence[str] = ()) -> Callable[[Command], Command]:
    """Give a command the options of these dataclasses; it takes an object of each, by its name.

    A parameter ``data: InputOptions`` of the command is filled from the flags that the fields of
    `InputOptions` declare. Flags of a dataclass that it has no parameter for are taken, and not
    handed over. The short help has the parameters `basic`, or all if there are none.
    """

    def decorate(command: Command) -> Command:
        hints = get_type_hints(command, include_extras=True)
        declared = list(inspect.signature(command).parameters.values())
        taken = {p.name: hints[p.name] for p in declared if hints[p.name] in groups}
        parameters = [
            p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY)
            for p in declared
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
        if basic:
            wrapper.basic_options = frozenset(basic)  # type: ignore[attr-defined]
        del wrapper.__wrapped__
        return wrapper  # type: ignore[return-value]

    return decorate


def _flags(group: Any) -> list[inspect.Parameter]:
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
