"""Class-wise scaling of training losses (SCTL)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from calibcli.arrays import Array, host_weights
from calibcli.objectives.adaptive import (
    State,
    Vector,
    host,
    largest_change,
    sum_by_class,
)
from calibcli.objectives.checks import check_choice, check_range
from calibcli.objectives.class_factors import (
    FIRST_ALPHA,
    FIRST_BETA,
    LARGEST_BETA,
    Normalisation,
    factors,
    fit_shape,
    normalise,
)
from calibcli.objectives.likelihood import Likelihood
from calibcli.objectives.macro import ClassWeighted, balanced


@dataclass(frozen=True, eq=False)
class ClassScaling(State):
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

    class_weights: Vector
    losses: Vector
    first_losses: Vector
    factors: Vector
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
class ClassWise(ClassWeighted):
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
    state: ClassScaling | None = field(default=None, compare=False, repr=False)

    name = "class-wise"
    title = "class-wise scaling of losses (SCTL)"
    source = "Jung et al., Scaling of class-wise training losses, ICML 2023"
    first_evaluations = 2

    def __post_init__(self) -> None:
        check_choice(self, "norm")
        if self.alpha is not None:
            check_range(self, "alpha", 1e-3)
        if self.beta is not None:
            check_range(self, "beta", 0.0, LARGEST_BETA)

    @property
    def by_class(self) -> Vector | None:
        if self.state is None:
            return None
        weights: Vector = balanced(self.state.class_weights) * np.nan_to_num(self.state.factors)
        return weights

    def statistic(self, logits: Array, labels: Array, weights: Array | None = None) -> Vector:
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

    def with_factors(self, factors: Vector) -> ClassWise:
        """The same with other factors (K,)."""
        assert self.state is not None
        return replace(self, state=replace(self.state, factors=factors))

    def _shape(self, first: Vector, losses: Vector, normalised: Vector) -> tuple[float, float]:
        """Alpha and beta at this evaluation, of the classes that have rows."""
        if self.state is not None and self.state.evaluations > 1:
            return self.state.alpha, self.state.beta
        # In mini-batches a class may be absent at one of the two evaluations.
        both = np.isfinite(first)
        if self.state is not None and both.sum() > 1:
            return fit_shape(first[both], losses[both], normalised[both], self.alpha, self.beta)
        return (
            FIRST_ALPHA if self.alpha is None else self.alpha,
            FIRST_BETA if self.beta is None else self.beta,
        )


def _numbers(values: Vector) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
