"""The contract of a metric: a fold over the rows, a number, and what chance makes of it.

A `Statistic` is the fold; a `Metric` reads one number off a finished statistic. Metrics that need
the same sums share one statistic, so that one pass over the data serves them all. How the interval
of the number, that of its change and its chance range are made is the metric's `Resampling`, which
folds a statistic of its own beside the metric's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from calibcli.arrays import Array, NumpyArray
from calibcli.metrics.pairing import Recorded
from calibcli.metrics.resampling import Bagged, Chance, Interval, Units
from calibcli.metrics.view import View

if TYPE_CHECKING:
    from calibcli.metrics.costs import Costs

Group: TypeAlias = Literal[
    "accuracy and ranking", "proper scores", "decomposition", "calibration errors", "decisions"
]
"""What a metric is about, in the order of tables."""

Better: TypeAlias = Literal["lower", "higher", ""]
"""Which values of a metric are the better ones; nothing for what a model has no part in."""


class Statistic(Protocol):
    """A fold over blocks. Implementations are frozen dataclasses: equal ones are computed once.

    States are tuples of float64 arrays (or lists of small arrays where a statistic collects).
    ``merge`` is associative; states are merged in the order of the rows.
    """

    def partial(self, view: View) -> Any:
        """The state of one block."""

    def merge(self, left: Any, right: Any) -> Any:
        """The state of two blocks."""

    def finish(self, state: Any) -> Any:
        """The statistic of all rows."""


class Additive:
    """A `Statistic` whose states are arrays of sums."""

    def merge(self, left: NumpyArray, right: NumpyArray) -> NumpyArray:
        """The sums over two blocks."""
        return left + right


class Sample(Protocol):
    """A metric of one model, and what chance may have made of it."""

    @property
    def estimate(self) -> float | None:
        """The metric without what noise adds to it; None where it adds nothing on average."""

    @property
    def interval(self) -> Interval:
        """The 95 % interval."""

    def change_from(self, before: Any) -> Interval | None:
        """The 95 % interval of the change from the first model's `Sample`, of the same rows.

        None where it cannot be told, as the two views of the rows were not seen together.
        """


class Resampling(Protocol):
    """How chance moves a metric. Implementations are frozen dataclasses.

    The kinds are `row_mean.MeanOfRows`, `class_norms.ClassNorm`, and in `confidence_cells`
    `BinNorm`, `CumulatedNorm`, `ResidualNorm`, `CurveValue` and `CurveDistance`.
    """

    @property
    def description(self) -> str:
        """What the interval and the chance range are, in words."""

    def statistic(self, metric: Metric, units: Units) -> Statistic:
        """What is folded beside the metric's own statistic.

        It finishes as a `Bagged`, or as None where there is too little room for bags.
        """

    def sample(self, metric: Metric, finished: Any, value: float) -> Sample | None:
        """The value of the metric with its noise; None where it has no interval."""

    def chance(self, metric: Metric, finished: Any) -> Chance | None:
        """What a calibrated model would have; None where that says nothing."""

    def record(self, finished: Any, sample: Any) -> NumpyArray:
        """What is kept of a sample, so that another run of the same rows can be paired with it."""

    def change(self, metric: Metric, now: Recorded, then: Recorded, bagged: Bagged) -> Interval:
        """The 95 % interval of now minus then, of runs of the same rows in the same bags."""


SHARE = (0.0, 1.0)
"""The range of shares, and of errors of probabilities."""


@dataclass(frozen=True)
class Metric:
    """A number read off a finished statistic.

    Attributes
    ----------
    name : str
        Key in JSON and on the command line, for example ``"ece"``.
    title : str
        Heading in tables, for example ``"ECE"``.
    convention : str
        Everything that must be known to compare the number with another one.
    statistic : Statistic
    value : callable
        Finished statistic -> float.
    better : Better
    group : str
        What it is about; tables of many metrics are divided by it.
    resampling : Resampling or None
        How its intervals and its chance range are made; None for a metric that has none.
    ideal : float or None
        What a calibrated model has, where that is one number and any other is wrong.
    too_high : str
        ``"above"`` or ``"below"``: where beside the ideal the confidence is too high on average.
    over_classes : bool
        Whether it is a mean over the classes, of all of which the error is that many times as much.
    ranks : bool
        Whether it depends on the order of the rows by confidence alone.
    range : (float, float)
        The smallest and the largest number that there may be.
    most_classes : int or None
        With more classes it has no interval, and is measured only where it is asked for by name.
    """

    name: str
    title: str
    convention: str
    statistic: Statistic
    value: Callable[[Any], float]
    better: Better = "lower"
    group: Group = "calibration errors"
    resampling: Resampling | None = None
    ideal: float | None = None
    too_high: Literal["", "above", "below"] = ""
    over_classes: bool = False
    ranks: bool = False
    range: tuple[float, float] = (-math.inf, math.inf)
    most_classes: int | None = None

    def with_costs(self, costs: Costs | None) -> Metric:
        """The metric where decisions have these costs; the same unless it is about them."""
        del costs
        return self

    def measure(self, logits: Array, labels: Array, weights: NumpyArray | None = None) -> float:
        """The metric of rows in memory.

        Parameters
        ----------
        logits : array (n, K)
            Logits or log-probabilities.
        labels : int array (n,)
        weights : float64 array (n,) or None
        """
        view = View(logits, labels, weights)
        return self.value(self.statistic.finish(self.statistic.partial(view)))
