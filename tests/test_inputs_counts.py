"""Rows that stand for several: counts, one-hot labels, distributions and votes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibcli.errors import CalibError, DataError
from calibcli.tables import ReadOptions, open_dataset

RNG = np.random.default_rng(29)
LOGITS = 2 * RNG.normal(size=(300, 4))
LOG_PROBS = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
SHARES = np.exp(LOG_PROBS / 2) / np.exp(LOG_PROBS / 2).sum(axis=1, keepdims=True)
VOTES = np.array([RNG.multinomial(11, share) for share in SHARES])
LABELS = VOTES.argmax(axis=1)


@pytest.fixture
def run(calib_here):
    def call(*arguments: str | Path) -> dict:
        code, out, err = calib_here(*arguments, "--format", "json", "-q")
        assert code == 0, err
        return json.loads(out)

    return call


def figures(document: dict) -> dict:
    """All numbers but those that say which file it was."""
    return {key: document[key] for key in ("rows", "metrics", "reliability") if key in document}


# Counts


def cells(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A table of cells, in a Parquet file, and which cell each counted row is of."""
    levels = np.repeat(np.linspace(-3, 3, 13), 2)
    labels = np.tile([0, 1], 13)
    right = 1 / (1 + np.exp(-levels / 2))
    counts = np.round(120 * np.where(labels == 1, right, 1 - right)).astype(np.int64)
    counts[3] = 0
    table = {"logit": levels, "label": labels, "n": counts}
    pq.write_table(pa.table(table), path)
    return table, np.repeat(np.arange(26), counts)


def test_a_table_of_counts_has_the_figures_of_its_rows(run, tmp_path) -> None:
    table, index = cells(tmp_path / "cells.parquet")
    rows = {name: values[index] for name, values in table.items() if name != "n"}
    np.savez(tmp_path / "rows.npz", **rows)
    np.savez(tmp_path / "cells.npz", **table)
    lines = zip(*(values.tolist() for values in table.values()), strict=True)
    text = "\n".join([",".join(table), *(",".join(map(str, line)) for line in lines)])
    (tmp_path / "cells.csv").write_text(text + "\n")
    spelt = run("evaluate", "rows.npz", "--metrics", "all", "--tests")
    for form, metrics in (("parquet", "all"), ("npz", "default"), ("csv", "default")):
        how = ("--counts", "n", "--metrics", metrics, "--tests")
        counted = run("evaluate", f"cells.{form}", *how)
        assert counted["rows"] == len(index)
        assert counted["reliability"] == spelt["reliability"]
        assert counted["metrics"].items() <= spelt["metrics"].items()


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_folds_split_the_rows_of_a_cell(run, tmp_path, method) -> None:
    table, index = cells(tmp_path / "cells.parquet")
    np.savez(tmp_path / "rows.npz", **{k: v[index] for k, v in table.items() if k != "n"})
    how = ("-m", method, "--force")
    counted = run(
        *("fit", "cells.parquet", "--counts", "n", *how), "-p", "a.json", "-o", "a.parquet"
    )
    spelt = run("fit", "rows.npz", *how, "-p", "b.json", "-o", "b.npz")
    for key in ("before", "after", "stages"):
        assert counted[key] == spelt[key]
    # What is written are the rows of the table, once each.
    written = pq.read_table(tmp_path / "a.parquet").to_pydict()
    assert written["n"] == table["n"].tolist()
    assert len(written["prediction"]) == 26


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 2.5, 1], "row 1: the count 2.5 is no whole number"),
        ([1, -1, 1], "row 1: the count -1 is no whole number"),
        ([1, None, 1], "row 1: the count is missing"),
        ([0, 0, 0], "make 0 rows"),
        ([1, 1 << 31, 1], "row 1"),
        (["a", "b", "c"], "cannot be counts"),
    ],
)
def test_what_is_no_count_is_refused(tmp_path, counts, message) -> None:
    pq.write_table(
        pa.table({"logit": [0.1, 0.2, 0.3], "label": [0, 1, 1], "n": counts}),
        tmp_path / "t.parquet",
    )
    with pytest.raises(CalibError, match=message):
        open_dataset([str(tmp_path / "t.parquet")], ReadOptions(counts="n"))


def test_rows_are_found_again_across_blocks(tmp_path) -> None:
    counts = RNG.integers(0, 4, 50_000)
    z = RNG.normal(size=50_000)
    np.savez(tmp_path / "t.npz", logit=z, label=np.zeros(50_000, np.int64), n=counts)
    with open_dataset([str(tmp_path / "t.npz")], ReadOptions(counts="n")) as dataset:
        index = np.repeat(np.arange(50_000), counts)
        assert dataset.rows == len(index)
        for rows in (777, 10_000, 1 << 20):
            read = np.concatenate([chunk.scores[:, 0] for chunk in dataset.chunks(rows)])
            np.testing.assert_array_equal(read, z[index])
        parts = [c.scores[:, 0] for p in dataset.cut(30_000) for c in p.chunks(1000)]
        np.testing.assert_array_equal(np.concatenate(parts), z[index])
        for row in (0, 17, 40_000, len(index) - 1):
            assert dataset.locate(row).endswith(f"row {index[row]}")


# Vectors of labels


def save(path: Path, labels: np.ndarray) -> None:
    if path.suffix == ".npz":
        np.savez(path, logits=LOGITS, labels=labels)
    else:
        pq.write_table(pa.table({"logits": LOGITS.tolist(), "labels": labels.tolist()}), path)


@pytest.mark.parametrize("form", ["npz", "parquet"])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool, np.uint8])
def test_one_hot_labels_are_class_numbers(run, tmp_path, form, dtype) -> None:
    save(tmp_path / f"hot.{form}", np.eye(4, dtype=dtype)[LABELS])
    save(tmp_path / f"plain.{form}", LABELS)
    found = run("evaluate", f"hot.{form}")
    assert figures(found) == figures(run("evaluate", f"plain.{form}"))
    assert found["input"]["picked"]["label vectors"] == "one-hot, taken as class numbers"


def test_one_hot_labels_in_a_file_of_their_own(run, tmp_path) -> None:
    np.save(tmp_path / "z.npy", LOGITS)
    np.save(tmp_path / "y.npy", np.eye(4)[LABELS])
    accuracy = run("evaluate", "z.npy", "--labels", "y.npy")["metrics"]["accuracy"]["value"]
    assert accuracy == pytest.approx((LOGITS.argmax(axis=1) == LABELS).mean())


@pytest.mark.parametrize("form", ["npz", "parquet"])
@pytest.mark.parametrize("labels", [VOTES, VOTES / 11, (VOTES / 11).astype("f2")])
def test_votes_and_shares_give_the_soft_cross_entropy(run, tmp_path, form, labels) -> None:
    save(tmp_path / f"t.{form}", labels)
    found = run("evaluate", f"t.{form}")
    expected = -(VOTES / 11 * LOG_PROBS).sum(axis=1).mean()
    close = 1e-3 if labels.dtype == np.float16 else 1e-9
    assert found["metrics"]["nll"]["value"] == pytest.approx(expected, rel=close)
    right = (VOTES / 11)[np.arange(300), LOGITS.argmax(axis=1)].mean()
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(right, rel=close)
    assert found["input"]["clusters"]["count"] == 300


def test_votes_of_different_numbers_count_a_row_once(run, tmp_path) -> None:
    votes = VOTES.copy()
    votes[:100] *= 5
    save(tmp_path / "t.npz", votes)
    expected = -(VOTES / 11 * LOG_PROBS).sum(axis=1).mean()
    assert run("evaluate", "t.npz")["metrics"]["nll"]["value"] == pytest.approx(expected)


def test_weights_of_rows_are_those_of_their_shares(run, tmp_path) -> None:
    weights = RNG.uniform(0, 2, 300)
    np.savez(tmp_path / "t.npz", logits=LOGITS, labels=VOTES, w=weights)
    expected = -np.average((VOTES / 11 * LOG_PROBS).sum(axis=1), weights=weights)
    found = run("evaluate", "t.npz", "--weights", "w")
    assert found["metrics"]["nll"]["value"] == pytest.approx(expected)


def test_votes_are_fitted_and_compared(run, tmp_path) -> None:
    save(tmp_path / "t.npz", VOTES)
    fitted = run("fit", "t.npz", "-m", "temperature", "-p", "p.json", "-o", "o.npz")
    temperature = json.loads((tmp_path / "p.json").read_text())["stages"][0]["parameters"]

    def loss(t: float) -> float:
        logs = LOGITS / t
        return -(VOTES * (logs - np.log(np.exp(logs).sum(axis=1, keepdims=True)))).sum()

    best = temperature["temperature"]
    assert loss(best) < min(loss(best * 1.001), loss(best / 1.001))
    assert fitted["after"]["metrics"]["nll"]["value"] < fitted["before"]["metrics"]["nll"]["value"]
    with np.load(tmp_path / "o.npz") as written:
        assert written["probs"].shape == (300, 4)
    board = run("compare", "t.npz", "--methods", "none,temperature")
    assert board["leaderboard"][0]["method"] == "temperature"


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_several_classes_a_row_are_refused(tmp_path, form) -> None:
    hot = np.eye(4, dtype=np.int64)[LABELS]
    hot[5] = [1, 0, 1, 0]
    save(tmp_path / f"t.{form}", hot)
    with pytest.raises(CalibError, match=r"row 5.*multi-label") as caught:
        open_dataset([str(tmp_path / f"t.{form}")], ReadOptions())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.5, 0.2, 0.1, 0.1], "neither one-hot nor"),
        ([-0.5, 0.5, 0.5, 0.5], "row 5: a value of the label is below 0"),
        ([np.nan, 0.5, 0.5, 0], "row 5: a value of the label is below 0 or no number"),
    ],
)
def test_vectors_that_are_no_labels_are_refused(tmp_path, row, message) -> None:
    labels = VOTES / 11
    labels[5] = row
    save(tmp_path / "t.npz", labels)
    with pytest.raises(CalibError, match=message):
        open_dataset([str(tmp_path / "t.npz")], ReadOptions())


def test_applying_needs_no_labels_of_any_shape(calib_here, tmp_path) -> None:
    save(tmp_path / "hot.npz", np.eye(4)[LABELS])
    save(tmp_path / "votes.npz", VOTES)
    code, _, err = calib_here("fit", "hot.npz", "-m", "temperature", "-p", "p.json", "-o", "o.npz")
    assert code == 0, err
    code, _, err = calib_here("apply", "p.json", "votes.npz", "-o", "v.npz")
    assert code == 0, err
    with np.load(tmp_path / "v.npz") as written:
        assert written["probs"].shape == (300, 4)


def test_items_of_several_files_are_clusters_of_their_own(run, tmp_path) -> None:
    """The same intervals, whether the rows lie in one file or in two."""
    (tmp_path / "parts").mkdir()
    half = len(LOGITS) // 2
    np.savez(tmp_path / "t.npz", logits=LOGITS, labels=SHARES)
    for name, rows in (("a", slice(half)), ("b", slice(half, None))):
        np.savez(tmp_path / "parts" / f"{name}.npz", logits=LOGITS[rows], labels=SHARES[rows])
    whole, parts = (run("evaluate", tmp_path / name) for name in ("t.npz", "parts"))
    assert figures(parts) == figures(whole)
    with open_dataset([str(tmp_path / "parts")], ReadOptions()) as dataset:
        items = np.concatenate([chunk.keys["cluster"] for chunk in dataset.chunks(50)])
        assert len(np.unique(items)) == len(LOGITS)


# Several columns of labels


@pytest.mark.parametrize("name", ["truth", "label"])
def test_one_hot_labels_are_known_by_every_name(tmp_path, name) -> None:
    one_hot = np.eye(3)[[0, 1, 2, 1]]
    logits = np.arange(12.0).reshape(4, 3)
    path = str(tmp_path / "a.npz")
    np.savez(path, logits=logits, **{name: one_hot})
    with open_dataset([path], ReadOptions()) as dataset:
        assert np.concatenate(list(dataset.labels())).tolist() == [0, 1, 2, 1]
    np.savez(path, logits=logits, label=one_hot, target=[0, 1, 2, 2])
    with open_dataset([path], ReadOptions()) as dataset:
        assert dataset.picked["labels"] == "key 'target' (int64); also there: label"


@pytest.mark.parametrize("kept", [slice(None, -1), [0, 1, 2, 3, 3]])
def test_label_vectors_of_other_classes_are_refused(tmp_path, kept) -> None:
    scores = np.random.default_rng(0).normal(size=(30, 4))
    votes = (1 + 4 * np.eye(4, dtype=np.int64)[scores.argmax(axis=1)])[:, kept]
    np.savez(tmp_path / "a.npz", logits=scores, votes=votes)
    with pytest.raises(DataError, match=f"has {votes.shape[1]} values, .* have 4 classes"):
        open_dataset([str(tmp_path / "a.npz")], ReadOptions(labels="votes"))
