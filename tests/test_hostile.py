"""Files of strangers: damage is refused where the data enters, and nothing unknown gets through."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import struct
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

from calibcli import fit
from calibcli.arrays import NumpyArray, softmax
from calibcli.calibrators.chain import calibrate
from calibcli.calibrators.curves import BinarySample
from calibcli.cli.app import Commands, run
from calibcli.errors import DataError
from calibcli.fitting.class_curves import pool_scores
from calibcli.fitting.problem import Problem
from calibcli.params import ParamsError, decode
from calibcli.tables import ReadOptions, open_dataset, parse_classes
from calibcli.tables.formats.parquet_pages import Pages, page_starts
from calibcli.workflow.records import to_calibrators

RNG = np.random.default_rng(11)
ROWS = 3000
LOGITS = RNG.normal(size=(ROWS, 4))
LABELS = RNG.integers(0, 4, ROWS)


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    """A command keeps the signals that it took over, since its process ends with it."""
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(kind) for kind in kinds]
    yield
    for kind, handler in zip(kinds, before, strict=True):
        signal.signal(kind, handler)


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which a command ends, exit code 2."""
    code = run(list(arguments))
    stdout, stderr = capfd.readouterr()
    assert code == 2, stderr
    assert not stdout
    last = stderr.splitlines()[-1]
    assert last.startswith("calib: ")
    return last


def described(capfd: pytest.CaptureFixture[str], path: str) -> str:
    """The refusal in what `calib inspect` says of a file that can only be described."""
    assert run(["inspect", path]) == 0
    output = capfd.readouterr()
    assert not output.err
    (line,) = (line for line in output.out.splitlines() if line.startswith("refused"))
    return line


def flipped(path: Path, place: int) -> None:
    """Alter one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("command", ["evaluate", "inspect", "apply", "fit"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_altered_array_of_an_npz_file_is_refused(
    command: str,
    save: Callable[..., None],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path, params, output = tmp_path / "v.npz", tmp_path / "p.json", tmp_path / "o.npz"
    save(path, logits=np.round(LOGITS, 1), labels=LABELS)
    made = run(["fit", str(path), "-p", str(params), "-o", str(tmp_path / "first.npz"), "-q"])
    assert made == 0
    content = path.read_bytes()
    # Well inside the data of the logits, which come first.
    flipped(path, content.index(b"logits.npy") + 1000)
    capfd.readouterr()
    more = {
        "apply": ["-o", str(output)],
        "fit": ["-p", str(tmp_path / "q.json"), "-o", str(output)],
    }
    inputs = [str(params), str(path)] if command == "apply" else [str(path)]
    if command == "inspect":
        line = described(capfd, str(path))
    else:
        line = refused(capfd, command, *inputs, *more.get(command, []))
    assert "v.npz, key 'logits'" in line
    assert not output.exists()
    assert not (tmp_path / "q.json").exists()


def test_a_checksum_of_unused_arrays_is_nobody_s_business(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    np.savez(path, zzz=np.zeros((ROWS, 3, 2, 2)), logits=LOGITS, labels=LABELS)
    flipped(path, 1000)
    assert run(["evaluate", str(path), "-q"]) == 0


def test_altered_class_names_of_an_npz_file_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "v.npz"
    np.savez(path, logits=LOGITS, labels=LABELS, classes=np.array(["ant", "bee", "cat", "dog"]))
    content = path.read_bytes()
    flipped(path, content.index("bee".encode("utf-32-le")))
    assert "CRC-32" in refused(capfd, "evaluate", str(path))


def test_page_checksums_of_parquet_are_verified(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "v.parquet"
    table = pa.table({"logits": list(LOGITS), "label": LABELS})
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    flipped(path, 5000)
    assert "CRC checksum" in refused(capfd, "evaluate", str(path))


def promising(path: Path, compressed: int | None = None, uncompressed: int | None = None) -> None:
    """Write a Parquet file of which the first page of labels promises other sizes than it has."""
    table = pa.table({"logits": list(LOGITS[:60]), "label": pa.array(LABELS[:60])})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    begin = pq.ParquetFile(path).metadata.row_group(0).column(1).data_page_offset
    content = path.read_bytes()
    # The kind of page and the two sizes, each as zigzag in seven bits a byte.
    number = rb"\x15([\x80-\xff]*[\0-\x7f])"
    sizes = re.compile(rb"\x15\0" + number + number).match(content, begin)
    assert sizes is not None
    new = [
        stored
        if size is None
        else bytes(size << 1 >> 7 * k & 127 | 128 for k in range(4)) + b"\x0f"
        for stored, size in zip(sizes.groups(), (uncompressed, compressed), strict=True)
    ]
    header = b"\x15\0\x15" + new[0] + b"\x15" + new[1]
    path.write_bytes(content[:begin] + header + content[sizes.end() :])


@pytest.mark.parametrize("size", [(1 << 31) - 1, (1 << 31) - 1000])
@pytest.mark.parametrize("promise", ["compressed", "uncompressed"])
def test_a_page_that_promises_gigabytes_is_refused_before_they_are_asked_for(
    promise: str, size: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "v.parquet"
    promising(path, **{promise: size})
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        line = refused(capfd, "evaluate", str(path))
    finally:
        pa.set_memory_pool(before)
    assert f"{size:,}" in line
    assert pool.max_memory() < 64 << 20


def test_a_page_that_grows_beyond_measure_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "v.parquet"
    table = pa.table({f"logit_{k}": np.zeros(1 << 18) for k in range(3)})
    table = table.append_column("label", pa.array(np.arange(1 << 18) % 3))
    pq.write_table(table, path, compression="zstd", use_dictionary=False, data_page_size=1 << 30)
    line = refused(capfd, "evaluate", str(path), "--spool-limit", "64K")
    assert "v.parquet, a page" in line
    assert "--spool-limit" in line
    assert run(["evaluate", str(path), "-q", "--spool-limit", "1M"]) == 0


@pytest.mark.parametrize("block", [1, 7, 1000, 1 << 20])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_every_page_is_looked_at_however_a_file_is_read(
    version: str, block: int, tmp_path: Path
) -> None:
    path = tmp_path / "v.parquet"
    words = pa.array([f"word {row % 40}" * 20 for row in range(500)])
    table = pa.table({"logits": list(LOGITS[:500]), "label": LABELS[:500], "word": words})
    pq.write_table(
        table,
        path,
        compression="zstd",
        data_page_version=version,
        data_page_size=1000,
        write_batch_size=100,
        row_group_size=300,
        write_page_checksum=True,
    )
    metadata = pq.ParquetFile(path).metadata
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            sizes: list[tuple[int, int]] = []
            chunk = metadata.row_group(group).column(column)
            begin = chunk.dictionary_page_offset or chunk.data_page_offset
            with pa.OSFile(str(path)) as file:
                pages = Pages(file, page_starts(file), lambda *pair: sizes.append(pair))  # noqa: B023 (used in the loop)
                for place in range(begin, end := begin + chunk.total_compressed_size, block):
                    pages.seek(place)
                    pages.read(min(block, end - place))
            grown = sum(size - stored for size, stored in sizes)
            assert grown == chunk.total_uncompressed_size - chunk.total_compressed_size
            assert sum(stored for _, stored in sizes) < chunk.total_compressed_size
            assert len(sizes) > 1


def test_headers_of_pages_that_are_none_are_passed_on(tmp_path: Path) -> None:
    path, whole = tmp_path / "x", []
    deep, many = b"\x1c" * 200, b"\x19\xf3\xff\xff\x7f" + bytes(1 << 18)
    for content, refusal in ((deep, None), (b"\x1f", None), (b"", None), (many, "more values")):
        path.write_bytes(b"PAR1" + content)
        with pa.OSFile(str(path)) as file:
            pages = Pages(file, {4}, lambda *pair: whole.append(pair))
            pages.seek(4)
            if refusal:
                with pytest.raises(ValueError, match=refusal):
                    pages.read(1000)
            else:
                pages.read(1000)
    assert not whole


def damaged_tables() -> dict[str, pa.Table]:
    """Tables whose buffers are not what their types promise."""
    logits = pa.FixedSizeListArray.from_arrays(pa.array(LOGITS[:60].ravel()), 4)
    rest = {"logits": logits, "label": pa.array(LABELS[:60])}
    beyond = pa.DictionaryArray.from_arrays(
        pa.array(np.full(60, 2**30), pa.int32()), pa.array(["en", "de"]), safe=False
    )
    offsets = np.arange(61, dtype=np.int32)
    offsets[20] += 1 << 28
    words = pa.Array.from_buffers(
        pa.string(), 60, [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"x" * 60)]
    )
    bytes_ = pa.Array.from_buffers(
        pa.string(),
        60,
        [None, pa.py_buffer(np.arange(61, dtype=np.int32).tobytes()), pa.py_buffer(b"\xff" * 60)],
    )
    lists = pa.Array.from_buffers(
        pa.list_(pa.float64()),
        60,
        [None, pa.py_buffer((offsets * 4).tobytes())],
        children=[pa.array(LOGITS[:60].ravel())],
    )
    return {
        "index beyond the dictionary": pa.table({**rest, "lang": beyond}),
        "offsets beyond the text": pa.table({**rest, "lang": words}),
        "text that is not UTF-8": pa.table({**rest, "lang": bytes_}),
        "offsets beyond the list": pa.table({**rest, "logits": lists}),
    }


@pytest.mark.parametrize(
    ("damage", "by"),
    [
        (damage, by)
        for damage, table in sorted(damaged_tables().items())
        for by in ((), ("--by", "lang"))
        if not by or "lang" in table.column_names
    ],
)
@pytest.mark.parametrize("form", ["file", "stream"])
def test_damaged_arrow_buffers_are_refused_before_anything_touches_them(
    damage: str, form: str, by: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = damaged_tables()[damage]
    path = tmp_path / "v.arrow"
    opened = ipc.new_file if form == "file" else ipc.new_stream
    with pa.OSFile(str(path), "wb") as file, opened(file, table.schema) as writer:
        writer.write_table(table)
    assert "not a readable Arrow IPC file" in refused(capfd, "evaluate", str(path), *by)


def parameter_file(**changes: object) -> dict[str, object]:
    return {
        "format": "calib-params",
        "version": 1,
        "classes": 4,
        "input": "logits",
        "stages": [{"kind": "temperature", "parameters": {"temperature": 2.0}}],
        **changes,
    }


def safetensors(header: object) -> bytes:
    content = json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content


@pytest.mark.parametrize(
    "metadata", [None, [], "text", 1, {}, {"calib": None}, {"calib": 3}, {"calib": {}}]
)
def test_safetensors_without_metadata_are_refused(metadata: object) -> None:
    with pytest.raises(ParamsError):
        decode(safetensors({"__metadata__": metadata}))


def test_names_with_a_repetition_are_refused_in_one_pass() -> None:
    names = [str(number) for number in range(120_000)]
    document = parameter_file(classes=120_001, stages=[], class_names=[*names, "119999"])
    with pytest.raises(ParamsError, match="'119999' twice"):
        decode(json.dumps(document).encode())


TINY, HUGE = 5e-324, 1e308
K = 4

EXTREME: dict[str, list[dict[str, object]]] = {
    "temperature": [{"temperature": TINY}, {"temperature": 1e-25}, {"temperature": HUGE}],
    "class-temperature": [
        {"temperatures": [TINY, 1, 1, 1], "by": by} for by in ("column", "prediction")
    ],
    "vector": [
        {"scale": [-HUGE, 1, 1, 1], "bias": [0] * K},
        {"scale": [1] * K, "bias": [HUGE, -HUGE, 0, 0]},
        {"scale": [0] * K, "bias": [0] * K},
    ],
    "matrix": [{"matrix": [[HUGE] * K] * K, "bias": [0] * K}],
    "ensemble-temperature": [
        {"temperature": TINY, "weights": [0.5, 0.5, 0], "mixture": mixture}
        for mixture in ("probabilities", "logits")
    ],
    "focal-temperature": [
        {"temperature": TINY, "gamma": 0},
        {"temperature": HUGE, "gamma": HUGE},
        {"temperature": 1, "gamma": -3},
    ],
    "monotone": [
        {"knots": [-HUGE, -1], "slopes": [HUGE, HUGE, HUGE]},
        {"knots": [-2 * TINY, -TINY], "slopes": [1, 2, 3]},
        {"knots": list(np.arange(-300.0, 0.0)), "slopes": [1] * 301},
    ],
    "gap-temperature": [
        {"knots": [0, TINY], "scales": [0, 1], "feature": "gap"},
        {"knots": [-HUGE, HUGE], "scales": [HUGE, HUGE], "feature": "entropy"},
    ],
    "laplace": [{"weight": TINY}],
    "parameterized-temperature": [
        {"sizes": [K, 1], "theta": [0] * (K + 1), "form": form}
        for form in ("official", "published")
    ]
    + [{"sizes": [K, 2, 1], "theta": [HUGE] * (2 * K + 5), "form": "official"}],
    "spline": [
        {"counts": [2] * K, "scores": [0, TINY] * K, "values": [0, 1] * K},
        {"counts": [2] * K, "scores": [-HUGE, HUGE] * K, "values": [HUGE, -HUGE] * K},
        {"counts": [3] * K, "scores": [0, 1e-9, 2e-9] * K, "values": [-1e300, 1e300, 0] * K},
    ],
    "one-vs-rest": [
        {
            "interpolation": "linear",
            "counts": [2] * K,
            "scores": [-HUGE, HUGE] * K,
            "values": [TINY, 1] * K,
        },
        {"interpolation": "step", "counts": [HUGE, 1, 1, 1], "scores": [0] * K, "values": [0] * K},
    ],
    "log-linear": [
        {"members": [[], []], "weights": [HUGE, -HUGE]},
        {
            "members": [[{"kind": "temperature", "parameters": {"temperature": TINY}}]],
            "weights": [0],
        },
    ],
    "groups": [
        {
            "column": "lang",
            "names": ["a"],
            "pooled": [],
            "own": [[{"kind": "temperature", "parameters": {"temperature": TINY}}]],
            "weights": [0.5],
        }
    ],
    "top": [{"stages": [{"kind": "platt", "parameters": {"slope": HUGE, "intercept": 0.0}}]}],
}


@pytest.mark.parametrize(
    ("kind", "values"), [(kind, values) for kind, each in EXTREME.items() for values in each]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1.0, 1e15])
def test_extreme_parameters_are_refused_or_safe(
    kind: str, values: dict[str, object], dtype: type, scale: float
) -> None:
    document = parameter_file(stages=[{"kind": kind, "parameters": values}])
    try:
        stages = to_calibrators(decode(json.dumps(document).encode()))
    except ParamsError:
        return
    logits = np.sign(LOGITS[:50]) * scale
    probs = softmax(calibrate(stages, logits.astype(dtype)))
    assert np.isfinite(probs).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    "stage",
    [
        {"kind": "temperature", "parameters": {"temperature": 1e-10}},
        {"kind": "vector", "parameters": {"scale": [1e12] * K, "bias": [0] * K}},
    ],
)
def test_stages_that_are_extreme_together_are_refused(stage: object) -> None:
    to_calibrators(decode(json.dumps(parameter_file(stages=[stage])).encode()))
    with pytest.raises(ParamsError, match="overflow"):
        to_calibrators(decode(json.dumps(parameter_file(stages=[stage] * 3)).encode()))


def array(dtype: str, shape: tuple[int, ...], data: bytes = b"", *, fortran: bool = False) -> bytes:
    """An array as NPY has it, whatever the header promises."""
    text = f"{{'descr': {dtype!r}, 'fortran_order': {fortran}, 'shape': {shape!r}, }}"
    return header(text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n") + data


def header(text: bytes, length: int | None = None, version: int = 1) -> bytes:
    """A header of an array, and perhaps another length than it has."""
    size = (len(text) if length is None else length).to_bytes(2 * version, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


GOOD = array("<f8", (60, 4), LOGITS[:60].tobytes())
CRAFTED = {
    "texts without characters": {"logits": GOOD, "labels": array("<U0", (60,))},
    "numbers that are no characters": {"logits": GOOD, "x": array("<U2", (60,), b"\xff" * 480)},
    "halves of surrogate pairs": {"logits": GOOD, "x": array("<U1", (60,), b"\0\xd8\0\0" * 60)},
    "bytes that are not UTF-8": {
        "logits": GOOD,
        "classes": array("|S1", (4,), b"\xff\xfe\xfd\xfc"),
    },
    "a header of 2 GB": {"logits": header(b" " * 500, 1 << 31, 2)},
    "a header that is nested": {"logits": header(b"(" * 5000)},
    "a header that breaks off": {"logits": header(b"{'descr': ''' 1L".ljust(50))},
    "a shape that cannot be counted": {"logits": array("<f8", (0, 1 << 61))},
    "too many axes": {"logits": array("<f8", (1,) * 70, bytes(8))},
    "a negative shape": {"logits": array("<f8", (-1, 4), bytes(64))},
    "more rows than data": {"logits": array("<f8", (1 << 40, 4), bytes(64))},
    "more data than rows": {"logits": GOOD + bytes(64), "labels": array("<i8", (60,), bytes(480))},
    "an array of objects": {"logits": array("|O", (60,), b"\x80\4N.")},
}


@pytest.mark.parametrize("case", sorted(CRAFTED))
@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_crafted_arrays_are_refused(
    case: str, packing: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, params = tmp_path / "v.npz", tmp_path / "p.json"
    with zipfile.ZipFile(path, "w", packing) as archive:
        for key, content in CRAFTED[case].items():
            archive.writestr(f"{key}.npy", content)
    params.write_text(json.dumps(parameter_file()))
    output = tmp_path / "o.parquet"
    assert "v.npz" in refused(capfd, "apply", str(params), str(path), "-o", str(output))
    assert not output.exists()


def test_types_that_tables_do_not_have_are_left_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, params, output = tmp_path / "v.npz", tmp_path / "p.json", tmp_path / "o.parquet"
    times = {
        "a": array("<M8", (60,), b"\1" * 480),
        "b": array("<M8[Y]", (60,), b"\1" * 480),
        "c": array("<m8[ns]", (60,), bytes(480)),
        "d": array("<f16", (60,), bytes(960)),
        "e": array("<f8", (60, 0)),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for key, content in {"logits": GOOD, **times}.items():
            archive.writestr(f"{key}.npy", content)
    params.write_text(json.dumps(parameter_file()))
    assert run(["apply", str(params), str(path), "-o", str(output)]) == 0
    assert set(times) & set(pq.read_schema(output).names) == {"c"}
    assert "not in the output: a, b, d, e" in capfd.readouterr().err


@pytest.mark.parametrize("fortran", [False, True])
def test_a_zip_bomb_is_refused_before_it_is_unpacked(
    fortran: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, zeros = tmp_path / "v.npz", bytes(1 << 24)
    shape = (1 << 16, 1 << 11) if fortran else (2, 1 << 26)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("logits.npy", "w") as entry,
    ):
        entry.write(array("<f8", shape, fortran=fortran))
        for _ in range(8 * shape[0] * shape[1] >> 24):
            entry.write(zeros)
    # What the zip file's directory says is what is looked at.
    line = refused(capfd, "evaluate", str(path), "--spool-limit", "100M")
    assert "--spool-limit 2G allows that" in line
    assert "would become" in described(capfd, str(path))


def test_a_stream_is_copied_up_to_a_limit() -> None:
    content = io.BufferedReader(io.BytesIO(b"PAR1" + bytes(9 << 20)))
    with pytest.raises(DataError, match="--spool-limit 4M allows more"):
        open_dataset(["-"], ReadOptions(spool_limit=2 << 20), stdin=content)
    assert content.tell() < 4 << 20


def test_a_stream_of_no_known_format_is_not_copied() -> None:
    content = io.BufferedReader(io.BytesIO(bytes(9 << 20)))
    with pytest.raises(DataError, match="not known"):
        open_dataset(["-"], ReadOptions(), stdin=content)
    assert content.tell() < 1 << 20


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no file without an end")
@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "/dev/zero"),
        ("inspect", "/dev/zero"),
        ("evaluate", "{v}", "--classes", "/dev/zero"),
        ("evaluate", "{v}", "--labels", "/dev/zero"),
        ("evaluate", "{v}", "--config", "/dev/zero"),
        ("evaluate", "{v}", "--baseline", "/dev/zero", "--fail-if", "ece > 1"),
        ("fit", "{v}", "--target-prior", "/dev/zero"),
    ],
)
def test_files_without_an_end_are_refused(
    arguments: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "v.npz"
    np.savez(path, logits=LOGITS[:60], labels=LABELS[:60])
    assert refused(capfd, *(each.format(v=path) for each in arguments))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_who_waits_for_a_pipe_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calibcli.small_files.PATIENCE", 0.0)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    said: list[str] = []

    def write_when_asked() -> None:
        while not any("waiting for somebody" in line for line in said):
            said.append(capfd.readouterr().err)
        pipe.write_bytes(b"cat\ndog\n")

    writer = threading.Thread(target=write_when_asked, daemon=True)
    writer.start()
    assert parse_classes(str(pipe)) == ("cat", "dog")
    writer.join()


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
@pytest.mark.parametrize(
    "options",
    [
        ("--report", "r.html"),
        ("--openmetrics", "m.txt"),
        ("--format", "csv"),
        ("--format", "github"),
    ],
)
@pytest.mark.parametrize("suffix", ["npz", "parquet", "arrow"])
def test_names_that_are_not_utf_8_are_read_and_shown(
    suffix: str,
    options: tuple[str, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"bad\xff." + suffix.encode())
    table = pa.table({"logits": list(LOGITS[:60]), "label": LABELS[:60]})
    if suffix == "npz":
        np.savez("v", logits=LOGITS[:60], labels=LABELS[:60])
    elif suffix == "parquet":
        pq.write_table(table, "v.parquet")
    else:
        with pa.OSFile("v.arrow", "wb") as file, ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    Path(f"v.{suffix}").rename(name)
    assert run(["evaluate", name, *options]) == 0
    captured = capfd.readouterr()
    assert "bad\\udcff" in captured.err
    captured.out.encode()


@pytest.mark.parametrize("shares", ["1e308,1e308,1,1", "1e-300,1,1,1"])
def test_extreme_shares_are_refused(
    shares: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "v.npz"
    np.savez(path, logits=LOGITS[:60], labels=LABELS[:60])
    outputs = ("-p", str(tmp_path / "p.json"), "-o", str(tmp_path / "o.npz"))
    line = refused(capfd, "fit", str(path), "--target-prior", shares, *outputs)
    assert "between 1e-15 and 1e+15" in line


@pytest.mark.parametrize("shape", [(0, 60, 4), (60, 0), (60, 0, 4, 5), (3, 4, 0, 5)])
def test_axes_without_length_are_refused(
    shape: tuple[int, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "v.npz"
    np.savez(path, logits=np.zeros(shape), labels=np.zeros(60, int))
    assert "v.npz: the rows of scores are empty" in refused(capfd, "evaluate", str(path))


def test_a_text_of_columns_without_number_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "v.csv"
    path.write_text("," * 1_000_000)
    assert "more than 30,000 columns" in refused(capfd, "evaluate", str(path))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device of Unix")
def test_a_parameter_file_without_an_end_is_refused_by_its_beginning(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calibcli.params.LARGEST_FILE", 1 << 60)
    assert "neither JSON nor safetensors" in refused(
        capfd, "apply", "/dev/zero", "v.npz", "-o", "o.npz"
    )


@pytest.mark.parametrize("option", ["--memory", "--spool-limit"])
def test_sizes_beyond_all_machines_are_refused(
    option: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "v.npz"
    np.savez(path, logits=LOGITS[:60], labels=LABELS[:60])
    line = refused(capfd, "evaluate", str(path), option, "9" * 400 + "G")
    assert "is more than there can be" in line
    assert len(line) < 100


@pytest.mark.parametrize("command", ["fit", "evaluate", "compare", "apply", "convert", "inspect"])
def test_numbers_beyond_all_measure_are_refused_by_every_option(
    command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers = [each.opts[0] for each in Commands()[command].params if each.metavar == "N"]
    assert numbers
    for option in numbers:
        line = refused(capfd, command, f"{option}={'9' * 400}")
        assert f"'{option}': 999999999999999999999999… is more than" in line
        assert len(line) < 200


def test_values_without_measure_are_cut_in_messages(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "v.jsonl"
    texts = ("cat", "x" * 5000)
    for name, values in (("label", texts), ("labels", [[each] for each in texts])):
        rows = [{"logits": [0.5, 1.0], name: each} for each in values]
        path.write_text("\n".join(map(json.dumps, rows)))
        options = ["--multi-label"] if name == "labels" else []
        line = refused(capfd, "evaluate", str(path), "--classes", "cat,dog", *options)
        assert "the label" in line
        assert len(line) < 700 + len(str(path))


def test_a_defect_still_ends_with_70(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("injected")

    path = tmp_path / "v.npz"
    np.savez(path, logits=LOGITS[:60], labels=LABELS[:60])
    monkeypatch.setattr("calibcli.tables.formats.npz.ArrayData.read", broken)
    assert run(["evaluate", str(path)]) == 70
    assert "a defect of calib" in capfd.readouterr().err


@pytest.mark.parametrize("method", ["matrix", "dirichlet", "vector"])
def test_a_fit_that_rounding_keeps_moving_ends_and_says_so(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits so large that the gradient is rounding alone, and cannot vanish."""
    counts = {"gradients": 0}
    gradient = Problem.gradient

    def counted(self: Problem, theta: NumpyArray) -> tuple[float, NumpyArray]:
        counts["gradients"] += 1
        return gradient(self, theta)

    monkeypatch.setattr(Problem, "gradient", counted)
    rng = np.random.default_rng(1)
    logits = (np.sign(rng.normal(size=(60, 4))) * 1e15).astype(np.float32)
    fitted = fit(logits, np.arange(60) % 4, method=method)
    assert np.isfinite(fitted.predict_proba(logits)).all()
    # Five folds and the whole; each gives up long before its 500 iterations of 30 trials.
    assert counts["gradients"] < 6 * 3000


@pytest.mark.parametrize(
    "data", [[1], [[]], [None], [{"bytes": []}], [{"sha256": {}}], [{"path": 1, "bytes": 1}]]
)
def test_files_that_are_none_are_refused(data: list[object]) -> None:
    with pytest.raises(ParamsError, match="'data' must be"):
        decode(json.dumps(parameter_file(data=data)).encode())


@pytest.mark.parametrize("method", ["isotonic", "venn-abers"])
def test_classes_beyond_number_take_no_thread_each(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[object] = []
    submit = ThreadPoolExecutor.submit

    def counted(pool: ThreadPoolExecutor, *arguments: object) -> object:
        submitted.append(arguments)
        return submit(pool, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ThreadPoolExecutor, "submit", counted)
    logits = np.random.default_rng(3).normal(size=(5, 6400)).astype(np.float32)
    calibrator = fit(logits, np.arange(5), method=method, folds=0, threads=2)
    assert np.isfinite(calibrator.predict_proba(logits)).all()
    assert len(submitted) < 6400 / 10


def test_inspect_shows_names_that_command_nobody(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.json"
    names = ["\x1b[2J", "a\n::error::x", "\u202e", "cat"]
    path.write_text(json.dumps(parameter_file(class_names=names, fit={"\x1b[1m": "\x07"})))
    assert run(["inspect", str(path)]) == 0
    output = capfd.readouterr().out
    assert "\\x1b[2J" in output
    assert not {"\x1b", "\u202e", "\x07"} & set(output)
    assert not any(line.lstrip().startswith("::") for line in output.splitlines())


@pytest.mark.parametrize("method", ["isotonic", "centered-isotonic", "venn-abers"])
def test_classes_that_came_in_no_row_are_fitted_together_and_alike(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = np.random.default_rng(3).normal(size=(9, 300)).astype(np.float32)
    logits[0, 7] = -np.inf
    logits[3, 8:20] = logits[4, 8:20]
    labels = np.arange(9) * 30

    def fitted(few_rows: int) -> bytes:
        monkeypatch.setattr("calibcli.fitting.class_curves._FEW_ROWS", few_rows)
        calibrator = fit(logits, labels, method=method, folds=0, threads=2)
        return calibrator.predict_proba(logits).tobytes()

    assert fitted(1 << 12) == fitted(0)


def test_a_fit_of_very_many_classes_fits_few_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    pooled: list[int] = []
    pool = pool_scores

    def counted(scores: NumpyArray, *arguments: NumpyArray) -> BinarySample:
        pooled.append(len(scores))
        return pool(scores, *arguments)

    monkeypatch.setattr("calibcli.fitting.class_curves.pool_scores", counted)
    logits = np.random.default_rng(3).normal(size=(5, 2000)).astype(np.float32)
    fit(logits, np.arange(5), method="isotonic", folds=0)
    assert len(pooled) < 100
