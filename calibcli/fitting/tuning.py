"""Penalties chosen by cross-validation.

As Kull et al. (NeurIPS 2019) choose those of their affine maps, by five folds; here for the ridge
of Berta et al. (2025) too, whose strength is a constant there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np

from calibcli.arrays import NumpyArray, namespace, to_numpy
from calibcli.calibrators.base import Calibrator, Family, SmoothMap
from calibcli.engine.data import Data
from calibcli.engine.engine import Engine, Tile
from calibcli.engine.folds import Folds
from calibcli.engine.in_step import in_step
from calibcli.errors import UsageError
from calibcli.fitting.cross_fitting import class_factors
from calibcli.fitting.results import Families, Fit, StageFit
from calibcli.fitting.stages import fit_stages
from calibcli.objectives.base import Objective
from calibcli.objectives.nll import NegativeLogLikelihood

_LADDER = tuple(10.0 ** (half / 2) for half in range(6, -17, -1))
"""Penalties to choose from: steps of the root of ten from a thousand to a hundred-millionth."""

_MOST_SWEEPS = 4
"""Rounds of walks along each option in turn."""

_GROUPS = 40
"""Groups of rows, or of clusters, in each fold, whose sums tell the noise of a held-out loss."""

_ERRORS = 1.0
"""Standard errors up to which a larger loss is put down to chance."""

_TINY = 1e-12
"""Stands for a penalty of 0 where logarithms are compared."""

Result = TypeVar("Result")

Choice = tuple[float, ...]
"""A value for each of a family's tunable options, in their order."""


@dataclass(frozen=True)
class Trials:
    """The choices that were tried for one family, with their held-out losses.

    Attributes
    ----------
    family : Family
        As it was given.
    losses : dict of tuple of float to float64 array (folds, groups)
        Sums of held-out losses by fold and by group of rows, for each choice.
    filled : bool array (folds, groups)
        Which groups have rows.
    rows : float
        Weight of all held-out rows.
    """

    family: Family
    losses: dict[Choice, NumpyArray]
    filled: NumpyArray
    rows: float

    def chosen(self, without: int | None = None) -> Family:
        """The family with the best choice, judged without one fold where one is named."""
        return with_choice(self.family, self.best(without))

    def best(self, without: int | None = None) -> Choice:
        """The choice nearest to the given one that is as good as the best but for noise.

        That is, within so many standard errors of the least held-out loss, those of the paired
        difference (Breiman et al., Classification and Regression Trees, 1984).
        """
        kept = np.arange(len(next(iter(self.losses.values())))) != without
        groups = self.filled[kept]
        losses = {choice: sums[kept][groups] for choice, sums in self.losses.items()}
        least = min(losses, key=lambda choice: float(losses[choice].sum()))
        given = choice_of(self.family)
        with np.errstate(invalid="ignore"):
            near = [
                c for c, sums in losses.items() if c == least or _is_noise(sums - losses[least])
            ]
        return min(near, key=lambda c: (_distance(c, given), float(losses[c].sum())))

    def note(self, loss: str) -> str:
        """The chosen penalties in a line, for a person."""
        choice, given = self.best(), choice_of(self.family)
        options = " and ".join(
            f"{option.replace('_', '-')} {value:g}"
            for option, value in zip(self.family.tunable, choice, strict=True)
        )
        now, then = (float(self.losses[c].sum()) / self.rows for c in (choice, given))
        how = "as given, as nothing did better" if choice == given else "chosen"
        figures = f"{loss} {now:.4f}" + ("" if choice == given else f" against {then:.4f} as given")
        count = len(self.losses)
        return f"{self.family.name}: {options}, {how} on held-out rows ({count} trials): {figures}"


@dataclass(frozen=True)
class Tuning:
    """The families of a plan with their penalties, and what led to them.

    Attributes
    ----------
    families : tuple of Family or None
    trials : dict of int to Trials
        By the number of the stage, for stages that have penalties to choose.
    loss : str
        Name of the loss that judged.
    """

    families: tuple[Family | None, ...]
    trials: dict[int, Trials]
    loss: str

    def without(self, fold: int) -> tuple[Family | None, ...]:
        """The families as chosen when the held-out loss of a fold doesn't count.

        With these the rows of that fold can be judged as if they had not been seen.
        """
        return tuple(
            self.trials[position].chosen(fold) if position in self.trials else family
            for position, family in enumerate(self.families)
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """The chosen penalties in a line, for a person."""
        return tuple(trials.note(self.loss) for trials in self.trials.values())


def tune(data: Data, families: Families, objective: Objective, whole: Fit | None = None) -> Tuning:
    """Choose the penalties of the stages, one stage after the other, by held-out rows.

    Each fold's rows are judged by fits without them, of this stage and of those before it. The
    search walks along the values of one option at a time, in the direction in which the held-out
    loss falls, until no option improves it; neighbouring values are warm starts for each other.

    Parameters
    ----------
    data : Data
        With at least two folds.
    families : sequence of Family or None
    objective : Objective
        What the fits minimise, and what judges if it is a proper score; otherwise nll does.
    whole : Fit, optional
        The fit of these families to all rows, to start from.

    Raises
    ------
    UsageError
        Fewer than two folds.
    """
    if data.folds < 2:
        raise UsageError("penalties are chosen by cross-validation, which needs two folds or more")
    tunable = [place for place, family in enumerate(families) if family and choice_of(family)]
    if not tunable:
        return Tuning(tuple(families), {}, objective.name)
    whole = whole or fit_stages(data, families, objective)
    judge = _judge(objective, data)
    folds = [_Fold(data, number) for number in range(data.folds)]
    chosen, trials = list(families), {}
    for place, family in enumerate(families[: tunable[-1] + 1]):
        if family is None:
            continue
        stage = _Stage(folds, family, objective, judge, whole.stages[place])
        if place in tunable:
            trials[place] = stage.search()
            chosen[place] = trials[place].chosen()
        if place < tunable[-1]:
            stage.settle(choice_of(chosen[place]))
    return Tuning(tuple(chosen), trials, judge.name)


class _Fold:
    """Rows that have passed through stages fitted without one fold, and that fold."""

    def __init__(self, data: Data, number: int) -> None:
        self.data, self.number = data, number
        self._inside, self._outside = class_factors(data, number)

    @property
    def rows(self) -> Data:
        """The rows to fit."""
        rows = self.data.without_fold(self.number)
        return rows if self._outside is None else rows.reweighted(self._outside)

    def losses(self, calibrator: Calibrator, judge: Objective, engine: Engine) -> NumpyArray:
        """Sums (groups,) of the losses of the held-out rows."""
        work = partial(_held_out, calibrator, judge, self.data.split, self.number)
        data = replace(self.data, engine=engine)
        data = data if self._inside is None else data.reweighted(self._inside)
        return data.fold(work, np.add)


class _Stage:
    """The fits of one family without each fold, at one choice after the other."""

    def __init__(
        self,
        folds: list[_Fold],
        family: Family,
        objective: Objective,
        judge: Objective,
        whole: StageFit,
    ) -> None:
        self.folds, self.family, self.objective, self.judge = folds, family, objective, judge
        self.fits = [whole] * len(folds)
        self.losses: dict[Choice, NumpyArray] = {}

    def search(self) -> Trials:
        """All trials on the way to the best choice."""
        best = choice_of(self.family)
        ladders = [_ladder(given) for given in best]
        self._loss(best)
        for _ in range(_MOST_SWEEPS):
            before = best
            for position, ladder in enumerate(ladders):
                best = self._walk(best, position, ladder)
            if best == before or len(ladders) == 1:
                break
        data = self.folds[0].data
        return Trials(self.family, self.losses, data.split.filled_units(_GROUPS), data.weight)

    def settle(self, choice: Choice) -> None:
        """Pass each fold's rows through its own fit at a choice."""
        for fold, fit in zip(self.folds, self._fits_at(choice), strict=True):
            fold.data = fold.data.after(fit.calibrator)

    def _walk(self, best: Choice, position: int, ladder: list[float]) -> Choice:
        """The best choice along one option, from stronger values to weaker ones."""
        begin = ladder.index(best[position])
        for values in (ladder[:begin][::-1], ladder[begin + 1 :]):
            origin = best
            for value in values:
                new = (*best[:position], value, *best[position + 1 :])
                if self._loss(new) >= self._loss(best):
                    break
                best = new
            if best != origin:
                break
        return best

    def _loss(self, choice: Choice) -> float:
        if choice not in self.losses:
            self._fits_at(choice)
            losses = np.array(self._in_step(self._loss_of))
            self.losses[choice] = np.nan_to_num(losses, nan=np.inf)
        return float(self.losses[choice].sum())

    def _fits_at(self, choice: Choice) -> list[StageFit]:
        self.fits = self._in_step(partial(self._fit, choice))
        return self.fits

    def _in_step(self, work: Callable[[int, Engine], Result]) -> list[Result]:
        """What is found of each fold, by its position; passes over the same rows are shared."""

        def found(position: int, data: Data) -> Result:
            return work(position, data.engine)

        places = range(len(self.folds))
        return in_step(self.folds[0].data, [partial(found, place) for place in places])

    def _loss_of(self, position: int, engine: Engine) -> NumpyArray:
        fit = self.fits[position]
        return self.folds[position].losses(fit.calibrator, self.judge, engine)

    def _fit(self, choice: Choice, position: int, engine: Engine) -> StageFit:
        rows, earlier = replace(self.folds[position].rows, engine=engine), self.fits[position]
        if rows.weight <= 0:
            return earlier
        # The family of a fit has its knots in place.
        family = with_choice(earlier.family or self.family, choice)
        placed = family if isinstance(family, SmoothMap) else None
        start = Fit((replace(earlier, family=placed),))
        return fit_stages(rows, (family,), self.objective, start).stages[0]


def choice_of(family: Family | None) -> Choice:
    """The values of a family's tunable options; none for a family without."""
    return () if family is None else tuple(getattr(family, option) for option in family.tunable)


def with_choice(family: Family, choice: Choice) -> Family:
    """The family with values for its tunable options."""
    if not choice:
        return family
    # `Family` itself is no dataclass; each family is.
    instance: Any = family
    return cast("Family", replace(instance, **dict(zip(family.tunable, choice, strict=True))))


def _is_noise(excess: NumpyArray) -> bool:
    """Whether a sum of losses exceeds another one by no more than its error; by group."""
    if not np.isfinite(excess).all():
        return False
    error = math.sqrt(excess.size) * float(np.std(excess, ddof=1))
    return float(excess.sum()) <= _ERRORS * error


def _distance(choice: Choice, given: Choice) -> float:
    """How far penalties lie from others, in steps by a factor of e."""
    pairs = zip(choice, given, strict=True)
    return sum(abs(math.log(max(a, _TINY) / max(b, _TINY))) for a, b in pairs)


def _ladder(given: float) -> list[float]:
    """The values to choose from, the given one among them, from strong to weak."""
    return sorted({*_LADDER, given}, reverse=True)


def _judge(objective: Objective, data: Data) -> Objective:
    """The objective itself if it judges probabilities, otherwise nll."""
    if not objective.judges:
        return NegativeLogLikelihood()
    return objective.for_classes(data.class_weights)


def _held_out(
    calibrator: Calibrator, judge: Objective, split: Folds, fold: int, tile: Tile
) -> NumpyArray:
    inside = split.of(tile) == fold
    numbers = np.flatnonzero(inside)
    if not numbers.size:
        return np.zeros(_GROUPS)
    assert tile.labels is not None
    rows = namespace(tile.logits).asarray(numbers, device=tile.logits.device)
    terms = judge.terms(calibrator.log_probs(tile.logits[rows]), tile.labels[rows])
    losses = to_numpy(terms.loss).astype(np.float64)
    if tile.weights is not None:
        losses = losses * to_numpy(tile.weights[rows])
    return np.bincount(split.unit_of(tile, _GROUPS)[numbers], losses, _GROUPS)
