"""Which calibrator to take: candidates side by side on held-out rows, and the one to take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np

from calibcli.arrays import NumpyArray, hashed
from calibcli.calibrators.registry import MAPS
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.engine.folds import CLUSTER
from calibcli.metrics.panel import Evaluation, Panel, PanelState
from calibcli.workflow.fitted_plans import Trial
from calibcli.workflow.measuring import CrossFitted, Predictor, resampled, view_of

_TWO_CLASSES = (
    "ensemble-temperature",
    "platt",
    "beta",
    "quadratic",
    "monotone",
    "curved-svs",
    "spline",
    "venn-abers",
)
_MANY_CLASSES = (
    "ensemble-temperature",
    "gap-temperature",
    "monotone",
    "svs",
    "curved-svs",
    "vector",
    "spline",
    "sms",
    "curved-sms",
    "dirichlet",
    "gap-temperature,sms",
)
_CHEAP = {True: ("platt", "beta"), False: ("svs",)}
"""Methods that are always worth a look, of two classes and of more."""

_FEW_ROWS = 1000
"""With fewer rows of two classes, a map that is shrunken towards the identity has a chance too."""

_COSTLY = ("sms", "dirichlet", "spline")
_MOST_UNITS = 4096
"""Sums that a standard error is made of; more would change it by less than a percent."""

_MOST_CLASSES_FOR_COSTLY = 200
"""With more classes, what has a matrix or a curve for each of them takes minutes."""


@dataclass(frozen=True)
class Standing:
    """A trial and what it is worth on held-out rows.

    Attributes
    ----------
    trial : Trial
    evaluation : Evaluation
        Of all rows, each by the fit that has not seen it.
    behind : float
        Held-out NLL minus that of the best.
    behind_error : float
        The standard error of that difference, over the rows or over clusters of them.
    """

    trial: Trial
    evaluation: Evaluation
    behind: float
    behind_error: float


@dataclass(frozen=True)
class Leaderboard:
    """Candidates from the best to the worst by held-out NLL, and the one to take.

    Attributes
    ----------
    standings : tuple of Standing
    chosen : Standing
    why : str
        A sentence for people.
    """

    standings: tuple[Standing, ...]
    chosen: Standing
    why: str


def candidates(classes: int, rows: float) -> list[str]:
    """Methods that suit so many classes and rows, from the simplest; `none` is always one."""
    suited = [
        name
        for name in (_TWO_CLASSES if classes == 2 else _MANY_CLASSES)
        if rows >= max(MAPS[part]().rows_needed(classes) for part in name.split(","))
        and not (name.endswith(_COSTLY) and classes > _MOST_CLASSES_FOR_COSTLY)
    ]
    return ["none", "temperature", *suited]


def cheap_candidates(classes: int, rows: float) -> list[str]:
    """Up to five methods that cost next to nothing, the simplest first."""
    names = _CHEAP[classes == 2]
    if classes == 2 and rows < _FEW_ROWS:
        names = (*names, "svs")
    suited = [name for name in names if rows >= MAPS[name]().rows_needed(classes)]
    return ["none", "temperature", *suited]


def held_out_losses(data: Data, predictors: Sequence[Predictor]) -> _Losses:
    """The NLL of several predictors of the same rows, paired."""
    panel = Panel(())
    work = partial(_held_out, tuple(predictors), panel, data.clusters)
    state: _State = data.fold(work, partial(_merge, panel))
    return state.losses.total()


def rank(data: Data, trials: Sequence[Trial], panel: Panel) -> Leaderboard:
    """The trials on held-out rows, all in one pass, and the one to take.

    The best by NLL sets the mark; the simplest that is within one standard error of it, that of
    the paired difference, is taken (Breiman et al., Classification and Regression Trees, 1984).
    """
    panel = resampled(panel, data)
    predictors = tuple(CrossFitted(trial.by_fold, data.split) for trial in trials)
    work = partial(_held_out, predictors, panel, data.clusters)
    state = data.fold(work, partial(_merge, panel))
    evaluations = panel.finish_all(state.panels)
    losses = state.losses.total()
    # A fit that went wrong is none to take, however good its mean is.
    unsound = np.array([bool(trial.warning) for trial in trials])
    means = np.where(unsound & ~unsound.all(), np.nan, losses.mean)
    best = int(np.nanargmin(means))
    standings = [
        Standing(
            trial,
            evaluation,
            float(losses.mean[place] - losses.mean[best]),
            losses.error_of_difference(place, best),
        )
        for place, (trial, evaluation) in enumerate(zip(trials, evaluations, strict=True))
    ]
    sound = [standings[place] for place in np.flatnonzero(~np.isnan(means))]
    chosen, why = _choose(sound, standings[best])
    order = sorted(standings, key=lambda standing: (math.isnan(standing.behind), standing.behind))
    return Leaderboard(tuple(order), chosen, why)


def _choose(standings: Sequence[Standing], best: Standing) -> tuple[Standing, str]:
    """The simplest that is within one standard error of the best.

    Who asks for a stack does not ask for simplicity: it is taken if the best is not better by more
    than two standard errors, but not before `none`.
    """
    near = [standing for standing in standings if standing.behind <= standing.behind_error]
    stacks = [
        standing
        for standing in standings
        if standing.trial.members and standing.behind <= 2 * standing.behind_error
    ]
    if stacks:
        near = [standing for standing in near if standing.trial.parameters == 0] or stacks
    chosen = min(near, key=lambda standing: (standing.trial.parameters, standing.behind))
    lead = f"{best.trial.name} has the lowest held-out NLL"
    if chosen is best:
        return best, lead + ("" if stacks else ", and nothing simpler is within a standard error")
    what = "which averages methods" if chosen.trial.members else "which is simpler"
    why = (
        f"{lead}, but {chosen.trial.name}, {what}, is as good but for noise "
        f"(behind by {chosen.behind:.2g}, standard error {chosen.behind_error:.2g})"
    )
    return chosen, why


@dataclass(frozen=True)
class _Losses:
    """Sums over the rows of the NLL of M candidates, and of its products.

    Attributes
    ----------
    weights : float64 array (2,)
        Sums of the weights and of their squares.
    sums : float64 array (M, 2)
        By candidate and power of the weight.
    products : float64 array (M, M)
        With squared weights.
    inflation : float
        What a variance from few units is to be multiplied by.
    """

    weights: NumpyArray
    sums: NumpyArray
    products: NumpyArray
    inflation: float = 1.0

    @classmethod
    def of(cls, losses: NumpyArray, weights: NumpyArray) -> _Losses:
        """The sums of losses (M, n) of rows with weights (n,)."""
        powers = np.stack((weights, weights**2), axis=1)
        scaled = losses * weights
        return cls(powers.sum(axis=0), losses @ powers, scaled @ scaled.T)

    def __add__(self, later: _Losses) -> _Losses:
        return _Losses(
            self.weights + later.weights, self.sums + later.sums, self.products + later.products
        )

    def total(self) -> _Losses:
        """The sums over all rows."""
        return self

    @property
    def mean(self) -> NumpyArray:
        """The mean loss (M,) of each candidate."""
        means: NumpyArray = self.sums[:, 0] / self.weights[0]
        return means

    def error_of_difference(self, place: int, other: int) -> float:
        """Standard error of one candidate's mean minus another's, rows being paired."""
        if place == other:
            return 0.0
        pair = [place, other]
        signs = np.array([1.0, -1.0])
        mean = float(signs @ self.mean[pair])
        second = float(signs @ self.products[np.ix_(pair, pair)] @ signs)
        first = float(signs @ self.sums[pair, 1])
        spread = second - 2 * mean * first + mean**2 * float(self.weights[1])
        return math.sqrt(max(self.inflation * spread, 0.0)) / float(self.weights[0])


@dataclass(frozen=True)
class _ClusterLosses:
    """Sums by cluster of the NLL of M candidates, for errors that clusters make larger.

    Clusters are taken to be independent and rows of one to be anything (Liang and Zeger,
    Biometrika 1986). Of very many, each sum has some that are drawn together.

    Attributes
    ----------
    weights : float64 array (C,)
    sums : float64 array (M, C)
        Weighted.
    """

    weights: NumpyArray
    sums: NumpyArray

    @classmethod
    def of(
        cls, losses: NumpyArray, weights: NumpyArray, numbers: NumpyArray, clusters: int
    ) -> Self:
        """The sums of losses (M, n) of rows with weights (n,) and numbers of clusters (n,)."""
        if clusters > _MOST_UNITS:
            numbers, clusters = hashed(numbers, 0, _MOST_UNITS), _MOST_UNITS
        sums = [np.bincount(numbers, weights * each, clusters) for each in losses]
        return cls(np.bincount(numbers, weights, clusters), np.stack(sums))

    def __add__(self, later: _ClusterLosses) -> _ClusterLosses:
        return _ClusterLosses(self.weights + later.weights, self.sums + later.sums)

    def total(self) -> _Losses:
        """The sums over all rows, each cluster counting as one in those of squares."""
        weights, count = self.weights, int(np.count_nonzero(self.weights))
        return _Losses(
            np.array([weights.sum(), weights @ weights]),
            np.stack((self.sums.sum(axis=1), self.sums @ weights), axis=1),
            self.sums @ self.sums.T,
            count / max(count - 1, 1),
        )


@dataclass(frozen=True)
class _State:
    panels: tuple[PanelState, ...]
    losses: _Losses | _ClusterLosses


def _held_out(
    predictors: tuple[Predictor, ...], panel: Panel, clusters: int | None, tile: Tile
) -> _State:
    views = [view_of(tile, predictor, panel.event) for predictor in predictors]
    each, weights = np.stack([-view.true_log_prob for view in views]), views[0].weights
    losses: _Losses | _ClusterLosses
    if clusters is None:
        losses = _Losses.of(each, weights)
    else:
        losses = _ClusterLosses.of(each, weights, views[0].keys[CLUSTER], clusters)
    return _State(tuple(panel.partial(view) for view in views), losses)


def _merge(panel: Panel, left: _State, right: _State) -> _State:
    panels = tuple(panel.merge(a, b) for a, b in zip(left.panels, right.panels, strict=True))
    losses: Any = left.losses
    return _State(panels, losses + right.losses)
