"""The objectives as losses of a training loop, for torch.

Every loss that ``calib losses`` lists, those of plugins too, is a `torch.nn.Module` over the same
closed forms, by name or by the class of its objective::

    loss = torch_losses.loss("focal", gamma=2.0)
    loss = torch_losses.Focal(gamma=2.0, reduction="sum")
    loss(model(images), labels).backward()

Those that are steered by validation rows, `Cals`, `CalsHr` and `AdaFocal`, want an
``update(validation_logits, validation_labels)`` after every epoch.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from calibcli.objectives.base import Objective
from calibcli.objectives.registry import OBJECTIVES
from calibcli.torch_losses.base import Loss, Reduction
from calibcli.torch_losses.learning import BASES, PooledLoss, StatefulLoss, SteeredLoss

__all__ = ["LOSSES", "Loss", "PooledLoss", "Reduction", "StatefulLoss", "SteeredLoss", "loss"]
__all__ += [OBJECTIVES[name].__name__ for name in OBJECTIVES.built_in]


@cache
def module_of(family: type[Objective]) -> type[Loss]:
    """The module of an objective, under the name of its class."""
    base = BASES[family.learns]
    attributes = {"family": family, "__doc__": _description(family), "__module__": __name__}
    return type(family.__name__, (base,), attributes)


def _description(family: type[Objective]) -> str:
    """The docstring of the objective, and which reduction its source has."""
    text = inspect.cleandoc(family.__doc__ or family.title)
    if family.published_reduction is not None:
        text += (
            f"\n\nIn the code of its source the losses of a batch become their "
            f"{family.published_reduction}, for which its learning rates are: "
            f'``reduction="{family.published_reduction}"``.'
        )
    return text


class _Losses(Mapping[str, type[Loss]]):
    def __getitem__(self, name: str) -> type[Loss]:
        return module_of(OBJECTIVES[name])

    def __iter__(self) -> Iterator[str]:
        return iter(OBJECTIVES)

    def __len__(self) -> int:
        return len(OBJECTIVES)


LOSSES = _Losses()
"""All losses by the name of their objective."""


def __getattr__(name: str) -> Any:
    # Plugins are loaded for the name of a class that nothing here has, and for nothing else.
    for loss_name in OBJECTIVES.built_in if name in __all__ else OBJECTIVES:
        if OBJECTIVES[loss_name].__name__ == name:
            return module_of(OBJECTIVES[loss_name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def loss(name: str, **options: Any) -> Loss:
    """A loss by its name in ``calib losses``.

    Parameters
    ----------
    name : str
    **options
        Of the loss, and ``reduction`` and ``ignore_index``: see `Loss`.

    Raises
    ------
    UsageError
        A name or an option that there is not, or a value that it can't have.
    """
    return module_of(OBJECTIVES.find(name))(**options)
