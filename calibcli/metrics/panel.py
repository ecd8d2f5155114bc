"""A set of metrics, evaluated together in one pass over the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.cached import cached_property
from calibcli.metrics.base import Metric, Sample, Statistic
from calibcli.metrics.bins import RELIABILITY, Bin
from calibcli.metrics.diagrams import EVENT_LATTICE, rare_event_bins
from calibcli.metrics.pairing import IdentifiedRows, PairingRecord, RowsIdentity
from calibcli.metrics.registry import COST_METRICS, METRICS
from calibcli.metrics.resampling import Bagged, Bootstrap, Chance, Interval, Units
from calibcli.metrics.view import Event, View

if TYPE_CHECKING:
    from calibcli.metrics.costs import Costs


@dataclass(frozen=True)
class Evaluation:
    """What a panel gives: the metrics of some rows.

    Attributes
    ----------
    rows : int
    weight : float
        Sum of the weights; the number of rows where there are none.
    classes : int
    values : dict of str to float
        The metrics by name; ``inf`` and NaN are honest answers.
    reliability : tuple of Bin
        The bins of the reliability diagram: 15 of equal width, of equal mass of a rare event.
    also : dict of Statistic
        The finished statistics that were asked for beside the metrics.
    intervals, changes : dict of str to Interval
        95 % intervals of metrics, and of their differences from the first of several models that
        were measured together; where they were asked for.
    estimates : dict of str to float
        Of calibration errors: without what noise adds to them; where intervals were asked for.
    chances : dict of str to Chance
        What calibration errors would be of a calibrated model; where intervals were asked for.
    event : int or None
        The class whose probability the confidence is; None: the predicted class of each row.
    record : PairingRecord or None
        What another run of the same rows can be paired by, where that was asked for.
    design_effect : float
        How much more the residuals of clusters vary than those of as many rows; 1 without clusters.
    """

    rows: int
    weight: float
    classes: int
    values: dict[str, float]
    reliability: tuple[Bin, ...]
    also: dict[Statistic, Any] = field(default_factory=dict, compare=False, repr=False)
    intervals: dict[str, Interval] = field(default_factory=dict)
    changes: dict[str, Interval] = field(default_factory=dict)
    estimates: dict[str, float] = field(default_factory=dict)
    chances: dict[str, Chance] = field(default_factory=dict)
    event: int | None = None
    record: PairingRecord | None = field(default=None, compare=False, repr=False)
    design_effect: float = 1.0

    def figure(self, name: str) -> float:
        """The main figure of a metric: its estimate, or else its value.

        >>> import calibcli
        >>> evaluation = calibcli.evaluate([0.2, 0.7] * 200, [0, 1, 1, 1] * 100, bootstrap=200)
        >>> evaluation.figure("nll") == evaluation.values["nll"]
        True
        >>> evaluation.figure("ece") == evaluation.estimates["ece"]
        True
        """
        return self.estimates.get(name, self.values[name])


def with_ranking_of(after: Evaluation, before: Evaluation) -> Evaluation:
    """An evaluation ``after`` a map that leaves the rows in the order that they had ``before``.

    Fits to parts of the rows move them against each other, though none of these fits changes
    the order of the rows that it sees.
    """
    same = [name for name in after.values if METRICS.find(name).ranks]
    changes = {name: Interval(0.0, 0.0) for name in same if name in after.changes}
    if after.record is not None and before.record is not None:
        kept = before.record.metrics
        after.record.metrics.update({name: kept[name] for name in same if name in kept})
    return replace(
        after,
        values=after.values | {name: before.values[name] for name in same},
        intervals=after.intervals
        | {name: before.intervals[name] for name in same if name in before.intervals},
        changes=after.changes | changes,
    )


class PanelState(NamedTuple):
    """The size of what was seen, the event of its views, and the state of each statistic."""

    rows: int
    weight: float
    classes: int
    event: int | None
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
    units : Units or None
        What is resampled for the intervals; without, there are none.
    event : Event
        What the confidence is of, for those who make views.
    classes : int or None
        How many there are, where the default names of metrics shall depend on it.
    costs : Costs or None
        What decisions cost, where their mean cost is to be measured too.
    recorded : bool
        Whether to keep what another run of the same rows can be paired by, if there are intervals.
    identity : RowsIdentity or None
        Which rows these are, for what is kept.

    Raises
    ------
    UsageError
        For a name that is no metric.
    """

    names: Sequence[str] = ("default",)
    also: tuple[Statistic, ...] = ()
    bootstrap: Bootstrap | None = None
    units: Units | None = None
    event: Event = "auto"
    classes: int | None = None
    costs: Costs | None = None
    recorded: bool = False
    identity: RowsIdentity | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(dict.fromkeys(self.names)))
        METRICS.expand(self.names)

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics, in the order of the names."""
        names = list(self.names)
        if "default" in names:
            place = names.index("default")
            usual = METRICS.expand([self._usual])
            left_out = {metric.name for metric in self.left_out}
            names[place : place + 1] = [name for name in usual if name not in left_out]
        if self.costs is not None:
            names += COST_METRICS
        return tuple(METRICS.find(n).with_costs(self.costs) for n in METRICS.expand(names))

    @property
    def _usual(self) -> str:
        return "two-classes" if self.classes == 2 else "default"

    @property
    def left_out(self) -> tuple[Metric, ...]:
        """What is measured by default, but not of so many classes."""
        if "default" not in self.names:
            return ()
        return tuple(
            metric
            for metric in map(METRICS.find, METRICS.expand([self._usual]))
            if self._is_beyond(metric) and metric.name not in self.names
        )

    def _is_beyond(self, metric: Metric) -> bool:
        most = metric.most_classes
        return most is not None and self.classes is not None and self.classes > most

    @property
    def note(self) -> str | None:
        """A line on what is left out, or has no interval, since the classes are too many."""
        left_out = self.left_out
        bare = [metric for metric in self.metrics if self._is_beyond(metric)]
        if left_out:
            asked = ",".join(("default", *(metric.name for metric in left_out)))
            said, how = "left out", f"; --metrics {asked} measures it without"
        elif bare and self.bootstrap is not None and self.bootstrap.replicates:
            said, how = "without interval", ""
        else:
            return None
        titles = [metric.title for metric in left_out or bare]
        most = min(metric.most_classes or 0 for metric in left_out or bare)
        return (
            f"{', '.join(titles)}: {said} for {self.classes:,} classes, since more than {most:,} "
            f"leave too little room for an interval{how}"
        )

    @cached_property
    def _resampled(self) -> dict[str, Statistic]:
        """The statistic behind the uncertainty of each metric that has any."""
        if self.units is None:
            return {}
        return {
            metric.name: metric.resampling.statistic(metric, self.units)
            for metric in self.metrics
            if metric.resampling is not None
        }

    @cached_property
    def _statistics(self) -> tuple[Statistic, ...]:
        asked = (metric.statistic for metric in self.metrics)
        drawn: list[Statistic] = [RELIABILITY, EVENT_LATTICE]
        if self.identity is not None:
            drawn.append(self.identity)
        shared = dict.fromkeys([*drawn, *asked, *self.also, *self._resampled.values()])
        return tuple(shared)

    def partial(self, view: View) -> PanelState:
        """The state of one block."""
        states = tuple(statistic.partial(view) for statistic in self._statistics)
        return PanelState(len(view), view.total_weight, view.classes, view.event, states)

    def merge(self, left: PanelState, right: PanelState) -> PanelState:
        """The state of two blocks; takes over ``left``."""
        states = tuple(
            statistic.merge(a, b)
            for statistic, a, b in zip(self._statistics, left.states, right.states, strict=True)
        )
        rows, weight = left.rows + right.rows, left.weight + right.weight
        return PanelState(rows, weight, left.classes, left.event, states)

    def finish(self, state: PanelState) -> Evaluation:
        """The numbers."""
        return self.finish_all([state])[0]

    def finish_all(
        self, states: Sequence[PanelState], spread: Callable[..., Iterator[Any]] = map
    ) -> list[Evaluation]:
        """The numbers of several models of the same rows, with changes from the first.

        Parameters
        ----------
        states : sequence of PanelState
        spread : callable
            As `map`; where it uses threads, a metric of a model is worked on in each.
        """
        finished = list(spread(self._finished, states))
        evaluations = [self._evaluation(*pair) for pair in zip(states, finished, strict=True)]
        if not self._resampled:
            return evaluations
        # Metric by metric, as the replicates of many classes are large: those of one are left, its
        # changes found, while the next ones are worked on.
        models = list(zip(evaluations, finished, strict=True))
        metrics, *asked = zip(*((m, *model) for m in self.metrics for model in models), strict=True)
        found = iter(spread(self._uncertainty, metrics, *asked))
        for metric in self.metrics:
            self._add_uncertainty(metric, evaluations, found)
        return evaluations

    def _finished(self, state: PanelState) -> dict[Statistic, Any]:
        return {
            statistic: statistic.finish(partial)
            for statistic, partial in zip(self._statistics, state.states, strict=True)
        }

    def _evaluation(self, state: PanelState, finished: dict[Statistic, Any]) -> Evaluation:
        values = {metric.name: metric.value(finished[metric.statistic]) for metric in self.metrics}
        rare = rare_event_bins(finished[EVENT_LATTICE])
        bins = finished[RELIABILITY].bins() if rare is None else rare.bins()
        also = {statistic: finished[statistic] for statistic in self.also}
        size = state.rows, state.weight, state.classes
        record = None
        if self.identity is not None:
            rows: IdentifiedRows = finished[self.identity]
            record = PairingRecord(rows.rows, rows.bagged, {})
        resampled = (finished[statistic] for statistic in self._resampled.values())
        effects = [bagged.design_effect for bagged in resampled if bagged is not None]
        return Evaluation(
            *size,
            values,
            bins,
            also,
            event=state.event,
            record=record,
            design_effect=max(effects, default=1.0),
        )

    def _add_uncertainty(
        self,
        metric: Metric,
        evaluations: Sequence[Evaluation],
        found: Iterator[_Uncertainty | None],
    ) -> None:
        """Write what is ``found`` next of a metric into the evaluations, with the changes."""
        name, first = metric.name, evaluations[0]
        before: Sample | None = None
        for evaluation in evaluations:
            uncertainty = next(found)
            if uncertainty is None:
                continue
            uncertainty.write(name, evaluation)
            sample = uncertainty.sample
            if evaluation is first:
                before = sample
            elif sample is not None and before is not None:
                is_same = self._same_scores(evaluation, first)
                interval = Interval(0.0, 0.0) if is_same else sample.change_from(before)
                if interval is not None:
                    change = evaluation.figure(name) - first.figure(name)
                    evaluation.changes[name] = interval.around(change)

    def _same_scores(self, evaluation: Evaluation, first: Evaluation) -> bool:
        """Whether a model has the values of the first, a proper score among them."""
        proper = any(metric.group == "proper scores" for metric in self.metrics)
        return proper and evaluation.values == first.values

    def _uncertainty(
        self, metric: Metric, evaluation: Evaluation, statistics: dict[Statistic, Any]
    ) -> _Uncertainty | None:
        """What is known of a metric of one model, if anything; the evaluation is only read."""
        resampling, name = metric.resampling, metric.name
        if resampling is None:
            return None
        bagged: Bagged | None = statistics[self._resampled[name]]
        value = evaluation.values[name]
        if bagged is None or bagged.filled < 2 or not math.isfinite(value):
            return None
        chance = resampling.chance(metric, bagged)
        sample = resampling.sample(metric, bagged, value)
        if sample is None:
            return _Uncertainty(chance)
        # The true error of which this one is the median may be larger; noise only adds.
        estimate = None if sample.estimate is None else min(sample.estimate, value)
        figure = value if estimate is None else estimate
        interval = sample.interval.within(*metric.range).around(figure)
        numbers = None
        if evaluation.record is not None:
            numbers = resampling.record(bagged, sample).astype(np.float32)
        return _Uncertainty(chance, sample, estimate, interval, numbers)


class _Uncertainty(NamedTuple):
    """What chance may have made of a metric of one model; see `Resampling` and `Sample`."""

    chance: Chance | None
    sample: Sample | None = None
    estimate: float | None = None
    interval: Interval | None = None
    record: NumpyArray | None = None

    def write(self, name: str, evaluation: Evaluation) -> None:
        """Into the evaluation of the model, as that of a metric."""
        if self.chance is not None:
            evaluation.chances[name] = self.chance
        if self.estimate is not None:
            evaluation.estimates[name] = self.estimate
        if self.interval is not None:
            evaluation.intervals[name] = self.interval
        if self.record is not None and evaluation.record is not None:
            evaluation.record.metrics[name] = self.record
