"""Sets on which fits go wrong: nearly separable, with a rare class, tied, and tiny ones.

    python benchmarks/hard_sets.py --sets 300 --keep build/hard_sets.jsonl

Every method is fitted to every set, and judged on many new rows beside a temperature. A fit that is
worse by more than 5 % of NLL there has failed; where it says so in a note, nobody is misled. The
table counts the fits that failed, those of them without a note, and the notes on fits that did not
fail. Results are added to a file as they come, and a run that finds some there goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import calibcli
from calibcli.arrays import NumpyArray, log_softmax
from calibcli.calibrators.registry import MAPS
from calibcli.errors import CalibError

Random = np.random.Generator
Draw = Callable[[Random, int], tuple[NumpyArray, NumpyArray]]

NEW_ROWS = 20_000

WORSE = 1.05
"""Times the NLL of a temperature, from which on a fit has failed."""

CHOICES: Mapping[str, Mapping[str, Any]] = {
    "auto": {"method": "auto"},
    "auto/stack": {"method": "auto", "stack": True},
}

WARNING = "worse on held-out rows"
"""What the note on a fit that is worse than one temperature, or than none, has in it."""

NOTES = (
    WARNING,
    "may still be",
    "clearly better on held-out rows",
    "is sensible from about",
    "can be separated",
)
"""What the notes say of a fit that may be no good."""

SLOW = "parameterized-temperature"
"""A network, whose fits take a minute each."""

EACH_SLOW = 20
"""It is fitted to every so many-th set."""


@dataclass(frozen=True)
class HardSet:
    """A set to fit on, and new rows.

    Attributes
    ----------
    kind : str
    logits, labels : array (n, K), (n,)
    new_logits, new_labels : array (m, K), (m,)
    """

    kind: str
    logits: NumpyArray
    labels: NumpyArray
    new_logits: NumpyArray
    new_labels: NumpyArray


@dataclass(frozen=True)
class Judged:
    """A fit to a hard set.

    Attributes
    ----------
    number : int
        Of the set.
    kind, method : str
    rows, classes : int
    nll, temperature, none : float
        On new rows, and those of a temperature and of no fit.
    error : float
        The standard error of the difference to the temperature.
    notes : tuple of str
    chosen : tuple of str
        What a choice took, and the members of a stack.
    seconds : float
    """

    number: int
    kind: str
    method: str
    rows: int
    classes: int
    nll: float
    temperature: float
    none: float
    error: float
    notes: tuple[str, ...]
    chosen: tuple[str, ...]
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether it is worse than a temperature by what counts, and not by chance."""
        ahead = self.nll - WORSE * self.temperature
        return not ahead <= 2 * self.error

    @property
    def warned(self) -> bool:
        """Whether a note says that it is no good."""
        return any(WARNING in note for note in self.notes)

    @property
    def excused(self) -> bool:
        """Whether any note says that it may be no good."""
        return any(part in note for note in self.notes for part in NOTES)


def hard_set(number: int) -> HardSet:
    """The hard set of a number, always the same; the kinds take turns."""
    random = np.random.default_rng([13, number])
    kind, setting = tuple(_SETTINGS.items())[number % len(_SETTINGS)]
    rows, draw = setting(random)
    return HardSet(kind, *draw(random, rows), *draw(random, NEW_ROWS))


def _nearly_separable(random: Random) -> tuple[int, Draw]:
    classes = int(random.choice([2, 3, 10]))
    apart, noise = random.uniform(8, 30), random.choice([0.0, 0.001, 0.01])
    rows = int(random.choice([300, 1000, 4000]))

    def draw(random: Random, n: int) -> tuple[NumpyArray, NumpyArray]:
        labels = random.integers(0, classes, n)
        logits = random.standard_normal((n, classes)) * 2.2
        logits[np.arange(n), labels] += apart * random.beta(5, 1.2, n)
        wrong = random.random(n) < noise
        labels[wrong] = random.integers(0, classes, int(wrong.sum()))
        return logits.astype("float32"), labels

    return rows, draw


def _rare_class(random: Random) -> tuple[int, Draw]:
    classes = int(random.choice([2, 4, 10]))
    share, heat = random.choice([0.002, 0.01, 0.03]), random.uniform(0.5, 2.5)
    rows = int(random.choice([200, 1000, 3000]))

    def draw(random: Random, n: int) -> tuple[NumpyArray, NumpyArray]:
        truth = random.standard_normal((n, classes)) * 1.5
        truth[:, -1] += np.log(share * (classes - 1) / (1 - share))
        return (heat * truth).astype("float32"), _labels(random, truth)

    return rows, draw


def _tied(random: Random) -> tuple[int, Draw]:
    classes = int(random.choice([2, 3, 8]))
    steps, heat = random.choice([0.5, 1.0, 3.0]), random.uniform(0.4, 2.5)
    rows = int(random.choice([100, 500, 3000]))

    def draw(random: Random, n: int) -> tuple[NumpyArray, NumpyArray]:
        truth = random.standard_normal((n, classes)) * 2
        return (np.round(heat * truth / steps) * steps).astype("float32"), _labels(random, truth)

    return rows, draw


def _tiny(random: Random) -> tuple[int, Draw]:
    classes = int(random.choice([2, 3, 5]))
    heat, shift = random.uniform(0.5, 3), random.standard_normal(classes) * 0.5
    rows = int(random.choice([12, 30, 60, 120]))

    def draw(random: Random, n: int) -> tuple[NumpyArray, NumpyArray]:
        truth = random.standard_normal((n, classes)) * 1.5
        return (heat * truth + shift).astype("float32"), _labels(random, truth)

    return rows, draw


_SETTINGS: Mapping[str, Callable[[Random], tuple[int, Draw]]] = {
    "nearly separable": _nearly_separable,
    "rare class": _rare_class,
    "tied": _tied,
    "tiny": _tiny,
}


def _labels(random: Random, truth: NumpyArray) -> NumpyArray:
    """Labels (n,) that follow softmax(truth)."""
    labels: NumpyArray = (truth + random.gumbel(size=truth.shape)).argmax(axis=1)
    return labels


def methods(number: int, classes: int) -> list[str]:
    """What is fitted to the set of a number with so many classes, the choices last."""
    left_out = {"none", "temperature"} | ({SLOW} if number % EACH_SLOW else set())
    names = [
        name
        for name, family in MAPS.items()
        if name not in left_out and not (family.binary_only and classes > 2)
    ]
    return [*names, *CHOICES]


def judge(number: int, names: Sequence[str] | None = None) -> list[Judged]:
    """Fits of some methods, or of all, to a hard set."""
    task = hard_set(number)
    rows, classes = task.logits.shape
    plain = _losses(log_softmax(task.new_logits.astype(float)), task.new_labels)
    tempered = _losses(_fitted(task, {"method": "temperature"})[0], task.new_labels)
    judged = []
    for name in methods(number, classes) if names is None else names:
        begin = time.perf_counter()
        try:
            log_probs, notes, chosen = _fitted(task, CHOICES.get(name, {"method": name}))
        except CalibError as error:
            print(f"set {number}, {name}: {error}")
            continue
        losses = _losses(log_probs, task.new_labels)
        with np.errstate(invalid="ignore"):
            difference = losses - WORSE * tempered
            error = float(difference.std() / np.sqrt(len(difference)))
        judged.append(
            Judged(
                number,
                task.kind,
                name,
                rows,
                classes,
                float(losses.mean()),
                float(tempered.mean()),
                float(plain.mean()),
                error if np.isfinite(error) else 0.0,
                notes,
                chosen,
                time.perf_counter() - begin,
            )
        )
    return judged


def _fitted(
    task: HardSet, options: Mapping[str, Any]
) -> tuple[NumpyArray, tuple[str, ...], tuple[str, ...]]:
    """Log-probabilities of the new rows after a fit, what it said, and what it chose."""
    calibrator = calibcli.fit(task.logits, task.labels, threads=1, device="cpu", **options)
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.asarray(calibrator.predict_proba(task.new_logits), float))
    outcome = calibrator.outcome
    assert outcome is not None
    chosen: tuple[str, ...] = ()
    if outcome.leaderboard is not None:
        trial = outcome.leaderboard.chosen.trial
        chosen = (trial.name, *(member.name for member, _ in trial.members))
    return log_probs, outcome.notes, chosen


def _losses(log_probs: NumpyArray, labels: NumpyArray) -> NumpyArray:
    # What is finite in a mean of logarithms; a probability of 0 costs as much as the smallest one.
    losses: NumpyArray = -np.maximum(log_probs[np.arange(len(labels)), labels], -87.0)
    return losses


def report(results: Sequence[Judged]) -> str:
    """A table by method: fits, those that failed, those of them without a note, needless notes."""
    by_method: dict[str, list[Judged]] = defaultdict(list)
    for each in results:
        by_method[each.method].append(each)
    lines = [
        "| method | fits | failed | unsaid | needless notes | worst |",
        "|---|---|---|---|---|---|",
    ]
    for method, fits in by_method.items():
        failed = [each for each in fits if each.failed]
        unsaid = sum(not each.excused for each in failed)
        fine = [each for each in fits if not each.failed]
        needless = sum(each.warned for each in fine)
        worst = max(each.nll / each.temperature for each in fits)
        lines.append(
            f"| `{method}` | {len(fits)} | {len(failed)} | {unsaid} | "
            f"{needless} of {len(fine)} | {worst:.3g} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Fit what the file of results lacks, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=300)
    parser.add_argument("--only", help="names of methods, with spaces between")
    parser.add_argument("--keep", type=Path, default=Path("build/hard_sets.jsonl"))
    options = parser.parse_args()
    results = _read(options.keep)
    done = {(each.number, each.method) for each in results}
    for number in range(options.sets):
        task = hard_set(number)
        names = options.only.split() if options.only else methods(number, task.logits.shape[1])
        missing = [name for name in names if (number, name) not in done]
        for each in judge(number, missing) if missing else ():
            results.append(each)
            options.keep.parent.mkdir(parents=True, exist_ok=True)
            with options.keep.open("a") as file:
                file.write(json.dumps(asdict(each)) + "\n")
    print(report(results))


def _read(path: Path) -> list[Judged]:
    if not path.exists():
        return []
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        Judged(**entry | {"notes": tuple(entry["notes"]), "chosen": tuple(entry["chosen"])})
        for entry in entries
    ]


if __name__ == "__main__":
    main()
