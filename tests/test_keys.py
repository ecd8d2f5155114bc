"""Columns whose values put rows into groups: by value, over chunks, files and passes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibcli.calibrators.temperature import Temperature
from calibcli.engine.data import open_data
from calibcli.engine.engine import Engine, Tile
from calibcli.engine.folds import Subset
from calibcli.engine.source import ArraySource, join, read_all
from calibcli.engine.worker_kinds import open_workers
from calibcli.errors import CalibError
from calibcli.tables import Dataset, ReadOptions, open_dataset
from calibcli.tables.formats.base import RowError, Values
from calibcli.tables.keys import MISSING, KeyNumbers

ROWS = 600


def scores(rows: int = ROWS, classes: int = 3) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((rows, classes)).astype(np.float32)


def languages(rows: int = ROWS) -> list[str]:
    return [("de", "en", "fr", "it")[i] for i in np.random.default_rng(5).integers(0, 4, rows)]


def table(**columns) -> pa.Table:
    logits = pa.FixedSizeListArray.from_arrays(pa.array(scores().reshape(-1)), 3)
    return pa.table({"logits": logits, "label": np.arange(ROWS) % 3, **columns})


def first_come(values: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    names = tuple(dict.fromkeys(values))
    return names, np.array([names.index(value) for value in values])


def read(dataset: Dataset, rows: int = 77, role: str = "by") -> np.ndarray:
    chunks = list(dataset.chunks(rows))
    assert all(chunk.keys is not None and chunk.keys[role].dtype == np.int64 for chunk in chunks)
    return np.concatenate([chunk.keys[role] for chunk in chunks])


def check(dataset: Dataset, values: list[str]) -> None:
    names, numbers = first_come(values)
    for rows in (77, 1000, 1):
        np.testing.assert_array_equal(read(dataset, rows), numbers)
    assert dataset.key_names("by") == names


def by(column: str = "lang", **options) -> ReadOptions:
    return ReadOptions(keys={"by": column}, **options)


def write(path: Path, kind: str, values: list[str]) -> None:
    if kind == "npz":
        np.savez(path, logits=scores(), labels=np.arange(ROWS) % 3, lang=np.array(values))
    elif kind == "compressed":
        columns = {"labels": np.arange(ROWS) % 3, "lang": np.array(values, "S")}
        np.savez_compressed(path, logits=scores(), **columns)
    elif kind == "arrow":
        content = table(lang=pa.array(values).dictionary_encode())
        with pa.ipc.new_file(path, content.schema) as writer:
            writer.write_table(content, max_chunksize=130)
    else:
        pq.write_table(table(lang=values), path, row_group_size=90)


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("npz", "npz"), ("compressed", "npz"), ("arrow", "arrow"), ("parquet", "parquet")],
)
def test_groups_are_numbered_as_they_come_in_every_format(tmp_path, kind, suffix) -> None:
    path = tmp_path / f"val.{suffix}"
    write(path, kind, languages())
    with open_dataset([str(path)], by()) as dataset:
        assert dataset.picked["by"].startswith(("column 'lang'", "key 'lang'"))
        check(dataset, languages())
    with open_dataset([str(path)], by()) as dataset:
        assert dataset.key_names("by") == first_come(languages())[0]
    with open_dataset([str(path)], ReadOptions()) as dataset:
        assert dataset.key_roles == ()
        assert all(chunk.keys is None for chunk in dataset.chunks(100))


def test_numbers_agree_over_files_and_roles(tmp_path) -> None:
    values, documents = languages(), [str(i // 7) for i in range(ROWS)]
    halves = table(lang=values, doc=np.arange(ROWS) // 7)
    pq.write_table(halves.slice(0, 250), tmp_path / "a.parquet")
    pq.write_table(halves.slice(250), tmp_path / "b.parquet")
    inputs = [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    with open_dataset(inputs, ReadOptions(keys={"by": "lang", "cluster": "doc"})) as dataset:
        assert dataset.key_roles == ("by", "cluster")
        check(dataset, values)
        names, numbers = first_come(documents)
        np.testing.assert_array_equal(read(dataset, role="cluster"), numbers)
        assert dataset.key_names("cluster") == names
        assert "lang" in dataset.other_columns


def test_a_hive_key_is_a_group(tmp_path) -> None:
    for lang, part in (("en", table().slice(0, 200)), ("de", table().slice(200))):
        (tmp_path / f"lang={lang}").mkdir()
        pq.write_table(part, tmp_path / f"lang={lang}" / "0.parquet")
    with open_dataset([str(tmp_path)], by()) as dataset:
        check(dataset, ["de"] * 400 + ["en"] * 200)


def test_a_stream_is_numbered_while_it_passes() -> None:
    content = table(lang=languages())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, content.schema) as writer:
        writer.write_table(content, max_chunksize=100)
    for single_pass in (True, False):
        raw = io.BytesIO(sink.getvalue().to_pybytes())
        with open_dataset(["-"], by(single_pass=single_pass), stdin=raw) as dataset:
            names, numbers = first_come(languages())
            np.testing.assert_array_equal(read(dataset), numbers)
            assert dataset.key_names("by") == names


def test_rows_that_are_left_out_name_no_group(tmp_path) -> None:
    labels = np.arange(ROWS) % 3
    labels[:50] = -100
    content = table(lang=["only there"] * 50 + languages()[50:]).set_column(
        1, "label", pa.array(labels)
    )
    pq.write_table(content, tmp_path / "val.parquet")
    options = by(ignore_label=-100)
    with open_dataset([str(tmp_path / "val.parquet")], options) as dataset:
        assert dataset.key_names("by") == first_come(languages()[50:])[0]
        check(dataset, languages()[50:])


@pytest.mark.parametrize(
    ("column", "names", "expected"),
    [
        (pa.array([3, 1, None, 3]), ("3", "1", MISSING), [0, 1, 2, 0]),
        (pa.array([True, None, False, True]), ("true", MISSING, "false"), [0, 1, 2, 0]),
        (pa.array([2.0, None, -1.0, float("nan")]), ("2", MISSING, "-1"), [0, 1, 2, 1]),
        (pa.array(["b", None, "a", "b"]), ("b", MISSING, "a"), [0, 1, 2, 0]),
        (pa.array(["b", None, "a", "b"]).dictionary_encode(), ("b", MISSING, "a"), [0, 1, 2, 0]),
        (pa.array([7, 5, None, 7]).dictionary_encode(), ("7", "5", MISSING), [0, 1, 2, 0]),
        (pa.array([2**64 - 1, 0, 2**64 - 1, 0], pa.uint64()), (str(2**64 - 1), "0"), [0, 1, 0, 1]),
    ],
)
def test_every_value_is_a_group_and_so_is_none(tmp_path, column, names, expected) -> None:
    content = table().slice(0, 4).append_column("key", column)
    pq.write_table(content, tmp_path / "val.parquet")
    with open_dataset([str(tmp_path / "val.parquet")], by("key")) as dataset:
        assert read(dataset, 3).tolist() == expected
        assert dataset.key_names("by") == names


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([0.5] * ROWS, "0.5 in 'key' is no whole number, so it names no group"),
        ([[1, 2]] * ROWS, "cannot be groups; they are one whole number, text or truth value a row"),
        (None, "no column 'key' for --by; the columns are logits, label"),
    ],
)
def test_what_names_no_group_is_refused_in_one_line(tmp_path, column, message) -> None:
    content = table() if column is None else table(key=column)
    pq.write_table(content, tmp_path / "val.parquet")
    with (
        pytest.raises(CalibError, match=message) as refused,
        open_dataset([str(tmp_path / "val.parquet")], by("key")) as dataset,
    ):
        read(dataset)
    assert "\n" not in str(refused.value)
    assert "val.parquet" in str(refused.value)


def test_a_matrix_in_an_npz_file_is_no_key(tmp_path) -> None:
    np.savez(tmp_path / "v.npz", logits=scores(), labels=np.arange(ROWS) % 3, key=scores())
    with pytest.raises(CalibError, match=r"v\.npz: key 'key' .* cannot be groups"):
        open_dataset([str(tmp_path / "v.npz")], by("key"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=60),
    st.lists(st.integers(1, 20), min_size=1, max_size=10),
)
def test_numbers_do_not_depend_on_the_batches(values, sizes) -> None:
    numbers, at, encoded = KeyNumbers("key"), 0, []
    while at < len(values):
        batch = values[at : at + sizes[at % len(sizes)]]
        # Names in another order than they come, and one that no row has.
        names = ("unused", *sorted(set(batch)))
        places = np.array([names.index(value) for value in batch])
        encoded.append(numbers.encode(Values(places, names)))
        at += len(batch)
    expected_names, expected = first_come(values)
    np.testing.assert_array_equal(np.concatenate(encoded), expected)
    assert numbers.names == expected_names


def test_given_names_have_the_first_numbers_in_every_format(tmp_path) -> None:
    given = {"key_names": {"by": ("xx", "it", "de")}}
    for kind, suffix in (("npz", "npz"), ("parquet", "parquet")):
        write(tmp_path / f"val.{suffix}", kind, languages())
        with open_dataset([str(tmp_path / f"val.{suffix}")], by(**given)) as dataset:
            names = dataset.key_names("by")
            assert names[:3] == ("xx", "it", "de")
            assert [names[number] for number in read(dataset)] == languages()


def test_infinity_is_no_group() -> None:
    with pytest.raises(RowError, match="inf in 'key'"):
        KeyNumbers("key").encode(Values(np.array([1.0, np.inf])))


def keyed(rows: int = ROWS) -> ArraySource:
    keys = {"by": np.arange(rows) % 4}
    labels = np.arange(rows) % 3
    return ArraySource(scores(rows), labels, keys=keys, key_names={"by": ("a", "b", "c", "d")})


def counts(tile: Tile) -> np.ndarray:
    assert tile.keys is not None
    weights = None if tile.weights is None else np.asarray(tile.weights)
    return np.bincount(tile.keys["by"], weights, 4).astype(float)


def test_every_fold_sees_the_keys_of_its_rows() -> None:
    data = open_data(Engine(), keyed(), folds=3)
    assert data.key_names("by") == ("a", "b", "c", "d")
    np.testing.assert_array_equal(data.fold(counts, np.add), [150] * 4)
    part = Subset(data.split, 1, inside=True)
    (whole,) = data.source.chunks(ROWS)
    inside = np.bincount(np.flatnonzero(part.chosen(whole)) % 4, minlength=4)
    np.testing.assert_array_equal(data.restricted(part).fold(counts, np.add), inside)
    after = data.after(Temperature(2.0))
    np.testing.assert_array_equal(after.fold(counts, np.add), [150] * 4)
    assert after.key_names("by") == data.key_names("by")
    doubled = data.reweighted(np.full(3, 2.0))
    np.testing.assert_array_equal(doubled.fold(counts, np.add), [300] * 4)
    thin = data.sample(60)
    assert thin is not None
    np.testing.assert_array_equal(thin.fold(counts, np.add), [30, 0, 30, 0])


def test_chunks_keep_the_keys_of_their_rows() -> None:
    (whole,) = keyed().chunks(ROWS)
    parts = [whole.rows(0, 10), whole.rows(10, 11), whole.rows(11, ROWS)]
    np.testing.assert_array_equal(join(parts).keys["by"], whole.keys["by"])
    np.testing.assert_array_equal(whole.rows(2, ROWS).every(3).keys["by"], whole.keys["by"][3::3])


@pytest.mark.parametrize("memory", [0, 1 << 12])
@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_data_from_files_have_keys_streamed_or_not(tmp_path, kind, memory) -> None:
    path = tmp_path / f"val.{kind}"
    write(path, kind, languages())
    names, numbers = first_come(languages())
    with open_dataset([str(path)], by()) as dataset:
        data = open_data(Engine(memory=memory), dataset)
        expected = np.bincount(numbers, minlength=4)
        np.testing.assert_array_equal(data.fold(counts, np.add), expected)
        assert data.key_names("by") == names
        thin = data.sample(100)
        assert thin is not None
        assert thin.key_names("by") == names
        np.testing.assert_array_equal(thin.fold(counts, np.add), np.bincount(numbers[::6]))
        assert read_all(dataset, 50).key_names == {"by": names}


def test_workers_number_the_groups_alike(tmp_path) -> None:
    write(tmp_path / "val.parquet", "parquet", languages())
    workers = open_workers("processes:1", threads=1)
    with open_dataset([str(tmp_path / "val.parquet")], by()) as dataset:
        data = open_data(Engine(workers=workers), dataset)
        expected = np.bincount(first_come(languages())[1])
        np.testing.assert_array_equal(data.fold(counts, np.add), expected)
