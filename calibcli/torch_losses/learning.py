"""Losses whose form is learnt: from the batch at hand, or from validation rows now and then."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import numpy as np
import torch

from calibcli.errors import DataError
from calibcli.objectives.adaptive import Adaptive, LearntState
from calibcli.objectives.base import Learns, Objective
from calibcli.torch_losses.base import Loss, Reduction


def learnt(objective: Adaptive, logits: Any, labels: Any, kept: Any) -> Adaptive:
    """The objective after an update with those rows that count; the same where there are none."""
    logits, labels = logits[kept], labels[kept]
    return objective.updated(objective.statistic(logits, labels)) if len(labels) else objective


class PooledLoss(Loss):
    """A loss of the batch as a whole: each batch is a data set of its own, and nothing is kept."""

    objective: Adaptive

    def _current(self, logits: Any, labels: Any, kept: Any) -> Objective:
        return learnt(self.objective, logits, labels, kept)


class BalancedLoss(PooledLoss):
    """A loss that weighs classes by their rows, those of the training set or of each batch.

    Parameters
    ----------
    class_counts : array-like (K,), optional
        Training rows of each class. Without them each batch is balanced by its own counts, and a
        class counts as much in a batch that has one row of it as in one that has many.
    reduction, ignore_index, **options
        See `Loss`.
    """

    def __init__(
        self,
        class_counts: Any = None,
        *,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
        **options: Any,
    ) -> None:
        super().__init__(reduction=reduction, ignore_index=ignore_index, **options)
        self._given = class_counts is not None
        if self._given:
            counts = np.asarray(class_counts, np.float64)
            if counts.ndim != 1 or not (counts >= 0).all() or not counts.any():
                raise DataError("class_counts must be a vector of row counts, one for each class")
            self.objective = self.objective.updated(counts)

    def _current(self, logits: Any, labels: Any, kept: Any) -> Objective:
        return self.objective if self._given else super()._current(logits, labels, kept)


class StatefulLoss(Loss):
    """A loss that keeps what it has learnt, also in `state_dict`.

    The state lies in host memory in float64, whatever the module is moved or converted to.
    ``state_dict`` has a tensor for each part of it, none before the first update. Loading gives a
    module the state that was saved, whatever it had before.
    """

    objective: Adaptive

    def trace(self) -> dict[str, Any]:
        """The state as numbers and lists, for a log; empty at first."""
        return self.objective.trace()

    # Buffers would be moved to devices without float64, and converted to half precision with the
    # model; and they are loaded into their own shape only, which here depends on the data.

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self._parts():
            if self.objective.state is not None:
                value = np.asarray(getattr(self.objective.state, name))
                destination[prefix + name] = torch.tensor(value)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        keys = {prefix + name: name for name in self._parts()}
        rest = {key: value for key, value in state_dict.items() if key not in keys}
        super()._load_from_state_dict(
            rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        missing = [key for key in keys if key not in state_dict]
        if missing and len(missing) < len(keys):
            missing_keys.extend(missing)
            return
        state = None
        if not missing:
            state = self._state_type()(
                **{name: _number_or_array(state_dict[key]) for key, name in keys.items()}
            )
        self.objective = replace(self.objective, state=state)  # type: ignore[type-var]

    def _parts(self) -> list[str]:
        return [part.name for part in fields(self._state_type())]

    def _state_type(self) -> Any:
        """The dataclass of the objective's state."""
        kinds = get_args(get_type_hints(self.family)["state"])
        return next(kind for kind in kinds if issubclass(kind, LearntState))


class SteeredLoss(StatefulLoss):
    """A loss that is steered by validation rows: call `update` after every epoch."""

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Learn from all validation rows, as the network now sees them.

        Parameters
        ----------
        logits : tensor (n, K)
            In evaluation mode of the network. Processes that share the training must be given the
            same rows, or each goes its own way.
        labels : integer tensor (n,)

        Raises
        ------
        DataError
            As for the loss itself.
        """
        self.objective = learnt(self.objective, *self._rows(logits.detach(), labels))


class FollowingLoss(StatefulLoss):
    """A loss that learns from every batch of the training; in evaluation mode nothing is kept."""

    def _current(self, logits: Any, labels: Any, kept: Any) -> Objective:
        objective = learnt(self.objective, logits, labels, kept)
        if self.training:
            self.objective = objective
        return objective


BASES: dict[Learns, type[Loss]] = {
    "nothing": Loss,
    "class weights": BalancedLoss,
    "at every point": PooledLoss,
    "in rounds": FollowingLoss,
    "on validation rows": SteeredLoss,
}
"""What makes a module of a loss, by what the loss learns."""


def _number_or_array(value: Any) -> Any:
    return value.cpu().numpy().copy() if value.ndim else value.item()
