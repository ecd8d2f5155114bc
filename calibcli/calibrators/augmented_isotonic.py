"""Isotonic regression with one more row, wherever its score may fall: p0 and p1 of Venn-Abers."""

from __future__ import annotations

import numpy as np

from calibcli.arrays import NumpyArray


def augmented_isotonic(positives: NumpyArray, weights: NumpyArray) -> tuple[NumpyArray, NumpyArray]:
    """Isotonic regression with one more row, for every place where its score can fall.

    Parameters
    ----------
    positives, weights : float64 array (m,)
        Weight of the positive rows and of all rows at each distinct score, in ascending order of
        the scores. All weights are greater than 0.

    Returns
    -------
    p0, p1 : float64 array (m + 1,)
        The value that isotonic regression gives a row of weight 1 as a negative and as a positive.
        ``p0[i]`` is for scores from the i-th distinct one, counted from 1, to before the next,
        ``p1[i]`` for those after the i-th up to the next. Both never fall; ``p0[0]`` is 0 and
        ``p1[m]`` is 1, and ``p0[i] < p1[i]``.

    Examples
    --------
    Of one row at each of three scores, the last two are positive.

    >>> p0, p1 = augmented_isotonic(np.array([0.0, 1.0, 1.0]), np.ones(3))
    >>> p0.round(2), p1.round(2)
    (array([0.  , 0.  , 0.5 , 0.67]), array([0.5, 1. , 1. , 1. ]))

    Notes
    -----
    O(m log m) in time: O(m), and O(log m) for each score whose tangent is to be searched for.

    References
    ----------
    Vovk, Petej & Fedorova, Large-scale probabilistic predictors with and without guarantees of
    validity, NeurIPS 2015, section 4.
    """
    # A negative among rows in ascending order is a positive among their opposites in descending
    # order.
    p0 = 1 - _with_a_positive((weights - positives)[::-1], weights[::-1])[::-1]
    return p0, _with_a_positive(positives, weights)


def _with_a_positive(positives: NumpyArray, weights: NumpyArray) -> NumpyArray:
    """Values (m + 1,) of one more positive row, wherever its score falls.

    Let W and S be the sums of the weights and of the positive ones over the first j scores. By the
    max-min formula, the value of a positive that is put in behind the first i is the largest over
    a <= i of the smallest over b >= i of ``(S_b + 1 - S_a) / (W_b + 1 - W_a)``. The smallest over
    b >= a does as well: at the best a the chord ends at no b before i, since a line through a of
    that slope supports the points before i. So a single running maximum of tangents does.
    """
    x = np.concatenate(([0.0], np.cumsum(weights)))
    y = np.concatenate(([0.0], np.cumsum(positives)))
    shares = positives / weights
    # Tangents from below touch where the share rises, or at the end.
    corners = np.append(np.flatnonzero(shares[:-1] < shares[1:]) + 1, len(shares))
    if len(corners) == 1:
        # As where nothing is positive: the chords to the end are all there is.
        chords = np.append((y[-1] + 1 - y[:-1]) / (x[-1] + 1 - x[:-1]), 1.0)
        return np.minimum(np.maximum.accumulate(chords), 1.0)
    hulls = SuffixHulls(x[corners] + 1, y[corners] + 1)
    bases = np.concatenate(([0], corners[:-1]))
    at_bases = hulls.tangents(x[bases], y[bases], np.arange(len(corners)))
    reached = np.maximum.accumulate(at_bases)
    # Scores between two corners, and whether they could raise the maximum that is reached by then.
    nearest = np.repeat(np.arange(len(corners)), np.diff(corners, prepend=0))
    bound = (y[corners[nearest]] + 1 - y[:-1]) / (x[corners[nearest]] + 1 - x[:-1])
    values = np.append(reached[nearest], 1.0)
    raising = np.flatnonzero(bound > reached[nearest])
    values[raising] = np.maximum(
        values[raising], hulls.tangents(x[raising], y[raising], nearest[raising])
    )
    # Sums of weights that are no whole numbers are rounded.
    running: NumpyArray = np.minimum(np.maximum.accumulate(values), 1.0)
    return running


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
        """Smallest slopes from points (n,) to the hulls of the points from ``first`` (n,) on."""
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
    """The next corner (c,) of the lower hull of the points from each point on."""
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
