"""Logistic regression with few features, to the end: Newton's method with step halving."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibcli.arrays import NumpyArray

_MOST_ITERATIONS = 100
_SMALLEST_SHARE_OF_STEP = 1e-6
_TOLERANCE = 1e-12
"""What the next step would gain, relative to the loss, when the search ends."""

_ROUNDING = 1e-9
"""Relative to the loss, a gain that rounding may hide."""


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """The optimum of a penalised logistic regression.

    Attributes
    ----------
    theta : float64 array (P,)
    value : float
        The penalised negative log-likelihood at theta.
    hessian : float64 array (P, P)
        Second derivatives of the value.
    """

    theta: NumpyArray
    value: float
    hessian: NumpyArray


def fit_logistic(
    features: NumpyArray,
    positives: NumpyArray,
    weights: NumpyArray,
    ridge: NumpyArray,
    anchor: NumpyArray,
) -> LogisticFit:
    """Minimise ``sum_i w_i log(1 + exp f_i) - s_i f_i + d' R d / 2``.

    Parameters
    ----------
    features : float64 array (m, P)
        With f = features @ theta.
    positives, weights : float64 array (m,)
        Weights s of the event and w of all rows.
    ridge : float64 array (P, P)
        R.
    anchor : float64 array (P,)
        d is theta minus this, where the search starts.
    """
    theta = anchor
    value = _value(features, positives, weights, ridge, anchor, theta)
    hessian = ridge
    for _ in range(_MOST_ITERATIONS):
        shares = 1 / (1 + np.exp(-np.clip(features @ theta, -700, 700)))
        gradient = features.T @ (weights * shares - positives) + ridge @ (theta - anchor)
        curvature = weights * shares * (1 - shares)
        hessian = (features * curvature[:, None]).T @ features + ridge
        step = np.linalg.lstsq(hessian, gradient)[0]
        gain = float(gradient @ step)
        if gain <= _TOLERANCE * abs(value):
            # So short a step needs no look at where it leads.
            return LogisticFit(theta - step, value, hessian)
        share = 1.0
        new = _value(features, positives, weights, ridge, anchor, theta - step)
        if new > value and gain <= _ROUNDING * abs(value):
            # A strong ridge rounds gradients so that they don't vanish; no shorter step helps.
            return LogisticFit(theta, value, hessian)
        while new > value and share > _SMALLEST_SHARE_OF_STEP:
            share /= 2
            new = _value(features, positives, weights, ridge, anchor, theta - share * step)
        theta, value = theta - share * step, new
    return LogisticFit(theta, value, hessian)


def _value(
    features: NumpyArray,
    positives: NumpyArray,
    weights: NumpyArray,
    ridge: NumpyArray,
    anchor: NumpyArray,
    theta: NumpyArray,
) -> float:
    logits, away = features @ theta, theta - anchor
    loss = weights @ np.logaddexp(0, logits) - positives @ logits
    return float(loss + away @ ridge @ away / 2)
