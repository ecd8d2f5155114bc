"""Whole reports, letter by letter. ``CALIB_UPDATE_GOLDEN=1`` writes them anew: look at the diff."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from calibcli.metrics.bins import BINS, EDGES, Bin
from calibcli.metrics.panel import Evaluation
from calibcli.report.document import combine, evaluate_document, fit_document
from calibcli.report.formats import RENDERERS
from calibcli.report.render_terminal import print_document
from calibcli.schema.documents import Document

GOLDEN = Path(__file__).parent / "golden" / "report"


def bins(rows: list[int], accuracy: list[float]) -> tuple[Bin, ...]:
    """Bins with their confidence in the middle; the given ones are the highest."""
    empty = BINS - len(rows)
    made = []
    for b in range(BINS):
        n = rows[b - empty] if b >= empty else 0
        middle = float(EDGES[b] + EDGES[b + 1]) / 2
        filled = (middle, accuracy[b - empty]) if n else (None, None)
        made.append(Bin(float(EDGES[b]), float(EDGES[b + 1]), n, float(n), *filled))
    return tuple(made)


BEFORE = Evaluation(
    rows=1000,
    weight=1000.0,
    classes=10,
    values={
        "accuracy": 0.8412,
        "nll": 0.80125,
        "brier": 0.27,
        "ece": 0.10304,
        "adaptive_ece": 0.1029,
        "class_wise_ece": 0.00802,
        "mce": 0.33333,
        "ks": 0.1,
    },
    reliability=bins(
        [7, 0, 41, 60, 72, 90, 130, 600], [0.9, 0, 0.25, 0.4, 0.51, 0.6001, 0.7, 0.99]
    ),
)
AFTER = replace(
    BEFORE,
    values={
        **BEFORE.values,
        "nll": 0.512345,
        "brier": 0.26991,
        "ece": 0.00912,
        "adaptive_ece": 0.011,
        "class_wise_ece": 0.0091,
        "mce": float("nan"),
        "ks": 0.0001,
    },
    reliability=bins(
        [3, 50, 45, 60, 72, 90, 130, 200, 350],
        [0.5, 0.39, 0.5, 0.57, 0.64, 0.7, 0.77, 0.85, 0.967],
    ),
)
INPUT = {"name": "val.parquet", "kind": "logits", "files": ["data/val.parquet"], "picked": {}}


def fit(**changes: Any) -> Document:
    arguments: dict[str, Any] = {
        "source": {**INPUT, "absent_classes": ["owl", "[bold]emu"]},
        "rows": 5000,
        "classes": 10,
        "method": "temperature,vector",
        "loss": "nll",
        "fit": {
            "converged": True,
            "changed": True,
            "iterations": 11,
            "passes": 14,
            "seconds": 0.03149,
            "device": "cpu",
            "notes": [],
        },
        "stages": [
            {"kind": "temperature", "parameters": {"temperature": 1.3744297}},
            {"kind": "vector", "parameters": {"scale": [0.9, 1.1, 1.0], "bias": [0, -0.2, 0.2]}},
        ],
        "before": BEFORE,
        "after": AFTER,
        "measured_on": "cross-fit",
        "folds": 5,
        "params": "val.params.json",
        "output": "val.calibrated.parquet",
    }
    return fit_document(**{**arguments, **changes})


def evaluation(found: Evaluation, name: str, params: str | None = None) -> Document:
    return evaluate_document(found, source={**INPUT, "name": name}, params=params)


SURE = replace(
    BEFORE, values={**BEFORE.values, "nll": float("inf")}, reliability=bins([0, 1000], [0.0, 1.0])
)
FAILED = {
    "converged": False,
    "changed": True,
    "iterations": 1,
    "passes": 1,
    "seconds": 312.0,
    "device": "cuda:0",
    "notes": ["the classes are separable: the temperature goes to 0"],
}
DOCUMENTS: dict[str, Document] = {
    "fit": fit(),
    "fit_test": fit(measured_on="test", folds=None, test={**INPUT, "name": "test.parquet"}),
    "fit_failed": fit(fit=FAILED, stages=[], after=None, measured_on="nothing", output=None),
    "evaluate": evaluation(AFTER, "test.parquet", params="val.params.json"),
    "evaluate_two": combine([evaluation(BEFORE, "a/test.npz"), evaluation(AFTER, "b/test.npz")]),
    "evaluate_many": combine(
        [
            evaluation(found, name)
            for found, name in (
                (BEFORE, "runs/[1]/resnet110_cifar10.npz"),
                (AFTER, "runs/[2]/resnet110_cifar10.npz"),
                (SURE, "runs/sure.parquet"),
                (replace(AFTER, rows=12_345_678), "runs/large.parquet"),
                (BEFORE, "-"),
                (AFTER, "s3://bucket/val.parquet"),
            )
        ]
    ),
}


def rendered(document: Document, width: int, encoding: str) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(file=stream, width=width, color_system=None, highlight=False)
    print_document(document, console, conventions=width == 120)
    stream.flush()
    # Tables are padded to their width: blanks at the ends of lines are nobody's business.
    return "\n".join(line.rstrip() for line in raw.getvalue().decode(encoding).splitlines()) + "\n"


def compare(text: str, name: str) -> None:
    path = GOLDEN / name
    if os.environ.get("CALIB_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CALIB_ASCII", "TERM", "COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("encoding", "suffix"), [("utf-8", ""), ("ascii", "_ascii")])
@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_terminal(name: str, width: int, encoding: str, suffix: str) -> None:
    text = rendered(DOCUMENTS[name], width, encoding)
    assert max(map(len, text.splitlines())) <= width
    compare(text, f"{name}_{width}{suffix}.txt")


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("format_", ["markdown", "csv"])
def test_formats(name: str, format_: str) -> None:
    compare(RENDERERS[format_](DOCUMENTS[name]), f"{name}.{format_}")


@pytest.mark.parametrize("name", ["fit", "evaluate"])
def test_json(name: str) -> None:
    compare(RENDERERS["json"](DOCUMENTS[name]), f"{name}.json")
