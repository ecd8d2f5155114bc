"""Links: from the probabilities that an improper loss asks for to the true ones.

Where the gradient of a loss by the logits is ``u_y(q) (q - e_y)``, probabilities q that make its
expectation stationary belong to true ones ``eta_k`` proportional to ``q_k / u_k(q)``: with this map
behind it, the loss is a proper composite loss (Reid and Williamson, Composite binary losses, JMLR
2010; Charoenphakdee et al., On focal loss for class-posterior probability estimation, CVPR 2021).

The links of focal, focal-gra, bsce-gra and label-smoothing keep the order of a row's classes. That
of inverse-focal does up to a gamma of 1.61; beyond, the expected loss has several minima and
classes that are nearly tied may change places. That of dual-focal-gra does not in general, as
little as the solutions of its estimating equation have the order of the true probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from calibcli.arrays import Array, argmax, log_softmax, namespace, sum_classes
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.parameters import Parameters

LARGEST_INVERSE_GAMMA = 3.59
"""Up to this exponent inverse focal loss falls steadily as the label's probability grows."""

_LARGEST_GAMMA = 1000

_LOWEST = -1e30
"""A logarithm whose exponential is 0, but which is finite in products with exponents."""

SMALLEST_SHARE = 1e-3
"""With the link of label smoothing, a class keeps at least this share of its probability."""


class _Simplex:
    """Log-probabilities (n, K) and, with all digits, those of all other classes.

    Attributes
    ----------
    log_probs, probs : array (n, K)
    log_miss, miss : array (n, K)
        Of each class, the probability of the others.
    top : int array (n,)
    """

    def __init__(self, log_probs: Array) -> None:
        xp = namespace(log_probs)
        self.log_probs = log_probs
        self.probs = xp.exp(log_probs)
        self.top = argmax(log_probs)
        self.rows = xp.arange(log_probs.shape[0], device=log_probs.device)
        self.others = log_probs * 1
        self.others[self.rows, self.top] = -xp.inf
        # The most probable class may have a probability of 1: the others are added up instead.
        largest = xp.clip(xp.max(self.others, axis=-1), min=_LOWEST)
        total = sum_classes(xp.exp(self.others - largest[:, None]))
        self.top_log_miss = largest + xp.log(xp.clip(total, min=_tiny(log_probs)))
        self.log_miss = xp.log1p(-xp.exp(self.others))
        self.log_miss[self.rows, self.top] = self.top_log_miss
        self.miss = xp.exp(self.log_miss)


def _focal(simplex: _Simplex, gamma: float) -> Array:
    """Log of ``(1-q)^gamma (1 + gamma q nll / (1-q))``."""
    xp = namespace(simplex.probs)
    return gamma * simplex.log_miss + xp.log1p(gamma * _odds_of_nll(simplex))


def _odds_of_nll(simplex: _Simplex) -> Array:
    """``-q ln q / (1-q)``, which goes to 1 as q does."""
    xp = namespace(simplex.probs)
    miss = xp.clip(simplex.miss, min=_tiny(simplex.miss))
    likely = -xp.log1p(-xp.clip(miss, max=0.75))
    nll = xp.where(simplex.probs > 0.5, likely, -xp.clip(simplex.log_probs, min=_LOWEST))
    return simplex.probs * nll / miss


def _inverse_focal(simplex: _Simplex, gamma: float) -> Array:
    """Log of ``(1+q)^gamma (1 - gamma q nll / (1+q))``."""
    xp = namespace(simplex.probs)
    entropy = _odds_of_nll(simplex) * simplex.miss
    return gamma * xp.log1p(simplex.probs) + xp.log1p(-gamma * entropy / (1 + simplex.probs))


def _focal_gra(simplex: _Simplex, gamma: float) -> Array:
    """Log of ``(1-q)^gamma``."""
    return gamma * simplex.log_miss


def _bsce_gra(simplex: _Simplex, gamma: float, norm: float) -> Array:
    """Log of ``|q - e_k|^gamma``, but for a constant."""
    if norm == 1:
        return _focal_gra(simplex, gamma)
    xp = namespace(simplex.probs)
    square = sum_classes(simplex.probs**2)[:, None] - 2 * simplex.probs + 1
    ratios = xp.exp(2 * (simplex.others - simplex.top_log_miss[:, None]))
    log_square = xp.log(xp.clip(square, min=0.1))
    log_square[simplex.rows, simplex.top] = 2 * simplex.top_log_miss + xp.log1p(sum_classes(ratios))
    return gamma / 2 * log_square


def _dual_focal_gra(simplex: _Simplex, gamma: float) -> Array:
    """Log of ``(1 - q + q_j)^gamma``, q_j the largest probability strictly below q."""
    xp = namespace(simplex.probs)
    order = xp.argsort(simplex.log_probs, axis=-1)
    ranked = xp.take_along_axis(simplex.log_probs, order, axis=-1)
    below = xp.full_like(ranked, _LOWEST)
    for k in range(1, ranked.shape[-1]):
        tied = ranked[:, k] == ranked[:, k - 1]
        below[:, k] = xp.where(tied, below[:, k - 1], xp.clip(ranked[:, k - 1], min=_LOWEST))
    place = xp.argsort(order, axis=-1)
    rival = xp.take_along_axis(below, place, axis=-1)
    return gamma * xp.logaddexp(simplex.log_miss, rival)


def _label_smoothing(simplex: _Simplex, smoothing: float) -> Array:
    """Minus the log of ``1 - smoothing / (K q)``, at least that of `SMALLEST_SHARE`.

    True probabilities are ``(q - smoothing / K) / (1 - smoothing)``. A map that can't follow the
    data gives some classes less than smoothing / K; these keep their order.
    """
    xp = namespace(simplex.probs)
    possible = simplex.log_probs > -xp.inf
    share = smoothing / sum_classes(xp.astype(possible, simplex.probs.dtype))[:, None]
    log_share = xp.log(xp.clip(share, min=_tiny(share)))
    # Impossible classes lie infinitely far below the share; e^1 is far enough.
    excess = xp.clip(log_share - simplex.log_probs, max=1.0)
    return -xp.log(xp.clip(-xp.expm1(excess), min=SMALLEST_SHARE))


_Scale = Callable[..., Array]

_LINKS: dict[str, tuple[_Scale, tuple[str, ...]]] = {
    "focal": (_focal, ("gamma",)),
    "inverse-focal": (_inverse_focal, ("gamma",)),
    "focal-gra": (_focal_gra, ("gamma",)),
    "dual-focal-gra": (_dual_focal_gra, ("gamma",)),
    "bsce-gra": (_bsce_gra, ("gamma", "norm")),
    "label-smoothing": (_label_smoothing, ("smoothing",)),
}


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

    def transform(self, logits: Array) -> Array:
        scale, _ = _LINKS[self.loss]
        return logits - scale(_Simplex(log_softmax(logits)), **self.options)

    def logits(self, logits: Array) -> Array:
        # Impossible classes need no stand-in: their probability is 0, and stays it.
        return self.transform(log_softmax(logits))

    def parameters(self) -> dict[str, Any]:
        return {"loss": self.loss, **self.options}

    @classmethod
    def from_parameters(cls, parameters: Parameters, classes: int) -> Link:
        loss = parameters.values.get("loss")
        if not isinstance(loss, str) or loss not in _LINKS:
            known = ", ".join(_LINKS)
            raise parameters.error(f"no link for loss {loss!r}; there is {known}")
        names = _LINKS[loss][1]
        parameters.expect("loss", *names)
        options = {name: parameters.number(name) for name in names}
        trouble = _trouble(loss, options)
        if trouble is not None:
            raise parameters.error(trouble)
        return cls(loss, options)

    def summary(self) -> str:
        options = ", ".join(f"{name} {value:g}" for name, value in self.options.items())
        return f"link of {self.loss}, {options}"


def link_of(loss: str, options: Mapping[str, Any]) -> Link | None:
    """The link of a loss with these options, as from `Objective.options`; None if there is none."""
    if loss not in _LINKS or options.get("adaptive_gamma"):
        return None
    relevant = {name: options[name] for name in _LINKS[loss][1]}
    return Link(loss, relevant) if _trouble(loss, relevant) is None else None


def _trouble(loss: str, options: Mapping[str, float]) -> str | None:
    """Why there is no link for a loss with these options, or None."""
    if not 0 <= options.get("gamma", 0) <= _LARGEST_GAMMA:
        return f"gamma must be from 0 to {_LARGEST_GAMMA}"
    if loss == "inverse-focal" and options["gamma"] > LARGEST_INVERSE_GAMMA:
        return f"inverse-focal has no link for a gamma above {LARGEST_INVERSE_GAMMA}"
    if options.get("norm", 1) not in (1, 2):
        return "norm must be 1 or 2"
    if not 0 <= options.get("smoothing", 0) < 1:
        return "smoothing must be from 0 to below 1"
    return None


def _tiny(array: Array) -> Any:
    return namespace(array).finfo(array.dtype).smallest_normal
