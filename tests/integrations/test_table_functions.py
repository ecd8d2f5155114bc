"""Probabilities in tables of other libraries, as these compute them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import calibcli
from calibcli.frames import (
    arrow_batches,
    in_spark,
    polars_expression,
    register_in_duckdb,
    with_probabilities,
)

RNG = np.random.default_rng(1)
LOGITS = 3 * RNG.normal(size=(40, 3))
LABELS = (LOGITS / 2 + RNG.gumbel(size=LOGITS.shape)).argmax(axis=1)
SITES = np.where(RNG.random(40) < 0.5, "north", "south")
ODDS = LOGITS[:, 0].copy()

PLAIN = calibcli.fit(LOGITS, LABELS, folds=0)
NAMED = replace(PLAIN, params=replace(PLAIN.params, class_names=("cat", "dog", "eel")))
BINARY = calibcli.fit(ODDS, LABELS == 0, method="platt", folds=0)
GROUPED = calibcli.fit(LOGITS, LABELS, method="temperature", by=pd.Series(SITES, name="site"))
PROBS = PLAIN.predict_proba(LOGITS)

COLUMNS = {"a": LOGITS[:, 0], "b": LOGITS[:, 1], "c": LOGITS[:, 2], "site": SITES}
TABLES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "arrow": pa.table,
    "batch": pa.RecordBatch.from_pydict,
}
each_table = pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)


def columns_of(table: Any) -> dict[str, list[Any]]:
    if isinstance(table, pd.DataFrame):
        return {name: table[name].tolist() for name in table.columns}
    names = table.columns if isinstance(table, pl.DataFrame) else table.schema.names
    got = [table[name] for name in names]
    return {
        name: column.to_pylist() if hasattr(column, "to_pylist") else column.to_list()
        for name, column in zip(names, got, strict=True)
    }


@each_table
def test_a_column_a_class(make):
    table = with_probabilities(make(COLUMNS), NAMED, columns=["a", "b", "c"])
    assert type(table) is type(make(COLUMNS))
    columns = columns_of(table)
    outputs = ["prob_cat", "prob_dog", "prob_eel", "prediction", "confidence"]
    assert list(columns) == [*COLUMNS, *outputs]
    for name, probs in zip(outputs, PROBS.T, strict=False):
        assert columns[name] == probs.tolist()
    assert columns["prediction"] == PROBS.argmax(axis=1).tolist()
    assert columns["confidence"] == PROBS.max(axis=1).tolist()
    assert columns["site"] == SITES.tolist()


@each_table
def test_an_array(make):
    table = with_probabilities(make({"z": list(LOGITS)}), NAMED, array="z")
    columns = columns_of(table)
    assert list(columns) == ["z", "probs", "prediction", "confidence"]
    assert np.array_equal(np.array(list(map(list, columns["probs"]))), PROBS)


@each_table
def test_the_score_of_class_1(make):
    columns = columns_of(with_probabilities(make({"z": ODDS}), BINARY, columns=["z"]))
    assert columns["prob_1"] == BINARY.predict_proba(ODDS)[:, 1].tolist()


@each_table
def test_groups_are_in_the_column_of_the_fit(make):
    table = with_probabilities(make(COLUMNS), GROUPED, columns=["a", "b", "c"])
    expected = GROUPED.predict_proba(LOGITS, by=SITES)
    assert columns_of(table)["confidence"] == expected.max(axis=1).tolist()
    moved = {("place" if name == "site" else name): each for name, each in COLUMNS.items()}
    table = with_probabilities(make(moved), GROUPED, columns=["a", "b", "c"], by="place")
    assert columns_of(table)["confidence"] == expected.max(axis=1).tolist()


def test_a_frame_keeps_its_index():
    frame = pd.DataFrame(COLUMNS, index=[f"row {i}" for i in range(40)])
    assert list(with_probabilities(frame, PLAIN, columns=["a", "b", "c"]).index) == list(
        frame.index
    )


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({}, "give one of array= and columns="),
        ({"columns": ["a"], "array": "a"}, "give one of array= and columns="),
        ({"columns": ["a", "b"]}, "columns= has 2 names, the calibrator 3 classes"),
    ],
)
def test_where_the_scores_are_is_said(more, line):
    with pytest.raises(calibcli.UsageError, match=line):
        with_probabilities(pd.DataFrame(COLUMNS), PLAIN, **more)
    with pytest.raises(
        calibcli.UsageError, match="a table of builtins is not known; there are pan"
    ):
        with_probabilities(COLUMNS, PLAIN, columns=["a", "b", "c"])


@each_table
def test_a_column_that_is_missing_or_there_already_is_refused(make):
    with pytest.raises(calibcli.UsageError, match="no column 'd'; it has a, b, c, site"):
        with_probabilities(make(COLUMNS), PLAIN, columns=["a", "b", "d"])
    with pytest.raises(calibcli.UsageError, match="no column 'z'"):
        with_probabilities(make(COLUMNS), PLAIN, array="z")
    with pytest.raises(calibcli.UsageError, match="no column 'place'"):
        with_probabilities(make(COLUMNS), GROUPED, columns=["a", "b", "c"], by="place")
    for name in ("prob_cat", "prediction"):
        with pytest.raises(calibcli.UsageError, match=f"has a column '{name}'"):
            with_probabilities(make({**COLUMNS, name: SITES}), NAMED, columns=["a", "b", "c"])


def test_a_function_of_scores_alone_refuses_groups():
    with duckdb.connect() as connection:
        for make in (polars_expression, partial(register_in_duckdb, connection)):
            with pytest.raises(calibcli.UsageError, match="has a map for each site"):
                make(GROUPED)


def test_an_expression_of_polars():
    lazy = pl.LazyFrame(COLUMNS).with_columns(z=pl.concat_list("a", "b", "c").list.to_array(3))
    frame = lazy.with_columns(
        p=polars_expression(PLAIN, "z"), q=polars_expression(PLAIN, "a", "b", "c")
    ).collect()
    assert np.array_equal(frame["p"].to_numpy(), PROBS)
    assert np.array_equal(frame["q"].to_numpy(), PROBS)
    binary = pl.DataFrame(COLUMNS).select(polars_expression(BINARY, "a"))
    assert np.array_equal(binary.to_series().to_numpy(), BINARY.predict_proba(ODDS))


def test_a_function_of_duckdb():
    rows = pa.table({"i": range(41), "z": [*LOGITS.tolist(), None]})
    with duckdb.connect() as connection:
        register_in_duckdb(connection, PLAIN)
        connection.register("rows", rows)
        made = connection.execute("SELECT calibrate(z) FROM rows ORDER BY i").fetchall()
        (none,) = connection.execute("SELECT count(calibrate(z)) FROM rows WHERE i > 99").fetchone()
    assert np.array_equal(np.array([row[0] for row in made[:-1]]), PROBS)
    assert made[-1] == (None,)
    assert none == 0


def test_batches_as_spark_hands_them_over():
    table = pa.table({"i": range(40), "z": LOGITS.tolist()})
    function = arrow_batches(NAMED, array="z")
    batches = [*table.to_batches(max_chunksize=9), table.slice(0, 0).to_batches()[0:1]]
    flat = [batch for batch in batches if isinstance(batch, pa.RecordBatch)]
    made = pa.Table.from_batches(function(iter(flat)))
    assert np.array_equal(np.array(made["probs"].to_pylist()), PROBS)
    again = pickle.loads(pickle.dumps(PLAIN))  # noqa: S301 (its own)
    assert np.array_equal(again.predict_proba(LOGITS), PROBS)


@pytest.mark.filterwarnings("ignore:PySpark does not yet")
def test_spark(spark):
    rows = [(i, [float(z) for z in row], float(row[0])) for i, row in enumerate(LOGITS)]
    frame = spark.createDataFrame(rows, "i int, z array<double>, a double")
    made = sorted(in_spark(frame, NAMED, array="z").collect(), key=lambda row: row.i)
    assert np.array_equal(np.array([row.probs for row in made]), PROBS)
    assert [row.prediction for row in made] == PROBS.argmax(axis=1).tolist()
    made = sorted(in_spark(frame, BINARY, columns=["a"]).collect(), key=lambda row: row.i)
    assert [row.prob_1 for row in made] == BINARY.predict_proba(ODDS)[:, 1].tolist()
