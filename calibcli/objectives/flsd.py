"""Focal loss whose exponent depends on the probability of the label."""

from __future__ import annotations

from dataclasses import dataclass

from calibcli.arrays import Array, like, namespace
from calibcli.objectives.base import Objective, RowTerms
from calibcli.objectives.focal import focal_terms
from calibcli.objectives.likelihood import Likelihood


def scheduled_gamma(true_prob: Array, gamma: float) -> Array:
    """The exponent (n,): 5 for labels with a probability below 0.2, 3 below 0.5, else gamma."""
    xp = namespace(true_prob)
    five, three, rest = (like(value, true_prob) for value in (5.0, 3.0, gamma))
    return xp.where(true_prob < 0.2, five, xp.where(true_prob < 0.5, three, rest))


@dataclass(frozen=True)
class Flsd(Objective):
    """``(1 - p_y)^g nll`` with ``g = 5`` where ``p_y < 0.2`` and 3 elsewhere.

    The exponent jumps, and the loss with it: it falls by a third as p_y passes 0.2 downwards.
    """

    name = "flsd"
    title = "focal loss, sample-dependent (FLSD-53)"
    source = "Mukhoti et al., Calibrating deep neural networks using focal loss, NeurIPS 2020"
    smooth = False
    proper = False

    def terms(self, logits: Array, labels: Array) -> RowTerms:
        likelihood = Likelihood(logits, labels)
        return focal_terms(likelihood, scheduled_gamma(likelihood.true_prob, 3.0))
