"""One increasing function of the log-probability, shared by all classes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from calibcli.arrays import Array, NumpyArray
from calibcli.calibrators.base import Calibrator, Preserves, SmoothMap
from calibcli.calibrators.curvature import PreparedRows
from calibcli.calibrators.parameters import Parameters
from calibcli.calibrators.piecewise import (
    GroupedRows,
    GroupedValues,
    largest_of_rows,
    likelihood_hessian,
    piecewise_linear,
    pull_slopes,
    reach_of_pieces,
    read_knots,
    spaced,
    weighted_quantiles,
)
from calibcli.calibrators.value_moments import ValueMoments, width_for
from calibcli.value_counts import CountedScores

LARGEST_OF_A_ROW = 10
"""Knots lie at quantiles of so many of each row's largest log-probabilities."""

_LEAST_GROUPED = 64
"""Classes from which on elements are grouped by their pieces."""

_CLOSEST = 1e-3
"""Knots that lie closer than this are one."""


@dataclass(frozen=True, eq=False)
class Monotone(Calibrator):
    """``softmax(f(log p))`` with a piecewise linear f that never falls.

    Parameters
    ----------
    knots : float64 array (m,)
        Where the slope changes, in ascending order.
    slopes : float64 array (m + 1,)
        Slopes of the pieces, from the smallest log-probabilities upwards; at least 0.
    """

    knots: NumpyArray
    slopes: NumpyArray
    kind: ClassVar[str] = "monotone"
    normalises: ClassVar[bool] = True
    by_value = True

    def transform(self, logits: Array) -> Array:
        return piecewise_linear(self.knots, self.slopes, logits)

    @property
    def preserves(self) -> Preserves:
        return "order"

    def reach(self, bound: float) -> float:
        return reach_of_pieces(self.knots, self.slopes, bound)

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> Monotone:
        parameters.expect("knots", "slopes")
        knots = read_knots(parameters)
        slopes = parameters.array("slopes", (len(knots) + 1,))
        if slopes.min() < 0:
            raise parameters.error("slopes must be at least 0")
        return cls(knots, slopes)

    def summary(self) -> str:
        return f"{len(self.slopes)} slopes from {self.slopes.min():.3f} to {self.slopes.max():.3f}"


@dataclass(frozen=True)
class MonotoneMap(SmoothMap):
    """An increasing function; its parameters are the slopes, at least 0.

    A temperature is the case of equal slopes, which the ridge on the differences of neighbouring
    slopes, ``penalty / n``, pulls towards.
    """

    pieces: int = field(default=16, metadata={"help": "linear pieces of the function"})
    penalty: float = field(
        default=20.0,
        metadata={"help": "ridge on differences of neighbouring slopes, over rows", "least": 0},
    )
    knots: tuple[float, ...] | None = None

    name = "monotone"
    title = "one increasing function of the log-probability for all classes"
    source = "shape as in Rahimi et al., NeurIPS 2020 (DIAG), as a convex fit"
    preserves = "order"
    cost = "about 12 passes"
    normalises = True
    bounded = True
    tunable = ("penalty",)

    def __post_init__(self) -> None:
        if not 1 <= self.pieces <= 100:
            raise ValueError("pieces must lie between 1 and 100")

    @property
    def needs_placing(self) -> bool:
        return self.knots is None

    @property
    def most_telling(self) -> int:
        return LARGEST_OF_A_ROW

    def placed(self, log_probs: NumpyArray, weights: NumpyArray) -> MonotoneMap:
        largest = largest_of_rows(log_probs, LARGEST_OF_A_ROW)
        each = np.broadcast_to(weights[:, None], largest.shape)
        kept = np.isfinite(largest) & (each > 0)
        shares = np.linspace(0, 1, self.pieces + 1)[1:-1]
        places = weighted_quantiles(largest[kept], each[kept], shares)
        # At 0 the last piece ends.
        below = places[places < -_CLOSEST]
        return replace(self, knots=tuple(spaced(below, _CLOSEST)))

    @property
    def places(self) -> NumpyArray:
        """The knots; before they are placed, a factor of e apart."""
        return np.arange(1.0 - self.pieces, 0.0) if self.knots is None else np.array(self.knots)

    def size(self, classes: int) -> int:
        return len(self.places) + 1

    def rows_needed(self, classes: int) -> int:
        # The fewer rows there are, the more the ridge holds.
        return max(50, 5 * classes)

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.full(self.size(classes), scale)

    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        return piecewise_linear(self.places, theta, logits)

    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        return pull_slopes(self.places, logits, gradient)

    def likelihood_hessian(
        self, theta: NumpyArray, logits: Array, probs: Array, weights: Array | None
    ) -> NumpyArray:
        return likelihood_hessian(self.places, logits, probs, weights)

    def prepares(self, classes: int) -> bool:
        # Of few classes nearly every element would be a group of its own.
        return classes >= _LEAST_GROUPED

    def prepared(self, logits: NumpyArray, labels: NumpyArray) -> PreparedRows:
        return GroupedRows(self.places, logits, labels)

    def resolution(self, theta: NumpyArray) -> float | None:
        return width_for(float(theta.max()))

    def prepared_by_value(
        self, scores: CountedScores, labels: NumpyArray, resolution: float
    ) -> PreparedRows:
        return GroupedValues(ValueMoments.of(scores, self.places, resolution), scores.at(labels))

    def calibrator(self, theta: NumpyArray, classes: int) -> Monotone:
        return Monotone(self.places, np.maximum(theta, 0.0))

    def ridge(self, classes: int, rows: float) -> NumpyArray:
        differences = np.diff(np.eye(self.size(classes)), axis=0)
        matrix: NumpyArray = 2 * self.penalty / rows * differences.T @ differences
        return matrix
