"""Files of strangers: damage is refused where the data enters, and nothing unknown gets through."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

from calibcli.arrays import softmax
from calibcli.calibrators.chain import calibrate
from calibcli.cli.app import run
from calibcli.params import ParamsError, decode
from calibcli.workflow.records import to_calibrators

RNG = np.random.default_rng(11)
ROWS = 3000
LOGITS = RNG.normal(size=(ROWS, 4))
LABELS = RNG.integers(0, 4, ROWS)


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which a command ends, exit code 2."""
    code = run(list(arguments))
    stdout, stderr = capfd.readouterr()
    assert code == 2, stderr
    assert not stdout
    last = stderr.splitlines()[-1]
    assert last.startswith("calib: ")
    return last


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


@pytest.mark.parametrize("damage", sorted(damaged_tables()))
@pytest.mark.parametrize("form", ["file", "stream"])
@pytest.mark.parametrize("by", [(), ("--by", "lang")])
def test_damaged_arrow_buffers_are_refused_before_anything_touches_them(
    damage: str, form: str, by: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = damaged_tables()[damage]
    if by and "lang" not in table.column_names:
        pytest.skip("without such a column")
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
