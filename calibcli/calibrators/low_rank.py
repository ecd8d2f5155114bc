"""A scale and a bias a class, and a matrix of low rank: maps between `svs` and `sms`.

With a hundred classes `sms` has ten thousand numbers and a ridge that leaves little of them. Here
the classes are mixed through a few features alone, the principal directions of the
log-probabilities: what varies most among the rows, such as which group of classes they are about.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from calibcli.arrays import Array, NumpyArray, like, namespace, sum_products, sum_rows, to_numpy
from calibcli.cached import cached_property
from calibcli.calibrators.base import Calibrator, SmoothMap
from calibcli.calibrators.curvature import Curvature, Preconditioner, smallest_curvature
from calibcli.calibrators.parameters import Parameters

_LOWEST = -50.0
"""Log-probabilities below that count as that: an impossible class doesn't make the directions."""

_LEAST_VARIANCE = 1e-9
"""Of a direction, as a share of the largest: what varies less is rounding."""


_BLOCK_ELEMENTS = 1 << 19
"""Products of features that are at hand at a time: 4 MiB in float64, so that they stay in cache."""


@dataclass(frozen=True, eq=False)
class LowRank(Calibrator):
    """``softmax(scale * log p + left (right log p) + bias)``.

    Parameters
    ----------
    scale, bias : float64 array (K,)
    left : float64 array (K, r)
        What each feature adds to the new logits.
    right : float64 array (r, K)
        Row j makes feature j of the log-probabilities.

    Examples
    --------
    >>> swap = LowRank(np.ones(2), np.zeros(2), np.array([[-1.0], [1.0]]), np.array([[1.0, -1.0]]))
    >>> swap.probs(np.log([[0.8, 0.2]])).round(3)
    array([[0.2, 0.8]])
    """

    scale: NumpyArray
    bias: NumpyArray
    left: NumpyArray
    right: NumpyArray
    kind = "low-rank"
    normalises = True

    def transform(self, logits: Array) -> Array:
        features = logits @ like(self.right.T, logits)
        new = logits * like(self.scale, logits) + features @ like(self.left.T, logits)
        return new + like(self.bias, logits)

    def reach(self, bound: float) -> float:
        mixed = np.abs(self.left) @ np.abs(self.right).sum(axis=1)
        return float((bound * (np.abs(self.scale) + mixed) + np.abs(self.bias)).max())

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> LowRank:
        parameters.expect("scale", "bias", "left", "right")
        right = parameters.matrix("right", classes)
        return cls(
            parameters.array("scale", (classes,)),
            parameters.array("bias", (classes,)),
            parameters.array("left", (classes, len(right))),
            right,
        )

    def summary(self) -> str:
        return (
            f"scales {self.scale.min():.3f} to {self.scale.max():.3f}, biases "
            f"{self.bias.min():.3f} to {self.bias.max():.3f}, rank {len(self.right)}"
        )


@dataclass(frozen=True)
class LowRankMap(SmoothMap):
    """``scale * x + U f(x) + bias`` of log-probabilities x, f their first principal components.

    These have mean 0 and variance 1 over the rows and are found without the labels, so that the fit
    is convex. The parameters are the K scales, the K biases, and U (K, r) row by row. The mean loss
    gains ``vector K / n (|scale - 1|^2 + |bias|^2)``, as `svs`, and ``penalty / n |U|^2 / 2``.
    """

    rank: int = field(
        default=20, metadata={"help": "features, fewer than there are classes", "least": 1}
    )
    penalty: float = field(
        default=100.0,
        metadata={"help": "ridge on what the features add, over rows", "least": 0},
    )
    vector: float = field(
        default=1.0,
        metadata={"help": "ridge on scales and biases, times classes / rows", "least": 0},
    )
    directions: tuple[tuple[float, ...], ...] | None = None
    centre: tuple[float, ...] = ()

    name = "low-rank"
    title = "temperature, then a scale and a bias a class and a matrix of low rank, with a ridge"
    source = "reduced-rank regression on principal components, with a ridge"
    preserves = "nothing"
    cost = "about 15 passes of 40 multiplications more"
    normalises = True
    before = ("temperature", "laplace")
    tunable = ("penalty",)

    @property
    def needs_placing(self) -> bool:
        return self.directions is None

    def placed(self, log_probs: NumpyArray, weights: NumpyArray) -> LowRankMap:
        rows = np.maximum(log_probs.astype(np.float64), _LOWEST)
        shares = weights / max(float(weights.sum()), 1e-300)
        centre = shares @ rows
        rows = rows - centre
        variances, basis = np.linalg.eigh((rows * shares[:, None]).T @ rows)
        most = self._rank(log_probs.shape[1])
        variances, basis = variances[::-1][:most], basis[:, ::-1][:, :most]
        # The first is there also where nothing varies, as a feature that is always 0.
        kept = variances > _LEAST_VARIANCE * max(float(variances[0]), _LEAST_VARIANCE)
        kept[0] = True
        units = np.where(variances > 0, np.sqrt(np.maximum(variances, _LEAST_VARIANCE)), 1.0)
        scaled = (basis[:, kept] / units[kept]).T
        # An eigenvector has no sign; that of its largest entry is the same on every machine.
        largest = np.abs(scaled).argmax(axis=1)
        scaled *= np.sign(scaled[np.arange(len(scaled)), largest])[:, None]
        directions = tuple(tuple(row) for row in scaled.tolist())
        return replace(self, directions=directions, centre=tuple((scaled @ centre).tolist()))

    @cached_property
    def _right(self) -> NumpyArray:
        """The directions (r, K)."""
        return np.array(self.directions)

    @cached_property
    def _offset(self) -> NumpyArray:
        return np.array(self.centre)

    def _rank(self, classes: int) -> int:
        return min(self.rank, classes - 1) if self.directions is None else len(self.directions)

    def size(self, classes: int) -> int:
        return classes * (2 + self._rank(classes))

    def rows_needed(self, classes: int) -> int:
        # The fewer rows there are, the more the ridge holds.
        return 5 * classes

    def start(self, classes: int, scale: float) -> NumpyArray:
        return np.concatenate((np.full(classes, scale), np.zeros(self.size(classes) - classes)))

    def features(self, logits: Array) -> Array:
        """Of log-probabilities (n, K) the principal components (n, r).

        Before they are placed these are the first log-probabilities themselves.
        """
        if self.directions is None:
            return logits[:, : self._rank(logits.shape[1])]
        return logits @ like(self._right.T, logits) - like(self._offset, logits)

    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        scale, bias, left = self._split(theta, logits.shape[1])
        new = logits * like(scale, logits)
        new += like(bias, logits)
        new += self.features(logits) @ like(left.T, logits)
        return new

    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        left = to_numpy(gradient.T @ self.features(logits)).astype(np.float64)
        pair = (sum_products(gradient, logits), sum_rows(gradient))
        return np.concatenate((*pair, left.ravel()))

    def pullback_squares(self, theta: NumpyArray, logits: Array, diagonal: Array) -> NumpyArray:
        left = to_numpy(diagonal.T @ self.features(logits) ** 2).astype(np.float64)
        pair = (sum_products(diagonal, logits * logits), sum_rows(diagonal))
        return np.concatenate((*pair, left.ravel()))

    def curvature(self, classes: int) -> Curvature:
        return _ClassCurvature(self)

    def calibrator(self, theta: NumpyArray, classes: int) -> LowRank:
        scale, bias, left = self._split(theta, classes)
        if self.directions is None:
            return LowRank(scale, bias - bias.mean(), left, np.eye(left.shape[1], classes))
        bias = bias - left @ self._offset
        return LowRank(scale, bias - bias.mean(), left, self._right)

    def ridge(self, classes: int, rows: float) -> NumpyArray:
        pair = np.full(2 * classes, 2 * self.vector * classes / rows)
        left = np.full(self.size(classes) - 2 * classes, self.penalty / rows)
        return np.concatenate((pair, left))

    def anchor(self, classes: int, scale: float) -> NumpyArray:
        return self.start(classes, 1.0)

    @staticmethod
    def _split(theta: NumpyArray, classes: int) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
        scale, bias, left = np.split(theta, (classes, 2 * classes))
        return scale, bias, left.reshape(classes, -1)


class _ClassCurvature(Curvature):
    """All parameters of each class, one class apart from the others."""

    def __init__(self, family: LowRankMap) -> None:
        self.family = family

    def partial(self, inputs: Array, probs: Array, weights: Array | None) -> NumpyArray:
        xp = namespace(inputs)
        bends = probs - probs * probs
        if weights is not None:
            bends = bends * weights[:, None]
        common = self.family.features(inputs)
        common = xp.concat((xp.ones_like(inputs[:, :1]), common), axis=1)
        # Of the class's own log-probability: its square, and its products with what is common.
        moved = bends * inputs
        own = (sum_products(moved, inputs), to_numpy(moved.T @ common).ravel())
        size = common.shape[1]
        step = max(_BLOCK_ELEMENTS // size**2, 1)
        products = np.zeros((inputs.shape[1], size * size))
        for begin in range(0, len(inputs), step):
            part = common[begin : begin + step]
            pairs = xp.reshape(part[:, :, None] * part[:, None, :], (-1, size * size))
            products += to_numpy(bends[begin : begin + step].T @ pairs)
        return np.concatenate([*own, products.ravel()]).astype(np.float64)

    def preconditioner(self, mean: NumpyArray, ridge: NumpyArray) -> Preconditioner:
        directions = self.family.directions
        assert directions is not None
        size = 2 + len(directions)
        classes = len(ridge) // size
        square, mixed, common = np.split(mean, np.cumsum([classes, classes * (size - 1)]))
        blocks = np.empty((classes, size, size))
        blocks[:, 0, 0] = square
        blocks[:, 0, 1:] = blocks[:, 1:, 0] = mixed.reshape(classes, -1)
        blocks[:, 1:, 1:] = common.reshape(classes, size - 1, size - 1)
        floor = max(smallest_curvature(block) for block in blocks)
        strengths = self._by_class(ridge, classes)
        inverse = np.linalg.inv(blocks + (strengths + floor)[:, :, None] * np.eye(size))

        def apply(gradient: NumpyArray) -> NumpyArray:
            step = (inverse @ self._by_class(gradient, classes)[:, :, None])[:, :, 0]
            return np.concatenate((step[:, 0], step[:, 1], step[:, 2:].ravel()))

        return apply

    @staticmethod
    def _by_class(theta: NumpyArray, classes: int) -> NumpyArray:
        """Parameters (P,) as (K, 2 + r)."""
        scale, bias, left = np.split(theta, (classes, 2 * classes))
        return np.column_stack((scale, bias, left.reshape(classes, -1)))
