"""Piecewise linear functions of every element of a matrix, linear in their slopes; their knots."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from threading import local

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    is_numpy_array,
    namespace,
    sum_classes,
    sum_rows,
    weighted_sum,
)
from calibcli.cached import cached_property
from calibcli.calibrators.curvature import KeptWork, PreparedRows
from calibcli.calibrators.parameters import Parameters
from calibcli.calibrators.value_moments import ValueMoments

_FARTHEST_KNOT, _CLOSEST_KNOTS, _MOST_KNOTS = 1e16, 1e-12, 255
"""Between such knots, widths neither overflow nor vanish in float32, and a byte counts them."""

_LEAST_LEADING = 1e-30
"""Sums of exponentials below that have not all digits of single precision, or are 0."""


def piecewise_linear(knots: NumpyArray, slopes: NumpyArray, values: Array) -> Array:
    """The function that is 0 at 0 and has these slopes (m + 1,) between the knots (m,).

    >>> piecewise_linear(np.array([-1.0]), np.array([0.5, 2.0]), np.array([[-3.0, -1.0, 0.0]]))
    array([[-3., -2.,  0.]])
    """
    if is_numpy_array(values):
        return _pieces_of(knots, values).apply(slopes)
    xp = namespace(values)
    result = values * float(slopes[-1])
    for knot, change in zip(knots, np.diff(slopes), strict=True):
        if change != 0:
            result -= float(change) * xp.clip(values - float(knot), max=0.0)
    return result


def reach_of_pieces(knots: NumpyArray, slopes: NumpyArray, bound: float) -> float:
    """How large `piecewise_linear`, and what it adds up, can be for values of up to a bound."""
    farthest = bound + float(np.abs(knots).max(initial=0.0))
    return 3 * float(np.abs(slopes).max()) * farthest


def pull_slopes(knots: NumpyArray, values: Array, gradient: Array) -> NumpyArray:
    """Sums (m + 1,) of a gradient (n, K) times the derivatives of `piecewise_linear` by slopes."""
    if is_numpy_array(values):
        return _pieces_of(knots, values).pullback(gradient)
    rows = [sum_rows(sum_classes(gradient * move)) for move in _moves(knots, values)]
    return np.array(rows)


def likelihood_hessian(
    knots: NumpyArray, values: Array, probs: Array, weights: Array | None
) -> NumpyArray:
    """Sum of ``J' (diag p - p p') J`` (m + 1, m + 1) over rows; J is the derivative by slopes."""
    if is_numpy_array(values):
        return _pieces_of(knots, values).likelihood_hessian(probs, weights)
    moves = list(_moves(knots, values))
    hessian = np.empty((len(moves), len(moves)))
    for i, move in enumerate(moves):
        product = probs * move
        product -= probs * sum_classes(product)[:, None]
        for j in range(i + 1):
            rows = sum_classes(product * moves[j])
            hessian[i, j] = hessian[j, i] = weighted_sum(rows, weights)
    return hessian


def derivatives_by_slopes(knots: NumpyArray, values: Array) -> Iterator[Array]:
    """The derivatives (n, K) of `piecewise_linear` by one slope after the other."""
    lower, upper = np.append(-np.inf, knots), np.append(knots, 0.0)
    xp = namespace(values)
    for low, high in zip(lower.tolist(), upper.tolist(), strict=True):
        # The last piece goes on beyond 0, where only rounding leads.
        move = xp.clip(values, low, None if high == 0 else high)
        move -= high
        yield move


def _moves(knots: NumpyArray, values: Array) -> Iterator[Array]:
    """The derivatives (n, K) by one slope after the other."""
    return (piecewise_linear(knots, unit, values) for unit in np.eye(len(knots) + 1))


_LAST = local()
"""Of each thread the pieces that were asked for last: a block is mapped and then pulled back."""


def _pieces_of(knots: NumpyArray, values: NumpyArray) -> Pieces:
    """The pieces of an array, which are those of before if it is the same array."""
    if not _is_last(knots, values):
        _LAST.pieces = Pieces(knots, values)
    last: Pieces = _LAST.pieces
    return last


def _is_last(knots: NumpyArray, values: NumpyArray) -> bool:
    last: Pieces | None = getattr(_LAST, "pieces", None)
    return last is not None and last.values is values and np.array_equal(last.knots, knots)


class KeptPieces(KeptWork):
    """The pieces of the elements (n, K) of some rows, a byte each, for passes to come.

    Parameters
    ----------
    knots : float64 array (m,)
    values : NumPy array (n, K)
    """

    def __init__(self, knots: NumpyArray, values: NumpyArray) -> None:
        self._knots, self._numbers = knots, _pieces_of(knots, values).numbers
        self.nbytes = self._numbers.nbytes

    def have_at_hand(self, values: NumpyArray) -> None:
        """Let what this thread does next with an array (n, K) of these rows find the pieces."""
        if not _is_last(self._knots, values):
            _LAST.pieces = Pieces(self._knots, values, self._numbers)


class Pieces:
    """The piece of each element (n, K) of a NumPy matrix, whichever way it lies in memory.

    An element v of piece b adds up the pieces between it and 0: the derivative of the function by
    slope j is ``v - upper_b`` for j = b, minus the width of the piece for j > b, otherwise 0. So
    sums over elements by piece, once over the data, give every derivative.

    Parameters
    ----------
    knots : float64 array (m,)
        Below 0, in ascending order.
    values : NumPy array (n, K)
    numbers : uint8 array (n K,) or None
        The piece of each element as they lie in memory, where it is known.
    """

    def __init__(
        self, knots: NumpyArray, values: NumpyArray, numbers: NumpyArray | None = None
    ) -> None:
        self.knots, self.values = knots, values
        self.rows, self.classes = values.shape
        self._by_class = bool(values.flags.f_contiguous)
        self._values = self._flat(values)
        self._upper = np.append(knots, 0.0)
        self._widths = np.diff(self._upper, prepend=self._upper[0])
        self.numbers = _piece_numbers(knots, self._values) if numbers is None else numbers
        self._piece = self.numbers.astype(np.intp)

    def apply(self, slopes: NumpyArray) -> NumpyArray:
        """The function with these slopes (m + 1,) of all elements (n, K)."""
        ends = _ends(slopes, self._widths)
        dtype = self._values.dtype
        new = slopes.astype(dtype).take(self._piece)
        new *= self._values
        new += (ends - slopes * self._upper).astype(dtype).take(self._piece)
        shaped: NumpyArray = (
            new.reshape(self.classes, self.rows).T
            if self._by_class
            else new.reshape(self.rows, self.classes)
        )
        return shaped

    def pullback(self, gradient: NumpyArray) -> NumpyArray:
        """Sums (m + 1,) of a gradient (n, K) times the derivatives by the slopes."""
        flat = self._flat(gradient)
        mass = self._by_piece(flat)
        # From 0, and then from the upper end: a product spares finding the end of each element.
        moment = self._by_piece(flat * self._values) - self._upper * mass
        return _along_slopes(self._widths, mass, moment)

    def likelihood_hessian(self, probs: NumpyArray, weights: NumpyArray | None) -> NumpyArray:
        """Sum of ``J' (diag p - p p') J`` (m + 1, m + 1) over rows with weights (n,)."""
        flat, beyond = self._flat(probs), self._beyond
        numbers = np.arange(self.rows) * len(self._upper)
        first = np.tile(numbers, self.classes) if self._by_class else numbers.repeat(self.classes)
        place, shape = first + self._piece, (self.rows, len(self._upper))
        mass = np.bincount(place, flat, shape[0] * shape[1]).reshape(shape)
        moment = np.bincount(place, flat * beyond, shape[0] * shape[1]).reshape(shape)
        heavy = np.ones(self.rows) if weights is None else weights
        if weights is not None:
            each = np.tile(heavy, self.classes) if self._by_class else heavy.repeat(self.classes)
            flat = flat * each
        squares = self._by_piece(flat * beyond * beyond)
        return _hessian_by_piece(self._widths, heavy, (mass, moment, squares))

    @cached_property
    def _beyond(self) -> NumpyArray:
        """``v - upper_b`` of each element."""
        beyond: NumpyArray = self._values - self._upper.astype(self._values.dtype)[self._piece]
        return beyond

    def _by_piece(self, values: NumpyArray) -> NumpyArray:
        return np.bincount(self._piece, values, len(self._upper))

    def _flat(self, matrix: NumpyArray) -> NumpyArray:
        return (matrix.T if self._by_class else matrix).reshape(-1)


class _RowsByPiece(PreparedRows):
    """Rows of which sums of exponentials by piece are known.

    Parameters
    ----------
    upper : float64 array (m + 1,)
        The upper ends of the pieces, ascending.
    piece : int array (n,)
        The piece of each label's element.
    own : array (n,)
        That element.
    """

    def __init__(self, upper: NumpyArray, piece: NumpyArray, own: NumpyArray) -> None:
        self._widths = np.diff(upper, prepend=upper[0])
        self._label = np.arange(len(own)), piece
        self._label_beyond = (own - upper.astype(own.dtype)[piece]).astype(np.float64)

    @abstractmethod
    def leading_sums(self, theta: NumpyArray) -> tuple[NumpyArray, NumpyArray]:
        """Sums of ``exp(s w)``, times w, and times w again, by piece and row: (3, m + 1, n).

        And the logarithms, (m + 1, 1) or (m + 1, n), of what they are to be multiplied by.
        """

    def derivatives(self, theta: NumpyArray, weights: NumpyArray) -> NumpyArray:
        sums, ends = self.leading_sums(theta)
        with np.errstate(divide="ignore"):
            level = np.log(sums[0]) + ends
        top = level.max(axis=0)
        total = np.log(np.exp(level - top).sum(axis=0)) + top
        # What the sums by row and piece are to be multiplied by; nothing where there are none.
        mass, moment, square = sums * np.exp(np.where(sums[0] > 0, ends - total, -np.inf))
        numbers, piece = self._label
        loss = total - _ends(theta, self._widths)[piece] - theta[piece] * self._label_beyond
        squares = square @ weights
        hessian = _hessian_by_piece(self._widths, weights, (mass.T, moment.T, squares))
        mass[piece, numbers] -= 1
        moment[piece, numbers] -= self._label_beyond
        gradient = _along_slopes(self._widths, mass @ weights, moment @ weights)
        return np.concatenate(([weights @ loss], gradient, hessian.ravel()))


class GroupedValues(_RowsByPiece):
    """Rows by value, of which sums by piece come from moments.

    Parameters
    ----------
    moments : ValueMoments
        Of all elements.
    own : array (n,)
        The element of each row's label.
    """

    def __init__(self, moments: ValueMoments, own: NumpyArray) -> None:
        super().__init__(moments.upper, _piece_numbers(moments.upper[:-1], own), own)
        self._moments = moments
        self.nbytes = moments.nbytes + 3 * self._label_beyond.nbytes

    def leading_sums(self, theta: NumpyArray) -> tuple[NumpyArray, NumpyArray]:
        return self._moments.sums(theta), _ends(theta, self._widths)[:, None]


class GroupedRows(_RowsByPiece):
    """The elements (n, K) of rows, those of one piece of a function after those of another.

    The likelihood of a function that all classes share does not tell the classes apart, but for the
    label. Where the elements of a piece lie side by side the function is one multiplication of
    them; with w the distance of an element from the upper end of its piece and s the slope, sums of
    ``exp(s w)``, ``w exp(s w)`` and ``w^2 exp(s w)`` by row and piece give all derivatives. Each
    pass takes a fifth of the time that elements in their places take.

    Parameters
    ----------
    knots : float64 array (m,)
        Below 0, in ascending order.
    values : array (n, K)
        At most 0 but for rounding; ``-inf`` of classes that are impossible.
    labels : int array (n,)
    """

    def __init__(self, knots: NumpyArray, values: NumpyArray, labels: NumpyArray) -> None:
        rows, classes = values.shape
        flat = np.ascontiguousarray(values).reshape(-1)
        ends = np.append(knots, 0.0)
        pieces, upper = len(ends), ends.astype(flat.dtype)
        piece = _piece_numbers(knots, flat)
        numbers = np.arange(rows)
        own = values[numbers, labels]
        super().__init__(ends, piece.reshape(rows, classes)[numbers, labels], own)
        order = np.argsort(piece, kind="stable")
        place = piece.astype(np.intp)
        place *= rows
        place += numbers.repeat(classes)
        possible = np.isfinite(flat)
        if not possible.all():
            order, place = order[possible[order]], place[possible]
        counts = np.bincount(place, minlength=pieces * rows)
        begins = np.cumsum(counts) - counts
        self._filled = np.flatnonzero(counts)
        self._begins = begins[self._filled]
        self._ends = np.append(begins[::rows], len(order))
        self._beyond = flat[order]
        for number in range(pieces):
            self._beyond[self._of_piece(number)] -= upper[number]
        self.shape = pieces, rows
        arrays = (self._beyond, self._filled, self._begins, self._label_beyond, numbers)
        self.nbytes = sum(array.nbytes for array in arrays)

    def _of_piece(self, number: int) -> slice:
        return slice(int(self._ends[number]), int(self._ends[number + 1]))

    def leading_sums(self, theta: NumpyArray) -> tuple[NumpyArray, NumpyArray]:
        ends = _ends(theta, self._widths)[:, None]
        sums = self._sums(theta)
        with np.errstate(divide="ignore", invalid="ignore"):
            level = np.log(sums[0]) + ends
            leading = np.where(level == level.max(axis=0), sums[0], np.inf).min()
        if leading > _LEAST_LEADING:
            return sums, ends
        # The slopes are so steep that a whole row all but vanishes, so far below its upper end.
        shift = self._largest() * theta[:, None]
        return self._sums(theta, shift), ends + shift

    def _sums(self, theta: NumpyArray, shift: NumpyArray | None = None) -> NumpyArray:
        """Sums of ``exp(s w)``, times w, and times w again, by piece and row: (3, m + 1, n).

        A ``shift`` (m + 1, n) is taken off what is exponentiated.
        """
        beyond = self._beyond
        power = np.empty_like(beyond)
        for number, slope in enumerate(theta.astype(beyond.dtype)):
            part = self._of_piece(number)
            np.multiply(beyond[part], slope, out=power[part])
        if shift is not None:
            counts = np.diff(self._begins, append=len(beyond))
            power -= shift.reshape(-1)[self._filled].astype(power.dtype).repeat(counts)
        np.exp(power, out=power)
        sums = np.zeros((3, self.shape[0] * self.shape[1]))
        for each in sums:
            each[self._filled] = np.add.reduceat(power, self._begins)
            power *= beyond
        return sums.reshape(3, *self.shape)

    def _largest(self) -> NumpyArray:
        """The largest element by piece and row (m + 1, n); 0 where there is none."""
        largest = np.zeros(self.shape[0] * self.shape[1])
        largest[self._filled] = np.maximum.reduceat(self._beyond, self._begins)
        return largest.reshape(self.shape)


_FEW_VALUES = 256
"""So many are searched for in less time than a comparison with each knot takes to begin."""


def _piece_numbers(knots: NumpyArray, values: NumpyArray) -> NumpyArray:
    """The piece of each of some numbers (n,), uint8."""
    if len(values) <= _FEW_VALUES:
        few: NumpyArray = np.searchsorted(knots.astype(values.dtype), values).astype(np.uint8)
        return few
    # Comparing with one knot after the other is several times faster than a search.
    piece, above = np.zeros(len(values), np.uint8), np.empty(len(values), bool)
    for knot in knots.astype(values.dtype):
        np.greater(values, knot, out=above)
        piece += above.view(np.uint8)
    return piece


def _ends(slopes: NumpyArray, widths: NumpyArray) -> NumpyArray:
    """The function at the upper end of each piece (m + 1,)."""
    return -np.append(np.cumsum((slopes * widths)[:0:-1])[::-1], 0.0)


def _along_slopes(widths: NumpyArray, mass: NumpyArray, moment: NumpyArray) -> NumpyArray:
    """Derivatives by the slopes from sums by piece (…, m + 1)."""
    along: NumpyArray = moment - widths * _sums_before(mass)
    return along


def _hessian_by_piece(
    widths: NumpyArray, weights: NumpyArray, sums: tuple[NumpyArray, NumpyArray, NumpyArray]
) -> NumpyArray:
    """Sum of ``J' (diag p - p p') J`` (m + 1, m + 1) over rows with weights (n,).

    Parameters
    ----------
    widths : float64 array (m + 1,)
    weights : float64 array (n,)
    sums : (array (n, m + 1), array (n, m + 1), array (m + 1,))
        Of p and of p times the distance from the upper end, by row and piece; and of p times its
        square, by piece, with the weights.
    """
    mass, moment, squares = sums
    means = _along_slopes(widths, mass, moment)
    below = _sums_before(weights @ mass)
    mixed = widths[:, None] * below[:, None] - (weights @ moment)[:, None]
    # Above the diagonal: the lower piece's share times the width of the higher one.
    hessian: NumpyArray = np.triu(mixed * widths[None, :], 1)
    hessian += hessian.T + np.diag(squares + widths**2 * below)
    hessian -= (means * weights[:, None]).T @ means
    return hessian


def _sums_before(values: NumpyArray) -> NumpyArray:
    """Sums of all elements before each one, along the last axis."""
    before: NumpyArray = np.cumsum(values, axis=-1) - values
    return before


def largest_of_rows(matrix: Array, count: int) -> Array:
    """The largest elements of each row (n, m), m being ``count`` or all, in any order."""
    if matrix.shape[1] <= count:
        return matrix
    if is_numpy_array(matrix):
        return np.partition(matrix, -count, axis=1)[:, -count:]
    return namespace(matrix).sort(matrix, axis=-1)[:, -count:]


def weighted_quantiles(values: NumpyArray, weights: NumpyArray, shares: NumpyArray) -> NumpyArray:
    """The values (s,) up to which some shares (s,) of the weights lie.

    Parameters
    ----------
    values, weights : float array (m,)
        Finite, and greater than 0; at least one.
    shares : float array (s,)
        Numbers from 0 to 1.
    """
    quantiles: NumpyArray = np.quantile(values, shares, weights=weights, method="inverted_cdf")
    return quantiles


def spaced(places: Iterable[float], closest: float) -> list[float]:
    """Places in ascending order, without those that lie too close behind another."""
    knots: list[float] = []
    for place in places:
        if not knots or place > knots[-1] + closest:
            knots.append(float(place))
    return knots


def read_knots(parameters: Parameters, *, least: int = 0) -> NumpyArray:
    """The parameter ``knots`` (m,) of a stage.

    Raises
    ------
    ParamsError
        They don't ascend, lie too close or too far, or are too many or fewer than ``least``.
    """
    knots = parameters.array("knots", None, within=_FARTHEST_KNOT)
    if len(knots) > _MOST_KNOTS:
        raise parameters.error(f"there are {len(knots)} knots; {_MOST_KNOTS} are possible")
    if len(knots) < least or (np.diff(knots) < _CLOSEST_KNOTS).any():
        wanted = f"in ascending order, at least {least}" if least else "in ascending order"
        raise parameters.error(f"knots must be {wanted}")
    return knots
