"""Every metric by name, in the order of tables; its module is imported at its first use."""

from __future__ import annotations

import re
from functools import cache
from pkgutil import resolve_name

from calibcli.metrics.accuracy import TOP_ACCURACY
from calibcli.metrics.base import Metric
from calibcli.metrics.bins import NUMBER_OF_BINS
from calibcli.registry import Pattern, Registry

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

_METRICS = {
    "accuracy": "accuracy:ACCURACY",
    "top5_accuracy": "accuracy:TOP5_ACCURACY",
    "auroc": "accuracy:AUROC",
    "average_precision": "event_metrics:AVERAGE_PRECISION",
    "aurc": "accuracy:AURC",
    "nll": "proper_scores:NLL",
    "brier": "proper_scores:BRIER",
    "brier_mean": "proper_scores:BRIER_MEAN",
    "brier_half": "proper_scores:BRIER_HALF",
    "brier_skill": "event_metrics:BRIER_SKILL",
    "corp_top_miscalibration": "decomposition:CORP_TOP_MISCALIBRATION",
    "corp_top_discrimination": "decomposition:CORP_TOP_DISCRIMINATION",
    "corp_top_uncertainty": "decomposition:CORP_TOP_UNCERTAINTY",
    "corp_class_wise_miscalibration": "decomposition:CORP_CLASS_WISE_MISCALIBRATION",
    "corp_class_wise_discrimination": "decomposition:CORP_CLASS_WISE_DISCRIMINATION",
    "corp_class_wise_uncertainty": "decomposition:CORP_CLASS_WISE_UNCERTAINTY",
    "expected_observed": "event_metrics:EXPECTED_OBSERVED",
    "in_the_large": "event_metrics:IN_THE_LARGE",
    "slope": "event_metrics:SLOPE",
    "ici": "calibration_index:ICI",
    "e50": "calibration_index:E50",
    "e90": "calibration_index:E90",
    "ece": "ece:ECE",
    "adaptive_ece": "equal_mass:ADAPTIVE_ECE",
    "adaptive_ece_published": "equal_mass:ADAPTIVE_ECE_PUBLISHED",
    "ece_sweep": "equal_mass:ECE_SWEEP",
    "l2_debiased": "equal_mass:L2_DEBIASED",
    "l2_squared_debiased": "equal_mass:L2_SQUARED_DEBIASED",
    "smooth_ece": "smooth:SMOOTH_ECE",
    "class_wise_ece": "class_errors:CLASS_WISE_ECE",
    "class_wise_ece_thresholded": "class_errors:CLASS_WISE_ECE_THRESHOLDED",
    "top_label_ece": "class_errors:TOP_LABEL_ECE",
    "mce": "ece:MCE",
    "ks": "cumulative:KS",
    "ecce_mad": "cumulative:ECCE_MAD",
    "ecce_r": "cumulative:ECCE_R",
}

_OF_COSTS = {"cost": "costs:COST", "argmax_cost": "costs:ARGMAX_COST"}
"""No list of all metrics has these, since they need costs."""

COST_METRICS = tuple(_OF_COSTS)
"""What is measured where it is known what errors cost."""


def _places(names: dict[str, str]) -> dict[str, str]:
    return {name: f"calibcli.metrics.{place}" for name, place in names.items()}


def _of_bins(name: str, maker: str) -> Pattern[Metric]:
    """The metric of any number of bins, whose module is imported at its first use."""

    @cache
    def make(count: str) -> Metric:
        make_metric = resolve_name(f"calibcli.metrics.{maker}")
        metric: Metric = make_metric(int(count), f"{name}@{count}")
        return metric

    return Pattern(f"{name}@BINS", re.compile(f"{name}@{NUMBER_OF_BINS}"), make)


_OF_BINS = (
    _of_bins("ece", "ece:ece_of_bins"),
    _of_bins("mce", "ece:mce_of_bins"),
    _of_bins("adaptive_ece", "equal_mass:adaptive_ece_of_bins"),
    _of_bins("class_wise_ece", "class_errors:class_wise_ece_of_bins"),
    _of_bins("class_wise_ece_thresholded", "class_errors:class_wise_ece_thresholded_of_bins"),
    _of_bins("top_label_ece", "class_errors:top_label_ece_of_bins"),
)

METRICS: Registry[Metric] = Registry(
    "metric",
    Metric,
    _places(_METRICS),
    group="calibcli.metrics",
    instances=True,
    sets={"default": DEFAULT, "two-classes": TWO_CLASSES, "all": None},
    unlisted=_places(_OF_COSTS),
    patterns=(TOP_ACCURACY, *_OF_BINS),
)
