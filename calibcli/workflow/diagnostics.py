"""A closer look at what a map makes of the data: slices of the rows, and tests with p-values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from calibcli.calibrators.base import Calibrator
from calibcli.engine.data import Data
from calibcli.engine.folds import CLUSTER
from calibcli.errors import DataError
from calibcli.metrics.hypothesis_tests import (
    CalibrationTests,
    Coefficient,
    LogisticRecalibration,
    TestResult,
)
from calibcli.metrics.panel import Panel
from calibcli.metrics.periods import PeriodSums
from calibcli.metrics.resampling import Units
from calibcli.metrics.slices import BY, SliceSums
from calibcli.metrics.view import Event
from calibcli.workflow.measuring import Through, measure

MOST_SLICES = 4096
"""A column of more values names rows rather than parts of the data."""


def slices_of_column(data: Data, column: str) -> SliceSums:
    """The statistic of the slices that a key column makes.

    Raises
    ------
    DataError
        The column has too many values.
    """
    count = len(data.key_names(BY))
    if count > MOST_SLICES:
        raise DataError(
            f"--by {column}: the column has {count:,} values; at most {MOST_SLICES:,} slices are "
            "looked at, so group them first"
        )
    return SliceSums(count, BY, _clusters(data))


def periods_of_column(data: Data) -> PeriodSums:
    """The statistic of what is expected and observed for each value of a key column."""
    return PeriodSums(len(data.key_names(BY)), _clusters(data))


def slices_of_classes(data: Data) -> SliceSums:
    """The statistic of the rows of every predicted class."""
    return SliceSums(data.classes, units=_clusters(data))


def _clusters(data: Data) -> Units | None:
    """The clusters of the rows, where there are any."""
    return None if data.clusters is None else Units(data.clusters, CLUSTER, data.seed)


def run_tests(
    data: Data,
    stages: Sequence[Calibrator] = (),
    seed: int = 0,
    role: str | None = None,
    *,
    event: Event = "auto",
) -> list[TestResult]:
    """All tests of calibration, from one pass over the data; the last is the answer of all.

    Parameters
    ----------
    data : Data
    stages : sequence of Calibrator
        What the rows are run through first.
    seed : int
        Of the labels that are drawn, and of the kernel's features.
    role : str or None
        Role of the key column of clusters whose rows are not independent.
    event : Event
        What the confidence is of.
    """
    tests, logistic = CalibrationTests(data.rows, seed, role), LogisticRecalibration()
    panel = Panel(["nll"], also=(tests, logistic), event=event)
    (evaluation,) = measure(data, [Through(tuple(stages))], panel)
    coefficients = dict(zip(("in_the_large", "slope"), evaluation.also[logistic], strict=True))
    return [_with(result, coefficients.get(result.name), role) for result in evaluation.also[tests]]


def _with(result: TestResult, coefficient: Coefficient | None, role: str | None) -> TestResult:
    if coefficient is None:
        return result
    # The sandwich takes rows to be independent.
    error = coefficient.error if role is None else None
    return replace(result, estimate=coefficient.value, error=error)
