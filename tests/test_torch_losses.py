"""Objectives as losses of a training loop: values, gradients, precisions, options, errors."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from objective_oracles import label_of, learnt, oracle, variants
from test_objectives_vectors import CASES, OVER_CLASSES

from calibcli import torch_losses
from calibcli.errors import DataError, UsageError
from calibcli.objectives.base import Objective
from calibcli.objectives.registry import OBJECTIVES
from calibcli.torch_losses import LOSSES, Loss, StatefulLoss, SteeredLoss

CLASSES = 6
LEARNING_FROM_BATCHES = ["macro", "class-wise", "mmce", "aurc"]
# They ask whether there are impossible classes.
WITH_DISTANCES = ["cals", "cals-hr", "mbls", "acls", "label-smoothing"]

each_loss = pytest.mark.parametrize("name", LOSSES)
each_variant = pytest.mark.parametrize(
    "objective", variants(CLASSES), ids=[label_of(objective) for objective in variants(CLASSES)]
)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
    ),
]


def batch(rows: int = 60, classes: int = CLASSES, seed: int = 0) -> tuple[Any, Any]:
    """Logits, float64, that want a gradient, and labels with every class among them."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)])
    logits = 3 * rng.standard_normal((rows, classes))
    logits[np.arange(rows), labels] += 2
    return torch.tensor(logits, requires_grad=True), torch.tensor(labels)


def module_of(objective: Objective, **options: Any) -> Loss:
    """The loss with an objective's options, and its state if that is not learnt from the batch."""
    loss = torch_losses.loss(objective.name, **objective.options(), **options)
    if isinstance(loss, SteeredLoss):
        loss.objective = objective
    return loss


def value_and_gradient(loss: Loss, logits: Any, labels: Any) -> tuple[Any, Any]:
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, labels)
    value.backward()
    return value.detach(), leaf.grad


# Values and gradients


def test_every_objective_is_a_loss_under_the_name_of_its_class() -> None:
    assert list(LOSSES) == list(OBJECTIVES)
    for name, module in LOSSES.items():
        assert module.family is OBJECTIVES[name]
        assert module is getattr(torch_losses, OBJECTIVES[name].__name__)
        assert module.__name__ in torch_losses.__all__


@each_variant
def test_value_and_gradient_are_those_that_autograd_finds(objective: Objective) -> None:
    logits, labels = batch()
    expected = oracle(objective, logits.detach().numpy(), labels.numpy())
    value, gradient = value_and_gradient(module_of(objective, reduction="sum"), logits, labels)
    assert float(value) == pytest.approx(expected[0], rel=1e-11)
    np.testing.assert_allclose(gradient, expected[1], rtol=0, atol=1e-10)
    value, gradient = value_and_gradient(module_of(objective), logits, labels)
    assert float(value) == pytest.approx(expected[0] / len(labels), rel=1e-11)
    np.testing.assert_allclose(gradient, expected[1] / len(labels), rtol=0, atol=1e-11)


@each_variant
def test_losses_of_rows_are_the_objectives(objective: Objective) -> None:
    logits, labels = batch()
    losses = module_of(objective, reduction="none")(logits, labels)
    terms = learnt(objective, logits.detach(), labels).terms(logits.detach(), labels)
    torch.testing.assert_close(losses.detach(), terms.loss)
    weights = torch.linspace(-1, 2, len(labels), dtype=torch.float64)
    (weights * losses).sum().backward()
    torch.testing.assert_close(logits.grad, weights[:, None] * terms.gradient())


def published_batch(vectors: dict[str, Any]) -> tuple[Any, Any]:
    return torch.tensor(np.array(vectors["batch"]["logits"])), torch.tensor(
        vectors["batch"]["labels"]
    )


@pytest.mark.parametrize(("name", "objective", "scale"), CASES, ids=[case[0] for case in CASES])
def test_published_values_and_gradients(
    vectors: dict[str, Any], name: str, objective: Objective, scale: float
) -> None:
    loss = module_of(objective, reduction="sum")
    value, gradient = value_and_gradient(loss, *published_batch(vectors))
    assert scale * float(value) == pytest.approx(vectors["losses"][name]["value"], abs=1e-9)
    np.testing.assert_allclose(scale * gradient, vectors["losses"][name]["grad"], atol=1e-9)


@pytest.mark.parametrize("search", ["global", "local"])
def test_published_class_wise_scaling_at_the_second_call(
    vectors: dict[str, Any], search: str
) -> None:
    expected = vectors["losses"]["sctl_step1_ND_logits_div_1.05_after_step0_on_logits"]
    logits, labels = published_batch(vectors)
    loss = torch_losses.ClassWise(search=search, reduction="sum")
    loss(logits, labels)
    leaf = logits.clone().requires_grad_()
    value = OVER_CLASSES * loss(leaf / 1.05, labels)
    value.backward()
    assert float(value.detach()) == pytest.approx(expected["value"], abs=1e-9)
    np.testing.assert_allclose(leaf.grad, expected["grad"], atol=1e-9)
    shape = loss.trace()["alpha"], loss.trace()["beta"]
    np.testing.assert_allclose(shape, expected["alpha_beta_after"], atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(reduction: Any, smoothing: float) -> None:
    logits, labels = batch()
    labels[::4] = -100
    ours = torch_losses.LabelSmoothing(smoothing=smoothing, reduction=reduction)
    torchs = torch.nn.CrossEntropyLoss(reduction=reduction, label_smoothing=smoothing)
    torch.testing.assert_close(ours(logits, labels), torchs(logits, labels))
    if not smoothing:
        plain = torch_losses.NegativeLogLikelihood(reduction=reduction)
        torch.testing.assert_close(plain(logits, labels), torchs(logits, labels))


@each_loss
def test_the_gradient_is_passed_on_through_a_network(name: str) -> None:
    logits, labels = batch()
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    (3 * torch_losses.loss(name)(scale * logits.detach(), labels)).backward()
    _, gradient = value_and_gradient(torch_losses.loss(name), 0.7 * logits.detach(), labels)
    torch.testing.assert_close(scale.grad, 3 * (gradient * logits.detach()).sum())


def test_a_loss_is_differentiated_once() -> None:
    logits, labels = batch()
    loss = torch_losses.Focal()(logits, labels)
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(UsageError, match="once, not twice"):
        gradient.sum().backward()


def test_where_no_gradient_is_wanted_none_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = (part.detach() for part in batch())
    terms = type(torch_losses.Brier().objective.terms(logits, labels))
    monkeypatch.setattr(terms, "gradient", lambda _: pytest.fail("a gradient is computed"))
    assert not torch_losses.Brier()(logits, labels).requires_grad
    with torch.no_grad():
        torch_losses.Brier()(batch()[0], labels)
    with pytest.raises(pytest.fail.Exception):
        torch_losses.Brier()(batch()[0], labels)


def test_help_says_which_reduction_learning_rates_are_for() -> None:
    assert 'reduction="sum"' in (torch_losses.BsceGra.__doc__ or "")
    assert 'reduction="mean"' in (torch_losses.Cals.__doc__ or "")
    assert "reduction" not in (torch_losses.Brier.__doc__ or "")


# Rows that don't count


@each_loss
def test_ignored_rows_are_as_if_they_were_not_there(name: str) -> None:
    logits, labels = batch()
    kept = torch.arange(len(labels)) % 3 > 0
    marked = torch.where(kept, labels, 255)
    ours = value_and_gradient(torch_losses.loss(name, ignore_index=255), logits, marked)
    without = value_and_gradient(torch_losses.loss(name), logits[kept], labels[kept])
    torch.testing.assert_close(ours[0], without[0])
    torch.testing.assert_close(ours[1][kept], without[1])
    assert (ours[1][~kept] == 0).all()


@each_loss
def test_where_all_rows_are_ignored_the_loss_is_nothing(name: str) -> None:
    logits, labels = batch()
    loss = torch_losses.loss(name)
    value, gradient = value_and_gradient(loss, logits, torch.full_like(labels, -100))
    assert value == 0
    assert (gradient == 0).all()
    assert loss.objective.trace() == {} if isinstance(loss, StatefulLoss) else True


# Precisions and devices


@each_loss
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(name: str, device: str, dtype: Any) -> None:
    logits, labels = batch()
    half = logits.detach().to(device, dtype)
    value, gradient = value_and_gradient(torch_losses.loss(name), half, labels.to(device))
    single = value_and_gradient(torch_losses.loss(name), half.float(), labels.to(device))
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(value, single[0])
    torch.testing.assert_close(gradient, single[1].to(dtype))


@each_loss
@pytest.mark.parametrize("device", DEVICES)
def test_under_autocast_a_network_is_trained(name: str, device: str) -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(40, 8, device=device), torch.arange(40, device=device) % 5
    network = torch.nn.Linear(8, 5).to(device)
    loss = torch_losses.loss(name)
    with torch.autocast(device, dtype=torch.bfloat16):
        logits = network(images)
        assert logits.dtype == torch.bfloat16
        value = loss(logits, labels)
        value.backward()
    outside = torch_losses.loss(name)(logits.detach(), labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.detach(), outside)
    assert network.weight.grad is not None
    assert network.weight.grad.dtype == torch.float32
    assert network.weight.grad.abs().sum() > 0


@each_variant
@pytest.mark.parametrize("device", DEVICES)
def test_other_precisions_and_devices_agree(objective: Objective, device: str) -> None:
    logits, labels = batch()
    expected = value_and_gradient(module_of(objective), logits, labels)
    single = logits.detach().to(device, torch.float32)
    value, gradient = value_and_gradient(module_of(objective), single, labels.to(device))
    assert value.dtype == gradient.dtype == torch.float32
    assert value.device == gradient.device == single.device
    torch.testing.assert_close(value.cpu().double(), expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.cpu().double(), expected[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name", [name for name in LOSSES if name not in (*LEARNING_FROM_BATCHES, *WITH_DISTANCES)]
)
def test_most_losses_never_wait_for_a_device(name: str) -> None:
    # Tensors without data refuse to be read, and to be mixed with others.
    logits, labels = (part.detach().to("meta") for part in batch())
    loss = torch_losses.loss(name)
    if isinstance(loss, SteeredLoss):
        loss.update(*batch())
    value, gradient = value_and_gradient(loss, logits, labels)
    assert value.is_meta
    assert gradient.is_meta


@each_loss
def test_saturated_logits_give_finite_losses(name: str) -> None:
    logits, labels = batch()
    extreme = torch.where(logits.detach() > 0, 1e4, -1e4).float()
    for scale in (1.0, 1e-4):
        value, gradient = value_and_gradient(torch_losses.loss(name), scale * extreme, labels)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


@each_loss
@pytest.mark.parametrize("classes", [1, 2, 1000])
def test_absurd_logits_do_not_overflow(name: str, classes: int) -> None:
    labels = torch.arange(40) % classes
    noise = torch.randn(40, classes, generator=torch.Generator().manual_seed(0))
    for scale in (1e30, 1e4):
        loss = torch_losses.loss(name)
        logits = scale * noise.sign()
        if isinstance(loss, SteeredLoss):
            loss.update(logits, labels)
        value, gradient = value_and_gradient(loss, logits, labels)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("penalty", ["phr", "p2", "p3"])
def test_penalties_of_absurd_distances_stay_finite(penalty: Any) -> None:
    loss = torch_losses.Cals(penalty=penalty)
    logits, labels = torch.tensor([[1e30, -1e30, 0.0], [0.0, 1e30, -torch.inf]]), torch.zeros(2)
    loss.update(logits, labels.long())
    value, gradient = value_and_gradient(loss, logits, labels.long())
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@each_loss
def test_impossible_classes_get_no_gradient(name: str) -> None:
    logits, labels = (part.detach() for part in batch())
    impossible = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    impossible[torch.arange(len(labels)), labels] = False
    masked = logits.masked_fill(impossible, -torch.inf)
    value, gradient = value_and_gradient(torch_losses.loss(name), masked, labels)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert (gradient[impossible] == 0).all()


@each_loss
def test_other_integers_are_labels_too(name: str) -> None:
    logits, labels = batch()
    expected = torch_losses.loss(name)(logits, labels)
    for dtype in (torch.int32, torch.uint8):
        torch.testing.assert_close(torch_losses.loss(name)(logits, labels.to(dtype)), expected)


# Options and errors


def test_options_are_those_of_the_objective() -> None:
    assert torch_losses.loss("focal", gamma=1.5).objective == OBJECTIVES["focal"](gamma=1.5)
    assert repr(torch_losses.Focal(gamma=1.5)) == "Focal(gamma=1.5, reduction='mean')"
    shown = inspect.signature(torch_losses.Cals).parameters
    assert shown["margin"].default == 10.0
    assert shown["damped"].default is False
    shared = ["reduction", "ignore_index", "class_axis", "weight", "label_smoothing"]
    assert list(inspect.signature(torch_losses.Flsd).parameters) == shared
    assert set(shared) < set(shown)
    assert "process_group" in shown
    assert "state" not in shown


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("focl", {}, "did you mean focal"),
        (
            "focal",
            {"gama": 2.0},
            r"it has gamma \(default 3.0\), reduction, ignore_index, class_axis",
        ),
        ("nll", {"gamma": 2.0}, "it has reduction, ignore_index, class_axis"),
        ("focal", {"gamma": -1.0}, "focal.gamma is -1.0"),
        ("cals", {"penalty": "p4"}, "one of phr, p2, p3"),
        ("cals", {"state": None}, "no option 'state'"),
        ("focal", {"reduction": "average"}, "one of mean, sum, none"),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        torch_losses.loss(name, **options)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda z, y: (z[0], y), r"logits must have the shape \(n, K\), .* not \(6,\)"),
        (lambda z, y: (z[:0], y[:0]), r"not \(0, 6\)"),
        (lambda z, y: (z, y[:-1]), r"labels must have the shape \(60,\), not \(59,\)"),
        (lambda z, y: (z, torch.eye(6).long()[y]), r"not \(60, 6\)"),
        (lambda z, y: (z, torch.eye(5)[y % 5]), r"not torch.float32 \(60, 5\)"),
        (lambda z, y: (z.long(), y), "floating-point"),
        (lambda z, y: (z, y.double()), "whole numbers"),
        (lambda z, y: (z, torch.where(y == 4, 6, y)), "label 6 in row 4 is not from 0 to 5"),
        (lambda z, y: (z, torch.where(y == 3, -1, y)), "label -1 in row 3"),
    ],
)
def test_wrong_rows_are_refused(change: Any, complaint: str) -> None:
    rows = change(*batch())
    for loss in (torch_losses.Focal(), torch_losses.AdaFocal()):
        with pytest.raises(DataError, match=complaint):
            loss(*rows)
    with pytest.raises(DataError, match=complaint):
        torch_losses.Cals().update(*rows)
