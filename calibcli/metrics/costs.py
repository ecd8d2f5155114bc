"""What decisions cost: costs by true class and decision, and the mean cost as a metric.

Whoever decides by probabilities takes the decision of least expected cost, ``argmin_d sum_k p_k
C[k, d]``, which is best where the probabilities are calibrated. Of two classes that is a threshold
of the positive one's probability.

>>> import numpy as np
>>> costs = Costs.of_errors(false_positive=1, false_negative=4)
>>> costs.threshold
0.2
>>> logits = np.log([[0.9, 0.1], [0.7, 0.3], [0.7, 0.3], [0.2, 0.8]])
>>> labels = np.array([1, 0, 1, 1])  # the first is missed, the second a false alarm
>>> COST.with_costs(costs).measure(logits, labels)
1.25
>>> ARGMAX_COST.with_costs(costs).measure(logits, labels)  # two are missed
2.0

References
----------
Elkan (2001), The foundations of cost-sensitive learning, IJCAI.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from calibcli.arrays import Array, NumpyArray, like, namespace, to_numpy
from calibcli.cached import cached_property
from calibcli.errors import UsageError
from calibcli.metrics.base import Metric
from calibcli.metrics.resampling import Interval
from calibcli.metrics.row_mean import SHARE_OF_ROWS, MeanOfRows, RowMean
from calibcli.metrics.view import View


@dataclass(frozen=True)
class Costs:
    """What each decision costs, for each true class.

    Parameters
    ----------
    classes : int
        The number of classes K; a decision is one of them.
    content : bytes
        The matrix (K, K), float64, row by row: true class, decision. As bytes, equal costs are
        equal, and looking for them costs little.
    positive : int
        Of two classes, the one that is decided for from a threshold of its probability on.
    """

    classes: int
    content: bytes
    positive: int = 1

    @classmethod
    def of_matrix(cls, matrix: ArrayLike, positive: int = 1) -> Costs:
        """The costs of a matrix (K, K): true class, decision.

        Raises
        ------
        UsageError
            It is not square, has a number that is not finite, or an error that costs less than
            the right decision, or no error costs anything.
        """
        try:
            costs = np.asarray(matrix, dtype=np.float64)
        except (TypeError, ValueError):
            raise UsageError("costs must be a square of numbers, a row a true class") from None
        if costs.ndim != 2 or costs.shape[0] != costs.shape[1] or len(costs) < 2:
            shape = " x ".join(map(str, costs.shape)) or "a single number"
            raise UsageError(f"costs must be a square, a row a true class, not {shape}")
        if not np.isfinite(costs).all():
            k, d = np.argwhere(~np.isfinite(costs))[0]
            raise UsageError(f"the cost of deciding {d} where {k} is true is {costs[k, d]}")
        excess = costs - np.diag(costs)[:, None]
        if excess.min() < 0:
            k, d = np.unravel_index(int(excess.argmin()), costs.shape)
            raise UsageError(
                f"where class {k} is true, deciding {d} costs {costs[k, d]:g}, and being right "
                f"{costs[k, k]:g}: an error must cost at least as much"
            )
        if not excess.any():
            raise UsageError("no error costs more than being right, so there is nothing to decide")
        return cls(len(costs), np.ascontiguousarray(costs).tobytes(), positive)

    @classmethod
    def of_errors(
        cls,
        false_positive: float,
        false_negative: float,
        true_positive: float = 0.0,
        true_negative: float = 0.0,
        *,
        positive: int = 1,
    ) -> Costs:
        """The costs of two classes by the kinds of right and wrong decisions."""
        by_outcome = [[true_negative, false_positive], [false_negative, true_positive]]
        matrix = np.array(by_outcome, dtype=np.float64)
        return cls.of_matrix(matrix if positive == 1 else matrix[::-1, ::-1], positive)

    @cached_property
    def matrix(self) -> NumpyArray:
        """The costs (K, K): true class, decision."""
        return np.frombuffer(self.content).reshape(self.classes, self.classes)

    @property
    def outcomes(self) -> tuple[float, float, float, float]:
        """The costs, of two classes, of a false positive, a false negative, a true one of each."""
        matrix, event, other = self.matrix, self.positive, 1 - self.positive
        cells = ((other, event), (event, other), (event, event), (other, other))
        return tuple(float(matrix[cell]) for cell in cells)  # type: ignore[return-value]

    @property
    def threshold(self) -> float | None:
        """The probability of the positive class of two from which on deciding for it costs less.

        ``h_fp / (h_fp + h_fn)`` with the harms ``h_fp = C_fp - C_tn`` and ``h_fn = C_fn - C_tp``;
        the best threshold where the probabilities are calibrated. None for more classes.
        """
        if self.classes != 2:
            return None
        false_positive, false_negative, true_positive, true_negative = self.outcomes
        alarm, miss = false_positive - true_negative, false_negative - true_positive
        return alarm / (alarm + miss)

    def least(self, probs: Array) -> tuple[NumpyArray, NumpyArray]:
        """The decision (n,) of least expected cost, the first of equals, and that cost (n,).

        Of two classes the decision is for the positive one from `threshold` on.

        Parameters
        ----------
        probs : array (n, K)
            On any device.
        """
        threshold = self.threshold
        if threshold is not None:
            probability = to_numpy(probs[:, self.positive]).astype(np.float64)
            decision = decide_from(probability, threshold, self.positive)
            true = self.matrix[:, decision]
            here, there = true[self.positive], true[1 - self.positive]
            return decision, probability * here + (1 - probability) * there
        expected = probs @ like(self.matrix, probs)
        xp = namespace(expected)
        decision = to_numpy(xp.argmin(expected, axis=-1))
        return decision, to_numpy(xp.min(expected, axis=-1)).astype(np.float64)

    def realised(self, labels: NumpyArray, decision: NumpyArray) -> NumpyArray:
        """What decisions (n,) cost where the labels (n,) are true (n,)."""
        costs: NumpyArray = self.matrix[labels, decision]
        return costs


def decide_from(probability: NumpyArray, threshold: float, positive: int = 1) -> NumpyArray:
    """The class (n,), int64, that is decided for: the positive one of two from a threshold on.

    Parameters
    ----------
    probability : array (n,)
        Of the positive class. It is compared in float64.
    threshold : float
    positive : int
    """
    above = probability.astype(np.float64) >= threshold
    return np.where(above, positive, 1 - positive).astype(np.int64)


@dataclass(frozen=True)
class RealisedCost:
    """What the decisions of a rule cost (n,); without costs each error costs 1."""

    decide: Callable[[View, Costs], NumpyArray]
    costs: Costs | None = None

    def __call__(self, view: View) -> NumpyArray:
        costs = self.costs
        if costs is None:
            costs = Costs.of_matrix(
                1 - np.eye(view.classes), 1 if view.event is None else view.event
            )
        return costs.realised(view.labels, self.decide(view, costs))


def least_cost_decision(view: View, costs: Costs) -> NumpyArray:
    """The decision (n,) of least expected cost."""
    return costs.least(view.probs)[0]


def argmax_decision(view: View, costs: Costs) -> NumpyArray:
    """The most probable class (n,), whatever errors cost."""
    del costs
    return view.prediction


@dataclass(frozen=True)
class CostMetric(Metric):
    """The mean cost of the decisions of a rule."""

    def with_costs(self, costs: Costs | None) -> Metric:
        """The same of these costs.

        Raises
        ------
        UsageError
            There are none.
        """
        if costs is None:
            raise UsageError(f"{self.name}: nothing says what errors cost; add --cost")
        assert isinstance(self.statistic, RowMean)
        assert isinstance(self.statistic.value, RealisedCost)
        matrix = costs.matrix
        return replace(
            self,
            statistic=RowMean(replace(self.statistic.value, costs=costs)),
            resampling=MeanOfRows(Interval(float(matrix.min()), float(matrix.max()))),
        )


_mean_cost = partial(CostMetric, value=float, group="decisions", resampling=SHARE_OF_ROWS)

COST = _mean_cost(
    name="cost",
    title="cost",
    convention=(
        "mean cost of deciding by least expected cost, which is best where probabilities are "
        "calibrated; of two classes from a probability of fp / (fp + fn) on (--cost)"
    ),
    statistic=RowMean(RealisedCost(least_cost_decision)),
)

ARGMAX_COST = _mean_cost(
    name="argmax_cost",
    title="cost of argmax",
    convention="mean cost of deciding for the most probable class, whatever errors cost (--cost)",
    statistic=RowMean(RealisedCost(argmax_decision)),
)
