"""Every metric by name, in the order of tables."""

from __future__ import annotations

from calibcli.metrics.accuracy import ACCURACY, AURC, AUROC, TOP5_ACCURACY, TOP_ACCURACY
from calibcli.metrics.base import Metric
from calibcli.metrics.calibration_index import E50, E90, ICI
from calibcli.metrics.class_errors import (
    CLASS_WISE_ECE,
    CLASS_WISE_ECE_THRESHOLDED,
    TOP_LABEL_ECE,
)
from calibcli.metrics.costs import COST_NAMES
from calibcli.metrics.cumulative import ECCE_MAD, ECCE_R, KS
from calibcli.metrics.decomposition import CORP_CLASS_WISE, CORP_TOP
from calibcli.metrics.ece import ECE, MCE
from calibcli.metrics.equal_mass import ADAPTIVE_ECE, ECE_SWEEP, L2_DEBIASED, L2_SQUARED_DEBIASED
from calibcli.metrics.event_metrics import (
    AVERAGE_PRECISION,
    BRIER_SKILL,
    EXPECTED_OBSERVED,
    IN_THE_LARGE,
    SLOPE,
)
from calibcli.metrics.proper_scores import BRIER, BRIER_HALF, BRIER_MEAN, NLL
from calibcli.metrics.smooth import SMOOTH_ECE
from calibcli.registry import Registry

DEFAULT: tuple[str, ...] = (
    *("accuracy", "nll", "brier"),
    *("ece", "adaptive_ece", "class_wise_ece", "ks"),
)
"""What is measured without being asked for: small and fast."""

TWO_CLASSES: tuple[str, ...] = (
    *("accuracy", "auroc", "nll", "brier"),
    *("expected_observed", "ece", "adaptive_ece", "ks"),
)
"""The same for two classes, where class-wise ECE would be ECE twice."""

LEADERBOARD_METRICS: tuple[str, ...] = ("nll", "brier", "ece")
"""What calibrators are compared by; a chosen one is measured by everything that is asked for."""

METRICS: Registry[Metric] = Registry(
    "metric",
    Metric,
    (
        *(ACCURACY, TOP5_ACCURACY, AUROC, AVERAGE_PRECISION, AURC),
        *(NLL, BRIER, BRIER_MEAN, BRIER_HALF, BRIER_SKILL),
        *CORP_TOP,
        *CORP_CLASS_WISE,
        *(EXPECTED_OBSERVED, IN_THE_LARGE, SLOPE, ICI, E50, E90),
        *(ECE, ADAPTIVE_ECE, ECE_SWEEP, L2_DEBIASED, L2_SQUARED_DEBIASED, SMOOTH_ECE),
        *(CLASS_WISE_ECE, CLASS_WISE_ECE_THRESHOLDED, TOP_LABEL_ECE),
        *(MCE, KS, ECCE_MAD, ECCE_R),
    ),
    group="calibcli.metrics",
    instances=True,
    sets={"default": DEFAULT, "two-classes": TWO_CLASSES, "all": None},
    patterns=(TOP_ACCURACY, *COST_NAMES),
)
