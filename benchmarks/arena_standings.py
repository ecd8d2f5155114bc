"""What the arena judges by: figures of one prediction, and standings over all sets."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

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


def win_shares(losses: Losses, against: Iterable[str] | None = None) -> Losses:
    """The share of the other methods that a method beats on a set, by method and set.

    A tie is half a win. A method that has no figure for a set takes no part in it.

    Parameters
    ----------
    losses : mapping
        By method and set; less is better.
    against : iterable of str, optional
        The others that count; all of them by default.
    """
    others = set(losses if against is None else against)
    shares: dict[str, dict[str, float]] = {}
    for method, own in losses.items():
        for name, loss in own.items():
            rivals = [
                losses[other][name]
                for other in others - {method}
                if other in losses and name in losses[other]
            ]
            if rivals:
                points = [1.0 if loss < rival else 0.5 * (loss == rival) for rival in rivals]
                shares.setdefault(method, {})[name] = fmean(points)
    return shares


def win_rates(losses: Losses, against: Iterable[str] | None = None) -> dict[str, float]:
    """The mean over its sets of a method's `win_shares`."""
    shares = win_shares(losses, against)
    return {method: fmean(of_sets.values()) for method, of_sets in shares.items()}


def errors_of_sets(losses: Losses) -> dict[str, float]:
    """Standard errors of win rates, as of sets drawn at random; NaN of a single set."""
    return {
        method: stdev(of_sets.values()) / math.sqrt(len(of_sets)) if len(of_sets) > 1 else math.nan
        for method, of_sets in win_shares(losses).items()
    }


def errors_of_splits(
    records: Sequence[Record], splits: Mapping[str, int], measure: str
) -> dict[str, float]:
    """Standard errors of win rates, as of splits drawn at random; NaN where no set has several.

    They are of the mean over the sets that have several splits. Splits of one set share rows, so
    that they are somewhat too small.
    """
    repeated = {name: count for name, count in splits.items() if count > 1}
    shares: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for split in range(max(repeated.values(), default=0)):
        of_split = [one for one in records if one.split == split and one.set in repeated]
        losses = by_set(of_split, dict.fromkeys(repeated, 1), measure)
        for method, of_sets in win_shares(losses).items():
            for name, share in of_sets.items():
                shares[method][name].append(share)
    errors = {}
    for method, by_name in shares.items():
        squares = [stdev(found) ** 2 / len(found) for found in by_name.values() if len(found) > 1]
        errors[method] = math.sqrt(sum(squares)) / len(squares) if squares else math.nan
    return errors


def kinds_of_sets(records: Sequence[Record], splits: Mapping[str, int]) -> dict[str, set[str]]:
    """The sets that any method has done, by their number of classes, and by rows to fit on."""
    done = {name for of_sets in by_set(records, splits, "nll").values() for name in of_sets}
    kinds: dict[str, set[str]] = {name: set() for name in (*BY_CLASSES, *BY_ROWS)}
    for one in (one for one in records if one.set in done):
        kinds[_kind(BY_CLASSES, one.classes)].add(one.set)
        kinds[_kind(BY_ROWS, one.fit_rows)].add(one.set)
    return {name: sets for name, sets in kinds.items() if sets}


BY_CLASSES = {"2 classes": 2, "3 to 20": 20, "over 20 classes": math.inf}
BY_ROWS = {"under 1,000 rows": 999, "1,000 to 9,999": 9999, "10,000 and more": math.inf}
"""The largest number that each kind may have."""


def _kind(kinds: Mapping[str, float], number: int) -> str:
    return next(name for name, largest in kinds.items() if number <= largest)


def rates_by_kind(records: Sequence[Record], splits: Mapping[str, int]) -> dict[str, Losses]:
    """Win rates by NLL, of each kind of sets: by kind, method and ``"rate"``."""
    nll = by_set(records, splits, "nll")
    table = {}
    for kind, sets in kinds_of_sets(records, splits).items():
        of_kind = {
            method: {name: loss for name, loss in of_sets.items() if name in sets}
            for method, of_sets in nll.items()
        }
        table[kind] = {method: {"rate": rate} for method, rate in win_rates(of_kind).items()}
    return table


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
    error_of_sets, error_of_splits : float
        Standard errors of that by NLL: as of other sets, and as of other splits of these.
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
    error_of_sets: float
    error_of_splits: float
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
    of_sets, of_splits = errors_of_sets(nll), errors_of_splits(records, splits, "nll")
    duel = win_rates(nll, [rival])
    nan = float("nan")
    found = [
        Standing(
            method,
            len(nll[method]),
            by_nll.get(method, nan),
            by_brier.get(method, nan),
            of_sets.get(method, nan),
            of_splits.get(method, nan),
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
