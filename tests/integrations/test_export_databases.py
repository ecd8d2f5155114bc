"""Queries of calibrators, as DuckDB, PostgreSQL and Spark run them, against the calibrators."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from every_stage import calibrators_of_every_kind

import calibcli
from calibcli.arrays import softmax
from calibcli.calibrators.base import GROUP, Calibrator
from calibcli.calibrators.chain import calibrate, for_rows
from calibcli.calibrators.groups import Groups
from calibcli.calibrators.links import link_of
from calibcli.calibrators.temperature import Temperature
from calibcli.export.recording import RecordedCalibrator, Vectors, make_vectors, read_scores, record
from calibcli.export.sql_dialects import DIALECTS
from calibcli.export.sql_query import SqlQuery, sql_source
from calibcli.objectives.registry import OBJECTIVES
from calibcli.params import Params, Stage

LINKS = [link for each in OBJECTIVES.values() if (link := link_of(each())) is not None]
HOSTILE = (
    '"; DROP TABLE scores; --',
    "'); DROP TABLE scores; --",
    "`; DROP TABLE scores; --",
    "*/ /* \\",
    "\\'\\\"",
    "$$ ${0} {0} %s",
    "\n-- \u2028\t",
    "ünïcödé 猫 🐈",
)

Rows = list[dict[str, Any]]
Table = dict[str, tuple[str, list[Any]]]
"""Columns of a table: what they hold (``real``, ``array`` or ``text``), and their values."""


def params_of(classes: int, *stages: Calibrator, **more: Any) -> Params:
    described = tuple(Stage(stage.kind, stage.parameters()) for stage in stages)
    return Params(**{"classes": classes, "input": "logits", "stages": described, **more})


def table_of(program: RecordedCalibrator, vectors: Vectors, query: SqlQuery) -> Table:
    """The vectors as a table, with the numbers of the rows."""
    scores = vectors.scores
    table: Table = {"row": ("real", list(range(len(scores))))}
    if query.columns is None:
        name = query.array or program.params.input.replace("-", "_")
        table[name] = ("array", scores.tolist())
    else:
        shown = scores[:, -len(query.columns) :]
        values = zip(query.columns, shown.T.tolist(), strict=True)
        table |= {name: ("real", column) for name, column in values}
    if vectors.groups is not None:
        names = (*program.groups, "another")
        table[str(program.group_column)] = ("text", [names[k] for k in vectors.groups])
    return table


def run_duckdb(sql: str, table: Table, name: str) -> Rows:
    rows = pa.table({column: values for column, (_, values) in table.items()})
    with duckdb.connect() as connection:
        connection.register("given", rows)
        connection.execute(f"CREATE TABLE {DIALECTS['duckdb'].table(name)} AS FROM given")
        columns = (result := connection.execute(sql)).description
        return [dict(zip([c[0] for c in columns], row, strict=True)) for row in result.fetchall()]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The folder of the socket of a PostgreSQL server that is run for these tests."""
    found = shutil.which("initdb") or max(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None
    )
    if found is None or shutil.which("psql") is None:
        pytest.skip("no PostgreSQL is here")
    programs = Path(found).resolve().parent
    # Sockets have short names, and the server does not run as root.
    folder = Path(f"/tmp/calib-postgres-{os.getpid()}")  # noqa: S108
    folder.mkdir(mode=0o700)
    as_user: dict[str, Any] = {}
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
        as_user = {"user": "postgres", "cwd": "/"}
    run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL, **as_user)
    data = str(folder / "data")
    run([programs / "initdb", "-D", data, "-A", "trust", "-U", "calib", "-E", "UTF8"])
    options = f"-k {folder} -c listen_addresses='' -F"
    control = [programs / "pg_ctl", "-D", data, "-w", "-o", options, "-l", f"{data}/log"]
    run([*control, "start"])
    try:
        yield str(folder)
    finally:
        run([*control, "-m", "immediate", "stop"])
        shutil.rmtree(folder)


def plain(value: Any) -> Any:
    """What JSON can say: infinities and NaN as texts."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def run_postgres(sql: str, table: Table, name: str, server: str) -> Rows:
    dialect = DIALECTS["postgres"]
    types = {"real": "float8", "array": "float8[]", "text": "text"}
    listed = ", ".join(
        f"{dialect.name(column)} {types[kind]}" for column, (kind, _) in table.items()
    )
    columns = [values for _, values in table.values()]
    rows = [dict(zip(table, row, strict=True)) for row in zip(*columns, strict=True)]
    content = json.dumps(plain(rows))
    given = f"json_to_recordset({dialect.text(content)}) AS given({listed})"
    table_name = dialect.table(name)
    script = f"CREATE TEMP TABLE {table_name} AS SELECT * FROM {given};\n"  # noqa: S608
    script += f"SELECT row_to_json(calibrated) FROM ({sql}) AS calibrated;\n"  # noqa: S608
    command = [
        "psql",
        "-h",
        server,
        "-U",
        "calib",
        "-d",
        "postgres",
        "-qAtX",
        "-v",
        "ON_ERROR_STOP=1",
    ]
    done = subprocess.run(command, input=script, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def run_spark(sql: str, table: Table, name: str, spark: Any) -> Rows:
    types = {"real": "double", "array": "array<double>", "text": "string"}
    quoted = DIALECTS["spark"].name
    schema = ", ".join(f"{quoted(column)} {types[kind]}" for column, (kind, _) in table.items())
    columns = [values for _, values in table.values()]
    rows = [
        [float(v) if isinstance(v, int) else v for v in row] for row in zip(*columns, strict=True)
    ]
    spark.createDataFrame(rows, schema).createOrReplaceTempView(quoted(name))
    return [row.asDict() for row in spark.sql(sql).collect()]


@pytest.fixture(params=["duckdb", "postgres"])
def database(request: pytest.FixtureRequest) -> tuple[str, Callable[[str, Table, str], Rows]]:
    """A dialect, and what runs a query of it on a table."""
    if request.param == "duckdb":
        return "duckdb", run_duckdb
    server = request.getfixturevalue("server")
    return "postgres", lambda *given: run_postgres(*given, server)


def check(database: Any, params: Params, *stages: Calibrator, **query: Any) -> None:
    dialect, run = database
    program, vectors = record(params, stages), make_vectors(params, stages)
    asked = SqlQuery(dialect, **query)
    rows = run(sql_source(program, asked), table_of(program, vectors, asked), asked.table)
    rows.sort(key=lambda row: row["row"])
    outputs = [f"prob_{name}" for name in program.class_names]
    probs = [row["probs"] if asked.columns is None else [row[k] for k in outputs] for row in rows]
    expected = vectors.probs
    if asked.columns is not None and len(asked.columns) == 1:
        keyed = stages if vectors.groups is None else for_rows(stages, {GROUP: vectors.groups})
        with np.errstate(divide="ignore"):
            expected = softmax(calibrate(keyed, read_scores(params, vectors.scores[:, 1:])))
    np.testing.assert_allclose(np.array(probs, float), expected, rtol=0, atol=1e-12)
    assert [row["prediction"] for row in rows] == np.argmax(probs, axis=1).tolist()
    assert [row["confidence"] for row in rows] == np.max(probs, axis=1).tolist()


EVERY = [
    pytest.param(classes, stage, id=f"{stage.kind}-{getattr(stage, 'loss', '')}-{classes}")
    for classes, stages in (
        (2, calibrators_of_every_kind(2)),
        (3, [*calibrators_of_every_kind(3)[6:], *LINKS[:-1]]),
    )
    for stage in stages
]


@pytest.mark.parametrize(("classes", "stage"), EVERY)
def test_every_stage_in_duckdb(classes, stage):
    check(("duckdb", run_duckdb), params_of(classes, stage), stage)


@pytest.mark.parametrize(("classes", "stage"), EVERY)
def test_every_stage_in_postgres(classes, stage, server):
    run = lambda *given: run_postgres(*given, server)  # noqa: E731
    check(("postgres", run), params_of(classes, stage), stage)


@pytest.mark.filterwarnings("ignore:PySpark does not yet")
def test_spark(spark):
    # It plans a query for seconds.
    database = ("spark", lambda *given: run_spark(*given, spark))
    (stage,) = [each for each in calibrators_of_every_kind(2) if each.kind == "one-vs-rest"]
    check(database, params_of(2, stage), stage)
    names = ("`; DROP TABLE scores; --", "*/ \n -- '")
    own = ((Temperature(0.5),),) * len(HOSTILE)
    groups = Groups(names[0], HOSTILE, (), own, np.full(len(HOSTILE), 0.5))
    check(database, params_of(2, groups, class_names=names), groups, columns=names[1:])


@pytest.mark.parametrize("kind", ["logits", "log-probs", "probs"])
def test_columns(database, kind):
    stage = Temperature(1.5)
    check(database, params_of(3, stage, input=kind), stage, columns=("a", "b", "c"))
    check(database, params_of(2, stage, input=kind), stage, columns=("of class 1",))


def test_per_cent_and_rows_that_are_divided_by_their_sum(database):
    for reading in ({"input": "percent"}, {"input": "percent", "renormalise": True}):
        params = params_of(2, Temperature(1.5), input="probs", reading=reading)
        check(database, params, Temperature(1.5), columns=("a", "b"))
    params = params_of(2, Temperature(1.5), input="probs", reading={"input": "percent"})
    check(database, params, Temperature(1.5), columns=("of class 1",))


def test_ten_classes(database):
    (stage,) = [each for each in calibrators_of_every_kind(10) if each.kind == "one-vs-rest"]
    check(database, params_of(10, stage, Temperature(2.0)), stage, Temperature(2.0))


def test_names_are_names_and_nothing_else(database):
    own = ((Temperature(0.5),),) * len(HOSTILE)
    stage = Groups(HOSTILE[0], HOSTILE, (Temperature(2.0),), own, np.full(len(HOSTILE), 0.5))
    params = params_of(len(HOSTILE), stage, class_names=HOSTILE)
    columns = tuple(f"{name}{place}" for place, name in enumerate(HOSTILE))
    check(database, params, stage, columns=columns, table=HOSTILE[1].replace(".", ""))
    check(database, params, stage, array=HOSTILE[3])


def test_a_row_without_probabilities_has_nulls(database):
    dialect, run = database
    nan, inf = float("nan"), float("inf")
    for kind, scores in {
        "logits": [[0.0, 1.0], [nan, 0.0], [inf, 0.0], [-inf, -inf], [None, 0.0]],
        "log-probs": [[-0.7, -0.7], [nan, 0.0], [0.5, 0.0], [-inf, -inf], [None, 0.0]],
        "probs": [[0.5, 0.5], [nan, 0.5], [1.5, 0.5], [-0.5, 1.0], [None, 0.5]],
    }.items():
        (stage,) = [each for each in calibrators_of_every_kind(2) if each.kind == "one-vs-rest"]
        program = record(params_of(2, stage, input=kind), (stage,))
        table: Table = {"row": ("real", list(range(5)))}
        table |= {
            name: ("real", list(each))
            for name, each in zip("ab", zip(*scores, strict=True), strict=True)
        }
        sql = sql_source(program, SqlQuery(dialect, columns=("a", "b")))
        rows = sorted(run(sql, table, "scores"), key=lambda row: row["row"])
        outputs = ("prob_0", "prob_1", "prediction", "confidence")
        assert [[row[name] is None for name in outputs] for row in rows] == [
            [k > 0] * 4 for k in range(5)
        ]


def test_a_query_over_a_query():
    stage = Temperature(2.0)
    sql = sql_source(record(params_of(2, stage), (stage,)), SqlQuery("duckdb", columns=("z",)))
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE scores AS SELECT 2.0::FLOAT AS z, 'x' AS note")
        connection.execute(f"CREATE VIEW calibrated AS {sql}")
        row = connection.execute("SELECT note, prob_1 FROM calibrated").fetchall()
    assert row == [("x", pytest.approx(softmax(np.array([[0.0, 1.0]]))[0, 1]))]


def test_the_query_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).parents[2]
    data = str(root / "sample_data" / "digits_test.parquet")
    fitted = calibcli.fit(
        *(np.array(pq.read_table(data)[name].to_pylist()) for name in ("logits", "label"))
    )
    fitted.export("digits.sql", dialect="duckdb")
    logits = pq.read_table(data)["logits"][:20]
    pq.write_table(pa.table({"id": list(range(20)), "logits": logits}), "scores.parquet")
    page = (root / "docs" / "deploying.md").read_text(encoding="utf-8").partition("## SQL")[2]
    exec(page.partition("```python not-run\n")[2].partition("```")[0])  # noqa: S102
    rows = duckdb.sql("SELECT prediction, confidence FROM calibrated ORDER BY id").fetchall()
    probs = fitted.predict_proba(np.array(logits.to_pylist(), float))
    assert [row[0] for row in rows] == probs.argmax(axis=1).tolist()
    assert [row[1] for row in rows] == pytest.approx(probs.max(axis=1))
