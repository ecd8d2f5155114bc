"""Errors without bins: the largest deviations of cumulated confidence from cumulated accuracy.

>>> import numpy as np
>>> logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.6, 0.4]])
>>> labels = np.array([0, 1, 0, 0])
>>> round(KS.measure(logits, labels), 6)
0.2
>>> round(ECCE_MAD.measure(logits, labels), 6)
0.2
>>> round(ECCE_R.measure(logits, labels), 6)
0.2

References
----------
Gupta et al. (2021), Calibration of Neural Networks using Splines, arXiv:2006.12800 (KS);
Arrieta-Ibarra, Gujral, Tannen, Tygert and Xu (2022), Metrics of calibration for probabilistic
predictions, arXiv:2205.09680 (ECCE-MAD and ECCE-R).
"""

from __future__ import annotations

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.base import SHARE, Metric
from calibcli.metrics.confidence import COLLECTED_SCORES
from calibcli.metrics.confidence_cells import CumulatedNorm


def _largest_deviation(excess: NumpyArray, total: float) -> NumpyArray:
    largest: NumpyArray = np.abs(excess).max(axis=-1, initial=0.0)
    return largest / total


def _range_of_deviations(excess: NumpyArray, total: float) -> NumpyArray:
    # The curve begins at 0, before the first row.
    spread: NumpyArray = excess.max(axis=-1, initial=0.0) - excess.min(axis=-1, initial=0.0)
    return spread / total


_LARGEST, _RANGE = CumulatedNorm(_largest_deviation), CumulatedNorm(_range_of_deviations)

_CUMULATED = (
    "with the rows in order of their confidence, {} of "
    "cumulated confidence - cumulated accuracy, at the ends of ties"
)

KS = Metric(
    range=SHARE,
    name="ks",
    title="KS",
    convention=(
        "Kolmogorov-Smirnov calibration error: with the rows in order of their "
        "confidence, the largest |cumulated confidence - cumulated accuracy|, at the ends of "
        "ties (Gupta et al. 2021)"
    ),
    statistic=COLLECTED_SCORES,
    value=_LARGEST.value,
    resampling=_LARGEST,
)

ECCE_MAD = Metric(
    range=SHARE,
    name="ecce_mad",
    title="ECCE-MAD",
    convention=(
        "estimated cumulative calibration error, maximum absolute deviation: "
        + _CUMULATED.format("the largest absolute value")
        + " (Arrieta-Ibarra et al. 2022); the same number as KS"
    ),
    statistic=COLLECTED_SCORES,
    value=_LARGEST.value,
    resampling=_LARGEST,
)

ECCE_R = Metric(
    range=SHARE,
    name="ecce_r",
    title="ECCE-R",
    convention=(
        "estimated cumulative calibration error, range (Kuiper): "
        + _CUMULATED.format("the largest minus the smallest value, 0 included,")
        + " (Arrieta-Ibarra et al. 2022)"
    ),
    statistic=COLLECTED_SCORES,
    value=_RANGE.value,
    resampling=_RANGE,
)
