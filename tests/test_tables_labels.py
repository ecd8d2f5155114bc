"""Which labels rows have, and which rows are left out for them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from table_files import (
    fixed_size_list,
    gather,
    make_labels,
    make_scores,
    opened,
    read,
    refusal,
    same_bits,
    save,
    write_npz,
    write_parquet,
)

from calibcli.errors import DataError, UsageError
from calibcli.tables import ReadOptions, parse_classes
from calibcli.tables.labels import NO_LABEL

Z, Y = make_scores(60, 3), make_labels(60, 3)
P = np.exp(Z - Z.max(axis=1, keepdims=True))
P /= P.sum(axis=1, keepdims=True)
PARTS = {"a": slice(0, 25), "b": slice(25, 60)}


@pytest.mark.parametrize(
    "kind", ["int8", "uint8", "int32", "uint64", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("write", [write_npz, write_parquet])
def test_labels_of_any_numeric_type(tmp_path, write, kind):
    assert same_bits(read(write(tmp_path / "a", Z, Y.astype(kind)))[1], Y)


def test_labels_may_be_true_and_false(tmp_path):
    for write in (write_npz, write_parquet):
        labels = read(write(tmp_path / "a", Z[:, :2], Y > 0))[1]
        assert same_bits(labels, (Y > 0).astype(np.int64))


NAMES = ("cat", "dog", "eel")
NAMED = np.array(NAMES)[Y]


@pytest.mark.parametrize(
    "labels",
    [
        NAMED,
        pa.array(NAMED).dictionary_encode(),
        pa.DictionaryArray.from_arrays(Y.astype(np.int8), pa.array([*NAMES, "unused"])),
        pa.array(NAMED.tolist(), pa.large_string()),
    ],
    ids=["string", "dictionary", "dictionary-with-more", "large-string"],
)
def test_class_names_become_numbers(tmp_path, labels):
    path = save(tmp_path / "a", {"logits": fixed_size_list(Z), "label": labels})
    with opened(path, classes=NAMES) as dataset:
        assert same_bits(gather(dataset, 7)[1], Y)
        assert dataset.class_names == NAMES
        assert dataset.picked["classes"] == "cat, dog, eel (from --classes)"
    assert same_bits(read(path, classes=NAMES[::-1])[1], 2 - Y)


@pytest.mark.parametrize("dtype", ["U3", "S5"])
def test_class_names_in_an_npz(tmp_path, dtype):
    path = write_npz(tmp_path / "a", Z, NAMED.astype(dtype), classes=np.array(NAMES))
    with opened(path) as dataset:
        assert same_bits(gather(dataset)[1], Y)
        assert dataset.picked["classes"] == "cat, dog, eel (from the file's metadata)"


def test_class_names_from_metadata_and_from_column_names(tmp_path):
    columns = {"logits": fixed_size_list(Z), "label": NAMED}
    feature = {"label": {"_type": "ClassLabel", "names": NAMES}, "logits": {"_type": "Sequence"}}
    ours = save(tmp_path / "a", columns, {"calib.classes": json.dumps(NAMES)})
    theirs = save(
        tmp_path / "b", columns, {"huggingface": json.dumps({"info": {"features": feature}})}
    )
    scalar = save(
        tmp_path / "c",
        {"prob_eel": P[:, 2], "prob_dog": P[:, 1], "prob_cat": P[:, 0], "label": NAMED},
    )
    for path in (ours, theirs, scalar):
        with opened(path) as dataset:
            assert same_bits(gather(dataset)[1], Y)
            assert dataset.class_names == NAMES
    with opened(scalar, classes=NAMES[::-1]) as dataset:
        scores, labels, _ = gather(dataset)
        assert same_bits(scores, P[:, ::-1].copy())
        assert same_bits(labels, 2 - Y)
        assert dataset.class_names == NAMES[::-1]
    assert "are named for the classes cat, dog, eel" in refusal(
        DataError, scalar, classes=("a", "b", "c")
    )


@pytest.mark.parametrize("metadata", [b"no json", b'{"a": 1}', b'["a", "a", "b"]', b"[1, 2, 3]"])
def test_broken_metadata_is_as_good_as_none(tmp_path, metadata):
    columns = {"logits": fixed_size_list(Z), "label": Y}
    for key in ("calib.classes", "huggingface"):
        with opened(save(tmp_path / "a", columns, {key: metadata})) as dataset:
            assert dataset.class_names is None


def test_class_names_without_an_order_need_one(tmp_path):
    path = save(tmp_path / "a", {"logits": fixed_size_list(Z), "label": NAMED})
    assert refusal(UsageError, path).endswith(
        "column 'label' (string) holds class names, whose order is not known; "
        "give it with --classes 'first,second,…', which are cat, dog, eel"
    )


def test_class_names_are_as_many_as_the_classes(tmp_path):
    path = write_npz(tmp_path / "a", Z, Y)
    assert refusal(UsageError, path, classes=("a", "b")) == (
        f"{path}: --classes names 2 classes, but the scores have 3"
    )
    single = write_npz(tmp_path / "b", Z[:, 0], (Y > 0), classes=np.array(["no", "yes"]))
    with opened(single) as dataset:
        assert dataset.class_names == ("no", "yes")


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (pa.array([0, 1, None, 2]), "row 2: the label is missing"),
        (pa.array(["cat", "dog", None, "cow"]), "row 2: the label is missing"),
        (pa.array(["cat", "dog", "cat", "cow"]), "row 3: the label 'cow' is no known class"),
        (pa.array([0.0, 1.5, 2.0, 1.0]), "row 1: the label 1.5 is no whole number"),
        (pa.array([0.0, 1.0, np.nan, 1.0]), "row 2: the label is missing (NaN)"),
        (pa.array([0.0, 1.0, 2.0, np.inf]), "row 3: the label inf is no whole number"),
        (pa.array([0, 2**64 - 1, 1, 2], pa.uint64()), "row 1: the label 18446744073709551615"),
    ],
)
def test_labels_that_cannot_be_used_are_located(tmp_path, labels, problem):
    good = save(
        tmp_path / "a",
        {"logits": fixed_size_list(Z[:4]), "label": labels.slice(0, 1).take(pa.array([0] * 4))},
    )
    bad = save(tmp_path / "b", {"logits": fixed_size_list(Z[:4]), "label": labels})
    message = refusal(DataError, good, bad, classes=NAMES)
    assert message.startswith(f"{bad}, {problem}")


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        (pa.array([1.0, None, 1.0, 1.0]), "row 1: the weight is missing"),
        (pa.array([1.0, 1.0, -2.0, 1.0]), "row 2: the weight -2.0 is not a finite number"),
        (pa.array([1.0, 1.0, 1.0, np.nan]), "row 3: the weight nan is not a finite number"),
        (pa.array([1.0, np.inf, 1.0, 1.0]), "row 1: the weight inf is not a finite number"),
    ],
)
def test_weights_that_cannot_be_used_are_located(tmp_path, weights, problem):
    columns = {"logits": fixed_size_list(Z[:4]), "label": Y[:4], "w": weights}
    path = save(tmp_path / "a", columns)
    assert refusal(DataError, path, weights="w").startswith(f"{path}, {problem}")


# Rows left out


@pytest.mark.parametrize("labels", [np.where(Y == 1, -100, Y), np.where(Y == 1, "none", NAMED)])
@pytest.mark.parametrize("write", [write_npz, write_parquet])
def test_rows_with_the_ignored_label_are_left_out(tmp_path, write, labels):
    keep = Y != 1
    ignore = str(labels[Y == 1][0])
    files = [write(tmp_path / name, Z[rows], labels[rows]) for name, rows in PARTS.items()]
    with opened(*files, ignore_label=ignore, classes=NAMES) as dataset:
        scores, found, _ = gather(dataset, 7)
        assert same_bits(scores, Z[keep])
        assert same_bits(found, Y[keep])
        assert dataset.dropped_rows == (~keep).sum()
        assert not dataset.resident()
        where = [
            f"{files[0]}, row {row}" if row < 25 else f"{files[1]}, row {row - 25}"
            for row in np.flatnonzero(keep)
        ]
        assert [dataset.locate(row) for row in range(dataset.rows)] == where


@pytest.mark.parametrize("groups", [4, 60])
def test_parts_know_how_many_rows_were_left_out_before_them(tmp_path, groups):
    labels = np.where(Y == 1, -100, Y)
    path = write_parquet(tmp_path / "a", Z, labels, groups=groups, id=pa.array(range(60)))
    with opened(path, ignore_label=-100) as dataset:
        chunks = [chunk for part in dataset.cut(7) for chunk in part.chunks(3, with_columns=True)]
    assert [chunk.start for chunk in chunks] == np.cumsum([0, *map(len, chunks)])[:-1].tolist()
    assert same_bits(np.concatenate([chunk.scores for chunk in chunks]), Z[Y != 1])
    ids = [each for chunk in chunks for each in chunk.columns["id"].to_pylist()]
    assert ids == np.flatnonzero(Y != 1).tolist()


def test_rows_are_left_out_by_a_file_of_labels(tmp_path):
    np.save(tmp_path / "labels.npy", np.where(Y == 1, -1, Y))
    parts = [write_parquet(tmp_path / name, Z[rows]) for name, rows in PARTS.items()]
    scores, labels, _ = read(*parts, labels=str(tmp_path / "labels.npy"), ignore_label=-1)
    assert same_bits(scores, Z[Y != 1])
    assert same_bits(labels, Y[Y != 1])


def test_all_rows_cannot_be_left_out(tmp_path):
    path = write_npz(tmp_path / "a", Z, np.full(60, -100))
    assert "every row has the label" in refusal(DataError, path, ignore_label=-100)
    assert "the labels are numbers" in refusal(UsageError, path, ignore_label="none")


# Where labels are not required


def test_integer_labels_are_read_where_they_are_not_required(tmp_path):
    labels = pa.array([None if y == 1 else int(y) - 100 * (y == 2) for y in Y])
    path = save(tmp_path / "a", {"logits": fixed_size_list(Z), "target": labels})
    with opened(path, labels_required=False, ignore_label=-98) as dataset:
        assert dataset.rows == 60
        found = gather(dataset)[1]
    assert found.tolist() == np.select([Y == 1, Y == 2], [NO_LABEL, -98], Y).tolist()


@pytest.mark.parametrize("labels", [NAMED, Z[:, 0], pa.array([[1]] * 60)])
def test_other_labels_ride_along_where_they_are_not_required(tmp_path, labels):
    path = save(tmp_path / "a", {"logits": fixed_size_list(Z), "target": labels})
    with opened(path, labels_required=False) as dataset:
        assert not dataset.has_labels
        columns = gather(dataset, with_columns=True)[3]
    assert columns["target"].to_pylist() == pa.array(labels).to_pylist()


def test_no_labels_are_fine_where_they_are_not_required(tmp_path):
    with opened(write_npz(tmp_path / "a", Z), labels_required=False) as dataset:
        assert gather(dataset)[1] is None


# Options


def test_classes_are_a_list_or_a_file(tmp_path):
    assert parse_classes("cat, dog,eel") == NAMES
    (tmp_path / "classes.txt").write_text("cat\ndog\n\n eel \n", encoding="utf-8")
    assert parse_classes(str(tmp_path / "classes.txt")) == NAMES


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cat,dog,cat", "class 'cat' is there twice"),
        ("cat,,dog", "a class name is empty"),
        ("absent.txt", "at least two names"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(text, problem):
    with pytest.raises(UsageError, match=problem):
        parse_classes(text)


def test_options_are_checked():
    with pytest.raises(UsageError, match="use auto, logits, log-probs, probs"):
        ReadOptions(input="odds")
    with pytest.raises(UsageError, match="at least two"):
        ReadOptions(classes=("cat",))
