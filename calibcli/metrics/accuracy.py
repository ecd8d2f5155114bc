"""Accuracy: how often the most probable class, or one of the k most probable, is the label.

>>> import numpy as np
>>> logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.6, 0.4]])
>>> labels = np.array([0, 1, 0, 0])
>>> round(ACCURACY.measure(logits, labels), 6)
0.75
>>> round(TOP5_ACCURACY.measure(logits, labels), 6)
1.0
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.metrics.base import Metric
from calibcli.metrics.row_mean import MEAN_OF_ROWS, RowMean
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
        resampling=MEAN_OF_ROWS,
    )


ACCURACY = Metric(
    name="accuracy",
    title="accuracy",
    convention="share of rows whose most probable class is the label; the first of equal classes",
    statistic=RowMean(_correct),
    value=float,
    better="higher",
    group="accuracy and ranking",
    resampling=MEAN_OF_ROWS,
)

TOP5_ACCURACY = top_accuracy(5)

TOP_ACCURACY = Pattern(
    "topK_accuracy", re.compile(r"top([1-9]\d*)_accuracy"), lambda k: top_accuracy(int(k))
)
"""Top-k accuracy for any k."""
