"""Calibrators one after the other, and such chains inside parameters of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from calibcli.arrays import Array, NumpyArray
from calibcli.calibrators.base import GROUP, Calibrator


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


def described(stages: Sequence[Calibrator]) -> list[dict[str, Any]]:
    """Stages in the form that they have as a parameter of another stage."""
    return [{"kind": stage.kind, "parameters": stage.parameters()} for stage in stages]
