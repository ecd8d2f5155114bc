"""The statistic behind every metric that is a mean over rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.view import View


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; NaN where there is no weight to divide by."""
    return float(numerator / denominator) if denominator else float("nan")


@dataclass(frozen=True)
class RowMean:
    """Weighted mean over rows of one value a row.

    State: (sum of weight x value, sum of weights), float64.

    Attributes
    ----------
    value : callable
        View -> values (n,), float64; a function of a module, so that equal statistics compare
        equal and travel to other processes.
    """

    value: Callable[[View], NumpyArray]

    def partial(self, view: View) -> NumpyArray:
        """The sums over one block."""
        values = self.value(view)
        if not view.weighted:
            return np.array([values.sum(), len(values)])
        # A row of weight 0 is absent, even where its value is infinite.
        present = view.weights > 0
        weights = view.weights[present]
        return np.array([(weights * values[present]).sum(), weights.sum()])

    def merge(self, left: NumpyArray, right: NumpyArray) -> NumpyArray:
        """The sums over two blocks."""
        return left + right

    def finish(self, state: NumpyArray) -> float:
        """The mean; NaN without rows."""
        return ratio(*state)
