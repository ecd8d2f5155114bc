"""Label smoothing: cross-entropy with labels that are mixed with the uniform distribution."""

from __future__ import annotations

from dataclasses import dataclass, field

from calibcli.arrays import Array, at_least, dot_classes, namespace, sum_classes
from calibcli.objectives.base import Objective, RowTerms, check_range
from calibcli.objectives.likelihood import Likelihood, smallest
from calibcli.objectives.simplex import LossLink, Simplex
from calibcli.objectives.weighted import WeightedTerms

SMALLEST_SHARE = 1e-3
"""With its link, a class keeps at least this share of its probability."""


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
        at_label = likelihood.at_labels(shifted)
        self.loss = likelihood.nll + smoothing * at_label - self._share * sum_classes(shifted)

    def gradient(self) -> Array:
        return self._smoothed(super().gradient())

    def last_gradient(self) -> Array:
        return self._smoothed(super().last_gradient())

    def _smoothed(self, matrix: Array) -> Array:
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
        at_label = self.likelihood.at_labels(direction)
        return first + self._smoothing * at_label - self._share * spread, second


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

    def __post_init__(self) -> None:
        check_range(self, "smoothing", 0.0, 0.999)

    @property
    def label_slope(self) -> float:
        return 1 - float(self.smoothing)

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        return _Terms(Likelihood(logits, labels), float(self.smoothing))

    def link(self) -> LossLink:
        return LossLink({"smoothing": self.smoothing}, self._log_factors)

    def _log_factors(self, simplex: Simplex) -> Array:
        """Minus the log of ``1 - smoothing / (K q)``, at least that of `SMALLEST_SHARE`.

        True probabilities are ``(q - smoothing / K) / (1 - smoothing)``. A map that can't follow
        the data gives some classes less than smoothing / K; these keep their order.
        """
        xp = namespace(simplex.probs)
        possible = simplex.log_probs > -xp.inf
        count = at_least(sum_classes(xp.astype(possible, simplex.probs.dtype)), 1.0)
        share = self.smoothing / count[:, None]
        log_share = xp.log(xp.clip(share, min=smallest(share)))
        # Impossible classes lie infinitely far below the share; e^1 is far enough.
        excess = xp.clip(log_share - simplex.log_probs, max=1.0)
        return -xp.log(xp.clip(-xp.expm1(excess), min=SMALLEST_SHARE))
