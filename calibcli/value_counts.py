"""Rows of scores by value: the distinct scores of each row, and how often each of them occurs.

Half precision has few numbers. Of the 128,256 logits of a language model some 15,000 differ, of
bfloat16 some 3,000, so that sums over the classes of a row are sums over its distinct logits, each
times how often it occurs, in a fraction of the time. Counting takes no longer than converting the
row to single precision once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np

from calibcli.arrays import Array, NumpyArray, is_numpy_array, largest, pick

LEAST_CLASSES = 1 << 14
"""Classes from which on rows are counted: of fewer, half precision tells most apart."""

_BLOCK = 1 << 20
"""Scores whose distinct values are worked on at a time, so that they stay in a core's cache."""

_SIGN = 0x8000
"""The bit of the sign in half precision."""

_UPPER = 1 if sys.byteorder == "little" else 0
"""Which half of a number of single precision has its sign."""


class ValueBlock(NamedTuple):
    """Some rows by value.

    Attributes
    ----------
    rows : slice
        Which rows of the tile they are.
    values : array (b, D)
        The distinct scores of each row, ascending; a row that has fewer than D ends with its
        largest again and again.
    counts : array (b, D)
        How often each occurs; 0 for what only fills a row up.
    last : int array (b,)
        The place of each row's largest score.
    """

    rows: slice
    values: NumpyArray
    counts: NumpyArray
    last: NumpyArray


Step: TypeAlias = Callable[[ValueBlock], NumpyArray]
"""New values (b, D) of a block, ascending too, from its values and counts."""


class _Format(NamedTuple):
    """Half precision of a kind: the bits of infinity, and the float32 of each key (65536,)."""

    infinite: int
    values: NumpyArray


def _float16() -> _Format:
    keys = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        return _Format(0x7C00, _bits_of(keys).view(np.float16).astype(np.float32))


def _bfloat16() -> _Format:
    bits = _bits_of(np.arange(1 << 16, dtype=np.uint16)).astype(np.uint32)
    return _Format(0x7F80, (bits << np.uint32(16)).view(np.float32))


def are_bfloats(scores: NumpyArray) -> bool:
    """Whether scores (n, K) of single precision are all numbers that bfloat16 has."""
    if scores.dtype != np.float32 or not scores.flags.c_contiguous:
        return False
    # Of scores that are not, the first row tells it.
    parts = (scores[:1], scores[1:])
    return not any(np.bitwise_or.reduce(_halves(part, 1 - _UPPER), axis=None) for part in parts)


def is_brief(scores: Array) -> bool:
    """Whether scores (n, K), in host memory, can be counted: few differ, of very many classes."""
    if not is_numpy_array(scores) or scores.shape[1] < LEAST_CLASSES:
        return False
    return scores.dtype == np.float16 or are_bfloats(scores)


def _halves(scores: NumpyArray, which: int) -> NumpyArray:
    """The first or second half, uint16 (n, K), of the bytes of numbers of single precision."""
    halves: NumpyArray = scores.view(np.uint16)[:, which::2]
    return halves


def _stored_bits(scores: NumpyArray) -> NumpyArray:
    """The bits of half precision of scores (n, K): of float16, or of float32 as `are_bfloats`."""
    return scores.view(np.uint16) if scores.dtype == np.float16 else _halves(scores, _UPPER)


def _keys_of(bits: NumpyArray) -> NumpyArray:
    """Keys, uint16, of the bits of half precision: they are in the order of the numbers."""
    keys: NumpyArray = np.where(bits < _SIGN, bits + np.uint16(_SIGN), ~bits)
    return keys


def _bits_of(keys: NumpyArray) -> NumpyArray:
    """The bits, uint16, that keys stand for."""
    bits: NumpyArray = np.where(keys < _SIGN, ~keys, keys - np.uint16(_SIGN))
    return bits


_FORMATS = {"float16": _float16(), "float32": _bfloat16()}
"""By the type of the array that they are in."""


class _KeptBlock(NamedTuple):
    """As a `ValueBlock`, with keys (b, D), uint16, and counts of as few bytes as hold them."""

    rows: slice
    keys: NumpyArray
    counts: NumpyArray
    last: NumpyArray


@dataclass(frozen=True, eq=False)
class ValueCounts:
    """The distinct finite scores of rows of half precision, and how often each occurs.

    Classes that are impossible (``-inf``) are not counted.

    Attributes
    ----------
    top : int64 array (n,)
        The first class with the row's largest score.
    nbytes : int
        What it takes to keep them.
    """

    top: NumpyArray
    blocks: tuple[_KeptBlock, ...]

    @classmethod
    def of(cls, scores: NumpyArray) -> ValueCounts:
        """Of scores (n, K) of half precision, each row with one that is finite, and none NaN.

        They are float16, or float32 in which `are_bfloats`.
        """
        rows = max(_BLOCK // scores.shape[1], 1)
        bits, infinite = _stored_bits(scores), _FORMATS[scores.dtype.name].infinite
        top = np.empty(len(bits), np.int64)
        blocks = []
        for begin in range(0, len(bits), rows):
            part = slice(begin, min(begin + rows, len(bits)))
            counted = [_counted(row, infinite) for row in bits[part]]
            pairs = zip(counted, bits[part], strict=True)
            top[part] = [_first_of(int(keys[-1]), row) for (keys, _), row in pairs]
            blocks.append(_padded(part, counted))
        return cls(top, tuple(blocks))

    @property
    def nbytes(self) -> int:
        arrays = (array for block in self.blocks for array in block[1:])
        return self.top.nbytes + sum(array.nbytes for array in arrays)


def _counted(bits: NumpyArray, infinite: int) -> tuple[NumpyArray, NumpyArray]:
    """The keys of the distinct finite numbers of a row (K,), ascending, and their counts."""
    counts = np.bincount(bits, minlength=2 * _SIGN)
    # Of negative numbers those with larger bits are smaller.
    above, below = counts[:infinite], counts[_SIGN : _SIGN + infinite]
    (positive,), (negative,) = ((part > 0).nonzero() for part in (above, below))
    negative = negative[::-1]
    keys = np.concatenate((_SIGN - 1 - negative, _SIGN + positive))
    return keys, np.concatenate((below[negative], above[positive]))


def _first_of(key: int, bits: NumpyArray) -> int:
    """The first class of a row (K,) of bits whose number is that of a key; zeros are the same."""
    if key in (_SIGN - 1, _SIGN):
        return int((bits & np.uint16(_SIGN - 1) == 0).argmax())
    return int((bits == np.uint16(key - _SIGN if key >= _SIGN else 2 * _SIGN - 1 - key)).argmax())


def _padded(rows: slice, counted: Sequence[tuple[NumpyArray, NumpyArray]]) -> _KeptBlock:
    last = np.array([len(keys) - 1 for keys, _ in counted])
    shape = len(counted), int(last.max()) + 1
    most = max(int(counts.max()) for _, counts in counted)
    keys, counts = np.empty(shape, np.uint16), np.zeros(shape, np.min_scalar_type(most))
    for row, (own_keys, own_counts) in enumerate(counted):
        keys[row, : len(own_keys)], keys[row, len(own_keys) :] = own_keys, own_keys[-1]
        counts[row, : len(own_counts)] = own_counts
    return _KeptBlock(rows, keys, counts, last)


@dataclass(frozen=True, eq=False)
class CountedScores:
    """The scores (n, K) of some rows by value, as they are after some steps.

    A step makes new values of the distinct ones: equal scores of a row stay equal, and none
    overtakes another, though some may become equal.

    Parameters
    ----------
    kept : ValueCounts
    stored : float16 or float32 array (n, K)
        What was counted.
    steps : tuple of Step
    """

    kept: ValueCounts
    stored: NumpyArray
    steps: tuple[Step, ...] = ()

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def classes(self) -> int:
        """The number of classes K."""
        return int(self.stored.shape[1])

    @property
    def top(self) -> NumpyArray:
        """The first class (n,) with the largest score, before the steps."""
        return self.kept.top

    def after(self, *steps: Step) -> CountedScores:
        """The same rows after more steps."""
        return replace(self, steps=(*self.steps, *steps))

    def blocks(self) -> Iterator[ValueBlock]:
        """The rows, some at a time, in float32."""
        table = _FORMATS[self.stored.dtype.name].values
        for rows, keys, counts, last in self.kept.blocks:
            block = ValueBlock(rows, table.take(keys, mode="clip"), counts.astype(np.float32), last)
            for step in self.steps:
                block = block._replace(values=step(block))
            yield block

    def places(self, classes: NumpyArray) -> NumpyArray:
        """Where in its block's row the score of a class of each row (n,) is: int (n,).

        It must be finite.
        """
        sought = _keys_of(_stored_bits(self.stored)[np.arange(len(self)), classes])
        places = np.empty(len(self), np.int64)
        for block in self.kept.blocks:
            for number, keys in enumerate(block.keys, block.rows.start):
                places[number] = keys.searchsorted(sought[number])
        return places

    def at(self, classes: NumpyArray) -> NumpyArray:
        """The score (n,) of a class of each row (n,), which must be finite."""
        places = self.places(classes)
        parts = [pick(block.values, places[block.rows]) for block in self.blocks()]
        return np.concatenate(parts)

    def largest_of_rows(self, count: int) -> NumpyArray:
        """The largest scores of each row (n, m); ``-inf`` where fewer are finite."""
        top = np.full((len(self), min(count, self.classes)), -np.inf, np.float32)
        for rows, values, counts, last in self.blocks():
            for number, end in enumerate(last + 1):
                part = slice(max(end - count, 0), end)
                each = values[number, part].repeat(counts[number, part].astype(np.int64))[-count:]
                top[rows.start + number, : len(each)] = each
        return top

    def spread_out(self, rows: slice, values: NumpyArray) -> NumpyArray:
        """Values (b, D) of the rows of a block as a matrix (b, K); ``-inf`` as stored."""
        (block,) = (block for block in self.kept.blocks if block.rows == rows)
        matrix = np.empty((len(values), self.classes), values.dtype)
        table = np.full(2 * _SIGN, -np.inf, values.dtype)
        for number, row in enumerate(_stored_bits(self.stored)[rows]):
            table[_bits_of(block.keys[number])] = values[number]
            table.take(row, mode="clip", out=matrix[number])
        return matrix


def normalised(values: NumpyArray, counts: NumpyArray) -> NumpyArray:
    """Log-probabilities (b, D) of logits (b, D) that occur so often."""
    shifted: NumpyArray = values - largest(values)[:, None]
    total = np.log(np.vecdot(np.exp(shifted), counts))
    shifted -= total[:, None]
    return shifted


def log_softmax_by_value(scores: CountedScores) -> CountedScores:
    """Log-probabilities of logits by value."""
    return scores.after(_normalised)


def _normalised(block: ValueBlock) -> NumpyArray:
    return normalised(block.values, block.counts)
