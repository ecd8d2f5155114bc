"""Lower convex hulls of the rest of a row of points, from each of them on, and tangents to them."""

from __future__ import annotations

import numpy as np

from calibcli.arrays import NumpyArray


class SuffixHulls:
    """The lower convex hulls of points (c,) from each of them on.

    The hull from one point on is that point and the hull from its `following` one on: a tree, whose
    paths have edges of rising slopes.

    Parameters
    ----------
    x, y : float64 array (c,)
        With x in ascending order.
    """

    def __init__(self, x: NumpyArray, y: NumpyArray) -> None:
        self._x, self._y = x, y
        following = _following(x.tolist(), y.tolist())
        last = len(x) - 1
        run, rise = x[following] - x, y[following] - y
        self._slopes = np.full(len(x), np.inf)
        np.divide(rise, run, out=self._slopes, where=run > 0)
        self._jumps = [following]
        while (self._jumps[-1] != last).any():
            self._jumps.append(self._jumps[-1][self._jumps[-1]])

    def tangents(self, x: NumpyArray, y: NumpyArray, first: NumpyArray) -> NumpyArray:
        """The smallest slopes from points (n,) to the hulls from the points ``first`` (n,) on."""
        value: NumpyArray = (self._y[first] - y) / (self._x[first] - x)
        falling = np.flatnonzero(self._slopes[first] < value)
        if not len(falling):
            return value
        x, y, at = x[falling], y[falling], first[falling]
        # As far as the slopes still fall there, by jumps of 2^j edges, and one edge more.
        for jump in reversed(self._jumps):
            ahead = jump[at]
            slope = (self._y[ahead] - y) / (self._x[ahead] - x)
            at = np.where(self._slopes[ahead] < slope, ahead, at)
        at = self._jumps[0][at]
        value[falling] = (self._y[at] - y) / (self._x[at] - x)
        return value


def _following(x: list[float], y: list[float]) -> NumpyArray:
    """For each point, the next corner of the lower hull of the points from it on (c,)."""
    last = len(x) - 1
    following = [last] * len(x)
    for point in range(last - 1, -1, -1):
        here_x, here_y = x[point], y[point]
        corner = point + 1
        while corner != last:
            beyond = following[corner]
            if (y[corner] - here_y) * (x[beyond] - here_x) < (y[beyond] - here_y) * (
                x[corner] - here_x
            ):
                break
            corner = beyond
        following[point] = corner
    return np.array(following, np.int64)
