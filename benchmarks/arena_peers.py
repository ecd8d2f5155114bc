"""The calibrators of probmetrics, each with its defaults.

Where probmetrics has a path for logits, it gets the logits as they are stored; where it takes
probabilities, these are in float64. Calibrators that its own benchmark, CalArena, uses for two
classes only are so here, and those that it wraps in one-vs-rest are wrapped here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from arena_contenders import Contender, Fit, Predict
from arena_data import Labels, Matrix, Scores

LIBRARY = "probmetrics"


@dataclass(frozen=True)
class Peer:
    """A calibrator of probmetrics.

    Attributes
    ----------
    make : callable
        Imports what it needs, and returns the calibrator, which is not fitted.
    effort : int
        As in `Contender`.
    binary_only : bool
    one_column : bool
        Whether it takes the probability of class 1, (n,), where there are two classes.
    block_rows : int
        Predict so many rows at a time; 0 means all.
    """

    make: Callable[[], Any]
    effort: int = 0
    binary_only: bool = False
    one_column: bool = False
    block_rows: int = 0


def _named(name: str) -> Any:
    from probmetrics.calibrators import get_calibrator

    return get_calibrator(name)


def _of_class(path: str, **options: Any) -> Any:
    module, _, name = path.rpartition(".")
    where = ".".join(("probmetrics.calibrators", *filter(None, [module])))
    return getattr(importlib.import_module(where), name)(**options)


def _one_vs_rest(path: str, **options: Any) -> Any:
    from probmetrics.calibrators import MulticlassOneVsRestCalibrator

    return MulticlassOneVsRestCalibrator(_of_class(path, **options))


def _by_name(names: str, effort: int = 0, *, binary_only: bool = False) -> dict[str, Peer]:
    return {name: Peer(partial(_named, name), effort, binary_only) for name in names.split()}


_HISTOGRAM = partial(_one_vs_rest, "BinaryHistogramBinningCalibrator")
_SMALL_TREES = partial(_of_class, "trees.BinaryCatBoostCalibrator", tiny=True, monotone=True)
_SAGA = "Regularized{}ScalingCalibrator"

PEERS: Mapping[str, Peer] = {
    **_by_name("temp-scaling ts-mix torchunc-ts guo-ts torchcal-ts autogluon-ts autogluon-inv-ts"),
    **_by_name("platt platt-logits isotonic isotonic-naive-ovr svs"),
    **_by_name("sms logistic logistic-mix cir", 1),
    **_by_name("ivap ivap-ovr ivap-ovo", 2),
    **_by_name("dircal", 3),
    **_by_name("dircal-cv", 4),
    **_by_name("linear-scaling affine-scaling quadratic-scaling beta", binary_only=True),
    "vs": Peer(partial(_of_class, "VectorScalingCalibrator")),
    "ms": Peer(partial(_of_class, "MatrixScalingCalibrator"), 1),
    "ets": Peer(partial(_of_class, "ETSCalibrator")),
    "ets-ce": Peer(partial(_of_class, "ETSCalibrator", loss="ce")),
    "netcal-ts": Peer(partial(_of_class, "NetcalTemperatureScalingCalibrator"), 1),
    "softplus": Peer(partial(_of_class, "temperature_scaling.SoftPlusCalibrator"), 3),
    "intra-order-preserving": Peer(
        partial(_of_class, "orderpreserving.IntraOrderPreservingCalibrator"), 3
    ),
    "hist-uniform": Peer(partial(_HISTOGRAM, strategy="uniform")),
    "hist-quantile": Peer(partial(_HISTOGRAM, strategy="quantile")),
    "bbq": Peer(partial(_of_class, "NetcalBBQCalibrator"), 2, one_column=True),
    "spline": Peer(partial(_of_class, "MLISplineCalibrator"), 2, one_column=True),
    # It holds a matrix of rows to fit on by rows to judge.
    "kernel": Peer(partial(_of_class, "KernelCalibrator"), 2, block_rows=1000),
    "catboost": Peer(partial(_of_class, "CatBoostCalibrator"), 2),
    "catboost-init": Peer(partial(_of_class, "trees.InitLogitCatBoostCalibrator"), 3),
    "catboost-tiny-monotone": Peer(_SMALL_TREES, 1, binary_only=True),
    "lightgbm": Peer(partial(_of_class, "trees.LightGBMCalibrator"), 2),
    "xgboost": Peer(partial(_of_class, "trees.XGBoostCalibrator"), 2),
    "cdf-spline": Peer(partial(_of_class, "CDFSplineCalibrator"), binary_only=True),
    "scaling-binning": Peer(partial(_of_class, "BinaryPlattBinnerCalibrator"), binary_only=True),
    "enir": Peer(partial(_of_class, "NetcalENIRCalibrator"), 3, binary_only=True),
    "beta-logistic": Peer(
        partial(_of_class, "BinaryLogisticCalibrator", type="beta"), binary_only=True
    ),
    **{
        f"{name.lower()}-saga": Peer(
            partial(_of_class, _SAGA.format(name), print_init_info=False), 1, binary_only=True
        )
        for name in ("Affine", "Quadratic")
    },
}
"""All calibrators of probmetrics that take the scores of a classifier."""


def peers() -> dict[str, Contender]:
    """All of them, by ``probmetrics:`` and their name."""
    return {
        f"{LIBRARY}:{name}": Contender(
            partial(_prepare, peer), LIBRARY, peer.binary_only, peer.effort
        )
        for name, peer in PEERS.items()
    }


def _prepare(peer: Peer) -> Fit:
    """A fit by the interface that the calibrator has an implementation for."""
    import torch
    from probmetrics.calibrators import Calibrator
    from probmetrics.distributions import CategoricalLogits, CategoricalProbs

    calibrator = peer.make()
    implemented = type(calibrator)._fit_torch_impl  # noqa: SLF001 (there is no public sign)
    takes_logits = implemented is not Calibrator._fit_torch_impl  # noqa: SLF001

    def distribution(scores: Scores) -> Any:
        if scores.kind == "logits":
            return CategoricalLogits(torch.from_numpy(scores.values))
        return CategoricalProbs(torch.from_numpy(scores.probs().astype(np.float32)))

    def probabilities(scores: Scores) -> Matrix:
        probs = scores.probs()
        return probs[:, 1] if peer.one_column and scores.classes == 2 else probs

    def predict(scores: Scores) -> Matrix:
        if not takes_logits:
            return np.asarray(calibrator.predict_proba(probabilities(scores)))
        with torch.no_grad():
            probs = calibrator.predict_proba_torch(distribution(scores)).get_probs()
        return np.asarray(probs.numpy())

    def fit(scores: Scores, labels: Labels) -> Predict:
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 (what the peers draw from)
        if takes_logits:
            calibrator.fit_torch(distribution(scores), torch.from_numpy(labels))
        else:
            calibrator.fit(probabilities(scores), labels)
        return partial(_by_blocks, predict, peer.block_rows) if peer.block_rows else predict

    return fit


def _by_blocks(predict: Predict, block_rows: int, scores: Scores) -> Matrix:
    begins = range(0, len(scores), block_rows)
    return np.concatenate([predict(scores.rows(slice(b, b + block_rows))) for b in begins])
