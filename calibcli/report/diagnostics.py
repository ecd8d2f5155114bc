"""Tests of calibration, and calibration and refinement: for the document and for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from calibcli.metrics.hypothesis_tests import TestResult
from calibcli.metrics.registry import METRICS
from calibcli.report.texts import INTERVAL_HEADING, interval_text, p_value, significant

if TYPE_CHECKING:
    from calibcli.workflow.refit import Refit

TEST_HEADINGS = ("test", "estimate", "statistic", "p")
TEST_CAPTION = (
    "A small p speaks against calibration. The last line answers for all: 5 in 100 calibrated "
    "models have it below 0.05; one of the others is below it more often."
)
REFIT_HEADINGS = ("", "score", "calibration", INTERVAL_HEADING, "refinement")


def tests_document(results: Sequence[TestResult]) -> list[dict[str, Any]]:
    """The tests as the document has them."""
    return [asdict(result) for result in results]


def refit_document(found: Refit) -> dict[str, Any]:
    """Scores in their parts as the document has them."""
    scores = {}
    for name, part in found.parts.items():
        calibration = {"value": part.calibration}
        calibration |= part.interval._asdict() if part.interval else {}
        scores[name] = {
            "value": part.score,
            "calibration": calibration,
            "refinement": part.refinement,
        }
    return {"method": found.method, "folds": found.folds, "scores": scores}


def test_rows(tests: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A row of texts for each test, as `TEST_HEADINGS` name them."""
    rows = []
    for test in tests:
        error = f" ± {significant(test['error'])}" if test["error"] is not None else ""
        degrees = f" ({test['degrees']} df)" if test["degrees"] else ""
        rows.append(
            [
                test["title"],
                "" if test["estimate"] is None else significant(test["estimate"]) + error,
                test["note"] or significant(test["statistic"], missing="") + degrees,
                "" if test["note"] else p_value(test["p"]),
            ]
        )
    return rows


def refit_rows(refit: dict[str, Any]) -> list[list[str]]:
    """A row of texts for each score, as `REFIT_HEADINGS` name them."""
    rows = []
    for name, part in refit["scores"].items():
        known, calibration = METRICS.get(name), part["calibration"]
        rows.append(
            [
                known.title if known else name,
                significant(part["value"]),
                significant(calibration["value"]),
                interval_text(calibration),
                significant(part["refinement"]),
            ]
        )
    return rows


def refit_caption(refit: dict[str, Any]) -> str:
    """What the parts mean."""
    return (
        f"calibration: what {refit['method']} takes away, fitted to other rows "
        f"({refit['folds']} folds); refinement: what it leaves."
    )
