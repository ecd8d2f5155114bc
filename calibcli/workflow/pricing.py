"""What errors cost, as users say it, and how rows are decided then.

Costs are ``fp=1,fn=50`` for two classes, or a matrix in a file.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from calibcli.arrays import NumpyArray
from calibcli.errors import ParamsError, UsageError
from calibcli.metrics.costs import Costs, decide_from
from calibcli.metrics.view import Event, choose_event, repeated_event
from calibcli.params import Params
from calibcli.small_files import read_small

CostsLike: TypeAlias = Mapping[str, float] | ArrayLike
"""Costs of two classes by outcome, ``{"fp": 1, "fn": 50}``, or a matrix (K, K)."""

_OUTCOMES = {"fp": "false positive", "fn": "false negative", "tp": "true positive"}
_OUTCOMES["tn"] = "true negative"
_LARGEST_FILE = 256 << 20
_LARGEST_COST = 1e15
"""Sums of larger ones would lose what the others cost."""


@dataclass(frozen=True, eq=False)
class GivenCosts:
    """Costs before the classes are known that they are for.

    Parameters
    ----------
    title : str
        What messages call them.
    outcomes : mapping of str to float or None
        Of two classes: ``fp``, ``fn``, and perhaps ``tp`` and ``tn``.
    matrix : array (K, K) or None
        True class, decision.
    """

    title: str
    outcomes: Mapping[str, float] | None = None
    matrix: NumpyArray | None = None

    def of(self, classes: int, event: Event, names: Sequence[str] | None = None) -> Costs:
        """The costs for so many classes, of whose the positive one is the event's, or class 1.

        Raises
        ------
        UsageError
            They are for another number of classes, or cannot be costs.
        """
        positive = event if isinstance(event, int) else 1
        try:
            return self._checked(classes, positive, names)
        except UsageError as error:
            raise UsageError(f"{self.title}: {error}") from None

    def _checked(self, classes: int, positive: int, names: Sequence[str] | None) -> Costs:
        if self.outcomes is not None:
            if classes != 2:
                raise UsageError(
                    f"fp and fn are for two classes; here are {classes}: give a matrix"
                )
            by_name = {_OUTCOMES[key].replace(" ", "_"): v for key, v in self.outcomes.items()}
            return Costs.of_errors(**by_name, positive=positive)
        assert self.matrix is not None
        costs = Costs.of_matrix(self.matrix, positive)
        if costs.classes != classes:
            which = f" ({', '.join(names[:3])}, …)" if names and classes > 3 else ""
            raise UsageError(f"is for {costs.classes} classes; here are {classes}{which}")
        return costs


def parse_costs(text: str) -> GivenCosts:
    """Costs from ``"fp=1,fn=50"``, or from a file with a matrix: .json, .csv or .npy.

    Raises
    ------
    UsageError
        They cannot be read, or cannot be costs.
    """
    title = f"--cost {text}"
    try:
        if "=" in text and not Path(text).is_file():
            return GivenCosts(title, outcomes=_outcomes(text))
        return GivenCosts(title, matrix=_bounded(_read_matrix(Path(text))))
    except UsageError as error:
        raise UsageError(f"{title}: {error}") from None


def given_costs(costs: CostsLike) -> GivenCosts:
    """Costs as Python has them.

    Raises
    ------
    UsageError
        They cannot be costs.
    """
    if not isinstance(costs, Mapping):
        try:
            matrix = np.asarray(costs, dtype=np.float64)
        except (TypeError, ValueError):
            raise UsageError("costs must be numbers, a row a true class") from None
        return GivenCosts("costs", matrix=_bounded(matrix))
    return GivenCosts("costs", outcomes=_complete({str(k): float(v) for k, v in costs.items()}))


def _outcomes(text: str) -> dict[str, float]:
    """The costs in ``"fp=1,fn=50"``."""
    costs: dict[str, float] = {}
    for part in text.split(","):
        key, sign, number = (each.strip() for each in part.partition("="))
        if not sign or key in costs:
            raise UsageError(f"{part!r} is not one of fp=, fn=, tp= and tn=, each once")
        try:
            costs[key] = float(number)
        except ValueError:
            raise UsageError(f"{number!r} is not a number") from None
    return _complete(costs)


def _complete(costs: dict[str, float]) -> dict[str, float]:
    unknown = next((key for key in costs if key not in _OUTCOMES), None)
    if unknown is not None:
        raise UsageError(f"there is no {unknown!r}; there are fp, fn, tp and tn")
    for key in ("fp", "fn"):
        if key not in costs:
            raise UsageError(f"what a {_OUTCOMES[key]} costs is missing ({key}=)")
    for key, cost in costs.items():
        if not abs(cost) <= _LARGEST_COST:
            raise UsageError(f"{key}={cost:g} is no cost; it must be at most {_LARGEST_COST:g}")
    for wrong, right in (("fp", "tn"), ("fn", "tp")):
        if costs[wrong] < costs.get(right, 0.0):
            raise UsageError(
                f"a {_OUTCOMES[wrong]} costs {costs[wrong]:g}, less than a {_OUTCOMES[right]} "
                f"({costs.get(right, 0.0):g})"
            )
    return costs


def _bounded(matrix: NumpyArray) -> NumpyArray:
    largest = float(np.abs(matrix).max(initial=0.0))
    if largest > _LARGEST_COST and math.isfinite(largest):
        raise UsageError(f"{largest:g} is no cost; it must be at most {_LARGEST_COST:g}")
    return matrix


def _read_matrix(path: Path) -> NumpyArray:
    readers = {".json": _of_json, ".csv": _of_csv, ".npy": _of_npy}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError("give fp=X,fn=Y, or a matrix in a file: .json, .csv or .npy")
    try:
        content = read_small(path, _LARGEST_FILE)
    except OSError as error:
        raise UsageError(f"{error.strerror or error}") from None
    try:
        matrix = np.asarray(reader(content))
        if matrix.dtype.kind not in "iuf":
            raise UsageError("must hold numbers only, a row a true class")
        return matrix.astype(np.float64)
    except _NO_MATRIX:
        raise UsageError("must hold a square of numbers, a row a true class") from None


_NO_MATRIX = (
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
    EOFError,
    MemoryError,
    SyntaxError,
    TokenError,
    csv.Error,
)
"""What the readers raise for something else; NumPy parses the header of an array as Python."""


def _of_json(content: bytes) -> Any:
    return json.loads(content.decode("utf-8-sig"))


def _of_csv(content: bytes) -> Any:
    lines = csv.reader(io.StringIO(content.decode("utf-8-sig")))
    return [[float(cell) for cell in line] for line in lines if any(map(str.strip, line))]


def _of_npy(content: bytes) -> Any:
    # An array of objects would have to be unpickled.
    return np.load(io.BytesIO(content), allow_pickle=False)


@dataclass(frozen=True)
class Decider:
    """How rows are decided by their probabilities.

    Parameters
    ----------
    positive : int or None
        Of two classes, the one that is decided for from a threshold on.
    threshold : float or None
        Of its probability; None: by costs.
    costs : Costs or None
    """

    positive: int | None = None
    threshold: float | None = None
    costs: Costs | None = None

    def __call__(self, probs: NumpyArray) -> NumpyArray:
        """The decision (n,), int64, of probabilities (n, K)."""
        if self.costs is not None:
            return self.costs.least(probs)[0]
        assert self.positive is not None
        assert self.threshold is not None
        return decide_from(probs[:, self.positive], self.threshold, self.positive)


def make_decider(
    params: Params,
    threshold: float | str | None = None,
    given: GivenCosts | None = None,
    positive: str | None = None,
    names: Sequence[str] | None = None,
) -> Decider:
    """How to decide, by a threshold or by costs.

    Parameters
    ----------
    params : Params
        Of the calibrator.
    threshold : float, str or None
        A number from 0 to 1, or ``"best"``: the one that a fit with costs has learnt.
    given : GivenCosts or None
    positive : str or None
        Name or number of the positive class of two; None: that of the fit's costs, or class 1.
    names : sequence of str or None
        Of the classes, where the file of the calibrator has none.

    Raises
    ------
    UsageError
        Both are given or neither, the threshold is none, or there are more than two classes for it.
    ParamsError
        The fit has learnt no threshold.
    """
    if (threshold is None) == (given is None):
        raise UsageError("decide by --threshold or by --cost, one of them")
    if threshold is not None and params.classes != 2:
        raise UsageError(f"--threshold {threshold} is for two classes; here are {params.classes}")
    learnt = _learnt(params)
    event = _event(params, positive, names, learnt)
    chosen = event if isinstance(event, int) else None
    if given is not None:
        costs = given.of(params.classes, event, params.class_names or names)
        return Decider(chosen, costs.threshold, costs)
    if threshold != "best":
        return Decider(chosen, _fraction(threshold))
    if "threshold" not in learnt:
        raise ParamsError("has learnt no threshold; calib fit --cost fp=X,fn=Y learns one")
    if learnt["positive"] != chosen:
        raise ParamsError(f"its threshold is of class {learnt['positive']}, not of class {chosen}")
    return Decider(chosen, learnt["threshold"])


def _event(
    params: Params, positive: str | None, names: Sequence[str] | None, learnt: Mapping[str, Any]
) -> Event:
    """What the decisions are for: the positive class of two, as asked for or as the fit had it."""
    if params.classes != 2:
        if positive is not None:
            raise UsageError(f"--positive {positive} is for two classes; here are {params.classes}")
        return "top"
    event = choose_event("positive", positive, 2, params.class_names or names)
    if "positive" in params.reading:
        event = repeated_event(event, learnt.get("positive"), "the calibrator")
    return learnt.get("positive", 1) if event == "auto" else event


def _fraction(threshold: float | str | None) -> float:
    try:
        number = float(threshold if threshold is not None else math.nan)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise UsageError(f"--threshold {threshold} is neither best nor a number from 0 to 1")
    return number


def _learnt(params: Params) -> dict[str, Any]:
    """The positive class and the best threshold of a fit; only what there is."""
    part = params.fit.get("decision")
    part = part if isinstance(part, dict) else {}
    positive = params.reading.get("positive", part.get("positive"))
    learnt: dict[str, Any] = {}
    if positive in (0, 1) and not isinstance(positive, bool):
        learnt["positive"] = positive
        threshold = part.get("threshold") if part.get("positive") == positive else None
        if isinstance(threshold, int | float) and 0 <= threshold <= 1:
            learnt["threshold"] = float(threshold)
    return learnt
