"""Row groups that are encoded by themselves: the file is that of one writer, byte for byte."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibcli.errors import DataError
from calibcli.tables.formats import parquet, parquet_joining
from calibcli.tables.formats.parquet_joining import JoinedFile
from calibcli.tables.formats.thrift import CompactStruct, as_stored, folded, signed

WAYS: list[dict[str, Any]] = [
    {},
    {"compression": "zstd", "compression_level": 1, "use_dictionary": False},
    {"compression": "none", "version": "1.0", "data_page_version": "2.0"},
    {"compression": "gzip", "write_page_checksum": True, "data_page_size": 200},
]


def table_of(rows: int) -> pa.Table:
    """Columns of many kinds, with values that are missing, and what a reader should know."""
    rng = np.random.default_rng(0)
    numbers = np.arange(rows)
    schema_notes = {b"classes": b'["a"]', b"long": b"x" * 300}
    return pa.table(
        {
            "probs": pa.FixedSizeListArray.from_arrays(pa.array(rng.random(3 * rows, "f4")), 3),
            "label": pa.array(numbers % 5),
            "tag": pa.array([None if k % 7 == 0 else f"tag {k % 4}" for k in numbers]),
            "code": pa.array([f"{k % 3}" for k in numbers]).dictionary_encode(),
            "nested": pa.array([{"x": [int(k)] * (k % 3)} for k in numbers]),
            "flag": pa.array(numbers % 2 == 0),
            "when": pa.array(numbers, pa.timestamp("us", "UTC")),
        }
    ).replace_schema_metadata(schema_notes)


def joined(table: pa.Table, size: int, **how: Any) -> bytes:
    file = io.BytesIO()
    whole = JoinedFile(file)
    for begin in range(0, len(table), size):
        part = io.BytesIO()
        pq.write_table(table.slice(begin, size), part, **how)
        whole.append(memoryview(part.getvalue()))
    whole.close()
    return file.getvalue()


@pytest.mark.parametrize("how", WAYS, ids=str)
@pytest.mark.parametrize("size", [1, 13, 14, 100, 1000])
def test_it_is_the_file_of_one_writer(size, how):
    table = table_of(200)
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=size, **how)
    assert joined(table, size, **how) == file.getvalue()


def test_nothing_is_written_of_no_rows():
    file = io.BytesIO()
    JoinedFile(file).close()
    assert file.getvalue() == b""


def test_more_row_groups_than_can_be_counted_are_refused(monkeypatch):
    monkeypatch.setattr(parquet_joining, "_MOST_GROUPS", 3)
    joined(table_of(30), 10)
    with pytest.raises(DataError, match="at most 3 row groups"):
        joined(table_of(31), 10)


@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers_are_read_as_they_are_stored(number):
    assert signed(CompactStruct(as_stored(folded(number))).number()) == number


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_bytes(threads, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(parquet, "GROUP_ROWS", 17)
    rng = np.random.default_rng(1)
    probs = rng.random((500, 4), dtype=np.float32)
    names = pa.RecordBatch.from_pydict({"id": [f"row {k}" for k in range(500)]})
    path = tmp_path / "out.parquet"
    with path.open("wb") as file:
        sink = parquet.ParquetSink(file, -1, ("a", "b", "c", "d"), threads=threads)
        for begin in range(0, 500, 23):
            part = slice(begin, begin + 23)
            computed = {"probs": probs[part], "prediction": probs[part].argmax(axis=1)}
            sink.write(computed, names.slice(begin, 23))
        sink.close()
        sink.abandon()
    stored = pq.ParquetFile(path)
    assert [stored.metadata.row_group(k).num_rows for k in range(30)] == [17] * 29 + [7]
    # What is read has more in its metadata than was written.
    schema = sink._assembler.schema
    table = pa.table(stored.read().columns, schema=schema)
    again = io.BytesIO()
    with pq.ParquetWriter(
        again,
        schema,
        compression="zstd",
        compression_level=1,
        use_byte_stream_split=["probs.list.element"],
        use_dictionary=["prediction", "id"],
        write_statistics=["prediction", "id"],
    ) as writer:
        writer.write_table(table, row_group_size=17)
    assert path.read_bytes() == again.getvalue()


def test_a_group_that_cannot_be_encoded_is_an_error_and_ends_the_threads(tmp_path, monkeypatch):
    def fails(_: Any) -> memoryview:
        raise MemoryError("no room")

    monkeypatch.setattr(parquet, "_encoded", fails)
    with (tmp_path / "out.parquet").open("wb") as file:
        sink = parquet.ParquetSink(file, -1, None, threads=2)
        sink.write({"probs": np.ones((3, 2), np.float32)}, None)
        with pytest.raises(MemoryError, match="no room"):
            sink.close()
        sink.abandon()
