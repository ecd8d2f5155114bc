"""What decisions by probabilities cost: at every threshold, at the best, and on the surest rows.

Two folds. The first (`ThresholdSums`, `RiskSums`) has what thresholds are chosen by: sums on a fine
lattice of thresholds, by fold, so that a threshold is never judged on the rows that it was chosen
on. The second (`DecisionSums`) has the sums of chosen thresholds by bag, for intervals. All are
exact at their thresholds, and their size does not depend on the number of rows.

References
----------
Vickers and Elkin (2006), Decision curve analysis, doi:10.1177/0272989X06295361 (net benefit);
Elkan (2001), The foundations of cost-sensitive learning, IJCAI (thresholds); Chow (1970), On
optimum recognition error and reject tradeoff, doi:10.1109/TIT.1970.1054406 (abstention).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray, to_numpy
from calibcli.metrics.costs import Costs, argmax_decision
from calibcli.metrics.lattice import lattice_edges
from calibcli.metrics.resampling import Bagged, Interval, Units
from calibcli.metrics.row_mean import MeanSample, ratio
from calibcli.metrics.view import View

THRESHOLD_CELLS = 1 << 14
"""Thresholds among which the best is chosen: 1.2e-4 apart at 1/2, and closer towards 0 and 1."""

COVERAGES = (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.25, 0.1)
"""Shares of the rows that are decided, where decisions may be left to somebody else."""

FEW_ERRORS = 5
"""Of so few bags of rows that cost anything, a resample does not show how sure their mean is."""

_LEVEL_THRESHOLDS = np.arange(1, 20) / 20
_REPLICATES = 2000

_OCTAVES = 2.0 ** (np.arange(-8, 9) / 2)

RuleName: TypeAlias = Literal["least", "best", "argmax", "always", "never", "constant"]
"""How rows are decided, see `Rule`."""


def threshold_lattice(costs: Costs) -> NumpyArray:
    """The thresholds (t,), ascending, that are tried for the best; the theoretical one is there."""
    return np.union1d(lattice_edges(THRESHOLD_CELLS), [costs.threshold])


def curve_thresholds(costs: Costs) -> NumpyArray:
    """The thresholds (t,), ascending, that curves are shown at.

    Multiples of 5 %, and around the theoretical one the odds from a sixteenth of its to 16 times.
    """
    theoretical = costs.threshold
    assert theoretical is not None
    near = np.array([theoretical])
    if 0 < theoretical < 1:
        odds = theoretical / (1 - theoretical) * _OCTAVES
        # The middle one is the threshold itself, to its last bit.
        near = np.where(_OCTAVES == 1, theoretical, odds / (1 + odds))
    return np.union1d(_LEVEL_THRESHOLDS, near)


@dataclass(frozen=True, eq=False)
class ThresholdSums:
    """The statistic: weight by fold, outcome, and number of thresholds that are reached.

    State: array (F, 2, t + 1), of rows of the other class and of the positive one. Memory: 130 kB
    a fold and outcome.

    Parameters
    ----------
    costs : Costs
        Of two classes.
    folds : int
        Number of folds F.
    fold_of : callable
        View -> the fold of each row (n,).
    """

    costs: Costs
    folds: int
    fold_of: Callable[[View], NumpyArray]

    def partial(self, view: View) -> NumpyArray:
        """The sums over one block."""
        thresholds = threshold_lattice(self.costs)
        size = len(thresholds) + 1
        cells = self.fold_of(view) * 2 + (view.labels == self.costs.positive)
        cells = cells * size + _reached(view, self.costs, thresholds)
        sums = np.bincount(cells, view.weights, self.folds * 2 * size)
        return sums.reshape(self.folds, 2, size)

    def merge(self, left: NumpyArray, right: NumpyArray) -> NumpyArray:
        """The sums over two blocks."""
        return left + right

    def finish(self, state: NumpyArray) -> NumpyArray:
        """The sums (F, 2, t + 1)."""
        return state


def _reached(view: View, costs: Costs, thresholds: NumpyArray) -> NumpyArray:
    """How many of some thresholds (t,) the positive class's probability reaches (n,)."""
    probability = to_numpy(view.probs[:, costs.positive]).astype(np.float64)
    return np.searchsorted(thresholds, probability, side="right")


def best_threshold(sums: NumpyArray, costs: Costs) -> float:
    """The threshold of least cost; of equals that nearest to the theoretical one.

    Parameters
    ----------
    sums : array (2, t + 1)
        Of `threshold_lattice`, see `ThresholdSums`.
    """
    thresholds = threshold_lattice(costs)
    flagged = np.cumsum(sums[:, ::-1], axis=1)[:, ::-1][:, 1:]
    total = outcome_costs(costs, flagged, sums.sum(axis=1)[:, None])
    scale = float(np.abs(costs.matrix).max()) * float(sums.sum())
    (least,) = np.nonzero(total <= total.min() + 1e-12 * scale)
    distance = np.abs(thresholds[least] - costs.threshold)
    return float(thresholds[least[np.argmin(distance)]])


def best_thresholds(sums: NumpyArray, costs: Costs) -> tuple[float, ...]:
    """The best threshold for each fold, by the rows outside of it.

    Parameters
    ----------
    sums : array (F, 2, t + 1)
        As `ThresholdSums` finishes.
    """
    total = sums.sum(axis=0)
    # Sums without a fold are never below 0, but for rounding.
    return tuple(best_threshold(np.maximum(total - fold, 0.0), costs) for fold in sums)


def outcome_costs(costs: Costs, flagged: NumpyArray, everything: NumpyArray) -> NumpyArray:
    """The cost (...) of deciding for the positive class of two in some rows.

    Parameters
    ----------
    costs : Costs
    flagged, everything : array (2, ...)
        Weight of rows of the other class and of the positive one: those that are decided for, and
        all.
    """
    false_positive, false_negative, true_positive, true_negative = costs.outcomes
    others, events = flagged
    passed, missed = everything - flagged
    total: NumpyArray = (
        false_positive * others
        + true_positive * events
        + true_negative * passed
        + false_negative * missed
    )
    return total


@dataclass(frozen=True, eq=False)
class RiskSums:
    """The statistic: weight by the expected cost of a row's decision, on a lattice.

    State: array (2^14 + 2,). Rows are surer the less their decision is expected to cost.
    """

    costs: Costs

    def partial(self, view: View) -> NumpyArray:
        """The sums over one block."""
        _, expected = self.costs.least(view.probs)
        edges = risk_edges(self.costs)
        cells = np.searchsorted(edges, expected, side="right")
        return np.bincount(cells, view.weights, len(edges) + 1)

    def merge(self, left: NumpyArray, right: NumpyArray) -> NumpyArray:
        """The sums over two blocks."""
        return left + right

    def finish(self, state: NumpyArray) -> NumpyArray:
        """The sums."""
        return state


def risk_edges(costs: Costs) -> NumpyArray:
    """Expected costs (c,), ascending, from the least that a decision can have to the most."""
    matrix = costs.matrix
    least = float(np.diag(matrix).min())
    # The decision that is least bad at worst has no larger expected cost.
    most = float(matrix.max(axis=0).min())
    return least + (most - least) * lattice_edges(THRESHOLD_CELLS)


def risk_limits(sums: NumpyArray, costs: Costs) -> NumpyArray:
    """The expected costs (c,), ascending, below which about `COVERAGES` of the rows are.

    As many of the surest rows as make up the share; rows that are equally sure stay together.
    """
    edges, below = risk_edges(costs), np.cumsum(sums)
    places = np.searchsorted(below, np.array(COVERAGES) * below[-1] * (1 - 1e-12))
    return np.unique(edges[places[places < len(edges)]])


@dataclass(frozen=True)
class DecidedBags(Bagged):
    """Sums by bag (B,) of the rows of one model.

    Attributes
    ----------
    curve : array (B, 2, t + 1) or None
        Weight by outcome and number of the curve's thresholds that are reached; of two classes.
    chosen : array (B, 2) or None
        Weight by outcome of what is decided for by the threshold of the other folds.
    argmax : array (B, 2)
        Cost of deciding for the most probable class, and weight of those that are the positive one.
    labelled : array (B, K)
        Weight by label.
    sure : array (B, 2, c + 1)
        Weight and cost of the decisions of least expected cost, by number of the limits of risk
        that are reached.
    """

    curve: NumpyArray | None
    chosen: NumpyArray | None
    argmax: NumpyArray
    labelled: NumpyArray
    sure: NumpyArray


DecisionState: TypeAlias = tuple[NumpyArray | None, ...]


@dataclass(frozen=True, eq=False)
class DecisionSums:
    """The statistic: what the decisions of chosen thresholds cost, by bag.

    Parameters
    ----------
    costs : Costs
    units : Units
        Without replicates there are no intervals.
    limits : array (c,)
        Of `risk_limits`.
    by_fold : tuple of float
        The threshold for the rows of each fold, `best_thresholds`; none where there are no folds.
    fold_of : callable
        View -> the fold of each row (n,).
    """

    costs: Costs
    units: Units
    limits: NumpyArray
    by_fold: tuple[float, ...]
    fold_of: Callable[[View], NumpyArray]

    def partial(self, view: View) -> DecisionState:
        """The sums over one block."""
        costs, weights = self.costs, view.weights
        bag, bags = self.units.bags_of(view), self.units.bags()
        decision, expected = costs.least(view.probs)
        cost = costs.realised(view.labels, decision)
        argmax = argmax_decision(view, costs)
        by_argmax = costs.realised(view.labels, argmax), argmax == costs.positive
        size = len(self.limits) + 1
        cells = bag * size + np.searchsorted(self.limits, expected, side="right")
        sure = [np.bincount(cells, v, bags * size) for v in (weights, weights * cost)]
        place = bag * costs.classes + view.labels
        sums = (
            np.stack([np.bincount(bag, weights * each, bags) for each in by_argmax], axis=1),
            np.bincount(place, weights, bags * costs.classes).reshape(bags, costs.classes),
            np.stack([each.reshape(bags, size) for each in sure], axis=1),
        )
        if costs.threshold is None:
            return (None, None, *sums)
        thresholds = curve_thresholds(costs)
        place, size = bag * 2 + (view.labels == costs.positive), len(thresholds) + 1
        cells = place * size + _reached(view, costs, thresholds)
        curve = np.bincount(cells, weights, bags * 2 * size).reshape(bags, 2, size)
        if not self.by_fold:
            return (curve, None, *sums)
        thresholds = np.array(self.by_fold)[self.fold_of(view)]
        above = to_numpy(view.probs[:, costs.positive]).astype(np.float64) >= thresholds
        chosen = np.bincount(place, weights * above, bags * 2).reshape(bags, 2)
        return (curve, chosen, *sums)

    def merge(self, left: DecisionState, right: DecisionState) -> DecisionState:
        """The sums over two blocks."""
        pairs = zip(left, right, strict=True)
        return tuple(None if a is None or b is None else a + b for a, b in pairs)

    def finish(self, state: DecisionState) -> DecidedBags:
        """The sums by name."""
        labelled = state[3]
        assert labelled is not None
        return DecidedBags(self.units, labelled.sum(axis=1), *state)  # type: ignore[arg-type]


@dataclass(frozen=True)
class MeanCost:
    """A mean over rows, and its noise where there are intervals."""

    value: float
    sample: MeanSample | None = None

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval."""
        return None if self.sample is None else self.sample.interval.around(self.value)

    def change_from(self, before: MeanCost) -> Interval | None:
        """The 95 % interval of the change, of the same rows."""
        if self.sample is None or before.sample is None:
            return None
        return self.sample.change_from(before.sample).around(self.value - before.value)


@dataclass(frozen=True)
class Rule:
    """A way to decide, and what it costs.

    Attributes
    ----------
    name : RuleName
        ``"least"`` expected cost; of two classes the ``"best"`` threshold, chosen on other folds;
        ``"argmax"``; ``"always"`` and ``"never"`` the positive class; of more classes the
        ``"constant"`` decision that costs least.
    cost : MeanCost
        Of a row.
    threshold : float or None
        Of the positive class's probability; of the best the one that all rows together choose.
    flagged : float or None
        Share of the rows that are decided for.
    decision : int or None
        The one of a constant rule.
    """

    name: RuleName
    cost: MeanCost
    threshold: float | None = None
    flagged: float | None = None
    decision: int | None = None


@dataclass(frozen=True)
class ThresholdPoint:
    """A threshold of two classes.

    Attributes
    ----------
    threshold : float
    flagged : float
        Share of the rows that are decided for.
    cost, net_benefit : MeanCost
        Of a row; net benefit is ``tp - fp t / (1 - t)`` with the shares of true and of false
        positives among all rows.
    treat_all : float
        The net benefit of deciding for the positive class in all rows; that of none is 0.
    """

    threshold: float
    flagged: float
    cost: MeanCost
    net_benefit: MeanCost
    treat_all: float


@dataclass(frozen=True)
class Coverage:
    """The surest rows alone, the others being left to somebody else.

    Attributes
    ----------
    coverage : float
        Share of the rows that are decided.
    limit : float or None
        Those are the rows whose decision is expected to cost less; None for all rows.
    cost : MeanCost
        Of a row that is decided.
    """

    coverage: float
    limit: float | None
    cost: MeanCost


@dataclass(frozen=True)
class Decisions:
    """What the decisions of one model cost.

    Attributes
    ----------
    costs : Costs
    rules : tuple of Rule
    curve : tuple of ThresholdPoint
        By threshold, ascending; of two classes.
    coverages : tuple of Coverage
        From all rows to few.
    folds : int
        Of the choice of the best threshold; 0 where there is none.
    """

    costs: Costs
    rules: tuple[Rule, ...]
    curve: tuple[ThresholdPoint, ...]
    coverages: tuple[Coverage, ...]
    folds: int = 0

    def rule(self, name: RuleName) -> Rule | None:
        """The rule of a name; None where it was not measured.

        >>> import calibcli
        >>> probs, labels = [0.9, 0.1, 0.3, 0.2], [1, 0, 1, 0]
        >>> decisions = calibcli.evaluate_decisions(probs, labels, {"fp": 1, "fn": 4}, folds=0)
        >>> decisions.rule("least").threshold
        0.2
        """
        return next((rule for rule in self.rules if rule.name == name), None)


def read_decisions(
    sums: DecidedBags, statistic: DecisionSums, best: float | None = None
) -> Decisions:
    """What decisions cost, with intervals where there are bags.

    Parameters
    ----------
    sums : DecidedBags
    statistic : DecisionSums
        That made them.
    best : float or None
        The best threshold of all rows.
    """
    costs, folds = statistic.costs, len(statistic.by_fold)
    coverages = _coverages(sums, statistic.limits)
    if costs.threshold is None:
        return Decisions(costs, _rules_of_many(sums, costs), (), coverages)
    curve = _curve(sums, costs)
    return Decisions(costs, _rules_of_two(sums, costs, curve, best), curve, coverages, folds)


def _rules_of_many(sums: DecidedBags, costs: Costs) -> tuple[Rule, ...]:
    constant = sums.labelled @ costs.matrix
    decision = int(constant.sum(axis=0).argmin())
    least, argmax, always = _means(
        sums, sums.sure[:, 1].sum(axis=1), sums.argmax[:, 0], constant[:, decision]
    )
    always_one = Rule("constant", always, decision=decision)
    return Rule("least", least), Rule("argmax", argmax), always_one


def _rules_of_two(
    sums: DecidedBags, costs: Costs, curve: Sequence[ThresholdPoint], best: float | None
) -> tuple[Rule, ...]:
    everything = _by_outcome(sums, costs)
    least, argmax, always, never = _means(
        sums,
        sums.sure[:, 1].sum(axis=1),
        sums.argmax[:, 0],
        outcome_costs(costs, everything, everything),
        outcome_costs(costs, 0.0 * everything, everything),
    )
    theoretical = next(point for point in curve if point.threshold == costs.threshold)
    rules = [Rule("least", least, costs.threshold, theoretical.flagged)]
    if sums.chosen is not None:
        (cost,) = _means(sums, outcome_costs(costs, sums.chosen.T, everything))
        rules.append(Rule("best", cost, best, ratio(sums.chosen.sum(), sums.bags.sum())))
    decided = ratio(sums.argmax[:, 1].sum(), sums.bags.sum())
    rules.append(Rule("argmax", argmax, 0.5, decided))
    return (*rules, Rule("always", always, flagged=1.0), Rule("never", never, flagged=0.0))


def _by_outcome(sums: DecidedBags, costs: Costs) -> NumpyArray:
    """Weight of the rows of the other class and of the positive one by bag (2, B)."""
    return sums.labelled[:, [1 - costs.positive, costs.positive]].T


def _curve(sums: DecidedBags, costs: Costs) -> tuple[ThresholdPoint, ...]:
    assert sums.curve is not None
    everything, total = _by_outcome(sums, costs), float(sums.bags.sum())
    thresholds = curve_thresholds(costs)
    odds = np.full(len(thresholds), math.nan)
    np.divide(thresholds, 1 - thresholds, out=odds, where=thresholds < 1)
    flagged = np.cumsum(sums.curve[:, :, ::-1], axis=2)[:, :, ::-1][:, :, 1:].transpose(1, 2, 0)
    cost = _means(sums, *outcome_costs(costs, flagged, everything[:, None]))
    benefit = _means(sums, *(flagged[1] - odds[:, None] * flagged[0]))
    others, events = everything.sum(axis=1)
    return tuple(
        ThresholdPoint(
            float(threshold),
            ratio(flagged[:, place].sum(), total),
            cost[place],
            benefit[place],
            ratio(events - odds[place] * others, total),
        )
        for place, threshold in enumerate(thresholds)
    )


def _coverages(sums: DecidedBags, limits: NumpyArray) -> tuple[Coverage, ...]:
    """All rows, and those below each limit of risk that some rows are below."""
    reached = np.cumsum(sums.sure, axis=2)
    total = float(sums.bags.sum())
    limited: Sequence[float | None] = [*limits.tolist(), None]
    surest = []
    for place, limit in enumerate(limited):
        kept, cost = reached[:, 0, place], reached[:, 1, place]
        share = ratio(kept.sum(), total)
        if share > 0 and (limit is None or share < 1):
            (mean,) = _means(sums, cost, weights=kept)
            surest.append(Coverage(share, limit, mean))
    return tuple(reversed(surest))


def _means(
    sums: DecidedBags, *values: NumpyArray, weights: NumpyArray | None = None
) -> list[MeanCost]:
    """The means of sums by bag (B,), and their noise.

    Parameters
    ----------
    sums : DecidedBags
    *values : array (B,)
    weights : array (B,) or None
        By bag, of the rows that the means are over; None for all.
    """
    over = sums.bags if weights is None else weights
    means = [ratio(each.sum(), over.sum()) for each in values]
    if not sums.units.replicates or sums.filled < 2:
        return [MeanCost(mean) for mean in means]
    draws = sums.draws(_REPLICATES)
    kept = draws @ over
    # A resample without any of these rows says nothing of their mean.
    replicates = (np.stack(values) @ draws.T)[:, kept > 0] / kept[kept > 0]
    noisy = zip(values, means, replicates, strict=True)
    return [
        # Where next to no row has a cost, all resamples would agree that no other row has one.
        MeanCost(mean, MeanSample(drawn, each - mean * over, sums.tail, sums.student))
        if np.count_nonzero(each) >= FEW_ERRORS and math.isfinite(mean)
        else MeanCost(mean)
        for each, mean, drawn in noisy
    ]
