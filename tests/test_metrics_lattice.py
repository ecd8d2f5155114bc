"""Statistics of more rows than are collected: sums on a lattice, close to exact and bounded."""

from __future__ import annotations

import pickle
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from calibcli.arrays import log_softmax
from calibcli.cell_sums import CellSums
from calibcli.metrics import confidence, decomposition
from calibcli.metrics.decomposition import cells_per_class
from calibcli.metrics.lattice import lattice_cells
from calibcli.metrics.panel import Panel
from calibcli.metrics.view import View

Array = np.ndarray[Any, Any]
PANEL = Panel(["all"])


def make(rows: int, classes: int, dtype: Any = np.float64) -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    logits = rng.standard_normal((rows, classes)) * 3
    labels = np.argmax(logits / 2 + rng.gumbel(size=logits.shape), axis=1)
    return log_softmax(np.asarray(logits, dtype, order="F")), labels


def states(log_probs: Array, labels: Array, weights: Array | None, cuts: Any) -> list[Any]:
    bounds = [0, *cuts, len(labels)]
    return [
        PANEL.partial(View(log_probs[a:b], labels[a:b], None if weights is None else weights[a:b]))
        for a, b in pairwise(bounds)
    ]


def evaluate(log_probs: Array, labels: Array, weights: Array | None = None, cuts: Any = ()) -> Any:
    merged = reduce(PANEL.merge, states(log_probs, labels, weights, cuts))
    return PANEL.finish(merged).values


@pytest.fixture
def on_lattice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every statistic on its lattice from 50 rows on."""
    monkeypatch.setattr(confidence, "ROWS", 50)
    monkeypatch.setattr(decomposition, "PROBABILITIES", 500)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cells", [2, 32, 4096, 1 << 14])
def test_cells_ascend_and_are_as_wide_as_said(dtype: Any, cells: int) -> None:
    rng = np.random.default_rng(0)
    small = 10.0 ** -rng.uniform(0, 12, 20_000)
    probs = np.unique(np.concatenate([small, 1 - small, rng.random(20_000), [0, 0.5, 1]]))
    probs = probs.astype(dtype)
    place = lattice_cells(probs, cells)
    assert (place[0], place[-1]) == (0, cells - 1)
    assert np.all(np.diff(place) >= 0)
    above_one = np.nextafter(dtype(1), dtype(2))
    assert lattice_cells(np.array([above_one]), cells) == cells - 1
    for cell in np.unique(place):
        inside = probs[place == cell].astype(np.float64)
        farthest = np.minimum(inside, 1 - inside).max()
        assert np.ptp(inside) <= 4 * np.sqrt(farthest / 2) / cells * 1.5 + 1e-6


def test_cells_of_classes() -> None:
    assert [cells_per_class(k) for k in (2, 64, 100, 1000, 100_000)] == [4096, 4096, 2048, 256, 32]


@pytest.mark.parametrize(("classes", "tolerance"), [(2, 2e-4), (12, 1e-4), (300, 1e-4)])
@pytest.mark.parametrize("weighted", [False, True])
def test_lattice_is_close_to_exact(
    classes: int, tolerance: float, weighted: bool, request: pytest.FixtureRequest
) -> None:
    log_probs, labels = make(3000, classes)
    weights = np.random.default_rng(1).integers(1, 4, 3000) * 1.0 if weighted else None
    exact = evaluate(log_probs, labels, weights)
    request.getfixturevalue("on_lattice")
    coarse = evaluate(log_probs, labels, weights, [1000, 2000])
    # Bins of equal mass end with a cell rather than with a row.
    loose = {"adaptive_ece": 1e-3, "adaptive_ece_published": 1e-3, "ece_sweep": 2e-3, "ks": 3e-4}
    loose |= {"l2_debiased": 1e-3, "l2_squared_debiased": 3e-4, "ecce_mad": 3e-4, "ecce_r": 3e-4}
    for name, value in exact.items():
        assert coarse[name] == pytest.approx(value, abs=loose.get(name, tolerance)), name
    assert coarse != exact


@pytest.mark.usefixtures("on_lattice")
@pytest.mark.parametrize("weighted", [False, True])
def test_partition_changes_nothing_on_the_lattice(weighted: bool) -> None:
    log_probs, labels = make(400, 7)
    weights = np.random.default_rng(1).integers(0, 3, 400) * 0.5 if weighted else None
    whole = evaluate(log_probs, labels, weights)
    for cuts in ([10, 20, 30, 390], range(1, 400), [399], [60, 61]):
        assert evaluate(log_probs, labels, weights, cuts) == pytest.approx(whole, abs=1e-12)
    # As a tree, where some states are still lists when others are not.
    parts = states(log_probs, labels, weights, range(20, 400, 20))
    while len(parts) > 1:
        parts = [reduce(PANEL.merge, parts[i : i + 2]) for i in range(0, len(parts), 2)]
    assert PANEL.finish(parts[0]).values == pytest.approx(whole, abs=1e-12)


@pytest.mark.usefixtures("on_lattice")
@pytest.mark.parametrize("weighted", [False, True])
def test_torch_has_the_same_cells(weighted: bool) -> None:
    torch = pytest.importorskip("torch")
    log_probs, labels = make(200, 7)
    weights = np.random.default_rng(1).random(200) if weighted else None
    tensors = torch.from_numpy(log_probs.copy()), torch.from_numpy(labels)
    found = PANEL.finish(PANEL.partial(View(*tensors, weights))).values
    assert found == pytest.approx(evaluate(log_probs, labels, weights), abs=1e-9)


@pytest.mark.usefixtures("on_lattice")
@pytest.mark.parametrize("classes", [3, 40])
def test_states_stay_small(classes: int) -> None:
    log_probs, labels = make(1000, classes, np.float32)
    merged = reduce(PANEL.merge, states(log_probs, labels, None, [500]))
    sizes = []
    # As if of a million rows; those of few rows may list them, which takes less.
    for _ in range(10):
        stored = pickle.dumps(merged)
        sizes.append(len(stored))
        merged = PANEL.merge(merged, pickle.loads(stored))  # noqa: S301 (our own)
    assert sizes[-1] <= sizes[-2] * 1.01
    assert max(sizes) < 20 * cells_per_class(classes) * classes + 1_000_000


def test_cell_sums_of_few_and_of_many_values() -> None:
    few = CellSums.of(np.array([1, 1, 4]), np.array([2.0, 3, 4]), 6)
    many = CellSums.of(np.array([0, 1, 1, 2, 5, 5]), None, 6)
    assert few.is_listed
    assert not many.is_listed
    assert few.everywhere().tolist() == [0, 5, 0, 0, 4, 0]
    assert few.and_also(np.array([0]), np.array([7.0])).everywhere().tolist() == [7, 5, 0, 0, 4, 0]
    assert many.plus(few).everywhere().tolist() == [1, 7, 1, 0, 4, 2]
    assert few.plus(CellSums.of(np.array([3]), None, 6)).everywhere().tolist() == [0, 5, 0, 1, 4, 0]
    assert many.and_also(np.array([0]), np.array([-1.0])).everywhere().tolist()[0] == 0
