"""Labels drawn from the model's own probabilities: what a calibrated model would have seen.

A few sets of labels are drawn, one label a row and set, and what is summed over the rows is kept by
set and by bag of rows. A replicate takes, for each bag, one of the sets at random: with 8 sets and
32 bags there are 8^32 of them for the price of 8. So what a row's label moves together (a wrong row
is missing in one class and too many in another) moves together in the replicates, and rare events
stay as rare and as lumpy as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from calibcli.arrays import NumpyArray, hashed, to_numpy
from calibcli.metrics.view import View

DRAWN_BAGS = 32
_FEWEST_SETS, _MOST_SETS = 8, 16
_LABELS = 1 << 20
_SUMS = 1 << 19
_FRACTION = 53


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


def drawn_labels(view: View, sets: int, seed: int) -> Iterator[NumpyArray]:
    """Sets of labels (n,), drawn from the probabilities of each row.

    What is drawn depends on the seed, the set, and the number and probabilities of the row, not on
    how the rows are cut. Of two models of the same rows the draws go together.
    """
    numbers = np.arange(view.start, view.start + len(view))
    probs = to_numpy(view.probs).astype(np.float64)
    if view.classes == 2:
        first = probs[:, 0]
        for index in range(sets):
            yield (_uniform(numbers, seed, index) >= first).astype(np.int64)
        return
    ends = np.cumsum(probs, axis=1)
    # One ascending vector for all rows; the last end is one row further, whatever rounding did.
    ends /= ends[:, -1:]
    starts = np.arange(len(view))
    flat = (ends + starts[:, None]).ravel()
    for index in range(sets):
        # An offset of some thousand rows costs 12 of the 53 bits.
        place = np.searchsorted(flat, _uniform(numbers, seed, index) + starts, side="right")
        yield np.clip(place - starts * view.classes, 0, view.classes - 1)


def picked_sets(sets: int, replicates: int, seed: int) -> NumpyArray:
    """How often each set and bag counts in each replicate (R, sets x bags): 0 or 1, float64."""
    bits = np.random.Philox(key=seed).random_raw(replicates * DRAWN_BAGS)
    choice = (bits % np.uint64(sets)).astype(np.intp).reshape(replicates, DRAWN_BAGS)
    picked = np.zeros((replicates, sets * DRAWN_BAGS))
    places = choice * DRAWN_BAGS + np.arange(DRAWN_BAGS)
    picked[np.arange(replicates)[:, None], places] = 1.0
    return picked


def _uniform(numbers: NumpyArray, seed: int, index: int) -> NumpyArray:
    """Numbers in [0, 1), one for each row number (n,)."""
    key = (seed * (_MOST_SETS + 1) + index + 1) % (1 << 63)
    uniform: NumpyArray = hashed(numbers, key, 1 << _FRACTION) * 2.0**-_FRACTION
    return uniform
