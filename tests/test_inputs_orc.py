"""ORC: stripes, types, keys of folders, the whole way; and files that are damaged."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import orc
from table_files import calibrated_file, gather, opened

from calibcli.cli.app import run
from calibcli.errors import CalibError

RNG = np.random.default_rng(8)
ROWS, CLASSES = 5000, 4
LOGITS = RNG.normal(size=(ROWS, CLASSES)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, ROWS)
NAMES = ("ant", "bee", "cat", "dog")
TEXTS = [NAMES[k] for k in LABELS]


def written(path: Path, **how: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "logits": pa.array(LOGITS.tolist(), pa.list_(pa.float32())),
        "label": LABELS,
        "id": np.arange(ROWS),
        "lang": TEXTS,
        "price": pa.array([Decimal(k % 7) for k in range(ROWS)], pa.decimal128(8, 2)),
    }
    orc.write_table(pa.table(columns), path, **how)
    return path


@pytest.mark.parametrize("packed", ["uncompressed", "zlib", "snappy", "zstd", "lz4"])
def test_stripes_are_read_in_turn(tmp_path, packed):
    path = written(tmp_path / "rows.orc", compression=packed, stripe_size=20_000)
    stripes = orc.ORCFile(path).nstripes
    assert stripes > 2 or packed != "uncompressed"
    with opened(path) as dataset:
        scores, labels, _ = gather(dataset, 700)
        assert dataset.format == "orc"
        (part,) = dataset.cut(dataset.rows)
        assert len(part.parts[0].file.splits(dataset.rows)) == stripes
    assert np.array_equal(scores, LOGITS)
    assert np.array_equal(labels, LABELS)
    with opened(path, labels="lang", classes=NAMES) as dataset:
        assert np.array_equal(gather(dataset, 700)[1], LABELS)


def test_other_columns_and_keys_ride_along(tmp_path):
    written(tmp_path / "rows/day=3/part.orc")
    calibrated_file(tmp_path / "rows", tmp_path / "o.parquet")
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "o.parquet")
    assert table["id"].to_pylist() == list(range(ROWS))
    assert table["lang"].to_pylist() == TEXTS
    assert set(table["day"].to_pylist()) == {3}
    assert table["price"][3].as_py() == Decimal(3)


def test_the_whole_way(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(Path("rows.orc"))
    assert run(["fit", "rows.orc", "-m", "temperature", "-p", "p.json", "-q"]) == 0
    assert run(["apply", "p.json", "rows.orc", "-o", "o.parquet", "-q"]) == 0
    assert run(["convert", "rows.orc", "-o", "rows.parquet", "-q"]) == 0
    capsys.readouterr()
    assert run(["inspect", "rows.orc"]) == 0
    assert "calib evaluate rows.orc" in capsys.readouterr().out


def test_rows_beyond_measure_are_refused(tmp_path):
    """Equal numbers take no place in a file, but all of it in memory."""
    rows = 3 << 20
    orc.write_table(
        pa.table({"probs": pa.array([0.5] * rows), "label": [1] * rows}), tmp_path / "r.orc"
    )
    with (
        pytest.raises(CalibError, match="--spool-limit"),
        opened(tmp_path / "r.orc", spool_limit=1 << 20),
    ):
        pass


def test_changed_bytes_are_refused_or_read(tmp_path):
    whole = written(tmp_path / "rows.orc", compression="zlib").read_bytes()
    said = []
    for number in range(200):
        rng = np.random.default_rng(number)
        content = bytearray(whole)
        begin = 0 if number % 2 else len(content) - 600
        content[int(rng.integers(begin, len(content)))] = int(rng.integers(256))
        (tmp_path / "hurt.orc").write_bytes(content[: len(content) - number % 3])
        try:
            with opened(tmp_path / "hurt.orc") as dataset:
                gather(dataset)
        except CalibError as error:
            said.append(str(error))
    assert len(said) > 50
    assert not any("\n" in each for each in said)
