"""Knots of piecewise functions: where they lie among the rows, and reading them from a file."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.calibrators.parameters import Parameters


def weighted_quantiles(values: NumpyArray, weights: NumpyArray, shares: NumpyArray) -> NumpyArray:
    """The values (s,) up to which some shares (s,) of the weights lie.

    Parameters
    ----------
    values, weights : float array (m,)
        Finite, and greater than 0; at least one.
    shares : float array (s,)
        From 0 to 1.
    """
    quantiles: NumpyArray = np.quantile(values, shares, weights=weights, method="inverted_cdf")
    return quantiles


def spaced(places: Iterable[float], closest: float) -> list[float]:
    """The places, in ascending order, without those that lie closer behind another than that."""
    knots: list[float] = []
    for place in places:
        if not knots or place > knots[-1] + closest:
            knots.append(float(place))
    return knots


def read_knots(parameters: Parameters, *, least: int = 0) -> NumpyArray:
    """The parameter ``knots`` (m,) of a stage.

    Raises
    ------
    ParamsError
        They don't ascend, or are fewer than ``least``.
    """
    knots = parameters.array("knots", None)
    if len(knots) < least or (np.diff(knots) <= 0).any():
        wanted = f"in ascending order, at least {least}" if least else "in ascending order"
        raise parameters.error(f"knots must be {wanted}")
    return knots
