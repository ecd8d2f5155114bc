"""Accuracy: how often the most probable class is the label."""

from __future__ import annotations

import numpy as np

from calibcli.metrics.base import Metric, Vector, View
from calibcli.metrics.row_mean import RowMean


def _correct(view: View) -> Vector:
    return view.correct.astype(np.float64)


ACCURACY = Metric(
    name="accuracy",
    title="accuracy",
    convention="share of rows whose most probable class is the label; the first of equal classes",
    statistic=RowMean(_correct),
    value=float,
    better="higher",
)
