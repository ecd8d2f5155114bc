"""Calibrators one after the other, and such chains inside parameters of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from calibcli.arrays import Array, NumpyArray
from calibcli.calibrators.base import GROUP, Calibrator
from calibcli.errors import ParamsError

_MOST_STAGES = 64


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
    """Stages as a parameter of another one."""
    return [{"kind": stage.kind, "parameters": stage.parameters()} for stage in stages]


def read_stages(kind: str, value: Any, name: str, classes: int) -> tuple[Calibrator, ...]:
    """The stages that a parameter of another one describes.

    Raises
    ------
    ParamsError
        Not a list of stages, an unknown kind, or parameters that a stage can't have.
    """
    from calibcli.calibrators.registry import CALIBRATORS

    if not isinstance(value, list) or len(value) > _MOST_STAGES:
        raise ParamsError(f"stage {kind!r}: {name} must be a list of stages")
    stages = []
    for entry in value:
        if not isinstance(entry, dict) or set(entry) != {"kind", "parameters"}:
            raise ParamsError(f"stage {kind!r}: {name} must be stages of 'kind' and 'parameters'")
        inner = entry["kind"]
        if not isinstance(inner, str) or inner not in CALIBRATORS:
            raise ParamsError(f"stage {kind!r}: {name} has the unknown kind {inner!r}")
        stages.append(CALIBRATORS[inner].from_parameters(entry["parameters"], classes))
    return tuple(stages)
