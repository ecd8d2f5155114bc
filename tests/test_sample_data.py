from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

PARQUET = ["digits_val.parquet", "digits_test.parquet"]
NPZ = ["digits_longtail_val.npz", "digits_longtail_test.npz"]


def read(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Logits and labels of a file, read without the project's own readers."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["logits"], arrays["labels"]
    table = pq.read_table(path)
    logits = table["logits"].combine_chunks().to_numpy_ndarray()
    return logits, table["label"].to_numpy()


@pytest.fixture(scope="module")
def make(sample_data: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sample_data", sample_data / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rebuilt(make: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample_data")
    make.build(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", PARQUET + NPZ)
def test_rebuilding_gives_the_stored_rows(rebuilt: Path, sample_data: Path, name: str) -> None:
    logits, labels = read(rebuilt / name)
    stored_logits, stored_labels = read(sample_data / name)
    np.testing.assert_array_equal(labels, stored_labels)
    # Logits are stored with four decimals; another linear algebra library may round one of them
    # the other way.
    np.testing.assert_allclose(logits, stored_logits, rtol=0, atol=1.5e-4)


@pytest.mark.slow
def test_building_twice_gives_the_same_bytes(
    make: ModuleType, rebuilt: Path, tmp_path: Path
) -> None:
    make.build(tmp_path)
    for name in PARQUET + NPZ:
        assert (tmp_path / name).read_bytes() == (rebuilt / name).read_bytes(), name


def test_readme_has_the_figures_of_the_files(make: ModuleType, sample_data: Path) -> None:
    tables = {}
    for name in PARQUET + NPZ:
        logits, labels = read(sample_data / name)
        tables[name] = make.Table(np.arange(len(labels)), logits, labels)
    assert make.describe(tables) in (sample_data / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PARQUET + NPZ)
def test_networks_are_accurate_and_overconfident(
    make: ModuleType, sample_data: Path, name: str
) -> None:
    logits, labels = read(sample_data / name)
    figures = make.figures(make.Table(np.arange(len(labels)), logits, labels))
    assert figures["accuracy"] > 0.85
    assert 1.5 < figures["temperature"] < 3
    assert figures["ece"] > 0.03
    assert figures["nll"] > 1.15 * figures["nll_at_temperature"]


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_has_tensors_class_names_and_other_columns(sample_data: Path, name: str) -> None:
    schema = pq.read_schema(sample_data / name)
    assert schema.names == ["id", "scan", "label", "logits"]
    assert schema.field("logits").type.extension_name == "arrow.fixed_shape_tensor"
    assert schema.field("logits").type.shape == [10]
    classes = json.loads(schema.metadata[b"calib.classes"])
    assert len(classes) == len(set(classes)) == 10


def test_validation_and_test_share_no_image(sample_data: Path) -> None:
    validation, test = (set(pq.read_table(sample_data / n)["id"].to_pylist()) for n in PARQUET)
    assert len(validation) == 600
    assert len(test) == 597
    assert not validation & test


def test_long_tail_is_in_the_validation_set_only(sample_data: Path) -> None:
    validation, test = (np.bincount(read(sample_data / name)[1]) for name in NPZ)
    assert (np.diff(validation) < 0).all()
    assert validation[0] == pytest.approx(10 * validation[-1], rel=0.1)
    np.testing.assert_array_equal(test, np.full(10, 44))


@pytest.mark.parametrize("name", NPZ)
def test_npz_members_are_uncompressed(sample_data: Path, name: str) -> None:
    logits, labels = read(sample_data / name)
    assert logits.dtype == np.float32
    assert labels.dtype == np.int64
    assert (sample_data / name).stat().st_size > logits.nbytes + labels.nbytes
