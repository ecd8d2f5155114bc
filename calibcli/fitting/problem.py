"""A fit as a function of parameters: sums over the rows of the data, plus a penalty.

A solver takes a `Problem` and a starting point, and returns a `Solution`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    host_weights,
    log_softmax,
    namespace,
    restore_impossible,
    softmax,
    split_impossible,
    to_numpy,
    weighted_sum,
)
from calibcli.calibrators.base import SmoothMap
from calibcli.calibrators.curvature import (
    Curvature,
    Expansion,
    KeptWork,
    Preconditioner,
    PreparedRows,
)
from calibcli.calibrators.piecewise import largest_of_rows
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.engine.folds import Folds
from calibcli.fitting.results import Bends, FoldSums, Solution
from calibcli.objectives.adaptive import Adaptive
from calibcli.objectives.base import Objective, RowTerms
from calibcli.objectives.likelihood import Likelihood
from calibcli.objectives.nll import NegativeLogLikelihood
from calibcli.objectives.weighted import WeightedNll, WeightedTerms
from calibcli.value_counts import log_softmax_by_value

_DOUBLE = 8
"""Bytes of a number of double precision."""


@dataclass
class Problem:
    """``mean over rows of loss(map(theta, logits), label) + ridge``, and its derivatives.

    The rows hold log-probabilities where the map normalises.

    Attributes
    ----------
    objective : Objective
        Replaced by `learn`.
    follow : bool
        Whether an adaptive objective learns its state anew at all parameters that are asked for:
        what is found is then a fixed point of solving and learning.
    reference : float64 array (P,) or None
        Parameters at which the row weights of an estimating objective are taken and held fixed;
        None takes them at the parameters that are asked for.
    bends : Bends or None
        How a problem that is nearly the same bends.
    passes : int
        Folds over the data so far.
    by_fold : FoldSums or None
        The sums of the last `line` by fold; all in one where the data has no folds.
    """

    data: Data
    map: SmoothMap
    objective: Objective
    anchor: NumpyArray
    follow: bool = False
    reference: NumpyArray | None = None
    bends: Bends | None = None
    passes: int = field(default=0, init=False)
    by_fold: FoldSums | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._ridge = self.map.ridge(self.data.classes, self.data.weight)
        self._free = ~self.map.frozen(self.data.class_weights <= 0)

    @property
    def has_ridge(self) -> bool:
        """Whether a penalty holds the parameters."""
        return self._ridge is not None and bool(self._ridge.any())

    @property
    def free_to_grow(self) -> bool:
        """Whether the ridge costs less than one row's ``ln 2`` where all logits are doubled."""
        if self._ridge is None:
            return True
        classes = self.data.classes
        move = self.map.start(classes, 2.0) - self.map.start(classes, 1.0)
        cost = float(move @ self._pull(move)) / 2 * self.data.weight
        return cost < math.log(2)

    def line(self, theta: NumpyArray) -> Line:
        """Value and derivatives of a problem with one parameter, theta (1,)."""
        if self.follow:
            self.learn(theta)
        data = self.data
        split = data.split if data.folds > 1 and not data.parts else Folds()
        self.passes += 1
        work = partial(self._sums(theta).lines, split)
        sums: NumpyArray
        if self._is_likelihood and self.map.along_values:
            sums = data.fold_by_value(work, np.add)
        else:
            # Sums by fold ask where a row is; without folds they don't.
            sums = data.fold(work, np.add, of_rows=split.count == 1)
        self.by_fold = FoldSums(float(theta[0]), sums[:-1])
        return self.line_of(float(theta[0]), sums[-1], data.weight)

    def line_of(self, scale: float, sums: NumpyArray, rows: float) -> Line:
        """Value and derivatives at a scale, from sums (4,) over so many rows."""
        value, first, second, third = (sums / rows).tolist()
        ridge = self.map.ridge(self.data.classes, rows)
        if ridge is not None:
            strength, far = float(ridge.sum()), scale - float(self.anchor[0])
            value += strength * far**2 / 2
            first, second = first + strength * far, second + strength
        return Line(
            value,
            first,
            second if math.isfinite(second) else None,
            third if math.isfinite(third) else None,
        )

    def gradient(self, theta: NumpyArray) -> tuple[float, NumpyArray]:
        """Value and gradient (P,)."""
        if self.follow:
            self.learn(theta)
        total = self.fold(partial(self._sums(theta).gradient, self.reference))
        value, gradient = float(total[0]), total[1:]
        if self._ridge is not None:
            pull = self._pull(theta - self.anchor)
            value += float(pull @ (theta - self.anchor)) / 2
            gradient = gradient + pull
        return value, gradient * self._free

    @property
    def in_single_precision(self) -> bool:
        """Whether the arithmetic of a tile is, so that its rounding shows in small gradients."""
        return self.data.precision is None and self.data.source.dtype.itemsize < _DOUBLE

    @property
    def is_prepared(self) -> bool:
        """Whether one fold over rows that were prepared gives all derivatives."""
        data = self.data
        return (
            self._is_likelihood and data.engine.device == "cpu" and self.map.prepares(data.classes)
        )

    def derivatives(self, theta: NumpyArray) -> tuple[float, NumpyArray, NumpyArray | None]:
        """Value, gradient (P,) and, where one fold gives it too, Hessian (P, P)."""
        if not self.is_prepared:
            return (*self.gradient(theta), None)
        self.passes += 1
        work, merge = partial(_derivatives, theta), operator.iadd
        resolution = self.map.resolution(theta) if self.data.is_counted else None
        if resolution is None:
            made = partial(_prepared, self.map)
            total = self.data.fold_prepared(self.map, made, work, merge)
        else:
            key, made = (self.map, resolution), partial(_prepared_by_value, self.map, resolution)
            total = self.data.fold_prepared(key, made, work, merge, by_value=True)
        total /= self.data.weight
        value, size = float(total[0]), len(theta)
        gradient, hessian = total[1 : 1 + size], total[1 + size :].reshape(size, size)
        if self._ridge is not None:
            pull = self._pull(theta - self.anchor)
            value += float(pull @ (theta - self.anchor)) / 2
            gradient, hessian = gradient + pull, hessian + self._pull(np.eye(size))
        return value, gradient * self._free, hessian

    def learn(self, theta: NumpyArray) -> None:
        """Update an adaptive objective from its statistic at parameters (P,)."""
        assert isinstance(self.objective, Adaptive)
        self.passes += 1
        statistic = self.data.fold(self._sums(theta).statistic, operator.add)
        self.objective = self.objective.updated(statistic)

    def product(self, theta: NumpyArray, direction: NumpyArray) -> NumpyArray:
        """The Hessian times a direction (P,), for maps that are linear in their parameters."""
        total = self.fold(partial(self._sums(theta).product, direction))
        if self._ridge is not None:
            total = total + self._pull(direction)
        return total * self._free

    def diagonal(self, theta: NumpyArray) -> NumpyArray:
        """The diagonal (P,) of the Hessian, or about that; 1 where it is not positive."""
        total = self.fold(self._sums(theta).diagonal)
        if self._ridge is not None:
            total = total + (self._ridge if self._ridge.ndim == 1 else np.diag(self._ridge))
        return np.where(self._free & (total > 0), total, 1.0)

    def hessian(self, theta: NumpyArray) -> NumpyArray:
        """The Hessian (P, P), for maps that are linear in few parameters.

        Where the objective has none that is positive, that of the negative log-likelihood: as a
        preconditioner it serves as well.
        """
        total = self.fold(self._sums(theta).hessian)
        return total if self._ridge is None else total + self._pull(np.eye(len(theta)))

    def preconditioner(self, theta: NumpyArray) -> Preconditioner | None:
        """About the inverse of the Hessian at parameters (P,), where the map offers that."""
        curvature = self.map.curvature(self.data.classes)
        ridge = np.zeros(len(theta)) if self._ridge is None else self._ridge
        if curvature is None or not self._is_likelihood or ridge.ndim > 1:
            return None
        work = partial(self._sums(theta).curvature, curvature)
        # They are the same whatever the penalties are: fits that differ in these begin with them.
        name = type(self.map).__name__, curvature.name, theta.tobytes()
        passes = self.passes
        mean = self.data.sums.once(name, partial(self.fold, work)).copy()
        # It counts in every fit, so that no fit looks otherwise where another one came first.
        self.passes = passes + 1
        if not np.isfinite(mean).all():
            return None
        inverse, free = curvature.preconditioner(mean, ridge), self._free
        return lambda gradient: free * inverse(free * gradient)

    def expand(
        self, expansion: Expansion, theta: NumpyArray
    ) -> tuple[float, NumpyArray, NumpyArray]:
        """Value, gradient (P,) and Hessian (P, P) at parameters (P,), from one fold."""
        mean = self.fold(partial(_expansion, expansion, theta))
        value, gradient, hessian = expansion.derivatives(theta, mean)
        if self._ridge is not None:
            pull = self._pull(theta - self.anchor)
            value += float(pull @ (theta - self.anchor)) / 2
            gradient, hessian = gradient + pull, hessian + self._pull(np.eye(len(theta)))
        return value, gradient, hessian

    def gap(self, gradient: NumpyArray) -> float:
        """The most by which the likelihood can lie above its minimum, where its gradient is (P,).

        The ridge R alone bends the problem by R, so that its value can fall by ``g' R^-1 g / 2``.
        Infinite for other objectives, which need not be convex or stay as they are.
        """
        if self._ridge is None or self._ridge.ndim > 1 or not self._is_likelihood:
            return np.inf
        # A component may be so small that its square is 0.
        squares = gradient**2
        free = self._free & (squares > 0)
        with np.errstate(divide="ignore"):
            return float((squares[free] / self._ridge[free]).sum()) / 2

    @property
    def _is_likelihood(self) -> bool:
        return self.objective.likelihood

    def _sums(self, theta: NumpyArray) -> _Sums:
        return _Sums(self.map, self.objective, theta, self.data.impossible)

    def _pull(self, direction: NumpyArray) -> NumpyArray:
        assert self._ridge is not None
        if self._ridge.ndim == 2:
            pulled: NumpyArray = self._ridge @ direction
            return pulled
        return (self._ridge * direction.T).T

    def fold(self, work: Callable[[Tile], NumpyArray]) -> NumpyArray:
        """The mean over the rows of sums over tiles, as one pass."""
        self.passes += 1
        data = self.data
        # In place: a matrix map's sums are larger than the rows that they come from.
        merge = operator.iadd
        total: NumpyArray
        on_host = data.engine.device == "cpu"
        if self.map.keeps_work and on_host and not (data.stages or data.impossible):
            made = partial(_kept_work, self.map)
            total = data.fold_prepared(
                ("kept work", self.map), made, partial(_with_kept, work), merge, of_rows=True
            )
        else:
            total = data.fold(work, merge, of_rows=True)
        total /= data.weight
        return total


class Line(NamedTuple):
    """A problem with one parameter at some place: its value, and derivatives where known."""

    value: float
    first: float
    second: float | None
    third: float | None


class Solver(Protocol):
    """Finds the minimum of a problem, from parameters (P,) to start from."""

    def __call__(
        self,
        problem: Problem,
        theta: NumpyArray,
        /,
        tolerance: float = ...,
        most_iterations: int = ...,
    ) -> Solution:
        """The solution, with a gradient up to the tolerance."""


@dataclass(frozen=True, eq=False)
class _Sums:
    """The sums over the rows of a tile of what a problem asks for at parameters (P,)."""

    map: SmoothMap
    objective: Objective
    theta: NumpyArray
    impossible: bool

    def lines(self, split: Folds, tile: Tile) -> NumpyArray:
        """Sums of the loss and three derivatives by the one parameter: (folds + 1, 4).

        By fold, and of all rows: these don't depend on the folds, to the last bit.
        """
        weights = host_weights(tile.labels, tile.weights)
        fold = split.of(tile)
        columns = [values * weights for values in self._along(tile)]
        sums = [
            np.append(np.bincount(fold, column, split.count), column.sum()) for column in columns
        ]
        return np.stack(sums, axis=1)

    def gradient(self, reference: NumpyArray | None, tile: Tile) -> NumpyArray:
        """Loss and gradient (1 + P,), with the row weights at a reference (P,), if any."""
        if reference is None:
            logits, terms = self._terms(tile)
        else:
            assert isinstance(self.objective, WeightedNll)
            logits, new = self.mapped(tile)
            _, before = replace(self, theta=reference).mapped(tile)
            frozen = self.objective.weights(before, tile.labels)
            terms = WeightedTerms(Likelihood(new, tile.labels), frozen)
        gradient = _weighted(terms.gradient(), tile.weights)
        pulled = self.map.pullback(self.theta, logits, gradient)
        return np.concatenate(([weighted_sum(terms.loss, tile.weights)], pulled))

    def statistic(self, tile: Tile) -> Any:
        """The statistic of an adaptive objective."""
        assert isinstance(self.objective, Adaptive)
        return self.objective.statistic(self.mapped(tile)[1], tile.labels, tile.weights)

    def product(self, direction: NumpyArray, tile: Tile) -> NumpyArray:
        """The Hessian times a direction (P,)."""
        logits, terms = self._terms(tile)
        product = terms.product(self.map.pushforward(self.theta, logits, direction))
        assert product is not None
        return self.map.pullback(self.theta, logits, _weighted(product, tile.weights))

    def hessian(self, tile: Tile) -> NumpyArray:
        """The Hessian (P, P); that of the likelihood where the objective has none."""
        objective = self.objective
        if not (objective.convex or objective.estimating):
            objective = NegativeLogLikelihood()
        logits, new = self.mapped(tile)
        if objective.likelihood:
            short = self.map.likelihood_hessian(self.theta, logits, softmax(new), tile.weights)
            if short is not None:
                return short
        terms = objective.terms(new, tile.labels)
        xp, size = namespace(logits), len(self.theta)
        moves = [self.map.pushforward(self.theta, logits, unit) for unit in np.eye(size)]
        hessian = np.empty((size, size))
        for i, move in enumerate(moves):
            product = terms.product(move)
            assert product is not None
            for j in range(i + 1):
                rows = xp.sum(product * moves[j], axis=-1)
                hessian[i, j] = hessian[j, i] = weighted_sum(rows, tile.weights)
        return hessian

    def diagonal(self, tile: Tile) -> NumpyArray:
        """The diagonal (P,) of the Hessian, or about that."""
        logits, terms = self._terms(tile)
        diagonal = terms.diagonal()
        assert diagonal is not None
        return self.map.pullback_squares(self.theta, logits, _weighted(diagonal, tile.weights))

    def curvature(self, curvature: Curvature, tile: Tile) -> NumpyArray:
        """The sums (S,) that a preconditioner is made of."""
        logits, new = self.mapped(tile)
        weights = tile.weights
        if weights is not None:
            weights = namespace(logits).astype(weights, logits.dtype)
        return curvature.partial(logits, softmax(new), weights)

    def _along(self, tile: Tile) -> Sequence[NumpyArray]:
        """Loss and three derivatives (n,) by the one parameter; NaN where one is not known."""
        if tile.counted is not None:
            labels = to_numpy(tile.labels)
            return list(self.map.likelihood_by_value(self.theta, tile.counted, labels))
        if self.objective.likelihood and not self.impossible:
            short = self.map.likelihood_along(self.theta, tile.logits, tile.labels)
            if short is not None:
                return list(short)
        logits, terms = self._terms(tile)
        first, second = terms.along(self.map.pushforward(self.theta, logits, np.ones(1)))
        unknown = np.full(len(tile), np.nan)
        known = (terms.loss, first, second)
        columns = [unknown if values is None else to_numpy(values) for values in known]
        return [*columns, unknown]

    def _terms(self, tile: Tile) -> tuple[Array, RowTerms]:
        logits, new = self.mapped(tile)
        return logits, self.objective.terms(new, tile.labels)

    def mapped(self, tile: Tile) -> tuple[Array, Array]:
        """Finite logits as the map sees them, and its new logits (n, K)."""
        logits, mask = tile.logits, None
        if self.impossible:
            logits, mask = split_impossible(logits)
        return logits, restore_impossible(self.map.forward(self.theta, logits), mask)


def sample_log_probs(data: Data, family: SmoothMap, rows: int) -> tuple[NumpyArray, NumpyArray]:
    """What places the knots of a family, of about so many rows: (m, ...); and their weights (m,).

    The rows are evenly spread.
    """
    step = max(int(data.rows) // rows, 1)
    fold = data.fold if family.most_telling is None else data.fold_by_value
    sampled = fold(partial(_sampled, family.most_telling, step), operator.add)
    log_probs, weights = zip(*sampled, strict=True)
    return np.concatenate(log_probs), np.concatenate(weights)


def _sampled(count: int | None, step: int, tile: Tile) -> list[tuple[NumpyArray, NumpyArray]]:
    """What places the knots, of every so many-th row by the number of the row, and the weights.

    That is so many of the row's largest log-probabilities.
    """
    first = -tile.start % step
    if tile.counted is not None and count is not None:
        log_probs = log_softmax_by_value(tile.counted).largest_of_rows(count)[first::step]
    else:
        log_probs = log_softmax(tile.logits[first::step])
        log_probs = to_numpy(log_probs if count is None else largest_of_rows(log_probs, count))
    return [(log_probs, host_weights(tile.labels, tile.weights)[first::step])]


def _kept_work(family: SmoothMap, tile: Tile) -> KeptWork:
    return family.kept_work(tile.logits)


def _with_kept(work: Callable[[Tile], NumpyArray], kept: KeptWork, tile: Tile) -> NumpyArray:
    kept.have_at_hand(tile.logits)
    return work(tile)


def _prepared(family: SmoothMap, tile: Tile) -> PreparedRows:
    return family.prepared(to_numpy(tile.logits), to_numpy(tile.labels))


def _prepared_by_value(family: SmoothMap, resolution: float, tile: Tile) -> PreparedRows:
    assert tile.counted is not None
    return family.prepared_by_value(tile.counted, to_numpy(tile.labels), resolution)


def _derivatives(theta: NumpyArray, rows: PreparedRows, tile: Tile) -> NumpyArray:
    return rows.derivatives(theta, host_weights(tile.labels, tile.weights))


def _expansion(expansion: Expansion, theta: NumpyArray, tile: Tile) -> NumpyArray:
    return expansion.partial(theta, tile.logits, tile.labels, tile.weights)


def _weighted(matrix: Array, weights: Array | None) -> Array:
    if weights is None:
        return matrix
    xp = namespace(matrix)
    return matrix * xp.astype(weights, matrix.dtype)[:, None]
