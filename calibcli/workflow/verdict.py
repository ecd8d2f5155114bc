"""What all that was measured says of a model, in one sentence: the same in every format.

The verdict looks at the confidence (of two classes at the probability of the positive one), at
calibration errors beside their chance ranges, at numbers whose calibrated value is known, at tests
and at slices, each with its noise and with how many there are. ``docs/metrics.md`` has the rules.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from calibcli.metrics.ece import ECE
from calibcli.metrics.registry import METRICS
from calibcli.visible import visible
from calibcli.workflow.texts import (
    interval_text,
    p_value,
    percent,
    plural,
    plural_noun,
    range_text,
    significant,
    upper_end_text,
)

if TYPE_CHECKING:
    from calibcli.schema.parts import (
        MeasurementPart,
        MetricPart,
        PeriodsPart,
        SlicePart,
        SlicesPart,
        TestPart,
        VerdictPart,
    )

SMALL = 0.01
"""An error of one percentage point is called none."""

LARGE = 0.02
"""An error that matters: where the rows may hide one as large nothing is called well calibrated."""

RELATIVE = 0.1
"""Nor is an error of a tenth of what happens called any, where that is rare."""

_NOTHING = 1e-6
"""A smaller error is the rounding of probabilities that are all but 0 or 1."""

_RAREST = 1e-4
"""Where an event, or its opposite, came less often, errors are compared with this share."""

CONSIDERABLE = 0.1
"""A share of the rows that is worth a word."""

_BY_CHANCE = 0.05
"""How often chance alone may find something, in all that is looked at together."""

BY_CHANCE_OUT = 1 / 370
"""How often a period of a calibrated model is out of its limits."""

_MOST_REMARKS = 3
_NORMAL = NormalDist()
_HALF_WIDTH = _NORMAL.inv_cdf(0.975)
"""Half the width of a 95 % interval, in standard errors."""

_UNEVEN = 1.3
"""A variance so many times that of as many equal rows is one of weights or clusters."""

VerdictKind: TypeAlias = Literal["over", "under", "mixed", "good", "nearly", "unclear", "none"]
Side: TypeAlias = Literal["over", "under", "good"]

WORDS = {
    "over": "overconfident",
    "under": "underconfident",
    "mixed": "mixed",
    "good": "well calibrated",
    "nearly": "nearly calibrated",
    "unclear": "no clear error",
    "none": "no rows",
}

EVENT_WORDS = {**WORDS, "over": "too high", "under": "too low"}
"""The words for the probability of a class that need not be the predicted one."""

_LOOKS = {"nearly": "good", "unclear": "none"}


@dataclass(frozen=True)
class Verdict:
    """What was found, at a glance.

    Attributes
    ----------
    kind : str
        ``"over"`` or ``"under"`` confident; ``"mixed"``: right on average, but not everywhere;
        ``"good"``; ``"nearly"``: errors that are small, but no chance; ``"unclear"``: nothing
        found, in rows that may hide an error that matters; ``"none"`` without rows.
    says, right : float or None
        Mean confidence, and accuracy; of an event its mean probability, and how often it came.
    event : str or None
        The class whose probability the confidence is; None: the predicted class.
    remarks : tuple of str
        What else there is to say, the gravest first.
    on_average : bool
        Whether some of the rows are off to the other side.
    """

    kind: VerdictKind
    says: float | None = None
    right: float | None = None
    event: str | None = None
    remarks: tuple[str, ...] = ()
    on_average: bool = False

    @classmethod
    def of(cls, part: MeasurementPart) -> Verdict:
        """The verdict that is stored in a measurement of a document."""
        stored = part["verdict"]
        return cls(
            stored["kind"],
            stored["says"],
            stored["right"],
            stored["event"],
            tuple(stored["remarks"]),
            stored["on_average"],
        )

    def stored(self) -> VerdictPart:
        """The verdict as a document has it, with the sentence."""
        return {
            "kind": self.kind,
            "says": self.says,
            "right": self.right,
            "event": self.event,
            "on_average": self.on_average,
            "remarks": list(self.remarks),
            "text": self.text,
        }

    @property
    def word(self) -> str:
        """The kind in a word or two."""
        return _words(self.event)[self.kind]

    @property
    def look(self) -> str:
        """The kind by which it is coloured: what is unclear has no colour."""
        return _LOOKS.get(self.kind, self.kind)

    @property
    def came(self) -> str:
        """What the second figure is: how often the prediction is right, or the event came."""
        return "right" if self.event is None else "came"

    @property
    def figures(self) -> str:
        """``says 97 %, right 94 %``; nothing without rows."""
        if self.says is None or self.right is None:
            return ""
        says, right = (percent(share, fine=bool(self.event)) for share in (self.says, self.right))
        figures = f"says {says}, {self.came} {right}"
        return figures if self.event is None else f"P({self.event}) {figures}"

    @property
    def headline(self) -> str:
        """The verdict without remarks."""
        if self.says is None or self.right is None:
            return self.word
        if self.kind != "mixed":
            return f"{self.word}{' on average' if self.on_average else ''}: {self.figures}"
        # A gap that the rows cannot tell from none must not be read as none; nor as chance, since
        # the interval of a single figure may leave it out.
        far = abs(self.says - self.right) > _matters(self.right, self.event)
        lead = "on average not clearly off" if far else "right on average"
        return f"{lead} ({self.figures}), but not everywhere"

    @property
    def promise(self) -> str:
        """How far confidence that is off on average is off; nothing of any other."""
        if self.says is None or self.right is None or self.kind not in ("over", "under"):
            return ""
        points = 100 * abs(self.says - self.right)
        return (
            f" It promises {points:.1f} points too {'much' if self.kind == 'over' else 'little'}."
        )

    @property
    def text(self) -> str:
        """The verdict and its remarks, in one line for people."""
        remarks = "; ".join(self.remarks)
        return self.headline + (f"; {remarks}" if remarks else "")


class _Bin(NamedTuple):
    """A bin of the reliability diagram that has rows."""

    weight: float
    says: float
    right: float
    rows: int

    @property
    def variance(self) -> float:
        """The variance of an outcome in the bin, if what is said is true."""
        return max(self.says * (1 - self.says), 0.0)


class _Average(NamedTuple):
    """What is said and what came, on average over so many rows, with the noise of their difference.

    ``looks`` is how many things are looked at, the difference among them.
    """

    says: float
    right: float
    rows: int
    error: float
    event: str | None
    looks: int

    @property
    def gap(self) -> float:
        return self.says - self.right

    @property
    def deviations(self) -> float:
        """The difference in standard errors; the outcomes of rows come in steps of one row."""
        beyond = max(abs(self.gap) - 0.5 / self.rows, 0.0)
        return beyond / self.error if self.error > 0 else math.inf if beyond else 0.0

    @property
    def clearly(self) -> float:
        """So many standard errors are no chance, of one of all that is looked at."""
        return _NORMAL.inv_cdf(1 - _BY_CHANCE / 2 / self.looks)

    @property
    def allowed(self) -> str:
        """What is said of a figure that is off by more than chance explains of it alone."""
        return f", as one of {self.looks} figures may be by chance"


class _Finding(NamedTuple):
    """Something that speaks against calibration.

    ``clear`` is what chance does not explain, given how much is looked at; ``matters`` what is
    large enough for anybody to care; ``side`` where it lies, if it lies to one.
    """

    clear: bool
    matters: bool
    remark: str
    deviations: float = math.inf
    side: Side = "good"


def verdict(
    measured: MeasurementPart,
    *,
    slices: Sequence[SlicesPart] = (),
    tests: Sequence[TestPart] = (),
    periods: PeriodsPart | None = None,
    seen: str | None = None,
    remarks: Sequence[str] = (),
) -> Verdict:
    """What is to be said of a measurement.

    Parameters
    ----------
    measured : MeasurementPart
        Its own verdict is not looked at.
    slices : sequence of SlicesPart
    tests : sequence of TestPart
        The last is the answer of all.
    periods : PeriodsPart or None
    seen : str or None
        That a fit has seen the rows, in words; nothing is called well calibrated by them.
    remarks : sequence of str
        What else is known of the rows or the fit.
    """
    positive = measured["positive"]
    event = positive and visible(positive["name"])
    filled = [
        _Bin(part["weight"], part["confidence"], part["accuracy"], part["rows"])
        for part in measured["reliability"]
        if part["confidence"] is not None and part["accuracy"] is not None and part["weight"]
    ]
    if not filled:
        return Verdict("none", event=event)
    average = _average(measured, filled, event)
    after = (*((seen,) if seen else ()), *remarks)
    off = [finding for part in slices for finding in _off_slices(part, event)]
    off += _out_of_limits(periods) if periods else ()
    told = _told_by_tests(tests, measured)
    kind, found, on_average = _judged(measured, filled, average, off, told, seen=bool(seen))
    return Verdict(kind, average.says, average.right, event, (*found, *after), on_average)


def _judged(
    measured: MeasurementPart,
    filled: Sequence[_Bin],
    average: _Average,
    slices: Sequence[_Finding],
    tests: Sequence[_Finding],
    *,
    seen: bool,
) -> tuple[VerdictKind, tuple[str, ...], bool]:
    """The kind of the verdict, its remarks, and whether it holds on average only."""
    shares = _shares(filled, average)
    errors = [*_errors(measured, average), *_known_values(measured, average)]
    known = [each.side for each in errors if each.clear and each.matters and each.side != "good"]
    side = known[0] if known else _side(measured, average)
    if side != "good":
        other: Side = "under" if side == "over" else "over"
        against = [each.remark for each in slices if each.matters and each.side == other]
        if against:
            # Some are off to either side: all that are have to be told.
            against += [each.remark for each in slices if each.matters and each.side == side]
        if not slices and shares[other] >= CONSIDERABLE:
            word, share = _words(average.event)[other], percent(shares[other])
            against.append(f"{word} in bins with {share} of the rows")
        return side, tuple(against), bool(against)
    clear = sorted((each for each in errors if each.clear), key=lambda each: -each.deviations)
    found = [*slices, *tests, *clear]
    grave = [each.remark for each in found if each.matters]
    if grave or min(shares["over"], shares["under"]) >= CONSIDERABLE:
        return "mixed", _few(grave), False
    if found:
        return "nearly", (f"small, but no chance: {found[0].remark}",), False
    doubts = [*(each.remark for each in errors), *_hidden(measured, average)]
    return "unclear" if doubts or seen else "good", _few(doubts), False


def _words(event: str | None) -> dict[str, str]:
    return WORDS if event is None else EVENT_WORDS


def _few(remarks: Sequence[str]) -> tuple[str, ...]:
    """The first remarks, and how many more there are."""
    more = len(remarks) - _MOST_REMARKS
    return (
        *remarks[:_MOST_REMARKS],
        *([f"and {plural(more, 'more such error')}"] if more > 0 else []),
    )


def _matters(right: float, event: str | None) -> float:
    """The smallest error that matters, of confidence: less where an event is rare."""
    return min(LARGE, 2 * RELATIVE * _rarer(right, event))


def _is_small(error: float, right: float, event: str | None) -> bool:
    return abs(error) <= min(SMALL, RELATIVE * _rarer(right, event))


def _rarer(right: float, event: str | None) -> float:
    return right if event is None else max(min(right, 1 - right), _RAREST)


def _average(measured: MeasurementPart, filled: Sequence[_Bin], event: str | None) -> _Average:
    metrics = measured["metrics"]
    total = math.fsum(each.weight for each in filled)
    says = math.fsum(each.weight * each.says for each in filled) / total
    right = math.fsum(each.weight * each.right for each in filled) / total
    rows = sum(each.rows for each in filled)
    variance = math.fsum(each.weight * each.variance for each in filled) / total
    error = math.sqrt(variance / rows * _unevenness(metrics, rows))
    looks = 1 + sum("chance" in metric for metric in metrics.values())
    looks += sum(_ideal(name) is not None and "low" in metrics[name] for name in metrics)
    return _Average(says, right, rows, error, event, looks)


def _unevenness(metrics: Mapping[str, MetricPart], rows: int) -> float:
    """How much weights and clusters add to the variance of a mean, by the accuracy's interval."""
    accuracy = metrics.get("accuracy")
    low, high = _ends(accuracy)
    value = None if accuracy is None else accuracy["value"]
    if value is None or low is None or high is None or not 0 < value < 1:
        return 1.0
    ratio = ((high - low) / 2 / _HALF_WIDTH) ** 2 * rows / (value * (1 - value))
    return float(ratio) if ratio > _UNEVEN else 1.0


def _ends(metric: MetricPart | None) -> tuple[float | None, float | None]:
    """The interval of a metric."""
    return (None, None) if metric is None else (metric.get("low"), metric.get("high"))


def _ideal(name: str) -> float | None:
    """What a calibrated model has of a metric; None where that is not one number."""
    known = METRICS.get(name)
    return known.ideal if known else None


def _side(measured: MeasurementPart, average: _Average) -> Side:
    """Where the confidence is on average; a count answers for it, where it has an interval."""
    counted = any(
        name in METRICS and METRICS[name].too_high and "low" in metric
        for name, metric in measured["metrics"].items()
    )
    small = _is_small(average.gap, average.right, average.event)
    if counted or small or average.deviations <= average.clearly:
        return "good"
    return "over" if average.gap > 0 else "under"


def _errors(measured: MeasurementPart, average: _Average) -> Iterator[_Finding]:
    """Calibration errors above their chance range."""
    for name, metric in measured["metrics"].items():
        value, chance = metric["value"], metric.get("chance")
        mean, high = (None, None) if chance is None else (chance["mean"], chance["high"])
        if (
            chance is None
            or value is None
            or mean is None
            or high is None
            or not value > max(high, _NOTHING)
        ):
            continue
        spread = (high - mean) / _HALF_WIDTH
        deviations = (value - mean) / spread if spread > 0 else math.inf
        known = METRICS.get(name)
        title = known.title if known else name
        many = measured["classes"] / 2 if known and known.over_classes else 1.0
        estimate = metric.get("estimate")
        error = many * (value if estimate is None else estimate)
        beside = "" if estimate is None else f"plug-in {significant(value)}, "
        figure = significant(value if estimate is None else estimate)
        text = f"{title} {figure} ({beside}by chance {range_text(chance, value)})"
        clear = deviations > average.clearly
        if not clear:
            text += average.allowed
        matters = not _is_small(error, average.right, average.event)
        yield _Finding(clear, matters, text, deviations)


def _known_values(measured: MeasurementPart, average: _Average) -> Iterator[_Finding]:
    """Numbers that a calibrated model would have in their interval, and which are not in it."""
    for name, metric in measured["metrics"].items():
        ideal, value = _ideal(name), metric["value"]
        low, high = _ends(metric)
        if ideal is None or value is None or low is None or high is None or low <= ideal <= high:
            continue
        nearest = low if ideal < low else high
        spread = abs(value - nearest) / _HALF_WIDTH
        deviations = abs(value - ideal) / spread if spread > 0 else math.inf
        text = f"{METRICS[name].title} {significant(value)} {interval_text(metric)}, not {ideal:g}"
        clear = deviations > average.clearly
        if not clear:
            text += average.allowed
        too_high, matters = METRICS[name].too_high, abs(value - ideal) > RELATIVE
        side: Side = "good"
        if too_high:
            side = "over" if (value > ideal) == (too_high == "above") else "under"
            matters = not _is_small(average.gap, average.right, average.event)
        yield _Finding(clear, matters, text, deviations, side)


def _shares(filled: Sequence[_Bin], average: _Average) -> dict[Side, float]:
    """Shares of the rows in bins that are clearly too high, clearly too low, and neither."""
    shares: dict[Side, float] = {"over": 0.0, "under": 0.0, "good": 0.0}
    total = math.fsum(each.weight for each in filled)
    expected = math.fsum(each.weight * each.variance for each in filled) / total / average.rows
    unevenness = average.error**2 / expected if expected > 0 else 1.0
    for each in filled:
        error = math.sqrt(each.variance / each.rows * unevenness)
        own = _Average(each.says, each.right, each.rows, error, average.event, len(filled))
        side: Side = "good"
        if not _is_small(own.gap, own.right, own.event) and own.deviations > own.clearly:
            side = "over" if own.gap > 0 else "under"
        shares[side] += each.weight / total
    return shares


def _told_by_tests(tests: Sequence[TestPart], measured: MeasurementPart) -> list[_Finding]:
    """What the answer of all tests says."""
    p = tests[-1]["p"] if tests else None
    if p is None or not p < _BY_CHANCE:
        return []
    text = p_value(p)
    equal = "" if text.startswith("<") else "= "
    # Of very many rows the smallest error is no chance.
    _, bounded = _ends(measured["metrics"].get(ECE.name))
    matters = bounded is None or bounded > SMALL
    return [_Finding(True, matters, f"tests speak against calibration (p {equal}{text})")]


def _off_slices(part: SlicesPart, event: str | None) -> Iterator[_Finding]:
    """Slices that are clearly off, given how many there are, to either side."""
    every, column = part["slices"], part["column"]
    noun = "predicted class" if column is None else visible(column)
    sides: tuple[Side, Side] = ("over", "under")
    for side in sides:
        off = [entry for entry in every if _slice_side(entry) == side]
        if not off:
            continue
        word = _words(event)[side]
        counted = f"{len(off)} of {plural_noun(len(every), noun)}"
        verb = "is" if len(off) == 1 else "are"
        text = f"{counted} {verb} {word}" if event is None else f"{word} in {counted}"
        matters = any(
            not _is_small(entry["confidence"] - entry["accuracy"], entry["accuracy"], event)
            for entry in off
        )
        yield _Finding(True, matters, text, side=side)


def _out_of_limits(part: PeriodsPart) -> Iterator[_Finding]:
    """Periods above and below their control limits, where they are more than chance makes."""
    judged = [each for each in part["periods"] if each["signal"] != "too few"]
    out = sum(each["signal"] != "within" for each in judged)
    fewer = math.fsum(
        math.comb(len(judged), k) * BY_CHANCE_OUT**k * (1 - BY_CHANCE_OUT) ** (len(judged) - k)
        for k in range(out)
    )
    if not out or 1 - fewer >= _BY_CHANCE:
        return
    sides: tuple[tuple[str, str, Side], ...] = (
        ("high", "above", "under"),
        ("low", "below", "over"),
    )
    for signal, word, side in sides:
        number = sum(each["signal"] == signal for each in judged)
        if number:
            counted = f"{number} of {plural_noun(len(judged), visible(part['column']))}"
            yield _Finding(True, True, f"{word} the control limits in {counted}", side=side)


def _slice_side(entry: SlicePart) -> Side:
    p = entry["adjusted_p"]
    if p is None or not p < _BY_CHANCE:
        return "good"
    return "over" if entry["confidence"] > entry["accuracy"] else "under"


def _hidden(measured: MeasurementPart, average: _Average) -> Iterator[str]:
    """A remark on errors that matter and are not ruled out, where there are so few rows."""
    rows = plural(average.rows, "row")
    matters = _matters(average.right, average.event)
    metric = measured["metrics"].get(ECE.name)
    _, high = _ends(metric)
    if metric is not None and high is not None:
        if high > matters:
            yield f"an ECE of up to {upper_end_text(metric)} is not ruled out by {rows}"
        return
    bound = abs(average.gap) + _HALF_WIDTH * average.error
    if bound >= 1:
        yield f"{rows} can show no error"
    elif bound > matters:
        yield f"an average error of {100 * bound:.2g} points is not ruled out by {rows}"
