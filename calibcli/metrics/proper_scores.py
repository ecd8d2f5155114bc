"""Proper scores: their expectation is smallest for the true probabilities and nothing else.

>>> import numpy as np
>>> logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.6, 0.4]])
>>> labels = np.array([0, 1, 0, 0])
>>> round(NLL.measure(logits, labels), 6)
0.818862
>>> round(BRIER.measure(logits, labels), 6)
0.535
>>> round(BRIER_MEAN.measure(logits, labels), 6)
0.2675
>>> round(BRIER_HALF.measure(logits, labels), 6)
0.2675

References
----------
Gneiting and Raftery (2007), Strictly Proper Scoring Rules, Prediction, and Estimation,
doi:10.1198/016214506000001437.
"""

from __future__ import annotations

import math
from functools import partial

from calibcli.arrays import NumpyArray
from calibcli.metrics.base import SHARE, Metric
from calibcli.metrics.row_mean import MEAN_OF_ROWS, RowMean
from calibcli.metrics.view import View


def _log_loss(view: View) -> NumpyArray:
    return -view.true_log_prob


def _squared_error(view: View) -> NumpyArray:
    return view.squared_error


def _squared_error_by_class(view: View) -> NumpyArray:
    mean: NumpyArray = view.squared_error / view.classes
    return mean


def _not_negative(mean: float) -> float:
    # The expanded square of a perfect prediction may round to about -1e-7 in float32.
    return max(mean, 0.0)


def _half(mean: float) -> float:
    return _not_negative(mean) / 2


_score = partial(Metric, group="proper scores", resampling=MEAN_OF_ROWS)

NLL = _score(
    range=(0.0, math.inf),
    name="nll",
    title="NLL",
    convention=(
        "negative log-likelihood: mean of -ln p of the label, in nats; "
        "infinite where a label was given probability 0"
    ),
    statistic=RowMean(_log_loss),
    value=float,
)

BRIER = _score(
    range=(0.0, 2.0),
    name="brier",
    title="Brier",
    convention="mean over rows of the squared error summed over classes, from 0 to 2",
    statistic=RowMean(_squared_error),
    value=_not_negative,
)

BRIER_MEAN = _score(
    range=SHARE,
    name="brier_mean",
    title="Brier, mean",
    convention="Brier divided by the number of classes: the mean of all squared errors",
    statistic=RowMean(_squared_error_by_class),
    value=_not_negative,
)

BRIER_HALF = _score(
    range=SHARE,
    name="brier_half",
    title="Brier, half",
    convention=(
        "half of Brier, from 0 to 1: for two classes the mean squared error of the "
        "probability of class 1"
    ),
    statistic=BRIER.statistic,
    value=_half,
)
