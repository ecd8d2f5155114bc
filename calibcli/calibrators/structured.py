"""Structured vector and matrix scaling: affine maps with a ridge that grows with their size.

A temperature and Laplace's rule come first. What they leave is a small deviation from the identity,
which a ridge of the order of parameters over rows holds in check (Berta et al., 2025).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.calibrators.affine import MatrixMap, VectorMap, ridge_by_part

_SOURCE = "Berta et al., Structured matrix scaling, arXiv:2511.03685"


@dataclass(frozen=True)
class StructuredVectorMap(VectorMap):
    """``(1 + v) log p + b`` with the ridge ``penalty K / n (|v|^2 + |b|^2)``."""

    penalty: float = field(
        default=1.0,
        metadata={"help": "ridge on scales and biases, times classes / rows", "least": 0},
    )

    name = "svs"
    title = "temperature, then a scale and a bias a class with a ridge"
    source = _SOURCE
    before = ("temperature", "laplace")
    tunable = ("penalty",)

    def rows_needed(self, classes: int) -> int:
        return 20 * classes

    def ridge(self, classes: int, rows: float) -> NumpyArray:
        return np.full(2 * classes, 2 * self.penalty * classes / rows)

    def anchor(self, classes: int, scale: float) -> NumpyArray:
        return self.start(classes, 1.0)

    def frozen(self, absent: NumpyArray) -> NumpyArray:
        # The ridge says how far the absence of a class is to be believed.
        return np.zeros(self.size(len(absent)), bool)


@dataclass(frozen=True)
class StructuredMatrixMap(MatrixMap):
    """``(I + diag v + M) log p + b`` with a ridge as in `StructuredVectorMap`, and one on M.

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
        return 20 * classes

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
        # The ridge says how far the absence of a class is to be believed.
        return np.zeros(self.size(len(absent)), bool)
