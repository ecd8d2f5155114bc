"""HDF5: arrays where they lie, in chunks, packed; what is refused; and files that are damaged."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from table_files import calibrated_file, gather, opened

from calibcli.errors import CalibError, DataError

h5py = pytest.importorskip("h5py", reason="HDF5 IS NOT TESTED: pip install '.[test]' brings h5py")

RNG = np.random.default_rng(6)
ROWS, CLASSES = 301, 5
LOGITS = RNG.normal(size=(ROWS, CLASSES)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, ROWS)
NAMES = ["ant", "bee", "cät", "dog", "elk"]
TEXTS = [NAMES[k] for k in LABELS]


def written(folder: Path, logits: Any = LOGITS, labels: Any = LABELS, **how: Any) -> Path:
    path = folder / "rows.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("logits", data=logits, **how)
        file.create_dataset("labels", data=labels)
    return path


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(CalibError) as caught, opened(path, **options) as dataset:
        gather(dataset)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_array_is_mapped_where_it_lies(tmp_path):
    with opened(written(tmp_path)) as dataset:
        scores, labels, _ = gather(dataset, 17)
        assert dataset.resident()
        assert dataset.format == "hdf5"
    assert np.array_equal(scores, LOGITS)
    assert np.array_equal(labels, LABELS)


@pytest.mark.parametrize(
    "how",
    [
        {"chunks": (40, 3), "dtype": "<f4"},
        {"chunks": (500, CLASSES), "maxshape": (None, CLASSES), "dtype": "<f8"},
        {"chunks": (40, 3), "compression": "gzip", "dtype": ">f4"},
        {"chunks": (7, 5), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (33, 1), "fletcher32": True, "dtype": "<f2"},
    ],
    ids=str,
)
def test_chunks_are_decoded(tmp_path, how):
    with opened(written(tmp_path, **how)) as dataset:
        scores, labels, _ = gather(dataset, 17)
    assert np.array_equal(scores, LOGITS.astype(how.get("dtype", "f4")))
    assert np.array_equal(labels, LABELS)


def test_groups_are_paths_and_texts_are_labels(tmp_path):
    with h5py.File(tmp_path / "rows.hdf5", "w") as file:
        file["run/3/logits"] = LOGITS
        file["run/3/labels"] = TEXTS
        file["run/3/fixed"] = np.array([text.encode() for text in TEXTS])
        file["classes"] = NAMES
        file["run/3/again"] = file["run"]
    for name in ("labels", "fixed"):
        path, field = tmp_path / "rows.hdf5", f"run/3/{name}"
        with opened(path, logits="run/3/logits", labels=field) as dataset:
            scores, labels, _ = gather(dataset, 17)
            assert dataset.class_names == tuple(NAMES)
        assert np.array_equal(scores, LOGITS)
        assert np.array_equal(labels, LABELS)


def test_other_arrays_ride_along(tmp_path):
    path = written(tmp_path)
    with h5py.File(path, "a") as file:
        file.create_dataset("id", data=np.arange(ROWS), chunks=(50,), compression="gzip")
        file["kept"] = LABELS == 1
        file["lang"] = TEXTS
    calibrated_file(path, tmp_path / "o.npz")
    with np.load(tmp_path / "o.npz") as arrays:
        assert np.array_equal(arrays["id"], np.arange(ROWS))
        assert np.array_equal(arrays["kept"], LABELS == 1)


def test_images_have_a_row_for_each_pixel(tmp_path):
    logits = RNG.normal(size=(6, 3, 4, 5)).astype(np.float32)
    masks = RNG.integers(0, 3, (6, 4, 5))
    path = written(tmp_path, logits, masks, chunks=(2, 3, 4, 2), compression="gzip")
    with opened(path) as dataset:
        scores, labels, _ = gather(dataset, 17)
    assert np.array_equal(scores, np.moveaxis(logits, 1, -1).reshape(-1, 3))
    assert np.array_equal(labels, masks.ravel())


def test_rows_of_zeros_that_were_never_written_are_no_scores(tmp_path):
    path = tmp_path / "rows.h5"
    with h5py.File(path, "w") as file:
        scores = file.create_dataset("logits", (ROWS, CLASSES), "f4", chunks=(50, CLASSES))
        scores[:150] = LOGITS[:150]
        # Labels are sorted in many files, and chunks of class 0 are left out.
        file.create_dataset("labels", (ROWS,), "i8", chunks=(50,))
    assert "key 'logits': chunk 3.0 was never written" in refusal(path)
    with h5py.File(path, "a") as file:
        file["logits"][...] = LOGITS
    with opened(path) as dataset:
        assert not gather(dataset)[1].any()


def test_what_is_not_in_the_file_is_no_array(tmp_path):
    path = tmp_path / "rows.h5"
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["logits"] = LOGITS
    with h5py.File(path, "w") as file:
        file["labels"] = LABELS
        file["linked"] = h5py.ExternalLink("other.h5", "/logits")
        file["soft"] = h5py.SoftLink("/linked")
        layout = h5py.VirtualLayout(LOGITS.shape, "f4")
        layout[:] = h5py.VirtualSource("other.h5", "logits", LOGITS.shape)
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("outside", LOGITS.shape, "f4", external=str(tmp_path / "raw"))
        file.create_dataset("lzf", data=LOGITS, compression="lzf")
        file["records"] = np.zeros(ROWS, [("a", "f4")])
    for name, reason in {
        "linked": "external link to /logits",
        "soft": "soft link to /linked",
        "virtual": "of other datasets",
        "outside": "stored in other files",
        "lzf": "packed by lzf; h5repack -f GZIP=1 ",
        "records": "cannot be scores",
    }.items():
        assert reason in refusal(path, logits=name)


def test_a_chunk_that_was_changed_is_told_by_its_checksum(tmp_path):
    path = written(tmp_path, chunks=(40, CLASSES), fletcher32=True)
    with h5py.File(path) as file:
        place = file["logits"].id.get_chunk_info(2).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 5] ^= 4
    path.write_bytes(content)
    assert "key 'logits': chunk 2.0 does not agree with its checksum" in refusal(path)


def test_a_small_file_that_promises_much_is_refused(tmp_path):
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file.create_dataset("logits", (1 << 40, 10), "f4", chunks=(1000, 10), compression="gzip")
        file.create_dataset("labels", (1 << 40,), "i8", chunks=(1000,))
    assert "--spool-limit" in refusal(tmp_path / "rows.h5")


def test_half_a_file_is_refused(tmp_path):
    path = written(tmp_path)
    content = path.read_bytes()
    for length in (9, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert "not a readable HDF5 file" in refusal(path)


@pytest.mark.parametrize(
    ("number", "says"),
    [(signal.SIGSEGV, "ended by signal 11"), (signal.SIGXCPU, "did not end in 8 seconds")],
)
def test_a_process_that_crashes_is_a_refusal(tmp_path, monkeypatch, number, says):
    path = written(tmp_path)
    ended = subprocess.CompletedProcess([], -number, b"", b"")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    assert f"not a readable HDF5 file (libhdf5 {says})" in refusal(path)


def test_nothing_of_the_working_folder_is_imported(tmp_path, monkeypatch):
    path = written(tmp_path)
    (tmp_path / "h5py.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    with opened(path) as dataset:
        assert np.array_equal(gather(dataset)[0], LOGITS)


def test_without_h5py_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("calibcli.tables.formats.hdf5.find_spec", lambda _: None)
    path = written(tmp_path)
    with pytest.raises(DataError, match=r"pip install 'calibcli\[hdf5\]'"):
        opened(path)
