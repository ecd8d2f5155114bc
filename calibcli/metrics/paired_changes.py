"""The changes of metrics between two measurements of the same rows that were made apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from calibcli.metrics.pairing import PairingRecord, Recorded
from calibcli.metrics.panel import Evaluation
from calibcli.metrics.registry import METRICS
from calibcli.metrics.resampling import Interval


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

    Each holds the change of the figures.
    """
    if now.record is None or why_unpaired(now, then):
        return {}
    changes = {}
    for name in now.figures:
        metric, here, there = METRICS.get(name), now.recorded(name), then.recorded(name)
        if metric is None or metric.resampling is None or here is None or there is None:
            continue
        interval = metric.resampling.change(metric, here, there, now.record.bagged)
        changes[name] = interval.around(here.figure - there.figure)
    return changes
