"""The sets of the arena: stored scores of classifiers, to fit on and to judge on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Matrix = np.ndarray[Any, Any]
Labels = np.ndarray[Any, Any]
Kind = Literal["logits", "probs"]

SPLITS = 5
"""Of a set that comes in one file."""

SMALLEST = float(np.finfo(np.float32).tiny)
"""Probabilities below it count as this, as in the metrics of probmetrics, which CalArena uses."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What a classifier stored.

    Attributes
    ----------
    values : float32 array (n, K)
    kind : str
        ``"logits"`` or ``"probs"``.
    """

    values: Matrix
    kind: Kind

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.values)

    @property
    def classes(self) -> int:
        """K."""
        return int(self.values.shape[1])

    def rows(self, index: Any) -> Scores:
        """Some of the rows."""
        return Scores(self.values[index], self.kind)

    def probs(self) -> Matrix:
        """Probabilities (n, K), float64; every row sums to 1."""
        values = self.values.astype(np.float64)
        if self.kind == "logits":
            values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
        return values


@dataclass(frozen=True, eq=False)
class Experiment:
    """Rows to fit on and rows to judge on.

    Attributes
    ----------
    truth : float64 array (n, K) or None
        Probabilities that the labels of the rows to judge on follow, where they are known.
    """

    fit: Scores
    fit_labels: Labels
    test: Scores
    test_labels: Labels
    truth: Matrix | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows to fit on, rows to judge on, classes."""
        return len(self.fit), len(self.test), self.fit.classes


def find_sets(folder: Path) -> tuple[dict[str, int], dict[str, str]]:
    """The sets of a data folder: the splits of each, and why others are left out."""
    splits, left_out = {}, {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        if (path / "val.npz").exists() and (path / "test.npz").exists():
            splits[path.name] = 1
        elif (path / "all.npz").exists():
            splits[path.name] = SPLITS
        else:
            files = ", ".join(sorted(file.name for file in path.iterdir()))
            left_out[path.name] = f"no scores of all classes in {files}"
    return splits, left_out


def open_experiment(folder: Path, name: str, split: int) -> Experiment:
    """A set's files of rows to fit on and to judge on, or a split of its one file."""
    whole = folder / name / "all.npz"
    if not whole.exists():
        fit, test = (_read(folder / name / f"{part}.npz") for part in ("val", "test"))
        return Experiment(*fit, *test)
    scores, labels = _read(whole)
    fit_rows, test_rows = stratified_halves(labels, seed=split)
    return Experiment(
        scores.rows(fit_rows), labels[fit_rows], scores.rows(test_rows), labels[test_rows]
    )


def experiment_shape(folder: Path, name: str) -> tuple[int, int, int]:
    """The shape of a set's experiments, which is that of the first."""
    return open_experiment(folder, name, 0).shape


def stratified_halves(labels: Labels, seed: int) -> tuple[Labels, Labels]:
    """Two sorted index arrays that share the rows, and those of each label, as 1:1 as can be."""
    order = np.random.default_rng(seed).permutation(len(labels))
    by_label = order[np.argsort(labels[order], kind="stable")]
    return np.sort(by_label[::2]), np.sort(by_label[1::2])


def _read(path: Path) -> tuple[Scores, Labels]:
    with np.load(path) as file:
        kind: Kind = "logits" if "logits" in file else "probs"
        return Scores(file[kind], kind), file["labels"]
