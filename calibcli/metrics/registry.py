"""Every metric by name, in the order of tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from calibcli.errors import UsageError
from calibcli.metrics.accuracy import ACCURACY, TOP5_ACCURACY, top_accuracy
from calibcli.metrics.base import Metric
from calibcli.metrics.binned import ECE, MCE
from calibcli.metrics.class_wise import CLASS_WISE_ECE, CLASS_WISE_ECE_THRESHOLDED
from calibcli.metrics.cumulative import ECCE_MAD, ECCE_R, KS
from calibcli.metrics.decomposition import CORP_CLASS_WISE, CORP_TOP
from calibcli.metrics.equal_mass import ADAPTIVE_ECE, ECE_SWEEP, L2_DEBIASED, L2_SQUARED_DEBIASED
from calibcli.metrics.proper_scores import BRIER, BRIER_HALF, BRIER_MEAN, NLL
from calibcli.metrics.ranking import AURC, AUROC
from calibcli.metrics.smooth import SMOOTH_ECE
from calibcli.metrics.top_label import TOP_LABEL_ECE

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *(ACCURACY, TOP5_ACCURACY, AUROC, AURC),
        *(NLL, BRIER, BRIER_MEAN, BRIER_HALF),
        *CORP_TOP,
        *CORP_CLASS_WISE,
        *(ECE, ADAPTIVE_ECE, ECE_SWEEP, L2_DEBIASED, L2_SQUARED_DEBIASED, SMOOTH_ECE),
        *(CLASS_WISE_ECE, CLASS_WISE_ECE_THRESHOLDED, TOP_LABEL_ECE),
        *(MCE, KS, ECCE_MAD, ECCE_R),
    )
}

DEFAULT: tuple[str, ...] = (
    *("accuracy", "nll", "brier"),
    *("ece", "adaptive_ece", "class_wise_ece", "mce", "ks"),
)
"""What is measured without being asked for: small and fast."""

SETS: dict[str, tuple[str, ...]] = {"default": DEFAULT, "all": tuple(METRICS)}
"""Names that stand for several metrics."""

_TOP = re.compile(r"top([1-9]\d*)_accuracy")


def known_metric(name: str) -> Metric | None:
    """The metric of a name, a key of `METRICS` or ``topK_accuracy`` for any K; None without one."""
    top = None if name in METRICS else _TOP.fullmatch(name)
    return top_accuracy(int(top[1])) if top else METRICS.get(name)


def find_metric(name: str) -> Metric:
    """The metric of a name.

    Raises
    ------
    UsageError
        There is none.
    """
    metric = known_metric(name)
    if metric is None:
        known = [*SETS, *METRICS]
        close = get_close_matches(name.lower().replace("-", "_"), known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UsageError(f"there is no metric {name!r}{hint} (there are: {', '.join(known)})")
    return metric


def metric_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of metrics without repetition, those of `SETS` replaced by what they stand for.

    Raises
    ------
    UsageError
        For a name that is neither.
    """
    each = (part for name in names for part in SETS.get(name, (name,)))
    return tuple(find_metric(name).name for name in dict.fromkeys(each))
