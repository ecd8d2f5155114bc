"""`predict_proba` takes what pandas, Polars and Arrow have, and gives the same kind back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import calibcli

RNG = np.random.default_rng(1)
LOGITS = 3 * RNG.normal(size=(40, 3))
LABELS = (LOGITS / 2 + RNG.gumbel(size=LOGITS.shape)).argmax(axis=1)
NAMES = ("cat", "dog", "eel")
ODDS = LOGITS[:, 0].copy()

PLAIN = calibcli.fit(LOGITS, LABELS, folds=0)
NAMED = replace(PLAIN, params=replace(PLAIN.params, class_names=NAMES))
BINARY = calibcli.fit(ODDS, LABELS == 0, method="platt", folds=0)
PROBS = PLAIN.predict_proba(LOGITS)
BINARY_PROBS = BINARY.predict_proba(ODDS)
INDEX = [f"row {i}" for i in range(len(LOGITS))]
COLUMNS = ["a", "b", "c"]


def arrow_table(kind: Any) -> Any:
    return kind.from_arrays([pa.array(column) for column in LOGITS.T], names=COLUMNS)


def values(probs: Any) -> np.ndarray:
    """The probabilities (n, K) in a container."""
    if isinstance(probs, pa.Array):
        return np.array(probs.to_pylist())
    if isinstance(probs, (pa.Table, pa.RecordBatch)):
        return np.column_stack([column.to_numpy() for column in probs.itercolumns()])
    return probs.to_numpy()


@pytest.mark.parametrize(
    ("scores", "kind"),
    [
        (pd.DataFrame(LOGITS, columns=COLUMNS), pd.DataFrame),
        (pd.Series(LOGITS.tolist()), pd.DataFrame),
        (pl.DataFrame(LOGITS, schema=COLUMNS), pl.DataFrame),
        (pl.Series(LOGITS), pl.Series),
        (pl.Series(LOGITS.tolist()), pl.Series),
        (arrow_table(pa.Table), pa.Table),
        (arrow_table(pa.RecordBatch), pa.RecordBatch),
        (pa.array(LOGITS.tolist()), pa.FixedSizeListArray),
        (pa.FixedSizeListArray.from_arrays(LOGITS.ravel(), 3), pa.FixedSizeListArray),
        (pa.chunked_array([LOGITS[:9].tolist(), LOGITS[9:].tolist()]), pa.FixedSizeListArray),
    ],
    ids=lambda value: "" if isinstance(value, type) else type(value).__module__,
)
def test_rows_of_classes(scores: Any, kind: type) -> None:
    probs = PLAIN.predict_proba(scores)
    assert isinstance(probs, kind)
    assert np.array_equal(values(probs), PROBS)


@pytest.mark.parametrize("make", [pd.Series, pl.Series, pa.array])
def test_scores_of_class_1(make: Callable[[Any], Any]) -> None:
    assert np.array_equal(values(BINARY.predict_proba(make(ODDS))), BINARY_PROBS)


@pytest.mark.parametrize("make", [pd.Series, pl.Series, pa.array])
def test_a_single_row(make: Callable[[Any], Any]) -> None:
    row = PLAIN.predict_proba(make(LOGITS[0]))
    assert type(row) is type(make(LOGITS[0]))
    assert np.asarray(row).tolist() == PLAIN.predict_proba(LOGITS[0]).tolist()


def test_frames_keep_their_index_and_are_called_by_the_classes() -> None:
    frame = pd.DataFrame(LOGITS, index=INDEX, columns=COLUMNS)
    assert list(PLAIN.predict_proba(frame).index) == INDEX
    assert list(PLAIN.predict_proba(frame).columns) == COLUMNS
    assert list(NAMED.predict_proba(frame).columns) == list(NAMES)
    assert NAMED.predict_proba(pl.from_numpy(LOGITS, COLUMNS)).columns == list(NAMES)
    assert NAMED.predict_proba(arrow_table(pa.Table)).column_names == list(NAMES)
    assert list(NAMED.predict_proba(frame.iloc[0]).index) == list(NAMES)
    assert list(BINARY.predict_proba(pd.Series(ODDS, index=INDEX)).index) == INDEX


@pytest.mark.parametrize("scores", [pl.Series([[1.0, 2.0, 3.0], None]), pa.array([None, 1.0])])
def test_nulls_are_refused(scores: Any) -> None:
    fitted = PLAIN if isinstance(scores, pl.Series) else BINARY
    with pytest.raises(calibcli.DataError, match=r"row [01]: the scores are null"):
        fitted.predict_proba(scores)


def test_a_frame_of_texts_is_refused() -> None:
    with pytest.raises(calibcli.DataError, match="scores must be numbers"):
        PLAIN.predict_proba(pd.DataFrame({"a": ["x"], "b": ["y"], "c": ["z"]}))
