"""Calibrated probabilities in tables of pandas, Polars, Arrow, DuckDB and Spark.

Scores are an array in one column, or numbers in a column a class, for two classes also in that of
class 1 alone. Rows get ``probs``, an array, or a column ``prob_NAME`` for each class; then
``prediction``, the number of the most probable class, and ``confidence``, its probability.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calibcli.api.containers import open_scores
from calibcli.api.fitted import FittedCalibrator
from calibcli.arrays import NumpyArray
from calibcli.calibrators.groups import groups_in
from calibcli.errors import UsageError

_MOST_NAMES = 10
"""Of columns, in a message."""


@dataclass(frozen=True)
class ScoreColumns:
    """Where a table has the scores.

    Attributes
    ----------
    calibrator : FittedCalibrator
    columns : tuple of str, optional
        One a class, or that of class 1 of two.
    array : str, optional
        One column with all scores of a row.
    by : str, optional
        The column of the groups, for a calibrator that has some; by default that of its fit.
    """

    calibrator: FittedCalibrator
    columns: tuple[str, ...] | None = None
    array: str | None = None
    by: str | None = None

    def __post_init__(self) -> None:
        if (self.columns is None) == (self.array is None):
            raise UsageError("the scores are an array or columns; give one of array= and columns=")
        classes = self.calibrator.params.classes
        if self.columns and len(self.columns) not in ((1, 2) if classes == 2 else (classes,)):
            raise UsageError(
                f"columns= has {len(self.columns)} names, the calibrator {classes} classes"
            )

    @property
    def group_column(self) -> str | None:
        """The column of the groups; None where there are none."""
        groups = groups_in(self.calibrator.stages)
        return None if groups is None else self.by or groups.column

    @property
    def probability_names(self) -> list[str]:
        """What the columns of the probabilities are called; none where they are an array."""
        params = self.calibrator.params
        names = params.class_names or range(params.classes)
        return [] if self.columns is None else [f"prob_{name}" for name in names]

    @property
    def added(self) -> list[str]:
        """The columns that a table gets."""
        return [*(self.probability_names or ["probs"]), "prediction", "confidence"]

    def check(self, names: Sequence[str]) -> None:
        """Refuse a table of these columns if one is missing, or called as one that is added.

        Raises
        ------
        UsageError
        """
        wanted = [self.array, *(self.columns or ()), self.group_column]
        for name in wanted:
            if name is not None and name not in names:
                there = ", ".join([*map(str, names[:_MOST_NAMES]), "…"][: len(names)])
                raise UsageError(f"the table has no column {name!r}; it has {there or 'none'}")
        for name in self.added:
            if name in names:
                raise UsageError(
                    f"the table has a column {name!r}, as one of those that it would get; rename it"
                )

    def probabilities(self, column: Callable[[str], Any]) -> NumpyArray:
        """Probabilities (n, K), float64, of rows by a function that gives a column by its name."""
        classes = self.calibrator.params.classes
        if self.array is not None:
            scores = open_scores(column(self.array), classes)[0]
        else:
            opened = [open_scores(column(name), 2)[0] for name in self.columns or ()]
            scores = np.concatenate(opened, axis=1)
        by = self.group_column
        groups = None if by is None else np.asarray(column(by)).astype(str)
        probs: NumpyArray = self.calibrator.predict_proba(scores.astype(np.float64), by=groups)
        return probs


def with_probabilities(
    frame: Any,
    calibrator: FittedCalibrator,
    *,
    columns: Sequence[str] | None = None,
    array: str | None = None,
    by: str | None = None,
) -> Any:
    """A table with the probabilities behind its own columns.

    Parameters
    ----------
    frame : DataFrame of pandas or Polars, or Table or RecordBatch of Arrow
    calibrator : FittedCalibrator
    columns : sequence of str, optional
        The scores: a column a class, or for two classes that of class 1.
    array : str, optional
        The scores: a column of arrays or lists. One of the two must be given.
    by : str, optional
        The column of the groups, if the calibrator has some; by default that of its fit.

    Raises
    ------
    UsageError, DataError
        With one line that says what is wrong, and in which row.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from calibcli import fit
    >>> calibrator = fit([[2, 0], [0, 2]] * 2, [0, 1, 1, 1], method="temperature", folds=0)
    >>> table = with_probabilities(pa.table({"z": [2.0]}), calibrator, columns=["z"])
    >>> table.column_names
    ['z', 'prob_0', 'prob_1', 'prediction', 'confidence']
    """
    named = None if columns is None else tuple(columns)
    places = ScoreColumns(calibrator, named, array, by)
    library = type(frame).__module__.partition(".")[0]
    if library not in _ADDED:
        raise UsageError(f"a table of {library} is not known; there are {', '.join(_ADDED)}")
    places.check(frame.schema.names if library == "pyarrow" else list(frame.columns))
    return _ADDED[library](places, frame)


def _add_to_arrow(places: ScoreColumns, table: Any) -> Any:
    import pyarrow as pa

    probs = places.probabilities(table.column)
    made: dict[str, Any] = {"prediction": probs.argmax(axis=1), "confidence": probs.max(axis=1)}
    if places.columns is None:
        flat = pa.array(probs.ravel())
        offsets = np.arange(0, probs.size + 1, probs.shape[1], dtype=np.int32)
        made = {"probs": pa.ListArray.from_arrays(pa.array(offsets), flat), **made}
    made = {**dict(zip(places.probability_names, probs.T, strict=False)), **made}
    arrays = [
        pa.array(np.ascontiguousarray(v)) if isinstance(v, np.ndarray) else v for v in made.values()
    ]
    kind = type(table)
    return kind.from_arrays([*table.itercolumns(), *arrays], [*table.schema.names, *made])


def _add_to_pandas(places: ScoreColumns, frame: Any) -> Any:
    probs = places.probabilities(frame.__getitem__)
    made: dict[str, Any] = dict(zip(places.probability_names, probs.T, strict=False))
    if places.columns is None:
        made["probs"] = list(probs)
    made |= {"prediction": probs.argmax(axis=1), "confidence": probs.max(axis=1)}
    return frame.assign(**made)


def _add_to_polars(places: ScoreColumns, frame: Any) -> Any:
    import polars as pl

    probs = places.probabilities(frame.get_column)
    made = [pl.Series(*each) for each in zip(places.probability_names, probs.T, strict=False)]
    if places.columns is None:
        made.append(pl.Series("probs", probs))
    made.append(pl.Series("prediction", probs.argmax(axis=1)))
    return frame.with_columns(*made, pl.Series("confidence", probs.max(axis=1)))


_ADDED: dict[str, Callable[[ScoreColumns, Any], Any]] = {
    "pandas": _add_to_pandas,
    "polars": _add_to_polars,
    "pyarrow": _add_to_arrow,
}


def polars_expression(calibrator: FittedCalibrator, *columns: str) -> Any:
    """An expression of Polars: the probabilities of each row, as an array.

    Parameters
    ----------
    calibrator : FittedCalibrator
    columns : str
        The scores: one column of arrays or, for two classes, of numbers; or one a class.

    Raises
    ------
    UsageError
        The calibrator has groups, which an expression of scores does not know.

    Examples
    --------
    >>> lazy.with_columns(probs=polars_expression(calibrator, "logits"))  # doctest: +SKIP
    """
    import polars as pl

    _refuse_groups(calibrator)
    classes = calibrator.params.classes
    kind = pl.Array(pl.Float64, classes)

    def calibrated(rows: Any) -> Any:
        fields = [rows.struct.field(name) for name in columns]
        parts = [open_scores(field, 2 if len(columns) > 1 else classes)[0] for field in fields]
        scores = np.concatenate(parts, axis=1).astype(np.float64)
        return pl.Series(calibrator.predict_proba(scores), dtype=kind)

    return pl.struct(*columns).map_batches(calibrated, return_dtype=kind)


def register_in_duckdb(
    connection: Any, calibrator: FittedCalibrator, name: str = "calibrate"
) -> None:
    """Make a function of DuckDB from an array of scores to an array of probabilities.

    A null gives a null.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
    calibrator : FittedCalibrator
    name : str
        Of the function: ``SELECT calibrate(logits)``, or ``calibrate([z0, z1])``.

    Raises
    ------
    UsageError
        The calibrator has groups, which a function of scores does not know.
    """
    import pyarrow as pa

    _refuse_groups(calibrator)

    def calibrated(scores: Any) -> Any:
        usable = scores.combine_chunks() if isinstance(scores, pa.ChunkedArray) else scores
        there = usable.is_valid()
        probs = calibrator.predict_proba(usable.filter(there)) if len(usable) else usable
        places = np.cumsum(np.asarray(there)) - 1
        taken = pa.array(places, mask=~np.asarray(there))
        return probs.cast(pa.list_(pa.float64())).take(taken)

    connection.create_function(name, calibrated, ["DOUBLE[]"], "DOUBLE[]", type="arrow")


def _refuse_groups(calibrator: FittedCalibrator) -> None:
    groups = groups_in(calibrator.stages)
    # Labels are groups too, but each has a score of its own.
    if groups is not None and "label_names" not in calibrator.params.reading:
        raise UsageError(
            f"the calibrator has a map for each {groups.column}; with_probabilities, in_spark and "
            "calib export --dialect read the column"
        )


def arrow_batches(
    calibrator: FittedCalibrator,
    *,
    columns: Sequence[str] | None = None,
    array: str | None = None,
    by: str | None = None,
) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """A function from batches of Arrow to batches with probabilities, as `mapInArrow` takes it.

    Parameters are those of `with_probabilities`. The function can be sent to other processes.
    """
    # The measurements of a fit are no use there.
    light = replace(calibrator, outcome=None)
    places = ScoreColumns(light, None if columns is None else tuple(columns), array, by)

    def calibrated(batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            places.check(batch.schema.names)
            if batch.num_rows:
                yield _add_to_arrow(places, batch)

    return calibrated


def in_spark(
    frame: Any,
    calibrator: FittedCalibrator,
    *,
    columns: Sequence[str] | None = None,
    array: str | None = None,
    by: str | None = None,
) -> Any:
    """A frame of Spark with the probabilities behind its own columns, by `mapInArrow`.

    Parameters are those of `with_probabilities`; workers need this package.

    Examples
    --------
    >>> in_spark(frame, calibrator, array="logits").write.parquet("out")  # doctest: +SKIP
    """
    from pyspark.sql import types

    function = arrow_batches(calibrator, columns=columns, array=array, by=by)
    named = None if columns is None else tuple(columns)
    places = ScoreColumns(calibrator, named, array, by)
    places.check(frame.columns)
    schema = types.StructType(list(frame.schema.fields))
    for name in places.probability_names or ["probs"]:
        one = types.DoubleType()
        schema = schema.add(name, one if columns is not None else types.ArrayType(one))
    schema = schema.add("prediction", types.LongType()).add("confidence", types.DoubleType())
    return frame.mapInArrow(function, schema)
