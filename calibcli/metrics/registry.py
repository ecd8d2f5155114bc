"""Every metric by name, in the order of tables."""

from __future__ import annotations

from calibcli.metrics.accuracy import ACCURACY
from calibcli.metrics.base import Metric
from calibcli.metrics.binned import ECE, MCE
from calibcli.metrics.class_wise import CLASS_WISE_ECE
from calibcli.metrics.cumulative import ADAPTIVE_ECE, KS
from calibcli.metrics.proper_scores import BRIER, NLL

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (ACCURACY, NLL, BRIER, ECE, ADAPTIVE_ECE, CLASS_WISE_ECE, MCE, KS)
}

DEFAULT: tuple[str, ...] = tuple(METRICS)
"""What is measured without being asked for."""
