"""Losses that weigh classes: all the same, or those that are fitted worse more (SCTL)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from calibcli.arrays import Array, NumpyArray, host_weights, like
from calibcli.objectives.adaptive import (
    Adaptive,
    LearntInRounds,
    LearntState,
    host,
    largest_change,
    sum_by_class,
)
from calibcli.objectives.base import check_choice, check_range
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


Normalisation: TypeAlias = Literal["zscore", "centered", "minmax"]

FIRST_ALPHA, FIRST_BETA = 1.0, 1.5
"""In force until both are fitted."""

SMALLEST_ALPHA, LARGEST_BETA = 0.1, 2.0

_SMALLEST_SPREAD = 1e-12
_GRID = 200


def normalise(losses: NumpyArray, normalisation: Normalisation) -> NumpyArray:
    """Class losses (K,) without their location and scale; zeros where all are equal.

    ``zscore`` divides the deviations from the mean by the standard deviation (with K - 1),
    ``centered`` divides them by the range, ``minmax`` goes from 0 to 1.
    """
    centred = losses - losses.mean()
    spread = float(np.ptp(losses))
    if spread <= _SMALLEST_SPREAD * max(1.0, float(np.abs(losses).max())):
        return np.zeros_like(losses)
    if normalisation == "zscore":
        spread = float(losses.std(ddof=1))
    normalised: NumpyArray = (
        losses - losses.min() if normalisation == "minmax" else centred
    ) / spread
    return normalised


def factors(normalised: NumpyArray, alpha: float, beta: float) -> NumpyArray:
    """``1 + (beta / 2) tanh(n / (2 alpha))`` (K,) of normalised class losses n (K,)."""
    scaled: NumpyArray = 1 + beta / 2 * np.tanh(normalised / (2 * alpha))
    return scaled


def search_locally(
    first: NumpyArray,
    losses: NumpyArray,
    normalised: NumpyArray,
    alpha: float | None = None,
    beta: float | None = None,
) -> tuple[float, float]:
    """Alpha and beta of `fit_shape` by the search of the authors' code: SLSQP from (1, 1.5).

    The problem has several minima, and jumps of the search's first step decide which is found: it
    most often ends in a corner. Where ``ln(K) / 2`` is below 1 it starts from there.
    """
    from scipy.optimize import minimize

    def distance(shape: NumpyArray) -> float:
        scaled = factors(normalised, float(shape[0]), float(shape[1])) - 1
        rest = first - scaled * (losses - first) - losses.mean()
        return math.sqrt(float(rest @ rest))

    largest_alpha = max(math.log(len(losses)) / 2, SMALLEST_ALPHA)
    bounds = [
        (SMALLEST_ALPHA, largest_alpha) if alpha is None else (alpha, alpha),
        (FIRST_BETA, LARGEST_BETA) if beta is None else (beta, beta),
    ]
    start = [min(max(x, low), high) for x, (low, high) in zip((1.0, 1.5), bounds, strict=True)]
    result = minimize(distance, start, method="SLSQP", bounds=bounds)
    return float(result.x[0]), float(result.x[1])


def fit_shape(
    first: NumpyArray,
    losses: NumpyArray,
    normalised: NumpyArray,
    alpha: float | None = None,
    beta: float | None = None,
) -> tuple[float, float]:
    """Alpha and beta from the class losses (K,) of the first two evaluations.

    They minimise ``sum_k (first_k - (s_k - 1) (loss_k - first_k) - mean loss)^2`` over
    ``0.1 <= alpha <= ln(K) / 2`` and ``1.5 <= beta <= 2``. The problem is quadratic in beta; what
    remains is searched in alpha, on a grid and then between its points. Most often the answer is a
    corner: the flattest factors where losses have fallen, the steepest where they have risen.

    Parameters
    ----------
    first, losses, normalised : float64 arrays (K,)
        Class losses at the first and second evaluation, and the second ones normalised.
    alpha, beta : float, optional
        Values that are given and not to be fitted.
    """
    target = first - losses.mean()
    change = losses - first
    largest_alpha = max(math.log(len(losses)) / 2, SMALLEST_ALPHA)

    def best_beta(at: float) -> tuple[float, float]:
        slope = np.tanh(normalised / (2 * at)) / 2 * change
        square = float(slope @ slope)
        free = float(slope @ target) / square if square > 0 else FIRST_BETA
        chosen = min(max(free, FIRST_BETA), LARGEST_BETA) if beta is None else beta
        rest = target - chosen * slope
        return float(rest @ rest), chosen

    if alpha is not None:
        return alpha, best_beta(alpha)[1]
    # From the flattest on, which is taken where all are equally good.
    grid = np.geomspace(largest_alpha, SMALLEST_ALPHA, _GRID)
    best = int(np.argmin([best_beta(at)[0] for at in grid]))
    low, high = grid[min(best + 1, _GRID - 1)], grid[max(best - 1, 0)]
    inside = _golden(lambda at: best_beta(at)[0], float(low), float(high))
    chosen = min((float(grid[best]), inside), key=lambda at: best_beta(at)[0])
    return chosen, best_beta(chosen)[1]


def _golden(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum between two points has it (golden-section search)."""
    ratio = (math.sqrt(5) - 1) / 2
    while high - low > 1e-12 * high:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if function(left) <= function(right):
            high = right
        else:
            low = left
    return (low + high) / 2


@dataclass(frozen=True, eq=False)
class ClassScaling(LearntState):
    """What the last evaluations say.

    Attributes
    ----------
    class_weights : float64 array (K,)
        Sum of the row weights of each class; 0 for absent classes, whose loss and factor are NaN.
    losses, first_losses : float64 array (K,)
        Mean loss of each class, at the last and at the first evaluation.
    factors : float64 array (K,)
    alpha, beta : float
    evaluations : int
    """

    class_weights: NumpyArray
    losses: NumpyArray
    first_losses: NumpyArray
    factors: NumpyArray
    alpha: float
    beta: float
    evaluations: int

    def trace(self) -> dict[str, Any]:
        return {
            "class_losses": _numbers(self.losses),
            "factors": _numbers(self.factors),
            "alpha": self.alpha,
            "beta": self.beta,
        }

    def change(self, before: ClassScaling) -> float:
        # At the second evaluation alpha and beta were still to be fitted.
        if self.evaluations <= 2:
            return float("inf")
        return largest_change(np.nan_to_num(self.factors), np.nan_to_num(before.factors))


@dataclass(frozen=True)
class ClassWise(ClassWeighted, LearntInRounds):
    """``sum_k s_k L_k / K'``, with L_k the mean nll of class k and factors s_k held fixed.

    ``s_k = 1 + (beta / 2) tanh(n_k / (2 alpha))`` with the normalised loss n_k of the class: one
    that is fitted worse than others counts for more. The sum runs over the K' classes that have
    rows; the paper's loss is K' times this one, which is on the scale of nll. A row has the weight
    ``s_y / (K' share_y)``.

    The first evaluation stores the class losses; alpha and beta are fitted at the second one, as in
    the paper (see `fit_shape`), and kept. With equal class losses all factors are 1.
    """

    norm: Normalisation = field(
        default="zscore",
        metadata={"help": "of the class losses: zscore, centered (by the range) or minmax"},
    )
    alpha: float | None = field(
        default=None, metadata={"help": "width of the scaling; fitted at the second evaluation"}
    )
    beta: float | None = field(
        default=None, metadata={"help": "height of the scaling; fitted at the second evaluation"}
    )
    search: Literal["global", "local"] = field(
        default="global",
        metadata={"help": "of alpha and beta: global, or local from (1, 1.5), as the authors do"},
    )
    state: ClassScaling | None = field(default=None, compare=False, repr=False)

    name = "class-wise"
    title = "class-wise scaling of losses (SCTL)"
    source = "Jung et al., Scaling of class-wise training losses, ICML 2023"
    first_evaluations = 2

    def __post_init__(self) -> None:
        check_choice(self, "norm")
        check_choice(self, "search")
        if self.alpha is not None:
            check_range(self, "alpha", 1e-3)
        if self.beta is not None:
            check_range(self, "beta", 0.0, LARGEST_BETA)

    @property
    def by_class(self) -> NumpyArray | None:
        if self.state is None:
            return None
        weights: NumpyArray = balanced(self.state.class_weights) * np.nan_to_num(self.state.factors)
        return weights

    def statistic(self, logits: Array, labels: Array, weights: Array | None = None) -> NumpyArray:
        row_weights = host_weights(labels, weights)
        losses = host(Likelihood(logits, labels).nll)
        classes = logits.shape[-1]
        sums = (row_weights, row_weights * losses)
        return np.stack([sum_by_class(labels, values, classes) for values in sums])

    def updated(self, statistic: Any) -> ClassWise:
        class_weights, sums = statistic
        present = class_weights > 0
        losses = np.full(len(sums), np.nan)
        losses[present] = sums[present] / class_weights[present]
        normalised = normalise(losses[present], self.norm)
        last = self.state
        first = losses if last is None else last.first_losses
        alpha, beta = self._shape(first[present], losses[present], normalised)
        scaled = np.full(len(sums), np.nan)
        scaled[present] = factors(normalised, alpha, beta)
        evaluations = 1 if last is None else last.evaluations + 1
        scaling = ClassScaling(class_weights, losses, first, scaled, alpha, beta, evaluations)
        return replace(self, state=scaling)

    def multipliers(self) -> NumpyArray:
        """The factors (K,); 0 for absent classes."""
        assert self.state is not None
        return np.nan_to_num(self.state.factors)

    def with_multipliers(self, multipliers: NumpyArray) -> ClassWise:
        assert self.state is not None
        return replace(self, state=replace(self.state, factors=multipliers))

    def _shape(
        self, first: NumpyArray, losses: NumpyArray, normalised: NumpyArray
    ) -> tuple[float, float]:
        """Alpha and beta at this evaluation, of the classes that have rows."""
        if self.state is not None and self.state.evaluations > 1:
            return self.state.alpha, self.state.beta
        # In mini-batches a class may be absent at one of the two evaluations.
        both = np.isfinite(first)
        if self.state is not None and both.sum() > 1:
            search = fit_shape if self.search == "global" else search_locally
            return search(first[both], losses[both], normalised[both], self.alpha, self.beta)
        return (
            FIRST_ALPHA if self.alpha is None else self.alpha,
            FIRST_BETA if self.beta is None else self.beta,
        )


def _numbers(values: NumpyArray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
