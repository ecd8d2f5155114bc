"""A kernel test of the whole probability vector, linear in the rows.

The squared kernel calibration error (SKCE) is the mean of ``(e_y - p)' (e_y' - p') k(p, p')`` over
pairs of rows: 0 for a calibrated model. The kernel is that of random features, so that sums over
rows stand for sums over pairs. Rows are shared out to bags by their numbers; pairs of different
bags give an unbiased estimate. The residuals of a calibrated model might as well have had the
opposite signs, so the p-value comes from flipping the signs of bags at random.

References
----------
Widmann, Lindsten and Zachariah (2019), Calibration tests in multi-class classification,
arXiv:1910.11385; Rahimi and Recht (2007), Random features for large-scale kernel machines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray, hashed, like, to_numpy
from calibcli.metrics.hypothesis_tests import TestResult
from calibcli.metrics.view import View

_BAGS = 64
_FEATURES = 64
_FLIPS = 9999
_ROUNDING = 1e-12
_WIDTH = 0.5
"""Width of the Gaussian kernel, in Euclidean distance between probability vectors."""


class KernelState(NamedTuple):
    """Weight (B,) and sums (B, d, D) of weight x residual x feature, by bag."""

    weight: NumpyArray
    sums: NumpyArray


@dataclass(frozen=True)
class KernelTest:
    """The statistic: an unbiased estimate of the SKCE, and its test.

    Of more than 64 classes the residuals are projected at random to 64 dimensions, which keeps
    their products on average. Memory: 2 MB.
    """

    seed: int = 0

    def partial(self, view: View) -> KernelState:
        """The sums over one block."""
        bags = hashed(np.arange(view.start, view.start + len(view)), self.seed, _BAGS)
        projection, frequencies, phases = self._features(view.classes)
        both = np.concatenate((projection, frequencies), axis=1)
        projected = to_numpy(view.probs @ like(both, view.probs)).astype(np.float64)
        split = projection.shape[1]
        residuals = view.weights[:, None] * (projection[view.labels] - projected[:, :split])
        features = math.sqrt(2 / _FEATURES) * np.cos(projected[:, split:] + phases)
        order = np.argsort(bags, kind="stable")
        starts = np.searchsorted(bags[order], np.arange(_BAGS + 1))
        sums = np.zeros((_BAGS, split, _FEATURES))
        for bag in range(_BAGS):
            rows = order[starts[bag] : starts[bag + 1]]
            sums[bag] = residuals[rows].T @ features[rows]
        return KernelState(np.bincount(bags, view.weights, minlength=_BAGS), sums)

    def merge(self, left: KernelState, right: KernelState) -> KernelState:
        """The sums over two blocks."""
        return KernelState(left.weight + right.weight, left.sums + right.sums)

    def finish(self, state: KernelState) -> TestResult:
        """The test; one-sided, as the error is never below 0."""
        bags = state.sums.reshape(_BAGS, -1)
        products = bags @ bags.T
        bits = np.random.Philox(key=self.seed).random_raw(_FLIPS)
        signs = 1.0 - 2.0 * ((bits[:, None] >> np.arange(_BAGS, dtype=np.uint64)) & np.uint64(1))
        flipped = np.einsum("ra,ab,rb->r", signs, products, signs, optimize=True)
        total, squares = float(products.sum()), float(np.trace(products))
        more = np.count_nonzero(flipped >= total * (1 - _ROUNDING))
        pairs = state.weight.sum() ** 2 - (state.weight**2).sum()
        estimate = (total - squares) / pairs if pairs > 0 else math.nan
        return TestResult(
            "skce",
            "kernel test (SKCE)",
            "no squared kernel calibration error of the whole probability vector; Gaussian kernel "
            f"of width {_WIDTH} by {_FEATURES} random features, {_FLIPS} random flips of signs",
            p=(1 + more) / (1 + _FLIPS),
            estimate=estimate,
        )

    def _features(self, classes: int) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
        """Projection (K, d), frequencies (K, D) and phases (D,) of the random features."""
        generator = np.random.Generator(np.random.Philox(key=self.seed))
        frequencies = generator.standard_normal((classes, _FEATURES)) / _WIDTH
        phases = generator.uniform(0, 2 * math.pi, _FEATURES)
        if classes <= _FEATURES:
            return np.eye(classes), frequencies, phases
        signs = generator.integers(0, 2, (classes, _FEATURES)) * 2.0 - 1.0
        return signs / math.sqrt(_FEATURES), frequencies, phases
