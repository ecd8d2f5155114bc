"""The same rows in every layout that `calibcli.tables` reads."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.lib import format as npy

from calibcli.errors import CalibError
from calibcli.tables import Dataset, ReadOptions, open_dataset, open_writer

Write = Callable[..., str]


def fixed_size_list(scores):
    values = pa.array(np.ascontiguousarray(scores).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, scores.shape[1])


def tensor(scores, shape=None):
    values = pa.array(np.ascontiguousarray(scores).reshape(-1))
    kind = pa.fixed_shape_tensor(values.type, shape or [scores.shape[1]])
    return pa.ExtensionArray.from_storage(kind, fixed_size_list(scores))


def lists(scores, kind=pa.list_):
    return pa.array(list(scores), kind(pa.from_numpy_dtype(scores.dtype)))


ARROW_LAYOUTS = {
    "fixed-size-list": lambda scores: {"logits": fixed_size_list(scores)},
    "tensor": lambda scores: {"logits": tensor(scores)},
    "row-tensor": lambda scores: {"logits": tensor(scores, [1, scores.shape[1]])},
    "list": lambda scores: {"logits": lists(scores)},
    "large-list": lambda scores: {"logits": lists(scores, pa.large_list)},
    "columns": lambda scores: {f"logit_{k}": pa.array(z) for k, z in enumerate(scores.T.copy())},
}


def table(scores, labels=None, layout="fixed-size-list", **others):
    columns = ARROW_LAYOUTS[layout](scores)
    if labels is not None:
        columns["label"] = pa.array(labels)
    return pa.table({**columns, **others})


def write_parquet(path, scores, labels=None, layout="fixed-size-list", *, groups=None, **others):
    path = f"{path}.parquet"
    pq.write_table(table(scores, labels, layout, **others), path, row_group_size=groups)
    return path


def write_ipc(path, scores, labels=None, *, stream=False, rows=None, compression=None, **others):
    path = f"{path}.arrow"
    content = table(scores, labels, **others)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(path, "wb") as file, new(file, content.schema, options=options) as writer:
        writer.write_table(content, max_chunksize=rows)
    return path


def write_npz(path, scores, labels=None, *, compressed=False, **others):
    path = f"{path}.npz"
    arrays = {"logits": scores} | ({} if labels is None else {"labels": labels}) | others
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def write_members(path, members: dict[str, bytes], compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return str(path)


def npy_bytes(array, version=None):
    file = io.BytesIO()
    npy.write_array(file, array, version, allow_pickle=True)
    return file.getvalue()


def save(path, columns, metadata=None):
    """A Parquet file of any columns."""
    table = pa.table(columns)
    path = f"{path}.parquet"
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


def _parquet(layout):
    return lambda path, scores, labels: write_parquet(path, scores, labels, layout, groups=37)


LAYOUTS: dict[str, Write] = {
    **{f"parquet-{layout}": _parquet(layout) for layout in ARROW_LAYOUTS},
    "ipc-file": lambda *rows: write_ipc(*rows, rows=23),
    "ipc-file-zstd": lambda *rows: write_ipc(*rows, rows=23, compression="zstd"),
    "ipc-stream": lambda *rows: write_ipc(*rows, stream=True, rows=23),
    "ipc-stream-lz4": lambda *rows: write_ipc(*rows, stream=True, rows=23, compression="lz4"),
    "npz": write_npz,
    "npz-compressed": lambda *rows: write_npz(*rows, compressed=True),
    "npz-fortran": lambda path, scores, labels: write_npz(path, np.asfortranarray(scores), labels),
    "npz-fortran-compressed": lambda path, scores, labels: write_npz(
        path, np.asfortranarray(scores), labels, compressed=True
    ),
    "npz-big-endian": lambda path, scores, labels: write_npz(
        path, scores.astype(scores.dtype.newbyteorder(">")), labels
    ),
}


def make_scores(rows=100, classes=5, dtype=np.float32, seed=0):
    scores = np.random.default_rng(seed).normal(scale=3, size=(rows, classes)).astype(dtype)
    scores[rows // 2, 0] = -np.inf
    return scores


def make_labels(rows=100, classes=5, seed=0):
    return np.random.default_rng(seed).integers(0, classes, rows)


def opened(*inputs, stdin=None, **options) -> Dataset:
    return open_dataset([str(each) for each in inputs], ReadOptions(**options), stdin=stdin)


def read(*inputs, rows=1 << 20, stdin=None, **options):
    """Scores, labels and weights of all rows."""
    with opened(*inputs, stdin=stdin, **options) as dataset:
        return gather(dataset, rows)


def gather(dataset, rows=1 << 20, *, with_columns=False):
    chunks = list(dataset.chunks(rows, with_columns))
    assert all(0 < len(chunk) <= rows for chunk in chunks)
    starts = np.cumsum([0, *map(len, chunks)])
    assert [chunk.start for chunk in chunks] == starts[:-1].tolist()
    assert starts[-1] == dataset.rows or dataset.rows == -1

    def joined(name):
        parts = [getattr(chunk, name) for chunk in chunks]
        return None if parts[0] is None else np.concatenate(parts)

    read = joined("scores"), joined("labels"), joined("weights")
    if not with_columns:
        return read
    return *read, pa.Table.from_batches([chunk.columns for chunk in chunks])


def refusal(error, *inputs, **options):
    """The message of an error, which is one line."""
    with pytest.raises(error) as caught, opened(*inputs, **options) as dataset:
        gather(dataset)
    assert isinstance(caught.value, CalibError)
    message = str(caught.value)
    assert "\n" not in message
    return message


def same_bits(left, right) -> bool:
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


def folder_is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


def source(rows=100, class_names=None):
    """What a writer must know of its input."""
    return SimpleNamespace(rows=rows, class_names=class_names)


def write_rows(writer, probs, labels=None, columns=None, extra=None):
    prediction, confidence = probs.argmax(axis=1), probs.max(axis=1)
    computed = {"probs": probs, "prediction": prediction, "confidence": confidence}
    if labels is not None:
        computed["label"] = labels
    writer.write_table(computed | dict(extra or {}), columns)


def calibrated_file(path, output, **options):
    """Write the probabilities of a file of logits, with all its other columns."""
    with (
        opened(path, **options) as dataset,
        open_writer(str(output), dataset, force=True) as writer,
    ):
        for chunk in dataset.chunks(17, with_columns=True):
            exponents = np.exp(chunk.scores - chunk.scores.max(1, keepdims=True))
            probs = exponents / exponents.sum(1, keepdims=True)
            write_rows(writer, probs, chunk.labels, chunk.columns)
