"""Proper scores: their expectation is smallest for the true probabilities and nothing else.

References
----------
Gneiting and Raftery (2007), Strictly Proper Scoring Rules, Prediction, and Estimation,
doi:10.1198/016214506000001437.
"""

from __future__ import annotations

from calibcli.arrays import namespace, to_numpy
from calibcli.metrics.base import Metric, Vector, View
from calibcli.metrics.row_mean import RowMean


def _log_loss(view: View) -> Vector:
    return -view.true_log_prob


def _squared_error(view: View) -> Vector:
    """sum_k (p_k - [y = k])^2, expanded so that no one-hot matrix is formed."""
    squares = namespace(view.probs).sum(view.probs * view.probs, axis=-1)
    return to_numpy(squares) - 2.0 * view.true_prob + 1.0


def _not_negative(mean: float) -> float:
    # The expanded square of a perfect prediction may round to about -1e-7 in float32.
    return max(mean, 0.0)


NLL = Metric(
    name="nll",
    title="NLL",
    convention=(
        "negative log-likelihood: mean of -ln p of the label, in nats; "
        "infinite where a label was given probability 0"
    ),
    statistic=RowMean(_log_loss),
    value=float,
)

BRIER = Metric(
    name="brier",
    title="Brier",
    convention="mean over rows of the squared error summed over classes, from 0 to 2",
    statistic=RowMean(_squared_error),
    value=_not_negative,
)
