"""Train small networks with every loss: ``make bench-training``.

On MNIST-1D, balanced and long-tailed, and on images of drawn shapes, over five seeds, each with
the best of a small set of options, chosen on validation rows. Figures of a job go into
``build/bench/training.jsonl`` as soon as they are there, and a later run goes on from them.
``--record`` puts the tables and the picture into ``docs/training.md``.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import report
import training_runs
from training_runs import Job

from calibcli.torch_losses import LOSSES

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "training.md"
PICTURE = ROOT / "docs" / "images" / "training.svg"
RESULTS = ROOT / "build" / "bench" / "training.jsonl"
SEEDS = 5
PIXEL_LOSSES = ("nll", "cals", "bsce-gra", "focal", "mbls", "adafocal")
# Those that questions are about come first, so that a run that is cut short has answers.
_FIRST = ("nll", "cals", "bsce-gra", "adafocal", "focal", "mbls", "class-wise", "bsce", "macro")

_MARKED = re.compile(r"(?<=<!-- training: begin -->\n).*(?=<!-- training: end -->)", re.DOTALL)

Run = dict[str, float]

TABLES = {
    "balanced": "MNIST-1D, balanced",
    "long-tailed": "MNIST-1D, long-tailed training and validation rows, balanced test rows",
    "segmentation": "Pixels of drawn shapes",
}
# Heading, figure, factor and decimals.
COLUMNS = (
    ("accuracy, %", "accuracy", 100, 1),
    ("NLL", "nll", 1, 3),
    ("Brier", "brier", 1, 3),
    ("ECE, %", "ece", 100, 1),
    ("T", "temperature", 1, 2),
    ("NLL after", "nll_after", 1, 3),
    ("ECE after, %", "ece_after", 100, 1),
    ("AUROC unseen, %", "auroc_unseen", 100, 1),
    ("AUROC noise, %", "auroc_noise", 100, 1),
)
# Half the width of a 95 % interval in standard errors (Student's t), by the number of seeds.
_QUANTILES = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}


def main() -> None:
    """Train what is missing, print, and record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--losses", metavar="NAME[,NAME]", default=",".join(LOSSES))
    parser.add_argument("--data", metavar="NAME[,NAME]", default=",".join(TABLES))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--keep", metavar="FILE", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="train nothing, print what is kept")
    parser.add_argument("--record", action="store_true", help="write docs/training.md, too")
    options = parser.parse_args()
    losses, data = options.losses.split(","), options.data.split(",")
    for name in losses:
        if name not in LOSSES:
            parser.error(f"no loss is called {name!r}; there are {', '.join(LOSSES)}")
    results = read(options.keep)
    wanted = [] if options.report else list(jobs(losses, data, options.seeds))
    options.keep.parent.mkdir(parents=True, exist_ok=True)
    for job in wanted:
        if job in results:
            continue
        begin = time.process_time()
        results[job] = training_runs.run(job)
        seconds = time.process_time() - begin
        line = {**vars(job), **job.way(), "seconds": seconds, "runs": results[job]}
        with options.keep.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")
        print(f"{job.data} {job.loss}: {seconds:.0f} s of CPU", file=sys.stderr)
    text = document({job: runs for job, runs in results.items() if job.seeds == options.seeds})
    print(text)
    if options.record:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(_MARKED.sub(lambda _: f"\n{text}\n", page), encoding="utf-8")
        draw({job: runs for job, runs in results.items() if job.data == "balanced"})


def jobs(losses: Iterable[str], data: Iterable[str], seeds: int) -> Iterable[Job]:
    """What there is to run, the most wanted first."""
    ordered = sorted(losses, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    for chosen in (ordered[: len(_FIRST)], ordered[len(_FIRST) :]):
        for task in data:
            for name in chosen:
                if task != "segmentation" or name in PIXEL_LOSSES:
                    yield Job(task, name, seeds)


def read(path: Path) -> dict[Job, list[Run]]:
    """The figures that a file has, by job; those that were got in another way are left out."""
    if not path.exists():
        return {}
    results = {}
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        job = Job(row["data"], row["loss"], row["seeds"])
        if job.way().items() <= row.items():
            results[job] = row["runs"]
    return results


def best(runs: list[Run]) -> list[Run]:
    """Of each seed, the run with the options that have the best mean validation NLL."""
    settings = sorted({run["setting"] for run in runs})
    by_setting = [[run for run in runs if run["setting"] == setting] for setting in settings]
    return min(by_setting, key=lambda some: statistics.fmean(r["validation_nll"] for r in some))


def document(results: dict[Job, list[Run]]) -> str:
    """The tables as Markdown, each under a heading."""
    parts = []
    for data, heading in TABLES.items():
        chosen = {job.loss: best(runs) for job, runs in results.items() if job.data == data}
        if chosen:
            chosen = {name: chosen[name] for name in LOSSES if name in chosen}
            parts += [f"### {heading}", table(chosen), by_chance(chosen)]
    return "\n\n".join([*parts, report.versions()])


def table(chosen: dict[str, list[Run]]) -> str:
    """A line a loss, with means and the half widths of 95 % intervals over the seeds."""
    columns = [each for each in COLUMNS if all(each[1] in runs[0] for runs in chosen.values())]
    heads = ("loss", *(heading for heading, *_ in columns), "NLL after, against nll")
    lines = [heads]
    for name, runs in chosen.items():
        options = training_runs.settings_of(name)[int(runs[0]["setting"])]
        spelt = " ".join(f"{key}={value:g}" for key, value in options.items())
        cells = [_cell([run[figure] for run in runs], *how) for _, figure, *how in columns]
        against = ""
        if name != "nll" and "nll" in chosen:
            pairs = zip(runs, chosen["nll"], strict=True)
            against = _cell(
                [run["nll_after"] - plain["nll_after"] for run, plain in pairs], 1, 3, "+"
            )
        lines.append((f"`{name}` {spelt}".rstrip(), *cells, against))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def by_chance(chosen: dict[str, list[Run]]) -> str:
    """What the ECE would be if the probabilities were right."""
    chances = [100 * run["chance_after"] for runs in chosen.values() for run in runs]
    return (
        "Were the scaled probabilities exactly right, their ECE would still be "
        f"{min(chances):.1f} to {max(chances):.1f} % by chance."
    )


def draw(results: dict[Job, list[Run]]) -> None:
    """ECE before and after scaling of every loss on the balanced rows, with their intervals."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    chosen = sorted(
        ((job.loss, best(runs)) for job, runs in results.items()),
        key=lambda pair: statistics.fmean(run["ece"] for run in pair[1]),
        reverse=True,
    )
    rcParams["svg.hashsalt"] = "calib"
    figure = Figure(figsize=(7, 0.6 + 0.28 * len(chosen)), layout="constrained")
    axes = figure.add_subplot()
    for figure_name, label, colour in (
        ("ece", "as trained", "#b2182b"),
        ("ece_after", "after temperature scaling", "#2166ac"),
    ):
        values = [[100 * run[figure_name] for run in runs] for _, runs in chosen]
        axes.errorbar(
            [statistics.fmean(each) for each in values],
            range(len(chosen)),
            xerr=[half_width(each) for each in values],
            fmt="o",
            color=colour,
            label=label,
        )
    chance = statistics.fmean(100 * run["chance_after"] for _, runs in chosen for run in runs)
    axes.axvline(chance, color="0.6", linestyle="--", label="right probabilities, by chance")
    axes.set_yticks(range(len(chosen)), [name for name, _ in chosen])
    axes.set_xlabel("ECE of 20,000 test rows, %")
    axes.legend()
    figure.savefig(PICTURE, metadata={"Date": None})


def half_width(values: list[float]) -> float:
    """Half the width of a 95 % interval for the mean; 0 for one value."""
    if len(values) < 2:
        return 0.0
    quantile = _QUANTILES.get(len(values), 2.0)
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def _cell(values: list[float], factor: float, decimals: int, sign: str = "") -> str:
    scaled = [factor * value for value in values]
    mean, half = statistics.fmean(scaled), half_width(scaled)
    return f"{mean:{sign}.{decimals}f} ± {half:.{decimals}f}"


if __name__ == "__main__":
    main()
