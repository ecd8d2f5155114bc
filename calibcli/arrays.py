"""Softmax and friends for any array library that follows the Python array API standard.

Every function takes arrays whose last axis is the class axis, works in the array's own
precision and on its own device, and allocates nothing but its result and one temporary.
Classes with logit ``-inf`` are impossible: their probability is exactly 0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from array_api_compat import array_namespace as _array_namespace
from array_api_compat import is_torch_array as _is_torch_array

from calibcli.errors import UsageError

Array: TypeAlias = Any
"""An array of any library: NumPy's, a torch tensor, or another with an array API namespace.

What takes one works in the array's own precision and on its own device.
"""

NumpyArray: TypeAlias = np.ndarray[Any, Any]
"""A NumPy array, in host memory. Docstrings give its shape, and its type where that matters."""

InputKind: TypeAlias = Literal["logits", "log-probs", "probs"]
"""What a row of scores holds."""

LARGEST_LOGIT = 1e15
"""Larger ones no model gives, and their squares overflow; a mask of -1e9 is far below it."""

SMALLEST_PROBABILITY = 1e-12
"""Stored probabilities of 0 are read as this: 0 in a file is most often a rounded small number."""


def known_kind(name: str) -> InputKind:
    """The kind of scores of a name."""
    for kind in ("logits", "log-probs", "probs"):
        if name == kind:
            return kind
    raise UsageError(f"input {name!r} is not known; use logits, log-probs or probs")


def namespace(array: Array) -> Any:
    """The array API namespace of an array."""
    # NumPy 2 follows the standard by itself. The common case is decided without the general
    # search, since this runs with every operation on every block.
    return np if type(array) is np.ndarray else _array_namespace(array)


def is_numpy_array(array: Array) -> bool:
    """Whether the array is NumPy's."""
    return isinstance(array, np.ndarray)


def to_numpy(array: Array) -> NumpyArray:
    """The array in host memory, as NumPy, without a copy where it is there already."""
    if is_numpy_array(array):
        return np.asarray(array)
    return np.asarray(array.detach().cpu())


def wide_values(scores: Array) -> NumpyArray:
    """The values (n,) as float64, whatever they are: a NaN that signals gives no warning."""
    with np.errstate(invalid="ignore"):
        values: NumpyArray = to_numpy(scores).astype(np.float64)
    return values


def host_weights(labels: Array, weights: Array | None) -> NumpyArray:
    """Row weights (n,), float64, in host memory; ones where there are none."""
    return np.ones(len(labels)) if weights is None else to_numpy(weights)


def shift(logits: Array) -> Array:
    """Logits (n, K) minus their row maximum, so that nothing overflows when exponentiated."""
    if is_single_row(logits):
        return logits - logits[0, logits.argmax(), ...]
    return logits - largest(logits)[:, None]


def is_single_row(matrix: Array) -> bool:
    """Whether a matrix (n, K) is one row of NumPy's, as a service has it.

    Its numbers take less time than NumPy's way to them: finding out that a function has no other
    library to call, setting up a reduction along an axis, broadcasting a column. What a service
    computes avoids these for a single row, by methods and by numbers as arrays without an axis.
    """
    return type(matrix) is np.ndarray and matrix.shape[:-1] == (1,)


def greatest(values: NumpyArray) -> float:
    """The largest of all values; NaN if one is NaN."""
    if values.size <= _FEW_VALUES:
        return float(values.item(values.argmax()))
    return float(np.maximum.reduce(values, axis=None))


def least(values: NumpyArray) -> float:
    """The smallest of all values; NaN if one is NaN."""
    if values.size <= _FEW_VALUES:
        return float(values.item(values.argmin()))
    return float(np.minimum.reduce(values, axis=None))


_FEW_VALUES = 256
"""So many are searched for their place in less time than a reduction takes to begin."""


def largest(matrix: Array) -> Array:
    """The largest element of each row: (n, K) -> (n,)."""
    if is_numpy_array(matrix):
        # Of a single row, `np.max` takes twice as long to find out that it calls this.
        return np.maximum.reduce(matrix, axis=-1)
    return namespace(matrix).max(matrix, axis=-1)


def is_any(mask: Array) -> bool:
    """Whether any element of a mask is true, for branches that take a shorter way where none is.

    Where there are no rows yet, as for an export, the answer is yes: the longer way must be right
    for all rows.
    """
    if is_numpy_array(mask):
        return bool(np.logical_or.reduce(mask, axis=None))
    return bool(namespace(mask).any(mask))


def positive_affine(matrix: Array, factor: Array | float, offset: Array | float) -> Array:
    """``max(factor x + offset, 0)`` of each element x of a matrix (n, ...), in its own memory."""
    if _is_torch_array(matrix):
        matrix *= factor
        matrix += offset
        return matrix.clamp_(min=0)
    # A maximum with 0 is four times slower than this.
    matrix *= factor / 2
    matrix += offset / 2
    matrix += namespace(matrix).abs(matrix)
    return matrix


def where_below(matrix: Array, bound: Array) -> Array:
    """1 where a matrix (n, K) is below a bound (n, 1), else 0, in its own precision."""
    if _is_torch_array(matrix):
        return (bound - matrix).clamp_(min=0).sign_()  # A comparison takes three times as long.
    return namespace(matrix).astype(matrix < bound, matrix.dtype)


def where_above(matrix: Array, bound: float) -> Array:
    """1 where a matrix (n, K) is above a bound, else 0, in its own precision."""
    if _is_torch_array(matrix):
        return (matrix - bound).clamp_(min=0).sign_()
    return namespace(matrix).astype(matrix > bound, matrix.dtype)


def at_least(values: Array, low: float) -> Array:
    """Values, those below ``low`` replaced by it; NaN stays NaN."""
    return np.maximum(values, low) if is_numpy_array(values) else _clip(values, low, None)


def within(values: Array, low: float, high: float) -> Array:
    """Values, those outside of ``low`` to ``high`` replaced by the nearer end; NaN stays NaN."""
    if is_numpy_array(values):
        return np.minimum(np.maximum(values, low), high)
    return _clip(values, low, high)


def bring_within(values: Array, low: float, high: float) -> Array:
    """As `within`, in the memory of the values where their library can."""
    if is_numpy_array(values):
        return np.minimum(np.maximum(values, low, out=values), high, out=values)
    return _clip(values, low, high)


def _clip(values: Array, low: float | None, high: float | None) -> Array:
    return namespace(values).clip(values, min=low, max=high)


def log_softmax(logits: Array) -> Array:
    """Log-probabilities (n, K) of logits (n, K)."""
    xp = namespace(logits)
    shifted = shift(logits)
    total = xp.log(sum_classes(xp.exp(shifted)))
    shifted -= total[0, ...] if is_single_row(logits) else total[:, None]
    return shifted


def softmax(logits: Array) -> Array:
    """Probabilities (n, K) of logits (n, K)."""
    if _is_torch_array(logits):
        return logits.softmax(dim=-1)
    exponentials = exp_in_place(shift(logits))
    total = sum_classes(exponentials)
    exponentials /= total[0, ...] if is_single_row(logits) else total[:, None]
    return exponentials


def scaled_exponentials(logits: Array) -> tuple[Array, Array | float, Array]:
    """Exponentials of logits (n, K), each row times a factor.

    Returns
    -------
    exponentials : array (n, K)
        A new matrix.
    top : array (n,) or float
        The largest of each row. Torch makes probabilities, in one pass over memory, which is faster
        than exponentials alone; with other libraries the largest is 1.
    high : array (n,)
        The largest logit of each row.
    """
    high = largest(logits)
    if _is_torch_array(logits):
        probs = logits.softmax(dim=-1)
        return probs, largest(probs), high
    return exp_in_place(logits - high[:, None]), 1.0, high


def exp_in_place(values: Array) -> Array:
    """The exponential of each value, in the memory of the values where their library can."""
    return np.exp(values, out=values) if is_numpy_array(values) else namespace(values).exp(values)


def log_in_place(values: Array) -> Array:
    """The logarithm of each value, in the memory of the values where their library can."""
    return np.log(values, out=values) if is_numpy_array(values) else namespace(values).log(values)


def dot_classes(left: Array, right: Array) -> Array:
    """Sum over the classes of the product of two matrices (n, K): (n,)."""
    if _has_rows(left) and _has_rows(right):
        return np.vecdot(left, right)
    if left is right and _is_torch_array(left):
        return sum_squares(left)
    return namespace(left).sum(left * right, axis=-1)


def sum_squares(matrix: Array) -> Array:
    """Sum over the classes of the squares of a matrix (n, K): (n,)."""
    if _is_torch_array(matrix):
        # A norm needs no matrix of squares.
        return namespace(matrix).linalg.vector_norm(matrix, axis=-1) ** 2
    return sum_classes(matrix**2)


def sum_classes(matrix: Array) -> Array:
    """Sum over the classes of a matrix (n, K): (n,)."""
    if is_single_row(matrix):
        return matrix.dot(_ones(matrix.shape[1], matrix.dtype))
    if _has_rows(matrix):
        # The dot product with ones runs three times as fast as NumPy's sum over a last axis.
        return np.vecdot(matrix, _ones(matrix.shape[-1], matrix.dtype))
    return namespace(matrix).sum(matrix, axis=-1)


@lru_cache(maxsize=64)
def _ones(count: int, dtype: Any) -> NumpyArray:
    ones = np.ones(count, dtype)
    ones.flags.writeable = False
    return ones


def is_by_class(matrix: Array) -> bool:
    """Whether each class lies in contiguous host memory, as in tiles of few classes."""
    return is_numpy_array(matrix) and bool(matrix.flags.f_contiguous and not _has_rows(matrix))


def _has_rows(matrix: Array) -> bool:
    """Whether each row lies in contiguous host memory, so that a dot product runs along it."""
    return is_numpy_array(matrix) and bool(matrix.flags.c_contiguous)


def pick(matrix: Array, labels: Array) -> Array:
    """Element ``matrix[i, labels[i]]`` of each row: (n, K), (n,) -> (n,)."""
    return matrix[_row_numbers(matrix), labels]


def subtract_one_hot(matrix: Array, labels: Array) -> Array:
    """Subtract 1 at ``[i, labels[i]]``, in place, and return the matrix (n, K)."""
    matrix[_row_numbers(matrix), labels] -= 1
    return matrix


def put(matrix: Array, labels: Array, values: Array | float) -> Array:
    """Set the elements ``[i, labels[i]]``, in place, and return the matrix (n, K)."""
    rows = 0 if is_single_row(matrix) else _row_numbers(matrix)
    matrix[rows, labels] = values
    return matrix


def _row_numbers(matrix: Array) -> Array:
    if is_numpy_array(matrix):
        return np.arange(matrix.shape[0])
    return namespace(matrix).arange(matrix.shape[0], device=matrix.device)


def argmax(matrix: Array) -> Array:
    """The first of each row's largest elements: (n, K) -> (n,), int64."""
    if is_single_row(matrix):
        return matrix.argmax(axis=-1)
    xp = namespace(matrix)
    if is_by_class(matrix):
        few = matrix.shape[1] <= _FEW_CLASSES
        return _argmax_by_class(matrix) if few else _argmax_by_place(matrix)
    if _is_torch_array(matrix) and matrix.is_cpu and matrix.shape[1] >= _MANY_CLASSES:
        # In the same memory NumPy takes a twentieth of torch's time.
        return xp.from_numpy(np.from_dlpack(matrix.detach()).argmax(axis=-1))
    return xp.argmax(matrix, axis=-1)


_FEW_CLASSES = 32
_MANY_CLASSES = 64


def _argmax_by_class(matrix: NumpyArray) -> NumpyArray:
    """`argmax` where classes are contiguous: NumPy's own is 10 times slower at 10 classes."""
    classes = matrix.shape[1]
    largest = matrix.max(axis=1)
    # Larger the earlier the largest class is; of a row of NaN, as of the last class.
    rank = np.ones(len(matrix), dtype=np.uint8)
    for k in range(classes):
        is_largest = (matrix[:, k] == largest).view(np.uint8)
        np.maximum(rank, is_largest * np.uint8(classes - k), out=rank)
    first: NumpyArray = np.int64(classes) - rank
    return first


def _argmax_by_place(matrix: NumpyArray) -> NumpyArray:
    """`argmax` where classes are contiguous: the places of the largest, as they lie in memory."""
    rows = len(matrix)
    places = np.flatnonzero((matrix == matrix.max(axis=1)[:, None]).T)
    # From the last to the first: what is written last stays.
    classes, row_numbers = np.divmod(places[::-1], max(rows, 1))
    first: NumpyArray = np.zeros(rows, np.int64)
    first[row_numbers] = classes
    return first


def scores_to_logits(scores: Array, kind: InputKind) -> Array:
    """Logits (n, K) from stored scores (n, C), C = K or, for two classes, C = 1.

    One column is the score of class 1: logits become (0, z), probabilities (1 - p, p). Zero
    probabilities are read as `SMALLEST_PROBABILITY`, negative ones as NaN. float16 becomes float32.
    """
    xp = namespace(scores)
    if scores.dtype == xp.float16:
        scores = single_precision(scores)
    if scores.shape[-1] == 1:
        if kind == "probs":
            scores = xp.concat([1 - scores, scores], axis=-1)
        elif kind == "logits":
            scores = xp.concat([xp.zeros_like(scores), scores], axis=-1)
        else:
            scores = xp.concat([xp.log(-xp.expm1(scores)), scores], axis=-1)
    if kind == "probs":
        floored = xp.log(xp.clip(scores, min=SMALLEST_PROBABILITY))
        return xp.where(scores >= 0, floored, like(xp.nan, scores))
    return scores


_HALF_BLOCK = 1 << 16
"""Numbers that are converted at a time, so that every step finds them in the cache."""

_HALF_BIAS = np.int32((127 - 15) << 23)
"""What the exponent of a number of single precision has more than one of half precision."""

_LEAST_NORMAL_HALF, _INFINITE_HALF = np.uint16(0x0400), np.uint16(0x7C00)
"""The bits of the smallest number of half precision that has all digits, and of infinity."""


_NEGATIVE_INFINITY = 0xFC00
"""The bits of the least number of half precision; of numbers they are less, of NaN more."""


def are_finite_halves(scores: Array) -> bool:
    """Whether scores (n, C) are of half precision, float16 in host memory, and finite.

    By their bits: NumPy takes ten times as long to compare such numbers. A sign comes first, and
    then the bits are in the order of sizes.
    """
    if not is_numpy_array(scores) or scores.dtype != np.float16:
        return False
    bits = scores.view(np.uint16)
    largest_signed = bits.view(np.int16).max(initial=0)
    return bool(bits.max(initial=0) < _NEGATIVE_INFINITY and largest_signed < _INFINITE_HALF)


def single_precision(halves: Array) -> Array:
    """Numbers of half precision, float16, as float32; the same numbers to the last bit.

    NumPy converts one number after the other. Moving the bits of many at once takes a tenth of the
    time, no more than reading and writing them.
    """
    if not is_numpy_array(halves):
        xp = namespace(halves)
        return xp.astype(halves, xp.float32)
    order: Literal["C", "F"] = "F" if is_by_class(halves) else "C"
    result = np.empty(halves.shape, np.float32, order)
    source = np.ascontiguousarray(halves.T if order == "F" else halves, "=f2").reshape(-1)
    target = (result.T if order == "F" else result).reshape(-1)
    for begin in range(0, len(source), _HALF_BLOCK):
        part = slice(begin, begin + _HALF_BLOCK)
        _convert_halves(source[part], target[part])
    return result


def _convert_halves(source: NumpyArray, target: NumpyArray) -> None:
    """Convert float16 (n,) into float32 (n,)."""
    bits = target.view(np.int32)
    # The sign goes to the top with all bits between it and the exponent, which are cleared.
    np.left_shift(source.view(np.int16), 13, out=bits, dtype=np.int32)
    np.bitwise_and(bits, np.int32(~0x70000000), out=bits)
    bits += _HALF_BIAS
    size = source.view(np.uint16) & np.uint16(0x7FFF)
    if size.max(initial=0) >= _INFINITE_HALF:
        places = np.flatnonzero(size >= _INFINITE_HALF)
        target[places] = source[places]
    if size.min(initial=_INFINITE_HALF) < _LEAST_NORMAL_HALF:
        is_small = size < _LEAST_NORMAL_HALF
        if np.count_nonzero(is_small) < len(source) // 16:
            places = np.flatnonzero(is_small)
            target[places] = _without_leading_digit(target[places])
        else:
            np.copyto(target, _without_leading_digit(target), where=is_small)


def _without_leading_digit(numbers: NumpyArray) -> NumpyArray:
    """What was read as ``(1 + x) 2^-15`` as ``x 2^-14``, of either sign; 0 keeps its sign."""
    restored: NumpyArray = np.copysign(
        np.abs(numbers) * np.float32(2) - np.float32(2.0**-14), numbers
    )
    return restored


def like(values: Any, array: Array) -> Array:
    """Values as an array of the same library, precision and device as another."""
    if is_numpy_array(array):
        return np.asarray(values, dtype=array.dtype)
    xp = namespace(array)
    return xp.asarray(np.asarray(values), dtype=array.dtype, device=array.device)


def sum_rows(matrix: Array) -> NumpyArray:
    """Sum over the rows of a block (n, ...), as a float64 NumPy array (...).

    Blocks on the CPU are short enough for a sum in their own precision.
    """
    xp = namespace(matrix)
    dtype = None if is_numpy_array(matrix) else xp.float64
    return to_numpy(xp.sum(matrix, axis=0, dtype=dtype)).astype(np.float64)


def sum_products(left: Array, right: Array) -> NumpyArray:
    """Sum over the rows of the products of two matrices (n, K), as a float64 NumPy array (K,)."""
    if is_numpy_array(left):
        sums: NumpyArray = np.einsum("ij,ij->j", left, right).astype(np.float64)
        return sums
    return sum_rows(left * right)


def weighted_sum(values: Array, weights: Array | None) -> float:
    """Sum of values (n,) times weights (n,), in float64."""
    xp = namespace(values)
    values = xp.astype(values, xp.float64)
    return float(xp.sum(values if weights is None else values * weights))


def impossible_classes(logits: Array) -> Array | None:
    """Mask (n, K) of the impossible classes; None where there are none."""
    if is_numpy_array(logits):
        return None if least(logits) > -np.inf else np.isinf(logits)
    xp = namespace(logits)
    return xp.isinf(logits) if is_any(~(xp.min(logits) > -xp.inf)) else None


def split_impossible(logits: Array) -> tuple[Array, Array | None]:
    """Finite logits and a mask (n, K) of the impossible classes, None where there are none.

    An impossible class gets the row's smallest finite logit, so that maps that mix classes see a
    number; what they make of it is put back to ``-inf`` by `restore_impossible`.
    """
    mask = impossible_classes(logits)
    if mask is None:
        return logits, None
    xp = namespace(logits)
    lowest = xp.min(xp.where(mask, like(xp.inf, logits), logits), axis=-1, keepdims=True)
    return xp.where(mask, lowest, logits), mask


def restore_impossible(logits: Array, mask: Array | None) -> Array:
    """Logits with ``-inf`` where the mask says so."""
    if mask is None:
        return logits
    return namespace(logits).where(mask, like(-np.inf, logits), logits)


def hashed(numbers: NumpyArray, seed: int, buckets: int) -> NumpyArray:
    """A bucket, 0 to ``buckets - 1``, for each number (n,): the same for the same number and seed.

    A counter-based generator (SplitMix64: Steele, Lea and Flood, 2014), so that what is drawn for a
    row depends on nothing but its number.
    """
    with np.errstate(over="ignore"):
        state = numbers.astype(np.uint64)
        state += np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(1)
        state *= np.uint64(0x9E3779B97F4A7C15)
        state ^= state >> np.uint64(30)
        state *= np.uint64(0xBF58476D1CE4E5B9)
        state ^= state >> np.uint64(27)
        state *= np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state % np.uint64(buckets)).astype(np.int64)
