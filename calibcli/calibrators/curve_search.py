"""The piece of a curve that a score lies in: of one row by bisection, of many by a grid."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from calibcli.arrays import Array, NumpyArray, is_by_class, is_numpy_array, like, namespace
from calibcli.cached import cached_property

_GRID_FROM_ROWS = 64
"""Of fewer rows it takes longer to prepare a step of NumPy than to search."""

_BUCKETS_A_POINT = 8
"""Of a grid; so many leave few places in a bucket of several points."""

_MOST_BUCKETS = 1 << 20
"""From here on a grid is no longer in a processor's cache, and one bucket a point is enough."""

_SPARED = 64
"""Of so many points the outermost at either end are left to the outermost buckets."""

_FLAT = 1e-300
"""Times any number this is nothing, times infinity it is infinity: no bucket becomes NaN."""


class Cells:
    """The points of several curves, to find the cell of a place: the points that it lies between.

    Parameters
    ----------
    scores : float64 array (m,)
        Scores of the points, curve after curve, ascending within each.
    counts : float64 array (C,)
        Number of points of each curve.

    Attributes
    ----------
    begins, ends : int64 array (C,)
        Where each curve begins and ends in the scores.
    """

    def __init__(self, scores: NumpyArray, counts: NumpyArray) -> None:
        self.scores, self.ends = scores, np.cumsum(counts).astype(np.int64)
        self.begins = np.concatenate(([0], self.ends[:-1]))

    @cached_property
    def _plain(self) -> tuple[list[float], list[tuple[int, int]]]:
        """Scores, and second and last point of each curve, as Python's numbers."""
        spans = zip((self.begins + 1).tolist(), self.ends.tolist(), strict=True)
        return self.scores.tolist(), list(spans)

    def find(self, at: Array) -> tuple[Array, Array]:
        """The last point at or below each place, of the curve of its column.

        Parameters
        ----------
        at : float64 array (n, C)

        Returns
        -------
        low : int64 array (n, C)
            The first point of the curve where the place is below all.
        last : int64 array (C,)
            The last point of each curve.
        """
        if is_numpy_array(at):
            return self._find_on_host(at), self.ends - 1
        xp, scores = namespace(at), like(self.scores, at)
        low, high = (_whole(bound, at) for bound in (self.begins, self.ends))
        low, high = xp.broadcast_to(low, at.shape), xp.broadcast_to(high, at.shape)
        # Bisection in all cells at once, which runs on any device.
        for _ in range(int((self.ends - self.begins).max() - 1).bit_length()):
            middle = (low + high) // 2
            above = scores[middle] <= at
            low, high = xp.where(above, middle, low), xp.where(above, high, middle)
        return low, _whole(self.ends - 1, at)

    def find_row(self, places: list[float]) -> list[int]:
        """As `find` of a single row (C,), by Python's numbers.

        A call of NumPy's search takes longer than the search for one place.
        """
        scores, spans = self._plain
        return [
            bisect_right(scores, place, second, end) - 1
            for place, (second, end) in zip(places, spans, strict=True)
        ]

    def _find_on_host(self, at: NumpyArray) -> NumpyArray:
        if len(at) == 1:
            return np.array([self.find_row(at[0].tolist())])
        if len(at) >= _GRID_FROM_ROWS:
            return self._grid.find(at)
        low = np.empty(at.shape, np.int64, order="F")
        for k, (begin, end) in enumerate(zip(self.begins, self.ends, strict=True)):
            points = self.scores[begin + 1 : end]
            low[:, k] = begin + np.searchsorted(points, at[:, k], side="right")
        return low

    @cached_property
    def _grid(self) -> _Grid:
        return _grid_over(self.scores, self.begins, self.ends)


@dataclass(frozen=True, eq=False)
class _Grid:
    """Buckets of equal width over the scores of each curve.

    The bucket of a place is ``factor x + offset``, rounded down, between ``first`` and ``last``.
    However that rounds, it never falls while x rises, and a point's bucket is computed as a place's
    is: so points of earlier buckets lie below a place, those of later ones above it, and only those
    of its own bucket must be compared. The result is exact.

    Attributes
    ----------
    factor, offset, first, last : float64 array (C,)
    before : int64 array (buckets,)
        The last point of the curve before the bucket's own points.
    point : float64 array (buckets,)
        The score of the bucket's one point; NaN where it has none, which no place reaches, and
        ``-inf`` where it has several.
    steps : tuple of (int, float64 array (m,))
        For these: steps, halving, and the score that lies so many points ahead of each point; NaN
        where the curve has ended.
    """

    factor: NumpyArray
    offset: NumpyArray
    first: NumpyArray
    last: NumpyArray
    before: NumpyArray
    point: NumpyArray
    steps: tuple[tuple[int, NumpyArray], ...]

    def find(self, at: NumpyArray) -> NumpyArray:
        """As `Cells.find`, in host memory; of a place that is no number, any point."""
        turned = is_by_class(at)
        places = at.T if turned else np.ascontiguousarray(at)
        factor, offset, first, last = (
            each[:, None] if turned else each
            for each in (self.factor, self.offset, self.first, self.last)
        )
        with np.errstate(over="ignore", invalid="ignore"):
            number = places * factor
            number += offset
            np.maximum(number, first, out=number)
            np.minimum(number, last, out=number)
            bucket = number.astype(np.intp)
        low: NumpyArray = self.before.take(bucket, mode="clip")
        point = self.point.take(bucket, out=number, mode="clip")
        low += point <= places
        if self.steps:
            many = np.flatnonzero(point == -np.inf)
            before = self.before[bucket.reshape(-1)[many]]
            low.reshape(-1)[many] = self._among_many(before, places.reshape(-1)[many])
        return low.T if turned else low

    def _among_many(self, low: NumpyArray, places: NumpyArray) -> NumpyArray:
        for step, ahead in self.steps:
            low = low + step * (ahead[low] <= places)
        return low


def _grid_over(scores: NumpyArray, begins: NumpyArray, ends: NumpyArray) -> _Grid:
    """A grid over points as `Cells` has them.

    A curve's first point is none to search for: what lies below it has it as its last point too.
    """
    curve = np.repeat(np.arange(len(begins)), ends - begins)
    searched = np.ones(len(scores), bool)
    searched[begins] = False
    points, owner = scores[searched], curve[searched]
    counts = ends - begins - 1
    share = _BUCKETS_A_POINT if _BUCKETS_A_POINT * len(scores) <= _MOST_BUCKETS else 1
    buckets = np.maximum(counts * share, 1)
    first = (np.cumsum(buckets) - buckets).astype(np.float64)
    last = first + (buckets - 1)
    # A few points may lie far out, where the grid need not reach.
    apart = counts // _SPARED
    low = scores[np.minimum(begins + 1 + apart, ends - 1)]
    high = scores[np.maximum(ends - 1 - apart, begins)]
    # Without a width, or where that overflows, all is in the first bucket.
    with np.errstate(all="ignore"):
        factor = buckets / (high - low)
        offset = first - low * factor
        usable = np.isfinite(factor) & np.isfinite(offset)
        factor, offset = np.where(usable, factor, _FLAT), np.where(usable, offset, first)
        place = np.clip(points * factor[owner] + offset[owner], first[owner], last[owner])
    bucket = place.astype(np.intp)
    held = np.bincount(bucket, minlength=int(buckets.sum()))
    before = np.cumsum(held) - held + np.repeat(np.arange(len(begins)), buckets)
    point = np.full(len(held), np.nan)
    point[bucket] = points
    point[held > 1] = -np.inf
    most = int(held.max())
    powers = reversed(range(most.bit_length())) if most > 1 else ()
    steps = tuple((1 << power, _scores_ahead(scores, curve, 1 << power)) for power in powers)
    return _Grid(factor, offset, first, last, before, point, steps)


def _scores_ahead(scores: NumpyArray, curve: NumpyArray, step: int) -> NumpyArray:
    ahead: NumpyArray = np.full(len(scores), np.nan)
    same = curve[step:] == curve[:-step]
    ahead[:-step][same] = scores[step:][same]
    return ahead


def _whole(numbers: NumpyArray, array: Array) -> Array:
    """The whole numbers on the device of an array."""
    if is_numpy_array(array):
        return numbers
    xp = namespace(array)
    return xp.asarray(numbers, device=array.device)
