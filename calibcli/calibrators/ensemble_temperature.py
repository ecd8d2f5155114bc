"""Ensemble temperature scaling: a mixture of three probabilities (Zhang et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from calibcli.arrays import Array, NumpyArray, namespace, softmax
from calibcli.calibrators.base import Calibrator, SmoothMap
from calibcli.calibrators.parameters import Parameters
from calibcli.calibrators.temperature import TemperatureMap

Mixture = Literal["probabilities", "logits"]


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
        return namespace(logits).log(_mixture(self.weights, *_members(self.temperature, logits)))

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
    """Parameters: log T, then v with the weights ``v^2 / sum v^2``.

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
    """The family of the mixture of logits: a uniform member adds a constant, which is nothing.

    What remains is one scale ``w1 / T + w2``. The code of SCTL fits T first and then the weights,
    which start at their optimum then: the first member alone.
    """

    def calibrator(self, theta: NumpyArray, classes: int) -> Calibrator:
        return EnsembleTemperature(float(1 / theta[0]), np.array([1.0, 0.0, 0.0]), "logits")


def _weights(theta: NumpyArray) -> NumpyArray:
    squares: NumpyArray = theta[1:] ** 2
    weights: NumpyArray = squares / squares.sum()
    return weights


def _members(temperature: float, logits: Array) -> tuple[Array, Array, float]:
    return softmax(logits * (1 / temperature)), softmax(logits), 1 / logits.shape[1]


def _mixture(weights: NumpyArray, tempered: Array, plain: Array, uniform: float) -> Array:
    first, second, third = (float(weight) for weight in weights)
    return first * tempered + second * plain + third * uniform
