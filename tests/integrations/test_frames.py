"""What Polars, DuckDB, pandas and datasets write is read, and they read our outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import ml_dtypes
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import zarr
from numcodecs import LZ4, Blosc, Zlib, Zstd
from table_files import calibrated_file, gather, opened

RNG = np.random.default_rng(5)
ROWS = 50
LOGITS = RNG.normal(size=(ROWS, 4)).astype(np.float32)
LABELS = RNG.integers(0, 4, ROWS)
NAMES = ("ant", "bee", "cat", "dog")
TEXTS = [NAMES[k] for k in LABELS]


def check(path: Path, **options: Any) -> None:
    """The scores and labels of a file, or one a class, are those above."""
    with opened(path, **options) as dataset:
        scores, labels, _ = gather(dataset, 17)
    assert np.array_equal(scores, LOGITS)
    assert np.array_equal(labels, LABELS)


# What they write


@pytest.mark.parametrize(
    "how",
    [
        {"compressors": Blosc(name, 5, shuffle, block)}
        for name in ("lz4", "lz4hc", "zlib", "zstd")
        for shuffle in (Blosc.NOSHUFFLE, Blosc.SHUFFLE, Blosc.BITSHUFFLE)
        for block in (0, 256)
    ]
    + [{"compressors": each} for each in (Zstd(1), Zlib(1), LZ4(), None)]
    + [{"order": "F"}, {"dtype": ">f4"}],
    ids=str,
)
def test_zarr_writes_version_2(tmp_path, how):
    store = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=2)
    forms = {"dtype": "f4", "shape": LOGITS.shape, "chunks": (24, 3), **how}
    store.create_array("logits", **forms)[:] = LOGITS
    store.create_array("labels", shape=(ROWS,), dtype="i8", chunks=(24,))[:] = LABELS
    check(tmp_path / "s.zarr")


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"compressors": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle")},
        {"compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]},
        {"filters": zarr.codecs.TransposeCodec(order=(1, 0))},
        {"serializer": zarr.codecs.BytesCodec(endian="big")},
        {"shards": (48, 6)},
        {"shards": {"shape": (48, 6), "index_location": "start"}},
    ],
    ids=str,
)
def test_zarr_writes_version_3(tmp_path, how):
    store = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=3)
    forms = {"dtype": "f4", "shape": LOGITS.shape, "chunks": (24, 3), **how}
    store.create_array("logits", **forms)[:] = LOGITS
    store.create_array("labels", shape=(ROWS,), dtype=str, chunks=(24,))[:] = np.array(TEXTS)
    store.create_array("classes", shape=(4,), dtype=str, chunks=(4,))[:] = np.array(NAMES)
    check(tmp_path / "s.zarr")


POLARS = {
    "list": {"logits": pl.Series(LOGITS.tolist(), dtype=pl.List(pl.Float32)), "label": LABELS},
    "array": {"logits": pl.Series(LOGITS, dtype=pl.Array(pl.Float32, 4)), "label": LABELS},
    "texts": {"logits": pl.Series(LOGITS, dtype=pl.Array(pl.Float32, 4)), "label": TEXTS},
    "categories": {
        "logits": pl.Series(LOGITS, dtype=pl.Array(pl.Float32, 4)),
        "label": pl.Series(TEXTS, dtype=pl.Categorical),
    },
    "enum": {
        "logits": pl.Series(LOGITS, dtype=pl.Array(pl.Float32, 4)),
        "label": pl.Series(TEXTS, dtype=pl.Enum(NAMES)),
    },
    "columns": {
        **{f"logit_{name}": LOGITS[:, k] for k, name in enumerate(NAMES)},
        "label": pl.Series(TEXTS, dtype=pl.Categorical),
    },
    "decimals": {
        "logits": pl.Series(LOGITS, dtype=pl.Array(pl.Float32, 4)),
        "label": pl.Series(LABELS).cast(pl.Decimal(38, 0)),
    },
}


@pytest.mark.parametrize("kind", POLARS)
@pytest.mark.parametrize("form", ["parquet", "arrow", "arrows"])
def test_polars_is_read(tmp_path: Path, kind: str, form: str) -> None:
    frame = pl.DataFrame(POLARS[kind]).with_columns(
        note=pl.lit("x"), site=pl.Series(TEXTS, dtype=pl.Categorical)
    )
    path = tmp_path / f"t.{form}"
    if form == "parquet":
        frame.write_parquet(path)
    else:
        write = frame.write_ipc if form == "arrow" else frame.write_ipc_stream
        write(path, compat_level=pl.CompatLevel.newest())
    check(path, classes=NAMES)
    calibrated_file(path, tmp_path / "o.parquet", classes=NAMES)
    assert pl.read_parquet(tmp_path / "o.parquet")["site"].to_list() == TEXTS


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        ("logits", "label::HUGEINT"),
        ("logits::FLOAT[4]", "label::UTINYINT"),
        ("logits", "label::DECIMAL(38, 0)"),
        ("logits", "label::DECIMAL(4, 2)"),
        ("logits", "[label]"),
    ],
)
def test_duckdb_is_read(tmp_path: Path, scores: str, labels: str) -> None:
    rows = pa.table({"logits": list(LOGITS), "label": LABELS})
    path = tmp_path / "t.parquet"
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        connection.sql(
            f"COPY (SELECT {scores} AS logits, {labels} AS label FROM rows) TO '{path}'"  # noqa: S608
        )
    check(path)


def test_pandas_is_read(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"logits": list(LOGITS), "label": pd.Categorical(TEXTS), "site": pd.Categorical(TEXTS)}
    )
    for path in (tmp_path / "t.parquet", tmp_path / "t.feather"):
        frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_feather(path)
        check(path, classes=NAMES)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_bfloat16_is_read(tmp_path: Path, write: Callable[..., None]) -> None:
    rounded = LOGITS.astype(ml_dtypes.bfloat16)
    write(tmp_path / "t.npz", logits=rounded, labels=LABELS)
    with opened(tmp_path / "t.npz") as dataset:
        assert np.array_equal(gather(dataset, 17)[0], rounded.astype(np.float32))


def _features(scores: Any) -> datasets.Features:
    return datasets.Features({"label": datasets.ClassLabel(names=list(NAMES)), "logits": scores})


DATASETS = {
    "list": (datasets.List(datasets.Value("float32")), LOGITS),
    "fixed": (datasets.List(datasets.Value("float32"), length=4), LOGITS),
    "array": (datasets.Array2D((1, 4), "float32"), LOGITS[:, None]),
}


@pytest.mark.parametrize("kind", DATASETS)
def test_data_sets_are_read(tmp_path: Path, kind: str) -> None:
    scores, values = DATASETS[kind]
    rows = datasets.Dataset.from_dict(
        {"label": LABELS.tolist(), "logits": values.tolist()}, features=_features(scores)
    )
    rows.save_to_disk(tmp_path / "saved", num_shards=2)
    rows.to_parquet(tmp_path / "t.parquet")
    for path in (tmp_path / "saved", tmp_path / "t.parquet"):
        check(path)
        with opened(path) as dataset:
            assert dataset.class_names == NAMES


# What they read


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output, with columns that rode along: a text, and an image."""
    path = tmp_path / "in.npz"
    images = np.arange(ROWS * 6, dtype=np.float32).reshape(ROWS, 2, 3)
    np.savez(path, logits=LOGITS, labels=LABELS, text=np.array(TEXTS), images=images)
    calibrated_file(path, tmp_path / "o.parquet")
    return tmp_path / "o.parquet"


def _by_datasets(path: Path, cache: Path) -> Any:
    rows = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(cache))["train"]
    return rows.with_format("numpy")[:]["probs"]


READERS: dict[str, Callable[[Path, Path], Any]] = {
    "datasets": _by_datasets,
    "pandas": lambda path, _: np.stack(pd.read_parquet(path)["probs"]),
    "polars": lambda path, _: pl.read_parquet(path)["probs"].to_numpy(),
    "duckdb": lambda path, _: [
        row
        for (row,) in duckdb.sql(f"SELECT probs FROM '{path}'").fetchall()  # noqa: S608
    ],
}


@pytest.mark.parametrize("reader", READERS)
def test_outputs_are_read_elsewhere(output: Path, tmp_path: Path, reader: str) -> None:
    exponents = np.exp(LOGITS.astype(float))
    probs = exponents / exponents.sum(1, keepdims=True)
    stored = np.array(READERS[reader](output, tmp_path / "cache"))
    assert stored.shape == (ROWS, 4)
    assert np.allclose(stored, probs, atol=1e-6)
