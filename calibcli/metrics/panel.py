"""A set of metrics, evaluated together in one pass over the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from calibcli.errors import UsageError
from calibcli.metrics.base import Metric, Statistic, View
from calibcli.metrics.binned import RELIABILITY, Bin
from calibcli.metrics.registry import DEFAULT, METRICS


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
    """

    rows: int
    weight: float
    classes: int
    values: dict[str, float]
    reliability: tuple[Bin, ...]


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
        Keys of `METRICS`; repetitions are dropped.

    Raises
    ------
    UsageError
        For a name that is no metric.
    """

    names: Sequence[str] = DEFAULT

    def __post_init__(self) -> None:
        names = tuple(dict.fromkeys(self.names))
        for name in names:
            if name not in METRICS:
                raise UsageError(f"no metric is called {name!r}; there are {', '.join(METRICS)}")
        object.__setattr__(self, "names", names)

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics, in the order of the names."""
        return tuple(METRICS[name] for name in self.names)

    @cached_property
    def _statistics(self) -> tuple[Statistic, ...]:
        shared = dict.fromkeys([RELIABILITY, *(metric.statistic for metric in self.metrics)])
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
        return Evaluation(state.rows, state.weight, state.classes, values, bins)
