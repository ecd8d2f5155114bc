"""What holds for every objective: invariances, extreme logits, both precisions, options."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_oracles import label_of, learnt, variants

from calibcli.errors import UsageError
from calibcli.objectives.acls import Acls
from calibcli.objectives.adafocal import AdaFocal
from calibcli.objectives.base import Objective
from calibcli.objectives.bsce import Bsce
from calibcli.objectives.cals import Cals
from calibcli.objectives.class_wise import ClassWise
from calibcli.objectives.focal import Focal, InverseFocal
from calibcli.objectives.label_smoothing import LabelSmoothing
from calibcli.objectives.registry import OBJECTIVES

CLASSES = 4

VARIANTS = variants(CLASSES)


def with_variants(numbers: Iterable[int]) -> pytest.MarkDecorator:
    """Run a test for the variants of these numbers."""
    return pytest.mark.parametrize(
        "number", [pytest.param(n, id=label_of(VARIANTS[n])) for n in numbers]
    )


each_variant = with_variants(range(len(VARIANTS)))

# They have means over all classes, impossible ones too.
MEANS_OVER_CLASSES = ("mbls", "acls", "cals", "cals-hr", "macro", "class-wise")
NO_MEAN_OVER_CLASSES = [n for n, kind in enumerate(VARIANTS) if kind.name not in MEANS_OVER_CLASSES]

# A state that is learnt on validation rows has an order of the classes.
SYMMETRIC = [n for n, kind in enumerate(VARIANTS) if kind.learns != "on validation rows"]


def batch(rows: int = 40, classes: int = CLASSES, seed: int = 3) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)])
    return 4 * rng.standard_normal((rows, classes)), labels


def at_work(number: int, logits: Any, labels: Any) -> Objective:
    return learnt(variants(logits.shape[1])[number], logits, labels)


@each_variant
@settings(max_examples=10)
@given(seed=st.integers(0, 1000), size=st.floats(0.1, 1e3))
def test_a_shift_of_the_row_changes_nothing(number: int, seed: int, size: float) -> None:
    logits, labels = batch(seed=seed)
    shift = size * np.random.default_rng(seed).standard_normal((len(logits), 1))
    before, after = (at_work(number, z, labels).terms(z, labels) for z in (logits, logits + shift))
    np.testing.assert_allclose(after.loss, before.loss, atol=1e-9, rtol=1e-9)
    np.testing.assert_allclose(after.gradient(), before.gradient(), atol=1e-9)
    np.testing.assert_allclose(before.gradient().sum(axis=1), 0, atol=1e-10)


def test_the_published_form_of_acls_is_not_invariant() -> None:
    logits, labels = batch()
    published = Acls(2.0, form="published")
    assert not np.allclose(
        published.terms(logits + 3, labels).loss, published.terms(logits, labels).loss
    )


@with_variants(SYMMETRIC)
def test_permuting_the_classes_permutes_the_gradient(number: int) -> None:
    logits, labels = batch()
    objective = at_work(number, logits, labels)
    order = np.array([2, 0, 3, 1])
    moved = logits[:, order], np.argsort(order)[labels]
    permuted = at_work(number, *moved).terms(*moved)
    terms = objective.terms(logits, labels)
    np.testing.assert_allclose(permuted.loss, terms.loss, rtol=1e-10)
    np.testing.assert_allclose(permuted.gradient(), terms.gradient()[:, order], atol=1e-12)


@each_variant
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturated_logits_give_finite_numbers(number: int, dtype: Any) -> None:
    logits = np.zeros((12, CLASSES), dtype)
    labels = np.arange(12) % CLASSES
    rows = np.arange(12)
    logits[rows[:4], labels[:4]] = 1e4  # certain and right
    logits[rows[4:8], (labels[4:8] + 1) % CLASSES] = 1e4  # certain and wrong
    logits[rows[8:10], labels[8:10]] = -1e4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective = at_work(number, logits, labels)
        terms = objective.terms(logits, labels)
        slope, bend = terms.along(logits)
        product = terms.product(logits)
        numbers = [terms.loss, terms.gradient(), slope]
        numbers += [part for part in (bend, product) if part is not None]
    for part in numbers:
        assert part.dtype == dtype
        assert np.isfinite(part).all()
    np.testing.assert_allclose(terms.gradient()[:4].sum(axis=1), 0, atol=1e-3)


@pytest.mark.parametrize("gamma", [0.01, 0.2, 0.5, 0.999])
@pytest.mark.parametrize("family", [Focal, InverseFocal, Bsce])
def test_a_certain_label_is_no_trouble_for_a_small_exponent(family: Any, gamma: float) -> None:
    logits = np.array([[50.0, 0.0, 0.0], [800.0, 0.0, 0.0], [1e4, 0.0, 0.0]])
    labels = np.zeros(3, int)
    terms = family(gamma).terms(logits, labels)
    gradient = terms.gradient()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[1:]).max() < 1e-9
    assert gradient[0, 0] <= 0
    assert (gradient[0, 1:] >= 0).all()


def test_small_probabilities_keep_their_digits_in_float32() -> None:
    logits = np.array([[25.0, 0.0, 0.0]], np.float32)
    label = np.array([0])
    for objective in (Focal(2.0), Bsce(2.0)):
        exact = objective.terms(logits.astype(np.float64), label)
        rounded = objective.terms(logits, label)
        np.testing.assert_allclose(rounded.loss, exact.loss, rtol=1e-5)
        np.testing.assert_allclose(rounded.gradient(), exact.gradient(), rtol=1e-5)


@each_variant
@pytest.mark.parametrize("order", ["C", "F"])
def test_float32_and_memory_order_give_the_same(number: int, order: Any) -> None:
    logits, labels = batch()
    logits = logits.astype(np.float32)
    exact = at_work(number, logits.astype(np.float64), labels).terms(
        logits.astype(np.float64), labels
    )
    laid_out = np.array(logits, order=order)
    laid_out.flags.writeable = False
    terms = at_work(number, laid_out, labels).terms(laid_out, labels)
    assert terms.gradient().dtype == np.float32
    np.testing.assert_allclose(terms.loss, exact.loss, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(terms.gradient(), exact.gradient(), atol=2e-5)


@each_variant
def test_an_impossible_class_changes_nothing_else(number: int) -> None:
    logits, labels = batch()
    labels = labels % (CLASSES - 1)
    logits[:, -1] = -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective = at_work(number, logits, labels)
        terms = objective.terms(logits, labels)
        gradient = terms.gradient()
        direction = np.where(np.isinf(logits), 0.0, logits)
        slope, _ = terms.along(direction)
        product = terms.product(direction)
    assert (gradient[:, -1] == 0).all()
    assert np.isfinite(terms.loss).all()
    np.testing.assert_allclose(slope, (gradient * direction).sum(axis=1), atol=1e-12)
    assert product is None or ((product[:, -1] == 0).all() and np.isfinite(product).all())


@with_variants(NO_MEAN_OVER_CLASSES)
def test_an_impossible_class_might_as_well_be_absent(number: int) -> None:
    logits, labels = batch()
    labels = labels % (CLASSES - 1)
    logits[:, -1] = -np.inf
    terms = at_work(number, logits, labels).terms(logits, labels)
    others = logits[:, :-1]
    alone = learnt(variants(CLASSES)[number], others, labels).terms(others, labels)
    np.testing.assert_allclose(terms.loss, alone.loss, rtol=1e-12)
    np.testing.assert_allclose(terms.gradient()[:, :-1], alone.gradient(), atol=1e-12)


@each_variant
def test_one_row_is_enough(number: int) -> None:
    logits, labels = np.array([[1.0, 2.0, -1.0, 0.5]]), np.array([1])
    terms = at_work(number, logits, labels).terms(logits, labels)
    assert np.isfinite(terms.loss).all()
    assert np.isfinite(terms.gradient()).all()


@each_variant
def test_the_logits_are_left_as_they_were(number: int) -> None:
    logits, labels = batch()
    kept = logits.copy()
    terms = at_work(number, logits, labels).terms(logits, labels)
    first = terms.gradient().copy()
    terms.along(logits)
    terms.product(logits)
    np.testing.assert_array_equal(terms.gradient(), first)
    np.testing.assert_array_equal(logits, kept)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_an_objective_says_what_it_is(name: str) -> None:
    objective = OBJECTIVES[name]()
    assert objective.name == name
    assert objective.title
    assert objective.source
    assert isinstance(objective.proper, bool)
    assert not (objective.convex and objective.estimating)
    options = {entry.name for entry in fields(objective) if "help" in entry.metadata}
    assert set(objective.options()) == options
    assert objective == OBJECTIVES[name](**objective.options())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Focal(-1.0), "focal.gamma is -1.0"),
        (lambda: Focal(float("nan")), "focal.gamma is nan"),
        (lambda: Focal(float("inf")), "focal.gamma is inf"),
        (lambda: Bsce(2.0, 3), "bsce.norm is 3; it must be one of 1, 2"),
        (lambda: LabelSmoothing(1.0), "from 0 to 0.999"),
        (lambda: Cals(0.0), "cals.margin is 0.0"),
        (lambda: Cals(penalty="relu"), "one of phr, p2, p3"),
        (lambda: ClassWise("none"), "one of zscore, centered, minmax"),
        (lambda: AdaFocal(gamma_min=1.0), "adafocal.gamma_min is 1.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(build: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build()
