"""Workers that fold pieces of a source elsewhere: in other processes, or on a cluster.

A piece is a description of some rows, which a worker reads itself; states come back. Who schedules
the work, and does it again where a worker is lost, is what the address names: a scheduler of Dask,
a cluster of Ray, or Python's own pools of processes. A worker keeps the rows that it has decoded
for the next pass.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, ClassVar, TypeVar

from calibcli.engine.kept_tiles import forget_tiles
from calibcli.engine.machine import default_memory
from calibcli.engine.source import Chunk, Partition, Source, join
from calibcli.errors import CalibError, UsageError

Result = TypeVar("Result")

_AHEAD = 4
"""Messages that are under way for each worker, so that none waits for the next."""

_TOGETHER = 8
"""Pieces that are sent in one message, at most: a scheduler takes some 10 ms for each."""

_IDLE_SECONDS = 60.0
"""Rows of a job that nobody asked for so long may be given up for those of another."""


class WorkersError(CalibError):
    """Workers that cannot be reached, or that were lost for good."""

    page = "clusters"


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of a source, as a description that a worker can read.

    Attributes
    ----------
    key : (str, int)
        Of which job it is, and its number there; what a worker knows its rows by.
    rows : int
    partition : Partition
    """

    key: tuple[str, int]
    rows: int
    partition: Partition

    def read(self) -> Chunk:
        """All rows of it."""
        return join(list(self.partition.chunks(self.rows)))


class HeldRows:
    """The decoded rows that a process keeps between passes, of any number of jobs."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._chunks: dict[tuple[str, int], Chunk] = {}
        self._used: dict[str, float] = {}

    def of(self, piece: Piece, room: int) -> Chunk:
        """The rows of a piece; they are kept if all that is kept then takes at most ``room``."""
        job = piece.key[0]
        with self._lock:
            self._used[job] = time.monotonic()
            chunk = self._chunks.get(piece.key)
        if chunk is None:
            chunk = piece.read()
            with self._lock:
                if self._has_room(_bytes_of(chunk), room, job):
                    self._chunks[piece.key] = chunk
        return chunk

    def _has_room(self, wanted: int, room: int, job: str) -> bool:
        """Whether so many bytes can be kept, rows of jobs that are long idle being given up."""
        if self._size() + wanted > room:
            before = time.monotonic() - _IDLE_SECONDS
            for other in [name for name, used in self._used.items() if used < before]:
                if other != job:
                    self._forget(other)
        return self._size() + wanted <= room

    def _size(self) -> int:
        return sum(map(_bytes_of, self._chunks.values()))

    def _forget(self, job: str) -> None:
        forget_tiles(job)
        self._used.pop(job, None)
        self._chunks = {key: chunk for key, chunk in self._chunks.items() if key[0] != job}

    def forget(self, job: str) -> None:
        """Give up the rows of a job that has ended."""
        with self._lock:
            self._forget(job)


HELD = HeldRows()
"""What this process keeps, where it is a worker."""


def forget_rows(job: str) -> None:
    """Give up the rows that this process keeps for a job."""
    HELD.forget(job)


def _bytes_of(chunk: Chunk) -> int:
    arrays = [chunk.scores, chunk.labels, chunk.weights, *(chunk.keys or {}).values()]
    return sum(array.nbytes for array in arrays if array is not None)


@dataclass
class Workers(ABC):
    """Where pieces are worked on; one class for each kind of address.

    Parameters
    ----------
    place : str
        What follows the kind in the address: ``"tcp://HOST:8786"`` of ``dask:tcp://HOST:8786``.
    memory : int
        Bytes of rows that a worker may hold; 0 takes half of what is free there.
    threads : int
        Threads of a worker; 0 leaves it to the kind.
    """

    place: str = ""
    memory: int = 0
    threads: int = 0
    _job: str = field(default_factory=lambda: os.urandom(16).hex(), init=False)
    _pieces: dict[int, tuple[Source, list[Piece]]] = field(default_factory=dict, init=False)

    @property
    def job(self) -> str:
        """The name by which workers know what they keep."""
        return self._job

    name: ClassVar[str]
    """The kind: the first word of an address."""

    form: ClassVar[str]
    """What an address looks like, for messages: ``"processes:N"``."""

    elsewhere: ClassVar[bool] = True
    """Whether they may be on other machines."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many pieces are worked on at once."""

    @abstractmethod
    def submit(self, slot: int, task: Callable[[], Any]) -> Any:
        """Begin a task, on the worker of a slot if that can be; returns what `result` takes.

        The task may run twice, where a worker is lost.
        """

    @abstractmethod
    def result(self, begun: Any) -> Any:
        """What a task returned.

        Raises
        ------
        WorkersError
            The workers are gone for good.
        CalibError
            That the task raised.
        """

    @abstractmethod
    def cancel(self, begun: Any) -> None:
        """Give up a task whose result nobody wants."""

    @abstractmethod
    def forget(self, job: str) -> None:
        """Let every worker give up the rows of a job."""

    def release(self) -> None:
        """Give back the rows that workers keep; the workers can be used again."""
        self._pieces.clear()
        self.forget(self._job)

    def run(
        self, function: Callable[[Chunk], Result], source: Source, rows: int
    ) -> Iterator[Result]:
        """What a function makes of every ``rows`` rows of a source, in their order.

        Raises
        ------
        DataError
            A row cannot be read.
        WorkersError
            The workers are gone for good.
        """
        pieces = self._pieces_of(source, rows)
        tasks = [partial(_on_worker, function, self.memory, piece) for piece in pieces]
        return self.map(tasks, self.together(len(tasks)))

    def together(self, pieces: int) -> int:
        """How many neighbouring pieces go to a worker in one message."""
        return min(-(-pieces // (2 * self.slots)), _TOGETHER)

    def map(self, tasks: Sequence[Callable[[], Result]], together: int = 1) -> Iterator[Result]:
        """What some tasks return, in their order; so many neighbours go to a worker ``together``.

        Raises
        ------
        WorkersError
            The workers are gone for good.
        CalibError
            That a task raised.
        """
        messages = [tasks[i : i + together] for i in range(0, len(tasks), max(together, 1))]
        waiting: deque[Any] = deque()
        begun = 0
        try:
            for _ in messages:
                while begun < len(messages) and len(waiting) < _AHEAD * self.slots:
                    message = partial(_in_turn, messages[begun])
                    waiting.append(self.submit(begun % self.slots, message))
                    begun += 1
                yield from self.result(waiting[0])
                waiting.popleft()
        finally:
            for task in waiting:
                self.cancel(task)

    def parts_of(self, source: Source, rows: int) -> Sequence[Partition]:
        """A source in parts of ``rows`` rows that workers can read.

        Raises
        ------
        UsageError
            They cannot: the rows are in temporary files of this machine.
        """
        if self.elsewhere and getattr(source, "local_copies", False):
            raise UsageError(
                f"--workers {self.name}:{self.place}: the rows were copied or unpacked to this "
                "machine, where workers don't see them; write them to a Parquet file first (calib "
                "convert), or use processes:N"
            )
        return source.cut(rows)

    def _pieces_of(self, source: Source, rows: int) -> list[Piece]:
        """A source in pieces of ``rows`` rows, which are found once."""
        if id(source) not in self._pieces:
            first = sum(len(pieces) for _, pieces in self._pieces.values())
            parts = enumerate(self.parts_of(source, rows), first)
            pieces = [Piece((self._job, number), rows, part) for number, part in parts]
            self._pieces[id(source)] = source, pieces  # which also keeps its id from another
        return self._pieces[id(source)][1]


def _in_turn(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    return [task() for task in tasks]


def _on_worker(function: Callable[[Chunk], Result], memory: int, piece: Piece) -> Result:
    """What a function makes of the rows of a piece; runs in a worker."""
    # Half of it is for the arithmetic.
    return function(HELD.of(piece, (memory or default_memory()) // 2))
