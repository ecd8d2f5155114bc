"""What queries are, and what is refused; databases run them in `integrations`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from test_export import HOSTILE, params_of

import calibcli
from calibcli.calibrators.groups import Groups
from calibcli.calibrators.temperature import Temperature
from calibcli.cli.app import run as run_calib
from calibcli.errors import UsageError
from calibcli.export.recording import RecordedCalibrator, record
from calibcli.export.sql_dialects import DIALECTS
from calibcli.export.sql_query import SqlQuery, sql_source

each_dialect = pytest.mark.parametrize("dialect", DIALECTS)


def program(classes: int, **more: object) -> RecordedCalibrator:
    return record(params_of(classes, Temperature(2.0), **more), (Temperature(2.0),))


@each_dialect
def test_each_level_has_what_the_next_ones_need(dialect):
    text = sql_source(program(3), SqlQuery(dialect))
    levels = re.findall(r"AS \(\nSELECT\n(.*?)\nFROM (.*?)(?: OFFSET 0)?\)", text, re.DOTALL)
    assert len(levels) > 5
    known: set[str] = set()
    for columns, _ in levels:
        expressions = re.sub(r" AS \w+", "", columns)
        assert set(re.findall(r"\bc\d+\b", expressions)) <= known
        kept = columns.splitlines()[0].split(",")[1:]
        known = {*map(str.strip, kept), *re.findall(r" AS (c\d+)", columns)} - {""}
    assert set(re.findall(r"\bc\d+\b", text.rpartition("\nSELECT")[2])) <= known
    assert all(len(line) < 1000 for line in text.splitlines())


@each_dialect
def test_names_are_quoted_whatever_is_in_them(dialect):
    marks = {"duckdb": '"', "postgres": '"', "spark": "`", "bigquery": "`"}
    mark = marks[dialect]
    names = ("a b", "-- c", "é") if dialect == "bigquery" else ("a'\"`;", "-- c\n", "\\é")
    text = sql_source(program(3), SqlQuery(dialect, table="x.y", columns=names))
    for name in names:
        assert f".{mark}{name.replace(mark, mark * 2)}{mark} AS" in text
    assert f"FROM {mark}x{mark}.{mark}y{mark} AS calib_rows" in text


@each_dialect
def test_names_of_groups_are_texts(dialect):
    known = [name for name in HOSTILE if "\0" not in name]
    stage = Groups(
        "site", tuple(known), (), ((Temperature(0.5),),) * len(known), np.ones(len(known))
    )
    text = sql_source(record(params_of(2, stage), (stage,)), SqlQuery(dialect))
    (line,) = [line for line in text.split("\n\n") if "CASE calib_rows" in line]
    case = line.partition("CASE calib_rows")[2].partition("ELSE")[0]
    if dialect == "duckdb":
        assert all(f"WHEN '{name.replace(chr(39), chr(39) * 2)}' THEN" in case for name in known)
    else:
        assert re.fullmatch(r"\S+( WHEN E?'[\w \\]*' THEN \d+)+ ", case)
        assert case.isascii()


@pytest.mark.parametrize(
    ("dialect", "query", "line"),
    [
        ("postgres", {"array": "x" * 64}, "PostgreSQL has no name of more than 63 bytes"),
        ("postgres", {"array": "\0"}, "PostgreSQL has no text with a NUL, such as"),
        ("duckdb", {"array": "\0"}, "DuckDB has no text with a NUL, such as"),
        ("spark", {"array": "${x}"}, r"Spark SQL has no name with '\$\{'"),
        ("bigquery", {"table": "a`b"}, "BigQuery has no column of the name 'a`b'"),
        ("bigquery", {"columns": ("a", "b", "c.d")}, "BigQuery has no column of the name 'c.d'"),
        ("duckdb", {"columns": ("a", "b")}, "--columns names 2 columns, the calibrator has 3"),
        ("duckdb", {"columns": ("a",)}, "--columns names 1 columns, the calibrator has 3"),
    ],
)
def test_names_that_a_dialect_does_not_have_are_refused(dialect, query, line):
    with pytest.raises(UsageError, match=line):
        sql_source(program(3), SqlQuery(dialect, **query))


def test_many_classes_are_refused():
    with pytest.raises(
        UsageError, match="has columns for each class: 33 are too many, 32 are possi"
    ):
        sql_source(program(33), SqlQuery("duckdb"))


@pytest.fixture
def params_file(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    calibcli.fit([[3, 0], [0, 3]] * 9, [0, 1, 1] * 6, folds=0).save("p.json")
    return "p.json"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-o", "x.sql"], "SQL needs a --dialect: one of duckdb, postgres, spark, bigquery"),
        (["-o", "x.sql", "--table", "t"], "SQL needs a --dialect: one of duckdb"),
        (["-o", "x.sql", "--dialect", "ansi"], "one of duckdb, .* bigquery, not 'ansi'"),
        (
            ["-o", "x.py", "--dialect", "duckdb"],
            "--dialect, --table, --columns and --array go with",
        ),
        (
            ["-o", "x.sql", "--dialect", "duckdb", "--array", "a", "--columns", "b,c"],
            "the scores are an array or columns; give one of --array and --columns",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(params_file, arguments, line, capfd):
    assert run_calib(["export", params_file, *arguments]) == 2
    error = capfd.readouterr().err
    assert re.search(line, error)
    assert error.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["p.json"]


def test_what_the_package_writes_is_what_the_command_writes(params_file):
    options = ["--dialect", "postgres", "--columns", "a, b", "--table", "t"]
    assert run_calib(["export", params_file, "-o", "x.sql", "-q", *options]) == 0
    fitted = calibcli.load(params_file)
    fitted.export("y.sql", dialect="postgres", columns=("a", "b"), table="t")
    assert Path("x.sql").read_bytes() == Path("y.sql").read_bytes()
