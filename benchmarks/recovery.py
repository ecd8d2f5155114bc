"""How near methods come to a truth that is known: NLL above that of the true probabilities.

    python benchmarks/recovery.py --only "temperature svs auto probmetrics:sms"

Each world draws logits and says which probabilities their labels follow, so that the NLL of new
rows needs no labels and has hardly any noise. A world is fitted with 50 to 50,000 rows; the fewer
they are, the more samples are drawn. Results are added to a CSV as they come, and a run that finds
some there does only what is missing.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from arena import Arena, choose, make_jobs, run, without_missing
from arena_contenders import Contender, calib_method, contenders
from arena_data import Experiment, Scores
from arena_results import DONE, Record, forget
from worlds import cooled, noisy, normal, peaked, rare

Array = np.ndarray[Any, Any]
Random = np.random.Generator
Model = Callable[[Random, int], Array]
Truth = Callable[[Random, Array], Array]

SAMPLES: Mapping[int, int] = {50: 6, 500: 4, 5000: 2, 50_000: 1}
"""How many samples are drawn, by the rows that a fit has."""

NEW_SCORES = 200_000
"""Scores of new rows, which tell an excess to about a hundredth of itself."""

ROOT = Path(__file__).resolve().parent.parent

SHOWN = (
    "none",
    "temperature",
    "temperature/target",
    "svs/target",
    "monotone",
    "spline",
    "venn-abers",
    "vector",
    "svs",
    "sms",
    "curved-svs",
    "curved-sms",
    "auto",
    "auto/stack",
    "probmetrics:temp-scaling",
    "probmetrics:ts-mix",
    "probmetrics:logistic",
    "probmetrics:isotonic",
    "probmetrics:ivap",
    "probmetrics:svs",
    "probmetrics:sms",
)
"""What takes part unless others are named."""


def field() -> dict[str, Contender]:
    """The contenders of the arena, and fits that also get the new rows without their labels."""
    with_target = {
        f"{method}/target": Contender(partial(calib_method, method, {}), "calib", unlabelled=True)
        for method in ("temperature", "svs")
    }
    return {**contenders(), **with_target}


@dataclass(frozen=True)
class KnownTruth:
    """Logits and the log-probabilities, up to a constant a row, that their labels follow.

    Attributes
    ----------
    model : callable
        Random and a number of rows -> logits (n, K).
    truth : callable
        Random and logits (n, K) -> true log-probabilities.
    new_model, new_truth : callable or None
        Those of new rows, where they are others.
    """

    classes: int
    model: Model
    truth: Truth
    new_model: Model | None = None
    new_truth: Truth | None = None


def log_probs(logits: Array) -> Array:
    """Log-probabilities (n, K) of logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalised: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised


def as_it_is(_: Random, logits: Array) -> Array:
    """The truth of a calibrated model."""
    return logits


def bent(power: float) -> Truth:
    """The truth of a model whose log-probabilities are to be bent: ``-(-log p)^power``."""
    return lambda _, logits: -((-log_probs(logits)) ** power) * 1.5


def biased(classes: int, spread: float) -> Truth:
    """The truth of a model that is overconfident and prefers some classes."""
    biases = spread * np.random.default_rng(1).permutation(np.linspace(-1, 1, classes))
    return lambda _, logits: logits / 1.3 + biases


def rotated(classes: int, size: float) -> Truth:
    """The truth of a model that takes some classes for others."""
    mixing = size * np.random.default_rng(2).standard_normal((classes, classes))
    matrix = np.eye(classes) / 1.2 + mixing
    return lambda _, logits: log_probs(logits) @ matrix.T


_TAIL = 0.7 ** np.arange(10)
_SIGNAL = 2.0
_TOO_SURE = 1.5


def of_classes(shares: Array) -> Model:
    """Logits of a model that was trained on a long tail, of rows with some class shares.

    Features are normal around 2 in the row's class and 0 in the others, so that the true
    log-probabilities are 2 times the features plus the logarithms of the shares.
    """

    def draw(random: Random, rows: int) -> Array:
        classes = random.choice(len(shares), rows, p=shares / shares.sum())
        features = random.standard_normal((rows, len(shares)))
        features[np.arange(rows), classes] += _SIGNAL
        logits: Array = _TOO_SURE * (_SIGNAL * features + np.log(_TAIL))
        return logits

    return draw


def of_shares(shares: Array) -> Truth:
    """The truth of these logits where classes have some shares."""
    return lambda _, logits: logits / _TOO_SURE + np.log(shares / _TAIL)


WORLDS: Mapping[str, KnownTruth] = {
    "calibrated, 2": KnownTruth(2, normal(2), as_it_is),
    "overconfident, 2": KnownTruth(2, normal(2), cooled(1.6)),
    "bent, 2": KnownTruth(2, normal(2, 4.0), bent(0.5)),
    "biased, 2": KnownTruth(2, normal(2), biased(2, 0.5)),
    "label noise, 2": KnownTruth(2, normal(2, 3.0), noisy(0.1)),
    "rare, 2": KnownTruth(2, rare, cooled(1.3)),
    "calibrated, 10": KnownTruth(10, normal(10), as_it_is),
    "overconfident, 10": KnownTruth(10, normal(10), cooled(1.6)),
    "bent, 10": KnownTruth(10, peaked(10, 6.0), bent(0.6)),
    "biased, 10": KnownTruth(10, normal(10), biased(10, 1.0)),
    "rotated, 10": KnownTruth(10, normal(10), rotated(10, 0.1)),
    "label noise, 10": KnownTruth(10, peaked(10, 8.0), noisy(0.1)),
    "shift, 10": KnownTruth(
        10, of_classes(_TAIL), of_shares(_TAIL), of_classes(np.ones(10)), of_shares(np.ones(10))
    ),
    "biased, 100": KnownTruth(100, peaked(100, 7.0), biased(100, 1.0)),
}
"""Truths by name and number of classes."""


def shapes() -> dict[str, tuple[int, int, int]]:
    """Rows to fit on, new rows and classes, by the name of the experiment."""
    return {
        f"{world}, {rows}": (rows, NEW_SCORES // truth.classes, truth.classes)
        for world, truth in WORLDS.items()
        for rows in SAMPLES
        if rows > truth.classes
    }


def draw(name: str, sample: int) -> Experiment:
    """A sample to fit on, and new rows with their true probabilities, the same for all samples."""
    world, _, rows = name.rpartition(", ")
    truth = WORLDS[world]
    place = list(WORLDS).index(world)
    random = np.random.default_rng([place, int(rows), sample])
    fit = _drawn(truth.model, truth.truth, random, int(rows))
    new = _drawn(
        truth.new_model or truth.model,
        truth.new_truth or truth.truth,
        np.random.default_rng([place]),
        NEW_SCORES // truth.classes,
    )
    return Experiment(*fit[:2], *new)


def _drawn(model: Model, truth: Truth, random: Random, rows: int) -> tuple[Scores, Array, Array]:
    logits = model(random, rows).astype(np.float32)
    true = log_probs(truth(random, logits.astype(np.float64)))
    labels = (true + random.gumbel(size=true.shape)).argmax(axis=1)
    return Scores(logits, "logits"), labels, np.exp(true)


def report(records: Sequence[Record]) -> str:
    """Tables of the mean excess in thousandths of a nat: by world, and over all of them."""
    found: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for one in records:
        if one.status == DONE and one.excess is not None:
            found[one.set.rpartition(", ")[0], one.fit_rows, one.method].append(1000 * one.excess)
    methods = sorted({method for _, _, method in found})
    counts = sorted({truth.classes for truth in WORLDS.values()})
    parts = [_by_rows(found, methods, classes) for classes in counts]
    parts += [_by_world(found, methods, rows) for rows in SAMPLES]
    missing = [f"{one.method} on {one.set}: {one.note}" for one in records if one.status != DONE]
    if missing:
        parts.append("\n".join(["Not ended, or failed:", "", *(f"- {text}" for text in missing)]))
    return "\n\n".join(filter(None, parts))


_Found = Mapping[tuple[str, int, str], Sequence[float]]


def _by_rows(found: _Found, methods: Sequence[str], classes: int) -> str:
    """Means over the worlds of so many classes whose new rows are like the old, the best first."""
    worlds = [
        world
        for world, truth in WORLDS.items()
        if truth.classes == classes and truth.new_model is None
    ]
    lines, samples = [], [rows for rows in SAMPLES if rows > classes]
    for method in methods:
        done = [[found.get((world, rows, method), []) for world in worlds] for rows in samples]
        cells = [_mean_and_error(parts) for parts in done]
        means = [fmean(map(fmean, parts)) for parts in done if all(parts)]
        # Of few rows the excess is many times that of many: ranks are by its logarithm.
        rank = fmean(math.log(max(mean, 1e-3)) for mean in means) if all(cells) else math.inf
        if any(cells):
            lines.append((rank, _row(f"`{method}`", *cells)))
    title = f"{classes} classes, worlds: {len(worlds)}"
    head = _head(title, *(f"{rows:,} rows" for rows in samples))
    return "\n".join([*head, *(line for _, line in sorted(lines))]) if lines else ""


def _by_world(found: _Found, methods: Sequence[str], rows: int) -> str:
    worlds = [
        world for world in WORLDS if any((world, rows, method) in found for method in methods)
    ]
    lines = _head(f"{rows:,} rows", *worlds)
    for method in methods:
        cells = [_mean_and_error([found.get((world, rows, method), [])]) for world in worlds]
        if any(cells):
            lines.append(_row(f"`{method}`", *cells))
    return "\n".join(lines) if worlds else ""


def _mean_and_error(parts: Sequence[Sequence[float]]) -> str:
    """The mean of the parts' means, with its standard error over samples where there are some."""
    if not all(parts):
        return ""
    # Rounding makes the excess of the truth itself a negative one of 1e-17.
    mean = abs(fmean(fmean(part) for part in parts))
    text = f"{mean:.1f}"
    if any(len(part) < 2 for part in parts):
        return text
    error = sum(stdev(part) ** 2 / len(part) for part in parts) ** 0.5 / len(parts)
    return f"{text} ± {error:.1f}"


def _head(*cells: str) -> list[str]:
    return [_row(*cells), "|---|" + "---:|" * (len(cells) - 1)]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--csv", type=Path, default=ROOT / "build" / "arena" / "recovery.csv")
    add("--only", default=" ".join(SHOWN), metavar="NAMES", help="methods or libraries")
    add("--fresh", default="", metavar="NAMES", help="forget earlier results of these")
    add("--minutes", type=float, default=30.0, help="give out no jobs after so long")
    add("--workers", type=int, default=1)
    add("--budget", type=float, default=300.0, help="seconds of processor time for each method")
    add("--report", action="store_true", help="run nothing, print what there is")
    options = parser.parse_args()
    records = forget(options.csv, choose(field(), options.fresh))
    if not options.report:
        taking_part = without_missing(field())
        chosen = choose(field(), options.only)
        taking_part = {name: each for name, each in taking_part.items() if name in chosen}
        sizes = shapes()
        splits = {name: SAMPLES[rows] for name, (rows, _, _) in sizes.items()}
        jobs = make_jobs(taking_part, splits, sizes)
        arena = Arena(jobs, taking_part, sizes, records, options.csv, options.budget)
        run(arena, field, draw, options)
        records = arena.records
    print(report(records))


if __name__ == "__main__":
    main()
