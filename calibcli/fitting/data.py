"""What fits ask of data: rows that can be folded over, and ever more than that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar

from calibcli.arrays import Array, NumpyArray
from calibcli.calibrators.base import Calibrator

State = TypeVar("State")
Grouping: TypeAlias = Callable[[int, int], NumpyArray]
"""The group of each row from a first to before a last one."""


class Block(Protocol):
    """Rows as a fold hands them over."""

    @property
    def start(self) -> int:
        """Number of the first row."""

    @property
    def logits(self) -> Array:
        """Logits or log-probabilities (n, K)."""

    @property
    def labels(self) -> Array:
        """Labels (n,)."""

    @property
    def weights(self) -> Array | None:
        """Weights (n,), or None for weights of 1."""


class Data(Protocol):
    """Labelled rows that can be folded over."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    @property
    def classes(self) -> int:
        """Number of classes K."""

    @property
    def weight(self) -> float:
        """Sum of the weights."""

    @property
    def class_weights(self) -> NumpyArray:
        """Sum of the weights of each class (K,)."""

    @property
    def impossible(self) -> bool:
        """Whether some logit is ``-inf``."""

    def fold(
        self, partial_state: Callable[[Any], State], merge: Callable[[State, State], State]
    ) -> State:
        """The merged states of all blocks."""


class CurveData(Data, Protocol):
    """Data that says what a fit may cost."""

    @property
    def room(self) -> int:
        """Bytes of rows that may be held."""

    @property
    def workers(self) -> int:
        """Threads that may run at once."""


class FittingData(CurveData, Protocol):
    """Data that can also be passed through a calibrator, and thinned for a first guess."""

    @property
    def normalised(self) -> bool:
        """Whether the rows are known to hold log-probabilities."""

    def after(self, *calibrators: Calibrator) -> FittingData:
        """The same rows with scores that have passed through calibrators."""

    def sample(self, rows: int) -> FittingData | None:
        """About this many of the rows, or None."""

    @property
    def seed(self) -> int:
        """Of everything that is random in a fit."""

    def inner_split(self) -> tuple[FittingData, FittingData]:
        """Rows to fit, and rows to steer an adaptive objective by."""


class FoldedData(FittingData, Protocol):
    """Data whose rows are assigned to folds."""

    @property
    def folds(self) -> int:
        """Number of folds."""

    @property
    def fold_of_rows(self) -> Grouping:
        """The fold of each row."""

    def without_fold(self, held_out: int) -> FoldedData:
        """The same rows, those of one fold not counting."""

    def reweighted(self, class_factors: NumpyArray) -> FoldedData:
        """The same rows, their weights multiplied by factors (K,) of their classes."""

    def after(self, *calibrators: Calibrator) -> FoldedData:
        """The same rows with calibrated scores."""
