"""How often the tests of calibration reject models that are calibrated.

    OPENBLAS_NUM_THREADS=1 python benchmarks/levels.py [--runs N] [--seed N] [--worlds TEXT]
        [--keep FILE]

A line for each world and number of rows: the share of the samples with a p below 0.05, test by
test, and at the end that of all tests together. 5 % is right; where nearly all samples have too few
errors for a p-value, it is 0. With 10,000 runs a share of 5 % has a standard error of 0.2 points,
with 300 of 1.3. The worlds that cost least come first. With ``--keep`` the counts of every 250 runs
are added to a file, and what it has is not done again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from worlds import Random, World, forest, heavy, long_tailed, normal, peaked, rare

from calibcli.metrics.hypothesis_tests import CalibrationTests, TestResult
from calibcli.metrics.view import View

SIZES = {
    "2 classes": (normal(2), (50, 200, 1000, 5000)),
    "10 classes": (normal(10), (50, 500, 2000)),
    "10 classes, 96 % right": (peaked(10, 8.0), (600, 1000, 5000)),
    "100 classes": (peaked(100, 7.0), (500, 2000)),
    "1 % positives": (rare, (2500, 5000)),
    "forest of 50 trees": (forest, (200, 1000)),
    "heavy tails": (heavy, (200, 1000)),
    "long tail": (long_tailed, (300, 2000)),
    "weights": (normal(5), (200, 1000)),
}
BATCH = 250


def worlds(text: str) -> list[World]:
    """All worlds whose name has a text in it, the smallest first."""
    every = [
        World(name, size, model, calibrated=True, weighted=name == "weights")
        for name, (model, sizes) in SIZES.items()
        for size in (sizes if text in name else ())
    ]
    random = np.random.default_rng(0)
    return sorted(every, key=lambda world: world.draw(random, 1).logits.size * world.rows)


def results(world: World, random: Random, seed: int) -> list[TestResult]:
    """The tests of one sample of a calibrated model."""
    rows = world.draw(random)
    tests = CalibrationTests(world.rows, seed)
    return tests.finish(tests.partial(View(rows.logits, rows.labels, rows.weights)))


def batches(world: World, seed: int, runs: int, keep: Path | None) -> Iterator[dict[str, int]]:
    """By title, how many of a batch of runs are rejected; those of a file first."""
    for first in range(0, runs, BATCH):
        batch = range(first, min(first + BATCH, runs))
        key = [world.name, world.rows, seed, first, len(batch)]
        known = [] if keep is None or not keep.exists() else keep.read_text("utf-8").splitlines()
        counts = next((row[1] for row in map(json.loads, known) if row[0] == key), None)
        if counts is None:
            counts = {}
            for run in batch:
                for result in results(world, np.random.default_rng([seed, run]), run):
                    counts[result.title] = counts.get(result.title, 0) + bool(result.p < 0.05)
            if keep is not None:
                with keep.open("a", encoding="utf-8") as file:
                    print(json.dumps([key, counts]), file=file)
        yield counts


def main() -> None:
    """Parse, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000, help="of each world")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worlds", default="", help="only those whose name has this in it")
    parser.add_argument("--keep", type=Path, help="file of counts, to go on where one has stopped")
    options = parser.parse_args()
    head = True
    for world in worlds(options.worlds):
        counts = list(batches(world, options.seed, options.runs, options.keep))
        totals = {title: sum(each[title] for each in counts) for title in counts[0]}
        if head:
            print("| world | rows |", " | ".join(totals), "|")
            print("| --- " * (2 + len(totals)) + "|")
            head = False
        shares = " | ".join(f"{count / options.runs:.1%}" for count in totals.values())
        print(f"| {world.name} | {world.rows:,} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
