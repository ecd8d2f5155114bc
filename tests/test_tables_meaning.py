"""What a file means: taken where the file proves it, refused where two meanings fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibcli.errors import CalibError
from calibcli.tables import ReadOptions, open_dataset

RNG = np.random.default_rng(7)
LOGITS = 2 * RNG.normal(size=(300, 3))
LABELS = (LOGITS + RNG.gumbel(size=LOGITS.shape)).argmax(axis=1)
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[object]:
    """Writes columns to a file and returns its path."""

    def write(**columns: object) -> str:
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table(columns), path)
        return str(path)

    return write


def labels_read(path: str, **options: object) -> np.ndarray:
    with open_dataset([path], ReadOptions(**options)) as dataset:
        return np.concatenate([chunk.labels for chunk in dataset.chunks(64)])


def picked(path: str, **options: object) -> dict[str, str]:
    with open_dataset([path], ReadOptions(**options)) as dataset:
        return dict(dataset.picked)


def class_columns(names: str, values: np.ndarray = PROBS, prefix: str = "prob_") -> dict:
    return {f"{prefix}{name}": values[:, k] for k, name in enumerate(names.split())}


# The order of the classes


def test_numbers_as_labels_do_not_say_which_named_column_is_class_0(table) -> None:
    path = table(**class_columns("low medium high"), label=LABELS)
    with pytest.raises(CalibError) as caught:
        open_dataset([path], ReadOptions())
    message = str(caught.value)
    assert "--classes low,medium,high or --classes high,low,medium" in message
    assert (labels_read(path, classes=("low", "medium", "high")) == LABELS).all()


def test_names_that_stand_in_their_order_are_the_order(table) -> None:
    path = table(**class_columns("cat dog fish"), label=LABELS)
    assert (labels_read(path) == LABELS).all()


def test_labels_that_are_names_need_no_order(table) -> None:
    names = ("low", "medium", "high")
    path = table(**class_columns("low medium high"), label=[names[k] for k in LABELS])
    assert (np.array(["high", "low", "medium"])[labels_read(path)] == np.array(names)[LABELS]).all()


# The numbers of the classes


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.int8])
def test_minus_one_and_one_are_two_classes(table, dtype) -> None:
    truth = LABELS > 0
    path = table(logit=LOGITS[:, 0], label=np.where(truth, 1, -1).astype(dtype))
    assert (labels_read(path) == truth).all()
    assert "-1, 1" in picked(path)["labels"]


def test_minus_one_beside_zero_and_one_is_no_class(table) -> None:
    path = table(logit=LOGITS[:, 0], label=LABELS - 1)
    assert set(labels_read(path, ignore_label=-1)) == {0, 1}
    with pytest.raises(CalibError, match="label -1"):
        from_survey(path)


def from_survey(path: str) -> None:
    from calibcli.engine.data import open_data
    from calibcli.engine.engine import Engine

    with open_dataset([path], ReadOptions()) as dataset:
        open_data(Engine(), dataset)


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_numbers_that_are_names_are_names(table, absent) -> None:
    kept = np.flatnonzero(absent != LABELS)
    scores = class_columns("1 2 3", LOGITS[kept], "logit_")
    assert (labels_read(table(**scores, label=LABELS[kept] + 1)) == LABELS[kept]).all()
    path = table(logits=list(LOGITS[kept]), label=LABELS[kept] + 1)
    assert (labels_read(path, classes=("1", "2", "3")) == LABELS[kept]).all()
    path = table(logits=list(LOGITS[kept]), label=10 * LABELS[kept])
    assert (labels_read(path, classes=("0", "10", "20")) == LABELS[kept]).all()


def test_numbers_from_0_are_places_whatever_the_columns_are_called(table) -> None:
    path = table(**class_columns("1 2 3", LOGITS, "logit_"), label=LABELS)
    assert (labels_read(path) == LABELS).all()
    path = table(logits=list(LOGITS), label=LABELS)
    assert (labels_read(path, classes=("1", "2", "3")) == LABELS).all()


def test_labels_counted_from_1_are_asked_about(table) -> None:
    path = table(logits=list(LOGITS), label=LABELS + 1)
    with pytest.raises(CalibError, match=r"are they counted from 1\? Then say so: --classes 1,2,3"):
        from_survey(path)
    assert (labels_read(path, classes=("1", "2", "3")) == LABELS).all()


def test_a_number_that_is_no_class_is_named(table) -> None:
    labels = 10 * LABELS
    labels[17] = 5
    path = table(logits=list(LOGITS), label=labels)
    with pytest.raises(CalibError, match="row 17"):
        labels_read(path, classes=("0", "10", "20"))


# Which columns are classes


@pytest.mark.parametrize("odd", ["margin", "max"])
def test_a_word_among_numbers_is_no_class(table, odd) -> None:
    path = table(
        **class_columns("0 1 2", LOGITS, "logit_"), **{f"logit_{odd}": LOGITS.max(1)}, label=LABELS
    )
    with pytest.raises(CalibError, match=f"logit_{odd} is no class") as caught:
        open_dataset([path], ReadOptions())
    assert "--logits 'logit_[0-9]*'" in str(caught.value)
    assert (labels_read(path, logits="logit_[0-9]*") == LABELS).all()


# Which column is the truth


def test_labels_that_are_predictions_are_asked_about(table) -> None:
    path = table(logits=list(LOGITS), label=LOGITS.argmax(1), target=LABELS)
    with pytest.raises(CalibError, match="--labels target or --labels label"):
        open_dataset([path], ReadOptions())
    assert (labels_read(path, labels="target") == LABELS).all()
    alone = table(logits=list(LOGITS), label=LOGITS.argmax(1))
    assert picked(alone)["labels"].endswith(
        "the most probable class in every row: is this the truth?"
    )


def test_only_rows_that_were_looked_at_are_said_to_be_predicted(table) -> None:
    logits = np.random.default_rng(0).normal(size=(6000, 3))
    labels = logits.argmax(1)
    labels[5000] = (labels[5000] + 1) % 3
    said = picked(table(logits=list(logits), label=labels))["labels"]
    assert said.endswith("in each of the first 4,096 rows: is this the truth?")


def test_other_labels_are_said(table) -> None:
    path = table(logits=list(LOGITS), label=LABELS, target=LABELS[::-1])
    assert picked(path)["labels"].endswith("also there: target")
    assert "also" not in picked(path, labels="label")["labels"]


# Percentages, and sums that are off


def scores_read(path: str, **options: object) -> np.ndarray:
    with open_dataset([path], ReadOptions(**options)) as dataset:
        assert dataset.kind == "probs"
        return np.concatenate([chunk.scores for chunk in dataset.chunks(64)])


@pytest.mark.parametrize("name", ["probs", "scores", "logits"])
def test_rows_that_sum_to_100_are_percentages(table, name) -> None:
    path = table(**{name: list(100 * PROBS)}, label=LABELS)
    with pytest.raises(CalibError, match="--input percent") as caught:
        open_dataset([path], ReadOptions())
    assert "--input logits" not in str(caught.value)
    assert np.allclose(scores_read(path, input="percent"), PROBS)
    with pytest.raises(CalibError, match="--input percent"):
        open_dataset([path], ReadOptions(input="probs"))


def test_a_confidence_of_70_to_100_is_a_percentage(table) -> None:
    confidence = RNG.integers(70, 101, 300).astype(float)
    path = table(confidence=confidence, label=LABELS > 0)
    with pytest.raises(CalibError, match="as percentages do; settle it with --input percent"):
        open_dataset([path], ReadOptions(logits="confidence"))
    assert np.allclose(
        scores_read(path, logits="confidence", input="percent")[:, 0] * 100, confidence
    )


@pytest.mark.parametrize("name", ["probs", "scores"])
@pytest.mark.parametrize("scale", [0.96, 1.04])
def test_sums_that_are_off_are_renormalised_where_asked(table, name, scale) -> None:
    off = np.minimum(PROBS * scale, 1.049)
    path = table(**{name: list(off)}, label=LABELS)
    with pytest.raises(CalibError, match="--input probs --renormalise") as caught:
        open_dataset([path], ReadOptions())
    assert "--input logits" not in str(caught.value)
    read = scores_read(path, input="probs", renormalise=True)
    assert np.allclose(read.sum(1), 1)
    assert np.allclose(read, off / off.sum(1, keepdims=True))


def test_what_is_not_in_percent_is_not_read_so(table) -> None:
    with pytest.raises(CalibError, match="are none that sum to 100"):
        open_dataset([table(probs=list(PROBS), label=LABELS)], ReadOptions(input="percent"))


def test_renormalising_is_for_probabilities(table) -> None:
    with pytest.raises(CalibError, match="add --input probs"):
        ReadOptions(renormalise=True)
    rows = PROBS.copy()
    rows[5] = 0
    path = table(probs=list(rows), label=LABELS)
    with pytest.raises(CalibError, match=r"row 5.*sum to 0"):
        scores_read(path, input="probs", renormalise=True)


def test_several_labels_can_be_left_out(table) -> None:
    labels = LABELS.copy()
    labels[:50], labels[50:90] = 255, -1
    path = table(logits=list(LOGITS), label=labels)
    assert (labels_read(path, ignore_label=(255, -1)) == LABELS[90:]).all()
    assert (labels_read(path, ignore_label=("255", "-1")) == LABELS[90:]).all()


# Tables whose log says which files count


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        ("_delta_log/00000000000000000000.json", "a Delta table"),
        (".hoodie/hoodie.properties", "a Hudi table"),
        ("metadata/v1.metadata.json", "an Iceberg table"),
    ],
)
@pytest.mark.parametrize("asked", ["", "*.parquet", "day=1", "..", "day=1/*.parquet"])
def test_folders_of_tables_with_a_log_are_refused(table, tmp_path, log, kind, asked) -> None:
    rows = Path(table(logits=list(LOGITS), label=LABELS)).read_bytes()
    root = tmp_path / "above" / "rows"
    for name in ("a.parquet", "b.parquet", "day=1/c.parquet", log):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(rows)
    with pytest.raises(CalibError, match=kind) as caught:
        open_dataset([str(root / asked)], ReadOptions())
    assert "rows.parquet'" in str(caught.value) or ".write.parquet('rows')" in str(caught.value)
    # One file is what it says it is.
    assert (labels_read(str(root / "a.parquet")) == LABELS).all()
