"""Safetensors, and bfloat16 in each container that can prove it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from table_files import calibrated_file, gather, npy_bytes, opened

from calibcli.errors import CalibError

RNG = np.random.default_rng(2)
ROWS = 70
LOGITS = RNG.normal(size=(ROWS, 4)).astype(np.float32)
LABELS = RNG.integers(0, 4, ROWS)
BITS = (LOGITS.view(np.uint32) >> 16).astype(np.uint16)
ROUNDED = (BITS.astype(np.uint32) << 16).view(np.float32)
"""bfloat16 is the upper half of float32."""


def safetensors_bytes(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str, array: np.ndarray, begin: int) -> dict[str, Any]:
    offsets = [begin, begin + array.nbytes]
    return {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_safetensors_are_read(tmp_path, dtype):
    path = tmp_path / "rows.safetensors"
    logits = LOGITS.astype(dtype)
    ids = np.arange(ROWS, dtype=np.int32)
    metadata = {"calib.classes": '["a", "b", "c", "d"]'}
    save_file({"logits": logits, "labels": LABELS, "id": ids}, path, metadata)
    with opened(path) as dataset:
        scores, labels, _ = gather(dataset, 17)
        assert dataset.class_names == ("a", "b", "c", "d")
        assert dataset.resident()
        assert dataset.dtype == scores.dtype == dtype
    assert np.array_equal(scores, logits)
    assert np.array_equal(labels, LABELS)
    calibrated_file(path, tmp_path / "o.npz")
    with np.load(tmp_path / "o.npz") as arrays:
        assert np.array_equal(arrays["id"], ids)


def test_bfloat16_in_safetensors(tmp_path):
    header = {"logits": entry("BF16", BITS, 0), "label": entry("I64", LABELS, BITS.nbytes)}
    path = tmp_path / "rows.safetensors"
    path.write_bytes(safetensors_bytes(header, BITS.tobytes() + LABELS.tobytes()))
    with opened(path) as dataset:
        scores, labels, _ = gather(dataset, 17)
        assert not dataset.resident()
        assert dataset.picked["logits"] == "key 'logits' (bfloat16[4])"
    assert np.array_equal(scores, ROUNDED)
    assert np.array_equal(labels, LABELS)


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("fortran", [False, True])
def test_bfloat16_in_npz(tmp_path, packing, fortran):
    """As ml_dtypes writes it; a type of its own has no byte order (``|V2``)."""
    bits = np.asfortranarray(BITS) if fortran else BITS
    content = npy_bytes(bits).replace(b"'<u2'", b"'<V2'")
    assert b"'<V2'" in content
    with zipfile.ZipFile(tmp_path / "rows.npz", "w", packing) as archive:
        archive.writestr("logits.npy", content)
        archive.writestr("labels.npy", npy_bytes(LABELS))
    with opened(tmp_path / "rows.npz") as dataset:
        scores = gather(dataset, 17)[0]
    assert np.array_equal(scores, ROUNDED)
    (tmp_path / "rows.npy").write_bytes(content)
    np.save(tmp_path / "y.npy", LABELS)
    with opened(tmp_path / "rows.npy", labels=str(tmp_path / "y.npy")) as dataset:
        assert np.array_equal(gather(dataset, 17)[0], ROUNDED)


@pytest.mark.parametrize("kind", [b"'|V2'", b"'<V1'", b"'|V1'"])
def test_other_bytes_are_refused_with_the_recipe(tmp_path, kind):
    size = 2 if b"2" in kind else 1
    bits = BITS if size == 2 else BITS.view(np.uint8)[:, :4].copy()
    old = b"'<u2'" if size == 2 else b"'|u1'"
    with zipfile.ZipFile(tmp_path / "rows.npz", "w") as archive:
        archive.writestr("logits.npy", npy_bytes(bits).replace(old, kind))
        archive.writestr("labels.npy", npy_bytes(LABELS))
    with pytest.raises(CalibError, match=r"\.astype\('(float32|f4)'\)"):
        opened(tmp_path / "rows.npz")


GOOD = {"logits": entry("F32", LOGITS, 0), "label": entry("I64", LABELS, LOGITS.nbytes)}
DATA = LOGITS.tobytes() + LABELS.tobytes()


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"{]",
        b"{" + b'"a":[' * 5000,
        {},
        {"logits": 3},
        {"logits": {"dtype": "F32"}},
        {"logits": {**GOOD["logits"], "shape": [-1, 4]}},
        {"logits": {**GOOD["logits"], "shape": [2**62, 2**62]}},
        {"logits": {**GOOD["logits"], "shape": [1.0, 4]}},
        {"logits": {**GOOD["logits"], "data_offsets": [0, 2**40]}},
        {"logits": {**GOOD["logits"], "data_offsets": [8, 0]}},
        {"logits": {**GOOD["logits"], "dtype": ["F32"]}},
        {"logits": {**GOOD["logits"], "dtype": "F8_E4M3"}},
        {**GOOD, "__metadata__": {"calib": "{}"}},
    ],
)
def test_damage_is_refused(tmp_path: Path, header: Any) -> None:
    (tmp_path / "rows.safetensors").write_bytes(safetensors_bytes(header, DATA))
    with pytest.raises(CalibError) as caught:
        opened(tmp_path / "rows.safetensors")
    assert "\n" not in str(caught.value)


def test_odd_metadata_are_no_class_names(tmp_path):
    for metadata in (3, {"calib.classes": "["}, {"calib.classes": '["a"]'}, {"calib.classes": 3}):
        path = tmp_path / "rows.safetensors"
        path.write_bytes(safetensors_bytes({**GOOD, "__metadata__": metadata}, DATA))
        with opened(path) as dataset:
            assert dataset.class_names is None
            assert np.array_equal(gather(dataset)[0], LOGITS)


@pytest.mark.parametrize(
    ("head", "program"),
    [
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "scipy.io.loadmat("),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64", "f['logits'][()].T"),
    ],
)
def test_what_is_not_read_is_refused_with_the_program(tmp_path, head, program):
    path = tmp_path / "rows"
    path.write_bytes(head + bytes([0, 255] * 300))
    with pytest.raises(CalibError) as caught:
        opened(path)
    message = str(caught.value)
    assert "\n" not in message
    assert program in message
    code = message[message.index("python -c ") + 11 : message.rindex('"')]
    assert str(path) in code
    compile(code, "recipe", "exec")


APART = {"label": entry("I64", LABELS, 0), "logits": entry("F32", LOGITS, LABELS.nbytes)}


@pytest.mark.parametrize(
    ("header", "tail", "says"),
    [
        ({**GOOD, "label": entry("I64", LABELS, 0)}, b"", "overlaps with another one"),
        ({**GOOD, "other": entry("F8_E4M3", LOGITS, 8)}, b"", "overlaps with another one"),
        ({**GOOD, "label": entry("I64", LABELS, LOGITS.nbytes + 8)}, b"", "does not follow"),
        (APART, b"\0", "but the file holds"),
    ],
)
def test_arrays_that_overlap_or_leave_gaps_are_refused(tmp_path, header, tail, says):
    """As the library that the format comes from does."""
    path = tmp_path / "rows.safetensors"
    path.write_bytes(safetensors_bytes(header, DATA + tail))
    with pytest.raises(SafetensorError), safe_open(path, "numpy"):
        pass
    with pytest.raises(CalibError, match=says):
        opened(path)


def test_arrays_may_lie_in_any_order(tmp_path):
    path = tmp_path / "rows.safetensors"
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [LABELS.nbytes, LABELS.nbytes]}
    data = LABELS.tobytes() + LOGITS.tobytes()
    path.write_bytes(safetensors_bytes({**GOOD, **APART, "x": empty}, data))
    with safe_open(path, "numpy") as file:
        assert set(file.keys()) == {"logits", "label", "x"}
    with opened(path) as dataset:
        scores, labels, _ = gather(dataset, 17)
    assert np.array_equal(scores, LOGITS)
    assert np.array_equal(labels, LABELS)
