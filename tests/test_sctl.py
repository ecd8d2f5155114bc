"""The page on losses has the figures of the benchmark that sets them beside the official ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

# Last, so that no module there hides a package.
sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import sctl

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "losses.md").read_text("utf-8")


@pytest.mark.parametrize("network", ["densenet40", "resnet110"])
def test_the_page_has_the_figures_of_the_benchmark(shared_data, monkeypatch, network) -> None:
    """Of the calibrators that are fitted in a moment; the command compares them all."""
    quick = {name: sctl.CALIBRATORS[name] for name in ("TS", "ETS", "CTS")}
    monkeypatch.setattr(sctl, "CALIBRATORS", quick)
    monkeypatch.setattr(sctl, "OURS", {})
    logs = json.loads(sctl.VECTORS.read_text("utf-8"))["sctl_official_logs_ece_acc_percent"]
    folder = shared_data / "data" / f"sctl_{network}_cifar10lt"
    rows = list(sctl.rows_of(folder, logs[f"{network}_c10_LT"]))
    assert len(rows) == len(quick)
    assert sctl.compared(rows, PAGE) == []


def test_a_figure_that_is_other_is_told() -> None:
    shown = sctl.figures_of(PAGE)
    assert len(shown) == 2 * len({**sctl.CALIBRATORS, **sctl.OURS})
    row = ["densenet40", "TS", *(f"{each:.2f}" for each in shown["densenet40", "TS"])]
    assert sctl.compared([row], PAGE) == []
    row[2] = f"{float(row[2]) + 2 * sctl.TOLERANCE:.2f}"
    (told,) = sctl.compared([row], PAGE)
    assert told.startswith("densenet40 TS: the page has")
    assert sctl.compared([row], "no table") != []
