"""How many rows a gate takes, by simulation: samples with known errors are drawn and measured.

A `World` has the probabilities of a model. Labels are drawn from them, where the model is to be
calibrated, or from the same logits divided by a temperature, which makes the model overconfident
by as much as is asked for. What is measured is what ``calib evaluate`` measures, its intervals
included; so the answer holds for whatever they are.

Ends of intervals stray from the true error as ``1 / sqrt(n)``. The number of rows is a fixed point
of that law: a few rounds of simulation, each at the number that the one before gave.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np

from calibcli.arrays import NumpyArray, softmax, to_numpy
from calibcli.cached import cached_property
from calibcli.calibrators.base import Calibrator
from calibcli.engine.data import Data, open_data
from calibcli.engine.engine import Engine, Tile
from calibcli.engine.source import ArraySource
from calibcli.errors import UsageError
from calibcli.metrics.panel import Evaluation, Panel
from calibcli.metrics.registry import METRICS
from calibcli.metrics.resampling import Bootstrap
from calibcli.workflow.measuring import Through, measure
from calibcli.workflow.quantities import End

MOST_ROWS = 20_000
"""Rows of a world, and of a simulated sample; for more the law of the square root is relied on."""

_TRUTH_ROWS = 5_000
_LEAST_ROWS = 20
_ROUNDS = (20, 30, 60)
"""Samples of each round; the first ones need only come near."""

_PLAIN_SAMPLES = 100
_HOTTEST = 1e4
_NEGLIGIBLE = 1e-3

Goal: TypeAlias = Literal["pass", "fail"]


@dataclass(frozen=True, eq=False)
class World:
    """The logits of a model (m, K), from which rows are drawn.

    Attributes
    ----------
    name : str
        In words, for people.
    logits : float64 array (m, K)
        Logits or log-probabilities.
    """

    name: str
    logits: NumpyArray

    @cached_property
    def confidence(self) -> float:
        """The mean confidence."""
        return float(softmax(self.logits).max(axis=1).mean())

    def draw(
        self, generator: np.random.Generator, rows: int, temperature: float = 1.0
    ) -> tuple[NumpyArray, NumpyArray]:
        """Logits (rows, K), and labels (rows,) from them divided by a temperature."""
        logits = self.logits[generator.integers(len(self.logits), size=rows)]
        cumulated = np.cumsum(softmax(logits / temperature), axis=1)
        uniform = generator.random(rows) * cumulated[:, -1]
        labels = (cumulated[:, :-1] <= uniform[:, None]).sum(axis=1)
        return logits, labels

    def error(self, metric: str, temperature: float) -> float:
        """The true error of the model where labels follow the logits divided by a temperature.

        Every row is taken twice, as right and as wrong, with the probabilities of both for weights.
        """
        logits = self.logits[:: max(len(self.logits) // _TRUTH_ROWS, 1)]
        prediction = logits.argmax(axis=1)
        right = softmax(logits / temperature)[np.arange(len(logits)), prediction]
        wrong = (prediction + 1) % logits.shape[1]
        return METRICS.find(metric).measure(
            np.concatenate((logits, logits)),
            np.concatenate((prediction, wrong)),
            np.concatenate((right, 1 - right)),
        )

    def temperature(self, metric: str, error: float) -> float:
        """The temperature of the labels that gives the model a true error.

        Raises
        ------
        UsageError
            No temperature does.
        """
        if error == 0:
            return 1.0
        low, high = 0.0, math.log(_HOTTEST)
        most = self.error(metric, _HOTTEST)
        if not error < most:
            raise UsageError(
                f"an overconfident model of {self.name} has an {metric} of at most {most:.3g}"
            )
        for _ in range(30):
            middle = (low + high) / 2
            if self.error(metric, math.exp(middle)) < error:
                low = middle
            else:
                high = middle
        return math.exp((low + high) / 2)


def standard_world(classes: int = 10) -> World:
    """Independent normal logits with a standard deviation of 11: a confidence of 90 % for 10."""
    generator = np.random.default_rng(0)
    name = f"{classes} classes, normal logits"
    return World(name, 11 * generator.standard_normal((MOST_ROWS, classes)))


def world_of(data: Data, name: str, stages: tuple[Calibrator, ...] = ()) -> World:
    """The probabilities of a file, or of what calibrators make of it; labels are not looked at."""
    thin = data.sample(MOST_ROWS) or data
    parts = thin.fold(partial(_logits, Through(stages)), operator.add)
    every = np.concatenate(parts)
    places = np.linspace(0, len(every) - 1, min(len(every), MOST_ROWS)).astype(np.intp)
    return World(name, every[places])


def _logits(predictor: Through, tile: Tile) -> list[NumpyArray]:
    return [to_numpy(predictor(tile)).astype(np.float64)]


@dataclass(frozen=True)
class Sampling:
    """Samples of a world, and what is measured on them.

    Attributes
    ----------
    world : World
    metric : str
    seed : int
        Equal ones give equal numbers.
    """

    world: World
    metric: str
    seed: int = 0

    def evaluations(
        self, rows: int, temperature: float, samples: int, *, intervals: bool
    ) -> Iterator[Evaluation]:
        """What ``calib evaluate`` measures of so many samples."""
        # With one seed all samples share the draws of the bootstrap, which take long to make.
        bootstrap = Bootstrap(seed=self.seed) if intervals else None
        panel, engine = Panel([self.metric], bootstrap=bootstrap), Engine(threads=1)
        for sample in range(samples):
            generator = np.random.default_rng([self.seed, rows, sample])
            logits, labels = self.world.draw(generator, rows, temperature)
            source = ArraySource(logits.astype(np.float32), labels)
            yield from measure(open_data(engine, source), [Through()], panel)

    def numbers(
        self, rows: int, temperature: float, samples: int, end: str = ""
    ) -> Iterator[float]:
        """The metric of so many samples, or ``low`` or ``high`` of its interval.

        Raises
        ------
        UsageError
            The metric has no interval.
        """
        for each in self.evaluations(rows, temperature, samples, intervals=bool(end)):
            if not end:
                yield each.values[self.metric]
            elif self.metric in each.intervals:
                yield float(getattr(each.intervals[self.metric], end))
            else:
                raise UsageError(f"--metric {self.metric}: it has no interval")


@dataclass(frozen=True)
class GatePlan:
    """How many rows one gate takes.

    Attributes
    ----------
    condition : str
        What stands after ``--fail-if``.
    goal : {"pass", "fail"}
        What is to become of the model.
    error : float
        The true error of that model.
    rows : int
    simulated : bool
        Whether so many rows were simulated; more than `MOST_ROWS` are extrapolated.
    at_limit : float or None
        How often a model whose true error is the limit does the same, of a plain metric. None of
        an end of an interval, by which at most 2.5 % do.
    """

    condition: str
    goal: Goal
    error: float
    rows: int
    simulated: bool
    at_limit: float | None


def plan_gates(
    sampling: Sampling, limit: float, power: float, *, good: float = 0.0, bad: float | None = None
) -> list[GatePlan]:
    """The rows that each kind of gate with a limit takes.

    Parameters
    ----------
    sampling : Sampling
    limit : float
        The error that is to be told from smaller or larger ones.
    power : float
        How often the gate is to say what is true.
    good : float
        The true error of a model that should pass.
    bad : float, optional
        The true error of a model that should fail; twice the limit if there is none.

    Raises
    ------
    UsageError
        The numbers are in no order, or rows cannot be planned for the metric.
    """
    bad = 2 * limit if bad is None else bad
    if not 0 <= good < limit < bad:
        raise UsageError(
            f"--good {good:g} --limit {limit:g} --bad {bad:g}: each must be smaller than the next"
        )
    if not 0.5 < power < 1:
        raise UsageError(f"--power {power:g}: must be between 0.5 and 1")
    metric, world = sampling.metric, sampling.world
    METRICS.find(metric)
    if not abs(world.error(metric, 1.0)) < _NEGLIGIBLE * limit:
        raise UsageError(
            f"--metric {metric}: rows are planned for errors of the confidence, ece for example, "
            "of which a calibrated model has none"
        )
    return [
        plan_gate(sampling, limit, power, good),
        plan_gate(sampling, limit, power, good, "high"),
        plan_gate(sampling, limit, power, bad, "low"),
    ]


def plan_gate(
    sampling: Sampling, limit: float, power: float, error: float, end: End = ""
) -> GatePlan:
    """The rows that one kind of gate takes.

    Parameters
    ----------
    sampling : Sampling
    limit, power : float
        As of `plan_gates`.
    error : float
        The true error of the model that should pass if it is below the limit, and fail if above.
    end : {"", "low", "high"}
        What is compared with the limit: the metric itself, or an end of its interval.
    """
    rows = _rows(sampling, limit, power, error, end)
    name = ".".join(filter(None, (sampling.metric, end)))
    return GatePlan(
        condition=f"{name} {'>=' if end == 'high' else '>'} {limit:g}",
        goal="pass" if error < limit else "fail",
        error=error,
        rows=rows,
        simulated=rows <= MOST_ROWS,
        at_limit=None if end else _passing_at_limit(sampling, limit, rows),
    )


def _passing_at_limit(sampling: Sampling, limit: float, rows: int) -> float:
    temperature = sampling.world.temperature(sampling.metric, limit)
    numbers = sampling.numbers(min(rows, MOST_ROWS), temperature, _PLAIN_SAMPLES)
    return float(np.mean([number <= limit for number in numbers]))


def _rows(sampling: Sampling, limit: float, power: float, error: float, end: str) -> int:
    """The rows with which a number is on the right side of the limit as often as asked for."""
    temperature = sampling.world.temperature(sampling.metric, error)
    share = power if error < limit else 1 - power
    rows = min(max(1 / limit**2, 4 * _LEAST_ROWS), MOST_ROWS)
    for samples in _ROUNDS:
        at = round(min(max(rows, _LEAST_ROWS), MOST_ROWS))
        numbers = list(sampling.numbers(at, temperature, samples, end))
        distance = (np.quantile(numbers, share) - error) / (limit - error)
        rows = at * max(float(distance), 0.0) ** 2
    return _two_digits(max(rows, _LEAST_ROWS))


def _two_digits(rows: float) -> int:
    """Rounded up to two digits."""
    unit = 10 ** max(math.floor(math.log10(rows)) - 1, 0)
    return int(math.ceil(rows / unit) * unit)
