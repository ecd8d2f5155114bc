"""Which rows are held out together: the one place that shares rows out to folds and splits.

A row goes to a fold by the seed and its number, so that chunks, files and threads have no part in
it. Rows that belong together (of a patient, a document, a user) go together, by the number of
their cluster: a fit that has seen some rows of a patient has seen the patient, and looks better on
the others than on new ones. Where rows could be split in several ways, the cluster decides.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from calibcli.arrays import NumpyArray, hashed
from calibcli.cached import cached_property
from calibcli.engine.source import Keys

CLUSTER = "cluster"
"""Role of the key column whose groups of rows are held out, and resampled, as a whole."""

_JITTER_SEED = 15_485_863
_JITTER = 1 << 32


class NumberedRows(Protocol):
    """Consecutive rows with their numbers and keys: a chunk or a tile."""

    @property
    def start(self) -> int: ...
    @property
    def keys(self) -> Keys | None: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Folds:
    """The fold, 0 to ``count - 1``, of every row.

    Parameters
    ----------
    count : int
    seed : int
    of_cluster : int array (C,) or None
        The fold of each cluster, see `share_out`; None where every row goes by itself.
    """

    count: int = 1
    seed: int = 0
    of_cluster: NumpyArray | None = None

    def of(self, rows: NumberedRows) -> NumpyArray:
        """The fold of each row (n,) of a chunk or tile."""
        return self.at(np.arange(rows.start, rows.start + len(rows)), rows.keys)

    def at(self, numbers: NumpyArray, keys: Keys | None = None) -> NumpyArray:
        """The fold of each row (n,) by the rows' numbers (n,) and keys."""
        if self.of_cluster is None:
            return hashed(numbers, self.seed, self.count)
        assert keys is not None
        folds: NumpyArray = self.of_cluster[keys[CLUSTER]]
        return folds

    def unit_of(self, rows: NumberedRows, most: int) -> NumpyArray:
        """A number below ``most`` for each row (n,), the same for rows that go together.

        Sums by fold and by this number vary as those of independent units do.
        """
        if self.of_cluster is None:
            return np.arange(rows.start, rows.start + len(rows)) % most
        assert rows.keys is not None
        units: NumpyArray = self._ranks[rows.keys[CLUSTER]] % most
        return units

    def filled_units(self, most: int) -> NumpyArray:
        """Which of the numbers of `unit_of` rows may have, by fold: bool (count, most)."""
        if self.of_cluster is None:
            return np.ones((self.count, most), bool)
        cells = self.of_cluster * most + self._ranks % most
        return np.bincount(cells, minlength=self.count * most).reshape(self.count, most) > 0

    @cached_property
    def _ranks(self) -> NumpyArray:
        """The number of each cluster (C,) within its fold, from 0 on."""
        assert self.of_cluster is not None
        order = np.argsort(self.of_cluster, kind="stable")
        sizes = np.bincount(self.of_cluster, minlength=self.count)
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return ranks


@dataclass(frozen=True)
class Subset:
    """The rows of one fold, or all others.

    Parameters
    ----------
    split : Folds
    fold : int
    inside : bool
        Whether the rows of the fold are meant, rather than the others.
    """

    split: Folds
    fold: int
    inside: bool = False

    def chosen(self, rows: NumberedRows) -> NumpyArray:
        """Whether each row (n,) of a chunk or tile belongs to the part."""
        inside: NumpyArray = self.split.of(rows) == self.fold
        return inside if self.inside else ~inside


def share_out(weights: NumpyArray, count: int, seed: int) -> NumpyArray:
    """A fold, 0 to ``count - 1``, for each cluster (C,), so that folds weigh about the same.

    From the largest cluster to the smallest, each goes to the fold that is lightest (Graham, SIAM
    J. Appl. Math. 1969). Sizes are first multiplied by 1 to 2, by the seed, so that seeds differ.

    Parameters
    ----------
    weights : float64 array (C,)
        Of the rows of each cluster.
    """
    noise = hashed(np.arange(len(weights)), seed + _JITTER_SEED, _JITTER) / _JITTER
    order = np.argsort(-weights * 2.0**noise, kind="stable")
    folds = np.empty(len(weights), np.int64)
    # Of folds that weigh the same, that with the fewest clusters: some weigh nothing.
    loads = [(0.0, 0, fold) for fold in range(count)]
    for cluster, weight in zip(order.tolist(), weights[order].tolist(), strict=True):
        load, clusters, fold = loads[0]
        heapq.heapreplace(loads, (load + weight, clusters + 1, fold))
        folds[cluster] = fold
    return folds
