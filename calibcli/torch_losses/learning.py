"""Losses whose form is learnt: from the batch at hand, or from validation rows now and then."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import reduce
from typing import Any, get_args, get_type_hints

import numpy as np
import torch

from calibcli.errors import DataError, UsageError
from calibcli.objectives.adaptive import Adaptive, LearntState
from calibcli.objectives.base import Learns, Objective
from calibcli.torch_losses.base import Loss
from calibcli.torch_losses.images import as_images, check_shapes, row_labels

_LOGITS_AT_A_TIME = 1 << 22
"""Logits of which the statistic is taken at once: it bounds the memory of an update."""


class LearningLoss(Loss):
    """A loss that learns something from data, of this process or of several.

    Parameters
    ----------
    process_group : torch.distributed.ProcessGroup, optional
        The processes whose rows are taken together, so that all of them learn the same. Each has to
        call the loss, or its update, as often as the others. By default each process learns from
        its own rows; where there are several, a loss that keeps what it has learnt warns of that.
        False does the same without a warning, for processes that see the same rows.
    reduction, ignore_index, class_axis, weight, label_smoothing, **options
        See `Loss`.
    """

    objective: Adaptive

    def __init__(self, *, process_group: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.process_group = process_group

    def _learnt(self, statistic: Any) -> Adaptive:
        """The objective after an update with a statistic; the same where no process has one."""
        if self.process_group is not None and self.process_group is not False:
            statistic = self._of_all(statistic)
        return self.objective if statistic is None else self.objective.updated(statistic)

    def _of_all(self, statistic: Any) -> Any:
        """The sum of the statistics of all processes of the group, in the order of their ranks."""
        own = self._fingerprint(), statistic
        gathered: list[Any] = [None] * torch.distributed.get_world_size(self.process_group)
        torch.distributed.all_gather_object(gathered, own, group=self.process_group)
        differing = [
            rank for rank, (fingerprint, _) in enumerate(gathered) if fingerprint != own[0]
        ]
        if differing:
            raise UsageError(
                f"{self.family.name} has other options or has learnt something else in process "
                f"{differing[0]} of the group: give all processes the same options and state_dict"
            )
        parts = [part for _, part in gathered if part is not None]
        return reduce(operator.add, parts) if parts else None

    def _fingerprint(self) -> str:
        """What has to be the same in all processes, before they learn."""
        return repr(self.objective.options())

    def _statistic(self, logits: Any, labels: Any, kept: Any) -> Any:
        """The statistic of the rows that count; None where there are none."""
        if not bool(kept.all()):  # else a copy of all logits
            logits, labels = logits[kept], labels[kept]
        return self.objective.statistic(logits, labels) if len(labels) else None

    def _no_expectation(self) -> str | None:
        return f"{self.family.name} learns from the labels of the batch, which must be classes"


class PooledLoss(LearningLoss):
    """A loss of the batch as a whole: each batch is a data set of its own, and nothing is kept."""

    def _current(self, images: Any, labels: Any, kept: Any) -> Objective:
        return self._learnt(self._statistic(_rows(images), labels, kept))


class BalancedLoss(PooledLoss):
    """A loss that weighs classes by their rows, those of the training set or of each batch.

    Parameters
    ----------
    class_counts : array-like (K,), optional
        Training rows of each class. Without them each batch is balanced by its own counts, and a
        class counts as much in a batch that has one row of it as in one that has many.
    process_group, **options
        See `LearningLoss`.
    """

    def __init__(self, class_counts: Any = None, **options: Any) -> None:
        self._given = class_counts is not None
        super().__init__(**options)
        if self._given:
            counts = np.asarray(class_counts, np.float64)
            if counts.ndim != 1 or not (counts >= 0).all() or not counts.any():
                raise DataError("class_counts must be a vector of row counts, one for each class")
            self.objective = self.objective.updated(counts)

    def _current(self, images: Any, labels: Any, kept: Any) -> Objective:
        return self.objective if self._given else super()._current(images, labels, kept)

    def _no_expectation(self) -> str | None:
        return None if self._given else f"{super()._no_expectation()}; give it class_counts"


class StatefulLoss(LearningLoss):
    """A loss that keeps what it has learnt, also in `state_dict`.

    The state lies in host memory in float64, whatever the module is moved or converted to.
    ``state_dict`` has a tensor for each part of it, none before the first update. Loading gives a
    module the state that was saved, whatever it had before.
    """

    def trace(self) -> dict[str, Any]:
        """The state as numbers and lists, for a log; empty at first."""
        return self.objective.trace()

    def _learnt(self, statistic: Any) -> Adaptive:
        if self.process_group is None:
            _warn_of_other_processes(self.family.name)
        return super()._learnt(statistic)

    def _fingerprint(self) -> str:
        # What follows from a state depends on all its digits.
        return f"{super()._fingerprint()} {self.trace()}"

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
    """A loss that is steered by validation rows: call `update` or `collecting` after every epoch.

    Parameters
    ----------
    process_group, **options
        See `LearningLoss`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._collected: Any = None
        self._collects = False

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Learn from all validation rows, as the network now sees them.

        With few rows of a process (see `process_group`) logits may be its share of them.

        Parameters
        ----------
        logits, labels
            As for `forward`.
        """
        with self.collecting():
            self.observe(logits, labels)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Learn at the end from all rows that are observed until then.

        What is kept of them grows neither with their number nor, but for a vector, with the number
        of classes. If the block raises an error, nothing is learnt::

            with torch.no_grad(), loss.collecting():
                for inputs, labels in validation_loader:
                    loss.observe(network(inputs), labels)
        """
        if self._collects:
            raise UsageError("rows are being collected already")
        self._collected, self._collects = None, True
        try:
            yield
            self.objective = self._learnt(self._collected)
        finally:
            self._collected, self._collects = None, False

    def observe(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Take in some validation rows, within `collecting`.

        Parameters
        ----------
        logits, labels
            As for `forward`.
        """
        if not self._collects:
            raise UsageError("observe is for the inside of `with loss.collecting():`")
        check_shapes(logits, labels, self.class_axis)
        if labels.is_floating_point() and self.objective.label_slope is None:
            raise UsageError(f"labels: {self.family.name} is steered by classes that are right")
        for some_logits, some_labels in self._parts_of(logits.detach(), labels):
            indices, kept = self._indices(some_logits, some_labels)
            statistic = self._statistic(some_logits, indices, kept)
            if statistic is not None:
                before = self._collected
                statistic = statistic if before is None else before + statistic
                self._collected = self.objective.compacted(statistic)

    def _parts_of(self, logits: Any, labels: Any) -> Iterator[tuple[Any, Any]]:
        """Logits (n, K) and labels (n,), a part of them at a time; so are pixels put into rows."""
        by_class = self.class_axis % logits.ndim == 0
        step = len(logits) if by_class else max(_LOGITS_AT_A_TIME // logits[0].numel(), 1)
        for start in range(0, len(logits), step):
            images = slice(start, start + step) if not by_class else slice(None)
            rows = _rows(as_images(logits[images], self.class_axis))
            classes = row_labels(labels[images], self.class_axis)
            if classes.is_floating_point():
                classes = classes.argmax(dim=1)
            count = max(_LOGITS_AT_A_TIME // rows.shape[1], 1)
            yield from zip(rows.split(count), classes.split(count), strict=True)

    def _no_expectation(self) -> str | None:
        return None


class FollowingLoss(StatefulLoss):
    """A loss that learns from every batch of the training; in evaluation mode nothing is kept."""

    def _current(self, images: Any, labels: Any, kept: Any) -> Objective:
        objective = self._learnt(self._statistic(_rows(images), labels, kept))
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


def _rows(images: Any) -> Any:
    """Logits (n, K) of images (B, N, K)."""
    return images.reshape(-1, images.shape[2])


def _warn_of_other_processes(name: str) -> None:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        count = distributed.get_world_size()
        if count > 1:
            warnings.warn(
                f"{name} learns from the rows of this process alone, so that {count} processes "
                "with different rows train with different losses; give it "
                "process_group=torch.distributed.group.WORLD, or False if they see the same rows",
                stacklevel=4,
            )


def _number_or_array(value: Any) -> Any:
    return value.cpu().numpy().copy() if value.ndim else value.item()
