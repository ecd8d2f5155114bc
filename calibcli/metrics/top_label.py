"""Top-label ECE: the calibration error of the confidence, given which class is predicted.

References
----------
Gupta and Ramdas (2022), Top-label calibration and multiclass-to-binary reductions,
arXiv:2107.08353.
"""

from __future__ import annotations

from calibcli.metrics.base import Metric
from calibcli.metrics.diagrams import PREDICTED_CLASSES, ClassDiagrams
from calibcli.metrics.row_mean import ratio


def _conditional_error(classes: ClassDiagrams) -> float:
    return ratio(classes.bins.gap.sum(), classes.bins.weight.sum())


TOP_LABEL_ECE = Metric(
    name="top_label_ece",
    title="top-label ECE",
    convention=(
        "for the rows of every predicted class the ECE over 15 equal-width bins (lower, upper] of "
        "the largest probability; mean over rows (Gupta and Ramdas 2022)"
    ),
    statistic=PREDICTED_CLASSES,
    value=_conditional_error,
)
