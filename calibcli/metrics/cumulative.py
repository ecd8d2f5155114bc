"""Errors without bins: the largest deviations of cumulated confidence from cumulated accuracy.

References
----------
Gupta et al. (2021), Calibration of Neural Networks using Splines, arXiv:2006.12800 (KS);
Arrieta-Ibarra, Gujral, Tannen, Tygert and Xu (2022), Metrics of calibration for probabilistic
predictions, arXiv:2205.09680 (ECCE-MAD and ECCE-R).
"""

from __future__ import annotations

import numpy as np

from calibcli.metrics.base import Metric
from calibcli.metrics.confidence import COLLECTED_SCORES, ConfidenceCurve
from calibcli.metrics.row_mean import ratio


def _largest_deviation(curve: ConfidenceCurve) -> float:
    return ratio(np.abs(curve.excess).max(initial=0.0), curve.total)


def _range_of_deviations(curve: ConfidenceCurve) -> float:
    # The curve begins at 0, before the first row.
    return ratio(curve.excess.max(initial=0.0) - curve.excess.min(initial=0.0), curve.total)


_CUMULATED = (
    "with the rows in order of their largest probability, {} of "
    "cumulated confidence - cumulated accuracy, at the ends of ties"
)

KS = Metric(
    name="ks",
    title="KS",
    convention=(
        "Kolmogorov-Smirnov calibration error: with the rows in order of their largest "
        "probability, the largest |cumulated confidence - cumulated accuracy|, at the ends of "
        "ties (Gupta et al. 2021)"
    ),
    statistic=COLLECTED_SCORES,
    value=_largest_deviation,
)

ECCE_MAD = Metric(
    name="ecce_mad",
    title="ECCE-MAD",
    convention=(
        "estimated cumulative calibration error, maximum absolute deviation: "
        + _CUMULATED.format("the largest absolute value")
        + " (Arrieta-Ibarra et al. 2022); the same number as KS"
    ),
    statistic=COLLECTED_SCORES,
    value=_largest_deviation,
)

ECCE_R = Metric(
    name="ecce_r",
    title="ECCE-R",
    convention=(
        "estimated cumulative calibration error, range (Kuiper): "
        + _CUMULATED.format("the largest minus the smallest value, 0 included,")
        + " (Arrieta-Ibarra et al. 2022)"
    ),
    statistic=COLLECTED_SCORES,
    value=_range_of_deviations,
)
