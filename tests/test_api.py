"""The Python interface: the same numbers as the command line, and errors that say what is wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import calibcli
from calibcli.arrays import softmax
from calibcli.errors import CalibError, DataError, ParamsError, UsageError

ROWS, CLASSES = 300, 4


def data(rows: int = ROWS, classes: int = CLASSES, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are twice too large, and their labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * 3
    return logits, (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)


Z, Y = data()


@pytest.fixture(scope="module")
def fitted() -> calibcli.FittedCalibrator:
    return calibcli.fit(Z, Y)


def temperature(found: calibcli.FittedCalibrator) -> float:
    value = found.params.stages[0].parameters["temperature"]
    assert isinstance(value, float)
    return value


def test_a_fit_says_what_it_is_worth(fitted):
    assert temperature(fitted) == pytest.approx(2.1, abs=0.3)
    assert fitted.outcome.fit.converged
    assert fitted.outcome.measured_on == "cross-fit"
    assert fitted.outcome.after.values["nll"] < fitted.outcome.before.values["nll"]
    assert fitted.params.metrics["after"] == fitted.outcome.after.values


def test_probabilities_are_those_of_the_formula(fitted):
    np.testing.assert_allclose(
        fitted.predict_proba(Z), softmax(Z / temperature(fitted)), rtol=1e-12
    )


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_what_is_saved_comes_back(fitted, tmp_path, suffix):
    path = tmp_path / f"p.{suffix}"
    fitted.save(path)
    with pytest.raises(UsageError, match="exists already"):
        fitted.save(path)
    fitted.save(path, force=True)
    loaded = calibcli.load(path)
    assert loaded.outcome is None
    assert loaded.params == fitted.params
    np.testing.assert_array_equal(loaded.predict_proba(Z), fitted.predict_proba(Z))


def test_the_command_line_fits_the_same(calib_here, sample_data, tmp_path):
    source = sample_data / "digits_longtail_val.npz"
    arguments = ("-m", "vector", "--set", "vector.penalty=0.001", "--seed", 5)
    code, _, err = calib_here("fit", source, "-q", *arguments, "-p", "p.json", "-o", "o.npz")
    assert code == 0, err
    with np.load(source) as arrays, np.load(tmp_path / "o.npz") as written:
        found = calibcli.fit(
            arrays["logits"],
            arrays["labels"],
            method="vector",
            options={"vector.penalty": 0.001},
            seed=5,
        )
        np.testing.assert_array_equal(found.predict_proba(arrays["logits"]), written["probs"])
    stored = calibcli.load(tmp_path / "p.json").params
    assert stored.fit == found.params.fit
    assert stored.metrics == {**found.params.metrics, "data": []}


# What may be handed in

SAME = {
    "lists": (Z.tolist(), Y.tolist()),
    "columns in memory": (np.asfortranarray(Z), Y),
    "every second of more rows": (np.repeat(Z, 2, axis=0)[::2], np.repeat(Y, 2)[::2]),
    "the other byte order": (Z.astype(">f8"), Y.astype(">i4")),
    "labels as floats": (Z, Y.astype(float)),
    "labels as a column": (Z, Y[:, None]),
    "unsigned labels": (Z, Y.astype(np.uint64)),
    "weights of one": (Z, Y, np.ones(ROWS)),
}


def check_same(fitted, scores, labels, weights=None):
    calibrator = calibcli.fit(scores, labels, weights=weights)
    assert temperature(calibrator) == temperature(fitted)
    np.testing.assert_array_equal(calibrator.predict_proba(scores), fitted.predict_proba(Z))


@pytest.mark.parametrize("name", SAME)
def test_anything_like_an_array_will_do(fitted, name):
    check_same(fitted, *SAME[name])


@pytest.mark.parametrize("requires_grad", [False, True])
def test_tensors_will_do(fitted, requires_grad):
    torch = pytest.importorskip("torch")
    check_same(fitted, torch.tensor(Z, requires_grad=requires_grad), torch.tensor(Y))


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        (Z, np.float64),
        (Z.astype(np.float32), np.float32),
        (Z.astype(np.float16), np.float32),
        (Z.round().astype(int), np.float64),
    ],
    ids=["float64", "float32", "float16", "integers"],
)
def test_precision_of_the_probabilities(fitted, scores, kept):
    check_precision(fitted, scores, kept)


def test_precision_of_the_probabilities_of_bfloat16(fitted):
    torch = pytest.importorskip("torch")
    check_precision(fitted, torch.tensor(Z).bfloat16(), torch.float32)


def check_precision(fitted, scores, kept):
    probs = fitted.predict_proba(scores)
    assert probs.dtype == kept
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-6)
    assert fitted.predict_proba(scores[:0]).shape == (0, CLASSES)
    assert fitted.predict_proba(scores[:0]).dtype == kept


def test_kinds_of_scores_lead_to_the_same_map(fitted):
    probs = softmax(Z)
    for kind, scores in (("log-probs", np.log(probs)), ("probs", probs)):
        found = calibcli.fit(scores, Y, input=kind)
        assert temperature(found) == pytest.approx(temperature(fitted), rel=1e-9)
        np.testing.assert_allclose(
            found.predict_proba(scores), fitted.predict_proba(Z), rtol=1e-9, atol=1e-12
        )
        np.testing.assert_allclose(
            fitted.predict_proba(scores, input=kind), fitted.predict_proba(Z), rtol=1e-9, atol=1e-12
        )


def test_two_classes_may_be_one_column():
    z, y = data(classes=2)
    single = z[:, 1] - z[:, 0]
    pairs = calibcli.fit(z, y, method="platt")
    found = calibcli.fit(single, y, method="platt")
    np.testing.assert_allclose(found.predict_proba(single), pairs.predict_proba(z), rtol=1e-6)
    np.testing.assert_array_equal(found.predict_proba(single[:, None]), found.predict_proba(single))


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.floats(-50, 50))
def test_a_constant_added_to_a_row_changes_nothing(seed, classes, constant):
    z, y = data(60, classes, seed)
    found = calibcli.fit(z, y, folds=0)
    np.testing.assert_allclose(
        found.predict_proba(z + constant), found.predict_proba(z), rtol=1e-9, atol=1e-12
    )


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["temperature", "vector", "matrix"]))
def test_classes_in_another_order_give_probabilities_in_that_order(seed, method):
    z, y = data(200, 3, seed)
    order = np.random.default_rng(seed).permutation(3)
    found = calibcli.fit(z, y, method=method, folds=0)
    moved = calibcli.fit(z[:, order], np.argsort(order)[y], method=method, folds=0)
    assert found.outcome.fit.converged
    assert moved.outcome.fit.converged
    np.testing.assert_allclose(
        moved.predict_proba(z[:, order]), found.predict_proba(z)[:, order], atol=1e-4
    )


def test_an_impossible_class_stays_so(fitted):
    z = Z.copy()
    z[:, 2] = -np.inf
    probs = fitted.predict_proba(z)
    assert (probs[:, 2] == 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-12)


def test_a_calibrator_serves_several_threads(fitted):
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(fitted.predict_proba, np.array_split(Z, 50)))
    found = np.concatenate(parts)
    np.testing.assert_array_equal(found, fitted.predict_proba(Z))


# evaluate


def test_an_evaluation_of_a_perfect_and_of_a_useless_model():
    perfect = calibcli.evaluate(np.eye(3)[[0, 1, 2, 0]], [0, 1, 2, 0])
    assert perfect.values["accuracy"] == 1
    assert perfect.values["nll"] == pytest.approx(0, abs=1e-9)
    assert perfect.values["ece"] == pytest.approx(0, abs=1e-9)
    useless = calibcli.evaluate(np.zeros((4, 2)), [0, 1, 1, 0], input="logits")
    assert useless.values["nll"] == pytest.approx(np.log(2))
    assert useless.values["brier"] == pytest.approx(0.5)
    assert useless.values["ece"] == 0


def test_weights_count_rows():
    weights = np.arange(ROWS) % 3
    found = calibcli.evaluate(Z, Y, weights=weights, input="logits")
    repeated = np.repeat(np.arange(ROWS), weights)
    expected = calibcli.evaluate(Z[repeated], Y[repeated], input="logits")
    for name, value in expected.values.items():
        assert found.values[name] == pytest.approx(value, rel=1e-9), name
    assert found.weight == expected.rows


def test_only_some_metrics():
    found = calibcli.evaluate(Z, Y, input="logits", metrics=("nll", "brier"))
    assert list(found.values) == ["nll", "brier"]


# Errors

ONE = np.zeros((1, 2))

REFUSED = {
    "no rows": (lambda: calibcli.fit(Z[:0], Y[:0]), "no rows"),
    "no classes": (lambda: calibcli.fit(Z[:, :0], Y), r"shape \(n, K\), not \(300, 0\)"),
    "three axes": (lambda: calibcli.fit(Z[None], Y), r"shape \(n, K\), not \(1, 300, 4\)"),
    "a number": (lambda: calibcli.fit(1.0, Y), r"shape \(n, K\), not \(\)"),
    "texts": (lambda: calibcli.fit([["a", "b"]], [0]), "scores must be numbers"),
    "None in a row": (lambda: calibcli.fit([[1.0, None]], [0]), "scores must be numbers"),
    "ragged rows": (lambda: calibcli.fit([[1, 2], [1]], [0, 0]), "scores cannot be made an array"),
    "complex": (lambda: calibcli.fit(Z + 0j, Y), "must be numbers, not of type complex128"),
    "NaN": (lambda: calibcli.fit(np.where(Z > 5, np.nan, Z), Y), r"row \d+: .* is NaN"),
    "infinity": (lambda: calibcli.fit(np.where(Z > 5, np.inf, Z), Y), r"row \d+: .* is \+inf"),
    "no labels": (lambda: calibcli.fit(Z, None), "a fit needs labels"),
    "no labels ": (lambda: calibcli.evaluate(Z, None), "an evaluation needs labels"),
    "too few labels": (lambda: calibcli.fit(Z, Y[1:]), r"shape \(300,\), not \(299,\)"),
    "wide labels": (lambda: calibcli.fit(Z, np.eye(5)[Y]), r"\(300, 4\), not \(300, 5\)"),
    "labels of text": (lambda: calibcli.fit(Z, Y.astype(str)), "labels must be numbers"),
    "half a label": (lambda: calibcli.fit(Z, Y + 0.5), r"row 0: the label \d\.5 is no class"),
    "no label": (lambda: calibcli.fit(Z, np.where(Y == 1, np.nan, Y)), "the label nan is no class"),
    "a label too large": (lambda: calibcli.fit(Z, Y + 1), "label 4 is none of the classes 0 to 3"),
    "a huge label": (
        lambda: calibcli.fit(Z, np.where(Y == 1, 2**63, Y).astype(np.uint64)),
        "the label 9223372036854775808 is no class number",
    ),
    "a label below": (lambda: calibcli.fit(Z, Y - 1), "label -1 is none of the classes"),
    "negative weights": (lambda: calibcli.fit(Z, Y, weights=-np.ones(ROWS)), "row 0: the weight"),
    "weights of 0": (lambda: calibcli.fit(Z, Y, weights=np.zeros(ROWS)), "all weights are 0"),
    "weights of text": (lambda: calibcli.fit(Z, Y, weights=["a"] * ROWS), "weights must be num"),
    "a method": (lambda: calibcli.fit(Z, Y, method="temp"), "there is no method 'temp'"),
    "a loss": (lambda: calibcli.fit(Z, Y, loss="hinge"), "there is no loss 'hinge'"),
    "an input": (lambda: calibcli.fit(Z, Y, input="odds"), "input 'odds' is not known"),
    "an option": (lambda: calibcli.fit(Z, Y, options={"vector.penalty": 1}), "are in use here"),
    "a device": (lambda: calibcli.fit(Z, Y, device="tpu"), "--device 'tpu' is not known"),
    "folds": (lambda: calibcli.fit(Z, Y, folds=-1), "count from 0"),
    "seed": (lambda: calibcli.fit(Z, Y, seed=1 << 64), "count from 0"),
    "threads": (lambda: calibcli.fit(Z, Y, threads=-1), "count from 0"),
    "two classes": (lambda: calibcli.fit(Z, Y, method="platt"), "platt is for two classes"),
    "no probabilities": (lambda: calibcli.evaluate(Z, Y), "is not a number between 0 and 1"),
    "a metric": (
        lambda: calibcli.evaluate(ONE, [0], metrics=("auc",)),
        "there is no metric 'auc'; did you mean aurc",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_errors_say_what_is_wrong(name):
    call, message = REFUSED[name]
    with pytest.raises((DataError, UsageError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


BAD_SCORES = {
    "too few classes": (Z[:, :3], None, "the scores have 3 classes, the calibrator 4"),
    "a row of too few classes": (Z[0, :3], None, r"must have the shape \(n, K\), not \(3,\)"),
    "NaN": (np.where(Z > 5, np.nan, Z), None, r"row \d+: the score of class \d is NaN"),
    "all impossible": (np.where(Y[:, None] == 1, -np.inf, Z), None, "every class has the logit"),
    "more than 1": (softmax(Z) * 1.5, "probs", r"row \d+: the score of class \d is 1\.\d+"),
    "less than 0": (softmax(Z) - 0.1, "probs", r"row \d+: the score of class \d is -0\.\d+"),
    "log of more than 1": (np.log(softmax(Z)) + 1, "log-probs", r"the score of class \d is 0\.\d+"),
    "an input": (Z, "odds", "input 'odds' is not known"),
}


@pytest.mark.filterwarnings("ignore:(invalid|divide).*:RuntimeWarning")
@pytest.mark.parametrize("name", BAD_SCORES)
def test_scores_without_probabilities_are_refused(fitted, name):
    scores, kind, message = BAD_SCORES[name]
    with pytest.raises(CalibError, match=message):
        fitted.predict_proba(scores, input=kind)


def test_files_that_cannot_be_saved_or_loaded(fitted, tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        fitted.save(tmp_path / "nowhere" / "p.json")
    with pytest.raises(UsageError, match="is a folder"):
        fitted.save(tmp_path)
    with pytest.raises(ParamsError, match=r"p\.json: No such file"):
        calibcli.load(tmp_path / "p.json")
    assert list(tmp_path.iterdir()) == []


def test_names_of_the_package():
    assert set(dir(calibcli)) >= set(calibcli.__all__)
    for name in calibcli.__all__:
        assert getattr(calibcli, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'calibrate'"):
        _ = calibcli.calibrate


def test_what_the_interface_returns_and_raises_is_exported(fitted):
    logits, labels = data()
    assert isinstance(fitted, calibcli.FittedCalibrator)
    assert isinstance(fitted.params, calibcli.Params)
    assert isinstance(fitted.outcome, calibcli.Outcome)
    assert isinstance(calibcli.evaluate(softmax(logits), labels), calibcli.Evaluation)
    with pytest.raises(calibcli.DataError) as raised:
        calibcli.fit(logits, labels[1:])
    assert isinstance(raised.value, calibcli.CalibError)


def test_probabilities_are_seen_to_be_probabilities():
    probs = softmax(Z)
    for rows in (probs, probs.astype(np.float32), probs.astype(np.float16), probs.tolist()):
        found = calibcli.fit(rows, Y)
        assert found.params.input == "probs"
        assert abs(temperature(found) / temperature(calibcli.fit(Z, Y)) - 1) < 0.01
    assert calibcli.fit(probs, Y, input="logits").params.input == "logits"
    board = calibcli.compare(probs, Y, methods=["none", "temperature"])
    plain = next(each for each in board.standings if each.trial.name == "none")
    shown = calibcli.evaluate(probs, Y).values["nll"]
    assert plain.evaluation.values["nll"] == pytest.approx(shown, rel=1e-6)


def test_single_scores_are_probabilities_if_enough_of_them_could_be():
    logits, labels = data(classes=2)
    chances = softmax(logits)[:, 1]
    assert calibcli.fit(chances, labels).params.input == "probs"
    few = calibcli.fit([0.2, 0.9, 0.4], [0, 1, 0], method="temperature", folds=0)
    assert few.params.input == "logits"
    tags = np.stack((chances, chances[::-1]), axis=1)
    found = calibcli.fit(
        tags, np.stack((labels, labels[::-1]), axis=1), multi_label=True, method="temperature"
    )
    assert found.params.input == "probs"


def test_rows_that_may_be_either_are_refused():
    either = np.random.default_rng(3).uniform(size=(40, 3))
    zeros = np.zeros((40, 3))
    assert calibcli.fit(zeros, np.arange(40) % 3, folds=0).params.input == "logits"
    for call in (calibcli.fit, calibcli.compare):
        with pytest.raises(UsageError, match=r"sums to .* input='logits' if they are"):
            call(either, np.arange(40) % 3)
    calibcli.fit(either, np.arange(40) % 3, input="logits", method="temperature", folds=0)


def test_a_wrong_label_of_rows_in_half_precision_is_refused():
    with pytest.raises(DataError, match=f"row 7: .*{CLASSES}"):
        calibcli.fit(Z.astype(np.float16), np.where(np.arange(ROWS) == 7, CLASSES, Y))
