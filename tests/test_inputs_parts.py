"""Parts of one table whose columns differ without harm, as a year of daily files does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import calibrated_file, gather, opened

from calibcli.errors import CalibError, UsageError
from calibcli.tables import ReadOptions, open_dataset

RNG = np.random.default_rng(8)
ROWS = 40
LOGITS = RNG.normal(size=(ROWS, 3)).astype(np.float32)
LABELS = RNG.integers(0, 3, ROWS)
F32, F64 = pa.float32(), pa.float64()


def part(folder: Path, name: str, rows: slice, **columns: object) -> None:
    """A part of the table, with other types of some columns; None leaves one out."""
    usual = {"logits": pa.array(LOGITS[rows].tolist(), pa.list_(F32)), "label": LABELS[rows]}
    given = {**usual, **columns}
    folder.mkdir(exist_ok=True)
    stored = pa.table({key: value for key, value in given.items() if value is not None})
    pq.write_table(stored, folder / f"{name}.parquet")


FIRST, SECOND = slice(0, 17), slice(17, ROWS)
SCORES = {
    "double": lambda z: pa.array(z.tolist(), pa.list_(F64)),
    "large_list": lambda z: pa.array(z.tolist(), pa.large_list(F32)),
    "fixed_size_list": lambda z: pa.array(z.tolist(), pa.list_(F32, 3)),
    "list_view": lambda z: pa.array(z.tolist(), pa.list_view(F64)),
}
LABEL_TYPES = [
    pa.int8(),
    pa.uint64(),
    F64,
    pa.decimal128(38, 0),
    pa.uint8(),
]


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("first", [False, True])
def test_scores_of_several_types_are_widened(tmp_path, kind, first):
    folder, other = tmp_path / "rows", SCORES[kind]
    part(folder, "a", FIRST, **({"logits": other(LOGITS[FIRST])} if first else {}))
    part(folder, "b", SECOND, **({} if first else {"logits": other(LOGITS[SECOND])}))
    with opened(folder) as dataset:
        scores, labels, _ = gather(dataset, 9)
        wide = kind in ("double", "list_view")
        assert dataset.dtype == scores.dtype == (np.float64 if wide else np.float32)
        parts = [chunk for each in dataset.cut(9) for chunk in each.chunks(9)]
    assert {chunk.scores.dtype for chunk in parts} == {scores.dtype}
    assert np.array_equal(scores, LOGITS)
    assert np.array_equal(labels, LABELS)


@pytest.mark.parametrize("kind", LABEL_TYPES, ids=str)
def test_labels_of_several_types_are_the_same_classes(tmp_path, kind):
    folder = tmp_path / "rows"
    part(folder, "a", FIRST)
    part(folder, "b", SECOND, label=pa.array(LABELS[SECOND], pa.int8()).cast(kind))
    with opened(folder, keys={"by": "label"}) as dataset:
        assert np.array_equal(gather(dataset, 9)[1], LABELS)
        assert sorted(dataset.key_names("by")) == ["0", "1", "2"]


def test_columns_may_stand_in_another_order(tmp_path):
    folder = tmp_path / "rows"
    columns = {f"logit_{k}": LOGITS[:, k] for k in range(3)}
    part(folder, "a", FIRST, logits=None, **{k: v[FIRST] for k, v in columns.items()})
    turned = dict(reversed(columns.items()))
    part(folder, "b", SECOND, logits=None, **{k: v[SECOND] for k, v in turned.items()})
    with opened(folder) as dataset:
        assert np.array_equal(gather(dataset, 9)[0], LOGITS)


NUMBERS, TEXTS = pa.array(range(ROWS)), pa.array([f"t{k % 5}" for k in range(ROWS)])
RIDERS = {
    "int32 and int64": (NUMBERS.cast(pa.int32()), NUMBERS),
    "int64 and int32": (NUMBERS, NUMBERS.cast(pa.int32())),
    "int64 and double": (NUMBERS, NUMBERS.cast(F64)),
    "float and double": (NUMBERS.cast(F32), NUMBERS.cast(F64)),
    "null and string": (pa.nulls(ROWS), TEXTS),
    "string and null": (TEXTS, pa.nulls(ROWS)),
    "absent and string": (None, TEXTS),
    "string and absent": (TEXTS, None),
    "dictionary and string": (TEXTS.dictionary_encode(), TEXTS),
    "large_string and string_view": (TEXTS.cast(pa.large_string()), TEXTS.cast(pa.string_view())),
    "list and large_list": (
        pa.array([[k] for k in range(ROWS)], pa.list_(pa.int32())),
        pa.array([[k] for k in range(ROWS)], pa.large_list(pa.int64())),
    ),
    "timestamps": (NUMBERS.cast(pa.timestamp("ms")), NUMBERS.cast(pa.timestamp("us"))),
}


@pytest.mark.parametrize("kind", RIDERS)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_columns_that_ride_along_are_widened(tmp_path, kind, suffix):
    one, other = RIDERS[kind]
    folder = tmp_path / "rows"
    part(folder, "a", FIRST, x=None if one is None else one[FIRST])
    part(folder, "b", SECOND, x=None if other is None else other[SECOND])
    calibrated_file(folder, tmp_path / f"o.{suffix}")
    if suffix == "parquet":
        table = pq.read_table(tmp_path / "o.parquet")
    else:
        with pa.OSFile(str(tmp_path / "o.arrow"), "rb") as file:
            table = pa.ipc.open_file(file).read_all()
    lengths = (len(range(ROWS)[rows]) for rows in (FIRST, SECOND))
    values = [
        value
        for stored, rows, length in zip((one, other), (FIRST, SECOND), lengths, strict=True)
        for value in ([None] * length if stored is None else stored[rows].to_pylist())
    ]
    assert table["x"].to_pylist() == values
    assert table["label"].to_pylist() == LABELS.tolist()


def test_what_does_not_go_together_is_refused_where_it_is_written(tmp_path):
    folder = tmp_path / "rows"
    part(folder, "a", FIRST, x=NUMBERS[FIRST])
    part(folder, "b", SECOND, x=TEXTS[SECOND])
    with pytest.raises(CalibError, match=r"b.parquet: column 'x' is string, but in .* int64"):
        opened(folder)
    with opened(folder, with_columns=False) as dataset:
        assert np.array_equal(gather(dataset, 9)[1], LABELS)


@pytest.mark.parametrize("label", [None, [f"c{k}" for k in LABELS[SECOND]], LABELS[SECOND] > 0])
def test_labels_that_mean_something_else_are_refused(tmp_path, label):
    folder = tmp_path / "rows"
    part(folder, "a", FIRST)
    part(folder, "b", SECOND, label=label)
    with pytest.raises(CalibError, match=r"column 'label' is .* but in"):
        opened(folder, with_columns=False)


def test_a_whole_number_that_a_float_cannot_hold_is_refused(tmp_path):
    folder = tmp_path / "rows"
    part(folder, "a", FIRST, x=pa.array([2**60 + 1] * 17))
    part(folder, "b", SECOND, x=NUMBERS[SECOND].cast(F64))
    with pytest.raises(CalibError, match="column 'x' does not fit into double"):
        calibrated_file(folder, tmp_path / "o.parquet")


# Parts that are of different kinds


def vectors(rows: np.ndarray) -> list[list[float]]:
    return rows.tolist()


def choices(rows: np.ndarray) -> list[list[float]]:
    """Rows of which every other one has two scores."""
    first = rows[:, 0]
    return [
        [value, 1 - value] if at % 2 else row
        for at, (value, row) in enumerate(zip(first.tolist(), rows.tolist(), strict=True))
    ]


@pytest.mark.parametrize("form", [vectors, choices])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_parts_of_probabilities_and_of_logits_are_refused(tmp_path, form, order) -> None:
    logits = 2 * np.random.default_rng(4).normal(size=(60, 3))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = pa.array(logits.argmax(axis=1))
    paths = []
    for name, rows in zip("ab", (logits, probs), strict=True):
        paths.append(str(tmp_path / f"{name}.parquet"))
        table = pa.table({"scores": pa.array(form(rows)), "label": labels})
        pq.write_table(table, paths[-1])
        with open_dataset(paths[-1:], ReadOptions()) as dataset:
            assert dataset.rows == 60
    paths = [paths[place] for place in order]
    with pytest.raises(UsageError, match=r"probabilities in .*b\.parquet, but not in .*a\.parquet"):
        open_dataset(paths, ReadOptions())
    with open_dataset(paths, ReadOptions(input="logits")) as dataset:
        assert dataset.kind == "logits"
