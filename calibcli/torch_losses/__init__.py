"""The objectives as losses of a training loop, for torch.

Every loss that ``calib losses`` lists is a `torch.nn.Module` over the same closed forms, by name or
by class::

    loss = torch_losses.loss("focal", gamma=2.0)
    loss = torch_losses.Focal(gamma=2.0, reduction="sum")
    loss(model(images), labels).backward()

Those that are steered by validation rows, `Cals`, `CalsHr` and `AdaFocal`, want an
``update(validation_logits, validation_labels)`` after every epoch.
"""

from __future__ import annotations

from typing import Any

from calibcli.objectives.registry import OBJECTIVES
from calibcli.torch_losses.adaptive import PooledLoss, StatefulLoss, SteeredLoss
from calibcli.torch_losses.base import Loss, Reduction
from calibcli.torch_losses.losses import (
    Acls,
    AdaFocal,
    Aurc,
    Brier,
    Bsce,
    BsceGra,
    Cals,
    CalsHr,
    ClassWise,
    DualFocal,
    DualFocalGra,
    Flsd,
    Focal,
    FocalGra,
    InverseFocal,
    LabelSmoothing,
    Macro,
    Mbls,
    Mmce,
    NegativeLogLikelihood,
)

__all__ = [
    "LOSSES",
    "Acls",
    "AdaFocal",
    "Aurc",
    "Brier",
    "Bsce",
    "BsceGra",
    "Cals",
    "CalsHr",
    "ClassWise",
    "DualFocal",
    "DualFocalGra",
    "Flsd",
    "Focal",
    "FocalGra",
    "InverseFocal",
    "LabelSmoothing",
    "Loss",
    "Macro",
    "Mbls",
    "Mmce",
    "NegativeLogLikelihood",
    "PooledLoss",
    "Reduction",
    "StatefulLoss",
    "SteeredLoss",
    "loss",
]

LOSSES: dict[str, type[Loss]] = {
    module.family.name: module
    for module in (
        NegativeLogLikelihood,
        Brier,
        Macro,
        ClassWise,
        Cals,
        CalsHr,
        Bsce,
        BsceGra,
        FocalGra,
        DualFocalGra,
        AdaFocal,
        Focal,
        Flsd,
        InverseFocal,
        DualFocal,
        LabelSmoothing,
        Mbls,
        Acls,
        Mmce,
        Aurc,
    )
}
"""All losses by the name of their objective."""


def loss(name: str, **options: Any) -> Loss:
    """A loss by its name in ``calib losses``.

    Parameters
    ----------
    name : str
    **options
        Of the loss, and ``reduction`` and ``ignore_index``: see `Loss`.

    Raises
    ------
    UsageError
        A name or an option that there is not, or a value that it can't have.
    """
    return LOSSES[OBJECTIVES.find(name).name](**options)
