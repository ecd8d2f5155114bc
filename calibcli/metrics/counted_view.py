"""A view of rows by value: what depends on all logits of a row comes from the distinct ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from calibcli.arrays import NumpyArray, largest, pick
from calibcli.cached import cached_property
from calibcli.metrics.view import Event, View
from calibcli.value_counts import CountedScores


class CountedView(View):
    """A `View` of scores by value, with the same numbers in the same places.

    Matrices by class, which few metrics need, are spread out where they are asked for.

    Parameters
    ----------
    scores : CountedScores
        Logits or log-probabilities.
    labels, weights, start, keys, event
        As of `View`.
    """

    def __init__(
        self,
        scores: CountedScores,
        labels: NumpyArray,
        weights: NumpyArray | None = None,
        *,
        start: int = 0,
        keys: Mapping[str, NumpyArray] | None = None,
        event: Event = "auto",
    ) -> None:
        super().__init__(scores.stored, labels, weights, start=start, keys=keys, event=event)
        self._scores = scores
        self._shifted: list[tuple[slice, NumpyArray]] = []
        self._total = np.empty(len(scores), np.float32)
        self._squares = np.empty(len(scores), np.float32)
        tied = np.zeros(len(scores), bool)
        for rows, values, counts, last in scores.blocks():
            shifted = values - largest(values)[:, None]
            power = np.exp(shifted)
            self._total[rows] = np.vecdot(power, counts)
            power *= power
            self._squares[rows] = np.vecdot(power, counts)
            tied[rows] = pick(shifted, np.maximum(last - 1, 0)) >= pick(shifted, last)
            tied[rows] &= last > 0
            self._shifted.append((rows, shifted))
        self._tied = np.flatnonzero(tied)

    @property
    def bits(self) -> int:
        return 32

    @cached_property
    def shifted(self) -> NumpyArray:
        matrix = np.empty((len(self), self.classes), np.float32)
        for rows, values in self._shifted:
            matrix[rows] = self._scores.spread_out(rows, values)
        return matrix

    @cached_property
    def total(self) -> NumpyArray:
        return self._total

    @cached_property
    def prediction(self) -> NumpyArray:
        top = self._scores.top
        if len(self._tied):
            # Logits that differed may have become the same, of which the first class counts.
            top = top.copy()
            top[self._tied] = self.shifted[self._tied].argmax(axis=1)
        return top

    def _at(self, classes: NumpyArray) -> NumpyArray:
        """Logits (n,) of a class of each row, minus the row's largest."""
        stored, numbers = self._scores.stored, np.arange(len(self))
        places = self._scores.places(classes)
        at = np.concatenate([pick(values, places[rows]) for rows, values in self._shifted])
        return np.where(stored[numbers, classes] == -np.inf, np.float32(-np.inf), at)

    def probability_of(self, classes: NumpyArray) -> NumpyArray:
        return self.probabilities_at(classes)

    def probabilities_at(self, classes: NumpyArray) -> NumpyArray:
        return (np.exp(self._at(classes)) / self._total).astype(np.float64)

    @cached_property
    def true_log_prob(self) -> NumpyArray:
        return (self._at(self.labels) - np.log(self._total)).astype(np.float64)

    @cached_property
    def squared_error(self) -> NumpyArray:
        error: NumpyArray = self._squares / self._total**2 - 2.0 * self.true_prob + 1.0
        return error
