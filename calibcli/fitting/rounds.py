"""Loops around adaptive objectives: solve with the state held fixed, learn a new state, repeat."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from calibcli.arrays import NumpyArray, host_weights, to_numpy
from calibcli.calibrators.base import Calibrator
from calibcli.engine.data import Data
from calibcli.engine.engine import Tile
from calibcli.fitting.problem import Problem, Solver
from calibcli.fitting.results import Solution
from calibcli.metrics.panel import Panel
from calibcli.metrics.view import View
from calibcli.objectives.adaptive import Adaptive, LearntInRounds
from calibcli.objectives.base import Objective
from calibcli.objectives.distances import spread

_FIRST_MOVE = 0.02
"""The first step of the authors' optimiser in the temperature, after which shapes are fitted."""

_SETTLED, _NEARLY_SETTLED = 1e-7, 1e-3
"""Largest change of a factor at a fixed point; the second for maps with kinks."""

_ROUGHLY, _ROUGH_ITERATIONS = 1e-3, 5
"""What ends the solve of a steered round: the largest component of the gradient, times the number
of classes, and the number of steps. The state moves anyway before the next one."""

_MOST_ROUNDS = 200
_STEERED_ROUNDS, _PATIENCE = 30, 5
"""Steered rounds at most, and those in a row that may bring nothing."""


def learn_first(problem: Problem, classes: int) -> None:
    """Let an objective make the evaluations that it needs before the first solve.

    The first is at the logits as they are; the second after a step of 0.02 in the temperature
    against the gradient, as the authors' optimiser of class-wise scaling makes it.
    """
    evaluations = _learning(problem).first_evaluations
    plain = problem.map.start(classes, 1.0)
    problem.learn(plain)
    if evaluations > 1:
        _, gradient = problem.gradient(plain)
        slope = float(gradient @ (problem.map.start(classes, 1.01) - plain))
        problem.learn(problem.map.start(classes, 1 / (1 + np.copysign(_FIRST_MOVE, slope))))


def solve_fixed_point(problem: Problem, theta: NumpyArray, solve: Solver) -> Solution:
    """Parameters (P,) that solve a problem with the multipliers that are learnt from them.

    Class-wise loss with a rich map can make all classes' losses equal, and there the multipliers
    jump: as the losses swing around each other, so do they. The step of each is therefore halved
    whenever it turns around, which leads to those between the jumps; where nothing swings, all
    steps are whole.
    """
    problem.learn(theta)
    factors = _learning(problem).multipliers()
    steps, directions = np.ones_like(factors), np.zeros_like(factors)
    iterations = 0
    for _ in range(_MOST_ROUNDS):
        solution = solve(problem, theta)
        iterations += solution.iterations
        theta = solution.theta
        problem.learn(theta)
        change = _learning(problem).multipliers() - factors
        turned = np.sign(change) * directions < 0
        steps = np.where(turned, steps / 2, steps)
        directions = np.sign(change)
        factors = factors + steps * change
        problem.objective = _learning(problem).with_multipliers(factors)
        settled = _SETTLED if problem.map.exact else _NEARLY_SETTLED
        if float(np.abs(steps * change).max()) <= settled:
            exact = float(np.abs(change).max()) <= 10 * settled
            criterion = "fixed point" if exact else "between jumps"
            return replace(solution, criterion=criterion, iterations=iterations)
    return replace(solution, converged=False, criterion="rounds", iterations=iterations)


def _learning(problem: Problem) -> LearntInRounds:
    """The objective of a problem that is solved in rounds."""
    assert isinstance(problem.objective, LearntInRounds)
    return problem.objective


@dataclass(frozen=True)
class Steered:
    """The outcome of a loop that is steered by rows which the solver does not see.

    Attributes
    ----------
    objective : Adaptive or None
        With the state of the best round; None where plain nll was best.
    theta : float64 array (P,)
        Parameters of the best round.
    trace : tuple of dict
        The rounds: state, and figures on the inner validation rows.
    note : str
    """

    objective: Adaptive | None
    theta: NumpyArray
    trace: tuple[dict[str, Any], ...]
    note: str


def steer(
    problem: Problem, validation: Data, theta: NumpyArray, solve: Solver, classes: int
) -> Steered:
    """Alternate solving on the rows of a problem with learning on validation rows.

    The best round by the loss on the validation rows is kept; the starting point, which is the
    solution of plain nll, is a candidate. Rounds are solved roughly, and end when several in a row
    are no better than the best; that one is solved to the end and judged once more.
    """
    problem.objective = _with_spreads(problem, validation, theta)
    watch = Problem(validation, problem.map, problem.objective, problem.anchor)
    select = str(getattr(problem.objective, "select", "nll"))
    first = _figures(validation, problem.map.calibrator(theta, classes))
    trace: list[dict[str, Any]] = [{"round": 0, "loss": "nll", **first}]
    plain: tuple[float, Adaptive | None, NumpyArray, int] = (first[select], None, theta, 0)
    best = plain
    for number in range(1, _STEERED_ROUNDS + 1):
        solution = solve(problem, theta, _ROUGHLY / classes, _ROUGH_ITERATIONS)
        if solution.criterion == "unbounded":
            break
        theta = solution.theta
        figures = _figures(validation, problem.map.calibrator(theta, classes))
        current = problem.objective
        assert isinstance(current, Adaptive)
        if figures[select] < best[0]:
            best = (figures[select], current, theta, number)
        watch.objective = current
        watch.learn(theta)
        problem.objective = watch.objective
        assert isinstance(problem.objective, Adaptive)
        entry = {"round": number, "loss": current.name, **figures, **problem.objective.trace()}
        trace.append(entry)
        settled = problem.objective.settled(current) <= problem.objective.settles_at
        if settled or number - best[3] >= _PATIENCE:
            break
    if best[1] is not None:
        problem.objective = best[1]
        theta = solve(problem, best[2]).theta
        figure = _figures(validation, problem.map.calibrator(theta, classes))[select]
        best = (figure, best[1], theta, best[3]) if figure < first[select] else plain
    problem.passes += watch.passes
    name = problem.objective.name
    best_round = "plain nll was best" if best[1] is None else f"round {best[3]} was best"
    note = (
        f"{name}: of {len(trace) - 1} rounds and plain nll, {best_round} on inner validation rows"
    )
    return Steered(best[1], best[2], tuple(trace), f"{note} (by {select})")


def _with_spreads(problem: Problem, validation: Data, theta: NumpyArray) -> Objective:
    """The objective with what depends on the logits' spread at parameters (P,) chosen."""
    objective = problem.objective
    assert isinstance(objective, Adaptive)
    if not objective.wants_spreads:
        return objective
    work = partial(_spreads, problem.map.calibrator(theta, validation.classes))
    weights, spreads = np.concatenate(validation.fold(work, operator.add), axis=-1)
    return objective.with_spreads(spreads[weights > 0])


def _spreads(calibrator: Calibrator, tile: Tile) -> list[NumpyArray]:
    spreads = to_numpy(spread(calibrator.log_probs(tile.logits)))
    weights = host_weights(tile.labels, tile.weights)
    return [np.stack([weights, spreads])]


def _figures(validation: Data, calibrator: Calibrator) -> dict[str, float]:
    panel = Panel(("nll", "ece"))
    state = validation.fold(partial(_measure, panel, calibrator), panel.merge)
    return panel.finish(state).values


def _measure(panel: Panel, calibrator: Calibrator, tile: Tile) -> Any:
    weights = None if tile.weights is None else to_numpy(tile.weights)
    return panel.partial(View(calibrator.log_probs(tile.logits), tile.labels, weights))
