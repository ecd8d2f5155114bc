"""Which calibrator to take: candidates side by side on held-out rows, and the one to take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray, host_weights, log_softmax, softmax, to_numpy
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.metrics.panel import Evaluation, Panel, PanelState
from calibcli.workflow.fitted_plans import Trial
from calibcli.workflow.measuring import CrossFitted, Predictor, resampled, view_of
from calibcli.workflow.paired_losses import PairedLosses, held_out_losses

Preference: TypeAlias = Literal["accurate", "simple"]
"""What is taken: what is expected to lose least, or the simplest that is within noise."""

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

_TRACE = 1e-6
"""A candidate of which an average has no more is not the nearest to it."""

_LEAST_LOG_PROB = -50.0
"""A class is not less likely than that, where the loss to be expected is asked for."""


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
    unseen = [trial for trial in trials if trial.judged is None]
    found = iter(held_out_states(data, unseen, panel, data.spread))
    states = [next(found) if trial.judged is None else trial.judged for trial in trials]
    evaluations = panel.finish_all(states, data.engine.spread)
    losses = held_out_losses(data, [CrossFitted.of(trial.by_fold, data) for trial in trials])
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
    predictors = [CrossFitted.of(standings[place].trial.by_fold, data) for place in singles]

    def expected_of(places: NumpyArray) -> NumpyArray:
        members = [predictors[place] for place in places]
        work = partial(_expected, members, weights[places], data.spread)
        sums: NumpyArray = data.fold(work, np.add)
        return sums

    expected = of_those_that_count(weights, expected_of)
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


def of_those_that_count(
    shares: NumpyArray, losses_of: Callable[[NumpyArray], NumpyArray]
) -> NumpyArray:
    """The `expected_losses` (M,) of candidates, infinite where the average has but a trace of one.

    Parameters
    ----------
    shares : float64 array (M,)
        What each counts in the average.
    losses_of : callable
        Places (m,) of candidates -> their expected losses (m,).
    """
    places = np.flatnonzero(shares > _TRACE)
    expected = np.full(len(shares), np.inf)
    expected[places] = losses_of(places)
    return expected


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


def held_out_states(
    data: Data,
    trials: Sequence[Trial],
    panel: Panel,
    spread: Callable[..., Iterator[Any]] = map,
) -> list[PanelState]:
    """The state of a panel over held-out rows, for each trial; what it gives labels is kept.

    Parameters
    ----------
    data : Data
    trials : sequence of Trial
    panel : Panel
        As `resampled` for the data.
    spread : callable
        As `map`; where it uses threads, a trial is worked on in each.
    """
    if not trials:
        return []
    predictors = tuple(CrossFitted.of(trial.by_fold, data) for trial in trials)
    work = partial(_panels, predictors, panel, spread)
    states: list[PanelState] = data.fold(work, partial(_merge_panels, panel))
    return states


def _panels(
    predictors: tuple[CrossFitted, ...],
    panel: Panel,
    spread: Callable[..., Iterator[Any]],
    tile: Tile,
) -> list[PanelState]:
    return list(spread(partial(_panel_state, panel, tile), predictors))


def _panel_state(panel: Panel, tile: Tile, predictor: CrossFitted) -> PanelState:
    view = view_of(tile, predictor, panel.event)
    # Now, as it need not be computed again for the paired losses then.
    predictor.label_log_probs(tile, view)
    return panel.partial(view)


def _merge_panels(
    panel: Panel, left: Sequence[PanelState], right: Sequence[PanelState]
) -> list[PanelState]:
    return [panel.merge(a, b) for a, b in zip(left, right, strict=True)]
