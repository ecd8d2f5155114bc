"""Arrow IPC of strangers: buffers that promise too much, and streams that come through a pipe."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import ipc
from test_hostile import LABELS, LOGITS, damaged_tables, parameter_file, refused

from calibcli.cli.app import run
from calibcli.tables.formats.base import SHAPE_METADATA
from calibcli.tables.formats.ipc_messages import CheckedStream, check_file, check_stream

Piped: TypeAlias = Callable[[bytes], tuple[str, ...]]
OPENED = {"file": ipc.new_file, "stream": ipc.new_stream}
CHECKS = {"file": check_file, "stream": check_stream}
PROMISED = 1 << 40


def written(
    table: pa.Table, form: str = "stream", compression: str | None = None, rows: int = 1 << 20
) -> bytes:
    """A table as Arrow IPC."""
    sink = io.BytesIO()
    options = ipc.IpcWriteOptions(compression=compression)
    with OPENED[form](sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def plain(rows: int = 60) -> pa.Table:
    logits = pa.FixedSizeListArray.from_arrays(pa.array(LOGITS[:rows].ravel()), 4)
    words = pa.array([("en", "de")[row % 2] for row in range(rows)]).dictionary_encode()
    return pa.table({"logits": logits, "label": LABELS[:rows], "lang": words})


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Piped:
    """Arguments of a command that reads a stream from standard input as it comes."""
    (tmp_path / "p.json").write_text(json.dumps(parameter_file()), encoding="utf-8")

    def arguments(content: bytes) -> tuple[str, ...]:
        stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)))
        monkeypatch.setattr("sys.stdin", stdin)
        return ("apply", str(tmp_path / "p.json"), "-", "-o", str(tmp_path / "o.arrow"))

    return arguments


def promising(content: bytes, size: int) -> bytes:
    """A compressed table whose buffer of scores says that it will have another size."""
    stored = struct.pack("<q", 60 * 4 * 8)
    assert content.count(stored) == 1
    return content.replace(stored, struct.pack("<q", size))


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("form", ["file", "stream", "pipe"])
def test_a_buffer_that_promises_a_terabyte_is_refused_before_it_is_asked_for(
    form: str,
    compression: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    piped: Piped,
) -> None:
    stored = written(plain(), "file" if form == "file" else "stream", compression)
    content = promising(stored, PROMISED)
    path = tmp_path / "v.arrow"
    path.write_bytes(content)
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        arguments = piped(content) if form == "pipe" else ("evaluate", str(path))
        line = refused(capfd, *arguments)
    finally:
        pa.set_memory_pool(before)
    assert "a batch: its " in line
    assert "--spool-limit 1025G" in line
    assert pool.max_memory() < 1 << 20
    assert not (tmp_path / "o.arrow").exists()


@pytest.mark.parametrize("form", ["file", "stream", "pipe"])
def test_batches_grow_up_to_a_limit_that_an_option_sets(
    form: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    piped: Piped,
) -> None:
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(4 << 14)), 4)
    table = pa.table({"logits": zeros, "label": np.arange(1 << 14) % 4})
    content = written(table, "file" if form == "file" else "stream", "zstd")
    path = tmp_path / "v.arrow"
    path.write_bytes(content)

    def arguments() -> tuple[str, ...]:
        return piped(content) if form == "pipe" else ("evaluate", str(path), "-q")

    assert "--spool-limit 1M" in refused(capfd, *arguments(), "--spool-limit", "64K")
    assert run([*arguments(), "--spool-limit", "1M"]) == 0


def test_a_run_that_stands_for_too_many_rows_is_refused(
    capfd: pytest.CaptureFixture[str], piped: Piped, tmp_path: Path
) -> None:
    rows = 1 << 29
    ends = pa.array([rows], pa.int64())
    runs = [pa.RunEndEncodedArray.from_arrays(ends, pa.array([float(k)])) for k in range(4)]
    table = pa.table(runs, [f"logit_{k}" for k in range(4)])
    line = refused(capfd, *piped(written(table, rows=rows)))
    assert f"would become {8 * 4 * rows:,}" in line
    for form in ("file", "stream"):
        path = tmp_path / f"v.{form}"
        path.write_bytes(written(table, form, rows=rows))
        assert f"would become {8 * 4 * rows:,}" in refused(capfd, "evaluate", str(path))


@pytest.mark.parametrize(
    "metadata", [{"calib.classes": "[" * 100_000}, {"huggingface": "[" * 100_000}]
)
def test_metadata_that_are_nested_too_deeply_say_nothing(
    metadata: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "v.arrow"
    path.write_bytes(written(plain().replace_schema_metadata(metadata)))
    assert run(["evaluate", str(path), "-q"]) == 0


@pytest.mark.parametrize("shape", ["[1e999]", "[" * 100_000, "[60]", "{}"])
def test_shapes_of_columns_that_are_none_say_nothing(shape: str, tmp_path: Path) -> None:
    table = plain()
    scores = table.schema.field("logits").with_metadata({SHAPE_METADATA: shape})
    path = tmp_path / "v.arrow"
    path.write_bytes(written(table.cast(table.schema.set(0, scores))))
    assert run(["evaluate", str(path), "-q"]) == 0


def test_lists_without_values_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "v.arrow"
    for kind in (pa.list_(pa.float64(), 0), pa.list_(pa.float64())):
        table = plain().set_column(0, "logits", pa.array([[]] * 60, kind))
        path.write_bytes(written(table))
        assert "v.arrow" in refused(capfd, "evaluate", str(path))


def test_one_long_row_does_not_lengthen_all(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [*LOGITS[:59].tolist(), [1.0] * 200_000]
    path = tmp_path / "v.arrow"
    path.write_bytes(written(plain().set_column(0, "logits", pa.array(rows))))
    assert "--num-classes 200000" in refused(capfd, "evaluate", str(path))


@pytest.mark.parametrize("damage", sorted(damaged_tables()))
def test_damaged_buffers_of_a_piped_stream_are_refused(
    damage: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    piped: Piped,
) -> None:
    content = written(damaged_tables()[damage])
    assert "not a readable Arrow IPC file" in refused(capfd, *piped(content))
    assert not (tmp_path / "o.arrow").exists()


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.6, 0.9])
def test_a_piped_stream_that_breaks_off_is_refused(
    share: float,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    piped: Piped,
) -> None:
    content = written(plain(), rows=25)
    refused(capfd, *piped(content[: int(len(content) * share)]))
    assert not (tmp_path / "o.arrow").exists()


def test_metadata_that_promise_more_than_comes_are_refused(
    capfd: pytest.CaptureFixture[str], piped: Piped
) -> None:
    content, mark = written(plain()), b"\xff\xff\xff\xff"
    second = content.index(mark, len(mark))
    promise = struct.pack("<i", (1 << 31) - 8)
    refused(capfd, *piped(content[: second + 4] + promise + content[second + 8 :]))


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("form", ["file", "stream"])
def test_every_message_is_looked_at(form: str, compression: str | None) -> None:
    table = plain(3000)
    content = written(table, form, compression, rows=1000)
    sizes: list[tuple[int, int]] = []
    CHECKS[form](memoryview(content), lambda *pair: sizes.append(pair))
    # The words of the dictionary, and three batches.
    assert len(sizes) == (0 if compression is None else 4)
    for grown, stored in sizes[1:]:
        assert grown == 1000 * (4 * 8 + 8 + 4)
        assert 0 < stored < 1.1 * grown


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("block", [1, 7, 4096, -1])
def test_a_stream_is_passed_on_as_it_is(compression: str | None, block: int) -> None:
    content = written(plain(3000), "stream", compression, rows=1000)
    sizes: list[tuple[int, int]] = []

    def checked(stream: Any) -> CheckedStream:
        return CheckedStream(stream, lambda *pair: sizes.append(pair))

    stream = checked(io.BufferedReader(io.BytesIO(content)))
    if block < 0:
        assert stream.read() == content
    else:
        assert b"".join(iter(lambda: stream.read(block), b"")) == content
    assert len(sizes) == (0 if compression is None else 4)
    again: Any = ipc.open_stream(pa.PythonFile(checked(io.BytesIO(content)), "r"))
    assert again.read_all().equals(plain(3000))


def test_bytes_that_are_no_messages_are_left_to_pyarrow() -> None:
    rng = np.random.default_rng(5)
    for form, check in CHECKS.items():
        content = written(plain(), form, "zstd")
        for _ in range(300):
            hurt = bytearray(content)
            for place in rng.integers(0, len(hurt), 20):
                hurt[place] = rng.integers(256)
            check(memoryview(hurt), lambda *_: None)
        for size in range(0, len(content), 40):
            check(memoryview(content[:size]), lambda *_: None)
