"""Are the statistics right? Rows are drawn from known truth, many times, and counted.

    python benchmarks/simulation.py [--runs N] [--seed N] [--metrics NAME,NAME] [--worlds WORD]
        [--part intervals|tests|means]

How often 95 % intervals cover the true value: of the model, after a temperature, and of the change;
and how wide they are on average, relative to 3.92 standard deviations of the estimate. 93 to 97 %
is right, at a width of 1 to 1.3; where the true error is 0, 93 % or more. How often tests at 5 %
reject a calibrated model: 4 to 6 % is right. And the means of debiased errors of a calibrated
model: 0, within two standard errors. A share of 95 % has a standard error of 1.4 points in 250
runs, one of 5 % has 0.5 points in 2000.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from worlds import WORLDS, Rows, World, normal

from calibcli.calibrators.temperature import Temperature
from calibcli.engine.data import Data, open_data
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.metrics.panel import Evaluation, Panel
from calibcli.metrics.resampling import Bootstrap
from calibcli.workflow.diagnostics import run_tests
from calibcli.workflow.measuring import Through, measure

METRICS = (
    *("accuracy", "nll", "brier", "auroc"),
    *("ece", "adaptive_ece", "l2_debiased", "smooth_ece", "ks", "ecce_r"),
    *("class_wise_ece", "class_wise_ece_thresholded", "top_label_ece"),
)
NOT_ERRORS = ("accuracy", "nll", "brier", "auroc", "aurc", "corp_top_discrimination")
AFTER = 1.25
"""The temperature of the second model."""

TRUTH_DRAWS, TRUTH_PROBABILITIES, TESTED_ROWS = 3, 16_000_000, 2000


def opened(rows: Rows) -> Data:
    """Rows in memory, on one thread."""
    keys: dict[str, Any] = {}
    if rows.clusters is not None:
        names = tuple(map(str, range(rows.clusters[-1] + 1)))
        keys = {"keys": {"cluster": rows.clusters}, "key_names": {"cluster": names}}
    return open_data(Engine(threads=1), ArraySource(rows.logits, rows.labels, rows.weights, **keys))


def evaluate(data: Data, panel: Panel) -> list[Evaluation]:
    """The metrics of the logits, and after a temperature."""
    return measure(data, [Through(), Through((Temperature(AFTER),))], panel)


def truth(world: World, metrics: tuple[str, ...], seed: int) -> list[dict[str, float]]:
    """The metrics of very many rows; the errors of a calibrated model are 0 exactly.

    So many that chance adds little even to errors of 1,500 cells: of 40,000 rows it adds 5 %.
    """
    classes = world.draw(np.random.default_rng(seed), 1).logits.shape[1]
    rows = min(TRUTH_PROBABILITIES // classes, 400_000)
    draws = [
        evaluate(opened(world.draw(np.random.default_rng([seed, 1, draw]), rows)), Panel(metrics))
        for draw in range(TRUTH_DRAWS)
    ]
    values = [
        {name: float(np.mean([each.values[name] for each in evaluations])) for name in metrics}
        for evaluations in zip(*draws, strict=True)
    ]
    if world.calibrated:
        values[0] |= {name: 0.0 for name in metrics if name not in NOT_ERRORS}
    return values


@dataclass(frozen=True)
class Coverage:
    """What intervals of a metric are worth in a world: before, after, and of the change.

    Attributes
    ----------
    shares : array (3,)
        Of the runs whose interval covers the truth.
    widths : array (3,)
        Mean width over 3.92 standard deviations of the estimate.
    runs : int
        With an interval.
    """

    shares: np.ndarray[Any, Any]
    widths: np.ndarray[Any, Any]
    runs: int


def coverage(world: World, metrics: tuple[str, ...], runs: int, seed: int) -> dict[str, Coverage]:
    """How often intervals cover, and how wide they are, by metric."""
    before, after = truth(world, metrics, seed)
    hits: dict[str, list[list[bool]]] = defaultdict(list)
    widths: dict[str, list[list[float]]] = defaultdict(list)
    estimates: dict[str, list[list[float]]] = defaultdict(list)
    for run in range(runs):
        rows = world.draw(np.random.default_rng([seed, 2, run]))
        role = None if rows.clusters is None else "cluster"
        panel = Panel(metrics, bootstrap=Bootstrap(seed=run, role=role))
        one, other = evaluate(opened(rows), panel)
        for name in one.intervals:
            parts = (one.intervals[name], other.intervals[name], other.changes[name])
            true = (before[name], after[name], after[name] - before[name])
            hits[name].append(
                [part.low <= value <= part.high for part, value in zip(parts, true, strict=True)]
            )
            widths[name].append([part.high - part.low for part in parts])
            pair = [each.estimates.get(name, each.values[name]) for each in (one, other)]
            estimates[name].append([*pair, pair[1] - pair[0]])
    return {
        name: Coverage(
            np.mean(each, axis=0),
            np.mean(widths[name], axis=0)
            / np.maximum(3.92 * np.std(estimates[name], axis=0), 1e-12),
            len(each),
        )
        for name, each in hits.items()
    }


def rejections(classes: int, runs: int, seed: int) -> dict[str, float]:
    """Share of the runs in which a test at 5 % rejects a calibrated model."""
    world = World("", TESTED_ROWS, normal(classes), calibrated=True)
    counts: dict[str, list[bool]] = defaultdict(list)
    for run in range(runs):
        rows = opened(world.draw(np.random.default_rng([seed, 3, run])))
        for result in run_tests(rows, seed=run):
            counts[result.name].append(result.p < 0.05)
    return {name: float(np.mean(each)) for name, each in counts.items()}


def debiased_means(classes: int, runs: int, seed: int) -> dict[str, tuple[float, float]]:
    """Mean and its standard error of debiased errors of a calibrated model, and of ECE."""
    world = World("", TESTED_ROWS, normal(classes), calibrated=True)
    values: dict[str, list[float]] = defaultdict(list)
    panel = Panel(["l2_squared_debiased", "ece"])
    for run in range(runs):
        rows = opened(world.draw(np.random.default_rng([seed, 4, run])))
        (evaluation,) = measure(rows, [Through()], panel)
        for name, value in evaluation.values.items():
            values[name].append(value)
        for result in run_tests(rows, seed=run):
            if result.name == "skce":
                values["skce"].append(result.estimate or 0.0)
    return {
        name: (float(np.mean(each)), float(np.std(each) / len(each) ** 0.5))
        for name, each in values.items()
    }


def timed(heading: str, make: Callable[[], Any]) -> Any:
    """What a function makes; a heading and the seconds are printed."""
    begin = time.perf_counter()
    made = make()
    print(f"\n{heading} ({time.perf_counter() - begin:.0f} s)", flush=True)
    return made


def print_coverage(metrics: tuple[str, ...], worlds: list[World], runs: int, seed: int) -> None:
    """A table for each world, and means over the worlds."""
    shares: dict[str, list[Any]] = defaultdict(list)
    heads = "".join(f"{head:>8}" for head in 2 * ("before", "after", "change"))
    for world in worlds:
        found = timed(
            f"{world.name}, {runs} runs",
            lambda world=world: coverage(world, metrics, runs, seed),
        )
        print(f"{'coverage, and width over ideal':32}{heads}")
        for name, each in found.items():
            covered = "".join(f"{share:8.1%}" for share in each.shares)
            width = "".join(f"{width:8.2f}" if width < 100 else f"{'':8}" for width in each.widths)
            print(f"{name:32}{covered}{width}", flush=True)
            shares[name].append(each.shares)
    print(f"\n{'mean over worlds':32}{heads[:24]}")
    for name, rows in shares.items():
        print(f"{name:32}" + "".join(f"{share:8.1%}" for share in np.mean(rows, axis=0)))


def main() -> None:
    """Parse, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=250, help="of each world")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--metrics", default=",".join(METRICS))
    parser.add_argument("--worlds", default="", help="only those with this word in their name")
    parser.add_argument("--part", choices=("intervals", "tests", "means"), help="only this")
    options = parser.parse_args()
    runs, seed, metrics = options.runs, options.seed, tuple(options.metrics.split(","))
    if options.part in {None, "intervals"}:
        worlds = [world for world in WORLDS if options.worlds in world.name]
        print_coverage(metrics, worlds, runs, seed)
    if options.part in {None, "tests"}:
        for classes in (2, 10):
            heading = f"rejections, {classes} classes, {TESTED_ROWS} rows, {8 * runs} runs"
            levels = timed(heading, lambda k=classes: rejections(k, 8 * runs, seed))
            for name, share in levels.items():
                print(f"{name:32}{share:8.1%}")
    if options.part in {None, "means"}:
        means = timed("means if calibrated, 10 classes", lambda: debiased_means(10, 2 * runs, seed))
        for name, (mean, error) in means.items():
            print(f"{name:32}{mean:12.2e} ± {error:.1e}")


if __name__ == "__main__":
    main()
