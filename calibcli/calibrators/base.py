"""The contracts of a fitted calibrator and of a family of maps that can be fitted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from calibcli.arrays import (
    Array,
    NumpyArray,
    log_softmax,
    restore_impossible,
    softmax,
    split_impossible,
)
from calibcli.calibrators.curvature import Curvature, Expansion, KeptWork, PreparedRows
from calibcli.calibrators.parameters import Parameters
from calibcli.value_counts import CountedScores, normalised

GROUP = "group"
"""The role of the column whose values have maps of their own."""

LARGEST_REACH = 1e37
"""Differences of larger logits overflow in float32."""

Preserves: TypeAlias = Literal["order", "accuracy", "nothing"]


class Calibrator(ABC):
    """A fitted map from logits to log-probabilities: a frozen dataclass of its parameters.

    Adding a constant to a row's logits changes nothing; an impossible class (``-inf``) stays so.

    Attributes
    ----------
    kind : str
        Name in parameter files.
    normalises : bool
        Whether the map sees log-probabilities rather than logits. A map that is not invariant to
        the row's additive constant by itself needs that.
    """

    kind: ClassVar[str]
    normalises: ClassVar[bool] = False

    @abstractmethod
    def transform(self, logits: Array) -> Array:
        """New logits (n, K), not normalised, from finite logits (n, K)."""

    def parameters(self) -> dict[str, Any]:
        """Numbers, strings and NumPy arrays of the parameter file; by default the fields."""
        # `Calibrator` itself is no dataclass; each calibrator is.
        instance: Any = self
        return {entry.name: getattr(self, entry.name) for entry in fields(instance)}

    @classmethod
    @abstractmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> Calibrator:
        """The calibrator for K classes with the parameters of a file.

        Raises
        ------
        ParamsError
            Unknown or missing names, wrong shapes, numbers that are not finite or not allowed.
        """

    @property
    def changes_nothing(self) -> bool:
        """Whether it is known to leave every probability as it is."""
        return False

    @property
    def by_value(self) -> bool:
        """Whether equal logits of a row become equal ones, by a function that never falls.

        It may depend on the row through what `logits_by_value` is given. Impossible classes have
        no part in it.
        """
        return False

    @property
    def keeps_ranking(self) -> bool:
        """Whether rows of two classes are known to keep their order by the probability of one.

        Rows that differ then differ afterwards, but for rounding: what depends on the order of the
        rows alone, such as AUROC, stays as it is.
        """
        return self.changes_nothing

    @property
    def preserves(self) -> Preserves:
        """What it is known to leave as it was in every row, as in `Family`."""
        return "order" if self.changes_nothing else "nothing"

    def reach(self, bound: float) -> float:
        """How large the new logits can be, for finite logits of at most this absolute value.

        It states where the arithmetic of the map is safe: a parameter file whose stages can reach
        beyond `LARGEST_REACH` is refused. A stage that does not say it is taken to keep the bound.
        """
        return bound

    def for_groups(self, numbers: NumpyArray) -> Calibrator:
        """The map for rows of the groups (n,), for a calibrator that tells groups apart."""
        return self

    def interval(self, logits: Array, prediction: Array) -> tuple[Array, Array] | None:
        """The interval in which the probability of a class may lie, where a map can say so.

        Parameters
        ----------
        logits : array (n, K)
        prediction : int array (n,)
            A class for each row.

        Returns
        -------
        lower, upper : float64 array (n,), or None
            Around the probability that `probs` gives that class.
        """
        return None

    def entry(self) -> tuple[str, str]:
        """The group of entry points, and the name, by which a plugin would add such a stage."""
        return "calibcli.methods", self.kind

    def parts(self) -> Sequence[Calibrator]:
        """The calibrators that this one is made of."""
        return ()

    readable: ClassVar[bool] = True
    """Whether its numbers tell a person what it does; where they don't, `summary` does."""

    def summary(self) -> str:
        """The parameters in a few words, for a person."""
        return ""

    def log_probs(self, logits: Array) -> Array:
        """Calibrated log-probabilities (n, K) of logits (n, K)."""
        return log_softmax(self.logits(logits))

    def probs(self, logits: Array) -> Array:
        """Calibrated probabilities (n, K) of logits (n, K)."""
        return softmax(self.logits(logits))

    def logits(self, logits: Array) -> Array:
        """Calibrated logits (n, K), not normalised, of logits (n, K)."""
        finite, mask = split_impossible(log_softmax(logits) if self.normalises else logits)
        return restore_impossible(self.transform(finite), mask)

    def logits_by_value(self, values: NumpyArray, counts: NumpyArray) -> NumpyArray:
        """Calibrated logits (n, D) of distinct finite logits (n, D), ascending, with their counts.

        Asked for where the map is `by_value`. Impossible classes are not among them.
        """
        new: NumpyArray = self.transform(normalised(values, counts) if self.normalises else values)
        return new


class Family(ABC):
    """A method: what can be fitted by name, as a frozen dataclass of options.

    Attributes
    ----------
    name : str
        On the command line.
    title, source : str
        What it is, and where it comes from.
    preserves : str
        What a fit leaves as it was in every row, if no link is behind it. ``"order"``: no class
        overtakes another, though some may become tied; ``"accuracy"``: the top class never
        changes; ``"nothing"``.
    cost : str
        What a fit costs, in words.
    binary_only : bool
        Whether it is defined for two classes only.
    before : tuple of str
        Methods that are fitted first, as stages of their own.
    tunable : tuple of str
        Fields whose penalties cross-validation can choose, the most telling first.
    minimises : bool
        Whether a fit minimises a loss, which can be chosen then.
    stage : type of Calibrator or None
        What a plugin's method is as a stage of a parameter file; its kind is the method's name.
        None where a fit makes stages of this package alone.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    preserves: ClassVar[Preserves]
    cost: ClassVar[str]
    binary_only: ClassVar[bool] = False
    before: ClassVar[tuple[str, ...]] = ()
    tunable: ClassVar[tuple[str, ...]] = ()
    minimises: ClassVar[bool] = True
    stage: ClassVar[type[Calibrator] | None] = None

    @abstractmethod
    def size(self, classes: int) -> int | None:
        """Number of parameters at K classes; None where it grows with the rows."""

    @abstractmethod
    def rows_needed(self, classes: int) -> int:
        """Number of rows from which on a fit is sensible."""


class SmoothMap(Family):
    """A family of maps with parameters (P,), as a solver needs it: a frozen dataclass of options.

    The abstract methods are all that a map must have; the others have it fitted in fewer passes
    (`pullback_squares`, `likelihood_hessian`, `likelihood_along`, `likelihood_by_value`,
    `prepared`, `prepared_by_value`, `kept_work`, `curvature`, `expansion`), give it a penalty
    (`ridge`, `anchor`) or bounds (`signed`), or place its knots (`needs_placing`, `placed`).

    Attributes
    ----------
    linear : bool
        Whether new logits are linear in the parameters, so that a convex objective stays convex.
    exact : bool
        Whether its optimum shows by a vanishing gradient. A network's kinks don't allow that; its
        fit ends when the loss hardly falls any more.
    normalises : bool
        As in `Calibrator`.
    bounded : bool
        Whether its parameters must not be negative, but for those that `signed` names.
    keeps_work : bool
        Whether there is `kept_work`; such a map is hashable.
    along_values : bool
        Whether there is `likelihood_by_value`.
    """

    linear: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    normalises: ClassVar[bool] = False
    bounded: ClassVar[bool] = False
    keeps_work: ClassVar[bool] = False
    along_values: ClassVar[bool] = False

    @abstractmethod
    def size(self, classes: int) -> int:
        """Number of parameters at K classes."""

    @abstractmethod
    def start(self, classes: int, scale: float) -> NumpyArray:
        """Parameters (P,) of the map that multiplies all logits by a scale."""

    @abstractmethod
    def forward(self, theta: NumpyArray, logits: Array) -> Array:
        """New logits (n, K) at parameters (P,) from finite logits (n, K)."""

    @abstractmethod
    def pullback(self, theta: NumpyArray, logits: Array, gradient: Array) -> NumpyArray:
        """Sum over rows of the Jacobian's transpose times a gradient by new logits (n, K): (P,)."""

    def pullback_squares(self, theta: NumpyArray, logits: Array, diagonal: Array) -> NumpyArray:
        """Sum over rows of the squared Jacobian's transpose times a diagonal (n, K): (P,).

        It scales the parameters for a solver; ones, where a map does not offer it, scale nothing.
        """
        return np.ones_like(theta)

    def likelihood_hessian(
        self, theta: NumpyArray, logits: Array, probs: Array, weights: Array | None
    ) -> NumpyArray | None:
        """Sum over rows of ``J' (diag p - p p') J`` (P, P), where the map has a short way to it.

        J is the Jacobian of the new logits, whose probabilities are p (n, K).
        """
        return None

    def likelihood_along(
        self, theta: NumpyArray, logits: Array, labels: Array
    ) -> NumpyArray | None:
        """The nll of each row and three derivatives by the only parameter: float64 (4, n).

        None where the map has no short way to them at finite logits (n, K) and labels (n,).
        """
        return None

    def likelihood_by_value(
        self, theta: NumpyArray, scores: CountedScores, labels: NumpyArray
    ) -> NumpyArray:
        """As `likelihood_along`, of rows by value. Asked for where the map fits `along_values`."""
        raise NotImplementedError

    def kept_work(self, logits: NumpyArray) -> KeptWork:
        """What `forward`, `pullback` and `curvature` find of rows (n, K) anew in every pass.

        It depends on the map, but not on parameters. Asked for where the map `keeps_work`.
        """
        raise NotImplementedError

    def prepares(self, classes: int) -> bool:
        """Whether at K classes `prepared` is a shorter way than `forward` and `pullback`."""
        return False

    def prepared(self, logits: NumpyArray, labels: NumpyArray) -> PreparedRows:
        """What every pass needs of rows: of logits (n, K) in host memory and labels (n,).

        Where the map normalises, the logits are log-probabilities.
        """
        raise NotImplementedError

    def resolution(self, theta: NumpyArray) -> float | None:
        """How fine `prepared_by_value` must be for parameters (P,); None where it is no way."""
        return None

    def prepared_by_value(
        self, scores: CountedScores, labels: NumpyArray, resolution: float
    ) -> PreparedRows:
        """As `prepared`, of rows by value, for parameters of a resolution."""
        raise NotImplementedError

    def curvature(self, classes: int) -> Curvature | None:
        """The sums for a preconditioner of the likelihood at K classes, where the map has some."""
        return None

    def expansion(self) -> Expansion | None:
        """All derivatives of the likelihood from one fold, where the map has a short way to them.

        A problem of few parameters that is not convex is solved by Newton's method then.
        """
        return None

    def pushforward(self, theta: NumpyArray, logits: Array, direction: NumpyArray) -> Array:
        """The Jacobian of a linear map times a direction (P,): a change of the new logits (n, K).

        Maps that are not linear are fitted by gradients alone.
        """
        assert self.linear
        return self.forward(direction, logits)

    @abstractmethod
    def calibrator(self, theta: NumpyArray, classes: int) -> Calibrator:
        """The fitted calibrator."""

    def resolved(self, rows: float) -> SmoothMap:
        """The family that is fitted to so many rows; another one where an option asks for that."""
        return self

    @property
    def needs_placing(self) -> bool:
        """Whether the family has knots that are still to be placed."""
        return False

    @property
    def most_telling(self) -> int | None:
        """How many of the largest log-probabilities of a row place the knots; None for all.

        These alone come to the host, in any order.
        """
        return None

    def placed(self, log_probs: NumpyArray, weights: NumpyArray) -> SmoothMap:
        """The family with its knots, if any, placed by log-probabilities (n, K) of rows.

        Of these, those that are `most_telling` are enough.
        """
        return self

    def at_temperature(self, classes: int, scale: float) -> NumpyArray:
        """Parameters (P,) of one temperature and nothing else, where no others can be fitted."""
        return self.start(classes, scale)

    def scaled(self, scale: float) -> SmoothMap:
        """The family with its penalties in units of the scale of the best temperature."""
        return self

    def starts(self, classes: int, scale: float, seed: int) -> list[NumpyArray]:
        """Parameters to start from, the best of which by held-out loss is taken."""
        return [self.start(classes, scale)]

    def ridge(self, classes: int, rows: float) -> NumpyArray | None:
        """Penalty strengths: the objective gains ``d' R d / 2`` with ``d = theta - anchor``.

        R is a matrix (P, P), or (P,) for a diagonal one.
        """
        return None

    def anchor(self, classes: int, scale: float) -> NumpyArray:
        """Parameters (P,) that the penalty pulls to."""
        return self.start(classes, scale)

    def signed(self, classes: int) -> NumpyArray:
        """Mask (P,) of the parameters that may be negative."""
        return np.full(self.size(classes), not self.bounded)

    def frozen(self, absent: NumpyArray) -> NumpyArray:
        """Mask (P,) of parameters that data without the classes in mask (K,) can't determine."""
        return np.zeros(self.size(len(absent)), bool)
