"""Exponential sums over rows by value, from moments: what a pass of a fit needs of its rows.

The log-probabilities of a row are cut into clusters of a width. Over a cluster with the centre w_0
a sum of ``exp(s w)`` is ``exp(s w_0)`` times a power series in s, whose coefficients are the
moments ``sum (w - w_0)^j`` of the cluster (as of sources that are far away in the fast multipole
method: Greengard and Rokhlin, J. Comput. Phys. 1987). Of 128,000 classes some hundred clusters with
a dozen moments each are left, found once, and every pass is a product of matrices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from calibcli.arrays import NumpyArray
from calibcli.value_counts import CountedScores, ValueBlock

_WIDTH = 0.25
"""Of a cluster; with half of it times the slope at most 1 the series ends below 1e-8."""

_TERMS = 12
"""Moments of a cluster. Sums of ``w^2 exp(s w)`` have two terms less."""

STEEPEST = 32.0
"""Steeper slopes leave nothing of a row that is far below the end of its piece."""


def width_for(slope: float) -> float | None:
    """The width of clusters that are good for slopes up to this one; None for steeper ones.

    It is one of few, so that what is made with it is good for other slopes too.
    """
    if not slope <= STEEPEST:
        return None
    least = slope * _WIDTH / 2
    return _WIDTH / 2.0 ** max(math.ceil(math.log2(least)), 0) if least > 1 else _WIDTH


@dataclass(frozen=True, eq=False)
class ValueMoments:
    """Moments of the log-probabilities of rows, by row and cluster.

    Parameters
    ----------
    upper : float64 array (m + 1,)
        Ends of the pieces, ascending; no cluster is of two pieces.
    beyond : float64 array (C,)
        The centre of each cluster, from the end of its piece.
    piece : int array (C,)
        The piece of each cluster, ascending.
    halves : float64 array (C,)
        Half the width of each cluster.
    moments : float32 array (n, C, J)
        Sums of ``u^j``, u being the distance from the centre in half widths.
    """

    upper: NumpyArray
    beyond: NumpyArray
    piece: NumpyArray
    halves: NumpyArray
    moments: NumpyArray

    @property
    def nbytes(self) -> int:
        """What it takes to keep them."""
        return int(self.moments.nbytes + 3 * self.beyond.nbytes)

    @classmethod
    def of(cls, scores: CountedScores, knots: NumpyArray, width: float) -> ValueMoments:
        """The moments of log-probabilities by value, with pieces between knots (m,) and 0."""
        upper = np.append(knots, 0.0)
        parts = [_moments_of(block, upper, width) for block in scores.blocks()]
        edges = max((edges for edges, _ in parts), key=len)
        moments = np.zeros((len(scores), len(edges) - 1, _TERMS), np.float32)
        begin = 0
        for _, part in parts:
            # Edges differ in how far down they go.
            moments[begin : begin + len(part), moments.shape[1] - part.shape[1] :] = part
            begin += len(part)
        centres, halves = (each.astype(np.float64) for each in _clusters(edges))
        piece = np.searchsorted(knots, centres)
        return cls(upper, centres - upper[piece], piece, halves, moments)

    def sums_by_row(self, slopes: NumpyArray) -> NumpyArray:
        """As `sums`, of a single piece with a slope for each row (n,): (3, n)."""
        terms = _TERMS
        # Without knots all clusters are of one width.
        half, beyond = float(self.halves[0]), self.beyond
        series = _series(slopes * half)
        moved = [np.pad(series, ((0, 0), (k, 0)))[:, :terms] * half**k for k in (1, 2)]
        each = self.moments.astype(np.float64) @ np.stack([series, *moved], axis=2)
        mass = np.exp(slopes[:, None] * beyond)
        zeroth, first, second = np.moveaxis(each, 2, 0)
        parts = (zeroth, beyond * zeroth + first, beyond**2 * zeroth + 2 * beyond * first + second)
        return np.stack([np.vecdot(mass, part) for part in parts])

    def sums(self, slopes: NumpyArray) -> NumpyArray:
        """Sums of ``exp(s w)``, times w, and times w again, by piece and row: (3, m + 1, n).

        w is the distance from the end of a piece, and s the slope (m + 1,) of the piece.
        """
        slope, beyond = slopes[self.piece], self.beyond
        series, terms = _series(slope * self.halves), self.moments.shape[2]
        move = self.halves[:, None]
        first = move * np.pad(series, ((0, 0), (1, 0)))[:, :terms]
        second = move**2 * np.pad(series, ((0, 0), (2, 0)))[:, :terms]
        at = beyond[:, None]
        coefficients = np.stack(
            [series, at * series + first, at**2 * series + 2 * at * first + second]
        )
        coefficients *= np.exp(slope * beyond)[:, None]
        result = np.zeros((3, len(self.upper), len(self.moments)))
        for number in np.unique(self.piece):
            own = slice(*np.searchsorted(self.piece, (number, number + 1)))
            flat = self.moments[:, own].reshape(len(self.moments), -1).astype(np.float64)
            result[:, number] = coefficients[:, own].reshape(3, -1) @ flat.T
        return result


def _clusters(edges: NumpyArray) -> tuple[NumpyArray, NumpyArray]:
    """Centres (C,) and half widths (C,), float32, between edges (C + 1,).

    They are rounded before anything is measured from them.
    """
    middles, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    return middles.astype(np.float32), (widths / 2).astype(np.float32)


def _series(powers: NumpyArray) -> NumpyArray:
    """The terms ``x^j / j!`` of exponentials of numbers (C,): (C, J)."""
    steps = np.arange(1, _TERMS)
    ones = np.ones((len(powers), 1))
    return np.concatenate((ones, np.cumprod(powers[:, None] / steps, axis=1)), axis=1)


def _moments_of(
    block: ValueBlock, upper: NumpyArray, width: float
) -> tuple[NumpyArray, NumpyArray]:
    """Edges (C + 1,) of clusters, which end with 0, and the moments (b, C, J) of some rows."""
    lowest = math.floor(float(block.values[:, 0].min()) / width) * width
    edges = np.union1d(np.arange(lowest, 0.0, width), upper[upper >= lowest])
    # The values are of single precision, and so is what they are compared with.
    single = np.unique(edges.astype(np.float32))
    edges = single.astype(np.float64)
    centres, halves = _clusters(edges)
    (rows, columns), clusters = block.values.shape, len(centres)
    begins = np.empty((rows, clusters), np.int64)
    for number, values in enumerate(block.values):
        begins[number] = values.searchsorted(single[:-1], side="right")
    begins[:, 0] = 0
    lengths = np.diff(begins, append=columns)
    begins += np.arange(rows)[:, None] * columns
    filled = np.flatnonzero(lengths)
    cluster, length = np.tile(np.arange(clusters), rows)[filled], lengths.reshape(-1)[filled]
    place = begins.reshape(-1)[filled]
    distance = block.values.reshape(-1) - centres[cluster].repeat(length)
    distance *= (1 / halves)[cluster].repeat(length)
    power = block.counts.reshape(-1).copy()
    moments = np.zeros((rows * clusters, _TERMS), np.float32)
    for number in range(_TERMS):
        moments[filled, number] = np.add.reduceat(power, place)
        power *= distance
    return edges, moments.reshape(rows, clusters, _TERMS)
