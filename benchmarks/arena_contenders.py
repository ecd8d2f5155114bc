"""Who takes part in the arena.

`contenders` is the table to extend: a name, and how to get the function that fits. What `calib`
can fit is taken from its registry, so a new method takes part without a line here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from arena_data import Labels, Matrix, Scores

Predict = Callable[[Scores], Matrix]
"""Probabilities (n, K) of scores."""

Fit = Callable[..., Predict]
"""Fits on scores and labels, and where a contender is for that, on scores without labels."""

BASE = "none"
"""The scores as they are."""


@dataclass(frozen=True)
class Contender:
    """A method that takes part.

    Attributes
    ----------
    prepare : callable
        Imports what the method needs, and returns its `Fit`; raises ImportError. It is not timed.
    library : str
        Where it comes from: ``"calib"``, ``"probmetrics"``, or nothing.
    binary_only : bool
        Whether it is for two classes only.
    effort : int
        Those of little effort have their turn first: 0 is seconds, 4 is mostly the cap.
    unlabelled : bool
        Whether its fit also gets the scores of the rows to judge on, as a third argument.
    """

    prepare: Callable[[], Fit]
    library: str = ""
    binary_only: bool = False
    effort: int = 0
    unlabelled: bool = False


COMBINATIONS: Mapping[str, int] = {
    "temperature,laplace": 0,
    "monotone,laplace": 0,
    "monotone,vector": 0,
    "monotone,svs": 0,
    "monotone,sms": 1,
    "monotone,dirichlet": 1,
    "monotone,quadratic": 0,
    "monotone,beta": 0,
    "gap-temperature,svs": 0,
    "gap-temperature,sms": 1,
}
"""Methods of `calib` in stages, with the effort."""

VARIANTS: Mapping[str, tuple[str, dict[str, Any], int]] = {
    "svs/tuned": ("svs", {"tune": True}, 1),
    "sms/tuned": ("sms", {"tune": True}, 1),
    "sms/tuned-averaged": ("sms", {"tune": True, "average_folds": True}, 1),
    "matrix/tuned": ("matrix", {"tune": True}, 1),
    "dirichlet/tuned": ("dirichlet", {"tune": True}, 1),
    "monotone/tuned": ("monotone", {"tune": True}, 1),
    "monotone,svs/tuned": ("monotone,svs", {"tune": True}, 1),
    "monotone,sms/tuned": ("monotone,sms", {"tune": True}, 1),
    "auto": ("auto", {"stack": False}, 1),
    "auto/stack": ("auto", {"stack": True}, 1),
}
"""Methods of `calib` with keyword arguments of `calibcli.fit`, and the effort."""


def contenders() -> dict[str, Contender]:
    """All that take part, by name."""
    from arena_peers import peers

    return {BASE: Contender(lambda: _as_it_is), **_calib_contenders(), **peers()}


def _as_it_is(_scores: Scores, _labels: Labels) -> Predict:
    return Scores.probs


def _calib_contenders() -> dict[str, Contender]:
    import calibcli
    from calibcli.calibrators.registry import MAPS

    keywords = inspect.signature(calibcli.fit).parameters
    slow = {"matrix", "sms", "dirichlet", "parameterized-temperature"}
    methods: dict[str, tuple[str, dict[str, Any], int]]
    methods = {name: (name, {}, int(name in slow)) for name in MAPS}
    methods |= {name: (name, {}, effort) for name, effort in COMBINATIONS.items()}
    found = {}
    for name, (method, options, effort) in {**methods, **VARIANTS}.items():
        stages = [] if method == "auto" else method.split(",")
        if options.keys() <= keywords.keys() and all(stage in MAPS for stage in stages):
            binary = any(MAPS[stage].binary_only for stage in stages)
            found[name] = Contender(partial(calib_method, method, options), "calib", binary, effort)
    return found


def calib_method(method: str, options: Mapping[str, Any]) -> Fit:
    """`calibcli.fit` with a method and further keyword arguments."""
    import calibcli

    def fit(scores: Scores, labels: Labels, target: Scores | None = None) -> Predict:
        fitted = calibcli.fit(
            scores.values,
            labels,
            method=method,
            target=None if target is None else target.values,
            input=scores.kind,
            folds=0,
            device="cpu",
            threads=1,
            **options,
        )
        return lambda rows: fitted.predict_proba(rows.values)

    return fit
