"""The changes of metrics between two measurements of the same rows that were made apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from calibcli.metrics.pairing import PairingRecord, Recorded, holm, p_of_difference
from calibcli.metrics.panel import Evaluation
from calibcli.metrics.registry import METRICS
from calibcli.metrics.resampling import LEVEL, Interval


@dataclass(frozen=True)
class Run:
    """A measurement, as far as it can be paired with another one of the same rows.

    Attributes
    ----------
    figures : dict of str to float
        The value of each metric, or its estimate where it has one.
    intervals : dict of str to Interval
    record : PairingRecord or None
        None where nothing was kept.
    """

    figures: Mapping[str, float]
    intervals: Mapping[str, Interval]
    record: PairingRecord | None

    @classmethod
    def of(cls, evaluation: Evaluation) -> Run:
        """What an evaluation keeps."""
        figures = {**evaluation.values, **evaluation.estimates}
        return cls(figures, evaluation.intervals, evaluation.record)

    def recorded(self, name: str) -> Recorded | None:
        """What is kept of a metric; None where nothing is, or it is not finite."""
        figure, interval = self.figures.get(name, math.nan), self.intervals.get(name)
        numbers = None if self.record is None else self.record.metrics.get(name)
        if numbers is None or interval is None or not math.isfinite(figure):
            return None
        return Recorded(figure, interval, numbers)


def why_unpaired(now: Run, then: Run) -> str:
    """Why two runs cannot be paired; nothing where they can."""
    if now.record is None or then.record is None:
        return "nothing is kept to pair it by"
    return now.record.difference_from(then.record)


def paired_changes(now: Run, then: Run) -> dict[str, Interval]:
    """95 % intervals of now minus then, of the metrics of both; none if they cannot be paired.

    Each holds the change of the figures. A model has none from itself.
    """
    if now.record is None or why_unpaired(now, then):
        return {}
    is_same = _same_model(now, then)
    changes = {}
    for name in now.figures:
        metric, here, there = METRICS.get(name), now.recorded(name), then.recorded(name)
        if metric is None or metric.resampling is None or here is None or there is None:
            continue
        if is_same:
            changes[name] = Interval(0.0, 0.0)
            continue
        interval = metric.resampling.change(metric, here, there, now.record.bagged)
        changes[name] = interval.around(here.figure - there.figure)
    return changes


def _same_model(now: Run, then: Run) -> bool:
    """Whether all that is kept is the same, a proper score among it, which any change moves."""
    both = [name for name in now.figures if now.recorded(name) and then.recorded(name)]
    if not any(name in METRICS and METRICS[name].group == "proper scores" for name in both):
        return False
    return all(
        now.figures[name] == then.figures[name]
        and np.array_equal(now.record.metrics[name], then.record.metrics[name])
        for name in both
        if now.record is not None and then.record is not None
    )


class Difference(NamedTuple):
    """How a metric of one model differs from that of another one on the same rows.

    Attributes
    ----------
    value : float
        This model's minus the other one's; of calibration errors of estimates.
    low, high : float
        The 95 % interval, rows being paired.
    p : float
        Of no difference; below 0.05 where the interval leaves out 0.
    adjusted_p : float
        The same, adjusted for all differences that were asked for together (Holm).
    """

    value: float
    low: float
    high: float
    p: float
    adjusted_p: float

    @property
    def clear(self) -> bool:
        """Whether it is more than chance, among so many."""
        return self.adjusted_p < 1 - LEVEL


def paired_differences(runs: Sequence[Run], reference: Run) -> list[dict[str, Difference]]:
    """The differences of runs from one of the same rows, of each metric that can be paired.

    Of a run that cannot be paired there are none.
    """
    by_run = []
    for run in runs:
        values: dict[str, Difference] = {}
        for name, interval in paired_changes(run, reference).items():
            value = run.figures[name] - reference.figures[name]
            p = p_of_difference(value, interval)
            values[name] = Difference(value, *interval, p, p)
        by_run.append(values)
    places = [(values, name) for values in by_run for name in values]
    adjusted = holm([values[name].p for values, name in places])
    for (values, name), p in zip(places, adjusted, strict=True):
        values[name] = values[name]._replace(adjusted_p=p)
    return by_run
