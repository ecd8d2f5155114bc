"""Whether a column that nobody named looks like clusters: patients, documents, users.

Rows that go together make folds and intervals that take rows for independent too hopeful, so this
is worth a look at some rows. Residuals of a calibrated model are 0 in the mean whatever the rows
are, so those of rows with one value are alike only where these share what the model does not see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from calibcli.arrays import InputKind, NumpyArray, scores_to_logits, softmax
from calibcli.engine.source import Chunk

FEWEST_VALUES = 10
"""Columns of fewer values are parts of the data, rather than a sample of many clusters."""

_ROWS, _SCORES = 20_000, 1 << 22
_CLEAR = 5.0
"""Standard errors of a normal distribution: one column in a million of those without a reason."""

_LEAST_EFFECT = 1.2
"""How many times larger rows that go together must make the variance of a mean."""


@dataclass(frozen=True)
class ClusterHint:
    """A column whose values look like clusters.

    Attributes
    ----------
    column : str
    values : int
        How many there are in the rows that were looked at.
    correlation : float
        Of the residuals of two rows with the same value.
    effect : float
        What that multiplies the variance of a mean by.
    """

    column: str
    values: int
    correlation: float
    effect: float


def rows_to_look_at(classes: int) -> int:
    """How many rows are enough for a hint, and cheap."""
    return min(_ROWS, max(_SCORES // classes, 1))


def likely_clusters(chunk: Chunk, kind: InputKind) -> ClusterHint | None:
    """The key of some rows that most looks like clusters, if one does.

    Parameters
    ----------
    chunk : Chunk
        With labels, and numbers of the values of columns as keys, by the names of these.
    kind : InputKind
        What the scores are.
    """
    if chunk.labels is None or not chunk.keys:
        return None
    probs = softmax(scores_to_logits(chunk.scores, kind).astype(np.float64))
    rows = np.arange(len(probs))
    residuals = (probs**2).sum(axis=1) - probs[rows, chunk.labels]
    named = (chunk.labels, probs.argmax(axis=1))
    hints = [
        _hint(column, numbers, residuals)
        for column, numbers in chunk.keys.items()
        if not any(_names_classes(numbers, classes, probs.shape[1]) for classes in named)
    ]
    return max(filter(None, hints), key=lambda hint: hint.effect, default=None)


def _names_classes(numbers: NumpyArray, classes: NumpyArray, count: int) -> bool:
    """Whether each value is of one class only, and there are no more values than classes."""
    values = int(numbers.max()) + 1
    # Not by `np.unique`, which imports masked arrays.
    return values <= count and np.count_nonzero(np.bincount(numbers * count + classes)) == values


def _hint(column: str, numbers: NumpyArray, residuals: NumpyArray) -> ClusterHint | None:
    """Analysis of variance of the residuals by the values of a column."""
    sizes = np.bincount(numbers)
    values, rows = len(sizes), len(numbers)
    if values < FEWEST_VALUES or rows < 2 * values:
        return None
    centred = residuals - residuals.mean()
    sums = np.bincount(numbers, centred)
    between = float((sums**2 / sizes).sum())
    within = float((centred**2).sum()) - between
    if within <= 0:
        return None
    mean_between, mean_within = between / (values - 1), within / (rows - values)
    # The usual size of groups of unequal sizes, and the size that the variance of a mean sees.
    usual = (rows - float((sizes**2).sum()) / rows) / (values - 1)
    correlation = (mean_between - mean_within) / (mean_between + (usual - 1) * mean_within)
    effect = 1 + (float((sizes**2).sum()) / rows - 1) * correlation
    if (
        effect < _LEAST_EFFECT
        or _normal(mean_between / mean_within, values - 1, rows - values) < _CLEAR
    ):
        return None
    return ClusterHint(column, values, correlation, effect)


def _normal(ratio: float, above: int, below: int) -> float:
    """The normal deviate of an F ratio with these degrees of freedom (Paulson, 1942)."""
    root, a, b = ratio ** (1 / 3), 2 / (9 * above), 2 / (9 * below)
    return float(((1 - b) * root - (1 - a)) / math.sqrt(b * root**2 + a))
