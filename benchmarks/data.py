"""Synthetic logits whose labels are drawn from a known tempered softmax, and files of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, Any]

TEMPERATURE = 2.0
"""The labels are drawn from softmax(logits / TEMPERATURE)."""

_NOISE = 1.5
_LARGEST_MARGIN = 12.0
_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class Size:
    """The shape of a data set."""

    rows: int
    classes: int

    def __str__(self) -> str:
        """Rows x classes, as in ``50k x 1000``."""
        for unit, factor in (("M", 1_000_000), ("k", 1000)):
            if self.rows % factor == 0:
                return f"{self.rows // factor}{unit} x {self.classes}"
        return f"{self.rows} x {self.classes}"


def make_blocks(size: Size, seed: int = 0) -> Iterator[tuple[Matrix, Matrix]]:
    """Logits (n, K), float32, and labels (n,), int64, by blocks of rows.

    A row is noise and a margin for one class, uniform between 0 and 12 over what makes that class
    as likely as all others together, so that every level of confidence occurs. Labels are drawn by
    the Gumbel-max trick: ``argmax(z / T + g)`` is distributed like softmax(z / T) where g is
    Gumbel noise, minus the logarithm of an exponential variable.
    """
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK_ELEMENTS // size.classes)
    level = np.float32(np.log(size.classes / 10))
    for begin in range(0, size.rows, step):
        rows = min(step, size.rows - begin)
        logits = rng.standard_normal((rows, size.classes), dtype=np.float32)
        logits *= np.float32(_NOISE)
        margin = rng.random(rows, dtype=np.float32) * np.float32(_LARGEST_MARGIN) + level
        logits[np.arange(rows), rng.integers(size.classes, size=rows)] += margin
        noise = rng.standard_exponential(logits.shape, dtype=np.float32)
        np.log(np.maximum(noise, np.finfo(np.float32).tiny, out=noise), out=noise)
        perturbed = logits * np.float32(1 / TEMPERATURE)
        perturbed -= noise
        yield logits, perturbed.argmax(axis=1)


def make(size: Size, seed: int = 0) -> tuple[Matrix, Matrix]:
    """All logits (n, K) and labels (n,)."""
    logits = np.empty((size.rows, size.classes), np.float32)
    labels = np.empty(size.rows, np.int64)
    end = 0
    for block, block_labels in make_blocks(size, seed):
        begin, end = end, end + len(block)
        logits[begin:end], labels[begin:end] = block, block_labels
    return logits, labels


def write_arrays(folder: Path, size: Size) -> None:
    """``logits.npy`` and ``labels.npy``, for `read_arrays`."""
    logits, labels = make(size)
    np.save(folder / "logits.npy", logits)
    np.save(folder / "labels.npy", labels)


def read_arrays(folder: Path) -> tuple[Matrix, Matrix]:
    """Logits and labels in memory."""
    return np.load(folder / "logits.npy"), np.load(folder / "labels.npy")


def write_npz(path: Path, size: Size, seed: int) -> None:
    """An uncompressed NPZ file of logits and labels, as `numpy.savez` writes it."""
    logits, labels = make(size, seed)
    np.savez(path, logits=logits, labels=labels)


def write_parquet(path: Path, size: Size) -> None:
    """A Parquet file of logits and labels in row groups of pyarrow's default length."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    group_rows = 1 << 20
    kind = pa.list_(pa.float32(), size.classes)
    schema = pa.schema([("logits", kind), ("label", pa.int64())])
    waiting: list[Any] = []
    with pq.ParquetWriter(path, schema) as writer:
        for logits, labels in make_blocks(size):
            column = pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), size.classes)
            waiting.append(pa.record_batch([column, pa.array(labels)], schema=schema))
            if sum(map(len, waiting)) >= group_rows:
                table = pa.Table.from_batches(waiting)
                writer.write_table(table.slice(0, group_rows))
                waiting = table.slice(group_rows).to_batches()
        writer.write_table(pa.Table.from_batches(waiting, schema))


def exact_log_temperature(folder: Path) -> float:
    """The logarithm of the best temperature by plain float64 arithmetic, within 1e-12.

    Newton's method on the derivative by u = log(1 / T) of the mean negative log-likelihood.
    """
    logits, labels = read_arrays(folder)
    u, step = -np.log(TEMPERATURE), 1.0
    while abs(step) > 1e-12:
        scale = np.exp(u)
        slope = bend = 0.0
        rows = max(1, (_BLOCK_ELEMENTS >> 3) // logits.shape[1])
        for begin in range(0, len(logits), rows):
            z = logits[begin : begin + rows].astype(np.float64)
            p = np.exp(scale * (z - z.max(axis=1, keepdims=True)))
            p /= p.sum(axis=1, keepdims=True)
            mean = (p * z).sum(axis=1)
            true = z[np.arange(len(z)), labels[begin : begin + rows]]
            slope += float((mean - true).sum())
            bend += float(((p * z * z).sum(axis=1) - mean * mean).sum())
        step = scale * slope / (scale * scale * bend + scale * slope)
        u -= step
    return -float(u)
