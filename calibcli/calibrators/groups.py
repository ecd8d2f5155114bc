"""A map for each group of rows, drawn towards the map of all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from calibcli.arrays import Array, NumpyArray, is_numpy_array, log_softmax, namespace
from calibcli.calibrators.base import Calibrator, Preserves
from calibcli.calibrators.chain import described, log_probs_after, preserved_by, reach_of
from calibcli.calibrators.parameters import Parameters
from calibcli.errors import ParamsError

Stages = tuple[Calibrator, ...]

MOST_GROUPS = 1 << 16
"""Values beyond this number identify documents or customers, whose maps would be noise."""


@dataclass(frozen=True, eq=False)
class Groups(Calibrator):
    """``softmax((1 - w_g) log p + w_g log p_g)``: p by the map of all rows, p_g by the group's.

    For maps whose logits are linear in their parameters that is the map at parameters between
    those of the group and those of all rows, as partial pooling has it; it is a map between for
    any other. A row whose group is not known is mapped as all rows are.

    Parameters
    ----------
    column : str
        Whose values are the groups.
    names : tuple of str
        The values, as text, for which there is a map.
    pooled : tuple of Calibrator
        Stages for all rows.
    own : tuple of tuple of Calibrator
        Stages of each group; none where its weight is 0.
    weights : float64 array (G,)
        From 0 (as all rows) to 1 (the group's own).
    """

    column: str
    names: tuple[str, ...]
    pooled: Stages
    own: tuple[Stages, ...]
    weights: NumpyArray
    kind: ClassVar[str] = "groups"

    def transform(self, logits: Array) -> Array:
        return _mapped(self.pooled, logits)

    def reach(self, bound: float) -> float:
        return 3 * max(reach_of(stages, bound) for stages in (self.pooled, *self.own))

    def for_groups(self, numbers: NumpyArray) -> Calibrator:
        return _OfRows(self, numbers)

    @property
    def changes_nothing(self) -> bool:
        return all(stage.changes_nothing for stage in self.parts())

    @property
    def preserves(self) -> Preserves:
        return preserved_by(self.parts())

    def learnt(self) -> dict[str, str]:
        """The own map of each group in words, by its name; nothing of one that has none."""
        return {
            name: " + ".join(stage.summary() for stage in stages)
            for name, stages in zip(self.names, self.own, strict=True)
        }

    def parts(self) -> Sequence[Calibrator]:
        return [stage for stages in (self.pooled, *self.own) for stage in stages]

    def parameters(self) -> dict[str, Any]:
        return {
            "column": self.column,
            "names": list(self.names),
            "weights": self.weights,
            "pooled": described(self.pooled),
            "own": [described(stages) for stages in self.own],
        }

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> Groups:
        parameters.expect("column", "names", "pooled", "own", "weights")
        column, names, own = (parameters[name] for name in ("column", "names", "own"))
        if not isinstance(column, str) or not column:
            raise parameters.error("column must be the name of a column")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise parameters.error("names must be a list of texts")
        if len(set(names)) < len(names) or len(names) > MOST_GROUPS:
            raise parameters.error("names has a text twice, or is too long")
        if not isinstance(own, list) or len(own) != len(names):
            raise parameters.error(f"own must be {len(names)} lists of stages")
        weights = parameters.array("weights", (len(names),))
        if not ((weights >= 0) & (weights <= 1)).all():
            raise parameters.error("every weight must lie between 0 and 1")
        pooled = parameters.stages("pooled", classes)
        maps = parameters.stage_lists("own", classes)
        return cls(column, tuple(names), pooled, maps, weights)

    def summary(self) -> str:
        stages = "+".join(stage.kind for stage in self.pooled) or "none"
        positive = self.weights[self.weights > 0]
        kept = f", {_span(positive)} of their own map" if len(positive) else ""
        return f"{stages} for each of {len(self.names)} values of {self.column!r}{kept}"


def groups_in(stages: Sequence[Calibrator]) -> Groups | None:
    """The maps of groups among some stages or inside of them, if there are any.

    Raises
    ------
    ParamsError
        There are several, so that a row's group would not say which map it has.
    """
    groups = [stage for stage in unfolded(stages) if isinstance(stage, Groups)]
    if len(groups) > 1:
        raise ParamsError(
            f"there are {len(groups)} stages of kind {Groups.kind!r}; one is possible"
        )
    return groups[0] if groups else None


def unfolded(stages: Sequence[Calibrator]) -> list[Calibrator]:
    """The stages and all that they are made of."""
    inner = [part for stage in stages for part in unfolded(stage.parts())]
    return [*stages, *inner]


@dataclass(frozen=True, eq=False)
class _OfRows(Calibrator):
    """`Groups` for rows (n,) whose groups are known."""

    groups: Groups
    numbers: Array
    kind: ClassVar[str] = Groups.kind

    def transform(self, logits: Array) -> Array:
        groups = self.groups
        mapped = groups.transform(logits)
        if not is_numpy_array(self.numbers):
            return self._by_choice(mapped, logits)
        for number, rows in rows_by_group(self.numbers, len(groups.names)):
            weight = float(groups.weights[number])
            if weight > 0:
                own = _mapped(groups.own[number], logits[rows])
                mapped[rows] = own if weight == 1 else interpolated(mapped[rows], own, weight)
        return mapped

    def _by_choice(self, mapped: Array, logits: Array) -> Array:
        """Every group's map of all rows, of which each row takes its own."""
        groups, xp = self.groups, namespace(logits)
        for number, (stages, weight) in enumerate(zip(groups.own, groups.weights, strict=True)):
            if weight > 0:
                own = interpolated(mapped, _mapped(stages, logits), float(weight))
                mapped = xp.where((self.numbers == number)[:, None], own, mapped)
        return mapped

    def parameters(self) -> dict[str, Any]:
        return self.groups.parameters()

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> Groups:
        return Groups.from_parameters(parameters, classes)


def _mapped(stages: Stages, logits: Array) -> Array:
    return log_probs_after(stages, logits) if stages else log_softmax(logits)


def interpolated(pooled: Array, own: Array, weight: Any) -> Array:
    """Log-probabilities (n, K) between two maps, not normalised."""
    return pooled + weight * (own - pooled)


def rows_by_group(numbers: NumpyArray, groups: int) -> Sequence[tuple[int, NumpyArray]]:
    """The numbers of the rows of each group from 0 to before ``groups`` that has any."""
    order = np.argsort(numbers, kind="stable")
    ends = np.searchsorted(numbers[order], np.arange(groups + 1))
    spans = enumerate(pairwise(ends))
    return [(number, order[begin:end]) for number, (begin, end) in spans if begin < end]


def _span(weights: NumpyArray) -> str:
    low, high = float(weights.min()), float(weights.max())
    return f"{low:.0%}" if high - low < 0.005 else f"{low:.0%} to {high:.0%}"
