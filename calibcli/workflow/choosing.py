"""Which calibrator to take: candidates side by side on held-out rows, and the one to take."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray, hashed, host_weights, log_softmax, softmax, to_numpy
from calibcli.calibrators.registry import MAPS
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.engine.folds import CLUSTER
from calibcli.engine.source import Keys
from calibcli.metrics.panel import Evaluation, Panel, PanelState
from calibcli.metrics.view import View
from calibcli.workflow.fitted_plans import Trial
from calibcli.workflow.measuring import (
    CrossFitted,
    Predictor,
    label_log_probs,
    resampled,
    view_of,
)
from calibcli.workflow.plans import split_strength, stage_names

Preference: TypeAlias = Literal["accurate", "simple"]
"""What is taken: what is expected to lose least, or the simplest that is within noise."""

_TWO_CLASSES = (
    "ensemble-temperature",
    "platt",
    "quadratic",
    "svs",
    "svs*10",
    "monotone,svs",
    "curved-svs",
    "curved-svs*10",
    "spline",
    "venn-abers",
)
"""Of two classes `sms` and `beta` have the features of `svs`, with other penalties or none."""

_MANY_CLASSES = (
    "ensemble-temperature",
    "gap-temperature",
    "monotone",
    "svs",
    "svs*10",
    "curved-svs",
    "curved-svs*10",
    "vector",
    "spline",
    "sms",
    "sms*10",
    "sms/10",
    "curved-sms",
    "curved-sms*10",
    "curved-sms/10",
    "dirichlet",
    "gap-temperature,sms",
    "gap-temperature,sms/10",
)
_VERY_MANY_CLASSES = ("curved-svs,low-rank", "curved-svs,low-rank/3")
"""Beside these from `_LEAST_FOR_FEATURES` classes on: `sms` has too many numbers for most rows."""

_LEAST_FOR_FEATURES = 30
"""More than the twenty features of `low-rank`, so that these are few."""

_CHEAP = {True: ("platt", "beta"), False: ("svs",)}
"""Methods that are always worth a look, of two classes and of more."""

_FEW_ROWS = 1000
"""With fewer rows of two classes, maps that are shrunken towards the identity have a chance too."""

_COSTLY = ("sms", "dirichlet", "spline")
_TEMPERING = 0.3
"""What the evidence for a candidate counts in the average that the choice is judged by.

Held-out losses of neighbouring candidates are nearly the same, and one fold's are those of one fit:
the whole evidence would put too much on one (Gruenwald, The safe Bayesian, ALT 2012).
"""

_DRAWS = 512
"""Of the noise of the evidence; the weights have a noise of at most two percent."""

_AHEAD = {True: -0.25, False: 0.25}
"""Standard errors by which what is taken is ahead of doing nothing, of two classes and of more.

Maps of two classes have so few numbers that to be wrong about them costs less than doing nothing
where that is wrong. In simulations of 40 to 5,000 rows this margin did better than the other one.
"""

_TOO_MUCH = 0.05
"""The share of the NLL that doing nothing may cost, as far as the rows tell."""

_UNSEEN = 3.0
"""Nats that rows of a kind that chance left out may cost together, with 95 % confidence.

What n rows don't show at all may be true of 3 / n of all rows (Hanley and Lippman-Hand, If nothing
goes wrong, is everything all right?, JAMA 1983), each of which costs about a nat. A standard error
of a few dozen rows doesn't know of them. In simulations of 12 to 500 rows 1 to 6 were alike.
"""

_SIMPLER = 0.8
"""Nothing is simpler than another that has as many numbers, or nearly: 110 instead of 111."""

_LEAST_LOG_PROB = -50.0
"""A class is not less likely than that, where the loss to be expected is asked for."""

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
    suited = []
    names = _TWO_CLASSES if classes == 2 else _MANY_CLASSES
    if classes >= _LEAST_FOR_FEATURES:
        names = (*names, *_VERY_MANY_CLASSES)
    for name in names:
        method, _ = split_strength(name)
        needed = max(MAPS[part]().rows_needed(classes) for part in stage_names(method))
        costly = method.endswith(_COSTLY) and classes > _MOST_CLASSES_FOR_COSTLY
        if rows >= needed and not costly:
            suited.append(name)
    return ["none", "temperature", "ridge-temperature", *suited]


def cheap_candidates(classes: int, rows: float) -> list[str]:
    """Up to six methods that cost next to nothing, the simplest first."""
    names = _CHEAP[classes == 2]
    if classes == 2 and rows < _FEW_ROWS:
        names = ("ridge-temperature", *names, "svs")
    suited = [name for name in names if rows >= MAPS[name]().rows_needed(classes)]
    return ["none", "temperature", *suited]


def held_out_losses(data: Data, predictors: Sequence[Predictor]) -> PairedLosses:
    """The NLL of several predictors of the same rows, paired."""
    work = partial(_label_losses, tuple(predictors), data.clusters)
    state: Any = data.fold(work, operator.add)
    losses: PairedLosses = state.total()
    return losses


def _label_losses(
    predictors: tuple[Predictor, ...], clusters: int | None, tile: Tile
) -> PairedLosses | _ClusterLosses:
    losses = np.stack([-label_log_probs(predictor, tile) for predictor in predictors])
    return _paired(losses, host_weights(tile.labels, tile.weights), tile.keys, clusters)


def _paired(
    losses: NumpyArray, weights: NumpyArray, keys: Keys | None, clusters: int | None
) -> PairedLosses | _ClusterLosses:
    """The sums of losses (M, n) of rows with weights (n,), by cluster where there are any."""
    if clusters is None:
        return PairedLosses.of_rows(losses, weights)
    assert keys is not None
    return _ClusterLosses.of(losses, weights, keys[CLUSTER], clusters)


def rank(
    data: Data, trials: Sequence[Trial], panel: Panel, prefer: Preference = "accurate"
) -> Leaderboard:
    """The trials on held-out rows, and the one to take.

    Parameters
    ----------
    data : Data
    trials : sequence of Trial
    panel : Panel
    prefer : str
        ``"accurate"`` takes the one with the least expected loss (`_least_expected`), ``"simple"``
        the simplest that is within one standard error of the best, that of the paired difference
        (Breiman et al., Classification and Regression Trees, 1984).
    """
    panel = resampled(panel, data)
    predictors = tuple(CrossFitted.of(trial.by_fold, data) for trial in trials)
    work = partial(_held_out, predictors, panel, data.clusters, data.spread)
    state = data.fold(work, partial(_merge, panel))
    evaluations = panel.finish_all(state.panels, data.engine.spread)
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
    places = np.flatnonzero(~np.isnan(means)).tolist()
    sound = [standings[place] for place in places]
    if prefer == "simple":
        chosen, why = _simplest(sound, standings[best])
    else:
        chosen, why = _least_expected(data, sound, losses.of(places))
    order = sorted(standings, key=lambda standing: (math.isnan(standing.behind), standing.behind))
    return Leaderboard(tuple(order), chosen, why)


def _least_expected(
    data: Data, standings: Sequence[Standing], losses: PairedLosses
) -> tuple[Standing, str]:
    """The candidate whose loss is least where the average of all candidates is the truth.

    The best of many by held-out loss is in part the luckiest. The average, weighted by the
    evidence, is a better guess at the truth than any one of them; the one that is nearest to it, by
    cross-entropy over the rows, is taken (San Martini and Spezzaferri, A predictive model selection
    criterion, J. R. Stat. Soc. B 1984). But `none` is, where that one is not ahead of it on
    held-out rows (`ahead_of_none`) and they are enough to tell that little is lost by it
    (`most_lost`), and a stack, where there is one, unless the best is ahead of it by more than two
    standard errors.
    """
    singles = [place for place, each in enumerate(standings) if not each.trial.members]
    best = min(standings, key=lambda standing: (math.isnan(standing.behind), standing.behind))
    lead = f"{best.trial.name} has the lowest held-out NLL"
    single_losses = losses.of(singles)
    weights = single_losses.averaging_weights()
    members = [CrossFitted.of(standings[place].trial.by_fold, data) for place in singles]
    expected = data.fold(partial(_expected, members, weights, data.spread), np.add)
    plain = plain_place([standings[place].trial for place in singles])
    ahead = ahead_of_none(data.classes)
    choice = choose_place(single_losses, expected, plain, ahead)
    chosen, what = standings[singles[choice]], "the nearest to the average of all"
    stacks = [each for each in standings if each.trial.members and _is_near(each)]
    if stacks and choice != plain:
        chosen, what = stacks[0], "the average of methods"
    untold = _passed_over(standings)
    if plain is not None and not is_ahead(single_losses, plain, choice, ahead):
        names = [standings[place].trial.name for place in singles]
        untold += _untold(data.rows, names, single_losses, plain, changed=choice != plain)
    if chosen is best:
        return best, lead + untold
    by = f"behind by {chosen.behind:.2g}, standard error {chosen.behind_error:.2g}"
    nearest = standings[singles[nearest_place(single_losses, expected)]]
    if choice == plain and nearest is not chosen:
        what = f"{chosen.trial.name}, which changes nothing and is taken ({by}){untold}"
        if nearest is best:
            return chosen, f"{lead}, but is not clearly ahead of {what}"
        return chosen, (
            f"{lead}; {nearest.trial.name}, the nearest to the average of all, is not clearly "
            f"ahead of {what}"
        )
    why = (
        f"{lead}; {chosen.trial.name}, {what}, is expected to do as well on other rows or better "
        f"({by}){untold}"
    )
    return chosen, why


def _is_near(standing: Standing) -> bool:
    """Whether chance may explain that it is behind the best; of what went wrong it does not."""
    return standing.behind <= 2 * standing.behind_error


def _passed_over(standings: Sequence[Standing]) -> str:
    """Why a stack, which somebody asked for, is not taken, where that is so."""
    stack = next((each for each in standings if each.trial.members), None)
    if stack is None or _is_near(stack) or math.isnan(stack.behind):
        return ""
    by = f"by {stack.behind:.2g}, standard error {stack.behind_error:.2g}"
    return f"; {stack.trial.name} is too far behind, {by}"


def _untold(
    rows: int, names: Sequence[str], losses: PairedLosses, plain: int, *, changed: bool
) -> str:
    """By how much a candidate may be better than to change nothing, where few rows leave it open.

    It is said where nothing is changed, and where what is taken isn't clearly ahead of that.
    """
    most, other = most_lost(losses, plain)
    nothing = float(losses.mean[plain])
    if not most > _TOO_MUCH * nothing:
        return ""
    by = f"up to {100 * most / nothing:.0f} %" if most < nothing else "far"
    able = f"as far as {rows:,} rows tell, {names[other]} may still be {by} better"
    return f"; {able} than to change nothing" if changed else f"; {able}"


def most_lost(losses: PairedLosses, plain: int) -> tuple[float, int]:
    """By how much the best of the others may be better than the one that changes nothing.

    Returns
    -------
    most : float
        The upper end of about a 95 % interval, in nats a row, with what few rows may leave out.
    other : int
        Its place.
    """
    means = losses.mean.copy()
    nothing, means[plain] = means[plain], np.inf
    other = int(np.nanargmin(means))
    noise = 2 * losses.error_of_difference(plain, other) + _UNSEEN / losses.units
    return float(nothing - means[other] + noise), other


def plain_place(trials: Sequence[Trial]) -> int | None:
    """Where among trials the one is that changes nothing."""
    places = (place for place, trial in enumerate(trials) if not any(trial.plan.families))
    return next(places, None)


def ahead_of_none(classes: int) -> float:
    """Standard errors by which what is taken is ahead of doing nothing; it may be behind."""
    return _AHEAD[classes == 2]


def choose_place(
    losses: PairedLosses, expected: NumpyArray, plain: int | None, ahead: float
) -> int:
    """The place of the candidate to take.

    Parameters
    ----------
    losses : PairedLosses
        Of M candidates.
    expected : float64 array (M,)
        Their `expected_losses`.
    plain : int or None
        The place of the one that changes nothing. It is taken where the nearest is not ahead of it
        on held-out rows, by ``ahead`` standard errors, unless it may cost too much (`most_lost`).
    ahead : float
        That of `ahead_of_none`.
    """
    place = nearest_place(losses, expected)
    if plain is None or place == plain or is_ahead(losses, plain, place, ahead):
        return place
    nothing = float(losses.mean[plain])
    little = math.isfinite(nothing) and most_lost(losses, plain)[0] <= _TOO_MUCH * nothing
    return plain if little else place


def is_ahead(losses: PairedLosses, plain: int, place: int, ahead: float) -> bool:
    """Whether a candidate is ahead of another on held-out rows by so many standard errors."""
    if math.isinf(losses.mean[plain]):
        return True
    lead = float(losses.mean[plain] - losses.mean[place])
    return lead > ahead * losses.error_of_difference(plain, place)


def nearest_place(losses: PairedLosses, expected: NumpyArray) -> int:
    """The place of the least of the `expected_losses` (M,), but for what is infinitely wrong."""
    return int(np.where(np.isfinite(losses.mean), expected, np.inf).argmin())


def expected_losses(
    log_probs: Sequence[NumpyArray], shares: NumpyArray, weights: NumpyArray
) -> NumpyArray:
    """The loss (M,) of each candidate where the average of all is the truth, summed over rows.

    Parameters
    ----------
    log_probs : sequence of float array (n, K)
        Of M candidates.
    shares : float64 array (M,)
        What each counts in the log-linear average.
    weights : float64 array (n,)
    """
    bounded = [np.maximum(each, _LEAST_LOG_PROB) for each in log_probs]
    mixed = np.zeros(bounded[0].shape)
    for share, each in zip(shares, bounded, strict=True):
        mixed += share * each
    probs = softmax(mixed) * weights[:, None]
    return np.array([-float(np.vdot(probs, each)) for each in bounded])


def _expected(
    members: Sequence[Predictor],
    shares: NumpyArray,
    spread: Callable[..., Iterator[Any]],
    tile: Tile,
) -> NumpyArray:
    log_probs = list(spread(partial(_log_probs, tile), members))
    return expected_losses(log_probs, shares, host_weights(tile.labels, tile.weights))


def _log_probs(tile: Tile, predictor: Predictor) -> NumpyArray:
    return to_numpy(log_softmax(predictor(tile)))


def _simplest(standings: Sequence[Standing], best: Standing) -> tuple[Standing, str]:
    """The simplest that is within one standard error of the best; of several the best.

    Who asks for a stack does not ask for simplicity: it is taken if the best is not better by more
    than two standard errors, but not before `none`.
    """
    near = [standing for standing in standings if standing.behind <= standing.behind_error]
    stacks = [each for each in standings if each.trial.members and _is_near(each)]
    if stacks:
        near = [standing for standing in near if standing.trial.parameters == 0] or stacks
    least = min(standing.trial.parameters for standing in near)
    simple = [standing for standing in near if standing.trial.parameters * _SIMPLER <= least]
    chosen = min(simple, key=lambda standing: standing.behind)
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
class PairedLosses:
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
    def of_rows(cls, losses: NumpyArray, weights: NumpyArray) -> PairedLosses:
        """The sums of losses (M, n) of rows with weights (n,)."""
        powers = np.stack((weights, weights**2), axis=1)
        scaled = losses * weights
        # A loss may be infinite.
        with np.errstate(invalid="ignore"):
            return cls(powers.sum(axis=0), losses @ powers, scaled @ scaled.T)

    def __add__(self, later: PairedLosses) -> PairedLosses:
        return PairedLosses(
            self.weights + later.weights, self.sums + later.sums, self.products + later.products
        )

    def total(self) -> PairedLosses:
        """The sums over all rows."""
        return self

    def of(self, places: Sequence[int]) -> PairedLosses:
        """The sums of some of the candidates."""
        chosen = list(places)
        products = self.products[np.ix_(chosen, chosen)]
        return PairedLosses(self.weights, self.sums[chosen], products, self.inflation)

    def averaging_weights(self) -> NumpyArray:
        """The share (M,) of each candidate in their average, by tempered evidence.

        The mean, over draws of what else the sums of losses could have been, of ``exp(-t loss)``,
        normalised (Yao et al., Using stacking to average Bayesian predictive distributions,
        Bayesian Analysis 2018, pseudo-BMA+), t being `_TEMPERING`. A candidate that is infinitely
        wrong has none.
        """
        weights = np.zeros(len(self.sums))
        known = np.flatnonzero(np.isfinite(self.mean))
        losses = self.of(known.tolist())
        total, squares = losses.weights
        means = losses.mean - losses.mean.mean()
        # Losses from the mean over the candidates, row by row.
        centre = np.eye(len(known)) - 1 / len(known)
        moments = centre @ losses.sums[:, 1]
        spread = centre @ losses.products @ centre
        spread += squares * np.outer(means, means)
        spread -= np.outer(moments, means) + np.outer(means, moments)
        # Rounding may leave what is singular a little negative.
        jitter = 1e-9 * float(np.trace(spread)) / len(known) + 1e-12
        factor = np.linalg.cholesky(losses.inflation * spread + jitter * np.eye(len(known)))
        draws = np.random.default_rng(0).standard_normal((_DRAWS, len(known)))
        evidence = -_TEMPERING * (total * means + draws @ factor.T)
        weights[known] = softmax(evidence).mean(axis=0)
        return weights

    @property
    def units(self) -> float:
        """Rows, or clusters, of equal weight that would tell as much."""
        return float(self.weights[0] ** 2 / self.weights[1])

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

    def total(self) -> PairedLosses:
        """The sums over all rows, each cluster counting as one in those of squares."""
        weights, count = self.weights, int(np.count_nonzero(self.weights))
        return PairedLosses(
            np.array([weights.sum(), weights @ weights]),
            np.stack((self.sums.sum(axis=1), self.sums @ weights), axis=1),
            self.sums @ self.sums.T,
            count / max(count - 1, 1),
        )


@dataclass(frozen=True)
class _State:
    panels: tuple[PanelState, ...]
    losses: PairedLosses | _ClusterLosses


def _held_out(
    predictors: tuple[Predictor, ...],
    panel: Panel,
    clusters: int | None,
    spread: Callable[..., Iterator[Any]],
    tile: Tile,
) -> _State:
    judged = list(spread(partial(_judged, panel, tile), predictors))
    views, panels = zip(*judged, strict=True)
    each, weights = np.stack([-view.true_log_prob for view in views]), views[0].weights
    return _State(panels, _paired(each, weights, views[0].keys, clusters))


def _judged(panel: Panel, tile: Tile, predictor: Predictor) -> tuple[View, PanelState]:
    view = view_of(tile, predictor, panel.event)
    return view, panel.partial(view)


def _merge(panel: Panel, left: _State, right: _State) -> _State:
    panels = tuple(panel.merge(a, b) for a, b in zip(left.panels, right.panels, strict=True))
    losses: Any = left.losses
    return _State(panels, losses + right.losses)
