"""Multi-label data: each label is two classes, fitted and measured by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

import calibcli
from calibcli.arrays import NumpyArray
from calibcli.cli.app import run
from calibcli.errors import CalibError
from calibcli.tables import ReadOptions, open_dataset
from calibcli.tables.dataset import Dataset

NAMES = ("cat", "dog", "fish", "bird")
ROWS = 400


@pytest.fixture(scope="module")
def rows() -> tuple[NumpyArray, NumpyArray]:
    """Scores (N, K) of an overconfident model, float64, and whether each label is right."""
    rng = np.random.default_rng(5)
    scores = rng.normal(size=(ROWS, len(NAMES))) * 2 - [1, 0, 2, 0.5]
    truth = rng.random(scores.shape) < 1 / (1 + np.exp(-scores / [2, 1.5, 1, 3]))
    return scores, truth.astype(np.int64)


def sigmoid(scores: NumpyArray) -> NumpyArray:
    probs: NumpyArray = 1 / (1 + np.exp(-scores))
    return probs


def write(folder: Path, form: str, scores: NumpyArray, truth: NumpyArray) -> tuple[Path, list[str]]:
    """A file of a form, and the options that it is read with."""
    listed = [np.flatnonzero(row).tolist() for row in truth]
    if form == "npz":
        np.savez(folder / "m.npz", logits=scores, labels=truth)
        return folder / "m.npz", ["--classes", ",".join(NAMES)]
    if form == "npy":
        np.save(folder / "logits.npy", scores)
        np.save(folder / "y.npy", truth)
        options = ["--labels", str(folder / "y.npy"), "--classes", ",".join(NAMES)]
        return folder / "logits.npy", options
    columns: dict[str, Any] = {"logits": pa.array(scores.tolist())}
    if form == "numbers":
        columns["labels"] = pa.array(listed, pa.list_(pa.int64()))
    elif form == "names":
        columns["labels"] = pa.array([[NAMES[k] for k in row] for row in listed])
    elif form == "vectors":
        columns["labels"] = pa.array(truth.tolist(), pa.list_(pa.int8()))
    else:
        columns = {f"logit_{name}": scores[:, k] for k, name in enumerate(NAMES)}
        columns |= {f"label_{name}": truth[:, k] for k, name in enumerate(NAMES)}
    columns["id"] = [f"row {i}" for i in range(ROWS)]
    table = pa.table(columns)
    if form == "csv":
        pyarrow.csv.write_csv(table, folder / "m.csv")
        return folder / "m.csv", []
    pq.write_table(table, folder / "m.parquet", row_group_size=150)
    return folder / "m.parquet", [] if form == "columns" else ["--classes", ",".join(NAMES)]


Run = Callable[..., str]


@pytest.fixture
def run_cli(calib_here: Callable[..., tuple[int, str, str]]) -> Run:
    """What a command prints; on stderr where it fails."""

    def run(*arguments: str | Path, code: int = 0) -> str:
        given, out, err = calib_here(*arguments)
        assert given == code, err
        return err if code else out

    return run


FORMS = ("npz", "npy", "numbers", "names", "vectors", "columns", "csv")


def ordered(form: str) -> list[int]:
    """The places of the labels in the order of the form: columns are put in that of their names."""
    by_name = sorted(range(len(NAMES)), key=NAMES.__getitem__)
    return by_name if form in ("columns", "csv") else list(range(len(NAMES)))


def opened(path: Path, **options: Any) -> Dataset:
    return open_dataset([str(path)], ReadOptions(multi_label=True, **options))


def pairs(dataset: Dataset, step: int) -> tuple[NumpyArray, NumpyArray]:
    chunks = list(dataset.chunks(step))
    assert all(0 < len(chunk.scores) <= step for chunk in chunks)
    scores = np.concatenate([chunk.scores for chunk in chunks])
    labels = np.concatenate([np.asarray(chunk.labels) for chunk in chunks])
    return scores, labels


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pairs(
    form: str, rows: tuple[NumpyArray, NumpyArray], tmp_path: Path
) -> None:
    path, given = write(tmp_path, form, *rows)
    options: dict[str, Any] = {}
    if "--classes" in given:
        options["classes"] = NAMES
    if "--labels" in given:
        options["labels"] = given[1]
    for step in (3, 10, 5000):
        with opened(path, **options) as dataset:
            scores, labels = pairs(dataset, step)
            assert dataset.rows == ROWS * len(NAMES)
        places = ordered(form)
        np.testing.assert_array_equal(scores[:, 0], rows[0][:, places].reshape(-1))
        np.testing.assert_array_equal(labels, rows[1][:, places].reshape(-1))


def fitted(run_cli: Run, path: Path, folder: Path, *options: str) -> dict[str, Any]:
    """What the only stage of a fit has learnt."""
    params = folder / "p.json"
    output = folder / "fitted.parquet"
    run_cli("fit", str(path), "-m", "platt", "-p", str(params), "-o", str(output), "-q", *options)
    (stage,) = json.loads(params.read_text())["stages"]
    parameters: dict[str, Any] = stage["parameters"]
    return parameters


def test_a_fit_is_that_of_each_label_by_itself(
    rows: tuple[NumpyArray, NumpyArray], tmp_path: Path, run_cli: Run
) -> None:
    scores, truth = rows
    path, options = write(tmp_path, "npz", scores, truth)
    groups = fitted(run_cli, path, tmp_path, "--multi-label", *options)
    assert groups["names"] == list(NAMES)
    assert groups["weights"] == [1.0] * len(NAMES)
    calibrated = pq.read_table(tmp_path / "fitted.parquet")
    assert np.stack(calibrated["probs"].to_numpy()).shape == truth.shape
    for k in range(len(NAMES)):
        single = tmp_path / str(k)
        single.mkdir()
        np.savez(single / "s.npz", logits=scores[:, k], labels=truth[:, k])
        alone = fitted(run_cli, single / "s.npz", single)
        (own,) = groups["own"][k]
        for name, value in alone.items():
            assert own["parameters"][name] == pytest.approx(value, rel=1e-12, abs=1e-12)
        probs = np.stack(pq.read_table(single / "fitted.parquet")["probs"].to_numpy())[:, 1]
        np.testing.assert_allclose(
            np.stack(calibrated["probs"].to_numpy())[:, k], probs, rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("form", FORMS)
def test_apply_gives_a_probability_for_each_label(
    form: str, rows: tuple[NumpyArray, NumpyArray], tmp_path: Path, run_cli: Run
) -> None:
    path, options = write(tmp_path, form, *rows)
    groups = fitted(run_cli, path, tmp_path, "--multi-label", *options)
    labels = options[:2] if options[:1] == ["--labels"] else []
    for suffix in ("npz", "parquet"):
        output = tmp_path / f"o.{suffix}"
        params = str(tmp_path / "p.json")
        run_cli("apply", params, str(path), "-o", str(output), "-q", *labels)
        if suffix == "npz":
            with np.load(output) as arrays:
                probs, label, names = arrays["probs"], arrays["label"], arrays["classes"]
            assert names.tolist() == [NAMES[k] for k in ordered(form)]
        else:
            table = pq.read_table(output)
            probs, label = (np.stack(table[name].to_numpy()) for name in ("probs", "label"))
            if form not in ("npz", "npy"):
                assert table["id"].to_pylist() == [f"row {i}" for i in range(ROWS)]
        np.testing.assert_array_equal(label, rows[1][:, ordered(form)])
        for place, k in enumerate(ordered(form)):
            (own,) = groups["own"][place]
            slope, shift = own["parameters"]["slope"], own["parameters"]["intercept"]
            expected = sigmoid(slope * rows[0][:, k] + shift)
            np.testing.assert_allclose(probs[:, place], expected, atol=1e-12)


def test_micro_and_macro(rows: tuple[NumpyArray, NumpyArray], tmp_path: Path, run_cli: Run) -> None:
    scores, truth = rows
    probs = sigmoid(scores)
    np.savez(tmp_path / "m.npz", probs=probs, labels=np.where(truth[:, :1] >= 0, truth, 0))
    command = ["evaluate", str(tmp_path / "m.npz"), "--multi-label", "--format", "json", "-q"]
    document = json.loads(run_cli(*command))
    losses = -np.log(np.where(truth == 1, probs, 1 - probs))
    squares = 2 * (probs - truth) ** 2
    assert document["input"]["kind"] == "probs"
    assert document["metrics"]["nll"]["value"] == pytest.approx(losses.mean(), rel=1e-12)
    assert document["input"]["clusters"] == {"column": "stored row", "count": ROWS}
    (part,) = document["slices"]
    by_label = {each["name"]: each for each in part["slices"]}
    errors = []
    for k in range(len(NAMES)):
        assert by_label[str(k)]["nll"]["value"] == pytest.approx(losses[:, k].mean(), rel=1e-12)
        bins = np.minimum((probs[:, k] * 15).astype(int), 14)
        gaps = np.bincount(bins, probs[:, k] - truth[:, k])
        errors.append(np.abs(gaps).sum() / ROWS)
    macro = part["macro"]
    assert macro["nll"] == pytest.approx(losses.mean(axis=0).mean(), rel=1e-12)
    assert macro["brier"] == pytest.approx(squares.mean(), rel=1e-12)
    assert macro["ece"] == pytest.approx(np.mean(errors), rel=1e-9)


def test_intervals_are_those_of_whole_rows(
    rows: tuple[NumpyArray, NumpyArray], tmp_path: Path, run_cli: Run
) -> None:
    """Labels that are the same in a row are no more rows than there are."""
    scores, truth = (np.repeat(each[:, :1], 4, axis=1) for each in rows)
    np.savez(tmp_path / "four.npz", logits=scores, labels=truth)
    np.savez(tmp_path / "one.npz", logits=scores[:, 0], labels=truth[:, 0])
    widths = []
    for name, options in (("four.npz", ["--multi-label"]), ("one.npz", [])):
        document = json.loads(
            run_cli("evaluate", str(tmp_path / name), *options, "--format", "json", "-q")
        )
        nll = document["metrics"]["nll"]
        widths.append(nll["high"] - nll["low"])
    assert widths[0] == pytest.approx(widths[1], rel=0.15)


def test_rows_that_prove_it_are_refused_with_the_option(
    rows: tuple[NumpyArray, NumpyArray], tmp_path: Path
) -> None:
    for form in ("npz", "numbers", "names", "columns"):
        path, _ = write(tmp_path, form, *rows)
        with pytest.raises(CalibError, match="--multi-label"):
            open_dataset([str(path)], ReadOptions(classes=None if form == "columns" else NAMES))


def test_one_hot_rows_are_classes_unless_asked_otherwise(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=(30, 3))
    np.savez(tmp_path / "h.npz", logits=scores, labels=np.eye(3, dtype=int)[np.arange(30) % 3])
    with open_dataset([str(tmp_path / "h.npz")], ReadOptions()) as dataset:
        assert (dataset.rows, dataset.columns) == (30, 3)
    with opened(tmp_path / "h.npz") as dataset:
        assert (dataset.rows, dataset.columns) == (90, 1)


def test_unknown_cells_are_left_out(rows: tuple[NumpyArray, NumpyArray], tmp_path: Path) -> None:
    truth = rows[1].astype(float)
    truth[::7, 1] = np.nan
    np.savez(tmp_path / "m.npz", logits=rows[0], labels=truth)
    with pytest.raises(CalibError, match="row 0, label 1: the label is missing"):
        list(opened(tmp_path / "m.npz").chunks(100))
    with opened(tmp_path / "m.npz", unlabelled="skip") as dataset:
        assert dataset.rows == np.isfinite(truth).sum()
        np.testing.assert_array_equal(pairs(dataset, 64)[1], truth[np.isfinite(truth)])


@pytest.mark.parametrize(
    ("names", "message"),
    [(("cat", "dog", "bird", "fish"), "its labels are"), (NAMES[:3], "3 labels are named")],
)
def test_other_labels_than_those_of_the_fit_are_refused(
    names: tuple[str, ...],
    message: str,
    rows: tuple[NumpyArray, NumpyArray],
    tmp_path: Path,
    run_cli: Run,
) -> None:
    path, options = write(tmp_path, "npz", *rows)
    fitted(run_cli, path, tmp_path, "--multi-label", *options)
    np.savez(tmp_path / "other.npz", logits=rows[0], classes=np.array(names))
    command = ["apply", str(tmp_path / "p.json"), str(tmp_path / "other.npz")]
    said = run_cli(*command, "-o", str(tmp_path / "o.npz"), code=2)
    assert message in said or "its labels are" in said


def test_files_go_on_numbering_rows(rows: tuple[NumpyArray, NumpyArray], tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", logits=rows[0], labels=rows[1])
    files = [str(tmp_path / f"{name}.npz") for name in ("a", "b")]
    with open_dataset(files, ReadOptions(multi_label=True)) as dataset:
        assert len(dataset.key_names("cluster")) == 2 * ROWS
        assert dataset.locate(ROWS * 4 + 6).endswith("b.npz, row 1, label 2")


def test_methods_are_compared_label_by_label(
    rows: tuple[NumpyArray, NumpyArray], tmp_path: Path, calib_here: Any
) -> None:
    """The figures of the comparison, and the choice of a fit, are those of a fit by label."""
    path, options = write(tmp_path, "npz", *rows)
    command = ["compare", str(path), "--multi-label", *options, "-q", "--format", "json"]
    code, out, err = calib_here(*command, "--methods", "none,temperature,platt")
    assert code == 0, err
    listed = json.loads(out)["leaderboard"]
    board = {each["method"]: each["metrics"]["nll"]["value"] for each in listed}
    for method in ("temperature", "platt"):
        fitted = calibcli.fit(*rows, multi_label=True, method=method)
        assert board[method] == pytest.approx(fitted.outcome.after.values["nll"], rel=1e-12)
    compared = calibcli.compare(*rows, multi_label=True, methods=list(board))
    assert {
        each.trial.name: each.evaluation.values["nll"] for each in compared.standings
    } == pytest.approx(board, rel=1e-12)
    chosen = calibcli.fit(*rows, multi_label=True).outcome
    best = min(each.evaluation.values["nll"] for each in chosen.leaderboard.standings)
    assert chosen.after.values["nll"] == pytest.approx(best, rel=0.01)
    code, _, err = calib_here(*command, "--methods", "temperature", "--stack")
    assert code == 2
    assert "--stack mixes maps of all rows" in err


def test_an_output_has_no_column_of_the_name_of_a_label(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 3))
    np.savez("t.npz", logits=logits, labels=(rng.random((200, 3)) < 0.4).astype(int))
    fit = ["fit", "t.npz", "--multi-label", "-m", "platt", "-p", "p.json", "-q"]
    assert run([*fit, "-o", "f.npz"]) == 0
    assert run(["apply", "p.json", "t.npz", "-q", "-o", "a.parquet"]) == 0
    with np.load("f.npz") as stored:
        assert "label name" not in stored.files
    assert pq.read_schema("a.parquet").names == ["probs", "label"]
