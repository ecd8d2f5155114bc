"""The same mathematics on torch tensors, as on a GPU; torch's CPU stands in for it here."""

from __future__ import annotations

import numpy as np
import pytest

from calibcli.calibrators.base import SmoothMap
from calibcli.calibrators.registry import MAPS
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.engine.source import ArraySource
from calibcli.metrics.panel import Panel
from calibcli.objectives.registry import OBJECTIVES
from calibcli.workflow.applying import calibrated_chunks
from calibcli.workflow.fitting import fit_and_measure
from calibcli.workflow.plans import make_plan

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _one_thread():
    """Small blocks gain nothing from torch's own threads, and lose much where cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


DEVICES = [
    "cpu:0",
    pytest.param(
        "cuda:0", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
    ),
]


# The network of parameterized temperatures is slow to fit; see the test of its own.
METHODS = [name for name in MAPS if name not in ("matrix", "parameterized-temperature")]


def source(classes: int = 5, kind: str = "logits", *, masked: bool = False) -> ArraySource:
    rng = np.random.default_rng(0)
    logits = (3 * rng.standard_normal((1500, classes))).astype(np.float32)
    labels = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    weights = rng.random(1500)
    if masked:
        mask = rng.random(logits.shape) < 0.1
        mask[np.arange(1500), labels] = False
        logits[mask] = -np.inf
    if kind == "probs":
        logits = np.exp(logits)
        logits /= logits.sum(axis=1, keepdims=True)
    return ArraySource(logits, labels, weights, kind)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("method", "loss"),
    [
        *((method, "nll") for method in METHODS),
        *((method, "brier") for method in METHODS if issubclass(MAPS[method], SmoothMap)),
        *(("temperature", loss) for loss in ("class-wise", "bsce-gra", "mmce", "cals")),
        ("vector", "class-wise"),
        ("vector", "focal-gra"),
    ],
)
def test_fits_and_figures_are_those_of_numpy(method: str, loss: str, device: str) -> None:
    rows = source(2 if MAPS[method].binary_only else 5)
    plan = make_plan(method, loss)
    there, here = (
        fit_and_measure(open_data(engine, rows, folds=5), plan, Panel())
        for engine in (Engine(device=device), Engine())
    )
    assert there.fit.converged
    assert there.after.values == pytest.approx(here.after.values, abs=1e-5)
    assert there.before.values == pytest.approx(here.before.values, abs=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("kind", "masked"), [("logits", True), ("probs", False)])
@pytest.mark.parametrize("method", ["temperature", "vector", "ensemble-temperature"])
def test_other_inputs(method: str, kind: str, masked: bool, device: str) -> None:
    rows = source(kind=kind, masked=masked)
    plan = make_plan(method)
    probs = []
    for engine in (Engine(device=device), Engine()):
        outcome = fit_and_measure(open_data(engine, rows), plan, Panel())
        parts = calibrated_chunks(engine, rows, rows.chunks(700), outcome.fit.calibrators)
        probs.append(np.concatenate([part.probs for part in parts]))
    np.testing.assert_allclose(probs[0], probs[1], atol=1e-5)
    if masked:
        assert (probs[0][np.isneginf(rows.scores)] == 0).all()


@pytest.mark.parametrize("device", DEVICES)
def test_rows_that_do_not_fit_on_the_device_are_streamed(device: str, monkeypatch) -> None:
    rows = source()
    plan = make_plan("temperature")
    whole = fit_and_measure(open_data(Engine(device=device), rows), plan, Panel())
    monkeypatch.setattr("calibcli.engine.engine.device_memory", lambda _: 1000)
    streamed = fit_and_measure(open_data(Engine(device=device), rows), plan, Panel())
    assert streamed.fit.calibrators == whole.fit.calibrators


@pytest.mark.parametrize("name", ["nll", "brier"])
def test_gradients_are_those_of_autograd(name: str) -> None:
    objective = OBJECTIVES[name]()
    rng = np.random.default_rng(1)
    logits = torch.tensor(2 * rng.standard_normal((50, 6)), requires_grad=True)
    labels = torch.tensor(rng.integers(0, 6, 50))
    terms = objective.terms(logits, labels)
    (expected,) = torch.autograd.grad(terms.loss.sum(), logits, create_graph=True)
    with torch.no_grad():
        found = objective.terms(logits.detach(), labels)
        np.testing.assert_allclose(found.gradient(), expected.detach(), atol=1e-10)
        direction = torch.tensor(rng.standard_normal((50, 6)))
        product = found.product(direction)
    if product is not None:
        (curved,) = torch.autograd.grad((expected * direction).sum(), logits)
        np.testing.assert_allclose(product, curved, atol=1e-10)
        first, second = found.along(direction)
        np.testing.assert_allclose(first, (expected.detach() * direction).sum(-1), atol=1e-10)
        np.testing.assert_allclose(second, (curved * direction).sum(-1), atol=1e-10)
