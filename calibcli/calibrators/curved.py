"""One curve for all classes and a structured affine map, added up and fitted together.

A curve that all classes share corrects the confidence, an affine map corrects single classes.
Fitted one after the other, the first would take a part of what the second does better; in one
convex fit they share the work out, and the common scale stays free.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from calibcli.arrays import Array, NumpyArray
from calibcli.calibrators.affine import (
    MatrixMap,
    MatrixScaling,
    ScalesAndBiases,
    StructuredMatrixMap,
    StructuredVectorMap,
    VectorScaling,
)
from calibcli.calibrators.base import Calibrator, SmoothMap
from calibcli.calibrators.class_blocks import BlockedMatrixCurvature
from calibcli.calibrators.curvature import Curvature, KeptWork, Preconditioner, smallest_curvature
from calibcli.calibrators.monotone import MonotoneMap
from calibcli.calibrators.parameters import Parameters
from calibcli.calibrators.piecewise import (
    KeptPieces,
    derivatives_by_slopes,
    likelihood_hessian,
    piecewise_linear,
    pull_slopes,
    reach_of_pieces,
    read_knots,
)


@dataclass(frozen=True, eq=False)
class _Curved(Calibrator):
    knots: NumpyArray
    slopes: NumpyArray
    affine: VectorScaling | MatrixScaling
    normalises: ClassVar[bool] = True
    _affine: ClassVar[type[VectorScaling | MatrixScaling]]

    def transform(self, logits: Array) -> Array:
        new = self.affine.transform(logits)
        new += piecewise_linear(self.knots, self.slopes, logits)
        return new

    def parameters(self) -> dict[str, Any]:
        return {"knots": self.knots, "slopes": self.slopes, **self.affine.parameters()}

    def reach(self, bound: float) -> float:
        return self.affine.reach(bound) + reach_of_pieces(self.knots, self.slopes, bound)

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> _Curved:
        curve, rest = parameters.split("knots", "slopes")
        affine = cls._affine.from_parameters(rest, classes)
        curve.expect("knots", "slopes")
        knots = read_knots(curve)
        return cls(knots, curve.array("slopes", (len(knots) + 1,)), affine)

    def summary(self) -> str:
        least, most = self.slopes.min(), self.slopes.max()
        return f"{len(self.slopes)} slopes from {least:.3f} to {most:.3f}; {self.affine.summary()}"


class CurvedVector(_Curved):
    """``softmax(f(log p) + scale * log p + bias)``, f piecewise linear.

    Parameters
    ----------
    knots : float64 array (m,)
        Where the slope of f changes, in ascending order.
    slopes : float64 array (m + 1,)
        Slopes of the pieces, from the smallest log-probabilities upwards.
    scale, bias : float64 array (K,)
    """

    kind = "curved-vector"
    _affine = VectorScaling


class CurvedMatrix(_Curved):
    """``softmax(f(log p) + W log p + b)``, f piecewise linear.

    Parameters
    ----------
    knots : float64 array (m,)
        Where the slope of f changes, in ascending order.
    slopes : float64 array (m + 1,)
        Slopes of the pieces, from the smallest log-probabilities upwards.
    matrix : float64 array (K, K)
        Row k is added to the new logit of class k.
    bias : float64 array (K,)
    """

    kind = "curved-matrix"
    _affine = MatrixScaling


@dataclass(frozen=True)
class _CurvedMap(SmoothMap):
    """A curve plus an affine map; the parameters are slopes, then those of the affine map.

    So the ridge is a diagonal one, and the common slope is free.
    """

    pieces: int = field(default=16, metadata={"help": "linear pieces of the function"})
    bend: float = field(
        default=20.0,
        metadata={"help": "ridge on differences of neighbouring slopes, over rows", "least": 0},
    )
    penalty: float = field(
        default=1.0,
        metadata={"help": "ridge on scales and biases, times classes / rows", "least": 0},
    )
    knots: tuple[float, ...] | None = None

    preserves = "nothing"
    normalises = True
    keeps_work = True
    before = ("temperature", "laplace")
    _calibrator: ClassVar[type[_Curved]]

    def __post_init__(self) -> None:
        # It checks the number of pieces.
        MonotoneMap(self.pieces)

    @property
    @abstractmethod
    def _affine(self) -> ScalesAndBiases | MatrixMap:
        """The affine part."""

    @property
    def _curve(self) -> MonotoneMap:
        return MonotoneMap(self.pieces, knots=self.knots)

    @property
    def needs_placing(self) -> bool:
        return self.knots is None

    @property
    def most_telling(self) -> int | None:
        return self._curve.most_telling

    def placed(self, log_probs: NumpyArray, weights: NumpyArray) -> _CurvedMap:
        return replace(self, knots=self._curve.placed(log_probs, weights).knots)

    def size(self, classes: int) -> int:
        return self._curve.size(classes) + self._affine.size(classes)

    def rows_needed(self, classes: int) -> int:
        # The fewer rows there are, the more the ridges hold.
        return max(50, 5 * classes)

    def start(self, classes: int, scale: float) -> NumpyArray:
        theta = np.zeros(self.size(classes))
        theta[0] = scale
        return theta

    def anchor(self, classes: int, scale: float) -> NumpyArray:
        return self.start(classes, 1.0)

    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        slopes, affine = self._split(theta)
        new = self._affine.forward(affine, logits)
        new += piecewise_linear(self._curve.places, slopes, logits)
        return new

    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        by_slope = pull_slopes(self._curve.places, logits, gradient)
        affine = self._affine.pullback(theta[len(by_slope) :], logits, gradient)
        return np.concatenate((np.cumsum(by_slope)[::-1], affine))

    def kept_work(self, logits: NumpyArray) -> KeptWork:
        return KeptPieces(self._curve.places, logits)

    def calibrator(self, theta: NumpyArray, classes: int) -> Calibrator:
        slopes, affine = self._split(theta)
        fitted = self._affine.calibrator(affine, classes)
        return self._calibrator(self._curve.places, slopes, fitted)

    def ridge(self, classes: int, rows: float) -> NumpyArray:
        bends = np.full(self._curve.size(classes), 2 * self.bend / rows)
        bends[0] = 0.0
        return np.concatenate((bends, self._affine.ridge(classes, rows)))

    def curvature(self, classes: int) -> Curvature:
        affine = self._affine.curvature(classes)
        if isinstance(affine, BlockedMatrixCurvature):
            return _BlockedCurvature(self._curve.places, affine)
        return _CurvedCurvature(self._curve.places, affine)

    def _split(self, theta: NumpyArray) -> tuple[NumpyArray, NumpyArray]:
        """Slopes (m + 1,) and the parameters of the affine part."""
        pieces = len(self._curve.places) + 1
        return np.cumsum(theta[:pieces])[::-1], theta[pieces:]


@dataclass(frozen=True)
class CurvedVectorMap(_CurvedMap):
    """A curve plus structured vector scaling, with the penalties of both."""

    name = "curved-svs"
    title = "one curve for all classes plus a scale and a bias a class, in one convex fit"
    source = "svs (Berta et al., arXiv:2511.03685) and monotone, fitted together"
    cost = "about 15 passes"
    tunable = ("penalty",)
    _calibrator = CurvedVector

    @property
    def _affine(self) -> ScalesAndBiases:
        return StructuredVectorMap(self.penalty)


@dataclass(frozen=True)
class CurvedMatrixMap(_CurvedMap):
    """A curve plus structured matrix scaling, with the penalties of both."""

    off_diagonal: float = field(
        default=1.0, metadata={"help": "ridge on the others, times K (K - 1) / rows", "least": 0}
    )

    name = "curved-sms"
    title = "one curve for all classes plus a full affine map, in one convex fit"
    source = "sms (Berta et al., arXiv:2511.03685) and monotone, fitted together"
    cost = "about 15 passes of K multiplications more"
    tunable = ("off_diagonal", "penalty")
    _calibrator = CurvedMatrix

    @property
    def _affine(self) -> MatrixMap:
        return StructuredMatrixMap(self.penalty, self.off_diagonal)


class _CurvedCurvature(Curvature):
    """The whole Hessian of the curve, and the preconditioner of the affine part beside it."""

    def __init__(self, knots: NumpyArray, affine: Curvature) -> None:
        self.knots, self.affine = knots, affine

    @property
    def name(self) -> Hashable:
        return type(self), self.knots.tobytes(), self.affine.name

    def partial(self, inputs: Array, probs: Array, weights: Array | None) -> NumpyArray:
        curve = likelihood_hessian(self.knots, inputs, probs, weights)
        return np.concatenate((curve.ravel(), self.affine.partial(inputs, probs, weights)))

    def preconditioner(self, mean: NumpyArray, ridge: NumpyArray) -> Preconditioner:
        pieces = len(self.knots) + 1
        inverse = np.linalg.inv(self._hessian(mean, ridge))
        affine = self.affine.preconditioner(mean[pieces * pieces :], ridge[pieces:])
        return lambda gradient: np.concatenate(
            (inverse @ gradient[:pieces], affine(gradient[pieces:]))
        )

    def _hessian(self, mean: NumpyArray, ridge: NumpyArray) -> NumpyArray:
        """That of the curve by its parameters (m + 1, m + 1), with the ridge."""
        pieces = len(self.knots) + 1
        slopes = _slopes_by_parameters(pieces)
        hessian: NumpyArray = slopes.T @ mean[: pieces * pieces].reshape(pieces, pieces) @ slopes
        return hessian + np.diag(ridge[:pieces] + smallest_curvature(hessian))


class _BlockedCurvature(_CurvedCurvature):
    """The same, also of how the curve and the affine part bend together."""

    affine: BlockedMatrixCurvature

    def partial(self, inputs: Array, probs: Array, weights: Array | None) -> NumpyArray:
        curve = likelihood_hessian(self.knots, inputs, probs, weights)
        moves = derivatives_by_slopes(self.knots, inputs)
        affine = self.affine.partial_beside(moves, inputs, probs, weights)
        return np.concatenate((curve.ravel(), affine))

    def preconditioner(self, mean: NumpyArray, ridge: NumpyArray) -> Preconditioner:
        pieces = len(self.knots) + 1
        hessian, affine = self._hessian(mean, ridge), mean[pieces * pieces :].copy()
        width = self.affine.features(len(ridge) - pieces)
        beside = affine[-pieces * width :].reshape(pieces, width)
        beside[:] = _slopes_by_parameters(pieces).T @ beside
        return self.affine.preconditioner_beside(hessian, affine, ridge[pieces:])


def _slopes_by_parameters(pieces: int) -> NumpyArray:
    """The slopes (m + 1,) by parameters (m + 1,), the last one and differences, as a matrix."""
    return np.tril(np.ones((pieces, pieces)))[::-1]
