"""Standard input: files that are spooled, and streams that are not."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from table_files import (
    LAYOUTS,
    fixed_size_list,
    gather,
    make_labels,
    make_scores,
    opened,
    same_bits,
    write_ipc,
)

from calibcli.errors import DataError

SCORES, LABELS = make_scores(), make_labels()


@pytest.mark.parametrize("name", LAYOUTS)
def test_standard_input_is_read_as_often_as_needed(tmp_path, name):
    content = Path(LAYOUTS[name](tmp_path / "a", SCORES, LABELS)).read_bytes()
    with opened("-", stdin=io.BytesIO(content)) as dataset:
        assert same_bits(gather(dataset, 7)[0], SCORES)
        assert same_bits(gather(dataset)[0], SCORES)
        assert (dataset.name, dataset.files) == ("stdin", ["-"])
        assert dataset.fingerprints() == [
            {"path": "-", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        ]
        spooled = Path(dataset._spool._folder.name)
        assert spooled.is_dir()
    assert not spooled.exists()


def test_a_stream_is_read_once_as_it_comes(tmp_path):
    content = Path(write_ipc(tmp_path / "a", SCORES, LABELS, stream=True, rows=30)).read_bytes()
    with opened("-", stdin=io.BytesIO(content), single_pass=True, labels_required=False) as dataset:
        assert (dataset.rows, dataset.fingerprints()) == (-1, [])
        assert dataset._spool._folder is None
        scores, labels, _, columns = gather(dataset, 13, with_columns=True)
        assert same_bits(scores, SCORES)
        assert same_bits(labels, LABELS)
        assert columns.num_columns == 0
        with pytest.raises(DataError, match="standard input: a stream can be read only once"):
            gather(dataset)


def test_a_stream_need_not_have_ended():
    code = (
        "from calibcli.tables import *\n"
        "options = ReadOptions(single_pass=True, labels_required=False)\n"
        "for chunk in open_dataset(['-'], options).chunks(1000):\n"
        "    print(len(chunk), flush=True)\n"
    )
    content = pa.table({"logits": fixed_size_list(SCORES)})
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    ) as process:
        writer = pa.ipc.new_stream(process.stdin, content.schema)
        writer.write_table(content)
        writer.write_table(content)
        process.stdin.flush()
        assert process.stdout.readline() == b"100\n"
        writer.close()
        process.stdin.close()
        assert process.stdout.read() == b"100\n"
    assert process.returncode == 0
