"""CSV, TSV and JSON: the same figures as the same rows in Parquet, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calibcli.cli.app import run
from calibcli.errors import CalibError, DataError
from calibcli.tables import ReadOptions, open_dataset
from calibcli.tables.formats import delimited, json_lines

RNG = np.random.default_rng(5)
PROBS = RNG.dirichlet(np.ones(3), 200)
NAMES = ("cat", "dog", "fish")
LABELS = [NAMES[k] for k in RNG.integers(0, 3, 200)]
COLUMNS = {f"prob_{name}": PROBS[:, k].tolist() for k, name in enumerate(NAMES)}
TABLE = {**COLUMNS, "label": LABELS, "note": [f"é, {row}" for row in range(200)]}


def delimiting(columns: dict[str, list[Any]], delimiter: str = ",", end: str = "\n") -> bytes:
    """CSV of columns; every text in quotes."""

    def cell(value: object) -> str:
        if value is None:
            return ""
        return f'"{value}"' if isinstance(value, str) else repr(value)

    lines = [
        delimiter.join(columns),
        *(delimiter.join(map(cell, row)) for row in zip(*columns.values(), strict=True)),
    ]
    return (end.join(lines) + end).encode()


def objects(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def json_lined(columns: dict[str, list[Any]], end: str = "\n") -> bytes:
    return "".join(json.dumps(row) + end for row in objects(columns)).encode()


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


def figures(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The metrics that ``calib evaluate`` prints, without the name of the file."""
    assert run(["evaluate", str(path), "--format", "csv", "--bootstrap", "0", "-q", *options]) == 0
    return capsys.readouterr().out.replace(path.name, "")


def read(path: Path, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    with open_dataset([str(path)], ReadOptions(**options)) as dataset:
        chunks = list(dataset.chunks(64))
    return (
        np.concatenate([chunk.scores for chunk in chunks]),
        np.concatenate([chunk.labels for chunk in chunks]),
    )


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


KINDS: dict[str, Callable[[dict[str, list[Any]]], bytes]] = {
    "rows.csv": delimiting,
    "crlf.csv": lambda columns: delimiting(columns, end="\r\n"),
    "bom.csv": lambda columns: b"\xef\xbb\xbf" + delimiting(columns),
    "semicolon.csv": lambda columns: delimiting(columns, ";"),
    "rows.tsv": lambda columns: delimiting(columns, "\t"),
    "pipes.txt": lambda columns: delimiting(columns, "|"),
    "rows.csv.gz": lambda columns: gzip.compress(delimiting(columns)),
    "rows.csv.zst": lambda columns: zstd(delimiting(columns)),
    "rows.jsonl": json_lined,
    "crlf.jsonl": lambda columns: json_lined(columns, "\r\n"),
    "bom.jsonl": lambda columns: b"\xef\xbb\xbf" + json_lined(columns),
    "rows.jsonl.gz": lambda columns: gzip.compress(json_lined(columns)),
    "rows.jsonl.zst": lambda columns: zstd(json_lined(columns)),
    "list.json": lambda columns: json.dumps(objects(columns)).encode(),
    "pretty.json": lambda columns: json.dumps(objects(columns), indent=1).encode(),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("block", [200, 1 << 22])
def test_text_has_the_figures_of_parquet(tmp_path, capsys, monkeypatch, name, block) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", block)
    monkeypatch.setattr(json_lines, "BLOCK_BYTES", block)
    pq.write_table(pa.table(TABLE), tmp_path / "rows.parquet")
    expected = figures(tmp_path / "rows.parquet", capsys)
    path = write(tmp_path / name, KINDS[name](TABLE))
    assert figures(path, capsys) == expected
    truth = np.array([NAMES.index(label) for label in LABELS])
    nll = -np.log(PROBS[np.arange(200), truth]).mean()
    line = next(line for line in expected.splitlines() if ",nll," in line)
    assert float(line.split(",")[3]) == pytest.approx(nll, rel=1e-9)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.csv.gz"])
def test_standard_input_is_read(tmp_path, capsys, name) -> None:
    content = KINDS[name](TABLE)
    expected = figures(write(tmp_path / name, content), capsys)
    command = [sys.executable, "-m", "calibcli", "evaluate", "-", "--format", "csv", "-q"]
    ended = subprocess.run(
        [*command, "--bootstrap", "0"], input=content, capture_output=True, check=True
    )
    assert ended.stdout.decode().replace("stdin", "") == expected


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl.gz"])
def test_the_hash_is_that_of_the_file_as_it_was_given(tmp_path, name) -> None:
    content = KINDS[name](TABLE)
    path = write(tmp_path / name, content)
    with open_dataset([str(path)], ReadOptions()) as dataset:
        (mark,) = dataset.fingerprints()
    assert mark["sha256"] == hashlib.sha256(content).hexdigest()
    assert mark["bytes"] == len(content)


def test_output_carries_the_columns_of_text(tmp_path) -> None:
    path = write(tmp_path / "rows.csv", delimiting(TABLE))
    params, out = tmp_path / "p.json", tmp_path / "out.parquet"
    fit = [
        "fit",
        str(path),
        "-m",
        "temperature",
        "-p",
        str(params),
        "-o",
        str(out),
        "--force",
        "-q",
    ]
    assert run(fit) == 0
    assert run(["apply", str(params), str(path), "-o", str(out), "--force", "-q"]) == 0
    assert pq.read_table(out)["note"].to_pylist() == TABLE["note"]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_numbers_come_back_as_they_were(tmp_path, data) -> None:
    width = data.draw(st.integers(2, 4))
    number = st.floats(-1e9, 1e9, allow_nan=False) | st.integers(-(10**9), 10**9)
    rows = data.draw(st.lists(st.lists(number, min_size=width, max_size=width), min_size=1))
    labels = data.draw(st.lists(st.integers(0, width - 1), min_size=len(rows), max_size=len(rows)))
    columns: dict[str, list[Any]] = {f"logit_{k}": [row[k] for row in rows] for k in range(width)}
    columns["label"] = labels
    # One column of whole numbers in all rows is no logits by itself, so one is not whole.
    columns["logit_0"] = [0.5, *columns["logit_0"][1:]]
    for k in range(1, width):
        columns[f"logit_{k}"] = [float(value) for value in columns[f"logit_{k}"]]
    expected = np.array([columns[f"logit_{k}"] for k in range(width)]).T
    for name, content in (("a.csv", delimiting(columns)), ("a.jsonl", json_lined(columns))):
        scores, truth = read(write(tmp_path / name, content), input="logits")
        np.testing.assert_array_equal(scores, expected)
        assert truth.tolist() == labels


# Types hold for the whole file


@pytest.mark.parametrize("form", [delimiting, json_lined])
def test_a_column_that_begins_with_whole_numbers_is_one_of_fractions(
    tmp_path, monkeypatch, form
) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 256)
    monkeypatch.setattr(json_lines, "BLOCK_BYTES", 256)
    first = [*range(300), 0.25]
    columns = {"logit_0": first, "logit_1": [1.5] * 301, "label": [0, 1] * 150 + [0]}
    scores, _ = read(write(tmp_path / "t", form(columns)), input="logits")
    np.testing.assert_array_equal(scores[:, 0], first)


def test_a_text_behind_numbers_is_said(tmp_path) -> None:
    columns = {**COLUMNS, "label": LABELS}
    columns["prob_dog"] = [*columns["prob_dog"][:120], "oops", *columns["prob_dog"][121:]]
    path = write(tmp_path / "rows.csv", delimiting(columns))
    with pytest.raises(DataError, match=r"prob_dog.*'oops' in row 120"):
        read(path, logits="prob_*")


def test_codes_and_names_stay_texts(tmp_path) -> None:
    text = "prob_a,prob_b,label,code,place,yes\n.5,.5,a,007,NA,true\n.25,.75,b,08,US,FALSE\n"
    with open_dataset([str(write(tmp_path / "t.csv", text))], ReadOptions()) as dataset:
        (chunk,) = dataset.chunks(10, with_columns=True)
    assert chunk.columns.to_pydict() == {
        "code": ["007", "08"],
        "place": ["NA", "US"],
        "yes": [True, False],
    }


@pytest.mark.parametrize("form", [delimiting, json_lined])
def test_whole_numbers_beyond_64_bits_keep_their_digits(tmp_path, monkeypatch, form) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 256)
    monkeypatch.setattr(json_lines, "BLOCK_BYTES", 256)
    columns = {"logit_0": [0.25] * 300, "logit_1": [1.5] * 300, "label": [0, 1] * 150}
    columns["id"] = [*range(298), 2**64 + 1, 2**64 + 2]
    columns["amount"] = [0.5, *range(298), 10**20]
    path = write(tmp_path / "t", form(columns))
    with open_dataset([str(path)], ReadOptions(keys={"by": "id"})) as dataset:
        (chunk,) = dataset.chunks(300, with_columns=True)
        assert len(dataset.key_names("by")) == 300
    assert chunk.columns.column("id").to_pylist() == list(map(str, columns["id"]))
    assert chunk.columns.column("amount").to_pylist() == list(map(float, columns["amount"]))


def test_missing_values_are_missing(tmp_path) -> None:
    text = "prob_a,prob_b,label\n.5,.5,0\n.5,NA,1\n"
    with pytest.raises(DataError, match="row 1: column 'prob_b' has no value here"):
        read(write(tmp_path / "t.csv", text))
    text = "prob_a,prob_b,label,n\n.5,.5,0,1\n.5,.5,,\n"
    with pytest.raises(DataError, match="row 1: the label is missing"):
        read(write(tmp_path / "t.csv", text))
    text = '{"logits": [1.5, 0], "label": 0}\n{"logits": [1.5, null], "label": 0}\n'
    with pytest.raises(DataError, match="row 1"):
        read(write(tmp_path / "t.jsonl", text))


def test_line_ends_within_quotes_are_text(tmp_path) -> None:
    text = '"the\nnote",prob_a,prob_b,label\r\n"x,\r\ny",.5,.5,a\r\n"say ""z""",.25,.75,b\r\n'
    with open_dataset([str(write(tmp_path / "t.csv", text))], ReadOptions()) as dataset:
        (chunk,) = dataset.chunks(10, with_columns=True)
    assert chunk.columns.to_pydict() == {"the\nnote": ["x,\r\ny", 'say "z"']}


def test_an_empty_line_of_a_single_column_is_a_missing_value(tmp_path) -> None:
    write(tmp_path / "y.csv", "prob\n.5\n\n.75\n")
    with pytest.raises(DataError, match="row 1: column 'prob' has no value"):
        read(tmp_path / "y.csv", logits="prob", labels_required=False)


def test_an_index_without_a_name_rides_along(tmp_path) -> None:
    text = ",prob_a,prob_b,label\n0,.5,.5,a\n1,.25,.75,b\n"
    with open_dataset([str(write(tmp_path / "t.csv", text))], ReadOptions()) as dataset:
        assert dataset.other_columns == ("unnamed_0",)


# What is refused


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0.1,0.9,1\n0.3,0.7,0\n", r"no.* names of columns.*sed -i '1i logit_0,logit_1,label'"),
        ("0.1 0.9\n0.3 0.7\n", r"numpy.loadtxt\('t.csv', delimiter=None\)"),
        ("0.1,0.9,cat\n0.3,0.7,dog\n", "names of columns"),
        ("prob_a;prob_b;label\n0,5;0,5;a\n", r"a comma.*decimal=','\).to_parquet"),
        ("p,p,label\n.5,.5,a\n", "column 'p' is there twice"),
        ("prob_a,prob_b,label\n.5,.5,a\n.5,a\n", "row 1: has 2 values, but the header has 3"),
        ("prob_a,prob_b,label\n.5,.5,a\n.5,.5,a,b\n", "row 1: has 4 values"),
        ("a;b,c;d\n1;2,3;4\n", "may both be the delimiter"),
        ('{"a": 1}\n{"a": }\n', "row 1: is no JSON object"),
        ('{"a": 1}\n[2]\n', "row 1: is no JSON object"),
        ('{"a": "x", "a": 2}\n', "row 0: .*twice"),
        ("[1, 2]", "no list of JSON objects"),
        ('[{"a": 1}, {"a": 2}', "no list of JSON objects with an end"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "nested more than 64"),
        ('{"a": "]]]]]]' + "]" * 200 + '", "b": ' + "[" * 200 + "]" * 200 + "}\n", "nested"),
        ('{"a": "\n{"b": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "nested|no JSON object"),
    ],
)
def test_what_cannot_be_a_table_is_refused_in_a_line(tmp_path, monkeypatch, text, says) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("t.csv"), text)
    with pytest.raises(CalibError, match=says) as caught:
        read(Path("t.csv"))
    assert "\n" not in str(caught.value)


def test_other_encodings_are_refused_with_the_command(tmp_path) -> None:
    text = "prob_a,prob_b,label\n.5,.5,é\n"
    for encoding, named in (("cp1252", "WINDOWS-1252"), ("utf-16", "UTF-16")):
        write(tmp_path / "t.csv", text.encode(encoding))
        with pytest.raises(DataError, match=f"iconv -f {named} -t UTF-8"):
            read(tmp_path / "t.csv")
    write(tmp_path / "t.jsonl", b'{"a": "\xe9"}\n')
    with pytest.raises(DataError, match="iconv"):
        read(tmp_path / "t.jsonl")


def test_rows_have_their_numbers_over_blocks(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(json_lines, "BLOCK_BYTES", 64)
    lines = ['{"logits": [0.5, 1], "label": 0}'] * 50
    lines[30] = '{"logits": [0.5, "x]'
    with pytest.raises(DataError, match="row 30: is no JSON object"):
        read(write(tmp_path / "t.jsonl", "\n".join(lines)))


def test_texts_that_look_like_times_stay_texts(tmp_path) -> None:
    rows = [{"logits": [0.5, 1.0], "label": "2020-01-01"}, {"logits": [1.5, 1.0], "label": "no"}]
    path = write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))
    _, labels = read(path, classes=("2020-01-01", "no"))
    assert labels.tolist() == [0, 1]


def test_infinity_is_a_number_in_json(tmp_path) -> None:
    path = write(tmp_path / "t.jsonl", '{"logits": [0.5, -Infinity], "label": 0}\n')
    assert read(path)[0].tolist() == [[0.5, -np.inf]]


def test_fields_of_several_types_are_carried_as_json(tmp_path) -> None:
    rows = [
        {"logits": [0.5, 1.0], "label": 0, "doc": {"a": 1}, "x": 1},
        {"logits": [1.5, 1.0], "label": 1, "doc": "text", "y": [1, "2"]},
    ]
    path = write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))
    with open_dataset([str(path)], ReadOptions()) as dataset:
        (chunk,) = dataset.chunks(10, with_columns=True)
    assert chunk.columns["doc"].to_pylist() == ['{"a": 1}', '"text"']
    assert chunk.columns["y"].to_pylist() == [None, ["1", '"2"']]
    assert chunk.columns["x"].to_pylist() == [1, None]


# Limits


def test_what_grows_beyond_the_limit_is_refused(tmp_path) -> None:
    content = delimiting({name: values * 200 for name, values in TABLE.items()})
    path = write(tmp_path / "t.csv.gz", gzip.compress(content))
    with pytest.raises(DataError, match="--spool-limit"):
        read(path, spool_limit=len(content) // 2)
    path = write(tmp_path / "t.csv", content)
    with pytest.raises(DataError, match="--spool-limit"):
        read(path, spool_limit=1 << 20)


@pytest.mark.parametrize("nested", [False, True])
def test_rows_with_names_without_number_are_refused(tmp_path, nested) -> None:
    """Each row has names of its own, so that a table of them would be all but empty."""
    rows = ({"logits": [0.5, 1.0], "label": 0} for _ in range(4_000))
    lines = []
    for number, row in enumerate(rows):
        more = {f"{name}{number % 2000}": 1 for name in "abcdefghijklmnop"}
        if nested:
            # No object has very many names, but all of them together do.
            more = {f"g{number % 200}": {f"h{number // 200 % 20}": more}}
        lines.append(json.dumps({**row, **more}))
    with pytest.raises(DataError, match="name more than 30,000 different values"):
        read(write(tmp_path / "t.jsonl", "\n".join(lines)))


def test_rows_that_lack_most_names_grow_within_the_limit_alone(tmp_path) -> None:
    first = {"logits": [0.5, 1.0], "label": 0, **{f"x{place}": 1 for place in range(5_000)}}
    lines = [json.dumps(first), *['{"logits": [0, 1], "label": 1}'] * 30_000]
    path = write(tmp_path / "t.jsonl", "\n".join(lines))
    with pytest.raises(DataError, match="would become 1,2"):
        read(path)


def test_pieces_of_a_block_are_no_more_than_that(tmp_path, monkeypatch, capsys) -> None:
    rows = objects(TABLE)
    rows[90] |= {"extra": {"a": 1}}
    rows[120] |= {"extra": {"b": [1.5]}, "note": None}
    path = write(tmp_path / "t.jsonl", "\r\n\n".join(map(json.dumps, rows)))
    whole = figures(path, capsys)
    with open_dataset([str(path)], ReadOptions()) as dataset:
        columns = next(iter(dataset.chunks(200, with_columns=True))).columns
    monkeypatch.setattr(json_lines, "_PIECE_BYTES", 1)
    monkeypatch.setattr(json_lines, "_PIECE_CELLS", 60)
    assert figures(path, capsys) == whole
    with open_dataset([str(path)], ReadOptions()) as dataset:
        assert next(iter(dataset.chunks(200, with_columns=True))).columns.equals(columns)
    damaged = write(tmp_path / "u.jsonl", path.read_text().replace("\\u00e9, 150", "\x00"))
    with pytest.raises(DataError, match="row 150: is no JSON object"):
        read(damaged)


@pytest.mark.parametrize("cut", [10, 500, -4])
def test_damaged_compression_is_refused(tmp_path, cut) -> None:
    for name, packed in (("t.csv.gz", gzip.compress), ("t.csv.zst", zstd)):
        path = write(tmp_path / name, packed(delimiting(TABLE))[:cut])
        with pytest.raises(DataError):
            read(path)


def test_temporary_files_are_gone_at_the_end(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spool"))
    (tmp_path / "spool").mkdir()
    path = write(tmp_path / "t.csv.gz", gzip.compress(delimiting(TABLE)))
    with open_dataset([str(path)], ReadOptions()) as dataset:
        assert len(list((tmp_path / "spool").glob("*/*"))) == 1
        assert dataset.rows == 200
    assert not list((tmp_path / "spool").iterdir())


def test_a_folder_of_text_is_read_where_nothing_else_is(tmp_path) -> None:
    for name in ("a.csv", "b.csv"):
        write(tmp_path / name, delimiting(TABLE))
    assert len(read(tmp_path)[1]) == 400
    pq.write_table(pa.table(TABLE), tmp_path / "c.parquet")
    assert len(read(tmp_path)[1]) == 200


def test_a_workbook_and_an_archive_are_refused_with_the_command(tmp_path, monkeypatch) -> None:
    import zipfile

    monkeypatch.chdir(tmp_path)
    for name, inside, says in (
        ("x.xlsx", "xl/workbook.xml", r"""python -c "import pandas; pandas.read_excel\('x.xlsx'"""),
        ("x.zip", "val.csv", r"unzip -p x.zip val.csv \| calib evaluate -"),
    ):
        with zipfile.ZipFile(name, "w") as archive:
            archive.writestr(inside, "a,b\n1,2\n")
        with pytest.raises(DataError, match=says):
            read(Path(name))


def test_inspect_tells_rows_from_parameters(tmp_path, capsys) -> None:
    path = write(tmp_path / "rows.jsonl", json_lined(TABLE))
    assert run(["inspect", str(path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "json"


def test_a_row_may_be_longer_than_a_block(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 256)
    rows = {**TABLE, "note": ["x" * 3000] * 200}
    path = write(tmp_path / "rows.csv", delimiting(rows))
    np.testing.assert_array_equal(read(path)[0], PROBS)


def test_a_header_without_rows_says_so(tmp_path) -> None:
    for end in ("", "\n"):
        path = write(tmp_path / "rows.csv", "prob_a,prob_b,label" + end)
        with pytest.raises(CalibError, match="no rows below the header"):
            read(path, logits="prob_*")


def test_whole_numbers_are_scores_where_their_name_says_so(tmp_path) -> None:
    text = "prob_a,prob_b,label\n1,0,a\n0,1,b\n"
    assert read(write(tmp_path / "t.csv", text))[0].tolist() == [[1, 0], [0, 1]]
    lines = '{"logits": [1, -2], "label": 0}\n{"logits": [3, 0], "label": 1}\n'
    assert read(write(tmp_path / "t.jsonl", lines))[0].tolist() == [[1, -2], [3, 0]]
    lines = '{"scores": [1, 2], "label": 0}\n{"scores": [3, 0], "label": 1}\n'
    with pytest.raises(DataError, match="cannot be scores"):
        read(write(tmp_path / "t.jsonl", lines))
