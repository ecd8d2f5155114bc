"""Whether scores are logits, log-probabilities or probabilities: by their name and their values."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from calibcli.arrays import InputKind, NumpyArray
from calibcli.errors import DataError, UsageError

TOLERANCE = 0.02
"""How far from 1 the sum of a row of probabilities may be: some are stored with two decimals."""

WIDE_TOLERANCE = 0.1
"""How far from 1 the sums are where probabilities were averaged or rounded: `--renormalise`."""

PERCENT = "percent"
"""Probabilities times 100, as `--input` calls them."""

LARGEST_AVERAGE = 1.05
"""What the mean of several models' probabilities may come to by rounding in between."""

ENOUGH_SINGLE = 20
"""Single scores, one a row, must be this many before lying in [0, 1] says anything."""

_SURE = 10
"""A logit by which two classes are as good as certain: probability .99995."""

_TITLES = {"logits": "logits", "log-probs": "log-probabilities", "probs": "probabilities"}
_PROBABILITY = {
    "prob",
    "probs",
    "proba",
    "probas",
    "probability",
    "probabilities",
    "softmax",
    "posterior",
    "posteriors",
}


def kind_by_name(name: str) -> InputKind | None:
    """What a name says: ``"val_logits"`` are logits, ``"scores"`` may be anything."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    for before, word in zip(["", *words], words, strict=False):
        if word in ("logit", "logits"):
            return "logits"
        if word.removeprefix("log") in _PROBABILITY:
            return "log-probs" if word.startswith("log") or before == "log" else "probs"
    return None


def kind_by_values(rows: NumpyArray) -> InputKind:
    """What rows of scores (n, C) look like; logits, unless all of them look otherwise."""
    if _are_probabilities(rows):
        return "probs"
    if rows.shape[1] > 1 and _are_log_probabilities(rows):
        return "log-probs"
    return "logits"


def are_probabilities(rows: NumpyArray) -> bool:
    """Whether rows of scores (n, C) show that they are probabilities; few single scores do not."""
    return _looks_like_probabilities(rows) is not None


def odd_sum(rows: NumpyArray) -> float | None:
    """The sum of a row, not near 1, where all values (n, C) are such as probabilities have.

    None of single values, of few rows, and where a value is no probability or all rows sum to 1.
    """
    single = rows.shape[1] == 1
    if single or len(rows) < ENOUGH_SINGLE or rows.min() < 0 or rows.max() > LARGEST_AVERAGE:
        return None
    distances = _distance_from_one(rows)
    worst = int(np.argmax(distances))
    if distances[worst] <= TOLERANCE:
        return None
    return float(rows[worst].sum(dtype=np.float64))


def _distance_from_one(rows: NumpyArray) -> NumpyArray:
    """How far the sum of each row is from 1; a single value says nothing about its sum."""
    if rows.shape[1] == 1:
        return np.zeros(len(rows))
    sums: NumpyArray = rows.sum(axis=1, dtype=np.float64)
    distances: NumpyArray = np.abs(sums - 1)
    return distances


def _are_probabilities(rows: NumpyArray) -> bool:
    return bool(
        len(rows)
        and rows.min() >= 0
        and rows.max() <= 1
        and _distance_from_one(rows).max() <= TOLERANCE
    )


def _are_log_probabilities(rows: NumpyArray) -> bool:
    return bool(
        len(rows) and rows.max() <= 0 and _distance_from_one(np.exp(rows)).max() <= TOLERANCE
    )


def decide_kind(
    asked: str,
    name: str,
    sample: NumpyArray,
    where: str,
    *,
    renormalise: bool = False,
    origin: str | None = None,
    by: str = "as asked",
) -> tuple[InputKind, str]:
    """The kind of some scores, and how it was decided.

    Parameters
    ----------
    asked : str
        ``"auto"``, or the kind that the user named; `PERCENT` are ``"probs"`` times 100.
    name : str
        Of the column.
    sample : array (n, C)
        Some rows. Rows with NaN or ``+inf`` are passed over: they are refused elsewhere.
    where : str
        File and column, for messages.
    renormalise : bool
        Whether the rows of probabilities will be divided by their sums.
    origin : str or None
        The file that says what the kind is, if it was not the user.
    by : str
        What is said of a kind that was named.

    Raises
    ------
    UsageError
        The name and the values contradict each other.
    DataError
        The values cannot be of the kind that was asked for.
    """
    precision: type = np.float64 if sample.dtype == np.float64 else np.float32
    rows: NumpyArray = sample.astype(precision)
    rows = rows[np.all(rows < np.inf, axis=1)]
    said = f"--input {asked} was given" if origin is None else f"{origin} has --input {asked}"
    if asked == PERCENT:
        off = _distance_from_one(rows / 100).max(initial=0)
        if _impossible("probs", rows / 100) or (off > WIDE_TOLERANCE and not renormalise):
            raise DataError(
                f"{where}: {said}, but the values, from {rows.min():.6g} to "
                f"{rows.max():.6g}, are none that sum to 100 in a row"
            )
        return "probs", f"probabilities in percent ({by})"
    percent = _looks_like_percent(rows, kind_by_name(name))
    if asked != "auto":
        kind: InputKind = asked  # type: ignore[assignment]
        problem = None if renormalise and kind == "probs" else _impossible(kind, rows)
        if problem is not None:
            way = "; --input percent reads percentages" if percent and kind == "probs" else ""
            raise DataError(f"{where}: {said}, but {problem}{way}")
        return kind, f"{_TITLES[kind]} ({by})"
    if percent is not None:
        raise UsageError(f"{where}: {percent}; settle it with --input percent")
    named = kind_by_name(name)
    if named in (None, "probs"):
        _refuse_odd_sums(rows, where)
    if named is None:
        kind = kind_by_values(rows)
        return kind, f"{_TITLES[kind]} (by the values)"
    contradiction = _contradiction(named, rows)
    if contradiction is not None:
        what, *kinds = contradiction
        ways = " or ".join(f"--input {each}" for each in kinds)
        raise UsageError(f"{where}: named as {_TITLES[named]}, but {what}; settle it with {ways}")
    # A few rows that cannot be are refused elsewhere, with how many there are.
    agree = named != "probs" or bool(((rows >= 0) & (rows <= 1)).all())
    return named, f"{_TITLES[named]} (by the name{'; the values agree' if agree else ''})"


def refuse_mixture(blocks: Sequence[tuple[str, NumpyArray]], where: str) -> None:
    """Refuse scores of which some are probabilities by their values, and others are not.

    Parameters
    ----------
    blocks : sequence of (str, array (n, C))
        Rows from several places, and the names of their files; few rows show nothing.
    where : str
        File and column, for messages.

    Raises
    ------
    UsageError
    """
    shown: dict[bool, str] = {}
    for name, rows in blocks:
        used = rows[np.all(rows < np.inf, axis=1)]
        if len(used) >= ENOUGH_SINGLE:
            shown.setdefault(_are_probabilities(used), name)
    if len(shown) > 1:
        raise UsageError(
            f"{where}: by their values, scores are probabilities in {shown[True]}, but not in "
            f"{shown[False]}; give rows of each kind to a command of their own, or take all of "
            "them for logits with --input logits"
        )


def _looks_like_percent(rows: NumpyArray, named: InputKind | None) -> str | None:
    """What shows that rows are probabilities times 100; None where nothing does.

    Single values look so if they lie in [0, 100] and most of them would be near certainty as
    logits, unless their name says that they are logits.
    """
    if not len(rows) or rows.min() < 0 or rows.max() > 100 + 100 * TOLERANCE or rows.max() <= 2:
        return None
    if rows.shape[1] == 1:
        if named == "logits" or len(rows) < ENOUGH_SINGLE or np.median(rows) < _SURE:
            return None
        return f"the values lie in [0, 100], up to {rows.max():.6g}, as percentages do"
    if (_distance_from_one(rows / 100) > TOLERANCE).any():
        return None
    return "every row sums to 100, as percentages do"


def _refuse_odd_sums(rows: NumpyArray, where: str) -> None:
    """Refuse rows of probabilities whose sums are off; as logits they would mean something else.

    Raises
    ------
    UsageError
        All values are such that they could be probabilities, and a row does not sum to 1.
    """
    total = odd_sum(rows)
    if total is None:
        return
    if abs(total - 1) <= WIDE_TOLERANCE:
        why, what = "rounding or averaging does that", "divides each row by its sum"
    else:
        why, what = "several labels a row?", "takes them as shares of their sum"
    raise UsageError(
        f"{where}: every value lies between 0 and {LARGEST_AVERAGE:g}, as probabilities do, but a "
        f"row sums to {total:.6g} and not to 1 ({why}); --input probs --renormalise {what}"
    )


def _impossible(kind: InputKind, rows: NumpyArray) -> str | None:
    """What shows that rows are not of a kind; their sums are left to the user's word."""
    if not len(rows) or kind == "logits":
        return None
    if kind == "log-probs":
        wrong, why = rows > TOLERANCE, "above 0"
    else:
        wrong, why = (rows < -TOLERANCE) | (rows > 1 + TOLERANCE), "outside [0, 1]"
    count = int(wrong.any(axis=1).sum())
    if not count:
        return None
    share = f", as in {count:,} of {len(rows):,} rows that were looked at" if count > 1 else ""
    return f"a value is {rows[wrong][0]:.6g}, {why}{share}"


def _contradiction(named: InputKind, rows: NumpyArray) -> tuple[str, *tuple[InputKind, ...]] | None:
    """What in the rows speaks against their name, and the kinds that they may be."""
    if not len(rows):
        return None
    if named == "logits":
        problem = _looks_like_probabilities(rows)
        return None if problem is None else (problem, "probs", "logits")
    problem = _impossible(named, rows)
    if problem is None:
        probs = np.exp(rows) if named == "log-probs" else rows
        distances = _distance_from_one(probs)
        worst = int(np.argmax(distances))
        if distances[worst] <= TOLERANCE:
            return None
        problem = f"a row sums to {probs[worst].sum(dtype=np.float64):.6g} and not to 1"
        if named == "probs" and rows.max() <= LARGEST_AVERAGE:
            return problem, named
    return problem, named, "logits"


def _looks_like_probabilities(rows: NumpyArray) -> str | None:
    single = rows.shape[1] == 1
    # A first look at a few rows settles nearly every case.
    if (single and len(rows) < ENOUGH_SINGLE) or not _are_probabilities(rows[:64]):
        return None
    if not _are_probabilities(rows):
        return None
    return f"every row lies in [0, 1]{'' if single else ' and sums to 1'}, as probabilities do"
