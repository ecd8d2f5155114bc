"""Inverse focal loss."""

from __future__ import annotations

from dataclasses import dataclass, field

from calibcli.arrays import Array
from calibcli.objectives.base import Objective, RowTerms
from calibcli.objectives.checks import check_range
from calibcli.objectives.focal import focal_terms
from calibcli.objectives.likelihood import Likelihood


@dataclass(frozen=True)
class InverseFocal(Objective):
    """``(1 + p_y)^gamma nll``: rows that are fitted well count for more.

    From a gamma of about 3.59 on it does not fall steadily as the label's probability grows, and
    has no link.
    """

    gamma: float = field(default=2.0, metadata={"help": "exponent; 0 is nll"})

    name = "inverse-focal"
    title = "inverse focal loss"
    source = "Wang et al., Rethinking calibration of deep neural networks, NeurIPS 2021"
    proper = False
    link = True

    def __post_init__(self) -> None:
        check_range(self, "gamma")

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        return focal_terms(Likelihood(logits, labels), -float(self.gamma))
