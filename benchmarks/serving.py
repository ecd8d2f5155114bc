"""A calibrator in a service: its start, one row at a time, and batches, beside its peers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from data import Size, read_arrays, write_arrays
from harness import Line, Prepare, Timing, elsewhere, median_run, race

FITTED_ON = Size(10_000, 10)
BATCH = 10_000
CALLS = 100
"""Calls that are timed as one, as `timeit` does, of which the least counts, as with it."""

_START = 0.15
_ROW = {"temperature": 30e-6, "platt": 30e-6, "isotonic": 30e-6, "svs": 30e-6, "stack": 300e-6}
_BATCH = BATCH / 3e6
"""Goals in seconds."""

Call = Callable[[], Any]


def benchmark(folder: Path) -> list[Line]:
    """The start, then a row and a batch of each method."""
    elsewhere(write_arrays, folder, FITTED_ON)
    for method in _ROW:
        elsewhere(_fit, folder, method)
    return [_start(folder), *(line for method in _ROW for line in _lines(folder, method))]


def _lines(folder: Path, method: str) -> list[Line]:
    line = partial(Line, "serving", method)
    lines = []
    cases = (("a row", 1, CALLS, _ROW[method]), ("10,000 rows", BATCH, 1, _BATCH))
    for what, rows, calls, goal in cases:
        contenders: dict[str, Prepare] = {
            "calib": partial(_ours, method=method, rows=rows, calls=calls)
        }
        for name, peer in _PEERS.get(method, {}).items():
            contenders[name] = partial(peer, rows=rows, calls=calls)
        timings = race(contenders, folder)
        ours = timings.pop("calib").least / calls
        lines.append(line(what, ours, at_most=goal))
        lines += [_against(line, what, ours, name, each, calls) for name, each in timings.items()]
    return lines


def _against(
    line: Callable[..., Line], what: str, ours: float, name: str, timing: Timing, calls: int
) -> Line:
    if timing.missing:
        return line(f"{what}, {name}", note=timing.missing)
    return line(f"{what}, {name}", ours, timing.least / calls)


def _start(folder: Path) -> Line:
    """What `load` takes after NumPy is imported."""
    load = f"import numpy, calibcli; calibcli.load({str(folder / 'svs.json')!r})"
    commands = {
        "load": [sys.executable, "-c", load],
        "bare": [sys.executable, "-c", "import numpy"],
    }
    median_run(commands, 1)
    usages = median_run(commands, 15)
    seconds = usages["load"].seconds - usages["bare"].seconds
    return Line("serving", "calibcli.load", "time, after NumPy's import", seconds, at_most=_START)


def _arrays(folder: Path, method: str) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = read_arrays(folder)
    wide = logits.astype(np.float64)
    return (wide[:, 0] - wide[:, 1], labels == 0) if method == "platt" else (wide, labels)


def _fit(folder: Path, method: str) -> None:
    import calibcli

    logits, labels = _arrays(folder, method)
    stack = method == "stack"
    fitted = calibcli.fit(
        logits, labels, method="auto" if stack else method, stack=stack, folds=5 if stack else 0
    )
    fitted.save(folder / f"{method}.json", force=True)


def _repeated(call: Call, calls: int) -> Call:
    def timed() -> None:
        for _ in range(calls):
            call()

    return timed


def _ours(folder: Path, *, method: str, rows: int, calls: int) -> Call:
    import calibcli

    fitted = calibcli.load(folder / f"{method}.json")
    logits, _ = _arrays(folder, method)
    batch = np.ascontiguousarray(logits[:rows].reshape(rows, -1))
    return _repeated(lambda: fitted.predict_proba(batch), calls)


def _probmetrics(folder: Path, *, method: str, name: str, rows: int, calls: int) -> Call:
    import torch
    from probmetrics.calibrators import get_calibrator
    from probmetrics.distributions import CategoricalLogits

    torch.set_num_threads(1)
    logits, labels = _arrays(folder, method)
    if logits.ndim == 1:
        logits = np.stack((np.zeros_like(logits), logits), axis=1)
    calibrator = get_calibrator(name)
    calibrator.fit_torch(
        CategoricalLogits(torch.from_numpy(logits)), torch.from_numpy(labels.astype(np.int64))
    )
    batch = torch.from_numpy(logits[:rows])
    return _repeated(
        lambda: calibrator.predict_proba_torch(CategoricalLogits(batch)).get_probs(), calls
    )


def _scikit_learn(folder: Path, *, method: str, name: str, rows: int, calls: int) -> Call:
    """`CalibratedClassifierCV` around a model that gives the logits as they are."""
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    class Given(ClassifierMixin, BaseEstimator):
        def fit(self, rows: Any, labels: Any) -> Any:
            self.classes_ = np.unique(labels)
            return self

        def decision_function(self, rows: Any) -> Any:
            return rows[:, 0] if rows.shape[1] == 1 else rows

        def predict(self, rows: Any) -> Any:
            return self.classes_[(rows > 0)[:, 0] * 1 if rows.shape[1] == 1 else rows.argmax(1)]

    logits, labels = _arrays(folder, method)
    logits = logits.reshape(len(logits), -1)
    model = FrozenEstimator(Given().fit(logits, labels))
    calibrated = CalibratedClassifierCV(model, method=name).fit(logits, labels)
    batch = logits[:rows]
    return _repeated(lambda: calibrated.predict_proba(batch), calls)


_PEERS: dict[str, dict[str, Any]] = {
    method: {
        library: partial(peer, method=method, name=name)
        for library, peer, name in (
            ("scikit-learn", _scikit_learn, of_scikit_learn),
            ("probmetrics", _probmetrics, of_probmetrics),
        )
        if name
    }
    for method, of_scikit_learn, of_probmetrics in (
        ("temperature", "temperature", "temp-scaling"),
        ("platt", "sigmoid", "platt"),
        ("isotonic", "isotonic", "isotonic"),
        ("svs", "", "svs"),
    )
}
"""The same method of others; scikit-learn has no svs, and nobody a stack."""
