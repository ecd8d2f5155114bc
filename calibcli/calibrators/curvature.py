"""How the negative log-likelihood bends along the parameters of a map.

The Hessian of a row is ``J' (diag p - p p') J``, J being the derivative of the new logits by the
parameters: a block a class, minus a product of rank one. Means of these over the rows make a
preconditioner under which the problem is nearly round, so that a quasi-Newton method that starts
with it needs but a handful of gradients (Nocedal and Wright, Numerical Optimization, section 7.2,
on initial matrices).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable

import numpy as np

from calibcli.arrays import Array, NumpyArray, namespace, sum_rows, to_numpy

Preconditioner = Callable[[NumpyArray], NumpyArray]
"""An approximate inverse Hessian times a gradient (P,), symmetric and positive definite."""

MOST_DENSE = 256
"""Up to so many parameters the whole Hessian is summed and inverted."""

_BLOCK_ELEMENTS = 1 << 19
"""Numbers in a block of rows of a dense Hessian: 4 MiB in float64, which stay in the cache."""

_SMALLEST_SHARE = 1e-7
"""Curvatures below this share of the largest are rounding, as along a shift of all logits."""


class Curvature(ABC):
    """Sums over rows that a preconditioner is made of."""

    @property
    def name(self) -> Hashable:
        """The same where the same rows and probabilities give the same sums."""
        return type(self)

    @abstractmethod
    def partial(self, inputs: Array, probs: Array, weights: Array | None) -> NumpyArray:
        """Sums (S,) of rows: inputs (n, K) and probabilities (n, K) of the map, weights (n,)."""

    @abstractmethod
    def preconditioner(self, mean: NumpyArray, ridge: NumpyArray) -> Preconditioner:
        """The preconditioner of mean sums (S,), with a ridge (P,) on the parameters."""


class KeptWork(ABC):
    """What a map finds of rows in every pass and may keep, beside the rows themselves.

    Attributes
    ----------
    nbytes : int
        What it takes to keep it.
    """

    nbytes: int

    @abstractmethod
    def have_at_hand(self, values: NumpyArray) -> None:
        """Let what this thread does next with the map and these rows (n, K) find it."""


class PreparedRows(ABC):
    """What a map of few parameters, linear in them, needs of rows in every pass, found once.

    Attributes
    ----------
    nbytes : int
        What it takes to keep it.
    """

    nbytes: int

    @abstractmethod
    def derivatives(self, theta: NumpyArray, weights: NumpyArray) -> NumpyArray:
        """Sums over the rows of the negative log-likelihood, its gradient and its Hessian.

        Parameters
        ----------
        theta : float64 array (P,)
        weights : float64 array (n,)

        Returns
        -------
        float64 array (1 + P + P * P,)
        """


class Expansion(ABC):
    """All derivatives of the negative log-likelihood by a map's parameters, from one fold.

    For maps of few parameters that are not linear in them.
    """

    @abstractmethod
    def start(self, theta: NumpyArray) -> NumpyArray:
        """Parameters (P,) like these from which a search can go every way."""

    @abstractmethod
    def normalised(self, theta: NumpyArray) -> NumpyArray:
        """Parameters (P,) of the same map, where several give the same one."""

    @abstractmethod
    def partial(
        self, theta: NumpyArray, logits: Array, labels: Array, weights: Array | None
    ) -> NumpyArray:
        """Sums (S,) of rows: logits (n, K), labels (n,), weights (n,)."""

    @abstractmethod
    def derivatives(
        self, theta: NumpyArray, mean: NumpyArray
    ) -> tuple[float, NumpyArray, NumpyArray]:
        """Value, gradient (P,) and Hessian (P, P) of mean sums (S,)."""


def smallest_curvature(hessian: NumpyArray) -> float:
    """The least number to add to the diagonal of a Hessian (P, P) so that it has an inverse.

    It is 1 where all probabilities are 0 and 1: there is no curvature then, or only rounding.
    """
    largest = float(hessian.diagonal().max())
    return _SMALLEST_SHARE * largest if largest > 0 else 1.0


class _Dense(Curvature):
    """The whole Hessian, of few parameters."""

    def partial(self, inputs: Array, probs: Array, weights: Array | None) -> NumpyArray:
        rows, classes = inputs.shape
        step = max(_BLOCK_ELEMENTS // self._index(classes).size, 1)
        parts = []
        for begin in range(0, rows, step):
            part = slice(begin, begin + step)
            chances = probs[part].T
            heavy = chances if weights is None else chances * weights[part]
            parts += [self._sums(inputs[part].T, chances, heavy)]
        total: NumpyArray = np.sum(parts, axis=0)
        return total

    def _sums(self, inputs: Array, probs: Array, heavy: Array) -> NumpyArray:
        moved = self._moved(inputs, heavy)
        gram = moved @ self._moved(inputs, probs).T
        blocks = self._blocks(inputs, heavy, moved)
        return np.concatenate([to_numpy(s).astype(np.float64).ravel() for s in (gram, blocks)])

    def preconditioner(self, mean: NumpyArray, ridge: NumpyArray) -> Preconditioner:
        size = len(ridge)
        hessian = -mean[: size * size].reshape(size, size)
        block = int((len(mean) - size * size) // size)
        index = self._index(size // block)
        hessian[index[:, :, None], index[:, None, :]] += mean[size * size :].reshape(
            -1, block, block
        )
        floor = smallest_curvature(hessian)
        inverse = np.linalg.inv(hessian + np.diag(ridge + floor))
        return lambda gradient: inverse @ gradient

    @abstractmethod
    def _index(self, classes: int) -> NumpyArray:
        """The parameters (K, m) of each class."""

    @abstractmethod
    def _moved(self, inputs: Array, probs: Array) -> Array:
        """``J' p`` (P, n) of inputs (K, n) and probabilities (K, n)."""

    @abstractmethod
    def _blocks(self, inputs: Array, heavy: Array, moved: Array) -> Array:
        """Sums of ``p_k J_k' J_k`` (K, m, m) of inputs (K, n), weighted p (K, n) and J' p."""


class DenseVectorCurvature(_Dense):
    """All of the K scales and K biases of a vector map."""

    def _index(self, classes: int) -> NumpyArray:
        return np.arange(2 * classes).reshape(2, classes).T

    def _moved(self, inputs: Array, probs: Array) -> Array:
        return namespace(inputs).concat((probs * inputs, probs))

    def _blocks(self, inputs: Array, heavy: Array, moved: Array) -> Array:
        scales, mixed, biases = _moments(inputs.T, heavy.T)
        return np.stack((scales, mixed, mixed, biases), axis=1)


class DenseMatrixCurvature(_Dense):
    """All of the K (K + 1) parameters of a matrix map."""

    def _index(self, classes: int) -> NumpyArray:
        matrix = np.arange(classes * classes).reshape(classes, classes)
        return np.column_stack((matrix, classes * classes + np.arange(classes)))

    def _moved(self, inputs: Array, probs: Array) -> Array:
        xp = namespace(inputs)
        matrix = xp.reshape(probs[:, None, :] * inputs[None, :, :], (-1, inputs.shape[1]))
        return xp.concat((matrix, probs))

    def _blocks(self, inputs: Array, heavy: Array, moved: Array) -> Array:
        classes = inputs.shape[0]
        means = to_numpy(moved @ inputs.T)
        squares = means[:-classes].reshape(classes, classes, classes)
        blocks = np.empty((classes, classes + 1, classes + 1))
        blocks[:, :-1, :-1] = squares
        blocks[:, :-1, -1] = blocks[:, -1, :-1] = means[-classes:]
        blocks[:, -1, -1] = sum_rows(heavy.T)
        return blocks


class PairCurvature(Curvature):
    """The scale and the bias of each class of a vector map, one class apart from the others."""

    def partial(self, inputs: Array, probs: Array, weights: Array | None) -> NumpyArray:
        return _pair_sums(inputs, probs, weights)

    def preconditioner(self, mean: NumpyArray, ridge: NumpyArray) -> Preconditioner:
        return _pair_preconditioner(mean, ridge)


class MatrixCurvature(Curvature):
    """A matrix map: scale and bias of each class as in `PairCurvature`, and the rest by a product.

    Off the diagonal the Hessian is taken for ``A (x) S + ridge``, with the mean A of
    ``diag p - p p'`` and the second moments S of the inputs. The eigenvectors of both give its
    inverse (Martens and Grosse, Kronecker-factored approximate curvature, ICML 2015, section 6).
    """

    def partial(self, inputs: Array, probs: Array, weights: Array | None) -> NumpyArray:
        pairs = _pair_sums(inputs, probs, weights)
        if weights is None:
            heavy, heavy_inputs = probs, inputs
        else:
            heavy, heavy_inputs = probs * weights[:, None], inputs * weights[:, None]
        products = [to_numpy(m).ravel() for m in (heavy.T @ probs, heavy_inputs.T @ inputs)]
        return np.concatenate((pairs, sum_rows(heavy), *products))

    def preconditioner(self, mean: NumpyArray, ridge: NumpyArray) -> Preconditioner:
        classes = round(np.sqrt(len(ridge)) - 0.5)
        pair_means, mass, outer, moments = np.split(
            mean, np.cumsum([3 * classes, classes, classes * classes])
        )
        square = (classes, classes)
        strengths = ridge[:-classes].reshape(square)
        pair_inverse = _pair_preconditioner(
            pair_means, np.concatenate((strengths.diagonal(), ridge[-classes:]))
        )
        left, left_basis = np.linalg.eigh(np.diag(mass) - outer.reshape(square))
        right, right_basis = np.linalg.eigh(moments.reshape(square))
        bends = np.maximum(left, 0)[:, None] * np.maximum(right, 0)
        off = strengths.sum() - strengths.trace()
        bends += off / max(classes * (classes - 1), 1) + _SMALLEST_SHARE * bends.max()

        def apply(gradient: NumpyArray) -> NumpyArray:
            matrix = gradient[:-classes].reshape(square).copy()
            pair = pair_inverse(np.concatenate((matrix.diagonal(), gradient[-classes:])))
            np.fill_diagonal(matrix, 0)
            matrix = left_basis @ ((left_basis.T @ matrix @ right_basis) / bends) @ right_basis.T
            np.fill_diagonal(matrix, pair[:classes])
            return np.concatenate((matrix.ravel(), pair[classes:]))

        return apply


def _moments(inputs: Array, masses: Array) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
    """Sums over rows of masses (n, K) times the squares of inputs (n, K), times these, and bare."""
    moved = masses * inputs
    return sum_rows(moved * inputs), sum_rows(moved), sum_rows(masses)


def _pair_sums(inputs: Array, probs: Array, weights: Array | None) -> NumpyArray:
    bends = probs - probs * probs
    return np.concatenate(_moments(inputs, bends if weights is None else bends * weights[:, None]))


def _pair_preconditioner(mean: NumpyArray, ridge: NumpyArray) -> Preconditioner:
    scales, mixed, biases = mean.reshape(3, -1)
    classes = len(scales)
    floor = _SMALLEST_SHARE * float(mean.max())
    scales = scales + ridge[:classes] + floor
    biases = biases + ridge[classes:] + floor
    determinant = scales * biases - mixed * mixed

    def apply(gradient: NumpyArray) -> NumpyArray:
        by_scale, by_bias = gradient[:classes], gradient[classes:]
        return np.concatenate(
            (
                (biases * by_scale - mixed * by_bias) / determinant,
                (scales * by_bias - mixed * by_scale) / determinant,
            )
        )

    return apply
