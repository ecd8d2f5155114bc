"""The contract of a metric: a fold over blocks of rows, and what every block offers it.

A `Statistic` is the fold; a `Metric` reads one number off a finished statistic. Metrics that need
the same sums share one statistic, so that one pass over the data serves them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from calibcli.metrics.view import View

Group: TypeAlias = Literal[
    "accuracy and ranking", "proper scores", "decomposition", "calibration errors"
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
    """

    name: str
    title: str
    convention: str
    statistic: Statistic
    value: Callable[[Any], float]
    better: Better = "lower"
    group: Group = "calibration errors"
