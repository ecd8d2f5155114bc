"""What is picked from a file, and how its scores and labels are understood."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
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
    tensor,
    write_npz,
    write_parquet,
)

from calibcli.errors import DataError, UsageError
from calibcli.tables.kinds import decide_kind, kind_by_name
from calibcli.tables.names import FAMILIES, LABELS, SCORES, natural

Z, Y = make_scores(60, 3), make_labels(60, 3)
P = np.exp(Z - Z.max(axis=1, keepdims=True))
P /= P.sum(axis=1, keepdims=True)
with np.errstate(divide="ignore"):
    LOG_P = np.log(P)


# Names


@pytest.mark.parametrize("name", [*SCORES, "Logits", "PROBS"])
def test_well_known_names_of_scores_are_found(tmp_path, name):
    kind = kind_by_name(name)
    rows = {"probs": P, "log-probs": LOG_P}.get(kind, Z)
    with opened(save(tmp_path / "a", {"id": range(60), name: fixed_size_list(rows), "y": Y})) as d:
        assert same_bits(gather(d)[0], rows)
        assert d.kind == (kind or "logits")
        assert d.picked["logits"] == f"column {name!r} (fixed_size_list<float>[3])"


@pytest.mark.parametrize("name", [*LABELS, "Label"])
def test_well_known_names_of_labels_are_found(tmp_path, name):
    with opened(save(tmp_path / "a", {name: Y, "logits": fixed_size_list(Z)})) as dataset:
        assert same_bits(gather(dataset)[1], Y)
        assert dataset.picked["labels"] == f"column {name!r} (int64)"


@pytest.mark.parametrize("family", FAMILIES)
def test_well_known_families_of_columns_are_found(tmp_path, family):
    kind = kind_by_name(family)
    rows = {"probs": P, "log-probs": LOG_P}.get(kind, Z)
    columns = {family.replace("*", str(k)): rows[:, k] for k in range(3)}
    with opened(save(tmp_path / "a", {**columns, "y": Y})) as dataset:
        assert same_bits(gather(dataset)[0], rows)
        assert dataset.kind == kind


def test_the_first_of_several_is_taken_and_said(tmp_path):
    columns = {"probs": fixed_size_list(P), "y": Y, "logits": tensor(Z), "label": 2 - Y}
    with opened(save(tmp_path / "a", columns)) as dataset:
        scores, labels, _ = gather(dataset)
        assert same_bits(scores, Z)
        assert same_bits(labels, 2 - Y)
        assert dataset.picked["logits"] == (
            "column 'logits' (fixed_shape_tensor<float>[3]); also there: probs"
        )
        assert dataset.other_columns == ("probs", "y")


def test_what_was_asked_for_is_taken(tmp_path):
    columns = {"logits": fixed_size_list(P), "mine": fixed_size_list(Z), "gt": Y, "w": Y + 0.5}
    path = save(tmp_path / "a", {**columns, "label": 2 - Y})
    scores, labels, weights = read(path, logits="mine", labels="gt", weights="w")
    assert same_bits(scores, Z)
    assert same_bits(labels, Y)
    assert same_bits(weights, Y + 0.5)


def test_weights_are_never_taken_unasked(tmp_path):
    columns = {"logits": fixed_size_list(Z), "label": Y, "weight": Y, "weights": Y}
    assert read(save(tmp_path / "a", columns))[2] is None


def test_keys_of_an_npz_are_found_and_asked_for(tmp_path):
    np.savez(tmp_path / "a.npz", Outputs=Z, targets=Y, z=P, other=2 - Y, w=np.ones(60, np.uint8))
    with opened(tmp_path / "a.npz") as dataset:
        assert same_bits(gather(dataset)[0], Z)
        assert dataset.picked == {
            "logits": "key 'Outputs' (float32[3])",
            "labels": "key 'targets' (int64)",
            "input": "logits (by the values)",
        }
    scores, labels, weights = read(tmp_path / "a.npz", logits="z", labels="other", weights="w")
    assert same_bits(scores, P)
    assert same_bits(labels, 2 - Y)
    assert same_bits(weights, np.ones(60))


@pytest.mark.parametrize("shape", [(60,), (60, 1)])
def test_labels_may_be_a_file_of_their_own(tmp_path, shape):
    np.save(tmp_path / "val_logits.npy", Z)
    np.save(tmp_path / "labels.npy", Y.reshape(shape))
    given = str(tmp_path / "labels.npy")
    with opened(tmp_path / "val_logits.npy", labels=given) as dataset:
        scores, labels, _ = gather(dataset, 7)
        assert same_bits(scores, Z)
        assert same_bits(labels, Y)
        assert dataset.picked["labels"].startswith(f"{given} (int64")
        assert dataset.picked["input"] == "logits (by the name; the values agree)"
        labels = [chunk.labels for part in dataset.cut(20) for chunk in part.chunks(9)]
        assert same_bits(np.concatenate(labels), Y)
    parts = [write_parquet(tmp_path / name, Z[rows]) for name, rows in PARTS.items()]
    assert same_bits(read(*parts, labels=given)[1], Y)


PARTS = {"a": slice(0, 25), "b": slice(25, 60)}


def test_a_file_of_labels_has_as_many_rows_as_the_scores(tmp_path):
    np.save(tmp_path / "scores.npy", Z)
    np.save(tmp_path / "labels.npy", Y[:-1])
    labels = str(tmp_path / "labels.npy")
    message = refusal(DataError, tmp_path / "scores.npy", labels=labels)
    assert message == f"{labels}: 59 labels for 60 rows"


def test_what_is_not_found_is_said_with_what_is_there(tmp_path):
    path = save(tmp_path / "a", {"id": range(60), "x": fixed_size_list(Z), "kind": Y})
    assert refusal(UsageError, path) == (
        f"{path}: no column with a name such as logits or probs; the columns are id, x, kind; "
        "if these are the scores, add --logits x"
    )
    assert refusal(UsageError, path, logits="x") == (
        f"{path}: no labels were found; the columns are id, x, kind; "
        "--labels takes a column or a file LABELS.npy"
    )
    assert "no column 'z'; the columns are id" in refusal(UsageError, path, logits="z")
    assert "no column 'z'; the columns" in refusal(UsageError, path, logits="x", labels="z")
    assert "no column 'z' for --weights" in refusal(
        UsageError, path, logits="x", labels="kind", weights="z"
    )
    assert "no column matches --logits 'z_*'" in refusal(UsageError, path, logits="z_*")
    assert "no such file" in refusal(DataError, path, logits="x", labels="absent.npy")
    wide = save(tmp_path / "wide", {f"c{k}": [1] for k in range(40)})
    assert "c11 and 28 more" in refusal(UsageError, wide)


def test_fields_of_the_wrong_type_are_refused(tmp_path):
    columns = {
        "logits": fixed_size_list(Y[:, None].repeat(3, axis=1)),
        "y": pa.array([["a", "b"]] * 60, pa.list_(pa.string(), 2)),
        "z": Z[:, 0],
        "s": ["a"] * 60,
        "logit_0": Y,
    }
    path = save(tmp_path / "a", columns)
    assert refusal(DataError, path).startswith(
        f"{path}: column 'logits' (fixed_size_list<int64>[3]) cannot be scores"
    )
    assert "(fixed_size_list<string>[2]) cannot be labels" in refusal(DataError, path, logits="z")
    assert "(string) cannot be weights" in refusal(
        DataError, path, logits="z", labels="logit_0", weights="s"
    )
    assert "matches 'logit_*' but is not one" in refusal(DataError, path, logits="logit_*")
    matrix = save(tmp_path / "matrix", {"logits": tensor(np.zeros((9, 6)), [2, 3]), "y": Y[:9]})
    assert "2 members of an ensemble for each row" in refusal(UsageError, matrix)


def test_a_class_missing_among_numbered_columns_is_noticed(tmp_path):
    for present, absent in (((0, 1, 3), 2), ((1, 2, 4), 3), ((5, 6, 7), 0)):
        columns = {f"logit_{k}": Z[:, 0] for k in present}
        path = save(tmp_path / "a", {**columns, "y": Y})
        assert refusal(DataError, path) == (
            f"{path}: the columns logit_* are not numbered from 0 or 1 without a gap "
            f"(logit_{absent} is not there)"
        )
    one_based = save(tmp_path / "b", {**{f"logit_{k + 1}": Z[:, k] for k in range(3)}, "y": Y})
    assert same_bits(read(one_based)[0], Z)


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_the_natural_order_is_that_of_the_numbers(numbers):
    names = sorted((f"logit_{n}" for n in numbers), key=natural)
    assert names == [f"logit_{n}" for n in sorted(numbers)]


# Kinds


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("logits", "logits"),
        ("val_logits", "logits"),
        ("probs", "probs"),
        ("y_prob", "probs"),
        ("predict_proba", "probs"),
        ("softmax", "probs"),
        ("log_softmax", "log-probs"),
        ("log_probs", "log-probs"),
        ("logprobs", "log-probs"),
        ("LogProb_*", "log-probs"),
        ("scores", None),
        ("outputs", None),
        ("catalog_items", None),
        ("problem", None),
    ],
)
def test_kinds_by_name(name, kind):
    assert kind_by_name(name) == kind


KINDS = {"logits": Z, "log-probs": LOG_P, "probs": P}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_unknown_names_are_settled_by_the_values(tmp_path, dtype, kind):
    path = write_npz(tmp_path / "a", Z, Y, outputs=KINDS[kind].astype(dtype))
    with opened(path, logits="outputs") as dataset:
        assert dataset.kind == kind
        assert dataset.picked["input"].endswith("(by the values)")


@pytest.mark.parametrize("asked", KINDS)
def test_what_is_asked_for_settles_it(tmp_path, asked):
    path = save(tmp_path / "a", {"logits": fixed_size_list(KINDS[asked]), "y": Y})
    with opened(path, input=asked) as dataset:
        assert dataset.kind == asked
        assert dataset.picked["input"].endswith("(as asked)")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_logits_that_are_probabilities_are_refused(tmp_path, dtype):
    path = save(tmp_path / "a", {"logits": fixed_size_list(P.astype(dtype)), "y": Y})
    assert refusal(UsageError, path).endswith(
        ": named as logits, but every row lies in [0, 1] and sums to 1, as probabilities do; "
        "settle it with --input probs or --input logits"
    )
    single = save(tmp_path / "b", {"logits": P[:, 0].astype(dtype), "y": Y})
    assert "every row lies in [0, 1], as probabilities do" in refusal(UsageError, single)


def test_one_row_that_is_no_probability_makes_them_logits(tmp_path):
    rows = P.copy()
    rows[-1] *= 2
    with opened(write_npz(tmp_path / "a", rows, Y)) as dataset:
        assert dataset.kind == "logits"


def test_a_contradiction_far_inside_a_file_or_in_a_later_one_is_noticed(tmp_path):
    many = np.tile(P, (5000, 1))
    first = save(tmp_path / "a", {"probs": fixed_size_list(many), "y": np.tile(Y, 5000)})
    second = save(tmp_path / "b", {"probs": fixed_size_list(Z), "y": Y})
    assert "outside [0, 1]" in refusal(UsageError, first, second)


@pytest.mark.parametrize(
    ("name", "rows", "problem"),
    [
        (
            "probs",
            Z,
            (
                "outside [0, 1], as in 60 of 60 rows that were looked at; settle it with "
                "--input probs or --input logits"
            ),
        ),
        ("probs", P * 0.9, "a row sums to 0.9 and not to 1"),
        (
            "log_probs",
            Z,
            "rows that were looked at; settle it with --input log-probs or --input logits",
        ),
        ("log_probs", LOG_P - 1, "a row sums to 0.367879 and not to 1"),
    ],
)
def test_names_and_values_that_contradict_each_other(tmp_path, name, rows, problem):
    path = save(tmp_path / "a", {name: fixed_size_list(rows), "y": Y})
    assert problem in refusal(UsageError, path)


def test_what_cannot_be_is_refused_even_if_asked_for(tmp_path):
    path = save(tmp_path / "a", {"logits": fixed_size_list(Z), "y": Y})
    assert "--input probs was given, but a value is" in refusal(DataError, path, input="probs")
    assert "above 0" in refusal(DataError, path, input="log-probs")
    # Sums are the user's word: they may be truncated to the likeliest classes.
    with opened(
        save(tmp_path / "b", {"x": fixed_size_list(P * 0.5), "y": Y}), logits="x", input="probs"
    ) as dataset:
        assert dataset.kind == "probs"


def test_rows_that_are_refused_elsewhere_do_not_settle_the_kind():
    rows = P.copy()
    rows[3] = np.nan
    rows[4, 1] = np.inf
    assert decide_kind("auto", "scores", rows, "")[0] == "probs"
    assert decide_kind("auto", "probs", rows[3:5], "")[0] == "probs"


def test_rounded_probabilities_are_probabilities():
    assert decide_kind("auto", "probs", P.round(2), "")[0] == "probs"
    assert decide_kind("auto", "scores", P.round(2), "")[0] == "probs"


def test_few_single_scores_prove_nothing():
    assert decide_kind("auto", "logit", P[:5, :1], "")[0] == "logits"
