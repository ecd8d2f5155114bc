"""The contract of an objective: what a fit minimises, a loss per row of logits and label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

from calibcli.arrays import Array, namespace


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

    def product(self, direction: Array) -> Array | None:
        """Second derivative by the logits times a direction (n, K), or None if not offered."""
        return None

    def diagonal(self) -> Array:
        """Diagonal (n, K) of the second derivative by the logits, where `product` is offered."""
        raise NotImplementedError

    def along(self, direction: Array) -> tuple[Array, Array | None]:
        """First and second derivative (n,) of each row's loss along a direction (n, K)."""
        xp = namespace(direction)
        first = xp.sum(self.gradient() * direction, axis=-1)
        product = self.product(direction)
        return first, None if product is None else xp.sum(product * direction, axis=-1)


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
    link : bool
        Whether a link is known that makes true probabilities of those that minimise the loss.
    adaptive : bool
        Whether it has a state that is learnt from data: see `calibcli.objectives.adaptive`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    proper: ClassVar[bool]
    convex: ClassVar[bool] = False
    estimating: ClassVar[bool] = False
    smooth: ClassVar[bool] = True
    link: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False

    @abstractmethod
    def terms(self, logits: Array, labels: Array) -> RowTerms:
        """Loss and derivatives at logits (n, K) for labels (n,)."""

    def options(self) -> dict[str, Any]:
        """The options in force, as they go into a parameter file."""
        if not is_dataclass(self):
            return {}
        return {f.name: getattr(self, f.name) for f in fields(self) if "help" in f.metadata}
