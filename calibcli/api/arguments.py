"""Arguments of the Python interface, checked, as the steps of a command take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from calibcli.arrays import InputKind, NumpyArray, known_kind
from calibcli.engine.source import ArraySource
from calibcli.errors import DataError, UsageError
from calibcli.metrics.view import Event, ViewChoice, choose_event
from calibcli.tables.formats.base import RowError
from calibcli.tables.keys import KeyNumbers
from calibcli.tables.kinds import ENOUGH_SINGLE, LARGEST_AVERAGE, are_probabilities, odd_sum

LARGEST_SEED = (1 << 63) - 1


def check_counts(folds: int, threads: int, bootstrap: int, seed: int) -> None:
    """Refuse counts below 0 and seeds that are out of range."""
    if min(folds, threads, bootstrap) < 0 or not 0 <= seed <= LARGEST_SEED:
        raise UsageError(
            f"folds, threads, bootstrap and seed count from 0 (seed up to {LARGEST_SEED})"
        )


def option_settings(options: Mapping[str, Any] | None) -> list[str]:
    """Options as ``--set`` takes them."""
    return [f"{name}={value}" for name, value in (options or {}).items()]


def event_of(view: ViewChoice, positive: int | None, classes: int) -> Event:
    """The event of a view and a positive class."""
    return choose_event(view, None if positive is None else str(positive), classes)


def kind_given(asked: InputKind | None, scores: NumpyArray, *, single: bool) -> InputKind:
    """The kind of scores that was named, or what their values show.

    Parameters
    ----------
    asked : InputKind or None
        None: probabilities where every row is such that it shows that, and logits otherwise.
    scores : array (n, K), or (n,)
    single : bool
        Whether each score is one by itself, whose row need not sum to 1.

    Raises
    ------
    UsageError
        All values are such as probabilities have, and rows do not sum to 1: they may be either.
    """
    if asked is not None:
        return known_kind(asked)
    rows = scores.reshape(-1, 1) if single or scores.ndim != 2 else scores
    # Zeros alone are logits of a model that knows nothing.
    if not rows.any():
        return "logits"
    # A look at a few rows settles nearly every case.
    first = rows[:ENOUGH_SINGLE].astype(np.float64)
    if first.min() < 0 or first.max() > LARGEST_AVERAGE:
        return "logits"
    rows = rows.astype(np.float64)
    rows = rows[np.all(rows < np.inf, axis=1)]
    if are_probabilities(rows):
        return "probs"
    total = odd_sum(rows)
    if total is None:
        return "logits"
    raise UsageError(
        f"scores: every value lies between 0 and {LARGEST_AVERAGE:g}, as probabilities do, but a "
        f"row sums to {total:.6g} and not to 1; divide each row by its sum, or say input='logits' "
        "if they are logits"
    )


def array_source(
    scores: ArrayLike, labels: ArrayLike | None, weights: ArrayLike | None, kind: InputKind
) -> ArraySource:
    """Scores (n, K), or (n,) for two classes, with labels (n,) and weights (n,)."""
    array = numbers_given("scores", scores)
    if array.dtype not in (np.float16, np.float32, np.float64):
        array = array.astype(np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not array.shape[1]:
        raise DataError(f"scores must have the shape (n, K), not {array.shape}")
    return ArraySource(
        array,
        None if labels is None else _whole(_vector("labels", labels, len(array))),
        None if weights is None else _vector("weights", weights, len(array)).astype(np.float64),
        known_kind(kind),
    )


def grouped_source(
    source: ArraySource, role: str, given: Any, title: str, known: tuple[str, ...] = ()
) -> ArraySource:
    """The rows with groups of a role, those that are known having the first numbers."""
    values = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    if values.shape != (source.rows,) or values.dtype.kind not in "biufUSO":
        raise DataError(
            f"{title} must be numbers or texts of the shape ({source.rows},), not {values.dtype} "
            f"of {values.shape}"
        )
    numbers = KeyNumbers(key_title(given, title), known)
    try:
        keys = numbers.encode_array(values)
    except RowError as error:
        raise DataError(f"row {error.row}: {error}") from None
    names = {**source.key_names, role: numbers.names}
    return replace(source, keys={**(source.keys or {}), role: keys}, key_names=names)


def key_title(given: Any, otherwise: str = "by") -> str:
    """What groups are called: the name of a pandas or polars series, or that of the parameter."""
    name = getattr(given, "name", None)
    return name if isinstance(name, str) and name else otherwise


def score_precision(source: ArraySource) -> type[Any]:
    """The type of what is computed from the scores."""
    return np.float64 if source.dtype == np.float64 else np.float32


def numbers_given(name: str, values: Any) -> NumpyArray:
    """Anything like an array of numbers, a torch tensor on a GPU included."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # NumPy has no such type.
        values = values.float() if "bfloat16" in str(values.dtype) else values
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} cannot be made an array: {error}") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} must be numbers, not of type {array.dtype}")
    return array


def _vector(name: str, values: ArrayLike, rows: int) -> NumpyArray:
    vector = numbers_given(name, values)
    if vector.shape not in ((rows,), (rows, 1)):
        raise DataError(f"{name} must have the shape ({rows},), not {vector.shape}")
    return vector.reshape(rows)


def _whole(labels: NumpyArray) -> NumpyArray:
    with np.errstate(invalid="ignore"):
        numbers = labels.astype(np.int64)
    if (wrong := np.flatnonzero(numbers != labels)).size:
        raise DataError(f"row {wrong[0]}: the label {labels[wrong[0]]} is no class number")
    return numbers
