"""Factors of class-wise loss scaling: how much a class counts, by how its loss compares."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

from calibcli.objectives.adaptive import Vector

Normalisation: TypeAlias = Literal["zscore", "centered", "minmax"]

FIRST_ALPHA, FIRST_BETA = 1.0, 1.5
"""In force until both are fitted."""

SMALLEST_ALPHA, LARGEST_BETA = 0.1, 2.0

_SMALLEST_SPREAD = 1e-12
_GRID = 200


def normalise(losses: Vector, normalisation: Normalisation) -> Vector:
    """Class losses (K,) without their location and scale; zeros where all are equal.

    ``zscore`` divides the deviations from the mean by the standard deviation (with K - 1),
    ``centered`` divides them by the range, ``minmax`` goes from 0 to 1.
    """
    centred = losses - losses.mean()
    spread = float(np.ptp(losses))
    if spread <= _SMALLEST_SPREAD * max(1.0, float(np.abs(losses).max())):
        return np.zeros_like(losses)
    if normalisation == "zscore":
        spread = float(losses.std(ddof=1))
    normalised: Vector = (losses - losses.min() if normalisation == "minmax" else centred) / spread
    return normalised


def factors(normalised: Vector, alpha: float, beta: float) -> Vector:
    """``1 + (beta / 2) tanh(n / (2 alpha))`` (K,) of normalised class losses n (K,)."""
    scaled: Vector = 1 + beta / 2 * np.tanh(normalised / (2 * alpha))
    return scaled


def fit_shape(
    first: Vector,
    losses: Vector,
    normalised: Vector,
    alpha: float | None = None,
    beta: float | None = None,
) -> tuple[float, float]:
    """Alpha and beta from the class losses (K,) of the first two evaluations.

    They minimise ``sum_k (first_k - (s_k - 1) (loss_k - first_k) - mean loss)^2`` over
    ``0.1 <= alpha <= ln(K) / 2`` and ``1.5 <= beta <= 2``. The problem is quadratic in beta; what
    remains is searched in alpha, on a grid and then between its points. Most often the answer is a
    corner: the flattest factors where losses have fallen, the steepest where they have risen.

    Parameters
    ----------
    first, losses, normalised : float64 arrays (K,)
        Class losses at the first and second evaluation, and the second ones normalised.
    alpha, beta : float, optional
        Values that are given and not to be fitted.
    """
    target = first - losses.mean()
    change = losses - first
    largest_alpha = max(math.log(len(losses)) / 2, SMALLEST_ALPHA)

    def best_beta(at: float) -> tuple[float, float]:
        slope = np.tanh(normalised / (2 * at)) / 2 * change
        square = float(slope @ slope)
        free = float(slope @ target) / square if square > 0 else FIRST_BETA
        chosen = min(max(free, FIRST_BETA), LARGEST_BETA) if beta is None else beta
        rest = target - chosen * slope
        return float(rest @ rest), chosen

    if alpha is not None:
        return alpha, best_beta(alpha)[1]
    # From the flattest on, which is taken where all are equally good.
    grid = np.geomspace(largest_alpha, SMALLEST_ALPHA, _GRID)
    best = int(np.argmin([best_beta(at)[0] for at in grid]))
    low, high = grid[min(best + 1, _GRID - 1)], grid[max(best - 1, 0)]
    inside = _golden(lambda at: best_beta(at)[0], float(low), float(high))
    chosen = min((float(grid[best]), inside), key=lambda at: best_beta(at)[0])
    return chosen, best_beta(chosen)[1]


def _golden(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum between two points has it (golden-section search)."""
    ratio = (math.sqrt(5) - 1) / 2
    while high - low > 1e-12 * high:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if function(left) <= function(right):
            high = right
        else:
            low = left
    return (low + high) / 2
