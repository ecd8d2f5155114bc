"""What the losses are worth in a fit after training, beside plain nll: where one of them pays.

    python benchmarks/losses_after_training.py --data FOLDER_OF_THE_SETS --results losses.jsonl

Each regime draws rows of a known truth, or takes stored scores, fits a temperature and a scale and
a bias a class by every loss, and judges on new rows. Results are added to a file as they come, and
a run that finds some there does only what is missing. The table has the NLL above that of plain
nll, in thousandths, with its standard error over the draws, and below it the same of the ECE in
points: what is below 0 is better than nll. A loss that kept plain nll is 0 by itself.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from arena_data import open_experiment
from worlds import cooled, long_tailed, noisy, normal, peaked

import calibcli
from calibcli.workflow.texts import PLUS_MINUS

Array = np.ndarray[Any, Any]

LOSSES: Mapping[str, tuple[str, bool]] = {
    "nll": ("nll", True),
    "brier": ("brier", True),
    "macro": ("macro", True),
    "class-wise": ("class-wise", True),
    "cals": ("cals", True),
    "adafocal": ("adafocal", True),
    "bsce": ("bsce", True),
    "bsce-gra": ("bsce-gra", True),
    "bsce-gra, no link": ("bsce-gra", False),
    "focal": ("focal", True),
    "focal, no link": ("focal", False),
}
METHODS = ("temperature", "vector")
SETS = (
    "nncal_densenet40_cifar10",
    "sctl_densenet40_cifar10lt",
    "psr_resnet50_cifar10",
    "ec_cifar10_vgg19_bn",
    "dfph_cifar10_densenet121_brier",
    "eurosat_resnet18_rgb",
    "verified_vgg16_cifar10",
)
"""Stored scores that take part."""


@dataclass(frozen=True, eq=False)
class Draw:
    """Rows to fit on, and rows to judge on."""

    logits: Array
    labels: Array
    test_logits: Array
    test_labels: Array
    kind: str = "logits"


Model = Callable[[np.random.Generator, int], Array]
Truth = Callable[[np.random.Generator, Array], Array]


@dataclass(frozen=True)
class Regime:
    """Rows that are drawn of a truth; those to judge on may follow another one.

    Attributes
    ----------
    rows, new_rows : int
        To fit on, to judge on.
    model : callable
        Draws logits.
    truth, new_truth : callable
        The log-probabilities of their labels, up to a constant a row.
    balanced : bool
        Whether the rows to judge on have equal class shares.
    draws : int
    methods : tuple of str
    """

    rows: int
    new_rows: int
    model: Model
    truth: Truth
    new_truth: Truth | None = None
    balanced: bool = False
    draws: int = 5
    methods: tuple[str, ...] = METHODS

    def draw(self, seed: int) -> Draw:
        """A draw by a seed."""
        random = np.random.default_rng(seed)
        fit = self._rows(random, self.rows, self.truth)
        new = self._rows(random, self.new_rows, self.new_truth or self.truth)
        if self.balanced:
            counts = np.bincount(new[1])
            kept = [np.flatnonzero(new[1] == k)[: counts.min()] for k in range(len(counts))]
            new = tuple(part[np.concatenate(kept)] for part in new)
        return Draw(*fit, *new)

    def _rows(self, random: np.random.Generator, rows: int, truth: Truth) -> tuple[Array, Array]:
        logits = self.model(random, rows).astype(np.float32)
        true = truth(random, logits.astype(np.float64))
        return logits, (true + random.gumbel(size=true.shape)).argmax(axis=1)


REGIMES: Mapping[str, Regime] = {
    "200 rows": Regime(200, 10_000, normal(10, 4.0), cooled(2.0)),
    "a fifth of the labels wrong": Regime(
        2000, 10_000, normal(10, 4.0), noisy(0.2), new_truth=lambda _, logits: logits
    ),
    "other class shares": Regime(3000, 50_000, long_tailed, cooled(1.5), balanced=True),
    "10,000 rows": Regime(10_000, 10_000, normal(10, 4.0), cooled(2.0), draws=3),
    "1,000 classes": Regime(
        3000, 3000, peaked(1000, 8.0), cooled(1.5), draws=3, methods=("temperature",)
    ),
}


def jobs(data: Path | None) -> Iterator[tuple[str, int, str, Callable[[], Draw]]]:
    """Regimes and stored scores: a name, a seed, a method, and what makes the rows."""
    for name, regime in REGIMES.items():
        for seed in range(regime.draws):
            for method in regime.methods:
                yield name, seed, method, lambda regime=regime, seed=seed: regime.draw(seed)
    for name in SETS if data is not None else ():
        for method in METHODS:
            yield f"stored: {name}", 0, method, lambda name=name: stored(data, name)


def stored(data: Path, name: str) -> Draw:
    """A set of stored scores."""
    experiment = open_experiment(data, name, 0)
    fit, test = experiment.fit, experiment.test
    labels = experiment.fit_labels, experiment.test_labels
    return Draw(fit.values, labels[0], test.values, labels[1], fit.kind)


def judged(rows: Draw | None, method: str, title: str) -> dict[str, Any]:
    """The figures of a fit on the new rows."""
    assert rows is not None
    loss, link = LOSSES[title]
    fitted = calibcli.fit(
        rows.logits, rows.labels, method=method, loss=loss, link=link, folds=0, input=rows.kind
    )
    values = calibcli.evaluate(fitted.predict_proba(rows.test_logits), rows.test_labels).values
    kept = loss != "nll" and fitted.outcome is not None and fitted.outcome.loss == "nll"
    return {"nll": values["nll"], "ece": values["ece"], "kept": kept}


def run(data: Path | None, results: Path) -> list[dict[str, Any]]:
    """All results, of which those that are missing are made."""
    lines = results.read_text("utf-8").splitlines() if results.exists() else []
    records = [json.loads(line) for line in lines]
    known = {(each["regime"], each["seed"], each["method"], each["loss"]) for each in records}
    for regime, seed, method, make in jobs(data):
        missing = [loss for loss in LOSSES if (regime, seed, method, loss) not in known]
        rows = make() if missing else None
        for loss in missing:
            record = {"regime": regime, "seed": seed, "method": method, "loss": loss}
            record |= judged(rows, method, loss)
            records.append(record)
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
    return records


def table(records: list[dict[str, Any]], method: str) -> Iterator[str]:
    """Lines of Markdown: a row for each loss, a column for each regime."""
    figures: dict[tuple[str, str], dict[tuple[str, int], dict[str, Any]]] = defaultdict(dict)
    for each in records:
        if each["method"] == method:
            regime = "stored scores" if each["regime"].startswith("stored") else each["regime"]
            figures[regime, each["loss"]][each["regime"], each["seed"]] = each
    regimes = list(dict.fromkeys(regime for regime, _ in figures))
    yield f"| {method} | " + " | ".join(regimes) + " |"
    yield "|---|" + "---|" * len(regimes)
    for loss in LOSSES:
        if loss == "nll":
            cells = [absolute(list(figures[regime, loss].values())) for regime in regimes]
        else:
            cells = [cell(figures[regime, "nll"], figures[regime, loss]) for regime in regimes]
        yield f"| `{loss}` | " + " | ".join(cells) + " |".replace("`,", ",")


def absolute(found: list[dict[str, Any]]) -> str:
    """NLL and ECE of plain nll."""
    nll, ece = (fmean(each[key] for each in found) for key in ("nll", "ece"))
    return f"NLL {nll:.3f}, ECE {100 * ece:.1f}"


def cell(plain: Mapping[Any, dict[str, Any]], other: Mapping[Any, dict[str, Any]]) -> str:
    """NLL above that of plain nll in thousandths, ECE in points, and how often nll was kept."""
    both = [key for key in other if key in plain]
    parts = [
        with_error([scale * (other[key][figure] - plain[key][figure]) for key in both], digits)
        for figure, scale, digits in (("nll", 1000, 1), ("ece", 100, 1))
    ]
    kept = sum(other[key]["kept"] for key in both)
    return ", ".join(parts) + (f" (kept nll {kept} of {len(both)})" if kept else "")


def with_error(values: list[float], digits: int) -> str:
    """A mean and its standard error."""
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{fmean(values):+.{digits}f}{PLUS_MINUS}{error:.{digits}f}"


def main() -> None:
    """Make what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with stored scores, one folder a set")
    parser.add_argument("--results", type=Path, required=True, help="where results are kept")
    arguments = parser.parse_args()
    records = run(arguments.data, arguments.results)
    for method in METHODS:
        print("\n".join(table(records, method)), end="\n\n")


if __name__ == "__main__":
    main()
