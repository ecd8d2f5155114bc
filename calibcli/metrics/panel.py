"""A set of metrics, evaluated together in one pass over the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from calibcli.metrics.base import Metric, Statistic
from calibcli.metrics.binned import RELIABILITY, Bin
from calibcli.metrics.registry import DEFAULT, METRICS
from calibcli.metrics.resampling import Bootstrap, Interval
from calibcli.metrics.uncertainty import Chance
from calibcli.metrics.view import View


@dataclass(frozen=True)
class Evaluation:
    """What a panel found.

    Attributes
    ----------
    rows : int
    weight : float
        Sum of the weights; the number of rows where there are none.
    classes : int
    values : dict of str to float
        The metrics by name; ``inf`` and NaN are honest answers.
    reliability : tuple of Bin
        The 15 equal-width bins of the reliability diagram.
    also : dict of Statistic
        The finished statistics that were asked for beside the metrics.
    intervals, changes : dict of str to Interval
        95 % intervals of metrics, and of their differences from the first of several models that
        were measured together; where they were asked for.
    chances : dict of str to Chance
        What calibration errors would be of a calibrated model; where intervals were asked for.
    """

    rows: int
    weight: float
    classes: int
    values: dict[str, float]
    reliability: tuple[Bin, ...]
    also: dict[Statistic, Any] = field(default_factory=dict, compare=False, repr=False)
    intervals: dict[str, Interval] = field(default_factory=dict)
    changes: dict[str, Interval] = field(default_factory=dict)
    chances: dict[str, Chance] = field(default_factory=dict)


class PanelState(NamedTuple):
    """The size of what was seen, and the state of each statistic."""

    rows: int
    weight: float
    classes: int
    states: tuple[Any, ...]


@dataclass(frozen=True)
class Panel:
    """The statistic that evaluates several metrics at once.

    Parameters
    ----------
    names : sequence of str
        Of metrics, or of sets of them: ``"nll"``, ``"top3_accuracy"``, ``"all"``.
    also : tuple of Statistic
        Further statistics of the same pass, what diagrams are drawn from for example.
    bootstrap : Bootstrap or None
        Whether intervals are wanted, for those who can number the rows.

    Raises
    ------
    UsageError
        For a name that is no metric.
    """

    names: Sequence[str] = DEFAULT
    also: tuple[Statistic, ...] = ()
    bootstrap: Bootstrap | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", METRICS.expand(self.names))

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics, in the order of the names."""
        return tuple(METRICS.find(name) for name in self.names)

    @cached_property
    def _statistics(self) -> tuple[Statistic, ...]:
        asked = (metric.statistic for metric in self.metrics)
        shared = dict.fromkeys([RELIABILITY, *asked, *self.also])
        return tuple(shared)

    def partial(self, view: View) -> PanelState:
        """The state of one block."""
        states = tuple(statistic.partial(view) for statistic in self._statistics)
        return PanelState(len(view), view.total_weight, view.classes, states)

    def merge(self, left: PanelState, right: PanelState) -> PanelState:
        """The state of two blocks; takes over ``left``."""
        states = tuple(
            statistic.merge(a, b)
            for statistic, a, b in zip(self._statistics, left.states, right.states, strict=True)
        )
        return PanelState(left.rows + right.rows, left.weight + right.weight, left.classes, states)

    def finish(self, state: PanelState) -> Evaluation:
        """The numbers."""
        finished = {
            statistic: statistic.finish(partial)
            for statistic, partial in zip(self._statistics, state.states, strict=True)
        }
        values = {metric.name: metric.value(finished[metric.statistic]) for metric in self.metrics}
        bins = finished[RELIABILITY].bins()
        also = {statistic: finished[statistic] for statistic in self.also}
        return Evaluation(state.rows, state.weight, state.classes, values, bins, also)
