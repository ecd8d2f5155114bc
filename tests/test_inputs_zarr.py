"""Zarr stores of both versions, made by hand; what is refused; and stores that are damaged."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from table_files import calibrated_file, gather, opened

from calibcli.cli.app import run
from calibcli.errors import CalibError
from calibcli.tables.formats.zarr_codecs import crc32c

RNG = np.random.default_rng(7)
ROWS, CLASSES = 101, 5
LOGITS = RNG.normal(size=(ROWS, CLASSES)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, ROWS)
NAMES = ("ant", "bee", "cät", "dog", "elk")
TEXTS = [NAMES[k] for k in LABELS]


def blocks(array: np.ndarray, chunks: tuple[int, ...]) -> dict[tuple[int, ...], np.ndarray]:
    """The chunks of an array, whole where they reach over its end."""
    counts = [-(-n // c) for n, c in zip(array.shape, chunks, strict=True)]
    made = {}
    for index in np.ndindex(*counts):
        whole = np.zeros(chunks, array.dtype)
        part = array[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunks, strict=True))]
        whole[tuple(map(slice, part.shape))] = part
        made[index] = whole
    return made


def array_2(
    folder: Path, array: np.ndarray, chunks: tuple[int, ...], pack: Any = bytes, **said: Any
) -> None:
    """An array of version 2."""
    folder.mkdir(parents=True)
    order, separator = said.get("order", "C"), said.get("dimension_separator", ".")
    known = {
        "zarr_format": 2,
        "shape": list(array.shape),
        "chunks": list(chunks),
        "dtype": array.dtype.str,
        "order": order,
        "fill_value": 0,
        "filters": None,
        "compressor": None,
    }
    (folder / ".zarray").write_text(json.dumps(known | said))
    for index, block in blocks(array, chunks).items():
        path = folder / separator.join(map(str, index))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pack(block.tobytes(order)))


def store_2(folder: Path, pack: Any = bytes, **said: Any) -> Path:
    array_2(folder / "logits", LOGITS.astype(said.get("dtype", "f4")), (40, 3), pack, **said)
    array_2(folder / "labels", LABELS, (ROWS,))
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    return folder


def array_3(
    folder: Path,
    array: np.ndarray,
    chunks: tuple[int, ...],
    codecs: list[Any] | None = None,
    pack: Any = lambda block: block.tobytes(),
    **said: Any,
) -> None:
    """An array of version 3."""
    folder.mkdir(parents=True)
    known = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(array.shape),
        "data_type": array.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": codecs or [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": {},
    }
    (folder / "zarr.json").write_text(json.dumps(known | said))
    for index, block in blocks(array, chunks).items():
        path = folder.joinpath("c", *map(str, index))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pack(block))


def store_3(folder: Path, *how: Any, chunks: tuple[int, ...] = (40, 3), **said: Any) -> Path:
    array_3(folder / "run/logits", LOGITS, chunks, *how, **said)
    array_3(folder / "run/labels", LABELS.astype("u1"), (60,))
    for each in (folder, folder / "run"):
        (each / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    return folder


IN_RUN = {"logits": "run/logits", "labels": "run/labels"}


def check(path: Path, **options: Any) -> None:
    with opened(path, **options) as dataset:
        scores, labels, _ = gather(dataset, 17)
        assert dataset.format == "zarr"
    assert np.array_equal(scores, LOGITS)
    assert np.array_equal(labels, LABELS)


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(CalibError) as caught, opened(path, **options) as dataset:
        gather(dataset)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def lz4(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + pa.compress(data, "lz4_raw", asbytes=True)


def shuffled(data: bytes) -> bytes:
    return np.frombuffer(data, np.uint8).reshape(-1, 4).T.tobytes()


PACKERS: dict[str, Any] = {
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "lzma": lzma.compress,
    "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
    "lz4": lz4,
}


@pytest.mark.parametrize("codec", PACKERS)
def test_chunks_of_version_2_are_unpacked(tmp_path, codec):
    check(store_2(tmp_path / "s.zarr", PACKERS[codec], compressor={"id": codec}))


@pytest.mark.parametrize(
    ("said", "pack"),
    [
        ({"order": "F"}, bytes),
        ({"dimension_separator": "/"}, bytes),
        ({"dtype": ">f4"}, bytes),
        ({"dtype": "<f8"}, bytes),
        (
            {"filters": [{"id": "shuffle", "elementsize": 4}], "compressor": {"id": "zlib"}},
            lambda data: zlib.compress(shuffled(data)),
        ),
    ],
    ids=["fortran", "folders", "big-endian", "double", "shuffled"],
)
def test_forms_of_version_2(tmp_path, said, pack):
    check(store_2(tmp_path / "s.zarr", pack, **said))


BLOSC = {
    ("lz4", 1): (
        "AgEhBMADAADAAwAAiQAAABQAAAALAAAAHwABANdQAAAAAAALAAAAHwABANdQAAAAAAAwAAAA/xYAgABAgKDA"
        "4AAQIDBAUGBwgIiQmKCosLjAyNDY4Ojw+AAECAwQJQCzUFBgcICIHwAAAN8APj8/Pz8/P0BAQEBABQAAEEEB"
        "AA8lALNQQEBAQEA="
    ),
    ("lz4", 2): (
        "AgEkBMADAADAAwAAXgEAABQAAAALAAAAHwABANdQAAAAAAALAAAAHwABANdQAAAAAAC3AAAAHwABACzwoQoA"
        "AABAAQAAACgAAAAABQAAAKAAAAAAFAAAAACqqgwAQFWVAQCoqjIAAFVVBgCgqsoAAFRVGQCAAKrMzBBAlZkZ"
        "AqgyM0MAVWZmCKDKzAwBVJmZIYAqoMzw8ACUGR4egDLDwwNQZnh4AMoMDw9AmeHhASgzyPAA/wAZHuAfIMMD"
        "/ANkeIB/gAwP8A+Q4QH+ATI88gD//0Ae4P8fyAP8/wN5gP9/IA/w/w/kAf7/gTzAbQAAAP8r/AAAAJ8fAADg"
        "8wMAAHx+AACAzw8AAPD5AQAAPj8A/gAAAMAfAAAA+AMAAAB/AAAA4A8AAAD8AQAAgB4AZ/8UAP///x/g////"
        "A/z//3+A////D/D///8B/v//P8D/AAAAAAAFAAFQAAAAAAA="
    ),
    ("zstd", 1): (
        "AgGRBAAPAAAAAgAAuAIAADAAAAB8AAAA0gAAACIBAAB2AQAAwgEAABgCAABoAgAASAAAACi1L/1gAAH1AQC0"
        "AgAAgABAgKDA4AAQIDBAUGBwgIiQmKCosLjAyNDY4Ojw+AAECAwQAD4/QEEGAAgGgHWgMpzgiEhNhE+BNlIA"
        "AAAotS/9YAABRQIAxAIAAIiQmKCosLjAyNDY4Ojw+AAECAwQAIAAQICgwOAAECAwQFBgcIBAQQA+PwogIIMK"
        "9TUCQSWYcGAP1sMylxBbRNC3pwIWTAAAACi1L/1gAAEVAgDUAgAAgIiQmKCosLjAyNDY4Ojw+AAECAwQAIAA"
        "QICgwOAAECAwQFBgcEBBAD4/QAcACFAA9QIZEByuY0WkJrKnQBtQAAAAKLUv/WAAATUCAPQCAAAECAwQAIAA"
        "QICgwOAAECAwQFBgcICIkJigqLC4wMjQ2ODo8PhBQUFBAD4/QEEHAF/AAUhJByrDhf0CHhikpLenABZIAAAA"
        "KLUv/WAAAfUBALQCAAAECAwQAIAAQICgwOAAECAwQFBgcICIkJigqLC4wMjQ2ODo8PhBAD4/QAYACCYA9QIZ"
        "XHCJSE2PTwEsUgAAACi1L/1gAAFFAgDUAgAAQFBgcICIkJigqLC4wMjQ2ODo8PgABAgMEACAAECAoMDgABAg"
        "MEBBAD4/QAkgEINKD+kRoDWsl4yCg4TTI1tQ8+2phQVMAAAAKLUv/WAAARUCANQCAAAwQFBgcICIkJigqLC4"
        "wMjQ2ODo8PgABAgMEACAAECAoMDgABAgQEEAPj9ABwADUAD1AhkQHI5mRaQmsqdAG0wAAAAotS/9YAAAFQIA"
        "BAMAAODo8PgABAgMEACAAECAoMDgABAgMEBQYHCAiJCYoKiwuMDI0NhAQEBAQQA+P0AGAKAGUC+QgQt0kQrf"
        "TgEW"
    ),
    ("zlib", 0): (
        "AgFgBMADAADAAwAAtQEAABQAAABjAAAAeF61zqEVwkAARMEVCAQiJVBCKoBLB5SQEijhZCQSGYlEIiORyMhI"
        "JBLJpAj2vVn9k3X14I5JoTIysZCSNOxpKZzoOVMZuHBl5MadBxNPXswsvPnwJV2yYcuOpssfm37VrykGZAAA"
        "AHhetc6hEcJQAAPQiAoEoiMwQieA3w0YgREY4UskElmJRFZWViKRlUgkktchyN2Ly12SsSQTM09eLLz58CV9"
        "0rBhS8uauleHpFAZmFiIXcuOjsKRE2cqF67cGLjz4H+ffqYKKuNmAAAAeF61zqERg0AQBdAVCETElUAJVEAu"
        "HaSElJASTkZGIpFIZCQSGRmJREZG5lEEO/O++/M3IuWIhpbMlRt3Cg+e9AyMTLyYWXjzYWXjy4+4RFTUnEjs"
        "VzpxtkdhYGYl9I776Q/Q9i1mZAAAAHhetc6hFcJAFATALxARiJSQEqiAXDqgBEqghJORyMiTSCTyJBKJjIxE"
        "RmYoIvverFqxETFEHGg40vJPPqs+IpEpVGYi2dFxInHhyo3MyJ2JwoMnLypvPnyZWfixst+nDRWFJhM="
    ),
}
"""What c-blosc 1.21 made of the numbers below, by its codec and shuffling; 2 is that of bits."""


@pytest.mark.parametrize(("codec", "shuffle"), BLOSC)
def test_blosc_is_unpacked(tmp_path, codec, shuffle):
    numbers = (np.arange(240, dtype="<f4") % 37).reshape(48, 5) / 4
    if codec == "zstd":  # in several blocks
        numbers = np.tile(numbers, (4, 1))
    folder = tmp_path / "s.zarr"
    packed = base64.b64decode(BLOSC[codec, shuffle])
    blosc = {"id": "blosc", "cname": codec, "clevel": 5, "shuffle": shuffle, "blocksize": 0}
    array_2(folder / "logits", numbers, numbers.shape, lambda _: packed, compressor=blosc)
    array_2(folder / "labels", np.zeros(len(numbers), "i8"), (len(numbers),))
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    with opened(folder) as dataset:
        assert np.array_equal(gather(dataset)[0], numbers)
    (folder / "logits/0.0").write_bytes(packed[:-1])
    assert "chunk 0.0 has a header of Blosc that does not fit" in refusal(folder)


LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


def summed(data: bytes) -> bytes:
    return data + struct.pack("<I", crc32c(data))


@pytest.mark.parametrize(
    ("codecs", "pack"),
    [
        (None, lambda block: block.tobytes()),
        ([LITTLE, {"name": "zstd"}], lambda block: PACKERS["zstd"](block.tobytes())),
        ([LITTLE, {"name": "gzip"}], lambda block: gzip.compress(block.tobytes())),
        ([LITTLE, "crc32c"], lambda block: summed(block.tobytes())),
        (
            [LITTLE, {"name": "crc32c"}, {"name": "numcodecs.zlib"}, {"name": "crc32c"}],
            lambda block: summed(zlib.compress(summed(block.tobytes()))),
        ),
        (
            [{"name": "bytes", "configuration": {"endian": "big"}}],
            lambda block: block.astype(">f4").tobytes(),
        ),
        (
            [{"name": "transpose", "configuration": {"order": [1, 0]}}, LITTLE],
            lambda block: block.T.tobytes(),
        ),
    ],
    ids=["plain", "zstd", "gzip", "crc32c", "sums", "big-endian", "transposed"],
)
def test_codecs_of_version_3(tmp_path, codecs, pack):
    check(store_3(tmp_path / "s.zarr", codecs, pack), **IN_RUN)


@pytest.mark.parametrize("is_first", [False, True])
def test_shards_hold_chunks(tmp_path, is_first):
    """Shards of 80 x 6 of chunks of 20 x 3, the first of which was never written."""

    def shard(block: np.ndarray) -> bytes:
        size = 16 * 8 + 4
        parts, index, at = [], np.full((4, 2, 2), 2**64 - 1, "<u8"), size * is_first
        for place, chunk in blocks(block, (20, 3)).items():
            if chunk.any():
                parts.append(PACKERS["zstd"](chunk.tobytes()))
                index[place] = at, len(parts[-1])
                at += len(parts[-1])
        places = summed(index.tobytes())
        return b"".join([places, *parts] if is_first else [*parts, places])

    settings = {
        "chunk_shape": [20, 3],
        "codecs": [LITTLE, {"name": "zstd", "configuration": {"level": 0}}],
        "index_codecs": [LITTLE, {"name": "crc32c"}],
        "index_location": "start" if is_first else "end",
    }
    codecs = [{"name": "sharding_indexed", "configuration": settings}]
    folder = store_3(tmp_path / "s.zarr", codecs, shard, chunks=(80, 6))
    check(folder, **IN_RUN)
    path = folder / "run/logits/c/0/0"
    content = bytearray(path.read_bytes())
    content[0 if is_first else -5] ^= 1
    path.write_bytes(content)
    assert "does not agree with its checksum" in refusal(folder, **IN_RUN)


def texts(block: list[str]) -> bytes:
    """``vlen-utf8``."""
    each = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in block)
    return struct.pack("<I", len(block)) + each


def test_texts_are_labels_and_class_names(tmp_path):
    folder = store_2(tmp_path / "s.zarr")
    for name, words in (("animal", TEXTS), ("classes", NAMES)):
        array_2(folder / name, np.zeros(len(words), "i8"), (60,))
        said = json.loads((folder / name / ".zarray").read_text())
        said |= {"dtype": "|O", "filters": [{"id": "vlen-utf8"}], "compressor": {"id": "zlib"}}
        (folder / name / ".zarray").write_text(json.dumps(said))
        for place in range(-(-len(words) // 60)):
            block = texts(list(words[60 * place :][:60]))
            (folder / name / str(place)).write_bytes(zlib.compress(block))
    check(folder, labels="animal")
    array_2(folder / "fixed", np.array(TEXTS), (60,))
    check(folder, labels="fixed")


def test_an_array_alone_and_its_labels(tmp_path):
    array_3(tmp_path / "z.zarr", LOGITS, (40, 3))
    array_3(tmp_path / "y.zarr", LABELS, (40,))
    check(tmp_path / "z.zarr", labels=str(tmp_path / "y.zarr"))


def test_stores_in_a_folder_are_one_table(tmp_path):
    for name in ("a", "b"):
        store_2(tmp_path / f"parts/{name}.zarr")
    for path in (tmp_path / "parts", tmp_path / "parts" / "*.zarr"):
        with opened(path) as dataset:
            assert np.array_equal(gather(dataset)[0], np.concatenate([LOGITS, LOGITS]))


def test_images_and_other_arrays(tmp_path):
    logits = RNG.normal(size=(6, 3, 4, 5)).astype(np.float32)
    masks = RNG.integers(0, 3, (6, 4, 5))
    array_2(
        tmp_path / "s.zarr/logits", logits, (2, 3, 4, 2), zlib.compress, compressor={"id": "zlib"}
    )
    array_2(tmp_path / "s.zarr/labels", masks, (4, 4, 5))
    array_2(tmp_path / "s.zarr/id", np.arange(6), (4,))
    (tmp_path / "s.zarr/.zgroup").write_text('{"zarr_format": 2}')
    with opened(tmp_path / "s.zarr") as dataset:
        scores, labels, _ = gather(dataset, 17)
    assert np.array_equal(scores, np.moveaxis(logits, 1, -1).reshape(-1, 3))
    assert np.array_equal(labels, masks.ravel())
    calibrated_file(tmp_path / "s.zarr", tmp_path / "o.npz")
    with np.load(tmp_path / "o.npz") as arrays:
        assert np.array_equal(arrays["id"], np.repeat(np.arange(6), 20))


def test_what_was_never_written(tmp_path):
    folder = store_2(tmp_path / "s.zarr")
    (folder / "labels/0").unlink()  # all are of class 0
    with opened(folder) as dataset:
        assert not gather(dataset)[1].any()
    (folder / "logits/1.0").unlink()
    assert "key 'logits': chunk 1.0 was never written; the store is incomplete" in refusal(folder)


def test_the_whole_way(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store_2(Path("s.zarr"), zlib.compress, compressor={"id": "zlib"})
    np.savez("s.npz", logits=LOGITS, labels=LABELS)
    figures = []
    for name in ("s.zarr", "s.npz"):
        fit = ["fit", name, "-m", "temperature", "-p", f"{name}.json", "--format", "csv", "-q"]
        assert run(fit) == 0
        figures.append(capsys.readouterr().out.replace(name, ""))
        assert run(["apply", f"{name}.json", name, "-o", f"{name}.parquet", "-q"]) == 0
        assert run(["convert", name, "-o", f"{name}.npz", "-q"]) == 0
    assert figures[0] == figures[1]
    (data,) = json.loads(Path("s.zarr.json").read_text())["data"]
    assert data["bytes"] == sum(
        path.stat().st_size for path in Path("s.zarr").rglob("*") if path.is_file()
    )
    capsys.readouterr()
    assert run(["inspect", "s.zarr"]) == 0
    assert "calib evaluate s.zarr" in capsys.readouterr().out
    with opened("s.zarr") as dataset:
        assert dataset.is_among([data])
        assert dataset.fingerprints() == [data]


def test_what_is_not_read_says_how(tmp_path):
    folder = store_2(tmp_path / "s.zarr", compressor={"id": "blosc", "cname": "blosclz"})
    assert "numbers packed by blosclz; the library reads it: python -c" in refusal(folder)
    shutil.make_archive(str(tmp_path / "s.zarr"), "zip", folder)
    said = refusal(tmp_path / "s.zarr.zip")
    assert "unzip -q" in said
    assert said.endswith("-d s.zarr && calib evaluate s.zarr")
    assert zipfile.is_zipfile(tmp_path / "s.zarr.zip")


@pytest.mark.parametrize(
    "said",
    [
        {"shape": [101]},
        {"shape": [-1, 5]},
        {"shape": [2**62, 5]},
        {"shape": [1 << 40, 5], "compressor": {"id": "zlib"}},
        {"chunks": [0, 3]},
        {"chunks": [1 << 50, 3]},
        {"dtype": "<f9"},
        {"dtype": [["a", "<f4"]]},
        {"dtype": 3},
        {"compressor": {"id": "unknown"}},
        {"compressor": {"id": "blosc"}},
        {"compressor": 3},
        {"filters": [{"id": "shuffle", "elementsize": 0}]},
        {"order": 3, "dimension_separator": 3},
    ],
    ids=str,
)
def test_odd_descriptions_are_refused(tmp_path, said):
    folder = store_2(tmp_path / "s.zarr")
    known = json.loads((folder / "logits/.zarray").read_text())
    (folder / "logits/.zarray").write_text(json.dumps(known | said))
    refusal(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"node_type": "array"}', "[" * 100_000])
def test_odd_documents_are_refused(tmp_path, content):
    folder = tmp_path / "s.zarr"
    folder.mkdir()
    (folder / "zarr.json").write_text(content)
    refusal(folder)


@pytest.mark.parametrize("version", [2, 3])
def test_changed_bytes_are_refused_or_read(tmp_path, version):
    """Whatever byte of whatever file changes, it is read or refused in one line."""
    if version == 2:
        blosc = base64.b64decode(BLOSC["lz4", 1])
        folder = tmp_path / "s.zarr"
        said = {"compressor": {"id": "blosc"}, "dtype": "<f4"}
        array_2(folder / "logits", np.zeros((48, 5), "f4"), (48, 5), lambda _: blosc, **said)
        array_2(folder / "labels", np.arange(48) % 5, (20,), lz4, compressor={"id": "lz4"})
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
        options = {}
    else:
        codecs = [LITTLE, {"name": "zstd"}, {"name": "crc32c"}]
        pack = lambda block: summed(PACKERS["zstd"](block.tobytes()))  # noqa: E731
        folder, options = store_3(tmp_path / "s.zarr", codecs, pack), IN_RUN
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    said = []
    for number in range(250):
        rng = np.random.default_rng([version, number])
        path = files[int(rng.integers(len(files)))]
        whole = path.read_bytes()
        content = bytearray(whole)
        content[int(rng.integers(len(content)))] = int(rng.integers(256))
        shorter = int(rng.integers(20)) if number % 5 == 0 else 0
        path.write_bytes(content[: len(content) - shorter])
        try:
            with opened(folder, **options) as dataset:
                gather(dataset)
        except CalibError as error:
            said.append(str(error))
        path.write_bytes(whole)
    assert len(said) > 50
    assert not any("\n" in each for each in said)
