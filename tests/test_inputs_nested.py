"""Lists in lists as arrays, lists of several lengths, and arrays that lie on their side."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import gather, opened

from calibcli.cli.app import run
from calibcli.errors import CalibError

RNG = np.random.default_rng(9)
ROWS = 60
MEMBERS = RNG.normal(size=(ROWS, 5, 4))
TOKENS = RNG.normal(size=(ROWS, 7, 3))
LABELS = RNG.integers(0, 4, ROWS)
TAGS = RNG.integers(0, 3, (ROWS, 7))


def table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_members_are_read(tmp_path):
    path = table(tmp_path / "t.parquet", logits=MEMBERS.tolist(), label=LABELS, id=range(ROWS))
    with opened(path, members="mean-logits") as dataset:
        scores, labels, _ = gather(dataset, 17)
    assert np.allclose(scores, MEMBERS.mean(axis=1))
    assert np.array_equal(labels, LABELS)
    with pytest.raises(CalibError, match="say what they become: --members mean-probs"):
        opened(path)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "arrow"])
def test_tokens_are_rows(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    columns = pa.table({"logits": TOKENS.tolist(), "labels": TAGS.tolist(), "doc": range(ROWS)})
    if suffix == "parquet":
        pq.write_table(columns, path, row_group_size=23)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in columns.to_pylist()))
    else:
        with pa.ipc.new_file(path, columns.schema) as writer:
            writer.write_table(columns, 11)
    with opened(path) as dataset:
        scores, labels, _ = gather(dataset, 17)
    assert np.array_equal(scores, TOKENS.reshape(-1, 3))
    assert np.array_equal(labels, TAGS.ravel())


def test_the_whole_way(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table(Path("t.parquet"), logits=TOKENS.tolist(), labels=TAGS.tolist(), doc=range(ROWS))
    np.savez("t.npz", logits=TOKENS, labels=TAGS)
    figures = []
    for name in ("t.parquet", "t.npz"):
        words = ["fit", name, "-m", "temperature", "-p", f"{name}.json", "-o", f"{name}.fit.npz"]
        assert run([*words, "--format", "csv", "-q"]) == 0
        figures.append(capsys.readouterr().out.replace(name, ""))
        assert run(["apply", f"{name}.json", name, "-o", f"{name}.out.npz", "-q"]) == 0
        assert run(["convert", name, "-o", f"{name}.rows.parquet", "-q"]) == 0
        assert run(["inspect", name]) == 0
        capsys.readouterr()
    assert figures[0] == figures[1]
    with np.load("t.parquet.out.npz") as ours, np.load("t.npz.out.npz") as theirs:
        assert np.array_equal(ours["probs"], theirs["probs"])


def test_lists_of_several_lengths_are_flattened_by_a_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lengths = RNG.integers(1, 7, ROWS)
    logits = [row[:count].tolist() for row, count in zip(TOKENS, lengths, strict=True)]
    tags = [row[:count].tolist() for row, count in zip(TAGS, lengths, strict=True)]
    table(Path("t.parquet"), logits=logits, labels=tags)
    with pytest.raises(CalibError, match="the lists have several lengths") as caught:
        opened("t.parquet")
    program = shlex.split(str(caught.value).partition("each place: ")[2])
    subprocess.run([sys.executable, *program[1:]], check=True)
    with opened("rows.npz", keys={"cluster": "sequence"}) as dataset:
        scores, labels, _ = gather(dataset, 17)
    assert np.array_equal(scores, np.concatenate(logits))
    assert np.array_equal(labels, np.concatenate(tags))


def test_a_list_of_another_length_further_on_is_refused(tmp_path):
    rows = np.tile(TOKENS, (10, 1, 1)).tolist()
    rows[400][2] = [1.0, 2.0]
    path = table(tmp_path / "t.parquet", logits=rows, labels=np.tile(TAGS, (10, 1)).tolist())
    with (
        pytest.raises(CalibError, match="a list of 2 here, elsewhere of 3"),
        opened(path) as dataset,
    ):
        gather(dataset)


# Rows that lie


@pytest.mark.parametrize("suffix", ["npz", "npy", "compressed"])
def test_labels_that_are_a_row(tmp_path, suffix):
    scores = RNG.normal(size=(50, 3))
    labels = RNG.integers(0, 3, 50)
    options = {}
    if suffix == "npy":
        np.save(tmp_path / "t.npy", scores)
        np.save(tmp_path / "y.npy", labels[None])
        options = {"labels": str(tmp_path / "y.npy")}
    else:
        save = np.savez if suffix == "npz" else np.savez_compressed
        save(tmp_path / "t.npz", logits=scores, labels=labels[None])
    with opened(tmp_path / ("t.npy" if suffix == "npy" else "t.npz"), **options) as dataset:
        read = gather(dataset, 17)
    assert np.array_equal(read[0], scores)
    assert np.array_equal(read[1], labels)


def test_scores_with_a_row_for_each_class(tmp_path):
    scores = RNG.normal(size=(50, 3))
    labels = RNG.integers(0, 3, 50)
    for shape in (labels, labels[None], labels[:, None]):
        np.savez(tmp_path / "t.npz", logits=scores.T, labels=shape)
        with opened(tmp_path / "t.npz") as dataset:
            read = gather(dataset, 17)
        assert np.array_equal(read[0], scores)
        assert np.array_equal(read[1], labels)
    # As many rows as classes: the usual order.
    np.savez(tmp_path / "t.npz", logits=scores[:3], labels=labels[:3])
    with opened(tmp_path / "t.npz") as dataset:
        assert np.array_equal(gather(dataset, 17)[0], scores[:3])


def test_labels_with_an_axis_of_one_at_the_end(tmp_path):
    scores = RNG.normal(size=(4, 3, 5, 6))
    labels = RNG.integers(0, 3, (4, 5, 6))
    np.savez(tmp_path / "t.npz", logits=scores, labels=labels[..., None])
    with opened(tmp_path / "t.npz") as dataset:
        read = gather(dataset, 17)
    assert np.array_equal(read[0], np.moveaxis(scores, 1, -1).reshape(-1, 3))
    assert np.array_equal(read[1], labels.ravel())


def test_an_output_has_no_labels_of_its_own(tmp_path):
    """The predicted classes have the shape of labels, and are none."""
    probs = RNG.dirichlet(np.ones(3), size=(4, 5, 6))
    arrays = {"probs": probs, "prediction": probs.argmax(axis=-1), "confidence": probs.max(axis=-1)}
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(CalibError, match="no labels were found"):
        opened(tmp_path / "t.npz")


def test_the_least_whole_number_is_no_label(tmp_path):
    """As `calib apply` writes to an NPZ what has none."""
    labels = TAGS.ravel().copy()
    labels[[3, 9]] = np.iinfo(np.int64).min
    np.savez(tmp_path / "t.npz", logits=TOKENS.reshape(-1, 3), label=labels)
    said = "row 3: the label is missing .* --unlabelled skip"
    with pytest.raises(CalibError, match=said), opened(tmp_path / "t.npz") as dataset:
        gather(dataset)
    with opened(tmp_path / "t.npz", unlabelled="skip") as dataset:
        read = gather(dataset, 17)
    kept = labels >= 0
    assert np.array_equal(read[0], TOKENS.reshape(-1, 3)[kept])
    assert np.array_equal(read[1], labels[kept])
