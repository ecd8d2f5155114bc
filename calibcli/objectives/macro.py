"""Class-balanced cross-entropy: every class counts the same, however many rows it has."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from calibcli.arrays import Array, NumpyArray, host_weights, like
from calibcli.objectives.adaptive import (
    Adaptive,
    LearntState,
    largest_change,
    sum_by_class,
)
from calibcli.objectives.likelihood import Likelihood
from calibcli.objectives.weighted import WeightedNll


class ClassWeighted(WeightedNll, Adaptive):
    """``w_y nll`` with a weight a class: proper for the class prior that the weights make."""

    proper = True
    convex = True
    estimating = False
    sets_prior = True

    @property
    @abstractmethod
    def by_class(self) -> NumpyArray | None:
        """Weights (K,) of the rows by class; None for ones."""

    def row_weights(self, likelihood: Likelihood) -> Array:
        by_class = self.by_class
        if by_class is None:
            return likelihood.nll * 0 + 1
        return like(by_class, likelihood.nll)[likelihood.labels]


@dataclass(frozen=True, eq=False)
class ClassShares(LearntState):
    """Sum of the row weights of each class (K,)."""

    class_weights: NumpyArray

    def trace(self) -> dict[str, Any]:
        return {"class_weights": self.class_weights.tolist()}

    def change(self, before: ClassShares) -> float:
        total = float(self.class_weights.sum())
        return largest_change(self.class_weights, before.class_weights, total)


@dataclass(frozen=True)
class Macro(ClassWeighted):
    """``nll / (K' share_y)``, whose mean over rows is the mean over classes of the class losses.

    The share of a class is that of the weight of the fit data. K' classes have rows; the others
    drop out. The statistic is the sum of the row weights of each class (K,).
    """

    state: ClassShares | None = field(default=None, compare=False, repr=False)

    name = "macro"
    title = "class-balanced cross-entropy"
    source = "Jung et al., Scaling of class-wise training losses, ICML 2023 (all factors 1)"
    learns = "class weights"

    @property
    def by_class(self) -> NumpyArray | None:
        return None if self.state is None else balanced(self.state.class_weights)

    def statistic(self, logits: Array, labels: Array, weights: Array | None = None) -> NumpyArray:
        return sum_by_class(labels, host_weights(labels, weights), logits.shape[-1])

    def updated(self, statistic: Any) -> Macro:
        return replace(self, state=ClassShares(np.asarray(statistic, dtype=np.float64)))


def balanced(class_weights: NumpyArray) -> NumpyArray:
    """Row weights by class (K,) with which all classes that have rows weigh the same.

    Their mean over the rows is 1; 0 for classes without rows.
    """
    present = class_weights > 0
    mean = class_weights.sum() / max(int(present.sum()), 1)
    weights: NumpyArray = np.zeros_like(class_weights)
    weights[present] = mean / class_weights[present]
    return weights
