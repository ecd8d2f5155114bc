"""Calibrated probabilities of a data set, written to a file or to a folder of parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from calibcli.arrays import InputKind, NumpyArray
from calibcli.calibrators.base import Calibrator
from calibcli.engine.data import Data
from calibcli.engine.engine import Engine
from calibcli.engine.kept_columns import RowColumns
from calibcli.engine.kept_tiles import KeptTiles
from calibcli.engine.source import ArraySource, Chunk, Partition
from calibcli.tables.atomic import Outputs
from calibcli.tables.dataset import Dataset
from calibcli.tables.formats.base import UNKNOWN_ROWS
from calibcli.tables.formats.registry import OUTPUTS
from calibcli.tables.labels import NO_LABEL
from calibcli.tables.locations import is_folder
from calibcli.tables.manifest import WrittenPart
from calibcli.tables.part_folders import PartPlace
from calibcli.tables.read_options import LABEL_NAME
from calibcli.tables.writing import Writer, open_writer, output_format, writer_to
from calibcli.workflow.applying import (
    ALL_COLUMNS,
    Predictions,
    calibrated_chunks,
    chunk_rows,
    is_by_value,
)

_FEWEST_PARTS, _MOST_SEGMENTS = 64, 16
"""A part has the rows of so many segments (of up to 8 million scores) at most, and fewer where that
would not make so many parts."""


def write_calibrated(
    engine: Engine,
    dataset: Dataset,
    stages: Sequence[Calibrator],
    path: str,
    files: Outputs,
    fitted_to: Sequence[Mapping[str, Any]] | None,
    columns: RowColumns = ALL_COLUMNS,
    known: Data | None = None,
) -> int:
    """Write the calibrated probabilities of a dataset, or what is kept of them.

    A path that ends with a slash becomes a folder of Parquet files in the order of the rows. They
    are written by the workers of the engine, where it has some, and do not depend on them.

    Parameters
    ----------
    engine : Engine
    dataset : Dataset
    stages : sequence of Calibrator
    path : str
    files : Outputs
        With which the output appears.
    fitted_to : sequence of dict, or None
        Fingerprints of files: where the rows are of one of these, or if it is None, the output says
        of itself that a fit has seen them.
    columns : RowColumns, optional
        What is written of each row.
    known : Data, optional
        Rows that a fit has kept something of; of use where they are those of the dataset.

    Returns
    -------
    int
        The number of rows.

    Raises
    ------
    DataError
        A row has no probabilities, or cannot be read.
    CalibError
        The output cannot be written, or the workers are gone.
    """
    seen = fitted_to is None or dataset.seen or dataset.is_among(fitted_to)
    rows = _CalibratedRows(
        dataset.kind, dataset.columns, dataset.dtype, dataset.class_names, tuple(stages), columns
    )
    if dataset.row_labels is not None:
        rows = replace(rows, class_names=dataset.row_labels, by_label=True)
    if is_folder(path):
        return _write_parts(engine, dataset, rows, path, files, seen)
    grid = dataset.grid() if output_format(path).gives_shape and not rows.by_label else None
    described, notes = rows.described(dataset.rows), rows.notes
    with open_writer(
        path,
        described,
        outputs=files,
        seen=seen,
        grid=grid,
        notes=notes,
        threads=engine.thread_count,
    ) as writer:
        return rows.write(engine, writer, dataset, _counts_of(dataset, known))


def _counts_of(dataset: Dataset, known: Data | None) -> KeptTiles | None:
    """The rows of a dataset by value, as far as they were kept."""
    if known is None:
        return None
    source = known.source
    is_same = source is dataset or (isinstance(source, ArraySource) and source.origin is dataset)
    # What was made after stages has other numbers, but also another source.
    return known.counts if is_same else None


def _write_parts(
    engine: Engine, dataset: Dataset, rows: _CalibratedRows, path: str, files: Outputs, seen: bool
) -> int:
    folder = files.folder(path)
    size = part_rows(engine, dataset.rows, dataset.columns)
    size -= size % rows.labels  # so that no row is torn
    names = folder.part_names(-(-dataset.rows // size))
    work = partial(_write_part, rows, folder.place, names, seen)
    parts = list(engine.map_parts(dataset, work, size))
    folder.add(parts)
    return sum(part.rows for part in parts)


def part_rows(engine: Engine, rows: int, columns: int) -> int:
    """Rows of a part of so many rows: what they are written by does not change it."""
    segment = engine.segment_rows(columns)
    segments = -(-rows // segment) // _FEWEST_PARTS
    return segment * min(max(segments, 1), _MOST_SEGMENTS)


def _write_part(
    rows: _CalibratedRows,
    place: PartPlace,
    names: Sequence[str],
    seen: bool,
    engine: Engine,
    number: int,
    part: Partition,
) -> WrittenPart:
    """Write the part of a number; on a worker where there are some."""
    form = OUTPUTS[".parquet"]
    with place.open(names[number]) as file:
        described = rows.described(UNKNOWN_ROWS)
        threads = engine.thread_count
        with writer_to(
            file, form, described, seen=seen, notes=rows.notes, threads=threads
        ) as writer:
            written = rows.write(engine, writer, _PartSource(rows, part))
        return WrittenPart(names[number], written, file.seek(0, 2))


@dataclass(frozen=True)
class _Described:
    """What a writer must know of its input.

    Attributes
    ----------
    rows : int
    class_names : tuple of str or None
    """

    rows: int
    class_names: tuple[str, ...] | None


@dataclass(frozen=True)
class _CalibratedRows:
    """How rows that are read become rows that are written, wherever that is done.

    Attributes
    ----------
    kind : str
    columns : int
    dtype : numpy.dtype
        What the scores are.
    class_names : tuple of str or None
        Of the output.
    stages : tuple of Calibrator
    row_columns : RowColumns
    by_label : bool
        Whether a row is one of the labels ``class_names`` of a stored row, which becomes one row of
        the output, with a probability for each.
    """

    kind: InputKind
    columns: int
    dtype: np.dtype[Any]
    class_names: tuple[str, ...] | None
    stages: tuple[Calibrator, ...]
    row_columns: RowColumns
    by_label: bool = False

    @property
    def labels(self) -> int:
        """How many rows become one row of the output."""
        return len(self.class_names or ()) if self.by_label else 1

    @property
    def notes(self) -> dict[str, str] | None:
        """How the output is to be read, where that is not plain."""
        return self.row_columns.notes(max(self.columns, 2))

    def described(self, rows: int) -> _Described:
        """What the writer of some rows must know."""
        return _Described(rows if rows == UNKNOWN_ROWS else rows // self.labels, self.class_names)

    def write(
        self,
        engine: Engine,
        writer: Writer,
        source: Dataset | _PartSource,
        counts: KeptTiles | None = None,
    ) -> int:
        """Write all rows of a source, and return how many the output has.

        What there is of ``counts`` of these rows is used.

        Raises
        ------
        DataError
            A row has no probabilities.
        """
        written = 0
        row_columns = ALL_COLUMNS if self.by_label else self.row_columns
        wide = is_by_value(engine, source, self.stages, row_columns)
        chunks = source.chunks(chunk_rows(engine, source, wide=wide), with_columns=True)
        calibrated = calibrated_chunks(
            engine,
            source,
            chunks,
            self.stages,
            row_columns,
            intervals=not self.by_label,
            together=self.labels,
            counts=counts,
        )
        for part in calibrated:
            computed, columns = part.columns, part.chunk.columns
            if self.by_label:
                computed, columns = self._by_label(part)
            writer.write_table(computed, columns)
            written += len(part) // self.labels
        return written

    def _by_label(self, part: Predictions) -> tuple[dict[str, NumpyArray], Any]:
        columns, labels, count = part.chunk.columns, part.chunk.labels, self.labels
        if columns is not None and columns.num_columns:
            columns = columns.take(np.arange(0, len(part.probs), count))
            # Whose label a row is tells nothing of a row of all labels.
            kept = [name for name in columns.schema.names if name != LABEL_NAME]
            columns = columns.select(kept) if kept else None
        computed = {"probs": np.ascontiguousarray(part.probs[:, 1]).reshape(-1, count)}
        if labels is not None:
            computed["label"] = np.where(labels == NO_LABEL, -1, labels).reshape(-1, count)
        if self.row_columns.decider is not None:
            computed["decision"] = self.row_columns.decider(part.probs).reshape(-1, count)
        return computed, columns


@dataclass(frozen=True)
class _PartSource:
    """Some rows of a data set, as a source of `calibrated_chunks`; they are read once."""

    described: _CalibratedRows
    part: Partition
    rows: int = UNKNOWN_ROWS
    has_labels: bool = False
    has_weights: bool = False

    @property
    def kind(self) -> InputKind:
        return self.described.kind

    @property
    def columns(self) -> int:
        return self.described.columns

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.described.dtype

    def chunks(self, rows: int, with_columns: bool = False) -> Iterator[Chunk]:
        return self.part.chunks(rows, with_columns)

    def resident(self) -> bool:
        return False

    def cut(self, rows: int) -> Sequence[Partition]:
        return [self.part]

    def locate(self, row: int) -> str:
        return self.part.locate(row)
