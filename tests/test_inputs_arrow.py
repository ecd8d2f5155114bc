"""All of Arrow's types: the right numbers where they hold what is wanted, else one line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import gather, opened

from calibcli.errors import CalibError, UsageError
from calibcli.tables import open_writer

RNG = np.random.default_rng(12)
ROWS = 60
LOGITS = RNG.normal(size=(ROWS, 3))
LABELS = RNG.integers(0, 3, ROWS)
WORDS = ("ant", "bee", "cat")


def write_ipc(path: Path, table: pa.Table, *, stream: bool = False) -> None:
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=23)


def files(folder: Path, table: pa.Table) -> list[str]:
    """The table in each format that has its types."""
    paths = [folder / f"t.{suffix}" for suffix in ("parquet", "arrow", "arrows")]
    write_ipc(paths[1], table)
    write_ipc(paths[2], table, stream=True)
    try:
        pq.write_table(table, paths[0], row_group_size=37)
        # Arrow's own reader has not all nested types in small batches.
        list(pq.ParquetFile(paths[0]).iter_batches(17))
    except pa.ArrowNotImplementedError:
        del paths[0]
    return list(map(str, paths))


def vectors(kind) -> pa.Array:
    return pa.array(LOGITS.tolist(), kind)


def spark(rows, *, sparse=()) -> pa.Array:
    """Vectors as Spark's MLlib writes them; some of the rows as sparse ones."""
    kind = pa.struct(
        [
            ("type", pa.int8()),
            ("size", pa.int32()),
            ("indices", pa.list_(pa.int32())),
            ("values", pa.list_(pa.float64())),
        ]
    )

    def vector(number, row):
        if number not in sparse:
            return {"type": 1, "size": None, "indices": None, "values": row.tolist()}
        where = np.flatnonzero(row)
        values = row[where].tolist()
        return {"type": 0, "size": len(row), "indices": where.tolist(), "values": values}

    return pa.array([vector(*each) for each in enumerate(rows)], kind)


F64 = pa.float64()
VECTORS = {
    "list": lambda: vectors(pa.list_(F64)),
    "large_list": lambda: vectors(pa.large_list(F64)),
    "list_view": lambda: vectors(pa.list_view(F64)),
    "large_list_view": lambda: vectors(pa.large_list_view(F64)),
    "fixed_size_list": lambda: vectors(pa.list_(F64, 3)),
    "list of structs of one": lambda: pa.array(
        [[{"element": value} for value in row] for row in LOGITS.tolist()],
        pa.list_(pa.struct([("element", F64)])),
    ),
    "tensor": lambda: pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(F64, [1, 3]), vectors(pa.list_(F64, 3))
    ),
    "opaque": lambda: pa.ExtensionArray.from_storage(
        pa.opaque(pa.list_(F64), "vector", "elsewhere"), vectors(pa.list_(F64))
    ),
    "spark": lambda: spark(LOGITS),
}


@pytest.mark.parametrize("kind", VECTORS)
def test_vectors_of_every_type_are_read(tmp_path, kind):
    table = pa.table({"logits": VECTORS[kind](), "label": LABELS})
    for path in files(tmp_path, table):
        with opened(path) as dataset:
            scores, labels, _ = gather(dataset, 17)
        assert np.array_equal(scores, LOGITS)
        assert np.array_equal(labels, LABELS)


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (1, 3, 1)])
def test_vectors_in_arrays_of_a_data_set(tmp_path, shape):
    """As Hugging Face's datasets write ``Array2D``, whose type only they know."""
    features = {"logits": {"shape": shape, "dtype": "float64", "_type": f"Array{len(shape)}D"}}
    stored = pa.array(LOGITS.reshape(-1, *shape).tolist())
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"logits": stored, "label": LABELS}).replace_schema_metadata(metadata)
    for path in files(tmp_path, table):
        with opened(path) as dataset:
            assert np.array_equal(gather(dataset, 17)[0], LOGITS)


def test_spark_vectors_may_be_sparse(tmp_path):
    logits = LOGITS.copy()
    logits[::3, 1] = 0
    table = pa.table({"rawPrediction": spark(logits, sparse=range(0, ROWS, 2)), "label": LABELS})
    for path in files(tmp_path, table):
        with opened(path, logits="rawPrediction") as dataset:
            assert np.array_equal(gather(dataset, 17)[0], logits)


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": 1, "values": [0.0, 1.0]},
        {"type": 0, "size": 3, "indices": [3], "values": [1.0]},
        {"type": 0, "size": 3, "indices": [-1], "values": [1.0]},
        {"type": 0, "size": 3, "indices": [0, 1], "values": [1.0]},
        {"type": 0, "size": 4, "indices": [0], "values": [1.0]},
        {"type": 2, "size": 3, "indices": [0], "values": [1.0]},
        {"type": 1, "values": [0.0, None, 1.0]},
        {"type": 1, "values": None},
        None,
    ],
)
def test_a_vector_that_is_none_is_refused_with_its_row(tmp_path, wrong):
    rows = spark(LOGITS).to_pylist()
    rows[7] = wrong
    pq.write_table(
        pa.table({"probability": pa.array(rows, spark(LOGITS).type), "label": LABELS}),
        tmp_path / "t.parquet",
    )
    with (
        pytest.raises(CalibError, match="row 7"),
        opened(tmp_path / "t.parquet", input="logits") as dataset,
    ):
        gather(dataset, 17)


NUMBERS = pa.array(LABELS)
TEXTS = [WORDS[k] for k in LABELS]
RUNS = pa.array(np.arange(1, ROWS + 1, dtype=np.int32))
LABEL_TYPES = {
    "uint8": NUMBERS.cast(pa.uint8()),
    "float16": pa.array(LABELS.astype(np.float16)),
    "decimal128(38, 0)": NUMBERS.cast(pa.decimal128(38, 0)),
    "decimal256(60, 2)": NUMBERS.cast(pa.decimal256(60, 2)),
    "decimal128(4, 2)": NUMBERS.cast(F64).cast(pa.decimal128(4, 2)),
    "dictionary of int": NUMBERS.dictionary_encode(),
    "dictionary of float": NUMBERS.cast(F64).dictionary_encode(),
    "dictionary of decimal": NUMBERS.cast(pa.decimal128(38, 0)).dictionary_encode(),
    "run-end encoded int": pa.RunEndEncodedArray.from_arrays(RUNS, NUMBERS),
    "list of one": pa.array([[k] for k in LABELS]),
    "list view of one": pa.array([[k] for k in LABELS], pa.list_view(pa.int64())),
    "fixed list of one": pa.array([[k] for k in LABELS], pa.list_(pa.int64(), 1)),
    "opaque": pa.ExtensionArray.from_storage(pa.opaque(pa.int64(), "n", "v"), NUMBERS),
    "string": pa.array(TEXTS),
    "large_string": pa.array(TEXTS, pa.large_string()),
    "string_view": pa.array(TEXTS, pa.string_view()),
    "dictionary of string": pa.array(TEXTS).dictionary_encode(),
    "dictionary of large_string": pa.array(TEXTS, pa.large_string()).dictionary_encode(),
    "dictionary of string_view": pa.array(TEXTS, pa.string_view()).dictionary_encode(),
    "run-end encoded string": pa.RunEndEncodedArray.from_arrays(RUNS, pa.array(TEXTS)),
    "run-end encoded string_view": pa.RunEndEncodedArray.from_arrays(
        RUNS, pa.array(TEXTS, pa.string_view())
    ),
    "list of one string": pa.array([[text] for text in TEXTS]),
    "list of one string_view": pa.array([[t] for t in TEXTS], pa.list_(pa.string_view())),
}


@pytest.mark.parametrize("kind", LABEL_TYPES)
def test_labels_of_every_type_are_read(tmp_path, kind):
    table = pa.table({"logits": VECTORS["list"](), "label": LABEL_TYPES[kind]})
    for path in files(tmp_path, table):
        with opened(path, classes=WORDS) as dataset:
            assert np.array_equal(gather(dataset, 17)[1], LABELS)


@pytest.mark.parametrize("kind", ["float", "decimal", "dictionary", "run-end encoded"])
def test_class_columns_of_every_type_are_read(tmp_path, kind):
    probs = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    rounded = np.round(probs, 4)
    columns = [pa.array(column) for column in rounded.T.copy()]
    change = {
        "float": lambda each: each,
        "decimal": lambda each: each.cast(pa.decimal128(20, 10)).cast(pa.decimal128(8, 4)),
        "dictionary": lambda each: each.dictionary_encode(),
        "run-end encoded": lambda each: pa.RunEndEncodedArray.from_arrays(RUNS, each),
    }[kind]
    table = pa.table(
        {**{f"prob_{k}": change(each) for k, each in enumerate(columns)}, "label": LABELS}
    )
    for path in files(tmp_path, table):
        with opened(path) as dataset:
            assert np.allclose(gather(dataset, 17)[0], rounded, rtol=0, atol=1e-15)


def test_a_value_that_a_dictionary_lacks_is_missing(tmp_path):
    labels = pa.DictionaryArray.from_arrays(
        pa.array(np.where(np.arange(ROWS) == 9, 3, LABELS)), pa.array([*WORDS, None])
    )
    numbers = pa.DictionaryArray.from_arrays(labels.indices, pa.array([0.0, 1.0, 2.0, None]))
    for stored in (labels, numbers):
        table = pa.table({"logits": VECTORS["list"](), "label": stored})
        write_ipc(tmp_path / "t.arrow", table)
        with (
            pytest.raises(CalibError, match="row 9: the label is missing"),
            opened(tmp_path / "t.arrow", classes=WORDS) as dataset,
        ):
            gather(dataset, 17)


def test_a_whole_number_that_is_too_large_is_refused(tmp_path):
    labels = [int(k) for k in LABELS]
    labels[5] = 10**30
    table = pa.table({"logits": VECTORS["list"](), "label": pa.array(labels, pa.decimal128(38, 0))})
    pq.write_table(table, tmp_path / "t.parquet")
    with (
        pytest.raises(CalibError, match=r"row 5: column 'label' .* too large"),
        opened(tmp_path / "t.parquet") as dataset,
    ):
        gather(dataset)


def test_a_row_with_two_labels_is_refused(tmp_path):
    labels = [[int(k)] for k in LABELS]
    labels[5] = [0, 1]
    pq.write_table(pa.table({"logits": VECTORS["list"](), "label": labels}), tmp_path / "t.parquet")
    with (
        pytest.raises(
            CalibError, match=r"column 'label' .* lists 1 to 2 labels a row; .* --multi-label"
        ),
        opened(tmp_path / "t.parquet") as dataset,
    ):
        gather(dataset)


# Columns that ride along


def some(kind) -> pa.Array:
    """Values of a type, some of them missing."""
    if pa.types.is_boolean(kind):
        return pa.array([None if row % 7 == 3 else row % 2 == 0 for row in range(ROWS)])
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or kind == pa.binary_view():
        return pa.array(
            [None if row % 7 == 3 else b"\xff" * (row % 3) for row in range(ROWS)], kind
        )
    if kind in (pa.string(), pa.large_string(), pa.string_view()):
        return pa.array([None if row % 7 == 3 else "x" * (row % 3) for row in range(ROWS)], kind)
    return pa.array([None if row % 7 == 3 else row for row in range(ROWS)], pa.int64()).cast(kind)


def some_lists(kind) -> pa.Array:
    items = some(kind.value_type).to_pylist()
    rows = [None if row % 5 == 2 else items[row : row + row % 3] for row in range(ROWS)]
    return pa.array(rows, kind)


def in_runs(values, ends=pa.int32) -> pa.Array:
    ends = pa.array(np.arange(2, ROWS + 1, 2), ends())
    return pa.RunEndEncodedArray.from_arrays(ends, values.slice(0, ROWS // 2))


def in_lists(values) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(range(len(values) + 1), pa.int32()), values)


RIDERS = {
    **{
        str(kind): lambda kind=kind: some(kind)
        for kind in (
            *(pa.int8(), pa.uint64(), pa.float32(), F64, pa.bool_()),
            *(pa.decimal128(38, 0), pa.decimal256(50, 2)),
            *(pa.duration("ms"), pa.timestamp("us", "UTC"), pa.time64("us")),
            *(pa.string(), pa.large_string(), pa.string_view()),
            *(pa.binary(), pa.large_binary(), pa.binary_view()),
        )
    },
    **{
        str(kind): lambda kind=kind: some_lists(kind)
        for kind in (
            *(pa.list_(pa.int32()), pa.large_list(pa.string()), pa.list_view(pa.string_view())),
            *(pa.large_list_view(pa.int8()), pa.list_(pa.binary_view())),
        )
    },
    "float16": lambda: pa.array(LOGITS[:, 0].astype(np.float16)),
    "null": lambda: pa.nulls(ROWS),
    "map": lambda: pa.array([[("a", 1)]] * ROWS, pa.map_(pa.string_view(), pa.int32())),
    "struct": lambda: pa.array(
        [{"a": "x", "b": [1]}] * ROWS,
        pa.struct([("a", pa.string_view()), ("b", pa.list_view(pa.int8()))]),
    ),
    "dictionary of string": lambda: pa.array(TEXTS).dictionary_encode(),
    "dictionary of string_view": lambda: pa.array(TEXTS, pa.string_view()).dictionary_encode(),
    "dictionary of float": lambda: some(F64).dictionary_encode(),
    "run-end encoded string": lambda: in_runs(some(pa.string())),
    "run-end encoded string_view": lambda: in_runs(some(pa.string_view()), pa.int16),
    "run-end encoded float": lambda: in_runs(some(pa.float32()), pa.int64),
    "list of dictionary": lambda: in_lists(pa.array(TEXTS).dictionary_encode()),
    "list of dictionary of view": lambda: in_lists(
        pa.array(TEXTS, pa.string_view()).dictionary_encode()
    ),
    "list of run-end encoded": lambda: in_lists(in_runs(some(pa.int8()))),
    "uuid": lambda: pa.array([bytes([row] * 16) for row in range(ROWS)], pa.uuid()),
    "opaque of string_view": lambda: pa.ExtensionArray.from_storage(
        pa.opaque(pa.string_view(), "a", "b"), some(pa.string_view())
    ),
    "tensor": lambda: pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(F64, [3, 1]), vectors(pa.list_(F64, 3))
    ),
    "union": lambda: pa.UnionArray.from_sparse(
        pa.array([row % 2 for row in range(ROWS)], pa.int8()), [some(pa.int64()), some(pa.string())]
    ),
    "calendar span": lambda: pa.array([pa.MonthDayNano([1, 2, 3])] * ROWS),
}
NOT_CARRIED = ("union", "calendar span")


def columns_of(path: str) -> pa.Table:
    if path.endswith(".parquet"):
        return pq.read_table(path)
    with pa.OSFile(path, "rb") as file:
        return pa.ipc.open_file(file).read_all()


@pytest.mark.parametrize("kind", RIDERS)
def test_columns_of_every_type_ride_along(tmp_path, kind):
    stored = RIDERS[kind]()
    kept = np.flatnonzero(LABELS != 0)
    values = [stored[int(row)].as_py() for row in kept]
    for path in files(
        tmp_path, pa.table({"logits": LOGITS.tolist(), "label": LABELS, "x": stored})
    ):
        for output in ("o.parquet", "o.arrow", "o.npz"):
            with opened(path, ignore_label=0) as dataset:
                assert dataset.left_out == (("x",) if kind in NOT_CARRIED else ())
                try:
                    with open_writer(str(tmp_path / output), dataset, force=True) as writer:
                        for chunk in dataset.chunks(17, with_columns=True):
                            probs = np.full((len(chunk), 3), 1 / 3)
                            computed = {"probs": probs, "label": chunk.labels}
                            writer.write_table(computed, chunk.columns)
                except CalibError as error:
                    # Only NPZ has no missing values.
                    assert (output, "missing values" in str(error)) == ("o.npz", True)  # noqa: PT017
                    continue
            if kind not in NOT_CARRIED and output != "o.npz":
                assert columns_of(str(tmp_path / output))["x"].to_pylist() == values


@pytest.mark.parametrize("role", ["logits", "labels", "weights", "by"])
@pytest.mark.parametrize("kind", RIDERS)
def test_columns_of_every_type_can_be_asked_for(tmp_path, kind, role):
    """Whatever they hold, the answer is right or one line."""
    options = {"keys": {"by": "x"}} if role == "by" else {role: "x"}
    for path in files(
        tmp_path, pa.table({"logits": LOGITS.tolist(), "label": LABELS, "x": RIDERS[kind]()})
    ):
        try:
            with opened(path, **options) as dataset:
                gather(dataset, 17)
        except CalibError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_a_reader_without_columns_keeps_its_rows(tmp_path):
    table = pa.table({"logits": LOGITS.tolist(), "label": LABELS})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    (tmp_path / "t.parquet").write_bytes(sink.getvalue())
    with opened(tmp_path / "t.parquet") as dataset:
        assert sum(map(len, dataset.chunks(17, with_columns=True))) == ROWS


# Labels whose type has an order

ORDER = ("low", "mid", "high")


def ordered_table(codes: np.ndarray, *, enum: bool) -> pa.Table:
    """Vectors of scores, and labels of an ordered type: an Enum of Polars or a factor."""
    labels = pa.DictionaryArray.from_arrays(codes.astype("i1"), pa.array(ORDER), ordered=not enum)
    metadata = {"_PL_ENUM_VALUES2": "3;low3;mid4;high"} if enum else None
    fields = [
        pa.field("logits", pa.list_(pa.float64())),
        pa.field("label", labels.type, metadata=metadata),
    ]
    scores = np.eye(3)[codes] * 2
    return pa.table([pa.array(scores.tolist()), labels], schema=pa.schema(fields))


@pytest.mark.parametrize("enum", [False, True])
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_an_ordered_type_orders_the_classes(tmp_path, suffix, enum):
    codes = np.array([2, 0, 1, 1, 2, 0] * 20)
    table, path = ordered_table(codes, enum=enum), tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        write_ipc(path, table)
    with opened(path) as dataset:
        assert dataset.class_names == ORDER
        assert np.array_equal(gather(dataset)[1], codes)
        assert "the order of 'label'" in dataset.picked["classes"]
    with opened(path, classes=("high", "mid", "low")) as dataset:
        assert np.array_equal(gather(dataset)[1], 2 - codes)


def test_an_order_that_a_reader_may_have_made_is_none(tmp_path):
    """Parquet without a dictionary: what comes first is the first of the reader's."""
    codes = np.array([2, 0, 1, 1, 2, 0] * 20)
    pq.write_table(ordered_table(codes, enum=False), tmp_path / "t.parquet", use_dictionary=False)
    with pytest.raises(UsageError, match="whose order is not known"):
        opened(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    "text", ["", "3", "2;low3;mid", "99;low", "x;3;low", "3;low3;low", "3;low", "-1;low"]
)
def test_an_odd_enum_has_no_order(tmp_path, text):
    table = ordered_table(np.array([0, 1, 2] * 20), enum=True)
    field = table.schema.field("label").with_metadata({"_PL_ENUM_VALUES2": text})
    pq.write_table(table.cast(table.schema.set(1, field)), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="whose order is not known"):
        opened(tmp_path / "t.parquet")
