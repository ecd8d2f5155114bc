"""Losses of images, sequences, distributions and weights, compiled ones, streams and processes."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_torch_losses import LEARNING_FROM_BATCHES, batch, each_loss, value_and_gradient
from torch.nn.functional import cross_entropy

from calibcli import torch_losses
from calibcli.errors import UsageError
from calibcli.torch_losses import Loss, SteeredLoss

ROW_LOSSES = [name for name in torch_losses.LOSSES if name not in LEARNING_FROM_BATCHES]
STEERED = ["cals", "cals-hr", "adafocal"]

each_row_loss = pytest.mark.parametrize("name", ROW_LOSSES)


def images() -> tuple[Any, Any]:
    """Logits (2, 6, 5, 6), float32, and labels (2, 5, 6), some of them ignored."""
    logits, labels = (part.detach() for part in batch())
    logits, labels = logits.float().reshape(2, 5, 6, 6), labels.reshape(2, 5, 6).clone()
    labels[0, 0] = -100
    return logits.movedim(-1, 1).contiguous(), labels


# Shapes


@each_loss
def test_pixels_and_tokens_are_the_flattened_rows_bit_for_bit(name: str) -> None:
    logits, labels = images()
    rows = logits.movedim(1, -1).reshape(-1, 6)
    expected, gradient = value_and_gradient(torch_losses.loss(name), rows, labels.reshape(-1))
    for shaped, axis in (
        (logits, 1),
        (logits.flatten(2), 1),
        (rows.reshape(2, 30, 6), -1),
        (rows.reshape(2, 5, 6, 6), 3),
    ):
        shape = [size for place, size in enumerate(shaped.shape) if place != axis % shaped.ndim]
        loss = torch_losses.loss(name, class_axis=axis)
        value, of_shaped = value_and_gradient(loss, shaped, labels.reshape(shape))
        assert torch.equal(value, expected)
        assert torch.equal(of_shaped.movedim(axis, -1).reshape(-1, 6), gradient)


@pytest.mark.parametrize("name", ["nll", "cals", "adafocal", "bsce-gra", "class-wise", "aurc"])
def test_images_of_many_pixels_are_the_flattened_rows_bit_for_bit(name: str) -> None:
    # More elements than are computed at once, and images that end within those that are.
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(5, 7, 101, 100, generator=generator)
    labels = torch.randint(7, (5, 101, 100), generator=generator)
    labels[1, :3] = -100
    assert logits.numel() > 1 << 18
    value, gradient = value_and_gradient(torch_losses.loss(name), logits, labels)
    rows = logits.movedim(1, -1).reshape(-1, 7)
    expected, of_rows = value_and_gradient(torch_losses.loss(name), rows, labels.reshape(-1))
    assert torch.equal(value, expected)
    assert torch.equal(gradient.movedim(1, -1).reshape(-1, 7), of_rows)
    assert gradient.is_contiguous()
    # Halves, each of which is computed at once, together.
    half = 2 * 101 * 100
    losses = torch_losses.loss(name, reduction="sum")
    if name not in LEARNING_FROM_BATCHES:
        first, of_first = value_and_gradient(losses, rows[:half], labels.reshape(-1)[:half])
        rest, of_rest = value_and_gradient(losses, rows[half:], labels.reshape(-1)[half:])
        total, of_all = value_and_gradient(losses, rows, labels.reshape(-1))
        torch.testing.assert_close(first + rest, total)
        torch.testing.assert_close(torch.cat((of_first, of_rest)), of_all)


def test_unreduced_losses_have_the_shape_of_the_labels() -> None:
    logits, labels = images()
    losses = torch_losses.Focal(reduction="none")(logits, labels)
    assert losses.shape == labels.shape
    assert not losses[0, 0].any()


# Weights, smoothing, distributions


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_nll_is_cross_entropy(reduction: Any, smoothing: float, soft: bool) -> None:
    logits, labels = (
        part.detach().double() if part.is_floating_point() else part for part in images()
    )
    target = torch.softmax(logits.flip(0), dim=1) if soft else labels
    loss = torch_losses.NegativeLogLikelihood(reduction=reduction, label_smoothing=smoothing)
    value, gradient = (
        value_and_gradient(loss, logits, target)
        if reduction != "none"
        else (loss(logits, target), None)
    )
    leaf = logits.clone().requires_grad_()
    expected = cross_entropy(leaf, target, reduction=reduction, label_smoothing=smoothing)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=1e-12)
    if gradient is not None:
        expected.backward()
        torch.testing.assert_close(gradient, leaf.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("soft", [False, True])
def test_class_weights_are_those_of_cross_entropy(soft: bool) -> None:
    logits, labels = images()
    weight = torch.tensor([1.0, 0.5, 2.0, 0.0, 3.0, 1.0])
    target = torch.softmax(logits.flip(0), dim=1) if soft else labels
    value = torch_losses.NegativeLogLikelihood(weight=weight)(logits, target)
    torch.testing.assert_close(value, cross_entropy(logits, target, weight))


@each_row_loss
def test_a_loss_of_a_distribution_is_its_mean_over_labels(name: str) -> None:
    logits = batch()[0].detach()
    target = torch.softmax(2 * logits.flip(0), dim=1)
    target[:, 0] = 0
    target /= target.sum(dim=1, keepdim=True)
    loss = torch_losses.loss(name, reduction="none")
    by_label = torch.stack([loss(logits, torch.full((60,), k)) for k in range(6)], dim=1)
    torch.testing.assert_close(loss(logits, target), (target * by_label).sum(dim=1))
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, target).sum(), leaf)
    of_labels = torch.zeros_like(logits)
    for k in range(6):
        leaf = logits.clone().requires_grad_()
        losses = loss(leaf, torch.full((60,), k)) * target[:, k]
        of_labels += torch.autograd.grad(losses.sum(), leaf)[0]
    torch.testing.assert_close(gradient, of_labels)


@each_row_loss
def test_a_distribution_that_is_sure_is_its_label(name: str) -> None:
    logits, labels = (part.detach() for part in batch())
    loss = torch_losses.loss(name)
    one_hot = torch.eye(6, dtype=torch.float64)[labels]
    torch.testing.assert_close(loss(logits, one_hot), loss(logits, labels))


@pytest.mark.parametrize("name", LEARNING_FROM_BATCHES)
def test_losses_that_learn_from_labels_refuse_distributions(name: str) -> None:
    logits = batch()[0].detach()
    with pytest.raises(UsageError, match="learns from the labels of the batch"):
        torch_losses.loss(name)(logits, torch.softmax(logits, dim=1))
    with pytest.raises(UsageError, match="label_smoothing"):
        torch_losses.loss(name, label_smoothing=0.1)


def test_adafocal_is_not_steered_by_distributions() -> None:
    logits = batch()[0].detach()
    with pytest.raises(UsageError, match="steered by classes"):
        torch_losses.AdaFocal().update(logits, torch.softmax(logits, dim=1))
    torch_losses.Cals().update(logits, torch.softmax(logits, dim=1))


# Compilers and transformations


# The compiler of torch makes an instance of what torch says should have none.
compiles = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@compiles
@each_loss
def test_a_loss_is_compiled_as_a_whole_and_transformed(name: str) -> None:
    logits, labels = (part.detach() for part in batch())
    expected, gradient = value_and_gradient(torch_losses.loss(name), logits, labels)
    assert torch.equal(
        torch.func.grad(lambda z: torch_losses.loss(name)(z, labels))(logits), gradient
    )
    torch._dynamo.reset()
    loss = torch_losses.loss(name)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    value, of_compiled = value_and_gradient(compiled, logits, labels)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(of_compiled, gradient, rtol=1e-12, atol=1e-15)


@compiles
def test_a_compiled_loss_follows_its_updates() -> None:
    logits, labels = (part.detach() for part in batch())
    torch._dynamo.reset()
    loss = torch_losses.Cals(margin=1.0)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    before = compiled(logits, labels)
    loss.update(logits, labels)
    torch.testing.assert_close(compiled(logits, labels), loss(logits, labels))
    assert not torch.equal(before, loss(logits, labels))


def test_a_copy_has_a_state_of_its_own_for_compilers_too() -> None:
    loss = torch_losses.Cals(margin=1.0)
    assert copy.deepcopy(loss).handle != loss.handle


# Streams and processes


@pytest.mark.parametrize("name", STEERED)
def test_rows_that_come_in_batches_teach_what_they_teach_at_once(name: str) -> None:
    logits, labels = (part.detach() for part in batch(rows=900))
    streamed, plain = steered(name), steered(name)
    for scale in (1.0, 1.2, 0.7):
        plain.update(scale * logits, labels)
        with streamed.collecting():
            for rows in torch.arange(900).split(128):
                streamed.observe(scale * logits[rows], labels[rows])
        same_state(streamed, plain)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("size", [7, 40, 400])
def test_an_update_takes_parts_of_what_it_is_given(
    monkeypatch: pytest.MonkeyPatch, axis: int, size: int
) -> None:
    logits, labels = images()
    plain = steered("cals")
    plain.update(logits, labels)
    monkeypatch.setattr("calibcli.torch_losses.learning._LOGITS_AT_A_TIME", size)
    loss = torch_losses.Cals(margin=2.0, class_axis=axis)
    loss.update(logits.movedim(1, axis), labels)
    same_state(loss, plain)


def steered(name: str) -> SteeredLoss:
    options = {} if name == "adafocal" else {"margin": 2.0}
    loss: Loss = torch_losses.loss(name, **options)
    assert isinstance(loss, SteeredLoss)
    return loss


def same_state(left: SteeredLoss, right: SteeredLoss) -> None:
    for name, value in right.state_dict().items():
        torch.testing.assert_close(left.state_dict()[name], value, rtol=1e-12, atol=1e-12)


def test_adafocal_keeps_no_more_than_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = (part.detach() for part in batch(rows=20_000))
    exact = torch_losses.AdaFocal()
    exact.update(logits, labels)
    monkeypatch.setattr("calibcli.objectives.adafocal.MOST_KEPT_ROWS", 1000)
    streamed = torch_losses.AdaFocal()
    with streamed.collecting():
        for rows in torch.arange(20_000).split(500):
            streamed.observe(logits[rows], labels[rows])
            assert sum(part.shape[1] for part in streamed._collected) <= 1 << 16
    for name in ("gamma", "edges", "gap"):
        np.testing.assert_allclose(streamed.trace()[name], exact.trace()[name], atol=2e-3)


@pytest.mark.parametrize("name", ["cals", "cals-hr"])
def test_what_is_kept_of_rows_does_not_grow_with_them(name: str) -> None:
    logits, labels = (part.detach() for part in batch(rows=1000))
    streamed = steered(name)
    with streamed.collecting():
        for _ in range(3):
            streamed.observe(logits, labels)
            assert np.size(streamed._collected) <= 3 * logits.shape[1]


def test_what_is_observed_belongs_into_a_collection() -> None:
    logits, labels = (part.detach() for part in batch())
    loss = torch_losses.Cals()
    with pytest.raises(UsageError, match="collecting"):
        loss.observe(logits, labels)
    with contextlib.suppress(KeyboardInterrupt), loss.collecting():
        loss.observe(logits, labels)
        raise KeyboardInterrupt
    assert loss.trace() == {}
    with pytest.raises(UsageError, match="already"), loss.collecting(), loss.collecting():
        pass


def learn_in_a_process(rank: int, meeting_place: str, results: str) -> None:
    """What one of two processes does: its rows are every second one, and the last are ignored."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting_place}", rank=rank, world_size=2
    )
    group = torch.distributed.group.WORLD
    logits, labels = (part.detach() for part in batch(rows=901))
    learnt = {}
    for name in (*STEERED, "class-wise"):
        loss = torch_losses.loss(name, process_group=group)
        for scale in (1.0, 1.3):
            if isinstance(loss, SteeredLoss):
                loss.update(scale * logits[rank::2], labels[rank::2])
            else:
                loss(scale * logits[rank::2], labels[rank::2])
        learnt[name] = loss.state_dict()
    own = slice(rank, None, 2)
    apart = torch_losses.Cals(process_group=group, margin=5.0 + rank)
    with pytest.raises(UsageError, match=f"other options or has learnt .* in process {1 - rank}"):
        apart.update(logits[own], labels[own])
    with pytest.warns(UserWarning, match="2 processes with different rows train with different"):
        torch_losses.Cals().update(logits[own], labels[own])
    torch_losses.Cals(process_group=False).update(logits[own], labels[own])
    torch.save(learnt, f"{results}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(
        learn_in_a_process, (str(tmp_path / "meeting"), str(tmp_path)), nprocs=2
    )
    logits, labels = (part.detach() for part in batch(rows=901))
    of_ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name in (*STEERED, "class-wise"):
        loss = torch_losses.loss(name)
        for scale in (1.0, 1.3):
            if isinstance(loss, SteeredLoss):
                loss.update(scale * logits, labels)
            else:
                loss(scale * logits, labels)
        for part, value in loss.state_dict().items():
            assert torch.equal(of_ranks[0][name][part], of_ranks[1][name][part])
            torch.testing.assert_close(of_ranks[0][name][part], value, rtol=1e-12, atol=1e-12)
