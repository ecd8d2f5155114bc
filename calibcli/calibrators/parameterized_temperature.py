"""Parameterized temperature scaling: a temperature a row, from a small network (Tomani, 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from calibcli.arrays import Array, NumpyArray, dot_classes, like, namespace, to_numpy
from calibcli.calibrators.base import Calibrator, Preserves, SmoothMap
from calibcli.calibrators.parameters import Parameters

INPUTS = 10
"""The network sees this many of a row's largest logits, in descending order."""

SMALLEST, LARGEST = 1e-12, 1e12
"""Between these a temperature is kept; an official one may be negative, but is not nearer to 0."""

Form = Literal["published", "official"]


@dataclass(frozen=True, eq=False)
class ParameterizedTemperature(Calibrator):
    """``softmax(z / T(z))`` with ``T = |network(largest logits)|``.

    Parameters
    ----------
    sizes : tuple of int
        Sizes of the network's layers, from the inputs to the single output.
    theta : float64 array
        Weights (out, in) and biases (out,) of layer after layer, in one row.
    form : str
        ``"published"``, or ``"official"``: without absolute value and upper bound, so that a
        temperature may be negative.
    """

    sizes: tuple[int, ...]
    theta: NumpyArray
    form: Form = "published"
    kind = "parameterized-temperature"
    normalises = True

    def transform(self, logits: Array) -> Array:
        return logits / _Network(self.sizes, self.theta, logits).temperature(self.form)[:, None]

    def parameters(self) -> dict[str, Any]:
        return {"sizes": list(self.sizes), "theta": self.theta, "form": self.form}

    @property
    def preserves(self) -> Preserves:
        return "order" if self.form == "published" else "nothing"

    def reach(self, bound: float) -> float:
        reached = [bound]
        for weights, biases in _layers(self.sizes, self.theta):
            most = np.abs(weights).sum(axis=1) * reached[-1] + np.abs(biases)
            reached.append(float(most.max()))
        # A maximum of numbers and NaN may be a number.
        return bound / SMALLEST + sum(reached)

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> ParameterizedTemperature:
        parameters.expect("sizes", "theta", "form")
        sizes = parameters.sizes("sizes", min(INPUTS, classes))
        theta = parameters.array("theta", (_count(sizes),))
        return cls(sizes, theta, parameters.choice("form", get_args(Form)))

    def summary(self) -> str:
        return f"network of {' x '.join(map(str, self.sizes))}, {len(self.theta)} parameters"


@dataclass(frozen=True)
class ParameterizedTemperatureMap(SmoothMap):
    """A temperature a row from a network; the parameters are weights and biases, layer by layer."""

    form: Form = field(
        default="published",
        metadata={"help": "published: |T|, 2 layers of 5; official: T as it is, 4 layers of 2"},
    )
    restarts: int = field(
        default=5, metadata={"help": "random starts; the best by held-out loss is kept"}
    )

    name = "parameterized-temperature"
    title = "a temperature a row, from its ten largest logits"
    source = "Tomani et al., Parameterized temperature scaling, ECCV 2022"
    preserves = "order"
    cost = "about 500 passes"
    linear = False
    exact = False
    normalises = True
    _hidden: ClassVar[dict[Form, tuple[int, ...]]] = {
        "published": (5, 5),
        "official": (2, 2, 2, 2),
    }

    def __post_init__(self) -> None:
        if not 1 <= self.restarts <= 100:
            raise ValueError("restarts must lie between 1 and 100")

    def sizes(self, classes: int) -> tuple[int, ...]:
        """Sizes of the layers at K classes."""
        return (min(INPUTS, classes), *self._hidden[self.form], 1)

    def size(self, classes: int) -> int:
        return _count(self.sizes(classes))

    def rows_needed(self, classes: int) -> int:
        return 1000

    def start(self, classes: int, scale: float) -> NumpyArray:
        return self.starts(classes, scale, 0)[0]

    def starts(self, classes: int, scale: float, seed: int) -> list[NumpyArray]:
        """Random networks whose temperature is nearly the same for all rows: 1 / scale."""
        rng = np.random.default_rng(seed)
        sizes = self.sizes(classes)
        starts = []
        for _ in range(self.restarts):
            parts = []
            for fan_in, fan_out in pairwise(sizes):
                bound = 1 / np.sqrt(fan_in)
                parts.append(rng.uniform(-bound, bound, (fan_out, fan_in)).ravel())
                parts.append(rng.uniform(-bound, bound, fan_out))
            parts[-2] *= 0.01
            parts[-1] = np.array([1 / scale])
            starts.append(np.concatenate(parts))
        return starts

    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        network = _Network(self.sizes(logits.shape[1]), theta, logits)
        return logits / network.temperature(self.form)[:, None]

    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        network = _Network(self.sizes(logits.shape[1]), theta, logits)
        temperature = network.temperature(self.form)
        by_temperature = -dot_classes(gradient, logits) / (temperature * temperature)
        return network.backward(by_temperature * network.slope(self.form))

    def calibrator(self, theta: NumpyArray, classes: int) -> ParameterizedTemperature:
        return ParameterizedTemperature(self.sizes(classes), theta, self.form)


class _Network:
    """A network with rectified hidden layers at the rows of a tile, and its gradient."""

    def __init__(self, sizes: tuple[int, ...], theta: NumpyArray, logits: Array) -> None:
        xp = namespace(logits)
        # The inputs are no parameters: no gradient goes through the order.
        ranked = xp.flip(xp.sort(logits, axis=-1), axis=-1)
        self._layers = [(like(w, logits), like(b, logits)) for w, b in _layers(sizes, theta)]
        self._inputs = [ranked[:, : sizes[0]]]
        for weights, biases in self._layers[:-1]:
            values = self._inputs[-1] @ weights.T + biases
            self._inputs.append(xp.where(values > 0, values, 0 * values))
        weights, biases = self._layers[-1]
        self.output = (self._inputs[-1] @ weights.T + biases)[:, 0]

    def temperature(self, form: Form) -> Array:
        """Temperatures (n,)."""
        xp = namespace(self.output)
        if form == "official":
            near = xp.abs(self.output) < SMALLEST
            return xp.where(near, like(SMALLEST, self.output), self.output)
        return xp.clip(xp.abs(self.output), min=SMALLEST, max=LARGEST)

    def slope(self, form: Form) -> Array:
        """Derivative (n,) of the temperatures by the output."""
        xp = namespace(self.output)
        return xp.ones_like(self.output) if form == "official" else xp.sign(self.output)

    def backward(self, gradient: Array) -> NumpyArray:
        """Sum over rows of the gradient (n,) by the output times the output's by theta: (P,)."""
        xp = namespace(gradient)
        flow = gradient[:, None]
        parts: list[NumpyArray] = []
        for (weights, _), inputs in zip(
            reversed(self._layers), reversed(self._inputs), strict=True
        ):
            parts.append(to_numpy(xp.sum(flow, axis=0)).astype(np.float64))
            parts.append(to_numpy(flow.T @ inputs).astype(np.float64).ravel())
            flow = (flow @ weights) * (inputs > 0)
        return np.concatenate(parts[::-1])


def _layers(sizes: tuple[int, ...], theta: NumpyArray) -> list[tuple[NumpyArray, NumpyArray]]:
    layers, place = [], 0
    for fan_in, fan_out in pairwise(sizes):
        end = place + fan_in * fan_out
        layers.append((theta[place:end].reshape(fan_out, fan_in), theta[end : end + fan_out]))
        place = end + fan_out
    return layers


def _count(sizes: tuple[int, ...]) -> int:
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))
