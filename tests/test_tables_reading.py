"""Every layout gives the same rows, however they are cut."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table_files import (
    LAYOUTS,
    fixed_size_list,
    gather,
    make_labels,
    make_scores,
    opened,
    read,
    same_bits,
    write_ipc,
    write_npz,
    write_parquet,
)

from calibcli.errors import DataError
from calibcli.tables import locations as locations_module
from calibcli.tables.formats.arrow import regroup
from calibcli.tables.formats.base import DECODED_BYTES

SCORES, LABELS = make_scores(), make_labels()


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request, tmp_path_factory):
    return request.param, tmp_path_factory.mktemp(request.param)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_layout_gives_the_same_bits(layout, dtype):
    name, folder = layout
    scores = make_scores(dtype=dtype)
    path = LAYOUTS[name](folder / np.dtype(dtype).name, scores, LABELS)
    with opened(path) as dataset:
        found, labels, weights = gather(dataset, 17)
        assert same_bits(found, scores)
        assert same_bits(labels, LABELS)
        assert weights is None
        assert (dataset.rows, dataset.columns, dataset.dtype) == (100, 5, dtype)
        assert (dataset.kind, dataset.has_labels, dataset.has_weights) == ("logits", True, False)
        again, _, _ = gather(dataset)
        assert same_bits(again, scores)


def test_parts_are_descriptions_that_another_process_can_read(layout):
    name, folder = layout
    with opened(LAYOUTS[name](folder / "parts", SCORES, LABELS)) as dataset:
        chunks = [
            chunk
            for part in pickle.loads(pickle.dumps(dataset.cut(30)))  # noqa: S301 (our own)
            for chunk in part.chunks(11)
        ]
        assert same_bits(np.concatenate([chunk.scores for chunk in chunks]), SCORES)
        assert same_bits(np.concatenate([chunk.labels for chunk in chunks]), LABELS)
        assert [chunk.start for chunk in chunks] == np.cumsum([0, *map(len, chunks)])[:-1].tolist()


def test_parquet_can_be_read_from_each_row_group(tmp_path):
    with opened(write_parquet(tmp_path / "a", SCORES, LABELS, groups=40)) as dataset:
        (part,) = dataset.cut(dataset.rows)
        assert list(part.parts[0].file.splits(dataset.rows)) == [0, 40, 80]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cutting_changes_nothing(tmp_path_factory, data):
    rows = data.draw(st.integers(1, 60))
    scores, labels = make_scores(rows, 3), make_labels(rows, 3)
    name = data.draw(st.sampled_from(sorted(LAYOUTS)))
    folder = tmp_path_factory.mktemp("cut")
    cuts = sorted({0, rows, *data.draw(st.lists(st.integers(0, rows), max_size=3))})
    files = [
        LAYOUTS[name](folder / str(begin), scores[begin:end], labels[begin:end])
        for begin, end in pairwise(cuts)
    ]
    with opened(*files, input="logits") as dataset:
        found, found_labels, _ = gather(dataset, data.draw(st.integers(1, 70)))
    assert same_bits(found, scores)
    assert same_bits(found_labels, labels)


@given(
    sizes=st.lists(st.integers(0, 30), max_size=12),
    rows=st.integers(1, 40),
    begin=st.integers(0, 9),
)
def test_regrouping_keeps_the_rows_and_the_limit(sizes, rows, begin):
    table = pa.table({"x": np.arange(sum(sizes) + begin)}).slice(begin)
    batches, at = [], 0
    for size in sizes:
        batches += table.slice(at, size).to_batches()
        at += size
    pieces = list(regroup(batches, rows))
    assert all(0 < piece.num_rows <= rows for piece in pieces)
    assert [x for piece in pieces for x in piece["x"].to_pylist()] == table["x"].to_pylist()


def test_one_value_a_row_is_the_score_of_class_1(tmp_path):
    column = make_scores(50, 1)
    single = write_npz(tmp_path / "flat", column[:, 0], make_labels(50, 2))
    matrix = write_parquet(tmp_path / "matrix", column, make_labels(50, 2))
    pq.write_table(
        pa.table({"score": column[:, 0], "y": make_labels(50, 2)}), tmp_path / "scalar.parquet"
    )
    for path, options in (
        (single, {}),
        (matrix, {}),
        (tmp_path / "scalar.parquet", {"logits": "score"}),
    ):
        with opened(path, **options) as dataset:
            assert dataset.columns == 1
            assert same_bits(gather(dataset)[0], column)


def test_columns_are_in_the_order_of_their_numbers(tmp_path):
    scores = make_scores(30, 12)
    shuffled = {f"logit_{k}": scores[:, k] for k in [10, 2, 0, 11, 1, 3, 9, 8, 7, 6, 5, 4]}
    pq.write_table(pa.table({**shuffled, "y": make_labels(30, 12)}), tmp_path / "a.parquet")
    with opened(tmp_path / "a.parquet") as dataset:
        assert same_bits(gather(dataset)[0], scores)
        assert dataset.picked["logits"] == ("12 columns logit_0 … logit_11 (float), in this order")


def test_memory_mapped_scores_are_views(tmp_path):
    for path in (
        write_npz(tmp_path / "a", SCORES, LABELS),
        write_ipc(tmp_path / "a", SCORES, LABELS),
    ):
        with opened(path) as dataset:
            assert dataset.resident()
            (chunk,) = dataset.chunks(dataset.rows)
            assert not chunk.scores.flags.owndata
            assert not chunk.scores.flags.writeable


def test_chunks_outlive_the_pass_and_the_dataset(layout):
    name, folder = layout
    with opened(LAYOUTS[name](folder / "late", SCORES, LABELS)) as dataset:
        chunks = list(dataset.chunks(9))
    assert same_bits(np.concatenate([chunk.scores for chunk in chunks]), SCORES)


@pytest.mark.parametrize("name", ["parquet-list", "ipc-file", "npz-compressed", "npz-big-endian"])
def test_what_must_be_decoded_is_not_resident(tmp_path, name):
    with opened(LAYOUTS[name](tmp_path / "a", SCORES, LABELS)) as dataset:
        assert not dataset.resident()


def test_a_large_row_group_comes_in_small_pieces(tmp_path):
    scores = np.zeros((200_000, 100), np.float32)
    scores[:, 0] = np.arange(len(scores))
    path = write_parquet(tmp_path / "large", scores, groups=len(scores))
    del scores
    with opened(path, labels_required=False, input="logits") as dataset:
        at, largest = 0, 0
        before = pa.total_allocated_bytes()
        for chunk in dataset.chunks(dataset.rows):
            assert chunk.scores[0, 0] == at
            at += len(chunk)
            largest = max(largest, pa.total_allocated_bytes() - before)
            assert chunk.scores.nbytes <= DECODED_BYTES
        assert at == 200_000
        assert largest < 5 * DECODED_BYTES


@pytest.mark.skipif(not hasattr(psutil.Process(), "memory_maps"), reason="needs Linux")
@pytest.mark.parametrize("write", [write_npz, write_ipc])
def test_pages_of_mapped_chunks_are_given_back(tmp_path, write):
    scores = np.ones((40_000, 250), np.float32)
    with opened(write(tmp_path / "a", scores), labels_required=False) as dataset:
        sizes = []
        for chunk in dataset.chunks(2000):
            chunk.scores.sum()
            maps = psutil.Process().memory_maps()
            sizes.append(sum(each.rss for each in maps if each.path.startswith(str(tmp_path))))
    # A chunk is 2 MB and the file 40; the system reads some pages ahead.
    assert 0 < max(sizes) < 16e6


def test_other_columns_ride_along_unchanged(tmp_path):
    others = {
        "id": pa.array([f"row {i}" for i in range(100)]),
        "when": pa.array(np.arange(100), pa.timestamp("ms", "UTC")),
        "tag": pa.array(["a", None] * 50).dictionary_encode(),
        "nested": pa.array([{"x": [i]} for i in range(100)]),
        "a.b": pa.array(range(100)),
    }
    for path in (
        write_parquet(tmp_path / "a", SCORES, LABELS, groups=30, **others),
        write_ipc(tmp_path / "a", SCORES, LABELS, rows=30, **others),
    ):
        with opened(path) as dataset:
            assert dataset.other_columns == tuple(others)
            columns = gather(dataset, 13, with_columns=True)[3]
        expected = pa.table(others)
        assert columns.column_names == expected.column_names
        assert columns.to_pylist() == expected.to_pylist()


def test_arrays_of_an_npz_ride_along(tmp_path):
    images = np.arange(100 * 6, dtype=np.uint8).reshape(100, 2, 3)
    names = np.array([f"row {i}" for i in range(100)])
    path = write_npz(
        tmp_path / "a",
        SCORES,
        LABELS,
        images=images,
        names=names,
        halves=SCORES.astype(np.float16),
        version=np.array(3),
        mean=np.zeros(5),
        waves=np.zeros(100, complex),
    )
    with opened(path) as dataset:
        assert dataset.other_columns == ("images", "names", "halves")
        assert dataset.left_out == ("version", "mean", "waves")
        columns = gather(dataset, 13, with_columns=True)[3]
    assert columns["names"].to_pylist() == names.tolist()
    assert np.array_equal(np.array(columns["images"].to_pylist()), images.reshape(100, 6))
    assert columns.schema.field("images").metadata == {b"calib.shape": b"[2, 3]"}


def test_globs_and_folders_are_sorted_and_lists_are_not(tmp_path):
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "_temporary").mkdir()
    for name, begin in (("b", 40), ("a", 0), ("deep/c", 70)):
        end = {"b": 70, "a": 40, "deep/c": 100}[name]
        write_parquet(folder / name, SCORES[begin:end], LABELS[begin:end])
    write_parquet(folder / ".hidden", SCORES, LABELS)
    write_parquet(folder / "_temporary/x", SCORES, LABELS)
    (folder / "README.md").write_text("not data")
    for inputs in (
        [folder],
        [folder / "*.parquet", folder / "deep/c.parquet"],
        [folder.as_uri()],
        [f"{folder.as_uri()}/[ab].parquet", f"{folder.as_uri()}/deep/c.parquet"],
    ):
        assert same_bits(read(*inputs)[0], SCORES), inputs
    with opened(folder / "b.parquet", folder / "a.parquet") as dataset:
        assert same_bits(gather(dataset)[0], np.concatenate([SCORES[40:70], SCORES[:40]]))
        assert dataset.name == "b.parquet and 1 more"
        assert dataset.locate(29) == f"{folder / 'b.parquet'}, row 29"
        assert dataset.locate(30) == f"{folder / 'a.parquet'}, row 0"


def test_hive_partitions_become_columns(tmp_path):
    for label in (0, 1, 2):
        for split in ("val", "a%20b"):
            folder = tmp_path / f"label={label}/split={split}"
            folder.mkdir(parents=True)
            pq.write_table(
                pa.table({"logits": fixed_size_list(SCORES[:4])}), folder / "part.parquet"
            )
    with opened(tmp_path) as dataset:
        _, labels, _, columns = gather(dataset, 3, with_columns=True)
        assert labels.tolist() == np.repeat([0, 1, 2], 8).tolist()
        assert columns["split"].to_pylist() == (["a b"] * 4 + ["val"] * 4) * 3
        assert dataset.other_columns == ("split",)


def test_a_path_of_a_single_file_is_no_hive_partition(tmp_path):
    (tmp_path / "lr=0.1").mkdir()
    with opened(write_parquet(tmp_path / "lr=0.1/a", SCORES, LABELS)) as dataset:
        assert dataset.other_columns == ()


@pytest.mark.parametrize("write", [write_parquet, write_npz, write_ipc])
def test_object_stores_are_read_through_their_file_system(tmp_path, monkeypatch, write):
    from pyarrow import fs

    (tmp_path / "bucket").mkdir()
    for name, rows in (("b", slice(60, 100)), ("a", slice(0, 60))):
        write(tmp_path / "bucket" / name, SCORES[rows], LABELS[rows])
    store = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr(
        locations_module, "filesystem", lambda url: (store, url.removeprefix("mem://"))
    )
    (suffix,) = {path.suffix for path in (tmp_path / "bucket").iterdir()}
    for inputs in (
        ["mem://bucket"],
        [f"mem://bucket/*{suffix}"],
        [f"mem://bucket/a{suffix}", f"mem://bucket/b{suffix}"],
    ):
        with opened(*inputs) as dataset:
            assert same_bits(gather(dataset, 33)[0], SCORES)
            assert dataset.files == [f"mem://bucket/a{suffix}", f"mem://bucket/b{suffix}"]
            sizes = [each["bytes"] for each in dataset.fingerprints()]
            assert sizes == [(tmp_path / f"bucket/{name}{suffix}").stat().st_size for name in "ab"]
    with pytest.raises(DataError, match=r"mem://bucket/c\*: no data file is there"):
        opened("mem://bucket/c*")


def test_fingerprints_cover_the_file_of_labels(tmp_path):
    np.save(tmp_path / "scores.npy", SCORES)
    np.save(tmp_path / "labels.npy", LABELS)
    with opened(
        tmp_path / "scores.npy", labels=str(tmp_path / "labels.npy"), input="logits"
    ) as dataset:
        prints = dataset.fingerprints()
    assert [each["path"] for each in prints] == [
        str(tmp_path / "scores.npy"),
        str(tmp_path / "labels.npy"),
    ]
    for each in prints:
        content = Path(each["path"]).read_bytes()
        assert each["sha256"] == hashlib.sha256(content).hexdigest()
        assert each["bytes"] == len(content)


def test_an_npz_is_read_without_pyarrow(tmp_path):
    code = (
        "import sys; from calibcli.tables import *\n"
        f"dataset = open_dataset([{write_npz(tmp_path / 'a', SCORES, LABELS)!r}], ReadOptions())\n"
        "assert sum(map(len, dataset.chunks(7))) == 100\n"
        "assert not {'pyarrow', 'torch', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True)


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, calibcli.tables\n"
        "assert not {'numpy', 'pyarrow', 'calibcli.tables.dataset'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True)


def test_the_shared_data_is_read(shared_data):
    folder, kinds = shared_data / "data", set()
    for path in sorted(folder.glob("*/*.npz")):
        stored = np.load(path)
        if "labels" not in stored or not {"logits", "probs"} & set(stored.files):
            continue
        with opened(path) as dataset:
            (key,) = {"logits", "probs"} & set(stored.files)
            assert dataset.kind == key
            (chunk,) = dataset.chunks(dataset.rows)
            assert same_bits(chunk.scores, stored[key])
            assert same_bits(chunk.labels, stored["labels"])
        kinds.add(key)
    assert kinds == {"logits", "probs"}
