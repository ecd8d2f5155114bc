"""How often the tests of calibration reject models that are calibrated.

    python benchmarks/levels.py [--runs N] [--seed N] [--worlds TEXT]

A line for each world and number of rows: the share of the samples with a p below 0.05, test by
test, and at the end that of all tests together. 5 % is right; where nearly all samples have too few
errors for a p-value, it is 0. With 10,000 runs a share of 5 % has a standard error of 0.2 points,
with 300 of 1.3.
"""

from __future__ import annotations

import argparse

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


def results(world: World, random: Random, seed: int) -> list[TestResult]:
    """The tests of one sample of a calibrated model."""
    rows = world.draw(random)
    tests = CalibrationTests(world.rows, seed)
    return tests.finish(tests.partial(View(rows.logits, rows.labels, rows.weights)))


def main() -> None:
    """Parse, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000, help="of each world")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worlds", default="", help="only those whose name has this in it")
    options = parser.parse_args()
    titles: list[str] = []
    for name, (model, sizes) in SIZES.items():
        for size in sizes if options.worlds in name else ():
            world = World(name, size, model, calibrated=True, weighted=name == "weights")
            p = []
            for run in range(options.runs):
                found = results(world, np.random.default_rng([options.seed, run]), run)
                p.append([result.p for result in found])
                if not titles:
                    titles = [result.title for result in found]
                    print("| world | rows |", " | ".join(titles), "|")
                    print("| --- " * (2 + len(titles)) + "|")
            shares = (np.array(p) < 0.05).mean(axis=0)
            print(
                f"| {name} | {size:,} | ", " | ".join(f"{s:.1%}" for s in shares), "|", flush=True
            )


if __name__ == "__main__":
    main()
