"""Links: the true probabilities come back from those that an improper loss asks for."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, root

import calibcli
from calibcli.arrays import log_softmax
from calibcli.calibrators.links import Link, link_of
from calibcli.calibrators.registry import CALIBRATORS, MAPS, read_calibrator
from calibcli.errors import ParamsError
from calibcli.objectives.base import Objective
from calibcli.objectives.bsce import BsceGra
from calibcli.objectives.dual_focal import DualFocalGra
from calibcli.objectives.focal import Focal, FocalGra, InverseFocal
from calibcli.objectives.label_smoothing import SMALLEST_SHARE, LabelSmoothing
from calibcli.objectives.registry import OBJECTIVES

LINKED: list[Objective] = [
    Focal(0.0),
    Focal(0.5),
    Focal(3.0),
    InverseFocal(1.0),
    InverseFocal(2.0),
    FocalGra(1.0),
    FocalGra(3.0),
    BsceGra(2.0, 1),
    BsceGra(1.0, 2),
    BsceGra(2.0, 2),
    DualFocalGra(2.0),
    LabelSmoothing(0.05),
    LabelSmoothing(0.2),
]
each_loss = pytest.mark.parametrize(
    "objective", LINKED, ids=[f"{o.name}-{list(o.options().values())}" for o in LINKED]
)
ORDERED = [o for o in LINKED if o.name != "dual-focal-gra" and o != InverseFocal(2.0)]


def link(objective: Objective) -> Link:
    found = link_of(objective)
    assert found is not None
    return found


def expected(objective: Objective, logits: Any, eta: Any) -> tuple[float, Any]:
    """Expected loss and its gradient at logits (K,), for labels drawn from eta (K,)."""
    classes = len(eta)
    terms = objective.terms(np.tile(logits, (classes, 1)), np.arange(classes))
    return float(eta @ terms.loss), eta @ terms.gradient()


def asked_for(objective: Objective, eta: Any) -> Any:
    """Logits (K,) that minimise the expected loss, or solve the estimating equation."""
    start = np.log(eta)
    if objective.estimating:
        # The equation has a redundant component; the sum of the logits takes its place.
        solved = root(lambda z: expected(objective, z, eta)[1] + 0.01 * z.mean(), start, tol=1e-13)
        assert np.abs(expected(objective, solved.x, eta)[1]).max() < 1e-9
        return solved.x
    solved = minimize(
        lambda z: expected(objective, z, eta), start, jac=True, method="BFGS", tol=1e-10
    )
    return solved.x


@each_loss
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_true_probabilities_come_back(objective: Objective, classes: int) -> None:
    rng = np.random.default_rng(classes)
    for eta in rng.dirichlet(np.full(classes, 2.0), 6):
        logits = asked_for(objective, eta)
        found = np.exp(link(objective).log_probs(logits[None])[0])
        np.testing.assert_allclose(found, eta, atol=1e-5)


@each_loss
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 20.0))
@settings(max_examples=20)
def test_the_link_undoes_the_gradient(objective: Objective, seed: int, scale: float) -> None:
    """Whatever the logits, the expected gradient vanishes under the probabilities of the link."""
    logits = scale * np.random.default_rng(seed).standard_normal((1, 5))
    if objective.name == "label-smoothing":
        logits = np.log(0.3 * np.exp(log_softmax(logits)) + 0.7 / 5)  # none below its floor
    eta = np.exp(link(objective).log_probs(logits))[0]
    _, gradient = expected(objective, logits[0], eta)
    assert np.abs(gradient).max() < 1e-9
    assert eta.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("objective", ORDERED, ids=str)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=20)
def test_the_order_of_the_classes_is_kept(objective: Objective, seed: int) -> None:
    logits = 3 * np.random.default_rng(seed).standard_normal((50, 6))
    moved = link(objective).log_probs(logits)
    np.testing.assert_array_equal(np.argsort(moved), np.argsort(logits))


@each_loss
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturated_and_impossible_classes(objective: Objective, dtype: Any) -> None:
    logits = np.array(
        [
            [1e4, 0.0, 0.0, 0.0],
            [-1e4, 0.0, 0.0, 1.0],
            [1e4, 1e4, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0],
            [1.0, 0.0, -np.inf, 2.0],
            [-np.inf, 0.0, -np.inf, 20.0],
            [-np.inf, 3.0, -np.inf, -np.inf],
        ],
        dtype,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = link(objective).log_probs(logits)
    assert moved.dtype == dtype
    assert not np.isnan(moved).any()
    np.testing.assert_array_equal(np.isinf(moved), np.isinf(logits))
    np.testing.assert_allclose(np.exp(moved).sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.exp(moved[3]), 0.25, rtol=1e-6)
    np.testing.assert_allclose(np.exp(moved[2, :2]), 0.5, rtol=1e-6)
    alone = link(objective).log_probs(logits[4:5, [0, 1, 3]])
    np.testing.assert_allclose(moved[4:5, [0, 1, 3]], alone, rtol=1e-6)
    np.testing.assert_allclose(link(objective).log_probs(logits[:5] + 7), moved[:5], atol=1e-5)


@each_loss
def test_tensors(objective: Objective) -> None:
    torch = pytest.importorskip("torch")
    logits = 4 * np.random.default_rng(0).standard_normal((30, 5))
    tensors = link(objective).log_probs(torch.tensor(logits)).numpy()
    np.testing.assert_allclose(tensors, link(objective).log_probs(logits), atol=1e-12)


@each_loss
def test_float32_and_memory_order(objective: Objective) -> None:
    logits = 4 * np.random.default_rng(0).standard_normal((30, 5))
    exact = link(objective).log_probs(logits)
    turned = np.asfortranarray(logits.astype(np.float32))
    np.testing.assert_allclose(link(objective).log_probs(turned), exact, atol=2e-4)


def test_a_focal_link_sharpens_even_a_certain_row() -> None:
    """The most probable class has a probability that rounds to 1; the rest still moves."""
    logits = np.array([[40.0, 0.0, 0.0]], np.float32)
    moved = Link("focal-gra", {"gamma": 3.0}).log_probs(logits)
    np.testing.assert_allclose(moved[0, 1], -40 - 3 * (40 - np.log(2)), rtol=1e-5)


def test_classes_below_the_floor_of_label_smoothing_keep_a_share_and_their_order() -> None:
    probs = np.array([[0.97, 0.029, 0.0007, 0.0003]])
    moved = np.exp(Link("label-smoothing", {"smoothing": 0.05}).log_probs(np.log(probs)))
    kept = (probs[0, :2] - 0.0125) / 0.95
    np.testing.assert_allclose(moved[0, 2] / moved[0, 3], 7 / 3)
    np.testing.assert_allclose(moved[0, :2], kept / (kept.sum() + 0.001 * SMALLEST_SHARE / 0.95))


def test_losses_say_whether_they_have_a_link() -> None:
    linked = {name for name, family in OBJECTIVES.items() if link_of(family()) is not None}
    assert linked == {objective.name for objective in LINKED}
    assert link_of(FocalGra(adaptive_gamma=True)) is None
    assert link_of(BsceGra(adaptive_gamma=True)) is None
    assert link_of(InverseFocal(3.6)) is None
    assert link_of(Focal(1001.0)) is None


@each_loss
def test_a_parameter_file_holds_it(objective: Objective) -> None:
    stage = link(objective)
    assert CALIBRATORS["link"] is Link
    assert read_calibrator(Link.kind, stage.parameters(), 5) == stage
    assert objective.name in stage.summary()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"loss": "nll"}, "no link for loss 'nll'"),
        ({}, "no link for loss None"),
        ({"loss": "focal"}, "'gamma' is missing"),
        (
            {"loss": "focal", "gamma": -1.0},
            "focal.gamma is -1.0; it must be a number of at least 0",
        ),
        ({"loss": "focal", "gamma": 1001.0}, "focal has no link for gamma 1001"),
        ({"loss": "focal", "gamma": "3"}, "gamma must be a number"),
        ({"loss": "focal", "gamma": 3.0, "beta": 1.0}, "unknown parameter 'beta'"),
        ({"loss": "inverse-focal", "gamma": 4.0}, "inverse-focal has no link for gamma 4"),
        ({"loss": "bsce-gra", "gamma": 2.0, "norm": 3}, "norm is 3.0; it must be one of 1, 2"),
        (
            {"loss": "label-smoothing", "smoothing": 1.0},
            "smoothing is 1.0; it must be a number from 0 to",
        ),
        ({"loss": ["focal"], "gamma": 3.0}, "no link for loss"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters: Any, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        read_calibrator(Link.kind, parameters, 5)


ORDERED = [name for name, kind in OBJECTIVES.items() if kind().link() is not None]


@pytest.mark.parametrize("name", ORDERED)
def test_a_link_keeps_the_order_where_it_says_so(name: str) -> None:
    random = np.random.default_rng(5)
    scale = random.choice([0.1, 1.0, 5.0, 30.0], (4000, 1))
    logits = scale * random.standard_normal((4000, 5))
    mapped = link_of(OBJECTIVES[name]()).logits(logits)
    order = np.argsort(logits, axis=1)
    rises = np.diff(np.take_along_axis(mapped, order, axis=1), axis=1) >= -1e-9
    keeps = link_of(OBJECTIVES[name]()).preserves == "order"
    assert keeps or name in ("dual-focal-gra", "inverse-focal")
    assert rises.all() == keeps


@pytest.mark.parametrize("name", MAPS)
def test_what_a_method_preserves_is_what_its_fits_do(name: str) -> None:
    random = np.random.default_rng(6)
    logits = 3 * random.standard_normal((300, 2 if MAPS[name].binary_only else 4))
    labels = (logits / 2 + random.gumbel(size=logits.shape)).argmax(axis=1)
    options = {f"{name}.restarts": 1} if hasattr(MAPS[name], "restarts") else {}
    fit = calibcli.fit(logits, labels, method=name, folds=0, options=options)
    assert fit.outcome.preserves == MAPS[name].preserves == fit.params.fit["preserves"]


def test_a_link_that_mixes_the_order_up_is_said(tmp_path, calib_here) -> None:
    random = np.random.default_rng(7)
    logits = 2 * random.standard_normal((600, 5))
    labels = (logits / 3 + random.gumbel(size=logits.shape)).argmax(axis=1)
    linked = calibcli.fit(logits, labels, loss="dual-focal-gra", folds=0)
    assert linked.outcome.preserves == "nothing"
    assert any("predictions may change (--no-link" in note for note in linked.outcome.notes)
    changed = linked.predict_proba(logits).argmax(axis=1) != logits.argmax(axis=1)
    assert changed.any()
    raw = calibcli.fit(logits, labels, loss="dual-focal-gra", link=False, folds=0)
    assert raw.outcome.preserves == "order"
    linked.save(tmp_path / "linked.json")
    _, out, _ = calib_here("inspect", str(tmp_path / "linked.json"))
    assert "preserves  nothing" in out
