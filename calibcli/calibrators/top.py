"""Top-versus-all: a map of the confidence alone, for those who read nothing else.

Le Coz, Herbin and Adjed, Confidence calibration of classifiers with many classes, NeurIPS 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from calibcli.arrays import (
    Array,
    NumpyArray,
    argmax,
    is_any,
    like,
    log_softmax,
    namespace,
    pick,
    sum_classes,
)
from calibcli.calibrators.base import Calibrator, Preserves
from calibcli.calibrators.chain import described, log_probs_after, reach_of
from calibcli.calibrators.parameters import Parameters

_MARGIN = 1e-5
"""In log-probability, by which the top class stays ahead; float32 can tell that apart."""


class TopScores(NamedTuple):
    """The top class of each row against all others.

    Attributes
    ----------
    top : int array (n,)
        The first of the most probable classes.
    score : array (n,)
        Log-odds of the top class; 0 where it is the only possible one.
    others : array (n, K)
        The logits, ``-inf`` at the top class.
    rest : array (n,)
        Their log-sum-exp; ``-inf`` where the top class is the only possible one.
    """

    top: Array
    score: Array
    others: Array
    rest: Array


def top_scores(logits: Array) -> TopScores:
    """The log-odds of each row's top class, from logits (n, K)."""
    xp = namespace(logits)
    top = argmax(logits)
    places = xp.arange(logits.shape[1], device=logits.device)
    others = xp.where(places[None, :] == top[:, None], like(-xp.inf, logits), logits)
    second = xp.max(others, axis=-1)
    alone = second == -xp.inf
    # A difference of infinities would be NaN.
    anchor = xp.where(alone, like(0.0, logits), second)
    total = sum_classes(xp.exp(others - anchor[:, None]))
    rest = anchor + xp.log(xp.where(alone, like(1.0, logits), total))
    score = xp.where(alone, like(0.0, logits), pick(logits, top) - rest)
    return TopScores(top, score, others, xp.where(alone, like(-xp.inf, logits), rest))


@dataclass(frozen=True)
class Top(Calibrator):
    """The top class gets a calibrated confidence; the other classes keep their proportions.

    The stages map two classes, "the top class is wrong" and "it is right", whose log-odds are
    those of the top class. The prediction never changes: where another class would overtake, the
    others are drawn to equal shares, just as far as it takes; and since no largest probability is
    below 1/K, a confidence below that becomes 1/K. A class that is the only possible one keeps
    probability 1.

    Parameters
    ----------
    stages : tuple of Calibrator
        For two classes.

    Examples
    --------
    >>> from calibcli.calibrators.temperature import Temperature
    >>> Top((Temperature(2.0),)).probs(np.log([[0.8, 0.15, 0.05]])).round(3)
    array([[0.667, 0.25 , 0.083]])
    """

    stages: tuple[Calibrator, ...]
    kind: ClassVar[str] = "top"

    def transform(self, logits: Array) -> Array:
        return self.logits(logits)

    def logits(self, logits: Array) -> Array:
        xp = namespace(logits)
        rows = top_scores(logits)
        pair = xp.stack([xp.zeros_like(rows.score), rows.score], axis=-1)
        pair = log_probs_after(self.stages, pair) if self.stages else log_softmax(pair)
        possible = rows.others > -xp.inf
        count = xp.sum(xp.astype(possible, logits.dtype), axis=-1)
        alone = count == 0
        count = xp.where(alone, like(1.0, logits), count)
        right, wrong = _at_least(pair[:, 1], pair[:, 0], count + 1)
        shares = _below(rows.others, rows.rest, right - wrong - _MARGIN, count)
        mapped = xp.where(possible, wrong[:, None] + shares, like(-xp.inf, logits))
        places = xp.arange(logits.shape[1], device=logits.device)
        mapped = xp.where(places[None, :] == rows.top[:, None], right[:, None], mapped)
        return xp.where(alone[:, None], logits, mapped)

    def reach(self, bound: float) -> float:
        return 2 * bound + 2 * reach_of(self.stages, 2 * bound)

    def for_groups(self, numbers: NumpyArray) -> Calibrator:
        return replace(self, stages=tuple(stage.for_groups(numbers) for stage in self.stages))

    def interval(self, logits: Array, prediction: Array) -> tuple[Array, Array] | None:
        """The interval of each row's top class, which is always predicted; see `Calibrator`."""
        if not self.stages:
            return None
        xp = namespace(logits)
        score = top_scores(logits).score
        pair = log_probs_after(self.stages[:-1], xp.stack([xp.zeros_like(score), score], axis=-1))
        return self.stages[-1].interval(pair, xp.ones_like(prediction))

    @property
    def changes_nothing(self) -> bool:
        return all(stage.changes_nothing for stage in self.parts())

    @property
    def preserves(self) -> Preserves:
        return "order" if self.changes_nothing else "accuracy"

    def parts(self) -> Sequence[Calibrator]:
        return self.stages

    def parameters(self) -> dict[str, Any]:
        return {"stages": described(self.stages)}

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> Top:
        parameters.expect("stages")
        return cls(parameters.stages("stages", 2))

    def summary(self) -> str:
        inner = [f"{stage.kind} {stage.summary()}".strip() for stage in self.stages]
        return f"of the confidence: {', '.join(inner) or 'none'}"


def _at_least(right: Array, wrong: Array, classes: Array) -> tuple[Array, Array]:
    """Log-probabilities of the top class, at least 1/K and a bit, and of the rest."""
    xp = namespace(right)
    least = 2 * _MARGIN - xp.log(classes)
    low = right < least
    return xp.where(low, least, right), xp.where(low, xp.log(-xp.expm1(least)), wrong)


def _below(others: Array, rest: Array, limit: Array, count: Array) -> Array:
    """Log-shares (n, K) of the others in what the top class leaves, none above a limit (n,).

    Where one is, all are drawn to equal shares by the least mixture that brings it down.
    """
    xp = namespace(others)
    known = xp.where(rest > -xp.inf, rest, like(0.0, rest))
    shares = others - known[:, None]
    largest = xp.max(shares, axis=-1)
    above = largest > limit
    if not is_any(above):
        return shares
    equal = (1 / count)[:, None]
    zero, one = like(0.0, rest), like(1.0, rest)
    room = xp.where(above, xp.exp(xp.where(above, largest, zero)) - 1 / count, one)
    kept = xp.clip((xp.exp(xp.where(above, limit, zero)) - 1 / count) / room, 0.0, 1.0)
    # Around the equal shares, where the sum is exact when next to nothing of the rest is kept.
    drawn = equal + kept[:, None] * (xp.exp(shares) - equal)
    return xp.where(above[:, None], xp.log(xp.where(above[:, None], drawn, one)), shares)
