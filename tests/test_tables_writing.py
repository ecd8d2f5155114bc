"""Calibrated probabilities in files: complete or not at all, with every column of the input."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_files import (
    calibrated_file,
    gather,
    make_labels,
    make_scores,
    opened,
    same_bits,
    source,
    write_ipc,
    write_npz,
    write_parquet,
    write_rows,
)

from calibcli.errors import DataError
from calibcli.tables import open_writer
from calibcli.tables.formats import parquet
from calibcli.tables.formats.base import free_names
from calibcli.tables.labels import NO_LABEL

ROOT = Path(__file__).parents[1]
Z, Y = make_scores(100, 5), make_labels(100, 5)
P = np.exp(Z - Z.max(axis=1, keepdims=True))
P /= P.sum(axis=1, keepdims=True)
SUFFIXES = ["parquet", "pq", "npz", "arrow", "feather"]


def calibrate(dataset, path, rows=13, probs=P, **options):
    """What `calib apply` does, with the mathematics left out."""
    with open_writer(str(path), dataset, **options) as writer:
        for chunk in dataset.chunks(rows, with_columns=True):
            part = probs[chunk.start : chunk.start + len(chunk)]
            write_rows(writer, part, chunk.labels, chunk.columns)
    return writer


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("write", [write_parquet, write_npz, write_ipc])
def test_what_is_written_is_read_again(tmp_path, suffix, dtype, write):
    path = tmp_path / f"out.{suffix}"
    probs = P.astype(dtype)
    with opened(write(tmp_path / "in", Z, Y)) as dataset:
        calibrate(dataset, path, probs=probs)
    with opened(path) as dataset:
        scores, labels, _, columns = gather(dataset, with_columns=True)
        assert same_bits(scores, probs)
        assert same_bits(labels, Y)
        assert dataset.kind == "probs"
        assert dataset.other_columns == ("prediction", "confidence")
    assert columns["prediction"].to_pylist() == P.argmax(axis=1).tolist()
    assert columns["prediction"].type == pa.int64()
    assert columns["confidence"].to_pylist() == probs.max(axis=1).tolist()


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any),
    suffix=st.sampled_from(["parquet", "npz", "arrow"]),
    group=st.integers(1, 50),
)
def test_pieces_of_any_size_give_the_same_rows(tmp_path_factory, sizes, suffix, group):
    path = tmp_path_factory.mktemp("pieces") / f"out.{suffix}"
    probs = make_scores(sum(sizes), 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "GROUP_ROWS", group)
        with open_writer(str(path), source(sum(sizes))) as writer:
            for end, size in zip(np.cumsum(sizes), sizes, strict=True):
                write_rows(writer, probs[end - size : end])
    with opened(path, labels_required=False, input="logits") as dataset:
        assert same_bits(gather(dataset)[0], probs)
    if suffix == "parquet":
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
        assert groups[:-1] == [group] * (len(groups) - 1)


def test_parquet_is_written_as_documented(tmp_path):
    names = ("a", "b", "c", "d", "größe")
    with opened(write_parquet(tmp_path / "in", Z, Y, id=pa.array(range(100)))) as dataset:
        dataset.class_names = names
        calibrate(dataset, tmp_path / "out.parquet")
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert schema.names == ["probs", "prediction", "confidence", "label", "id"]
    assert schema.field("probs").type == pa.list_(pa.float32(), 5)
    assert json.loads(schema.metadata[b"calib.classes"]) == list(names)
    group = pq.read_metadata(tmp_path / "out.parquet").row_group(0)
    columns = {group.column(k).path_in_schema: group.column(k) for k in range(5)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    for path in ("probs.list.element", "confidence"):
        assert "BYTE_STREAM_SPLIT" in columns[path].encodings
        assert not columns[path].has_dictionary_page
    with opened(tmp_path / "out.parquet") as dataset:
        assert dataset.class_names == names


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_every_other_column_survives(tmp_path, suffix):
    others = {
        "id": pa.array([f"row {i}" for i in range(100)]),
        "when": pa.array(np.arange(100), pa.timestamp("us", "UTC")),
        "tag": pa.array(["a", None, "b", "c"] * 25).dictionary_encode(),
        "nested": pa.array([{"x": [i]} for i in range(100)]),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(300.0)), 3),
        "count": pa.array([None, 1] * 50),
    }
    path = tmp_path / f"out.{suffix}"
    with opened(write_parquet(tmp_path / "in", Z, Y, groups=30, **others)) as dataset:
        writer = calibrate(dataset, path)
    assert (writer.renamed, writer.left_out) == ({}, ())
    with opened(path) as dataset:
        columns = gather(dataset, with_columns=True)[3].drop(["prediction", "confidence"])
    assert columns.to_pylist() == pa.table(others).to_pylist()
    if suffix == "parquet":
        assert pq.read_schema(path).field("tag").type == pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "npz"])
def test_what_a_dictionary_lacks_is_missing_in_the_output(tmp_path, suffix):
    codes = pa.array([2, 0, None, 1, 3] * 20, pa.int8())
    columns = {
        "tag": pa.DictionaryArray.from_arrays(codes, pa.array(["a", None, "c", "d"])),
        "number": pa.DictionaryArray.from_arrays(codes, pa.array([0.5, None, 2.5, 3.5])),
    }
    scores = pa.FixedSizeListArray.from_arrays(pa.array(Z.reshape(-1)), Z.shape[1])
    table = pa.table({"logits": scores, "label": Y, **columns})
    with pa.ipc.new_file(tmp_path / "in.arrow", table.schema) as stored:
        stored.write_table(table)
    path = tmp_path / f"out.{suffix}"
    with opened(tmp_path / "in.arrow") as dataset:
        writer = calibrate(dataset, path)
    if suffix == "npz":
        assert set(writer.left_out) == set(columns)
        return
    with opened(path) as dataset:
        columns = gather(dataset, with_columns=True)[3]
    assert columns.column("tag").to_pylist() == ["c", "a", None, None, "d"] * 20
    assert columns.column("number").to_pylist() == [2.5, 0.5, None, None, 3.5] * 20


def test_arrays_survive_in_an_npz(tmp_path):
    arrays = {
        "images": np.arange(600, dtype=np.uint8).reshape(100, 2, 3),
        "names": np.array([f"row {i}" for i in range(100)]),
        "codes": np.array([f"{i:03}".encode() for i in range(100)]),
        "days": np.arange(100).astype("M8[D]"),
        "flags": np.arange(100) % 2 == 0,
        "halves": Z.astype(np.float16),
    }
    path = write_npz(tmp_path / "in", Z, Y, **arrays)
    with opened(path) as dataset:
        writer = calibrate(dataset, tmp_path / "out.npz")
    assert (writer.renamed, writer.left_out) == ({}, ())
    with np.load(tmp_path / "out.npz") as stored:
        assert stored.files == ["probs", "prediction", "confidence", "label", *arrays]
        for name, array in arrays.items():
            assert same_bits(stored[name], array)


def test_what_an_npz_cannot_hold_is_left_out_and_said(tmp_path):
    others = {
        "list": pa.array([[1]] * 100),
        "essay": pa.array(["x" * 300] * 100),
        "note": pa.array(["x", None] * 50),
        "n": pa.array(Y),
    }
    with opened(write_parquet(tmp_path / "in", Z, Y, **others)) as dataset:
        writer = calibrate(dataset, tmp_path / "out.npz")
    assert writer.left_out == ("list", "essay", "note")
    with np.load(tmp_path / "out.npz") as stored:
        assert stored.files == ["probs", "prediction", "confidence", "label", "n"]
    holes = write_parquet(tmp_path / "holes", Z, Y, n=pa.array([*range(99), None]))
    with opened(holes) as dataset, pytest.raises(DataError, match="'n' has missing values"):
        calibrate(dataset, tmp_path / "holes.npz")
    assert not (tmp_path / "holes.npz").exists()


def test_texts_have_one_width_in_an_npz(tmp_path):
    words = ["x" * (k % 7) + "é" * (k > 80) for k in range(100)]
    kinds = {
        "plain": pa.array(words),
        "large": pa.array(words, pa.large_string()),
        "tags": pa.array(words).dictionary_encode(),
    }
    with opened(write_parquet(tmp_path / "in", Z, Y, groups=9, **kinds)) as dataset:
        writer = calibrate(dataset, tmp_path / "out.npz")
    assert writer.left_out == ()
    with np.load(tmp_path / "out.npz") as stored:
        for name in kinds:
            assert stored[name].dtype == "<U7"
            assert stored[name].tolist() == words


@pytest.mark.parametrize("suffix", ["parquet", "npz", "arrow"])
def test_calibrated_columns_take_the_place_of_their_names(tmp_path, suffix):
    first, second = tmp_path / f"1.{suffix}", tmp_path / f"2.{suffix}"
    with opened(write_parquet(tmp_path / "in", Z, Y)) as dataset:
        calibrate(dataset, first, probs=P[::-1].copy())
    with opened(first) as dataset:
        writer = calibrate(dataset, second)
    assert writer.renamed == {
        "prediction": "input_prediction",
        "confidence": "input_confidence",
    }
    with opened(second) as dataset:
        scores, labels, _, columns = gather(dataset, with_columns=True)
    assert same_bits(scores, P)
    assert same_bits(labels, Y)
    assert columns["prediction"].to_pylist() == P.argmax(axis=1).tolist()
    assert columns["input_prediction"].to_pylist() == P[::-1].argmax(axis=1).tolist()


@given(st.lists(st.sampled_from(["a", "input_a", "input_input_a", "b", "c"]), unique=True))
def test_free_names_are_free(columns):
    renamed = free_names(columns, ["a", "b"])
    names = [renamed.get(name, name) for name in columns]
    assert len({*names, "a", "b"}) == len(names) + 2
    assert set(renamed) == set(columns) & {"a", "b"}


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "npz"])
def test_rows_without_a_label_stay_without(tmp_path, suffix):
    labels = np.where(Y == 1, NO_LABEL, Y)
    with open_writer(str(tmp_path / f"a.{suffix}"), source()) as writer:
        write_rows(writer, P, labels)
    if suffix == "npz":
        assert same_bits(np.load(tmp_path / "a.npz")["label"], labels)
        return
    with opened(tmp_path / f"a.{suffix}", labels_required=False) as dataset:
        assert same_bits(gather(dataset)[1], labels)


def test_more_computed_columns_can_be_written(tmp_path):
    extra = {"entropy": Z[:, 0], "weights": Z[:, :2].copy()}
    for suffix in ("parquet", "npz", "arrow"):
        with open_writer(str(tmp_path / f"a.{suffix}"), source()) as writer:
            for rows in (slice(0, 60), slice(60, 100)):
                parts = {name: array[rows] for name, array in extra.items()}
                write_rows(writer, P[rows], extra=parts)
        with opened(tmp_path / f"a.{suffix}", labels_required=False, logits="weights") as dataset:
            scores, _, _, columns = gather(dataset, with_columns=True)
        assert same_bits(scores, extra["weights"])
        assert columns["entropy"].to_pylist() == extra["entropy"].tolist()


def test_an_npz_is_aligned_so_that_it_can_be_mapped(tmp_path):
    extra = {"x" * length: Y for length in range(1, 70)}
    path = tmp_path / "a.npz"
    with open_writer(str(path), source(class_names=tuple("abcde"))) as writer:
        write_rows(writer, P.astype(np.float64), Y, extra=extra)
    with opened(path) as dataset:
        assert dataset.resident()
        assert dataset.class_names == tuple("abcde")
        (part,) = dataset.cut(dataset.rows)
        offsets = {member.entry: member.offset for member in part.parts[0].file.members}
    assert {offset % 64 for offset in offsets.values()} == {0}
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    with np.load(path) as stored:
        assert all(same_bits(stored[name], Y) for name in extra)


@pytest.mark.parametrize("suffix", ["parquet", "npz", "arrow"])
def test_the_same_rows_give_the_same_bytes(tmp_path, suffix):
    contents = set()
    for name in ("a", "b"):
        with open_writer(str(tmp_path / f"{name}.{suffix}"), source()) as writer:
            write_rows(writer, P, Y)
        contents.add((tmp_path / f"{name}.{suffix}").read_bytes())
    assert len(contents) == 1


def test_a_stream_of_unknown_length_can_become_an_npz(tmp_path):
    with open_writer(str(tmp_path / "a.npz"), source(rows=-1)) as writer:
        for begin in range(0, 100, 30):
            write_rows(writer, P[begin : begin + 30])
    assert same_bits(np.load(tmp_path / "a.npz")["probs"], P)


def test_standard_output_is_an_arrow_stream():
    out = io.BytesIO()
    with open_writer("-", source(), stdout=out) as writer:
        write_rows(writer, P[:60], Y[:60])
        write_rows(writer, P[60:], Y[60:])
    with opened("-", stdin=io.BytesIO(out.getvalue())) as dataset:
        assert dataset.format == "ipc-stream"
        assert same_bits(gather(dataset)[0], P)


def test_a_pipe_carries_rows_before_the_end():
    code = (
        "import numpy as np; from types import SimpleNamespace; from calibcli.tables import *\n"
        "p = np.full((5, 2), 0.5, np.float32)\n"
        "with open_writer('-', SimpleNamespace(rows=-1, class_names=None)) as writer:\n"
        "    writer.write_table({'probs': p}, None); input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        reader = pa.ipc.open_stream(process.stdout)
        assert reader.read_next_batch().num_rows == 5
        process.stdin.write(b"\n")
        process.stdin.close()
        assert list(reader) == []


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_arrays_of_several_axes_keep_their_shape(tmp_path, suffix):
    images = np.arange(600.0).reshape(100, 2, 3)
    path = write_npz(tmp_path / "in", Z, Y, images=images)
    calibrated_file(path, tmp_path / f"mid.{suffix}")
    calibrated_file(tmp_path / f"mid.{suffix}", tmp_path / "out.npz", logits="probs")
    with np.load(tmp_path / "out.npz") as arrays:
        assert np.array_equal(arrays["images"], images)
