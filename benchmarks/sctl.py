"""The official results of class-wise scaling (SCTL), side by side with those of `calib`.

Fits on the long-tailed validation rows of the official logit sets and judges on their balanced test
rows, with and without class-wise scaling, for the four calibrators of the paper. ECE in percent.

    python benchmarks/sctl.py FOLDER_OF_THE_SETS --page docs/losses.md

With a page it fails where a figure there is other than what it finds, by more than a tolerance.
With ``--networks`` it sets the two forms of parameterized temperature scaling side by side instead,
on the sets of the folder that are named.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from arena_data import open_experiment

import calibcli

VECTORS = Path(__file__).resolve().parents[1] / "tests" / "vectors" / "vectors.json"

# The official code mixes logits in its ensemble, and its network has neither bounds nor |T|.
CALIBRATORS = {
    "TS": ("temperature", {}),
    "ETS": ("ensemble-temperature", {"ensemble-temperature.mixture": "logits"}),
    "PTS": ("parameterized-temperature", {"parameterized-temperature.form": "official"}),
    "CTS": ("class-temperature", {}),
}
OURS = {
    "ETS, mixture of probabilities": ("ensemble-temperature", {}),
    "PTS, as published": ("parameterized-temperature", {}),
    "CTS, by prediction": ("class-temperature", {"class-temperature.by": "prediction"}),
}
LOSSES = {"CE": "nll", "CL_GN": "class-wise"}
LARGEST_DIFFERENCE = 0.15

TOLERANCE = 0.05
"""Points by which figures of another machine, or another order of sums, may differ on the page."""


def judge(folder: Path, method: str, options: dict[str, str], loss: str) -> tuple[float, float]:
    """ECE and accuracy on the test rows, in percent."""
    val, test = np.load(folder / "val.npz"), np.load(folder / "test.npz")
    calibrator = calibcli.fit(
        val["logits"], val["labels"], method=method, loss=loss, options=options, folds=0
    )
    probs = calibrator.predict_proba(test["logits"])
    values = calibcli.evaluate(probs, test["labels"]).values
    return 100 * values["ece"], 100 * values["accuracy"]


def rows_of(folder: Path, logs: dict[str, list[float]]) -> Iterator[list[str]]:
    """The cells of the table for the logits of a network."""
    name = network(folder)
    for title, (method, options) in {**CALIBRATORS, **OURS}.items():
        ours = [judge(folder, method, options, loss)[0] for loss in LOSSES.values()]
        pairs = [*ours, ours[0] - ours[1]], [None] * 3
        if title in CALIBRATORS:
            theirs = [logs[f"{title}|{key}"][0] for key in LOSSES]
            pairs = pairs[0], [*theirs, theirs[0] - theirs[1]]
        cells = [cell for pair in zip(*pairs, strict=True) for cell in pair]
        yield [name, title, *("" if cell is None else f"{cell:.2f}" for cell in cells)]


def network(folder: Path) -> str:
    """The network whose logits are in a folder."""
    return folder.name.removeprefix("sctl_").removesuffix("_cifar10lt")


def figures_of(text: str) -> dict[tuple[str, str], list[float]]:
    """The figures of each network and calibrator in the table of a page or an output."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return {
        (cells[0], cells[1]): [float(cell) for cell in cells[2:] if cell]
        for cells in lines
        if len(cells) == 8 and cells[1] in {**CALIBRATORS, **OURS}
    }


def compared(rows: list[list[str]], page: str) -> list[str]:
    """What is other on a page than in these rows, by more than `TOLERANCE`."""
    shown = figures_of(page)
    found = figures_of("\n".join(line(cells) for cells in rows))
    return [
        f"{' '.join(key)}: the page has {shown.get(key)}, found {figures}"
        for key, figures in found.items()
        if len(shown.get(key, [])) != len(figures)
        or any(abs(a - b) > TOLERANCE for a, b in zip(shown[key], figures, strict=True))
    ]


def line(cells: list[str]) -> str:
    """A line of the table."""
    return f"| {' | '.join(cells)} |"


def networks(data: Path, names: list[str]) -> None:
    """Print what the forms of parameterized temperature scaling are worth, one set a line."""
    print("| scores | `temperature` | official | T | default | T |\n|---|---|---|---|---|---|")
    forms = {
        "temperature": {},
        "parameterized-temperature": {"parameterized-temperature.form": "official"},
        "parameterized-temperature ": {},
    }
    for name in names:
        experiment = open_experiment(data, name, 0)
        cells = [name]
        for method, options in forms.items():
            fitted = calibcli.fit(
                experiment.fit.values,
                experiment.fit_labels,
                method=method.strip(),
                options=options,
                folds=0,
                input=experiment.fit.kind,
            )
            probs = fitted.predict_proba(experiment.test.values)
            cells.append(f"{calibcli.evaluate(probs, experiment.test_labels).values['nll']:.4f}")
            if method != "temperature":
                cells.append(temperatures(experiment.test.probs(), probs))
        print(line(cells), flush=True)


def temperatures(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> str:
    """Between which temperatures 90 % of rows lie that were divided by one each."""
    with np.errstate(divide="ignore"):
        spread = [np.ptp(np.sort(np.log(each), axis=1)[:, -2:], axis=1) for each in (before, after)]
    sound = (spread[1] > 1e-3) & np.isfinite(spread[0]) & np.isfinite(spread[1])
    low, high = np.quantile(spread[0][sound] / spread[1][sound], [0.05, 0.95])
    return "constant" if high - low < 0.01 else f"{low:.2f} to {high:.2f}"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the sets, one folder each")
    parser.add_argument("--page", type=Path, help="whose figures are compared")
    parser.add_argument("--networks", nargs="+", metavar="SET", help="forms of PTS on these sets")
    arguments = parser.parse_args()
    if arguments.networks:
        networks(arguments.data, arguments.networks)
        return
    logs = json.loads(VECTORS.read_text("utf-8"))["sctl_official_logs_ece_acc_percent"]
    begin, rows = time.perf_counter(), []
    heads = [
        "logits",
        "calibrator",
        "nll",
        "official",
        "class-wise",
        "official",
        "gain",
        "official",
    ]
    print(line(heads), line(["---", "---", *["---:"] * 6]), sep="\n")
    for folder in sorted(arguments.data.glob("sctl_*_cifar10lt")):
        for cells in rows_of(folder, logs[f"{network(folder)}_c10_LT"]):
            rows.append(cells)
            print(line(cells), flush=True)
    # Figure and official one stand side by side, for nll and for class-wise.
    far = sum(
        abs(float(cells[place]) - float(cells[place + 1])) > LARGEST_DIFFERENCE
        for cells in rows
        for place in (2, 4)
        if cells[place + 1]
    )
    print(
        f"\n{far} of the figures differ from the official logs by more than "
        f"{LARGEST_DIFFERENCE} points; {time.perf_counter() - begin:.0f} s."
    )
    wrong = compared(rows, arguments.page.read_text("utf-8")) if arguments.page else []
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
