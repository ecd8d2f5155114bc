"""Mixtures of predictions that are there: weights of a log-linear one, and a uniform share of it.

Both are fitted to log-probabilities of rows that the predictions have not seen, held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.fitting.results import Solution

_TOLERANCE = 1e-8
_MOST_ITERATIONS = 100
_SHORTEST = 1e-9
"""Of a step, as a share of Newton's; what gains nothing then is lost in rounding."""

_ROUNDING = 8 * float(np.finfo(np.float64).eps)
"""So much of the value is noise: near the minimum no shorter step would be any better."""

_SMALLEST_RIDGE = 1e-10
"""On a Hessian, as a share of its trace: members that say the same leave it singular."""

_ROUNDED, _MOST_SETS = 1e-12, 10
"""What of a slope is rounding; and sets of free parameters that are tried, for each of them."""

_PRIOR = 20.0
"""What a uniform share of 1 costs, in nats.

In simulations with known truths 10 to 30 were alike; with less it fitted noise, with more it saw
wrong labels late.
"""

_LEAST_GAIN = 0.5
"""Nats by which a share makes the rows likelier at least: chance alone does it one time in six."""

_LEAST_SHARE, _LARGEST_SHARE = 1e-6, 0.5
_HALVINGS = 30

_BLOCK = 1 << 17
"""Log-probabilities of all members that are worked on at a time, so that they stay in the cache."""

_Derivatives = tuple[float, NumpyArray, NumpyArray]


def fit_weights(
    log_probs: NumpyArray,
    labels: NumpyArray,
    shares: NumpyArray,
    anchor: NumpyArray,
    ridge: float,
    start: NumpyArray | None = None,
    spread: Callable[..., Iterator[Any]] = map,
) -> Solution:
    """Weights of a log-linear mixture with the lowest mean loss, none of them negative.

    Parameters
    ----------
    log_probs : float64 array (M, n, K)
        Of M members.
    labels : int64 array (n,)
    shares : float64 array (n,)
        Weights of the rows, which sum to 1.
    anchor : float64 array (M,)
        What the weights are drawn to.
    ridge : float
        The loss gains this times the squared distance from the anchor.
    start : float64 array (M,) or None
        Weights to start from; None: the anchor.
    spread : callable
        As `map`; where it uses threads, some rows are worked on in each.
    """
    members, rows, classes = log_probs.shape
    right = log_probs[:, np.arange(rows), labels] @ shares
    # By blocks that stay in the cache: all members of all rows are read once, and not copied.
    step = max(_BLOCK // (members * classes), 1)
    parts = [log_probs[:, begin : begin + step] for begin in range(0, rows, step)]
    parts_of_shares = [shares[begin : begin + step] for begin in range(0, rows, step)]

    def derivatives(weights: NumpyArray) -> _Derivatives:
        normaliser, first = 0.0, np.zeros(members)
        second = np.zeros((members, members))
        for value, means, products in spread(partial(_block, weights), parts, parts_of_shares):
            normaliser += value
            first += means
            second += products
        pull = weights - anchor
        return (
            normaliser - float(right @ weights) + ridge * float(pull @ pull),
            first - right + 2 * ridge * pull,
            second + 2 * ridge * np.eye(members),
        )

    return minimise_nonnegative(derivatives, anchor if start is None else start)


def _block(weights: NumpyArray, log_probs: NumpyArray, shares: NumpyArray) -> _Derivatives:
    """What some rows add to the mean of ``log sum_k exp(sum_m w_m log p_mk)``, with derivatives.

    Parameters
    ----------
    weights : float64 array (M,)
    log_probs : float64 array (M, n, K)
    shares : float64 array (n,)
    """
    members, rows, _ = log_probs.shape
    by_class = log_probs.reshape(members, -1)
    logits = (weights @ by_class).reshape(rows, -1)
    largest = logits.max(axis=1, keepdims=True)
    probs = np.exp(logits - largest)
    sums = probs.sum(axis=1, keepdims=True)
    probs *= 1 / sums
    value = float((largest + np.log(sums))[:, 0] @ shares)
    moved = by_class.reshape(log_probs.shape) * probs
    means = moved.sum(axis=2)
    moved *= shares[:, None]
    hessian = moved.reshape(members, -1) @ by_class.T - (means * shares) @ means.T
    return value, means @ shares, hessian


def minimise_nonnegative(
    derivatives: Callable[[NumpyArray], _Derivatives], start: NumpyArray
) -> Solution:
    """The minimum of a convex function of a few parameters (P,), none of which is negative.

    Newton's method, each step to the minimum of the quadratic model among such parameters: to cut
    off what a step without the bounds has below 0 can lead up, and takes halvings by the dozen
    where members are alike.

    Parameters
    ----------
    derivatives : callable
        Parameters -> value, gradient (P,) and Hessian (P, P).
    start : float64 array (P,)
    """
    theta = np.maximum(start, 0.0)
    value, gradient, hessian = derivatives(theta)
    for iteration in range(1, _MOST_ITERATIONS + 1):
        free = (theta > 0) | (gradient < 0)
        norm = float(np.abs(gradient[free]).max(initial=0.0))
        if norm <= _TOLERANCE:
            return Solution(theta, value, norm, True, "gradient", iteration)
        ridge = _SMALLEST_RIDGE * float(np.trace(hessian)) * np.eye(len(theta))
        step = nonnegative_minimum(hessian + ridge, gradient, theta) - theta
        length = 1.0
        while length > _SHORTEST:
            point = np.maximum(theta + length * step, 0.0)
            found = derivatives(point)
            fall = 1e-4 * float(gradient @ (point - theta))
            if found[0] <= value + fall + _ROUNDING * abs(value):
                break
            length /= 2
        else:
            return Solution(theta, value, norm, norm <= 1e-4, "rounding", iteration)
        theta, (value, gradient, hessian) = point, found
    return Solution(theta, value, norm, False, "iterations", _MOST_ITERATIONS)


def nonnegative_minimum(hessian: NumpyArray, gradient: NumpyArray, start: NumpyArray) -> NumpyArray:
    """The point x (P,) of least ``g' d + d' H d / 2`` with ``d = x - start``, no x below 0.

    By active sets (Lawson and Hanson, Solving least squares problems, 1974, chapter 23), from those
    of the start.

    Parameters
    ----------
    hessian : float64 array (P, P)
        Positive definite.
    gradient, start : float64 array (P,)
        The start is not below 0.
    """
    goal = hessian @ start - gradient
    point, free = start.copy(), start > 0
    noise = _ROUNDED * (float(np.abs(goal).max(initial=0.0)) + float(np.abs(gradient).max()))
    for _ in range(_MOST_SETS * len(start)):
        wanted = np.zeros_like(point)
        wanted[free] = np.linalg.solve(hessian[np.ix_(free, free)], goal[free])
        below = free & (wanted <= 0)
        if below.any():
            shares = point[below] / (point[below] - wanted[below])
            point += float(shares.min()) * (wanted - point)
            first = np.flatnonzero(below)[shares.argmin()]
            free[first], point[first] = False, 0.0
            continue
        point = wanted
        slope = np.where(free, 0.0, goal - hessian @ point)
        if slope.max() <= noise:
            break
        free[slope.argmax()] = True
    return point


def fit_uniform_share(label_probs: NumpyArray, weights: NumpyArray, classes: int) -> float:
    """The share of the uniform distribution in ``(1 - share) p + share / K`` of highest posterior.

    Its prior falls exponentially, so that it is 0 unless the rows ask for more: labels that are
    wrong, or rows of another domain, are given less by most maps than they come with.

    Parameters
    ----------
    label_probs : float64 array (n,)
        The probability of each row's label, by fits that have not seen the row.
    weights : float64 array (n,)
    classes : int
        K.
    """
    possible = label_probs > 0
    probs, weights = label_probs[possible], weights[possible]
    ahead = 1 / classes - probs

    def slope(share: float) -> float:
        """By how much the posterior rises with the share."""
        return float(weights @ (ahead / (probs + share * ahead))) - _PRIOR

    if not len(probs) or slope(_LEAST_SHARE) <= 0:
        return 0.0
    low, high = np.log(_LEAST_SHARE), np.log(_LARGEST_SHARE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(np.exp(middle)) > 0 else (low, middle)
    share = float(np.exp(low))
    return share if weights @ np.log1p(share * ahead / probs) > _LEAST_GAIN else 0.0
