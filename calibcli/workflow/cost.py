"""What fits will take, roughly, said before they start."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from calibcli.engine.blas import one_blas_thread
from calibcli.engine.data import Data
from calibcli.workflow.plans import Plan

_LONG_SECONDS = 20.0
_PASSES = 20
"""Of a typical fit; it tells in the end how many there were."""

_SECONDS_AN_ELEMENT = 2e-9
"""Exponentials and what else a pass does to each score, on one core."""

_SHARE_OF_A_FOLD = 0.5
_TRIALS = 8
"""A fit without a fold starts from that to all rows; penalties are chosen by some of these."""

_PROBE_SIZE = 768


def cost_note(data: Data, plans: Sequence[Plan], folds: int) -> str | None:
    """A line on fits that will take more than a moment on this machine; None for others.

    Parameters
    ----------
    data : Data
    plans : sequence of Plan
        What will be fitted.
    folds : int
        Fits without a fold that follow each fit to all rows.
    """
    if data.engine.device != "cpu":
        return None
    costs = [_Cost(data, plan, folds) for plan in plans if plan.reduce is None]
    products = sum(cost.products for cost in costs)
    seconds = sum(cost.elements for cost in costs) * _SECONDS_AN_ELEMENT
    # The probe itself takes a moment, which small fits don't.
    if products * _SECONDS_AN_ELEMENT > 1:
        seconds += products * _seconds_a_product()
    seconds /= data.workers
    if seconds < _LONG_SECONDS:
        return None
    size, name = max((cost.size, cost.plan.method) for cost in costs)
    again = f" and again without each of {folds} folds" if folds else ""
    return (
        f"{name} has {size:,} parameters, which are fitted to {data.rows:,} rows{again}: "
        f"expect about {_duration(seconds)}"
    )


class _Cost:
    """Of a plan: its parameters, scores that are passed over, and multiplications in matrices."""

    def __init__(self, data: Data, plan: Plan, folds: int) -> None:
        sizes = [f.size(data.classes) or 0 for f in plan.families if f is not None]
        fits = 1 + folds * _SHARE_OF_A_FOLD * (_TRIALS if plan.tune else 1)
        rows = _PASSES * fits * data.rows
        self.plan, self.size = plan, sum(sizes)
        self.elements = rows * data.classes * len(sizes)
        # Maps with more parameters than that mix the classes: forth by a matrix, and back.
        self.products = rows * sum(2.0 * size for size in sizes if size > 2 * data.classes)


def _seconds_a_product() -> float:
    """Of a multiplication and addition in a product of matrices, on one core, now."""
    matrix = np.ones((_PROBE_SIZE, _PROBE_SIZE), np.float32)
    times = []
    with one_blas_thread():
        for _ in range(3):
            begin = time.perf_counter()
            np.matmul(matrix, matrix)
            times.append(time.perf_counter() - begin)
    return min(times) / _PROBE_SIZE**3


def _duration(seconds: float) -> str:
    """Seconds as a person says them: ``40 s``, ``7 min``, ``3 h``."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(round(seconds, -1), 10):.0f} s"
