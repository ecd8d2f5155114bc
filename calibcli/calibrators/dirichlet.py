"""Dirichlet calibration with off-diagonal and intercept regularisation (Kull et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field

from calibcli.arrays import NumpyArray
from calibcli.calibrators.affine import MatrixMap, ridge_by_part


@dataclass(frozen=True)
class DirichletMap(MatrixMap):
    """``W log p + b`` with ridges on the off-diagonal entries and on the biases alone.

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
