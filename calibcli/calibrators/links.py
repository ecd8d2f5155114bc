"""Links: from the probabilities that an improper loss asks for to the true ones.

The formulas stand with the losses (`Objective.link`), the idea in `calibcli.objectives.simplex`.
Whether one keeps the order of a row's classes is for the loss to say (`LossLink.keeps_order`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from calibcli.arrays import Array, log_softmax
from calibcli.cached import cached_property
from calibcli.calibrators.base import Calibrator, Preserves
from calibcli.calibrators.parameters import Parameters
from calibcli.errors import UsageError
from calibcli.objectives.base import Objective
from calibcli.objectives.registry import OBJECTIVES
from calibcli.objectives.simplex import LossLink, Simplex


@dataclass(frozen=True)
class Link(Calibrator):
    """The link of a loss.

    Parameters
    ----------
    loss : str
        Name of the loss.
    options : dict
        The options of the loss that matter, by name.
    """

    loss: str
    options: Mapping[str, float] = field(default_factory=dict)
    kind: ClassVar[str] = "link"
    normalises: ClassVar[bool] = True

    @cached_property
    def _link(self) -> LossLink:
        """What the loss says; a `UsageError` where it has no link."""
        link = OBJECTIVES.find(self.loss)(**self.options).link()
        if link is None:
            options = ", ".join(f"{name} {value:g}" for name, value in self.options.items())
            raise UsageError(f"{self.loss} has no link for {options}")
        return link

    @property
    def preserves(self) -> Preserves:
        return "order" if self._link.keeps_order else "nothing"

    def transform(self, logits: Array) -> Array:
        return logits - self._link.log_factors(Simplex(log_softmax(logits)))

    def logits(self, logits: Array) -> Array:
        # Impossible classes need no stand-in: their probability is 0, and stays it.
        return self.transform(log_softmax(logits))

    def parameters(self) -> dict[str, Any]:
        return {"loss": self.loss, **self.options}

    def entry(self) -> tuple[str, str]:
        return OBJECTIVES.group, self.loss

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> Link:
        loss = parameters.values.get("loss")
        usual = OBJECTIVES[loss]().link() if isinstance(loss, str) and loss in OBJECTIVES else None
        if not isinstance(loss, str) or usual is None:
            linked = [name for name in OBJECTIVES.built_in if OBJECTIVES[name]().link()]
            raise parameters.error(f"no link for loss {loss!r}; there is {', '.join(linked)}")
        parameters.expect("loss", *usual.options)
        link = cls(loss, {name: parameters.number(name) for name in usual.options})
        try:
            _ = link._link
        except UsageError as error:
            raise parameters.error(str(error)) from None
        return link

    def summary(self) -> str:
        options = ", ".join(f"{name} {value:g}" for name, value in self.options.items())
        return f"link of {self.loss}, {options}"


def link_of(objective: Objective) -> Link | None:
    """The link of a loss with its options as a stage; None if there is none."""
    link = objective.link()
    return None if link is None else Link(objective.name, link.options)
