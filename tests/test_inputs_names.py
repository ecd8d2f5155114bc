"""Names that people give to scores and labels, and what a file proves where names say nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import gather, opened

from calibcli.errors import CalibError
from calibcli.tables.names import OTHER_FAMILIES, OTHER_LABELS, OTHER_SCORES, OTHER_VECTORS

RNG = np.random.default_rng(3)
ROWS = 120
LOGITS = 2 * RNG.normal(size=(ROWS, 3))
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
LABELS = (LOGITS + RNG.gumbel(size=LOGITS.shape)).argmax(axis=1)
NAMES = ("cat", "dog", "fish")
TEXTS = [NAMES[k] for k in LABELS]
IS_CAT = LABELS == 0


@pytest.fixture
def table(tmp_path: Path):
    def write(columns: dict[str, Any]) -> str:
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table(columns), path)
        return str(path)

    return write


def rows_read(path: str, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    with opened(path, **options) as dataset:
        return gather(dataset, 50)[:2]


def refused(path: str, **options: Any) -> str:
    with pytest.raises(CalibError) as caught:
        opened(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def class_columns(prefix: str = "", names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    return {f"{prefix}{name}": PROBS[:, k] for k, name in enumerate(names)}


# Names


@pytest.mark.parametrize("name", [*OTHER_SCORES, *OTHER_VECTORS])
def test_names_of_scores_are_known(table, name):
    scores, labels = rows_read(table({name: list(PROBS), "label": LABELS}), input="probs")
    assert np.array_equal(scores, PROBS)
    assert np.array_equal(labels, LABELS)


@pytest.mark.parametrize("name", OTHER_SCORES)
def test_names_of_single_scores_are_known(table, name):
    scores, _ = rows_read(table({name: PROBS[:, 0], "label": IS_CAT}), input="probs")
    assert np.array_equal(scores[:, 0], PROBS[:, 0])


@pytest.mark.parametrize("name", OTHER_VECTORS)
def test_single_numbers_may_be_predicted_classes(table, name):
    message = refused(table({name: PROBS[:, 0], "label": IS_CAT}))
    assert message.endswith(f"add --logits {name}")


@pytest.mark.parametrize("pattern", OTHER_FAMILIES)
def test_names_of_class_columns_are_known(table, pattern):
    prefix = pattern.removesuffix("*")
    path = table({**class_columns(prefix), f"{prefix}class": TEXTS, "truth": TEXTS})
    scores, labels = rows_read(path)
    assert np.array_equal(scores, PROBS)
    assert np.array_equal(labels, LABELS)
    with opened(path) as dataset:
        assert dataset.picked["logits"].endswith(f"left out, since it is text: {prefix}class")


def test_a_text_that_is_a_number_elsewhere_is_not_left_out(table):
    columns = {f"logit_{name}": LOGITS[:, k] for k, name in enumerate(NAMES)}
    columns["logit_dog"] = [*map(str, LOGITS[:-1, 1].tolist()), "?"]
    assert "column 'logit_dog' (string) matches 'logit_*' but is not one" in refused(
        table({**columns, "label": TEXTS})
    )


@pytest.mark.parametrize("name", OTHER_LABELS)
def test_names_of_labels_are_known(table, name):
    assert np.array_equal(rows_read(table({"logits": list(LOGITS), name: LABELS}))[1], LABELS)


def test_two_of_the_names_are_refused_with_both_ways(table):
    path = table({"y_score": list(PROBS), "softmax": list(PROBS), "label": LABELS})
    assert "--logits softmax or --logits y_score" in refused(path)
    path = table({"logits": list(LOGITS), "truth": LABELS, "label_ids": LABELS})
    assert "--labels label_ids or --labels truth" in refused(path)


def test_names_that_were_tried_first_stay_first(table):
    path = table({"score": PROBS[:, 1], **class_columns("prob_"), "truth": LABELS, "label": TEXTS})
    scores, labels = rows_read(path)
    assert np.array_equal(scores, PROBS)
    assert np.array_equal(labels, LABELS)


# A list


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("prefix", ["", "prob_", "m."])
def test_a_list_gives_the_columns_and_their_order(table, order, prefix):
    path = table({"age": PROBS[:, 0], **class_columns(prefix), "label": TEXTS})
    names = [NAMES[k] for k in order]
    with opened(path, logits=",".join(f"{prefix}{name}" for name in names)) as dataset:
        assert dataset.class_names == tuple(names)
        scores, labels, _ = gather(dataset)
    assert np.array_equal(scores, PROBS[:, order])
    assert [names[k] for k in labels] == TEXTS


def test_a_list_is_in_its_order_for_labels_that_are_numbers(table):
    path = table({**class_columns(), "label": LABELS})
    scores, labels = rows_read(path, logits="fish,dog,cat")
    assert np.array_equal(scores, PROBS[:, ::-1])
    assert np.array_equal(labels, LABELS)


def test_a_list_of_numbered_columns(table):
    path = table({**class_columns("x", ("0", "1", "2")), "label": LABELS})
    scores, labels = rows_read(path, logits="x0,x1,x2", input="probs")
    assert np.array_equal(scores, PROBS)
    assert np.array_equal(labels, LABELS)


def test_a_name_with_a_comma_is_a_name(table):
    path = table({"a,b": list(PROBS), "a": PROBS[:, 0], "b": PROBS[:, 1], "label": LABELS})
    assert np.array_equal(rows_read(path, logits="a,b")[0], PROBS)


def test_lists_that_are_none_are_refused(table):
    path = table({**class_columns(), "n": LABELS, "label": TEXTS})
    assert "no column 'bird' for --logits cat,bird" in refused(path, logits="cat,bird")
    assert "'cat' is there twice" in refused(path, logits="cat,dog,cat")
    assert "(int64) of --logits cat,n is not one" in refused(path, logits="cat,n")
    assert "the class names given are a, b, c" in refused(
        path, logits="cat,dog,fish", classes=("a", "b", "c")
    )


# Columns that are called like the classes


@pytest.mark.parametrize(
    "others", [{}, {"id": [f"i{k}" for k in range(ROWS)]}, {"age": PROBS[:, 0]}]
)
def test_columns_that_are_called_like_the_labels(table, others):
    columns = class_columns()
    path = table({"fish": columns.pop("fish"), **others, **columns, "label": TEXTS})
    scores, labels = rows_read(path)
    assert np.array_equal(scores, PROBS)
    assert np.array_equal(labels, LABELS)


def test_a_class_without_rows_is_a_class_where_rows_sum_to_1(table):
    kept = np.flatnonzero(LABELS != 1)
    columns = {name: column[kept] for name, column in class_columns().items()}
    scores, _ = rows_read(table({**columns, "label": [TEXTS[k] for k in kept]}))
    assert np.array_equal(scores, PROBS[kept])


def test_columns_that_may_or_may_not_be_classes_are_refused(table):
    columns = {name: LOGITS[:, k] for k, name in enumerate(NAMES)}
    message = refused(table({**columns, "age": LOGITS[:, 0], "label": TEXTS}))
    assert message.endswith("if these are the scores, add --logits cat,dog,fish,age")
    message = refused(table({**columns, "label": ["bird", *TEXTS[1:]]}))
    assert "--logits cat,dog,fish" in message


@pytest.mark.parametrize("first", [0, 1])
def test_columns_that_are_called_by_the_numbers_of_the_classes(table, first):
    names = tuple(str(k + first) for k in range(3))
    scores, labels = rows_read(table({**class_columns("", names), "label": LABELS + first}))
    assert np.array_equal(scores, PROBS)
    assert np.array_equal(labels, LABELS)


def test_numbered_features_are_no_classes(table):
    columns = {str(k): RNG.normal(size=ROWS) for k in range(20)}
    assert "no column with a name such as logits" in refused(table({**columns, "label": IS_CAT}))
    assert "no column with a name such as logits" in refused(table({**columns, "label": LABELS}))
    as_many = {str(k): LOGITS[:, k] for k in range(3)}
    path = table({**as_many, "label": LABELS})
    assert refused(path).endswith("if these are the scores, add --logits 0,1,2")
    assert np.array_equal(rows_read(path, logits="0,1,2")[0], LOGITS)


# Arrays without names, confidence and correct, flags


@pytest.mark.parametrize("swapped", [False, True])
def test_arrays_without_names(tmp_path, swapped):
    arrays = (LABELS, LOGITS) if swapped else (LOGITS, LABELS)
    np.savez(tmp_path / "p.npz", *arrays)
    scores, labels = rows_read(str(tmp_path / "p.npz"))
    assert np.array_equal(scores, LOGITS)
    assert np.array_equal(labels, LABELS)


@pytest.mark.parametrize(
    "arrays",
    [(LOGITS, LABELS, LABELS), (LOGITS, LOGITS), (LOGITS, LABELS[:-1]), (LOGITS, LABELS + 0.0)],
)
def test_arrays_without_names_that_may_be_anything(tmp_path, arrays):
    np.savez(tmp_path / "p.npz", *arrays)
    assert "add --logits arr_0" in refused(str(tmp_path / "p.npz"))


def test_confidence_beside_correct(table):
    confidence = PROBS.max(axis=1)
    correct = PROBS.argmax(axis=1) == LABELS
    scores, labels = rows_read(table({"confidence": confidence, "correct": correct}), input="probs")
    assert np.array_equal(scores[:, 0], confidence)
    assert np.array_equal(labels, correct)
    # Of other labels the confidence is in the predicted class, whichever that is.
    assert "add --logits confidence" in refused(table({"confidence": confidence, "label": IS_CAT}))


@pytest.mark.parametrize("flag", [IS_CAT, IS_CAT.astype(np.int64)])
def test_the_only_column_of_two_values_is_the_label(table, flag):
    columns = {"prob": PROBS[:, 0], "amount": LOGITS[:, 1], "is_fraud": flag, "n": np.arange(ROWS)}
    path = table({**columns, "id": [f"t{k}" for k in range(ROWS)]})
    assert np.array_equal(rows_read(path)[1], IS_CAT)
    with opened(path) as dataset:
        assert dataset.picked["labels"].endswith("the only column of two values")


@pytest.mark.parametrize(
    "other", [IS_CAT[::-1], IS_CAT[::-1].astype(np.int64), np.where(IS_CAT, "yes", "no")]
)
def test_one_of_two_columns_of_two_values_is_asked_for(table, other):
    path = table({"prob": PROBS[:, 0], "is_fraud": IS_CAT, "other": other})
    assert "no labels were found" in refused(path)
    assert np.array_equal(rows_read(path, labels="is_fraud")[1], IS_CAT)


@pytest.mark.parametrize("gap", [0, 5])
def test_truth_values_may_be_floats(table, gap):
    """An outcome with gaps is a float in many a table: the flag beside it is not the only one."""
    outcome = IS_CAT[::-1].astype(float)
    outcome[:gap] = np.nan
    columns = {"prob": PROBS[:, 0], "outcome": outcome, "fold": IS_CAT.astype(np.int64)}
    assert "no labels were found" in refused(table(columns))
    ones = table({**columns, "outcome": np.ones(ROWS)})
    assert np.array_equal(rows_read(ones)[1], IS_CAT)


def test_a_column_that_is_the_predicted_class_is_no_flag(table):
    pair = np.stack([1 - PROBS[:, 0], PROBS[:, 0]], axis=1)
    for scores in (list(pair), PROBS[:, 0]):
        said = refused(table({"probs": scores, "decision": PROBS[:, 0] > 0.5}))
        assert "no labels were found" in said


def test_an_output_has_its_flag_beside_the_prediction(table):
    pair = np.stack([1 - PROBS[:, 0], PROBS[:, 0]], axis=1)
    probs = pa.FixedSizeListArray.from_arrays(pair.ravel(), 2)
    columns = {"probs": probs, "prediction": pair.argmax(axis=1), "matched": IS_CAT}
    assert np.array_equal(rows_read(table(columns))[1], IS_CAT)
    said = refused(table({"probs": list(PROBS), "prediction": PROBS.argmax(axis=1)}))
    assert "prediction;" in said
    assert "--labels prediction" not in said


def test_a_flag_is_no_label_of_three_classes(table):
    path = table({"logits": list(LOGITS), "is_train": IS_CAT})
    assert "if these are the labels, add --labels is_train" in refused(path)
