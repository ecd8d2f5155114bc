"""Class priors: fitting and measuring for other class shares than those of the rows."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.errors import UsageError

TargetPrior: TypeAlias = Literal["balanced"] | tuple[float, ...]
"""Equal shares, or a share for each class."""

IMBALANCED = 2.0
"""A class with so many times the weight of another makes data imbalanced."""


def prior_factors(prior: TargetPrior, class_weights: NumpyArray) -> NumpyArray:
    """Factors (K,) of row weights that give the classes the shares of a prior.

    Their mean over the rows is 1. Classes without rows have the factor 0; the prior is spread over
    the others.

    Raises
    ------
    UsageError
        A prior of another length, with negative shares, or none for the classes that have rows.
    """
    classes = len(class_weights)
    shares = np.ones(classes) if prior == "balanced" else np.asarray(prior, np.float64)
    if len(shares) != classes:
        raise UsageError(f"--target-prior has {len(shares)} shares; the data has {classes} classes")
    if not np.isfinite(shares).all() or shares.min() < 0:
        raise UsageError("--target-prior: every share must be a number from 0 up")
    present = class_weights > 0
    shares = np.where(present, shares, 0.0)
    if shares.sum() <= 0:
        raise UsageError("--target-prior gives no share to any class that has rows")
    own = class_weights / class_weights.sum()
    factors: NumpyArray = np.zeros(classes)
    np.divide(shares / shares.sum(), own, out=factors, where=present)
    return factors


def imbalance(class_weights: NumpyArray) -> float:
    """Weight of the largest class over that of the smallest that has rows."""
    present = class_weights[class_weights > 0]
    return float(present.max() / present.min()) if len(present) else 1.0
