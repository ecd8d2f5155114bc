"""What the arena judges by: figures of one prediction, and standings over all sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np
from arena_contenders import BASE
from arena_data import SMALLEST, Labels, Matrix
from arena_results import DONE, Record

BINS = 15
WORSE = 1.005
"""A set is made worse where the NLL is more than so many times that of the scores as they are."""

MEASURES = ("nll", "brier", "ece", "accuracy", "fit_seconds")

Losses = Mapping[str, Mapping[str, float]]
"""A loss by method and set."""


def figures(probs: Matrix, labels: Labels) -> dict[str, float]:
    """NLL, Brier score, ECE and accuracy of probabilities (n, K), and rows with an infinite loss.

    Probabilities are cut to [0, 1] and normalised. The NLL takes those below the smallest normal
    float32 as that number, which costs 87.3; ``clipped`` counts the rows where it does. The Brier
    score is the sum over classes. The ECE is that of the top class over 15 bins of equal width.

    Raises
    ------
    ValueError
        The wrong shape, or no numbers.
    """
    probs = np.asarray(probs, np.float64)
    if probs.ndim != 2 or len(probs) != len(labels):
        raise ValueError(f"probabilities of the shape {probs.shape} for {len(labels)} rows")
    if not np.isfinite(probs).all():
        raise ValueError(f"{(~np.isfinite(probs).all(axis=1)).sum()} rows are not all numbers")
    probs = np.clip(probs, 0.0, 1.0)
    probs /= np.maximum(probs.sum(axis=1, keepdims=True), SMALLEST)
    true = probs[np.arange(len(labels)), labels]
    top = probs.max(axis=1)
    right = probs.argmax(axis=1) == labels
    bins = np.clip(np.ceil(top * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=right - top, minlength=BINS)
    return {
        "nll": float(-np.log(np.maximum(true, SMALLEST)).mean()),
        "brier": float(((probs * probs).sum(axis=1) - 2 * true + 1).mean()),
        "ece": float(np.abs(gaps).sum() / len(labels)),
        "accuracy": float(right.mean()),
        "clipped": int((true < SMALLEST).sum()),
    }


def excess_nll(probs: Matrix, truth: Matrix) -> float:
    """How much larger the expected NLL of probabilities (n, K) is than that of the true ones."""
    probs = np.clip(np.asarray(probs, np.float64), 0.0, 1.0)
    probs /= np.maximum(probs.sum(axis=1, keepdims=True), SMALLEST)
    ratios = np.maximum(truth, SMALLEST) / np.maximum(probs, SMALLEST)
    return float((truth * np.log(ratios)).sum(axis=1).mean())


def by_set(records: Iterable[Record], splits: Mapping[str, int], measure: str) -> Losses:
    """The mean over a set's splits, by method and set; of those that all splits are done of."""
    values: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for record in records:
        if record.status == DONE:
            values[record.method, record.set][record.split] = getattr(record, measure)
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for (method, name), found in values.items():
        if len(found) == splits.get(name):
            table[method][name] = fmean(found.values())
    return dict(table)


def win_rates(losses: Losses, against: Iterable[str] | None = None) -> dict[str, float]:
    """The share of the other methods that a method beats on a set, averaged over its sets.

    A tie is half a win. A method that has no figure for a set takes no part in it.

    Parameters
    ----------
    losses : mapping
        By method and set; less is better.
    against : iterable of str, optional
        The others that count; all of them by default.
    """
    others = set(losses if against is None else against)
    rates = {}
    for method, own in losses.items():
        shares = []
        for name, loss in own.items():
            rivals = [
                losses[other][name]
                for other in others - {method}
                if other in losses and name in losses[other]
            ]
            if rivals:
                points = [1.0 if loss < rival else 0.5 * (loss == rival) for rival in rivals]
                shares.append(fmean(points))
        if shares:
            rates[method] = fmean(shares)
    return rates


def made_worse(nll: Losses, method: str) -> float:
    """The share of sets on which a method is worse than the scores as they are."""
    base, own = nll.get(BASE, {}), nll[method]
    both = base.keys() & own.keys()
    return fmean(own[name] > WORSE * base[name] for name in both) if both else float("nan")


@dataclass(frozen=True)
class Standing:
    """A method over all sets.

    Attributes
    ----------
    by_nll, by_brier : float
        Win rates against all others.
    by_nll_of_peers : float
        The win rate by NLL against the methods of other libraries alone.
    worse : float
        Share of sets made worse.
    beats : float
        Share of sets with a smaller NLL than the rival; NaN for the rival.
    """

    method: str
    sets: int
    by_nll: float
    by_brier: float
    by_nll_of_peers: float
    worse: float
    beats: float
    means: Mapping[str, float]


def standings(records: Sequence[Record], splits: Mapping[str, int], rival: str) -> list[Standing]:
    """All methods, the one with the highest win rate by NLL first."""
    tables = {measure: by_set(records, splits, measure) for measure in MEASURES}
    nll = tables["nll"]
    library = {record.method: record.library for record in records}
    peers = [method for method in nll if library[method] not in ("", "calib")]
    by_nll, by_brier = win_rates(nll), win_rates(tables["brier"])
    by_nll_of_peers = win_rates(nll, peers)
    duel = win_rates(nll, [rival])
    nan = float("nan")
    found = [
        Standing(
            method,
            len(nll[method]),
            by_nll.get(method, nan),
            by_brier.get(method, nan),
            by_nll_of_peers.get(method, nan),
            made_worse(nll, method),
            duel.get(method, nan),
            {
                measure: (median if measure == "fit_seconds" else fmean)(table[method].values())
                for measure, table in tables.items()
            },
        )
        for method in nll
    ]
    return sorted(found, key=lambda standing: -standing.by_nll)
