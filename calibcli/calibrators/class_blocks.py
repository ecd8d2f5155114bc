"""A preconditioner for maps with a matrix: a block a class, and how the classes bend together.

With the inputs x of a row, a 1 behind them, and the probabilities p, the Hessian of the likelihood
has the blocks ``E p_k (1 - p_k) x x'`` of a class and ``-E p_k p_l x x'`` of two. Those of a class
are summed as they are. Of two classes they are taken for what a few features of x say of it, the
same for both up to the choice of the class's own input, by least squares under the weights
``p_k (1 - p_k)``. What is left over from the regression is positive semidefinite, and so is the
Hessian along the features: so is the sum. Its inverse comes from those of the blocks and of a
matrix of the size of the features (Woodbury; Nocedal and Wright, Numerical Optimization, A.1).

A Kronecker product, in which every class has the moments of all rows, takes three to ten times the
steps: where a class is in doubt, the inputs are others than elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    is_numpy_array,
    namespace,
    sum_classes,
    sum_rows,
    to_numpy,
)
from calibcli.calibrators.curvature import Curvature, Preconditioner

MOST_BLOCKED = 128
"""Classes; of more the blocks are larger than the rows that they come from."""

_FEATURES = 3
"""Of a class: 1, the mean of all inputs, and its own input."""

_TOLD_BY = 5
"""Of the rows of a tile one in so many, those where it is most in doubt, make the block of a class;
the others count with the moments of all rows."""

_SMALLEST_SHARE = 1e-7
"""Curvatures below this share of the largest are rounding, as along a shift of all logits."""

_LEAST_BEND = 1e-3
"""What rounding may leave of the bend along features, as a share of that of the blocks alone."""


class BlockedMatrixCurvature(Curvature):
    """The K (K + 1) parameters of a matrix map."""

    def partial(self, inputs: Array, probs: Array, weights: Array | None) -> NumpyArray:
        return self.partial_beside((), inputs, probs, weights)

    def partial_beside(
        self, moves: Iterable[Array], inputs: Array, probs: Array, weights: Array | None
    ) -> NumpyArray:
        """The sums with those of other parameters, the derivatives (n, K) by which are ``moves``.

        Their own Hessian is not among them.
        """
        xp = namespace(inputs)
        # A preconditioner needs no more digits.
        inputs, probs = xp.astype(inputs, xp.float32), xp.astype(probs, xp.float32)
        heavy = probs
        if weights is not None:
            heavy = probs * xp.astype(weights, xp.float32)[:, None]
        blocks = _blocks(inputs, heavy - heavy * probs)
        features = (xp.ones_like(inputs), xp.zeros_like(inputs) + _means(inputs)[:, None], inputs)
        joint = _along_features(features, probs, heavy)
        beside = [_beside(move, inputs, probs, heavy) for move in moves]
        return np.concatenate([blocks.ravel(), joint.ravel(), *beside])

    def features(self, parameters: int) -> int:
        """How many features all classes have together, for K (K + 1) parameters."""
        return _FEATURES * round(math.sqrt(parameters + 0.25) - 0.5)

    def preconditioner(self, mean: NumpyArray, ridge: NumpyArray) -> Preconditioner:
        return self.preconditioner_beside(np.empty((0, 0)), mean, ridge)

    def preconditioner_beside(
        self, hessian: NumpyArray, mean: NumpyArray, ridge: NumpyArray
    ) -> Preconditioner:
        """The preconditioner of some other parameters, and of the matrix map's behind them.

        Parameters
        ----------
        hessian : float64 array (m, m)
            Of the others, their ridge included.
        mean : float64 array (S,)
            Sums of `partial_beside`, those beside already by the other parameters.
        ridge : float64 array (K (K + 1),)
        """
        others = len(hessian)
        width = self.features(len(ridge))
        classes = width // _FEATURES
        size = classes + 1
        blocks, joint, beside = np.split(mean, np.cumsum([classes * size * size, width * width]))
        blocks = blocks.reshape(classes, size, size)
        strengths = np.column_stack((ridge[:-classes].reshape(classes, classes), ridge[-classes:]))
        floor = _SMALLEST_SHARE * float(np.abs(blocks).max())
        by_class = _features_of_classes(classes)
        along = blocks @ by_class
        inner = by_class.transpose(0, 2, 1) @ along
        inner += floor * np.eye(_FEATURES)
        known = along @ np.linalg.inv(inner)
        bent = blocks.copy()
        every = np.arange(size)
        bent[:, every, every] += strengths + floor
        inverse = np.linalg.inv(bent)
        inverse_known = inverse @ known
        # What the Hessian along the features has beyond that of the blocks, and the other
        # parameters beside it.
        beyond = np.zeros((others + width, others + width))
        beyond[others:, others:] = joint.reshape(width, width)
        place = others + np.arange(_FEATURES) * classes + np.arange(classes)[:, None]
        beyond[place[:, :, None], place[:, None, :]] -= inner
        if others:
            beyond[:others, others:] = beside.reshape(others, width)
            beyond[others:, :others] = beyond[:others, others:].T
        told = np.zeros_like(beyond)
        told[place[:, :, None], place[:, None, :]] = known.transpose(0, 2, 1) @ inverse_known
        first = np.linalg.inv(hessian)
        told[:others, :others] = first
        correction = _correction(told, beyond)

        def apply(gradient: NumpyArray) -> NumpyArray:
            own, rest = gradient[:others], gradient[others:]
            rows = np.column_stack((rest[:-classes].reshape(classes, classes), rest[-classes:]))
            seen = np.empty(len(told))
            seen[:others] = first @ own
            seen[place] = np.einsum("kaf,ka->kf", inverse_known, rows)
            moved = correction @ seen
            new = (inverse @ rows[:, :, None])[:, :, 0]
            new += np.einsum("kaf,kf->ka", inverse_known, moved[place])
            return np.concatenate(
                (seen[:others] + first @ moved[:others], new[:, :-1].ravel(), new[:, -1])
            )

        return apply


def _means(inputs: Array) -> Array:
    return sum_classes(inputs) / inputs.shape[1]


def _features_of_classes(classes: int) -> NumpyArray:
    """What the features of each class are made of: (K, K + 1, 3), the inputs with a 1 behind."""
    features = np.zeros((classes, classes + 1, _FEATURES))
    features[:, classes, 0] = 1.0
    features[:, :classes, 1] = 1 / classes
    features[np.arange(classes), np.arange(classes), 2] = 1.0
    return features


def _blocks(inputs: Array, bends: Array) -> NumpyArray:
    """Sums of ``b_k x x'`` (K, K + 1, K + 1) over rows, b (n, K), or nearly."""
    xp = namespace(inputs)
    rows, classes = inputs.shape
    wide = xp.concat((inputs, xp.ones_like(inputs[:, :1])), axis=1)
    count = max(rows // _TOLD_BY, min(2 * classes, rows))
    moments = to_numpy(wide.T @ wide).astype(np.float64) / rows
    total = sum_rows(bends)
    blocks = np.empty((classes, classes + 1, classes + 1))
    if is_numpy_array(inputs):
        wide = np.ascontiguousarray(wide)
        order = np.argpartition(bends.T, rows - count, axis=1)[:, rows - count :]
    else:
        order = xp.argsort(bends, axis=0)[rows - count :].T
    for number in range(classes):
        chosen = order[number]
        heavy = bends[:, number][chosen]
        part = wide[chosen]
        blocks[number] = to_numpy(part.T @ (part * heavy[:, None]))
        left = float(total[number]) - float(xp.sum(heavy, dtype=xp.float64))
        blocks[number] += max(left, 0.0) * moments
    return (blocks + blocks.transpose(0, 2, 1)) / 2


def _along_features(features: Sequence[Array], probs: Array, heavy: Array) -> NumpyArray:
    """The Hessian (3 K, 3 K) along the features (n, K) of all classes, feature after feature."""
    xp, classes = namespace(probs), probs.shape[1]
    moved = xp.concat([probs * feature for feature in features], axis=1)
    pulled = xp.concat([heavy * feature for feature in features], axis=1)
    hessian = -to_numpy(pulled.T @ moved).astype(np.float64)
    hessian = (hessian + hessian.T) / 2
    every = np.arange(classes)
    for i, one in enumerate(features):
        for j, other in enumerate(features[: i + 1]):
            own = sum_rows(heavy * one * other)
            hessian[i * classes + every, j * classes + every] += own
            if i != j:
                hessian[j * classes + every, i * classes + every] += own
    return hessian


def _beside(move: Array, inputs: Array, probs: Array, heavy: Array) -> NumpyArray:
    """The Hessian (3 K,) by a parameter with the derivatives (n, K) and along the features."""
    bent = heavy * (move - sum_classes(probs * move)[:, None])
    return np.concatenate(
        (sum_rows(bent), sum_rows(bent * _means(inputs)[:, None]), sum_rows(bent * inputs))
    )


def _correction(told: NumpyArray, beyond: NumpyArray) -> NumpyArray:
    """C (q, q) such that ``D + G N G'`` has the inverse ``D^-1 + D^-1 G C G' D^-1``.

    Parameters
    ----------
    told : float64 array (q, q)
        ``T = G' D^-1 G``.
    beyond : float64 array (q, q)
        N. Rounding may have left it so that the sum is not positive definite; it is then changed as
        far as that takes.
    """
    told = told + 1e-10 * np.trace(told) / len(told) * np.eye(len(told))
    root = np.linalg.cholesky(told)
    bends, basis = np.linalg.eigh(root.T @ beyond @ root)
    factors = 1 / np.maximum(1 + bends, _LEAST_BEND) - 1
    spread = np.linalg.solve(root.T, basis)
    correction: NumpyArray = (spread * factors) @ spread.T
    return correction
