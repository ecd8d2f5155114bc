"""Ensemble temperature scaling: a mixture of three probabilities (Zhang et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    dot_classes,
    host_weights,
    log_in_place,
    namespace,
    pick,
    shift,
    softmax,
    sum_classes,
    to_numpy,
)
from calibcli.calibrators.base import Calibrator, Preserves, SmoothMap
from calibcli.calibrators.curvature import Expansion
from calibcli.calibrators.parameters import Parameters
from calibcli.calibrators.temperature import TemperatureMap

Mixture = Literal["probabilities", "logits"]

_LEAST_FIRST_ROOTS = np.array([0.3, 0.05, 0.05])
"""Where a search starts, at least; in the roots of the weights."""


@dataclass(frozen=True, eq=False)
class EnsembleTemperature(Calibrator):
    """``w1 softmax(z / T) + w2 softmax(z) + w3 / K``.

    Parameters
    ----------
    temperature : float
    weights : float64 array (3,)
        Not negative, summing to 1.
    mixture : str
        ``"probabilities"``, or ``"logits"`` for ``softmax(w1 z / T + w2 z)``.
    """

    temperature: float
    weights: NumpyArray
    mixture: Mixture = "probabilities"
    kind = "ensemble-temperature"

    def transform(self, logits: Array) -> Array:
        if self.mixture == "logits":
            return logits * float(self.weights[0] / self.temperature + self.weights[1])
        tempered, plain, uniform = _members(self.temperature, logits)
        first, second, third = map(float, self.weights)
        tempered *= first
        plain *= second
        tempered += plain
        tempered += third * uniform
        return log_in_place(tempered)

    @property
    def keeps_ranking(self) -> bool:
        return bool(self.weights[:2].sum() > 0)

    @property
    def preserves(self) -> Preserves:
        return "order"

    def reach(self, bound: float) -> float:
        return bound + bound / self.temperature

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> EnsembleTemperature:
        parameters.expect("temperature", "weights", "mixture")
        weights = parameters.array("weights", (3,))
        if weights.min() < 0 or abs(weights.sum() - 1) > 1e-9:
            raise parameters.error("weights must be at least 0 and sum to 1")
        temperature = parameters.number("temperature", positive=True)
        return cls(temperature, weights, parameters.choice("mixture", get_args(Mixture)))

    def summary(self) -> str:
        tempered, plain, uniform = self.weights
        return (
            f"{tempered:.3f} of temperature {self.temperature:.4f}, "
            f"{plain:.3f} of the input, {uniform:.3f} uniform"
        )


@dataclass(frozen=True)
class EnsembleTemperatureMap(SmoothMap):
    """A mixture of probabilities; its parameters are log T, then v with weights ``v^2 / sum v^2``.

    Squares keep the weights on the simplex and, unlike exponentials, reach its faces, where the
    Hessian by v stays positive definite.
    """

    mixture: Mixture = field(
        default="probabilities",
        metadata={"help": "of probabilities, or of logits as in the code of SCTL: one temperature"},
    )

    name = "ensemble-temperature"
    title = "mixture of tempered, plain and uniform probabilities"
    source = "Zhang et al., Mix-n-Match, ICML 2020 (log-loss; --loss brier is theirs)"
    preserves = "order"
    cost = "about 10 passes"
    linear = False

    def resolved(self, rows: float) -> SmoothMap:
        return LogitMixtureMap() if self.mixture == "logits" else self

    def size(self, classes: int) -> int:
        return 4

    def rows_needed(self, classes: int) -> int:
        return 200

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.concatenate(([-np.log(scale)], np.sqrt([0.8, 0.1, 0.1])))

    def at_temperature(self, classes: int, scale: float) -> NumpyArray:
        return np.array([-np.log(scale), 1.0, 0.0, 0.0])

    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        members = _members(float(np.exp(theta[0])), logits)
        return namespace(logits).log(_mixture(_weights(theta), *members))

    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        xp = namespace(logits)
        temperature = float(np.exp(theta[0]))
        weights = _weights(theta)
        tempered, plain, uniform = _members(temperature, logits)
        ratio = gradient / _mixture(weights, tempered, plain, uniform)

        def total(values: Array) -> float:
            return float(xp.sum(xp.sum(values, axis=-1), dtype=xp.float64))

        by_weight = np.array(
            [total(ratio * tempered), total(ratio * plain), total(ratio) * uniform]
        )
        scaled = logits * (1 / temperature)
        centred = scaled - xp.sum(tempered * scaled, axis=-1, keepdims=True)
        by_log_temperature = -float(weights[0]) * total(ratio * tempered * centred)
        return np.concatenate(([by_log_temperature], self._by_root(theta, by_weight)))

    def expansion(self) -> Expansion:
        return _MixtureExpansion()

    def calibrator(self, theta: NumpyArray, classes: int) -> EnsembleTemperature:
        return EnsembleTemperature(float(np.exp(theta[0])), _weights(theta))

    @staticmethod
    def _by_root(theta: NumpyArray, by_weight: NumpyArray) -> NumpyArray:
        roots = theta[1:]
        total = float(roots @ roots)
        weights = roots * roots / total
        gradient: NumpyArray = 2 * roots / total * (by_weight - weights @ by_weight)
        return gradient


@dataclass(frozen=True)
class LogitMixtureMap(TemperatureMap):
    """A mixture of logits, which is one temperature: a uniform member adds a constant.

    What remains is one scale ``w1 / T + w2``. The code of SCTL fits T first and then the weights,
    which start at their optimum then: the first member alone.
    """

    def calibrator(self, theta: NumpyArray, classes: int) -> Calibrator:
        return EnsembleTemperature(float(1 / theta[0]), np.array([1.0, 0.0, 0.0]), "logits")


class _MixtureExpansion(Expansion):
    """The expansion of a mixture of probabilities, from 21 sums over the rows.

    A row's loss depends on its label's probability under three members alone. So value, gradient
    and Hessian by log T and the three weights are 21 sums, from which those by the roots v follow;
    these are kept at length 1.
    """

    def start(self, theta: NumpyArray) -> NumpyArray:
        # A weight of 0 is a saddle, and that of the tempered member says nothing of the
        # temperature.
        roots = np.maximum(np.abs(theta[1:]), _LEAST_FIRST_ROOTS)
        return np.concatenate((theta[:1], roots))

    def normalised(self, theta: NumpyArray) -> NumpyArray:
        return np.concatenate((theta[:1], theta[1:] / np.linalg.norm(theta[1:])))

    def partial(
        self, theta: NumpyArray, logits: Array, labels: Array, weights: Array | None
    ) -> NumpyArray:
        xp = namespace(logits)
        shares = theta[1:] ** 2
        shifted = shift(logits)
        plain = xp.exp(shifted)
        plain_prob = pick(plain, labels) / sum_classes(plain)
        scaled = shifted * float(np.exp(-theta[0]))
        tempered = xp.exp(scaled)
        total, moved = sum_classes(tempered), tempered * scaled
        mean = sum_classes(moved) / total
        square = dot_classes(moved, scaled) / total
        rows = (
            pick(tempered, labels) / total,
            plain_prob,
            pick(scaled, labels) - mean,
            mean,
            square,
        )
        tempered_prob, plain_prob, ahead, mean, square = (
            to_numpy(row).astype(np.float64) for row in rows
        )
        members = np.stack((tempered_prob, plain_prob, np.full_like(mean, 1 / shifted.shape[1])))
        prob = shares @ members
        # By log T the log of the tempered probability slopes by -ahead and bends by
        # ahead - variance.
        slope = -shares[0] * tempered_prob * ahead / prob
        bend = shares[0] * tempered_prob * (ahead * ahead + ahead - square + mean * mean) / prob
        first = np.vstack((slope, members / prob))
        mass = host_weights(labels, weights)
        hessian = (first * mass) @ first.T
        hessian[0, 0] -= mass @ bend
        hessian[0, 1] -= mass @ slope / shares[0]
        hessian[1, 0] = hessian[0, 1]
        value = -float(mass @ np.log(prob))
        return np.concatenate(([value], -(first @ mass), hessian.ravel()))

    def derivatives(
        self, theta: NumpyArray, mean: NumpyArray
    ) -> tuple[float, NumpyArray, NumpyArray]:
        roots = theta[1:]
        value, first, second = float(mean[0]), mean[1:5], mean[5:].reshape(4, 4)
        # Along the sphere the weights v^2 bend by 2 less what keeps the roots at their length.
        jacobian = np.diag(np.concatenate(([1.0], 2 * roots)))
        gradient, hessian = jacobian @ first, jacobian @ second @ jacobian
        outward = float(gradient[1:] @ roots)
        hessian[1:, 1:] += np.diag(2 * first[1:]) - outward * np.eye(3)
        gradient[1:] -= outward * roots
        tangent = np.eye(4)
        tangent[1:, 1:] -= np.outer(roots, roots)
        return value, gradient, tangent @ hessian @ tangent


def _weights(theta: NumpyArray) -> NumpyArray:
    squares: NumpyArray = theta[1:] ** 2
    weights: NumpyArray = squares / squares.sum()
    return weights


def _members(temperature: float, logits: Array) -> tuple[Array, Array, float]:
    return softmax(logits * (1 / temperature)), softmax(logits), 1 / logits.shape[1]


def _mixture(weights: NumpyArray, tempered: Array, plain: Array, uniform: float) -> Array:
    first, second, third = (float(weight) for weight in weights)
    return first * tempered + second * plain + third * uniform
