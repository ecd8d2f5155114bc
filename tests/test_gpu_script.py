"""The script for a GPU, on torch's CPU: it runs, and fits move states to the host, not rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def gpu():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import gpu
    finally:
        sys.path.remove(str(BENCHMARKS))
    before = gpu.torch.get_num_threads()
    gpu.torch.set_num_threads(1)
    yield gpu
    gpu.torch.set_num_threads(before)


@pytest.mark.parametrize("method", ["temperature", "svs", "monotone", "gap-temperature"])
def test_a_fit_moves_states_and_no_rows_of_scores(gpu, method: str) -> None:
    rows, classes = 800, 70
    data = gpu.on("cpu:0", *gpu.draw(rows, classes, half=False))
    with gpu.Transfers() as transfers:
        gpu.fit(data, method)
    # Knots are placed by a few numbers of each row.
    assert 0 < max(transfers.elements) <= max(10 * rows, (2 * classes) ** 2)


def test_transfers_are_counted(gpu) -> None:
    tensor = gpu.torch.ones(3, 5)
    with gpu.Transfers() as transfers:
        _ = tensor.cpu(), tensor.sum().item(), bool(tensor[0, 0] > 0), np.asarray(tensor)
    assert transfers.elements[:3] == [15, 1, 1]
    assert max(transfers.elements[3:]) == 15


def test_the_table_has_every_comparison_and_says_what_was_left_out(gpu, monkeypatch) -> None:
    monkeypatch.setattr(gpu, "METHODS", ("temperature", "svs"))
    assert gpu.check("cpu:0") == []
    bench = gpu.Bench("cpu:0", gpu.time.monotonic() + 600)
    gpu.table_of(bench, 60, 1200, half=True)
    whats = [row.what for row in bench.rows]
    assert whats[:3] == ["x.sum()", "temperature", "svs"]
    assert all(row.plain for row in bench.rows if row.what == "temperature")
    bench.deadline = 0.0
    gpu.table_of(bench, 10, 3, half=False)
    text = gpu.report(bench)
    assert "60 x 1,200, float16" in text
    assert "no time was left for: 10 x 3, float32" in text


def test_one_file_holds_all_that_it_needs(gpu, tmp_path: Path) -> None:
    gpu.bundle(tmp_path / "gpu.pyz")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "gpu.pyz"), "--help"], capture_output=True, check=True
    )
    assert b"--bundle" in done.stdout
