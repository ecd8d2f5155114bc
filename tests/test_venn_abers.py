"""Venn-Abers predictors against isotonic regression with the row added, and their intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression, isotonic_regression

import calibcli
from calibcli.calibrators.augmented_isotonic import SuffixHulls, augmented_isotonic
from calibcli.calibrators.curves import BinarySample
from calibcli.calibrators.registry import read_calibrator
from calibcli.calibrators.venn_abers import (
    MOST_EXACT_STEPS,
    Steps,
    VennAbers,
    VennAbersMap,
)
from calibcli.errors import DataError, ParamsError, UsageError


@pytest.fixture
def with_sample_data(tmp_path: Path, sample_data: Path) -> None:
    (tmp_path / "sample_data").symlink_to(sample_data)


def refitted(scores, labels, weights, score):
    """p0 and p1 of a score by two isotonic regressions with the row among the others."""
    values = []
    for label in (0, 1):
        fitted = IsotonicRegression().fit(
            np.append(scores, score), np.append(labels, label), np.append(weights, 1.0)
        )
        values.append(fitted.predict([score])[0])
    return values


def random_rows(rng, rows, *, levels=None, weighted=False):
    scores = rng.normal(size=rows)
    if levels:
        scores = np.round(scores * levels) / levels
    labels = (rng.random(rows) < 1 / (1 + np.exp(-1.5 * scores))).astype(float)
    weights = rng.exponential(size=rows) + 1e-3 if weighted else np.ones(rows)
    return scores, labels, weights


def sample_of(scores, labels, weights):
    distinct, place = np.unique(scores, return_inverse=True)
    positives = np.bincount(place, weights * labels, len(distinct))
    return BinarySample(distinct, positives, np.bincount(place, weights, len(distinct)))


def binary(logit):
    return np.stack((np.zeros_like(logit), logit), axis=1)


def bounds(calibrator, scores):
    """p0 and p1 at log-odds of class 1."""
    return calibrator.interval(binary(scores), np.ones(len(scores), np.int64))


groups = st.lists(
    st.tuples(
        st.one_of(st.just(1.0), st.integers(1, 6).map(float), st.floats(1e-3, 20.0)),
        st.one_of(st.sampled_from([0.0, 1.0]), st.fractions(0, 1, max_denominator=6).map(float)),
    ),
    min_size=1,
    max_size=25,
)


@given(groups)
def test_every_place_has_what_isotonic_regression_gives_there(rows):
    weights, shares = np.array(rows).T
    p0, p1 = augmented_isotonic(weights * shares, weights)
    shares = weights * shares / weights
    for place in range(len(rows) + 1):
        with_one = np.insert(weights, place, 1.0)
        for label, value in ((0.0, p0[place]), (1.0, p1[place])):
            fitted = isotonic_regression(np.insert(shares, place, label), sample_weight=with_one)
            assert value == pytest.approx(fitted[place], abs=1e-12)


@given(groups)
def test_both_functions_rise_and_stay_apart_inside_the_open_interval(rows):
    weights, shares = np.array(rows).T
    p0, p1 = augmented_isotonic(weights * shares, weights)
    assert p0[0] == 0
    assert p1[-1] == 1
    assert (np.diff(p0) >= 0).all()
    assert (np.diff(p1) >= 0).all()
    assert (p0 < p1).all()
    merged = p1 / (1 - p0 + p1)
    assert ((merged > 0) & (merged < 1)).all()
    assert ((merged >= p0) & (merged <= p1)).all()


@pytest.mark.parametrize("order", [1, -1])
def test_a_long_run_before_a_bent_hull_is_exact(order):
    # Shares that rise slowly make a hull of many corners; zeros before it see all of it.
    share = np.sort(np.random.default_rng(1).random(300)) ** 2
    positives = np.concatenate((np.zeros(300), share * 10))
    weights = np.concatenate((np.ones(300), np.full(300, 10.0)))
    if order < 0:
        positives, weights = (weights - positives)[::-1], weights[::-1]
    p0, p1 = augmented_isotonic(positives, weights)
    for place in range(0, 601, 7):
        with_one = np.insert(weights, place, 1.0)
        for label, value in ((0.0, p0[place]), (1.0, p1[place])):
            shares = np.insert(positives / weights, place, label)
            fitted = isotonic_regression(shares, sample_weight=with_one)
            assert value == pytest.approx(fitted[place], abs=1e-12)


def test_tangents_are_the_smallest_slopes(rng):
    x = np.cumsum(rng.exponential(size=200))
    y = np.cumsum(rng.exponential(size=200) * np.linspace(0, 3, 200))
    first = rng.integers(0, 200, 1000)
    from_x, from_y = x[first] - rng.exponential(size=1000), y[first] - rng.random(1000)
    slopes = SuffixHulls(x, y).tangents(from_x, from_y, first)
    for found, at_x, at_y, begin in zip(slopes, from_x, from_y, first, strict=True):
        smallest = ((y[begin:] - at_y) / (x[begin:] - at_x)).min()
        assert found == pytest.approx(smallest, rel=1e-12)


@pytest.mark.parametrize(
    ("levels", "weighted"), [(None, False), (None, True), (4, False), (4, True)]
)
def test_two_classes_have_the_two_refits_as_interval(rng, levels, weighted):
    scores, labels, weights = random_rows(rng, 120, levels=levels, weighted=weighted)
    calibrator = VennAbersMap().calibrator([VennAbersMap().fit(sample_of(scores, labels, weights))])
    places = np.concatenate((scores[:60], rng.normal(size=60) * 2, [-100.0, 100.0]))
    p0, p1 = bounds(calibrator, places)
    expected = np.array([refitted(scores, labels, weights, place) for place in places])
    np.testing.assert_allclose(np.stack((p0, p1), 1), expected, rtol=0, atol=1e-12)
    merged = expected[:, 1] / (1 - expected[:, 0] + expected[:, 1])
    np.testing.assert_allclose(calibrator.probs(binary(places))[:, 1], merged, atol=1e-12)
    other = calibrator.interval(binary(places), np.zeros(len(places), np.int64))
    np.testing.assert_allclose(np.stack(other, 1), 1 - expected[:, ::-1], rtol=0, atol=1e-12)


def test_a_fit_of_many_classes_is_one_against_the_rest(rng):
    logits = rng.normal(size=(90, 4)) * 2
    labels = np.argmax(logits + rng.gumbel(size=(90, 4)), axis=1)
    weights = rng.integers(0, 3, 90).astype(float)
    fitted = calibcli.fit(logits, labels, weights=weights, method="venn-abers", folds=0)
    new = rng.normal(size=(25, 4)) * 3
    kept = weights > 0

    def odds(z):
        probs = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        return np.log(probs) - np.log1p(-probs)

    pairs = np.array(
        [
            [
                refitted(odds(logits)[kept, k], labels[kept] == k, weights[kept], score)
                for k, score in enumerate(row)
            ]
            for row in odds(new)
        ]
    )
    p0, p1 = pairs[..., 0], pairs[..., 1]
    q = p1 / (1 - p0 + p1)
    expected = q / q.sum(1, keepdims=True)
    probs = fitted.predict_proba(new)
    np.testing.assert_allclose(probs, expected, atol=1e-11)
    lower, upper = fitted.predict_interval(new)
    for row, top in enumerate(expected.argmax(1)):
        others = np.arange(4) != top
        least = p0[row, top] / (p0[row, top] + p1[row, others].sum())
        most = p1[row, top] / (p1[row, top] + p0[row, others].sum())
        assert lower[row] == pytest.approx(least, abs=1e-11)
        assert upper[row] == pytest.approx(most, abs=1e-11)
    assert ((lower <= probs.max(1)) & (probs.max(1) <= upper)).all()


def test_weights_count_as_so_many_rows(rng):
    scores, labels, _ = random_rows(rng, 80, levels=6)
    weights = rng.integers(1, 4, 80)
    repeated = sample_of(
        np.repeat(scores, weights), np.repeat(labels, weights), np.ones(weights.sum())
    )
    weighted = sample_of(scores, labels, weights.astype(float))
    for left, right in zip(
        augmented_isotonic(repeated.positives, repeated.weights),
        augmented_isotonic(weighted.positives, weighted.weights),
        strict=True,
    ):
        np.testing.assert_array_equal(left, right)


def test_scores_in_another_precision_are_the_same_scores(rng):
    # Of few levels, as rounded probabilities have them: a place beside a level is far off. A fit
    # to few rows computes in double precision.
    positive = np.round(rng.random(400), 1) * 0.9 + 0.05
    logits = np.log(np.stack((1 - positive, positive), axis=1)).astype(np.float32)
    labels = (rng.random(400) < positive).astype(int)
    fitted = calibcli.fit(logits, labels, method="venn-abers", folds=0)
    single = np.stack(fitted.predict_interval(logits))
    double = np.stack(fitted.predict_interval(logits.astype(np.float64)))
    np.testing.assert_allclose(single, double, atol=1e-6)


def test_rounding_changes_odds_by_half_a_step_at_most(rng):
    scores, labels, weights = random_rows(rng, 3000)
    curve = VennAbersMap().fit(sample_of(scores, labels, weights))
    exact = VennAbersMap(resolution=0.0).calibrator([curve])
    rounded = VennAbersMap(resolution=0.1).calibrator([curve])
    assert exact.parameters()["resolution"] == 0
    assert VennAbersMap().calibrator([curve]).parameters()["resolution"] == 0
    assert len(rounded.p1_scores) < len(exact.p1_scores) / 3
    places = rng.normal(size=2000)
    for sharp, rough in zip(bounds(exact, places), bounds(rounded, places), strict=True):
        inner = (sharp > 0) & (sharp < 1)
        np.testing.assert_array_equal(rough[~inner], sharp[~inner])
        odds, rough_odds = (np.log(p[inner] / (1 - p[inner])) for p in (sharp, rough))
        assert np.abs(odds - rough_odds).max() <= 0.05 + 1e-9
    read_calibrator(VennAbers.kind, rounded.parameters(), 2)


def test_too_many_steps_are_rounded_unless_that_is_refused(rng, monkeypatch):
    scores, labels, weights = random_rows(rng, 500)
    curve = VennAbersMap().fit(sample_of(scores, labels, weights))
    assert MOST_EXACT_STEPS > 1000
    monkeypatch.setattr("calibcli.calibrators.venn_abers.MOST_EXACT_STEPS", 10)
    rounded = VennAbersMap().calibrator([curve])
    assert rounded.parameters()["resolution"] == 0.01
    assert "rounded to 0.01" in rounded.summary()
    assert VennAbersMap(resolution=0.0).calibrator([curve]).parameters()["resolution"] == 0


def test_only_changes_are_stored(rng):
    scores, labels, weights = random_rows(rng, 2000)
    sample = sample_of(scores, labels, weights)
    p0, p1 = augmented_isotonic(sample.positives, sample.weights)
    calibrator = VennAbersMap().calibrator([VennAbersMap().fit(sample)])
    assert len(calibrator.p0_scores) <= (np.diff(p0) > 0).sum() + 1
    assert len(calibrator.p1_scores) <= (np.diff(p1) > 0).sum() + 1
    from_there_on, up_to_there = bounds(calibrator, sample.scores)
    np.testing.assert_allclose(from_there_on, p0[1:], atol=1e-15)
    np.testing.assert_allclose(up_to_there, p1[:-1], atol=1e-15)


@pytest.mark.parametrize("label", [0, 1])
def test_rows_of_one_class_only(label):
    sample = sample_of(np.arange(9.0), np.full(9, label), np.ones(9))
    calibrator = VennAbersMap().calibrator([VennAbersMap().fit(sample)])
    p0, p1 = bounds(calibrator, np.array([-1.0, 4.0, 10.0]))
    if label:
        np.testing.assert_allclose(p0, [0, 5 / 6, 9 / 10])
        np.testing.assert_allclose(p1, 1)
    else:
        np.testing.assert_allclose(p0, 0)
        np.testing.assert_allclose(p1, [1 / 10, 1 / 6, 1])


def test_impossible_classes_stay_so_and_count_for_nothing(rng):
    logits = rng.normal(size=(300, 3))
    labels = np.argmax(logits + rng.gumbel(size=(300, 3)), axis=1)
    fitted = calibcli.fit(logits, labels, method="venn-abers", folds=0)
    rows = np.array([[0.3, -np.inf, 1.0], [-np.inf, -np.inf, 2.0]])
    probs = fitted.predict_proba(rows)
    assert probs[0, 1] == 0
    np.testing.assert_array_equal(probs[1], [0, 0, 1])
    lower, upper = fitted.predict_interval(rows)
    assert 0 <= lower[0] <= probs[0].max() <= upper[0] <= 1
    assert lower[1] == upper[1] == 1


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_without_probabilities_are_refused(rng, classes, value):
    logits, labels = rng.normal(size=(300, classes)), rng.integers(0, classes, 300)
    fitted = calibcli.fit(logits, labels, method="venn-abers", folds=0)
    logits[7, 1] = value
    for use in (fitted.predict_proba, fitted.predict_interval):
        with pytest.raises(DataError, match="row 7: the score of class 1"):
            use(logits)


def test_a_class_that_no_row_speaks_of_keeps_an_even_share(rng):
    logits = rng.normal(size=(60, 3))
    logits[:, 2] = -np.inf
    labels = (logits[:, 1] > logits[:, 0]).astype(int)
    fitted = calibcli.fit(logits, labels, method="venn-abers", folds=0)
    p0, p1 = fitted.stages[0]._bounds(rng.normal(size=(20, 3)) * 5)
    np.testing.assert_array_equal(p0[:, 2], 1 / 3)
    np.testing.assert_array_equal(p1[:, 2], 1 / 3)


def test_torch_gives_the_same(rng):
    torch = pytest.importorskip("torch")
    logits = rng.normal(size=(200, 3))
    labels = np.argmax(logits + rng.gumbel(size=(200, 3)), axis=1)
    (stage,) = calibcli.fit(logits, labels, method="venn-abers", folds=0).stages
    top = stage.probs(logits).argmax(1)
    np.testing.assert_allclose(
        stage.probs(torch.from_numpy(logits)).numpy(), stage.probs(logits), atol=1e-12
    )
    on_torch = stage.interval(torch.from_numpy(logits), torch.from_numpy(top))
    for ours, theirs in zip(stage.interval(logits, top), on_torch, strict=True):
        np.testing.assert_allclose(theirs.numpy(), ours, atol=1e-12)


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_a_parameter_file_gives_it_back_exactly(rng, tmp_path, suffix):
    logits = rng.normal(size=(150, 3))
    labels = np.argmax(logits + rng.gumbel(size=(150, 3)), axis=1)
    fitted = calibcli.fit(logits, labels, method="venn-abers", folds=0)
    fitted.save(tmp_path / f"p.{suffix}")
    loaded = calibcli.load(tmp_path / f"p.{suffix}")
    np.testing.assert_array_equal(loaded.predict_proba(logits), fitted.predict_proba(logits))
    np.testing.assert_array_equal(loaded.predict_interval(logits), fitted.predict_interval(logits))


VALID = {
    "resolution": 0.0,
    "p0_counts": [2],
    "p0_scores": [0.0, 1.0],
    "p0_values": [0.0, 0.5],
    "p1_counts": [1],
    "p1_scores": [2.0],
    "p1_values": [0.5],
}


def test_what_parameters_may_be():
    assert isinstance(read_calibrator(VennAbers.kind, VALID, 2), VennAbers)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"resolution": -1.0}, "resolution"),
        ({"p0_counts": [1]}, "p0_counts"),
        ({"p0_counts": [1.5]}, "p0_counts"),
        ({"p0_counts": [2, 0]}, "p0_counts"),
        ({"p1_counts": [0], "p1_scores": [], "p1_values": []}, "p1"),
        ({"p0_scores": [1.0, 1.0]}, "p0_scores of a class must be in ascending order"),
        ({"p0_values": [0.5, 0.4]}, "p0_values of a class must not fall"),
        ({"p0_values": [-0.1, 0.4]}, "between 0 and 1"),
        ({"p0_values": [0.1, 1.0]}, "p0 must be less than 1"),
        ({"p1_values": [0.0]}, "p1 greater than 0"),
        ({"p1_values": [1.1]}, "between 0 and 1"),
        ({"p1_values": [0.4]}, "p0 is greater than p1"),
        ({"p1_scores": [np.inf]}, "finite"),
        ({"p2": 1}, "p2"),
    ],
)
def test_wrong_parameters_are_refused(changes, says):
    with pytest.raises(ParamsError, match=says):
        read_calibrator(VennAbers.kind, {**VALID, **changes}, 2)


def test_steps_of_several_functions_do_not_mix():
    steps = Steps(np.array([1.0, 2.0]), np.array([5.0, -1.0, 1.0]), np.array([0.2, 0.3, 0.4]))
    places = np.array([[4.0, -2.0], [5.0, -1.0], [6.0, 3.0]])
    from_there_on = steps.with_start(0.0).at(places)
    np.testing.assert_array_equal(from_there_on, [[0, 0], [0.2, 0.3], [0.2, 0.4]])
    behind = steps.with_end(1.0).at(places)
    np.testing.assert_array_equal(behind, [[0.2, 0.3], [1, 0.4], [1, 1]])


def test_other_methods_offer_no_interval(rng):
    logits, labels = rng.normal(size=(50, 3)), rng.integers(0, 3, 50)
    fitted = calibcli.fit(logits, labels, folds=0)
    with pytest.raises(UsageError, match="temperature offers no intervals"):
        fitted.predict_interval(logits)
    shapes = calibcli.fit(logits, labels, method="venn-abers", folds=0).predict_interval(logits[:0])
    assert [bound.shape for bound in shapes] == [(0,), (0,)]


def columns_of(path):
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays.files}
    if path.suffix == ".arrow":
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
    else:
        table = pq.read_table(path)
    return {
        name: table[name].to_numpy() for name in table.column_names if not name.endswith("probs")
    }


@pytest.mark.usefixtures("with_sample_data")
@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".arrow"])
def test_outputs_have_the_interval_and_keep_columns_of_its_name(calib, tmp_path, suffix):
    val, test = "sample_data/digits_val.parquet", "sample_data/digits_test.parquet"
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    options = ("-m", "temperature,venn-abers", "-p", "p.json", "--quiet")
    done = calib("fit", val, "--test", test, "-o", first, *options)
    assert done.returncode == 0, done.stderr
    found = columns_of(first)
    names = ("confidence_lower", "confidence", "confidence_upper")
    lower, confidence, upper = (found[name] for name in names)
    assert lower.dtype == upper.dtype == confidence.dtype == np.float32
    assert ((lower >= 0) & (lower <= confidence) & (confidence <= upper) & (upper <= 1)).all()
    assert (lower < upper).any()
    # An output is an input too: what it has by these names stays, under others.
    done = calib("apply", "p.json", first, "-o", second, "--quiet")
    assert done.returncode == 0, done.stderr
    again = columns_of(second)
    for name in names:
        np.testing.assert_array_equal(again[f"input_{name}"], found[name])
        assert name in again
    done = calib("fit", val, "-p", "t.json", "-o", tmp_path / f"third{suffix}", "--quiet")
    assert "confidence_lower" not in columns_of(tmp_path / f"third{suffix}")
    assert json.loads((tmp_path / "p.json").read_text())["stages"][-1]["kind"] == "venn-abers"
