"""Files to be hurt, and how they are: seeds of every format that is read, and their mutations.

A mutation is a function of its format, its number and the seed alone. Half of all lie past what is
read first: within the data of a table, in an array behind a header that is right, in the values of
a document that is still one.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from calibcli.params import Params, Stage, decode, encode

ROWS, CLASSES = 60, 4
WORDS = ("en", "de", "fr")
EXTREME = (0, -1, 1e308, -1e308, 5e-324, 1e-30, 1e15, -1e15, 1e16, 1e39, 2**53, 2**63, 0.5, 1, 2)
WHOLE = (0, 1, -1, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1)


@dataclass(frozen=True)
class Sample:
    """A valid file.

    Attributes
    ----------
    content : bytes
    past : range
        Where its bytes are data, behind or before what describes them.
    summed : range
        Where a checksum in the file covers them, so that no change goes unseen.
    """

    content: bytes
    past: range
    summed: range = field(default=range(0))


@dataclass(frozen=True)
class Mutation:
    """A file that was hurt.

    Attributes
    ----------
    content : bytes
    past : bool
        Whether what is read first is as it was.
    same : bytes or None
        The valid file, if a checksum covers all that was changed: no number of it may change.
    """

    content: bytes
    past: bool
    same: bytes | None = None


def rows() -> dict[str, np.ndarray[Any, Any]]:
    """Scores, labels and a column of texts of the tables."""
    rng = np.random.default_rng(11)
    return {
        "logits": rng.normal(size=(ROWS, CLASSES)) * 2,
        "label": rng.integers(0, CLASSES, ROWS),
        "lang": np.array(WORDS)[np.arange(ROWS) % len(WORDS)],
    }


_VECTOR = [
    ("type", pa.int8()),
    ("size", pa.int32()),
    ("indices", pa.list_(pa.int32())),
    ("values", pa.list_(pa.float64())),
]
"""The members of a vector of Spark's MLlib."""


def tables() -> list[pa.Table]:
    """The rows as Arrow tables with columns of every kind that is read."""
    data = rows()
    flat = pa.array(data["logits"].ravel())
    fixed = pa.FixedSizeListArray.from_arrays(flat, CLASSES)
    lists = pa.ListArray.from_arrays(np.arange(0, len(flat) + 1, CLASSES, np.int32), flat)
    label, lang = pa.array(data["label"]), pa.array(data["lang"])
    sure = pa.array([None if row % 7 == 0 else row / 8 for row in range(ROWS)])
    scalar = {f"logit_{k}": data["logits"][:, k].astype(np.float32) for k in range(CLASSES)}
    views = pa.array(data["logits"].tolist(), pa.list_view(pa.float64()))
    dense = [{"type": 1, "size": None, "indices": None, "values": row} for row in lists.to_pylist()]
    vectors = pa.array(dense, pa.struct(_VECTOR))
    whole = label.cast(pa.decimal128(38, 0))
    return [
        pa.table(
            {
                "logits": views,
                "label": [[each] for each in data["label"]],
                "lang": lang.cast(pa.string_view()),
            }
        ),
        pa.table({"logits": vectors, "label": whole, "lang": lang}),
        pa.table({"logits": fixed, "label": label, "lang": lang.dictionary_encode()}),
        pa.table({"logits": lists, "label": label, "lang": lang, "x": sure}),
        pa.table({**scalar, "label": label.cast(pa.int8()), "lang": lang}),
    ]


def _parquet() -> list[Sample]:
    samples = []
    for table in tables():
        for compression, checksum in (("none", True), ("snappy", True), ("zstd", False)):
            sink = io.BytesIO()
            pq.write_table(
                table,
                sink,
                compression=compression,
                write_page_checksum=checksum,
                use_dictionary=False,
                write_statistics=False,
            )
            content = sink.getvalue()
            footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
            column = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0).column(0)
            # The header of a page has less; after it comes the one page of the scores.
            begin = column.data_page_offset + 64
            end = column.data_page_offset + column.total_compressed_size
            summed = range(begin, end) if checksum else range(0)
            samples.append(Sample(content, range(4, footer), summed))
    return samples


def _zipped(arrays: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", packing) as archive:
        for name, content in arrays.items():
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), content, packing
            )
    return sink.getvalue()


def _array(array: np.ndarray[Any, Any]) -> bytes:
    sink = io.BytesIO()
    np.lib.format.write_array(sink, array, allow_pickle=False)
    return sink.getvalue()


def _arrays() -> list[dict[str, bytes]]:
    data = rows()
    names = np.array(["ant", "bee", "cat", "dog"])
    plain = {"logits": data["logits"], "labels": data["label"], "lang": data["lang"]}
    other = {
        "logits": np.asfortranarray(data["logits"].astype(np.float32)),
        "labels": data["label"].astype(np.uint8),
        "classes": names,
        "lang": data["lang"].astype("S"),
    }
    images, pixels = 3, ROWS // 3
    grid = {
        "logits": data["logits"].reshape(images, 2, pixels // 2, CLASSES).transpose(0, 3, 1, 2),
        "labels": data["label"].reshape(images, 2, pixels // 2),
        "lang": data["lang"][:images],
    }
    volume = {
        "logits": data["logits"].T.reshape(CLASSES, 2, -1),
        "mask": grid["labels"].reshape(2, -1),
    }
    shapes = (plain, other, grid, volume)
    return [{name: _array(array) for name, array in each.items()} for each in shapes]


def _npz() -> list[Sample]:
    samples = []
    for arrays in _arrays():
        for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            content = _zipped(arrays, packing)
            past = range(100, content.rindex(b"PK\1\2", 0, content.index(b"PK\1\2") + 4))
            first = content.index(b"logits.npy") + len("logits.npy")
            samples.append(Sample(content, past, range(first, content.index(b"PK\3\4", first))))
    return samples


def _npy() -> list[Sample]:
    data = rows()["logits"]
    odds = data[:, 1] - data[:, 0]
    shaped = (data, data.astype(np.float32), np.asfortranarray(data.astype(np.float16)), odds)
    return [Sample(content, range(128, len(content))) for content in map(_array, shaped)]


def _safetensors() -> list[Sample]:
    from safetensors.numpy import save

    data = rows()
    samples = []
    for kind in (np.float32, np.float64, np.float16):
        arrays = {"logits": data["logits"].astype(kind), "label": data["label"]}
        arrays["lang"] = (np.arange(ROWS) % len(WORDS)).astype(np.uint8)
        content = save(arrays, {"calib.classes": '["ant", "bee", "cat", "dog"]'})
        header = 8 + int.from_bytes(content[:8], "little")
        samples.append(Sample(content, range(header, len(content))))
    return samples


def _hdf5() -> list[Sample]:
    import h5py

    data = rows()
    samples = []
    for packed in ({}, {"chunks": (17, 3), "compression": "gzip", "shuffle": True}):
        sink = io.BytesIO()
        with h5py.File(sink, "w") as file:
            file["label"], file["lang"], file["run/x"] = (
                data["label"],
                data["lang"].astype(object),
                data["label"],
            )
            scores = file.create_dataset("logits", data=data["logits"], **packed, fletcher32=True)
            spans = []
            scores.id.chunk_iter(
                lambda chunk, spans=spans: spans.append(
                    range(chunk.byte_offset, chunk.byte_offset + chunk.size)
                )
            )
        first = min(spans, key=lambda span: span.start)
        samples.append(Sample(sink.getvalue(), range(first.start, len(sink.getvalue())), first))
    return samples


def _tensors_inside(rng: np.random.Generator, sample: Sample) -> Mutation:
    """Another header, which is still JSON."""
    length = int.from_bytes(sample.content[:8], "little")
    header = _hurt_value(rng, json.loads(sample.content[8 : 8 + length]))
    text = json.dumps(header).encode()
    return Mutation(struct.pack("<Q", len(text)) + text + sample.content[8 + length :], past=True)


def _arrow(form: str) -> list[Sample]:
    samples = []
    for table in tables():
        for compression in (None, "zstd"):
            sink = io.BytesIO()
            opened = ipc.new_file if form == "arrow-file" else ipc.new_stream
            options = ipc.IpcWriteOptions(compression=compression)
            with opened(sink, table.schema, options=options) as writer:
                writer.write_table(table, max_chunksize=25)
            content = sink.getvalue()
            # The schema comes first, in a message of its own.
            samples.append(Sample(content, range(len(content) // 3, len(content))))
    return samples


def _stages() -> list[tuple[Stage, ...]]:
    k, rng = CLASSES, np.random.default_rng(2)
    knots, inner = (
        np.array([-3.0, -1.0]),
        {"kind": "temperature", "parameters": {"temperature": 2.0}},
    )
    scale, bias = np.linspace(0.5, 1.5, k), np.zeros(k)
    points = {"counts": np.full(k, 3.0), "scores": np.tile([-2.0, 0.0, 2.0], k)}
    steps = np.tile([0.1, 0.4, 0.8], k)
    p0 = {f"p0_{name}": value for name, value in {**points, "values": steps}.items()}
    p1 = {f"p1_{name}": value for name, value in {**points, "values": steps + 0.1}.items()}
    network = {"sizes": [k, 2, 1], "theta": rng.normal(size=2 * k + 5)}
    mixture = {"members": [[inner], []], "weights": np.array([0.6, 0.4])}
    pair = {"kind": "beta", "parameters": {"a": 1.0, "b": 0.5, "c": 0.1}}
    each: dict[str, dict[str, Any]] = {
        "temperature": {"temperature": 1.5},
        "class-temperature": {"temperatures": scale, "by": "column"},
        "vector": {"scale": scale, "bias": bias},
        "matrix": {"matrix": np.eye(k), "bias": bias},
        "monotone": {"knots": knots, "slopes": np.array([0.5, 1.0, 1.5])},
        "curved-vector": {"knots": knots, "slopes": np.ones(3), "scale": scale, "bias": bias},
        "gap-temperature": {
            "knots": np.array([0.5, 2.0]),
            "scales": np.array([0.5, 1.0]),
            "feature": "gap",
        },
        "laplace": {"weight": 0.01},
        "focal-temperature": {"temperature": 2.0, "gamma": -1.5},
        "ensemble-temperature": {
            "temperature": 2.0,
            "weights": np.array([0.5, 0.3, 0.2]),
            "mixture": "probabilities",
        },
        "parameterized-temperature": {**network, "form": "official"},
        "one-vs-rest": {"interpolation": "linear", **points, "values": steps},
        "spline": {**points, "values": np.tile([-2.0, 0.1, 2.0], k)},
        "venn-abers": {"resolution": 0.0, **p0, **p1},
        "link": {"loss": "focal", "gamma": 2.0},
        "log-linear": mixture,
        "top": {"stages": [pair]},
        "groups": {
            "column": "lang",
            "names": list(WORDS),
            "pooled": [inner],
            "own": [[inner], [], [inner, inner]],
            "weights": np.array([0.5, 0.0, 1.0]),
        },
    }
    stages = [(Stage(kind, values),) for kind, values in each.items()]
    return [*stages, (stages[0][0], stages[7][0], stages[2][0])]


def _params(*, safetensors: bool) -> list[Sample]:
    contents = [
        encode(Params(CLASSES, "logits", stages, ANIMALS), safetensors=safetensors)
        for stages in _stages()
    ]
    for content in contents:
        decode(content)
    return [Sample(content, range(min(8, len(content)), len(content))) for content in contents]


_SETTINGS = """\
quiet = false
memory = "64M"
threads = 1
seed = 3

[evaluate]
bootstrap = 0
metrics = "nll,ece"
by = "lang"

[fit]
method = "temperature"
set = ["a.b=1"]
"""


def _toml() -> list[Sample]:
    content = _SETTINGS.encode()
    return [Sample(content, range(len(content)))]


def _text_rows() -> list[dict[str, Any]]:
    data = rows()
    columns = {f"logit_{k}": data["logits"][:, k].tolist() for k in range(CLASSES)}
    columns |= {"label": data["label"].tolist(), "lang": data["lang"].tolist()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _csv() -> list[Sample]:
    table = _text_rows()
    samples = []
    for delimiter, end in ((",", "\n"), (";", "\r\n"), ("\t", "\n")):
        lines = [
            [*table[0]],
            *([f'"{v}"' if v in WORDS else repr(v) for v in r.values()] for r in table),
        ]
        content = end.join(delimiter.join(line) for line in lines).encode()
        samples.append(Sample(content, range(content.index(b"\n") + 1, len(content))))
    return samples


def _json_texts() -> list[bytes]:
    data = rows()
    nested = [
        {
            "logits": row.tolist(),
            "label": int(y),
            "lang": str(lang),
            "x": {"y": [1, None], "z": "é"},
        }
        for row, y, lang in zip(data["logits"], data["label"], data["lang"], strict=True)
    ]
    mixed = [{**row, "x": index % 3 or "text"} for index, row in enumerate(nested)]
    tables = (nested, mixed, _text_rows())
    return [
        *("\n".join(map(json.dumps, table)).encode() for table in tables),
        json.dumps(nested).encode(),
    ]


def _json() -> list[Sample]:
    return [Sample(content, range(1, len(content))) for content in _json_texts()]


def _compressed() -> list[Sample]:
    samples = []
    for text in (_csv()[0].content, _json_texts()[0]):
        content = gzip.compress(text, mtime=0)
        samples.append(Sample(content, range(10, len(content)), range(10, len(content) - 8)))
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(text)
        content = bytes(sink.getvalue())
        samples.append(Sample(content, range(6, len(content))))
    return samples


def _multi_label() -> list[Sample]:
    """Labels as zeros and ones, and as lists of names."""
    data = rows()
    truth = (data["logits"] > 1 / 2).astype(np.int64)
    lists = [[name for name, one in zip(ANIMALS, row, strict=True) if one] for row in truth]
    arrays = {
        "logits": _array(data["logits"]),
        "labels": _array(truth),
        "lang": _array(data["lang"]),
    }
    sink, table = io.BytesIO(), {"logits": list(data["logits"]), "labels": lists}
    pq.write_table(pa.table({**table, "lang": data["lang"]}), sink, use_dictionary=False)
    texts = [
        {"logits": row.tolist(), "labels": each, "lang": str(lang)}
        for row, each, lang in zip(data["logits"], lists, data["lang"], strict=True)
    ]
    contents = (_zipped(arrays), sink.getvalue(), "\n".join(map(json.dumps, texts)).encode())
    return [Sample(content, range(100, len(content))) for content in contents]


ANIMALS = ("ant", "bee", "cat", "dog")


def _rows_inside(rng: np.random.Generator, sample: Sample) -> Mutation:
    """Rows that are still JSON, with other values and names in some of them."""
    if sample.content[:1] not in b"[{":
        return _bytes(rng, sample, past=True)
    is_list = sample.content[:1] == b"["
    lines = sample.content.split(b"\n")
    data = json.loads(sample.content) if is_list else list(map(json.loads, lines))
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(len(data)))
        data[place] = _hurt_value(rng, data[place])
    text = json.dumps(data) if is_list else "\n".join(map(json.dumps, data))
    return Mutation(text.encode(), past=True)


def _samples_of_questions() -> list[Sample]:
    data = rows()
    lines = [
        {
            "doc_id": index,
            "target": int(y),
            "arguments": {
                f"gen_args_{k}": {"arg_0": "?", "arg_1": f" {k}"} for k in range(CLASSES)
            },
            "filtered_resps": [[str(value), "False"] for value in row[: CLASSES - index % 2]],
            "lang": str(lang),
            "task": "t",
        }
        for index, (row, y, lang) in enumerate(
            zip(data["logits"], data["label"] % (CLASSES - 1), data["lang"], strict=True)
        )
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    return [Sample(content, range(1, len(content)))]


def _orc() -> list[Sample]:
    from pyarrow import orc

    samples = []
    for packed in ("uncompressed", "zlib", "zstd"):
        sink = io.BytesIO()
        orc.write_table(pa.table(_columns()), sink, compression=packed)
        samples.append(Sample(sink.getvalue(), range(3, len(sink.getvalue()) // 2)))
    return samples


def _columns() -> dict[str, Any]:
    data = rows()
    return {
        "logits": pa.array(data["logits"].tolist(), pa.list_(pa.float32())),
        "label": data["label"],
        "lang": data["lang"].tolist(),
    }


def _helm() -> list[Sample]:
    states = [
        {
            "instance": {
                "id": f"id{index}",
                "references": [
                    {"output": {"text": word}, "tags": ["correct"] if k == y else []}
                    for k, word in enumerate("wxyz")
                ],
            },
            "reference_index": k,
            "request_mode": "original",
            "result": {"completions": [{"text": "", "logprob": float(value)}]},
        }
        for index, (row, y) in enumerate(zip(rows()["logits"], rows()["label"], strict=True))
        for k, value in enumerate(row)
    ]
    spec = {"method": "multiple_choice_separate_original"}
    content = json.dumps({"adapter_spec": spec, "request_states": states}).encode()
    return [Sample(content, range(80, len(content)))]


FORMATS: dict[str, Callable[[], list[Sample]]] = {
    "orc": _orc,
    "helm": _helm,
    "parquet": _parquet,
    "npz": _npz,
    "npy": _npy,
    "safetensors": _safetensors,
    "hdf5": _hdf5,
    "arrow-file": functools.partial(_arrow, "arrow-file"),
    "arrow-stream": functools.partial(_arrow, "arrow-stream"),
    "csv": _csv,
    "json": _json,
    "compressed": _compressed,
    "lm-eval": _samples_of_questions,
    "multi-label": _multi_label,
    "params-json": functools.partial(_params, safetensors=False),
    "params-safetensors": functools.partial(_params, safetensors=True),
    "toml": _toml,
}
"""What is hurt; the last part of a name is no suffix."""

SUFFIXES = {
    "orc": ".orc",
    "helm": ".json",
    "parquet": ".parquet",
    "npz": ".npz",
    "npy": ".npy",
    "safetensors": ".safetensors",
    "hdf5": ".h5",
    "arrow-file": ".arrow",
    "arrow-stream": ".arrows",
    "csv": ".csv",
    "json": ".jsonl",
    "compressed": ".csv.gz",
    "lm-eval": ".jsonl",
    "multi-label": ".npz",
    "params-json": ".json",
    "params-safetensors": ".safetensors",
    "toml": ".toml",
}

if find_spec("h5py") is None:
    del FORMATS["hdf5"]


@functools.cache
def samples(form: str) -> list[Sample]:
    """The valid files of a format."""
    return FORMATS[form]()


def mutation(form: str, number: int, seed: int) -> Mutation:
    """A hurt file of a format: always the same one for a number and a seed."""
    rng = np.random.default_rng([seed, zlib.crc32(form.encode()), number])
    sample = samples(form)[int(rng.integers(len(samples(form))))]
    share, special = _SPECIAL.get(form, (0.0, None))
    if special is not None and rng.random() < share:
        return special(rng, sample)
    return _bytes(rng, sample, past=bool(rng.random() < _PAST_SHARE))


_PAST_SHARE = 0.75


def _bytes(rng: np.random.Generator, sample: Sample, *, past: bool) -> Mutation:
    """One to three changes of bytes, all of them past what is read first if that is asked for."""
    content, covered = bytearray(sample.content), sample.summed
    inside = True
    summed = past and len(covered) > 0 and rng.random() < 1 / 2
    for _ in range(int(rng.integers(1, 4))):
        if not content:
            break
        where = covered if summed else sample.past if past else range(len(content))
        if not len(where):
            where = range(len(content))
        place = int(where[int(rng.integers(len(where)))])
        change = _CHANGES[int(rng.integers(3 if summed else len(_CHANGES)))]
        change(rng, content, min(place, max(len(content) - 1, 0)))
        inside = inside and place in sample.past
    hurt = bytes(content)
    return Mutation(hurt, past and inside, sample.content if summed else None)


def _flip(rng: np.random.Generator, content: bytearray, place: int) -> None:
    if content:
        content[place] ^= 1 << int(rng.integers(8))


def _replace(rng: np.random.Generator, content: bytearray, place: int) -> None:
    if content:
        content[place] = int(rng.integers(256))


def _flip_far(_: np.random.Generator, content: bytearray, place: int) -> None:
    if content:
        content[place] ^= 0x80


def _number(rng: np.random.Generator, content: bytearray, place: int) -> None:
    """A whole number that is hard to bear, in four or eight bytes."""
    size = 4 if rng.random() < 1 / 2 else 8
    value = WHOLE[int(rng.integers(len(WHOLE)))] & ((1 << 8 * size) - 1)
    content[place : place + size] = value.to_bytes(size, "little")


def _insert(rng: np.random.Generator, content: bytearray, place: int) -> None:
    content[place:place] = rng.bytes(int(rng.integers(1, 17)))


def _delete(rng: np.random.Generator, content: bytearray, place: int) -> None:
    del content[place : place + int(rng.integers(1, 65))]


def _repeat(rng: np.random.Generator, content: bytearray, place: int) -> None:
    part = content[place : place + int(rng.integers(1, 257))]
    content[place:place] = part


def _cut(_: np.random.Generator, content: bytearray, place: int) -> None:
    del content[place:]


_CHANGES = (_flip, _replace, _flip_far, _number, _insert, _delete, _repeat, _cut)


def _npz_inside(rng: np.random.Generator, _: Sample) -> Mutation:
    """Arrays that were hurt, in a zip file whose checksums are right."""
    arrays = dict(_arrays()[int(rng.integers(2))])
    name = list(arrays)[int(rng.integers(len(arrays)))]
    whole = Sample(arrays[name], range(128, len(arrays[name])))
    past = bool(rng.random() < 1 / 2)
    arrays[name] = _bytes(rng, whole, past=True).content if past else _header(rng, arrays[name])
    if rng.random() < _RARE:
        arrays[name.upper() if rng.random() < 1 / 2 else ""] = arrays[name]
    packing = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)[int(rng.integers(3))]
    return Mutation(_zipped(arrays, packing), past=True)


_RARE = 0.1
_TYPES = "<f8 >f8 <f4 <f2 <f16 <i8 >i4 <u8 |b1 |S0 |S3 <U0 <U1 >U2 |O <M8 <M8[ns] <m8[Y] |V8 <c16"
_AXES = (0, 1, 2, 4, 59, 60, 61, 240, -1, 2**31, 2**62, 2**63, 2**64)


def _header(rng: np.random.Generator, array: bytes) -> bytes:
    """An array with a header that promises something else."""
    types = _TYPES.split()
    kind = types[int(rng.integers(len(types)))]
    axes = [_AXES[int(rng.integers(len(_AXES)))] for _ in range(int(rng.integers(0, 4)))]
    if rng.random() < 1 / 2:
        axes = [ROWS, *axes[1:]]
    order = rng.random() < 1 / 2
    text = f"{{'descr': {kind!r}, 'fortran_order': {order}, 'shape': {tuple(axes)!r}, }}"
    if rng.random() < _RARE:
        text = text.replace("'", '"""', 1)
    if rng.random() < _RARE:
        text = "(" * 4000 + text
    version = 2 if rng.random() < _RARE else 1
    padded = text + " " * (-(len(text) + 11) % 64) + "\n"
    size = WHOLE[int(rng.integers(9))] if rng.random() < _RARE else len(padded)
    size &= (1 << 16 * version) - 1
    prefix = b"\x93NUMPY" + bytes([version, 0]) + size.to_bytes(2 * version, "little")
    return prefix + padded.encode() + array[128:]


def _npy_header(rng: np.random.Generator, sample: Sample) -> Mutation:
    return Mutation(_header(rng, sample.content), past=False)


def _hurt_value(rng: np.random.Generator, value: Any) -> Any:
    """A document with one of its values replaced, taken out, or put in again."""
    if isinstance(value, dict) and value and rng.random() < _DEEPER:
        key = list(value)[int(rng.integers(len(value)))]
        return {**value, key: _hurt_value(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < _DEEPER:
        place = int(rng.integers(len(value)))
        return [*value[:place], _hurt_value(rng, value[place]), *value[place + 1 :]]
    if isinstance(value, dict) and value and rng.random() < 1 / 2:
        key = list(value)[int(rng.integers(len(value)))]
        return {name: item for name, item in value.items() if name != key}
    if isinstance(value, list) and rng.random() < 1 / 2:
        return [*value[1:], *value[:1]] * int(rng.integers(0, 3))
    number = EXTREME[int(rng.integers(len(EXTREME)))]
    if isinstance(value, (int, float)) and rng.random() < _DEEPER:
        return number
    texts = ("", "\x1b[2J\n::error::x", "temperature", "focal", "\ud800", "x" * 5000)
    others = (None, True, [], {}, [[]], [number] * CLASSES, {"tensor": "stages.0.x"}, number)
    return (*texts, *others)[int(rng.integers(len(texts) + len(others)))]


_DEEPER = 0.93


def _json_inside(rng: np.random.Generator, sample: Sample) -> Mutation:
    document = _hurt_value(rng, json.loads(sample.content))
    return Mutation(json.dumps(document).encode(), past=True)


def _safetensors_inside(rng: np.random.Generator, sample: Sample) -> Mutation:
    """Another header, another document inside of it, or other numbers in the tensors."""
    length = int.from_bytes(sample.content[:8], "little")
    header, data = (
        json.loads(sample.content[8 : 8 + length]),
        bytearray(sample.content[8 + length :]),
    )
    choice = rng.random()
    if choice < 1 / 3 and len(data) >= 8:
        place = 8 * int(rng.integers(len(data) // 8))
        number = float(EXTREME[int(rng.integers(len(EXTREME)))])
        data[place : place + 8] = struct.pack("<d", number)
    elif choice < 2 / 3:
        document = _hurt_value(rng, json.loads(header["__metadata__"]["calib"]))
        header["__metadata__"]["calib"] = json.dumps(document)
    else:
        header = _hurt_value(rng, header)
    text = json.dumps(header).encode()
    return Mutation(struct.pack("<Q", len(text)) + text + bytes(data), past=True)


def _toml_inside(rng: np.random.Generator, _: Sample) -> Mutation:
    """Lines that are still TOML, with other values, keys and tables."""
    lines = _SETTINGS.splitlines()
    values = (
        "-1",
        "1e308",
        "true",
        '"\\u001b[2J"',
        "[]",
        "{}",
        '""',
        "9" * 18,
        '"x"',
        "1979-05-27",
    )
    keys = (
        "classes",
        "logits",
        "labels",
        "format",
        "fail_if",
        "view",
        "tests",
        "nothing",
        "device",
    )
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(len(lines)))
        value = values[int(rng.integers(len(values)))]
        key = keys[int(rng.integers(len(keys)))]
        if " = " in lines[place] and rng.random() < 1 / 2:
            lines[place] = f"{lines[place].split(' = ')[0]} = {value}"
        elif rng.random() < 1 / 2:
            lines.insert(place, f"{key} = {value}")
        else:
            lines.insert(place, f"[{key}]" if rng.random() < 1 / 2 else f'"{key}".x = {value}')
    return Mutation("\n".join(lines).encode(), past=True)


_SPECIAL: dict[str, tuple[float, Callable[[np.random.Generator, Sample], Mutation]]] = {
    "npz": (0.5, _npz_inside),
    "npy": (0.25, _npy_header),
    "safetensors": (0.5, _tensors_inside),
    "json": (0.4, _rows_inside),
    "lm-eval": (0.4, _rows_inside),
    "multi-label": (0.4, _rows_inside),
    "params-json": (0.7, _json_inside),
    "params-safetensors": (0.7, _safetensors_inside),
    "toml": (0.7, _toml_inside),
}
"""How often a format is hurt in a way of its own."""


def digest(content: bytes) -> str:
    """A short name of a file."""
    return f"{zlib.crc32(content):08x}"
