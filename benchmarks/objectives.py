"""What a pass of each objective costs beside one of nll, and a class-wise fit beside a plain."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from data import Size, read_arrays, write_arrays
from harness import Line, Timing, elsewhere, race

PASS, FIT = Size(50_000, 100), Size(50_000, 1000)
ROUNDS = 15

_PASS_GOAL, _FIT_GOAL = 2.5, 5.0


def passes(folder: Path) -> Callable[[], dict[str, float]]:
    """Median seconds of a pass for value and slope along the temperature, of every objective."""
    from calibcli.calibrators.temperature import TemperatureMap
    from calibcli.engine.data import open_data
    from calibcli.engine.engine import Engine
    from calibcli.engine.source import ArraySource
    from calibcli.fitting.problem import Problem
    from calibcli.objectives.adaptive import Adaptive
    from calibcli.objectives.registry import OBJECTIVES

    logits, labels = read_arrays(folder)
    data = open_data(Engine(), ArraySource(logits, labels))
    theta = np.array([0.6])
    problems = {}
    for name, objective in OBJECTIVES.items():
        problem = Problem(data, TemperatureMap(), objective(), np.ones(1))
        if isinstance(problem.objective, Adaptive) and problem.objective.learns != "class weights":
            problem.learn(theta)
        problems[name] = problem

    def measure() -> dict[str, float]:
        times: dict[str, list[float]] = {name: [] for name in problems}
        for _ in range(ROUNDS):
            for name, problem in problems.items():
                begin = time.perf_counter()
                problem.line(theta)
                times[name].append(time.perf_counter() - begin)
        return {name: statistics.median(seconds) for name, seconds in times.items()}

    return measure


def fit(loss: str, folder: Path) -> Callable[[], None]:
    """Fit a temperature."""
    from calibcli.calibrators.temperature import TemperatureMap
    from calibcli.engine.data import open_data
    from calibcli.engine.engine import Engine
    from calibcli.engine.source import ArraySource
    from calibcli.fitting.stages import fit_stages
    from calibcli.objectives.registry import OBJECTIVES

    logits, labels = read_arrays(folder)
    source = ArraySource(logits, labels)

    def run() -> None:
        fit_stages(open_data(Engine(), source), [TemperatureMap()], OBJECTIVES[loss]())

    return run


def benchmark(folder: Path) -> list[Line]:
    """A line for every objective, and one for the class-wise fit."""
    elsewhere(write_arrays, folder, PASS)
    (timing,) = race({"calib": passes}, folder, rounds=1).values()
    lines = _pass_lines(timing)
    elsewhere(write_arrays, folder, FIT)
    fits = race({loss: partial(fit, loss) for loss in ("class-wise", "nll")}, folder)
    ours, plain = fits["class-wise"].median, fits["nll"].median
    lines.append(
        Line("objectives", str(FIT), "class-wise temperature, nll", ours, plain, at_most=_FIT_GOAL)
    )
    return lines


def _pass_lines(timing: Timing) -> list[Line]:
    seconds: dict[str, float] = timing.answer
    return [
        Line(
            "objectives",
            str(PASS),
            f"pass of {name}, nll",
            taken,
            seconds["nll"],
            at_most=_PASS_GOAL,
        )
        for name, taken in seconds.items()
        if name != "nll"
    ]
