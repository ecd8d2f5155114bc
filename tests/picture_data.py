"""Measurements to draw, for the tests of pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from calibcli.metrics.diagrams import (
    CONFIDENCE_LATTICE,
    EVENT_LATTICE,
    PREDICTED_CLASSES,
    KeyDiagrams,
)
from calibcli.metrics.panel import Evaluation, Panel
from calibcli.metrics.slices import SliceSums, read_slices
from calibcli.metrics.view import View
from calibcli.report.document import combine, evaluate_document, fit_document, slices_part
from calibcli.report.plot_data import Picture

Array = np.ndarray[Any, Any]
PANEL = Panel(also=(CONFIDENCE_LATTICE, EVENT_LATTICE, PREDICTED_CLASSES))
FILES = [{"role": "fit", "path": "val.npz", "bytes": 1234, "sha256": "0f" * 32}]
MADE_WITH = {"calib": "1.0", "seed": "0"}


def calibrated(rows: int, classes: int, seed: int = 0, spread: float = 2.5) -> tuple[Array, Array]:
    """Logits (n, K) and labels (n,) drawn from their probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((rows, classes)) * spread
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = probs.cumsum(axis=1) / probs.sum(axis=1, keepdims=True)
    return logits, (rng.random((rows, 1)) > shares).sum(axis=1).clip(max=classes - 1)


def evaluate(logits: Array, labels: Array, weights: Array | None = None) -> Evaluation:
    return PANEL.finish(PANEL.partial(View(logits, labels, weights)))


def source(name: str) -> dict[str, Any]:
    return {"name": name, "kind": "logits", "files": [name], "picked": {}, "absent_classes": []}


def picture(
    title: str, part: dict[str, Any], found: Evaluation, names: tuple[str, ...] | None = None
) -> Picture:
    lattice, classes = found.also[CONFIDENCE_LATTICE], found.also[PREDICTED_CLASSES]
    return Picture(title, part, lattice, classes, names, event=found.also[EVENT_LATTICE])


def fitted(
    rows: int = 600, classes: int = 10, names: tuple[str, ...] | None = None
) -> tuple[dict[str, Any], list[Picture]]:
    """The document of a fit, and the pictures of before and after."""
    logits, labels = calibrated(rows, classes)
    before, after = evaluate(logits * 1.6, labels), evaluate(logits, labels)
    work = {
        "converged": True,
        "changed": True,
        "iterations": 3,
        "passes": 4,
        "seconds": 0.1,
        "device": "cpu",
        "notes": [],
    }
    document = fit_document(
        source=source("val.npz"),
        rows=rows,
        classes=classes,
        method="temperature",
        loss="nll",
        fit={**work, "notes": []},
        stages=[{"kind": "temperature", "parameters": {"temperature": 1.6}}],
        before=before,
        after=after,
        measured_on="cross-fit",
        folds=5,
    )
    pairs = [("before", before), ("after", after)]
    return document, [picture(n, document[n], found, names) for n, found in pairs]


def evaluated(
    *inputs: str, rows: int = 600, classes: int = 10
) -> tuple[dict[str, Any], list[Picture]]:
    """The document of an evaluation, and the pictures of its inputs."""
    documents, found = [], []
    for number, name in enumerate(inputs):
        logits, labels = calibrated(rows, classes, number)
        found.append(evaluate(logits * (0.7 + 0.4 * number), labels))
        documents.append(evaluate_document(found[-1], source=source(name)))
    pictures = [
        picture(name, part, one) for name, part, one in zip(inputs, documents, found, strict=True)
    ]
    return combine(documents), pictures


def rare(
    rows: int = 3000, slices: int = 3, shift: float = 5.0, *, top: bool = False
) -> tuple[dict[str, Any], list[Picture]]:
    """The document of an evaluation of a rare class by a column, and its picture."""
    rng = np.random.default_rng(3)
    score = rng.standard_normal(rows) - shift
    logits = np.stack([np.zeros(rows), score], axis=1)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-0.8 * score))).astype(int)
    by = rng.integers(0, slices, rows)
    names = tuple(f"part {place}" for place in range(slices))
    sums, bins = SliceSums(slices, "by"), KeyDiagrams(slices, "by")
    panel = Panel(also=(*PANEL.also, sums, bins))
    view = View(logits, labels, keys={"by": by}, event="top" if top else "auto")
    found = panel.finish(panel.partial(view))
    document = evaluate_document(found, source=source("val.npz"), class_names=("ok", "fraud"))
    document["slices"] = [slices_part(read_slices(found.also[sums], names, 0), "site")]
    drawn = picture("val.npz", document, found, ("ok", "fraud"))
    return document, [replace(drawn, slices=found.also[bins], slice_names=names)]


def sliced(rows: int = 600, slices: int = 3, seed: int = 0) -> tuple[dict[str, Any], list[Picture]]:
    """The document of an evaluation by a column, and its picture; the second slice is wrong."""
    logits, labels = calibrated(rows, 4, seed)
    by = np.random.default_rng(seed).integers(0, slices, rows)
    logits[by == 1] *= 4
    names = ("a", "b", "<c>") if slices == 3 else tuple(f"part {place}" for place in range(slices))
    sums, bins = SliceSums(slices, "by"), KeyDiagrams(slices, "by")
    panel = Panel(also=(*PANEL.also, sums, bins))
    found = panel.finish(panel.partial(View(logits, labels, keys={"by": by})))
    document = evaluate_document(found, source=source("val.npz"))
    document["slices"] = [slices_part(read_slices(found.also[sums], names, 0), "<site>")]
    drawn = picture("val.npz", document, found)
    return document, [replace(drawn, slices=found.also[bins], slice_names=names)]
