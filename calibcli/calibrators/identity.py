"""No calibration: the probabilities that the logits stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from calibcli.arrays import Array
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.reading import check_names


@dataclass(frozen=True)
class Identity(Calibrator):
    """The softmax of the logits."""

    kind = "none"

    def transform(self, logits: Array) -> Array:
        return logits

    def parameters(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any], classes: int) -> Identity:
        check_names(cls.kind, parameters, ())
        return cls()

    def summary(self) -> str:
        return "softmax of the logits"
