"""Losses of a training loop that learn: from what, what they keep, and what is saved of it."""

from __future__ import annotations

import copy
import io
import pickle
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from objective_oracles import learnt
from test_torch_losses import CLASSES, batch, each_loss
from torch.nn import functional

from calibcli import torch_losses
from calibcli.errors import DataError
from calibcli.objectives.class_wise import factors, fit_shape, normalise, search_locally
from calibcli.torch_losses import LOSSES, StatefulLoss, SteeredLoss

STEERED = [name for name, module in LOSSES.items() if issubclass(module, SteeredLoss)]
STATEFUL = [name for name, module in LOSSES.items() if issubclass(module, StatefulLoss)]


# What is learnt


def test_balanced_by_given_counts_is_torchs_class_weights() -> None:
    logits, labels = batch()
    counts = torch.tensor([50, 20, 10, 10, 5, 5])
    ours = torch_losses.Macro(counts, reduction="sum")
    weights = counts.sum() / (len(counts) * counts.double())
    expected = functional.cross_entropy(logits, labels, weights, reduction="sum")
    for _ in range(2):
        torch.testing.assert_close(ours(logits, labels), expected)
    assert not ours.state_dict()
    for wrong in ([[1, 2]], [0, 0], [-1, 2], []):
        with pytest.raises(DataError, match="class_counts"):
            torch_losses.Macro(wrong)


def test_factors_of_classes_are_those_of_the_batch_and_their_shape_is_kept() -> None:
    loss = torch_losses.ClassWise()
    objective = learnt(loss.objective, *(part.detach() for part in batch()))
    for seed in range(1, 5):
        logits, labels = (part.detach() for part in batch(seed=seed))
        loss(logits, labels) if seed == 1 else None
        shape = loss.trace()["alpha"], loss.trace()["beta"]
        value = loss(logits * 0.9, labels)
        objective = learnt(loss.objective, logits * 0.9, labels)
        torch.testing.assert_close(value, objective.terms(logits * 0.9, labels).loss.mean())
        if seed > 1:
            assert (loss.trace()["alpha"], loss.trace()["beta"]) == shape
    assert loss.trace()["alpha"] == pytest.approx(np.log(CLASSES) / 2)


def test_the_local_search_may_end_in_a_worse_minimum_than_the_global_one() -> None:
    rng = np.random.default_rng(2)
    first = rng.gamma(2, 1, 6)
    losses = first * rng.uniform(0.7, 1.3, 6)
    normalised = normalise(losses, "zscore")

    def distance(shape: tuple[float, float]) -> float:
        rest = first - (factors(normalised, *shape) - 1) * (losses - first) - losses.mean()
        return float(rest @ rest)

    best, nearest = (search(first, losses, normalised) for search in (fit_shape, search_locally))
    assert distance(best) < distance(nearest) - 1e-3
    assert nearest == pytest.approx((np.log(6) / 2, 1.5))  # where it starts
    assert search_locally(first, losses, normalised, alpha=0.3)[0] == 0.3


def test_in_evaluation_mode_nothing_is_kept() -> None:
    loss = torch_losses.ClassWise()
    first = loss.eval()(*batch())
    assert loss.trace() == {}
    torch.testing.assert_close(loss.train()(*batch()), first)
    before = loss.trace()
    loss.eval()(*batch(seed=1))
    assert loss.trace() == before


@each_loss
def test_only_losses_with_a_state_remember_a_batch(name: str) -> None:
    loss = torch_losses.loss(name)
    first = loss(*batch())
    loss(*batch(seed=1))
    again = loss(*batch())
    assert torch.equal(first, again) == (name != "class-wise")


@pytest.mark.parametrize("name", STEERED)
def test_a_loss_is_steered_by_validation_rows(name: str) -> None:
    logits, labels = (part.detach() for part in batch(600))
    options = {"margin": 3.0} if name != "adafocal" else {}
    loss = torch_losses.loss(name, **options)
    assert isinstance(loss, SteeredLoss)
    objective: Any = loss.objective
    assert loss.trace() == {}
    for scale in (1.0, 1.5, 2.0):
        rows = scale * logits, labels
        loss.update(*rows)
        objective = objective.updated(objective.statistic(*rows))
        assert loss.trace() == objective.trace() != {}
        torch.testing.assert_close(loss(*rows), objective.terms(*rows).loss.mean())
    loss.train()(logits, labels)
    assert loss.trace() == objective.trace()


@pytest.mark.parametrize("name", STEERED)
def test_updates_take_half_precision_and_leave_no_graph(name: str) -> None:
    logits, labels = batch()
    half, single = torch_losses.loss(name), torch_losses.loss(name)
    assert isinstance(half, SteeredLoss)
    assert isinstance(single, SteeredLoss)
    half.update(logits.bfloat16(), labels)
    single.update(logits.detach().bfloat16().float(), labels)
    assert half.trace() == single.trace()


def test_in_training_multipliers_are_not_damped() -> None:
    assert torch_losses.Cals().objective.options()["damped"] is False
    assert torch_losses.Cals(damped=True).objective.options()["damped"] is True


@pytest.mark.parametrize("name", STEERED)
def test_updates_leave_ignored_rows_out(name: str) -> None:
    logits, labels = batch()
    kept = torch.arange(len(labels)) % 3 > 0
    marked, without = torch_losses.loss(name), torch_losses.loss(name)
    assert isinstance(marked, SteeredLoss)
    assert isinstance(without, SteeredLoss)
    marked.update(logits, torch.where(kept, labels, -100))
    without.update(logits[kept], labels[kept])
    assert marked.trace() == without.trace() != {}


# What is saved


def taught(name: str, classes: int = CLASSES, rows: int = 700) -> StatefulLoss:
    """A loss that has learnt something, with options other than its defaults."""
    options = {"gamma": 1.5} if name == "adafocal" else {}
    loss = torch_losses.loss(name, **options)
    assert isinstance(loss, StatefulLoss)
    for seed in range(3):
        if isinstance(loss, SteeredLoss):
            loss.update(*batch(rows, classes, seed))
        else:
            loss(*batch(rows, classes, seed))
    return loss


def same_state(left: StatefulLoss, right: StatefulLoss) -> bool:
    """Whether two states are equal to the last bit, and of the same types."""
    states = left.objective.state, right.objective.state
    assert type(states[0]) is type(states[1])
    pairs = [[getattr(state, part.name) for state in states] for part in fields(states[0])]
    return all(type(a) is type(b) and np.array_equal(a, b, equal_nan=True) for a, b in pairs)


@pytest.mark.parametrize("name", STATEFUL)
def test_a_state_is_saved_and_loaded_into_a_fresh_module(name: str) -> None:
    loss, fresh = taught(name), torch_losses.loss(name)
    assert isinstance(fresh, StatefulLoss)
    assert fresh.state_dict() == {}
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    result = fresh.load_state_dict(torch.load(file, weights_only=True))
    assert not result.missing_keys
    assert not result.unexpected_keys
    assert same_state(loss, fresh)
    rows = batch(seed=9)
    if name != "adafocal":  # its first exponent is an option and not a state
        assert loss.objective == fresh.objective
    assert torch.equal(loss(*rows), fresh(*rows))


@pytest.mark.parametrize("name", STATEFUL)
def test_a_state_may_have_another_shape_than_the_one_before(name: str) -> None:
    loss, other = taught(name, 4, 170), taught(name, 9)
    other.load_state_dict(loss.state_dict())
    assert same_state(loss, other)
    other.load_state_dict(torch_losses.loss(name).state_dict())
    assert other.trace() == {}


@pytest.mark.parametrize("name", STATEFUL)
def test_a_state_belongs_to_the_network_that_it_is_saved_with(name: str) -> None:
    network = torch.nn.ModuleDict({"linear": torch.nn.Linear(2, 2), "loss": taught(name)})
    fresh = torch.nn.ModuleDict({"linear": torch.nn.Linear(2, 2), "loss": torch_losses.loss(name)})
    saved = network.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in saved.values())
    fresh.load_state_dict(saved)
    assert same_state(network["loss"], fresh["loss"])
    key = next(key for key in saved if key.startswith("loss."))
    with pytest.raises(RuntimeError, match=rf'Missing key\(s\).*"{key}"'):
        fresh.load_state_dict({other: saved[other] for other in saved if other != key})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"loss\.more"'):
        fresh.load_state_dict({**saved, "loss.more": torch.ones(1)})


@pytest.mark.parametrize("name", STATEFUL)
def test_a_saved_state_is_a_copy(name: str) -> None:
    loss = taught(name)
    before = loss.trace()
    saved = loss.state_dict()
    fresh = torch_losses.loss(name)
    assert isinstance(fresh, StatefulLoss)
    fresh.load_state_dict(saved)
    for value in saved.values():
        value.fill_(7)
    assert loss.trace() == fresh.trace() == before


@pytest.mark.parametrize("name", STATEFUL)
def test_a_state_keeps_its_precision_when_the_network_loses_it(name: str) -> None:
    loss = taught(name)
    before = copy.deepcopy(loss)
    loss.half().to("cpu")
    assert same_state(loss, before)
    assert all(value.dtype != torch.float16 for value in loss.state_dict().values())


@each_loss
def test_losses_can_be_copied_and_pickled(name: str) -> None:
    rows = batch()
    loss = torch_losses.loss(name)
    if isinstance(loss, SteeredLoss):
        loss.update(*rows)
    copies = copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))  # noqa: S301 (our own bytes)
    value = loss(*rows)
    for copied in copies:
        assert torch.equal(copied(*rows), value)
