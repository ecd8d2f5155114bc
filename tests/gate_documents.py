"""Documents to judge by gates."""

from __future__ import annotations

import math
from typing import Any

import pytest

from calibcli.report.gate_results import add_gates
from calibcli.workflow.conditions import parse_gate
from calibcli.workflow.verdict import Verdict


def entry(value: float | None, low: float = math.nan, high: float = math.nan) -> dict[str, Any]:
    known = {} if math.isnan(low) else {"low": low, "high": high}
    return {"value": value, **known}


def evaluated(name: str = "test.npz", **metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "command": "evaluate",
        "input": {"name": name, "kind": "logits", "files": [name]},
        "params": None,
        "seen": None,
        "verdict": Verdict("none").stored(),
        "rows": 3,
        "weight": 3.0,
        "classes": 2,
        "view": "top",
        "positive": None,
        "metrics": metrics or {"ece": entry(0.03, 0.02, 0.05), "nll": entry(math.inf)},
        "reliability": [],
    }


def judged(document: dict[str, Any], *texts: str, **options: Any) -> dict[str, Any]:
    add_gates(document, [parse_gate(text) for text in texts], **options)
    return document


def families(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Samples by family and labels, as the reference parser reads them."""
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    return {
        family.name: {tuple(s.labels.values()): s.value for s in family.samples}
        for family in parser.text_string_to_metric_families(text)
    }
