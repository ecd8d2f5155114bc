"""Sums by cell, of which most may be empty: a statistic that folds over blocks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray

_LISTED = 4
"""Sums are listed while there are so many times as many cells."""


class CellSums(NamedTuple):
    """Sums by cell, where there are so many cells that a block may touch but a few of them.

    Attributes
    ----------
    size : int
        The number of cells.
    codes : int array (m,) or None
        Which cells ``sums`` is about, with repetitions; None: all of them, in order.
    sums : float64 array (m,) or (size,), or None
        None where all (m,) are 1.
    """

    size: int
    codes: NumpyArray | None
    sums: NumpyArray | None

    @classmethod
    def of(cls, codes: NumpyArray, values: NumpyArray | None, size: int) -> CellSums:
        """The sums of values (m,), None for 1, of cells (m,), in the shorter form."""
        listed = cls(size, codes, values)
        return listed if len(codes) < size else cls(size, None, listed.everywhere())

    def and_also(self, codes: NumpyArray, values: NumpyArray) -> CellSums:
        """The same sums with more values (m,) of cells (m,) to them; takes over ``self``."""
        if self.codes is None or self.sums is None:
            return self.plus(CellSums(self.size, codes, values))
        return CellSums.of(np.append(self.codes, codes), np.append(self.sums, values), self.size)

    def plus(self, other: CellSums) -> CellSums:
        """The sums of both; takes over ``self``.

        They stay a list while that is short: all cells of a thousand classes are megabytes, which
        every block would go through for a few of them.
        """
        if self._stays_listed_with(other):
            assert self.codes is not None
            assert other.codes is not None
            both = None
            if self.sums is not None and other.sums is not None:
                both = np.append(self.sums, other.sums)
            return CellSums(self.size, np.append(self.codes, other.codes), both)
        sums = self.everywhere()
        if other.codes is None:
            sums += other.everywhere()
        else:
            np.add.at(sums, other.codes, 1.0 if other.sums is None else other.sums)
        return CellSums(self.size, None, sums)

    def _stays_listed_with(self, other: CellSums) -> bool:
        if self.codes is None or other.codes is None or (self.sums is None) != (other.sums is None):
            return False
        return (len(self.codes) + len(other.codes)) * _LISTED < self.size

    def everywhere(self) -> NumpyArray:
        """The sums of all cells (size,), float64; its own memory where ``codes`` is None."""
        if self.codes is None:
            assert self.sums is not None
            return self.sums
        # Counting gives integers.
        sums = np.bincount(self.codes, self.sums, minlength=self.size)
        return sums.astype(np.float64, copy=False)
