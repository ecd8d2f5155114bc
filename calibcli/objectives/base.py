"""The contract of an objective: what a fit minimises, a loss per row of logits and label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Literal, TypeAlias, get_args, get_type_hints

from calibcli.arrays import Array, NumpyArray, namespace
from calibcli.errors import UsageError
from calibcli.objectives.simplex import LossLink


class RowTerms(ABC):
    """The loss of each row of a block and its derivatives by the row's logits.

    Everything is at given logits (n, K) and labels (n,); what is expensive is computed when asked
    for. Arrays are on the device and in the precision of the logits.
    """

    loss: Array
    """Loss of each row (n,)."""

    @abstractmethod
    def gradient(self) -> Array:
        """Derivative of each row's loss by its logits (n, K)."""

    def last_gradient(self) -> Array:
        """The gradient (n, K), and the end of these terms: what they keep may be written over.

        In training a matrix less to allocate counts.
        """
        return self.gradient()

    def product(self, direction: Array) -> Array | None:
        """Second derivative by the logits times a direction (n, K), or None if not offered."""
        return None

    def diagonal(self) -> Array | None:
        """Diagonal (n, K) of the second derivative by the logits, or None if not offered."""
        return None

    def along(self, direction: Array) -> tuple[Array, Array | None]:
        """First and second derivative (n,) of each row's loss along a direction (n, K)."""
        xp = namespace(direction)
        first = xp.sum(self.gradient() * direction, axis=-1)
        product = self.product(direction)
        return first, None if product is None else xp.sum(product * direction, axis=-1)


Learns: TypeAlias = Literal[
    "nothing", "class weights", "at every point", "in rounds", "on validation rows"
]
"""What of a loss is learnt from data, and when.

Beside nothing: the weight of each class; a state that depends on all rows at the same logits, and
is learnt anew wherever the loss is asked for; a state that is learnt between solves, from the rows
of the fit or from rows that the fit does not see.
"""


class Objective(ABC):
    """A loss per row: a frozen dataclass; fields with a ``help`` in their metadata are options.

    Attributes
    ----------
    name : str
        On the command line.
    title : str
        One line that says what it is.
    source : str
        Paper or standard reference.
    proper : bool
        Whether the true probabilities minimise its expectation.
    convex : bool
        Whether the loss is convex in the logits.
    estimating : bool
        Whether the gradient is that of a loss whose row weights are held fixed: the fit then
        solves ``sum gradient = 0`` and minimises nothing.
    smooth : bool
        Whether loss and gradient change without jumps as the logits do. Where they jump, a fit
        ends at a point from which no step descends, whose gradient need not vanish.
    likelihood : bool
        Whether it is the negative log-likelihood itself, for which solvers know short ways.
    sets_prior : bool
        Whether it is proper for other class shares than those of the rows.
    learns : Learns
        What is learnt from data: see `calibcli.objectives.adaptive`.
    training_defaults : dict
        Options whose default is another one in a training loop.
    published_reduction : {"mean", "sum"} or None
        What becomes of the losses of a batch in the code of the source, for which its learning
        rates are; None where that is not known.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    proper: ClassVar[bool]
    convex: ClassVar[bool] = False
    estimating: ClassVar[bool] = False
    smooth: ClassVar[bool] = True
    likelihood: ClassVar[bool] = False
    sets_prior: ClassVar[bool] = False
    learns: ClassVar[Learns] = "nothing"
    training_defaults: ClassVar[dict[str, Any]] = {}
    published_reduction: ClassVar[Literal["mean", "sum"] | None] = None

    @property
    def label_slope(self) -> float | None:
        """A factor s with ``loss(z, j) - loss(z, k) = s (z_k - z_j)``; None where there is none."""
        return None

    @abstractmethod
    def terms(self, logits: Array, labels: Array) -> RowTerms:
        """Loss and derivatives at logits (n, K) for labels (n,)."""

    @property
    def adaptive(self) -> bool:
        """Whether something of it is learnt from data."""
        return self.learns != "nothing"

    @property
    def judges(self) -> bool:
        """Whether it can judge probabilities of rows held out: proper, and known before a fit."""
        return self.proper and self.learns in ("nothing", "class weights")

    def for_classes(self, class_weights: NumpyArray) -> Objective:
        """The objective where classes have these sums of row weights (K,)."""
        del class_weights
        return self

    def link(self) -> LossLink | None:
        """What makes true probabilities of those that minimise the loss, where that is known."""
        return None

    def options(self) -> dict[str, Any]:
        """The options in force, as they go into a parameter file."""
        if not is_dataclass(self):
            return {}
        return {f.name: getattr(self, f.name) for f in fields(self) if "help" in f.metadata}


def check_range(
    objective: Objective, name: str, low: float = 0.0, high: float = float("inf")
) -> None:
    """Raise `UsageError` unless an option is a number from ``low`` to ``high``."""
    value = getattr(objective, name)
    if not low <= value <= high or value == float("inf"):
        bounds = f"from {low:g} to {high:g}" if high < float("inf") else f"of at least {low:g}"
        raise UsageError(f"{objective.name}.{name} is {value}; it must be a number {bounds}")


def check_choice(objective: Objective, name: str) -> None:
    """Raise `UsageError` unless an option is one of those that its `Literal` type lists."""
    value = getattr(objective, name)
    choices = get_args(get_type_hints(type(objective))[name])
    if value not in choices:
        listed = ", ".join(map(str, choices))
        raise UsageError(f"{objective.name}.{name} is {value!r}; it must be one of {listed}")
