"""Which calibrator to take: candidates side by side on held-out rows, and the one to take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from calibcli.arrays import dot_classes, to_numpy
from calibcli.calibrators.registry import MAPS
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.metrics.base import Vector, View
from calibcli.metrics.panel import Evaluation, Panel, PanelState
from calibcli.workflow.measuring import CrossFitted, Prober
from calibcli.workflow.trials import Trial

_TWO_CLASSES = ("platt", "beta", "quadratic", "spline", "monotone", "venn-abers")
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
_COSTLY = ("sms", "dirichlet", "spline")
_MOST_CLASSES_FOR_COSTLY = 200
"""With more classes, what has a matrix or a curve for each of them takes minutes."""

_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Standing:
    """A trial and what it is worth on held-out rows.

    Attributes
    ----------
    trial : Trial
    evaluation : Evaluation
        Of all rows, each by the fit that has not seen it.
    intervals : dict of str to (float, float)
        95 % intervals of metrics.
    behind : float
        Held-out NLL minus that of the best.
    behind_error : float
        The standard error of that difference, over the rows.
    """

    trial: Trial
    evaluation: Evaluation
    intervals: dict[str, tuple[float, float]]
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


def compare(data: Data, trials: Sequence[Trial], panel: Panel) -> Leaderboard:
    """The trials on held-out rows, all in one pass, and the one to take.

    The best by NLL sets the mark; the simplest that is within one standard error of it, that of
    the paired difference, is taken (Breiman et al., Classification and Regression Trees, 1984).
    """
    probers = tuple(CrossFitted(trial.by_fold, data.seed) for trial in trials)
    state = data.fold(partial(_heldout, probers, panel), partial(_merge, panel))
    evaluations = [panel.finish(part) for part in state.panels]
    losses = state.losses
    best = int(np.nanargmin(losses.mean[0]))
    standings = [
        Standing(
            trial,
            evaluation,
            {"nll": losses.interval(0, place), "brier": losses.interval(1, place)},
            float(losses.mean[0, place] - losses.mean[0, best]),
            losses.error(0, place, best),
        )
        for place, (trial, evaluation) in enumerate(zip(trials, evaluations, strict=True))
    ]
    chosen, why = _choose(standings, standings[best])
    order = sorted(standings, key=lambda standing: (math.isnan(standing.behind), standing.behind))
    return Leaderboard(tuple(order), chosen, why)


def _choose(standings: Sequence[Standing], best: Standing) -> tuple[Standing, str]:
    """The simplest that is within one standard error of the best.

    Who asks for a stack does not ask for simplicity: where it is as near as that it is taken, but
    not before `none`.
    """
    near = [standing for standing in standings if standing.behind <= standing.behind_error]
    stacks = [standing for standing in near if standing.trial.members]
    if stacks:
        near = [standing for standing in near if standing.trial.parameters == 0] or stacks
    chosen = min(near, key=lambda standing: (standing.trial.parameters, standing.behind))
    lead = f"{best.trial.name} has the lowest held-out NLL"
    if chosen is best:
        return best, lead + ("" if stacks else ", and nothing simpler comes near it")
    what = "which averages methods" if chosen.trial.members else "which is simpler"
    why = (
        f"{lead}, but {chosen.trial.name}, {what}, is within one standard error of it "
        f"({chosen.behind:.2g} of {chosen.behind_error:.2g})"
    )
    return chosen, why


@dataclass(frozen=True)
class _Losses:
    """Sums over the rows of the losses of M candidates, NLL and Brier, and of their products.

    Attributes
    ----------
    weights : float64 array (2,)
        Sums of the weights and of their squares.
    sums : float64 array (2, M, 2)
        By loss, candidate, and power of the weight.
    products : float64 array (2, M, M)
        With squared weights.
    """

    weights: Vector
    sums: Vector
    products: Vector

    @classmethod
    def of(cls, losses: Vector, weights: Vector) -> _Losses:
        """The sums of losses (2, M, n) of rows with weights (n,)."""
        powers = np.stack((weights, weights**2), axis=1)
        scaled = losses * weights
        return cls(powers.sum(axis=0), losses @ powers, scaled @ scaled.transpose(0, 2, 1))

    def __add__(self, later: _Losses) -> _Losses:
        return _Losses(
            self.weights + later.weights, self.sums + later.sums, self.products + later.products
        )

    @property
    def mean(self) -> Vector:
        """Means (2, M)."""
        means: Vector = self.sums[:, :, 0] / self.weights[0]
        return means

    def interval(self, loss: int, place: int) -> tuple[float, float]:
        """A 95 % interval of a mean, from its standard error."""
        mean, half = float(self.mean[loss, place]), _NORMAL_95 * self.error(loss, place)
        return mean - half, mean + half

    def error(self, loss: int, place: int, other: int | None = None) -> float:
        """Standard error of a mean, or of its difference from another candidate's."""
        signs = np.zeros(self.sums.shape[1])
        signs[place] += 1
        if other is not None:
            signs[other] -= 1
        mean = float(signs @ self.mean[loss])
        second = float(signs @ self.products[loss] @ signs)
        first = float(signs @ self.sums[loss, :, 1])
        spread = second - 2 * mean * first + mean**2 * float(self.weights[1])
        return math.sqrt(max(spread, 0.0)) / float(self.weights[0])


@dataclass(frozen=True)
class _State:
    panels: tuple[PanelState, ...]
    losses: _Losses


def _heldout(probers: tuple[Prober, ...], panel: Panel, tile: Tile) -> _State:
    weights = None if tile.weights is None else to_numpy(tile.weights)
    views = [View(prober(tile), tile.labels, weights) for prober in probers]
    nll = np.stack([-view.true_log_prob for view in views])
    brier = np.stack([_brier(view) for view in views])
    losses = _Losses.of(np.stack((nll, brier)), views[0].weights)
    return _State(tuple(panel.partial(view) for view in views), losses)


def _brier(view: View) -> Vector:
    squares = to_numpy(dot_classes(view.probs, view.probs)).astype(np.float64)
    result: Vector = squares - 2 * view.true_prob + 1
    return result


def _merge(panel: Panel, left: _State, right: _State) -> _State:
    panels = tuple(panel.merge(a, b) for a, b in zip(left.panels, right.panels, strict=True))
    return _State(panels, left.losses + right.losses)
