"""Calibrated probabilities of every row, handed to a writer in the order of the rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NoReturn

import numpy as np

from calibcli.arrays import (
    Array,
    InputKind,
    NumpyArray,
    are_finite_halves,
    greatest,
    namespace,
    scores_to_logits,
    single_precision,
    softmax,
    to_numpy,
    wide_values,
)
from calibcli.calibrators.base import Calibrator
from calibcli.calibrators.chain import calibrate, for_rows, log_probs_after
from calibcli.engine.counting import calibrated, counted, is_countable
from calibcli.engine.engine import AS_STORED, Engine, Tile, host_logits
from calibcli.engine.kept_columns import LOWER, PROBS, UPPER, RowColumns
from calibcli.engine.kept_tiles import KeptTiles
from calibcli.engine.machine import keep_freed_memory, one_blas_thread
from calibcli.engine.source import Chunk, Source
from calibcli.engine.survey import TOO_LARGE
from calibcli.errors import DataError

_CHUNK_BYTES = 8 << 20


LOCAL = Engine()
"""Where arrays of the Python interface are calibrated."""

ALL_COLUMNS = RowColumns()
"""All probabilities, the prediction and its confidence."""

_LARGEST_TENSOR = 1 << 26
"""Scores that are calibrated on a device at once."""

_FEW_PRODUCTS = 1 << 13
"""Linear algebra of no more multiplications runs on one thread of its own accord."""


@dataclass(frozen=True)
class Predictions:
    """A chunk of rows with what a calibrator says of them.

    Attributes
    ----------
    chunk : Chunk
        The rows as read.
    columns : dict of str to array (n,) or (n, m)
        What was computed, by name; probabilities are float32, or float64 where the scores are.
    """

    chunk: Chunk
    columns: Mapping[str, NumpyArray]

    def __len__(self) -> int:
        return len(self.chunk)

    @property
    def probs(self) -> NumpyArray:
        """Probabilities (n, K)."""
        return self.columns[PROBS]

    @property
    def interval(self) -> tuple[NumpyArray, NumpyArray] | None:
        """From where to where the confidence may lie, where the last stage says so."""
        return (self.columns[LOWER], self.columns[UPPER]) if LOWER in self.columns else None


def probabilities(stages: Sequence[Calibrator], logits: Array) -> Array:
    """Probabilities (n, K) after all stages, from logits (n, K)."""
    return softmax(calibrate(stages, logits))


def probabilities_at_once(
    stages: Sequence[Calibrator], scores: NumpyArray, kind: InputKind
) -> NumpyArray | None:
    """Probabilities (n, K) of rows that fit into a tile, to the byte as `calibrated_chunks` does.

    Parameters
    ----------
    stages : sequence of Calibrator
    scores : float32 or float64 array (n, C)
        In host memory; C is K or, for two classes, 1.
    kind : str
        What the scores are.

    Returns
    -------
    array (n, K) or None
        None where that is no work for here: the rows are none or too many, or one of them has no
        probabilities, which `calibrated_chunks` refuses with its place.
    """
    rows, columns = scores.shape
    if rows != 1 and not 0 < rows <= LOCAL.tile_rows(columns):
        return None
    if not greatest(scores) < TOO_LARGE[kind]:
        return None
    # Where a row has no probabilities its arithmetic has an invalid operation.
    with np.errstate(invalid="ignore"):
        logits = host_logits(scores, kind)
        if rows * logits.shape[1] ** 2 <= _FEW_PRODUCTS:
            probs = probabilities(stages, logits)
        else:
            keep_freed_memory()
            with one_blas_thread():
                probs = probabilities(stages, logits)
    return None if math.isnan(greatest(probs)) else np.ascontiguousarray(probs)


def probabilities_on_device(
    stages: Sequence[Calibrator], scores: Array, kind: InputKind
) -> Array | None:
    """Probabilities (n, K) of scores (n, C) as torch has them, computed where they are.

    None where a row has no probabilities, or more scores than fit; see `probabilities_at_once`.
    """
    if scores.shape[0] * scores.shape[1] > _LARGEST_TENSOR:
        return None
    logits = scores_to_logits(scores, kind)
    probs, xp = probabilities(stages, logits), namespace(logits)
    usable = xp.all(probs >= 0) & xp.all(scores < TOO_LARGE[kind])
    return probs if bool(usable) else None


def is_by_value(
    engine: Engine, source: Source, stages: Sequence[Calibrator], columns: RowColumns
) -> bool:
    """Whether the columns come from the distinct logits of each row, and of wide tiles."""
    return columns.of_rows and is_countable(engine, source, stages)


def chunk_rows(engine: Engine, source: Source, *, wide: bool = False) -> int:
    """Rows to calibrate and write at a time; for ``wide`` tiles see `Engine.fold`."""
    rows = engine.rows_at_once(source.columns, wide)
    # Of wide tiles there are but columns of the rows to write, and one would keep one thread busy.
    fewest = engine.thread_count if wide else 1
    wanted = max(_CHUNK_BYTES // (4 * source.columns) // rows, fewest) * rows
    return min(engine.chunk_rows(source), wanted)


def calibrated_chunks(
    engine: Engine,
    source: Source,
    chunks: Iterator[Chunk],
    stages: Sequence[Calibrator],
    columns: RowColumns = ALL_COLUMNS,
    *,
    intervals: bool = False,
    together: int = 1,
    counts: KeptTiles | None = None,
) -> Iterator[Predictions]:
    """The rows of some chunks with what is to be known of them, in order.

    Parameters
    ----------
    columns : RowColumns
        What that is.
    intervals : bool
        Whether intervals of the confidence are wanted, where there are some.
    together : int
        So many neighbouring rows come together.
    counts : KeptTiles, optional
        These rows by value, as far as they are known.

    Raises
    ------
    DataError
        A row whose scores have no probabilities, with its place.
    """
    work, dtype = partial(_calibrated, tuple(stages), columns, intervals), None
    wide = is_by_value(engine, source, stages, columns) and together == 1
    if wide:
        work, dtype = partial(_by_value, counts or KeptTiles(), tuple(stages), columns), AS_STORED
    mapped = engine.map_chunks(source, chunks, work, dtype, together=together, wide=wide)
    for results, chunk in mapped:
        without, parts = zip(*results, strict=True)
        refused = np.concatenate(without)
        if not wide:
            refused |= _too_large(source, chunk)
        if refused.any():
            _refuse(source, chunk, int(refused.argmax()))
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        yield Predictions(chunk, whole)


def _calibrated(
    stages: tuple[Calibrator, ...], columns: RowColumns, intervals: bool, tile: Tile
) -> tuple[NumpyArray, Mapping[str, NumpyArray]]:
    """Which rows (n,) have no probabilities, and the columns of all."""
    # Rows that have no probabilities come out as NaN, and are refused by their number.
    with np.errstate(invalid="ignore"):
        stages = for_rows(stages, tile.keys)
        logits = log_probs_after(stages[:-1], tile.logits)
        probs = np.ascontiguousarray(to_numpy(probabilities(stages[-1:], logits)))
        prediction, confidence = probs.argmax(axis=1), probs.max(axis=1)
        interval = None
        if intervals and stages:
            classes = namespace(logits).asarray(prediction, device=logits.device)
            interval = stages[-1].interval(logits, classes)
        if interval is not None:
            lower, upper = (to_numpy(end).astype(probs.dtype) for end in interval)
            # Rounding must not push the confidence out of its interval.
            interval = np.minimum(lower, confidence), np.maximum(upper, confidence)
        labels = None if tile.labels is None else to_numpy(tile.labels)
        return np.isnan(confidence), columns(probs, prediction, confidence, interval, labels)


def _by_value(
    counts: KeptTiles, stages: tuple[Calibrator, ...], columns: RowColumns, tile: Tile
) -> tuple[NumpyArray, Mapping[str, NumpyArray]]:
    """As `_calibrated`, of a wide tile of half precision, whose columns are `RowColumns.of_rows`.

    The last stage has no interval then, as it is one of those that treat equal logits equally.
    """
    if not are_finite_halves(tile.logits):
        logits = single_precision(tile.logits)
        without, numbers = _calibrated(stages, columns, False, replace(tile, logits=logits))
        infinite: NumpyArray = (to_numpy(logits) == np.inf).any(axis=1)
        return without | infinite, numbers
    # Not when the module is loaded: a service has no use for it.
    from calibcli.metrics.counted_view import CountedView

    scores = counted(counts, (), tile).counted
    assert scores is not None
    labels = None if tile.labels is None else to_numpy(tile.labels)
    view = CountedView(calibrated(scores, stages), np.zeros(len(tile), np.int64))

    def chance(classes: NumpyArray) -> NumpyArray:
        return view.probabilities_at(classes).astype(np.float32)

    confidence = view.top_confidence.astype(np.float32)
    numbers = columns.numbers(view.prediction, confidence, labels, chance, view.classes)
    return np.isnan(confidence), numbers


def _too_large(source: Source, chunk: Chunk) -> NumpyArray:
    """Which rows (n,) have a score that is none, or more than any probability."""
    limit = TOO_LARGE[source.kind]
    usual = source.kind == "logits" and are_finite_halves(chunk.scores)
    rows = np.zeros(len(chunk), bool)
    if not usual and chunk.scores.max() >= limit:
        rows |= (chunk.scores >= limit).any(axis=1)
    return rows


def _refuse(source: Source, chunk: Chunk, row: int) -> NoReturn:
    """Say what is wrong with a row that has no probabilities."""
    limit = TOO_LARGE[source.kind]
    scores = wide_values(chunk.scores[row])
    lowest = 0 if source.kind == "probs" else -np.inf
    wrong = np.flatnonzero(~((scores >= lowest) & (scores < limit)))
    # What is left is a row of -inf.
    what = "every class has the logit -inf"
    if len(wrong):
        value = {"nan": "NaN", "inf": "+inf"}.get(str(scores[wrong[0]]), f"{scores[wrong[0]]:.6g}")
        what = f"the score of class {wrong[0]} is {value}"
    raise DataError(f"{source.locate(chunk.start + row)}: {what}")
