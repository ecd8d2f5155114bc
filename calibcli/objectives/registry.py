"""All objectives, by name: a line leads to a class, which is imported at its first use."""

from __future__ import annotations

from calibcli.objectives.base import Objective
from calibcli.registry import Registry

_OBJECTIVES = {
    "nll": "nll:NegativeLogLikelihood",
    "brier": "brier:Brier",
    "macro": "class_wise:Macro",
    "class-wise": "class_wise:ClassWise",
    "cals": "cals:Cals",
    "cals-hr": "cals:CalsHr",
    "bsce": "bsce:Bsce",
    "bsce-gra": "bsce:BsceGra",
    "focal-gra": "focal:FocalGra",
    "dual-focal-gra": "dual_focal:DualFocalGra",
    "adafocal": "adafocal:AdaFocal",
    "focal": "focal:Focal",
    "flsd": "focal:Flsd",
    "inverse-focal": "focal:InverseFocal",
    "dual-focal": "dual_focal:DualFocal",
    "label-smoothing": "label_smoothing:LabelSmoothing",
    "mbls": "mbls:Mbls",
    "acls": "acls:Acls",
    "mmce": "mmce:Mmce",
    "aurc": "aurc:Aurc",
}

OBJECTIVES: Registry[type[Objective]] = Registry(
    "loss",
    Objective,
    {name: f"calibcli.objectives.{place}" for name, place in _OBJECTIVES.items()},
    group="calibcli.losses",
)
