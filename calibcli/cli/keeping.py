"""What ``--keep`` asks for, checked against the output and the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from calibcli.errors import UsageError

if TYPE_CHECKING:
    from calibcli.engine.kept_columns import Kept, RowColumns
    from calibcli.tables.dataset import Dataset
    from calibcli.workflow.pricing import Decider


def checked_kept(texts: Sequence[str] | None, output: str | None) -> Kept | None:
    """What ``--keep`` says, which must suit the output.

    Raises
    ------
    UsageError
        It is not known, or the format holds the probabilities of all classes alone.
    """
    from calibcli.engine.kept_columns import parse_kept

    kept = parse_kept(texts or ())
    if kept is not None and output is not None and output.lower().endswith(".npy"):
        raise UsageError(
            f"--keep: {output} would hold the probabilities of all classes alone; write .parquet, "
            ".npz or .arrow"
        )
    return kept


def columns_kept(
    kept: Kept | None, output: str, dataset: Dataset, decider: Decider | None = None
) -> RowColumns:
    """The columns that are computed of each row of a dataset.

    Raises
    ------
    UsageError
        What is to be kept the rows do not have.
    """
    from calibcli.engine.kept_columns import RowColumns
    from calibcli.tables import is_folder, output_format

    if kept is None:
        return RowColumns(None, decider)
    if dataset.row_labels is not None:
        raise UsageError("--keep: rows with several labels have one probability for each already")
    if kept.label and not dataset.has_labels:
        raise UsageError(
            f"--keep label: {dataset.name} has no labels; leave it out, or say where they are "
            "(--labels)"
        )
    shaped = not is_folder(output) and output_format(output).gives_shape
    if kept.top and shaped and dataset.grid() is not None:
        raise UsageError(
            f"--keep top:{kept.top}: rows that get their shape back have all classes or none; "
            "write .parquet, or keep confidence"
        )
    return RowColumns(kept, decider)
