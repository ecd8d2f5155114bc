"""What every metric sees of some rows: probabilities, confidence, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    argmax,
    dot_classes,
    like,
    namespace,
    pick,
    shift,
    sum_classes,
    sum_rows,
    to_numpy,
)
from calibcli.cached import cached_property
from calibcli.errors import UsageError

Event: TypeAlias = int | Literal["auto", "top"]
"""What the confidence is of: a class, the predicted class (top), or class 1 of two, else top."""


ViewChoice: TypeAlias = Literal["auto", "top", "positive"]
"""The event by a word for users: that of the positive class, of the predicted one, or as fits."""


def choose_event(
    view: ViewChoice, positive: str | None, classes: int, names: Sequence[str] | None = None
) -> Event:
    """The event that a user asks for.

    Parameters
    ----------
    view : str
    positive : str or None
        Name or number of the positive class of two; None: class 1.
    classes : int
    names : sequence of str or None
        Of the classes.

    Raises
    ------
    UsageError
        A positive class of more than two classes, or one that there is not.
    """
    if view == "top":
        if positive is not None:
            raise UsageError(f"--positive {positive}: the view of the top label has none")
        return "top"
    if classes != 2 and (view == "positive" or positive is not None):
        flag = "--view positive" if positive is None else f"--positive {positive}"
        raise UsageError(f"{flag} is for two classes; here are {classes}")
    if positive is None:
        return "auto"
    known = names or ("0", "1")
    if positive in known:
        return known.index(positive)
    if positive in ("0", "1"):
        return int(positive)
    raise UsageError(f"--positive {positive}: is none of the classes {known[0]} and {known[1]}")


def repeated_event(event: Event, fitted: int | None, origin: str) -> Event:
    """The event that a user asks for, or else that of a fit.

    Parameters
    ----------
    event : Event
        As `choose_event` gives it.
    fitted : int or None
        The positive class that was given for the fit.
    origin : str
        What messages call it.

    Raises
    ------
    UsageError
        The positive class is another one.
    """
    if fitted is None or event == "top":
        return event
    if event not in ("auto", fitted):
        raise UsageError(
            f"--positive {event}: {origin} was fitted with --positive {fitted}; leave it out, or "
            "fit again"
        )
    return fitted


def event_class(event: Event, classes: int) -> int | None:
    """The class whose probability the confidence is; None for the predicted class of each row."""
    if event == "auto":
        return 1 if classes == 2 else None
    return None if event == "top" else event


class View:
    """A block of rows as metrics see it; what several of them need is computed once.

    Parameters
    ----------
    logits : array (n, K)
        Logits or log-probabilities, on any device.
    labels : int array (n,)
        On the same device.
    weights : float64 array (n,), on the host, or None for weights of 1
    start : int
        Number of the first row; the rows are consecutive.
    keys : dict of str to int64 array (n,), on the host, or None
        Numbers of groups by role: ``"by"``, ``"cluster"``.
    event : Event
        What the confidence is of.

    The matrices stay where they are; the vectors are NumPy arrays on the host.
    """

    def __init__(
        self,
        logits: Array,
        labels: Array,
        weights: NumpyArray | None = None,
        *,
        start: int = 0,
        keys: Mapping[str, NumpyArray] | None = None,
        event: Event = "auto",
    ) -> None:
        self._logits = logits
        self.device_labels = labels
        self._weights = weights
        self.start, self.keys = start, keys or {}
        self.first: View | None = None
        """The first model's view of the same rows, where this is another one's."""
        self.event = event_class(event, self.classes)
        """The class whose probability the confidence is; None: the predicted class of each row."""
        self.kept: dict[Any, NumpyArray] = {}
        """What statistics have computed of these rows that others need too."""

    def __len__(self) -> int:
        return int(self._logits.shape[0])

    @property
    def classes(self) -> int:
        """The number of classes K."""
        return int(self._logits.shape[1])

    @cached_property
    def shifted(self) -> Array:
        """Logits (n, K) minus their row's largest, on the device."""
        return shift(self._logits)

    @property
    def bits(self) -> int:
        """The bits of a number of the probabilities: 32 or 64."""
        return int(namespace(self.shifted).finfo(self.shifted.dtype).bits)

    @cached_property
    def exponentials(self) -> Array:
        """Exponentials (n, K) of the logits minus their row's largest, on the device."""
        return namespace(self.shifted).exp(self.shifted)

    @cached_property
    def probs(self) -> Array:
        """Probabilities (n, K), on the device."""
        return self.exponentials / self.total[:, None]

    def probabilities_at(self, classes: Array) -> NumpyArray:
        """Exactly what `probs` has at a class of each row (n,), which is on the device: float64."""
        return to_numpy(pick(self.exponentials, classes) / self.total).astype(np.float64)

    @cached_property
    def class_mass(self) -> NumpyArray:
        """Sum over the rows of weight x probability (K,), float64."""
        probs = self.probs
        if self.weighted:
            probs = probs * like(self.weights, probs)[:, None]
        return sum_rows(probs)

    def probability_of(self, classes: NumpyArray) -> NumpyArray:
        """The probability (n,), float64, of a class of each row (n,); exactly that in `probs`."""
        xp = namespace(self.shifted)
        index = xp.asarray(classes, device=getattr(self.shifted, "device", None))
        return self.probabilities_at(index)

    @cached_property
    def total(self) -> Array:
        """Sum (n,) of the exponentials of the logits minus their largest, on the device."""
        return sum_classes(self.exponentials)

    @cached_property
    def labels(self) -> NumpyArray:
        """Labels (n,)."""
        return to_numpy(self.device_labels)

    @property
    def weighted(self) -> bool:
        """Whether the rows have weights of their own."""
        return self._weights is not None

    @cached_property
    def weights(self) -> NumpyArray:
        """Weights (n,), float64."""
        return np.ones(len(self)) if self._weights is None else self._weights

    @cached_property
    def total_weight(self) -> float:
        """The sum of the weights; the number of rows where there are none."""
        return float(self.weights.sum()) if self.weighted else float(len(self))

    @cached_property
    def prediction(self) -> NumpyArray:
        """The most probable class (n,); the first of equals."""
        return to_numpy(argmax(self.shifted))

    @cached_property
    def confidence(self) -> NumpyArray:
        """The probability of the event (n,), float64: of a class, or of the prediction."""
        if self.event is None:
            return self.top_confidence
        return to_numpy(self.probs[:, self.event]).astype(np.float64)

    @cached_property
    def correct(self) -> NumpyArray:
        """Whether the event came true (n,), bool."""
        if self.event is None:
            return self.top_correct
        correct: NumpyArray = self.labels == self.event
        return correct

    def forecast(self, *, top: bool = False) -> tuple[NumpyArray, NumpyArray]:
        """Confidence and outcome (n,) of the event; or of the predicted class, whatever that is."""
        if top:
            return self.top_confidence, self.top_correct
        return self.confidence, self.correct

    def forecast_class(self, *, top: bool = False) -> NumpyArray:
        """The class (n,) that the confidence of `forecast` is of."""
        if top or self.event is None:
            return self.prediction
        return np.full(len(self), self.event)

    @cached_property
    def top_confidence(self) -> NumpyArray:
        """The largest probability (n,), float64."""
        return to_numpy(1 / self.total).astype(np.float64)

    @cached_property
    def top_correct(self) -> NumpyArray:
        """Whether the most probable class is the label (n,), bool."""
        correct: NumpyArray = self.prediction == self.labels
        return correct

    @cached_property
    def true_log_prob(self) -> NumpyArray:
        """Log-probability of the label (n,), float64."""
        of_label = pick(self.shifted, self.device_labels)
        return to_numpy(of_label - namespace(of_label).log(self.total)).astype(np.float64)

    @cached_property
    def true_prob(self) -> NumpyArray:
        """Probability of the label (n,), float64; exactly the element of `probs`."""
        return self.probabilities_at(self.device_labels)

    @cached_property
    def squared_error(self) -> NumpyArray:
        """``sum_k (p_k - [y = k])^2`` (n,), float64, expanded: no one-hot matrix is formed.

        For a perfect prediction in float32 rounding may leave about -1e-7.
        """
        squares = dot_classes(self.exponentials, self.exponentials) / (self.total * self.total)
        error: NumpyArray = to_numpy(squares) - 2.0 * self.true_prob + 1.0
        return error

    @cached_property
    def label_rank(self) -> NumpyArray:
        """How many classes come before the label (n,): more probable, or as probable and first."""
        xp = namespace(self.shifted)
        of_label = pick(self.shifted, self.device_labels)[:, None]
        ahead = to_numpy(xp.sum(self.shifted > of_label, axis=-1))
        level = to_numpy(xp.sum(self.shifted == of_label, axis=-1))
        (tied,) = np.nonzero(level > 1)
        if len(tied):
            equal = to_numpy(self.shifted == of_label)[tied]
            before = np.arange(self.classes) < self.labels[tied, None]
            ahead[tied] += (equal & before).sum(axis=-1)
        return ahead
