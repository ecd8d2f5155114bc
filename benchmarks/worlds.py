"""Worlds of known truth: logits whose labels follow probabilities that somebody knows.

Each world is drawn from a seed; nothing in it is fitted. The probabilities that the labels follow
are part of what is drawn, so true values need no labels and have little noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Random = np.random.Generator


@dataclass(frozen=True)
class Rows:
    """What is drawn of a world.

    Attributes
    ----------
    logits : float32 array (n, K)
    labels : int64 array (n,)
    weights : float64 array (n,) or None
    clusters : int64 array (n,) or None
    """

    logits: Array
    labels: Array
    weights: Array | None = None
    clusters: Array | None = None


@dataclass(frozen=True)
class World:
    """A model and the truth that its labels follow.

    Attributes
    ----------
    name : str
    rows : int
        In a sample.
    model : callable
        Random and a number of rows -> logits (n, K).
    truth : callable
        Random and logits (n, K) -> the true log-probabilities (n, K), up to a constant in a row.
    calibrated : bool
        Whether the truth is softmax(logits), so that all errors are 0.
    weighted : bool
        Whether rows have weights, which are log-normal and have nothing to do with the labels.
    cluster_rows : int
        Rows in a cluster, which share a shift of the true log-odds; 1 for none.
    """

    name: str
    rows: int
    model: Callable[[Random, int], Array]
    truth: Callable[[Random, Array], Array] = lambda _, logits: logits
    calibrated: bool = False
    weighted: bool = False
    cluster_rows: int = 1

    def draw(self, random: Random, rows: int | None = None) -> Rows:
        """A sample; of as many rows as it usually has if none are given."""
        rows = self.rows if rows is None else rows
        logits = self.model(random, rows).astype(np.float32)
        true = self.truth(random, logits.astype(np.float64))
        clusters = None
        if self.cluster_rows > 1:
            clusters = np.arange(rows) // self.cluster_rows
            # Gumbel noise that a cluster shares in part correlates its labels and leaves each
            # row's own probabilities as they are.
            shared = random.random(rows) < SHARED
            noise = random.gumbel(size=logits.shape)
            of_cluster = random.gumbel(size=(clusters[-1] + 1, logits.shape[1]))
            noise = np.where(shared[:, None], of_cluster[clusters], noise)
        else:
            noise = random.gumbel(size=logits.shape)
        labels = (true + noise).argmax(axis=1)
        weights = np.exp(0.7 * random.standard_normal(rows)) if self.weighted else None
        return Rows(logits, labels, weights, clusters)


SHARED = 0.5
"""Share of the rows of a cluster whose labels follow the cluster's own draw."""


def normal(classes: int, scale: float = 2.0) -> Callable[[Random, int], Array]:
    """Independent normal logits."""
    return lambda random, rows: scale * random.standard_normal((rows, classes))


def peaked(classes: int, height: float, spread: float = 2.0) -> Callable[[Random, int], Array]:
    """Normal logits, one of a row raised: a model that is mostly sure."""

    def draw(random: Random, rows: int) -> Array:
        logits = random.standard_normal((rows, classes))
        raised = height + spread * random.standard_normal(rows)
        logits[np.arange(rows), random.integers(0, classes, rows)] += raised
        return logits

    return draw


def long_tailed(random: Random, rows: int) -> Array:
    """Ten classes whose shares fall by half each; most rows are plain."""
    shares = 0.5 ** np.arange(10)
    logits = random.standard_normal((rows, 10)) + np.log(shares)
    logits[np.arange(rows), random.choice(10, rows, p=shares / shares.sum())] += 5.0
    return logits


def rare(random: Random, rows: int) -> Array:
    """Two classes, the second about one row in a hundred."""
    odds = -5.5 + 1.4 * random.standard_normal(rows)
    return np.stack((np.zeros(rows), odds), axis=1)


def forest(random: Random, rows: int) -> Array:
    """Two classes, the share of 50 trees that vote for the second: ties, exact 0 and 1."""
    share = random.binomial(50, random.beta(0.5, 0.8, rows)) / 50
    with np.errstate(divide="ignore"):
        return np.log(np.stack((1 - share, share), axis=1))


def forest_in_doubt(random: Random, rows: int) -> Array:
    """The same with half a vote more for each class, so that no label is impossible."""
    share = (random.binomial(50, random.beta(0.5, 0.8, rows)) + 0.5) / 51
    logits: Array = np.log(np.stack((1 - share, share), axis=1))
    return logits


def heavy(random: Random, rows: int) -> Array:
    """Logits of Student's distribution with 2.5 degrees of freedom."""
    return random.standard_t(2.5, (rows, 5))


def cooled(temperature: float) -> Callable[[Random, Array], Array]:
    """The truth of an overconfident model: softmax(logits / temperature)."""
    return lambda _, logits: logits / temperature


def noisy(share: float) -> Callable[[Random, Array], Array]:
    """The truth where a share of the labels is drawn evenly."""

    def truth(_: Random, logits: Array) -> Array:
        shifted = logits - logits.max(axis=1, keepdims=True)
        probs = np.exp(shifted)
        probs /= probs.sum(axis=1, keepdims=True)
        mixed: Array = np.log((1 - share) * probs + share / logits.shape[1])
        return mixed

    return truth


WORLDS = (
    World("2 classes, 1,000 rows, calibrated", 1000, normal(2), calibrated=True),
    World("2 classes, 1,000 rows, T = 1.6", 1000, normal(2), cooled(1.6)),
    World("10 classes, 500 rows, T = 1.6", 500, normal(10), cooled(1.6)),
    World("10 classes, 5,000 rows, T = 1.5", 5000, normal(10), cooled(1.5)),
    World("10 classes, 600 rows, 96 % right, calibrated", 600, peaked(10, 8.0), calibrated=True),
    World("10 classes, 600 rows, 96 % right, T = 1.5", 600, peaked(10, 9.5), cooled(1.5)),
    World("10 classes, 2,000 rows, 96 % right, calibrated", 2000, peaked(10, 8.0), calibrated=True),
    World("100 classes, 500 rows, calibrated", 500, peaked(100, 7.0), calibrated=True),
    World("100 classes, 500 rows, T = 1.5", 500, peaked(100, 9.0), cooled(1.5)),
    World("100 classes, 2,000 rows, T = 1.5", 2000, peaked(100, 9.0), cooled(1.5)),
    World("1 % positives, 2,000 rows, calibrated", 2000, rare, calibrated=True),
    World("1 % positives, 5,000 rows, T = 1.3", 5000, rare, cooled(1.3)),
    World("forest of 50 trees, 1,000 rows, noise", 1000, forest_in_doubt, noisy(0.1)),
    World("long tail, 1,000 rows, T = 1.3", 1000, long_tailed, cooled(1.3)),
    World("5 % label noise, 10 classes, 1,000 rows", 1000, peaked(10, 8.0), noisy(0.05)),
    World("heavy tails, 5 classes, 1,000 rows, T = 1.4", 1000, heavy, cooled(1.4)),
    World("weights, 5 classes, 1,000 rows, T = 1.4", 1000, normal(5), cooled(1.4), weighted=True),
    World(
        "weights, 5 classes, 1,000 rows, calibrated",
        1000,
        normal(5),
        calibrated=True,
        weighted=True,
    ),
    World(
        "clusters of 20, 5 classes, 2,000 rows, calibrated",
        2000,
        normal(5),
        calibrated=True,
        cluster_rows=20,
    ),
    World(
        "clusters of 20, 5 classes, 2,000 rows, T = 1.4",
        2000,
        normal(5),
        cooled(1.4),
        cluster_rows=20,
    ),
)
