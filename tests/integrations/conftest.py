"""What several of these tests run on."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import calibcli


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """A session of Spark on this machine, whose workers run this Python and this calib."""
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("NOT TESTED: Spark needs Java, which is not there")
    package = str(Path(calibcli.__file__).parents[1])
    with pytest.MonkeyPatch.context() as patch:
        # Read when the session is made, and by the workers that it starts later.
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", package, prepend=os.pathsep)
        builder = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
        session = builder.config("spark.sql.shuffle.partitions", "1").getOrCreate()
        yield session
        session.stop()
