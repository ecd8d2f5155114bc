"""Objectives as their papers write them, row by row or pair by pair, for torch's autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from calibcli.objectives.acls import Acls
from calibcli.objectives.adafocal import AdaFocal, BinnedGamma
from calibcli.objectives.adaptive import Adaptive
from calibcli.objectives.aurc import Aurc
from calibcli.objectives.base import Objective
from calibcli.objectives.brier import Brier
from calibcli.objectives.bsce import Bsce, BsceGra
from calibcli.objectives.cals import Cals, CalsHr, Multipliers, Strengths
from calibcli.objectives.class_wise import ClassWise, Macro
from calibcli.objectives.dual_focal import DualFocal, DualFocalGra
from calibcli.objectives.focal import Flsd, Focal, FocalGra, InverseFocal
from calibcli.objectives.label_smoothing import LabelSmoothing
from calibcli.objectives.mbls import Mbls
from calibcli.objectives.mmce import Mmce
from calibcli.objectives.nll import NegativeLogLikelihood

Tensor = torch.Tensor


class Rows:
    """Probabilities of a batch, each computed the plain way."""

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        self.logits = logits
        self.labels = labels
        self.probs = torch.softmax(logits, dim=1)
        self.nll = functional.cross_entropy(logits, labels, reduction="none")
        self.true_prob = self.probs.gather(1, labels[:, None])[:, 0]
        self.one_hot = functional.one_hot(labels, logits.shape[1]).to(logits)
        self.distance = logits.max(dim=1, keepdim=True).values - logits


def schedule(true_prob: Tensor, gamma: float) -> Tensor:
    late = torch.where(true_prob < 0.5, 3.0, gamma)
    return torch.where(true_prob < 0.2, 5.0, late).detach()


def rival(rows: Rows) -> Tensor:
    below = rows.probs < rows.true_prob[:, None]
    return (rows.probs * below).max(dim=1).values


def distance_to_label(rows: Rows, norm: int) -> Tensor:
    return torch.linalg.vector_norm(rows.one_hot - rows.probs, ord=norm, dim=1)


def hinge(rows: Rows, margin: float) -> Tensor:
    return torch.relu(rows.distance - margin)


def acls(rows: Rows, o: Acls) -> Tensor:
    logits = rows.logits
    top = logits.max(dim=1).values
    low = hinge(rows, o.margin)
    if o.form == "published":
        low = torch.relu(top.detach()[:, None] - logits - o.margin)
        high = torch.relu(top - o.margin)
    else:
        high = torch.relu(top - logits.mean(dim=1) - o.margin)
    spread = (low**2).sum(dim=1) / (logits.shape[1] - 1)
    return rows.nll + o.strength * (o.high * high**2 + o.low * spread)


def penalty(name: str, h: Tensor, lam: Tensor, rho: Tensor) -> Tensor:
    if name == "phr":
        x = lam + rho * h
        return torch.where(x >= 0, x**2 - lam**2, -(lam**2)) / (2 * rho)
    cubic = rho**2 * h**3 / 6 if name == "p2" else 0 * h
    above = lam * h + lam * rho * h**2 + cubic
    below = lam * h / (1 - rho * torch.clamp(h, max=0))
    return torch.where(h >= 0, above, below)


def cals(rows: Rows, o: Cals) -> Tensor:
    classes = rows.logits.shape[1]
    lam, rho = torch.full((classes,), 1e-6, dtype=torch.float64), torch.ones(classes)
    if o.state is not None:
        lam, rho = torch.tensor(o.state.multiplier), torch.tensor(o.state.strength)
    h = rows.distance / o.margin - 1
    return rows.nll + penalty(o.penalty, h, lam, rho).mean(dim=1)


def cals_hr(rows: Rows, o: CalsHr) -> Tensor:
    strength = o.strength if o.state is None else torch.tensor(o.state.strength)
    return rows.nll + (strength * hinge(rows, o.margin)).mean(dim=1)


def ada_focal(rows: Rows, o: AdaFocal) -> Tensor:
    losses = []
    for p, nll in zip(rows.true_prob, rows.nll, strict=True):
        gamma = o.gamma
        if o.state is not None:
            inner = o.state.edges[1:-1]
            gamma = float(o.state.gamma[sum(float(p.detach()) >= edge for edge in inner)])
        losses.append(((1 - p) ** gamma if gamma >= 0 else (1 + p) ** -gamma) * nll)
    return torch.stack(losses)


def class_losses(rows: Rows) -> Tensor:
    classes = rows.logits.shape[1]
    return torch.stack([rows.nll[rows.labels == k].mean() for k in range(classes)])


def macro(rows: Rows, _: Macro) -> Tensor:
    """The mean over classes, spread over the rows so that their mean is that."""
    return rows.nll * 0 + class_losses(rows).mean()


def class_wise(rows: Rows, o: ClassWise) -> Tensor:
    losses = class_losses(rows)
    fixed = losses.detach()
    centred = fixed - fixed.mean()
    spread = fixed.max() - fixed.min()
    normalised = {
        "zscore": centred / fixed.std(),
        "centered": centred / spread,
        "minmax": (fixed - fixed.min()) / spread,
    }[o.norm]
    alpha, beta = 1.0 if o.alpha is None else o.alpha, 1.5 if o.beta is None else o.beta
    factors = beta / (1 + torch.exp(-normalised / alpha)) - beta / 2 + 1
    return rows.nll * 0 + (factors * losses).mean()


def aurc(rows: Rows, _: Aurc) -> Tensor:
    confidence = rows.probs.max(dim=1).values.detach()
    n = len(confidence)
    rank = torch.argsort(torch.argsort(confidence)) + 1
    weights = [sum(1 / j for j in range(n - int(r) + 1, n + 1)) for r in rank]
    return torch.tensor(weights, dtype=torch.float64) * rows.nll


def mmce(rows: Rows, o: Mmce) -> Tensor:
    confidence, prediction = rows.probs.max(dim=1)
    residual = (prediction == rows.labels).double() - confidence
    kernel = torch.exp(-torch.abs(confidence[:, None] - confidence[None, :]) / o.width)
    square = (residual[:, None] * residual[None, :] * kernel).mean()
    return rows.nll + o.strength * square


ORACLES: dict[type[Objective], Callable[[Rows, Any], Tensor]] = {
    NegativeLogLikelihood: lambda rows, _: rows.nll,
    Brier: lambda rows, _: ((rows.probs - rows.one_hot) ** 2).sum(dim=1),
    Focal: lambda rows, o: (1 - rows.true_prob) ** o.gamma * rows.nll,
    InverseFocal: lambda rows, o: (1 + rows.true_prob) ** o.gamma * rows.nll,
    Flsd: lambda rows, _: (1 - rows.true_prob) ** schedule(rows.true_prob, 3.0) * rows.nll,
    DualFocal: lambda rows, o: (1 - rows.true_prob + rival(rows)) ** o.gamma * rows.nll,
    DualFocalGra: lambda rows, o: (
        ((1 - rows.true_prob + rival(rows)) ** o.gamma).detach() * rows.nll
        if o.hold == "weight"
        else (1 - rows.true_prob + rival(rows).detach()) ** o.gamma * rows.nll
    ),
    FocalGra: lambda rows, o: (
        (1 - rows.true_prob).detach()
        ** (schedule(rows.true_prob, o.gamma) if o.adaptive_gamma else o.gamma)
        * rows.nll
    ),
    Bsce: lambda rows, o: distance_to_label(rows, o.norm) ** o.gamma * rows.nll,
    BsceGra: lambda rows, o: (
        distance_to_label(rows, o.norm).detach()
        ** (schedule(rows.true_prob, o.gamma) if o.adaptive_gamma else o.gamma)
        * rows.nll
    ),
    LabelSmoothing: lambda rows, o: functional.cross_entropy(
        rows.logits, rows.labels, label_smoothing=o.smoothing, reduction="none"
    ),
    Mbls: lambda rows, o: rows.nll + o.strength * hinge(rows, o.margin).mean(dim=1),
    Acls: acls,
    Cals: cals,
    CalsHr: cals_hr,
    AdaFocal: ada_focal,
    Macro: macro,
    ClassWise: class_wise,
    Aurc: aurc,
    Mmce: mmce,
}


def oracle(objective: Objective, logits: Any, labels: Any) -> tuple[float, np.ndarray[Any, Any]]:
    """The sum of the rows' losses and its gradient (n, K), float64."""
    z = torch.tensor(np.array(logits, dtype=np.float64), requires_grad=True)
    losses = ORACLES[type(objective)](Rows(z, torch.tensor(np.array(labels))), objective)
    (gradient,) = torch.autograd.grad(losses.sum(), z)
    return float(losses.detach().sum()), gradient.numpy()


def multipliers(
    multiplier: list[float], strength: list[float], constraint: list[float] | None = None
) -> Multipliers:
    ones = np.ones(len(multiplier))
    before = ones * 0 if constraint is None else np.array(constraint)
    return Multipliers(np.array(multiplier), np.array(strength), before, ones, ones * 0, 1)


def variants(classes: int) -> list[Objective]:
    """Every objective with options under which all of its parts are at work."""
    k = np.arange(classes)
    some = multipliers(list(0.2 + 0.1 * k), list(1 + 0.05 * k))
    bins = BinnedGamma(
        np.array([1.7, 0.6, -0.3, -1.5, 4.0]),
        np.array([0.0, 0.1, 0.3, 0.6, 0.9, 1.0]),
        np.zeros(5),
    )
    return [
        NegativeLogLikelihood(),
        Brier(),
        *(Focal(g) for g in (0.0, 0.5, 3.0)),
        *(InverseFocal(g) for g in (0.0, 0.5, 2.0)),
        Flsd(),
        *(DualFocal(g) for g in (0.5, 2.0, 5.0)),
        DualFocalGra(5.0),
        DualFocalGra(2.0, "rival"),
        FocalGra(3.0),
        FocalGra(2.0, adaptive_gamma=True),
        *(Bsce(g, norm) for g in (0.5, 2.0) for norm in (1, 2)),
        *(BsceGra(g, norm) for g in (1.0, 2.0) for norm in (1, 2)),
        BsceGra(2.0, 2, adaptive_gamma=True),
        LabelSmoothing(0.1),
        Mbls(2.0),
        Acls(2.0, 0.5),
        Cals(2.0),
        *(Cals(3.0, name, state=some) for name in ("phr", "p2", "p3")),
        CalsHr(2.0),
        CalsHr(2.0, state=Strengths(0.1 + 0.05 * k, np.ones(classes))),
        AdaFocal(),
        AdaFocal(state=bins),
        Macro(),
        *(ClassWise(how) for how in ("zscore", "centered", "minmax")),
        ClassWise(alpha=0.5, beta=1.8),
        Aurc(),
        Mmce(2.0),
        Mmce(1.0, 0.1),
    ]


def learnt(objective: Objective, logits: Any, labels: Any, weights: Any = None) -> Objective:
    """The objective with the state of these rows, where it takes it from the rows of the fit."""
    if isinstance(objective, Adaptive) and objective.learns != "on validation rows":
        return objective.updated(objective.statistic(logits, labels, weights))
    return objective


def label_of(objective: Objective) -> str:
    """A name for a test's parameter."""
    options = ",".join(f"{value}" for value in objective.options().values())
    return f"{objective.name}({options})"
