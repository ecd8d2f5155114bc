"""Files that are damaged, hostile or of another kind: one line that says what, where and why."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from table_files import (
    LAYOUTS,
    fixed_size_list,
    gather,
    make_labels,
    make_scores,
    npy_bytes,
    opened,
    read,
    refusal,
    write_ipc,
    write_members,
    write_npz,
    write_parquet,
)

from calibcli.errors import CalibError, DataError, UsageError
from calibcli.tables.formats.registry import FORMATS
from calibcli.tables.formats.sniffing import is_delimited, is_json, sniff

Z, Y = make_scores(40, 3), make_labels(40, 3)


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


# Pickles


@pytest.mark.parametrize("suffix", ["p", "pkl", "pt", "npz", "parquet"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickles_are_never_loaded(tmp_path, suffix, protocol):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "trace"), protocol))
    # As text, the oldest protocol is a table like any other, of columns with odd names.
    message = refusal(CalibError, path)
    if protocol or (suffix.startswith("p") and suffix != "parquet"):
        assert "stored as a pickle" in message
        assert "docs/converting.md" in message
    assert not (tmp_path / "trace").exists()


def test_torch_files_are_never_loaded(tmp_path):
    members = {"archive/data.pkl": pickle.dumps(Bomb(tmp_path / "trace")), "archive/data/0": b"x"}
    for name in ("a.pt", "a.npz"):
        message = refusal(DataError, write_members(tmp_path / name, members))
        assert "stored as a pickle" in message
    assert not (tmp_path / "trace").exists()


def test_object_arrays_are_never_loaded(tmp_path):
    array = np.array([Bomb(tmp_path / "trace")] * 3, object)
    (tmp_path / "a.npy").write_bytes(npy_bytes(array))
    message = refusal(DataError, tmp_path / "a.npy")
    assert "a.npy: an array of Python objects: stored as a pickle" in message
    np.savez(tmp_path / "a.npz", logits=Z, labels=array)
    assert "key 'labels': an array of Python objects" in refusal(DataError, tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "b.npz", logits=array, labels=Y)
    assert "docs/converting.md" in refusal(DataError, tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", Z)
    refusal(DataError, tmp_path / "c.npy", labels=str(tmp_path / "a.npy"))
    assert not (tmp_path / "trace").exists()


# Other formats


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b"a,b\n1,2\n", "the columns are a, b"),
        ("größe,b\n".encode() * 99, "the columns are größe, b"),
        (gzip.compress(b"x", mtime=0), "the format is not known"),
        (bz2.compress(b"x"), "it is compressed with bzip2"),
        (b"FEA1xxxxxxxx", "it is Feather version 1"),
        (bytes(range(1, 99)), "the format is not known"),
        (b"P", "Parquet, ORC, NPZ, safetensors, HDF5, Zarr, NPY, Arrow IPC, JSON and CSV are read"),
    ],
)
def test_other_formats_are_told_apart(tmp_path, content, problem):
    (tmp_path / "a.parquet").write_bytes(content)
    message = refusal(CalibError, tmp_path / "a.parquet")
    assert message.startswith(f"{tmp_path / 'a.parquet'}: ")
    assert problem in message
    assert problem in refusal(CalibError, "-", stdin=io.BytesIO(content))


MAGIC = [(magic, each) for each in FORMATS.values() for magic in each.magic]


@given(st.sampled_from(MAGIC), st.binary(max_size=600))
def test_formats_are_told_by_their_first_bytes(magic, rest):
    assert sniff(magic[0] + rest, "x.bin") is magic[1]


@given(st.binary(max_size=600) | st.text(max_size=300).map(str.encode))
def test_other_first_bytes_are_refused_in_one_line(head):
    assume(not head.startswith(tuple(magic for magic, _ in MAGIC)))
    assume(not (is_json(head) or is_delimited(head)))
    with pytest.raises(DataError) as caught:
        sniff(head, "x.bin")
    assert str(caught.value).startswith("x.bin: ")
    assert "\n" not in str(caught.value)


def test_the_suffix_does_not_matter(tmp_path):
    path = Path(write_npz(tmp_path / "a", Z, Y)).rename(tmp_path / "a.parquet")
    with opened(path) as dataset:
        assert dataset.format == "npz"


# Damage


def complaint_about(path):
    """The message of the error that reading a file ends with, or None."""
    try:
        with opened(path, input="logits") as dataset:
            gather(dataset, 11)
    except CalibError as error:
        return str(error)
    return None


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_refused_or_read(tmp_path_factory, data):
    """Whatever the bytes, there are rows or a line that names the file: no other exception."""
    folder = tmp_path_factory.mktemp("damaged")
    name = data.draw(st.sampled_from(sorted(LAYOUTS)))
    path = Path(LAYOUTS[name](folder / "a", Z, Y))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    # Compressed bodies have checks of their own; headers and footers are more interesting.
    edges = [*range(min(len(content), 200)), *range(max(0, len(content) - 300), len(content))]
    for _ in range(data.draw(st.integers(0, 4)) if edges else 0):
        content[data.draw(st.sampled_from(edges))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    complaint = complaint_about(path)
    assert complaint is None or complaint.startswith(str(path))
    assert complaint is None or "\n" not in complaint


@pytest.mark.parametrize("name", LAYOUTS)
def test_truncated_files_are_refused(tmp_path, name):
    path = Path(LAYOUTS[name](tmp_path / "a", Z, Y))
    content = path.read_bytes()
    for length in (len(content) // 2, len(content) - 40, 12):
        path.write_bytes(content[:length])
        assert str(path) in refusal(DataError, path, input="logits", labels_required=False)


def test_truncated_streams_are_refused(tmp_path):
    content = Path(write_ipc(tmp_path / "a", Z, Y, stream=True, rows=10)).read_bytes()
    message = refusal(
        DataError, "-", stdin=io.BytesIO(content[:-300]), single_pass=True, labels_required=False
    )
    assert message.startswith("standard input: not a readable Arrow IPC file")


def header(shape, descr="<f4", fortran=False):
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize("shape", [(10**15, 10), (2**40, 2**40), (-1, 10), (41, 3)])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_headers_cannot_promise_more_than_there_is(tmp_path, shape, compression):
    content = header(shape) + Z.tobytes()
    (tmp_path / "a.npy").write_bytes(content)
    # The number of bytes of 2^80 values is none that a computer has.
    problem = (
        "no array is of the shape" if shape[1] > 100 else "the header promises an array of shape"
    )
    assert problem in refusal(DataError, tmp_path / "a.npy")
    path = write_members(
        tmp_path / "a.npz", {"logits.npy": content, "labels.npy": npy_bytes(Y)}, compression
    )
    assert f"key 'logits': {problem}" in refusal(DataError, path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        b"\x93NUMPY",
        b"\x93NUMPY\1\0\xff\xff{",
        b"\x93NUMPY\3\0" + struct.pack("<I", 2) + b"{}",
        b"\x93NUMPY\1\0\5\0{}   ",
        header((3,), "<f4; import os"),
        header("__import__('os')"),
        header((3,), [("a", "<f4")]) + bytes(12),
    ],
)
def test_headers_that_are_none_are_refused(tmp_path, content):
    path = write_members(tmp_path / "a.npz", {"logits.npy": content})
    assert "key 'logits': " in refusal(DataError, path)


def test_archives_without_arrays_or_with_a_key_twice_are_refused(tmp_path):
    assert "ZIP archive of other files, readme; " in refusal(
        DataError, write_members(tmp_path / "a.npz", {"readme": b"x"})
    )
    assert "it holds no array" in refusal(DataError, write_members(tmp_path / "a.npz", {}))
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("logits.npy", npy_bytes(Z))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("logits.npy", npy_bytes(Z + 1))
    assert "a key is there twice" in refusal(DataError, tmp_path / "b.npz")


def test_encrypted_members_are_refused(tmp_path):
    content = bytearray(Path(write_npz(tmp_path / "a", Z, Y)).read_bytes())
    content[content.rindex(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.npz").write_bytes(content)
    assert "it is encrypted" in refusal(DataError, tmp_path / "a.npz")


def test_a_stored_member_must_lie_within_the_file(tmp_path):
    content = bytearray(Path(write_npz(tmp_path / "a", Z, Y)).read_bytes())
    begin = content.rindex(b"PK\1\2")
    # The extra field of the local header pushes the data of the last member past the end.
    (local,) = struct.unpack_from("<I", content, begin + 42)
    struct.pack_into("<H", content, local + 28, 0xFFFF)
    (tmp_path / "a.npz").write_bytes(content)
    assert "labels" in refusal(DataError, tmp_path / "a.npz")


def test_corrupt_compressed_data_are_refused(tmp_path):
    content = bytearray(Path(write_npz(tmp_path / "a", Z, Y, compressed=True)).read_bytes())
    content[150:250] = os.urandom(100)
    (tmp_path / "a.npz").write_bytes(content)
    assert str(tmp_path / "a.npz") in refusal(DataError, tmp_path / "a.npz")


# Rows


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_rows_of_different_lengths_are_padded_or_located(tmp_path, kind):
    rows = [[1.0, -2.0, 3.0]] * 50
    rows[33] = [1.0, 2.0]
    for name, content in (("a", rows[:20]), ("b", rows[20:])):
        table = pa.table({"logits": pa.array(content, kind(pa.float32())), "y": [0] * len(content)})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=6)
    assert refusal(DataError, tmp_path / "b.parquet", num_classes=2) == (
        f"{tmp_path / 'b.parquet'}, row 0: has 3 scores for 2 classes"
    )
    with opened(tmp_path / "a.parquet", tmp_path / "b.parquet") as dataset:
        rows_read = np.concatenate([chunk.scores for chunk in dataset.chunks(7)])
    assert np.argwhere(np.isneginf(rows_read)).tolist() == [[33, 2]]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1.0, -2.0]] * 9 + [None] + [[1.0, 2.0]] * 3, pa.list_(pa.float32())),
        pa.array([[1.0, -2.0]] * 9 + [[1.0, None]] + [[1.0, 2.0]] * 3, pa.list_(pa.float32())),
        pa.array([[1.0, -2.0]] * 9 + [None] + [[1.0, 2.0]] * 3, pa.list_(pa.float32(), 2)),
        pa.array([[1.0, -2.0]] * 9 + [[1.0, None]] + [[1.0, 2.0]] * 3, pa.list_(pa.float64(), 2)),
        pa.array([-1.0] * 9 + [None] * 4, pa.float32()),
    ],
    ids=["list", "in-list", "fixed", "in-fixed", "scalar"],
)
def test_missing_scores_are_located(tmp_path, column):
    table = pa.table({"logits": column, "y": [0] * 13})
    with pa.OSFile(str(tmp_path / "a"), "wb") as file, pa.ipc.new_file(file, table.schema) as ipc:
        ipc.write_table(table, max_chunksize=4)
    message = refusal(DataError, tmp_path / "a")
    assert message.startswith(f"{tmp_path / 'a'}, row 9: column 'logits' has ")


def test_missing_scores_of_one_class_are_located(tmp_path):
    table = pa.table({"logit_0": [1.0, 2.0, 3.0], "logit_1": [1.0, 2.0, None], "y": [0, 1, 0]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert refusal(DataError, tmp_path / "a.parquet") == (
        f"{tmp_path / 'a.parquet'}, row 2: column 'logit_1' has no value here"
    )


def test_nan_is_left_to_the_engine(tmp_path):
    scores = Z.copy()
    scores[3, 1], scores[4, 1] = np.nan, np.inf
    assert np.array_equal(read(write_npz(tmp_path / "a", scores, Y))[0], scores, equal_nan=True)


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"ipc-file-zstd", "ipc-stream-lz4"}))
def test_files_without_rows_are_refused_but_not_among_others(tmp_path, name):
    empty = LAYOUTS[name](tmp_path / "empty", Z[:0].reshape(0, 3), Y[:0])
    full = LAYOUTS[name](tmp_path / "full", Z, Y)
    assert refusal(DataError, empty) == f"{empty}: there are no rows"
    assert len(read(empty, full, empty)[0]) == 40


def test_scores_without_classes_are_refused(tmp_path):
    assert "the rows of scores are empty" in refusal(
        DataError, write_npz(tmp_path / "a", Z[:, :0], Y)
    )


# Several files


def test_files_must_have_the_same_columns(tmp_path):
    first = write_parquet(tmp_path / "a", Z, Y, id=pa.array(range(40)))
    for other, problem in (
        (write_parquet(tmp_path / "b", Z[:, :2], Y, id=pa.array(range(40))), "'logits' is fixed"),
        (write_parquet(tmp_path / "d", Z, Y, id=pa.array(["x"] * 40)), "'id' is string"),
        (write_parquet(tmp_path / "c", Z), "'label' is not there"),
        (write_parquet(tmp_path / "e", Z, [str(y) for y in Y]), "'label' is string"),
    ):
        message = refusal(DataError, first, other)
        assert message.startswith(f"{other}: ")
        assert problem in message
        assert message.endswith("all files must have the same columns")


def test_files_must_name_the_same_classes(tmp_path):
    first = write_npz(tmp_path / "a", Z, Y, classes=np.array(["a", "b", "c"]))
    second = write_npz(tmp_path / "b", Z, Y, classes=np.array(["c", "b", "a"]))
    assert "has other class names than" in refusal(DataError, first, second)
    with opened(first, second, classes=("a", "b", "c")) as dataset:
        assert dataset.rows == 80


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pa.Table.from_arrays([fixed_size_list(Z), Y, Y], names=["logits", "y", "y"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert refusal(DataError, tmp_path / "a.parquet") == (
        f"{tmp_path / 'a.parquet'}: column 'y' is there twice; rename one"
    )


def test_arrays_of_other_lengths_are_refused(tmp_path):
    path = write_npz(tmp_path / "a", Z, Y[:-1])
    assert refusal(DataError, path) == f"{path}: key 'labels' has not as many rows as 'logits' (40)"


# Inputs


def test_inputs_that_are_not_there(tmp_path):
    (tmp_path / "empty").mkdir()
    assert (
        refusal(DataError, tmp_path / "absent.npz")
        == f"{tmp_path / 'absent.npz'}: there is no such file"
    )
    assert refusal(DataError, tmp_path / "*.npz") == f"{tmp_path / '*.npz'}: no file matches"
    assert "the folder holds no data file" in refusal(DataError, tmp_path / "empty")
    assert "no input file was given" in refusal(UsageError)
    assert "only once" in refusal(UsageError, "-", "-")
    assert "Unrecognized filesystem type" in refusal(UsageError, "nosuch://a/b")


def test_a_terminal_is_no_input():
    class Terminal(io.BytesIO):
        def isatty(self):
            return True

    assert "which is a terminal" in refusal(UsageError, "-", stdin=Terminal())


def test_a_full_temporary_folder_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    class Broken(io.BytesIO):
        def readinto(self, place):
            if self.tell():
                raise OSError(28, "No space left on device")
            return super().readinto(memoryview(place)[:8192])

    message = refusal(DataError, "-", stdin=Broken(b"PK\x03\x04" * 10_000))
    assert "No space left on device" in message
