"""The contract of a metric: a fold over blocks of rows, and what every block offers it.

A `Statistic` is the fold; a `Metric` reads one number off a finished statistic. Metrics that need
the same sums share one statistic, so that one pass over the data serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from calibcli.arrays import (
    Array,
    argmax,
    dot_classes,
    like,
    namespace,
    pick,
    shift,
    sum_classes,
    sum_rows,
    to_numpy,
)

Vector = np.ndarray[Any, Any]

Group: TypeAlias = Literal[
    "accuracy and ranking", "proper scores", "decomposition", "calibration errors"
]
"""What a metric is about, in the order of tables."""

Better: TypeAlias = Literal["lower", "higher", ""]
"""Which values of a metric are the better ones; nothing for what a model has no part in."""


class View:
    """A block of rows as metrics see it; what several of them need is computed once.

    Parameters
    ----------
    logits : array (n, K)
        Logits or log-probabilities, on any device.
    labels : int array (n,)
        On the same device.
    weights : float64 array (n,), on the host, or None for weights of 1
    start : int
        Number of the first row; the rows are consecutive.
    keys : dict of str to int64 array (n,), on the host, or None
        Numbers of groups by role: ``"by"``, ``"cluster"``.

    The matrices stay where they are; the vectors are NumPy arrays on the host.
    """

    def __init__(
        self,
        logits: Array,
        labels: Array,
        weights: Vector | None = None,
        *,
        start: int = 0,
        keys: Mapping[str, Vector] | None = None,
    ) -> None:
        self.shifted = shift(logits)
        self.device_labels = labels
        self._weights = weights
        self.start, self.keys = start, keys or {}

    def __len__(self) -> int:
        return int(self.shifted.shape[0])

    @property
    def classes(self) -> int:
        """The number of classes K."""
        return int(self.shifted.shape[1])

    @cached_property
    def probs(self) -> Array:
        """Probabilities (n, K), on the device."""
        exponentials = namespace(self.shifted).exp(self.shifted)
        self._total = sum_classes(exponentials)
        return exponentials / self._total[:, None]

    @cached_property
    def class_mass(self) -> Vector:
        """Sum over the rows of weight x probability (K,), float64."""
        probs = self.probs
        if self.weighted:
            probs = probs * like(self.weights, probs)[:, None]
        return sum_rows(probs)

    @cached_property
    def total(self) -> Array:
        """Sum (n,) of the exponentials of the logits minus their largest, on the device."""
        _ = self.probs
        return self._total

    @cached_property
    def labels(self) -> Vector:
        """Labels (n,)."""
        return to_numpy(self.device_labels)

    @property
    def weighted(self) -> bool:
        """Whether the rows have weights of their own."""
        return self._weights is not None

    @cached_property
    def weights(self) -> Vector:
        """Weights (n,), float64."""
        return np.ones(len(self)) if self._weights is None else self._weights

    @cached_property
    def total_weight(self) -> float:
        """The sum of the weights; the number of rows where there are none."""
        return float(self.weights.sum()) if self.weighted else float(len(self))

    @cached_property
    def prediction(self) -> Vector:
        """The most probable class (n,); the first of equals."""
        return to_numpy(argmax(self.shifted))

    @cached_property
    def confidence(self) -> Vector:
        """The largest probability (n,), float64."""
        return to_numpy(1 / self.total).astype(np.float64)

    @cached_property
    def correct(self) -> Vector:
        """Whether the most probable class is the label (n,), bool."""
        correct: Vector = self.prediction == self.labels
        return correct

    @cached_property
    def true_log_prob(self) -> Vector:
        """Log-probability of the label (n,), float64."""
        own = pick(self.shifted, self.device_labels)
        return to_numpy(own - namespace(own).log(self.total)).astype(np.float64)

    @cached_property
    def true_prob(self) -> Vector:
        """Probability of the label (n,), float64; exactly the element of `probs`."""
        return to_numpy(pick(self.probs, self.device_labels)).astype(np.float64)

    @cached_property
    def squared_error(self) -> Vector:
        """``sum_k (p_k - [y = k])^2`` (n,), float64, expanded: no one-hot matrix is formed.

        For a perfect prediction in float32 rounding may leave about -1e-7.
        """
        squares = dot_classes(self.probs, self.probs)
        error: Vector = to_numpy(squares) - 2.0 * self.true_prob + 1.0
        return error

    @cached_property
    def label_rank(self) -> Vector:
        """How many classes come before the label (n,): more probable, or as probable and first."""
        xp = namespace(self.shifted)
        own = pick(self.shifted, self.device_labels)[:, None]
        ahead = to_numpy(xp.sum(self.shifted > own, axis=-1))
        level = to_numpy(xp.sum(self.shifted == own, axis=-1))
        (tied,) = np.nonzero(level > 1)
        if len(tied):
            equal = to_numpy(self.shifted == own)[tied]
            before = np.arange(self.classes) < self.labels[tied, None]
            ahead[tied] += (equal & before).sum(axis=-1)
        return ahead


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
