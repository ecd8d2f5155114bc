"""What is written of each row's probabilities: all of them, or what was asked for.

Of 128,000 classes all probabilities are rarely wanted: the most probable ones, the confidence and
the probability of the label say most of it in a thousandth of the space.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from calibcli.arrays import NumpyArray, pick, sum_classes
from calibcli.errors import UsageError

PROBS, PREDICTION, CONFIDENCE, LABEL = "probs", "prediction", "confidence", "label"
LOWER, UPPER = "confidence_lower", "confidence_upper"
"""From where to where the confidence may lie, after methods that say so."""

TOP_INDEX, TOP_LOGPROB, TOP_REST = "topk_index", "topk_logprob", "topk_rest"
"""The most probable classes, their log-probabilities, and the probability of all others."""

CORRECT, LABEL_PROB, DECISION = "correct", "label_prob", "decision"

KEEPING = "top:K|confidence|label"


@dataclass(frozen=True)
class Kept:
    """What is kept of the probabilities of a row.

    Attributes
    ----------
    top : int
        How many of the most probable classes; 0 for none.
    confidence, label : bool
        The largest probability, and that of the label.
    """

    top: int = 0
    confidence: bool = False
    label: bool = False


def parse_kept(texts: Iterable[str]) -> Kept | None:
    """What ``--keep`` says, each text being words with commas between them; None without any.

    >>> parse_kept(["top:5,label"])
    Kept(top=5, confidence=False, label=True)

    Raises
    ------
    UsageError
        Another word.
    """
    words = [word.strip() for text in texts for word in text.split(",")]
    top = 0
    for word in words:
        if match := re.fullmatch(r"top:([1-9]\d{0,8})", word):
            top = max(top, int(match[1]))
        elif word not in (CONFIDENCE, LABEL):
            raise UsageError(
                f"--keep {word!r} is not known; give top:K (the K most probable classes), "
                "confidence or label, or several with commas between them"
            )
    return Kept(top, CONFIDENCE in words, LABEL in words) if words else None


@dataclass(frozen=True)
class RowColumns:
    """The columns that are computed of each row.

    Attributes
    ----------
    kept : Kept or None
        What is kept of the probabilities; None: all of them.
    decider : callable or None
        Decisions (n,) of probabilities (n, K).
    """

    kept: Kept | None = None
    decider: Callable[[NumpyArray], NumpyArray] | None = None

    @property
    def of_rows(self) -> bool:
        """Whether a few numbers of each row are all that it takes, not all its probabilities."""
        return self.kept is not None and not self.kept.top and self.decider is None

    def __call__(
        self,
        probs: NumpyArray,
        prediction: NumpyArray,
        confidence: NumpyArray,
        interval: tuple[NumpyArray, NumpyArray] | None,
        labels: NumpyArray | None,
    ) -> Mapping[str, NumpyArray]:
        """The columns by name, each (n,) or (n, m), in the order in which they are written.

        Parameters
        ----------
        probs : array (n, K)
            Only to be looked at until this returns.
        prediction, confidence : array (n,)
        interval : (array (n,), array (n,)) or None
        labels : int array (n,) or None
            Rows without a label have a number that is no class.
        """
        kept, columns = self.kept, {}
        if kept is None:
            columns[PROBS] = probs
        elif kept.top:
            columns |= top_classes(probs, kept.top)
        chance = partial(pick, probs)
        columns |= self.numbers(prediction, confidence, labels, chance, probs.shape[1])
        if interval is not None and CONFIDENCE in columns:
            columns[LOWER], columns[UPPER] = interval
        if self.decider is not None:
            columns[DECISION] = self.decider(probs)
        return columns

    def numbers(
        self,
        prediction: NumpyArray,
        confidence: NumpyArray,
        labels: NumpyArray | None,
        chance: Callable[[NumpyArray], NumpyArray],
        classes: int,
    ) -> dict[str, NumpyArray]:
        """The columns (n,) of which each row has one number.

        Parameters
        ----------
        prediction, confidence, labels
            As of `__call__`.
        chance : callable
            The probability of a class of each row (n,).
        classes : int
        """
        kept, columns = self.kept, {PREDICTION: prediction}
        if kept is None or kept.confidence:
            columns[CONFIDENCE] = confidence
        if labels is not None:
            columns[LABEL] = labels
        if kept is not None and labels is not None:
            known = (labels >= 0) & (labels < classes)
            if kept.confidence and known.all():
                columns[CORRECT] = prediction == labels
            if kept.label:
                found = chance(np.where(known, labels, 0))
                columns[LABEL_PROB] = np.where(known, found, np.array(np.nan, found.dtype))
        return columns

    def notes(self, classes: int) -> dict[str, str] | None:
        """How a file of these columns is to be read, see `DataFile.notes`."""
        if self.kept is None or not self.kept.top:
            return None
        return {"logits": TOP_LOGPROB, "input": "log-probs", "num_classes": str(classes)}


def top_classes(probs: NumpyArray, count: int) -> dict[str, NumpyArray]:
    """The most probable classes of each row, from the first, with what they have.

    Of equals the one with the least number comes first.

    Parameters
    ----------
    probs : array (n, K)
    count : int
        How many, if there are so many.
    """
    rows, classes = probs.shape
    count = min(count, classes)
    # A row that is no number has no order; it is refused by whoever counts the rows.
    if np.isnan(probs[:, 0]).any():
        probs = np.where(np.isnan(probs[:, :1]), 0, probs)
    least = _least_of_top(probs, count)
    row, column = np.divmod(np.flatnonzero(probs >= least[:, None]), classes)
    order = np.lexsort((column, -probs[row, column], row))
    counts = np.bincount(row, minlength=rows)
    places = order[(np.cumsum(counts) - counts)[:, None] + np.arange(count)]
    index = column[places].astype(np.int32)
    numbers = np.arange(rows)[:, None]
    chances = probs[numbers, index]
    # What is left is small; taken from 1 it would have no digits.
    others = probs.copy()
    others[numbers, index] = 0
    with np.errstate(divide="ignore"):
        return {TOP_LOGPROB: np.log(chances), TOP_INDEX: index, TOP_REST: sum_classes(others)}


_GROUP = 256
"""Classes of which the largest is found first, where there are many."""


def _least_of_top(probs: NumpyArray, count: int) -> NumpyArray:
    """A number for each row (n,) that the ``count`` largest probabilities are not below.

    Of many classes it is the one of that rank among the largest of groups of classes: so many
    groups have one that is not below, and what else is not below it is little.
    """
    rows, classes = probs.shape
    groups = classes // _GROUP
    if groups <= 2 * count:
        return np.partition(probs, classes - count, axis=1)[:, classes - count]
    # Each group has every so many-th class: the largest of all groups are found side by side.
    tops = np.maximum.reduce(probs[:, : groups * _GROUP].reshape(rows, _GROUP, groups), axis=1)
    return np.partition(tops, groups - count, axis=1)[:, groups - count]
