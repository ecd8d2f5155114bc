"""Affine maps of the log-probabilities: a scale and a bias a class, or a full matrix, with a ridge.

All see log-probabilities, so that the additive constant of a row's logits does not matter and
stored logits and stored log-probabilities give the same fit. The families differ in what they
penalise: structured ones start from a temperature and Laplace's rule, and a ridge of the order of
parameters over rows holds in check the small deviation from the identity that is left to fit
(Berta et al., 2025); Dirichlet calibration penalises off-diagonal entries and biases alone.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    is_by_class,
    like,
    namespace,
    sum_products,
    sum_rows,
    to_numpy,
)
from calibcli.calibrators.base import Calibrator, SmoothMap
from calibcli.calibrators.class_blocks import MOST_BLOCKED, BlockedMatrixCurvature
from calibcli.calibrators.curvature import (
    MOST_DENSE,
    Curvature,
    DenseMatrixCurvature,
    DenseVectorCurvature,
    MatrixCurvature,
    PairCurvature,
)
from calibcli.calibrators.parameters import Parameters

_SOURCE = "Berta et al., Structured matrix scaling, arXiv:2511.03685"


@dataclass(frozen=True, eq=False)
class VectorScaling(Calibrator):
    """``softmax(scale * log p + bias)`` with a scale and a bias a class.

    Parameters
    ----------
    scale, bias : float64 array (K,)

    Examples
    --------
    >>> even = np.log([[0.5, 0.5]])
    >>> VectorScaling(np.ones(2), np.array([0.0, 1.0])).probs(even).round(3)
    array([[0.269, 0.731]])
    """

    scale: NumpyArray
    bias: NumpyArray
    kind = "vector"
    normalises = True

    def transform(self, logits: Array) -> Array:
        new = logits * like(self.scale, logits)
        new += like(self.bias, logits)
        return new

    @property
    def keeps_ranking(self) -> bool:
        return bool(self.scale[0] > 0 and (self.scale == self.scale[0]).all())

    def reach(self, bound: float) -> float:
        return bound * float(np.abs(self.scale).max()) + float(np.abs(self.bias).max())

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> VectorScaling:
        parameters.expect("scale", "bias")
        return cls(
            parameters.array("scale", (classes,)),
            parameters.array("bias", (classes,)),
        )

    def summary(self) -> str:
        return f"scales {_span(self.scale)}, biases {_span(self.bias)}"


@dataclass(frozen=True)
class ScalesAndBiases(SmoothMap):
    """A scale and a bias a class; the parameters are the K scales, then the K biases.

    Families differ in what they penalise.
    """

    preserves = "nothing"
    normalises = True

    def size(self, classes: int) -> int:
        return 2 * classes

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.concatenate((np.full(classes, scale), np.zeros(classes)))

    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        scale, bias = np.split(theta, 2)
        new = logits * like(scale, logits)
        new += like(bias, logits)
        return new

    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        return np.concatenate((sum_products(gradient, logits), sum_rows(gradient)))

    def pullback_squares(self, theta: NumpyArray, logits: Array, diagonal: Array) -> NumpyArray:
        return self.pullback(theta, logits * logits, diagonal)

    def curvature(self, classes: int) -> Curvature:
        return DenseVectorCurvature() if self.size(classes) <= MOST_DENSE else PairCurvature()

    def calibrator(self, theta: NumpyArray, classes: int) -> VectorScaling:
        scale, bias = np.split(theta, 2)
        return VectorScaling(scale, bias - bias.mean())

    @abstractmethod
    def ridge(self, classes: int, rows: float) -> NumpyArray: ...


_WEAK_PRIOR = 4.0
"""Over rows: a normal prior of standard deviation 1/2, for a bias and for a scale as a share.

A bias of 1 multiplies odds by e, which few classes need. In simulations with ten classes it halved
to quartered what the likelihood alone loses with 100 rows, and cost nothing with 3,000.
"""


_LEAST_UNIT = 0.01
"""Of the scales: what gradients by less weigh in a bound on the loss would certify too much."""


@dataclass(frozen=True)
class VectorMap(ScalesAndBiases):
    """Vector scaling, the deviation from one temperature under a weak prior.

    With the scale s of the best temperature, v and the biases b, the mean loss gains ``prior / n
    (|v / s - 1|^2 + |b|^2) / 2``, so that few rows, or rows that can be separated, leave a
    temperature; and ``penalty (|v - s|^2 + |b|^2) / 2``.
    """

    penalty: float = field(
        default=1e-6,
        metadata={
            "help": "ridge on the deviation from one temperature and no bias, a parameter",
            "least": 0,
        },
    )
    prior: float = field(
        default=_WEAK_PRIOR,
        metadata={
            "help": "ridge on the same, scales as shares of the temperature's, over rows; 0: none",
            "least": 0,
        },
    )
    unit: float = 1.0

    name = "vector"
    title = "a scale and a bias a class"
    source = "Guo et al., On calibration of modern neural networks, ICML 2017"
    cost = "about 10 passes"
    tunable: ClassVar[tuple[str, ...]] = ("penalty",)

    def rows_needed(self, classes: int) -> int:
        return 150 * classes

    def scaled(self, scale: float) -> VectorMap:
        return replace(self, unit=max(scale, _LEAST_UNIT))

    def ridge(self, classes: int, rows: float) -> NumpyArray:
        strengths = np.repeat([self.unit**-2, 1.0], classes) * (self.prior / rows)
        return self.penalty + strengths

    def frozen(self, absent: NumpyArray) -> NumpyArray:
        return np.concatenate((absent, absent))


@dataclass(frozen=True)
class BiasCorrectedTemperatureMap(SmoothMap):
    """Bias-corrected temperature scaling; its parameters are the one scale, then the K biases.

    These are under the weak prior of `VectorMap`.
    """

    penalty: float = field(
        default=1e-6,
        metadata={"help": "ridge on the deviation from no bias, a parameter", "least": 0},
    )
    prior: float = field(
        default=_WEAK_PRIOR,
        metadata={"help": "ridge on the biases, over rows; 0 for none", "least": 0},
    )

    name = "bias-corrected-temperature"
    title = "one temperature for all logits and a bias a class"
    source = "Alexandari, Kundaje and Shrikumar, ICML 2020"
    preserves = "nothing"
    cost = "about 30 passes"
    normalises = True
    tunable = ("penalty",)

    def size(self, classes: int) -> int:
        return classes + 1

    def rows_needed(self, classes: int) -> int:
        return 50 * classes

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.concatenate(([scale], np.zeros(classes)))

    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        return logits * float(theta[0]) + like(theta[1:], logits)

    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        xp = namespace(logits)
        scale = float(xp.sum(xp.sum(gradient * logits, axis=-1), dtype=xp.float64))
        return np.concatenate(([scale], sum_rows(gradient)))

    def pullback_squares(self, theta: NumpyArray, logits: Array, diagonal: Array) -> NumpyArray:
        return self.pullback(theta, logits * logits, diagonal)

    def calibrator(self, theta: NumpyArray, classes: int) -> VectorScaling:
        return VectorScaling(np.full(classes, theta[0]), theta[1:] - theta[1:].mean())

    def ridge(self, classes: int, rows: float) -> NumpyArray:
        strengths = np.full(classes + 1, self.penalty)
        strengths[1:] += self.prior / rows
        return strengths

    def frozen(self, absent: NumpyArray) -> NumpyArray:
        return np.concatenate(([False], absent))


@dataclass(frozen=True)
class StructuredVectorMap(ScalesAndBiases):
    """Structured vector scaling, ``(1 + v) log p + b``.

    Its ridge is ``penalty K / n (|v|^2 + |b|^2)``.
    """

    penalty: float = field(
        default=1.0,
        metadata={"help": "ridge on scales and biases, times classes / rows", "least": 0},
    )

    name = "svs"
    cost = "about 10 passes"
    title = "temperature, then a scale and a bias a class with a ridge"
    source = _SOURCE
    before = ("temperature", "laplace")
    tunable = ("penalty",)

    def rows_needed(self, classes: int) -> int:
        # The fewer rows there are, the more the ridge holds.
        return 5 * classes

    def ridge(self, classes: int, rows: float) -> NumpyArray:
        return np.full(2 * classes, 2 * self.penalty * classes / rows)

    def anchor(self, classes: int, scale: float) -> NumpyArray:
        return self.start(classes, 1.0)

    def frozen(self, absent: NumpyArray) -> NumpyArray:
        # The ridge determines the parameters of absent classes too.
        return np.zeros(self.size(len(absent)), bool)


@dataclass(frozen=True, eq=False)
class MatrixScaling(Calibrator):
    """``softmax(W log p + b)``.

    Parameters
    ----------
    matrix : float64 array (K, K)
        Row k makes the new logit of class k.
    bias : float64 array (K,)
    """

    matrix: NumpyArray
    bias: NumpyArray
    kind = "matrix"
    normalises = True

    def transform(self, logits: Array) -> Array:
        return logits @ like(self.matrix.T, logits) + like(self.bias, logits)

    def reach(self, bound: float) -> float:
        return bound * float(np.abs(self.matrix).sum(axis=1).max()) + float(np.abs(self.bias).max())

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> MatrixScaling:
        parameters.expect("matrix", "bias")
        return cls(
            parameters.array("matrix", (classes, classes)),
            parameters.array("bias", (classes,)),
        )

    def summary(self) -> str:
        off = self.matrix - np.diag(np.diag(self.matrix))
        return (
            f"diagonal {_span(np.diag(self.matrix))}, off-diagonal {_span(off)}, "
            f"biases {_span(self.bias)}"
        )


@dataclass(frozen=True)
class MatrixMap(SmoothMap):
    """Matrix scaling; its parameters are the matrix (K, K) row by row, then the K biases."""

    penalty: float = field(
        default=1.0,
        metadata={
            "help": "ridge on the deviation from one temperature, times parameters / rows",
            "least": 0,
        },
    )
    off_diagonal: float | None = field(
        default=None,
        metadata={
            "help": "ridge off the diagonal, times K (K - 1) / rows, in place of penalty",
            "least": 0,
        },
    )
    bias: float | None = field(
        default=None,
        metadata={
            "help": "ridge on the biases, times classes / rows, in place of penalty",
            "least": 0,
        },
    )

    name = "matrix"
    title = "a full affine map, with a ridge"
    source = "Guo et al., ICML 2017; ridge as in Kull et al., NeurIPS 2019"
    preserves = "nothing"
    cost = "about 10 passes of K multiplications more"
    normalises = True
    tunable: ClassVar[tuple[str, ...]] = ("penalty",)

    def size(self, classes: int) -> int:
        return classes * (classes + 1)

    def rows_needed(self, classes: int) -> int:
        return 50 * classes

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.concatenate((scale * np.eye(classes).ravel(), np.zeros(classes)))

    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        matrix, bias = self._split(theta, logits.shape[1])
        # Multiplied so that the result lies in memory as the logits do.
        if is_by_class(logits):
            new = (like(matrix, logits) @ logits.T).T
        else:
            new = logits @ like(matrix, logits).T
        new += like(bias, logits)
        return new

    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        matrix = to_numpy(gradient.T @ logits)
        return np.concatenate((matrix.ravel(), sum_rows(gradient)))

    def pullback_squares(self, theta: NumpyArray, logits: Array, diagonal: Array) -> NumpyArray:
        return self.pullback(theta, logits * logits, diagonal)

    def curvature(self, classes: int) -> Curvature:
        if self.size(classes) <= MOST_DENSE:
            return DenseMatrixCurvature()
        return BlockedMatrixCurvature() if classes <= MOST_BLOCKED else MatrixCurvature()

    def calibrator(self, theta: NumpyArray, classes: int) -> MatrixScaling:
        matrix, bias = self._split(theta, classes)
        return MatrixScaling(matrix, bias - bias.mean())

    def ridge(self, classes: int, rows: float) -> NumpyArray:
        unit = 2 * classes / rows
        strength = unit * self.penalty * (classes + 1) / classes
        off, bias = self.off_diagonal, self.bias
        return ridge_by_part(
            classes,
            strength,
            strength if off is None else unit * (classes - 1) * off,
            strength if bias is None else unit * bias,
        )

    def frozen(self, absent: NumpyArray) -> NumpyArray:
        return np.concatenate((np.repeat(absent, len(absent)), absent))

    @staticmethod
    def _split(theta: NumpyArray, classes: int) -> tuple[NumpyArray, NumpyArray]:
        return theta[:-classes].reshape(classes, classes), theta[-classes:]


@dataclass(frozen=True)
class DirichletMap(MatrixMap):
    """Dirichlet calibration, ``W log p + b``, with ridges off the diagonal and on the biases alone.

    Class-conditional Dirichlet distributions of p give just this map. The penalties are in the
    units of structured matrix scaling: the mean loss gains ``off_diagonal K (K - 1) / n |M|^2 +
    bias K / n |b|^2``, M the off-diagonal part of W; the source's lambda and mu are K^2 (K - 1)^2
    / n and K^2 / n times these.
    """

    penalty: float = field(
        default=0.0,
        metadata={
            "help": "ridge on the diagonal's deviation from one temperature, times classes / rows",
            "least": 0,
        },
    )
    off_diagonal: float = field(
        default=1.0, metadata={"help": "ridge off the diagonal, times K (K - 1) / rows", "least": 0}
    )
    bias: float = field(
        default=1.0, metadata={"help": "ridge on the biases, times classes / rows", "least": 0}
    )

    name = "dirichlet"
    title = "a full affine map of the log-probabilities, with a free diagonal"
    source = "Kull et al., Beyond temperature scaling, NeurIPS 2019 (ODIR)"
    tunable = ("off_diagonal", "bias")

    def ridge(self, classes: int, rows: float) -> NumpyArray:
        unit = 2 * classes / rows
        off_diagonal = (classes - 1) * self.off_diagonal
        return ridge_by_part(classes, unit * self.penalty, unit * off_diagonal, unit * self.bias)


@dataclass(frozen=True)
class StructuredMatrixMap(MatrixMap):
    """Structured matrix scaling, ``(I + diag v + M) log p + b``.

    Its ridge on v and b is that of `StructuredVectorMap`.

    M has no diagonal; its ridge is ``off_diagonal K (K - 1) / n |M|^2``.
    """

    penalty: float = field(
        default=1.0,
        metadata={"help": "ridge on scales and biases, times classes / rows", "least": 0},
    )
    off_diagonal: float = field(
        default=1.0, metadata={"help": "ridge on the others, times K (K - 1) / rows", "least": 0}
    )
    bias: float | None = field(
        default=None,
        metadata={
            "help": "ridge on the biases, times classes / rows, in place of penalty",
            "least": 0,
        },
    )

    name = "sms"
    title = "temperature, then a full affine map with a structured ridge"
    source = _SOURCE
    before = ("temperature", "laplace")
    tunable = ("off_diagonal", "penalty")

    def rows_needed(self, classes: int) -> int:
        # The fewer rows there are, the more the ridge holds.
        return 5 * classes

    def ridge(self, classes: int, rows: float) -> NumpyArray:
        unit = 2 * classes / rows
        bias = self.penalty if self.bias is None else self.bias
        return ridge_by_part(
            classes,
            unit * self.penalty,
            unit * (classes - 1) * self.off_diagonal,
            unit * bias,
        )

    def anchor(self, classes: int, scale: float) -> NumpyArray:
        return self.start(classes, 1.0)

    def frozen(self, absent: NumpyArray) -> NumpyArray:
        # The ridge determines the parameters of absent classes too.
        return np.zeros(self.size(len(absent)), bool)


def ridge_by_part(classes: int, diagonal: float, off_diagonal: float, bias: float) -> NumpyArray:
    """Penalty strengths (K (K + 1),) of a matrix map's parameters."""
    matrix = np.full((classes, classes), off_diagonal)
    np.fill_diagonal(matrix, diagonal)
    return np.concatenate((matrix.ravel(), np.full(classes, bias)))


def _span(values: NumpyArray) -> str:
    return f"{values.min():.3f} to {values.max():.3f}"
