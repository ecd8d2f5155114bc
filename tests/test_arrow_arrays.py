"""Arrow's arrays as NumPy's and back, as Arrow itself would have them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibcli.tables.formats.arrow_arrays import arrow_array, host_array

KINDS = ["float16", "float32", "float64", "int8", "uint16", "int32", "int64", "uint64", "bool"]


@given(st.sampled_from(KINDS), st.integers(0, 40), st.integers(0, 20), st.data())
def test_values_are_what_arrow_makes_of_them(
    kind: str, rows: int, begin: int, data: st.DataObject
) -> None:
    values = np.array(data.draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)), kind)
    array = pa.array(values, pa.from_numpy_dtype(values.dtype)).slice(begin)
    found = host_array(array)
    assert found.dtype == kind
    assert found.tolist() == array.to_pylist()


@given(st.sampled_from(KINDS), st.lists(st.booleans(), max_size=40), st.integers(1, 3))
def test_an_array_is_what_arrow_makes_of_it(kind: str, absent: list[bool], step: int) -> None:
    values = np.arange(len(absent) * step).astype(kind)[::step]
    assert arrow_array(values).equals(pa.array(values))
    missing = np.array(absent, bool)
    made = arrow_array(values, missing)
    made.validate(full=True)
    assert made.equals(pa.array(values, mask=missing))
    assert made.null_count == sum(absent)


def test_nulls_texts_and_chunks_are_left_to_arrow() -> None:
    assert np.isnan(host_array(pa.array([1.0, None]))[1])
    assert host_array(pa.array(["a", "b"])).tolist() == ["a", "b"]
    assert host_array(pa.chunked_array([[1, 2], [3]])).tolist() == [1, 2, 3]
    assert arrow_array(np.array(["a", "b"])).to_pylist() == ["a", "b"]
    with pytest.raises(pa.ArrowNotImplementedError):
        arrow_array(np.array([1, 2], ">i4"))


PANDAS_IN_THE_WAY = """
import sys
class Asked:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            print("pandas", file=sys.stderr)
        return None
sys.meta_path.insert(0, Asked())
from calibcli.cli import main
main()
"""


@pytest.mark.parametrize("command", ["evaluate", "fit", "apply"])
def test_pandas_is_not_looked_for(command: str, tmp_path: Path) -> None:
    sample = Path(__file__).parents[1] / "sample_data"
    files = {
        "evaluate": [str(sample / "digits_test.parquet")],
        "fit": [str(sample / "digits_val.parquet"), "-o", "out.parquet"],
        "apply": ["params.json", str(sample / "digits_test.parquet"), "-o", "out.parquet"],
    }
    for name in ("fit", command) if command == "apply" else (command,):
        last = subprocess.run(
            [sys.executable, "-c", PANDAS_IN_THE_WAY, name, *files[name], "--force"][
                : None if name != "evaluate" else -1
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "pandas" not in last.stderr
        if name == "fit":
            next(tmp_path.glob("*.json")).rename(tmp_path / "params.json")
