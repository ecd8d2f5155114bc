"""How often do gates fail? Models with known errors are measured many times, and failures counted.

    python benchmarks/gate_rates.py [--runs N] [--seed N] [--rows N,N]

The model has ten classes and a mean confidence of 90 %; where its true ECE is not 0 it is
overconfident. A share of 50 % has a standard error of 3.5 points in 200 runs, one of 2.5 % has 1.1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from calibcli.workflow.conditions import parse_gate
from calibcli.workflow.gates import judge
from calibcli.workflow.planning import Sampling, standard_world
from calibcli.workflow.quantities import Subject

GATES = ("ece > 0.02", "ece > ece.chance.high", "ece.low > 0.02", "ece.high >= 0.03")
TRUTHS = (0.0, 0.01, 0.02, 0.03)
ROWS = (500, 1000, 2000, 5000, 10000)


def failures(sampling: Sampling, rows: int, error: float, runs: int) -> list[float]:
    """The share of samples that fail each gate."""
    temperature = sampling.world.temperature(sampling.metric, error)
    counts = [0] * len(GATES)
    for each in sampling.evaluations(rows, temperature, runs, intervals=True):
        name = sampling.metric
        entry = {
            "value": each.values[name],
            **each.intervals[name]._asdict(),
            "chance": each.chances[name]._asdict(),
        }
        subject = Subject("sample", {name: entry})
        for place, text in enumerate(GATES):
            counts[place] += not judge(parse_gate(text), subject).passed
    return [count / runs for count in counts]


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, simulate, print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200, help="of each truth and number of rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", default=",".join(map(str, ROWS)))
    options = parser.parse_args(arguments)
    sampling = Sampling(standard_world(), "ece", options.seed)
    print(f"| rows | true ECE | {' | '.join(f'`{gate}`' for gate in GATES)} |")
    print("|--:|--:|" + "--:|" * len(GATES))
    for rows in map(int, options.rows.split(",")):
        for error in TRUTHS:
            shares = failures(sampling, rows, error, options.runs)
            told = " | ".join(f"{share:.0%}" for share in shares)
            print(f"| {rows:,} | {error:g} | {told} |", flush=True)


if __name__ == "__main__":
    main()
