"""The kernel calibration error of the whole probability vector, as sums over rows.

The squared kernel calibration error (SKCE) is the mean of ``(e_y - p)' (e_y' - p') k(p, p')`` over
pairs of rows: 0 for a calibrated model. The kernel is that of random features, so that sums over
rows stand for sums over pairs. Rows are shared out to bags by their numbers; pairs of different
bags give an unbiased estimate.

References
----------
Widmann, Lindsten and Zachariah (2019), Calibration tests in multi-class classification,
arXiv:1910.11385; Rahimi and Recht (2007), Random features for large-scale kernel machines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from calibcli.arrays import NumpyArray, like, to_numpy
from calibcli.metrics.view import View

_FEATURES, _DIRECTIONS = 32, 32
_WIDTH = 0.5
"""Width of the Gaussian kernel, in Euclidean distance between probability vectors."""


@dataclass(frozen=True)
class KernelFeatures:
    """Random features of a Gaussian kernel, and directions to which residuals are projected.

    Of more than 32 classes the residuals are projected at random to 32 dimensions, which keeps
    their products on average.
    """

    seed: int = 0
    description = f"Gaussian kernel of width {_WIDTH} by {_FEATURES} random features"

    def draw(self, classes: int) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
        """Projection (K, d), frequencies (K, D) and phases (D,)."""
        generator = np.random.Generator(np.random.Philox(key=self.seed))
        frequencies = generator.standard_normal((classes, _FEATURES)) / _WIDTH
        phases = generator.uniform(0, 2 * math.pi, _FEATURES)
        if classes <= _DIRECTIONS:
            return np.eye(classes), frequencies, phases
        signs = generator.integers(0, 2, (classes, _DIRECTIONS)) * 2.0 - 1.0
        return signs / math.sqrt(_DIRECTIONS), frequencies, phases

    def of(self, view: View) -> KernelRows:
        """The features of the rows of a view."""
        projection, frequencies, phases = self.draw(view.classes)
        both = np.concatenate((projection, frequencies), axis=1)
        projected = to_numpy(view.probs @ like(both, view.probs)).astype(np.float64)
        split = projection.shape[1]
        features = math.sqrt(2 / _FEATURES) * np.cos(projected[:, split:] + phases)
        return KernelRows(projection, projected[:, :split], view.weights[:, None] * features)


@dataclass(frozen=True)
class KernelRows:
    """Rows as the kernel sees them.

    Attributes
    ----------
    projection : array (K, d)
    projected : array (n, d)
        Probabilities.
    features : array (n, D)
        Times the weight.
    """

    projection: NumpyArray
    projected: NumpyArray
    features: NumpyArray

    @property
    def size(self) -> int:
        """How many sums there are: d x D."""
        return int(self.projection.shape[1] * self.features.shape[1])

    def expected(self, bags: NumpyArray, count: int) -> NumpyArray:
        """Sums by bag (B, d, D) of probability x feature."""
        sums: NumpyArray = self._by_bag(bags, count, lambda rows: self.projected[None, rows])[0]
        return sums

    def seen(self, labels: NumpyArray, bags: NumpyArray, count: int) -> NumpyArray:
        """Sums by bag (S, B, d, D) of label x feature, of sets of labels (S, n)."""
        return self._by_bag(bags, count, lambda rows: self.projection[labels[:, rows]], len(labels))

    def _by_bag(
        self,
        bags: NumpyArray,
        count: int,
        values: Callable[[NumpyArray], NumpyArray],
        sets: int = 1,
    ) -> NumpyArray:
        order = np.argsort(bags, kind="stable")
        starts = np.searchsorted(bags[order], np.arange(count + 1))
        sums = np.zeros((sets, count, self.projection.shape[1], self.features.shape[1]))
        for bag in range(count):
            rows = order[starts[bag] : starts[bag + 1]]
            if len(rows):
                sums[:, bag] = values(rows).transpose(0, 2, 1) @ self.features[rows]
        return sums
