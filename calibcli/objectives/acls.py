"""Adaptive and conditional label smoothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from calibcli.arrays import Array, dot_classes, namespace, positive_affine, sum_classes
from calibcli.objectives.base import Objective, RowTerms, check_choice, check_range
from calibcli.objectives.distances import DistanceTerms
from calibcli.objectives.likelihood import Likelihood


class _Terms(DistanceTerms):
    """Squared hinges of each distance and of their mean."""

    def __init__(self, likelihood: Likelihood, objective: Acls, high: float) -> None:
        self._classes = likelihood.exponentials.shape[-1]
        self._margin = float(objective.margin)
        self._high = high
        self._low = float(objective.strength * objective.low / max(self._classes - 1, 1))
        super().__init__(likelihood)

    def penalty(self, distance: Array) -> tuple[Array, Array]:
        slope = self._excess(distance)
        value = self._low * dot_classes(slope, slope)
        slope *= 2 * self._low
        mean = self._excess(sum_classes(distance) / self._classes)
        slope += (2 * self._high / self._classes) * mean[:, None]
        return value + self._high * mean * mean, slope

    def curvature(self, drift: Array) -> Array:
        xp = namespace(drift)
        mean = sum_classes(self.distance) / self._classes
        common = (2 * self._high / self._classes**2) * xp.astype(mean > self._margin, mean.dtype)
        bend = drift * (2 * self._low * xp.astype(self.distance > self._margin, drift.dtype))
        return bend + (common * sum_classes(drift))[:, None]

    def _excess(self, distance: Array) -> Array:
        return positive_affine(distance * 1, 1.0, -self._margin)


class _PublishedTerms(_Terms):
    """The largest logit itself instead of the mean distance; held fixed in the distances.

    The second derivative is that of the distances alone.
    """

    def __init__(self, likelihood: Likelihood, objective: Acls, high: float, logits: Array) -> None:
        super().__init__(likelihood, objective, 0.0)
        excess = self._excess(namespace(logits).max(logits, axis=-1))
        self.loss = self.loss + high * excess * excess
        self._pull = 2 * high * excess - sum_classes(self.slope)

    def _gradient(self, matrix: Array) -> Array:
        matrix = super()._gradient(matrix)
        matrix[self.likelihood.rows, self.likelihood.top] += self._pull
        return matrix

    def along(self, direction: Array) -> tuple[Array, Array | None]:
        first, _ = super().along(direction)
        return first + self._pull * direction[self.likelihood.rows, self.likelihood.top], None


@dataclass(frozen=True)
class Acls(Objective):
    """Squared hinges that hold the largest logit and the distances from it within a margin.

    ``nll + strength * (high * relu(max z - mean z - margin)^2
    + low * sum_k relu(max z - z_k - margin)^2 / (K - 1))``.

    The authors' code, form ``published``, takes the largest logit itself in the first term, so
    that the loss depends on the additive constant of a row's logits, and holds it fixed in the
    second, so that its gradient is not that of its value. Form ``centred`` has neither flaw.
    """

    margin: float = field(default=10.0, metadata={"help": "distance that costs nothing"})
    strength: float = field(default=0.1, metadata={"help": "weight of both penalties"})
    high: float = field(default=1.0, metadata={"help": "weight of that on the largest logit"})
    low: float = field(default=0.1, metadata={"help": "weight of that on the distances"})
    form: Literal["centred", "published"] = field(
        default="centred",
        metadata={"help": "published: as coded by the authors; not invariant to a row's shift"},
    )

    name = "acls"
    title = "adaptive and conditional label smoothing"
    source = "Park et al., ACLS: Adaptive and conditional label smoothing, ICCV 2023"
    published_reduction = "mean"
    proper = False
    convex = True

    def __post_init__(self) -> None:
        for name in ("margin", "strength", "high", "low"):
            check_range(self, name)
        check_choice(self, "form")

    @property
    def label_slope(self) -> float:
        return 1.0

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        likelihood, high = Likelihood(logits, labels), float(self.strength * self.high)
        if self.form == "published":
            return _PublishedTerms(likelihood, self, high, logits)
        return _Terms(likelihood, self, high)
