"""All objectives, by name."""

from __future__ import annotations

from calibcli.objectives.acls import Acls
from calibcli.objectives.adafocal import AdaFocal
from calibcli.objectives.aurc import Aurc
from calibcli.objectives.base import Objective
from calibcli.objectives.brier import Brier
from calibcli.objectives.bsce import Bsce
from calibcli.objectives.bsce_gra import BsceGra
from calibcli.objectives.cals import Cals
from calibcli.objectives.cals_hr import CalsHr
from calibcli.objectives.class_wise import ClassWise
from calibcli.objectives.dual_focal import DualFocal
from calibcli.objectives.dual_focal_gra import DualFocalGra
from calibcli.objectives.flsd import Flsd
from calibcli.objectives.focal import Focal
from calibcli.objectives.focal_gra import FocalGra
from calibcli.objectives.inverse_focal import InverseFocal
from calibcli.objectives.label_smoothing import LabelSmoothing
from calibcli.objectives.macro import Macro
from calibcli.objectives.mbls import Mbls
from calibcli.objectives.mmce import Mmce
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.registry import Registry

OBJECTIVES: Registry[type[Objective]] = Registry(
    "loss",
    Objective,
    (
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
    ),
    group="calibcli.losses",
)
