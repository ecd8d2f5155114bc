"""Train a small network with every loss: ``make bench-training``.

Prints what each loss gives on scikit-learn's digits, over five seeds, before and after temperature
scaling, and writes ``build/bench/training.json``. ``--record`` also puts the tables into
``docs/training.md``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import statistics
import sys
import time
from pathlib import Path

import report
import training_runs
from training_runs import SPLITS, Job

from calibcli.torch_losses import LOSSES

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "training.md"
RESULTS = ROOT / "build" / "bench" / "training.json"
SEEDS = 5

_MARKED = re.compile(r"(?<=<!-- training: begin -->\n).*(?=<!-- training: end -->)", re.DOTALL)

Figures = dict[str, dict[str, float]]

# Of the test images: which data, and how they are weighted.
TABLES = {
    "Digits": ("digits", "test"),
    "Long-tailed digits, judged on balanced test images": ("long-tailed digits", "test"),
    "Long-tailed digits, judged with the class shares of the training images": (
        "long-tailed digits",
        "prior",
    ),
}
# Heading, figure, factor and decimals.
COLUMNS = (
    ("accuracy, %", "accuracy", 100, 1),
    ("NLL", "nll", 1, 3),
    ("ECE, %", "ece", 100, 1),
    ("temperature", "temperature", 1, 2),
    ("NLL after", "nll_after", 1, 3),
    ("ECE after, %", "ece_after", 100, 1),
)


def main() -> None:
    """Train, print, and record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--losses", metavar="NAME[,NAME]", default=",".join(LOSSES))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--record", action="store_true", help="write docs/training.md, too")
    options = parser.parse_args()
    losses = options.losses.split(",")
    for name in losses:
        if name not in LOSSES:
            parser.error(f"no loss is called {name!r}; there are {', '.join(LOSSES)}")
    begin = time.perf_counter()
    results = train_all(
        [Job(d, name, s) for s in range(options.seeds) for d in SPLITS for name in losses]
    )
    seconds = time.perf_counter() - begin
    text = document(results, losses)
    print(text)
    print(f"{len(results)} networks in {seconds:.0f} s; {report.machine()}")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**vars(job), "figures": figures} for job, figures in results.items()]
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if options.record:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(_MARKED.sub(lambda _: f"\n{text}\n", page), encoding="utf-8")


def train_all(jobs: list[Job]) -> dict[Job, Figures]:
    """The figures of all jobs, each run on one core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    results = {}
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        for job, figures in zip(jobs, pool.imap(training_runs.run, jobs), strict=True):
            results[job] = figures
            if sys.stderr.isatty():
                print(f"\r{len(results)}/{len(jobs)}", end="", file=sys.stderr)
    return results


def document(results: dict[Job, Figures], losses: list[str]) -> str:
    """The tables as Markdown, each under a heading."""
    parts = []
    for heading, (data, judged) in TABLES.items():
        found = {
            name: [f[judged] for job, f in results.items() if (job.data, job.loss) == (data, name)]
            for name in losses
        }
        parts += [f"### {heading}", table(found), by_chance(found)]
    return "\n\n".join([*parts, report.versions()])


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """A line a loss, with means and standard deviations over the seeds."""
    rows = [("loss", *(heading for heading, *_ in COLUMNS), "NLL after, against nll")]
    rows += [(f"`{name}`", *_cells(runs), _against(runs, found)) for name, runs in found.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def by_chance(found: dict[str, list[dict[str, float]]]) -> str:
    """What the ECE after scaling would be if the probabilities were right."""
    chances = [100 * statistics.fmean(run["chance"] for run in runs) for runs in found.values()]
    return (
        "Were the scaled probabilities exactly right, their ECE would still be "
        f"{min(chances):.1f} to {max(chances):.1f} % by chance, depending on the loss."
    )


def _cells(runs: list[dict[str, float]]) -> list[str]:
    return [_cell([run[figure] for run in runs], *how) for _, figure, *how in COLUMNS]


def _against(runs: list[dict[str, float]], found: dict[str, list[dict[str, float]]]) -> str:
    """The difference of the NLL after scaling from that of cross-entropy with the same seed."""
    plain = found.get("nll", runs)
    if plain is runs:
        return ""
    pairs = zip(runs, plain, strict=True)
    return _cell([run["nll_after"] - other["nll_after"] for run, other in pairs], 1, 3, "+")


def _cell(values: list[float], factor: float, decimals: int, sign: str = "") -> str:
    scaled = [factor * value for value in values]
    spread = statistics.stdev(scaled) if len(scaled) > 1 else 0.0
    return f"{statistics.fmean(scaled):{sign}.{decimals}f} ± {spread:.{decimals}f}"


if __name__ == "__main__":
    main()
