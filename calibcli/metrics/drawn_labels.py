"""Labels drawn from the model's own probabilities: what a calibrated model would have seen.

A few sets of labels are drawn, one label a row and set, and what is summed over the rows is kept by
set and by bag of rows. A replicate takes, for each bag, one of the sets at random: with 8 sets and
32 bags there are 8^32 of them for the price of 8. So what a row's label moves together (a wrong row
is missing in one class and too many in another) moves together in the replicates, and rare events
stay as rare and as lumpy as they are.
"""

from __future__ import annotations

import numpy as np

from calibcli.arrays import Array, NumpyArray, hashed, is_by_class, namespace, to_numpy
from calibcli.metrics.view import View

DRAWN_BAGS = 32
_FEWEST_SETS, _MOST_SETS = 8, 16
_LABELS = 1 << 20
_SUMS = 1 << 19
_SEED_STEP = 0x9E3779B97F4A7C15


def number_of_sets(rows: int, sums: int) -> int:
    """How many sets of labels are drawn: 16 for few rows, at least 8.

    Parameters
    ----------
    rows : int
        Rows in all; every label costs time.
    sums : int
        Sums that are kept by set and bag; they cost memory.
    """
    affordable = min(_LABELS // max(rows, 1), _SUMS // (DRAWN_BAGS * max(sums, 1)))
    return min(max(affordable, _FEWEST_SETS), _MOST_SETS)


def bags_of_rows(view: View, seed: int) -> NumpyArray:
    """The bag of each row (n,), 0 to 31, by the number of the row."""
    return hashed(np.arange(view.start, view.start + len(view)), seed, DRAWN_BAGS)


def drawn_labels(view: View, seed: int, sets: int) -> NumpyArray:
    """Labels (sets, n), int64, drawn from the probabilities of a view; kept with it.

    What is drawn depends on the seed, the set, and the number and probabilities of the row, not on
    how the rows are cut: by inversion of one number in [0, 1) for each row and set. Of two models
    of the same rows the draws go together.
    """
    key = ("labels", seed, sets)
    if key not in view.kept:
        rows = np.arange(view.start, view.start + len(view))
        seeds = ((seed + (number + 1) * _SEED_STEP) % (1 << 64) for number in range(sets))
        numbers = np.array([hashed(rows, each, 1 << 53) for each in seeds])
        view.kept[key] = _inverted(view.probs, numbers.reshape(sets, len(rows)) * 2.0**-53)
    return view.kept[key]


def _inverted(probs: Array, shares: NumpyArray) -> NumpyArray:
    """The classes (sets, n) at which the cumulated probabilities (n, K) pass shares of their sum.

    Never a class of probability 0 unless rounding makes it so.
    """
    sets, (rows, classes) = len(shares), probs.shape
    if is_by_class(probs):
        labels = np.zeros((sets, rows), dtype=np.int64)
        cumulated = np.zeros(rows)
        for column in probs.T[:-1]:
            cumulated += column
            labels += cumulated <= shares
        return labels
    xp = namespace(probs)
    cumulated = to_numpy(xp.cumulative_sum(probs, axis=1))
    wanted = shares * cumulated[:, -1]
    # The first class whose sum is above what is wanted, by bisection in all rows at a time.
    low = np.zeros((sets, rows), dtype=np.int64)
    high = np.full((sets, rows), classes - 1)
    starts = np.arange(rows) * classes
    flat = np.ascontiguousarray(cumulated).ravel()
    for _ in range(max(classes - 1, 1).bit_length()):
        middle = (low + high) // 2
        above = flat[starts + middle] > wanted
        high = np.where(above, middle, high)
        low = np.where(above, low, np.minimum(middle + 1, high))
    return high


def picked_sets(sets: int, replicates: int, seed: int) -> NumpyArray:
    """How often each set and bag counts in each replicate (R, sets x bags): 0 or 1, float64."""
    bits = np.random.Philox(key=seed).random_raw(replicates * DRAWN_BAGS)
    choice = (bits % np.uint64(sets)).astype(np.intp).reshape(replicates, DRAWN_BAGS)
    picked = np.zeros((replicates, sets * DRAWN_BAGS))
    places = choice * DRAWN_BAGS + np.arange(DRAWN_BAGS)
    picked[np.arange(replicates)[:, None], places] = 1.0
    return picked
