"""Fits for rows without labels: their class shares, the correction, and what it cannot explain."""

from __future__ import annotations

import json

import numpy as np
import pytest

import calibcli
from calibcli.api.arguments import array_source
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine
from calibcli.errors import CalibError
from calibcli.fitting.label_shift import LabelShift, estimate_label_shift

TAIL = 0.6 ** np.arange(5)
TAIL /= TAIL.sum()
EVEN = np.full(5, 0.2)
SURE = 1.5


def drawn(rng, rows, shares, signal=2.0):
    """Overconfident logits of a model for `TAIL`; scores of a class are normal, whatever shares."""
    labels = rng.choice(len(shares), rows, p=shares)
    features = rng.standard_normal((rows, len(shares)))
    features[np.arange(rows), labels] += signal
    return SURE * (2.0 * features + np.log(TAIL)), labels


def shift_between(source, target, weights=None) -> LabelShift:
    labelled = array_source(*source, weights, "logits")
    return estimate_label_shift(
        open_data(Engine(threads=1), labelled),
        open_data(Engine(threads=1), array_source(target, None, None, "logits")),
    )


def nll(probs, labels):
    return -np.log(probs[np.arange(len(labels)), labels].astype(float)).mean()


def test_the_shares_are_the_fixed_point_of_em(rng):
    logits, labels = drawn(rng, 2000, TAIL)
    target, _ = drawn(rng, 1500, EVEN)
    shift = shift_between((logits, labels), target)
    options = {"bias-corrected-temperature.prior": 0}
    method = "bias-corrected-temperature"
    plain = calibcli.fit(logits, labels, method=method, options=options, folds=0)
    likelihoods = plain.predict_proba(target) / shift.source
    shares = shift.source
    for _ in range(3000):
        posterior = likelihoods * shares
        posterior /= posterior.sum(axis=1, keepdims=True)
        # The prior is one row with the shares of the fit.
        shares = (posterior.sum(axis=0) + shift.source) / (len(target) + 1)
    np.testing.assert_allclose(shift.shares, shares, rtol=1e-5)


def test_intervals_hold_the_true_shares():
    inside = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        shift = shift_between(drawn(rng, 1000, TAIL), drawn(rng, 800, EVEN)[0])
        inside.append((shift.low < EVEN) & (shift.high > EVEN))
    assert 0.9 <= np.mean(inside) <= 0.99


def test_noise_is_not_corrected_for():
    used, estimated = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shift = shift_between(drawn(rng, 500, TAIL), drawn(rng, 200, TAIL)[0])
        used.append((TAIL * np.log(TAIL / shift.used)).sum())
        estimated.append((TAIL * np.log(TAIL / shift.shares)).sum())
    assert np.mean(used) < 0.6 * np.mean(estimated)


def test_a_rare_class_that_is_hardly_known_is_left_alone():
    ratios = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        odds = -5.5 + 1.4 * rng.standard_normal(5500)
        logits = np.stack((np.zeros(5500), odds), axis=1)
        labels = (rng.random(5500) < 1 / (1 + np.exp(-odds / 1.3))).astype(int)
        shift = shift_between((logits[:500], labels[:500]), logits[500:])
        ratios.append(abs(np.log(shift.used[1] / shift.source[1])))
    # About 12 rows of 500, and a model that hardly tells them from others.
    assert max(ratios) < np.log(5)
    assert np.mean(ratios) < 0.15


def test_a_clear_shift_is_corrected_for_nearly_as_a_whole(rng):
    shift = shift_between(drawn(rng, 2000, TAIL), drawn(rng, 2000, EVEN)[0])
    assert shift.drawn < 0.05
    assert shift.used.sum() == pytest.approx(1)
    np.testing.assert_allclose(shift.by_confusion, shift.shares, atol=0.06)


def test_only_what_class_shares_do_not_explain_is_warned_of():
    clear = {"shares": 0, "signal": 0}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        source = drawn(rng, 1000, TAIL)
        clear["shares"] += shift_between(source, drawn(rng, 1000, EVEN)[0]).confidence.clear
        worse = shift_between(source, drawn(rng, 1000, EVEN, signal=1.2)[0]).confidence
        clear["signal"] += worse.clear
        assert worse.mean < worse.expected_mean
    assert clear["shares"] <= 1
    assert clear["signal"] == 20


def test_rows_of_another_world_are_not_corrected_for(rng):
    source = drawn(rng, 1000, TAIL)
    target = 0.3 * rng.standard_normal((1000, 5))
    shift = shift_between(source, target)
    assert shift.confidence.excludes_label_shift
    assert (shift.drawn, shift.used.tolist()) == (1, shift.source.tolist())
    plain, fitted = (calibcli.fit(*source, folds=0, target=each) for each in (None, target))
    assert (plain.predict_proba(target) == fitted.predict_proba(target)).all()
    assert any("nothing is corrected" in note for note in fitted.outcome.notes)


def test_a_weight_counts_as_so_many_rows(rng):
    logits, labels = drawn(rng, 400, TAIL)
    target, _ = drawn(rng, 300, EVEN)
    counts = rng.integers(1, 4, size=400)
    weighted = shift_between((logits, labels), target, counts.astype(float))
    spelt = shift_between((np.repeat(logits, counts, 0), np.repeat(labels, counts)), target)
    np.testing.assert_allclose(weighted.shares, spelt.shares, rtol=1e-5)


def test_a_class_without_rows_has_no_share(rng):
    logits, labels = drawn(rng, 1000, TAIL)
    kept = labels != 4
    shift = shift_between((logits[kept], labels[kept]), drawn(rng, 500, EVEN)[0])
    assert shift.shares[4] == shift.used[4] == 0
    assert np.isfinite(shift.correction.bias).all()


def test_impossible_classes_and_certain_scores_are_no_trouble(rng):
    logits, labels = drawn(rng, 1000, TAIL)
    logits[labels != 4, 4] = -np.inf
    target = drawn(rng, 500, EVEN)[0]
    target[::2, 4] = -np.inf
    target[1::2] *= 1000
    shift = shift_between((logits, labels), target)
    assert np.isfinite([shift.shares, shift.low, shift.high]).all()
    assert shift.used.sum() == pytest.approx(1)


@pytest.mark.parametrize("method", ["none", "temperature", "svs", "isotonic", "auto"])
def test_every_method_is_corrected(method, rng):
    logits, labels = drawn(rng, 1500, TAIL)
    target, target_labels = drawn(rng, 1500, EVEN)
    plain = calibcli.fit(logits, labels, method=method, folds=2)
    fitted = calibcli.fit(logits, labels, method=method, folds=2, target=target)
    shift = fitted.outcome.shift
    expected = plain.predict_proba(target).astype(float) * shift.used / shift.source
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fitted.predict_proba(target), expected, atol=1e-5)
    assert nll(expected, target_labels) < nll(plain.predict_proba(target), target_labels) - 0.02
    before, after = fitted.outcome.target
    if method != "none":
        # What is said of the target from labelled rows is what its own labels say.
        own = nll(expected, target_labels)
        assert after.values["nll"] == pytest.approx(own, abs=0.06)
        assert after.values["nll"] < before.values["nll"]


def test_what_was_estimated_is_in_the_parameter_file(rng, tmp_path):
    logits, labels = drawn(rng, 1000, TAIL)
    target, _ = drawn(rng, 800, EVEN)
    fitted = calibcli.fit(logits, labels, folds=0, target=target)
    fitted.save(tmp_path / "p.json")
    shares = calibcli.load(tmp_path / "p.json").params.fit["class_shares"]
    assert shares["rows"] == 800
    np.testing.assert_allclose(shares["target"], fitted.outcome.shift.shares)
    assert shares["confidence"]["clear"] is False


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"target_prior": "balanced"}, "--target-prior"),
        ({"loss": "macro"}, "--loss macro"),
        ({"reduce": "top"}, "--reduce top"),
    ],
)
def test_what_sets_class_shares_itself_is_refused(keywords, message, rng):
    logits, labels = drawn(rng, 200, TAIL)
    with pytest.raises(CalibError, match=message):
        calibcli.fit(logits, labels, target=logits, **keywords)


def test_a_target_of_other_classes_or_a_fit_of_one_is_refused(rng):
    logits, labels = drawn(rng, 200, TAIL)
    with pytest.raises(CalibError, match="4 classes"):
        calibcli.fit(logits, labels, target=logits[:, :4])
    with pytest.raises(CalibError, match="two classes"):
        calibcli.fit(logits, np.zeros(200, int), target=logits)


def test_the_command_says_shares_and_what_they_do_not_explain(rng, calib_here, tmp_path):
    logits, labels = drawn(rng, 1000, TAIL)
    np.savez(tmp_path / "val.npz", logits=logits, labels=labels)
    np.savez(tmp_path / "new.npz", logits=drawn(rng, 900, EVEN, signal=1.2)[0])
    command = ("fit", "val.npz", "--target", "new.npz", "-p", "p.json", "-o", "o.npz", "--force")
    code, out, _ = calib_here(*command, "--format", "json")
    assert code == 0
    document = json.loads(out)
    shares = document["class_shares"]
    assert (shares["input"], shares["rows"]) == ("new.npz", 900)
    assert shares["confidence"]["clear"]
    assert document["target"]["shares"] == shares["used"]
    written = json.loads((tmp_path / "p.json").read_text())["fit"]["class_shares"]
    assert written["used"] == shares["used"]
    assert [each["path"] for each in written["data"]] == ["new.npz"]
    code, out, _ = calib_here(*command)
    assert "weighted to the class shares of --target:" in out
    assert "do not explain the confidences" in " ".join(out.split())
    code, _, err = calib_here(*command, "--target-prior", "balanced")
    assert (code, "use one" in err) == (2, True)


@pytest.mark.parametrize("network", ["densenet40", "resnet110"])
@pytest.mark.parametrize("method", ["temperature", "vector", "sms"])
def test_unlabelled_rows_are_as_good_as_known_shares(network, method, shared_data):
    folder = shared_data / "data" / f"sctl_{network}_cifar10lt"
    with np.load(folder / "val.npz") as val, np.load(folder / "test.npz") as test:
        rows, new, new_labels = (val["logits"], val["labels"]), test["logits"], test["labels"]
    fitted = calibcli.fit(*rows, method=method, folds=0, target=new)
    knowing = calibcli.fit(*rows, method=method, folds=0, target_prior="balanced")
    estimated, known = (nll(each.predict_proba(new), new_labels) for each in (fitted, knowing))
    assert estimated < 1.01 * known
    plain = calibcli.fit(*rows, method=method, folds=0)
    ratio = plain.predict_proba(new) / fitted.outcome.shift.source
    assert estimated < 1.01 * nll(ratio / ratio.sum(axis=1, keepdims=True), new_labels)


def test_decisions_are_judged_and_learnt_for_the_target(rng):
    shares = np.array([0.5, 0.5])
    logits, labels = drawn_of_two(rng, 800, shares)
    target, _ = drawn_of_two(rng, 700, np.array([0.9, 0.1]))
    costs = {"fp": 1, "fn": 5}
    outcome = calibcli.fit(logits, labels, target=target, costs=costs, bootstrap=20).outcome
    always = outcome.decisions[1].rule("always")
    # Who always decides for class 1 pays 1 for each row of class 0, of which the target has many.
    assert always.cost.value == pytest.approx(outcome.shift.used[0], rel=1e-6)
    assert outcome.shift.used[0] > 0.8


def drawn_of_two(rng, rows, shares):
    labels = rng.choice(2, rows, p=shares)
    odds = rng.standard_normal(rows) + 2.0 * labels - 1.0
    return np.stack((np.zeros(rows), 3.0 * odds), axis=1), labels


def test_threads_change_nothing(rng):
    source, target = drawn(rng, 3000, TAIL), drawn(rng, 2000, EVEN)[0]
    whole = shift_between(source, target)
    engine = Engine(threads=1)
    labelled = array_source(*source, None, "logits")
    unlabelled = array_source(target, None, None, "logits")
    parts = estimate_label_shift(open_data(engine, labelled), open_data(engine, unlabelled))
    np.testing.assert_allclose(parts.shares, whole.shares, rtol=1e-6)
    assert parts.confidence.statistic == pytest.approx(whole.confidence.statistic, rel=1e-6)
