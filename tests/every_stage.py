"""A calibrator of every kind that a parameter file may hold."""

from __future__ import annotations

import numpy as np

import calibcli
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.chain import LogLinear
from calibcli.calibrators.groups import Groups
from calibcli.calibrators.identity import Identity
from calibcli.calibrators.links import link_of
from calibcli.calibrators.registry import MAPS
from calibcli.calibrators.top import Top
from calibcli.objectives.registry import OBJECTIVES


def calibrators_of_every_kind(classes: int) -> list[Calibrator]:
    """A calibrator of every kind that there is for so many classes, from fits to a few rows."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(80, classes)) * 3
    labels = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    examples: dict[str, Calibrator] = {Identity.kind: Identity()}
    for name, family in MAPS.items():
        if classes == 2 or not family.binary_only:
            # Of a fit that starts several times, one is as good an example as the best.
            options = {f"{name}.restarts": 1} if hasattr(family, "restarts") else {}
            fit = calibcli.fit(logits, labels, method=name, options=options, folds=0)
            examples |= {stage.kind: stage for stage in fit.stages}
    for objective in OBJECTIVES.values():
        link = link_of(objective())
        if link is not None:
            examples[link.kind] = link
    inner = examples["temperature"]
    two = (inner, examples["none"]), (inner,)
    examples["groups"] = Groups("lang", ("de", "en"), (inner,), two, np.array([0.25, 1.0]))
    examples["top"] = Top((inner,))
    examples["log-linear"] = LogLinear(two, np.array([0.75, 0.5]))
    return list(examples.values())
