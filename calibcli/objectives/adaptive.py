"""The contract of an adaptive objective: one whose form is learnt from data between solves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np

from calibcli.arrays import Array, NumpyArray, host_weights, namespace, sum_rows, to_numpy
from calibcli.objectives.base import Objective
from calibcli.objectives.likelihood import Likelihood


class LearntState(ABC):
    """What an adaptive objective has learnt: a frozen dataclass of numbers and arrays."""

    @abstractmethod
    def trace(self) -> dict[str, Any]:
        """The state as numbers and lists, for a person to follow."""

    @abstractmethod
    def change(self, before: Any) -> float:
        """How far this state is from the one before; 0 for equal ones, infinite where unknown."""


class Adaptive(Objective):
    """A frozen dataclass of options and one field `state`, which is None at first.

    Between two updates the objective is a fixed function of logits and labels, so that a solver's
    line search is honest. Before the first update every adaptive objective is defined too.

    A loop takes the statistic of every block at the current logits, adds them up, and goes on with
    the updated objective::

        state = data.fold(lambda block: objective.statistic(...), operator.add)
        objective = objective.updated(state)

    `learns` says when and from which rows. Losses that learn "in rounds" are `LearntInRounds`.
    Those that learn "at every point" are to be given the statistic anew wherever terms are asked
    for, before them: loss and gradient are then those of the whole. The statistic of those that
    learn "class weights" is the sum of the row weights of each class (K,).

    Attributes
    ----------
    settles_at : float
        A change of state (see `settled`) that is small enough to stop.
    """

    state: Any
    settles_at: ClassVar[float] = 1e-4

    @abstractmethod
    def statistic(self, logits: Array, labels: Array, weights: Array | None = None) -> Any:
        """What is learnt from one block: a float64 array of sums, or a list of arrays.

        Statistics of several blocks are merged with ``+``, which adds arrays and joins lists.

        Parameters
        ----------
        logits : array (n, K)
            Calibrated as far as the fit has come.
        labels : int array (n,)
        weights : float64 array (n,), optional
        """

    @abstractmethod
    def updated(self, statistic: Any) -> Self:
        """The objective with the next state."""

    def compacted(self, statistic: Any) -> Any:
        """The same statistic in bounded memory, or one that is near enough to it."""
        return statistic

    def for_classes(self, class_weights: NumpyArray) -> Objective:
        return self.updated(class_weights) if self.learns == "class weights" else self

    @property
    def wants_spreads(self) -> bool:
        """Whether an option is to be chosen by `with_spreads` before the first round."""
        return False

    def with_spreads(self, spreads: NumpyArray) -> Self:
        """The objective with what depends on the spreads (n,) of logits, see `spread`, chosen."""
        return self

    def trace(self) -> dict[str, Any]:
        """The state as numbers and lists, for a person to follow; empty at first."""
        return {} if self.state is None else dict(self.state.trace())

    def settled(self, previous: Adaptive) -> float:
        """How far the state is from the one before: 0 where nothing changed, infinite at first."""
        if self.state is None or previous.state is None:
            return float("inf")
        return float(self.state.change(previous.state))


class LearntInRounds(Adaptive):
    """An adaptive objective whose state is multipliers, learnt from the rows of the fit.

    A fit brings them to a fixed point of solving and learning.

    Attributes
    ----------
    first_evaluations : int
        Statistics, at successive points near the start, that must be learnt before the first solve.
    """

    learns = "in rounds"
    first_evaluations: ClassVar[int] = 1

    @abstractmethod
    def multipliers(self) -> NumpyArray:
        """The multipliers (M,) of the state."""

    @abstractmethod
    def with_multipliers(self, multipliers: NumpyArray) -> Self:
        """The same objective with other multipliers (M,) in its state."""


def sum_by_class(labels: Array, values: NumpyArray, classes: int) -> NumpyArray:
    """Sums (K,) of values (n,) over the rows of each label."""
    return np.bincount(to_numpy(labels), values, minlength=classes)


def sum_of_rows(matrix: Array, weights: Array | None) -> NumpyArray:
    """Sums (K,), float64, over the rows of a matrix (n, K) times row weights."""
    if weights is None:
        return sum_rows(matrix)
    return sum_rows(matrix * namespace(matrix).astype(weights, matrix.dtype)[:, None])


def total_weight(labels: Array, weights: Array | None) -> float:
    """Sum of the row weights; the number of rows where there are none."""
    return float(len(labels) if weights is None else namespace(weights).sum(weights))


def host(values: Array) -> NumpyArray:
    """Values (n,), float64, in host memory."""
    return to_numpy(values).astype(np.float64)


def confidences(logits: Array, labels: Array, weights: Array | None) -> list[NumpyArray]:
    """Confidence, whether it was right, and weight of each row, as a list of one array (3, n)."""
    likelihood = Likelihood(logits, labels)
    confidence = host(likelihood.confidence)
    return [np.stack([confidence, host(likelihood.hits), host_weights(labels, weights)])]


def largest_change(new: NumpyArray, old: NumpyArray, scale: float | NumpyArray = 1.0) -> float:
    """Largest absolute difference of two arrays, relative to a scale; infinite for other shapes."""
    if old.shape != new.shape:
        return float("inf")
    return float(np.max(np.abs(new - old) / scale, initial=0.0))
