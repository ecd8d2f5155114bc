"""Fits for the class shares of rows without labels: the correction, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibcli.arrays import Array
from calibcli.calibrators.base import Calibrator
from calibcli.engine.engine import Tile
from calibcli.errors import UsageError
from calibcli.fitting.label_shift import LabelShift
from calibcli.fitting.results import Fit, StageFit
from calibcli.workflow.fit_rows import OTHER_SHARES, imbalance
from calibcli.workflow.measuring import Predictor
from calibcli.workflow.plans import Plan

_MOST_LISTED = 4
"""Classes whose shares a note gives."""

_SMALLEST_P = 1e-4


def check_target(plan: Plan) -> None:
    """Refuse a target for a fit that brings class shares of its own, or none.

    Raises
    ------
    UsageError
    """
    if plan.prior is not None:
        raise UsageError("--target estimates class shares, --target-prior names them; use one")
    if plan.objective.sets_prior:
        raise UsageError(f"--target and --loss {plan.loss} both set class shares; use one of them")
    if plan.reduce is not None:
        raise UsageError(
            f"--target estimates class shares, which --reduce {plan.reduce} does not know"
        )


@dataclass(frozen=True)
class ShareCorrected(Predictor):
    """Calibrated logits of a predictor, corrected for other class shares."""

    predictor: Predictor
    correction: Calibrator

    def __call__(self, tile: Tile) -> Array:
        return self.correction.logits(self.predictor(tile))


def share_corrected(fit: Fit, shift: LabelShift | None) -> Fit:
    """The fit with the correction for other class shares behind it, where there is one."""
    if shift is None or shift.drawn == 1:
        return fit
    return Fit((*fit.stages, StageFit(shift.correction)))


def shift_notes(shift: LabelShift) -> list[str]:
    """What a user should know of unlabelled rows and the class shares that were estimated."""
    gap, notes = shift.confidence, []
    ratio = imbalance(shift.used / np.where(shift.source > 0, shift.source, 1))
    if gap.excludes_label_shift:
        notes.append("nothing is corrected for --target, whose class shares cannot be told")
    elif ratio < OTHER_SHARES:
        notes.append(
            f"the {shift.rows:,} rows of --target have the class shares of the fit, as far as can "
            "be told: next to nothing is corrected"
        )
    else:
        notes.append(
            f"corrected for the class shares of --target, estimated from {shift.rows:,} rows "
            f"without labels: {_listed(shift)}; expect it to fit rows like those of the fit less "
            "well"
        )
    if gap.clear:
        notes.append(
            "other class shares do not explain the confidences of --target: "
            f"{100 * gap.above:.1f} % of its rows are above {gap.at:.3f}, and "
            f"{100 * gap.expected_above:.1f} % of the rows of the fit with its class shares "
            f"(mean {gap.mean:.3f} and {gap.expected_mean:.3f}, p {_p_text(gap.p)}): its rows "
            "differ in more than that, and what the fit says of them can be off"
        )
    return notes


def _p_text(p: float) -> str:
    return f"= {p:.2g}" if p >= _SMALLEST_P else f"< {_SMALLEST_P:g}"


def _listed(shift: LabelShift) -> str:
    """The classes whose shares have changed most, with intervals."""
    ratios = np.log(
        np.where(shift.source > 0, shift.used, 1) / np.where(shift.source > 0, shift.source, 1)
    )
    order = np.argsort(-np.abs(ratios), kind="stable")[:_MOST_LISTED]
    parts = [
        f"class {k} {shift.source[k]:.3g} to {shift.shares[k]:.3g} "
        f"[{shift.low[k]:.3g}, {shift.high[k]:.3g}]"
        for k in sorted(order)
        if shift.source[k] > 0
    ]
    return ", ".join(parts) + (", …" if len(ratios) > _MOST_LISTED else "")
