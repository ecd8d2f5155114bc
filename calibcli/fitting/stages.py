"""Fitting calibrators by name: stages one after the other, each with its certificate."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from threading import Lock, local
from typing import Any

import numpy as np

from calibcli.arrays import (
    NumpyArray,
    host_weights,
    log_softmax,
    pick,
    split_impossible,
    to_numpy,
)
from calibcli.calibrators.base import Family, SmoothMap
from calibcli.calibrators.curves import CurveMap
from calibcli.calibrators.identity import Identity
from calibcli.calibrators.temperature import TemperatureMap
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.errors import UsageError
from calibcli.fitting.class_curves import fit_curves
from calibcli.fitting.estimating import (
    FEW_ROUNDS,
    solve_equations,
    solve_nonnegative_equations,
    solve_reweighted,
)
from calibcli.fitting.lbfgs import solve_lbfgs
from calibcli.fitting.newton import solve_newton, solve_nonnegative
from calibcli.fitting.problem import Problem, Solver, sample_log_probs
from calibcli.fitting.results import Families, Fit, Solution, StageFit
from calibcli.fitting.rounds import learn_first, solve_fixed_point, steer
from calibcli.fitting.saddle_free import solve_saddle_free
from calibcli.fitting.scale import SMALLEST_LOSS, solve_scale
from calibcli.objectives.adaptive import Adaptive, LearntInRounds
from calibcli.objectives.base import Objective
from calibcli.objectives.nll import NegativeLogLikelihood

_SAMPLE_ROWS = 5000
"""Rows of a first guess, which tell a temperature to about a hundredth."""

_SAMPLED, _LEAST_SAMPLE = 16, 250
"""One of so many rows is enough, but for so many, which tell a temperature to some hundredths."""

_KNOT_ROWS = 20_000
"""Rows that place the knots, whose quantiles are good to half a percent of the rows."""


_SLENDER = 4
"""Parameters a class: fits of so few are small enough to be kept for others."""

_MOST_KEPT = 1 << 20
"""Scores after first stages that are kept for other fits, for each of a few beginnings."""

_HOT = 3.0
"""A temperature above that is a reason to look for rows that demand it."""

_ALL_BUT_IMPOSSIBLE = math.log(1e-6)
"""A label of less is beyond what a temperature should be fitted to."""


def fit_stages(
    data: Data,
    families: Families,
    objective: Objective,
    start: Fit | None = None,
    begun: Begun | None = None,
) -> Fit:
    """Fit stages in order, each on what the ones before it give; to no rows, nothing is changed.

    Parameters
    ----------
    data : Data
    families : sequence of Family or None
        None is the stage that changes nothing.
    objective : Objective
    start : Fit, optional
        A fit of the same stages to similar data, to start from.
    begun : Begun, optional
        What other fits to the same data have begun with.

    Raises
    ------
    UsageError
        A family that does not suit the number of classes.
    """
    if data.weight <= 0:
        return Fit(tuple(StageFit(Identity()) for _ in families))
    stages: list[StageFit] = []
    passed = 0
    begun = begun or Begun()
    for position, family in enumerate(families):
        if _looks_at_rows(family, data) and passed < position:
            first = repr((objective, *families[:position]))
            data = begun.rows_after(first, partial(_after, data, stages[passed:]))
            passed = position
        fit = partial(_fit_stage, data, families, objective, start, position, begun)
        # Others need not have the last stage; where it has few parameters it is kept all the same.
        shared = position < len(families) - 1 or _is_slender(family, data)
        stages.append(
            begun.stage(repr((objective, *families[: position + 1])), fit) if shared else fit()
        )
    return Fit(tuple(stages))


def _after(data: Data, stages: Sequence[StageFit]) -> Data:
    return data.after(*(stage.calibrator for stage in stages))


def _fit_stage(
    data: Data,
    families: Families,
    objective: Objective,
    start: Fit | None,
    position: int,
    begun: Begun,
) -> StageFit:
    """One of the stages, to rows that have passed those before it."""
    family = families[position]
    if family is None:
        return StageFit(Identity())
    if family.binary_only and data.classes != 2:
        raise UsageError(f"method {family.name} is for two classes; the data has {data.classes}")
    if isinstance(family, CurveMap):
        curves = fit_curves(data, family)
        return replace(curves, notes=curves.notes + _few_rows_note(family, data))
    assert isinstance(family, SmoothMap)
    earlier = None if start is None else start.stages[position]
    return fit_map(data, family, objective, earlier, begun if position == 0 else None)


class Begun:
    """First stages that several fits to the same rows have in common: fitted and applied once.

    The fits may run on several threads; what one begins, others that need it wait for.
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[Any, float]] = {}
        self._locks: defaultdict[str, Lock] = defaultdict(Lock)
        self._of_thread = local()

    @property
    def saved(self) -> float:
        """Seconds that fits of this thread would have taken longer without it."""
        return float(getattr(self._of_thread, "saved", 0.0))

    def stage(self, name: str, fit: Callable[[], StageFit]) -> StageFit:
        """The last of some stages, which their objective and families name."""
        stage: StageFit = self._once(f"stage {name}", fit)
        return stage

    def rows_after(self, name: str, after: Callable[[], Data]) -> Data:
        """The rows after some stages; kept if there are not many."""
        rows: Data = self._once(f"rows {name}", after, _are_few)
        return rows

    def _once(
        self, name: str, make: Callable[[], Any], keeps: Callable[[Any], bool] | None = None
    ) -> Any:
        with self._locks[name]:
            if name in self._found:
                made, seconds = self._found[name]
                self._of_thread.saved = self.saved + seconds
                return made
            begin = time.perf_counter()
            made = make()
            if keeps is None or keeps(made):
                self._found[name] = made, time.perf_counter() - begin
            return made


def _are_few(data: Data) -> bool:
    return data.rows * data.classes <= _MOST_KEPT


def _is_slender(family: Family | None, data: Data) -> bool:
    """Whether a family has a few parameters a class at most."""
    size = None if family is None else family.size(data.classes)
    return size is not None and size <= _SLENDER * data.classes


def _looks_at_rows(family: Family | None, data: Data) -> bool:
    return family is not None and family.size(data.classes) != 0


def fit_map(
    data: Data,
    family: SmoothMap,
    objective: Objective,
    earlier: StageFit | None = None,
    begun: Begun | None = None,
) -> StageFit:
    """Fit one family of smooth maps, starting from an earlier fit where there is one.

    What other fits to the same rows have ``begun`` with may be a temperature.
    """
    family = family.resolved(data.weight)
    if family.size(data.classes) == 0:
        return StageFit(family.calibrator(np.empty(0), data.classes))
    plain, passes = data, 0
    if family.normalises and not data.normalised:
        # What is made of the rows once needs no copy of them.
        once = family.prepares(data.classes) and objective.likelihood
        on_host = data.engine.device == "cpu"
        data = data.normalise() if once and on_host else data.after(Identity())
    if earlier is not None and earlier.family is not None:
        family = earlier.family
    elif family.needs_placing:
        family = family.placed(*sample_log_probs(data, family, _KNOT_ROWS))
        passes = 1
    if isinstance(objective, Adaptive) and objective.learns == "on validation rows":
        fit = _fit_steered(data, family, objective)
    elif family.size(data.classes) == 1:
        fit = _fit_scale(data, family, objective, earlier)
    else:
        fit = _fit_many(data, family, objective, earlier, plain, begun or Begun())
    return replace(fit, passes=fit.passes + passes)


def choose_solver(family: SmoothMap, objective: Objective, classes: int) -> Solver:
    """The solver that suits a family and an objective at K classes."""
    if family.bounded:
        return solve_nonnegative_equations if objective.estimating else solve_nonnegative
    if objective.estimating:
        return solve_equations if family.linear else solve_reweighted
    likelihood = objective.likelihood
    if likelihood and family.expansion():
        return solve_saddle_free
    # With a preconditioner, gradients of the likelihood are all that a solver needs.
    if family.linear and objective.convex and not (likelihood and family.curvature(classes)):
        return solve_newton
    return solve_lbfgs


def _fit_many(
    data: Data,
    family: SmoothMap,
    objective: Objective,
    earlier: StageFit | None,
    plain: Data,
    begun: Begun,
) -> StageFit:
    """A family with several parameters, starting from the best temperature.

    That is found on the ``plain`` rows, which are the same to it before they are normalised.
    """
    solve = choose_solver(family, objective, data.classes)
    # Each step is a fold, of which a start that is nearly right saves half.
    guess = solve in (solve_saddle_free, solve_nonnegative) and earlier is None
    thin = data.sample(_SAMPLE_ROWS) if guess else None
    # What comes after a temperature by the same likelihood starts where that ended.
    scale, rough, of = 1.0, None, plain
    if not (family.before and objective.likelihood):
        # A penalty may be in units of that scale, which is no guess then.
        of = thin if thin is not None and solve is solve_saddle_free else plain
        rough = _rough_fit(of, objective, earlier, begun if of is plain else Begun())
        assert rough.solution is not None
        scale = float(rough.solution.theta[0])
    if earlier is None:
        family = family.scaled(scale)
    problem = Problem(data, family, objective, family.anchor(data.classes, scale))
    _prepare(problem)
    similar = _similar_solution(earlier, family, objective)
    if similar is not None:
        theta, problem.bends = similar.theta, similar.bends
    else:
        starts = family.starts(data.classes, scale, data.seed)
        theta = _best_start(data, problem, starts, solve)
    if thin is not None:
        theta = solve(_on_rows(problem, thin), theta).theta
    if isinstance(objective, LearntInRounds) and not problem.follow:
        solution = solve_fixed_point(problem, theta, solve)
    else:
        solution = solve(problem, theta)
    notes = _absent_note(family, data.class_weights) + _few_rows_note(family, data)
    first_passes = rough.passes if rough and of is plain else 0
    taken = first_passes and data.has_taken(_SAMPLE_ROWS, plain, _sample_rows(plain))
    if _separated(problem, solution):
        solution, note = _left_alone(problem, solution, scale, thin is None and _separable(rough))
        notes = (*notes, note)
    return StageFit(
        family.calibrator(solution.theta, data.classes),
        solution,
        problem.passes + first_passes + _passes_to_sample(None if taken else thin),
        notes,
        problem.objective,
        family,
    )


def _rough_fit(
    data: Data, objective: Objective, earlier: StageFit | None, begun: Begun
) -> StageFit:
    """The temperature that a larger fit starts from."""
    objective = _for_scale(objective)
    # A first stage that is a temperature starts from an earlier fit, where there is one, and this
    # does not: only without one are they the same to the last bit.
    name = repr((objective, TemperatureMap()))
    name = name if earlier is None else f"rough {name}"
    return begun.stage(name, partial(_fit_scale, data, TemperatureMap(), objective, None))


def _left_alone(
    problem: Problem, solution: Solution, scale: float, at_once: bool
) -> tuple[Solution, str]:
    """What is left of a map where no parameters are best: its temperature, or nothing; a note."""
    family = problem.map
    criterion = "separable" if at_once else "unbounded"
    theta = family.at_temperature(problem.data.classes, scale)
    left = "the scores as they are" if at_once else "one temperature"
    note = f"{family.name}: the rows can be separated, so none fits best; {left}"
    return replace(solution, theta=theta, converged=False, criterion=criterion), note


def _separable(rough: StageFit | None) -> bool:
    return bool(rough and rough.solution and rough.solution.criterion == "separable")


def _separated(problem: Problem, solution: Solution) -> bool:
    """Whether a likelihood has no maximum, as parameters that grow bring it ever closer to 1.

    At a maximum of rows that can't be separated one of them at least is given no more than half of
    the probability, which costs ln 2. A ridge that counts makes a maximum.
    """
    rows = problem.data.rows
    if not problem.objective.likelihood or problem.data.weight < rows:
        return solution.value <= SMALLEST_LOSS
    return solution.value * rows < math.log(2) and problem.free_to_grow


def _similar_solution(
    earlier: StageFit | None, family: SmoothMap, objective: Objective
) -> Solution | None:
    """That of an earlier fit, where a fit ends at the same point wherever it starts.

    Otherwise a start that has seen rows which are held out now would carry them over.
    """
    unique = family.linear and family.exact and objective.convex and not objective.adaptive
    return earlier.solution if unique and earlier is not None else None


def _best_start(
    data: Data, problem: Problem, starts: list[NumpyArray], solve: Solver
) -> NumpyArray:
    """The start from which a fit to some rows does best on the others."""
    if len(starts) == 1:
        return starts[0]
    rows, validation = data.inner_split()
    if min(rows.weight, validation.weight) <= 0:
        return starts[0]
    if solve is solve_reweighted:
        solve = partial(solve_reweighted, most_iterations=FEW_ROUNDS)
    ends = []
    for start in starts:
        trial = _on_rows(problem, rows)
        theta = solve(trial, start).theta
        watch = _on_rows(trial, validation)
        ends.append((watch.gradient(theta)[0], theta))
        problem.passes += trial.passes + watch.passes
    return min(ends, key=lambda end: end[0])[1]


def _on_rows(problem: Problem, data: Data) -> Problem:
    """The same problem on other rows."""
    return Problem(data, problem.map, problem.objective, problem.anchor, problem.follow)


def _prepare(problem: Problem, *, small: bool = False) -> None:
    """Give an adaptive objective the state that the first solve needs."""
    objective = problem.objective
    if objective.learns == "class weights":
        problem.objective = objective.for_classes(problem.data.class_weights)
        return
    # A pooled objective and a single parameter are cheap to follow; others are solved in rounds.
    problem.follow = objective.adaptive and (objective.learns == "at every point" or small)
    if isinstance(objective, LearntInRounds):
        learn_first(problem, problem.data.classes)


def _for_scale(objective: Objective) -> Objective:
    """The objective by which the starting temperature of a larger fit is found."""
    return NegativeLogLikelihood() if objective.adaptive else objective


def _fit_steered(data: Data, family: SmoothMap, objective: Adaptive) -> StageFit:
    """Plain nll, then rounds steered by an inner split; the best round, fitted to all rows."""
    plain = NegativeLogLikelihood()
    rows, validation = data.inner_split()
    whole = fit_map(data, family, plain)
    if min(rows.weight, validation.weight) <= 0 or whole.solution is None:
        note = f"{objective.name}: too few rows for an inner split; fitted by nll"
        return replace(whole, notes=(*whole.notes, note))
    if whole.family is not None:
        family = whole.family
    first = fit_map(rows, family, plain, whole)
    assert first.solution is not None
    rough = _fit_scale(rows, TemperatureMap(), plain, None).solution
    scale = 1.0 if rough is None else float(rough.theta[0])
    problem = Problem(rows, family, objective, family.anchor(data.classes, scale))
    solve = (
        _solve_scale_from
        if family.size(data.classes) == 1
        else choose_solver(family, objective, data.classes)
    )
    steered = steer(problem, validation, first.solution.theta, solve, data.classes)
    passes = whole.passes + first.passes + problem.passes
    notes = (*whole.notes, steered.note)
    if steered.objective is None:
        return replace(whole, passes=passes, notes=notes, trace=steered.trace)
    last = Problem(data, family, steered.objective, problem.anchor)
    solution = solve(last, steered.theta)
    if solution.criterion == "unbounded":
        note = f"{objective.name}: no temperature minimises it on all rows; fitted by nll"
        return replace(whole, passes=passes, notes=(*notes, note), trace=steered.trace)
    return StageFit(
        family.calibrator(solution.theta, data.classes),
        solution,
        passes + last.passes,
        notes,
        steered.objective,
        family,
        steered.trace,
    )


def _solve_scale_from(
    problem: Problem, theta: NumpyArray, tolerance: float = 1e-7, most_iterations: int = 60
) -> Solution:
    return solve_scale(problem, float(theta[0]), tolerance, most_iterations)


def _sample_rows(data: Data) -> int:
    """Rows of a first guess at a scale: few of many, but of few scores as many as can be."""
    if data.precision is not None:
        return _SAMPLE_ROWS
    return min(_SAMPLE_ROWS, max(data.rows // _SAMPLED, _LEAST_SAMPLE))


def _passes_to_sample(sample: Data | None) -> int:
    """What a sample took, if there is one.

    That is a pass, also over rows in memory: what is written does not depend on where a fit ran.
    """
    return 0 if sample is None else 1


def _fit_scale(
    data: Data, family: SmoothMap, objective: Objective, earlier: StageFit | None
) -> StageFit:
    """A single scale, starting from that of a sample of the rows."""
    scale, passes = 1.0, 0.0
    problem = Problem(data, family, objective, np.ones(1))
    _prepare(problem, small=True)
    thin = data.sample(_sample_rows(data)) if earlier is None else None
    if earlier is not None and earlier.solution is not None:
        scale = float(earlier.solution.theta[0])
    elif thin is not None:
        guess = Problem(thin, family, problem.objective, np.ones(1), problem.follow)
        rough = solve_scale(guess, scale, tolerance=1e-3)
        passes = guess.passes * thin.rows / data.rows + _passes_to_sample(thin)
        scale = float(rough.theta[0]) if rough.converged else 1.0
    solution = replace(solve_scale(problem, scale), by_fold=problem.by_fold)
    total = problem.passes + math.ceil(passes)
    minimised = problem.objective
    outliers = None
    if float(solution.theta[0]) * _HOT < 1 and minimised.likelihood:
        outliers = data.fold(partial(_outliers, data.impossible), np.add)
        total += 1
    if solution.criterion != "unbounded":
        calibrator = family.calibrator(solution.theta, data.classes)
        notes = () if outliers is None else _outlier_note(outliers, data)
        return StageFit(calibrator, solution, total, notes, minimised, family)
    note, criterion = _why_unbounded(float(solution.theta[0]), solution.value)
    # Without the rows that cost most, the labels have more than their share of the logits.
    if outliers is not None and outliers[0] > 0 and outliers[1] > 0:
        (said,) = _outlier_note(outliers, data)
        note = (
            f"no temperature is too high for these rows, so none can be fitted; left at 1: {said}"
        )
    plain = replace(solution, theta=np.ones(1), converged=False, criterion=criterion)
    calibrator = family.calibrator(plain.theta, data.classes)
    return StageFit(calibrator, plain, total, (note,), minimised, family)


def _outliers(impossible: bool, tile: Tile) -> NumpyArray:
    """Rows whose label is all but impossible, and by how much the label's logit is ahead in others.

    That is the sum of its differences to the mean of the row: where it is not positive, the
    likelihood only falls as a scale grows from 0.
    """
    logits = split_impossible(tile.logits)[0] if impossible else tile.logits
    label = to_numpy(pick(log_softmax(logits), tile.labels)).astype(np.float64)
    ahead = to_numpy(pick(logits, tile.labels)).astype(np.float64)
    ahead = ahead - to_numpy(logits).mean(axis=1, dtype=np.float64)
    weights, out = host_weights(tile.labels, tile.weights), label < _ALL_BUT_IMPOSSIBLE
    return np.array([np.count_nonzero(out), weights[~out] @ ahead[~out]])


def _outlier_note(outliers: NumpyArray, data: Data) -> tuple[str, ...]:
    count = int(outliers[0])
    if not count:
        return ()
    note = (
        f"{count:,} of {data.rows:,} rows have a label that the scores give less than 1e-6, for "
        "which a temperature makes all rows pay; what mixes in a uniform share may suit them "
        "better (-m ensemble-temperature)"
    )
    return (note,)


def _why_unbounded(scale: float, value: float) -> tuple[str, str]:
    if scale > 1 or value <= SMALLEST_LOSS:
        note = (
            "every row is classified right (or nearly so): no temperature is too low for these "
            "rows, so none can be fitted; left at 1"
        )
        return note, "separable"
    note = (
        "the scores tell nothing about the labels, or the opposite: no temperature is too high "
        "for these rows, so none can be fitted; left at 1. Are scores and labels aligned?"
    )
    return note, "worse than chance"


def _few_rows_note(family: Family, data: Data) -> tuple[str, ...]:
    needed = family.rows_needed(data.classes)
    if data.weight >= needed:
        return ()
    note = (
        f"{family.name} is sensible from about {needed:,} rows on with {data.classes} classes; "
        f"there are {data.weight:,.0f}"
    )
    return (note,)


def _absent_note(family: SmoothMap, class_weights: NumpyArray) -> tuple[str, ...]:
    absent = class_weights <= 0
    if not family.frozen(absent).any():
        return ()
    return (f"{family.name}: classes without rows keep the common temperature and no bias",)
