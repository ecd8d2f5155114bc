"""Documents: what a command prints with ``--format json``, and the parts of one document alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict

from calibcli.schema.parts import (
    PRESERVED,
    AgainstPlainPart,
    BaselinePart,
    CandidatePart,
    ClassSharesPart,
    DifferencesPart,
    FitMeasurementPart,
    GatePart,
    GroupsPart,
    InputPart,
    IntervalPart,
    MeasurementPart,
    MetricPart,
    PeriodsPart,
    Preserved,
    RefitPart,
    SharesPart,
    SlicesPart,
    SolvedPart,
    StagePart,
    TargetPart,
    TestPart,
    ViewPart,
)


class EvaluateDocument(MeasurementPart):
    """``calib evaluate`` of one input."""

    schema_version: Annotated[Literal[2], "goes up when a key changes its meaning"]
    command: Annotated[Literal["evaluate"], "the command"]
    input: Annotated[InputPart, "what was measured"]
    params: Annotated[str | None, "the parameter file that the rows were run through first"]
    seen: Annotated[
        str | None,
        "what says that a fit has seen these rows, which flatters every figure: the parameter "
        "file, by the SHA-256 of the files that it was fitted to, or the input, being the output "
        "of a fit",
    ]
    slices: NotRequired[
        Annotated[Sequence[SlicesPart], "in this order", "with `--by` and `--by-class`"]
    ]
    periods: NotRequired[
        Annotated[PeriodsPart, "expected and observed in the order of `--by`", "with `--in-order`"]
    ]
    tests: NotRequired[Annotated[Sequence[TestPart], "one for each test", "with `--tests`"]]
    refit: NotRequired[
        Annotated[RefitPart, "how much of the scores is due to calibration", "with `--refit`"]
    ]
    title: NotRequired[Annotated[str, "what it is called", "with `--title`"]]
    gates: NotRequired[Annotated[Sequence[GatePart], "what came of each", "with `--fail-if`"]]
    baseline: NotRequired[
        Annotated[BaselinePart, "how each input is compared with it", "with `--baseline`"]
    ]


class SeveralDocument(TypedDict):
    """``calib evaluate`` of several inputs."""

    schema_version: Annotated[Literal[2], "as of one input"]
    command: Annotated[Literal["evaluate"], "the command"]
    results: Annotated[
        Sequence[EvaluateDocument], "one for each input, in the order of the command line"
    ]
    differences: NotRequired[
        Annotated[DifferencesPart, "how inputs differ from one of them", "with intervals"]
    ]
    title: NotRequired[Annotated[str, "what it is called", "with `--title`"]]
    gates: NotRequired[Annotated[Sequence[GatePart], "what came of each", "with `--fail-if`"]]
    baseline: NotRequired[
        Annotated[BaselinePart, "how each input is compared with it", "with `--baseline`"]
    ]


class FitDocument(TypedDict):
    """``calib fit``."""

    schema_version: Annotated[Literal[2], "goes up when a key changes its meaning"]
    command: Annotated[Literal["fit"], "the command"]
    input: Annotated[InputPart, "what was fitted"]
    test: Annotated[InputPart | None, "the input of `--test`"]
    rows: Annotated[int, "rows of the input that was fitted"]
    classes: Annotated[int, "number of classes"]
    method: Annotated[str, "names of the stages with commas between them, as after `-m`"]
    loss: Annotated[str, "as after `--loss`"]
    options: Annotated[
        Mapping[str, Any],
        "options of methods and losses that were set or have a default, by name",
    ]
    fit: Annotated[SolvedPart, "how it was solved"]
    stages: Annotated[
        Sequence[StagePart], "the fitted stages as in the [parameter file](params.md)"
    ]
    before: Annotated[FitMeasurementPart | None, "of the input scores"]
    after: Annotated[FitMeasurementPart | None, "of the calibrated probabilities, of the same rows"]
    balanced: Annotated[
        SharesPart | None,
        "the same rows with every class counting the same, where the fit is for that (class-wise "
        "losses, `--target-prior balanced`) and the rows have other shares",
    ]
    target: Annotated[
        TargetPart | None,
        "the same rows weighted to the shares of `--target-prior` or `--target`, where they have "
        "others",
    ]
    class_shares: NotRequired[
        Annotated[ClassSharesPart, "class shares of rows without labels", "with `--target`"]
    ]
    leaderboard: Annotated[
        Sequence[CandidatePart] | None, "what the method was chosen from (`-m auto`), best first"
    ]
    plain_nll: Annotated[
        MeasurementPart | None,
        "a fit of the same stages by plain nll, measured on the same rows; where the loss is "
        "improper, with a link or without",
    ]
    against_plain_nll: NotRequired[
        Annotated[AgainstPlainPart, "which of the two is better", "where the loss is improper"]
    ]
    groups: Annotated[GroupsPart | None, "of a fit by `--by`: what the maps of groups are worth"]
    params: Annotated[str | None, "path of the parameter file that was written"]
    output: Annotated[str | None, "path of the calibrated probabilities that were written"]
    title: NotRequired[Annotated[str, "what it is called", "with `--title`"]]
    gates: NotRequired[Annotated[Sequence[GatePart], "what came of each", "with `--fail-if`"]]
    baseline: NotRequired[
        Annotated[BaselinePart, "how each input is compared with it", "with `--baseline`"]
    ]


class CompareDocument(ViewPart):
    """``calib compare``."""

    schema_version: Annotated[Literal[2], "goes up when a key changes its meaning"]
    command: Annotated[Literal["compare"], "the command"]
    input: Annotated[InputPart, "what was fitted and measured"]
    rows: Annotated[int, "rows of the input"]
    classes: Annotated[int, "number of classes"]
    folds: Annotated[int, "folds that were held out"]
    leaderboard: Annotated[Sequence[CandidatePart], "from the best to the worst by held-out NLL"]
    why: Annotated[str, "why the chosen one was chosen, for people"]


Result: TypeAlias = EvaluateDocument | FitDocument | CompareDocument
"""What a command found out about one input."""

Judged: TypeAlias = EvaluateDocument | FitDocument | SeveralDocument
"""What can have gates."""

Document: TypeAlias = Result | SeveralDocument
"""What the tables, pages and reports of a command show."""


class ApplyDecisionPart(TypedDict):
    """How rows were decided."""

    positive: Annotated[int | None, "the positive class of two; null for more classes"]
    threshold: Annotated[
        float | None, "of its probability; null for more classes, which are decided by costs"
    ]


class ApplyDocument(TypedDict):
    """``calib apply``."""

    schema_version: Annotated[Literal[1], "goes up when a key changes its meaning"]
    command: Annotated[Literal["apply"], "the command"]
    input: Annotated[InputPart, "what was read"]
    rows: Annotated[int, "rows that were written"]
    classes: Annotated[int, "number of classes"]
    stages: Annotated[Sequence[str], "kinds of the stages that they went through"]
    params: Annotated[str, "path of the parameter file"]
    output: Annotated[str, "path of the file that was written"]
    decision: NotRequired[
        Annotated[ApplyDecisionPart, "how rows were decided", "with `--threshold` or `--cost`"]
    ]


class ConvertDocument(TypedDict):
    """``calib convert``."""

    schema_version: Annotated[Literal[1], "goes up when a key changes its meaning"]
    command: Annotated[Literal["convert"], "the command"]
    input: Annotated[InputPart, "what was read"]
    rows: Annotated[int, "rows that were written"]
    classes: Annotated[int, "number of classes"]
    class_names: Annotated[Sequence[str] | None, "their names, if it has any"]
    output: Annotated[str, "path of the file that was written"]


class ExportDocument(TypedDict):
    """``calib export``."""

    schema_version: Annotated[Literal[1], "goes up when a key changes its meaning"]
    command: Annotated[Literal["export"], "the command"]
    params: Annotated[str, "path of the parameter file"]
    input: Annotated[str, "what the scores are: `logits`, `log-probs` or `probs`"]
    classes: Annotated[int, "number of classes"]
    class_names: Annotated[Sequence[str] | None, "their names, if it has any"]
    stages: Annotated[Sequence[str], "the kinds of its stages, in order"]
    outputs: Annotated[Sequence[str], "paths of the files that were written"]


class RunGatesPart(TypedDict):
    """How many gates a run passed."""

    passed: Annotated[int, "gates that passed"]
    failed: Annotated[int, "gates that failed"]


class RunDocument(TypedDict):
    """A line of ``calib evaluate --append``."""

    schema_version: Annotated[Literal[1], "goes up when a key changes its meaning"]
    command: Annotated[Literal["run"], "what it is"]
    calib: Annotated[str, "version that measured"]
    time: Annotated[str, "when, in UTC; that of `SOURCE_DATE_EPOCH` where it is set"]
    name: Annotated[str | None, "what `--run` calls it"]
    input: Annotated[str, "the input; of several each has a line"]
    positive: Annotated[str | None, "the positive class, of `--view`; null: the top label"]
    params: Annotated[str | None, "path of the parameter file"]
    params_sha256: Annotated[str | None, "SHA-256 of its content"]
    rows: Annotated[int, "number of rows"]
    classes: Annotated[int, "number of classes"]
    costs: Annotated[Any, "what errors cost, of `--cost`; null without it"]
    metrics: Annotated[Mapping[str, MetricPart], "by name"]
    gates: Annotated[RunGatesPart | None, "of this input; null where there were none"]


class RunPart(TypedDict):
    """A run."""

    number: Annotated[int, "place among the runs of the input, from 1"]
    name: Annotated[str | None, "what `--run` called it"]
    time: Annotated[str, "when it was"]
    value: Annotated[float | None, "the metric; null where it was not measured"]
    estimate: NotRequired[
        Annotated[float | None, "the error without what noise adds", "of calibration errors"]
    ]
    low: Annotated[float | None, "lower end of its 95 % interval; null without one"]
    high: Annotated[float | None, "upper end"]
    band_low: Annotated[
        float | None,
        "lower end of the band that earlier runs leave to this one; null where there are too few",
    ]
    band_high: Annotated[float | None, "upper end"]
    signal: Annotated[
        Literal["within", "high", "low", "too few"],
        "whether it is within the band, above or below it",
    ]


class TrendPart(IntervalPart):
    """The slope of a metric over runs."""

    slope: Annotated[float | None, "change a run; null of fewer than three runs"]
    start: Annotated[float | None, "where its line is at the first run"]
    runs: Annotated[int, "runs that have the metric"]
    weighted: Annotated[bool, "whether the intervals of the runs are its weights"]
    between: Annotated[
        float | None,
        "standard deviation between runs beyond what their intervals say; null without weights",
    ]


class SeriesPart(TypedDict):
    """The runs of an input."""

    input: Annotated[str, "the input"]
    positive: Annotated[str | None, "the positive class; null: the top label"]
    runs: Annotated[Sequence[RunPart], "in the order of the file"]
    first_out: Annotated[int | None, "number of the first run that left the band"]
    trend: Annotated[TrendPart, "the slope"]


class HistoryDocument(TypedDict):
    """``calib history``."""

    schema_version: Annotated[Literal[1], "goes up when a key changes its meaning"]
    command: Annotated[Literal["history"], "the command"]
    file: Annotated[str, "path of the file of runs"]
    metric: Annotated[str, "the metric"]
    inputs: Annotated[Sequence[SeriesPart], "one for each input and positive class"]
    gates: NotRequired[Annotated[Sequence[GatePart], "each gate of each input", "with `--fail-if`"]]


class ModelPart(TypedDict):
    """A model of which samples are drawn."""

    name: Annotated[str, "the input, or the standard model"]
    confidence: Annotated[float, "its mean confidence"]


class PlanPart(TypedDict):
    """The rows that a kind of gate takes."""

    condition: Annotated[str, "what stands after `--fail-if`"]
    goal: Annotated[
        Literal["pass", "fail"], "what the gate does as often as `power` says, to models"
    ]
    error: Annotated[float, "with this true error"]
    rows: Annotated[int, "with so many rows, rounded up to two digits"]
    simulated: Annotated[
        bool, "whether so many rows were simulated; more than 20,000 are extrapolated"
    ]
    at_limit: Annotated[
        float | None,
        "how often it does the same to models whose true error is the limit; null of an end of an "
        "interval, by which it is at most 2.5 %",
    ]


class PlanDocument(TypedDict):
    """``calib gates plan``."""

    schema_version: Annotated[Literal[1], "goes up when a key changes its meaning"]
    command: Annotated[Literal["gates"], "the command"]
    model: Annotated[ModelPart, "of which samples were drawn"]
    metric: Annotated[str, "the error that is gated"]
    limit: Annotated[float, "what separates good from bad"]
    power: Annotated[float, "how often a gate is to be right"]
    seed: Annotated[int, "of the samples"]
    plans: Annotated[Sequence[PlanPart], "one for each kind of gate"]


class ParametersDocument(TypedDict):
    """``calib inspect`` of a parameter file."""

    schema_version: Annotated[Literal[1], "goes up when a key changes its meaning"]
    command: Annotated[Literal["inspect"], "the command"]
    file: Annotated[str, "the file"]
    kind: Annotated[Literal["parameters"], "what is in it"]
    classes: Annotated[int, "number of classes"]
    class_names: Annotated[Sequence[str] | None, "their names, if it has any"]
    fitted_on: Annotated[str, "kind of the scores that it was fitted to, `input` in the file"]
    reading: Annotated[Mapping[str, Any], "how the input was read, as in the [file](params.md)"]
    stages: Annotated[Sequence[str], "what each stage does, for people"]
    preserves: Annotated[Preserved, f"what the stages together leave as it was: {PRESERVED}"]
    maps: Annotated[
        Mapping[str, str] | None,
        "of a fit by `--by`: what was learnt of all rows, and of each group that has a map",
    ]
    fit: Annotated[Mapping[str, Any] | None, "as in the [file](params.md)"]
    metrics: Annotated[Mapping[str, Any] | None, "as in the file"]
    data: Annotated[Sequence[Mapping[str, Any]], "the files that it was fitted to, as in the file"]
    software: Annotated[Mapping[str, str], "versions, as in the file"]


_UNLESS = "where scores were found"
_USABLE = "where all rows can be used"


class FieldPart(TypedDict):
    """A field of a data file, as some of its rows show it."""

    name: Annotated[str, "its name"]
    type: Annotated[str, "its type, for people"]
    rows: Annotated[int | None, "how many it has; null of a stream"]
    looked_at: Annotated[int, "of how many of them the rest is"]
    least: Annotated[float | None, "the least number that is finite"]
    largest: Annotated[float | None, "the largest"]
    row_sums: Annotated[
        Sequence[float] | None, "least and largest sum of a row, of vectors of numbers"
    ]
    missing: Annotated[int, "rows without a value"]
    odd: Annotated[Sequence[str], 'which of `"NaN"`, `"inf"` and `"-inf"` are there']
    values: Annotated[Sequence[str], "the first different ones, but of numbers with a fraction"]
    problem: Annotated[str | None, "why rows could not be read"]


class UnreadDocument(TypedDict):
    """``calib inspect`` of a file that no reader reads."""

    schema_version: Annotated[Literal[1], "goes up when a key changes its meaning"]
    command: Annotated[Literal["inspect"], "the command"]
    file: Annotated[str, "the file"]
    kind: Annotated[Literal["unknown"], "what is in it"]
    bytes: Annotated[int, "its size; of a folder that of the files in it"]
    begins_with: Annotated[
        str, "its first bytes, as Python writes them; of a folder the first names"
    ]
    refused: Annotated[str, "why it is not read, and what to do"]


class DataDocument(TypedDict):
    """``calib inspect`` of rows."""

    schema_version: Annotated[Literal[1], "goes up when a key changes its meaning"]
    command: Annotated[Literal["inspect"], "the command"]
    file: Annotated[str, "the file"]
    kind: Annotated[Literal["data"], "what is in it"]
    format: Annotated[str, "how it is stored"]
    files: Annotated[int, "how many files it is"]
    fields: Annotated[Sequence[FieldPart], "what is in the first of them"]
    more_fields: Annotated[int, "how many fields it has besides"]
    refused: Annotated[str | None, "why `calib evaluate` does not read it so; null where it does"]
    commands: Annotated[Sequence[str], "what to type next; each of them was tried"]
    rows: NotRequired[Annotated[int, "number of rows", _UNLESS]]
    classes: NotRequired[Annotated[int, "number of classes", _UNLESS]]
    class_names: NotRequired[Annotated[Sequence[str] | None, "their names, if it has any", _UNLESS]]
    picked: NotRequired[Annotated[Mapping[str, str], "as of [an input](#an-input)", _UNLESS]]
    stored_as: NotRequired[Annotated[str, 'type of the scores, `"float32"`', _UNLESS]]
    other_columns: NotRequired[Annotated[Sequence[str], "columns that are neither", _UNLESS]]
    impossible_classes: NotRequired[Annotated[bool, "whether a logit is -inf", _USABLE]]
    zero_probabilities: NotRequired[Annotated[int, "probabilities of 0", _USABLE]]
    labels: NotRequired[Annotated[Literal["none"], "that there are none", "without labels"]]
    rows_of_largest_class: NotRequired[
        Annotated[Mapping[str, int], "by its name or number", "with labels"]
    ]
    rows_of_smallest_class: NotRequired[
        Annotated[Mapping[str, int], "by its name or number", "with labels"]
    ]
    absent_classes: NotRequired[Annotated[Sequence[str], "classes without a row", "with labels"]]


class OptionPart(TypedDict):
    """An option of a method or a loss."""

    name: Annotated[str, "as in `--set METHOD.NAME=VALUE`"]
    default: Annotated[Any, "its default"]
    help: Annotated[str, "what it does"]
    choices: Annotated[Sequence[str | int], "the values that it can have; empty for any"]
    optional: Annotated[bool, "whether it can be left open"]
    least: Annotated[float | None, "its smallest value"]


class EntryPart(TypedDict):
    """What there is to say about a method, a loss or a metric."""

    name: Annotated[str, "as commands take it"]
    title: Annotated[str, "what it is, in a line"]
    origin: Annotated[str, "where it comes from: `calibcli`, or the plugin and its version"]
    options: Annotated[Sequence[OptionPart], "its options; metrics have none"]


class MethodPart(EntryPart):
    """A method."""

    preserves: Annotated[
        Preserved, f"what a fit leaves as it was, where no link is behind it: {PRESERVED}"
    ]
    parameters: Annotated[int | None, "numbers to fit; null where they grow with the rows"]
    rows_needed: Annotated[int, "below so many rows it is hardly worth a try"]
    cost: Annotated[str, "what a fit takes"]
    source: Annotated[str, "the paper"]


class MethodsDocument(TypedDict):
    """``calib methods``."""

    schema_version: Annotated[Literal[1], "goes up when a key changes its meaning"]
    classes: Annotated[int, "class count that the figures are for"]
    methods: Annotated[Sequence[MethodPart], "all, or the one that was named"]


class LossPart(EntryPart):
    """A loss."""

    proper: Annotated[bool, "whether the true probabilities have the least of it"]
    link: Annotated[bool, "whether its answer has a link that leads to probabilities"]
    link_preserves: Annotated[
        Preserved | None, "what this link leaves as it was, by the default options; null for none"
    ]
    adaptive: Annotated[bool, "whether it learns something while it is minimised"]
    convex: Annotated[bool, "whether it is convex in the logits"]
    source: Annotated[str, "the paper"]


class LossesDocument(TypedDict):
    """``calib losses``."""

    schema_version: Annotated[Literal[1], "goes up when a key changes its meaning"]
    losses: Annotated[Sequence[LossPart], "all, or the one that was named"]


class MetricInfoPart(EntryPart):
    """What there is to say about a metric."""

    group: Annotated[str, "what it is about"]
    better: Annotated[Literal["lower", "higher", "neither"], "which way is better"]
    default: Annotated[bool, "whether it is measured without `--metrics`, of more than two classes"]
    default_for_two: Annotated[bool, "the same of two classes"]
    interval: Annotated[str, "how its 95 % interval is made"]
    convention: Annotated[str, "what must be known to compare it with other numbers"]


class MetricsDocument(TypedDict):
    """``calib metrics``."""

    schema_version: Annotated[Literal[1], "goes up when a key changes its meaning"]
    metrics: Annotated[Sequence[MetricInfoPart], "all, or the one that was named"]


class SettingPart(TypedDict):
    """An option of a command, as it is configured."""

    command: Annotated[str, "the command"]
    option: Annotated[str, "the option's name in a configuration file"]
    value: Annotated[Any, "its value"]
    default: Annotated[Any, "its value where nothing sets it"]
    layer: Annotated[str, 'what sets it: `"default"`, a file, or the environment']
    source: Annotated[str, "where exactly: file, table and key, or the variable"]
    error: Annotated[str | None, "why the command would refuse the value"]


class ConfigDocument(TypedDict):
    """``calib config``."""

    schema_version: Annotated[Literal[1], "goes up when a key changes its meaning"]
    command: Annotated[Literal["config"], "the command"]
    file: Annotated[str | None, "path of the configuration file, if there is one"]
    options: Annotated[Sequence[SettingPart], "those that are set; with `--all` all"]


class TraceStagePart(TypedDict):
    """The rounds of a stage."""

    kind: Annotated[str, "the stage"]
    rounds: Annotated[
        Sequence[Mapping[str, Any]], "what was learned in [each round](losses.md#a-round)"
    ]


class TraceDocument(TypedDict):
    """The file of ``calib fit --trace``."""

    schema_version: Annotated[Literal[1], "goes up when a key changes its meaning"]
    loss: Annotated[str, "what was minimised"]
    stages: Annotated[Sequence[TraceStagePart], "those that were solved"]
