"""Parts of documents: inputs, numbers, verdicts, slices, gates, candidates and fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict


class ClustersPart(TypedDict):
    """Clusters, whose rows are never split."""

    column: Annotated[str, "the column that has them"]
    count: Annotated[int, "number of its values"]


class InputPart(TypedDict):
    """An input."""

    name: Annotated[str, "the input in short, as tables show it"]
    files: Annotated[Sequence[str], "every file of it, in the order of their rows"]
    kind: Annotated[
        Literal["logits", "log-probs", "probs"], "what the scores are; `log-probs` are logarithms"
    ]
    picked: Annotated[
        Mapping[str, str],
        "what was taken for `logits`, `labels`, `weights`, `classes`, `input` and the roles of "
        "columns of groups (`group`, `by`, `cluster`), in words for people; only what there is",
    ]
    absent_classes: NotRequired[
        Annotated[
            Sequence[str] | Sequence[int],
            "classes without a row, by name or number",
            "but for `calib apply`",
        ]
    ]
    clusters: NotRequired[
        Annotated[
            ClustersPart | None,
            "what `--cluster` names; null without it",
            "but for `calib apply`",
        ]
    ]
    dropped_rows: NotRequired[
        Annotated[
            int,
            "rows that are left out for their label, or since they have none",
            "of `--ignore-label` and `--unlabelled skip`, where there are any",
        ]
    ]


class IntervalPart(TypedDict):
    """An interval of 95 %."""

    low: Annotated[float | None, "its lower end"]
    high: Annotated[float | None, "its upper end"]


class NumberPart(TypedDict):
    """A number, and how sure it is."""

    value: Annotated[float | None, "the number"]
    estimate: NotRequired[
        Annotated[
            float | None,
            "the error without what noise adds to `value`",
            "of calibration errors with an interval, in leaderboards and slices",
        ]
    ]
    low: Annotated[float | None, "lower end of its 95 % interval; null where it has none"]
    high: Annotated[float | None, "upper end"]


class ChancePart(TypedDict):
    """An error that chance shows of a perfectly calibrated model with the same probabilities."""

    mean: Annotated[float | None, "its mean"]
    low: Annotated[float | None, "lower end of the range in which it lies 95 times in 100"]
    high: Annotated[float | None, "upper end"]


class MetricPart(TypedDict):
    """A metric."""

    value: Annotated[
        float | None,
        "the number, of these rows; of a calibration error the plug-in that papers quote",
    ]
    estimate: NotRequired[
        Annotated[
            float | None,
            "the error without what noise adds to `value`; it lies between `low` and `high`",
            "of calibration errors, with `low`",
        ]
    ]
    low: NotRequired[
        Annotated[
            float | None,
            "lower end of its 95 % interval",
            "but for `--bootstrap 0`, a value that is not finite, and `corp_class_wise_*`",
        ]
    ]
    high: NotRequired[Annotated[float | None, "upper end", "with `low`"]]
    change: NotRequired[
        Annotated[
            IntervalPart,
            "95 % interval of after minus before, rows being paired",
            "in the `after` of a fit",
        ]
    ]
    chance: NotRequired[
        Annotated[
            ChancePart,
            "what a perfectly calibrated model with these probabilities would have",
            "of calibration errors, with `low`",
        ]
    ]


class BinPart(TypedDict):
    """A bin."""

    lower: Annotated[float, "it holds the rows with lower < confidence ≤ upper"]
    upper: Annotated[float, "the first bin holds those of 0 too"]
    rows: Annotated[int, "number of rows"]
    weight: Annotated[float, "sum of their weights"]
    confidence: Annotated[float | None, "weighted mean of the confidence; null in an empty bin"]
    accuracy: Annotated[
        float | None,
        "weighted share of rows where it came true: of the positive class, or of right "
        "predictions; null in an empty bin",
    ]


# A class cannot have a key that Python reserves.
PositivePart = TypedDict(
    "PositivePart",
    {
        "class": Annotated[int, "its number"],
        "name": Annotated[str, "its name; the number where classes have none"],
    },
)
"""The positive class."""


class ViewPart(TypedDict):
    """A view of the probabilities."""

    view: Annotated[
        Literal["positive", "top"],
        'what the confidence is: `"positive"`, the probability of the positive class, or `"top"`, '
        "that of the predicted one",
    ]
    positive: Annotated[PositivePart | None, 'the positive class; null in the view `"top"`']


class PairingPart(TypedDict):
    """What runs of the same rows are paired by."""

    rows: Annotated[
        str,
        "a hash of labels, weights, and the columns of `--cluster` and `--id`, in their order; "
        "never of scores",
    ]
    seed: Annotated[int, "`--seed`"]
    units: Annotated[int, "rows or clusters that are resampled"]
    clusters: Annotated[bool, "whether they are clusters"]
    bags: Annotated[
        str,
        "their shares of the weight by bag; like all that follows float32 numbers, little-endian, "
        "in base64",
    ]
    metrics: Annotated[
        Mapping[str, str],
        "by name: of a mean its sums by bag, divided by the weight of all rows; of any other "
        "metric its values in up to 256 resamples",
    ]


class RulePart(TypedDict):
    """A rule to decide by."""

    rule: Annotated[
        Literal["least", "best", "argmax", "always", "never", "constant"],
        "`least` expected cost; of two classes the `best` threshold, each fold's chosen on the "
        "others; `argmax`, the most probable class; `always` or `never` the positive class; of "
        "more classes the `constant` decision that costs least",
    ]
    threshold: Annotated[
        float | None,
        "rows whose positive class has at least this probability are decided for it; of `best` the "
        "threshold of all rows together; null where there is none",
    ]
    flagged: Annotated[float | None, "share of the rows that are decided for the positive class"]
    decision: Annotated[str | None, "the class of a `constant` decision, by name or number"]
    cost: Annotated[NumberPart, "mean cost of a row"]
    change: NotRequired[
        Annotated[
            IntervalPart,
            "95 % interval of the cost after minus before, rows being paired",
            "in the `after` of a fit, with intervals; not of `best`, both thresholds being chosen",
        ]
    ]


class ThresholdPart(TypedDict):
    """A threshold."""

    threshold: Annotated[float, "of the positive class's probability"]
    flagged: Annotated[float, "share of the rows that reach it"]
    cost: Annotated[NumberPart, "mean cost of a row"]
    net_benefit: Annotated[
        NumberPart, "shares of true positives less those of false ones times t / (1 - t)"
    ]
    treat_all: Annotated[float | None, "net benefit of the positive class for every row"]


class CoveragePart(TypedDict):
    """The surest rows."""

    coverage: Annotated[float, "share of the rows that are decided"]
    limit: Annotated[
        float | None,
        "a row is decided if that is expected to cost less than this; null for all rows",
    ]
    cost: Annotated[NumberPart, "mean cost of a row that is decided"]


class DecisionsPart(TypedDict):
    """Decisions, and what they cost."""

    costs: Annotated[
        Sequence[Sequence[float]] | None,
        "what was given: a row a true class, a column a decision; null for more than 100 classes",
    ]
    positive: Annotated[int | None, "of two classes the one that thresholds are about"]
    threshold: Annotated[
        float | None,
        "`fp / (fp + fn)`, the best threshold of two classes where probabilities are calibrated",
    ]
    folds: Annotated[int, "folds of the choice of the best threshold; 0 without one"]
    rules: Annotated[Sequence[RulePart], "ways to decide"]
    curve: Annotated[Sequence[ThresholdPart], "by threshold, ascending; of two classes"]
    abstention: Annotated[
        Sequence[CoveragePart], "risk against coverage: from all rows to the surest few"
    ]


class VerdictPart(TypedDict):
    """A verdict."""

    kind: Annotated[
        Literal["over", "under", "mixed", "good", "nearly", "unclear", "none"],
        '`"over"` or `"under"` confident on average; `"mixed"`: right on average, but not '
        'everywhere; `"good"`; `"nearly"`: errors that are small, but no chance; `"unclear"`: '
        'nothing found, in rows that may hide an error that matters; `"none"` without rows',
    ]
    says: Annotated[
        float | None, "mean confidence; of a positive class its mean probability; null without rows"
    ]
    right: Annotated[float | None, "accuracy; of a positive class how often it came"]
    event: Annotated[str | None, 'name of the positive class; null in the view `"top"`']
    on_average: Annotated[bool, "whether some of the rows are off to the other side"]
    remarks: Annotated[Sequence[str], "what else there is to say, for people"]
    text: Annotated[str, "all of it in the one sentence that every format has"]


class MeasurementPart(ViewPart):
    """A measurement."""

    verdict: Annotated[VerdictPart, "what is to be said of it"]
    rows: Annotated[int, "number of rows"]
    weight: Annotated[float, "sum of the weights; the number of rows where there are none"]
    classes: Annotated[int, "number of classes"]
    metrics: Annotated[Mapping[str, MetricPart], "by name"]
    reliability: Annotated[
        Sequence[BinPart],
        "the 15 equal-width bins of confidence, the lowest first; of a positive class with less "
        "than 10 % of the weight at most 15 bins of equal mass",
    ]
    pairing: NotRequired[
        Annotated[
            PairingPart,
            "for comparisons with other runs of the same rows; at most 200 kB of a document, so "
            "that the last of many inputs have none",
            "with intervals, of `calib evaluate` and in the `after` of a fit",
        ]
    ]
    decisions: NotRequired[Annotated[DecisionsPart, "what decisions cost", "with `--cost`"]]


class SlicePart(TypedDict):
    """A slice."""

    name: Annotated[str, "the value of the column, or the predicted class"]
    rows: Annotated[int, "number of rows"]
    weight: Annotated[float, "sum of their weights"]
    confidence: Annotated[float, "mean confidence"]
    accuracy: Annotated[float, "share of right predictions"]
    nll: Annotated[NumberPart, "negative log-likelihood"]
    brier: Annotated[NumberPart, "Brier score"]
    ece: Annotated[NumberPart, "expected calibration error"]
    p: Annotated[float | None, "of a two-sided test of accuracy against confidence"]
    adjusted_p: Annotated[
        float | None, "the same, adjusted for all slices of the list (Benjamini-Hochberg)"
    ]


class MacroPart(TypedDict):
    """Means over slices, each of which counts the same."""

    accuracy: Annotated[float, "of their accuracy"]
    nll: Annotated[float, "of their NLL"]
    brier: Annotated[float, "of their Brier scores"]
    ece: Annotated[float, "of their ECE"]


class SlicesPart(TypedDict):
    """Slices of a column."""

    column: Annotated[str | None, "the column; null for the predicted class"]
    slices: Annotated[Sequence[SlicePart], "the worst first"]
    macro: NotRequired[
        Annotated[
            MacroPart,
            "means over the labels; the metrics are those of all pairs of row and label (micro)",
            "with `--multi-label`",
        ]
    ]


class PeriodPart(TypedDict):
    """A period."""

    name: Annotated[str, "the value of the column"]
    rows: Annotated[int, "number of rows"]
    weight: Annotated[float, "sum of their weights"]
    expected: Annotated[
        float, "sum of the confidence: how many events, or right predictions, it expects"
    ]
    observed: Annotated[float, "how many came"]
    low: Annotated[
        float | None, "lower control limit of `observed`; null where there are too few events"
    ]
    high: Annotated[float | None, "upper control limit"]
    signal: Annotated[
        Literal["within", "high", "low", "too few"],
        "whether `observed` is within the limits, above or below them",
    ]


class PeriodsPart(TypedDict):
    """Periods of a column."""

    column: Annotated[str, "the column"]
    limits: Annotated[
        Literal["binomial", "clusters"],
        "the noise that limits are made of, so that 0.135 % are beyond either by chance: of "
        "independent rows with these probabilities, or of clusters (Student's t)",
    ]
    periods: Annotated[Sequence[PeriodPart], "in the order of their names, numbers by their size"]


class TestPart(TypedDict):
    """A test."""

    name: Annotated[str, "its name"]
    title: Annotated[str, "its name for people"]
    hypothesis: Annotated[str, "what a calibrated model has, and how it is tested"]
    statistic: Annotated[float | None, "null where it could not be done"]
    p: Annotated[float | None, "its p-value; null where it could not be done"]
    degrees: Annotated[
        int | None, "how many numbers of a calibrated model are tested at once; null for one"
    ]
    smallest_of: Annotated[
        int | None, "of how many tests the statistic is the smallest p; null where it is none"
    ]
    estimate: Annotated[float | None, "the parameter that is tested, if it is one"]
    error: Annotated[float | None, "standard error of the estimate"]
    note: Annotated[str, "why it could not be done, or an empty string"]


class ScorePart(TypedDict):
    """A score in its parts."""

    value: Annotated[float | None, "the score, which is the sum of the two"]
    calibration: Annotated[NumberPart, "what the refit takes away"]
    refinement: Annotated[float | None, "what it leaves"]


class RefitPart(TypedDict):
    """A refit."""

    method: Annotated[str, "the method that was fitted"]
    folds: Annotated[int, "number of folds"]
    scores: Annotated[Mapping[str, ScorePart], "by name: `nll` and `brier`"]


class GateSlicePart(TypedDict):
    """The slice that a gate is about."""

    column: Annotated[str | None, "its column; null for predicted classes, or for all columns"]
    name: Annotated[
        str | None,
        "the slice that `value` is of; of `slices.failed` and `periods.failed` the first that "
        "failed, or null",
    ]
    of: Annotated[
        int, "number of slices or periods; the interval of `worst(…)` holds for all of them at once"
    ]


class GatePart(TypedDict):
    """A gate."""

    expression: Annotated[str, 'the condition under which the gate fails, `"ece > 0.02"`']
    input: Annotated[
        str, "name of the input that was measured; of a fit by `--test` that of the test input"
    ]
    passed: Annotated[bool, "whether the condition does not hold, and everything in it is known"]
    value: Annotated[
        float | None,
        "what stands on the left of the sign; null where it is not known, or infinite",
    ]
    bound: Annotated[float | None, "what stands on the right"]
    estimate: Annotated[
        float | None,
        "of a calibration error without what noise adds, which `low` and `high` are of; null where "
        "`value` is no plug-in",
    ]
    low: Annotated[float | None, "lower end of the 95 % interval of `value`, where it has one"]
    high: Annotated[float | None, "upper end"]
    difference: Annotated[NumberPart, "`value` minus `bound`"]
    significant: Annotated[bool, "whether the interval of the difference decided (`--significant`)"]
    joined: Annotated[
        Literal["paired", "independent"] | None,
        "how the rows are compared with those of `--baseline`; null of a condition that does not",
    ]
    slice: Annotated[GateSlicePart | None, "of a condition about slices"]
    reason: Annotated[str | None, "what is not known, where it failed for that"]


class BaselineInputPart(TypedDict):
    """An input and the baseline."""

    input: Annotated[str, "the input"]
    joined: Annotated[Literal["paired", "independent"], "how the two runs are compared"]
    reason: Annotated[str | None, "why they cannot be paired"]


class BaselinePart(TypedDict):
    """The baseline."""

    name: Annotated[str, "the file"]
    inputs: Annotated[Sequence[BaselineInputPart], "one for each input"]


class MemberPart(TypedDict):
    """A member of a stack."""

    method: Annotated[str, "its stages"]
    loss: Annotated[str, "what was minimised"]
    weight: Annotated[float, "what its log-probabilities are multiplied by"]


class BehindPart(TypedDict):
    """The distance of a candidate from the best."""

    nll: Annotated[float | None, "held-out NLL minus that of the best"]
    standard_error: Annotated[float | None, "of that difference, over the rows or their clusters"]


class CandidatePart(TypedDict):
    """A candidate."""

    method: Annotated[
        str,
        'stages with `+` between them; `"stack"` for a mixture; `sms/10` is `sms` with a tenth of '
        "its penalties, `svs*10` is `svs` with ten times its",
    ]
    loss: Annotated[str, "what was minimised"]
    chosen: Annotated[bool, "whether it is the one to take; exactly one is"]
    parameters: Annotated[
        int, "numbers that were fitted; where they grow with the rows, about as many"
    ]
    seconds: Annotated[float, "wall-clock time of the fit to all rows"]
    converged: Annotated[bool, "whether every stage of it did"]
    metrics: Annotated[Mapping[str, NumberPart], "by name, of held-out rows"]
    behind: Annotated[BehindPart, "how far it is from the best"]
    members: Annotated[Sequence[MemberPart], "what a stack mixes; empty for other methods"]
    warning: NotRequired[
        Annotated[
            str,
            "why it is none to take",
            "of candidates that are worse than a plain one, or could not be fitted",
        ]
    ]


class BeforeAfterPart(TypedDict):
    """A number before and after a fit, of rows that the fit has not seen."""

    before: Annotated[float | None, "before"]
    after: Annotated[float | None, "after"]


class GroupPart(TypedDict):
    """A group."""

    name: Annotated[str, 'the value of the column; `"(missing)"` where it has none']
    rows: Annotated[int, "number of rows that were measured"]
    share: Annotated[float, "what the group's own map counts in its map, from 0 to 1"]
    learnt: Annotated[str | None, "its own map in words; null where it has none"]
    nll: Annotated[BeforeAfterPart, "of rows that the fit has not seen"]


class GroupsPart(TypedDict):
    """The groups of a fit."""

    column: Annotated[str, "the column that has them"]
    strength: Annotated[
        float | None,
        "how many rows the map of all rows counts for in every group; null stands for infinity, "
        "that is, for one map for all",
    ]
    pooled: Annotated[str, "the map of all rows in words"]
    groups: Annotated[Sequence[GroupPart], "the largest NLL afterwards first"]


Preserved: TypeAlias = Literal["order", "accuracy", "nothing"]
"""What a map leaves as it was in every row."""

PRESERVED = (
    '`"order"`: no class of a row overtakes another, though some may become tied; `"accuracy"`: '
    'the top class never changes; `"nothing"`'
)
"""What these words mean."""


class SolvedPart(TypedDict):
    """How a fit was solved."""

    loss: Annotated[
        str, 'what the answer minimises: `"nll"` where an adaptive loss kept the fit by plain nll'
    ]
    preserves: Annotated[Preserved, f"what method and link together leave as it was: {PRESERVED}"]
    converged: Annotated[bool, "whether the solver certifies its answer"]
    changed: Annotated[bool, "whether the parameter file changes any probability"]
    iterations: Annotated[int, "steps of the solver"]
    passes: Annotated[
        int,
        "passes over the data, a sample being one, of the fit to all rows; those without each fold "
        "share theirs",
    ]
    gradient_norm: Annotated[float | None, "largest component of the gradient at the answer"]
    seconds: Annotated[
        float, "wall-clock time of finding the fit, a choice among candidates included"
    ]
    device: Annotated[str, 'where it ran, for example `"cpu"`']
    notes: Annotated[Sequence[str], "what a person should know about the fit"]


class StagePart(TypedDict):
    """A fitted stage."""

    kind: Annotated[str, "what it is"]
    parameters: Annotated[Mapping[str, Any], "its parameters by name"]
    summary: NotRequired[
        Annotated[str, "what it does, in words", "of a stage whose numbers do not tell a person"]
    ]


class FitMeasurementPart(MeasurementPart):
    """A measurement before or after a fit."""

    measured_on: Annotated[
        Literal["test", "cross-fit", "input"],
        '`"test"`: the rows of `--test`. `"cross-fit"`: the rows of the input, each by a fit that '
        'has not seen it. `"input"`: the rows of the input; only in a `before` that has no `after`',
    ]
    folds: Annotated[int | None, "number of folds of a cross-fit"]


class SharesPart(TypedDict):
    """Measurements of rows that are weighted to other class shares."""

    before: Annotated[MeasurementPart, "of the input scores"]
    after: Annotated[MeasurementPart, "of the calibrated probabilities"]
    plain_nll: NotRequired[
        Annotated[
            MeasurementPart,
            "of a fit of the same stages by plain nll",
            "where the loss is improper",
        ]
    ]


class AgainstPlainPart(TypedDict):
    """A fit by an improper loss against one by plain nll, of rows that neither has seen."""

    nll: Annotated[float, "NLL of the fit, of rows with the class shares that it is for"]
    plain_nll: Annotated[float, "that of the fit of the same stages by plain nll"]
    standard_error: Annotated[float, "of their difference, rows being paired"]
    better: Annotated[
        str | None, "the loss that is better; null where the figures are the same to four digits"
    ]
    clear: Annotated[bool, "whether they differ by more than two standard errors"]


class DifferencePart(TypedDict):
    """A difference from another input of the same rows."""

    value: Annotated[float, "this input minus the other; of calibration errors of estimates"]
    low: Annotated[float, "lower end of its 95 % interval, rows being paired"]
    high: Annotated[float, "upper end"]
    p: Annotated[float, "of no difference; below 0.05 where the interval leaves out 0"]
    adjusted_p: Annotated[float, "the same, adjusted for the number of all differences (Holm)"]
    clear: Annotated[bool, "whether `adjusted_p` is below 0.05"]


class ComparedPart(TypedDict):
    """An input that is compared."""

    input: Annotated[str, "its name"]
    reason: Annotated[str | None, "why it cannot be compared"]
    metrics: Annotated[Mapping[str, DifferencePart], "by name; empty where it cannot be compared"]


class DifferencesPart(TypedDict):
    """Differences of inputs from one of them."""

    against: Annotated[str, "the input that others are compared with"]
    best_by: Annotated[str | None, "with `--against best`: the metric of which it has the best"]
    number: Annotated[int, "how many differences there are"]
    inputs: Annotated[Sequence[ComparedPart], "the others"]


class TargetPart(SharesPart):
    """Measurements with the class shares that a fit is for."""

    shares: Annotated[
        Sequence[float], "of `--target-prior`, or estimated from `--target`; they sum to 1"
    ]


class ConfidenceGapPart(TypedDict):
    """How the confidences of a target differ from what other class shares explain."""

    statistic: Annotated[
        float,
        "largest difference of the distribution functions of the target's rows and of the rows of "
        "the fit, weighted to the estimated shares",
    ]
    p: Annotated[float, "of no difference"]
    mean: Annotated[float, "mean confidence of the target's rows"]
    expected_mean: Annotated[float, "that of the weighted rows of the fit"]
    at: Annotated[float, "confidence at which the difference is largest"]
    above: Annotated[float, "share of the target's rows above it"]
    expected_above: Annotated[float, "share of the weighted rows of the fit above it"]
    clear: Annotated[bool, "whether there is a warning: p below 0.01 and a difference above 0.02"]


class ClassSharesPart(TypedDict):
    """Class shares of rows without labels, which a fit is corrected for; lists are by class."""

    input: Annotated[str, "name of the target"]
    rows: Annotated[int, "rows that the shares are estimated from"]
    fit: Annotated[Sequence[float], "shares of the rows of the fit"]
    target: Annotated[Sequence[float], "estimated shares (maximum likelihood, MLLS)"]
    low: Annotated[Sequence[float], "lower ends of their 95 % intervals"]
    high: Annotated[Sequence[float], "upper ends"]
    by_confusion: Annotated[
        Sequence[float | None],
        "the same by black-box shift estimation (BBSE), a check; null where that cannot tell",
    ]
    used: Annotated[
        Sequence[float], "shares of the correction: the estimate, drawn towards those of the fit"
    ]
    drawn: Annotated[float, "how far: 0 not at all, 1 all the way, where noise explains it all"]
    confidence: Annotated[
        ConfidenceGapPart, "whether the target's rows differ in more than their class shares"
    ]
