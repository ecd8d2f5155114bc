"""How often the gates of ``calib history`` fail where nothing changes, and where something does.

    OPENBLAS_NUM_THREADS=1 python benchmarks/trends.py [--histories N] [--runs N] [--rows N]

Models are measured as `calib evaluate` does, on new rows in every run or on the same rows
in all. A line for each: the share of histories that fail ``ece.trend.low > 0`` (2.5 % is right
where nothing changes), and the share in which a run leaves the band.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from worlds import normal

import calibcli
from calibcli.metrics.panel import Evaluation
from calibcli.workflow.quantities import Estimate
from calibcli.workflow.runs import control_bands, fit_trend

SLOPES = {"calibrated": (1.0, 0.0), "overconfident": (1.3, 0.0), "getting worse": (1.0, 0.1)}
"""How much too large the logits are in the first run, and how much more in each one after it."""


def sample(random: np.random.Generator, rows: int, sharpness: float) -> Estimate:
    """The ECE of a model whose logits are so many times too large."""
    logits = normal(5)(random, rows).astype(float)
    gumbel = random.gumbel(size=logits.shape)
    labels = (logits + gumbel).argmax(axis=1)
    found = calibcli.evaluate(
        logits * sharpness, labels, input="logits", metrics=("ece",), bootstrap=200
    )
    return estimate_of(found)


def estimate_of(found: Evaluation) -> Estimate:
    """The estimate of the ECE with its interval."""
    value, interval = found.estimates["ece"], found.intervals["ece"]
    return Estimate(value, interval.low, interval.high)


def main() -> None:
    """Parse, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--histories", type=int, default=400)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{'model':16}{'rows':8}{'trend.low > 0':>15}{'left the band':>15}{'s.e.':>7}")
    for name, (first, more) in SLOPES.items():
        for rows in ("new", "same"):
            failed = left = 0
            for history in range(options.histories):
                seeds = [options.seed, history]
                randoms = [
                    np.random.default_rng([*seeds, run if rows == "new" else 0])
                    for run in range(options.runs)
                ]
                # Of the same rows, models differ a little all the same.
                jitter = np.random.default_rng([*seeds, 99]).normal(0, 0.02, options.runs)
                estimates = [
                    sample(random, options.rows, first + more * run + jitter[run])
                    for run, random in enumerate(randoms)
                ]
                failed += fit_trend(estimates).slope.low > 0
                left += any(band.signal in ("high", "low") for band in control_bands(estimates))
            share = failed / options.histories
            error = math.sqrt(max(share * (1 - share), 0.025 * 0.975) / options.histories)
            print(
                f"{name:16}{rows:8}{share:15.1%}{left / options.histories:15.1%}{error:7.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
