"""Label smoothing: cross-entropy with labels that are mixed with the uniform distribution."""

from __future__ import annotations

from dataclasses import dataclass, field

from calibcli.arrays import Array, dot_classes, namespace, sum_classes
from calibcli.objectives.base import Objective, RowTerms
from calibcli.objectives.checks import check_range
from calibcli.objectives.likelihood import Likelihood
from calibcli.objectives.weighted import WeightedTerms


class _Terms(WeightedTerms):
    """Cross-entropy with a target: linear in it, so that the curvature is that of nll."""

    def __init__(self, likelihood: Likelihood, smoothing: float) -> None:
        xp = namespace(likelihood.nll)
        super().__init__(likelihood, xp.ones_like(likelihood.nll))
        shifted = likelihood.shifted
        self._smoothing = smoothing
        self._share = smoothing / shifted.shape[-1]
        self._possible: Array | None = None
        if bool(xp.min(shifted) == -xp.inf):
            self._possible = xp.astype(shifted > -xp.inf, shifted.dtype)
            self._share = smoothing / sum_classes(self._possible)
            shifted = xp.where(shifted > -xp.inf, shifted, xp.zeros_like(shifted))
        own = likelihood.at_labels(shifted)
        self.loss = likelihood.nll + smoothing * own - self._share * sum_classes(shifted)

    def gradient(self) -> Array:
        matrix = self.likelihood.residual(self.factors)
        if self._possible is None:
            matrix -= self._share
        else:
            matrix -= self._possible * self._share[:, None]
        matrix[self.likelihood.rows, self.likelihood.labels] += self._smoothing
        return matrix

    def along(self, direction: Array) -> tuple[Array, Array]:
        first, second = super().along(direction)
        if self._possible is None:
            spread = sum_classes(direction)
        else:
            spread = dot_classes(self._possible, direction)
        own = self.likelihood.at_labels(direction)
        return first + self._smoothing * own - self._share * spread, second


@dataclass(frozen=True)
class LabelSmoothing(Objective):
    """Cross-entropy with ``1 - s`` at the label plus ``s`` spread over all classes of the row.

    Classes with logit ``-inf`` get no share.
    """

    smoothing: float = field(default=0.05, metadata={"help": "share s that is spread, below 1"})

    name = "label-smoothing"
    title = "label smoothing"
    source = "Szegedy et al., Rethinking the Inception architecture, CVPR 2016"
    proper = False
    convex = True
    link = True

    def __post_init__(self) -> None:
        check_range(self, "smoothing", 0.0, 0.999)

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        return _Terms(Likelihood(logits, labels), float(self.smoothing))
