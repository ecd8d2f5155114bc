"""Every objective's value and derivatives, against torch's autograd and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from objective_oracles import ORACLES, label_of, learnt, oracle, variants

from calibcli.objectives.base import Objective
from calibcli.objectives.likelihood import Likelihood
from calibcli.objectives.registry import OBJECTIVES
from calibcli.objectives.weighted import WeightedNll, WeightedTerms

VARIANTS = len(variants(3))

each_variant = pytest.mark.parametrize(
    "number", range(VARIANTS), ids=[label_of(objective) for objective in variants(3)]
)


def batch(rows: int, classes: int, seed: int = 0, scale: float = 3.0) -> tuple[Any, Any]:
    """Logits and labels, each class being the label of some row."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.standard_normal((rows, classes))
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)])
    logits[np.arange(rows), labels] += 2
    return logits, labels


def has_product(number: int) -> bool:
    logits, labels = batch(12, 3)
    objective = learnt(variants(3)[number], logits, labels)
    return objective.terms(logits, labels).product(np.ones_like(logits)) is not None


WITH_PRODUCT = list(filter(has_product, range(VARIANTS)))

# The diagonal of the second derivative is asked for by solvers of convex problems and of rounds.
SOLVED = [n for n, kind in enumerate(variants(3)) if kind.convex or kind.estimating]


def test_every_objective_has_an_oracle() -> None:
    assert set(OBJECTIVES.values()) == set(ORACLES)
    assert {type(objective) for objective in variants(3)} == set(ORACLES)


@each_variant
@pytest.mark.parametrize("shape", [(40, 2), (64, 5), (60, 25)])
def test_value_and_gradient_equal_those_of_autograd(number: int, shape: tuple[int, int]) -> None:
    logits, labels = batch(*shape)
    objective = learnt(variants(shape[1])[number], logits, labels)
    value, gradient = oracle(objective, logits, labels)
    terms = objective.terms(logits, labels)
    assert terms.loss.shape == labels.shape
    assert terms.loss.sum() == pytest.approx(value, rel=1e-11)
    np.testing.assert_allclose(terms.gradient(), gradient, rtol=0, atol=1e-10)


@each_variant
def test_the_slope_along_a_direction_is_the_gradient_times_it(number: int) -> None:
    logits, labels = batch(50, 6)
    objective = learnt(variants(6)[number], logits, labels)
    direction = np.random.default_rng(1).standard_normal(logits.shape)
    terms = objective.terms(logits, labels)
    first, _ = terms.along(direction)
    np.testing.assert_allclose(first, (terms.gradient() * direction).sum(axis=1), atol=1e-12)


def test_what_solvers_of_convex_problems_ask_for_is_there() -> None:
    for number, objective in enumerate(variants(6)):
        if objective.convex or objective.estimating:
            assert number in WITH_PRODUCT
    assert len(WITH_PRODUCT) > VARIANTS / 2


@pytest.mark.parametrize(
    "number", WITH_PRODUCT, ids=[label_of(variants(3)[n]) for n in WITH_PRODUCT]
)
def test_second_derivatives_are_differences_of_the_gradient(number: int) -> None:
    logits, labels = batch(50, 6)
    objective = learnt(variants(6)[number], logits, labels)
    direction = np.random.default_rng(1).standard_normal(logits.shape)
    terms = objective.terms(logits, labels)
    product = terms.product(direction)

    def gradient(step: float) -> Any:
        moved = logits + step * direction
        if objective.estimating and isinstance(objective, WeightedNll):
            # The derivative that is offered is the one at fixed weights.
            frozen = objective.weights(logits, labels)
            return WeightedTerms(Likelihood(moved, labels), frozen).gradient()
        return objective.terms(moved, labels).gradient()

    difference = (gradient(1e-5) - gradient(-1e-5)) / 2e-5
    kinked = np.abs(product - difference).max(axis=1) > 1e-3
    assert kinked.mean() <= 0.05, "only rows that cross a kink may differ"
    np.testing.assert_allclose(product[~kinked], difference[~kinked], atol=1e-8)
    _, second = terms.along(direction)
    if second is not None:
        np.testing.assert_allclose(second, (product * direction).sum(axis=1), atol=1e-10)


@pytest.mark.parametrize("number", SOLVED, ids=[label_of(variants(3)[n]) for n in SOLVED])
def test_the_diagonal_is_that_of_the_second_derivative(number: int) -> None:
    logits, labels = batch(20, 5)
    objective = learnt(variants(5)[number], logits, labels)
    terms = objective.terms(logits, labels)
    expected = np.stack(
        [terms.product(row * np.ones_like(logits))[:, k] for k, row in enumerate(np.eye(5))], axis=1
    )
    if objective.name == "acls":  # its distances are coupled; a preconditioner needs no more
        assert (terms.diagonal() >= expected - 1e-12).all()
    else:
        np.testing.assert_allclose(terms.diagonal(), expected, atol=1e-12)


@each_variant
def test_tensors_give_the_same_as_arrays(number: int) -> None:
    logits, labels = batch(30, 4)
    objective = learnt(variants(4)[number], logits, labels)
    on_arrays = objective.terms(logits, labels)
    tensors = torch.tensor(logits), torch.tensor(labels)
    on_tensors = learnt(variants(4)[number], *tensors).terms(*tensors)
    direction = np.random.default_rng(2).standard_normal(logits.shape)
    np.testing.assert_allclose(on_tensors.loss.numpy(), on_arrays.loss, atol=1e-12)
    np.testing.assert_allclose(on_tensors.gradient().numpy(), on_arrays.gradient(), atol=1e-12)
    slopes = on_tensors.along(torch.tensor(direction))[0]
    np.testing.assert_allclose(slopes.numpy(), on_arrays.along(direction)[0], atol=1e-12)
    product = on_tensors.product(torch.tensor(direction))
    if product is not None:
        np.testing.assert_allclose(product.numpy(), on_arrays.product(direction), atol=1e-12)


def test_the_objective_is_not_the_average_of_something_else() -> None:
    """The oracles' states are taken from the rows, so a state must have been learnt."""
    logits, labels = batch(30, 4)
    learned: list[Objective] = [learnt(objective, logits, labels) for objective in variants(4)]
    estimating = [each for each in learned if each.learns not in ("nothing", "on validation rows")]
    assert len({each.name for each in estimating}) >= 3
    assert all(each.state is not None for each in estimating)
