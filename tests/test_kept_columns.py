"""What ``--keep`` writes of each row, and what can be said of a file that has no more."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from calibcli import fit, load
from calibcli.cli.shared_options import complete_keep
from calibcli.engine.kept_columns import Kept, parse_kept, top_classes
from calibcli.errors import UsageError

ROWS, CLASSES = 60, 7


@pytest.fixture
def rows(tmp_path):
    """Rows in a file, a calibrator of them in another, and what it makes of all classes."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((ROWS, CLASSES))
    labels = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    np.savez(tmp_path / "rows.npz", logits=logits, labels=labels)
    np.savez(tmp_path / "bare.npz", logits=logits)
    calibrator = fit(logits, labels, method="temperature", folds=0)
    calibrator.save(tmp_path / "p.json")
    return logits, labels, calibrator.predict_proba(logits)


def table(path):
    columns = pq.read_table(path).to_pydict()
    return {name: np.array(values) for name, values in columns.items()}


@given(
    arrays.arrays(np.float32, (3, 9), elements=st.sampled_from([0.0, 0.125, 0.25, 0.5])),
    st.integers(1, 12),
)
def test_the_most_probable_come_first_and_of_equals_the_least_number(probs, count):
    before = probs.copy()
    columns = top_classes(probs, count)
    expected = np.argsort(-probs, axis=1, kind="stable")[:, :count]
    assert (columns["topk_index"] == expected).all()
    kept = np.take_along_axis(probs, expected, axis=1)
    np.testing.assert_allclose(np.exp(columns["topk_logprob"]), kept, rtol=1e-6)
    left = probs.sum(axis=1) - kept.sum(axis=1)
    np.testing.assert_allclose(columns["topk_rest"], left, atol=1e-6)
    assert (probs == before).all()


@given(st.integers(0, 1000), st.integers(1, 4), st.booleans())
def test_of_many_classes_they_are_the_same(seed, count, tied):
    probs = np.random.default_rng(seed).random((3, 2600)).astype(np.float32)
    if tied:
        probs = np.round(probs, 2)
    expected = np.argsort(-probs, axis=1, kind="stable")[:, :count]
    assert (top_classes(probs, count)["topk_index"] == expected).all()


@pytest.mark.parametrize("workers", [(), ("--workers", "processes:2")])
def test_a_folder_of_parts_has_what_a_file_has(tmp_path, calib_here, workers):
    rng = np.random.default_rng(3)
    scores = (2 * rng.standard_normal((3000, 700))).astype(np.float32)
    labels = rng.integers(0, 700, len(scores))
    fit(scores, labels, method="temperature", folds=0).save(tmp_path / "many.json")
    pq.write_table(pa.table({"logits": list(scores), "label": labels}), tmp_path / "many.parquet")
    apply, keep = ("apply", "many.json", "many.parquet"), ("--keep", "top:5,label")
    assert calib_here(*apply, "-o", "whole.parquet", *keep)[0] == 0
    assert calib_here(*apply, "-o", "parts/", *keep, *workers)[0] == 0
    whole = pq.read_table(tmp_path / "whole.parquet")
    parts = [pq.read_table(each) for each in sorted((tmp_path / "parts").glob("*.parquet"))]
    assert sum(map(len, parts)) == len(scores)
    assert pa.concat_tables(parts).to_pydict() == whole.to_pydict()
    names = set(whole.schema.names)
    assert {"topk_index", "topk_logprob", "topk_rest", "label_prob"} <= names
    assert "probs" not in names


@pytest.mark.parametrize("suffix", ["parquet", "npz", "arrow"])
def test_every_column_is_that_of_all_probabilities(rows, suffix, calib_here):
    _, labels, probs = rows
    out, keep = f"o.{suffix}", ("--keep", "top:3,confidence", "--keep", "label")
    assert calib_here("apply", "p.json", "rows.npz", "-o", out, *keep)[0] == 0
    columns = columns_of(out)
    assert "probs" not in columns
    largest = -np.sort(-probs, axis=1)
    np.testing.assert_allclose(np.exp(columns["topk_logprob"]), largest[:, :3], rtol=1e-12)
    assert (columns["label_prob"] == probs[np.arange(ROWS), labels]).all()
    assert (columns["prediction"] == probs.argmax(axis=1)).all()
    assert (columns["confidence"] == largest[:, 0]).all()
    assert (columns["label"] == labels).all()
    assert (columns["correct"] == (probs.argmax(axis=1) == labels)).all()


def columns_of(path):
    if path.endswith("npz"):
        return dict(np.load(path))
    if path.endswith("parquet"):
        columns = pq.read_table(path)
    else:
        with pa.OSFile(path) as file:
            columns = pa.ipc.open_file(file).read_all()
    return {name: np.array(values) for name, values in columns.to_pydict().items()}


@pytest.mark.usefixtures("rows")
def test_what_evaluate_says_of_what_was_kept(calib_here):
    def figures(keep, *command):
        kept = () if keep is None else ("--keep", keep)
        assert calib_here(*command, "-o", "o.parquet", "--force", *kept)[0] == 0
        code, out, _ = calib_here("evaluate", "o.parquet", "--format", "json", "--bootstrap", "0")
        assert code == 0
        return {name: each["value"] for name, each in json.loads(out)["metrics"].items()}

    apply = ("apply", "p.json", "rows.npz")
    whole = figures(None, *apply)
    # All classes in their order: nothing is lost, and the file says how many there are.
    assert figures(f"top:{CLASSES}", *apply) == pytest.approx(whole, rel=1e-9)
    some = figures("top:2", *apply)
    for name in ("accuracy", "ece", "ks"):
        assert some[name] == pytest.approx(whole[name])
    # The fit is the same, and so is what is right.
    fit_again = ("fit", "rows.npz", "-m", "temperature", "-p", "again.json")
    assert figures("confidence", *fit_again)["ece"] == pytest.approx(whole["ece"])
    assert calib_here(*apply, "-o", "l.parquet", "--keep", "label")[0] == 0
    code, _, err = calib_here("evaluate", "l.parquet")
    assert code == 2
    assert "label_prob is the probability of each label alone" in err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("rows.npz", "-o", "o.parquet", "--keep", "top:0"), "'top:0' is not known"),
        (("rows.npz", "-o", "o.parquet", "--keep", "labels"), "'labels' is not known"),
        (("rows.npz", "-o", "o.npy", "--keep", "label"), "all classes alone"),
        (("bare.npz", "-o", "o.parquet", "--keep", "label"), "has no labels"),
    ],
)
@pytest.mark.usefixtures("rows")
def test_what_cannot_be_kept_is_refused(command, message, calib_here, tmp_path):
    before = sorted(tmp_path.iterdir())
    code, _, err = calib_here("apply", "p.json", *command)
    assert code == 2
    assert message in err
    assert sorted(tmp_path.iterdir()) == before


def test_words_can_stand_together_or_apart():
    assert parse_kept(["top:2,label", "top:5"]) == Kept(5, label=True)
    assert parse_kept([]) is None
    with pytest.raises(UsageError, match="top:K"):
        parse_kept(["top"])
    assert complete_keep("label,co") == ["label,confidence"]


def test_the_most_probable_classes_in_python(rows, tmp_path):
    logits, _, whole = rows
    calibrator = load(tmp_path / "p.json")
    classes, probs = calibrator.predict_top(logits, 2)
    assert (classes == np.argsort(-whole, axis=1)[:, :2]).all()
    np.testing.assert_allclose(probs, np.take_along_axis(whole, classes, axis=1), rtol=1e-12)
    assert calibrator.predict_top(logits[:0], 99)[0].shape == (0, CLASSES)
    with pytest.raises(UsageError, match="at least one"):
        calibrator.predict_top(logits, 0)
