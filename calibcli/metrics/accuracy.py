"""Accuracy and ranking: how often predictions are right, and how well confidence tells which.

>>> import numpy as np
>>> logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.6, 0.4]])
>>> labels = np.array([0, 1, 0, 0])
>>> round(ACCURACY.measure(logits, labels), 6)
0.75
>>> round(TOP5_ACCURACY.measure(logits, labels), 6)
1.0
>>> round(AUROC.measure(logits, labels), 6)
0.166667
>>> round(AURC.measure(logits, labels), 6)
0.395833

References
----------
Geifman and El-Yaniv (2017), Selective Classification for Deep Neural Networks, arXiv:1705.08500
(risk and coverage).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.base import SHARE, Metric
from calibcli.metrics.confidence import COLLECTED_SCORES, COLLECTED_TOP_SCORES, ConfidenceCurve
from calibcli.metrics.confidence_cells import CurveValue
from calibcli.metrics.row_mean import SHARE_OF_ROWS, RowMean, ratio
from calibcli.metrics.view import View
from calibcli.registry import Pattern


def _correct(view: View) -> NumpyArray:
    return view.top_correct.astype(np.float64)


@dataclass(frozen=True)
class _AmongTop:
    """Whether the label is among the k most probable classes (n,), as 0 and 1."""

    k: int

    def __call__(self, view: View) -> NumpyArray:
        return (view.label_rank < self.k).astype(np.float64)


def top_accuracy(k: int) -> Metric:
    """The share of rows whose label is among the k most probable classes."""
    return Metric(
        range=SHARE,
        name=f"top{k}_accuracy",
        title=f"top-{k} accuracy",
        convention=(
            f"share of rows whose label is among the {k} most probable classes; "
            "of equal classes the first come first"
        ),
        statistic=RowMean(_AmongTop(k)),
        value=float,
        better="higher",
        group="accuracy and ranking",
        resampling=SHARE_OF_ROWS,
    )


ACCURACY = Metric(
    range=SHARE,
    name="accuracy",
    title="accuracy",
    convention="share of rows whose most probable class is the label; the first of equal classes",
    statistic=RowMean(_correct),
    value=float,
    better="higher",
    group="accuracy and ranking",
    resampling=SHARE_OF_ROWS,
)

TOP5_ACCURACY = top_accuracy(5)

TOP_ACCURACY = Pattern(
    "topK_accuracy", re.compile(r"top([1-9]\d*)_accuracy"), lambda k: top_accuracy(int(k))
)
"""Top-k accuracy for any k."""


def _area_under_roc(curve: ConfidenceCurve) -> float:
    """Share of the pairs of a right and a wrong row in which the right one is more confident."""
    right = curve.own_correct
    wrong = curve.own_weight - right
    # The wrong ones below, and half of those that are tied.
    beaten = curve.weight - curve.correct - wrong / 2
    return ratio((right * beaten).sum(), right.sum() * wrong.sum())


def _area_under_risk_coverage(curve: ConfidenceCurve) -> float:
    """Mean over k of the share of errors among the k most confident rows.

    Of m tied rows with e errors after a weight a with d errors, in random order, the j-th is
    expected to see ``(d + e j / m) / (a + j)``; the harmonic sums that this makes are differences
    of the digamma function, which also takes weights that are not whole.
    """
    if not len(curve):
        return math.nan
    from scipy.special import digamma

    tied = curve.own_weight
    errors = tied - curve.own_correct
    above = np.maximum(curve.total - curve.weight, 0.0)
    errors_above = np.maximum(above - (curve.correct[-1] - curve.correct), 0.0)
    harmonic = digamma(above + tied + 1) - digamma(above + 1)
    risks = errors_above * harmonic + errors / tied * (tied - above * harmonic)
    return ratio(risks.sum(), curve.total)


AUROC = Metric(
    ranks=True,
    range=SHARE,
    name="auroc",
    title="AUROC",
    convention=(
        "area under the ROC curve of the confidence as a score of whether what it is of came "
        "true: of two classes the positive one, of more the prediction; ties count half"
    ),
    statistic=COLLECTED_SCORES,
    value=_area_under_roc,
    better="higher",
    group="accuracy and ranking",
    resampling=CurveValue(area=True),
)

AURC = Metric(
    range=SHARE,
    name="aurc",
    title="AURC",
    convention=(
        "area under the risk-coverage curve: mean over k = 1 ... N of the share of errors among "
        "the k most confident rows (by their largest probability), tied rows in random order"
    ),
    statistic=COLLECTED_TOP_SCORES,
    value=_area_under_risk_coverage,
    group="accuracy and ranking",
    resampling=CurveValue(top=True),
)
