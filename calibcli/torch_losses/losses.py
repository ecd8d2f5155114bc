"""Every objective as a module, under the name of its class."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from calibcli.errors import DataError
from calibcli.objectives import (
    acls,
    adafocal,
    aurc,
    brier,
    bsce,
    bsce_gra,
    cals,
    cals_hr,
    class_wise,
    dual_focal,
    dual_focal_gra,
    flsd,
    focal,
    focal_gra,
    inverse_focal,
    label_smoothing,
    macro,
    mbls,
    mmce,
    nll,
)
from calibcli.objectives.base import Objective
from calibcli.torch_losses.adaptive import PooledLoss, StatefulLoss, SteeredLoss, learnt
from calibcli.torch_losses.base import Loss, Reduction


class NegativeLogLikelihood(Loss):
    """Cross-entropy."""

    family = nll.NegativeLogLikelihood


class Brier(Loss):
    """The Brier score, summed over the classes."""

    family = brier.Brier


class Macro(PooledLoss):
    """Class-balanced cross-entropy: the mean over classes of their mean losses.

    Parameters
    ----------
    class_counts : array-like (K,), optional
        Training rows of each class. Without them each batch is balanced by its own counts, and a
        class counts as much in a batch that has one row of it as in one that has many.
    """

    family = macro.Macro

    def __init__(
        self,
        class_counts: Any = None,
        *,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
    ) -> None:
        super().__init__(reduction=reduction, ignore_index=ignore_index)
        self._given = class_counts is not None
        if self._given:
            counts = np.asarray(class_counts, np.float64)
            if counts.ndim != 1 or not (counts >= 0).all() or not counts.any():
                raise DataError("class_counts must be a vector of row counts, one for each class")
            self.objective = self.objective.updated(counts)

    def _current(self, logits: Any, labels: Any, kept: Any) -> Objective:
        return self.objective if self._given else super()._current(logits, labels, kept)


class ClassWise(StatefulLoss):
    """Class-wise scaling of losses: classes that the network fits worse count for more.

    The factors are those of each batch. As in the paper, alpha and beta are fitted at the second
    call and kept; both can be given. In evaluation mode nothing is kept. The paper's loss is this
    one times the number of classes in the batch.
    """

    family = class_wise.ClassWise

    def _current(self, logits: Any, labels: Any, kept: Any) -> Objective:
        objective = learnt(self.objective, logits, labels, kept)
        if self.training:
            self.objective = objective
        return objective


class Cals(SteeredLoss):
    """Class-adaptive label smoothing by an augmented Lagrangian.

    Here multipliers are not damped by default: in a fit they have a point to settle at, in training
    they follow a network that changes.
    """

    family = cals.Cals
    own_defaults: ClassVar = {"damped": False}


class CalsHr(SteeredLoss):
    """Class-adaptive label smoothing by a heuristic rule."""

    family = cals_hr.CalsHr


class Bsce(Loss):
    """Cross-entropy weighted with a generalised Brier score."""

    family = bsce.Bsce


class BsceGra(Loss):
    """Brier weights on the gradient of the cross-entropy."""

    family = bsce_gra.BsceGra


class FocalGra(Loss):
    """Focal weights on the gradient of the cross-entropy."""

    family = focal_gra.FocalGra


class DualFocalGra(Loss):
    """Dual focal weights on the gradient of the cross-entropy."""

    family = dual_focal_gra.DualFocalGra


class AdaFocal(SteeredLoss):
    """Focal loss with an exponent for each range of confidence."""

    family = adafocal.AdaFocal


class Focal(Loss):
    """Focal loss."""

    family = focal.Focal


class Flsd(Loss):
    """Focal loss whose exponent depends on the probability of the label (FLSD-53)."""

    family = flsd.Flsd


class InverseFocal(Loss):
    """Inverse focal loss."""

    family = inverse_focal.InverseFocal


class DualFocal(Loss):
    """Dual focal loss."""

    family = dual_focal.DualFocal


class LabelSmoothing(Loss):
    """Cross-entropy with smoothed labels."""

    family = label_smoothing.LabelSmoothing


class Mbls(Loss):
    """Margin-based label smoothing."""

    family = mbls.Mbls


class Acls(Loss):
    """Adaptive and conditional label smoothing."""

    family = acls.Acls


class Mmce(PooledLoss):
    """Cross-entropy plus the maximum mean calibration error of the batch."""

    family = mmce.Mmce


class Aurc(PooledLoss):
    """Cross-entropy weighted by the rank of the confidence within the batch."""

    family = aurc.Aurc
