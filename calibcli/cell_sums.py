"""Sums by cell, of which most may be empty: a statistic that folds over blocks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from calibcli.arrays import NumpyArray

_LISTED = 4
"""Sums are listed while there are so many times as many cells."""


class Listed(NamedTuple):
    """Values of cells, with repetitions.

    Attributes
    ----------
    codes : int array (m,)
        Which cells.
    values : float64 array (m,) or None
        None where all are 1.
    """

    codes: NumpyArray
    values: NumpyArray | None


class CellSums(NamedTuple):
    """Sums by cell, where there are so many cells that a block may touch but a few of them.

    Attributes
    ----------
    size : int
        The number of cells.
    listed : tuple of Listed
        What the cells are the sums of, a piece of each block.
    sums : float64 array (size,) or None
        Those of all cells; ``listed`` is empty then.
    """

    size: int
    listed: tuple[Listed, ...]
    sums: NumpyArray | None = None

    @classmethod
    def of(cls, codes: NumpyArray, values: NumpyArray | None, size: int) -> CellSums:
        """The sums of values (m,), None for 1, of cells (m,), in the shorter form."""
        sums = cls(size, (Listed(codes, values),))
        return sums if len(codes) < size else cls(size, (), sums.everywhere())

    @property
    def is_listed(self) -> bool:
        """Whether these are not the sums of all cells."""
        return self.sums is None

    def and_also(self, codes: NumpyArray, values: NumpyArray) -> CellSums:
        """The same sums with more values (m,) of cells (m,) to them; takes over ``self``."""
        more = CellSums(self.size, (Listed(codes, values),))
        if not self.is_listed or self._counts:
            return self.plus(more)
        whole = _joined((*self.listed, *more.listed))
        return CellSums.of(whole.codes, whole.values, self.size)

    def plus(self, other: CellSums) -> CellSums:
        """The sums of both; takes over ``self``.

        They stay a list while that is short: all cells of a thousand classes are megabytes, which
        every block would go through for a few of them.
        """
        if self._stays_listed_with(other):
            return CellSums(self.size, self.listed + other.listed)
        sums = self.everywhere()
        if not other.is_listed:
            sums += other.everywhere()
        for codes, values in other.listed:
            np.add.at(sums, codes, 1.0 if values is None else values)
        return CellSums(self.size, (), sums)

    @property
    def _counts(self) -> bool:
        """Whether every value in the list is 1."""
        return self.listed[0].values is None

    def _stays_listed_with(self, other: CellSums) -> bool:
        if not self.is_listed or not other.is_listed or self._counts != other._counts:
            return False
        length = sum(len(piece.codes) for piece in self.listed + other.listed)
        return length * _LISTED < self.size

    def everywhere(self) -> NumpyArray:
        """The sums of all cells (size,), float64; their own memory where they are not listed."""
        if self.sums is not None:
            return self.sums
        codes, values = _joined(self.listed)
        # Counting gives integers.
        sums = np.bincount(codes, values, minlength=self.size)
        return sums.astype(np.float64, copy=False)


def _joined(pieces: tuple[Listed, ...]) -> Listed:
    """Several pieces as one."""
    if len(pieces) == 1:
        return pieces[0]
    values = [piece.values for piece in pieces if piece.values is not None]
    codes = np.concatenate([piece.codes for piece in pieces])
    return Listed(codes, np.concatenate(values) if values else None)
