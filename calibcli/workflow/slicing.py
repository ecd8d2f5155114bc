"""Slices of the data: by a column, or by the class that is predicted."""

from __future__ import annotations

from calibcli.engine.data import Data
from calibcli.engine.folds import CLUSTER
from calibcli.errors import DataError
from calibcli.metrics.panel import Evaluation
from calibcli.metrics.resampling import Units
from calibcli.metrics.slices import Slice, SliceSums, read_slices

BY = "by"
"""Role of the key column that divides the rows."""

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


def slices_of_classes(data: Data) -> SliceSums:
    """The statistic of the rows of every predicted class."""
    return SliceSums(data.classes, units=_clusters(data))


def _clusters(data: Data) -> Units | None:
    """The clusters of the rows, where there are any."""
    return None if data.clusters is None else Units(data.clusters, CLUSTER, data.seed)


def slices(
    evaluation: Evaluation,
    statistic: SliceSums,
    names: tuple[str, ...],
    seed: int,
) -> list[Slice]:
    """The slices of a panel that was given their statistic in ``also``."""
    return read_slices(evaluation.also[statistic], names, seed)
