"""What conditions compare: numbers of a result document, each with its interval.

A `Quantity` is a metric of all rows, a `SliceQuantity` one of the rows of a slice, a `WorstSlice`
the worst of the slices of a column, and `FailedParts` how many slices or periods are clearly wrong.
Each says how it is written, what must be measured for it, and reads itself from a `Subject`.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias, cast

from calibcli.metrics.registry import METRICS
from calibcli.metrics.resampling import LEVEL, Interval

if TYPE_CHECKING:
    from calibcli.schema.parts import (
        GateSlicePart,
        IntervalPart,
        MetricPart,
        NumberPart,
        PeriodsPart,
        SlicePart,
        SlicesPart,
    )

Measurement: TypeAlias = Literal[
    "", "before", "after", "change", "baseline", "delta", "chance", "trend", "band"
]
End: TypeAlias = Literal["", "estimate", "low", "high"]
Metrics: TypeAlias = "Mapping[str, MetricPart]"
"""Metrics by name."""

PREDICTED = "class"
"""How a condition calls the slices of the predicted classes; a column of that name is quoted."""

PLAIN_WORD = r"""[^\s\[\]()=<>!,"']+"""
"""The words that need no quotes: they have no space, bracket, sign, comma or quote."""


def quoted(word: str) -> str:
    """A word as a condition has it, in quotes where it needs them."""
    special = set(" \t\r\n[]()=<>!,\"'") & set(word)
    bare = word and not special and not any(letter.isspace() for letter in word)
    return word if bare else '"{}"'.format(word.replace('"', '""'))


class Estimate(NamedTuple):
    """A number and its 95 % interval; NaN is what is not known."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def exact(self) -> bool:
        """Whether there is nothing uncertain about it."""
        return self.low == self.value == self.high

    def mirrored(self) -> Estimate:
        """The estimate of the negative of the number."""
        return Estimate(-self.value, -self.high, -self.low)

    def shifted(self, by: float) -> Estimate:
        """The estimate of the number minus another one that is known."""
        return Estimate(*(number - by for number in self))

    def widened(self, times: float) -> Estimate:
        """The same number, with the ends so many times as far from it."""
        return Estimate(
            self.value,
            self.value - times * (self.value - self.low),
            self.value + times * (self.high - self.value),
        )

    def end(self, which: End) -> Estimate:
        """One end of the interval as a number that is known; the estimate itself for ``""``."""
        if which in ("", "estimate"):
            return self
        number = self.low if which == "low" else self.high
        return Estimate(number, number, number)


class OverRuns(NamedTuple):
    """What a metric has over runs, or why that is not known."""

    estimate: Estimate
    absence: str


@dataclass(frozen=True)
class Subject:
    """What gates are judged on: the measurements of one input.

    Attributes
    ----------
    name : str
        The input that was measured.
    now : mapping
        Its metrics; of a fit those afterwards.
    before, baseline : mapping or None
        Of the same rows before the fit, and of an earlier run.
    slices : sequence of SlicesPart
    periods : PeriodsPart or None
        What was expected and observed by period.
    paired : mapping of str to Interval
        Intervals of now minus the baseline, of the metrics of the same rows in both.
    over_runs : mapping of (str, str) to OverRuns
        Of runs: by metric and ``"trend"`` or ``"band"`` its slope a run, and the band of the last
        run.
    """

    name: str
    now: Metrics
    before: Metrics | None = None
    baseline: Metrics | None = None
    slices: Sequence[SlicesPart] = ()
    periods: PeriodsPart | None = None
    paired: Mapping[str, Interval] = field(default_factory=dict)
    over_runs: Mapping[tuple[str, str], OverRuns] = field(default_factory=dict)


@dataclass(frozen=True)
class Division:
    """What divides the rows into slices: a column, or the class that is predicted.

    Attributes
    ----------
    column : str or None
        None: the predicted class.
    """

    column: str | None

    def __str__(self) -> str:
        if self.column is None:
            return PREDICTED
        return f'"{PREDICTED}"' if self.column == PREDICTED else quoted(self.column)

    def slices(self, subject: Subject) -> Sequence[SlicePart]:
        """The slices that a subject has of it."""
        parts = [part["slices"] for part in subject.slices if part["column"] == self.column]
        return parts[0] if parts else []


class Operand(ABC):
    """One side of a condition; the default is a number of the whole input that is known exactly."""

    of_slices: ClassVar[bool] = False
    """Whether it is about parts of the rows."""

    in_order: ClassVar[bool] = False
    """Whether those are periods, in their order."""

    def metrics(self) -> tuple[str, ...]:
        """The metrics of all rows that must be measured for it."""
        return ()

    def divided_by(self) -> tuple[Division, ...]:
        """The slices that must be measured for it."""
        return ()

    @property
    def uncertain(self) -> bool:
        """Whether it has an interval of its own: no end of one, nor what chance would give."""
        return False

    @property
    def needs_intervals(self) -> bool:
        """Whether it is there only where intervals are."""
        return False

    @abstractmethod
    def estimate(self, subject: Subject) -> Estimate:
        """The number, with its interval where it has one."""

    def main_figure(self, subject: Subject) -> Estimate:
        """What tables show of it: of a plug-in the estimate; any other number itself."""
        return self.estimate(subject)

    def absence(self, subject: Subject) -> str:
        """Why the number is not known."""
        return f"{self} is not known"

    def slice_part(self, subject: Subject) -> GateSlicePart | None:
        """The slice that the number is of, and out of how many; None of all rows."""
        return None


@dataclass(frozen=True)
class Quantity(Operand):
    """A metric of all rows of an input.

    Attributes
    ----------
    metric : str
    stage : str
        Which measurement of it; nothing for the plain name.
    end : str
        Which end of its interval, or its unbiased estimate; nothing for the number itself.
    """

    metric: str
    stage: Measurement = ""
    end: End = ""

    def __str__(self) -> str:
        return ".".join(filter(None, (self.metric, self.stage, self.end)))

    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)

    @property
    def measured(self) -> Measurement:
        """The measurement; that of the plain name is the one after a fit."""
        return "" if self.stage == "after" else self.stage

    @property
    def uncertain(self) -> bool:
        return self.end in ("", "estimate") and self.stage not in ("chance", "band")

    @property
    def needs_intervals(self) -> bool:
        return bool(self.end) or self.stage == "chance"

    def estimate(self, subject: Subject) -> Estimate:
        if self.stage == "chance":
            entry = subject.now.get(self.metric)
            chance = entry.get("chance") if entry else None
            estimate = read_estimate(chance and chance["mean"], chance)
        elif self.is_of_runs:
            estimate = self._over_runs(subject).estimate
        elif self._is_change:
            estimate = left_minus_right(Quantity(self.metric), self._against(subject), subject)
        else:
            entry = self._entry(subject)
            key: Literal["estimate", "value"] = "estimate" if self.end == "estimate" else "value"
            estimate = read_estimate(entry.get(key) if entry else None, entry)
        if self.uncertain:
            return estimate
        return estimate.end(self.end) if self.end else Estimate(*[estimate.value] * 3)

    def main_figure(self, subject: Subject) -> Estimate:
        """The estimate of the metric where it has one, else its value."""
        if not self.uncertain or self.is_of_runs:
            return self.estimate(subject)
        if self._is_change:
            now, then = Quantity(self.metric), self._against(subject)
            value = now.main_figure(subject).value - then.main_figure(subject).value
            return self.estimate(subject)._replace(value=value)
        entry = self._entry(subject)
        return read_estimate(entry.get("estimate", entry["value"]) if entry else None, entry)

    def absence(self, subject: Subject) -> str:
        why = self._over_runs(subject).absence if self.is_of_runs else ""
        return f"{super().absence(subject)}{': ' if why else ''}{why}"

    @property
    def is_of_runs(self) -> bool:
        """Whether it takes several runs."""
        return self.stage in ("trend", "band")

    def _over_runs(self, subject: Subject) -> OverRuns:
        return subject.over_runs.get((self.metric, self.stage), OverRuns(Estimate(math.nan), ""))

    @property
    def _is_change(self) -> bool:
        return self.stage in ("delta", "change")

    def _against(self, subject: Subject) -> Quantity:
        """What the change of the metric is from."""
        earlier = subject.baseline is not None and self.stage == "delta"
        return Quantity(self.metric, "baseline" if earlier else "before")

    def _entry(self, subject: Subject) -> MetricPart | None:
        """What the document has of the metric, in this measurement of it."""
        stages = {"": subject.now, "before": subject.before, "baseline": subject.baseline}
        return (stages[self.measured] or {}).get(self.metric)


@dataclass(frozen=True)
class _SliceMetric(Operand):
    """A metric of one of the slices of a column, or an end of its interval."""

    metric: str
    by: Division
    end: End = field(default="", kw_only=True)
    of_slices = True

    def divided_by(self) -> tuple[Division, ...]:
        return (self.by,)

    @property
    def uncertain(self) -> bool:
        """Whether it is no end of an interval."""
        return not self.end


@dataclass(frozen=True)
class SliceQuantity(_SliceMetric):
    """A metric of the rows of one slice: ``ece[subject=law]``."""

    value: str

    def __str__(self) -> str:
        return f"{self.metric}[{self.by}={quoted(self.value)}]{f'.{self.end}' if self.end else ''}"

    def estimate(self, subject: Subject) -> Estimate:
        """The number of the slice; NaN where there is no such slice."""
        return _of_slice(self._slice(subject), self.metric).end(self.end)

    def main_figure(self, subject: Subject) -> Estimate:
        if self.end:
            return self.estimate(subject)
        return _of_slice(self._slice(subject), self.metric, main=True)

    def absence(self, subject: Subject) -> str:
        """That there is no such slice, and what there is."""
        names = [str(each["name"]) for each in self.by.slices(subject)]
        if self._slice(subject) is not None:
            return super().absence(subject)
        close = get_close_matches(self.value, names, n=1)
        listed = ", ".join(map(quoted, names[:10])) + (", …" if names[10:] else "")
        hint = f"did you mean {quoted(close[0])}?" if close else f"there are {listed or 'none'}"
        return f"no row has {self.by}={quoted(self.value)}; {hint}"

    def slice_part(self, subject: Subject) -> GateSlicePart | None:
        """The slice."""
        return {"column": self.by.column, "name": self.value, "of": 1}

    def _slice(self, subject: Subject) -> SlicePart | None:
        slices = self.by.slices(subject)
        return next((each for each in slices if each["name"] == self.value), None)


@dataclass(frozen=True)
class WorstSlice(_SliceMetric):
    """A metric of the slice that has the worst of it: ``worst(ece) by subject``.

    The worst of many numbers is bad by chance alone, so its interval holds for all slices at once:
    it goes from the worst of their lower ends to the worst of their upper ends, each as far from
    its value as a normal distribution's is at a level of 1 - 5 % / S (Bonferroni).
    """

    def __str__(self) -> str:
        return f"worst({'.'.join(filter(None, (self.metric, self.end)))}) by {self.by}"

    def estimate(self, subject: Subject) -> Estimate:
        """The worst number; NaN where there are no slices or one of them has none."""
        slices = self.by.slices(subject)
        if not slices:
            return Estimate(math.nan)
        times = simultaneous(len(slices))
        columns = zip(*(each.widened(times) for each in self._estimates(slices)), strict=True)
        ends = [math.nan if any(map(math.isnan, each)) else self._worst(each) for each in columns]
        # No slice has a metric below 0.
        return Estimate(ends[0], max(ends[1], 0.0), ends[2]).end(self.end)

    def main_figure(self, subject: Subject) -> Estimate:
        """The estimate of the slice that has the worst number."""
        number, part = self.estimate(subject), self.slice_part(subject)
        if self.end or part is None or part["name"] is None:
            return number
        quantity = SliceQuantity(self.metric, self.by, part["name"])
        return number._replace(value=quantity.main_figure(subject).value)

    def absence(self, subject: Subject) -> str:
        """Which slice has no such number, or that there are none."""
        slices = self.by.slices(subject)
        pairs = zip(slices, self._estimates(slices), strict=True)
        name = next((part["name"] for part, each in pairs if math.isnan(each.value)), None)
        if name is None:
            return super().absence(subject)
        return f"{SliceQuantity(self.metric, self.by, name)} is not known"

    def slice_part(self, subject: Subject) -> GateSlicePart | None:
        """The slice whose number or end it is."""
        slices = self.by.slices(subject)
        times = simultaneous(max(len(slices), 1))
        ends = [e.widened(times).end(self.end).value for e in self._estimates(slices)]
        known = [number for number in ends if not math.isnan(number)]
        name = slices[ends.index(self._worst(known))]["name"] if known else None
        return {"column": self.by.column, "name": name, "of": len(slices)}

    def _estimates(self, slices: Sequence[SlicePart]) -> list[Estimate]:
        return [_of_slice(each, self.metric) for each in slices]

    def _worst(self, numbers: Sequence[float]) -> float:
        return (min if METRICS[self.metric].better == "higher" else max)(numbers)


class PartOutcome(NamedTuple):
    """A part of the rows, and whether it is clearly wrong; None where nothing can be said of it."""

    name: str
    failed: bool | None


@dataclass(frozen=True)
class FailedParts(Operand):
    """How many slices or periods are clearly wrong.

    Attributes
    ----------
    by : Division or None
        None: all that were measured.
    """

    by: Division | None = None
    of_slices = True
    noun: ClassVar[str] = ""

    def __str__(self) -> str:
        return f"{self.noun}s.failed" + (f" by {self.by}" if self.by else "")

    def divided_by(self) -> tuple[Division, ...]:
        return (self.by,) if self.by else ()

    @abstractmethod
    def outcomes(self, subject: Subject) -> list[PartOutcome]:
        """The parts of the rows that it counts."""

    def estimate(self, subject: Subject) -> Estimate:
        """Their number; NaN where there are none to look at, or nothing can be said of any."""
        known = [each.failed for each in self.outcomes(subject) if each.failed is not None]
        if not known:
            return Estimate(math.nan)
        count = float(sum(known))
        return Estimate(count, count, count)

    def absence(self, subject: Subject) -> str:
        """That there are none, or that all are too small."""
        why = f"there are no {self.noun}s"
        if self.outcomes(subject):
            why = f"every {self.noun} is too small to tell"
        return f"{self} is not known: {why}"

    def slice_part(self, subject: Subject) -> GateSlicePart | None:
        """Which of them failed first, and how many there are."""
        outcomes = self.outcomes(subject)
        name = next((each.name for each in outcomes if each.failed), None)
        column = self.by.column if self.by else None
        return {"column": column, "name": name, "of": len(outcomes)}


@dataclass(frozen=True)
class FailedSlices(FailedParts):
    """How many slices are clearly wrong: adjusted for their number, p is at most 5 %."""

    noun = "slice"

    def outcomes(self, subject: Subject) -> list[PartOutcome]:
        """Every slice."""
        every = [part["slices"] for part in subject.slices] if self.by is None else ()
        slices = itertools.chain(*every) if self.by is None else self.by.slices(subject)
        return [PartOutcome(str(each["name"]), _clearly_wrong(each)) for each in slices]


@dataclass(frozen=True)
class FailedPeriods(FailedParts):
    """In how many periods more or fewer events came than the control limits allow."""

    noun = "period"
    in_order = True

    def outcomes(self, subject: Subject) -> list[PartOutcome]:
        """Every period; nothing can be said of one of few events, which has no limits."""
        part = subject.periods
        if part is None or (self.by is not None and part["column"] != self.by.column):
            return []
        return [
            PartOutcome(each["name"], None if each["low"] is None else each["signal"] != "within")
            for each in part["periods"]
        ]


def simultaneous(count: int) -> float:
    """How much longer intervals become that hold for so many numbers at once (Bonferroni)."""
    normal, tail = NormalDist(), (1 - LEVEL) / 2
    return normal.inv_cdf(tail / count) / normal.inv_cdf(tail)


def read_estimate(
    value: float | None, interval: IntervalPart | MetricPart | None = None
) -> Estimate:
    """Numbers of a document; null, as JSON has it for NaN and infinity, is not known."""
    low, high = (interval.get("low"), interval.get("high")) if interval else (None, None)
    numbers = (value, low, high)
    return Estimate(*(math.nan if number is None else float(number) for number in numbers))


def left_minus_right(left: Operand, right: Operand, subject: Subject) -> Estimate:
    """Left minus right, with an interval where there is one."""
    first, second = left.estimate(subject), right.estimate(subject)
    if not right.uncertain:
        return first.shifted(second.value)
    if not left.uncertain:
        return second.shifted(first.value).mirrored()
    value = Estimate(first.value - second.value)
    if not (isinstance(left, Quantity) and isinstance(right, Quantity)):
        return value
    if left.metric != right.metric:
        return value
    sides = (left.measured, right.measured)
    if sides in (("", "before"), ("before", "")):
        entry = subject.now.get(left.metric)
        change = read_estimate(None, entry.get("change") if entry else None)
        signed = change if sides[0] == "" else change.mirrored()
        return Estimate(value.value, signed.low, signed.high)
    return _since_baseline(left, right, subject) if "baseline" in sides else value


def _since_baseline(left: Quantity, right: Quantity, subject: Subject) -> Estimate:
    """Left minus right, one of them of the baseline: paired where the rows are the same."""
    sides = (left.measured, right.measured)
    paired = subject.paired.get(left.metric) if "" in sides else None
    if paired is None:
        change = unpaired(*(each.main_figure(subject) for each in (left, right)))
    elif sides[0] == "":
        change = Estimate(math.nan, *paired)
    else:
        change = Estimate(math.nan, *paired).mirrored()
    value = left.estimate(subject).value - right.estimate(subject).value
    # Of errors the interval is that of the difference of estimates.
    return Estimate(value, min(change.low, value), max(change.high, value))


def unpaired(first: Estimate, second: Estimate) -> Estimate:
    """The difference of two independent estimates, with an interval from theirs.

    Their distances to the ends are added as standard errors are, each on its side (Zou and Donner,
    2008, doi:10.1002/sim.3095). Of the same rows, whose errors go together, it is too wide: see
    `calibcli.metrics.paired_changes`.
    """
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, value - below, value + above)


def _of_slice(part: SlicePart | None, metric: str, *, main: bool = False) -> Estimate:
    """A number of a slice; if ``main`` its estimate where it has one."""
    entry = None if part is None else cast("Mapping[str, Any]", part).get(metric)
    if isinstance(entry, Mapping):
        number = cast("NumberPart", entry)
        value = number.get("estimate", number["value"]) if main else number["value"]
        return read_estimate(value, number)
    return read_estimate(entry)


def _clearly_wrong(part: SlicePart) -> bool:
    p = part["adjusted_p"]
    return p is not None and p <= 1 - LEVEL
