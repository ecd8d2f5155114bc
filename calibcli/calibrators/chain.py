"""Calibrators one after the other, and log-linear mixtures of such chains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from calibcli.arrays import LARGEST_LOGIT, Array, NumpyArray
from calibcli.calibrators.base import GROUP, LARGEST_REACH, Calibrator, Preserves
from calibcli.calibrators.parameters import Parameters
from calibcli.errors import ParamsError
from calibcli.value_counts import normalised


def for_rows(
    stages: Sequence[Calibrator], keys: Mapping[str, NumpyArray] | None
) -> tuple[Calibrator, ...]:
    """The stages for certain rows, given the numbers (n,) of their groups by role."""
    if keys is None or GROUP not in keys:
        return tuple(stages)
    return tuple(stage.for_groups(keys[GROUP]) for stage in stages)


def calibrate(stages: Sequence[Calibrator], logits: Array) -> Array:
    """Calibrated logits (n, K), not normalised, after all stages."""
    for stage in stages[:-1]:
        logits = stage.log_probs(logits)
    return stages[-1].logits(logits) if stages else logits


def log_probs_after(stages: Sequence[Calibrator], logits: Array) -> Array:
    """Log-probabilities (n, K) after all stages; the logits as they are where there are none."""
    for stage in stages:
        logits = stage.log_probs(logits)
    return logits


def calibrate_by_value(
    stages: Sequence[Calibrator], values: NumpyArray, counts: NumpyArray
) -> NumpyArray:
    """As `calibrate`, of distinct logits (n, D) that occur so often; all stages are `by_value`."""
    values = log_probs_by_value(stages[:-1], values, counts)
    return stages[-1].logits_by_value(values, counts) if stages else values


def log_probs_by_value(
    stages: Sequence[Calibrator], values: NumpyArray, counts: NumpyArray
) -> NumpyArray:
    """As `log_probs_after`, of distinct logits (n, D) that occur so often."""
    for stage in stages:
        values = normalised(stage.logits_by_value(values, counts), counts)
    return values


def reach_of(stages: Sequence[Calibrator], bound: float = LARGEST_LOGIT) -> float:
    """How large the log-probabilities after all stages can be; see `Calibrator.reach`.

    Raises
    ------
    ParamsError
        A stage reaches beyond what can be computed.
    """
    for stage in stages:
        # What overflows is beyond every bound.
        with np.errstate(all="ignore"):
            # Each stage may see log-probabilities in place of logits, which lie twice as far.
            bound = float(stage.reach(2 * bound))
        if not bound <= LARGEST_REACH:
            raise ParamsError(
                f"stage {stage.kind!r}: its numbers are so extreme that results would overflow"
            )
    return bound


def preserved_by(stages: Sequence[Calibrator]) -> Preserves:
    """What all stages together leave as it was in every row."""
    kept = {stage.preserves for stage in stages}
    return "nothing" if "nothing" in kept else "accuracy" if "accuracy" in kept else "order"


def described(stages: Sequence[Calibrator]) -> list[dict[str, Any]]:
    """Stages in the form that they have as a parameter of another stage."""
    return [{"kind": stage.kind, "parameters": stage.parameters()} for stage in stages]


@dataclass(frozen=True, eq=False)
class LogLinear(Calibrator):
    """``softmax(sum_m w_m log p_m)``, p_m the probabilities of member m.

    Parameters
    ----------
    members : tuple of tuple of Calibrator
        M chains of stages; an empty one leaves the probabilities as they are.
    weights : float64 array (M,)
        They need not sum to 1: what their sum differs by is a temperature.
    names : tuple of str
        What the members are called, as after ``-m``; empty: by the kinds of their stages.
    """

    members: tuple[tuple[Calibrator, ...], ...]
    weights: NumpyArray
    names: tuple[str, ...] = ()
    kind: ClassVar[str] = "log-linear"
    readable: ClassVar[bool] = False

    def transform(self, logits: Array) -> Array:
        total: Array | None = None
        for stages, weight in zip(self.members, self.weights, strict=True):
            if weight == 0:
                continue
            # What would make probabilities sum to 1 is the same for all classes of a row.
            part = calibrate(stages, logits) * float(weight)
            if total is None:
                total = part
            else:
                total += part
        return logits * 0.0 if total is None else total

    @property
    def keeps_ranking(self) -> bool:
        kept = all(stage.keeps_ranking for stages in self.members for stage in stages)
        return kept and self._pulls_one_way

    @property
    def _pulls_one_way(self) -> bool:
        """Whether more of a member is never less of the mixture."""
        return bool(self.weights.min() >= 0 < self.weights.max())

    @property
    def preserves(self) -> Preserves:
        if not self._pulls_one_way:
            return "nothing"
        return preserved_by([stage for stages in self.members for stage in stages])

    def reach(self, bound: float) -> float:
        reached = [reach_of(stages, bound) for stages in self.members]
        return float(np.abs(self.weights) @ reached)

    def parameters(self) -> dict[str, Any]:
        members = [described(stages) for stages in self.members]
        named = {"names": list(self.names)} if self.names else {}
        return {**named, "members": members, "weights": self.weights}

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> LogLinear:
        named, unnamed = parameters.split("names")
        unnamed.expect("members", "weights")
        members = parameters.stage_lists("members", classes)
        if not members:
            raise parameters.error("members must be a list of lists of stages")
        names = named.texts("names", len(members)) if named.values else ()
        return cls(members, parameters.array("weights", (len(members),)), names)

    def summary(self) -> str:
        kinds = ["+".join(stage.kind for stage in stages) or "none" for stages in self.members]
        named = zip(self.weights, self.names or kinds, strict=True)
        return ", ".join(f"{weight:.2f} {name}" for weight, name in named)
