"""Rows that stand for several in the Python interface: what the commands make of the same files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import calibcli
from calibcli.errors import CalibError

RNG = np.random.default_rng(31)
ROWS = 120
LOGITS = 2 * RNG.normal(size=(ROWS, 3))
LABELS = (0.5 * LOGITS + RNG.gumbel(size=LOGITS.shape)).argmax(axis=1)
COUNTS = RNG.integers(0, 4, ROWS)
VOTES = RNG.multinomial(5, [0.5, 0.3, 0.2], ROWS)
MEMBERSHIPS = (RNG.random(LOGITS.shape) < 1 / (1 + np.exp(-LOGITS / 2))).astype(int)
CLUSTERS = np.arange(ROWS) // 3


def of_command(run, folder: Path, *options: str, **arrays: object) -> dict[str, dict]:
    np.savez(folder / "a.npz", **arrays)
    command = ["evaluate", str(folder / "a.npz"), "--format", "json", "--bootstrap", "50"]
    code, out, err = run(*command, *options)
    assert code == 0, err
    metrics: dict[str, dict] = json.loads(out)["metrics"]
    return metrics


def agree(evaluation: calibcli.Evaluation, metrics: dict[str, dict]) -> None:
    assert evaluation.values.keys() == metrics.keys()
    for name, expected in metrics.items():
        assert evaluation.values[name] == pytest.approx(expected["value"], rel=1e-12), name
        ends = evaluation.intervals[name]
        assert [ends.low, ends.high] == pytest.approx([expected["low"], expected["high"]]), name


def logits_evaluated(labels: object, **options: object) -> calibcli.Evaluation:
    return calibcli.evaluate(LOGITS, labels, input="logits", bootstrap=50, **options)


def test_counts_are_those_of_the_command_and_of_the_rows(calib_here, tmp_path) -> None:
    counted = logits_evaluated(LABELS, counts=COUNTS)
    metrics = of_command(
        calib_here, tmp_path, "--counts", "n", logits=LOGITS, label=LABELS, n=COUNTS
    )
    agree(counted, metrics)
    index = np.repeat(np.arange(ROWS), COUNTS)
    plain = calibcli.evaluate(LOGITS[index], LABELS[index], input="logits", bootstrap=50)
    assert counted.values == plain.values
    assert counted.intervals == plain.intervals


@pytest.mark.parametrize(
    "labels", [VOTES, VOTES / 5, np.eye(3)[LABELS]], ids=["votes", "shares", "one-hot"]
)
@pytest.mark.parametrize("clustered", [False, True])
def test_rows_of_classes_are_those_of_the_command(calib_here, tmp_path, labels, clustered) -> None:
    more = {"patient": CLUSTERS} if clustered else {}
    options = ["--cluster", "patient"] if clustered else []
    metrics = of_command(calib_here, tmp_path, *options, logits=LOGITS, label=labels, **more)
    agree(logits_evaluated(labels, cluster=CLUSTERS if clustered else None), metrics)
    logs = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    shares = labels / labels.sum(axis=1, keepdims=True)
    assert metrics["nll"]["value"] == pytest.approx(-(shares * logs).sum(axis=1).mean())


def test_votes_in_a_file_of_their_own_are_those_beside_the_scores(calib_here, tmp_path) -> None:
    beside = of_command(calib_here, tmp_path, logits=LOGITS, label=VOTES)
    np.save(tmp_path / "y.npy", VOTES)
    apart = of_command(calib_here, tmp_path, "--labels", str(tmp_path / "y.npy"), logits=LOGITS)
    assert apart == beside
    np.save(tmp_path / "y.npy", LABELS)
    apart = of_command(
        *(calib_here, tmp_path, "--labels", str(tmp_path / "y.npy"), "--counts", "n"),
        logits=LOGITS,
        n=COUNTS,
    )
    agree(logits_evaluated(LABELS, counts=COUNTS), apart)


def test_counted_rows_of_votes_are_resampled_one_by_one(calib_here, tmp_path) -> None:
    arrays = {"logits": LOGITS, "label": VOTES, "n": COUNTS}
    counted = of_command(calib_here, tmp_path, "--counts", "n", **arrays)
    agree(logits_evaluated(VOTES, counts=COUNTS), counted)
    index = np.repeat(np.arange(ROWS), COUNTS)
    spelt = of_command(calib_here, tmp_path, logits=LOGITS[index], label=VOTES[index])
    assert counted == spelt


def test_several_labels_a_row(calib_here, tmp_path) -> None:
    evaluation = logits_evaluated(MEMBERSHIPS, multi_label=True)
    arrays = {"logits": LOGITS, "label": MEMBERSHIPS}
    agree(evaluation, of_command(calib_here, tmp_path, "--multi-label", **arrays))
    with pytest.raises(CalibError, match=r"row \d+: has several classes, or none; .*multi_label"):
        logits_evaluated(MEMBERSHIPS)


def test_a_fit_of_several_labels_is_that_of_each_by_itself(calib_here) -> None:
    names = ["cat", "dog", "fish"]
    fitted = calibcli.fit(LOGITS, MEMBERSHIPS, multi_label=names, method="platt", folds=0)
    probs = fitted.predict_proba(LOGITS)
    for k in range(3):
        alone = calibcli.fit(LOGITS[:, k], MEMBERSHIPS[:, k], method="platt", folds=0)
        np.testing.assert_allclose(probs[:, k], alone.predict_proba(LOGITS[:, k])[:, 1], rtol=1e-6)
    np.testing.assert_array_equal(fitted.decide(LOGITS, threshold=0.5), probs >= 0.5)
    fitted.save("p.json")
    again = calibcli.load("p.json")
    np.testing.assert_array_equal(again.predict_proba(LOGITS), probs)
    np.savez("a.npz", logits=LOGITS)
    assert calib_here("apply", "p.json", "a.npz", "-o", "o.npz")[0] == 0
    np.testing.assert_allclose(np.load("o.npz")["probs"], probs, rtol=1e-6)
    code, _, err = calib_here("apply", "p.json", "a.npz", "-o", "b.npz", "--classes", "a,b,c")
    assert code == 2
    assert "its labels are a, b, c, but p.json is for cat, dog, fish" in err


def test_fits_and_comparisons_take_counts_and_votes() -> None:
    index = np.repeat(np.arange(ROWS), COUNTS)
    fits = [
        calibcli.fit(LOGITS, LABELS, counts=COUNTS, method="temperature"),
        calibcli.fit(LOGITS[index], LABELS[index], method="temperature"),
    ]
    assert fits[0].stages == fits[1].stages
    assert fits[0].outcome.after.values == fits[1].outcome.after.values
    methods = ["none", "temperature"]
    boards = [
        calibcli.compare(LOGITS, LABELS, counts=COUNTS, methods=methods),
        calibcli.compare(LOGITS[index], LABELS[index], methods=methods),
    ]
    losses = [[each.evaluation.values for each in board.standings] for board in boards]
    assert losses[0] == losses[1]
    assert calibcli.compare(LOGITS, VOTES, methods=methods).standings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": COUNTS - 1}, "row .*: the count -1 is no whole number of rows"),
        ({"counts": COUNTS[:-1]}, r"counts must have the shape \(120,\)"),
        ({"labels": VOTES[:-1]}, r"labels must have the shape \(120,\) or \(120, 3\)"),
        ({"labels": VOTES - 1}, "row .*: a value of the label is below 0 or no number"),
        ({"labels": VOTES + 0.5}, "neither one-hot nor shares"),
        ({"labels": VOTES, "multi_label": True}, "row 0: a label is neither 0 nor 1"),
        ({"labels": LABELS, "multi_label": True}, "of the scores"),
        ({"labels": VOTES, "ids": np.arange(119)}, r"ids must have the shape \(120,\)"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(options, message) -> None:
    arguments = {"labels": LABELS, **options}
    with pytest.raises(CalibError, match=message) as caught:
        calibcli.evaluate(LOGITS, input="logits", **arguments)
    assert "\n" not in str(caught.value)


def test_names_of_labels_are_as_many_as_the_scores() -> None:
    with pytest.raises(CalibError, match="a name for each of the 3 labels"):
        calibcli.fit(LOGITS, MEMBERSHIPS, multi_label=["cat", "dog"])
    with pytest.raises(CalibError, match="leave out by"):
        calibcli.fit(LOGITS, MEMBERSHIPS, multi_label=True, by=LABELS)
