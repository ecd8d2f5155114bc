"""The function of the page on clusters, on a session of Spark on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import calibcli

ROOT = Path(__file__).resolve().parents[2]
# Spark says which version of pandas it would rather have.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

PAGE = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")


def test_rows_of_spark_get_the_probabilities_of_python(tmp_path, spark, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python[^\n]*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (code,) = (each for each in blocks if "def with_probs" in each)
    schema = re.search(r'mapInArrow\(with_probs, "([^"]+)"\)', PAGE)
    assert schema is not None
    logits = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    calibrator = calibcli.fit(logits, np.arange(500) % 3, method="temperature", folds=0)
    calibrator.save(tmp_path / "params.json")
    rows = {"id": np.arange(500), "logits": pa.array(list(logits), pa.list_(pa.float32()))}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    names: dict[str, Any] = {}
    # Spark has its workers where it likes: they find the file by its whole path.
    exec(code.replace('"params.json"', repr(str(tmp_path / "params.json"))), names)  # noqa: S102
    frame = spark.read.parquet(str(tmp_path / "rows.parquet"))
    got = frame.mapInArrow(names["with_probs"], schema[1]).orderBy("id").collect()
    assert [row.id for row in got] == list(range(500))
    expected = calibrator.predict_proba(logits)
    np.testing.assert_allclose([row.probs for row in got], expected, rtol=1e-5, atol=1e-7)
