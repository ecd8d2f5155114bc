"""Where a fold runs: tiles of rows, cut at fixed places, on threads or on a GPU.

Tiles are cut at multiples of a row count that depends on the number of classes and the device
alone, and their states are merged in the order of the rows, in float64. So a result does not
depend, to the last bit, on the number of threads, on the memory limit, or on how the rows are
spread over files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from calibcli.arrays import Array, InputKind, NumpyArray, scores_to_logits
from calibcli.cached import cached_property
from calibcli.engine.machine import (
    default_memory,
    device_memory,
    keep_freed_memory,
    one_blas_thread,
    to_device,
)
from calibcli.engine.source import ArraySource, Chunk, Keys, Partition, Source, join
from calibcli.engine.workers import Workers
from calibcli.value_counts import CountedScores

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

State = TypeVar("State")
Result = TypeVar("Result")

_TILE_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 26}
_TURNED_UP_TO_CLASSES = 128

AS_STORED = "as stored"
"""A precision: logits of half precision as they are, which is enough to look at their bits."""

_SEGMENT_TILES = 16
"""Tiles whose states are merged before those of others: what a worker folds at a time."""

_WIDE = 4
"""Wide tiles of a segment: so few rows that matrices by class, where one is needed, are small."""


@dataclass(frozen=True)
class Tile:
    """Rows that fit into a cache, ready for arithmetic.

    Attributes
    ----------
    start : int
        Number of the first row.
    logits : array (n, K)
        float32 or float64, on the engine's device. With few classes it lies in memory with the
        classes as rows, so that sums over classes run along contiguous memory.
    labels : int array (n,) or None
        On the engine's device.
    weights : float64 array (n,) or None
        On the engine's device.
    keys : dict of str to int64 NumPy array (n,), or None
        Numbers of groups by role (``"group"``, ``"by"``, ``"cluster"``), where they were asked for.
    counted : CountedScores or None
        The scores by value, where the fold is one that takes them so (`Data.fold_by_value`); the
        logits are then as stored.
    """

    start: int
    logits: Array
    labels: Array | None
    weights: Array | None
    keys: Keys | None = None
    counted: CountedScores | None = None

    def __len__(self) -> int:
        return int(self.logits.shape[0])


@dataclass(frozen=True)
class Engine:
    """Runs folds and maps over the tiles of a source.

    Parameters
    ----------
    device : str
        ``"cpu"`` (NumPy on threads) or a torch device.
    threads : int
        Worker threads on the CPU; 0 takes all that this process may use.
    memory : int
        Bytes of rows that may be held; 0 takes half of what is free.
    workers : Workers, optional
        Where to fold files instead. Descriptions of rows are sent, and states come back; rows that
        are in memory are folded here.
    on_rows : callable, optional
        Told the number of rows of every chunk that is done.
    """

    device: str = "cpu"
    threads: int = 0
    memory: int = 0
    workers: Workers | None = field(default=None, compare=False)
    on_rows: Callable[[int], None] | None = field(default=None, compare=False)

    @cached_property
    def thread_count(self) -> int:
        """The number of threads in use here."""
        if self.device != "cpu":
            return 1
        return self.threads or _usable_cores()

    @cached_property
    def room(self) -> int:
        """Bytes of rows that may be held."""
        return self.memory or default_memory()

    def tile_rows(self, classes: int) -> int:
        """Rows of a tile; a function of the class count and the device alone."""
        elements = _TILE_ELEMENTS["cpu" if self.device == "cpu" else "cuda"]
        return max(1, elements // max(classes, 2))

    def tile(self, chunk: Chunk, kind: InputKind, dtype: Any = None) -> Tile:
        """Rows as stored, made ready for arithmetic."""
        scores = chunk.scores
        if dtype == AS_STORED:
            dtype = None
            if self.device == "cpu" and kind == "logits" and _is_half(scores):
                scores = scores if scores.flags.aligned else scores.copy()
                return Tile(chunk.start, scores, chunk.labels, chunk.weights, chunk.keys)
        if self.device != "cpu":
            logits = scores_to_logits(to_device(scores, self.device, dtype), kind)
            labels = to_device(chunk.labels, self.device)
            weights = to_device(chunk.weights, self.device)
            return Tile(chunk.start, logits, labels, weights, chunk.keys)
        if dtype is not None and scores.dtype != dtype:
            scores = scores.astype(dtype)
        logits = host_logits(scores, kind)
        return Tile(chunk.start, logits, chunk.labels, chunk.weights, chunk.keys)

    def fold(
        self,
        source: Source,
        partial_state: Callable[[Tile], State],
        merge: Callable[[State, State], State],
        dtype: Any = None,
        *,
        wide: bool = False,
    ) -> State:
        """The merged states of all tiles of a source.

        Parameters
        ----------
        source : Source
        partial_state : callable
            Tile -> state; runs on several threads at once.
        merge : callable
            Two states of neighbouring rows -> one, associative.
        dtype : numpy dtype, optional
            Compute in this precision rather than in that of the stored scores; or `AS_STORED`.
        wide : bool
            Whether tiles have several times as many rows, for work that divides them itself.
        """
        if self.is_elsewhere(source):
            segments = self._fold_elsewhere(source, partial_state, merge, dtype, wide)
        else:
            states = self.map(source, partial_state, dtype, wide=wide)
            tiles = self.segment_rows(source.columns) // self.rows_at_once(source.columns, wide)
            segments = _by_segment(states, merge, tiles)
        return merge_all(segments, merge)

    def is_elsewhere(self, source: Source) -> bool:
        """Whether the rows of a source are folded by workers."""
        return self.workers is not None and not isinstance(source, ArraySource)

    def release(self) -> None:
        """Let workers give back the rows that they keep."""
        if self.workers is not None:
            self.workers.release()

    def _fold_elsewhere(
        self,
        source: Source,
        partial_state: Callable[[Tile], State],
        merge: Callable[[State, State], State],
        dtype: Any,
        wide: bool,
    ) -> Iterator[State]:
        """The state of each segment, from the workers, in the order of the rows."""
        assert self.workers is not None
        rows = self.segment_rows(source.columns)
        work = partial_state, merge, dtype, wide
        fold = partial(self._on_worker.fold_segment, source.kind, *work)
        for number, state in enumerate(self.workers.run(fold, source, rows)):
            if self.on_rows is not None:
                self.on_rows(min(rows, source.rows - number * rows))
            yield state

    @property
    def _on_worker(self) -> Engine:
        """The engine that a worker has."""
        assert self.workers is not None
        return Engine(self.device, self.workers.threads, self.workers.memory)

    def map_parts(
        self, source: Source, function: Callable[[Engine, int, Partition], Result], rows: int
    ) -> Iterator[Result]:
        """A function of every part of so many rows, by its number, in the order of the rows.

        Parameters
        ----------
        source : Source
        function : callable
            Engine, number, part -> result; runs on a worker if there are any, and pickles then. A
            part may be given to it twice, where a worker is lost.
        rows : int
            Of each part but for the last.
        """
        if self.workers is None:
            for number, part in enumerate(source.cut(rows)):
                yield function(self, number, part)
            return
        parts = enumerate(self.workers.parts_of(source, rows))
        tasks = [partial(function, self._on_worker, number, part) for number, part in parts]
        for number, result in enumerate(self.workers.map(tasks)):
            if self.on_rows is not None:
                self.on_rows(min(rows, source.rows - number * rows))
            yield result

    def segment_rows(self, columns: int) -> int:
        """Rows of a segment, whose states are merged before those of others."""
        return _SEGMENT_TILES * self.tile_rows(columns)

    def every(self, source: Source, step: int) -> ArraySource:
        """Every ``step``-th row of a source, by the number of the row, in memory."""
        if isinstance(source, ArraySource):
            whole = Chunk(0, source.scores, source.labels, source.weights, keys=source.keys)
            picked = [whole.every(step)]
        elif self.workers is not None:
            rows = self.segment_rows(source.columns)
            picked = list(self.workers.run(partial(_every, step), source, rows))
        else:
            picked = [chunk.every(step) for chunk in source.chunks(self.chunk_rows(source))]
        return ArraySource.of(join(picked), source)

    def map(
        self,
        source: Source,
        function: Callable[[Tile], Result],
        dtype: Any = None,
        *,
        wide: bool = False,
    ) -> Iterator[Result]:
        """``function(tile)`` of every tile, in the order of the rows; see `fold`."""
        chunks = source.chunks(self.chunk_rows(source))
        for results, _ in self.map_chunks(source, chunks, function, dtype, wide=wide):
            yield from results

    def map_chunks(
        self,
        source: Source,
        chunks: Iterator[Chunk],
        function: Callable[[Tile], Result],
        dtype: Any = None,
        *,
        together: int = 1,
        wide: bool = False,
    ) -> Iterator[tuple[Iterator[Result], Chunk]]:
        """The results of the tiles of each chunk, with the chunk, in the order of the rows.

        So many neighbouring rows as stay ``together`` are in one chunk; for ``wide`` see `fold`.
        """
        rows = max(self.rows_at_once(source.columns, wide) // together, 1) * together
        with one_blas_thread():
            for chunk in _read_ahead(_aligned(chunks, rows)):
                yield self._tile_results(chunk, source.kind, function, dtype, wide), chunk
                if self.on_rows is not None:
                    self.on_rows(len(chunk))

    def rows_at_once(self, columns: int, wide: bool) -> int:
        """Rows of a tile, or of a wide one, of which a segment is several."""
        return self.tile_rows(columns) * (max(_SEGMENT_TILES // _WIDE, 1) if wide else 1)

    def _tile_results(
        self,
        chunk: Chunk,
        kind: InputKind,
        function: Callable[[Tile], Result],
        dtype: Any,
        wide: bool,
    ) -> Iterator[Result]:
        """``function(tile)`` of every tile of a chunk, in the order of the rows."""
        keep_freed_memory()

        def work(rows_of_tile: Chunk) -> Result:
            return function(self.tile(rows_of_tile, kind, dtype))

        rows = self.rows_at_once(chunk.scores.shape[1], wide)
        parts = (chunk.rows(i, i + rows) for i in range(0, len(chunk), rows))
        alone = self.thread_count == 1 or len(chunk) <= rows
        return map(work, parts) if alone else self.pool.map(work, parts)

    def fold_segment(
        self,
        kind: InputKind,
        partial_state: Callable[[Tile], State],
        merge: Callable[[State, State], State],
        dtype: Any,
        wide: bool,
        chunk: Chunk,
    ) -> State:
        """The merged states of the tiles of some rows; what a worker does."""
        with one_blas_thread():
            return merge_all(self._tile_results(chunk, kind, partial_state, dtype, wide), merge)

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """The threads that work on tiles."""
        # Imported where threads are used: a service at its start has none.
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(self.thread_count, "calib")

    @property
    def spread(self) -> Callable[..., Iterator[Any]]:
        """As `map`, with an item for each thread at a time; not to be called by work on tiles."""
        return map if self.thread_count == 1 else self.pool.map

    def chunk_rows(self, source: Source) -> int:
        """Rows to read at a time, so that what is held stays within the memory limit."""
        if source.resident() and self.fits(source):
            return source.rows or 1
        row = max(source.columns * source.dtype.itemsize, 1)
        rows = self.tile_rows(source.columns)
        # A chunk is held while the next one is read and decoded, which takes about as much again.
        return max(self.room // 8 // row // rows, 1) * rows

    def fits(self, source: Source) -> bool:
        """Whether the scores of a source may be held in memory, or on a device with its own."""
        size = source.rows * source.columns * max(source.dtype.itemsize, 4)
        return size <= (self.room // 2 if self.device == "cpu" else device_memory(self.device) // 3)


def host_logits(scores: NumpyArray, kind: InputKind) -> NumpyArray:
    """The logits (n, K) of a tile from scores (n, C), as they lie in host memory."""
    if not scores.flags.aligned:
        # A member of an NPZ file begins anywhere; arithmetic would go through small buffers.
        scores = scores.copy()
    logits: NumpyArray = scores_to_logits(scores, kind)
    return np.asfortranarray(logits) if logits.shape[1] <= _TURNED_UP_TO_CLASSES else logits


def _is_half(scores: NumpyArray) -> bool:
    """Whether scores (n, C) are of half precision, a column for each class."""
    return bool(scores.dtype == np.float16 and scores.shape[1] > 1)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def merge_all(states: Any, merge: Callable[[State, State], State]) -> State:
    """The states merged from the first to the last."""
    iterator = iter(states)
    merged: State = next(iterator)
    for state in iterator:
        merged = merge(merged, state)
    return merged


def _by_segment(
    states: Iterator[State], merge: Callable[[State, State], State], tiles: int
) -> Iterator[State]:
    """The states of tiles merged by segments, as workers do, so that sums round in one way."""
    first = next(states)
    for number, state in enumerate(states, 1):
        if number % tiles:
            first = merge(first, state)
        else:
            yield first
            first = state
    yield first


def _every(step: int, chunk: Chunk) -> Chunk:
    return chunk.every(step)


def _aligned(chunks: Iterator[Chunk], rows: int) -> Iterator[Chunk]:
    """The same rows in chunks that begin at multiples of ``rows``."""
    waiting: list[Chunk] = []
    for chunk in chunks:
        waiting.append(chunk)
        count = sum(map(len, waiting))
        if count >= rows:
            whole = join(waiting)
            end = count // rows * rows
            yield whole.rows(0, end)
            waiting = [whole.rows(end, count)] if end < count else []
    if waiting:
        yield join(waiting)


def _read_ahead(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The same chunks, the next one being read while the caller works on this one."""
    first = next(chunks, None)
    if first is None:
        return
    chunk = next(chunks, None)
    yield first
    del first
    if chunk is None:
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, "calib-read") as reader:
        waiting = reader.submit(next, chunks, None)
        while chunk is not None:
            yield chunk
            chunk = waiting.result()
            waiting = reader.submit(next, chunks, None)
