"""No calibration: the probabilities that the logits stand for."""

from __future__ import annotations

from dataclasses import dataclass

from calibcli.arrays import Array
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.parameters import Parameters


@dataclass(frozen=True)
class Identity(Calibrator):
    """The softmax of the logits."""

    kind = "none"
    changes_nothing = True
    by_value = True

    def transform(self, logits: Array) -> Array:
        return logits

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> Identity:
        parameters.expect()
        return cls()

    def summary(self) -> str:
        return "softmax of the logits"
